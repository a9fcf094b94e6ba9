//! What workers take, and what they report.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use sateen_types::repository::{Assignment, Fetch, FetchOutcome, FetchResult, ImportState, Outcome, Work};
use sateen_types::{
    Extent, Fid, FsCode, FsError, FsResult, Layout, OstIndex, RepositoryId, SessionId, Timestamp, Verifier,
};

use super::faults::may_be_the_store;
use super::table::Task;
use super::{not_yours, unexpected};
use crate::fs::FileSystem;
use crate::namespace::repository::{self, Answer, Change};
use crate::store::records::{Sync, Waits};

/// Longest a Take waits before it looks again, whatever it was told.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// So often what is loaded is recorded anew when the file's object has become another one.
const LOADED_TRIES: u32 = 4;

/// How much a worker takes.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Assignments of all kinds.
    pub max: usize,
    /// Ranges among them that nobody waits for yet.
    pub ahead: usize,
}

impl FileSystem {
    /// Waits for work, `hold` at most. `held`: numbers of what the worker has. Gives the turn of the next Take, too. One whose turn it
    /// is not changes nothing and is answered at once: what it says may be older than what was given since.
    pub async fn take(
        self: &Arc<Self>,
        session: SessionId,
        turn: u64,
        capacity: Capacity,
        held: &[u64],
        hold: Duration,
    ) -> FsResult<(Vec<Assignment>, u64)> {
        self.touch(session)?;
        self.know_worker(session).await?;
        self.settle_opened().await?;
        let next = match self.shared.repositories.lock().turn(session, turn) {
            Ok(next) => next,
            Err(now) => return Ok((Vec::new(), now)),
        };
        Ok((self.take_in_turn(session, next, capacity, held, hold).await?, next))
    }

    async fn take_in_turn(
        self: &Arc<Self>,
        session: SessionId,
        next: u64,
        Capacity { max, mut ahead }: Capacity,
        held: &[u64],
        hold: Duration,
    ) -> FsResult<Vec<Assignment>> {
        let until = Instant::now() + hold;
        self.shared.repositories.lock().held(session, held, Instant::now());
        let mut given = Vec::new();
        loop {
            let told = self.shared.repositories.work.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            if !self.shared.repositories.lock().is_next_turn(session, next) {
                // The worker has asked again: nobody hears this answer.
                return Ok(given);
            }
            self.start_due_syncs().await?;
            while given.len() < max {
                self.refill_exports().await;
                let stamp = self.stamp().await?;
                let mut picked = Vec::new();
                while given.len() + picked.len() < max {
                    let Some(task) = self.pick(session, stamp, ahead > 0)? else { break };
                    ahead -= usize::from(matches!(task.1, Task::Fetch { urgent: false, .. }));
                    picked.push(task);
                }
                if picked.is_empty() {
                    break;
                }
                // At once, so that few commits carry what they change.
                let assigned = picked.into_iter().map(|(number, task)| self.assign(number, stamp, task));
                for assignment in join_all(assigned).await {
                    given.extend(assignment?);
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if !given.is_empty() || left.is_zero() {
                return Ok(given);
            }
            let due = self.shared.repositories.lock().next_due();
            let due = due.map_or(LOOK_AGAIN, |at| at.saturating_duration_since(Instant::now()));
            // Whatever ends first, the next look decides.
            let _ = tokio::time::timeout(left.min(due).clamp(Duration::from_millis(1), LOOK_AGAIN), told).await;
        }
    }

    /// Something to do for a session. One that is being ended gets nothing any more.
    fn pick(&self, session: SessionId, stamp: u64, ahead: bool) -> FsResult<Option<(u64, Task)>> {
        let clients = self.shared.clients.lock();
        if !clients.is_alive(session) {
            return Err(FsError::new(FsCode::Stale, format!("session {session} does not exist any more")));
        }
        Ok(self.shared.repositories.lock().pick(session, stamp, ahead, Instant::now()))
    }

    /// A restart of the server must know which sessions may be writing, so they are recorded before they are given anything.
    pub(super) async fn know_worker(&self, session: SessionId) -> FsResult<()> {
        if self.shared.repositories.workers.lock().contains(&session) {
            return Ok(());
        }
        if self.shared.clients.lock().writer(session) == 0 {
            return Err(FsError::new(FsCode::Invalid, format!("session {session} has no writer"))
                .with_hint("a worker opens its session with a writer, so that it can be shut out at the OSTs"));
        }
        self.change(Change::Worker { session }).await?;
        self.shared.repositories.workers.lock().insert(session);
        Ok(())
    }

    /// What a worker needs to do what was picked for it; `None` if there is nothing to do after all.
    async fn assign(&self, number: u64, stamp: u64, task: Task) -> FsResult<Option<Assignment>> {
        match task {
            Task::Check(id) | Task::Watch(id) => {
                let work = if matches!(task, Task::Check(_)) { Work::Check } else { Work::Watch };
                let found = self.ask(move |tx| repository::get(tx, id)).await;
                let link = self.unless_gone(number, found)?;
                if let (Some(link), Work::Check) = (&link, &work) {
                    self.shared.repositories.lock().looks_with(id, &link.settings);
                }
                Ok(link.map(|link| Assignment { number, repository: id, settings: link.settings, work, stamp }))
            }
            Task::Import(id, run) => {
                let found = self.ask(move |tx| repository::get(tx, id)).await;
                let Some(link) = self.unless_gone(number, found)? else { return Ok(None) };
                if link.run != run || !matches!(link.import.state, ImportState::Queued | ImportState::Running) {
                    self.shared.repositories.lock().done(number);
                    self.reload_jobs(id).await?;
                    return Ok(None);
                }
                let (settings, work) = (link.settings, Work::Import { left: link.left, sync: link.sync != Sync::No });
                Ok(Some(Assignment { number, repository: id, settings, work, stamp }))
            }
            Task::Fetch { fid, range, urgent } => Ok(self.assign_fetch((number, stamp), fid, range, urgent).await),
            Task::Export(item) => Ok(self.assign_export((number, stamp), *item).await),
            Task::Report(id, task) => {
                let found = self.ask(move |tx| repository::get(tx, id)).await;
                let Some(link) = self.unless_gone(number, found)? else { return Ok(None) };
                let key = self.report_key(task).await;
                let Some(key) = self.unless_gone(number, key)?.flatten() else {
                    let mut table = self.shared.repositories.lock();
                    table.done(number);
                    table.forget_report(task);
                    return Ok(None);
                };
                let work = Work::Report { task, key };
                Ok(Some(Assignment { number, repository: id, settings: link.settings, work, stamp }))
            }
        }
    }

    /// A link, unless it was ended meanwhile.
    fn unless_gone<T>(&self, number: u64, found: FsResult<T>) -> FsResult<Option<T>> {
        match found {
            Ok(found) => Ok(Some(found)),
            Err(e) => {
                self.shared.repositories.lock().done(number);
                if e.code == FsCode::NotFound { Ok(None) } else { Err(e) }
            }
        }
    }

    /// The range is reserved: from here on nobody destroys the file or gives up its data. Whether it is still to be loaded is
    /// looked up only now.
    async fn assign_fetch(
        &self,
        (number, stamp): (u64, u64),
        fid: Fid,
        range: Extent,
        urgent: bool,
    ) -> Option<Assignment> {
        let table = || self.shared.repositories.lock();
        if self.shared.clients.lock().is_claimed(fid) {
            table().give_back(number, true, Instant::now());
            return None;
        }
        let prepared = match self.ask(move |tx| repository::prepared(tx, fid)).await {
            Ok(Some(p)) if p.layout.is_instantiated(range.start, range.end - range.start) => Ok(Some(p)),
            Ok(Some(_)) => match self.change(Change::Prepare { fid, range }).await {
                Ok(Answer::Prepared(prepared)) => Ok(prepared.map(|p| *p)),
                Ok(_) => Err(unexpected()),
                Err(e) => Err(e),
            },
            other => other,
        };
        match prepared {
            // A worker that waited for the OST would have no place left for what others wait for.
            Ok(Some(p)) if !self.are_up(&p.layout, range) => {
                table().give_back(number, true, Instant::now());
                None
            }
            Ok(Some(p)) if p.remote.missing(range) == [range] && p.remote.chunks(range) == range => Some(Assignment {
                number,
                repository: p.hsm.repository,
                settings: p.settings,
                work: Work::Fetch(Fetch {
                    fid,
                    key: p.hsm.key,
                    etag: p.hsm.etag,
                    range,
                    layout: p.layout,
                    size: p.hsm.size,
                    urgent,
                }),
                stamp,
            }),
            Ok(Some(p)) => {
                table().correct(number, &p.remote);
                None
            }
            Ok(None) => {
                table().loaded(number, None);
                None
            }
            Err(e) if e.code.is_retryable() => {
                table().give_back(number, true, Instant::now());
                None
            }
            Err(e) if e.code == FsCode::NoSpace && self.make_room(None).await => {
                table().give_back(number, true, Instant::now());
                None
            }
            Err(e) => {
                tracing::warn!(fs = %self.info.name, %fid, "a file cannot be loaded: {e}");
                table().failed(number, &e, Instant::now());
                None
            }
        }
    }

    /// The range of a fetch is stored: readers need not wait until it is durable.
    pub fn filled(&self, session: SessionId, number: u64, verifiers: Vec<(OstIndex, Verifier)>) -> FsResult<()> {
        self.touch(session)?;
        if self.shared.repositories.lock().fill(session, number, verifiers) { Ok(()) } else { Err(not_yours(number)) }
    }

    /// What came of an assignment.
    pub async fn finish(self: &Arc<Self>, session: SessionId, number: u64, outcome: Outcome) -> FsResult<()> {
        self.touch(session)?;
        let fits = |task: &Task| {
            matches!(
                (task, &outcome),
                (Task::Check(_), Outcome::Check { .. })
                    | (Task::Import(..), Outcome::Import { .. })
                    | (Task::Watch(_), Outcome::Watch { .. })
                    | (Task::Fetch { .. }, Outcome::Fetch(_))
                    | (Task::Report(..), Outcome::Report { .. })
            ) || match (task, &outcome) {
                (Task::Export(item), Outcome::Export(_)) => matches!(item.what, Waits::File(_)),
                (Task::Export(item), Outcome::Delete(_)) => matches!(item.what, Waits::Delete { .. }),
                (Task::Export(_), Outcome::Look(_)) => true,
                _ => false,
            }
        };
        let task = match self.shared.repositories.lock().begin_finish(session, number, fits) {
            Ok(task) => task,
            Err(true) => return Ok(()),
            Err(false) => return Err(not_yours(number)),
        };
        let fs = Arc::clone(self);
        // To its end, also if the worker goes away: until then nobody else is given it.
        let run = tokio::spawn(async move { fs.take_report(number, task, outcome).await });
        run.await.map_err(|e| FsError::new(FsCode::Internal, format!("a report of {number} failed: {e}")))?
    }

    async fn take_report(&self, number: u64, task: Task, outcome: Outcome) -> FsResult<()> {
        self.shared.repositories.faults.count(&outcome);
        if may_be_the_store(&outcome) {
            self.shared.repositories.lock().doubt(&task, Instant::now());
        }
        match (task, outcome) {
            (Task::Check(id), Outcome::Check { message }) => self.checked(number, id, message).await,
            (Task::Import(id, run), Outcome::Import { message }) => {
                tracing::warn!(fs = %self.info.name, %id, message, "an import cannot go on");
                let failed = self.change(Change::ImportFailed { id, run, message }).await;
                let reloaded = self.reload_jobs(id).await;
                self.shared.repositories.lock().done(number);
                self.shared.repositories.tell();
                failed.map(drop).or_else(gone_is_done).and(reloaded)
            }
            (Task::Watch(id), Outcome::Watch { message }) => {
                tracing::warn!(fs = %self.info.name, %id, message, "a bucket cannot be watched");
                self.shared.repositories.watched.lock().insert(id, (Timestamp::now(), message));
                self.shared.repositories.lock().cannot_watch(number, Instant::now());
                self.shared.repositories.tell();
                Ok(())
            }
            (Task::Fetch { fid, range, .. }, Outcome::Fetch(outcome)) => {
                let reported = self.fetched(number, fid, range, outcome).await;
                self.shared.repositories.tell();
                // It may have lost its last name meanwhile.
                self.drop_orphans(vec![fid]).await?;
                reported
            }
            (Task::Report(_, task), Outcome::Report { message }) => self.report_finished(number, task, message).await,
            (Task::Export(item), Outcome::Export(outcome)) => self.export_finished(number, &item, outcome).await,
            (Task::Export(item), Outcome::Delete(outcome)) => self.deletion_finished(number, &item, outcome).await,
            (Task::Export(item), Outcome::Look(outcome)) => self.looked(number, &item, outcome).await,
            _ => Err(FsError::new(FsCode::Internal, "a report that does not fit its assignment was taken")),
        }
    }

    async fn checked(&self, number: u64, id: RepositoryId, message: String) -> FsResult<()> {
        if !message.is_empty() {
            tracing::warn!(fs = %self.info.name, %id, message, "a repository cannot be used");
        }
        let with = self.shared.repositories.lock().has_looked(id, Instant::now());
        let checked = self.change(Change::Checked { id, message, with }).await;
        let reloaded = self.reload_jobs(id).await;
        self.shared.repositories.lock().done(number);
        self.shared.repositories.tell();
        checked.map(drop).or_else(gone_is_done).and(reloaded)
    }

    /// A range is durable. The object that it came from may have another ETag by now: it was copied to another name, or stored
    /// anew with the same data. Nothing else can have become of it: nobody gives up or replaces data while a range of it is out.
    pub(super) async fn record_loaded(
        &self,
        fid: Fid,
        range: Extent,
        mut etag: String,
        allocated_delta: i64,
    ) -> FsResult<Answer> {
        for _ in 0..LOADED_TRIES {
            let change = Change::Loaded { fid, etag: etag.clone(), range, allocated_delta };
            match self.change(change).await {
                Err(e) if e.code == FsCode::Stale => {}
                answer => return answer,
            }
            match self.ask(move |tx| repository::hsm(tx, fid)).await? {
                Some(row) if row.etag != etag => etag = row.etag,
                _ => break,
            }
        }
        Err(FsError::new(FsCode::Unavailable, format!("the object of {fid} does not stay the same")))
    }

    async fn fetched(&self, number: u64, fid: Fid, range: Extent, outcome: FetchOutcome) -> FsResult<()> {
        let row = self.ask(move |tx| repository::hsm(tx, fid)).await;
        let row = match row {
            Ok(Some(row)) => row,
            // The file is gone, or cannot be read: then nobody is served by what was fetched.
            other => {
                self.shared.repositories.lock().loaded(number, None);
                return other.map(drop);
            }
        };
        let key = String::from_utf8_lossy(&row.key).into_owned();
        let why = match outcome.result {
            FetchResult::Loaded => {
                let answer = self.record_loaded(fid, range, row.etag, outcome.allocated_delta).await;
                let mut table = self.shared.repositories.lock();
                return match answer {
                    Ok(Answer::Remote(remote)) => {
                        table.loaded(number, remote.as_ref());
                        Ok(())
                    }
                    Ok(_) => Err(unexpected()),
                    Err(e) => {
                        table.failed(number, &e, Instant::now());
                        Err(e)
                    }
                };
            }
            FetchResult::Changed | FetchResult::Gone
                if self.shared.repositories.lock().was_given_before(number, row.stamp) =>
            {
                // It was stored elsewhere, or anew, from here: there it is fetched from.
                self.shared.repositories.lock().give_back(number, false, Instant::now());
                return Ok(());
            }
            // If that cannot be told, it is found out by the next one who asks.
            FetchResult::Changed | FetchResult::Gone if self.is_unsettled(&row).await.unwrap_or(true) => {
                // It may have been stored anew, and nobody has heard of it yet.
                self.shared.repositories.lock().give_back(number, true, Instant::now());
                return Ok(());
            }
            FetchResult::Changed | FetchResult::Gone => {
                let lost = Change::Lost { fid, etag: row.etag };
                if let Err(e) = self.change(lost).await {
                    tracing::warn!(fs = %self.info.name, %fid, "cannot record that an object is lost: {e}");
                }
                // All of it cannot be had: whoever asked for that must ask again.
                if let Err(e) = self.change(Change::RestoreFailed { fid }).await {
                    tracing::warn!(fs = %self.info.name, %fid, "cannot record that a file is not loaded: {e}");
                }
                self.shared.repositories.lock().forget_restore(fid);
                let gone = outcome.result == FetchResult::Gone;
                if gone { "the object is gone" } else { "another object has taken its place since the import" }
            }
            FetchResult::NoSpace if self.make_room(Some(fid)).await => {
                self.shared.repositories.lock().give_back(number, true, Instant::now());
                return Ok(());
            }
            FetchResult::NoSpace | FetchResult::Failed => outcome.message.as_str(),
        };
        let what = format!("bytes {} to {} of {fid} cannot be loaded from {key:?}: {why}", range.start, range.end);
        tracing::warn!(fs = %self.info.name, "{what}");
        let hint = match outcome.result {
            FetchResult::Changed | FetchResult::Gone => "import the repository again: sateen repo import",
            FetchResult::NoSpace => "release files, or have that done: sateen repo auto-release",
            _ => "see the log of sateen-dra-sync",
        };
        let code = if outcome.result == FetchResult::NoSpace { FsCode::NoSpace } else { FsCode::Io };
        let error = FsError::new(code, what).with_hint(hint);
        self.shared.repositories.lock().failed(number, &error, Instant::now());
        Ok(())
    }
}

impl FileSystem {
    /// Whether every OST that has a part of the range is heard of.
    fn are_up(&self, layout: &Layout, range: Extent) -> bool {
        let osts = self.shared.registry.read().candidates();
        let mut wanted =
            layout.components.iter().filter(|c| c.extent.overlaps(range.start, range.end)).flat_map(|c| &c.osts);
        wanted.all(|ost| osts.iter().any(|known| known.index == *ost && known.up))
    }
}

/// A link that was ended needs no report.
fn gone_is_done(e: FsError) -> FsResult<()> {
    if e.code == FsCode::NotFound { Ok(()) } else { Err(e) }
}
