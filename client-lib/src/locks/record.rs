//! What this client holds, as the MDS should know it: said again after a restart of the MDS, and lost with the session.

use std::collections::{BTreeMap, HashMap, HashSet};

use sateen_types::{Fid, Lock, LockMode, LockRange, LockSet, LockSpace, OwnedLock, SessionId};

/// See the module.
#[derive(Debug)]
pub(crate) struct Record {
    /// The session all of it belongs to.
    session: SessionId,
    held: HashMap<Fid, BTreeMap<(u64, LockSpace), LockSet>>,
    /// Owners that held locks of a file when their session ended, and have not yet noticed.
    lost: HashSet<(Fid, u64)>,
}

impl Record {
    /// Nothing is held.
    pub fn new(session: SessionId) -> Record {
        Record { session, held: HashMap::new(), lost: HashSet::new() }
    }

    /// A lock was granted to `session`; false if that one has ended, and the lock with it.
    pub fn set(&mut self, session: SessionId, fid: Fid, owner: u64, lock: Lock) -> bool {
        if session != self.session {
            return false;
        }
        self.held.entry(fid).or_default().entry((owner, lock.class.space())).or_default().set(lock);
        true
    }

    /// A range was given up.
    pub fn unset(&mut self, fid: Fid, owner: u64, space: LockSpace, range: LockRange) {
        let Some(of_file) = self.held.get_mut(&fid) else { return };
        if let Some(set) = of_file.get_mut(&(owner, space)) {
            set.unset(range);
            if set.is_empty() {
                of_file.remove(&(owner, space));
            }
        }
        if of_file.is_empty() {
            self.held.remove(&fid);
        }
    }

    /// All of an owner's locks of a file were given up, and what it has lost is forgotten.
    pub fn release(&mut self, fid: Fid, owner: u64) {
        for space in LockSpace::ALL {
            self.unset(fid, owner, space, LockRange::WHOLE);
        }
        self.forgive(fid, owner);
    }

    /// The owner has been told, or has given the lock up.
    pub fn forgive(&mut self, fid: Fid, owner: u64) {
        self.lost.remove(&(fid, owner));
    }

    /// Whether there is anything to give up.
    pub fn knows(&self, fid: Fid, owner: u64) -> bool {
        self.holds(fid, owner) || self.is_lost(fid, owner)
    }

    /// Whether the owner holds anything of the file.
    pub fn holds(&self, fid: Fid, owner: u64) -> bool {
        self.of_owner(fid, owner).next().is_some()
    }

    /// Whether the owner may have written to the file under a lock.
    pub fn holds_exclusive(&self, fid: Fid, owner: u64) -> bool {
        self.of_owner(fid, owner).any(|lock| lock.mode == LockMode::Exclusive)
    }

    fn of_owner(&self, fid: Fid, owner: u64) -> impl Iterator<Item = &Lock> {
        let spaces = LockSpace::ALL;
        let of_file = self.held.get(&fid);
        spaces.into_iter().filter_map(move |space| of_file?.get(&(owner, space))).flat_map(LockSet::iter)
    }

    /// Whether the owner has lost locks of the file.
    pub fn is_lost(&self, fid: Fid, owner: u64) -> bool {
        self.lost.contains(&(fid, owner))
    }

    /// Everything that is held.
    pub fn all(&self) -> Vec<(Fid, OwnedLock)> {
        let of_file = |(fid, owners): (&Fid, &BTreeMap<(u64, LockSpace), LockSet>)| {
            let fid = *fid;
            let locks = owners.iter().flat_map(move |((owner, _), set)| {
                set.iter().map(move |lock| (fid, OwnedLock { owner: *owner, lock: *lock }))
            });
            locks.collect::<Vec<_>>()
        };
        self.held.iter().flat_map(of_file).collect()
    }

    /// The MDS gave these to somebody else.
    pub fn lose(&mut self, locks: &[(Fid, OwnedLock)]) {
        for (fid, owned) in locks {
            self.unset(*fid, owned.owner, owned.lock.class.space(), owned.lock.range);
            self.lost.insert((*fid, owned.owner));
        }
    }

    /// The session ended; `session` takes its place. Gives the number of files with lost locks.
    pub fn lose_all(&mut self, session: SessionId) -> usize {
        let held = std::mem::take(&mut self.held);
        let files = held.len();
        self.lost.extend(held.iter().flat_map(|(fid, owners)| owners.keys().map(|(owner, _)| (*fid, *owner))));
        self.session = session;
        files
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sateen_types::LockClass;

    const A: SessionId = SessionId([1; 16]);
    const B: SessionId = SessionId([2; 16]);
    const F: Fid = Fid::ROOT;

    fn lock(class: LockClass) -> Lock {
        Lock { class, mode: LockMode::Exclusive, range: LockRange::WHOLE, pid: 1 }
    }

    #[test]
    fn what_was_held_is_lost_with_the_session_until_the_owner_gives_it_up() {
        let mut r = Record::new(A);
        assert!(r.set(A, F, 7, lock(LockClass::Flock)) && r.set(A, F, 8, lock(LockClass::Posix)));
        assert_eq!(r.all().len(), 2);
        assert!(r.holds_exclusive(F, 7) && !r.holds(F, 9));
        assert_eq!(r.lose_all(B), 1);
        assert!(r.is_lost(F, 7) && r.is_lost(F, 8) && !r.is_lost(F, 9) && r.all().is_empty());
        assert!(!r.set(A, F, 9, lock(LockClass::Posix)), "granted to a session that has ended");
        r.release(F, 7);
        r.forgive(F, 8);
        assert!(!r.knows(F, 7) && !r.knows(F, 8));
    }

    #[test]
    fn locks_of_both_kinds_are_kept_apart() {
        let mut r = Record::new(A);
        r.set(A, F, 7, lock(LockClass::Flock));
        r.set(A, F, 7, lock(LockClass::Ofd));
        r.unset(F, 7, LockSpace::Whole, LockRange::WHOLE);
        assert_eq!(r.all().len(), 1);
        let lost = r.all();
        r.lose(&lost);
        assert!(r.is_lost(F, 7) && !r.holds(F, 7));
    }
}
