//! The report of a task: one object of CSV lines, which never changes. So it may be written again by whoever is given it: an object that
//! says that it is this report is, and anything else under the key is left alone.

use bytes::Bytes;
use sateen_client::{Client, Shift};
use sateen_types::limits::REPORT_BYTES_MAX;
use sateen_types::repository::TaskId;
use sateen_types::{FsCode, FsError, FsResult};

use crate::figures::Figures;
use crate::posix::Posix;
use crate::remote::{EXPORT_RETRY_FOR, Expected, Remote, RemoteError, Retries, Trouble};

/// Mode of the object: whoever imports it gets a file that root alone writes.
const MODE: u32 = 0o100_644;
/// A report beyond it is none: each path has a line with some more bytes than the path, quotes doubled.
const BYTES_MAX: usize = 4 * REPORT_BYTES_MAX as usize;

/// Writes the report of the assignment `number`, taken in `shift`. `Stale` if that is somebody else's by now.
pub async fn run(
    client: &Client,
    shift: Shift,
    number: u64,
    remote: &Remote,
    (task, key): (TaskId, &[u8]),
    figures: &Figures,
) -> FsResult<()> {
    let mut text = Vec::new();
    let mut after = 0;
    loop {
        let (lines, last, more) = client.read_report(shift, number, after).await?;
        text.extend_from_slice(&lines);
        if text.len() > BYTES_MAX {
            return Err(FsError::new(FsCode::TooBig, format!("a report of more than {BYTES_MAX} bytes")));
        }
        if !more {
            break;
        }
        after = last;
    }
    store(remote, key, text.into(), task, figures).await.map_err(|e| FsError::new(FsCode::Io, e.message))
}

/// Puts the object in place, unless it is there.
async fn store(remote: &Remote, key: &[u8], text: Bytes, task: TaskId, figures: &Figures) -> Result<(), RemoteError> {
    let about = Posix { mode: Some(MODE), uid: Some(0), gid: Some(0), export: Some(task.0), ..Posix::default() };
    let mut retries = Retries::within(EXPORT_RETRY_FOR);
    loop {
        let stored = async {
            // First: a store may know no conditions.
            if is_there(remote, key, task).await? {
                return Ok(());
            }
            match remote.put(key, text.clone().into(), &about, &Expected::Nothing).await {
                Ok(_) => Ok(()),
                // An answer was lost, or another worker was faster.
                Err(e) if e.trouble == Trouble::Changed && is_there(remote, key, task).await? => Ok(()),
                Err(e) => Err(e),
            }
        };
        match stored.await {
            Ok(()) => return Ok(()),
            Err(e) => {
                figures.failed(&e);
                if !retries.pause(&e).await {
                    return Err(e);
                }
            }
        }
    }
}

/// Whether the report is there; an error if something else is.
async fn is_there(remote: &Remote, key: &[u8], task: TaskId) -> Result<bool, RemoteError> {
    match remote.head(key).await {
        Ok(head) if head.posix.export == Some(task.0) => Ok(true),
        Ok(_) => {
            let key = String::from_utf8_lossy(key).into_owned();
            Err(RemoteError::new(Trouble::Changed, format!("{key:?} is another object than the report of {task}")))
        }
        Err(e) if e.trouble == Trouble::Gone => Ok(false),
        Err(e) => Err(e),
    }
}
