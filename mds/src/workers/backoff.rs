//! Waiting longer after each failure in a row, with jitter so that many do not return at once.

use std::time::Duration;

/// First wait.
const FIRST: Duration = Duration::from_millis(100);
/// Longest wait: an OST that is back is found within this.
const LONGEST: Duration = Duration::from_secs(3);

/// See the module.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Nothing has failed yet.
    pub fn new() -> Backoff {
        Backoff { next: FIRST }
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }

    /// How long to wait now: between half and all of a span that doubles. `random` is any number.
    pub fn wait(&mut self, random: u32) -> Duration {
        let span = self.next;
        self.next = (span * 2).min(LONGEST);
        span / 2 + (span / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_start_over_after_a_success() {
        let mut b = Backoff::new();
        let longest: Vec<_> = (0..8).map(|_| b.wait(u32::MAX).as_millis()).collect();
        assert_eq!(longest, [100, 200, 400, 800, 1600, 3000, 3000, 3000]);
        b.reset();
        assert_eq!(b.wait(0).as_millis(), 50);
    }
}
