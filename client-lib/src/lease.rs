//! How long the session lives for certain, by this client's own clocks. A client that was cut off or stood still for longer
//! may have lost it, and others may have been given what it keeps: until the MDS has answered it trusts nothing it keeps.
//!
//! There are two clocks, and the lease is over when one of them says so: the one that nobody sets stands still while the
//! machine is suspended, and the one of the wall can be set back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    steady: Instant,
    wall: SystemTime,
}

impl Moment {
    /// Now.
    pub fn now() -> Moment {
        Moment { steady: Instant::now(), wall: SystemTime::now() }
    }
}

/// When the lease ends. It begins when a renewal is sent that is answered later: the server counts from no earlier.
#[derive(Debug)]
pub(crate) struct Lease {
    base: Instant,
    /// Milliseconds after `base`.
    until: AtomicU64,
    /// Milliseconds after the epoch.
    until_by_the_wall: AtomicU64,
}

impl Default for Lease {
    /// One that never ends.
    fn default() -> Lease {
        let never = || AtomicU64::new(u64::MAX);
        Lease { base: Instant::now(), until: never(), until_by_the_wall: never() }
    }
}

impl Lease {
    /// A renewal that was sent at `asked` was answered.
    pub fn renewed(&self, asked: Moment, lease: Duration) {
        self.until.store(millis(asked.steady.saturating_duration_since(self.base) + lease), Ordering::Release);
        self.until_by_the_wall.store(millis(since_epoch(asked.wall) + lease), Ordering::Release);
    }

    /// Whether the session may be gone.
    pub fn is_over(&self) -> bool {
        millis(self.base.elapsed()) > self.until.load(Ordering::Acquire)
            || millis(since_epoch(SystemTime::now())) > self.until_by_the_wall.load(Ordering::Acquire)
    }
}

fn since_epoch(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_lease_is_over_when_its_time_has_passed_since_the_question_and_not_since_the_answer() {
        let lease = Lease::default();
        assert!(!lease.is_over());
        let base = Instant::now() - 2 * HOUR;
        let long_ago = Lease { base, ..Lease::default() };
        long_ago.renewed(Moment { steady: base, wall: SystemTime::now() }, HOUR);
        assert!(long_ago.is_over());
        long_ago.renewed(Moment::now(), HOUR);
        assert!(!long_ago.is_over());
    }

    #[test]
    fn a_lease_is_over_after_a_suspension_that_only_the_wall_clock_has_seen() {
        let lease = Lease::default();
        lease.renewed(Moment { steady: Instant::now(), wall: SystemTime::now() - 2 * HOUR }, HOUR);
        assert!(lease.is_over());
    }
}
