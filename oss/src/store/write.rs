//! Writes: sealed chunks as the client made them, and plain ranges that are merged into what is there.
//!
//! Order: 1. check the parts and their checksums; 2. write the sealed chunks to a segment, without any lock; 3. under
//! the object's lock, for each plain range: read and verify the chunk, merge, seal, write; 4. point the index to all of
//! it in one batch. A failure before 4 leaves no trace but an extent that is punched.

use std::collections::BTreeMap;
use std::io::IoSlice;

use bytes::Bytes;
use sateen_types::limits::BLOCK_BYTES;
use sateen_types::{Codec, Compression, FsCode, FsError, FsResult, ObjectId, Part, Payload};

use super::codec::seal;
use super::disk::SegmentId;
use super::fence::Fence;
use super::records::{ChunkRecord, round_to_blocks};
use super::reservation::Reservation;
use super::{Changed, Locked, Resize, Store};

/// Chunks that hold less say nothing about what comes: they may have been too short to save a block.
const NOISE_BYTES_MIN: u32 = 16 << 10;
/// Of the changes of a chunk that did not shrink, one in so many tries to compress it all the same.
const TRY_EVERY: u64 = 8;

/// Parts of one object, checked by `sateen_proto::convert::parts_from_wire`.
pub struct Write {
    /// Whose bytes.
    pub object: ObjectId,
    /// log2 of the object's chunk size.
    pub chunk_log2: u8,
    /// Whether chunks made here are compressed.
    pub compression: Compression,
    /// Whose write it is, so that it is refused if it comes too late.
    pub fence: Option<Fence>,
    /// In rising order, without overlap.
    pub parts: Vec<Part>,
    /// Stored bytes of all parts, in their order.
    pub payload: Payload,
}

/// New bytes of one chunk.
enum Change {
    Sealed { part: Part, stored: Payload },
    Plain(Vec<(u32, Bytes)>),
}

impl Store {
    /// Stores the parts. Survives a crash of this process when it returns, and a power cut after the next commit.
    pub fn write(&self, write: Write) -> FsResult<Changed> {
        self.check_healthy()?;
        let (write, changes) = sort(write)?;
        self.make_room()?;
        let end = write.parts.iter().map(|p| p.offset + u64::from(p.raw_len)).max().unwrap_or(0);
        let needed: u64 = changes
            .values()
            .map(|change| match change {
                Change::Sealed { part, .. } => round_to_blocks(u64::from(part.stored_len)),
                Change::Plain(_) => 1 << write.chunk_log2,
            })
            .sum();
        if needed == 0 {
            return Err(FsError::new(FsCode::Invalid, "parts: none"));
        }
        let reservation = self.segments.reserve(needed)?;
        let mut run = Run { reservation: &reservation, at: 0 };
        let mut records = Vec::with_capacity(changes.len());
        let sealed = changes.iter().filter_map(|(&number, change)| match change {
            Change::Sealed { part, stored } => Some((number, part, stored)),
            Change::Plain(_) => None,
        });
        run.append_all(sealed, &mut records)?;
        let locked = self.lock(&write.object);
        let _passed = self.fences.pass(write.fence)?;
        for (&number, change) in &changes {
            if let Change::Plain(ranges) = change {
                let record = self.merge(&locked, &write, number, ranges, &mut run)?;
                records.push((number, Some(record)));
            }
        }
        let used = run.at;
        let reservation = reservation.shrink(used);
        self.apply(&locked, write.chunk_log2, &records, Resize::AtLeast(end), Some(reservation))
    }

    /// The chunk with `ranges` written over what it holds.
    fn merge(
        &self,
        locked: &Locked<'_>,
        write: &Write,
        number: u64,
        ranges: &[(u32, Bytes)],
        run: &mut Run<'_, '_>,
    ) -> FsResult<ChunkRecord> {
        let end = ranges.iter().map(|(at, bytes)| *at as usize + bytes.len()).max().unwrap_or(0);
        let mut compression = write.compression;
        let mut raw = match self.index.chunk(locked.key.chunk(number))? {
            None => Vec::new(),
            Some(old) if replaces(ranges, old.visible_len) => Vec::new(),
            // Rule 4.2: what was not verified is never given a new checksum.
            Some(old) => {
                if is_noise(&old) {
                    compression = Compression::None;
                }
                self.open_chunk(locked, &write.object, number, &old)?
            }
        };
        if raw.len() < end {
            raw.resize(end, 0);
        }
        for (at, bytes) in ranges {
            raw[*at as usize..*at as usize + bytes.len()].copy_from_slice(bytes);
        }
        self.store_chunk(&raw, compression, run)
    }

    /// Seals `raw` and appends it to `run`.
    pub(super) fn store_chunk(
        &self,
        raw: &[u8],
        compression: Compression,
        run: &mut Run<'_, '_>,
    ) -> FsResult<ChunkRecord> {
        let sealed = seal(raw, compression);
        run.append(&sealed.part(0, raw.len()), &sealed.stored)
    }
}

/// A reservation that is filled from the front.
pub(super) struct Run<'a, 'b> {
    pub(super) reservation: &'a Reservation<'b>,
    pub(super) at: u64,
}

/// What fills a chunk's last block.
static PADDING: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];

impl Run<'_, '_> {
    /// Writes chunks one behind the other in one go and adds their records to `records`.
    fn append_all<'a>(
        &mut self,
        chunks: impl Iterator<Item = (u64, &'a Part, &'a Payload)>,
        records: &mut Vec<(u64, Option<ChunkRecord>)>,
    ) -> FsResult<()> {
        let start = self.at;
        let mut pieces = Vec::new();
        for (number, part, stored) in chunks {
            records.push((number, Some(self.place(part))));
            pieces.extend(stored.pieces().map(|piece| IoSlice::new(piece)));
            // Whole blocks: the kernel need not fill up the last page, and neighbours go out in one write.
            let padding = round_to_blocks(stored.len() as u64) as usize - stored.len();
            pieces.push(IoSlice::new(&PADDING[..padding]));
        }
        if pieces.is_empty() { Ok(()) } else { self.reservation.write(start, &mut pieces) }
    }

    fn append(&mut self, part: &Part, stored: &[u8]) -> FsResult<ChunkRecord> {
        let at = self.at;
        let record = self.place(part);
        self.reservation.write(at, &mut [IoSlice::new(stored)])?;
        Ok(record)
    }

    /// The record of a chunk that will be written next, and room for it.
    fn place(&mut self, part: &Part) -> ChunkRecord {
        let extent = self.reservation.extent();
        let record = ChunkRecord {
            codec: part.codec,
            raw_len: part.raw_len,
            stored_len: part.stored_len,
            visible_len: part.raw_len,
            segment: SegmentId(extent.segment.0),
            offset: extent.offset + self.at,
            generation: 0,
            raw_crc: part.raw_crc32c,
            stored_crc: part.stored_crc32c,
        };
        self.at += round_to_blocks(u64::from(part.stored_len));
        record
    }
}

/// A chunk that did not shrink is taken for one that never will, and only now and then tried again.
fn is_noise(old: &ChunkRecord) -> bool {
    old.codec == Codec::Raw && old.raw_len >= NOISE_BYTES_MIN && !old.generation.is_multiple_of(TRY_EVERY)
}

/// Whether `ranges`, in order, cover the first `visible` bytes of a chunk, so that nothing old is needed.
fn replaces(ranges: &[(u32, Bytes)], visible: u32) -> bool {
    let mut covered = 0;
    for (at, bytes) in ranges {
        if *at > covered {
            return false;
        }
        covered = covered.max(*at + bytes.len() as u32);
    }
    covered >= visible
}

/// Verifies the parts and sorts them by chunk; the payload moves into the changes.
fn sort(mut write: Write) -> FsResult<(Write, BTreeMap<u64, Change>)> {
    let mut changes: BTreeMap<u64, Change> = BTreeMap::new();
    let mut payload = std::mem::take(&mut write.payload);
    for part in &write.parts {
        let refuse = |code: FsCode, why: &str| {
            Err(FsError::new(
                code,
                format!("part: {} bytes at {} of {}: {why}", part.raw_len, part.offset, write.object),
            ))
        };
        if part.hole || part.stored_len as usize > payload.len() {
            return refuse(FsCode::Invalid, "a write carries bytes for each part");
        }
        let stored = payload.split_to(part.stored_len as usize);
        let crc = stored.pieces().fold(0, |crc, piece| crc32c::crc32c_append(crc, piece));
        if crc != part.stored_crc32c {
            return refuse(FsCode::Corrupt, "the bytes do not match their checksum (damaged on the way?)");
        }
        if part.codec == Codec::Raw && part.raw_crc32c != part.stored_crc32c {
            return refuse(FsCode::Invalid, "raw bytes with two different checksums");
        }
        let number = part.offset >> write.chunk_log2;
        let inside = (part.offset & ((1 << write.chunk_log2) - 1)) as u32;
        match (part.sealed, changes.get_mut(&number)) {
            (true, None) => {
                changes.insert(number, Change::Sealed { part: *part, stored });
            }
            (false, _) if part.codec != Codec::Raw => {
                return refuse(FsCode::Invalid, "a plain range is not compressed");
            }
            (false, None) => {
                changes.insert(number, Change::Plain(vec![(inside, stored.into_bytes())]));
            }
            (false, Some(Change::Plain(ranges))) => ranges.push((inside, stored.into_bytes())),
            _ => return refuse(FsCode::Invalid, "a sealed chunk stands alone in its chunk"),
        }
    }
    Ok((write, changes))
}
