//! Fences: a write, punch or truncate that was held up somewhere never lands on top of a newer change.
//!
//! A client that has waited long enough for an answer sends its write again, perhaps over another connection. The first
//! may still be in a socket, or in a thread that waits for a slow disk, and may be followed by newer writes of the same
//! bytes. So every change carries its writer and a generation, and a client raises its generation before it sends
//! anything again. Once a store has seen the higher one, lower ones are refused, and their writer sends them again too.
//! The MDS does the same with its truncates.
//!
//! A writer is a client in one session. When that has expired, others are given what the client held, and it may wake and
//! send what it had gathered: the MDS has every OST shut the writer out first ([`Ended`]).
//!
//! In memory only. A generation: a write that was held up across a restart has lost its connection, and with it its way in.
//! Writers that have ended: the MDS says all of them again when an OSS registers, which is before it serves anything.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use sateen_types::limits::ENDED_WRITERS_MAX;
use sateen_types::{FsCode, FsError, FsResult};
use tokio::sync::Notify;

/// Writers whose generation is remembered; beyond it the one that was raised longest ago is forgotten. Only writers
/// that had to send something again take a place.
const WRITERS_MAX: usize = 65_536;

/// What a change says about its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// A number that its client chose at random.
    pub writer: u64,
    /// How often the client has given up waiting for answers.
    pub generation: u64,
}

impl Fence {
    /// As a request says it; a writer of 0 has no fence.
    pub fn new(writer: u64, generation: u64) -> Option<Fence> {
        (writer > 0).then_some(Fence { writer, generation })
    }
}

/// Writers that are shut out for good: one for all stores of an OST. The last [`ENDED_WRITERS_MAX`] that were named count.
///
/// In two steps: [`Ended::refuse`] waits for nothing, so that one disk that does not answer keeps no other OST from refusing;
/// [`Ended::quiet`] completes when what had passed before is done.
#[derive(Debug, Default)]
pub struct Ended {
    state: Mutex<State>,
    /// Told when the last change of a writer is done that is refused.
    done: Notify,
}

#[derive(Debug, Default)]
struct State {
    refused: HashSet<u64>,
    /// In the order in which they came.
    order: VecDeque<u64>,
    /// How many changes of a writer have passed and are not done. No more than there are threads that make changes.
    under_way: HashMap<u64, usize>,
}

impl State {
    fn has_under_way(&self, writers: &[u64]) -> bool {
        !self.under_way.is_empty() && writers.iter().any(|writer| self.under_way.contains_key(writer))
    }
}

impl Ended {
    /// Refuses writers from now on. What has passed before may still be under way.
    pub fn refuse(&self, writers: &[u64]) {
        let mut state = self.state.lock();
        for writer in writers {
            if state.refused.insert(*writer) {
                state.order.push_back(*writer);
            }
            if state.order.len() > ENDED_WRITERS_MAX
                && let Some(oldest) = state.order.pop_front()
            {
                state.refused.remove(&oldest);
            }
        }
    }

    /// Whether no change of a writer that is refused is under way: no reader that comes now sees one appear later.
    pub fn is_quiet(&self) -> bool {
        let state = self.state.lock();
        !state.under_way.keys().any(|writer| state.refused.contains(writer))
    }

    /// Completes as soon as no change of these writers is under way, which are refused. Others are not waited for.
    pub async fn quiet(&self, writers: &[u64]) {
        loop {
            let told = self.done.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            if !self.state.lock().has_under_way(writers) {
                return;
            }
            told.await;
        }
    }

    /// Lets a change of this writer pass, or refuses it as `Stale`.
    pub fn pass(&self, writer: u64) -> FsResult<Passed<'_>> {
        let mut state = self.state.lock();
        if state.refused.contains(&writer) {
            return Err(FsError::new(FsCode::Stale, format!("writer: the session of {writer} has ended"))
                .with_hint("open a new session, and write only what nobody else has changed meanwhile"));
        }
        *state.under_way.entry(writer).or_default() += 1;
        Ok(Passed(Some((self, writer))))
    }
}

/// A change that may be made; held until it is.
#[must_use]
pub struct Passed<'a>(Option<(&'a Ended, u64)>);

impl Drop for Passed<'_> {
    fn drop(&mut self) {
        let Some((ended, writer)) = self.0 else { return };
        let mut state = ended.state.lock();
        if let Some(count) = state.under_way.get_mut(&writer) {
            *count -= 1;
            if *count > 0 {
                return;
            }
        }
        state.under_way.remove(&writer);
        if state.refused.contains(&writer) {
            ended.done.notify_waiters();
        }
    }
}

/// What of the changes that arrive at a store is too late.
#[derive(Debug, Default)]
pub struct Fences {
    ended: Arc<Ended>,
    seen: Mutex<Seen>,
}

/// The highest generation of every writer that ever raised it.
#[derive(Debug, Default)]
struct Seen {
    highest: HashMap<u64, u64>,
    /// Keys of `highest` in the order in which they came.
    order: VecDeque<u64>,
}

impl Fences {
    /// No generation was seen; `ended` writers are shut out.
    pub fn new(ended: Arc<Ended>) -> Fences {
        Fences { ended, seen: Mutex::default() }
    }

    /// Lets a change pass, or refuses it: with `Stale` because the session of its writer has ended, with `Interrupted` because
    /// its writer has given it up. Asked under the lock of the object, which is held until the change is done: whoever sends
    /// again with a higher generation takes the lock after the change, or the change is refused.
    pub fn pass(&self, fence: Option<Fence>) -> FsResult<Passed<'_>> {
        let Some(fence) = fence else { return Ok(Passed(None)) };
        let passed = self.ended.pass(fence.writer)?;
        self.seen.lock().raise(fence)?;
        Ok(passed)
    }
}

impl Seen {
    fn raise(&mut self, fence: Fence) -> FsResult<()> {
        match self.highest.get_mut(&fence.writer) {
            Some(highest) if fence.generation < *highest => {
                return Err(FsError::new(
                    FsCode::Interrupted,
                    format!("generation: {} of a writer that is at {highest}: it was given up", fence.generation),
                )
                .with_hint("send it again with the current generation"));
            }
            Some(highest) => *highest = fence.generation,
            // Nothing was ever given up.
            None if fence.generation == 0 => {}
            None => {
                if self.highest.len() >= WRITERS_MAX
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.highest.remove(&oldest);
                }
                self.highest.insert(fence.writer, fence.generation);
                self.order.push_back(fence.writer);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(fences: &Fences, writer: u64, generation: u64) -> bool {
        fences.pass(Fence::new(writer, generation)).is_ok()
    }

    #[test]
    fn what_was_given_up_is_refused_and_others_are_not() {
        let fences = Fences::default();
        assert!(pass(&fences, 1, 0) && pass(&fences, 1, 0));
        assert!(pass(&fences, 1, 2), "a later generation");
        assert!(!pass(&fences, 1, 0) && !pass(&fences, 1, 1), "held up");
        assert!(pass(&fences, 1, 2) && pass(&fences, 2, 0));
    }

    #[test]
    fn a_writer_that_has_ended_is_refused_in_every_generation_and_never_told_to_send_again() {
        let ended = Arc::new(Ended::default());
        let (one, other) = (Fences::new(ended.clone()), Fences::new(ended.clone()));
        assert!(pass(&one, 7, 3) && pass(&other, 7, 0));
        ended.refuse(&[7]);
        for fences in [&one, &other] {
            for generation in [0, 3, u64::MAX] {
                let refused = fences.pass(Fence::new(7, generation)).err().expect("its session has ended");
                assert_eq!(refused.code, FsCode::Stale);
            }
            assert!(pass(fences, 8, 0) && fences.pass(None).is_ok());
        }
    }

    #[tokio::test]
    async fn a_writer_is_refused_at_once_and_shut_out_when_its_own_changes_that_have_passed_are_done() {
        let ended = Arc::new(Ended::default());
        let (one, other) = (Fences::new(ended.clone()), Fences::new(ended.clone()));
        let first = one.pass(Fence::new(7, 0)).expect("its session lives");
        let second = other.pass(Fence::new(7, 0)).expect("its session lives");
        let _of_another = one.pass(Fence::new(8, 0)).expect("its session lives");
        ended.refuse(&[7]);
        assert!(!pass(&one, 7, 0) && !pass(&other, 7, 0), "though its changes are not done");
        assert!(other.pass(Fence::new(8, 0)).is_ok(), "others do not wait for them");
        let mut quiet = std::pin::pin!(ended.quiet(&[7]));
        for passed in [first, second] {
            assert!(!ended.is_quiet() && futures::poll!(quiet.as_mut()).is_pending());
            drop(passed);
        }
        quiet.await;
        assert!(ended.is_quiet());
    }

    #[test]
    fn memory_is_bounded_and_writers_without_trouble_take_none() {
        let fences = Fences::default();
        for writer in 1..=2 * WRITERS_MAX as u64 {
            assert!(pass(&fences, writer, 0) && (writer % 2 == 0 || pass(&fences, writer, 1)));
        }
        let seen = fences.seen.lock();
        assert_eq!((seen.highest.len(), seen.order.len()), (WRITERS_MAX, WRITERS_MAX));
        drop(seen);
        let writers: Vec<u64> = (1..=ENDED_WRITERS_MAX as u64 + 1).collect();
        fences.ended.refuse(&writers);
        fences.ended.refuse(&writers[1..]);
        let known = fences.ended.state.lock();
        assert_eq!((known.refused.len(), known.order.len()), (ENDED_WRITERS_MAX, ENDED_WRITERS_MAX));
        assert!(!known.refused.contains(&1) && known.refused.contains(&2), "the oldest is forgotten");
        assert!(known.under_way.is_empty());
    }
}
