//! What was stored and is not committed, by chunk: kept in the form it was sent until its OST has made it durable.
//! Pure.

use std::collections::BTreeMap;

use sateen_types::{OstIndex, Verifier};

use crate::budget::Share;
use crate::commit::Committed;
use crate::plan::Place;
use crate::seal::Sealed;

/// One write that was answered.
#[derive(Debug)]
pub(crate) struct Unstable {
    pub place: Place,
    /// As they were sent.
    pub parts: Vec<Sealed>,
    pub verifier: Verifier,
    /// Its number among all answers ([`crate::commit::Committer::count_answer`]).
    pub answer: u64,
    /// Its part of the budget.
    pub _share: Option<Share>,
}

impl Unstable {
    fn bytes(&self) -> u64 {
        self.parts.iter().map(|p| p.payload.len() as u64).sum()
    }
}

/// All of one file. Entries of a chunk are in the order of their writes and lie on one OST.
#[derive(Debug, Default)]
pub(crate) struct UnstableSet {
    chunks: BTreeMap<u64, Vec<Unstable>>,
    bytes: u64,
}

impl UnstableSet {
    /// Adds a write to `chunk`; one that `replaces` the whole chunk makes what was there unimportant.
    pub fn add(&mut self, chunk: u64, write: Unstable, replaces: bool) {
        self.bytes += write.bytes();
        let entries = self.chunks.entry(chunk).or_default();
        if replaces {
            self.bytes -= entries.drain(..).map(|e| e.bytes()).sum::<u64>();
        }
        entries.push(write);
    }

    /// Forgets chunks at and above `from`.
    pub fn cut(&mut self, from: u64) {
        let gone = self.chunks.split_off(&from);
        self.bytes -= gone.values().flatten().map(Unstable::bytes).sum::<u64>();
    }

    /// Forgets one chunk.
    pub fn remove(&mut self, chunk: u64) {
        let gone = self.chunks.remove(&chunk).unwrap_or_default();
        self.bytes -= gone.iter().map(Unstable::bytes).sum::<u64>();
    }

    /// What `committed` says about `ost`: drops what is durable and returns the chunks that must be sent again.
    pub fn committed(&mut self, ost: OstIndex, committed: Committed) -> Vec<u64> {
        let mut again = Vec::new();
        let bytes = &mut self.bytes;
        self.chunks.retain(|chunk, entries| {
            if entries.first().is_none_or(|e| e.place.ost != ost) {
                return true;
            }
            let covered = |e: &Unstable| e.answer <= committed.covers;
            if entries.iter().any(|e| covered(e) && e.verifier != committed.verifier) {
                // All of them, in order: a newer part must not end up below an older one.
                again.push(*chunk);
                return true;
            }
            *bytes -= entries.iter().filter(|e| covered(e)).map(Unstable::bytes).sum::<u64>();
            entries.retain(|e| !covered(e));
            !entries.is_empty()
        });
        again
    }

    /// The entries of a chunk.
    pub fn of_chunk(&self, chunk: u64) -> &[Unstable] {
        self.chunks.get(&chunk).map_or(&[], Vec::as_slice)
    }

    /// A write was sent again and answered.
    pub fn answered_again(&mut self, chunk: u64, index: usize, verifier: Verifier, answer: u64) {
        if let Some(entry) = self.chunks.get_mut(&chunk).and_then(|entries| entries.get_mut(index)) {
            (entry.verifier, entry.answer) = (verifier, answer);
        }
    }

    /// The OSTs that have to commit, each with the last answer to be covered.
    pub fn osts(&self) -> BTreeMap<OstIndex, u64> {
        let mut osts = BTreeMap::new();
        for entry in self.chunks.values().flatten() {
            let last = osts.entry(entry.place.ost).or_insert(0);
            *last = entry.answer.max(*last);
        }
        osts
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sateen_types::{ComponentId, Fid, FsId, ObjectId, StripeIndex};

    fn write(ost: u16, incarnation: u8, answer: u64, len: usize) -> Unstable {
        let object = ObjectId { fs: FsId(1), fid: Fid::ROOT, component: ComponentId(1), stripe: StripeIndex(0) };
        let place = Place { ost: OstIndex(ost), object, chunk_log2: 17, offset: 0 };
        let parts = vec![crate::seal::plain(0, vec![0; len].into())];
        Unstable { place, parts, verifier: Verifier([incarnation; 16]), answer, _share: None }
    }

    proptest! {
        #[test]
        fn nothing_is_forgotten_that_is_not_durable_and_bytes_are_counted(
            writes in proptest::collection::vec((0u64..6, 0u8..3, 1usize..50, any::<bool>()), 1..40),
            covers in 0u64..40, incarnation in 0u8..3, cut in 0u64..7,
        ) {
            let mut set = UnstableSet::default();
            for (i, (chunk, verifier, len, replaces)) in writes.iter().enumerate() {
                set.add(*chunk, write((chunk % 2) as u16, *verifier, i as u64 + 1, *len), *replaces);
            }
            let before: Vec<_> = set.chunks.iter().map(|(c, e)| (*c, e.iter().map(|e| (e.answer, e.verifier)).collect::<Vec<_>>())).collect();
            let committed = Committed { covers, verifier: Verifier([incarnation; 16]) };
            let again = set.committed(OstIndex(1), committed);
            for (chunk, entries) in before {
                let lost = entries.iter().any(|(a, v)| *a <= covers && *v != committed.verifier);
                let kept: Vec<_> = set.of_chunk(chunk).iter().map(|e| e.answer).collect();
                if chunk % 2 == 0 || lost {
                    prop_assert_eq!(kept, entries.iter().map(|e| e.0).collect::<Vec<_>>());
                    prop_assert_eq!(again.contains(&chunk), chunk % 2 == 1);
                } else {
                    prop_assert_eq!(kept, entries.iter().map(|e| e.0).filter(|a| *a > covers).collect::<Vec<_>>());
                }
            }
            set.cut(cut);
            set.remove(0);
            let held: u64 = set.chunks.values().flatten().map(Unstable::bytes).sum();
            prop_assert_eq!(set.bytes(), held);
            prop_assert!(set.chunks.keys().all(|c| *c < cut && *c != 0));
        }
    }
}
