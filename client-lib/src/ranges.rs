//! A set of bytes of one chunk: sorted ranges that neither overlap nor touch. Pure.

/// Bytes of a chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<(u32, u32)>);

impl Ranges {
    /// Adds `[from, to)`.
    pub fn insert(&mut self, from: u32, to: u32) {
        debug_assert!(from <= to, "{from}..{to}");
        if from == to {
            return;
        }
        let first = self.0.partition_point(|r| r.1 < from);
        let last = self.0.partition_point(|r| r.0 <= to);
        let mut merged = (from, to);
        if first < last {
            merged = (from.min(self.0[first].0), to.max(self.0[last - 1].1));
        }
        self.0.splice(first..last, [merged]);
    }

    /// Takes away everything at and above `from`.
    pub fn cut(&mut self, from: u32) {
        self.0.retain(|r| r.0 < from);
        if let Some(last) = self.0.last_mut() {
            last.1 = last.1.min(from);
        }
    }

    /// Whether every byte of `[from, to)` is in.
    pub fn covers(&self, from: u32, to: u32) -> bool {
        from >= to || self.0.iter().any(|r| r.0 <= from && to <= r.1)
    }

    /// The parts of the set that lie in `[from, to)`.
    pub fn within(&self, from: u32, to: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.0.iter().map(move |r| (r.0.max(from), r.1.min(to))).filter(|r| r.0 < r.1)
    }

    /// All ranges.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.0.iter().copied()
    }

    /// One past the last byte; 0 for the empty set.
    pub fn end(&self) -> u32 {
        self.0.last().map_or(0, |r| r.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const N: usize = 64;

    proptest! {
        #[test]
        fn a_set_of_ranges_behaves_as_a_set_of_bytes(
            ops in proptest::collection::vec((any::<bool>(), 0u32..N as u32, 0u32..N as u32), 1..40),
            probe in (0u32..N as u32, 0u32..N as u32),
        ) {
            let (mut ranges, mut model) = (Ranges::default(), [false; N]);
            for (insert, a, b) in ops {
                let (from, to) = (a.min(b), a.max(b));
                if insert {
                    ranges.insert(from, to);
                    model[from as usize..to as usize].fill(true);
                } else {
                    ranges.cut(from);
                    model[from as usize..].fill(false);
                }
                prop_assert!(ranges.0.iter().all(|r| r.0 < r.1));
                prop_assert!(ranges.0.windows(2).all(|w| w[0].1 < w[1].0), "{ranges:?}");
            }
            let mut seen = [false; N];
            ranges.iter().for_each(|(a, b)| seen[a as usize..b as usize].fill(true));
            prop_assert_eq!(seen, model);
            let (from, to) = (probe.0.min(probe.1), probe.0.max(probe.1));
            prop_assert_eq!(ranges.covers(from, to), model[from as usize..to as usize].iter().all(|b| *b));
            let inside: u32 = ranges.within(from, to).map(|(a, b)| b - a).sum();
            prop_assert_eq!(inside as usize, model[from as usize..to as usize].iter().filter(|b| **b).count());
            prop_assert_eq!(ranges.end() as usize, model.iter().rposition(|b| *b).map_or(0, |i| i + 1));
            prop_assert_eq!(ranges.end() == 0, !model.contains(&true));
        }
    }
}
