//! A FUSE mount for one measurement: new, so that neither the kernel nor the mount process has anything cached.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How long mounting and unmounting may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// Pause between two looks at a condition.
const POLL: Duration = Duration::from_millis(5);

/// A mounted file system; dropping it unmounts it.
#[derive(Debug)]
pub struct Mount {
    path: PathBuf,
    daemon: Child,
}

impl Mount {
    /// Mounts `source` at the directory `path`, which is made if needed, and waits until it answers. What the mount
    /// process says is appended to `log`.
    pub fn new(sateen: &Path, source: &str, path: PathBuf, log: &Path) -> anyhow::Result<Mount> {
        std::fs::create_dir_all(&path)?;
        let below = std::fs::metadata(&path)?.dev();
        let out = File::options().create(true).append(true).open(log)?;
        let daemon = Command::new(sateen)
            .args(["mount", "--foreground", source])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot run {}", sateen.display()))?;
        let mut mount = Mount { path, daemon };
        let answers = |mount: &Mount| std::fs::metadata(&mount.path).is_ok_and(|root| root.dev() != below);
        let end = Instant::now() + DEADLINE;
        while !answers(&mount) {
            if let Some(status) = mount.daemon.try_wait()? {
                bail!("the mount process ended ({status}); its log is {}", log.display());
            }
            if Instant::now() > end {
                bail!("the mount did not answer within {DEADLINE:?}; its log is {}", log.display());
            }
            std::thread::sleep(POLL);
        }
        Ok(mount)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn unmounted(&self) -> bool {
        let run = |program: &str, args: &[&str]| {
            let mut command = Command::new(program);
            command.args(args).arg(&self.path).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        run("umount", &[]) || run("fusermount3", &["-u"])
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let end = Instant::now() + DEADLINE;
        // Busy for a moment after the last file was closed, if the kernel is still sending requests.
        while matches!(self.daemon.try_wait(), Ok(None)) && !self.unmounted() && Instant::now() < end {
            std::thread::sleep(POLL);
        }
        while matches!(self.daemon.try_wait(), Ok(None)) {
            if Instant::now() > end {
                eprintln!("error: the mount process of {} did not end and is killed", self.path.display());
                let _ = self.daemon.kill();
                let _ = self.daemon.wait();
                break;
            }
            std::thread::sleep(POLL);
        }
    }
}
