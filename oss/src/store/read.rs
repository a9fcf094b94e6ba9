//! Reads: normally without a lock, without a thread of their own and without a copy, and never wrong data.
//!
//! A reader takes the records of a range as of one moment and then reads their extents, neighbours in one go. A writer
//! may meanwhile replace a chunk and a commit punch its old extent. Both are noticed: [`Segments::reclaims`] counts
//! punches, and if it has moved, or if the caller asks for it, every stored byte is checked. What does not hold is read
//! again under the object's lock, where no record can change. Only what is wrong then is damage: `Corrupt`, and an
//! error in the log that names file, object and chunk.
//!
//! A sealed reply is not checked here otherwise: the reader has the checksums that the writer made, checks them anyway,
//! and asks again with [`ReadRange::verify`] if they do not hold, which tells a bad disk from a bad network.
//!
//! [`Segments::reclaims`]: super::segments::Segments::reclaims

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use sateen_types::limits::BULK_BYTES_MAX;
use sateen_types::{Codec, FsCode, FsError, FsResult, ObjectId, Part, Payload};

use super::codec;
use super::keys::ObjectKey;
use super::orphans::lost_record;
use super::records::{ChunkRecord, ObjectRecord, SegmentExtent};
use super::segments::ReadError;
use super::{Locked, Store};

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub struct ReadOutcome {
    /// In order, covering the range from its start; holes are parts too.
    pub parts: Vec<Part>,
    /// Stored bytes of the parts, in their order.
    pub payload: Payload,
    /// Size of the object.
    pub object_size: u64,
}

impl ReadOutcome {
    /// What is read where nothing was ever written.
    pub fn hole(range: ReadRange) -> ReadOutcome {
        let mut reply = Reply::new(range);
        reply.hole_until(range.end());
        reply.finish(0)
    }
}

/// Which bytes a reader wants.
#[derive(Clone, Copy, Debug)]
pub struct ReadRange {
    /// Offset in the object.
    pub offset: u64,
    /// Bytes, at least 1.
    pub length: u32,
    /// Whole chunks as stored, for the reader to verify and open.
    pub sealed: bool,
    /// Check stored bytes here too.
    pub verify: bool,
}

impl ReadRange {
    fn end(&self) -> u64 {
        self.offset + u64::from(self.length)
    }
}

/// A run of an object that holds data. Precision is one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataExtent {
    /// Offset in the object.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// How an attempt to read goes about it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Only what is in memory.
    Memory,
    /// Waits for the disk; a chunk may change meanwhile.
    Disk,
    /// Under the object's lock.
    Locked,
}

/// Why an attempt did not succeed.
enum Missed {
    /// The disk is needed, or something changed meanwhile.
    TryHarder,
    /// This chunk could not be read.
    Chunk(u64, ReadError),
    /// The request or the index is at fault; no other way would help.
    Final(FsError),
}

impl From<FsError> for Missed {
    fn from(e: FsError) -> Missed {
        Missed::Final(e)
    }
}

impl From<Option<FsError>> for Missed {
    fn from(e: Option<FsError>) -> Missed {
        e.map_or(Missed::TryHarder, Missed::Final)
    }
}

impl Store {
    /// Reads a range if all of it is in memory; `None` if it must be read with [`Store::read`]. Never waits for a disk
    /// or a lock that is held for long.
    pub fn read_from_memory(
        &self,
        object: &ObjectId,
        chunk_log2: u8,
        range: ReadRange,
    ) -> FsResult<Option<ReadOutcome>> {
        match self.attempt(object, chunk_log2, range, Way::Memory) {
            Ok(outcome) => Ok(Some(outcome)),
            Err(Missed::Final(e)) => Err(e),
            Err(Missed::TryHarder | Missed::Chunk(..)) => Ok(None),
        }
    }

    /// Reads a range. The parts end early where the payload would pass [`BULK_BYTES_MAX`].
    pub fn read(&self, object: &ObjectId, chunk_log2: u8, range: ReadRange) -> FsResult<ReadOutcome> {
        match self.attempt(object, chunk_log2, range, Way::Disk) {
            Ok(outcome) => return Ok(outcome),
            Err(Missed::Final(e)) => return Err(e),
            Err(Missed::TryHarder | Missed::Chunk(..)) => {}
        }
        let _locked = self.lock(object);
        self.attempt(object, chunk_log2, range, Way::Locked).map_err(|missed| match missed {
            Missed::Chunk(number, why) => self.damage(object, number, &why),
            Missed::Final(e) => e,
            Missed::TryHarder => FsError::new(FsCode::Internal, "a read under the object's lock was interrupted"),
        })
    }

    fn attempt(&self, object: &ObjectId, chunk_log2: u8, range: ReadRange, way: Way) -> Result<ReadOutcome, Missed> {
        // Before the records are looked up: an extent of theirs can only be punched after it moves on.
        let reclaims = self.segments.reclaims();
        let key = ObjectKey::of(object);
        let (first, last) = (range.offset >> chunk_log2, ((range.end() - 1) >> chunk_log2) + 1);
        let known: Option<ObjectRecord> = match way {
            Way::Memory => self.index.object_in_memory(key)?,
            Way::Disk | Way::Locked => self.index.object(key)?,
        };
        let Some(known) = known else { return self.absent(key, range, way) };
        self.check_chunk_size(key, &known, chunk_log2)?;
        let records = match way {
            Way::Memory => self.index.chunk_range_in_memory(key, first, last)?,
            Way::Disk | Way::Locked => self.index.chunk_range(key, first, last)?,
        };
        let mut reader =
            Reader { store: self, range, way, reply: Reply::new(range), run: Vec::new(), runs: Vec::new() };
        let complete = reader.plan(chunk_log2, records)?;
        reader.fetch()?;
        if way != Way::Locked && self.segments.reclaims() != reclaims {
            if way == Way::Memory {
                return Err(Missed::TryHarder);
            }
            reader.verify()?;
        } else if range.verify || way == Way::Locked {
            reader.verify()?;
        }
        let mut reply = reader.reply;
        if complete {
            reply.hole_until(range.end());
        }
        self.counts.read_bytes.fetch_add(reply.payload.len() as u64, Ordering::Relaxed);
        Ok(reply.finish(known.size))
    }

    /// What is read of an object without a record: a hole if there is nothing of it.
    fn absent(&self, key: ObjectKey, range: ReadRange, way: Way) -> Result<ReadOutcome, Missed> {
        let chunk = match way {
            Way::Memory => self.index.first_chunk_in_memory(key)?,
            Way::Disk | Way::Locked => self.index.first_chunk(key)?,
        };
        match chunk {
            None => Ok(ReadOutcome::hole(range)),
            Some(chunk) if way == Way::Locked => Err(Missed::Chunk(chunk, lost_record())),
            // Its first write may have come in between.
            Some(_) => Err(Missed::TryHarder),
        }
    }

    /// The visible bytes of a chunk of a locked object, verified.
    pub(super) fn open_chunk(
        &self,
        _locked: &Locked<'_>,
        object: &ObjectId,
        number: u64,
        record: &ChunkRecord,
    ) -> FsResult<Vec<u8>> {
        let mut raw = self.fetch_opened(record).map_err(|e| self.damage(object, number, &e))?;
        raw.truncate(record.visible_len as usize);
        Ok(raw)
    }

    /// The stored bytes of a record, if they match their checksum.
    pub(super) fn fetch_stored(&self, record: &ChunkRecord) -> Result<Vec<u8>, ReadError> {
        let stored = self.segments.read(record.segment, record.offset, record.stored_len as usize)?;
        check(record, &stored)?;
        Ok(stored)
    }

    /// All bytes of a record, opened and verified.
    fn fetch_opened(&self, record: &ChunkRecord) -> Result<Vec<u8>, ReadError> {
        open(record, self.fetch_stored(record)?)
    }

    /// The error for bytes that cannot be read although their record is current; says so in the log.
    pub(super) fn damage(&self, object: &ObjectId, chunk: u64, why: &ReadError) -> FsError {
        self.damaged.note(ObjectKey::of(object).chunk(chunk), &why.to_string());
        let code = if matches!(why, ReadError::Io(_)) { FsCode::Io } else { FsCode::Corrupt };
        tracing::error!(
            ost = %self.owner.ost, fs = %object.fs, fid = %object.fid, component = object.component.0,
            stripe = object.stripe.0, chunk, %why, "stored data cannot be read"
        );
        FsError::new(code, format!("chunk {chunk} of {object} cannot be read: {why}"))
            .with_hint("restore the file from a backup; the rest of the file system is not affected")
    }

    /// Runs of data at or after `offset`, merged, at most `max`; and whether that was all.
    pub fn extents(
        &self,
        object: &ObjectId,
        chunk_log2: u8,
        offset: u64,
        max: usize,
    ) -> FsResult<(Vec<DataExtent>, bool)> {
        let key = ObjectKey::of(object);
        match self.object_or_nothing(object)? {
            None => return Ok((Vec::new(), true)),
            Some(record) => self.check_chunk_size(key, &record, chunk_log2)?,
        }
        let mut found: Vec<DataExtent> = Vec::new();
        let more = self.index.chunks(key, offset >> chunk_log2, u64::MAX, |number, record| {
            let start = (number << chunk_log2).max(offset);
            let end = (number << chunk_log2) + u64::from(record.visible_len);
            if end <= start {
                return ControlFlow::Continue(());
            }
            if let Some(last) = found.last_mut().filter(|last| last.offset + last.length == start) {
                last.length = end - last.offset;
            } else if found.len() == max {
                return ControlFlow::Break(());
            } else {
                found.push(DataExtent { offset: start, length: end - start });
            }
            ControlFlow::Continue(())
        })?;
        Ok((found, more.is_none()))
    }
}

/// Stored bytes against the checksum of their record.
pub(super) fn check(record: &ChunkRecord, stored: &[u8]) -> Result<(), ReadError> {
    let crc = crc32c::crc32c(stored);
    if crc == record.stored_crc {
        return Ok(());
    }
    Err(ReadError::Damaged(format!(
        "{} bytes at {} of segment {} have checksum {crc:#010x}, the index says {:#010x}",
        record.stored_len, record.offset, record.segment, record.stored_crc
    )))
}

/// Stored bytes that were checked, opened.
pub(super) fn open(record: &ChunkRecord, stored: Vec<u8>) -> Result<Vec<u8>, ReadError> {
    codec::open(record.codec, stored, record.raw_len, record.raw_crc).ok_or_else(|| {
        ReadError::Damaged(format!(
            "{} stored bytes do not open to {} bytes with the right checksum",
            record.stored_len, record.raw_len
        ))
    })
}

/// One attempt.
struct Reader<'a> {
    store: &'a Store,
    range: ReadRange,
    way: Way,
    reply: Reply,
    /// Chunks whose bytes are not in the reply yet: neighbours on disk.
    run: Vec<(u64, ChunkRecord)>,
    /// What was fetched as stored, to be verified if need be.
    runs: Vec<(u64, ChunkRecord, Bytes)>,
}

impl Reader<'_> {
    /// Goes through the chunks of the range; `false` if they do not all fit into one reply.
    fn plan(&mut self, chunk_log2: u8, records: Vec<(u64, ChunkRecord)>) -> Result<bool, Missed> {
        for (number, record) in records {
            let start = number << chunk_log2;
            let data_end = start + u64::from(record.visible_len);
            if data_end <= self.reply.at {
                continue;
            }
            self.reply.hole_until(start.max(self.reply.at).min(self.range.end()));
            let added = if self.range.sealed && record.visible_len == record.raw_len {
                self.add_sealed(number, start, record)?
            } else {
                self.add_opened(number, start, record)?
            };
            if !added {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn add_sealed(&mut self, number: u64, start: u64, record: ChunkRecord) -> Result<bool, Missed> {
        if !self.reply.admit(record.stored_len as usize) {
            return Ok(false);
        }
        let follows = |last: SegmentExtent| last.segment == record.segment && last.offset + last.len == record.offset;
        if self.run.last().is_some_and(|(_, last)| !follows(last.extent())) {
            self.fetch()?;
        }
        self.run.push((number, record));
        self.reply.push(Part {
            offset: start,
            raw_len: record.raw_len,
            stored_len: record.stored_len,
            codec: record.codec,
            raw_crc32c: record.raw_crc,
            stored_crc32c: record.stored_crc,
            sealed: true,
            hole: false,
        });
        Ok(true)
    }

    fn add_opened(&mut self, number: u64, start: u64, record: ChunkRecord) -> Result<bool, Missed> {
        self.fetch()?;
        let from = self.reply.at.max(start);
        let length = (start + u64::from(record.visible_len)).min(self.range.end()) - from;
        if !self.reply.admit(length as usize) {
            return Ok(false);
        }
        let inside = (from - start) as u32;
        let bytes = match self.known_blocks(&record, inside, length as u32) {
            Some(bytes) => bytes,
            None => self.open_part(number, &record, inside, length as u32)?,
        };
        let crc = crc32c::crc32c(&bytes);
        self.reply.push(Part {
            offset: from,
            raw_len: length as u32,
            stored_len: length as u32,
            codec: Codec::Raw,
            raw_crc32c: crc,
            stored_crc32c: crc,
            sealed: false,
            hole: false,
        });
        self.reply.payload.push(bytes);
        Ok(true)
    }

    /// `length` bytes from byte `from` of a chunk on, of which all bytes are read and checked.
    fn open_part(&self, number: u64, record: &ChunkRecord, from: u32, length: u32) -> Result<Bytes, Missed> {
        let damaged = |why| Missed::Chunk(number, why);
        let stored = self.read(number, record.extent(), record.stored_len as usize)?;
        check(record, &stored).map_err(damaged)?;
        self.store.known_blocks.learn(record, length, &stored);
        let raw = Bytes::from(open(record, stored).map_err(damaged)?);
        Ok(raw.slice(from as usize..(from + length) as usize))
    }

    /// The same from the blocks that hold them, if that is possible.
    fn known_blocks(&self, record: &ChunkRecord, from: u32, length: u32) -> Option<Bytes> {
        if self.way == Way::Locked || self.range.verify {
            return None;
        }
        let window = self.store.known_blocks.window(record, from, length)?;
        let segments = &self.store.segments;
        let bytes = match self.way {
            Way::Memory => segments.read_cached(record.segment, window.offset, window.len)?,
            Way::Disk | Way::Locked => segments.read(record.segment, window.offset, window.len).ok()?,
        };
        let from = (record.offset + u64::from(from) - window.offset) as usize;
        window.holds(&bytes).then(|| Bytes::from(bytes).slice(from..from + length as usize))
    }

    /// Puts the bytes of `run` into the reply: one read, and one piece where they touch.
    fn fetch(&mut self) -> Result<(), Missed> {
        let (Some((number, first)), Some((_, last))) = (self.run.first(), self.run.last()) else { return Ok(()) };
        let begin = first.offset;
        let len = (last.offset - begin) as usize + last.stored_len as usize;
        let bytes = self.read_bytes(*number, first.extent(), len)?;
        let mut piece = 0..0;
        for (number, record) in self.run.drain(..) {
            let from = (record.offset - begin) as usize;
            let to = from + record.stored_len as usize;
            self.runs.push((number, record, bytes.slice(from..to)));
            if from > piece.end {
                self.reply.payload.push(bytes.slice(piece));
                piece = from..from;
            }
            piece.end = to;
        }
        self.reply.payload.push(bytes.slice(piece));
        Ok(())
    }

    /// `len` bytes from the start of `extent` on.
    fn read(&self, number: u64, extent: SegmentExtent, len: usize) -> Result<Vec<u8>, Missed> {
        let segments = &self.store.segments;
        if self.way == Way::Memory {
            return segments.read_cached(extent.segment, extent.offset, len).ok_or(Missed::TryHarder);
        }
        segments.read(extent.segment, extent.offset, len).map_err(|why| Missed::Chunk(number, why))
    }

    /// [`Reader::read`] of bytes that are passed on as they are.
    fn read_bytes(&self, number: u64, extent: SegmentExtent, len: usize) -> Result<Bytes, Missed> {
        if self.way == Way::Memory {
            return self.read(number, extent, len).map(Bytes::from);
        }
        let read = self.store.segments.read_bytes(extent.segment, extent.offset, len);
        read.map_err(|why| Missed::Chunk(number, why))
    }

    /// Checks everything that is in the reply as stored.
    fn verify(&self) -> Result<(), Missed> {
        self.runs
            .iter()
            .try_for_each(|(number, record, stored)| check(record, stored).map_err(|why| Missed::Chunk(*number, why)))
    }
}

struct Reply {
    parts: Vec<Part>,
    payload: Payload,
    /// Stored bytes of all parts, those included that are not in the payload yet.
    stored: usize,
    /// Where the next part begins.
    at: u64,
}

impl Reply {
    fn new(range: ReadRange) -> Reply {
        Reply { parts: Vec::new(), payload: Payload::new(), stored: 0, at: range.offset }
    }

    /// Counts `stored` bytes more; `false` if they do not fit.
    fn admit(&mut self, stored: usize) -> bool {
        let fits = self.stored + stored <= BULK_BYTES_MAX;
        if fits {
            self.stored += stored;
        }
        fits
    }

    /// Adds a part; its bytes are or will be in the payload.
    fn push(&mut self, part: Part) {
        self.at = part.offset + u64::from(part.raw_len);
        self.parts.push(part);
    }

    fn hole_until(&mut self, end: u64) {
        if end <= self.at {
            return;
        }
        let length = (end - self.at) as u32;
        match self.parts.last_mut() {
            Some(last) if last.hole => last.raw_len += length,
            _ => self.parts.push(Part {
                offset: self.at,
                raw_len: length,
                stored_len: 0,
                codec: Codec::Raw,
                raw_crc32c: 0,
                stored_crc32c: 0,
                sealed: false,
                hole: true,
            }),
        }
        self.at = end;
    }

    fn finish(self, object_size: u64) -> ReadOutcome {
        debug_assert_eq!(self.stored, self.payload.len(), "every part has its bytes");
        ReadOutcome { parts: self.parts, payload: self.payload, object_size }
    }
}
