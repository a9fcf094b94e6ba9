//! Tasks, and when files are released by themselves.

use sateen_types::limits::{REPOSITORY_MESSAGE_BYTES_MAX, URL_BYTES_MAX};
use sateen_types::repository::{AutoRelease, Task, TaskCounts, TaskId, TaskKind, TaskSpec, TaskState};
use sateen_types::{FsError, FsResult};

use super::super::{bad, known, required};
use super::{cut, time};
use crate::mds;

impl From<TaskKind> for mds::TaskKind {
    fn from(kind: TaskKind) -> mds::TaskKind {
        match kind {
            TaskKind::Import => mds::TaskKind::Import,
            TaskKind::Export => mds::TaskKind::Export,
            TaskKind::Restore => mds::TaskKind::Restore,
            TaskKind::Release => mds::TaskKind::Release,
        }
    }
}

impl From<TaskState> for mds::TaskState {
    fn from(state: TaskState) -> mds::TaskState {
        match state {
            TaskState::Pending => mds::TaskState::Pending,
            TaskState::Executing => mds::TaskState::Executing,
            TaskState::Succeeded => mds::TaskState::Succeeded,
            TaskState::Failed => mds::TaskState::Failed,
            TaskState::Canceling => mds::TaskState::Canceling,
            TaskState::Canceled => mds::TaskState::Canceled,
        }
    }
}

fn task_kind(number: i32) -> FsResult<TaskKind> {
    Ok(match known(number, "kind")? {
        mds::TaskKind::Import => TaskKind::Import,
        mds::TaskKind::Export => TaskKind::Export,
        mds::TaskKind::Restore => TaskKind::Restore,
        mds::TaskKind::Release => TaskKind::Release,
        mds::TaskKind::Unspecified => return Err(bad("kind", "missing")),
    })
}

fn task_state(number: i32) -> FsResult<TaskState> {
    Ok(match known(number, "state")? {
        mds::TaskState::Pending => TaskState::Pending,
        mds::TaskState::Executing => TaskState::Executing,
        mds::TaskState::Succeeded => TaskState::Succeeded,
        mds::TaskState::Failed => TaskState::Failed,
        mds::TaskState::Canceling => TaskState::Canceling,
        mds::TaskState::Canceled => TaskState::Canceled,
        mds::TaskState::Unspecified => return Err(bad("state", "missing")),
    })
}

impl From<&TaskSpec> for mds::TaskSpec {
    fn from(s: &TaskSpec) -> mds::TaskSpec {
        mds::TaskSpec {
            kind: mds::TaskKind::from(s.kind).into(),
            paths: s.paths.clone(),
            report: s.report.as_ref().map(ToString::to_string).unwrap_or_default(),
            days: s.days,
        }
    }
}

impl TryFrom<mds::TaskSpec> for TaskSpec {
    type Error = FsError;
    fn try_from(w: mds::TaskSpec) -> FsResult<TaskSpec> {
        let report = if w.report.is_empty() { None } else { Some(w.report.parse()?) };
        TaskSpec { kind: task_kind(w.kind)?, paths: w.paths, report, days: w.days }.checked()
    }
}

impl From<&Task> for mds::Task {
    fn from(t: &Task) -> mds::Task {
        let TaskCounts { total, succeeded, failed, skipped, bytes } = t.counts;
        mds::Task {
            id: t.id.0,
            spec: Some((&t.spec).into()),
            state: mds::TaskState::from(t.state).into(),
            message: t.message.clone(),
            counts: Some(mds::TaskCounts { total, succeeded, failed, skipped, bytes }),
            created: Some(t.created.into()),
            started: t.started.map(Into::into),
            ended: t.ended.map(Into::into),
            updated: Some(t.updated.into()),
            report_url: t.report_url.clone(),
        }
    }
}

impl TryFrom<mds::Task> for Task {
    type Error = FsError;
    fn try_from(w: mds::Task) -> FsResult<Task> {
        let mds::TaskCounts { total, succeeded, failed, skipped, bytes } = w.counts.unwrap_or_default();
        Ok(Task {
            id: TaskId(w.id),
            spec: required(w.spec, "spec")?.try_into()?,
            state: task_state(w.state)?,
            message: cut(&w.message, REPOSITORY_MESSAGE_BYTES_MAX),
            counts: TaskCounts { total, succeeded, failed, skipped, bytes },
            created: required(w.created, "created")?.try_into()?,
            started: time(w.started)?,
            ended: time(w.ended)?,
            updated: required(w.updated, "updated")?.try_into()?,
            report_url: cut(&w.report_url, 4 * URL_BYTES_MAX),
        })
    }
}

impl From<AutoRelease> for mds::AutoRelease {
    fn from(a: AutoRelease) -> mds::AutoRelease {
        mds::AutoRelease { high: a.high, low: a.low }
    }
}

impl TryFrom<mds::AutoRelease> for AutoRelease {
    type Error = FsError;
    fn try_from(w: mds::AutoRelease) -> FsResult<AutoRelease> {
        AutoRelease { high: w.high, low: w.low }.checked()
    }
}
