//! Attributes, file types, times, credentials.

use sateen_types::limits::GROUPS_MAX;
use sateen_types::op::NewMode;
use sateen_types::{Attr, Credential, FileType, FsError, FsResult, Timestamp};

use super::{bad, fid, known, required};
use crate::{common, mds};

/// Every bit `chmod` can set.
const MODE_BITS: u32 = 0o7777;

/// Permission bits: nothing above 07777.
pub fn mode(bits: u32) -> FsResult<u32> {
    if bits & !MODE_BITS == 0 { Ok(bits) } else { Err(bad("mode", format_args!("{bits:#o} has bits above 07777"))) }
}

/// Permissions of something new.
pub fn new_mode(bits: u32, masked: u32) -> FsResult<NewMode> {
    if masked & !0o777 != 0 {
        return Err(bad("masked", format_args!("{masked:#o} has bits above 0777")));
    }
    Ok(NewMode { mode: mode(bits)?, masked })
}

impl From<Timestamp> for common::Timestamp {
    fn from(t: Timestamp) -> common::Timestamp {
        common::Timestamp { seconds: t.seconds, nanos: t.nanos }
    }
}

impl TryFrom<common::Timestamp> for Timestamp {
    type Error = FsError;
    fn try_from(w: common::Timestamp) -> FsResult<Timestamp> {
        // The system's own time type overflows beyond it; no file is that old or new.
        const SECONDS_MAX: i64 = 1 << 60;
        if w.nanos >= 1_000_000_000 || !(-SECONDS_MAX..=SECONDS_MAX).contains(&w.seconds) {
            return Err(bad("timestamp", format_args!("{} s {} ns is not a time", w.seconds, w.nanos)));
        }
        Ok(Timestamp { seconds: w.seconds, nanos: w.nanos })
    }
}

impl From<FileType> for mds::FileType {
    fn from(t: FileType) -> mds::FileType {
        match t {
            FileType::Regular => mds::FileType::Regular,
            FileType::Directory => mds::FileType::Directory,
            FileType::Symlink => mds::FileType::Symlink,
            FileType::Fifo => mds::FileType::Fifo,
            FileType::Socket => mds::FileType::Socket,
            FileType::CharDevice => mds::FileType::CharDevice,
            FileType::BlockDevice => mds::FileType::BlockDevice,
        }
    }
}

/// A file type a peer sent.
pub fn file_type(number: i32) -> FsResult<FileType> {
    Ok(match known(number, "type")? {
        mds::FileType::Regular => FileType::Regular,
        mds::FileType::Directory => FileType::Directory,
        mds::FileType::Symlink => FileType::Symlink,
        mds::FileType::Fifo => FileType::Fifo,
        mds::FileType::Socket => FileType::Socket,
        mds::FileType::CharDevice => FileType::CharDevice,
        mds::FileType::BlockDevice => FileType::BlockDevice,
        mds::FileType::Unspecified => return Err(bad("type", "unspecified")),
    })
}

impl From<&Attr> for mds::Attr {
    fn from(a: &Attr) -> mds::Attr {
        mds::Attr {
            fid: Some(a.fid.into()),
            r#type: mds::FileType::from(a.file_type).into(),
            mode: a.mode,
            uid: a.uid,
            gid: a.gid,
            nlink: a.nlink,
            size: a.size,
            blocks: a.blocks,
            atime: Some(a.atime.into()),
            mtime: Some(a.mtime.into()),
            ctime: Some(a.ctime.into()),
            btime: Some(a.btime.into()),
            rdev: a.rdev,
            change: a.change,
            has_acl: a.has_acl,
            has_default_acl: a.has_default_acl,
            has_capabilities: a.has_capabilities,
        }
    }
}

impl TryFrom<mds::Attr> for Attr {
    type Error = FsError;
    fn try_from(w: mds::Attr) -> FsResult<Attr> {
        Ok(Attr {
            fid: fid(w.fid, "fid")?,
            file_type: file_type(w.r#type)?,
            mode: mode(w.mode)?,
            uid: w.uid,
            gid: w.gid,
            nlink: w.nlink,
            size: w.size,
            blocks: w.blocks,
            atime: required(w.atime, "atime")?.try_into()?,
            mtime: required(w.mtime, "mtime")?.try_into()?,
            ctime: required(w.ctime, "ctime")?.try_into()?,
            btime: required(w.btime, "btime")?.try_into()?,
            rdev: w.rdev,
            change: w.change,
            has_acl: w.has_acl,
            has_default_acl: w.has_default_acl,
            has_capabilities: w.has_capabilities,
        })
    }
}

impl From<&Credential> for mds::Credential {
    fn from(c: &Credential) -> mds::Credential {
        mds::Credential { uid: c.uid, gid: c.gid, groups: c.groups.clone() }
    }
}

impl TryFrom<mds::Credential> for Credential {
    type Error = FsError;
    fn try_from(w: mds::Credential) -> FsResult<Credential> {
        if w.groups.len() > GROUPS_MAX {
            return Err(bad("groups", format_args!("{}, at most {GROUPS_MAX}", w.groups.len())));
        }
        Ok(Credential { uid: w.uid, gid: w.gid, groups: w.groups })
    }
}

/// The credential of a request; it must be there.
pub fn credential(w: Option<mds::Credential>) -> FsResult<Credential> {
    required(w, "credential")?.try_into()
}
