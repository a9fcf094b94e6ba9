//! A disk of a test's own: a file system in an image file on a loop device, whose power can be cut and which can be made
//! to stand still.
//!
//! A power cut is the file system's own forced shutdown: everything it has not written yet is gone, nothing reaches the
//! device any more. Needs root, and `xfs_io` from xfsprogs.
//!
//! The mount lies below the cluster's directory, so that the harness's [`guard`](crate::guard) takes it off when the test
//! is killed; the kernel frees the loop device with the last mount.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::command::{self, run_ok};
use crate::mount::{detach, is_mounted};

/// Longest one step may take. Unmounting waits for the device.
const STEP: Duration = Duration::from_secs(60);

/// Which file system is on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// ext4, as `mkfs.ext4` makes it.
    Ext4,
    /// XFS, as `mkfs.xfs` makes it.
    Xfs,
}

/// What a [`Disk`] is made of.
#[derive(Debug, Clone, Copy)]
pub struct DiskSpec {
    /// Its file system.
    pub file_system: FileSystem,
    /// Its size in bytes; the image is sparse.
    pub bytes: u64,
}

/// A mounted disk. Dropping it unmounts it; whoever has files open on it must be gone by then.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    point: PathBuf,
}

impl Disk {
    /// Makes the image and the file system, and mounts it at the existing directory `point`.
    #[track_caller]
    pub fn make(spec: DiskSpec, image: PathBuf, point: PathBuf) -> Disk {
        let file = std::fs::File::create_new(&image).expect("the image can be created");
        file.set_len(spec.bytes).expect("the image can be made that long");
        let mut mkfs = match spec.file_system {
            FileSystem::Ext4 => Command::new("mkfs.ext4"),
            FileSystem::Xfs => Command::new("mkfs.xfs"),
        };
        run_ok(mkfs.arg("-q").arg(&image), STEP);
        let disk = Disk { image, point };
        disk.mount();
        disk
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.point
    }

    /// Makes everything durable that is on it now.
    #[track_caller]
    pub fn sync(&self) {
        let root = std::fs::File::open(&self.point).expect("the mount point can be opened");
        rustix::fs::syncfs(&root).expect("syncfs");
    }

    /// Takes the file system down at once, as a power cut does. Calls on it fail from now on.
    #[track_caller]
    pub fn cut_power(&self) {
        run_ok(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(&self.point), STEP);
    }

    /// Mounts it anew after [`Disk::cut_power`]; the file system recovers by its own journal.
    #[track_caller]
    pub fn power_on(&self) {
        run_ok(Command::new("umount").arg(&self.point), STEP);
        self.mount();
    }

    /// Makes every write wait until the guard that is returned is dropped: a disk that has become slow without end.
    #[track_caller]
    pub fn stand_still(&self) -> StandStill {
        run_ok(Command::new("fsfreeze").arg("-f").arg(&self.point), STEP);
        StandStill { point: self.point.clone() }
    }

    #[track_caller]
    fn mount(&self) {
        run_ok(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.point), STEP);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if is_mounted(&self.point) && !command::run(Command::new("umount").arg(&self.point), STEP).success() {
            detach(&self.point);
        }
    }
}

/// While this lives, nothing can be written to the disk.
#[derive(Debug)]
pub struct StandStill {
    point: PathBuf,
}

impl Drop for StandStill {
    fn drop(&mut self) {
        let done = command::run(Command::new("fsfreeze").arg("-u").arg(&self.point), STEP);
        if !done.success() {
            eprintln!("the disk could not be made to move again: {done}");
        }
    }
}
