//! Segments that begin with zeros: a power cut took the header of what was never committed, or damage that of what was.
//! The first is nobody's loss and not told as one; the second is.

use std::os::unix::fs::FileExt;

use super::super::disk::SegmentId;
use super::super::rebuild::{RebuildReport, rebuild};
use super::super::segments::HEADER_BYTES;
use super::*;

fn put_noise(store: &Store, oid: u32, len: usize) {
    put(store, object(oid), 0, &noise(u64::from(oid), len)).expect("written");
}

fn reads_noise(store: &Store, oid: u32, len: usize) -> bool {
    get(store, object(oid), 0, len as u32, true).expect("whole") == noise(u64::from(oid), len)
}

fn segments(dir: &Path) -> Vec<SegmentId> {
    let mut list = RealDisk::existing(&dir.join("segments")).list().expect("listed");
    list.sort_unstable();
    list
}

fn take_header(dir: &Path, id: SegmentId) {
    let path = RealDisk::existing(&dir.join("segments")).path(id);
    let file = std::fs::File::options().write(true).open(path).expect("opens");
    file.write_all_at(&[0; HEADER_BYTES as usize], 0).expect("written");
}

fn rebuilt_without_index(dir: &Path) -> RebuildReport {
    std::fs::remove_dir_all(dir.join("index")).expect("removed");
    let disk = RealDisk::existing(&dir.join("segments"));
    rebuild(dir, &disk, &options(None, 1).owner, &IndexCache::new(32 << 20)).expect("rebuilt")
}

#[test]
fn headers_that_a_power_cut_took_behind_the_last_commit_are_no_damage_to_a_rebuild() {
    for committed in [false, true] {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = open(dir.path());
        if committed {
            put_noise(&store, 1, 9_000);
            store.commit().expect("committed");
        }
        for oid in 2..=4 {
            put_noise(&store, oid, 700_000);
        }
        drop(store);
        let all = segments(dir.path());
        assert!(all.len() >= 3, "{all:?}");
        // Not the last: headers go to the disk in any order.
        for id in &all[usize::from(committed)..all.len() - 1] {
            take_header(dir.path(), *id);
        }
        let report = rebuilt_without_index(dir.path());
        assert!(report.is_whole(), "{report:?}");
        // Without any run, these may be of a build that wrote none.
        let unclaimed = if committed { &[] } else { &all[..all.len() - 1] };
        assert_eq!(report.unclaimed, unclaimed, "{report:?}");
        assert_eq!(report.objects, u64::from(committed), "{report:?}");
        let store = open(dir.path());
        assert!(!committed || reads_noise(&store, 1, 9_000));
        assert!((2..=4).all(|oid| store.attr(&object(oid)).expect("attr").size == 0));
        assert!(store.index.journal_is_whole().expect("read"), "there is nothing to write anew");
        drop(store);
        let kept = segments(dir.path());
        let uncommitted = &all[usize::from(committed)..];
        assert!(!uncommitted.iter().any(|id| kept.contains(id)), "what holds nothing is deleted: {kept:?}");
        drop(open(dir.path()));
        assert!(segments(dir.path()).iter().all(|id| kept.contains(id)), "a second start adds nothing");
    }
}

#[test]
fn a_header_that_is_gone_from_what_was_committed_is_told() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path());
    put_noise(&store, 1, 9_000);
    store.commit().expect("committed");
    drop(store);
    let all = segments(dir.path());
    take_header(dir.path(), all[0]);
    let report = rebuilt_without_index(dir.path());
    assert_eq!((&report.headless, report.is_whole()), (&all, false), "{report:?}");
    assert_eq!(report.unclaimed, all, "to be put aside, not deleted");
}

#[test]
fn a_start_that_finds_no_header_before_committed_runs_writes_the_journal_anew() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = open(dir.path());
    for oid in 1..=3 {
        put_noise(&store, oid, 9_000);
        store.commit().expect("committed");
    }
    drop(store);
    take_header(dir.path(), segments(dir.path())[0]);
    drop(open(dir.path()));
    let report = rebuilt_without_index(dir.path());
    assert!(report.is_whole() && report.objects == 3, "{report:?}");
    let store = open(dir.path());
    assert!((1..=3).all(|oid| reads_noise(&store, oid, 9_000)));
}
