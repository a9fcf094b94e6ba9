//! Advisory locks of open files, at the MDS and therefore between all clients. Who owns a lock is a number the caller
//! chooses; within one client equal numbers are one owner.
//!
//! A lock also makes data coherent between clients, as NFS has it: what was written under an exclusive lock is stored and
//! reported before the lock is given up (or becomes a shared one), and whoever gets a lock is told the file's attributes
//! as they are then, and forgets what is cached of older data.
//!
//! Requests about one file are sent one after the other, so that the record of what is held ([`record`]) has them in the
//! order in which they took effect. A request that waits is not under way meanwhile: it has a ticket ([`waits`]), and when
//! that has left its queue the request is made again, which changes nothing if it was granted. Each runs in a task of its
//! own to its end; a lock that nobody waits for any more is given back.

mod record;
mod waits;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sateen_proto::convert::{self, LockOp};
use sateen_proto::mds as wire;
use sateen_proto::mds::change_lock_reply::Outcome;
use sateen_types::limits::SESSION_LOCKS_MAX;
use sateen_types::{Attr, Fid, FsCode, FsError, FsResult, Lock, LockClass, LockMode, LockRange, OwnedLock, SessionId};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::retry::Backoff;
use crate::session::{Incarnation, Session};
use crate::transport;

pub(crate) use record::Record;
pub(crate) use waits::Waits;

/// Longest a question may stay at the MDS. It holds them for 10 s at most.
const HOLD_MAX: Duration = Duration::from_secs(10);
/// How long whoever gives up waiting waits to hear whether the lock came first.
const GIVE_UP_WITHIN: Duration = Duration::from_secs(1);
/// Requests about files that share one of these are sent one after the other.
pub(crate) const TURNS: usize = 64;

/// One owner of locks on one file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holder {
    pub fid: Fid,
    pub owner: u64,
}

/// What the MDS did.
enum Changed {
    Done(Option<Attr>),
    Queued(u64),
    Settled,
}

impl Session {
    /// Takes a lock and gives the file's attributes. Waits for it, if `give_up` is there, until that completes.
    pub async fn lock(
        self: &Arc<Self>,
        holder: Holder,
        lock: Lock,
        give_up: Option<impl Future<Output = ()>>,
    ) -> FsResult<Attr> {
        let (tell, told) = oneshot::channel();
        let given_up = CancellationToken::new();
        let _when_dropped = given_up.clone().drop_guard();
        let (session, waits, until) = (Arc::clone(self), give_up.is_some(), given_up.clone());
        self.spawn(async move {
            let stop = session.stop.clone();
            tokio::select! {
                () = session.lock_to_the_end(holder, lock, waits.then_some(&until), tell) => {}
                () = stop.cancelled() => {}
            }
        });
        let no_answer = |_| Err(closing());
        let Some(give_up) = give_up else {
            return self.within_patience(told, ABOUT).await.and_then(|told| told.unwrap_or_else(no_answer));
        };
        tokio::pin!(told);
        tokio::select! {
            outcome = &mut told => return outcome.unwrap_or_else(no_answer),
            () = give_up => given_up.cancel(),
        }
        match tokio::time::timeout(GIVE_UP_WITHIN, told).await {
            Ok(outcome) => outcome.unwrap_or_else(no_answer),
            // The MDS does not answer. If the lock was granted, the task gives it back when it hears of that.
            Err(_) => Err(interrupted(holder)),
        }
    }

    async fn lock_to_the_end(
        self: &Arc<Self>,
        holder: Holder,
        lock: Lock,
        waits: Option<&CancellationToken>,
        tell: oneshot::Sender<FsResult<Attr>>,
    ) {
        let mut wait = waits.is_some();
        loop {
            let ticket = {
                let _turn = self.turn(holder.fid).await;
                match self.try_lock(holder, lock, wait).await {
                    Ok(Changed::Queued(ticket)) => ticket,
                    Ok(Changed::Done(Some(attr))) => {
                        if tell.send(Ok(attr)).is_err() {
                            self.give_back(holder, lock).await;
                        }
                        return;
                    }
                    Ok(_) => {
                        let what = format!("the MDS answered a lock of {} with something else", holder.fid);
                        return drop(tell.send(Err(FsError::new(FsCode::Internal, what))));
                    }
                    Err(e) if e.code == FsCode::WouldBlock && waits.is_some() => {
                        return drop(tell.send(Err(interrupted(holder))));
                    }
                    Err(e) => return drop(tell.send(Err(e))),
                }
            };
            let given_up = async {
                match waits {
                    Some(token) => token.cancelled().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.waits.settled(self, ticket) => {}
                () = given_up => {
                    let _turn = self.turn(holder.fid).await;
                    match self.change_lock(holder, LockOp::Cancel { ticket }).await {
                        Ok((Changed::Settled, _)) => {}
                        _ => return drop(tell.send(Err(interrupted(holder)))),
                    }
                    // It may have been granted first: one more look that does not wait.
                    wait = false;
                }
            }
        }
    }

    /// One attempt; the record follows it. The caller has the turn.
    async fn try_lock(self: &Arc<Self>, holder: Holder, lock: Lock, wait: bool) -> FsResult<Changed> {
        let Holder { fid, owner } = holder;
        if self.record.lock().is_lost(fid, owner) {
            return Err(lost(fid));
        }
        let changed = self.change_lock(holder, LockOp::Set { lock, wait }).await;
        let mut record = self.record.lock();
        match changed {
            Ok((changed @ Changed::Done(_), session)) => {
                if record.set(session, fid, owner, lock) {
                    Ok(changed)
                } else {
                    Err(lost(fid))
                }
            }
            other => {
                if lock.class == LockClass::Flock {
                    // A conversion gives the old lock up first.
                    record.unset(fid, owner, lock.class.space(), LockRange::WHOLE);
                }
                other.map(|(changed, _)| changed)
            }
        }
    }

    /// Nobody is there any more to whom the lock was granted. The caller has the turn.
    async fn give_back(self: &Arc<Self>, holder: Holder, lock: Lock) {
        let op = LockOp::Unlock { class: lock.class, range: lock.range };
        match self.change_lock(holder, op).await {
            Ok(_) => self.record.lock().unset(holder.fid, holder.owner, lock.class.space(), lock.range),
            Err(error) => {
                tracing::warn!(%error, fid = %holder.fid, "a lock nobody wants any more stays until the close")
            }
        }
    }

    /// Gives up a range. To give up what is lost is no error.
    pub async fn unlock(self: &Arc<Self>, holder: Holder, class: LockClass, range: LockRange) -> FsResult<()> {
        let session = Arc::clone(self);
        self.to_the_end(async move {
            let Holder { fid, owner } = holder;
            let _turn = session.turn(fid).await;
            if !session.forgive(holder) {
                session.change_lock(holder, LockOp::Unlock { class, range }).await?;
            }
            session.record.lock().unset(fid, owner, class.space(), range);
            Ok(())
        })
        .await
    }

    /// Gives up everything of an owner.
    pub async fn release_locks(self: &Arc<Self>, holder: Holder) -> FsResult<()> {
        let session = Arc::clone(self);
        self.to_the_end(async move {
            let _turn = session.turn(holder.fid).await;
            session.change_lock(holder, LockOp::Release).await?;
            session.record.lock().release(holder.fid, holder.owner);
            Ok(())
        })
        .await
    }

    /// Whether the owner had lost locks of the file, which is forgotten now.
    fn forgive(&self, holder: Holder) -> bool {
        let mut record = self.record.lock();
        let lost = record.is_lost(holder.fid, holder.owner);
        record.forgive(holder.fid, holder.owner);
        lost && !record.holds(holder.fid, holder.owner)
    }

    /// The lock that keeps an owner from having one.
    pub async fn test_lock(self: &Arc<Self>, holder: Holder, lock: Lock) -> FsResult<Option<Lock>> {
        let Holder { fid, owner } = holder;
        let question = async {
            let mut backoff = Backoff::new(None, &self.stop);
            loop {
                let hold_ms = self.lock_hold_ms();
                let asked = self.ask_locks(|mut client, session_id| {
                    let (fid, lock) = (Some(fid.into()), Some((&lock).into()));
                    async move { client.test(wire::TestLockRequest { session_id, fid, owner, lock, hold_ms }).await }
                });
                let reply = asked.await?;
                if !reply.recovering {
                    return reply.conflict.map(Lock::try_from).transpose();
                }
                if !self.say_again().await && !backoff.pause().await {
                    return Err(closing());
                }
            }
        };
        self.within_patience(question, ABOUT).await?
    }

    /// Says again what was held, to an MDS that was restarted. Before it is told which files are open.
    pub async fn restate_locks(&self, incarnation: &Incarnation) -> FsResult<()> {
        let locks: Vec<_> = self.record.lock().all().iter().map(Into::into).collect();
        if locks.is_empty() {
            return Ok(());
        }
        let request = wire::RestateLocksRequest { session_id: incarnation.id.0.to_vec(), locks };
        let route = self.mds.route();
        let mut client = route.locks();
        let reply = transport::within(self.mds.request_timeout, &route.peer, client.restate(request)).await?;
        if reply.lost.len() > SESSION_LOCKS_MAX {
            return Err(convert::bad("lost", format_args!("{} locks", reply.lost.len())));
        }
        let lost = reply.lost.into_iter().map(TryInto::try_into).collect::<FsResult<Vec<(Fid, OwnedLock)>>>()?;
        for (fid, owned) in &lost {
            tracing::error!(%fid, owner = owned.owner, "a lock was lost: somebody else had it after the MDS was restarted");
        }
        self.record.lock().lose(&lost);
        Ok(())
    }

    /// One numbered change, sent until its fate is known. Gives the session it happened in.
    async fn change_lock(self: &Arc<Self>, holder: Holder, op: LockOp) -> FsResult<(Changed, SessionId)> {
        let mut incarnation = self.incarnation();
        let mut slot = incarnation.lock_slots.take().await;
        let mut backoff = Backoff::new(None, &self.stop);
        loop {
            let request = wire::ChangeLockRequest {
                session_id: incarnation.id.0.to_vec(),
                slot: slot.slot,
                number: slot.number,
                fid: Some(holder.fid.into()),
                owner: holder.owner,
                hold_ms: self.lock_hold_ms(),
                op: Some(op.into()),
            };
            let route = self.mds.route();
            let mut client = route.locks();
            match transport::within(self.mds.request_timeout, &route.peer, client.change(request)).await {
                Ok(reply) => match Outcome::try_from(reply.outcome) {
                    Ok(Outcome::Done) => {
                        let attr = reply.attr.map(Attr::try_from).transpose()?;
                        return Ok((Changed::Done(attr), incarnation.id));
                    }
                    Ok(Outcome::Queued) => return Ok((Changed::Queued(reply.ticket), incarnation.id)),
                    Ok(Outcome::Settled) => return Ok((Changed::Settled, incarnation.id)),
                    Ok(Outcome::Recovering) => {
                        if !self.say_again().await && !backoff.pause().await {
                            return Err(closing());
                        }
                    }
                    Ok(Outcome::Unspecified) | Err(_) => {
                        return Err(convert::bad("outcome", format_args!("{} is unknown", reply.outcome)));
                    }
                },
                Err(e) if e.code.is_retryable() => {
                    self.mds.failed(&route);
                    if !backoff.pause().await {
                        return Err(e);
                    }
                }
                Err(e) if e.code == FsCode::Stale && !self.is_alive(&incarnation).await? => {
                    let had_locks = self.record.lock().holds(holder.fid, holder.owner);
                    self.reopen_within(incarnation.id, &mut backoff).await?;
                    match op {
                        LockOp::Set { .. } if had_locks => return Err(lost(holder.fid)),
                        LockOp::Set { .. } => {}
                        // Nothing is held or waited for any more.
                        LockOp::Unlock { .. } | LockOp::Release => {
                            return Ok((Changed::Done(None), self.incarnation().id));
                        }
                        LockOp::Cancel { .. } => return Ok((Changed::Settled, self.incarnation().id)),
                    }
                    incarnation = self.incarnation();
                    slot = incarnation.lock_slots.take().await;
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// The MDS was restarted: it is told at once what this client had, for others wait for that. False if it could not be.
    async fn say_again(&self) -> bool {
        let told = self.renew(&self.incarnation()).await;
        told.inspect_err(|error| tracing::debug!(%error, "the MDS was not told yet what was held")).is_ok()
    }

    /// `work` goes on to its end in a task of its own; here it is waited for as long as for a server.
    async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = FsResult<T>> + Send + 'static,
    ) -> FsResult<T> {
        let stop = self.stop.clone();
        let run = self.spawn(async move {
            tokio::select! {
                done = work => done,
                () = stop.cancelled() => Err(closing()),
            }
        });
        let joined = self.within_patience(run, ABOUT).await?;
        joined.map_err(|e| FsError::new(FsCode::Internal, format!("the request's task failed: {e}")))?
    }

    /// How long the MDS may keep a question: well below the time after which it counts as unanswered.
    pub(crate) fn lock_hold_ms(&self) -> u32 {
        (self.mds.request_timeout / 2).min(HOLD_MAX).as_millis() as u32
    }
}

/// Whether data must be stored before this is asked for: what was written under the old lock may be read under the new.
pub(crate) fn shares(lock: &Lock) -> bool {
    lock.mode == LockMode::Shared
}

/// What no answer comes about.
const ABOUT: &str = "about a lock";

fn closing() -> FsError {
    FsError::new(FsCode::Unavailable, "the client is closing")
}

fn interrupted(holder: Holder) -> FsError {
    FsError::new(FsCode::Interrupted, format!("waiting for a lock of {} was given up", holder.fid))
}

/// What an owner is told whose locks went with the session.
pub(crate) fn lost(fid: Fid) -> FsError {
    FsError::new(FsCode::Io, format!("locks of {fid} were lost: the client was silent for longer than its lease"))
        .with_hint("somebody else may have changed the file; close it, open it and look before going on")
}
