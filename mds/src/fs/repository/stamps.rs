//! Stamps, and what was deleted lately.
//!
//! A stamp is a number that rises with everything that is done here with keys of objects. It follows the clock in microseconds, so that it
//! rises over restarts; what keeps it from falling if the clock does is a counter in the tables that is above every stamp that was given.

use std::collections::{BTreeSet, HashMap, VecDeque};

use sateen_types::RepositoryId;

/// Deletions that are remembered. Each takes the key and about 100 bytes.
pub const DELETED_KEPT: usize = 65_536;
/// How far ahead of the clock the counter is set, microseconds.
const AHEAD: u64 = 3_600_000_000;

/// See the module.
#[derive(Debug)]
pub struct Stamps {
    last: u64,
    /// No stamp as high as this may be given yet.
    below: u64,
}

impl Stamps {
    /// `below`: as in the tables; `clock`: now.
    pub fn new(below: u64, clock: u64) -> Stamps {
        Stamps { last: below.max(clock), below }
    }

    /// The next stamp; `Err`: first the tables must say that none is given as high as this.
    pub fn next(&mut self, clock: u64) -> Result<u64, u64> {
        let next = clock.max(self.last + 1);
        if next >= self.below {
            return Err(next + AHEAD);
        }
        self.last = next;
        Ok(next)
    }

    /// The tables say so.
    pub fn reserved(&mut self, below: u64) {
        self.below = self.below.max(below);
    }

    /// The last one that was given, or one above all of an earlier life.
    pub fn last(&self) -> u64 {
        self.last
    }
}

/// Keys that were deleted from here, with the stamp of that.
#[derive(Debug)]
pub struct Deleted {
    keys: HashMap<(RepositoryId, Vec<u8>), u64>,
    order: VecDeque<((RepositoryId, Vec<u8>), u64)>,
    /// Of what a look with a lower stamp tells, nobody knows whether it was deleted since.
    floor: u64,
}

impl Deleted {
    /// Nothing is known of what was before `floor`.
    pub fn new(floor: u64) -> Deleted {
        Deleted { keys: HashMap::new(), order: VecDeque::new(), floor }
    }

    /// An object was deleted; whoever looked at it with a lower stamp may have seen it still.
    pub fn note(&mut self, id: RepositoryId, key: &[u8], stamp: u64) {
        let at = (id, key.to_vec());
        let known = self.keys.entry(at.clone()).or_default();
        *known = stamp.max(*known);
        self.order.push_back((at, stamp));
        while self.order.len() > DELETED_KEPT {
            let Some((at, stamp)) = self.order.pop_front() else { break };
            self.floor = self.floor.max(stamp);
            if self.keys.get(&at).is_some_and(|known| *known <= stamp) {
                self.keys.remove(&at);
            }
        }
    }

    /// Whether a look with this stamp is too old to be told from what was done since.
    pub fn is_too_old(&self, stamp: u64) -> bool {
        stamp < self.floor
    }

    /// Those keys that were deleted since a look with this stamp.
    pub fn since(&self, id: RepositoryId, stamp: u64, keys: &[&[u8]]) -> BTreeSet<Vec<u8>> {
        if self.keys.is_empty() {
            return BTreeSet::new();
        }
        let deleted = |key: &&&[u8]| self.keys.get(&(id, key.to_vec())).is_some_and(|at| *at > stamp);
        keys.iter().filter(deleted).map(|key| key.to_vec()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: RepositoryId = RepositoryId(1);

    #[test]
    fn stamps_rise_whatever_the_clock_does_and_over_restarts() {
        let mut stamps = Stamps::new(0, 1000);
        let below = stamps.next(1000).expect_err("nothing is reserved");
        stamps.reserved(below);
        let mut last = 1000;
        for clock in [1000, 1001, 500, 0, 5000, 4999] {
            let next = stamps.next(clock).expect("reserved");
            assert!(next > last && next < below);
            last = next;
        }
        let again = Stamps::new(below, 0);
        assert!(again.last() > last, "the clock was set back");
        assert!(stamps.next(below).is_err());
    }

    #[test]
    fn deletions_are_known_to_older_looks_and_forgotten_ones_make_a_floor() {
        let mut deleted = Deleted::new(10);
        assert!(deleted.is_too_old(9) && !deleted.is_too_old(10));
        deleted.note(LINK, b"a", 20);
        let keys: [&[u8]; 2] = [b"a", b"b"];
        assert_eq!(deleted.since(LINK, 19, &keys), BTreeSet::from([b"a".to_vec()]));
        assert!(deleted.since(LINK, 20, &keys).is_empty());
        assert!(deleted.since(RepositoryId(2), 19, &keys).is_empty());
        for n in 0..DELETED_KEPT as u64 {
            deleted.note(LINK, &n.to_be_bytes(), 21 + n);
        }
        assert!(deleted.is_too_old(19) && !deleted.is_too_old(20));
        assert!(deleted.since(LINK, 19, &keys).is_empty(), "nobody asks below the floor");
        assert_eq!(deleted.keys.len(), DELETED_KEPT);
    }
}
