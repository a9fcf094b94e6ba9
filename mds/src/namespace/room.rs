//! What is refused while the disk of the tables is full.

use sateen_types::op::Mutation;
use sateen_types::{FsCode, FsError, FsResult};

use crate::command::Inputs;

/// `NoSpace` for a change that adds something while the disk is full.
pub fn refuse_when_full(op: &Mutation, inputs: &Inputs) -> FsResult<()> {
    if !inputs.disk_low || !adds(op) {
        return Ok(());
    }
    Err(FsError::new(FsCode::NoSpace, "the disk of the MDS is full: only removals are taken")
        .with_hint("remove files, or make room on the disk of the MDS directory"))
}

/// What makes the tables larger. Reports of writes are always taken: their data is on the OSTs already.
fn adds(op: &Mutation) -> bool {
    match op {
        Mutation::Create(_)
        | Mutation::Mkdir { .. }
        | Mutation::Mknod { .. }
        | Mutation::Symlink { .. }
        | Mutation::Link { .. }
        | Mutation::SetXattr { .. }
        | Mutation::Instantiate { .. }
        | Mutation::SetLayout { .. }
        | Mutation::SetDefaultLayout { layout: Some(_), .. } => true,
        Mutation::Unlink { .. }
        | Mutation::Rmdir { .. }
        | Mutation::Rename { .. }
        | Mutation::SetAttr(_)
        | Mutation::RemoveXattr { .. }
        | Mutation::SetDefaultLayout { layout: None, .. }
        | Mutation::WriteDone(_)
        | Mutation::ReadDone(_) => false,
    }
}
