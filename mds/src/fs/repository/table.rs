//! Which ranges are wanted, who fetches them, and who waits. A sans-IO table: it is told the time and what happened; its
//! owner keeps it behind one lock and asks the tables on disk ([`crate::namespace::repository`]) what is true.
//!
//! ```text
//! range:  wanted -> out (assigned to a session) -> finishing -> loaded
//!                     |                               \-> failed (told to those who wait, then forgotten)
//!                     \-> wanted again, when the session has ended and was shut out
//! ```
//!
//! The invariant: no byte of a file is in two assignments, and none that is loaded is in any. After a restart nothing is known of
//! assignments, so no range is given out until every worker of the earlier life has said that it has none, or has ended.

pub mod exports;
mod extent;
mod file;
mod filled;
mod report;
mod reports;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sateen_types::limits::{ASSIGNMENTS_MAX, FILE_ASSIGNMENTS_MAX};
use sateen_types::repository::TaskId;
use sateen_types::{Extent, Fid, FsCode, FsError, FsResult, Remote, RepositoryId, RepositorySettings, SessionId};
use tokio::sync::Notify;

use exports::{ExportTable, Item};
use file::{File, Waiter};

/// Files of which something may be wanted at a time. Each takes a few hundred bytes.
pub const FILES_MAX: usize = 262_144;
/// Ranges of one file that may be wanted urgently at a time: more than its readers ask for.
const WANTED_MAX: usize = 1024;
/// How many finished assignments are remembered, for reports that come twice.
const FINISHED_KEPT: usize = 4096;
/// A bucket that cannot be read is looked at again after this.
pub const CHECK_AGAIN: Duration = Duration::from_secs(60);
/// One that can is looked at so often all the same: what is wrong with it is known before somebody needs it.
pub const CHECK_EVERY: Duration = Duration::from_secs(600);
/// What went wrong at a bucket makes it be looked at so often at most.
const DOUBT_AGAIN: Duration = Duration::from_secs(60);
/// Who watches a bucket and is silent for longer than this does it no longer.
pub const WATCH_SILENT_MAX: Duration = Duration::from_secs(60);

/// What an assignment is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Look at the bucket.
    Check(RepositoryId),
    /// The import of this number.
    Import(RepositoryId, u64),
    /// Tell of changes of the bucket.
    Watch(RepositoryId),
    /// A range of a file.
    Fetch {
        /// Which file.
        fid: Fid,
        /// Whole chunks, or up to the end of the object.
        range: Extent,
        /// Somebody waits.
        urgent: bool,
    },
    /// Something that waits for export.
    Export(Box<Item>),
    /// The report of a task.
    Report(RepositoryId, TaskId),
}

#[derive(Debug)]
struct Out {
    /// Whose it is; `None` while its report is being made durable.
    session: Option<SessionId>,
    task: Task,
    /// When it was given, or last heard of.
    heard: Instant,
    /// From before it was given.
    stamp: u64,
}

/// What is to be done for a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// A look at its bucket.
    pub check_at: Option<Instant>,
    /// An import.
    pub import: Option<u64>,
    /// A comparison that is due by itself.
    pub sync_at: Option<Instant>,
    /// Watching its bucket, by this source.
    pub watch: Option<String>,
    /// Nothing is given out for it any more.
    pub stopped: bool,
}

#[derive(Debug, Default)]
struct Jobs {
    wanted: Wanted,
    check_out: bool,
    /// With what the bucket is being looked at.
    check_of: Option<Box<RepositorySettings>>,
    /// When a look ended, or the link was first known.
    looked: Option<Instant>,
    /// Something went wrong at the bucket: it is looked at then.
    doubt_at: Option<Instant>,
    /// When it was last looked at for that.
    doubted: Option<Instant>,
    import_out: bool,
    /// Number of the assignment to watch.
    watch_out: Option<u64>,
    /// Watching could not be done: not before this.
    watch_at: Option<Instant>,
}

impl Jobs {
    /// When the bucket is to be looked at.
    fn check_due(&self) -> Option<Instant> {
        self.wanted.check_at.into_iter().chain(self.doubt_at).min()
    }
}

/// What there is to do and what is being done, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that wait for ranges.
    pub waiting: u64,
    /// Bytes that are wanted and not assigned.
    pub wanted_bytes: u64,
    /// Assignments that workers have.
    pub out: u64,
    /// Imports that workers have.
    pub imports: u64,
    /// Since when the oldest file is wanted.
    pub oldest: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct LoadTable {
    files: HashMap<Fid, File>,
    urgent: VecDeque<Fid>,
    ahead: VecDeque<Fid>,
    out: HashMap<u64, Out>,
    of: HashMap<SessionId, BTreeSet<u64>>,
    jobs: BTreeMap<RepositoryId, Jobs>,
    /// Workers of an earlier life that may be writing.
    unsettled: HashSet<SessionId>,
    finished: VecDeque<(SessionId, u64)>,
    /// Files that failed, until they may be tried again.
    cooling: VecDeque<(Instant, Fid)>,
    next_number: u64,
    /// Whose Take of a session is next.
    turns: HashMap<SessionId, u64>,
    next_waiter: u64,
    /// What waits for export.
    pub exports: ExportTable,
    /// Exports and what is loaded ahead take turns.
    exports_next: bool,
    report: Option<report::Report>,
}

impl LoadTable {
    /// `first_number` is above every number of an earlier life; `workers` are sessions of that life that may be at work.
    pub fn new(first_number: u64, workers: impl IntoIterator<Item = SessionId>) -> LoadTable {
        LoadTable {
            files: HashMap::new(),
            urgent: VecDeque::new(),
            ahead: VecDeque::new(),
            out: HashMap::new(),
            of: HashMap::new(),
            jobs: BTreeMap::new(),
            unsettled: workers.into_iter().collect(),
            finished: VecDeque::new(),
            cooling: VecDeque::new(),
            next_number: first_number,
            turns: HashMap::new(),
            next_waiter: 0,
            exports: ExportTable::default(),
            exports_next: true,
            report: None,
        }
    }

    // ---- what is wanted ----

    fn file(&mut self, fid: Fid, repository: RepositoryId, remote: &Remote, now: Instant) -> FsResult<&mut File> {
        if !self.files.contains_key(&fid) && self.files.len() >= FILES_MAX {
            return Err(FsError::new(FsCode::Busy, format!("{FILES_MAX} files are being loaded, the most at a time"))
                .with_hint("ask again when some are loaded"));
        }
        Ok(self
            .files
            .entry(fid)
            .and_modify(|file| {
                // Another link may have adopted it.
                (file.repository, file.remote) = (repository, remote.clone());
            })
            .or_insert_with(|| File {
                repository,
                remote: remote.clone(),
                wanted: Vec::new(),
                ahead: None,
                out: BTreeMap::new(),
                filled: BTreeMap::new(),
                closed: 0,
                failures: 0,
                retry_at: None,
                restore: false,
                queued_urgent: false,
                queued_ahead: false,
                waiters: HashMap::new(),
                changed: Arc::default(),
                since: now,
            }))
    }

    /// Somebody waits for the range; gives the number of the one who waits, and what is told when something has changed. The
    /// one who waits must [leave](LoadTable::leave).
    pub fn wait(
        &mut self,
        fid: Fid,
        repository: RepositoryId,
        remote: &Remote,
        range: Extent,
        now: Instant,
    ) -> FsResult<(u64, Arc<Notify>)> {
        let number = self.next_waiter;
        self.next_waiter += 1;
        let file = self.file(fid, repository, remote, now)?;
        file.waiters.insert(number, Waiter { range, error: None });
        let changed = file.changed.clone();
        self.hurry(fid, now);
        Ok((number, changed))
    }

    /// Why the range of one who waits could not be loaded, since they began to wait.
    pub fn error(&mut self, fid: Fid, waiter: u64) -> Option<FsError> {
        self.files.get_mut(&fid)?.waiters.get_mut(&waiter)?.error.take()
    }

    /// Waits no longer.
    pub fn leave(&mut self, fid: Fid, waiter: u64) {
        if let Some(file) = self.files.get_mut(&fid) {
            file.waiters.remove(&waiter);
            self.drop_idle(fid);
        }
    }

    /// The range is wanted by somebody who waits for it. Nothing happens for what is loaded, wanted or assigned.
    pub fn want(&mut self, fid: Fid, remote: &Remote, range: Extent) {
        let Some(file) = self.files.get_mut(&fid) else { return };
        file.remote = remote.clone();
        for missing in remote.missing(remote.chunks(range)) {
            let covered = file.wanted.iter().any(|w| w.start <= missing.start && missing.end <= w.end);
            if !covered && file.wanted.len() < WANTED_MAX {
                file.unwant(missing);
                file.wanted.push(missing);
            }
        }
        self.queue(fid);
    }

    /// The range is wanted when there is nothing more urgent, in its order.
    pub fn want_ahead(&mut self, fid: Fid, range: Extent) {
        let Some(file) = self.files.get_mut(&fid) else { return };
        let range = file.remote.chunks(range);
        if range.start >= range.end {
            return;
        }
        file.ahead = Some(match file.ahead {
            // What lies between is on the way, or was read.
            Some(a) => Extent { start: a.start.min(range.start), end: a.end.max(range.end) },
            None => range,
        });
        self.queue(fid);
    }

    /// All of a file is wanted in the background.
    pub fn restore(&mut self, fid: Fid, repository: RepositoryId, remote: &Remote, now: Instant) -> FsResult<()> {
        self.file(fid, repository, remote, now)?.restore = true;
        self.hurry(fid, now);
        self.want_ahead(fid, Extent { start: 0, end: remote.end() });
        Ok(())
    }

    /// Whether something of the file is wanted or assigned.
    pub fn is_loading(&self, fid: Fid) -> bool {
        self.files.get(&fid).is_some_and(|f| !f.wanted.is_empty() || f.ahead.is_some() || !f.out.is_empty())
    }

    fn queue(&mut self, fid: Fid) {
        let Some(file) = self.files.get_mut(&fid) else { return };
        if !file.wanted.is_empty() && !file.queued_urgent {
            file.queued_urgent = true;
            self.urgent.push_back(fid);
        }
        if file.ahead.is_some() && !file.queued_ahead {
            file.queued_ahead = true;
            self.ahead.push_back(fid);
        }
    }

    fn drop_idle(&mut self, fid: Fid) {
        // One in a queue goes when the queue comes to it.
        if self
            .files
            .get(&fid)
            .is_some_and(|f| f.is_idle() && !f.queued_urgent && !f.queued_ahead && f.retry_at.is_none())
        {
            self.files.remove(&fid);
        }
    }

    // ---- links ----

    /// What is to be done for a link. Who watches by another source than is wanted, or in vain, has it no longer.
    pub fn set_jobs(&mut self, id: RepositoryId, wanted: Wanted, now: Instant) {
        let jobs = self.jobs.entry(id).or_default();
        let before = std::mem::replace(&mut jobs.wanted, wanted);
        if before.watch != jobs.wanted.watch {
            jobs.watch_at = None;
        }
        let ends = jobs.wanted.stopped || before.watch != jobs.wanted.watch;
        if let Some(number) = jobs.watch_out.filter(|_| ends) {
            self.give_back(number, false, now);
        }
    }

    /// A comparison that is due: it is so once.
    pub fn take_due_sync(&mut self, now: Instant) -> Option<RepositoryId> {
        let due = |j: &Jobs| !j.wanted.stopped && !j.import_out && j.wanted.sync_at.is_some_and(|at| at <= now);
        let (id, jobs) = self.jobs.iter_mut().find(|(_, j)| due(j))?;
        jobs.wanted.sync_at = None;
        Some(*id)
    }

    /// Who watches a bucket tells something, or that there is nothing to tell; false if it is not its any more.
    pub fn heard(&mut self, session: SessionId, number: u64, id: RepositoryId, now: Instant) -> bool {
        self.give_up_silent(now);
        match self.out.get_mut(&number) {
            Some(out) if out.session == Some(session) && out.task == Task::Watch(id) => {
                out.heard = now;
                true
            }
            _ => false,
        }
    }

    /// Who is silent for too long watches no longer.
    fn give_up_silent(&mut self, now: Instant) {
        let numbers = self.jobs.values().filter_map(|j| j.watch_out);
        let silent = |number: &u64| {
            let heard = self.out.get(number).map(|out| out.heard);
            heard.is_some_and(|heard| now.saturating_duration_since(heard) > WATCH_SILENT_MAX)
        };
        let silent: Vec<u64> = numbers.filter(silent).collect();
        silent.into_iter().for_each(|number| self.give_back(number, false, now));
    }

    /// When a look at the bucket of a link last ended, or when the link was first known.
    pub fn looked(&mut self, id: RepositoryId, now: Instant) -> Instant {
        *self.jobs.entry(id).or_default().looked.get_or_insert(now)
    }

    /// The link is gone.
    pub fn remove_jobs(&mut self, id: RepositoryId) {
        self.jobs.remove(&id);
        self.exports.remove_link(id);
    }

    /// Whether anything is assigned for the link that must have an end.
    pub fn is_out_for(&self, id: RepositoryId) -> bool {
        self.out.values().any(|out| match &out.task {
            Task::Watch(_) => false,
            Task::Check(of) | Task::Import(of, _) | Task::Report(of, _) => *of == id,
            Task::Fetch { fid, .. } => self.files.get(fid).is_some_and(|f| f.repository == id),
            Task::Export(item) => self.is_export_for(item, id),
        })
    }

    // ---- workers ----

    /// Whether it is the turn of a Take, and which is the next. Else which turn it is: the first Take of a session, and the first after
    /// a restart, only learn that. What a Take says counts if nothing was given since it was sent.
    pub fn turn(&mut self, session: SessionId, turn: u64) -> Result<u64, u64> {
        let known = self.turns.get(&session).copied();
        if let Some(known) = known.filter(|known| *known != turn) {
            return Err(known);
        }
        // Above every turn of an earlier life of the server.
        let next = self.next_number;
        self.next_number += 1;
        self.turns.insert(session, next);
        known.map(|_| next).ok_or(next)
    }

    /// Whether no other Take has had its turn since.
    pub fn is_next_turn(&self, session: SessionId, next: u64) -> bool {
        self.turns.get(&session) == Some(&next)
    }

    /// The worker says which assignments it has. Those that it should have and does not are to be done again: it never heard of
    /// them.
    pub fn held(&mut self, session: SessionId, held: &[u64], now: Instant) {
        let known = self.of.get(&session);
        if held.iter().all(|number| known.is_some_and(|k| k.contains(number))) {
            self.unsettled.remove(&session);
        }
        let held: HashSet<u64> = held.iter().copied().collect();
        let lost: Vec<u64> = known.into_iter().flatten().copied().filter(|number| !held.contains(number)).collect();
        lost.into_iter().for_each(|number| self.give_back(number, false, now));
    }

    /// Something to do for the session, which has it from now on; `stamp`: now; `ahead`: also ranges that nobody waits for yet.
    pub fn pick(&mut self, session: SessionId, stamp: u64, ahead: bool, now: Instant) -> Option<(u64, Task)> {
        let mine = self.of.get(&session).map_or(0, BTreeSet::len);
        if mine >= ASSIGNMENTS_MAX {
            return None;
        }
        self.warm_up(now);
        self.give_up_silent(now);
        let task = self.pick_check(now).or_else(|| self.pick_watch(now)).or_else(|| self.pick_range(true));
        let task = task.or_else(|| self.pick_report(now)).or_else(|| self.pick_import());
        let task = task.or_else(|| match self.exports_next {
            true => self.pick_export(mine, now).or_else(|| self.pick_ahead(ahead)),
            false => self.pick_ahead(ahead).or_else(|| self.pick_export(mine, now)),
        })?;
        self.exports_next = !matches!(task, Task::Export(_));
        let number = self.next_number;
        self.next_number += 1;
        if let Task::Fetch { fid, range, .. } = &task
            && let Some(file) = self.files.get_mut(fid)
        {
            file.out.insert(number, *range);
        }
        if let Task::Watch(id) = &task
            && let Some(jobs) = self.jobs.get_mut(id)
        {
            jobs.watch_out = Some(number);
        }
        self.out.insert(number, Out { session: Some(session), task: task.clone(), heard: now, stamp });
        self.of.entry(session).or_default().insert(number);
        Some((number, task))
    }

    fn pick_check(&mut self, now: Instant) -> Option<Task> {
        let due = |j: &Jobs| !j.wanted.stopped && !j.check_out && j.check_due().is_some_and(|at| at <= now);
        let (id, jobs) = self.jobs.iter_mut().find(|(_, j)| due(j))?;
        jobs.check_out = true;
        if jobs.doubt_at.take().is_some() {
            jobs.doubted = Some(now);
        }
        Some(Task::Check(*id))
    }

    fn pick_import(&mut self) -> Option<Task> {
        let wanted = |j: &Jobs| !j.wanted.stopped && !j.import_out && j.wanted.import.is_some();
        let (id, jobs) = self.jobs.iter_mut().find(|(_, j)| wanted(j))?;
        jobs.import_out = true;
        jobs.wanted.import.map(|run| Task::Import(*id, run))
    }

    fn pick_watch(&mut self, now: Instant) -> Option<Task> {
        let wanted = |j: &Jobs| {
            let due = j.watch_at.is_none_or(|at| at <= now);
            !j.wanted.stopped && j.wanted.watch.is_some() && j.watch_out.is_none() && due
        };
        self.jobs.iter().find(|(_, j)| wanted(j)).map(|(id, _)| Task::Watch(*id))
    }

    fn pick_range(&mut self, urgent: bool) -> Option<Task> {
        if !self.unsettled.is_empty() {
            return None;
        }
        let turns = if urgent { self.urgent.len() } else { self.ahead.len() };
        for _ in 0..turns {
            let fid = if urgent { self.urgent.pop_front()? } else { self.ahead.pop_front()? };
            let Some(file) = self.files.get_mut(&fid) else { continue };
            let stopped = self.jobs.get(&file.repository).is_some_and(|j| j.wanted.stopped);
            let later = file.closed > 0 || stopped || file.retry_at.is_some();
            let mut found = None;
            if !later {
                if urgent {
                    found = file.wanted.iter().find_map(|w| file.piece(*w));
                } else if let Some(ahead) = file.ahead {
                    found = file.piece(ahead);
                    if found.is_none() && file.out.len() < FILE_ASSIGNMENTS_MAX {
                        file.ahead = None;
                    }
                }
            }
            // What is wanted and out stays wanted until it is loaded; the file is queued again when something has changed.
            let again = later || found.is_some() || (!urgent && file.ahead.is_some());
            if urgent {
                file.queued_urgent = again;
            } else {
                file.queued_ahead = again;
            }
            if again {
                if urgent { self.urgent.push_back(fid) } else { self.ahead.push_back(fid) }
            }
            if let Some(range) = found {
                return Some(Task::Fetch { fid, range, urgent });
            }
            self.drop_idle(fid);
        }
        None
    }

    fn pick_ahead(&mut self, wanted: bool) -> Option<Task> {
        if wanted { self.pick_range(false) } else { None }
    }

    /// When something may be to do that is not yet.
    pub fn next_due(&self) -> Option<Instant> {
        let going = || self.jobs.values().filter(|j| !j.wanted.stopped);
        let checks = going().filter(|j| !j.check_out).filter_map(Jobs::check_due);
        let syncs = going().filter(|j| !j.import_out).filter_map(|j| j.wanted.sync_at);
        let watches = going().filter(|j| j.wanted.watch.is_some() && j.watch_out.is_none()).filter_map(|j| j.watch_at);
        checks
            .chain(syncs)
            .chain(watches)
            .chain(self.cooling.iter().map(|(at, _)| *at))
            .chain(self.exports.next_due())
            .chain(self.report_due())
            .min()
    }

    /// The worker reports an assignment that it has: nobody takes it away until the report is durable, or given up.
    /// `Err(true)`: it has reported that before. A report of another kind than the assignment is none.
    pub fn begin_finish(
        &mut self,
        session: SessionId,
        number: u64,
        fits: impl Fn(&Task) -> bool,
    ) -> Result<Task, bool> {
        match self.out.get_mut(&number) {
            Some(out) if out.session == Some(session) && fits(&out.task) => {
                out.session = None;
                if let Some(mine) = self.of.get_mut(&session) {
                    mine.remove(&number);
                }
                self.finished.push_back((session, number));
                if self.finished.len() > FINISHED_KEPT {
                    self.finished.pop_front();
                }
                Ok(out.task.clone())
            }
            _ => Err(self.finished.contains(&(session, number))),
        }
    }

    /// The import that a session has under this number, and the stamp from before it was given.
    pub fn import_of(&self, session: SessionId, number: u64) -> Option<(RepositoryId, u64, u64)> {
        match self.out.get(&number) {
            Some(Out { session: Some(of), task: Task::Import(id, run), stamp, .. }) if *of == session => {
                Some((*id, *run, *stamp))
            }
            _ => None,
        }
    }

    /// The session has ended, and nothing of it reaches an OST any more: others get what it had.
    pub fn end_session(&mut self, session: SessionId, now: Instant) {
        self.unsettled.remove(&session);
        self.turns.remove(&session);
        for number in self.of.remove(&session).into_iter().flatten() {
            self.give_back(number, false, now);
        }
    }

    /// Workers of an earlier life that have not said what they have.
    pub fn unsettled(&self) -> Vec<SessionId> {
        self.unsettled.iter().copied().collect()
    }

    /// Whether a file may be written to by a worker of which nothing is known yet.
    pub fn is_settled(&self) -> bool {
        self.unsettled.is_empty()
    }

    /// For people.
    pub fn counts(&self, now: Instant) -> Counts {
        let mut counts = Counts { out: self.out.len() as u64, ..Counts::default() };
        counts.imports = self.jobs.values().filter(|j| j.import_out).count() as u64;
        for file in self.files.values() {
            counts.waiting += file.waiters.len() as u64;
            let ahead = file.ahead.map_or(0, |a| a.end - a.start);
            counts.wanted_bytes += ahead.max(file.wanted.iter().map(|w| w.end - w.start).sum());
            if !file.waiters.is_empty() || !file.wanted.is_empty() {
                counts.oldest = counts.oldest.max(now.saturating_duration_since(file.since));
            }
        }
        counts
    }
}
