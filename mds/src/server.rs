//! The composition root: what exists in the process, and in which order it starts and stops.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sateen_proto::DESCRIPTOR_SET;
use sateen_proto::mds::cluster_server::ClusterServer;
use sateen_proto::mds::namespace_server::NamespaceServer;
use sateen_runtime::Shutdown;
use sateen_types::{FsCode, FsError, FsResult};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::cluster::Cluster;
use crate::config::Config;
use crate::dir::MdsDir;
use crate::{metrics, rpc, workers};

/// Requests one connection may have unanswered; a session has at most 256 changes.
const CONCURRENT_PER_CONNECTION: usize = 512;
/// HTTP/2 streams of one connection.
const STREAMS_PER_CONNECTION: u32 = 1024;
/// Longest a request may take: above every wait inside.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// A connection that says nothing is asked, and dropped if it does not answer.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Requests under way get so long to end when the server stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves until `stop` is requested.
pub async fn run(config: Config, stop: Shutdown) -> FsResult<()> {
    let dir = MdsDir::open(&config.dir)?;
    let options = config.cluster_options();
    let cluster = tokio::task::spawn_blocking(move || Cluster::open(dir, options))
        .await
        .map_err(|e| FsError::new(FsCode::Internal, format!("opening the MDS directory: {e}")))??;
    if !config.metrics_listen.is_empty() {
        let watched = cluster.clone();
        let fill = move |page: &mut _| metrics::fill(page, &watched);
        sateen_runtime::metrics::serve(&config.metrics_listen, fill, stop.clone()).await?;
    }
    // Last: reachable means ready.
    let listener = TcpListener::bind(config.listen).await.map_err(|e| {
        FsError::new(FsCode::Io, format!("cannot listen on {}: {e}", config.listen))
            .with_hint("is another server on this port? change `listen`")
    })?;
    serve(cluster, listener, stop).await
}

/// Serves an open cluster on a bound socket.
pub async fn serve(cluster: Arc<Cluster>, listener: TcpListener, stop: Shutdown) -> FsResult<()> {
    cluster.begin(Instant::now());
    let mut background = workers::spawn(&cluster, &stop);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<ClusterServer<rpc::ClusterRpc>>().await;
    health.set_serving::<NamespaceServer<rpc::NamespaceRpc>>().await;
    let internal = |e: &dyn std::fmt::Display| FsError::new(FsCode::Internal, format!("gRPC server: {e}"));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|e| internal(&e))?;
    let router = Server::builder()
        .timeout(REQUEST_TIMEOUT)
        .concurrency_limit_per_connection(CONCURRENT_PER_CONNECTION)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .add_service(health_service)
        .add_service(reflection)
        .add_service(rpc::capabilities_service(cluster.clone(), stop.clone()))
        .add_service(rpc::changelog_service(cluster.clone()))
        .add_service(rpc::cluster_service(cluster.clone()))
        .add_service(rpc::locks_service(cluster.clone()))
        .add_service(rpc::maintenance_service(cluster.clone(), stop.clone()))
        .add_service(rpc::namespace_service(cluster.clone()))
        .add_service(rpc::repositories_service(cluster.clone()))
        .add_service(rpc::writeback_service(cluster.clone()));
    match listener.local_addr() {
        Ok(address) => tracing::info!(%address, cluster = %cluster.id(), "ready"),
        Err(e) => tracing::warn!("ready, at an unknown address: {e}"),
    }
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    // Without it a reply waits up to 40 ms for the acknowledgement of the one before.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serving = router.serve_with_incoming_shutdown(incoming, stop.requested());
    tokio::pin!(serving);
    let served = tokio::select! {
        served = &mut serving => served,
        () = stopped_for(&stop, DRAIN) => Ok(()),
    };
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    stop.request();
    while background.join_next().await.is_some() {}
    served.map_err(|e| internal(&e))
}

/// `time` after stopping was asked for.
async fn stopped_for(stop: &Shutdown, time: Duration) {
    stop.requested().await;
    tokio::time::sleep(time).await;
}
