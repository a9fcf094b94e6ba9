//! Deleted file systems: their objects are dropped on every OST that was ever registered, then their directories go. An
//! OST that is down keeps its file systems in state DELETING until it is back.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sateen_runtime::Shutdown;
use sateen_types::{FsCode, FsId, OstIndex};

use crate::cluster::Cluster;

const PERIOD: Duration = Duration::from_secs(1);

/// Runs until the server stops.
pub async fn run(cluster: Arc<Cluster>, stop: Shutdown) {
    // What has answered in this life of the server; asking again after a restart does no harm.
    let mut dropped: HashSet<(FsId, OstIndex)> = HashSet::new();
    loop {
        for (id, _) in cluster.deleting() {
            tokio::select! {
                () = stop.requested() => return,
                () = one(&cluster, id, &mut dropped) => {}
            }
        }
        tokio::select! {
            () = stop.requested() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

async fn one(cluster: &Cluster, id: FsId, dropped: &mut HashSet<(FsId, OstIndex)>) {
    let osts: Vec<OstIndex> = cluster.registry.read().candidates().iter().map(|c| c.index).collect();
    let mut left = 0;
    for ost in osts {
        if dropped.contains(&(id, ost)) {
            continue;
        }
        let address = cluster.registry.read().address(ost);
        let Some(address) = address else {
            left += 1;
            continue;
        };
        match cluster.oss.drop_file_system(&address, ost, id).await {
            Ok(()) => drop(dropped.insert((id, ost))),
            Err(e) => {
                left += 1;
                tracing::debug!(%id, %ost, "cannot drop a deleted file system yet: {e}");
            }
        }
    }
    if left > 0 {
        return;
    }
    match cluster.finish_delete(id).await {
        Ok(()) => dropped.retain(|(fs, _)| *fs != id),
        Err(e) if e.code == FsCode::Busy => tracing::debug!("{e}"),
        Err(e) => tracing::error!(%id, "cannot remove the directory of a deleted file system: {e}"),
    }
}
