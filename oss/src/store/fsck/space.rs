//! Pass 3: what the index says about the store as a whole against what the chunks add up to, and segments that nobody
//! knows.

use std::collections::BTreeMap;

use sateen_types::{Finding, FindingKind, FsResult, Repair};

use super::super::disk::SegmentId;
use super::super::journal::read_run;
use super::super::keys::{
    CF_FREES, CF_META, CF_SEGMENTS, META_NEXT_SEGMENT, META_OBJECTS, segment_from_key, segment_key,
};
use super::super::records::{Counter, SegmentPlace};
use super::super::segments::{HEADER_BYTES, io_error, open_segment};
use super::Job;
use super::extents::free_extent;
use super::objects::{Usage, unreadable};
use super::repair::Repairs;
use sateen_types::fsck::Report;

/// Checks `segments`, `frees`, `meta` and the list of files.
pub fn check(job: &Job<'_>, usage: &Usage, repairs: &Repairs<'_>, report: &mut Report<'_>) -> FsResult<()> {
    let mut pass = Pass { job, usage, repairs, report, complete: usage.complete };
    let rows = pass.segment_rows()?;
    pass.frees()?;
    let next = pass.counter(META_NEXT_SEGMENT, "the next segment")?;
    let objects = pass.counter(META_OBJECTS, "the number of objects")?;
    let highest = rows.keys().chain(usage.segments.keys()).max().map_or(0, |id| id.0);
    pass.next_segment(next, highest)?;
    pass.objects(objects)?;
    pass.segments(&rows)?;
    pass.files(&rows, next.flatten().unwrap_or(1))
}

/// A counter: not readable, not there, or its value.
type Known = Option<Option<i64>>;

struct Pass<'a, 'r> {
    job: &'a Job<'a>,
    usage: &'a Usage,
    repairs: &'a Repairs<'a>,
    report: &'a mut Report<'r>,
    /// Every row was understood, here too.
    complete: bool,
}

impl Pass<'_, '_> {
    /// Rows of `segments`; `None` is a row whose value does not decode.
    fn segment_rows(&mut self) -> FsResult<BTreeMap<SegmentId, Option<i64>>> {
        let mut found = BTreeMap::new();
        for row in self.job.view.rows(CF_SEGMENTS) {
            match row {
                Err(e) => {
                    self.complete = false;
                    self.report.finding(unreadable(self.job, &e))?;
                    break;
                }
                Ok((key, value)) => match segment_from_key(&key) {
                    Ok(id) => {
                        found.insert(id, Counter::decode(&value).ok().map(|c| c.0));
                    }
                    Err(e) => {
                        let repair = self.repairs.remove(CF_SEGMENTS, &key)?;
                        self.finding(FindingKind::Row, repair, format!("a row of segments cannot be used: {e}"), None)?;
                    }
                },
            }
        }
        Ok(found)
    }

    fn frees(&mut self) -> FsResult<()> {
        for row in self.job.view.rows(CF_FREES) {
            match row {
                Err(e) => {
                    self.report.finding(unreadable(self.job, &e))?;
                    break;
                }
                Ok((key, value)) => {
                    if free_extent(&key, &value).is_none() {
                        let repair = self.repairs.remove(CF_FREES, &key)?;
                        let what = "a row of frees names no extent".to_owned();
                        self.finding(FindingKind::Row, repair, what, None)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn counter(&mut self, key: &[u8], what: &str) -> FsResult<Known> {
        match self.job.view.counter(key) {
            Ok(None) => Ok(Some(None)),
            Ok(Some(Ok(n))) => Ok(Some(Some(n))),
            // The value is wrong; a right one can be put in its place.
            Ok(Some(Err(_))) => Ok(Some(Some(i64::MIN))),
            Err(e) => {
                self.complete = false;
                let what = format!("{what} cannot be read: {e}");
                self.finding(FindingKind::IndexUnreadable, Repair::Impossible, what, None)?;
                Ok(None)
            }
        }
    }

    fn next_segment(&mut self, known: Known, highest: u64) -> FsResult<()> {
        let Some(known) = known else { return Ok(()) };
        if known.unwrap_or(1) > highest as i64 {
            return Ok(());
        }
        // Files may have higher numbers; the store looks at them when it opens.
        let repair = self.repairs.counter(CF_META, META_NEXT_SEGMENT, highest as i64 + 1)?;
        let what = format!("the next segment is {}, but {highest} is in use", known.unwrap_or(1));
        self.finding(FindingKind::Counter, repair, what, None)
    }

    fn objects(&mut self, known: Known) -> FsResult<()> {
        let (Some(known), true) = (known, self.complete) else { return Ok(()) };
        let (known, there) = (known.unwrap_or(0), self.usage.objects as i64);
        if known == there {
            return Ok(());
        }
        let repair = self.repairs.counter(CF_META, META_OBJECTS, there)?;
        self.finding(FindingKind::Counter, repair, format!("{known} objects are counted, {there} are there"), None)
    }

    /// Bytes in use of each segment.
    fn segments(&mut self, rows: &BTreeMap<SegmentId, Option<i64>>) -> FsResult<()> {
        if !self.complete {
            return Ok(());
        }
        let used = |id: &SegmentId| self.usage.segments.get(id).map_or(0, |u| u.bytes as i64);
        let unlisted = self.usage.segments.keys().filter(|id| !rows.contains_key(id)).map(|id| (*id, Some(0)));
        let wrong: Vec<(SegmentId, Option<i64>, i64)> = rows
            .iter()
            .map(|(id, row)| (*id, *row))
            .chain(unlisted)
            .filter(|(id, row)| *row != Some(used(id)))
            .map(|(id, row)| (id, row, used(&id)))
            .collect();
        for (id, row, used) in wrong {
            let counted = row.map_or("an unreadable number of".to_owned(), |n| n.to_string());
            let what = format!("{counted} bytes are counted as in use, {used} are");
            let repair = if used > 0 {
                self.repairs.counter(CF_SEGMENTS, &segment_key(id), used)?
            } else {
                // Nothing refers to what is in it; it is kept all the same.
                self.aside_if_there(id)?;
                self.repairs.remove(CF_SEGMENTS, &segment_key(id))?
            };
            self.finding(FindingKind::Space, repair, what, Some(id))?;
        }
        Ok(())
    }

    fn aside_if_there(&self, id: SegmentId) -> FsResult<()> {
        match self.job.disk.open(id) {
            Ok(_) => self.repairs.put_aside(id).map(drop),
            Err(_) => Ok(()),
        }
    }

    /// Files without a row. In a store at work new ones come all the time; it looks for old ones when it opens.
    fn files(&mut self, rows: &BTreeMap<SegmentId, Option<i64>>, next: i64) -> FsResult<()> {
        if self.job.online.is_some() || !self.complete {
            return Ok(());
        }
        let files = match self.job.disk.list() {
            Ok(files) => files,
            Err(e) => {
                let what = format!("the segments cannot be listed: {e}");
                return self.finding(FindingKind::SegmentMissing, Repair::Impossible, what, None);
            }
        };
        for id in files {
            if rows.contains_key(&id) || self.usage.segments.contains_key(&id) || !self.has_data(id)? {
                continue;
            }
            if id.0 as i64 + 1 == next {
                let what = "holds only writes that were never answered; the next start removes it".to_owned();
                self.finding(FindingKind::Unsettled, Repair::Impossible, what, Some(id))?;
            } else {
                let repair = self.repairs.put_aside(id)?;
                let what = "has data, but the index does not know it".to_owned();
                self.finding(FindingKind::SegmentUnknown, repair, what, Some(id))?;
            }
        }
        Ok(())
    }

    /// Whether there is something in a segment but the journal and what is noted as free.
    fn has_data(&self, id: SegmentId) -> FsResult<bool> {
        let frees = self.job.view.rows(CF_FREES).map_while(Result::ok);
        let frees = frees.filter_map(|(key, value)| free_extent(&key, &value)).filter(|free| free.segment == id);
        let frees: BTreeMap<u64, u64> = frees.map(|free| (free.offset, free.len)).collect();
        let failed = |e: std::io::Error| io_error(&format!("read segment {id}"), &e);
        let Ok(file) = self.job.disk.open(id) else { return Ok(false) };
        let key = open_segment(self.job.disk, &self.job.owner, id).ok().and_then(|(_, key)| key);
        let mut at = HEADER_BYTES;
        while let Some(data) = file.next_data(at).map_err(failed)? {
            at = data / HEADER_BYTES * HEADER_BYTES;
            let run = match &key {
                Some(key) => read_run(&*file, key, SegmentPlace { segment: id, offset: at }).map_err(failed)?,
                None => None,
            };
            let free = frees.range(..=at).next_back().map(|(from, len)| from + len).filter(|end| *end > at);
            match (run, free) {
                (Some(run), _) => at += run.header.length,
                (None, Some(end)) => at = end,
                (None, None) => return Ok(true),
            }
        }
        Ok(false)
    }

    fn finding(&mut self, kind: FindingKind, repair: Repair, what: String, segment: Option<SegmentId>) -> FsResult<()> {
        let finding = Finding::new(kind, repair, what).in_fs(self.job.owner.fs);
        self.report.finding(match segment {
            Some(id) => finding.segment(id.0),
            None => finding,
        })
    }
}
