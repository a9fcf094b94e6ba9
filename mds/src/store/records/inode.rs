//! Inodes.

use sateen_types::acl::{Acl, ExtendedAcl};
use sateen_types::{Attr, Fid, FileType, Timestamp};

use super::{read_type, write_type};
use crate::store::codec::{Reader, Record, Writer};

/// What `stat` says a directory's size is.
const DIRECTORY_SIZE: u64 = 4096;
/// Unit of `st_blocks`, bytes.
const STAT_BLOCK: u64 = 512;

/// Everything about a file except its names, data and extended attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// `0..=0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names of a file; 2 + subdirectories of a directory. 0 for an orphan.
    pub nlink: u32,
    /// Bytes of a regular file; 0 otherwise.
    pub size: u64,
    /// Disk space in bytes, as the last writer reported.
    pub allocated: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of data.
    pub mtime: Timestamp,
    /// Last change of data or attributes.
    pub ctime: Timestamp,
    /// Creation.
    pub btime: Timestamp,
    /// Rises with every change.
    pub change: u64,
    /// What the access ACL says beyond `mode`.
    pub acl: Option<Box<ExtendedAcl>>,
    /// Of a directory: what is made in it inherits this.
    pub default_acl: Option<Box<Acl>>,
    /// `security.capability` is among its extended attributes.
    pub has_capabilities: bool,
    /// What only this kind of file has.
    pub body: Body,
}

/// What only one kind of file has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Regular file; its layout is in a table of its own.
    Regular,
    /// Directory.
    Directory {
        /// Names in it, so that rmdir needs no scan.
        entries: u64,
        /// Position of the next new name; never goes back.
        next_cookie: u64,
    },
    /// Symbolic link: 1 to 4095 bytes.
    Symlink(Vec<u8>),
    /// Named pipe.
    Fifo,
    /// Unix socket.
    Socket,
    /// Character device with its number.
    CharDevice(u64),
    /// Block device with its number.
    BlockDevice(u64),
}

impl Body {
    /// First cookie of a directory: FUSE keeps 1 and 2 for `.` and `..`.
    pub const FIRST_COOKIE: u64 = 3;

    /// A directory without names.
    pub fn empty_directory() -> Body {
        Body::Directory { entries: 0, next_cookie: Body::FIRST_COOKIE }
    }
}

impl Inode {
    /// What kind of file it is.
    pub fn file_type(&self) -> FileType {
        match self.body {
            Body::Regular => FileType::Regular,
            Body::Directory { .. } => FileType::Directory,
            Body::Symlink(_) => FileType::Symlink,
            Body::Fifo => FileType::Fifo,
            Body::Socket => FileType::Socket,
            Body::CharDevice(_) => FileType::CharDevice,
            Body::BlockDevice(_) => FileType::BlockDevice,
        }
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self.body, Body::Directory { .. })
    }

    /// Whether it is a regular file.
    pub fn is_regular(&self) -> bool {
        matches!(self.body, Body::Regular)
    }

    /// As `stat` shows it.
    pub fn attr(&self, fid: Fid) -> Attr {
        let (size, rdev) = match &self.body {
            Body::Directory { .. } => (DIRECTORY_SIZE, 0),
            Body::Symlink(target) => (target.len() as u64, 0),
            Body::CharDevice(rdev) | Body::BlockDevice(rdev) => (0, *rdev),
            Body::Regular | Body::Fifo | Body::Socket => (self.size, 0),
        };
        Attr {
            fid,
            file_type: self.file_type(),
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            nlink: self.nlink,
            size,
            blocks: self.allocated.div_ceil(STAT_BLOCK),
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            btime: self.btime,
            rdev,
            change: self.change,
            has_acl: self.acl.is_some(),
            has_default_acl: self.default_acl.is_some(),
            has_capabilities: self.has_capabilities,
        }
    }
}

impl Record for Inode {
    const WHAT: &'static str = "inode";
    /// 2: with ACLs or capabilities. Inodes without are written as version 1.
    const VERSION: u8 = 2;

    fn version(&self) -> u8 {
        if self.acl.is_some() || self.default_acl.is_some() || self.has_capabilities { 2 } else { 1 }
    }

    fn write(&self, out: &mut Writer) {
        write_type(out, self.file_type());
        for n in [self.mode, self.uid, self.gid, self.nlink] {
            out.u32(n);
        }
        out.u64(self.size);
        out.u64(self.allocated);
        for t in [self.atime, self.mtime, self.ctime, self.btime] {
            out.time(t);
        }
        out.u64(self.change);
        match &self.body {
            Body::Directory { entries, next_cookie } => {
                out.u64(*entries);
                out.u64(*next_cookie);
            }
            Body::Symlink(target) => out.bytes(target),
            Body::CharDevice(rdev) | Body::BlockDevice(rdev) => out.u64(*rdev),
            Body::Regular | Body::Fifo | Body::Socket => {}
        }
        if self.version() > 1 {
            let access = self.acl.as_ref().map(|acl| acl.with_mode(self.mode).to_xattr());
            out.bytes(&access.unwrap_or_default());
            out.bytes(&self.default_acl.as_ref().map(|acl| acl.to_xattr()).unwrap_or_default());
            out.u8(u8::from(self.has_capabilities));
        }
    }

    fn read(input: &mut Reader<'_>) -> Option<Inode> {
        let file_type = read_type(input)?;
        let (mode, uid, gid, nlink) = (input.u32()?, input.u32()?, input.u32()?, input.u32()?);
        let (size, allocated) = (input.u64()?, input.u64()?);
        let (atime, mtime, ctime, btime) = (input.time()?, input.time()?, input.time()?, input.time()?);
        let change = input.u64()?;
        let body = match file_type {
            FileType::Regular => Body::Regular,
            FileType::Directory => Body::Directory { entries: input.u64()?, next_cookie: input.u64()? },
            FileType::Symlink => Body::Symlink(input.bytes()?.to_vec()),
            FileType::Fifo => Body::Fifo,
            FileType::Socket => Body::Socket,
            FileType::CharDevice => Body::CharDevice(input.u64()?),
            FileType::BlockDevice => Body::BlockDevice(input.u64()?),
        };
        let (mut acl, mut default_acl, mut has_capabilities) = (None, None, false);
        if input.version() > 1 {
            if let Some(access) = read_acl(input)? {
                let (bits, extended) = access.split();
                acl = Some(Box::new(extended.filter(|_| bits == mode & 0o777)?));
            }
            default_acl = read_acl(input)?.map(Box::new);
            has_capabilities = input.bool()?;
        }
        let inode = Inode {
            mode,
            uid,
            gid,
            nlink,
            size,
            allocated,
            atime,
            mtime,
            ctime,
            btime,
            change,
            acl,
            default_acl,
            has_capabilities,
            body,
        };
        (inode.version() == input.version()).then_some(inode)
    }
}

/// An ACL in the form of its extended attribute, or nothing. The outer `None`: these bytes are neither.
#[allow(clippy::option_option, reason = "malformed, absent and there are three things")]
fn read_acl(input: &mut Reader<'_>) -> Option<Option<Acl>> {
    match input.bytes()? {
        [] => Some(None),
        bytes => Acl::parse(bytes).ok().flatten().map(Some),
    }
}
