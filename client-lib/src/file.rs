//! API
use bytes::Bytes;
use sateen_types::*;
fn later<T>() -> FsResult<T> { Err(FsError::new(FsCode::NotSupported, "not built yet")) }
/// An open file. Cheap to clone; closed by [`File::close`] or when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct File { pub(crate) inner: std::sync::Arc<()> }
#[allow(unused_variables, missing_docs)]
impl File {
    pub fn fid(&self) -> Fid { let _ = &self.inner; Fid::ROOT }
    /// Attributes as last known here, with what was written here.
    pub fn attr(&self) -> Attr { unreachable!() }
    /// Whether data cached (here or by the kernel) during an earlier open is still right.
    pub fn cache_valid(&self) -> bool { false }
    pub fn layout(&self) -> Layout { unreachable!() }
    /// Short only at the end of the file.
    pub async fn read_at(&self, offset: u64, len: usize) -> FsResult<Bytes> { later() }
    pub async fn write_at(&self, offset: u64, data: &[u8]) -> FsResult<()> { later() }
    /// Writes at the end; returns the offset it went to.
    pub async fn append(&self, data: &[u8]) -> FsResult<u64> { later() }
    /// Sends what is dirty to the OSTs and reports size and times to the MDS; not yet durable.
    pub async fn flush(&self) -> FsResult<()> { later() }
    /// Makes everything written so far durable.
    pub async fn fsync(&self) -> FsResult<()> { later() }
    pub async fn truncate(&self, len: u64) -> FsResult<Attr> { later() }
    pub async fn punch(&self, offset: u64, len: u64) -> FsResult<()> { later() }
    pub async fn allocate(&self, offset: u64, len: u64, keep_size: bool) -> FsResult<()> { later() }
    /// First data at or after `offset`; `None` if there is none (ENXIO).
    pub async fn seek_data(&self, offset: u64) -> FsResult<Option<u64>> { later() }
    /// First hole at or after `offset` (the end of the file is one); `None` at or beyond the end (ENXIO).
    pub async fn seek_hole(&self, offset: u64) -> FsResult<Option<u64>> { later() }
    /// Flushes and closes. Reports what [`File::flush`] would.
    pub async fn close(self) -> FsResult<()> { later() }
}
