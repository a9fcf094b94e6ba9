//! Pass 1: every row about objects and chunks, merged in key order, and what they use of the segments.

use std::collections::BTreeMap;

use sateen_types::limits::FILE_SIZE_MAX;
use sateen_types::{Finding, FindingKind, FsError, FsResult, Repair};

use super::super::disk::SegmentId;
use super::super::keys::{CF_CHUNKS, CF_OBJECTS, CF_PENDING, ChunkKey, ObjectKey};
use super::super::records::{ChunkRecord, ObjectRecord, PendingRecord, SegmentExtent};
use super::Job;
use super::repair::Repairs;
use sateen_types::fsck::Report;

/// What the chunks say about the segments and the store.
#[derive(Default)]
pub struct Usage {
    /// Objects with a row.
    pub objects: u64,
    /// Each segment that a chunk or its fallback lies in.
    pub segments: BTreeMap<SegmentId, SegmentUsage>,
    /// Chunks that were not committed, with what they were before. Bounded by the store's own bound on them.
    pub pending: BTreeMap<ChunkKey, PendingRecord>,
    /// Every row was read and understood. If not, sums are no proof of anything.
    pub complete: bool,
}

/// What is used of one segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentUsage {
    /// Extents in use.
    pub extents: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Usage {
    fn add(&mut self, extent: SegmentExtent) {
        let usage = self.segments.entry(extent.segment).or_default();
        usage.extents += 1;
        usage.bytes += extent.len;
    }
}

/// What is known of the object whose chunks are being read.
struct Group {
    key: ObjectKey,
    /// `None`: it has no row. `Some(None)`: its row does not decode.
    record: Option<Option<ObjectRecord>>,
    allocated: u64,
    chunks: u64,
    /// Chunk numbers with their length, where the object's size must not be smaller; only the last is kept.
    last: Option<(u64, u32)>,
    /// A row of a chunk did not decode.
    doubtful: bool,
}

/// Checks objects, chunks and pending rows.
pub fn check(job: &Job<'_>, repairs: &Repairs<'_>, report: &mut Report<'_>) -> FsResult<Usage> {
    let mut pass = Pass { job, repairs, report, usage: Usage { complete: true, ..Usage::default() } };
    pass.pending()?;
    pass.objects_and_chunks()?;
    pass.fallbacks()?;
    Ok(pass.usage)
}

/// The finding for a part of the index that cannot be read.
pub fn unreadable(job: &Job<'_>, e: &FsError) -> Finding {
    Finding::new(FindingKind::IndexUnreadable, Repair::Impossible, &*e.message).in_fs(job.owner.fs)
}

struct Pass<'a, 'r> {
    job: &'a Job<'a>,
    repairs: &'a Repairs<'a>,
    report: &'a mut Report<'r>,
    usage: Usage,
}

impl Pass<'_, '_> {
    /// The next row of a family, or `None` at its end and after an error, which is reported.
    fn next<T>(&mut self, rows: &mut impl Iterator<Item = FsResult<T>>) -> FsResult<Option<T>> {
        match rows.next() {
            Some(Ok(row)) => {
                self.report.step(0)?;
                Ok(Some(row))
            }
            Some(Err(e)) => {
                self.usage.complete = false;
                self.report.finding(unreadable(self.job, &e))?;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    fn pending(&mut self) -> FsResult<()> {
        let mut rows = self.job.view.rows(CF_PENDING);
        while let Some((key, value)) = self.next(&mut rows)? {
            match ChunkKey::from_bytes(&key).and_then(|key| Ok((key, PendingRecord::decode(&value)?))) {
                Ok((key, record)) => {
                    self.usage.pending.insert(key, record);
                }
                Err(e) => {
                    // The chunk itself stays as it is; if its bytes are not whole, reading it is an error.
                    let repair = self.repairs.remove(CF_PENDING, &key)?;
                    self.bad_row(&key, "pending", &e, repair)?;
                }
            }
        }
        if self.job.online.is_none() && !self.usage.pending.is_empty() {
            let what = format!(
                "{} chunks were not committed when the server stopped; its next start settles them",
                self.usage.pending.len()
            );
            self.report
                .finding(Finding::new(FindingKind::Unsettled, Repair::Impossible, what).in_fs(self.job.owner.fs))?;
        }
        Ok(())
    }

    /// What a chunk was at the last commit is in use too, unless it still is that.
    fn fallbacks(&mut self) -> FsResult<()> {
        let of_row = |(key, row): (&ChunkKey, &PendingRecord)| row.extents().map(|e| (*key, e)).collect::<Vec<_>>();
        let fallbacks: Vec<_> = self.usage.pending.iter().flat_map(of_row).collect();
        for (key, extent) in fallbacks {
            match self.job.view.chunk(key) {
                Ok(now) if now.map(|r| r.extent()) == Some(extent) => {}
                Ok(_) => self.usage.add(extent),
                // Its row was reported.
                Err(_) => self.usage.complete = false,
            }
        }
        Ok(())
    }

    fn objects_and_chunks(&mut self) -> FsResult<()> {
        let mut objects = self.job.view.rows(CF_OBJECTS);
        let mut chunks = self.job.view.rows(CF_CHUNKS);
        let mut object = self.next_object(&mut objects)?;
        let mut chunk = self.next_chunk(&mut chunks)?;
        loop {
            let key = match (&object, &chunk) {
                (None, None) => return Ok(()),
                (Some((o, _)), None) => *o,
                (None, Some((c, _))) => c.object,
                (Some((o, _)), Some((c, _))) => (*o).min(c.object),
            };
            let mut group = Group { key, record: None, allocated: 0, chunks: 0, last: None, doubtful: false };
            if let Some((_, record)) = object.take_if(|(o, _)| *o == key) {
                group.record = Some(record);
                object = self.next_object(&mut objects)?;
            }
            while let Some((c, record)) = chunk.take_if(|(c, _)| c.object == key) {
                self.chunk(&mut group, c, record)?;
                chunk = self.next_chunk(&mut chunks)?;
            }
            // After an error in either family it is not known what was to come.
            if self.usage.complete || group.record.is_some() {
                self.object(&group)?;
            }
        }
    }

    /// The next object; its record is `None` if it does not decode.
    fn next_object(
        &mut self,
        rows: &mut impl Iterator<Item = FsResult<super::rows::RawRow>>,
    ) -> FsResult<Option<(ObjectKey, Option<ObjectRecord>)>> {
        while let Some((key, value)) = self.next(rows)? {
            let Some(object) = ObjectKey::from_bytes(&key) else {
                self.bad_row(&key, "objects", "its key has a wrong length", Repair::Impossible)?;
                continue;
            };
            self.usage.objects += 1;
            self.report.count(|tally| tally.objects += 1);
            return match ObjectRecord::decode(&value) {
                Ok(record) => Ok(Some((object, Some(record)))),
                Err(e) => {
                    self.bad_row(&key, "objects", &e, Repair::Impossible)?;
                    Ok(Some((object, None)))
                }
            };
        }
        Ok(None)
    }

    /// The next chunk; its record is `None` if it does not decode.
    fn next_chunk(
        &mut self,
        rows: &mut impl Iterator<Item = FsResult<super::rows::RawRow>>,
    ) -> FsResult<Option<(ChunkKey, Option<ChunkRecord>)>> {
        while let Some((key, value)) = self.next(rows)? {
            let chunk = match ChunkKey::from_bytes(&key) {
                Ok(chunk) => chunk,
                Err(e) => {
                    self.bad_row(&key, "chunks", &e, Repair::Impossible)?;
                    continue;
                }
            };
            self.report.count(|tally| tally.chunks += 1);
            return match ChunkRecord::decode(&value) {
                Ok(record) => Ok(Some((chunk, Some(record)))),
                Err(e) => {
                    self.bad_row(&key, "chunks", &e, Repair::Impossible)?;
                    Ok(Some((chunk, None)))
                }
            };
        }
        Ok(None)
    }

    fn chunk(&mut self, group: &mut Group, key: ChunkKey, record: Option<ChunkRecord>) -> FsResult<()> {
        let Some(record) = record else {
            group.doubtful = true;
            return Ok(());
        };
        self.usage.add(record.extent());
        group.allocated += record.extent().len;
        group.chunks += 1;
        group.last = Some((key.number, record.visible_len));
        if let Some(Some(object)) = group.record {
            let bytes = 1u64 << object.chunk_log2;
            if u64::from(record.raw_len) > bytes || key.number > FILE_SIZE_MAX >> object.chunk_log2 {
                let what = format!("has {} bytes; the object has chunks of {bytes} bytes", record.raw_len);
                let finding = Finding::new(FindingKind::Object, Repair::Impossible, what);
                self.report.finding(finding.of(&key.object.object(self.job.owner.fs)).chunk(key.number))?;
            }
        }
        Ok(())
    }

    fn object(&mut self, group: &Group) -> FsResult<()> {
        let object = group.key.object(self.job.owner.fs);
        let record = match group.record {
            None => {
                let what = format!("{} chunks belong to no object and cannot be read", group.chunks);
                return self
                    .report
                    .finding(Finding::new(FindingKind::OrphanChunk, Repair::Impossible, what).of(&object));
            }
            Some(None) => return Ok(()),
            Some(Some(record)) => record,
        };
        if record.size > FILE_SIZE_MAX {
            let what = format!("has an impossible size of {} bytes", record.size);
            self.report.finding(Finding::new(FindingKind::Object, Repair::Impossible, what).of(&object))?;
        }
        let end = group.last.map(|(number, len)| (u128::from(number) << record.chunk_log2) + u128::from(len));
        if let Some(end) = end.filter(|end| *end > u128::from(record.size)) {
            let what = format!(
                "has data up to {end}, its size is {}; a truncate was cut off, the MDS repeats it",
                record.size
            );
            self.report.finding(Finding::new(FindingKind::Unsettled, Repair::Impossible, what).of(&object))?;
        }
        if group.doubtful
            || !self.usage.complete
            || (group.allocated, group.chunks) == (record.allocated, record.chunks)
        {
            return Ok(());
        }
        let corrected = ObjectRecord { allocated: group.allocated, chunks: group.chunks, ..record };
        let what = format!(
            "counts {} chunks of {} bytes, there are {} of {}",
            record.chunks, record.allocated, group.chunks, group.allocated
        );
        let repair = self.repairs.object(group.key, &corrected)?;
        self.report.finding(Finding::new(FindingKind::Object, repair, what).of(&object))
    }

    fn bad_row(&mut self, key: &[u8], family: &str, why: impl std::fmt::Display, repair: Repair) -> FsResult<()> {
        self.usage.complete = false;
        let finding = Finding::new(FindingKind::Row, repair, format!("a row of {family} cannot be used: {why}"));
        let finding = match (ChunkKey::from_bytes(key), ObjectKey::from_bytes(key)) {
            (Ok(chunk), _) => finding.of(&chunk.object.object(self.job.owner.fs)).chunk(chunk.number),
            (_, Some(object)) => finding.of(&object.object(self.job.owner.fs)),
            _ => finding.in_fs(self.job.owner.fs),
        };
        self.report.finding(finding)
    }
}
