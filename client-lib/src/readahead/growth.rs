//! Whether a larger window pays. Pure; the time is handed in.
//!
//! A reader that has to wait may wait because its window does not cover bandwidth times latency, and then more requests
//! under way help; or because network, disk or processors give no more, and then a larger window only spreads the same
//! work over more memory than the processors' caches hold. The two look alike, so it is tried: a window that was doubled
//! stays if what is read per second rose by [`PAYS`], and is halved again if not.

use std::time::Instant;

/// How much more must be read per second with a window twice as large.
const PAYS: f64 = 1.1;
/// Windows read before their rate counts.
const SAMPLE_WINDOWS: u64 = 2;
/// Windows read until a size that did not pay is tried again: things change.
const REST_WINDOWS: u64 = 64;

/// What was measured of one reader.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Growth {
    /// When and at how many bytes the present sample began.
    sample: Option<(Instant, u64)>,
    /// Bytes a second with half of the present window; 0 if that is not known.
    before: f64,
    /// No sample begins before this many bytes were read.
    rest_until: u64,
}

impl Growth {
    /// The window of a reader that has read `run` bytes in a row and must wait now.
    pub fn on_wait(&mut self, window: u64, run: u64, now: Instant) -> u64 {
        if run < self.rest_until {
            return window;
        }
        let (began, from) = *self.sample.get_or_insert((now, run));
        let read = run.saturating_sub(from);
        if read < window * SAMPLE_WINDOWS {
            return window;
        }
        let rate = read as f64 / now.saturating_duration_since(began).as_secs_f64();
        self.sample = Some((now, run));
        if rate >= self.before * PAYS {
            self.before = rate;
            return window * 2;
        }
        self.rest(window, run);
        window / 2
    }

    /// Nothing is tried for a while: the window was changed for another reason, or a larger one does not pay.
    pub fn rest(&mut self, window: u64, run: u64) {
        *self = Growth { rest_until: run + window * REST_WINDOWS, ..Growth::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const MIB: u64 = 1 << 20;

    /// Reads through `bytes`, waiting at each MiB; a window of `w` MiB is read at `rate(w)` MiB per second. The windows
    /// it had.
    fn windows(growth: &mut Growth, bytes: u64, rate: impl Fn(u64) -> f64) -> Vec<u64> {
        let (mut now, mut window, mut seen) = (Instant::now(), 2 * MIB, vec![]);
        for run in 0..bytes / MIB {
            now += Duration::from_secs_f64(1.0 / rate(window / MIB));
            window = growth.on_wait(window, run * MIB, now);
            seen.push(window / MIB);
        }
        seen
    }

    #[test]
    fn a_window_grows_until_it_covers_the_latency() {
        // 10 ms of latency, 3.2 GiB/s: 32 MiB are needed.
        let seen = windows(&mut Growth::default(), 4096 * MIB, |w| (w as f64 * 100.0).min(3200.0));
        assert!(seen.iter().position(|w| *w >= 32).is_some_and(|at| at < 64), "{seen:?}");
        assert_eq!(seen.iter().max(), Some(&64), "tried once more than pays");
        let small = seen[100..].iter().filter(|w| **w < 32).count();
        assert_eq!(small, 0, "of {}", seen.len());
    }

    #[test]
    fn a_window_that_does_not_pay_stays_small_and_is_tried_again() {
        let seen = windows(&mut Growth::default(), 4096 * MIB, |_| 2000.0);
        assert_eq!(seen.iter().max(), Some(&4));
        let large = seen.iter().filter(|w| **w == 4).count();
        assert!(large * 10 < seen.len(), "{large} of {}", seen.len());
        assert!(seen[1000..].contains(&4), "tried again");
    }

    #[test]
    fn a_clock_that_stands_still_is_no_reason_to_panic() {
        let (mut growth, now) = (Growth::default(), Instant::now());
        let mut window = MIB;
        for run in 0..100 {
            window = growth.on_wait(window, run * MIB, now).min(8 * MIB);
        }
        assert!((1..=8).contains(&(window / MIB)), "{window}");
    }
}
