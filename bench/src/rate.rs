//! From counts and times to figures.

use std::time::Duration;

/// 10^9 bytes per second.
pub fn gb_per_second(bytes: u64, took: Duration) -> f64 {
    per_second(bytes, took) / 1e9
}

/// `count` per second.
pub fn per_second(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64().max(f64::MIN_POSITIVE)
}
