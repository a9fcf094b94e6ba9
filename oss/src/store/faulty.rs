//! A [`Disk`] for tests: the real one, with faults told beforehand and unsynced writes that a power cut can destroy.
//!
//! Faults: the N-th call fails with an errno and has no effect; every write may be short. Survivable because the
//! store promises an error to the caller and a store that is right after a restart, not success.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::disk::{Disk, DiskSpace, SegmentFile, SegmentId};

/// What goes wrong, shared by a disk and its open files.
pub struct Faults {
    calls: AtomicU64,
    fail_call: AtomicU64,
    errno: i32,
    write_bytes_max: usize,
    unsynced: Mutex<BTreeMap<SegmentId, Vec<(u64, u64)>>>,
}

impl Faults {
    /// The call with number `fail_call`, from 0, fails with `errno`; each write takes at most `write_bytes_max` bytes.
    pub fn new(fail_call: u64, errno: i32, write_bytes_max: usize) -> Arc<Faults> {
        Arc::new(Faults {
            calls: AtomicU64::new(0),
            fail_call: AtomicU64::new(fail_call),
            errno,
            write_bytes_max,
            unsynced: Mutex::default(),
        })
    }

    /// No faults.
    pub fn none() -> Arc<Faults> {
        Faults::new(u64::MAX, 0, usize::MAX)
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// The call after `ahead` more fails.
    pub fn fail_after(&self, ahead: u64) {
        self.fail_call.store(self.calls() + ahead, Ordering::SeqCst);
    }

    /// Ranges written and not synced: what a power cut may take.
    pub fn unsynced(&self) -> BTreeMap<SegmentId, Vec<(u64, u64)>> {
        self.unsynced.lock().clone()
    }

    fn call(&self) -> io::Result<()> {
        if self.calls.fetch_add(1, Ordering::SeqCst) == self.fail_call.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(self.errno));
        }
        Ok(())
    }
}

/// `inner` with `faults`.
pub struct FaultyDisk {
    inner: Arc<dyn Disk>,
    faults: Arc<Faults>,
}

impl FaultyDisk {
    /// `inner` with `faults`.
    pub fn new(inner: Arc<dyn Disk>, faults: Arc<Faults>) -> FaultyDisk {
        FaultyDisk { inner, faults }
    }

    fn wrap(&self, id: SegmentId, inner: Arc<dyn SegmentFile>) -> Arc<dyn SegmentFile> {
        Arc::new(FaultyFile { id, inner, faults: self.faults.clone() })
    }
}

impl Disk for FaultyDisk {
    fn create(&self, id: SegmentId) -> io::Result<Arc<dyn SegmentFile>> {
        self.faults.call()?;
        Ok(self.wrap(id, self.inner.create(id)?))
    }

    fn open(&self, id: SegmentId) -> io::Result<Arc<dyn SegmentFile>> {
        self.faults.call()?;
        Ok(self.wrap(id, self.inner.open(id)?))
    }

    fn delete(&self, id: SegmentId) -> io::Result<()> {
        self.faults.call()?;
        self.inner.delete(id)
    }

    fn list(&self) -> io::Result<Vec<SegmentId>> {
        self.faults.call()?;
        self.inner.list()
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.faults.call()?;
        self.inner.sync_dir()
    }

    fn space(&self) -> io::Result<DiskSpace> {
        self.faults.call()?;
        self.inner.space()
    }
}

struct FaultyFile {
    id: SegmentId,
    inner: Arc<dyn SegmentFile>,
    faults: Arc<Faults>,
}

impl SegmentFile for FaultyFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.faults.call()?;
        let n = self.inner.write_at(&bytes[..bytes.len().min(self.faults.write_bytes_max)], offset)?;
        self.faults.unsynced.lock().entry(self.id).or_default().push((offset, n as u64));
        Ok(n)
    }

    fn read_cached(&self, out: &mut Vec<u8>, len: usize, offset: u64) -> bool {
        self.inner.read_cached(out, len, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.faults.call()?;
        self.inner.read_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.faults.call()?;
        // Writes that begin during the sync stay listed only if they are recorded after this line; the tests that look
        // at the list do not write while they sync.
        self.faults.unsynced.lock().remove(&self.id);
        self.inner.sync_data()
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.faults.call()?;
        self.inner.punch(offset, len)
    }

    fn length(&self) -> io::Result<u64> {
        self.faults.call()?;
        self.inner.length()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.faults.call()?;
        self.inner.next_data(offset)
    }
}
