//! The walk of a task: names are looked at a page at a time, directories in the order in which they are found. Where it is, is in the
//! tables: what is left is a row for each directory, in memory is a page.
//!
//! A name that is made, or moved, while the walk goes on may be left out or found twice; a file that is found twice has nothing left to be
//! done the second time.

use sateen_types::repository::{TaskId, TaskKind};
use sateen_types::{Credential, Fid, FileType, FsCode, FsError, FsResult, HsmFlags, Timestamp};

use super::{CODE_BUSY, CODE_INTERNAL, CODE_STORE, Told, note_failed, path_of, push_todo, put, under_way, working};
use crate::command::Inputs;
use crate::namespace::changelog::{self, HsmEvent};
use crate::namespace::repository::export::{self, ExportChange};
use crate::namespace::repository::{hsm, links, load, loads, rules};
use crate::namespace::tree;
use crate::store::codec::Record;
use crate::store::keys::tasks as task_keys;
use crate::store::records::{HsmRecord, IndexEntry, Inode, TaskRecord, TodoRecord, UnderWayRecord};
use crate::store::{Overlay, ReadTxn, Table, Txn, keys};

/// Names that are looked at in one transaction.
pub const PAGE: usize = 256;
/// Seconds until a file that is in use is given up.
const USED_MAX: i64 = 10;
/// Seconds of a day.
const DAY: i64 = 86_400;

/// What is looked at next.
#[derive(Debug, Default, PartialEq, Eq)]
struct Page {
    /// Files, directories and symbolic links, in order.
    files: Vec<Fid>,
    /// Directories that were found.
    found: Vec<Fid>,
    /// Rows that are done.
    done: Vec<u64>,
    /// One that is not.
    goes_on: Option<(u64, TodoRecord)>,
}

fn next(tx: &dyn ReadTxn, id: TaskId) -> FsResult<Page> {
    let mut page = Page::default();
    let mut seen = 0;
    for (key, value) in tx.scan(Table::Tasks, &task_keys::todo(id), None, PAGE)? {
        let number = task_keys::parse_number(&key)?;
        let (dir, after) = match TodoRecord::from_bytes(&value)? {
            TodoRecord::Directory { dir, after } => (dir, after),
            TodoRecord::File(fid) => {
                page.files.push(fid);
                page.done.push(number);
                seen += 1;
                continue;
            }
            TodoRecord::Import { .. } => break,
        };
        let room = PAGE.saturating_sub(seen);
        if room == 0 {
            break;
        }
        if tree::find_inode(tx, dir)?.is_none_or(|inode| !inode.is_dir()) {
            page.done.push(number);
            continue;
        }
        if after == 0 {
            page.files.push(dir);
            seen += 1;
        }
        let rows = tx.scan(Table::DirIndex, &keys::fid(dir), Some(&keys::dirindex(dir, after)), room)?;
        let (last, mut at) = (rows.len() < room, after);
        for (key, value) in rows {
            let entry = IndexEntry::from_bytes(&value)?;
            at = keys::parse_dirindex(&key)?.1;
            seen += 1;
            match entry.file_type {
                FileType::Directory => page.found.push(entry.fid),
                FileType::Regular | FileType::Symlink => page.files.push(entry.fid),
                _ => {}
            }
        }
        if last {
            page.done.push(number);
        } else {
            page.goes_on = Some((number, TodoRecord::Directory { dir, after: at }));
            break;
        }
    }
    Ok(page)
}

/// Files whose data the next page gives up; `again`: those that were in use.
pub fn victims(tx: &dyn ReadTxn, id: TaskId, again: bool) -> FsResult<Vec<Fid>> {
    let Some(record) = working(tx, id)?.filter(|r| r.kind == TaskKind::Release) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    let files = if again { under_way(tx, id)?.into_iter().map(|(fid, _)| fid).collect() } else { next(tx, id)?.files };
    for fid in files {
        if let Some((inode, row)) = known(tx, fid)?
            && may_release(&inode, &row, oldest(&record))
        {
            found.push(fid);
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Looks at the next names.
pub fn page(tx: &mut dyn Txn, id: TaskId, inputs: &Inputs) -> FsResult<Told> {
    let Some(mut record) = working(tx, id)? else { return Ok(Told::default()) };
    let page = next(tx, id)?;
    for number in page.done {
        tx.delete(Table::Tasks, task_keys::todo_item(id, number));
    }
    if let Some((number, todo)) = page.goes_on {
        tx.put(Table::Tasks, task_keys::todo_item(id, number), todo.to_bytes());
    }
    for dir in page.found {
        push_todo(tx, id, &mut record, &TodoRecord::Directory { dir, after: 0 });
    }
    let mut told = Told::default();
    for fid in page.files {
        match record.kind {
            TaskKind::Release => release(tx, id, &mut record, fid, inputs, &mut told)?,
            TaskKind::Restore => restore(tx, id, &mut record, fid, inputs, &mut told)?,
            TaskKind::Export => export(tx, id, &mut record, fid, inputs)?,
            TaskKind::Import => {}
        }
    }
    put(tx, id, record, inputs);
    Ok(told)
}

/// A regular file that came from a repository, or went there, with what its owner has decided.
fn known(tx: &dyn ReadTxn, fid: Fid) -> FsResult<Option<(Inode, HsmRecord)>> {
    let Some(inode) = tree::find_inode(tx, fid)?.filter(Inode::is_regular) else { return Ok(None) };
    let Some(mut row) = hsm(tx, fid)? else { return Ok(None) };
    row.flags = row.flags | rules::of(tx, fid)?;
    Ok(Some((inode, row)))
}

/// All of `f`, or nothing.
fn attempt<T>(tx: &mut dyn Txn, f: impl FnOnce(&mut dyn Txn) -> FsResult<T>) -> FsResult<T> {
    let (done, changes) = {
        let before: &dyn ReadTxn = &*tx;
        let mut after = Overlay::new(before);
        let done = f(&mut after)?;
        (done, after.into_changes())
    };
    changes.replay(tx);
    Ok(done)
}

// ---- release ----

/// Nothing that was used at this time or later is released; `None`: age does not matter.
fn oldest(record: &TaskRecord) -> Option<Timestamp> {
    let days = i64::from(record.days);
    let seconds = record.created.seconds.saturating_sub(days.saturating_mul(DAY));
    (days > 0).then_some(Timestamp { seconds, ..record.created })
}

/// When a file was last used.
pub(in crate::namespace::repository) fn last_use(inode: &Inode) -> Timestamp {
    inode.atime.max(inode.mtime).max(inode.ctime)
}

/// Whether a file has something to give back that its repository has, and was not used since then.
pub(in crate::namespace::repository) fn may_release(inode: &Inode, row: &HsmRecord, before: Option<Timestamp>) -> bool {
    let whole = row.flags.has(HsmFlags::EXISTS | HsmFlags::ARCHIVED);
    let never = [HsmFlags::DIRTY, HsmFlags::LOST, HsmFlags::NO_RELEASE].into_iter().any(|flag| row.flags.has(flag));
    let something = inode.allocated > 0 || row.size > 0 && !row.flags.has(HsmFlags::RELEASED);
    whole && !never && something && before.is_none_or(|before| last_use(inode) < before)
}

fn release(
    tx: &mut dyn Txn,
    id: TaskId,
    record: &mut TaskRecord,
    fid: Fid,
    inputs: &Inputs,
    told: &mut Told,
) -> FsResult<()> {
    let found = known(tx, fid)?.filter(|(inode, row)| may_release(inode, row, oldest(record)));
    let Some((inode, _)) = found else {
        if tree::find_inode(tx, fid)?.is_some_and(|inode| inode.is_regular()) {
            record.counts.skipped += 1;
        }
        return Ok(());
    };
    if is_under_way(tx, id, fid)? {
        // By another name.
        return Ok(());
    }
    record.counts.total += 1;
    match give_up_data(tx, fid, inputs) {
        Ok(()) => {
            record.counts.succeeded += 1;
            record.counts.bytes = record.counts.bytes.saturating_add(inode.allocated);
            told.forgotten.push(fid);
        }
        // Its close may be on its way.
        Err(e) if is_used(&e) => note_under_way(tx, id, fid, inputs),
        Err(_) => {
            let path = path_of(tx, fid);
            note_failed(tx, id, record, path, CODE_INTERNAL);
        }
    }
    Ok(())
}

fn give_up_data(tx: &mut dyn Txn, fid: Fid, inputs: &Inputs) -> FsResult<()> {
    attempt(tx, |tx| {
        load::release(tx, fid, &Credential::ROOT, inputs)?;
        changelog::hsm(tx, fid, HsmEvent::Release, inputs.now)
    })
}

/// Whether a file could not be released because somebody has it open, or had it.
fn is_used(e: &FsError) -> bool {
    matches!(e.code, FsCode::Busy | FsCode::Invalid) || e.code.is_retryable()
}

/// Tries again to release what was in use. After a while it is given up.
pub fn retry(tx: &mut dyn Txn, id: TaskId, inputs: &Inputs) -> FsResult<Told> {
    let Some(mut record) = working(tx, id)?.filter(|r| r.kind == TaskKind::Release) else { return Ok(Told::default()) };
    let mut told = Told::default();
    for (fid, row) in under_way(tx, id)? {
        let found = known(tx, fid)?.filter(|(inode, row)| may_release(inode, row, oldest(&record)));
        let Some((inode, _)) = found else {
            // It was changed, removed, or released by somebody else.
            record.counts.total = record.counts.total.saturating_sub(1);
            record.counts.skipped += 1;
            tx.delete(Table::Tasks, task_keys::under_way_file(id, fid));
            continue;
        };
        match give_up_data(tx, fid, inputs) {
            Ok(()) => {
                record.counts.succeeded += 1;
                record.counts.bytes = record.counts.bytes.saturating_add(inode.allocated);
                told.forgotten.push(fid);
            }
            Err(e) if is_used(&e) && inputs.now.seconds.saturating_sub(row.since.seconds) < USED_MAX => continue,
            Err(e) => {
                let path = path_of(tx, fid);
                note_failed(tx, id, &mut record, path, if is_used(&e) { CODE_BUSY } else { CODE_INTERNAL });
            }
        }
        tx.delete(Table::Tasks, task_keys::under_way_file(id, fid));
    }
    put(tx, id, record, inputs);
    Ok(told)
}

/// Directories whose names the next page looks at, where names matter that nobody has told yet.
pub fn directories(tx: &dyn ReadTxn, id: TaskId) -> FsResult<Vec<Fid>> {
    if working(tx, id)?.is_none_or(|r| r.kind != TaskKind::Export) {
        return Ok(Vec::new());
    }
    let rows = tx.scan(Table::Tasks, &task_keys::todo(id), None, PAGE)?;
    let dir = |(_, value): &(Vec<u8>, Vec<u8>)| match TodoRecord::from_bytes(value) {
        Ok(TodoRecord::Directory { dir, .. }) => Some(Ok(dir)),
        Ok(_) => None,
        Err(e) => Some(Err(e)),
    };
    rows.iter().filter_map(dir).collect()
}

// ---- restore ----

fn restore(
    tx: &mut dyn Txn,
    id: TaskId,
    record: &mut TaskRecord,
    fid: Fid,
    inputs: &Inputs,
    told: &mut Told,
) -> FsResult<()> {
    let Some((_, row)) = known(tx, fid)? else {
        if tree::find_inode(tx, fid)?.is_some_and(|inode| inode.is_regular()) {
            record.counts.skipped += 1;
        }
        return Ok(());
    };
    if is_under_way(tx, id, fid)? {
        // By another name.
        return Ok(());
    }
    record.counts.total += 1;
    if loads(tx, fid)?.is_none() {
        record.counts.succeeded += 1;
        return Ok(());
    }
    if links::find(tx, row.repository)?.is_none() {
        let path = path_of(tx, fid);
        note_failed(tx, id, record, path, CODE_STORE);
        return Ok(());
    }
    if let Some(remote) = load::restore(tx, fid)? {
        note_under_way(tx, id, fid, inputs);
        told.restores.push((fid, row.repository, remote));
    }
    Ok(())
}

fn is_under_way(tx: &dyn ReadTxn, id: TaskId, fid: Fid) -> FsResult<bool> {
    Ok(tx.get(Table::Tasks, &task_keys::under_way_file(id, fid))?.is_some())
}

fn note_under_way(tx: &mut dyn Txn, id: TaskId, fid: Fid, inputs: &Inputs) {
    tx.put(Table::Tasks, task_keys::under_way_file(id, fid), UnderWayRecord { since: inputs.now }.to_bytes());
}

// ---- export ----

fn export(tx: &mut dyn Txn, id: TaskId, record: &mut TaskRecord, fid: Fid, inputs: &Inputs) -> FsResult<()> {
    if is_under_way(tx, id, fid)? || tree::find_inode(tx, fid)?.is_none() {
        return Ok(());
    }
    if export::place_of(tx, fid)?.is_none() || rules::stays(tx, fid)? {
        record.counts.skipped += u64::from(tree::inode(tx, fid)?.is_regular());
        return Ok(());
    }
    record.counts.total += 1;
    let archive = ExportChange::Archive { fid, who: Credential::ROOT };
    match attempt(tx, |tx| export::apply(tx, &archive, inputs)) {
        Ok(_) => note_under_way(tx, id, fid, inputs),
        Err(e) if e.code == FsCode::NoSpace => return Err(e),
        Err(_) => {
            let path = path_of(tx, fid);
            note_failed(tx, id, record, path, CODE_INTERNAL);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sateen_types::RepositoryId;

    use super::*;
    use crate::namespace::create::new_inode;
    use crate::store::records::Body;

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    fn file(flags: HsmFlags, allocated: u64) -> (Inode, HsmRecord) {
        let mode = sateen_types::op::NewMode { mode: 0o644, masked: 0 };
        let mut inode = new_inode(&directory(), &Credential::ROOT, mode, Body::Regular, at(100));
        inode.allocated = allocated;
        let row = HsmRecord {
            repository: RepositoryId(1),
            key: b"k".to_vec(),
            etag: "e".to_owned(),
            size: 10,
            modified: at(1),
            flags,
            stamp: 0,
            attributes_changed: false,
        };
        (inode, row)
    }

    fn directory() -> Inode {
        Inode {
            mode: 0o755,
            uid: 0,
            gid: 0,
            nlink: 2,
            size: 0,
            allocated: 0,
            atime: at(0),
            mtime: at(0),
            ctime: at(0),
            btime: at(0),
            change: 1,
            acl: None,
            default_acl: None,
            has_capabilities: false,
            body: Body::empty_directory(),
        }
    }

    #[test]
    fn only_what_the_repository_has_as_it_is_and_is_old_enough_is_released() {
        let whole = HsmFlags::EXISTS | HsmFlags::ARCHIVED;
        let may = |flags, allocated, before: Option<i64>| {
            let (inode, row) = file(flags, allocated);
            may_release(&inode, &row, before.map(at))
        };
        assert!(may(whole, 10, None));
        assert!(may(whole | HsmFlags::RELEASED, 5, None), "a part of it is here");
        assert!(!may(whole | HsmFlags::RELEASED, 0, None), "nothing of it is here");
        for flag in [HsmFlags::DIRTY, HsmFlags::LOST, HsmFlags::NO_RELEASE] {
            assert!(!may(whole | flag, 10, None), "{flag}");
        }
        assert!(!may(HsmFlags::EXISTS, 10, None), "not archived");
        assert!(may(whole, 10, Some(101)) && !may(whole, 10, Some(100)) && !may(whole, 10, Some(99)));
        let (mut inode, row) = file(whole, 10);
        inode.atime = at(500);
        assert!(!may_release(&inode, &row, Some(at(500))) && may_release(&inode, &row, Some(at(501))));
    }
}
