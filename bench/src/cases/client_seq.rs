//! One stream through the client library, 1 MiB at a time.

use std::time::{Duration, Instant};

use anyhow::ensure;
use sateen_client::{Access, Client, Credential, Fid, File, Name, NewFile};

use crate::bench::Bench;
use crate::data::{BLOCK, Blocks, Kind};
use crate::rate::gb_per_second;

/// Writes a new file; the time ends when every byte was answered by its OST (unstable).
pub fn write(bench: &Bench, kind: Kind) -> anyhow::Result<f64> {
    measure_write(bench, kind, bench.sizes.stream_bytes, false)
}

/// Writes a new file; the time ends with the answer of fsync.
pub fn write_commit(bench: &Bench, kind: Kind) -> anyhow::Result<f64> {
    measure_write(bench, kind, bench.sizes.durable_bytes, true)
}

/// Reads a file that is in the page cache of the OSSes, with a new session.
pub fn read(bench: &Bench, kind: Kind) -> anyhow::Result<f64> {
    let bytes = bench.sizes.stream_bytes;
    let name = bench.prepared(kind, bytes)?;
    bench.settle()?;
    let took = read_file(bench, &name, bytes, |offset, got| bench.blocks(kind).check_pages(offset, got))?;
    Ok(gb_per_second(bytes, took))
}

fn measure_write(bench: &Bench, kind: Kind, bytes: u64, durable: bool) -> anyhow::Result<f64> {
    let name = bench.new_name("client-write");
    bench.blocks(kind);
    bench.settle()?;
    let took = write_file(bench, kind, &name, bytes, durable)?;
    check_file(bench, kind, &name, bytes)?;
    bench.remove(&name)?;
    Ok(gb_per_second(bytes, took))
}

/// Makes a file of `bytes` bytes and returns how long writing took.
pub fn write_file(bench: &Bench, kind: Kind, name: &str, bytes: u64, durable: bool) -> anyhow::Result<Duration> {
    bench.with_client(|client, dir| async move {
        let file = create(&client, dir, name).await?;
        let blocks = bench.blocks(kind);
        let start = Instant::now();
        stream(&file, blocks, bytes).await?;
        if durable {
            file.fsync().await?;
        } else {
            file.flush().await?;
        }
        let took = start.elapsed();
        file.close().await?;
        Ok(took)
    })
}

/// Reads a whole file with a new session and checks every byte.
pub fn check_file(bench: &Bench, kind: Kind, name: &str, bytes: u64) -> anyhow::Result<()> {
    read_file(bench, name, bytes, |offset, got| bench.blocks(kind).check(offset, got)).map(drop)
}

fn read_file(
    bench: &Bench,
    name: &str,
    bytes: u64,
    check: impl Fn(u64, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<Duration> {
    bench.with_client(|client, dir| async move {
        let file = open(&client, dir, name).await?;
        let start = Instant::now();
        for offset in (0..bytes).step_by(BLOCK) {
            let got = file.read_pieces(offset, BLOCK).await?;
            ensure!(got.len() == BLOCK, "{} bytes at offset {offset} of {name}, of {BLOCK}", got.len());
            let mut at = offset;
            for piece in got.pieces() {
                check(at, piece)?;
                at += piece.len() as u64;
            }
        }
        let took = start.elapsed();
        file.close().await?;
        Ok(took)
    })
}

/// A new file, open for writing.
pub async fn create(client: &Client, parent: Fid, name: &str) -> anyhow::Result<File> {
    let name = Name::parse(name.as_bytes())?;
    let new = NewFile { parent, name, mode: 0o644.into(), exclusive: true, access: Access::WRITE, layout: None };
    Ok(client.create(&Credential::ROOT, new).await?.file)
}

/// A file that exists, open for reading.
pub async fn open(client: &Client, dir: Fid, name: &str) -> anyhow::Result<File> {
    let attr = client.lookup(&Credential::ROOT, dir, &Name::parse(name.as_bytes())?).await?;
    Ok(client.open(&Credential::ROOT, attr.fid, Access::READ).await?)
}

async fn stream(file: &File, blocks: &Blocks, bytes: u64) -> anyhow::Result<()> {
    for i in 0..bytes / BLOCK as u64 {
        file.write_at(i * BLOCK as u64, blocks.block(i)).await?;
    }
    Ok(())
}
