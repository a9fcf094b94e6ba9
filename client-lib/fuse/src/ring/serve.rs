//! Requests that come by a ring: each is decoded, handed to [`MountedFs`], and answered in the kernel's structures. What they mean
//! is the same as in [`crate::shell`], which has them from fuser.

use std::sync::Arc;
use std::time::Duration;

use fuser::{Errno, INodeNo};
use sateen_client::Looked;
use sateen_types::{Attr, FsResult, LockMode, Payload};

use super::abi::{Head, Listing, Reply, next_name, opcode};
use super::slot::{Answered, Slot};
use crate::convert::{new_mode, open_flags};
use crate::credential::of_process;
use crate::errno::report;
use crate::fs::{DirItem, KernelLock, MountedFs};
use crate::kernel_cache::KernelCache;
use crate::shell::{STATFS_UNIT, fresh_attributes};
use crate::worker::Worker;

/// `FUSE_WRITE_KILL_SUIDGID`.
const WRITE_KILLS_PRIVILEGES: u32 = 1 << 2;

/// Serves the requests of one mount.
pub struct Server {
    fs: Arc<MountedFs>,
    worker: Worker,
    kernel: KernelCache,
}

/// What an operation answers with, before it lies in the slot.
enum Answer {
    Nothing,
    Structure(Reply),
    Bytes(Vec<u8>),
    Pieces(Payload),
    /// An extended attribute, or its size if no more was asked for.
    Value(Vec<u8>, u32),
}

impl Server {
    /// Of `fs`. What has to wait goes on by `worker`.
    pub fn new(fs: Arc<MountedFs>, worker: Worker, kernel: KernelCache) -> Server {
        Server { fs, worker, kernel }
    }

    /// Answers a request: at once, or later by its mailbox.
    pub fn serve(&self, slot: Slot) -> Option<Answered> {
        let head = slot.head();
        match head.opcode {
            opcode::WRITE => self.write(slot, head),
            opcode::READDIR | opcode::READDIRPLUS => self.list(slot, head),
            _ => self.simple(slot, head),
        }
    }

    /// Runs `work`, which gives the slot back answered: here as long as it does not wait.
    fn run(
        &self,
        mailbox: Arc<super::slot::Mailbox>,
        work: impl Future<Output = Answered> + Send + 'static,
    ) -> Option<Answered> {
        self.worker.begin(work, move |answered| mailbox.put(answered))
    }

    /// Runs an operation whose request has been decoded.
    fn answer(
        &self,
        slot: Slot,
        name: &'static str,
        work: impl Future<Output = FsResult<Answer>> + Send + 'static,
    ) -> Option<Answered> {
        let ino = slot.head().ino;
        self.run(slot.mailbox(), async move {
            match work.await {
                Ok(answer) => put(slot, answer),
                Err(e) => slot.refuse(report(name, ino, &e)),
            }
        })
    }

    /// Answers with success or an error.
    fn empty(
        &self,
        slot: Slot,
        name: &'static str,
        work: impl Future<Output = FsResult<()>> + Send + 'static,
    ) -> Option<Answered> {
        self.answer(slot, name, async move { work.await.map(|()| Answer::Nothing) })
    }

    /// Answers with an inode behind a name.
    fn entry<T: Into<Looked>>(
        &self,
        slot: Slot,
        name: &'static str,
        work: impl Future<Output = FsResult<T>> + Send + 'static,
    ) -> Option<Answered> {
        let fs = self.fs.clone();
        self.answer(slot, name, async move {
            let Looked { attr, in_use, age } = work.await?.into();
            let (names, attrs) = (fs.entry_timeout.saturating_sub(age), fs.attr_timeout(in_use).saturating_sub(age));
            Ok(Answer::Structure(Reply::default().entry(given(&fs, &attr), &attr, names, attrs)))
        })
    }

    /// Answers with attributes.
    fn attributes(
        &self,
        slot: Slot,
        name: &'static str,
        work: impl Future<Output = FsResult<(Attr, Duration)>> + Send + 'static,
    ) -> Option<Answered> {
        let fs = self.fs.clone();
        self.answer(slot, name, async move {
            let (attr, valid) = work.await?;
            Ok(Answer::Structure(Reply::default().attributes(given(&fs, &attr), &attr, valid)))
        })
    }

    fn simple(&self, slot: Slot, head: Head) -> Option<Answered> {
        let (fs, kernel, ino) = (self.fs.clone(), self.kernel.clone(), head.ino);
        let cred = move || of_process(head.uid, head.gid, head.pid);
        let asked = slot.headers();
        match head.opcode {
            opcode::LOOKUP => self.with_name(slot, |slot, name| {
                self.entry(slot, "lookup", async move { fs.lookup(&cred(), ino, &name).await })
            }),
            opcode::GETATTR => {
                let work = async move { fresh_attributes(&fs, &kernel, ino).await };
                self.attributes(slot, "getattr", work)
            }
            opcode::SETATTR => {
                let Ok(fid) = fs.fid(ino) else { return Some(slot.refuse(Errno::ESTALE)) };
                let (change, handle) = asked.set_attr(fid);
                self.attributes(slot, "setattr", async move {
                    let attr = fs.setattr(&cred(), change, handle).await?;
                    let valid = fs.attr_timeout(fs.is_shared(ino));
                    Ok((attr, valid))
                })
            }
            opcode::READLINK => self.answer(slot, "readlink", async move { fs.readlink(ino).await.map(Answer::Bytes) }),
            opcode::SYMLINK => self.with_two_names(slot, |slot, name, target| {
                self.entry(slot, "symlink", async move { fs.symlink(&cred(), ino, &name, &target).await })
            }),
            opcode::MKNOD => {
                let (mode, rdev, umask) = (asked.u32(0), asked.u32(4), asked.u32(8));
                self.with_name(slot, |slot, name| {
                    let new = new_mode(mode, umask);
                    let work = async move { fs.mknod(&cred(), ino, &name, new, mode, u64::from(rdev)).await };
                    self.entry(slot, "mknod", work)
                })
            }
            opcode::MKDIR => {
                let mode = new_mode(asked.u32(0), asked.u32(4));
                self.with_name(slot, |slot, name| {
                    self.entry(slot, "mkdir", async move { fs.mkdir(&cred(), ino, &name, mode).await })
                })
            }
            opcode::UNLINK => self.with_name(slot, |slot, name| {
                self.empty(slot, "unlink", async move { fs.unlink(&cred(), ino, &name).await })
            }),
            opcode::RMDIR => self.with_name(slot, |slot, name| {
                self.empty(slot, "rmdir", async move { fs.rmdir(&cred(), ino, &name).await })
            }),
            opcode::RENAME | opcode::RENAME2 => {
                let flags = if head.opcode == opcode::RENAME2 { asked.u32(8) } else { 0 };
                let new_parent = asked.u64(0);
                self.with_two_names(slot, |slot, name, new_name| {
                    let work = async move { fs.rename(&cred(), (ino, &name), (new_parent, &new_name), flags).await };
                    self.empty(slot, "rename", work)
                })
            }
            opcode::LINK => {
                let existing = asked.u64(0);
                self.with_name(slot, |slot, name| {
                    self.entry(slot, "link", async move { fs.link(&cred(), existing, ino, &name).await })
                })
            }
            opcode::OPEN => {
                let flags = asked.u32(0) as i32;
                self.answer(slot, "open", async move {
                    let opened = fs.open(&cred(), ino, flags).await?;
                    if !opened.keep_cache {
                        kernel.forget_attributes(INodeNo(ino));
                    }
                    Ok(Answer::Structure(Reply::default().opened(opened.handle, open_flags(opened).bits())))
                })
            }
            opcode::CREATE => {
                let (flags, mode) = (asked.u32(0) as i32, new_mode(asked.u32(4), asked.u32(8)));
                self.with_name(slot, |slot, name| {
                    self.answer(slot, "create", async move {
                        let (attr, opened) = fs.create(&cred(), ino, &name, mode, flags).await?;
                        let valid = fs.attr_timeout(false).min(fs.entry_timeout);
                        let valid = if opened.shared { Duration::ZERO } else { valid };
                        let entry = Reply::default().entry(given(&fs, &attr), &attr, valid, valid);
                        Ok(Answer::Structure(entry.opened(opened.handle, open_flags(opened).bits())))
                    })
                })
            }
            opcode::READ => {
                let (handle, offset, size) = (asked.u64(0), asked.u64(8), asked.u32(16));
                self.answer(
                    slot,
                    "read",
                    async move { fs.read(handle, offset, size, head.pid).await.map(Answer::Pieces) },
                )
            }
            opcode::STATFS => self.answer(slot, "statfs", async move {
                let s = fs.statfs().await?;
                let blocks = |bytes: u64| bytes / STATFS_UNIT;
                let counts = [
                    blocks(s.data.total),
                    blocks(s.data.total.saturating_sub(s.data.used)),
                    blocks(s.data.available),
                    s.inodes_used.saturating_add(s.inodes_free),
                    s.inodes_free,
                ];
                let name_max = sateen_types::limits::NAME_BYTES_MAX as u32;
                Ok(Answer::Structure(Reply::default().statfs(counts, STATFS_UNIT as u32, name_max)))
            }),
            opcode::RELEASE => {
                let handle = asked.u64(0);
                self.empty(slot, "release", async move { fs.release(handle).await })
            }
            opcode::FSYNC => {
                let handle = asked.u64(0);
                self.empty(slot, "fsync", async move { fs.fsync(handle).await })
            }
            opcode::FLUSH => {
                let (handle, owner) = (asked.u64(0), asked.u64(16));
                self.empty(slot, "flush", async move { fs.flush(handle, owner).await })
            }
            opcode::SETXATTR => {
                let (size, flags) = (asked.u32(0) as usize, asked.u32(4) as i32);
                let mut rest = slot.payload();
                let name = next_name(&mut rest).map(<[u8]>::to_vec);
                let (Ok(name), Some(value)) = (name, rest.get(..size).map(<[u8]>::to_vec)) else {
                    return Some(slot.refuse(Errno::EINVAL));
                };
                self.empty(slot, "setxattr", async move { fs.setxattr(&cred(), ino, &name, &value, flags).await })
            }
            opcode::GETXATTR => {
                let size = asked.u32(0);
                self.with_name(slot, |slot, name| {
                    self.answer(slot, "getxattr", async move {
                        Ok(Answer::Value(fs.getxattr(&cred(), ino, &name).await?, size))
                    })
                })
            }
            opcode::LISTXATTR => {
                let size = asked.u32(0);
                self.answer(
                    slot,
                    "listxattr",
                    async move { Ok(Answer::Value(fs.listxattr(&cred(), ino).await?, size)) },
                )
            }
            opcode::REMOVEXATTR => self.with_name(slot, |slot, name| {
                self.empty(slot, "removexattr", async move { fs.removexattr(&cred(), ino, &name).await })
            }),
            opcode::OPENDIR => self.answer(slot, "opendir", async move {
                let handle = fs.opendir(cred(), ino)?;
                Ok(Answer::Structure(Reply::default().opened(handle, 0)))
            }),
            opcode::RELEASEDIR => {
                let handle = asked.u64(0);
                self.empty(slot, "releasedir", async move { fs.releasedir(handle) })
            }
            opcode::FSYNCDIR => {
                let handle = asked.u64(0);
                self.empty(slot, "fsyncdir", async move { fs.fsyncdir(handle).await })
            }
            opcode::GETLK => {
                let ask = lock(&slot, &head);
                self.answer(slot, "getlk", async move {
                    let reply = Reply::default();
                    Ok(Answer::Structure(match fs.test_lock(ask).await? {
                        Some(there) => {
                            let shared = there.mode == LockMode::Shared;
                            let kind = if shared { libc::F_RDLCK } else { libc::F_WRLCK };
                            reply.u64(there.range.start()).u64(there.range.end()).u32(kind as u32).u32(there.pid)
                        }
                        None => reply.u64(ask.start).u64(ask.end).u32(libc::F_UNLCK as u32).u32(0),
                    }))
                })
            }
            opcode::SETLK | opcode::SETLKW => {
                let (ask, wait) = (lock(&slot, &head), head.opcode == opcode::SETLKW);
                self.empty(slot, "setlk", async move {
                    if fs.set_lock(ask, wait).await? {
                        kernel.forget_attributes(INodeNo(ino));
                    } else {
                        kernel.forget_data(INodeNo(ino)).await;
                    }
                    Ok(())
                })
            }
            opcode::FALLOCATE => {
                let (handle, offset, length) = (asked.u64(0), asked.u64(8), asked.u64(16));
                let mode = asked.u32(24) as i32;
                self.empty(slot, "fallocate", async move {
                    fs.fallocate(handle, offset, length, mode).await?;
                    // Its mode is not among what the kernel asks for again.
                    kernel.forget_attributes(INodeNo(ino));
                    Ok(())
                })
            }
            opcode::LSEEK => {
                let (handle, offset, whence) = (asked.u64(0), asked.u64(8), asked.u32(16) as i32);
                if i64::try_from(offset).is_err() {
                    return Some(slot.refuse(Errno::ENXIO));
                }
                self.run(slot.mailbox(), async move {
                    match fs.lseek(handle, offset, whence).await {
                        Ok(Some(at)) => slot.answer_with(Reply::default().u64(at).bytes()),
                        Ok(None) => slot.refuse(Errno::ENXIO),
                        Err(e) => slot.refuse(report("lseek", ino, &e)),
                    }
                })
            }
            opcode::COPY_FILE_RANGE => {
                let (from, to) = ((asked.u64(0), asked.u64(8)), (asked.u64(24), asked.u64(32)));
                let length = asked.u64(40);
                self.answer(slot, "copy_file_range", async move {
                    let copied = fs.copy(from, to, length).await?;
                    Ok(Answer::Structure(Reply::default().u32(copied).u32(0)))
                })
            }
            opcode::DESTROY => Some(slot.answer(0)),
            opcode::IOCTL => Some(slot.refuse(Errno::ENOTTY)),
            // Among them ACCESS: with `default_permissions` the kernel decides and, told so once, does not ask again.
            _ => Some(slot.refuse(Errno::ENOSYS)),
        }
    }

    fn write(&self, mut slot: Slot, head: Head) -> Option<Answered> {
        let asked = slot.headers();
        let (handle, offset, size, flags) = (asked.u64(0), asked.u64(8), asked.u32(16), asked.u32(20));
        let (fs, kernel, ino) = (self.fs.clone(), self.kernel.clone(), INodeNo(head.ino));
        let again = self.worker.clone();
        self.run(slot.mailbox(), async move {
            let data = slot.payload();
            if data.len() != size as usize {
                return slot.refuse(Errno::EINVAL);
            }
            match fs.write(handle, offset, data, head.pid).await {
                Ok(at) => {
                    if flags & WRITE_KILLS_PRIVILEGES != 0 && fs.loses_privileges(handle) {
                        kernel.forget_attributes(ino);
                    }
                    if at != offset {
                        // The kernel thought that the file ends elsewhere.
                        again.run(async move { kernel.forget_data(ino).await });
                    }
                    slot.shrink();
                    slot.answer_with(Reply::default().u32(size).u32(0).bytes())
                }
                Err(e) => slot.refuse(report("write", ino.0, &e)),
            }
        })
    }

    fn list(&self, mut slot: Slot, head: Head) -> Option<Answered> {
        let asked = slot.headers();
        let (handle, offset, size) = (asked.u64(0), asked.u64(8), asked.u32(16) as usize);
        let (fs, plus) = (self.fs.clone(), head.opcode == opcode::READDIRPLUS);
        self.run(slot.mailbox(), async move {
            let valid = fs.attr_timeout(false).min(fs.entry_timeout);
            let room = slot.room();
            let room_len = room.len().min(size);
            let mut listing = Listing::new(&mut room[..room_len]);
            let take = |item: DirItem| {
                let attributes = plus.then(|| {
                    item.attr.as_ref().map(|attr| {
                        given(&fs, attr);
                        (attr, valid)
                    })
                });
                !listing.add((item.ino, item.position, item.file_type, &item.name), attributes)
            };
            match fs.readdir(handle, offset, plus, take).await {
                Ok(()) => {
                    let len = listing.len();
                    slot.answer(len)
                }
                Err(e) => slot.refuse(report("readdir", head.ino, &e)),
            }
        })
    }

    fn with_name(&self, slot: Slot, go_on: impl FnOnce(Slot, Vec<u8>) -> Option<Answered>) -> Option<Answered> {
        match next_name(&mut slot.payload()).map(<[u8]>::to_vec) {
            Ok(name) => go_on(slot, name),
            Err(_) => Some(slot.refuse(Errno::EINVAL)),
        }
    }

    fn with_two_names(
        &self,
        slot: Slot,
        go_on: impl FnOnce(Slot, Vec<u8>, Vec<u8>) -> Option<Answered>,
    ) -> Option<Answered> {
        let mut payload = slot.payload();
        let names = next_name(&mut payload)
            .map(<[u8]>::to_vec)
            .and_then(|first| Ok((first, next_name(&mut payload).map(<[u8]>::to_vec)?)));
        match names {
            Ok((first, second)) => go_on(slot, first, second),
            Err(_) => Some(slot.refuse(Errno::EINVAL)),
        }
    }
}

/// The inode number of attributes that the kernel is given.
fn given(fs: &MountedFs, attr: &Attr) -> u64 {
    let ino = fs.ino(attr.fid);
    fs.xattr_hints.given(ino, attr);
    ino
}

/// `struct fuse_lk_in`.
fn lock(slot: &Slot, head: &Head) -> KernelLock {
    let asked = slot.headers();
    KernelLock {
        handle: asked.u64(0),
        owner: asked.u64(8),
        start: asked.u64(16),
        end: asked.u64(24),
        kind: asked.u32(32) as i32,
        pid: asked.u32(36),
        thread: head.pid,
    }
}

fn put(mut slot: Slot, answer: Answer) -> Answered {
    match answer {
        Answer::Nothing => slot.answer(0),
        Answer::Structure(reply) => slot.answer_with(reply.bytes()),
        Answer::Bytes(bytes) => slot.answer_with(&bytes),
        Answer::Value(value, 0) => slot.answer_with(Reply::default().u32(value.len() as u32).u32(0).bytes()),
        Answer::Value(value, room) if value.len() > room as usize => slot.refuse(Errno::ERANGE),
        Answer::Value(value, _) => slot.answer_with(&value),
        Answer::Pieces(data) => {
            let room = slot.room();
            if data.len() > room.len() {
                return slot.refuse(Errno::EIO);
            }
            let mut at = 0;
            for piece in data.pieces() {
                room[at..at + piece.len()].copy_from_slice(piece);
                at += piece.len();
            }
            slot.answer(at)
        }
    }
}
