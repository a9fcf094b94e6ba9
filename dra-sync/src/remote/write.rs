//! Writing to a repository: every write says what must be under the key before it.

use sateen_types::{Extent, Payload, Timestamp};

use super::{Remote, RemoteError, Trouble, azure, directory, s3};
use crate::posix::Posix;

/// Most parts of an upload (S3).
pub const PARTS_MAX: u64 = 10_000;
/// Least bytes of a part that is not the last one (S3).
pub const PART_BYTES_MIN: u64 = 5 << 20;
/// Objects of S3 beyond it are copied in parts: it copies 5 GiB at once and takes its time.
const COPY_BYTES_MAX: u64 = 1 << 30;

/// What is under a key before a write, or the write does not happen (`Changed`, or `Gone` if nothing is there).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// No object.
    Nothing,
    /// The object with this ETag, without quotes.
    Object(String),
}

/// What a write has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Without quotes.
    pub etag: String,
    /// When, as far as the store told.
    pub modified: Option<Timestamp>,
}

/// An object that is stored in parts. Nobody sees it before it is complete; if it is dropped before that, its parts are removed as
/// far as the store can be reached.
#[derive(Debug)]
pub enum Upload {
    /// Of a bucket.
    S3(s3::Upload),
    /// Of a container.
    Azure(azure::Upload),
    /// Of a directory.
    Directory(directory::Upload),
}

impl Remote {
    /// Stores a small object at once: a file, the target of a symbolic link, or nothing for a directory (the mode in `about`
    /// tells which).
    pub async fn put(
        &self,
        key: &[u8],
        bytes: Payload,
        about: &Posix,
        expected: &Expected,
    ) -> Result<Stored, RemoteError> {
        match self {
            Remote::S3(bucket) => bucket.put(key, bytes, about, expected).await,
            Remote::Azure(container) => container.put(key, bytes, about, expected).await,
            Remote::Directory(directory) => directory.put(key, bytes, about, expected).await,
        }
    }

    /// Objects beyond it are copied in parts, in bytes.
    pub fn copy_bytes_max(&self) -> u64 {
        match self {
            Remote::S3(_) | Remote::Directory(_) => COPY_BYTES_MAX,
            Remote::Azure(_) => u64::MAX,
        }
    }

    /// Whether objects can be stored: an upload is begun and given up, of which nobody ever sees anything.
    pub async fn try_writing(&self, key: &[u8]) -> Result<(), RemoteError> {
        let upload = self.upload(key, &Posix::default(), None).await?;
        if let Upload::Azure(upload) = &upload {
            // Nothing is asked for before the first block.
            upload.part(0, Payload::from(bytes::Bytes::from_static(b"?"))).await?;
        }
        match upload.abort().await {
            // Another attempt, or the store itself, was faster.
            Err(e) if e.trouble == Trouble::Gone => Ok(()),
            other => other,
        }
    }

    /// Makes the object `source`, which has this ETag and at most [`Remote::copy_bytes_max`] bytes, the object `key` as well, with other
    /// attributes; what it has beside them stays. The two may be the same. `Changed` or `Gone` of either.
    pub async fn copy(
        &self,
        source: &[u8],
        etag: &str,
        key: &[u8],
        about: &Posix,
        expected: &Expected,
    ) -> Result<Stored, RemoteError> {
        match self {
            Remote::S3(bucket) => bucket.copy(source, etag, key, about, expected).await,
            Remote::Azure(container) => container.copy(source, etag, key, about, expected).await,
            Remote::Directory(directory) => directory.copy(source, etag, key, about, expected).await,
        }
    }

    /// Removes an object if it is this one: `Changed` if another one is there, `Gone` if none is.
    pub async fn delete(&self, key: &[u8], etag: &str) -> Result<(), RemoteError> {
        match self {
            Remote::S3(bucket) => bucket.delete(key, etag).await,
            Remote::Azure(container) => container.delete(key, etag).await,
            Remote::Directory(directory) => directory.delete(key, etag).await,
        }
    }

    /// Begins to store a file in parts; those of the object `copied`, which has this ETag, if it is to be its copy (`Changed` or
    /// `Gone` if it is not there).
    pub async fn upload(
        &self,
        key: &[u8],
        about: &Posix,
        copied: Option<(&[u8], &str)>,
    ) -> Result<Upload, RemoteError> {
        match self {
            Remote::S3(bucket) => s3::Upload::begin(bucket, key, about, copied).await.map(Upload::S3),
            Remote::Azure(container) => Ok(Upload::Azure(azure::Upload::begin(container, key, about))),
            Remote::Directory(directory) => directory.upload(key, about).await.map(Upload::Directory),
        }
    }

    /// Removes what earlier attempts to store the object left behind, with the numbers of their assignments; how many did.
    pub async fn clean(&self, key: &[u8], earlier: &[u64]) -> Result<usize, RemoteError> {
        match self {
            Remote::S3(bucket) => bucket.clean(key).await,
            Remote::Azure(_) => Ok(0),
            Remote::Directory(directory) => directory.clean(key, earlier).await,
        }
    }
}

impl Upload {
    /// Stores the part `index` (from 0 on), which begins at `offset` of the object. May be stored again, and parts at the same
    /// time in any order. All have [`PART_BYTES_MIN`] bytes but the last.
    pub async fn part(&self, index: u64, offset: u64, bytes: Payload) -> Result<(), RemoteError> {
        match self {
            Upload::S3(upload) => upload.part(index, bytes).await,
            Upload::Azure(upload) => upload.part(index, bytes).await,
            Upload::Directory(upload) => upload.part(offset, bytes).await,
        }
    }

    /// The part `index` is this range of another object, and goes to the same place.
    pub async fn copy_part(&self, index: u64, source: &[u8], etag: &str, range: Extent) -> Result<(), RemoteError> {
        match self {
            Upload::S3(upload) => upload.copy_part(index, source, etag, range).await,
            Upload::Azure(_) => Err(RemoteError::new(Trouble::Refused, "Azure copies objects as a whole")),
            Upload::Directory(upload) => upload.copy_part(source, etag, range).await,
        }
    }

    /// All parts are there: the object takes its key.
    pub async fn complete(&self, expected: &Expected) -> Result<Stored, RemoteError> {
        match self {
            Upload::S3(upload) => upload.complete(expected).await,
            Upload::Azure(upload) => upload.complete(expected).await,
            Upload::Directory(upload) => upload.complete(expected).await,
        }
    }

    /// Nothing becomes of it.
    pub async fn abort(&self) -> Result<(), RemoteError> {
        match self {
            Upload::S3(upload) => upload.abort().await,
            Upload::Azure(_) => Ok(()),
            Upload::Directory(upload) => upload.abort().await,
        }
    }
}
