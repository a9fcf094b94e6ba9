//! Segments that go while others write: what their journal said is not lost with them.

use super::super::crashing::{Call, IndexImage, index_image, watch};
use super::super::disk::SegmentId;
use super::super::rebuild::rebuild;
use super::super::segments::HEADER_BYTES;
use super::*;

/// What a commit of few changes takes of a segment.
const RUN: u64 = 4096;

fn put_whole(store: &Store, oid: u32, seed: u64, len: u64) {
    store.write(sealed(object(oid), 0, &noise(seed, len as usize), Compression::None)).expect("written");
}

fn reads(store: &Store, oid: u32, seed: u64, len: u64) -> bool {
    get(store, object(oid), 0, len as u32, true).expect("whole") == noise(seed, len as usize)
}

fn segments(dir: &Path) -> Vec<SegmentId> {
    let mut list = RealDisk::existing(&dir.join("segments")).list().expect("listed");
    list.sort_unstable();
    list
}

#[test]
fn a_record_that_only_an_uncommitted_change_hides_does_not_go_with_its_segment() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path());
    let most = (SEGMENT_BYTES - HEADER_BYTES) / CHUNK * CHUNK;
    // Object 2 fills the first segment, so that its record is the first of the second.
    put_whole(&store, 1, 1, most);
    store.commit().expect("committed");
    let rest = SEGMENT_BYTES - HEADER_BYTES - most - RUN;
    put_whole(&store, 2, 2, rest);
    store.commit().expect("committed");
    // The second segment is filled, and then empty but for its journal.
    put_whole(&store, 3, 3, most);
    store.commit().expect("committed");
    put_whole(&store, 4, 4, CHUNK);
    assert_eq!(segments(dir.path()), [1, 2, 3].map(SegmentId), "as laid out above");
    store.punch(&object(3), CHUNK_LOG2, 0, most, None).expect("punched");
    // All that a power cut leaves of the index.
    let synced = std::rc::Rc::new(std::cell::RefCell::new(IndexImage::new()));
    let (to, index) = (synced.clone(), dir.path().join("index"));
    watch(Some(Box::new(move |call| {
        if call == Call::IndexSynced {
            *to.borrow_mut() = index_image(&index);
        }
    })));
    // Told when the commit is durable, and before the empty segment goes.
    store.commit_and(|told| {
        told.expect("committed");
        put_whole(&store, 2, 5, rest);
    });
    watch(None);
    drop(store);
    assert_eq!(segments(dir.path()), [1, 3].map(SegmentId), "the second one is gone");
    let index = dir.path().join("index");
    std::fs::remove_dir_all(&index).expect("removed");
    std::fs::create_dir(&index).expect("made");
    for (name, bytes) in synced.borrow().iter() {
        std::fs::write(index.join(name), bytes).expect("written");
    }
    let version = |store: &Store| [2, 5].into_iter().find(|&seed| reads(store, 2, seed, rest));
    let before = version(&open(dir.path()));
    assert!(before.is_some(), "one of its versions");
    std::fs::remove_dir_all(&index).expect("removed");
    let disk = RealDisk::existing(&dir.path().join("segments"));
    let report = rebuild(dir.path(), &disk, &options(None, 1).owner, &IndexCache::new(32 << 20)).expect("rebuilt");
    assert!(report.is_whole(), "{report:?}");
    let store = open(dir.path());
    assert_eq!(version(&store), before, "the journal says what the index said");
    assert!(reads(&store, 1, 1, most) && reads(&store, 4, 4, CHUNK));
}
