//! An open file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use sateen_proto::mds as wire;
use sateen_types::op::{Access, SetAttr};
use sateen_types::{Attr, Credential, Fid, FsCode, FsError, FsResult, Layout, Payload};

use crate::inner::Inner;
use crate::inode::Inode;
use crate::readahead::{Advice, Readahead};
use crate::session::Session;
use crate::write::{self, Where};
use crate::{durable, read, report, seek, truncate};

/// An open file. Cheap to clone; closed by [`File::close`], or in the background when the last clone is dropped.
///
/// Reads and writes may be made at the same time from anywhere. All open files of one FID in one [`crate::Client`]
/// see each other's writes at once; other clients see them after `flush` or `close`, with their next open.
#[derive(Clone, Debug)]
pub struct File {
    open: Arc<Open>,
}

#[derive(Debug)]
struct Open {
    inner: Arc<Inner>,
    inode: Arc<Inode>,
    cred: Credential,
    access: Access,
    cache_valid: bool,
    readahead: Mutex<Readahead>,
    /// Which write-back errors were reported here.
    failures_seen: Mutex<Seen>,
    closed: AtomicBool,
    _registration: Registration,
}

/// Numbers of the last write-back errors that this open file reported. A flush that reports an error leaves it to the
/// next fsync as well: a kernel flushes whenever a copy of a descriptor is closed, for example by a child at `exec`, where
/// nobody looks at the answer.
#[derive(Debug)]
struct Seen {
    by_flush: u64,
    by_fsync: u64,
}

/// Says that the session has the file open, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Registration {
    session: Arc<Session>,
    fid: Fid,
}

impl Registration {
    /// Registers one open of `fid`.
    pub fn new(session: &Arc<Session>, fid: Fid) -> Registration {
        session.opening(fid);
        Registration { session: Arc::clone(session), fid }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.session.closed(self.fid);
    }
}

impl File {
    /// A file the MDS has just opened.
    pub(crate) fn new(
        inner: &Arc<Inner>,
        attr: &Attr,
        layout: Layout,
        cred: &Credential,
        access: Access,
        registration: Registration,
    ) -> File {
        let (inode, cache_valid) = inner.table.opened(inner.session.facts.fs_id, attr, layout, &inner.cache);
        let seen = inode.state().failure.seen_by_new_file();
        let open = Open {
            inner: Arc::clone(inner),
            inode,
            cred: cred.clone(),
            access,
            cache_valid,
            readahead: Mutex::new(Readahead::new(inner.options.readahead_bytes_max)),
            failures_seen: Mutex::new(Seen { by_flush: seen, by_fsync: seen }),
            closed: AtomicBool::new(false),
            _registration: registration,
        };
        File { open: Arc::new(open) }
    }

    /// Which file.
    pub fn fid(&self) -> Fid {
        self.open.inode.fid
    }

    /// What it was opened for.
    pub fn access(&self) -> Access {
        self.open.access
    }

    /// Attributes as last known here, with what was written here.
    pub fn attr(&self) -> Attr {
        self.open.inode.attr()
    }

    /// Layout as last known here.
    pub fn layout(&self) -> Layout {
        Layout::clone(&self.open.inode.view().layout)
    }

    /// Whether data cached during an earlier open, here or by a kernel above, is still right.
    pub fn cache_valid(&self) -> bool {
        self.open.cache_valid
    }

    /// Up to `len` bytes at `offset`; fewer only at the end of the file. Copied together where they lie in several
    /// chunks; [`File::read_pieces`] copies nothing.
    pub async fn read_at(&self, offset: u64, len: usize) -> FsResult<Bytes> {
        self.read_pieces(offset, len).await.map(Payload::into_bytes)
    }

    /// Up to `len` bytes at `offset`, fewer only at the end of the file, as the pieces in which they are cached.
    pub async fn read_pieces(&self, offset: u64, len: usize) -> FsResult<Payload> {
        if !self.open.access.read && !self.open.access.exec {
            return Err(FsError::new(FsCode::NotPermitted, format!("{} is not open for reading", self.fid())));
        }
        read::read(&self.open.inner, &self.open.inode, &self.open.readahead, offset, len).await
    }

    /// Whether a write took set-user-id or set-group-id away, which [`File::attr`] shows and the MDS does not know yet.
    pub fn loses_privileges(&self) -> bool {
        self.open.inode.loses_privileges()
    }

    /// A program has read the file: its access time changes if [`crate::Options::access_times`] wants it. Reading alone does
    /// not say so, for copies, scans and backups should leave no trace.
    pub fn accessed(&self) {
        let inner = &self.open.inner;
        if let Some(at) = self.open.inode.accessed(inner.options.access_times) {
            inner.atimes.note(self.fid(), at);
        }
    }

    /// Takes in how the program will read; `len` 0 is up to the end of the file. It changes how fast reads are, never what
    /// they give. See [`Advice`].
    pub fn advise(&self, offset: u64, len: u64, advice: Advice) {
        let (inner, inode) = (&self.open.inner, &self.open.inode);
        let end = if len == 0 { u64::MAX } else { offset.saturating_add(len) };
        match advice {
            Advice::WillNeed => {
                let most = inner.options.readahead_bytes_max.min(inner.readahead_room());
                let end = end.min(inode.state().size()).min(offset.saturating_add(most));
                // Too much under way: the program reads it when it needs it.
                let _ = offset < end && read::prefetch(inner, inode, &inode.view(), offset..end);
            }
            Advice::DontNeed => inner.cache.remove_range(inode.fid, &(offset..end)),
            _ => self.open.readahead.lock().advise(advice),
        }
    }

    /// Writes all of `data` at `offset` into the cache; waits while too much is dirty.
    pub async fn write_at(&self, offset: u64, data: &[u8]) -> FsResult<()> {
        self.may_write()?;
        write::write(&self.open.inner, &self.open.inode, Where::At(offset), data, &self.open.cred).await.map(drop)
    }

    /// Writes at the end; returns the offset it went to. Up to 1 MiB are in one piece whatever else is appended through
    /// this client.
    pub async fn append(&self, data: &[u8]) -> FsResult<u64> {
        self.may_write()?;
        write::write(&self.open.inner, &self.open.inode, Where::End, data, &self.open.cred).await
    }

    /// Sends what is dirty to the OSTs and reports size and times to the MDS: others who open the file see it. Not
    /// durable yet.
    pub async fn flush(&self) -> FsResult<()> {
        let (inner, inode) = (&self.open.inner, &self.open.inode);
        write::drain(inner, inode).await;
        let reported = report::report(inner, inode).await;
        inner.table.unpin_if_clean(inode);
        inode.state().failure.take(&mut self.open.failures_seen.lock().by_flush)?;
        reported
    }

    /// Makes everything written so far durable: data on the OSTs, then size and times at the MDS.
    pub async fn fsync(&self) -> FsResult<()> {
        let (inner, inode) = (&self.open.inner, &self.open.inode);
        write::drain(inner, inode).await;
        let committed = durable::commit(inner, inode).await;
        let reported = report::report(inner, inode).await;
        inner.table.unpin_if_clean(inode);
        {
            let mut seen = self.open.failures_seen.lock();
            let failed = inode.state().failure.take(&mut seen.by_fsync);
            seen.by_flush = seen.by_fsync;
            failed?;
        }
        committed?;
        reported
    }

    /// Cuts or extends the file.
    pub async fn truncate(&self, len: u64) -> FsResult<Attr> {
        self.may_write()?;
        let mut set = SetAttr::new(self.fid());
        (set.size, set.via_open_file) = (Some(len), true);
        truncate::truncate(&self.open.inner, &self.open.inode, &self.open.cred, set).await
    }

    /// Makes `[offset, offset + len)` a hole that reads as zeros; the size stays.
    pub async fn punch(&self, offset: u64, len: u64) -> FsResult<()> {
        self.may_write()?;
        self.open.inode.state().modified_by(&self.open.cred);
        truncate::punch(&self.open.inner, &self.open.inode, offset, len).await
    }

    /// Makes sure that the OSTs have room for `[offset, offset + len)` now, and extends the file unless `keep_size`.
    /// Nothing is reserved: others may use the room.
    pub async fn allocate(&self, offset: u64, len: u64, keep_size: bool) -> FsResult<()> {
        self.may_write()?;
        let layout_end = self.open.inode.view().layout.end().min(sateen_types::limits::FILE_SIZE_MAX);
        let end = offset.checked_add(len).filter(|end| *end <= layout_end).ok_or_else(|| {
            FsError::new(
                FsCode::FileTooBig,
                format!("{len} bytes at {offset} pass the end of the layout, {layout_end}"),
            )
        })?;
        let available = crate::namespace::statfs(&self.open.inner).await?.data.available;
        if available < len {
            return Err(FsError::new(FsCode::NoSpace, format!("{len} bytes asked for, {available} are free"))
                .with_hint("`lfs df` shows the space of every OST"));
        }
        if !keep_size && end > self.open.inode.state().size() {
            self.truncate(end).await?;
        }
        self.open.inode.state().modified_by(&self.open.cred);
        Ok(())
    }

    /// First data at or after `offset`; `None` if there is none before the end (ENXIO).
    pub async fn seek_data(&self, offset: u64) -> FsResult<Option<u64>> {
        seek::data(&self.open.inner, &self.open.inode, offset).await
    }

    /// First hole at or after `offset`, the end of the file being one; `None` at or beyond the end (ENXIO).
    pub async fn seek_hole(&self, offset: u64) -> FsResult<Option<u64>> {
        seek::hole(&self.open.inner, &self.open.inode, offset).await
    }

    /// Flushes and closes, for all clones. Reports what [`File::flush`] would.
    pub async fn close(self) -> FsResult<()> {
        let flushed = self.flush().await;
        self.open.end().await;
        flushed
    }

    fn may_write(&self) -> FsResult<()> {
        if self.open.access.write {
            return Ok(());
        }
        Err(FsError::new(FsCode::NotPermitted, format!("{} is not open for writing", self.fid())))
    }
}

impl Open {
    /// Tells the MDS, once. If it cannot be told, it forgets the open when the session ends.
    async fn end(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            close_at_mds(&self.inner, self.inode.fid).await;
        }
    }
}

async fn close_at_mds(inner: &Arc<Inner>, fid: Fid) {
    let wire_fid = Some(fid.into());
    let told = inner.session.ask(|mut client, session_id| async move {
        client.close(wire::CloseRequest { session_id, fid: wire_fid }).await
    });
    if let Err(error) = told.await {
        tracing::debug!(%error, %fid, "the MDS was not told of a close");
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let (inner, inode) = (Arc::clone(&self.inner), Arc::clone(&self.inode));
        let task = async move {
            write::drain(&inner, &inode).await;
            if let Err(error) = report::report(&inner, &inode).await {
                tracing::debug!(%error, fid = %inode.fid, "not reported yet; will be tried again");
            }
            close_at_mds(&inner, inode.fid).await;
            inner.table.unpin_if_clean(&inode);
        };
        self.inner.tasks.spawn_on(task, &self.inner.runtime);
    }
}
