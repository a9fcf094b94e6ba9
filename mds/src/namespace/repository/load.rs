//! Ranges of files come in, and go again.

use sateen_types::repository::RepositoryState;
use sateen_types::{
    ComponentId, Credential, Extent, Fid, FsCode, FsError, FsResult, HsmFlags, Layout, Remote, RepositorySettings,
};

use super::{delete_loads, export, hsm, links, loads, opened, put_hsm, rules};
use crate::command::Inputs;
use crate::namespace::changelog::{self, HsmEvent};
use crate::namespace::{intents, layout, perm, tree};
use crate::store::codec::Record;
use crate::store::records::{HsmRecord, LoadRecord};
use crate::store::{ReadTxn, Table, Txn, keys};

/// What has to be known to fetch a range of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Of the link.
    pub settings: RepositorySettings,
    /// Of the file.
    pub hsm: HsmRecord,
    /// Where it lies.
    pub layout: Layout,
    /// What is loaded.
    pub remote: Remote,
}

/// What has to be known to fetch something of a file; `None` if all of it is loaded, it is gone, or its link is.
pub fn prepared(tx: &dyn ReadTxn, fid: Fid) -> FsResult<Option<Prepared>> {
    let (Some(load), Some(hsm)) = (loads(tx, fid)?, hsm(tx, fid)?) else { return Ok(None) };
    let (Some(link), Some(layout)) = (links::find(tx, hsm.repository)?, layout::find(tx, fid)?) else {
        return Ok(None);
    };
    Ok(Some(Prepared { settings: link.settings, hsm, layout, remote: load.remote }))
}

/// The same, with OSTs for a range.
pub fn prepare(tx: &mut dyn Txn, fid: Fid, range: Extent, inputs: &Inputs) -> FsResult<Option<Prepared>> {
    let Some(mut prepared) = prepared(tx, fid)? else { return Ok(None) };
    layout::instantiate(tx, fid, range.start, range.end - range.start, inputs)?;
    prepared.layout = layout::of_file(tx, fid)?;
    Ok(Some(prepared))
}

/// A range is on the OSTs. Gives what is loaded now; `None`: everything, or there is no such file any more.
///
/// Neither time nor version of the file change: its bytes are what they were.
pub fn loaded(tx: &mut dyn Txn, fid: Fid, etag: &str, range: Extent, allocated_delta: i64) -> FsResult<Option<Remote>> {
    let (Some(mut load), Some(mut row)) = (loads(tx, fid)?, hsm(tx, fid)?) else { return Ok(None) };
    if row.etag != etag {
        return Err(FsError::new(FsCode::Stale, format!("{fid} is of another version of its object than {etag}")));
    }
    let mut inode = tree::inode(tx, fid)?;
    inode.allocated = inode.allocated.saturating_add_signed(allocated_delta);
    tree::put_inode(tx, fid, &inode);
    load.remote.add(range);
    let found = row.flags.set(HsmFlags::LOST, false);
    let all = load.remote.all_loaded();
    let flags = if all { found.set(HsmFlags::RELEASED, false) } else { found };
    if row.flags != flags {
        row.flags = flags;
        put_hsm(tx, fid, &row)?;
    }
    if all {
        delete_loads(tx, fid)?;
        return Ok(None);
    }
    tx.put(Table::Loads, keys::fid(fid), load.to_bytes());
    Ok(Some(load.remote))
}

/// The object that a file was made of is gone, or another one is in its place. Asking for what is missing tries again.
pub fn lost(tx: &mut dyn Txn, fid: Fid, etag: &str) -> FsResult<()> {
    if let Some(mut row) = hsm(tx, fid)?
        && row.etag == etag
        && !row.flags.has(HsmFlags::LOST)
    {
        row.flags = row.flags.set(HsmFlags::LOST, true);
        put_hsm(tx, fid, &row)?;
    }
    Ok(())
}

/// Remembers that all of a file is wanted. Gives what is loaded; `None`: all of it.
pub fn restore(tx: &mut dyn Txn, fid: Fid) -> FsResult<Option<Remote>> {
    known(tx, fid)?;
    let Some(mut load) = loads(tx, fid)? else { return Ok(None) };
    if !load.restore {
        load.restore = true;
        tx.put(Table::Repositories, keys::restore(fid), Vec::new());
        tx.put(Table::Loads, keys::fid(fid), load.to_bytes());
    }
    Ok(Some(load.remote))
}

/// All of a file cannot be had: it is not wanted any more.
pub fn forget_restore(tx: &mut dyn Txn, fid: Fid) -> FsResult<()> {
    if let Some(mut load) = loads(tx, fid)?.filter(|load| load.restore) {
        load.restore = false;
        tx.delete(Table::Repositories, keys::restore(fid));
        tx.put(Table::Loads, keys::fid(fid), load.to_bytes());
    }
    Ok(())
}

/// A file is not loaded in the background any more, and not exported because somebody asked for it. For its owner and root.
pub fn cancel(tx: &mut dyn Txn, fid: Fid, who: &Credential, inputs: &Inputs) -> FsResult<()> {
    perm::owner(&tree::inode(tx, fid)?, who)?;
    let restored = loads(tx, fid)?.is_some_and(|load| load.restore);
    forget_restore(tx, fid)?;
    if export::cancel(tx, fid)? || restored {
        changelog::hsm(tx, fid, HsmEvent::Cancel, inputs.now)?;
    }
    Ok(())
}

/// Up to `limit` files that are to be loaded in full, with what is loaded of them.
pub fn restores(tx: &dyn ReadTxn, limit: usize) -> FsResult<Vec<(Fid, HsmRecord, Remote)>> {
    let mut found = Vec::new();
    for (key, _) in tx.scan(Table::Repositories, keys::RESTORE, None, limit)? {
        let fid = keys::parse_restore(&key)?;
        if let (Some(load), Some(row)) = (loads(tx, fid)?, hsm(tx, fid)?) {
            found.push((fid, row, load.remote));
        }
    }
    Ok(found)
}

/// The row of a file that came from a repository, or `NoData`.
fn known(tx: &dyn ReadTxn, fid: Fid) -> FsResult<HsmRecord> {
    let inode = tree::inode(tx, fid)?;
    if !inode.is_regular() {
        return Err(FsError::new(FsCode::Invalid, format!("{fid} is not a regular file")));
    }
    hsm(tx, fid)?.ok_or_else(|| FsError::new(FsCode::NoData, format!("{fid} has nothing to do with a repository")))
}

/// Gives up what the OSTs have of a file. For its owner and root, while nobody has it open, if the repository has all of it.
pub fn release(tx: &mut dyn Txn, fid: Fid, who: &Credential, inputs: &Inputs) -> FsResult<()> {
    let row = known(tx, fid)?;
    perm::owner(&tree::inode(tx, fid)?, who)?;
    let why = if opened::is_opened(tx, fid)? && !row.flags.has(HsmFlags::DIRTY) {
        Some("is, or was, open for writing")
    } else if row.flags.has(HsmFlags::DIRTY) {
        Some("was changed since it was imported")
    } else if !row.flags.has(HsmFlags::ARCHIVED) || row.flags.has(HsmFlags::LOST) {
        Some("is not in its repository")
    } else if export::is_unsettled(tx, row.repository, &row.key)? {
        Some("is being exported, or was and nobody knows yet what came of it")
    } else if rules::keeps(tx, fid)? {
        Some("is never to be released")
    } else if links::find(tx, row.repository)?.is_none_or(|link| link.state == RepositoryState::Deleting) {
        Some("belongs to a link that was or is being ended")
    } else {
        None
    };
    if let Some(why) = why {
        return Err(FsError::new(FsCode::Invalid, format!("{fid} {why}")).with_hint("look at it with: lfs hsm_state"));
    }
    if inputs.open.contains(&fid) {
        return Err(FsError::new(FsCode::Busy, format!("{fid} is open, or being loaded"))
            .with_hint("release it when nobody uses it"));
    }
    intents::refuse_while_truncating(tx, fid)?;
    release_data(tx, fid, row)
}

/// A file has the data of its object, in the repository only.
pub(super) fn release_data(tx: &mut dyn Txn, fid: Fid, mut row: HsmRecord) -> FsResult<()> {
    drop_objects(tx, fid)?;
    let mut inode = tree::inode(tx, fid)?;
    inode.size = row.size;
    inode.allocated = 0;
    tree::put_inode(tx, fid, &inode);
    row.flags = HsmFlags::EXISTS | HsmFlags::ARCHIVED;
    set_released(tx, fid, row)
}

/// Stores the row, and that nothing is loaded if there is something to load.
pub(super) fn set_released(tx: &mut dyn Txn, fid: Fid, mut row: HsmRecord) -> FsResult<()> {
    delete_loads(tx, fid)?;
    row.flags = row.flags.set(HsmFlags::RELEASED, row.size > 0);
    if row.size > 0 {
        let load = LoadRecord { remote: Remote::none_loaded(row.size), restore: false };
        tx.put(Table::Loads, keys::fid(fid), load.to_bytes());
    }
    put_hsm(tx, fid, &row)
}

/// The file's objects are destroyed. What takes their place has new numbers, so that no object that is still to be destroyed is
/// taken for one that is written later.
fn drop_objects(tx: &mut dyn Txn, fid: Fid) -> FsResult<()> {
    let mut layout = layout::of_file(tx, fid)?;
    if layout.components.iter().all(|c| !c.is_instantiated()) {
        return Ok(());
    }
    intents::forget_truncates(tx, fid)?;
    intents::destroy_objects(tx, fid, &layout)?;
    let highest = layout.components.iter().map(|c| c.id.0).max().unwrap_or(0);
    for (component, id) in layout.components.iter_mut().zip(highest + 1..) {
        component.id = ComponentId(id);
        component.osts.clear();
    }
    layout.generation += 1;
    tx.put(Table::Layouts, keys::fid(fid), layout.to_bytes());
    Ok(())
}
