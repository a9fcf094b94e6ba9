//! One file system as the server runs it: its tables, its writer thread, its clients. Everything that needs more than
//! one of these at once is here; what a change does is in [`crate::namespace`].

mod capabilities;
mod changelog;
mod held;
mod locks;
pub mod repository;
mod sessions;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures::future::join_all;
use parking_lot::{Mutex, RwLock};
use sateen_types::op::{self, Mutation, MutationReply};
use sateen_types::{
    Attr, Capability, Compression, Credential, Fid, FsCode, FsError, FsId, FsName, FsResult, Grant, Layout, Remote,
    RepositoryId, SessionId, Timestamp, Using,
};
use tokio::sync::{Notify, Semaphore, watch};

use crate::clients::{ClientTable, Known};
use crate::command::{Command, Outcome, Request};
use crate::mdt_disk::MdtDisk;
use crate::namespace;
use crate::placement::Candidate;
use crate::registry::Registry;
use crate::store::codec::Record;
use crate::store::records::SessionRecord;
use crate::store::{ReadTxn, Store, Table, keys};
use crate::writer::{Host, Writer};

pub use capabilities::Looked;
use capabilities::{Capabilities, HOLD_MAX};
pub use held::HELD_MAX;
use held::Held;
pub use locks::Changed;
use locks::Locks;
use repository::Repositories;

/// Questions answered at once; each takes a thread of the blocking pool, others wait.
const READS_MAX: usize = 64;
/// How long a truncate waits for its OSTs before the client is told to ask again.
const TRUNCATE_WAIT: Duration = Duration::from_secs(20);
/// How often a file is loaded for a truncate that was released again before it; then the client asks again.
const RESIZE_TRIES: usize = 3;

/// One open of a client, as it says after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stated {
    /// Which file.
    pub fid: Fid,
    /// Of this open.
    pub number: u64,
    /// What is done with the file.
    pub using: Using,
    /// What is kept of it.
    pub keeps: Capability,
}

/// What never changes while a file system lives.
#[derive(Clone, Debug)]
pub struct FsInfo {
    /// Number; names its directories.
    pub id: FsId,
    /// Name; what clients mount.
    pub name: FsName,
    /// How chunks are stored.
    pub compression: Compression,
    /// When it was made.
    pub created: Timestamp,
}

/// See the module.
pub struct FileSystem {
    /// Identity.
    pub info: FsInfo,
    store: Arc<dyn Store>,
    shared: Arc<Shared>,
    writer: Writer,
    reads: Semaphore,
}

/// What the writer thread and the rest of the server both use.
struct Shared {
    clients: Mutex<ClientTable>,
    capabilities: Capabilities,
    locks: Locks,
    held: Held,
    repositories: Repositories,
    registry: Arc<RwLock<Registry>>,
    disk: Arc<MdtDisk>,
    intents: Notify,
    /// Rises with every commit that finished or added intents.
    intents_version: watch::Sender<u64>,
    abort: fn(&FsError),
}

impl Host for Shared {
    fn osts(&self) -> Arc<Vec<Candidate>> {
        self.registry.read().candidates()
    }

    fn disk_low(&self) -> bool {
        self.disk.is_low()
    }

    fn claim(&self, fid: Fid) -> bool {
        let mut clients = self.clients.lock();
        // A worker that writes to it counts as one that has it open, and so does a change of its extent.
        !self.repositories.may_be_written(fid) && !self.capabilities.is_changing(fid) && clients.claim(fid)
    }

    fn is_written(&self, fid: Fid) -> bool {
        Shared::is_written(self, fid)
    }

    fn left_alone(&self, link: RepositoryId, stamp: u64, keys: &[&[u8]]) -> BTreeSet<Vec<u8>> {
        self.repositories.left_alone(link, stamp, keys)
    }

    fn release(&self, files: &[Fid]) {
        if !files.is_empty() {
            self.clients.lock().release(files);
        }
    }

    fn held_elsewhere(&self, dirs: &[(Fid, SessionId)]) -> Option<(Fid, SessionId)> {
        self.held.elsewhere(dirs)
    }

    fn any_held(&self) -> bool {
        self.held.any()
    }

    fn may_hold(&self, session: SessionId) -> bool {
        self.held.has_room(session)
    }

    fn held(&self, dir: Fid, by: Option<SessionId>) {
        self.held.set(dir, by);
    }

    fn applied(&self, command: &Command, outcome: &Outcome) {
        if let (Command::Repository(change), Outcome::Repository(answer)) = (command, outcome) {
            self.repositories.applied(change, answer);
        }
        let Command::Mutate(request) = command else { return };
        let (Mutation::Create(create), Outcome::Reply { reply: MutationReply::Entry(entry), .. }) =
            (&request.op, outcome)
        else {
            return;
        };
        if let Some(access) = create.open {
            let fid = entry.attr.fid;
            if access.write && entry.existed {
                self.repositories.opened_for_writing(fid);
            }
            let mut clients = self.clients.lock();
            match clients.opened(request.session, (fid, request.open)) {
                Ok(()) => self.capabilities.open(request.session, fid, access),
                Err(e) => tracing::debug!(%fid, "a created file was not opened: {e}"),
            }
        }
    }

    fn committed(&self, intents: bool, exports: bool) {
        if exports {
            self.repositories.exports_changed();
        }
        if intents {
            self.intents_version.send_modify(|v| *v += 1);
            self.intents.notify_one();
        }
    }

    fn fatal(&self, error: &FsError) {
        (self.abort)(error);
    }
}

/// Ends the process: after a failed commit nobody knows what is on disk, and a restart finds out.
pub fn abort_process(error: &FsError) {
    tracing::error!("the metadata store failed: {error}; the server stops so that nothing unsafe is answered");
    std::process::abort();
}

impl FileSystem {
    /// Starts serving what is in `store`. `abort` is called when a commit fails.
    pub fn start(
        info: FsInfo,
        store: Arc<dyn Store>,
        (registry, disk): (Arc<RwLock<Registry>>, Arc<MdtDisk>),
        lease: Duration,
        abort: fn(&FsError),
    ) -> FsResult<FileSystem> {
        repository::keep_links(&*store)?;
        let known = sessions_of(&*store)?;
        if !known.is_empty() {
            tracing::info!(fs = %info.name, sessions = known.len(), "waiting for clients to say what they have open");
        }
        let shared = Arc::new(Shared {
            clients: Mutex::new(ClientTable::new(lease, known, Instant::now())),
            capabilities: Capabilities::new(),
            locks: Locks::default(),
            held: Held::new(namespace::held::all(&*store.snapshot())?),
            repositories: Repositories::new(&*store.snapshot(), Instant::now())?,
            registry,
            disk,
            intents: Notify::new(),
            intents_version: watch::Sender::new(0),
            abort,
        });
        let writer = Writer::start(info.name.as_str(), store.clone(), shared.clone())
            .map_err(|e| FsError::new(FsCode::Io, format!("cannot start the writer thread of {}: {e}", info.name)))?;
        Ok(FileSystem { info, store, shared, writer, reads: Semaphore::new(READS_MAX) })
    }

    /// Asks one consistent view of the tables something short: at once if what it needs is in memory, otherwise on a thread
    /// that may block, from the start.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl Fn(&dyn ReadTxn) -> FsResult<T> + Send + 'static,
    ) -> FsResult<T> {
        match self.ask_memory(&question) {
            Some(answer) => answer,
            None => self.read(question).await,
        }
    }

    /// The answer to something short, if what it needs is in memory.
    pub fn ask_memory<T>(&self, question: &impl Fn(&dyn ReadTxn) -> FsResult<T>) -> Option<FsResult<T>> {
        let view = self.store.snapshot_in_memory();
        let answer = question(&*view);
        (!view.missed()).then_some(answer)
    }

    /// Asks one consistent view of the tables something that may take long, on a thread that may block.
    pub async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn ReadTxn) -> FsResult<T> + Send + 'static,
    ) -> FsResult<T> {
        let _permit = self.reads.acquire().await.map_err(|_| stopping())?;
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || question(&*store.snapshot())).await.map_err(|_| stopping())?
    }

    /// Hands a command to the writer.
    pub async fn submit(&self, command: Command) -> FsResult<Outcome> {
        self.writer.submit(command).await
    }

    /// Hands a command to the writer, from a thread outside the runtime.
    pub fn submit_blocking(&self, command: Command) -> FsResult<Outcome> {
        self.writer.submit_blocking(command)
    }

    // ---- changes ----

    /// A client's change; with a file that was opened, what may be kept of it and what is missing. A truncate is answered when every OST has
    /// done its part, and nobody else keeps anything of the file meanwhile.
    pub async fn execute(
        self: &Arc<Self>,
        request: Request,
    ) -> FsResult<(MutationReply, Option<Grant>, Option<Remote>)> {
        let session = request.session;
        self.touch(session)?;
        let wanted = match &request.op {
            Mutation::Create(create) => create.open,
            _ => None,
        };
        let opens = wanted.is_some();
        if opens {
            self.refuse_open(session)?;
        }
        let resized = match &request.op {
            Mutation::SetAttr(op) if op.size.is_some() => Some(op.fid),
            Mutation::SetLayout { fid, .. } => Some(*fid),
            _ => None,
        };
        let reply = match resized {
            None => self.apply(request).await?,
            Some(fid) => {
                // Whoever may not change it takes nothing from others.
                let asked = request.clone();
                self.ask(move |tx| namespace::refuse_forbidden(tx, &asked)).await?;
                let mut closed = self.make_resizable(&request).await?;
                let mut change = self.begin_change(session, fid).await?;
                // It may have been released since it was loaded. While the change lasts it is not.
                for _ in 0..RESIZE_TRIES {
                    if closed.is_some() || !self.is_to_be_loaded(&request).await? {
                        break;
                    }
                    drop(change);
                    closed = self.make_resizable(&request).await?;
                    change = self.begin_change(session, fid).await?;
                }
                let fs = Arc::clone(self);
                // To its end, also if the client goes away: until then nothing of the file is granted to others.
                let run = tokio::spawn(async move {
                    let reply = fs.apply(request).await?;
                    fs.await_truncate(fid).await?;
                    drop((change, closed));
                    FsResult::Ok(reply)
                });
                run.await.map_err(|e| FsError::new(FsCode::Internal, format!("a change of {fid} failed: {e}")))??
            }
        };
        match reply {
            MutationReply::Entry(entry) if opens && entry.existed => {
                let fid = entry.attr.fid;
                let grant = self.grant(session, fid).await?;
                // As others have left it.
                let is_written = wanted.is_some_and(|access| access.write);
                let question = move |tx: &dyn ReadTxn| {
                    let (layout, remote) = namespace::repository::layout_and_remote(tx, fid)?;
                    let known = is_written && namespace::repository::opened::counts(tx, fid)?;
                    Ok((namespace::get_attr(tx, fid)?, Some(layout), remote, known))
                };
                let (attr, layout, remote, known) = self.ask(question).await?;
                if known {
                    self.mark_opened(fid).await?;
                }
                Ok((MutationReply::Entry(op::Entry { attr, layout, ..entry }), Some(grant), remote))
            }
            MutationReply::Entry(entry) if opens => {
                let grant = self.grant_new(session, entry.attr.fid);
                Ok((MutationReply::Entry(entry), Some(grant), None))
            }
            reply => Ok((reply, None, None)),
        }
    }

    async fn apply(&self, request: Request) -> FsResult<MutationReply> {
        loop {
            match self.submit(Command::Mutate(Box::new(request.clone()))).await? {
                Outcome::Reply { reply, .. } => return Ok(reply),
                Outcome::Held { dir, but } => self.await_release(but, dir).await?,
                _ => return Err(FsError::new(FsCode::Internal, "a change was answered without a reply")),
            }
        }
    }

    /// Changes of a client's log, in their order, up to the first that fails: their answers, and why that one failed.
    pub async fn apply_log(
        &self,
        requests: Vec<Request>,
    ) -> FsResult<(Vec<(MutationReply, Option<Grant>)>, Option<FsError>)> {
        let opened = |r: &Request| matches!(&r.op, Mutation::Create(create) if create.open.is_some());
        let opens: Vec<bool> = requests.iter().map(opened).collect();
        let Some(session) = requests.first().map(|r| r.session) else { return Ok(Default::default()) };
        self.touch(session)?;
        if opens.contains(&true) {
            self.refuse_open(session)?;
        }
        // All at once, so that few commits carry them.
        let mut queued = Vec::with_capacity(requests.len());
        for request in requests {
            queued.push(self.writer.enqueue(Command::Mutate(Box::new(request))).await?);
        }
        let mut replies = Vec::new();
        for (outcome, opens) in queued.into_iter().zip(opens) {
            let reply = match outcome.await {
                Ok(Outcome::Reply { reply, .. }) => reply,
                Ok(_) => {
                    let what = "a change of a log touches a directory that another client holds";
                    return Ok((replies, Some(FsError::new(FsCode::Busy, what))));
                }
                Err(error) => return Ok((replies, Some(error))),
            };
            let grant = match &reply {
                MutationReply::Entry(entry) if opens => Some(self.grant_new(session, entry.attr.fid)),
                _ => None,
            };
            replies.push((reply, grant));
        }
        Ok((replies, None))
    }

    /// `Unavailable` or `Busy` if a session may not open anything now.
    fn refuse_open(&self, session: SessionId) -> FsResult<()> {
        self.shared.clients.lock().check_open(session)
    }

    async fn await_truncate(&self, fid: Fid) -> FsResult<()> {
        let mut version = self.shared.intents_version.subscribe();
        let done = async {
            loop {
                version.mark_unchanged();
                if !self.ask(move |tx| namespace::has_pending_truncate(tx, fid)).await? {
                    return Ok(());
                }
                version.changed().await.map_err(|_| stopping())?;
            }
        };
        match tokio::time::timeout(TRUNCATE_WAIT, done).await {
            Ok(result) => result,
            Err(_) => Err(FsError::new(
                FsCode::Unavailable,
                format!("the truncate of {fid} has not reached every OST yet; it goes on"),
            )
            .with_hint("see which OSTs are down: sateen status")),
        }
    }

    // ---- open files ----

    /// Opens a file for a session, under a number; gives what is missing of it and what the client may keep, too.
    pub async fn open(
        &self,
        session: SessionId,
        who: Credential,
        (fid, number): (Fid, u64),
        wanted: op::Access,
    ) -> FsResult<(Attr, Option<Layout>, Option<Remote>, Grant)> {
        {
            let mut clients = self.shared.clients.lock();
            clients.touch(session, Instant::now())?;
            clients.check_open(session)?;
            // Counted before looking: from here on the writer does not destroy it.
            clients.begin_open(session, (fid, number))?;
        }
        let opening = Opening { fs: self, session, fid, number, ended: false };
        let question = move |tx: &dyn ReadTxn| {
            let (attr, layout) = namespace::open(tx, &who, fid, wanted)?;
            let known = wanted.write && namespace::repository::opened::counts(tx, fid)?;
            Ok((attr, layout, namespace::repository::remote(tx, fid)?, known))
        };
        if !self.is_free(session, fid, wanted) {
            // Whoever may not open it takes nothing from others.
            self.ask(question.clone()).await?;
        }
        {
            // With the clients locked: a session that has just ended has nothing open.
            let mut clients = self.shared.clients.lock();
            clients.touch(session, Instant::now())?;
            self.shared.capabilities.open(session, fid, wanted);
            if wanted.write {
                self.shared.repositories.opened_for_writing(fid);
            }
        }
        let grant = self.grant(session, fid).await?;
        // After the grant: what others have given up is in it.
        let (attr, layout, remote, known) = self.ask(question).await?;
        if known {
            self.mark_opened(fid).await?;
        }
        if let Err(e) = opening.opened() {
            self.unmark_closed(vec![fid]).await?;
            return Err(e);
        }
        Ok((attr, layout, remote, grant))
    }

    /// Ends opens, and drops those files that have no name and that nobody has open now.
    pub async fn close(&self, session: SessionId, opens: &[(Fid, u64)], number: u64) -> FsResult<()> {
        let fids: Vec<Fid> = opens.iter().map(|(fid, _)| *fid).collect();
        let (mut closed, gone) = {
            let mut clients = self.shared.clients.lock();
            clients.touch(session, Instant::now())?;
            let closed = clients.close(session, opens, number)?;
            let gone: Vec<Fid> = fids.iter().copied().filter(|fid| !clients.has_open(session, *fid)).collect();
            self.shared.capabilities.closed(session, gone.iter().copied());
            (closed, gone)
        };
        self.unmark_closed(gone).await?;
        self.shared.repositories.closed(Some(&fids));
        closed.sort_unstable();
        closed.dedup();
        self.drop_orphans(closed).await
    }

    /// Drops those of `fids` that have no name and that nobody has open.
    pub async fn drop_orphans(&self, fids: Vec<Fid>) -> FsResult<()> {
        let orphans = self.read(move |tx| {
            let is_orphan = |fid: &Fid| Ok::<_, FsError>(tx.get(Table::Orphans, &keys::fid(*fid))?.is_some());
            fids.into_iter().filter_map(|fid| is_orphan(&fid).map(|is| is.then_some(fid)).transpose()).collect()
        });
        let orphans: Vec<Fid> = orphans.await?;
        let dropped = orphans.into_iter().map(|fid| self.submit(Command::DropOrphan { fid }));
        join_all(dropped).await.into_iter().try_for_each(|outcome| outcome.map(drop))
    }

    /// Up to `limit` files without a name behind `after` that nobody can have open.
    pub async fn closed_orphans(&self, after: Option<Fid>, limit: usize) -> FsResult<(Vec<Fid>, Option<Fid>)> {
        let rows = self.read(move |tx| tx.scan(Table::Orphans, &[], after.map(keys::fid).as_deref(), limit)).await?;
        let fids = rows.iter().map(|(key, _)| keys::parse_fid(key)).collect::<FsResult<Vec<_>>>()?;
        let next = if fids.len() == limit { fids.last().copied() } else { None };
        let clients = self.shared.clients.lock();
        Ok((fids.into_iter().filter(|f| !clients.may_be_open(*f)).collect(), next))
    }

    // ---- intents ----

    /// Completes when intents may have been added since the last call. Does not keep the file system open.
    pub fn intents_added(&self) -> impl Future<Output = ()> + Send + 'static {
        let shared = self.shared.clone();
        async move { shared.intents.notified().await }
    }

    /// Tells when the last user of the tables has gone.
    pub fn store_handle(&self) -> Weak<dyn Store> {
        Arc::downgrade(&self.store)
    }
}

fn stopping() -> FsError {
    FsError::new(FsCode::Unavailable, "the server is stopping")
}

/// A file that is being opened: was not, unless it is said. The caller may go away at any await.
struct Opening<'a> {
    fs: &'a FileSystem,
    session: SessionId,
    fid: Fid,
    number: u64,
    ended: bool,
}

impl Opening<'_> {
    /// It was opened. `Unavailable` if it was closed since: whoever asked has given up.
    fn opened(mut self) -> FsResult<()> {
        let (session, open) = (self.session, (self.fid, self.number));
        self.ended = self.fs.shared.clients.lock().end_open(session, open, true);
        match self.ended {
            true => Ok(()),
            false => Err(FsError::new(FsCode::Unavailable, format!("{} was closed while it was opened", self.fid))),
        }
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let shared = &self.fs.shared;
        let mut clients = shared.clients.lock();
        // A session that ended meanwhile has taken its opens with it.
        clients.end_open(self.session, (self.fid, self.number), false);
        let gone = (!clients.has_open(self.session, self.fid)).then_some(self.fid);
        shared.capabilities.closed(self.session, gone.into_iter());
    }
}

fn sessions_of(store: &dyn Store) -> FsResult<Vec<Known>> {
    let rows = store.snapshot().scan(Table::Sessions, &[], None, 2 * crate::clients::SESSIONS_MAX)?;
    let known = |(key, value): &(Vec<u8>, Vec<u8>)| {
        let SessionRecord { client, writer, .. } = SessionRecord::from_bytes(value)?;
        Ok(Known { session: keys::parse_session(key)?, name: client, writer })
    };
    rows.iter().map(known).collect()
}
