//! Recovery: what a store does with the changes that an earlier incarnation did not commit.
//!
//! Each row of `pending` names a chunk that changed since the last commit and holds its record of then:
//!
//! 1. read every such chunk as it is now and check it. Whole (always after `kill -9`): it stays. Not whole, because a
//!    power cut took its bytes: the record that a commit was making durable is put back if that is whole, otherwise the
//!    committed one, or a hole if there was none;
//! 2. fdatasync the segments of those that stay, so that they are durable before their fallback goes;
//! 3. one batch per object: records, space, size, dead extents; the rows now say what was chosen;
//! 4. a commit, which writes all of that into the journal and removes the rows; then the dead extents are punched and
//!    empty segments deleted.
//!
//! It can be cut off anywhere and starts over. The verifier of the new incarnation tells clients to send again what
//! they still hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use sateen_types::{FsError, FsResult};

use super::Store;
use super::disk::SegmentId;
use super::keys::{ChunkKey, ObjectKey, WHOLE_OBJECT};
use super::records::{ChunkRecord, PendingRecord, SegmentExtent};
use super::segments::{ReadError, io_error};

/// A chunk with a row of `pending`.
struct Doubtful {
    key: ChunkKey,
    row: PendingRecord,
    current: Option<ChunkRecord>,
    /// What the chunk will be.
    chosen: Option<ChunkRecord>,
}

impl Doubtful {
    fn stays(&self) -> bool {
        self.chosen == self.current
    }
}

impl Store {
    pub(super) fn recover(&self) -> FsResult<()> {
        let mut objects: BTreeMap<ObjectKey, Vec<Doubtful>> = BTreeMap::new();
        let mut synced = BTreeSet::new();
        for (key, row) in self.index.pending()? {
            let current = self.index.chunk(key)?;
            let chosen = self.choose(&row, current)?;
            synced.extend(chosen.map(|chosen| chosen.segment));
            objects.entry(key.object).or_default().push(Doubtful { key, row, current, chosen });
        }
        if objects.is_empty() {
            return Ok(());
        }
        let unsynced = self.segments.adopt_unsynced(synced).map_err(|e| read_error(&e))?;
        unsynced.sync(&self.segments).map_err(|e| io_error("sync the segments", &e))?;
        let (mut kept, mut undone) = (0, 0);
        let mut dead = Vec::new();
        for (key, chunks) in &objects {
            undone += chunks.iter().filter(|c| !c.stays()).count();
            kept += chunks.iter().filter(|c| c.stays()).count();
            self.settle(*key, chunks, &mut dead)?;
        }
        // Says in the journal what was decided, and removes the rows.
        self.dirty.store(true, Ordering::Release);
        self.commit_now()?;
        self.segments.reclaim(&dead)?;
        tracing::info!(
            fs = %self.owner.fs, objects = objects.len(), kept, undone,
            "recovered chunks that were not committed"
        );
        Ok(())
    }

    /// The newest record of a chunk whose bytes are there.
    fn choose(&self, row: &PendingRecord, current: Option<ChunkRecord>) -> FsResult<Option<ChunkRecord>> {
        let Some(newest) = current else { return Ok(None) };
        for record in [Some(newest), row.between].into_iter().flatten() {
            if self.is_whole(row, &record)? {
                return Ok(Some(record));
            }
        }
        Ok(row.before)
    }

    fn is_whole(&self, row: &PendingRecord, current: &ChunkRecord) -> FsResult<bool> {
        // Only cut: its bytes were committed.
        if row.before.is_some_and(|before| before.extent() == current.extent()) {
            return Ok(true);
        }
        match self.fetch_stored(current) {
            Ok(_) => Ok(true),
            Err(ReadError::Missing(_) | ReadError::Damaged(_)) => Ok(false),
            // Nobody knows what is there; falling back could hide data that is answered for.
            Err(e @ ReadError::Io(_)) => Err(read_error(&e)),
        }
    }

    fn settle(&self, key: ObjectKey, chunks: &[Doubtful], dead: &mut Vec<SegmentExtent>) -> FsResult<()> {
        let mut batch = self.index.batch();
        let object = self.index.object(key)?;
        let mut after = object;
        for chunk in chunks {
            // From here on what was chosen is what the chunk was before; the row goes with the commit.
            let size = chunk.row.object_size;
            let row = self.pending.lock().change(chunk.key, chunk.chosen.as_ref(), chunk.chosen.as_ref(), size).row;
            batch.set_pending(chunk.key, row.as_ref());
            if chunk.key.number != WHOLE_OBJECT {
                self.touched.lock().chunk(chunk.key, chunk.chosen);
            }
            let extent = |r: Option<ChunkRecord>| r.map(|r| r.extent());
            let (then, now) = (extent(chunk.chosen), extent(chunk.current));
            let known = [now, extent(chunk.row.between), extent(chunk.row.before)];
            for gone in known.into_iter().flatten().filter(|e| Some(*e) != then).collect::<BTreeSet<_>>() {
                batch.release(gone);
                dead.push(gone);
            }
            if chunk.stays() {
                continue;
            }
            batch.set_chunk(chunk.key, chunk.chosen.as_ref());
            tracing::warn!(object = %key.object(self.owner.fs), chunk = chunk.key.number, "undone: its bytes were not on disk");
            if let Some(after) = &mut after {
                let len = |e: Option<SegmentExtent>| e.map_or(0, |e| e.len);
                after.allocated = (after.allocated + len(then)).saturating_sub(len(now));
                after.chunks = (after.chunks + u64::from(then.is_some())).saturating_sub(1);
            }
        }
        if let Some(after) = after.as_mut().filter(|a| Some(**a) != object) {
            after.change += 1;
            after.size = after.size.min(self.size_that_is_there(key, after.chunk_log2, chunks)?);
            batch.set_object(key, Some(after));
        }
        match after {
            Some(after) => self.touched.lock().object(key, after),
            None => self.touched.lock().gone(key, SegmentId(0)),
        }
        self.index.write(batch)
    }

    /// One past the last byte that is known to be there: the size of the last commit or the end of the last chunk.
    fn size_that_is_there(&self, key: ObjectKey, chunk_log2: u8, chunks: &[Doubtful]) -> FsResult<u64> {
        let committed = chunks.iter().map(|c| c.row.object_size).min().unwrap_or(0);
        let end = |number: u64, r: &ChunkRecord| (number << chunk_log2) + u64::from(r.visible_len);
        let undone: BTreeSet<u64> = chunks.iter().filter(|c| !c.stays()).map(|c| c.key.number).collect();
        let mut last = self.index.last_chunk(key, u64::MAX)?;
        while let Some((number, _)) = last.filter(|(number, _)| undone.contains(number)) {
            last = if number == 0 { None } else { self.index.last_chunk(key, number - 1)? };
        }
        let last = last.map_or(0, |(number, record)| end(number, &record));
        let undone = chunks.iter().filter(|c| !c.stays());
        let restored = undone.filter_map(|c| c.chosen.map(|chosen| end(c.key.number, &chosen)));
        Ok(committed.max(last).max(restored.max().unwrap_or(0)))
    }
}

fn read_error(e: &ReadError) -> FsError {
    FsError::new(sateen_types::FsCode::Io, format!("cannot read what was not committed: {e}"))
        .with_hint("look at the disk of this OST and its kernel log, then start the OSS again")
}
