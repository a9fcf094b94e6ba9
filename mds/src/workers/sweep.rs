//! Once a second: which OSTs are silent, whether the disk has room, which sessions have expired, which files without a
//! name can go; and a task for the intents of every file system that has none yet.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sateen_runtime::Shutdown;
use sateen_types::{FsId, FsResult};
use tokio::task::JoinSet;

use super::intents;
use crate::cluster::Cluster;
use crate::fs::FileSystem;

const PERIOD: Duration = Duration::from_secs(1);
/// Files without a name looked at per read.
const ORPHANS_PAGE: usize = 1024;

/// Runs until the server stops.
pub async fn run(cluster: Arc<Cluster>, stop: Shutdown) {
    let mut intent_tasks = JoinSet::new();
    let mut with_task: HashSet<FsId> = HashSet::new();
    loop {
        cluster.registry.write().tick(Instant::now());
        match cluster.disk.space() {
            Ok(space) => cluster.disk.update(space),
            Err(e) => tracing::warn!("{e}"),
        }
        for fs in cluster.file_systems() {
            if with_task.insert(fs.info.id) {
                intent_tasks.spawn(intents::run(cluster.clone(), Arc::downgrade(&fs), stop.clone()));
            }
            if let Err(e) = sweep(&fs).await {
                tracing::warn!(fs = %fs.info.name, "sweep: {e}");
            }
        }
        while intent_tasks.try_join_next().is_some() {}
        tokio::select! {
            () = stop.requested() => break,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
    while intent_tasks.join_next().await.is_some() {}
}

async fn sweep(fs: &FileSystem) -> FsResult<()> {
    for session in fs.expired_sessions() {
        tracing::warn!(fs = %fs.info.name, %session, "a client was silent for longer than its lease: its session ends");
        fs.close_session(session).await?;
    }
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
