//! Tasks: one thing done to many files, over paths, with counts and a report; names, states and rules are those of FSx.
//!
//! ```text
//! Pending -> Executing -> Succeeded | Failed
//!    |           \-> Canceling -> Canceled
//!    \-> Canceled                  Pending -> Failed (a path does not exist)
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{LinkPath, RepositoryUrl};
use crate::attr::Timestamp;
use crate::limits::{TASK_DAYS_MAX, TASK_PATHS_MAX};
use crate::status::{FsCode, FsError, FsResult};

/// Number of a task, never used twice in a file system and hardly ever in two. Printed `task-` and 17 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId(pub u64);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task-{:017x}", self.0)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TaskId {
    type Err = FsError;
    fn from_str(s: &str) -> FsResult<TaskId> {
        let digits = s.strip_prefix("task-").filter(|d| d.len() == 17 && d.bytes().all(|b| b.is_ascii_hexdigit()));
        digits.and_then(|d| u64::from_str_radix(d, 16).ok()).map(TaskId).ok_or_else(|| {
            let shown: String = s.chars().take(64).collect();
            FsError::new(FsCode::Invalid, format!("{shown:?} is not a task (expected task- and 17 hexadecimal digits)"))
                .with_hint("see those there are with: sateen repo task list FS")
        })
    }
}

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskKind {
    /// Names and attributes from the repository.
    Import,
    /// What the repository does not have as it is here.
    Export,
    /// Bytes from the repository, before somebody reads them.
    Restore,
    /// Gives the space back of what the repository has.
    Release,
}

impl TaskKind {
    /// Every kind.
    pub const ALL: [TaskKind; 4] = [TaskKind::Import, TaskKind::Export, TaskKind::Restore, TaskKind::Release];

    /// As people write it.
    pub fn word(self) -> &'static str {
        match self {
            TaskKind::Import => "import",
            TaskKind::Export => "export",
            TaskKind::Restore => "restore",
            TaskKind::Release => "release",
        }
    }
}

impl fmt::Display for TaskKind {
    /// FSx's name of the type.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TaskKind::Import => "IMPORT_METADATA_FROM_REPOSITORY",
            TaskKind::Export => "EXPORT_TO_REPOSITORY",
            TaskKind::Restore => "RESTORE_DATA_TO_FILESYSTEM",
            TaskKind::Release => "RELEASE_DATA_FROM_FILESYSTEM",
        })
    }
}

/// Where a task is in its life; see the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskState {
    /// Waits for its turn: one executes at a time.
    Pending,
    /// At work, or its report is being written.
    Executing,
    /// Everything was done.
    Succeeded,
    /// Something was not.
    Failed,
    /// What has begun ends, the rest is left out.
    Canceling,
    /// Ended early; what was done stays.
    Canceled,
}

impl TaskState {
    /// Every state.
    pub const ALL: [TaskState; 6] = [
        TaskState::Pending,
        TaskState::Executing,
        TaskState::Succeeded,
        TaskState::Failed,
        TaskState::Canceling,
        TaskState::Canceled,
    ];

    /// Nothing happens any more.
    pub fn is_over(self) -> bool {
        matches!(self, TaskState::Succeeded | TaskState::Failed | TaskState::Canceled)
    }

    /// Which moves are legal.
    pub fn may_become(self, next: TaskState) -> bool {
        use TaskState::{Canceled, Canceling, Executing, Failed, Pending, Succeeded};
        matches!(
            (self, next),
            (Pending, Executing | Failed | Canceled)
                | (Executing, Succeeded | Failed | Canceling)
                | (Canceling, Canceled)
        )
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TaskState::Pending => "PENDING",
            TaskState::Executing => "EXECUTING",
            TaskState::Succeeded => "SUCCEEDED",
            TaskState::Failed => "FAILED",
            TaskState::Canceling => "CANCELING",
            TaskState::Canceled => "CANCELED",
        })
    }
}

/// How far a task is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskCounts {
    /// Files that are the task's, as far as it has looked.
    pub total: u64,
    /// Of them, done.
    pub succeeded: u64,
    /// Of them, not done: with an entry in the report.
    pub failed: u64,
    /// Files that it found and that are none of its business, which are not in the total: not of a repository, too young, nothing to give back.
    pub skipped: u64,
    /// Bytes of those that are done: to load (import, restore), stored (export), or given back (release).
    pub bytes: u64,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSpec {
    /// What to do.
    pub kind: TaskKind,
    /// Where: paths in the file system; of an import also URLs.
    pub paths: Vec<String>,
    /// Directory below a link: where the report goes.
    pub report: Option<LinkPath>,
    /// Of a release: only what was not used in so many days before the task was made; 0: all.
    pub days: u32,
}

impl TaskSpec {
    /// Whether a path is a URL.
    pub fn is_url(path: &str) -> bool {
        path.contains("://")
    }

    /// Checks everything; paths become absolute.
    pub fn checked(mut self) -> FsResult<TaskSpec> {
        let invalid = |what: String, hint: &str| Err(FsError::new(FsCode::Invalid, what).with_hint(hint));
        if self.paths.is_empty() || self.paths.len() > TASK_PATHS_MAX {
            let what = format!("paths: {}, 1 to {TASK_PATHS_MAX} are allowed", self.paths.len());
            return invalid(what, "give / for everything, or a directory that has all of them");
        }
        if self.days > TASK_DAYS_MAX {
            return invalid(format!("days: {}, at most {TASK_DAYS_MAX}", self.days), "give 0 for files of any age");
        }
        if self.days > 0 && self.kind != TaskKind::Release {
            return invalid(
                format!("days: {} with {}", self.days, self.kind),
                "only a release looks at the age of files",
            );
        }
        for path in &mut self.paths {
            if TaskSpec::is_url(path) {
                if self.kind != TaskKind::Import {
                    return invalid(format!("path: {path:.80} with {}", self.kind), "give a path in the file system");
                }
                // As a check only: a prefix need not end with a slash here.
                path.parse::<RepositoryUrl>()?;
            } else {
                let absolute = if path.starts_with('/') { path.clone() } else { format!("/{path}") };
                *path = absolute.parse::<LinkPath>()?.to_string();
            }
        }
        Ok(self)
    }
}

/// A task as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its number.
    pub id: TaskId,
    /// What was asked for.
    pub spec: TaskSpec,
    /// Where it is in its life.
    pub state: TaskState,
    /// Why it failed, beside the files that did.
    pub message: String,
    /// How far it is.
    pub counts: TaskCounts,
    /// When it was made.
    pub created: Timestamp,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// When the counts last changed.
    pub updated: Timestamp,
    /// URL of the report, if one was asked for.
    pub report_url: String,
}

impl Task {
    /// Files done or failed per second, while it worked.
    pub fn rate(&self) -> f64 {
        let Some(started) = self.started else { return 0.0 };
        let end = self.ended.unwrap_or(self.updated);
        let seconds = (end.seconds - started.seconds) as f64 + (f64::from(end.nanos) - f64::from(started.nanos)) / 1e9;
        let done = self.counts.succeeded.saturating_add(self.counts.failed);
        if seconds > 0.0 { done as f64 / seconds } else { 0.0 }
    }
}

/// When files are released by themselves, in percent of an OST's space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AutoRelease {
    /// From here on; 0: never.
    pub high: u32,
    /// Down to here.
    pub low: u32,
}

impl AutoRelease {
    /// Nothing is released by itself.
    pub const OFF: AutoRelease = AutoRelease { high: 0, low: 0 };

    /// Whether anything is released.
    pub fn is_on(self) -> bool {
        self.high > 0
    }

    /// Both 0, or 1 <= low < high <= 99.
    pub fn checked(self) -> FsResult<AutoRelease> {
        if self == AutoRelease::OFF || (self.low >= 1 && self.low < self.high && self.high <= 99) {
            return Ok(self);
        }
        let what = format!("high {} and low {} are no marks for a release", self.high, self.low);
        Err(FsError::new(FsCode::Invalid, what).with_hint("give 1 <= low < high <= 99 percent, for example 90 and 80"))
    }
}

// ---- the report ----

/// What became of a file that is in a report.
pub const FILE_FAILED: &str = "failed";

/// Appends a line of a report, as RFC 4180 and FSx want it: no line before the first, fields with a comma, quote or line break quoted,
/// quotes doubled, and a path that a spreadsheet would take for a formula in a pair of quotes of its own.
pub fn csv_line(out: &mut Vec<u8>, path: &[u8], status: &str, code: &str) {
    let quoted;
    let path = match path.first() {
        Some(b'@' | b'+' | b'-' | b'=') => {
            quoted = [b"\"", path, b"\""].concat();
            &quoted
        }
        _ => path,
    };
    for (i, field) in [path, status.as_bytes(), code.as_bytes()].into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        if field.iter().any(|b| matches!(b, b',' | b'"' | b'\r' | b'\n')) {
            out.push(b'"');
            for byte in field {
                if *byte == b'"' {
                    out.push(b'"');
                }
                out.push(*byte);
            }
            out.push(b'"');
        } else {
            out.extend_from_slice(field);
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(path: &[u8]) -> String {
        let mut out = Vec::new();
        csv_line(&mut out, path, FILE_FAILED, "S3Error");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn lines_of_reports_are_those_of_fsx() {
        assert_eq!(line(b"a/b c"), "a/b c,failed,S3Error\r\n");
        assert_eq!(line(b"@f"), "\"\"\"@f\"\"\",failed,S3Error\r\n");
        assert_eq!(line(b"=1,2"), "\"\"\"=1,2\"\"\",failed,S3Error\r\n");
        assert_eq!(line(b"a,b"), "\"a,b\",failed,S3Error\r\n");
        assert_eq!(line(b"a\"b"), "\"a\"\"b\",failed,S3Error\r\n");
        assert_eq!(line(b"a\nb"), "\"a\nb\",failed,S3Error\r\n");
        assert_eq!(line(b"a@b-c"), "a@b-c,failed,S3Error\r\n");
    }

    /// The fields of one record, as RFC 4180 has them.
    fn fields(line: &[u8]) -> Vec<Vec<u8>> {
        let line = line.strip_suffix(b"\r\n").expect("a line has an end");
        let (mut all, mut at) = (vec![Vec::new()], 0);
        let mut quoted = false;
        while let Some(&byte) = line.get(at) {
            at += 1;
            let last = all.last_mut().expect("one at least");
            match byte {
                b'"' if quoted && line.get(at) == Some(&b'"') => {
                    at += 1;
                    last.push(b'"');
                }
                b'"' => quoted = !quoted,
                b',' if !quoted => all.push(Vec::new()),
                byte => last.push(byte),
            }
        }
        assert!(!quoted, "a quote is open");
        all
    }

    proptest! {
        #[test]
        fn whatever_a_path_has_in_it_is_read_back(path in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'"'),
            Just(b','), Just(b'@'), Just(b'\n')], 1..40)) {
            let mut out = Vec::new();
            csv_line(&mut out, &path, FILE_FAILED, "CODE");
            let found = fields(&out);
            let formula = matches!(path[0], b'@' | b'+' | b'-' | b'=');
            let want = if formula { [b"\"".as_slice(), &path, b"\""].concat() } else { path };
            prop_assert_eq!(found, vec![want, b"failed".to_vec(), b"CODE".to_vec()]);
        }
    }

    #[test]
    fn only_moves_of_the_drawing_are_legal() {
        let all = TaskState::ALL;
        let legal = all.iter().flat_map(|a| all.iter().filter(|b| a.may_become(**b))).count();
        assert_eq!(legal, 7);
        for state in all.into_iter().filter(|s| s.is_over()) {
            assert!(all.iter().all(|next| !state.may_become(*next)), "{state} is an end");
        }
    }

    #[test]
    fn numbers_paths_and_marks_are_checked() {
        let id = TaskId(0xabc);
        assert_eq!(id.to_string().parse(), Ok(id));
        "task-1".parse::<TaskId>().expect_err("too short");
        let spec =
            |kind, path: &str, days| TaskSpec { kind, paths: vec![path.to_owned()], report: None, days }.checked();
        assert_eq!(spec(TaskKind::Release, "a/b", 3).expect("relative").paths, ["/a/b"]);
        assert_eq!(spec(TaskKind::Import, "s3://b/p", 0).expect("a URL").paths, ["s3://b/p"]);
        spec(TaskKind::Export, "s3://b/p", 0).expect_err("no URL");
        spec(TaskKind::Export, "/a", 1).expect_err("no age");
        spec(TaskKind::Export, "/a/../b", 0).expect_err("no path");
        let many = TaskSpec { kind: TaskKind::Export, paths: vec!["/".to_owned(); 101], report: None, days: 0 };
        many.checked().expect_err("too many");
        AutoRelease { high: 90, low: 80 }.checked().expect("marks");
        AutoRelease::OFF.checked().expect("off");
        for (high, low) in [(80, 80), (100, 80), (50, 0), (0, 1)] {
            AutoRelease { high, low }.checked().expect_err("no marks");
        }
    }
}
