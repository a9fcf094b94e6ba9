//! Exports as the server runs them: what is looked at, given to workers, and taken from them.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use sateen_types::limits::SKIPPED_MESSAGE_BYTES_MAX;
use sateen_types::repository::{
    Assignment, Conflict, ConflictPolicy, DeleteOutcome, DeleteResult, ExportOutcome, ExportResult, LinkPath,
    LookOutcome, Skipped, Work,
};
use sateen_types::{Credential, Fid, FsCode, FsError, FsResult, Repository, RepositoryId, SessionId, Timestamp};

use super::table::exports::{Item, Next, REFILL};
use super::{not_yours, unexpected};
use crate::fs::FileSystem;
use crate::namespace::repository::export::{self, Deletion, ExportChange, Exported, Plan, Store, Stored};
use crate::namespace::repository::{self, Answer, Change, rules};
use crate::namespace::tree;
use crate::store::ReadTxn;
use crate::store::records::{HsmRecord, Waits};

/// Parts of queues that are read before something is picked.
const REFILLS_MAX: usize = 8;
/// Pages of a tree that are walked at once.
const WALKS_MAX: usize = 16;
/// A key that is being changed is free again after about this.
const KEY_BUSY: Duration = Duration::from_millis(200);
/// A file that is being loaded is looked at again after this.
const LOADING: Duration = Duration::from_secs(1);
/// A file without a name that is read from its object is looked at again after this.
const UNNAMED: Duration = Duration::from_secs(30);
/// An object whose name waits to be exported is looked at again after this.
const NAME_WAITS: Duration = Duration::from_secs(1);
/// A link that cannot be used is looked at again after this.
const NOT_AVAILABLE: Duration = Duration::from_secs(5);

impl super::Repositories {
    /// What waits for export has changed.
    pub fn exports_changed(&self) {
        self.lock().exports.told();
        self.tell();
    }

    /// A session opens the file for writing: what a worker stores of it may not be all.
    pub fn opened_for_writing(&self, fid: Fid) {
        self.lock().exports.overtake(fid);
    }

    /// Somebody has closed these; `None`: nobody knows what.
    pub fn closed(&self, files: Option<&[Fid]>) {
        let ready = self.lock().exports.closed(files);
        if ready {
            self.tell();
        }
    }
}

/// At most as many bytes as a reason may have.
fn cut(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(SKIPPED_MESSAGE_BYTES_MAX));
    message
}

/// What waits of a link.
pub(super) struct Waiting {
    pub queued: u64,
    pub oldest: Option<Timestamp>,
}

impl Waiting {
    pub fn of(tx: &dyn ReadTxn, id: RepositoryId) -> FsResult<Waiting> {
        let oldest = export::items(tx, id, 0, 1)?.first().map(|(_, record)| record.since);
        Ok(Waiting { queued: export::count(tx, id)?, oldest })
    }
}

/// What is to be told to a worker, or what becomes of what was looked at.
type Looked = Result<Assignment, Next>;

impl FileSystem {
    async fn export_change(&self, change: ExportChange) -> FsResult<Exported> {
        match self.change(Change::Export(change)).await? {
            Answer::Export(exported) => Ok(exported),
            _ => Err(unexpected()),
        }
    }

    /// Reads parts of queues where there is room for them.
    pub(super) async fn refill_exports(&self) {
        for _ in 0..REFILLS_MAX {
            let refill = self.shared.repositories.lock().exports.refill(Instant::now());
            let Some(refill) = refill else { return };
            let question = move |tx: &dyn ReadTxn| export::items(tx, refill.id, refill.after, REFILL);
            let rows = self.ask(question).await;
            if let Err(e) = &rows {
                tracing::warn!(fs = %self.info.name, id = %refill.id, "a queue of exports cannot be read: {e}");
            }
            self.shared.repositories.lock().exports.fill(refill, rows.ok(), Instant::now());
        }
    }

    /// Whether anybody writes to the file, or may.
    fn may_be_written_by_clients(&self, fid: Fid) -> bool {
        self.shared.clients.lock().is_recovering() || self.shared.is_written(fid)
    }

    /// What a worker needs to do what was picked for it; `None` if there is nothing to do after all.
    pub(super) async fn assign_export(&self, (number, stamp): (u64, u64), item: Item) -> Option<Assignment> {
        let looked = match item.what.clone() {
            Waits::File(fid) => self.look_at((number, stamp), &item, fid).await,
            Waits::Tree { .. } => self.walk(&item).await.map(Err),
            Waits::Delete { key } => self.assign_deletion((number, stamp), &item, key).await,
        };
        let next = match looked {
            Ok(Ok(assignment)) => return Some(assignment),
            Ok(Err(next)) => next,
            Err(e) => {
                if !e.code.is_retryable() {
                    tracing::warn!(fs = %self.info.name, id = %item.id, "something cannot be exported: {e}");
                }
                self.failed(&item, None, &e.message);
                Next::Failed
            }
        };
        self.shared.repositories.lock().export_ended(number, next, Instant::now());
        None
    }

    /// An attempt has failed: with this key, if it is known.
    fn failed(&self, item: &Item, key: Option<&[u8]>, message: &str) {
        let key = key.map_or_else(|| item.name(), <[u8]>::to_vec);
        self.shared.repositories.lock().exports.failed(item, key, cut(message.to_owned()));
    }

    async fn walk(&self, item: &Item) -> FsResult<Next> {
        for _ in 0..WALKS_MAX {
            let walk = ExportChange::Walk { id: item.id, number: item.number };
            if self.export_change(walk).await? == Exported::Done {
                return Ok(Next::Done);
            }
        }
        Ok(Next::Now)
    }

    async fn assign_deletion(&self, (number, stamp): (u64, u64), item: &Item, key: Vec<u8>) -> FsResult<Looked> {
        let (id, row, of) = (item.id, item.number, key.clone());
        let question = move |tx: &dyn ReadTxn| Ok((repository::get(tx, id)?, export::deletion(tx, id, &of, row)?));
        let (link, deletion) = self.ask(question).await?;
        let work = match deletion {
            Deletion::Gone => return Ok(Err(Next::Done)),
            Deletion::Unwanted => {
                self.export_change(ExportChange::Kept { id, key, number: row }).await?;
                return Ok(Err(Next::Done));
            }
            Deletion::Wait => return Ok(Err(Next::Later(NAME_WAITS))),
            Deletion::Look => Work::Look { key },
            Deletion::Delete { etag, earlier } => Work::Delete { key, etag, earlier },
        };
        Ok(Ok(Assignment { number, repository: id, settings: link.settings, work, stamp }))
    }

    async fn look_at(&self, (number, stamp): (u64, u64), item: &Item, fid: Fid) -> FsResult<Looked> {
        // It was marked as looked at before: who opens it for writing from here on overtakes.
        let is_open = self.may_be_written_by_clients(fid);
        let look = self.shared.repositories.lock().exports.look(item);
        let found = self.ask(move |tx| export::plan(tx, fid, look)).await?;
        let store = match found {
            // What is found is all of the file only if nobody writes to it, which nobody knows yet after a restart.
            Plan::Look(..) if self.shared.clients.lock().is_recovering() => return Ok(Err(Next::Open)),
            Plan::Look(id, key) => {
                let link = self.ask(move |tx| repository::get(tx, id)).await?;
                if !self.shared.repositories.lock().exports.reserve(fid, (id, &key), number) {
                    return Ok(Err(Next::Later(KEY_BUSY)));
                }
                let (settings, work) = (link.settings, Work::Look { key });
                return Ok(Ok(Assignment { number, repository: id, settings, work, stamp }));
            }
            _ if is_open => return Ok(Err(Next::Open)),
            Plan::Store(store) => store,
            other => return self.without_worker(item, fid, other).await.map(Err),
        };
        let (id, key) = (store.id, store.export.key.clone());
        if !self.shared.repositories.lock().exports.reserve(fid, (id, &key), number) {
            return Ok(Err(Next::Later(KEY_BUSY)));
        }
        let begin = ExportChange::Begin { fid, id, key: key.clone(), number, look };
        let begun = match self.export_change(begin).await {
            Ok(Exported::Plan(plan)) => match *plan {
                Plan::Store(store) if store.id == id && store.export.key == key => Ok(store),
                // It has changed since it was looked at.
                _ => Err(Ok(Next::Now)),
            },
            Ok(_) => Err(Err(unexpected())),
            Err(e) => Err(Err(e)),
        };
        let store = match begun {
            Ok(store) => store,
            Err(next) => return next.map(Err),
        };
        let assignment = Assignment {
            number,
            repository: id,
            settings: store.settings.clone(),
            work: Work::Export(Box::new(store.export.clone())),
            stamp,
        };
        let given = self.shared.repositories.lock().exports.given(fid, number, store);
        if !given {
            self.export_change(ExportChange::NotStored { fid, number }).await?;
            return Ok(Err(Next::Open));
        }
        Ok(Ok(assignment))
    }

    /// What has to be done for a file that no worker is needed for.
    async fn without_worker(&self, item: &Item, fid: Fid, plan: Plan) -> FsResult<Next> {
        let after = |exported| if exported == Exported::Done { Next::Done } else { Next::Now };
        Ok(match plan {
            Plan::Gone => Next::Done,
            Plan::Settle => after(self.export_change(ExportChange::Settle { fid }).await?),
            Plan::Store(_) | Plan::Look(..) => Next::Now,
            Plan::Decided(id, key) => match self.export_change(ExportChange::Decide { id, key }).await {
                Ok(exported) => after(exported),
                Err(e) if matches!(e.code, FsCode::Busy | FsCode::Unavailable) => Next::Later(LOADING),
                Err(e) => return Err(e),
            },
            Plan::Skip(id, skipped) => {
                self.skip(fid, id, skipped).await?;
                Next::Done
            }
            Plan::Blocked(id) if id == item.id => Next::Later(NOT_AVAILABLE),
            Plan::Blocked(to) => {
                self.export_change(ExportChange::Move { fid, to }).await?;
                Next::Done
            }
            Plan::Behind(_) => Next::Behind,
            Plan::Load(other) => {
                if let Answer::Remote(Some(remote)) = self.change(Change::Restore { fid: other }).await?
                    && let Some(row) = self.ask(move |tx| repository::hsm(tx, other)).await?
                {
                    let mut table = self.shared.repositories.lock();
                    if table.failures(other) > 0 {
                        let what =
                            format!("{:?} must be loaded first, and cannot be", String::from_utf8_lossy(&row.key));
                        table.exports.failed(item, item.name(), what);
                    }
                    table.restore(other, row.repository, &remote, Instant::now())?;
                    drop(table);
                    self.shared.repositories.tell();
                }
                Next::Later(LOADING)
            }
            Plan::Unnamed => Next::Later(UNNAMED),
        })
    }

    async fn skip(&self, fid: Fid, id: RepositoryId, skipped: Skipped) -> FsResult<()> {
        let key = String::from_utf8_lossy(&skipped.key).into_owned();
        tracing::warn!(fs = %self.info.name, %id, %fid, key, code = skipped.code, "not exported: {}", skipped.message);
        self.export_change(ExportChange::Forget { fid, id, skipped: Box::new(skipped) }).await?;
        self.shared.repositories.lock().exports.count_skipped(id);
        Ok(())
    }

    // ---- reports ----

    /// What came of an export.
    pub(super) async fn export_finished(&self, number: u64, item: &Item, outcome: ExportOutcome) -> FsResult<()> {
        let Waits::File(fid) = item.what else { return Err(unexpected()) };
        let given = self.shared.repositories.lock().exports.store_of(fid, number);
        let reported = match given {
            Some((store, overtaken)) => self.take_export((number, item), fid, (store, overtaken), outcome).await,
            None => Ok(Next::Now),
        };
        self.export_reported(number, reported)
    }

    /// What a worker was given is not its own any more, whatever came of its report.
    fn export_reported(&self, number: u64, reported: FsResult<Next>) -> FsResult<()> {
        let next = reported.as_ref().copied().unwrap_or(Next::Failed);
        self.shared.repositories.lock().export_ended(number, next, Instant::now());
        self.shared.repositories.tell();
        reported.map(drop)
    }

    async fn take_export(
        &self,
        (number, item): (u64, &Item),
        fid: Fid,
        (store, overtaken): (Box<Store>, bool),
        outcome: ExportOutcome,
    ) -> FsResult<Next> {
        let (id, export) = (store.id, store.export);
        let after = |exported| if exported == Exported::Done { Next::Done } else { Next::Now };
        let exports = || self.shared.repositories.lock();
        match (outcome.result, outcome.object) {
            (ExportResult::Stored, Some(object)) => {
                let overtaken = overtaken || self.may_be_written_by_clients(fid);
                let copied = export.copy.is_some();
                let stored = Stored {
                    fid,
                    id,
                    key: export.key,
                    object,
                    change: store.change,
                    of: store.of,
                    attributes: (export.mode & 0o7777, export.uid, export.gid),
                    copied,
                    overtaken,
                    stamp: self.stamp().await?,
                };
                let done = self.export_change(ExportChange::Stored(Box::new(stored))).await?;
                if !overtaken && self.may_be_written_by_clients(fid) {
                    // It may have been opened when nothing was known of an object yet.
                    self.mark_opened(fid).await?;
                }
                exports().exports.count_stored(id, if copied { 0 } else { export.size });
                Ok(after(done))
            }
            (ExportResult::Stored, None) => {
                self.failed(item, Some(&export.key), "a worker stored an object and did not say which");
                Ok(Next::Failed)
            }
            (ExportResult::Conflict, object) => {
                let text = String::from_utf8_lossy(&export.key).into_owned();
                tracing::warn!(fs = %self.info.name, %id, key = text, known = export.known_etag,
                    found = ?object.as_ref().map(|o| &o.etag), "both sides have changed");
                let known_etag = export.known_etag;
                let change = ExportChange::Conflicting { fid, id, key: export.key, number, object, known_etag };
                Ok(after(self.export_change(change).await?))
            }
            (ExportResult::Changed, _) => {
                self.export_change(ExportChange::NotStored { fid, number }).await?;
                Ok(if self.may_be_written_by_clients(fid) { Next::Open } else { Next::Now })
            }
            (ExportResult::SourceGone, _) => {
                // An earlier try of the same copy may be on its way: its number is remembered.
                self.export_change(ExportChange::NotThere { id, key: export.key }).await?;
                // What is read here can be gone as well: then that is tried again and again, but not at once.
                Ok(if export.copy.is_some() { Next::NoCopy } else { Next::Failed })
            }
            (ExportResult::Failed, _) => {
                tracing::warn!(fs = %self.info.name, %id, %fid, message = outcome.message, "an export failed");
                self.failed(item, Some(&export.key), &outcome.message);
                Ok(Next::Failed)
            }
            (ExportResult::Skipped, _) => {
                self.export_change(ExportChange::NotStored { fid, number }).await?;
                let message = cut(outcome.message);
                self.skip(fid, id, Skipped { key: export.key, code: outcome.code, message }).await?;
                Ok(Next::Done)
            }
        }
    }

    /// What is under a key, of which nobody had heard what was put there.
    pub(super) async fn looked(&self, number: u64, item: &Item, outcome: LookOutcome) -> FsResult<()> {
        let place = match &item.what {
            Waits::File(fid) => self.shared.repositories.lock().exports.key_of(*fid, number),
            Waits::Delete { key } => Some((item.id, key.clone())),
            Waits::Tree { .. } => None,
        };
        let taken = match place {
            place if !outcome.message.is_empty() => {
                self.failed(item, place.as_ref().map(|(_, key)| key.as_slice()), &outcome.message);
                Ok(Next::Failed)
            }
            Some((id, key)) => self.take_look(id, key, outcome).await,
            None => Err(unexpected()),
        };
        self.export_reported(number, taken)
    }

    async fn take_look(&self, id: RepositoryId, key: Vec<u8>, outcome: LookOutcome) -> FsResult<Next> {
        let of = key.clone();
        let record = self.ask(move |tx| export::record(tx, id, &of)).await?;
        let fid = record.and_then(|record| record.given).map(|given| given.fid);
        let is_written = || fid.is_some_and(|fid| self.may_be_written_by_clients(fid));
        let overtaken = is_written();
        let LookOutcome { object, number, .. } = outcome;
        let stamp = self.stamp().await?;
        self.export_change(ExportChange::Looked { id, key, object, number, overtaken, stamp }).await?;
        if let Some(fid) = fid.filter(|_| !overtaken && is_written()) {
            // It may have been opened when nothing was known of an object yet.
            self.mark_opened(fid).await?;
        }
        Ok(Next::Now)
    }

    /// Whether the object of a file may have been stored anew without anybody having heard of it.
    pub(super) async fn is_unsettled(&self, row: &HsmRecord) -> FsResult<bool> {
        let (id, key) = (row.repository, row.key.clone());
        self.ask(move |tx| export::is_unsettled(tx, id, &key)).await
    }

    /// What came of a deletion.
    pub(super) async fn deletion_finished(&self, number: u64, item: &Item, outcome: DeleteOutcome) -> FsResult<()> {
        let Waits::Delete { key } = item.what.clone() else { return Err(unexpected()) };
        let reported = self.take_deletion(item, key, outcome).await;
        self.export_reported(number, reported)
    }

    async fn take_deletion(&self, item: &Item, key: Vec<u8>, outcome: DeleteOutcome) -> FsResult<Next> {
        let (id, row) = (item.id, item.number);
        match outcome.result {
            DeleteResult::Deleted => {
                let stamp = self.stamp().await?;
                self.export_change(ExportChange::Deleted { id, key, number: row, stamp }).await?;
                self.shared.repositories.lock().exports.count_deleted(id);
                Ok(Next::Done)
            }
            DeleteResult::Conflict => {
                let object = outcome.object;
                self.export_change(ExportChange::DeletionConflicting { id, key, number: row, object }).await?;
                Ok(Next::Done)
            }
            DeleteResult::Failed => {
                tracing::warn!(fs = %self.info.name, %id, message = outcome.message, "a deletion failed");
                self.failed(item, Some(&key), &outcome.message);
                Ok(Next::Failed)
            }
        }
    }

    /// Whether the file that is exported under this number was changed since it was given out, or may be, or is never to be archived.
    pub async fn confirm(&self, session: SessionId, number: u64) -> FsResult<bool> {
        self.touch(session)?;
        let given = {
            let table = self.shared.repositories.lock();
            table.export_of(session, number).map(|fid| (fid, table.exports.store_of(fid, number)))
        };
        let Some((fid, Some((store, overtaken)))) = given else { return Err(not_yours(number)) };
        if overtaken || self.may_be_written_by_clients(fid) {
            return Ok(true);
        }
        let question = move |tx: &dyn ReadTxn| Ok((tree::find_inode(tx, fid)?, rules::stays(tx, fid)?));
        let (now, stays) = self.ask(question).await?;
        Ok(stays || now.is_none_or(|inode| inode.change != store.change))
    }

    // ---- for administrators and owners ----

    /// Looks at everything below a path of a link, and exports what the repository does not have as it is here.
    pub async fn start_export(&self, id: RepositoryId, path: Option<LinkPath>) -> FsResult<Repository> {
        self.export_change(ExportChange::Start { id, path }).await?;
        self.repository(id).await
    }

    /// Conflicts of a link behind a key, and whether more follow.
    pub async fn conflicts(&self, id: RepositoryId, after: Vec<u8>, max: usize) -> FsResult<(Vec<Conflict>, bool)> {
        self.read(move |tx| {
            repository::get(tx, id)?;
            export::list_conflicts(tx, id, &after, max)
        })
        .await
    }

    /// Ends a conflict. Where the object stays, an import gives it its name, or its attributes to the file.
    pub async fn resolve_conflict(&self, id: RepositoryId, key: Vec<u8>, how: ConflictPolicy) -> FsResult<()> {
        self.export_change(ExportChange::Resolve { id, key, how }).await?;
        if how != ConflictPolicy::FilesystemWins {
            self.start_import(id, false).await?;
        }
        Ok(())
    }

    /// Exports a file, whatever the policy of its link.
    pub(super) async fn archive(&self, fid: Fid, who: Credential) -> FsResult<()> {
        self.export_change(ExportChange::Archive { fid, who }).await.map(drop)
    }

    /// `Busy` if something of a link waits for export.
    pub(super) async fn refuse_waiting(&self, id: RepositoryId) -> FsResult<()> {
        let count = self.ask(move |tx| export::count(tx, id)).await?;
        if count == 0 {
            return Ok(());
        }
        let what = format!("{count} changes below repository {id} are not exported yet");
        Err(FsError::new(FsCode::Busy, what).with_hint(
            "wait until they are: sateen repo status --wait; or force it: they stay in the file system only",
        ))
    }

    /// What is known of exports of a link is forgotten.
    pub(super) async fn drop_exports(&self, id: RepositoryId) -> FsResult<()> {
        while self.export_change(ExportChange::Drop { id }).await? != Exported::Done {}
        self.shared.repositories.lock().exports.remove_link(id);
        Ok(())
    }
}
