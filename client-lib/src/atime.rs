//! When files were read. The rule is Linux's `relatime`: a time is worth keeping if it is the first since the file last
//! changed, or the last one is a day old. What is noted is reported later, many files at once ([`flush`]); a client that dies
//! in between takes it along.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use sateen_types::limits::READ_DONE_MAX;
use sateen_types::op::{Mutation, ReadDone};
use sateen_types::{Credential, Fid, Timestamp};

use crate::inner::Inner;

/// Files whose times wait to be reported. More are not noted: the MDS must be away for it.
const PENDING_MAX: usize = 64 << 10;
/// How old an access time may become while a file is being read.
const DAY_SECONDS: i64 = 86_400;

/// Which reads change a file's access time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessTimes {
    /// None.
    #[default]
    Never,
    /// The first after a change of the file, and one a day.
    Relative,
    /// All, as far as the kernel lets us see them.
    Strict,
}

/// What is noted and not reported yet.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    times: Mutex<HashMap<Fid, Timestamp>>,
}

impl AccessTimes {
    /// Whether a read at `now` counts, of a file that was last read and last changed (data or attributes) then.
    pub(crate) fn wants(self, read: Timestamp, changed: Timestamp, now: Timestamp) -> bool {
        match self {
            AccessTimes::Never => false,
            AccessTimes::Strict => true,
            AccessTimes::Relative => read <= changed || now.seconds.saturating_sub(read.seconds) >= DAY_SECONDS,
        }
    }
}

impl Pending {
    /// Remembers that `fid` was read.
    pub fn note(&self, fid: Fid, now: Timestamp) {
        let mut times = self.times.lock();
        if times.len() < PENDING_MAX || times.contains_key(&fid) {
            times.insert(fid, now);
        }
    }

    /// When `fid` was last read, if its attributes say `known`.
    pub fn newest(&self, fid: Fid, known: Timestamp) -> Timestamp {
        self.times.lock().get(&fid).map_or(known, |at| known.max(*at))
    }

    /// A time is being set: what was noted before does not override it.
    pub fn forget(&self, fid: Fid) {
        self.times.lock().remove(&fid);
    }

    fn some(&self) -> Vec<(Fid, Timestamp)> {
        self.times.lock().iter().take(READ_DONE_MAX).map(|(fid, at)| (*fid, *at)).collect()
    }

    fn reported(&self, told: &[(Fid, Timestamp)]) {
        let mut times = self.times.lock();
        for (fid, at) in told {
            // Read again meanwhile: that is still to be told.
            if times.get(fid) == Some(at) {
                times.remove(fid);
            }
        }
    }
}

/// Reports everything that is noted. What the MDS cannot take now waits for the next time.
pub(crate) async fn flush(inner: &Arc<Inner>) {
    loop {
        let times = inner.atimes.some();
        if times.is_empty() {
            return;
        }
        let op = Mutation::ReadDone(ReadDone { times: times.clone() });
        match inner.session.execute(&Credential::ROOT, op).await {
            Ok(_) => inner.atimes.reported(&times),
            Err(error) => {
                tracing::debug!(%error, files = times.len(), "access times were not reported");
                if !error.code.is_retryable() {
                    inner.atimes.reported(&times);
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    #[test]
    fn a_read_counts_once_after_a_change_and_once_a_day() {
        let relative = AccessTimes::Relative;
        assert!(relative.wants(at(10), at(10), at(11)), "never read since it was made");
        assert!(relative.wants(at(15), at(20), at(21)), "changed since");
        assert!(!relative.wants(at(21), at(20), at(86_420)));
        assert!(relative.wants(at(21), at(20), at(86_421)), "a day later");
        assert!(AccessTimes::Strict.wants(at(21), at(20), at(22)));
        assert!(!AccessTimes::Never.wants(at(10), at(10), at(11)));
    }

    #[test]
    fn what_is_noted_shows_until_it_is_reported() {
        let pending = Pending::default();
        pending.note(Fid::ROOT, at(50));
        assert_eq!(pending.newest(Fid::ROOT, at(40)), at(50));
        assert_eq!(pending.newest(Fid::ROOT, at(70)), at(70));
        let told = pending.some();
        pending.note(Fid::ROOT, at(60));
        pending.reported(&told);
        assert_eq!(pending.some(), [(Fid::ROOT, at(60))], "read again while it was reported");
        pending.reported(&pending.some());
        assert!(pending.some().is_empty());
    }

    #[test]
    fn what_waits_is_bounded() {
        let pending = Pending::default();
        for oid in 0..PENDING_MAX as u32 + 10 {
            pending.note(Fid { seq: Fid::SEQ_FIRST, oid, ver: 0 }, at(1));
        }
        assert_eq!(pending.times.lock().len(), PENDING_MAX);
        assert_eq!(pending.some().len(), READ_DONE_MAX);
    }
}
