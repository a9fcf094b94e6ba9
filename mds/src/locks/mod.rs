//! Advisory locks of one file system: who holds what, who waits, and who goes on when a lock goes. A sans-IO table: it is
//! told what clients ask, and answers; [`crate::fs`] keeps it behind one lock and wakes those whose wait is over.
//!
//! ```text
//!                        no conflict
//!   set ───────────────────────────────────────► held ──┐ unlock, release of the owner,
//!    │                                            ▲     │ end of the session,
//!    │ conflict                  lock that was    │     │ a lock of the same owner in its place
//!    ├── not waiting ► WouldBlock  in the way goes│     ▼
//!    ├── closes a circle ► Deadlock         ┌─────┴─┐  gone ── wakes ──┐
//!    └── waiting ─────────────────────────► │waiting│ ◄────────────────┘
//!                                           └───┬───┘
//!                              cancel, end of   │
//!                              the session      ▼
//!                                              gone
//! ```
//!
//! The rules are Linux's (`fs/locks.c`):
//! - locks of two owners on one byte conflict unless both are shared; `flock` and `fcntl` locks do not see each other;
//! - a lock of the owner's own is replaced: in one step by `fcntl`; by `flock` the old one goes first, so that a
//!   conversion may lose it;
//! - only locks that are *held* are in the way, so a new request may pass one that waits (two readers keep a writer
//!   waiting); of those that wait, the oldest goes first;
//! - a POSIX request that would wait for an owner that waits, over any number of owners and files, for the requester is
//!   refused ([`graph`]).
//!
//! The invariant: no two owners hold conflicting locks, and nobody waits who could be granted.

mod graph;
mod once;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};

use sateen_types::limits::{FILE_LOCKS_MAX, SESSION_LOCKS_MAX};
use sateen_types::{
    Fid, FsCode, FsError, FsResult, Lock, LockClass, LockRange, LockSet, LockSpace, OwnedLock, SessionId,
};

pub use once::Number;
use queue::Waiter;

/// Who owns a lock: a number within a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// Whose client.
    pub session: SessionId,
    /// Which process or open file of it.
    pub id: u64,
}

/// A place in a queue. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect.
    Done,
    /// It waits.
    Queued(Ticket),
    /// There was nothing to cancel: it does not wait (any more).
    Settled,
}

/// See the module.
#[derive(Debug, Default)]
pub struct LockTable {
    files: HashMap<Fid, FileLocks>,
    sessions: HashMap<SessionId, SessionLocks>,
    /// Where each owner's requests wait.
    waits: HashMap<Owner, Vec<(Fid, Ticket)>>,
    last_ticket: u64,
    /// Sessions whose tickets left a queue since [`LockTable::take_woken`].
    woken: HashSet<SessionId>,
}

/// One file. In the map as long as something is held or waited for.
#[derive(Debug, Default)]
struct FileLocks {
    held: BTreeMap<(LockSpace, Owner), LockSet>,
    count: usize,
    /// Oldest first.
    waiting: BTreeMap<Ticket, Waiter>,
}

/// One session. In the map from its first lock to its end.
#[derive(Debug, Default)]
struct SessionLocks {
    /// Locks held.
    count: usize,
    /// Files with a lock of the session, or with one of its requests in the queue.
    files: HashSet<Fid>,
    /// Tickets in queues.
    waiting: HashMap<Ticket, Fid>,
    replies: once::Replies,
}

impl LockTable {
    /// Takes a lock for `owner`; if it conflicts, queues it if `wait` is set.
    pub fn set(&mut self, fid: Fid, owner: Owner, lock: Lock, wait: bool) -> FsResult<Outcome> {
        if lock.class == LockClass::Flock {
            if self.holds_in_mode(fid, owner, &lock) {
                return Ok(Outcome::Done);
            }
            // Not in one step, as on Linux: whoever waits may come in between.
            self.change(fid, owner, LockSpace::Whole, |set| set.unset(LockRange::WHOLE));
        }
        let outcome = if self.is_free(fid, owner, &lock) {
            self.take(fid, owner, lock).map(|()| Outcome::Done)
        } else if !wait {
            Err(FsError::new(FsCode::WouldBlock, format!("{fid}: somebody holds a conflicting lock")))
        } else if self.closes_circle(fid, owner, &lock) {
            Err(FsError::new(FsCode::Deadlock, format!("{fid}: whoever holds the lock waits for the caller")))
        } else {
            self.enqueue(fid, owner, lock).map(Outcome::Queued)
        };
        self.grant(fid);
        outcome
    }

    /// Gives up what `owner` has of `range`. Cutting a lock in two may need one more than there may be.
    pub fn unlock(&mut self, fid: Fid, owner: Owner, space: LockSpace, range: LockRange) -> FsResult<Outcome> {
        self.check_room(fid, owner, space, |set| set.unset(range))?;
        self.change(fid, owner, space, |set| set.unset(range));
        self.grant(fid);
        Ok(Outcome::Done)
    }

    /// Gives up everything `owner` holds of the file. What it waits for it goes on waiting for.
    pub fn release(&mut self, fid: Fid, owner: Owner) -> Outcome {
        for space in LockSpace::ALL {
            self.change(fid, owner, space, |set| set.unset(LockRange::WHOLE));
        }
        self.grant(fid);
        Outcome::Done
    }

    /// A session ended: its locks go, and its places in queues.
    pub fn end_session(&mut self, session: SessionId) {
        let Some(ended) = self.sessions.get_mut(&session) else { return };
        let tickets: Vec<_> = ended.waiting.keys().copied().collect();
        let files: Vec<_> = ended.files.iter().copied().collect();
        for ticket in tickets {
            self.leave_queue(ticket, session);
        }
        for fid in files {
            self.drop_session_of(fid, session);
            self.grant(fid);
        }
        self.sessions.remove(&session);
    }

    /// What a session held before the server was restarted replaces what is known of it. Gives those locks that
    /// somebody else has a conflicting one of by now, which are lost, or that are too many.
    pub fn restate(&mut self, session: SessionId, locks: &[(Fid, OwnedLock)]) -> Vec<(Fid, OwnedLock)> {
        self.end_session(session);
        let mut lost = Vec::new();
        for (fid, owned) in locks {
            let owner = Owner { session, id: owned.owner };
            if !self.is_free(*fid, owner, &owned.lock) || self.take(*fid, owner, owned.lock).is_err() {
                lost.push((*fid, *owned));
            }
        }
        lost
    }

    /// The lock that keeps `owner` from having another: that with the lowest first byte.
    pub fn conflict(&self, fid: Fid, owner: Owner, wanted: &Lock) -> Option<(Owner, Lock)> {
        self.blockers(fid, owner, wanted).min_by_key(|(owner, lock)| (lock.range.start(), *owner))
    }

    fn is_free(&self, fid: Fid, owner: Owner, wanted: &Lock) -> bool {
        self.blockers(fid, owner, wanted).next().is_none()
    }

    /// The first conflicting lock of each owner that is in the way.
    fn blockers(&self, fid: Fid, owner: Owner, wanted: &Lock) -> impl Iterator<Item = (Owner, Lock)> {
        let (space, range, mode) = (wanted.class.space(), wanted.range, wanted.mode);
        self.files.get(&fid).into_iter().flat_map(|file| &file.held).filter_map(move |((s, o), set)| {
            let others = *s == space && *o != owner;
            others.then(|| set.first_conflict(range, mode)).flatten().map(|lock| (*o, *lock))
        })
    }

    fn holds_in_mode(&self, fid: Fid, owner: Owner, lock: &Lock) -> bool {
        let set = self.files.get(&fid).and_then(|file| file.held.get(&(lock.class.space(), owner)));
        set.is_some_and(|set| set.iter().any(|held| held.mode == lock.mode))
    }

    /// Nobody is in the way: the lock is held.
    fn take(&mut self, fid: Fid, owner: Owner, lock: Lock) -> FsResult<()> {
        let space = lock.class.space();
        self.check_room(fid, owner, space, |set| set.set(lock))?;
        self.change(fid, owner, space, |set| set.set(lock));
        Ok(())
    }

    /// Changes what `owner` holds, and all counts with it.
    fn change(&mut self, fid: Fid, owner: Owner, space: LockSpace, change: impl FnOnce(&mut LockSet)) {
        let file = self.files.entry(fid).or_default();
        let session = self.sessions.entry(owner.session).or_default();
        let set = file.held.entry((space, owner)).or_default();
        let before = set.len();
        change(set);
        let after = set.len();
        if set.is_empty() {
            file.held.remove(&(space, owner));
        }
        file.count = file.count - before + after;
        session.count = session.count - before + after;
        if after > 0 {
            session.files.insert(fid);
        } else {
            self.forget_unused(fid, owner.session);
        }
    }

    /// Whether there is room for what `change` would make of the owner's locks.
    fn check_room(&self, fid: Fid, owner: Owner, space: LockSpace, change: impl FnOnce(&mut LockSet)) -> FsResult<()> {
        let file = self.files.get(&fid);
        let of_session = self.sessions.get(&owner.session).map_or(0, |s| s.count);
        let of_file = file.map_or(0, |f| f.count);
        // A change adds at most two.
        if of_session + 2 <= SESSION_LOCKS_MAX && of_file + 2 <= FILE_LOCKS_MAX {
            return Ok(());
        }
        let mut set = file.and_then(|f| f.held.get(&(space, owner))).cloned().unwrap_or_default();
        let before = set.len();
        change(&mut set);
        let added = set.len().saturating_sub(before);
        for (count, most, whose) in
            [(of_session, SESSION_LOCKS_MAX, "the client"), (of_file, FILE_LOCKS_MAX, "the file")]
        {
            if count + added > most {
                return Err(FsError::new(
                    FsCode::NoLocks,
                    format!("{fid}: {whose} has {count} locks, the most there may be"),
                )
                .with_hint("give up locks that are not needed, or lock larger ranges"));
            }
        }
        Ok(())
    }

    /// Drops what a session holds of one file.
    fn drop_session_of(&mut self, fid: Fid, session: SessionId) {
        let Some(file) = self.files.get_mut(&fid) else { return };
        let mut gone = 0;
        file.held.retain(|(_, owner), set| {
            let stays = owner.session != session;
            gone += if stays { 0 } else { set.len() };
            stays
        });
        file.count -= gone;
        if let Some(s) = self.sessions.get_mut(&session) {
            s.count -= gone;
        }
        self.forget_unused(fid, session);
    }

    /// Nothing is remembered of what nobody holds or waits for.
    fn forget_unused(&mut self, fid: Fid, session: SessionId) {
        let Some(file) = self.files.get(&fid) else { return };
        let used = file.held.keys().any(|(_, o)| o.session == session)
            || file.waiting.values().any(|w| w.owner.session == session);
        if let Some(s) = self.sessions.get_mut(&session).filter(|_| !used) {
            s.files.remove(&fid);
        }
        if file.held.is_empty() && file.waiting.is_empty() {
            self.files.remove(&fid);
        }
    }

    /// Locks held and requests waiting, over all files.
    pub fn counts(&self) -> (usize, usize) {
        let files = self.files.values();
        files.fold((0, 0), |(held, waiting), f| (held + f.count, waiting + f.waiting.len()))
    }
}
