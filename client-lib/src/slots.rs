//! Request slots of one session. A slot carries one request at a time and its number rises with each, so that the MDS
//! keeps one reply record per slot. A slot whose request has no answer yet stays taken: its number is never given to
//! another request.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The free slots.
#[derive(Debug)]
pub(crate) struct Slots {
    permits: Arc<Semaphore>,
    /// Free slots with the number of their next request. Last in, first out: a quiet client uses few slots.
    free: Mutex<Vec<(u32, u64)>>,
}

impl Slots {
    /// `count` slots, none used yet.
    pub fn new(count: u32) -> Arc<Slots> {
        let free = (0..count).rev().map(|slot| (slot, 1)).collect();
        Arc::new(Slots { permits: Arc::new(Semaphore::new(count as usize)), free: Mutex::new(free) })
    }

    /// Waits for a free slot.
    pub async fn take(self: &Arc<Slots>) -> Slot {
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        let (slot, number) = self.free.lock().pop().expect("a permit stands for a free slot");
        Slot { slots: Arc::clone(self), slot, number, _permit: permit }
    }
}

/// A slot with the number of its request. Dropping it says that the request was answered (or that its session ended).
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    /// Which.
    pub slot: u32,
    /// Number of the request.
    pub number: u64,
    /// Released after `drop` has put the slot back.
    _permit: OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.free.lock().push((self.slot, self.number + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn numbers_rise_per_slot_and_no_slot_is_given_twice() {
        let slots = Slots::new(2);
        let a = slots.take().await;
        let b = slots.take().await;
        assert_ne!(a.slot, b.slot);
        assert!(slots.take().now_or_never().is_none(), "both are taken");
        let (slot, number) = (a.slot, a.number);
        drop(a);
        let again = slots.take().await;
        assert_eq!((again.slot, again.number), (slot, number + 1));
    }
}
