//! Amazon S3 and what speaks like it: signed requests for raw keys.
//!
//! Reading is here, writing in [`write`].
//!
//! object_store brings HTTP, TLS and the signature. Its own store is not used: it cannot name keys that end with a slash, have
//! empty parts or control characters, and does not tell the metadata with which a listing's objects were written.

mod listen;
mod service;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue, IF_MATCH, RANGE};
use http::{Method, StatusCode};
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody, HttpResponse};
use percent_encoding::percent_encode;
use sateen_types::repository::RepositorySettings;
use sateen_types::{Extent, FsCode, FsError, FsResult, Payload};
use sha2::{Digest, Sha256};

use super::http::{
    ANSWER_TIMEOUT, ERROR_BYTES_MAX, IN_PATH, LIST_BYTES_MAX, UNRESERVED, by_status, bytes_of, client, etag_in,
    exchange, header, quoted, ranged, read_all, request, told, unsuccessful,
};
use super::{Body, Head, Listed, Page, RemoteError, Trouble, xml};
use crate::credentials::Credentials;
use crate::posix::{self, Spelling};

pub use service::{Refusal, Service};
pub use write::Upload;

/// Bodies beyond it are hashed on a thread for such work.
const SIGN_BYTES_MAX: usize = 256 << 10;
/// How user metadata are named.
const METADATA: Spelling = Spelling { prefix: "x-amz-meta-", separator: '-' };

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
        let there = response.headers();
        let posix = posix::parse(|name| there.get(METADATA.name(name)).map(HeaderValue::as_bytes));
        let head = super::http::head(there, posix, is_archived(there), &what)?;
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
        let headers = [(IF_MATCH, header(&quoted(etag), &what)?), (RANGE, header(&bytes_of(range), &what)?)];
        let response = self.send(Method::GET, &self.object_url(key), &headers, &what).await?;
        // A store that does not know If-Match answers all the same.
        let version = etag_in(response.headers());
        if version != Some(etag) {
            let now = version.unwrap_or("none");
            return Err(RemoteError::new(Trouble::Changed, format!("{}: its ETag is {now}, not {etag}", what())));
        }
        ranged(response, range, &what)
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
        let mut request = request(method, url, headers, &body).map_err(&refused)?;
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
        let response = exchange(&self.http, request, patience, what).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = read_all(response, ERROR_BYTES_MAX).await.unwrap_or_default();
        let (code, message) = xml::error(&text);
        let error = unsuccessful(status, (&code, &message), classify(status, &code), what);
        if error.trouble == Trouble::Expired {
            self.expired.store(true, Ordering::Relaxed);
        }
        Err(error)
    }
}

/// Whether an object must be restored before it can be read: and it was not.
fn is_archived(headers: &HeaderMap) -> bool {
    let has = |name: &str, wanted: &[&str]| {
        headers.get(name).and_then(|v| v.to_str().ok()).is_some_and(|value| wanted.iter().any(|w| value.starts_with(w)))
    };
    has("x-amz-storage-class", &["GLACIER", "DEEP_ARCHIVE"])
        && !has("x-amz-storage-class", &["GLACIER_IR"])
        && !has("x-amz-restore", &["ongoing-request=\"false\""])
}

/// What a signature says of a body.
fn digest(body: &Payload) -> impl AsRef<[u8]> + use<> {
    let mut digest = Sha256::new();
    body.pieces().for_each(|piece| digest.update(piece));
    digest.finalize()
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
    match code {
        "NoSuchBucket" => Trouble::Refused,
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => Trouble::Expired,
        "InvalidObjectState" => Trouble::Refused,
        "SlowDown" | "TooManyRequests" | "RequestLimitExceeded" => Trouble::Throttled,
        // Somebody writes the same key in this moment, or the store has a problem that it tells in the body of a success.
        "RequestTimeout" | "ConditionalRequestConflict" | "OperationAborted" | "InternalError" => Trouble::Unavailable,
        _ => by_status(status),
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
    fn what_must_be_restored_first_is_told_apart() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v)));
            is_archived(&headers.collect())
        };
        let class = "x-amz-storage-class";
        assert!(of(&[(class, "GLACIER")]) && of(&[(class, "DEEP_ARCHIVE")]));
        assert!(!of(&[]) && !of(&[(class, "STANDARD_IA")]) && !of(&[(class, "GLACIER_IR")]));
        assert!(of(&[(class, "GLACIER"), ("x-amz-restore", "ongoing-request=\"true\"")]));
        let there = "ongoing-request=\"false\", expiry-date=\"Fri, 21 Dec 2026 00:00:00 GMT\"";
        assert!(!of(&[(class, "GLACIER"), ("x-amz-restore", there)]));
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
