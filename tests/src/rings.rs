//! How requests reach a mount: by io_uring where the machine has that switched on, else by `/dev/fuse`.
//!
//! Tests that say nothing about it mount half and half, by the name of the test and the number of the mount, so that both ways are
//! taken by all kinds of programs, and meet each other in tests with two mounts.

use std::path::Path;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// The kernel's switch.
const SWITCH: &str = "/sys/module/fuse/parameters/enable_uring";

/// Whether mounts can have their requests by io_uring here.
pub fn are_on() -> bool {
    std::fs::read_to_string(SWITCH).is_ok_and(|value| matches!(value.trim(), "Y" | "1"))
}

/// The mount option for mount number `number` of the test called `test`, unless `options` have one.
pub fn option(test: &str, number: usize, options: &[&str]) -> Option<&'static str> {
    if !are_on() || options.iter().any(|o| o.ends_with("io_uring")) {
        return None;
    }
    let sum = test.bytes().fold(number, |sum, byte| sum + usize::from(byte));
    Some(if sum.is_multiple_of(2) { "io_uring" } else { "noio_uring" })
}

/// Threads of process `id` that serve rings.
pub fn threads(id: u32) -> usize {
    let named = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    let tasks = std::fs::read_dir(Path::new("/proc").join(id.to_string()).join("task")).expect("the process runs");
    tasks.flatten().map(named).filter(|name| name.starts_with("sateen-ring")).count()
}

/// Process `id` runs on the first processor from now on.
pub fn bind_to_first(id: u32) {
    let mut set = CpuSet::new();
    set.set(0);
    let process = i32::try_from(id).ok().and_then(Pid::from_raw).expect("the id of a process");
    sched_setaffinity(Some(process), &set).expect("processes can be bound");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_mounts_take_different_ways_and_explicit_ones_theirs() {
        assert_eq!(option("a", 1, &["noio_uring"]), None);
        if are_on() {
            assert_ne!(option("a", 0, &[]), option("a", 1, &["allow_other"]));
        }
    }
}
