//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// Pause between two looks at a condition: short beside what is waited for, long beside a look.
const POLL: Duration = Duration::from_millis(20);

/// Longest a server may take to come up or notice something, on a loaded machine with two cores.
pub const SERVER: Duration = Duration::from_secs(60);

/// Calls `look` until it gives a value. Panics with `what` after `deadline`.
#[track_caller]
pub fn until<T>(what: &str, deadline: Duration, look: impl FnMut() -> Option<T>) -> T {
    match try_until(deadline, look) {
        Some(value) => value,
        None => panic!("{what} did not happen within {deadline:?}"),
    }
}

/// Calls `look` until it gives a value, or gives up after `deadline`.
pub fn try_until<T>(deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = look() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(POLL);
    }
}
