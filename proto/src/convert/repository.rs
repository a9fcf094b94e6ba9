//! Data repositories: links, what is known of files, work of workers.

mod export;
mod filled;
mod hsm;
mod task;
#[cfg(test)]
mod tests;
mod work;

use sateen_types::limits::{
    ETAG_BYTES_MAX, FILE_SIZE_MAX, IMPORT_FIRST_SKIPPED_MAX, KEY_BYTES_MAX, REPOSITORY_HOLD_MS_MAX,
    REPOSITORY_MESSAGE_BYTES_MAX, SKIPPED_MESSAGE_BYTES_MAX,
};
use sateen_types::repository::{
    ImportState, ImportStatus, Remote, Repository, RepositoryEvents, RepositoryId, RepositorySettings, RepositoryState,
    Skipped,
};
use sateen_types::{Extent, FsError, FsResult, Timestamp};

use super::{bad, fid, known, required};
use crate::mds;

pub use export::{conflict_key, conflict_policy, conflicts_page, events_page, events_to_wire, resolution};
pub use filled::{filled, ost_verifiers, ost_verifiers_to_wire};
pub use hsm::{hsm_operation, hsm_request_to_wire};
pub use work::{import_page, import_to_wire, known_answer, known_of, known_question, known_to_wire, take_bounds};

/// At most `max` bytes of a text, cut between characters.
pub fn cut(text: &str, max: usize) -> String {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn at_most(field: &str, bytes: usize, max: usize) -> FsResult<()> {
    if bytes <= max { Ok(()) } else { Err(bad(field, format_args!("{bytes} bytes, at most {max} are allowed"))) }
}

fn time(t: Option<crate::common::Timestamp>) -> FsResult<Option<Timestamp>> {
    t.map(TryInto::try_into).transpose()
}

fn key(bytes: Vec<u8>, field: &str) -> FsResult<Vec<u8>> {
    at_most(field, bytes.len(), KEY_BYTES_MAX)?;
    Ok(bytes)
}

fn etag(text: String) -> FsResult<String> {
    at_most("etag", text.len(), ETAG_BYTES_MAX)?;
    Ok(text)
}

fn file_size(n: u64, field: &str) -> FsResult<u64> {
    if n <= FILE_SIZE_MAX { Ok(n) } else { Err(bad(field, format_args!("{n} is above the largest file"))) }
}

/// How long a Load or Take may wait; longer is cut to the bound.
pub fn hold(hold_ms: u32) -> std::time::Duration {
    std::time::Duration::from_millis(u64::from(hold_ms.min(REPOSITORY_HOLD_MS_MAX)))
}

/// A range that is not empty and lies in a file.
pub fn loaded_range(range: Option<mds::LoadedRange>) -> FsResult<Extent> {
    let r = required(range, "range")?;
    if r.start >= r.end || r.end > FILE_SIZE_MAX {
        return Err(bad("range", format_args!("[{}, {}) is no range of a file", r.start, r.end)));
    }
    Ok(Extent { start: r.start, end: r.end })
}

/// A range as it travels.
pub fn loaded_range_to_wire(range: Extent) -> mds::LoadedRange {
    mds::LoadedRange { start: range.start, end: range.end }
}

impl From<&Remote> for mds::Remote {
    fn from(r: &Remote) -> mds::Remote {
        mds::Remote { end: r.end(), loaded: r.loaded().iter().copied().map(loaded_range_to_wire).collect() }
    }
}

impl TryFrom<mds::Remote> for Remote {
    type Error = FsError;
    fn try_from(w: mds::Remote) -> FsResult<Remote> {
        let loaded = w.loaded.into_iter().map(|r| Extent { start: r.start, end: r.end }).collect();
        Remote::new(file_size(w.end, "remote.end")?, loaded)
    }
}

/// `remote` of OpenReply, ExecuteReply and LoadReply; absent: the file is not released.
pub fn remote(wire: Option<mds::Remote>) -> FsResult<Option<Remote>> {
    wire.map(TryInto::try_into).transpose()
}

impl From<RepositoryEvents> for mds::Events {
    fn from(e: RepositoryEvents) -> mds::Events {
        mds::Events { created: e.created, changed: e.changed, deleted: e.deleted }
    }
}

impl From<mds::Events> for RepositoryEvents {
    fn from(w: mds::Events) -> RepositoryEvents {
        RepositoryEvents { created: w.created, changed: w.changed, deleted: w.deleted }
    }
}

impl From<&RepositorySettings> for mds::RepositorySettings {
    fn from(s: &RepositorySettings) -> mds::RepositorySettings {
        mds::RepositorySettings {
            path: s.path.to_string(),
            url: s.url.to_string(),
            endpoint: s.endpoint.clone(),
            region: s.region.clone(),
            profile: s.profile.clone(),
            auto_import: Some(s.auto_import.into()),
            auto_export: Some(s.auto_export.into()),
            imported_file_chunk_mib: s.chunk_mib,
            batch_import: s.batch_import,
            conflict: mds::ConflictPolicy::from(s.conflict).into(),
            sync_interval_s: s.sync_interval_s,
            event_source: s.event_source.to_string(),
        }
    }
}

impl TryFrom<mds::RepositorySettings> for RepositorySettings {
    type Error = FsError;
    fn try_from(w: mds::RepositorySettings) -> FsResult<RepositorySettings> {
        RepositorySettings {
            path: w.path.parse()?,
            url: w.url.parse()?,
            endpoint: w.endpoint,
            region: w.region,
            profile: w.profile,
            auto_import: w.auto_import.unwrap_or_default().into(),
            auto_export: w.auto_export.unwrap_or_default().into(),
            chunk_mib: w.imported_file_chunk_mib,
            batch_import: w.batch_import,
            conflict: conflict_policy(w.conflict)?,
            sync_interval_s: w.sync_interval_s,
            event_source: w.event_source.parse()?,
        }
        .checked()
    }
}

impl From<RepositoryState> for mds::RepositoryState {
    fn from(s: RepositoryState) -> mds::RepositoryState {
        match s {
            RepositoryState::Creating => mds::RepositoryState::Creating,
            RepositoryState::Available => mds::RepositoryState::Available,
            RepositoryState::Misconfigured => mds::RepositoryState::Misconfigured,
            RepositoryState::Updating => mds::RepositoryState::Updating,
            RepositoryState::Deleting => mds::RepositoryState::Deleting,
            RepositoryState::Failed => mds::RepositoryState::Failed,
        }
    }
}

fn repository_state(number: i32) -> FsResult<RepositoryState> {
    Ok(match known(number, "state")? {
        mds::RepositoryState::Creating => RepositoryState::Creating,
        mds::RepositoryState::Available => RepositoryState::Available,
        mds::RepositoryState::Misconfigured => RepositoryState::Misconfigured,
        mds::RepositoryState::Updating => RepositoryState::Updating,
        mds::RepositoryState::Deleting => RepositoryState::Deleting,
        mds::RepositoryState::Failed => RepositoryState::Failed,
        mds::RepositoryState::Unspecified => return Err(bad("state", "missing")),
    })
}

impl From<ImportState> for mds::ImportState {
    fn from(s: ImportState) -> mds::ImportState {
        match s {
            ImportState::None => mds::ImportState::None,
            ImportState::Queued => mds::ImportState::Queued,
            ImportState::Running => mds::ImportState::Running,
            ImportState::Done => mds::ImportState::Done,
            ImportState::Failed => mds::ImportState::Failed,
        }
    }
}

/// The unspecified number of this enumeration has a meaning: there was no import.
fn import_state(number: i32) -> FsResult<ImportState> {
    Ok(match mds::ImportState::try_from(number) {
        Ok(mds::ImportState::None) => ImportState::None,
        Ok(mds::ImportState::Queued) => ImportState::Queued,
        Ok(mds::ImportState::Running) => ImportState::Running,
        Ok(mds::ImportState::Done) => ImportState::Done,
        Ok(mds::ImportState::Failed) => ImportState::Failed,
        Err(_) => return Err(bad("import.state", format_args!("{number} is not a value of this enumeration"))),
    })
}

impl From<&Skipped> for mds::Skipped {
    fn from(s: &Skipped) -> mds::Skipped {
        mds::Skipped { key: s.key.clone(), code: s.code.clone(), message: s.message.clone() }
    }
}

impl From<mds::Skipped> for Skipped {
    /// What is too long is cut: it is only shown.
    fn from(mut w: mds::Skipped) -> Skipped {
        w.key.truncate(KEY_BYTES_MAX);
        let message = cut(&w.message, SKIPPED_MESSAGE_BYTES_MAX);
        Skipped { key: w.key, code: cut(&w.code, SKIPPED_MESSAGE_BYTES_MAX), message }
    }
}

impl From<&ImportStatus> for mds::ImportStatus {
    fn from(s: &ImportStatus) -> mds::ImportStatus {
        mds::ImportStatus {
            state: mds::ImportState::from(s.state).into(),
            message: s.message.clone(),
            objects: s.objects,
            created: s.created,
            changed: s.changed,
            skipped: s.skipped,
            bytes: s.bytes,
            started: s.started.map(Into::into),
            ended: s.ended.map(Into::into),
            first_skipped: s.first_skipped.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<mds::ImportStatus> for ImportStatus {
    type Error = FsError;
    fn try_from(w: mds::ImportStatus) -> FsResult<ImportStatus> {
        Ok(ImportStatus {
            state: import_state(w.state)?,
            message: cut(&w.message, REPOSITORY_MESSAGE_BYTES_MAX),
            objects: w.objects,
            created: w.created,
            changed: w.changed,
            skipped: w.skipped,
            bytes: w.bytes,
            started: time(w.started)?,
            ended: time(w.ended)?,
            first_skipped: w.first_skipped.into_iter().take(IMPORT_FIRST_SKIPPED_MAX).map(Into::into).collect(),
        })
    }
}

impl From<&Repository> for mds::Repository {
    fn from(r: &Repository) -> mds::Repository {
        mds::Repository {
            id: r.id.0,
            settings: Some((&r.settings).into()),
            state: mds::RepositoryState::from(r.state).into(),
            message: r.message.clone(),
            created: Some(r.created.into()),
            root: Some(r.root.into()),
            import: Some((&r.import).into()),
            export: Some((&r.export).into()),
            synced: r.synced.map(Into::into),
            conflicts: r.conflicts,
            watched: r.watched.map(Into::into),
            watch_message: r.watch_message.clone(),
        }
    }
}

impl TryFrom<mds::Repository> for Repository {
    type Error = FsError;
    fn try_from(w: mds::Repository) -> FsResult<Repository> {
        Ok(Repository {
            id: RepositoryId(w.id),
            settings: required(w.settings, "settings")?.try_into()?,
            state: repository_state(w.state)?,
            message: cut(&w.message, REPOSITORY_MESSAGE_BYTES_MAX),
            created: required(w.created, "created")?.try_into()?,
            root: fid(w.root, "root")?,
            import: w.import.unwrap_or_default().try_into()?,
            export: w.export.unwrap_or_default().try_into()?,
            synced: time(w.synced)?,
            conflicts: w.conflicts,
            watched: time(w.watched)?,
            watch_message: cut(&w.watch_message, REPOSITORY_MESSAGE_BYTES_MAX),
        })
    }
}
