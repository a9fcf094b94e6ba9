//! Exports, deletions, conflicts, and what is told of a bucket.

use sateen_types::limits::{
    CONFLICTS_PAGE_MAX, EARLIER_EXPORTS_MAX, EVENTS_MAX, EXPORT_BYTES_MAX, EXPORT_FAILING_MAX,
    IMPORT_FIRST_SKIPPED_MAX, IMPORT_PAGE_BYTES_MAX, PATH_BYTES_MAX, REPOSITORY_MESSAGE_BYTES_MAX,
    SKIPPED_MESSAGE_BYTES_MAX,
};
use sateen_types::repository::{
    Conflict, ConflictPolicy, CopySource, DeleteOutcome, DeleteResult, EventsDone, EventsPage, Export, ExportOutcome,
    ExportResult, ExportStatus, Failing, Found, ImportedObject, LookOutcome, RepositoryId,
};
use sateen_types::{FsError, FsResult};

use super::super::{bad, fid, required};
use super::{at_most, cut, etag, key, time};
use crate::mds;

impl From<ConflictPolicy> for mds::ConflictPolicy {
    fn from(policy: ConflictPolicy) -> mds::ConflictPolicy {
        match policy {
            ConflictPolicy::Manual => mds::ConflictPolicy::Manual,
            ConflictPolicy::RepositoryWins => mds::ConflictPolicy::RepositoryWins,
            ConflictPolicy::FilesystemWins => mds::ConflictPolicy::FilesystemWins,
            ConflictPolicy::KeepBoth => mds::ConflictPolicy::KeepBoth,
        }
    }
}

/// A policy; the number 0 is one, too.
pub fn conflict_policy(number: i32) -> FsResult<ConflictPolicy> {
    Ok(match mds::ConflictPolicy::try_from(number) {
        Ok(mds::ConflictPolicy::Manual) => ConflictPolicy::Manual,
        Ok(mds::ConflictPolicy::RepositoryWins) => ConflictPolicy::RepositoryWins,
        Ok(mds::ConflictPolicy::FilesystemWins) => ConflictPolicy::FilesystemWins,
        Ok(mds::ConflictPolicy::KeepBoth) => ConflictPolicy::KeepBoth,
        Err(_) => return Err(bad("conflict", format_args!("{number} is not a value of this enumeration"))),
    })
}

/// How a conflict is to be ended: not by leaving it.
pub fn resolution(number: i32) -> FsResult<ConflictPolicy> {
    match conflict_policy(number)? {
        ConflictPolicy::Manual => Err(bad("how", "a conflict does not end by leaving it as it is")),
        policy => Ok(policy),
    }
}

impl From<&Found> for mds::Found {
    fn from(f: &Found) -> mds::Found {
        mds::Found { size: f.size, etag: f.etag.clone(), modified: Some(f.modified.into()) }
    }
}

impl TryFrom<mds::Found> for Found {
    type Error = FsError;
    fn try_from(w: mds::Found) -> FsResult<Found> {
        let modified = required(w.modified, "modified")?.try_into()?;
        Ok(Found { size: w.size, etag: etag(w.etag)?, modified })
    }
}

fn found(wire: Option<mds::Found>) -> FsResult<Option<Found>> {
    wire.map(TryInto::try_into).transpose()
}

impl From<&Conflict> for mds::Conflict {
    fn from(c: &Conflict) -> mds::Conflict {
        mds::Conflict {
            key: c.key.clone(),
            fid: c.fid.map(Into::into),
            since: Some(c.since.into()),
            object: c.object.as_ref().map(Into::into),
            known_etag: c.known_etag.clone(),
            deleted_here: c.fid.is_none(),
        }
    }
}

impl TryFrom<mds::Conflict> for Conflict {
    type Error = FsError;
    fn try_from(w: mds::Conflict) -> FsResult<Conflict> {
        Ok(Conflict {
            key: key(w.key, "key")?,
            fid: w.fid.map(|f| fid(Some(f), "fid")).transpose()?,
            since: required(w.since, "since")?.try_into()?,
            object: found(w.object)?,
            known_etag: etag(w.known_etag)?,
        })
    }
}

/// What a list of conflicts is asked for: behind which key, and how many.
pub fn conflicts_page(after: Vec<u8>, max: u32) -> FsResult<(Vec<u8>, usize)> {
    let max = match max {
        0 => CONFLICTS_PAGE_MAX,
        1..=CONFLICTS_PAGE_MAX => max,
        _ => return Err(bad("max", format_args!("{max} is above {CONFLICTS_PAGE_MAX}"))),
    };
    Ok((key(after, "after")?, max as usize))
}

/// The key of a conflict that is to be ended.
pub fn conflict_key(bytes: Vec<u8>) -> FsResult<Vec<u8>> {
    key(bytes, "key")
}

impl From<&ExportStatus> for mds::ExportStatus {
    fn from(s: &ExportStatus) -> mds::ExportStatus {
        mds::ExportStatus {
            queued: s.queued,
            oldest: s.oldest.map(Into::into),
            stored: s.stored,
            bytes: s.bytes,
            deleted: s.deleted,
            failed: s.failed,
            skipped: s.skipped,
            first_skipped: s.first_skipped.iter().map(Into::into).collect(),
            message: s.message.clone(),
            failing: s.failing.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Failing> for mds::Failing {
    fn from(f: &Failing) -> mds::Failing {
        mds::Failing { key: f.key.clone(), attempts: f.attempts, message: f.message.clone() }
    }
}

impl From<mds::Failing> for Failing {
    fn from(w: mds::Failing) -> Failing {
        Failing { key: w.key, attempts: w.attempts, message: cut(&w.message, SKIPPED_MESSAGE_BYTES_MAX) }
    }
}

impl TryFrom<mds::ExportStatus> for ExportStatus {
    type Error = FsError;
    fn try_from(w: mds::ExportStatus) -> FsResult<ExportStatus> {
        Ok(ExportStatus {
            queued: w.queued,
            oldest: time(w.oldest)?,
            stored: w.stored,
            bytes: w.bytes,
            deleted: w.deleted,
            failed: w.failed,
            skipped: w.skipped,
            first_skipped: w.first_skipped.into_iter().take(IMPORT_FIRST_SKIPPED_MAX).map(Into::into).collect(),
            message: cut(&w.message, REPOSITORY_MESSAGE_BYTES_MAX),
            failing: w.failing.into_iter().take(EXPORT_FAILING_MAX).map(Into::into).collect(),
        })
    }
}

impl From<&Export> for mds::ExportWork {
    fn from(e: &Export) -> mds::ExportWork {
        let source = |c: &CopySource| mds::CopySource { key: c.key.clone(), etag: c.etag.clone(), size: c.size };
        mds::ExportWork {
            fid: Some(e.fid.into()),
            key: e.key.clone(),
            mode: e.mode,
            uid: e.uid,
            gid: e.gid,
            atime: Some(e.atime.into()),
            mtime: Some(e.mtime.into()),
            size: e.size,
            symlink: e.symlink.clone().unwrap_or_default(),
            known_etag: e.known_etag.clone(),
            copy: e.copy.as_ref().map(source),
            earlier: e.earlier.clone(),
            overrule_etag: e.overrule_etag.clone(),
            may_be_gone: e.may_be_gone,
        }
    }
}

impl TryFrom<mds::ExportWork> for Export {
    type Error = FsError;
    fn try_from(w: mds::ExportWork) -> FsResult<Export> {
        if w.key.is_empty() {
            return Err(bad("key", "is empty"));
        }
        at_most("symlink", w.symlink.len(), PATH_BYTES_MAX)?;
        if w.size > EXPORT_BYTES_MAX {
            return Err(bad("size", format_args!("{} is above the largest object, {EXPORT_BYTES_MAX}", w.size)));
        }
        if w.earlier.len() > EARLIER_EXPORTS_MAX {
            return Err(bad("earlier", format_args!("{}, at most {EARLIER_EXPORTS_MAX}", w.earlier.len())));
        }
        let source = |c: mds::CopySource| -> FsResult<CopySource> {
            Ok(CopySource { key: key(c.key, "copy.key")?, etag: etag(c.etag)?, size: c.size })
        };
        Ok(Export {
            fid: fid(w.fid, "fid")?,
            key: key(w.key, "key")?,
            mode: w.mode,
            uid: w.uid,
            gid: w.gid,
            atime: required(w.atime, "atime")?.try_into()?,
            mtime: required(w.mtime, "mtime")?.try_into()?,
            size: w.size,
            symlink: (!w.symlink.is_empty()).then_some(w.symlink),
            known_etag: etag(w.known_etag)?,
            copy: w.copy.map(source).transpose()?,
            earlier: w.earlier,
            overrule_etag: etag(w.overrule_etag)?,
            may_be_gone: w.may_be_gone,
        })
    }
}

impl From<&ExportOutcome> for mds::ExportOutcome {
    fn from(o: &ExportOutcome) -> mds::ExportOutcome {
        use mds::export_outcome::Result as Wire;
        let result = match o.result {
            ExportResult::Stored => Wire::Stored,
            ExportResult::Conflict => Wire::Conflict,
            ExportResult::Changed => Wire::Changed,
            ExportResult::SourceGone => Wire::SourceGone,
            ExportResult::Failed => Wire::Failed,
            ExportResult::Skipped => Wire::Skipped,
        };
        let (message, code) = (o.message.clone(), o.code.clone());
        mds::ExportOutcome { result: result.into(), message, code, object: o.object.as_ref().map(Into::into) }
    }
}

impl TryFrom<mds::ExportOutcome> for ExportOutcome {
    type Error = FsError;
    fn try_from(w: mds::ExportOutcome) -> FsResult<ExportOutcome> {
        use mds::export_outcome::Result as Wire;
        let result = match super::known(w.result, "result")? {
            Wire::Stored => ExportResult::Stored,
            Wire::Conflict => ExportResult::Conflict,
            Wire::Changed => ExportResult::Changed,
            Wire::SourceGone => ExportResult::SourceGone,
            Wire::Failed => ExportResult::Failed,
            Wire::Skipped => ExportResult::Skipped,
            Wire::Unspecified => return Err(bad("result", "missing")),
        };
        let object = found(w.object)?;
        if result == ExportResult::Stored && object.is_none() {
            return Err(bad("object", "missing, though one was stored"));
        }
        let message = cut(&w.message, REPOSITORY_MESSAGE_BYTES_MAX);
        Ok(ExportOutcome { result, message, code: cut(&w.code, SKIPPED_MESSAGE_BYTES_MAX), object })
    }
}

impl From<&LookOutcome> for mds::LookOutcome {
    fn from(o: &LookOutcome) -> mds::LookOutcome {
        let object = o.object.as_ref().map(Into::into);
        mds::LookOutcome { object, number: o.number, message: o.message.clone() }
    }
}

impl TryFrom<mds::LookOutcome> for LookOutcome {
    type Error = FsError;
    fn try_from(w: mds::LookOutcome) -> FsResult<LookOutcome> {
        let message = cut(&w.message, REPOSITORY_MESSAGE_BYTES_MAX);
        Ok(LookOutcome { object: found(w.object)?, number: w.number, message })
    }
}

impl From<&DeleteOutcome> for mds::DeleteOutcome {
    fn from(o: &DeleteOutcome) -> mds::DeleteOutcome {
        use mds::delete_outcome::Result as Wire;
        let result = match o.result {
            DeleteResult::Deleted => Wire::Deleted,
            DeleteResult::Conflict => Wire::Conflict,
            DeleteResult::Failed => Wire::Failed,
        };
        let object = o.object.as_ref().map(Into::into);
        mds::DeleteOutcome { result: result.into(), message: o.message.clone(), object }
    }
}

impl TryFrom<mds::DeleteOutcome> for DeleteOutcome {
    type Error = FsError;
    fn try_from(w: mds::DeleteOutcome) -> FsResult<DeleteOutcome> {
        use mds::delete_outcome::Result as Wire;
        let result = match super::known(w.result, "result")? {
            Wire::Deleted => DeleteResult::Deleted,
            Wire::Conflict => DeleteResult::Conflict,
            Wire::Failed => DeleteResult::Failed,
            Wire::Unspecified => return Err(bad("result", "missing")),
        };
        let message = cut(&w.message, REPOSITORY_MESSAGE_BYTES_MAX);
        Ok(DeleteOutcome { result, message, object: found(w.object)? })
    }
}

/// The request that carries what was seen of a bucket. `session_id` is 16 bytes.
pub fn events_to_wire(session_id: Vec<u8>, page: &EventsPage) -> mds::EventsRequest {
    mds::EventsRequest {
        session_id,
        repository: page.repository.0,
        number: page.number,
        stamp: page.stamp,
        objects: page.objects.iter().map(Into::into).collect(),
        gone: page.gone.clone(),
        message: page.message.clone(),
    }
}

/// What a request tells of a bucket: not too much, and each key once.
pub fn events_page(w: mds::EventsRequest) -> FsResult<EventsPage> {
    let count = w.objects.len() + w.gone.len();
    if count > EVENTS_MAX {
        return Err(bad("objects", format_args!("{count} keys with those that are gone, at most {EVENTS_MAX}")));
    }
    let objects = w.objects.into_iter().map(ImportedObject::try_from).collect::<FsResult<Vec<_>>>()?;
    let gone = w.gone.into_iter().map(|k| key(k, "gone")).collect::<FsResult<Vec<_>>>()?;
    let mut seen = std::collections::HashSet::new();
    for one in objects.iter().map(|o| &o.key).chain(&gone) {
        if one.is_empty() || !seen.insert(one) {
            let shown = String::from_utf8_lossy(one);
            return Err(bad("key", format_args!("{shown:?} is empty or comes twice")));
        }
    }
    let bytes = |o: &ImportedObject| o.key.len() + o.etag.len() + o.symlink.as_ref().map_or(0, Vec::len);
    at_most("objects", objects.iter().map(bytes).sum(), IMPORT_PAGE_BYTES_MAX)?;
    let message = cut(&w.message, REPOSITORY_MESSAGE_BYTES_MAX);
    let repository = RepositoryId(w.repository);
    Ok(EventsPage { repository, number: w.number, stamp: w.stamp, objects, gone, message })
}

impl From<&EventsDone> for mds::EventsReply {
    fn from(d: &EventsDone) -> mds::EventsReply {
        mds::EventsReply {
            stamp: d.stamp,
            later: d.later.clone(),
            created: d.created,
            changed: d.changed,
            deleted: d.deleted,
        }
    }
}

impl TryFrom<mds::EventsReply> for EventsDone {
    type Error = FsError;
    fn try_from(w: mds::EventsReply) -> FsResult<EventsDone> {
        if w.later.len() > EVENTS_MAX {
            return Err(bad("later", format_args!("{}, at most {EVENTS_MAX}", w.later.len())));
        }
        let later = w.later.into_iter().map(|k| key(k, "later")).collect::<FsResult<_>>()?;
        Ok(EventsDone { stamp: w.stamp, later, created: w.created, changed: w.changed, deleted: w.deleted })
    }
}
