//! What was changed here and goes to the repository, what was changed there and is told of, and what both sides changed. The
//! rules are in `docs/decisions/0018-what-both-sides-change.md`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ImportedObject, RepositoryId, Skipped};
use crate::attr::Timestamp;
use crate::ids::Fid;
use crate::status::{FsCode, FsError, FsResult};

/// What becomes of a file that was changed here while its object was changed by somebody else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConflictPolicy {
    /// Both stay as they are until somebody decides.
    #[default]
    Manual,
    /// The file takes the object.
    RepositoryWins,
    /// The object is replaced.
    FilesystemWins,
    /// The file gets another name, the object the old one.
    KeepBoth,
}

impl ConflictPolicy {
    /// Every policy.
    pub const ALL: [ConflictPolicy; 4] = [
        ConflictPolicy::Manual,
        ConflictPolicy::RepositoryWins,
        ConflictPolicy::FilesystemWins,
        ConflictPolicy::KeepBoth,
    ];

    /// As people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            ConflictPolicy::Manual => "manual",
            ConflictPolicy::RepositoryWins => "repository-wins",
            ConflictPolicy::FilesystemWins => "filesystem-wins",
            ConflictPolicy::KeepBoth => "keep-both",
        }
    }
}

impl fmt::Display for ConflictPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ConflictPolicy {
    type Err = FsError;
    fn from_str(s: &str) -> FsResult<ConflictPolicy> {
        ConflictPolicy::ALL.into_iter().find(|policy| policy.as_str() == s).ok_or_else(|| {
            let shown: String = s.chars().take(40).collect();
            FsError::new(FsCode::Invalid, format!("{shown:?} is no policy for conflicts"))
                .with_hint("give manual, repository-wins, filesystem-wins or keep-both")
        })
    }
}

/// An object as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Bytes.
    pub size: u64,
    /// Opaque, at most 256 bytes.
    pub etag: String,
    /// When it was written.
    pub modified: Timestamp,
}

/// A key of which both sides have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Within the prefix.
    pub key: Vec<u8>,
    /// The file here; `None`: its name is gone.
    pub fid: Option<Fid>,
    /// Since when.
    pub since: Timestamp,
    /// The object; `None`: it is gone.
    pub object: Option<Found>,
    /// ETag of when both were last the same; empty: never.
    pub known_etag: String,
}

/// How far the way to the repository is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportStatus {
    /// Files and keys that wait or are under way.
    pub queued: u64,
    /// Since when the oldest of them waits.
    pub oldest: Option<Timestamp>,
    /// Objects stored since the MDS started.
    pub stored: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects deleted since the MDS started.
    pub deleted: u64,
    /// Attempts that failed since then, and are made again.
    pub failed: u64,
    /// Files that cannot be exported as they are, since the last export of the whole link was asked for.
    pub skipped: u64,
    /// The first of them, at most [`crate::limits::IMPORT_FIRST_SKIPPED_MAX`].
    pub first_skipped: Vec<Skipped>,
    /// Why the last attempt failed; empty after one that did not.
    pub message: String,
    /// What waits and has failed since the MDS started, at most [`crate::limits::EXPORT_FAILING_MAX`]: what has failed first.
    pub failing: Vec<Failing>,
}

/// Something that waits for export and could not be exported so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// Within the prefix, or what there is to name it by.
    pub key: Vec<u8>,
    /// How often it was tried in vain.
    pub attempts: u32,
    /// Why, the last time; at most [`crate::limits::SKIPPED_MESSAGE_BYTES_MAX`].
    pub message: String,
}

/// Put what is here under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The file.
    pub fid: Fid,
    /// Within the prefix; of a directory with the slash at its end.
    pub key: Vec<u8>,
    /// `st_mode`, with the kind: regular file, directory or symbolic link.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last read.
    pub atime: Timestamp,
    /// Last write.
    pub mtime: Timestamp,
    /// Bytes.
    pub size: u64,
    /// Target of a symbolic link.
    pub symlink: Option<Vec<u8>>,
    /// What is known to be under the key; empty: nothing.
    pub known_etag: String,
    /// The object that has the data; `None`: it is read here.
    pub copy: Option<CopySource>,
    /// Numbers of earlier assignments of which nobody heard; an object with one of them is as good as the known one.
    pub earlier: Vec<u64>,
    /// An object that somebody has decided to replace; empty: none.
    pub overrule_etag: String,
    /// The known object was to be deleted: perhaps nothing is under the key any more.
    pub may_be_gone: bool,
}

/// See [`Export::copy`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopySource {
    /// Within the prefix.
    pub key: Vec<u8>,
    /// Of the source, for `If-Match`.
    pub etag: String,
    /// Bytes.
    pub size: u64,
}

/// What came of an [`Export`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportOutcome {
    /// How it went.
    pub result: ExportResult,
    /// Why not, at most [`crate::limits::REPOSITORY_MESSAGE_BYTES_MAX`].
    pub message: String,
    /// FSx's log code, of what cannot be exported as it is.
    pub code: String,
    /// What is under the key now.
    pub object: Option<Found>,
}

/// How an export went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportResult {
    /// The object is in place.
    Stored,
    /// Something else is under the key, or nothing where something was known.
    Conflict,
    /// The file changed under way; nothing was put in place.
    Changed,
    /// The source of the copy is not there any more: the data must be read here.
    SourceGone,
    /// To be tried again.
    Failed,
    /// Cannot be exported as it is.
    Skipped,
}

/// What is under a key, and who put it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookOutcome {
    /// The object; `None`: there is none, or it could not be looked at.
    pub object: Option<Found>,
    /// Number of the assignment that stored it, if it says so.
    pub number: Option<u64>,
    /// Why it could not be looked at, at most [`crate::limits::REPOSITORY_MESSAGE_BYTES_MAX`]; empty if it was.
    pub message: String,
}

/// What came of a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteOutcome {
    /// How it went.
    pub result: DeleteResult,
    /// Why not, at most [`crate::limits::REPOSITORY_MESSAGE_BYTES_MAX`].
    pub message: String,
    /// Another object that is under the key.
    pub object: Option<Found>,
}

/// How a deletion went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteResult {
    /// Nothing is under the key.
    Deleted,
    /// Another object is.
    Conflict,
    /// To be tried again.
    Failed,
}

/// What is under keys now, as a worker has seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsPage {
    /// Of which link.
    pub repository: RepositoryId,
    /// Number of the Watch; 0: from a webhook.
    pub number: u64,
    /// A stamp of the MDS from before the first was looked at.
    pub stamp: u64,
    /// What is there, each key once; with `gone` at most [`crate::limits::EVENTS_MAX`].
    pub objects: Vec<ImportedObject>,
    /// Keys under which nothing is.
    pub gone: Vec<Vec<u8>>,
    /// Why the source of events does not work; empty if it does.
    pub message: String,
}

/// What the MDS made of an [`EventsPage`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventsDone {
    /// For the next page.
    pub stamp: u64,
    /// Keys that are busy: to be looked at again.
    pub later: Vec<Vec<u8>>,
    /// Names made.
    pub created: u64,
    /// Files whose object had changed.
    pub changed: u64,
    /// Names that went.
    pub deleted: u64,
}

/// What the MDS made of a page of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportDone {
    /// How far the import is.
    pub status: super::ImportStatus,
    /// For the next page that is listed.
    pub stamp: u64,
    /// Nothing was changed, the page is too old: it is to be listed again.
    pub again: bool,
}
