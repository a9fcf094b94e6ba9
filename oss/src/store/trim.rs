//! Taking data away: truncate, punch, destroy.
//!
//! Whole chunks become holes in the index; a chunk that is cut at its end keeps its extent and shows fewer bytes
//! (`visible_len`), so that truncating needs no space and works on damaged data. Only a hole inside a chunk rewrites
//! it. Large objects are taken away in batches; each is complete in itself, and the caller's resend finishes what a
//! crash cut off.

use std::ops::ControlFlow;

use sateen_types::limits::{CHUNK_LOG2_MIN, FILE_SIZE_MAX};
use sateen_types::{Compression, FsCode, FsError, FsResult, ObjectId};

use super::fence::Fence;
use super::keys::WHOLE_OBJECT;
use super::records::{ChunkRecord, round_to_blocks};
use super::write::Run;
use super::{Changed, Locked, Resize, Store};

/// Chunks that one batch takes away: bounds its memory and how long it holds the gate.
const BATCH_CHUNKS_MAX: usize = 1024;

impl Store {
    /// Sets the size of an object; what lies above is gone for good, also if it grows again. Durable.
    pub fn truncate(&self, object: &ObjectId, chunk_log2: u8, size: u64, fence: Option<Fence>) -> FsResult<Changed> {
        self.check_healthy()?;
        if size > FILE_SIZE_MAX {
            return Err(FsError::new(FsCode::FileTooBig, format!("size: {size} passes 2^63")));
        }
        let mut delta = 0;
        {
            let locked = self.lock(object);
            let _passed = self.fences.pass(fence)?;
            delta += match self.index.object(locked.key)? {
                Some(_) => self.cut(&locked, chunk_log2, size, Resize::Exactly(size))?,
                None => match self.index.first_chunk(locked.key)? {
                    Some(chunk) => self.truncate_orphan(&locked, chunk_log2, size, chunk)?,
                    None if size > 0 => self.cut(&locked, chunk_log2, size, Resize::Exactly(size))?,
                    None => 0,
                },
            };
        }
        let verifier = self.commit()?;
        Ok(Changed { verifier, allocated_delta: delta })
    }

    /// Makes a range a hole. The object keeps its size.
    pub fn punch(
        &self,
        object: &ObjectId,
        chunk_log2: u8,
        offset: u64,
        length: u64,
        fence: Option<Fence>,
    ) -> FsResult<Changed> {
        self.check_healthy()?;
        let end = match offset.checked_add(length) {
            Some(end) if end <= FILE_SIZE_MAX => end,
            _ => return Err(FsError::new(FsCode::Invalid, format!("range: {length} bytes at {offset} pass 2^63"))),
        };
        self.make_room()?;
        let locked = self.lock(object);
        let _passed = self.fences.pass(fence)?;
        let (record, new) = self.object_or_new(&locked, chunk_log2)?;
        if new || end <= offset {
            return Ok(Changed { verifier: self.verifier, allocated_delta: 0 });
        }
        let chunk = 1u64 << chunk_log2;
        let mut delta = 0;
        let (first, last) = (offset >> chunk_log2, (end - 1) >> chunk_log2);
        for number in if first == last { vec![first] } else { vec![first, last] } {
            let from = offset.max(number * chunk) - number * chunk;
            let to = end.min((number + 1) * chunk) - number * chunk;
            if from > 0 || to < chunk {
                delta += self.punch_inside(&locked, object, chunk_log2, number, from as u32, to as u32)?;
            }
        }
        let whole = (offset.div_ceil(chunk), end / chunk);
        if whole.0 < whole.1 {
            delta += self.drop_chunks(&locked, chunk_log2, whole.0, whole.1, Resize::AtLeast(0))?;
        }
        debug_assert!(self.index.object(locked.key)?.is_some_and(|now| now.size == record.size));
        Ok(Changed { verifier: self.verifier, allocated_delta: delta })
    }

    /// Removes objects; unknown ones are skipped. Durable.
    pub fn destroy(&self, objects: &[ObjectId]) -> FsResult<()> {
        self.check_healthy()?;
        for object in objects {
            let locked = self.lock(object);
            let Some(record) = self.index.object(locked.key)? else {
                if let Some(chunk) = self.index.first_chunk(locked.key)? {
                    self.truncate_orphan(&locked, CHUNK_LOG2_MIN, 0, chunk)?;
                }
                continue;
            };
            self.drop_chunks(&locked, record.chunk_log2, 0, u64::MAX, Resize::AtLeast(0))?;
            let _gate = self.gate.read();
            let mut batch = self.index.batch();
            batch.set_object(locked.key, None);
            batch.add_objects(-1);
            let itself = locked.key.chunk(WHOLE_OBJECT);
            if let Some(row) = self.pending.lock().change(itself, None, None, record.size).row {
                batch.set_pending(itself, Some(&row));
            }
            self.touched.lock().gone(locked.key, record.born);
            self.dirty.store(true, std::sync::atomic::Ordering::Release);
            self.index.write(batch).map_err(|e| self.fail(&e))?;
        }
        self.commit().map(|_| ())
    }

    /// Takes away what lies above `size`; returns the change of space.
    pub(super) fn cut(&self, locked: &Locked<'_>, chunk_log2: u8, size: u64, resize: Resize) -> FsResult<i64> {
        let number = size >> chunk_log2;
        let inside = (size & ((1 << chunk_log2) - 1)) as u32;
        let cut = self.cut_tail(locked, number, inside)?;
        let changes = cut.map(|record| vec![(number, Some(record))]).unwrap_or_default();
        let delta = self.apply(locked, chunk_log2, &changes, resize, None)?.allocated_delta;
        let keep = match resize {
            Resize::Orphan => resize,
            Resize::AtLeast(_) | Resize::Exactly(_) => Resize::AtLeast(0),
        };
        Ok(delta + self.drop_chunks(locked, chunk_log2, number + u64::from(inside > 0), u64::MAX, keep)?)
    }

    /// Chunk `number` cut to its first `len` bytes, if that changes it; `len` 0 leaves it to [`Store::drop_chunks`].
    fn cut_tail(&self, locked: &Locked<'_>, number: u64, len: u32) -> FsResult<Option<ChunkRecord>> {
        let old = self.index.chunk(locked.key.chunk(number))?;
        Ok(old.filter(|old| len > 0 && old.visible_len > len).map(|old| ChunkRecord { visible_len: len, ..old }))
    }

    /// Makes bytes `[from, to)` of one chunk zero.
    fn punch_inside(
        &self,
        locked: &Locked<'_>,
        object: &ObjectId,
        chunk_log2: u8,
        number: u64,
        from: u32,
        to: u32,
    ) -> FsResult<i64> {
        let Some(old) = self.index.chunk(locked.key.chunk(number))? else { return Ok(0) };
        if from >= old.visible_len {
            return Ok(0);
        }
        let same_size = Resize::AtLeast(0);
        if to >= old.visible_len {
            let new = (from > 0).then_some(ChunkRecord { visible_len: from, ..old });
            return Ok(self.apply(locked, chunk_log2, &[(number, new)], same_size, None)?.allocated_delta);
        }
        let mut raw = self.open_chunk(locked, object, number, &old)?;
        raw[from as usize..to as usize].fill(0);
        let reservation = self.segments.reserve(round_to_blocks(raw.len() as u64))?;
        let mut run = Run { reservation: &reservation, at: 0 };
        // Zeros compress well, and the range was asked to take no space.
        let record = self.store_chunk(&raw, Compression::Lz4, &mut run)?;
        let used = run.at;
        let reservation = reservation.shrink(used);
        Ok(self.apply(locked, chunk_log2, &[(number, Some(record))], same_size, Some(reservation))?.allocated_delta)
    }

    /// Makes holes of all chunks with numbers in `[from, to)`; returns the change of space.
    fn drop_chunks(&self, locked: &Locked<'_>, chunk_log2: u8, from: u64, to: u64, resize: Resize) -> FsResult<i64> {
        let mut delta = 0;
        loop {
            let mut numbers = Vec::new();
            self.index.chunks(locked.key, from, to, |number, _| {
                numbers.push((number, None));
                if numbers.len() == BATCH_CHUNKS_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            if numbers.is_empty() {
                return Ok(delta);
            }
            // Other objects may be changed meanwhile, but a commit needs no lock of an object.
            self.make_room()?;
            delta += self.apply(locked, chunk_log2, &numbers, resize, None)?.allocated_delta;
        }
    }
}
