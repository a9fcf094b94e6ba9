//! Requests of our own on a processor, whose answers make the kernel hand out what waits for entries there.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};

use rustix::io::Errno;
use sateen_types::{FsCode, FsError, FsResult};

use super::bind_to;

/// The extended attribute that is asked for. Of this name space the kernel asks without looking at permissions, and therefore at
/// nothing else.
pub const WAKE_XATTR: &[u8] = b"security.sateen.wake";

/// Asks for such a request. One of each processor waits at most.
#[derive(Clone)]
pub struct Waker {
    processors: Sender<u16>,
    asked: Arc<[AtomicBool]>,
}

impl Waker {
    /// For the mount at `point`, with rings for `processors`. Its thread ends with the last of its kind.
    pub fn start(point: &Path, processors: u16) -> FsResult<Waker> {
        let failed = |what: String| FsError::new(FsCode::Io, format!("the mount cannot be served by io_uring: {what}"));
        let root = CString::new(point.as_os_str().as_bytes()).map_err(|e| failed(e.to_string()))?;
        let (sender, orders) = channel();
        let asked: Arc<[AtomicBool]> = (0..processors).map(|_| AtomicBool::new(false)).collect();
        let noted = asked.clone();
        let run = move || {
            for processor in orders {
                noted[usize::from(processor)].store(false, Ordering::SeqCst);
                bind_to(processor);
                match rustix::fs::lgetxattr(&root, WAKE_XATTR, &mut [0; 0][..]) {
                    Err(Errno::NODATA) => {}
                    other => tracing::debug!(?other, processor, "waking a ring was answered otherwise"),
                }
            }
        };
        std::thread::Builder::new().name("sateen-ring-wake".into()).spawn(run).map_err(|e| failed(e.to_string()))?;
        Ok(Waker { processors: sender, asked })
    }

    /// Makes a request on this processor, soon.
    pub fn wake(&self, processor: u16) {
        if !self.asked[usize::from(processor)].swap(true, Ordering::SeqCst) {
            // Nobody listens only when the mount has ended.
            let _ = self.processors.send(processor);
        }
    }
}
