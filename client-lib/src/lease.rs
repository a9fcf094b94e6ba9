//! How long the session lives for certain, by this client's own clock. A client that was cut off or stood still for longer
//! may have lost it, and others may have been given what it keeps: until the MDS has answered it trusts nothing it keeps.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When the lease ends. It begins when a renewal is sent that is answered later: the server counts from no earlier.
#[derive(Debug)]
pub(crate) struct Lease {
    base: Instant,
    /// Milliseconds after `base`.
    until: AtomicU64,
}

impl Default for Lease {
    /// One that never ends.
    fn default() -> Lease {
        Lease { base: Instant::now(), until: AtomicU64::new(u64::MAX) }
    }
}

impl Lease {
    /// A renewal that was sent at `asked` was answered.
    pub fn renewed(&self, asked: Instant, lease: Duration) {
        let until = (asked.saturating_duration_since(self.base) + lease).as_millis();
        self.until.store(u64::try_from(until).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Whether the session may be gone.
    pub fn is_over(&self) -> bool {
        self.base.elapsed().as_millis() > u128::from(self.until.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_over_when_its_time_has_passed_since_the_question_and_not_since_the_answer() {
        let lease = Lease::default();
        assert!(!lease.is_over());
        let hour = Duration::from_secs(3600);
        let long_ago = Lease { base: Instant::now() - 2 * hour, ..Lease::default() };
        long_ago.renewed(long_ago.base, hour);
        assert!(long_ago.is_over());
        long_ago.renewed(Instant::now(), hour);
        assert!(!long_ago.is_over());
    }
}
