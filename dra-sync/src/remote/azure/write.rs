//! Writing to a container: conditional requests, blocks, copies that the store makes.
//!
//! Blocks belong to a key, not to an upload: those that are given up go when the object is written, or after a week. So there is nothing to
//! abort, and nothing to clean up.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use parking_lot::Mutex;
use percent_encoding::percent_encode;
use rand::Rng;
use sateen_types::Payload;
use tokio::time::Instant;

use super::super::http::{COMPOSE_TIMEOUT, date_of, etag_of, patience};
use super::super::kept;
use super::super::write::{Expected, PARTS_MAX, Stored};
use super::{
    ANSWER_TIMEOUT, AzureCredential, COPY_STATUS, Container, Headers, METADATA, RemoteError, Trouble, UNRESERVED,
    header, quoted,
};
use crate::posix::{self, Posix};

/// Names and values of user metadata of an object (Azure), in bytes.
const METADATA_BYTES_MAX: usize = 8 << 10;
/// How often it is asked what became of a copy.
const COPY_PAUSE: Duration = Duration::from_millis(200);

const BLOB_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-type");
const CONTENT_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-content-type");
const COPY_SOURCE: HeaderName = HeaderName::from_static("x-ms-copy-source");
const SOURCE_IF_MATCH: HeaderName = HeaderName::from_static("x-ms-source-if-match");

impl Container {
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
        headers.push((BLOB_TYPE, HeaderValue::from_static("BlockBlob")));
        headers.push(condition(expected, &what)?);
        let patience = patience(bytes.len());
        let response = self.send_body(Method::PUT, &self.object_url(key), &headers, bytes, patience, &what).await?;
        stored(response.headers(), &what)
    }

    /// See [`super::super::Remote::copy`]. What belongs to the object beside its metadata goes with it.
    pub async fn copy(
        &self,
        source: &[u8],
        etag: &str,
        key: &[u8],
        about: &Posix,
        expected: &Expected,
    ) -> Result<Stored, RemoteError> {
        let what = self.about("copying", key);
        let (head, there) = self.head_and_headers(source).await?;
        if head.etag != etag {
            let source = String::from_utf8_lossy(source);
            let now = head.etag;
            return Err(RemoteError::new(
                Trouble::Changed,
                format!("{}: the ETag of {source:?} is {now}, not {etag}", what()),
            ));
        }
        let mut headers = metadata(about, &what)?;
        let left_out = kept::keep_metadata(&METADATA, &mut headers, &there, METADATA_BYTES_MAX);
        if left_out > 0 {
            tracing::warn!(left_out, "{}: not all user metadata of the object go with it", what());
        }
        headers.push(condition(expected, &what)?);
        if source == key {
            let url = format!("{}?comp=metadata", self.object_url(key));
            let response = self.send(Method::PUT, &url, &headers, &what).await?;
            return stored(response.headers(), &what);
        }
        headers.push((COPY_SOURCE, header(&self.source_url(source, &what).await?, &what)?));
        headers.push((SOURCE_IF_MATCH, header(&quoted(etag), &what)?));
        let url = self.object_url(key);
        let response = self.send_body(Method::PUT, &url, &headers, Payload::new(), COMPOSE_TIMEOUT, &what).await?;
        match response.headers().get(COPY_STATUS).map(HeaderValue::as_bytes) {
            Some(b"pending") => self.copied(key, about, &what).await,
            _ => stored(response.headers(), &what),
        }
    }

    /// Waits for the end of a copy.
    async fn copied(&self, key: &[u8], about: &Posix, what: &impl Fn() -> String) -> Result<Stored, RemoteError> {
        let deadline = Instant::now() + COMPOSE_TIMEOUT;
        loop {
            tokio::time::sleep(COPY_PAUSE).await;
            match self.head_and_headers(key).await {
                Ok((head, _)) if head.posix.export != about.export => {
                    let other = format!("{}: somebody has written another object there meanwhile", what());
                    return Err(RemoteError::new(Trouble::Changed, other));
                }
                Ok((head, headers)) => match headers.get(COPY_STATUS).map(HeaderValue::as_bytes) {
                    Some(b"success") => return Ok(Stored { etag: head.etag, modified: head.modified }),
                    status => {
                        let status = String::from_utf8_lossy(status.unwrap_or_default()).into_owned();
                        let why = format!("{}: the copy has ended: {status:?}", what());
                        return Err(RemoteError::new(Trouble::Unavailable, why));
                    }
                },
                Err(e) if e.trouble == Trouble::Unavailable && Instant::now() < deadline => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Where the store finds what it is to copy, with what lets it read there.
    async fn source_url(&self, key: &[u8], what: &impl Fn() -> String) -> Result<String, RemoteError> {
        let mut url = self.object_url(key);
        if let Some(credential) = self.credential(what).await?
            && let AzureCredential::SASToken(pairs) = &*credential
        {
            let encoded = |text: &str| percent_encode(text.as_bytes(), UNRESERVED).to_string();
            let pairs = pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
            url.push('?');
            url.push_str(&pairs.collect::<Vec<_>>().join("&"));
        }
        Ok(url)
    }

    /// See [`super::super::Remote::delete`].
    pub async fn delete(&self, key: &[u8], etag: &str) -> Result<(), RemoteError> {
        let what = self.about("deleting", key);
        let condition = [(IF_MATCH, header(&quoted(etag), &what)?)];
        self.send(Method::DELETE, &self.object_url(key), &condition, &what).await.map(drop)
    }
}

/// See [`super::super::Upload`].
#[derive(Debug)]
pub struct Upload {
    container: Arc<Container>,
    key: Vec<u8>,
    about: Posix,
    /// Tells the blocks of this attempt from those of others.
    number: u64,
    /// Names of blocks, by their numbers.
    blocks: Mutex<BTreeMap<u64, String>>,
}

impl Upload {
    /// See [`super::super::Remote::upload`]. Nothing is sent yet.
    pub fn begin(container: &Arc<Container>, key: &[u8], about: &Posix) -> Upload {
        Upload {
            container: Arc::clone(container),
            key: key.to_vec(),
            about: *about,
            number: rand::rng().random(),
            blocks: Mutex::default(),
        }
    }

    /// See [`super::super::Upload::part`].
    pub async fn part(&self, index: u64, bytes: Payload) -> Result<(), RemoteError> {
        let what = self.container.about("storing a part of", &self.key);
        if index >= PARTS_MAX {
            let many = format!("{}: more than {PARTS_MAX} parts", what());
            return Err(RemoteError::new(Trouble::Refused, many));
        }
        let name = block_name(self.number, index);
        let url = format!("{}?comp=block&blockid={name}", self.container.object_url(&self.key));
        let patience = patience(bytes.len());
        self.container.send_body(Method::PUT, &url, &[], bytes, patience, &what).await?;
        self.blocks.lock().insert(index, name);
        Ok(())
    }

    /// See [`super::super::Upload::complete`].
    pub async fn complete(&self, expected: &Expected) -> Result<Stored, RemoteError> {
        let what = self.container.about("putting together", &self.key);
        let mut text = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>");
        for name in self.blocks.lock().values() {
            // Writing to a string does not fail.
            let _ = write!(text, "<Latest>{name}</Latest>");
        }
        text.push_str("</BlockList>");
        let mut headers = described(&self.key, &self.about, &what)?;
        headers.push(condition(expected, &what)?);
        let url = format!("{}?comp=blocklist", self.container.object_url(&self.key));
        let body = Payload::from(Bytes::from(text));
        let sent = self.container.send_body(Method::PUT, &url, &headers, body, ANSWER_TIMEOUT, &what);
        stored(sent.await?.headers(), &what)
    }
}

/// Names of blocks are base64 and all of one length: hexadecimal digits, in fours, are.
fn block_name(upload: u64, index: u64) -> String {
    format!("{upload:016x}{index:08x}")
}

fn stored(headers: &HeaderMap, what: &impl Fn() -> String) -> Result<Stored, RemoteError> {
    Ok(Stored { etag: etag_of(headers, what)?, modified: date_of(headers) })
}

fn condition(expected: &Expected, what: &impl Fn() -> String) -> Result<(HeaderName, HeaderValue), RemoteError> {
    match expected {
        Expected::Nothing => Ok((IF_NONE_MATCH, HeaderValue::from_static("*"))),
        Expected::Object(etag) => Ok((IF_MATCH, header(&quoted(etag), what)?)),
    }
}

/// Headers that say what the object is.
fn described(key: &[u8], about: &Posix, what: &impl Fn() -> String) -> Result<Headers, RemoteError> {
    let mut headers = metadata(about, what)?;
    headers.push((CONTENT_TYPE, HeaderValue::from_static(posix::content_type(key, about))));
    Ok(headers)
}

fn metadata(about: &Posix, what: &impl Fn() -> String) -> Result<Headers, RemoteError> {
    posix::metadata(about).into_iter().map(|(name, value)| Ok((METADATA.header(name), header(&value, what)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_blocks_have_one_length_and_sort_as_their_numbers() {
        let names: Vec<_> = [0, 9, 10, PARTS_MAX - 1].map(|index| block_name(7, index)).into();
        assert!(names.iter().all(|name| name.len() == 24) && names.is_sorted(), "{names:?}");
    }
}
