//! Which files this client has open, as the MDS should count them, what it may keep of their data, and the closes the MDS
//! was not told of yet. Pure.
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

/// A file that is open, or about to be.
#[derive(Debug, Default)]
struct Held {
    opens: u32,
    /// Those of them that write.
    writes: u32,
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
}

impl Held {
    fn using(&self) -> Using {
        if self.writes > 0 { Using::Writing } else { Using::Reading }
    }
}

/// Everything that is open, each file as often as it is, with what is done with it and kept of it.
pub(crate) type Statement = Vec<(Fid, Using, Capability)>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Opens {
    /// Of the session.
    lease: Arc<Lease>,
    files: HashMap<Fid, Held>,
    /// Files that are being created and opened: they are not among `files` yet.
    creating: u32,
    /// Highest number of a recall for a file that was not open.
    recalled: u64,
    /// Files that the MDS is being told of, and how often each was closed meanwhile: it hears of that afterwards.
    introducing: HashMap<Fid, u32>,
    /// Closes in no batch yet.
    closed: Vec<Fid>,
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
    pub fids: Vec<Fid>,
}

impl Opens {
    /// Nothing is open, under this lease.
    pub fn new(lease: Arc<Lease>) -> Opens {
        Opens { lease, ..Opens::default() }
    }

    /// A file is about to be opened: counted before the MDS knows, so that a statement never misses it.
    pub fn opening(&mut self, fid: Fid, writes: bool) {
        let keeps = || Arc::new(Keeps { lease: Arc::clone(&self.lease), ..Keeps::default() });
        let held = self.files.entry(fid).or_insert_with(|| Held { keeps: keeps(), ..Held::default() });
        held.opens += 1;
        held.writes += u32::from(writes);
    }

    /// It could not be opened.
    pub fn not_opened(&mut self, fid: Fid, writes: bool) {
        if let Some(held) = self.files.get_mut(&fid) {
            held.opens -= 1;
            held.writes -= u32::from(writes);
            if held.opens == 0 {
                held.keeps.set(Capability::None);
                self.files.remove(&fid);
            }
        }
    }

    /// A file was made here, which nobody else knows, and is open.
    pub fn opening_alone(&mut self, fid: Fid, writes: bool) {
        self.opening(fid, writes);
        if let Some(held) = self.files.get_mut(&fid) {
            held.told = Told::No;
            held.keeps.set(Capability::Write);
        }
    }

    /// The MDS is about to hear of a file that was made here; gives whether it is open.
    pub fn introduce(&mut self, fid: Fid) -> bool {
        let Some(held) = self.files.get_mut(&fid).filter(|held| held.told == Told::No) else { return false };
        held.told = Told::Yes;
        self.introducing.insert(fid, 0);
        true
    }

    /// It has not heard of it yet, after all.
    pub fn not_introduced(&mut self, fid: Fid) {
        // A statement may have counted it in between: closes of what is not open do nothing.
        self.introduced(fid);
        if let Some(held) = self.files.get_mut(&fid) {
            held.told = Told::No;
        }
    }

    /// It has heard of it, or never will.
    pub fn introduced(&mut self, fid: Fid) {
        let closes = self.introducing.remove(&fid).unwrap_or(0);
        self.closed.extend(std::iter::repeat_n(fid, closes as usize));
        self.all += u64::from(closes);
    }

    /// A file was closed.
    pub fn closed(&mut self, fid: Fid, writes: bool) {
        let told = self.files.get(&fid).is_none_or(|held| held.told == Told::Yes);
        self.not_opened(fid, writes);
        match self.introducing.get_mut(&fid) {
            Some(closes) => *closes += 1,
            None if told => {
                self.closed.push(fid);
                self.all += 1;
            }
            None => {}
        }
    }

    /// A file whose number is not known yet is about to be opened.
    pub fn creating(&mut self) {
        self.creating += 1;
    }

    /// It is among the others now, or could not be opened.
    pub fn created(&mut self) {
        self.creating -= 1;
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
            self.batch = Some(Closes { number: self.number, fids: std::mem::replace(&mut self.closed, rest) });
        }
        self.telling = self.batch.is_some();
        self.batch.clone()
    }

    /// The MDS knows of a batch, or never will.
    pub fn told(&mut self, number: u64) {
        if let Some(batch) = self.batch.take_if(|batch| batch.number == number) {
            self.told += batch.fids.len() as u64;
        }
    }

    /// The MDS cannot be told now.
    pub fn give_up(&mut self) {
        self.telling = false;
    }

    /// Everything that is open, and the number of this statement. It makes all closes before it known.
    pub fn state(&mut self) -> (Statement, u64) {
        self.closed.clear();
        self.batch = None;
        self.told = self.all;
        self.number += 1;
        // Another life of the server may count from less.
        self.recalled = 0;
        self.files.values_mut().for_each(|held| held.number = 0);
        let stated = |(fid, held): (&Fid, &Held)| {
            std::iter::repeat_n((*fid, held.using(), held.keeps.granted()), held.opens as usize)
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
        counts: HashMap<Fid, i64>,
        number: u64,
    }

    impl Mds {
        fn close(&mut self, closes: &Closes) {
            if closes.number > self.number {
                self.number = closes.number;
                closes.fids.iter().for_each(|fid| *self.counts.entry(*fid).or_default() -= 1);
            }
        }

        fn restart(&mut self, (files, number): (Statement, u64)) {
            *self = Mds { number, ..Mds::default() };
            files.into_iter().for_each(|(fid, ..)| *self.counts.entry(fid).or_default() += 1);
        }
    }

    proptest! {
        #[test]
        fn no_close_is_lost_or_counted_twice(
            steps in prop::collection::vec((0u8..6, 1u32..4, any::<bool>()), 1..200),
        ) {
            let (mut opens, mut mds) = (Opens::default(), Mds::default());
            let mut open: Vec<Fid> = Vec::new();
            let mut late: Vec<Closes> = Vec::new();
            for (step, oid, lost) in steps {
                match step {
                    0 | 1 => {
                        opens.opening(fid(oid), oid == 1);
                        *mds.counts.entry(fid(oid)).or_default() += 1;
                        open.push(fid(oid));
                    }
                    2 => {
                        if let Some(fid) = open.pop() {
                            opens.closed(fid, fid.oid == 1);
                        }
                    }
                    3 => {
                        if let Some(batch) = opens.next() {
                            mds.close(&batch);
                            late.push(batch.clone());
                            if !lost {
                                opens.told(batch.number);
                            }
                        }
                    }
                    4 => late.iter().for_each(|batch| mds.close(batch)),
                    _ => mds.restart(opens.state()),
                }
            }
            while let Some(batch) = opens.next() {
                mds.close(&batch);
                opens.told(batch.number);
            }
            prop_assert!(!opens.is_telling(opens.closes()) && opens.told == opens.all);
            let mut wanted: HashMap<Fid, i64> = HashMap::new();
            open.iter().for_each(|fid| *wanted.entry(*fid).or_default() += 1);
            mds.counts.retain(|_, count| *count != 0);
            prop_assert_eq!(mds.counts, wanted);
        }
    }

    #[test]
    fn one_tells_at_a_time_and_after_giving_up_another_does() {
        let mut opens = Opens::default();
        assert!(!opens.begin_telling(), "there is nothing to tell");
        opens.opening(fid(1), false);
        opens.closed(fid(1), false);
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
        opens.opening(fid(1), true);
        let keeps = opens.keeps(fid(1));
        opens.recalled(fid(1), recall(5));
        opens.granted(fid(1), grant(4, Capability::Write));
        assert_eq!(keeps.now(), Capability::None, "the recall came after it");
        opens.granted(fid(1), grant(6, Capability::Write));
        assert_eq!(keeps.now(), Capability::Write);
        opens.recalled(fid(1), recall(5));
        assert_eq!((keeps.now(), opens.using(fid(1))), (Capability::Write, Using::Writing), "it was told twice");
        opens.closed(fid(1), true);
        assert_eq!((keeps.now(), opens.using(fid(1))), (Capability::None, Using::Nothing));
    }

    #[test]
    fn a_file_that_is_being_created_counts_as_written_and_its_grant_may_be_recalled_before_it_comes() {
        let mut opens = Opens::default();
        opens.creating();
        let recall = Recall { number: 3, keep: Capability::None };
        opens.recalled(fid(1), recall);
        assert_eq!(opens.using(fid(1)), Using::Writing);
        opens.opening(fid(1), true);
        opens.created();
        opens.granted(fid(1), Grant { capability: Capability::Write, number: 2 });
        assert_eq!(opens.keeps(fid(1)).now(), Capability::None);
    }

    #[test]
    fn nothing_is_kept_in_a_new_session() {
        let mut opens = Opens::default();
        opens.opening(fid(1), false);
        opens.granted(fid(1), Grant { capability: Capability::Read, number: 2 });
        let keeps = opens.keeps(fid(1));
        assert_eq!(opens.state().0, [(fid(1), Using::Reading, Capability::Read)]);
        assert_eq!(opens.lose_all(), [fid(1)]);
        assert_eq!((keeps.now(), opens.state().0[0].2), (Capability::None, Capability::None));
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
        assert_eq!(opens.state().0, [(fid(1), Using::Writing, Capability::Write)], "it may hold what was written");
        lease.renewed(Moment::now(), Duration::from_secs(3600));
        assert_eq!(keeps.now(), Capability::Write, "nobody else was given anything");
    }

    #[test]
    fn a_batch_has_a_bound() {
        let mut opens = Opens::default();
        (0..CLOSES_MAX as u32 + 1).for_each(|oid| opens.closed(fid(oid), false));
        let first = opens.next().expect("a batch");
        assert_eq!(first.fids.len(), CLOSES_MAX);
        opens.told(first.number);
        assert_eq!(opens.next().expect("the rest").fids.len(), 1);
    }
}
