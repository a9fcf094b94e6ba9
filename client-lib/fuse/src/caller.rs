//! What fuser does not tell about the thread behind a request that may wait for long, asked from `/proc`.
//!
//! *Which call it is in.* The kernel marks requests of `flock`; fuser 0.18 drops the mark. While a request is not answered,
//! its thread stays in the system call, whose number and arguments are in `/proc/TID/syscall`. Reading that needs the right
//! to trace the thread, which root has.
//!
//! *Whether it got a signal.* The kernel sends an interrupt for a request whose thread got one; fuser answers that it knows
//! none. From then on the thread waits for our answer whatever happens, `kill -9` included. So whoever waits long looks for
//! pending signals in `/proc/TID/status`, and the request is answered with EINTR.

use std::time::Duration;

use sateen_types::LockClass;

/// Pause between looks for signals.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Looks after which the pause gets longer, and how long it is then.
const LOOKS_SHORT: u32 = 100;
const LOOK_INTERVAL_LONG: Duration = Duration::from_millis(200);
/// Tries to catch a thread that is just about to sleep, how many of them at once, and the pause between the others.
const CATCH_TRIES: u32 = 30;
const CATCH_TRIES_AT_ONCE: u32 = 10;
const CATCH_PAUSE: Duration = Duration::from_millis(1);
/// flock, fcntl and fcntl64 of 32-bit programs, on x86 and ARM.
const COMPAT_FLOCK: i64 = 143;
const COMPAT_FCNTL: [i64; 2] = [55, 221];
/// Bit of `SIGKILL` in a mask of signals.
const KILL: u64 = 1 << (libc::SIGKILL - 1);

/// What is known of a thread in a system call.
#[derive(Debug, PartialEq, Eq)]
enum Call {
    /// It has not gone to sleep yet.
    Running,
    Known(LockClass),
    /// Another call, or it may not be asked.
    Unknown,
}

/// By which call thread `thread` asks for a lock; `None` if that cannot be found out.
pub async fn class_of(thread: u32) -> Option<LockClass> {
    for tries in 0..CATCH_TRIES {
        match read(thread, "syscall").await.map_or(Call::Unknown, |text| call(&text)) {
            Call::Known(class) => return Some(class),
            Call::Unknown => return None,
            Call::Running if tries < CATCH_TRIES_AT_ONCE => tokio::task::yield_now().await,
            Call::Running => tokio::time::sleep(CATCH_PAUSE).await,
        }
    }
    None
}

/// `NUMBER ARG0 ARG1 ...`, arguments in hexadecimal.
fn call(text: &str) -> Call {
    let mut fields = text.split_ascii_whitespace();
    let Some(number) = fields.next() else { return Call::Unknown };
    if number == "running" {
        return Call::Running;
    }
    let Ok(number) = number.parse::<i64>() else { return Call::Unknown };
    if number == libc::SYS_flock || number == COMPAT_FLOCK {
        return Call::Known(LockClass::Flock);
    }
    if number != libc::SYS_fcntl && !COMPAT_FCNTL.contains(&number) {
        return Call::Unknown;
    }
    let command = fields.nth(1).and_then(|f| i64::from_str_radix(f.trim_start_matches("0x"), 16).ok());
    let open_file = [libc::F_OFD_GETLK, libc::F_OFD_SETLK, libc::F_OFD_SETLKW];
    match command {
        Some(c) if open_file.iter().any(|ofd| i64::from(*ofd) == c) => Call::Known(LockClass::Ofd),
        Some(_) => Call::Known(LockClass::Posix),
        None => Call::Unknown,
    }
}

/// Completes when thread `thread` has a signal to handle, or is gone. Never for a thread that is not visible here.
pub async fn signalled(thread: u32) {
    let mut before = false;
    wait_for(thread, |pending| {
        // A signal to the whole process may be about to be handled by another thread: then it is gone at the next look.
        let signalled = pending.own || (pending.shared && before);
        before = pending.shared;
        signalled
    })
    .await;
}

/// Completes when thread `thread` is being killed, or is gone: the only thing that may end a read or a write of a file, for
/// programs do not expect that other signals do. Never for a thread that is not visible here.
pub async fn killed(thread: u32) {
    wait_for(thread, |pending| pending.kill).await;
}

async fn wait_for(thread: u32, mut wanted: impl FnMut(Pending) -> bool) {
    if thread == 0 {
        return std::future::pending().await;
    }
    let mut looks = 0u32;
    loop {
        tokio::time::sleep(if looks < LOOKS_SHORT { LOOK_INTERVAL } else { LOOK_INTERVAL_LONG }).await;
        looks = looks.saturating_add(1);
        let Some(status) = read(thread, "status").await else { return };
        if wanted(Pending::of(&status)) {
            return;
        }
    }
}

/// Signals that would interrupt a thread.
#[derive(Debug, PartialEq, Eq)]
struct Pending {
    own: bool,
    shared: bool,
    /// Every thread of a process that a signal ends gets this one.
    kill: bool,
}

impl Pending {
    fn of(status: &str) -> Pending {
        let mask = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0)
        };
        let heard = !(mask("SigBlk") | mask("SigIgn")) | KILL;
        let (own, shared) = (mask("SigPnd"), mask("ShdPnd"));
        Pending { own: own & heard != 0, shared: shared & heard != 0, kill: (own | shared) & KILL != 0 }
    }
}

/// A file about a thread; `None` if it cannot be read. On a thread that may block: the kernel takes locks for it.
async fn read(thread: u32, what: &str) -> Option<String> {
    let path = format!("/proc/{thread}/{what}");
    tokio::task::spawn_blocking(move || std::fs::read_to_string(path).ok()).await.ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_apart_by_number_and_command() {
        let fcntl =
            |command: i32| call(&format!("{} 0x3 {command:#x} 0x7ffe 0x0 0x0 0x0 0x7ffd 0x7f", libc::SYS_fcntl));
        assert_eq!(
            call(&format!("{} 0x3 0x6 0x0 0x0 0x0 0x0 0x7ffd 0x7f", libc::SYS_flock)),
            Call::Known(LockClass::Flock)
        );
        assert_eq!(call("143 0x3 0x6 0x0 0x0 0x0 0x0 0xffd 0xf"), Call::Known(LockClass::Flock));
        assert_eq!(fcntl(libc::F_SETLKW), Call::Known(LockClass::Posix));
        assert_eq!(fcntl(libc::F_OFD_SETLK), Call::Known(LockClass::Ofd));
        assert_eq!(call("running\n"), Call::Running);
        for unknown in ["", "-1 0x7ffd 0x7f", "x", "0 0x3", &libc::SYS_fcntl.to_string()] {
            assert_eq!(call(unknown), Call::Unknown, "{unknown:?}");
        }
    }

    #[test]
    fn only_signals_that_would_be_handled_count() {
        let status = |own: u64, shared: u64, blocked: u64, ignored: u64| {
            Pending::of(&format!(
                "Name:\tx\nSigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\nSigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\n"
            ))
        };
        let alarm = 1 << (libc::SIGALRM - 1);
        assert_eq!(status(0, alarm, 0, 0), Pending { own: false, shared: true, kill: false });
        assert_eq!(status(alarm, 0, 0, 0), Pending { own: true, shared: false, kill: false });
        assert_eq!(status(alarm, alarm, alarm, 0), Pending { own: false, shared: false, kill: false });
        assert_eq!(status(0, alarm, 0, alarm), Pending { own: false, shared: false, kill: false });
        assert_eq!(status(KILL, 0, u64::MAX, u64::MAX), Pending { own: true, shared: false, kill: true });
        assert_eq!(Pending::of(""), Pending { own: false, shared: false, kill: false });
    }
}
