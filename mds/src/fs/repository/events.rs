//! What workers tell of changes of buckets: messages of events, and pages of imports.

use std::sync::Arc;
use std::time::Instant;

use sateen_types::limits::IMPORT_PAGE_OBJECTS_MAX;
use sateen_types::repository::{EventsDone, EventsPage, ImportDone, ImportPage, ImportState, ImportedObject, KeyRange};
use sateen_types::{FsCode, FsError, FsResult, RepositoryId, SessionId, Timestamp};

use super::table::Task;
use super::{clock_micros, not_yours, unexpected};
use crate::fs::FileSystem;
use crate::namespace::repository::{self, Answer, Change, Looked};
use crate::store::ReadTxn;
use crate::store::records::Sync;

/// Known objects that one change of a comparison looks at.
const COMPARED_MAX: usize = IMPORT_PAGE_OBJECTS_MAX;

impl FileSystem {
    /// A stamp above all that were given.
    pub async fn stamp(&self) -> FsResult<u64> {
        loop {
            let below = match self.shared.repositories.stamps.lock().next(clock_micros()) {
                Ok(stamp) => return Ok(stamp),
                Err(below) => below,
            };
            self.change(Change::Stamps { below }).await?;
            self.shared.repositories.stamps.lock().reserved(below);
        }
    }

    /// Refuses a stamp that was never given.
    fn check_stamp(&self, stamp: u64) -> FsResult<()> {
        let last = self.shared.repositories.stamps.lock().last();
        if stamp > last {
            return Err(FsError::new(FsCode::Invalid, format!("stamp: {stamp} was not given, the last one is {last}"))
                .with_hint("send the stamp of the assignment, or of the last reply"));
        }
        Ok(())
    }

    /// Which of these objects, as a listing tells of them, an import need not look at.
    pub async fn known(&self, session: SessionId, number: u64, objects: Vec<ImportedObject>) -> FsResult<Vec<bool>> {
        self.touch(session)?;
        let import = self.shared.repositories.lock().import_of(session, number);
        let (id, _, _) = import.ok_or_else(|| not_yours(number))?;
        self.read(move |tx| repository::known(tx, id, &objects)).await
    }

    /// One page of an import; durable when it is answered.
    pub async fn import(
        self: &Arc<Self>,
        session: SessionId,
        number: u64,
        mut page: ImportPage,
    ) -> FsResult<ImportDone> {
        self.touch(session)?;
        let repositories = &self.shared.repositories;
        let (id, run, given) = repositories.lock().import_of(session, number).ok_or_else(|| not_yours(number))?;
        self.check_stamp(page.stamp)?;
        if page.stamp == 0 {
            // A worker of before there were stamps: it has listed since it was given the import.
            page.stamp = given;
            if repositories.deleted.lock().is_too_old(given) {
                return Err(FsError::new(
                    FsCode::Unavailable,
                    "this worker knows no stamps, and much was deleted since",
                )
                .with_hint("use the sateen-dra-sync of this version"));
            }
        }
        if repositories.deleted.lock().is_too_old(page.stamp) {
            let link = self.ask(move |tx| repository::get(tx, id)).await?;
            return Ok(ImportDone { status: link.import, stamp: self.stamp().await?, again: true });
        }
        let looked = Looked { stamp: page.stamp, heard: self.stamp().await? };
        let fs = Arc::clone(self);
        // To its end, also if the worker goes away: a page is one thing.
        let run = tokio::spawn(async move { fs.take_page(session, number, (id, run), page, looked).await });
        let status =
            run.await.map_err(|e| FsError::new(FsCode::Internal, format!("a page of {number} failed: {e}")))??;
        Ok(ImportDone { status, stamp: self.stamp().await?, again: false })
    }

    async fn take_page(
        &self,
        session: SessionId,
        number: u64,
        (id, run): (RepositoryId, u64),
        page: ImportPage,
        looked: Looked,
    ) -> FsResult<sateen_types::repository::ImportStatus> {
        let link = self.ask(move |tx| repository::get(tx, id)).await?;
        if link.sync != Sync::No && link.run == run {
            self.compare((id, run), link.left, &page, looked).await?;
        }
        let Answer::Import(status) = self.change(Change::Import { id, run, page, looked }).await? else {
            return Err(unexpected());
        };
        let repositories = &self.shared.repositories;
        repositories.seen.lock().entry(id).and_modify(|seen| seen.objects = status.objects);
        // An import that is limited to a prefix is done before the listing is.
        if status.state == ImportState::Done {
            // Reported and done: what is known of it goes.
            let _ = repositories.lock().begin_finish(session, number, |_| true);
            self.reload_jobs(id).await?;
            repositories.lock().done(number);
            repositories.tasks.notify_one();
            tracing::info!(fs = %self.info.name, %id, objects = status.objects, created = status.created,
                changed = status.changed, skipped = status.skipped, "an import is complete");
        }
        Ok(status)
    }

    /// Before a page of a comparison is taken: what is known of its range, as far as that was left, and is not on it, is gone.
    async fn compare(
        &self,
        (id, run): (RepositoryId, u64),
        left: Vec<KeyRange>,
        page: &ImportPage,
        looked: Looked,
    ) -> FsResult<()> {
        let mut listed: Vec<Vec<u8>> = page.objects.iter().map(|o| o.key.clone()).collect();
        listed.extend(page.skipped.iter().map(|s| s.key.clone()));
        listed.extend(page.known.iter().cloned());
        listed.sort_unstable();
        let listed = Arc::new(listed);
        let mut ranges: Vec<KeyRange> =
            left.iter().map(|left| left.and(&page.range())).filter(|range| !range.is_empty()).collect();
        let mut went = 0;
        while let Some(range) = ranges.pop() {
            let (listed, of) = (listed.clone(), range.clone());
            let question = move |tx: &dyn ReadTxn| repository::missing(tx, id, &of, &listed, COMPARED_MAX);
            let missing = self.read(question).await?;
            if !missing.keys.is_empty() {
                let change = Change::Compared { id, run, keys: missing.keys, looked };
                let Answer::Went(keys) = self.change(change).await? else { return Err(unexpected()) };
                went += keys.len();
            }
            ranges.extend(missing.after.map(|after| KeyRange { after, ..range }));
        }
        if went > 0 {
            tracing::info!(fs = %self.info.name, %id, names = went, "names went whose objects are gone");
        }
        Ok(())
    }

    /// What is under keys of a bucket, as a worker has seen it; durable when it is answered.
    pub async fn events(self: &Arc<Self>, session: SessionId, page: EventsPage) -> FsResult<EventsDone> {
        self.touch(session)?;
        self.know_worker(session).await?;
        let (id, repositories) = (page.repository, &self.shared.repositories);
        if page.number != 0 && !repositories.lock().heard(session, page.number, id, Instant::now()) {
            return Err(not_yours(page.number));
        }
        if !page.message.is_empty() {
            repositories.lock().doubt(&Task::Watch(id), Instant::now());
        }
        if page.number != 0 || !page.message.is_empty() {
            repositories.watched.lock().insert(id, (Timestamp::now(), page.message));
        }
        if page.objects.is_empty() && page.gone.is_empty() {
            return Ok(EventsDone { stamp: self.stamp().await?, ..EventsDone::default() });
        }
        self.check_stamp(page.stamp)?;
        if repositories.deleted.lock().is_too_old(page.stamp) {
            let later = page.objects.into_iter().map(|o| o.key).chain(page.gone).collect();
            return Ok(EventsDone { stamp: self.stamp().await?, later, ..EventsDone::default() });
        }
        let looked = Looked { stamp: page.stamp, heard: self.stamp().await? };
        let change = Change::Events { id, objects: page.objects, gone: page.gone, looked };
        let Answer::Events(done) = self.change(change).await? else { return Err(unexpected()) };
        if done.created + done.changed + done.deleted > 0 {
            tracing::debug!(fs = %self.info.name, %id, created = done.created, changed = done.changed,
                deleted = done.deleted, "a bucket has changed");
        }
        Ok(EventsDone { stamp: self.stamp().await?, ..done })
    }
}
