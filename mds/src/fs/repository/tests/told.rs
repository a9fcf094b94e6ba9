//! What workers tell by themselves, comparisons that are due, and files that are open for writing.

use sateen_types::Using;
use sateen_types::repository::{EventsPage, RepositoryEvents};

use super::*;
use crate::fs::Stated;
use crate::fs::repository::table::{WATCH_SILENT_MAX, Wanted};
use sateen_types::repository::RepositoryChange;

const EVERY: RepositoryEvents = RepositoryEvents { created: true, changed: true, deleted: true };

fn told(id: RepositoryId, number: u64, stamp: u64, objects: Vec<ImportedObject>, gone: &[&str]) -> EventsPage {
    let gone = gone.iter().map(|key| key.as_bytes().to_vec()).collect();
    EventsPage { repository: id, number, stamp, objects, gone, message: String::new() }
}

async fn everything_by_itself(fs: &FileSystem, id: RepositoryId) {
    let source = Some("listen".parse().expect("valid"));
    let update = RepositoryChange { auto_import: Some(EVERY), event_source: source, ..RepositoryChange::default() };
    fs.update_repository(id, update).await.expect("changes");
}

async fn find(fs: &FileSystem, root: Fid, name: &str) -> Option<Fid> {
    let name = sateen_types::Name::parse(name.as_bytes()).expect("valid");
    let found = fs.ask(move |tx| namespace::lookup(tx, &Credential::ROOT, root, Some(&name))).await;
    found.ok().map(|named| named.attr.fid)
}

/// Takes the Watch; others of its kind are not given out meanwhile.
async fn watch(fs: &Arc<FileSystem>) -> Assignment {
    let watch = take(fs, WORKER, &[]).await;
    assert_eq!(watch.work, Work::Watch);
    watch
}

#[tokio::test]
async fn what_is_told_of_a_bucket_is_carried_over_and_what_was_seen_before_is_looked_at_again() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, id, root) = with_a_link(dir.path()).await;
    imported(&fs, root, CHUNK).await;
    everything_by_itself(&fs, id).await;
    let watch = watch(&fs).await;
    let old = watch.stamp;
    let done = fs.events(WORKER, told(id, watch.number, old, vec![object("new", 5)], &["f"])).await.expect("takes");
    assert_eq!((done.created, done.changed, done.deleted, done.later.len()), (1, 0, 1, 0));
    assert!(find(&fs, root, "new").await.is_some() && find(&fs, root, "f").await.is_none());
    assert!(done.stamp > old);
    // It was seen before all that.
    let late = fs.events(WORKER, told(id, 0, old, vec![object("f", CHUNK)], &["new"])).await.expect("takes");
    assert_eq!((late.created, late.deleted), (0, 0));
    assert_eq!(late.later, [b"new".to_vec(), b"f".to_vec()]);
    let again = fs.events(WORKER, told(id, 0, late.stamp, vec![object("f", CHUNK)], &["new"])).await.expect("takes");
    assert_eq!((again.created, again.deleted, again.later.len()), (1, 1, 0));
    let strange = fs.events(WORKER, told(id, 0, u64::MAX, vec![object("x", 1)], &[])).await;
    assert_eq!(strange.expect_err("never given").code, FsCode::Invalid);
    let link = fs.repository(id).await.expect("there");
    assert!(link.watched.is_some() && link.watch_message.is_empty());
}

#[tokio::test]
async fn looks_from_before_a_restart_are_made_again() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, id, root) = with_a_link(dir.path()).await;
    let import = take(&fs, WORKER, &[]).await;
    everything_by_itself(&fs, id).await;
    let old = fs.stamp().await.expect("gives");
    let store = fs.store.clone();
    drop(fs);
    let fs = start(dir.path(), store);
    for session in [CLIENT, WORKER, OTHER] {
        fs.renew(session, Some(&[]), 0).await.expect("lives");
    }
    assert!(fs.stamp().await.expect("gives") > old && import.stamp < old);
    let done = fs.events(WORKER, told(id, 0, old, vec![object("x", 1)], &["y"])).await.expect("takes");
    assert_eq!((done.created, done.later.len()), (0, 2));
    let given = fs.take_next(WORKER, MANY, &[], Duration::ZERO).await.expect("takes");
    let import = given.iter().find(|a| matches!(a.work, Work::Import { .. })).expect("goes on");
    let page = |stamp| ImportPage {
        from: Vec::new(),
        objects: vec![object("x", 1)],
        after: b"x".to_vec(),
        skipped: Vec::new(),
        known: Vec::new(),
        last: true,
        stamp,
    };
    let done = fs.import(WORKER, import.number, page(old)).await.expect("answers");
    assert!(done.again && find(&fs, root, "x").await.is_none());
    let done = fs.import(WORKER, import.number, page(done.stamp)).await.expect("imports");
    assert!(!done.again && find(&fs, root, "x").await.is_some());
}

#[tokio::test]
async fn a_comparison_takes_names_away_whose_objects_are_gone() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, id, root) = with_a_link(dir.path()).await;
    let first = take(&fs, WORKER, &[]).await;
    let objects: Vec<_> = ["d/", "d/x", "f", "g"].iter().map(|key| object(key, 0)).collect();
    let page = ImportPage {
        from: Vec::new(),
        objects,
        after: b"g".to_vec(),
        skipped: Vec::new(),
        known: Vec::new(),
        last: true,
        stamp: first.stamp,
    };
    fs.import(WORKER, first.number, page).await.expect("imports");
    fs.start_import(id, true).await.expect("starts");
    let sync = take(&fs, WORKER, &[]).await;
    assert_eq!(sync.work, Work::Import { left: vec![KeyRange::ALL], sync: true });
    let objects = vec![object("f", 0)];
    let page = ImportPage {
        from: Vec::new(),
        objects,
        after: b"f".to_vec(),
        skipped: Vec::new(),
        known: Vec::new(),
        last: true,
        stamp: sync.stamp,
    };
    fs.import(WORKER, sync.number, page).await.expect("imports");
    assert!(find(&fs, root, "f").await.is_some());
    assert!(find(&fs, root, "g").await.is_none() && find(&fs, root, "d").await.is_none());
    assert!(fs.repository(id).await.expect("there").synced.is_some());
}

#[test]
fn comparisons_are_due_once_and_watches_go_to_another_when_their_worker_is_silent() {
    let now = Instant::now();
    let mut t = LoadTable::new(1, []);
    let later = now + Duration::from_secs(60);
    let wanted = |watch: &str| Wanted { sync_at: Some(later), watch: Some(watch.to_owned()), ..Wanted::default() };
    t.set_jobs(LINK, wanted("listen"), now);
    assert_eq!((t.take_due_sync(now), t.next_due()), (None, Some(later)));
    assert_eq!((t.take_due_sync(later), t.take_due_sync(later)), (Some(LINK), None));
    let (first, task) = t.pick(WORKER, 0, true, now).expect("is to be watched");
    assert_eq!(task, Task::Watch(LINK));
    assert_eq!(t.pick(OTHER, 0, true, now), None, "one is enough");
    assert!(t.heard(WORKER, first, LINK, now + WATCH_SILENT_MAX) && !t.heard(OTHER, first, LINK, now));
    let silent = now + 2 * WATCH_SILENT_MAX + Duration::from_secs(1);
    let (second, _) = t.pick(OTHER, 0, true, silent).expect("nobody watches");
    assert!(!t.heard(WORKER, first, LINK, silent) && t.heard(OTHER, second, LINK, silent));
    t.set_jobs(LINK, wanted("sqs:http://h/q"), silent);
    assert!(!t.heard(OTHER, second, LINK, silent), "another source");
    let (third, _) = t.pick(OTHER, 0, true, silent).expect("by that one");
    t.cannot_watch(third, silent);
    assert_eq!(t.pick(OTHER, 0, true, silent), None, "not at once");
    assert!(t.pick(OTHER, 0, true, silent + Duration::from_secs(31)).is_some(), "after a while");
}

#[test]
fn a_take_that_comes_late_says_nothing() {
    let now = Instant::now();
    let mut t = LoadTable::new(100, [OTHER]);
    let first = t.turn(WORKER, 0).expect_err("nobody knows it yet");
    let second = t.turn(WORKER, first).expect("its turn");
    assert_eq!(t.turn(WORKER, first), Err(second), "the same once more, or an answer that was lost");
    assert_eq!(t.turn(WORKER, 0), Err(second), "one that was on its way since the session began");
    assert!(t.is_next_turn(WORKER, second) && !t.is_next_turn(WORKER, first));
    let third = t.turn(WORKER, second).expect("its turn");
    assert!(first < second && second < third && !t.is_next_turn(WORKER, second));
    // One of an earlier life of the server settles nothing.
    assert!(t.turn(OTHER, 99).is_err() && !t.is_settled());
    t.end_session(WORKER, now);
    assert!(!t.is_next_turn(WORKER, third) && t.turn(WORKER, third).is_err());
}

#[tokio::test]
async fn what_a_late_take_does_not_name_stays_where_it_is() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, _, root) = with_a_link(dir.path()).await;
    let file = imported(&fs, root, CHUNK).await;
    fs.hsm_request(CLIENT, Credential::ROOT, file, HsmOperation::Restore).await.expect("asks");
    let (_, late) = fs.take(WORKER, 0, MANY, &[], Duration::ZERO).await.expect("tells the turn");
    let (given, turn) = fs.take(WORKER, late, MANY, &[], Duration::ZERO).await.expect("its turn");
    let number = given.first().expect("the range").number;
    assert_eq!(fs.take(WORKER, late, MANY, &[], Duration::ZERO).await, Ok((Vec::new(), turn)));
    nothing_to_take(&fs, OTHER).await;
    fs.finish(WORKER, number, outcome(FetchResult::Loaded)).await.expect("it is still its own");
    assert!(!flags(&fs, file).await.has(HsmFlags::RELEASED));
}

#[tokio::test]
async fn what_is_loaded_is_so_also_when_its_object_was_copied_meanwhile() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, _, root) = with_a_link(dir.path()).await;
    let file = imported(&fs, root, CHUNK).await;
    fs.hsm_request(CLIENT, Credential::ROOT, file, HsmOperation::Restore).await.expect("asks");
    take(&fs, WORKER, &[]).await;
    let whole = Extent { start: 0, end: CHUNK };
    fs.record_loaded(file, whole, "as it was asked before".to_owned(), 4096).await.expect("records");
    assert!(!flags(&fs, file).await.has(HsmFlags::RELEASED));
}

#[test]
fn a_restore_that_fails_is_tried_again() {
    let now = Instant::now();
    let mut t = LoadTable::new(1, []);
    t.restore(fid(1), LINK, &Remote::none_loaded(CHUNK), now).expect("room");
    for _ in 0..20 {
        let due = t.next_due().unwrap_or(now);
        let (number, _) = t.pick(WORKER, 0, true, due).expect("wanted");
        t.failed(number, &FsError::from(FsCode::Io), due);
        assert_eq!(t.pick(WORKER, 0, true, due), None, "not at once");
        assert!(t.next_due().is_some_and(|at| at <= due + Duration::from_secs(60)));
    }
    t.forget_restore(fid(1));
    let due = t.next_due().expect("waits");
    let (number, _) = t.pick(WORKER, 0, true, due).expect("wanted still");
    t.failed(number, &FsError::from(FsCode::Io), due);
    assert_eq!(t.next_due().and_then(|at| t.pick(WORKER, 0, true, at)), None, "nobody wants it any more");
}

/// A file that is loaded in full.
async fn loaded(fs: &Arc<FileSystem>, root: Fid) -> Fid {
    let file = imported(fs, root, CHUNK).await;
    fs.hsm_request(CLIENT, Credential::ROOT, file, HsmOperation::Restore).await.expect("asks");
    let work = take(fs, WORKER, &[]).await;
    fs.finish(WORKER, work.number, outcome(FetchResult::Loaded)).await.expect("takes");
    file
}

async fn release(fs: &Arc<FileSystem>, file: Fid) -> Result<(), FsCode> {
    fs.hsm_request(CLIENT, Credential::ROOT, file, HsmOperation::Release).await.map_err(|e| e.code)
}

async fn flags(fs: &FileSystem, file: Fid) -> HsmFlags {
    fs.hsm_state(CLIENT, file).await.expect("known").flags
}

#[tokio::test]
async fn a_file_that_was_opened_for_writing_is_clean_again_only_when_it_was_closed_in_order() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, _, root) = with_a_link(dir.path()).await;
    let file = loaded(&fs, root).await;
    let write = Access { read: true, write: true, exec: false };
    fs.open(CLIENT, Credential::ROOT, (file, 0), write).await.expect("opens");
    fs.open(OTHER, Credential::ROOT, (file, 0), write).await.expect("opens");
    fs.close(CLIENT, &[(file, 0)], 0).await.expect("closes");
    let opened = fs.ask(move |tx| namespace::repository::opened::is_opened(tx, file)).await;
    assert_eq!(opened, Ok(true), "the other one has it");
    fs.close(OTHER, &[(file, 0)], 0).await.expect("closes");
    assert!(!flags(&fs, file).await.has(HsmFlags::DIRTY));
    assert_eq!(release(&fs, file).await, Ok(()));
    // One that dies with it open may have written.
    let file = {
        fs.hsm_request(CLIENT, Credential::ROOT, file, HsmOperation::Restore).await.expect("asks");
        let work = take(&fs, WORKER, &[]).await;
        fs.finish(WORKER, work.number, outcome(FetchResult::Loaded)).await.expect("takes");
        file
    };
    fs.open(OTHER, Credential::ROOT, (file, 0), write).await.expect("opens");
    fs.begin_ending_of(OTHER).expect("lives");
    fs.close_session(OTHER).await.expect("ends");
    assert!(flags(&fs, file).await.has(HsmFlags::DIRTY));
    assert_eq!(release(&fs, file).await, Err(FsCode::Invalid));
}

#[tokio::test]
async fn after_a_restart_opened_files_are_clean_only_if_every_client_has_spoken() {
    for lost in [false, true] {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (fs, _, root) = with_a_link(dir.path()).await;
        let file = loaded(&fs, root).await;
        let write = Access { read: true, write: true, exec: false };
        fs.open(OTHER, Credential::ROOT, (file, 0), write).await.expect("opens");
        let store = fs.store.clone();
        drop(fs);
        let fs = start(dir.path(), store);
        fs.renew(CLIENT, Some(&[]), 0).await.expect("lives");
        fs.renew(WORKER, Some(&[]), 0).await.expect("lives");
        nothing_to_take(&fs, WORKER).await;
        assert_ne!(release(&fs, file).await, Ok(()), "nobody knows yet");
        if lost {
            fs.begin_ending_of(OTHER).expect("known");
            fs.close_session(OTHER).await.expect("ends");
        } else {
            let keeps = sateen_types::Capability::None;
            let open = Stated { fid: file, number: 0, using: Using::Writing, keeps };
            fs.renew(OTHER, Some(&[open]), 0).await.expect("lives");
            assert_ne!(release(&fs, file).await, Ok(()), "it is open");
            fs.close(OTHER, &[(file, 0)], 1).await.expect("closes");
        }
        assert_eq!(flags(&fs, file).await.has(HsmFlags::DIRTY), lost);
        assert_eq!(release(&fs, file).await.is_ok(), !lost);
    }
}

#[tokio::test]
async fn a_link_whose_end_was_broken_off_by_a_restart_stays() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, id, _) = with_a_link(dir.path()).await;
    fs.submit(Command::Repository(Box::new(namespace::repository::Change::BeginDelete { id }))).await.expect("begins");
    let store = fs.store.clone();
    drop(fs);
    let fs = start(dir.path(), store);
    assert_eq!(fs.repository(id).await.expect("there").state, RepositoryState::Creating, "it is looked at again");
}
