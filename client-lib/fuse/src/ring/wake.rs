//! Requests of our own on a processor, whose answers make the kernel hand out what waits for entries there.
//!
//! Such a request may have to wait for an entry itself, behind others: then the next one, made after more entries were added, gets
//! one at once. So each has a thread of its own.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use sateen_types::{FsCode, FsError, FsResult};

use super::bind_to;

/// The extended attribute that is asked for. Of this name space the kernel asks without looking at permissions, and therefore at
/// nothing else.
pub const WAKE_XATTR: &[u8] = b"security.sateen.wake";
/// Requests under way on one processor at most: one for each time entries were added, and one that goes on.
const UNDER_WAY_MAX: usize = 16;

/// Makes such requests.
#[derive(Clone)]
pub struct Waker {
    root: Arc<CString>,
    under_way: Arc<[AtomicUsize]>,
}

impl Waker {
    /// For the mount at `point`, with rings for `processors`.
    pub fn new(point: &Path, processors: u16) -> FsResult<Waker> {
        let root = CString::new(point.as_os_str().as_bytes())
            .map_err(|e| FsError::new(FsCode::Invalid, format!("mount point {}: {e}", point.display())))?;
        Ok(Waker { root: Arc::new(root), under_way: (0..processors).map(|_| AtomicUsize::new(0)).collect() })
    }

    /// Makes a request on this processor, soon.
    pub fn wake(&self, processor: u16) {
        let Waker { root, under_way } = self.clone();
        let place = usize::from(processor);
        if under_way[place].fetch_add(1, Ordering::SeqCst) >= UNDER_WAY_MAX {
            under_way[place].fetch_sub(1, Ordering::SeqCst);
            return;
        }
        let counts = under_way.clone();
        let ask = move || {
            bind_to(processor);
            match rustix::fs::lgetxattr(&*root, WAKE_XATTR, &mut [0; 0][..]) {
                // Or the mount has ended.
                Err(Errno::NODATA | Errno::NOTCONN | Errno::CONNABORTED) => {}
                other => tracing::debug!(?other, processor, "waking a ring was answered otherwise"),
            }
            under_way[place].fetch_sub(1, Ordering::SeqCst);
        };
        if let Err(error) = std::thread::Builder::new().name("sateen-ring-wake".into()).spawn(ask) {
            tracing::warn!(%error, processor, "no thread to wake a ring: requests may wait for others to be answered");
            counts[place].fetch_sub(1, Ordering::SeqCst);
        }
    }
}
