//! Fences: a write, punch or truncate that was held up somewhere never lands on top of a newer change.
//!
//! A client that has waited long enough for an answer sends its write again, perhaps over another connection. The first
//! may still be in a socket, or in a thread that waits for a slow disk, and may be followed by newer writes of the same
//! bytes. So every change carries its writer and a generation, and a client raises its generation before it sends
//! anything again. Once a store has seen the higher one, lower ones are refused, and their writer sends them again too.
//! The MDS does the same with its truncates.
//!
//! In memory only: a write that was held up across a restart has lost its connection, and with it its way in.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
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

/// The highest generation of every writer that ever raised it.
#[derive(Debug, Default)]
pub struct Fences {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    highest: HashMap<u64, u64>,
    /// Keys of `highest` in the order in which they came.
    order: VecDeque<u64>,
}

impl Fences {
    /// Lets a change pass, or refuses it with `Interrupted` because its writer has given it up. Asked under the lock of
    /// the object, which is held until the change is done: whoever sends again with a higher generation takes the lock
    /// after the change, or the change is refused.
    pub fn pass(&self, fence: Option<Fence>) -> FsResult<()> {
        let Some(fence) = fence else { return Ok(()) };
        let mut seen = self.seen.lock();
        match seen.highest.get_mut(&fence.writer) {
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
                if seen.highest.len() >= WRITERS_MAX
                    && let Some(oldest) = seen.order.pop_front()
                {
                    seen.highest.remove(&oldest);
                }
                seen.highest.insert(fence.writer, fence.generation);
                seen.order.push_back(fence.writer);
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
    fn memory_is_bounded_and_writers_without_trouble_take_none() {
        let fences = Fences::default();
        for writer in 1..=2 * WRITERS_MAX as u64 {
            assert!(pass(&fences, writer, 0) && (writer % 2 == 0 || pass(&fences, writer, 1)));
        }
        let seen = fences.seen.lock();
        assert_eq!((seen.highest.len(), seen.order.len()), (WRITERS_MAX, WRITERS_MAX));
    }
}
