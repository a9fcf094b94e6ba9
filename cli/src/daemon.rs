//! A mount in the background: the parent starts this program again, waits for one line, and exits with its outcome.
//!
//! The child is the same program with `--detached`. It leaves the terminal's session, logs to a file, and writes one
//! JSON line ([`Report`]) to its standard output when the mount can be used or cannot be made.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sateen_types::{FsCode, FsError, FsResult};
use serde::{Deserialize, Serialize};

/// Longest report that is read. An error is two lines.
const REPORT_BYTES_MAX: u64 = 64 << 10;

/// How it went, from the background process to the one that waits.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The mount can be used.
    Ready,
    /// There will be no mount.
    Failed {
        /// [`FsCode::wire`].
        code: u32,
        /// What failed.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
}

impl From<&FsError> for Report {
    fn from(e: &FsError) -> Report {
        Report::Failed { code: e.code.wire(), message: e.message.clone(), hint: e.hint.clone() }
    }
}

impl Report {
    /// Sends it to the process that waits. If that is gone, nobody wants to know.
    pub fn send(&self) {
        if let Ok(mut line) = serde_json::to_vec(self) {
            line.push(b'\n');
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(&line).and_then(|()| out.flush());
        }
    }

    fn into_result(self) -> FsResult<()> {
        match self {
            Report::Ready => Ok(()),
            Report::Failed { code, message, hint } => {
                Err(FsError { code: FsCode::from_wire(code).unwrap_or(FsCode::Internal), message, hint })
            }
        }
    }
}

/// What to start.
#[derive(Debug)]
pub struct Background<'a> {
    /// `HOST:PORT:/FS`.
    pub source: &'a str,
    /// Absolute mount point.
    pub point: &'a Path,
    /// `-o` arguments.
    pub options: &'a [String],
    /// Where it logs; `None` for the usual place.
    pub log: Option<&'a Path>,
    /// What it logs.
    pub log_level: &'a str,
}

/// Starts the mount process and waits until it can be used. Gives its process id.
pub fn start(what: &Background<'_>) -> FsResult<u32> {
    let io = |doing: &str, e: std::io::Error| FsError::new(FsCode::Io, format!("{doing}: {e}"));
    let program = std::env::current_exe().map_err(|e| io("cannot find this program", e))?;
    let (log, log_path) = open_log(what.log, what.point)?;
    let mut child = Command::new(program)
        // The address is in the source; the variable is for the command that was typed.
        .env_remove("SATEEN_MDS")
        .args(["mount", "--detached", "--foreground", "--log-level", what.log_level])
        .args(what.options.iter().flat_map(|o| ["-o", o]))
        .arg("--")
        .arg(what.source)
        .arg(what.point)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|e| io("cannot start the mount process", e))?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        // Whatever cannot be read is no report, which is handled below.
        let _ = BufReader::new(out.take(REPORT_BYTES_MAX)).read_line(&mut line);
    }
    match serde_json::from_str::<Report>(&line) {
        Ok(report) => report.into_result().map(|()| child.id()),
        Err(_) => {
            let status = child.wait().map_err(|e| io("cannot wait for the mount process", e))?;
            Err(FsError::new(FsCode::Internal, format!("the mount process ended without a word ({status})"))
                .with_hint(format!("see its log {}", log_path.display())))
        }
    }
}

/// Opens the log for appending and gives its path. Without one named, the usual place is tried, and what cannot be
/// opened there goes to /dev/null: a mount matters more than its log.
fn open_log(asked: Option<&Path>, point: &Path) -> FsResult<(File, PathBuf)> {
    let open = |path: &Path| File::options().create(true).append(true).open(path);
    if let Some(path) = asked {
        let file = open(path).map_err(|e| {
            FsError::new(FsCode::AccessDenied, format!("cannot open the log {}: {e}", path.display()))
                .with_hint("give a file in an existing directory with --log FILE")
        })?;
        return Ok((file, path.to_owned()));
    }
    let usual = usual_log_dir().and_then(|dir| {
        std::fs::create_dir_all(&dir).ok()?;
        let name: String = point.to_string_lossy().trim_matches('/').replace('/', "-");
        let path = dir.join(format!("mount-{name}.log"));
        Some((open(&path).ok()?, path))
    });
    match usual {
        Some(found) => Ok(found),
        None => {
            let null = PathBuf::from("/dev/null");
            let file = open(&null).map_err(|e| FsError::new(FsCode::Io, format!("cannot open /dev/null: {e}")))?;
            Ok((file, null))
        }
    }
}

fn usual_log_dir() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/log/sateen"));
    }
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".local/state"));
    state.or_else(home).map(|dir| dir.join("sateen"))
}

/// In the child: leaves the terminal and the directory it was started in.
pub fn detach() {
    // Fails only for a process group leader, which the child just started is not.
    let _ = rustix::process::setsid();
    let _ = std::env::set_current_dir("/");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reaches_the_waiting_process_whole() {
        let e = FsError::new(FsCode::TimedOut, "MDS h:1 did not answer").with_hint("start it");
        let text = serde_json::to_string(&Report::from(&e)).expect("json");
        let back: Report = serde_json::from_str(&text).expect("json");
        assert_eq!(back.into_result(), Err(e));
        assert_eq!(
            serde_json::from_str::<Report>(&serde_json::to_string(&Report::Ready).expect("json")).expect("json"),
            Report::Ready
        );
    }
}
