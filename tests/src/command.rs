//! Running a program to its end, with a deadline, and looking at what it said.

use std::fmt;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::wait;

/// How a program ended and what it printed.
#[derive(Debug, Clone)]
pub struct Done {
    /// The command line, for messages.
    pub line: String,
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Signal that ended it.
    pub signal: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

impl Done {
    /// Whether it ended with exit code 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// Checks for an error in the form users are promised: this exit code, a line `error: ...` and a line `hint: ...`.
    #[track_caller]
    pub fn assert_fails_with_hint(&self, code: i32) -> &Done {
        assert_eq!(self.code, Some(code), "exit code: {self}");
        for start in ["error: ", "hint: "] {
            assert!(self.stderr.lines().any(|l| l.trim_start().starts_with(start)), "no line {start:?}: {self}");
        }
        self
    }

    /// Checks that standard error contains `text`.
    #[track_caller]
    pub fn assert_says(&self, text: &str) -> &Done {
        assert!(self.stderr.contains(text), "{text:?} is not said: {self}");
        self
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = match (self.code, self.signal) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "no exit status".to_owned(),
        };
        write!(f, "`{}`: {end} after {:.1?}", self.line, self.took)?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.is_empty() {
                write!(f, "\n--- {name}\n{}", tail(text, 40))?;
            }
        }
        Ok(())
    }
}

/// The last `lines` lines of `text`.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Runs `command` to its end. Its whole process group is killed, and the test fails, after `deadline`.
#[track_caller]
pub fn run(command: &mut Command, deadline: Duration) -> Done {
    let line = line_of(command);
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start `{line}`: {e}"));
    let stdout = reader(child.stdout.take());
    let stderr = reader(child.stderr.take());
    let status = wait::try_until(deadline, || child.try_wait().expect("our own child can be waited for"));
    let Some(status) = status else {
        if let Some(group) = rustix::process::Pid::from_raw(child.id() as i32) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = child.wait();
        panic!("`{line}` did not end within {deadline:?}\n--- stderr\n{}", tail(&join(stderr), 40));
    };
    Done {
        line,
        code: status.code(),
        signal: status.signal(),
        stdout: join(stdout),
        stderr: join(stderr),
        took: started.elapsed(),
    }
}

/// Runs `command` and checks that it succeeded.
#[track_caller]
pub fn run_ok(command: &mut Command, deadline: Duration) -> Done {
    let done = run(command, deadline);
    assert!(done.success(), "{done}");
    done
}

/// Runs a shell script with arguments `$1`, `$2`..., stopping at the first command that fails.
#[track_caller]
pub fn sh(script: &str, args: &[&dyn AsRef<std::ffi::OsStr>], deadline: Duration) -> Done {
    let mut command = Command::new("bash");
    command.arg("-c").arg(format!("set -euo pipefail; {script}")).arg("bash");
    for arg in args {
        command.arg(arg.as_ref());
    }
    run_ok(&mut command, deadline)
}

fn line_of(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

type Reader = std::thread::JoinHandle<Vec<u8>>;

/// Drains a pipe on a thread of its own, so that the program never waits for us.
fn reader(pipe: Option<impl Read + Send + 'static>) -> Reader {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn join(reader: Reader) -> String {
    String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
}
