//! Open files and their data.

use sateen_client::{Access, File, SetAttr};
use sateen_types::limits::FILE_SIZE_MAX;
use sateen_types::{Attr, Credential, FsCode, FsError, FsResult, Payload};

use super::{MountedFs, gone_is_stale};
use crate::caller;

/// The kernel sets this in the open flags when it reads a program to run it (`__FMODE_EXEC`).
const OPEN_FOR_EXEC: i32 = 0x20;
/// Bytes copied in one step of copy_file_range.
const COPY_PIECE_BYTES: u64 = 1 << 20;
/// Bytes copied in one call of copy_file_range; the program asks again for the rest, and may be interrupted between.
const COPY_CALL_BYTES: u64 = 64 << 20;

/// A file the kernel has open.
pub struct OpenFile {
    pub(super) file: File,
    flags: i32,
}

/// What the kernel is told about a file it opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its handle.
    pub handle: u64,
    /// Other clients use it: the kernel may keep nothing.
    pub shared: bool,
    /// The kernel may keep the pages it has.
    pub keep_cache: bool,
    /// The kernel caches nothing (`O_DIRECT`, `O_APPEND`).
    pub direct: bool,
    /// There is nothing to be done when a descriptor is closed: no `flush` is needed.
    pub no_flush: bool,
}

impl OpenFile {
    pub(super) fn new(file: File, flags: i32) -> OpenFile {
        OpenFile { file, flags }
    }

    fn appends(&self) -> bool {
        self.flags & libc::O_APPEND != 0
    }

    fn writes(&self) -> bool {
        self.flags & libc::O_ACCMODE != libc::O_RDONLY
    }
}

/// What the flags of open(2) ask for.
pub(super) fn access_of(flags: i32) -> Access {
    let mode = flags & libc::O_ACCMODE;
    let exec = flags & OPEN_FOR_EXEC != 0;
    Access { read: mode != libc::O_WRONLY && !(exec && mode == libc::O_RDONLY), write: mode != libc::O_RDONLY, exec }
}

/// What is only in a repository may be long in coming: whoever waits for that can be killed.
async fn unless_killed<T>(file: &File, thread: u32, work: impl Future<Output = FsResult<T>>) -> FsResult<T> {
    if !file.is_released() {
        return work.await;
    }
    tokio::select! {
        biased;
        done = work => done,
        () = caller::killed(thread) => Err(FsError::new(FsCode::Interrupted, "the program is being killed")),
    }
}

impl MountedFs {
    /// Opens a file, with fresh attributes from the MDS. `O_TRUNC` comes as a `setattr` of its own, once the kernel has
    /// made sure that the file may be written (it may be a program that runs: ETXTBSY).
    pub async fn open(&self, cred: &Credential, ino: u64, flags: i32) -> FsResult<Opened> {
        let fid = self.fid(ino)?;
        let file = gone_is_stale(self.client.open(cred, fid, access_of(flags)).await)?;
        self.keep(OpenFile::new(file, flags)).await
    }

    /// Gives an open file its handle; closes it if there is none left.
    pub(super) async fn keep(&self, open: OpenFile) -> FsResult<Opened> {
        let opened = Opened {
            handle: 0,
            shared: open.file.is_shared(),
            keep_cache: open.file.cache_valid(),
            // An append goes out as it is: through its pages the kernel would cut it in two where one of them ends.
            direct: open.flags & libc::O_DIRECT != 0 || open.appends(),
            // Closing a descriptor also gives up its process's locks.
            no_flush: !open.writes() && !self.cluster_locks,
        };
        let file = open.file.clone();
        match self.files.insert(open) {
            Ok(handle) => Ok(Opened { handle, ..opened }),
            Err(e) => {
                file.close().await?;
                Err(e)
            }
        }
    }

    /// Up to `len` bytes for `thread`; fewer only at the end of the file.
    pub async fn read(&self, handle: u64, offset: u64, len: u32, thread: u32) -> FsResult<Payload> {
        let open = self.files.get(handle)?;
        let data = unless_killed(&open.file, thread, open.file.read_pieces(offset, len as usize)).await?;
        if open.flags & libc::O_NOATIME == 0 {
            open.file.accessed();
        }
        Ok(data)
    }

    /// Writes all of `data` for `thread`; gives where. (The client tells the MDS to drop setuid and setgid bits unless root opened the
    /// file.)
    pub async fn write(&self, handle: u64, offset: u64, data: &[u8], thread: u32) -> FsResult<u64> {
        let open = self.files.get(handle)?;
        if open.appends() {
            // The kernel does not know where the file ends if others write to it.
            return unless_killed(&open.file, thread, open.file.append(data)).await;
        }
        unless_killed(&open.file, thread, open.file.write_at(offset, data)).await?;
        Ok(offset)
    }

    /// Whether a write may be begun twice, and is worth it: one into the cache of a place that is known.
    pub fn writes_at_once(&self, handle: u64) -> bool {
        self.files.get(handle).is_ok_and(|open| !open.appends() && open.file.keeps_writes())
    }

    /// Whether what was written took set-user-id or set-group-id away: the kernel may think that they are still there.
    pub fn loses_privileges(&self, handle: u64) -> bool {
        self.files.get(handle).is_ok_and(|open| open.file.loses_privileges())
    }

    /// Everything written goes to the OSTs, and the size to the MDS: other clients that open the file now see it. Then the
    /// locks of the process that closes a descriptor go.
    pub async fn flush(&self, handle: u64, owner: u64) -> FsResult<()> {
        let open = self.files.get(handle)?;
        let flushed = if open.writes() { open.file.flush().await } else { Ok(()) };
        let unlocked = open.file.release_locks(owner).await;
        flushed.and(unlocked)
    }

    /// Everything written survives a power cut.
    pub async fn fsync(&self, handle: u64) -> FsResult<()> {
        self.files.get(handle)?.file.fsync().await
    }

    /// Closes a handle. Errors of the last writes have been told by `flush`; what comes up only now is for the log.
    /// Locks the open file owns itself go with it.
    pub async fn release(&self, handle: u64) -> FsResult<()> {
        let open = self.files.remove(handle)?;
        // A call on this handle that is still running has its own clone; the last one closes.
        open.file.clone().close().await
    }

    /// Changes attributes. `handle` is the open file of ftruncate(2).
    pub async fn setattr(&self, cred: &Credential, mut change: SetAttr, handle: Option<u64>) -> FsResult<Attr> {
        if let Some(handle) = handle {
            change.via_open_file = self.files.get(handle).is_ok_and(|open| open.writes());
        }
        gone_is_stale(self.client.setattr(cred, change).await)
    }

    /// fallocate(2).
    pub async fn fallocate(&self, handle: u64, offset: u64, length: u64, mode: i32) -> FsResult<()> {
        let open = self.files.get(handle)?;
        let end = offset.checked_add(length).filter(|end| *end <= FILE_SIZE_MAX);
        let end = end.ok_or_else(|| FsError::new(FsCode::FileTooBig, format!("{offset} + {length} is too large")))?;
        const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
        const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
        const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
        const ZERO_KEEP: i32 = ZERO | KEEP;
        match mode {
            0 => open.file.allocate(offset, length, false).await,
            KEEP => open.file.allocate(offset, length, true).await,
            PUNCH | ZERO_KEEP => open.file.punch(offset, length).await,
            ZERO => {
                open.file.punch(offset, length).await?;
                if end > open.file.attr().size { open.file.allocate(offset, length, false).await } else { Ok(()) }
            }
            _ => Err(FsError::new(FsCode::NotSupported, format!("fallocate mode {mode:#x} is not supported"))),
        }
    }

    /// lseek(2) with `SEEK_DATA` or `SEEK_HOLE`; the kernel does the others itself. `None`: no data there (ENXIO).
    pub async fn lseek(&self, handle: u64, offset: u64, whence: i32) -> FsResult<Option<u64>> {
        let open = self.files.get(handle)?;
        match whence {
            libc::SEEK_DATA => open.file.seek_data(offset).await,
            libc::SEEK_HOLE => open.file.seek_hole(offset).await,
            _ => Err(FsError::new(FsCode::Invalid, format!("lseek whence {whence}"))),
        }
    }

    /// copy_file_range(2) in bounded pieces. Gives the bytes copied; an error after some were is told by the next call.
    pub async fn copy(&self, (from, from_at): (u64, u64), (to, to_at): (u64, u64), length: u64) -> FsResult<u32> {
        let (source, target) = (self.files.get(from)?, self.files.get(to)?);
        let length = length.min(COPY_CALL_BYTES);
        let mut done = 0;
        while done < length {
            let piece = (length - done).min(COPY_PIECE_BYTES);
            let step = async {
                let data = source.file.read_at(from_at + done, piece as usize).await?;
                let read = data.len() as u64;
                if read > 0 {
                    target.file.write_at(to_at + done, &data).await?;
                }
                Ok(read)
            };
            match step.await {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_flags_become_access() {
        let access = |read, write, exec| Access { read, write, exec };
        assert_eq!(access_of(libc::O_RDONLY), access(true, false, false));
        assert_eq!(access_of(libc::O_WRONLY | libc::O_APPEND), access(false, true, false));
        assert_eq!(access_of(libc::O_RDWR | libc::O_TRUNC), access(true, true, false));
        // A program with mode 0111 can be run, not read.
        assert_eq!(access_of(libc::O_RDONLY | OPEN_FOR_EXEC), access(false, false, true));
    }
}
