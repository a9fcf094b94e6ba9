//! One unary call of the lane, as a client makes it. Deadlines and repetition are the caller's.

use std::time::Duration;

use http::header::{CONTENT_TYPE, TE};
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use sateen_types::Payload;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Channel;
use tower_service::Service;

use super::body::{Outgoing, receive};
use super::message::{Bulk, Lane};

/// What a gRPC body is called.
pub(super) const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// How long the caller will wait, so that the server does not work for nobody.
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Most digits of a gRPC timeout are eight.
const TIMEOUT_MS_MAX: u128 = 99_999_999;

/// Sends `head` and `payload` to `path` and waits for the answer. The server is told that nobody will wait longer than
/// `timeout`; holding to that here is up to the caller.
pub async fn call<Q: Bulk, A: Bulk>(
    channel: &mut Channel,
    path: &'static str,
    head: &Q,
    payload: Payload,
    timeout: Duration,
) -> Result<Lane<A>, Status> {
    let mut request = Request::new(Body::new(Outgoing::request(head, payload)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(path);
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    request.headers_mut().insert(CONTENT_TYPE, GRPC);
    request.headers_mut().insert(GRPC_TIMEOUT, milliseconds(timeout));
    let lost = |e: tonic::transport::Error| Status::from_error(Box::new(e));
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.map_err(lost)?;
    let response = channel.call(request).await.map_err(lost)?;
    if let Some(status) = Status::from_header_map(response.headers()).filter(|s| s.code() != tonic::Code::Ok) {
        return Err(status);
    }
    if !response.status().is_success() {
        return Err(Status::unavailable(format!("HTTP status {}", response.status())));
    }
    let (message, trailers) = receive(response.into_body()).await?;
    match trailers.as_ref().and_then(Status::from_header_map) {
        Some(status) if status.code() != tonic::Code::Ok => Err(status),
        // Without a status nobody knows whether the answer is whole.
        None => Err(Status::unavailable("the answer ended without a status")),
        Some(_) => message.ok_or_else(|| Status::internal("an answer without a message")),
    }
}

fn milliseconds(timeout: Duration) -> HeaderValue {
    let text = format!("{}m", timeout.as_millis().clamp(1, TIMEOUT_MS_MAX));
    HeaderValue::from_str(&text).expect("digits and a letter")
}
