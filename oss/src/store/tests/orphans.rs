//! Objects whose record the index has lost: never zeros, never a fresh record, and an end by removal.

use rocksdb::{WriteBatch, WriteOptions};
use sateen_types::FsCode;

use super::super::keys::{CF_OBJECTS, ObjectKey};
use super::super::read::DataExtent;
use super::*;

/// A committed store of two objects of four chunks, of which the first has lost its record.
fn orphaned(dir: &Path) -> Store {
    let store = open(dir);
    for oid in 1..=2 {
        put(&store, object(oid), 0, &noise(u64::from(oid), 4 * CHUNK as usize)).expect("written");
    }
    store.commit().expect("committed");
    let mut batch = WriteBatch::default();
    batch.delete_cf(&store.index.cf(CF_OBJECTS), ObjectKey::of(&object(1)).as_bytes());
    store.index.db.write_opt(batch, &WriteOptions::default()).expect("written");
    store
}

fn chunks(store: &Store, oid: u32) -> Vec<u64> {
    let found = store.index.chunk_range(ObjectKey::of(&object(oid)), 0, u64::MAX).expect("read");
    found.into_iter().map(|(number, _)| number).collect()
}

fn corrupt<T: std::fmt::Debug>(result: FsResult<T>) {
    let error = result.expect_err("neither a hole nor an empty object");
    assert_eq!(error.code, FsCode::Corrupt, "{error}");
    assert!(error.message.contains("record") && error.hint.is_some(), "{error:?}");
}

#[test]
fn chunks_without_a_record_are_never_read_as_zeros_nor_as_an_empty_object() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut store = orphaned(dir.path());
    for _ in 0..2 {
        for sealed in [false, true] {
            for offset in [0, 3 * CHUNK + 7, 9 * CHUNK] {
                let range = ReadRange { offset, length: 100, sealed, verify: false };
                let from_memory = store.read_from_memory(&object(1), CHUNK_LOG2, range);
                assert_eq!(from_memory.expect("no error without a lock"), None);
                corrupt(store.read(&object(1), CHUNK_LOG2, range));
            }
        }
        corrupt(store.attr(&object(1)));
        corrupt(store.extents(&object(1), CHUNK_LOG2, 0, 9));
        assert_eq!(store.damaged().count(), 1, "it is told, once");
        assert_eq!(get(&store, object(2), 0, CHUNK as u32, false).expect("its neighbour"), noise(2, CHUNK as usize));
        assert_eq!(get(&store, object(3), 0, 100, false).expect("nothing of it"), [0; 100]);
        drop(store);
        store = open(dir.path());
    }
}

#[test]
fn no_change_of_a_part_makes_a_fresh_record() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = orphaned(dir.path());
    corrupt(put(&store, object(1), 0, b"new"));
    corrupt(store.write(sealed(object(1), 7, &noise(3, CHUNK as usize), Compression::Lz4)));
    corrupt(store.punch(&object(1), CHUNK_LOG2, 0, 9 * CHUNK, None));
    assert!(store.index.object(ObjectKey::of(&object(1))).expect("read").is_none());
    assert_eq!(chunks(&store, 1), [0, 1, 2, 3]);
    assert_eq!(store.objects().expect("read"), 2, "as before the damage");
}

#[test]
fn what_is_truncated_goes_and_the_rest_stays_an_error() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = orphaned(dir.path());
    let cut = store.truncate(&object(1), CHUNK_LOG2, CHUNK + 9, None).expect("cut");
    assert_eq!((cut.allocated_delta, chunks(&store, 1)), (-2 * CHUNK as i64, vec![0, 1]));
    corrupt(get(&store, object(1), 0, 10, false));
    let mut batch = store.index.batch();
    let first = ObjectKey::of(&object(1)).chunk(0);
    let extent = store.index.chunk(first).expect("read").expect("there").extent();
    batch.set_chunk(first, None);
    batch.release(extent);
    store.index.write(batch).expect("written");
    corrupt(store.truncate(&object(1), CHUNK_LOG2, 5, None));
    assert_eq!(chunks(&store, 1), [1], "or the object would read as zeros");
}

/// What the commits of a test write down of it.
const JOURNAL_MAX: u64 = 2 * 4096;

#[test]
fn a_truncate_to_nothing_and_a_removal_end_it() {
    type End = fn(&Store);
    let ends: [End; 2] = [
        |store| {
            assert_eq!(store.truncate(&object(1), CHUNK_LOG2, 0, None).expect("cut").allocated_delta, -4 * CHUNK as i64)
        },
        |store| store.destroy(&[object(1), object(7)]).expect("destroyed"),
    ];
    for end in ends {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = orphaned(dir.path());
        let before = disk_usage(&dir.path().join("segments"));
        end(&store);
        assert_eq!(chunks(&store, 1), [0; 0]);
        assert_eq!(get(&store, object(1), 0, 100, true).expect("nothing of it"), [0; 100]);
        assert_eq!(store.extents(&object(1), CHUNK_LOG2, 0, 9).expect("none"), (Vec::<DataExtent>::new(), true));
        store.commit().expect("committed");
        let freed = before - disk_usage(&dir.path().join("segments"));
        assert!((4 * CHUNK - JOURNAL_MAX..=4 * CHUNK).contains(&freed), "{freed} bytes are free");
        put(&store, object(1), 5, b"again").expect("written");
        assert_eq!(get(&store, object(1), 0, 10, false).expect("read"), b"\0\0\0\0\0again");
    }
}

/// The unlocked look at a row and then at the chunks may see a first write half done.
#[test]
fn a_first_write_is_never_taken_for_an_orphan() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path());
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for oid in 1..400 {
                put(&store, object(oid), 0, b"first").expect("written");
            }
        });
        let mut oid = 1;
        while !writer.is_finished() {
            let range = ReadRange { offset: 0, length: 5, sealed: false, verify: false };
            let size = store.read(&object(oid), CHUNK_LOG2, range).expect("read").object_size;
            store.attr(&object(oid)).expect("known");
            store.extents(&object(oid), CHUNK_LOG2, 0, 9).expect("known");
            oid = if size > 0 && oid < 399 { oid + 1 } else { oid };
        }
    });
}
