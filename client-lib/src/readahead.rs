//! When to read ahead, and how far. A pure state machine, one per open file.
//!
//! Reads that follow one another make the window grow from [`WINDOW_FIRST`] to the bound; a jump closes it. Reads that
//! a kernel hands out in parallel arrive a little out of order, so near misses count as following.

use std::ops::Range;

/// First window, in bytes: two to four chunks, so that a small file is read with one more request.
const WINDOW_FIRST: u64 = 512 << 10;
/// A read this near to the expected offset still follows, in bytes.
const NEAR: u64 = 1 << 20;

/// What a reader did so far.
#[derive(Debug)]
pub(crate) struct Readahead {
    max: u64,
    /// Where a following read would begin.
    next: u64,
    /// Bytes to have ready beyond the reader; 0 while reads jump.
    window: u64,
    /// One past the last byte asked for in advance.
    ahead: u64,
}

/// What a read asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Advice {
    /// Whether whole chunks are worth reading: neighbours will be wanted.
    pub sequential: bool,
    /// Read this in advance.
    pub prefetch: Option<Range<u64>>,
}

impl Readahead {
    /// A reader that begins at the start of the file is expected to go on.
    pub fn new(max: u64) -> Readahead {
        Readahead { max, next: 0, window: 0, ahead: 0 }
    }

    /// Records a read of `[offset, offset + len)` of a file of `size` bytes.
    pub fn on_read(&mut self, offset: u64, len: u64, size: u64) -> Advice {
        let end = offset.saturating_add(len).min(size);
        let sequential = offset.abs_diff(self.next) <= if self.window > 0 { NEAR } else { 0 };
        if !sequential {
            (self.next, self.window, self.ahead) = (end, 0, 0);
            return Advice { sequential, prefetch: None };
        }
        self.next = self.next.max(end);
        let from = self.ahead.max(self.next);
        // Asked for in pieces of half a window, not a little with every read.
        if self.window > 0 && from.saturating_sub(self.next) > self.window / 2 {
            return Advice { sequential, prefetch: None };
        }
        self.window = if self.window == 0 { WINDOW_FIRST } else { self.window * 2 }.min(self.max);
        let to = self.next.saturating_add(self.window).min(size);
        let prefetch = (from < to).then_some(from..to);
        if prefetch.is_some() {
            self.ahead = to;
        }
        Advice { sequential, prefetch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_sequential_reader_gets_a_growing_window_up_to_the_bound() {
        let mut r = Readahead::new(8 * MIB);
        let (mut covered, mut longest) = (0, 0);
        for i in 0..1000u64 {
            let advice = r.on_read(i * 128 * 1024, 128 * 1024, 1 << 40);
            assert!(advice.sequential);
            if let Some(range) = advice.prefetch {
                assert!(range.start >= covered, "nothing is asked for twice");
                covered = range.end;
                longest = longest.max(range.end - (i + 1) * 128 * 1024);
            }
        }
        assert_eq!(longest, 8 * MIB);
    }

    #[test]
    fn a_jump_closes_the_window_and_random_reads_ask_for_nothing() {
        let mut r = Readahead::new(8 * MIB);
        r.on_read(0, 4096, 1 << 40);
        for i in 1..100u64 {
            let advice = r.on_read((i * 7919) % 97 * 10 * MIB + 5, 4096, 1 << 40);
            assert_eq!(advice, Advice { sequential: false, prefetch: None });
        }
    }

    proptest! {
        #[test]
        fn nothing_is_prefetched_beyond_the_file_or_the_bound(
            reads in proptest::collection::vec((0u64..4 * MIB, 1u64..MIB), 1..50), size in 0u64..3 * MIB, max in 0u64..2 * MIB,
        ) {
            let mut r = Readahead::new(max);
            for (offset, len) in reads {
                if let Some(range) = r.on_read(offset, len, size).prefetch {
                    prop_assert!(range.start < range.end && range.end <= size && range.end - range.start <= max);
                }
            }
        }
    }
}
