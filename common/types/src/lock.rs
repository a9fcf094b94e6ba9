//! Advisory locks on files: what a program may ask for, and the arithmetic of the byte ranges one owner holds.
//!
//! The rules are those of Linux (`fs/locks.c`): within one owner a new lock replaces what it overlaps, neighbours of the
//! same mode become one, and taking a part away may leave two.

use std::ops::Range;

use crate::status::{FsCode, FsError, FsResult};

/// Last byte a lock may cover (Linux `OFFSET_MAX`); a lock "to the end of the file" ends there.
pub const LOCK_OFFSET_MAX: u64 = i64::MAX as u64;

/// Bytes a lock covers, both ends included. Never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockRange {
    start: u64,
    end: u64,
}

impl LockRange {
    /// The whole file, however long it becomes.
    pub const WHOLE: LockRange = LockRange { start: 0, end: LOCK_OFFSET_MAX };

    /// From `start` to `end`, both included.
    pub fn new(start: u64, end: u64) -> FsResult<LockRange> {
        if start <= end && end <= LOCK_OFFSET_MAX {
            return Ok(LockRange { start, end });
        }
        Err(FsError::new(FsCode::Invalid, format!("{start} to {end} is no range of a lock"))
            .with_hint(format!("the start is at most the end, and the end at most {LOCK_OFFSET_MAX}")))
    }

    /// First byte.
    pub fn start(self) -> u64 {
        self.start
    }

    /// Last byte.
    pub fn end(self) -> u64 {
        self.end
    }

    /// Whether the two have a byte in common.
    pub fn overlaps(self, other: LockRange) -> bool {
        self.start <= other.end && other.start <= self.end
    }
}

/// How a lock excludes others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockMode {
    /// Excludes exclusive locks (`F_RDLCK`, `LOCK_SH`).
    Shared,
    /// Excludes every other lock (`F_WRLCK`, `LOCK_EX`).
    Exclusive,
}

impl LockMode {
    /// Whether locks of two owners on the same byte exclude each other.
    pub fn conflicts(self, other: LockMode) -> bool {
        self == LockMode::Exclusive || other == LockMode::Exclusive
    }
}

/// Which call made the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockClass {
    /// `fcntl(F_SETLK)`: owned by a process; goes when the process closes any descriptor of the file.
    Posix,
    /// `fcntl(F_OFD_SETLK)`: owned by an open file. Excludes POSIX locks, but is left out of deadlock detection.
    Ofd,
    /// `flock`: owned by an open file, always on the whole file.
    Flock,
    /// A client's own, for as long as it appends to a file that others write to as well; always on the whole file.
    Append,
}

impl LockClass {
    /// Locks of different spaces do not see each other.
    pub fn space(self) -> LockSpace {
        match self {
            LockClass::Posix | LockClass::Ofd => LockSpace::Bytes,
            LockClass::Flock => LockSpace::Whole,
            LockClass::Append => LockSpace::Ends,
        }
    }
}

/// The kinds of locks that do not see each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockSpace {
    /// Byte ranges, by `fcntl`.
    Bytes,
    /// Whole files, by `flock`.
    Whole,
    /// The ends of files, by appends.
    Ends,
}

impl LockSpace {
    /// Every one.
    pub const ALL: [LockSpace; 3] = [LockSpace::Bytes, LockSpace::Whole, LockSpace::Ends];
}

/// One lock, without who owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lock {
    /// Which call made it.
    pub class: LockClass,
    /// How it excludes.
    pub mode: LockMode,
    /// What it covers.
    pub range: LockRange,
    /// The process, as `F_GETLK` tells it to others. 0 if not known.
    pub pid: u32,
}

/// A lock with its owner's number within its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OwnedLock {
    /// Owner: the kernel's number for a process's descriptor table or an open file.
    pub owner: u64,
    /// What it owns.
    pub lock: Lock,
}

/// What one owner holds of one file in one space: ranges in order, none overlapping, neighbours of one mode merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockSet {
    locks: Vec<Lock>,
}

impl LockSet {
    /// Nothing is held.
    pub fn is_empty(&self) -> bool {
        self.locks.is_empty()
    }

    /// How many separate locks there are.
    pub fn len(&self) -> usize {
        self.locks.len()
    }

    /// The locks in the order of their ranges.
    pub fn iter(&self) -> impl Iterator<Item = &Lock> {
        self.locks.iter()
    }

    /// Those that have bytes in `range`.
    pub fn within(&self, range: LockRange) -> &[Lock] {
        &self.locks[self.touched(range)]
    }

    /// The first lock that keeps somebody else from having `range` in `mode`.
    pub fn first_conflict(&self, range: LockRange, mode: LockMode) -> Option<&Lock> {
        self.within(range).iter().find(|held| held.mode.conflicts(mode))
    }

    /// Takes a lock in place of whatever the owner had of its range.
    pub fn set(&mut self, mut lock: Lock) {
        self.unset(lock.range);
        let mut at = self.touched(lock.range);
        if let Some(before) = at.start.checked_sub(1).map(|i| self.locks[i])
            && before.mode == lock.mode
            && before.range.end + 1 == lock.range.start
        {
            lock.range.start = before.range.start;
            at.start -= 1;
        }
        if let Some(after) = self.locks.get(at.end)
            && after.mode == lock.mode
            && lock.range.end + 1 == after.range.start
        {
            lock.range.end = after.range.end;
            at.end += 1;
        }
        self.locks.splice(at, [lock]);
    }

    /// Gives up what the owner has of `range`.
    pub fn unset(&mut self, range: LockRange) {
        let at = self.touched(range);
        let Some((first, last)) = self.locks[at.clone()].first().copied().zip(self.locks[at.clone()].last().copied())
        else {
            return;
        };
        let left = (first.range.start < range.start)
            .then(|| Lock { range: LockRange { end: range.start.saturating_sub(1), ..first.range }, ..first });
        let right = (last.range.end > range.end)
            .then(|| Lock { range: LockRange { start: range.end + 1, ..last.range }, ..last });
        self.locks.splice(at, left.into_iter().chain(right));
    }

    /// Places of the locks with bytes in `range`; empty, at the place where such a lock would stand, if there is none.
    fn touched(&self, range: LockRange) -> Range<usize> {
        let from = self.locks.partition_point(|l| l.range.end < range.start);
        let to = self.locks.partition_point(|l| l.range.start <= range.end);
        from..to.max(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(mode: LockMode, start: u64, end: u64) -> Lock {
        Lock { class: LockClass::Posix, mode, range: LockRange { start, end }, pid: 1 }
    }

    fn shown(set: &LockSet) -> Vec<(u64, u64, bool)> {
        set.iter().map(|l| (l.range.start, l.range.end, l.mode == LockMode::Exclusive)).collect()
    }

    #[test]
    fn neighbours_of_one_mode_become_one_and_others_are_cut() {
        let mut set = LockSet::default();
        set.set(lock(LockMode::Shared, 0, 9));
        set.set(lock(LockMode::Shared, 20, 29));
        set.set(lock(LockMode::Shared, 10, 19));
        assert_eq!(shown(&set), [(0, 29, false)]);
        set.set(lock(LockMode::Exclusive, 5, 6));
        assert_eq!(shown(&set), [(0, 4, false), (5, 6, true), (7, 29, false)]);
        set.unset(LockRange { start: 6, end: 100 });
        assert_eq!(shown(&set), [(0, 4, false), (5, 5, true)]);
        set.unset(LockRange::WHOLE);
        assert!(set.is_empty());
    }

    #[test]
    fn the_last_byte_can_be_locked_and_nothing_lies_behind_it() {
        let mut set = LockSet::default();
        set.set(lock(LockMode::Exclusive, LOCK_OFFSET_MAX, LOCK_OFFSET_MAX));
        set.set(Lock { range: LockRange::WHOLE, ..lock(LockMode::Exclusive, 0, 0) });
        set.unset(LockRange { start: 0, end: 0 });
        assert_eq!(shown(&set), [(1, LOCK_OFFSET_MAX, true)]);
        assert!(LockRange::new(0, LOCK_OFFSET_MAX + 1).is_err() && LockRange::new(2, 1).is_err());
    }

    #[test]
    fn every_sequence_gives_what_a_map_of_bytes_gives() {
        const BYTES: u64 = 12;
        let mut x = 0x9E37_79B9_7F4A_7C15u64;
        let mut next = |n: u64| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x % n
        };
        let (mut set, mut map) = (LockSet::default(), [None; BYTES as usize]);
        for step in 0..20_000 {
            let (a, b) = (next(BYTES), next(BYTES));
            let range = LockRange::new(a.min(b), a.max(b)).expect("in order");
            let mode = [None, Some(LockMode::Shared), Some(LockMode::Exclusive)][next(3) as usize];
            match mode {
                Some(mode) => set.set(lock(mode, range.start, range.end)),
                None => set.unset(range),
            }
            map[range.start as usize..=range.end as usize].fill(mode);
            let mut from_map: Vec<(u64, u64, bool)> = Vec::new();
            for (at, mode) in map.iter().enumerate().filter_map(|(i, m)| Some((i as u64, (*m)?))) {
                let exclusive = mode == LockMode::Exclusive;
                match from_map.last_mut().filter(|l| l.1 + 1 == at && l.2 == exclusive) {
                    Some(last) => last.1 = at,
                    None => from_map.push((at, at, exclusive)),
                }
            }
            assert_eq!(shown(&set), from_map, "step {step}");
        }
    }
}
