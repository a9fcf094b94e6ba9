//! How an empty segment goes: what its journal says and is still true is written again, then the file is deleted.
//!
//! A record of the journal hides older ones of the same key in older segments. A segment may therefore only go when
//!
//! - every record of it that is still true is part of a later commit, and so is whatever has made another one untrue;
//! - the extents of every hidden record are holes, durably, so that a record that nothing hides any more is seen to be
//!   dead. Segments go one at a time, lowest first, and each is durably gone before the next.
//!
//! That an object is gone has to be remembered only while a segment is left in which it may have been mentioned: one
//! from [`ObjectRecord::born`](super::records::ObjectRecord::born) on. An object that is made again takes over that
//! duty from the record that it was gone.
//!
//! A segment whose journal is mostly true stays until the next start: writing it again would not save space, and where
//! the journal alone fills segments it would have no end.

use std::sync::atomic::Ordering;

use sateen_types::FsResult;

use super::Store;
use super::disk::SegmentId;
use super::journal::{JournalRecord, RunHeader};
use super::keys::ObjectKey;
use super::records::{ObjectRecord, SegmentPlace};
use super::segments::{HEADER_BYTES, io_error};

/// Records that are looked up while nothing can change. Bounds how long writers wait.
const LOOKUPS_MAX: usize = 256;
/// Records that are written again by one commit. Bounds memory.
const RECORDS_MAX: usize = 64 << 10;

/// What a look at the journal of a segment came to.
#[derive(Default)]
struct Needed {
    records: u64,
    of: u64,
    journal_bytes: u64,
}

impl Store {
    /// Deletes the segments that are empty, after the commits that this takes.
    pub(super) fn retire(&self) -> FsResult<()> {
        while let Some(id) = self.segments.doomed() {
            self.segments.finish_punches(0)?;
            let files = self.segments.list()?;
            let needed = self.needed(id, &files, false)?;
            if needed.records * 2 > needed.of && needed.journal_bytes * 2 > self.segments.segment_bytes() {
                self.segments.spare(id);
                continue;
            }
            if needed.records > 0 {
                self.needed(id, &files, true)?;
                self.commit_touched()?;
            } else {
                // What hides a record may not be committed yet: a power cut would take it, and the record with its segment.
                self.commit_once()?;
            }
            self.segments.delete_doomed(id)?;
            self.segments.disk().sync_dir().map_err(|e| io_error("sync the directory of the segments", &e))?;
        }
        Ok(())
    }

    /// At start, when nothing is uncommitted: what needs no commit; the rest waits for the first.
    pub(super) fn retire_at_start(&self) -> FsResult<()> {
        let mut spared = Vec::new();
        while let Some(id) = self.segments.doomed() {
            self.segments.finish_punches(0)?;
            if self.needed(id, &self.segments.list()?, false)?.records > 0 {
                self.segments.spare(id);
                spared.push(id);
            } else {
                self.segments.delete_doomed(id)?;
                self.segments.disk().sync_dir().map_err(|e| io_error("sync the directory of the segments", &e))?;
            }
        }
        self.segments.doom(&spared);
        Ok(())
    }

    /// Counts what the journal of a segment says and is still true; with `again` it becomes part of the next commit, or
    /// of several.
    fn needed(&self, id: SegmentId, files: &[SegmentId], again: bool) -> FsResult<Needed> {
        let mut needed = Needed::default();
        let mut failed = Ok(());
        let whole = self.segments.journal_of(id, |run| {
            if failed.is_ok() {
                failed = self.needed_of_run(id, files, &run.header, &run.records, again, &mut needed);
            }
        })?;
        failed?;
        if !whole && !again && self.segments.was_settled(SegmentPlace { segment: id, offset: HEADER_BYTES }) {
            tracing::warn!(fs = %self.owner.fs, segment = %id, "its journal is damaged; the next start writes the journal anew");
            let mut batch = self.index.batch();
            batch.set_journal(false);
            self.index.write(batch)?;
        }
        Ok(needed)
    }

    fn needed_of_run(
        &self,
        id: SegmentId,
        files: &[SegmentId],
        header: &RunHeader,
        records: &[JournalRecord],
        again: bool,
        needed: &mut Needed,
    ) -> FsResult<()> {
        needed.of += records.len() as u64;
        needed.journal_bytes += header.length;
        for some in records.chunks(LOOKUPS_MAX) {
            let full = {
                let _gate = self.gate.write();
                let mut touched = self.touched.lock();
                for record in some {
                    let inherits = self.inherits(record, id, files)?;
                    if inherits.is_some() || self.is_needed(record, id, files)? {
                        needed.records += 1;
                    } else {
                        continue;
                    }
                    match inherits.filter(|_| again) {
                        Some((key, object)) => {
                            let mut batch = self.index.batch();
                            batch.set_object(key, Some(&object));
                            self.index.write(batch)?;
                            touched.object(key, object);
                        }
                        None if again => touched.again(*record),
                        None => {}
                    }
                }
                again && touched.keys() >= RECORDS_MAX
            };
            if full {
                self.commit_touched()?;
            }
        }
        Ok(())
    }

    /// Whether `record` of the journal in `segment` is true, and not only because nothing says otherwise.
    fn is_needed(&self, record: &JournalRecord, segment: SegmentId, files: &[SegmentId]) -> FsResult<bool> {
        let any_from = |from: SegmentId| files.iter().any(|file| (from..segment).contains(file));
        Ok(match record {
            JournalRecord::Chunk(key, Some(chunk)) => self.index.chunk(*key)?.as_ref() == Some(chunk),
            // Its extent is a hole, and every older one of the chunk.
            JournalRecord::Chunk(_, None) => false,
            JournalRecord::Object(key, object) => self.index.object(*key)?.as_ref() == Some(object),
            JournalRecord::Gone(key, born) => any_from(*born) && self.index.object(*key)?.is_none(),
            JournalRecord::Complete => any_from(SegmentId(0)),
        })
    }

    /// The object that was made again after `record` said that it is gone, as it is when it remembers the segments from
    /// before.
    fn inherits(
        &self,
        record: &JournalRecord,
        segment: SegmentId,
        files: &[SegmentId],
    ) -> FsResult<Option<(ObjectKey, ObjectRecord)>> {
        let JournalRecord::Gone(key, born) = record else { return Ok(None) };
        if !files.iter().any(|file| (*born..segment).contains(file)) {
            return Ok(None);
        }
        let object = self.index.object(*key)?.filter(|object| object.born > *born);
        Ok(object.map(|object| (*key, ObjectRecord { born: *born, ..object })))
    }

    /// Commits what was put into `touched` to be written again.
    fn commit_touched(&self) -> FsResult<()> {
        self.dirty.store(true, Ordering::Release);
        self.commit_once()
    }
}
