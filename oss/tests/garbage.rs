//! What stands at the end of the index's log when the power goes: an OSS starts, the check never hangs and changes
//! nothing that it was not told to, and committed changes are not cut away.

mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use sateen_oss::offline;
use sateen_oss::ost::{Ost, OstOptions};
use sateen_oss::store::index::IndexCache;
use sateen_oss::store::read::ReadRange;
use sateen_types::{Compression, Finding, FindingKind, FsCode, FsId, FsResult, FsckEvent, Repair};
use support::{CHUNK, CHUNK_LOG2, object};

/// What takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(30);
/// RocksDB's reader never gets past it: a header of the type of recycled logs.
const STILL: &[u8] = b"crc.ln\x05 and what follows";

fn open(dir: &Path) -> FsResult<Ost> {
    let cache = IndexCache::new(16 << 20);
    Ost::open(dir, OstOptions { capacity: None, reserve: 0, segment_bytes: 1 << 20, cache, create: true })
}

/// An OST with a committed chunk, and one that was written later and not committed.
fn fill(dir: &Path) {
    let ost = open(dir).expect("opens");
    let store = ost.store_or_new(FsId(1)).expect("made");
    support::write(&store, 1, 0, &[1; CHUNK], Compression::None);
    store.commit().expect("committed");
    support::write(&store, 2, 0, &[2; CHUNK], Compression::None);
}

/// The newest log of the index.
fn log(dir: &Path) -> PathBuf {
    let entries = std::fs::read_dir(dir.join("fs/1/index")).expect("listed").map(|e| e.expect("entry").path());
    entries.filter(|p| p.extension().is_some_and(|e| e == "log")).max().expect("a log")
}

fn append(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    let mut file = std::fs::File::options().append(true).open(path).expect("there");
    file.write_all(bytes).expect("written");
}

/// Everything below `dir`.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("listed") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else if path.file_name().is_some_and(|n| n != "lock") {
            let bytes = std::fs::read(&path).expect("read");
            found.insert(path, bytes);
        }
    }
    found
}

/// Runs `work` on a thread of its own and does not wait for ever.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(work()));
    told.recv_timeout(DEADLINE).expect("an answer in time")
}

fn check(dir: &Path, repair: bool) -> Vec<Finding> {
    let dir = dir.to_owned();
    in_time(move || {
        let mut found = Vec::new();
        let mut sink = |event| {
            if let FsckEvent::Finding(finding) = event {
                found.push(finding);
            }
            ControlFlow::Continue(())
        };
        offline::check(&dir, offline::Options { deep: true, repair, rebuild_index: false }, &mut sink)
            .expect("checked");
        found
    })
}

fn first_byte(dir: &Path, oid: u32) -> FsResult<u8> {
    let ost = open(dir)?;
    let store = ost.store(FsId(1))?.expect("there");
    let range = ReadRange { offset: 0, length: 1, sealed: false, verify: false };
    Ok(store.read(&object(oid), CHUNK_LOG2, range)?.payload.into_bytes()[0])
}

#[test]
fn a_check_of_a_log_that_ends_in_garbage_answers_and_only_a_repair_cuts_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    fill(dir.path());
    append(&log(dir.path()), STILL);
    let before = contents(dir.path());
    let found = check(dir.path(), false);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].kind, found[0].repair), (FindingKind::IndexUnreadable, Repair::Possible));
    assert!(found[0].what.contains("--repair"), "{found:?}");
    assert_eq!(contents(dir.path()), before, "nothing is changed without being told to");
    let found = check(dir.path(), true);
    assert_eq!((found[0].kind, found[0].repair), (FindingKind::Unsettled, Repair::Done), "{found:?}");
    assert!(found.iter().all(|f| f.kind.is_notice()), "{found:?}");
    assert!(check(dir.path(), false).iter().all(|f| f.kind.is_notice()));
    assert_eq!((first_byte(dir.path(), 1), first_byte(dir.path(), 2)), (Ok(1), Ok(2)));
}

#[test]
fn an_ost_starts_after_any_garbage_and_keeps_everything_whole() {
    for garbage in [STILL, &[0; 3], &[0; 40_000], &[0xff; 40_000], &[1; 40_000]] {
        let dir = tempfile::tempdir().expect("temp dir");
        fill(dir.path());
        append(&log(dir.path()), garbage);
        let path = dir.path().to_owned();
        let bytes = in_time(move || (first_byte(&path, 1), first_byte(&path, 2)));
        assert_eq!(bytes, (Ok(1), Ok(2)));
    }
}

#[test]
fn damage_before_committed_changes_is_refused_before_anything_is_cut() {
    let dir = tempfile::tempdir().expect("temp dir");
    fill(dir.path());
    let log = log(dir.path());
    let mut bytes = std::fs::read(&log).expect("read");
    bytes[20] ^= 1;
    std::fs::write(&log, &bytes).expect("written");
    let before = contents(dir.path());
    for repair in [false, true] {
        let found = check(dir.path(), repair);
        assert_eq!((found.len(), found[0].kind), (1, FindingKind::IndexUnreadable), "{found:?}");
    }
    let path = dir.path().to_owned();
    let error = in_time(move || first_byte(&path, 1)).expect_err("refused");
    assert!(error.code == FsCode::Corrupt && error.hint.is_some(), "{error:?}");
    let after = contents(dir.path());
    assert!(before.iter().all(|(path, bytes)| after.get(path) == Some(bytes) || path.ends_with("LOG")));
}

#[test]
fn a_manifest_that_rocksdb_does_not_get_over_is_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    fill(dir.path());
    let index = dir.path().join("fs/1/index");
    let current = std::fs::read_to_string(index.join("CURRENT")).expect("read");
    append(&index.join(current.trim_end()), STILL);
    for repair in [false, true] {
        let found = check(dir.path(), repair);
        assert_eq!((found.len(), found[0].kind), (1, FindingKind::IndexUnreadable), "{found:?}");
    }
    let path = dir.path().to_owned();
    assert_eq!(in_time(move || first_byte(&path, 1)).expect_err("refused").code, FsCode::Corrupt);
}
