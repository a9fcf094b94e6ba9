//! Makes the index anew from the segments alone, when it is lost or damaged.
//!
//! 1. find every run of the journal; 2. replay them in the order of their commits into an empty index beside the old
//! one, with all counts; 3. look at every extent: one that is a hole was given back, and what had said so went with its
//! segment; one that does not match its checksums keeps its record, so that reading it is an error and never other
//! bytes; 4. put the new index in the place of the old, which is kept as `index.damaged-<n>`.
//!
//! The records of the very last commit are taken only where their bytes are whole: the power may have gone in the middle
//! of it, and then the commit before is the truth. A run that is missing in between is reported; what it said is lost.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use sateen_runtime::durable;
use sateen_types::{FsResult, ObjectId};

use super::disk::{Caching, Disk, SegmentFile, SegmentId, read_exact_at};
use super::index::{Index, IndexCache};
use super::journal::{self, JournalKey, JournalRecord, RunHeader};
use super::keys::{ChunkKey, ObjectKey};
use super::mark;
use super::records::{ChunkRecord, ObjectRecord, SegmentPlace};
use super::segments::{HEADER_BYTES, ReadError, SegmentOwner, io_error, open_segment};

/// Damaged chunks that are named; the rest is only counted.
const NAMED_MAX: usize = 1000;
/// Chunks that are looked at before what follows from them is written.
const BATCH_CHUNKS: usize = 4096;

/// What a rebuild found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RebuildReport {
    /// Objects in the new index.
    pub objects: u64,
    /// Chunks in it.
    pub chunks: u64,
    /// Their space, in bytes.
    pub bytes: u64,
    /// Number of the last commit that the segments know.
    pub last_commit: u64,
    /// Chunks whose bytes are damaged; reading them is an error. At most the first thousand.
    pub damaged: Vec<(ObjectId, u64, String)>,
    /// How many there are.
    pub damaged_chunks: u64,
    /// Changes of the last commit that were not complete and were left out.
    pub left_out: u64,
    /// Chunks without a record of their object, which were left out.
    pub orphans: u64,
    /// Runs of the journal that are missing: what they said is not in the index. Segment and offset of the run after.
    pub missing_runs: Vec<SegmentPlace>,
    /// Segments of format 1, without a journal: what is in them is not in the index, unless it was moved since.
    pub without_journal: Vec<SegmentId>,
    /// Segments that cannot be segments of this file system.
    pub foreign: Vec<SegmentId>,
}

type Files = BTreeMap<SegmentId, (std::sync::Arc<dyn SegmentFile>, JournalKey)>;

/// Rebuilds the index of the store in `dir`, whose segments are in `disk`. Nobody else may use them.
pub fn rebuild(dir: &Path, disk: &dyn Disk, owner: &SegmentOwner, cache: &IndexCache) -> FsResult<RebuildReport> {
    let failed = |what: &str, e: &io::Error| io_error(what, e);
    let fresh = dir.join("index.new");
    clear(&fresh).map_err(|e| failed("remove what an earlier rebuild left", &e))?;
    let mut report = RebuildReport::default();
    let index = Index::open(&fresh, cache)?;
    let all = disk.list().map_err(|e| failed("list the segments", &e))?;
    let files = open_all(&all, disk, owner, &mut report)?;
    let runs = find_runs(&files, &mut report)?;
    report.last_commit = runs.last().map_or(0, |run| run.sequence);
    for run in &runs {
        replay(&index, &files, run, report.last_commit, &mut report)?;
    }
    verify(&index, &files, owner, &mut report)?;
    report.objects = index.objects()?;
    let mut batch = index.batch();
    let next = SegmentId(all.iter().max().map_or(1, |id| id.0 + 1));
    batch.set_next_segment(next);
    batch.set_committed(report.last_commit);
    batch.set_settled(SegmentPlace { segment: next, offset: 0 });
    index.write(batch)?;
    index.sync()?;
    drop(index);
    take_the_place(&fresh, &dir.join("index")).map_err(|e| failed("put the new index in its place", &e))?;
    Ok(report)
}

/// Puts the index in `fresh` where the store looks for it; what is there is kept beside it.
///
/// 1. exchange the two; 2. the new one's mark takes the place of the old one's; 3. the old one gets another name. Cut
/// off after 1 the old mark may refuse the new index, and a second rebuild is asked for.
fn take_the_place(fresh: &Path, place: &Path) -> io::Result<()> {
    let new_mark = || durable::rename(&mark::path_of(fresh), &mark::path_of(place));
    if !place.exists() {
        durable::rename(fresh, place)?;
        return new_mark();
    }
    let kept = (1u32..).map(|n| place.with_added_extension(format!("damaged-{n}"))).find(|path| !path.exists());
    durable::exchange(fresh, place)?;
    new_mark()?;
    durable::rename(fresh, &kept.ok_or(io::ErrorKind::AlreadyExists)?)
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
        match open_segment(disk, owner, id) {
            Ok((file, Some(key))) => {
                files.insert(id, (file, key));
            }
            Ok((_, None)) => report.without_journal.push(id),
            Err(ReadError::Io(e)) => return Err(io_error(&format!("open segment {id}"), &e)),
            Err(ReadError::Missing(_) | ReadError::Damaged(_)) => report.foreign.push(id),
        }
    }
    Ok(files)
}

/// The runs of all segments, in the order of their commits.
fn find_runs(files: &Files, report: &mut RebuildReport) -> FsResult<Vec<RunHeader>> {
    let mut runs: Vec<RunHeader> = Vec::new();
    for (&segment, (file, key)) in files {
        let from = SegmentPlace { segment, offset: HEADER_BYTES };
        let first = runs.len();
        journal::scan(&**file, key, from, |run| runs.push(run.header))
            .map_err(|e| io_error(&format!("read the journal of segment {segment}"), &e))?;
        let mut previous = 0;
        for run in &runs[first..] {
            if run.previous != previous {
                report.missing_runs.push(run.place);
            }
            previous = run.place.offset;
        }
    }
    runs.sort_unstable_by_key(|run| (run.sequence, run.part));
    // The last commit may have been cut off between its parts; then it was never answered.
    if let Some(last) = runs.last().copied() {
        let parts = runs.iter().filter(|run| run.sequence == last.sequence).count();
        if parts < last.parts as usize {
            report.left_out += parts as u64;
            runs.retain(|run| run.sequence < last.sequence);
        }
    }
    Ok(runs)
}

/// Brings what a run says into the index.
fn replay(index: &Index, files: &Files, run: &RunHeader, last: u64, report: &mut RebuildReport) -> FsResult<()> {
    let Some((file, key)) = files.get(&run.place.segment) else { return Ok(()) };
    let failed = |e: io::Error| io_error(&format!("read the journal of segment {}", run.place.segment), &e);
    let Some(run) = journal::read_run(&**file, key, run.place).map_err(failed)? else {
        report.missing_runs.push(run.place);
        return Ok(());
    };
    let mut batch = index.batch();
    for record in &run.records {
        match *record {
            JournalRecord::Chunk(key, record) => {
                if run.header.sequence == last
                    && let Some(record) = record
                    && !matches!(state_of(files, &record)?, State::Whole)
                {
                    report.left_out += 1;
                    continue;
                }
                batch.set_chunk(key, record.as_ref());
            }
            JournalRecord::Object(key, object) => {
                batch.add_objects(i64::from(index.object(key)?.is_none()));
                // Counted when the extents are looked at.
                batch.set_object(key, Some(&ObjectRecord { allocated: 0, chunks: 0, ..object }));
            }
            JournalRecord::Gone(key, _) => {
                batch.add_objects(-i64::from(index.object(key)?.is_some()));
                batch.set_object(key, None);
            }
        }
    }
    index.write(batch)
}

enum State {
    Whole,
    Hole,
    Damaged(String),
}

/// What is in the extent of a record.
fn state_of(files: &Files, record: &ChunkRecord) -> FsResult<State> {
    let Some((file, _)) = files.get(&record.segment) else {
        // A deleted segment had nothing live.
        return Ok(State::Hole);
    };
    let failed = |e: io::Error| io_error(&format!("read segment {}", record.segment), &e);
    let extent = record.extent();
    if file.next_data(extent.offset).map_err(failed)?.is_none_or(|data| data >= extent.offset + extent.len) {
        return Ok(State::Hole);
    }
    let mut stored = vec![0; record.stored_len as usize];
    match read_exact_at(&**file, &mut stored, record.offset, Caching::Stream) {
        Ok(()) if crc32c::crc32c(&stored) == record.stored_crc => Ok(State::Whole),
        Ok(()) => Ok(State::Damaged("its bytes do not match their checksum".to_owned())),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(State::Damaged("the segment is cut short".to_owned())),
        Err(e) => Err(failed(e)),
    }
}

/// Looks at every extent, drops the chunks whose extents are holes, and counts the rest.
fn verify(index: &Index, files: &Files, owner: &SegmentOwner, report: &mut RebuildReport) -> FsResult<()> {
    let mut from: Option<ChunkKey> = None;
    let mut object: Option<(ObjectKey, Option<ObjectRecord>)> = None;
    loop {
        let rows = index.chunks_from(from, BATCH_CHUNKS)?;
        let mut batch = index.batch();
        for (key, record) in &rows {
            if object.as_ref().is_none_or(|(now, _)| *now != key.object) {
                finish(&mut batch, object.take(), index)?;
                let counted = index.object(key.object)?.map(|o| ObjectRecord { allocated: 0, chunks: 0, ..o });
                object = Some((key.object, counted));
            }
            let Some((_, Some(counted))) = &mut object else {
                report.orphans += 1;
                batch.set_chunk(*key, None);
                continue;
            };
            match state_of(files, record)? {
                State::Hole => {
                    batch.set_chunk(*key, None);
                    continue;
                }
                State::Whole => {}
                State::Damaged(why) => {
                    report.damaged_chunks += 1;
                    if report.damaged.len() < NAMED_MAX {
                        report.damaged.push((key.object.object(owner.fs), key.number, why));
                    }
                }
            }
            let extent = record.extent();
            batch.occupy(extent);
            counted.allocated += extent.len;
            counted.chunks += 1;
            report.chunks += 1;
            report.bytes += extent.len;
        }
        if rows.len() < BATCH_CHUNKS {
            finish(&mut batch, object.take(), index)?;
            return index.write(batch);
        }
        index.write(batch)?;
        from = rows.last().map(|(key, _)| key.object.chunk(key.number + 1));
    }
}

/// Writes the counts of an object, if they differ from what the journal said.
fn finish(
    batch: &mut super::index::Batch<'_>,
    object: Option<(ObjectKey, Option<ObjectRecord>)>,
    index: &Index,
) -> FsResult<()> {
    if let Some((key, Some(counted))) = object
        && index.object(key)? != Some(counted)
    {
        batch.set_object(key, Some(&counted));
    }
    Ok(())
}
