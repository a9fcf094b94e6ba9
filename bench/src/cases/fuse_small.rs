//! Many files of 8 KiB through the mount, one process.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::ensure;

use crate::bench::{Bench, DIRECTORY};
use crate::data::{Blocks, Kind};
use crate::peer::file_name;
use crate::rate::per_second;

/// Bytes of one file.
const BYTES: usize = 8 << 10;

/// Files made, written and closed per second.
pub fn create(bench: &Bench) -> anyhow::Result<f64> {
    measure(bench, false)
}

/// Files opened, read and closed per second, cached nowhere.
pub fn read_cold(bench: &Bench) -> anyhow::Result<f64> {
    measure(bench, true)
}

fn measure(bench: &Bench, read: bool) -> anyhow::Result<f64> {
    let count = bench.sizes.small_files;
    let blocks = bench.blocks(Kind::Half);
    let dir = Path::new(DIRECTORY).join(bench.new_name("fuse-small"));
    bench.settle()?;
    let mount = bench.mount()?;
    std::fs::create_dir(mount.path().join(&dir))?;
    let start = Instant::now();
    write_all(blocks, &mount.path().join(&dir), count)?;
    let wrote = per_second(u64::from(count), start.elapsed());
    drop(mount);

    bench.settle()?;
    bench.cluster()?.drop_caches()?;
    let mount = bench.mount()?;
    let start = Instant::now();
    check_all(blocks, &mount.path().join(&dir), count)?;
    let got = per_second(u64::from(count), start.elapsed());
    std::fs::remove_dir_all(mount.path().join(&dir))?;
    Ok(if read { got } else { wrote })
}

fn write_all(blocks: &Blocks, dir: &Path, count: u32) -> anyhow::Result<()> {
    for i in 0..count {
        File::create_new(dir.join(file_name(i)))?.write_all(contents(blocks, i))?;
    }
    Ok(())
}

/// Reads every file; comparing 8 KiB costs nothing beside opening a file.
fn check_all(blocks: &Blocks, dir: &Path, count: u32) -> anyhow::Result<()> {
    let mut got = Vec::with_capacity(BYTES + 1);
    for i in 0..count {
        got.clear();
        File::open(dir.join(file_name(i)))?.read_to_end(&mut got)?;
        ensure!(got == contents(blocks, i), "wrong data in {}", file_name(i));
    }
    Ok(())
}

fn contents(blocks: &Blocks, i: u32) -> &[u8] {
    blocks.range(u64::from(i) * BYTES as u64, BYTES)
}
