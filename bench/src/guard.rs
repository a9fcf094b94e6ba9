//! Takes the cluster down, whatever becomes of this process.
//!
//! A small shell waits on a pipe whose other end only this process holds. When the pipe closes, because the run is over,
//! failed, was interrupted or killed, the shell unmounts, stops the cluster and removes the directory. So there is one
//! way down, and it is the same after success and after `kill -9`.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context;

/// `$1`: the `sateen` program, `$2`: the directory, `$3`: `keep` or `remove`. Mounts are in `mnt*`, clusters
/// in `cluster*`. `--one-file-system`: if an unmount has failed, the cleaning stops at the mount.
const TAKE_DOWN: &str = r#"
while read -r _; do :; done
for mount in "$2"/mnt*; do
    # A mount whose process is dead is neither readable nor a directory.
    while mountpoint -q "$mount" || [ ! -r "$mount" ]; do
        umount -l "$mount" 2>/dev/null || fusermount3 -u -z "$mount" 2>/dev/null || break
    done
done
for cluster in "$2"/cluster*; do
    [ ! -d "$cluster" ] || "$1" dev down --dir "$cluster" >"$2/down.log" 2>&1 || {
        echo "error: the benchmark's cluster in $cluster could not be stopped" >&2
        echo "hint: run $1 dev down --dir $cluster" >&2
        exit 1
    }
done
[ "$3" = keep ] || rm -rf --one-file-system "$2"
"#;

/// A temporary directory with a cluster and mounts in it. Dropping it waits until all that is gone.
#[derive(Debug)]
pub struct Guard {
    dir: PathBuf,
    keep: bool,
    shell: Child,
}

impl Guard {
    /// Makes a directory in `base` and watches over it. `sateen` is the program that stops the cluster.
    pub fn new(base: &Path, sateen: &Path, keep: bool) -> anyhow::Result<Guard> {
        std::fs::create_dir_all(base).with_context(|| format!("cannot create {}", base.display()))?;
        let base = base.canonicalize().with_context(|| format!("cannot use {}", base.display()))?;
        let dir = tempfile::Builder::new()
            .prefix("sateen-bench-")
            .tempdir_in(&base)
            .with_context(|| format!("cannot create a directory in {}", base.display()))?
            .keep();
        let shell = Command::new("sh")
            .args(["-c", TAKE_DOWN, "sateen-bench-guard"])
            .args([sateen, &dir])
            .arg(if keep { "keep" } else { "remove" })
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // An interrupt from the keyboard must reach us, not the guard.
            .process_group(0)
            .spawn()
            .context("cannot start sh")?;
        Ok(Guard { dir, keep, shell })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        match self.shell.wait() {
            Ok(status) if status.success() && self.keep => eprintln!("kept: {}", self.dir.display()),
            Ok(_) => {}
            Err(e) => eprintln!("error: cannot wait for the end of the cluster in {}: {e}", self.dir.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_a_guard_stops_the_cluster_and_removes_the_directory() {
        let base = tempfile::tempdir().expect("a temporary directory");
        let witness = base.path().join("witness");
        let sateen = base.path().join("sateen");
        std::fs::write(&sateen, format!("#!/bin/sh\necho \"$@\" >{}\n", witness.display())).expect("written");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&sateen, executable).expect("executable");
        for (keep, word) in [(false, "removed"), (true, "kept")] {
            let guard = Guard::new(base.path(), &sateen, keep).expect("starts");
            let dir = guard.dir().to_owned();
            std::fs::create_dir(dir.join("cluster")).expect("created");
            drop(guard);
            let said = std::fs::read_to_string(&witness).expect("the cluster was stopped");
            assert_eq!(said.trim(), format!("dev down --dir {}/cluster", dir.display()));
            assert_eq!(dir.exists(), keep, "{word}");
        }
    }
}
