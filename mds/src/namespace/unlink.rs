//! Names go away: unlink, rmdir, and the end of files that were open when their last name went.
//!
//! Order of checks: search permission on the parent; the name exists; write permission and the sticky rule; the kind
//! of file; for a directory, that it is empty, and that no repository is linked to it.

use sateen_types::op::MutationReply;
use sateen_types::{Credential, Fid, FileType, FsCode, FsError, FsResult, Name};

use super::create::look;
use super::perm::may_remove;
use super::{intents, layout, repository, tree};
use crate::command::Inputs;
use crate::store::records::{Body, Dentry, Inode};
use crate::store::{ReadTxn, Table, Txn, keys};

/// Rows of extended attributes removed per scan.
const XATTR_PAGE: usize = 256;

/// Anything but a directory.
pub fn unlink(
    tx: &mut dyn Txn,
    who: &Credential,
    parent: Fid,
    name: &Name,
    inputs: &Inputs,
) -> FsResult<MutationReply> {
    let (entry, inode) = removable(tx, who, parent, name)?;
    if inode.is_dir() {
        return Err(FsError::new(FsCode::IsDirectory, format!("{name:?} is a directory")));
    }
    tree::remove_name(tx, (parent, name), &entry, inputs.now)?;
    drop_link(tx, entry.fid, inode, inputs)?;
    Ok(MutationReply::Done)
}

/// An empty directory.
pub fn rmdir(tx: &mut dyn Txn, who: &Credential, parent: Fid, name: &Name, inputs: &Inputs) -> FsResult<MutationReply> {
    let (entry, inode) = removable(tx, who, parent, name)?;
    refuse_nonempty(&inode, name)?;
    repository::refuse_linked(tx, entry.fid, name, inputs)?;
    tree::remove_name(tx, (parent, name), &entry, inputs.now)?;
    destroy(tx, entry.fid)?;
    Ok(MutationReply::Done)
}

fn removable(tx: &dyn Txn, who: &Credential, parent: Fid, name: &Name) -> FsResult<(Dentry, Inode)> {
    let (dir, entry) = look(tx, who, (parent, name))?;
    let entry = entry.ok_or_else(|| tree::missing(parent, name))?;
    let inode = tree::named_inode(tx, &entry)?;
    may_remove(&dir, &inode, who)?;
    Ok((entry, inode))
}

/// `NotDirectory` or `NotEmpty`.
pub fn refuse_nonempty(inode: &Inode, name: &Name) -> FsResult<()> {
    match inode.body {
        Body::Directory { entries: 0, .. } => Ok(()),
        Body::Directory { entries, .. } => {
            Err(FsError::new(FsCode::NotEmpty, format!("directory {name:?} has {entries} entries")))
        }
        _ => Err(FsError::new(FsCode::NotDirectory, format!("{name:?} is not a directory"))),
    }
}

/// One name of a file (not a directory) is gone. With the last one the file goes too, unless it is open.
pub fn drop_link(tx: &mut dyn Txn, fid: Fid, mut inode: Inode, inputs: &Inputs) -> FsResult<()> {
    inode.nlink = inode.nlink.saturating_sub(1);
    if inode.nlink > 0 {
        inode.attr_changed(inputs.now);
        tree::put_inode(tx, fid, &inode);
        return Ok(());
    }
    if !inputs.victim_open {
        return destroy(tx, fid);
    }
    inode.attr_changed(inputs.now);
    tree::put_inode(tx, fid, &inode);
    tx.put(Table::Orphans, keys::fid(fid), Vec::new());
    Ok(())
}

/// The file behind a name, if it is its last name: what [`drop_link`] would end.
pub fn last_name(tx: &dyn ReadTxn, parent: Fid, name: &Name) -> FsResult<Option<Fid>> {
    let Some(entry) = tree::entry(tx, parent, name)? else { return Ok(None) };
    if entry.file_type == FileType::Directory {
        return Ok(None);
    }
    Ok(tree::find_inode(tx, entry.fid)?.filter(|i| i.nlink <= 1).map(|_| entry.fid))
}

/// Ends a file in the orphans table; one that is not there is left alone, and so is one that has names for all that it
/// counts: that is damage, and for a check to decide.
pub fn drop_orphan(tx: &mut dyn Txn, fid: Fid) -> FsResult<()> {
    if tx.get(Table::Orphans, &keys::fid(fid))?.is_none() {
        return Ok(());
    }
    if tree::find_inode(tx, fid)?.is_none_or(|inode| inode.nlink > 0 || inode.is_dir()) {
        return Ok(());
    }
    tx.delete(Table::Orphans, keys::fid(fid));
    destroy(tx, fid)
}

/// Removes an inode with everything it owns; its objects are destroyed by intents.
pub fn destroy(tx: &mut dyn Txn, fid: Fid) -> FsResult<()> {
    intents::forget_truncates(tx, fid)?;
    if let Some(layout) = layout::find(tx, fid)? {
        intents::destroy_objects(tx, fid, &layout)?;
        tx.delete(Table::Layouts, keys::fid(fid));
    }
    loop {
        let rows = tx.scan(Table::Xattrs, &keys::fid(fid), None, XATTR_PAGE)?;
        if rows.is_empty() {
            break;
        }
        for (key, _) in rows {
            tx.delete(Table::Xattrs, key);
        }
    }
    repository::destroyed(tx, fid)?;
    tx.delete(Table::DefaultLayouts, keys::fid(fid));
    if tx.get(Table::Held, &keys::held_dir(fid))?.is_some() {
        tx.delete(Table::Held, keys::held_dir(fid));
    }
    tx.delete(Table::Inodes, keys::fid(fid));
    let count = tree::counter(tx, keys::INODES)?;
    tree::set_counter(tx, keys::INODES, count.saturating_sub(1));
    Ok(())
}
