//! The disk fails at every call, and the power is cut.

use std::collections::BTreeMap;

use sateen_types::FsCode;

use super::super::crashing::{Call, fail_index_write, watch};
use super::*;

/// What may be read of an object: one of these versions.
type Allowed = BTreeMap<u32, Vec<Vec<u8>>>;

const LEN: usize = 100_000;

/// `version` with zeros from `from` to `to`.
fn zeroed(version: &[u8], from: usize, to: usize) -> Vec<u8> {
    let mut version = version.to_vec();
    version[from..to].fill(0);
    version
}

/// Writes, overwrites, and then truncates, punches or destroys each object. Returns what may be there.
fn workload(store: &Store) -> Allowed {
    let mut allowed = Allowed::new();
    for oid in 1..=6u32 {
        let (old, new) = (noise(u64::from(oid), LEN), noise(u64::from(oid) + 100, LEN));
        let mut versions = vec![vec![0; LEN]];
        if store.write(sealed(object(oid), 0, &old, Compression::None)).is_ok() {
            versions = vec![old];
        } else {
            versions.push(old);
        }
        // Whether it succeeds shows in what the store answers later.
        let _ = store.commit();
        let overwritten = versions.iter().map(|v| [&v[..10], &new[10..LEN / 2], &v[LEN / 2..]].concat()).collect();
        if put(store, object(oid), 10, &new[10..LEN / 2]).is_ok() {
            versions = overwritten;
        } else {
            versions.extend(overwritten);
        }
        let (done, from, to) = match oid % 3 {
            0 => (store.truncate(&object(oid), CHUNK_LOG2, 5000, None).is_ok(), 5000, LEN),
            1 => (store.punch(&object(oid), CHUNK_LOG2, 300, 70_000, None).is_ok(), 300, 70_300),
            _ => (store.destroy(&[object(oid)]).is_ok(), 0, LEN),
        };
        let after: Vec<_> = versions.iter().map(|v| zeroed(v, from, to)).collect();
        if done {
            versions = after;
        } else {
            // Taking away goes chunk by chunk; a failure leaves what was not reached.
            let border = CHUNK as usize;
            versions = versions
                .iter()
                .flat_map(|v| [v.clone(), zeroed(v, from, border.max(from)), zeroed(v, border.min(to), to)])
                .chain(after)
                .collect();
        }
        allowed.insert(oid, versions);
    }
    allowed
}

fn check(store: &Store, allowed: &Allowed, when: &str) {
    for (&oid, versions) in allowed {
        let read = get(store, object(oid), 0, LEN as u32, oid % 2 == 0).unwrap_or_else(|e| panic!("{when}: {e}"));
        assert!(versions.contains(&read), "{when}: object {oid} holds what was never there");
    }
}

#[test]
fn the_nth_disk_call_fails_and_nothing_false_is_answered_or_read() {
    let calls = {
        let dir = tempfile::tempdir().expect("temp dir");
        let faults = Faults::none();
        let store = open_faulty(dir.path(), &faults).expect("opens");
        let allowed = workload(&store);
        assert!(allowed.values().all(|v| v.len() == 1), "without faults every outcome is certain");
        check(&store, &allowed, "no faults");
        faults.calls()
    };
    assert!(calls > 60, "the workload makes {calls} calls");
    for errno in [libc::EIO, libc::ENOSPC] {
        for n in 0..calls {
            let dir = tempfile::tempdir().expect("temp dir");
            let faults = Faults::new(n, errno, 50_000);
            let allowed = match open_faulty(dir.path(), &faults) {
                Ok(store) => workload(&store),
                Err(_) => Allowed::from([(1, vec![vec![0; LEN]])]),
            };
            check(&open(dir.path()), &allowed, &format!("call {n} failed with errno {errno}"));
        }
    }
}

#[test]
fn after_a_failed_sync_the_store_refuses_changes_and_still_reads() {
    let dir = tempfile::tempdir().expect("temp dir");
    let faults = Faults::new(u64::MAX, libc::EIO, usize::MAX);
    let store = open_faulty(dir.path(), &faults).expect("opens");
    put(&store, object(1), 0, b"safe").expect("written");
    store.commit().expect("committed");
    put(&store, object(2), 0, b"lost?").expect("written");
    faults.fail_after(0);
    let err = store.commit().expect_err("the sync failed");
    assert_eq!(err.code, FsCode::Io);
    assert!(err.hint.is_some() && store.is_failed());
    assert!(store.commit().is_err(), "never a false success");
    assert!(put(&store, object(3), 0, b"no").is_err());
    assert!(store.truncate(&object(1), CHUNK_LOG2, 0, None).is_err());
    assert!(store.destroy(&[object(1)]).is_err());
    assert_eq!(get(&store, object(1), 0, 4, true).expect("reads go on"), b"safe");
}

#[test]
fn a_commit_that_waits_for_a_writer_which_fails_does_not_make_its_change_durable() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = Arc::new(open(dir.path()));
    put(&store, object(1), 0, &noise(1, LEN)).expect("written");
    store.commit().expect("committed");
    put(&store, object(2), 0, b"uncommitted").expect("written");
    let (of_writer, of_commit) = (store.clone(), store.clone());
    let (begin, begins) = std::sync::mpsc::channel();
    let commit = std::thread::spawn(move || begins.recv().map(|()| of_commit.commit()));
    watch(Some(Box::new(move |call| {
        if call != Call::IndexWrite {
            return;
        }
        begin.send(()).expect("heard");
        // The writer has the gate. Nobody else can take it from when on the commit, which found the store healthy, waits.
        while of_writer.gate.try_read().is_some() {
            std::thread::yield_now();
        }
        fail_index_write();
    })));
    put(&store, object(1), 0, &noise(2, LEN)).expect_err("its batch is not written");
    watch(None);
    commit.join().expect("no panic").expect("began").expect_err("never a false success");
    drop(store);
    let store = open(dir.path());
    assert!(get(&store, object(1), 0, LEN as u32, true).expect("whole") == noise(1, LEN));
}

/// Destroys everything that was written and not synced.
pub(super) fn cut_power(dir: &Path, faults: &Faults) {
    use std::os::unix::fs::FileExt;
    for (segment, ranges) in faults.unsynced() {
        let file = std::fs::File::options().write(true).open(dir.join(format!("segments/{segment}.seg")));
        let Ok(file) = file else { continue };
        for (offset, len) in ranges {
            file.write_all_at(&vec![0xee; len as usize], offset).expect("damaged");
        }
    }
}

#[test]
fn a_power_cut_falls_back_to_the_committed_chunks() {
    let dir = tempfile::tempdir().expect("temp dir");
    let old = noise(1, 3 * CHUNK as usize);
    let faults = Faults::none();
    {
        let store = open_faulty(dir.path(), &faults).expect("opens");
        store.write(sealed(object(1), 0, &old, Compression::None)).expect("written");
        store.commit().expect("committed");
        let committed = store.attr(&object(1)).expect("attr");
        store.write(sealed(object(1), 1, &noise(2, CHUNK as usize), Compression::None)).expect("written");
        store.write(sealed(object(1), 1, &noise(3, CHUNK as usize), Compression::None)).expect("again");
        put(&store, object(1), 9 * CHUNK, b"beyond").expect("written");
        put(&store, object(2), 0, b"never committed").expect("written");
        assert_ne!(store.attr(&object(1)).expect("attr"), committed);
    }
    cut_power(dir.path(), &faults);
    let options = options(None, 2);
    let capacity = options.capacity.clone();
    let store = Store::open(dir.path(), options).expect("opens");
    assert!(get(&store, object(1), 0, old.len() as u32, true).expect("read") == old);
    let attr = store.attr(&object(1)).expect("attr");
    assert_eq!((attr.size, attr.allocated), (3 * CHUNK, 3 * CHUNK));
    assert_eq!(get(&store, object(2), 0, 20, true).expect("read"), [0; 20]);
    assert_eq!(store.attr(&object(2)).expect("attr"), super::super::ObjectAttr::default());
    assert_eq!(capacity.used(), 3 * CHUNK);
    drop(store);
    let store = open(dir.path());
    assert!(get(&store, object(1), 0, old.len() as u32, true).expect("a second start is the same") == old);
}

#[test]
fn a_power_cut_right_after_a_commit_loses_nothing() {
    let dir = tempfile::tempdir().expect("temp dir");
    let faults = Faults::none();
    let data = noise(5, 4 * CHUNK as usize);
    {
        let store = open_faulty(dir.path(), &faults).expect("opens");
        for round in 0..3 {
            store.write(sealed(object(1), 0, &noise(round, data.len()), Compression::None)).expect("written");
            put(&store, object(1), 77, &data[77..data.len() - 5]).expect("written");
        }
        store.write(sealed(object(1), 0, &data, Compression::None)).expect("written");
        store.commit().expect("committed");
    }
    cut_power(dir.path(), &faults);
    assert!(get(&open(dir.path()), object(1), 0, data.len() as u32, false).expect("read") == data);
}
