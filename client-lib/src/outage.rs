//! How long an OST has not answered.
//!
//! An operation waits for an OST as long as [`Options::retry_for`](crate::Options) says. Behind it others may queue that
//! each would wait as long again. So whoever comes when the OST has been away for that long makes one attempt, one after
//! the other; who waited while it failed shares its outcome, and then nobody tries for as long as it took to fail. A server
//! that refuses connections is tried again by the next who comes; one that swallows packets costs half of the time.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::MutexGuard;

/// Most time after an attempt that failed for which nobody tries: how late it may be noticed that an OST is back which
/// everybody has given up.
const QUIET_MAX: Duration = Duration::from_secs(10);
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
    /// How long the last attempt took to fail.
    took: Duration,
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
    /// How an operation goes about it that came at `came` and would wait for `patience`. Waits for whoever tries.
    pub async fn approach(&self, patience: Option<Duration>, came: Instant) -> Approach<'_> {
        if !self.is_passed(patience, Instant::now()) {
            return Approach::Wait;
        }
        let probe = self.probe.lock().await;
        let now = Instant::now();
        if !self.is_passed(patience, now) {
            return Approach::Wait;
        }
        let quiet = self.failures.lock().is_some_and(|f| f.last > came || now < f.last + f.took.min(QUIET_MAX));
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

    /// An attempt that began at `began` failed at `now`.
    pub fn failed(&self, patience: Option<Duration>, began: Instant, now: Instant) {
        let mut failures = self.failures.lock();
        let first = failures.filter(|f| !f.is_stale(patience, now)).map_or(now, |f| f.first);
        *failures = Some(Failures { first, last: now, took: now.saturating_duration_since(began) });
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
        outage.failed(PATIENCE, at(0), at(0));
        outage.failed(PATIENCE, at(59), at(59));
        assert!(!outage.is_passed(PATIENCE, at(59)) && outage.lasts());
        assert!(outage.is_passed(PATIENCE, at(60)));
        assert!(!outage.is_passed(None, at(60)), "a hard mount never gives up");
        assert!(!outage.is_passed(PATIENCE, at(120)), "it may long be back");
        outage.failed(PATIENCE, at(121), at(121));
        assert!(!outage.is_passed(PATIENCE, at(122)), "another outage");
        outage.over();
        assert!(!outage.lasts());
    }

    #[tokio::test]
    async fn one_tries_for_all_and_who_waited_shares_the_outcome() {
        let (outage, now) = (Outage::default(), Instant::now());
        let ago = |seconds| now - Duration::from_secs(seconds);
        assert!(matches!(outage.approach(PATIENCE, now).await, Approach::Wait));
        outage.failed(PATIENCE, ago(70), ago(70));
        outage.failed(PATIENCE, ago(20), ago(20));
        assert!(
            matches!(outage.approach(PATIENCE, ago(30)).await, Approach::GiveUp),
            "it failed while this one waited"
        );
        let one = outage.approach(PATIENCE, now).await;
        assert!(matches!(one, Approach::Once { .. }), "{one:?}");
        let mut two = Box::pin(outage.approach(PATIENCE, now));
        let mut three = Box::pin(outage.approach(PATIENCE, now));
        assert!((&mut two).now_or_never().is_none() && (&mut three).now_or_never().is_none(), "they wait for the one");
        let failed = Instant::now();
        outage.failed(PATIENCE, failed, failed);
        drop(one);
        assert!(matches!(two.await, Approach::GiveUp));
        assert!(matches!(three.await, Approach::GiveUp));
        assert!(matches!(outage.approach(PATIENCE, Instant::now()).await, Approach::Once { .. }), "it failed quickly");
        outage.failed(PATIENCE, ago(5), Instant::now());
        assert!(matches!(outage.approach(PATIENCE, Instant::now()).await, Approach::GiveUp), "it failed slowly");
        outage.over();
        assert!(matches!(outage.approach(PATIENCE, now).await, Approach::Wait), "it is back");
    }
}
