//! What goes over the wire comes back, and what breaks a rule does not.

use sateen_types::limits::{FETCH_BYTES_MAX, IMPORT_PAGE_OBJECTS_MAX};
use sateen_types::repository::*;
use sateen_types::{Extent, Fid, FsCode, LayoutTemplate, Timestamp};

use super::*;

fn settings() -> RepositorySettings {
    let mut s = RepositorySettings::new("/d".parse().expect("path"), "s3://b/p".parse().expect("url"));
    s.endpoint = "http://h:1".to_owned();
    s.auto_import = RepositoryEvents { created: true, changed: false, deleted: true };
    s.batch_import = true;
    s.conflict = ConflictPolicy::KeepBoth;
    s.sync_interval_s = 77;
    s.event_source = "sqs:https://h/1/q".parse().expect("source");
    s
}

fn found() -> Found {
    Found { size: 7, etag: "e".to_owned(), modified: Timestamp { seconds: 5, nanos: 6 } }
}

fn export() -> Work {
    let at = Timestamp { seconds: 1, nanos: 2 };
    Work::Export(Box::new(Export {
        fid: Fid::ROOT,
        key: b"k".to_vec(),
        mode: 0o100644,
        uid: 1,
        gid: 2,
        atime: at,
        mtime: at,
        size: 3,
        symlink: Some(b"t".to_vec()),
        known_etag: "e".to_owned(),
        copy: Some(CopySource { key: b"o".to_vec(), etag: "f".to_owned(), size: 4 }),
        earlier: vec![1, 2],
        overrule_etag: "g".to_owned(),
        may_be_gone: true,
    }))
}

fn delete() -> Work {
    Work::Delete { key: b"k".to_vec(), etag: "e".to_owned(), earlier: vec![3] }
}

fn exported() -> Outcome {
    let (message, code) = ("m".to_owned(), "c".to_owned());
    Outcome::Export(ExportOutcome { result: ExportResult::Stored, message, code, object: Some(found()) })
}

fn deleted() -> Outcome {
    Outcome::Delete(DeleteOutcome { result: DeleteResult::Conflict, message: String::new(), object: Some(found()) })
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
        first_skipped: vec![skipped.clone()],
        ..Default::default()
    };
    let export_status = ExportStatus {
        queued: 1,
        oldest: Some(Timestamp { seconds: 8, nanos: 0 }),
        stored: 2,
        bytes: 3,
        deleted: 4,
        failed: 5,
        skipped: 6,
        first_skipped: vec![skipped],
        message: "m".to_owned(),
        failing: vec![Failing { key: b"k".to_vec(), attempts: 3, message: "w".to_owned() }],
    };
    let repository = Repository {
        id: RepositoryId(77),
        settings: settings(),
        state: RepositoryState::Misconfigured,
        message: "no such bucket".to_owned(),
        created: Timestamp { seconds: 3, nanos: 4 },
        root: Fid::ROOT,
        import,
        export: export_status,
        synced: Some(Timestamp { seconds: 6, nanos: 7 }),
        conflicts: 8,
        watched: Some(Timestamp { seconds: 9, nanos: 10 }),
        watch_message: "w".to_owned(),
    };
    assert_eq!(Repository::try_from(mds::Repository::from(&repository)), Ok(repository));
    let layout = LayoutTemplate::default().resolve(&LayoutTemplate::default());
    let range = Extent { start: 0, end: 100 };
    let (key, etag) = (b"k".to_vec(), "\"e\"".to_owned());
    let fetch = Fetch { fid: Fid::ROOT, key, etag, range, layout, size: 100, urgent: true };
    for work in [
        Work::Check,
        Work::Import {
            left: vec![
                KeyRange { after: b"x".to_vec(), end: Some(b"y".to_vec()) },
                KeyRange { after: b"y".to_vec(), end: None },
            ],
            sync: true,
        },
        Work::Fetch(fetch),
        Work::Watch,
        Work::Report { task: TaskId(9), key: b"r/task-9/failures.csv".to_vec() },
        export(),
        delete(),
        Work::Look { key: b"k".to_vec() },
    ] {
        let a = Assignment { number: 3, repository: RepositoryId(1), settings: settings(), work, stamp: 9 };
        assert_eq!(Assignment::try_from(mds::Assignment::from(&a)), Ok(a));
    }
    let message = "m".to_owned();
    let fetched = FetchOutcome { result: FetchResult::Changed, message: message.clone(), allocated_delta: -5 };
    for outcome in [
        Outcome::Check { message: message.clone() },
        Outcome::Import { message: message.clone() },
        Outcome::Report { message },
        Outcome::Fetch(FetchOutcome { result: FetchResult::NoSpace, ..fetched.clone() }),
        Outcome::Fetch(fetched),
        exported(),
        deleted(),
        Outcome::Look(LookOutcome { object: Some(found()), number: Some(0), message: String::new() }),
        Outcome::Look(LookOutcome { object: None, number: None, message: "m".to_owned() }),
    ] {
        assert_eq!(Outcome::try_from(mds::finish_request::Outcome::from(&outcome)), Ok(outcome));
    }
    let remote_ = Remote::new(10, vec![Extent { start: 2, end: 4 }]).expect("valid");
    assert_eq!(remote(Some((&remote_).into())), Ok(Some(remote_)));
}

#[test]
fn tasks_are_what_they_were_and_what_is_none_is_refused() {
    let at = |seconds| Timestamp { seconds, nanos: 3 };
    let spec = TaskSpec {
        kind: TaskKind::Release,
        paths: vec!["/a".to_owned(), "/".to_owned()],
        report: "/r".parse().ok(),
        days: 9,
    };
    for (i, state) in TaskState::ALL.into_iter().enumerate() {
        let task = Task {
            id: TaskId(i as u64),
            spec: TaskSpec { kind: TaskKind::ALL[i % 4], days: if i % 4 == 3 { 9 } else { 0 }, ..spec.clone() },
            state,
            message: "m".to_owned(),
            counts: TaskCounts { total: 5, succeeded: 3, failed: 2, skipped: 1, bytes: 77 },
            created: at(1),
            started: Some(at(2)),
            ended: state.is_over().then(|| at(3)),
            updated: at(4),
            report_url: "s3://b/r".to_owned(),
        };
        assert_eq!(Task::try_from(mds::Task::from(&task)), Ok(task));
    }
    let wire = mds::TaskSpec::from(&spec);
    for bad in [
        mds::TaskSpec { kind: 0, ..wire.clone() },
        mds::TaskSpec { kind: 77, ..wire.clone() },
        mds::TaskSpec { paths: Vec::new(), ..wire.clone() },
        mds::TaskSpec { paths: vec!["/a/../b".to_owned()], ..wire.clone() },
        mds::TaskSpec { report: "r".to_owned(), ..wire.clone() },
        mds::TaskSpec { days: u32::MAX, ..wire },
    ] {
        assert_eq!(TaskSpec::try_from(bad).expect_err("refused").code, FsCode::Invalid);
    }
    let marks = AutoRelease { high: 90, low: 80 };
    assert_eq!(AutoRelease::try_from(mds::AutoRelease::from(marks)), Ok(marks));
    AutoRelease::try_from(mds::AutoRelease { high: 80, low: 90 }).expect_err("the wrong way round");
}

#[test]
fn pages_that_break_a_rule_are_refused() {
    let page = |keys: &[&[u8]]| ImportPage {
        from: Vec::new(),
        objects: keys.iter().map(|k| object(k)).collect(),
        after: b"z".to_vec(),
        skipped: Vec::new(),
        known: Vec::new(),
        last: true,
        stamp: 5,
    };
    let good = ImportPage { known: vec![b"c".to_vec(), b"d".to_vec()], ..page(&[b"a", b"b"]) };
    assert_eq!(import_page(import_to_wire(vec![0; 16], 1, &good)), Ok(good.clone()));
    let outside = import_page(import_to_wire(vec![0; 16], 1, &ImportPage { from: b"a".to_vec(), ..good }));
    assert_eq!(outside.expect_err("refused").code, FsCode::Invalid);
    let long = vec![b'x'; KEY_BYTES_MAX + 1];
    let many: Vec<_> = (0..=IMPORT_PAGE_OBJECTS_MAX).map(|i| format!("{i:06}").into_bytes()).collect();
    let many: Vec<_> = many.iter().map(Vec::as_slice).collect();
    for bad in [page(&[b"b", b"a"]), page(&[b"a", b"a"]), page(&[b""]), page(&[&long]), page(&many)] {
        let error = import_page(import_to_wire(vec![0; 16], 1, &bad)).expect_err("refused");
        assert_eq!(error.code, FsCode::Invalid);
        let question = known_question(known_to_wire(vec![0; 16], 1, &bad.objects)).expect_err("refused");
        assert_eq!(question.code, FsCode::Invalid);
        let known = ImportPage { known: bad.objects.into_iter().map(|o| o.key).collect(), ..page(&[]) };
        let error = import_page(import_to_wire(vec![0; 16], 1, &known)).expect_err("refused");
        assert_eq!(error.code, FsCode::Invalid);
    }
}

#[test]
fn what_is_known_is_told_by_places() {
    let objects = [object(b"a"), object(b"b"), object(b"c")];
    assert_eq!(known_question(known_to_wire(vec![0; 16], 1, &objects)), Ok(objects.to_vec()));
    for known in [[true, false, true], [false; 3], [true; 3]] {
        assert_eq!(known_of(&known_answer(&known), 3), Ok(known.to_vec()));
    }
    for wrong in [vec![3], vec![0, 0], vec![u32::MAX]] {
        let error = known_of(&mds::KnownReply { known: wrong }, 3).expect_err("refused");
        assert_eq!(error.code, FsCode::Invalid);
    }
}

#[test]
fn work_that_is_too_large_is_refused() {
    let wire = |range: (u64, u64), size| mds::Assignment {
        number: 1,
        repository: 1,
        stamp: 0,
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

#[test]
fn what_is_told_of_a_bucket_has_each_key_once() {
    let page = |keys: &[&[u8]], gone: &[&[u8]]| EventsPage {
        repository: RepositoryId(4),
        number: 5,
        stamp: 6,
        objects: keys.iter().map(|k| object(k)).collect(),
        gone: gone.iter().map(|k| k.to_vec()).collect(),
        message: "m".to_owned(),
    };
    let good = page(&[b"b", b"a"], &[b"c"]);
    assert_eq!(events_page(events_to_wire(vec![0; 16], &good)), Ok(good));
    let many: Vec<_> = (0..=sateen_types::limits::EVENTS_MAX).map(|i| format!("{i}").into_bytes()).collect();
    let many: Vec<_> = many.iter().map(Vec::as_slice).collect();
    for bad in [page(&[b"a", b"a"], &[]), page(&[b"a"], &[b"a"]), page(&[], &[b""]), page(&[], &many)] {
        assert_eq!(events_page(events_to_wire(vec![0; 16], &bad)).expect_err("refused").code, FsCode::Invalid);
    }
    let done = EventsDone { stamp: 1, later: vec![b"k".to_vec()], created: 2, changed: 3, deleted: 4 };
    assert_eq!(EventsDone::try_from(mds::EventsReply::from(&done)), Ok(done));
}

#[test]
fn conflicts_survive_the_wire() {
    for fid in [None, Some(Fid::ROOT)] {
        let since = Timestamp { seconds: 3, nanos: 4 };
        let conflict = Conflict { key: b"k".to_vec(), fid, since, object: Some(found()), known_etag: "e".to_owned() };
        assert_eq!(Conflict::try_from(mds::Conflict::from(&conflict)), Ok(conflict));
    }
    for policy in ConflictPolicy::ALL {
        assert_eq!(conflict_policy(mds::ConflictPolicy::from(policy).into()), Ok(policy));
        assert_eq!(policy.as_str().parse(), Ok(policy));
    }
    assert!(resolution(0).is_err() && conflict_policy(9).is_err());
    assert_eq!(conflicts_page(Vec::new(), 0), Ok((Vec::new(), 1000)));
    assert!(conflicts_page(Vec::new(), 1001).is_err());
}
