//! The composition root of an OSS: what exists, and in which order.
//!
//! Tasks of the process:
//!
//! | task       | purpose                                             | ends                    |
//! |------------|-----------------------------------------------------|-------------------------|
//! | server     | answers requests                                    | drained at shutdown     |
//! | heartbeats | tells the MDS how the OSTs are                      | at shutdown             |
//! | commits    | makes changes durable that no client commits        | at shutdown, with a last|
//! | scrubs     | one per OST: reads everything again and again       | at shutdown             |
//! | metrics    | answers Prometheus, if it is configured             | at shutdown             |

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sateen_proto::oss::maintenance_server::MaintenanceServer;
use sateen_proto::oss::object_store_server::ObjectStoreServer;
use sateen_runtime::Shutdown;
use sateen_types::{FsCode, FsError, FsResult, OstIndex};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::config::Config;
use crate::metrics;
use crate::ost::{Ost, OstOptions};
use crate::registration::{Registrar, advertised};
use crate::rpc::Service;
use crate::rpc::admission::Admission;
use crate::rpc::bulk::Lane;
use crate::rpc::maintenance::MaintenanceService;
use crate::rpc::replies::SEND_MAX;
use crate::scrub::Scrub;
use crate::store::index::IndexCache;
use crate::superblock::Member;

/// Longest that a request may take, its body included. A peer that stops sending holds a slot no longer.
const REQUEST_MAX: Duration = Duration::from_secs(60);
/// Longest that shutting down waits for requests. What they answered is safe; what they did not is sent again.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;
/// Requests of one connection at once: four clients' worth of bulk transfers.
const STREAMS_MAX: u32 = 64;
/// Bytes a peer may send ahead on one stream.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// Bytes a peer may send ahead on one connection: as much as on all its streams. If it were less, requests that wait for
/// admission could fill it, and those that were admitted would wait for ever for the rest of their bodies.
const CONNECTION_WINDOW_BYTES: u32 = STREAMS_MAX * STREAM_WINDOW_BYTES;
/// HTTP/2 frame: large ones mean fewer of them for bulk payloads.
const FRAME_BYTES: u32 = 1 << 20;
/// How often replies are looked for that nobody reads.
const UNREAD_CHECK: Duration = Duration::from_secs(5);
/// Silence after which a peer is asked whether it is there, and how long it has to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(20));

/// Runs an OSS until `stop`. `ready` is told the address once the OSS is registered and answers.
pub async fn run(config: Config, stop: Shutdown, ready: impl FnOnce(SocketAddr)) -> FsResult<()> {
    config.validate()?;
    let osts = open(&config).await?;
    let socket = bind(&config.listen).await?;
    let listen = socket.local_addr().map_err(|e| listen_error(&config.listen, &e))?;
    let address = advertised(&config.advertise, listen, &resolve_all(&config.mds).await)?;
    let registrar = Arc::new(Registrar::new(config.mds.clone(), address.clone(), osts.clone()));
    let Some(registered) = registrar.register_patiently(&stop).await? else { return Ok(()) };
    let mut by_index = HashMap::new();
    for ost in &osts {
        if let Some(Member { index, .. }) = ost.member() {
            tracing::info!(%index, uuid = %ost.uuid(), dir = %ost.dir().display(), "serving an OST");
            by_index.insert(index, ost.clone());
        }
    }
    let limits = &config.limits;
    let scrubs = scrubs(&by_index, &config).await?;
    let service = Service::new(registered.cluster, by_index, limits.io_threads, limits.inflight_bytes.0);
    if !config.metrics_listen.is_empty() {
        let (scrubs, load) = (scrubs.values().cloned().collect::<Vec<_>>(), service.load());
        sateen_runtime::metrics::serve(
            &config.metrics_listen,
            move |page| metrics::fill(page, &scrubs, &load),
            stop.clone(),
        )
        .await?;
    }
    let mut scrubbing = JoinSet::new();
    for scrub in scrubs.values() {
        scrubbing.spawn(scrub.clone().run(stop.clone()));
    }
    let maintenance = MaintenanceService::new(scrubs);

    let heartbeats = {
        let stop = stop.clone();
        tokio::spawn(async move { registrar.heartbeats(registered.heartbeat, &stop).await })
    };
    let commits = tokio::spawn(commit_now_and_then(
        osts.clone(),
        Duration::from_millis(config.store.commit_interval_ms),
        stop.clone(),
    ));
    // Last: reachable means ready.
    let listener = socket.listen(BACKLOG).map_err(|e| listen_error(&config.listen, &e))?;
    let cluster = registered.cluster;
    tracing::info!(%listen, advertised = address, %cluster, osts = osts.len(), "sateen-oss is ready");
    ready(listen);
    serve(service, maintenance, listener, limits.requests, stop.clone()).await?;

    stop.request();
    // Their ends are certain: both wait for nothing but `stop` and one call with a deadline.
    let _ = tokio::join!(heartbeats, commits);
    while scrubbing.join_next().await.is_some() {}
    tracing::info!("stopped");
    Ok(())
}

/// Answers requests on `listener` until `stop`, then finishes those that run.
pub async fn serve(
    service: Service,
    maintenance: MaintenanceService,
    listener: TcpListener,
    requests: usize,
    stop: Shutdown,
) -> FsResult<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<ObjectStoreServer<Service>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(sateen_proto::DESCRIPTOR_SET)
        .build_v1()
        .map_err(|e| FsError::new(FsCode::Internal, format!("cannot build the reflection service: {e}")))?;
    let replies = service.replies();
    let objects = Admission::new(Lane::new(service), requests);
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .max_frame_size(FRAME_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .timeout(REQUEST_MAX)
        .add_service(objects)
        .add_service(MaintenanceServer::new(maintenance))
        .add_service(health_service)
        .add_service(reflection)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), stop.requested());
    let drained_late = async {
        stop.requested().await;
        tokio::time::sleep(DRAIN_MAX).await;
    };
    let unread = async {
        loop {
            tokio::time::sleep(UNREAD_CHECK).await;
            if let Some(limit) = Instant::now().checked_sub(SEND_MAX)
                && let given_up @ 1.. = replies.give_up(limit)
            {
                tracing::warn!(given_up, after = ?SEND_MAX, "peers did not read their replies");
            }
        }
    };
    tokio::select! {
        () = unread => Ok(()),
        outcome = server => outcome.map_err(|e| FsError::new(FsCode::Io, format!("the server failed: {e}"))),
        () = drained_late => {
            tracing::warn!(after = ?DRAIN_MAX, "gave up waiting for requests to end");
            Ok(())
        }
    }
}

/// The scrub of each OST, where it was.
async fn scrubs(osts: &HashMap<OstIndex, Arc<Ost>>, config: &Config) -> FsResult<HashMap<OstIndex, Arc<Scrub>>> {
    let (osts, config) = (osts.clone(), config.scrub.clone());
    let opening = tokio::task::spawn_blocking(move || {
        osts.into_iter().map(|(index, ost)| Ok((index, Arc::new(Scrub::new(ost, config.clone())?)))).collect()
    });
    opening.await.map_err(|_| FsError::new(FsCode::Internal, "opening the scrubs was cut off"))?
}

/// Opens every OST, and refuses OSTs of different clusters.
async fn open(config: &Config) -> FsResult<Vec<Arc<Ost>>> {
    let cache = IndexCache::new(config.store.index_cache.0 as usize);
    let store = config.store.clone();
    let sections = config.ost.clone();
    let opening = tokio::task::spawn_blocking(move || {
        sections
            .iter()
            .map(|section| {
                let options = OstOptions {
                    capacity: section.capacity.map(|c| c.0),
                    reserve: store.reserve.0,
                    segment_bytes: store.segment.0,
                    cache: cache.clone(),
                    create: section.create,
                };
                Ost::open(&section.path, options).map(Arc::new)
            })
            .collect::<FsResult<Vec<_>>>()
    });
    let osts = opening.await.map_err(|_| FsError::new(FsCode::Internal, "opening the OSTs was cut off"))??;
    let mut members = osts.iter().filter_map(|ost| ost.member().map(|m| (ost, m)));
    if let Some((first, known)) = members.next()
        && let Some((other, foreign)) = members.find(|(_, m)| m.cluster != known.cluster)
    {
        return Err(FsError::new(
            FsCode::WrongCluster,
            format!(
                "{} belongs to cluster {}, {} to cluster {}",
                first.dir().display(),
                known.cluster,
                other.dir().display(),
                foreign.cluster
            ),
        )
        .with_hint("serve OSTs of one cluster only"));
    }
    Ok(osts)
}

/// A bound socket that does not listen yet: the address is taken, but nobody gets through.
async fn bind(listen: &str) -> FsResult<TcpSocket> {
    let address = tokio::net::lookup_host(listen)
        .await
        .and_then(|mut found| found.next().ok_or_else(|| std::io::Error::other("the name has no address")))
        .map_err(|e| listen_error(listen, &e))?;
    match bound(address) {
        // [::] means "everywhere"; a machine without IPv6 has that, too.
        Err(e) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && e.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            bound((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        other => other,
    }
    .map_err(|e| listen_error(listen, &e))
}

fn bound(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    sateen_proto::socket::tune(&socket);
    socket.bind(address)?;
    Ok(socket)
}

fn listen_error(listen: &str, e: &std::io::Error) -> FsError {
    FsError::new(FsCode::Io, format!("cannot listen on {listen}: {e}"))
        .with_hint("choose a free port and an address of this machine with listen = \"HOST:PORT\"")
}

async fn resolve_all(addresses: &[String]) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for address in addresses {
        found.extend(tokio::net::lookup_host(address).await.into_iter().flatten());
    }
    found
}

async fn commit_now_and_then(osts: Vec<Arc<Ost>>, interval: Duration, stop: Shutdown) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = stop.requested() => {}
        }
        let last = stop.is_requested();
        let osts = osts.clone();
        let done = tokio::task::spawn_blocking(move || {
            for ost in &osts {
                // A store that fails says so in the log, once, and in every heartbeat.
                let _ = ost.commit_all();
            }
        });
        if done.await.is_err() || last {
            return;
        }
    }
}
