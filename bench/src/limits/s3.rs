//! What the S3 server of the cluster gives to a bare client: the same sizes and concurrency as the worker uses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};

use crate::bench::Bench;
use crate::bucket::Distance;
use crate::data::{BLOCK, Kind};
use crate::rate::{gb_per_second, per_second};

/// Bytes of what is asked for to get the first byte of a file.
const CHUNK: u64 = 128 << 10;
/// Bytes of one range of a large object, as the MDS gives them out.
const RANGE: u64 = 8 << 20;
/// Bytes of one part.
const PART: usize = 16 << 20;
/// Ranges or parts under way.
const UNDER_WAY: usize = 8;
/// The same with a distant store: as many as the worker fetches ahead.
const FAR_UNDER_WAY: usize = 24;
/// Small objects under way.
const SMALL_UNDER_WAY: usize = 32;
/// Bytes of a small object.
pub const SMALL: usize = 8 << 10;
/// Requests for one chunk.
const CHUNKS: u32 = 64;
/// The prefix of the objects of listings, and the large object.
pub const LISTED: &str = "listed";
pub const LARGE: &str = "large/data";

/// Objects that listings are made of, once.
pub fn listed(bench: &Bench) -> anyhow::Result<()> {
    let bucket = bench.bucket()?.at(Distance::Near);
    bench.once("bucket-listed", || {
        bench.runtime.block_on(async {
            let puts = (0..bench.sizes.objects).map(|i| async move {
                // Directories of a thousand, as datasets have them.
                bucket.put(&format!("{LISTED}/d{:04}/f{:06}", i / 1000, i), Bytes::from_static(b"x")).await
            });
            stream::iter(puts).buffer_unordered(SMALL_UNDER_WAY).try_collect().await
        })
    })
}

/// An object of [`crate::bench::Sizes::stream_bytes`], once.
pub fn large(bench: &Bench, distance: Distance) -> anyhow::Result<()> {
    bench.once(&format!("bucket-large-{distance:?}"), || put(bench, distance, LARGE).map(drop))
}

fn put(bench: &Bench, distance: Distance, key: &str) -> anyhow::Result<Duration> {
    let (bucket, blocks) = (bench.bucket()?.at(distance), bench.blocks(Kind::Random));
    bench.runtime.block_on(async {
        let start = Instant::now();
        let upload = bucket.store.put_multipart(&key.into()).await?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
        for i in 0..bench.sizes.stream_bytes / BLOCK as u64 {
            upload.wait_for_capacity(UNDER_WAY).await?;
            upload.write(blocks.block(i));
        }
        upload.finish().await?;
        Ok(start.elapsed())
    })
}

/// Keys listed per second.
pub fn list(bench: &Bench) -> anyhow::Result<f64> {
    listed(bench)?;
    let bucket = bench.bucket()?.at(Distance::Near);
    bench.runtime.block_on(async {
        let start = Instant::now();
        let count = bucket.store.list(Some(&LISTED.into())).try_fold(0, |n, _| async move { Ok(n + 1) }).await?;
        let took = start.elapsed();
        ensure!(count == u64::from(bench.sizes.objects), "{count} of {} objects were listed", bench.sizes.objects);
        Ok(per_second(count, took))
    })
}

/// Single chunks of a large object per second, one after another.
pub fn get_chunk(bench: &Bench, distance: Distance) -> anyhow::Result<f64> {
    large(bench, distance)?;
    let bucket = bench.bucket()?.at(distance);
    let chunks = u64::from(CHUNKS).min(bench.sizes.stream_bytes / CHUNK);
    bench.runtime.block_on(async {
        let start = Instant::now();
        for i in 0..chunks {
            let at = i * (bench.sizes.stream_bytes / chunks) / CHUNK * CHUNK;
            bucket.store.get_range(&LARGE.into(), at..at + CHUNK).await?;
        }
        Ok(per_second(chunks, start.elapsed()))
    })
}

/// A large object, in ranges at the same time.
pub fn get_parallel(bench: &Bench, distance: Distance) -> anyhow::Result<f64> {
    large(bench, distance)?;
    let bucket = bench.bucket()?.at(distance);
    let under_way = match distance {
        Distance::Near => UNDER_WAY,
        Distance::Far => FAR_UNDER_WAY,
    };
    let (bytes, store) = (bench.sizes.stream_bytes, Arc::new(bucket.store.clone()));
    let blocks = bench.blocks(Kind::Random);
    bench.runtime.block_on(async {
        let start = Instant::now();
        let ranges = (0..bytes).step_by(RANGE as usize).map(|at| {
            let store = Arc::clone(&store);
            async move { anyhow::Ok((at, store.get_range(&LARGE.into(), at..bytes.min(at + RANGE)).await?)) }
        });
        let mut ranges = stream::iter(ranges).buffer_unordered(under_way);
        while let Some((at, got)) = ranges.try_next().await? {
            blocks.check_pages(at, &got)?;
        }
        Ok(gb_per_second(bytes, start.elapsed()))
    })
}

/// A large object stored in parts.
pub fn put_multipart(bench: &Bench, distance: Distance) -> anyhow::Result<f64> {
    let took = put(bench, distance, "limit/data")?;
    Ok(gb_per_second(bench.sizes.stream_bytes, took))
}

/// Objects of [`SMALL`] bytes stored per second.
pub fn put_small(bench: &Bench) -> anyhow::Result<f64> {
    let bucket = bench.bucket()?.at(Distance::Near);
    let (count, label) = (bench.sizes.small_files, bench.new_name("small"));
    let bytes = Bytes::copy_from_slice(&bench.blocks(Kind::Random).block(0)[..SMALL]);
    bench.runtime.block_on(async {
        let start = Instant::now();
        let puts = (0..count).map(|i| {
            let (key, bytes) = (format!("{label}/f{i:06}"), bytes.clone());
            async move { bucket.put(&key, bytes).await }
        });
        stream::iter(puts).buffer_unordered(SMALL_UNDER_WAY).try_collect::<()>().await?;
        Ok(per_second(u64::from(count), start.elapsed()))
    })
}
