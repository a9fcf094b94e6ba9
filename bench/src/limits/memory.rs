//! One core on memory: copy, checksum, compression.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::bench::Bench;
use crate::data::{BLOCK, Blocks, Kind};
use crate::rate::gb_per_second;

/// What is compressed and summed at a time: Sateen's chunk.
const CHUNK: usize = 128 << 10;
/// Memory that is copied to: more than fits into the caches.
const COPY_BLOCKS: usize = 64;

/// Bytes copied per second from memory to memory.
pub fn copy(bench: &Bench) -> anyhow::Result<f64> {
    let blocks = bench.blocks(Kind::Random);
    let mut to = vec![0u8; COPY_BLOCKS * BLOCK];
    Ok(repeat(bench.sizes.limit_time, |i| {
        let at = (i as usize % COPY_BLOCKS) * BLOCK;
        to[at..at + BLOCK].copy_from_slice(blocks.block(i));
        black_box(&to[at]);
        BLOCK
    }))
}

/// Bytes summed per second.
pub fn crc32c(bench: &Bench) -> anyhow::Result<f64> {
    let blocks = bench.blocks(Kind::Random);
    Ok(repeat(bench.sizes.limit_time, |i| {
        blocks.block(i).chunks(CHUNK).for_each(|chunk| {
            black_box(crc32c::crc32c(chunk));
        });
        BLOCK
    }))
}

/// Raw bytes compressed per second, of half-compressible data.
pub fn lz4_compress(bench: &Bench) -> anyhow::Result<f64> {
    let blocks = bench.blocks(Kind::Half);
    let mut to = vec![0; lz4_flex::block::get_maximum_output_size(CHUNK)];
    let mut failed = false;
    let rate = repeat(bench.sizes.limit_time, |i| {
        for chunk in blocks.block(i).chunks(CHUNK) {
            failed |= lz4_flex::block::compress_into(chunk, &mut to).is_err();
        }
        BLOCK
    });
    ensure!(!failed, "LZ4 found its buffer too small");
    Ok(rate)
}

/// Raw bytes decompressed per second, of half-compressible data.
pub fn lz4_decompress(bench: &Bench) -> anyhow::Result<f64> {
    let stored = stored(bench.blocks(Kind::Half));
    let mut to = vec![0; CHUNK];
    let mut failed = false;
    let rate = repeat(bench.sizes.limit_time, |i| {
        failed |= lz4_flex::block::decompress_into(&stored[i as usize % stored.len()], &mut to).is_err();
        CHUNK
    });
    ensure!(!failed, "LZ4 could not read what it wrote");
    Ok(rate)
}

fn stored(blocks: &Blocks) -> Vec<Vec<u8>> {
    (0..32).flat_map(|i| blocks.block(i).chunks(CHUNK)).map(lz4_flex::block::compress).collect()
}

/// GB/s of `f`, which does something to as many bytes as it returns, called for `time`.
fn repeat(time: Duration, mut f: impl FnMut(u64) -> usize) -> f64 {
    f(0);
    let start = Instant::now();
    let (mut bytes, mut i) = (0, 0);
    while start.elapsed() < time {
        bytes += f(i) as u64;
        i += 1;
    }
    gb_per_second(bytes, start.elapsed())
}
