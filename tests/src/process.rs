//! A server or mount process that the test started: logging to a file, killed and restarted at will, never left behind.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::command::tail;
use crate::wait;

/// Environment variables that are read by the tests themselves.
const OWN_SETTINGS: [&str; 6] = [
    "SATEEN_BIN_DIR",
    "SATEEN_TEST_DIR",
    "SATEEN_TOOLS_DIR",
    "SATEEN_TEST_SEED",
    "SATEEN_TEST_READY",
    "SATEEN_TEST_PERCENT",
];
/// How long a process may take to stop after SIGTERM.
const STOP: Duration = Duration::from_secs(60);

/// A child process with a log file. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `program` with its output appended to `log`, after `prepare` has had its way with the command.
    #[track_caller]
    pub fn start(
        name: &str,
        program: &Path,
        args: &[std::ffi::OsString],
        log: &Path,
        prepare: impl FnOnce(&mut Command),
    ) -> Process {
        let out = File::options().create(true).append(true).open(log).expect("the log file can be created");
        let err = out.try_clone().expect("a file handle can be copied");
        let mut command = Command::new(program);
        // Settings of the tests are none of the servers'.
        OWN_SETTINGS.iter().for_each(|name| {
            command.env_remove(name);
        });
        command.args(args).stdin(Stdio::null()).stdout(out).stderr(err);
        prepare(&mut command);
        let child = spawn_tied(command).unwrap_or_else(|e| panic!("cannot start {}: {e}", program.display()));
        Process { name: name.to_owned(), log: log.to_owned(), child }
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far, over all its lives.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Exit status if it has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child can be waited for")
    }

    /// Panics if it has ended.
    #[track_caller]
    pub fn assert_runs(&mut self) {
        if let Some(status) = self.exited() {
            panic!("{} has ended ({status})\n--- log\n{}", self.name, tail(&self.log(), 40));
        }
    }

    /// Stops it where it is (SIGSTOP): it answers nobody until it goes on or is killed.
    pub fn freeze(&self) {
        let _ = rustix::process::kill_process(self.pid(), Signal::STOP);
    }

    /// Lets it go on after [`Process::freeze`].
    pub fn thaw(&self) {
        let _ = rustix::process::kill_process(self.pid(), Signal::CONT);
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill9(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        wait::until(&format!("the end of {}", self.name), deadline, || self.exited())
    }

    /// Sends SIGTERM and waits for its end.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        if self.exited().is_none() {
            let _ = rustix::process::kill_process(self.pid(), Signal::TERM);
        }
        self.wait(STOP)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            eprintln!("--- last lines of {} ({})\n{}", self.name, self.log.display(), tail(&self.log(), 30));
        }
    }
}

type Request = (Command, Sender<std::io::Result<Child>>);

/// Starts a child that the kernel kills when this process dies.
///
/// The parent-death signal is sent when the *thread* that started the child ends, so one thread that lives as long as
/// the process starts them all.
fn spawn_tied(command: Command) -> std::io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Request>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (send, receive) = channel::<Request>();
        let test = rustix::process::getpid();
        std::thread::Builder::new()
            .name("spawner".into())
            .spawn(move || {
                for (mut command, answer) in receive {
                    // SAFETY: prctl and getppid are async-signal-safe and touch nothing of ours.
                    unsafe {
                        command.pre_exec(move || {
                            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                            // The test may have died before the kernel was asked to tell.
                            match rustix::process::getppid() {
                                Some(parent) if parent == test => Ok(()),
                                _ => Err(std::io::ErrorKind::NotFound.into()),
                            }
                        });
                    }
                    let _ = answer.send(command.spawn());
                }
            })
            .expect("a thread can be started");
        send
    });
    let (send, receive) = channel();
    spawner.send((command, send)).expect("the spawner lives as long as the process");
    receive.recv().expect("the spawner answers every request")
}
