//! What may be under the keys of a link. Of most of them the row of one file says it: in `hsm`, or of a further name. Beside it there is
//! a [`KeyRecord`] while somebody stores something there, until it is known what became of that; and when the object has no file
//! any more.
//!
//! The invariant: whatever may be under a key, and is ours, is in one of these rows. No file's row has an object that may have been
//! replaced: a file loses its claim when another one is given out to be stored there, not when that is reported.

use sateen_types::repository::{ObjectPath, RepositoryEvents};
use sateen_types::{Fid, FileType, FsResult, HsmFlags, RepositoryId, Timestamp};

use super::super::import::existing;
use super::super::{delete_hsm, file_of_key, hsm, links, loads, put_hsm};
use super::queue;
use crate::store::codec::Record;
use crate::store::keys::exports;
use crate::store::records::{ConflictRecord, Given, HsmRecord, KeyRecord, WaitingRecord};
use crate::store::{ReadTxn, Table, Txn};

/// What is to be done for an object that is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// It does not wait.
    Gone,
    /// It is a file's again, or there is nothing of ours.
    Unwanted,
    /// Somebody may have stored it: what is there is to be found out first.
    Look,
    /// A file has the name, and waits.
    Wait,
    /// This object, or one of these assignments.
    Delete {
        /// Of the object that is known.
        etag: String,
        /// See [`KeyRecord::earlier`].
        earlier: Vec<u64>,
    },
}

/// What may be under a key beside what rows of files say.
pub fn record(tx: &dyn ReadTxn, id: RepositoryId, key: &[u8]) -> FsResult<Option<KeyRecord>> {
    tx.get(Table::Exports, &exports::object(id, key))?.map(|v| KeyRecord::from_bytes(&v)).transpose()
}

/// Stores it, if there is something to say.
fn put(tx: &mut dyn Txn, id: RepositoryId, key: &[u8], record: &KeyRecord) {
    let says_nothing = record.etag.is_empty() && record.fid.is_none() && record.given.is_none();
    match says_nothing {
        true => tx.delete(Table::Exports, exports::object(id, key)),
        false => tx.put(Table::Exports, exports::object(id, key), record.to_bytes()),
    }
}

/// Whether something may have been put under the key of which nothing was heard.
pub fn is_unsettled(tx: &dyn ReadTxn, id: RepositoryId, key: &[u8]) -> FsResult<bool> {
    Ok(record(tx, id, key)?.is_some_and(|record| record.given.is_some()))
}

/// Whether an object waits to be deleted.
pub fn is_to_be_deleted(tx: &dyn ReadTxn, id: RepositoryId, key: &[u8]) -> FsResult<bool> {
    Ok(queue::deletion(tx, id, key)?.is_some())
}

/// The file that was made of an object, was stored as it, or of which it is a further name.
pub fn owner(tx: &dyn ReadTxn, id: RepositoryId, key: &[u8]) -> FsResult<Option<Fid>> {
    match queue::further_owner(tx, id, key)? {
        Some(fid) => Ok(Some(fid)),
        None => file_of_key(tx, id, key),
    }
}

/// ETag of the object of ours under a key; empty: none is known.
pub fn known_etag(tx: &dyn ReadTxn, id: RepositoryId, key: &[u8]) -> FsResult<String> {
    if let Some(fid) = owner(tx, id, key)? {
        if let Some(further) = queue::further(tx, fid, id, key)? {
            return Ok(further.etag);
        }
        if let Some(row) = hsm(tx, fid)?.filter(|row| row.repository == id && row.key == key) {
            return Ok(row.etag);
        }
    }
    Ok(record(tx, id, key)?.map(|record| record.etag).unwrap_or_default())
}

/// A file is stored under a key from here on. Another one that has the object has it no longer, and is looked at; `moves`: whatever the
/// policy. Gives numbers of earlier assignments for the key.
pub fn give_out(
    tx: &mut dyn Txn,
    (id, key): (RepositoryId, &[u8]),
    given: Given,
    moves: bool,
    now: Timestamp,
) -> FsResult<Vec<u64>> {
    let fid = given.fid;
    let etag = known_etag(tx, id, key)?;
    let before = record(tx, id, key)?.unwrap_or_default();
    if let Some(other) = owner(tx, id, key)?.filter(|other| *other != fid) {
        lose(tx, other, id, key)?;
        queue::note_file(tx, other, id, moves, now)?;
    }
    if let Some(other) = before.fid.filter(|other| *other != fid) {
        forget_pointer(tx, other, id, key)?;
    }
    let mut record = KeyRecord { etag, fid: Some(fid), ..before };
    record.not_there();
    record.given = Some(given);
    put(tx, id, key, &record);
    if let Some(mut waiting) = queue::waiting(tx, fid)?
        && !waiting.keys.iter().any(|(i, k)| *i == id && k == key)
    {
        waiting.keys.push((id, key.to_vec()));
        queue::put_waiting(tx, fid, &waiting);
    }
    Ok(record.earlier)
}

/// An object has taken the place of a file's, or may have: the file has none any more.
pub fn lose(tx: &mut dyn Txn, fid: Fid, id: RepositoryId, key: &[u8]) -> FsResult<()> {
    queue::forget_further(tx, fid, id, key)?;
    if let Some(row) = hsm(tx, fid)?.filter(|row| row.repository == id && row.key == key) {
        if loads(tx, fid)?.is_some() {
            return put_hsm(tx, fid, &HsmRecord { flags: row.flags.set(HsmFlags::LOST, true), ..row });
        }
        delete_hsm(tx, fid)?;
    }
    Ok(())
}

fn forget_pointer(tx: &mut dyn Txn, fid: Fid, id: RepositoryId, key: &[u8]) -> FsResult<()> {
    if let Some(mut waiting) = queue::waiting(tx, fid)? {
        waiting.keys.retain(|(i, k)| *i != id || k != key);
        queue::put_waiting(tx, fid, &waiting);
    }
    Ok(())
}

/// What is under a key is in a row of a file from here on, or somebody else's: nothing is to be remembered beside.
pub fn settled(tx: &mut dyn Txn, id: RepositoryId, key: &[u8]) -> FsResult<()> {
    if let Some(fid) = record(tx, id, key)?.and_then(|record| record.fid) {
        forget_pointer(tx, fid, id, key)?;
    }
    put(tx, id, key, &KeyRecord::default());
    queue::forget_deletion(tx, id, key)
}

/// An object is under a key that is ours, but has no data of a file that anybody could rely on: it will be replaced, or go.
pub fn is_ours_only(tx: &mut dyn Txn, id: RepositoryId, key: &[u8], etag: &str) -> FsResult<()> {
    let before = record(tx, id, key)?.unwrap_or_default();
    put(tx, id, key, &KeyRecord { etag: etag.to_owned(), given: None, ..before });
    Ok(())
}

/// What was given out had put nothing in place, and never will.
pub fn not_stored(tx: &mut dyn Txn, fid: Fid, number: u64) -> FsResult<()> {
    let Some(waiting) = queue::waiting(tx, fid)? else { return Ok(()) };
    for (id, key) in waiting.keys {
        if let Some(record) = record(tx, id, &key)?
            && record.given.as_ref().is_some_and(|given| given.number == number)
        {
            put(tx, id, &key, &KeyRecord { given: None, ..record });
        }
    }
    Ok(())
}

/// Somebody has looked, and what was given out had put nothing in place.
pub fn not_there(tx: &mut dyn Txn, id: RepositoryId, key: &[u8]) -> FsResult<()> {
    if let Some(mut record) = record(tx, id, key)? {
        record.not_there();
        put(tx, id, key, &record);
    }
    Ok(())
}

/// A file waits no longer: what was stored for it is nobody's, as far as it is not in its rows. Gives what was known of it.
pub fn forget_file(tx: &mut dyn Txn, fid: Fid) -> FsResult<Option<WaitingRecord>> {
    let Some(known) = queue::remove_file(tx, fid)? else { return Ok(None) };
    for (id, key) in &known.keys {
        let Some(record) = record(tx, *id, key)?.filter(|record| record.fid == Some(fid)) else { continue };
        // What the row of the file says is enough, if it was looked at.
        let is_in_row = record.given.is_none() && owner(tx, *id, key)? == Some(fid);
        let record = if is_in_row { KeyRecord::default() } else { KeyRecord { fid: None, ..record } };
        put(tx, *id, key, &record);
    }
    Ok(Some(known))
}

/// A file has nothing to do with an object any more: it is to be deleted, if the link says so. `etag`: as its row had it. One whose
/// conflict nobody has ended stays.
pub fn unwanted(
    tx: &mut dyn Txn,
    fid: Fid,
    (id, key): (RepositoryId, &[u8]),
    etag: Option<&str>,
    now: Timestamp,
) -> FsResult<()> {
    // Another file was made of it, or stored as it, since.
    if owner(tx, id, key)?.is_some_and(|other| other != fid) {
        return Ok(());
    }
    let mut known = record(tx, id, key)?.unwrap_or_default();
    if let Some(etag) = etag {
        etag.clone_into(&mut known.etag);
    }
    if known.fid == Some(fid) {
        known.fid = None;
        forget_pointer(tx, fid, id, key)?;
    }
    if let Some(conflict) = queue::conflict(tx, id, key)? {
        queue::put_conflict(tx, id, key, &ConflictRecord { fid: None, ..conflict });
        put(tx, id, key, &KeyRecord { etag: String::new(), ..known });
        return Ok(());
    }
    let events = links::find(tx, id)?.map(|link| link.settings.auto_export).unwrap_or_default();
    if events == RepositoryEvents::default() && known.given.is_none() {
        known.etag.clear();
    }
    put(tx, id, key, &known);
    if events.deleted && (known.given.is_some() || !known.etag.is_empty()) {
        queue::note_deletion(tx, (id, key), now)?;
    }
    Ok(())
}

/// What is to be done for an object that waits under this number to be deleted.
pub fn deletion(tx: &dyn ReadTxn, id: RepositoryId, key: &[u8], number: u64) -> FsResult<Deletion> {
    if queue::deletion(tx, id, key)? != Some(number) || !queue::is_queued(tx, id, number)? {
        return Ok(Deletion::Gone);
    }
    if owner(tx, id, key)?.is_some() {
        return Ok(Deletion::Unwanted);
    }
    let Some(record) = record(tx, id, key)? else { return Ok(Deletion::Unwanted) };
    if record.given.is_some() {
        return Ok(Deletion::Look);
    }
    if record.etag.is_empty() {
        return Ok(Deletion::Unwanted);
    }
    if record.fid.is_some() || name_waits(tx, id, key)? {
        return Ok(Deletion::Wait);
    }
    Ok(Deletion::Delete { etag: record.etag, earlier: record.earlier })
}

/// Whether something has the name that stands for a key, and waits to be exported.
fn name_waits(tx: &dyn ReadTxn, id: RepositoryId, key: &[u8]) -> FsResult<bool> {
    let (Some(link), Ok(path)) = (links::find(tx, id)?, ObjectPath::parse(key)) else { return Ok(false) };
    let entry = existing(tx, link.root, &path, &mut |_| {})?;
    match entry.filter(|entry| (entry.file_type == FileType::Directory) == path.directory) {
        Some(entry) => Ok(queue::waiting(tx, entry.fid)?.is_some()),
        None => Ok(false),
    }
}
