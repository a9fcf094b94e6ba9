//! What waits to be carried over to repositories, what is known of further objects of a file, and conflicts.

use sateen_types::limits::{EARLIER_EXPORTS_MAX, IMPORT_FIRST_SKIPPED_MAX};
use sateen_types::repository::{ConflictPolicy, Found, Skipped};
use sateen_types::{Fid, RepositoryId, Timestamp};

use super::repository::{read_skipped, text, write_skipped};
use crate::store::codec::{Reader, Record, Writer};

/// Smallest stored name of an object, bytes: bounds a count before anything is allocated for it.
const OBJECT_BYTES_MIN: usize = 12;

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
        /// Within the prefix. What may be under it is in its [`KeyRecord`].
        key: Vec<u8>,
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
            Waits::Delete { key } => {
                out.u8(3);
                out.bytes(key);
            }
        }
    }
    fn read(input: &mut Reader<'_>) -> Option<WaitRecord> {
        let since = input.time()?;
        let what = match input.u8()? {
            1 => Waits::File(input.fid()?),
            2 => Waits::Tree { dir: input.fid()?, after: input.u64()?, forced: input.bool()? },
            3 => Waits::Delete { key: input.bytes()?.to_vec() },
            _ => return None,
        };
        Some(WaitRecord { since, what })
    }
}

/// An assignment that was given out to store an object, and of which nothing was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Its number.
    pub number: u64,
    /// What is stored.
    pub fid: Fid,
    /// Version of the file.
    pub change: u64,
    /// ETag in the row in `hsm` of the file then; empty: there was none.
    pub of: String,
    /// The data is copied from that object, and not read here.
    pub copied: bool,
    /// Permission bits, owner and group.
    pub attributes: (u32, u32, u32),
}

/// What may be under a key, as far as rows of files do not say it: somebody is storing it, or no file has the object any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRecord {
    /// Of the object of ours; empty: none is known.
    pub etag: String,
    /// The file that is stored here, and waits.
    pub fid: Option<Fid>,
    /// What may have been put in place.
    pub given: Option<Given>,
    /// Assignments that had put nothing in place when that was looked at; the oldest first, at most [`EARLIER_EXPORTS_MAX`]. An object of
    /// one of them is ours.
    pub earlier: Vec<u64>,
}

impl KeyRecord {
    /// What was given out had put nothing in place.
    pub fn not_there(&mut self) {
        if let Some(given) = self.given.take() {
            self.earlier.push(given.number);
            let surplus = self.earlier.len().saturating_sub(EARLIER_EXPORTS_MAX);
            self.earlier.drain(..surplus);
        }
    }
}

impl Record for KeyRecord {
    const WHAT: &'static str = "object that is stored";
    fn write(&self, out: &mut Writer) {
        out.bytes(self.etag.as_bytes());
        out.u8(u8::from(self.fid.is_some()));
        if let Some(fid) = self.fid {
            out.fid(fid);
        }
        out.u8(u8::from(self.given.is_some()));
        if let Some(given) = &self.given {
            out.u64(given.number);
            out.fid(given.fid);
            out.u64(given.change);
            out.bytes(given.of.as_bytes());
            out.u8(u8::from(given.copied));
            for n in [given.attributes.0, given.attributes.1, given.attributes.2] {
                out.u32(n);
            }
        }
        out.u32(self.earlier.len() as u32);
        self.earlier.iter().for_each(|number| out.u64(*number));
    }
    fn read(input: &mut Reader<'_>) -> Option<KeyRecord> {
        let etag = text(input)?;
        let fid = if input.bool()? { Some(input.fid()?) } else { None };
        let given = if input.bool()? {
            Some(Given {
                number: input.u64()?,
                fid: input.fid()?,
                change: input.u64()?,
                of: text(input)?,
                copied: input.bool()?,
                attributes: (input.u32()?, input.u32()?, input.u32()?),
            })
        } else {
            None
        };
        let earlier = (0..input.count(8)?).map(|_| input.u64()).collect::<Option<_>>()?;
        Some(KeyRecord { etag, fid, given, earlier })
    }
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
    /// Keys whose [`KeyRecord`] has this file.
    pub keys: Vec<(RepositoryId, Vec<u8>)>,
}

impl Record for WaitingRecord {
    const WHAT: &'static str = "file to export";
    fn write(&self, out: &mut Writer) {
        out.u64(self.repository.0);
        out.u64(self.number);
        out.u8(u8::from(self.forced));
        out.u32(self.keys.len() as u32);
        for (id, key) in &self.keys {
            out.u64(id.0);
            out.bytes(key);
        }
    }
    fn read(input: &mut Reader<'_>) -> Option<WaitingRecord> {
        let (repository, number, forced) = (RepositoryId(input.u64()?), input.u64()?, input.bool()?);
        let keys = (0..input.count(OBJECT_BYTES_MIN)?)
            .map(|_| Some((RepositoryId(input.u64()?), input.bytes()?.to_vec())))
            .collect::<Option<_>>()?;
        Some(WaitingRecord { repository, number, forced, keys })
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
    /// When it was stored, as in `hsm`.
    pub stamp: u64,
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
        out.u64(self.stamp);
        for n in [self.mode, self.uid, self.gid] {
            out.u32(n);
        }
    }
    fn read(input: &mut Reader<'_>) -> Option<FurtherRecord> {
        let (etag, of, change, stamp) = (text(input)?, text(input)?, input.u64()?, input.u64()?);
        Some(FurtherRecord { etag, of, change, stamp, mode: input.u32()?, uid: input.u32()?, gid: input.u32()? })
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

/// What of a link cannot be exported as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SkippedRecord {
    /// How often something was skipped.
    pub count: u64,
    /// The first of it, at most [`IMPORT_FIRST_SKIPPED_MAX`], each key once.
    pub first: Vec<Skipped>,
}

impl Record for SkippedRecord {
    const WHAT: &'static str = "what is not exported";
    fn write(&self, out: &mut Writer) {
        out.u64(self.count);
        write_skipped(out, &self.first);
    }
    fn read(input: &mut Reader<'_>) -> Option<SkippedRecord> {
        let record = SkippedRecord { count: input.u64()?, first: read_skipped(input)? };
        let fits = record.first.len() <= IMPORT_FIRST_SKIPPED_MAX && record.count >= record.first.len() as u64;
        fits.then_some(record)
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
                Waits::Delete { key: key.clone() },
            ];
            for what in whats {
                again(&WaitRecord { since, what });
            }
            let keys = numbers.iter().map(|n| (RepositoryId(*n), key.clone())).collect();
            again(&WaitingRecord { repository, number, forced: flag, keys });
            let given = Given { number, fid, change: number, of: etag.clone(), copied: flag, attributes: (n, n, n) };
            let mut stored = KeyRecord { etag: etag.clone(), fid: flag.then_some(fid), ..KeyRecord::default() };
            for number in numbers {
                stored.given = Some(Given { number, ..given.clone() });
                again(&stored);
                stored.not_there();
                again(&stored);
            }
            prop_assert!(stored.earlier.len() <= EARLIER_EXPORTS_MAX);
            again(&PlaceRecord { repository, number });
            again(&FurtherRecord { etag: etag.clone(), of: etag.clone(), change: number, stamp: number, mode: n, uid: n, gid: n });
            let one = Skipped { key: key.clone(), code: etag.clone(), message: etag.clone() };
            again(&SkippedRecord { count: number.max(2), first: vec![one.clone(), one.clone()] });
            SkippedRecord::from_bytes(&SkippedRecord { count: 0, first: vec![one] }.to_bytes()).expect_err("not counted");
            let object = flag.then(|| Found { size: number, etag: etag.clone(), modified: since });
            for how in ConflictPolicy::ALL {
                again(&ConflictRecord { fid: flag.then_some(fid), since, object: object.clone(), known_etag: etag.clone(), how });
            }
        }

        #[test]
        fn strange_bytes_of_exports_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let bytes = [&[1][..], &bytes].concat();
            let _ = (WaitRecord::from_bytes(&bytes), WaitingRecord::from_bytes(&bytes), PlaceRecord::from_bytes(&bytes));
            let _ = (FurtherRecord::from_bytes(&bytes), ConflictRecord::from_bytes(&bytes), KeyRecord::from_bytes(&bytes));
            let _ = SkippedRecord::from_bytes(&bytes);
        }
    }
}
