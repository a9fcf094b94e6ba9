//! Cleans up after a test process that was itself killed, so that `Drop` never ran.
//!
//! A guard is a small shell that waits on a pipe whose other end only the test process holds. When the pipe closes
//! without a word, the test is dead, and the guard runs its script. Processes need no guard (the kernel kills them, see
//! [`process`](crate::process)); mounts do.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// Waits for a word; without one, runs its first argument.
const WATCH: &str = r#"if read -r word && [ "$word" = done ]; then exit 0; fi; eval "$1""#;

/// Runs a shell script if this process dies before the guard is dropped.
#[derive(Debug)]
pub struct Guard {
    watcher: Child,
}

impl Guard {
    /// Starts watching. `script` is run by `sh` with the arguments `args` as `$2`, `$3`...
    pub fn new(script: &str, args: &[&std::ffi::OsStr]) -> Guard {
        let watcher = Command::new("sh")
            .arg("-c")
            .arg(WATCH)
            .arg("guard")
            .arg(script)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A signal to the test's process group must not end the guard as well.
            .process_group(0)
            .spawn()
            .expect("sh can be started");
        Guard { watcher }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.watcher.stdin.take() {
            let _ = pipe.write_all(b"done\n");
        }
        let _ = self.watcher.wait();
    }
}
