//! chmod, chown, utimes, truncate. Order of checks: chown, chmod, times, size, as in Linux's `setattr_prepare`.

use sateen_types::op::{MutationReply, SetAttr, SetTime};
use sateen_types::{Credential, FsCode, FsError, FsResult, Timestamp};

use super::perm::{self, Access, S_ISGID, access, allows};
use super::{intents, layout, repository, tree, xattr};
use crate::command::Inputs;
use crate::store::Txn;
use crate::store::records::Inode;

/// See the module.
pub fn setattr(tx: &mut dyn Txn, who: &Credential, op: &SetAttr, inputs: &Inputs) -> FsResult<MutationReply> {
    let mut inode = tree::inode(tx, op.fid)?;
    refuse_forbidden(&inode, who, op)?;
    let before = inode.clone();
    change_owner_and_mode(&mut inode, who, op);
    let chown = op.uid.is_some() || op.gid.is_some();
    if op.size.is_some() || chown && !inode.is_dir() {
        xattr::drop_capabilities(tx, op.fid, &mut inode);
    }
    if let Some(size) = op.size {
        resize(tx, &mut inode, who, op, size)?;
        inode.mtime = inputs.now;
    }
    let at = |t: SetTime| match t {
        SetTime::At(at) => at,
        SetTime::Now => inputs.now,
    };
    if let Some(t) = op.atime {
        inode.atime = at(t);
    }
    if let Some(t) = op.mtime {
        inode.mtime = at(t);
        if inode.is_regular() {
            repository::time_set(tx, op.fid)?;
        }
    }
    if (inode.mode, inode.uid, inode.gid) != (before.mode, before.uid, before.gid) {
        repository::attributes_set(tx, op.fid)?;
    }
    let asked = op.mode.is_some() || op.uid.is_some() || op.gid.is_some() || op.size.is_some();
    if asked || op.atime.is_some() || op.mtime.is_some() {
        touch(&mut inode, &before, op, inputs.now);
        tree::put_inode(tx, op.fid, &inode);
    }
    Ok(MutationReply::Attr(inode.attr(op.fid)))
}

/// Whether `who` may make the change.
pub fn refuse_forbidden(inode: &Inode, who: &Credential, op: &SetAttr) -> FsResult<()> {
    may_chown(inode, who, op)?;
    if let Some(mode) = op.mode
        && !only_drops_privileges(inode, who, op, mode)
    {
        perm::owner(inode, who)?;
    }
    may_set_times(inode, who, op)?;
    if op.size.is_some() {
        may_resize(inode, who, op)?;
    }
    Ok(())
}

/// `change` stands for data and what guards it: reading a file (atime alone) does not make cached data old.
fn touch(inode: &mut Inode, before: &Inode, op: &SetAttr, now: Timestamp) {
    inode.ctime = now;
    let only_atime =
        op.size.is_none() && Inode { atime: before.atime, ctime: before.ctime, ..inode.clone() } == *before;
    if !only_atime {
        inode.change += 1;
    }
}

/// The owner may give a file to one of their groups; only root gives it to another user.
fn may_chown(inode: &Inode, who: &Credential, op: &SetAttr) -> FsResult<()> {
    if who.uid == 0 || (op.uid.is_none() && op.gid.is_none()) {
        return Ok(());
    }
    let denied = |what: String| Err(FsError::new(FsCode::NotPermitted, what));
    if who.uid != inode.uid {
        return denied(format!("user {} is not the owner ({})", who.uid, inode.uid));
    }
    match (op.uid, op.gid) {
        (Some(uid), _) if uid != inode.uid => denied(format!("only root may give a file to user {uid}")),
        (_, Some(gid)) if gid != inode.gid && !who.in_group(gid) => {
            denied(format!("user {} is not in group {gid}", who.uid))
        }
        _ => Ok(()),
    }
}

/// Linux clients take set-user-id away themselves when somebody else writes or truncates, with the writer's credential:
/// whoever may write may do exactly that and nothing else to the mode.
fn only_drops_privileges(inode: &Inode, who: &Credential, op: &SetAttr, mode: u32) -> bool {
    inode.is_regular()
        && mode != inode.mode
        && mode == perm::without_privileges(inode, who)
        && (op.via_open_file || allows(inode, who, Access::WRITE))
}

/// Any time: the owner and root. The present: whoever may write, too.
fn may_set_times(inode: &Inode, who: &Credential, op: &SetAttr) -> FsResult<()> {
    let times = [op.atime, op.mtime];
    if times.iter().flatten().any(|t| matches!(t, SetTime::At(_))) {
        return perm::owner(inode, who);
    }
    if times.iter().flatten().next().is_some() && perm::owner(inode, who).is_err() {
        return access(inode, who, Access::WRITE);
    }
    Ok(())
}

fn may_resize(inode: &Inode, who: &Credential, op: &SetAttr) -> FsResult<()> {
    if inode.is_dir() {
        return Err(FsError::new(FsCode::IsDirectory, format!("{} is a directory", op.fid)));
    }
    if !inode.is_regular() {
        return Err(FsError::new(FsCode::Invalid, format!("{} is not a regular file and has no size", op.fid)));
    }
    if op.via_open_file || allows(inode, who, Access::WRITE) {
        return Ok(());
    }
    access(inode, who, Access::WRITE)
}

fn change_owner_and_mode(inode: &mut Inode, who: &Credential, op: &SetAttr) {
    if (op.uid.is_some() || op.gid.is_some()) && !inode.is_dir() {
        inode.mode = perm::without_privileges(inode, who);
    }
    inode.uid = op.uid.unwrap_or(inode.uid);
    inode.gid = op.gid.unwrap_or(inode.gid);
    if let Some(mode) = op.mode {
        inode.mode = if perm::may_setgid(who, inode.gid) { mode } else { mode & !S_ISGID };
    }
}

/// Shrinking leaves intents for every object that may reach beyond the new size, also when the size stays: a client
/// that died may have written beyond it without saying so. Growing needs none: beyond the size objects are holes.
fn resize(tx: &mut dyn Txn, inode: &mut Inode, who: &Credential, op: &SetAttr, size: u64) -> FsResult<()> {
    intents::refuse_while_truncating(tx, op.fid)?;
    let layout = layout::of_file(tx, op.fid)?;
    if size > layout.end() {
        return Err(FsError::new(
            FsCode::FileTooBig,
            format!("size {size} of {} is beyond the end of its layout, {}", op.fid, layout.end()),
        ));
    }
    repository::resized(tx, op.fid, size)?;
    if size <= inode.size {
        intents::truncate_objects(tx, op.fid, &layout, size)?;
    }
    inode.size = size;
    if who.uid != 0 && op.mode.is_none() {
        inode.mode = perm::without_privileges(inode, who);
    }
    Ok(())
}
