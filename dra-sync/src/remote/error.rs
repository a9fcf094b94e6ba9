//! What can be wrong with a request to a repository, and when it is worth another try.

use std::fmt;
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

/// First pause before a request is sent again.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause: how late a store that came back may be noticed.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Kind of a failure: what a caller may do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No object is under the key.
    Gone,
    /// Another object is under the key than was asked for.
    Changed,
    /// The credentials do not allow it, or are wrong.
    Denied,
    /// The credentials were good for a time that is over: others are needed.
    Expired,
    /// Slower, please.
    Throttled,
    /// The store cannot be reached, or has a problem of its own.
    Unavailable,
    /// Anything else; sending it again would not help.
    Refused,
}

impl Trouble {
    /// All kinds, in the order of [`Trouble::index`].
    pub const ALL: [Trouble; 7] = [
        Trouble::Gone,
        Trouble::Changed,
        Trouble::Denied,
        Trouble::Expired,
        Trouble::Throttled,
        Trouble::Unavailable,
        Trouble::Refused,
    ];

    /// Place in [`Trouble::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Short name, for figures.
    pub fn name(self) -> &'static str {
        match self {
            Trouble::Gone => "gone",
            Trouble::Changed => "changed",
            Trouble::Denied => "denied",
            Trouble::Expired => "expired",
            Trouble::Throttled => "throttled",
            Trouble::Unavailable => "unavailable",
            Trouble::Refused => "refused",
        }
    }
}

/// A request to a repository failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteError {
    /// What kind of failure.
    pub trouble: Trouble,
    /// What was asked for and what the store said. Holds no credentials.
    pub message: String,
}

impl RemoteError {
    /// A failure with its description.
    pub fn new(trouble: Trouble, message: impl Into<String>) -> RemoteError {
        RemoteError { trouble, message: message.into() }
    }

    /// Whether the same request may succeed a moment later.
    pub fn is_retryable(&self) -> bool {
        matches!(self.trouble, Trouble::Throttled | Trouble::Unavailable)
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RemoteError {}

/// The retries of one request: exponential pauses with jitter until its budget of time is used up.
///
/// How many requests are under way is bounded elsewhere, so that a store in trouble gets from one worker at most that many in
/// each pause.
#[derive(Debug)]
pub struct Retries {
    pause: Duration,
    deadline: Instant,
}

impl Retries {
    /// Gives up when `budget` has passed.
    pub fn within(budget: Duration) -> Retries {
        Retries { pause: PAUSE_FIRST, deadline: Instant::now() + budget }
    }

    /// Waits before the next attempt. `false` at once if `error` is for good or the budget is used up.
    pub async fn pause(&mut self, error: &RemoteError) -> bool {
        error.is_retryable() && self.wait().await
    }

    /// Waits before the next attempt, whatever failed. `false` at once if the budget is used up.
    pub async fn wait(&mut self) -> bool {
        if Instant::now() + self.pause >= self.deadline {
            return false;
        }
        // Half fixed, half random: requests that failed together do not come back together.
        let jitter = rand::rng().random_range(0.5..1.0);
        tokio::time::sleep(self.pause.mul_f64(jitter)).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_place() {
        for (i, trouble) in Trouble::ALL.into_iter().enumerate() {
            assert_eq!(trouble.index(), i, "{}", trouble.name());
        }
    }

    #[tokio::test]
    async fn only_what_may_pass_is_tried_again_and_only_within_the_budget() {
        let budget = Duration::from_millis(900);
        let mut retries = Retries::within(budget);
        let start = Instant::now();
        assert!(!retries.pause(&RemoteError::new(Trouble::Denied, "no")).await);
        let busy = RemoteError::new(Trouble::Throttled, "slow down");
        let mut pauses = 0;
        while retries.pause(&busy).await {
            pauses += 1;
        }
        assert!((2..=5).contains(&pauses), "{pauses}");
        assert!(start.elapsed() <= budget);
    }
}
