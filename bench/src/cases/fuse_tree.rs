//! A source tree through the mount: unpacked with tar, and walked.
//!
//! The tree is made up: nested directories, files of 1 to 40 KiB that compress like text, a symbolic link here and there.
//! Its archive lies on the local disk.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::bench::{Bench, DIRECTORY};
use crate::data::Kind;
use crate::rate::per_second;

/// Files in one directory of the tree, and directories in one directory.
const FILES_PER_DIR: u32 = 16;
const DIRS_PER_DIR: u32 = 6;
/// One file in so many is a symbolic link.
const LINK_EVERY: u32 = 50;
/// Sizes of files, bytes: from the first up to the second.
const BYTES: (u64, u64) = (1 << 10, 40 << 10);

/// Entries unpacked per second.
pub fn untar(bench: &Bench) -> anyhow::Result<f64> {
    let tree = Tree::make(bench)?;
    bench.settle()?;
    let mount = bench.mount()?;
    let (target, took) = tree.unpack(bench, mount.path())?;
    let rate = per_second(tree.entries, took);
    ensure!(walk(&target)? == tree.entries, "not everything was unpacked");
    fs::remove_dir_all(&target)?;
    Ok(rate)
}

/// Entries listed and stat'ed per second, by a walk through a mount that has seen none of them.
pub fn walk_cold(bench: &Bench) -> anyhow::Result<f64> {
    let tree = Tree::make(bench)?;
    let mount = bench.mount()?;
    let (target, _) = tree.unpack(bench, mount.path())?;
    let target = target.strip_prefix(mount.path())?.to_owned();
    drop(mount);
    bench.settle()?;
    bench.cluster()?.drop_caches()?;
    let mount = bench.mount()?;
    let root = mount.path().join(target);
    let start = Instant::now();
    let seen = walk(&root)?;
    let rate = per_second(seen, start.elapsed());
    ensure!(seen == tree.entries, "{seen} of {} entries were seen", tree.entries);
    fs::remove_dir_all(&root)?;
    Ok(rate)
}

/// Entries below `dir`, each stat'ed; the size of every file is looked at, as `find -type f -size` does.
fn walk(dir: &Path) -> anyhow::Result<u64> {
    let mut entries = 0;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let metadata = path.symlink_metadata()?;
        ensure!(!metadata.is_file() || metadata.len() >= BYTES.0, "{} is empty", path.display());
        entries += 1 + if metadata.is_dir() { walk(&path)? } else { 0 };
    }
    Ok(entries)
}

/// An archive on the local disk.
struct Tree {
    archive: PathBuf,
    entries: u64,
}

impl Tree {
    fn make(bench: &Bench) -> anyhow::Result<Tree> {
        let dir = bench.local_dir().join(bench.new_name("tree"));
        fs::create_dir(&dir)?;
        let mut entries = 0;
        let mut files = 0;
        let mut todo = vec![dir.clone()];
        while files < bench.sizes.tree_files {
            // The oldest first: a tree that is wider than deep.
            let here = todo.remove(0);
            for number in 0..FILES_PER_DIR {
                let path = here.join(format!("source-{number:02}.c"));
                if (files + 1) % LINK_EVERY == 0 {
                    symlink("source-00.c", path)?;
                } else {
                    let bytes = BYTES.0 + u64::from(files) * 7919 % (BYTES.1 - BYTES.0);
                    File::create_new(path)?.write_all(bench.blocks(Kind::Half).range(0, bytes as usize))?;
                }
                (files, entries) = (files + 1, entries + 1);
            }
            for number in 0..DIRS_PER_DIR {
                let below = here.join(format!("part-{number}"));
                fs::create_dir(&below)?;
                entries += 1;
                todo.push(below);
            }
        }
        let archive = dir.with_extension("tar");
        tar(&["-C".as_ref(), dir.as_ref(), "-cf".as_ref(), archive.as_ref(), ".".as_ref()])?;
        fs::remove_dir_all(&dir)?;
        Ok(Tree { archive, entries })
    }

    /// Unpacks it into a new directory below `mount`; gives that and how long it took.
    fn unpack(&self, bench: &Bench, mount: &Path) -> anyhow::Result<(PathBuf, Duration)> {
        let target = mount.join(DIRECTORY).join(bench.new_name("fuse-tree"));
        fs::create_dir(&target)?;
        let start = Instant::now();
        tar(&["-C".as_ref(), target.as_ref(), "-xf".as_ref(), self.archive.as_ref()])?;
        Ok((target, start.elapsed()))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // The whole directory goes with the run.
        let _ = fs::remove_file(&self.archive);
    }
}

fn tar(args: &[&std::ffi::OsStr]) -> anyhow::Result<()> {
    let status = Command::new("tar").args(args).status().context("cannot run tar")?;
    ensure!(status.success(), "tar {args:?} failed: {status}");
    Ok(())
}
