//! Tasks in the tables: what is asked for, how far it is, what is left. Everything that a task does is a change of its own, with the
//! place to go on from in the same transaction, so that the server may die anywhere; who makes these changes, and when, is decided in
//! [`crate::fs::repository`].
//!
//! - [`start`] queues tasks, begins them (paths become directories to walk, or imports), and removes those that are old.
//! - [`page`] looks at the next names; what is to be done for a file is done, or noted where others do it.
//! - [`settle`] finds out what became of files that others were at work on.
//! - [`import`] limits imports to what a task is about, and counts what they find.
//!
//! The invariant: at most one task is neither waiting nor over, and a task that is over has no rows but its own two.

mod import;
mod page;
mod settle;
mod start;

use sateen_types::limits::{REPORT_BYTES_MAX, REPOSITORY_MESSAGE_BYTES_MAX};
use sateen_types::repository::{AutoRelease, Task, TaskId, TaskKind, TaskSpec, TaskState};
use sateen_types::{Fid, FsCode, FsError, FsResult, Remote, RepositoryId};

use super::{links, load};
use crate::command::Inputs;
use crate::namespace::read::paths_of;
use crate::store::codec::Record;
use crate::store::keys::tasks as keys;
use crate::store::records::{
    AutoReleaseRecord, FailureRecord, TaskPhase, TaskRecord, TaskSpecRecord, TodoRecord, UnderWayRecord,
};
use crate::store::{ReadTxn, Table, Txn};

pub use import::{Scope, imported, scope};
pub use page::{directories, victims};
pub(super) use page::{last_use, may_release};
pub use settle::look;

/// Tasks that are read at once: more than there are.
const TASKS_MAX: usize = 4096;
/// Rows that are removed in one transaction.
const CLOSE_PAGE: usize = 1000;
/// Files that others are at work on at a time.
pub const UNDER_WAY_MAX: usize = 1024;

/// FSx's code of a file that somebody uses.
pub const CODE_BUSY: &str = "ResourceBusy";
/// FSx's code of what the store did not do.
pub const CODE_STORE: &str = "S3Error";
/// FSx's code of an object that is not there any more, or is another one.
pub const CODE_GONE: &str = "S3ObjectNotFound";
/// FSx's code of what should not be.
pub const CODE_INTERNAL: &str = "INTERNAL_ERROR";
/// FSx's code of a key that is too long.
pub const CODE_PATH: &str = "PathSizeTooLong";
/// FSx's code of a file that is too large.
pub const CODE_SIZE: &str = "FileSizeTooLarge";
/// FSx's word for a full disk.
pub const CODE_SPACE: &str = "NoDiskSpace";
/// Both sides have changed. (FSx has no such thing.)
pub const CODE_CONFLICT: &str = "ObjectConflict";

/// A change of tasks.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields are named for what they are")]
pub enum TaskChange {
    /// Queues one.
    Start { spec: TaskSpec },
    /// Ends one early.
    Cancel { id: TaskId },
    /// It is its turn.
    Begin { id: TaskId },
    /// Looks at the next names.
    Page { id: TaskId },
    /// Tries those again that were in use.
    Retry { id: TaskId },
    /// What became of files that others were at work on.
    Settle { id: TaskId, settled: Vec<(Fid, Settled)> },
    /// Looks how far the next import is.
    Import { id: TaskId },
    /// Nothing is left to do: its report is next, if it has one.
    Worked { id: TaskId },
    /// The report is there; or why it cannot be.
    Reported { id: TaskId, message: String },
    /// Removes some of what is left of it.
    Close { id: TaskId },
    /// Removes those that are old.
    Expire,
    /// Says when files are released by themselves.
    SetAutoRelease(AutoRelease),
}

/// What became of a file that others were at work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is done, with so many bytes.
    Done(u64),
    /// It is not: a code for the report.
    Failed(&'static str),
    /// There is no such file any more.
    Left,
}

/// The answer to a [`TaskChange`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The task, where one was asked for or changed by somebody.
    pub task: Option<Box<Task>>,
    /// Files to load in full.
    pub restores: Vec<(Fid, RepositoryId, Remote)>,
    /// Files of which nothing is wanted any more.
    pub forgotten: Vec<Fid>,
    /// A link whose import has changed.
    pub link: Option<RepositoryId>,
    /// Somebody else has to do something first.
    pub wait: bool,
}

/// Applies a change.
pub fn apply(tx: &mut dyn Txn, change: &TaskChange, inputs: &Inputs) -> FsResult<Told> {
    match change {
        TaskChange::Start { spec } => start::start(tx, spec, inputs).map(Told::of),
        TaskChange::Cancel { id } => start::cancel(tx, *id, inputs).map(Told::of),
        TaskChange::Begin { id } => start::begin(tx, *id, inputs),
        TaskChange::Page { id } => page::page(tx, *id, inputs),
        TaskChange::Retry { id } => page::retry(tx, *id, inputs),
        TaskChange::Settle { id, settled } => settle::settle(tx, *id, settled, inputs),
        TaskChange::Import { id } => import::step(tx, *id, inputs),
        TaskChange::Worked { id } => {
            let Some(mut record) = working(tx, *id)? else { return Ok(Told::default()) };
            record.phase = if record.report.is_some() { TaskPhase::Reporting } else { TaskPhase::Closing };
            put(tx, *id, record, inputs);
            Ok(Told::default())
        }
        TaskChange::Reported { id, message } => {
            let Some(mut record) = find(tx, *id)?.filter(|r| r.phase == TaskPhase::Reporting) else {
                return Ok(Told::default());
            };
            if record.state == TaskState::Executing {
                record.phase = TaskPhase::Closing;
                if !message.is_empty() {
                    record.message = cut(format!("the report cannot be written: {message}"));
                }
                put(tx, *id, record, inputs);
            }
            Ok(Told::default())
        }
        TaskChange::Close { id } => close(tx, *id, inputs),
        TaskChange::Expire => start::expire(tx, inputs).map(|()| Told::default()),
        TaskChange::SetAutoRelease(marks) => {
            tx.put(Table::Tasks, keys::AUTO_RELEASE.to_vec(), AutoReleaseRecord(*marks).to_bytes());
            Ok(Told::default())
        }
    }
}

impl Told {
    fn of(task: Task) -> Told {
        Told { task: Some(Box::new(task)), ..Told::default() }
    }
}

// ---- rows ----

fn find(tx: &dyn ReadTxn, id: TaskId) -> FsResult<Option<TaskRecord>> {
    tx.get(Table::Tasks, &keys::task(id))?.map(|v| TaskRecord::from_bytes(&v)).transpose()
}

/// A task that goes on, in its first phase.
fn working(tx: &dyn ReadTxn, id: TaskId) -> FsResult<Option<TaskRecord>> {
    Ok(find(tx, id)?.filter(|r| r.state == TaskState::Executing && r.phase == TaskPhase::Working))
}

fn put(tx: &mut dyn Txn, id: TaskId, mut record: TaskRecord, inputs: &Inputs) {
    record.updated = inputs.now;
    tx.put(Table::Tasks, keys::task(id), record.to_bytes());
}

/// A task that changes its state.
fn become_state(record: &mut TaskRecord, id: TaskId, next: TaskState) -> FsResult<()> {
    if !record.state.may_become(next) {
        return Err(FsError::new(FsCode::Invalid, format!("{id} is {} and cannot become {next}", record.state)));
    }
    record.state = next;
    Ok(())
}

fn missing(id: TaskId) -> FsError {
    FsError::new(FsCode::NotFound, format!("there is no {id}"))
        .with_hint("see those there are with: sateen repo task list FS; they are listed for 14 days")
}

/// A task as people see it, or `NotFound`.
pub fn get(tx: &dyn ReadTxn, id: TaskId) -> FsResult<Task> {
    let record = find(tx, id)?.ok_or_else(|| missing(id))?;
    Ok(record.show(id, spec(tx, id)?))
}

fn spec(tx: &dyn ReadTxn, id: TaskId) -> FsResult<TaskSpec> {
    let value = tx.get(Table::Tasks, &keys::spec(id))?.ok_or_else(|| missing(id))?;
    Ok(TaskSpecRecord::from_bytes(&value)?.0)
}

/// Every task, in the order in which they were made; without its paths.
pub fn all(tx: &dyn ReadTxn) -> FsResult<Vec<(TaskId, TaskRecord)>> {
    let rows = tx.scan(Table::Tasks, keys::TASK, None, TASKS_MAX)?;
    rows.iter().map(|(key, value)| Ok((keys::parse_task(key)?, TaskRecord::from_bytes(value)?))).collect()
}

/// Every task as people see it, each with its first path only.
pub fn list(tx: &dyn ReadTxn) -> FsResult<Vec<Task>> {
    let shown = |(id, record): (TaskId, TaskRecord)| {
        let mut spec = spec(tx, id)?;
        spec.paths.truncate(1);
        Ok(record.show(id, spec))
    };
    all(tx)?.into_iter().map(shown).collect()
}

/// The task that goes on, or the next one.
pub fn current(tx: &dyn ReadTxn) -> FsResult<Option<(TaskId, TaskRecord)>> {
    let waiting: Vec<_> = all(tx)?.into_iter().filter(|(_, r)| !r.state.is_over()).collect();
    let going = waiting.iter().find(|(_, r)| r.state != TaskState::Pending).cloned();
    Ok(going.or_else(|| waiting.into_iter().next()))
}

/// Whether names are left to be looked at, and how many files others are at work on.
pub fn left(tx: &dyn ReadTxn, id: TaskId) -> FsResult<(bool, usize)> {
    let todo = !tx.scan(Table::Tasks, &keys::todo(id), None, 1)?.is_empty();
    Ok((todo, tx.scan(Table::Tasks, &keys::under_way(id), None, UNDER_WAY_MAX + page::PAGE)?.len()))
}

/// Files that others are at work on, since when.
pub fn under_way(tx: &dyn ReadTxn, id: TaskId) -> FsResult<Vec<(Fid, UnderWayRecord)>> {
    let rows = tx.scan(Table::Tasks, &keys::under_way(id), None, UNDER_WAY_MAX + page::PAGE)?;
    rows.iter().map(|(key, value)| Ok((keys::parse_file(key)?, UnderWayRecord::from_bytes(value)?))).collect()
}

/// Lines of a report behind a number, at most `limit`.
pub fn failures(tx: &dyn ReadTxn, id: TaskId, after: u64, limit: usize) -> FsResult<Vec<(u64, FailureRecord)>> {
    let rows = tx.scan(Table::Tasks, &keys::failures(id), Some(&keys::failure(id, after)), limit)?;
    rows.iter().map(|(key, value)| Ok((keys::parse_number(key)?, FailureRecord::from_bytes(value)?))).collect()
}

/// When files are released by themselves.
pub fn auto_release(tx: &dyn ReadTxn) -> FsResult<AutoRelease> {
    let row = tx.get(Table::Tasks, keys::AUTO_RELEASE)?;
    Ok(row.map(|v| AutoReleaseRecord::from_bytes(&v)).transpose()?.map_or(AutoRelease::OFF, |r| r.0))
}

fn push_todo(tx: &mut dyn Txn, id: TaskId, record: &mut TaskRecord, todo: &TodoRecord) {
    record.next += 1;
    tx.put(Table::Tasks, keys::todo_item(id, record.next), todo.to_bytes());
}

// ---- what fails ----

fn cut(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(REPOSITORY_MESSAGE_BYTES_MAX));
    message
}

/// A file of the task was not done. Without a report only the first one is remembered.
fn note_failed(tx: &mut dyn Txn, id: TaskId, record: &mut TaskRecord, path: Vec<u8>, code: &str) {
    record.counts.failed += 1;
    if record.message.is_empty() {
        record.message = cut(format!("{code}: {}", String::from_utf8_lossy(&path)));
    }
    if record.report.is_none() {
        return;
    }
    let bytes = (path.len() + code.len()) as u64;
    if record.failed_bytes + bytes > REPORT_BYTES_MAX {
        record.message = format!("the report lists the first {REPORT_BYTES_MAX} bytes of paths only");
        return;
    }
    record.failed_bytes += bytes;
    record.next += 1;
    let row = FailureRecord { path, code: code.to_owned() };
    tx.put(Table::Tasks, keys::failure(id, record.next), row.to_bytes());
}

/// The path of a file from the root; of one without a name its number.
fn path_of(tx: &dyn ReadTxn, fid: Fid) -> Vec<u8> {
    match paths_of(tx, fid) {
        Ok(paths) => paths.into_iter().next().unwrap_or_default(),
        Err(_) => fid.to_string().into_bytes(),
    }
}

// ---- the end ----

/// Removes some of what is left; when nothing is, the task is over.
fn close(tx: &mut dyn Txn, id: TaskId, inputs: &Inputs) -> FsResult<Told> {
    let Some(mut record) = find(tx, id)?.filter(|r| !r.state.is_over()) else { return Ok(Told::default()) };
    let canceled = record.state == TaskState::Canceling;
    if !canceled && record.phase != TaskPhase::Closing {
        return Ok(Told::default());
    }
    let mut told = Told::default();
    let mut removed = 0;
    for (key, _) in tx.scan(Table::Tasks, &keys::under_way(id), None, CLOSE_PAGE)? {
        let fid = keys::parse_file(&key)?;
        if record.kind == TaskKind::Restore {
            load::forget_restore(tx, fid)?;
            told.forgotten.push(fid);
        }
        record.counts.total = record.counts.total.saturating_sub(1);
        record.counts.skipped += 1;
        tx.delete(Table::Tasks, key);
        removed += 1;
    }
    for (key, value) in tx.scan(Table::Tasks, &keys::todo(id), None, CLOSE_PAGE)? {
        if let TodoRecord::Import { link, run, .. } = TodoRecord::from_bytes(&value)?
            && run > 0
            && links::find(tx, link)?.is_some()
        {
            links::import_failed(tx, link, run, &format!("{id} was canceled"), inputs)?;
            tx.delete(Table::Tasks, keys::scope(link));
            told.link = Some(link);
        }
        tx.delete(Table::Tasks, key);
        removed += 1;
    }
    for (key, _) in tx.scan(Table::Tasks, &keys::failures(id), None, CLOSE_PAGE)? {
        tx.delete(Table::Tasks, key);
        removed += 1;
    }
    if removed == 0 {
        let failed = record.counts.failed > 0 || !record.message.is_empty();
        let next = match (canceled, failed) {
            (true, _) => TaskState::Canceled,
            (false, true) => TaskState::Failed,
            (false, false) => TaskState::Succeeded,
        };
        become_state(&mut record, id, next)?;
        record.ended = Some(inputs.now);
    }
    put(tx, id, record, inputs);
    Ok(told)
}
