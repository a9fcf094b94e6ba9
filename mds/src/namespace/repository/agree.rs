//! What imports have to know and to say of what goes the other way.

use sateen_types::repository::{Found, ImportedObject, RepositoryEvents};
use sateen_types::{Fid, FsResult, RepositoryId, Timestamp};

use super::export::{self, queue};
use super::links;
use crate::store::{ReadTxn, Txn};

/// Whether a file waits to be exported: what is under its key then is found out by that.
pub fn waits(tx: &dyn ReadTxn, fid: Fid) -> FsResult<bool> {
    Ok(queue::waiting(tx, fid)?.is_some())
}

/// Whether an object waits to be deleted: what is under its key then is found out by that.
pub fn awaits_deletion(tx: &dyn ReadTxn, id: RepositoryId, key: &[u8]) -> FsResult<bool> {
    Ok(queue::deletion(tx, id, key)?.is_some())
}

/// A file is to be looked at, if anything of its link is exported.
pub fn note_changed(tx: &mut dyn Txn, fid: Fid, id: RepositoryId, now: Timestamp) -> FsResult<()> {
    match links::find(tx, id)? {
        Some(link) if link.settings.auto_export != RepositoryEvents::default() => {
            queue::note_file(tx, fid, id, false, now)
        }
        _ => Ok(()),
    }
}

/// Both sides have changed; `object`: what is under the key, `None`: nothing. The policy of the link is carried out when the turn of the
/// file comes.
pub fn note_conflict(
    tx: &mut dyn Txn,
    (id, key): (RepositoryId, &[u8]),
    fid: Fid,
    object: Option<&ImportedObject>,
    known_etag: &str,
    now: Timestamp,
) -> FsResult<()> {
    let found = object.map(|o| Found { size: o.size, etag: o.etag.clone(), modified: o.modified });
    export::note_conflict(tx, id, key, (fid, found), known_etag, now)
}

/// Both sides are the same again.
pub fn end_conflict(tx: &mut dyn Txn, id: RepositoryId, key: &[u8]) -> FsResult<()> {
    if queue::conflict(tx, id, key)?.is_some() {
        queue::forget_conflict(tx, id, key)?;
    }
    Ok(())
}

/// ETag of the object that is known of a further name of a file.
pub fn further_etag(tx: &dyn ReadTxn, fid: Fid, id: RepositoryId, key: &[u8]) -> FsResult<Option<String>> {
    Ok(queue::further(tx, fid, id, key)?.map(|record| record.etag))
}

/// The file that an object was stored of, as one of its further names.
pub fn further_owner(tx: &dyn ReadTxn, id: RepositoryId, key: &[u8]) -> FsResult<Option<Fid>> {
    queue::further_owner(tx, id, key)
}

/// The object of a further name is gone.
pub fn forget_further(tx: &mut dyn Txn, fid: Fid, id: RepositoryId, key: &[u8]) -> FsResult<()> {
    queue::forget_further(tx, fid, id, key)
}
