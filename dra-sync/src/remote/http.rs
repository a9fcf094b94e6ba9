//! Requests to stores over HTTP, whatever they speak: connections, patience, answers that are bounded. Who signs what is not known here.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::header::{CONTENT_LENGTH, DATE, ETAG, HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED};
use http::{Method, StatusCode};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, ReqwestConnector,
};
use object_store::{ClientOptions, PutPayload};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use sateen_types::limits::ETAG_BYTES_MAX;
use sateen_types::{Extent, Payload, Timestamp};

use super::times::http_date;
use super::{Body, Head, RemoteError, Trouble, bare_etag};
use crate::posix::Posix;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the store may take until it begins to answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a store may take to copy an object, or to put parts together.
pub(super) const COMPOSE_TIMEOUT: Duration = Duration::from_secs(300);
/// How long it may pause within an answer.
const STALL_TIMEOUT: Duration = Duration::from_secs(20);
/// A store that takes bytes no faster than this many in a second counts as one that does not answer.
const SEND_BYTES_PER_SECOND_MIN: u64 = 256 << 10;
/// Idle connections that are kept.
const IDLE_CONNECTIONS_MAX: usize = 128;
/// As much of an error is read.
pub(super) const ERROR_BYTES_MAX: usize = 16 << 10;
/// Largest page of a listing that is read: a thousand keys of a kilobyte, each byte percent-encoded, and their frame.
pub(super) const LIST_BYTES_MAX: usize = 6 << 20;

/// What stores leave as it is in queries.
pub(super) const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same in paths: with slashes.
pub(super) const IN_PATH: &AsciiSet = &UNRESERVED.remove(b'/');

/// Names and values.
pub(super) type Headers = Vec<(HeaderName, HeaderValue)>;

/// How connections are made, to a store that speaks without TLS if it is `plain`.
pub(super) fn options(plain: bool) -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(plain)
        // A machine without certificates can still speak without TLS.
        .with_no_system_certificates(plain)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout_disabled()
        .with_http1_only()
        .with_pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
}

/// Connections.
pub(super) fn client(plain: bool) -> object_store::Result<HttpClient> {
    ReqwestConnector::default().connect(&options(plain))
}

/// A request that nobody has signed.
pub(super) fn request(
    method: Method,
    url: &str,
    headers: &[(HeaderName, HeaderValue)],
    body: &Payload,
) -> Result<HttpRequest, String> {
    let empty = matches!(method, Method::GET | Method::HEAD);
    let mut request: HttpRequest = http::Request::builder()
        .method(method)
        .uri(url)
        .body(if body.is_empty() {
            HttpRequestBody::empty()
        } else {
            body.pieces().cloned().collect::<PutPayload>().into()
        })
        .map_err(|e| e.to_string())?;
    request.headers_mut().extend(headers.iter().cloned());
    if !empty {
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    Ok(request)
}

/// Sends it; the answer begins within `patience`. `what` is what was wanted, for messages.
pub(super) async fn exchange(
    http: &HttpClient,
    request: HttpRequest,
    patience: Duration,
    what: &impl Fn() -> String,
) -> Result<HttpResponse, RemoteError> {
    match tokio::time::timeout(patience, http.execute(request)).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(e)) => Err(told(what, broken(&e))),
        Err(_) => Err(told(what, stalled(patience))),
    }
}

/// How long an answer to so many bytes may take.
pub(super) fn patience(bytes: usize) -> Duration {
    ANSWER_TIMEOUT + Duration::from_secs(bytes as u64 / SEND_BYTES_PER_SECOND_MIN)
}

/// A body of at most `max` bytes.
pub(super) async fn read_all(response: HttpResponse, max: usize) -> Result<Bytes, RemoteError> {
    let mut parts = response.into_body().bytes_stream();
    let mut all = Vec::new();
    loop {
        match tokio::time::timeout(STALL_TIMEOUT, parts.next()).await {
            Ok(None) => return Ok(all.into()),
            Ok(Some(Ok(part))) if all.len() + part.len() <= max => all.extend_from_slice(&part),
            Ok(Some(Ok(_))) => {
                return Err(RemoteError::new(Trouble::Refused, format!("the answer has more than {max} bytes")));
            }
            Ok(Some(Err(e))) => return Err(broken(&e)),
            Err(_) => return Err(stalled(STALL_TIMEOUT)),
        }
    }
}

/// The body of an answer as it comes. `name` is what was wanted.
pub(super) fn streamed(response: HttpResponse, name: String, silence_max: Duration) -> Body {
    let parts = response.into_body().bytes_stream();
    futures::stream::unfold(Some((parts, name)), move |state| async move {
        let (mut parts, name) = state?;
        let about = || name.clone();
        match tokio::time::timeout(silence_max, parts.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(part))) => Some((Ok(part), Some((parts, name)))),
            Ok(Some(Err(e))) => Some((Err(told(&about, broken(&e))), None)),
            Err(_) => Some((Err(told(&about, stalled(silence_max))), None)),
        }
    })
    .boxed()
}

/// The bytes `range` out of an answer that should have just these.
pub(super) fn ranged(response: HttpResponse, range: Extent, what: &impl Fn() -> String) -> Result<Body, RemoteError> {
    let refused = |why: String| RemoteError::new(Trouble::Refused, format!("{}: {why}", what()));
    let given = response.headers().get("content-range").and_then(|v| v.to_str().ok()).unwrap_or_default();
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return Err(refused(format!("answered {} with range {given:?}", response.status())));
    }
    if !given.starts_with(&format!("bytes {}-{}/", range.start, range.end - 1)) {
        return Err(refused(format!("the answer has the range {given:?}")));
    }
    Ok(streamed(response, what(), STALL_TIMEOUT))
}

/// What the header `Range` says to ask for `range`, which is not empty.
pub(super) fn bytes_of(range: Extent) -> String {
    format!("bytes={}-{}", range.start, range.end.saturating_sub(1))
}

/// An object by the answer to a HEAD; `posix` and `archived` are what that says of them.
pub(super) fn head(
    headers: &HeaderMap,
    posix: Posix,
    archived: bool,
    what: &impl Fn() -> String,
) -> Result<Head, RemoteError> {
    let text = |name: HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
    let size = text(CONTENT_LENGTH)
        .and_then(|v| v.parse().ok())
        .ok_or_else(|| RemoteError::new(Trouble::Refused, format!("{}: the answer has no Content-Length", what())))?;
    let etag = etag_in(headers).unwrap_or_default().to_owned();
    if etag.is_empty() || etag.len() > ETAG_BYTES_MAX {
        return Err(RemoteError::new(Trouble::Refused, format!("{}: ETag of {} bytes", what(), etag.len())));
    }
    Ok(Head { size, etag, modified: text(LAST_MODIFIED).and_then(http_date), posix, archived })
}

/// The ETag that an answer has, without quotes.
pub(super) fn etag_in(headers: &HeaderMap) -> Option<&str> {
    headers.get(ETAG).and_then(|v| v.to_str().ok()).map(bare_etag)
}

/// An ETag that can be stored.
pub(super) fn checked(etag: &str, what: &impl Fn() -> String) -> Result<String, RemoteError> {
    let etag = bare_etag(etag);
    if etag.is_empty() || etag.len() > ETAG_BYTES_MAX {
        return Err(RemoteError::new(Trouble::Refused, format!("{}: an ETag of {} bytes", what(), etag.len())));
    }
    Ok(etag.to_owned())
}

/// The ETag of what a write has made.
pub(super) fn etag_of(headers: &HeaderMap, what: &impl Fn() -> String) -> Result<String, RemoteError> {
    checked(etag_in(headers).unwrap_or_default(), what)
}

/// The store's clock.
pub(super) fn date_of(headers: &HeaderMap) -> Option<Timestamp> {
    headers.get(DATE).and_then(|v| v.to_str().ok()).and_then(http_date)
}

/// An ETag as conditions name it.
pub(super) fn quoted(etag: &str) -> String {
    if etag.starts_with("W/") { etag.to_owned() } else { format!("\"{etag}\"") }
}

/// A value that can be sent.
pub(super) fn header(value: &str, what: &impl Fn() -> String) -> Result<HeaderValue, RemoteError> {
    let refused = |_| RemoteError::new(Trouble::Refused, format!("{}: {value:?} cannot be sent", what()));
    HeaderValue::from_str(value).map_err(refused)
}

/// An error as the store told it.
pub(super) fn unsuccessful(
    status: StatusCode,
    (code, message): (&str, &str),
    trouble: Trouble,
    what: &impl Fn() -> String,
) -> RemoteError {
    let said = match (code.is_empty(), message.is_empty()) {
        (true, _) => status.to_string(),
        (false, true) => format!("{code} ({status})"),
        (false, false) => format!("{code}: {message} ({status})"),
    };
    RemoteError::new(trouble, format!("{}: {said}", what()))
}

/// What a status means where the store says no more.
pub(super) fn by_status(status: StatusCode) -> Trouble {
    match status.as_u16() {
        404 => Trouble::Gone,
        // A range behind the end: the object was longer once.
        412 | 416 => Trouble::Changed,
        401 | 403 => Trouble::Denied,
        429 => Trouble::Throttled,
        408 | 500 | 502 | 503 | 504 => Trouble::Unavailable,
        _ => Trouble::Refused,
    }
}

/// A connection that broke.
pub(super) fn broken(e: &HttpError) -> RemoteError {
    let trouble = match e.kind() {
        HttpErrorKind::Decode => Trouble::Refused,
        // Whatever broke a connection, another one may not.
        _ => Trouble::Unavailable,
    };
    RemoteError::new(trouble, with_causes(e))
}

/// An error with what it says of its causes.
pub(super) fn with_causes(e: &dyn std::error::Error) -> String {
    let mut message = e.to_string();
    let mut source = e.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        source = cause.source();
    }
    message
}

/// A store that does not answer.
pub(super) fn stalled(patience: Duration) -> RemoteError {
    RemoteError::new(Trouble::Unavailable, format!("no answer for {} s", patience.as_secs()))
}

/// An error of what was wanted.
pub(super) fn told(what: &impl Fn() -> String, e: RemoteError) -> RemoteError {
    RemoteError::new(e.trouble, format!("{}: {}", what(), e.message))
}
