//! Files with an HSM state, or that wait for export, which somebody has opened for writing. They count as changed: a client that dies
//! may have stored what it never told. The row is there before the open is answered, and goes when the last of them has closed in order
//! and nothing was written. One whose client has died with it open is changed, and has another version than whatever was stored of it
//! before.

use sateen_types::{Fid, FsResult, HsmFlags, Timestamp};

use super::{agree, hsm, written};
use crate::command::Inputs;
use crate::namespace::tree;
use crate::store::records::HsmRecord;
use crate::store::{ReadTxn, Table, Txn, keys};

/// Rows looked at per scan.
const PAGE: usize = 1024;

/// Whether the data of a file may be other than its object's.
pub fn is_changed(tx: &dyn ReadTxn, fid: Fid, row: &HsmRecord) -> FsResult<bool> {
    Ok(row.flags.has(HsmFlags::DIRTY) || is_opened(tx, fid)?)
}

/// Whether somebody has it open for writing, or had and nobody knows yet what became of it.
pub fn is_opened(tx: &dyn ReadTxn, fid: Fid) -> FsResult<bool> {
    Ok(tx.get(Table::Repositories, &keys::opened(fid))?.is_some())
}

/// Whether it is to be marked when somebody opens it for writing.
pub fn counts(tx: &dyn ReadTxn, fid: Fid) -> FsResult<bool> {
    Ok(hsm(tx, fid)?.is_some() || agree::waits(tx, fid)?)
}

/// Somebody opens the file for writing.
pub fn open(tx: &mut dyn Txn, fid: Fid) -> FsResult<()> {
    if !is_opened(tx, fid)? && counts(tx, fid)? {
        tx.put(Table::Repositories, keys::opened(fid), Vec::new());
    }
    Ok(())
}

/// Somebody has closed the file in order; does nothing while others have it open for writing, or may.
pub fn close(tx: &mut dyn Txn, fid: Fid, inputs: &Inputs) -> FsResult<()> {
    if is_opened(tx, fid)? && !inputs.open.contains(&fid) {
        tx.delete(Table::Repositories, keys::opened(fid));
    }
    Ok(())
}

/// Whoever had these open for writing is gone without having closed them. While others have one open it counts as opened, too.
pub fn abandon(tx: &mut dyn Txn, files: &[Fid], inputs: &Inputs) -> FsResult<()> {
    for fid in files {
        if !is_opened(tx, *fid)? {
            continue;
        }
        written(tx, *fid)?;
        other_version(tx, *fid, inputs.now)?;
        if let Some(row) = hsm(tx, *fid)? {
            agree::note_changed(tx, *fid, row.repository, inputs.now)?;
        }
        if !inputs.open.contains(fid) {
            tx.delete(Table::Repositories, keys::opened(*fid));
        }
    }
    Ok(())
}

/// What is stored of the file by now, or was, is not it as it is any more.
pub fn other_version(tx: &mut dyn Txn, fid: Fid, now: Timestamp) -> FsResult<()> {
    if let Some(mut inode) = tree::find_inode(tx, fid)? {
        inode.attr_changed(now);
        tree::put_inode(tx, fid, &inode);
    }
    Ok(())
}

/// Every file that counts as opened.
pub fn all(tx: &dyn ReadTxn) -> FsResult<Vec<Fid>> {
    let mut found = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = tx.scan(Table::Repositories, keys::OPENED, after.as_deref(), PAGE)?;
        for (key, _) in &rows {
            found.push(keys::parse_opened(key)?);
        }
        match rows.into_iter().next_back() {
            Some((key, _)) => after = Some(key),
            None => return Ok(found),
        }
    }
}
