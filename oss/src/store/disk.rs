//! All access of a store to its segment files, behind one trait, so that tests can make any call fail.
//!
//! Not here: the index (RocksDB has files of its own) and any policy. A [`Disk`] does what it is told and reports what
//! the system said.

mod real;

use std::fmt;
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;

pub use real::RealDisk;

/// Number of a segment in its store; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Space of the file system the segments lie in, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// Size.
    pub total: u64,
    /// Not in use, also by others.
    pub free: u64,
    /// What this process may still use.
    pub available: u64,
}

/// A directory of segment files.
pub trait Disk: Send + Sync {
    /// Creates an empty segment; it must not exist. Durable after [`Disk::sync_dir`].
    fn create(&self, id: SegmentId) -> io::Result<Arc<dyn SegmentFile>>;
    /// Opens an existing segment.
    fn open(&self, id: SegmentId) -> io::Result<Arc<dyn SegmentFile>>;
    /// Removes a segment.
    fn delete(&self, id: SegmentId) -> io::Result<()>;
    /// All segments there are.
    fn list(&self) -> io::Result<Vec<SegmentId>>;
    /// Makes creations and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// Space of the file system below.
    fn space(&self) -> io::Result<DiskSpace>;
}

/// An open segment.
pub trait SegmentFile: Send + Sync {
    /// Writes some of `bytes`; returns how many.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Writes some of `pieces`, one behind the other; returns how many bytes.
    fn write_pieces_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let first = pieces.iter().find(|piece| !piece.is_empty());
        first.map_or(Ok(0), |piece| self.write_at(piece, offset))
    }
    /// [`SegmentFile::write_pieces_at`] of bytes that will hardly be read soon: they need not stay in memory.
    fn write_stream_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.write_pieces_at(pieces, offset)
    }
    /// [`SegmentFile::read_at`] of bytes that will hardly be read again soon.
    fn read_stream_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_at(bytes, offset)
    }
    /// `len` bytes at `offset` that will hardly be read again soon, in memory of their own; `UnexpectedEof` if the file
    /// ends before. `None` if [`SegmentFile::read_stream_at`] is the better way.
    fn read_direct(&self, _len: usize, _offset: u64) -> Option<io::Result<Bytes>> {
        None
    }
    /// Appends `len` bytes at `offset` to `out` if that takes no disk access, and says whether it did. If not, `out` is
    /// as it was.
    fn read_cached(&self, _out: &mut Vec<u8>, _len: usize, _offset: u64) -> bool {
        false
    }
    /// Reads some bytes; 0 at the end of the file.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Lets go of what the page cache holds of the range, as far as it is on the medium.
    fn drop_cached(&self, _offset: u64, _len: u64) {}
    /// Makes everything written durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Gives the range back to the file system; it reads as zeros then.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Bytes up to the end of the file, holes included.
    fn length(&self) -> io::Result<u64>;
    /// The first byte at or after `offset` that is not in a hole, if there is one. Where the file system knows no
    /// holes, everything is data.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;
}

/// Writes all of `bytes`, however short the single writes are.
pub fn write_all_at(file: &dyn SegmentFile, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                bytes = &bytes[n..];
                offset += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Most pieces of one vectored write (Linux `UIO_MAXIOV`).
const PIECES_MAX: usize = 1024;

/// Whether bytes are worth the memory of the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// They may be wanted again.
    Keep,
    /// Part of a stream.
    Stream,
}

/// Writes all of `pieces`, one behind the other, however short the single writes are.
pub fn write_all_pieces_at(
    file: &dyn SegmentFile,
    mut pieces: &mut [IoSlice<'_>],
    mut offset: u64,
    caching: Caching,
) -> io::Result<()> {
    IoSlice::advance_slices(&mut pieces, 0);
    while !pieces.is_empty() {
        let some = &pieces[..pieces.len().min(PIECES_MAX)];
        let written = match caching {
            Caching::Keep => file.write_pieces_at(some, offset),
            Caching::Stream => file.write_stream_at(some, offset),
        };
        match written {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                IoSlice::advance_slices(&mut pieces, n);
                offset += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Fills all of `bytes`; `UnexpectedEof` if the file ends before.
pub fn read_exact_at(
    file: &dyn SegmentFile,
    mut bytes: &mut [u8],
    mut offset: u64,
    caching: Caching,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let read = match caching {
            Caching::Keep => file.read_at(bytes, offset),
            Caching::Stream => file.read_stream_at(bytes, offset),
        };
        match read {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                bytes = &mut bytes[n..];
                offset += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
