//! What imports have to know and to say of what goes the other way.

use sateen_types::repository::{Conflict, ConflictPolicy};
use sateen_types::{Fid, FsResult, RepositoryId, Timestamp};

use crate::store::{ReadTxn, Txn};

/// Whether a file waits to be exported: what is under its key then is found out by that.
pub fn waits(_tx: &dyn ReadTxn, _fid: Fid) -> FsResult<bool> {
    Ok(false)
}

/// Whether an object waits to be deleted: what is under its key then is found out by that.
pub fn awaits_deletion(_tx: &dyn ReadTxn, _id: RepositoryId, _key: &[u8]) -> FsResult<bool> {
    Ok(false)
}

/// A file is to be looked at, whether it is to be exported.
pub fn note_changed(_tx: &mut dyn Txn, _fid: Fid, _id: RepositoryId, _now: Timestamp) -> FsResult<()> {
    Ok(())
}

/// What somebody has decided about a conflict.
pub fn decided(_tx: &dyn ReadTxn, _id: RepositoryId, _key: &[u8]) -> FsResult<Option<ConflictPolicy>> {
    Ok(None)
}

/// Both sides have changed.
pub fn note_conflict(_tx: &mut dyn Txn, _id: RepositoryId, _conflict: Conflict) -> FsResult<()> {
    Ok(())
}

/// Both sides are the same again.
pub fn end_conflict(_tx: &mut dyn Txn, _id: RepositoryId, _key: &[u8]) -> FsResult<()> {
    Ok(())
}
