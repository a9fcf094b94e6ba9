//! Directories that clients hold, as the server runs them: who holds what, in memory; recalls on their way; and those who
//! wait. The truth is in the tables ([`crate::namespace::held`]): what is here follows each change of them.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use parking_lot::Mutex;
use sateen_types::op::MutationReply;
use sateen_types::{Fid, FsCode, FsError, FsResult, LayoutTemplate, SessionId};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::{FileSystem, HOLD_MAX};
use crate::command::{Command, Outcome};
use crate::namespace::{self, held};

/// Directories that one client may hold: bounds memory here, about 200 bytes each.
pub const HELD_MAX: usize = 65_536;

/// See the module.
#[derive(Default)]
pub(super) struct Held {
    state: Mutex<State>,
    /// Told when a directory was given up.
    released: Notify,
}

#[derive(Default)]
struct State {
    dirs: HashMap<Fid, Holding>,
    of: HashMap<SessionId, HashSet<Fid>>,
}

struct Holding {
    by: SessionId,
    /// Somebody waits for it; the stream that has told its holder, 0 for none.
    recalled: Option<u64>,
}

impl Held {
    /// What is held when the server starts.
    pub fn new(known: Vec<(Fid, SessionId)>) -> Held {
        let held = Held::default();
        known.into_iter().for_each(|(dir, by)| held.set(dir, Some(by)));
        held
    }

    /// A directory is held from now on, or no longer.
    pub fn set(&self, dir: Fid, by: Option<SessionId>) {
        let mut state = self.state.lock();
        if let Some(before) = state.dirs.remove(&dir)
            && let Some(dirs) = state.of.get_mut(&before.by)
        {
            dirs.remove(&dir);
            if dirs.is_empty() {
                state.of.remove(&before.by);
            }
        }
        match by {
            Some(by) => {
                state.dirs.insert(dir, Holding { by, recalled: None });
                state.of.entry(by).or_default().insert(dir);
            }
            None => self.released.notify_waiters(),
        }
    }

    /// Whether any is.
    pub fn any(&self) -> bool {
        !self.state.lock().dirs.is_empty()
    }

    /// Whether the session may hold one more.
    pub fn has_room(&self, session: SessionId) -> bool {
        self.state.lock().of.get(&session).is_none_or(|dirs| dirs.len() < HELD_MAX)
    }

    /// The first of `dirs` that a session holds, unless it is the one named with it.
    pub fn elsewhere(&self, dirs: &[(Fid, SessionId)]) -> Option<(Fid, SessionId)> {
        let state = self.state.lock();
        dirs.iter().copied().find(|(dir, but)| state.dirs.get(dir).is_some_and(|h| h.by != *but))
    }

    /// Asks the holder, if it is another session, to give the directory up. Gives it if it was not asked before.
    fn recall(&self, session: SessionId, dir: Fid) -> Wait {
        let mut state = self.state.lock();
        match state.dirs.get_mut(&dir) {
            Some(holding) if holding.by != session => {
                let asked = holding.recalled.is_some();
                holding.recalled = holding.recalled.or(Some(0));
                Wait::For { holder: holding.by, asked }
            }
            _ => Wait::No,
        }
    }

    /// Directories of the session that somebody waits for and that this stream has not told of.
    pub fn take_recalls(&self, session: SessionId, stream: u64, most: usize) -> Vec<Fid> {
        let mut state = self.state.lock();
        let State { dirs, of } = &mut *state;
        let mut recalls = Vec::new();
        for dir in of.get(&session).into_iter().flatten() {
            let Some(told) = dirs.get_mut(dir).and_then(|h| h.recalled.as_mut()) else { continue };
            if *told != stream && recalls.len() < most {
                *told = stream;
                recalls.push(*dir);
            }
        }
        recalls
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.state.lock().dirs.len()
    }
}

enum Wait {
    No,
    For { holder: SessionId, asked: bool },
}

impl FileSystem {
    /// Waits until no other session holds the directory (or whatever it is).
    pub async fn await_release(&self, session: SessionId, dir: Fid) -> FsResult<()> {
        let until = Instant::now() + HOLD_MAX;
        let held = &self.shared.held;
        loop {
            let told = held.released.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            let holder = match held.recall(session, dir) {
                Wait::No => return Ok(()),
                Wait::For { holder, asked } => {
                    if !asked {
                        self.shared.capabilities.wake(holder);
                    }
                    holder
                }
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let name = self.shared.clients.lock().name(holder).unwrap_or_else(|| holder.to_string());
                let what = format!("client {name} has not told yet what it changed in directory {dir}");
                return Err(FsError::new(FsCode::Awaiting, what)
                    .with_hint("it has the directory to itself; if it is dead, its session ends with its lease"));
            }
            // Either way the next look decides.
            let _ = tokio::time::timeout(left, told).await;
        }
    }

    /// Whether another session holds it.
    pub fn is_held_elsewhere(&self, session: SessionId, dir: Fid) -> bool {
        self.shared.held.elsewhere(&[(dir, session)]).is_some()
    }

    /// What new files get in a directory that the session has just made, if it holds it.
    pub async fn template_if_held(&self, session: SessionId, made: &MutationReply) -> FsResult<Option<LayoutTemplate>> {
        let MutationReply::Entry(entry) = made else { return Ok(None) };
        let dir = entry.attr.fid;
        self.ask(move |tx| {
            let held = held::is_held_by(tx, session, dir)?;
            held.then(|| namespace::inherited_template(tx, dir).map(|(template, _)| template)).transpose()
        })
        .await
    }

    /// A sequence of FIDs for what the session makes in directories that it holds.
    pub async fn lend_sequence(&self, session: SessionId) -> FsResult<u64> {
        self.touch(session)?;
        match self.submit(Command::LendSequence { session }).await? {
            Outcome::Sequence(sequence) => Ok(sequence),
            _ => Err(FsError::new(FsCode::Internal, "lending a sequence gave none")),
        }
    }

    /// The session gives directories up.
    pub async fn release(&self, session: SessionId, dirs: Vec<Fid>) -> FsResult<()> {
        self.touch(session)?;
        self.submit(Command::Release { session, dirs }).await.map(drop)
    }

    /// Applies a correction, when no client has the directories it changes to itself; blocks.
    ///
    /// # Errors
    /// `Busy`: rows are not as they were. `Awaiting`: a client does not give a directory up.
    pub fn mend_blocking(&self, mend: &Command) -> FsResult<Outcome> {
        loop {
            match self.submit_blocking(mend.clone())? {
                Outcome::Held { dir, but } => Handle::current().block_on(self.await_release(but, dir))?,
                outcome => return Ok(outcome),
            }
        }
    }

    /// Directories that a stream of the session has not told of and somebody waits for.
    pub fn take_held_recalls(&self, session: SessionId, stream: u64, most: usize) -> Vec<Fid> {
        self.shared.held.take_recalls(session, stream, most)
    }

    /// Directories that clients hold, for people.
    pub fn held_count(&self) -> usize {
        self.shared.held.count()
    }
}
