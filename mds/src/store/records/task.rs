//! Tasks: how far they are, what is left of them, and lines of their reports.

use sateen_types::repository::{AutoRelease, Task, TaskCounts, TaskId, TaskKind, TaskSpec, TaskState};
use sateen_types::{Fid, RepositoryId, Timestamp};

use super::repository::{read_moment, text, write_moment};
use crate::store::codec::{Reader, Record, Writer};

/// What an executing task is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskPhase {
    /// It looks at files, and waits for those that others are at work on.
    Working,
    /// Its report is written.
    Reporting,
    /// What is left of it is removed, a page at a time.
    Closing,
}

/// A task, but for what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRecord {
    /// What it does.
    pub kind: TaskKind,
    /// Of a release: how many days.
    pub days: u32,
    /// Where it is in its life.
    pub state: TaskState,
    /// What it is at.
    pub phase: TaskPhase,
    /// Why it fails, beside the files that do.
    pub message: String,
    /// How far it is.
    pub counts: TaskCounts,
    /// When it was made.
    pub created: Timestamp,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// When anything changed.
    pub updated: Timestamp,
    /// Where the report goes: link, and key within its prefix.
    pub report: Option<(RepositoryId, Vec<u8>)>,
    /// Its URL.
    pub report_url: String,
    /// Number of the next row of it.
    pub next: u64,
    /// Bytes of paths in its report.
    pub failed_bytes: u64,
}

impl TaskRecord {
    /// As people see it.
    pub fn show(self, id: TaskId, spec: TaskSpec) -> Task {
        Task {
            id,
            spec,
            state: self.state,
            message: self.message,
            counts: self.counts,
            created: self.created,
            started: self.started,
            ended: self.ended,
            updated: self.updated,
            report_url: self.report_url,
        }
    }
}

fn write_kind(out: &mut Writer, kind: TaskKind) {
    out.u8(match kind {
        TaskKind::Import => 1,
        TaskKind::Export => 2,
        TaskKind::Restore => 3,
        TaskKind::Release => 4,
    });
}

fn read_kind(input: &mut Reader<'_>) -> Option<TaskKind> {
    Some(match input.u8()? {
        1 => TaskKind::Import,
        2 => TaskKind::Export,
        3 => TaskKind::Restore,
        4 => TaskKind::Release,
        _ => return None,
    })
}

impl Record for TaskRecord {
    const WHAT: &'static str = "task";
    fn write(&self, out: &mut Writer) {
        write_kind(out, self.kind);
        out.u32(self.days);
        out.u8(match self.state {
            TaskState::Pending => 1,
            TaskState::Executing => 2,
            TaskState::Succeeded => 3,
            TaskState::Failed => 4,
            TaskState::Canceling => 5,
            TaskState::Canceled => 6,
        });
        out.u8(match self.phase {
            TaskPhase::Working => 1,
            TaskPhase::Reporting => 2,
            TaskPhase::Closing => 3,
        });
        out.bytes(self.message.as_bytes());
        let TaskCounts { total, succeeded, failed, skipped, bytes } = self.counts;
        for n in [total, succeeded, failed, skipped, bytes] {
            out.u64(n);
        }
        out.time(self.created);
        write_moment(out, self.started);
        write_moment(out, self.ended);
        out.time(self.updated);
        out.u8(u8::from(self.report.is_some()));
        if let Some((id, key)) = &self.report {
            out.u64(id.0);
            out.bytes(key);
        }
        out.bytes(self.report_url.as_bytes());
        out.u64(self.next);
        out.u64(self.failed_bytes);
    }
    fn read(input: &mut Reader<'_>) -> Option<TaskRecord> {
        Some(TaskRecord {
            kind: read_kind(input)?,
            days: input.u32()?,
            state: match input.u8()? {
                1 => TaskState::Pending,
                2 => TaskState::Executing,
                3 => TaskState::Succeeded,
                4 => TaskState::Failed,
                5 => TaskState::Canceling,
                6 => TaskState::Canceled,
                _ => return None,
            },
            phase: match input.u8()? {
                1 => TaskPhase::Working,
                2 => TaskPhase::Reporting,
                3 => TaskPhase::Closing,
                _ => return None,
            },
            message: text(input)?,
            counts: TaskCounts {
                total: input.u64()?,
                succeeded: input.u64()?,
                failed: input.u64()?,
                skipped: input.u64()?,
                bytes: input.u64()?,
            },
            created: input.time()?,
            started: read_moment(input)?,
            ended: read_moment(input)?,
            updated: input.time()?,
            report: match input.bool()? {
                true => Some((RepositoryId(input.u64()?), input.bytes()?.to_vec())),
                false => None,
            },
            report_url: text(input)?,
            next: input.u64()?,
            failed_bytes: input.u64()?,
        })
    }
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSpecRecord(pub TaskSpec);

impl Record for TaskSpecRecord {
    const WHAT: &'static str = "what a task was asked for";
    fn write(&self, out: &mut Writer) {
        let TaskSpec { kind, paths, report, days } = &self.0;
        write_kind(out, *kind);
        out.u32(*days);
        out.bytes(report.as_ref().map_or("", |path| path.as_str()).as_bytes());
        out.u32(paths.len() as u32);
        for path in paths {
            out.bytes(path.as_bytes());
        }
    }
    fn read(input: &mut Reader<'_>) -> Option<TaskSpecRecord> {
        let (kind, days) = (read_kind(input)?, input.u32()?);
        let report = text(input)?;
        let report = if report.is_empty() { None } else { Some(report.parse().ok()?) };
        let paths = (0..input.count(4)?).map(|_| text(input)).collect::<Option<_>>()?;
        Some(TaskSpecRecord(TaskSpec { kind, paths, report, days }))
    }
}

/// Which objects an import is limited to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeRecord {
    /// For which task.
    pub task: TaskId,
    /// Which import of the link it is about.
    pub run: u64,
    /// What keys start with.
    pub prefix: Vec<u8>,
    /// It is a whole name: what follows is nothing, or begins with a slash.
    pub whole: bool,
}

impl Record for ScopeRecord {
    const WHAT: &'static str = "scope of an import";
    fn write(&self, out: &mut Writer) {
        out.u64(self.task.0);
        out.u64(self.run);
        out.bytes(&self.prefix);
        out.u8(u8::from(self.whole));
    }
    fn read(input: &mut Reader<'_>) -> Option<ScopeRecord> {
        Some(ScopeRecord {
            task: TaskId(input.u64()?),
            run: input.u64()?,
            prefix: input.bytes()?.to_vec(),
            whole: input.bool()?,
        })
    }
}

/// Something that is left to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TodoRecord {
    /// A file.
    File(Fid),
    /// A directory, behind the name of this cookie.
    Directory {
        /// Which.
        dir: Fid,
        /// 0: from the start.
        after: u64,
    },
    /// Objects of a link are imported.
    Import {
        /// Which link.
        link: RepositoryId,
        /// What their keys start with.
        prefix: Vec<u8>,
        /// As in [`ScopeRecord`].
        whole: bool,
        /// Number of the import; 0: it has not begun.
        run: u64,
    },
}

impl Record for TodoRecord {
    const WHAT: &'static str = "part of a task";
    fn write(&self, out: &mut Writer) {
        match self {
            TodoRecord::File(fid) => {
                out.u8(1);
                out.fid(*fid);
            }
            TodoRecord::Directory { dir, after } => {
                out.u8(2);
                out.fid(*dir);
                out.u64(*after);
            }
            TodoRecord::Import { link, prefix, whole, run } => {
                out.u8(3);
                out.u64(link.0);
                out.bytes(prefix);
                out.u8(u8::from(*whole));
                out.u64(*run);
            }
        }
    }
    fn read(input: &mut Reader<'_>) -> Option<TodoRecord> {
        Some(match input.u8()? {
            1 => TodoRecord::File(input.fid()?),
            2 => TodoRecord::Directory { dir: input.fid()?, after: input.u64()? },
            3 => TodoRecord::Import {
                link: RepositoryId(input.u64()?),
                prefix: input.bytes()?.to_vec(),
                whole: input.bool()?,
                run: input.u64()?,
            },
            _ => return None,
        })
    }
}

/// A file that others are at work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnderWayRecord {
    /// Since when.
    pub since: Timestamp,
}

impl Record for UnderWayRecord {
    const WHAT: &'static str = "file of a task";
    fn write(&self, out: &mut Writer) {
        out.time(self.since);
    }
    fn read(input: &mut Reader<'_>) -> Option<UnderWayRecord> {
        Some(UnderWayRecord { since: input.time()? })
    }
}

/// A line of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureRecord {
    /// Relative to the root of the file system.
    pub path: Vec<u8>,
    /// FSx's code.
    pub code: String,
}

impl Record for FailureRecord {
    const WHAT: &'static str = "line of a report";
    fn write(&self, out: &mut Writer) {
        out.bytes(&self.path);
        out.bytes(self.code.as_bytes());
    }
    fn read(input: &mut Reader<'_>) -> Option<FailureRecord> {
        Some(FailureRecord { path: input.bytes()?.to_vec(), code: text(input)? })
    }
}

/// When files are released by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutoReleaseRecord(pub AutoRelease);

impl Record for AutoReleaseRecord {
    const WHAT: &'static str = "marks for a release";
    fn write(&self, out: &mut Writer) {
        out.u32(self.0.high);
        out.u32(self.0.low);
    }
    fn read(input: &mut Reader<'_>) -> Option<AutoReleaseRecord> {
        AutoRelease { high: input.u32()?, low: input.u32()? }.checked().ok().map(AutoReleaseRecord)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn same<R: Record + PartialEq + std::fmt::Debug>(record: R) {
        let bytes = record.to_bytes();
        assert_eq!(R::from_bytes(&bytes).expect("its own bytes"), record);
        for end in 0..bytes.len() {
            R::from_bytes(&bytes[..end]).expect_err("a part");
        }
    }

    #[test]
    fn rows_of_tasks_are_read_as_they_were_written() {
        let at = Timestamp { seconds: 9, nanos: 5 };
        let record = TaskRecord {
            kind: TaskKind::Release,
            days: 9,
            state: TaskState::Executing,
            phase: TaskPhase::Reporting,
            message: "why".to_owned(),
            counts: TaskCounts { total: 5, succeeded: 3, failed: 2, skipped: 1, bytes: 77 },
            created: at,
            started: Some(at),
            ended: None,
            updated: at,
            report: Some((RepositoryId(3), b"reports/task-1/failures.csv".to_vec())),
            report_url: "s3://b/reports".to_owned(),
            next: 12,
            failed_bytes: 100,
        };
        same(record.clone());
        same(TaskRecord { report: None, ended: Some(at), phase: TaskPhase::Working, ..record });
        let paths = vec!["/a".to_owned(), "/b".to_owned()];
        same(TaskSpecRecord(TaskSpec { kind: TaskKind::Import, paths, report: "/r".parse().ok(), days: 0 }));
        same(TodoRecord::File(Fid::ROOT));
        same(TodoRecord::Directory { dir: Fid::ROOT, after: 7 });
        same(TodoRecord::Import { link: RepositoryId(1), prefix: b"p".to_vec(), whole: true, run: 2 });
        same(ScopeRecord { task: TaskId(1), run: 2, prefix: b"a/b".to_vec(), whole: true });
        same(UnderWayRecord { since: at });
        same(FailureRecord { path: b"a\xff".to_vec(), code: "S3Error".to_owned() });
        same(AutoReleaseRecord(AutoRelease { high: 90, low: 80 }));
        let bad = [1, 80, 0, 0, 0, 90, 0, 0, 0];
        AutoReleaseRecord::from_bytes(&bad).expect_err("no marks");
    }

    #[test]
    fn a_directory_to_look_at_is_stored_as_ever() {
        let bytes = TodoRecord::Directory { dir: Fid { seq: 1, oid: 2, ver: 0 }, after: 3 }.to_bytes();
        assert_eq!(bytes[..2], [1, 2]);
        assert_eq!(bytes.len(), 2 + 16 + 8);
        assert_eq!(bytes[18..], 3u64.to_le_bytes());
    }
}
