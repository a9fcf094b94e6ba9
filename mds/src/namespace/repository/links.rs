//! Links: made, changed, ended; and the directories that lead to what they bring.

use sateen_types::limits::{LINK_COUNT_MAX, REPOSITORIES_MAX};
use sateen_types::op::NewMode;
use sateen_types::repository::{
    ImportState, ImportStatus, KeyRange, LinkPath, RepositoryChange, RepositoryEvents, RepositoryState,
};
use sateen_types::{
    Credential, Fid, FileType, FsCode, FsError, FsResult, Name, Repository, RepositoryId, RepositorySettings, SessionId,
};

use crate::command::Inputs;
use crate::namespace::create::new_inode;
use crate::namespace::session::alloc_sequence;
use crate::namespace::{changelog, layout, tree};
use crate::store::codec::Record;
use crate::store::records::{Body, RepositoryRecord, Sync};
use crate::store::{ReadTxn, Table, Txn, keys};

/// Sessions of workers that are looked at; there are no more sessions.
const WORKERS_MAX: usize = 2 * crate::clients::SESSIONS_MAX;
/// Permissions of directories that nothing is said of (FSx).
pub(super) const DIRECTORY_MODE: u32 = 0o755;

/// Every link, in the order of their numbers.
pub fn all(tx: &dyn ReadTxn) -> FsResult<Vec<(RepositoryId, RepositoryRecord)>> {
    let rows = tx.scan(Table::Repositories, keys::REPOSITORY, None, 2 * REPOSITORIES_MAX)?;
    rows.iter().map(|(key, value)| Ok((keys::parse_repository(key)?, RepositoryRecord::from_bytes(value)?))).collect()
}

/// Sessions that are workers.
pub fn workers(tx: &dyn ReadTxn) -> FsResult<Vec<SessionId>> {
    let rows = tx.scan(Table::Repositories, keys::WORKER, None, WORKERS_MAX)?;
    rows.iter().map(|(key, _)| keys::parse_worker(key)).collect()
}

pub(super) fn find(tx: &dyn ReadTxn, id: RepositoryId) -> FsResult<Option<RepositoryRecord>> {
    tx.get(Table::Repositories, &keys::repository(id))?.map(|v| RepositoryRecord::from_bytes(&v)).transpose()
}

/// A link, or `NotFound`.
pub fn get(tx: &dyn ReadTxn, id: RepositoryId) -> FsResult<RepositoryRecord> {
    find(tx, id)?.ok_or_else(|| {
        FsError::new(FsCode::NotFound, format!("there is no repository {id}")).with_hint("list them: sateen repo list")
    })
}

pub(super) fn put(tx: &mut dyn Txn, id: RepositoryId, record: &RepositoryRecord) {
    tx.put(Table::Repositories, keys::repository(id), record.to_bytes());
}

/// Refuses what overlaps another link; then makes the directory, if it is missing, and the link.
pub fn create(tx: &mut dyn Txn, settings: &RepositorySettings, inputs: &Inputs) -> FsResult<Repository> {
    refuse_when_full(inputs)?;
    let others = all(tx)?;
    if others.len() >= REPOSITORIES_MAX {
        return Err(FsError::new(FsCode::NoSpace, format!("the file system has {} repositories", others.len()))
            .with_hint("link a directory further up, or end links that are not needed"));
    }
    refuse_overlap(&others, settings)?;
    let mut fids = Fids::default();
    let mut root = Fid::ROOT;
    for name in settings.path.names() {
        root = match tree::entry(tx, root, &name)? {
            Some(entry) if entry.file_type == FileType::Directory => entry.fid,
            Some(_) => {
                let what = format!("path: {name:?} of {} is not a directory", settings.path);
                return Err(FsError::new(FsCode::NotDirectory, what).with_hint("choose another path"));
            }
            None => make_directory(tx, (root, &name), &mut fids, inputs)?,
        };
    }
    let number = tree::counter(tx, keys::NEXT_REPOSITORY)?.max(1);
    tree::set_counter(tx, keys::NEXT_REPOSITORY, number + 1);
    let mut record = RepositoryRecord {
        settings: settings.clone(),
        state: RepositoryState::Creating,
        message: String::new(),
        created: inputs.now,
        root,
        import: ImportStatus::default(),
        run: 0,
        left: Vec::new(),
        next_fid: fids.next,
        synced: None,
        sync: Sync::No,
    };
    if settings.batch_import {
        queue_import(&mut record, Sync::No, inputs);
    }
    put(tx, RepositoryId(number), &record);
    Ok(record.show(RepositoryId(number)))
}

/// No object belongs to two links, and no file.
fn refuse_overlap(others: &[(RepositoryId, RepositoryRecord)], settings: &RepositorySettings) -> FsResult<()> {
    for (id, other) in others {
        let other = &other.settings;
        let what = if other.path.overlaps(&settings.path) {
            format!("path {} overlaps {}", settings.path, other.path)
        } else if other.endpoint == settings.endpoint && other.url.overlaps(&settings.url) {
            format!("url {} overlaps {}", settings.url, other.url)
        } else {
            continue;
        };
        return Err(FsError::new(FsCode::Exists, format!("{what} of repository {id}"))
            .with_hint("choose another directory and prefix; `/` can only be the one link there is"));
    }
    Ok(())
}

pub(super) fn refuse_when_full(inputs: &Inputs) -> FsResult<()> {
    if inputs.disk_low {
        return Err(FsError::new(FsCode::NoSpace, "the disk of the MDS is nearly full")
            .with_hint("make room on it or remove files"));
    }
    Ok(())
}

fn queue_import(record: &mut RepositoryRecord, sync: Sync, inputs: &Inputs) {
    record.import = ImportStatus { state: ImportState::Queued, started: Some(inputs.now), ..Default::default() };
    record.run += 1;
    record.sync = sync;
    record.left = vec![KeyRange::ALL];
}

/// Changes a link. One whose bucket has to be looked at again is not used before that: where the store is, with which keys, and
/// whether anything is written there; or what could not be used.
pub fn update(tx: &mut dyn Txn, id: RepositoryId, change: &RepositoryChange) -> FsResult<Repository> {
    let mut record = get(tx, id)?;
    refuse_deleting(id, &record)?;
    let before = record.settings.clone();
    change.apply(&mut record.settings);
    if record.settings.endpoint != before.endpoint {
        let mut others = all(tx)?;
        others.retain(|(other, _)| *other != id);
        refuse_overlap(&others, &record.settings)?;
    }
    let unusable = matches!(record.state, RepositoryState::Misconfigured | RepositoryState::Failed);
    if record.state != RepositoryState::Creating && (unusable || !looks_alike(&before, &record.settings)) {
        (record.state, record.message) = (RepositoryState::Updating, String::new());
    }
    put(tx, id, &record);
    Ok(record.show(id))
}

/// Whether a look at the bucket with these settings finds what one with those does.
fn looks_alike(these: &RepositorySettings, those: &RepositorySettings) -> bool {
    let exports = |s: &RepositorySettings| s.auto_export != RepositoryEvents::default();
    let of = |s: &RepositorySettings| (s.endpoint.clone(), s.region.clone(), s.profile.clone(), exports(s));
    of(these) == of(those)
}

fn refuse_deleting(id: RepositoryId, record: &RepositoryRecord) -> FsResult<()> {
    if record.state == RepositoryState::Deleting {
        return Err(FsError::new(FsCode::Busy, format!("repository {id} is being deleted")));
    }
    Ok(())
}

/// A worker has looked at the bucket, `with` these settings. If others are set by now the next look counts.
pub fn checked(
    tx: &mut dyn Txn,
    id: RepositoryId,
    message: &str,
    with: Option<&RepositorySettings>,
) -> FsResult<Repository> {
    let mut record = get(tx, id)?;
    let outdated = with.is_some_and(|with| !looks_alike(with, &record.settings));
    if record.state == RepositoryState::Deleting || outdated {
        return Ok(record.show(id));
    }
    let before = (record.state, record.message.clone());
    (record.state, record.message) = match message {
        _ if tree::find_inode(tx, record.root)?.is_none_or(|inode| !inode.is_dir()) => {
            let gone = format!("the directory {} is gone; end the link: sateen repo delete", record.settings.path);
            (RepositoryState::Failed, gone)
        }
        "" => (RepositoryState::Available, String::new()),
        why => (RepositoryState::Misconfigured, why.to_owned()),
    };
    if (record.state, &record.message) != (before.0, &before.1) {
        put(tx, id, &record);
    }
    Ok(record.show(id))
}

/// Queues an import, unless one is queued or runs.
pub fn start_import(tx: &mut dyn Txn, id: RepositoryId, sync: Sync, inputs: &Inputs) -> FsResult<Repository> {
    let mut record = get(tx, id)?;
    refuse_deleting(id, &record)?;
    if !matches!(record.import.state, ImportState::Queued | ImportState::Running) {
        queue_import(&mut record, sync, inputs);
        put(tx, id, &record);
    }
    Ok(record.show(id))
}

/// The import cannot go on; another one than `run` is left alone.
pub fn import_failed(tx: &mut dyn Txn, id: RepositoryId, run: u64, message: &str, inputs: &Inputs) -> FsResult<()> {
    let mut record = get(tx, id)?;
    if record.run == run && matches!(record.import.state, ImportState::Queued | ImportState::Running) {
        record.import.state = ImportState::Failed;
        record.import.message = message.to_owned();
        record.import.ended = Some(inputs.now);
        put(tx, id, &record);
    }
    Ok(())
}

/// Begins to end a link, or takes that back.
pub fn set_deleting(tx: &mut dyn Txn, id: RepositoryId, deleting: bool) -> FsResult<()> {
    let mut record = get(tx, id)?;
    if deleting {
        record.state = RepositoryState::Deleting;
        record.message = String::new();
    } else if record.state == RepositoryState::Deleting {
        // Whether it is more than that is found out by the next look at the bucket.
        record.state = RepositoryState::Creating;
    }
    put(tx, id, &record);
    Ok(())
}

/// The directories on a path that are there.
pub fn directories_on(tx: &dyn ReadTxn, path: &LinkPath) -> FsResult<Vec<Fid>> {
    let mut dirs = vec![Fid::ROOT];
    let mut at = Fid::ROOT;
    for name in path.names() {
        match tree::entry(tx, at, &name)? {
            Some(entry) if entry.file_type == FileType::Directory => at = entry.fid,
            _ => break,
        }
        dirs.push(at);
    }
    Ok(dirs)
}

/// The directories that a link depends on: its own, and those above it. None, if its own is gone.
pub fn on_path(tx: &dyn ReadTxn, link: &RepositoryRecord) -> FsResult<Vec<Fid>> {
    if link.state == RepositoryState::Failed {
        return Ok(Vec::new());
    }
    let mut dirs = directories_on(tx, &link.settings.path)?;
    dirs.push(link.root);
    Ok(dirs)
}

/// `Busy` if a link depends on a directory, which neither goes away nor elsewhere then.
pub fn refuse_linked(tx: &dyn ReadTxn, dir: Fid, name: &Name, inputs: &Inputs) -> FsResult<()> {
    if !inputs.exporting.may_be_on_path(tx, dir)? {
        return Ok(());
    }
    for (id, link) in all(tx)? {
        if on_path(tx, &link)?.contains(&dir) {
            let what =
                format!("directory {name:?} leads to {}, which repository {id} is linked to", link.settings.path);
            return Err(
                FsError::new(FsCode::Busy, what).with_hint(format!("end the link first: sateen repo delete FS {id}"))
            );
        }
    }
    Ok(())
}

/// Gives FIDs out of sequences that it takes for itself.
#[derive(Debug, Default)]
pub(super) struct Fids {
    /// As in [`RepositoryRecord::next_fid`].
    pub next: (u64, u32),
}

impl Fids {
    pub fn take(&mut self, tx: &mut dyn Txn) -> FsResult<Fid> {
        if self.next.0 == 0 || self.next.1 > Fid::SEQ_WIDTH {
            self.next = (alloc_sequence(tx)?, 1);
        }
        let fid = Fid { seq: self.next.0, oid: self.next.1, ver: 0 };
        self.next.1 += 1;
        Ok(fid)
    }
}

/// A directory of root's that nothing is said of.
pub(super) fn make_directory(
    tx: &mut dyn Txn,
    (parent, name): (Fid, &Name),
    fids: &mut Fids,
    inputs: &Inputs,
) -> FsResult<Fid> {
    let dir = tree::directory(tx, parent)?;
    if dir.nlink >= LINK_COUNT_MAX {
        return Err(FsError::new(FsCode::TooManyLinks, format!("directory {parent} has {} links", dir.nlink)));
    }
    let mode = NewMode { mode: DIRECTORY_MODE, masked: 0 };
    let inode = new_inode(&dir, &Credential::ROOT, mode, Body::empty_directory(), inputs.now);
    let fid = fids.take(tx)?;
    if parent != Fid::ROOT
        && let Some(template) = layout::own_template(tx, parent)?
    {
        tx.put(Table::DefaultLayouts, keys::fid(fid), template.to_bytes());
    }
    tree::add_inode(tx, fid, &inode)?;
    tree::insert_name(tx, (parent, name), (fid, FileType::Directory), None, inputs.now)?;
    changelog::named(tx, (parent, name), (fid, FileType::Directory), inputs.now)?;
    Ok(fid)
}
