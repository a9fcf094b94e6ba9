//! Makes a process believe that it syncs: the kernel answers its fsync and its like with success and does nothing.
//!
//! For tests of tests only: a power-cut test that passes with this switched on sees nothing. It is a seccomp filter, so it
//! catches every call, whatever library makes it, and no product code knows of it.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Calls that make data durable.
const SYNCS: [libc::c_long; 6] = [
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_msync,
    libc::SYS_sync,
    libc::SYS_syncfs,
];

/// What `command` starts will have its syncs ignored.
pub fn ignore(command: &mut Command) {
    let filter = filter();
    // SAFETY: prctl is async-signal-safe; it reads the filter, which lives in the closure, and touches nothing else.
    unsafe { command.pre_exec(move || install(&filter)) };
}

/// `if call is one of SYNCS { answer 0 } else { allow }`.
fn filter() -> Vec<libc::sock_filter> {
    let code = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    // The number of the call is the first word of what the filter is given.
    let mut program = vec![code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for (i, call) in SYNCS.iter().enumerate() {
        let past_the_rest = (SYNCS.len() - i) as u8;
        program.push(code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, past_the_rest, 0, *call as u32));
    }
    program.push(code(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    // An error number of 0 is success.
    program.push(code(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO));
    program
}

fn install(filter: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the first call takes numbers only; the second reads `program` and the filter it points to.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_that_must_fail_succeeds_and_other_calls_are_left_alone() {
        // fsync of a pipe is EINVAL.
        let said = |ignored: bool| {
            let mut sync = Command::new("sh");
            sync.args(["-c", "echo x | dd conv=fsync 2>&1 | cat"]);
            if ignored {
                ignore(&mut sync);
            }
            String::from_utf8_lossy(&sync.output().expect("sh can be started").stdout).into_owned()
        };
        let (real, ignored) = (said(false), said(true));
        assert!(real.contains("fsync failed"), "{real}");
        assert!(!ignored.contains("fsync failed") && ignored.contains('x'), "{ignored}");
    }
}
