//! Serving the store over HTTP, on this machine only.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use sateen_runtime::Shutdown;
use sateen_types::{FsCode, FsError, FsResult};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::multipart::Uploads;
use crate::notify::Listening;
pub use crate::service::Pace;
use crate::service::Service;
use crate::store::Store;

/// Connections served at once; others wait.
const CONNECTIONS_MAX: usize = 512;
/// How long a peer may take for the head of a request.
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);

/// The keys that requests are signed with.
#[derive(Clone)]
pub struct Keys {
    access_key: String,
    secret_key: String,
}

impl Keys {
    /// Reads a file in the form of AWS's `~/.aws/credentials`, section `[default]`.
    pub fn read(path: &Path) -> FsResult<Keys> {
        let failed = |what: String| {
            FsError::new(FsCode::Invalid, format!("{}: {what}", path.display()))
                .with_hint("write [default], aws_access_key_id = ..., aws_secret_access_key = ...")
        };
        let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
        let mut lines = text.lines().map(str::trim);
        lines.find(|line| *line == "[default]").ok_or_else(|| failed("no section [default]".to_owned()))?;
        let (mut access, mut secret) = (None, None);
        for line in lines.take_while(|line| !line.starts_with('[')) {
            match line.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
                Some(("aws_access_key_id", value)) => access = Some(value.to_owned()),
                Some(("aws_secret_access_key", value)) => secret = Some(value.to_owned()),
                _ => {}
            }
        }
        match (access, secret) {
            (Some(access_key), Some(secret_key)) if !access_key.is_empty() && !secret_key.is_empty() => {
                Ok(Keys { access_key, secret_key })
            }
            _ => Err(failed("section [default] lacks aws_access_key_id or aws_secret_access_key".to_owned())),
        }
    }
}

/// Serves `store` until `stop`. `ready` is told the address. `Invalid` for an address that other machines reach.
pub async fn run(
    store: Arc<Store>,
    listen: SocketAddr,
    keys: Keys,
    pace: Pace,
    stop: Shutdown,
    ready: impl FnOnce(SocketAddr),
) -> FsResult<()> {
    if !listen.ip().is_loopback() {
        return Err(FsError::new(FsCode::Invalid, format!("{listen} can be reached by other machines"))
            .with_hint("this server is for development: listen on 127.0.0.1:PORT"));
    }
    let failed = |e: std::io::Error| {
        FsError::new(FsCode::Io, format!("cannot listen on {listen}: {e}"))
            .with_hint("choose a free port with --listen")
    };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let listening = Listening { store: Arc::clone(&store) };
    let mut builder = S3ServiceBuilder::new(Service { store, pace, uploads: Uploads::default() });
    builder.set_route(listening);
    builder.set_auth(SimpleAuth::from_single(keys.access_key, keys.secret_key));
    let service = builder.build();
    ready(listener.local_addr().map_err(failed)?);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.requested() => return Ok(()),
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
        let (service, stop) = (service.clone(), stop.clone());
        tokio::spawn(async move {
            // A peer that went away is nobody's loss.
            let _ = stream.set_nodelay(true);
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX);
            tokio::select! {
                _ = http.serve_connection(TokioIo::new(stream), service) => {}
                () = stop.requested() => {}
            }
            drop(permit);
        });
    }
}
