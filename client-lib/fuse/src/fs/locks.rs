//! flock(2) and fcntl(2) locks between all mounts.
//!
//! What the kernel sends: one request for all kinds of locks, with the owner as a number. It is the process's table of
//! descriptors for `F_SETLK` and the open file for `flock` and `F_OFD_SETLK`; a `flush` carries the former at every close
//! of a descriptor, a `release` comes when the last descriptor of an open file has gone. So POSIX locks go with the
//! flush, and with the release whatever was locked through the open file.

use std::sync::atomic::Ordering;

use sateen_types::{FsCode, FsError, FsResult, Lock, LockClass, LockMode, LockRange};

use super::{MountedFs, OpenFile};
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

impl OpenFile {
    /// `Io` if locks taken through this open file were lost with the session: what others wrote since may be overwritten,
    /// or what is read may be torn.
    pub(super) fn check_locks(&self) -> FsResult<()> {
        if !self.was_locked.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.lockers.lock().iter().try_for_each(|owner| self.file.check_locks(*owner))
    }
}

impl MountedFs {
    /// Takes or gives up a lock, and waits for it if `wait` is set, until the thread that asks gets a signal. True if the
    /// kernel's pages of the file are still right.
    pub async fn set_lock(&self, ask: KernelLock, wait: bool) -> FsResult<bool> {
        let open = self.files.get(ask.handle)?;
        let class = caller::class_of(ask.thread).await;
        if ask.kind == libc::F_UNLCK {
            let range = LockRange::new(ask.start, ask.end)?;
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
        // Before it is asked for: a close that comes meanwhile gives it up.
        open.lockers.lock().insert(ask.owner);
        open.was_locked.store(true, Ordering::Relaxed);
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

    /// A descriptor was closed: the process's locks on the file go, whichever descriptor they were taken through.
    pub(super) async fn unlock_at_close(&self, open: &OpenFile, owner: u64) -> FsResult<()> {
        if !self.cluster_locks {
            return Ok(());
        }
        open.lockers.lock().remove(&owner);
        open.file.release_locks(owner).await
    }

    /// The last descriptor of an open file was closed: its own locks go.
    pub(super) async fn unlock_at_release(&self, open: &OpenFile, owner: Option<u64>) {
        let owners: Vec<u64> = open.lockers.lock().drain().chain(owner).collect();
        for owner in owners {
            if let Err(error) = open.file.release_locks(owner).await {
                tracing::warn!(%error, fid = %open.file.fid(), "a lock was not given up at the close");
            }
        }
    }
}
