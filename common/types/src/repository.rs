//! Data repositories: links between directories and prefixes of object stores, what is known of a file's object, and
//! the work that workers do. The protocol is `proto/sateen/mds/v1/repository.proto`, the rules are in
//! `docs/decisions/0016-released-files-are-loaded-range-by-range.md`.

mod export;
mod filled;
mod hsm;
mod key;
mod ranges;
mod remote;
mod settings;
mod task;
#[cfg(test)]
mod tests;
mod work;

pub use export::{
    Conflict, ConflictPolicy, CopySource, DeleteOutcome, DeleteResult, EventsDone, EventsPage, Export, ExportOutcome,
    ExportResult, ExportStatus, Failing, Found, ImportDone, LookOutcome,
};
pub use filled::Filled;
pub use hsm::{HsmAction, HsmFlags, HsmOperation, HsmState};
pub use key::{ObjectPath, skip_code};
pub use ranges::{KeyRange, take_off};
pub use remote::Remote;
pub use settings::{
    EventSource, LinkPath, RepositoryChange, RepositoryEvents, RepositorySettings, RepositoryUrl, Scheme,
};
pub use task::{AutoRelease, FILE_FAILED, Task, TaskCounts, TaskId, TaskKind, TaskSpec, TaskState, csv_line};
pub use work::{Assignment, Fetch, FetchOutcome, FetchResult, ImportPage, ImportedObject, Outcome, Work};

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::attr::Timestamp;
use crate::ids::Fid;

/// Number of a link, never used twice in a file system. Printed `dra-` and 17 hexadecimal digits, as FSx does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RepositoryId(pub u64);

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dra-{:017x}", self.0)
    }
}

impl fmt::Debug for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not the number of a link.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a repository (expected dra- and 17 hexadecimal digits)")]
pub struct BadRepositoryId(pub String);

impl FromStr for RepositoryId {
    type Err = BadRepositoryId;
    fn from_str(s: &str) -> Result<RepositoryId, BadRepositoryId> {
        let bad = || BadRepositoryId(s.chars().take(64).collect());
        let digits = s.strip_prefix("dra-").ok_or_else(bad)?;
        if digits.len() != 17 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        u64::from_str_radix(digits, 16).map(RepositoryId).map_err(|_| bad())
    }
}

/// What a link is doing.
///
/// ```text
/// Creating -> Available <-> Misconfigured     any -> Deleting -> (gone)
///       \------------------^                  any -> Failed -> Updating
///             Available, Misconfigured -> Updating -> Available, Misconfigured
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RepositoryState {
    /// No worker has looked at the bucket yet.
    Creating,
    /// In use.
    Available,
    /// The bucket cannot be read, or not be written if the link exports; it is looked at again every minute.
    Misconfigured,
    /// Changed; no worker has looked at the bucket since.
    Updating,
    /// Being ended.
    Deleting,
    /// Could not be made or ended.
    Failed,
}

impl RepositoryState {
    /// Whether it is not known yet whether the bucket can be used as the link says.
    pub fn is_undecided(self) -> bool {
        matches!(self, RepositoryState::Creating | RepositoryState::Updating)
    }

    /// Every state.
    pub const ALL: [RepositoryState; 6] = [
        RepositoryState::Creating,
        RepositoryState::Available,
        RepositoryState::Misconfigured,
        RepositoryState::Updating,
        RepositoryState::Deleting,
        RepositoryState::Failed,
    ];
}

impl fmt::Display for RepositoryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RepositoryState::Creating => "CREATING",
            RepositoryState::Available => "AVAILABLE",
            RepositoryState::Misconfigured => "MISCONFIGURED",
            RepositoryState::Updating => "UPDATING",
            RepositoryState::Deleting => "DELETING",
            RepositoryState::Failed => "FAILED",
        })
    }
}

/// How far an import is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImportState {
    /// Never asked for.
    #[default]
    None,
    /// Waits for a worker.
    Queued,
    /// A worker lists the bucket.
    Running,
    /// Everything was looked at.
    Done,
    /// It ended early; what was imported stays.
    Failed,
}

impl fmt::Display for ImportState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ImportState::None => "NONE",
            ImportState::Queued => "QUEUED",
            ImportState::Running => "RUNNING",
            ImportState::Done => "DONE",
            ImportState::Failed => "FAILED",
        })
    }
}

/// An object that was not imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its key within the prefix.
    pub key: Vec<u8>,
    /// FSx's log code (see [`skip_code`]).
    pub code: String,
    /// Why, at most 256 bytes.
    pub message: String,
}

/// Counts of an import that runs, or of the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportStatus {
    /// How far it is.
    pub state: ImportState,
    /// Why it failed.
    pub message: String,
    /// Objects looked at.
    pub objects: u64,
    /// Names made.
    pub created: u64,
    /// Files whose object had changed.
    pub changed: u64,
    /// Objects skipped.
    pub skipped: u64,
    /// Sizes of those created and changed, bytes.
    pub bytes: u64,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// The first that were skipped, at most [`crate::limits::IMPORT_FIRST_SKIPPED_MAX`].
    pub first_skipped: Vec<Skipped>,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Its number.
    pub id: RepositoryId,
    /// What was chosen.
    pub settings: RepositorySettings,
    /// What it is doing.
    pub state: RepositoryState,
    /// Why it is misconfigured or failed; empty otherwise.
    pub message: String,
    /// When it was made.
    pub created: Timestamp,
    /// The directory.
    pub root: Fid,
    /// Its import.
    pub import: ImportStatus,
    /// Its export.
    pub export: ExportStatus,
    /// End of the last complete comparison of bucket and directory.
    pub synced: Option<Timestamp>,
    /// Keys of which both sides have changed.
    pub conflicts: u64,
    /// When whoever watches the bucket was last heard.
    pub watched: Option<Timestamp>,
    /// Why that does not work; empty if it does.
    pub watch_message: String,
}
