//! Rows of tasks belong to tasks that may have them, and their numbers were given.

use std::collections::BTreeMap;

use sateen_types::FsResult;
use sateen_types::repository::{TaskId, TaskState};

use super::{Found, all};
use crate::store::codec::Record;
use crate::store::keys::tasks;
use crate::store::records::{
    AutoReleaseRecord, Body, FailureRecord, ScopeRecord, TaskPhase, TaskRecord, TaskSpecRecord, TodoRecord,
    UnderWayRecord,
};
use crate::store::{ReadTxn, Table};

/// See the module.
pub(super) fn check(found: &mut Found, tx: &dyn ReadTxn) -> FsResult<()> {
    let rows = all(tx, Table::Tasks)?;
    let mut records: BTreeMap<TaskId, TaskRecord> = BTreeMap::new();
    let mut specs = Vec::new();
    for (key, value) in &rows {
        match key.first() {
            Some(b't') => drop(records.insert(tasks::parse_task(key)?, TaskRecord::from_bytes(value)?)),
            Some(b's') => {
                TaskSpecRecord::from_bytes(value)?;
                specs.push(tasks::parse_task(key)?);
            }
            _ => {}
        }
    }
    let known: Vec<TaskId> = records.keys().copied().collect();
    if known != specs {
        found.wrong(format!("tasks {known:?} are known by what was asked for as {specs:?}"));
    }
    for (id, record) in &records {
        if record.state == TaskState::Executing && record.phase == TaskPhase::Reporting && record.report.is_none() {
            found.wrong(format!("{id} writes a report that has no place"));
        }
    }
    for (key, value) in &rows {
        let number = match key.first() {
            Some(b't' | b's') => continue,
            Some(b'a') if key == tasks::AUTO_RELEASE => {
                AutoReleaseRecord::from_bytes(value)?;
                continue;
            }
            Some(b'i') => {
                let scope = ScopeRecord::from_bytes(value)?;
                let going = records.get(&scope.task).is_some_and(goes);
                if !going {
                    found.wrong(format!("an import is limited for {}, which does not go on", scope.task));
                }
                continue;
            }
            Some(b'd') => {
                if let TodoRecord::Directory { dir, after } = TodoRecord::from_bytes(value)?
                    && let Some(Body::Directory { next_cookie, .. }) = found.inodes.get(&dir).map(|inode| &inode.body)
                    && after >= *next_cookie
                    && after > 0
                {
                    found
                        .wrong(format!("a task is at {after} in {dir}, which has given nothing from {next_cookie} on"));
                }
                tasks::parse_number(key)?
            }
            Some(b'e') => {
                FailureRecord::from_bytes(value)?;
                tasks::parse_number(key)?
            }
            Some(b'w') => {
                UnderWayRecord::from_bytes(value)?;
                tasks::parse_file(key)?;
                0
            }
            _ => {
                found.wrong(format!("a row of tasks means nothing: {key:02x?}"));
                continue;
            }
        };
        let id = tasks::parse_task(&key[..9])?;
        match records.get(&id).filter(|record| goes(record)) {
            None => found.wrong(format!("{id} has more rows than it may have")),
            Some(record) if number > record.next => {
                found.wrong(format!("row {number} of {id} is above the last one, {}", record.next));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn goes(record: &TaskRecord) -> bool {
    matches!(record.state, TaskState::Executing | TaskState::Canceling)
}
