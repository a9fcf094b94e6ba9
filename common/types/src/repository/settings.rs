//! What is chosen when a link is made. Everything is checked here once: a value that exists is valid.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ConflictPolicy;
use crate::limits::{
    CHUNK_MIB_DEFAULT, CHUNK_MIB_MAX, ENDPOINT_BYTES_MAX, EVENT_SOURCE_BYTES_MAX, KEY_BYTES_MAX, PATH_BYTES_MAX,
    PROFILE_BYTES_MAX, REGION_BYTES_MAX, SYNC_INTERVAL_S_DEFAULT, SYNC_INTERVAL_S_MAX, SYNC_INTERVAL_S_MIN,
    URL_BYTES_MAX,
};
use crate::name::Name;
use crate::status::{FsCode, FsError, FsResult};

/// Region where none was said.
pub const REGION_DEFAULT: &str = "us-east-1";
/// Credentials where none were named.
pub const PROFILE_DEFAULT: &str = "default";

fn invalid(what: impl Into<String>, hint: &str) -> FsError {
    FsError::new(FsCode::Invalid, what).with_hint(hint)
}

/// At most 80 characters of a value, for messages.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Absolute path of a directory in the file system: `/` or `/a/b`, no slash at the end.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LinkPath(String);

impl LinkPath {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names from the root down; none of the root itself.
    pub fn names(&self) -> Vec<Name> {
        // Every part was checked when the path was made.
        self.0.split('/').filter_map(|part| Name::parse(part.as_bytes()).ok()).collect()
    }

    /// Whether one of the two lies in the other, or they are the same.
    pub fn overlaps(&self, other: &LinkPath) -> bool {
        let (mut a, mut b) = (self.names().into_iter(), other.names().into_iter());
        loop {
            match (a.next(), b.next()) {
                (Some(x), Some(y)) if x == y => {}
                (Some(_), Some(_)) => return false,
                _ => return true,
            }
        }
    }
}

impl FromStr for LinkPath {
    type Err = FsError;
    fn from_str(s: &str) -> FsResult<LinkPath> {
        const HINT: &str = "give an absolute path in the file system, for example /dataset";
        if s.len() >= PATH_BYTES_MAX {
            return Err(invalid(format!("path: {} bytes, at most {}", s.len(), PATH_BYTES_MAX - 1), HINT));
        }
        let Some(rest) = s.strip_prefix('/') else {
            return Err(invalid(format!("path: {:?} does not start with a slash", shown(s)), HINT));
        };
        let rest = rest.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(rest);
        if !rest.is_empty() {
            for part in rest.split('/') {
                Name::parse(part.as_bytes()).map_err(|e| invalid(format!("path: {}", e.message), HINT))?;
            }
        }
        Ok(LinkPath(format!("/{rest}")))
    }
}

/// Which kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Amazon S3 and what speaks like it.
    S3,
    /// A directory of the worker's machine.
    File,
    /// Google Cloud Storage.
    Gs,
    /// Azure Blob Storage.
    Az,
}

impl Scheme {
    /// As it stands before `://`.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::S3 => "s3",
            Scheme::File => "file",
            Scheme::Gs => "gs",
            Scheme::Az => "az",
        }
    }
}

/// Where the objects are: `s3://BUCKET/PREFIX/`, with a slash at the end.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepositoryUrl {
    scheme: Scheme,
    bucket: String,
    prefix: String,
}

impl RepositoryUrl {
    /// Which kind of store.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The bucket or container; empty for a directory.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// What every key starts with: empty, or with a slash at the end and none at the start. Of a directory: its
    /// absolute path without the first slash.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether an object could belong to both.
    pub fn overlaps(&self, other: &RepositoryUrl) -> bool {
        self.scheme == other.scheme
            && self.bucket == other.bucket
            && (self.prefix.starts_with(&other.prefix) || other.prefix.starts_with(&self.prefix))
    }
}

impl FromStr for RepositoryUrl {
    type Err = FsError;
    fn from_str(s: &str) -> FsResult<RepositoryUrl> {
        const HINT: &str = "give s3://BUCKET/PREFIX/ (or gs://, az://, file:///DIRECTORY/)";
        if s.len() > URL_BYTES_MAX {
            return Err(invalid(format!("url: {} bytes, at most {URL_BYTES_MAX}", s.len()), HINT));
        }
        let no = |why: &str| invalid(format!("url: {:?} {why}", shown(s)), HINT);
        let (scheme, rest) = s.split_once("://").ok_or_else(|| no("has no ://"))?;
        let scheme = [Scheme::S3, Scheme::File, Scheme::Gs, Scheme::Az]
            .into_iter()
            .find(|known| known.as_str() == scheme)
            .ok_or_else(|| no("is of no kind that is known"))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        match scheme {
            Scheme::File if !bucket.is_empty() => return Err(no("names a machine before the directory")),
            Scheme::File if prefix.is_empty() => return Err(no("names the root directory")),
            Scheme::File => {}
            _ if bucket.is_empty() || bucket.len() > 255 || !bucket.bytes().all(plain) => {
                return Err(no("has no valid bucket"));
            }
            _ => {}
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        if prefix.len() >= KEY_BYTES_MAX {
            return Err(no("has a prefix as long as a key"));
        }
        if prefix.chars().any(char::is_control) {
            return Err(no("has a control character"));
        }
        if !prefix.is_empty() && prefix.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(no("has an empty part, . or .. in its prefix"));
        }
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(RepositoryUrl { scheme, bucket: bucket.to_owned(), prefix })
    }
}

impl fmt::Display for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}/{}", self.scheme.as_str(), self.bucket, self.prefix)
    }
}

impl fmt::Display for LinkPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Both travel and are stored as their text.
macro_rules! as_text {
    ($type:ident) => {
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.to_string())
            }
        }

        impl TryFrom<String> for $type {
            type Error = FsError;
            fn try_from(s: String) -> FsResult<$type> {
                s.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
    };
}
as_text!(LinkPath);
as_text!(RepositoryUrl);
as_text!(EventSource);

/// Who tells of changes of a bucket, beside the comparison and webhooks. As text: empty, `listen`, or `sqs:URL`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum EventSource {
    /// Nobody.
    #[default]
    None,
    /// The store itself (MinIO's ListenBucketNotification).
    Listen,
    /// A queue, by its URL: `https://sqs.REGION.amazonaws.com/ACCOUNT/NAME`, or that of a like service.
    Sqs(String),
}

impl fmt::Display for EventSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventSource::None => Ok(()),
            EventSource::Listen => f.write_str("listen"),
            EventSource::Sqs(url) => write!(f, "sqs:{url}"),
        }
    }
}

impl FromStr for EventSource {
    type Err = FsError;
    fn from_str(s: &str) -> FsResult<EventSource> {
        let no = |hint| invalid(format!("event_source: {:?} is no source of events", shown(s)), hint);
        match s {
            "" => return Ok(EventSource::None),
            "listen" => return Ok(EventSource::Listen),
            _ => {}
        }
        let url = s.strip_prefix("sqs:").ok_or_else(|| no("give listen, or sqs: and the URL of the queue"))?;
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let rest = rest.ok_or_else(|| no("a queue's URL begins with https:// or http://"))?;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/[]".contains(&b);
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if s.len() > EVENT_SOURCE_BYTES_MAX || host.is_empty() || path.is_empty() || !rest.bytes().all(allowed) {
            return Err(no("give the URL as SQS tells it: https://HOST/ACCOUNT/NAME"));
        }
        Ok(EventSource::Sqs(url.to_owned()))
    }
}

/// Changes that are carried over by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryEvents {
    /// NEW.
    pub created: bool,
    /// CHANGED.
    pub changed: bool,
    /// DELETED.
    pub deleted: bool,
}

/// What is chosen when a link is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositorySettings {
    /// The directory.
    pub path: LinkPath,
    /// The objects.
    pub url: RepositoryUrl,
    /// Where the store answers, `http://HOST:PORT`; empty: the provider's own.
    pub endpoint: String,
    /// Region of the bucket.
    pub region: String,
    /// Name of the credentials in the workers' configuration.
    pub profile: String,
    /// From the repository to the file system.
    pub auto_import: RepositoryEvents,
    /// From the file system to the repository.
    pub auto_export: RepositoryEvents,
    /// MiB of a file per stripe, 1 to 512,000.
    pub chunk_mib: u32,
    /// Import at once.
    pub batch_import: bool,
    /// What becomes of what both sides changed.
    pub conflict: ConflictPolicy,
    /// Seconds from one comparison of bucket and directory to the next, while anything is imported by itself; 60 to 604,800.
    pub sync_interval_s: u32,
    /// Who tells of changes.
    pub event_source: EventSource,
}

/// What is to change of a link; `None`: stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepositoryChange {
    /// Where the store answers; empty: the provider's own.
    pub endpoint: Option<String>,
    /// Not empty.
    pub region: Option<String>,
    /// Name of the credentials in the workers' configuration; not empty.
    pub profile: Option<String>,
    /// From the repository to the file system.
    pub auto_import: Option<RepositoryEvents>,
    /// From the file system to the repository.
    pub auto_export: Option<RepositoryEvents>,
    /// MiB of a file per stripe, 1 to 512,000.
    pub chunk_mib: Option<u32>,
    /// What becomes of what both sides changed.
    pub conflict: Option<ConflictPolicy>,
    /// Seconds between comparisons of bucket and directory, 60 to 604,800.
    pub sync_interval_s: Option<u32>,
    /// Who tells of changes of the bucket.
    pub event_source: Option<EventSource>,
}

impl RepositoryChange {
    /// Changes settings.
    pub fn apply(&self, settings: &mut RepositorySettings) {
        fn to<T: Clone>(new: &Option<T>, old: &mut T) {
            if let Some(new) = new {
                old.clone_from(new);
            }
        }
        to(&self.endpoint, &mut settings.endpoint);
        to(&self.region, &mut settings.region);
        to(&self.profile, &mut settings.profile);
        to(&self.auto_import, &mut settings.auto_import);
        to(&self.auto_export, &mut settings.auto_export);
        to(&self.chunk_mib, &mut settings.chunk_mib);
        to(&self.conflict, &mut settings.conflict);
        to(&self.sync_interval_s, &mut settings.sync_interval_s);
        to(&self.event_source, &mut settings.event_source);
    }
}

impl RepositorySettings {
    /// A link with the usual settings.
    pub fn new(path: LinkPath, url: RepositoryUrl) -> RepositorySettings {
        RepositorySettings {
            path,
            url,
            endpoint: String::new(),
            region: REGION_DEFAULT.to_owned(),
            profile: PROFILE_DEFAULT.to_owned(),
            auto_import: RepositoryEvents::default(),
            auto_export: RepositoryEvents::default(),
            chunk_mib: CHUNK_MIB_DEFAULT,
            batch_import: false,
            conflict: ConflictPolicy::Manual,
            sync_interval_s: SYNC_INTERVAL_S_DEFAULT,
            event_source: EventSource::None,
        }
    }

    /// Fills in what is empty or 0, and checks the rest.
    pub fn checked(mut self) -> FsResult<RepositorySettings> {
        self.endpoint = Self::checked_endpoint(&self.endpoint)?;
        self.region = Self::checked_region(&self.region)?;
        self.profile = Self::checked_profile(&self.profile)?;
        self.chunk_mib = checked_chunk_mib(self.chunk_mib)?;
        self.sync_interval_s = Self::checked_sync_interval(self.sync_interval_s)?;
        Ok(self)
    }

    /// An endpoint that a link may have; empty is the provider's own.
    pub fn checked_endpoint(endpoint: &str) -> FsResult<String> {
        if endpoint.is_empty() { Ok(String::new()) } else { checked_endpoint(endpoint) }
    }

    /// A region that a link may have; empty is the usual one.
    pub fn checked_region(region: &str) -> FsResult<String> {
        let region = if region.is_empty() { REGION_DEFAULT } else { region };
        if region.len() > REGION_BYTES_MAX || !is_plain(region) {
            return Err(invalid(
                format!("region: {:?} is not a region", shown(region)),
                "give a name as us-east-1, or leave it out",
            ));
        }
        Ok(region.to_owned())
    }

    /// A name of credentials that a link may have; empty is the usual one.
    pub fn checked_profile(profile: &str) -> FsResult<String> {
        let profile = if profile.is_empty() { PROFILE_DEFAULT } else { profile };
        if profile.len() > PROFILE_BYTES_MAX || !is_plain(profile) {
            return Err(invalid(
                format!("profile: {:?} is not a name of credentials", shown(profile)),
                "use 1 to 64 letters, digits, '.', '_' or '-'; the credentials themselves are the worker's",
            ));
        }
        Ok(profile.to_owned())
    }

    /// A chunk size in MiB that a link may have; 0 is the usual one.
    pub fn checked_chunk_mib(mib: u32) -> FsResult<u32> {
        checked_chunk_mib(mib)
    }

    /// Seconds between comparisons that a link may have; 0 is the usual number.
    pub fn checked_sync_interval(seconds: u32) -> FsResult<u32> {
        match seconds {
            0 => Ok(SYNC_INTERVAL_S_DEFAULT),
            SYNC_INTERVAL_S_MIN..=SYNC_INTERVAL_S_MAX => Ok(seconds),
            _ => Err(invalid(
                format!("sync_interval_s: {seconds} is not {SYNC_INTERVAL_S_MIN} to {SYNC_INTERVAL_S_MAX}"),
                "give one minute to one week, or leave it out for an hour",
            )),
        }
    }
}

/// Letters, digits, `.`, `-` and `_`.
fn is_plain(s: &str) -> bool {
    s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

/// See [`RepositorySettings::checked_chunk_mib`].
fn checked_chunk_mib(mib: u32) -> FsResult<u32> {
    match mib {
        0 => Ok(CHUNK_MIB_DEFAULT),
        1..=CHUNK_MIB_MAX => Ok(mib),
        _ => Err(invalid(
            format!("imported_file_chunk_mib: {mib} is above {CHUNK_MIB_MAX}"),
            "give 1 to 512000 MiB, or leave it out for 1024",
        )),
    }
}

/// `http://HOST:PORT` or `https://...`, nothing behind; user names and passwords do not belong here.
fn checked_endpoint(endpoint: &str) -> FsResult<String> {
    let no = || {
        // What was given may hold a password, so it is not repeated.
        invalid(
            "endpoint: not of the form http://HOST:PORT",
            "give the address of the store without path and user name",
        )
    };
    let host = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://")).ok_or_else(no)?;
    let host = host.strip_suffix('/').unwrap_or(host);
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    if endpoint.len() > ENDPOINT_BYTES_MAX || host.is_empty() || !host.bytes().all(allowed) {
        return Err(no());
    }
    Ok(endpoint.strip_suffix('/').unwrap_or(endpoint).to_owned())
}
