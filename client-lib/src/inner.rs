//! What all parts of a client share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use sateen_types::Fid;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::budget::{Budget, UNIT_BYTES};
use crate::cache::ChunkCache;
use crate::closing::Closing;
use crate::commit::Committer;
use crate::fill::Filling;
use crate::osts::Osts;
use crate::recalls::Above;
use crate::session::Session;
use crate::table::Table;
use crate::{MountSource, NameErrors, Options, atime};

/// The shared parts. Owned by every [`crate::Client`], [`crate::File`] and background task.
#[derive(Debug)]
pub(crate) struct Inner {
    pub source: MountSource,
    pub options: Options,
    pub session: Arc<Session>,
    pub osts: Osts,
    pub committer: Committer,
    pub cache: Arc<ChunkCache>,
    pub budget: Arc<Budget>,
    pub table: Table,
    /// Files that were closed and are not durable yet.
    pub closing: Closing,
    /// Who keeps data above this client.
    pub above: Above,
    /// What [`crate::Client::sync`] has told.
    pub name_errors: NameErrors,
    /// Access times that wait to be reported.
    pub atimes: atime::Pending,
    /// One looks after files at a time when the session has expired.
    pub settling: tokio::sync::Mutex<()>,
    /// A task of its own does so.
    pub settles: AtomicBool,
    /// Writes of fetched ranges that are under way.
    pub filling: Arc<Filling>,
    /// Of the next Take of a worker, as the last reply said.
    pub turn: AtomicU64,
    /// Root of what this client shows.
    pub root: Fid,
    /// Sealing and opening happen on as many threads as there are processors.
    pub processors: Arc<Semaphore>,
    /// Bytes that may be read ahead at a time, in units of [`UNIT_BYTES`].
    readahead: Arc<Semaphore>,
    /// Told when so much is uncommitted that a commit is worth its while.
    pub commit_wanted: Arc<Notify>,
    /// Everything that runs in the background.
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
    pub runtime: tokio::runtime::Handle,
}

impl Inner {
    /// A client on an open session.
    pub fn new(source: &MountSource, options: Options, session: Arc<Session>, root: Fid) -> Inner {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Inner {
            source: source.clone(),
            osts: Osts::new(Arc::clone(&session), &options),
            session,
            committer: Committer::default(),
            cache: Arc::new(ChunkCache::new(options.cache_bytes_max)),
            budget: Arc::new(Budget::new(options.dirty_bytes_max)),
            table: Table::default(),
            closing: Closing::default(),
            above: Above::default(),
            name_errors: NameErrors::default(),
            atimes: atime::Pending::default(),
            settling: tokio::sync::Mutex::new(()),
            settles: AtomicBool::new(false),
            filling: Arc::default(),
            turn: AtomicU64::new(0),
            root,
            processors: Arc::new(Semaphore::new(processors)),
            readahead: Arc::new(Semaphore::new((options.readahead_total_bytes_max / UNIT_BYTES) as usize)),
            commit_wanted: Arc::new(Notify::new()),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            runtime: tokio::runtime::Handle::current(),
            options,
        }
    }

    /// Bytes that may be read ahead now, for all files.
    pub fn readahead_room(&self) -> u64 {
        self.readahead.available_permits() as u64 * UNIT_BYTES
    }

    /// Takes `bytes` of what may be read ahead, if that much is left.
    pub fn reserve_readahead(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).ok()?;
        Arc::clone(&self.readahead).try_acquire_many_owned(units).ok()
    }

    /// Runs `work` on a thread meant for it, as many at a time as there are processors.
    pub async fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let permit = Arc::clone(&self.processors).acquire_owned().await.expect("the semaphore is never closed");
        let run = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        });
        match run.await {
            Ok(result) => result,
            Err(e) => std::panic::resume_unwind(e.into_panic()),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
        self.session.abandon();
    }
}
