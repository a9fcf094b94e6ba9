//! What changed since the last commit: a pure table beside the rows of the `pending` family.
//!
//! For each chunk it keeps the record of the last commit, so that recovery can fall back to it, and decides which
//! extents are dead:
//!
//! - a version that was never committed is dead as soon as it is replaced;
//! - the committed version is dead once a commit has made its successor durable.
//!
//! A commit takes the open epoch ([`Pending::begin`]), syncs the segments, and ends the epoch ([`Pending::end`]). A
//! chunk changed again meanwhile is in both epochs; its row keeps both records until the end, and then only the one
//! that the commit made durable.

use std::collections::HashMap;

use super::keys::ChunkKey;
use super::records::{ChunkRecord, PendingRecord, SegmentExtent};

/// Changes of chunks that are not committed.
#[derive(Default)]
pub struct Pending {
    open: HashMap<ChunkKey, Entry>,
    committing: HashMap<ChunkKey, Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    /// The chunk when the epoch began, and the object's size.
    record: PendingRecord,
    /// The current version is the same extent as `record.before` (cut by a truncate), which therefore lives on.
    shared: bool,
}

/// What follows from one change.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Consequence {
    /// A row to write.
    pub row: Option<PendingRecord>,
    /// An extent that is dead with this change.
    pub dead: Option<SegmentExtent>,
}

/// What follows from the end of a commit.
#[derive(Debug, Default)]
pub struct Settled {
    /// Rows to write or, with `None`, to remove.
    pub rows: Vec<(ChunkKey, Option<PendingRecord>)>,
    /// Extents that are dead.
    pub dead: Vec<SegmentExtent>,
}

impl Pending {
    /// Chunks that are not committed.
    pub fn chunks(&self) -> usize {
        self.open.len() + self.committing.len()
    }

    /// Whether a commit has begun and not ended.
    pub fn is_committing(&self) -> bool {
        !self.committing.is_empty()
    }

    /// Chunk `key` of an object of `object_size` bytes changes from `old` to `new`.
    pub fn change(
        &mut self,
        key: ChunkKey,
        old: Option<&ChunkRecord>,
        new: Option<&ChunkRecord>,
        object_size: u64,
    ) -> Consequence {
        let (old_extent, new_extent) = (old.map(ChunkRecord::extent), new.map(ChunkRecord::extent));
        let same = |a: Option<SegmentExtent>, b: Option<SegmentExtent>| a.is_some() && a == b;
        match self.open.get_mut(&key) {
            Some(entry) => {
                let dead = old_extent.filter(|_| !entry.shared && old_extent != new_extent);
                entry.shared = same(entry.record.before.map(|b| b.extent()), new_extent);
                Consequence { row: None, dead }
            }
            None => {
                let record = PendingRecord { before: old.copied(), between: None, object_size };
                self.open.insert(key, Entry { record, shared: same(old_extent, new_extent) });
                let first = self.committing.get(&key);
                let row = first.map_or(record, |first| PendingRecord { between: old.copied(), ..first.record });
                Consequence { row: Some(row), dead: None }
            }
        }
    }

    /// A commit begins: what changed so far is its epoch.
    pub fn begin(&mut self) {
        debug_assert!(self.committing.is_empty(), "one commit at a time");
        self.committing = std::mem::take(&mut self.open);
    }

    /// The segments are durable: the commit's epoch is over.
    pub fn end(&mut self) -> Settled {
        let mut settled = Settled::default();
        for (key, entry) in std::mem::take(&mut self.committing) {
            settled.rows.push((key, self.open.get(&key).map(|again| again.record)));
            if !entry.shared {
                settled.dead.extend(entry.record.before.map(|b| b.extent()));
            }
        }
        settled
    }
}

#[cfg(test)]
mod tests {
    use sateen_types::{Codec, ComponentId, Fid, FsId, ObjectId, StripeIndex};

    use super::super::disk::SegmentId;
    use super::super::keys::ObjectKey;
    use super::*;

    fn key() -> ChunkKey {
        let object = ObjectId { fs: FsId(1), fid: Fid::ROOT, component: ComponentId(1), stripe: StripeIndex(0) };
        ObjectKey::of(&object).chunk(0)
    }

    fn record(block: u64, visible_len: u32) -> ChunkRecord {
        ChunkRecord {
            codec: Codec::Raw,
            raw_len: 4096,
            stored_len: 4096,
            visible_len,
            segment: SegmentId(1),
            offset: block * 4096,
            generation: 0,
            raw_crc: 0,
            stored_crc: 0,
        }
    }

    #[test]
    fn intermediate_versions_die_at_once_and_the_committed_one_at_the_commit() {
        let mut p = Pending::default();
        let (a, b, c) = (record(1, 4096), record(2, 4096), record(3, 4096));
        let first = p.change(key(), Some(&a), Some(&b), 10);
        assert_eq!(first.row.expect("first change").before, Some(a));
        assert_eq!(first.dead, None);
        let second = p.change(key(), Some(&b), Some(&c), 20);
        assert_eq!(second, Consequence { row: None, dead: Some(b.extent()) });
        p.begin();
        let settled = p.end();
        assert_eq!(settled.rows, [(key(), None)]);
        assert_eq!(settled.dead, [a.extent()]);
        assert_eq!(p.chunks(), 0);
    }

    #[test]
    fn a_change_during_a_commit_falls_back_to_what_that_commit_makes_durable() {
        let mut p = Pending::default();
        let (a, b, c) = (record(1, 4096), record(2, 4096), record(3, 4096));
        p.change(key(), Some(&a), Some(&b), 10);
        p.begin();
        let both = PendingRecord { before: Some(a), between: Some(b), object_size: 10 };
        assert_eq!(p.change(key(), Some(&b), Some(&c), 20), Consequence { row: Some(both), dead: None });
        let settled = p.end();
        let row = PendingRecord { before: Some(b), between: None, object_size: 20 };
        assert_eq!(settled.rows, [(key(), Some(row))]);
        assert_eq!(settled.dead, [a.extent()]);
        p.begin();
        let settled = p.end();
        assert_eq!((settled.rows, settled.dead), (vec![(key(), None)], vec![b.extent()]));
    }

    #[test]
    fn an_extent_that_was_only_cut_lives_until_it_is_replaced_and_that_is_committed() {
        let mut p = Pending::default();
        let (a, cut, b) = (record(1, 4096), record(1, 100), record(2, 4096));
        p.change(key(), Some(&a), Some(&cut), 4096);
        p.begin();
        assert_eq!(p.change(key(), Some(&cut), Some(&b), 100).dead, None);
        assert_eq!(p.end().dead, [], "still the fallback of the open epoch");
        p.begin();
        assert_eq!(p.end().dead, [a.extent()]);

        p.change(key(), Some(&b), Some(&record(2, 7)), 4096);
        assert_eq!(p.change(key(), Some(&record(2, 7)), None, 7).dead, None, "b is the committed version");
        p.begin();
        assert_eq!(p.end().dead, [b.extent()]);
    }

    #[test]
    fn a_cut_of_an_intermediate_version_frees_it_once() {
        let mut p = Pending::default();
        let (b, cut) = (record(2, 4096), record(2, 7));
        p.change(key(), None, Some(&b), 0);
        assert_eq!(p.change(key(), Some(&b), Some(&cut), 4096).dead, None);
        assert_eq!(p.change(key(), Some(&cut), None, 7).dead, Some(b.extent()));
        p.begin();
        assert_eq!(p.end().dead, []);
    }
}
