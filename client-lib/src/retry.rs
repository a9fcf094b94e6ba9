//! When to try again: exponential backoff with jitter, until an operation has waited long enough.

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// First pause. A server that was restarted is back within a few of them.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Longest pause: how late a server that came back may be noticed.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Pauses of one operation.
#[derive(Debug)]
pub(crate) struct Backoff {
    pause: Duration,
    deadline: Option<Instant>,
    /// Others were waited for.
    longer: bool,
    stop: CancellationToken,
}

impl Backoff {
    /// Gives up after `retry_for`, with `None` never, and in any case when `stop` says so.
    pub fn new(retry_for: Option<Duration>, stop: &CancellationToken) -> Backoff {
        Backoff {
            pause: PAUSE_FIRST,
            deadline: retry_for.map(|d| Instant::now() + d),
            longer: false,
            stop: stop.clone(),
        }
    }

    /// It turned out that others have to do something first, for which they have so much time: once.
    pub fn wait_longer(&mut self, by: Duration) {
        if !std::mem::replace(&mut self.longer, true) {
            self.deadline = self.deadline.map(|deadline| deadline + by);
        }
    }

    /// Waits before the next attempt; `false` at once when the time is used up.
    pub async fn pause(&mut self) -> bool {
        if self.deadline.is_some_and(|d| Instant::now() + self.pause >= d) {
            return false;
        }
        // Half fixed, half random: clients that lost the same server do not come back in step.
        let jitter = rand::rng().random_range(0.5..1.0);
        tokio::select! {
            () = self.stop.cancelled() => return false,
            () = tokio::time::sleep(self.pause.mul_f64(jitter)) => {}
        }
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pauses_grow_and_end_before_the_deadline() {
        let limit = Duration::from_millis(400);
        let start = Instant::now();
        let stop = CancellationToken::new();
        let mut backoff = Backoff::new(Some(limit), &stop);
        let mut pauses = 0;
        while backoff.pause().await {
            pauses += 1;
        }
        assert!(start.elapsed() < limit * 2);
        assert!((2..=6).contains(&pauses), "20 + 40 + 80 + 160 ms, more or less: {pauses}");
        assert!(!backoff.pause().await, "the time stays used up");
        backoff.wait_longer(4 * limit);
        assert!(backoff.pause().await, "others have time of their own");
        let deadline = backoff.deadline;
        backoff.wait_longer(limit);
        assert_eq!(backoff.deadline, deadline, "once");
        stop.cancel();
        assert!(!Backoff::new(None, &stop).pause().await, "nothing waits once the client stops");
    }
}
