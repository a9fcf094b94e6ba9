//! Tables in RocksDB. Not for policy: what is grouped into one commit is decided by the writer.
//!
//! Options follow what an acknowledged change needs: the log is never disabled or recycled, every commit syncs it, and
//! recovery tolerates a torn *tail* only, so damage in the middle of the log refuses to open instead of silently
//! dropping what was acknowledged. What is a torn tail is decided before RocksDB is asked ([`rocksdb_log`]), because it
//! may never return from garbage and steps over zeros. Memory is bounded by [`RocksOptions`], shared over all tables of
//! the store.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DBCompressionType,
    DBRecoveryMode, DBWithThreadMode, IteratorMode, LogLevel, Options, ReadOptions, ReadTier, SingleThreaded,
    SnapshotWithThreadMode, WriteBatch, WriteOptions,
};
use sateen_runtime::rocksdb_log;
use sateen_types::{FsCode, FsError, FsResult};

use super::txn::{MemoryTxn, ReadTxn, Row, Store, Table, WriteSet};

type Db = DBWithThreadMode<SingleThreaded>;

/// Bounds of one store's memory.
#[derive(Clone, Copy, Debug)]
pub struct RocksOptions {
    /// Cache of table blocks, bytes.
    pub block_cache_bytes: usize,
    /// Memtables of all tables together, bytes.
    pub memtable_bytes: usize,
}

impl Default for RocksOptions {
    fn default() -> RocksOptions {
        RocksOptions { block_cache_bytes: 64 << 20, memtable_bytes: 64 << 20 }
    }
}

/// See the module.
pub struct RocksStore {
    db: Db,
    tables: &'static [Table],
    dir: PathBuf,
}

/// Open table files per store; each costs a descriptor and its index block.
const OPEN_FILES_MAX: i32 = 512;
/// A table file with so many deletions among so many entries in a row is compacted soon.
const DELETION_WINDOW: usize = 8192;
const DELETION_TRIGGER: usize = 4096;
/// RocksDB's own text log is kept small: two files.
const INFO_LOG_BYTES: usize = 4 << 20;

/// What to do where changes that were answered are damaged.
const LOST_CHANGES_HINT: &str =
    "keep a copy of the MDS directory and look at its disk; then restore the directory from a backup";

impl RocksStore {
    /// Opens or creates the store in `dir`. Recovery happens here.
    pub fn open(dir: &Path, tables: &'static [Table], bounds: RocksOptions) -> FsResult<RocksStore> {
        let cut = rocksdb_log::cut_torn_tail(dir)
            .map_err(|e| if e.hint.is_none() { e.with_hint(LOST_CHANGES_HINT) } else { e })?;
        if cut > 0 {
            tracing::warn!(dir = %dir.display(), bytes = cut, "cut a change that was never answered off the end of the log");
        }
        let cache = Cache::new_lru_cache(bounds.block_cache_bytes);
        let db = Db::open_cf_descriptors(&database_options(bounds), dir, families(&cache, tables, bounds));
        Ok(RocksStore { db: db.map_err(|e| open_error(dir, &e))?, tables, dir: dir.to_owned() })
    }

    /// Opens the store in `dir` to look at it: nothing on disk changes. Refuses (`Corrupt`) a log that ends in garbage, as a
    /// power cut may leave it: [`RocksStore::open`] cuts that off.
    pub fn open_read_only(dir: &Path, tables: &'static [Table], bounds: RocksOptions) -> FsResult<RocksStore> {
        rocksdb_log::check_readable(dir)?;
        let cache = Cache::new_lru_cache(bounds.block_cache_bytes);
        let (options, families) = (database_options(bounds), families(&cache, tables, bounds));
        let db = Db::open_cf_descriptors_read_only(&options, dir, families, false);
        Ok(RocksStore { db: db.map_err(|e| open_error(dir, &e))?, tables, dir: dir.to_owned() })
    }

    fn family(&self, table: Table) -> &ColumnFamily {
        self.db.cf_handle(table.name()).expect("every table of the store was opened with it")
    }

    fn view(&self, tier: ReadTier) -> View<'_> {
        View { store: self, snapshot: self.db.snapshot(), tier, missed: Cell::new(false) }
    }

    fn failed(&self, what: &str, table: Table, e: rocksdb::Error) -> FsError {
        let code = match e.kind() {
            rocksdb::ErrorKind::Corruption => FsCode::Corrupt,
            _ => FsCode::Io,
        };
        FsError::new(code, format!("{what} {} of {}: {e}", table.name(), self.dir.display()))
    }
}

fn open_error(dir: &Path, e: &rocksdb::Error) -> FsError {
    FsError::new(FsCode::Io, format!("cannot open the database in {}: {e}", dir.display()))
        .with_hint("if another process holds it, stop that one; if it is damaged, restore the directory from a backup")
}

/// The families of `tables`. RocksDB insists on its "default" family; it stays empty.
fn families(cache: &Cache, tables: &[Table], bounds: RocksOptions) -> Vec<ColumnFamilyDescriptor> {
    let names = tables.iter().map(|t| t.name()).chain(["default"]);
    names.map(|name| ColumnFamilyDescriptor::new(name, family_options(cache, bounds))).collect()
}

fn database_options(bounds: RocksOptions) -> Options {
    let mut o = Options::default();
    o.create_if_missing(true);
    o.create_missing_column_families(true);
    o.set_paranoid_checks(true);
    o.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    o.set_recycle_log_file_num(0);
    o.set_track_and_verify_wals_in_manifest(true);
    o.set_db_write_buffer_size(bounds.memtable_bytes);
    o.set_max_total_wal_size(4 * bounds.memtable_bytes as u64);
    o.set_max_open_files(OPEN_FILES_MAX);
    o.set_max_background_jobs(2);
    // Views end on threads that must not wait for files to be removed.
    o.set_avoid_unnecessary_blocking_io(true);
    o.set_log_level(LogLevel::Warn);
    o.set_max_log_file_size(INFO_LOG_BYTES);
    o.set_keep_log_file_num(2);
    o
}

fn family_options(cache: &Cache, bounds: RocksOptions) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_bloom_filter(10.0, false);
    // Filters and indexes are cut into blocks of 4 KiB. In one piece that of a large file does not fit into its part of the cache, and is read
    // and checked as a whole with each question.
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_pin_top_level_index_and_filter(true);
    table.set_format_version(5);
    let mut o = Options::default();
    o.set_block_based_table_factory(&table);
    o.set_compression_type(DBCompressionType::Lz4);
    o.set_level_compaction_dynamic_level_bytes(true);
    o.set_write_buffer_size(bounds.memtable_bytes / 4);
    o.set_paranoid_checks(true);
    // Queues (intents, orphans, entries of emptied directories) leave runs of deletions that scans would walk over.
    o.add_compact_on_deletion_collector_factory(DELETION_WINDOW, DELETION_TRIGGER, 0.5);
    o
}

struct View<'a> {
    store: &'a RocksStore,
    snapshot: SnapshotWithThreadMode<'a, Db>,
    tier: ReadTier,
    missed: Cell<bool>,
}

impl View<'_> {
    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_read_tier(self.tier);
        options
    }

    fn failed(&self, what: &str, table: Table, e: rocksdb::Error) -> FsError {
        if e.kind() == rocksdb::ErrorKind::Incomplete {
            self.missed.set(true);
        }
        self.store.failed(what, table, e)
    }
}

impl ReadTxn for View<'_> {
    fn get(&self, table: Table, key: &[u8]) -> FsResult<Option<Vec<u8>>> {
        let found = self.snapshot.get_cf_opt(self.store.family(table), key, self.options());
        found.map_err(|e| self.failed("cannot read", table, e))
    }

    fn get_many(&self, table: Table, keys: &[Vec<u8>]) -> FsResult<Vec<Option<Vec<u8>>>> {
        let mut options = self.options();
        options.set_snapshot(&self.snapshot);
        let (db, family) = (&self.store.db, self.store.family(table));
        let found = db.batched_multi_get_cf_opt(family, keys, keys.is_sorted(), &options).into_iter();
        let value =
            |found: Result<Option<_>, _>| found.map(|value| value.map(|v: rocksdb::DBPinnableSlice<'_>| v.to_vec()));
        found.map(|found| value(found).map_err(|e| self.failed("cannot read", table, e))).collect()
    }

    fn scan(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> FsResult<Vec<Row>> {
        let mut options = self.options();
        if let Some(end) = prefix_end(prefix) {
            options.set_iterate_upper_bound(end);
        }
        let start = after.filter(|a| *a >= prefix).unwrap_or(prefix);
        let mode = IteratorMode::From(start, rocksdb::Direction::Forward);
        let mut rows = Vec::new();
        for row in self.snapshot.iterator_cf_opt(self.store.family(table), options, mode) {
            let (key, value) = row.map_err(|e| self.failed("cannot scan", table, e))?;
            if rows.len() == limit || !key.starts_with(prefix) {
                break;
            }
            if after.is_none_or(|a| &*key > a) {
                rows.push((key.into_vec(), value.into_vec()));
            }
        }
        Ok(rows)
    }
}

impl MemoryTxn for View<'_> {
    fn missed(&self) -> bool {
        self.missed.get()
    }
}

/// The smallest key behind every key that starts with `prefix`.
fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

impl Store for RocksStore {
    fn snapshot(&self) -> Box<dyn ReadTxn + '_> {
        Box::new(self.view(ReadTier::All))
    }

    fn snapshot_in_memory(&self) -> Box<dyn MemoryTxn + '_> {
        Box::new(self.view(ReadTier::BlockCache))
    }

    fn commit(&self, changes: &WriteSet) -> FsResult<()> {
        let mut batch = WriteBatch::default();
        for table in self.tables {
            for (key, value) in changes.of(*table) {
                match value {
                    Some(value) => batch.put_cf(self.family(*table), key, value),
                    None => batch.delete_cf(self.family(*table), key),
                }
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db.write_opt(batch, &options).map_err(|e| {
            FsError::new(FsCode::Io, format!("cannot write to the database in {}: {e}", self.dir.display()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Overlay, Txn};

    #[test]
    fn what_is_not_in_memory_is_missed_until_it_was_read_once() {
        let dir = tempfile::tempdir().expect("temp dir");
        let open = || RocksStore::open(dir.path(), Table::OF_FILE_SYSTEM, RocksOptions::default()).expect("opens");
        let store = open();
        let changes = {
            let view = store.snapshot();
            let mut overlay = Overlay::new(&*view);
            overlay.put(Table::Config, b"key".to_vec(), b"value".to_vec());
            overlay.into_changes()
        };
        store.commit(&changes).expect("committed");
        let in_memory = |store: &RocksStore| {
            let view = store.snapshot_in_memory();
            let rows = (view.get(Table::Config, b"key"), view.scan(Table::Config, b"k", None, 1));
            (!view.missed()).then(|| (rows.0.expect("no error"), rows.1.expect("no error").len()))
        };
        let there = Some((Some(b"value".to_vec()), 1));
        assert_eq!(in_memory(&store), there, "just written");
        drop(store);
        let store = open();
        assert_eq!(in_memory(&store), None, "in a file that nobody has read");
        assert!(store.snapshot().get(Table::Config, b"key").expect("readable").is_some());
        assert_eq!(in_memory(&store), there, "its block is cached");
    }

    #[test]
    fn a_question_reads_some_blocks_however_large_the_table_is() {
        use rocksdb::perf::{PerfContext, PerfMetric, PerfStatsLevel, set_perf_stats};
        const ROWS: u64 = 600_000;
        const ASKED: u64 = 500;
        /// Of index, filter and data, a block each, and as much again.
        const READ_MAX: u64 = 32 << 10;
        let dir = tempfile::tempdir().expect("temp dir");
        // A filter of all rows has 750 kB: it does not fit.
        let bounds = RocksOptions { block_cache_bytes: 1 << 20, ..RocksOptions::default() };
        let open = || RocksStore::open(dir.path(), Table::OF_FILE_SYSTEM, bounds).expect("opens");
        let store = open();
        for from in (0..ROWS).step_by(20_000) {
            let view = store.snapshot();
            let mut overlay = Overlay::new(&*view);
            (from..from + 20_000)
                .for_each(|i| overlay.put(Table::Config, (2 * i).to_be_bytes().to_vec(), b"v".to_vec()));
            let changes = overlay.into_changes();
            drop(view);
            store.commit(&changes).expect("committed");
        }
        // All of them in one file, of which nothing is in memory.
        store.db.compact_range_cf(store.family(Table::Config), None::<&[u8]>, None::<&[u8]>);
        drop(store);
        let store = open();
        let view = store.snapshot();
        set_perf_stats(PerfStatsLevel::EnableCount);
        let mut counts = PerfContext::default();
        counts.reset();
        for i in 0..ASKED {
            // One that is there and one that is not, all over the table.
            let row = i * (ROWS / ASKED) * 2;
            assert!(view.get(Table::Config, &row.to_be_bytes()).expect("readable").is_some());
            assert!(view.get(Table::Config, &(row + 1).to_be_bytes()).expect("readable").is_none());
        }
        let read = counts.metric(PerfMetric::BlockReadByte) / (2 * ASKED);
        set_perf_stats(PerfStatsLevel::Disable);
        assert!(read > 0, "nothing of it was in memory");
        assert!(read <= READ_MAX, "{read} bytes are read for each question");
    }

    #[test]
    fn the_end_of_a_prefix_is_behind_all_its_keys() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"\xff\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }
}
