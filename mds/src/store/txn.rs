//! Reading and changing tables.
//!
//! A command reads through [`ReadTxn`] and changes through [`Txn`]; what it changed is collected in an [`Overlay`] and
//! reaches the [`Store`] as one atomic, synced [`WriteSet`], or not at all. Overlays stack: one per command on top of
//! one per group of commands on top of the store, so a failed command is dropped without touching its neighbours.

use std::collections::BTreeMap;
use std::ops::Bound;

use sateen_types::FsResult;

/// A table: one RocksDB column family. Keys and values of each are in [`super::keys`] and [`super::records`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "described with their keys in keys.rs")]
pub enum Table {
    Inodes,
    Dentries,
    DirIndex,
    Parents,
    Xattrs,
    Layouts,
    DefaultLayouts,
    Intents,
    Orphans,
    Sessions,
    Replies,
    Config,
    Osts,
    FileSystems,
    Held,
    EndedWriters,
    Repositories,
    Hsm,
    HsmKeys,
    Loads,
    Changelog,
    Exports,
    Tasks,
}

impl Table {
    /// How many kinds of table there are.
    pub const COUNT: usize = 23;
    /// Tables of one file system.
    pub const OF_FILE_SYSTEM: &[Table] = &[
        Table::Inodes,
        Table::Dentries,
        Table::DirIndex,
        Table::Parents,
        Table::Xattrs,
        Table::Layouts,
        Table::DefaultLayouts,
        Table::Intents,
        Table::Orphans,
        Table::Sessions,
        Table::Replies,
        Table::Config,
        Table::Held,
        Table::Repositories,
        Table::Hsm,
        Table::HsmKeys,
        Table::Loads,
        Table::Changelog,
        Table::Exports,
        Table::Tasks,
    ];
    /// Tables of the cluster registry.
    pub const OF_CLUSTER: &[Table] = &[Table::Config, Table::Osts, Table::FileSystems, Table::EndedWriters];

    /// Name of the column family on disk; never changes.
    pub fn name(self) -> &'static str {
        match self {
            Table::Inodes => "inodes",
            Table::Dentries => "dentries",
            Table::DirIndex => "dirindex",
            Table::Parents => "parents",
            Table::Xattrs => "xattrs",
            Table::Layouts => "layouts",
            Table::DefaultLayouts => "default_layouts",
            Table::Intents => "intents",
            Table::Orphans => "orphans",
            Table::Sessions => "sessions",
            Table::Replies => "replies",
            Table::Config => "config",
            Table::Osts => "osts",
            Table::FileSystems => "file_systems",
            Table::Held => "held",
            Table::EndedWriters => "ended_writers",
            Table::Repositories => "repositories",
            Table::Hsm => "hsm",
            Table::HsmKeys => "hsm_keys",
            Table::Loads => "loads",
            Table::Changelog => "changelog",
            Table::Exports => "exports",
            Table::Tasks => "tasks",
        }
    }
}

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// One consistent view of the tables.
pub trait ReadTxn {
    /// The value of a key.
    fn get(&self, table: Table, key: &[u8]) -> FsResult<Option<Vec<u8>>>;
    /// The values of many keys.
    fn get_many(&self, table: Table, keys: &[Vec<u8>]) -> FsResult<Vec<Option<Vec<u8>>>> {
        keys.iter().map(|key| self.get(table, key)).collect()
    }
    /// Up to `limit` rows whose keys start with `prefix` and lie behind `after`, in the order of keys.
    fn scan(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> FsResult<Vec<Row>>;
}

/// A view that is never asked to wait for a disk.
pub trait MemoryTxn: ReadTxn {
    /// Something that was asked is not in memory: no answer of this view counts.
    fn missed(&self) -> bool;
}

/// A view that can be changed; what it changed is visible to its own later reads.
pub trait Txn: ReadTxn {
    /// Sets the value of a key.
    fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>);
    /// Removes a key, there or not.
    fn delete(&mut self, table: Table, key: Vec<u8>);
}

/// Durable tables.
pub trait Store: Send + Sync {
    /// A consistent view of what is committed.
    fn snapshot(&self) -> Box<dyn ReadTxn + '_>;
    /// The same, of what is in memory.
    fn snapshot_in_memory(&self) -> Box<dyn MemoryTxn + '_>;
    /// Applies all changes atomically; durable (synced) when it returns. After an error nothing is known about the
    /// store any more and it must not be written again.
    fn commit(&self, changes: &WriteSet) -> FsResult<()>;
}

/// Pending changes by table and key; `None` deletes.
#[derive(Debug, Default)]
pub struct WriteSet {
    tables: [BTreeMap<Vec<u8>, Option<Vec<u8>>>; Table::COUNT],
    bytes: usize,
}

impl WriteSet {
    /// No change.
    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(BTreeMap::is_empty)
    }

    /// About how many bytes of keys and values it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it writes to `table`.
    pub fn touches(&self, table: Table) -> bool {
        !self.tables[table as usize].is_empty()
    }

    /// Every change of `table`, in the order of keys.
    pub fn of(&self, table: Table) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.tables[table as usize].iter().map(|(k, v)| (k.as_slice(), v.as_deref()))
    }

    fn set(&mut self, table: Table, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
        self.tables[table as usize].insert(key, value);
    }

    /// Makes the same changes to another view.
    pub fn replay(&self, tx: &mut dyn Txn) {
        for table in Table::OF_FILE_SYSTEM {
            for (key, value) in self.of(*table) {
                match value {
                    Some(value) => tx.put(*table, key.to_vec(), value.to_vec()),
                    None => tx.delete(*table, key.to_vec()),
                }
            }
        }
    }

    /// Puts `later` on top.
    pub fn absorb(&mut self, later: WriteSet) {
        self.bytes += later.bytes;
        for (mine, theirs) in self.tables.iter_mut().zip(later.tables) {
            mine.extend(theirs);
        }
    }
}

/// Pending changes on top of another view.
pub struct Overlay<'a> {
    base: &'a dyn ReadTxn,
    changes: WriteSet,
}

impl<'a> Overlay<'a> {
    /// No change yet.
    pub fn new(base: &'a dyn ReadTxn) -> Overlay<'a> {
        Overlay { base, changes: WriteSet::default() }
    }

    /// What was changed so far.
    pub fn changes(&self) -> &WriteSet {
        &self.changes
    }

    /// Puts the changes of an overlay on this one into it.
    pub fn absorb(&mut self, later: WriteSet) {
        self.changes.absorb(later);
    }

    /// What was changed.
    pub fn into_changes(self) -> WriteSet {
        self.changes
    }
}

impl ReadTxn for Overlay<'_> {
    fn get(&self, table: Table, key: &[u8]) -> FsResult<Option<Vec<u8>>> {
        match self.changes.tables[table as usize].get(key) {
            Some(pending) => Ok(pending.clone()),
            None => self.base.get(table, key),
        }
    }

    fn scan(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> FsResult<Vec<Row>> {
        let pending: Vec<_> = pending_range(&self.changes.tables[table as usize], prefix, after).collect();
        // Each pending change hides at most one row of the base.
        let below = self.base.scan(table, prefix, after, limit.saturating_add(pending.len()))?;
        if pending.is_empty() {
            return Ok(below);
        }
        let mut merged: BTreeMap<Vec<u8>, Vec<u8>> = below.into_iter().collect();
        for (key, value) in pending {
            match value {
                Some(value) => merged.insert(key.clone(), value.clone()),
                None => merged.remove(key),
            };
        }
        Ok(merged.into_iter().take(limit).collect())
    }
}

impl Txn for Overlay<'_> {
    fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.changes.set(table, key, Some(value));
    }

    fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.changes.set(table, key, None);
    }
}

/// The part of a sorted map that a scan sees.
pub(super) fn pending_range<'m, V>(
    map: &'m BTreeMap<Vec<u8>, V>,
    prefix: &'m [u8],
    after: Option<&[u8]>,
) -> impl Iterator<Item = (&'m Vec<u8>, &'m V)> {
    let start = match after {
        Some(after) if after >= prefix => Bound::Excluded(after.to_vec()),
        _ => Bound::Included(prefix.to_vec()),
    };
    map.range((start, Bound::Unbounded)).take_while(move |(k, _)| k.starts_with(prefix))
}
