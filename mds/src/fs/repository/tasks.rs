//! Tasks as the server runs them: one at a time, step by step ([`FileSystem::step_tasks`], called by a worker of the server). A step is a
//! change of the tables; between two of them nothing is known but what is there.

use std::time::{Duration, Instant};

use sateen_types::limits::{REPORT_PAGE_BYTES_MAX, REPOSITORY_MESSAGE_BYTES_MAX};
use sateen_types::repository::{FILE_FAILED, RepositoryState, Task, TaskId, TaskKind, TaskSpec, TaskState, csv_line};
use sateen_types::{Fid, FsCode, FsResult, RepositoryId, SessionId, Timestamp};

use super::{not_yours, unexpected};
use crate::fs::FileSystem;
use crate::namespace::repository::tasks::{self, Settled, TaskChange, Told, UNDER_WAY_MAX};
use crate::namespace::repository::{self, Answer, Change, export};
use crate::store::ReadTxn;
use crate::store::records::{TaskPhase, TaskRecord};

/// Until what is under way is looked at again.
const LOOK: Duration = Duration::from_millis(100);
/// Until somebody starts a task.
const IDLE: Duration = Duration::from_secs(60);
/// Until files that were in use are tried again.
const USED_AGAIN: Duration = Duration::from_millis(500);
/// A file that could not be loaded so often in a row is given up by the task.
const LOAD_FAILURES_MAX: u32 = 6;
/// A file that is open for writing for so long is given up by the task; it is exported when it is closed.
const OPEN_MAX: Duration = Duration::from_secs(60);
/// A file that waits for so long for a store that does not work is given up by the task; it is exported when that works again.
const STORE_MAX: Duration = Duration::from_secs(600);
/// Attempts to write a report.
const REPORT_ATTEMPTS_MAX: u32 = 10;
/// Lines of a report that are read at once.
const REPORT_LINES: usize = 4096;

/// A file that others are at work on: since when, in the queue of which link, and what came of it.
type UnderWay = (Fid, Timestamp, Option<RepositoryId>, Option<Settled>);

fn files(tx: &dyn ReadTxn, id: TaskId, kind: TaskKind) -> FsResult<Vec<UnderWay>> {
    let look = |(fid, row): (Fid, crate::store::records::UnderWayRecord)| {
        let link = if kind == TaskKind::Export { export::waiting(tx, fid)?.map(|w| w.repository) } else { None };
        Ok((fid, row.since, link, tasks::look(tx, kind, fid)?))
    };
    tasks::under_way(tx, id)?.into_iter().map(look).collect()
}

/// Since a time of the clock.
fn since(at: Timestamp) -> Duration {
    let seconds = Timestamp::now().seconds.saturating_sub(at.seconds);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

impl FileSystem {
    async fn task_change(&self, change: TaskChange) -> FsResult<Told> {
        let Answer::Task(told) = self.change(Change::Task(change)).await? else { return Err(unexpected()) };
        {
            let mut table = self.shared.repositories.lock();
            told.forgotten.iter().for_each(|fid| table.forget(*fid));
            for (fid, link, remote) in &told.restores {
                if let Err(e) = table.restore(*fid, *link, remote, Instant::now()) {
                    // It is looked at again, when some are loaded.
                    tracing::debug!(%fid, "not loaded yet: {e}");
                    break;
                }
            }
        }
        if !told.forgotten.is_empty() || !told.restores.is_empty() {
            self.shared.repositories.tell();
        }
        if let Some(link) = told.link {
            self.reload_jobs(link).await?;
        }
        Ok(*told)
    }

    // ---- for administrators ----

    /// Queues a task.
    pub async fn start_task(&self, spec: TaskSpec) -> FsResult<Task> {
        let told = self.task_change(TaskChange::Start { spec }).await?;
        let task = *told.task.ok_or_else(unexpected)?;
        tracing::info!(fs = %self.info.name, id = %task.id, kind = %task.spec.kind, "a task was made");
        self.shared.repositories.tasks.notify_one();
        Ok(task)
    }

    /// One task.
    pub async fn task(&self, id: TaskId) -> FsResult<Task> {
        self.read(move |tx| tasks::get(tx, id)).await
    }

    /// Every task, with its first path only.
    pub async fn tasks(&self) -> FsResult<Vec<Task>> {
        self.read(tasks::list).await
    }

    /// Ends a task early.
    pub async fn cancel_task(&self, id: TaskId) -> FsResult<Task> {
        let told = self.task_change(TaskChange::Cancel { id }).await?;
        self.shared.repositories.tasks.notify_one();
        told.task.map(|task| *task).ok_or_else(unexpected)
    }

    // ---- at work ----

    /// Waits until there may be a step to take, `pause` at most.
    pub async fn tasks_told(&self, pause: Duration) {
        // Either way the next look decides.
        let _ = tokio::time::timeout(pause, self.shared.repositories.tasks.notified()).await;
    }

    /// Does the next step of the task whose turn it is. Gives how long there is nothing to do.
    pub async fn step_tasks(&self) -> FsResult<Duration> {
        let Some((id, record)) = self.ask(tasks::current).await? else { return Ok(IDLE) };
        match (record.state, record.phase) {
            (TaskState::Pending, _) => {
                self.task_change(TaskChange::Begin { id }).await?;
                Ok(Duration::ZERO)
            }
            (TaskState::Canceling, _) | (TaskState::Executing, TaskPhase::Closing) => self.close_task(id).await,
            (TaskState::Executing, TaskPhase::Reporting) => self.report_task(id, &record).await,
            (TaskState::Executing, TaskPhase::Working) if record.kind == TaskKind::Import => {
                let told = self.task_change(TaskChange::Import { id }).await?;
                if told.wait {
                    return Ok(LOOK);
                }
                let (todo, _) = self.ask(move |tx| tasks::left(tx, id)).await?;
                if !todo {
                    self.task_change(TaskChange::Worked { id }).await?;
                }
                Ok(Duration::ZERO)
            }
            (TaskState::Executing, TaskPhase::Working) => self.step_files(id, record.kind).await,
            (TaskState::Succeeded | TaskState::Failed | TaskState::Canceled, _) => Ok(IDLE),
        }
    }

    async fn step_files(&self, id: TaskId, kind: TaskKind) -> FsResult<Duration> {
        let mut settled = Vec::new();
        if kind == TaskKind::Release {
            return self.step_release(id).await;
        }
        for (fid, from, link, found) in self.read(move |tx| files(tx, id, kind)).await? {
            let found = match found {
                None if kind == TaskKind::Restore => self.given_up_loading(fid).await?,
                None => link.and_then(|link| self.given_up_exporting(fid, link, since(from))),
                found => found,
            };
            settled.extend(found.map(|found| (fid, found)));
        }
        let any = !settled.is_empty();
        if any {
            self.task_change(TaskChange::Settle { id, settled }).await?;
        }
        let (todo, under_way) = self.ask(move |tx| tasks::left(tx, id)).await?;
        if todo && under_way < UNDER_WAY_MAX {
            self.task_change(TaskChange::Page { id }).await?;
            return Ok(Duration::ZERO);
        }
        if !todo && under_way == 0 {
            self.task_change(TaskChange::Worked { id }).await?;
            return Ok(Duration::ZERO);
        }
        Ok(if any { Duration::ZERO } else { LOOK })
    }

    async fn step_release(&self, id: TaskId) -> FsResult<Duration> {
        // After a restart nobody knows yet what is open.
        let known = !self.shared.clients.lock().is_recovering() && self.shared.repositories.lock().is_settled();
        if !known {
            return Ok(LOOK);
        }
        let (todo, used) = self.ask(move |tx| tasks::left(tx, id)).await?;
        let change = match (todo && used < UNDER_WAY_MAX, used) {
            (true, _) => TaskChange::Page { id },
            (false, 0) => TaskChange::Worked { id },
            (false, _) => TaskChange::Retry { id },
        };
        let pause = if matches!(change, TaskChange::Retry { .. }) { USED_AGAIN } else { Duration::ZERO };
        self.task_change(change).await?;
        Ok(pause)
    }

    /// A file that is to be loaded in full and is not.
    async fn given_up_loading(&self, fid: Fid) -> FsResult<Option<Settled>> {
        let (failures, loading) = {
            let table = self.shared.repositories.lock();
            (table.failures(fid), table.is_loading(fid))
        };
        if failures >= LOAD_FAILURES_MAX {
            return Ok(Some(Settled::Failed(tasks::CODE_STORE)));
        }
        if !loading {
            // There was no room for it, or somebody has cut it meanwhile.
            let rows = self.ask(move |tx| Ok((repository::hsm(tx, fid)?, repository::loads(tx, fid)?))).await?;
            if let (Some(row), Some(load)) = rows {
                let wanted = {
                    let mut table = self.shared.repositories.lock();
                    table.restore(fid, row.repository, &load.remote, Instant::now())
                };
                match wanted {
                    Ok(()) => self.shared.repositories.tell(),
                    Err(e) if e.code == FsCode::Busy => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(None)
    }

    /// A file that waits for export.
    fn given_up_exporting(&self, fid: Fid, link: RepositoryId, waits: Duration) -> Option<Settled> {
        if waits > OPEN_MAX && self.shared.is_written(fid) {
            return Some(Settled::Failed(tasks::CODE_BUSY));
        }
        let state = self.shared.repositories.seen.lock().get(&link).map(|seen| seen.state);
        let works = state == Some(RepositoryState::Available)
            && self.shared.repositories.lock().exports.status(link).message.is_empty();
        (waits > STORE_MAX && !works).then_some(Settled::Failed(tasks::CODE_STORE))
    }

    async fn close_task(&self, id: TaskId) -> FsResult<Duration> {
        self.shared.repositories.lock().forget_report(id);
        self.task_change(TaskChange::Close { id }).await?;
        let task = self.task(id).await?;
        if task.state.is_over() {
            tracing::info!(fs = %self.info.name, %id, kind = %task.spec.kind, state = %task.state, counts = ?task.counts,
                message = task.message, "a task is over");
        }
        Ok(Duration::ZERO)
    }

    // ---- reports ----

    async fn report_task(&self, id: TaskId, record: &TaskRecord) -> FsResult<Duration> {
        let link = record.report.as_ref().map(|(link, _)| *link);
        let known = match link {
            Some(link) => self.ask(move |tx| repository::get(tx, link)).await.map(|_| link),
            None => return Err(unexpected()),
        };
        match known {
            Ok(link) => {
                if self.shared.repositories.lock().want_report(id, link, Instant::now()) {
                    self.shared.repositories.tell();
                }
                Ok(Duration::from_secs(1))
            }
            Err(e) if e.code == FsCode::NotFound => {
                self.task_change(TaskChange::Reported { id, message: e.message }).await?;
                Ok(Duration::ZERO)
            }
            Err(e) => Err(e),
        }
    }

    /// Where the report of a task goes; `None`: it is not to be written any more.
    pub(super) async fn report_key(&self, id: TaskId) -> FsResult<Option<Vec<u8>>> {
        let found = self.ask(tasks::current).await?;
        let mine = found.filter(|(current, r)| *current == id && r.phase == TaskPhase::Reporting);
        Ok(mine.filter(|(_, r)| r.state == TaskState::Executing).and_then(|(_, r)| r.report).map(|(_, key)| key))
    }

    /// Lines of the report that a worker writes, behind a line; the last of them, and whether more follow.
    pub async fn read_report(&self, session: SessionId, number: u64, after: u64) -> FsResult<(Vec<u8>, u64, bool)> {
        self.touch(session)?;
        let id = self.shared.repositories.lock().report_of(session, number).ok_or_else(|| not_yours(number))?;
        self.read(move |tx| {
            let rows = tasks::failures(tx, id, after, REPORT_LINES)?;
            let (mut lines, mut last, count) = (Vec::new(), after, rows.len());
            for (i, (at, row)) in rows.into_iter().enumerate() {
                csv_line(&mut lines, &row.path, FILE_FAILED, &row.code);
                last = at;
                if lines.len() >= REPORT_PAGE_BYTES_MAX {
                    return Ok((lines, last, i + 1 < count || count == REPORT_LINES));
                }
            }
            Ok((lines, last, count == REPORT_LINES))
        })
        .await
    }

    /// What came of writing a report.
    pub(super) async fn report_finished(&self, number: u64, id: TaskId, message: String) -> FsResult<()> {
        if message.is_empty() {
            let reported = self.task_change(TaskChange::Reported { id, message }).await;
            {
                let mut table = self.shared.repositories.lock();
                table.done(number);
                if reported.is_ok() {
                    table.forget_report(id);
                }
            }
            self.shared.repositories.tasks.notify_one();
            return reported.map(drop);
        }
        tracing::warn!(fs = %self.info.name, %id, message, "a report cannot be written");
        let failures = self.shared.repositories.lock().report_failed(number, Instant::now());
        if failures >= REPORT_ATTEMPTS_MAX {
            let mut message = message;
            message.truncate(message.floor_char_boundary(REPOSITORY_MESSAGE_BYTES_MAX));
            self.task_change(TaskChange::Reported { id, message }).await?;
            self.shared.repositories.lock().forget_report(id);
            self.shared.repositories.tasks.notify_one();
        }
        Ok(())
    }
}
