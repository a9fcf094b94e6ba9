//! Rows that say what waits, and those that find them: a file waits once, a tree once, and the deletion of an object once.

use sateen_types::{Fid, FsCode, FsResult, RepositoryId, Timestamp};

use super::super::links;
use crate::namespace::tree;
use crate::store::codec::Record;
use crate::store::keys::{self, exports};
use crate::store::records::{ConflictRecord, Counter, FurtherRecord, PlaceRecord, WaitRecord, WaitingRecord, Waits};
use crate::store::{ReadTxn, Table, Txn};

fn row<R: Record>(tx: &dyn ReadTxn, key: &[u8]) -> FsResult<Option<R>> {
    tx.get(Table::Exports, key)?.map(|v| R::from_bytes(&v)).transpose()
}

/// How much waits of a link.
pub fn count(tx: &dyn ReadTxn, id: RepositoryId) -> FsResult<u64> {
    Ok(row::<Counter>(tx, &exports::count(id))?.map_or(0, |c| c.0))
}

fn set_count(tx: &mut dyn Txn, id: RepositoryId, count: u64) {
    if count == 0 {
        tx.delete(Table::Exports, exports::count(id));
    } else {
        tx.put(Table::Exports, exports::count(id), Counter(count).to_bytes());
    }
}

/// What waits of a link behind a number, in order, at most `limit`.
pub fn items(tx: &dyn ReadTxn, id: RepositoryId, after: u64, limit: usize) -> FsResult<Vec<(u64, WaitRecord)>> {
    let rows = tx.scan(Table::Exports, &exports::queue(id), Some(&exports::item(id, after)), limit)?;
    rows.iter().map(|(key, value)| Ok((exports::parse_item(key)?.1, WaitRecord::from_bytes(value)?))).collect()
}

/// One thing that waits.
pub fn item(tx: &dyn ReadTxn, id: RepositoryId, number: u64) -> FsResult<Option<WaitRecord>> {
    row(tx, &exports::item(id, number))
}

fn push(tx: &mut dyn Txn, id: RepositoryId, record: &WaitRecord) -> FsResult<u64> {
    let number = tree::counter(tx, keys::NEXT_EXPORT)?.max(1);
    tree::set_counter(tx, keys::NEXT_EXPORT, number + 1);
    tx.put(Table::Exports, exports::item(id, number), record.to_bytes());
    let count = count(tx, id)?;
    set_count(tx, id, count + 1);
    Ok(number)
}

/// A row of the queue goes; one that is not there is left alone.
pub fn remove(tx: &mut dyn Txn, id: RepositoryId, number: u64) -> FsResult<()> {
    let key = exports::item(id, number);
    if tx.get(Table::Exports, &key)?.is_some() {
        tx.delete(Table::Exports, key);
        let count = count(tx, id)?;
        set_count(tx, id, count.saturating_sub(1));
    }
    Ok(())
}

// ---- files ----

/// Where a file waits.
pub fn waiting(tx: &dyn ReadTxn, fid: Fid) -> FsResult<Option<WaitingRecord>> {
    row(tx, &exports::waiting(fid))
}

/// Stores where a file waits.
pub fn put_waiting(tx: &mut dyn Txn, fid: Fid, record: &WaitingRecord) {
    tx.put(Table::Exports, exports::waiting(fid), record.to_bytes());
}

/// A file is to be looked at. One that waits keeps its place.
pub fn note_file(tx: &mut dyn Txn, fid: Fid, id: RepositoryId, forced: bool, now: Timestamp) -> FsResult<()> {
    if let Some(known) = waiting(tx, fid)?
        && known.repository != id
        && links::find(tx, known.repository)?.is_none()
    {
        // That link has ended, and nobody serves its queue.
        move_file(tx, fid, id)?;
    }
    match waiting(tx, fid)? {
        Some(known) if known.forced || !forced => Ok(()),
        Some(known) => {
            put_waiting(tx, fid, &WaitingRecord { forced, ..known });
            Ok(())
        }
        None => {
            let number = push(tx, id, &WaitRecord { since: now, what: Waits::File(fid) })?;
            put_waiting(tx, fid, &WaitingRecord { repository: id, number, forced, keys: Vec::new() });
            Ok(())
        }
    }
}

/// A file waits in the queue of another link from now on.
pub fn move_file(tx: &mut dyn Txn, fid: Fid, to: RepositoryId) -> FsResult<()> {
    let Some(known) = waiting(tx, fid)?.filter(|w| w.repository != to) else { return Ok(()) };
    let Some(record) = item(tx, known.repository, known.number)? else { return Ok(()) };
    remove(tx, known.repository, known.number)?;
    let number = push(tx, to, &record)?;
    put_waiting(tx, fid, &WaitingRecord { repository: to, number, ..known });
    Ok(())
}

/// A file waits no longer. Gives what was known of it; see [`super::objects::forget_file`].
pub fn remove_file(tx: &mut dyn Txn, fid: Fid) -> FsResult<Option<WaitingRecord>> {
    let Some(known) = waiting(tx, fid)? else { return Ok(None) };
    remove(tx, known.repository, known.number)?;
    tx.delete(Table::Exports, exports::waiting(fid));
    Ok(Some(known))
}

// ---- trees ----

fn place(tx: &dyn ReadTxn, dir: Fid) -> FsResult<Option<PlaceRecord>> {
    row(tx, &exports::tree(dir))
}

/// The link in whose queue a tree waits that a directory lies in. Its walk will not find what leaves the directory before.
pub fn tree_above(tx: &dyn ReadTxn, dir: Fid) -> FsResult<Option<RepositoryId>> {
    if tx.scan(Table::Exports, &[exports::TREE], None, 1)?.is_empty() {
        return Ok(None);
    }
    let mut at = dir;
    for _ in 0..super::DEPTH_MAX {
        if let Some(place) = place(tx, at)? {
            return Ok(Some(place.repository));
        }
        if at == Fid::ROOT {
            break;
        }
        at = match tree::parent_of(tx, at) {
            Ok(parent) => parent,
            Err(e) if e.code == FsCode::NotFound => break,
            Err(e) => return Err(e),
        };
    }
    Ok(None)
}

/// Everything below a directory is to be looked at, and the directory. One that is being walked is walked from the start.
pub fn note_tree(tx: &mut dyn Txn, dir: Fid, id: RepositoryId, forced: bool, now: Timestamp) -> FsResult<()> {
    if let Some(at) = place(tx, dir)?
        && links::find(tx, at.repository)?.is_some()
        && let Some(known) = item(tx, at.repository, at.number)?
        && let Waits::Tree { after, forced: before, .. } = known.what
    {
        if after > 0 || forced && !before {
            let what = Waits::Tree { dir, after: 0, forced: forced || before };
            tx.put(Table::Exports, exports::item(at.repository, at.number), WaitRecord { what, ..known }.to_bytes());
        }
        return Ok(());
    }
    forget_tree(tx, dir)?;
    let number = push(tx, id, &WaitRecord { since: now, what: Waits::Tree { dir, after: 0, forced } })?;
    tx.put(Table::Exports, exports::tree(dir), PlaceRecord { repository: id, number }.to_bytes());
    Ok(())
}

/// The walk of a tree is at another name.
pub fn put_tree(tx: &mut dyn Txn, id: RepositoryId, number: u64, record: &WaitRecord) {
    tx.put(Table::Exports, exports::item(id, number), record.to_bytes());
}

/// Nothing is to be walked below a directory any more.
pub fn forget_tree(tx: &mut dyn Txn, dir: Fid) -> FsResult<()> {
    if let Some(at) = place(tx, dir)? {
        remove(tx, at.repository, at.number)?;
        tx.delete(Table::Exports, exports::tree(dir));
    }
    Ok(())
}

// ---- deletions ----

/// The number of the deletion of an object.
pub fn deletion(tx: &dyn ReadTxn, id: RepositoryId, key: &[u8]) -> FsResult<Option<u64>> {
    Ok(row::<Counter>(tx, &exports::deletion(id, key))?.map(|c| c.0))
}

/// An object is to be deleted, if no file wants it when its turn comes.
pub fn note_deletion(tx: &mut dyn Txn, (id, key): (RepositoryId, &[u8]), now: Timestamp) -> FsResult<()> {
    if deletion(tx, id, key)?.is_none() {
        let number = push(tx, id, &WaitRecord { since: now, what: Waits::Delete { key: key.to_vec() } })?;
        tx.put(Table::Exports, exports::deletion(id, key), Counter(number).to_bytes());
    }
    Ok(())
}

/// An object is not to be deleted any more.
pub fn forget_deletion(tx: &mut dyn Txn, id: RepositoryId, key: &[u8]) -> FsResult<()> {
    if let Some(number) = deletion(tx, id, key)? {
        remove(tx, id, number)?;
        tx.delete(Table::Exports, exports::deletion(id, key));
    }
    Ok(())
}

// ---- objects of further names ----

/// Objects of further names of a file.
pub fn further_of(tx: &dyn ReadTxn, fid: Fid) -> FsResult<Vec<(RepositoryId, Vec<u8>, FurtherRecord)>> {
    let rows = tx.scan(Table::Exports, &exports::further_of(fid), None, super::FURTHER_MAX)?;
    let parse = |(key, value): &(Vec<u8>, Vec<u8>)| {
        let (_, id, object) = exports::parse_further(key)?;
        Ok((id, object, FurtherRecord::from_bytes(value)?))
    };
    rows.iter().map(parse).collect()
}

/// The object of one further name.
pub fn further(tx: &dyn ReadTxn, fid: Fid, id: RepositoryId, key: &[u8]) -> FsResult<Option<FurtherRecord>> {
    row(tx, &exports::further(fid, id, key))
}

/// Whose further name an object is.
pub fn further_owner(tx: &dyn ReadTxn, id: RepositoryId, key: &[u8]) -> FsResult<Option<Fid>> {
    tx.get(Table::Exports, &exports::further_object(id, key))?.map(|v| keys::parse_fid(&v)).transpose()
}

/// Stores what is known of a further name.
pub fn put_further(tx: &mut dyn Txn, fid: Fid, (id, key): (RepositoryId, &[u8]), record: &FurtherRecord) {
    tx.put(Table::Exports, exports::further(fid, id, key), record.to_bytes());
    tx.put(Table::Exports, exports::further_object(id, key), keys::fid(fid));
}

/// An object is no further name of a file any more.
pub fn forget_further(tx: &mut dyn Txn, fid: Fid, id: RepositoryId, key: &[u8]) -> FsResult<()> {
    if tx.get(Table::Exports, &exports::further(fid, id, key))?.is_some() {
        tx.delete(Table::Exports, exports::further(fid, id, key));
        if further_owner(tx, id, key)? == Some(fid) {
            tx.delete(Table::Exports, exports::further_object(id, key));
        }
    }
    Ok(())
}

// ---- conflicts ----

/// The conflict of an object.
pub fn conflict(tx: &dyn ReadTxn, id: RepositoryId, key: &[u8]) -> FsResult<Option<ConflictRecord>> {
    row(tx, &exports::conflict(id, key))
}

/// Stores the conflict of an object.
pub fn put_conflict(tx: &mut dyn Txn, id: RepositoryId, key: &[u8], record: &ConflictRecord) {
    tx.put(Table::Exports, exports::conflict(id, key), record.to_bytes());
}

/// An object has no conflict any more.
pub fn forget_conflict(tx: &mut dyn Txn, id: RepositoryId, key: &[u8]) -> FsResult<()> {
    if conflict(tx, id, key)?.is_some() {
        tx.delete(Table::Exports, exports::conflict(id, key));
    }
    Ok(())
}

/// Whether a row of the queue is there.
pub fn is_queued(tx: &dyn ReadTxn, id: RepositoryId, number: u64) -> FsResult<bool> {
    Ok(tx.get(Table::Exports, &exports::item(id, number))?.is_some())
}
