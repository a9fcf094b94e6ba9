//! The OSTs: where each is, connections to its OSS, and requests that are repeated until it answers.
//!
//! Every request to an OST is idempotent, so a lost answer costs a repetition and nothing else. An OSS may come back
//! under another address: after a failure the map is asked for again.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use sateen_proto::bulk::{self, Lane};
use sateen_proto::mds as wire;
use sateen_proto::oss::object_store_client::ObjectStoreClient;
use sateen_proto::{convert, oss, version};
use sateen_types::limits::{MESSAGE_BYTES_MAX, OST_COUNT_MAX};
use sateen_types::{FsCode, FsError, FsResult, OstIndex, Payload};
use tokio::sync::{OnceCell, Semaphore};
use tonic::transport::Channel;

use crate::outage::{Approach, Outage};
use crate::retry::Backoff;
use crate::session::Session;
use crate::small::{READ_BYTES_MAX, SmallReads, SmallWrites, Way};
use crate::{Options, admin, transport};

/// Small writes under way to one OST, or waiting for a call that takes them.
const SMALL_WRITES_MAX: usize = 128;
const UNREACHABLE: &str = "check that its sateen-oss runs; `sateen status` shows every OST";

/// Everything known about OSTs.
#[derive(Debug)]
pub(crate) struct Osts {
    session: Arc<Session>,
    options: Options,
    /// Where calls are made that serve several callers.
    runtime: tokio::runtime::Handle,
    map: Mutex<Map>,
    /// Held while the map is being asked for.
    refreshing: tokio::sync::Mutex<()>,
    servers: Mutex<HashMap<String, Arc<Server>>>,
    gates: Mutex<HashMap<OstIndex, Arc<Gate>>>,
    /// This client in the session under which it writes, and how often it has given up waiting for an answer to a Write or
    /// Punch: see the fields of `WriteRequest`. The writer follows the session with [`Osts::adopt`].
    writer: AtomicU64,
    generation: AtomicU64,
    /// A Write or Punch was given up, and none that shuts it out was answered.
    unsettled: AtomicBool,
}

/// Says that a change was begun whose fate is not known when this is dropped.
struct Changing<'a>(&'a AtomicBool);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[derive(Debug, Default)]
struct Map {
    version: u64,
    addresses: HashMap<OstIndex, String>,
}

/// Connections to one OSS.
#[derive(Debug)]
struct Server {
    connections: Vec<Connection>,
    next: AtomicUsize,
    reads: SmallReads,
    writes: SmallWrites,
}

/// The way to one OST.
#[derive(Debug)]
struct Gate {
    /// Requests under way are bounded,
    room: Semaphore,
    /// and so are small writes, which share requests.
    small: Semaphore,
    outage: Outage,
}

/// Where an attempt goes.
struct Target {
    channel: Channel,
    server: Arc<Server>,
}

#[derive(Debug)]
struct Connection {
    channel: Channel,
    /// Set once a protocol version was agreed on.
    greeted: OnceCell<()>,
}

impl Osts {
    /// Knows nothing yet; the first request asks for the map.
    pub fn new(session: Arc<Session>, options: &Options) -> Osts {
        let writer = session.incarnation().writer;
        Osts {
            session,
            options: options.clone(),
            runtime: tokio::runtime::Handle::current(),
            map: Mutex::default(),
            refreshing: tokio::sync::Mutex::new(()),
            servers: Mutex::default(),
            gates: Mutex::default(),
            writer: AtomicU64::new(writer),
            generation: AtomicU64::new(0),
            unsettled: AtomicBool::new(false),
        }
    }

    /// Under which number changes are sent now.
    pub fn writer(&self) -> u64 {
        self.writer.load(Ordering::Acquire)
    }

    /// Changes are sent in this session from now on. The caller has seen to it that nothing is left of the one before that must
    /// not be.
    pub fn adopt(&self, writer: u64) {
        self.writer.store(writer, Ordering::Release);
        // The one before is shut out at every OST.
        self.unsettled.store(false, Ordering::Release);
    }

    /// Whether every change that was ever sent is done or shut out.
    pub fn is_settled(&self) -> bool {
        !self.unsettled.load(Ordering::Acquire)
    }

    /// One request to the OSS of `ost`, repeated while it does not answer, until [`Options::retry_for`] is over.
    pub async fn call<T, F, Fut>(&self, ost: OstIndex, call: F) -> FsResult<T>
    where
        F: Fn(ObjectStoreClient<Channel>) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let attempt = |target: Target| {
            let answer = call(object_store(target.channel));
            async move { answer.await.map(tonic::Response::into_inner) }
        };
        let gate = self.gate(ost);
        self.persist((ost, &gate, &gate.room), attempt, || {}).await
    }

    /// A Read of `ost`, likewise.
    pub async fn read(&self, ost: OstIndex, request: &oss::ReadRequest) -> FsResult<Lane<oss::ReadReply>> {
        let timeout = self.options.request_timeout;
        let attempt = |Target { mut channel, server }: Target| async move {
            if request.length > READ_BYTES_MAX || request.sealed {
                return bulk::call(&mut channel, bulk::READ_PATH, request, Payload::new(), timeout).await;
            }
            server.reads.read(*request, Way { channel, runtime: &self.runtime, timeout }).await
        };
        let gate = self.gate(ost);
        self.persist((ost, &gate, &gate.room), attempt, || {}).await
    }

    /// A Write to `ost`, likewise, in the session of `writer` alone. Its generation is set here: what was sent before and
    /// perhaps waits somewhere on its way can do nothing any more once the repetition has arrived.
    pub async fn write(
        &self,
        ost: OstIndex,
        request: &oss::WriteRequest,
        payload: &Payload,
        writer: u64,
    ) -> FsResult<oss::WriteReply> {
        let timeout = self.options.request_timeout;
        let small = SmallWrites::takes(request, payload);
        let attempt = |Target { mut channel, server }: Target| {
            let request = oss::WriteRequest { writer, generation: self.generation(), ..request.clone() };
            let payload = payload.clone();
            async move {
                if small {
                    let way = Way { channel, runtime: &self.runtime, timeout };
                    return server.writes.write(ost, (request, payload), way).await;
                }
                bulk::call(&mut channel, bulk::WRITE_PATH, &request, payload, timeout).await.map(|(reply, _)| reply)
            }
        };
        let gate = self.gate(ost);
        self.change((ost, &gate, if small { &gate.small } else { &gate.room }), attempt).await
    }

    /// A Punch of `ost`, likewise.
    pub async fn punch(&self, ost: OstIndex, request: &oss::PunchRequest, writer: u64) -> FsResult<oss::ChangeReply> {
        let attempt = |Target { channel, .. }: Target| {
            let request = oss::PunchRequest { writer, generation: self.generation(), ..*request };
            async move { object_store(channel).punch(request).await.map(tonic::Response::into_inner) }
        };
        let gate = self.gate(ost);
        self.change((ost, &gate, &gate.room), attempt).await
    }

    /// A Write or a Punch: one whose fate must be known before the session is closed.
    async fn change<T, F, Fut>(&self, way: (OstIndex, &Gate, &Semaphore), attempt: F) -> FsResult<T>
    where
        F: Fn(Target) -> Fut,
        Fut: Future<Output = Result<T, tonic::Status>>,
    {
        let changing = Changing(&self.unsettled);
        let gave_up = AtomicBool::new(false);
        let give_up = || {
            gave_up.store(true, Ordering::Relaxed);
            self.generation.fetch_add(1, Ordering::SeqCst);
        };
        let changed = self.persist(way, attempt, give_up).await;
        // One that is done has shut out its earlier attempts. One that was refused may not have.
        if changed.is_ok() || !gave_up.load(Ordering::Relaxed) {
            std::mem::forget(changing);
        }
        changed
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Attempts until there is an answer, when there is room. `given_up` is called after each attempt whose outcome nobody knows.
    async fn persist<T, F, Fut>(
        &self,
        (ost, gate, room): (OstIndex, &Gate, &Semaphore),
        attempt: F,
        given_up: impl Fn(),
    ) -> FsResult<T>
    where
        F: Fn(Target) -> Fut,
        Fut: Future<Output = Result<T, tonic::Status>>,
    {
        let came = Instant::now();
        let _permit = room.acquire().await.expect("the semaphore is never closed");
        let patience = self.options.retry_for;
        let approach = gate.outage.approach(patience, came).await;
        if matches!(approach, Approach::GiveUp) {
            let what = format!("OST {ost} has not answered for more than {:?}", patience.unwrap_or_default());
            return Err(FsError::new(FsCode::Unavailable, what).with_hint(UNREACHABLE));
        }
        let mut backoff = Backoff::new(patience, &self.session.stop);
        let mut failures = 0u32;
        loop {
            let began = Instant::now();
            match self.attempt(ost, &attempt, gate.outage.lasts()).await {
                // Interrupted: refused because another request was given up meanwhile; the next carries that generation.
                Err(e) if e.code.is_retryable() || e.code == FsCode::Interrupted => {
                    if e.code.is_retryable() {
                        given_up();
                    }
                    failures += 1;
                    if failures == 1 {
                        tracing::warn!(error = %e, %ost, "an OST does not answer; trying again");
                    }
                    if e.code.is_retryable() {
                        gate.outage.failed(patience, began, Instant::now());
                    }
                    if gate.outage.is_passed(patience, Instant::now()) || !backoff.pause().await {
                        return Err(e.with_hint(UNREACHABLE));
                    }
                }
                other => {
                    gate.outage.over();
                    return other;
                }
            }
        }
    }

    async fn attempt<T, F, Fut>(&self, ost: OstIndex, attempt: &F, refresh: bool) -> FsResult<T>
    where
        F: Fn(Target) -> Fut,
        Fut: Future<Output = Result<T, tonic::Status>>,
    {
        let address = self.address(ost, refresh).await?;
        let server = self.server(&address)?;
        let connection = server.pick();
        let peer = || format!("OST {ost} at {address}");
        connection.greeted.get_or_try_init(|| async { self.greet(connection, &peer()).await }).await?;
        transport::answered(
            self.options.request_timeout,
            peer,
            attempt(Target { channel: connection.channel.clone(), server: Arc::clone(&server) }),
        )
        .await
    }

    /// Agrees on a version and makes sure that this is our cluster.
    async fn greet(&self, connection: &Connection, peer: &str) -> FsResult<()> {
        let mut client = object_store(connection.channel.clone());
        let hello = client.hello(version::hello("sateen-client"));
        let reply = transport::within(self.options.request_timeout, peer, hello).await?;
        let hello = convert::required(reply.hello, "hello")?;
        version::accept(&hello)?;
        let (theirs, ours) = (convert::cluster_id(&hello.cluster_id)?, self.session.facts.cluster);
        if theirs != ours {
            return Err(FsError::new(
                FsCode::WrongCluster,
                format!("{peer} belongs to cluster {theirs}, the MDS to {ours}"),
            )
            .with_hint("check the `advertise` address of that OSS"));
        }
        Ok(())
    }

    fn gate(&self, ost: OstIndex) -> Arc<Gate> {
        let (room, small) = (|| Semaphore::new(self.options.inflight_per_ost), || Semaphore::new(SMALL_WRITES_MAX));
        let new = || Arc::new(Gate { room: room(), small: small(), outage: Outage::default() });
        Arc::clone(self.gates.lock().entry(ost).or_insert_with(new))
    }

    fn server(&self, address: &str) -> FsResult<Arc<Server>> {
        let mut servers = self.servers.lock();
        if let Some(server) = servers.get(address) {
            return Ok(Arc::clone(server));
        }
        let connect_timeout = self.options.connect_timeout.min(self.options.request_timeout);
        let connection = |_| {
            let channel = transport::channel(address, connect_timeout, self.options.request_timeout)
                .map_err(|e| FsError::new(FsCode::Unavailable, format!("an OST cannot be reached: {e}")))?;
            Ok(Connection { channel, greeted: OnceCell::new() })
        };
        let connections = (0..self.options.connections_per_oss).map(connection).collect::<FsResult<_>>()?;
        let server = Arc::new(Server {
            connections,
            next: AtomicUsize::new(0),
            reads: SmallReads::default(),
            writes: SmallWrites::default(),
        });
        servers.insert(address.to_owned(), Arc::clone(&server));
        Ok(server)
    }

    /// Where `ost` is, as far as known; asks the MDS if it is not, if the map is old, or if told to.
    async fn address(&self, ost: OstIndex, refresh: bool) -> FsResult<String> {
        let newest = self.session.ost_map_version.load(Ordering::Relaxed);
        let known = |fresh: bool| {
            let map = self.map.lock();
            map.addresses.get(&ost).filter(|_| fresh || newest == 0 || map.version == newest).cloned()
        };
        if !refresh && let Some(address) = known(false) {
            return Ok(address);
        }
        match self.refresh().await {
            Ok(()) => {}
            // The data path goes on without the MDS as long as the old address works.
            Err(e) => return known(true).ok_or(e),
        }
        known(true).ok_or_else(|| {
            FsError::new(FsCode::Unavailable, format!("OST {ost} is not in the MDS's list of OSTs"))
                .with_hint("has its OSS been started since the MDS was? `sateen status` shows every OST")
        })
    }

    /// Asks the MDS for the map, once for everybody who wants it.
    async fn refresh(&self) -> FsResult<()> {
        let before = self.map.lock().version;
        let _only_one = self.refreshing.lock().await;
        let known_version = self.map.lock().version;
        if known_version > before {
            return Ok(());
        }
        let mds = &self.session.mds;
        let route = mds.route();
        let mut client = route.cluster();
        let call = client.list_osts(wire::ListOstsRequest { known_version });
        let reply = transport::within(mds.request_timeout, &route.peer, call).await.inspect_err(|e| {
            if e.code.is_retryable() {
                mds.failed(&route);
            }
        })?;
        if reply.osts.len() > OST_COUNT_MAX as usize {
            return Err(convert::bad("osts", format_args!("{}, at most {OST_COUNT_MAX}", reply.osts.len())));
        }
        if reply.version != known_version || !reply.osts.is_empty() {
            let osts = reply.osts.into_iter().map(admin::ost).collect::<FsResult<Vec<_>>>()?;
            // An MDS that was restarted knows an OST's address again when its OSS has registered. Until then it is most
            // likely where it was.
            let mut addresses = self.map.lock().addresses.clone();
            addresses.retain(|index, _| osts.iter().any(|o| o.index == *index));
            addresses.extend(osts.into_iter().filter(|o| !o.address.is_empty()).map(|o| (o.index, o.address)));
            self.servers.lock().retain(|address, _| addresses.values().any(|a| a == address));
            *self.map.lock() = Map { version: reply.version, addresses };
            self.session.ost_map_version.store(reply.version, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Server {
    fn pick(&self) -> &Connection {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        &self.connections[next % self.connections.len()]
    }
}

fn object_store(channel: Channel) -> ObjectStoreClient<Channel> {
    ObjectStoreClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}
