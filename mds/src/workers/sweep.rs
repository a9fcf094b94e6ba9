//! Once a second: which OSTs are silent, whether the disk has room, which sessions have expired, which files without a
//! name can go; and a task for the intents of every file system that has none yet.
//!
//! Ending sessions waits for OSTs, so it is done by tasks of its own, each for those that fell silent at a time ([`Endings`]).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sateen_runtime::Shutdown;
use sateen_types::{FsId, FsResult, SessionId};
use tokio::task::{JoinHandle, JoinSet};

use super::{intents, tasks};
use crate::clients::Ending;
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
    let mut endings = Endings::default();
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
                intent_tasks.spawn(tasks::run(Arc::downgrade(&fs), stop.clone()));
                intent_tasks.spawn(tasks::make_room(Arc::downgrade(&fs), stop.clone()));
            }
            if may_end {
                endings.start(fs.begin_ending(), |fresh| end_expired(cluster.clone(), fs.clone(), fresh));
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
    endings.stop().await;
    while intent_tasks.join_next().await.is_some() {}
}

async fn end_expired(cluster: Arc<Cluster>, fs: Arc<FileSystem>, ending: Vec<Ending>) {
    if let Err(e) = fencing::end_expired(&cluster, &fs, ending).await {
        tracing::warn!(fs = %fs.info.name, "sessions that have expired do not end yet: {e}");
    }
}

/// Tasks that end sessions, at most one for each, whatever became of the one before.
#[derive(Default)]
struct Endings(Vec<(HashSet<SessionId>, JoinHandle<()>)>);

impl Endings {
    /// Starts one for those of these sessions that no task is ending.
    fn start<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        ending: Vec<Ending>,
        task: impl FnOnce(Vec<Ending>) -> F,
    ) {
        self.0.retain(|(_, running)| !running.is_finished());
        let is_new = |e: &Ending| !self.0.iter().any(|(sessions, _)| sessions.contains(&e.session));
        let fresh: Vec<Ending> = ending.into_iter().filter(is_new).collect();
        if !fresh.is_empty() {
            let sessions = fresh.iter().map(|e| e.session).collect();
            self.0.push((sessions, tokio::spawn(task(fresh))));
        }
    }

    /// Cuts them off.
    async fn stop(self) {
        self.0.iter().for_each(|(_, task)| task.abort());
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

    fn ending(of: &[u8]) -> Vec<Ending> {
        of.iter().map(|n| Ending { session: SessionId([*n; 16]), name: String::new(), writer: 0 }).collect()
    }

    #[tokio::test]
    async fn each_session_is_ended_by_one_task_and_by_another_one_whatever_became_of_the_first() {
        let mut tasks = Endings::default();
        let go_on = Arc::new(Notify::new());
        let start = |tasks: &mut Endings, of: &[u8]| {
            let mut begun = Vec::new();
            tasks.start(ending(of), |fresh| {
                begun = fresh.iter().map(|e| e.session.0[0]).collect();
                let go_on = go_on.clone();
                async move {
                    go_on.notified().await;
                    panic!("a task that fails");
                }
            });
            begun
        };
        assert_eq!(start(&mut tasks, &[1, 2]), [1, 2]);
        assert_eq!(start(&mut tasks, &[1, 2, 3]), [3], "one that waits for ever holds up nobody else");
        assert!(start(&mut tasks, &[1, 2, 3]).is_empty());
        go_on.notify_one();
        while tasks.0.iter().all(|(_, task)| !task.is_finished()) {
            tokio::task::yield_now().await;
        }
        assert_eq!(start(&mut tasks, &[1, 2, 3]), [1, 2], "their task has panicked");
        tasks.stop().await;
    }
}
