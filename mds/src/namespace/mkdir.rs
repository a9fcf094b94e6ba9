//! New directories, and the root. Order of checks as in [`super::create`], then the parent's link count.

use sateen_types::limits::LINK_COUNT_MAX;
use sateen_types::op::{MutationReply, NewMode};
use sateen_types::{Credential, Fid, FsCode, FsError, FsResult, LayoutTemplate};

use super::create::{Place, add, free_name, fresh_fid, new_inode};
use super::perm::{S_ISGID, S_ISUID};
use super::{layout, tree};
use crate::command::Inputs;
use crate::store::codec::Record;
use crate::store::records::{Body, Inode};
use crate::store::{Table, Txn, keys};

/// A directory. It takes over the default layout its parent has of its own, as in Lustre; the root's is the file
/// system's default and is found without a copy.
pub fn mkdir(
    tx: &mut dyn Txn,
    who: &Credential,
    place: Place<'_>,
    asked: NewMode,
    inputs: &Inputs,
) -> FsResult<MutationReply> {
    let dir = free_name(tx, who, place)?;
    if dir.nlink >= LINK_COUNT_MAX {
        return Err(FsError::new(FsCode::TooManyLinks, format!("directory {} has {} links", place.0, dir.nlink)));
    }
    if place.0 != Fid::ROOT
        && let Some(template) = layout::own_template(tx, place.0)?
    {
        tx.put(Table::DefaultLayouts, keys::fid(fresh_fid(inputs)?), template.to_bytes());
    }
    // Set-user-id and set-group-id are not for mkdir to give; the latter may be inherited.
    let mode = NewMode { mode: asked.mode & !(S_ISUID | S_ISGID), ..asked };
    add(tx, place, new_inode(&dir, who, mode, Body::empty_directory(), inputs.now), None, inputs)
}

/// The root directory of an empty file system.
pub fn format(
    tx: &mut dyn Txn,
    uid: u32,
    gid: u32,
    mode: u32,
    layout: &LayoutTemplate,
    inputs: &Inputs,
) -> FsResult<()> {
    if tree::counter(tx, keys::FORMAT)? != 0 {
        return Err(FsError::new(FsCode::Exists, "the file system has a root already"));
    }
    let now = inputs.now;
    let root = Inode {
        mode,
        uid,
        gid,
        nlink: 2,
        size: 0,
        allocated: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        change: 1,
        acl: None,
        default_acl: None,
        has_capabilities: false,
        body: Body::empty_directory(),
    };
    tree::add_inode(tx, Fid::ROOT, &root)?;
    tx.put(Table::DefaultLayouts, keys::fid(Fid::ROOT), layout.to_bytes());
    tree::set_counter(tx, keys::FORMAT, 1);
    Ok(())
}
