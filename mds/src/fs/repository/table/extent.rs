//! Changes of a file's extent, during which nothing of it is given out.

use std::sync::Arc;
use std::time::Instant;

use sateen_types::{Fid, FsResult, Remote, RepositoryId};
use tokio::sync::Notify;

use super::LoadTable;

impl LoadTable {
    /// Nothing of the file is given out until [`LoadTable::open`].
    pub fn close(
        &mut self,
        fid: Fid,
        repository: RepositoryId,
        remote: &Remote,
        now: Instant,
    ) -> FsResult<Arc<Notify>> {
        let file = self.file(fid, repository, remote, now)?;
        file.closed += 1;
        Ok(file.changed.clone())
    }

    /// Whether something of the file is assigned, or a report of that is being made durable.
    pub fn is_out(&self, fid: Fid) -> bool {
        self.files.get(&fid).is_some_and(|f| !f.out.is_empty())
    }

    /// Whether a change of the file's extent waits or is being made.
    #[cfg(test)]
    pub fn is_closed(&self, fid: Fid) -> bool {
        self.files.get(&fid).is_some_and(|f| f.closed > 0)
    }

    /// The change was made, or not.
    pub fn open(&mut self, fid: Fid) {
        if let Some(file) = self.files.get_mut(&fid) {
            file.closed = file.closed.saturating_sub(1);
            file.changed.notify_waiters();
            self.queue(fid);
            self.drop_idle(fid);
        }
    }

    /// Not all of the file is wanted any more, only what somebody asks for.
    pub fn forget_restore(&mut self, fid: Fid) {
        if let Some(file) = self.files.get_mut(&fid) {
            file.restore = false;
        }
    }

    /// Nothing of the file is wanted any more.
    pub fn forget(&mut self, fid: Fid) {
        if let Some(file) = self.files.get_mut(&fid) {
            file.wanted.clear();
            file.ahead = None;
            file.restore = false;
            file.retry_at = None;
            file.changed.notify_waiters();
            self.drop_idle(fid);
        }
    }
}
