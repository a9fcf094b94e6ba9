//! What imports have to know and to say of what goes the other way.

use sateen_types::repository::{Conflict, ConflictPolicy, RepositoryEvents};
use sateen_types::{Fid, FsResult, RepositoryId, Timestamp};

use super::{export, hsm, links};
use crate::store::{ReadTxn, Txn};

/// Whether a file waits to be exported: what is under its key then is found out by that.
pub fn waits(tx: &dyn ReadTxn, fid: Fid) -> FsResult<bool> {
    Ok(export::waiting(tx, fid)?.is_some())
}

/// Whether an object waits to be deleted, or may be one that is being stored from here: what is under its key then is found out by
/// that.
pub fn is_ours_to_settle(tx: &dyn ReadTxn, id: RepositoryId, key: &[u8]) -> FsResult<bool> {
    Ok(export::is_to_be_deleted(tx, id, key)? || export::is_unsettled(tx, id, key)?)
}

/// A file is to be looked at, whether it is to be exported.
pub fn note_changed(tx: &mut dyn Txn, fid: Fid, id: RepositoryId, now: Timestamp) -> FsResult<()> {
    match links::find(tx, id)? {
        Some(link) if link.settings.auto_export != RepositoryEvents::default() => {
            export::note_file(tx, fid, id, false, now)
        }
        _ => Ok(()),
    }
}

/// A file takes the data of the object under this key. What it was known by before is still ours, but as old as the objects of its
/// other names: they are stored anew, if the link exports.
pub fn becomes(tx: &mut dyn Txn, fid: Fid, (id, key): (RepositoryId, &[u8]), now: Timestamp) -> FsResult<()> {
    export::forget_further(tx, fid, id, key)?;
    let before = hsm(tx, fid)?.filter(|row| row.repository != id || row.key != key);
    if let Some(row) = &before {
        export::is_ours_only(tx, row.repository, &row.key, &row.etag)?;
    }
    if before.is_some() || !export::further_of(tx, fid)?.is_empty() {
        note_changed(tx, fid, id, now)?;
    }
    Ok(())
}

/// Whether this object is ours and has no data that anybody relies on: what has its name is to take its place.
pub fn is_ours_only(tx: &dyn ReadTxn, id: RepositoryId, key: &[u8], etag: &str) -> FsResult<bool> {
    Ok(export::record(tx, id, key)?.is_some_and(|record| record.etag == etag))
}

/// What somebody has decided about a conflict.
pub fn decided(tx: &dyn ReadTxn, id: RepositoryId, key: &[u8]) -> FsResult<Option<ConflictPolicy>> {
    let how = export::conflict(tx, id, key)?.map(|conflict| conflict.how);
    Ok(how.filter(|how| *how != ConflictPolicy::Manual))
}

/// Whether there are conflicts.
pub fn has_conflicts(tx: &dyn ReadTxn, id: RepositoryId) -> FsResult<bool> {
    Ok(!export::list_conflicts(tx, id, &[], 1)?.0.is_empty())
}

/// Both sides have changed.
pub fn note_conflict(tx: &mut dyn Txn, id: RepositoryId, conflict: Conflict) -> FsResult<()> {
    export::note_conflict(tx, id, conflict)
}

/// Both sides are the same again.
pub fn end_conflict(tx: &mut dyn Txn, id: RepositoryId, key: &[u8]) -> FsResult<()> {
    export::forget_conflict(tx, id, key)
}

/// ETag of the object that is known of a further name of a file.
pub fn further_etag(tx: &dyn ReadTxn, fid: Fid, id: RepositoryId, key: &[u8]) -> FsResult<Option<String>> {
    Ok(export::further(tx, fid, id, key)?.map(|record| record.etag))
}

/// The file that an object was stored of, as one of its further names.
pub fn further_owner(tx: &dyn ReadTxn, id: RepositoryId, key: &[u8]) -> FsResult<Option<Fid>> {
    export::further_owner(tx, id, key)
}

/// The object of a further name is gone.
pub fn forget_further(tx: &mut dyn Txn, fid: Fid, id: RepositoryId, key: &[u8]) -> FsResult<()> {
    export::forget_further(tx, fid, id, key)
}
