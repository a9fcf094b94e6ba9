//! What the attributes that the kernel was given lately say about the extended attributes it keeps asking for.
//!
//! The kernel asks for the ACL of nearly every file that somebody else than its owner touches, and for the capabilities of
//! every file before the first write, each time it has got fresh attributes. Those very attributes say whether there are any:
//! where there are none, the answer needs no request. A hint lives as long as the kernel trusts the attributes it came with.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sateen_types::Attr;
use sateen_types::acl::{ACCESS_XATTR, DEFAULT_XATTR};
use sateen_types::attr::FILE_CAPABILITIES_XATTR;

/// Inodes remembered. Each has one place, where a later one takes over: 320 KiB in all.
const SLOTS_LOG2: u32 = 13;

/// One inode.
#[derive(Clone, Copy)]
struct Slot {
    ino: u64,
    /// `change` of the attributes: answers may overtake each other.
    change: u64,
    until: Instant,
    has_acl: bool,
    has_default_acl: bool,
    has_capabilities: bool,
}

/// See the module.
pub struct XattrHints {
    slots: Box<[Mutex<Option<Slot>>]>,
    lifetime: Duration,
}

impl XattrHints {
    /// Nothing known yet. `lifetime`: how long the kernel trusts attributes.
    pub fn new(lifetime: Duration) -> XattrHints {
        XattrHints { slots: (0..1 << SLOTS_LOG2).map(|_| Mutex::new(None)).collect(), lifetime }
    }

    /// The kernel is given these attributes of inode `ino`.
    pub fn given(&self, ino: u64, attr: &Attr) {
        let now = Instant::now();
        let Attr { change, has_acl, has_default_acl, has_capabilities, .. } = *attr;
        let mut slot = self.slot(ino).lock();
        if !slot.is_some_and(|s| s.ino == ino && s.change > change && s.until > now) {
            *slot = Some(Slot { ino, change, until: now + self.lifetime, has_acl, has_default_acl, has_capabilities });
        }
    }

    /// Whether inode `ino` surely does not have the attribute `name`.
    pub fn is_absent(&self, ino: u64, name: &[u8]) -> bool {
        let slot = *self.slot(ino).lock();
        slot.is_some_and(|s| {
            let there = match name {
                ACCESS_XATTR => s.has_acl,
                DEFAULT_XATTR => s.has_default_acl,
                FILE_CAPABILITIES_XATTR => s.has_capabilities,
                _ => true,
            };
            s.ino == ino && s.until > Instant::now() && !there
        })
    }

    fn slot(&self, ino: u64) -> &Mutex<Option<Slot>> {
        // Fibonacci hashing: inode numbers that follow each other spread well.
        let at = ino.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SLOTS_LOG2);
        &self.slots[at as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sateen_types::{Fid, FileType, Timestamp};

    fn attr(change: u64, has_acl: bool, has_default_acl: bool, has_capabilities: bool) -> Attr {
        let t = Timestamp::default();
        Attr {
            fid: Fid::ROOT,
            file_type: FileType::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            nlink: 2,
            size: 4096,
            blocks: 0,
            atime: t,
            mtime: t,
            ctime: t,
            btime: t,
            rdev: 0,
            change,
            has_acl,
            has_default_acl,
            has_capabilities,
        }
    }

    #[test]
    fn only_what_fresh_attributes_say_is_known() {
        let hints = XattrHints::new(Duration::from_secs(3600));
        let names = [ACCESS_XATTR, DEFAULT_XATTR, FILE_CAPABILITIES_XATTR, b"user.other"];
        let absent = |ino| names.map(|name| hints.is_absent(ino, name));
        assert_eq!(absent(7), [false; 4], "nothing is known of an inode nobody asked for");
        hints.given(7, &attr(1, false, false, false));
        assert_eq!(absent(7), [true, true, true, false]);
        assert_eq!(absent(8), [false; 4]);
        for (i, there) in [(true, false, false), (false, true, false), (false, false, true)].into_iter().enumerate() {
            hints.given(7, &attr(2, there.0, there.1, there.2));
            assert_eq!(absent(7)[..3].iter().position(|a| !a), Some(i));
        }
    }

    #[test]
    fn an_answer_that_was_overtaken_changes_nothing() {
        let hints = XattrHints::new(Duration::from_secs(3600));
        hints.given(7, &attr(5, true, true, true));
        hints.given(7, &attr(4, false, false, false));
        assert!(!hints.is_absent(7, ACCESS_XATTR));
        hints.given(7, &attr(6, false, false, false));
        assert!(hints.is_absent(7, ACCESS_XATTR));
    }

    #[test]
    fn a_hint_ends_with_the_attributes_it_came_with() {
        let hints = XattrHints::new(Duration::ZERO);
        hints.given(7, &attr(1, false, false, false));
        assert!(!hints.is_absent(7, ACCESS_XATTR));
    }

    #[test]
    fn memory_is_bounded() {
        assert!(size_of::<Mutex<Option<Slot>>>() << SLOTS_LOG2 <= 400 << 10);
    }
}
