//! The kernel's side: fuser's callbacks. Each decodes its arguments and hands work that calls [`MountedFs`] and replies to
//! the [`Worker`]. No decision is made here.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use sateen_client::Looked;
use sateen_types::op::SetAttr;
use sateen_types::{Attr, FsResult, LockMode};

use crate::answers::Answers;
use crate::convert::{file_attr, kind, nameless, new_mode, open_flags, set_time};
use crate::credential::of_request;
use crate::errno::report;
use crate::fs::{KernelLock, MountedFs};
use crate::init::ask;
use crate::kernel_cache::KernelCache;
use crate::worker::Worker;

/// Unit of statfs.
pub const STATFS_UNIT: u64 = 4096;
/// FIDs are never used twice, so neither are inode numbers.
const GENERATION: Generation = Generation(0);

/// Callbacks of one mount.
pub struct Shell {
    fs: Arc<MountedFs>,
    worker: Worker,
    answers: Answers,
    kernel: KernelCache,
    rings: Arc<AtomicBool>,
}

impl Shell {
    /// Callbacks whose work is done by `worker`. `rings` says whether the kernel is asked to send requests by rings, and, once the
    /// connection has begun, whether it does.
    pub fn new(
        fs: Arc<MountedFs>,
        worker: Worker,
        answers: Answers,
        kernel: KernelCache,
        rings: Arc<AtomicBool>,
    ) -> Shell {
        Shell { fs, worker, answers, kernel, rings }
    }

    /// Runs `work`, then hands its outcome to `answer`.
    fn run<T, W, A>(&self, operation: &'static str, ino: INodeNo, work: W, answer: A)
    where
        T: Send + 'static,
        W: Future<Output = FsResult<T>> + Send + 'static,
        A: FnOnce(Result<T, Errno>) + Send + 'static,
    {
        self.worker.run(async move { answer(work.await.map_err(|e| report(operation, ino.0, &e))) });
    }

    /// For operations that answer with an inode's name and attributes.
    fn run_entry<W, T>(&self, operation: &'static str, ino: INodeNo, reply: ReplyEntry, work: W)
    where
        T: Into<Looked> + Send + 'static,
        W: Future<Output = FsResult<T>> + Send + 'static,
    {
        let fs = self.fs.clone();
        self.run(operation, ino, work, move |result| match result.map(Into::into) {
            Ok(Looked { attr, in_use, age }) => {
                let (names, attrs) =
                    (fs.entry_timeout.saturating_sub(age), fs.attr_timeout(in_use).saturating_sub(age));
                reply.entry_with_ttls(&attrs, &names, &file_attr(&fs, &attr), GENERATION);
            }
            Err(errno) => reply.error(errno),
        });
    }

    /// For operations that answer with success only.
    fn run_empty<W>(&self, operation: &'static str, ino: INodeNo, reply: ReplyEmpty, work: W)
    where
        W: Future<Output = FsResult<()>> + Send + 'static,
    {
        self.run(operation, ino, work, move |result| match result {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        });
    }

    /// For the two that answer with bytes of which the caller may first ask the number.
    fn run_xattr<W>(&self, operation: &'static str, ino: INodeNo, size: u32, reply: ReplyXattr, work: W)
    where
        W: Future<Output = FsResult<Vec<u8>>> + Send + 'static,
    {
        self.run(operation, ino, work, move |result| match result {
            Ok(value) if size == 0 => reply.size(value.len() as u32),
            Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
            Ok(value) => reply.data(&value),
            Err(errno) => reply.error(errno),
        });
    }
}

impl Filesystem for Shell {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = self.rings.load(Ordering::SeqCst);
        self.rings.store(ask(config, self.fs.cluster_locks, wanted), Ordering::SeqCst);
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (fs, cred, name) = (self.fs.clone(), of_request(req), name.as_bytes().to_vec());
        self.run_entry("lookup", parent, reply, async move { fs.lookup(&cred, parent.0, &name).await });
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let (fs, kernel) = (self.fs.clone(), self.kernel.clone());
        let work = async move {
            let (attr, valid) = fresh_attributes(&fs, &kernel, ino.0).await?;
            Ok((file_attr(&fs, &attr), valid))
        };
        self.run("getattr", ino, work, move |result| answer_attr(reply, result));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (fs, cred) = (self.fs.clone(), of_request(req));
        let work = async move {
            let change = SetAttr {
                fid: fs.fid(ino.0)?,
                mode: mode.map(|m| m & 0o7777),
                uid,
                gid,
                size,
                atime: atime.map(set_time),
                mtime: mtime.map(set_time),
                via_open_file: false,
            };
            let attr = fs.setattr(&cred, change, fh.map(|h| h.0)).await?;
            Ok((file_attr(&fs, &attr), fs.attr_timeout(fs.is_shared(ino.0))))
        };
        self.run("setattr", ino, work, move |result| answer_attr(reply, result));
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let fs = self.fs.clone();
        self.run("readlink", ino, async move { fs.readlink(ino.0).await }, move |result| match result {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(errno),
        });
    }

    fn mknod(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32, reply: ReplyEntry) {
        let (fs, cred, name) = (self.fs.clone(), of_request(req), name.as_bytes().to_vec());
        let work = async move { fs.mknod(&cred, parent.0, &name, new_mode(mode, umask), mode, u64::from(rdev)).await };
        self.run_entry("mknod", parent, reply, work);
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let (fs, cred, name) = (self.fs.clone(), of_request(req), name.as_bytes().to_vec());
        let work = async move { fs.mkdir(&cred, parent.0, &name, new_mode(mode, umask)).await };
        self.run_entry("mkdir", parent, reply, work);
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (fs, cred, name) = (self.fs.clone(), of_request(req), name.as_bytes().to_vec());
        self.run_empty("unlink", parent, reply, async move { fs.unlink(&cred, parent.0, &name).await });
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (fs, cred, name) = (self.fs.clone(), of_request(req), name.as_bytes().to_vec());
        self.run_empty("rmdir", parent, reply, async move { fs.rmdir(&cred, parent.0, &name).await });
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (fs, cred, name) = (self.fs.clone(), of_request(req), name.as_bytes().to_vec());
        let target = target.as_os_str().as_bytes().to_vec();
        let work = async move { fs.symlink(&cred, parent.0, &name, &target).await };
        self.run_entry("symlink", parent, reply, work);
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (fs, cred) = (self.fs.clone(), of_request(req));
        let (name, new_name) = (name.as_bytes().to_vec(), new_name.as_bytes().to_vec());
        let work = async move {
            fs.rename(&cred, (parent.0, name.as_slice()), (new_parent.0, new_name.as_slice()), flags.bits()).await
        };
        self.run_empty("rename", parent, reply, work);
    }

    fn link(&self, req: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (fs, cred, name) = (self.fs.clone(), of_request(req), name.as_bytes().to_vec());
        self.run_entry("link", ino, reply, async move { fs.link(&cred, ino.0, parent.0, &name).await });
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (fs, cred, kernel) = (self.fs.clone(), of_request(req), self.kernel.clone());
        self.run("open", ino, async move { fs.open(&cred, ino.0, flags.0).await }, move |result| match result {
            Ok(opened) => {
                if !opened.keep_cache {
                    kernel.forget_attributes(ino);
                }
                reply.opened(FileHandle(opened.handle), open_flags(opened));
            }
            Err(errno) => reply.error(errno),
        });
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (fs, cred, name) = (self.fs.clone(), of_request(req), name.as_bytes().to_vec());
        let ttl = self.fs.attr_timeout(false).min(self.fs.entry_timeout);
        let work = async move {
            let (attr, opened) = fs.create(&cred, parent.0, &name, new_mode(mode, umask), flags).await?;
            Ok((file_attr(&fs, &attr), opened))
        };
        self.run("create", parent, work, move |result| match result {
            Ok((attr, opened)) => {
                let ttl = if opened.shared { Duration::ZERO } else { ttl };
                reply.created(&ttl, &attr, GENERATION, FileHandle(opened.handle), open_flags(opened));
            }
            Err(errno) => reply.error(errno),
        });
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let fs = self.fs.clone();
        let (answers, unique, thread) = (self.answers.clone(), req.unique(), req.pid());
        self.run("read", ino, async move { fs.read(fh.0, offset, size, thread).await }, move |result| match result {
            Ok(data) => answers.data(unique, reply, data),
            Err(errno) => reply.error(errno),
        });
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (fs, size, thread) = (self.fs.clone(), data.len() as u32, req.pid());
        let kills = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        if fs.writes_at_once(fh.0)
            && let Some(result) = self.worker.at_once(fs.write(fh.0, offset, data, thread))
        {
            return match result {
                Ok(_) => {
                    if kills && fs.loses_privileges(fh.0) {
                        self.kernel.forget_attributes(ino);
                    }
                    reply.written(size);
                }
                Err(e) => reply.error(report("write", ino.0, &e)),
            };
        }
        // With a copy: the buffer belongs to this thread, which reads the next request into it. What may have been begun
        // was the same write to the same place.
        let (data, kernel) = (data.to_vec(), self.kernel.clone());
        let work = async move {
            let at = fs.write(fh.0, offset, &data, thread).await?;
            if kills && fs.loses_privileges(fh.0) {
                kernel.forget_attributes(ino);
            }
            Ok(at)
        };
        let kernel = self.kernel.clone();
        let forget = self.worker.clone();
        self.run("write", ino, work, move |result| match result {
            Ok(at) => {
                reply.written(size);
                if at != offset {
                    // The kernel thought that the file ends elsewhere.
                    forget.run(async move { kernel.forget_data(ino).await });
                }
            }
            Err(errno) => reply.error(errno),
        });
    }

    fn flush(&self, _req: &Request, ino: INodeNo, fh: FileHandle, owner: LockOwner, reply: ReplyEmpty) {
        let fs = self.fs.clone();
        self.run_empty("flush", ino, reply, async move { fs.flush(fh.0, owner.0).await });
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let fs = self.fs.clone();
        self.run_empty("release", ino, reply, async move { fs.release(fh.0).await });
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let fs = self.fs.clone();
        self.run_empty("fsync", ino, reply, async move { fs.fsync(fh.0).await });
    }

    fn opendir(&self, req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.fs.opendir(of_request(req), ino.0) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(e) => reply.error(report("opendir", ino.0, &e)),
        }
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let fs = self.fs.clone();
        self.worker.run(async move {
            let take = |i: crate::fs::DirItem| {
                reply.add(INodeNo(i.ino), i.position, kind(i.file_type), OsStr::from_bytes(&i.name))
            };
            match fs.readdir(fh.0, offset, false, take).await {
                Ok(()) => reply.ok(),
                Err(e) => reply.error(report("readdir", ino.0, &e)),
            }
        });
    }

    fn readdirplus(&self, _req: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let fs = self.fs.clone();
        self.worker.run(async move {
            let ttl = fs.attr_timeout(false).min(fs.entry_timeout);
            let take = |i: crate::fs::DirItem| {
                // An entry without attributes (a dot, or one removed meanwhile) is inode 0: listed, not looked up.
                let (attr, ttl) = match &i.attr {
                    Some(attr) => (file_attr(&fs, attr), ttl.saturating_sub(i.age)),
                    None => (nameless(i.ino, i.file_type), Duration::ZERO),
                };
                let node = if i.attr.is_some() { INodeNo(i.ino) } else { INodeNo(0) };
                reply.add(node, i.position, OsStr::from_bytes(&i.name), &ttl, &attr, GENERATION)
            };
            match fs.readdir(fh.0, offset, true, take).await {
                Ok(()) => reply.ok(),
                Err(e) => reply.error(report("readdirplus", ino.0, &e)),
            }
        });
    }

    fn releasedir(&self, _req: &Request, ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        match self.fs.releasedir(fh.0) {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(report("releasedir", ino.0, &e)),
        }
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let fs = self.fs.clone();
        self.run_empty("fsyncdir", ino, reply, async move { fs.fsyncdir(fh.0).await });
    }

    fn statfs(&self, _req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let fs = self.fs.clone();
        self.run("statfs", ino, async move { fs.statfs().await }, move |result| match result {
            Ok(s) => {
                let free = s.data.total.saturating_sub(s.data.used) / STATFS_UNIT;
                let (unit, names) = (STATFS_UNIT as u32, sateen_types::limits::NAME_BYTES_MAX as u32);
                let inodes = s.inodes_used.saturating_add(s.inodes_free);
                let (total, available) = (s.data.total / STATFS_UNIT, s.data.available / STATFS_UNIT);
                reply.statfs(total, free, available, inodes, s.inodes_free, unit, names, unit);
            }
            Err(errno) => reply.error(errno),
        });
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let (fs, cred, name) = (self.fs.clone(), of_request(req), name.as_bytes().to_vec());
        self.run_xattr("getxattr", ino, size, reply, async move { fs.getxattr(&cred, ino.0, &name).await });
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (fs, cred) = (self.fs.clone(), of_request(req));
        let (name, value) = (name.as_bytes().to_vec(), value.to_vec());
        let work = async move { fs.setxattr(&cred, ino.0, &name, &value, flags).await };
        self.run_empty("setxattr", ino, reply, work);
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let (fs, cred) = (self.fs.clone(), of_request(req));
        self.run_xattr("listxattr", ino, size, reply, async move { fs.listxattr(&cred, ino.0).await });
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (fs, cred, name) = (self.fs.clone(), of_request(req), name.as_bytes().to_vec());
        self.run_empty("removexattr", ino, reply, async move { fs.removexattr(&cred, ino.0, &name).await });
    }

    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // `default_permissions`: the kernel decides and, told so once, does not ask again.
        reply.error(Errno::ENOSYS);
    }

    fn getlk(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        let ask = KernelLock { handle: fh.0, owner: owner.0, start, end, kind, pid, thread: req.pid() };
        let fs = self.fs.clone();
        self.run("getlk", ino, async move { fs.test_lock(ask).await }, move |result| match result {
            Ok(Some(lock)) => {
                let kind = if lock.mode == LockMode::Shared { libc::F_RDLCK } else { libc::F_WRLCK };
                reply.locked(lock.range.start(), lock.range.end(), kind, lock.pid);
            }
            Ok(None) => reply.locked(start, end, libc::F_UNLCK, 0),
            Err(errno) => reply.error(errno),
        });
    }

    fn setlk(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        let ask = KernelLock { handle: fh.0, owner: owner.0, start, end, kind, pid, thread: req.pid() };
        let (fs, kernel) = (self.fs.clone(), self.kernel.clone());
        self.run_empty("setlk", ino, reply, async move {
            if fs.set_lock(ask, sleep).await? {
                kernel.forget_attributes(ino);
            } else {
                kernel.forget_data(ino).await;
            }
            Ok(())
        });
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let (fs, kernel) = (self.fs.clone(), self.kernel.clone());
        let work = async move {
            fs.fallocate(fh.0, offset, length, mode).await?;
            // Its mode is not among what the kernel asks for again.
            kernel.forget_attributes(ino);
            Ok(())
        };
        self.run_empty("fallocate", ino, reply, work);
    }

    fn lseek(&self, _req: &Request, ino: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        let fs = self.fs.clone();
        self.run("lseek", ino, async move { fs.lseek(fh.0, offset, whence).await }, move |result| match result {
            Ok(Some(at)) => reply.offset(at as i64),
            Ok(None) => reply.error(Errno::ENXIO),
            Err(errno) => reply.error(errno),
        });
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let fs = self.fs.clone();
        let work = async move { fs.copy((fh_in.0, offset_in), (fh_out.0, offset_out), len).await };
        self.run("copy_file_range", ino_in, work, move |result| match result {
            Ok(n) => reply.written(n),
            Err(errno) => reply.error(errno),
        });
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }
}

/// Attributes for the kernel, which drops its pages first if they are old, and how long they may be trusted.
pub async fn fresh_attributes(fs: &MountedFs, kernel: &KernelCache, ino: u64) -> FsResult<(Attr, Duration)> {
    let Looked { attr, in_use, .. } = fs.getattr(ino).await?;
    if fs.shared.must_forget(ino, &attr, fs.is_shared(ino)) {
        kernel.forget_data(INodeNo(ino)).await;
    }
    Ok((attr, fs.attr_timeout(in_use)))
}

fn answer_attr(reply: ReplyAttr, result: Result<(FileAttr, Duration), Errno>) {
    match result {
        Ok((attr, ttl)) => reply.attr(&ttl, &attr),
        Err(errno) => reply.error(errno),
    }
}
