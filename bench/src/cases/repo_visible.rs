//! How soon a change on one side is seen on the other, one after another, with a store that tells of its changes.

use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use sateen_client::{Credential, Name};
use sateen_types::FsCode;
use sateen_types::repository::{EventSource, RepositoryEvents, RepositorySettings};

use super::client_seq;
use crate::bench::Bench;
use crate::bucket::Distance;
use crate::rate::per_second;

/// Changes one after another.
const CHANGES: u32 = 32;
/// Longest one of them may take to be seen.
const LONGEST: Duration = Duration::from_secs(60);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(2);
/// Everything is carried over.
const ALL: RepositoryEvents = RepositoryEvents { created: true, changed: true, deleted: true };
/// Bytes of each object or file.
const BYTES: &[u8] = b"seen";

/// Objects that are put into the bucket, until a client finds the file: per second.
pub fn import(bench: &Bench) -> anyhow::Result<f64> {
    let bucket = bench.bucket()?;
    bench.runtime.block_on(async {
        let client = bucket.cluster.connect(|_| ()).await?;
        let name = bench.new_name("visible-import");
        let told = |settings: &mut RepositorySettings| {
            settings.auto_import = ALL;
            settings.event_source = EventSource::Listen;
        };
        let link = bucket.link_with(Distance::Near, &name, &name, told).await?;
        let mut took = Duration::ZERO;
        // The first one also waits until somebody listens.
        for i in 0..=CHANGES {
            let file = format!("f{i}");
            let start = Instant::now();
            bucket.at(Distance::Near).put(&format!("{name}/{file}"), Bytes::from_static(BYTES)).await?;
            let wanted = Name::parse(file.as_bytes())?;
            loop {
                match client.lookup(&Credential::ROOT, link.root, &wanted).await {
                    Ok(_) => break,
                    Err(e) if e.code == FsCode::NotFound => {}
                    Err(e) => return Err(e.into()),
                }
                ensure!(start.elapsed() < LONGEST, "{file} was not seen for {} s", LONGEST.as_secs());
                tokio::time::sleep(PAUSE).await;
            }
            took += if i == 0 { Duration::ZERO } else { start.elapsed() };
        }
        link.end().await?;
        client.close().await?;
        Ok(per_second(u64::from(CHANGES), took))
    })
}

/// Files that are written and closed, until the object is in the bucket: per second.
pub fn export(bench: &Bench) -> anyhow::Result<f64> {
    let bucket = bench.bucket()?;
    bench.runtime.block_on(async {
        let client = bucket.cluster.connect(|_| ()).await?;
        let name = bench.new_name("visible-export");
        let link = bucket.link_with(Distance::Near, &name, &name, |settings| settings.auto_export = ALL).await?;
        let mut took = Duration::ZERO;
        for i in 0..CHANGES {
            let start = Instant::now();
            let file = client_seq::create(&client, link.root, &format!("f{i}")).await?;
            file.write_at(0, BYTES).await?;
            file.close().await?;
            let key = format!("{name}/f{i}");
            while !bucket.at(Distance::Near).has(&key).await? {
                ensure!(start.elapsed() < LONGEST, "{key} was not seen for {} s", LONGEST.as_secs());
                tokio::time::sleep(PAUSE).await;
            }
            took += start.elapsed();
        }
        link.end().await?;
        client.close().await?;
        Ok(per_second(u64::from(CHANGES), took))
    })
}
