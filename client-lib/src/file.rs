//! An open file.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use sateen_types::op::{Access, SetAttr};
use sateen_types::{
    Attr, Capability, Credential, Fid, FsCode, FsError, FsResult, Grant, Layout, Lock, LockClass, LockRange, Payload,
};

use crate::closing::linger;
use crate::inner::Inner;
use crate::inode::{Inode, Learnt, Purpose};
use crate::loads::How;
use crate::locks::{self, Holder};
use crate::readahead::{Advice, Readahead};
use crate::session::Session;
use crate::{append, durable, expiry, loads, read, recalls, report, seek, truncate, write};

/// Sessions in which a read is tried that does not end before its session does.
const READS_MAX: u32 = 8;

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
    /// Owners that asked for locks through it and have not given all up since.
    lockers: Mutex<HashSet<u64>>,
    /// Somebody has: a quick answer for the usual case.
    was_locked: AtomicBool,
    /// Until it is closed.
    registration: Mutex<Option<Registration>>,
}

/// Numbers of the last write-back errors that this open file reported. A flush that reports an error leaves it to the
/// next fsync as well: a kernel flushes whenever a copy of a descriptor is closed, for example by a child at `exec`, where
/// nobody looks at the answer.
#[derive(Debug)]
struct Seen {
    by_flush: u64,
    by_fsync: u64,
    /// Those of changes of names, that of this file perhaps among them.
    names: u64,
}

/// Says that the session has the file open, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Registration {
    session: Arc<Session>,
    fid: Fid,
    /// Of this open.
    number: u64,
    writes: bool,
}

impl Registration {
    /// Registers one open of `fid`.
    pub fn new(session: &Arc<Session>, fid: Fid, writes: bool) -> Registration {
        let number = session.opening(fid, writes);
        Registration::of_opening(session, fid, number, writes)
    }

    /// Number of this open.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether the file was opened for writing.
    pub fn writes(&self) -> bool {
        self.writes
    }

    /// Of a file that was made, or found, and opened under this number.
    pub fn created(session: &Arc<Session>, fid: Fid, number: u64, writes: bool) -> Registration {
        session.was_created(fid, number, writes);
        Registration::of_opening(session, fid, number, writes)
    }

    /// Of an open that the session counts already.
    pub fn of_opening(session: &Arc<Session>, fid: Fid, number: u64, writes: bool) -> Registration {
        Registration { session: Arc::clone(session), fid, number, writes }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.session.closed(self.fid, self.number);
    }
}

/// Says that a file is being made and opened that is not known yet, for as long as it lives.
pub(crate) struct Creating<'a> {
    session: &'a Session,
    number: u64,
}

impl Creating<'_> {
    /// From now on.
    pub fn new(session: &Session) -> Creating<'_> {
        Creating { session, number: session.creating() }
    }

    /// Number of the open.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Creating<'_> {
    fn drop(&mut self) {
        self.session.created();
    }
}

impl File {
    /// A file the MDS has just opened.
    pub(crate) fn new(
        inner: &Arc<Inner>,
        attr: &Attr,
        (layout, grant, learnt): (Layout, Grant, Learnt),
        cred: &Credential,
        access: Access,
        registration: Registration,
    ) -> File {
        let keeps = inner.session.keeps(attr.fid);
        let (inode, cache_valid) =
            inner.table.opened(inner.session.facts.fs_id, attr, (layout, learnt), keeps, &inner.cache);
        // Only now: with it come the attributes that were taken in.
        inner.session.granted(attr.fid, grant);
        let seen = inode.state().failure.seen_by_new_file();
        let names = inner.session.names.seen_by_new_file();
        let open = Open {
            inner: Arc::clone(inner),
            inode,
            cred: cred.clone(),
            access,
            cache_valid,
            readahead: Mutex::new(Readahead::new(inner.options.readahead_bytes_max)),
            failures_seen: Mutex::new(Seen { by_flush: seen, by_fsync: seen, names }),
            lockers: Mutex::default(),
            was_locked: AtomicBool::new(false),
            registration: Mutex::new(Some(registration)),
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
        self.open.cache_valid && !self.is_shared()
    }

    /// Whether other clients use the file so that nothing may be kept of it.
    pub fn is_shared(&self) -> bool {
        self.open.is_shared()
    }

    /// Whether something of the file may be only in its repository: reads and writes may wait for that.
    pub fn is_released(&self) -> bool {
        self.open.inode.state().missing(0, u64::MAX, Purpose::Change).is_some()
    }

    /// Whether what is written may stay here: a write waits for no server then.
    pub fn keeps_writes(&self) -> bool {
        self.open.inode.keeps() == Capability::Write
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
        self.open.check_locks()?;
        let Open { inner, inode, readahead, .. } = &*self.open;
        for _ in 0..READS_MAX {
            self.open.refresh_if_shared().await?;
            if let Some(read) = read::read(inner, inode, readahead, offset, len).await? {
                return Ok(read);
            }
            // Asks the MDS whether the session lives.
            expiry::writer(inner).await?;
        }
        let what = format!("the session was lost {READS_MAX} times while {} was read", self.fid());
        Err(FsError::new(FsCode::Io, what))
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
                let _ = offset < end && read::prefetch(inner, inode, offset..end);
            }
            Advice::DontNeed => inner.cache.remove_range(inode.fid, &(offset..end)),
            _ => self.open.readahead.lock().advise(advice),
        }
    }

    /// Writes all of `data` at `offset` into the cache; waits while too much is dirty.
    pub async fn write_at(&self, offset: u64, data: &[u8]) -> FsResult<()> {
        self.may_write()?;
        write::write_at(&self.open.inner, &self.open.inode, offset, data, &self.open.cred).await
    }

    /// Writes at the end; returns the offset it went to. Up to 1 MiB are in one piece whatever else is appended, by this
    /// client or another.
    pub async fn append(&self, data: &[u8]) -> FsResult<u64> {
        self.may_write()?;
        append::append(&self.open.inner, &self.open.inode, data, &self.open.cred).await
    }

    /// Sends what is dirty to the OSTs and reports size and times to the MDS: others who open the file see it. Not
    /// durable yet.
    pub async fn flush(&self) -> FsResult<()> {
        let (inner, inode) = (&self.open.inner, &self.open.inode);
        if inner.session.names.is_pending(inode.fid) {
            // Nobody else can see the file yet; whoever wants to makes us store it.
            return inode.state().failure.take(&mut self.open.failures_seen.lock().by_flush);
        }
        write::drain(inner, inode).await;
        let reported = report::report(inner, inode).await;
        inner.table.unpin_if_clean(inode);
        inode.state().failure.take(&mut self.open.failures_seen.lock().by_flush)?;
        reported
    }

    /// Makes everything written so far durable: data on the OSTs, then size and times at the MDS.
    pub async fn fsync(&self) -> FsResult<()> {
        let (inner, inode) = (&self.open.inner, &self.open.inode);
        let names = &inner.session.names;
        names.told_all(&inner.session).await?;
        write::drain(inner, inode).await;
        // At once: that the size survives and the bytes do not is possible wherever it was reported by a close.
        let (committed, reported) = tokio::join!(durable::commit(inner, inode), report::report(inner, inode));
        inner.table.unpin_if_clean(inode);
        {
            let mut seen = self.open.failures_seen.lock();
            let failed = inode.state().failure.take(&mut seen.by_fsync);
            seen.by_flush = seen.by_fsync;
            names.failed(&mut seen.names).and(failed)?;
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
        self.open.refresh_all_if_shared().await?;
        // Before the time of change: what cannot be loaded is not changed.
        loads::loaded(&self.open.inner, &self.open.inode, offset, len, How::CHANGE).await?;
        self.open.inode.state().modified_by(&self.open.cred);
        truncate::punch(&self.open.inner, &self.open.inode, offset, len).await
    }

    /// Makes sure that the OSTs have room for `[offset, offset + len)` now, and extends the file unless `keep_size`.
    /// Nothing is reserved: others may use the room.
    pub async fn allocate(&self, offset: u64, len: u64, keep_size: bool) -> FsResult<()> {
        self.may_write()?;
        self.open.refresh_if_shared().await?;
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
        {
            let mut state = self.open.inode.state();
            state.modified_by(&self.open.cred);
            if keep_size || end <= state.size() {
                return Ok(());
            }
            // Not by a truncate, which would cut what others have appended meanwhile.
            state.extend(end);
        }
        report::report(&self.open.inner, &self.open.inode).await
    }

    /// First data at or after `offset`; `None` if there is none before the end (ENXIO).
    pub async fn seek_data(&self, offset: u64) -> FsResult<Option<u64>> {
        self.open.refresh_all_if_shared().await?;
        seek::data(&self.open.inner, &self.open.inode, offset).await
    }

    /// First hole at or after `offset`, the end of the file being one; `None` at or beyond the end (ENXIO).
    pub async fn seek_hole(&self, offset: u64) -> FsResult<Option<u64>> {
        self.open.refresh_all_if_shared().await?;
        seek::hole(&self.open.inner, &self.open.inode, offset).await
    }

    /// Takes a lock for `owner`, or fails with `WouldBlock`. Returns whether data cached before, by a kernel above, is
    /// still right.
    pub async fn try_lock(&self, owner: u64, lock: Lock) -> FsResult<bool> {
        self.take_lock(owner, lock, None::<std::future::Pending<()>>).await
    }

    /// Takes a lock for `owner`; waits for it until `give_up` completes (`Interrupted`). `Deadlock` if those that hold it
    /// wait for the owner. Returns as [`File::try_lock`].
    pub async fn lock(&self, owner: u64, lock: Lock, give_up: impl Future<Output = ()>) -> FsResult<bool> {
        self.take_lock(owner, lock, Some(give_up)).await
    }

    async fn take_lock(&self, owner: u64, lock: Lock, give_up: Option<impl Future<Output = ()>>) -> FsResult<bool> {
        self.told().await?;
        // Before it is asked for: a close that comes meanwhile gives it up.
        self.open.lockers.lock().insert(owner);
        self.open.was_locked.store(true, Ordering::Relaxed);
        if locks::shares(&lock) {
            self.open.store_locked(owner).await;
        }
        let session = &self.open.inner.session;
        let attr = session.lock(self.open.holder(owner), lock, give_up).await?;
        // What others did while they had it is seen from here on.
        session.ahead.clear();
        Ok(self.open.inode.observe_lock(&attr))
    }

    /// Gives up what `owner` has of a range, when what was written is stored.
    pub async fn unlock(&self, owner: u64, class: LockClass, range: LockRange) -> FsResult<()> {
        self.open.store_locked(owner).await;
        self.open.inner.session.unlock(self.open.holder(owner), class, range).await
    }

    /// Gives up everything `owner` holds of the file, by whichever open file.
    pub async fn release_locks(&self, owner: u64) -> FsResult<()> {
        self.open.lockers.lock().remove(&owner);
        self.open.release_locks(owner).await
    }

    /// The lock that keeps `owner` from having `lock`.
    pub async fn test_lock(&self, owner: u64, lock: Lock) -> FsResult<Option<Lock>> {
        self.told().await?;
        self.open.inner.session.test_lock(self.open.holder(owner), lock).await
    }

    /// Flushes and closes, for all clones; locks that were taken through it go. Reports what [`File::flush`] would.
    pub async fn close(self) -> FsResult<()> {
        let flushed = self.flush().await;
        self.open.release_all_locks().await;
        if let Some(registration) = self.open.end() {
            linger(&self.open.inner, &self.open.inode, registration);
        }
        flushed
    }

    /// Waits until the MDS knows the file.
    async fn told(&self) -> FsResult<()> {
        let session = &self.open.inner.session;
        session.names.told(session, &[self.fid()]).await
    }

    fn may_write(&self) -> FsResult<()> {
        if self.open.access.write {
            return self.open.check_locks();
        }
        Err(FsError::new(FsCode::NotPermitted, format!("{} is not open for writing", self.fid())))
    }
}

impl Open {
    /// Where nothing may be kept the size is asked for anew.
    async fn refresh_if_shared(&self) -> FsResult<()> {
        if self.is_shared() { recalls::refresh(&self.inner, &self.inode).await } else { Ok(()) }
    }

    /// Size and layout: others may have written to parts that had no OSTs.
    async fn refresh_all_if_shared(&self) -> FsResult<()> {
        self.refresh_if_shared().await?;
        if self.is_shared() && self.inode.layout_may_be_old() {
            read::refresh_layout(&self.inner, &self.inode).await?;
        }
        Ok(())
    }

    fn is_shared(&self) -> bool {
        self.inode.keeps() < Capability::Read
    }

    fn holder(&self, owner: u64) -> Holder {
        Holder { fid: self.inode.fid, owner }
    }

    /// `Io` if locks taken through this open file were lost with the session: somebody else may have changed what is read
    /// or overwritten.
    fn check_locks(&self) -> FsResult<()> {
        if !self.was_locked.load(Ordering::Relaxed) {
            return Ok(());
        }
        let lockers = self.lockers.lock();
        let record = self.inner.session.record.lock();
        match lockers.iter().any(|owner| record.is_lost(self.inode.fid, *owner)) {
            true => Err(locks::lost(self.inode.fid)),
            false => Ok(()),
        }
    }

    /// What was written under an exclusive lock is stored, and reported. Errors are kept for the next flush or fsync.
    async fn store_locked(&self, owner: u64) {
        if !self.inner.session.record.lock().holds_exclusive(self.inode.fid, owner) {
            return;
        }
        write::drain(&self.inner, &self.inode).await;
        if let Err(error) = report::report(&self.inner, &self.inode).await {
            tracing::warn!(%error, fid = %self.inode.fid, "a lock goes before others can see what was written under it");
        }
        self.inner.table.unpin_if_clean(&self.inode);
    }

    async fn release_locks(&self, owner: u64) -> FsResult<()> {
        if !self.inner.session.record.lock().knows(self.inode.fid, owner) {
            return Ok(());
        }
        self.store_locked(owner).await;
        self.inner.session.release_locks(self.holder(owner)).await
    }

    async fn release_all_locks(&self) {
        let owners: Vec<u64> = self.lockers.lock().drain().collect();
        for owner in owners {
            if let Err(error) = self.release_locks(owner).await {
                tracing::warn!(%error, fid = %self.inode.fid, "locks were not given up at the close");
            }
        }
    }

    /// Ends it for all clones; what is called after counts as open no longer.
    fn end(&self) -> Option<Registration> {
        self.registration.lock().take()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Some(registration) = self.end() else { return };
        let (inner, inode) = (Arc::clone(&self.inner), Arc::clone(&self.inode));
        let lockers = std::mem::take(self.lockers.get_mut());
        let task = async move {
            if inner.session.names.told(&inner.session, &[inode.fid]).await.is_ok() {
                write::drain(&inner, &inode).await;
            }
            if let Err(error) = report::report(&inner, &inode).await {
                tracing::debug!(%error, fid = %inode.fid, "not reported yet; will be tried again");
            }
            let held = |owner| inner.session.record.lock().knows(inode.fid, owner);
            for owner in lockers.into_iter().filter(|owner| held(*owner)) {
                // What cannot be given up goes with the session.
                let _ = inner.session.release_locks(Holder { fid: inode.fid, owner }).await;
            }
            linger(&inner, &inode, registration);
            inner.table.unpin_if_clean(&inode);
        };
        self.inner.tasks.spawn_on(task, &self.inner.runtime);
    }
}
