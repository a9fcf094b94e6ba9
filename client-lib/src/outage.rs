//! How long an OST has not answered.
//!
//! An operation waits for an OST as long as [`Options::retry_for`](crate::Options) says. Behind it others may queue that
//! each would wait as long again. So whoever comes when the OST has been away for that long makes one attempt, and one at a
//! time; who waits for that attempt shares its outcome, and for [`QUIET`] after it failed nobody tries.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::MutexGuard;

/// How late it may be noticed that an OST is back which everybody has given up.
const QUIET: Duration = Duration::from_secs(1);
/// What failed longer ago than this, or than an operation waits, says nothing about now.
const STALE: Duration = Duration::from_secs(60);

/// Whether and since when an OST does not answer.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    failures: Mutex<Option<Failures>>,
    /// Held by the one who tries.
    probe: tokio::sync::Mutex<()>,
}

/// The first and the last attempt that failed.
#[derive(Clone, Copy, Debug)]
struct Failures {
    first: Instant,
    last: Instant,
}

/// How an operation is to go about it.
#[derive(Debug)]
pub(crate) enum Approach<'a> {
    /// It may wait for its own time.
    Wait,
    /// One attempt, in the name of all.
    Once { _probe: MutexGuard<'a, ()> },
    /// None: the OST has been away for too long, and did not answer a moment ago.
    GiveUp,
}

impl Outage {
    /// How an operation that would wait for `patience` goes about it. Waits for whoever tries.
    pub async fn approach(&self, patience: Option<Duration>) -> Approach<'_> {
        if !self.is_passed(patience, Instant::now()) {
            return Approach::Wait;
        }
        let probe = self.probe.lock().await;
        let now = Instant::now();
        if !self.is_passed(patience, now) {
            return Approach::Wait;
        }
        let quiet = self.failures.lock().is_some_and(|f| now.saturating_duration_since(f.last) < QUIET);
        if quiet { Approach::GiveUp } else { Approach::Once { _probe: probe } }
    }

    /// Whether the last attempt failed.
    pub fn lasts(&self) -> bool {
        self.failures.lock().is_some()
    }

    /// It answered.
    pub fn over(&self) {
        *self.failures.lock() = None;
    }

    /// It did not answer at `now`.
    pub fn failed(&self, patience: Option<Duration>, now: Instant) {
        let mut failures = self.failures.lock();
        let first = failures.filter(|f| !f.is_stale(patience, now)).map_or(now, |f| f.first);
        *failures = Some(Failures { first, last: now });
    }

    /// Whether at `now` it has not answered for `patience`.
    pub fn is_passed(&self, patience: Option<Duration>, now: Instant) -> bool {
        let failures = *self.failures.lock();
        let away = |f: Failures| !f.is_stale(patience, now) && patience.is_some_and(|p| f.first + p <= now);
        failures.is_some_and(away)
    }
}

impl Failures {
    fn is_stale(&self, patience: Option<Duration>, now: Instant) -> bool {
        now.saturating_duration_since(self.last) > patience.map_or(STALE, |p| p.max(STALE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

    #[test]
    fn an_outage_passes_an_operations_time_if_it_lasts_and_is_forgotten_if_nobody_met_it() {
        let (outage, start) = (Outage::default(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert!(!outage.is_passed(PATIENCE, at(0)) && !outage.lasts());
        outage.failed(PATIENCE, at(0));
        outage.failed(PATIENCE, at(59));
        assert!(!outage.is_passed(PATIENCE, at(59)) && outage.lasts());
        assert!(outage.is_passed(PATIENCE, at(60)));
        assert!(!outage.is_passed(None, at(60)), "a hard mount never gives up");
        assert!(!outage.is_passed(PATIENCE, at(120)), "it may long be back");
        outage.failed(PATIENCE, at(121));
        assert!(!outage.is_passed(PATIENCE, at(122)), "another outage");
        outage.over();
        assert!(!outage.lasts());
    }

    #[tokio::test]
    async fn one_tries_for_all_and_all_share_the_outcome() {
        let outage = Outage::default();
        assert!(matches!(outage.approach(PATIENCE).await, Approach::Wait));
        let start = Instant::now();
        outage.failed(PATIENCE, start - Duration::from_secs(70));
        outage.failed(PATIENCE, start - Duration::from_secs(20));
        let one = outage.approach(PATIENCE).await;
        assert!(matches!(one, Approach::Once { .. }), "{one:?}");
        let (mut two, mut three) = (Box::pin(outage.approach(PATIENCE)), Box::pin(outage.approach(PATIENCE)));
        assert!((&mut two).now_or_never().is_none() && (&mut three).now_or_never().is_none(), "they wait for the one");
        outage.failed(PATIENCE, Instant::now());
        drop(one);
        assert!(matches!(two.await, Approach::GiveUp));
        outage.over();
        assert!(matches!(three.await, Approach::Wait), "it is back");
        assert!(matches!(outage.approach(PATIENCE).await, Approach::Wait));
    }
}
