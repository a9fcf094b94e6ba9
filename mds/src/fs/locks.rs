//! Locks as the server runs them: the table behind its lock, who is told when a wait is over, and the time after a restart
//! in which clients say what they held.
//!
//! Order of locks: the table of locks, then that of clients. A session that ended is removed from the clients first, so a
//! request that is about to change the table of locks either sees that or is undone with the session.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use sateen_proto::convert::LockOp;
use sateen_types::{Attr, Fid, FsResult, Lock, OwnedLock, SessionId};
use tokio::sync::Notify;

use super::FileSystem;
use crate::clients::ClientTable;
use crate::locks::{LockTable, Number, Outcome, Owner, Ticket};
use crate::namespace;

/// Longest a call may wait for a lock or for the clients; then the client asks again. Well below the time after which
/// either side takes the other for dead, so that a broken connection frees its calls.
const HOLD_MAX: Duration = Duration::from_secs(10);

/// What became of a change.
#[derive(Clone, Debug, PartialEq)]
pub enum Changed {
    /// It took effect; for a lock that was taken, with the file as it is now.
    Done(Option<Attr>),
    /// It waits.
    Queued(Ticket),
    /// There was nothing to cancel.
    Settled,
    /// Nothing happened: clients have not yet said what they held.
    Recovering,
}

/// The locks of one file system.
#[derive(Default)]
pub(super) struct Locks {
    state: Mutex<State>,
    /// Told when a client has said what it held, or has gone.
    recovered: Notify,
}

#[derive(Default)]
struct State {
    table: LockTable,
    /// Told when a ticket of the session left its queue. Entries live as long as somebody listens.
    listeners: HashMap<SessionId, Arc<Notify>>,
}

impl State {
    fn wake(&mut self) {
        for session in self.table.take_woken() {
            if let Some(listener) = self.listeners.get(&session) {
                listener.notify_waiters();
            }
        }
    }
}

impl Locks {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// A session ended; it is not among the clients any more.
    pub fn end_session(&self, session: SessionId) {
        let mut state = self.lock();
        state.table.end_session(session);
        state.wake();
        if let Some(listener) = state.listeners.remove(&session) {
            listener.notify_waiters();
        }
        drop(state);
        self.recovered.notify_waiters();
    }

    /// A client has said what it has open, which comes after its locks.
    pub fn restated(&self) {
        self.recovered.notify_waiters();
    }
}

impl FileSystem {
    /// A client's change of its locks on one file. `hold` bounds the wait for other clients after a restart.
    pub async fn change_lock(
        &self,
        (session, at): (SessionId, Number),
        (fid, owner): (Fid, u64),
        op: LockOp,
        hold: Duration,
    ) -> FsResult<Changed> {
        let until = Instant::now() + hold.min(HOLD_MAX);
        if !self.is_recovered(session, matches!(op, LockOp::Set { .. }), until).await? {
            return Ok(Changed::Recovering);
        }
        let owner = Owner { session, id: owner };
        let outcome = {
            let mut state = self.shared.locks.lock();
            self.shared.clients.lock().touch(session, Instant::now())?;
            let outcome = state.table.once(session, at, |table| match op {
                LockOp::Set { lock, wait } => table.set(fid, owner, lock, wait),
                LockOp::Unlock { class, range } => table.unlock(fid, owner, class.space(), range),
                LockOp::Cancel { ticket } if table.leave_queue(Ticket(ticket), session) => Ok(Outcome::Done),
                LockOp::Cancel { .. } => Ok(Outcome::Settled),
                LockOp::Release => Ok(table.release(fid, owner)),
            });
            state.wake();
            outcome?
        };
        Ok(match outcome {
            Outcome::Queued(ticket) => Changed::Queued(ticket),
            Outcome::Settled => Changed::Settled,
            // After the lock: what others wrote under theirs is in it.
            Outcome::Done if matches!(op, LockOp::Set { .. }) => {
                Changed::Done(Some(self.ask(move |tx| namespace::get_attr(tx, fid)).await?))
            }
            Outcome::Done => Changed::Done(None),
        })
    }

    /// Those of `tickets` that do not wait any more, as soon as there are some, or none after `hold`.
    pub async fn await_locks(&self, session: SessionId, tickets: &[Ticket], hold: Duration) -> FsResult<Vec<Ticket>> {
        let until = tokio::time::Instant::now() + hold.min(HOLD_MAX);
        loop {
            let listener = {
                let mut state = self.shared.locks.lock();
                self.shared.clients.lock().touch(session, Instant::now())?;
                let settled = state.table.settled(session, tickets);
                if !settled.is_empty() {
                    return Ok(settled);
                }
                Arc::clone(state.listeners.entry(session).or_default())
            };
            let told = listener.notified();
            tokio::pin!(told);
            // From here on nothing is missed; what happened before shows in another look.
            told.as_mut().enable();
            let settled = self.shared.locks.lock().table.settled(session, tickets);
            if !settled.is_empty() {
                return Ok(settled);
            }
            if tokio::time::timeout_at(until, told).await.is_err() {
                return Ok(Vec::new());
            }
        }
    }

    /// The lock that is in the way of one, or `Err(())` inside if clients have not yet said what they held.
    pub async fn test_lock(
        &self,
        session: SessionId,
        (fid, owner): (Fid, u64),
        lock: Lock,
        hold: Duration,
    ) -> FsResult<Result<Option<Lock>, ()>> {
        let until = Instant::now() + hold.min(HOLD_MAX);
        if !self.is_recovered(session, true, until).await? {
            return Ok(Err(()));
        }
        let state = self.shared.locks.lock();
        Ok(Ok(state.table.conflict(fid, Owner { session, id: owner }, &lock).map(|(_, lock)| lock)))
    }

    /// What a client held before the restart. Taken once: a client that has gone on since knows better than a message of
    /// before. Gives what is lost.
    pub fn restate_locks(&self, session: SessionId, locks: &[(Fid, OwnedLock)]) -> FsResult<Vec<(Fid, OwnedLock)>> {
        let mut state = self.shared.locks.lock();
        let mut clients = self.shared.clients.lock();
        clients.touch(session, Instant::now())?;
        if !clients.wants_restate(session) {
            return Ok(Vec::new());
        }
        drop(clients);
        Ok(state.table.restate(session, locks))
    }

    /// Locks held and requests that wait for one.
    pub fn lock_counts(&self) -> (usize, usize) {
        self.shared.locks.lock().table.counts()
    }

    /// Whether what the session itself holds is known again and, for `everybody`, what all others do. The others are waited
    /// for until `until`; the session itself must first be told that it has to say so.
    pub(super) async fn is_recovered(&self, session: SessionId, everybody: bool, until: Instant) -> FsResult<bool> {
        let missing = |clients: &ClientTable| match clients.wants_restate(session) {
            true => Missing::Asker,
            false if everybody && clients.is_recovering() => Missing::Others,
            false => Missing::Nobody,
        };
        self.await_statements(session, until, missing).await
    }

    /// Whether what all other sessions hold is known again, as soon as it is or at `until`.
    pub(super) async fn have_others_recovered(&self, session: SessionId, until: Instant) -> FsResult<bool> {
        let missing = |clients: &ClientTable| match clients.are_others_recovering(session) {
            true => Missing::Others,
            false => Missing::Nobody,
        };
        self.await_statements(session, until, missing).await
    }

    async fn await_statements(
        &self,
        session: SessionId,
        until: Instant,
        missing: impl Fn(&ClientTable) -> Missing,
    ) -> FsResult<bool> {
        loop {
            let told = self.shared.locks.recovered.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            let now = Instant::now();
            let missing = {
                let mut clients = self.shared.clients.lock();
                clients.touch(session, now)?;
                missing(&clients)
            };
            let left = match missing {
                Missing::Asker => return Ok(false),
                Missing::Others => until.saturating_duration_since(now),
                Missing::Nobody => return Ok(true),
            };
            if left.is_zero() {
                return Ok(false);
            }
            // Either way the next look decides.
            let _ = tokio::time::timeout(left, told).await;
        }
    }
}

/// Who has not said yet after a restart what it holds.
enum Missing {
    Nobody,
    /// Who asks.
    Asker,
    /// They have one lease; then they end.
    Others,
}
