//! Who waits for whom: a request that would close a circle is refused instead of waiting for ever.
//!
//! An owner points to every owner of a held lock that one of its waiting requests conflicts with. Only POSIX requests
//! count, as on Linux: what an open file waits for (`flock`, OFD locks) says nothing about a process, because any process
//! that has the file open may unlock it.

use std::collections::HashSet;

use sateen_types::{Fid, Lock, LockClass};

use super::{LockTable, Owner};

impl LockTable {
    /// Whether `owner`, waiting for `lock`, would wait for itself. Looks at each waiting owner once.
    pub(super) fn closes_circle(&self, fid: Fid, owner: Owner, lock: &Lock) -> bool {
        if lock.class != LockClass::Posix {
            return false;
        }
        let mut seen = HashSet::new();
        let mut todo: Vec<Owner> = self.blockers(fid, owner, lock).map(|(blocker, _)| blocker).collect();
        while let Some(next) = todo.pop() {
            if next == owner {
                return true;
            }
            if seen.insert(next) {
                todo.extend(self.waits_for(next));
            }
        }
        false
    }

    fn waits_for(&self, owner: Owner) -> impl Iterator<Item = Owner> {
        let requests = self.waits.get(&owner).into_iter().flatten();
        requests
            .filter_map(move |(fid, ticket)| Some((*fid, self.files.get(fid)?.waiting.get(ticket)?.lock)))
            .filter(|(_, lock)| lock.class == LockClass::Posix)
            .flat_map(move |(fid, lock)| {
                self.blockers(fid, owner, &lock).map(|(blocker, _)| blocker).collect::<Vec<_>>()
            })
    }
}
