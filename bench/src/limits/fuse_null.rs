//! A FUSE file system that does nothing but answer reads from memory: what the kernel's way to a process and back allows.
//!
//! It is a process of its own, mounted as Sateen mounts (same code, same sizes and numbers asked of the kernel), with one
//! file whose bytes are those of [`Blocks`]. No name, cache or network is behind it.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, InitFlags, KernelConfig, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyEntry, Request, Session, SessionACL,
};
use sateen_fuse::{MountOptions, kernel};

use crate::bench::Bench;
use crate::cases::fuse_seq;
use crate::data::{BLOCK, Blocks, Kind};
use crate::peer::Remote;
use crate::rate::gb_per_second;

/// Its one file.
const FILE: &str = "file";
/// Inode of that file.
const FILE_INO: INodeNo = INodeNo(2);
/// How long the kernel may keep what it was told: for ever, as measured here.
const TTL: Duration = Duration::from_secs(3600);
// As in client-lib/fuse: `shell.rs` and `mount.rs`.
/// Largest write.
const WRITE_BYTES_MAX: u32 = 1 << 20;
/// Requests the kernel may have under way unasked.
const BACKGROUND_MAX: u16 = 64;
/// Most threads.
const THREADS_MAX: usize = 4;
/// What the kernel reads ahead.
const READ_AHEAD_BYTES: u64 = 1 << 20;

/// Reads the file once through a new mount, as `fuse.read.seq.random` does.
pub fn read(bench: &Bench) -> anyhow::Result<f64> {
    let bytes = bench.sizes.stream_bytes;
    let blocks = bench.blocks(Kind::Random);
    let point = bench.local_dir().join(bench.new_name("mnt-null"));
    std::fs::create_dir(&point)?;
    let remote = Remote::fuse_null(&point, bytes)?;
    let took = fuse_seq::read_through(&point.join(FILE), bytes, |offset, got| blocks.check_pages(offset, got));
    // The end of its input makes the other process unmount.
    drop(remote);
    Ok(gb_per_second(bytes, took?))
}

/// Body of the other process: serves a file of `bytes` bytes at `point` until the standard input ends.
pub fn serve(point: &Path, bytes: u64) -> anyhow::Result<()> {
    let connection = kernel::attach("null", point, &MountOptions::default())?;
    let mut config = Config::default();
    config.n_threads = Some(std::thread::available_parallelism().map_or(1, usize::from).clamp(2, THREADS_MAX));
    config.clone_fd = rustix::process::geteuid().is_root();
    let null = Null { blocks: Blocks::generate(Kind::Random), bytes };
    let session =
        Session::from_fd(null, connection, SessionACL::All, config).context("the kernel refused the mount")?;
    let served = std::thread::spawn(move || session.run());
    let device = std::fs::metadata(point)?.dev();
    kernel::raise_read_ahead(&format!("{}:{}", libc::major(device), libc::minor(device)), READ_AHEAD_BYTES);
    println!("ready");
    std::io::stdout().flush()?;
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    kernel::detach(point, true)?;
    served.join().map_err(|_| anyhow::anyhow!("serving the mount panicked"))?.context("serving the mount")
}

/// The file system.
struct Null {
    blocks: Blocks,
    bytes: u64,
}

impl Null {
    fn attr(&self, ino: INodeNo) -> Option<FileAttr> {
        let (kind, size) = match ino {
            INodeNo::ROOT => (FileType::Directory, 0),
            FILE_INO => (FileType::RegularFile, self.bytes),
            _ => return None,
        };
        Some(FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: 0o755,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

impl Filesystem for Null {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        for flag in [InitFlags::FUSE_ASYNC_DIO, InitFlags::FUSE_AUTO_INVAL_DATA, InitFlags::FUSE_MAX_PAGES] {
            let _ = config.add_capabilities(flag);
        }
        let _ = config.set_max_write(WRITE_BYTES_MAX);
        let _ = config.set_max_background(BACKGROUND_MAX);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.attr(FILE_INO) {
            Some(attr) if parent == INodeNo::ROOT && name == FILE => reply.entry(&TTL, &attr, Generation(0)),
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr(ino) {
            Some(attr) => reply.attr(&TTL, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let len = u64::from(size).min(self.bytes.saturating_sub(offset)) as usize;
        let at = (offset % BLOCK as u64) as usize;
        if at + len <= BLOCK {
            return reply.data(self.blocks.range(offset, len));
        }
        // Over the end of a block: rare, because the kernel reads in powers of two.
        let first = BLOCK - at;
        let both = [self.blocks.range(offset, first), self.blocks.range(offset + first as u64, len - first)];
        reply.data(&both.concat());
    }
}
