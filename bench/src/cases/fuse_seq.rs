//! One stream through the mount with plain system calls.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::bench::{Bench, DIRECTORY};
use crate::data::{BLOCK, Blocks, Kind};
use crate::rate::gb_per_second;

/// Size of the writes of most cases.
pub const BLOCK_WRITES: usize = BLOCK;
/// Size of the writes of `fuse.write.seq.4k`.
pub const SMALL_WRITES: usize = 4096;

/// A new file, 1 MiB writes; the time ends with close.
pub fn write_close(bench: &Bench, kind: Kind) -> anyhow::Result<f64> {
    measure_write(bench, kind, bench.sizes.stream_bytes, BLOCK_WRITES, false)
}

/// A new file, 1 MiB writes; the time ends with fsync and close.
pub fn write_fsync(bench: &Bench, kind: Kind) -> anyhow::Result<f64> {
    measure_write(bench, kind, bench.sizes.durable_bytes, BLOCK_WRITES, true)
}

/// A new file, 4 KiB writes; the time ends with close.
pub fn write_small(bench: &Bench) -> anyhow::Result<f64> {
    measure_write(bench, Kind::Random, bench.sizes.small_stream_bytes, SMALL_WRITES, false)
}

/// A file in the page cache of the OSSes, through a new mount.
pub fn read(bench: &Bench, kind: Kind) -> anyhow::Result<f64> {
    measure_read(bench, kind, bench.sizes.stream_bytes, false)
}

/// A file that is cached nowhere.
pub fn read_cold(bench: &Bench, kind: Kind) -> anyhow::Result<f64> {
    measure_read(bench, kind, bench.sizes.durable_bytes, true)
}

fn measure_write(bench: &Bench, kind: Kind, bytes: u64, piece: usize, fsync: bool) -> anyhow::Result<f64> {
    let name = bench.new_name("fuse-write");
    let blocks = bench.blocks(kind);
    bench.settle()?;
    let mount = bench.mount()?;
    let path = mount.path().join(DIRECTORY).join(&name);
    let took = bench.with_cpu(bytes, || write(blocks, &path, bytes, piece, fsync))?;
    drop(mount);
    let mount = bench.mount()?;
    let path = mount.path().join(DIRECTORY).join(&name);
    read_through(&path, bytes, |offset, got| blocks.check(offset, got))?;
    std::fs::remove_file(&path)?;
    Ok(gb_per_second(bytes, took))
}

fn measure_read(bench: &Bench, kind: Kind, bytes: u64, cold: bool) -> anyhow::Result<f64> {
    let name = bench.prepared(kind, bytes)?;
    let blocks = bench.blocks(kind);
    bench.settle()?;
    if cold {
        bench.cluster()?.drop_caches()?;
    }
    let mount = bench.mount()?;
    let path = mount.path().join(DIRECTORY).join(&name);
    let check = |offset, got: &[u8]| blocks.check_pages(offset, got);
    let took = bench.with_cpu(bytes, || read_through(&path, bytes, check))?;
    Ok(gb_per_second(bytes, took))
}

/// Writes a new file in pieces of `piece` bytes (a divisor of the block) and returns how long that took, close included.
pub fn write(blocks: &Blocks, path: &Path, bytes: u64, piece: usize, fsync: bool) -> anyhow::Result<Duration> {
    let file = File::create_new(path).with_context(|| format!("cannot create {}", path.display()))?;
    let start = Instant::now();
    for offset in (0..bytes).step_by(piece) {
        file.write_all_at(blocks.range(offset, piece), offset)?;
    }
    if fsync {
        file.sync_all()?;
    }
    // Unlike dropping the file, this reports what close says.
    let fd = std::os::fd::OwnedFd::from(file);
    // SAFETY: the descriptor is ours and given up here.
    let closed = unsafe { libc::close(std::os::fd::IntoRawFd::into_raw_fd(fd)) };
    anyhow::ensure!(closed == 0, "close of {}: {}", path.display(), std::io::Error::last_os_error());
    Ok(start.elapsed())
}

/// Reads a file in blocks and returns how long that took, with the time of `check`.
pub fn read_through(
    path: &Path,
    bytes: u64,
    check: impl Fn(u64, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<Duration> {
    let mut buffer = vec![0; BLOCK];
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let start = Instant::now();
    for offset in (0..bytes).step_by(BLOCK) {
        file.read_exact_at(&mut buffer, offset)?;
        check(offset, &buffer)?;
    }
    Ok(start.elapsed())
}
