//! Ranges that clients wait for, and changes of the extent of files that are not all there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sateen_types::op::Mutation;
use sateen_types::repository::Filled;
use sateen_types::{Extent, Fid, FsCode, FsError, FsResult, Layout, Remote, RepositoryId, SessionId};
use tokio::sync::Notify;

use super::DRAIN_WAIT;
use crate::command::Request;
use crate::fs::FileSystem;
use crate::namespace;
use crate::namespace::repository;
use crate::store::ReadTxn;

/// What a client waits for.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Which file.
    pub fid: Fid,
    /// Which bytes of it.
    pub range: Extent,
    /// What follows is wanted next.
    pub sequential: bool,
    /// What is stored and not yet durable is enough.
    pub reading: bool,
}

/// What is there of a file.
#[derive(Debug)]
pub struct Loaded {
    /// `None`: everything.
    pub remote: Option<Remote>,
    /// As it is now.
    pub layout: Layout,
    /// What `remote` lacks and can be read all the same; only for one who reads.
    pub filled: Vec<Filled>,
}

/// What is missing of a file, and where it comes from.
pub(super) struct Missing {
    pub remote: Remote,
    pub repository: RepositoryId,
    /// The link is still there.
    pub linked: bool,
}

pub(super) fn missing(tx: &dyn ReadTxn, fid: Fid) -> FsResult<Option<Missing>> {
    let (Some(load), Some(row)) = (repository::loads(tx, fid)?, repository::hsm(tx, fid)?) else { return Ok(None) };
    let linked = match repository::get(tx, row.repository) {
        Ok(_) => true,
        Err(e) if e.code == FsCode::NotFound => false,
        Err(e) => return Err(e),
    };
    Ok(Some(Missing { remote: load.remote, repository: row.repository, linked }))
}

/// The place of one who waits; gives it up when dropped.
struct Waiting {
    fs: Arc<FileSystem>,
    fid: Fid,
    number: u64,
    changed: Arc<Notify>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.fs.shared.repositories.lock().leave(self.fid, self.number);
    }
}

/// A file of which nothing is given out until this is dropped.
pub(in crate::fs) struct Closed {
    fs: Arc<FileSystem>,
    fid: Fid,
}

impl Drop for Closed {
    fn drop(&mut self) {
        let repositories = &self.fs.shared.repositories;
        let mut table = repositories.lock();
        // Whoever still waits looks again what is missing.
        table.forget(self.fid);
        table.open(self.fid);
        drop(table);
        repositories.tell();
    }
}

impl FileSystem {
    /// Waits until a range is loaded, `hold` at most; gives what is there then. For one who only reads it is enough that it is
    /// stored.
    ///
    /// # Errors
    /// `Io`: it could not be fetched, with the reason. Asking again tries again.
    pub async fn load(self: &Arc<Self>, session: SessionId, asked: Asked, hold: Duration) -> FsResult<Loaded> {
        let Asked { fid, range, sequential, reading } = asked;
        self.touch(session)?;
        let until = Instant::now() + hold;
        let mut waiting: Option<Waiting> = None;
        loop {
            let changed = waiting.as_ref().map(|w| w.changed.clone());
            let told = changed.as_ref().map(|changed| changed.notified());
            let mut told = std::pin::pin!(told);
            if let Some(told) = told.as_mut().as_pin_mut() {
                told.enable();
            }
            let question = move |tx: &dyn ReadTxn| Ok((namespace::get_layout(tx, fid)?, missing(tx, fid)?));
            let (layout, missing) = self.ask(question).await?;
            let Some(missing) = missing else { return Ok(Loaded { remote: None, layout, filled: Vec::new() }) };
            let filled = if reading { self.shared.repositories.lock().filled(fid) } else { Vec::new() };
            let lacking = Filled::without(missing.remote.missing(missing.remote.chunks(range)), &filled);
            if lacking.is_empty() {
                if sequential && waiting.is_some() {
                    // Only now, so that nothing comes before what somebody waits for.
                    let follows = Extent { start: range.end, end: missing.remote.end() };
                    self.shared.repositories.lock().want_ahead(fid, follows);
                    self.shared.repositories.tell();
                }
                return Ok(Loaded { remote: Some(missing.remote), layout, filled });
            }
            if !missing.linked {
                return Err(unlinked(fid, missing.repository));
            }
            let Some(place) = &waiting else {
                waiting = Some(self.begin_waiting(fid, &missing, range)?);
                continue;
            };
            {
                let mut table = self.shared.repositories.lock();
                if let Some(error) = table.error(fid, place.number) {
                    return Err(error);
                }
                table.want(fid, &missing.remote, range);
            }
            self.shared.repositories.tell();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Loaded { remote: Some(missing.remote), layout, filled });
            }
            if let Some(told) = told.as_pin_mut() {
                // Either way the next look decides.
                let _ = tokio::time::timeout(left, told).await;
            }
        }
    }

    fn begin_waiting(self: &Arc<Self>, fid: Fid, missing: &Missing, range: Extent) -> FsResult<Waiting> {
        let mut table = self.shared.repositories.lock();
        let (number, changed) = table.wait(fid, missing.repository, &missing.remote, range, Instant::now())?;
        Ok(Waiting { fs: self.clone(), fid, number, changed })
    }

    /// Before a change of a file's extent, where the file is not all there. To 0: nothing of it is given out any more, and what
    /// was is waited for; this lasts until what is given is dropped. To another size: the file is loaded first.
    pub(in crate::fs) async fn make_resizable(self: &Arc<Self>, request: &Request) -> FsResult<Option<Closed>> {
        let Mutation::SetAttr(op) = &request.op else { return Ok(None) };
        let (fid, Some(size)) = (op.fid, op.size) else { return Ok(None) };
        let Some(missing) = self.ask(move |tx| missing(tx, fid)).await? else { return Ok(None) };
        if size > 0 {
            self.load_in_full(fid, &missing).await?;
            return Ok(None);
        }
        let changed =
            self.shared.repositories.lock().close(fid, missing.repository, &missing.remote, Instant::now())?;
        let closed = Closed { fs: self.clone(), fid };
        let until = Instant::now() + DRAIN_WAIT;
        loop {
            let told = changed.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            if !self.shared.repositories.may_be_written(fid) {
                return Ok(Some(closed));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(FsError::new(FsCode::Unavailable, format!("a worker is still writing to {fid}"))
                    .with_hint("if it is dead, its session ends with its lease"));
            }
            // Workers of an earlier life of the server tell nobody.
            let _ = tokio::time::timeout(left.min(Duration::from_secs(1)), told).await;
        }
    }

    /// Whether a file must be loaded before a change of its extent.
    pub(in crate::fs) async fn is_to_be_loaded(&self, request: &Request) -> FsResult<bool> {
        let Mutation::SetAttr(op) = &request.op else { return Ok(false) };
        let (fid, Some(_)) = (op.fid, op.size) else { return Ok(false) };
        self.ask(move |tx| Ok(repository::loads(tx, fid)?.is_some())).await
    }

    async fn load_in_full(self: &Arc<Self>, fid: Fid, first: &Missing) -> FsResult<()> {
        if !first.linked {
            return Err(unlinked(fid, first.repository));
        }
        let whole = Extent { start: 0, end: first.remote.end() };
        let place = self.begin_waiting(fid, first, whole)?;
        let until = Instant::now() + DRAIN_WAIT;
        self.shared.repositories.lock().want_ahead(fid, whole);
        self.shared.repositories.tell();
        loop {
            let told = place.changed.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            if self.ask(move |tx| missing(tx, fid)).await?.is_none() {
                return Ok(());
            }
            if let Some(error) = self.shared.repositories.lock().error(fid, place.number) {
                return Err(error);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(FsError::new(FsCode::Unavailable, format!("{fid} is being loaded before it is cut"))
                    .with_hint("see how far it is: lfs hsm_action"));
            }
            // Either way the next look decides.
            let _ = tokio::time::timeout(left, told).await;
        }
    }
}

pub(super) fn unlinked(fid: Fid, id: RepositoryId) -> FsError {
    FsError::new(FsCode::Io, format!("bytes of {fid} are in repository {id} only, which is not linked any more"))
        .with_hint("only what was loaded before can be read")
}
