//! Processes of the cluster: starting, recognising, stopping.
//!
//! A pid file holds `PID STARTTIME BOOT`: the start time and the boot tell our process from another one that got its
//! number later, so nothing foreign is ever signalled.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use sateen_types::{FsCode, FsError, FsResult};

/// How often a condition outside this process is looked at.
pub const POLL: Duration = Duration::from_millis(25);
/// Lines of a log shown when its process failed.
const LOG_LINES: usize = 15;
/// Bytes read of a log's end for them.
const LOG_BYTES: u64 = 16 << 10;

/// Who a process is, beyond its number.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    pid: u32,
    start_time: u64,
    boot: String,
}

impl Identity {
    /// The running process `pid`; `None` if there is none or it is a zombie.
    fn of(pid: u32) -> Option<Identity> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything; the fields after the last one are plain.
        let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
        if matches!(fields.next()?, "Z" | "X") {
            return None;
        }
        let start_time = fields.nth(18)?.parse().ok()?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        Some(Identity { pid, start_time, boot })
    }

    fn read(path: &Path) -> Option<Identity> {
        let text = std::fs::read_to_string(path).ok()?;
        let mut words = text.split_ascii_whitespace();
        let identity = Identity {
            pid: words.next()?.parse().ok()?,
            start_time: words.next()?.parse().ok()?,
            boot: words.next()?.to_owned(),
        };
        Some(identity)
    }
}

/// The process a pid file names, if it still runs.
pub fn running(pid_file: &Path) -> Option<u32> {
    let written = Identity::read(pid_file)?;
    (Identity::of(written.pid)? == written).then_some(written.pid)
}

/// Writes a pid file. A process that is gone already gets none.
pub fn write_pid(pid_file: &Path, pid: u32) -> FsResult<()> {
    let Some(id) = Identity::of(pid) else { return Ok(()) };
    let text = format!("{} {} {}\n", id.pid, id.start_time, id.boot);
    std::fs::write(pid_file, text)
        .map_err(|e| FsError::new(FsCode::Io, format!("cannot write {}: {e}", pid_file.display())))
}

/// Finds a server program: beside this one, else in PATH.
pub fn find_program(name: &str) -> FsResult<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|me| Some(me.parent()?.join(name)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|dir| dir.join(name));
    beside.into_iter().chain(in_path).find(|p| p.is_file()).ok_or_else(|| {
        FsError::new(FsCode::NotFound, format!("program {name} is neither beside sateen nor in PATH"))
            .with_hint("build it: cargo build --release   (or install the server package)")
    })
}

/// Whether somebody else has the port.
pub fn check_port(name: &str, address: &str) -> FsResult<()> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(e) => Err(FsError::new(FsCode::Busy, format!("cannot start {name}: port {address} is not free: {e}"))
            .with_hint("stop the program that has it (ss -ltnp shows it), or choose others with --base-port P")),
    }
}

/// Starts a server with its log and writes its pid file.
pub fn spawn(program: &Path, args: &[OsString], log: &Path, pid_file: &Path) -> FsResult<Child> {
    use std::os::unix::process::CommandExt;
    let io = |what: &Path, e: std::io::Error| FsError::new(FsCode::Io, format!("{}: {e}", what.display()));
    let out = File::options().create(true).append(true).open(log).map_err(|e| io(log, e))?;
    let err = out.try_clone().map_err(|e| io(log, e))?;
    let child = Command::new(program)
        .env_remove("SATEEN_MDS")
        .args(args)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        // A Ctrl-C in the terminal is not meant for the servers.
        .process_group(0)
        .spawn()
        .map_err(|e| io(program, e))?;
    write_pid(pid_file, child.id())?;
    Ok(child)
}

/// How a process was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It did not run.
    NotRunning,
    /// It ended when asked.
    Gracefully,
    /// It had to be killed.
    Killed,
}

/// Asks the process of a pid file to end, waits up to `patience`, then kills it. Removes the pid file.
pub fn stop(pid_file: &Path, patience: Duration) -> FsResult<Stopped> {
    let outcome = stop_process(pid_file, patience)?;
    match std::fs::remove_file(pid_file) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(FsError::new(FsCode::Io, format!("cannot remove {}: {e}", pid_file.display())))
        }
        _ => Ok(outcome),
    }
}

fn stop_process(pid_file: &Path, patience: Duration) -> FsResult<Stopped> {
    let Some(written) = Identity::read(pid_file) else { return Ok(Stopped::NotRunning) };
    let pid = i32::try_from(written.pid).ok().and_then(Pid::from_raw);
    // From here on the descriptor names this very process, whatever happens to its number.
    let Some(handle) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
        return Ok(Stopped::NotRunning);
    };
    if Identity::of(written.pid).as_ref() != Some(&written) {
        return Ok(Stopped::NotRunning);
    }
    let denied = |e: rustix::io::Errno| {
        FsError::new(FsCode::NotPermitted, format!("cannot stop process {}: {e}", written.pid))
            .with_hint("run this as the user who started the cluster")
    };
    for (signal, outcome, patience) in
        [(Signal::TERM, Stopped::Gracefully, patience), (Signal::KILL, Stopped::Killed, Duration::from_secs(10))]
    {
        match pidfd_send_signal(&handle, signal) {
            Ok(()) => {}
            Err(rustix::io::Errno::SRCH) => return Ok(outcome),
            Err(e) => return Err(denied(e)),
        }
        if wait_until(patience, || Identity::of(written.pid).as_ref() != Some(&written)) {
            return Ok(outcome);
        }
    }
    Err(FsError::new(FsCode::TimedOut, format!("process {} does not end, even killed", written.pid)))
}

/// Waits until `done` or `patience` is over; says whether it was done.
pub fn wait_until(patience: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if done() {
            return true;
        }
        if start.elapsed() >= patience {
            return false;
        }
        std::thread::sleep(POLL);
    }
}

/// The last lines of a log.
pub fn log_tail(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(LOG_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temp(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("sateen-dev-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_pid_file_names_a_process_and_not_its_successor() {
        let path = temp("pid");
        write_pid(&path, std::process::id()).expect("write");
        assert_eq!(running(&path), Some(std::process::id()));
        let text = std::fs::read_to_string(&path).expect("read");
        let mut words: Vec<&str> = text.split_whitespace().collect();
        words[1] = "1";
        std::fs::write(&path, words.join(" ")).expect("write");
        assert_eq!(running(&path), None);
        assert_eq!(stop(&path, Duration::ZERO).expect("nothing to stop"), Stopped::NotRunning);
        assert!(!path.exists());
    }

    #[test]
    fn a_process_is_asked_first_and_killed_if_it_does_not_listen() {
        let start = |script: &str| Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().expect("sh");
        for (script, want) in [
            ("echo up; exec sleep 600", Stopped::Gracefully),
            ("trap '' TERM; echo up; while :; do sleep 1; done", Stopped::Killed),
        ] {
            let path = temp("stop");
            let mut child = start(script);
            // It has set its trap once it says so.
            let mut word = [0u8; 3];
            child.stdout.take().expect("piped").read_exact(&mut word).expect("up");
            write_pid(&path, child.id()).expect("write");
            assert_eq!(stop(&path, Duration::from_millis(500)).expect("stopped"), want);
            child.wait().expect("reaped");
            assert_eq!(running(&path), None);
        }
    }

    #[test]
    fn a_busy_port_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("any port");
        let address = listener.local_addr().expect("bound").to_string();
        let err = check_port("oss0", &address).expect_err("busy");
        assert!(err.message.contains(&address) && err.hint.expect("hint").contains("--base-port"));
        drop(listener);
        check_port("oss0", &address).expect("free");
    }

    #[test]
    fn the_end_of_a_log_is_shown() {
        let path = temp("log");
        let text: String = (0..100).map(|i| format!("line {i}\n")).collect();
        std::fs::write(&path, text).expect("write");
        let tail = log_tail(&path);
        assert!(tail.starts_with("line 85\n") && tail.ends_with("line 99"), "{tail}");
        std::fs::remove_file(&path).expect("remove");
        assert_eq!(log_tail(&path), "");
    }
}
