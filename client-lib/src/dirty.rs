//! What was written to one chunk and is not stored yet. Pure.

use bytes::Bytes;

use crate::budget::Share;
use crate::ranges::Ranges;

/// Written bytes of a chunk, still changing.
#[derive(Debug)]
pub(crate) struct Dirty {
    /// The chunk up to the last byte written; meaningful where `ranges` says.
    data: Vec<u8>,
    ranges: Ranges,
    /// Number of the first write in it.
    pub since: u64,
    /// Its part of the budget: one whole chunk.
    share: Share,
}

/// Written bytes of a chunk on their way; no longer changing.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// The chunk up to the last byte written; meaningful where `ranges` says.
    pub data: Bytes,
    /// Which bytes were written.
    pub ranges: Ranges,
    /// Number of the first write in it.
    pub since: u64,
}

impl Dirty {
    /// Nothing yet.
    pub fn new(since: u64, share: Share) -> Dirty {
        Dirty { data: Vec::new(), ranges: Ranges::default(), since, share }
    }

    /// Writes `bytes` at `at` within the chunk.
    pub fn write(&mut self, at: u32, bytes: &[u8], chunk_len: u32) {
        let end = at as usize + bytes.len();
        assert!(end <= chunk_len as usize, "a write of {} bytes at {at} leaves its chunk", bytes.len());
        if self.data.len() < end {
            if self.data.capacity() < end {
                // A small file takes what it needs; whoever goes on is likely to fill the chunk.
                let room = if self.data.is_empty() { end } else { chunk_len as usize };
                self.data.reserve_exact(room - self.data.len());
            }
            self.data.resize((at as usize).max(self.data.len()), 0);
            let overlap = self.data.len().saturating_sub(at as usize).min(bytes.len());
            self.data[at as usize..at as usize + overlap].copy_from_slice(&bytes[..overlap]);
            self.data.extend_from_slice(&bytes[overlap..]);
        } else {
            self.data[at as usize..end].copy_from_slice(bytes);
        }
        self.ranges.insert(at, end as u32);
    }

    /// Forgets what was written at and above `from`.
    pub fn cut(&mut self, from: u32) {
        self.ranges.cut(from);
        self.data.truncate(from as usize);
    }

    /// Which bytes were written.
    pub fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// A copy of `[from, to)`, all of which was written.
    pub fn copy(&self, from: u32, to: u32) -> Bytes {
        Bytes::copy_from_slice(&self.data[from as usize..to as usize])
    }

    /// Ready to go.
    pub fn freeze(self) -> (Outgoing, Share) {
        (Outgoing { data: self.data.into(), ranges: self.ranges, since: self.since }, self.share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    const N: usize = 256;

    proptest! {
        #[test]
        fn a_dirty_chunk_holds_the_last_bytes_written(
            writes in proptest::collection::vec((0usize..N, 1usize..N, any::<u8>(), any::<bool>()), 1..20),
        ) {
            let share = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("free");
            let mut dirty = Dirty::new(1, share);
            let mut model: Vec<Option<u8>> = vec![None; N];
            for (at, len, byte, cut) in writes {
                if cut {
                    dirty.cut(at as u32);
                    model[at..].fill(None);
                    continue;
                }
                let len = len.min(N - at);
                dirty.write(at as u32, &vec![byte; len], N as u32);
                model[at..at + len].fill(Some(byte));
            }
            let (outgoing, _) = dirty.freeze();
            for (i, want) in model.iter().enumerate() {
                let covered = outgoing.ranges.covers(i as u32, i as u32 + 1);
                prop_assert_eq!(covered.then(|| outgoing.data[i]), *want);
            }
        }
    }
}
