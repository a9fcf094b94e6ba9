//! Requests by io_uring instead of reads of `/dev/fuse` (Linux 6.14; `/sys/module/fuse/parameters/enable_uring`): a ring for each
//! processor, whose thread is woken where the program runs, with one system call for an answer and the next request.
//!
//! The connection is begun by fuser, which goes on reading what does not come by rings (forgets and interrupts). From the
//! moment in which every ring has an entry, all else comes by them.

mod abi;
mod queue;
mod serve;
mod slot;
#[cfg(test)]
mod tests;
mod wake;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use sateen_types::{FsCode, FsError, FsResult};

use crate::init::WRITE_BYTES_MAX;
use crate::kernel;
use queue::Queue;
pub use serve::Server;
use wake::Waker;

/// Whether the kernel has it, and an administrator wants it.
const SWITCH: &str = "/sys/module/fuse/parameters/enable_uring";
/// Processors that there may ever be.
const POSSIBLE: &str = "/sys/devices/system/cpu/possible";

/// Whether an administrator has switched it on.
pub fn are_on() -> bool {
    std::fs::read_to_string(SWITCH).is_ok_and(|value| matches!(value.trim(), "Y" | "1"))
}

/// Whether this process may have rings. Asked before the kernel is told of them: it waits for them then.
pub fn try_out() -> io::Result<()> {
    queue::probe().and_then(|()| processors()).map(drop)
}

/// Serves the mount at `point` by rings of `connection` until it ends.
pub fn start(connection: OwnedFd, server: Server, point: &Path) -> FsResult<()> {
    let failed = |e: io::Error| FsError::new(FsCode::Io, format!("the mount cannot be served by io_uring: {e}"));
    let (connection, server) = (Arc::new(connection), Arc::new(server));
    let processors = processors().map_err(failed)?;
    let waker = Waker::new(point, processors)?;
    for number in 0..processors {
        let (connection, by, point) = (connection.clone(), (server.clone(), waker.clone()), point.to_owned());
        let serve = move || {
            bind_to(number);
            if let Err(error) = Queue::new(number, connection, by, WRITE_BYTES_MAX as usize).and_then(Queue::run) {
                tracing::error!(%error, processor = number, "a ring failed: the mount ends");
                // Programs of this processor would wait for ever.
                kernel::abort(&point);
            }
        };
        std::thread::Builder::new().name(format!("sateen-ring-{number}")).spawn(serve).map_err(failed)?;
    }
    Ok(())
}

/// For the start of each thread of the runtime that serves a mount: a thread runs where this one may, also if a ring's thread, which is
/// bound to its processor, has started it.
pub fn unbound() -> impl Fn() + Send + Sync + 'static {
    let everywhere = sched_getaffinity(None);
    move || {
        if let Err(error) = everywhere.and_then(|set| sched_setaffinity(None, &set)) {
            tracing::debug!(%error, "a thread runs where the one that started it does");
        }
    }
}

/// One that is switched off cannot be bound to, and has no programs.
fn bind_to(processor: u16) {
    let mut set = CpuSet::new();
    set.set(usize::from(processor));
    if let Err(error) = sched_setaffinity(None, &set) {
        tracing::debug!(%error, processor, "the thread of a ring runs anywhere");
    }
}

/// How many processors the kernel counts rings for.
fn processors() -> io::Result<u16> {
    let text = std::fs::read_to_string(POSSIBLE)?;
    count(&text).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{POSSIBLE} has {:?}, no list of processors", text.trim()))
    })
}

/// How many numbers a list such as `0-3,8-11` or `0` has.
fn count(list: &str) -> Option<u16> {
    list.trim().split(',').try_fold(0u16, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}
