//! Changes of a namespace, as a client asks for them. The MDS turns each into a command of its core; the client
//! numbers them within its session so that each takes effect exactly once.

#![allow(missing_docs, reason = "fields of the inline variants are documented in namespace.proto")]

use crate::attr::{Attr, FileType, Timestamp};
use crate::ids::Fid;
use crate::layout::{Layout, LayoutTemplate};
use crate::name::{Name, XattrName};

/// One change of a namespace. Rules and errors of each are in `proto/sateen/mds/v1/namespace.proto`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Makes (or, not exclusive, finds) a regular file.
    Create(Create),
    /// Makes a directory.
    Mkdir { parent: Fid, name: Name, mode: NewMode },
    /// Makes a FIFO, socket, device or closed regular file.
    Mknod { parent: Fid, name: Name, mode: NewMode, file_type: FileType, rdev: u64 },
    /// Makes a symbolic link.
    Symlink { parent: Fid, name: Name, target: Vec<u8> },
    /// Gives a file another name.
    Link { fid: Fid, parent: Fid, name: Name },
    /// Removes a name of anything but a directory.
    Unlink { parent: Fid, name: Name },
    /// Removes an empty directory.
    Rmdir { parent: Fid, name: Name },
    /// Moves a name.
    Rename { parent: Fid, name: Name, new_parent: Fid, new_name: Name, mode: RenameMode },
    /// Changes attributes.
    SetAttr(SetAttr),
    /// Sets an extended attribute.
    SetXattr { fid: Fid, name: XattrName, value: Vec<u8>, mode: XattrMode },
    /// Removes an extended attribute.
    RemoveXattr { fid: Fid, name: XattrName },
    /// Chooses OSTs for the components that overlap `[offset, offset + length)`.
    Instantiate { fid: Fid, offset: u64, length: u64 },
    /// Gives an empty file another layout.
    SetLayout { fid: Fid, layout: LayoutTemplate },
    /// Sets or (`None`) removes a directory's default layout.
    SetDefaultLayout { fid: Fid, layout: Option<LayoutTemplate> },
    /// Reports what writes did, after their data is on the OSTs.
    WriteDone(WriteDone),
    /// Reports when files were last read.
    ReadDone(ReadDone),
}

/// See [`Mutation::Create`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// Directory.
    pub parent: Fid,
    /// Name in it.
    pub name: Name,
    /// Its permissions.
    pub mode: NewMode,
    /// Fail with `Exists` if the name is taken.
    pub exclusive: bool,
    /// Open it for the session as well.
    pub open: Option<Access>,
    /// `None`: the directory's default.
    pub layout: Option<LayoutTemplate>,
}

/// Permissions of something new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewMode {
    /// `0..=0o7777`, the umask already taken away.
    pub mode: u32,
    /// What the umask took. It comes back where a default ACL decides instead of the umask.
    pub masked: u32,
}

impl NewMode {
    /// What a program asks for that has this umask.
    pub fn with_umask(mode: u32, umask: u32) -> NewMode {
        NewMode { mode: mode & !umask, masked: mode & umask & 0o777 }
    }

    /// What the program asked for.
    pub fn asked(self) -> u32 {
        self.mode | self.masked
    }
}

impl From<u32> for NewMode {
    fn from(mode: u32) -> NewMode {
        NewMode { mode, masked: 0 }
    }
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Read its data.
    pub read: bool,
    /// Write its data.
    pub write: bool,
    /// Execute it.
    pub exec: bool,
}

impl Access {
    /// `O_RDONLY`.
    pub const READ: Access = Access { read: true, write: false, exec: false };
    /// `O_WRONLY`.
    pub const WRITE: Access = Access { read: false, write: true, exec: false };
    /// `O_RDWR`.
    pub const READ_WRITE: Access = Access { read: true, write: true, exec: false };
}

/// What a rename does with a taken new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// Replaces it.
    Replace,
    /// Fails with `Exists`.
    NoReplace,
    /// Both names must exist and change places.
    Exchange,
}

/// What setting an extended attribute expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrMode {
    /// Either.
    Set,
    /// Not there yet, else `Exists`.
    Create,
    /// There already, else `NoData`.
    Replace,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// This one (owner only).
    At(Timestamp),
    /// The MDS's clock (anybody who may write).
    Now,
}

/// See [`Mutation::SetAttr`]; `None` leaves an attribute as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAttr {
    /// The inode.
    pub fid: Fid,
    /// `0..=0o7777`.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Truncate or extend.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of data.
    pub mtime: Option<SetTime>,
    /// The caller has the file open for writing: `size` needs no further permission.
    pub via_open_file: bool,
}

impl SetAttr {
    /// Changes nothing yet.
    pub fn new(fid: Fid) -> SetAttr {
        SetAttr { fid, mode: None, uid: None, gid: None, size: None, atime: None, mtime: None, via_open_file: false }
    }
}

/// See [`Mutation::WriteDone`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteDone {
    /// The file.
    pub fid: Fid,
    /// One past the last byte written; 0 if only times changed. The size only grows.
    pub end: u64,
    /// Last change of data.
    pub mtime: Option<Timestamp>,
    /// Change of the disk space in bytes.
    pub allocated_delta: i64,
    /// A user other than root wrote: setuid and setgid bits go.
    pub clear_suid: bool,
}

/// See [`Mutation::ReadDone`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadDone {
    /// Files, and when they were read: at most [`crate::limits::READ_DONE_MAX`].
    pub times: Vec<(Fid, Timestamp)>,
}

/// The answer to a [`Mutation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MutationReply {
    /// Create, Mkdir, Mknod, Symlink, Link.
    Entry(Entry),
    /// SetAttr, WriteDone, SetXattr, RemoveXattr.
    Attr(Attr),
    /// Instantiate, SetLayout.
    Layout(Layout),
    /// Unlink, Rmdir, Rename, SetDefaultLayout, ReadDone.
    Done,
}

/// A name's inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its attributes.
    pub attr: Attr,
    /// Its layout, where it was opened.
    pub layout: Option<Layout>,
    /// A create that was not exclusive found it.
    pub existed: bool,
}

/// One entry of a directory listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name.
    pub name: Name,
    /// What it names.
    pub fid: Fid,
    /// Kind of that.
    pub file_type: FileType,
    /// Position: never reused in the directory, valid as long as the entry lives.
    pub cookie: u64,
    /// Attributes, if asked for.
    pub attr: Option<Attr>,
}
