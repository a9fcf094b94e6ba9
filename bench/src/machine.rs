//! Under which circumstances a run was made: without them its figures cannot be compared.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use serde::Serialize;

/// Written beside the results.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// Commit of the working directory, with `-dirty` if there are changes; `null` outside of a repository.
    pub commit: Option<String>,
    /// When the run ended, in UTC.
    pub date: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Model of the processors; `null` where the kernel does not tell.
    pub cpu: Option<String>,
    /// How many processors.
    pub cores: usize,
    /// Memory of the machine in bytes.
    pub memory_bytes: Option<u64>,
    /// How often each case was measured at most.
    pub runs: usize,
    /// Small sizes: the values mean nothing.
    pub quick: bool,
}

impl Machine {
    /// This machine, now.
    pub fn here(runs: usize, quick: bool) -> Machine {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Machine {
            commit: commit(),
            date: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: field(&read("/proc/meminfo"), "MemTotal").and_then(|text| kib(&text)),
            runs,
            quick,
        }
    }

    /// Where it is written for results in `out`: `results.json` has `results.machine.json` beside it.
    pub fn path_beside(out: &Path) -> PathBuf {
        out.with_extension("machine.json")
    }

    /// Writes it there.
    pub fn write_beside(&self, out: &Path) -> anyhow::Result<()> {
        let path = Machine::path_beside(out);
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let unknown = || "unknown".to_owned();
        format!(
            "commit {}, {}, Linux {}, {} x {}, {} GiB",
            self.commit.clone().unwrap_or_else(unknown),
            self.date,
            self.kernel,
            self.cores,
            self.cpu.clone().unwrap_or_else(unknown),
            self.memory_bytes.unwrap_or_default() >> 30
        )
    }
}

fn commit() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]).stdin(Stdio::null());
    let done = git.stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(done.stdout).ok()?.trim().to_owned();
    (done.status.success() && !text.is_empty()).then_some(text)
}

/// Value of the first line `NAME : VALUE`.
fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn kib(text: &str) -> Option<u64> {
    text.strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc_are_found() {
        assert_eq!(field("a : 1\nmodel name\t: A B C\n", "model name").as_deref(), Some("A B C"));
        assert_eq!(kib("  16 kB"), Some(16384));
        assert_eq!(kib("16"), None);
    }

    #[test]
    fn it_is_written_beside_the_results() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let out = dir.path().join("results.json");
        Machine::here(3, true).write_beside(&out).expect("written");
        let text = std::fs::read(dir.path().join("results.machine.json")).expect("file");
        let json: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!((json["runs"].as_u64(), json["quick"].as_bool()), (Some(3), Some(true)));
        assert!(json["cores"].as_u64().is_some_and(|n| n > 0) && !json["kernel"].as_str().unwrap_or("").is_empty());
    }
}
