//! What changed since the last commit, as the journal will say it: the newest state of each chunk and object.

use std::collections::BTreeMap;

use super::disk::SegmentId;
use super::journal::JournalRecord;
use super::keys::{ChunkKey, ObjectKey};
use super::records::{ChunkRecord, ObjectRecord};

/// Newest states, one per key, so that a commit writes each once.
#[derive(Default)]
pub struct Touched {
    chunks: BTreeMap<ChunkKey, Option<ChunkRecord>>,
    objects: BTreeMap<ObjectKey, JournalRecord>,
    complete: bool,
}

impl Touched {
    /// A chunk is stored as `record` says, or is a hole.
    pub fn chunk(&mut self, key: ChunkKey, record: Option<ChunkRecord>) {
        self.chunks.insert(key, record);
    }

    /// An object is there.
    pub fn object(&mut self, key: ObjectKey, record: ObjectRecord) {
        self.objects.insert(key, JournalRecord::Object(key, record));
    }

    /// An object is gone; no journal before `born` knows it.
    pub fn gone(&mut self, key: ObjectKey, born: SegmentId) {
        self.objects.insert(key, JournalRecord::Gone(key, born));
    }

    /// Where the journal of an object begins that is gone since the last commit.
    pub fn gone_since(&self, key: ObjectKey) -> Option<SegmentId> {
        match self.objects.get(&key) {
            Some(JournalRecord::Gone(_, born)) => Some(*born),
            _ => None,
        }
    }

    /// `record` is still true, and has to be written again, unless something newer will be.
    pub fn again(&mut self, record: JournalRecord) {
        match record {
            JournalRecord::Chunk(key, chunk) => {
                self.chunks.entry(key).or_insert(chunk);
            }
            JournalRecord::Object(key, _) | JournalRecord::Gone(key, _) => {
                self.objects.entry(key).or_insert(record);
            }
            JournalRecord::Complete => self.complete = true,
        }
    }

    /// How many keys have a state.
    pub fn keys(&self) -> usize {
        self.chunks.len() + self.objects.len()
    }

    /// All of it.
    pub fn into_records(self) -> impl Iterator<Item = JournalRecord> {
        let chunks = self.chunks.into_iter().map(|(key, record)| JournalRecord::Chunk(key, record));
        // Objects first: whoever replays them knows the object of each chunk.
        self.objects.into_values().chain(chunks).chain(self.complete.then_some(JournalRecord::Complete))
    }
}
