//! Capabilities as the server runs them: the table behind its lock, recalls on their way to clients, and those who wait for
//! answers.
//!
//! Order of locks: the clients, then the table of capabilities.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::stream::{self, StreamExt, TryStreamExt};
use parking_lot::{Mutex, MutexGuard};
use sateen_types::{Fid, FileType, FsCode, FsError, FsResult, Grant, Recall, SessionId, Unreported, Using, op};
use tokio::sync::Notify;

use super::{FileSystem, Shared, Stated};
use crate::capabilities::{CapabilityTable, Wait};
use crate::clients::Ending;
use crate::namespace::{self, BRIEF_PAGE, Named};

/// Longest a request waits for other clients; then its client asks again.
pub(super) const HOLD_MAX: Duration = Duration::from_secs(10);

/// Files of one statement for which others are asked at a time.
const MADE_WAY_AT_ONCE: usize = 64;

/// Longest a look at attributes waits after a restart until every other client has said what it has open.
const LOOK_WAITS_MAX: Duration = Duration::from_secs(5);

/// What was found, and whether it lasts.
#[derive(Clone, Debug)]
pub struct Looked {
    /// With attributes as they are now.
    pub named: Named,
    /// Another session has the file open for writing.
    pub in_use: bool,
}

/// What open files do that are opened for this.
fn using(access: op::Access) -> Using {
    if access.write { Using::Writing } else { Using::Reading }
}

/// The capabilities of one file system.
pub(super) struct Capabilities {
    state: Mutex<State>,
    /// Told when somebody has answered, closed, or gone.
    changed: Notify,
    /// How often that was.
    changes: AtomicU64,
}

struct State {
    table: CapabilityTable,
    /// Told when a session has recalls. Entries live as long as their sessions.
    listeners: HashMap<SessionId, Arc<Notify>>,
}

impl Capabilities {
    /// Nobody has any. Numbers are those of the clock, so that an earlier life of the server has lower ones.
    pub fn new() -> Capabilities {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_micros() as u64);
        let state = State { table: CapabilityTable::new(now), listeners: HashMap::new() };
        Capabilities { state: Mutex::new(state), changed: Notify::new(), changes: AtomicU64::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The session opens a file. Called with the clients locked.
    pub fn open(&self, session: SessionId, fid: Fid, access: op::Access) {
        self.lock().table.open(session, fid, using(access));
    }

    /// What a client had open and kept before the restart. Called with the clients locked.
    pub fn restate(&self, session: SessionId, files: &[Stated]) {
        let mut state = self.lock();
        for one in files {
            state.table.restate(session, one.fid, one.using, one.keeps);
        }
    }

    /// What a client still has open in a new session. Called with the clients locked.
    pub fn reopen(&self, session: SessionId, files: &[Stated]) {
        let mut state = self.lock();
        files.iter().for_each(|one| state.table.open(session, one.fid, one.using));
    }

    /// The session has these open no longer. Called with the clients locked.
    pub fn closed(&self, session: SessionId, files: impl Iterator<Item = Fid>) {
        let mut state = self.lock();
        files.for_each(|fid| state.table.closed(session, fid));
        drop(state);
        self.tell();
    }

    /// Nothing of these sessions is answered any more. Called with the clients locked.
    pub fn ending(&self, ending: &[Ending]) {
        let mut state = self.lock();
        ending.iter().for_each(|e| state.table.begin_ending(e.session));
    }

    /// What the session has open for writing.
    pub fn written_by(&self, session: SessionId) -> Vec<Fid> {
        self.lock().table.written_by(session)
    }

    /// A session ended; it is not among the clients any more. Gives what it had open for writing.
    pub fn end_session(&self, session: SessionId) -> Vec<Fid> {
        let mut state = self.lock();
        let written = state.table.written_by(session);
        state.table.end_session(session);
        if let Some(listener) = state.listeners.remove(&session) {
            listener.notify_waiters();
        }
        drop(state);
        self.tell();
        written
    }

    /// Whether a change of the file's extent is under way.
    pub fn is_changing(&self, fid: Fid) -> bool {
        self.lock().table.is_changing(fid)
    }

    fn tell(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.changed.notify_waiters();
    }

    /// The session has recalls of another kind.
    pub fn wake(&self, session: SessionId) {
        if let Some(listener) = self.lock().listeners.get(&session) {
            listener.notify_waiters();
        }
    }

    /// Whether another session has the file open for writing.
    pub fn is_written_elsewhere(&self, session: SessionId, fid: Fid) -> bool {
        self.lock().table.is_written_elsewhere(session, fid)
    }

    /// Looks again and again, whenever something has changed, until `look` finds an answer.
    async fn until<T>(
        &self,
        until: Instant,
        mut look: impl FnMut(&mut CapabilityTable) -> FsResult<Result<T, Wait>>,
    ) -> FsResult<Result<T, Wait>> {
        loop {
            let told = self.changed.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            let wait = {
                let mut state = self.lock();
                let found = look(&mut state.table);
                state.wake();
                match found? {
                    Ok(found) => return Ok(Ok(found)),
                    Err(wait) => wait,
                }
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Err(wait));
            }
            // Either way the next look decides.
            let _ = tokio::time::timeout(left, told).await;
        }
    }
}

impl State {
    fn wake(&mut self) {
        for session in self.table.take_woken() {
            if let Some(listener) = self.listeners.get(&session) {
                listener.notify_waiters();
            }
        }
    }
}

impl FileSystem {
    /// What a session that has the file open may keep of it, once others have given up what is in the way.
    pub(super) async fn grant(&self, session: SessionId, fid: Fid) -> FsResult<Grant> {
        let granted = self.try_grant(session, fid, Instant::now() + HOLD_MAX).await?;
        granted.map_err(|wait| self.not_yet(fid, wait))
    }

    /// Has others give up, until `until`, what they may not keep beside a session that has these files open and keeps nothing.
    ///
    /// It may go on without that only where it does nothing but read and the other one writes: its client looks at the
    /// attributes before each read, which waits for the answer of the one that was asked here. If it writes, what the other
    /// one keeps would be stored on top of that.
    pub(super) async fn make_way(
        &self,
        session: SessionId,
        opened: HashMap<Fid, Using>,
        until: Instant,
    ) -> FsResult<()> {
        let files = stream::iter(opened).map(Ok);
        let make_way = |(fid, using)| async move {
            match self.try_grant(session, fid, until).await? {
                Err(Wait { on: Some(_) })
                    if using < Using::Writing && self.shared.capabilities.is_written_elsewhere(session, fid) =>
                {
                    Ok(())
                }
                Err(wait) => Err(self.not_yet(fid, wait)),
                Ok(_nothing_is_said_of_it) => Ok(()),
            }
        };
        files.try_for_each_concurrent(MADE_WAY_AT_ONCE, make_way).await
    }

    async fn try_grant(&self, session: SessionId, fid: Fid, until: Instant) -> FsResult<Result<Grant, Wait>> {
        self.await_recovery(session, fid, until).await?;
        // What a session that ends does with the file would limit this one for as long as it has it open. As a rule it is gone
        // in a moment; one that is still there then counts as any other.
        let gone = |table: &mut CapabilityTable| Ok(table.ending_beside(session, fid).map_or(Ok(()), Err));
        let _gone_or_not = self.shared.capabilities.until(until, gone).await?;
        self.shared.capabilities.until(until, |table| table.grant(session, fid)).await
    }

    /// Whether a session could open the file so without anybody having to give up anything.
    pub(super) fn is_free(&self, session: SessionId, fid: Fid, access: op::Access) -> bool {
        self.shared.capabilities.lock().table.is_free(session, fid, using(access))
    }

    /// The file was made just now: nobody else can have it.
    pub(super) fn grant_new(&self, session: SessionId, fid: Fid) -> Grant {
        match self.shared.capabilities.lock().table.grant(session, fid) {
            Ok(Ok(grant)) => grant,
            // Somebody was quick: the client keeps nothing.
            _ => Grant::default(),
        }
    }

    /// Takes everything that others keep of the file, for a change of its extent.
    pub(super) async fn begin_change(&self, session: SessionId, fid: Fid) -> FsResult<Change> {
        let until = Instant::now() + HOLD_MAX;
        self.await_recovery(session, fid, until).await?;
        let begun = self.shared.capabilities.until(until, |table| Ok(table.begin_change(session, fid))).await?;
        begun.map_err(|wait| self.not_yet(fid, wait))?;
        Ok(Change { shared: Arc::clone(&self.shared), fid })
    }

    /// Attributes that `question` finds, with what their writer has not reported yet.
    pub async fn look(
        &self,
        session: SessionId,
        question: impl Fn(&dyn crate::store::ReadTxn) -> FsResult<Named> + Clone + Send + 'static,
    ) -> FsResult<Looked> {
        let capabilities = &self.shared.capabilities;
        let mut before = capabilities.changes.load(Ordering::Acquire);
        let mut named = self.ask(question.clone()).await?;
        while named.attr.file_type == FileType::Directory && self.is_held_elsewhere(session, named.attr.fid) {
            // Its holder knows better.
            self.await_release(session, named.attr.fid).await?;
            before = capabilities.changes.load(Ordering::Acquire);
            named = self.ask(question.clone()).await?;
        }
        let fid = named.attr.fid;
        if named.attr.file_type != FileType::Regular {
            return Ok(Looked { named, in_use: false });
        }
        // After a restart a writer may not have said yet that it is one. Not for long: one that is dead has taken what it kept
        // along.
        self.have_others_recovered(session, Instant::now() + LOOK_WAITS_MAX).await?;
        if !capabilities.is_written_elsewhere(session, fid) {
            // Who wrote may have reported and closed it since.
            let same = capabilities.changes.load(Ordering::Acquire) == before;
            let named = if same { named } else { self.ask(question).await? };
            return Ok(Looked { named, in_use: false });
        }
        let told = self.ask_writer(session, fid).await?;
        // Again: what was reported meanwhile is in it.
        let mut named = self.ask(question).await?;
        let attr = &mut named.attr;
        if let Some(told) = told.filter(|_| attr.fid == fid) {
            attr.size = attr.size.max(told.size);
            if let Some(mtime) = told.mtime {
                attr.mtime = attr.mtime.max(mtime);
                attr.ctime = attr.ctime.max(mtime);
            }
        }
        Ok(Looked { named, in_use: true })
    }

    /// Adds attributes to entries of a directory: not of files that another session has open for writing, and not of directories
    /// that another one holds. Who wants to know about those looks them up.
    pub async fn add_attributes(&self, session: SessionId, entries: &mut [op::DirEntry]) -> FsResult<()> {
        if entries.is_empty() {
            return Ok(());
        }
        self.have_others_recovered(session, Instant::now() + LOOK_WAITS_MAX).await?;
        // Before and after: who reports and closes meanwhile may have done so after the look, who opens before it.
        let before = self.are_changed_elsewhere(session, entries);
        let fids: Vec<Fid> = entries.iter().map(|entry| entry.fid).collect();
        let attrs = if fids.len() <= BRIEF_PAGE as usize {
            self.ask(move |tx| namespace::get_attrs(tx, &fids)).await?
        } else {
            self.read(move |tx| namespace::get_attrs(tx, &fids)).await?
        };
        let after = self.are_changed_elsewhere(session, entries);
        for ((entry, attr), changed) in entries.iter_mut().zip(attrs).zip(before.into_iter().zip(after)) {
            entry.attr = attr.filter(|_| changed == (false, false));
        }
        Ok(())
    }

    fn are_changed_elsewhere(&self, session: SessionId, entries: &[op::DirEntry]) -> Vec<bool> {
        let state = self.shared.capabilities.lock();
        let is_changed = |entry: &op::DirEntry| match entry.file_type {
            FileType::Directory => self.is_held_elsewhere(session, entry.fid),
            _ => state.table.is_written_elsewhere(session, entry.fid),
        };
        entries.iter().map(is_changed).collect()
    }

    /// Size and time of a file from the client that may keep them to itself.
    async fn ask_writer(&self, session: SessionId, fid: Fid) -> FsResult<Option<Unreported>> {
        let until = Instant::now() + HOLD_MAX;
        let mut asked = None;
        let told = self.shared.capabilities.until(until, |table| {
            let Some((writer, number)) = asked.or_else(|| table.ask_writer(session, fid)) else { return Ok(Ok(None)) };
            asked = Some((writer, number));
            Ok(table.told(writer, fid, number).ok_or(Wait { on: Some(writer) }))
        });
        told.await?.map_err(|wait| self.not_yet(fid, wait))
    }

    /// A client's answer to a recall.
    pub fn answer_recall(
        &self,
        session: SessionId,
        fid: Fid,
        number: u64,
        (using, unreported): (Using, Unreported),
    ) -> FsResult<()> {
        self.touch(session)?;
        self.shared.capabilities.lock().table.answer(session, fid, number, using, unreported);
        self.shared.capabilities.tell();
        Ok(())
    }

    /// The session listens to recalls; gives the number of its stream, and who tells when there are some.
    pub fn listen(&self, session: SessionId) -> FsResult<(u64, Arc<Notify>)> {
        let mut clients = self.shared.clients.lock();
        clients.touch(session, Instant::now())?;
        let mut state = self.shared.capabilities.lock();
        let stream = state.table.listen(session);
        let listener = Arc::clone(state.listeners.entry(session).or_default());
        // The stream before this one looks, and ends.
        listener.notify_waiters();
        Ok((stream, listener))
    }

    /// Recalls that a stream has not carried yet; `None` when it is not the session's any more.
    pub fn take_recalls(&self, session: SessionId, stream: u64) -> Option<Vec<(Fid, Recall)>> {
        self.shared.capabilities.lock().table.take_recalls(session, stream)
    }

    /// Files that are open, and recalls without an answer.
    pub fn capability_counts(&self) -> (usize, usize) {
        self.shared.capabilities.lock().table.counts()
    }

    /// After a restart nothing is granted until every client has said what it has.
    async fn await_recovery(&self, session: SessionId, fid: Fid, until: Instant) -> FsResult<()> {
        if self.is_recovered(session, true, until).await? {
            return Ok(());
        }
        Err(FsError::new(FsCode::Awaiting, format!("{fid}: not every client has said yet what it has open"))
            .with_hint("the MDS was restarted; it waits for them for one lease"))
    }

    fn not_yet(&self, fid: Fid, wait: Wait) -> FsError {
        let Some(session) = wait.on else {
            return FsError::new(FsCode::Unavailable, format!("{fid} is being truncated"))
                .with_hint("see which OSTs are down: sateen status");
        };
        let name = self.shared.clients.lock().name(session).unwrap_or_default();
        FsError::new(FsCode::Awaiting, format!("client {name} has not given up yet what it keeps of {fid}"))
            .with_hint("it stores what was written; if it is dead, its session ends with its lease")
    }
}

/// A change of a file's extent that is under way.
pub(super) struct Change {
    shared: Arc<Shared>,
    fid: Fid,
}

impl Drop for Change {
    fn drop(&mut self) {
        let capabilities = &self.shared.capabilities;
        capabilities.lock().table.end_change(self.fid);
        capabilities.tell();
    }
}
