//! Files that other clients write to while they are open here: when the pages the kernel has of them are old.
//!
//! Of such a file the kernel asks for attributes before every read, and drops its pages if size or modification time are
//! others than those it knew (`FUSE_AUTO_INVAL_DATA`). It cannot tell if somebody has set the time back after a write; the
//! file's change counter can.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use sateen_types::{Attr, Timestamp};

/// Files remembered. When there are more, all are forgotten, and from then on one that seems new costs its pages.
const FILES_MAX: usize = 65_536;

/// What the kernel was last told of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Told {
    change: u64,
    size: u64,
    mtime: Timestamp,
}

/// See the module.
#[derive(Default)]
pub struct SharedFiles {
    told: Mutex<HashMap<u64, Told>>,
    /// Files were forgotten once: one that seems new may be one of them.
    overflowed: AtomicBool,
}

impl SharedFiles {
    /// The kernel is about to be told attributes of inode `ino`, which is shared or not. True if its pages may be old and
    /// it will not notice.
    pub fn must_forget(&self, ino: u64, attr: &Attr, shared: bool) -> bool {
        let mut told = self.told.lock();
        if !shared {
            told.remove(&ino);
            return false;
        }
        if told.len() >= FILES_MAX && !told.contains_key(&ino) {
            told.clear();
            self.overflowed.store(true, Ordering::Relaxed);
        }
        let now = Told { change: attr.change, size: attr.size, mtime: attr.mtime };
        match told.insert(ino, now) {
            // The recall, or the open, has dropped what was there.
            None => self.overflowed.load(Ordering::Relaxed),
            Some(then) => then.change != now.change && (then.size, then.mtime) == (now.size, now.mtime),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sateen_types::{Fid, FileType};

    fn attr(change: u64, size: u64, nanos: u32) -> Attr {
        let mtime = Timestamp { seconds: 1, nanos };
        Attr {
            fid: Fid::ROOT,
            file_type: FileType::Regular,
            mode: 0o644,
            uid: 0,
            gid: 0,
            nlink: 1,
            size,
            blocks: 0,
            atime: mtime,
            mtime,
            ctime: mtime,
            btime: mtime,
            rdev: 0,
            change,
            has_acl: false,
            has_default_acl: false,
            has_capabilities: false,
        }
    }

    #[test]
    fn a_change_that_shows_neither_in_size_nor_time_must_be_told() {
        let files = SharedFiles::default();
        assert!(!files.must_forget(5, &attr(1, 10, 1), true), "it was just recalled");
        assert!(!files.must_forget(5, &attr(2, 10, 2), true), "the kernel sees the time");
        assert!(!files.must_forget(5, &attr(2, 10, 2), true), "nothing happened");
        assert!(files.must_forget(5, &attr(4, 10, 2), true), "written, and the time set back");
        assert!(!files.must_forget(5, &attr(5, 10, 2), false), "this client has it to itself");
        assert!(!files.must_forget(5, &attr(6, 10, 2), true), "recalled again");
    }
}
