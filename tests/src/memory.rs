//! How much memory a process has.

/// Memory of process `id` that is in RAM, in bytes (`VmRSS`).
#[track_caller]
pub fn resident(id: u32) -> u64 {
    of(id, "VmRSS:")
}

/// The most that [`resident`] ever was (`VmHWM`).
#[track_caller]
pub fn peak(id: u32) -> u64 {
    of(id, "VmHWM:")
}

#[track_caller]
fn of(id: u32, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("the process runs");
    let line = status.lines().find(|l| l.starts_with(what)).expect("a process has memory");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number of KiB");
    kib << 10
}

/// MiB for messages.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_was_written_is_resident() {
        let before = resident(std::process::id());
        let bytes = vec![7u8; 64 << 20];
        let after = resident(std::process::id());
        assert!(after >= before + (60 << 20), "{} {}", mib(before), mib(after));
        assert_eq!(bytes[bytes.len() - 1], 7);
        drop(bytes);
        // The kernel keeps both for each processor and adds them up roughly.
        assert!(peak(std::process::id()) + (4 << 20) >= after);
    }
}
