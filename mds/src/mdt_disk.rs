//! The disk the tables lie on. A full disk would fail a commit, and a failed commit ends the process: so changes that add
//! something are refused (`namespace::room`) while what is left is needed for the log, the memtables, and for removing files.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use sateen_types::{FsCode, FsError, FsResult, Space};

/// Kept free, bytes: twice the memtables of a busy file system, so that they can be written out.
pub const RESERVE_BYTES: u64 = 128 << 20;

/// See the module.
#[derive(Debug)]
pub struct MdtDisk {
    dir: PathBuf,
    low: AtomicBool,
}

impl MdtDisk {
    /// The disk `dir` lies on.
    pub fn new(dir: &Path) -> MdtDisk {
        MdtDisk { dir: dir.to_owned(), low: AtomicBool::new(false) }
    }

    /// Its space now.
    pub fn space(&self) -> FsResult<Space> {
        let v = rustix::fs::statvfs(&self.dir).map_err(|e| {
            FsError::new(FsCode::Io, format!("cannot ask for the space of {}: {e}", self.dir.display()))
        })?;
        let bytes = |blocks: u64| blocks.saturating_mul(v.f_frsize);
        Ok(Space {
            total: bytes(v.f_blocks),
            used: bytes(v.f_blocks.saturating_sub(v.f_bfree)),
            available: bytes(v.f_bavail),
            objects: 0,
        })
    }

    /// Takes note of the space there is.
    pub fn update(&self, space: Space) {
        let low = space.available < RESERVE_BYTES;
        if self.low.swap(low, Ordering::Relaxed) != low {
            if low {
                tracing::error!(dir = %self.dir.display(), available = space.available, "the MDT disk is full: only removals are taken");
            } else {
                tracing::info!(dir = %self.dir.display(), available = space.available, "the MDT disk has room again");
            }
        }
    }

    /// Whether only removals should be taken.
    pub fn is_low(&self) -> bool {
        self.low.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_low_below_the_reserve_and_no_longer_when_room_returns() {
        let disk = MdtDisk::new(Path::new("/"));
        for (available, low) in [(RESERVE_BYTES, false), (RESERVE_BYTES - 1, true), (RESERVE_BYTES, false)] {
            disk.update(Space { available, ..Space::default() });
            assert_eq!(disk.is_low(), low);
        }
    }

    #[test]
    fn the_space_of_a_real_disk_adds_up() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let space = MdtDisk::new(dir.path()).space().expect("answers");
        assert!(space.total > 0 && space.used <= space.total && space.available <= space.total);
    }
}
