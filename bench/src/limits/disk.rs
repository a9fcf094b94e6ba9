//! The disk that the cluster is on, without a file system's cache in between.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, ensure};
use rustix::fs::{FallocateFlags, OFlags};

use crate::aligned::Aligned;
use crate::bench::Bench;
use crate::data::{BLOCK, Kind};
use crate::rate::{gb_per_second, per_second};

/// Transfers under way at once.
const DEPTH: u64 = 4;

/// Direct writes of 1 MiB into a file whose space is reserved, `fdatasync` at the end included.
pub fn write_direct(bench: &Bench) -> anyhow::Result<f64> {
    let path = bench.local_dir().join("disk.write");
    let rate = write(bench, &path);
    let _ = std::fs::remove_file(&path);
    rate
}

/// Direct reads of 1 MiB.
pub fn read_direct(bench: &Bench) -> anyhow::Result<f64> {
    let path = bench.local_dir().join("disk.read");
    let rate = write(bench, &path).and_then(|_| read(bench, &path));
    let _ = std::fs::remove_file(&path);
    rate
}

/// Appends of 4 KiB, each followed by `fdatasync`, per second.
pub fn fsync(bench: &Bench) -> anyhow::Result<f64> {
    let file = tempfile::tempfile_in(bench.local_dir())?;
    let block = bench.blocks(Kind::Random).range(0, 4096);
    let count = u64::from(bench.sizes.synced_ios);
    let start = Instant::now();
    for i in 0..count {
        file.write_all_at(block, i * 4096)?;
        file.sync_data()?;
    }
    Ok(per_second(count, start.elapsed()))
}

/// Opens for direct I/O, with advice if the file system has none.
fn direct(path: &Path, options: &mut std::fs::OpenOptions) -> anyhow::Result<File> {
    options
        .custom_flags(OFlags::DIRECT.bits() as i32)
        .open(path)
        .with_context(|| format!("cannot open {} for direct I/O (is --dir on a disk?)", path.display()))
}

fn write(bench: &Bench, path: &Path) -> anyhow::Result<f64> {
    let bytes = bench.sizes.durable_bytes;
    let file = direct(path, File::options().write(true).create(true).truncate(true))?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes).context("cannot reserve disk space")?;
    file.sync_all()?;
    let blocks = bench.blocks(Kind::Random);
    let start = Instant::now();
    in_parallel(|worker| {
        let mut buffer = Aligned::new(BLOCK);
        for i in (worker..bytes / BLOCK as u64).step_by(DEPTH as usize) {
            buffer.copy_from_slice(blocks.block(i));
            file.write_all_at(&buffer, i * BLOCK as u64)?;
        }
        Ok(())
    })?;
    file.sync_data()?;
    Ok(gb_per_second(bytes, start.elapsed()))
}

fn read(bench: &Bench, path: &Path) -> anyhow::Result<f64> {
    let bytes = bench.sizes.durable_bytes;
    let file = direct(path, File::options().read(true))?;
    let blocks = bench.blocks(Kind::Random);
    let start = Instant::now();
    in_parallel(|worker| {
        let mut buffer = Aligned::new(BLOCK);
        for i in (worker..bytes / BLOCK as u64).step_by(DEPTH as usize) {
            let n = file.read_at(&mut buffer, i * BLOCK as u64)?;
            ensure!(n == BLOCK, "the disk gave {n} bytes");
            blocks.check_pages(i * BLOCK as u64, &buffer)?;
        }
        Ok(())
    })?;
    Ok(gb_per_second(bytes, start.elapsed()))
}

fn in_parallel(f: impl Fn(u64) -> anyhow::Result<()> + Sync) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..DEPTH)
            .map(|worker| {
                scope.spawn({
                    let f = &f;
                    move || f(worker)
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}
