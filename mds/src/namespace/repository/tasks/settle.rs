//! What became of files that others were at work on: those that load and those that export.

use sateen_types::limits::{EXPORT_BYTES_MAX, KEY_BYTES_MAX};
use sateen_types::repository::{TaskId, TaskKind};
use sateen_types::{Fid, FsResult, HsmFlags};

use super::{
    CODE_CONFLICT, CODE_GONE, CODE_INTERNAL, CODE_PATH, CODE_SIZE, Settled, Told, note_failed, path_of, put, working,
};
use crate::command::Inputs;
use crate::namespace::repository::{export, hsm, links, load, loads, rules};
use crate::namespace::tree;
use crate::store::keys::tasks as keys;
use crate::store::{ReadTxn, Table, Txn};

/// What became of a file, from the tables; `None`: it is not done yet.
pub fn look(tx: &dyn ReadTxn, kind: TaskKind, fid: Fid) -> FsResult<Option<Settled>> {
    let Some(inode) = tree::find_inode(tx, fid)? else { return Ok(Some(Settled::Left)) };
    if kind == TaskKind::Restore {
        return Ok(match loads(tx, fid)? {
            None => Some(Settled::Done(inode.size)),
            Some(load) if load.restore => None,
            // It was given up, or it was all here and was released again.
            Some(_) => match hsm(tx, fid)? {
                Some(row) if row.flags.has(HsmFlags::LOST) => Some(Settled::Failed(CODE_GONE)),
                _ => Some(Settled::Done(0)),
            },
        });
    }
    if export::waiting(tx, fid)?.is_some() {
        return Ok(None);
    }
    if hsm(tx, fid)?.is_some_and(|row| row.flags.has(HsmFlags::ARCHIVED) && !row.flags.has(HsmFlags::DIRTY)) {
        return Ok(Some(Settled::Done(inode.size)));
    }
    let Some((id, key)) = export::place_of(tx, fid)? else { return Ok(Some(Settled::Left)) };
    if rules::stays(tx, fid)? {
        return Ok(Some(Settled::Left));
    }
    let prefix = links::find(tx, id)?.map_or(0, |link| link.settings.url.prefix().len());
    let code = if export::conflict(tx, id, &key)?.is_some() {
        CODE_CONFLICT
    } else if prefix + key.len() > KEY_BYTES_MAX || std::str::from_utf8(&key).is_err() {
        CODE_PATH
    } else if inode.size > EXPORT_BYTES_MAX {
        CODE_SIZE
    } else {
        CODE_INTERNAL
    };
    Ok(Some(Settled::Failed(code)))
}

/// Counts what became of files. Those that were counted before are left alone.
pub fn settle(tx: &mut dyn Txn, id: TaskId, settled: &[(Fid, Settled)], inputs: &Inputs) -> FsResult<Told> {
    let Some(mut record) = working(tx, id)? else { return Ok(Told::default()) };
    let mut told = Told::default();
    for (fid, what) in settled {
        let key = keys::under_way_file(id, *fid);
        if tx.get(Table::Tasks, &key)?.is_none() {
            continue;
        }
        tx.delete(Table::Tasks, key);
        match what {
            Settled::Done(bytes) => {
                record.counts.succeeded += 1;
                record.counts.bytes = record.counts.bytes.saturating_add(*bytes);
            }
            Settled::Failed(code) => {
                if record.kind == TaskKind::Restore {
                    load::forget_restore(tx, *fid)?;
                    told.forgotten.push(*fid);
                }
                let path = path_of(tx, *fid);
                note_failed(tx, id, &mut record, path, code);
            }
            Settled::Left => {
                record.counts.total = record.counts.total.saturating_sub(1);
                record.counts.skipped += 1;
            }
        }
    }
    put(tx, id, record, inputs);
    Ok(told)
}
