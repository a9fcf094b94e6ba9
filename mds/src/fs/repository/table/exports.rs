//! Which of what waits for export is looked at next, and what workers have of it. What waits is in the tables
//! ([`crate::namespace::repository::export`]), and there may be millions of it: here is a window of each link's queue, which moves
//! on as things are done. What cannot be done now is kept here as long as there is room, and else found again by the next round.
//!
//! ```text
//! row:  waits -> ready -> out (looked at, or with a worker) -> gone
//!                  ^---------/  \-> later (failed), open (somebody writes to it) -> ready
//! ```
//!
//! The invariant: no key is in two assignments, and no file is looked at twice at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use sateen_types::limits::{ASSIGNMENTS_MAX, EXPORT_FAILING_MAX};
use sateen_types::repository::{ExportStatus, Failing};
use sateen_types::{Fid, RepositoryId, SessionId};

use super::{LoadTable, Task};
use crate::namespace::repository::export::{Look, Store};
use crate::store::records::{WaitRecord, Waits};

/// Rows of one link that are in memory. Each takes a few hundred bytes.
const WINDOW_MAX: usize = 16_384;
/// Rows that are read at once.
pub const REFILL: usize = 1024;
/// More are read when so few are ready.
const READY_LOW: usize = 512;
/// Assignments of a session from which on it gets no more exports: others have room beside them.
const EXPORTS_MAX: usize = ASSIGNMENTS_MAX / 2;
/// Pause before something is tried again that failed; doubled each time, up to the longest.
const BACKOFF: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A file that is open for writing is looked at again after this, if nobody tells that it was closed.
const OPEN_AGAIN: Duration = Duration::from_secs(2);
/// From one round through a queue to the next, for what there was no room for.
const ROUND: Duration = Duration::from_secs(10);
/// So often a file is put off for another one whose data is in the object that it would replace.
const PATIENCE: u8 = 3;

/// Something that is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// In the queue of this link.
    pub id: RepositoryId,
    /// Under this number.
    pub number: u64,
    /// What.
    pub what: Waits,
}

impl Item {
    /// What to call it where no key is known.
    pub fn name(&self) -> Vec<u8> {
        match &self.what {
            Waits::File(fid) => fid.to_string().into_bytes(),
            Waits::Tree { dir, .. } => format!("below {dir}").into_bytes(),
            Waits::Delete { key } => key.clone(),
        }
    }
}

/// What becomes of something that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Its row is gone, or is another one's.
    Done,
    /// At once.
    Now,
    /// After this pause.
    Later(Duration),
    /// After a pause that grows.
    Failed,
    /// When nobody has it open for writing.
    Open,
    /// When another file has moved its data.
    Behind,
    /// At once, without copying.
    NoCopy,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Ready,
    Out,
    Later(Instant),
}

#[derive(Debug)]
struct Row {
    what: Waits,
    state: State,
    failures: u32,
    copy: bool,
    patience: u8,
}

/// The window of one link's queue.
#[derive(Debug, Default)]
struct Window {
    available: bool,
    rows: HashMap<u64, Row>,
    ready: VecDeque<u64>,
    /// Number of the last row that was read.
    after: u64,
    /// Nothing was behind it.
    ended: bool,
    /// Rises when something may have been added.
    told: u64,
    filling: bool,
    /// Some had no room.
    dropped: bool,
    round_at: Option<Instant>,
    status: ExportStatus,
    /// What has failed, by row: key and why.
    failing: BTreeMap<u64, (Vec<u8>, String)>,
}

/// A file that is looked at, or with a worker.
#[derive(Debug)]
struct Looking {
    number: u64,
    overtaken: bool,
    store: Option<Box<Store>>,
    /// The key that was reserved for it.
    key: Option<(RepositoryId, Vec<u8>)>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct ExportTable {
    links: BTreeMap<RepositoryId, Window>,
    later: BTreeSet<(Instant, RepositoryId, u64)>,
    files: HashMap<Fid, Looking>,
    /// Files that are open for writing, with their rows.
    open: HashMap<Fid, (RepositoryId, u64)>,
    /// Keys that are being changed, with the numbers of the assignments.
    keys: HashMap<(RepositoryId, Vec<u8>), u64>,
    /// The link that was served last.
    turn: Option<RepositoryId>,
}

/// A part of a queue that is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refill {
    /// Of which link.
    pub id: RepositoryId,
    /// Behind this number.
    pub after: u64,
    told: u64,
}

impl Window {
    fn ready(&mut self, number: u64) {
        if let Some(row) = self.rows.get_mut(&number)
            && row.state != State::Ready
        {
            row.state = State::Ready;
            self.ready.push_back(number);
        }
    }
}

impl ExportTable {
    /// A link is there, and can be used or not.
    pub fn set_link(&mut self, id: RepositoryId, available: bool) {
        let window = self.links.entry(id).or_default();
        window.available = available;
        window.told += 1;
        window.ended = false;
    }

    /// A link is gone, or nothing of it waits any more.
    pub fn remove_link(&mut self, id: RepositoryId) {
        self.links.remove(&id);
        self.later.retain(|(_, of, _)| *of != id);
        self.open.retain(|_, (of, _)| *of != id);
    }

    /// Something may have been added to queues.
    pub fn told(&mut self) {
        for window in self.links.values_mut() {
            window.told += 1;
            window.ended = false;
        }
    }

    /// What is to be read next, if anything.
    pub fn refill(&mut self, now: Instant) -> Option<Refill> {
        self.warm_up(now);
        let mut links = self.links.iter_mut();
        links.find_map(|(id, window)| {
            if window.round_at.is_some_and(|at| at <= now) {
                (window.after, window.ended, window.round_at, window.dropped) = (0, false, None, false);
            }
            let wants = window.available
                && !window.ended
                && !window.filling
                && window.ready.len() < READY_LOW
                && (window.rows.len() < WINDOW_MAX || !window.dropped);
            wants.then(|| {
                window.filling = true;
                Refill { id: *id, after: window.after, told: window.told }
            })
        })
    }

    /// What was read; `None`: it could not be.
    pub fn fill(&mut self, refill: Refill, rows: Option<Vec<(u64, WaitRecord)>>, now: Instant) {
        let Some(window) = self.links.get_mut(&refill.id) else { return };
        window.filling = false;
        let Some(rows) = rows else {
            (window.ended, window.round_at) = (true, Some(now + ROUND));
            return;
        };
        let all = rows.len() < REFILL;
        for (number, record) in rows {
            if window.rows.len() >= WINDOW_MAX {
                (window.dropped, window.ended) = (true, true);
                window.round_at = window.round_at.or(Some(now + ROUND));
                return;
            }
            window.after = window.after.max(number);
            let row = Row { what: record.what, state: State::Ready, failures: 0, copy: true, patience: PATIENCE };
            if let std::collections::hash_map::Entry::Vacant(entry) = window.rows.entry(number) {
                entry.insert(row);
                window.ready.push_back(number);
            }
        }
        window.ended = all && window.told == refill.told;
    }

    fn warm_up(&mut self, now: Instant) {
        while let Some((at, id, number)) = self.later.first().copied().filter(|(at, ..)| *at <= now) {
            self.later.remove(&(at, id, number));
            if let Some(window) = self.links.get_mut(&id)
                && window.rows.get(&number).is_some_and(|row| row.state == State::Later(at))
            {
                window.ready(number);
            }
        }
    }

    /// When something may be to do that is not yet.
    pub fn next_due(&self) -> Option<Instant> {
        let rounds = self.links.values().filter(|w| w.available).filter_map(|w| w.round_at);
        rounds.chain(self.later.first().map(|(at, ..)| *at)).min()
    }

    /// The next thing that can be looked at, under this number of an assignment. Links take turns.
    fn pick(&mut self, assignment: u64, now: Instant) -> Option<Item> {
        self.warm_up(now);
        let behind = self.turn.map_or(RepositoryId(0), |RepositoryId(n)| RepositoryId(n.saturating_add(1)));
        let ids: Vec<_> = self.links.range(behind..).chain(self.links.range(..behind)).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(window) = self.links.get_mut(&id).filter(|w| w.available) else { continue };
            while let Some(number) = window.ready.pop_front() {
                let Some(row) = window.rows.get_mut(&number).filter(|row| row.state == State::Ready) else { continue };
                let what = row.what.clone();
                // A file that waits again while the end of its last export is being recorded is not looked at twice.
                let is_busy = match &what {
                    Waits::Delete { key } => self.keys.contains_key(&(id, key.clone())),
                    Waits::File(fid) => self.files.contains_key(fid),
                    Waits::Tree { .. } => false,
                };
                if is_busy {
                    let at = now + BACKOFF;
                    row.state = State::Later(at);
                    self.later.insert((at, id, number));
                    continue;
                }
                match &what {
                    Waits::Delete { key } => drop(self.keys.insert((id, key.clone()), assignment)),
                    Waits::File(fid) => {
                        let looking = Looking { number: assignment, overtaken: false, store: None, key: None };
                        self.files.insert(*fid, looking);
                        self.open.remove(fid);
                    }
                    Waits::Tree { .. } => {}
                }
                row.state = State::Out;
                self.turn = Some(id);
                return Some(Item { id, number, what });
            }
        }
        None
    }

    /// How a file is looked at.
    pub fn look(&self, item: &Item) -> Look {
        let row = self.links.get(&item.id).and_then(|w| w.rows.get(&item.number));
        Look { copy: row.is_none_or(|row| row.copy), patient: row.is_none_or(|row| row.patience > 0) }
    }

    /// A key is changed, or looked at, by this assignment for a file and no other, until that ends. False if another one has it.
    pub fn reserve(&mut self, fid: Fid, (id, key): (RepositoryId, &[u8]), assignment: u64) -> bool {
        let Some(looking) = self.files.get_mut(&fid).filter(|looking| looking.number == assignment) else {
            return false;
        };
        let is_its = *self.keys.entry((id, key.to_vec())).or_insert(assignment) == assignment;
        if is_its {
            looking.key = Some((id, key.to_vec()));
        }
        is_its
    }

    /// The key that is looked at for a file.
    pub fn key_of(&self, fid: Fid, assignment: u64) -> Option<(RepositoryId, Vec<u8>)> {
        self.files.get(&fid).filter(|looking| looking.number == assignment)?.key.clone()
    }

    /// Whether a key is being stored, copied or deleted.
    pub fn is_busy(&self, id: RepositoryId, key: &[u8]) -> bool {
        self.keys.contains_key(&(id, key.to_vec()))
    }

    /// Whether a worker stores the file.
    pub fn is_stored(&self, fid: Fid) -> bool {
        self.files.get(&fid).is_some_and(|looking| looking.store.is_some())
    }

    /// What a worker stores of a file. False if somebody has opened it for writing since it was picked.
    pub fn given(&mut self, fid: Fid, assignment: u64, store: Box<Store>) -> bool {
        match self.files.get_mut(&fid).filter(|looking| looking.number == assignment) {
            Some(looking) if !looking.overtaken => {
                looking.store = Some(store);
                true
            }
            _ => false,
        }
    }

    /// What a worker was given to store, and whether that was overtaken.
    pub fn store_of(&self, fid: Fid, assignment: u64) -> Option<(Box<Store>, bool)> {
        let looking = self.files.get(&fid).filter(|looking| looking.number == assignment)?;
        looking.store.clone().map(|store| (store, looking.overtaken))
    }

    /// Somebody opens the file for writing, or changes it.
    pub fn overtake(&mut self, fid: Fid) {
        if let Some(looking) = self.files.get_mut(&fid) {
            looking.overtaken = true;
        }
    }

    /// Somebody has closed these: those that wait for it are looked at. `None`: whatever waits for it.
    pub fn closed(&mut self, files: Option<&[Fid]>) -> bool {
        let closed: Vec<Fid> = match files {
            Some(files) => files.iter().copied().filter(|fid| self.open.contains_key(fid)).collect(),
            None => self.open.keys().copied().collect(),
        };
        for fid in &closed {
            if let Some((id, number)) = self.open.remove(fid)
                && let Some(window) = self.links.get_mut(&id)
                && window.rows.get(&number).is_some_and(|row| matches!(row.state, State::Later(_)))
            {
                window.ready(number);
            }
        }
        !closed.is_empty()
    }

    /// An assignment has ended: what it kept others from is free.
    fn end(&mut self, item: &Item, assignment: u64) {
        if let Waits::File(fid) = &item.what
            && self.files.get(fid).is_some_and(|looking| looking.number == assignment)
            && let Some(looking) = self.files.remove(fid)
            && let Some((id, key)) = looking.key
        {
            self.free(id, &key, assignment);
        }
        if let Waits::Delete { key } = &item.what {
            self.free(item.id, key, assignment);
        }
    }

    fn free(&mut self, id: RepositoryId, key: &[u8], assignment: u64) {
        let at = (id, key.to_vec());
        if self.keys.get(&at) == Some(&assignment) {
            self.keys.remove(&at);
        }
    }

    /// What becomes of something that was looked at.
    fn next(&mut self, item: &Item, next: Next, now: Instant) {
        let Some(window) = self.links.get_mut(&item.id) else { return };
        let Some(row) = window.rows.get_mut(&item.number) else { return };
        let pause = match next {
            Next::Done => {
                window.rows.remove(&item.number);
                window.failing.remove(&item.number);
                return;
            }
            Next::Now | Next::NoCopy => {
                row.copy &= next != Next::NoCopy;
                return window.ready(item.number);
            }
            Next::Later(pause) => pause,
            Next::Failed => {
                row.failures += 1;
                BACKOFF.saturating_mul(1 << (row.failures - 1).min(8)).min(BACKOFF_MAX)
            }
            Next::Open => {
                if let Waits::File(fid) = &item.what {
                    self.open.insert(*fid, (item.id, item.number));
                }
                OPEN_AGAIN
            }
            Next::Behind => {
                row.patience = row.patience.saturating_sub(1);
                BACKOFF
            }
        };
        let at = now + pause;
        row.state = State::Later(at);
        self.later.insert((at, item.id, item.number));
    }

    /// Figures of a link since the server started; what waits is not among them, and of what is skipped only how much.
    pub fn status(&self, id: RepositoryId) -> ExportStatus {
        let Some(window) = self.links.get(&id) else { return ExportStatus::default() };
        let failing = window.failing.iter().map(|(number, (key, message))| {
            let attempts = window.rows.get(number).map_or(1, |row| row.failures.max(1));
            Failing { key: key.clone(), attempts, message: message.clone() }
        });
        ExportStatus { failing: failing.collect(), ..window.status.clone() }
    }

    /// An object of so many bytes was stored.
    pub fn count_stored(&mut self, id: RepositoryId, bytes: u64) {
        if let Some(window) = self.links.get_mut(&id) {
            window.status.stored += 1;
            window.status.bytes = window.status.bytes.saturating_add(bytes);
            window.status.message.clear();
        }
    }

    /// An object was deleted.
    pub fn count_deleted(&mut self, id: RepositoryId) {
        if let Some(window) = self.links.get_mut(&id) {
            window.status.deleted += 1;
            window.status.message.clear();
        }
    }

    /// An attempt at something has failed, which has this key.
    pub fn failed(&mut self, item: &Item, key: Vec<u8>, message: String) {
        let Some(window) = self.links.get_mut(&item.id) else { return };
        window.status.failed += 1;
        window.status.message.clone_from(&message);
        if window.failing.len() < EXPORT_FAILING_MAX || window.failing.contains_key(&item.number) {
            window.failing.insert(item.number, (key, message));
        }
    }

    /// Something cannot be exported. What it is, is in the tables.
    pub fn count_skipped(&mut self, id: RepositoryId) {
        if let Some(window) = self.links.get_mut(&id) {
            window.status.skipped += 1;
        }
    }
}

impl LoadTable {
    /// Something of the queues for a session, which has so many assignments.
    pub(super) fn pick_export(&mut self, mine: usize, now: Instant) -> Option<Task> {
        if mine >= EXPORTS_MAX {
            return None;
        }
        self.exports.pick(self.next_number, now).map(|item| Task::Export(Box::new(item)))
    }

    /// An export or deletion has ended, or there was nothing to give out.
    pub fn export_ended(&mut self, number: u64, next: Next, now: Instant) {
        if let Some(Task::Export(item)) = self.take_out(number) {
            self.exports.next(&item, next, now);
        }
    }

    /// Likewise when it is taken from its session.
    pub(super) fn end_export(&mut self, item: &Item, number: u64) {
        self.exports.end(item, number);
    }

    /// It is to be done again by somebody else.
    pub(super) fn export_given_back(&mut self, item: &Item, later: bool, now: Instant) {
        self.exports.next(item, if later { Next::Failed } else { Next::Now }, now);
    }

    /// Whether an assignment was given before something was known that has this stamp.
    pub fn was_given_before(&self, number: u64, stamp: u64) -> bool {
        self.out.get(&number).is_some_and(|out| out.stamp < stamp)
    }

    /// The file that a session exports under this number.
    pub fn export_of(&self, session: SessionId, number: u64) -> Option<Fid> {
        let out = self.out.get(&number).filter(|out| out.session == Some(session))?;
        match &out.task {
            Task::Export(item) => match item.what {
                Waits::File(fid) => Some(fid),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether an export is of the link.
    pub(super) fn is_export_for(&self, item: &Item, id: RepositoryId) -> bool {
        let of_file = match &item.what {
            Waits::File(fid) => self.exports.files.get(fid).and_then(|l| l.store.as_ref()).is_some_and(|s| s.id == id),
            _ => false,
        };
        item.id == id || of_file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: RepositoryId = RepositoryId(1);
    const FILE: Fid = Fid { seq: Fid::SEQ_FIRST, oid: 1, ver: 0 };

    fn waits(table: &mut ExportTable, number: u64, now: Instant) {
        table.told();
        let refill = table.refill(now).expect("there is something to read");
        let record = WaitRecord { since: Default::default(), what: Waits::File(FILE) };
        table.fill(refill, Some(vec![(number, record)]), now);
    }

    #[test]
    fn a_file_that_waits_again_before_its_last_export_has_ended_keeps_nobody_from_its_key() {
        let (mut table, now, key) = (ExportTable::default(), Instant::now(), &b"key"[..]);
        table.set_link(LINK, true);
        waits(&mut table, 1, now);
        let first = table.pick(10, now).expect("ready");
        assert!(table.reserve(FILE, (LINK, key), 10));
        // It was stored and recorded, and is changed before that has come here.
        waits(&mut table, 2, now);
        assert_eq!(table.pick(11, now), None, "the first one is not over");
        table.end(&first, 10);
        table.next(&first, Next::Done, now);
        assert!(!table.is_busy(LINK, key));
        let second = table.pick(12, now + BACKOFF).expect("its turn");
        assert_eq!(second.number, 2);
        assert!(table.reserve(FILE, (LINK, key), 12), "nobody else has it");
        table.end(&second, 12);
        table.next(&second, Next::Done, now);
        assert!(table.files.is_empty() && table.keys.is_empty() && table.links[&LINK].rows.is_empty());
    }
}
