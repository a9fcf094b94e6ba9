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

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use sateen_types::limits::ENDED_WRITERS_MAX;
use sateen_types::{FsCode, FsError, FsResult};

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
#[derive(Debug, Default)]
pub struct Ended {
    /// Held for reading by every change that has passed, until it is done.
    writers: RwLock<EndedWriters>,
}

#[derive(Debug, Default)]
struct EndedWriters {
    all: HashSet<u64>,
    /// In the order in which they came.
    order: VecDeque<u64>,
}

impl Ended {
    /// Shuts writers out. When it returns, what they had sent before is done or will be refused: no reader that comes now
    /// sees a change of theirs appear later.
    pub fn shut_out(&self, writers: &[u64]) {
        let mut known = self.writers.write();
        for writer in writers {
            if known.all.insert(*writer) {
                known.order.push_back(*writer);
            }
            if known.order.len() > ENDED_WRITERS_MAX
                && let Some(oldest) = known.order.pop_front()
            {
                known.all.remove(&oldest);
            }
        }
    }
}

/// A change that may be made; held until it is.
#[must_use]
pub struct Passed<'a>(#[expect(dead_code, reason = "held, never looked at")] Option<RwLockReadGuard<'a, EndedWriters>>);

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
        let ended = self.ended.writers.read();
        if ended.all.contains(&fence.writer) {
            return Err(FsError::new(FsCode::Stale, format!("writer: the session of {} has ended", fence.writer))
                .with_hint("open a new session, and write only what nobody else has changed meanwhile"));
        }
        self.seen.lock().raise(fence)?;
        Ok(Passed(Some(ended)))
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
        ended.shut_out(&[7]);
        for fences in [&one, &other] {
            for generation in [0, 3, u64::MAX] {
                let refused = fences.pass(Fence::new(7, generation)).err().expect("its session has ended");
                assert_eq!(refused.code, FsCode::Stale);
            }
            assert!(pass(fences, 8, 0) && fences.pass(None).is_ok());
        }
    }

    #[test]
    fn a_writer_is_shut_out_when_its_changes_that_have_passed_are_done() {
        let ended = Arc::new(Ended::default());
        let fences = Fences::new(ended.clone());
        let passed = fences.pass(Fence::new(7, 0)).expect("its session lives");
        std::thread::scope(|scope| {
            let shutting = scope.spawn(|| ended.shut_out(&[7]));
            while fences.ended.writers.try_read().is_some() {
                std::thread::yield_now();
            }
            assert!(!shutting.is_finished(), "the change is not done");
            drop(passed);
            shutting.join().expect("shut out");
        });
        assert!(!pass(&fences, 7, 0));
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
        fences.ended.shut_out(&writers);
        fences.ended.shut_out(&writers[1..]);
        let known = fences.ended.writers.read();
        assert_eq!((known.all.len(), known.order.len()), (ENDED_WRITERS_MAX, ENDED_WRITERS_MAX));
        assert!(!known.all.contains(&1) && known.all.contains(&2), "the oldest is forgotten");
    }
}
