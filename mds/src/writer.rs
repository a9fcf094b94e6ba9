//! The one thread that changes a file system. It takes commands from a bounded queue, applies as many as are waiting on
//! one overlay, commits them with one synced batch, and only then answers: group commit.
//!
//! A command that fails leaves nothing in the batch. A commit that fails is the end: nothing is known about the log any
//! more, everybody gets an error, and the process is told to stop ([`Host::fatal`]).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::JoinHandle;

use sateen_types::{Fid, FsCode, FsError, FsResult, RepositoryId, SessionId, Timestamp};
use tokio::sync::{mpsc, oneshot};

use crate::command::{Command, Inputs, Outcome};
use crate::namespace;
use crate::namespace::repository::export::Exporting;
use crate::placement::Candidate;
use crate::store::{Overlay, Store, Table, WriteSet, keys};

/// Commands that may wait. A session has at most 256 unanswered, and senders wait when it is full.
const QUEUE: usize = 4096;
/// Commands in one commit: bounds the time until the first is answered.
const GROUP_COMMANDS_MAX: usize = 512;
/// Bytes in one commit.
const GROUP_BYTES_MAX: usize = 4 << 20;

/// What the writer asks the rest of the server.
pub trait Host: Send + Sync + 'static {
    /// The clock.
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
    /// Whether somebody has the file open for writing, or may have.
    fn is_written(&self, _fid: Fid) -> bool {
        false
    }
    /// Those of a link's objects that are left alone by who has looked at them when the stamp was this.
    fn left_alone(&self, _link: RepositoryId, _stamp: u64, _keys: &[&[u8]]) -> BTreeSet<Vec<u8>> {
        BTreeSet::new()
    }
    /// OSTs to place stripes on.
    fn osts(&self) -> Arc<Vec<Candidate>>;
    /// The disk of the tables is nearly full.
    fn disk_low(&self) -> bool {
        false
    }
    /// If the file is not open, it cannot be opened until [`Host::release`]; true if it was claimed so.
    fn claim(&self, fid: Fid) -> bool;
    /// The end of these files is committed, or did not happen.
    fn release(&self, files: &[Fid]);
    /// The first of these directories that a client holds, unless it is the one named with it.
    fn held_elsewhere(&self, _dirs: &[(Fid, SessionId)]) -> Option<(Fid, SessionId)> {
        None
    }
    /// Whether some client holds directories: only then [`Host::held_elsewhere`] is asked.
    fn any_held(&self) -> bool {
        false
    }
    /// Whether the client may hold one more directory.
    fn may_hold(&self, _session: SessionId) -> bool {
        false
    }
    /// A directory is held by a client from now on, or by nobody; the commit follows.
    fn held(&self, _dir: Fid, _by: Option<SessionId>) {}
    /// A command succeeded; its commit follows.
    fn applied(&self, command: &Command, outcome: &Outcome);
    /// A group was committed, with new or finished intents if `intents`, and changes of what waits for export if `exports`.
    fn committed(&self, intents: bool, exports: bool);
    /// The store failed. A server aborts here.
    fn fatal(&self, error: &FsError);
}

struct Job {
    command: Command,
    answer: oneshot::Sender<FsResult<Outcome>>,
}

/// Hands commands to the thread. Dropping it ends the thread and waits for that: nothing uses the tables afterwards,
/// which matters when the process ends, for RocksDB must not outlive its own static state.
pub struct Writer {
    /// Always there until dropped.
    queue: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread.
    pub fn start(name: &str, store: Arc<dyn Store>, host: Arc<dyn Host>) -> std::io::Result<Writer> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let exporting = Exporting::new(&*store.snapshot()).map_err(std::io::Error::other)?;
        let exporting = Arc::new(exporting);
        let state = Thread { store, host, fids: None, rotor: 0, failed: None, exporting };
        let thread = std::thread::Builder::new().name(format!("writer-{name}")).spawn(move || state.run(jobs))?;
        Ok(Writer { queue: Some(queue), thread: Some(thread) })
    }

    /// Applies a command; durable when it returns. If the caller goes away meanwhile the command still happens.
    pub async fn submit(&self, command: Command) -> FsResult<Outcome> {
        self.enqueue(command).await?.await
    }

    /// The first half of [`Writer::submit`]: commands are applied in the order in which they were queued.
    pub async fn enqueue(&self, command: Command) -> FsResult<impl Future<Output = FsResult<Outcome>> + use<>> {
        let gone = || FsError::new(FsCode::Unavailable, "the file system is being closed");
        let (answer, result) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(gone)?;
        queue.send(Job { command, answer }).await.map_err(|_| gone())?;
        Ok(async move { result.await.map_err(|_| gone())? })
    }

    /// [`Writer::submit`] for threads outside a runtime.
    pub fn submit_blocking(&self, command: Command) -> FsResult<Outcome> {
        let gone = || FsError::new(FsCode::Unavailable, "the file system is being closed");
        let (answer, result) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(gone)?;
        queue.blocking_send(Job { command, answer }).map_err(|_| gone())?;
        result.blocking_recv().map_err(|_| gone())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // It panicked: then the process is about to abort, and has said why.
            let _ = thread.join();
        }
    }
}

/// FIDs that belong to this life of the server.
struct FidRange {
    sequence: u64,
    next_oid: u32,
}

struct Thread {
    store: Arc<dyn Store>,
    host: Arc<dyn Host>,
    fids: Option<FidRange>,
    rotor: u64,
    failed: Option<FsError>,
    exporting: Arc<Exporting>,
}

impl Thread {
    fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            if let Some(error) = &self.failed {
                let _ = first.answer.send(Err(error.clone()));
                continue;
            }
            self.group(first, &mut jobs);
        }
    }

    /// Applies `first` and what waits behind it, commits, answers.
    fn group(&mut self, first: Job, jobs: &mut mpsc::Receiver<Job>) {
        let store = self.store.clone();
        let snapshot = store.snapshot();
        let mut group = Overlay::new(&*snapshot);
        let mut answers = Vec::new();
        let mut claimed = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            let result = self.one(&mut group, &job.command, &mut claimed);
            answers.push((job.answer, result));
            let full = answers.len() >= GROUP_COMMANDS_MAX || group.changes().bytes() >= GROUP_BYTES_MAX;
            next = if full { None } else { jobs.try_recv().ok() };
        }
        let changes = group.into_changes();
        drop(snapshot);
        let committed = self.commit(&changes);
        self.host.release(&claimed);
        for (answer, result) in answers {
            // Whoever asked may have gone; the change stays.
            let _ = answer.send(match &committed {
                Ok(()) => result,
                Err(error) => Err(error.clone()),
            });
        }
    }

    fn commit(&mut self, changes: &WriteSet) -> FsResult<()> {
        if changes.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.store.commit(changes) {
            self.host.fatal(&error);
            self.failed = Some(error.clone());
            return Err(error);
        }
        self.host.committed(changes.touches(Table::Intents), changes.touches(Table::Exports));
        Ok(())
    }

    /// One command on top of the group; only a success stays.
    fn one(&mut self, group: &mut Overlay<'_>, command: &Command, claimed: &mut Vec<Fid>) -> FsResult<Outcome> {
        if self.host.any_held() {
            let dirs = namespace::held::touched(group, command)?;
            if let Some((dir, but)) = self.host.held_elsewhere(&dirs) {
                return Ok(Outcome::Held { dir, but });
            }
        }
        let fid = if command.wants_fid() { Some(self.fresh_fid(group)?) } else { None };
        let victim = namespace::victim(group, command)?;
        let victim_claimed = victim.filter(|v| self.host.claim(*v));
        let replaced = match command {
            Command::Repository(change) => namespace::repository::victims(group, change)?,
            _ => Vec::new(),
        };
        let (replaced_claimed, mut open): (Vec<Fid>, Vec<Fid>) =
            replaced.into_iter().partition(|fid| self.host.claim(*fid));
        let mut left = BTreeSet::new();
        if let Command::Repository(change) = command {
            let opened = namespace::repository::maybe_opened(change).iter();
            open.extend(opened.filter(|fid| self.host.is_written(**fid)));
            if let Some((link, stamp, keys)) = namespace::repository::objects(change) {
                left = self.host.left_alone(link, stamp, &keys);
            }
        }
        self.rotor = self.rotor.wrapping_add(1);
        let inputs = Inputs {
            now: self.host.now(),
            fid,
            victim_open: victim.is_some() && victim_claimed.is_none(),
            open,
            left,
            osts: self.host.osts(),
            disk_low: self.host.disk_low(),
            rotor: self.rotor,
            answered: false,
            may_hold: matches!(command, Command::Mutate(r) if r.hold && !self.host.disk_low() && self.host.may_hold(r.session)),
            exporting: self.exporting.clone(),
        };
        let mut tx = Overlay::new(group);
        match namespace::apply(&mut tx, command, &inputs) {
            Ok(outcome) => {
                let changes = tx.into_changes();
                for (key, by) in changes.of(Table::Held) {
                    // What is no key of a directory is removed by a correction.
                    if let Ok(Some(dir)) = keys::parse_held_dir(key) {
                        self.host.held(dir, by.map(keys::parse_session).transpose()?);
                    }
                }
                group.absorb(changes);
                claimed.extend(victim_claimed);
                claimed.extend(replaced_claimed);
                self.host.applied(command, &outcome);
                Ok(outcome)
            }
            Err(error) => {
                // What an earlier command of the group claimed stays claimed until that is committed.
                let ours = victim_claimed.into_iter().chain(replaced_claimed);
                let ours: Vec<Fid> = ours.filter(|fid| !claimed.contains(fid)).collect();
                self.host.release(&ours);
                Err(error)
            }
        }
    }

    /// A FID that was never used. A new sequence is taken with the first file after each start and when one is used up,
    /// in the same commit as that file: nothing durable happens per file for identifiers.
    fn fresh_fid(&mut self, group: &mut Overlay<'_>) -> FsResult<Fid> {
        let range = match &mut self.fids {
            Some(range) if range.next_oid <= Fid::SEQ_WIDTH => range,
            _ => {
                let mut tx = Overlay::new(group);
                let inputs = Inputs {
                    now: self.host.now(),
                    fid: None,
                    victim_open: false,
                    open: Vec::new(),
                    left: BTreeSet::new(),
                    osts: Arc::default(),
                    disk_low: false,
                    rotor: self.rotor,
                    answered: false,
                    may_hold: false,
                    exporting: Arc::default(),
                };
                let Outcome::Sequence(sequence) = namespace::apply(&mut tx, &Command::AllocSequence, &inputs)? else {
                    return Err(FsError::new(FsCode::Internal, "allocating a sequence gave none"));
                };
                let changes = tx.into_changes();
                group.absorb(changes);
                self.fids.insert(FidRange { sequence, next_oid: 1 })
            }
        };
        let fid = Fid { seq: range.sequence, oid: range.next_oid, ver: 0 };
        range.next_oid += 1;
        Ok(fid)
    }
}

#[cfg(test)]
mod tests;
