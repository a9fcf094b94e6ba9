//! A no-op call of tonic to the MDS: what any metadata operation costs at least, one round trip each.

use std::time::Instant;

use anyhow::Context;
use sateen_proto::mds::cluster_client::ClusterClient;
use sateen_proto::version;
use tonic::transport::Endpoint;

use crate::bench::Bench;
use crate::rate::per_second;

/// Calls under way at once: as many as the client cases use.
pub const CONCURRENCY: usize = 16;

/// `Hello` per second over one connection.
pub fn null(bench: &Bench) -> anyhow::Result<f64> {
    let address = format!("http://{}", bench.cluster()?.mds());
    let time = bench.sizes.limit_time;
    bench.runtime.block_on(async {
        let channel =
            Endpoint::from_shared(address)?.tcp_nodelay(true).connect().await.context("cannot reach the MDS")?;
        let start = Instant::now();
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..CONCURRENCY {
            let mut client = ClusterClient::new(channel.clone());
            callers.spawn(async move {
                let mut count = 0;
                while start.elapsed() < time {
                    client.hello(version::hello("sateen-bench")).await?;
                    count += 1;
                }
                Ok::<u64, tonic::Status>(count)
            });
        }
        let mut count = 0;
        while let Some(caller) = callers.join_next().await {
            count += caller??;
        }
        Ok(per_second(count, start.elapsed()))
    })
}
