//! How long an OST has not answered.
//!
//! An operation waits for an OST as long as [`Options::retry_for`](crate::Options) says. Behind it others may queue that
//! each would wait as long again; whoever comes when the OST has been away for that time already is told so at once,
//! except for one caller each [`PROBE_INTERVAL`] who finds out whether it is back.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How late it may be noticed that an OST is back which everybody has given up.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How long the one who asks may take; then another asks.
const PROBE_TIME: Duration = Duration::from_secs(30);

/// Whether and since when an OST does not answer.
#[derive(Debug, Default)]
pub(crate) struct Outage(Mutex<Option<Since>>);

#[derive(Debug)]
struct Since {
    began: Instant,
    next_probe: Instant,
}

impl Outage {
    /// Whether it did not answer the last time.
    pub fn lasts(&self) -> bool {
        self.0.lock().is_some()
    }

    /// It answered.
    pub fn over(&self) {
        *self.0.lock() = None;
    }

    /// It did not answer at `now`.
    pub fn failed(&self, now: Instant) {
        self.0.lock().get_or_insert(Since { began: now, next_probe: now }).next_probe = now + PROBE_INTERVAL;
    }

    /// Whether it has not answered for longer than `patience`: then nobody waits for it.
    pub fn passed(&self, patience: Option<Duration>, now: Instant) -> bool {
        self.0.lock().as_ref().is_some_and(|since| since.passed(patience, now))
    }

    /// Whether a caller at `now` should not even ask.
    pub fn given_up(&self, patience: Option<Duration>, now: Instant) -> bool {
        let mut since = self.0.lock();
        let Some(since) = since.as_mut().filter(|since| since.passed(patience, now)) else { return false };
        if now >= since.next_probe {
            // This caller asks.
            since.next_probe = now + PROBE_TIME;
            return false;
        }
        true
    }
}

impl Since {
    fn passed(&self, patience: Option<Duration>, now: Instant) -> bool {
        patience.is_some_and(|patience| now.saturating_duration_since(self.began) >= patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_its_time_one_caller_a_second_asks_and_nobody_else_waits() {
        let (outage, start, patience) = (Outage::default(), Instant::now(), Some(Duration::from_secs(60)));
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        assert!(!outage.given_up(patience, at(0.0)));
        outage.failed(at(0.0));
        outage.failed(at(59.5));
        assert!(!outage.given_up(patience, at(59.9)) && !outage.passed(patience, at(59.9)), "everybody may wait");
        assert!(outage.given_up(patience, at(60.0)) && outage.passed(patience, at(60.0)));
        assert!(!outage.given_up(None, at(60.0)) && !outage.passed(None, at(60.0)), "a hard mount never gives up");
        assert!(!outage.given_up(patience, at(60.5)), "the one who asks");
        assert!(outage.given_up(patience, at(75.0)), "it has not come back");
        outage.failed(at(80.0));
        assert!(outage.given_up(patience, at(80.9)), "still the same outage");
        assert!(!outage.given_up(patience, at(81.0)), "the next who asks");
        assert!(outage.given_up(patience, at(110.9)));
        assert!(!outage.given_up(patience, at(111.0)), "the one before may have been cancelled");
        outage.over();
        assert!(!outage.given_up(patience, at(111.1)) && !outage.passed(patience, at(111.1)));
    }
}
