//! A bucket and a linked directory: names are imported, bytes are fetched when they are read, files are stored.

use std::time::{Duration, Instant};

use anyhow::ensure;
use sateen_client::{Client, Credential, Fid, Name};
use sateen_types::FsCode;
use sateen_types::repository::HsmOperation;
use tokio::task::JoinSet;

use super::client_seq;
use crate::bench::Bench;
use crate::bucket::{Distance, Link};
use crate::data::{BLOCK, Blocks, Kind};
use crate::limits::s3;
use crate::rate::{gb_per_second, per_second};

/// How often the first byte of a file is read.
const FIRST_BYTES: u32 = 8;
/// Longest what follows them may take to be loaded.
const LOADED: Duration = Duration::from_secs(120);
/// Pause between two looks whether it is.
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes of the first read.
const FIRST: usize = 4096;
/// Tasks that write small files.
const WRITERS: u32 = 16;

/// Objects that became names, per second.
pub fn import(bench: &Bench) -> anyhow::Result<f64> {
    s3::listed(bench)?;
    let bucket = bench.bucket()?;
    bench.runtime.block_on(async {
        // A directory of its own for each run, for the same prefix: what is there already is no work.
        let link = bucket.link_as(Distance::Near, &bench.new_name("listed"), s3::LISTED).await?;
        let (took, objects) = link.import().await?;
        ensure!(objects == u64::from(bench.sizes.objects), "{objects} of {} objects were seen", bench.sizes.objects);
        link.end().await?;
        Ok(per_second(objects, took))
    })
}

/// A large released file in a directory of its own.
async fn large(bench: &Bench, distance: Distance, client: &Client) -> anyhow::Result<(Link, Fid)> {
    let link = bench.bucket()?.link_as(distance, &bench.new_name("large"), "large").await?;
    link.import().await?;
    let name = s3::LARGE.rsplit('/').next().unwrap_or_default();
    let file = client.lookup(&Credential::ROOT, link.root, &Name::parse(name.as_bytes())?).await?;
    ensure!(file.size == bench.sizes.stream_bytes, "{} bytes were imported", file.size);
    Ok((link, file.fid))
}

/// Reads of the first bytes of a released file per second, one after another; the file is released before each.
pub fn first_byte(bench: &Bench, distance: Distance) -> anyhow::Result<f64> {
    s3::large(bench, distance)?;
    let (bucket, blocks) = (bench.bucket()?, bench.blocks(Kind::Random));
    bench.runtime.block_on(async {
        let client = bucket.cluster.connect(|_| ()).await?;
        let (link, fid) = large(bench, distance, &client).await?;
        let mut took = Duration::ZERO;
        for _ in 0..FIRST_BYTES {
            let reader = bucket.cluster.connect(|_| ()).await?;
            let start = Instant::now();
            let file = reader.open(&Credential::ROOT, fid, sateen_client::Access::READ).await?;
            let got = file.read_at(0, FIRST).await?;
            took += start.elapsed();
            blocks.check(0, &got)?;
            file.close().await?;
            reader.close().await?;
            release(&client, fid).await?;
        }
        link.end().await?;
        client.close().await?;
        Ok(per_second(u64::from(FIRST_BYTES), took))
    })
}

/// Gives up what the OSTs have of a file, when nothing of it is being loaded any more: what follows the first bytes is fetched as well.
async fn release(client: &Client, fid: Fid) -> anyhow::Result<()> {
    let end = Instant::now() + LOADED;
    loop {
        match client.hsm_request(&Credential::ROOT, fid, HsmOperation::Release).await {
            Err(e) if e.code == FsCode::Busy && Instant::now() < end => tokio::time::sleep(PAUSE).await,
            done => return Ok(done?),
        }
    }
}

/// Reads a large released file from start to end.
pub fn read_cold(bench: &Bench, distance: Distance) -> anyhow::Result<f64> {
    s3::large(bench, distance)?;
    let (bucket, blocks) = (bench.bucket()?, bench.blocks(Kind::Random));
    let bytes = bench.sizes.stream_bytes;
    bench.runtime.block_on(async {
        let client = bucket.cluster.connect(|_| ()).await?;
        let (link, fid) = large(bench, distance, &client).await?;
        let start = Instant::now();
        let file = client.open(&Credential::ROOT, fid, sateen_client::Access::READ).await?;
        for offset in (0..bytes).step_by(BLOCK) {
            let got = file.read_at(offset, BLOCK).await?;
            ensure!(got.len() == BLOCK, "{} bytes at offset {offset}, of {BLOCK}", got.len());
            blocks.check_pages(offset, &got)?;
        }
        let took = start.elapsed();
        file.close().await?;
        link.end().await?;
        client.close().await?;
        Ok(gb_per_second(bytes, took))
    })
}

/// Stores a large file; the time begins when all of it is on the OSTs.
pub fn export_large(bench: &Bench, distance: Distance) -> anyhow::Result<f64> {
    let (bucket, blocks) = (bench.bucket()?, bench.blocks(Kind::Random));
    let bytes = bench.sizes.stream_bytes;
    bench.runtime.block_on(async {
        let client = bucket.cluster.connect(|_| ()).await?;
        let name = bench.new_name("export-large");
        let link = bucket.link_as(distance, &name, &name).await?;
        let file = client_seq::create(&client, link.root, "data").await?;
        for i in 0..bytes / BLOCK as u64 {
            file.write_at(i * BLOCK as u64, blocks.block(i)).await?;
        }
        file.fsync().await?;
        file.close().await?;
        let took = exported(&link, 1).await?;
        bucket.check(distance, &format!("{name}/data"), bytes, blocks).await?;
        link.end().await?;
        client.close().await?;
        Ok(gb_per_second(bytes, took))
    })
}

/// Stores files of [`s3::SMALL`] bytes; the time begins when all of them are there.
pub fn export_small(bench: &Bench) -> anyhow::Result<f64> {
    let (bucket, blocks) = (bench.bucket()?, bench.blocks(Kind::Random));
    let each = bench.sizes.small_files.div_ceil(WRITERS);
    bench.runtime.block_on(async {
        let client = bucket.cluster.connect(|_| ()).await?;
        let name = bench.new_name("export-small");
        let link = bucket.link_as(Distance::Near, &name, &name).await?;
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (client, parent) = (client.clone(), link.root);
            let bytes = blocks.block(u64::from(writer))[..s3::SMALL].to_vec();
            writers.spawn(async move {
                for i in 0..each {
                    let file = client_seq::create(&client, parent, &format!("f{writer}-{i}")).await?;
                    file.write_at(0, &bytes).await?;
                    file.close().await?;
                }
                anyhow::Ok(())
            });
        }
        writers.join_all().await.into_iter().collect::<anyhow::Result<()>>()?;
        let count = u64::from(each * WRITERS);
        let took = exported(&link, count).await?;
        link.end().await?;
        client.close().await?;
        Ok(per_second(count, took))
    })
}

async fn exported(link: &Link, files: u64) -> anyhow::Result<Duration> {
    let (took, stored) = link.export().await?;
    // With the object of the directory itself, if there is one.
    ensure!(stored == files || stored == files + 1, "{stored} objects were stored of {files} files");
    Ok(took)
}

impl crate::bucket::Bucket {
    /// Reads an object and compares it.
    async fn check(&self, distance: Distance, key: &str, bytes: u64, blocks: &Blocks) -> anyhow::Result<()> {
        let got = self.at(distance).read(key).await?;
        ensure!(got.len() as u64 == bytes, "{key} has {} bytes, not {bytes}", got.len());
        blocks.check(0, &got)
    }
}
