//! All access of a store to its segment files, behind one trait, so that tests can make any call fail.
//!
//! Not here: the index (RocksDB has files of its own) and any policy. A [`Disk`] does what it is told and reports what
//! the system said.

use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};

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
        let file = File::options().read(true).write(true).create_new(true).open(self.path(id))?;
        Ok(Arc::new(file))
    }

    fn open(&self, id: SegmentId) -> io::Result<Arc<dyn SegmentFile>> {
        Ok(Arc::new(File::options().read(true).write(true).open(self.path(id))?))
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

impl SegmentFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn write_pieces_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(self, pieces, offset)?)
    }

    fn write_stream_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        if let Some(written) = if_supported(|| rustix::io::pwritev2(self, pieces, offset, DONTCACHE)) {
            return written;
        }
        self.write_pieces_at(pieces, offset)
    }

    fn read_stream_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut first = [IoSliceMut::new(bytes)];
        if let Some(read) = if_supported(|| rustix::io::preadv2(self, &mut first, offset, DONTCACHE)) {
            return read;
        }
        FileExt::read_at(self, bytes, offset)
    }

    fn read_cached(&self, out: &mut Vec<u8>, len: usize, offset: u64) -> bool {
        let before = out.len();
        out.reserve(len);
        while out.len() < before + len {
            let have = out.len();
            let at = offset + (have - before) as u64;
            match read_without_waiting(self, &mut out.spare_capacity_mut()[..before + len - have], at) {
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
        FileExt::read_at(self, bytes, offset)
    }

    fn drop_cached(&self, offset: u64, len: u64) {
        // Only advice: where it is not taken, the read that follows is answered from memory.
        let _ = rustix::fs::fadvise(self, offset, std::num::NonZeroU64::new(len), rustix::fs::Advice::DontNeed);
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(self, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len)?)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        // The position in the file is used by nobody else.
        match rustix::fs::seek(self, SeekFrom::Data(offset)) {
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

/// Reads into memory that need not be initialized what is in the page cache: `preadv2` with `RWF_NOWAIT`.
fn read_without_waiting(file: &File, out: &mut [MaybeUninit<u8>], offset: u64) -> io::Result<usize> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let piece = libc::iovec { iov_base: out.as_mut_ptr().cast(), iov_len: out.len() };
    // SAFETY: the descriptor is open, and the one piece is memory that we may write, of the length it says.
    let n = unsafe { libc::preadv2(file.as_raw_fd(), &piece, 1, offset, libc::RWF_NOWAIT) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}
