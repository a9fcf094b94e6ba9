//! Work of workers.

use sateen_types::limits::{
    ASSIGNMENTS_MAX, EARLIER_EXPORTS_MAX, FETCH_BYTES_MAX, IMPORT_PAGE_BYTES_MAX, IMPORT_PAGE_OBJECTS_MAX,
    IMPORT_RANGES_MAX, PATH_BYTES_MAX, REPOSITORY_MESSAGE_BYTES_MAX, TAKE_MAX,
};
use sateen_types::repository::{
    Assignment, Fetch, FetchOutcome, FetchResult, ImportDone, ImportPage, ImportedObject, KeyRange, Outcome,
    RepositoryId, TaskId, Work,
};
use sateen_types::{FsError, FsResult};

use super::super::{bad, fid, known, required};
use super::{at_most, cut, etag, file_size, key, loaded_range, loaded_range_to_wire, time};
use crate::mds;

/// What a worker may ask for: how much, and the numbers of what it has.
pub fn take_bounds(request: &mds::TakeRequest) -> FsResult<()> {
    if request.max == 0 || request.max > TAKE_MAX {
        return Err(bad("max", format_args!("{} is not 1 to {TAKE_MAX}", request.max)));
    }
    if request.ahead_max > request.max {
        return Err(bad("ahead_max", format_args!("{}, and {} in all", request.ahead_max, request.max)));
    }
    if request.held.len() > ASSIGNMENTS_MAX {
        return Err(bad("held", format_args!("{}, at most {ASSIGNMENTS_MAX}", request.held.len())));
    }
    Ok(())
}

impl From<&Assignment> for mds::Assignment {
    fn from(a: &Assignment) -> mds::Assignment {
        use mds::assignment::Work as Wire;
        let work = match &a.work {
            Work::Check => Wire::Check(mds::CheckWork {}),
            Work::Import { left, sync } => {
                Wire::Import(mds::ImportWork { left: left.iter().map(Into::into).collect(), sync: *sync })
            }
            Work::Export(e) => Wire::Export((&**e).into()),
            Work::Delete { key, etag, earlier } => {
                Wire::Delete(mds::DeleteWork { key: key.clone(), etag: etag.clone(), earlier: earlier.clone() })
            }
            Work::Look { key } => Wire::Look(mds::LookWork { key: key.clone() }),
            Work::Watch => Wire::Watch(mds::WatchWork {}),
            Work::Report { task, key } => Wire::Report(mds::ReportWork { task: task.0, key: key.clone() }),
            Work::Fetch(f) => Wire::Fetch(mds::FetchWork {
                fid: Some(f.fid.into()),
                key: f.key.clone(),
                etag: f.etag.clone(),
                range: Some(loaded_range_to_wire(f.range)),
                layout: Some((&f.layout).into()),
                size: f.size,
                urgent: f.urgent,
            }),
        };
        mds::Assignment {
            number: a.number,
            repository: a.repository.0,
            settings: Some((&a.settings).into()),
            work: Some(work),
            stamp: a.stamp,
        }
    }
}

impl TryFrom<mds::Assignment> for Assignment {
    type Error = FsError;
    fn try_from(w: mds::Assignment) -> FsResult<Assignment> {
        use mds::assignment::Work as Wire;
        let work = match required(w.work, "work")? {
            Wire::Check(_) => Work::Check,
            Wire::Import(i) => Work::Import { left: left(i.left)?, sync: i.sync },
            Wire::Export(e) => Work::Export(Box::new(e.try_into()?)),
            Wire::Delete(d) => {
                if d.earlier.len() > EARLIER_EXPORTS_MAX {
                    let what = format_args!("{}, at most {EARLIER_EXPORTS_MAX}", d.earlier.len());
                    return Err(bad("earlier", what));
                }
                Work::Delete { key: key(d.key, "key")?, etag: etag(d.etag)?, earlier: d.earlier }
            }
            Wire::Look(l) => Work::Look { key: key(l.key, "key")? },
            Wire::Watch(_) => Work::Watch,
            Wire::Report(r) => Work::Report { task: TaskId(r.task), key: key(r.key, "key")? },
            Wire::Fetch(f) => {
                let range = loaded_range(f.range)?;
                let size = file_size(f.size, "size")?;
                if range.end > size || range.end - range.start > FETCH_BYTES_MAX {
                    return Err(bad("range", format_args!("[{}, {}) of {size} bytes", range.start, range.end)));
                }
                Work::Fetch(Fetch {
                    fid: fid(f.fid, "fid")?,
                    key: key(f.key, "key")?,
                    etag: etag(f.etag)?,
                    range,
                    layout: required(f.layout, "layout")?.try_into()?,
                    size,
                    urgent: f.urgent,
                })
            }
        };
        Ok(Assignment {
            number: w.number,
            repository: RepositoryId(w.repository),
            settings: required(w.settings, "settings")?.try_into()?,
            work,
            stamp: w.stamp,
        })
    }
}

impl From<&Outcome> for mds::finish_request::Outcome {
    fn from(o: &Outcome) -> mds::finish_request::Outcome {
        use mds::fetch_outcome::Result as Wire;
        match o {
            Outcome::Check { message } => Self::Check(mds::CheckOutcome { message: message.clone() }),
            Outcome::Import { message } => Self::Import(mds::ImportOutcome { message: message.clone() }),
            Outcome::Export(e) => Self::Export(e.into()),
            Outcome::Delete(d) => Self::Delete(d.into()),
            Outcome::Look(l) => Self::Look(l.into()),
            Outcome::Watch { message } => Self::Watch(mds::WatchOutcome { message: message.clone() }),
            Outcome::Report { message } => Self::Report(mds::ReportOutcome { message: message.clone() }),
            Outcome::Fetch(f) => {
                let result = match f.result {
                    FetchResult::Loaded => Wire::Loaded,
                    FetchResult::Changed => Wire::Changed,
                    FetchResult::Gone => Wire::Gone,
                    FetchResult::Failed => Wire::Failed,
                    FetchResult::NoSpace => Wire::NoSpace,
                };
                Self::Fetch(mds::FetchOutcome {
                    result: result.into(),
                    message: f.message.clone(),
                    allocated_delta: f.allocated_delta,
                })
            }
        }
    }
}

impl TryFrom<mds::finish_request::Outcome> for Outcome {
    type Error = FsError;
    fn try_from(w: mds::finish_request::Outcome) -> FsResult<Outcome> {
        use mds::fetch_outcome::Result as Wire;
        use mds::finish_request::Outcome as O;
        let message = |m: &str| cut(m, REPOSITORY_MESSAGE_BYTES_MAX);
        Ok(match w {
            O::Check(c) => Outcome::Check { message: message(&c.message) },
            O::Import(i) => Outcome::Import { message: message(&i.message) },
            O::Export(e) => Outcome::Export(e.try_into()?),
            O::Delete(d) => Outcome::Delete(d.try_into()?),
            O::Look(l) => Outcome::Look(l.try_into()?),
            O::Watch(w) => Outcome::Watch { message: message(&w.message) },
            O::Report(r) => Outcome::Report { message: message(&r.message) },
            O::Fetch(f) => {
                let result = match known(f.result, "result")? {
                    Wire::Loaded => FetchResult::Loaded,
                    Wire::Changed => FetchResult::Changed,
                    Wire::Gone => FetchResult::Gone,
                    Wire::Failed => FetchResult::Failed,
                    Wire::NoSpace => FetchResult::NoSpace,
                    Wire::Unspecified => return Err(bad("result", "missing")),
                };
                let message = message(&f.message);
                Outcome::Fetch(FetchOutcome { result, message, allocated_delta: f.allocated_delta })
            }
        })
    }
}

impl From<&ImportedObject> for mds::ImportedObject {
    fn from(o: &ImportedObject) -> mds::ImportedObject {
        mds::ImportedObject {
            key: o.key.clone(),
            size: o.size,
            etag: o.etag.clone(),
            modified: Some(o.modified.into()),
            mode: o.mode,
            uid: o.uid,
            gid: o.gid,
            atime: o.atime.map(Into::into),
            mtime: o.mtime.map(Into::into),
            symlink: o.symlink.clone().unwrap_or_default(),
        }
    }
}

impl TryFrom<mds::ImportedObject> for ImportedObject {
    type Error = FsError;
    fn try_from(w: mds::ImportedObject) -> FsResult<ImportedObject> {
        if w.key.is_empty() {
            return Err(bad("key", "is empty"));
        }
        at_most("symlink", w.symlink.len(), PATH_BYTES_MAX)?;
        Ok(ImportedObject {
            key: key(w.key, "key")?,
            // Larger ones are skipped by the import, with the others that cannot be files.
            size: w.size,
            etag: etag(w.etag)?,
            modified: required(w.modified, "modified")?.try_into()?,
            mode: w.mode,
            uid: w.uid,
            gid: w.gid,
            atime: time(w.atime)?,
            mtime: time(w.mtime)?,
            symlink: (!w.symlink.is_empty()).then_some(w.symlink),
        })
    }
}

/// The request that carries a page. `session_id` is 16 bytes.
pub fn import_to_wire(session_id: Vec<u8>, number: u64, page: &ImportPage) -> mds::ImportRequest {
    mds::ImportRequest {
        session_id,
        number,
        objects: page.objects.iter().map(Into::into).collect(),
        from: page.from.clone(),
        after: page.after.clone(),
        skipped: page.skipped.iter().map(Into::into).collect(),
        last: page.last,
        stamp: page.stamp,
        known: page.known.clone(),
    }
}

/// Rising keys, and not too many bytes of them.
fn listed(objects: Vec<mds::ImportedObject>) -> FsResult<Vec<ImportedObject>> {
    few("objects", objects.len())?;
    let objects = objects.into_iter().map(ImportedObject::try_from).collect::<FsResult<Vec<_>>>()?;
    rising("objects", objects.iter().map(|o| o.key.as_slice()))?;
    let bytes = |o: &ImportedObject| o.key.len() + o.etag.len() + o.symlink.as_ref().map_or(0, Vec::len);
    at_most("objects", objects.iter().map(bytes).sum(), IMPORT_PAGE_BYTES_MAX)?;
    Ok(objects)
}

fn few(field: &str, n: usize) -> FsResult<()> {
    match n > IMPORT_PAGE_OBJECTS_MAX {
        true => Err(bad(field, format_args!("{n}, at most {IMPORT_PAGE_OBJECTS_MAX}"))),
        false => Ok(()),
    }
}

fn rising<'k>(field: &str, keys: impl Iterator<Item = &'k [u8]>) -> FsResult<()> {
    let mut last: &[u8] = &[];
    for key in keys {
        if last >= key {
            let shown = String::from_utf8_lossy(key);
            return Err(bad(field, format_args!("key {shown:?} does not follow the one before")));
        }
        last = key;
    }
    Ok(())
}

/// The page of a request.
pub fn import_page(w: mds::ImportRequest) -> FsResult<ImportPage> {
    few("skipped", w.skipped.len())?;
    few("known", w.known.len())?;
    let objects = listed(w.objects)?;
    let known = w.known.into_iter().map(|k| key(k, "known")).collect::<FsResult<Vec<_>>>()?;
    rising("known", known.iter().map(Vec::as_slice))?;
    let (from, after) = (key(w.from, "from")?, key(w.after, "after")?);
    let first = objects.first().map(|o| &o.key).into_iter().chain(known.first()).min();
    if let Some(first) = first.filter(|first| **first <= from) {
        let shown = String::from_utf8_lossy(first);
        return Err(bad("from", format_args!("the page has the key {shown:?}, which is not behind it")));
    }
    let skipped = w.skipped.into_iter().map(Into::into).collect();
    Ok(ImportPage { from, objects, after, skipped, known, last: w.last, stamp: w.stamp })
}

impl From<&KeyRange> for mds::KeyRange {
    fn from(range: &KeyRange) -> mds::KeyRange {
        mds::KeyRange { after: range.after.clone(), end: range.end.clone() }
    }
}

/// Rising ranges without a key in common; none come from an MDS that knows no ranges.
fn left(ranges: Vec<mds::KeyRange>) -> FsResult<Vec<KeyRange>> {
    if ranges.len() > IMPORT_RANGES_MAX {
        return Err(bad("left", format_args!("{} ranges, at most {IMPORT_RANGES_MAX}", ranges.len())));
    }
    let range = |r: mds::KeyRange| {
        let end = r.end.map(|end| key(end, "end")).transpose()?;
        Ok(KeyRange { after: key(r.after, "after")?, end })
    };
    let ranges = ranges.into_iter().map(range).collect::<FsResult<Vec<_>>>()?;
    let is_before = |pair: &[KeyRange]| pair[0].end.as_ref().is_some_and(|end| *end <= pair[1].after);
    if ranges.iter().any(KeyRange::is_empty) || !ranges.windows(2).all(is_before) {
        return Err(bad("left", format_args!("{} ranges that are not one behind the other", ranges.len())));
    }
    Ok(ranges)
}

/// The question which of these objects are known. `session_id` is 16 bytes.
pub fn known_to_wire(session_id: Vec<u8>, number: u64, objects: &[ImportedObject]) -> mds::KnownRequest {
    mds::KnownRequest { session_id, number, objects: objects.iter().map(Into::into).collect() }
}

/// The objects of such a question.
pub fn known_question(w: mds::KnownRequest) -> FsResult<Vec<ImportedObject>> {
    listed(w.objects)
}

/// The answer to it: which of the objects, in their order, are known.
pub fn known_answer(known: &[bool]) -> mds::KnownReply {
    let places = known.iter().zip(0..).filter(|(known, _)| **known);
    mds::KnownReply { known: places.map(|(_, place)| place).collect() }
}

/// The answer about so many objects.
pub fn known_of(w: &mds::KnownReply, objects: usize) -> FsResult<Vec<bool>> {
    let mut known = vec![false; objects];
    for place in &w.known {
        match known.get_mut(*place as usize) {
            Some(one) if !*one => *one = true,
            _ => return Err(bad("known", format_args!("{place} of {objects} objects, or twice"))),
        }
    }
    Ok(known)
}

impl From<&ImportDone> for mds::ImportReply {
    fn from(d: &ImportDone) -> mds::ImportReply {
        mds::ImportReply { status: Some((&d.status).into()), stamp: d.stamp, again: d.again }
    }
}

impl TryFrom<mds::ImportReply> for ImportDone {
    type Error = FsError;
    fn try_from(w: mds::ImportReply) -> FsResult<ImportDone> {
        Ok(ImportDone { status: required(w.status, "status")?.try_into()?, stamp: w.stamp, again: w.again })
    }
}
