//! Once a second: which OSTs are silent, whether the disk has room, which sessions have expired, which files without a
//! name can go; and a task for the intents of every file system that has none yet.
//!
//! Ending sessions waits for OSTs, so each file system has a task for it, one at a time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sateen_runtime::Shutdown;
use sateen_types::{FsId, FsResult};
use tokio::task::JoinSet;

use super::intents;
use crate::cluster::Cluster;
use crate::fencing;
use crate::fs::FileSystem;

const PERIOD: Duration = Duration::from_secs(1);
/// Files without a name looked at per read.
const ORPHANS_PAGE: usize = 1024;

/// Runs until the server stops.
pub async fn run(cluster: Arc<Cluster>, stop: Shutdown) {
    let mut intent_tasks = JoinSet::new();
    let mut with_task: HashSet<FsId> = HashSet::new();
    let mut end_tasks: JoinSet<FsId> = JoinSet::new();
    let mut ending: HashSet<FsId> = HashSet::new();
    loop {
        cluster.registry.write().tick(Instant::now());
        match cluster.disk.space() {
            Ok(space) => cluster.disk.update(space),
            Err(e) => tracing::warn!("{e}"),
        }
        // An OST that is not known to be up yet could not be told.
        let may_end = !cluster.registry.read().is_gathering(Instant::now());
        for fs in cluster.file_systems() {
            if with_task.insert(fs.info.id) {
                intent_tasks.spawn(intents::run(cluster.clone(), Arc::downgrade(&fs), stop.clone()));
            }
            if may_end && ending.insert(fs.info.id) {
                end_tasks.spawn(end_expired(cluster.clone(), fs.clone()));
            }
            if let Err(e) = sweep(&fs).await {
                tracing::warn!(fs = %fs.info.name, "sweep: {e}");
            }
        }
        while intent_tasks.try_join_next().is_some() {}
        while let Some(Ok(done)) = end_tasks.try_join_next() {
            ending.remove(&done);
        }
        tokio::select! {
            () = stop.requested() => break,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
    // What an ending session waits for is found again at the next start.
    end_tasks.shutdown().await;
    while intent_tasks.join_next().await.is_some() {}
}

async fn end_expired(cluster: Arc<Cluster>, fs: Arc<FileSystem>) -> FsId {
    if let Err(e) = fencing::end_expired(&cluster, &fs).await {
        tracing::warn!(fs = %fs.info.name, "sessions that have expired do not end yet: {e}");
    }
    fs.info.id
}

async fn sweep(fs: &FileSystem) -> FsResult<()> {
    let mut after = None;
    loop {
        let (orphans, next) = fs.closed_orphans(after, ORPHANS_PAGE).await?;
        fs.drop_orphans(orphans).await?;
        match next {
            Some(fid) => after = Some(fid),
            None => return Ok(()),
        }
    }
}
