//! A repository as the worker sees it: listing, attributes and ranges of objects. Knows nothing of files.
//!
//! Keys are the bytes behind the prefix of the link. Every request is bounded in size and time; what may pass is tried again
//! within [`Retries`]' budget. Only this module talks to stores, and only `http.rs`, `s3.rs` and `azure.rs` with what is below them know the types of the HTTP client.

mod azure;
mod directory;
mod error;
mod http;
mod kept;
mod s3;
mod times;
mod write;
mod xml;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use sateen_types::repository::{RepositorySettings, Scheme};
use sateen_types::{Extent, FsCode, FsError, FsResult, Timestamp};

use crate::config::Config;
use crate::posix::Posix;

pub use error::{RemoteError, Retries, Trouble};
pub use s3::{Refusal, Service};
pub use write::{Expected, PART_BYTES_MIN, PARTS_MAX, Stored, Upload};

/// Most objects in one page of a listing: what S3 gives.
pub const LIST_PAGE_MAX: usize = 1000;
/// How long an import goes on trying while its store does not answer.
pub const IMPORT_RETRY_FOR: Duration = Duration::from_secs(300);
/// How long the fetch of a range goes on trying: somebody may wait for it.
pub const FETCH_RETRY_FOR: Duration = Duration::from_secs(30);
/// How long one request of an export goes on trying; afterwards the MDS lets it be tried later.
pub const EXPORT_RETRY_FOR: Duration = Duration::from_secs(60);
/// How long a look at a bucket goes on trying.
pub const CHECK_RETRY_FOR: Duration = Duration::from_secs(10);

/// An object as a listing tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Behind the prefix.
    pub key: Vec<u8>,
    /// Bytes.
    pub size: u64,
    /// Without quotes; empty if the listing has none.
    pub etag: String,
    /// When it was written.
    pub modified: Timestamp,
}

/// A page of a listing.
#[derive(Debug, Default)]
pub struct Page {
    /// Rising keys.
    pub objects: Vec<Listed>,
    /// More follow.
    pub more: bool,
}

/// An object as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes.
    pub size: u64,
    /// Without quotes.
    pub etag: String,
    /// When it was written.
    pub modified: Option<Timestamp>,
    /// What it says about the file it was.
    pub posix: Posix,
    /// In a storage class whose objects cannot be read before they are restored there.
    pub archived: bool,
}

/// Bytes of an object, as they come.
pub type Body = BoxStream<'static, Result<Bytes, RemoteError>>;

/// One repository.
#[derive(Debug)]
pub enum Remote {
    /// Amazon S3 and its likes.
    S3(Arc<s3::Bucket>),
    /// Azure Blob Storage.
    Azure(Arc<azure::Container>),
    /// A directory of this machine.
    Directory(directory::Directory),
}

impl Remote {
    /// The repository of a link. Nothing is sent yet. `Invalid` if this worker has no credentials of that name or does not know
    /// the kind of store.
    pub fn open(settings: &RepositorySettings, config: &Config) -> FsResult<Remote> {
        match settings.url.scheme() {
            Scheme::S3 => {
                let credentials = config.credentials(&settings.profile)?;
                s3::Bucket::open(settings, credentials).map(|bucket| Remote::S3(Arc::new(bucket)))
            }
            Scheme::File => directory::Directory::open(&settings.url, &config.directories).map(Remote::Directory),
            Scheme::Az => {
                let account = config.azure_account(&settings.profile)?;
                azure::Container::open(settings, account).map(|container| Remote::Azure(Arc::new(container)))
            }
            other @ Scheme::Gs => {
                let what = format!("{}: this worker knows no {}://", settings.url, other.as_str());
                Err(FsError::new(FsCode::NotSupported, what)
                    .with_hint("if the store has an S3 interface, use that: s3:// with --endpoint"))
            }
        }
    }

    /// Whether it needs other credentials than it has.
    pub fn is_expired(&self) -> bool {
        match self {
            Remote::S3(bucket) => bucket.is_expired(),
            Remote::Azure(_) | Remote::Directory(_) => false,
        }
    }

    /// Whether a listing can begin at any key without all before it being listed as well, as far as is known.
    pub fn seeks(&self) -> bool {
        match self {
            Remote::Azure(container) => container.seeks(),
            Remote::S3(_) | Remote::Directory(_) => true,
        }
    }

    /// The objects behind the key `after` (empty: from the start), in the order of their keys; `max` is 1 to
    /// [`LIST_PAGE_MAX`].
    pub async fn list(&self, after: &[u8], max: usize) -> Result<Page, RemoteError> {
        let page = match self {
            Remote::S3(bucket) => bucket.list(after, max).await?,
            Remote::Azure(container) => container.list(after, max).await?,
            Remote::Directory(directory) => directory.list(after, max).await?,
        };
        let keys = std::iter::once(after).chain(page.objects.iter().map(|o| o.key.as_slice()));
        if !keys.clone().zip(keys.skip(1)).all(|(a, b)| a < b || (a.is_empty() && b.is_empty())) {
            return Err(RemoteError::new(Trouble::Refused, "the listing is not in the order of keys"));
        }
        if page.more && page.objects.is_empty() {
            return Err(RemoteError::new(Trouble::Refused, "the listing says that more follows, and nothing does"));
        }
        Ok(page)
    }

    /// Size, version and attributes of an object.
    pub async fn head(&self, key: &[u8]) -> Result<Head, RemoteError> {
        match self {
            Remote::S3(bucket) => bucket.head(key).await,
            Remote::Azure(container) => container.head(key).await,
            Remote::Directory(directory) => directory.head(key).await,
        }
    }

    /// The bytes `range` of the object `etag`; not empty. `Changed` if another object is there. The body has exactly as many
    /// bytes, or ends with an error.
    pub async fn get(&self, key: &[u8], etag: &str, range: Extent) -> Result<Body, RemoteError> {
        let body = match self {
            Remote::S3(bucket) => bucket.get(key, etag, range).await?,
            Remote::Azure(container) => container.get(key, etag, range).await?,
            Remote::Directory(directory) => directory.get(key, etag, range).await?,
        };
        Ok(exact(body, range.end - range.start))
    }

    /// What the store tells of changes, as bytes of a stream of JSON lines. `Refused` if it tells of none.
    pub async fn listen(&self) -> Result<BoxStream<'static, Result<Bytes, RemoteError>>, RemoteError> {
        match self {
            Remote::S3(bucket) => bucket.listen().await,
            Remote::Azure(_) | Remote::Directory(_) => {
                let what = "neither directories nor Azure tell of their changes like this: they are compared";
                Err(RemoteError::new(Trouble::Refused, what))
            }
        }
    }

    /// A small object as a whole.
    pub async fn get_all(&self, key: &[u8], etag: &str, size: u64) -> Result<Vec<u8>, RemoteError> {
        let mut body = self.get(key, etag, Extent { start: 0, end: size }).await?;
        let mut bytes = Vec::new();
        while let Some(part) = body.next().await {
            bytes.extend_from_slice(&part?);
        }
        Ok(bytes)
    }
}

/// `body`, which must have `len` bytes: what is missing or too much is an error.
fn exact(body: Body, len: u64) -> Body {
    let cut =
        move |got: u64| RemoteError::new(Trouble::Unavailable, format!("the body ended after {got} of {len} bytes"));
    let state = (body, 0u64, false);
    futures::stream::unfold(state, move |(mut body, got, ended)| async move {
        if ended {
            return None;
        }
        match body.next().await {
            None if got == len => None,
            None => Some((Err(cut(got)), (body, got, true))),
            Some(Err(e)) => Some((Err(e), (body, got, true))),
            Some(Ok(part)) => {
                let got = got + part.len() as u64;
                if got > len {
                    let error = RemoteError::new(Trouble::Refused, format!("the body has more than {len} bytes"));
                    return Some((Err(error), (body, got, true)));
                }
                Some((Ok(part), (body, got, false)))
            }
        }
    })
    .boxed()
}

/// An ETag without its quotes, which some stores leave out in some places.
fn bare_etag(etag: &str) -> &str {
    let etag = etag.trim();
    etag.strip_prefix('"').and_then(|e| e.strip_suffix('"')).unwrap_or(etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(parts: &[&'static str], len: u64) -> Result<usize, Trouble> {
        let parts: Vec<Result<Bytes, RemoteError>> =
            parts.iter().map(|p| Ok(Bytes::from_static(p.as_bytes()))).collect();
        let mut body = exact(futures::stream::iter(parts).boxed(), len);
        let mut got = 0;
        while let Some(part) = body.next().await {
            got += part.map_err(|e| e.trouble)?.len();
        }
        Ok(got)
    }

    #[tokio::test]
    async fn a_body_has_the_bytes_that_were_asked_for_or_is_an_error() {
        assert_eq!(read(&["ab", "", "c"], 3).await, Ok(3));
        assert_eq!(read(&["ab"], 3).await, Err(Trouble::Unavailable));
        assert_eq!(read(&[], 3).await, Err(Trouble::Unavailable));
        assert_eq!(read(&["ab", "cd"], 3).await, Err(Trouble::Refused));
    }

    #[test]
    fn etags_are_compared_without_quotes() {
        assert_eq!(bare_etag("\"a-1\""), "a-1");
        assert_eq!(bare_etag(" a "), "a");
        assert_eq!(bare_etag("W/\"a\""), "W/\"a\"");
        assert_eq!(bare_etag("\""), "\"");
    }
}
