//! The report of a task, which a worker writes: there is one at most, as one task executes at a time.

use std::time::{Duration, Instant};

use sateen_types::repository::TaskId;
use sateen_types::{Fid, RepositoryId, SessionId};

use super::{LoadTable, Out, Task};

/// Pause before a report is tried again; doubled each time, up to the longest.
const BACKOFF: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// A report that is to be written.
#[derive(Debug)]
pub(super) struct Report {
    task: TaskId,
    repository: RepositoryId,
    out: bool,
    at: Instant,
    failures: u32,
}

impl LoadTable {
    /// The report of a task is to be written, if it is not known yet; gives whether it was not.
    pub fn want_report(&mut self, task: TaskId, repository: RepositoryId, now: Instant) -> bool {
        if self.report.as_ref().is_some_and(|r| r.task == task) {
            return false;
        }
        self.report = Some(Report { task, repository, out: false, at: now, failures: 0 });
        true
    }

    pub(super) fn pick_report(&mut self, now: Instant) -> Option<Task> {
        let stopped = |id| self.jobs.get(&id).is_none_or(|jobs| jobs.wanted.stopped);
        let wanted = self.report.as_ref().is_some_and(|r| !r.out && r.at <= now && !stopped(r.repository));
        let report = self.report.as_mut().filter(|_| wanted)?;
        report.out = true;
        Some(Task::Report(report.repository, report.task))
    }

    /// When it may be tried again.
    pub(super) fn report_due(&self) -> Option<Instant> {
        self.report.as_ref().filter(|r| !r.out).map(|r| r.at)
    }

    /// Nobody writes it any more.
    pub(super) fn end_report(&mut self, task: TaskId) {
        if let Some(report) = self.report.as_mut().filter(|r| r.task == task) {
            report.out = false;
        }
    }

    /// It could not be written; gives how often that was.
    pub fn report_failed(&mut self, number: u64, now: Instant) -> u32 {
        let Some(Task::Report(_, task)) = self.take_out(number) else { return 0 };
        let Some(report) = self.report.as_mut().filter(|r| r.task == task) else { return 0 };
        report.at = now + BACKOFF.saturating_mul(1 << report.failures.min(16)).min(BACKOFF_MAX);
        report.failures += 1;
        report.failures
    }

    /// It is not to be written any more.
    pub fn forget_report(&mut self, task: TaskId) {
        self.report.take_if(|r| r.task == task);
    }

    /// The task whose report a session writes under this number.
    pub fn report_of(&self, session: SessionId, number: u64) -> Option<TaskId> {
        match self.out.get(&number) {
            Some(Out { session: Some(of), task: Task::Report(_, task), .. }) if *of == session => Some(*task),
            _ => None,
        }
    }

    /// How often in a row a file could not be loaded.
    pub fn failures(&self, fid: Fid) -> u32 {
        self.files.get(&fid).map_or(0, |file| file.failures)
    }
}
