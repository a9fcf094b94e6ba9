//! Values of the tables, one module per subject. Each has a version byte, a round-trip property and golden bytes.

mod admin;
mod changelog;
mod export;
mod inode;
mod layout;
mod names;
mod reply;
mod repository;
mod task;

pub use admin::{
    DestroyIntent, EndedWriterRecord, FileSystemRecord, FsState, OstRecord, SessionRecord, TruncateIntent,
    TruncateObject,
};
pub use export::{
    ConflictRecord, FurtherRecord, Given, KeyRecord, PlaceRecord, SkippedRecord, WaitRecord, WaitingRecord, Waits,
};
pub use inode::{Body, Inode};
pub use names::{Dentry, IndexEntry};
pub use reply::ReplyRecord;
pub use repository::{HsmRecord, LoadRecord, RepositoryRecord, RulesRecord, Sync};
pub use task::{
    AutoReleaseRecord, FailureRecord, ScopeRecord, TaskPhase, TaskRecord, TaskSpecRecord, TodoRecord, UnderWayRecord,
};

use sateen_types::FileType;

use super::codec::{Reader, Record, Writer};

/// A counter of the `config` table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter(pub u64);

impl Record for Counter {
    const WHAT: &'static str = "counter";
    fn write(&self, out: &mut Writer) {
        out.u64(self.0);
    }
    fn read(input: &mut Reader<'_>) -> Option<Counter> {
        input.u64().map(Counter)
    }
}

fn write_type(out: &mut Writer, t: FileType) {
    out.u8(match t {
        FileType::Regular => 1,
        FileType::Directory => 2,
        FileType::Symlink => 3,
        FileType::Fifo => 4,
        FileType::Socket => 5,
        FileType::CharDevice => 6,
        FileType::BlockDevice => 7,
    });
}

fn read_type(input: &mut Reader<'_>) -> Option<FileType> {
    Some(match input.u8()? {
        1 => FileType::Regular,
        2 => FileType::Directory,
        3 => FileType::Symlink,
        4 => FileType::Fifo,
        5 => FileType::Socket,
        6 => FileType::CharDevice,
        7 => FileType::BlockDevice,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
