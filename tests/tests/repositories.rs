//! A bucket linked to a directory: its objects are files at once, and their bytes come when they are read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use sateen_dev_s3::store::Store;
use sateen_tests::cluster::{lfs, lfs_ok};
use sateen_tests::repository::Linked;
use sateen_tests::rng::pattern;
use sateen_tests::s3::{BUCKET, Pace};
use sateen_tests::size::amount;
use sateen_tests::wait;
use sateen_types::HsmFlags;

/// Longest a load may take on a loaded machine.
const LOAD: Duration = Duration::from_secs(120);
const MIB: usize = 1 << 20;
/// What `lfs hsm_state` prints of a file that is not all here, and of one that is.
const RELEASED: &str = "(0x0000000d) released exists archived, archive_id:1";
const LOADED: &str = "(0x00000009) exists archived, archive_id:1";

fn put(store: &Store, key: &str, bytes: &[u8], metadata: &[(&str, &str)]) {
    store.put(BUCKET, key, bytes, metadata).unwrap_or_else(|e| panic!("{key:?} cannot be put: {e}"));
}

/// Everything below a directory: path, and what it is.
fn tree(root: &Path) -> BTreeMap<String, char> {
    fn walk(root: &Path, dir: &Path, out: &mut BTreeMap<String, char>) {
        for entry in fs::read_dir(dir).expect("readable") {
            let path = entry.expect("an entry").path();
            let kind = fs::symlink_metadata(&path).expect("attributes").file_type();
            let letter = match () {
                () if kind.is_dir() => 'd',
                () if kind.is_symlink() => 'l',
                () if kind.is_file() => 'f',
                () if kind.is_fifo() || kind.is_socket() => 's',
                () => '?',
            };
            let name = path.strip_prefix(root).expect("below the root").as_os_str().as_bytes();
            out.insert(String::from_utf8_lossy(name).into_owned(), letter);
            if letter == 'd' {
                walk(root, &path, out);
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(root, root, &mut out);
    out
}

fn read_at(path: &Path, at: u64, len: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    File::open(path)?.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

/// What `lfs hsm_state` prints behind the path.
#[track_caller]
fn state(path: &Path) -> String {
    let text = lfs_ok(&[&"hsm_state", &path]);
    let shown = path.to_string_lossy().into_owned();
    let line = text.strip_prefix(&*shown).and_then(|rest| rest.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("{text:?}")).trim_end().to_owned()
}

#[test]
fn a_bucket_becomes_files_with_the_attributes_its_objects_tell() {
    let long = "n".repeat(256);
    let linked = Linked::start("repo-import", |store| {
        put(store, "README", b"plain", &[]);
        let told = [
            ("file-permissions", "0100640"),
            ("file-owner", "1234"),
            ("file-group", "4321"),
            ("file-atime", "1595002921000000000ns"),
            ("file-mtime", "1595002920000000001ns"),
            ("user-agent", "aws-fsx-lustre"),
        ];
        put(store, "dir/", b"", &[("file-permissions", "0100750"), ("file-owner", "7")]);
        put(store, "dir/sub/told", b"with attributes", &told);
        put(store, "dir/sub/wild", b"x", &[("file-permissions", "0106777"), ("file-owner", "root")]);
        put(store, "empty", b"", &[]);
        put(store, "emptydir/", b"", &[]);
        put(store, "link", b"dir/sub/told", &[("file-permissions", "0120777")]);
        put(store, "control\u{1}\n", b"odd, and a name all the same", &[]);
        put(store, "blank and + and %2F and \u{fc}", b"encoded", &[]);
        // What is no path, or is none any more.
        for hostile in ["../escape", "a//b", "dir/../up", "./dot", "nul\0", "/lead", "twice//", &long] {
            put(store, hostile, b"hostile", &[]);
        }
        put(store, "README/below", b"below a file", &[]);
        put(store, "same", b"file", &[]);
        put(store, "same/", b"", &[]);
        put(store, "pipe", b"", &[("file-permissions", "0010644")]);
        put(store, "disk", b"", &[("file-permissions", "0060644")]);
        put(store, "nowhere", b"", &[("file-permissions", "0120777")]);
    });
    let mount = linked.cluster.mount();
    let at = |path: &str| linked.on(&mount, path);

    let expected: BTreeMap<String, char> = [
        ("README", 'f'),
        ("blank and + and %2F and \u{fc}", 'f'),
        ("control\u{1}\n", 'f'),
        ("dir", 'd'),
        ("dir/sub", 'd'),
        ("dir/sub/told", 'f'),
        ("dir/sub/wild", 'f'),
        ("empty", 'f'),
        ("emptydir", 'd'),
        ("link", 'l'),
        ("same", 'f'),
    ]
    .into_iter()
    .map(|(name, kind)| (name.to_owned(), kind))
    .collect();
    assert_eq!(tree(&at("")), expected);
    let roots: BTreeSet<String> = fs::read_dir(mount.path())
        .expect("root")
        .map(|e| e.expect("entry").file_name().to_string_lossy().into())
        .collect();
    assert!(
        roots.is_subset(&["dataset".to_owned(), "lost+found".to_owned()].into()),
        "nothing is beside the link: {roots:?}"
    );

    let told = fs::metadata(at("dir/sub/told")).expect("attributes");
    assert_eq!((told.mode(), told.uid(), told.gid(), told.size()), (0o100640, 1234, 4321, 15));
    assert_eq!((told.mtime(), told.mtime_nsec(), told.atime()), (1_595_002_920, 1, 1_595_002_921));
    let plain = fs::metadata(at("README")).expect("attributes");
    assert_eq!((plain.mode(), plain.uid(), plain.gid(), plain.size()), (0o100755, 0, 0, 5));
    assert_eq!(fs::metadata(at("dir")).expect("attributes").mode() & 0o7777, 0o750);
    assert_eq!(fs::metadata(at("dir")).expect("attributes").uid(), 7);
    let wild = fs::metadata(at("dir/sub/wild")).expect("attributes");
    assert_eq!((wild.mode() & 0o7777, wild.uid()), (0o777, 0), "neither setuid nor setgid comes from a bucket");
    assert_eq!(fs::read_link(at("link")).expect("a link"), Path::new("dir/sub/told"));

    assert_eq!(fs::read(at("README")).expect("read"), b"plain");
    assert_eq!(fs::read(at("link")).expect("read"), b"with attributes");
    assert_eq!(fs::read(at("empty")).expect("read"), b"");
    assert_eq!(fs::read(at("same")).expect("read"), b"file");
    assert_eq!(fs::read(at("control\u{1}\n")).expect("read"), b"odd, and a name all the same");
    assert_eq!(fs::read(at("blank and + and %2F and \u{fc}")).expect("read"), b"encoded");

    let import = linked.now().expect("the MDS answers").import;
    let skipped: BTreeMap<String, String> =
        import.first_skipped.iter().map(|s| (String::from_utf8_lossy(&s.key).into_owned(), s.code.clone())).collect();
    let path = "S3ImportObjectPathNotPosixCompliant";
    for key in ["../escape", "a//b", "dir/../up", "./dot", "nul\0", "/lead", "twice//", &long] {
        assert_eq!(skipped.get(key).map(String::as_str), Some(path), "{key:?} of {skipped:?}");
    }
    for key in ["README/below", "same/"] {
        assert_eq!(skipped.get(key).map(String::as_str), Some("S3ImportObjectTypeMismatch"), "{key:?} of {skipped:?}");
    }
    for key in ["pipe", "disk", "nowhere"] {
        assert!(skipped.contains_key(key), "{key:?} of {skipped:?}");
    }
    assert_eq!(skipped.len(), 13, "{skipped:?}");

    let again = linked.import_again().import;
    assert_eq!((again.created, again.changed), (0, 0), "the same objects change nothing");
    assert_eq!(tree(&at("")), expected);
    linked.cluster.assert_names_sound();
}

#[test]
fn a_read_in_the_middle_does_not_wait_for_the_whole_file() {
    let bytes = pattern(1, 200 * MIB);
    let linked = Linked::start("repo-lazy", |store| put(store, "large", &bytes, &[]));
    let mut mount = linked.cluster.mount();
    let large = linked.on(&mount, "large");
    assert_eq!(fs::metadata(&large).expect("attributes").size(), bytes.len() as u64);
    assert_eq!(state(&large), RELEASED);
    assert_eq!(linked.hsm("large").loaded_bytes, 0);

    let middle = 100 * MIB + 12345;
    assert!(read_at(&large, middle as u64, 4096).expect("read") == bytes[middle..middle + 4096]);
    // It is read before it is durable, and counts from then on.
    let durable = || Some(linked.hsm("large").loaded_bytes).filter(|loaded| *loaded >= 4096);
    let loaded = wait::until("what was read to be durable", LOAD, durable);
    assert!(loaded < bytes.len() as u64 / 2, "{loaded} of {} bytes were fetched", bytes.len());
    assert_eq!(state(&large), RELEASED);

    assert!(fs::read(&large).expect("read") == bytes);
    wait::until("a file that is all there", LOAD, || (state(&large) == LOADED).then_some(()));
    assert_eq!(linked.workers[0].figure("fetched_bytes_total"), bytes.len() as u64, "nothing is fetched twice");

    // From the OSTs, without a cache.
    mount.remount();
    assert!(fs::read(&large).expect("read") == bytes);

    lfs_ok(&[&"hsm_release", &large]);
    assert_eq!(state(&large), RELEASED);
    assert_eq!(linked.hsm("large").loaded_bytes, 0);
    assert!(read_at(&large, middle as u64, 4096).expect("read") == bytes[middle..middle + 4096]);
    lfs_ok(&[&"hsm_restore", &large]);
    wait::until("a file that is restored", LOAD, || (state(&large) == LOADED).then_some(()));
    assert!(fs::read(&large).expect("read") == bytes);
    linked.cluster.assert_names_sound();
}

#[test]
fn an_object_that_changed_is_refreshed_or_an_error_and_never_mixed() {
    let (old, new) = (pattern(2, 24 * MIB), pattern(3, 20 * MIB + 17));
    let linked = Linked::start("repo-changed", |store| {
        for key in ["unread", "gone", "partly", "partly-gone"] {
            put(store, key, &old, &[]);
        }
    });
    let mount = linked.cluster.mount();
    let at = |path: &str| linked.on(&mount, path);
    for part in ["partly", "partly-gone"] {
        assert!(read_at(&at(part), 0, 4096).expect("read") == old[..4096]);
    }
    linked.s3.put("unread", &new, &[]);
    linked.s3.put("partly", &new, &[]);
    linked.s3.delete("gone");
    linked.s3.delete("partly-gone");

    let end = old.len() as u64 - 4096;
    let refused = |path: &str| {
        let error = read_at(&at(path), end, 4096).map(drop).expect_err("its bytes are nowhere");
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{path}: {error}");
    };
    refused("gone");
    // What follows may have been fetched ahead before the object changed: then it is the old one's.
    for part in ["partly", "partly-gone"] {
        match read_at(&at(part), end, 4096) {
            Ok(read) => {
                assert!(read == old[end as usize..], "{part}: other bytes than those of the object that was imported")
            }
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EIO), "{part}: {error}"),
        }
    }
    for part in ["partly", "partly-gone"] {
        assert!(read_at(&at(part), 0, 4096).expect("what was loaded stays") == old[..4096]);
    }
    // Of this one nothing was read: it may be refreshed by itself.
    if let Ok(read) = fs::read(at("unread")) {
        let known = read.len().min(new.len());
        assert!(read[..known] == new[..known], "bytes of the old object, or of both");
    }

    // A file counts as open until the MDS has heard of its close, and while something of it is being fetched: then it is left alone.
    wait::until("an import that finds nothing open", LOAD, || {
        (linked.import_again().import.skipped == 0).then_some(())
    });
    // What the kernel knows of the size may be of before, for a moment.
    for key in ["unread", "partly"] {
        wait::until("the new object", LOAD, || {
            let read = fs::read(at(key)).ok()?;
            let known = read.len().min(new.len());
            assert!(read[..known] == new[..known], "{key}: bytes of the old object, or of both");
            (read.len() == new.len()).then_some(())
        });
    }
    refused("gone");
    assert!(read_at(&at("partly-gone"), 0, 4096).expect("what was loaded stays") == old[..4096]);
    linked.cluster.assert_names_sound();
}

#[test]
fn writes_and_truncates_keep_what_they_do_not_touch() {
    let old = pattern(4, 12 * MIB + 4097);
    let keys = ["middle", "append", "zero", "shorter", "longer", "open-trunc"];
    let linked = Linked::start("repo-write", |store| keys.iter().for_each(|key| put(store, key, &old, &[])));
    let mut mount = linked.cluster.mount();
    let at = |mount: &sateen_tests::Mount, path: &str| linked.on(mount, path);
    let mut expected: BTreeMap<&str, Vec<u8>> = keys.iter().map(|key| (*key, old.clone())).collect();

    let place = 5 * MIB + 100;
    let open = |path: &str| File::options().write(true).open(at(&mount, path)).expect("open");
    open("middle").write_all_at(b"written over", place as u64).expect("write");
    expected.get_mut("middle").expect("known")[place..place + 12].copy_from_slice(b"written over");
    File::options().append(true).open(at(&mount, "append")).expect("open").write_all(b"behind").expect("append");
    expected.get_mut("append").expect("known").extend_from_slice(b"behind");
    open("zero").set_len(0).expect("truncate");
    expected.insert("zero", Vec::new());
    open("shorter").set_len(MIB as u64 + 1).expect("truncate");
    expected.get_mut("shorter").expect("known").truncate(MIB + 1);
    open("longer").set_len(old.len() as u64 + 5000).expect("truncate");
    expected.get_mut("longer").expect("known").extend(std::iter::repeat_n(0, 5000));
    fs::write(at(&mount, "open-trunc"), b"new").expect("write");
    expected.insert("open-trunc", b"new".to_vec());

    let check = |mount: &sateen_tests::Mount| {
        for (key, bytes) in &expected {
            assert!(fs::read(at(mount, key)).expect("read") == *bytes, "{key} has other bytes");
        }
    };
    check(&mount);
    mount.remount();
    check(&mount);
    for key in keys {
        let flags = linked.hsm(key).flags;
        assert!(flags.has(HsmFlags::DIRTY) && !flags.has(HsmFlags::RELEASED), "{key}: {flags:?}");
        let done = lfs(&[&"hsm_release", &at(&mount, key)]);
        assert!(!done.success(), "what is only here is not given up: {done}");
    }
    check(&mount);
    linked.cluster.assert_names_sound();
}

#[test]
fn an_import_goes_on_where_a_killed_worker_or_mds_left_it() {
    const OBJECTS: usize = 6000;
    let slow = Pace { delay: Duration::from_millis(20), bytes_per_second: 0 };
    let mut linked = Linked::begin("repo-import-kill", slow, |store| {
        (0..OBJECTS).for_each(|i| put(store, &format!("d{:02}/f{i:05}", i % 20), format!("{i}").as_bytes(), &[]));
    });
    // However fast the import is: at its end there is nothing more to wait for.
    let so_far = |linked: &Linked, more_than: u64| {
        wait::until("a page of the import", LOAD, || {
            let objects = linked.now()?.import.objects;
            (objects > more_than || objects == OBJECTS as u64).then_some(objects)
        })
    };
    let first = so_far(&linked, 0);
    linked.workers[0].kill9();
    linked.add_worker();
    so_far(&linked, first);
    linked.cluster.kill_mds();
    linked.cluster.start_mds();
    linked.s3.restart(Pace::default());
    let done = linked.imported().import;
    assert_eq!(done.skipped, 0, "{done:?}");
    let mount = linked.cluster.mount();
    let found = tree(&linked.on(&mount, ""));
    assert_eq!(found.values().filter(|kind| **kind == 'f').count(), OBJECTS);
    for i in (0..OBJECTS).step_by(997) {
        let bytes = fs::read(linked.on(&mount, &format!("d{:02}/f{i:05}", i % 20))).expect("read");
        assert_eq!(bytes, format!("{i}").as_bytes());
    }
    linked.workers[1].terminate();
    linked.cluster.assert_names_sound();
}

#[test]
fn loads_go_on_when_worker_or_mds_or_store_are_killed() {
    let files: Vec<Vec<u8>> = (0..4).map(|i| pattern(10 + i, 32 * MIB + i as usize)).collect();
    let mut linked = Linked::start("repo-load-kill", |store| {
        files.iter().enumerate().for_each(|(i, bytes)| put(store, &format!("f{i}"), bytes, &[]));
    });
    linked.s3.restart(Pace { delay: Duration::ZERO, bytes_per_second: 4 << 20 });
    let mount = linked.cluster.mount();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..files.len())
            .map(|i| {
                let path = linked.on(&mount, &format!("f{i}"));
                scope.spawn(move || fs::read(path))
            })
            .collect();
        // However fast the loads are: at their end there is nothing more to wait for.
        let all: u64 = files.iter().map(|bytes| bytes.len() as u64).sum();
        let loaded = |linked: &Linked| -> Option<u64> {
            (0..files.len()).map(|i| Some(linked.try_hsm(&format!("f{i}")).ok()?.loaded_bytes)).sum()
        };
        let more = |linked: &Linked, than: u64| {
            wait::until("bytes that are loaded", LOAD, || loaded(linked).filter(|n| *n > than || *n == all))
        };
        let first = more(&linked, 0);
        linked.workers[0].kill9();
        linked.add_worker();
        let second = more(&linked, first);
        linked.cluster.kill_mds();
        linked.cluster.start_mds();
        let third = more(&linked, second);
        linked.s3.restart(Pace::default());
        more(&linked, third);
        for (i, reader) in readers.into_iter().enumerate() {
            let read = reader.join().expect("a reader").unwrap_or_else(|e| panic!("f{i}: {e}"));
            assert!(read == files[i], "f{i} has other bytes");
        }
    });
    drop(mount);
    let mount = linked.cluster.mount();
    for (i, bytes) in files.iter().enumerate() {
        assert!(fs::read(linked.on(&mount, &format!("f{i}"))).expect("read") == *bytes, "f{i} on the OSTs");
    }
    linked.cluster.assert_names_sound();
}

#[test]
fn a_file_that_is_removed_while_it_is_loaded_is_read_to_its_end() {
    let bytes = pattern(20, 48 * MIB);
    let mut linked = Linked::start("repo-unlink", |store| put(store, "large", &bytes, &[]));
    linked.s3.restart(Pace { delay: Duration::ZERO, bytes_per_second: 16 << 20 });
    let mount = linked.cluster.mount();
    let path = linked.on(&mount, "large");
    let file = File::open(&path).expect("open");
    let mut read = vec![0; bytes.len()];
    file.read_exact_at(&mut read[..MIB], 0).expect("read");
    fs::remove_file(&path).expect("removed");
    file.read_exact_at(&mut read[MIB..], MIB as u64).expect("read");
    assert!(read == bytes);
    drop(file);
    assert!(!path.exists());
    linked.cluster.assert_names_sound();
}

#[test]
fn two_mounts_share_what_is_fetched() {
    let bytes = pattern(30, 64 * MIB);
    let mut linked = Linked::start("repo-share", |store| put(store, "large", &bytes, &[]));
    linked.s3.restart(Pace { delay: Duration::ZERO, bytes_per_second: 32 << 20 });
    let (a, b) = (linked.cluster.mount(), linked.cluster.mount());
    std::thread::scope(|scope| {
        let readers = [&a, &b].map(|mount| {
            let path = linked.on(mount, "large");
            scope.spawn(move || fs::read(path))
        });
        for reader in readers {
            assert!(reader.join().expect("a reader").expect("read") == bytes);
        }
    });
    assert_eq!(linked.workers[0].figure("fetched_bytes_total"), bytes.len() as u64, "each range is fetched once");
}

/// How fast it was is printed only: a machine that runs other tests measures them too.
#[test]
fn many_objects_and_a_large_one_come_in_whole() {
    let objects = amount("objects to import", 2_000, 200_000) as usize;
    let large = pattern(40, 256 * MIB);
    let linked = Linked::begin("repo-figures", Pace::default(), |store| {
        (0..objects).for_each(|i| put(store, &format!("many/{:03}/{i:06}", i % 200), b"", &[]));
        put(store, "zz-large", &large, &[]);
    });
    let import = linked.imported().import;
    assert_eq!((import.objects, import.skipped), (objects as u64 + 1, 0));
    let (Some(started), Some(ended)) = (import.started, import.ended) else { panic!("{import:?}") };
    let seconds = (ended.seconds - started.seconds) as f64 + (f64::from(ended.nanos) - f64::from(started.nanos)) / 1e9;
    eprintln!("import: {} objects in {seconds:.2} s, {:.0}/s", import.objects, import.objects as f64 / seconds);

    let client = linked.s3.client();
    let key = object_store::path::Path::from("zz-large");
    let bare = |ranges: Vec<std::ops::Range<u64>>| {
        let begin = std::time::Instant::now();
        sateen_tests::rpc::block_on(async {
            use object_store::ObjectStoreExt;
            let parts = ranges.into_iter().map(|range| client.get_range(&key, range));
            futures::future::try_join_all(parts).await.expect("ranges of the object")
        });
        begin.elapsed()
    };
    bare(std::iter::once(0..1).collect());
    let first_bare = bare(std::iter::once(0..128 << 10).collect());
    let all_bare = bare((0..32).map(|i| i * (8 << 20)..(i + 1) * (8 << 20)).collect());
    let mount = linked.cluster.mount();
    let path = linked.on(&mount, "zz-large");
    let file = File::open(&path).expect("open");
    let begin = std::time::Instant::now();
    file.read_exact_at(&mut [0; 1], 0).expect("read");
    let first = begin.elapsed();
    assert!(fs::read(&path).expect("read") == large);
    let all = begin.elapsed();
    let rate = |time: Duration| 256.0 / time.as_secs_f64();
    eprintln!("first byte: {first:.1?}, a bare GET of 128 KiB {first_bare:.1?}");
    eprintln!("all in a row: {:.0} MiB/s, bare parallel GETs {:.0} MiB/s", rate(all), rate(all_bare));
}

#[test]
fn a_link_that_is_made_again_knows_its_files() {
    let bytes = |i: u64| pattern(i, 3 * MIB + 7);
    let names = ["read", "part", "unread", "dirty", "both"];
    let mut linked = Linked::start("repo-again", |store| {
        (0u64..).zip(names).for_each(|(i, name)| put(store, name, &bytes(i), &[]));
    });
    let mount = linked.cluster.mount();
    let root = linked.on(&mount, "");
    assert!(fs::read(root.join("read")).expect("read") == bytes(0));
    read_at(&root.join("part"), 0, 10).expect("read");
    let ended = linked.id;
    for name in ["dirty", "both"] {
        let file = File::options().write(true).open(root.join(name)).expect("opens");
        file.write_all_at(b"changed here", 5).expect("written");
    }
    for name in ["dirty", "both"] {
        let told = || linked.hsm(name).flags.has(HsmFlags::DIRTY).then_some(());
        wait::until("a change that the MDS knows of", LOAD, told);
    }
    linked.s3.put("both", b"changed there", &[]);
    // Somebody else's region: the server knows only one.
    linked.make_again(|settings| settings.region = "us-west-2".to_owned());
    assert!(linked.id > ended);
    let import = linked.imported().import;
    assert_eq!((import.created, import.changed, import.skipped), (0, 0, 1), "{import:?}");
    let conflicts: Vec<_> = linked.conflicts().into_iter().map(|conflict| conflict.key).collect();
    assert_eq!(conflicts, [b"both".to_vec()]);
    for name in ["read", "part", "unread", "dirty"] {
        assert_eq!(linked.hsm(name).repository, Some(linked.id), "{name}");
    }
    assert_eq!(state(&root.join("read")), LOADED);
    assert_eq!(state(&root.join("unread")), RELEASED);
    assert!(linked.hsm("dirty").flags.has(HsmFlags::DIRTY));
    for (i, name) in (0u64..).zip(&names[..3]) {
        assert!(fs::read(root.join(name)).expect("read") == bytes(i), "{name}");
    }
    let mut changed = bytes(3);
    changed[5..17].copy_from_slice(b"changed here");
    assert!(fs::read(root.join("dirty")).expect("read") == changed);
    // And the directory stays where it is.
    let busy = |e: std::io::Error| assert_eq!(e.raw_os_error(), Some(libc::EBUSY), "{e}");
    busy(fs::rename(&root, root.with_file_name("elsewhere")).expect_err("linked"));
    linked.cluster.assert_names_sound();
}
