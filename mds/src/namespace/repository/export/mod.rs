//! What was changed here goes to repositories. The rules and their reasons are in `docs/decisions/0018-what-both-sides-change.md`; who
//! gets which work is decided in [`crate::fs::repository`].
//!
//! - [`note`] finds what a change means, in its transaction: a file, a tree or the key of an object waits ([`queue`]).
//! - [`plan`] says what is to be done for a file, when its turn comes, from what is there then.
//! - [`objects`] knows what may be under keys while that is in nobody's row.
//! - [`finish`] begins exports and takes what came of them, [`walk`] goes through trees, [`conflicts`] are ended, copies are
//!   [`remove`]d.
//!
//! The invariant: no object is replaced or deleted while it has data of a file that is nowhere else; and only objects that are known,
//! or that somebody has decided about.

mod conflicts;
mod finish;
mod note;
mod objects;
mod plan;
pub(super) mod queue;
mod remove;
mod skipped;
mod walk;

use sateen_types::repository::{ConflictPolicy, Found, LinkPath, Skipped};
use sateen_types::{Credential, Fid, FileType, FsCode, FsError, FsResult, RepositoryId};

use super::{links, rules};
use crate::command::Inputs;
use crate::namespace::{perm, tree};
use crate::store::keys::exports;
use crate::store::{ReadTxn, Table, Txn};

pub use conflicts::{count as conflict_count, list as list_conflicts, note_conflict};
pub use finish::Stored;
pub use note::{Exporting, destroyed, follows, note};
pub use objects::{Deletion, deletion, is_ours_only, is_to_be_deleted, is_unsettled, owner, record};
pub use plan::{Look, Plan, Store, plan};
pub use queue::{
    conflict, count, forget_conflict, forget_further, further, further_of, further_owner, items, note_file, waiting,
};
pub use remove::cancel;
pub use skipped::skipped;

/// Names of a file that are followed. Each further one is an object.
const FURTHER_MAX: usize = 64;
/// Deepest directory that is followed upwards.
const DEPTH_MAX: usize = 4096;
/// Rows that go in one transaction when a link ends.
const DROP_PAGE: usize = 1000;

/// A change of what waits, or by what came of an export.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields are named for what they are")]
pub enum ExportChange {
    /// An assignment of this number is given out, if this object is still what is to be stored.
    Begin { fid: Fid, id: RepositoryId, key: Vec<u8>, number: u64, look: Look },
    /// Nothing is left to be stored of a file.
    Settle { fid: Fid },
    /// A file cannot be exported, and waits no longer: of which link, and why.
    Forget { fid: Fid, id: RepositoryId, skipped: Box<Skipped> },
    /// What is left of a file is for another link.
    Move { fid: Fid, to: RepositoryId },
    /// The next names of a tree.
    Walk { id: RepositoryId, number: u64 },
    /// An object is in place.
    Stored(Box<Stored>),
    /// Nothing was put in place by an assignment.
    NotStored { fid: Fid, number: u64 },
    /// What is under a key was looked at, because something may have been stored there: an object, and the assignment that stored it.
    /// `overtaken`: what was given out may be written to.
    Looked { id: RepositoryId, key: Vec<u8>, object: Option<Found>, number: Option<u64>, overtaken: bool, stamp: u64 },
    /// Nothing was stored under a key, and there was nothing to store it from.
    NotThere { id: RepositoryId, key: Vec<u8> },
    /// Another object was found than the one that was known, or none.
    Conflicting { fid: Fid, id: RepositoryId, key: Vec<u8>, number: u64, object: Option<Found>, known_etag: String },
    /// An object is gone, by the deletion of this number.
    Deleted { id: RepositoryId, key: Vec<u8>, number: u64, stamp: u64 },
    /// An object is not to be deleted after all.
    Kept { id: RepositoryId, key: Vec<u8>, number: u64 },
    /// Another object was to be deleted than the one that is there.
    DeletionConflicting { id: RepositoryId, key: Vec<u8>, number: u64, object: Option<Found> },
    /// Everything below a path is exported, or one file.
    Start { id: RepositoryId, path: Option<LinkPath> },
    /// A file is exported.
    Archive { fid: Fid, who: Credential },
    /// The objects of a file are to be deleted.
    Remove { fid: Fid, who: Credential },
    /// Carries out what was decided of a conflict.
    Decide { id: RepositoryId, key: Vec<u8> },
    /// Somebody decides a conflict.
    Resolve { id: RepositoryId, key: Vec<u8>, how: ConflictPolicy },
    /// Some of what is known of exports of a link goes.
    Drop { id: RepositoryId },
}

/// What came of an [`ExportChange`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exported {
    /// What is to be done now.
    Plan(Box<Plan>),
    /// Nothing is left to be done.
    Done,
    /// Something is.
    More,
}

fn done(done: bool) -> Exported {
    if done { Exported::Done } else { Exported::More }
}

/// Applies a change.
pub fn apply(tx: &mut dyn Txn, change: &ExportChange, inputs: &Inputs) -> FsResult<Exported> {
    let now = inputs.now;
    match change {
        ExportChange::Begin { fid, id, key, number, look } => {
            Ok(Exported::Plan(Box::new(finish::begin(tx, *fid, (*id, key), *number, (*look, now))?)))
        }
        ExportChange::Settle { fid } => finish::settle(tx, *fid, now).map(done),
        ExportChange::Forget { fid, id, skipped } => {
            finish::forget(tx, *fid, now)?;
            skipped::note(tx, *id, skipped)?;
            Ok(Exported::Done)
        }
        ExportChange::Move { fid, to } => {
            queue::move_file(tx, *fid, *to)?;
            Ok(Exported::Done)
        }
        ExportChange::Walk { id, number } => walk::walk(tx, *id, *number, now).map(done),
        ExportChange::Stored(stored) => finish::stored(tx, stored, now).map(done),
        ExportChange::NotStored { fid, number } => {
            objects::not_stored(tx, *fid, *number)?;
            Ok(Exported::More)
        }
        ExportChange::Looked { id, key, object, number, overtaken, stamp } => {
            finish::looked(tx, (*id, key), (object.as_ref(), *number), (*overtaken, *stamp), now)?;
            Ok(Exported::More)
        }
        ExportChange::NotThere { id, key } => {
            objects::not_there(tx, *id, key)?;
            Ok(Exported::More)
        }
        ExportChange::Kept { id, key, number } => {
            finish::kept(tx, *id, key, *number)?;
            Ok(Exported::Done)
        }
        ExportChange::Conflicting { fid, id, key, number, object, known_etag } => {
            finish::conflicting(tx, *fid, (*id, key, *number), (object.as_ref(), known_etag), now).map(done)
        }
        ExportChange::Deleted { id, key, number, .. } => {
            finish::deleted(tx, *id, key, *number)?;
            Ok(Exported::Done)
        }
        ExportChange::DeletionConflicting { id, key, number, object } => {
            finish::deletion_conflicting(tx, (*id, key), *number, object.as_ref(), now)?;
            Ok(Exported::Done)
        }
        ExportChange::Start { id, path } => start(tx, *id, path.as_ref(), inputs),
        ExportChange::Archive { fid, who } => archive(tx, *fid, who, inputs),
        ExportChange::Remove { fid, who } => {
            remove::remove(tx, *fid, who, inputs)?;
            Ok(Exported::More)
        }
        ExportChange::Decide { id, key } => {
            let fid = conflicts::decide(tx, *id, key, inputs)?;
            Ok(match fid {
                Some(fid) => done(queue::waiting(tx, fid)?.is_none()),
                None => Exported::Done,
            })
        }
        ExportChange::Resolve { id, key, how } => {
            conflicts::resolve(tx, *id, key, *how, inputs)?;
            inputs.exporting.links_changed(tx)?;
            Ok(Exported::Done)
        }
        ExportChange::Drop { id } => drop_rows(tx, *id).map(done),
    }
}

/// Directories in which a change may make or remove names.
pub fn touched(tx: &dyn ReadTxn, change: &ExportChange) -> FsResult<Vec<Fid>> {
    match change {
        ExportChange::Decide { id, key } | ExportChange::Resolve { id, key, .. } => {
            conflicts::directories(tx, *id, key)
        }
        _ => Ok(Vec::new()),
    }
}

/// The file whose data a change may replace.
pub fn victim(tx: &dyn ReadTxn, change: &ExportChange) -> FsResult<Option<Fid>> {
    match change {
        ExportChange::Decide { id, key } | ExportChange::Resolve { id, key, .. } => conflicts::victim(tx, *id, key),
        _ => Ok(None),
    }
}

/// Everything below a path is looked at, and exported whatever the policy of the link.
fn start(tx: &mut dyn Txn, id: RepositoryId, path: Option<&LinkPath>, inputs: &Inputs) -> FsResult<Exported> {
    links::refuse_when_full(inputs)?;
    let link = links::get(tx, id)?;
    let (mut at, mut file_type, mut inside) = (Fid::ROOT, FileType::Directory, link.root == Fid::ROOT);
    match path {
        None => at = link.root,
        Some(path) => {
            for name in path.names() {
                let entry = tree::existing_entry(tx, at, &name)?;
                (at, file_type) = (entry.fid, entry.file_type);
                inside |= at == link.root;
            }
        }
    }
    if path.is_some() && !inside {
        let what = format!("path: {} is not in {}", path.map_or("", LinkPath::as_str), link.settings.path);
        return Err(FsError::new(FsCode::Invalid, what).with_hint("give a path below the directory of the link"));
    }
    if at == link.root {
        skipped::forget(tx, id)?;
    }
    match file_type {
        FileType::Directory => queue::note_tree(tx, at, id, true, inputs.now)?,
        _ => queue::note_file(tx, at, id, true, inputs.now)?,
    }
    inputs.exporting.links_changed(tx)?;
    Ok(Exported::More)
}

/// Where an object of a file is or would be: link and key. `None`: it lies below no link.
pub fn place_of(tx: &dyn ReadTxn, fid: Fid) -> FsResult<Option<(RepositoryId, Vec<u8>)>> {
    let inode = tree::inode(tx, fid)?;
    let wanted = plan::wanted(tx, &links::all(tx)?, fid, &inode)?;
    let bad = wanted.bad.map(|(id, skipped)| (id, skipped.key));
    Ok(wanted.keys.into_iter().next().or(bad))
}

fn archive(tx: &mut dyn Txn, fid: Fid, who: &Credential, inputs: &Inputs) -> FsResult<Exported> {
    links::refuse_when_full(inputs)?;
    perm::owner(&tree::inode(tx, fid)?, who)?;
    if rules::stays(tx, fid)? {
        return Err(FsError::new(FsCode::Invalid, format!("{fid} is never to be archived"))
            .with_hint("allow it first: lfs hsm_clear --noarchive"));
    }
    let Some((id, _)) = place_of(tx, fid)? else {
        return Err(FsError::new(FsCode::Invalid, format!("{fid} lies below no link"))
            .with_hint("link its directory to a bucket first: sateen repo create"));
    };
    queue::note_file(tx, fid, id, true, inputs.now)?;
    inputs.exporting.links_changed(tx)?;
    Ok(Exported::More)
}

/// Rows of exports of a link go, a page at a time; gives whether none is left. What is known of files stays.
fn drop_rows(tx: &mut dyn Txn, id: RepositoryId) -> FsResult<bool> {
    for (number, record) in queue::items(tx, id, 0, DROP_PAGE)? {
        match record.what {
            crate::store::records::Waits::File(fid) => drop(objects::forget_file(tx, fid)?),
            crate::store::records::Waits::Tree { dir, .. } => queue::forget_tree(tx, dir)?,
            crate::store::records::Waits::Delete { key } => queue::forget_deletion(tx, id, &key)?,
        }
        // Whatever else it was.
        queue::remove(tx, id, number)?;
    }
    for (key, fid) in tx.scan(Table::Exports, &exports::further_objects(id), None, DROP_PAGE)? {
        let object = exports::parse_object(&key)?.1;
        queue::forget_further(tx, crate::store::keys::parse_fid(&fid)?, id, &object)?;
        tx.delete(Table::Exports, key);
    }
    for (key, _) in tx.scan(Table::Exports, &exports::objects(id), None, DROP_PAGE)? {
        objects::settled(tx, id, &exports::parse_object(&key)?.1)?;
    }
    for prefix in [exports::conflicts(id), exports::deletions(id)] {
        for (key, _) in tx.scan(Table::Exports, &prefix, None, DROP_PAGE)? {
            tx.delete(Table::Exports, key);
        }
    }
    let prefixes = [
        exports::queue(id),
        exports::further_objects(id),
        exports::conflicts(id),
        exports::deletions(id),
        exports::objects(id),
    ];
    for prefix in prefixes {
        if !tx.scan(Table::Exports, &prefix, None, 1)?.is_empty() {
            return Ok(false);
        }
    }
    tx.delete(Table::Exports, exports::count(id));
    skipped::forget(tx, id)?;
    Ok(true)
}
