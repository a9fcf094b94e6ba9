//! The index as a check sees it: every row as bytes, also those that do not decode, as of one moment.

use rocksdb::{DB, IteratorMode, ReadOptions, SnapshotWithThreadMode};
use sateen_types::{FsError, FsResult};

use super::super::index::{Index, error};
use super::super::keys::{CF_CHUNKS, CF_META, ChunkKey};
use super::super::records::{ChunkRecord, Counter};

/// Key and value as they are stored.
pub type RawRow = (Box<[u8]>, Box<[u8]>);

/// A snapshot of an index.
pub struct View<'a> {
    index: &'a Index,
    snapshot: SnapshotWithThreadMode<'a, DB>,
}

impl<'a> View<'a> {
    /// `index` as it is now.
    pub fn of(index: &'a Index) -> View<'a> {
        View { index, snapshot: index.db.snapshot() }
    }

    /// Every row of a family in key order. An error is the last item: what follows it is not known.
    pub fn rows(&self, family: &'static str) -> impl Iterator<Item = FsResult<RawRow>> {
        let cf = self.index.cf(family);
        let mut options = ReadOptions::default();
        // A check passes over everything once; it must not push out what clients need.
        options.fill_cache(false);
        let rows = self.snapshot.iterator_cf_opt(&cf, options, IteratorMode::Start);
        rows.map(move |row| row.map_err(|e| error(&format!("read the rows of {family}"), &e)))
    }

    /// One chunk.
    pub fn chunk(&self, key: ChunkKey) -> FsResult<Option<ChunkRecord>> {
        let found = self.snapshot.get_cf(&self.index.cf(CF_CHUNKS), key.to_bytes());
        let found = found.map_err(|e: rocksdb::Error| error("read a chunk", &e))?;
        found.map(|bytes| ChunkRecord::decode(&bytes)).transpose()
    }

    /// A counter of the store as a whole; the inner error is a value that does not decode.
    pub fn counter(&self, key: &[u8]) -> FsResult<Option<Result<i64, FsError>>> {
        let found = self.snapshot.get_cf(&self.index.cf(CF_META), key);
        let found = found.map_err(|e: rocksdb::Error| error("read a counter", &e))?;
        Ok(found.map(|bytes| Counter::decode(&bytes).map(|c| c.0)))
    }
}
