//! Requests that wait, and how they go on: the oldest that can be granted first.

use sateen_types::limits::{FILE_LOCK_WAITERS_MAX, SESSION_LOCK_WAITERS_MAX};
use sateen_types::{Fid, FsCode, FsError, FsResult, Lock, LockMode, SessionId};

use super::{LockTable, Owner, Ticket};

/// One request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub owner: Owner,
    pub lock: Lock,
}

impl LockTable {
    /// Puts a request at the end of the file's queue.
    pub(super) fn enqueue(&mut self, fid: Fid, owner: Owner, lock: Lock) -> FsResult<Ticket> {
        let session = self.sessions.entry(owner.session).or_default();
        let file = self.files.entry(fid).or_default();
        for (count, most, whose) in [
            (session.waiting.len(), SESSION_LOCK_WAITERS_MAX, "of the client"),
            (file.waiting.len(), FILE_LOCK_WAITERS_MAX, "for the file"),
        ] {
            if count >= most {
                let what = format!("{fid}: {count} requests {whose} wait for locks, the most that may");
                return Err(
                    FsError::new(FsCode::NoLocks, what).with_hint("try again when some of them have their locks")
                );
            }
        }
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        file.waiting.insert(ticket, Waiter { owner, lock });
        session.waiting.insert(ticket, fid);
        session.files.insert(fid);
        self.waits.entry(owner).or_default().push((fid, ticket));
        Ok(ticket)
    }

    /// Takes a request of `session` out of its queue; false if it is in none.
    pub fn leave_queue(&mut self, ticket: Ticket, session: SessionId) -> bool {
        let Some(of_session) = self.sessions.get_mut(&session) else { return false };
        let Some(fid) = of_session.waiting.remove(&ticket) else { return false };
        self.woken.insert(session);
        let waiter = self.files.get_mut(&fid).and_then(|file| file.waiting.remove(&ticket));
        if let Some(Waiter { owner, .. }) = waiter
            && let Some(waits) = self.waits.get_mut(&owner)
        {
            waits.retain(|(_, t)| *t != ticket);
            if waits.is_empty() {
                self.waits.remove(&owner);
            }
        }
        self.forget_unused(fid, session);
        true
    }

    /// Something of the file may have become free: grants in the order of the queue. What is granted may itself make room (a
    /// weaker lock in place of a stronger); then it begins again, so that older requests come first.
    pub(super) fn grant(&mut self, fid: Fid) {
        loop {
            let waiting: Vec<(Ticket, Waiter)> = match self.files.get(&fid) {
                Some(file) => file.waiting.iter().map(|(t, w)| (*t, *w)).collect(),
                None => return,
            };
            let mut weakened = false;
            for (ticket, Waiter { owner, lock }) in waiting {
                if self.is_free(fid, owner, &lock) {
                    self.leave_queue(ticket, owner.session);
                    weakened = lock.mode == LockMode::Shared && self.holds_exclusive(fid, owner, &lock);
                    // Without room it is out of the queue as well: its client asks again, and is told.
                    weakened &= self.take(fid, owner, lock).is_ok();
                    if weakened {
                        break;
                    }
                }
            }
            if !weakened {
                return;
            }
        }
    }

    /// Whether the owner has an exclusive lock of a part of what it asks for.
    fn holds_exclusive(&self, fid: Fid, owner: Owner, lock: &Lock) -> bool {
        let held = self.files.get(&fid).and_then(|file| file.held.get(&(lock.class.space(), owner)));
        held.is_some_and(|held| held.within(lock.range).iter().any(|part| part.mode == LockMode::Exclusive))
    }

    /// Those of `tickets` that do not wait (any more).
    pub fn settled(&self, session: SessionId, tickets: &[Ticket]) -> Vec<Ticket> {
        let waiting = self.sessions.get(&session).map(|s| &s.waiting);
        tickets.iter().filter(|t| !waiting.is_some_and(|w| w.contains_key(t))).copied().collect()
    }

    /// Sessions with tickets that left a queue since this was last asked.
    pub fn take_woken(&mut self) -> Vec<SessionId> {
        self.woken.drain().collect()
    }
}
