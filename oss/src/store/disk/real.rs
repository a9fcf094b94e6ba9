//! Segment files in a directory of a real file system.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};

use super::{Disk, DiskSpace, SegmentFile, SegmentId};

/// Files `<16 hexadecimal digits>.seg` in a directory.
pub struct RealDisk {
    dir: PathBuf,
}

const SUFFIX: &str = ".seg";

impl RealDisk {
    /// The segments in `dir`, which is created if it is missing.
    pub fn open(dir: &Path) -> io::Result<RealDisk> {
        sateen_runtime::durable::create_dir_all(dir)?;
        Ok(RealDisk { dir: dir.to_owned() })
    }

    /// The segments in `dir`, which is left as it is, even missing.
    pub fn existing(dir: &Path) -> RealDisk {
        RealDisk { dir: dir.to_owned() }
    }

    /// The file of a segment.
    pub fn path(&self, id: SegmentId) -> PathBuf {
        self.dir.join(format!("{id}{SUFFIX}"))
    }

    /// Whether a file has the name of a segment.
    pub fn is_segment(path: &Path) -> bool {
        path.file_name().and_then(|n| n.to_str()).is_some_and(|name| segment_of(name).is_some())
    }
}

/// The segment a file is named after.
fn segment_of(name: &str) -> Option<SegmentId> {
    let digits = name.strip_suffix(SUFFIX).filter(|d| d.len() == 16)?;
    u64::from_str_radix(digits, 16).ok().map(SegmentId)
}

impl Disk for RealDisk {
    fn create(&self, id: SegmentId) -> io::Result<Arc<dyn SegmentFile>> {
        let path = self.path(id);
        Ok(RealFile::new(File::options().read(true).write(true).create_new(true).open(&path)?, &path))
    }

    fn open(&self, id: SegmentId) -> io::Result<Arc<dyn SegmentFile>> {
        let path = self.path(id);
        Ok(RealFile::new(File::options().read(true).write(true).open(&path)?, &path))
    }

    fn delete(&self, id: SegmentId) -> io::Result<()> {
        std::fs::remove_file(self.path(id))
    }

    fn list(&self) -> io::Result<Vec<SegmentId>> {
        let mut ids = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            match name.to_str().and_then(segment_of) {
                Some(id) => ids.push(id),
                None => tracing::warn!(dir = %self.dir.display(), ?name, "not a segment file; left alone"),
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    fn sync_dir(&self) -> io::Result<()> {
        sateen_runtime::durable::sync_dir(&self.dir)
    }

    fn space(&self) -> io::Result<DiskSpace> {
        let s = rustix::fs::statvfs(&self.dir)?;
        Ok(DiskSpace {
            total: s.f_blocks.saturating_mul(s.f_frsize),
            free: s.f_bfree.saturating_mul(s.f_frsize),
            available: s.f_bavail.saturating_mul(s.f_frsize),
        })
    }
}

/// A segment file, and the same once more for reading around the page cache where the file system can do that.
struct RealFile {
    file: File,
    direct: Option<File>,
}

impl RealFile {
    fn new(file: File, path: &Path) -> Arc<RealFile> {
        let direct = File::options().read(true).custom_flags(libc::O_DIRECT).open(path).ok();
        Arc::new(RealFile { file, direct })
    }
}

impl SegmentFile for RealFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(bytes, offset)
    }

    fn write_pieces_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(&self.file, pieces, offset)?)
    }

    fn write_stream_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        if let Some(written) = if_supported(|| rustix::io::pwritev2(&self.file, pieces, offset, DONTCACHE)) {
            return written;
        }
        self.write_pieces_at(pieces, offset)
    }

    fn read_stream_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut first = [IoSliceMut::new(bytes)];
        if let Some(read) = if_supported(|| rustix::io::preadv2(&self.file, &mut first, offset, DONTCACHE)) {
            return read;
        }
        self.file.read_at(bytes, offset)
    }

    fn read_direct(&self, len: usize, offset: u64) -> Option<io::Result<Bytes>> {
        match read_around_cache(self.direct.as_ref()?, len, offset) {
            // The file system takes the flag but not such a read.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => None,
            outcome => Some(outcome),
        }
    }

    fn read_cached(&self, out: &mut Vec<u8>, len: usize, offset: u64) -> bool {
        let before = out.len();
        out.reserve(len);
        while out.len() < before + len {
            let have = out.len();
            let at = offset + (have - before) as u64;
            match read_some(&self.file, &mut out.spare_capacity_mut()[..before + len - have], at, libc::RWF_NOWAIT) {
                // SAFETY: the kernel has written the first `n` bytes of the spare capacity.
                Ok(n) if n > 0 => unsafe { out.set_len(have + n) },
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // Not in memory, at the end of the file, or a file system that cannot say.
                _ => {
                    out.truncate(before);
                    return false;
                }
            }
        }
        true
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(bytes, offset)
    }

    fn drop_cached(&self, offset: u64, len: u64) {
        // Only advice: where it is not taken, the read that follows is answered from memory.
        let _ = rustix::fs::fadvise(&self.file, offset, std::num::NonZeroU64::new(len), rustix::fs::Advice::DontNeed);
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len)?)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        // The position in the file is used by nobody else.
        match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(at) => Ok(Some(at)),
            Err(rustix::io::Errno::NXIO) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

/// `RWF_DONTCACHE` (Linux 6.14): through the page cache, whose pages are written back at once and given up after.
const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);
/// The kernel or the file system below does not have it.
static NO_DONTCACHE: AtomicBool = AtomicBool::new(false);

/// Tries a call with [`DONTCACHE`]; `None` if that does not exist here.
fn if_supported(call: impl FnOnce() -> rustix::io::Result<usize>) -> Option<io::Result<usize>> {
    if NO_DONTCACHE.load(Ordering::Relaxed) {
        return None;
    }
    match call() {
        Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
            NO_DONTCACHE.store(true, Ordering::Relaxed);
            None
        }
        outcome => Some(outcome.map_err(io::Error::from)),
    }
}

/// Offset, length and memory of a read around the page cache are multiples of it. Every block device in use is content
/// with that.
const DIRECT_ALIGN: usize = 4096;

/// Reads from a file that was opened with `O_DIRECT`.
fn read_around_cache(file: &File, len: usize, offset: u64) -> io::Result<Bytes> {
    let skip = (offset % DIRECT_ALIGN as u64) as usize;
    let whole = (skip + len).next_multiple_of(DIRECT_ALIGN);
    let mut memory: Vec<u8> = Vec::with_capacity(whole + DIRECT_ALIGN);
    let begin = memory.as_ptr().align_offset(DIRECT_ALIGN);
    memory.resize(begin, 0);
    let end = begin + skip + len;
    while memory.len() < end {
        let have = memory.len() - begin;
        if !have.is_multiple_of(DIRECT_ALIGN) {
            // The file ends here.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let at = offset - skip as u64 + have as u64;
        match read_some(file, &mut memory.spare_capacity_mut()[..whole - have], at, 0) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            // SAFETY: the kernel has written the first `n` bytes of the spare capacity.
            Ok(n) => unsafe { memory.set_len(begin + have + n) },
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(Bytes::from(memory).slice(begin + skip..end))
}

/// Reads into memory that need not be initialized, with flags of `preadv2`; 0 at the end of the file.
fn read_some(file: &File, out: &mut [MaybeUninit<u8>], offset: u64, flags: libc::c_int) -> io::Result<usize> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let piece = libc::iovec { iov_base: out.as_mut_ptr().cast(), iov_len: out.len() };
    // SAFETY: the descriptor is open, and the one piece is memory that we may write, of the length it says.
    let n = unsafe { libc::preadv2(file.as_raw_fd(), &piece, 1, offset, flags) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_around_the_cache_brings_what_any_other_read_does() {
        let dir = tempfile::tempdir().expect("temp dir");
        let disk = RealDisk::open(dir.path()).expect("open");
        let file = disk.create(SegmentId(1)).expect("create");
        let bytes: Vec<u8> = (0..30_000u32).map(|i| (i * 7 % 251) as u8).collect();
        assert_eq!(file.write_at(&bytes, 0).expect("write"), bytes.len());
        for (offset, len) in [(0, 4096), (0, 30_000), (1, 5000), (4095, 2), (8192, 100), (29_999, 1), (20_000, 10_000)]
        {
            let Some(read) = file.read_direct(len, offset as u64) else {
                eprintln!("this file system has no O_DIRECT: nothing to test");
                return;
            };
            assert_eq!(read.expect("read"), bytes[offset..offset + len], "{len} bytes at {offset}");
        }
        for (offset, len) in [(29_999, 2), (30_000, 1), (40_960, 4096)] {
            let read = file.read_direct(len, offset).expect("as before");
            assert_eq!(read.expect_err("beyond the end").kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
