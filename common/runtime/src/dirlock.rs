//! Keeps a second server out of a directory.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use rustix::fs::FlockOperation;
use sateen_types::{FsCode, FsError, FsResult};

/// Name of the lock file.
const LOCK_FILE: &str = "lock";

/// An exclusive `flock` on `DIR/lock`, held until dropped. The kernel drops it when the process dies, however it dies.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes the lock or fails with `Busy`, naming the holder.
    pub fn acquire(dir: &Path) -> FsResult<DirLock> {
        let path = dir.join(LOCK_FILE);
        let io = |e: std::io::Error| FsError::new(FsCode::Io, format!("cannot open {}: {e}", path.display()));
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // The holder's process id is only a help for the reader of the message.
                let _ = Read::by_ref(&mut file).take(20).read_to_string(&mut holder);
                return Err(FsError::new(
                    FsCode::Busy,
                    format!("directory {} is in use by another server (process {})", dir.display(), holder.trim()),
                )
                .with_hint("stop the other server, or give this one a directory of its own"));
            }
            Err(e) => return Err(io(e.into())),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(io)?;
        Ok(DirLock { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_server_at_a_time() {
        let dir = tempfile::tempdir().expect("temp dir");
        let first = DirLock::acquire(dir.path()).expect("free");
        let err = DirLock::acquire(dir.path()).expect_err("held");
        assert_eq!(err.code, FsCode::Busy);
        assert!(err.message.contains(&std::process::id().to_string()), "{err}");
        assert!(err.hint.is_some());
        drop(first);
        DirLock::acquire(dir.path()).expect("free again");
    }
}
