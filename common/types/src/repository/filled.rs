//! What a worker has stored of a file and not yet made durable.

use super::super::{Extent, OstIndex, Verifier};

/// A range that a worker has stored and not yet committed: it is there as long as its OSTs have not been restarted. Whoever reads it
/// compares the verifier of each reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    /// Whole chunks, or up to the end of the object.
    pub range: Extent,
    /// Of each OST that has a part of it: what it said when it took it.
    pub verifiers: Vec<(OstIndex, Verifier)>,
}

impl Filled {
    /// What is left of `ranges`, which are in order, without what is `filled`.
    pub fn without(ranges: Vec<Extent>, filled: &[Filled]) -> Vec<Extent> {
        filled.iter().fold(ranges, |ranges, Filled { range, .. }| {
            ranges.into_iter().flat_map(|part| part.without(*range)).collect()
        })
    }
}
