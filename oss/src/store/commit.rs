//! Commit: everything answered so far becomes durable.
//!
//! Callers that come while a commit runs share the next one. A commit is:
//!
//! 1. take the epoch of pending changes and what it has changed, together; write the latter into the journal
//!    ([`super::journal`]); take the list of unsynced segments, which has the journal's;
//! 2. fdatasync the segments, fsync their directory if files came;
//! 3. end the epoch: one batch removes its rows, notes the extents that are dead now and those of writers that are under
//!    way, forgets those whose punch step 2 has made durable, and notes up to where every extent is accounted for
//!    ([`super::reservation`]);
//! 4. sync the index's log;
//! 5. give the dead extents back, and delete the segments that are empty with that.
//!
//! Who waits is answered after 4: the rest makes nothing more durable. The next commit waits for it.
//!
//! A crash before 4 leaves the rows: recovery checks those chunks and keeps what is whole. A crash after 4 leaves at
//! most dead extents, which are noted. An error in 2 to 4 is final for the store.

use std::sync::atomic::Ordering;

use parking_lot::{Condvar, Mutex};
use sateen_types::{FsResult, Verifier};

use super::Store;
use super::journal;
use super::records::SegmentExtent;
use super::segments::io_error;

/// Punches of segments that are not written any more, and so are not synced by commits, that may wait for a sync of
/// their own. Bounds the rows of `frees`, and with them what a restart punches again.
pub(super) const PUNCHES_MAX: usize = 1024;

/// Who commits now and who waits.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    running: bool,
    started: u64,
    finished: u64,
}

impl Store {
    /// Makes everything answered before this call durable. The same verifier as a write's means that the write is safe.
    pub fn commit(&self) -> FsResult<Verifier> {
        let mut outcome = None;
        self.commit_and(|told| outcome = Some(told));
        outcome.expect("every commit has an outcome")
    }

    /// [`Store::commit`] that tells its outcome as soon as it is known, which may be some time before this returns.
    pub fn commit_and(&self, tell: impl FnOnce(FsResult<Verifier>)) {
        let mut tell = Some(tell);
        // The outcome of a commit that failed is kept in the store, where every waiter finds it.
        let mut tell_once = || tell.take().map(|tell| tell(self.check_healthy().map(|()| self.verifier)));
        let mut state = self.commits.state.lock();
        // A commit that runs already may have taken its list before our last write was answered.
        let wanted = state.started + 1;
        while state.finished < wanted {
            if state.running {
                self.commits.changed.wait(&mut state);
                continue;
            }
            state.running = true;
            state.started += 1;
            drop(state);
            let dead = self.make_durable();
            state = self.commits.state.lock();
            state.finished = state.started;
            self.commits.changed.notify_all();
            let served = state.finished >= wanted;
            drop(state);
            if served {
                tell_once();
            }
            let _ = dead.and_then(|dead| self.tidy(&dead));
            state = self.commits.state.lock();
            state.running = false;
            self.commits.changed.notify_all();
        }
        drop(state);
        tell_once();
    }

    /// A commit from its beginning to its end.
    pub(super) fn commit_now(&self) -> FsResult<()> {
        let dead = self.make_durable()?;
        self.tidy(&dead)
    }

    /// Step 5.
    fn tidy(&self, dead: &[SegmentExtent]) -> FsResult<()> {
        self.give_back(dead)?;
        self.retire().map_err(|e| self.fail(&e))
    }

    fn give_back(&self, dead: &[SegmentExtent]) -> FsResult<()> {
        self.segments.reclaim(dead).map_err(|e| self.fail(&e))?;
        self.segments.finish_punches(PUNCHES_MAX).map_err(|e| self.fail(&e))
    }

    /// A commit that leaves empty segments where they are.
    pub(super) fn commit_once(&self) -> FsResult<()> {
        let dead = self.make_durable()?;
        self.give_back(&dead)
    }

    /// Steps 1 to 4. Returns the extents that are dead now.
    fn make_durable(&self) -> FsResult<Vec<SegmentExtent>> {
        self.check_healthy()?;
        let touched = {
            let _gate = self.gate.write();
            // A writer may have failed before it let the gate go. What it changed is not in the index.
            self.check_healthy()?;
            if !self.dirty.swap(false, Ordering::AcqRel) {
                return Ok(Vec::new());
            }
            self.pending.lock().begin();
            std::mem::take(&mut *self.touched.lock())
        };
        let sequence = self.journaled.load(Ordering::Acquire) + 1;
        let bodies = journal::bodies(touched.into_records());
        self.segments.append_journal(sequence, &bodies).map_err(|e| self.fail(&e))?;
        self.journaled.store(sequence, Ordering::Release);
        let unsynced = self.segments.take_unsynced();
        let punched = unsynced.sync(&self.segments).map_err(|e| self.fail(&io_error("sync the segments", &e)))?;
        let dead = {
            let _gate = self.gate.write();
            self.check_healthy()?;
            let settled = self.pending.lock().end();
            let mut batch = self.index.batch();
            self.segments.settle(&mut batch, sequence);
            for extent in &punched {
                batch.forget_free(*extent);
            }
            for (key, row) in &settled.rows {
                batch.set_pending(*key, row.as_ref());
            }
            for extent in &settled.dead {
                batch.release(*extent);
            }
            self.index.write(batch).map_err(|e| self.fail(&e))?;
            settled.dead
        };
        self.index.sync().map_err(|e| self.fail(&e))?;
        self.counts.commits.fetch_add(1, Ordering::Relaxed);
        Ok(dead)
    }
}
