//! What was written to one chunk and is not stored yet. Pure.
//!
//! Memory follows what was written: a chunk of which four KiB were written holds four. So that a program which writes
//! single bytes all over a chunk cannot make that expensive, a chunk with more than [`RUNS_MAX`] runs becomes one buffer.

use bytes::Bytes;

use crate::budget::{Share, UNIT_BYTES};
use crate::ranges::Ranges;

/// Most runs that a chunk holds one by one.
const RUNS_MAX: usize = 32;
/// A run of so many bytes that goes on growing at its end is likely to reach the end of the chunk.
const STREAM_BYTES: usize = 32 << 10;

/// Written bytes of a chunk, still changing.
#[derive(Debug)]
pub(crate) struct Dirty {
    bytes: Held,
    /// Number of the first write in it.
    pub since: u64,
    /// Its part of the budget: what it occupies, in whole units.
    share: Share,
}

#[derive(Debug)]
enum Held {
    /// In order; they neither overlap nor touch.
    Runs(Vec<Run>),
    /// The chunk up to the last byte written; meaningful where `ranges` says.
    Whole { data: Vec<u8>, ranges: Ranges },
}

#[derive(Debug)]
struct Run {
    from: u32,
    data: Vec<u8>,
}

/// Written bytes of a chunk on their way; no longer changing.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// By offset in the chunk, in order; they neither overlap nor touch, and each has memory of its own.
    pub runs: Vec<(u32, Bytes)>,
    /// Number of the first write in it.
    pub since: u64,
}

impl Run {
    fn end(&self) -> u32 {
        self.from + self.data.len() as u32
    }

    /// Writes `bytes` at `at`, which lies in the run or at its end.
    fn write(&mut self, at: u32, bytes: &[u8], chunk_len: u32) {
        let at = (at - self.from) as usize;
        let overlap = (self.data.len() - at).min(bytes.len());
        self.data[at..at + overlap].copy_from_slice(&bytes[..overlap]);
        let end = at + bytes.len();
        if self.data.capacity() < end {
            let most = (chunk_len - self.from) as usize;
            let room = if self.data.len() < STREAM_BYTES { end.max(2 * self.data.len()).min(most) } else { most };
            self.data.reserve_exact(room - self.data.len());
        }
        self.data.extend_from_slice(&bytes[overlap..]);
    }

    /// Takes over what `after` has beyond its own end.
    fn append(&mut self, after: &Run, chunk_len: u32) {
        if after.end() > self.end() {
            self.write(self.end(), &after.data[(self.end() - after.from) as usize..], chunk_len);
        }
    }
}

impl Dirty {
    /// Nothing yet. `share` is empty, or what the first write will need.
    pub fn new(since: u64, share: Share) -> Dirty {
        Dirty { bytes: Held::Runs(Vec::new()), since, share }
    }

    /// Writes `bytes` at `at` within the chunk. What that needs of the budget is taken from `spare`, which must have
    /// room for a whole chunk; the rest is given back.
    pub fn write(&mut self, at: u32, bytes: &[u8], chunk_len: u32, spare: Share) {
        let end = at as usize + bytes.len();
        assert!(end <= chunk_len as usize, "a write of {} bytes at {at} leaves its chunk", bytes.len());
        match &mut self.bytes {
            Held::Runs(runs) => insert(runs, at, bytes, chunk_len),
            Held::Whole { data, ranges } => {
                data.resize(data.len().max(end), 0);
                data[at as usize..end].copy_from_slice(bytes);
                ranges.insert(at, end as u32);
            }
        }
        if let Held::Runs(runs) = &self.bytes
            && runs.len() > RUNS_MAX
        {
            self.bytes = whole(runs, chunk_len);
        }
        self.share.merge(spare);
        trim(&mut self.share, self.bytes.units());
    }

    /// Forgets what was written at and above `from`.
    pub fn cut(&mut self, from: u32) {
        match &mut self.bytes {
            Held::Runs(runs) => {
                runs.retain(|run| run.from < from);
                if let Some(last) = runs.last_mut() {
                    last.data.truncate((from - last.from) as usize);
                }
            }
            Held::Whole { data, ranges } => {
                ranges.cut(from);
                data.truncate(from as usize);
            }
        }
        trim(&mut self.share, self.bytes.units());
    }

    /// Whether every byte of `[from, to)` was written.
    pub fn covers(&self, from: u32, to: u32) -> bool {
        match &self.bytes {
            Held::Runs(runs) => from >= to || runs.iter().any(|run| run.from <= from && to <= run.end()),
            Held::Whole { ranges, .. } => ranges.covers(from, to),
        }
    }

    /// One past the last byte written; 0 if there is none.
    pub fn end(&self) -> u32 {
        match &self.bytes {
            Held::Runs(runs) => runs.last().map_or(0, Run::end),
            Held::Whole { ranges, .. } => ranges.end(),
        }
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.end() == 0
    }

    /// Copies of what was written in `[from, to)`, by offset in the chunk.
    pub fn copies(&self, from: u32, to: u32) -> Vec<(u32, Bytes)> {
        match &self.bytes {
            Held::Runs(runs) => {
                let cut = |run: &Run| (run.from.max(from), run.end().min(to));
                let copy = |run: &Run, (a, b): (u32, u32)| {
                    (a, Bytes::copy_from_slice(&run.data[(a - run.from) as usize..(b - run.from) as usize]))
                };
                runs.iter().map(|run| (run, cut(run))).filter(|(_, (a, b))| a < b).map(|(r, ab)| copy(r, ab)).collect()
            }
            Held::Whole { data, ranges } => ranges
                .within(from, to)
                .map(|(a, b)| (a, Bytes::copy_from_slice(&data[a as usize..b as usize])))
                .collect(),
        }
    }

    /// Ready to go.
    pub fn freeze(self) -> (Outgoing, Share) {
        let Dirty { bytes, since, mut share } = self;
        let runs: Vec<(u32, Bytes)> = match bytes {
            Held::Runs(runs) => runs.into_iter().map(|run| (run.from, exact(run.data))).collect(),
            Held::Whole { data, ranges } if ranges.covers(0, data.len() as u32) => vec![(0, exact(data))],
            Held::Whole { data, ranges } => {
                ranges.iter().map(|(a, b)| (a, Bytes::copy_from_slice(&data[a as usize..b as usize]))).collect()
            }
        };
        trim(&mut share, runs.iter().map(|(_, bytes)| units(bytes.len())).sum());
        (Outgoing { runs, since }, share)
    }
}

impl Held {
    /// Memory, in units of the budget.
    fn units(&self) -> usize {
        match self {
            Held::Runs(runs) => runs.iter().map(|run| units(run.data.capacity())).sum(),
            Held::Whole { data, .. } => units(data.capacity()),
        }
    }
}

impl Outgoing {
    /// Whether every byte of `[from, to)` is in it.
    pub fn covers(&self, from: u32, to: u32) -> bool {
        from >= to || self.runs.iter().any(|(at, bytes)| *at <= from && to <= at + bytes.len() as u32)
    }

    /// One past the last byte.
    pub fn end(&self) -> u32 {
        self.runs.last().map_or(0, |(at, bytes)| at + bytes.len() as u32)
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.runs.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// What of it lies in `[from, to)`, by offset in the chunk.
    pub fn within(&self, from: u32, to: u32) -> impl Iterator<Item = (u32, Bytes)> + '_ {
        self.runs.iter().filter_map(move |(at, bytes)| {
            let (a, b) = ((*at).max(from), (at + bytes.len() as u32).min(to));
            (a < b).then(|| (a, bytes.slice((a - at) as usize..(b - at) as usize)))
        })
    }
}

/// Writes `bytes` at `at`; runs that it touches become one.
fn insert(runs: &mut Vec<Run>, at: u32, bytes: &[u8], chunk_len: u32) {
    let end = at + bytes.len() as u32;
    let first = runs.partition_point(|run| run.end() < at);
    let last = runs.partition_point(|run| run.from <= end);
    let mut run = match runs.get_mut(first).filter(|run| first < last && run.from <= at) {
        Some(run) => Run { from: run.from, data: std::mem::take(&mut run.data) },
        None => Run { from: at, data: Vec::new() },
    };
    run.write(at, bytes, chunk_len);
    if let Some(after) = runs[first..last].last() {
        run.append(after, chunk_len);
    }
    runs.splice(first..last, [run]);
}

/// The same bytes in one buffer.
fn whole(runs: &[Run], chunk_len: u32) -> Held {
    let mut data = Vec::with_capacity(chunk_len as usize);
    let mut ranges = Ranges::default();
    for run in runs {
        data.resize(run.from as usize, 0);
        data.extend_from_slice(&run.data);
        ranges.insert(run.from, run.end());
    }
    Held::Whole { data, ranges }
}

/// Without memory that holds nothing.
fn exact(mut data: Vec<u8>) -> Bytes {
    if units(data.capacity()) > units(data.len()) {
        data.shrink_to_fit();
    }
    data.into()
}

fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT_BYTES as usize)
}

/// Gives back what passes `units`.
fn trim(share: &mut Share, units: usize) {
    drop(share.split(share.num_permits().saturating_sub(units)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    const CHUNK: usize = 32 << 10;
    const CHUNK_UNITS: usize = CHUNK / UNIT_BYTES as usize;

    /// Writes, and now and then a cut (`None`): where, how many bytes, of which value.
    fn changes() -> impl Strategy<Value = Vec<(usize, usize, Option<u8>)>> {
        let length = prop_oneof![3 => 1usize..64, 2 => Just(4096), 1 => 1..CHUNK];
        let value = prop::option::weighted(0.95, any::<u8>());
        prop::collection::vec((0..CHUNK, length, value), 1..100)
    }

    proptest! {
        #[test]
        fn a_dirty_chunk_holds_the_last_bytes_written_and_pays_for_its_memory(
            changes in changes(),
            (from, to) in (0..CHUNK, 0..CHUNK),
        ) {
            let budget = Arc::new(Semaphore::new(100 * CHUNK_UNITS));
            let taken = |budget: &Semaphore| 100 * CHUNK_UNITS - budget.available_permits();
            let share = |units: usize| Arc::clone(&budget).try_acquire_many_owned(units as u32).expect("free");
            let mut dirty = Dirty::new(1, share(0));
            let mut model: Vec<Option<u8>> = vec![None; CHUNK];
            for (at, len, value) in changes {
                let Some(byte) = value else {
                    dirty.cut(at as u32);
                    model[at..].fill(None);
                    continue;
                };
                let len = len.min(CHUNK - at);
                dirty.write(at as u32, &vec![byte; len], CHUNK as u32, share(CHUNK_UNITS));
                model[at..at + len].fill(Some(byte));
                prop_assert_eq!(taken(&budget), dirty.bytes.units());
                prop_assert!(taken(&budget) <= RUNS_MAX + CHUNK_UNITS * 2, "{} units", taken(&budget));
                prop_assert!(dirty.bytes.units() > 0 && !dirty.is_empty());
            }
            let wanted = |from: usize, to: usize| -> Vec<(u32, u8)> {
                (from..to).filter_map(|i| Some((i as u32, model[i]?))).collect()
            };
            let bytes = |runs: Vec<(u32, Bytes)>| -> Vec<(u32, u8)> {
                runs.iter().flat_map(|(at, run)| run.iter().enumerate().map(move |(i, b)| (at + i as u32, *b))).collect()
            };
            prop_assert_eq!(bytes(dirty.copies(from as u32, to as u32)), wanted(from, to));
            let covered = from >= to || wanted(from, to).len() == to - from;
            prop_assert_eq!(dirty.covers(from as u32, to as u32), covered);
            prop_assert_eq!(dirty.end() as usize, model.iter().rposition(Option::is_some).map_or(0, |last| last + 1));
            let (end, (outgoing, share)) = (dirty.end(), dirty.freeze());
            prop_assert_eq!((outgoing.end(), outgoing.covers(from as u32, to as u32)), (end, covered));
            prop_assert_eq!(bytes(outgoing.within(from as u32, to as u32).collect()), wanted(from, to));
            prop_assert_eq!(outgoing.len(), wanted(0, CHUNK).len());
            prop_assert_eq!(bytes(outgoing.runs), wanted(0, CHUNK));
            prop_assert!(share.num_permits() == taken(&budget));
        }
    }

    #[test]
    fn a_small_write_takes_little_and_a_stream_one_chunk() {
        let budget = Arc::new(Semaphore::new(1000));
        let share = |units| Arc::clone(&budget).try_acquire_many_owned(units).expect("free");
        let mut dirty = Dirty::new(1, share(0));
        for block in 0..CHUNK_UNITS as u32 {
            dirty.write(block * 4096, &[1; 4096], CHUNK as u32, share(CHUNK_UNITS as u32));
            let taken = 1000 - budget.available_permits();
            assert!(
                taken <= 2 * (block as usize + 1) && taken <= CHUNK_UNITS,
                "{taken} units for {} blocks",
                block + 1
            );
        }
        let (outgoing, _share) = dirty.freeze();
        assert!(outgoing.covers(0, CHUNK as u32));
    }
}
