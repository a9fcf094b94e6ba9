//! Readers of all kinds, and what is read ahead of them.

use super::*;
use std::time::Duration;

use proptest::prelude::*;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const LARGE: u64 = 1 << 40;
const MAX: u64 = 32 * MIB;
const NOTHING: Plan = Plan { whole_chunks: false, prefetch: Vec::new(), expected: false, in_a_row: false };

/// A reader over a cache that keeps everything and answers at once.
struct Reader {
    readahead: Readahead,
    ready: Vec<Range<u64>>,
    hits: usize,
}

impl Reader {
    fn new() -> Reader {
        Reader { readahead: Readahead::new(MAX), ready: Vec::new(), hits: 0 }
    }

    fn read(&mut self, offset: u64, len: u64) -> Plan {
        self.hits += usize::from(self.ready.iter().any(|r| r.start <= offset && offset + len <= r.end));
        let plan = self.readahead.on_read(offset, len, LARGE, LARGE);
        for range in &plan.prefetch {
            match self.ready.iter_mut().find(|r| r.end == range.start) {
                Some(before) => before.end = range.end,
                None => self.ready.push(range.clone()),
            }
        }
        plan
    }

    fn asked(&self) -> u64 {
        self.ready.iter().map(|r| r.end - r.start).sum()
    }
}

#[test]
fn a_sequential_reader_gets_a_window_that_grows_while_it_has_to_wait() {
    let mut r = Readahead::new(MAX);
    let mut now = Instant::now();
    let (mut covered, mut longest) = (0, [0, 0]);
    for i in 0..2000u64 {
        let plan = r.on_read(i * 128 * KIB, 128 * KIB, LARGE, LARGE);
        assert!(plan.whole_chunks);
        assert_eq!(plan.expected, i > 0);
        for range in plan.prefetch {
            assert!(range.start >= covered, "nothing is asked for twice");
            covered = range.end;
            let longest = &mut longest[usize::from(i >= 1000)];
            *longest = range.end.saturating_sub((i + 1) * 128 * KIB).max(*longest);
        }
        if i >= 1000 {
            // A latency of 8 ms, whatever the window is.
            now += Duration::from_millis(8) / (r.streams[0].window / (128 * KIB)) as u32;
            r.on_met(i * 128 * KIB, Met::Loading, now);
        }
    }
    assert_eq!(longest[0] / MIB, WINDOW_FREE / MIB);
    assert!((MAX - MIB..=MAX).contains(&longest[1]), "{longest:?}");
}

#[test]
fn a_window_shrinks_when_what_was_read_in_advance_is_gone_and_is_asked_for_again() {
    let mut r = Readahead::new(MAX);
    let mut at = 0;
    let mut read = |r: &mut Readahead, met: Option<Met>| {
        let plan = r.on_read(at, MIB, LARGE, LARGE);
        if let Some(met) = met {
            r.on_met(at, met, Instant::now());
        }
        at += MIB;
        (plan, at)
    };
    for _ in 0..100 {
        read(&mut r, Some(Met::Loading));
    }
    for _ in 0..20 {
        read(&mut r, Some(Met::Gone));
    }
    let (plan, next) = read(&mut r, None);
    assert!(plan.prefetch.iter().all(|p| p.start >= next && p.end - next <= 2 * MIB), "{plan:?} at {next}");
    assert!(!plan.prefetch.is_empty());
}

#[test]
fn requests_that_a_kernel_hands_out_in_parallel_are_one_sequential_reader() {
    let mut reader = Reader::new();
    for i in 0..400u64 {
        // Pairs change places.
        let plan = reader.read((i ^ 1) * 512 * KIB, 512 * KIB);
        assert!(i < 10 || plan.whole_chunks, "read {i}");
    }
    assert!(reader.hits > 380, "{} of 400", reader.hits);
    assert!(reader.asked() < 400 * 512 * KIB + MAX);
}

#[test]
fn four_sequential_readers_of_one_file_do_not_disturb_each_other() {
    let mut reader = Reader::new();
    for i in 0..400u64 {
        for base in 0..4u64 {
            reader.read(base * 7777 * MIB + 5 + i * 64 * KIB, 64 * KIB);
        }
    }
    assert!(reader.hits > 4 * 380, "{} of 1600", reader.hits);
}

#[test]
fn small_reads_far_apart_at_a_constant_distance_are_not_worth_whole_chunks() {
    let mut reader = Reader::new();
    for i in 0..100 {
        assert_eq!(reader.read(GAP + i * GAP, 4 * KIB), NOTHING);
    }
    const GAP: u64 = 10 * MIB;
}

#[test]
fn what_a_program_says_is_followed() {
    let mut r = Readahead::new(MAX);
    r.advise(Advice::Random);
    assert_eq!(r.on_read(0, MIB, LARGE, LARGE), NOTHING);
    assert_eq!(r.on_read(MIB, MIB, LARGE, LARGE), NOTHING);
    r.advise(Advice::Sequential);
    let plan = r.on_read(70 * MIB, MIB, LARGE, LARGE);
    assert!(plan.whole_chunks, "{plan:?}");
    assert_eq!(plan.prefetch.first(), Some(&(71 * MIB..72 * MIB)));
    r.advise(Advice::Normal);
    assert_eq!(r.on_read(90 * MIB, MIB, LARGE, LARGE), NOTHING);
}

#[test]
fn without_a_window_patterns_are_recognised_and_nothing_is_read_ahead() {
    let mut r = Readahead::new(0);
    for i in 0..100 {
        let plan = r.on_read(i * MIB, MIB, LARGE, LARGE);
        assert!(plan.whole_chunks && plan.prefetch.is_empty());
    }
}

proptest! {
    #[test]
    fn strided_readers_forward_and_backward_find_their_data(
        strides in proptest::collection::vec((8 * KIB..8 * MIB, any::<bool>()), 1..=STREAMS_MAX), len in 8 * KIB..256 * KIB,
    ) {
        let mut reader = Reader::new();
        for i in 0..100i64 {
            for (number, (stride, backward)) in strides.iter().enumerate() {
                let (start, step) = ((number as u64 + 1) << 36, (*stride + len) as i64);
                reader.read(start.checked_add_signed(if *backward { -i * step } else { i * step }).expect("large"), len);
            }
        }
        let reads = 100 * strides.len();
        prop_assert!(reader.hits * 10 >= reads * 9, "{} of {reads}", reader.hits);
        prop_assert!(reader.asked() <= (reads + strides.len() * STRIDES_AHEAD_MAX as usize) as u64 * len);
    }

    #[test]
    fn nothing_is_read_ahead_of_clusters_at_random_places(
        clusters in proptest::collection::vec((1u64..1 << 28, 1..READS_TRUSTED), 1..200), len in (0u32..6).prop_map(|n| 4096u64 << n),
    ) {
        let mut r = Readahead::new(MAX);
        let mut asked = 0;
        let mut reads = 0;
        // What goes on where another ended is no cluster of its own; chance brings that about more often than one thinks.
        let mut regions = std::collections::HashSet::new();
        for (page, count) in clusters {
            let region = page >> 9;
            if (region - region.min(1)..=region + 1).any(|near| regions.contains(&near)) {
                continue;
            }
            regions.insert(region);
            for i in 0..u64::from(count) {
                let plan = r.on_read(page * 4096 + i * len, len, LARGE, LARGE);
                asked += plan.prefetch.iter().map(|r| r.end - r.start).sum::<u64>();
                reads += 1;
            }
        }
        // Chance may make a pattern of them.
        prop_assert!(asked <= reads * len / 50, "{asked} bytes for {reads} reads of {len}");
    }

    #[test]
    fn a_reader_that_stops_wastes_at_most_what_it_used(start in 1u64..100, reads in 1u64..100, len in 1u64..2 * MIB) {
        let (mut reader, now) = (Reader::new(), Instant::now());
        for i in 0..reads {
            reader.read(start * 4096 + i * len, len);
            reader.readahead.on_met(start * 4096 + i * len, Met::Loading, now);
        }
        let used = reads * len;
        let end = reader.ready.iter().map(|r| r.end).max().unwrap_or(0);
        let wasted = end.saturating_sub(start * 4096 + used);
        prop_assert!(wasted <= used.max(WINDOW_FIRST), "{wasted} for {used}");
    }

    #[test]
    fn nothing_is_asked_for_beyond_the_file_the_bounds_or_the_room(
        reads in proptest::collection::vec((0u64..8 * MIB, 1u64..MIB, 0u8..3), 1..100),
        aligned in (0u32..16).prop_map(|n| 1u64 << n), size in 0u64..8 * MIB, max in 0u64..4 * MIB, room in 0u64..4 * MIB,
    ) {
        let (mut r, now) = (Readahead::new(max), Instant::now());
        for (offset, len, met) in reads {
            let offset = offset / aligned * aligned;
            let plan = r.on_read(offset, len, size, room);
            let total: u64 = plan.prefetch.iter().map(|r| r.end - r.start).sum();
            prop_assert!(total <= max.min(room), "{plan:?}");
            prop_assert!(plan.prefetch.iter().all(|r| r.start < r.end && r.end <= size), "{plan:?}");
            match met {
                0 => {}
                1 => r.on_met(offset, Met::Loading, now),
                _ => r.on_met(offset, Met::Gone, now),
            }
        }
    }
}
