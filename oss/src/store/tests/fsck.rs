//! What a check of a store must see, what it may correct, and what it must leave alone.

use std::ops::ControlFlow;

use rocksdb::WriteOptions;
use sateen_types::{Finding, FindingKind, FsCode, FsckEvent, Repair};

use super::super::disk::SegmentId;
use super::super::fsck::rows::View;
use super::super::fsck::{Job, Offline, check};
use super::super::index::Index;
use super::super::keys::{
    CF_CHUNKS, CF_FREES, CF_META, CF_OBJECTS, CF_PENDING, CF_SEGMENTS, META_NEXT_SEGMENT, META_OBJECTS, ObjectKey,
    free_key, segment_key,
};
use super::super::records::{Counter, ObjectRecord};
use super::*;
use sateen_types::fsck::Report;

/// The check of a closed store.
fn run(dir: &Path, deep: bool, repair: bool) -> Vec<Finding> {
    let index = Index::open_existing(&dir.join("index"), &IndexCache::new(32 << 20), !repair).expect("opens");
    let disk = RealDisk::existing(&dir.join("segments"));
    let put_aside = |id: SegmentId| sateen_runtime::durable::move_into(&disk.path(id), &dir.join("lost+found"));
    let job = Job {
        owner: options(None, 1).owner,
        ost_known: true,
        view: View::of(&index),
        disk: &disk,
        deep,
        repair: repair.then_some(Offline { index: &index, put_aside: &put_aside }),
        online: None,
    };
    let mut found = Vec::new();
    let mut sink = |event| {
        if let FsckEvent::Finding(finding) = event {
            found.push(finding);
        }
        ControlFlow::Continue(())
    };
    check(&job, &mut Report::new(&mut sink)).expect("the check itself works");
    found
}

fn kinds(findings: &[Finding]) -> Vec<(FindingKind, Repair)> {
    let mut kinds: Vec<_> = findings.iter().map(|f| (f.kind, f.repair)).collect();
    kinds.sort_by_key(|(kind, _)| *kind);
    kinds
}

/// A closed, committed store of three objects in several segments.
fn filled(dir: &Path) {
    let store = open(dir);
    for oid in 1..=3 {
        store
            .write(sealed(object(oid), 0, &noise(u64::from(oid), 9 * CHUNK as usize), Compression::Lz4))
            .expect("written");
        put(&store, object(oid), 3 * CHUNK + 5, b"changed").expect("written");
    }
    store.punch(&object(2), CHUNK_LOG2, CHUNK, 2 * CHUNK, None).expect("punched");
    store.commit().expect("committed");
}

fn reads_as_filled(dir: &Path) {
    let store = open(dir);
    for oid in 1..=3u32 {
        let mut data = noise(u64::from(oid), 9 * CHUNK as usize);
        data[3 * CHUNK as usize + 5..][..7].copy_from_slice(b"changed");
        if oid == 2 {
            data[CHUNK as usize..3 * CHUNK as usize].fill(0);
        }
        assert!(get(&store, object(oid), 0, 9 * CHUNK as u32, false).expect("read") == data, "object {oid}");
    }
}

/// Writes rows as no store does.
fn tamper(dir: &Path, change: impl FnOnce(&mut rocksdb::WriteBatch, &Index)) {
    let index = Index::open_existing(&dir.join("index"), &IndexCache::new(32 << 20), false).expect("opens");
    let mut batch = rocksdb::WriteBatch::default();
    change(&mut batch, &index);
    index.db.write_opt(batch, &WriteOptions::default()).expect("written");
}

#[test]
fn a_sound_store_has_nothing_to_report_and_all_of_it_is_read() {
    let dir = tempfile::tempdir().expect("temp dir");
    filled(dir.path());
    for (deep, repair) in [(false, false), (true, false), (true, true)] {
        assert_eq!(run(dir.path(), deep, repair), []);
    }
    reads_as_filled(dir.path());
}

#[test]
fn a_store_that_was_killed_has_unsettled_chunks_and_no_damage() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path());
    put(&store, object(1), 0, &noise(1, 3 * CHUNK as usize)).expect("written");
    store.commit().expect("committed");
    put(&store, object(1), 5, b"not committed").expect("written");
    drop(store);
    assert_eq!(kinds(&run(dir.path(), true, false)), [(FindingKind::Unsettled, Repair::Impossible)]);
}

#[test]
fn a_flipped_byte_is_found_by_a_deep_check_with_its_file_and_nothing_is_made_of_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    filled(dir.path());
    let path = RealDisk::existing(&dir.path().join("segments")).path(SegmentId(1));
    let mut bytes = std::fs::read(&path).expect("read");
    bytes[4096 + 333] ^= 1;
    std::fs::write(&path, &bytes).expect("written");
    assert_eq!(run(dir.path(), false, false), [], "only bytes that are read are known to be wrong");
    for repair in [false, true, true] {
        let found = run(dir.path(), true, repair);
        assert_eq!(kinds(&found), [(FindingKind::Data, Repair::Impossible)]);
        assert_eq!((found[0].fid, found[0].chunk), (Some(object(1).fid), Some(0)), "{found:?}");
    }
    assert_eq!(std::fs::read(&path).expect("read"), bytes);
    let store = open(dir.path());
    assert_eq!(get(&store, object(1), 0, 10, false).expect_err("neither zeros nor a hole").code, FsCode::Corrupt);
    assert!(get(&store, object(1), CHUNK, 10, false).is_ok());
}

#[test]
fn wrong_counters_and_dangerous_frees_are_corrected_once() {
    let dir = tempfile::tempdir().expect("temp dir");
    filled(dir.path());
    tamper(dir.path(), |batch, index| {
        let key = ObjectKey::of(&object(1));
        let record = index.object(key).expect("read").expect("there");
        batch.put_cf(&index.cf(CF_OBJECTS), key.as_bytes(), ObjectRecord { chunks: 7, ..record }.encode());
        batch.put_cf(&index.cf(CF_SEGMENTS), segment_key(SegmentId(1)), Counter(-4096).encode());
        batch.put_cf(&index.cf(CF_SEGMENTS), segment_key(SegmentId(2)), b"?");
        batch.put_cf(&index.cf(CF_META), META_OBJECTS, Counter(12).encode());
        batch.put_cf(&index.cf(CF_META), META_NEXT_SEGMENT, Counter(1).encode());
        // Would punch a live chunk at the next start.
        batch.put_cf(&index.cf(CF_FREES), free_key(SegmentId(1), 8192), Counter(4096).encode());
        batch.put_cf(&index.cf(CF_FREES), free_key(SegmentId(1), 17), Counter(-1).encode());
        batch.put_cf(&index.cf(CF_PENDING), key.chunk(0).to_bytes(), b"?");
    });
    assert!(Store::open(dir.path(), options(None, 1)).is_err(), "such an index is not served");
    let expected = |repair| {
        // The row of `pending` makes sums doubtful, so they are corrected in the next pass.
        vec![
            (FindingKind::Row, repair),
            (FindingKind::Row, repair),
            (FindingKind::Free, repair),
            (FindingKind::Counter, repair),
        ]
    };
    assert_eq!(kinds(&run(dir.path(), true, false)), expected(Repair::Possible));
    assert_eq!(kinds(&run(dir.path(), true, true)), expected(Repair::Done));
    use FindingKind::{Counter as C, Object as O, Space as S};
    assert_eq!(kinds(&run(dir.path(), true, true)), [O, S, S, C].map(|kind| (kind, Repair::Done)));
    assert_eq!(run(dir.path(), true, true), []);
    reads_as_filled(dir.path());
}

#[test]
fn a_row_that_does_not_decode_stays_an_error_and_stops_corrections_that_need_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    filled(dir.path());
    tamper(dir.path(), |batch, index| {
        batch.put_cf(&index.cf(CF_CHUNKS), ObjectKey::of(&object(1)).chunk(2).to_bytes(), b"nonsense");
    });
    for repair in [true, true] {
        let found = run(dir.path(), true, repair);
        assert_eq!(kinds(&found), [(FindingKind::Row, Repair::Impossible)]);
        assert_eq!((found[0].fid, found[0].chunk), (Some(object(1).fid), Some(2)));
    }
    let store = open(dir.path());
    assert_eq!(get(&store, object(1), 2 * CHUNK, 1, false).expect_err("not a hole").code, FsCode::Corrupt);
}

#[test]
fn a_missing_segment_is_named_with_every_chunk_that_was_in_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    filled(dir.path());
    let disk = RealDisk::existing(&dir.path().join("segments"));
    std::fs::remove_file(disk.path(SegmentId(1))).expect("removed");
    let found = run(dir.path(), false, true);
    let count = |kind| found.iter().filter(|f| f.kind == kind).count();
    assert_eq!(count(FindingKind::SegmentMissing), 1);
    assert!(count(FindingKind::Data) > 1 && count(FindingKind::Data) + 1 == found.len(), "{found:?}");
    assert!(found.iter().filter(|f| f.kind == FindingKind::Data).all(|f| f.fid == Some(object(1).fid)), "{found:?}");
}

#[test]
fn a_damaged_header_is_written_again_if_the_data_behind_it_is_right() {
    let dir = tempfile::tempdir().expect("temp dir");
    filled(dir.path());
    let path = RealDisk::existing(&dir.path().join("segments")).path(SegmentId(1));
    let mut bytes = std::fs::read(&path).expect("read");
    bytes[30] ^= 0x40;
    std::fs::write(&path, &bytes).expect("written");
    assert_eq!(kinds(&run(dir.path(), false, false)), [(FindingKind::SegmentHeader, Repair::Possible)]);
    assert_eq!(kinds(&run(dir.path(), false, true)), [(FindingKind::SegmentHeader, Repair::Done)]);
    assert_eq!(run(dir.path(), true, false), []);
    reads_as_filled(dir.path());
}

#[test]
fn swapped_segments_are_named_and_neither_header_is_made_to_fit() {
    let dir = tempfile::tempdir().expect("temp dir");
    filled(dir.path());
    let disk = RealDisk::existing(&dir.path().join("segments"));
    let (one, two) = (disk.path(SegmentId(1)), disk.path(SegmentId(2)));
    let (a, b) = (std::fs::read(&one).expect("read"), std::fs::read(&two).expect("read"));
    std::fs::write(&one, &b).expect("written");
    std::fs::write(&two, &a).expect("written");
    let found = run(dir.path(), false, true);
    let headers: Vec<_> = found.iter().filter(|f| f.kind == FindingKind::SegmentHeader).map(|f| f.repair).collect();
    assert_eq!(headers, [Repair::Impossible; 2], "{found:?}");
    assert_eq!(std::fs::read(&one).expect("read"), b);
}

#[test]
fn a_segment_that_nobody_knows_is_put_aside_and_not_deleted() {
    let dir = tempfile::tempdir().expect("temp dir");
    filled(dir.path());
    let disk = RealDisk::existing(&dir.path().join("segments"));
    std::fs::copy(disk.path(SegmentId(1)), disk.path(SegmentId(77))).expect("copied");
    assert_eq!(kinds(&run(dir.path(), false, false)), [(FindingKind::SegmentUnknown, Repair::Possible)]);
    assert_eq!(kinds(&run(dir.path(), false, true)), [(FindingKind::SegmentUnknown, Repair::Done)]);
    assert_eq!(run(dir.path(), false, true), []);
    assert!(dir.path().join("lost+found/000000000000004d.seg").exists());
    reads_as_filled(dir.path());
}

#[test]
fn two_chunks_of_one_extent_are_told_and_a_chunk_without_object_too() {
    let dir = tempfile::tempdir().expect("temp dir");
    filled(dir.path());
    tamper(dir.path(), |batch, index| {
        let (one, three) = (ObjectKey::of(&object(1)), ObjectKey::of(&object(3)));
        let record = index.chunk(one.chunk(0)).expect("read").expect("there");
        batch.put_cf(&index.cf(CF_CHUNKS), three.chunk(0).to_bytes(), record.encode());
        batch.put_cf(&index.cf(CF_CHUNKS), ObjectKey::of(&object(9)).chunk(0).to_bytes(), record.encode());
    });
    let found = run(dir.path(), false, false);
    let of = |kind| found.iter().filter(move |f| f.kind == kind).collect::<Vec<_>>();
    assert_eq!(of(FindingKind::Overlap).len(), 2, "{found:?}");
    assert_eq!(of(FindingKind::OrphanChunk)[0].fid, Some(object(9).fid));
}
