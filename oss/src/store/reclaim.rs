//! How space comes back: dead extents are punched, empty segments deleted, and at start what nobody knows of.
//!
//! An extent that dies is noted in `frees` by the batch that kills it. The row stays until the punch is durable, so that
//! a power cut that undoes a punch loses no space: the next start punches again. Segments that are written are synced by
//! commits anyway; punches in others wait until there are enough of them ([`Segments::finish_punches`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::Ordering;

use sateen_types::{FsCode, FsError, FsResult};

use super::disk::{SegmentId, write_all_at};
use super::journal::{self, JournalRecord, Run};
use super::keys::{ChunkKey, WHOLE_OBJECT};
use super::records::{PendingRecord, SegmentExtent, SegmentPlace, round_to_blocks};
use super::segments::{HEADER_BYTES, ReadError, Segments, State, has_no_header, io_error};

/// Rows of the index that are read at once.
const ROWS: usize = 16 << 10;

/// What became of an extent that was to be punched.
enum Punch {
    /// It is a hole, or its segment is gone.
    Done,
    /// Its segment does not begin as one of ours does.
    /// It is not touched; nobody can read it, and it goes as a whole when nothing in it is live. Its row in `frees` stays,
    /// in case somebody mends the header.
    Unreadable,
}

impl State {
    /// An extent is dead. Its segment goes if that was the last one, and nothing more will be written there.
    pub(super) fn lose(&mut self, extent: SegmentExtent) {
        let live = self.live.entry(extent.segment).or_default();
        *live -= extent.len;
        let empty = *live == 0;
        let sealed = self.active.as_ref().is_none_or(|active| active.id != extent.segment);
        if empty && sealed {
            self.doomed.insert(extent.segment);
        }
    }
}

impl Segments {
    /// Gives the space of dead extents back. They are noted in the index already ([`super::index::Batch::release`]);
    /// they stay noted until the punch is durable; what cannot be punched now is punched at the next start.
    pub fn reclaim(&self, extents: &[SegmentExtent]) -> FsResult<()> {
        if extents.is_empty() {
            return Ok(());
        }
        // Before anything is taken away from readers.
        self.reclaims.fetch_add(1, Ordering::SeqCst);
        let mut punched = Vec::with_capacity(extents.len());
        for extent in extents {
            match self.punch(*extent) {
                Ok(Punch::Done) => punched.push(*extent),
                Ok(Punch::Unreadable) => {}
                Err(e) => {
                    tracing::warn!(?extent, error = %e, "cannot punch a dead extent; the next start tries again");
                    self.state.lock().punch_failed = true;
                }
            }
        }
        let mut state = self.state.lock();
        state.punched.append(&mut punched);
        for extent in extents {
            self.capacity.release(extent.len);
            state.lose(*extent);
        }
        Ok(())
    }

    /// The lowest empty segment, unless a hole that should be there is not.
    pub fn doomed(&self) -> Option<SegmentId> {
        let state = self.state.lock();
        if state.punch_failed { None } else { state.doomed.first().copied() }
    }

    /// Numbers of all segments, in order.
    pub fn list(&self) -> FsResult<Vec<SegmentId>> {
        let mut files = self.disk.list().map_err(|e| io_error("list the segments", &e))?;
        files.sort_unstable();
        Ok(files)
    }

    /// Deletes a segment that [`Segments::doomed`] has named.
    pub fn delete_doomed(&self, id: SegmentId) -> FsResult<()> {
        let mut state = self.state.lock();
        state.doomed.remove(&id);
        self.delete(&mut state, id)
    }

    /// Segments that have to stay until the next commit are not doomed until then.
    pub fn spare(&self, id: SegmentId) {
        self.state.lock().doomed.remove(&id);
    }

    /// Inverse of [`Segments::spare`].
    pub fn doom(&self, ids: &[SegmentId]) {
        self.state.lock().doomed.extend(ids);
    }

    /// Punches that are not durable yet.
    pub fn punches(&self) -> usize {
        self.state.lock().punched.len()
    }

    /// Makes punches durable, if more than `most` wait for it. An error is final, as that of any sync.
    pub fn finish_punches(&self, most: usize) -> FsResult<()> {
        let punched = {
            let mut state = self.state.lock();
            if state.punched.len() <= most {
                return Ok(());
            }
            std::mem::take(&mut state.punched)
        };
        let failed = |id: SegmentId, e: ReadError| {
            FsError::new(FsCode::Io, format!("cannot sync the holes of segment {id}: {e}"))
        };
        let mut batch = self.index.batch();
        for id in punched.iter().map(|extent| extent.segment).collect::<BTreeSet<_>>() {
            match self.handle(id) {
                Ok(file) => file.sync_data().map_err(|e| failed(id, ReadError::Io(e)))?,
                // Deleted meanwhile.
                Err(ReadError::Missing(_)) => {}
                Err(e) => return Err(failed(id, e)),
            }
        }
        punched.iter().for_each(|extent| batch.forget_free(*extent));
        self.index.write(batch)
    }

    fn punch(&self, extent: SegmentExtent) -> io::Result<Punch> {
        let file = match self.handle(extent.segment) {
            Ok(file) => file,
            Err(ReadError::Missing(_)) => return Ok(Punch::Done),
            Err(ReadError::Damaged(_)) => return Ok(Punch::Unreadable),
            Err(ReadError::Io(e)) => return Err(e),
        };
        file.punch(extent.offset, extent.len)?;
        Ok(Punch::Done)
    }

    /// Deletes a sealed segment without live bytes.
    pub(super) fn delete(&self, state: &mut State, id: SegmentId) -> FsResult<()> {
        debug_assert!(state.live.get(&id).is_none_or(|&live| live == 0), "segment {id} is live");
        state.live.remove(&id);
        state.unsynced.remove(&id);
        self.handles.lock().remove(&id);
        if let Err(e) = self.disk.delete(id)
            && e.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(segment = %id, error = %e, "cannot delete an empty segment; will be tried again at the next start");
            return Ok(());
        }
        let mut batch = self.index.batch();
        batch.forget_segment(id);
        let (gone, punched) = std::mem::take(&mut state.punched).into_iter().partition(|e| e.segment == id);
        state.punched = punched;
        let gone: Vec<SegmentExtent> = gone;
        gone.iter().for_each(|extent| batch.forget_free(*extent));
        self.index.write(batch)
    }

    /// At start: finishes what an earlier incarnation could not: punches dead extents, deletes empty segments.
    pub fn sweep(&self) -> FsResult<()> {
        for extent in self.index.frees()? {
            match self.punch(extent) {
                Ok(Punch::Done) => self.state.lock().punched.push(extent),
                Ok(Punch::Unreadable) => {}
                Err(e) => {
                    tracing::warn!(?extent, error = %e, "cannot punch a dead extent");
                    self.state.lock().punch_failed = true;
                }
            }
        }
        self.finish_punches(0)?;
        let files = self.disk.list().map_err(|e| io_error("list the segments", &e))?;
        let mut state = self.state.lock();
        let active = state.active.as_ref().map(|active| active.id);
        for id in files.into_iter().filter(|id| Some(*id) != active) {
            if state.live.get(&id).is_none_or(|&live| live == 0) {
                state.doomed.insert(id);
            }
        }
        Ok(())
    }

    /// At start, before recovery: punches what was written and never came into the index, because its writer died in
    /// between. It can only lie behind the settled place of the last commit, where every extent that is in the index
    /// has a row of `pending`; an earlier build may have left the place too early, and then every chunk is asked.
    ///
    /// A run of the journal there may be of a commit whose batch did not get into the index. What it names gets a row
    /// of `pending` too, so that recovery decides what is true and the next commit says it again. The number of the
    /// last commit in the journal is returned.
    pub fn punch_lost(&self) -> FsResult<u64> {
        let committed = self.index.committed()?;
        let settled = self.index.settled()?;
        let runs = settled.map_or(Ok(Vec::new()), |settled| self.runs_from(settled.segment))?;
        let last = runs.iter().map(|run| run.header.sequence).max().unwrap_or(0).max(committed);
        if last > committed + 1 {
            return Err(FsError::new(
                FsCode::Corrupt,
                format!("the index ends with commit {committed}, the journal in the segments with {last}"),
            )
            .with_hint("its log was damaged; make the index anew: sateen fsck --rebuild-index --dir DIR"));
        }
        // Not before: an index that has lost commits does not know what is lost.
        if let Some(settled) = settled {
            self.punch_behind(settled, &runs)?;
        }
        // In one batch, before recovery removes rows of `pending`, which tell what is not lost.
        let mut batch = self.index.batch();
        let pending: BTreeSet<ChunkKey> = self.index.pending()?.into_iter().map(|(key, _)| key).collect();
        for record in runs.iter().filter(|run| run.header.sequence > committed).flat_map(|run| &run.records) {
            let key = match record {
                JournalRecord::Chunk(key, _) => *key,
                JournalRecord::Object(key, _) | JournalRecord::Gone(key, _) => key.chunk(WHOLE_OBJECT),
                // The index does not know of it; the journal is written anew.
                JournalRecord::Complete => continue,
            };
            if !pending.contains(&key) {
                let object_size = self.index.object(key.object)?.map_or(0, |object| object.size);
                let row = PendingRecord { before: self.index.chunk(key)?, between: None, object_size };
                batch.set_pending(key, Some(&row));
            }
        }
        self.settle(&mut batch, last);
        self.index.write(batch)?;
        if last > committed {
            // Before recovery adds a run of its own: never are two of them unknown to the index.
            self.index.sync()?;
        }
        Ok(last)
    }

    /// The runs of the journal in segment `first` and behind.
    fn runs_from(&self, first: SegmentId) -> FsResult<Vec<Run>> {
        let mut runs = Vec::new();
        for id in self.list()?.into_iter().filter(|id| *id >= first) {
            self.journal_of(id, |run| runs.push(run))?;
        }
        Ok(runs)
    }

    /// Punches what is lost behind `settled`, where `runs` are of the journal. What is left is durable, headers too: the
    /// settled place may move.
    fn punch_behind(&self, settled: SegmentPlace, runs: &[Run]) -> FsResult<()> {
        let mut known = self.known_behind(settled)?;
        known.extend(runs.iter().map(|run| (run.header.place, run.header.length)));
        for id in self.list()?.into_iter().filter(|id| *id >= settled.segment) {
            self.begin_again(id)?;
            let from = if id == settled.segment { settled.offset.max(HEADER_BYTES) } else { HEADER_BYTES };
            let lost = self.punch_between(id, from, &known);
            let lost = lost.map_err(|e| io_error(&format!("give back lost space of segment {id}"), &e))?;
            if lost > 0 {
                tracing::info!(fs = %self.owner.fs, segment = %id, bytes = lost, "gave back what was written but not answered");
            }
        }
        Ok(())
    }

    /// The extents behind `settled`, and their lengths, that recovery may need or that were committed.
    fn known_behind(&self, settled: SegmentPlace) -> FsResult<BTreeMap<SegmentPlace, u64>> {
        let mut known = BTreeMap::new();
        for (key, row) in self.index.pending()? {
            let records = [self.index.chunk(key)?, row.between, row.before];
            known.extend(records.into_iter().flatten().map(|r| (r.extent().place(), r.extent().len)));
        }
        if self.index.settled_is_noted()? {
            return Ok(known);
        }
        tracing::info!(fs = %self.owner.fs, "the last server was of an earlier build; looks for what it committed late");
        let mut from = None;
        loop {
            let rows = self
                .index
                .chunks_from(from, ROWS)
                .map_err(|e| e.with_hint("see what is wrong: sateen fsck --dir DIR"))?;
            let Some((last, _)) = rows.last() else { return Ok(known) };
            from = Some(last.object.chunk(last.number + 1));
            let extents = rows.iter().map(|(_, record)| record.extent());
            known.extend(extents.filter(|extent| extent.place() >= settled).map(|extent| (extent.place(), extent.len)));
        }
    }

    /// Gives a segment its header if a power cut has taken it: what is in it may be whole, and is given back if not.
    fn begin_again(&self, id: SegmentId) -> FsResult<()> {
        let failed = |e| io_error(&format!("write the header of segment {id}"), &e);
        let file = self.disk.open(id).map_err(failed)?;
        if !has_no_header(&*file).map_err(failed)? {
            return Ok(());
        }
        if journal::has_any_run(&*file, HEADER_BYTES).map_err(failed)? {
            // A power cut takes no header with runs behind it. With a new key nobody finds those any more.
            tracing::warn!(fs = %self.owner.fs, segment = %id, "its header is damaged; this start writes the journal anew");
            let mut batch = self.index.batch();
            batch.set_journal(false);
            self.index.write(batch)?;
            self.index.sync()?;
        } else {
            tracing::info!(fs = %self.owner.fs, segment = %id, "a power cut took its header; it gets a new one");
        }
        write_all_at(&*file, &self.owner.header(id, Some(&rand::random())), 0).map_err(failed)?;
        file.sync_data().map_err(failed)
    }

    /// Punches everything of a segment from `from` on that is not `known`, and syncs the segment; returns how much that
    /// was.
    fn punch_between(&self, id: SegmentId, from: u64, known: &BTreeMap<SegmentPlace, u64>) -> io::Result<u64> {
        let file = self.disk.open(id)?;
        let end = round_to_blocks(file.length()?);
        // A power cut may have left less of the file than the place says.
        if end <= from {
            return file.sync_data().map(|()| 0);
        }
        let place = |offset| SegmentPlace { segment: id, offset };
        let mut extents: Vec<(u64, u64)> =
            known.range(place(from)..place(end)).map(|(at, len)| (at.offset, at.offset + len)).collect();
        extents.push((end, end));
        let (mut at, mut lost) = (from, 0);
        for (begin, stop) in extents {
            if at < begin && file.next_data(at)?.is_some_and(|data| data < begin) {
                file.punch(at, begin - at)?;
                lost += begin - at;
            }
            at = at.max(stop);
        }
        file.sync_data().map(|()| lost)
    }
}
