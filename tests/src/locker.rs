//! A process that takes locks as it is told. POSIX locks belong to processes and a call may wait, so each party of a test
//! about locks is a process of its own (`locker`), which reads one command per line and answers each with one line.
//!
//! ```text
//! open FD rw|ro PATH      close FD        dup FD NEW
//! set|setw|oset|osetw FD r|w|u START LENGTH       (fcntl; o: of the open file; w: waits)
//! get FD r|w START LENGTH                         (F_GETLK: `free`, or what is held)
//! flock FD sh|ex|un [nb]
//! alarm MILLISECONDS      (its handler does nothing, and calls are not restarted)
//! child-closes FD         (fork, close in the child, wait for its end)
//! count FD ROUNDS         (adds 1 to the number at byte 4096, each time under an exclusive lock of byte 0)
//! read FD OFFSET LENGTH   write FD OFFSET TEXT    sync FD
//! ```
//!
//! Answers: `ok`, `ok WORDS` or `err ERRNO`.

use std::ffi::CString;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// Longest any answer may take that is not expected to wait.
const ANSWER: Duration = Duration::from_secs(90);

/// Such a process, as the test has it. Killed when dropped.
#[derive(Debug)]
pub struct Locker {
    child: Child,
    orders: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Locker {
    /// Starts `program` (`locker`) and opens `path` in it for reading and writing, as 0.
    #[track_caller]
    pub fn start(program: &str, path: &Path) -> Locker {
        let mut locker = Locker::begin_start(program, path);
        let answer = locker.answer();
        assert_eq!(answer, "ok", "{}", path.display());
        locker
    }

    /// [`Locker::start`] without waiting for the file to be open.
    #[track_caller]
    pub fn begin_start(program: &str, path: &Path) -> Locker {
        let mut command = Command::new(program);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("locker can be started");
        let (send, answers) = channel();
        let pipe = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            for line in pipe.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let mut locker = Locker { orders: child.stdin.take(), child, answers };
        locker.begin(&format!("open 0 rw {}", path.display()));
        locker
    }

    /// Id of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a command and does not wait for its answer.
    #[track_caller]
    pub fn begin(&mut self, order: &str) {
        let orders = self.orders.as_mut().expect("not killed");
        writeln!(orders, "{order}").and_then(|()| orders.flush()).expect("the locker lives");
    }

    /// The next answer.
    #[track_caller]
    pub fn answer(&mut self) -> String {
        self.answers.recv_timeout(ANSWER).unwrap_or_else(|e| panic!("the locker did not answer: {e}"))
    }

    /// The next answer, if it is there.
    pub fn try_answer(&mut self) -> Option<String> {
        self.answers.try_recv().ok()
    }

    /// Whether the command that was begun has no answer yet. Says nothing about the next moment.
    pub fn is_waiting(&mut self) -> bool {
        match self.answers.recv_timeout(Duration::ZERO) {
            Err(RecvTimeoutError::Timeout) => true,
            Ok(answer) => panic!("answered {answer}"),
            Err(RecvTimeoutError::Disconnected) => false,
        }
    }

    /// Sends a command and gives its answer.
    #[track_caller]
    pub fn ask(&mut self, order: &str) -> String {
        self.begin(order);
        self.answer()
    }

    /// A command that must succeed; gives the rest of its answer.
    #[track_caller]
    pub fn ok(&mut self, order: &str) -> String {
        let answer = self.ask(order);
        let rest = answer.strip_prefix("ok").unwrap_or_else(|| panic!("{order}: {answer}"));
        rest.trim_start().to_owned()
    }

    /// A command that must fail with this error number.
    #[track_caller]
    pub fn fails(&mut self, order: &str, errno: i32) {
        assert_eq!(self.ask(order), format!("err {errno}"), "{order}");
    }

    /// `kill -9`, and waits until the process is gone, which it is not while a request of its is unanswered.
    pub fn kill9(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// The process itself: does what standard input says until that ends.
pub fn serve() {
    let mut open: Vec<i32> = vec![-1; 16];
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match obey(&mut open, &words) {
            Ok(text) if text.is_empty() => "ok".to_owned(),
            Ok(text) => format!("ok {text}"),
            Err(e) => format!("err {}", e.raw_os_error().unwrap_or(0)),
        };
        println!("{answer}");
    }
}

fn number<T: std::str::FromStr>(word: &str) -> T {
    word.parse().unwrap_or_else(|_| panic!("{word:?} is no number"))
}

fn check(result: i64) -> std::io::Result<i64> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}

fn flock_of(kind: &str, start: &str, length: &str) -> libc::flock {
    // SAFETY: a structure of numbers, for which zeros are valid.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = match kind {
        "r" => libc::F_RDLCK,
        "w" => libc::F_WRLCK,
        _ => libc::F_UNLCK,
    } as libc::c_short;
    (lock.l_start, lock.l_len) = (number(start), number(length));
    lock
}

fn fcntl(fd: i32, command: i32, lock: &mut libc::flock) -> std::io::Result<()> {
    // SAFETY: the structure is what these commands take.
    check(i64::from(unsafe { libc::fcntl(fd, command, std::ptr::from_mut(lock)) })).map(drop)
}

extern "C" fn nothing(_: i32) {}

fn obey(open: &mut [i32], words: &[&str]) -> std::io::Result<String> {
    let fd = |i: usize, open: &[i32]| open[number::<usize>(words[i])];
    match words {
        ["open", n, mode, path] => {
            let flags = match *mode {
                "rw" => libc::O_RDWR | libc::O_CREAT,
                "a" => libc::O_WRONLY | libc::O_APPEND,
                _ => libc::O_RDONLY,
            };
            let path = CString::new(*path).expect("no NUL");
            // SAFETY: the path ends with NUL.
            open[number::<usize>(n)] = check(i64::from(unsafe { libc::open(path.as_ptr(), flags, 0o644) }))? as i32;
        }
        // SAFETY: (this and below) plain numbers.
        ["close", _] => drop(check(i64::from(unsafe { libc::close(fd(1, open)) }))?),
        ["dup", _, new] => {
            open[number::<usize>(new)] = check(i64::from(unsafe { libc::dup(fd(1, open)) }))? as i32;
        }
        [call @ ("set" | "setw" | "oset" | "osetw"), _, kind, start, length] => {
            let command = match *call {
                "set" => libc::F_SETLK,
                "setw" => libc::F_SETLKW,
                "oset" => libc::F_OFD_SETLK,
                _ => libc::F_OFD_SETLKW,
            };
            fcntl(fd(1, open), command, &mut flock_of(kind, start, length))?;
        }
        ["get", _, kind, start, length] => {
            let mut lock = flock_of(kind, start, length);
            fcntl(fd(1, open), libc::F_GETLK, &mut lock)?;
            return Ok(match i32::from(lock.l_type) {
                libc::F_UNLCK => "free".to_owned(),
                kind => {
                    let kind = if kind == libc::F_RDLCK { "r" } else { "w" };
                    format!("{kind} {} {} {}", lock.l_start, lock.l_len, lock.l_pid)
                }
            });
        }
        ["flock", _, kind, more @ ..] => {
            let mut operation = match *kind {
                "sh" => libc::LOCK_SH,
                "ex" => libc::LOCK_EX,
                _ => libc::LOCK_UN,
            };
            if more.contains(&"nb") {
                operation |= libc::LOCK_NB;
            }
            check(i64::from(unsafe { libc::flock(fd(1, open), operation) }))?;
        }
        ["alarm", ms] => {
            // SAFETY: the handler does nothing, and the structures are numbers.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
                libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut());
                let mut timer: libc::itimerval = std::mem::zeroed();
                let ms: i64 = number(ms);
                (timer.it_value.tv_sec, timer.it_value.tv_usec) = (ms / 1000, ms % 1000 * 1000);
                libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut());
            }
        }
        ["child-closes", _] => {
            let fd = fd(1, open);
            // SAFETY: the child only closes a descriptor and ends.
            unsafe {
                let child = check(i64::from(libc::fork()))? as i32;
                if child == 0 {
                    libc::close(fd);
                    libc::_exit(0);
                }
                check(i64::from(libc::waitpid(child, std::ptr::null_mut(), 0)))?;
            }
        }
        ["count", _, rounds] => {
            let fd = fd(1, open);
            for _ in 0..number::<u32>(rounds) {
                fcntl(fd, libc::F_SETLKW, &mut flock_of("w", "0", "1"))?;
                let seen = read_at(fd, 4096, 8)?;
                let seen = seen.try_into().map_or(0, u64::from_le_bytes);
                write_at(fd, 4096, &(seen + 1).to_le_bytes())?;
                fcntl(fd, libc::F_SETLK, &mut flock_of("u", "0", "1"))?;
            }
        }
        ["read", _, offset, length] => {
            let bytes = read_at(fd(1, open), number(offset), number(length))?;
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        ["write", _, offset, text] => write_at(fd(1, open), number(offset), text.as_bytes())?,
        // SAFETY: fsync only takes a descriptor.
        ["sync", _] => drop(check(i64::from(unsafe { libc::fsync(fd(1, open)) }))?),
        other => panic!("no such command: {other:?}"),
    }
    Ok(String::new())
}

fn read_at(fd: i32, offset: i64, length: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    // SAFETY: the buffer is as long as is said.
    let read = check(unsafe { libc::pread(fd, bytes.as_mut_ptr().cast(), length, offset) } as i64)?;
    bytes.truncate(read as usize);
    Ok(bytes)
}

fn write_at(fd: i32, offset: i64, bytes: &[u8]) -> std::io::Result<()> {
    // SAFETY: the buffer is as long as is said.
    let written = check(unsafe { libc::pwrite(fd, bytes.as_ptr().cast(), bytes.len(), offset) } as i64)?;
    assert_eq!(written as usize, bytes.len(), "a short write");
    Ok(())
}
