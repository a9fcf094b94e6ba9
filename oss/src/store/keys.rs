//! Keys of the store's index: every column family, its key and its value. Nothing else builds or parses a key.
//!
//! All integers are big-endian, so that byte order is numeric order. The file system is not in the keys: each has an
//! index of its own.
//!
//! | family   | key                                              | value                                | size     |
//! |----------|--------------------------------------------------|--------------------------------------|---------:|
//! | objects  | fid 16, component 4, stripe 4                    | [`ObjectRecord`]                     | 36 or 44 |
//! | chunks   | object key 24, chunk number 8                    | [`ChunkRecord`]                      |       52 |
//! | pending  | object key 24, chunk number 8                    | [`PendingRecord`]                    | 12 - 116 |
//! | segments | segment 8                                        | [`Counter`]: live bytes              |        8 |
//! | frees    | segment 8, offset 8                              | [`Counter`]: bytes to punch          |        8 |
//! | meta     | `format`, `next-segment`, `objects`,             | [`Counter`]                          |        8 |
//! |          | `settled-segment`, `settled-offset`, `committed`,|                                      |          |
//! |          | `journal`                                        |                                      |          |
//!
//! [`ObjectRecord`]: super::records::ObjectRecord
//! [`ChunkRecord`]: super::records::ChunkRecord
//! [`PendingRecord`]: super::records::PendingRecord
//! [`Counter`]: super::records::Counter

use std::fmt;

use sateen_types::{ComponentId, Fid, FsCode, FsError, FsId, FsResult, ObjectId, StripeIndex};

use super::disk::SegmentId;

/// Objects and what is known of them as a whole.
pub const CF_OBJECTS: &str = "objects";
/// Where each chunk is stored.
pub const CF_CHUNKS: &str = "chunks";
/// What each chunk changed since the last commit was at that commit.
pub const CF_PENDING: &str = "pending";
/// Bytes in use in each segment.
pub const CF_SEGMENTS: &str = "segments";
/// Extents nothing refers to any more that are not punched yet.
pub const CF_FREES: &str = "frees";
/// Counters of the store as a whole.
pub const CF_META: &str = "meta";

/// Format of this index; a newer one is refused.
pub const META_FORMAT: &[u8] = b"format";
/// The segment number after the highest ever used. Numbers are never reused, so that a stale row in `frees` can never
/// punch a live extent.
pub const META_NEXT_SEGMENT: &[u8] = b"next-segment";
/// With [`META_SETTLED_OFFSET`]: every extent before this place is in the index, noted in `frees`, or punched.
pub const META_SETTLED_SEGMENT: &[u8] = b"settled-segment";
/// [`META_COMMITTED`] as it was when the settled place was. Another number, or none: an earlier build has moved the place
/// since, and may have left it before extents that were committed.
pub const META_SETTLED_NOTED: &[u8] = b"settled-noted";
/// Number of the last commit whose batch is in the index.
pub const META_COMMITTED: &[u8] = b"committed";
/// 1: the journal in the segments says everything that the index does. Otherwise the next start writes it anew.
pub const META_JOURNAL: &[u8] = b"journal";
/// See [`META_SETTLED_SEGMENT`].
pub const META_SETTLED_OFFSET: &[u8] = b"settled-offset";
/// How many objects there are.
pub const META_OBJECTS: &[u8] = b"objects";

/// Bytes of an object key.
const OBJECT_KEY_BYTES: usize = 24;

/// An object within its file system.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey([u8; OBJECT_KEY_BYTES]);

impl ObjectKey {
    /// The key of `object`; its file system selects the index, not the key.
    pub fn of(object: &ObjectId) -> ObjectKey {
        let mut key = [0; OBJECT_KEY_BYTES];
        key[..16].copy_from_slice(&object.fid.to_bytes());
        key[16..20].copy_from_slice(&object.component.0.to_be_bytes());
        key[20..].copy_from_slice(&object.stripe.0.to_be_bytes());
        ObjectKey(key)
    }

    /// From the bytes in the index; `None` if there are more or fewer.
    pub fn from_bytes(bytes: &[u8]) -> Option<ObjectKey> {
        bytes.try_into().ok().map(ObjectKey)
    }

    /// The object, given the file system of the index the key was found in.
    pub fn object(&self, fs: FsId) -> ObjectId {
        let word = |at: usize| u32::from_be_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]]);
        let mut fid = [0; 16];
        fid.copy_from_slice(&self.0[..16]);
        ObjectId { fs, fid: Fid::from_bytes(fid), component: ComponentId(word(16)), stripe: StripeIndex(word(20)) }
    }

    /// The key of one of its chunks.
    pub fn chunk(self, number: u64) -> ChunkKey {
        ChunkKey { object: self, number }
    }

    /// The bytes in the index.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// In `pending` the number of the object itself: its size changed, or it is gone. No chunk has it.
pub const WHOLE_OBJECT: u64 = u64::MAX;

/// One chunk of an object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkKey {
    /// Whose chunk.
    pub object: ObjectKey,
    /// Offset in the object divided by the chunk size.
    pub number: u64,
}

impl ChunkKey {
    /// The bytes in the index.
    pub fn to_bytes(self) -> [u8; OBJECT_KEY_BYTES + 8] {
        let mut key = [0; OBJECT_KEY_BYTES + 8];
        key[..OBJECT_KEY_BYTES].copy_from_slice(&self.object.0);
        key[OBJECT_KEY_BYTES..].copy_from_slice(&self.number.to_be_bytes());
        key
    }

    /// Inverse of [`ChunkKey::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> FsResult<ChunkKey> {
        let bytes: [u8; OBJECT_KEY_BYTES + 8] = bytes.try_into().map_err(|_| bad_key("chunk", bytes))?;
        let mut object = [0; OBJECT_KEY_BYTES];
        object.copy_from_slice(&bytes[..OBJECT_KEY_BYTES]);
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[OBJECT_KEY_BYTES..]);
        Ok(ChunkKey { object: ObjectKey(object), number: u64::from_be_bytes(number) })
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x?}", self.0)
    }
}

impl fmt::Debug for ChunkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x?}/{}", self.object.0, self.number)
    }
}

/// Key of a row of `segments`.
pub fn segment_key(segment: SegmentId) -> [u8; 8] {
    segment.0.to_be_bytes()
}

/// Inverse of [`segment_key`].
pub fn segment_from_key(bytes: &[u8]) -> FsResult<SegmentId> {
    let bytes: [u8; 8] = bytes.try_into().map_err(|_| bad_key("segment", bytes))?;
    Ok(SegmentId(u64::from_be_bytes(bytes)))
}

/// Key of a row of `frees`.
pub fn free_key(segment: SegmentId, offset: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&segment.0.to_be_bytes());
    key[8..].copy_from_slice(&offset.to_be_bytes());
    key
}

/// Inverse of [`free_key`].
pub fn free_from_key(bytes: &[u8]) -> FsResult<(SegmentId, u64)> {
    let bytes: [u8; 16] = bytes.try_into().map_err(|_| bad_key("free", bytes))?;
    let both = u128::from_be_bytes(bytes);
    Ok((SegmentId((both >> 64) as u64), both as u64))
}

fn bad_key(kind: &str, bytes: &[u8]) -> FsError {
    FsError::new(FsCode::Corrupt, format!("the index has a {kind} key of {} bytes", bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_are_reversible_and_ordered_by_fid_then_chunk(
            oid in 1u32..1000, component in 1u32..9, stripe in 0u32..9, a in any::<u64>(), b in any::<u64>(),
        ) {
            let object = ObjectId {
                fs: FsId(7),
                fid: Fid { seq: Fid::SEQ_FIRST, oid, ver: 0 },
                component: ComponentId(component),
                stripe: StripeIndex(stripe),
            };
            let key = ObjectKey::of(&object);
            prop_assert_eq!(key.object(FsId(7)), object);
            let (ka, kb) = (key.chunk(a), key.chunk(b));
            prop_assert_eq!(ChunkKey::from_bytes(&ka.to_bytes()).expect("own bytes"), ka);
            prop_assert_eq!(ka.to_bytes().cmp(&kb.to_bytes()), a.cmp(&b));
            prop_assert_eq!(free_from_key(&free_key(SegmentId(a), b)).expect("own bytes"), (SegmentId(a), b));
        }
    }

    #[test]
    fn keys_of_another_length_are_corrupt() {
        for len in [0, 7, 9, 31, 33] {
            assert!(ChunkKey::from_bytes(&vec![0; len]).is_err());
            assert!(segment_from_key(&vec![0; len]).is_err());
            assert!(free_from_key(&vec![0; len]).is_err());
        }
    }
}
