//! What the store promises, one fact per test.

use sateen_types::FsCode;
use sateen_types::limits::BULK_BYTES_MAX;

use super::super::fence::Fence;
use super::super::read::DataExtent;
use super::*;

#[test]
fn what_was_written_is_read_sealed_and_opened() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path());
    let data = noise(1, 3 * CHUNK as usize + 100);
    store.write(sealed(object(1), 0, &data, Compression::Lz4)).expect("written");
    for as_sealed in [true, false] {
        assert_eq!(get(&store, object(1), 0, data.len() as u32, as_sealed).expect("read"), data);
        assert_eq!(get(&store, object(1), 70_000, 99, as_sealed).expect("read"), data[70_000..70_099]);
    }
    assert_eq!(store.attr(&object(1)).expect("attr").size, data.len() as u64);
}

#[test]
fn holes_read_as_zeros_and_are_listed_as_holes() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path());
    assert_eq!(get(&store, object(9), 5, 1000, true).expect("an unknown object is a hole"), vec![0; 1000]);
    put(&store, object(1), 2 * CHUNK + 10, b"x").expect("written");
    assert_eq!(get(&store, object(1), 2 * CHUNK, 20, false).expect("read"), b"\0\0\0\0\0\0\0\0\0\0x\0\0\0\0\0\0\0\0\0");
    let (extents, complete) = store.extents(&object(1), CHUNK_LOG2, 0, 10).expect("extents");
    assert_eq!((extents, complete), (vec![DataExtent { offset: 2 * CHUNK, length: 11 }], true));
    assert_eq!(store.extents(&object(1), CHUNK_LOG2, 0, 0).expect("extents"), (vec![], false));
}

#[test]
fn shrinking_and_growing_again_reads_zeros() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path());
    put(&store, object(1), 0, &noise(1, 2 * CHUNK as usize)).expect("written");
    store.truncate(&object(1), CHUNK_LOG2, 1000, None).expect("truncated");
    assert_eq!(store.attr(&object(1)).expect("attr").size, 1000);
    put(&store, object(1), 2000, b"y").expect("written");
    let read = get(&store, object(1), 0, 2001, true).expect("read");
    assert_eq!(read[..1000], noise(1, 1000));
    assert_eq!(read[1000..2000], [0; 1000]);
    assert_eq!(read[2000], b'y');
}

#[test]
fn a_resent_write_changes_nothing() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path());
    let first = put(&store, object(1), 5, b"hello").expect("written");
    assert_eq!(first.allocated_delta, 4096);
    assert_eq!(put(&store, object(1), 5, b"hello").expect("again").allocated_delta, 0);
    assert_eq!(get(&store, object(1), 5, 5, false).expect("read"), b"hello");
}

#[test]
fn destroyed_objects_are_holes_and_give_their_space_back() {
    let dir = tempfile::tempdir().expect("temp dir");
    let options = options(None, 1);
    let capacity = options.capacity.clone();
    let store = Store::open(dir.path(), options).expect("opens");
    for oid in 1..=4 {
        store.write(sealed(object(oid), 0, &noise(1, 10 * CHUNK as usize), Compression::Lz4)).expect("written");
    }
    store.commit().expect("committed");
    assert_eq!(store.objects().expect("count"), 4);
    assert_eq!(capacity.used(), 40 * CHUNK);
    let before = disk_usage(&dir.path().join("segments"));
    store.destroy(&[object(1), object(2), object(3), object(77)]).expect("destroyed");
    assert_eq!(store.objects().expect("count"), 1);
    assert_eq!(capacity.used(), 10 * CHUNK);
    assert!(disk_usage(&dir.path().join("segments")) + 30 * CHUNK <= before, "segments were punched or deleted");
    assert_eq!(get(&store, object(1), 0, 10, true).expect("read"), [0; 10]);
    assert_eq!(get(&store, object(4), 0, 10, true).expect("read"), noise(1, 10));
    store.destroy(&[object(1)]).expect("idempotent");
}

#[test]
fn compressible_data_takes_less_and_noise_at_most_4_percent_more() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path());
    let text = b"parallel threads give cotton its lustre; ".repeat(100_000);
    put(&store, object(1), 0, &text).expect("written");
    assert!(store.attr(&object(1)).expect("attr").allocated < text.len() as u64 / 4);
    let data = noise(2, 4_000_000);
    let before = disk_usage(&dir.path().join("segments"));
    put(&store, object(2), 0, &data).expect("written");
    store.commit().expect("committed");
    let taken = disk_usage(&dir.path().join("segments")) - before;
    assert!(taken <= data.len() as u64 * 104 / 100, "{taken} bytes for {}", data.len());
}

#[test]
fn a_flipped_byte_is_corrupt_and_never_wrong_data() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path());
    let data = noise(1, CHUNK as usize);
    put(&store, object(1), 0, &data).expect("written");
    put(&store, object(2), 0, &data).expect("written");
    store.commit().expect("committed");
    let path = std::fs::read_dir(dir.path().join("segments")).expect("dir").next().expect("one").expect("entry").path();
    let mut segment = std::fs::read(&path).expect("read");
    segment[4096 + 333] ^= 1;
    std::fs::write(&path, segment).expect("written");
    for as_sealed in [true, false] {
        let err = get(&store, object(1), 0, 10, as_sealed).expect_err("noticed");
        assert_eq!(err.code, FsCode::Corrupt);
        assert!(err.message.contains("chunk 0") && err.message.contains("[0x200000400:0x1:0x0]"), "{err}");
    }
    assert_eq!(put(&store, object(1), 10, b"z").expect_err("not over unverified bytes").code, FsCode::Corrupt);
    assert_eq!(get(&store, object(2), 0, 10, true).expect("the neighbour is fine"), data[..10]);
    put(&store, object(1), 0, &data).expect("replacing all of it heals");
    assert_eq!(get(&store, object(1), 0, 10, true).expect("read"), data[..10]);
}

#[test]
fn small_reads_of_a_chunk_that_was_proved_are_right_and_notice_damage() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path());
    let data = noise(1, CHUNK as usize);
    put(&store, object(1), 0, &data).expect("written");
    let path = std::fs::read_dir(dir.path().join("segments")).expect("dir").next().expect("one").expect("entry").path();
    let small = |at: usize| get(&store, object(1), at as u64, 4000, false);
    for at in [0, 4096, 10_000, CHUNK as usize - 4000] {
        assert_eq!(small(at).expect("read"), data[at..at + 4000], "at {at}");
    }
    let mut segment = std::fs::read(&path).expect("read");
    segment[4096 + 20_000] ^= 1;
    std::fs::write(&path, segment).expect("written");
    for _either_way in 0..2 {
        assert_eq!(small(4096).expect("its blocks are whole"), data[4096..8096]);
        assert_eq!(small(18_000).expect_err("noticed").code, FsCode::Corrupt);
    }
    put(&store, object(1), 20_000, &data[20_000..20_100]).expect_err("not over unverified bytes");
    let newer = noise(2, CHUNK as usize);
    put(&store, object(1), 0, &newer).expect("replaced");
    for at in [4096, 18_000] {
        assert_eq!(small(at).expect("read"), newer[at..at + 4000], "at {at}");
    }
}

#[test]
fn a_full_ost_says_no_space_before_it_writes() {
    let dir = tempfile::tempdir().expect("temp dir");
    let options = options(Some(10 * CHUNK), 1);
    let capacity = options.capacity.clone();
    let store = Store::open(dir.path(), options).expect("opens");
    let data = noise(1, 8 * CHUNK as usize);
    store.write(sealed(object(1), 0, &data, Compression::Lz4)).expect("fits");
    let err = store.write(sealed(object(2), 0, &data, Compression::Lz4)).expect_err("full");
    assert_eq!(err.code, FsCode::NoSpace);
    assert!(err.hint.is_some());
    assert_eq!(store.attr(&object(2)).expect("attr"), super::super::ObjectAttr::default());
    assert_eq!(capacity.used(), 8 * CHUNK);
    store.truncate(&object(1), CHUNK_LOG2, 100, None).expect("shrinking needs no space");
    store.destroy(&[object(1)]).expect("nor does destroying");
    store.write(sealed(object(2), 0, &data, Compression::Lz4)).expect("fits again");
}

#[test]
fn lies_about_parts_are_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path());
    let data = noise(1, CHUNK as usize);
    let mut write = sealed(object(1), 0, &data, Compression::Lz4);
    write.parts[0].stored_crc32c ^= 1;
    assert_eq!(store.write(write).expect_err("checksum").code, FsCode::Corrupt);
    let mut write = sealed(object(1), 0, &data, Compression::Lz4);
    write.parts[0].raw_crc32c ^= 1;
    assert_eq!(store.write(write).expect_err("two checksums").code, FsCode::Invalid);
    let mut write = sealed(object(1), 0, &data, Compression::Lz4);
    write.payload.split_to(1);
    assert_eq!(store.write(write).expect_err("short payload").code, FsCode::Invalid);
    let mut write = plain(object(1), 0, &data, Compression::Lz4);
    write.parts.clear();
    assert_eq!(store.write(write).expect_err("no parts").code, FsCode::Invalid);
    put(&store, object(1), 0, &data).expect("written");
    let write = Write { chunk_log2: 17, ..plain(object(1), 0, &data[..9], Compression::None) };
    assert_eq!(store.write(write).expect_err("another chunk size").code, FsCode::Invalid);
    assert_eq!(store.punch(&object(1), CHUNK_LOG2, u64::MAX, 2, None).expect_err("overflow").code, FsCode::Invalid);
}

#[test]
fn a_sealed_chunk_that_does_not_decompress_is_corrupt_for_its_reader() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path());
    let mut write = sealed(object(1), 0, &vec![1; CHUNK as usize], Compression::Lz4);
    assert_eq!(write.parts[0].codec, Codec::Lz4);
    let garbage = noise(3, write.payload.len());
    write.parts[0].stored_crc32c = crc32c::crc32c(&garbage);
    write.payload = Bytes::from(garbage).into();
    store.write(write).expect("the store does not open what was sealed");
    assert_eq!(get(&store, object(1), 0, 10, false).expect_err("no LZ4 block").code, FsCode::Corrupt);
}

#[test]
fn a_reply_is_bounded_and_continues_where_it_ended() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path());
    let data = noise(1, BULK_BYTES_MAX + 2 * CHUNK as usize);
    let half = BULK_BYTES_MAX / 2;
    store.write(sealed(object(1), 0, &data[..half], Compression::Lz4)).expect("written");
    store.write(sealed(object(1), half as u64 / CHUNK, &data[half..], Compression::Lz4)).expect("written");
    let range = ReadRange { offset: 100, length: BULK_BYTES_MAX as u32, sealed: true, verify: false };
    let reply = store.read(&object(1), CHUNK_LOG2, range).expect("read");
    assert!(reply.payload.len() <= BULK_BYTES_MAX);
    let read = get(&store, object(1), 100, BULK_BYTES_MAX as u32, true).expect("read");
    assert!(read == data[100..100 + BULK_BYTES_MAX]);
}

#[test]
fn everything_answered_survives_a_crash_of_the_process() {
    let dir = tempfile::tempdir().expect("temp dir");
    let data = noise(1, 5 * CHUNK as usize);
    {
        let store = open(dir.path());
        store.write(sealed(object(1), 0, &data, Compression::Lz4)).expect("written");
        put(&store, object(1), 3, b"abc").expect("written");
        store.punch(&object(1), CHUNK_LOG2, CHUNK, CHUNK, None).expect("punched");
    }
    let store = open(dir.path());
    let read = get(&store, object(1), 0, data.len() as u32, true).expect("read");
    assert_eq!((&read[..3], &read[3..6]), (&data[..3], &b"abc"[..]));
    assert_eq!(read[CHUNK as usize..2 * CHUNK as usize], vec![0; CHUNK as usize]);
    assert!(read[2 * CHUNK as usize..] == data[2 * CHUNK as usize..]);
}

#[test]
fn a_second_start_recovers_nothing_and_leaves_no_empty_segment() {
    let dir = tempfile::tempdir().expect("temp dir");
    {
        let store = open(dir.path());
        put(&store, object(1), 0, &noise(1, 100_000)).expect("written");
        put(&store, object(1), 0, &noise(2, 100_000)).expect("written");
    }
    {
        let store = open(dir.path());
        assert!(store.index.pending().expect("rows").is_empty());
        store.destroy(&[object(1)]).expect("destroyed");
    }
    let options = options(None, 1);
    let capacity = options.capacity.clone();
    let store = Store::open(dir.path(), options).expect("opens");
    assert_eq!(capacity.used(), 0);
    assert!(store.index.frees().expect("rows").is_empty());
    assert_eq!(std::fs::read_dir(dir.path().join("segments")).expect("dir").count(), 0);
}

#[test]
fn more_uncommitted_chunks_than_the_bound_are_committed_on_the_way() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path());
    for batch in 0..super::super::PENDING_CHUNKS_MAX as u64 / 64 + 3 {
        let mut write = plain(object(1), 0, &[1; 64], Compression::None);
        write.parts = (0..64)
            .map(|i| Part { offset: (batch * 64 + i) * CHUNK, raw_len: 1, stored_len: 1, ..write.parts[0] })
            .map(|p| {
                let crc = crc32c::crc32c(&[1]);
                Part { raw_crc32c: crc, stored_crc32c: crc, ..p }
            })
            .collect();
        store.write(write).expect("written");
        assert!(store.pending.lock().chunks() <= super::super::PENDING_CHUNKS_MAX + 64);
    }
    store.truncate(&object(1), CHUNK_LOG2, 0, None).expect("truncated");
    assert_eq!(store.attr(&object(1)).expect("attr"), super::super::ObjectAttr::default());
}

#[test]
fn a_change_of_any_kind_that_was_given_up_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path());
    let fence = |generation| Fence::new(7, generation);
    let write =
        |at, generation| Write { fence: fence(generation), ..plain(object(1), at, &[9; 100], Compression::None) };
    let changes: [&dyn Fn(u64) -> FsResult<Changed>; 3] = [
        &|generation| store.write(write(0, generation)),
        &|generation| store.punch(&object(1), CHUNK_LOG2, 10, 20, fence(generation)),
        &|generation| store.truncate(&object(1), CHUNK_LOG2, 50, fence(generation)),
    ];
    let mut generation = 0;
    for repeated in changes {
        for late in changes {
            generation += 1;
            store.write(write(0, generation - 1)).expect("written");
            repeated(generation).expect("the repetition");
            let before = (get(&store, object(1), 0, 200, false), store.attr(&object(1)));
            assert_eq!(late(generation - 1).expect_err("given up").code, FsCode::Interrupted);
            assert_eq!((get(&store, object(1), 0, 200, false), store.attr(&object(1))), before);
        }
    }
    store.punch(&object(1), CHUNK_LOG2, 0, 9, None).expect("a caller without fences");
    store.punch(&object(1), CHUNK_LOG2, 0, 9, Fence::new(8, 0)).expect("another caller");
}

#[test]
fn a_writer_whose_session_has_ended_changes_nothing_and_others_go_on() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ended = Arc::new(super::super::fence::Ended::default());
    let store = Store::open(dir.path(), StoreOptions { ended: ended.clone(), ..options(None, 1) }).expect("opens");
    let write =
        |writer, byte| Write { fence: Fence::new(writer, 0), ..plain(object(1), 0, &[byte; 100], Compression::None) };
    store.write(write(7, 1)).expect("written");
    ended.refuse(&[7]);
    store.write(write(8, 2)).expect("written by another");
    let before = (get(&store, object(1), 0, 200, false), store.attr(&object(1)));
    let late: [&dyn Fn() -> FsResult<Changed>; 3] =
        [&|| store.write(write(7, 3)), &|| store.punch(&object(1), CHUNK_LOG2, 10, 20, Fence::new(7, 9)), &|| {
            store.truncate(&object(1), CHUNK_LOG2, 50, Fence::new(7, 9))
        }];
    for change in late {
        assert_eq!(change().expect_err("shut out").code, FsCode::Stale);
        assert_eq!((get(&store, object(1), 0, 200, false), store.attr(&object(1))), before);
    }
}

#[test]
fn readers_and_writers_of_one_chunk_see_whole_versions() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path());
    put(&store, object(1), 0, &vec![0; CHUNK as usize]).expect("written");
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for i in 0..300u32 {
                let data: Vec<u8> = noise(u64::from(i), CHUNK as usize - 1).into_iter().chain([i as u8]).collect();
                store.write(sealed(object(1), 0, &data, Compression::None)).expect("written");
                if i % 16 == 0 {
                    store.commit().expect("committed");
                }
            }
        });
        while !writer.is_finished() {
            let read = get(&store, object(1), 0, CHUNK as u32, true).expect("never corrupt");
            let i = u64::from(read[CHUNK as usize - 1]);
            let versions = [i, i + 256].map(|seed| noise(seed, CHUNK as usize - 1));
            let whole = &read[..CHUNK as usize - 1];
            assert!(whole.iter().all(|&b| b == 0) || versions.iter().any(|v| v == whole), "a mix of versions");
        }
        writer.join().expect("no panic");
    });
}
