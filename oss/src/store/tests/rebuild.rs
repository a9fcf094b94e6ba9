//! The index is lost: what the segments give back, and what is said where they cannot.

use std::os::unix::fs::FileExt;

use proptest::prelude::*;

use super::super::disk::{SegmentId, read_exact_at};
use super::super::journal::JournalRecord;
use super::super::keys::ObjectKey;
use super::super::rebuild::{RebuildReport, rebuild};
use super::super::records::ObjectRecord;
use super::super::segments::HEADER_BYTES;
use super::*;

/// So small that a few writes fill one: empty ones come and go.
const SMALL_SEGMENT_BYTES: u64 = 200 << 10;
const OBJECTS: u32 = 4;

fn open_small(dir: &Path) -> Store {
    let options = StoreOptions { segment_bytes: SMALL_SEGMENT_BYTES, ..options(None, 1) };
    Store::open(dir, options).expect("opens")
}

fn lose_index(dir: &Path) {
    std::fs::remove_dir_all(dir.join("index")).expect("removed");
}

fn rebuilt(dir: &Path) -> FsResult<RebuildReport> {
    let disk = RealDisk::open(&dir.join("segments")).expect("directory");
    rebuild(dir, &disk, &options(None, 1).owner, &IndexCache::new(32 << 20))
}

/// Bytes, size and space of every object.
fn everything(store: &Store) -> Vec<(Vec<u8>, u64, u64)> {
    (1..=OBJECTS)
        .map(|oid| {
            let attr = store.attr(&object(oid)).expect("attr");
            (get(store, object(oid), 0, 8 * CHUNK as u32, false).expect("read"), attr.size, attr.allocated)
        })
        .collect()
}

#[derive(Clone, Debug)]
enum Op {
    Write { oid: u32, offset: u64, len: usize, seed: u64 },
    Truncate { oid: u32, size: u64 },
    Punch { oid: u32, offset: u64, len: u64 },
    Destroy { oid: u32 },
    Commit,
    Restart,
    LoseIndex,
}

fn op() -> impl Strategy<Value = Op> {
    let oid = || 1..=OBJECTS;
    prop_oneof![
        8 => (oid(), 0..6 * CHUNK, 1usize..60_000, any::<u64>())
            .prop_map(|(oid, offset, len, seed)| Op::Write { oid, offset, len, seed }),
        2 => (oid(), 0..6 * CHUNK).prop_map(|(oid, size)| Op::Truncate { oid, size }),
        2 => (oid(), 0..6 * CHUNK, 1..4 * CHUNK).prop_map(|(oid, offset, len)| Op::Punch { oid, offset, len }),
        1 => oid().prop_map(|oid| Op::Destroy { oid }),
        5 => Just(Op::Commit),
        1 => Just(Op::Restart),
        1 => Just(Op::LoseIndex),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_rebuilt_index_says_what_the_lost_one_said(ops in prop::collection::vec(op(), 1..120)) {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut store = open_small(dir.path());
        for op in ops {
            match op {
                Op::Write { oid, offset, len, seed } => drop(put(&store, object(oid), offset, &noise(seed, len)).expect("written")),
                Op::Truncate { oid, size } => drop(store.truncate(&object(oid), CHUNK_LOG2, size, None).expect("truncated")),
                Op::Punch { oid, offset, len } => drop(store.punch(&object(oid), CHUNK_LOG2, offset, len, None).expect("punched")),
                Op::Destroy { oid } => store.destroy(&[object(oid)]).expect("destroyed"),
                Op::Commit => drop(store.commit().expect("committed")),
                Op::Restart => {
                    drop(store);
                    store = open_small(dir.path());
                }
                Op::LoseIndex => {
                    store.commit().expect("committed");
                    let (before, objects) = (everything(&store), store.objects().expect("count"));
                    drop(store);
                    lose_index(dir.path());
                    let report = rebuilt(dir.path()).expect("rebuilt");
                    prop_assert!(report.is_whole(), "{report:?}");
                    store = open_small(dir.path());
                    prop_assert!(everything(&store) == before, "{report:?}");
                    prop_assert_eq!(store.objects().expect("count"), objects);
                }
            }
        }
    }
}

#[test]
fn what_threads_did_at_once_is_in_the_journal() {
    let dir = tempfile::tempdir().expect("temp dir");
    for round in 0..3u64 {
        let store = open_small(dir.path());
        std::thread::scope(|scope| {
            for oid in 1..=OBJECTS {
                let store = &store;
                scope.spawn(move || {
                    use rand::{Rng, SeedableRng};
                    let mut rng = rand::rngs::StdRng::seed_from_u64(round << 8 | u64::from(oid));
                    for _ in 0..120 {
                        match rng.random_range(0..10) {
                            0..=5 => {
                                let (at, len) = (rng.random_range(0..6 * CHUNK), rng.random_range(1..30_000));
                                put(store, object(oid), at, &noise(rng.random(), len)).expect("written");
                            }
                            6 => {
                                store
                                    .truncate(&object(oid), CHUNK_LOG2, rng.random_range(0..6 * CHUNK), None)
                                    .expect("cut");
                            }
                            7 => store.destroy(&[object(oid)]).expect("destroyed"),
                            _ => {
                                store.commit().expect("committed");
                            }
                        }
                    }
                });
            }
        });
        store.commit().expect("committed");
        let (before, objects) = (everything(&store), store.objects().expect("count"));
        drop(store);
        lose_index(dir.path());
        let report = rebuilt(dir.path()).expect("rebuilt");
        assert!(report.is_whole() && report.last_commit > 20, "{report:?}");
        let store = open_small(dir.path());
        assert!(everything(&store) == before && store.objects().expect("count") == objects, "{report:?}");
    }
}

/// A closed, committed store of one object for each round, each round a commit.
fn rounds(dir: &Path, rounds: u32) {
    let store = open(dir);
    for oid in 1..=rounds {
        put(&store, object(oid), 0, &noise(u64::from(oid), 9_000)).expect("written");
        store.commit().expect("committed");
    }
}

/// Where the runs of the journal are, in their order.
fn runs(dir: &Path) -> Vec<(SegmentId, u64)> {
    let store = open(dir);
    let mut found = Vec::new();
    for id in store.segments.list().expect("listed") {
        store.segments.journal_of(id, |run| found.push((id, run.header.place.offset))).expect("read");
    }
    found
}

fn damage(dir: &Path, (segment, offset): (SegmentId, u64)) {
    let path = RealDisk::existing(&dir.join("segments")).path(segment);
    let file = std::fs::File::options().write(true).open(path).expect("opens");
    file.write_all_at(b"rot", offset + 70).expect("written");
}

#[test]
fn a_hole_in_the_journal_is_told_and_the_rest_is_there() {
    let dir = tempfile::tempdir().expect("temp dir");
    rounds(dir.path(), 3);
    let places = runs(dir.path());
    assert_eq!(places.len(), 3, "one run for each commit");
    damage(dir.path(), places[1]);
    lose_index(dir.path());
    let report = rebuilt(dir.path()).expect("rebuilt");
    assert_eq!(report.missing_runs.len(), 1, "{report:?}");
    assert_eq!((report.objects, report.freed, report.unclaimed.len()), (2, 0, 0), "{report:?}");
    let store = open(dir.path());
    for oid in [1, 3] {
        assert!(get(&store, object(oid), 0, 9_000, true).expect("read") == noise(u64::from(oid), 9_000));
    }
    drop(store);
    // The start has written the journal anew: what is lost is not told twice.
    assert!(rebuilt(dir.path()).expect("rebuilt").objects == 2);
}

#[test]
fn a_segment_without_its_header_gives_its_chunks_to_the_journals_of_others() {
    let dir = tempfile::tempdir().expect("temp dir");
    {
        let store = open(dir.path());
        // The data fills the first segment; its commit writes behind it, into the next.
        let chunks = (SEGMENT_BYTES - HEADER_BYTES) / CHUNK;
        store.write(sealed(object(1), 0, &noise(1, (chunks * CHUNK) as usize), Compression::None)).expect("written");
        put(&store, object(2), 0, &noise(2, 70_000)).expect("written");
        store.commit().expect("committed");
    }
    let first = RealDisk::existing(&dir.path().join("segments")).path(SegmentId(1));
    std::fs::File::options().write(true).open(first).expect("opens").write_all_at(b"rot", 30).expect("written");
    lose_index(dir.path());
    let report = rebuilt(dir.path()).expect("rebuilt");
    assert_eq!((report.headless.len(), report.objects), (1, 2), "{report:?}");
    let store = open(dir.path());
    get(&store, object(1), 0, 100, true).expect_err("its header is not ours; fsck --repair writes it again");
    assert!(get(&store, object(2), 0, 70_000, true).expect("read") == noise(2, 70_000));
}

#[test]
fn the_old_index_is_kept_and_a_rebuild_that_was_cut_off_begins_anew() {
    let dir = tempfile::tempdir().expect("temp dir");
    rounds(dir.path(), 2);
    std::fs::create_dir(dir.path().join("index.new")).expect("made");
    std::fs::write(dir.path().join("index.new/CURRENT"), "cut off").expect("written");
    for n in 1..=2 {
        let report = rebuilt(dir.path()).expect("rebuilt");
        assert_eq!(report.kept, Some(dir.path().join(format!("index.damaged-{n}"))));
        assert!(!dir.path().join("index.new").exists() && !dir.path().join("index.new.mark").exists());
        let store = open(dir.path());
        assert!(get(&store, object(2), 0, 9_000, true).expect("read") == noise(2, 9_000));
    }
}

#[test]
fn what_was_not_committed_is_not_in_the_journal_and_its_space_comes_back() {
    let dir = tempfile::tempdir().expect("temp dir");
    rounds(dir.path(), 1);
    let store = open(dir.path());
    put(&store, object(7), 0, &noise(7, 50_000)).expect("written");
    drop(store);
    lose_index(dir.path());
    let report = rebuilt(dir.path()).expect("rebuilt");
    assert_eq!((report.objects, report.freed), (1, 53_248), "{report:?}");
    let store = open(dir.path());
    assert_eq!(store.objects().expect("count"), 1);
    drop(store);
    assert_eq!(rebuilt(dir.path()).expect("rebuilt").freed, 0, "given back by the start");
}

#[test]
fn a_journal_that_fills_segments_by_itself_is_not_written_again_for_ever() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open_small(dir.path());
    // 6,000 objects of one small chunk in one commit: 150 bytes of journal each, several segments of it.
    for oid in 1..=6_000 {
        let mut write = plain(object(oid), 0, b"x", Compression::None);
        write.parts[0].sealed = true;
        store.write(write).expect("written");
    }
    store.commit().expect("committed");
    for oid in 1..=6_000 {
        store.truncate_uncommitted(oid);
    }
    store.commit().expect("committed");
    let journal = |store: &Store| {
        let mut bytes = 0;
        for id in store.segments.list().expect("listed") {
            store.segments.journal_of(id, |run| bytes += run.header.length).expect("read");
        }
        bytes
    };
    let before = journal(&store);
    for _ in 0..10 {
        put(&store, object(1), 0, b"y").expect("written");
        store.commit().expect("committed");
    }
    assert!(journal(&store) <= before + 10 * 4096, "{} of {before}", journal(&store));
    drop(store);
    lose_index(dir.path());
    assert_eq!(rebuilt(dir.path()).expect("rebuilt").objects, 6_000);
}

impl Store {
    /// Cuts an object to nothing; the caller commits.
    fn truncate_uncommitted(&self, oid: u32) {
        self.punch(&object(oid), CHUNK_LOG2, 0, CHUNK, None).expect("punched");
    }
}

#[test]
fn records_and_runs_come_back_and_damage_is_noticed() {
    use super::super::journal::{RunHeader, bodies, read_run, seal};
    use super::super::records::SegmentPlace;
    let key = ObjectKey::of(&object(3));
    let chunk = super::super::records::ChunkRecord {
        codec: Codec::Lz4,
        raw_len: 65_536,
        stored_len: 5_000,
        visible_len: 65_000,
        segment: SegmentId(9),
        offset: 8_192,
        generation: 4,
        raw_crc: 1,
        stored_crc: 2,
    };
    let records = [
        JournalRecord::Object(key, ObjectRecord { size: 5, ..ObjectRecord::empty(16, SegmentId(2)) }),
        JournalRecord::Gone(key, SegmentId(7)),
        JournalRecord::Chunk(key.chunk(1), Some(chunk)),
        JournalRecord::Chunk(key.chunk(2), None),
        JournalRecord::Complete,
    ];
    let body = bodies(records.into_iter()).remove(0);
    let place = SegmentPlace { segment: SegmentId(1), offset: 4096 };
    let header = RunHeader { sequence: 7, part: 0, parts: 1, previous: 0, place, length: 4096 };
    let journal_key = [5; 16];
    let sealed = seal(&journal_key, &header, &body);
    assert_eq!(sealed.len(), 4096);
    // Golden: the bytes of version 1 of the journal, but for the key.
    assert_eq!(crc32c::crc32c(&sealed), GOLDEN, "the format has changed: {:#x}", crc32c::crc32c(&sealed));
    let dir = tempfile::tempdir().expect("temp dir");
    let disk = RealDisk::open(dir.path()).expect("directory");
    let file = disk.create(SegmentId(1)).expect("made");
    let check = |bytes: &[u8], key: &[u8; 16]| {
        file.write_at(&vec![0; 8192], 4096).expect("written");
        file.write_at(bytes, 4096).expect("written");
        read_run(&*file, key, place).expect("readable")
    };
    let run = check(&sealed, &journal_key).expect("a run");
    assert_eq!((run.header, &run.records[..]), (header, &records[..]));
    assert_eq!(check(&sealed, &[6; 16]), None, "another segment's");
    for bit in 0..(64 + body.len()) * 8 {
        let mut bytes = sealed.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(check(&bytes, &journal_key), None, "bit {bit}");
    }
    // A length that lies is not believed before anything is allocated for it.
    let mut huge = sealed.clone();
    huge[48..52].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(check(&huge, &journal_key), None);
    let mut scratch = [0; 1];
    read_exact_at(&*file, &mut scratch, 4096, super::super::disk::Caching::Keep).expect("still there");
}

const GOLDEN: u32 = 0xc875_efb6;

proptest! {
    #[test]
    fn any_bytes_are_records_or_nothing(body in prop::collection::vec(any::<u8>(), 0..400), kind in 1u8..6) {
        use super::super::journal::decode;
        let mut kinded = body.clone();
        kinded.insert(0, kind);
        for bytes in [body, kinded] {
            if let Some(records) = decode(&bytes) {
                // At least one byte each: what is made of them is bounded by what came in.
                prop_assert!(records.len() <= bytes.len());
                prop_assert!(super::super::journal::bodies(records.into_iter()).concat() == bytes);
            }
        }
    }
}
