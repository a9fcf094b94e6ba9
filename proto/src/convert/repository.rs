//! Data repositories: links, what is known of files, work of workers.

use sateen_types::limits::{
    ASSIGNMENTS_MAX, ETAG_BYTES_MAX, FETCH_BYTES_MAX, FILE_SIZE_MAX, IMPORT_FIRST_SKIPPED_MAX, IMPORT_PAGE_BYTES_MAX,
    IMPORT_PAGE_OBJECTS_MAX, KEY_BYTES_MAX, PATH_BYTES_MAX, REPOSITORY_HOLD_MS_MAX, REPOSITORY_MESSAGE_BYTES_MAX,
    SKIPPED_MESSAGE_BYTES_MAX, TAKE_MAX,
};
use sateen_types::repository::{
    Assignment, Fetch, FetchOutcome, FetchResult, HsmAction, HsmFlags, HsmOperation, HsmState, ImportPage, ImportState,
    ImportStatus, ImportedObject, Outcome, Remote, Repository, RepositoryEvents, RepositoryId, RepositorySettings,
    RepositoryState, Skipped, Work,
};
use sateen_types::{Extent, FsError, FsResult, Timestamp};

use super::{bad, fid, known, required};
use crate::mds;

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
        })
    }
}

impl From<&HsmState> for mds::HsmStateReply {
    fn from(s: &HsmState) -> mds::HsmStateReply {
        mds::HsmStateReply {
            flags: s.flags.0,
            action: s.action.wire(),
            repository: s.repository.map_or(0, |id| id.0),
            key: s.key.clone(),
            loaded_bytes: s.loaded_bytes,
            remote_bytes: s.remote_bytes,
        }
    }
}

impl TryFrom<mds::HsmStateReply> for HsmState {
    type Error = FsError;
    fn try_from(w: mds::HsmStateReply) -> FsResult<HsmState> {
        let action = HsmAction::from_wire(w.action);
        Ok(HsmState {
            flags: HsmFlags(w.flags),
            action: action.ok_or_else(|| bad("action", format_args!("{} is no action", w.action)))?,
            repository: (w.repository != 0).then_some(RepositoryId(w.repository)),
            key: key(w.key, "key")?,
            loaded_bytes: w.loaded_bytes,
            remote_bytes: w.remote_bytes,
        })
    }
}

impl From<HsmOperation> for mds::HsmOperation {
    fn from(op: HsmOperation) -> mds::HsmOperation {
        match op {
            HsmOperation::Restore => mds::HsmOperation::Restore,
            HsmOperation::Release => mds::HsmOperation::Release,
        }
    }
}

/// An operation that must be there.
pub fn hsm_operation(number: i32) -> FsResult<HsmOperation> {
    Ok(match known(number, "operation")? {
        mds::HsmOperation::Restore => HsmOperation::Restore,
        mds::HsmOperation::Release => HsmOperation::Release,
        mds::HsmOperation::Unspecified => return Err(bad("operation", "missing")),
    })
}

/// What a worker may ask for: how much, and the numbers of what it has.
pub fn take_bounds(request: &mds::TakeRequest) -> FsResult<()> {
    if request.max == 0 || request.max > TAKE_MAX {
        return Err(bad("max", format_args!("{} is not 1 to {TAKE_MAX}", request.max)));
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
            Work::Import { after } => Wire::Import(mds::ImportWork { after: after.clone() }),
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
        }
    }
}

impl TryFrom<mds::Assignment> for Assignment {
    type Error = FsError;
    fn try_from(w: mds::Assignment) -> FsResult<Assignment> {
        use mds::assignment::Work as Wire;
        let work = match required(w.work, "work")? {
            Wire::Check(_) => Work::Check,
            Wire::Import(i) => Work::Import { after: key(i.after, "after")? },
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
        })
    }
}

impl From<&Outcome> for mds::finish_request::Outcome {
    fn from(o: &Outcome) -> mds::finish_request::Outcome {
        use mds::fetch_outcome::Result as Wire;
        match o {
            Outcome::Check { message } => Self::Check(mds::CheckOutcome { message: message.clone() }),
            Outcome::Import { message } => Self::Import(mds::ImportOutcome { message: message.clone() }),
            Outcome::Fetch(f) => {
                let result = match f.result {
                    FetchResult::Loaded => Wire::Loaded,
                    FetchResult::Changed => Wire::Changed,
                    FetchResult::Gone => Wire::Gone,
                    FetchResult::Failed => Wire::Failed,
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
            O::Fetch(f) => {
                let result = match known(f.result, "result")? {
                    Wire::Loaded => FetchResult::Loaded,
                    Wire::Changed => FetchResult::Changed,
                    Wire::Gone => FetchResult::Gone,
                    Wire::Failed => FetchResult::Failed,
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
        after: page.after.clone(),
        skipped: page.skipped.iter().map(Into::into).collect(),
        last: page.last,
    }
}

/// The page of a request: rising keys, and not too many.
pub fn import_page(w: mds::ImportRequest) -> FsResult<ImportPage> {
    for (field, n) in [("objects", w.objects.len()), ("skipped", w.skipped.len())] {
        if n > IMPORT_PAGE_OBJECTS_MAX {
            return Err(bad(field, format_args!("{n}, at most {IMPORT_PAGE_OBJECTS_MAX}")));
        }
    }
    let objects = w.objects.into_iter().map(ImportedObject::try_from).collect::<FsResult<Vec<_>>>()?;
    if let Some(two) = objects.windows(2).find(|two| two[0].key >= two[1].key) {
        let shown = String::from_utf8_lossy(&two[1].key);
        return Err(bad("objects", format_args!("key {shown:?} does not follow the one before")));
    }
    let bytes = |o: &ImportedObject| o.key.len() + o.etag.len() + o.symlink.as_ref().map_or(0, Vec::len);
    at_most("objects", objects.iter().map(bytes).sum(), IMPORT_PAGE_BYTES_MAX)?;
    let after = key(w.after, "after")?;
    Ok(ImportPage { objects, after, skipped: w.skipped.into_iter().map(Into::into).collect(), last: w.last })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sateen_types::{Fid, FsCode, LayoutTemplate};

    fn settings() -> RepositorySettings {
        let mut s = RepositorySettings::new("/d".parse().expect("path"), "s3://b/p".parse().expect("url"));
        s.endpoint = "http://h:1".to_owned();
        s.auto_import = RepositoryEvents { created: true, changed: false, deleted: true };
        s.batch_import = true;
        s
    }

    fn object(key: &[u8]) -> ImportedObject {
        let at = Timestamp { seconds: 5, nanos: 6 };
        ImportedObject {
            key: key.to_vec(),
            size: 7,
            etag: "\"e\"".to_owned(),
            modified: at,
            mode: Some(0o100644),
            uid: Some(0),
            gid: None,
            atime: Some(at),
            mtime: None,
            symlink: None,
        }
    }

    #[test]
    fn a_link_and_its_work_survive_the_wire() {
        let skipped = Skipped { key: b"a//b".to_vec(), code: "C".to_owned(), message: "m".to_owned() };
        let import = ImportStatus {
            state: ImportState::Running,
            objects: 9,
            started: Some(Timestamp { seconds: 1, nanos: 2 }),
            first_skipped: vec![skipped],
            ..Default::default()
        };
        let repository = Repository {
            id: RepositoryId(77),
            settings: settings(),
            state: RepositoryState::Misconfigured,
            message: "no such bucket".to_owned(),
            created: Timestamp { seconds: 3, nanos: 4 },
            root: Fid::ROOT,
            import,
        };
        assert_eq!(Repository::try_from(mds::Repository::from(&repository)), Ok(repository));
        let layout = LayoutTemplate::default().resolve(&LayoutTemplate::default());
        let range = Extent { start: 0, end: 100 };
        let (key, etag) = (b"k".to_vec(), "\"e\"".to_owned());
        let fetch = Fetch { fid: Fid::ROOT, key, etag, range, layout, size: 100, urgent: true };
        for work in [Work::Check, Work::Import { after: b"x".to_vec() }, Work::Fetch(fetch)] {
            let a = Assignment { number: 3, repository: RepositoryId(1), settings: settings(), work };
            assert_eq!(Assignment::try_from(mds::Assignment::from(&a)), Ok(a));
        }
        let message = "m".to_owned();
        let fetched = FetchOutcome { result: FetchResult::Changed, message: message.clone(), allocated_delta: -5 };
        for outcome in
            [Outcome::Check { message: message.clone() }, Outcome::Import { message }, Outcome::Fetch(fetched)]
        {
            assert_eq!(Outcome::try_from(mds::finish_request::Outcome::from(&outcome)), Ok(outcome));
        }
        let remote_ = Remote::new(10, vec![Extent { start: 2, end: 4 }]).expect("valid");
        assert_eq!(remote(Some((&remote_).into())), Ok(Some(remote_)));
    }

    #[test]
    fn pages_that_break_a_rule_are_refused() {
        let page = |keys: &[&[u8]]| ImportPage {
            objects: keys.iter().map(|k| object(k)).collect(),
            after: b"z".to_vec(),
            skipped: Vec::new(),
            last: true,
        };
        let good = page(&[b"a", b"b"]);
        assert_eq!(import_page(import_to_wire(vec![0; 16], 1, &good)), Ok(good));
        let long = vec![b'x'; KEY_BYTES_MAX + 1];
        let many: Vec<_> = (0..=IMPORT_PAGE_OBJECTS_MAX).map(|i| format!("{i:06}").into_bytes()).collect();
        let many: Vec<_> = many.iter().map(Vec::as_slice).collect();
        for bad in [page(&[b"b", b"a"]), page(&[b"a", b"a"]), page(&[b""]), page(&[&long]), page(&many)] {
            let error = import_page(import_to_wire(vec![0; 16], 1, &bad)).expect_err("refused");
            assert_eq!(error.code, FsCode::Invalid);
        }
    }

    #[test]
    fn work_that_is_too_large_is_refused() {
        let wire = |range: (u64, u64), size| mds::Assignment {
            number: 1,
            repository: 1,
            settings: Some((&settings()).into()),
            work: Some(mds::assignment::Work::Fetch(mds::FetchWork {
                fid: Some(Fid::ROOT.into()),
                range: Some(mds::LoadedRange { start: range.0, end: range.1 }),
                layout: Some((&LayoutTemplate::default().resolve(&LayoutTemplate::default())).into()),
                size,
                ..Default::default()
            })),
        };
        assert!(Assignment::try_from(wire((0, 10), 10)).is_ok());
        for bad in [wire((0, 11), 10), wire((5, 5), 10), wire((0, FETCH_BYTES_MAX + 1), 1 << 40)] {
            assert_eq!(Assignment::try_from(bad).expect_err("refused").code, FsCode::Invalid);
        }
    }
}
