//! Data repositories as the server runs them: what is wanted and who fetches it, in memory ([`table`]); links for
//! administrators ([`links`]), ranges and states for clients ([`load`]), work for workers ([`work`]). The truth is in the tables
//! ([`crate::namespace::repository`]): a restart of the server loses nothing but requests, which are made again.
//!
//! Order of locks: the clients, then the table of loads.

mod export;
mod links;
mod load;
pub mod table;
#[cfg(test)]
mod tests;
mod work;

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, MutexGuard};
use sateen_types::repository::{ImportState, RepositoryState};
use sateen_types::{Fid, FsCode, FsError, FsResult, RepositoryId, SessionId};
use tokio::sync::Notify;

use super::FileSystem;
use crate::command::{Command, Outcome};
use crate::namespace::repository::{self, Answer, Change};
use crate::store::records::RepositoryRecord;
use crate::store::{ReadTxn, Table};
pub use links::Update;
use table::{CHECK_AGAIN, Counts, FILES_MAX, LoadTable};

/// Longest a change of a file's extent, or the end of a link, waits for workers; then the client asks again.
const DRAIN_WAIT: Duration = Duration::from_secs(20);

/// See the module.
pub(super) struct Repositories {
    table: Mutex<LoadTable>,
    /// Sessions that are known as workers, durably.
    workers: Mutex<HashSet<SessionId>>,
    /// Told when there may be work.
    work: Notify,
    /// Links as they were last seen, for people.
    seen: Mutex<BTreeMap<RepositoryId, (RepositoryState, u64)>>,
}

impl Repositories {
    /// With what is in the tables when the server starts.
    pub fn new(tx: &dyn ReadTxn, now: Instant) -> FsResult<Repositories> {
        // Numbers are those of the clock, so that an earlier life of the server has lower ones.
        let number = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |t| t.as_micros() as u64);
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
            seen.insert(id, (record.state, record.import.objects));
        }
        for (fid, row, remote) in repository::restores(tx, FILES_MAX)? {
            table.restore(fid, row.repository, &remote, now)?;
        }
        let workers = Mutex::new(workers.into_iter().collect());
        Ok(Repositories { table: Mutex::new(table), workers, work: Notify::new(), seen: Mutex::new(seen) })
    }

    fn lock(&self) -> MutexGuard<'_, LoadTable> {
        self.table.lock()
    }

    fn tell(&self) {
        self.work.notify_waiters();
    }

    /// Whether a worker may be writing to the file.
    pub fn may_be_written(&self, fid: Fid) -> bool {
        let table = self.lock();
        table.is_out(fid) || !table.is_settled()
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
}

/// What is to be done for a link, from its row.
fn set_jobs(table: &mut LoadTable, id: RepositoryId, record: &RepositoryRecord, now: Instant) {
    let check_at = match record.state {
        RepositoryState::Creating => Some(now),
        RepositoryState::Misconfigured => Some(now + CHECK_AGAIN),
        _ => None,
    };
    let wants_import = matches!(record.import.state, ImportState::Queued | ImportState::Running);
    let import = (wants_import && record.state == RepositoryState::Available).then_some(record.run);
    table.exports.set_link(id, record.state == RepositoryState::Available);
    table.set_jobs(id, check_at, import, record.state == RepositoryState::Deleting);
}

impl FileSystem {
    /// Stamp of now.
    fn stamp(&self) -> u64 {
        0
    }

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
            Ok(record) => drop(seen.insert(id, (record.state, record.import.objects))),
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
            states: seen.values().map(|(state, _)| *state).collect(),
            objects: seen.values().map(|(_, objects)| objects).sum(),
        }
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
