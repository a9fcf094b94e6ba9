//! What the MDS is to be told of a file, and what it was told.

use sateen_types::{Attr, Timestamp};

use super::{Inode, without_privileges};
use crate::atime::AccessTimes;

/// Reports whose answer is missing and that are remembered: a file has one under way, and may have given up others.
const UNANSWERED_MAX: usize = 4;

/// What a report to the MDS says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub end: u64,
    pub mtime: Option<Timestamp>,
    pub allocated_delta: i64,
    pub clear_suid: bool,
}

impl Report {
    /// Whether it alone makes one state of the file the other.
    pub fn explains(&self, before: &Attr, after: &Attr) -> bool {
        // The MDS gives no time of change twice.
        let time = self.mtime.map_or(after.mtime == before.mtime, |at| [at, at.next()].contains(&after.mtime));
        time && after.size == before.size.max(self.end)
    }
}

impl Inode {
    /// Takes what the MDS should be told, if anything.
    pub fn take_report(&self) -> Option<Report> {
        let mut state = self.state();
        let report = Report {
            // Others may have cut the file since its size was asked for.
            end: if state.written_end > state.attr.size || state.is_shared() { state.written_end } else { 0 },
            mtime: state.mtime,
            allocated_delta: state.allocated_delta,
            clear_suid: state.clear_suid,
        };
        // Privileges alone are worth a report only where there are any.
        let clears = report.clear_suid && without_privileges(state.attr.mode) != state.attr.mode;
        if !clears && (report.end, report.mtime, report.allocated_delta) == (0, None, 0) {
            return None;
        }
        state.allocated_delta = 0;
        if state.unanswered.len() == UNANSWERED_MAX {
            state.unanswered.remove(0);
        }
        state.unanswered.push(report);
        Some(report)
    }

    /// The MDS was told, or (`Err`) was not. What came up in between stays to be told.
    pub fn end_report(&self, report: &Report, told: Result<&Attr, ()>) {
        match told {
            Ok(attr) => {
                self.observe_own(attr);
                let mut state = self.state();
                state.unanswered.clear();
                if state.written_end <= report.end.max(state.attr.size) {
                    state.written_end = 0;
                }
                if state.mtime == report.mtime {
                    state.mtime = None;
                }
                if report.clear_suid {
                    state.clear_suid = false;
                }
            }
            Err(()) => self.state().allocated_delta += report.allocated_delta,
        }
    }

    /// The MDS will never take the report: it is not sent again.
    pub fn drop_report(&self, report: &Report) {
        let mut state = self.state();
        state.unanswered.clear();
        if state.written_end <= report.end.max(state.attr.size) {
            state.written_end = 0;
        }
        if state.mtime == report.mtime {
            state.mtime = None;
        }
        state.clear_suid = false;
    }

    /// A program has read the file. Gives the time of that, if it counts.
    pub fn accessed(&self, counts: AccessTimes) -> Option<Timestamp> {
        if counts == AccessTimes::Never {
            return None;
        }
        let now = Timestamp::now();
        let mut state = self.state();
        let written = state.mtime.unwrap_or(state.attr.mtime);
        let changed = written.max(state.attr.mtime).max(state.attr.ctime);
        let read = state.atime.map_or(state.attr.atime, |at| at.max(state.attr.atime));
        let at = counts.wants(read, changed, now).then_some(now)?;
        state.atime = Some(at);
        Some(at)
    }

    /// An access time was set: what was read before does not override it.
    pub fn forget_accesses(&self) {
        self.state().atime = None;
    }

    /// Explicit times are about to be set: what was written before does not override them.
    pub fn take_mtime(&self) -> Option<Timestamp> {
        self.state().mtime.take()
    }

    /// What was written here took set-user-id or set-group-id away, and the MDS does not know yet.
    pub fn loses_privileges(&self) -> bool {
        let state = self.state();
        state.clear_suid && without_privileges(state.attr.mode) != state.attr.mode
    }

    /// A mode is about to be set: what was written before does not take privileges from it.
    pub fn take_clear_suid(&self) -> bool {
        std::mem::take(&mut self.state().clear_suid)
    }

    /// The mode was not set after all.
    pub fn give_back_clear_suid(&self, clear: bool) {
        self.state().clear_suid |= clear;
    }

    /// The times were not set after all.
    pub fn give_back_mtime(&self, mtime: Option<Timestamp>) {
        let mut state = self.state();
        state.mtime = state.mtime.or(mtime);
    }
}
