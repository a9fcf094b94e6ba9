//! Amazon S3 and what speaks like it: signed requests for raw keys.
//!
//! Reading is here, writing in [`write`].
//!
//! object_store brings HTTP, TLS and the signature. Its own store is not used: it cannot name keys that end with a slash, have
//! empty parts or control characters, and does not tell the metadata with which a listing's objects were written.

mod kept;
mod listen;
mod service;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::header::{CONTENT_LENGTH, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, LAST_MODIFIED, RANGE};
use http::{Method, StatusCode};
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, ReqwestConnector,
};
use object_store::{ClientOptions, PutPayload};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use sateen_types::limits::ETAG_BYTES_MAX;
use sateen_types::repository::RepositorySettings;
use sateen_types::{Extent, FsCode, FsError, FsResult, Payload};
use sha2::{Digest, Sha256};

use super::times::http_date;
use super::{Body, Head, Listed, Page, RemoteError, Trouble, bare_etag, xml};
use crate::credentials::Credentials;
use crate::posix;

pub use service::{Refusal, Service};
pub use write::Upload;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the store may take until it begins to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long it may pause within an answer.
const STALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Idle connections that are kept.
const IDLE_CONNECTIONS_MAX: usize = 128;
/// Largest page of a listing that is read: a thousand keys of a kilobyte, each byte percent-encoded, and their frame.
const LIST_BYTES_MAX: usize = 6 << 20;
/// Bodies beyond it are hashed on a thread for such work.
const SIGN_BYTES_MAX: usize = 256 << 10;
/// As much of an error is read.
const ERROR_BYTES_MAX: usize = 16 << 10;

/// What S3 leaves as it is in paths and queries.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same, with slashes.
const IN_PATH: &AsciiSet = &UNRESERVED.remove(b'/');

/// A bucket and a prefix in it.
#[derive(Debug)]
pub struct Bucket {
    http: HttpClient,
    credentials: Option<Arc<AwsCredential>>,
    region: String,
    bucket: String,
    /// `http://HOST:PORT/BUCKET` or `https://BUCKET.s3.REGION.amazonaws.com`, without a slash at the end.
    base: String,
    prefix: String,
    /// The store has said that the credentials have expired.
    expired: AtomicBool,
    /// Not every store looks at the conditions of a copy: what is copied is looked at before. Amazon's does.
    sources_checked: bool,
    /// For messages: the bucket's name and where it is.
    name: String,
}

impl Bucket {
    /// The bucket of a link. Nothing is sent yet.
    pub fn open(settings: &RepositorySettings, credentials: Option<Credentials>) -> FsResult<Bucket> {
        let http = client(settings.endpoint.starts_with("http://"))
            .map_err(|e| FsError::new(FsCode::Io, format!("cannot prepare connections to {}: {e}", settings.url)))?;
        let bucket = settings.url.bucket();
        let base = base_url(&settings.endpoint, bucket, &settings.region);
        Ok(Bucket {
            http,
            credentials: credentials
                .map(|c| Arc::new(AwsCredential { key_id: c.access_key, secret_key: c.secret_key, token: c.token })),
            region: settings.region.clone(),
            bucket: bucket.to_owned(),
            name: format!("bucket {bucket} at {}", base.strip_suffix(bucket).unwrap_or(&base).trim_end_matches('/')),
            base,
            prefix: settings.url.prefix().to_owned(),
            expired: AtomicBool::new(false),
            sources_checked: !settings.endpoint.is_empty(),
        })
    }

    /// See [`super::Remote::list`].
    pub async fn list(&self, after: &[u8], max: usize) -> Result<Page, RemoteError> {
        let mut query = format!("?list-type=2&encoding-type=url&max-keys={max}");
        if !self.prefix.is_empty() {
            query.push_str(&format!("&prefix={}", percent_encode(self.prefix.as_bytes(), UNRESERVED)));
        }
        if !after.is_empty() {
            let after = [self.prefix.as_bytes(), after].concat();
            query.push_str(&format!("&start-after={}", percent_encode(&after, UNRESERVED)));
        }
        let what = || format!("listing {}", self.name);
        let response = self.send(Method::GET, &format!("{}/{query}", self.base), &[], &what).await?;
        let text = read_all(response, LIST_BYTES_MAX).await.map_err(|e| told(&what, e))?;
        let page = xml::list_page(&text)
            .map_err(|e| RemoteError::new(Trouble::Refused, format!("{}: this is no listing: {e}", what())))?;
        let within = |mut object: Listed| {
            object.key = object.key.strip_prefix(self.prefix.as_bytes())?.to_vec();
            Some(object)
        };
        let objects: Option<Vec<Listed>> = page.objects.into_iter().map(within).collect();
        let objects = objects.ok_or_else(|| {
            RemoteError::new(Trouble::Refused, format!("{}: it has keys outside of the prefix", what()))
        })?;
        Ok(Page { objects, more: page.truncated })
    }

    /// See [`super::Remote::head`].
    pub async fn head(&self, key: &[u8]) -> Result<Head, RemoteError> {
        Ok(self.head_and_headers(key).await?.0)
    }

    /// The same, and all that the store says of the object.
    async fn head_and_headers(&self, key: &[u8]) -> Result<(Head, HeaderMap), RemoteError> {
        let what = || format!("attributes of {:?} in {}", String::from_utf8_lossy(key), self.name);
        let mut response = match self.send(Method::HEAD, &self.object_url(key), &[], &what).await {
            Err(e) if e.trouble == Trouble::Refused => return Err(self.why_refused(e).await),
            answered => answered?,
        };
        let header = |name: &HeaderName| response.headers().get(name).and_then(|v| v.to_str().ok());
        let missing = |name: &str| RemoteError::new(Trouble::Refused, format!("{}: the answer has no {name}", what()));
        let etag = header(&ETAG).map(bare_etag).ok_or_else(|| missing("ETag"))?;
        if etag.len() > ETAG_BYTES_MAX {
            return Err(RemoteError::new(Trouble::Refused, format!("{}: ETag of {} bytes", what(), etag.len())));
        }
        let head = Head {
            size: header(&CONTENT_LENGTH).and_then(|v| v.parse().ok()).ok_or_else(|| missing("Content-Length"))?,
            etag: etag.to_owned(),
            modified: header(&LAST_MODIFIED).and_then(http_date),
            posix: posix::parse(|key| response.headers().get(key).map(HeaderValue::as_bytes)),
        };
        let headers = std::mem::take(response.headers_mut());
        Ok((head, headers))
    }

    /// Whether the store has said that the credentials have expired.
    pub fn is_expired(&self) -> bool {
        self.expired.load(Ordering::Relaxed)
    }

    /// The answer to a HEAD has no body that says why. With credentials that expire that may be why: another request tells.
    async fn why_refused(&self, error: RemoteError) -> RemoteError {
        let can_expire = self.credentials.as_ref().is_some_and(|c| c.token.is_some());
        match can_expire {
            true => match self.list(b"", 1).await {
                Err(e) if e.trouble == Trouble::Expired => e,
                _ => error,
            },
            false => error,
        }
    }

    /// See [`super::Remote::get`].
    pub async fn get(&self, key: &[u8], etag: &str, range: Extent) -> Result<Body, RemoteError> {
        let what =
            || format!("bytes {}-{} of {:?} in {}", range.start, range.end, String::from_utf8_lossy(key), self.name);
        let refused = |why: &str| RemoteError::new(Trouble::Refused, format!("{}: {why}", what()));
        let condition = HeaderValue::from_str(&quoted(etag)).map_err(|_| refused("the ETag is not one"))?;
        let bytes = HeaderValue::from_str(&format!("bytes={}-{}", range.start, range.end - 1))
            .map_err(|_| refused("the range is not one"))?;
        let headers = [(IF_MATCH, condition), (RANGE, bytes)];
        let response = self.send(Method::GET, &self.object_url(key), &headers, &what).await?;
        // A store that does not know If-Match answers all the same.
        let version = response.headers().get(ETAG).and_then(|v| v.to_str().ok()).map(bare_etag);
        if version != Some(etag) {
            let now = version.unwrap_or("none");
            return Err(RemoteError::new(Trouble::Changed, format!("{}: its ETag is {now}, not {etag}", what())));
        }
        if response.status() != StatusCode::PARTIAL_CONTENT {
            let given = response.headers().get("content-range").and_then(|v| v.to_str().ok());
            return Err(refused(&format!("answered {} with range {given:?}", response.status())));
        }
        let asked = format!("bytes {}-{}/", range.start, range.end - 1);
        let given = response.headers().get("content-range").and_then(|v| v.to_str().ok()).unwrap_or_default();
        if !given.starts_with(&asked) {
            return Err(refused(&format!("the answer has the range {given:?}")));
        }
        let name = what();
        let parts = response.into_body().bytes_stream();
        Ok(futures::stream::unfold(Some((parts, name)), |state| async move {
            let (mut parts, name) = state?;
            let about = || name.clone();
            match tokio::time::timeout(STALL_TIMEOUT, parts.next()).await {
                Ok(None) => None,
                Ok(Some(Ok(part))) => Some((Ok(part), Some((parts, name)))),
                Ok(Some(Err(e))) => Some((Err(told(&about, broken(&e))), None)),
                Err(_) => Some((Err(told(&about, stalled(STALL_TIMEOUT))), None)),
            }
        })
        .boxed())
    }

    fn object_url(&self, key: &[u8]) -> String {
        let key = [self.prefix.as_bytes(), key].concat();
        format!("{}/{}", self.base, percent_encode(&key, IN_PATH))
    }

    /// One request without a body; an answer that is no success is an error. `what` is what was wanted, for messages.
    async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(HeaderName, HeaderValue)],
        what: &impl Fn() -> String,
    ) -> Result<HttpResponse, RemoteError> {
        self.send_body(method, url, headers, Payload::new(), ANSWER_TIMEOUT, what).await
    }

    /// [`Bucket::send`] with a body, which is signed: the store takes nothing else. The answer begins within `patience`.
    async fn send_body(
        &self,
        method: Method,
        url: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: Payload,
        patience: Duration,
        what: &impl Fn() -> String,
    ) -> Result<HttpResponse, RemoteError> {
        let refused = |why: String| RemoteError::new(Trouble::Refused, format!("{}: {why}", what()));
        let len = body.len();
        let empty = matches!(method, Method::GET | Method::HEAD);
        let mut request: HttpRequest = http::Request::builder()
            .method(method)
            .uri(url)
            .body(if len == 0 {
                HttpRequestBody::empty()
            } else {
                body.pieces().cloned().collect::<PutPayload>().into()
            })
            .map_err(|e| refused(e.to_string()))?;
        request.headers_mut().extend(headers.iter().cloned());
        if !empty {
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(len));
        }
        if let Some(credentials) = &self.credentials {
            let (credentials, region) = (Arc::clone(credentials), self.region.clone());
            let sign = move || {
                let digest = (len > 0).then(|| digest(&body));
                let authorizer = AwsAuthorizer::new(&credentials, "s3", &region);
                let signed = authorizer.try_authorize(&mut request, digest.as_ref().map(AsRef::as_ref));
                signed.map(|()| request).map_err(|e| e.to_string())
            };
            let signed = if len > SIGN_BYTES_MAX {
                tokio::task::spawn_blocking(sign).await.map_err(|e| e.to_string()).flatten()
            } else {
                sign()
            };
            request = signed.map_err(|e| refused(format!("cannot be signed: {e}")))?;
        }
        let response = match tokio::time::timeout(patience, self.http.execute(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(e)) => return Err(told(what, broken(&e))),
            Err(_) => return Err(told(what, stalled(patience))),
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = read_all(response, ERROR_BYTES_MAX).await.unwrap_or_default();
        let (code, message) = xml::error(&text);
        let error = unsuccessful(status, &code, &message, what);
        if error.trouble == Trouble::Expired {
            self.expired.store(true, Ordering::Relaxed);
        }
        Err(error)
    }
}

/// What a signature says of a body.
fn digest(body: &Payload) -> impl AsRef<[u8]> + use<> {
    let mut digest = Sha256::new();
    body.pieces().for_each(|piece| digest.update(piece));
    digest.finalize()
}

/// Connections, to a store that speaks without TLS if it is `plain`.
fn client(plain: bool) -> object_store::Result<HttpClient> {
    let options = ClientOptions::new()
        .with_allow_http(plain)
        // A machine without certificates can still speak without TLS.
        .with_no_system_certificates(plain)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout_disabled()
        .with_http1_only()
        .with_pool_max_idle_per_host(IDLE_CONNECTIONS_MAX);
    ReqwestConnector::default().connect(&options)
}

/// An error as the store told it.
fn unsuccessful(status: StatusCode, code: &str, message: &str, what: &impl Fn() -> String) -> RemoteError {
    let said = match (code.is_empty(), message.is_empty()) {
        (true, _) => status.to_string(),
        (false, true) => format!("{code} ({status})"),
        (false, false) => format!("{code}: {message} ({status})"),
    };
    RemoteError::new(classify(status, code), format!("{}: {said}", what()))
}

/// An ETag as conditions name it.
fn quoted(etag: &str) -> String {
    if etag.starts_with("W/") { etag.to_owned() } else { format!("\"{etag}\"") }
}

/// Where the objects of a bucket are, without a slash at the end.
fn base_url(endpoint: &str, bucket: &str, region: &str) -> String {
    match endpoint {
        // A name with dots does not fit the certificate of *.s3.REGION.amazonaws.com.
        "" if bucket.contains('.') => format!("https://s3.{region}.amazonaws.com/{bucket}"),
        "" => format!("https://{bucket}.s3.{region}.amazonaws.com"),
        endpoint => format!("{}/{bucket}", endpoint.trim_end_matches('/')),
    }
}

/// What an answer that is no success means.
fn classify(status: StatusCode, code: &str) -> Trouble {
    match (status.as_u16(), code) {
        (_, "NoSuchBucket") => Trouble::Refused,
        (_, "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired") => Trouble::Expired,
        (_, "InvalidObjectState") => Trouble::Refused,
        (_, "SlowDown" | "TooManyRequests" | "RequestLimitExceeded") => Trouble::Throttled,
        // Somebody writes the same key in this moment, or the store has a problem that it tells in the body of a success.
        (_, "RequestTimeout" | "ConditionalRequestConflict" | "OperationAborted" | "InternalError") => {
            Trouble::Unavailable
        }
        (404, _) => Trouble::Gone,
        // A range behind the end: the object was longer once.
        (412 | 416, _) => Trouble::Changed,
        (401 | 403, _) => Trouble::Denied,
        (429, _) => Trouble::Throttled,
        (408 | 500 | 502 | 503 | 504, _) => Trouble::Unavailable,
        _ => Trouble::Refused,
    }
}

fn broken(e: &HttpError) -> RemoteError {
    let trouble = match e.kind() {
        HttpErrorKind::Decode => Trouble::Refused,
        // Whatever broke a connection, another one may not.
        _ => Trouble::Unavailable,
    };
    let mut message = e.to_string();
    let mut source = std::error::Error::source(e);
    while let Some(cause) = source {
        let text = cause.to_string();
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        source = cause.source();
    }
    RemoteError::new(trouble, message)
}

fn stalled(patience: Duration) -> RemoteError {
    RemoteError::new(Trouble::Unavailable, format!("no answer for {} s", patience.as_secs()))
}

fn told(what: &impl Fn() -> String, e: RemoteError) -> RemoteError {
    RemoteError::new(e.trouble, format!("{}: {}", what(), e.message))
}

/// A body of at most `max` bytes.
async fn read_all(response: HttpResponse, max: usize) -> Result<Bytes, RemoteError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_found_where_they_are() {
        assert_eq!(base_url("", "data", "eu-west-1"), "https://data.s3.eu-west-1.amazonaws.com");
        assert_eq!(base_url("", "a.b", "eu-west-1"), "https://s3.eu-west-1.amazonaws.com/a.b");
        assert_eq!(base_url("http://h:9000/", "data", "x"), "http://h:9000/data");
    }

    #[test]
    fn keys_are_encoded_as_s3_signs_them() {
        let settings = RepositorySettings {
            endpoint: "http://h:9000".to_owned(),
            ..RepositorySettings::new("/d".parse().expect("path"), "s3://b/p/".parse().expect("url"))
        };
        let bucket = Bucket::open(&settings, None).expect("opens");
        assert_eq!(bucket.object_url("a b/ü+%\n~/".as_bytes()), "http://h:9000/b/p/a%20b/%C3%BC%2B%25%0A~/");
    }

    #[test]
    fn answers_are_told_apart() {
        let of = |status: u16, code: &str| classify(StatusCode::from_u16(status).expect("a status"), code);
        assert_eq!(of(404, "NoSuchKey"), Trouble::Gone);
        assert_eq!(of(404, ""), Trouble::Gone);
        assert_eq!(of(404, "NoSuchBucket"), Trouble::Refused, "its objects are not gone one by one");
        assert_eq!(of(412, "PreconditionFailed"), Trouble::Changed);
        assert_eq!(of(416, "InvalidRange"), Trouble::Changed);
        assert_eq!(of(403, "AccessDenied"), Trouble::Denied);
        assert_eq!(of(400, "ExpiredToken"), Trouble::Expired);
        assert_eq!(of(400, "TokenRefreshRequired"), Trouble::Expired);
        assert_eq!(of(403, "InvalidObjectState"), Trouble::Refused);
        assert_eq!(of(503, "SlowDown"), Trouble::Throttled);
        assert_eq!(of(429, ""), Trouble::Throttled);
        assert_eq!(of(500, "InternalError"), Trouble::Unavailable);
        assert_eq!(of(301, "PermanentRedirect"), Trouble::Refused);
        assert_eq!(of(409, "ConditionalRequestConflict"), Trouble::Unavailable);
        assert_eq!(of(200, "InternalError"), Trouble::Unavailable, "told in the body of a success");
        assert_eq!(of(200, "SlowDown"), Trouble::Throttled);
    }

    #[tokio::test]
    async fn a_store_that_is_not_there_is_unavailable_and_says_where() {
        let settings = RepositorySettings {
            endpoint: "http://127.0.0.1:1".to_owned(),
            ..RepositorySettings::new("/d".parse().expect("path"), "s3://b/".parse().expect("url"))
        };
        let secret = Credentials { access_key: "AK".into(), secret_key: "very secret".into(), token: None };
        let bucket = Bucket::open(&settings, Some(secret)).expect("opens");
        let error = bucket.list(b"", 1).await.expect_err("nobody listens there");
        assert_eq!(error.trouble, Trouble::Unavailable, "{error}");
        assert!(error.message.contains("127.0.0.1:1") && error.message.contains("bucket b"), "{error}");
        assert!(!format!("{error:?} {bucket:?}").contains("very secret"));
    }
}
