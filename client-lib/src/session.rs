//! This client's session at the MDS: exactly-once changes, retried questions, the lease, and what is restated after a
//! restart.
//!
//! A change runs in a task of its own that keeps its slot and sends the same number until there is an answer, even if
//! the caller has given up or gone away: a number is never used for two requests, and a slot is free only when its
//! request's fate is known. The session ends for such a task when it expires; then a request that may have been
//! executed is reported as such and never sent under another session.
//!
//! Tasks: one per change under way (bounded by the slots), one that renews the lease.

mod changes;
mod opens;
mod repositories;

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sateen_proto::mds as wire;
use sateen_proto::mds::locks_client::LocksClient;
use sateen_proto::mds::namespace_client::NamespaceClient;
use sateen_proto::mds::write_back_client::WriteBackClient;
use sateen_proto::{convert, version};
use sateen_types::limits::{LOCK_SLOTS_MAX, SESSION_SLOTS_MAX};
use sateen_types::{Attr, ClusterId, Compression, Fid, FsCode, FsError, FsId, FsName, FsResult, SessionId};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;

use crate::ahead::Ahead;
use crate::lease::{Lease, Moment};
use crate::locks::{Record, TURNS, Waits};
use crate::mds::{Mds, Route};
use crate::opens::Opens;
use crate::retry::Backoff;
use crate::slots::Slots;
use crate::writeback::WriteBack;
use crate::{Options, transport};
pub(crate) use changes::Executed;
pub(crate) use repositories::{Loaded, ended};

/// Renewals per lease: two may be lost before the session expires.
const RENEWALS_PER_LEASE: u32 = 3;
/// Shortest time between renewals, whatever the MDS says its lease is.
const RENEW_INTERVAL_MIN: Duration = Duration::from_millis(50);
/// How long closes may wait for others, to be told together.
const CLOSES_GATHER: Duration = Duration::from_millis(5);
/// Slots that changes cannot take that wait for other clients.
const SLOTS_KEPT: u32 = 16;
/// How long ending the session may take; it expires by itself otherwise.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the MDS says about the file system when a session is opened.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub cluster: ClusterId,
    pub fs_id: FsId,
    pub compression: Compression,
    pub root: Attr,
}

/// One session as the MDS knows it.
#[derive(Debug)]
pub(crate) struct Incarnation {
    pub id: SessionId,
    slots: Arc<Slots>,
    /// Room for changes that may wait for other clients. Fewer than slots: what those need in turn finds one.
    waiting: Arc<Semaphore>,
    /// For changes of locks.
    pub lock_slots: Arc<Slots>,
    /// Under which number the OSTs know it: they refuse it when the session has expired.
    pub writer: u64,
    pub lease: Duration,
}

/// The client's membership in a file system, over however many incarnations.
#[derive(Debug)]
pub(crate) struct Session {
    pub mds: Mds,
    fs: FsName,
    options: Options,
    pub facts: Facts,
    current: Mutex<Arc<Incarnation>>,
    /// Reports of what was written, which share calls.
    reports: changes::Reports,
    /// Told when it is another.
    pub replaced: Notify,
    /// Writer of the session in which the client listens to recalls: nothing is granted before.
    pub listening: watch::Sender<u64>,
    /// Held while a new incarnation is being opened: one that was not told yet what is open here, or whose answer to that is
    /// missing. It is told again: with yet another one it would count as somebody else who has those files open.
    reopening: tokio::sync::Mutex<Option<(Incarnation, Facts)>>,
    /// Held while the MDS is told what is open here.
    restating: tokio::sync::Mutex<()>,
    /// Until when the session lives for certain.
    pub lease: Arc<Lease>,
    /// Open files as the MDS should count them.
    opens: Mutex<Opens>,
    /// Open files of which something may have been kept when the session expired.
    lost: Mutex<HashSet<Fid>>,
    /// Told when closes were told to the MDS, or cannot be.
    closes_told: Notify,
    /// Told when somebody waits for that.
    closes_wanted: Notify,
    /// Locks as the MDS should know them.
    pub record: Mutex<Record>,
    /// Requests that wait for locks.
    pub waits: Waits,
    /// Room for questions that wait for ranges to be loaded.
    loads: Semaphore,
    /// See [`Session::turn`].
    turns: Box<[tokio::sync::Mutex<()>]>,
    /// Directories that this client has to itself.
    pub names: WriteBack,
    /// Names that will be looked up.
    pub ahead: Ahead,
    /// Version of the OST map the MDS last spoke of.
    pub ost_map_version: AtomicU64,
    tasks: TaskTracker,
    /// Where they run.
    runtime: Handle,
    /// Nothing is sent again any more.
    pub stop: CancellationToken,
}

impl Session {
    /// Opens a session within `options.connect_timeout`.
    pub async fn open(hosts: &[String], fs: &FsName, options: &Options) -> FsResult<Arc<Session>> {
        let mds = Mds::new(hosts, options.connect_timeout, options.request_timeout)?;
        let stop = CancellationToken::new();
        let connect = async {
            let mut backoff = Backoff::new(Some(options.connect_timeout), &stop);
            loop {
                match open_incarnation(&mds, fs, options, None).await {
                    Err(e) if e.code.is_retryable() => {
                        if !backoff.pause().await {
                            return Err(e);
                        }
                    }
                    other => return other,
                }
            }
        };
        let unreachable =
            || format!("check that sateen-mds runs there ({}) and that host and port are right", mds.addresses());
        let asked = Moment::now();
        let (incarnation, facts) = match tokio::time::timeout(options.connect_timeout, connect).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(e)) if e.code.is_retryable() && e.hint.is_none() => return Err(e.with_hint(unreachable())),
            Ok(Err(e)) if e.code == FsCode::NotFound && e.hint.is_none() => {
                return Err(
                    e.with_hint(format!("list the file systems with: sateen fs list --mds {}", mds.addresses()))
                );
            }
            Ok(Err(e)) => return Err(e),
            Err(_) => {
                let what = format!("MDS {} did not answer within {:?}", mds.addresses(), options.connect_timeout);
                return Err(FsError::new(FsCode::TimedOut, what).with_hint(unreachable()));
            }
        };
        let lease = Arc::new(Lease::default());
        lease.renewed(asked, incarnation.lease);
        let session = Arc::new(Session {
            record: Mutex::new(Record::new(incarnation.id)),
            waits: Waits::default(),
            loads: Semaphore::new(repositories::LOADS_MAX),
            turns: (0..TURNS).map(|_| tokio::sync::Mutex::new(())).collect(),
            mds,
            fs: fs.clone(),
            options: options.clone(),
            facts,
            current: Mutex::new(Arc::new(incarnation)),
            reports: changes::reports(),
            replaced: Notify::new(),
            listening: watch::Sender::new(0),
            reopening: tokio::sync::Mutex::default(),
            restating: tokio::sync::Mutex::default(),
            opens: Mutex::new(Opens::new(Arc::clone(&lease))),
            names: WriteBack::new(Arc::clone(&lease)),
            lease,
            lost: Mutex::default(),
            closes_told: Notify::new(),
            closes_wanted: Notify::new(),
            ahead: Ahead::new(options.attributes_ahead),
            ost_map_version: AtomicU64::new(0),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
            stop,
        });
        session.tasks.spawn(renew_loop(Arc::downgrade(&session), session.stop.clone()));
        Ok(session)
    }

    /// Ends the session. What is still unanswered is given up. If that may still change something at an OST (`settled` is
    /// false) the MDS is not told: the session expires, and is shut out there before others get what it held.
    pub async fn close(&self, settled: bool) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        if let Some((candidate, _)) = self.reopening.lock().await.take() {
            self.end(candidate.id).await;
        }
        if settled {
            self.end(self.incarnation().id).await;
        } else {
            tracing::warn!("a change was sent to an OST and nobody knows its fate; the session is left to expire");
        }
    }

    /// Tells the MDS that a session is over, if it can be told.
    async fn end(&self, session: SessionId) {
        let route = self.mds.route();
        let request = wire::CloseSessionRequest { session_id: session.0.to_vec() };
        let mut client = route.namespace();
        let ended = transport::within(CLOSE_TIMEOUT, &route.peer, client.close_session(request)).await;
        if let Err(error) = ended {
            tracing::debug!(%error, "the session was not closed and will expire");
        }
    }

    /// Stops the tasks without waiting or telling the MDS.
    pub fn abandon(&self) {
        self.stop.cancel();
    }

    /// The session as it is now.
    pub fn incarnation(&self) -> Arc<Incarnation> {
        Arc::clone(&self.current.lock())
    }

    /// A question, or another request that may be sent twice: tried until [`Options::retry_for`] is over, and a lease more where
    /// other clients have to give something up first.
    pub async fn ask<T, F, Fut>(&self, call: F) -> FsResult<T>
    where
        F: Fn(NamespaceClient<Channel>, Vec<u8>) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        self.ask_by(|route, session_id| call(route.namespace(), session_id)).await
    }

    /// [`Session::ask`] about directories that this client holds.
    pub async fn ask_writeback<T, F, Fut>(&self, call: F) -> FsResult<T>
    where
        F: Fn(WriteBackClient<Channel>, Vec<u8>) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        self.ask_by(|route, session_id| call(route.writeback(), session_id)).await
    }

    /// [`Session::ask`] about locks.
    pub async fn ask_locks<T, F, Fut>(&self, call: F) -> FsResult<T>
    where
        F: Fn(LocksClient<Channel>, Vec<u8>) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        self.ask_by(|route, session_id| call(route.locks(), session_id)).await
    }

    async fn ask_by<T, F, Fut>(&self, call: F) -> FsResult<T>
    where
        F: Fn(&Route, Vec<u8>) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        self.ask_whole(call).await.map(|(answer, _)| answer)
    }

    /// An answer, and the session in which it was given.
    async fn ask_whole<T, F, Fut>(&self, call: F) -> FsResult<(T, Arc<Incarnation>)>
    where
        F: Fn(&Route, Vec<u8>) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let mut backoff = Backoff::new(self.options.retry_for, &self.stop);
        loop {
            let incarnation = self.incarnation();
            let route = self.mds.route();
            let attempt = call(&route, incarnation.id.0.to_vec());
            match transport::within(self.mds.request_timeout, &route.peer, attempt).await {
                Err(e) if e.code.is_retryable() => {
                    match e.code {
                        FsCode::Awaiting => backoff.wait_longer(incarnation.lease),
                        _ => self.mds.failed(&route),
                    }
                    if !backoff.pause().await {
                        return Err(e);
                    }
                }
                Err(e) if e.code == FsCode::Stale && !self.is_alive(&incarnation).await? => {
                    self.reopen_within(incarnation.id, &mut backoff).await?;
                }
                other => return other.map(|answer| (answer, incarnation)),
            }
        }
    }

    /// Whether changes in directories that this client has to itself may be told to the MDS later.
    pub fn writes_names_back(&self) -> bool {
        self.options.write_back_names
    }

    /// Runs `work` in the background, for as long as the session is not closed.
    pub fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.tasks.spawn_on(work, &self.runtime)
    }

    /// Keeps requests about the locks of one file in order.
    pub async fn turn(&self, fid: Fid) -> tokio::sync::MutexGuard<'_, ()> {
        self.turns[(fid.seq as usize ^ fid.oid as usize) % self.turns.len()].lock().await
    }

    /// How long others are waited for; `None`: for ever.
    pub fn patience(&self) -> Option<Duration> {
        self.options.retry_for.map(|time| time + self.incarnation().lease)
    }

    /// Waits for others as long as for any answer, and a lease more: so long a restarted MDS may have to wait for its clients.
    pub async fn within_patience<T>(&self, work: impl Future<Output = T>, about: &str) -> FsResult<T> {
        let Some(limit) = self.patience() else { return Ok(work.await) };
        tokio::time::timeout(limit, work).await.map_err(|_| {
            let what = format!("MDS {} gave no answer {about} for {limit:?}", self.mds.addresses());
            FsError::new(FsCode::TimedOut, what)
                .with_hint("check that sateen-mds runs; `sateen status` shows the cluster")
        })
    }

    /// Whether the MDS still knows the session: tells an expired session from a file that is gone. Until it is known,
    /// the question is repeated within [`Options::retry_for`].
    pub async fn is_alive(&self, incarnation: &Incarnation) -> FsResult<bool> {
        let mut backoff = Backoff::new(self.options.retry_for, &self.stop);
        loop {
            match self.renew(incarnation).await {
                Ok(()) => return Ok(true),
                Err(e) if e.code == FsCode::Stale => return Ok(false),
                Err(e) if e.code.is_retryable() && backoff.pause().await => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Renews the lease, and says again what is locked and open if the MDS asks for it.
    pub async fn renew(&self, incarnation: &Incarnation) -> FsResult<()> {
        let mut reply = self.send_renew(incarnation, false).await?;
        self.ost_map_version.store(reply.ost_map_version, Ordering::Relaxed);
        if reply.restate {
            // One at a time: a second statement might overtake what was opened after the first.
            let _turn = self.restating.lock().await;
            reply = self.send_renew(incarnation, false).await?;
            if !reply.restate {
                return Ok(());
            }
            self.restate_locks(incarnation).await?;
            self.send_renew(incarnation, true).await?;
            tracing::info!(session = %incarnation.id, "the MDS was restarted and was told again what is open and locked");
        }
        Ok(())
    }

    async fn send_renew(&self, incarnation: &Incarnation, restate: bool) -> FsResult<wire::RenewReply> {
        let (files, number) = if restate { self.opens.lock().state() } else { Default::default() };
        let uses = files.iter().map(|one| convert::use_to_wire(one.using, one.keeps)).collect();
        let opens = files.iter().map(|one| one.number).collect();
        let open_files = files.into_iter().map(|one| one.fid.into()).collect();
        let session_id = incarnation.id.0.to_vec();
        let request = wire::RenewRequest { session_id, open_files, restate, number, uses, opens };
        let route = self.mds.route();
        let mut client = route.namespace();
        let asked = Moment::now();
        let reply = transport::within(self.mds.request_timeout, &route.peer, client.renew(request)).await;
        if reply.is_ok() && self.incarnation().id == incarnation.id {
            self.lease.renewed(asked, incarnation.lease);
        }
        if reply.as_ref().is_err_and(|e| e.code.is_retryable()) {
            self.mds.failed(&route);
        }
        reply
    }

    /// Renews the session, or opens a new one if it has expired.
    pub async fn renew_or_reopen(&self) -> FsResult<()> {
        let incarnation = self.incarnation();
        match self.renew(&incarnation).await {
            Err(e) if e.code == FsCode::Stale => self.reopen(incarnation.id).await,
            other => other,
        }
    }

    /// [`Session::reopen`], for as long as the request has time that needs it: the old session may have to be shut out first.
    pub async fn reopen_within(&self, expired: SessionId, backoff: &mut Backoff) -> FsResult<()> {
        loop {
            match self.reopen(expired).await {
                Err(e) if e.code.is_retryable() => {
                    if e.code == FsCode::Awaiting {
                        backoff.wait_longer(self.incarnation().lease);
                    }
                    if !backoff.pause().await {
                        return Err(e);
                    }
                }
                done => return done,
            }
        }
    }

    /// Replaces the expired incarnation `expired`, unless somebody has already. May be dropped half-way.
    pub async fn reopen(&self, expired: SessionId) -> FsResult<()> {
        let mut candidate = self.reopening.lock().await;
        if self.stop.is_cancelled() {
            return Err(FsError::new(FsCode::Stale, "the client is closed"));
        }
        if self.incarnation().id != expired {
            return Ok(());
        }
        // It stays where it is until it is told: dropped, it would live on as somebody else.
        let (incarnation, facts) = match &mut *candidate {
            Some(opened) => opened,
            none => none.insert(open_incarnation(&self.mds, &self.fs, &self.options, Some(expired)).await?),
        };
        if facts.fs_id != self.facts.fs_id || facts.cluster != self.facts.cluster {
            let what =
                format!("{:?} is now another file system (number {}, was {})", self.fs, facts.fs_id, self.facts.fs_id);
            *candidate = None;
            return Err(FsError::new(FsCode::Stale, what).with_hint("unmount it and mount it again"));
        }
        let asked = Moment::now();
        // Others may have been given what was kept.
        let lost = self.opens.lock().lose_all();
        self.lost.lock().extend(lost);
        self.names.lose_all();
        match self.send_renew(incarnation, true).await {
            Ok(_) => {}
            Err(e) if e.code == FsCode::Stale => {
                // It has expired in turn.
                let next = open_incarnation(&self.mds, &self.fs, &self.options, Some(incarnation.id)).await?;
                *candidate = Some(next);
                return Err(FsError { code: FsCode::Unavailable, ..e });
            }
            Err(e) if e.code.is_retryable() => return Err(e),
            Err(e) => {
                let id = incarnation.id;
                *candidate = None;
                self.end(id).await;
                return Err(e);
            }
        }
        let Some((incarnation, _)) = candidate.take() else { return Ok(()) };
        let lost_locks = self.record.lock().lose_all(incarnation.id);
        tracing::warn!(%expired, new = %incarnation.id, lost_locks, "the session had expired; a new one was opened");
        self.lease.renewed(asked, incarnation.lease);
        *self.current.lock() = Arc::new(incarnation);
        self.replaced.notify_one();
        Ok(())
    }
}

/// Renews the lease until the session is closed or dropped.
async fn renew_loop(session: std::sync::Weak<Session>, stop: CancellationToken) {
    let mut interval = match session.upgrade() {
        Some(s) => s.renew_interval(),
        None => return,
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        let Some(session) = session.upgrade() else { return };
        let outcome = tokio::select! {
            () = stop.cancelled() => return,
            outcome = session.renew_or_reopen() => outcome,
        };
        session.begin_telling();
        interval = session.renew_interval();
        if let Err(error) = outcome {
            tracing::debug!(%error, "the session was not renewed");
            interval /= RENEWALS_PER_LEASE;
        }
    }
}

impl Session {
    fn renew_interval(&self) -> Duration {
        (self.incarnation().lease / RENEWALS_PER_LEASE).max(RENEW_INTERVAL_MIN)
    }
}

/// One attempt to open a session, in place of the one that it `follows`.
async fn open_incarnation(
    mds: &Mds,
    fs: &FsName,
    options: &Options,
    follows: Option<SessionId>,
) -> FsResult<(Incarnation, Facts)> {
    let request = wire::OpenSessionRequest {
        hello: Some(version::hello("sateen-client")),
        fs_name: fs.to_string(),
        client: options.client_name.clone(),
        writer: rand::random::<u64>().max(1),
        follows: follows.map(|session| session.0.to_vec()).unwrap_or_default(),
    };
    let writer = request.writer;
    let route: Route = mds.route();
    let mut client = route.namespace();
    let reply =
        transport::within(mds.request_timeout, &route.peer, client.open_session(request)).await.inspect_err(|e| {
            if e.code.is_retryable() {
                mds.failed(&route);
            }
        })?;
    let hello = convert::required(reply.hello, "hello")?;
    version::accept(&hello)?;
    if reply.slots == 0 || reply.slots > SESSION_SLOTS_MAX {
        return Err(convert::bad("slots", format_args!("{} is not 1 to {SESSION_SLOTS_MAX}", reply.slots)));
    }
    let incarnation = Incarnation {
        id: convert::session_id(&reply.session_id)?,
        slots: Slots::new(reply.slots),
        waiting: Arc::new(Semaphore::new(reply.slots.saturating_sub(SLOTS_KEPT).max(1) as usize)),
        lock_slots: Slots::new(LOCK_SLOTS_MAX),
        writer,
        lease: Duration::from_millis(u64::from(reply.lease_ms)),
    };
    let facts = Facts {
        cluster: convert::cluster_id(&hello.cluster_id)?,
        fs_id: convert::fs_id(reply.fs_id)?,
        compression: transport::compression(reply.compression)?,
        root: convert::required(reply.root, "root")?.try_into()?,
    };
    Ok((incarnation, facts))
}
