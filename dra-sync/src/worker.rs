//! The work for one file system: take assignments, execute some at a time, report each.
//!
//! The worker keeps nothing: what it has not reported goes to another worker when its session ends. What was taken in a session
//! that is over is dropped at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::FutureExt;
use sateen_client::{Client, MountSource, Options, Shift};
use sateen_runtime::Shutdown;
use sateen_types::limits::{FETCH_BYTES_MAX, REPOSITORY_MESSAGE_BYTES_MAX, TAKE_MAX};
use sateen_types::repository::{
    Assignment, DeleteOutcome, DeleteResult, ExportOutcome, ExportResult, FetchOutcome, FetchResult, LookOutcome,
    Outcome, RepositoryEvents, RepositorySettings, Work,
};
use sateen_types::{FsCode, FsName, FsResult};
use tokio::sync::{Mutex, Semaphore, mpsc, watch as channel};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use crate::config::{Config, LimitsConfig, StoreName};
use crate::figures::Figures;
use crate::import::Place;
use crate::remote::{CHECK_RETRY_FOR, Remote, RemoteError, Retries, Trouble};
use crate::room::Rooms;
use crate::seen::cut;
use crate::watch::desk::{self, DELIVERIES_WAITING_MAX};
use crate::watch::webhook::Webhook;
use crate::{export, fetch, import, report, watch};

/// How long the MDS may keep a Take that has nothing to give.
const TAKE_HOLD: Duration = Duration::from_secs(15);
/// The same while something runs here. What a Take says of that is as old as the Take, and a restarted MDS gives nothing out until
/// each worker has said that it has nothing of before.
const TAKE_HOLD_BUSY: Duration = Duration::from_secs(1);
/// The same while there is no room for ranges that nobody waits for yet: there may be soon.
const TAKE_HOLD_FULL: Duration = Duration::from_millis(50);
/// How long what runs may take to end when the process is asked to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// How long connections and keys of a store are used before they are looked up again.
const REMOTE_AGE_MAX: Duration = Duration::from_secs(60);
/// Stores whose connections are kept.
const REMOTES_MAX: usize = 64;
/// What is said to be stored where it is only asked whether something could be.
const LOOK_KEY: &[u8] = b".sateen-look";
/// Cached chunks of a worker's client: what it reads it reads once.
const CACHE_BYTES: u64 = 16 << 20;

/// Watches that a worker has beside its other assignments: they last for as long as their links, and wait nearly all of the time.
const WATCHES_MAX: usize = 256;

/// Everything that assignments need.
#[derive(Debug)]
pub struct Shared {
    /// The session.
    pub client: Client,
    /// What the session is of.
    pub fs: FsName,
    /// As it was when the process started.
    pub config: Arc<Config>,
    /// Of the process.
    pub figures: Arc<Figures>,
    remotes: Mutex<HashMap<StoreName, (Instant, Arc<Remote>)>>,
    /// Exports wait here beyond those that are under way: they may need what is fetched beside them.
    exports: Semaphore,
    rooms: Rooms,
}

/// Options of the worker's session.
fn options(config: &Config) -> Options {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Options {
        cache_bytes_max: CACHE_BYTES,
        dirty_bytes_max: config.limits.memory.0,
        readahead_bytes_max: 0,
        client_name: cut(&format!("sateen-dra-sync {} pid {}", host.trim(), std::process::id()), 255),
        ..Options::default()
    }
}

/// Works for a file system until `stop`, or until the session cannot be kept.
pub async fn run(
    source: MountSource,
    config: Arc<Config>,
    figures: Arc<Figures>,
    rooms: Rooms,
    webhook: Option<&Webhook>,
    stop: Shutdown,
) -> FsResult<()> {
    let client = Client::connect(&source, options(&config)).await?;
    tracing::info!(%source, "working for the file system");
    figures.sessions.fetch_add(1, Ordering::Relaxed);
    let fs = source.fs;
    let shared = Arc::new(Shared {
        client: client.clone(),
        fs: fs.clone(),
        exports: Semaphore::new(config.limits.exports),
        rooms,
        config,
        figures: figures.clone(),
        remotes: Mutex::default(),
    });
    let (shift, current) = channel::channel(None);
    let desk = webhook.map(|webhook| {
        let (send, deliveries) = mpsc::channel(DELIVERIES_WAITING_MAX);
        webhook.register(&fs, send);
        tokio::spawn(desk::run(Arc::clone(&shared), current, deliveries))
    });
    let worked = work(&shared, &shift, &stop).await;
    if let (Some(webhook), Some(desk)) = (webhook, desk) {
        webhook.leave(&fs);
        desk.abort();
    }
    figures.sessions.fetch_sub(1, Ordering::Relaxed);
    let closed = client.close().await;
    worked.and(closed)
}

/// What runs: numbers of assignments by the task that is at them.
#[derive(Default)]
struct Tasks {
    set: JoinSet<u64>,
    held: HashMap<u64, Held>,
}

/// One assignment that runs.
struct Held {
    handle: AbortHandle,
    slot: Slot,
}

/// What an assignment is counted with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    /// Ranges that somebody waits for, imports, looks, reports: with those ahead at most
    /// [`crate::config::LimitsConfig::assignments`].
    Busy,
    /// Ranges that nobody waits for yet: at most [`ahead_max`].
    Ahead,
    /// Objects to be stored. The MDS bounds them; they never keep away the ranges that they may be waiting for.
    Export,
    /// See [`WATCHES_MAX`].
    Watch,
}

impl Slot {
    fn of(work: &Work) -> Slot {
        match work {
            Work::Fetch(fetch) if !fetch.urgent => Slot::Ahead,
            Work::Check | Work::Import { .. } | Work::Fetch(_) | Work::Report { .. } => Slot::Busy,
            Work::Export(_) | Work::Delete { .. } | Work::Look { .. } => Slot::Export,
            Work::Watch => Slot::Watch,
        }
    }
}

impl Tasks {
    /// Another session: everything is somebody else's.
    fn drop_all(&mut self) -> u64 {
        let lost = self.held.len() as u64;
        self.set.abort_all();
        self.held.clear();
        lost
    }

    /// How many there are of a kind.
    fn count(&self, slot: Slot) -> usize {
        self.held.values().filter(|held| held.slot == slot).count()
    }

    /// Those that watch have no end of their own.
    fn stop_watching(&mut self) {
        self.held.values().filter(|held| held.slot == Slot::Watch).for_each(|held| held.handle.abort());
    }

    /// One ended, in order or not: what is not reported goes to whoever takes it next.
    fn ended(&mut self, task: Result<(Id, u64), JoinError>) {
        let task = match task {
            Ok((task, _)) => task,
            Err(error) => {
                if !error.is_cancelled() {
                    tracing::error!(%error, "an assignment ended by a fault of the worker; please report it");
                }
                error.id()
            }
        };
        self.held.retain(|_, held| held.handle.id() != task);
    }
}

/// Ranges that nobody waits for yet take three quarters of places and memory: what somebody waits for never waits for them.
fn ahead_max(limits: &LimitsConfig) -> usize {
    let of_memory = limits.memory.0 / 4 * 3 / FETCH_BYTES_MAX;
    (limits.assignments * 3).div_ceil(4).min(usize::try_from(of_memory).unwrap_or(usize::MAX)).max(1)
}

async fn work(shared: &Arc<Shared>, current: &channel::Sender<Option<Shift>>, stop: &Shutdown) -> FsResult<()> {
    let (limit, ahead_limit) = (shared.config.limits.assignments, ahead_max(&shared.config.limits));
    let mut tasks = Tasks::default();
    let mut shift: Option<Shift> = None;
    while !stop.is_requested() {
        let room = limit.saturating_sub(tasks.count(Slot::Busy) + tasks.count(Slot::Ahead));
        let ahead = ahead_limit.saturating_sub(tasks.count(Slot::Ahead)).min(room);
        if room == 0 {
            tokio::select! {
                () = stop.requested() => break,
                Some(ended) = tasks.set.join_next_with_id() => tasks.ended(ended),
            }
            continue;
        }
        let held: Vec<u64> = tasks.held.keys().copied().collect();
        let max = u32::try_from(room).unwrap_or(TAKE_MAX).min(TAKE_MAX);
        let ahead = u32::try_from(ahead).unwrap_or(max);
        let hold = match (ahead, held.is_empty()) {
            (_, true) => TAKE_HOLD,
            (0, false) => TAKE_HOLD_FULL,
            (_, false) => TAKE_HOLD_BUSY,
        };
        let mut take = std::pin::pin!(shared.client.take(max, ahead, hold, &held));
        let taken = loop {
            tokio::select! {
                taken = &mut take => break Some(taken),
                () = stop.requested() => break None,
                Some(ended) = tasks.set.join_next_with_id() => tasks.ended(ended),
            }
        };
        let (now, assignments) = match taken {
            None => break,
            Some(Ok(taken)) => taken,
            Some(Err(e)) => {
                shared.figures.lost.fetch_add(tasks.drop_all(), Ordering::Relaxed);
                return Err(e);
            }
        };
        if shift.replace(now).is_some_and(|before| before != now) {
            let lost = tasks.drop_all();
            shared.figures.lost.fetch_add(lost, Ordering::Relaxed);
            tracing::warn!(lost, "the session ended; what was taken in it goes to other workers");
        }
        current.send_replace(Some(now));
        for assignment in assignments {
            let number = assignment.number;
            if tasks.held.contains_key(&number) {
                continue;
            }
            let slot = Slot::of(&assignment.work);
            let too_many = slot == Slot::Watch && tasks.count(slot) >= WATCHES_MAX;
            let handle = tasks.set.spawn(execute(Arc::clone(shared), now, assignment, too_many).map(move |()| number));
            tasks.held.insert(number, Held { handle, slot });
        }
    }
    tasks.stop_watching();
    let patience = tokio::time::timeout(STOP_PATIENCE, async { while tasks.set.join_next().await.is_some() {} });
    if patience.await.is_err() {
        tracing::warn!(assignments = tasks.set.len(), "stopping; what is not done goes to other workers");
        tasks.set.shutdown().await;
    }
    Ok(())
}

/// Executes and reports an assignment.
async fn execute(shared: Arc<Shared>, shift: Shift, assignment: Assignment, too_many: bool) {
    let _running = shared.figures.running(&assignment.work);
    let number = assignment.number;
    let repository = assignment.repository;
    let outcome = match too_many {
        true => Some(Outcome::Watch { message: format!("this worker watches {WATCHES_MAX} buckets already") }),
        false => outcome(&shared, shift, &assignment).await,
    };
    let Some(outcome) = outcome else { return };
    match &outcome {
        Outcome::Check { message } if !message.is_empty() => {
            tracing::warn!(%repository, message, "the bucket cannot be used")
        }
        Outcome::Import { message } => tracing::warn!(%repository, message, "the import cannot go on"),
        Outcome::Report { message } if !message.is_empty() => {
            tracing::warn!(%repository, message, "a report was not written")
        }
        Outcome::Watch { message } => tracing::warn!(%repository, message, "the bucket is not watched"),
        Outcome::Fetch(FetchOutcome { result, message, .. }) if *result != FetchResult::Loaded => {
            tracing::warn!(%repository, ?result, message, "a range was not loaded");
        }
        Outcome::Export(ExportOutcome { result, message, code, .. }) if *result != ExportResult::Stored => {
            tracing::info!(%repository, ?result, message, code, "a file was not exported");
        }
        Outcome::Delete(DeleteOutcome { result, message, .. }) if *result != DeleteResult::Deleted => {
            tracing::info!(%repository, ?result, message, "an object was not deleted");
        }
        _ => {}
    }
    match shared.client.finish(shift, number, &outcome).await {
        Ok(()) => {}
        Err(e) if e.code == FsCode::Stale => {
            shared.figures.lost.fetch_add(1, Ordering::Relaxed);
        }
        Err(error) => tracing::warn!(%repository, number, %error, "what was done could not be reported"),
    }
}

/// `None` if there is nothing to report.
async fn outcome(shared: &Arc<Shared>, shift: Shift, assignment: &Assignment) -> Option<Outcome> {
    let failed = |message: String| {
        let message = cut(&message, REPOSITORY_MESSAGE_BYTES_MAX);
        match &assignment.work {
            Work::Check => Outcome::Check { message },
            Work::Import { .. } => Outcome::Import { message },
            Work::Fetch(_) => Outcome::Fetch(FetchOutcome { result: FetchResult::Failed, message, allocated_delta: 0 }),
            Work::Export(_) => {
                let (result, code) = (ExportResult::Failed, String::new());
                Outcome::Export(ExportOutcome { result, message, code, object: None })
            }
            Work::Delete { .. } => {
                Outcome::Delete(DeleteOutcome { result: DeleteResult::Failed, message, object: None })
            }
            Work::Look { .. } => Outcome::Look(LookOutcome { object: None, number: None, message }),
            Work::Watch => Outcome::Watch { message },
            Work::Report { .. } => Outcome::Report { message },
        }
    };
    let remote = match shared.remote(&assignment.settings).await {
        Ok(remote) => remote,
        Err(e) => {
            let hint = e.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
            return Some(failed(format!("{}{hint}", e.message)));
        }
    };
    match &assignment.work {
        Work::Check => {
            let exports = assignment.settings.auto_export != RepositoryEvents::default();
            Some(failed(check(&remote, exports, &shared.figures).await))
        }
        Work::Export(work) => {
            let _slot = shared.exports.acquire().await.ok()?;
            let (number, room) = (assignment.number, &shared.rooms.exports);
            let mut outcome = export::run(&shared.client, shift, number, &remote, work, room, &shared.figures).await?;
            outcome.message = cut(&outcome.message, REPOSITORY_MESSAGE_BYTES_MAX);
            Some(Outcome::Export(outcome))
        }
        Work::Delete { key, etag, earlier } => {
            let _slot = shared.exports.acquire().await.ok()?;
            let mut outcome = export::delete(&remote, key, etag, earlier, &shared.figures).await;
            outcome.message = cut(&outcome.message, REPOSITORY_MESSAGE_BYTES_MAX);
            Some(Outcome::Delete(outcome))
        }
        Work::Look { key } => {
            let _slot = shared.exports.acquire().await.ok()?;
            match export::look_at(&remote, key, &shared.figures).await {
                Ok(seen) => Some(Outcome::Look(seen)),
                Err(e) => Some(failed(e.message)),
            }
        }
        Work::Watch => match watch::run(shared, shift, assignment).await {
            Ok(never) => match never {},
            // Another worker has it, or the link is gone.
            Err(e) if matches!(e.code, FsCode::Stale | FsCode::NotFound) => {
                shared.figures.lost.fetch_add(1, Ordering::Relaxed);
                None
            }
            Err(e) => Some(failed(e.to_string())),
        },
        Work::Import { left, .. } => {
            let heads = shared.config.limits.heads;
            let number = assignment.number;
            let place = Place { left: left.clone(), stamp: assignment.stamp };
            let client = shared.client.clone();
            let store = Arc::new(import::Store {
                open: watch::remote_of(shared, &assignment.settings),
                known: Box::new(move |objects| {
                    let client = client.clone();
                    async move { client.known(shift, number, &objects).await }.boxed()
                }),
                figures: Arc::clone(&shared.figures),
            });
            match import::run(&shared.client, shift, number, &store, place, heads).await {
                Ok(()) => {
                    tracing::info!(repository = %assignment.repository, "the import is complete");
                    None
                }
                Err(e) if e.code == FsCode::Stale => {
                    shared.figures.lost.fetch_add(1, Ordering::Relaxed);
                    None
                }
                Err(e) => Some(failed(e.message)),
            }
        }
        Work::Report { task, key } => {
            let (number, about) = (assignment.number, (*task, key.as_slice()));
            match report::run(&shared.client, shift, number, &remote, about, &shared.figures).await {
                Ok(()) => Some(Outcome::Report { message: String::new() }),
                Err(e) if e.code == FsCode::Stale => {
                    shared.figures.lost.fetch_add(1, Ordering::Relaxed);
                    None
                }
                Err(e) => Some(failed(e.message)),
            }
        }
        Work::Fetch(work) => {
            let (client, number, figures) = (&shared.client, assignment.number, &shared.figures);
            let bytes = work.range.end - work.range.start;
            let Some(_room) = shared.rooms.fetch(bytes, work.urgent).await else {
                return Some(failed(format!("{bytes} bytes are more than limits.memory of sateen-dra-sync")));
            };
            let mut outcome = fetch::run(client, shift, number, &remote, work, figures).await;
            if outcome.result == FetchResult::Failed
                && remote.is_expired()
                && let Ok(remote) = shared.remote(&assignment.settings).await
            {
                // Somebody may wait, and other keys may be there by now.
                outcome = fetch::run(client, shift, number, &remote, work, figures).await;
            }
            outcome.message = cut(&outcome.message, REPOSITORY_MESSAGE_BYTES_MAX);
            shared.figures.fetched(outcome.result);
            Some(Outcome::Fetch(outcome))
        }
    }
}

/// Why a bucket cannot be listed, or its objects not be read, or (if the link exports) not be written; empty if they can.
async fn check(remote: &Remote, exports: bool, figures: &Figures) -> String {
    let mut retries = Retries::within(CHECK_RETRY_FOR);
    loop {
        let look = async {
            let page = remote.list(b"", 1).await?;
            if let Some(first) = page.objects.first().filter(|first| !first.key.is_empty()) {
                match remote.head(&first.key).await {
                    // It went away in this moment: no fault of the bucket.
                    Err(e) if e.trouble == Trouble::Gone => {}
                    other => drop(other?),
                }
            }
            if exports {
                remote.try_writing(LOOK_KEY).await?;
            }
            Ok(())
        };
        let look: Result<(), RemoteError> = look.await;
        match look {
            Ok(()) => return String::new(),
            Err(e) => {
                figures.failed(&e);
                if !retries.pause(&e).await {
                    return e.message;
                }
            }
        }
    }
}

impl Shared {
    /// The store of a link, with its connections and keys. Both are looked up anew now and then.
    pub async fn remote(&self, settings: &RepositorySettings) -> FsResult<Arc<Remote>> {
        let store = Config::store_of(settings);
        let mut remotes = self.remotes.lock().await;
        if let Some((since, remote)) = remotes.get(&store)
            && since.elapsed() < REMOTE_AGE_MAX
            && !remote.is_expired()
        {
            return Ok(Arc::clone(remote));
        }
        let remote = Arc::new(Remote::open(settings, &self.config)?);
        if remotes.len() >= REMOTES_MAX {
            remotes.retain(|_, (since, _)| since.elapsed() < REMOTE_AGE_MAX);
        }
        if remotes.len() < REMOTES_MAX {
            remotes.insert(store, (Instant::now(), Arc::clone(&remote)));
        }
        Ok(remote)
    }
}
