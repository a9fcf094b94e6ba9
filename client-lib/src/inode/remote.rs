//! Which bytes of a released file are only in its repository, as far as this client knows.
//!
//! The invariant: what is taken for loaded here is loaded, and lies in the layout that is known. While a session has a file open
//! nobody releases it, so what is loaded only grows, and an answer that comes late says too little, never too much. Too little
//! costs a question. (What is not durable yet is taken for loaded by readers alone, who find out when it is not there any more:
//! [`Provisional`].) So the answer to a Load adds to what is known; but the answer to an open takes its place, and answers to
//! questions from before that open count for nothing: as the MDS saw it, the file may have been closed in between, and released.
//!
//! When the session has expired the MDS counts nothing as open, and somebody may release the file before the next session says
//! that it is. So nothing counts as loaded that was learnt in another session: whoever reads or writes first asks, and the
//! answer takes the place of all that was known. If the file was released its layout is another, with objects of other names, and
//! what was written here and not stored is treated as if somebody had changed the file ([`crate::expiry`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use sateen_types::limits::FILE_SIZE_MAX;
use sateen_types::repository::Filled;
use sateen_types::{Extent, Layout, OstIndex, Remote, Verifier};

use super::{Inode, State};
use crate::session::Loaded;

/// What an open said of a file.
#[derive(Clone, Debug)]
pub(crate) struct Learnt {
    /// `None`: everything is loaded.
    pub remote: Option<Remote>,
    /// How often the file's sessions had been lost before it was asked; `None`: nobody knows.
    pub losses: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Known {
    remote: Option<Remote>,
    losses: Option<u64>,
    /// Rises with each open and truncate.
    number: u64,
    early: Early,
}

/// What can be read before it is durable.
#[derive(Clone, Debug, Default)]
enum Early {
    #[default]
    Nothing,
    /// As long as the OSTs are not restarted.
    Filled(Arc<Provisional>),
    /// An OST was restarted: only what is durable counts until the file is opened again.
    Distrusted,
}

/// Ranges that a worker has stored and not yet made durable: they are there while the OSTs have these verifiers. Every reply that
/// brings bytes of them is compared.
#[derive(Debug, Default)]
pub(crate) struct Provisional {
    ranges: Vec<Extent>,
    verifiers: BTreeMap<OstIndex, Verifier>,
}

impl Provisional {
    /// Those of `filled` that go together. `None`: none of them.
    fn of(filled: Vec<Filled>) -> Option<Provisional> {
        let mut all = Provisional::default();
        for Filled { range, verifiers } in filled {
            if verifiers.iter().all(|(ost, verifier)| all.verifiers.get(ost).is_none_or(|known| known == verifier)) {
                all.verifiers.extend(verifiers);
                all.ranges.push(range);
            }
        }
        (!all.ranges.is_empty()).then_some(all)
    }

    /// What an OST must say in a reply with bytes of `range`; `None`: anything.
    pub fn verifier(&self, ost: OstIndex, range: Extent) -> Option<Verifier> {
        let within = self.ranges.iter().any(|known| known.overlaps(range.start, range.end));
        self.verifiers.get(&ost).copied().filter(|_| within)
    }
}

/// What bytes are wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// What is not durable yet is enough.
    Read,
    /// What is changed must be durable before: nobody may fetch it again.
    Change,
}

impl From<Learnt> for Known {
    fn from(Learnt { remote, losses }: Learnt) -> Known {
        Known { remote, losses, number: 0, early: Early::Nothing }
    }
}

/// What was known when a question was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    number: u64,
    losses: u64,
}

impl Inode {
    /// A question is about to be asked.
    pub fn asks(&self) -> Asked {
        let state = self.state();
        Asked { number: state.known.number, losses: state.keeps.losses() }
    }

    /// Takes in the answer to a Load; `false` if it says nothing of the file as it is open now.
    pub fn observe_load(&self, asked: Asked, loaded: Loaded) -> bool {
        let mut state = self.state();
        if asked != (Asked { number: state.known.number, losses: state.keeps.losses() }) {
            return false;
        }
        self.take_layout(&mut state, loaded.layout);
        let sure = state.is_sure();
        let known = &mut state.known;
        known.remote = match (known.remote.take(), loaded.remote) {
            (_, None) => None,
            (None, Some(_)) if sure => None,
            (Some(mut known), Some(new)) if sure => {
                new.loaded().iter().for_each(|range| known.add(*range));
                Some(known)
            }
            (_, new) => new,
        };
        known.losses = Some(asked.losses);
        if !matches!(known.early, Early::Distrusted) {
            known.early = Provisional::of(loaded.filled).map_or(Early::Nothing, |all| Early::Filled(Arc::new(all)));
        }
        true
    }

    /// An OST was restarted that had what was not durable.
    pub fn distrust(&self) {
        self.state().known.early = Early::Distrusted;
    }

    /// Whether only what is durable counts.
    pub fn distrusts(&self) -> bool {
        matches!(self.state().known.early, Early::Distrusted)
    }

    /// Takes in a layout, unless a newer one is known.
    pub fn observe_layout(&self, layout: Layout) {
        let mut state = self.state();
        self.take_layout(&mut state, layout);
    }

    pub(super) fn take_layout(&self, state: &mut State, layout: Layout) {
        if layout.generation < state.layout.generation {
            return;
        }
        let gone = |old: &sateen_types::Component| !layout.components.iter().any(|new| new.id == old.id);
        if state.layout.components.iter().any(|old| old.is_instantiated() && gone(old)) {
            // The file was released: what it was stored in is no part of it any more.
            state.epoch = self.cache.new_epoch();
            state.stored_changes += 1;
            state.changed_elsewhere = true;
            state.overtaken |= !state.is_clean();
        }
        state.layout = layout.into();
        state.layout_as_of = state.attr.change;
    }
}

impl State {
    /// Takes in what an open said.
    pub fn learn(&mut self, learnt: Learnt) {
        self.known = Known { number: self.known.number + 1, ..Known::from(learnt) };
    }

    /// The file was emptied: nothing of it comes from the repository any more.
    pub fn emptied(&mut self) {
        let (losses, number) = (self.known.losses, self.known.number + 1);
        self.known = Known { remote: None, losses, number, early: Early::Nothing };
    }

    /// Whether what is known was learnt in this session.
    pub fn is_sure(&self) -> bool {
        self.known.losses == Some(self.keeps.losses())
    }

    /// What a reader may have before it is durable.
    pub fn provisional(&self) -> Option<Arc<Provisional>> {
        match &self.known.early {
            Early::Filled(all) => Some(Arc::clone(all)),
            Early::Nothing | Early::Distrusted => None,
        }
    }

    /// What has to be loaded before bytes of `[offset, offset + len)` are read or changed: whole chunks, from the first to the
    /// last that is missing. Nothing of an empty range.
    pub fn missing(&self, offset: u64, len: u64, purpose: Purpose) -> Option<Extent> {
        let missing = self.all_missing(offset, len, purpose);
        Some(Extent { start: missing.first()?.start, end: missing.last()?.end })
    }

    /// The parts of [`State::missing`], in order.
    pub fn all_missing(&self, offset: u64, len: u64, purpose: Purpose) -> Vec<Extent> {
        let range = Extent { start: offset, end: offset.saturating_add(len) };
        let unknown;
        let remote = match &self.known.remote {
            _ if len == 0 => return Vec::new(),
            _ if !self.is_sure() => {
                unknown = Remote::none_loaded(FILE_SIZE_MAX);
                &unknown
            }
            None => return Vec::new(),
            Some(remote) => remote,
        };
        let missing = remote.missing(remote.chunks(range));
        match &self.known.early {
            Early::Filled(all) if purpose == Purpose::Read && self.is_sure() => all
                .ranges
                .iter()
                .fold(missing, |missing, range| missing.into_iter().flat_map(|part| part.without(*range)).collect()),
            _ => missing,
        }
    }
}

#[cfg(test)]
mod tests;
