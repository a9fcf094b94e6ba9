//! Channels and deadlines: how one request reaches one server. Whether it is sent again is decided elsewhere.

use std::future::Future;
use std::io;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use sateen_proto::socket::tune;
use sateen_proto::{common, convert, status};
use sateen_types::limits::{BULK_BYTES_MAX, CHUNK_BYTES_MAX};
use sateen_types::{Compression, FsCode, FsError, FsResult};
use tokio::net::TcpStream;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// Flow-control window of one request: a whole bulk payload travels without waiting for the reader.
const STREAM_WINDOW_BYTES: u32 = BULK_BYTES_MAX as u32 + (64 << 10);
/// Flow-control window of one connection: eight bulk payloads of the usual size and room to spare.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// HTTP/2 frame that is received: one chunk. What arrives in one frame lies in one allocation, and a cached chunk keeps no
/// more than its own alive. (Frames of 1 MiB were not faster: 5.08 GB/s, these 5.12.)
const FRAME_BYTES: u32 = CHUNK_BYTES_MAX;
/// A connection on which nothing was heard for this long is probed, so that a dead peer is noticed.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// A probe must be answered within it.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A channel to `HOST:PORT` that connects when it is first used, and again after it broke.
pub(crate) fn channel(host: &str, connect_timeout: Duration, request_timeout: Duration) -> FsResult<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{host}"))
        .map_err(|e| FsError::new(FsCode::Invalid, format!("{host:?} is not HOST:PORT: {e}")))?;
    Ok(endpoint
        .connect_timeout(connect_timeout)
        .timeout(request_timeout)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(service_fn(dial)))
}

/// A TCP connection to the host and port of `uri`.
async fn dial(uri: Uri) -> io::Result<TokioIo<TcpStream>> {
    let missing = || io::Error::new(io::ErrorKind::InvalidInput, format!("{uri} has no host or no port"));
    let host = uri.host().ok_or_else(missing)?.trim_start_matches('[').trim_end_matches(']');
    let socket = TcpStream::connect((host, uri.port_u16().ok_or_else(missing)?)).await?;
    tune(&socket);
    Ok(TokioIo::new(socket))
}

/// One attempt with a deadline; errors say which peer.
pub(crate) async fn within<T>(
    timeout: Duration,
    peer: &str,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> FsResult<T> {
    answered(timeout, || peer.to_owned(), call).await.map(tonic::Response::into_inner)
}

/// [`within`] for calls that are not made by tonic's generated clients.
pub(crate) async fn answered<T>(
    timeout: Duration,
    peer: impl Fn() -> String,
    call: impl Future<Output = Result<T, tonic::Status>>,
) -> FsResult<T> {
    match tokio::time::timeout(timeout, call).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(s)) => {
            let mut error = status::from_status(&s);
            if s.details().is_empty() {
                error.message = format!("{} does not answer ({})", peer(), error.message);
            }
            Err(error)
        }
        Err(_) => Err(FsError::new(FsCode::TimedOut, format!("{} did not answer within {timeout:?}", peer()))),
    }
}

/// A file system's compression as a peer sent it.
pub(crate) fn compression(number: i32) -> FsResult<Compression> {
    common::Compression::try_from(number)
        .map_err(|_| convert::bad("compression", format_args!("{number} is unknown")))?
        .try_into()
}
