//! The store's index: a RocksDB with the families of [`keys`](super::keys). The only file that knows RocksDB.
//!
//! Every change is one [`Batch`] over all families, written to the log before [`Index::write`] returns: a crash of the
//! process loses none of it, a power cut at most the batches since the last [`Index::sync`], and never part of one
//! (families are flushed together).

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode,
    Direction, IteratorMode, LogLevel, MergeOperands, Options, ReadOptions, ReadTier, WriteBatch, WriteBufferManager,
    WriteOptions,
};
use sateen_runtime::rocksdb_log;
use sateen_types::{FsCode, FsError, FsResult};

use super::disk::SegmentId;
use super::keys::{
    CF_CHUNKS, CF_FREES, CF_META, CF_OBJECTS, CF_PENDING, CF_SEGMENTS, ChunkKey, META_COMMITTED, META_FORMAT,
    META_JOURNAL, META_NEXT_SEGMENT, META_OBJECTS, META_SETTLED_NOTED, META_SETTLED_OFFSET, META_SETTLED_SEGMENT,
    ObjectKey, free_from_key, free_key, segment_from_key, segment_key,
};
use super::mark::{self, Mark};
use super::records::{ChunkRecord, Counter, ObjectRecord, PendingRecord, SegmentExtent, SegmentPlace};

/// Version of the families and their records. Version 1 had no settled place, versions 1 and 2 no journal; both are
/// taken over.
const FORMAT: i64 = 3;
const FORMAT_FIRST: i64 = 1;
/// Memory of one family before it is flushed to a file, in bytes.
const WRITE_BUFFER_BYTES: usize = 16 << 20;
/// Step in which that memory is taken: small, because most families of most stores hold little.
const ARENA_BLOCK_BYTES: usize = 64 << 10;
/// Log size that forces a flush: bounds the time a restart spends on replay.
const WAL_BYTES_MAX: u64 = 128 << 20;
/// Index files kept open, per store.
const OPEN_FILES_MAX: i32 = 256;
/// Bits per key of the filter that answers "no such chunk" without a disk access.
const BLOOM_BITS: f64 = 10.0;

/// Memory of the indexes of all stores of a process: blocks that were read, and changes that are not flushed yet.
#[derive(Clone)]
pub struct IndexCache {
    blocks: Cache,
    buffers: WriteBufferManager,
}

impl IndexCache {
    /// `bytes` for both together; changes are flushed when they fill half of it.
    pub fn new(bytes: usize) -> IndexCache {
        let blocks = Cache::new_lru_cache(bytes);
        let buffers = WriteBufferManager::new_write_buffer_manager_with_cache(bytes / 2, false, blocks.clone());
        IndexCache { blocks, buffers }
    }
}

/// The index of one store.
pub struct Index {
    /// For [`fsck`](super::fsck), which looks at rows that do not decode.
    pub(super) db: DB,
    /// Not there if the index was opened to look at it only.
    mark: Option<Mark>,
}

impl Index {
    /// Opens or creates the index in `dir`.
    pub fn open(dir: &Path, cache: &IndexCache) -> FsResult<Index> {
        let mut options = db_options(cache);
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        Index::cut_log(dir)?;
        let db = DB::open_cf_descriptors(&options, dir, families(cache)).map_err(|e| open_error(dir, &e))?;
        mark::check(dir, db.latest_sequence_number())?;
        let index = Index { db, mark: Some(Mark::open(dir)?) };
        match index.counter(CF_META, META_FORMAT)? {
            Some(FORMAT) => {}
            before @ (None | Some(FORMAT_FIRST..FORMAT)) => {
                let mut batch = index.batch();
                batch.set_meta(META_FORMAT, FORMAT);
                if before.is_none() {
                    // All that will be found was written by this format.
                    batch.set_settled(SegmentPlace { segment: SegmentId(0), offset: 0 }, 0);
                    batch.set_journal(true);
                }
                index.write(batch)?;
                index.sync()?;
            }
            Some(n) => {
                return Err(FsError::new(
                    FsCode::NotSupported,
                    format!("the index in {} has format {n}, this build reads {FORMAT}", dir.display()),
                )
                .with_hint("run the release that wrote it, or a newer one"));
            }
        }
        Ok(index)
    }

    /// Cuts what a power cut left at the end of the log of the index in `dir`, which must not be open; returns how many
    /// bytes that took. An index that lost committed changes is refused before anything of it is changed.
    pub fn cut_log(dir: &Path) -> FsResult<u64> {
        let cut = rocksdb_log::cut_garbage(dir, mark::known(dir)?)
            .map_err(|e| if e.hint.is_none() { e.with_hint(mark::HINT) } else { e })?;
        if cut > 0 {
            tracing::warn!(dir = %dir.display(), bytes = cut, "cut what a power cut left at the end of the index's log");
        }
        Ok(cut)
    }

    /// Opens an index that must exist, as it is: no row is added, whatever it lacks. Read-only, nothing on disk changes.
    pub fn open_existing(dir: &Path, cache: &IndexCache, read_only: bool) -> FsResult<Index> {
        // RocksDB would never return.
        rocksdb_log::check_readable(dir)?;
        let options = db_options(cache);
        let db = if read_only {
            DB::open_cf_descriptors_read_only(&options, dir, families(cache), false)
        } else {
            DB::open_cf_descriptors(&options, dir, families(cache))
        };
        let db = db.map_err(|e| open_error(dir, &e))?;
        mark::check(dir, db.latest_sequence_number())?;
        Ok(Index { db, mark: if read_only { None } else { Some(Mark::open(dir)?) } })
    }

    pub(super) fn cf(&self, name: &str) -> Arc<BoundColumnFamily<'_>> {
        self.db.cf_handle(name).expect("every family was opened with the index")
    }

    /// The record of a chunk; `None` for a hole.
    pub fn chunk(&self, key: ChunkKey) -> FsResult<Option<ChunkRecord>> {
        let found =
            self.db.get_pinned_cf(&self.cf(CF_CHUNKS), key.to_bytes()).map_err(|e| error("read a chunk", &e))?;
        found.map(|bytes| ChunkRecord::decode(&bytes)).transpose()
    }

    /// The record of an object.
    pub fn object(&self, key: ObjectKey) -> FsResult<Option<ObjectRecord>> {
        let found =
            self.db.get_pinned_cf(&self.cf(CF_OBJECTS), key.as_bytes()).map_err(|e| error("read an object", &e))?;
        found.map(|bytes| ObjectRecord::decode(&bytes)).transpose()
    }

    /// The record of an object, if that takes no disk access; `Err` with `None` if it would.
    pub fn object_in_memory(&self, key: ObjectKey) -> Result<Option<ObjectRecord>, Option<FsError>> {
        let found = self.db.get_pinned_cf_opt(&self.cf(CF_OBJECTS), key.as_bytes(), &in_memory());
        let found = found.map_err(|e| disk_needed("read an object", &e))?;
        found.map(|bytes| ObjectRecord::decode(&bytes)).transpose().map_err(Some)
    }

    /// The chunks of `object` with numbers in `[from, to)`, in order and as of one moment.
    pub fn chunk_range(&self, object: ObjectKey, from: u64, to: u64) -> FsResult<Vec<(u64, ChunkRecord)>> {
        let mut records = Vec::new();
        self.chunks(object, from, to, |number, record| {
            records.push((number, record));
            ControlFlow::<()>::Continue(())
        })?;
        Ok(records)
    }

    /// [`Index::chunk_range`] if that takes no disk access; `Err` with `None` if it would.
    pub fn chunk_range_in_memory(
        &self,
        object: ObjectKey,
        from: u64,
        to: u64,
    ) -> Result<Vec<(u64, ChunkRecord)>, Option<FsError>> {
        if to == from + 1 {
            // Cheaper than an iterator.
            let key = object.chunk(from).to_bytes();
            let found = self.db.get_pinned_cf_opt(&self.cf(CF_CHUNKS), key, &in_memory());
            let found = found.map_err(|e| disk_needed("read a chunk", &e))?;
            let record = found.map(|bytes| ChunkRecord::decode(&bytes)).transpose().map_err(Some)?;
            return Ok(record.map(|record| (from, record)).into_iter().collect());
        }
        let mut options = in_memory();
        options.set_iterate_upper_bound(object.chunk(to).to_bytes().to_vec());
        let start = object.chunk(from).to_bytes();
        let mode = IteratorMode::From(&start, Direction::Forward);
        let rows = self.db.iterator_cf_opt(&self.cf(CF_CHUNKS), options, mode).map(|row| {
            let (key, value) = row.map_err(|e| disk_needed("read chunks", &e))?;
            let number = ChunkKey::from_bytes(&key).map_err(Some)?.number;
            Ok((number, ChunkRecord::decode(&value).map_err(Some)?))
        });
        rows.collect()
    }

    /// Visits the chunks of `object` with numbers in `[from, to)`, in order and as of one moment.
    pub fn chunks<B>(
        &self,
        object: ObjectKey,
        from: u64,
        to: u64,
        mut visit: impl FnMut(u64, ChunkRecord) -> ControlFlow<B>,
    ) -> FsResult<Option<B>> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(object.chunk(to).to_bytes().to_vec());
        let start = object.chunk(from).to_bytes();
        let mode = IteratorMode::From(&start, Direction::Forward);
        for row in self.db.iterator_cf_opt(&self.cf(CF_CHUNKS), options, mode) {
            let (key, value) = row.map_err(|e| error("read chunks", &e))?;
            if let ControlFlow::Break(b) = visit(ChunkKey::from_bytes(&key)?.number, ChunkRecord::decode(&value)?) {
                return Ok(Some(b));
            }
        }
        Ok(None)
    }

    /// At most `max` chunks of all objects, from `from` on, in order.
    pub fn chunks_from(&self, from: Option<ChunkKey>, max: usize) -> FsResult<Vec<(ChunkKey, ChunkRecord)>> {
        let start = from.map(ChunkKey::to_bytes);
        let mode = start.as_ref().map_or(IteratorMode::Start, |key| IteratorMode::From(key, Direction::Forward));
        let rows = self.db.iterator_cf(&self.cf(CF_CHUNKS), mode).take(max).map(|row| {
            let (key, value) = row.map_err(|e| error("read chunks", &e))?;
            Ok((ChunkKey::from_bytes(&key)?, ChunkRecord::decode(&value)?))
        });
        rows.collect()
    }

    /// At most `max` objects, from behind `after` on, in order.
    pub fn objects_after(&self, after: Option<ObjectKey>, max: usize) -> FsResult<Vec<(ObjectKey, ObjectRecord)>> {
        let mode =
            after.as_ref().map_or(IteratorMode::Start, |key| IteratorMode::From(key.as_bytes(), Direction::Forward));
        let rows = self.db.iterator_cf(&self.cf(CF_OBJECTS), mode).map(|row| {
            let (key, value) = row.map_err(|e| error("read objects", &e))?;
            let key = ObjectKey::from_bytes(&key)
                .ok_or_else(|| FsError::new(FsCode::Corrupt, "a key of the objects has a wrong length"))?;
            Ok((key, ObjectRecord::decode(&value)?))
        });
        rows.filter(|row| !matches!(row, Ok((key, _)) if Some(*key) == after)).take(max).collect()
    }

    /// At most `max` keys of objects, from `from` on, in order, whatever is stored under them.
    pub fn object_keys(&self, from: Option<ObjectKey>, max: usize) -> FsResult<Vec<ObjectKey>> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let from = from.as_ref().map(ObjectKey::as_bytes);
        let mode = from.map_or(IteratorMode::Start, |key| IteratorMode::From(key, Direction::Forward));
        let rows = self.db.iterator_cf_opt(&self.cf(CF_OBJECTS), options, mode);
        let keys =
            rows.map(|row| row.map(|(key, _)| ObjectKey::from_bytes(&key)).map_err(|e| error("list objects", &e)));
        keys.filter_map(Result::transpose).take(max).collect()
    }

    /// The number of the first stored chunk of `object`.
    pub fn first_chunk(&self, object: ObjectKey) -> FsResult<Option<u64>> {
        self.first_chunk_with(object, ReadOptions::default()).map_err(|e| error("read chunks", &e))?.transpose()
    }

    /// [`Index::first_chunk`] if that takes no disk access; `Err` with `None` if it would.
    pub fn first_chunk_in_memory(&self, object: ObjectKey) -> Result<Option<u64>, Option<FsError>> {
        let found = self.first_chunk_with(object, in_memory()).map_err(|e| disk_needed("read chunks", &e))?;
        found.transpose().map_err(Some)
    }

    fn first_chunk_with(
        &self,
        object: ObjectKey,
        mut options: ReadOptions,
    ) -> Result<Option<FsResult<u64>>, rocksdb::Error> {
        options.set_iterate_upper_bound(object.chunk(u64::MAX).to_bytes().to_vec());
        let start = object.chunk(0).to_bytes();
        let mode = IteratorMode::From(&start, Direction::Forward);
        let first = self.db.iterator_cf_opt(&self.cf(CF_CHUNKS), options, mode).next().transpose()?;
        Ok(first.map(|(key, _)| ChunkKey::from_bytes(&key).map(|key| key.number)))
    }

    /// The last stored chunk of `object` with a number of at most `upto`.
    pub fn last_chunk(&self, object: ObjectKey, upto: u64) -> FsResult<Option<(u64, ChunkRecord)>> {
        let start = object.chunk(upto).to_bytes();
        let mode = IteratorMode::From(&start, Direction::Reverse);
        let Some(row) = self.db.iterator_cf(&self.cf(CF_CHUNKS), mode).next() else { return Ok(None) };
        let (key, value) = row.map_err(|e| error("read chunks", &e))?;
        let key = ChunkKey::from_bytes(&key)?;
        if key.object == object { Ok(Some((key.number, ChunkRecord::decode(&value)?))) } else { Ok(None) }
    }

    /// Every row of `pending`, in key order. Bounded by the commit that is forced when there are too many.
    pub fn pending(&self) -> FsResult<Vec<(ChunkKey, PendingRecord)>> {
        self.rows(CF_PENDING, |key, value| Ok((ChunkKey::from_bytes(key)?, PendingRecord::decode(value)?)))
    }

    /// Live bytes of every segment that has a row.
    pub fn segments(&self) -> FsResult<Vec<(SegmentId, i64)>> {
        self.rows(CF_SEGMENTS, |key, value| Ok((segment_from_key(key)?, Counter::decode(value)?.0)))
    }

    /// Extents that still have to be punched.
    pub fn frees(&self) -> FsResult<Vec<SegmentExtent>> {
        self.rows(CF_FREES, |key, value| {
            let (segment, offset) = free_from_key(key)?;
            Ok(SegmentExtent { segment, offset, len: Counter::decode(value)?.0.unsigned_abs() })
        })
    }

    /// Visits the rows of `frees` as they are now, in order of place, until `visit` says `false`.
    pub fn visit_frees(&self, mut visit: impl FnMut(SegmentExtent) -> bool) -> FsResult<()> {
        for row in self.db.iterator_cf(&self.cf(CF_FREES), IteratorMode::Start) {
            let (key, value) = row.map_err(|e| error("read the index", &e))?;
            let (segment, offset) = free_from_key(&key)?;
            if !visit(SegmentExtent { segment, offset, len: Counter::decode(&value)?.0.unsigned_abs() }) {
                break;
            }
        }
        Ok(())
    }

    /// How many objects there are.
    pub fn objects(&self) -> FsResult<u64> {
        Ok(self.counter(CF_META, META_OBJECTS)?.unwrap_or(0).max(0) as u64)
    }

    /// The segment number after the highest ever used.
    pub fn next_segment(&self) -> FsResult<SegmentId> {
        Ok(SegmentId(self.counter(CF_META, META_NEXT_SEGMENT)?.unwrap_or(1).max(1) as u64))
    }

    /// The place before which every extent is accounted for; `None` in an index of version 1.
    pub fn settled(&self) -> FsResult<Option<SegmentPlace>> {
        let segment = self.counter(CF_META, META_SETTLED_SEGMENT)?;
        let offset = self.counter(CF_META, META_SETTLED_OFFSET)?;
        let place = segment.zip(offset).map(|(s, o)| (SegmentId(s.unsigned_abs()), o.unsigned_abs()));
        Ok(place.map(|(segment, offset)| SegmentPlace { segment, offset }))
    }

    /// Whether every committed extent lies before the settled place, or has a row of `pending`. Earlier builds left the
    /// place before a write that was under way, and so before what was committed behind.
    pub fn settled_is_noted(&self) -> FsResult<bool> {
        Ok(self.counter(CF_META, META_SETTLED_NOTED)? == Some(self.committed()? as i64))
    }

    /// Number of the last commit whose batch is here.
    pub fn committed(&self) -> FsResult<u64> {
        Ok(self.counter(CF_META, META_COMMITTED)?.unwrap_or(0).unsigned_abs())
    }

    /// Whether the journal in the segments says everything that is here.
    pub fn journal_is_whole(&self) -> FsResult<bool> {
        Ok(self.counter(CF_META, META_JOURNAL)? == Some(1))
    }

    fn rows<T>(&self, family: &str, decode: impl Fn(&[u8], &[u8]) -> FsResult<T>) -> FsResult<Vec<T>> {
        let rows = self.db.iterator_cf(&self.cf(family), IteratorMode::Start);
        rows.map(|row| {
            let (key, value) = row.map_err(|e| error("read the index", &e))?;
            decode(&key, &value)
        })
        .collect()
    }

    fn counter(&self, family: &str, key: &[u8]) -> FsResult<Option<i64>> {
        let found = self.db.get_pinned_cf(&self.cf(family), key).map_err(|e| error("read a counter", &e))?;
        found.map(|bytes| Counter::decode(&bytes).map(|c| c.0)).transpose()
    }

    /// An empty batch.
    pub fn batch(&self) -> Batch<'_> {
        Batch { index: self, inner: WriteBatch::default() }
    }

    /// Applies a batch whole. It survives a crash of this process; [`Index::sync`] makes it survive a power cut.
    pub fn write(&self, batch: Batch<'_>) -> FsResult<()> {
        #[cfg(test)]
        {
            super::crashing::storage_call(super::crashing::Call::IndexWrite);
            if super::crashing::index_write_fails() {
                return Err(FsError::new(FsCode::Io, "cannot write the index: a test wants it so"));
            }
        }
        self.db.write_opt(batch.inner, &WriteOptions::default()).map_err(|e| error("write the index", &e))
    }

    /// Makes every batch written so far durable.
    pub fn sync(&self) -> FsResult<()> {
        #[cfg(test)]
        super::crashing::storage_call(super::crashing::Call::IndexSync);
        // Before the sync: what comes meanwhile need not be covered by it.
        let covered = self.db.latest_sequence_number();
        self.db.flush_wal(true).map_err(|e| error("sync the index", &e))?;
        #[cfg(test)]
        super::crashing::storage_call(super::crashing::Call::IndexSynced);
        if let Some(mark) = &self.mark {
            mark.set(covered);
        }
        Ok(())
    }
}

/// Changes that happen together.
pub struct Batch<'a> {
    index: &'a Index,
    inner: WriteBatch,
}

impl Batch<'_> {
    /// Sets or, with `None`, removes a chunk.
    pub fn set_chunk(&mut self, key: ChunkKey, record: Option<&ChunkRecord>) {
        let cf = self.index.cf(CF_CHUNKS);
        match record {
            Some(record) => self.inner.put_cf(&cf, key.to_bytes(), record.encode()),
            None => self.inner.delete_cf(&cf, key.to_bytes()),
        }
    }

    /// Sets or removes an object; the caller counts with [`Batch::add_objects`].
    pub fn set_object(&mut self, key: ObjectKey, record: Option<&ObjectRecord>) {
        let cf = self.index.cf(CF_OBJECTS);
        match record {
            Some(record) => self.inner.put_cf(&cf, key.as_bytes(), record.encode()),
            None => self.inner.delete_cf(&cf, key.as_bytes()),
        }
    }

    /// Sets or removes what a chunk was at the last commit.
    pub fn set_pending(&mut self, key: ChunkKey, record: Option<&PendingRecord>) {
        let cf = self.index.cf(CF_PENDING);
        match record {
            Some(record) => self.inner.put_cf(&cf, key.to_bytes(), record.encode()),
            None => self.inner.delete_cf(&cf, key.to_bytes()),
        }
    }

    /// Counts a new extent as live.
    pub fn occupy(&mut self, extent: SegmentExtent) {
        self.add(CF_SEGMENTS, &segment_key(extent.segment), extent.len as i64);
    }

    /// Counts an extent as dead and notes that it has to be punched.
    pub fn release(&mut self, extent: SegmentExtent) {
        self.add(CF_SEGMENTS, &segment_key(extent.segment), -(extent.len as i64));
        self.note_free(extent);
    }

    /// Notes that an extent that was never counted has to be punched.
    pub fn note_free(&mut self, extent: SegmentExtent) {
        let cf = self.index.cf(CF_FREES);
        self.inner.put_cf(&cf, free_key(extent.segment, extent.offset), Counter(extent.len as i64).encode());
    }

    /// Notes that an extent is punched, durably.
    pub fn forget_free(&mut self, extent: SegmentExtent) {
        let cf = self.index.cf(CF_FREES);
        self.inner.delete_cf(&cf, free_key(extent.segment, extent.offset));
    }

    /// Forgets a segment that was deleted.
    pub fn forget_segment(&mut self, segment: SegmentId) {
        let cf = self.index.cf(CF_SEGMENTS);
        self.inner.delete_cf(&cf, segment_key(segment));
    }

    /// Notes the segment number after the highest ever used.
    pub fn set_next_segment(&mut self, next: SegmentId) {
        self.set_meta(META_NEXT_SEGMENT, next.0 as i64);
    }

    /// Notes the place before which every extent is accounted for, as of commit `sequence`, whose batch this is or which
    /// is here already.
    pub fn set_settled(&mut self, place: SegmentPlace, sequence: u64) {
        self.set_meta(META_SETTLED_SEGMENT, place.segment.0 as i64);
        self.set_meta(META_SETTLED_OFFSET, place.offset as i64);
        self.set_meta(META_SETTLED_NOTED, sequence as i64);
        self.set_meta(META_COMMITTED, sequence as i64);
    }

    /// Notes whether the journal in the segments says everything that is here.
    pub fn set_journal(&mut self, whole: bool) {
        self.set_meta(META_JOURNAL, i64::from(whole));
    }

    pub(super) fn set_meta(&mut self, key: &[u8], value: i64) {
        let cf = self.index.cf(CF_META);
        self.inner.put_cf(&cf, key, Counter(value).encode());
    }

    /// Counts objects that came (or, negative, went).
    pub fn add_objects(&mut self, delta: i64) {
        if delta != 0 {
            self.add(CF_META, META_OBJECTS, delta);
        }
    }

    fn add(&mut self, family: &str, key: &[u8], delta: i64) {
        let cf = self.index.cf(family);
        self.inner.merge_cf(&cf, key, Counter(delta).encode());
    }
}

fn db_options(cache: &IndexCache) -> Options {
    let mut options = Options::default();
    options.set_paranoid_checks(true);
    options.set_atomic_flush(true);
    options.set_track_and_verify_wals_in_manifest(true);
    // What a power cut tears lies behind the last sync, so nothing that was committed is after it.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_write_buffer_manager(&cache.buffers);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_keep_log_file_num(4);
    options.set_log_level(LogLevel::Warn);
    options
}

fn families(cache: &IndexCache) -> [ColumnFamilyDescriptor; 6] {
    [CF_OBJECTS, CF_CHUNKS, CF_PENDING, CF_SEGMENTS, CF_FREES, CF_META]
        .map(|name| ColumnFamilyDescriptor::new(name, family_options(name, cache)))
}

fn open_error(dir: &Path, e: &rocksdb::Error) -> FsError {
    error("open the index", e).with_hint(format!("see {}/LOG", dir.display()))
}

fn family_options(name: &str, cache: &IndexCache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&cache.blocks);
    blocks.set_bloom_filter(BLOOM_BITS, false);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_arena_block_size(ARENA_BLOCK_BYTES);
    options.set_compression_type(DBCompressionType::Lz4);
    if name == CF_SEGMENTS || name == CF_META {
        let add = |_: &[u8], old: Option<&[u8]>, operands: &MergeOperands| {
            Counter::sum(old, operands.iter()).map(|sum| sum.encode().to_vec())
        };
        options.set_merge_operator_associative("counter", add);
    }
    options
}

/// Reads that must not wait for the disk.
fn in_memory() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_read_tier(ReadTier::BlockCache);
    options
}

/// `None` if the answer is not in memory, otherwise what went wrong.
fn disk_needed(what: &str, e: &rocksdb::Error) -> Option<FsError> {
    (e.kind() != rocksdb::ErrorKind::Incomplete).then(|| error(what, e))
}

pub(super) fn error(what: &str, e: &rocksdb::Error) -> FsError {
    let code = match e.kind() {
        rocksdb::ErrorKind::Corruption => FsCode::Corrupt,
        _ => FsCode::Io,
    };
    FsError::new(code, format!("cannot {what}: {e}"))
}
