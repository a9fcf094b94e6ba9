//! Random 4 KiB reads and writes through the mount: direct, 16 under way, by fio where it is installed, else by threads
//! of our own.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use rustix::fs::OFlags;

use crate::aligned::Aligned;
use crate::bench::{Bench, DIRECTORY};
use crate::cases::fuse_seq;
use crate::data::{Kind, mixed};
use crate::mount::Mount;
use crate::rate::per_second;

/// Bytes of one transfer.
const IO: usize = 4096;
/// Transfers under way at once.
const DEPTH: u32 = 16;

/// Reads per second of a file in the page cache of the OSSes, through a new mount.
pub fn read(bench: &Bench) -> anyhow::Result<f64> {
    let bytes = bench.sizes.stream_bytes;
    let name = bench.prepared(Kind::Random, bytes)?;
    bench.settle()?;
    let mount = bench.mount()?;
    let path = mount.path().join(DIRECTORY).join(name);
    let rate = if fio_is_there() {
        fio(&path, bytes, bench.sizes.random_ios, "randread", &[])?
    } else {
        by_threads(bench, &path, bytes, false)?
    };
    fuse_seq::read_through(&path, bytes, |offset, got| bench.blocks(Kind::Random).check(offset, got))?;
    Ok(rate)
}

/// A file to be overwritten, on a new mount.
fn target(bench: &Bench, bytes: u64) -> anyhow::Result<(Mount, PathBuf)> {
    let mount = bench.mount()?;
    let path = mount.path().join(DIRECTORY).join(bench.new_name("fuse-rand"));
    fuse_seq::write(bench.blocks(Kind::Random), &path, bytes, fuse_seq::BLOCK_WRITES, true)?;
    bench.settle()?;
    Ok((mount, path))
}

/// Overwrites per second of a file that exists, as the program sees them: into the write cache of the mount.
pub fn write(bench: &Bench) -> anyhow::Result<f64> {
    let bytes = bench.sizes.small_stream_bytes;
    let (_mount, path) = target(bench, bytes)?;
    let rate = if fio_is_there() {
        // fio reads back what it wrote and checks it, after the timed part.
        fio(
            &path,
            bytes,
            bench.sizes.random_ios,
            "randwrite",
            &["--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0"],
        )?
    } else {
        let rate = by_threads(bench, &path, bytes, true)?;
        // The threads write what stands there already: every byte must still be right.
        fuse_seq::read_through(&path, bytes, |offset, got| bench.blocks(Kind::Random).check(offset, got))?;
        rate
    };
    std::fs::remove_file(&path)?;
    Ok(rate)
}

/// The same until all of them are on disk: a final fsync, and the time fio takes to start and to end, are included.
pub fn write_commit(bench: &Bench) -> anyhow::Result<f64> {
    let bytes = bench.sizes.small_stream_bytes;
    let (_mount, path) = target(bench, bytes)?;
    let start = Instant::now();
    if fio_is_there() {
        fio(&path, bytes, bench.sizes.random_ios, "randwrite", &["--end_fsync=1"])?;
    } else {
        by_threads(bench, &path, bytes, true)?;
        File::open(&path)?.sync_all()?;
    }
    let rate = per_second(u64::from(bench.sizes.random_ios), start.elapsed());
    std::fs::remove_file(&path)?;
    Ok(rate)
}

/// Appends of 4 KiB per second, fsync after each.
pub fn write_fsync(bench: &Bench) -> anyhow::Result<f64> {
    let blocks = bench.blocks(Kind::Random);
    bench.settle()?;
    let mount = bench.mount()?;
    let path = mount.path().join(DIRECTORY).join(bench.new_name("fuse-fsync"));
    let count = u64::from(bench.sizes.synced_ios);
    let file = File::create_new(&path)?;
    let start = Instant::now();
    for i in 0..count {
        let offset = i * IO as u64;
        file.write_all_at(blocks.range(offset, IO), offset)?;
        file.sync_all()?;
    }
    let took = start.elapsed();
    drop(file);
    let mut got = vec![0; count as usize * IO];
    File::open(&path)?.read_exact_at(&mut got, 0)?;
    blocks.check(0, &got)?;
    std::fs::remove_file(&path)?;
    Ok(per_second(count, took))
}

fn fio_is_there() -> bool {
    Command::new("fio").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// Runs fio on an existing file and returns its transfers per second.
fn fio(path: &Path, bytes: u64, ios: u32, mode: &str, more: &[&str]) -> anyhow::Result<f64> {
    let bytes = bytes.to_string();
    let io_bytes = (u64::from(ios) * IO as u64).to_string();
    let done = Command::new("fio")
        .args(["--name=bench", "--ioengine=libaio", "--direct=1", "--bs=4k", "--randrepeat=1", "--output-format=json"])
        .args([format!("--iodepth={DEPTH}"), format!("--rw={mode}")])
        .args([format!("--size={bytes}"), format!("--io_size={io_bytes}")])
        .arg(format!("--filename={}", path.display()))
        .args(more)
        .stdin(Stdio::null())
        .output()
        .context("cannot run fio")?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "fio failed ({}): {}", done.status, said.trim());
    iops(&done.stdout, if mode == "randread" { "read" } else { "write" })
}

/// Transfers per second in fio's JSON; notes of fio may stand before it.
fn iops(output: &[u8], direction: &str) -> anyhow::Result<f64> {
    let start = output.iter().position(|b| *b == b'{').context("fio printed no JSON")?;
    let json: serde_json::Value = serde_json::from_slice(&output[start..]).context("fio printed no JSON")?;
    let iops = json["jobs"][0][direction]["iops"].as_f64().context("fio's JSON has no iops")?;
    ensure!(iops > 0.0, "fio did nothing");
    Ok(iops)
}

/// The same with one thread per transfer under way.
fn by_threads(bench: &Bench, path: &Path, bytes: u64, write: bool) -> anyhow::Result<f64> {
    let options = File::options().read(true).write(write).custom_flags(OFlags::DIRECT.bits() as i32).clone();
    let file = options.open(path).with_context(|| format!("cannot open {} for direct I/O", path.display()))?;
    let blocks = bench.blocks(Kind::Random);
    let per_thread = bench.sizes.random_ios / DEPTH;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let (file, blocks) = (&file, &blocks);
        let work = |thread: u32| {
            let mut buffer = Aligned::new(IO);
            for i in 0..per_thread {
                let offset = mixed(u64::from(thread) << 32 | u64::from(i)) % (bytes / IO as u64) * IO as u64;
                if write {
                    buffer.copy_from_slice(blocks.range(offset, IO));
                    file.write_all_at(&buffer, offset)?;
                } else {
                    file.read_exact_at(&mut buffer, offset)?;
                    blocks.check(offset, &buffer)?;
                }
            }
            anyhow::Ok(())
        };
        let threads: Vec<_> = (0..DEPTH).map(|thread| scope.spawn(move || work(thread))).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    Ok(per_second(u64::from(per_thread * DEPTH), start.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_per_second_are_found_behind_notes_of_fio() {
        let output = br#"note: both iodepth >= 1 and synchronous I/O engine
{"jobs": [{"jobname": "bench", "read": {"iops": 0.0}, "write": {"iops": 1234.5}}]}"#;
        assert_eq!(iops(output, "write").expect("found"), 1234.5);
        assert!(iops(output, "read").is_err());
        assert!(iops(b"fio: failed", "read").is_err());
    }
}
