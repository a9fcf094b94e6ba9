//! Data repositories as the server runs them: what is wanted and who fetches it, in memory ([`table`]); links for
//! administrators ([`links`]), ranges ([`load`]) and states ([`hsm`]) for clients, work for workers ([`work`]). The truth is in the tables
//! ([`crate::namespace::repository`]): a restart of the server loses nothing but requests, which are made again.
//!
//! Order of locks: the clients, then the table of loads.

mod events;
mod export;
mod faults;
mod hsm;
mod links;
mod load;
mod opened;
mod room;
mod stamps;
pub mod table;
mod tasks;
#[cfg(test)]
mod tests;
mod work;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, MutexGuard};
use sateen_types::repository::{EventSource, ExportStatus, ImportState, RepositoryEvents, RepositoryState};
use sateen_types::{Fid, FsCode, FsError, FsResult, RepositoryId, SessionId, Timestamp};
use tokio::sync::Notify;

use super::FileSystem;
use crate::command::{Command, Outcome};
use crate::namespace::repository::export::ExportChange;
use crate::namespace::repository::{self, Answer, Change};
use crate::store::records::RepositoryRecord;
use crate::store::{Overlay, ReadTxn, Store, Table, keys};
use faults::Faults;
pub use load::{Asked, Loaded};
use opened::Opened;
use room::Room;
use stamps::{Deleted, Stamps};
use table::{CHECK_AGAIN, CHECK_EVERY, Counts, FILES_MAX, LoadTable, Wanted};
pub use work::Capacity;

/// Longest a change of a file's extent, or the end of a link, waits for workers; then the client asks again.
const DRAIN_WAIT: Duration = Duration::from_secs(20);
/// A comparison that failed is made again after this, at the latest.
const SYNC_AGAIN: Duration = Duration::from_secs(300);

/// See the module.
pub(super) struct Repositories {
    table: Mutex<LoadTable>,
    /// Sessions that are known as workers, durably.
    workers: Mutex<HashSet<SessionId>>,
    /// Told when there may be work.
    work: Notify,
    /// Links as they were last seen, for people.
    seen: Mutex<BTreeMap<RepositoryId, Seen>>,
    faults: Faults,
    stamps: Mutex<Stamps>,
    deleted: Mutex<Deleted>,
    /// When who watches a bucket was last heard, and why it cannot; empty: it can.
    watched: Mutex<BTreeMap<RepositoryId, (Timestamp, String)>>,
    opened: Mutex<Opened>,
    /// Told when a task may have a step to take.
    tasks: Notify,
    room: Room,
}

/// A link as it was last seen.
#[derive(Clone, Copy, Debug)]
struct Seen {
    state: RepositoryState,
    /// Objects that its import, or the last one, has looked at.
    objects: u64,
    /// An import waits or runs, since then.
    import_since: Option<Timestamp>,
}

impl Seen {
    fn of(record: &RepositoryRecord) -> Seen {
        let going = matches!(record.import.state, ImportState::Queued | ImportState::Running);
        let import_since = record.import.started.filter(|_| going);
        Seen { state: record.state, objects: record.import.objects, import_since }
    }
}

impl Repositories {
    /// With what is in the tables when the server starts.
    pub fn new(tx: &dyn ReadTxn, now: Instant) -> FsResult<Repositories> {
        // Numbers are those of the clock, so that an earlier life of the server has lower ones.
        let number = clock_micros().max(1);
        let stamps = Stamps::new(crate::namespace::counter(tx, keys::NEXT_STAMP)?, number);
        let workers = repository::workers(tx)?;
        let mut living = Vec::new();
        for session in &workers {
            if tx.get(Table::Sessions, &session.0)?.is_some() {
                living.push(*session);
            }
        }
        let mut table = LoadTable::new(number, living);
        let mut seen = BTreeMap::new();
        for (id, record) in repository::all(tx)? {
            set_jobs(&mut table, id, &record, now);
            seen.insert(id, Seen::of(&record));
        }
        for (fid, row, remote) in repository::restores(tx, FILES_MAX)? {
            table.restore(fid, row.repository, &remote, now)?;
        }
        let workers = Mutex::new(workers.into_iter().collect());
        Ok(Repositories {
            table: Mutex::new(table),
            workers,
            work: Notify::new(),
            seen: Mutex::new(seen),
            faults: Faults::default(),
            deleted: Mutex::new(Deleted::new(stamps.last())),
            stamps: Mutex::new(stamps),
            watched: Mutex::default(),
            opened: Mutex::new(Opened::new(repository::opened::all(tx)?)),
            tasks: Notify::new(),
            room: Room::new(tx)?,
        })
    }

    fn lock(&self) -> MutexGuard<'_, LoadTable> {
        self.table.lock()
    }

    fn tell(&self) {
        self.work.notify_waiters();
    }

    /// Objects of a link that are left alone by who has looked at them when the stamp was this.
    pub fn left_alone(&self, id: RepositoryId, stamp: u64, keys: &[&[u8]]) -> BTreeSet<Vec<u8>> {
        let mut left = self.deleted.lock().since(id, stamp, keys);
        let table = self.table.lock();
        left.extend(keys.iter().filter(|key| table.exports.is_busy(id, key)).map(|key| key.to_vec()));
        left
    }

    /// A change was made; its commit follows.
    pub fn applied(&self, change: &Change, answer: &Answer) {
        match (change, answer) {
            // Whoever looked before may have seen what is gone.
            (Change::Events { id, gone, looked, .. }, Answer::Events(done)) => {
                let mut deleted = self.deleted.lock();
                let gone = gone.iter().filter(|key| !done.later.contains(key));
                gone.for_each(|key| deleted.note(*id, key, looked.heard));
            }
            (Change::Compared { id, looked, .. }, Answer::Went(keys)) => {
                let mut deleted = self.deleted.lock();
                keys.iter().for_each(|key| deleted.note(*id, key, looked.heard));
            }
            (Change::Export(ExportChange::Deleted { id, key, stamp, .. }), _) => {
                self.deleted.lock().note(*id, key, *stamp);
            }
            _ => {}
        }
    }

    /// Whether a worker may be writing to the file.
    pub fn may_be_written(&self, fid: Fid) -> bool {
        let table = self.lock();
        table.is_out(fid) || !table.is_settled()
    }

    /// Workers of an earlier life that have not said what they have.
    pub fn unsettled(&self) -> Vec<SessionId> {
        self.lock().unsettled()
    }

    /// The session has ended; no OST takes anything of it any more.
    pub fn end_session(&self, session: SessionId, now: Instant) {
        self.workers.lock().remove(&session);
        self.lock().end_session(session, now);
        self.closed(None);
        self.tell();
    }
}

/// Links of a file system, for people.
#[derive(Clone, Debug, Default)]
pub struct LinkCounts {
    /// State of each.
    pub states: Vec<RepositoryState>,
    /// Objects that their imports have looked at.
    pub objects: u64,
    /// Imports that wait or run.
    pub imports: u64,
    /// Since when the oldest of them does.
    pub import_since: Option<Timestamp>,
}

/// What is to be done for a link, from its row.
fn set_jobs(table: &mut LoadTable, id: RepositoryId, record: &RepositoryRecord, now: Instant) {
    let check_at = match record.state {
        RepositoryState::Creating | RepositoryState::Updating => Some(now),
        RepositoryState::Misconfigured => Some(table.looked(id, now) + CHECK_AGAIN),
        RepositoryState::Available => Some(table.looked(id, now) + CHECK_EVERY),
        RepositoryState::Deleting | RepositoryState::Failed => None,
    };
    let available = record.state == RepositoryState::Available;
    let wants_import = matches!(record.import.state, ImportState::Queued | ImportState::Running);
    table.exports.set_link(id, available);
    let settings = &record.settings;
    let by_itself = settings.auto_import != RepositoryEvents::default();
    let jobs = Wanted {
        check_at,
        import: (wants_import && available).then_some(record.run),
        sync_at: (by_itself && available && !wants_import).then(|| now + until_sync(record)),
        watch: (by_itself && available && settings.event_source != EventSource::None)
            .then(|| settings.event_source.to_string()),
        stopped: record.state == RepositoryState::Deleting,
    };
    table.set_jobs(id, jobs, now);
}

/// Links whose end was broken off by a restart stay: nobody waits for that any more.
pub(super) fn keep_links(store: &dyn Store) -> FsResult<()> {
    let snapshot = store.snapshot();
    let mut tx = Overlay::new(&*snapshot);
    for (id, record) in repository::all(&tx)? {
        if record.state == RepositoryState::Deleting {
            repository::keep_after_all(&mut tx, id)?;
        }
    }
    let changes = tx.into_changes();
    drop(snapshot);
    if changes.is_empty() { Ok(()) } else { store.commit(&changes) }
}

/// How long until bucket and directory are to be compared again.
fn until_sync(record: &RepositoryRecord) -> Duration {
    let interval = Duration::from_secs(record.settings.sync_interval_s.into());
    let (since, interval) = match record.import.state {
        ImportState::Failed => (record.import.ended, interval.min(SYNC_AGAIN)),
        _ => (record.synced.max(record.import.ended).or(Some(record.created)), interval),
    };
    // A clock that was set back makes it no later than from now.
    let passed = since.map_or(0, |since| Timestamp::now().seconds.saturating_sub(since.seconds));
    interval.saturating_sub(Duration::from_secs(u64::try_from(passed).unwrap_or(0)))
}

/// The clock.
fn clock_micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_micros() as u64)
}

impl FileSystem {
    /// Makes a change that has to do with repositories, when no client has a directory to itself that it touches.
    async fn change(&self, change: Change) -> FsResult<Answer> {
        loop {
            match self.submit(Command::Repository(Box::new(change.clone()))).await? {
                Outcome::Repository(answer) => return Ok(answer),
                Outcome::Held { dir, but } => self.await_release(but, dir).await?,
                _ => return Err(unexpected()),
            }
        }
    }

    /// The row of a link has changed.
    async fn reload_jobs(&self, id: RepositoryId) -> FsResult<()> {
        let found = self.ask(move |tx| repository::get(tx, id)).await;
        let mut seen = self.shared.repositories.seen.lock();
        match &found {
            Ok(record) => drop(seen.insert(id, Seen::of(record))),
            Err(_) => drop(seen.remove(&id)),
        }
        drop(seen);
        let mut table = self.shared.repositories.lock();
        match found {
            Ok(record) => set_jobs(&mut table, id, &record, Instant::now()),
            Err(e) if e.code == FsCode::NotFound => table.remove_jobs(id),
            Err(e) => return Err(e),
        }
        drop(table);
        self.shared.repositories.tell();
        Ok(())
    }

    /// Links, for people.
    pub fn link_counts(&self) -> LinkCounts {
        let seen = self.shared.repositories.seen.lock();
        LinkCounts {
            states: seen.values().map(|link| link.state).collect(),
            objects: seen.values().map(|link| link.objects).sum(),
            imports: seen.values().filter(|link| link.import_since.is_some()).count() as u64,
            import_since: seen.values().filter_map(|link| link.import_since).min(),
        }
    }

    /// What went wrong at workers since the server started: what was to be done, why it was not, how often.
    pub fn fault_counts(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.shared.repositories.faults.all()
    }

    /// What waits for export and was done, for people.
    pub fn export_counts(&self) -> FsResult<ExportStatus> {
        let ids: Vec<RepositoryId> = self.shared.repositories.seen.lock().keys().copied().collect();
        let mut all = ExportStatus::default();
        let view = self.store.snapshot();
        for id in ids {
            let waiting = export::Waiting::of(&*view, id)?;
            all.queued += waiting.queued;
            all.oldest = all.oldest.into_iter().chain(waiting.oldest).min();
            let status = self.shared.repositories.lock().exports.status(id);
            all.stored += status.stored;
            all.bytes = all.bytes.saturating_add(status.bytes);
            all.deleted += status.deleted;
            all.failed += status.failed;
            all.skipped += status.skipped;
        }
        Ok(all)
    }

    /// What is waited for and done, for people.
    pub fn load_counts(&self) -> Counts {
        self.shared.repositories.lock().counts(Instant::now())
    }
}

fn not_yours(number: u64) -> FsError {
    FsError::new(FsCode::Stale, format!("assignment {number} is not this session's any more"))
}

fn unexpected() -> FsError {
    FsError::new(FsCode::Internal, "a change of a repository was answered with something else")
}
