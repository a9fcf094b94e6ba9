//! The journal: what the index would have to know, written down in the segments themselves.
//!
//! Every commit appends a *run* to the active segment: the new state of each chunk and object that changed since the
//! last one. The sync that makes the data durable makes the run durable too. Runs are numbered; replaying them in order
//! gives the index as of the last commit ([`super::rebuild`]). This file knows the bytes; [`super::commit`] decides what
//! is written, [`super::retire`] what is written again because the segment that held it goes.
//!
//! A run, on a 4 KiB boundary, little-endian:
//!
//! | offset | size | field    | notes                                                                              |
//! |-------:|-----:|----------|------------------------------------------------------------------------------------|
//! |      0 |    8 | magic    | `SATJRNL1`                                                                         |
//! |      8 |   16 | key      | random, from the header of the segment: bytes of a client never look like a run    |
//! |     24 |    8 | sequence | number of the commit, from 1                                                       |
//! |     32 |    8 | previous | offset of the run before it in this segment; 0: none                               |
//! |     40 |    4 | part     | a commit with many changes has several runs                                        |
//! |     44 |    4 | parts    | how many                                                                           |
//! |     48 |    4 | body_len | bytes of the records                                                               |
//! |     52 |    4 | crc32c   | over bytes 0..52 and the records                                                   |
//! |     56 |    8 | reserved | 0; not looked at                                                                   |
//!
//! (`reserved` is covered by the checksum as if it came first.) A record: kind 1, then object key 24, then by kind:
//! 1 chunk number 8, ChunkRecord 52; 2 chunk number 8 (a hole); 3 ObjectRecord 44; 4 born 8 (the object is gone). Kind 5
//! stands alone: from this commit on the journal says everything, also of segments that have none of their own.

use sateen_types::limits::BLOCK_BYTES;

use super::disk::{Caching, SegmentFile, SegmentId, read_exact_at};
use super::keys::{ChunkKey, ObjectKey};
use super::records::{ChunkRecord, ObjectRecord, SegmentPlace, round_to_blocks};

const MAGIC: &[u8; 8] = b"SATJRNL1";
const HEADER: usize = 64;
const RESERVED: [u8; 8] = [0; 8];
/// Bytes of records in one run, about: bounds the memory of whoever reads it.
const BODY_BYTES: usize = 1 << 20;
/// A run whose header says more is none.
const BODY_BYTES_MAX: usize = 2 * BODY_BYTES;

/// Random bytes of a segment that no client ever sees.
pub type JournalKey = [u8; 16];

/// What became of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalRecord {
    /// A chunk is stored, or is a hole.
    Chunk(ChunkKey, Option<ChunkRecord>),
    /// An object is there.
    Object(ObjectKey, ObjectRecord),
    /// An object is gone. No record of it is in a segment before `born`.
    Gone(ObjectKey, SegmentId),
    /// From here on the journal says everything, also what is in segments without one ([`super::snapshot`]).
    Complete,
}

/// Where a run is and what its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunHeader {
    /// Number of the commit.
    pub sequence: u64,
    /// Which of `parts`.
    pub part: u32,
    /// Runs of the commit.
    pub parts: u32,
    /// The run before it in its segment; 0: none.
    pub previous: u64,
    /// Where it begins.
    pub place: SegmentPlace,
    /// Bytes it takes, whole blocks.
    pub length: u64,
}

/// A run that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its header.
    pub header: RunHeader,
    /// Its records.
    pub records: Vec<JournalRecord>,
}

/// Records cut into the bodies of runs.
pub fn bodies(records: impl Iterator<Item = JournalRecord>) -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = Vec::new();
    for record in records {
        if bodies.last().is_none_or(|body| body.len() >= BODY_BYTES) {
            bodies.push(Vec::new());
        }
        if let Some(body) = bodies.last_mut() {
            encode(&record, body);
        }
    }
    bodies
}

fn encode(record: &JournalRecord, out: &mut Vec<u8>) {
    match record {
        JournalRecord::Chunk(key, Some(chunk)) => {
            out.push(1);
            out.extend_from_slice(&key.to_bytes());
            out.extend_from_slice(&chunk.encode());
        }
        JournalRecord::Chunk(key, None) => {
            out.push(2);
            out.extend_from_slice(&key.to_bytes());
        }
        JournalRecord::Object(key, object) => {
            out.push(3);
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(&object.encode());
        }
        JournalRecord::Gone(key, born) => {
            out.push(4);
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(&born.0.to_be_bytes());
        }
        JournalRecord::Complete => out.push(5),
    }
}

/// The records of a body; `None` if it does not consist of records.
pub(super) fn decode(mut body: &[u8]) -> Option<Vec<JournalRecord>> {
    let mut records = Vec::new();
    while let Some((kind, rest)) = body.split_first() {
        body = rest;
        let mut take = |n: usize| body.split_off(..n);
        let record = match kind {
            1 => {
                let key = ChunkKey::from_bytes(take(32)?).ok()?;
                JournalRecord::Chunk(key, Some(ChunkRecord::decode(take(52)?).ok()?))
            }
            2 => JournalRecord::Chunk(ChunkKey::from_bytes(take(32)?).ok()?, None),
            3 => {
                let key = ObjectKey::from_bytes(take(24)?)?;
                JournalRecord::Object(key, ObjectRecord::decode(take(ObjectRecord::BYTES)?).ok()?)
            }
            4 => {
                let key = ObjectKey::from_bytes(take(24)?)?;
                JournalRecord::Gone(key, SegmentId(u64::from_be_bytes(take(8)?.try_into().ok()?)))
            }
            5 => JournalRecord::Complete,
            _ => return None,
        };
        records.push(record);
    }
    Some(records)
}

/// A run as it is written, padded to whole blocks. `header.place` and `header.length` are not in it.
pub fn seal(key: &JournalKey, header: &RunHeader, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(round_to_blocks((HEADER + body.len()) as u64) as usize);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(key);
    out.extend_from_slice(&header.sequence.to_le_bytes());
    out.extend_from_slice(&header.previous.to_le_bytes());
    out.extend_from_slice(&header.part.to_le_bytes());
    out.extend_from_slice(&header.parts.to_le_bytes());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    let crc = checksum(&out, &RESERVED, body);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&RESERVED);
    out.extend_from_slice(body);
    out.resize(round_to_blocks(out.len() as u64) as usize, 0);
    out
}

/// Bytes that a run with this body takes.
pub fn sealed_bytes(body: &[u8]) -> u64 {
    round_to_blocks((HEADER + body.len()) as u64)
}

fn checksum(front: &[u8], reserved: &[u8], body: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(reserved), front);
    crc32c::crc32c_append(crc, body)
}

/// The header in `block`, if one is there, and its checksum.
fn parse(key: &JournalKey, block: &[u8], place: SegmentPlace) -> Option<(RunHeader, usize, u32)> {
    let word = |at: usize| block.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let long = |at: usize| block.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    if block.get(..8)? != MAGIC || block.get(8..24)? != key {
        return None;
    }
    let body = word(48)? as usize;
    let header = RunHeader {
        sequence: long(24)?,
        previous: long(32)?,
        part: word(40)?,
        parts: word(44)?,
        place,
        length: round_to_blocks((HEADER + body) as u64),
    };
    (body <= BODY_BYTES_MAX && header.part < header.parts && header.sequence > 0).then_some(())?;
    Some((header, body, word(52)?))
}

/// The run at `place`, if there is a whole one.
pub fn read_run(file: &dyn SegmentFile, key: &JournalKey, place: SegmentPlace) -> std::io::Result<Option<Run>> {
    let mut bytes = vec![0; BLOCK_BYTES as usize];
    match read_exact_at(file, &mut bytes, place.offset, Caching::Stream) {
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let Some((header, body, crc)) = parse(key, &bytes, place) else { return Ok(None) };
    bytes.resize(HEADER + body, 0);
    match read_exact_at(file, &mut bytes, place.offset, Caching::Stream) {
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    if checksum(&bytes[..52], &bytes[56..HEADER], &bytes[HEADER..]) != crc {
        return Ok(None);
    }
    Ok(decode(&bytes[HEADER..]).map(|records| Run { header, records }))
}

/// Whether there is a whole run of any key in a segment from `from` on: what is left to ask where the header is gone.
pub fn has_any_run(file: &dyn SegmentFile, from: u64) -> std::io::Result<bool> {
    let block = u64::from(BLOCK_BYTES);
    let mut at = from;
    while let Some(data) = file.next_data(at)? {
        at = data / block * block;
        let mut start = [0; 24];
        match read_exact_at(file, &mut start, at, Caching::Stream) {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other?,
        }
        // The segment's number is not in a run.
        let place = SegmentPlace { segment: SegmentId(0), offset: at };
        if let Some(key) = start.strip_prefix(MAGIC).and_then(|key| JournalKey::try_from(key).ok())
            && read_run(file, &key, place)?.is_some()
        {
            return Ok(true);
        }
        at += block;
    }
    Ok(false)
}

/// Visits the whole runs of a segment from `from` on. Holes are skipped.
pub fn scan(
    file: &dyn SegmentFile,
    key: &JournalKey,
    from: SegmentPlace,
    mut visit: impl FnMut(Run),
) -> std::io::Result<()> {
    let block = u64::from(BLOCK_BYTES);
    let mut at = from.offset;
    while let Some(data) = file.next_data(at)? {
        at = data / block * block;
        at += match read_run(file, key, SegmentPlace { offset: at, ..from })? {
            Some(run) => {
                let length = run.header.length;
                visit(run);
                length
            }
            None => block,
        };
    }
    Ok(())
}
