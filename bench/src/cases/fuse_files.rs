//! Names through the mount, as mdtest does it: processes of their own, each in a directory of its own or all in one.

use std::path::{Path, PathBuf};

use crate::args::FileOp;
use crate::bench::{Bench, DIRECTORY};
use crate::peer::{self, Remote};
use crate::rate::per_second;

/// Empty files made per second by `processes` processes.
pub fn create(bench: &Bench, processes: u32) -> anyhow::Result<f64> {
    bench.settle()?;
    let mount = bench.mount()?;
    let dirs = make_dirs(bench, mount.path(), processes)?;
    let rate = run(bench, FileOp::Create, &dirs)?;
    run(bench, FileOp::Unlink, &dirs)?;
    remove_dirs(&dirs)?;
    Ok(rate)
}

/// Empty files made per second by `processes` processes in one directory.
pub fn create_shared(bench: &Bench, processes: u32) -> anyhow::Result<f64> {
    bench.settle()?;
    let mount = bench.mount()?;
    let dirs = make_dirs(bench, mount.path(), 1)?;
    let places = vec![dirs[0].clone(); processes as usize];
    let rate = run(bench, FileOp::Create, &places)?;
    run(bench, FileOp::Unlink, &places)?;
    remove_dirs(&dirs)?;
    Ok(rate)
}

/// Directories made per second by `processes` processes.
pub fn mkdir(bench: &Bench, processes: u32) -> anyhow::Result<f64> {
    bench.settle()?;
    let mount = bench.mount()?;
    let dirs = make_dirs(bench, mount.path(), processes)?;
    let rate = run(bench, FileOp::Mkdir, &dirs)?;
    run(bench, FileOp::Rmdir, &dirs)?;
    remove_dirs(&dirs)?;
    Ok(rate)
}

/// Attributes asked by name per second through a mount that has seen none of the files.
pub fn stat_cold(bench: &Bench, processes: u32) -> anyhow::Result<f64> {
    let mount = bench.mount()?;
    let dirs = make_dirs(bench, mount.path(), processes)?;
    run(bench, FileOp::Create, &dirs)?;
    drop(mount);
    bench.settle()?;
    let new = bench.mount()?;
    let dirs = moved(&dirs, new.path());
    let rate = run(bench, FileOp::Stat, &dirs)?;
    run(bench, FileOp::Unlink, &dirs)?;
    remove_dirs(&dirs)?;
    Ok(rate)
}

/// Attributes asked by name again at once, per second.
pub fn stat_warm(bench: &Bench, processes: u32) -> anyhow::Result<f64> {
    bench.settle()?;
    let mount = bench.mount()?;
    let dirs = make_dirs(bench, mount.path(), processes)?;
    run(bench, FileOp::Create, &dirs)?;
    run(bench, FileOp::Stat, &dirs)?;
    let rate = run(bench, FileOp::Stat, &dirs)?;
    run(bench, FileOp::Unlink, &dirs)?;
    remove_dirs(&dirs)?;
    Ok(rate)
}

/// Empty files removed per second.
pub fn remove(bench: &Bench, processes: u32) -> anyhow::Result<f64> {
    let mount = bench.mount()?;
    let dirs = make_dirs(bench, mount.path(), processes)?;
    run(bench, FileOp::Create, &dirs)?;
    bench.settle()?;
    let rate = run(bench, FileOp::Unlink, &dirs)?;
    remove_dirs(&dirs)?;
    Ok(rate)
}

/// Rate of `op` with one process per directory; a directory may be there several times.
fn run(bench: &Bench, op: FileOp, dirs: &[PathBuf]) -> anyhow::Result<f64> {
    let count = bench.sizes.files / dirs.len() as u32;
    let numbers = (0..).step_by(count.max(1) as usize).map(|first| first..first + count);
    let remotes = dirs
        .iter()
        .zip(numbers)
        .map(|(dir, numbers)| Remote::files(op, dir, numbers))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let took = peer::race(remotes)?;
    Ok(per_second(u64::from(count) * dirs.len() as u64, took))
}

fn make_dirs(bench: &Bench, mount: &Path, processes: u32) -> anyhow::Result<Vec<PathBuf>> {
    let label = bench.new_name("fuse-files");
    let dirs: Vec<PathBuf> = (0..processes).map(|i| mount.join(DIRECTORY).join(format!("{label}-{i}"))).collect();
    dirs.iter().try_for_each(std::fs::create_dir)?;
    Ok(dirs)
}

fn remove_dirs(dirs: &[PathBuf]) -> anyhow::Result<()> {
    Ok(dirs.iter().try_for_each(std::fs::remove_dir)?)
}

/// The same directories below another mount.
fn moved(dirs: &[PathBuf], mount: &Path) -> Vec<PathBuf> {
    dirs.iter().filter_map(|dir| Some(mount.join(DIRECTORY).join(dir.file_name()?))).collect()
}
