//! The table of loads against a model of bytes; and whole lives of files with workers that come and go.

mod looks;
mod told;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use proptest::prelude::*;
use sateen_types::op::{Access, Mutation, MutationReply, SetAttr};
use sateen_types::repository::{
    Assignment, Fetch, FetchOutcome, FetchResult, Filled, HsmAction, HsmOperation, ImportPage, ImportState,
    ImportedObject, KeyRange, Outcome, RepositoryState, Work,
};
use sateen_types::{
    ClusterId, Compression, Credential, Extent, Fid, FsCode, FsError, FsId, FsResult, HsmFlags, LayoutTemplate,
    OstIndex, OstUuid, Remote, RepositoryId, RepositorySettings, SessionId, Space, Timestamp, Verifier,
};

use super::table::{LoadTable, Task};
use super::{Asked, Capacity, Loaded};
use crate::command::{Command, Request};
use crate::fs::{FileSystem, FsInfo};
use crate::mdt_disk::MdtDisk;
use crate::namespace;
use crate::registry::{Registry, Report};
use crate::store::{MemStore, Store};

pub(super) const CHUNK: u64 = 128 << 10;
const LINK: RepositoryId = RepositoryId(1);
pub(super) const CLIENT: SessionId = SessionId([1; 16]);
pub(super) const WORKER: SessionId = SessionId([2; 16]);
pub(super) const OTHER: SessionId = SessionId([3; 16]);

impl FileSystem {
    /// [`FileSystem::take`] of a worker that knows its turn.
    pub(in crate::fs) async fn take_next(
        self: &Arc<Self>,
        session: SessionId,
        capacity: Capacity,
        held: &[u64],
        hold: Duration,
    ) -> FsResult<Vec<Assignment>> {
        let (_, turn) = self.take(session, 0, capacity, &[], Duration::ZERO).await?;
        self.take(session, turn, capacity, held, hold).await.map(|(given, _)| given)
    }
}

fn fid(oid: u32) -> Fid {
    Fid { seq: Fid::SEQ_FIRST, oid, ver: 0 }
}

fn extent(start: u64, end: u64) -> Extent {
    Extent { start, end }
}

// ---- the table ----

#[derive(Clone, Debug)]
enum Step {
    Want(u32, u64, u64),
    Ahead(u32, u64),
    Pick(u8),
    Loaded(usize),
    Failed(usize),
    End(u8),
    Held(u8, usize),
    Truncate(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1u32..4, 0u64..40, 1u64..20).prop_map(|(f, at, n)| Step::Want(f, at, n)),
        2 => (1u32..4, 0u64..40).prop_map(|(f, at)| Step::Ahead(f, at)),
        6 => (1u8..4).prop_map(Step::Pick),
        4 => any::<usize>().prop_map(Step::Loaded),
        1 => any::<usize>().prop_map(Step::Failed),
        1 => (1u8..4).prop_map(Step::End),
        1 => (1u8..4, any::<usize>()).prop_map(|(s, n)| Step::Held(s, n)),
        1 => (1u32..4).prop_map(Step::Truncate),
    ];
    proptest::collection::vec(step, 1..120)
}

proptest! {
    /// No byte is in two assignments that live, none that is loaded is in any, and nothing of a file that was cut to nothing is.
    #[test]
    fn no_byte_is_given_to_two_workers_or_after_it_was_loaded(steps in steps()) {
        let session = |n: u8| SessionId([n; 16]);
        let mut now = Instant::now();
        let mut t = LoadTable::new(1, []);
        let size = 45 * CHUNK + 7;
        let mut remotes: Vec<Option<Remote>> = vec![Some(Remote::none_loaded(size)); 4];
        let mut live: Vec<(u64, SessionId, u32, Extent)> = Vec::new();
        for step in steps {
            now += Duration::from_secs(10);
            match step {
                Step::Want(f, at, n) => if let Some(remote) = &remotes[f as usize] {
                    let range = extent(at * CHUNK, (at + n) * CHUNK);
                    let (waiter, _) = t.wait(fid(f), LINK, remote, range, now).expect("room");
                    t.want(fid(f), remote, range);
                    t.leave(fid(f), waiter);
                },
                Step::Ahead(f, at) => if let Some(remote) = &remotes[f as usize] {
                    t.restore(fid(f), LINK, remote, now).expect("room");
                    t.want_ahead(fid(f), extent(at * CHUNK, size));
                },
                Step::Pick(s) => if let Some((number, Task::Fetch { fid: f, range, .. })) = t.pick(session(s), 0, true, now) {
                    prop_assert!(range.start < range.end && range.end - range.start <= 8 << 20);
                    prop_assert!(range.start.is_multiple_of(CHUNK) && (range.end == size || range.end.is_multiple_of(CHUNK)));
                    let remote = remotes[f.oid as usize].as_ref();
                    prop_assert!(remote.is_some_and(|r| r.missing(range) == [range]), "loaded or cut: {:?}", range);
                    for (_, _, other, taken) in &live {
                        prop_assert!(*other != f.oid || !taken.overlaps(range.start, range.end));
                    }
                    live.push((number, session(s), f.oid, range));
                },
                Step::Loaded(n) if !live.is_empty() => {
                    let (number, s, f, range) = live.remove(n % live.len());
                    prop_assert!(t.begin_finish(s, number, |_| true).is_ok());
                    // Its session ends while the report is made durable.
                    t.end_session(s, now);
                    live.retain(|(_, of, ..)| *of != s);
                    let remote = &mut remotes[f as usize];
                    if let Some(r) = remote {
                        r.add(range);
                    }
                    *remote = remote.take().filter(|r| !r.all_loaded());
                    t.loaded(number, remote.as_ref());
                    prop_assert_eq!(t.begin_finish(s, number, |_| true), Err(true), "a report that comes twice");
                }
                Step::Failed(n) if !live.is_empty() => {
                    let (number, s, ..) = live.remove(n % live.len());
                    prop_assert!(t.begin_finish(s, number, |_| true).is_ok());
                    t.failed(number, &FsError::from(FsCode::Io), now);
                }
                Step::End(s) => {
                    t.end_session(session(s), now);
                    live.retain(|(_, of, ..)| *of != session(s));
                }
                Step::Held(s, n) => {
                    let mine: Vec<u64> = live.iter().filter(|(_, of, ..)| *of == session(s)).map(|l| l.0).collect();
                    let kept = &mine[..if mine.is_empty() { 0 } else { n % mine.len() }];
                    t.held(session(s), kept, now);
                    live.retain(|(number, of, ..)| *of != session(s) || kept.contains(number));
                }
                Step::Truncate(f) => if let Some(remote) = remotes[f as usize].clone() {
                    t.close(fid(f), LINK, &remote, now).expect("room");
                    let out = live.iter().any(|(_, _, of, _)| *of == f);
                    prop_assert_eq!(t.is_out(fid(f)), out);
                    if !out {
                        remotes[f as usize] = None;
                        t.forget(fid(f));
                    }
                    t.open(fid(f));
                },
                Step::Loaded(_) | Step::Failed(_) => {}
            }
        }
    }

    /// Whatever order things come in: what is wanted is loaded in the end, and then nothing is kept of the file.
    #[test]
    fn everything_that_is_wanted_is_loaded_in_the_end(wants in proptest::collection::vec((0u64..900, 1u64..60), 1..20)) {
        let (mut now, size) = (Instant::now(), 1000 * CHUNK + 1);
        let mut remote = Remote::none_loaded(size);
        let mut t = LoadTable::new(1, []);
        for (at, n) in &wants {
            let range = extent(at * CHUNK, (at + n) * CHUNK);
            let (waiter, _) = t.wait(fid(1), LINK, &remote, range, now).expect("room");
            t.want(fid(1), &remote, range);
            t.leave(fid(1), waiter);
        }
        t.want_ahead(fid(1), extent(900 * CHUNK, size));
        while let Some((number, task)) = t.pick(WORKER, 0, true, now) {
            let Task::Fetch { range, .. } = task else { panic!("{task:?}") };
            remote.add(range);
            prop_assert!(t.begin_finish(WORKER, number, |_| true).is_ok());
            t.loaded(number, Some(&remote).filter(|r| !r.all_loaded()));
            now += Duration::from_secs(1);
        }
        for (at, n) in wants {
            prop_assert!(remote.is_loaded(extent(at * CHUNK, (at + n) * CHUNK)));
        }
        prop_assert!(remote.is_loaded(extent(900 * CHUNK, size)));
        prop_assert!(!t.is_loading(fid(1)));
    }
}

#[test]
fn after_a_restart_nothing_is_given_out_until_every_worker_has_said_that_it_has_nothing_or_ended() {
    let now = Instant::now();
    let mut t = LoadTable::new(100, [WORKER, OTHER]);
    t.restore(fid(1), LINK, &Remote::none_loaded(CHUNK), now).expect("room");
    t.held(WORKER, &[7], now);
    assert_eq!(t.pick(WORKER, 0, true, now), None, "it may be writing what it was given before");
    t.held(WORKER, &[], now);
    assert_eq!(t.pick(WORKER, 0, true, now), None, "the other one as well");
    t.end_session(OTHER, now);
    assert!(t.pick(WORKER, 0, true, now).is_some_and(|(number, _)| number >= 100));
}

#[test]
fn a_file_that_cannot_be_fetched_is_left_alone_for_a_moment() {
    let now = Instant::now();
    let (remote, range) = (Remote::none_loaded(CHUNK), extent(0, CHUNK));
    let mut t = LoadTable::new(1, []);
    let (waiter, _) = t.wait(fid(1), LINK, &remote, range, now).expect("room");
    t.want(fid(1), &remote, range);
    let (number, _) = t.pick(WORKER, 0, true, now).expect("wanted");
    t.failed(number, &FsError::from(FsCode::Io), now);
    assert!(t.error(fid(1), waiter).is_some_and(|e| e.code == FsCode::Io));
    assert!(t.error(fid(1), waiter).is_none(), "told once");
    assert_eq!(t.pick(WORKER, 0, true, now), None);
    t.want(fid(1), &remote, range);
    assert_eq!(t.pick(WORKER, 0, true, now), None, "not at once");
    let due = t.next_due().expect("tried again");
    assert!(t.pick(WORKER, 0, true, due).is_some());
}

// ---- with a file system ----

pub(super) fn start(dir: &std::path::Path, store: Arc<dyn Store>) -> Arc<FileSystem> {
    let info = FsInfo {
        id: FsId(1),
        name: "scratch".parse().expect("valid"),
        compression: Compression::None,
        created: Timestamp::now(),
    };
    let (time, disk) = (Duration::from_secs(60), Arc::new(MdtDisk::new(dir)));
    let mut registry = Registry::new(ClusterId([7; 16]), time, [], 1);
    let space = Space { total: 1 << 40, used: 0, available: 1 << 40, objects: 0 };
    let report = Report { uuid: OstUuid([9; 16]), index: None, space, failed: false, draining: false };
    registry.register("a:1", &[report], &[OstIndex(0)], true, Instant::now());
    let registry = Arc::new(RwLock::new(registry));
    Arc::new(FileSystem::start(info, store, (registry, disk), time, |e| panic!("{e}")).expect("starts"))
}

/// A file system with a client, two workers, and a link of `/d` that was looked at.
pub(super) async fn with_a_link(dir: &std::path::Path) -> (Arc<FileSystem>, RepositoryId, Fid) {
    let fs = start(dir, Arc::new(MemStore::default()));
    let format = Command::Format { uid: 0, gid: 0, mode: 0o755, layout: LayoutTemplate::default() };
    fs.submit(format).await.expect("formats");
    for (session, writer) in [(CLIENT, 0), (WORKER, 5), (OTHER, 6)] {
        fs.open_session(session, "x".into(), writer).await.expect("opens");
    }
    let mut settings = RepositorySettings::new("/d".parse().expect("path"), "s3://b".parse().expect("url"));
    settings.batch_import = true;
    let link = fs.create_repository(settings).await.expect("links");
    let check = take(&fs, WORKER, &[]).await;
    assert_eq!(check.work, Work::Check);
    let fine = Outcome::Check { message: String::new() };
    fs.finish(WORKER, check.number, fine.clone()).await.expect("takes");
    fs.finish(WORKER, check.number, fine).await.expect("takes it twice");
    assert_eq!(fs.repository(link.id).await.expect("there").state, RepositoryState::Available);
    (fs, link.id, link.root)
}

pub(super) const ONE: Capacity = Capacity { max: 1, ahead: 1 };
pub(super) const MANY: Capacity = Capacity { max: 64, ahead: 64 };

fn asked(fid: Fid, range: Extent, sequential: bool) -> Asked {
    Asked { fid, range, sequential, reading: false }
}

pub(super) async fn take(fs: &Arc<FileSystem>, session: SessionId, held: &[u64]) -> Assignment {
    loop {
        let mut given = fs.take_next(session, ONE, held, Duration::from_secs(20)).await.expect("takes");
        let given = given.pop().expect("there is work");
        if !looked_again(fs, session, &given).await {
            return given;
        }
    }
}

/// Something went wrong at a bucket that is in use, and it is looked at: there is nothing wrong with it.
async fn looked_again(fs: &Arc<FileSystem>, session: SessionId, given: &Assignment) -> bool {
    let in_use = fs.repository(given.repository).await.expect("there").state == RepositoryState::Available;
    if given.work != Work::Check || !in_use {
        return false;
    }
    fs.finish(session, given.number, Outcome::Check { message: String::new() }).await.expect("takes");
    true
}

pub(super) async fn nothing_to_take(fs: &Arc<FileSystem>, session: SessionId) {
    let given = fs.take_next(session, MANY, &[], Duration::ZERO).await.expect("takes");
    match &given[..] {
        [look] if looked_again(fs, session, look).await => {}
        other => assert_eq!(other, []),
    }
}

fn object(key: &str, size: u64) -> ImportedObject {
    ImportedObject {
        key: key.as_bytes().to_vec(),
        size,
        etag: "e".to_owned(),
        modified: Timestamp::default(),
        mode: Some(0o666),
        uid: None,
        gid: None,
        atime: None,
        mtime: None,
        symlink: None,
    }
}

/// Imports one file; gives its number.
pub(super) async fn imported(fs: &Arc<FileSystem>, root: Fid, size: u64) -> Fid {
    let import = take(fs, WORKER, &[]).await;
    assert_eq!(import.work, Work::Import { left: vec![KeyRange::ALL], sync: false });
    let page = ImportPage {
        from: Vec::new(),
        objects: vec![object("f", size)],
        after: b"f".to_vec(),
        skipped: Vec::new(),
        known: Vec::new(),
        last: true,
        stamp: 0,
    };
    let status = fs.import(WORKER, import.number, page.clone()).await.expect("imports").status;
    assert_eq!((status.state, status.created), (ImportState::Done, 1));
    assert_eq!(fs.import(WORKER, import.number, page).await.expect_err("over").code, FsCode::Stale);
    let name = sateen_types::Name::parse(b"f").expect("valid");
    let found = fs.ask(move |tx| namespace::lookup(tx, &Credential::ROOT, root, Some(&name))).await;
    found.expect("made").attr.fid
}

fn fetch(assignment: &Assignment) -> &Fetch {
    match &assignment.work {
        Work::Fetch(fetch) => fetch,
        other => panic!("{other:?}"),
    }
}

pub(super) fn outcome(result: FetchResult) -> Outcome {
    Outcome::Fetch(FetchOutcome { result, message: "why".to_owned(), allocated_delta: 4096 })
}

fn cut(session: SessionId, number: u64, file: Fid, size: u64) -> Request {
    let op = Mutation::SetAttr(SetAttr { size: Some(size), ..SetAttr::new(file) });
    Request { session, slot: 0, number, credential: Credential::ROOT, op, hold: false, open: 0, logged: None }
}

#[tokio::test]
async fn a_reader_waits_for_what_it_asks_for_and_the_rest_follows() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, _, root) = with_a_link(dir.path()).await;
    let file = imported(&fs, root, 10 * CHUNK).await;
    let (_, _, remote, _) = fs.open(CLIENT, Credential::ROOT, (file, 0), Access::READ).await.expect("opens");
    assert_eq!(remote, Some(Remote::none_loaded(10 * CHUNK)));
    let loading = tokio::spawn({
        let fs = fs.clone();
        async move { fs.load(CLIENT, asked(file, extent(CHUNK + 5, CHUNK + 9), true), Duration::from_secs(20)).await }
    });
    let first = take(&fs, WORKER, &[]).await;
    assert_eq!((fetch(&first).range, fetch(&first).urgent), (extent(CHUNK, 2 * CHUNK), true));
    assert!(fetch(&first).layout.is_instantiated(CHUNK, CHUNK));
    nothing_to_take(&fs, OTHER).await;
    assert_eq!(fs.hsm_state(CLIENT, file).await.expect("known").action, HsmAction::Restore);
    assert!(!loading.is_finished());
    fs.finish(WORKER, first.number, outcome(FetchResult::Loaded)).await.expect("takes");
    let Loaded { remote, layout, .. } = loading.await.expect("runs").expect("loads");
    let ahead = take(&fs, OTHER, &[]).await;
    assert_eq!((fetch(&ahead).range, fetch(&ahead).urgent), (extent(2 * CHUNK, 10 * CHUNK), false));
    assert_eq!(remote.expect("not all").loaded(), [extent(CHUNK, 2 * CHUNK)]);
    assert!(layout.is_instantiated(CHUNK, CHUNK));
    fs.finish(OTHER, ahead.number, outcome(FetchResult::Loaded)).await.expect("takes");
    // What is left is asked for and given; then the file is like any other.
    fs.hsm_request(CLIENT, Credential::ROOT, file, HsmOperation::Restore).await.expect("asks");
    let last = take(&fs, WORKER, &[]).await;
    assert_eq!(fetch(&last).range, extent(0, CHUNK));
    fs.finish(WORKER, last.number, outcome(FetchResult::Loaded)).await.expect("takes");
    let state = fs.hsm_state(CLIENT, file).await.expect("known");
    assert_eq!((state.flags.to_string().as_str(), state.action), ("(0x00000009) exists archived", HsmAction::None));
    let Loaded { remote, .. } =
        fs.load(CLIENT, asked(file, extent(0, 1), false), Duration::ZERO).await.expect("at once");
    assert_eq!(remote, None);
    nothing_to_take(&fs, WORKER).await;
    let busy = fs.hsm_request(CLIENT, Credential::ROOT, file, HsmOperation::Release).await;
    assert_eq!(busy.expect_err("open").code, FsCode::Busy);
    fs.close(CLIENT, &[(file, 0)], 0).await.expect("closes");
    fs.hsm_request(CLIENT, Credential::ROOT, file, HsmOperation::Release).await.expect("releases");
    assert!(fs.hsm_state(CLIENT, file).await.expect("known").flags.has(HsmFlags::RELEASED));
}

#[tokio::test]
async fn what_a_worker_had_is_given_to_another_when_its_session_has_ended() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, _, root) = with_a_link(dir.path()).await;
    let file = imported(&fs, root, CHUNK).await;
    fs.hsm_request(CLIENT, Credential::ROOT, file, HsmOperation::Restore).await.expect("asks");
    let first = take(&fs, WORKER, &[]).await;
    nothing_to_take(&fs, OTHER).await;
    fs.begin_ending_of(WORKER).expect("lives");
    nothing_to_take(&fs, OTHER).await;
    let late = fs.finish(WORKER, first.number, outcome(FetchResult::Loaded)).await;
    assert_eq!(late.expect_err("it is being ended").code, FsCode::Stale);
    // Shut out at the OSTs by now.
    fs.close_session(WORKER).await.expect("ends");
    let second = take(&fs, OTHER, &[]).await;
    assert_eq!(fetch(&second).range, fetch(&first).range);
    assert!(second.number > first.number);
    // It never heard of that: it is told again, under another number.
    let third = take(&fs, OTHER, &[]).await;
    assert_eq!(fetch(&third).range, fetch(&first).range);
    assert_eq!(
        fs.finish(OTHER, second.number, outcome(FetchResult::Loaded)).await.expect_err("not that one").code,
        FsCode::Stale
    );
    fs.finish(OTHER, third.number, outcome(FetchResult::Loaded)).await.expect("takes");
}

#[tokio::test]
async fn a_reader_has_what_is_stored_and_one_who_changes_waits_until_it_is_durable() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, _, root) = with_a_link(dir.path()).await;
    let file = imported(&fs, root, 4 * CHUNK).await;
    let changing = asked(file, extent(0, 2 * CHUNK), true);
    let reading = Asked { reading: true, ..changing };
    let waits = |asked| {
        let fs = fs.clone();
        tokio::spawn(async move { fs.load(CLIENT, asked, Duration::from_secs(20)).await })
    };
    let (reads, changes) = (waits(reading), waits(changing));
    // Nobody waits for the rest: it is not given to one who has no room for that.
    let work = fs.take_next(WORKER, Capacity { max: 64, ahead: 0 }, &[], Duration::from_secs(20)).await.expect("takes");
    let [work] = &work[..] else { panic!("{work:?}") };
    assert_eq!((fetch(work).range, fetch(work).urgent), (extent(0, 2 * CHUNK), true));
    let verifiers = vec![(OstIndex(0), Verifier([7; 16]))];
    assert_eq!(fs.filled(OTHER, work.number, verifiers.clone()).expect_err("another's").code, FsCode::Stale);
    assert!(!reads.is_finished());
    fs.filled(WORKER, work.number, verifiers.clone()).expect("its own");
    let Loaded { remote, filled, .. } = reads.await.expect("runs").expect("is there");
    assert_eq!(remote, Some(Remote::none_loaded(4 * CHUNK)));
    assert_eq!(filled, [Filled { range: extent(0, 2 * CHUNK), verifiers }]);
    assert!(!changes.is_finished());
    let early = fs.load(CLIENT, Asked { range: extent(CHUNK, 3 * CHUNK), ..reading }, Duration::ZERO).await;
    assert_eq!(early.expect("told what there is").filled.len(), 1, "though that is not all");
    fs.finish(WORKER, work.number, outcome(FetchResult::Loaded)).await.expect("takes");
    let Loaded { remote, filled, .. } = changes.await.expect("runs").expect("loads");
    assert_eq!((remote.expect("not all").loaded(), filled.len()), (&[extent(0, 2 * CHUNK)][..], 0));
    assert_eq!(fs.filled(WORKER, work.number, Vec::new()).expect_err("over").code, FsCode::Stale);
    // What is given back is not there any more.
    let rest = take(&fs, WORKER, &[]).await;
    fs.filled(WORKER, rest.number, vec![(OstIndex(0), Verifier([8; 16]))]).expect("its own");
    assert_eq!(fs.shared.repositories.lock().filled(file).len(), 1);
    fs.take_next(WORKER, Capacity { max: 1, ahead: 0 }, &[], Duration::ZERO).await.expect("says that it has nothing");
    assert_eq!(fs.shared.repositories.lock().filled(file), []);
}

#[tokio::test]
async fn errors_are_told_to_those_who_wait_and_asking_again_tries_again() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, _, root) = with_a_link(dir.path()).await;
    let file = imported(&fs, root, CHUNK).await;
    for result in [FetchResult::Failed, FetchResult::Gone, FetchResult::Changed] {
        let loading = tokio::spawn({
            let fs = fs.clone();
            async move { fs.load(CLIENT, asked(file, extent(0, 1), false), Duration::from_secs(20)).await }
        });
        let work = take(&fs, WORKER, &[]).await;
        fs.finish(WORKER, work.number, outcome(result)).await.expect("takes");
        let error = loading.await.expect("runs").expect_err("fails");
        assert_eq!(error.code, FsCode::Io);
        assert!(error.hint.is_some());
        let lost = fs.hsm_state(CLIENT, file).await.expect("known").flags.has(HsmFlags::LOST);
        assert_eq!(lost, result != FetchResult::Failed);
    }
}

#[tokio::test]
async fn cutting_to_nothing_waits_for_workers_and_then_nothing_is_fetched() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, _, root) = with_a_link(dir.path()).await;
    // More than one assignment has.
    let file = imported(&fs, root, 200 * CHUNK).await;
    fs.hsm_request(CLIENT, Credential::ROOT, file, HsmOperation::Restore).await.expect("asks");
    let work = take(&fs, WORKER, &[]).await;
    let cutting = tokio::spawn({
        let fs = fs.clone();
        async move { fs.execute(cut(CLIENT, 1, file, 0)).await }
    });
    while !fs.shared.repositories.lock().is_closed(file) {
        tokio::task::yield_now().await;
    }
    assert_eq!(fs.take_next(WORKER, MANY, &[work.number], Duration::ZERO).await.expect("takes"), [], "nothing new");
    assert!(!cutting.is_finished());
    fs.finish(WORKER, work.number, outcome(FetchResult::Loaded)).await.expect("takes");
    // Objects that were written are cut; no OST answers here, so this is done by hand.
    let done = async {
        loop {
            let rows = fs.read(|tx| tx.scan(crate::store::Table::Intents, b"t", None, 10)).await.expect("reads");
            if let Some((key, _)) = rows.first() {
                let id = crate::store::keys::parse_intent(key).expect("a truncate");
                fs.submit(Command::IntentsDone { done: vec![(id, -4096)] }).await.expect("finishes");
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    let (cut, ()) = tokio::join!(cutting, done);
    let (reply, ..) = cut.expect("runs").expect("cuts");
    assert!(matches!(reply, MutationReply::Attr(attr) if attr.size == 0));
    nothing_to_take(&fs, WORKER).await;
    let Loaded { remote, .. } =
        fs.load(CLIENT, asked(file, extent(0, 1), true), Duration::ZERO).await.expect("at once");
    assert_eq!(remote, None);
    nothing_to_take(&fs, WORKER).await;
}

#[tokio::test]
async fn a_file_that_a_worker_writes_to_is_not_destroyed_under_it() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, _, root) = with_a_link(dir.path()).await;
    let file = imported(&fs, root, CHUNK).await;
    fs.hsm_request(CLIENT, Credential::ROOT, file, HsmOperation::Restore).await.expect("asks");
    let work = take(&fs, WORKER, &[]).await;
    let release = fs.hsm_request(CLIENT, Credential::ROOT, file, HsmOperation::Release).await;
    assert_eq!(release.expect_err("being loaded").code, FsCode::Busy);
    let op = Mutation::Unlink { parent: root, name: sateen_types::Name::parse(b"f").expect("valid") };
    let request = Request { op, ..cut(CLIENT, 1, file, 0) };
    fs.execute(request).await.expect("removes the name");
    fs.ask(move |tx| namespace::get_attr(tx, file)).await.expect("the file is there");
    fs.finish(WORKER, work.number, outcome(FetchResult::Loaded)).await.expect("takes");
    assert_eq!(fs.ask(move |tx| namespace::get_attr(tx, file)).await.expect_err("gone").code, FsCode::Stale);
}

#[tokio::test]
async fn a_restarted_server_goes_on_where_it_was() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, id, _) = with_a_link(dir.path()).await;
    let import = take(&fs, WORKER, &[]).await;
    let objects = vec![object("a", CHUNK), object("b", CHUNK)];
    let page = ImportPage {
        from: Vec::new(),
        objects,
        after: b"b".to_vec(),
        skipped: Vec::new(),
        known: Vec::new(),
        last: false,
        stamp: 0,
    };
    fs.import(WORKER, import.number, page.clone()).await.expect("imports");
    let name = sateen_types::Name::parse(b"a").expect("valid");
    let root = fs.repository(id).await.expect("there").root;
    let found = fs.ask(move |tx| namespace::lookup(tx, &Credential::ROOT, root, Some(&name))).await;
    let file = found.expect("made").attr.fid;
    fs.hsm_request(CLIENT, Credential::ROOT, file, HsmOperation::Restore).await.expect("asks");
    let store = fs.store.clone();
    drop(fs);
    let fs = start(dir.path(), store);
    for session in [CLIENT, WORKER, OTHER] {
        fs.renew(session, Some(&[]), 0).await.expect("lives");
    }
    assert_eq!(fs.import(WORKER, import.number, page).await.expect_err("of another life").code, FsCode::Stale);
    let again = fs.take_next(WORKER, MANY, &[import.number], Duration::ZERO).await.expect("takes");
    let [again] = &again[..] else { panic!("{again:?}") };
    assert_eq!(again.work, Work::Import { left: vec![KeyRange { after: b"b".to_vec(), end: None }], sync: false });
    let given = fs.take_next(WORKER, MANY, &[again.number], Duration::from_secs(20)).await.expect("takes");
    assert_eq!(fetch(&given[0]).fid, file, "a restore is remembered, and nobody else can be writing");
}

#[tokio::test]
async fn a_link_is_ended_when_nothing_depends_on_it_or_by_force() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, id, root) = with_a_link(dir.path()).await;
    let file = imported(&fs, root, CHUNK).await;
    assert_eq!(fs.delete_repository(id, false).await.expect_err("in use").code, FsCode::Busy);
    let check = take(&fs, WORKER, &[]).await;
    assert_eq!(check.work, Work::Check, "it is looked at again");
    fs.finish(WORKER, check.number, Outcome::Check { message: "no such bucket".to_owned() }).await.expect("takes");
    let link = fs.repository(id).await.expect("there");
    assert_eq!((link.state, link.message.as_str()), (RepositoryState::Misconfigured, "no such bucket"));
    fs.delete_repository(id, true).await.expect("ends");
    assert_eq!(fs.repository(id).await.expect_err("gone").code, FsCode::NotFound);
    let read = fs.load(CLIENT, asked(file, extent(0, 1), false), Duration::ZERO).await;
    assert_eq!(read.expect_err("nowhere to load it from").code, FsCode::Io);
    assert_eq!(fs.hsm_state(CLIENT, file).await.expect("known").repository, None);
}

#[tokio::test]
async fn a_session_that_could_not_be_shut_out_is_no_worker() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, ..) = with_a_link(dir.path()).await;
    assert_eq!(fs.take_next(CLIENT, ONE, &[], Duration::ZERO).await.expect_err("no writer").code, FsCode::Invalid);
}
