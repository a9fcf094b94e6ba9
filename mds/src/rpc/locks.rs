//! `sateen.mds.v1.Locks`.

use std::sync::Arc;
use std::time::Duration;

use sateen_proto::convert::{LockOp, bad, fid, required, session_id};
use sateen_proto::mds::change_lock_reply::Outcome;
use sateen_proto::mds::locks_server::Locks as LocksService;
use sateen_proto::mds::*;
use sateen_types::limits::{LOCK_SLOTS_MAX, SESSION_LOCK_WAITERS_MAX, SESSION_LOCKS_MAX};
use sateen_types::{FsResult, OwnedLock, SessionId};
use tonic::{Request, async_trait};

use super::{Answer, answer};
use crate::cluster::Cluster;
use crate::fs::{Changed, FileSystem};
use crate::locks::{Number, Ticket};

/// See the module.
pub struct Service {
    pub(super) cluster: Arc<Cluster>,
}

#[async_trait]
impl LocksService for Service {
    async fn change(&self, request: Request<ChangeLockRequest>) -> Answer<ChangeLockReply> {
        answer(self.change(request.into_inner()).await)
    }

    async fn r#await(&self, request: Request<AwaitLocksRequest>) -> Answer<AwaitLocksReply> {
        answer(self.wait(request.into_inner()).await)
    }

    async fn test(&self, request: Request<TestLockRequest>) -> Answer<TestLockReply> {
        answer(self.test(request.into_inner()).await)
    }

    async fn restate(&self, request: Request<RestateLocksRequest>) -> Answer<RestateLocksReply> {
        answer(self.restate(request.into_inner()))
    }
}

impl Service {
    fn fs(&self, session: &[u8]) -> FsResult<(SessionId, Arc<FileSystem>)> {
        let session = session_id(session)?;
        Ok((session, self.cluster.by_session(session)?))
    }

    async fn change(&self, r: ChangeLockRequest) -> FsResult<ChangeLockReply> {
        let (session, fs) = self.fs(&r.session_id)?;
        if r.slot >= LOCK_SLOTS_MAX {
            return Err(bad("slot", format_args!("{} is not below {LOCK_SLOTS_MAX}", r.slot)));
        }
        if r.number == 0 {
            return Err(bad("number", "0; they start at 1"));
        }
        let at = Number { slot: r.slot, number: r.number };
        let (fid, op) = (fid(r.fid, "fid")?, LockOp::try_from(required(r.op, "op")?)?);
        let changed = fs.change_lock((session, at), (fid, r.owner), op, hold(r.hold_ms)).await?;
        let (outcome, ticket, attr) = match changed {
            Changed::Done(attr) => (Outcome::Done, 0, attr),
            Changed::Queued(Ticket(ticket)) => (Outcome::Queued, ticket, None),
            Changed::Settled => (Outcome::Settled, 0, None),
            Changed::Recovering => (Outcome::Recovering, 0, None),
        };
        Ok(ChangeLockReply { outcome: outcome.into(), ticket, attr: attr.as_ref().map(Into::into) })
    }

    async fn wait(&self, r: AwaitLocksRequest) -> FsResult<AwaitLocksReply> {
        let (session, fs) = self.fs(&r.session_id)?;
        if r.tickets.len() > SESSION_LOCK_WAITERS_MAX {
            return Err(bad("tickets", format_args!("{}, at most {SESSION_LOCK_WAITERS_MAX}", r.tickets.len())));
        }
        let tickets: Vec<Ticket> = r.tickets.into_iter().map(Ticket).collect();
        let settled = fs.await_locks(session, &tickets, hold(r.hold_ms)).await?;
        Ok(AwaitLocksReply { settled: settled.into_iter().map(|t| t.0).collect() })
    }

    async fn test(&self, r: TestLockRequest) -> FsResult<TestLockReply> {
        let (session, fs) = self.fs(&r.session_id)?;
        let (fid, lock) = (fid(r.fid, "fid")?, required(r.lock, "lock")?.try_into()?);
        let found = fs.test_lock(session, (fid, r.owner), lock, hold(r.hold_ms)).await?;
        Ok(match found {
            Ok(conflict) => TestLockReply { conflict: conflict.as_ref().map(Into::into), recovering: false },
            Err(()) => TestLockReply { conflict: None, recovering: true },
        })
    }

    fn restate(&self, r: RestateLocksRequest) -> FsResult<RestateLocksReply> {
        let (session, fs) = self.fs(&r.session_id)?;
        if r.locks.len() > SESSION_LOCKS_MAX {
            return Err(bad("locks", format_args!("{}, at most {SESSION_LOCKS_MAX}", r.locks.len())));
        }
        let locks: Vec<(_, OwnedLock)> = r.locks.into_iter().map(TryInto::try_into).collect::<FsResult<_>>()?;
        let lost = fs.restate_locks(session, &locks)?;
        Ok(RestateLocksReply { lost: lost.iter().map(Into::into).collect() })
    }
}

fn hold(ms: u32) -> Duration {
    Duration::from_millis(u64::from(ms))
}
