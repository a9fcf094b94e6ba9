//! Makes the index anew from the segments alone, when it is lost or damaged.
//!
//! 1. find the last commit that the journal knows;
//! 2. replay all runs, which lie in the segments in the order of their commits, into an empty index beside the old one;
//! 3. look at every extent: one that is a hole was given back, and what had said so went with its segment; count what is
//!    there;
//! 4. note what nobody refers to any more as free;
//! 5. put the new index in the place of the old, which is kept as `index.damaged-<n>`.
//!
//! What the last commit changed becomes rows of `pending`, with what was there before: the power may have gone in the
//! middle of it. The next start decides chunk by chunk, as after any crash, and writes into the journal what it decided.
//!
//! Nothing of the segments changes. A run that is missing in between is reported: what it said is lost, and may bring
//! back something older. Then nothing is noted as free, and segments that nothing refers to are named, to be put aside.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sateen_runtime::durable;
use sateen_types::{FsCode, FsError, FsResult};

use super::disk::{Disk, SegmentFile, SegmentId};
use super::index::{Batch, Index, IndexCache};
use super::journal::{self, JournalKey, JournalRecord, Run, RunHeader};
use super::keys::{ChunkKey, ObjectKey, WHOLE_OBJECT};
use super::mark;
use super::records::{ChunkRecord, ObjectRecord, PendingRecord, SegmentExtent, SegmentPlace};
use super::segments::{HEADER_BYTES, ReadError, SegmentOwner, header_never_came, io_error, open_segment};

/// Rows that are written at once.
const BATCH_ROWS: usize = 4096;

/// What a rebuild found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RebuildReport {
    /// Objects in the new index.
    pub objects: u64,
    /// Chunks in it.
    pub chunks: u64,
    /// Their space, in bytes.
    pub bytes: u64,
    /// Segments that were read.
    pub segments: u64,
    /// Number of the last commit that the segments know.
    pub last_commit: u64,
    /// Where the old index is now, if there was one.
    pub kept: Option<PathBuf>,
    /// Chunks without a record of their object, which were left out.
    pub orphans: u64,
    /// Places in the segments before which a part of the journal is missing.
    pub missing_runs: Vec<SegmentPlace>,
    /// Segments with a damaged header: chunks in them are known by others, their own journal cannot be read.
    pub headless: Vec<SegmentId>,
    /// Segments that nothing refers to, and that may hold something all the same because a part of the journal is
    /// missing, or all of it.
    pub unclaimed: Vec<SegmentId>,
    /// Bytes that nobody refers to; the next start gives them back.
    pub freed: u64,
}

impl RebuildReport {
    /// Whether the journal was whole.
    pub fn is_whole(&self) -> bool {
        self.missing_runs.is_empty() && self.headless.is_empty() && self.orphans == 0
    }
}

/// A segment, and the key of its journal if it has one.
type Files = BTreeMap<SegmentId, (Arc<dyn SegmentFile>, Option<JournalKey>)>;

/// Rebuilds the index of the store in `dir`, whose segments are in `disk`. Nobody else may use them.
pub fn rebuild(dir: &Path, disk: &dyn Disk, owner: &SegmentOwner, cache: &IndexCache) -> FsResult<RebuildReport> {
    let failed = |what: &str, e: &io::Error| io_error(what, e);
    let (fresh, place) = (dir.join("index.new"), dir.join("index"));
    clear(&fresh).map_err(|e| failed("remove what an earlier rebuild left", &e))?;
    let mut all = disk.list().map_err(|e| failed("list the segments", &e))?;
    all.sort_unstable();
    let mut report = RebuildReport { segments: all.len() as u64, ..RebuildReport::default() };
    let mut files = open_all(&all, disk, owner, &mut report)?;
    let last = last_commit(&files)?;
    report.last_commit = last.map_or(0, |(_, sequence)| sequence);
    leave_out_uncommitted(&mut files, last.map(|(segment, _)| segment), &mut report)?;
    let index = Index::open(&fresh, cache)?;
    let complete = replay_all(&index, &files, &mut report)?;
    let without = files.iter().find(|(id, (_, key))| key.is_none() && !report.headless.contains(id));
    if let (Some((id, _)), false) = (without, complete) {
        drop(index);
        let _ = clear(&fresh);
        return Err(FsError::new(FsCode::NotSupported, format!("segment {id} and those before it have no journal"))
            .with_hint("this OST was never served by a release that writes one; restore its index from a backup"));
    }
    let counted = Count { index: &index, files: &files, differs: false }.run(&mut report)?;
    claim_runs(&index, &files)?;
    note_free(&index, &files, &mut report)?;
    report.objects = index.objects()?;
    let mut batch = index.batch();
    let next = SegmentId(all.last().map_or(1, |id| id.0 + 1));
    batch.set_next_segment(next);
    batch.set_settled(SegmentPlace { segment: next, offset: 0 }, report.last_commit);
    // Otherwise the next start writes down what is here.
    batch.set_journal(counted && report.is_whole());
    index.write(batch)?;
    index.sync()?;
    drop(index);
    report.kept = take_the_place(&fresh, &place).map_err(|e| failed("put the new index in its place", &e))?;
    Ok(report)
}

/// Puts the index in `fresh` where the store looks for it; what is there is kept beside it, under the name returned.
///
/// Order: the two are exchanged; the new one's mark takes the place of the old one's; the old one gets another name. Cut
/// off after the first step, the old mark may refuse the new index, and a second rebuild is asked for.
fn take_the_place(fresh: &Path, place: &Path) -> io::Result<Option<PathBuf>> {
    let new_mark = || durable::rename(&mark::path_of(fresh), &mark::path_of(place));
    if !place.exists() {
        durable::rename(fresh, place)?;
        new_mark()?;
        return Ok(None);
    }
    let kept = (1u32..).map(|n| place.with_added_extension(format!("damaged-{n}"))).find(|path| !path.exists());
    let kept = kept.ok_or(io::ErrorKind::AlreadyExists)?;
    durable::exchange(fresh, place)?;
    new_mark()?;
    durable::rename(fresh, &kept)?;
    Ok(Some(kept))
}

/// Removes what a rebuild has left that was cut off.
fn clear(fresh: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    };
    gone(std::fs::remove_dir_all(fresh))?;
    gone(std::fs::remove_file(mark::path_of(fresh)))
}

fn open_all(all: &[SegmentId], disk: &dyn Disk, owner: &SegmentOwner, report: &mut RebuildReport) -> FsResult<Files> {
    let mut files = Files::new();
    for &id in all {
        let failed = |e: io::Error| io_error(&format!("open segment {id}"), &e);
        let opened = match open_segment(disk, owner, id) {
            Ok(opened) => opened,
            Err(ReadError::Io(e)) => return Err(failed(e)),
            // What is in it is still what its checksum says.
            Err(ReadError::Missing(_) | ReadError::Damaged(_)) => {
                report.headless.push(id);
                (disk.open(id).map_err(failed)?, None)
            }
        };
        files.insert(id, opened);
    }
    Ok(files)
}

/// Leaves out the segments whose header a power cut took: behind the last run, and without one of their own, they hold
/// nothing that a commit was answered for ([`header_never_came`]). The next start deletes them.
///
/// Without any run nobody can tell them from segments that had no journal and whose headers are damaged: those that hold
/// something are named, to be put aside.
fn leave_out_uncommitted(files: &mut Files, last_run: Option<SegmentId>, report: &mut RebuildReport) -> FsResult<()> {
    for id in std::mem::take(&mut report.headless) {
        let failed = |e: io::Error| io_error(&format!("read segment {id}"), &e);
        let behind = last_run.is_none_or(|last| id > last);
        match files.get(&id) {
            Some((file, _)) if behind && header_never_came(&**file).map_err(failed)? => {
                if last_run.is_none() && file.length().map_err(failed)? > HEADER_BYTES {
                    report.unclaimed.push(id);
                }
                files.remove(&id);
            }
            _ => report.headless.push(id),
        }
    }
    Ok(())
}

/// Visits the runs of one segment.
fn scan(files: &Files, segment: SegmentId, visit: impl FnMut(Run)) -> FsResult<()> {
    let Some((file, Some(key))) = files.get(&segment) else { return Ok(()) };
    journal::scan(&**file, key, SegmentPlace { segment, offset: HEADER_BYTES }, visit)
        .map_err(|e| io_error(&format!("read the journal of segment {segment}"), &e))
}

/// The last segment with a run of the journal, and the number of the last commit.
fn last_commit(files: &Files) -> FsResult<Option<(SegmentId, u64)>> {
    for &segment in files.keys().rev() {
        let mut last = 0;
        scan(files, segment, |run| last = last.max(run.header.sequence))?;
        if last > 0 {
            return Ok(Some((segment, last)));
        }
    }
    Ok(None)
}

/// Replays the whole journal; whether it once said everything that was there before it.
fn replay_all(index: &Index, files: &Files, report: &mut RebuildReport) -> FsResult<bool> {
    let mut complete = false;
    // The last run so far.
    let mut before: Option<RunHeader> = None;
    for &segment in files.keys() {
        let mut previous = 0;
        let mut outcome = Ok(());
        scan(files, segment, |run| {
            let header = run.header;
            // Runs of a segment are chained; the first one follows the last of the segment before, if that is here.
            let follows = header.previous == previous
                && before.is_none_or(|before| {
                    before.place.segment.0 + 1 < segment.0 || header.sequence <= before.sequence + 1
                });
            if !follows {
                report.missing_runs.push(header.place);
            }
            previous = header.place.offset;
            before = Some(header);
            complete |= run.records.contains(&JournalRecord::Complete);
            if outcome.is_ok() {
                let last = header.sequence == report.last_commit;
                outcome = replay(index, files, &run, last.then_some(&report.headless[..]));
            }
        })?;
        outcome?;
    }
    Ok(complete)
}

/// Brings what a run says into the index. What the last one says is not known to be durable, unless it is in a segment
/// that cannot be read anyway; those are named then.
fn replay(index: &Index, files: &Files, run: &Run, last: Option<&[SegmentId]>) -> FsResult<()> {
    let mut batch = index.batch();
    for record in &run.records {
        let (JournalRecord::Chunk(ChunkKey { object: key, .. }, _)
        | JournalRecord::Object(key, _)
        | JournalRecord::Gone(key, _)) = *record
        else {
            continue;
        };
        let object_before = index.object(key)?;
        match *record {
            JournalRecord::Chunk(key, record) => {
                let chunk_before = index.chunk(key)?;
                if last.is_some_and(|unreadable| record.is_none_or(|r| !unreadable.contains(&r.segment)))
                    && !is_given_back(files, chunk_before, record)?
                {
                    let object_size = object_before.map_or(0, |object| object.size);
                    let row = PendingRecord { before: chunk_before, between: None, object_size };
                    batch.set_pending(key, Some(&row));
                }
                batch.set_chunk(key, record.as_ref());
            }
            JournalRecord::Object(key, object) => {
                batch.add_objects(i64::from(object_before.is_none()));
                batch.set_object(key, Some(&object));
            }
            JournalRecord::Gone(key, _) => {
                batch.add_objects(-i64::from(object_before.is_some()));
                batch.set_object(key, None);
            }
            JournalRecord::Complete => {}
        }
        if last.is_some() && !matches!(record, JournalRecord::Chunk(..)) {
            let object_size = object_before.map_or(0, |object| object.size);
            let row = PendingRecord { before: None, between: None, object_size };
            batch.set_pending(key.chunk(WHOLE_OBJECT), Some(&row));
        }
        // One by one: the next record may be of the same object.
        index.write(std::mem::replace(&mut batch, index.batch()))?;
    }
    Ok(())
}

/// Whether the extent that `now` replaces is a hole already: the commit that replaced it has ended.
fn is_given_back(files: &Files, before: Option<ChunkRecord>, now: Option<ChunkRecord>) -> FsResult<bool> {
    match before.filter(|before| Some(before.extent()) != now.map(|now| now.extent())) {
        Some(before) => is_hole(files, &before),
        None => Ok(false),
    }
}

/// Whether the extent of a record was given back.
fn is_hole(files: &Files, record: &ChunkRecord) -> FsResult<bool> {
    let Some((file, _)) = files.get(&record.segment) else {
        // A deleted segment had nothing live.
        return Ok(true);
    };
    let extent = record.extent();
    let data = file.next_data(extent.offset).map_err(|e| io_error(&format!("read segment {}", record.segment), &e))?;
    Ok(data.is_none_or(|data| data >= extent.offset + extent.len))
}

/// Looks at every extent, drops the chunks whose extents are holes, and counts the rest.
struct Count<'a> {
    index: &'a Index,
    files: &'a Files,
    /// Something is not as the journal said.
    differs: bool,
}

impl Count<'_> {
    /// Whether everything is as the journal said. Until [`note_free`] what is in use is noted in `frees`.
    fn run(mut self, report: &mut RebuildReport) -> FsResult<bool> {
        let pending: BTreeMap<ChunkKey, PendingRecord> = self.index.pending()?.into_iter().collect();
        let mut batch = self.index.batch();
        for extent in pending.iter().flat_map(|(key, row)| {
            let now = self.index.chunk(*key).ok().flatten().map(|record| record.extent());
            row.before.map(|before| before.extent()).filter(|before| Some(*before) != now)
        }) {
            batch.occupy(extent);
            batch.note_free(extent);
        }
        self.index.write(batch)?;
        let mut object: Option<(ObjectKey, Option<ObjectRecord>)> = None;
        let mut from: Option<ChunkKey> = None;
        loop {
            let rows = self.index.chunks_from(from, BATCH_ROWS)?;
            let mut batch = self.index.batch();
            for (key, record) in &rows {
                if object.as_ref().is_none_or(|(now, _)| *now != key.object) {
                    self.finish(&mut batch, object.take())?;
                    let counted = self.index.object(key.object)?.map(|o| ObjectRecord { allocated: 0, chunks: 0, ..o });
                    object = Some((key.object, counted));
                }
                let counted = object.as_mut().and_then(|(_, counted)| counted.as_mut());
                if self.chunk(&mut batch, *key, record, pending.contains_key(key), counted, report)? {
                    report.chunks += 1;
                    report.bytes += record.extent().len;
                }
            }
            if rows.len() < BATCH_ROWS {
                self.finish(&mut batch, object.take())?;
                self.index.write(batch)?;
                self.childless()?;
                return Ok(!self.differs);
            }
            self.index.write(batch)?;
            from = rows.last().map(|(key, _)| key.object.chunk(key.number + 1));
        }
    }

    /// Counts a chunk, or drops it.
    fn chunk(
        &mut self,
        batch: &mut Batch<'_>,
        key: ChunkKey,
        record: &ChunkRecord,
        pending: bool,
        object: Option<&mut ObjectRecord>,
        report: &mut RebuildReport,
    ) -> FsResult<bool> {
        // What is pending is looked at by the next start.
        let there = pending || !is_hole(self.files, record)?;
        let Some(object) = object.filter(|_| there) else {
            // A chunk that is there must have an object; one that was given back need not.
            report.orphans += u64::from(there);
            batch.set_chunk(key, None);
            return Ok(false);
        };
        let extent = record.extent();
        batch.occupy(extent);
        batch.note_free(extent);
        object.allocated += extent.len;
        object.chunks += 1;
        Ok(true)
    }

    /// Writes the counts of an object, if they differ from what the journal said.
    fn finish(&mut self, batch: &mut Batch<'_>, object: Option<(ObjectKey, Option<ObjectRecord>)>) -> FsResult<()> {
        if let Some((key, Some(counted))) = object
            && self.index.object(key)? != Some(counted)
        {
            self.differs = true;
            batch.set_object(key, Some(&counted));
        }
        Ok(())
    }

    /// Objects that have no chunk any more, but counts.
    fn childless(&mut self) -> FsResult<()> {
        let mut after = None;
        loop {
            let rows = self.index.objects_after(after, BATCH_ROWS)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            after = Some(*last);
            let mut batch = self.index.batch();
            for (key, record) in rows.into_iter().filter(|(_, record)| record.allocated > 0 || record.chunks > 0) {
                if self.index.last_chunk(key, u64::MAX)?.is_none() {
                    self.differs = true;
                    batch.set_object(key, Some(&ObjectRecord { allocated: 0, chunks: 0, ..record }));
                }
            }
            self.index.write(batch)?;
        }
    }
}

/// Notes the extents of the journal itself as in use.
fn claim_runs(index: &Index, files: &Files) -> FsResult<()> {
    for &segment in files.keys() {
        let mut batch = index.batch();
        scan(files, segment, |run| {
            batch.note_free(SegmentExtent { segment, offset: run.header.place.offset, len: run.header.length });
        })?;
        index.write(batch)?;
    }
    Ok(())
}

/// Turns what `frees` holds, everything that is in use, into its opposite: what of the segments is not.
fn note_free(index: &Index, files: &Files, report: &mut RebuildReport) -> FsResult<()> {
    let mut batch = index.batch();
    let mut rows = 0;
    // The extents in use of the segment that is gone through, and up to where it has been.
    let mut now: Option<(SegmentId, u64)> = None;
    let live: std::collections::BTreeSet<SegmentId> =
        index.segments()?.into_iter().filter(|(_, bytes)| *bytes > 0).map(|(id, _)| id).collect();
    let mut free = |batch: &mut Batch<'_>, id: SegmentId, from: u64, to: Option<u64>| -> FsResult<()> {
        let Some((file, _)) = files.get(&id) else { return Ok(()) };
        let failed = |e: io::Error| io_error(&format!("look for free space in segment {id}"), &e);
        let end = super::records::round_to_blocks(file.length().map_err(failed)?);
        let to = to.unwrap_or(end).min(end);
        if from >= to || file.next_data(from).map_err(failed)?.is_none_or(|data| data >= to) {
            return Ok(());
        }
        if report.is_whole() {
            report.freed += to - from;
            batch.note_free(SegmentExtent { segment: id, offset: from, len: to - from });
        } else if !live.contains(&id) && report.unclaimed.last() != Some(&id) {
            report.unclaimed.push(id);
        }
        Ok(())
    };
    let mut segments = files.keys().copied().peekable();
    let mut failed = Ok(());
    index.visit_frees(|extent| {
        let mut step = |batch: &mut Batch<'_>| {
            batch.forget_free(extent);
            // Segments in which nothing is in use.
            while let Some(id) = segments.next_if(|id| *id <= extent.segment) {
                if let Some((segment, at)) = now.take() {
                    free(batch, segment, at, None)?;
                }
                now = Some((id, HEADER_BYTES));
            }
            if let Some((segment, at)) = &mut now
                && *segment == extent.segment
            {
                free(batch, *segment, *at, Some(extent.offset))?;
                *at = (*at).max(extent.offset + extent.len);
            }
            Ok(())
        };
        rows += 1;
        failed = step(&mut batch);
        if failed.is_ok() && rows % BATCH_ROWS == 0 {
            failed = index.write(std::mem::replace(&mut batch, index.batch()));
        }
        failed.is_ok()
    })?;
    failed?;
    while let Some((segment, at)) = now.take() {
        free(&mut batch, segment, at, None)?;
        now = segments.next().map(|id| (id, HEADER_BYTES));
    }
    for id in segments {
        free(&mut batch, id, HEADER_BYTES, None)?;
    }
    index.write(batch)
}
