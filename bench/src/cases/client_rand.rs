//! Random 4 KiB reads through the client library.

use std::time::Instant;

use anyhow::ensure;
use tokio::task::JoinSet;

use crate::bench::Bench;
use crate::cases::client_seq::open;
use crate::data::{Kind, mixed};
use crate::rate::per_second;

/// Bytes of one read.
const IO: usize = 4096;
/// Reads under way at once.
const IN_FLIGHT: u32 = 16;

/// Reads per second of a file in the page cache of the OSSes, with a new session.
pub fn read(bench: &Bench) -> anyhow::Result<f64> {
    let bytes = bench.sizes.stream_bytes;
    let name = bench.prepared(Kind::Random, bytes)?;
    let per_task = bench.sizes.random_ios / IN_FLIGHT;
    bench.settle()?;
    bench.with_client(|client, dir| async move {
        let file = open(&client, dir, &name).await?;
        let mut tasks = JoinSet::new();
        let start = Instant::now();
        for task in 0..IN_FLIGHT {
            let file = file.clone();
            tasks.spawn(async move {
                let mut got = Vec::with_capacity(per_task as usize);
                for i in 0..per_task {
                    let offset = mixed(u64::from(task) << 32 | u64::from(i)) % (bytes / IO as u64) * IO as u64;
                    got.push((offset, file.read_at(offset, IO).await?));
                }
                anyhow::Ok(got)
            });
        }
        let got = tasks.join_all().await;
        let took = start.elapsed();
        for read in got {
            for (offset, bytes) in read? {
                ensure!(bytes.len() == IO, "{} bytes at offset {offset}", bytes.len());
                bench.blocks(Kind::Random).check(offset, &bytes)?;
            }
        }
        file.close().await?;
        Ok(per_second(u64::from(per_task * IN_FLIGHT), took))
    })
}
