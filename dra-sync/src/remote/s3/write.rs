//! Writing to a bucket: conditional requests, uploads in parts, copies that the store makes.
//!
//! What a store answers to a write is looked at in full: some say "200" first and in the body what went wrong.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use http::{Method, StatusCode};
use parking_lot::Mutex;
use percent_encoding::percent_encode;
use quick_xml::escape::escape;
use sateen_types::{Extent, Payload};

use super::super::http::{
    COMPOSE_TIMEOUT, Headers, IN_PATH, LIST_BYTES_MAX, UNRESERVED, bytes_of, checked, date_of, etag_of, header,
    patience, quoted, read_all, unsuccessful,
};
use super::super::kept;
use super::super::write::{Expected, PARTS_MAX, Stored};
use super::super::xml::NoSuccess;
use super::{Bucket, HttpResponse, METADATA, RemoteError, Trouble, classify, xml};
use crate::posix::{self, Posix};

/// Largest answer to a write.
const REPLY_BYTES_MAX: usize = 64 << 10;
/// Most uploads of one key that are cleaned up at a time: what S3 gives in one page.
const UPLOADS_MAX: usize = 1000;
/// Longest name of an upload.
const UPLOAD_ID_BYTES_MAX: usize = 2048;

const COPY_SOURCE: HeaderName = HeaderName::from_static("x-amz-copy-source");
const COPY_SOURCE_IF_MATCH: HeaderName = HeaderName::from_static("x-amz-copy-source-if-match");
const COPY_SOURCE_RANGE: HeaderName = HeaderName::from_static("x-amz-copy-source-range");
const METADATA_DIRECTIVE: HeaderName = HeaderName::from_static("x-amz-metadata-directive");

impl Bucket {
    /// See [`super::super::Remote::put`].
    pub async fn put(
        &self,
        key: &[u8],
        bytes: Payload,
        about: &Posix,
        expected: &Expected,
    ) -> Result<Stored, RemoteError> {
        let what = self.about("storing", key);
        let mut headers = described(key, about, &what)?;
        headers.push(condition(expected, &what)?);
        let patience = patience(bytes.len());
        let response = self.send_body(Method::PUT, &self.object_url(key), &headers, bytes, patience, &what).await?;
        Ok(Stored { etag: etag_of(response.headers(), &what)?, modified: date_of(response.headers()) })
    }

    /// See [`super::super::Remote::copy`].
    pub async fn copy(
        &self,
        source: &[u8],
        etag: &str,
        key: &[u8],
        about: &Posix,
        expected: &Expected,
    ) -> Result<Stored, RemoteError> {
        let what = self.about("copying", key);
        let mut headers = described(key, about, &what)?;
        // Not every store looks at the conditions of a copy: this look does as well.
        self.keep(source, etag, &mut headers, &what).await?;
        headers.push(condition(expected, &what)?);
        headers.extend(self.source(source, etag, &what)?);
        headers.push((METADATA_DIRECTIVE, HeaderValue::from_static("REPLACE")));
        let url = self.object_url(key);
        let response = self.send_body(Method::PUT, &url, &headers, Payload::new(), COMPOSE_TIMEOUT, &what).await?;
        let modified = date_of(response.headers());
        let etag = composed(response, "CopyObjectResult", &what).await?;
        Ok(Stored { etag, modified })
    }

    /// See [`super::super::Remote::delete`]. Not every store deletes conditionally: it is looked at right before as well.
    pub async fn delete(&self, key: &[u8], etag: &str) -> Result<(), RemoteError> {
        let what = self.about("deleting", key);
        self.must_be(key, etag, &what).await?;
        let condition = (IF_MATCH, header(&quoted(etag), &what)?);
        let url = self.object_url(key);
        match self.send(Method::DELETE, &url, std::slice::from_ref(&condition), &what).await {
            // One that knows no such condition says so, and has deleted nothing.
            Err(e) if e.trouble == Trouble::Refused => self.send(Method::DELETE, &url, &[], &what).await.map(drop),
            done => done.map(drop),
        }
    }

    /// Aborts uploads of this very key: attempts to store it that were given up, for nobody else stores it.
    pub async fn clean(&self, key: &[u8]) -> Result<usize, RemoteError> {
        let what = self.about("uploads of", key);
        let full = [self.prefix.as_bytes(), key].concat();
        let url = format!(
            "{}/?uploads=&encoding-type=url&max-uploads={UPLOADS_MAX}&prefix={}",
            self.base,
            percent_encode(&full, UNRESERVED)
        );
        let response = self.send(Method::GET, &url, &[], &what).await?;
        let text = read_all(response, LIST_BYTES_MAX).await?;
        let malformed = |e: String| RemoteError::new(Trouble::Refused, format!("{}: no listing: {e}", what()));
        let found = xml::uploads(&text).map_err(malformed)?;
        let mut count = 0;
        for (_, id) in found.iter().filter(|(other, _)| *other == full) {
            match self.abort(key, id).await {
                Ok(()) => count += 1,
                Err(e) if e.trouble == Trouble::Gone => {}
                Err(e) => return Err(e),
            }
        }
        Ok(count)
    }

    async fn abort(&self, key: &[u8], id: &str) -> Result<(), RemoteError> {
        let what = self.about("giving up an upload of", key);
        let url = format!("{}?uploadId={}", self.object_url(key), percent_encode(id.as_bytes(), UNRESERVED));
        self.send(Method::DELETE, &url, &[], &what).await.map(drop)
    }

    /// `Changed` if another object is under the key, `Gone` if none is.
    async fn must_be(&self, key: &[u8], etag: &str, what: &impl Fn() -> String) -> Result<(), RemoteError> {
        self.headers_of(key, etag, what).await.map(drop)
    }

    /// The same, with what the store says of the object.
    async fn headers_of(&self, key: &[u8], etag: &str, what: &impl Fn() -> String) -> Result<HeaderMap, RemoteError> {
        let (head, headers) = self.head_and_headers(key).await?;
        let now = head.etag;
        match now == etag {
            true => Ok(headers),
            false => {
                let key = String::from_utf8_lossy(key);
                Err(RemoteError::new(Trouble::Changed, format!("{}: the ETag of {key:?} is {now}, not {etag}", what())))
            }
        }
    }

    /// Adds what an object has beyond ours to the headers of its copy. `Changed` or `Gone` if it is not there.
    async fn keep(
        &self,
        source: &[u8],
        etag: &str,
        headers: &mut Headers,
        what: &impl Fn() -> String,
    ) -> Result<(), RemoteError> {
        let there = self.headers_of(source, etag, what).await?;
        let left_out = kept::keep(&METADATA, headers, &there);
        if left_out > 0 {
            tracing::warn!(left_out, "{}: not all user metadata of the object go with it", what());
        }
        Ok(())
    }

    /// What is to be copied is what it should be, as far as a look tells.
    async fn check_source(&self, key: &[u8], etag: &str, what: &impl Fn() -> String) -> Result<(), RemoteError> {
        match self.sources_checked {
            true => self.must_be(key, etag, what).await,
            false => Ok(()),
        }
    }

    /// Headers that name what is copied.
    fn source(&self, key: &[u8], etag: &str, what: &impl Fn() -> String) -> Result<Headers, RemoteError> {
        let full = [self.prefix.as_bytes(), key].concat();
        let path = format!("/{}/{}", self.bucket, percent_encode(&full, IN_PATH));
        Ok(vec![(COPY_SOURCE, header(&path, what)?), (COPY_SOURCE_IF_MATCH, header(&quoted(etag), what)?)])
    }

    /// What is done, for messages.
    fn about(&self, doing: &str, key: &[u8]) -> impl Fn() -> String {
        let text = format!("{doing} {:?} in {}", String::from_utf8_lossy(key), self.name);
        move || text.clone()
    }
}

/// See [`super::super::Upload`].
#[derive(Debug)]
pub struct Upload {
    bucket: Arc<Bucket>,
    key: Vec<u8>,
    id: String,
    /// ETags of parts, by their numbers from 1 on.
    parts: Mutex<BTreeMap<u64, String>>,
    over: AtomicBool,
}

impl Upload {
    /// See [`super::super::Remote::upload`].
    pub async fn begin(
        bucket: &Arc<Bucket>,
        key: &[u8],
        about: &Posix,
        copied: Option<(&[u8], &str)>,
    ) -> Result<Upload, RemoteError> {
        let what = bucket.about("beginning to store", key);
        let mut headers = described(key, about, &what)?;
        if let Some((source, etag)) = copied {
            bucket.keep(source, etag, &mut headers, &what).await?;
        }
        let url = format!("{}?uploads=", bucket.object_url(key));
        let response = bucket.send(Method::POST, &url, &headers, &what).await?;
        let text = read_all(response, REPLY_BYTES_MAX).await?;
        let id = xml::value(&text, "InitiateMultipartUploadResult", "UploadId").map_err(|e| no_success(e, &what))?;
        if id.len() > UPLOAD_ID_BYTES_MAX {
            let long = format!("{}: the name of the upload has {} bytes", what(), id.len());
            return Err(RemoteError::new(Trouble::Refused, long));
        }
        let (bucket, key) = (Arc::clone(bucket), key.to_vec());
        Ok(Upload { bucket, key, id, parts: Mutex::default(), over: AtomicBool::new(false) })
    }

    /// See [`super::super::Upload::part`].
    pub async fn part(&self, index: u64, bytes: Payload) -> Result<(), RemoteError> {
        let what = self.bucket.about("storing a part of", &self.key);
        let url = self.part_url(index, &what)?;
        let patience = patience(bytes.len());
        let response = self.bucket.send_body(Method::PUT, &url, &[], bytes, patience, &what).await?;
        self.parts.lock().insert(index + 1, etag_of(response.headers(), &what)?);
        Ok(())
    }

    /// See [`super::super::Upload::copy_part`].
    pub async fn copy_part(&self, index: u64, source: &[u8], etag: &str, range: Extent) -> Result<(), RemoteError> {
        let what = self.bucket.about("copying a part of", &self.key);
        self.bucket.check_source(source, etag, &what).await?;
        let mut headers = self.bucket.source(source, etag, &what)?;
        headers.push((COPY_SOURCE_RANGE, header(&bytes_of(range), &what)?));
        let url = self.part_url(index, &what)?;
        let sent = self.bucket.send_body(Method::PUT, &url, &headers, Payload::new(), COMPOSE_TIMEOUT, &what);
        let etag = composed(sent.await?, "CopyPartResult", &what).await?;
        self.parts.lock().insert(index + 1, etag);
        Ok(())
    }

    /// See [`super::super::Upload::complete`].
    pub async fn complete(&self, expected: &Expected) -> Result<Stored, RemoteError> {
        let what = self.bucket.about("putting together", &self.key);
        let mut text = String::from("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
        for (number, etag) in self.parts.lock().iter() {
            let etag = quoted(etag);
            // Writing to a string does not fail.
            let _ = write!(text, "<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag></Part>", escape(&*etag));
        }
        text.push_str("</CompleteMultipartUpload>");
        let headers = [condition(expected, &what)?, (CONTENT_TYPE, HeaderValue::from_static("application/xml"))];
        let (url, body) = (self.url(), Payload::from(Bytes::from(text)));
        let sent = self.bucket.send_body(Method::POST, &url, &headers, body, COMPOSE_TIMEOUT, &what);
        let response = sent.await?;
        let modified = date_of(response.headers());
        let etag = composed(response, "CompleteMultipartUploadResult", &what).await?;
        self.over.store(true, Ordering::Release);
        Ok(Stored { etag, modified })
    }

    /// See [`super::super::Upload::abort`].
    pub async fn abort(&self) -> Result<(), RemoteError> {
        self.over.store(true, Ordering::Release);
        self.bucket.abort(&self.key, &self.id).await
    }

    fn url(&self) -> String {
        let id = percent_encode(self.id.as_bytes(), UNRESERVED);
        format!("{}?uploadId={id}", self.bucket.object_url(&self.key))
    }

    fn part_url(&self, index: u64, what: &impl Fn() -> String) -> Result<String, RemoteError> {
        if index >= PARTS_MAX {
            let many = format!("{}: more than {PARTS_MAX} parts", what());
            return Err(RemoteError::new(Trouble::Refused, many));
        }
        let id = percent_encode(self.id.as_bytes(), UNRESERVED);
        Ok(format!("{}?partNumber={}&uploadId={id}", self.bucket.object_url(&self.key), index + 1))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.over.load(Ordering::Acquire) {
            return;
        }
        // Whoever was at it was stopped. Parts that stay cost somebody money.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (bucket, key, id) = (Arc::clone(&self.bucket), self.key.clone(), self.id.clone());
            runtime.spawn(async move {
                if let Err(error) = bucket.abort(&key, &id).await
                    && error.trouble != Trouble::Gone
                {
                    tracing::warn!(%error, "parts of an upload stay in the bucket");
                }
            });
        }
    }
}

fn condition(expected: &Expected, what: &impl Fn() -> String) -> Result<(HeaderName, HeaderValue), RemoteError> {
    match expected {
        Expected::Nothing => Ok((IF_NONE_MATCH, HeaderValue::from_static("*"))),
        Expected::Object(etag) => Ok((IF_MATCH, header(&quoted(etag), what)?)),
    }
}

/// Headers that say what the object is.
fn described(key: &[u8], about: &Posix, what: &impl Fn() -> String) -> Result<Headers, RemoteError> {
    let mut headers = vec![(CONTENT_TYPE, HeaderValue::from_static(posix::content_type(key, about)))];
    for (name, value) in posix::metadata(about) {
        headers.push((METADATA.header(name), header(&value, what)?));
    }
    Ok(headers)
}

/// The ETag in the answer to a copy or a completion.
async fn composed(response: HttpResponse, root: &str, what: &impl Fn() -> String) -> Result<String, RemoteError> {
    let text = read_all(response, REPLY_BYTES_MAX).await?;
    let etag = xml::value(&text, root, "ETag").map_err(|e| no_success(e, what))?;
    checked(&etag, what)
}

fn no_success(e: NoSuccess, what: &impl Fn() -> String) -> RemoteError {
    match e {
        NoSuccess::Error(code, message) => {
            unsuccessful(StatusCode::OK, (&code, &message), classify(StatusCode::OK, &code), what)
        }
        // The answer may have been cut off: what became of the request is unknown.
        NoSuccess::Malformed(why) => RemoteError::new(Trouble::Unavailable, format!("{}: {why}", what())),
    }
}
