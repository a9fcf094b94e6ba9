//! What workers are given to do, and what they answer.

use super::{
    DeleteOutcome, Export, ExportOutcome, KeyRange, LookOutcome, RepositoryId, RepositorySettings, Skipped, TaskId,
};
use crate::attr::Timestamp;
use crate::ids::Fid;
use crate::layout::{Extent, Layout};

/// A piece of work, given to one session of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Never used twice.
    pub number: u64,
    /// Of which link.
    pub repository: RepositoryId,
    /// Its settings.
    pub settings: RepositorySettings,
    /// What to do.
    pub work: Work,
    /// A stamp of the MDS: now.
    pub stamp: u64,
}

/// See [`Assignment`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Find out whether the bucket can be listed and read.
    Check,
    /// List the prefix.
    Import {
        /// What of it: ranges of keys within the prefix that have none in common, at most [`crate::limits::IMPORT_RANGES_MAX`]. None, if the
        /// MDS knows no ranges: everything, in order.
        left: Vec<KeyRange>,
        /// Names go whose objects are gone.
        sync: bool,
    },
    /// Fetch a range of a file.
    Fetch(Fetch),
    /// Put what is here under a key.
    Export(Box<Export>),
    /// Delete an object, if it is the one that is known.
    Delete {
        /// Within the prefix.
        key: Vec<u8>,
        /// Of the object that is known; empty: none is.
        etag: String,
        /// Numbers of assignments of which nobody heard; an object with one of them is as good as the known one.
        earlier: Vec<u64>,
    },
    /// Find out what is under a key: an assignment may have stored it that nobody reported.
    Look {
        /// Within the prefix.
        key: Vec<u8>,
    },
    /// Tell of changes of the bucket until that is not wanted any more.
    Watch,
    /// Write the report of a task, which never changes.
    Report {
        /// Whose. An object that names it is this report.
        task: TaskId,
        /// Within the prefix.
        key: Vec<u8>,
    },
}

/// See [`Work::Fetch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The file.
    pub fid: Fid,
    /// Of its object, within the prefix.
    pub key: Vec<u8>,
    /// For If-Match.
    pub etag: String,
    /// Bytes: whole chunks, or up to the end of the object.
    pub range: Extent,
    /// With OSTs for all of `range`.
    pub layout: Layout,
    /// Of the object, bytes.
    pub size: u64,
    /// Somebody waits.
    pub urgent: bool,
}

/// What came of an assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Of [`Work::Check`]: empty if the bucket can be read, else why not.
    Check {
        /// At most [`crate::limits::REPOSITORY_MESSAGE_BYTES_MAX`].
        message: String,
    },
    /// Of [`Work::Import`]: why it cannot go on.
    Import {
        /// At most [`crate::limits::REPOSITORY_MESSAGE_BYTES_MAX`].
        message: String,
    },
    /// Of [`Work::Fetch`].
    Fetch(FetchOutcome),
    /// Of [`Work::Export`].
    Export(ExportOutcome),
    /// Of [`Work::Delete`].
    Delete(DeleteOutcome),
    /// Of [`Work::Look`].
    Look(LookOutcome),
    /// Of [`Work::Watch`]: why the bucket cannot be watched.
    Watch {
        /// At most [`crate::limits::REPOSITORY_MESSAGE_BYTES_MAX`].
        message: String,
    },
    /// Of [`Work::Report`]: empty if it is there, else why not.
    Report {
        /// At most [`crate::limits::REPOSITORY_MESSAGE_BYTES_MAX`].
        message: String,
    },
}

/// See [`Outcome::Fetch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchOutcome {
    /// How it went.
    pub result: FetchResult,
    /// Why not, at most [`crate::limits::REPOSITORY_MESSAGE_BYTES_MAX`].
    pub message: String,
    /// Change of the disk space in bytes.
    pub allocated_delta: i64,
}

/// How a fetch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchResult {
    /// The range is on the OSTs and committed.
    Loaded,
    /// Another object is under the key now.
    Changed,
    /// No object is under the key.
    Gone,
    /// It could not be fetched or stored.
    Failed,
    /// An OST has no space for it.
    NoSpace,
}

/// An object as a listing and its metadata tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedObject {
    /// Within the prefix, 1 to 1024 bytes; a slash at the end is a directory's.
    pub key: Vec<u8>,
    /// Bytes.
    pub size: u64,
    /// Opaque, at most 256 bytes.
    pub etag: String,
    /// When it was written.
    pub modified: Timestamp,
    /// From its metadata; as it came, bits of the kind of file included.
    pub mode: Option<u32>,
    /// From its metadata.
    pub uid: Option<u32>,
    /// From its metadata.
    pub gid: Option<u32>,
    /// From its metadata.
    pub atime: Option<Timestamp>,
    /// From its metadata.
    pub mtime: Option<Timestamp>,
    /// A symbolic link to this.
    pub symlink: Option<Vec<u8>>,
}

impl ImportedObject {
    /// As a listing alone tells.
    pub fn listed(key: Vec<u8>, size: u64, etag: String, modified: Timestamp) -> ImportedObject {
        let (mode, uid, gid, atime, mtime, symlink) = (None, None, None, None, None, None);
        ImportedObject { key, size, etag, modified, mode, uid, gid, atime, mtime, symlink }
    }
}

/// A page of an import: everything that is in a range of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportPage {
    /// The range begins behind this key.
    pub from: Vec<u8>,
    /// Rising keys, at most [`crate::limits::IMPORT_PAGE_OBJECTS_MAX`].
    pub objects: Vec<ImportedObject>,
    /// And ends with this one: mostly the last key of the page, skipped or not.
    pub after: Vec<u8>,
    /// What the worker skipped.
    pub skipped: Vec<Skipped>,
    /// Rising keys of objects that the MDS knows as they were listed: nobody looked at them.
    pub known: Vec<Vec<u8>>,
    /// Nothing follows: the range has no end.
    pub last: bool,
    /// A stamp of the MDS from before this page was listed.
    pub stamp: u64,
}

impl ImportPage {
    /// What it tells everything of.
    pub fn range(&self) -> KeyRange {
        let keys = self.objects.last().map(|o| &o.key).into_iter().chain(self.known.last());
        let end = keys.fold(&self.after, |end, key| end.max(key));
        KeyRange { after: self.from.clone(), end: (!self.last).then(|| end.clone()) }
    }
}
