//! How much an OST may hold. One value per OST, shared by the stores of all its file systems.
//!
//! Space is admitted before anything is written and counted until the extent is punched, so that a full OST is
//! `NoSpace` up front and not a failure half-way.

use std::sync::atomic::{AtomicU64, Ordering};

use sateen_types::{FsCode, FsError, FsResult, Space};

use super::disk::Disk;

/// The space of one OST.
pub struct Capacity {
    limit: Option<u64>,
    reserve: u64,
    used: AtomicU64,
}

impl Capacity {
    /// At most `limit` bytes of segments (`None`: as much as the disk holds), leaving `reserve` bytes of the disk alone.
    pub fn new(limit: Option<u64>, reserve: u64) -> Capacity {
        Capacity { limit, reserve, used: AtomicU64::new(0) }
    }

    /// Bytes of segments in use, those included whose write is under way.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes `bytes`, or says `NoSpace`.
    pub fn admit(&self, bytes: u64, disk: &dyn Disk) -> FsResult<()> {
        let now =
            disk.space().map_err(|e| FsError::new(FsCode::Io, format!("cannot ask the disk for its space: {e}")))?;
        if now.available < bytes.saturating_add(self.reserve) {
            return Err(no_space(format!(
                "{bytes} bytes do not fit: the disk has {} bytes left, {} are reserved",
                now.available, self.reserve
            )));
        }
        let limit = self.limit.unwrap_or(u64::MAX);
        let fits = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= limit);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Ok(()),
            Err(used) => Err(no_space(format!("{bytes} bytes do not fit: {used} of {limit} bytes are in use"))),
        }
    }

    /// Counts what was found at start.
    pub fn adopt(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives `bytes` back.
    pub fn release(&self, bytes: u64) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "released {bytes} of {before} bytes in use");
    }

    /// Space as users see it; `objects` is left 0.
    pub fn space(&self, disk: &dyn Disk) -> FsResult<Space> {
        let now =
            disk.space().map_err(|e| FsError::new(FsCode::Io, format!("cannot ask the disk for its space: {e}")))?;
        let of_disk = now.available.saturating_sub(self.reserve);
        Ok(match self.limit {
            None => {
                Space { total: now.total, used: now.total.saturating_sub(now.free), available: of_disk, objects: 0 }
            }
            Some(limit) => {
                let used = self.used();
                Space { total: limit, used, available: limit.saturating_sub(used).min(of_disk), objects: 0 }
            }
        })
    }
}

fn no_space(message: String) -> FsError {
    FsError::new(FsCode::NoSpace, message).with_hint("delete files, or add OSTs; other OSTs may have space left")
}
