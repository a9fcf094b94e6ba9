//! Pass 2: segment by segment, every extent that something claims: inside the file, nobody else's, and, if asked for,
//! read and verified.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use sateen_types::limits::BLOCK_BYTES;
use sateen_types::{Finding, FindingKind, FsResult, Repair};

use super::super::disk::{Caching, SegmentFile, SegmentId, read_exact_at, write_all_at};
use super::super::keys::{CF_CHUNKS, CF_FREES, ChunkKey, free_from_key, free_key};
use super::super::read::{check as check_stored, open as open_stored};
use super::super::records::{ChunkRecord, Counter, PendingRecord, SegmentExtent};
use super::super::segments::{ENVELOPE_BYTES, HEADER_BYTES, ReadError, classify};
use super::Job;
use super::objects::Usage;
use super::repair::Repairs;
use sateen_types::fsck::Report;

/// Extents that are sorted in memory at once: about 100 bytes each. A larger store is gone through in several passes.
pub const BATCH_EXTENTS: u64 = 1 << 20;

/// Bytes of a segment that something lays claim to. Ordered by place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    extent: SegmentExtent,
    by: By,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    /// A chunk as it is.
    Chunk(ChunkKey),
    /// A chunk as it was at the last commit.
    Fallback(ChunkKey),
    /// A row of `frees`.
    Free,
}

/// Checks the extents of every segment in `usage`, in batches that fit into memory.
pub fn check(job: &Job<'_>, usage: &Usage, repairs: &Repairs<'_>, report: &mut Report<'_>) -> FsResult<()> {
    let mut batch = BTreeSet::new();
    let mut extents = 0;
    for (segment, used) in &usage.segments {
        if !batch.is_empty() && extents + used.extents > BATCH_EXTENTS {
            check_batch(job, usage, &batch, repairs, report)?;
            batch.clear();
            extents = 0;
        }
        batch.insert(*segment);
        extents += used.extents;
    }
    check_batch(job, usage, &batch, repairs, report)
}

fn check_batch(
    job: &Job<'_>,
    usage: &Usage,
    batch: &BTreeSet<SegmentId>,
    repairs: &Repairs<'_>,
    report: &mut Report<'_>,
) -> FsResult<()> {
    let mut claims = claims(job, usage, batch);
    claims.sort_unstable();
    for same in claims.chunk_by(|a, b| a.extent.segment == b.extent.segment) {
        report.count(|tally| tally.segments += 1);
        Segment { job, usage, repairs, id: same[0].extent.segment }.check(same, report)?;
    }
    Ok(())
}

/// Everything that lies in the segments of `batch`. Rows that do not decode were reported in the first pass, or are in
/// the third.
fn claims(job: &Job<'_>, usage: &Usage, batch: &BTreeSet<SegmentId>) -> Vec<Claim> {
    let mut claims = Vec::new();
    let mut claim = |extent: SegmentExtent, by: By| {
        if batch.contains(&extent.segment) {
            claims.push(Claim { extent, by });
        }
    };
    for (key, value) in job.view.rows(CF_CHUNKS).map_while(Result::ok) {
        let (Ok(key), Ok(record)) = (ChunkKey::from_bytes(&key), ChunkRecord::decode(&value)) else { continue };
        claim(record.extent(), By::Chunk(key));
        let fallbacks = usage.pending.get(&key).into_iter().flat_map(PendingRecord::extents);
        fallbacks.filter(|extent| *extent != record.extent()).for_each(|extent| claim(extent, By::Fallback(key)));
    }
    for (key, row) in &usage.pending {
        // Those of chunks that are there came with them.
        if let Ok(None) = job.view.chunk(*key) {
            row.extents().for_each(|extent| claim(extent, By::Fallback(*key)));
        }
    }
    for (key, value) in job.view.rows(CF_FREES).map_while(Result::ok) {
        if let Some(extent) = free_extent(&key, &value) {
            claim(extent, By::Free);
        }
    }
    claims
}

/// The extent of a row of `frees`, if it is one that can be punched.
pub fn free_extent(key: &[u8], value: &[u8]) -> Option<SegmentExtent> {
    let (segment, offset) = free_from_key(key).ok()?;
    let len = u64::try_from(Counter::decode(value).ok()?.0).ok()?;
    let whole = |n: u64| n.is_multiple_of(u64::from(BLOCK_BYTES));
    let sound = len > 0 && whole(len) && whole(offset) && offset >= HEADER_BYTES && offset.checked_add(len).is_some();
    sound.then_some(SegmentExtent { segment, offset, len })
}

struct Segment<'a> {
    job: &'a Job<'a>,
    usage: &'a Usage,
    repairs: &'a Repairs<'a>,
    id: SegmentId,
}

impl Segment<'_> {
    fn check(&self, claims: &[Claim], report: &mut Report<'_>) -> FsResult<()> {
        self.overlaps(claims, report)?;
        let chunks = || {
            claims.iter().filter_map(|claim| match claim.by {
                By::Chunk(key) => Some((key, claim.extent)),
                By::Fallback(_) | By::Free => None,
            })
        };
        let file = match self.job.disk.open(self.id) {
            Ok(file) => file,
            Err(e) => {
                if e.kind() == io::ErrorKind::NotFound && self.job.online.is_none() && chunks().next().is_some() {
                    let what = format!("is missing with {} chunks", chunks().count());
                    self.finding(FindingKind::SegmentMissing, Repair::Impossible, what, report)?;
                }
                for (key, _) in chunks() {
                    self.damaged(key, &classify(self.id, io::Error::from(e.kind())), report)?;
                }
                return Ok(());
            }
        };
        let header = self.job.ost_known.then(|| self.header(&file)).flatten();
        let mut readable = false;
        for (key, extent) in chunks() {
            readable |= self.chunk(&file, key, extent, header.is_some(), report)?;
        }
        match header {
            Some(what) => self.mend_header(&file, what, readable, report),
            None => Ok(()),
        }
    }

    /// Each claim against those before it. Chunks are never dropped for it: verifying tells whose bytes they are.
    fn overlaps(&self, claims: &[Claim], report: &mut Report<'_>) -> FsResult<()> {
        let end = |claim: &Claim| claim.extent.offset + claim.extent.len;
        let mut last: Option<Claim> = None;
        let mut last_free: Option<Claim> = None;
        for claim in claims {
            let over = |other: &Option<Claim>| other.filter(|o| end(o) > claim.extent.offset);
            if claim.by == By::Free {
                if over(&last).is_some() {
                    self.free_in_use(claim.extent, report)?;
                } else {
                    last_free = Some(*claim);
                }
                continue;
            }
            if let Some(free) = over(&last_free) {
                self.free_in_use(free.extent, report)?;
                last_free = None;
            }
            if claim.extent.offset < HEADER_BYTES {
                self.of_claim(FindingKind::Extent, claim, "lies in the segment's header".to_owned(), report)?;
            }
            if let Some(other) = over(&last) {
                let owner = match other.by {
                    By::Chunk(key) | By::Fallback(key) => {
                        format!("chunk {} of {}", key.number, key.object.object(self.job.owner.fs))
                    }
                    By::Free => "nobody".to_owned(),
                };
                let what =
                    format!("claims {} bytes at {} which {owner} claims too", claim.extent.len, claim.extent.offset);
                self.of_claim(FindingKind::Overlap, claim, what, report)?;
            }
            if last.is_none_or(|l| end(&l) < end(claim)) {
                last = Some(*claim);
            }
        }
        Ok(())
    }

    fn free_in_use(&self, extent: SegmentExtent, report: &mut Report<'_>) -> FsResult<()> {
        let repair = self.repairs.remove(CF_FREES, &free_key(extent.segment, extent.offset))?;
        let what = format!("{} bytes at {} are noted as free but in use", extent.len, extent.offset);
        self.finding(FindingKind::Free, repair, what, report)
    }

    /// Checks one chunk: that it is inside the file and, with `deep` or where `probe` asks for it, its bytes. Whether
    /// they were verified.
    fn chunk(
        &self,
        file: &Arc<dyn SegmentFile>,
        key: ChunkKey,
        extent: SegmentExtent,
        probe: bool,
        report: &mut Report<'_>,
    ) -> FsResult<bool> {
        let record = match self.job.view.chunk(key) {
            Ok(Some(record)) if record.extent() == extent => record,
            // Its row was reported, or another claims it.
            _ => return Ok(false),
        };
        let last = [0; 1];
        let checked = if self.job.deep || probe {
            report.step(u64::from(record.stored_len))?;
            if let Some(online) = self.job.online {
                (online.pace)(u64::from(record.stored_len));
            }
            verify(self.id, &**file, &record)
        } else {
            report.step(0)?;
            read_exact_at(&**file, &mut last.clone(), record.offset + u64::from(record.stored_len) - 1, Caching::Keep)
                .map_err(|e| classify(self.id, e))
        };
        match checked {
            Ok(()) => Ok(self.job.deep || probe),
            Err(why) => {
                self.damaged(key, &why, report)?;
                Ok(false)
            }
        }
    }

    /// Bytes that could not be read. In a store at work the chunk may have changed since; in one that stopped it may
    /// be about to be undone.
    fn damaged(&self, key: ChunkKey, why: &ReadError, report: &mut Report<'_>) -> FsResult<()> {
        let mut kind = FindingKind::Data;
        let mut what = why.to_string();
        if let Some(online) = self.job.online {
            match (online.look_again)(key)? {
                None => return Ok(()),
                Some(now) => what = now.to_string(),
            }
        } else if let Some(row) = self.usage.pending.get(&key)
            && row.before.map(|b| b.extent()) != self.job.view.chunk(key).ok().flatten().map(|r| r.extent())
        {
            kind = FindingKind::Unsettled;
        }
        let object = key.object.object(self.job.owner.fs);
        let finding = Finding::new(kind, Repair::Impossible, what).of(&object).chunk(key.number);
        report.finding(finding.segment(self.id.0))
    }

    /// What is wrong with the header, if anything is.
    fn header(&self, file: &Arc<dyn SegmentFile>) -> Option<String> {
        let mut header = [0; ENVELOPE_BYTES];
        match read_exact_at(&**file, &mut header, 0, Caching::Keep) {
            Err(e) => Some(format!("has no readable header: {e}")),
            Ok(()) if self.job.owner.journal_key(self.id, &header).is_some() => None,
            Ok(()) => Some("has a damaged or foreign header".to_owned()),
        }
    }

    /// A header says nothing that is not known; if a chunk behind it is the right one, so is the file.
    fn mend_header(
        &self,
        file: &Arc<dyn SegmentFile>,
        what: String,
        readable: bool,
        report: &mut Report<'_>,
    ) -> FsResult<()> {
        let mut repair = if readable { Repair::Possible } else { Repair::Impossible };
        if readable && self.repairs.allowed() {
            // With another key: what its journal said can no longer be told from data.
            let header = self.job.owner.header(self.id, Some(&rand::random()));
            write_all_at(&**file, &header, 0).and_then(|()| file.sync_data()).map_err(|e| {
                super::super::segments::io_error(&format!("write the header of segment {}", self.id), &e)
            })?;
            self.repairs.changed();
            repair = Repair::Done;
        }
        self.finding(FindingKind::SegmentHeader, repair, what, report)
    }

    fn of_claim(&self, kind: FindingKind, claim: &Claim, what: String, report: &mut Report<'_>) -> FsResult<()> {
        let finding = Finding::new(kind, Repair::Impossible, what).segment(self.id.0);
        report.finding(match claim.by {
            By::Chunk(key) | By::Fallback(key) => finding.of(&key.object.object(self.job.owner.fs)).chunk(key.number),
            By::Free => finding.in_fs(self.job.owner.fs),
        })
    }

    fn finding(&self, kind: FindingKind, repair: Repair, what: String, report: &mut Report<'_>) -> FsResult<()> {
        report.finding(Finding::new(kind, repair, what).in_fs(self.job.owner.fs).segment(self.id.0))
    }
}

/// Reads a chunk's stored bytes and opens them: both checksums.
pub fn verify(segment: SegmentId, file: &dyn SegmentFile, record: &ChunkRecord) -> Result<(), ReadError> {
    let mut stored = vec![0; record.stored_len as usize];
    read_exact_at(file, &mut stored, record.offset, Caching::Stream).map_err(|e| classify(segment, e))?;
    check_stored(record, &stored)?;
    open_stored(record, stored).map(drop)
}
