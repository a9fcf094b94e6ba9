//! What the whole machine's processors did during a measurement: clients, servers and kernel alike.

use std::time::Duration;

use anyhow::Context;

/// Ticks of `/proc/stat` per second, on every Linux we run on.
const TICKS_PER_SECOND: u64 = 100;
/// Columns of `/proc/stat` that are work: user, nice, system, irq, softirq. Not idle, iowait and what others stole.
const WORK: [usize; 5] = [0, 1, 2, 5, 6];

/// Time all processors have worked since the machine was started.
pub fn busy() -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    busy_in(&text).context("/proc/stat is not what it should be")
}

/// 10^6 bytes per second of work, of which there is at least what the clock can tell.
pub fn mb_per_cpu_second(bytes: u64, work: Duration) -> f64 {
    bytes as f64 / 1e6 / work.max(Duration::from_secs(1) / TICKS_PER_SECOND as u32).as_secs_f64()
}

fn busy_in(stat: &str) -> Option<Duration> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let columns: Vec<u64> = line.split_whitespace().map_while(|n| n.parse().ok()).collect();
    let ticks: u64 = WORK.iter().map(|i| columns.get(*i)).sum::<Option<u64>>()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_everything_but_waiting() {
        let stat = "cpu  100 10 200 9999 8888 30 4 7777 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(busy_in(stat), Some(Duration::from_millis(3440)));
        assert_eq!(busy_in("cpu  1 2\n"), None);
        assert_eq!(busy_in(""), None);
    }

    #[test]
    fn the_rate_is_bytes_per_second_of_work() {
        assert_eq!(mb_per_cpu_second(500_000_000, Duration::from_secs(2)), 250.0);
        assert_eq!(mb_per_cpu_second(1_000_000, Duration::ZERO), 100.0);
    }
}
