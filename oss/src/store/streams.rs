//! Which bytes are worth the page cache.
//!
//! Large transfers are mostly streams: a checkpoint that is written, a dataset that is read once. Through the page cache
//! they push out what others need, and filling fresh pages costs more than the transfer itself (docs/performance.md).
//! So large writes go around the cache, and a large read does the first time; what is read a second time soon is kept.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use super::disk::{Caching, SegmentId};

/// Transfers of at least so many bytes are taken for streams.
pub const STREAM_BYTES_MIN: usize = 256 << 10;
/// log2 of the unit in which reads are remembered.
const UNIT_LOG2: u32 = 20;
/// Units that are remembered: the last 64 GiB that were read as streams.
const UNITS_MAX: usize = 65_536;

/// What becomes of written bytes in memory.
pub fn caching_of_write(len: usize) -> Caching {
    if len < STREAM_BYTES_MIN { Caching::Keep } else { Caching::Stream }
}

/// What was read as a stream lately.
#[derive(Default)]
pub struct Streams {
    recent: Mutex<Recent>,
}

#[derive(Default)]
struct Recent {
    /// When each unit was read.
    units: HashMap<(SegmentId, u64), u64>,
    order: VecDeque<((SegmentId, u64), u64)>,
    reads: u64,
}

impl Streams {
    /// What becomes in memory of `len` bytes at `offset` of a segment that have to be read from disk. What has to be
    /// read although it was kept did not stay: it begins anew.
    pub fn caching(&self, segment: SegmentId, offset: u64, len: usize) -> Caching {
        if len < STREAM_BYTES_MIN {
            return Caching::Keep;
        }
        let unit = (segment, offset >> UNIT_LOG2);
        let mut recent = self.recent.lock();
        if recent.units.remove(&unit).is_some() {
            return Caching::Keep;
        }
        recent.reads += 1;
        let now = recent.reads;
        recent.units.insert(unit, now);
        recent.order.push_back((unit, now));
        if recent.order.len() > UNITS_MAX
            && let Some((oldest, then)) = recent.order.pop_front()
            && recent.units.get(&oldest) == Some(&then)
        {
            recent.units.remove(&oldest);
        }
        Caching::Stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_read_is_kept_when_it_comes_again_and_small_ones_always() {
        let streams = Streams::default();
        let (one, two) = (SegmentId(1), SegmentId(2));
        assert_eq!(streams.caching(one, 4096, 4096), Caching::Keep);
        assert_eq!(streams.caching(one, 4096, 1 << 20), Caching::Stream);
        assert_eq!(streams.caching(two, 4096, 1 << 20), Caching::Stream);
        assert_eq!(streams.caching(one, 4096, 1 << 20), Caching::Keep);
        assert_eq!(streams.caching(one, 4096, 1 << 20), Caching::Stream, "it did not stay");
        assert_eq!(caching_of_write(4096), Caching::Keep);
        assert_eq!(caching_of_write(1 << 20), Caching::Stream);
    }

    #[test]
    fn what_was_read_long_ago_is_forgotten() {
        let streams = Streams::default();
        for i in 0..=UNITS_MAX as u64 {
            assert_eq!(streams.caching(SegmentId(1), i << UNIT_LOG2, 1 << 20), Caching::Stream);
        }
        assert_eq!(streams.caching(SegmentId(1), 0, 1 << 20), Caching::Stream);
        let recent = streams.recent.lock();
        assert_eq!((recent.units.len(), recent.order.len()), (UNITS_MAX, UNITS_MAX));
    }
}
