//! Space that a writer has and the index does not know of yet.
//!
//! While one writer fills its run of a segment, others finish behind it and are committed. The commit says of everything
//! up to the end of the segment that it is accounted for ([`Segments::settle`]), and so notes the runs of writers that
//! are under way in `frees`: should they die, the next start gives the space back. The batch that brings such a run into
//! the index removes the note ([`Reservation::claim`]).

use std::io::IoSlice;
use std::sync::Arc;

use sateen_types::FsResult;
use sateen_types::limits::BLOCK_BYTES;

use super::disk::{SegmentFile, write_all_pieces_at};
use super::index::Batch;
use super::records::{SegmentExtent, SegmentPlace};
use super::segments::{Segments, io_error};
use super::streams;

/// What [`Segments`] know of a run that belongs to a writer.
pub(super) struct Reserved {
    len: u64,
    /// A commit has noted it in `frees`.
    noted: bool,
}

impl Segments {
    /// Space for `len` bytes (whole blocks) in one run. Given back when the reservation is dropped without
    /// [`Reservation::keep`].
    pub fn reserve(&self, len: u64) -> FsResult<Reservation<'_>> {
        debug_assert!(len > 0 && len.is_multiple_of(u64::from(BLOCK_BYTES)), "{len} is not whole blocks");
        self.capacity.admit(len, &*self.disk)?;
        let mut state = self.state.lock();
        match self.place(&mut state, len) {
            Ok((file, extent)) => {
                *state.live.entry(extent.segment).or_default() += len;
                state.reserved.insert(extent.place(), Reserved { len, noted: false });
                Ok(Reservation { segments: self, file, extent, kept: false })
            }
            Err(e) => {
                drop(state);
                self.capacity.release(len);
                Err(e)
            }
        }
    }

    /// Moves the settled place in `batch`, which ends commit `sequence`: every extent before it is in the index, noted in `frees`, or was given back,
    /// and every header is durable. Asked while no other batch is under way.
    pub fn settle(&self, batch: &mut Batch<'_>, sequence: u64) {
        let mut state = self.state.lock();
        for (place, reserved) in state.reserved.iter_mut().filter(|(_, reserved)| !reserved.noted) {
            batch.note_free(SegmentExtent { segment: place.segment, offset: place.offset, len: reserved.len });
            reserved.noted = true;
        }
        let end = match &state.active {
            Some(active) => SegmentPlace { segment: active.id, offset: active.end },
            None => SegmentPlace { segment: state.next, offset: 0 },
        };
        // What came since the commit took its list is not synced; all that is in it has rows of `pending`.
        let unsynced = state.without_header.keys().next().map(|id| SegmentPlace { segment: *id, offset: 0 });
        batch.set_settled(unsynced.map_or(end, |unsynced| unsynced.min(end)), sequence);
    }
}

/// A run of a segment that belongs to one writer.
pub struct Reservation<'a> {
    segments: &'a Segments,
    file: Arc<dyn SegmentFile>,
    extent: SegmentExtent,
    kept: bool,
}

impl Reservation<'_> {
    /// Where it is.
    pub fn extent(&self) -> SegmentExtent {
        self.extent
    }

    /// Writes `pieces`, one behind the other, at `at` of the run. What is written is part of every commit that starts
    /// after this returned.
    pub fn write(&self, at: u64, pieces: &mut [IoSlice<'_>]) -> FsResult<()> {
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        debug_assert!(at + len as u64 <= self.extent.len, "{len} bytes at {at} of {:?}", self.extent);
        write_all_pieces_at(&*self.file, pieces, self.extent.offset + at, streams::caching_of_write(len))
            .map_err(|e| io_error(&format!("write segment {}", self.extent.segment), &e))?;
        let mut state = self.segments.state.lock();
        state.unsynced.entry(self.extent.segment).or_insert_with(|| self.file.clone());
        Ok(())
    }

    /// The same run cut to its first `len` bytes (whole blocks); the rest is given back.
    #[must_use]
    pub fn shrink(mut self, len: u64) -> Self {
        debug_assert!(len > 0 && len <= self.extent.len && len.is_multiple_of(u64::from(BLOCK_BYTES)), "{len}");
        let surplus = self.extent.len - len;
        let mut state = self.segments.state.lock();
        *state.live.entry(self.extent.segment).or_default() -= surplus;
        let place = self.extent.place();
        let noted = state.reserved.get_mut(&place).is_some_and(|reserved| {
            reserved.len = len;
            reserved.noted
        });
        // What a commit has noted as free is nobody else's until the row is gone.
        if let Some(active) = &mut state.active
            && !noted
            && active.id == self.extent.segment
            && active.end == self.extent.offset + self.extent.len
        {
            active.end -= surplus;
        }
        drop(state);
        self.segments.capacity.release(surplus);
        self.extent.len = len;
        self
    }

    /// Part of the batch that brings the run into the index, made while no commit can end: it is not free.
    pub fn claim(&self, batch: &mut Batch<'_>) {
        let state = self.segments.state.lock();
        if state.reserved.get(&self.extent.place()).is_some_and(|reserved| reserved.noted) {
            batch.forget_free(self.extent);
        }
    }

    /// The index refers to the run now; its extents are freed one by one.
    pub fn keep(mut self) {
        self.segments.state.lock().reserved.remove(&self.extent.place());
        self.kept = true;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let mut batch = self.segments.index.batch();
        batch.note_free(self.extent);
        if let Err(e) = self.segments.index.write(batch) {
            tracing::warn!(extent = ?self.extent, error = %e, "cannot note what a failed write left");
        }
        let punched = self.file.punch(self.extent.offset, self.extent.len);
        let mut state = self.segments.state.lock();
        match punched {
            Ok(()) => state.punched.push(self.extent),
            Err(e) => tracing::warn!(extent = ?self.extent, error = %e, "cannot punch what a failed write left"),
        }
        state.reserved.remove(&self.extent.place());
        state.lose(self.extent);
        self.segments.capacity.release(self.extent.len);
    }
}
