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
/// log2 of the piece in which reads are remembered.
const PIECE_LOG2: u32 = 16;
/// log2 of the pieces that are remembered together.
const UNIT_LOG2: u32 = u16::BITS.trailing_zeros();
/// Units that are remembered: the last 64 GiB that were read as streams, or less where only parts of units were.
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
    /// Which pieces of each unit were read, one bit each, and which unit of all that were remembered it is.
    units: HashMap<Unit, (u16, u64)>,
    order: VecDeque<(Unit, u64)>,
    count: u64,
}

/// Of a segment.
type Unit = (SegmentId, u64);

impl Streams {
    /// What becomes in memory of `len` bytes at `offset` of a segment that have to be read from disk. What has to be
    /// read although it was kept did not stay: it begins anew.
    pub fn caching(&self, segment: SegmentId, offset: u64, len: usize) -> Caching {
        if len < STREAM_BYTES_MIN {
            return Caching::Keep;
        }
        let pieces = offset >> PIECE_LOG2..(offset + len as u64).div_ceil(1 << PIECE_LOG2);
        let mut recent = self.recent.lock();
        let known = pieces.clone().filter(|piece| recent.contains(segment, *piece)).count();
        let again = known * 2 >= (pieces.end - pieces.start) as usize;
        pieces.for_each(|piece| recent.set(segment, piece, !again));
        if again { Caching::Keep } else { Caching::Stream }
    }
}

fn unit(segment: SegmentId, piece: u64) -> (Unit, u16) {
    ((segment, piece >> UNIT_LOG2), 1 << (piece % (1 << UNIT_LOG2)))
}

impl Recent {
    fn contains(&self, segment: SegmentId, piece: u64) -> bool {
        let (unit, bit) = unit(segment, piece);
        self.units.get(&unit).is_some_and(|(bits, _)| bits & bit != 0)
    }

    fn set(&mut self, segment: SegmentId, piece: u64, read: bool) {
        let (unit, bit) = unit(segment, piece);
        if let Some((bits, _)) = self.units.get_mut(&unit) {
            *bits = if read { *bits | bit } else { *bits & !bit };
            if *bits == 0 {
                self.units.remove(&unit);
            }
        } else if read {
            self.count += 1;
            self.units.insert(unit, (bit, self.count));
            self.order.push_back((unit, self.count));
            self.forget();
        }
    }

    /// Forgets the oldest unit if there are too many.
    fn forget(&mut self) {
        if self.order.len() > UNITS_MAX
            && let Some((oldest, number)) = self.order.pop_front()
            && self.units.get(&oldest).is_some_and(|(_, now)| *now == number)
        {
            self.units.remove(&oldest);
        }
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
    fn neighbours_are_not_taken_for_what_was_read_before() {
        let (streams, one) = (Streams::default(), SegmentId(1));
        for i in 0..64 {
            // Extents begin at blocks, wherever those lie.
            assert_eq!(streams.caching(one, 4096 + i * (300 << 10), 300 << 10), Caching::Stream, "{i}");
        }
        assert_eq!(streams.caching(one, 1 << 20, 1 << 20), Caching::Keep, "in other pieces");
    }

    #[test]
    fn what_was_read_long_ago_is_forgotten() {
        let streams = Streams::default();
        for i in 0..=UNITS_MAX as u64 {
            assert_eq!(streams.caching(SegmentId(1), i << 20, 1 << 20), Caching::Stream);
        }
        assert_eq!(streams.caching(SegmentId(1), 0, 1 << 20), Caching::Stream);
        let recent = streams.recent.lock();
        assert_eq!((recent.units.len(), recent.order.len()), (UNITS_MAX, UNITS_MAX));
    }
}
