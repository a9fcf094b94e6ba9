//! New regular files, nodes and symbolic links.
//!
//! Order of checks: the parent is a directory; search permission on it; the name is free (`Exists`, or the existing file
//! is the answer); write permission on the parent; what the kind of file asks for; space.

use sateen_types::op::{Create, Entry, MutationReply, NewMode};
use sateen_types::{Credential, Fid, FileType, FsCode, FsError, FsResult, Layout, Name, Timestamp};

use super::perm::{self, Access, S_ISGID, S_IXGRP, access};
use super::{intents, layout, tree};
use crate::command::Inputs;
use crate::store::codec::Record;
use crate::store::records::{Body, Dentry, Inode};
use crate::store::{Table, Txn, keys};

/// A directory and a name in it.
pub type Place<'a> = (Fid, &'a Name);

/// The parent, if the caller may use names in it, and what the name stands for now.
pub fn look(tx: &dyn Txn, who: &Credential, (parent, name): Place<'_>) -> FsResult<(Inode, Option<Dentry>)> {
    let dir = tree::directory(tx, parent)?;
    access(&dir, who, Access::SEARCH)?;
    let entry = tree::entry(tx, parent, name)?;
    Ok((dir, entry))
}

/// The parent of a name that must be free.
pub fn free_name(tx: &dyn Txn, who: &Credential, place: Place<'_>) -> FsResult<Inode> {
    let (dir, entry) = look(tx, who, place)?;
    if entry.is_some() {
        return Err(tree::taken(place.0, place.1));
    }
    access(&dir, who, Access::CHANGE_NAMES)?;
    Ok(dir)
}

/// A new inode below `dir`: owned by the caller; the group is the directory's if that has set-group-id. A default ACL of the
/// directory takes the place of the umask.
pub fn new_inode(dir: &Inode, who: &Credential, asked: NewMode, body: Body, now: Timestamp) -> Inode {
    let (mut mode, acl) = match &dir.default_acl {
        Some(default) if !matches!(body, Body::Symlink(_)) => default.inherit(asked.asked()),
        _ => (asked.mode, None),
    };
    let inherits = dir.mode & S_ISGID != 0;
    let gid = if inherits { dir.gid } else { who.gid };
    let is_dir = matches!(body, Body::Directory { .. });
    if inherits && is_dir {
        mode |= S_ISGID;
    }
    let privileged = asked.asked() & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP;
    if inherits && !is_dir && privileged && !perm::may_setgid(who, gid) {
        mode &= !S_ISGID;
    }
    Inode {
        mode,
        uid: who.uid,
        gid,
        nlink: if is_dir { 2 } else { 1 },
        size: 0,
        allocated: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        change: 1,
        acl: acl.map(Box::new),
        default_acl: if is_dir { dir.default_acl.clone() } else { None },
        has_capabilities: false,
        body,
    }
}

/// The fresh FID of a command that makes an inode.
pub fn fresh_fid(inputs: &Inputs) -> FsResult<Fid> {
    inputs.fid.ok_or_else(|| FsError::new(FsCode::Internal, "a command that makes an inode came without a FID"))
}

/// Stores a new inode under its first name and answers with it.
pub fn add(
    tx: &mut dyn Txn,
    place: Place<'_>,
    inode: Inode,
    layout: Option<Layout>,
    inputs: &Inputs,
) -> FsResult<MutationReply> {
    let fid = fresh_fid(inputs)?;
    tree::add_inode(tx, fid, &inode)?;
    tree::insert_name(tx, place, (fid, inode.file_type()), None, inputs.now)?;
    Ok(MutationReply::Entry(Entry { attr: inode.attr(fid), layout, existed: false }))
}

/// A regular file: its layout is resolved, and the first component gets its OSTs.
pub fn create(tx: &mut dyn Txn, who: &Credential, op: &Create, inputs: &Inputs) -> FsResult<MutationReply> {
    let (dir, entry) = look(tx, who, (op.parent, &op.name))?;
    if let Some(entry) = entry {
        return if op.exclusive { Err(tree::taken(op.parent, &op.name)) } else { existing(tx, who, op, &entry) };
    }
    access(&dir, who, Access::CHANGE_NAMES)?;
    let layout = new_layout(tx, op, inputs)?;
    let inode = new_inode(&dir, who, op.mode, Body::Regular, inputs.now);
    add(tx, (op.parent, &op.name), inode, op.open.is_some().then_some(layout), inputs)
}

fn new_layout(tx: &mut dyn Txn, op: &Create, inputs: &Inputs) -> FsResult<Layout> {
    let (default, _) = layout::inherited_template(tx, op.parent)?;
    let template = op.layout.as_ref().unwrap_or(&default);
    let mut layout = template.resolve(&default);
    match layout::place_component(&mut layout, 0, inputs) {
        // Whoever writes to it hears that there is no room, or waits until an OST is up.
        Err(e) if inputs.answered && matches!(e.code, FsCode::NoSpace | FsCode::Unavailable) => {}
        placed => placed?,
    }
    tx.put(Table::Layouts, keys::fid(fresh_fid(inputs)?), layout.to_bytes());
    Ok(layout)
}

/// A create that is not exclusive found the name: the file is opened as it is.
fn existing(tx: &dyn Txn, who: &Credential, op: &Create, entry: &Dentry) -> FsResult<MutationReply> {
    let inode = tree::named_inode(tx, entry)?;
    match entry.file_type {
        FileType::Regular => {}
        FileType::Directory => {
            return Err(FsError::new(FsCode::IsDirectory, format!("{:?} is a directory", op.name)));
        }
        _ => return Err(tree::taken(op.parent, &op.name)),
    }
    let mut layout = None;
    if let Some(wanted) = op.open {
        access(&inode, who, wanted.into())?;
        if wanted.write {
            intents::refuse_while_truncating(tx, entry.fid)?;
        }
        layout = layout::find(tx, entry.fid)?;
    }
    Ok(MutationReply::Entry(Entry { attr: inode.attr(entry.fid), layout, existed: true }))
}

/// A FIFO, socket, device, or a regular file that is not opened. Devices are for root.
pub fn mknod(
    tx: &mut dyn Txn,
    who: &Credential,
    place: Place<'_>,
    mode: NewMode,
    file_type: FileType,
    rdev: u64,
    inputs: &Inputs,
) -> FsResult<MutationReply> {
    let body = match file_type {
        FileType::Regular => {
            let (parent, name) = (place.0, place.1.clone());
            return create(tx, who, &Create { parent, name, mode, exclusive: true, open: None, layout: None }, inputs);
        }
        FileType::Fifo => Body::Fifo,
        FileType::Socket => Body::Socket,
        FileType::CharDevice => Body::CharDevice(rdev),
        FileType::BlockDevice => Body::BlockDevice(rdev),
        FileType::Directory | FileType::Symlink => {
            return Err(FsError::new(FsCode::Invalid, format!("mknod does not make a {file_type:?}")));
        }
    };
    let dir = free_name(tx, who, place)?;
    if matches!(file_type, FileType::CharDevice | FileType::BlockDevice) {
        perm::root(who, "make a device")?;
    }
    add(tx, place, new_inode(&dir, who, mode, body, inputs.now), None, inputs)
}

/// A symbolic link. Its mode is 0777 and never looked at.
pub fn symlink(
    tx: &mut dyn Txn,
    who: &Credential,
    place: Place<'_>,
    target: &[u8],
    inputs: &Inputs,
) -> FsResult<MutationReply> {
    let dir = free_name(tx, who, place)?;
    add(tx, place, new_inode(&dir, who, 0o777.into(), Body::Symlink(target.to_vec()), inputs.now), None, inputs)
}
