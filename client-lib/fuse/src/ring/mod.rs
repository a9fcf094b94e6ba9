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

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::thread::{CpuSet, sched_setaffinity};
use sateen_types::{FsCode, FsError, FsResult};

use crate::init::WRITE_BYTES_MAX;
use crate::kernel;
use queue::Queue;
pub use serve::Server;

/// Whether the kernel has it, and an administrator wants it.
const SWITCH: &str = "/sys/module/fuse/parameters/enable_uring";
/// Processors that there may ever be.
const POSSIBLE: &str = "/sys/devices/system/cpu/possible";

/// Whether a mount can be served by rings. Asked before the kernel is told so: it waits for them then.
pub fn is_available() -> bool {
    let wanted = std::fs::read_to_string(SWITCH).is_ok_and(|value| matches!(value.trim(), "Y" | "1"));
    if !wanted {
        return false;
    }
    match queue::probe().and_then(|()| processors()) {
        Ok(_) => true,
        Err(error) => {
            tracing::info!(%error, "no io_uring for this mount: requests are read from /dev/fuse");
            false
        }
    }
}

/// Serves the mount at `point` by rings of `connection` until it ends. Returns when all threads have begun.
pub fn start(connection: OwnedFd, server: Server, point: PathBuf) -> FsResult<()> {
    let failed = |e: io::Error| FsError::new(FsCode::Io, format!("the mount cannot be served by io_uring: {e}"));
    let (connection, server) = (Arc::new(connection), Arc::new(server));
    for number in 0..processors().map_err(failed)? {
        let (connection, server, point) = (connection.clone(), server.clone(), point.clone());
        let serve = move || {
            bind_to(number);
            let served = Queue::new(number, connection, server, WRITE_BYTES_MAX as usize).and_then(Queue::run);
            if let Err(error) = served {
                // Programs on this processor would wait for ever.
                tracing::error!(%error, processor = number, "a ring failed; unmounting");
                let _ = kernel::detach(&point, true);
            }
        };
        std::thread::Builder::new().name(format!("sateen-ring-{number}")).spawn(serve).map_err(failed)?;
    }
    Ok(())
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
    last_of(&text).and_then(|last| last.checked_add(1)).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{POSSIBLE} has {:?}, no list of processors", text.trim()))
    })
}

/// The last number of a list such as `0-3` or `0`.
fn last_of(list: &str) -> Option<u16> {
    list.trim().rsplit(['-', ',']).next()?.parse().ok()
}
