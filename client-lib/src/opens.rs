//! Which files this client has open, as the MDS should count them, and the closes it was not told of yet. Pure.
//!
//! Closes are told in batches with rising numbers, one batch at a time, so that closing a file waits for nobody. A batch
//! that comes twice, or after a statement of all that is open, is known by its number and does nothing: the MDS never
//! counts a close twice, and never takes a file that is open for one that is not.

use std::collections::HashMap;

use sateen_types::Fid;
use sateen_types::limits::CLOSES_MAX;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Opens {
    /// How often each file is open.
    counts: HashMap<Fid, u32>,
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
    /// A file is about to be opened: counted before the MDS knows, so that a statement never misses it.
    pub fn opening(&mut self, fid: Fid) {
        *self.counts.entry(fid).or_insert(0) += 1;
    }

    /// It could not be opened.
    pub fn not_opened(&mut self, fid: Fid) {
        if let Some(count) = self.counts.get_mut(&fid) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&fid);
            }
        }
    }

    /// A file was closed.
    pub fn closed(&mut self, fid: Fid) {
        self.not_opened(fid);
        self.closed.push(fid);
        self.all += 1;
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

    /// Everything that is open, each file as often as it is, and the number of this statement. It makes all closes
    /// before it known.
    pub fn state(&mut self) -> (Vec<Fid>, u64) {
        self.closed.clear();
        self.batch = None;
        self.told = self.all;
        self.number += 1;
        let files = self.counts.iter().flat_map(|(fid, count)| std::iter::repeat_n(*fid, *count as usize));
        (files.collect(), self.number)
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
    use super::*;
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

        fn restart(&mut self, (files, number): (Vec<Fid>, u64)) {
            *self = Mds { number, ..Mds::default() };
            files.into_iter().for_each(|fid| *self.counts.entry(fid).or_default() += 1);
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
                        opens.opening(fid(oid));
                        *mds.counts.entry(fid(oid)).or_default() += 1;
                        open.push(fid(oid));
                    }
                    2 => {
                        if let Some(fid) = open.pop() {
                            opens.closed(fid);
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
        opens.opening(fid(1));
        opens.closed(fid(1));
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
    fn a_batch_has_a_bound() {
        let mut opens = Opens::default();
        (0..CLOSES_MAX as u32 + 1).for_each(|oid| opens.closed(fid(oid)));
        let first = opens.next().expect("a batch");
        assert_eq!(first.fids.len(), CLOSES_MAX);
        opens.told(first.number);
        assert_eq!(opens.next().expect("the rest").fids.len(), 1);
    }
}
