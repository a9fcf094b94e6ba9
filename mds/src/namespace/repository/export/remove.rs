//! The copy of a file in its repository goes, and what waits is taken back: what owners ask for with `lfs hsm_remove` and `hsm_cancel`.

use sateen_types::repository::RepositoryState;
use sateen_types::{Credential, Fid, FsCode, FsError, FsResult, HsmFlags};

use super::super::{delete_hsm, hsm, links, loads};
use super::objects::{self, owner};
use super::queue;
use crate::command::Inputs;
use crate::namespace::changelog::{self, HsmEvent};
use crate::namespace::{perm, tree};
use crate::store::Txn;

/// A file has nothing to do with its objects any more (that of each of its names), and they are to be deleted, if they are those that are
/// known. They go the way of all deletions: one that is stored anew before its turn comes stays.
///
/// # Errors
/// `NoData`: it is in no repository. `NotPermitted`: neither root, nor the owner where the link carries removals over.
/// `Invalid`: not all of it is here. `Busy`: it is, or may be, under way to its repository.
pub fn remove(tx: &mut dyn Txn, fid: Fid, who: &Credential, inputs: &Inputs) -> FsResult<()> {
    links::refuse_when_full(inputs)?;
    let inode = tree::inode(tx, fid)?;
    if !inode.is_regular() {
        return Err(FsError::new(FsCode::Invalid, format!("{fid} is not a regular file")));
    }
    perm::owner(&inode, who)?;
    let row = hsm(tx, fid)?
        .ok_or_else(|| FsError::new(FsCode::NoData, format!("{fid} has nothing to do with a repository")))?;
    let invalid = |what: &str, hint: &str| FsError::new(FsCode::Invalid, format!("{fid} {what}")).with_hint(hint);
    let link = links::find(tx, row.repository)?.filter(|link| link.state != RepositoryState::Deleting);
    let Some(link) = link else {
        return Err(invalid("belongs to a link that was or is being ended", "delete the object in the bucket"));
    };
    if !link.settings.auto_export.deleted {
        perm::root(who, "remove objects of a link that does not carry removals over")?;
    }
    if loads(tx, fid)?.is_some() {
        return Err(invalid("has bytes in its repository only", "load it first: lfs hsm_restore"));
    }
    if !row.flags.has(HsmFlags::EXISTS) {
        return Err(invalid("is not in its repository", "look at it with: lfs hsm_state"));
    }
    let further = queue::further_of(tx, fid)?.into_iter().map(|(id, key, record)| (id, key, record.etag));
    let all: Vec<_> = std::iter::once((row.repository, row.key, row.etag)).chain(further).collect();
    for (id, key, _) in &all {
        if objects::is_unsettled(tx, *id, key)? {
            return Err(
                FsError::new(FsCode::Busy, format!("{fid} is being exported")).with_hint("try again in a moment")
            );
        }
        if queue::conflict(tx, *id, key)?.is_some() {
            return Err(invalid("was changed on both sides", "end the conflict first: sateen repo resolve"));
        }
    }
    if queue::waiting(tx, fid)?.is_some() {
        return Err(FsError::new(FsCode::Busy, format!("{fid} waits to be exported"))
            .with_hint("wait until it was, or keep it out of the repository: lfs hsm_set --noarchive"));
    }
    delete_hsm(tx, fid)?;
    for (id, key, _) in &all {
        queue::forget_further(tx, fid, *id, key)?;
    }
    for (id, key, etag) in &all {
        // Another file was made of it, or stored as it, since.
        if owner(tx, *id, key)?.is_none() {
            objects::is_ours_only(tx, *id, key, etag)?;
            queue::note_deletion(tx, (*id, key), inputs.now)?;
        }
    }
    inputs.exporting.links_changed(tx)?;
    changelog::hsm(tx, fid, HsmEvent::Remove, inputs.now)
}

/// A file is not exported because somebody asked for it any more, only if its link says so. What a worker has may be done. Gives whether
/// there was something to take back.
pub fn cancel(tx: &mut dyn Txn, fid: Fid) -> FsResult<bool> {
    match queue::waiting(tx, fid)? {
        Some(known) if known.forced => {
            queue::put_waiting(tx, fid, &crate::store::records::WaitingRecord { forced: false, ..known });
            Ok(true)
        }
        _ => Ok(false),
    }
}
