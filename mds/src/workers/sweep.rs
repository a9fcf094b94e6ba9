//! Once a second: which OSTs are silent, whether the disk has room, which sessions have expired, which files without a
//! name can go; and a task for the intents of every file system that has none yet.
//!
//! Ending sessions waits for OSTs, so each file system has a task for it, one at a time ([`OneEach`]).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sateen_runtime::Shutdown;
use sateen_types::{FsId, FsResult};
use tokio::task::{JoinHandle, JoinSet};

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
    let mut ending = OneEach::default();
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
            if may_end {
                ending.start(fs.info.id, || end_expired(cluster.clone(), fs.clone()));
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
    // What an ending session waits for is found again at the next start.
    ending.stop().await;
    while intent_tasks.join_next().await.is_some() {}
}

async fn end_expired(cluster: Arc<Cluster>, fs: Arc<FileSystem>) {
    if let Err(e) = fencing::end_expired(&cluster, &fs).await {
        tracing::warn!(fs = %fs.info.name, "sessions that have expired do not end yet: {e}");
    }
}

/// At most one task for each file system, whatever became of the one before.
#[derive(Default)]
struct OneEach(HashMap<FsId, JoinHandle<()>>);

impl OneEach {
    /// Starts one unless there is one that runs.
    fn start<F: Future<Output = ()> + Send + 'static>(&mut self, fs: FsId, task: impl FnOnce() -> F) {
        self.0.retain(|_, running| !running.is_finished());
        self.0.entry(fs).or_insert_with(|| tokio::spawn(task()));
    }

    /// Cuts them off.
    async fn stop(self) {
        self.0.values().for_each(JoinHandle::abort);
        for (_, task) in self.0 {
            // Cut off, or its end was logged.
            let _ = task.await;
        }
    }
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

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn each_file_system_has_one_task_and_another_one_whatever_became_of_the_first() {
        let (mut tasks, mut begun) = (OneEach::default(), 0);
        let go_on = Arc::new(Notify::new());
        let mut start = |tasks: &mut OneEach, fs| {
            tasks.start(FsId(fs), || {
                begun += 1;
                let go_on = go_on.clone();
                async move {
                    go_on.notified().await;
                    panic!("a task that fails");
                }
            });
            begun
        };
        assert_eq!([1, 1, 2].map(|fs| start(&mut tasks, fs)), [1, 1, 2], "the first one runs");
        go_on.notify_one();
        while tasks.0.values().all(|task| !task.is_finished()) {
            tokio::task::yield_now().await;
        }
        assert_eq!([1, 2].map(|fs| start(&mut tasks, fs)), [3, 3], "one has panicked");
        tasks.stop().await;
    }
}
