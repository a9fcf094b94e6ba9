//! Reads: no lock, no copy of the index, and never wrong data.
//!
//! A reader takes the records of a range as of one moment and then reads their extents. A writer may meanwhile replace
//! a chunk and a commit punch its old extent; the reader notices by the checksum, and reads that chunk again under the
//! object's lock, where its record cannot change. Only what is wrong then is damage: `Corrupt`, and an error in the log
//! that names file, object and chunk.

use std::ops::ControlFlow;

use bytes::Bytes;
use sateen_types::limits::BULK_BYTES_MAX;
use sateen_types::{Codec, FsCode, FsError, FsResult, ObjectId, Part};

use super::codec;
use super::keys::ObjectKey;
use super::records::ChunkRecord;
use super::segments::ReadError;
use super::{Locked, Store};

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub struct ReadOutcome {
    /// In order, covering the range from its start; holes are parts too.
    pub parts: Vec<Part>,
    /// Stored bytes of the parts, in their order.
    pub payload: Bytes,
    /// Size of the object.
    pub object_size: u64,
}

impl ReadOutcome {
    /// What is read where nothing was ever written.
    pub fn hole(range: ReadRange) -> ReadOutcome {
        let mut reply = Reply { parts: Vec::new(), payload: Vec::new(), at: range.offset };
        reply.hole_until(range.offset + u64::from(range.length));
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
}

/// A run of an object that holds data. Precision is one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataExtent {
    /// Offset in the object.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

impl Store {
    /// Reads a range. The parts end early where the payload would pass [`BULK_BYTES_MAX`].
    pub fn read(&self, object: &ObjectId, chunk_log2: u8, range: ReadRange) -> FsResult<ReadOutcome> {
        let key = ObjectKey::of(object);
        let (known, new) = self.object_or_new(key, chunk_log2)?;
        let end = range.offset + u64::from(range.length);
        let mut reply = Reply { parts: Vec::new(), payload: Vec::new(), at: range.offset };
        if !new {
            let last = ((end - 1) >> chunk_log2) + 1;
            let mut records = Vec::new();
            self.index.chunks(key, range.offset >> chunk_log2, last, |number, record| {
                records.push((number, record));
                ControlFlow::<()>::Continue(())
            })?;
            let stored: usize = records.iter().map(|(_, r)| r.stored_len as usize).sum();
            reply.payload.reserve_exact(stored.min(BULK_BYTES_MAX));
            for (number, record) in records {
                if !self.read_chunk(object, chunk_log2, range, number, record, &mut reply)? {
                    return Ok(reply.finish(known.size));
                }
            }
        }
        reply.hole_until(end);
        Ok(reply.finish(known.size))
    }

    /// Adds one chunk to the reply; `false` if it does not fit any more.
    fn read_chunk(
        &self,
        object: &ObjectId,
        chunk_log2: u8,
        range: ReadRange,
        number: u64,
        record: ChunkRecord,
        reply: &mut Reply,
    ) -> FsResult<bool> {
        let start = number << chunk_log2;
        self.add_chunk(range, start, &record, reply).or_else(|_| {
            let locked = self.lock(object);
            // It may have become a hole; then it is part of the next one.
            let Some(record) = self.index.chunk(locked.key.chunk(number))? else { return Ok(true) };
            self.add_chunk(range, start, &record, reply).map_err(|e| self.damage(object, number, &e))
        })
    }

    /// Adds the chunk that begins at `start` as `record` has it. An error leaves the reply ready for another try.
    fn add_chunk(
        &self,
        range: ReadRange,
        start: u64,
        record: &ChunkRecord,
        reply: &mut Reply,
    ) -> Result<bool, ReadError> {
        let end = range.offset + u64::from(range.length);
        let data_end = start + u64::from(record.visible_len);
        if data_end <= reply.at {
            return Ok(true);
        }
        reply.hole_until(start.max(reply.at).min(end));
        if range.sealed && record.visible_len == record.raw_len {
            if !reply.fits(record.stored_len as usize) {
                return Ok(false);
            }
            self.fetch_into(record, &mut reply.payload)?;
            reply.push(Part {
                offset: start,
                raw_len: record.raw_len,
                stored_len: record.stored_len,
                codec: record.codec,
                raw_crc32c: record.raw_crc,
                stored_crc32c: record.stored_crc,
                sealed: true,
                hole: false,
            });
            return Ok(true);
        }
        let from = reply.at.max(start);
        let length = (data_end.min(end) - from) as usize;
        if !reply.fits(length) {
            return Ok(false);
        }
        let raw = self.fetch_opened(record)?;
        let bytes = &raw[(from - start) as usize..][..length];
        reply.payload.extend_from_slice(bytes);
        let crc = crc32c::crc32c(bytes);
        reply.push(Part {
            offset: from,
            raw_len: length as u32,
            stored_len: length as u32,
            codec: Codec::Raw,
            raw_crc32c: crc,
            stored_crc32c: crc,
            sealed: false,
            hole: false,
        });
        Ok(true)
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

    /// Appends the stored bytes of a record to `out`, if they match their checksum.
    pub(super) fn fetch_into(&self, record: &ChunkRecord, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let at = out.len();
        out.resize(at + record.stored_len as usize, 0);
        let verified = self.segments.read(record.segment, record.offset, &mut out[at..]).and_then(|()| {
            let crc = crc32c::crc32c(&out[at..]);
            if crc == record.stored_crc {
                return Ok(());
            }
            Err(ReadError::Damaged(format!(
                "{} bytes at {} of segment {} have checksum {crc:#010x}, the index says {:#010x}",
                record.stored_len, record.offset, record.segment, record.stored_crc
            )))
        });
        if verified.is_err() {
            out.truncate(at);
        }
        verified
    }

    /// All bytes of a record, opened and verified.
    fn fetch_opened(&self, record: &ChunkRecord) -> Result<Vec<u8>, ReadError> {
        let mut stored = Vec::new();
        self.fetch_into(record, &mut stored)?;
        codec::open(record.codec, stored, record.raw_len, record.raw_crc).ok_or_else(|| {
            ReadError::Damaged(format!(
                "{} stored bytes do not open to {} bytes with the right checksum",
                record.stored_len, record.raw_len
            ))
        })
    }

    /// The error for bytes that cannot be read although their record is current; says so in the log.
    fn damage(&self, object: &ObjectId, chunk: u64, why: &ReadError) -> FsError {
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
        self.object_or_new(key, chunk_log2)?;
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

struct Reply {
    parts: Vec<Part>,
    payload: Vec<u8>,
    /// Where the next part begins.
    at: u64,
}

impl Reply {
    fn fits(&self, stored: usize) -> bool {
        self.payload.len() + stored <= BULK_BYTES_MAX
    }

    /// Adds a part whose bytes are in the payload already.
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
        ReadOutcome { parts: self.parts, payload: self.payload.into(), object_size }
    }
}
