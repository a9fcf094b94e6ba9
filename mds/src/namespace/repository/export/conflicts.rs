//! Keys of which both sides have changed. Neither side is touched until the policy of the link, or somebody, has decided; what was
//! decided is in the row, and carried out when the file allows it.

use sateen_types::repository::{Conflict, ConflictPolicy, Found};
use sateen_types::{Fid, FsCode, FsError, FsResult, HsmFlags, Name, RepositoryId, Timestamp};

use super::super::conflict::aside;
use super::super::{delete_hsm, hsm, links, load, loads, put_hsm, rules};
use super::plan::wanted;
use super::queue;
use crate::command::Inputs;
use crate::namespace::unlink::{destroy, drop_link};
use crate::namespace::{intents, tree};
use crate::store::codec::Record;
use crate::store::keys::{self, exports};
use crate::store::records::{ConflictRecord, Dentry, HsmRecord, Inode};
use crate::store::{ReadTxn, Table, Txn};

/// Conflicts of a link that are counted.
const COUNTED_MAX: usize = 100_000;
/// Names of one kind that are tried for a file that makes room.
const NAMES_MAX: u32 = 100;

fn show(key: Vec<u8>, record: ConflictRecord) -> Conflict {
    let ConflictRecord { fid, since, object, known_etag, .. } = record;
    Conflict { key, fid, since, object, known_etag }
}

/// Conflicts of a link behind a key (empty: from the start), in the order of keys, at most `max`; and whether more follow.
pub fn list(tx: &dyn ReadTxn, id: RepositoryId, after: &[u8], max: usize) -> FsResult<(Vec<Conflict>, bool)> {
    let rows = tx.scan(Table::Exports, &exports::conflicts(id), Some(&exports::conflict(id, after)), max + 1)?;
    let more = rows.len() > max;
    let parse = |(key, value): (Vec<u8>, Vec<u8>)| {
        Ok(show(exports::parse_object(&key)?.1, ConflictRecord::from_bytes(&value)?))
    };
    Ok((rows.into_iter().take(max).map(parse).collect::<FsResult<_>>()?, more))
}

/// How many conflicts a link has; of very many not all are counted.
pub fn count(tx: &dyn ReadTxn, id: RepositoryId) -> FsResult<u64> {
    Ok(tx.scan(Table::Exports, &exports::conflicts(id), None, COUNTED_MAX)?.len() as u64)
}

/// Both sides of a key have changed. What was seen replaces what was known of a conflict; the policy of the link decides anew.
/// `record.how` is what it decides if the link says nothing.
pub(super) fn put(tx: &mut dyn Txn, id: RepositoryId, key: &[u8], mut record: ConflictRecord) -> FsResult<()> {
    let policy = links::find(tx, id)?.map_or(ConflictPolicy::Manual, |link| link.settings.conflict);
    if policy != ConflictPolicy::Manual {
        record.how = policy;
    }
    if let Some(before) = queue::conflict(tx, id, key)? {
        record.since = before.since;
        // What both had last is not what was seen in the meantime.
        if before.object.as_ref().is_some_and(|seen| seen.etag == record.known_etag) {
            record.known_etag = before.known_etag;
        }
    }
    let decided = record.how;
    queue::put_conflict(tx, id, key, &record);
    if record.fid.is_none() && decided != ConflictPolicy::Manual {
        return decided_without_file(tx, (id, key), record.object.as_ref(), decided, record.since);
    }
    Ok(())
}

/// Told by an import, which has asked what was decided and the policy of the link: nothing was, or it cannot be carried out.
pub fn note_conflict(tx: &mut dyn Txn, id: RepositoryId, conflict: Conflict) -> FsResult<()> {
    let Conflict { key, fid, mut since, object, mut known_etag } = conflict;
    if let Some(before) = queue::conflict(tx, id, &key)? {
        if before.fid == fid && before.object == object {
            return Ok(());
        }
        (since, known_etag) = (before.since, before.known_etag);
    }
    queue::put_conflict(tx, id, &key, &ConflictRecord { fid, since, object, known_etag, how: ConflictPolicy::Manual });
    Ok(())
}

/// The name is gone here.
fn decided_without_file(
    tx: &mut dyn Txn,
    (id, key): (RepositoryId, &[u8]),
    object: Option<&Found>,
    how: ConflictPolicy,
    now: Timestamp,
) -> FsResult<()> {
    queue::forget_conflict(tx, id, key)?;
    match (how, object) {
        (ConflictPolicy::FilesystemWins, Some(object)) => {
            super::objects::is_ours_only(tx, id, key, &object.etag)?;
            queue::note_deletion(tx, (id, key), now)
        }
        // The object stays, and its name comes back with the next import.
        _ => Ok(()),
    }
}

/// Somebody has decided. What can be done at once is; the rest when the turn of the file comes.
pub fn resolve(tx: &mut dyn Txn, id: RepositoryId, key: &[u8], how: ConflictPolicy, inputs: &Inputs) -> FsResult<()> {
    links::get(tx, id)?;
    let Some(record) = queue::conflict(tx, id, key)? else {
        let what = format!("there is no conflict of {:?} in repository {id}", String::from_utf8_lossy(key));
        return Err(FsError::new(FsCode::NotFound, what).with_hint("list them: sateen repo conflicts"));
    };
    let Some(fid) = record.fid else {
        return decided_without_file(tx, (id, key), record.object.as_ref(), how, inputs.now);
    };
    queue::put_conflict(tx, id, key, &ConflictRecord { how, ..record });
    match how {
        ConflictPolicy::Manual => Err(FsError::new(FsCode::Invalid, "manual is no way to end a conflict")
            .with_hint("give repository-wins, filesystem-wins or keep-both")),
        ConflictPolicy::FilesystemWins if rules::stays(tx, fid)? => {
            Err(FsError::new(FsCode::Invalid, format!("{fid} is never to be archived"))
                .with_hint("allow it first: lfs hsm_clear --noarchive"))
        }
        ConflictPolicy::FilesystemWins => queue::note_file(tx, fid, id, true, inputs.now),
        ConflictPolicy::RepositoryWins | ConflictPolicy::KeepBoth => decide(tx, id, key, inputs).map(drop),
    }
}

/// Carries out what was decided of a conflict. Gives the file.
///
/// # Errors
/// `Busy` while the file is open and its data would go.
pub fn decide(tx: &mut dyn Txn, id: RepositoryId, key: &[u8], inputs: &Inputs) -> FsResult<Option<Fid>> {
    let Some(record) = queue::conflict(tx, id, key)? else { return Ok(None) };
    let Some(fid) = record.fid else { return Ok(None) };
    let Some((place, inode)) = named(tx, fid, id, key)? else {
        // The name is another one now: the object is somebody else's.
        queue::forget_conflict(tx, id, key)?;
        return Ok(Some(fid));
    };
    match (record.how, record.object) {
        (ConflictPolicy::RepositoryWins, Some(object)) => take_object(tx, (fid, inode), (id, key), &object, inputs)?,
        (ConflictPolicy::RepositoryWins, None) => remove(tx, place, (fid, inode), inputs)?,
        (ConflictPolicy::KeepBoth, Some(_)) => make_room(tx, place, (fid, inode), (id, key), inputs)?,
        (ConflictPolicy::KeepBoth, None) => {
            let (known_etag, since, how) = (record.known_etag, record.since, ConflictPolicy::FilesystemWins);
            let row = ConflictRecord { fid: Some(fid), since, object: None, known_etag, how };
            queue::put_conflict(tx, id, key, &row);
            queue::note_file(tx, fid, id, true, inputs.now)?;
            return Ok(Some(fid));
        }
        _ => return Ok(Some(fid)),
    }
    queue::forget_conflict(tx, id, key)?;
    super::finish::settle(tx, fid, inputs.now)?;
    Ok(Some(fid))
}

/// The name of a file that stands for a key: directory, name, entry.
type Place = (Fid, Name, Dentry);

/// The file under the name that stands for a key.
fn named(tx: &dyn ReadTxn, fid: Fid, id: RepositoryId, key: &[u8]) -> FsResult<Option<(Place, Inode)>> {
    let Some(inode) = tree::find_inode(tx, fid)? else { return Ok(None) };
    let all = links::all(tx)?;
    if !wanted(tx, &all, fid, &inode)?.has(id, key) {
        return Ok(None);
    }
    let last = key.strip_suffix(b"/").unwrap_or(key).rsplit(|b| *b == b'/').next().unwrap_or_default();
    for (row, _) in tx.scan(Table::Parents, &keys::fid(fid), None, super::FURTHER_MAX)? {
        let (_, parent, name) = keys::parse_parent(&row)?;
        if name.as_bytes() != last {
            continue;
        }
        let at = super::plan::below(tx, &all, parent)?;
        let is_it = at.is_some_and(|(i, above)| {
            i == id && key.strip_prefix(&above[..]).is_some_and(|rest| rest.strip_suffix(b"/").unwrap_or(rest) == last)
        });
        if let Some(entry) = tree::entry(tx, parent, &name)?.filter(|_| is_it) {
            return Ok(Some(((parent, name, entry), inode)));
        }
    }
    Ok(None)
}

/// Directories in which carrying out what was decided may change names.
pub fn directories(tx: &dyn ReadTxn, id: RepositoryId, key: &[u8]) -> FsResult<Vec<Fid>> {
    let Some(fid) = queue::conflict(tx, id, key)?.and_then(|record| record.fid) else { return Ok(Vec::new()) };
    let place = named(tx, fid, id, key)?;
    Ok(place.map(|((parent, ..), _)| parent).into_iter().collect())
}

/// The file whose data may go.
pub fn victim(tx: &dyn ReadTxn, id: RepositoryId, key: &[u8]) -> FsResult<Option<Fid>> {
    Ok(queue::conflict(tx, id, key)?.and_then(|record| record.fid))
}

fn refuse_open(fid: Fid, inputs: &Inputs) -> FsResult<()> {
    if inputs.open.contains(&fid) {
        return Err(FsError::new(FsCode::Busy, format!("{fid} is open, or being loaded or exported"))
            .with_hint("try again when nobody uses it"));
    }
    Ok(())
}

/// The file gives up its own data and takes the object's. Mode, owner and times of the object come with its next import.
fn take_object(
    tx: &mut dyn Txn,
    (fid, mut inode): (Fid, Inode),
    (id, key): (RepositoryId, &[u8]),
    object: &Found,
    inputs: &Inputs,
) -> FsResult<()> {
    let row = HsmRecord {
        repository: id,
        key: key.to_vec(),
        etag: object.etag.clone(),
        size: object.size,
        // Of no object: so the next import takes the attributes.
        modified: Timestamp::default(),
        flags: HsmFlags::EXISTS | HsmFlags::ARCHIVED,
        stamp: 0,
        attributes_changed: false,
    };
    if !inode.is_regular() {
        return put_hsm(tx, fid, &HsmRecord { etag: String::new(), ..row });
    }
    refuse_open(fid, inputs)?;
    intents::refuse_while_truncating(tx, fid)?;
    load::release_data(tx, fid, row)?;
    inode = tree::inode(tx, fid)?;
    inode.data_changed(inputs.now);
    inode.mtime = object.modified;
    tree::put_inode(tx, fid, &inode);
    Ok(())
}

/// The object is gone: so is the name.
fn remove(tx: &mut dyn Txn, (parent, name, entry): Place, (fid, inode): (Fid, Inode), inputs: &Inputs) -> FsResult<()> {
    if inode.is_dir() {
        crate::namespace::unlink::refuse_nonempty(&inode, &name)?;
    }
    tree::remove_name(tx, (parent, &name), &entry, inputs.now)?;
    if inode.is_dir() {
        return destroy(tx, fid);
    }
    let inputs = Inputs { victim_open: inputs.open.contains(&fid), ..inputs.clone() };
    drop_link(tx, fid, inode, &inputs)
}

/// The file gets another name, NAME.conflict-YYYYMMDDTHHMMSSZ, and is exported as a new one. The object has the name from its next
/// import on.
fn make_room(
    tx: &mut dyn Txn,
    (parent, name, entry): Place,
    (fid, mut inode): (Fid, Inode),
    (id, key): (RepositoryId, &[u8]),
    inputs: &Inputs,
) -> FsResult<()> {
    let free = free_name(tx, parent, &name, inputs.now)?;
    tree::remove_name(tx, (parent, &name), &entry, inputs.now)?;
    inode.attr_changed(inputs.now);
    tree::put_inode(tx, fid, &inode);
    tree::insert_name(tx, (parent, &free), (fid, inode.file_type()), Some(entry.cookie), inputs.now)?;
    queue::forget_further(tx, fid, id, key)?;
    if let Some(row) = hsm(tx, fid)?.filter(|row| row.repository == id && row.key == key) {
        if loads(tx, fid)?.is_some() {
            // What is missing of it is gone with the object that had it.
            put_hsm(tx, fid, &HsmRecord { flags: row.flags.set(HsmFlags::LOST, true), ..row })?;
        } else {
            delete_hsm(tx, fid)?;
        }
    }
    queue::note_file(tx, fid, id, true, inputs.now)
}

fn free_name(tx: &dyn ReadTxn, parent: Fid, name: &Name, now: Timestamp) -> FsResult<Name> {
    for n in 1..=NAMES_MAX {
        let free = aside(name, now, n)?;
        if tree::entry(tx, parent, &free)?.is_none() {
            return Ok(free);
        }
    }
    Err(FsError::new(FsCode::Exists, format!("there are {NAMES_MAX} files beside {name:?} that made room")))
}
