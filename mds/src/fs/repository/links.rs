//! Links, for administrators.

use std::sync::Arc;
use std::time::Instant;

use sateen_types::repository::{ExportStatus, RepositoryChange};
use sateen_types::{FsCode, FsError, FsResult, Repository, RepositoryId, RepositorySettings};

use super::export::Waiting;
use super::{DRAIN_WAIT, unexpected};
use crate::fs::FileSystem;
use crate::namespace::repository::{self, Answer, Change, export};
use crate::store::records::{RepositoryRecord, SkippedRecord, Sync};
use crate::store::{ReadTxn, Table, keys};

/// Files looked at per read, to find those that a link would leave without their bytes.
const PAGE: usize = 4096;

impl FileSystem {
    async fn link(&self, change: Change) -> FsResult<Repository> {
        match self.change(change).await? {
            Answer::Link(link) => {
                self.reload_jobs(link.id).await?;
                Ok(self.with_memory(*link))
            }
            _ => Err(unexpected()),
        }
    }

    /// Links a directory to a prefix; makes the directory if it is missing.
    pub async fn create_repository(&self, settings: RepositorySettings) -> FsResult<Repository> {
        let link = self.link(Change::Create { settings }).await?;
        tracing::info!(fs = %self.info.name, id = %link.id, path = %link.settings.path, url = %link.settings.url,
            "a repository was linked");
        Ok(link)
    }

    /// Changes a link. Its bucket is looked at again at once where that matters, see [`repository::Change::Update`].
    pub async fn update_repository(&self, id: RepositoryId, update: RepositoryChange) -> FsResult<Repository> {
        self.link(Change::Update { id, update: Box::new(update) }).await
    }

    /// One link.
    pub async fn repository(&self, id: RepositoryId) -> FsResult<Repository> {
        let links = self.shown(move |tx| Ok(vec![(id, repository::get(tx, id)?)])).await?;
        links.into_iter().next().ok_or_else(unexpected)
    }

    /// With what only the server that runs knows.
    fn with_memory(&self, mut link: Repository) -> Repository {
        if let Some((at, message)) = self.shared.repositories.watched.lock().get(&link.id) {
            (link.watched, link.watch_message) = (Some(*at), message.clone());
        }
        link
    }

    /// All links, in the order of their numbers.
    pub async fn repositories(&self) -> FsResult<Vec<Repository>> {
        self.shown(repository::all).await
    }

    /// Links with what waits of them.
    async fn shown(
        &self,
        find: impl FnOnce(&dyn ReadTxn) -> FsResult<Vec<(RepositoryId, RepositoryRecord)>> + Send + 'static,
    ) -> FsResult<Vec<Repository>> {
        let found = self.read(move |tx| {
            let with_waiting = |(id, record): (RepositoryId, RepositoryRecord)| {
                let conflicts = export::conflict_count(tx, id)?;
                Ok((Repository { conflicts, ..record.show(id) }, Waiting::of(tx, id)?, export::skipped(tx, id)?))
            };
            find(tx)?.into_iter().map(with_waiting).collect::<FsResult<Vec<_>>>()
        });
        let found = found.await?;
        let table = self.shared.repositories.lock();
        let with_figures = |(link, waiting, skipped): (Repository, Waiting, SkippedRecord)| {
            let Waiting { queued, oldest } = waiting;
            let (skipped, first_skipped) = (skipped.count, skipped.first);
            let export = ExportStatus { queued, oldest, skipped, first_skipped, ..table.exports.status(link.id) };
            self.with_memory(Repository { export, ..link })
        };
        Ok(found.into_iter().map(with_figures).collect())
    }

    /// Queues an import; `sync`: one that compares.
    pub async fn start_import(&self, id: RepositoryId, sync: bool) -> FsResult<Repository> {
        let sync = if sync { Sync::Asked } else { Sync::No };
        self.link(Change::StartImport { id, sync }).await
    }

    /// Queues comparisons that are due.
    pub(super) async fn start_due_syncs(&self) -> FsResult<()> {
        loop {
            let due = self.shared.repositories.lock().take_due_sync(Instant::now());
            let Some(id) = due else { return Ok(()) };
            match self.link(Change::StartImport { id, sync: Sync::Scheduled }).await {
                Ok(_) => {}
                // It is being ended.
                Err(e) if matches!(e.code, FsCode::NotFound | FsCode::Busy) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Ends a link, once workers have nothing of it. `Busy` while files have bytes only there, unless forced.
    pub async fn delete_repository(self: &Arc<Self>, id: RepositoryId, force: bool) -> FsResult<()> {
        let fs = Arc::clone(self);
        // To its end, also if whoever asked goes away: a link is ended, or it stays.
        let run = tokio::spawn(async move { fs.end_repository(id, force).await });
        run.await.map_err(|e| FsError::new(FsCode::Internal, format!("the end of repository {id} failed: {e}")))?
    }

    async fn end_repository(&self, id: RepositoryId, force: bool) -> FsResult<()> {
        self.change(Change::BeginDelete { id }).await?;
        self.reload_jobs(id).await?;
        let deleted = self.drain_and_delete(id, force).await;
        if deleted.is_err() {
            self.change(Change::KeepAfterAll { id }).await?;
        }
        self.reload_jobs(id).await?;
        deleted
    }

    async fn drain_and_delete(&self, id: RepositoryId, force: bool) -> FsResult<()> {
        let until = Instant::now() + DRAIN_WAIT;
        loop {
            let told = self.shared.repositories.work.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            if !self.shared.repositories.lock().is_out_for(id) {
                break;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(FsError::new(FsCode::Busy, format!("a worker is still busy with repository {id}"))
                    .with_hint("try again in a moment"));
            }
            // Either way the next look decides.
            let _ = tokio::time::timeout(left, told).await;
        }
        if !force {
            self.refuse_waiting(id).await?;
            let count = self.read(move |tx| unloaded_files(tx, id)).await?;
            if count > 0 {
                let what = format!("{count} files are not loaded in full from repository {id}");
                return Err(FsError::new(FsCode::Busy, what)
                    .with_hint("restore or remove them, or force it: what is not loaded cannot be read any more"));
            }
        }
        // Before, so that nothing is left of them; and what was noted until it was gone.
        self.drop_exports(id).await?;
        self.change(Change::Delete { id }).await?;
        self.drop_exports(id).await?;
        tracing::info!(fs = %self.info.name, %id, "the link to a repository was ended");
        Ok(())
    }
}

/// Files of a link that have bytes in the repository only.
fn unloaded_files(tx: &dyn ReadTxn, id: RepositoryId) -> FsResult<u64> {
    let mut count = 0;
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = tx.scan(Table::Loads, &[], after.as_deref(), PAGE)?;
        for (key, _) in &rows {
            count += u64::from(repository::hsm(tx, keys::parse_fid(key)?)?.is_some_and(|row| row.repository == id));
        }
        match rows.into_iter().next_back() {
            Some((key, _)) => after = Some(key),
            None => return Ok(count),
        }
    }
}
