//! Changes: each takes effect exactly once, in one session or never.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sateen_proto::mds::{execute_outcome::Outcome, execute_request::Op};
use sateen_proto::{convert, mds as wire, status};
use sateen_types::limits::{EXECUTE_MANY_BYTES_MAX, EXECUTE_MANY_MAX};
use sateen_types::op::{Create, Mutation, MutationReply};
use sateen_types::{Credential, FsCode, FsError, FsResult, Grant, LayoutTemplate, Remote};

use super::{Incarnation, Session};
use crate::file::Registration;
use crate::retry::Backoff;
use crate::slots::Slot;
use crate::together::{Bounds, Together};
use crate::{transport, writeback};

/// Times that a create finds a file which goes in the same moment: each time somebody else has removed one.
const FINDS_MAX: u32 = 100;
/// Reports of what was written are made by anybody's close and by background tasks, many at a time, and are small.
const REPORTS: Bounds = Bounds {
    calls_free: 2,
    waiting_per_call: EXECUTE_MANY_MAX / 2,
    requests_max: EXECUTE_MANY_MAX,
    bytes_max: EXECUTE_MANY_BYTES_MAX,
};

/// What a report takes at most in a message beside the groups of its user, and what each of those does.
const REPORT_BYTES: usize = 256;
const GROUP_BYTES: usize = 5;

/// Reports that wait for a call.
pub(super) type Reports = Arc<Together<wire::ExecuteRequest, FsResult<wire::ExecuteReply>>>;

/// None.
pub(super) fn reports() -> Reports {
    Arc::new(Together::new(REPORTS))
}

/// What became of a change.
#[derive(Debug)]
pub(crate) struct Executed {
    pub reply: MutationReply,
    /// What may be kept of a file that was opened.
    pub grant: Grant,
    /// What of a file that was found is only in its repository.
    pub remote: Option<Remote>,
    /// Of a new directory that nobody else may use: what new files in it get.
    pub held: Option<LayoutTemplate>,
    /// Of a file that was opened. If nobody takes it, it is closed.
    pub registration: Option<Registration>,
}

/// How a change is asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Terms {
    /// A new directory is wanted that nobody else may use.
    hold: bool,
    /// Only in the session of this writer.
    writer: Option<u64>,
    /// Number of the open that a Create makes.
    open: u64,
}

impl Session {
    /// One change; takes effect exactly once. With an error that is retryable it may still take effect later.
    pub async fn execute(self: &Arc<Self>, cred: &Credential, op: Mutation) -> FsResult<MutationReply> {
        self.execute_whole(cred, op, false).await.map(|done| done.reply)
    }

    /// [`Session::execute`], with what may be kept of what was opened or made. With `hold` a new directory is asked for that
    /// nobody else may use.
    pub async fn execute_whole(self: &Arc<Self>, cred: &Credential, op: Mutation, hold: bool) -> FsResult<Executed> {
        self.execute_on(cred, op, Terms { hold, ..Terms::default() }).await
    }

    /// Makes a file, or finds it; `open`: number of the open. If what it found goes before it is opened, it begins again.
    pub async fn create(self: &Arc<Self>, cred: &Credential, op: Create, open: u64) -> FsResult<Executed> {
        let mut tries = 1;
        loop {
            match self.execute_on(cred, Mutation::Create(op.clone()), Terms { open, ..Terms::default() }).await {
                Err(e) if e.code == FsCode::Stale && !op.exclusive && tries < FINDS_MAX => tries += 1,
                done => return done,
            }
        }
    }

    /// [`Session::execute`] in the session of `writer` alone: `Unavailable` if another has followed it, or follows now.
    pub async fn execute_as(self: &Arc<Self>, writer: u64, cred: &Credential, op: Mutation) -> FsResult<MutationReply> {
        let terms = Terms { writer: Some(writer), ..Terms::default() };
        self.execute_on(cred, op, terms).await.map(|done| done.reply)
    }

    async fn execute_on(self: &Arc<Self>, cred: &Credential, op: Mutation, terms: Terms) -> FsResult<Executed> {
        self.names.told(self, &writeback::named(&op)).await?;
        let awaiting = Arc::new(AtomicBool::new(false));
        let work = async {
            if matches!(op, Mutation::Unlink { .. } | Mutation::Rename { .. }) {
                // A file that was closed here goes at once, and not as one that is open and loses its name.
                self.tell_closes().await;
            }
            let incarnation = self.incarnation();
            if terms.writer.is_some_and(|writer| writer != incarnation.writer) {
                return Err(followed());
            }
            let room = match waits_for_others(&op) {
                true => Some(Arc::clone(&incarnation.waiting).acquire_owned().await.map_err(|_| closing())?),
                false => None,
            };
            let slot = incarnation.slots.take().await;
            let session = Arc::clone(self);
            let request = wire::ExecuteRequest {
                credential: Some(cred.into()),
                op: Some(op.clone().into()),
                hold: terms.hold,
                open_number: terms.open,
                ..wire::ExecuteRequest::default()
            };
            let (awaiting, op) = (Arc::clone(&awaiting), op.clone());
            let run = self.tasks.spawn(async move {
                // Like the slot, until the fate of the change is known.
                let _room = room;
                let stop = session.stop.clone();
                let mut done = tokio::select! {
                    done = session.execute_to_the_end(incarnation, slot, request, (&awaiting, terms.writer.is_some())) => done,
                    () = stop.cancelled() => Err(closing()),
                };
                if let (Ok(done), Mutation::Create(Create { open: Some(access), .. })) = (&mut done, &op)
                    && let MutationReply::Entry(entry) = &done.reply
                {
                    done.registration = Some(Registration::created(&session, entry.attr.fid, terms.open, access.write));
                }
                session.names.changed(&op, done.as_ref().ok().map(|done| &done.reply));
                session.ahead.changed(&op, &writeback::named(&op));
                done
            });
            run.await.map_err(|e| FsError::new(FsCode::Internal, format!("the request's task failed: {e}")))?
        };
        let Some(limit) = self.options.retry_for else { return work.await };
        let mut work = pin!(work);
        if let Ok(done) = tokio::time::timeout(limit, &mut work).await {
            return done;
        }
        // Others have a lease to give something up.
        let more = Some(self.incarnation().lease).filter(|_| awaiting.load(Ordering::Relaxed)).unwrap_or_default();
        tokio::time::timeout(more, work).await.unwrap_or_else(|_| {
            self.names.changed(&op, None);
            self.ahead.changed(&op, &writeback::named(&op));
            let limit = limit + more;
            let what =
                format!("MDS {} did not make a change for {limit:?}; it may still be made", self.mds.addresses());
            Err(FsError::new(FsCode::TimedOut, what)
                .with_hint("check that sateen-mds runs; `sateen status` shows the cluster"))
        })
    }

    /// Sends one numbered request until its fate is known; a `bound` one in no other session. Tells if others are waited for.
    async fn execute_to_the_end(
        self: &Arc<Self>,
        mut incarnation: Arc<Incarnation>,
        mut slot: Slot,
        mut request: wire::ExecuteRequest,
        (awaiting, bound): (&AtomicBool, bool),
    ) -> FsResult<Executed> {
        let mut backoff = Backoff::new(None, &self.stop);
        let mut maybe_executed = false;
        loop {
            request.session_id = incarnation.id.0.to_vec();
            (request.slot, request.number) = (slot.slot, slot.number);
            let route = self.mds.route();
            let attempt = async {
                match &request.op {
                    Some(Op::WriteDone(_)) => self.execute_together(request.clone()).await,
                    _ => {
                        let mut client = route.namespace();
                        transport::within(self.mds.request_timeout, &route.peer, client.execute(request.clone())).await
                    }
                }
            };
            match attempt.await {
                Ok(mut reply) => {
                    let grant = convert::grant(reply.grant.take())?;
                    let held = reply.held.take().map(LayoutTemplate::try_from).transpose()?;
                    let remote = convert::remote(reply.remote.take())?;
                    return Ok(Executed { reply: reply.try_into()?, grant, remote, held, registration: None });
                }
                Err(e) if e.code.is_retryable() => {
                    tracing::debug!(error = %e, slot = slot.slot, number = slot.number, "sending a change again");
                    match e.code {
                        FsCode::Awaiting => awaiting.store(true, Ordering::Relaxed),
                        _ => {
                            maybe_executed = true;
                            self.mds.failed(&route);
                        }
                    }
                    if !backoff.pause().await {
                        return Err(e);
                    }
                }
                Err(e) if e.code == FsCode::Stale && !self.is_alive(&incarnation).await? => {
                    if bound {
                        self.reopen_within(incarnation.id, &mut backoff).await?;
                        return Err(followed());
                    }
                    if maybe_executed {
                        return Err(FsError::new(
                            FsCode::Io,
                            format!(
                                "session {} expired while a change was under way; nobody knows whether it took effect",
                                incarnation.id
                            ),
                        )
                        .with_hint("look whether the change is there before repeating it"));
                    }
                    self.reopen_within(incarnation.id, &mut backoff).await?;
                    incarnation = self.incarnation();
                    slot = incarnation.slots.take().await;
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// One attempt at a request that waits for nobody, in whatever call it fits.
    async fn execute_together(self: &Arc<Self>, request: wire::ExecuteRequest) -> FsResult<wire::ExecuteReply> {
        let groups = request.credential.as_ref().map_or(0, |credential| credential.groups.len());
        let bytes = REPORT_BYTES + groups * GROUP_BYTES;
        let call = || {
            let session = Arc::clone(self);
            move |changes: Vec<wire::ExecuteRequest>| {
                let session = Arc::clone(&session);
                async move { session.execute_many(changes).await }
            }
        };
        self.reports.ask((request, bytes), &self.runtime, call).await.unwrap_or_else(|| Err(closing()))
    }

    /// One call with several requests; an outcome for each.
    async fn execute_many(&self, changes: Vec<wire::ExecuteRequest>) -> Vec<FsResult<wire::ExecuteReply>> {
        let (count, route) = (changes.len(), self.mds.route());
        let mut client = route.namespace();
        let call = client.execute_many(wire::ExecuteManyRequest { changes });
        let reply = match transport::within(self.mds.request_timeout, &route.peer, call).await {
            Ok(reply) => reply,
            Err(error) => {
                if error.code.is_retryable() {
                    self.mds.failed(&route);
                }
                return vec![Err(error); count];
            }
        };
        let mut outcomes = reply.outcomes.into_iter();
        let one = |outcome| match outcome {
            Some(Outcome::Reply(reply)) => Ok(reply),
            Some(Outcome::Error(detail)) => Err(status::from_detail(detail)),
            None => Err(FsError::new(FsCode::Internal, "the MDS gave no outcome for each of several changes")),
        };
        (0..count).map(|_| one(outcomes.next().and_then(|o| o.outcome))).collect()
    }
}

/// Whether other clients may have to give something up before the change is made.
fn waits_for_others(op: &Mutation) -> bool {
    match op {
        Mutation::Create(create) => create.open.is_some() && !create.exclusive,
        Mutation::SetAttr(set) => set.size.is_some(),
        Mutation::SetLayout { .. } => true,
        _ => false,
    }
}

fn followed() -> FsError {
    FsError::new(FsCode::Unavailable, "the session has expired and another one has followed it")
}

fn closing() -> FsError {
    FsError::new(FsCode::Unavailable, "the client is closing")
}
