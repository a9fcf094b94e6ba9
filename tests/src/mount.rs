//! One mount of a file system: a `sateen mount --foreground` process and its directory.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::netns::Site;
use crate::process::Process;
use crate::{bins, command, wait};

/// What to mount and how.
#[derive(Debug, Clone)]
pub struct MountSpec {
    /// `HOST:PORT:/FS`.
    pub source: String,
    /// Existing directory.
    pub path: PathBuf,
    /// Mount options, without `-o`.
    pub options: Vec<String>,
    /// Where the process logs.
    pub log: PathBuf,
    /// Where the process is.
    pub site: Site,
}

/// A mounted file system. Dropping it unmounts, with force if it must.
#[derive(Debug)]
pub struct Mount {
    spec: MountSpec,
    process: Option<Process>,
}

impl Mount {
    /// Mounts and waits until the root answers.
    #[track_caller]
    pub fn new(spec: MountSpec) -> Mount {
        let mut mount = Mount { spec, process: None };
        mount.mount();
        mount
    }

    /// Mounts again after [`Mount::unmount`] or [`Mount::kill9`].
    #[track_caller]
    pub fn mount(&mut self) {
        assert!(self.process.is_none(), "{} is mounted already", self.path().display());
        let mut args: Vec<OsString> = vec!["mount".into(), self.spec.source.clone().into(), self.path().into()];
        if !self.spec.options.is_empty() {
            args.extend(["-o".into(), self.spec.options.join(",").into()]);
        }
        args.push("--foreground".into());
        let place = |command: &mut Command| self.spec.site.place(command);
        let mut process = Process::start("mount", &bins::path("sateen"), &args, &self.spec.log, place);
        wait::until("a root that answers", wait::SERVER, || {
            process.assert_runs();
            (is_mounted(self.path()) && std::fs::metadata(self.path()).is_ok()).then_some(())
        });
        self.process = Some(process);
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        &self.spec.path
    }

    /// A path inside.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.spec.path.join(name)
    }

    /// What the mount process has logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.spec.log).unwrap_or_default()).into_owned()
    }

    /// Id of the mount process.
    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("mounted").id()
    }

    /// `umount`, which waits until everything is written, and checks that the mount process ends well.
    #[track_caller]
    pub fn unmount(&mut self) {
        let mut process = self.process.take().expect("mounted");
        command::run_ok(Command::new("umount").arg(self.path()), Duration::from_secs(120));
        let status = process.wait(wait::SERVER);
        assert!(status.success(), "the mount process ended with {status}");
    }

    /// Stops the mount process where it is.
    pub fn freeze(&self) {
        self.process.as_ref().expect("mounted").freeze();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.process.as_ref().expect("mounted").thaw();
    }

    /// `kill -9` of the mount process; what is left of the mount is detached.
    pub fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill9();
        }
        detach(self.path());
    }

    /// `kill -9` of the mount process, leaving the dead mount for programs to run into.
    pub fn kill9_process_only(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill9();
        }
    }

    /// Unmounts and mounts again, so that nothing comes from a cache.
    #[track_caller]
    pub fn remount(&mut self) {
        self.unmount();
        self.mount();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else {
            detach(self.path());
            return;
        };
        // A failed test may have left servers dead: then nothing can be flushed, and waiting for it would be in vain.
        if !std::thread::panicking() && process.exited().is_none() {
            let done = command::run(Command::new("umount").arg(self.path()), Duration::from_secs(120));
            if done.success() && wait::try_until(wait::SERVER, || process.exited()).is_some() {
                return;
            }
            eprintln!("unmounting by force: {done}");
        }
        process.kill9();
        detach(self.path());
    }
}

/// Whether `path` is a mount point, without asking the file system there.
pub fn is_mounted(path: &Path) -> bool {
    let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let wanted = escaped(path);
    mounts.split(|b| *b == b'\n').any(|line| line.split(|b| *b == b' ').nth(4) == Some(&wanted[..]))
}

/// `path` as mountinfo writes it: space, tab, newline and backslash in octal.
fn escaped(path: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    for b in path.as_os_str().as_bytes() {
        match b {
            b' ' | b'\t' | b'\n' | b'\\' => out.extend_from_slice(format!("\\{b:03o}").as_bytes()),
            _ => out.push(*b),
        }
    }
    out
}

/// Takes every mount off `path` at once, open files or not.
pub fn detach(path: &Path) {
    let Ok(c_path) = CString::new(path.as_os_str().as_bytes()) else { return };
    while is_mounted(path) {
        // SAFETY: umount2 reads a NUL-terminated string.
        if unsafe { libc::umount2(c_path.as_ptr(), libc::MNT_DETACH) } != 0 {
            eprintln!("cannot detach {}: {}", path.display(), std::io::Error::last_os_error());
            return;
        }
    }
}
