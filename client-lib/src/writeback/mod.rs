//! Write-back of names: in directories that this client made and has to itself, changes are answered here and told to the
//! MDS later, in order. What may be done so is decided by the [`tree`]; this is its shell.
//!
//! Others who want such a directory make the MDS ask for it (a message on the stream of recalls): then the log is told,
//! and the directory given up for good. Before the MDS is asked about an inode, or asked to change it, it is told what the
//! log says of it ([`WriteBack::told`]). So a program sees one order of events, and other clients see the same.
//!
//! What was not told yet goes with this client, as what was not written goes with a kernel: at most [`GATHER`] and the
//! time of a request later it is at the MDS. `fsync` of a file or directory waits for all of it.
//!
//! Tasks: one that tells the log, one per directory that is being given up.

mod tell;
mod tree;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sateen_proto::mds as wire;
use sateen_types::op::{Access, Mutation, MutationReply, NewMode};
use sateen_types::{Attr, Credential, Fid, FsCode, FsError, FsResult, LayoutTemplate, Name, Timestamp};
use tokio::sync::Notify;

use crate::failure::Failure;
use crate::lease::Lease;
use crate::session::Session;
pub(crate) use tell::run;
pub(crate) use tree::Made;
use tree::Tree;

/// How long changes wait for others, to be told together.
const GATHER: Duration = Duration::from_millis(10);
/// Changes in the log at most; who makes more waits.
const LOG_MAX: usize = 16_384;

/// See the module.
#[derive(Debug)]
pub(crate) struct WriteBack {
    tree: Mutex<Tree>,
    asking: Mutex<Asking>,
    /// There is something to tell.
    work: Notify,
    /// Somebody waits until it is told.
    hurry: Notify,
    hurried: AtomicBool,
    /// The MDS was told something, or will not be.
    progress: Notify,
    /// As long as it lasts nobody else can have been given what is held here.
    lease: Arc<Lease>,
    /// What was answered here and refused there.
    failure: Mutex<Failure>,
}

/// Directories that the MDS is being asked to let this client hold.
#[derive(Debug, Default)]
struct Asking {
    requests: usize,
    /// Those that somebody else wanted before the answer came.
    refused: HashSet<Fid>,
    /// How many sessions were lost: an answer to an earlier one says nothing of what is held now.
    lost: u64,
}

impl WriteBack {
    /// Of a session with this lease.
    pub fn new(lease: Arc<Lease>) -> WriteBack {
        WriteBack {
            tree: Mutex::default(),
            asking: Mutex::default(),
            work: Notify::new(),
            hurry: Notify::new(),
            hurried: AtomicBool::new(false),
            progress: Notify::new(),
            lease,
            failure: Mutex::default(),
        }
    }

    /// What there is that the MDS may not know, whoever has the last word.
    pub fn known<T>(&self, ask: impl FnOnce(&Tree) -> Option<T>) -> Option<T> {
        let tree = self.tree.lock();
        if tree.is_idle() { None } else { ask(&tree) }
    }

    /// Asks what is known, or does what can be done here. Not if the session may be gone: then the MDS decides, who may have
    /// given to others what is held here.
    pub fn local<T>(&self, act: impl FnOnce(&mut Tree, Timestamp) -> Option<T>) -> Option<T> {
        let mut tree = self.tree.lock();
        if tree.is_idle() || self.lease.is_over() {
            return None;
        }
        let end = tree.end();
        let done = act(&mut tree, Timestamp::now());
        if tree.end() > end {
            self.work.notify_one();
        }
        done
    }

    /// Inodes may be numbered here.
    pub fn lent(&self, sequence: u64) {
        self.tree.lock().lent(sequence);
    }

    /// The MDS has told attributes of an inode.
    pub fn observe(&self, attr: &Attr) {
        let mut tree = self.tree.lock();
        if !tree.is_idle() {
            tree.observe(attr);
        }
    }

    /// Takes in what the MDS answered to a change that went there at once; `None`: that is not known, or it failed.
    pub fn changed(&self, op: &Mutation, reply: Option<&MutationReply>) {
        let mut tree = self.tree.lock();
        if tree.is_idle() {
            return;
        }
        match reply {
            Some(MutationReply::Attr(attr)) => tree.observe(attr),
            _ => named(op).into_iter().for_each(|fid| tree.doubt(fid)),
        }
    }

    /// Whether the MDS has not been told all about an inode.
    pub fn is_pending(&self, fid: Fid) -> bool {
        let tree = self.tree.lock();
        !tree.is_idle() && tree.needed(fid).is_some()
    }

    /// Whether a directory is held here.
    pub fn holds(&self, dir: Fid) -> bool {
        self.tree.lock().holds(dir)
    }

    /// Waits until the MDS knows all that was done here to these inodes and to names in them.
    pub async fn told(&self, session: &Session, fids: &[Fid]) -> FsResult<()> {
        self.used(fids);
        let needed = {
            let tree = self.tree.lock();
            if tree.waiting() == 0 {
                return Ok(());
            }
            fids.iter().filter_map(|fid| tree.needed(*fid)).max()
        };
        match needed {
            Some(place) => self.until(session, |tree| tree.told() >= place).await,
            None => Ok(()),
        }
    }

    /// Waits until the MDS knows everything.
    pub async fn told_all(&self, session: &Session) -> FsResult<()> {
        let end = self.tree.lock().end();
        self.until(session, |tree| tree.told() >= end).await
    }

    /// Where somebody who is to hear of refused changes begins.
    pub fn seen_by_new_file(&self) -> u64 {
        self.failure.lock().seen_by_new_file()
    }

    /// The error of a refused change after number `seen`, once.
    pub fn failed(&self, seen: &mut u64) -> FsResult<()> {
        self.failure.lock().take(seen)
    }

    /// Waits until there is room in the log.
    pub async fn room(&self, session: &Session) -> FsResult<()> {
        self.until(session, |tree| tree.waiting() < LOG_MAX).await
    }

    async fn until(&self, session: &Session, reached: impl Fn(&Tree) -> bool) -> FsResult<()> {
        let wait = async {
            loop {
                let progress = self.progress.notified();
                tokio::pin!(progress);
                progress.as_mut().enable();
                if reached(&self.tree.lock()) {
                    return Ok(());
                }
                self.hurried.store(true, Ordering::Release);
                self.hurry.notify_one();
                self.work.notify_one();
                tokio::select! {
                    () = progress => {}
                    () = session.stop.cancelled() => return Err(FsError::new(FsCode::Unavailable, "the client is closing")),
                }
            }
        };
        session.within_patience(wait, "to changes that were made here").await?
    }

    /// Gives up those of `dirs` that are held: afterwards everything in them goes to the MDS.
    pub async fn give_up(&self, session: &Arc<Session>, dirs: &[Fid]) -> FsResult<()> {
        self.used(dirs);
        let (leaving, end) = {
            let mut tree = self.tree.lock();
            let held = |tree: &mut Tree, dir: Fid| tree.leave(dir).map(|end| (dir, end));
            let leaving: Vec<_> = dirs.iter().filter_map(|dir| held(&mut tree, *dir)).collect();
            (leaving.iter().map(|(dir, _)| *dir).collect::<Vec<_>>(), leaving.iter().map(|(_, end)| *end).max())
        };
        let Some(end) = end else { return Ok(()) };
        self.until(session, |tree| tree.told() >= end).await?;
        {
            let mut tree = self.tree.lock();
            leaving.iter().for_each(|dir| tree.left(*dir));
        }
        let behind = Arc::clone(session);
        session.spawn(async move { release(&behind, &leaving).await });
        Ok(())
    }

    /// The MDS wants directories back.
    pub async fn recalled(&self, session: &Arc<Session>, dirs: Vec<Fid>) {
        let unknown: Vec<Fid> = {
            let (mut asking, tree) = (self.asking.lock(), self.tree.lock());
            let unknown: Vec<Fid> = dirs.iter().copied().filter(|dir| !tree.holds(*dir)).collect();
            if asking.requests > 0 {
                asking.refused.extend(unknown.iter().copied());
            }
            unknown
        };
        if !unknown.is_empty() {
            release(session, &unknown).await;
        }
        // Each try ends with the patience of the session; whoever wants them waits on.
        while let Err(error) = self.give_up(session, &dirs).await {
            if session.stop.is_cancelled() {
                return;
            }
            tracing::debug!(%error, "directories are not given up yet");
        }
    }

    /// Inodes are used through the MDS: if one of them is a directory that it has just made and not told of, what is in it is
    /// not known here.
    fn used(&self, fids: &[Fid]) {
        let mut asking = self.asking.lock();
        if asking.requests > 0 {
            asking.refused.extend(fids);
        }
    }

    /// The MDS will be asked for a new directory that may be held; gives in which session, or `None` if that is not wanted.
    pub fn ask(&self) -> Option<u64> {
        let (mut asking, tree) = (self.asking.lock(), self.tree.lock());
        if !tree.has_numbers() || !tree.may_hold() {
            return None;
        }
        asking.requests += 1;
        Some(asking.lost)
    }

    /// It has answered: with attributes and template of the directory if it is held now, by the session that has asked.
    pub fn asked(&self, session: u64, place: (Fid, &Name), held: Option<(Attr, LayoutTemplate)>) {
        let mut asking = self.asking.lock();
        asking.requests -= 1;
        if let Some((attr, template)) = held
            && session == asking.lost
            && !asking.refused.remove(&attr.fid)
        {
            self.tree.lock().hold_top(place, attr, template);
        }
        if asking.requests == 0 {
            asking.refused.clear();
        }
    }

    /// Every directory that is held.
    fn held(&self) -> Vec<Fid> {
        self.tree.lock().held()
    }

    /// The session is over: nothing is held any more, and what was not told never happened.
    pub fn lose_all(&self) {
        let mut asking = self.asking.lock();
        let mut tree = self.tree.lock();
        asking.lost += 1;
        let lost = tree.lose_all();
        if let Some(first) = lost.first() {
            let what = format!(
                "the session expired before {} changes of names were told, the first {:?}",
                lost.len(),
                first.op
            );
            tracing::error!("{what}");
            let hint = "look whether what was made last is there; `fsync` of a directory makes sure";
            // Before anybody can see that nothing waits any more.
            self.fail(FsError::new(FsCode::Io, what).with_hint(hint));
        }
        drop(tree);
        drop(asking);
        self.progress.notify_waiters();
    }

    fn fail(&self, error: FsError) {
        self.failure.lock().record(error);
    }

    /// Makes and opens a regular file, if its directory is held. Gives the number of the open, too.
    pub fn create(
        &self,
        session: &Session,
        cred: &Arc<Credential>,
        place: (Fid, &Name),
        mode: NewMode,
        open: Access,
    ) -> Option<(Made, u64)> {
        self.local(|tree, at| {
            let made = tree.create(cred, place, mode, open, at)?;
            // Before anybody can tell it, so that the MDS hears that it is open.
            let number = session.opening_alone(made.attr.fid, open.write);
            Some((made, number))
        })
    }
}

/// Inodes that a change names.
pub(crate) fn named(op: &Mutation) -> Vec<Fid> {
    match op {
        Mutation::Create(op) => vec![op.parent],
        Mutation::Mkdir { parent, .. }
        | Mutation::Mknod { parent, .. }
        | Mutation::Symlink { parent, .. }
        | Mutation::Unlink { parent, .. }
        | Mutation::Rmdir { parent, .. } => vec![*parent],
        Mutation::Link { fid, parent, .. } => vec![*fid, *parent],
        Mutation::Rename { parent, new_parent, .. } => vec![*parent, *new_parent],
        Mutation::SetAttr(op) => vec![op.fid],
        Mutation::WriteDone(op) => vec![op.fid],
        Mutation::ReadDone(op) => op.times.iter().map(|(fid, _)| *fid).collect(),
        Mutation::SetXattr { fid, .. }
        | Mutation::RemoveXattr { fid, .. }
        | Mutation::Instantiate { fid, .. }
        | Mutation::SetLayout { fid, .. }
        | Mutation::SetDefaultLayout { fid, .. } => vec![*fid],
    }
}

/// Tells the MDS that directories are not held any more, until it hears: others wait for them.
async fn release(session: &Session, dirs: &[Fid]) {
    let holder = session.incarnation().id;
    for dirs in dirs.chunks(sateen_types::limits::RELEASES_MAX) {
        let directories: Vec<_> = dirs.iter().map(|dir| (*dir).into()).collect();
        // With the session, what it held has gone.
        while session.incarnation().id == holder && !session.stop.is_cancelled() {
            let told = session.ask_writeback(|mut client, session_id| {
                let request = wire::ReleaseRequest { session_id, directories: directories.clone() };
                async move { client.release(request).await }
            });
            match told.await {
                Err(error) if error.code.is_retryable() => {
                    tracing::debug!(%error, "the MDS was not told yet that directories are free");
                }
                Err(error) => {
                    tracing::warn!(%error, "the MDS does not take directories back");
                    break;
                }
                Ok(_) => break,
            }
        }
    }
}

#[cfg(test)]
mod tests;
