//! What a check may change, each as one method, and nothing else. Without a writable index every method only says that
//! it could.

use std::cell::Cell;

use rocksdb::{WriteBatch, WriteOptions};
use sateen_types::{FsResult, Repair};

use super::super::disk::SegmentId;
use super::super::index::error;
use super::super::keys::{CF_OBJECTS, ObjectKey};
use super::super::records::{Counter, ObjectRecord};
use super::super::segments::io_error;
use super::Offline;

/// The repairs of one check.
pub struct Repairs<'a> {
    offline: Option<Offline<'a>>,
    written: Cell<bool>,
}

impl<'a> Repairs<'a> {
    /// Repairs what `offline` allows.
    pub fn new(offline: Option<Offline<'a>>) -> Repairs<'a> {
        Repairs { offline, written: Cell::new(false) }
    }

    /// Whether anything may be changed.
    pub fn allowed(&self) -> bool {
        self.offline.is_some()
    }

    /// Corrects the counters of an object.
    pub fn object(&self, key: ObjectKey, record: &ObjectRecord) -> FsResult<Repair> {
        self.write(|batch, o| batch.put_cf(&o.index.cf(CF_OBJECTS), key.as_bytes(), record.encode()))
    }

    /// Sets a counter.
    pub fn counter(&self, family: &'static str, key: &[u8], value: i64) -> FsResult<Repair> {
        self.write(|batch, o| batch.put_cf(&o.index.cf(family), key, Counter(value).encode()))
    }

    /// Removes a row that says nothing about any chunk's current bytes.
    pub fn remove(&self, family: &'static str, key: &[u8]) -> FsResult<Repair> {
        self.write(|batch, o| batch.delete_cf(&o.index.cf(family), key))
    }

    /// Moves a segment that nothing refers to out of the store's sight.
    pub fn put_aside(&self, segment: SegmentId) -> FsResult<Repair> {
        let Some(offline) = self.offline else { return Ok(Repair::Possible) };
        (offline.put_aside)(segment).map_err(|e| io_error(&format!("put segment {segment} aside"), &e))?;
        self.written.set(true);
        Ok(Repair::Done)
    }

    /// Something of the segments was changed.
    pub fn changed(&self) {
        self.written.set(true);
    }

    /// Makes everything durable.
    pub fn finish(&self) -> FsResult<()> {
        match self.offline {
            Some(offline) if self.written.get() => {
                // It may say something else now; the next start writes it anew.
                let mut batch = offline.index.batch();
                batch.set_journal(false);
                offline.index.write(batch)?;
                offline.index.sync()
            }
            _ => Ok(()),
        }
    }

    fn write(&self, change: impl FnOnce(&mut WriteBatch, &Offline<'_>)) -> FsResult<Repair> {
        let Some(offline) = self.offline else { return Ok(Repair::Possible) };
        let mut batch = WriteBatch::default();
        change(&mut batch, &offline);
        let written = offline.index.db.write_opt(batch, &WriteOptions::default());
        written.map_err(|e| error("write a repair", &e))?;
        self.written.set(true);
        Ok(Repair::Done)
    }
}
