//! Commits while other writers are under way, and the process killed then: what was committed is whole, what was
//! answered is there, what was not is given back.

use std::sync::atomic::AtomicBool;

use super::super::Resize;
use super::super::crashing::index_image;
use super::super::disk::SegmentId;
use super::super::keys::META_SETTLED_NOTED;
use super::super::rebuild::rebuild;
use super::super::records::SegmentPlace;
use super::super::write::Run;
use super::*;

const BYTES: usize = 9_000;

fn put_noise(store: &Store, oid: u32) {
    put(store, object(oid), 0, &noise(u64::from(oid), BYTES)).expect("written");
}

fn reads_noise(store: &Store, oid: u32) -> bool {
    get(store, object(oid), 0, BYTES as u32, true).expect("whole") == noise(u64::from(oid), BYTES)
}

/// The process is killed: nothing more happens to what its writers have begun.
fn kill(store: Store) {
    drop(store);
}

#[test]
fn what_is_committed_behind_a_write_that_is_under_way_survives_a_kill() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path());
    let slow = store.segments.reserve(CHUNK).expect("a place");
    slow.write(0, &mut [std::io::IoSlice::new(&noise(9, CHUNK as usize))]).expect("written");
    put_noise(&store, 1);
    store.commit().expect("committed");
    std::mem::forget(slow);
    kill(store);
    let before = disk_usage(&dir.path().join("segments"));
    let store = open(dir.path());
    assert!(reads_noise(&store, 1));
    assert!(disk_usage(&dir.path().join("segments")) + CHUNK <= before, "what was never answered is given back");
    assert!(store.index.frees().expect("rows").is_empty());
}

#[test]
fn a_write_that_a_commit_has_overtaken_is_answered_and_survives_a_kill() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path());
    let slow = store.segments.reserve(CHUNK).expect("a place");
    let mut run = Run { reservation: &slow, at: 0 };
    let record = store.store_chunk(&noise(2, BYTES), Compression::None, &mut run).expect("written");
    let used = run.at;
    put_noise(&store, 1);
    store.commit().expect("committed");
    let locked = store.lock(&object(2));
    let changes = [(0, Some(record))];
    store
        .apply(&locked, CHUNK_LOG2, &changes, Resize::AtLeast(BYTES as u64), Some(slow.shrink(used)))
        .expect("answered");
    drop(locked);
    put_noise(&store, 3);
    kill(store);
    let store = open(dir.path());
    assert!((1..=3).all(|oid| reads_noise(&store, oid)));
    store.commit().expect("committed");
    drop(store);
    let store = open(dir.path());
    assert!((1..=3).all(|oid| reads_noise(&store, oid)));
}

#[test]
fn what_an_overtaken_writer_does_not_need_is_nobody_elses() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path());
    let slow = store.segments.reserve(CHUNK).expect("a place");
    // The end of a commit that had written its run before.
    let mut batch = store.index.batch();
    store.segments.settle(&mut batch, 0);
    store.index.write(batch).expect("written");
    let slow = slow.shrink(4096);
    put_noise(&store, 1);
    store.commit().expect("committed");
    std::mem::forget(slow);
    kill(store);
    assert!(reads_noise(&open(dir.path()), 1));
}

#[test]
fn a_segment_whose_last_writer_gives_up_is_deleted_by_the_next_commit() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path());
    let slow = store.segments.reserve(SEGMENT_BYTES).expect("a segment of its own");
    put_noise(&store, 1);
    store.commit().expect("committed");
    assert_eq!(store.segments.list().expect("listed"), [1, 2].map(SegmentId));
    drop(slow);
    put_noise(&store, 2);
    store.commit().expect("committed");
    assert_eq!(store.segments.list().expect("listed"), [SegmentId(2)]);
    assert!(store.index.frees().expect("rows").is_empty());
}

#[test]
fn a_settled_place_before_committed_data_as_earlier_builds_left_it_costs_nothing() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path());
    put_noise(&store, 1);
    store.commit().expect("committed");
    put_noise(&store, 2);
    store.commit().expect("committed");
    put_noise(&store, 3);
    // The last commit was of a build that knows nothing of the note.
    let mut batch = store.index.batch();
    batch.set_settled(SegmentPlace { segment: SegmentId(1), offset: 4096 }, 2);
    batch.set_meta(META_SETTLED_NOTED, 1);
    store.index.write(batch).expect("written");
    assert!(!store.index.settled_is_noted().expect("read"));
    kill(store);
    let store = open(dir.path());
    assert!((1..=3).all(|oid| reads_noise(&store, oid)));
    assert!(store.index.settled_is_noted().expect("read"), "asked once");
}

#[test]
fn an_index_that_has_lost_commits_is_refused_before_anything_is_given_back() {
    let dir = tempfile::tempdir().expect("temp dir");
    let index = dir.path().join("index");
    let store = open(dir.path());
    put_noise(&store, 1);
    store.commit().expect("committed");
    let old = index_image(&index);
    for oid in 2..=3 {
        put_noise(&store, oid);
        store.commit().expect("committed");
    }
    kill(store);
    std::fs::remove_dir_all(&index).expect("removed");
    std::fs::remove_file(dir.path().join("index.mark")).expect("removed");
    std::fs::create_dir(&index).expect("made");
    old.iter().for_each(|(name, bytes)| std::fs::write(index.join(name), bytes).expect("written"));
    let refused = Store::open(dir.path(), options(None, 1)).err().expect("refused");
    assert!(refused.message.contains("ends with commit 1") && refused.hint.is_some(), "{refused}");
    let disk = RealDisk::existing(&dir.path().join("segments"));
    let report = rebuild(dir.path(), &disk, &options(None, 1).owner, &IndexCache::new(32 << 20)).expect("rebuilt");
    assert!(report.is_whole(), "{report:?}");
    let store = open(dir.path());
    assert!((1..=3).all(|oid| reads_noise(&store, oid)));
}

#[test]
fn what_was_answered_while_threads_committed_survives_a_kill() {
    const THREADS: u32 = 4;
    let data = |oid: u32, version: u32| noise(u64::from(oid) << 32 | u64::from(version), BYTES);
    let dir = tempfile::tempdir().expect("temp dir");
    for round in 0..10 {
        let store = open(dir.path());
        let stop = AtomicBool::new(false);
        let answered: Vec<u32> = std::thread::scope(|scope| {
            let work = |oid: u32| {
                let (store, stop) = (&store, &stop);
                let work = move || {
                    let mut version = round * 1000;
                    while !stop.load(Ordering::Acquire) {
                        version += 1;
                        put(store, object(oid), 0, &data(oid, version)).expect("written");
                        if version.is_multiple_of(oid + 1) {
                            store.commit().expect("committed");
                        }
                        if oid == 1 && version == round * 1000 + 20 {
                            stop.store(true, Ordering::Release);
                        }
                    }
                    version
                };
                scope.spawn(work)
            };
            let threads: Vec<_> = (1..=THREADS).map(work).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        kill(store);
        let store = open(dir.path());
        for (oid, version) in (1..=THREADS).zip(answered) {
            let read = get(&store, object(oid), 0, BYTES as u32, true).expect("whole");
            assert!(read == data(oid, version), "round {round}, object {oid}, version {version}");
        }
    }
}
