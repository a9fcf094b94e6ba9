//! Rows of `hsm` and `hsm_keys`: what is known of a file's object, and which file was made of an object. They are changed here and
//! nowhere else, so that each names the other.
//!
//! Every row of `hsm_keys` names a file whose row in `hsm` has that key. Two files may say that they are of one object (the older was
//! moved away, and the object was imported again): the index has the younger. Rows of before the index are in it from their next
//! change on.

use sateen_types::{Fid, FsResult, RepositoryId};

use crate::store::codec::Record;
use crate::store::records::HsmRecord;
use crate::store::{ReadTxn, Table, Txn, keys};

/// What a file has to do with a repository.
pub fn hsm(tx: &dyn ReadTxn, fid: Fid) -> FsResult<Option<HsmRecord>> {
    tx.get(Table::Hsm, &keys::fid(fid))?.map(|v| HsmRecord::from_bytes(&v)).transpose()
}

/// The file that was made of an object, or was stored as it.
pub fn file_of_key(tx: &dyn ReadTxn, id: RepositoryId, key: &[u8]) -> FsResult<Option<Fid>> {
    tx.get(Table::HsmKeys, &keys::hsm_key(id, key))?.map(|v| keys::parse_fid(&v)).transpose()
}

/// Up to `limit` objects of a link behind the key `after` (empty: from the start) that files were made of, in the order of keys.
pub fn known_keys(tx: &dyn ReadTxn, id: RepositoryId, after: &[u8], limit: usize) -> FsResult<Vec<(Vec<u8>, Fid)>> {
    let rows = tx.scan(Table::HsmKeys, &keys::hsm_keys_of(id), Some(&keys::hsm_key(id, after)), limit)?;
    rows.iter().map(|(key, value)| Ok((keys::parse_hsm_key(key)?.1.to_vec(), keys::parse_fid(value)?))).collect()
}

/// Stores what is known of a file's object. A key that the file did not have before is its from now on, whatever other file had
/// it.
pub fn put_hsm(tx: &mut dyn Txn, fid: Fid, row: &HsmRecord) -> FsResult<()> {
    let before = hsm(tx, fid)?;
    let known = file_of_key(tx, row.repository, &row.key)?;
    let same = before.as_ref().is_some_and(|b| b.repository == row.repository && b.key == row.key);
    if let Some(before) = before.filter(|_| !same) {
        forget_key(tx, fid, &before)?;
    }
    if known.is_none() || !same && known != Some(fid) {
        tx.put(Table::HsmKeys, keys::hsm_key(row.repository, &row.key), keys::fid(fid));
    }
    tx.put(Table::Hsm, keys::fid(fid), row.to_bytes());
    Ok(())
}

/// The same for a file that was made just now and has no row.
pub fn put_first_hsm(tx: &mut dyn Txn, fid: Fid, row: &HsmRecord) {
    tx.put(Table::HsmKeys, keys::hsm_key(row.repository, &row.key), keys::fid(fid));
    tx.put(Table::Hsm, keys::fid(fid), row.to_bytes());
}

/// The file has nothing to do with a repository any more.
pub fn delete_hsm(tx: &mut dyn Txn, fid: Fid) -> FsResult<()> {
    if let Some(row) = hsm(tx, fid)? {
        forget_key(tx, fid, &row)?;
        tx.delete(Table::Hsm, keys::fid(fid));
        if tx.get(Table::Repositories, &keys::opened(fid))?.is_some() {
            tx.delete(Table::Repositories, keys::opened(fid));
        }
    }
    Ok(())
}

fn forget_key(tx: &mut dyn Txn, fid: Fid, row: &HsmRecord) -> FsResult<()> {
    if file_of_key(tx, row.repository, &row.key)? == Some(fid) {
        tx.delete(Table::HsmKeys, keys::hsm_key(row.repository, &row.key));
    }
    Ok(())
}
