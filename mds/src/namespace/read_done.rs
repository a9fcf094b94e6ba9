//! When files were last read, as clients noticed. Times only move forward and never beyond now; nothing else of a file changes,
//! so data that anybody cached stays right. A file that is gone is left out: reports come late.

use sateen_types::FsResult;
use sateen_types::op::{MutationReply, ReadDone};

use super::tree;
use crate::command::Inputs;
use crate::store::Txn;

/// See the module.
pub fn read_done(tx: &mut dyn Txn, op: &ReadDone, inputs: &Inputs) -> FsResult<MutationReply> {
    for (fid, at) in &op.times {
        let Some(mut inode) = tree::find_inode(tx, *fid)? else { continue };
        let at = (*at).min(inputs.now);
        if at > inode.atime {
            inode.atime = at;
            tree::put_inode(tx, *fid, &inode);
        }
    }
    Ok(MutationReply::Done)
}
