//! Data repositories in the tables: links, imports, and what is loaded of files. The rules and their reasons are in
//! `docs/decisions/0016-released-files-are-loaded-range-by-range.md`; who gets which work is decided in
//! [`crate::fs::repository`].
//!
//! A file that came from a repository has a row in `hsm` as long as it lives; while bytes of it are in the repository only, it
//! has one in `loads`, too. Neither is asked for much where there are no links: the tables are empty then.

mod agree;
mod batch;
mod conflict;
mod events;
pub mod export;
mod gone;
mod import;
mod known;
mod links;
mod load;
mod make;
mod oldest;
pub mod opened;
mod rows;
pub mod rules;
pub mod tasks;

use sateen_types::repository::{EventsDone, ImportPage, ImportStatus, ImportedObject, RepositoryChange};
use sateen_types::{
    Credential, Extent, Fid, FsCode, FsError, FsResult, HsmFlags, Layout, Remote, Repository, RepositoryId,
    RepositorySettings, SessionId,
};

use super::changelog::{self, HsmEvent};
use super::held::NOBODY;
use super::tree;
use crate::command::{Inputs, Outcome};
use crate::store::codec::Record;
use crate::store::records::{HsmRecord, LoadRecord, Sync};
use crate::store::{ReadTxn, Table, Txn, keys};

pub use gone::{Missing, missing};
pub use import::Looked;
pub use known::known;
pub use links::{all, get, refuse_linked, workers};
pub use load::{Prepared, prepared, restores};
pub use oldest::oldest;
use rows::{delete_hsm, put_hsm};
pub use rows::{file_of_key, hsm};

/// A change that has to do with repositories.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields are named for what they are")]
pub enum Change {
    /// Links a directory to a prefix.
    Create { settings: RepositorySettings },
    /// Changes settings.
    Update { id: RepositoryId, update: Box<RepositoryChange> },
    /// A worker has looked at the bucket, with these settings (`None`: not known); empty: it can be used.
    Checked { id: RepositoryId, message: String, with: Option<Box<RepositorySettings>> },
    /// Everything is to be imported again.
    StartImport { id: RepositoryId, sync: Sync },
    /// A page of the import `run`.
    Import { id: RepositoryId, run: u64, page: ImportPage, looked: Looked },
    /// Objects that the import `run`, a comparison, did not find where they were.
    Compared { id: RepositoryId, run: u64, keys: Vec<Vec<u8>>, looked: Looked },
    /// What is under keys, and under which nothing is.
    Events { id: RepositoryId, objects: Vec<ImportedObject>, gone: Vec<Vec<u8>>, looked: Looked },
    /// No stamp is given that is as high as this.
    Stamps { below: u64 },
    /// The import `run` cannot go on.
    ImportFailed { id: RepositoryId, run: u64, message: String },
    /// No work is given out for it any more.
    BeginDelete { id: RepositoryId },
    /// It stays after all.
    KeepAfterAll { id: RepositoryId },
    /// The link is gone; files stay.
    Delete { id: RepositoryId },
    /// The session is a worker's.
    Worker { session: SessionId },
    /// OSTs for a range that is to be loaded.
    Prepare { fid: Fid, range: Extent },
    /// The OSTs have the range of this version of the object.
    Loaded { fid: Fid, etag: String, range: Extent, allocated_delta: i64 },
    /// This version of the object is not there any more.
    Lost { fid: Fid, etag: String },
    /// All of it is to be loaded in the background.
    Restore { fid: Fid },
    /// Nobody wants all of it any more: it cannot be had.
    RestoreFailed { fid: Fid },
    /// Somebody opens a file for writing.
    Opened { fid: Fid },
    /// Somebody has closed it in order.
    Closed { fid: Fid },
    /// Whoever had these open for writing is gone.
    Abandoned { files: Vec<Fid> },
    /// What the OSTs have of a file goes.
    Release { fid: Fid, who: Credential },
    /// State bits are set and cleared.
    Flags { fid: Fid, who: Credential, set: HsmFlags, clear: HsmFlags },
    /// What was asked for a file and waits is taken back.
    Cancel { fid: Fid, who: Credential },
    /// What has to do with exports.
    Export(export::ExportChange),
    /// What has to do with tasks.
    Task(tasks::TaskChange),
}

/// The answer to a [`Change`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing to tell.
    Done,
    /// The link as it is now.
    Link(Box<Repository>),
    /// How far the import is.
    Import(ImportStatus),
    /// What became of [`Change::Events`].
    Events(EventsDone),
    /// Keys whose names went.
    Went(Vec<Vec<u8>>),
    /// The range can be fetched; `None`: nothing of the file is to be loaded.
    Prepared(Option<Box<Prepared>>),
    /// What is loaded of the file; `None`: all of it.
    Remote(Option<Remote>),
    /// What came of a change that has to do with exports.
    Export(export::Exported),
    /// What came of a change that has to do with tasks.
    Task(Box<tasks::Told>),
}

/// Applies a change. After an error what is in `tx` must be dropped.
pub fn apply(tx: &mut dyn Txn, change: &Change, inputs: &Inputs) -> FsResult<Outcome> {
    let answer = match change {
        Change::Create { settings } => Answer::Link(Box::new(links::create(tx, settings, inputs)?)),
        Change::Update { id, update } => Answer::Link(Box::new(links::update(tx, *id, update)?)),
        Change::Checked { id, message, with } => {
            Answer::Link(Box::new(links::checked(tx, *id, message, with.as_deref())?))
        }
        Change::StartImport { id, sync } => Answer::Link(Box::new(links::start_import(tx, *id, *sync, inputs)?)),
        Change::Import { id, run, page, looked } => {
            Answer::Import(import::page(tx, (*id, *run), page, *looked, inputs)?)
        }
        Change::Compared { id, run, keys, looked } => {
            Answer::Went(gone::compared(tx, (*id, *run), keys, *looked, inputs)?)
        }
        Change::Events { id, objects, gone, looked } => {
            Answer::Events(events::events(tx, *id, (objects, gone), *looked, inputs)?)
        }
        Change::Stamps { below } => {
            let known = tree::counter(tx, keys::NEXT_STAMP)?;
            tree::set_counter(tx, keys::NEXT_STAMP, known.max(*below));
            Answer::Done
        }
        Change::ImportFailed { id, run, message } => {
            links::import_failed(tx, *id, *run, message, inputs)?;
            Answer::Done
        }
        Change::BeginDelete { id } => {
            links::set_deleting(tx, *id, true)?;
            Answer::Done
        }
        Change::KeepAfterAll { id } => {
            links::set_deleting(tx, *id, false)?;
            Answer::Done
        }
        Change::Delete { id } => {
            tx.delete(Table::Repositories, keys::repository(*id));
            Answer::Done
        }
        Change::Worker { session } => {
            super::session::refuse_unknown(tx, *session)?;
            tx.put(Table::Repositories, keys::worker(*session), Vec::new());
            Answer::Done
        }
        Change::Prepare { fid, range } => Answer::Prepared(load::prepare(tx, *fid, *range, inputs)?.map(Box::new)),
        Change::Loaded { fid, etag, range, allocated_delta } => {
            let left = load::loaded(tx, *fid, etag, *range, *allocated_delta)?;
            if left.is_none() {
                changelog::hsm(tx, *fid, HsmEvent::Restore, inputs.now)?;
            }
            Answer::Remote(left)
        }
        Change::Lost { fid, etag } => {
            load::lost(tx, *fid, etag)?;
            Answer::Done
        }
        Change::Restore { fid } => Answer::Remote(load::restore(tx, *fid)?),
        Change::RestoreFailed { fid } => {
            load::forget_restore(tx, *fid)?;
            Answer::Done
        }
        Change::Opened { fid } => {
            opened::open(tx, *fid)?;
            Answer::Done
        }
        Change::Closed { fid } => {
            opened::close(tx, *fid, inputs)?;
            Answer::Done
        }
        Change::Abandoned { files } => {
            opened::abandon(tx, files, inputs)?;
            Answer::Done
        }
        Change::Release { fid, who } => {
            load::release(tx, *fid, who, inputs)?;
            changelog::hsm(tx, *fid, HsmEvent::Release, inputs.now)?;
            Answer::Done
        }
        Change::Flags { fid, who, set, clear } => {
            rules::change(tx, *fid, who, (*set, *clear), inputs)?;
            Answer::Done
        }
        Change::Cancel { fid, who } => {
            load::cancel(tx, *fid, who, inputs)?;
            Answer::Done
        }
        Change::Export(change) => Answer::Export(export::apply(tx, change, inputs)?),
        Change::Task(change) => Answer::Task(Box::new(tasks::apply(tx, change, inputs)?)),
    };
    if changes_links(change) {
        inputs.exporting.links_changed(tx)?;
    }
    Ok(Outcome::Repository(answer))
}

/// Whether it changes which links there are, or what they carry over.
fn changes_links(change: &Change) -> bool {
    matches!(change, Change::Create { .. } | Change::Update { .. } | Change::Delete { .. })
}

/// Files that the change replaces the data of, which must not be open: whoever applies it says which are.
pub fn victims(tx: &dyn ReadTxn, change: &Change) -> FsResult<Vec<Fid>> {
    match change {
        Change::Import { id, page, .. } => import::victims(tx, *id, &page.objects),
        Change::Compared { id, keys, .. } => gone::victims(tx, *id, keys),
        Change::Events { id, objects, gone, .. } => {
            let mut found = import::victims(tx, *id, objects)?;
            found.extend(gone::victims(tx, *id, gone)?);
            found.sort_unstable();
            found.dedup();
            Ok(found)
        }
        Change::Release { fid, .. } => Ok(vec![*fid]),
        Change::Task(tasks::TaskChange::Page { id }) => tasks::victims(tx, *id, false),
        Change::Task(tasks::TaskChange::Retry { id }) => tasks::victims(tx, *id, true),
        Change::Export(change) => Ok(export::victim(tx, change)?.into_iter().collect()),
        _ => Ok(Vec::new()),
    }
}

/// Keys of objects that the change tells of, with its link and the stamp from before they were looked at: whoever applies it says which
/// of them are left alone.
pub fn objects(change: &Change) -> Option<(RepositoryId, u64, Vec<&[u8]>)> {
    match change {
        Change::Import { id, page, looked, .. } => {
            Some((*id, looked.stamp, page.objects.iter().map(|o| o.key.as_slice()).collect()))
        }
        Change::Compared { id, keys, looked, .. } => {
            Some((*id, looked.stamp, keys.iter().map(Vec::as_slice).collect()))
        }
        Change::Events { id, objects, gone, looked } => {
            let keys = objects.iter().map(|o| o.key.as_slice()).chain(gone.iter().map(Vec::as_slice));
            Some((*id, looked.stamp, keys.collect()))
        }
        _ => None,
    }
}

/// Files of which the change has to know whether anybody has them open for writing.
pub fn maybe_opened(change: &Change) -> &[Fid] {
    match change {
        Change::Closed { fid } => std::slice::from_ref(fid),
        Change::Abandoned { files } => files,
        _ => &[],
    }
}

/// Directories in which the change may make names, or whose attributes it may change.
pub fn touched(tx: &dyn ReadTxn, change: &Change) -> FsResult<Vec<(Fid, SessionId)>> {
    let dirs = match change {
        Change::Create { settings } => links::directories_on(tx, &settings.path)?,
        Change::Import { id, page, .. } => import::directories(tx, *id, page.objects.iter().map(|o| o.key.as_slice()))?,
        Change::Compared { id, keys, .. } => import::directories(tx, *id, keys.iter().map(Vec::as_slice))?,
        Change::Events { id, objects, gone, .. } => {
            let keys = objects.iter().map(|o| o.key.as_slice()).chain(gone.iter().map(Vec::as_slice));
            import::directories(tx, *id, keys)?
        }
        Change::Export(change) => export::touched(tx, change)?,
        Change::Task(tasks::TaskChange::Page { id }) => tasks::directories(tx, *id)?,
        _ => Vec::new(),
    };
    Ok(dirs.into_iter().map(|dir| (dir, NOBODY)).collect())
}

/// A link is not ended after all.
pub fn keep_after_all(tx: &mut dyn Txn, id: RepositoryId) -> FsResult<()> {
    links::set_deleting(tx, id, false)
}

/// What is loaded of a file that is not all there.
pub fn loads(tx: &dyn ReadTxn, fid: Fid) -> FsResult<Option<LoadRecord>> {
    tx.get(Table::Loads, &keys::fid(fid))?.map(|v| LoadRecord::from_bytes(&v)).transpose()
}

/// Which bytes of a file are in its repository only; `None`: none.
pub fn remote(tx: &dyn ReadTxn, fid: Fid) -> FsResult<Option<Remote>> {
    Ok(loads(tx, fid)?.map(|load| load.remote))
}

/// Layout of a file and which bytes of it are in its repository only, of one moment.
pub fn layout_and_remote(tx: &dyn ReadTxn, fid: Fid) -> FsResult<(Layout, Option<Remote>)> {
    Ok((super::layout::of_file(tx, fid)?, remote(tx, fid)?))
}

/// Nothing of the file is to be loaded any more.
fn delete_loads(tx: &mut dyn Txn, fid: Fid) -> FsResult<()> {
    if let Some(load) = loads(tx, fid)? {
        tx.delete(Table::Loads, keys::fid(fid));
        if load.restore {
            tx.delete(Table::Repositories, keys::restore(fid));
        }
    }
    Ok(())
}

/// The data of a file changed here.
pub fn written(tx: &mut dyn Txn, fid: Fid) -> FsResult<()> {
    if let Some(mut row) = hsm(tx, fid)?
        && !row.flags.has(HsmFlags::DIRTY)
    {
        row.flags = row.flags.set(HsmFlags::DIRTY, true);
        put_hsm(tx, fid, &row)?;
    }
    Ok(())
}

/// Mode or owner of a file were changed here: an import of an object without other data leaves them.
pub fn attributes_set(tx: &mut dyn Txn, fid: Fid) -> FsResult<()> {
    match hsm(tx, fid)? {
        Some(row) if !row.attributes_changed => put_hsm(tx, fid, &HsmRecord { attributes_changed: true, ..row }),
        _ => Ok(()),
    }
}

/// The time of a file's data was set. What a client has written and not told is not told any more then, or without its time: so a
/// file of which anything is loaded counts as changed.
pub fn time_set(tx: &mut dyn Txn, fid: Fid) -> FsResult<()> {
    match loads(tx, fid)? {
        Some(load) if load.remote.loaded().is_empty() => Ok(()),
        _ => written(tx, fid),
    }
}

/// A file gets another size. To 0: nothing is loaded any more. To another one it must be loaded in full.
pub fn resized(tx: &mut dyn Txn, fid: Fid, size: u64) -> FsResult<()> {
    let Some(mut row) = hsm(tx, fid)? else { return Ok(()) };
    if loads(tx, fid)?.is_some() {
        if size > 0 {
            return Err(FsError::new(FsCode::Unavailable, format!("{fid} is not loaded in full yet"))
                .with_hint("it is being loaded; see: lfs hsm_action"));
        }
        delete_loads(tx, fid)?;
    }
    row.flags = row.flags.set(HsmFlags::RELEASED, false).set(HsmFlags::DIRTY, true);
    put_hsm(tx, fid, &row)
}

/// The inode is gone.
pub fn destroyed(tx: &mut dyn Txn, fid: Fid) -> FsResult<()> {
    export::destroyed(tx, fid)?;
    rules::destroyed(tx, fid)?;
    delete_hsm(tx, fid)?;
    delete_loads(tx, fid)
}

/// The session is over.
pub fn session_ended(tx: &mut dyn Txn, session: SessionId) -> FsResult<()> {
    if tx.get(Table::Repositories, &keys::worker(session))?.is_some() {
        tx.delete(Table::Repositories, keys::worker(session));
    }
    Ok(())
}
