//! Pass 3, too: tasks over many files (`tasks`). What does not decode, belongs to no task, or to one that is waiting or over, goes: a task
//! that has lost rows does less, and can be started again. What keeps one from ever going on is corrected.

use sateen_types::FindingKind;
use sateen_types::FsResult;
use sateen_types::repository::{TaskId, TaskKind, TaskState};

use super::draft::Draft;
use super::rows::{Stored, hex, unusable};
use super::{Broken, Check, Facts, Remedy};
use crate::store::codec::Record;
use crate::store::keys::{self, tasks};
use crate::store::records::{
    AutoReleaseRecord, Body, FailureRecord, Inode, RepositoryRecord, ScopeRecord, TaskPhase, TaskRecord,
    TaskSpecRecord, TodoRecord, UnderWayRecord,
};
use crate::store::{ReadTxn, Row, Table};

/// See the module.
pub fn walk(check: &mut Check<'_, '_>) -> FsResult<()> {
    let view = check.job.store.snapshot();
    // Tasks first: whether other rows are of any use depends on them.
    let mut tasks = super::rows::Rows::below(&*view, check.job.pace, Table::Tasks, tasks::TASK.to_vec());
    while let Some((key, _)) = tasks.next()? {
        check.report.step(0)?;
        check.settle(|tx, facts| row(tx, facts, &key))?;
    }
    drop(tasks);
    // As they are now.
    let view = check.job.store.snapshot();
    let mut rows = check.rows(&*view, Table::Tasks);
    while let Some((key, _)) = rows.next()? {
        check.report.step(0)?;
        if !key.starts_with(tasks::TASK) {
            check.settle(|tx, facts| row(tx, facts, &key))?;
        }
    }
    Ok(())
}

/// What is said of a row, and the rows that it follows from.
enum Verdict {
    /// It is as it should be.
    Sound,
    /// It decodes to nothing that any version has written.
    Bad,
    /// It is of no use, and why.
    Useless(String),
    /// It is to be like this, and why.
    Put(Vec<u8>, String),
    /// Another row is to be like this, and why.
    PutOther(Row, String),
}

fn row(tx: &dyn ReadTxn, facts: &Facts, key: &[u8]) -> FsResult<Option<Broken>> {
    let Some(value) = tx.get(Table::Tasks, key)? else { return Ok(None) };
    let mut draft = Draft::new(tx);
    let what = match judge(tx, &mut draft, key, &value)? {
        Verdict::Sound => return Ok(None),
        Verdict::Bad => return unusable(tx, facts, Table::Tasks, key, "it is nothing of a task", true),
        Verdict::Useless(what) => {
            draft.tx().delete(Table::Tasks, key.to_vec());
            what
        }
        Verdict::Put(value, what) => {
            draft.tx().put(Table::Tasks, key.to_vec(), value);
            what
        }
        Verdict::PutOther((other, value), what) => {
            draft.sees(Table::Tasks, key.to_vec());
            draft.tx().put(Table::Tasks, other, value);
            what
        }
    };
    Ok(Some(facts.broken(FindingKind::Attribute, what, Remedy::Mend(draft.finish()?))))
}

fn judge(tx: &dyn ReadTxn, draft: &mut Draft<'_>, key: &[u8], value: &[u8]) -> FsResult<Verdict> {
    Ok(match key.first() {
        Some(b'a') if key == tasks::AUTO_RELEASE => match AutoReleaseRecord::from_bytes(value) {
            Ok(_) => Verdict::Sound,
            Err(_) => Verdict::Bad,
        },
        Some(b't') => match (tasks::parse_task(key), TaskRecord::from_bytes(value)) {
            (Ok(id), Ok(record)) => task(tx, draft, id, record)?,
            _ => Verdict::Bad,
        },
        Some(b's') => match (tasks::parse_task(key), TaskSpecRecord::from_bytes(value)) {
            (Ok(id), Ok(_)) => match find(tx, draft, id)? {
                Some(_) => Verdict::Sound,
                None => Verdict::Useless(format!("what {id} was asked for is kept, and there is no such task")),
            },
            _ => Verdict::Bad,
        },
        Some(b'd') => match (part(key), TodoRecord::from_bytes(value)) {
            (Some((id, number)), Ok(todo)) => match going(tx, draft, id)? {
                Ok(record) => self::todo(tx, draft, (id, record, number), &todo)?,
                Err(why) => Verdict::Useless(format!("something is left to do for {id}, {why}")),
            },
            _ => Verdict::Bad,
        },
        Some(b'e') => match (part(key), FailureRecord::from_bytes(value)) {
            (Some((id, number)), Ok(_)) => match going(tx, draft, id)? {
                Ok(record) => below(id, record, number),
                Err(why) => Verdict::Useless(format!("a line of a report is kept for {id}, {why}")),
            },
            _ => Verdict::Bad,
        },
        Some(b'w') => match (tasks::parse_file(key), UnderWayRecord::from_bytes(value)) {
            (Ok(fid), Ok(_)) => {
                let id = of_task(key);
                match going(tx, draft, id)? {
                    Ok(record) if record.kind == TaskKind::Import => {
                        Verdict::Useless(format!("{fid} is under way for {id}, which imports"))
                    }
                    Ok(_) => Verdict::Sound,
                    Err(why) => Verdict::Useless(format!("{fid} is under way for {id}, {why}")),
                }
            }
            _ => Verdict::Bad,
        },
        Some(b'i') => match (tasks::parse_task(key), ScopeRecord::from_bytes(value)) {
            (Ok(TaskId(link)), Ok(scope)) => self::scope(tx, draft, sateen_types::RepositoryId(link), &scope)?,
            _ => Verdict::Bad,
        },
        _ => Verdict::Bad,
    })
}

/// Task and number of a row of something to do, or of a line of a report. No number is 0, or the last there is.
fn part(key: &[u8]) -> Option<(TaskId, u64)> {
    let number = tasks::parse_number(key).ok().filter(|number| (1..u64::MAX).contains(number))?;
    Some((of_task(key), number))
}

/// The task of a key that is longer than nine bytes.
fn of_task(key: &[u8]) -> TaskId {
    let mut id = [0; 8];
    id.copy_from_slice(&key[1..9]);
    TaskId(u64::from_be_bytes(id))
}

fn find(tx: &dyn ReadTxn, draft: &mut Draft<'_>, id: TaskId) -> FsResult<Option<TaskRecord>> {
    draft.sees(Table::Tasks, tasks::task(id));
    Ok(Stored::<TaskRecord>::read(tx, Table::Tasks, &tasks::task(id))?.good())
}

/// A task that may have more rows than its two; or why it may not.
fn going(tx: &dyn ReadTxn, draft: &mut Draft<'_>, id: TaskId) -> FsResult<Result<TaskRecord, String>> {
    Ok(match find(tx, draft, id)? {
        None => Err("which does not exist".to_owned()),
        Some(record) if matches!(record.state, TaskState::Executing | TaskState::Canceling) => Ok(record),
        Some(record) => Err(format!("which is {}", record.state)),
    })
}

/// A task needs what it was asked for, and a phase that ends.
fn task(tx: &dyn ReadTxn, draft: &mut Draft<'_>, id: TaskId, record: TaskRecord) -> FsResult<Verdict> {
    draft.sees(Table::Tasks, tasks::spec(id));
    let spec = Stored::<TaskSpecRecord>::read(tx, Table::Tasks, &tasks::spec(id))?;
    if spec.good().is_none() {
        return Ok(Verdict::Useless(format!("nobody knows what {id} was asked for")));
    }
    let put =
        |phase, what: &str| Verdict::Put(TaskRecord { phase, ..record.clone() }.to_bytes(), format!("{id} {what}"));
    Ok(match (record.state, record.phase) {
        (TaskState::Pending, TaskPhase::Reporting | TaskPhase::Closing) => {
            put(TaskPhase::Working, "waits, and is said to be nearly over")
        }
        (TaskState::Executing, TaskPhase::Reporting) if record.report.is_none() => {
            put(TaskPhase::Closing, "writes a report that has no place")
        }
        _ => Verdict::Sound,
    })
}

/// A number that would be given again.
fn below(id: TaskId, record: TaskRecord, number: u64) -> Verdict {
    if number <= record.next {
        return Verdict::Sound;
    }
    let what = format!("the last row of {id} is said to be {}, but there is {number}", record.next);
    Verdict::PutOther((tasks::task(id), TaskRecord { next: number, ..record }.to_bytes()), what)
}

/// Something that fits its task, at a place that its directory has.
fn todo(
    tx: &dyn ReadTxn,
    draft: &mut Draft<'_>,
    (id, record, number): (TaskId, TaskRecord, u64),
    todo: &TodoRecord,
) -> FsResult<Verdict> {
    let imports = record.kind == TaskKind::Import;
    match todo {
        TodoRecord::Import { .. } if !imports => {
            return Ok(Verdict::Useless(format!("{id} has something to import, which it does not do")));
        }
        TodoRecord::File(_) | TodoRecord::Directory { .. } if imports => {
            return Ok(Verdict::Useless(format!("{id} has files to look at, which it does not do")));
        }
        TodoRecord::Directory { dir, after } if *after > 0 => {
            let key = keys::fid(*dir);
            let inode = Stored::<Inode>::read(tx, Table::Inodes, &key)?.good();
            let next = match inode.map(|inode| inode.body) {
                Some(Body::Directory { next_cookie, .. }) => next_cookie,
                // One that is gone, or is none, is left out when its turn comes.
                _ => u64::MAX,
            };
            if *after >= next {
                draft.sees(Table::Inodes, key);
                let what = format!("{id} is at {after} in directory {dir}, which has given out nothing from {next} on");
                return Ok(Verdict::Put(TodoRecord::Directory { dir: *dir, after: 0 }.to_bytes(), what));
            }
        }
        _ => {}
    }
    Ok(below(id, record, number))
}

/// What an import is limited to, by a task that has begun it. Without that, an import that happens to have its number would leave out what
/// nobody asked to be left out.
fn scope(
    tx: &dyn ReadTxn,
    draft: &mut Draft<'_>,
    link: sateen_types::RepositoryId,
    scope: &ScopeRecord,
) -> FsResult<Verdict> {
    let id = scope.task;
    if let Err(why) = going(tx, draft, id)? {
        return Ok(Verdict::Useless(format!("an import of {link} is limited for {id}, {why}")));
    }
    let link_key = keys::repository(link);
    draft.sees(Table::Repositories, link_key.clone());
    if Stored::<RepositoryRecord>::read(tx, Table::Repositories, &link_key)?.is_missing() {
        return Ok(Verdict::Useless(format!("an import of {link} is limited for {id}, and there is no such link")));
    }
    let mut after = None;
    loop {
        let rows = tx.scan(Table::Tasks, &tasks::todo(id), after.as_deref(), super::rows::PAGE)?;
        for (key, value) in &rows {
            if let Ok(TodoRecord::Import { link: of, run, .. }) = TodoRecord::from_bytes(value)
                && (of, run) == (link, scope.run)
            {
                return Ok(Verdict::Sound);
            }
            draft.sees(Table::Tasks, key.clone());
        }
        match rows.into_iter().next_back() {
            Some((key, _)) => after = Some(key),
            None => break,
        }
    }
    Ok(Verdict::Useless(format!(
        "an import of {link} is limited for {id}, which does not import it (row {})",
        hex(&tasks::scope(link))
    )))
}
