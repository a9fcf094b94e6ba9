//! Values of the store's index. All integers big-endian; the first byte is the version of the shape.
//!
//! **ChunkRecord**, 52 bytes
//!
//! | offset | size | field       | notes                                                                   |
//! |-------:|-----:|-------------|-------------------------------------------------------------------------|
//! |      0 |    1 | version     | 1                                                                       |
//! |      1 |    1 | codec       | 0 raw, 1 LZ4 block                                                      |
//! |      2 |    2 | reserved    | zero, checked                                                           |
//! |      4 |    4 | raw_len     | bytes when opened, at most one chunk; what follows in the chunk is zero |
//! |      8 |    4 | stored_len  | bytes in the segment; the extent is this, rounded up to 4 KiB           |
//! |     12 |    4 | visible_len | at most raw_len; a truncated chunk keeps its bytes but shows fewer      |
//! |     16 |    8 | segment     |                                                                         |
//! |     24 |    8 | offset      | in the segment, multiple of 4 KiB                                       |
//! |     32 |    8 | generation  | rises with every change of the chunk                                    |
//! |     40 |    4 | raw_crc     | crc32c of the opened bytes                                              |
//! |     44 |    4 | stored_crc  | crc32c of the stored bytes, so that a scrub needs no LZ4                |
//! |     48 |    4 | crc         | crc32c of bytes 0..48                                                   |
//!
//! **ObjectRecord**, 44 bytes: version 1 (it is 2), chunk_log2 1, reserved 2, size 8, allocated 8, chunks 8, change 8,
//! born 8. Version 1 has 36 bytes, without born.
//!
//! **PendingRecord**, 12, 64 or 116 bytes: version 1, flags 1 (1: `before` follows, 2: `between` follows), reserved 2,
//! object size 8, then those ChunkRecords.
//!
//! **Counter**, 8 bytes: i64, changed by RocksDB merges that add.

use sateen_types::limits::{BLOCK_BYTES, CHUNK_BYTES_MAX, CHUNK_LOG2_MAX, CHUNK_LOG2_MIN};
use sateen_types::{Codec, FsCode, FsError, FsResult};

use super::disk::SegmentId;

const VERSION: u8 = 1;
const CHUNK_RECORD_BYTES: usize = 52;
const OBJECT_VERSION: u8 = 2;
const OBJECT_RECORD_BYTES: usize = 44;
const OBJECT_RECORD_BYTES_V1: usize = 36;
const PENDING_HEADER_BYTES: usize = 12;

/// A run of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentExtent {
    /// Which segment.
    pub segment: SegmentId,
    /// First byte, a multiple of 4 KiB.
    pub offset: u64,
    /// Bytes, a multiple of 4 KiB.
    pub len: u64,
}

/// A place in the segments; they are ordered as they were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentPlace {
    /// Which segment.
    pub segment: SegmentId,
    /// Byte in it.
    pub offset: u64,
}

/// `len` rounded up to whole blocks.
pub fn round_to_blocks(len: u64) -> u64 {
    len.next_multiple_of(u64::from(BLOCK_BYTES))
}

/// Where and how one chunk is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRecord {
    /// How the stored bytes are to be opened.
    pub codec: Codec,
    /// Bytes when opened; the rest of the chunk is zero.
    pub raw_len: u32,
    /// Bytes in the segment.
    pub stored_len: u32,
    /// How many of the opened bytes belong to the object; the rest was cut off by a truncate.
    pub visible_len: u32,
    /// Which segment.
    pub segment: SegmentId,
    /// First byte in the segment.
    pub offset: u64,
    /// Rises with every change of the chunk.
    pub generation: u64,
    /// crc32c of the opened bytes.
    pub raw_crc: u32,
    /// crc32c of the stored bytes.
    pub stored_crc: u32,
}

impl SegmentExtent {
    /// Where it begins.
    pub fn place(&self) -> SegmentPlace {
        SegmentPlace { segment: self.segment, offset: self.offset }
    }
}

impl ChunkRecord {
    /// The space it occupies.
    pub fn extent(&self) -> SegmentExtent {
        SegmentExtent { segment: self.segment, offset: self.offset, len: round_to_blocks(u64::from(self.stored_len)) }
    }

    /// The bytes in the index.
    pub fn encode(&self) -> [u8; CHUNK_RECORD_BYTES] {
        let mut out = [0; CHUNK_RECORD_BYTES];
        out[0] = VERSION;
        out[1] = match self.codec {
            Codec::Raw => 0,
            Codec::Lz4 => 1,
        };
        out[4..8].copy_from_slice(&self.raw_len.to_be_bytes());
        out[8..12].copy_from_slice(&self.stored_len.to_be_bytes());
        out[12..16].copy_from_slice(&self.visible_len.to_be_bytes());
        out[16..24].copy_from_slice(&self.segment.0.to_be_bytes());
        out[24..32].copy_from_slice(&self.offset.to_be_bytes());
        out[32..40].copy_from_slice(&self.generation.to_be_bytes());
        out[40..44].copy_from_slice(&self.raw_crc.to_be_bytes());
        out[44..48].copy_from_slice(&self.stored_crc.to_be_bytes());
        let crc = crc32c::crc32c(&out[..48]);
        out[48..].copy_from_slice(&crc.to_be_bytes());
        out
    }

    /// Inverse of [`ChunkRecord::encode`]; checks every rule, so that no length in it can hurt.
    pub fn decode(bytes: &[u8]) -> FsResult<ChunkRecord> {
        let corrupt = |why: &str| bad("chunk", why);
        if bytes.len() != CHUNK_RECORD_BYTES {
            return Err(corrupt("has a wrong length"));
        }
        if crc32c::crc32c(&bytes[..48]) != u32_at(bytes, 48) {
            return Err(corrupt("does not match its checksum"));
        }
        if bytes[0] != VERSION || bytes[2..4] != [0, 0] {
            return Err(corrupt("has an unknown version"));
        }
        let codec = match bytes[1] {
            0 => Codec::Raw,
            1 => Codec::Lz4,
            _ => return Err(corrupt("has an unknown codec")),
        };
        let record = ChunkRecord {
            codec,
            raw_len: u32_at(bytes, 4),
            stored_len: u32_at(bytes, 8),
            visible_len: u32_at(bytes, 12),
            segment: SegmentId(u64_at(bytes, 16)),
            offset: u64_at(bytes, 24),
            generation: u64_at(bytes, 32),
            raw_crc: u32_at(bytes, 40),
            stored_crc: u32_at(bytes, 44),
        };
        if !record.is_sound() {
            return Err(corrupt("has impossible lengths"));
        }
        Ok(record)
    }

    /// The rules between the fields.
    fn is_sound(&self) -> bool {
        (1..=CHUNK_BYTES_MAX).contains(&self.raw_len)
            && (1..=self.raw_len).contains(&self.stored_len)
            && (1..=self.raw_len).contains(&self.visible_len)
            && (self.codec == Codec::Lz4 || self.stored_len == self.raw_len)
            && self.offset.is_multiple_of(u64::from(BLOCK_BYTES))
            && self.offset <= i64::MAX as u64 - u64::from(CHUNK_BYTES_MAX)
    }
}

/// An object as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectRecord {
    /// log2 of its chunk size, fixed by its first write.
    pub chunk_log2: u8,
    /// One past the last byte ever written and not truncated.
    pub size: u64,
    /// Disk space of its chunks, in bytes.
    pub allocated: u64,
    /// How many chunks are stored.
    pub chunks: u64,
    /// Rises with every change.
    pub change: u64,
    /// The segment that was written when the object was made: no journal before it knows the object.
    pub born: SegmentId,
}

impl ObjectRecord {
    /// An object nothing was written to yet.
    pub fn empty(chunk_log2: u8, born: SegmentId) -> ObjectRecord {
        ObjectRecord { chunk_log2, size: 0, allocated: 0, chunks: 0, change: 0, born }
    }

    /// Bytes of an encoded record.
    pub const BYTES: usize = OBJECT_RECORD_BYTES;

    /// The bytes in the index.
    pub fn encode(&self) -> [u8; OBJECT_RECORD_BYTES] {
        let mut out = [0; OBJECT_RECORD_BYTES];
        out[0] = OBJECT_VERSION;
        out[1] = self.chunk_log2;
        out[4..12].copy_from_slice(&self.size.to_be_bytes());
        out[12..20].copy_from_slice(&self.allocated.to_be_bytes());
        out[20..28].copy_from_slice(&self.chunks.to_be_bytes());
        out[28..36].copy_from_slice(&self.change.to_be_bytes());
        out[36..44].copy_from_slice(&self.born.0.to_be_bytes());
        out
    }

    /// Inverse of [`ObjectRecord::encode`].
    pub fn decode(bytes: &[u8]) -> FsResult<ObjectRecord> {
        let born = match (bytes.first(), bytes.len()) {
            (Some(&VERSION), OBJECT_RECORD_BYTES_V1) => 0,
            (Some(&OBJECT_VERSION), OBJECT_RECORD_BYTES) => u64_at(bytes, 36),
            _ => return Err(bad("object", "has a wrong length or version")),
        };
        if bytes[2..4] != [0, 0] {
            return Err(bad("object", "has an unknown version"));
        }
        if !(CHUNK_LOG2_MIN..=CHUNK_LOG2_MAX).contains(&bytes[1]) {
            return Err(bad("object", "has an impossible chunk size"));
        }
        Ok(ObjectRecord {
            chunk_log2: bytes[1],
            size: u64_at(bytes, 4),
            allocated: u64_at(bytes, 12),
            chunks: u64_at(bytes, 20),
            change: u64_at(bytes, 28),
            born: SegmentId(born),
        })
    }
}

/// What recovery needs to undo a change that was never committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingRecord {
    /// The chunk at the last commit; `None`: it was a hole.
    pub before: Option<ChunkRecord>,
    /// The chunk that a commit was making durable when it changed again.
    pub between: Option<ChunkRecord>,
    /// Size of the object before the change.
    pub object_size: u64,
}

impl PendingRecord {
    /// Extents that recovery may fall back to, each once.
    pub fn extents(&self) -> impl Iterator<Item = SegmentExtent> {
        let [before, between] = [self.before, self.between].map(|record| record.map(|r| r.extent()));
        before.into_iter().chain(between.filter(|_| between != before))
    }

    /// The bytes in the index.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(PENDING_HEADER_BYTES + 2 * CHUNK_RECORD_BYTES);
        let flags = u8::from(self.before.is_some()) | u8::from(self.between.is_some()) << 1;
        out.extend_from_slice(&[VERSION, flags, 0, 0]);
        out.extend_from_slice(&self.object_size.to_be_bytes());
        for record in [&self.before, &self.between].into_iter().flatten() {
            out.extend_from_slice(&record.encode());
        }
        out
    }

    /// Inverse of [`PendingRecord::encode`].
    pub fn decode(bytes: &[u8]) -> FsResult<PendingRecord> {
        if bytes.len() < PENDING_HEADER_BYTES || bytes[0] != VERSION || bytes[2..4] != [0, 0] {
            return Err(bad("pending", "has a wrong length or version"));
        }
        let rest = &bytes[PENDING_HEADER_BYTES..];
        let (before, between) = match bytes[1] {
            0 if rest.is_empty() => (None, None),
            1 => (Some(ChunkRecord::decode(rest)?), None),
            2 => (None, Some(ChunkRecord::decode(rest)?)),
            3 if rest.len() == 2 * CHUNK_RECORD_BYTES => {
                let (before, between) = rest.split_at(CHUNK_RECORD_BYTES);
                (Some(ChunkRecord::decode(before)?), Some(ChunkRecord::decode(between)?))
            }
            _ => return Err(bad("pending", "does not say what was there before")),
        };
        Ok(PendingRecord { before, between, object_size: u64_at(bytes, 4) })
    }
}

/// A number that merges add to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter(pub i64);

impl Counter {
    /// The bytes in the index.
    pub fn encode(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// Inverse of [`Counter::encode`].
    pub fn decode(bytes: &[u8]) -> FsResult<Counter> {
        let bytes: [u8; 8] = bytes.try_into().map_err(|_| bad("counter", "has a wrong length"))?;
        Ok(Counter(i64::from_be_bytes(bytes)))
    }

    /// The merge: the old value, if any, plus every operand. `None` if one of them is no counter.
    pub fn sum<'a>(old: Option<&[u8]>, operands: impl Iterator<Item = &'a [u8]>) -> Option<Counter> {
        let mut total = old.map_or(Ok(Counter(0)), Counter::decode).ok()?.0;
        for operand in operands {
            total = total.checked_add(Counter::decode(operand).ok()?.0)?;
        }
        Some(Counter(total))
    }
}

fn bad(kind: &str, why: &str) -> FsError {
    FsError::new(FsCode::Corrupt, format!("a {kind} record of the index {why}"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) << 32 | u64::from(u32_at(bytes, at + 4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_chunk() -> impl Strategy<Value = ChunkRecord> {
        (1..=CHUNK_BYTES_MAX, any::<[u32; 4]>(), 0u64..1 << 40, any::<bool>()).prop_map(|(raw_len, n, block, lz4)| {
            ChunkRecord {
                codec: if lz4 { Codec::Lz4 } else { Codec::Raw },
                raw_len,
                stored_len: if lz4 { n[0] % raw_len + 1 } else { raw_len },
                visible_len: n[1] % raw_len + 1,
                segment: SegmentId(u64::from(n[0])),
                offset: block * u64::from(BLOCK_BYTES),
                generation: u64::from(n[1]),
                raw_crc: n[2],
                stored_crc: n[3],
            }
        })
    }

    proptest! {
        #[test]
        fn records_survive_the_index(chunk in any_chunk(), size in any::<u64>(), with in any::<[bool; 2]>()) {
            prop_assert_eq!(ChunkRecord::decode(&chunk.encode()).expect("own bytes"), chunk);
            let pending = PendingRecord { before: with[0].then_some(chunk), between: with[1].then_some(chunk), object_size: size };
            prop_assert_eq!(PendingRecord::decode(&pending.encode()).expect("own bytes"), pending);
            let object = ObjectRecord { chunk_log2: 17, size, allocated: size / 2, chunks: 3, change: 4, born: SegmentId(5) };
            prop_assert_eq!(ObjectRecord::decode(&object.encode()).expect("own bytes"), object);
        }

        #[test]
        fn any_flipped_bit_of_a_chunk_record_is_noticed(chunk in any_chunk(), bit in 0..CHUNK_RECORD_BYTES * 8) {
            let mut bytes = chunk.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(ChunkRecord::decode(&bytes).expect_err("noticed").code, FsCode::Corrupt);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (ChunkRecord::decode(&bytes), PendingRecord::decode(&bytes), ObjectRecord::decode(&bytes));
            let _ = Counter::sum(Some(&bytes), [&bytes[..]].into_iter());
        }
    }

    #[test]
    fn the_shape_of_version_1_is_fixed() {
        let chunk = ChunkRecord {
            codec: Codec::Lz4,
            raw_len: 0x2_0000,
            stored_len: 0x1234,
            visible_len: 0x1_0000,
            segment: SegmentId(3),
            offset: 0x5000,
            generation: 6,
            raw_crc: 0xaabb_ccdd,
            stored_crc: 0x1122_3344,
        };
        let hex: String = chunk.encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex[..96],
            *concat!(
                "01010000",
                "00020000",
                "00001234",
                "00010000",
                "0000000000000003",
                "0000000000005000",
                "0000000000000006",
                "aabbccdd",
                "11223344"
            )
        );
        assert_eq!(chunk.extent().len, 0x2000);
    }
}
