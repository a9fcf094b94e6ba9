//! What a client's writes did to a file. The size only grows: a report that comes late never cuts a longer file. The
//! caller has the file open for writing, which was checked when it was opened. What was written by anybody has no file
//! capabilities any more, and by others than root no set-user-id.

use sateen_types::op::{MutationReply, WriteDone};
use sateen_types::{Credential, FsCode, FsError, FsResult};

use super::{layout, perm, repository, tree, xattr};
use crate::command::Inputs;
use crate::store::Txn;

/// See the module.
pub fn write_done(tx: &mut dyn Txn, who: &Credential, op: &WriteDone, inputs: &Inputs) -> FsResult<MutationReply> {
    let mut inode = tree::inode(tx, op.fid)?;
    if !inode.is_regular() {
        return Err(FsError::new(FsCode::Invalid, format!("{} is not a regular file", op.fid)));
    }
    if op.end > inode.size {
        let end = layout::of_file(tx, op.fid)?.end();
        if op.end > end {
            return Err(FsError::new(
                FsCode::FileTooBig,
                format!("byte {} of {} is beyond the end of its layout, {end}", op.end, op.fid),
            ));
        }
        inode.size = op.end;
    }
    if let Some(mtime) = op.mtime {
        // Kernels with pages of the file tell a write by its time: no two have the same.
        inode.mtime = if mtime == inode.mtime { mtime.next() } else { mtime };
    }
    inode.allocated = inode.allocated.saturating_add_signed(op.allocated_delta);
    if op.clear_suid {
        inode.mode = perm::without_privileges(&inode, who);
    }
    if op.mtime.is_some() || op.end > 0 || op.clear_suid {
        xattr::drop_capabilities(tx, op.fid, &mut inode);
    }
    // Whatever it says: the time of the write may have been overridden by one that was set.
    repository::written(tx, op.fid)?;
    // Programs have seen these times since they wrote: they are not others because the MDS hears of them.
    let changed = op.mtime.or(op.clear_suid.then_some(inputs.now));
    inode.attr_changed(changed.map_or(inode.ctime, |at| inode.ctime.max(at)));
    tree::put_inode(tx, op.fid, &inode);
    Ok(MutationReply::Attr(inode.attr(op.fid)))
}
