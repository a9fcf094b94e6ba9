//! Trees: a directory that moved, or that somebody wants exported, is walked a page of names at a time. Directories in it are walked
//! on their own.

use sateen_types::{Fid, FileType, FsResult, RepositoryId, Timestamp};

use super::plan::{Look, Plan, plan_as};
use super::queue;
use crate::namespace::tree;
use crate::store::codec::Record;
use crate::store::records::{IndexEntry, WaitRecord, WaitingRecord, Waits};
use crate::store::{Table, Txn, keys};

/// Names that are looked at in one transaction.
pub const WALK_PAGE: usize = 256;

/// Looks at the next names of a tree. Gives whether it is done.
pub fn walk(tx: &mut dyn Txn, id: RepositoryId, number: u64, now: Timestamp) -> FsResult<bool> {
    let Some(record) = queue::item(tx, id, number)? else { return Ok(true) };
    let Waits::Tree { dir, after, forced } = record.what else { return Ok(true) };
    if tree::find_inode(tx, dir)?.is_none_or(|inode| !inode.is_dir()) {
        queue::forget_tree(tx, dir)?;
        return Ok(true);
    }
    if after == 0 {
        look(tx, dir, id, forced, now)?;
    }
    let rows = tx.scan(Table::DirIndex, &keys::fid(dir), Some(&keys::dirindex(dir, after)), WALK_PAGE)?;
    let last = rows.len() < WALK_PAGE;
    let mut at = after;
    for (key, value) in rows {
        let entry = IndexEntry::from_bytes(&value)?;
        at = keys::parse_dirindex(&key)?.1;
        match entry.file_type {
            FileType::Directory => queue::note_tree(tx, entry.fid, id, forced, now)?,
            _ => look(tx, entry.fid, id, forced, now)?,
        }
    }
    if last {
        queue::forget_tree(tx, dir)?;
    } else {
        queue::put_tree(tx, id, number, &WaitRecord { what: Waits::Tree { dir, after: at, forced }, ..record });
    }
    Ok(last)
}

/// A file waits if there is something to do for it.
fn look(tx: &mut dyn Txn, fid: Fid, id: RepositoryId, forced: bool, now: Timestamp) -> FsResult<()> {
    if queue::waiting(tx, fid)?.is_some_and(|known| known.forced || !forced) {
        return Ok(());
    }
    let waiting = WaitingRecord { repository: id, number: 0, forced, keys: Vec::new() };
    let found = plan_as(tx, fid, &waiting, Look { copy: true, patient: false })?;
    let unwanted = found == Plan::Settle && has_unwanted(tx, fid)?;
    if found != Plan::Settle || unwanted {
        queue::note_file(tx, fid, id, forced, now)?;
    }
    Ok(())
}

/// Whether an object of the file is under a key that is no name of it.
fn has_unwanted(tx: &dyn Txn, fid: Fid) -> FsResult<bool> {
    let Some(inode) = tree::find_inode(tx, fid)? else { return Ok(false) };
    let wanted = super::plan::wanted(tx, &super::super::links::all(tx)?, fid, &inode)?;
    let moved = super::super::hsm(tx, fid)?.is_some_and(|row| !wanted.has(row.repository, &row.key));
    Ok(moved || queue::further_of(tx, fid)?.iter().any(|(id, key, _)| !wanted.has(*id, key)))
}
