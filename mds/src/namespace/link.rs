//! Another name for a file. Order of checks: the file exists; the new name is free and may be made; the file is not a
//! directory; its link count.

use sateen_types::limits::LINK_COUNT_MAX;
use sateen_types::op::{Entry, MutationReply};
use sateen_types::{Credential, Fid, FsCode, FsError, FsResult};

use super::create::{Place, free_name};
use super::tree;
use crate::command::Inputs;
use crate::store::Txn;

/// See the module.
pub fn link(
    tx: &mut dyn Txn,
    who: &Credential,
    fid: Fid,
    place: Place<'_>,
    inputs: &Inputs,
) -> FsResult<MutationReply> {
    let mut inode = tree::inode(tx, fid)?;
    free_name(tx, who, place)?;
    if inode.is_dir() {
        return Err(FsError::new(FsCode::NotPermitted, format!("{fid} is a directory: it has exactly one name")));
    }
    if inode.nlink == 0 {
        return Err(FsError::new(FsCode::NotFound, format!("{fid} was removed and has no name any more")));
    }
    if inode.nlink >= LINK_COUNT_MAX {
        return Err(FsError::new(FsCode::TooManyLinks, format!("{fid} has {} links", inode.nlink)));
    }
    inode.nlink += 1;
    inode.attr_changed(inputs.now);
    tree::put_inode(tx, fid, &inode);
    tree::insert_name(tx, place, (fid, inode.file_type()), None, inputs.now)?;
    Ok(MutationReply::Entry(Entry { attr: inode.attr(fid), layout: None, existed: false }))
}
