//! How much may be dirty: memory for what was written here and is not committed yet. Writers wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Bytes are counted in these units.
pub(crate) const UNIT_BYTES: u64 = 4096;

/// The bound, and who waits for it.
#[derive(Debug)]
pub(crate) struct Budget {
    units: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Told when somebody has to wait: memory must come free.
    pub pressure: Notify,
}

/// A share of the budget; given back when dropped.
pub(crate) type Share = OwnedSemaphorePermit;

impl Budget {
    /// At most `bytes` at a time.
    pub fn new(bytes: u64) -> Budget {
        let units = Arc::new(Semaphore::new((bytes / UNIT_BYTES) as usize));
        Budget { units, waiting: AtomicUsize::new(0), pressure: Notify::new() }
    }

    /// Waits until `bytes` are free and takes them. First come, first served.
    pub async fn reserve(&self, bytes: u64) -> Share {
        let units = bytes.div_ceil(UNIT_BYTES) as u32;
        if let Ok(share) = Arc::clone(&self.units).try_acquire_many_owned(units) {
            return share;
        }
        let _waiting = Waiting::new(&self.waiting);
        self.pressure.notify_one();
        Arc::clone(&self.units).acquire_many_owned(units).await.expect("the semaphore is never closed")
    }

    /// Whether a writer waits.
    pub fn is_short(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Bytes not taken.
    #[cfg(test)]
    pub fn free(&self) -> u64 {
        self.units.available_permits() as u64 * UNIT_BYTES
    }
}

/// Counts a waiter for as long as it waits, however that ends.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
