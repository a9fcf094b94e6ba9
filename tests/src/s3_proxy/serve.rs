//! HTTP between a worker and its store.
//!
//! Requests go on as they came, `Host` included, because it is signed, or are signed again; bodies go on as they come. Each request has a connection to the
//! store of its own.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::header::{
    CONNECTION, CONTENT_LENGTH, ETAG, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH, RANGE, TRANSFER_ENCODING,
};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use super::rule::Fault;
use super::{Operation, State, sign};

/// Between half of a body and the end of its connection, so that the half arrives.
const HALF_WAY: Duration = Duration::from_millis(30);
/// An ETag that no object has.
const OTHER_ETAG: HeaderValue = HeaderValue::from_static("\"00000000000000000000000000000000\"");
/// What a write or a read depends on.
const CONDITIONS: [HeaderName; 3] = [IF_MATCH, IF_NONE_MATCH, HeaderName::from_static("x-amz-copy-source-if-match")];

/// Whatever ends a connection.
type Broken = Box<dyn Error + Send + Sync>;
type Body = BoxBody<Bytes, Broken>;

/// Serves everybody who connects.
pub(super) async fn run(listener: TcpListener, state: Arc<State>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            // Whatever ends a connection early resets it.
            let _ = stream.set_zero_linger();
            let service = service_fn(move |request| handle(Arc::clone(&state), request));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// An error ends the connection.
async fn handle(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, Broken> {
    let operation = Operation::of(request.method(), request.uri(), request.headers());
    let path = request.uri().path().to_owned();
    let mut cleared = state.cleared.subscribe();
    let token = request.headers().get("x-amz-security-token").and_then(|token| token.to_str().ok());
    let Some(fault) = state.judge(operation, &path, token) else {
        return forward(state.upstream, request).await.map(streamed);
    };
    match fault {
        Fault::SlowDown => refuse(request, StatusCode::SERVICE_UNAVAILABLE, "SlowDown").await,
        Fault::Internal => refuse(request, StatusCode::INTERNAL_SERVER_ERROR, "InternalError").await,
        Fault::Denied => refuse(request, StatusCode::FORBIDDEN, "AccessDenied").await,
        Fault::Expired => refuse(request, StatusCode::BAD_REQUEST, "ExpiredToken").await,
        Fault::ErrorInSuccess => refuse(request, StatusCode::OK, "InternalError").await,
        Fault::Reset => Err("reset on purpose".into()),
        Fault::Silent => {
            // Dropped when the other side hangs up; ended when the faults are over.
            let _ = cleared.changed().await;
            Err("the faults are over".into())
        }
        Fault::Slow(pause) => {
            tokio::time::sleep(pause).await;
            forward(state.upstream, request).await.map(streamed)
        }
        Fault::Cut if sends(operation) => cut_request(state.upstream, request).await,
        Fault::Cut => {
            let (parts, body) = whole(forward(state.upstream, request).await?).await?;
            Ok(Response::from_parts(parts, half(&body)))
        }
        Fault::AnswerLost => {
            whole(forward(state.upstream, request).await?).await?;
            Err("the answer is lost on purpose".into())
        }
        Fault::ErrorAfterDone => {
            let (parts, _) = whole(forward(state.upstream, request).await?).await?;
            Ok(match parts.status.is_success() {
                true => error(StatusCode::OK, "InternalError"),
                false => error(parts.status, "InternalError"),
            })
        }
        Fault::OtherVersion => {
            let (mut parts, body) = whole(forward(state.upstream, request).await?).await?;
            parts.headers.insert(ETAG, OTHER_ETAG);
            let other: Vec<u8> = body.iter().map(|byte| !byte).collect();
            Ok(Response::from_parts(parts, full(other.into())))
        }
        Fault::NoRange => pass_without(&state, request, &[RANGE]).await,
        Fault::NoConditions => pass_without(&state, request, &CONDITIONS).await,
    }
}

async fn pass_without(
    state: &State,
    request: Request<Incoming>,
    headers: &[HeaderName],
) -> Result<Response<Body>, Broken> {
    let (mut parts, body) = request.into_parts();
    sign::without(&mut parts, headers)?;
    forward(state.upstream, Request::from_parts(parts, body)).await.map(streamed)
}

/// Whether a request has a body of which half can be sent.
fn sends(operation: Operation) -> bool {
    matches!(operation, Operation::Put | Operation::Part | Operation::Complete)
}

async fn forward<B>(upstream: SocketAddr, mut request: Request<B>) -> Result<Response<Incoming>, Broken>
where
    B: hyper::body::Body<Data: Send, Error: Into<Broken>> + Send + 'static,
{
    let stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    request.headers_mut().remove(CONNECTION);
    Ok(sender.send_request(request).await?)
}

fn streamed(response: Response<Incoming>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(CONNECTION);
    parts.headers.remove(TRANSFER_ENCODING);
    Response::from_parts(parts, body.map_err(Broken::from).boxed())
}

/// An answer with all of its body.
async fn whole(response: Response<Incoming>) -> Result<(http::response::Parts, Bytes), Broken> {
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(CONNECTION);
    parts.headers.remove(TRANSFER_ENCODING);
    Ok((parts, body.collect().await?.to_bytes()))
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed()
}

/// Half of a body, and then an error.
fn half(body: &Bytes) -> Body {
    let first = body.slice(..body.len() / 2);
    let end = futures::stream::once(async {
        tokio::time::sleep(HALF_WAY).await;
        Err(Broken::from("cut on purpose"))
    });
    let parts = futures::stream::iter([Ok(Frame::data(first))]).chain(end);
    BodyExt::boxed(StreamBody::new(Box::pin(parts) as SyncStream))
}

type SyncStream = std::pin::Pin<Box<dyn futures::Stream<Item = Result<Frame<Bytes>, Broken>> + Send + Sync>>;

/// Half of a request comes to the store.
async fn cut_request(upstream: SocketAddr, request: Request<Incoming>) -> Result<Response<Body>, Broken> {
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    let cut = forward(upstream, Request::from_parts(parts, half(&body))).await;
    Err(cut.map_or_else(|e| e, |answer| format!("answered {} to half of a request", answer.status()).into()))
}

/// An error of the store's kind, when all of the request has come.
async fn refuse(request: Request<Incoming>, status: StatusCode, code: &str) -> Result<Response<Body>, Broken> {
    request.into_body().collect().await?;
    Ok(error(status, code))
}

fn error(status: StatusCode, code: &str) -> Response<Body> {
    let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>made on purpose</Message></Error>");
    let mut response = Response::new(full(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/xml"));
    response
}
