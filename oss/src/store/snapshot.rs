//! Writes the whole index into the journal, where that does not say everything: the segments are of a format without one,
//! or a part of it was damaged. At start, before anybody is served; cut off, it begins anew.

use std::sync::atomic::Ordering;

use sateen_types::FsResult;

use super::Store;
use super::journal::JournalRecord;

/// Rows that one commit writes down.
const ROWS: usize = 16 << 10;
/// Without so much space the journal is not written anew: a full OST must start, so that something can be deleted.
const SPACE_MIN: u64 = 64 << 20;

impl Store {
    pub(super) fn write_whole_journal(&self) -> FsResult<()> {
        if self.index.journal_is_whole()? {
            return Ok(());
        }
        let (mut rows, mut object, mut chunk) = (0, None, None);
        loop {
            let objects = self.index.objects_after(object, ROWS)?;
            object = objects.last().map(|(key, _)| *key);
            rows += objects.len();
            if objects.is_empty() {
                break;
            }
            if !self.write_down(objects.into_iter().map(|(key, record)| JournalRecord::Object(key, record)))? {
                return Ok(());
            }
        }
        loop {
            let chunks = self.index.chunks_from(chunk, ROWS)?;
            chunk = chunks.last().map(|(key, _)| key.object.chunk(key.number + 1));
            rows += chunks.len();
            if chunks.is_empty() {
                break;
            }
            if !self.write_down(chunks.into_iter().map(|(key, record)| JournalRecord::Chunk(key, Some(record))))? {
                return Ok(());
            }
        }
        // A store without anything has nothing to say.
        if rows > 0 && !self.write_down(std::iter::once(JournalRecord::Complete))? {
            return Ok(());
        }
        let mut batch = self.index.batch();
        batch.set_journal(true);
        self.index.write(batch)?;
        self.index.sync()?;
        tracing::info!(fs = %self.owner.fs, rows, "wrote the whole index into the journal");
        Ok(())
    }

    /// One commit with these records; `false` if there is no space for it.
    fn write_down(&self, records: impl Iterator<Item = JournalRecord>) -> FsResult<bool> {
        let space = self.segments.disk().space().map_err(|e| super::io_error("ask the disk for its space", &e))?;
        if space.available < SPACE_MIN {
            tracing::warn!(fs = %self.owner.fs, "no space to write the journal; the index cannot be rebuilt until the next start");
            return Ok(false);
        }
        let mut touched = self.touched.lock();
        records.for_each(|record| touched.again(record));
        drop(touched);
        self.dirty.store(true, Ordering::Release);
        self.commit_once()?;
        Ok(true)
    }
}
