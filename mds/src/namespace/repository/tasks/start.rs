//! Tasks are queued, begun and canceled, and go when they are old.

use sateen_types::limits::{KEY_BYTES_MAX, TASKS_KEPT_MAX, TASKS_KEPT_S, TASKS_PENDING_MAX};
use sateen_types::repository::{LinkPath, Task, TaskCounts, TaskId, TaskKind, TaskSpec, TaskState};
use sateen_types::{Fid, FileType, FsCode, FsError, FsResult, RepositoryId};

use super::{Told, all, become_state, cut, find, import, missing, push_todo, put, spec};
use crate::command::Inputs;
use crate::namespace::repository::links;
use crate::namespace::tree;
use crate::store::codec::Record;
use crate::store::keys::tasks as keys;
use crate::store::records::{TaskPhase, TaskRecord, TaskSpecRecord, TodoRecord};
use crate::store::{ReadTxn, Table, Txn};

/// Queues a task.
pub fn start(tx: &mut dyn Txn, wanted: &TaskSpec, inputs: &Inputs) -> FsResult<Task> {
    links::refuse_when_full(inputs)?;
    if links::all(tx)?.is_empty() {
        return Err(FsError::new(FsCode::Invalid, "the file system is linked to no repository")
            .with_hint("link a directory to a bucket first: sateen repo create"));
    }
    expire(tx, inputs)?;
    let tasks = all(tx)?;
    let pending = tasks.iter().filter(|(_, r)| !r.state.is_over()).count();
    if pending >= TASKS_PENDING_MAX {
        return Err(FsError::new(FsCode::Busy, format!("{pending} tasks wait, the most at a time"))
            .with_hint("wait until some are over, or cancel some: sateen repo task cancel"));
    }
    // Of the clock, so that two file systems that write reports to one bucket hardly ever have the same number; and rising.
    let clock = (inputs.now.seconds.max(1) as u64).saturating_mul(1_000_000) + u64::from(inputs.now.nanos / 1000);
    let id = TaskId(clock.max(tasks.last().map_or(0, |(last, _)| last.0 + 1)));
    let (report, report_url) = match &wanted.report {
        None => (None, String::new()),
        Some(path) => {
            let (link, key, url) = report_place(tx, path, id)?;
            (Some((link, key)), url)
        }
    };
    let record = TaskRecord {
        kind: wanted.kind,
        days: wanted.days,
        state: TaskState::Pending,
        phase: TaskPhase::Working,
        message: String::new(),
        counts: TaskCounts::default(),
        created: inputs.now,
        started: None,
        ended: None,
        updated: inputs.now,
        report,
        report_url,
        next: 0,
        failed_bytes: 0,
    };
    tx.put(Table::Tasks, keys::spec(id), TaskSpecRecord(wanted.clone()).to_bytes());
    put(tx, id, record.clone(), inputs);
    Ok(record.show(id, wanted.clone()))
}

/// Link, key and URL of the report of a task.
fn report_place(tx: &dyn ReadTxn, path: &LinkPath, id: TaskId) -> FsResult<(RepositoryId, Vec<u8>, String)> {
    for (link, record) in links::all(tx)? {
        let Some(below) = import::below(&record.settings.path, path) else { continue };
        let dir = if below.is_empty() { String::new() } else { format!("{below}/") };
        let key = format!("{dir}{id}/failures.csv");
        let url = format!("{}{key}", record.settings.url);
        if record.settings.url.prefix().len() + key.len() > KEY_BYTES_MAX {
            let what = format!("report: the key would have more than {KEY_BYTES_MAX} bytes");
            return Err(FsError::new(FsCode::Invalid, what).with_hint("give a shorter path"));
        }
        return Ok((link, key.into_bytes(), url));
    }
    Err(FsError::new(FsCode::Invalid, format!("report: {path} is below no directory that is linked to a repository"))
        .with_hint("give the directory of a link, or something below it; see: sateen repo list"))
}

/// A task ends early.
pub fn cancel(tx: &mut dyn Txn, id: TaskId, inputs: &Inputs) -> FsResult<Task> {
    let mut record = find(tx, id)?.ok_or_else(|| missing(id))?;
    match record.state {
        TaskState::Pending => {
            become_state(&mut record, id, TaskState::Canceled)?;
            record.ended = Some(inputs.now);
        }
        TaskState::Executing => become_state(&mut record, id, TaskState::Canceling)?,
        TaskState::Canceling => {}
        TaskState::Succeeded | TaskState::Failed | TaskState::Canceled => {
            return Err(FsError::new(FsCode::Invalid, format!("{id} has ended: it is {}", record.state))
                .with_hint("see what came of it with: sateen repo task show"));
        }
    }
    put(tx, id, record.clone(), inputs);
    Ok(record.show(id, spec(tx, id)?))
}

/// It is the turn of a task. A path that is none makes it fail.
pub fn begin(tx: &mut dyn Txn, id: TaskId, inputs: &Inputs) -> FsResult<Told> {
    let Some(mut record) = find(tx, id)?.filter(|r| r.state == TaskState::Pending) else { return Ok(Told::default()) };
    let mut todo = Vec::new();
    for path in spec(tx, id)?.paths {
        let found = match record.kind {
            TaskKind::Import => import::targets(tx, &path),
            _ => walked(tx, &path).map(|one| vec![one]),
        };
        match found {
            Ok(found) => found.into_iter().for_each(|one| {
                if !todo.contains(&one) {
                    todo.push(one);
                }
            }),
            Err(e) if e.code == FsCode::NotFound || e.code == FsCode::NotDirectory => {
                become_state(&mut record, id, TaskState::Failed)?;
                record.message = cut(format!("path {path}: {}", e.message));
                record.ended = Some(inputs.now);
                put(tx, id, record, inputs);
                return Ok(Told::default());
            }
            Err(e) => return Err(e),
        }
    }
    become_state(&mut record, id, TaskState::Executing)?;
    record.started = Some(inputs.now);
    for one in &todo {
        push_todo(tx, id, &mut record, one);
    }
    put(tx, id, record, inputs);
    Ok(Told::default())
}

/// What is to be looked at for a path.
fn walked(tx: &dyn ReadTxn, path: &str) -> FsResult<TodoRecord> {
    let (mut at, mut file_type) = (Fid::ROOT, FileType::Directory);
    for name in path.parse::<LinkPath>()?.names() {
        tree::directory(tx, at)?;
        let entry = tree::existing_entry(tx, at, &name)?;
        (at, file_type) = (entry.fid, entry.file_type);
    }
    Ok(match file_type {
        FileType::Directory => TodoRecord::Directory { dir: at, after: 0 },
        _ => TodoRecord::File(at),
    })
}

/// Tasks go that have been over for long, and the oldest if there are too many.
pub fn expire(tx: &mut dyn Txn, inputs: &Inputs) -> FsResult<()> {
    let over: Vec<_> = all(tx)?.into_iter().filter(|(_, r)| r.state.is_over()).collect();
    let surplus = over.len().saturating_sub(TASKS_KEPT_MAX);
    for (i, (id, record)) in over.into_iter().enumerate() {
        let ended = record.ended.map_or(record.created.seconds, |at| at.seconds);
        if i < surplus || inputs.now.seconds.saturating_sub(ended) > TASKS_KEPT_S {
            tx.delete(Table::Tasks, keys::task(id));
            tx.delete(Table::Tasks, keys::spec(id));
        }
    }
    Ok(())
}
