//! What waits to be carried over to repositories, what is known of further objects of a file, and conflicts.

use sateen_types::limits::EARLIER_EXPORTS_MAX;
use sateen_types::repository::{ConflictPolicy, Found};
use sateen_types::{Fid, RepositoryId, Timestamp};

use super::repository::text;
use crate::store::codec::{Reader, Record, Writer};

/// Smallest stored assignment, bytes: bounds a count before anything is allocated for it.
const GIVEN_BYTES_MIN: usize = 20;

/// What is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waits {
    /// A file, directory or symbolic link.
    File(Fid),
    /// Everything below a directory, and itself.
    Tree {
        /// Which.
        dir: Fid,
        /// Cookie of the last name that was looked at.
        after: u64,
        /// Whatever the policy of the link.
        forced: bool,
    },
    /// An object that is to be deleted.
    Delete {
        /// Within the prefix.
        key: Vec<u8>,
        /// Of the object that is known; empty: only one of `earlier` may be there.
        etag: String,
        /// Assignments that may have stored it without anybody having heard.
        earlier: Vec<u64>,
    },
}

/// One row of the queue of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitRecord {
    /// Since when.
    pub since: Timestamp,
    /// What.
    pub what: Waits,
}

impl Record for WaitRecord {
    const WHAT: &'static str = "export";
    fn write(&self, out: &mut Writer) {
        out.time(self.since);
        match &self.what {
            Waits::File(fid) => {
                out.u8(1);
                out.fid(*fid);
            }
            Waits::Tree { dir, after, forced } => {
                out.u8(2);
                out.fid(*dir);
                out.u64(*after);
                out.u8(u8::from(*forced));
            }
            Waits::Delete { key, etag, earlier } => {
                out.u8(3);
                out.bytes(key);
                out.bytes(etag.as_bytes());
                out.u32(earlier.len() as u32);
                earlier.iter().for_each(|number| out.u64(*number));
            }
        }
    }
    fn read(input: &mut Reader<'_>) -> Option<WaitRecord> {
        let since = input.time()?;
        let what = match input.u8()? {
            1 => Waits::File(input.fid()?),
            2 => Waits::Tree { dir: input.fid()?, after: input.u64()?, forced: input.bool()? },
            3 => Waits::Delete {
                key: input.bytes()?.to_vec(),
                etag: text(input)?,
                earlier: (0..input.count(8)?).map(|_| input.u64()).collect::<Option<_>>()?,
            },
            _ => return None,
        };
        Some(WaitRecord { since, what })
    }
}

/// An assignment that was given out and of which nothing was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Its number.
    pub number: u64,
    /// For which link.
    pub repository: RepositoryId,
    /// To store this object.
    pub key: Vec<u8>,
}

/// Where a file waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingRecord {
    /// In the queue of this link.
    pub repository: RepositoryId,
    /// Under this number.
    pub number: u64,
    /// Whatever the policy of the link.
    pub forced: bool,
    /// At most [`EARLIER_EXPORTS_MAX`], the oldest first.
    pub given: Vec<Given>,
}

impl WaitingRecord {
    /// Numbers of assignments that may have stored an object.
    pub fn earlier(&self, id: RepositoryId, key: &[u8]) -> Vec<u64> {
        self.given.iter().filter(|g| g.repository == id && g.key == key).map(|g| g.number).collect()
    }

    /// One more was given out; of too many the oldest are forgotten.
    pub fn give(&mut self, given: Given) {
        self.given.push(given);
        let surplus = self.given.len().saturating_sub(EARLIER_EXPORTS_MAX);
        self.given.drain(..surplus);
    }
}

impl Record for WaitingRecord {
    const WHAT: &'static str = "file to export";
    fn write(&self, out: &mut Writer) {
        out.u64(self.repository.0);
        out.u64(self.number);
        out.u8(u8::from(self.forced));
        out.u32(self.given.len() as u32);
        for given in &self.given {
            out.u64(given.number);
            out.u64(given.repository.0);
            out.bytes(&given.key);
        }
    }
    fn read(input: &mut Reader<'_>) -> Option<WaitingRecord> {
        let (repository, number, forced) = (RepositoryId(input.u64()?), input.u64()?, input.bool()?);
        let given = (0..input.count(GIVEN_BYTES_MIN)?).map(|_| {
            let (number, repository) = (input.u64()?, RepositoryId(input.u64()?));
            Some(Given { number, repository, key: input.bytes()?.to_vec() })
        });
        Some(WaitingRecord { repository, number, forced, given: given.collect::<Option<_>>()? })
    }
}

/// Where the tree below a directory waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaceRecord {
    /// In the queue of this link.
    pub repository: RepositoryId,
    /// Under this number.
    pub number: u64,
}

impl Record for PlaceRecord {
    const WHAT: &'static str = "place in a queue";
    fn write(&self, out: &mut Writer) {
        out.u64(self.repository.0);
        out.u64(self.number);
    }
    fn read(input: &mut Reader<'_>) -> Option<PlaceRecord> {
        Some(PlaceRecord { repository: RepositoryId(input.u64()?), number: input.u64()? })
    }
}

/// The object of a further name of a file, which has its data as the object in `hsm` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FurtherRecord {
    /// Of the object.
    pub etag: String,
    /// ETag of the object in `hsm` that has the same data; empty: none.
    pub of: String,
    /// Version of the file that it was stored of; 0: one that was not all of a version.
    pub change: u64,
    /// Permission bits that it was stored with.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Record for FurtherRecord {
    const WHAT: &'static str = "object of a further name";
    fn write(&self, out: &mut Writer) {
        out.bytes(self.etag.as_bytes());
        out.bytes(self.of.as_bytes());
        out.u64(self.change);
        for n in [self.mode, self.uid, self.gid] {
            out.u32(n);
        }
    }
    fn read(input: &mut Reader<'_>) -> Option<FurtherRecord> {
        let (etag, of, change) = (text(input)?, text(input)?, input.u64()?);
        Some(FurtherRecord { etag, of, change, mode: input.u32()?, uid: input.u32()?, gid: input.u32()? })
    }
}

/// A key of which both sides have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictRecord {
    /// The file; `None`: its name is gone.
    pub fid: Option<Fid>,
    /// Since when.
    pub since: Timestamp,
    /// The object as it was seen; `None`: it is gone.
    pub object: Option<Found>,
    /// When the two were last the same; empty: never.
    pub known_etag: String,
    /// What was decided; [`ConflictPolicy::Manual`]: nothing yet.
    pub how: ConflictPolicy,
}

impl Record for ConflictRecord {
    const WHAT: &'static str = "conflict";
    fn write(&self, out: &mut Writer) {
        out.u8(u8::from(self.fid.is_some()));
        if let Some(fid) = self.fid {
            out.fid(fid);
        }
        out.time(self.since);
        out.u8(u8::from(self.object.is_some()));
        if let Some(found) = &self.object {
            out.u64(found.size);
            out.bytes(found.etag.as_bytes());
            out.time(found.modified);
        }
        out.bytes(self.known_etag.as_bytes());
        out.u8(match self.how {
            ConflictPolicy::Manual => 0,
            ConflictPolicy::RepositoryWins => 1,
            ConflictPolicy::FilesystemWins => 2,
            ConflictPolicy::KeepBoth => 3,
        });
    }
    fn read(input: &mut Reader<'_>) -> Option<ConflictRecord> {
        let fid = if input.bool()? { Some(input.fid()?) } else { None };
        let since = input.time()?;
        let object = if input.bool()? {
            Some(Found { size: input.u64()?, etag: text(input)?, modified: input.time()? })
        } else {
            None
        };
        let known_etag = text(input)?;
        let how = match input.u8()? {
            0 => ConflictPolicy::Manual,
            1 => ConflictPolicy::RepositoryWins,
            2 => ConflictPolicy::FilesystemWins,
            3 => ConflictPolicy::KeepBoth,
            _ => return None,
        };
        Some(ConflictRecord { fid, since, object, known_etag, how })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn again<R: Record + PartialEq + std::fmt::Debug>(record: &R) {
        assert_eq!(&R::from_bytes(&record.to_bytes()).expect("own bytes"), record);
    }

    proptest! {
        #[test]
        fn records_of_exports_come_back(
            number in any::<u64>(), key in proptest::collection::vec(any::<u8>(), 0..30), etag in "[a-z0-9\"-]{0,40}",
            flag in any::<bool>(), numbers in proptest::collection::vec(any::<u64>(), 0..5), n in any::<u32>(),
        ) {
            let fid = Fid { seq: Fid::SEQ_FIRST, oid: 7, ver: 0 };
            let (repository, since) = (RepositoryId(number), Timestamp { seconds: 5, nanos: 6 });
            let whats = [
                Waits::File(fid),
                Waits::Tree { dir: fid, after: number, forced: flag },
                Waits::Delete { key: key.clone(), etag: etag.clone(), earlier: numbers.clone() },
            ];
            for what in whats {
                again(&WaitRecord { since, what });
            }
            let mut waiting = WaitingRecord { repository, number, forced: flag, given: Vec::new() };
            for number in numbers {
                waiting.give(Given { number, repository, key: key.clone() });
            }
            prop_assert!(waiting.given.len() <= EARLIER_EXPORTS_MAX);
            again(&waiting);
            again(&PlaceRecord { repository, number });
            again(&FurtherRecord { etag: etag.clone(), of: etag.clone(), change: number, mode: n, uid: n, gid: n });
            let object = flag.then(|| Found { size: number, etag: etag.clone(), modified: since });
            for how in ConflictPolicy::ALL {
                again(&ConflictRecord { fid: flag.then_some(fid), since, object: object.clone(), known_etag: etag.clone(), how });
            }
        }

        #[test]
        fn strange_bytes_of_exports_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let bytes = [&[1][..], &bytes].concat();
            let _ = (WaitRecord::from_bytes(&bytes), WaitingRecord::from_bytes(&bytes), PlaceRecord::from_bytes(&bytes));
            let _ = (FurtherRecord::from_bytes(&bytes), ConflictRecord::from_bytes(&bytes));
        }
    }
}
