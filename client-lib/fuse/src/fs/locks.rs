//! flock(2) and fcntl(2) locks between all mounts.
//!
//! What the kernel sends: one request for all kinds of locks, with the owner as a number. It is the process's table of
//! descriptors for `F_SETLK` and the open file for `flock` and `F_OFD_SETLK`; a `flush` carries the former at every close
//! of a descriptor, a `release` comes when the last descriptor of an open file has gone. So POSIX locks go with the
//! flush, and with the release whatever was locked through the open file.

use sateen_types::{FsCode, FsError, FsResult, Lock, LockClass, LockMode, LockRange};

use super::MountedFs;
use crate::caller;

/// A lock as the kernel asks about it.
#[derive(Clone, Copy, Debug)]
pub struct KernelLock {
    /// Handle of the open file.
    pub handle: u64,
    /// Who owns it.
    pub owner: u64,
    /// First byte.
    pub start: u64,
    /// Last byte.
    pub end: u64,
    /// `F_RDLCK`, `F_WRLCK` or `F_UNLCK`.
    pub kind: i32,
    /// Process that is told to others.
    pub pid: u32,
    /// Thread that asks; 0 if it is not visible here.
    pub thread: u32,
}

impl KernelLock {
    fn lock(&self, class: LockClass) -> FsResult<Lock> {
        let mode = match self.kind {
            libc::F_RDLCK => LockMode::Shared,
            libc::F_WRLCK => LockMode::Exclusive,
            other => return Err(FsError::new(FsCode::Invalid, format!("{other} is no kind of lock"))),
        };
        Ok(Lock { class, mode, range: LockRange::new(self.start, self.end)?, pid: self.pid })
    }
}

impl MountedFs {
    /// Takes or gives up a lock, and waits for it if `wait` is set, until the thread that asks gets a signal. True if the
    /// kernel's pages of the file are still right.
    pub async fn set_lock(&self, ask: KernelLock, wait: bool) -> FsResult<bool> {
        let open = self.files.get(ask.handle)?;
        let range = LockRange::new(ask.start, ask.end)?;
        let unlocks = ask.kind == libc::F_UNLCK;
        // Which call it was matters only where it may be flock, or may wait in a circle.
        let class = if range == LockRange::WHOLE || (wait && !unlocks) {
            caller::class_of(ask.thread).await
        } else {
            Some(LockClass::Posix)
        };
        if unlocks {
            if class != Some(LockClass::Flock) {
                open.file.unlock(ask.owner, class.unwrap_or(LockClass::Posix), range).await?;
            }
            // Nobody knows which call it was: an owner that has both kinds of locks on all of a file is an open file.
            if class.is_none_or(|c| c == LockClass::Flock) && range == LockRange::WHOLE {
                open.file.unlock(ask.owner, LockClass::Flock, range).await?;
            }
            return Ok(true);
        }
        let lock = ask.lock(class.unwrap_or(LockClass::Posix))?;
        if wait {
            open.file.lock(ask.owner, lock, caller::signalled(ask.thread)).await
        } else {
            open.file.try_lock(ask.owner, lock).await
        }
    }

    /// The lock that is in the way of one (`F_GETLK`).
    pub async fn test_lock(&self, ask: KernelLock) -> FsResult<Option<Lock>> {
        let open = self.files.get(ask.handle)?;
        open.file.test_lock(ask.owner, ask.lock(LockClass::Posix)?).await
    }
}
