//! Files with an HSM state that clients open for writing: marked before the open is answered, unmarked when the last of them has closed
//! in order ([`crate::namespace::repository::opened`]).
//!
//! After a restart nobody knows who had the marked ones open until every client has said what it has. If one of them never does,
//! every file that was marked counts as changed.

use std::collections::HashSet;

use sateen_types::{Fid, FsResult, SessionId};

use crate::fs::FileSystem;
use crate::namespace::held::NOBODY;
use crate::namespace::repository::{Change, opened};

/// Files in one change.
const ABANDONED_MAX: usize = 1024;

/// What is not known yet after a restart.
#[derive(Debug, Default)]
pub(super) struct Opened {
    /// Marked by an earlier life of the server.
    from_before: HashSet<Fid>,
    /// A client of then has ended without a word.
    one_was_lost: bool,
}

impl Opened {
    /// With what is marked when the server starts.
    pub fn new(marked: Vec<Fid>) -> Opened {
        Opened { from_before: marked.into_iter().collect(), one_was_lost: false }
    }

    /// Whether nobody knows yet who has it open.
    pub fn is_from_before(&self, fid: Fid) -> bool {
        self.from_before.contains(&fid)
    }
}

impl FileSystem {
    /// A file is about to be opened for writing; durable when it returns. The session counts as one that has it open already.
    pub(in crate::fs) async fn mark_opened(&self, fid: Fid) -> FsResult<()> {
        self.change(Change::Opened { fid }).await.map(drop)
    }

    /// A session has closed these in order, and has them open no longer.
    pub(in crate::fs) async fn unmark_closed(&self, files: Vec<Fid>) -> FsResult<()> {
        if files.is_empty() || self.shared.repositories.seen.lock().is_empty() {
            return Ok(());
        }
        let marked = self.ask(move |tx| {
            let is_marked = |fid: &Fid| opened::is_opened(tx, *fid).map(|is| is.then_some(*fid)).transpose();
            files.iter().filter_map(is_marked).collect::<FsResult<Vec<Fid>>>()
        });
        for fid in marked.await? {
            if !self.shared.is_written(fid) {
                self.change(Change::Closed { fid }).await?;
            }
        }
        Ok(())
    }

    /// A session ends: what it has open for writing is changed. Gives what that was.
    pub(in crate::fs) async fn abandon_files_of(&self, session: SessionId) -> FsResult<Vec<Fid>> {
        let files = {
            let clients = self.shared.clients.lock();
            if clients.wants_restate(session) {
                let mut opened = self.shared.repositories.opened.lock();
                opened.one_was_lost |= !opened.from_before.is_empty();
            }
            self.shared.capabilities.written_by(session)
        };
        if files.is_empty() || self.shared.repositories.seen.lock().is_empty() {
            return Ok(files);
        }
        let asked = files.clone();
        let marked = self.ask(move |tx| {
            let is_marked = |fid: &Fid| opened::is_opened(tx, *fid).map(|is| is.then_some(*fid)).transpose();
            asked.iter().filter_map(is_marked).collect::<FsResult<Vec<Fid>>>()
        });
        let marked = marked.await?;
        if !marked.is_empty() {
            tracing::info!(fs = %self.info.name, %session, files = marked.len(),
                "files of repositories were open for writing when their client ended: they count as changed");
        }
        for some in marked.chunks(ABANDONED_MAX) {
            self.change(Change::Abandoned { files: some.to_vec() }).await?;
        }
        Ok(files)
    }

    /// When every client has said what it has open: files that were marked before the restart are changed, or are not open.
    pub(in crate::fs) async fn settle_opened(&self) -> FsResult<()> {
        let repositories = &self.shared.repositories;
        if self.shared.clients.lock().is_recovering() {
            return Ok(());
        }
        let (files, one_was_lost) = {
            let opened = repositories.opened.lock();
            (opened.from_before.iter().copied().collect::<Vec<Fid>>(), opened.one_was_lost)
        };
        if files.is_empty() {
            return Ok(());
        }
        if one_was_lost {
            for files in files.chunks(ABANDONED_MAX) {
                self.change(Change::Abandoned { files: files.to_vec() }).await?;
            }
        }
        *repositories.opened.lock() = Opened::default();
        for fid in files {
            if !self.shared.is_written(fid) {
                self.change(Change::Closed { fid }).await?;
            }
        }
        Ok(())
    }
}

impl crate::fs::Shared {
    /// Whether somebody has the file open for writing, or may have.
    pub(in crate::fs) fn is_written(&self, fid: Fid) -> bool {
        self.repositories.opened.lock().is_from_before(fid) || self.capabilities.is_written_elsewhere(NOBODY, fid)
    }
}
