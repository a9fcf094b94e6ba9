//! OST directories as earlier builds left them: each opens, and reads back the same bytes, for ever.
//!
//! `oss/tests/kept/v<N>.lz4` is a directory of format version N, copied while its server still ran, so that there is
//! also something to recover. A new version is added by running [`a_directory_is_kept`] with `SATEEN_KEEP_VERSION=N`;
//! an old one is never made again. The archive: for each file the length of its path (u16, little-endian), the path,
//! the length of its bytes (u32), the bytes; the whole one LZ4 block behind its size (`lz4_flex`).

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::super::disk::SegmentId;
use super::super::index::Index;
use super::super::keys::{META_SETTLED_OFFSET, META_SETTLED_SEGMENT};
use super::*;
use crate::ost::{Ost, OstOptions};

/// Bytes that depend on `seed` alone, on every machine and with every build: noise, or text if `seed` is even.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    if seed.is_multiple_of(2) {
        return format!("warp {seed} and weft ").into_bytes().into_iter().cycle().take(len).collect();
    }
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Size of object 5, which has no bytes.
const EMPTY_SIZE: u64 = 1_000_000;

/// What the objects of a kept directory hold, in order of their numbers from 1.
fn contents() -> [Vec<u8>; 6] {
    let text = bytes(2, 200_000);
    let cut = bytes(3, 70_000);
    let overwritten = [bytes(4, 100), bytes(5, 9_900), bytes(4, 10_000)[10_000 - 2_000..].to_vec()].concat();
    let holed = [bytes(7, 3_000), vec![0; 70_000 - 3_000], bytes(7, 90_000)[70_000..].to_vec()].concat();
    [text, cut, Vec::new(), overwritten, vec![0; EMPTY_SIZE as usize], holed]
}

fn fill(store: &Store) {
    let write = |oid, offset, bytes: &[u8]| put(store, object(oid), offset, bytes).expect("written");
    store.write(sealed(object(1), 0, &bytes(2, 200_000), Compression::Lz4)).expect("written");
    write(2, 0, &bytes(3, 90_000));
    write(3, 0, &bytes(9, 30_000));
    let old = bytes(4, 10_000);
    write(4, 0, &[&old[..], &old[8_000..]].concat());
    store.commit().expect("committed");
    store.truncate(&object(2), CHUNK_LOG2, 70_000, None).expect("truncated");
    store.destroy(&[object(3)]).expect("destroyed");
    store.truncate(&object(5), CHUNK_LOG2, EMPTY_SIZE, None).expect("grown");
    // From here on nothing is committed.
    write(4, 100, &bytes(5, 9_900));
    write(6, 0, &bytes(7, 90_000));
    store.punch(&object(6), CHUNK_LOG2, 3_000, 67_000, None).expect("punched");
}

fn ost_options() -> OstOptions {
    OstOptions {
        capacity: None,
        reserve: 0,
        segment_bytes: SEGMENT_BYTES,
        cache: IndexCache::new(32 << 20),
        create: true,
    }
}

fn archives() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kept")
}

/// Every file below `dir` that matters, as the archive has it.
fn pack(root: &Path, dir: &Path, out: &mut Vec<u8>) {
    let mut entries: Vec<_> = std::fs::read_dir(dir).expect("a directory").map(|e| e.expect("entry").path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().expect("named").to_str().expect("ASCII").to_owned();
        if path.is_dir() {
            pack(root, &path, out);
        } else if !name.starts_with("LOG") && !name.starts_with("OPTIONS") && !name.eq_ignore_ascii_case("lock") {
            let relative = path.strip_prefix(root).expect("below").to_str().expect("ASCII");
            let content = std::fs::read(&path).expect("read");
            out.extend_from_slice(&(relative.len() as u16).to_le_bytes());
            out.extend_from_slice(relative.as_bytes());
            out.extend_from_slice(&(content.len() as u32).to_le_bytes());
            out.extend_from_slice(&content);
        }
    }
}

/// Inverse of [`pack`]; blocks of zeros become holes, which they were.
fn unpack(archive: &[u8], root: &Path) {
    let mut rest = &lz4_flex::block::decompress_size_prepended(archive).expect("an archive")[..];
    let mut take = |n: usize| rest.split_off(..n).map(<[u8]>::to_vec);
    while let Some(len) = take(2) {
        let len = u16::from_le_bytes([len[0], len[1]]);
        let path = root.join(String::from_utf8(take(len.into()).expect("a path")).expect("ASCII"));
        let len = u32::from_le_bytes(take(4).expect("a length").try_into().expect("four bytes"));
        let content = take(len as usize).expect("bytes");
        std::fs::create_dir_all(path.parent().expect("below the root")).expect("created");
        let file = std::fs::File::create(&path).expect("created");
        file.set_len(content.len() as u64).expect("grown");
        for (i, block) in content.chunks(4096).enumerate().filter(|(_, block)| block.iter().any(|&b| b != 0)) {
            file.write_all_at(block, i as u64 * 4096).expect("written");
        }
    }
}

fn check(ost: &Ost, when: &str) {
    let store = ost.store(FsId(1)).expect("asked").expect("there");
    assert_eq!(store.objects().expect("count"), 5, "{when}: objects");
    for (content, oid) in contents().iter().zip(1..) {
        let size = store.attr(&object(oid)).expect("attr").size;
        assert_eq!(size, content.len() as u64, "{when}: size of object {oid}");
        // Beyond the end as well: what was cut off must not come back.
        let read = get(&store, object(oid), 0, content.len() as u32 + 100_000, oid % 2 == 0).expect("read");
        assert!(read[..content.len()] == content[..], "{when}: bytes of object {oid}");
        assert!(read[content.len()..].iter().all(|&b| b == 0), "{when}: zeros behind object {oid}");
    }
}

#[test]
fn a_directory_is_kept() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ost = Ost::open(dir.path(), ost_options()).expect("opens");
    fill(&ost.store_or_new(FsId(1)).expect("made"));
    check(&ost, "just written");
    let mut archive = Vec::new();
    pack(dir.path(), dir.path(), &mut archive);
    let archive = lz4_flex::block::compress_prepend_size(&archive);
    let copy = tempfile::tempdir().expect("temp dir");
    unpack(&archive, copy.path());
    check(&Ost::open(copy.path(), ost_options()).expect("opens"), "copied while in use");
    if let Ok(version) = std::env::var("SATEEN_KEEP_VERSION") {
        let path = archives().join(format!("v{version}.lz4"));
        assert!(!path.exists(), "{} is kept for ever", path.display());
        std::fs::create_dir_all(archives()).expect("created");
        std::fs::write(path, archive).expect("written");
    }
}

/// The newest version of which a directory is kept.
const NEWEST: u32 = 3;

/// The archive of `version` in a directory of its own.
fn kept(version: u32) -> tempfile::TempDir {
    let archive = std::fs::read(archives().join(format!("v{version}.lz4"))).expect("kept");
    let dir = tempfile::tempdir().expect("temp dir");
    unpack(&archive, dir.path());
    dir
}

/// The index of the one file system is lost and made anew.
fn rebuild(dir: &Path) -> FsResult<super::super::rebuild::RebuildReport> {
    let ost = crate::superblock::Superblock::load(dir).expect("reads").expect("there").ost;
    let store = dir.join("fs/1");
    std::fs::remove_dir_all(store.join("index")).expect("removed");
    let disk = RealDisk::open(&store.join("segments")).expect("directory");
    let owner = SegmentOwner { ost, fs: FsId(1) };
    super::super::rebuild::rebuild(&store, &disk, &owner, &IndexCache::new(32 << 20))
}

#[test]
fn an_older_directory_gets_a_journal_at_its_first_start() {
    for version in 1..=NEWEST {
        let dir = kept(version);
        let refused = (version < 3).then(|| rebuild(kept(version).path()).expect_err("has no journal yet"));
        assert!(refused.is_none_or(|e| e.message.contains("no journal") && e.hint.is_some()));
        drop(Ost::open(dir.path(), ost_options()).expect("opens"));
        let report = rebuild(dir.path()).expect("rebuilt");
        assert!(report.is_whole(), "version {version}: {report:?}");
        check(&Ost::open(dir.path(), ost_options()).expect("opens"), &format!("version {version}, rebuilt"));
    }
}

#[test]
fn directories_of_every_version_open_and_read_back_the_same_bytes() {
    for version in 1..=NEWEST {
        let dir = kept(version);
        for start in 1..=2 {
            let ost = Ost::open(dir.path(), ost_options()).expect("opens");
            check(&ost, &format!("version {version}, start {start}"));
        }
    }
}

/// The settled place is before all that was committed: as if one slow write had been under way all the time.
fn settle_early(dir: &Path) {
    let index = Index::open_existing(&dir.join("fs/1/index"), &IndexCache::new(32 << 20), false).expect("opens");
    let mut batch = index.batch();
    batch.set_meta(META_SETTLED_SEGMENT, 1);
    batch.set_meta(META_SETTLED_OFFSET, 4096);
    index.write(batch).expect("written");
    index.sync().expect("synced");
}

/// Damages the first segment of the one file system: writes `bytes` where `place` finds what it looks for.
fn damage(dir: &Path, bytes: &[u8], place: impl Fn(&[u8]) -> Option<u64>) {
    let path = RealDisk::existing(&dir.join("fs/1/segments")).path(SegmentId(1));
    let at = place(&std::fs::read(&path).expect("read")).expect("found");
    std::fs::File::options().write(true).open(path).expect("opens").write_all_at(bytes, at).expect("written");
}

/// A place in the records of the first run of the journal.
fn in_first_run(segment: &[u8]) -> Option<u64> {
    let block = segment.chunks(4096).position(|block| block.starts_with(b"SATJRNL1"));
    block.map(|block| block as u64 * 4096 + 70)
}

#[test]
fn what_an_earlier_build_committed_behind_an_early_settled_place_is_kept() {
    type Case = (&'static str, u32, fn(&Path));
    let cases: [Case; 4] = [
        ("no journal", 2, |_| ()),
        ("a journal", 3, |_| ()),
        ("a damaged run", 3, |dir| damage(dir, b"rot", in_first_run)),
        ("no header", 3, |dir| damage(dir, &[0; 4096], |_| Some(0))),
    ];
    for (case, version, harm) in cases {
        let dir = kept(version);
        settle_early(dir.path());
        harm(dir.path());
        for start in 1..=2 {
            let ost = Ost::open(dir.path(), ost_options()).expect("opens");
            check(&ost, &format!("{case}, start {start}"));
        }
    }
}

#[test]
fn segments_without_header_or_journal_are_put_aside_by_a_rebuild() {
    for version in 1..NEWEST {
        let dir = kept(version);
        damage(dir.path(), &[0; 4096], |_| Some(0));
        let segments = RealDisk::existing(&dir.path().join("fs/1/segments")).list().expect("listed");
        let report = rebuild(dir.path()).expect("rebuilt");
        assert_eq!((segments.len(), &report.unclaimed), (1, &segments), "version {version}: {report:?}");
    }
}
