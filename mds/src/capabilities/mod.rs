//! Capabilities of one file system: who may keep which data of a file in memory. A sans-IO table: it is told who opens,
//! answers and goes, and says what is granted and what must be recalled first; [`crate::fs`] keeps it behind one lock,
//! carries recalls to the clients, and wakes those who wait.
//!
//! One session and one file:
//!
//! ```text
//!             open ┌───────────────┐ others hold more than they may beside it
//!   nothing ──────►│ open, nothing │──────────► their capabilities are recalled ──┐
//!      ▲           └──────┬────────┘                                              │ all have answered
//!      │                  │ nobody is in the way                                  ▼
//!      │                  └────────────────────────────────────────────────► open, granted
//!      │                                                                          │ recalled, answered:
//!      │ closed, end of the session, "not open here" in an answer                 ▼ keeps less
//!      └───────────────────────────────────────────────────────────────── open, less or nothing
//! ```
//!
//! The invariants, for any two sessions that have a file open:
//! - one has [`Capability::Write`] only if it is the only one;
//! - one has [`Capability::Read`] only if the other does not write;
//! - while a change of the file's extent is under way ([`CapabilityTable::begin_change`]) nobody is granted anything, and
//!   others than the one who makes it have nothing.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};

use sateen_types::{Capability, Fid, FsCode, FsError, FsResult, Grant, Recall, SessionId, Unreported, Using};

/// Recalls given to a client at a time.
const RECALLS_MAX: usize = 1024;

/// See the module. Its size is bounded by the files that sessions may have open.
#[derive(Clone, Debug, Default)]
pub struct CapabilityTable {
    files: HashMap<Fid, File>,
    sessions: HashMap<SessionId, Session>,
    number: u64,
    /// Sessions with recalls that were not there before.
    woken: Vec<SessionId>,
}

#[derive(Clone, Debug, Default)]
struct File {
    holders: Vec<Holder>,
    /// Changes of its extent that are under way.
    changes: u32,
}

#[derive(Clone, Debug)]
struct Holder {
    session: SessionId,
    /// The most it does with the file: opens that were taken twice, or whose reply was lost, count until it says otherwise.
    using: Using,
    /// The most the client may believe it has. Falls only when an answer says so: grants may still be on their way.
    capability: Capability,
    recall: Option<Outstanding>,
    /// The client itself has said how it uses the file, and has not opened it since.
    confirmed: bool,
    /// The table's number when it was last opened.
    opened: u64,
    /// Number of the last recall whose answer counted.
    heard: u64,
    /// Number of the last recall that was answered, and what it told. What was asked before it opened the file is known.
    answered: (u64, Unreported),
}

/// A recall without an answer.
#[derive(Clone, Copy, Debug)]
struct Outstanding {
    recall: Recall,
    /// It was opened after the recall: the answer may be from before.
    opened_since: bool,
}

#[derive(Clone, Debug, Default)]
struct Session {
    /// It listens: number of its stream.
    stream: Option<u64>,
    /// Recalls that the stream has not carried, by number.
    queue: BTreeMap<u64, Fid>,
    files: HashSet<Fid>,
    /// Nothing of it is answered any more: it is gone soon.
    ending: bool,
}

/// What somebody must wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// One of those whose answer is missing; `None` if a change of the extent is under way.
    pub on: Option<SessionId>,
}

/// The most a session may have beside another that uses the file so.
fn allowed_beside(other: Using) -> Capability {
    match other {
        Using::Nothing => Capability::Write,
        Using::Reading => Capability::Read,
        Using::Writing => Capability::None,
    }
}

/// What a session wants that uses a file so.
fn wanted(using: Using) -> Capability {
    if using == Using::Writing { Capability::Write } else { Capability::Read }
}

impl CapabilityTable {
    /// Numbers begin above `number`: those of an earlier life of the server are lower.
    pub fn new(number: u64) -> CapabilityTable {
        CapabilityTable { number, ..CapabilityTable::default() }
    }

    /// The session opens the file, or is about to.
    pub fn open(&mut self, session: SessionId, fid: Fid, using: Using) {
        let (listens, number) = (self.listens(session), self.number);
        self.sessions.entry(session).or_default().files.insert(fid);
        let holders = &mut self.files.entry(fid).or_default().holders;
        let at = holders.iter().position(|h| h.session == session).unwrap_or_else(|| {
            holders.push(Holder::new(session, number));
            holders.len() - 1
        });
        let holder = &mut holders[at];
        holder.using = holder.using.max(using);
        // One that does not listen cannot be asked.
        holder.confirmed = !listens;
        holder.opened = number;
        if let Some(outstanding) = &mut holder.recall {
            outstanding.opened_since = true;
        }
    }

    /// Whether a session could open the file so without anybody having to give up anything.
    pub fn is_free(&self, session: SessionId, fid: Fid, using: Using) -> bool {
        let Some(file) = self.files.get(&fid) else { return true };
        let others = file.holders.iter().filter(|h| h.session != session);
        file.changes == 0 && others.into_iter().all(|h| h.capability <= allowed_beside(using))
    }

    /// Gives a session that has the file open what it may have, or says for whom it must wait; those are asked.
    pub fn grant(&mut self, session: SessionId, fid: Fid) -> FsResult<Result<Grant, Wait>> {
        let listens = self.listens(session);
        let not_open = || FsError::new(FsCode::Stale, format!("{fid} is not open in session {session}"));
        let file = self.files.get(&fid).ok_or_else(not_open)?;
        let Holder { using, opened, .. } = *file.holder(session).ok_or_else(not_open)?;
        if file.changes > 0 {
            return Ok(Err(Wait { on: None }));
        }
        if let Some(wait) = self.recall_beside(session, fid, using, Some(opened)) {
            return Ok(Err(wait));
        }
        self.number += 1;
        let number = self.number;
        let file = self.files.get_mut(&fid).ok_or_else(not_open)?;
        let most = file.allowed(file.holder(session).ok_or_else(not_open)?, file.writers()).min(wanted(using));
        let holder = file.holder_mut(session).ok_or_else(not_open)?;
        // Its answer to a recall takes effect after this.
        let left = holder.recall.map_or(Capability::Write, |o| o.recall.keep);
        let capability = if listens { most.min(left) } else { Capability::None };
        holder.capability = holder.capability.max(capability);
        Ok(Ok(Grant { capability, number }))
    }

    /// A session is about to change the file's extent, open or not: others may keep nothing. While the change lasts
    /// nothing is granted.
    pub fn begin_change(&mut self, session: SessionId, fid: Fid) -> Result<(), Wait> {
        if let Some(wait) = self.recall_beside(session, fid, Using::Writing, None) {
            return Err(wait);
        }
        self.files.entry(fid).or_default().changes += 1;
        Ok(())
    }

    /// The change is done, or was not made.
    pub fn end_change(&mut self, fid: Fid) {
        if let Some(file) = self.files.get_mut(&fid) {
            file.changes = file.changes.saturating_sub(1);
        }
        self.tidy(fid);
    }

    /// Recalls what others may not keep beside `session` that uses the file so. If it opens the file (when the number was
    /// `opened`), whoever limits what it is granted must really have it open: those who have not said so are asked, but one
    /// that opens it again and again only once.
    fn recall_beside(&mut self, session: SessionId, fid: Fid, using: Using, opened: Option<u64>) -> Option<Wait> {
        let mut wait = None;
        let writers = self.files.get(&fid)?.writers();
        for at in 0..self.files.get(&fid)?.holders.len() {
            let file = self.files.get(&fid)?;
            let holder = &file.holders[at];
            if holder.session == session {
                continue;
            }
            // Beside all, those who still wait included: so that it is asked once.
            let keep = file.allowed(holder, writers).min(allowed_beside(using));
            let limits = holder.using == Using::Writing || using == Using::Writing;
            let doubtful = limits && !holder.confirmed && opened.is_some_and(|opened| holder.heard <= opened);
            if holder.capability <= keep && !doubtful {
                continue;
            }
            let other = holder.session;
            wait = Some(Wait { on: Some(other) });
            let keep = keep.min(holder.capability);
            if holder.recall.is_none_or(|o| o.recall.keep > keep) {
                self.ask(other, fid, keep);
            }
        }
        wait
    }

    /// Asks a session that has the file open, in place of what it was asked before; gives the number.
    fn ask(&mut self, session: SessionId, fid: Fid, keep: Capability) -> u64 {
        self.number += 1;
        let recall = Recall { number: self.number, keep };
        let listener = self.sessions.entry(session).or_default();
        if let Some(holder) = self.files.get_mut(&fid).and_then(|f| f.holder_mut(session)) {
            // The opens so far came before this recall: the answer knows of them.
            let before = holder.recall.replace(Outstanding { recall, opened_since: false });
            before.map(|o| listener.queue.remove(&o.recall.number));
            listener.queue.insert(recall.number, fid);
            self.woken.push(session);
        }
        recall.number
    }

    /// Asks whoever may have written without telling (another session than `session`) for size and time; gives the number
    /// whose answer is awaited. `None`: the MDS knows them.
    pub fn ask_writer(&mut self, session: SessionId, fid: Fid) -> Option<(SessionId, u64)> {
        let holders = &self.files.get(&fid)?.holders;
        let holder = holders.iter().find(|h| h.session != session && h.capability == Capability::Write)?;
        let writer = holder.session;
        match holder.recall {
            // It is storing everything: then the MDS knows.
            Some(outstanding) if outstanding.recall.keep < Capability::Write => {
                Some((writer, outstanding.recall.number))
            }
            _ => Some((writer, self.ask(writer, fid, Capability::Write))),
        }
    }

    /// What a session told in answer to recall `number` or a later one: `Some(None)` if there is nothing that the MDS does
    /// not know, `None` if it has not answered.
    pub fn told(&self, writer: SessionId, fid: Fid, number: u64) -> Option<Option<Unreported>> {
        let Some(holder) = self.files.get(&fid).and_then(|f| f.holder(writer)) else { return Some(None) };
        if holder.answered.0 >= number {
            return Some(Some(holder.answered.1));
        }
        (holder.capability < Capability::Write).then_some(None)
    }

    /// Whether another session has the file open for writing: what is known of its data will not last.
    pub fn is_written_elsewhere(&self, session: SessionId, fid: Fid) -> bool {
        let writes = |h: &Holder| h.session != session && h.using == Using::Writing;
        self.files.get(&fid).is_some_and(|f| f.holders.iter().any(writes))
    }

    /// What the session has open for writing.
    pub fn written_by(&self, session: SessionId) -> Vec<Fid> {
        let writes = |fid: &&Fid| {
            let holder = self.files.get(fid).and_then(|file| file.holder(session));
            holder.is_some_and(|holder| holder.using == Using::Writing)
        };
        self.sessions.get(&session).into_iter().flat_map(|s| s.files.iter()).filter(writes).copied().collect()
    }

    /// Whether a change of the file's extent is under way.
    pub fn is_changing(&self, fid: Fid) -> bool {
        self.files.get(&fid).is_some_and(|file| file.changes > 0)
    }

    /// A client has answered a recall: what it was to store is stored and reported.
    pub fn answer(&mut self, session: SessionId, fid: Fid, number: u64, using: Using, unreported: Unreported) {
        let Some(file) = self.files.get_mut(&fid) else { return };
        let Some(holder) = file.holder_mut(session) else { return };
        if number > holder.answered.0 && number <= self.number {
            holder.answered = (number, unreported);
        }
        let Some(outstanding) = holder.recall.filter(|o| o.recall.number == number) else { return };
        holder.recall = None;
        holder.heard = number;
        holder.capability = holder.capability.min(outstanding.recall.keep);
        if let Some(known) = self.sessions.get_mut(&session) {
            known.queue.remove(&number);
        }
        if outstanding.opened_since {
            return;
        }
        (holder.using, holder.confirmed) = (using, true);
        if using == Using::Nothing {
            self.closed(session, fid);
        }
    }

    /// The session has the file open no longer.
    pub fn closed(&mut self, session: SessionId, fid: Fid) {
        let recall = self.files.get(&fid).and_then(|f| f.holder(session)).and_then(|h| h.recall);
        if let Some(known) = self.sessions.get_mut(&session) {
            known.files.remove(&fid);
            recall.map(|o| known.queue.remove(&o.recall.number));
        }
        if let Some(file) = self.files.get_mut(&fid) {
            file.holders.retain(|h| h.session != session);
        }
        self.tidy(fid);
    }

    /// The session is about to end.
    pub fn begin_ending(&mut self, session: SessionId) {
        if let Some(known) = self.sessions.get_mut(&session) {
            known.ending = true;
        }
    }

    /// Another session that has the file open and is about to end.
    pub fn ending_beside(&self, session: SessionId, fid: Fid) -> Option<Wait> {
        let ends = |s: SessionId| self.sessions.get(&s).is_some_and(|s| s.ending);
        let mut others = self.files.get(&fid)?.holders.iter().map(|h| h.session).filter(|s| *s != session);
        others.find(|other| ends(*other)).map(|other| Wait { on: Some(other) })
    }

    /// The session has ended, and all it had.
    pub fn end_session(&mut self, session: SessionId) {
        let Some(gone) = self.sessions.remove(&session) else { return };
        for fid in gone.files {
            if let Some(file) = self.files.get_mut(&fid) {
                file.holders.retain(|h| h.session != session);
            }
            self.tidy(fid);
        }
    }

    /// What a client had before the server was restarted.
    pub fn restate(&mut self, session: SessionId, fid: Fid, using: Using, capability: Capability) {
        self.open(session, fid, using);
        if let Some(holder) = self.files.get_mut(&fid).and_then(|f| f.holder_mut(session)) {
            holder.capability = holder.capability.max(capability);
        }
    }

    /// The session listens from now on, by this stream and no other. All that it has not answered is asked again.
    pub fn listen(&mut self, session: SessionId) -> u64 {
        self.number += 1;
        let stream = self.number;
        let known = self.sessions.entry(session).or_default();
        known.stream = Some(stream);
        for fid in &known.files {
            let holder = self.files.get(fid).and_then(|f| f.holder(session));
            if let Some(outstanding) = holder.and_then(|h| h.recall) {
                known.queue.insert(outstanding.recall.number, *fid);
            }
        }
        stream
    }

    /// Recalls that the stream has not carried yet. `None`: it is not the session's any more.
    pub fn take_recalls(&mut self, session: SessionId, stream: u64) -> Option<Vec<(Fid, Recall)>> {
        let known = self.sessions.get_mut(&session).filter(|s| s.stream == Some(stream))?;
        let mut recalls = Vec::new();
        while recalls.len() < RECALLS_MAX {
            let Some((_, fid)) = known.queue.pop_first() else { break };
            let outstanding = self.files.get(&fid).and_then(|f| f.holder(session)).and_then(|h| h.recall);
            recalls.extend(outstanding.map(|o| (fid, o.recall)));
        }
        Some(recalls)
    }

    /// Sessions that have recalls to be told of.
    pub fn take_woken(&mut self) -> Vec<SessionId> {
        std::mem::take(&mut self.woken)
    }

    /// Files that are open, and recalls without an answer, for people.
    pub fn counts(&self) -> (usize, usize) {
        let recalls = self.files.values().flat_map(|f| &f.holders).filter(|h| h.recall.is_some()).count();
        (self.files.len(), recalls)
    }

    fn listens(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|s| s.stream.is_some())
    }

    fn tidy(&mut self, fid: Fid) {
        if self.files.get(&fid).is_some_and(|f| f.holders.is_empty() && f.changes == 0) {
            self.files.remove(&fid);
        }
    }
}

impl Holder {
    fn new(session: SessionId, number: u64) -> Holder {
        Holder {
            session,
            using: Using::Nothing,
            capability: Capability::None,
            recall: None,
            confirmed: false,
            opened: number,
            heard: 0,
            answered: (number, Unreported::default()),
        }
    }
}

impl File {
    fn holder(&self, session: SessionId) -> Option<&Holder> {
        self.holders.iter().find(|h| h.session == session)
    }

    fn holder_mut(&mut self, session: SessionId) -> Option<&mut Holder> {
        self.holders.iter_mut().find(|h| h.session == session)
    }

    /// How many of those that have it open write.
    fn writers(&self) -> usize {
        self.holders.iter().filter(|h| h.using == Using::Writing).count()
    }

    /// The most one of the holders may have beside all others, `writers` of all.
    fn allowed(&self, holder: &Holder, writers: usize) -> Capability {
        let others = self.holders.len() - 1;
        let other_writers = writers - usize::from(holder.using == Using::Writing);
        match (others, other_writers) {
            (_, 1..) => Capability::None,
            (1.., 0) => Capability::Read,
            (0, 0) => Capability::Write,
        }
    }
}
