//! ACLs through their extended attributes. Everybody may read them, the owner and root set them. Order of checks as in Linux's
//! `set_posix_acl`: symbolic links have none (`NotSupported`); only directories have a default ACL (`AccessDenied`); the
//! owner; what the list says.

use sateen_types::acl::{ACCESS_XATTR, Acl, DEFAULT_XATTR};
use sateen_types::op::MutationReply;
use sateen_types::{Credential, Fid, FsCode, FsError, FsResult, XattrName};

use super::perm::{self, S_ISGID};
use super::tree;
use crate::command::Inputs;
use crate::store::Txn;
use crate::store::records::{Body, Inode};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Who may use the file.
    Access,
    /// What new files in the directory inherit.
    Default,
}

impl Kind {
    /// The one an extended attribute stands for, if it does.
    pub fn of(name: &XattrName) -> Option<Kind> {
        match name.as_bytes() {
            ACCESS_XATTR => Some(Kind::Access),
            DEFAULT_XATTR => Some(Kind::Default),
            _ => None,
        }
    }
}

/// Names of the attributes a file has.
pub fn names(inode: &Inode) -> Vec<Vec<u8>> {
    let access = inode.acl.as_ref().map(|_| ACCESS_XATTR.to_vec());
    access.into_iter().chain(inode.default_acl.as_ref().map(|_| DEFAULT_XATTR.to_vec())).collect()
}

/// The value of one, if the file has it.
pub fn get(inode: &Inode, kind: Kind) -> FsResult<Option<Vec<u8>>> {
    refuse_symlink(inode)?;
    Ok(match kind {
        Kind::Access => inode.acl.as_ref().map(|acl| acl.with_mode(inode.mode).to_xattr()),
        Kind::Default => inode.default_acl.as_ref().map(|acl| acl.to_xattr()),
    })
}

/// Sets one. An access ACL also sets the mode; one that says no more than a mode leaves nothing else.
pub fn set(
    tx: &mut dyn Txn,
    who: &Credential,
    (fid, mut inode): (Fid, Inode),
    kind: Kind,
    value: &[u8],
    inputs: &Inputs,
) -> FsResult<MutationReply> {
    let list = Acl::parse(value)?;
    let Some(list) = list else { return remove(tx, who, (fid, inode), kind, inputs) };
    refuse_symlink(&inode)?;
    if kind == Kind::Default && !inode.is_dir() {
        return Err(FsError::new(FsCode::AccessDenied, format!("{fid} is not a directory and has no default ACL")));
    }
    perm::owner(&inode, who)?;
    match kind {
        Kind::Access => {
            let (bits, extended) = list.split();
            inode.mode = inode.mode & !0o777 | bits;
            if !perm::may_setgid(who, inode.gid) {
                inode.mode &= !S_ISGID;
            }
            inode.acl = extended.map(Box::new);
        }
        Kind::Default => inode.default_acl = Some(Box::new(list)),
    }
    changed(tx, fid, inode, inputs)
}

/// Removes one; nothing happens if it is not there. The mode stays as it is.
pub fn remove(
    tx: &mut dyn Txn,
    who: &Credential,
    (fid, mut inode): (Fid, Inode),
    kind: Kind,
    inputs: &Inputs,
) -> FsResult<MutationReply> {
    refuse_symlink(&inode)?;
    perm::owner(&inode, who)?;
    let had = match kind {
        Kind::Access => inode.acl.take().is_some(),
        Kind::Default => inode.default_acl.take().is_some(),
    };
    if had { changed(tx, fid, inode, inputs) } else { Ok(MutationReply::Attr(inode.attr(fid))) }
}

fn changed(tx: &mut dyn Txn, fid: Fid, mut inode: Inode, inputs: &Inputs) -> FsResult<MutationReply> {
    inode.attr_changed(inputs.now);
    tree::put_inode(tx, fid, &inode);
    Ok(MutationReply::Attr(inode.attr(fid)))
}

fn refuse_symlink(inode: &Inode) -> FsResult<()> {
    match inode.body {
        Body::Symlink(_) => Err(FsError::new(FsCode::NotSupported, "symbolic links have no ACL")),
        _ => Ok(()),
    }
}
