//! Exports are begun and end: what was stored is known from then on, in the same transaction in which the object that it takes the
//! place of is noted for deletion.

use sateen_types::repository::{ConflictPolicy, Found};
use sateen_types::{Fid, FsResult, HsmFlags, RepositoryId, Timestamp};

use super::super::{delete_hsm, hsm, links, loads, put_hsm};
use super::objects::{self, owner};
use super::plan::{Look, Plan, Wanted, plan, wanted};
use super::queue;
use crate::namespace::changelog::{self, HsmEvent};
use crate::namespace::tree;
use crate::store::Txn;
use crate::store::records::{ConflictRecord, FurtherRecord, Given, HsmRecord, Inode};

/// A look that finds everything that is left to do.
const ANY: Look = Look { copy: true, patient: true };

/// What was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The file.
    pub fid: Fid,
    /// Under which link.
    pub id: RepositoryId,
    /// Under which key.
    pub key: Vec<u8>,
    /// The object now.
    pub object: Found,
    /// Version of the file when it was given out.
    pub change: u64,
    /// Permission bits, owner and group that it was stored with.
    pub attributes: (u32, u32, u32),
    /// See [`super::Store::of`].
    pub of: String,
    /// Its data is that of that object, and was not read here.
    pub copied: bool,
    /// Somebody opened the file for writing meanwhile.
    pub overtaken: bool,
    /// Stamp of now.
    pub stamp: u64,
}

/// What is to be done for a file. If one object is to be stored, this one, under this number, that is remembered: nobody may ever
/// hear what became of it.
pub fn begin(
    tx: &mut dyn Txn,
    fid: Fid,
    object: (RepositoryId, &[u8]),
    number: u64,
    (look, now): (Look, Timestamp),
) -> FsResult<Plan> {
    let mut found = plan(tx, fid, look)?;
    if let Plan::Store(store) = &mut found
        && (store.id, &store.export.key[..]) == object
    {
        let attributes = (store.export.mode & 0o7777, store.export.uid, store.export.gid);
        let (change, of, copied) = (store.change, store.of.clone(), store.export.copy.is_some());
        let given = Given { number, fid, change, of, copied, attributes };
        store.export.earlier = objects::give_out(tx, object, given, store.settings.auto_export.changed, now)?;
    }
    Ok(found)
}

/// Somebody has looked at what is under a key: an object, and the number of the assignment that stored it.
pub fn looked(
    tx: &mut dyn Txn,
    (id, key): (RepositoryId, &[u8]),
    (object, number): (Option<&Found>, Option<u64>),
    (overtaken, stamp): (bool, u64),
    now: Timestamp,
) -> FsResult<()> {
    let given = objects::record(tx, id, key)?.and_then(|record| record.given);
    let Some(given) = given else { return Ok(()) };
    if let Some(object) = object.filter(|_| number == Some(given.number)) {
        let Given { fid, change, of, copied, attributes, .. } = given;
        let (key, object) = (key.to_vec(), object.clone());
        let late = Stored { fid, id, key, object, change, attributes, of, copied, overtaken, stamp };
        return stored(tx, &late, now).map(drop);
    }
    objects::not_there(tx, id, key)
}

/// If nothing is left to be stored: objects that are not wanted any more are noted for deletion, and the file waits no longer.
pub fn settle(tx: &mut dyn Txn, fid: Fid, now: Timestamp) -> FsResult<bool> {
    if plan(tx, fid, ANY)? != Plan::Settle {
        return Ok(false);
    }
    forget(tx, fid, now)?;
    Ok(true)
}

/// The file waits no longer; objects that are not wanted any more are noted for deletion, but for one with data that is nowhere else.
pub fn forget(tx: &mut dyn Txn, fid: Fid, now: Timestamp) -> FsResult<()> {
    let waited = objects::forget_file(tx, fid)?;
    let Some(inode) = tree::find_inode(tx, fid)? else { return Ok(()) };
    let wanted = wanted(tx, &links::all(tx)?, fid, &inode)?;
    let row = hsm(tx, fid)?;
    let further = queue::further_of(tx, fid)?;
    if let Some(row) = &row
        && !wanted.has(row.repository, &row.key)
        && loads(tx, fid)?.is_none()
        && links::find(tx, row.repository)?.is_some_and(|link| link.settings.auto_export.deleted)
    {
        delete_hsm(tx, fid)?;
        objects::unwanted(tx, fid, (row.repository, &row.key), Some(&row.etag), now)?;
        inherit(tx, (fid, &inode), row, &wanted)?;
    }
    for (id, key, record) in &further {
        if !wanted.has(*id, key) {
            queue::forget_further(tx, fid, *id, key)?;
            objects::unwanted(tx, fid, (*id, key), Some(&record.etag), now)?;
        }
    }
    for (id, key) in waited.iter().flat_map(|w| &w.keys) {
        if owner(tx, *id, key)? != Some(fid) {
            objects::unwanted(tx, fid, (*id, key), None, now)?;
        }
    }
    Ok(())
}

/// The object of the name that a file was known by is not its any more: that of another name takes its place, if it is the same.
fn inherit(tx: &mut dyn Txn, (fid, inode): (Fid, &Inode), row: &HsmRecord, wanted: &Wanted) -> FsResult<()> {
    let further = queue::further_of(tx, fid)?;
    let is_same = |f: &FurtherRecord| f.of == row.etag || f.change == inode.change;
    let heir = further.iter().find(|(id, key, f)| is_same(f) && wanted.has(*id, key));
    let Some((id, key, heir)) = heir else { return Ok(()) };
    let dirty = row.flags.has(HsmFlags::DIRTY) && heir.change != inode.change;
    let new = HsmRecord {
        repository: *id,
        key: key.clone(),
        etag: heir.etag.clone(),
        size: if heir.of == row.etag { row.size } else { inode.size },
        modified: row.modified,
        flags: row.flags.set(HsmFlags::DIRTY, dirty).set(HsmFlags::LOST, false),
        stamp: heir.stamp,
        attributes_changed: (heir.mode, heir.uid, heir.gid) != (inode.mode, inode.uid, inode.gid),
    };
    put_hsm(tx, fid, &new)?;
    queue::forget_further(tx, fid, *id, key)?;
    for (id, key, other) in further.iter().filter(|(i, k, f)| f.of == row.etag && (i, k) != (id, key)) {
        let other = FurtherRecord { of: new.etag.clone(), ..other.clone() };
        queue::put_further(tx, fid, (*id, key), &other);
    }
    Ok(())
}

/// An object is in place. Gives whether the file waits no longer.
pub fn stored(tx: &mut dyn Txn, stored: &Stored, now: Timestamp) -> FsResult<bool> {
    let Stored { fid, id, key, object, .. } = stored;
    let (fid, id) = (*fid, *id);
    queue::forget_conflict(tx, id, key)?;
    let Some(inode) = tree::find_inode(tx, fid)? else {
        objects::is_ours_only(tx, id, key, &object.etag)?;
        objects::unwanted(tx, fid, (id, key), None, now)?;
        return Ok(true);
    };
    let wanted = wanted(tx, &links::all(tx)?, fid, &inode)?;
    let same_data = !stored.overtaken && inode.change == stored.change;
    let before = hsm(tx, fid)?;
    // What it was stored from may be another thing by now: then nobody can say what the object has.
    let same_source = before.as_ref().map_or("", |row| &row.etag) == stored.of;
    let has_data = match stored.copied {
        true => same_source || before.is_none() && same_data,
        false => same_source || loads(tx, fid)?.is_none(),
    };
    // What has another size was not put together as it should.
    let of_size = match &before {
        Some(row) if stored.copied => row.size,
        _ => inode.size,
    };
    let has_data = has_data && (!inode.is_regular() || !same_data || object.size == of_size);
    if !has_data {
        if before.as_ref().is_some_and(|row| row.repository == id && row.key == *key) && loads(tx, fid)?.is_none() {
            delete_hsm(tx, fid)?;
        }
        queue::forget_further(tx, fid, id, key)?;
        objects::is_ours_only(tx, id, key, &object.etag)?;
        if !wanted.has(id, key) {
            objects::unwanted(tx, fid, (id, key), None, now)?;
        }
        queue::note_file(tx, fid, id, false, now)?;
        return settle(tx, fid, now);
    }
    objects::settled(tx, id, key)?;
    if let Some(other) = owner(tx, id, key)?.filter(|other| *other != fid) {
        objects::lose(tx, other, id, key)?;
    }
    let is_further = before.as_ref().is_some_and(|row| {
        let same = row.repository == id && row.key == *key;
        !same && wanted.has(row.repository, &row.key)
    });
    if is_further {
        let of = before.filter(|row| (stored.copied || same_data) && !row.flags.has(HsmFlags::DIRTY));
        let (mode, uid, gid) = stored.attributes;
        let of = of.map(|row| row.etag).unwrap_or_default();
        let change = if same_data && !stored.copied { stored.change } else { 0 };
        let stamp = stored.stamp;
        let record = FurtherRecord { etag: object.etag.clone(), of, change, stamp, mode, uid, gid };
        queue::put_further(tx, fid, (id, key), &record);
        return settle(tx, fid, now);
    }
    queue::forget_further(tx, fid, id, key)?;
    let flags = before.as_ref().map(|row| row.flags).unwrap_or_default();
    let dirty = inode.is_regular() && if stored.copied { flags.has(HsmFlags::DIRTY) } else { !same_data };
    let row = HsmRecord {
        repository: id,
        key: key.clone(),
        etag: object.etag.clone(),
        size: object.size,
        modified: object.modified,
        flags: flags
            .set(HsmFlags::EXISTS | HsmFlags::ARCHIVED, true)
            .set(HsmFlags::DIRTY, dirty)
            .set(HsmFlags::LOST, false),
        stamp: stored.stamp,
        attributes_changed: stored.attributes != (inode.mode, inode.uid, inode.gid),
    };
    put_hsm(tx, fid, &row)?;
    if inode.is_regular() {
        changelog::hsm(tx, fid, HsmEvent::Archive, now)?;
    }
    if let Some(old) = before.filter(|old| old.repository != id || old.key != *key) {
        objects::unwanted(tx, fid, (old.repository, &old.key), Some(&old.etag), now)?;
    }
    settle(tx, fid, now)
}

/// Something else is under a key that was to be stored, or nothing where something was known. `known_etag`: what was known.
pub fn conflicting(
    tx: &mut dyn Txn,
    fid: Fid,
    (id, key, number): (RepositoryId, &[u8], u64),
    (object, known_etag): (Option<&Found>, &str),
    now: Timestamp,
) -> FsResult<bool> {
    objects::not_stored(tx, fid, number)?;
    objects::settled(tx, id, key)?;
    if tree::find_inode(tx, fid)?.is_none() {
        return Ok(true);
    }
    let record = ConflictRecord {
        fid: Some(fid),
        since: now,
        object: object.cloned(),
        known_etag: known_etag.to_owned(),
        how: ConflictPolicy::Manual,
    };
    super::conflicts::put(tx, id, key, record)?;
    settle(tx, fid, now)
}

/// An object is gone, or was there no more.
pub fn deleted(tx: &mut dyn Txn, id: RepositoryId, key: &[u8], number: u64) -> FsResult<()> {
    if queue::deletion(tx, id, key)? == Some(number) {
        objects::settled(tx, id, key)?;
    }
    Ok(())
}

/// An object is not to be deleted after all.
pub fn kept(tx: &mut dyn Txn, id: RepositoryId, key: &[u8], number: u64) -> FsResult<()> {
    if queue::deletion(tx, id, key)? == Some(number) {
        queue::forget_deletion(tx, id, key)?;
    }
    Ok(())
}

/// Another object is under a key that was to be deleted.
pub fn deletion_conflicting(
    tx: &mut dyn Txn,
    (id, key): (RepositoryId, &[u8]),
    number: u64,
    object: Option<&Found>,
    now: Timestamp,
) -> FsResult<()> {
    if queue::deletion(tx, id, key)? != Some(number) {
        return Ok(());
    }
    let known_etag = objects::known_etag(tx, id, key)?;
    objects::settled(tx, id, key)?;
    // Where nothing of ours ever was for certain, somebody else's object is none of our business. Nor is one that was imported or
    // stored since.
    if known_etag.is_empty() || owner(tx, id, key)?.is_some() {
        return Ok(());
    }
    let record =
        ConflictRecord { fid: None, since: now, object: object.cloned(), known_etag, how: ConflictPolicy::Manual };
    super::conflicts::put(tx, id, key, record)
}
