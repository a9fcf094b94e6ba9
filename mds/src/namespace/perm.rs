//! Who may do what: POSIX permission bits, ACLs, the superuser, sticky directories.

use sateen_types::op;
use sateen_types::{Credential, FsCode, FsError, FsResult};

use crate::store::records::Inode;

/// Set user id on execution.
pub const S_ISUID: u32 = 0o4000;
/// Set group id on execution; on a directory: new files inherit its group.
pub const S_ISGID: u32 = 0o2000;
/// On a directory: only owners remove names.
pub const S_ISVTX: u32 = 0o1000;
/// Execution by the group.
pub const S_IXGRP: u32 = 0o010;
const ANY_EXEC: u32 = 0o111;

/// What is wanted, as in one octal digit of the mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(u32);

impl Access {
    /// Read a file, list a directory.
    pub const READ: Access = Access(4);
    /// Write a file, change the names in a directory (with [`Access::SEARCH`]).
    pub const WRITE: Access = Access(2);
    /// Execute a file.
    pub const EXEC: Access = Access(1);
    /// Use the names in a directory.
    pub const SEARCH: Access = Access(1);
    /// Add and remove names.
    pub const CHANGE_NAMES: Access = Access(3);
}

impl From<op::Access> for Access {
    fn from(a: op::Access) -> Access {
        Access(u32::from(a.read) * 4 + u32::from(a.write) * 2 + u32::from(a.exec))
    }
}

/// Whether the permission bits (of the first class that matches: owner, group, others), the ACL or the superuser's
/// rights allow all of `wanted`. The superuser executes only what somebody may execute. Linux looks into an ACL only if its
/// mask gives something, and takes whoever is named for one of the others where it gives nothing; here POSIX.1e holds.
pub fn allows(inode: &Inode, who: &Credential, wanted: Access) -> bool {
    if who.uid == 0 {
        let exec_of_file = wanted.0 & Access::EXEC.0 != 0 && !inode.is_dir();
        return !exec_of_file || inode.mode & ANY_EXEC != 0;
    }
    let class = if who.uid == inode.uid {
        inode.mode >> 6
    } else if let Some(acl) = &inode.acl {
        return acl.allows(who, inode.mode, inode.gid, wanted.0);
    } else if who.in_group(inode.gid) {
        inode.mode >> 3
    } else {
        inode.mode
    };
    class & wanted.0 == wanted.0
}

/// [`allows`], or `AccessDenied`.
pub fn access(inode: &Inode, who: &Credential, wanted: Access) -> FsResult<()> {
    if allows(inode, who, wanted) {
        return Ok(());
    }
    Err(FsError::new(
        FsCode::AccessDenied,
        format!(
            "user {} may not ({:03b}) with mode {:04o} of owner {}:{}",
            who.uid, wanted.0, inode.mode, inode.uid, inode.gid
        ),
    ))
}

/// Only the owner and root may, or `NotPermitted`.
pub fn owner(inode: &Inode, who: &Credential) -> FsResult<()> {
    if who.uid == 0 || who.uid == inode.uid {
        return Ok(());
    }
    Err(FsError::new(FsCode::NotPermitted, format!("user {} is not the owner ({})", who.uid, inode.uid)))
}

/// Only root may, or `NotPermitted`.
pub fn root(who: &Credential, what: &str) -> FsResult<()> {
    if who.uid == 0 { Ok(()) } else { Err(FsError::new(FsCode::NotPermitted, format!("only root may {what}"))) }
}

/// Removing or replacing the name of `victim` in `dir`: write and search permission, and in a sticky directory
/// ownership of one of the two.
pub fn may_remove(dir: &Inode, victim: &Inode, who: &Credential) -> FsResult<()> {
    access(dir, who, Access::CHANGE_NAMES)?;
    if dir.mode & S_ISVTX != 0 && who.uid != 0 && who.uid != victim.uid && who.uid != dir.uid {
        return Err(FsError::new(
            FsCode::NotPermitted,
            format!("the directory is sticky and user {} owns neither it nor the file", who.uid),
        ));
    }
    Ok(())
}

/// Whether `who` may keep a set-group-id bit on a file of group `gid`.
pub fn may_setgid(who: &Credential, gid: u32) -> bool {
    who.uid == 0 || who.in_group(gid)
}

/// What is left of the mode when `who` changes data or owner: no set-user-id; set-group-id only where it does not mean that
/// (without group execution) and `who` could set it.
pub fn without_privileges(inode: &Inode, who: &Credential) -> u32 {
    let keep_gid = inode.mode & S_IXGRP == 0 && may_setgid(who, inode.gid);
    inode.mode & !S_ISUID & !(if keep_gid { 0 } else { S_ISGID })
}
