//! What the attributes that the kernel was given lately say about ACLs.
//!
//! The kernel asks for the ACL of nearly every file that somebody else than its owner touches, each time it has got fresh
//! attributes. Those very attributes say whether there is one: for a file without, the answer needs no request. A hint
//! lives exactly as long as the kernel trusts the attributes it came with.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sateen_types::Attr;

/// Inodes remembered; a power of two. Each has one place, where a later one takes over: 384 KiB in all.
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
}

/// See the module.
pub struct AclHints {
    slots: Box<[Mutex<Option<Slot>>]>,
    lifetime: Duration,
}

impl AclHints {
    /// Nothing known yet. `lifetime`: how long the kernel trusts attributes.
    pub fn new(lifetime: Duration) -> AclHints {
        AclHints { slots: (0..1 << SLOTS_LOG2).map(|_| Mutex::new(None)).collect(), lifetime }
    }

    /// The kernel is given these attributes of inode `ino`.
    pub fn given(&self, ino: u64, attr: &Attr) {
        let now = Instant::now();
        let Attr { change, has_acl, has_default_acl, .. } = *attr;
        let mut slot = self.slot(ino).lock();
        if !slot.is_some_and(|s| s.ino == ino && s.change > change && s.until > now) {
            *slot = Some(Slot { ino, change, until: now + self.lifetime, has_acl, has_default_acl });
        }
    }

    /// Whether inode `ino` surely has no ACL (no default ACL, if `default`).
    pub fn has_none(&self, ino: u64, default: bool) -> bool {
        let slot = *self.slot(ino).lock();
        slot.is_some_and(|s| {
            s.ino == ino && s.until > Instant::now() && !if default { s.has_default_acl } else { s.has_acl }
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

    fn attr(change: u64, has_acl: bool, has_default_acl: bool) -> Attr {
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
        }
    }

    #[test]
    fn only_what_fresh_attributes_say_is_known() {
        let hints = AclHints::new(Duration::from_secs(3600));
        assert!(!hints.has_none(7, false), "nothing is known of an inode nobody asked for");
        hints.given(7, &attr(1, false, true));
        assert!(hints.has_none(7, false));
        assert!(!hints.has_none(7, true));
        assert!(!hints.has_none(8, false));
    }

    #[test]
    fn an_answer_that_was_overtaken_changes_nothing() {
        let hints = AclHints::new(Duration::from_secs(3600));
        hints.given(7, &attr(5, true, true));
        hints.given(7, &attr(4, false, false));
        assert!(!hints.has_none(7, false));
        hints.given(7, &attr(6, false, false));
        assert!(hints.has_none(7, false) && hints.has_none(7, true));
    }

    #[test]
    fn a_hint_ends_with_the_attributes_it_came_with() {
        let hints = AclHints::new(Duration::ZERO);
        hints.given(7, &attr(1, false, false));
        assert!(!hints.has_none(7, false));
    }

    #[test]
    fn memory_is_bounded() {
        assert!(size_of::<Mutex<Option<Slot>>>() << SLOTS_LOG2 <= 400 << 10);
    }
}
