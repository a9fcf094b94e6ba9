//! How an empty segment goes: what its journal says and is still true is written again, then the file is deleted.
//!
//! A record of the journal hides older ones of the same key in older segments. A segment may therefore only go when
//!
//! - every record of it that is still true is part of a later commit;
//! - the extents of every hidden record are holes, durably, so that a record that nothing hides any more is seen to be
//!   dead. Segments go one at a time, lowest first, and each is durably gone before the next.
//!
//! That an object is gone has to be remembered only while a segment is left in which it may have been mentioned: one
//! from [`ObjectRecord::born`](super::records::ObjectRecord::born) on.

use sateen_types::FsResult;

use super::Store;
use super::disk::SegmentId;
use super::journal::JournalRecord;
use super::segments::io_error;

/// Records that are looked up while nothing can change. Bounds how long writers wait.
const LOOKUPS_MAX: usize = 256;

impl Store {
    /// The lowest empty segment, if it can be deleted now or after one more commit; what it still has to tell is put
    /// into the next commit. `Some((segment, whether that commit is needed))`.
    pub(super) fn retire_next(&self) -> FsResult<Option<(SegmentId, bool)>> {
        let Some(id) = self.segments.doomed() else { return Ok(None) };
        self.segments.finish_punches(0)?;
        let mut records = Vec::new();
        self.segments.journal_of(id, |run| records.extend(run.records))?;
        let mut needed = false;
        for some in records.chunks(LOOKUPS_MAX) {
            let _gate = self.gate.write();
            let mut touched = self.touched.lock();
            for record in some {
                if self.is_needed(record, id)? {
                    touched.again(*record);
                    needed = true;
                }
            }
        }
        Ok(Some((id, needed)))
    }

    /// Whether `record` of the journal in `segment` is true, and not only because nothing says otherwise.
    fn is_needed(&self, record: &JournalRecord, segment: SegmentId) -> FsResult<bool> {
        Ok(match record {
            JournalRecord::Chunk(key, Some(chunk)) => self.index.chunk(*key)?.as_ref() == Some(chunk),
            // Its extent is a hole, and every older one of the chunk.
            JournalRecord::Chunk(_, None) => false,
            JournalRecord::Object(key, object) => self.index.object(*key)?.as_ref() == Some(object),
            JournalRecord::Gone(key, born) => {
                self.index.object(*key)?.is_none() && self.segments.any_between(*born, segment)?
            }
        })
    }

    /// At start: deletes what has nothing to tell; the rest waits for the first commit.
    pub(super) fn retire_at_start(&self) -> FsResult<()> {
        let mut spared = Vec::new();
        while let Some((segment, needed)) = self.retire_next()? {
            if needed {
                self.segments.spare(segment);
                spared.push(segment);
            } else {
                self.delete_retired(segment)?;
            }
        }
        self.segments.doom(&spared);
        Ok(())
    }

    /// Deletes a segment that has nothing to tell any more, durably.
    pub(super) fn delete_retired(&self, id: SegmentId) -> FsResult<()> {
        self.segments.delete_doomed(id)?;
        self.segments.disk().sync_dir().map_err(|e| io_error("sync the directory of the segments", &e))
    }
}
