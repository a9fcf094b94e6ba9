//! The process: which file systems there are, and a worker for each.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sateen_client::MountSource;
use sateen_client::admin::{Admin, FileSystemState};
use sateen_runtime::{Shutdown, metrics};
use sateen_types::{FsCode, FsError, FsName, FsResult};
use tokio::task::JoinHandle;
use tonic_health::server::HealthReporter;

use crate::config::Config;
use crate::figures::Figures;
use crate::room::Rooms;
use crate::watch::webhook::Webhook;
use crate::worker;

/// How often the MDS is asked which file systems there are.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Pause after a worker ended that should not have, the first time.
const RESTART_PAUSE_FIRST: Duration = Duration::from_millis(500);
/// Longest such pause.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(30);
/// A worker that ran for so long starts with the first pause again.
const RAN_WELL: Duration = Duration::from_secs(60);
/// How long one question to the MDS may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs until `stop`. `ready` is called once the MDS has answered.
pub async fn run(config: Config, stop: Shutdown, ready: impl FnOnce(SocketAddr)) -> FsResult<()> {
    config.validate()?;
    let config = Arc::new(config);
    let figures = Arc::new(Figures::default());
    let rooms = Rooms::new(config.limits.memory.0, config.limits.export_memory.0);
    if !config.metrics_listen.is_empty() {
        let figures = Arc::clone(&figures);
        metrics::serve(&config.metrics_listen, move |page| figures.fill(page), stop.clone()).await?;
    }
    let webhook = match config.webhook.listen.as_str() {
        "" => None,
        listen => {
            let hook = Arc::new(Webhook::open(&config.webhook.token_file, Arc::clone(&figures))?);
            Arc::clone(&hook).serve(listen, stop.clone()).await?;
            Some(hook)
        }
    };
    let (address, health) = serve_health(&config.listen, stop.clone()).await?;
    let mut ready = Some(ready);
    let mut workers: HashMap<FsName, JoinHandle<()>> = HashMap::new();
    while !stop.is_requested() {
        let asked = tokio::select! {
            asked = file_systems(&config) => asked,
            () = stop.requested() => break,
        };
        match asked {
            Ok(names) => {
                workers.retain(|_, worker| !worker.is_finished());
                for name in names {
                    workers.entry(name.clone()).or_insert_with(|| {
                        let (config, figures) = (Arc::clone(&config), Arc::clone(&figures));
                        tokio::spawn(keep_working(name, config, figures, rooms.clone(), webhook.clone(), stop.clone()))
                    });
                }
                if let Some(ready) = ready.take() {
                    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
                    ready(address);
                }
            }
            Err(error) => tracing::warn!(%error, "the MDS does not say which file systems there are"),
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            () = stop.requested() => {}
        }
    }
    health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    for (_, worker) in workers {
        // A worker that panicked has ended the process already.
        let _ = worker.await;
    }
    Ok(())
}

/// File systems to work for.
async fn file_systems(config: &Config) -> FsResult<Vec<FsName>> {
    let all = Admin::connect(&config.mds.join(","), ASK_TIMEOUT).await?.list_file_systems().await?;
    let ours = |name: &FsName| config.file_systems.is_empty() || config.file_systems.contains(&name.to_string());
    let here = all.into_iter().filter(|fs| fs.state == FileSystemState::Available && ours(&fs.name));
    Ok(here.map(|fs| fs.name).collect())
}

/// Works for a file system, again and again, until it is removed or the process stops.
async fn keep_working(
    name: FsName,
    config: Arc<Config>,
    figures: Arc<Figures>,
    rooms: Rooms,
    webhook: Option<Arc<Webhook>>,
    stop: Shutdown,
) {
    let source = MountSource { hosts: config.mds.clone(), fs: name.clone(), subdir: Vec::new() };
    let mut pause = RESTART_PAUSE_FIRST;
    while !stop.is_requested() {
        let began = std::time::Instant::now();
        let (config, figures) = (Arc::clone(&config), Arc::clone(&figures));
        match worker::run(source.clone(), config, figures, rooms.clone(), webhook.as_deref(), stop.clone()).await {
            Ok(()) => return,
            // If it is there after all, the next look finds it.
            Err(e) if e.code == FsCode::NotFound => {
                tracing::info!(fs = %name, "the file system is gone");
                return;
            }
            Err(error) => tracing::warn!(fs = %name, %error, pause = ?pause, "the work stopped and begins again"),
        }
        if began.elapsed() >= RAN_WELL {
            pause = RESTART_PAUSE_FIRST;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.requested() => {}
        }
        pause = (pause * 2).min(RESTART_PAUSE_MAX);
    }
}

/// The gRPC health service: not serving until the MDS has answered.
async fn serve_health(listen: &str, stop: Shutdown) -> FsResult<(SocketAddr, HealthReporter)> {
    let failed = |e: std::io::Error| {
        FsError::new(FsCode::Io, format!("cannot listen on {listen}: {e}"))
            .with_hint("choose a free port and an address of this machine with listen = \"HOST:PORT\"")
    };
    let listener = tokio::net::TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    tokio::spawn(async move {
        let served = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, stop.requested())
            .await;
        if let Err(error) = served {
            tracing::warn!(%error, "the health service ended");
        }
    });
    Ok((address, reporter))
}
