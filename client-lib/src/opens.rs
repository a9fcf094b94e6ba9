//! Which files this client has open, as the MDS should count them, what it may keep of their data, and the closes the MDS
//! was not told of yet. Pure.
//!
//! Each open has a number that no other one ever gets. So a request to open that is sent again opens nothing twice, nor does one that
//! was under way when all that is open was stated; and what may have been opened, though nobody heard of it, is closed.
//!
//! Closes are told in batches with rising numbers, one batch at a time, so that closing a file waits for nobody. A batch
//! that comes twice, or after a statement of all that is open, is known by its number and does nothing: the MDS never
//! counts a close twice, and never takes a file that is open for one that is not.
//!
//! Grants come with answers and recalls by a stream of their own, so that one may overtake the other; their numbers say
//! which counts. Of a file that is not open here nothing is known, so that a grant older than any recall for such a file
//! counts for nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use sateen_types::limits::CLOSES_MAX;
use sateen_types::{Capability, Fid, Grant, Recall, Using};

use crate::lease::Lease;

/// What may be kept of a file's data now. Changes under the lock of [`Opens`], is read without.
#[derive(Debug, Default)]
pub(crate) struct Keeps {
    granted: AtomicU8,
    /// How often the session was lost under the file.
    losses: AtomicU64,
    lease: Arc<Lease>,
}

impl Keeps {
    /// See [`Capability`]. Nothing while the session may be gone; if it is not, that counts again which was granted.
    pub fn now(&self) -> Capability {
        if self.lease.is_over() { Capability::None } else { self.granted() }
    }

    /// How often the session was lost while the file was open. What was learnt before may be wrong.
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::Acquire)
    }

    /// Whether what was learnt at so many losses still holds, for certain.
    pub fn stands(&self, losses: u64) -> bool {
        self.losses() == losses && !self.lease.is_over()
    }

    fn lose(&self) {
        self.set(Capability::None);
        self.losses.fetch_add(1, Ordering::AcqRel);
    }

    fn granted(&self) -> Capability {
        match self.granted.load(Ordering::Acquire) {
            0 => Capability::None,
            1 => Capability::Read,
            _ => Capability::Write,
        }
    }

    fn set(&self, capability: Capability) {
        self.granted.store(capability as u8, Ordering::Release);
    }
}

/// Number of the open of a file that was made here, and that the MDS hears of by the log.
const OF_LOG: u64 = 0;

/// A file that is open, or about to be.
#[derive(Debug, Default)]
struct Held {
    /// Numbers of its opens, and whether they write.
    opens: Vec<(u64, bool)>,
    /// Of the last grant or recall.
    number: u64,
    keeps: Arc<Keeps>,
    /// Whether the MDS knows of it.
    told: Told,
}

/// Whether the MDS knows that a file is open which was made here (see [`crate::writeback`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Told {
    /// It does, or will by itself.
    #[default]
    Yes,
    /// It does not know the file.
    No,
    /// It does not know the file, and counts it as open if a statement came in between.
    Perhaps,
}

impl Held {
    fn using(&self) -> Using {
        if self.opens.iter().any(|(_, writes)| *writes) { Using::Writing } else { Using::Reading }
    }
}

/// One of everything that is open, each file as often as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stated {
    pub fid: Fid,
    /// Of the open.
    pub number: u64,
    /// What is done with the file.
    pub using: Using,
    /// What is kept of it.
    pub keeps: Capability,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Opens {
    /// Of the session.
    lease: Arc<Lease>,
    files: HashMap<Fid, Held>,
    /// Number of the last open.
    opened: u64,
    /// Files that are being created and opened: they are not among `files` yet.
    creating: u32,
    /// Highest number of a recall for a file that was not open.
    recalled: u64,
    /// Files that the MDS is being told of, and which opens of each were closed meanwhile: it hears of that afterwards.
    introducing: HashMap<Fid, Vec<u64>>,
    /// Closes in no batch yet.
    closed: Vec<(Fid, u64)>,
    /// The batch under way, or to be sent again.
    batch: Option<Closes>,
    /// Number of the last batch or statement.
    number: u64,
    /// Closes so far, and how many of them the MDS knows of.
    all: u64,
    told: u64,
    /// Somebody is telling them.
    telling: bool,
}

/// Closes that are told together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Closes {
    /// Rises with every batch and statement of a client.
    pub number: u64,
    /// Files, and numbers of the opens that end.
    pub opens: Vec<(Fid, u64)>,
}

impl Opens {
    /// Nothing is open, under this lease.
    pub fn new(lease: Arc<Lease>) -> Opens {
        Opens { lease, ..Opens::default() }
    }

    /// The number of an open that begins.
    fn next_number(&mut self) -> u64 {
        self.opened += 1;
        self.opened
    }

    fn add(&mut self, fid: Fid, number: u64, writes: bool) -> &mut Held {
        let keeps = || Arc::new(Keeps { lease: Arc::clone(&self.lease), ..Keeps::default() });
        let held = self.files.entry(fid).or_insert_with(|| Held { keeps: keeps(), ..Held::default() });
        held.opens.push((number, writes));
        held
    }

    /// A file is about to be opened: counted before the MDS knows, so that a statement never misses it. Gives the number of the open.
    pub fn opening(&mut self, fid: Fid, writes: bool) -> u64 {
        let number = self.next_number();
        self.add(fid, number, writes);
        number
    }

    /// A file was made here, which nobody else knows, and is open.
    pub fn opening_alone(&mut self, fid: Fid, writes: bool) -> u64 {
        let held = self.add(fid, OF_LOG, writes);
        held.told = Told::No;
        held.keeps.set(Capability::Write);
        OF_LOG
    }

    /// The MDS is about to hear of a file that was made here; gives whether it is open.
    pub fn introduce(&mut self, fid: Fid) -> bool {
        let Some(held) = self.files.get_mut(&fid).filter(|held| held.told != Told::Yes) else { return false };
        held.told = Told::Yes;
        self.introducing.insert(fid, Vec::new());
        true
    }

    /// It has not heard of it yet, after all.
    pub fn not_introduced(&mut self, fid: Fid) {
        // Closes of what is not open do nothing.
        self.introduced(fid);
        if let Some(held) = self.files.get_mut(&fid) {
            held.told = Told::Perhaps;
        }
    }

    /// It has heard of it, or never will.
    pub fn introduced(&mut self, fid: Fid) {
        let closes = self.introducing.remove(&fid).unwrap_or_default();
        self.all += closes.len() as u64;
        self.closed.extend(closes.into_iter().map(|number| (fid, number)));
    }

    /// An open has ended, or there was none after all: the MDS may have it open and nobody have heard of that.
    pub fn closed(&mut self, fid: Fid, number: u64) {
        let mut told = true;
        if let Some(held) = self.files.get_mut(&fid) {
            told = held.told != Told::No;
            held.opens.retain(|(open, _)| *open != number);
            if held.opens.is_empty() {
                held.keeps.set(Capability::None);
                self.files.remove(&fid);
            }
        }
        match self.introducing.get_mut(&fid) {
            Some(closes) => closes.push(number),
            None if told => {
                self.closed.push((fid, number));
                self.all += 1;
            }
            None => {}
        }
    }

    /// A file that is not known yet is about to be made, or found, and opened. Gives the number of the open.
    pub fn creating(&mut self) -> u64 {
        self.creating += 1;
        self.next_number()
    }

    /// That is over. If it was opened, it is among the others now.
    pub fn created(&mut self) {
        self.creating -= 1;
    }

    /// This is the file that was being created.
    pub fn was_created(&mut self, fid: Fid, number: u64, writes: bool) {
        self.add(fid, number, writes);
    }

    /// Where it stands what may be kept of a file that is open.
    pub fn keeps(&self, fid: Fid) -> Arc<Keeps> {
        self.files.get(&fid).map_or_else(Arc::default, |held| Arc::clone(&held.keeps))
    }

    /// A file that is open may be kept so; unless that was recalled meanwhile.
    pub fn granted(&mut self, fid: Fid, grant: Grant) {
        let recalled = self.recalled;
        if let Some(held) = self.files.get_mut(&fid).filter(|held| grant.number > held.number.max(recalled)) {
            held.number = grant.number;
            held.keeps.set(grant.capability);
        }
    }

    /// Whether a file is open, or about to be.
    pub fn is_open(&self, fid: Fid) -> bool {
        self.files.contains_key(&fid)
    }

    /// The MDS wants back what is more than the recall leaves.
    pub fn recalled(&mut self, fid: Fid, recall: Recall) {
        match self.files.get_mut(&fid) {
            Some(held) if recall.number > held.number => {
                held.number = recall.number;
                held.keeps.set(held.keeps.granted().min(recall.keep));
            }
            Some(_) => {}
            None => self.recalled = self.recalled.max(recall.number),
        }
    }

    /// What a file is used for. One of those that are being created may be it, and be written to.
    pub fn using(&self, fid: Fid) -> Using {
        match self.files.get(&fid) {
            _ if self.creating > 0 => Using::Writing,
            Some(held) => held.using(),
            None => Using::Nothing,
        }
    }

    /// The session has expired: others may have been given what was kept. Gives the files that are open.
    pub fn lose_all(&mut self) -> Vec<Fid> {
        self.files.values().for_each(|held| held.keeps.lose());
        self.files.keys().copied().collect()
    }

    /// Whether somebody must begin to tell closes; whoever asks is the one.
    pub fn begin_telling(&mut self) -> bool {
        let begins = !self.telling && self.told < self.all;
        self.telling |= begins;
        begins
    }

    /// The next batch to be told. `None`: there is none, and nobody is telling any more.
    pub fn next(&mut self) -> Option<Closes> {
        if self.batch.is_none() && !self.closed.is_empty() {
            let rest = self.closed.split_off(self.closed.len().min(CLOSES_MAX));
            self.number += 1;
            self.batch = Some(Closes { number: self.number, opens: std::mem::replace(&mut self.closed, rest) });
        }
        self.telling = self.batch.is_some();
        self.batch.clone()
    }

    /// The MDS knows of a batch, or never will.
    pub fn told(&mut self, number: u64) {
        if let Some(batch) = self.batch.take_if(|batch| batch.number == number) {
            self.told += batch.opens.len() as u64;
        }
    }

    /// The MDS cannot be told now.
    pub fn give_up(&mut self) {
        self.telling = false;
    }

    /// Everything that is open, and the number of this statement. It makes all closes before it known.
    pub fn state(&mut self) -> (Vec<Stated>, u64) {
        self.closed.clear();
        self.batch = None;
        self.told = self.all;
        self.number += 1;
        // Another life of the server may count from less.
        self.recalled = 0;
        self.files.values_mut().for_each(|held| held.number = 0);
        let stated = |(fid, held): (&Fid, &Held)| {
            let (fid, using, keeps) = (*fid, held.using(), held.keeps.granted());
            held.opens.iter().map(move |(number, _)| Stated { fid, number: *number, using, keeps }).collect::<Vec<_>>()
        };
        let known = self.files.iter().filter(|(_, held)| held.told == Told::Yes);
        (known.flat_map(stated).collect(), self.number)
    }

    /// How many closes there were.
    pub fn closes(&self) -> u64 {
        self.all
    }

    /// Whether the MDS is being told of one of the first `closes` closes.
    pub fn is_telling(&self, closes: u64) -> bool {
        self.telling && self.told < closes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;
    use crate::lease::Moment;
    use proptest::prelude::*;

    fn fid(oid: u32) -> Fid {
        Fid { seq: Fid::SEQ_FIRST, oid, ver: 0 }
    }

    /// What the MDS keeps of the session.
    #[derive(Default)]
    struct Mds {
        open: HashSet<(Fid, u64)>,
        number: u64,
    }

    impl Mds {
        fn close(&mut self, closes: &Closes) {
            if closes.number > self.number {
                self.number = closes.number;
                self.open.retain(|open| !closes.opens.contains(open));
            }
        }

        fn restart(&mut self, (stated, number): (Vec<Stated>, u64)) {
            *self = Mds { number, open: stated.iter().map(|one| (one.fid, one.number)).collect() };
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// A request to open is sent, with this file; it comes to the MDS some time later.
        Open(u32),
        /// One that was sent comes; if it was not answered in time it is sent again, and comes twice.
        Arrives(usize, bool),
        /// It is answered, perhaps with an error.
        Answered(usize, bool),
        Close(usize),
        /// A batch is told, and the answer may be lost.
        Tell(bool),
        /// Batches of before come again.
        Late,
        Restart,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (1u32..4).prop_map(Step::Open),
            4 => (any::<usize>(), any::<bool>()).prop_map(|(n, again)| Step::Arrives(n, again)),
            4 => (any::<usize>(), any::<bool>()).prop_map(|(n, good)| Step::Answered(n, good)),
            3 => any::<usize>().prop_map(Step::Close),
            2 => any::<bool>().prop_map(Step::Tell),
            1 => Just(Step::Late),
            1 => Just(Step::Restart),
        ];
        proptest::collection::vec(step, 1..200)
    }

    proptest! {
        #[test]
        fn no_open_and_no_close_is_lost_or_counted_twice(steps in steps()) {
            let (mut opens, mut mds) = (Opens::default(), Mds::default());
            // Under way to the MDS; there, and not answered; open.
            let (mut sent, mut there, mut open) = (Vec::new(), Vec::new(), Vec::new());
            let mut late: Vec<Closes> = Vec::new();
            let pick = |n: usize, of: &Vec<(Fid, u64)>| (!of.is_empty()).then(|| n % of.len());
            for step in steps {
                match step {
                    Step::Open(oid) => sent.push((fid(oid), opens.opening(fid(oid), oid == 1))),
                    Step::Arrives(n, again) => {
                        if let Some(at) = pick(n, &sent) {
                            let one = if again { sent[at] } else { sent.swap_remove(at) };
                            mds.open.insert(one);
                            if !again {
                                there.push(one);
                            }
                        }
                    }
                    Step::Answered(n, good) => {
                        if let Some(at) = pick(n, &there) {
                            let one = there.swap_remove(at);
                            match good {
                                true => open.push(one),
                                false => opens.closed(one.0, one.1),
                            }
                        }
                    }
                    Step::Close(n) => {
                        if let Some(at) = pick(n, &open) {
                            let (fid, number) = open.swap_remove(at);
                            opens.closed(fid, number);
                        }
                    }
                    Step::Tell(lost) => {
                        if let Some(batch) = opens.next() {
                            mds.close(&batch);
                            late.push(batch.clone());
                            if !lost {
                                opens.told(batch.number);
                            }
                        }
                    }
                    Step::Late => late.iter().for_each(|batch| mds.close(batch)),
                    Step::Restart => mds.restart(opens.state()),
                }
                prop_assert!(open.iter().all(|one| mds.open.contains(one)), "what is open counts as open");
            }
            // Nobody waits for an answer any more.
            sent.into_iter().chain(there).for_each(|(fid, number)| opens.closed(fid, number));
            while let Some(batch) = opens.next() {
                mds.close(&batch);
                opens.told(batch.number);
            }
            prop_assert!(!opens.is_telling(opens.closes()) && opens.told == opens.all);
            prop_assert_eq!(mds.open, open.into_iter().collect());
        }
    }

    #[test]
    fn one_tells_at_a_time_and_after_giving_up_another_does() {
        let mut opens = Opens::default();
        assert!(!opens.begin_telling(), "there is nothing to tell");
        let number = opens.opening(fid(1), false);
        opens.closed(fid(1), number);
        assert!(opens.begin_telling() && !opens.begin_telling());
        let first = opens.next().expect("a batch");
        assert!(opens.is_telling(1));
        opens.give_up();
        assert!(!opens.is_telling(1) && opens.begin_telling());
        assert_eq!(opens.next(), Some(first.clone()), "the same again");
        opens.told(first.number);
        assert_eq!(opens.next(), None);
        assert!(!opens.begin_telling());
    }

    #[test]
    fn of_grants_and_recalls_that_meet_the_later_one_counts() {
        let grant = |number, capability| Grant { capability, number };
        let recall = |number| Recall { number, keep: Capability::None };
        let mut opens = Opens::default();
        let number = opens.opening(fid(1), true);
        let keeps = opens.keeps(fid(1));
        opens.recalled(fid(1), recall(5));
        opens.granted(fid(1), grant(4, Capability::Write));
        assert_eq!(keeps.now(), Capability::None, "the recall came after it");
        opens.granted(fid(1), grant(6, Capability::Write));
        assert_eq!(keeps.now(), Capability::Write);
        opens.recalled(fid(1), recall(5));
        assert_eq!((keeps.now(), opens.using(fid(1))), (Capability::Write, Using::Writing), "it was told twice");
        opens.closed(fid(1), number);
        assert_eq!((keeps.now(), opens.using(fid(1))), (Capability::None, Using::Nothing));
    }

    #[test]
    fn a_file_that_is_being_created_counts_as_written_and_its_grant_may_be_recalled_before_it_comes() {
        let mut opens = Opens::default();
        let number = opens.creating();
        let recall = Recall { number: 3, keep: Capability::None };
        opens.recalled(fid(1), recall);
        assert_eq!(opens.using(fid(1)), Using::Writing);
        opens.was_created(fid(1), number, true);
        opens.created();
        opens.granted(fid(1), Grant { capability: Capability::Write, number: 2 });
        assert_eq!(opens.keeps(fid(1)).now(), Capability::None);
    }

    #[test]
    fn a_new_file_that_was_stated_before_the_mds_had_heard_of_it_is_closed() {
        let mut opens = Opens::default();
        let number = opens.opening_alone(fid(1), true);
        assert!(opens.state().0.is_empty(), "nobody else knows it");
        assert!(opens.introduce(fid(1)));
        assert_eq!(opens.state().0.len(), 1);
        opens.not_introduced(fid(1));
        assert!(opens.state().0.is_empty());
        opens.closed(fid(1), number);
        assert_eq!(opens.next().expect("a batch").opens, [(fid(1), number)]);
        assert!(!opens.introduce(fid(1)), "it is not open any more");
    }

    #[test]
    fn nothing_is_kept_in_a_new_session() {
        let mut opens = Opens::default();
        opens.opening(fid(1), false);
        opens.granted(fid(1), Grant { capability: Capability::Read, number: 2 });
        let keeps = opens.keeps(fid(1));
        let stated = |using, keeps| Stated { fid: fid(1), number: 1, using, keeps };
        assert_eq!(opens.state().0, [stated(Using::Reading, Capability::Read)]);
        assert_eq!(opens.lose_all(), [fid(1)]);
        assert_eq!((keeps.now(), opens.state().0[0].keeps), (Capability::None, Capability::None));
    }

    #[test]
    fn nothing_is_kept_while_the_lease_is_over_and_the_mds_is_still_told_what_was() {
        let lease = Arc::new(Lease::default());
        let mut opens = Opens::new(Arc::clone(&lease));
        opens.opening(fid(1), true);
        opens.granted(fid(1), Grant { capability: Capability::Write, number: 2 });
        let keeps = opens.keeps(fid(1));
        lease.renewed(Moment::now(), Duration::ZERO);
        while !lease.is_over() {
            std::thread::yield_now();
        }
        assert_eq!(keeps.now(), Capability::None);
        let stated = Stated { fid: fid(1), number: 1, using: Using::Writing, keeps: Capability::Write };
        assert_eq!(opens.state().0, [stated], "it may hold what was written");
        lease.renewed(Moment::now(), Duration::from_secs(3600));
        assert_eq!(keeps.now(), Capability::Write, "nobody else was given anything");
    }

    #[test]
    fn a_batch_has_a_bound() {
        let mut opens = Opens::default();
        (0..CLOSES_MAX as u32 + 1).for_each(|oid| opens.closed(fid(oid), 1));
        let first = opens.next().expect("a batch");
        assert_eq!(first.opens.len(), CLOSES_MAX);
        opens.told(first.number);
        assert_eq!(opens.next().expect("the rest").opens.len(), 1);
    }
}
