//! Memory for bytes on their way, bounded for the process.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Unit in which room is given, so that a count of it fits.
const UNIT: u64 = 4096;

/// Room for so many bytes, shared by all who have a clone.
#[derive(Clone, Debug)]
pub struct Room {
    units: Arc<Semaphore>,
    bytes: u64,
}

/// Some of it, until it is dropped.
pub type Taken = OwnedSemaphorePermit;

impl Room {
    /// Of so many bytes.
    pub fn new(bytes: u64) -> Room {
        let units = usize::try_from(bytes / UNIT).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Room { units: Arc::new(Semaphore::new(units)), bytes }
    }

    /// Bytes of all of it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Waits for so many bytes, which others who wait longer have before. `None` if it never has so many.
    pub async fn take(&self, bytes: u64) -> Option<Taken> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).ok()?;
        if bytes > self.bytes {
            return None;
        }
        Arc::clone(&self.units).acquire_many_owned(units).await.ok()
    }
}

/// Room of a process, whatever file systems it works for.
#[derive(Clone, Debug)]
pub struct Rooms {
    /// For ranges being fetched.
    fetches: Room,
    /// Of these, for those that nobody waits for yet: what somebody waits for never waits for them.
    ahead: Room,
    /// For bytes being stored.
    pub exports: Room,
}

impl Rooms {
    /// Of so many bytes each way.
    pub fn new(fetches: u64, exports: u64) -> Rooms {
        Rooms { fetches: Room::new(fetches), ahead: Room::new(fetches / 4 * 3), exports: Room::new(exports) }
    }

    /// Waits for room for a range of so many bytes.
    pub async fn fetch(&self, bytes: u64, urgent: bool) -> Option<(Option<Taken>, Taken)> {
        let ahead = if urgent { None } else { Some(self.ahead.take(bytes).await?) };
        Some((ahead, self.fetches.take(bytes).await?))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn what_somebody_waits_for_never_waits_for_what_is_fetched_ahead() {
        let rooms = Rooms::new(16 << 20, 1 << 20);
        let ahead = rooms.fetch(8 << 20, false).await.expect("room");
        assert!(rooms.fetch(8 << 20, false).now_or_never().is_none(), "three quarters are for such");
        let urgent = rooms.fetch(8 << 20, true).now_or_never().flatten().expect("room");
        assert!(rooms.fetch(4096, true).now_or_never().is_none(), "all of it is taken");
        drop(ahead);
        assert!(rooms.fetch(8 << 20, true).now_or_never().flatten().is_some());
        drop(urgent);
        assert!(rooms.fetch(8 << 20, false).now_or_never().flatten().is_some(), "waiting in vain has cost nothing");
        assert!(rooms.fetch(17 << 20, true).await.is_none(), "never");
    }
}
