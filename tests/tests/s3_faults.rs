//! A store in trouble: whatever it answers, or does not, a file has bytes of one version of its object or an error, what failed is
//! listed with its cause, and all goes through when the trouble is over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use rand::Rng;
use sateen_dev_s3::store::Store;
use sateen_tests::cluster::{lfs, lfs_ok};
use sateen_tests::repository::Linked;
use sateen_tests::rng::{pattern, seeded};
use sateen_tests::s3::{BUCKET, Object, Pace};
use sateen_tests::s3_proxy::{Fault, Operation, Proxy, Rule};
use sateen_tests::wait;
use sateen_types::repository::{ImportState, Repository, RepositoryEvents, RepositorySettings, RepositoryState};

const MIB: usize = 1 << 20;
/// Longest anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(180);
const SYMLINK: [(&str, &str); 1] = [("file-permissions", "0120777")];

fn put(store: &Store, key: &str, bytes: &[u8], metadata: &[(&str, &str)]) {
    store.put(BUCKET, key, bytes, metadata).unwrap_or_else(|e| panic!("{key:?} cannot be put: {e}"));
}

/// Waits until the link says that its bucket cannot be used; gives what it says.
#[track_caller]
fn misconfigured(linked: &Linked) -> Repository {
    wait::until("a link that is MISCONFIGURED", PATIENCE, || {
        linked.now().filter(|now| now.state == RepositoryState::Misconfigured)
    })
}

/// Waits until the link is in use again, by itself.
#[track_caller]
fn available(linked: &Linked) {
    wait::until("a link that is AVAILABLE", PATIENCE, || {
        linked.now().filter(|now| now.state == RepositoryState::Available && now.message.is_empty()).map(drop)
    });
}

/// A bucket that is linked through a proxy with these faults. To be dropped the other way round.
#[track_caller]
fn through(
    label: &'static str,
    faults: impl FnOnce(&Proxy),
    settings: impl FnOnce(&mut RepositorySettings),
    fill: impl FnOnce(&Store),
) -> (Proxy, Linked) {
    let seed = seeded(label).random();
    let mut proxy = None;
    let linked = Linked::begin_with(
        label,
        Pace::default(),
        |given| {
            let made = Proxy::start(&given.endpoint, seed);
            given.endpoint = made.endpoint();
            faults(&made);
            settings(given);
            proxy = Some(made);
        },
        fill,
    );
    (proxy.expect("the settings are asked for"), linked)
}

fn exporting(settings: &mut RepositorySettings) {
    settings.auto_export = RepositoryEvents { created: true, changed: true, deleted: true };
}

#[test]
fn an_import_makes_every_object_a_file_and_lists_what_it_could_not_read() {
    const OBJECTS: usize = 2300;
    const LINKS: usize = 40;
    let key = |i: usize| format!("d{:02}/f{i:05}", i % 20);
    let link = |i: usize| format!("links/l{i:02}");
    let faults = |proxy: &Proxy| {
        let (list, head, get) = (&[Operation::List][..], &[Operation::Head][..], &[Operation::Get][..]);
        proxy.rule(Rule::new(Fault::Denied, head).of(&key(777)));
        proxy.rule(Rule::new(Fault::OtherVersion, get).of(&link(7)));
        for fault in [Fault::SlowDown, Fault::Cut, Fault::Reset, Fault::Internal, Fault::Cut] {
            proxy.rule(Rule::new(fault, list).times(1));
        }
        proxy.rule(Rule::new(Fault::Slow(Duration::from_millis(500)), list).times(2));
        for fault in [Fault::SlowDown, Fault::Reset, Fault::Internal] {
            proxy.rule(Rule::new(fault, head).chance(0.02));
            proxy.rule(Rule::new(fault, get).chance(0.1));
        }
        proxy.rule(Rule::new(Fault::Cut, get).times(3));
    };
    let (proxy, linked) = through(
        "faults-import",
        faults,
        |_| {},
        |store| {
            (0..OBJECTS).for_each(|i| put(store, &key(i), format!("{i}").as_bytes(), &[]));
            (0..LINKS).for_each(|i| put(store, &link(i), format!("../{}", key(i)).as_bytes(), &SYMLINK));
        },
    );
    let import = linked.imported().import;
    assert!(proxy.happened_to(Fault::Cut, Operation::List) == 2 && proxy.happened_to(Fault::Cut, Operation::Get) == 3);
    for fault in [Fault::SlowDown, Fault::Reset, Fault::Internal] {
        assert!(proxy.happened_to(fault, Operation::Head) > 5, "{fault:?}");
    }
    let skipped: BTreeMap<_, _> = import.first_skipped.iter().map(|s| (s.key.clone(), (&s.code, &s.message))).collect();
    let refused = [key(777).into_bytes(), link(7).into_bytes()];
    assert_eq!(skipped.keys().cloned().collect::<Vec<_>>(), refused, "{skipped:?}");
    let (code, message) = skipped[&refused[0]];
    // The answer to a HEAD has no body that could say more.
    assert!(code == "S3ImportAccessDenied" && message.contains("403"), "{code} {message}");
    assert!(skipped[&refused[1]].1.contains("ETag"), "{}", skipped[&refused[1]].1);

    let mount = linked.cluster.mount();
    let at = |path: &str| linked.on(&mount, path);
    let missing = || {
        let files = (0..OBJECTS).map(key).chain((0..LINKS).map(link));
        files.filter(|path| fs::symlink_metadata(at(path)).is_err()).collect::<BTreeSet<_>>()
    };
    assert_eq!(missing(), refused.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect());
    assert_eq!(fs::read_dir(at("d07")).expect("readable").count(), OBJECTS / 20, "no name but those of objects");

    // A bucket that may not be listed: said, and over when it may be.
    proxy.clear();
    proxy.rule(Rule::new(Fault::Denied, &[Operation::List]));
    linked.begin_import();
    let failed = wait::until("an import that failed", PATIENCE, || {
        linked.now().filter(|now| now.import.state == ImportState::Failed)
    });
    assert!(failed.import.message.contains("AccessDenied"), "{}", failed.import.message);
    let said = misconfigured(&linked).message;
    assert!(said.contains("AccessDenied"), "{said}");
    // What is asked for meanwhile waits.
    linked.begin_import();
    proxy.clear();
    available(&linked);
    wait::until("an import of everything", PATIENCE, || {
        let now = linked.now()?.import;
        match now.state {
            ImportState::Failed => {
                linked.begin_import();
                None
            }
            ImportState::Done => Some(now),
            _ => None,
        }
    });
    let import = linked.now().expect("the MDS answers").import;
    assert_eq!((import.skipped, import.changed), (0, 0), "{import:?}");
    wait::until("every file", PATIENCE, || missing().is_empty().then_some(()));
    assert_eq!(fs::read(at(&key(777))).expect("read"), b"777");
    assert_eq!(fs::read(at(&link(7))).expect("read"), b"7");
    linked.cluster.assert_names_sound();
}

/// Bytes of a file, or `None` for EIO. Nothing else is allowed.
#[track_caller]
fn bytes_or_eio(path: &Path, at: usize, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    match File::open(path).and_then(|file| file.read_exact_at(&mut bytes, at as u64)) {
        Ok(()) => Some(bytes),
        Err(e) => {
            assert_eq!(e.raw_os_error(), Some(libc::EIO), "{}: {e}", path.display());
            None
        }
    }
}

#[test]
fn a_read_gives_the_bytes_of_one_version_or_an_error() {
    const FILES: usize = 6;
    const READS: usize = 60;
    let contents: Vec<Vec<u8>> = (0..FILES).map(|i| pattern(i as u64, 9 * MIB + 4321 * i)).collect();
    let name = |i: usize| format!("f{i}");
    let (proxy, linked) = through(
        "faults-read",
        |_| {},
        |_| {},
        |store| {
            contents.iter().enumerate().for_each(|(i, bytes)| put(store, &name(i), bytes, &[]));
        },
    );
    linked.imported();
    let get = [Operation::Get];
    let certain = [Fault::Cut, Fault::OtherVersion, Fault::NoRange, Fault::Reset, Fault::SlowDown, Fault::Denied];
    certain.into_iter().enumerate().for_each(|(i, fault)| proxy.rule(Rule::new(fault, &get).of(&name(i)).times(2)));
    for (fault, chance) in [
        (Fault::Cut, 0.15),
        (Fault::OtherVersion, 0.05),
        (Fault::NoRange, 0.05),
        (Fault::Reset, 0.05),
        (Fault::SlowDown, 0.05),
        (Fault::Internal, 0.05),
        (Fault::Denied, 0.03),
        (Fault::Slow(Duration::from_millis(100)), 0.2),
    ] {
        proxy.rule(Rule::new(fault, &get).chance(chance));
    }
    let mut mount = linked.cluster.mount();
    let root = linked.on(&mount, "");
    let at = |i: usize| root.join(name(i));
    let seed: u64 = seeded("faults-read-places").random();
    let (read, failed) = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3u64)
            .map(|reader| {
                let (contents, at) = (&contents, &at);
                scope.spawn(move || {
                    let mut rng: rand::rngs::StdRng = rand::SeedableRng::seed_from_u64(seed ^ reader);
                    let (mut read, mut failed) = (0, 0);
                    for _ in 0..READS {
                        let i = rng.random_range(0..FILES);
                        let len = rng.random_range(1..2 * MIB);
                        let from = rng.random_range(0..contents[i].len() - len);
                        match bytes_or_eio(&at(i), from, len) {
                            Some(bytes) => {
                                assert!(bytes == contents[i][from..from + len], "f{i}: torn at {from}, {len} bytes");
                                read += 1;
                            }
                            None => failed += 1,
                        }
                        // Whether it is taken back, or in use, or not all there: more is to be fetched afterwards.
                        match rng.random_range(0..6) {
                            0 => drop(lfs(&[&"hsm_release", &at(i)])),
                            1 => drop(lfs(&[&"hsm_restore", &at(i)])),
                            _ => {}
                        }
                    }
                    (read, failed)
                })
            })
            .collect();
        let ended = readers.into_iter().map(|reader| reader.join().expect("no torn bytes"));
        ended.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    });
    eprintln!("{read} reads, {failed} errors, {} faults", proxy.faults());
    assert!(read > 0 && failed > 0, "{read} reads, {failed} errors");
    certain.into_iter().for_each(|fault| assert!(proxy.happened(fault) >= 2, "{fault:?}"));

    proxy.clear();
    for (i, bytes) in contents.iter().enumerate() {
        // What failed a moment ago may be what this one waits for.
        wait::until("a read without an error", PATIENCE, || {
            let whole = bytes_or_eio(&at(i), 0, bytes.len())?;
            assert!(whole == *bytes, "f{i} is torn");
            Some(())
        });
        lfs_ok(&[&"hsm_restore", &at(i)]);
    }
    for (i, bytes) in contents.iter().enumerate() {
        let state = || (linked.hsm(&name(i)).loaded_bytes == bytes.len() as u64).then_some(());
        wait::until("a file that is all here", PATIENCE, state);
    }
    mount.remount();
    let fetched = proxy.asked(Operation::Get);
    for (i, bytes) in contents.iter().enumerate() {
        assert!(fs::read(at(i)).expect("read") == *bytes, "f{i} is torn on the OSTs");
    }
    assert_eq!(proxy.asked(Operation::Get), fetched, "what is all here is not fetched");
    linked.cluster.assert_names_sound();
}

#[test]
fn a_store_that_does_not_answer_is_asked_again() {
    let bytes = pattern(5, 3 * MIB);
    let silent = |proxy: &Proxy, operation| proxy.rule(Rule::new(Fault::Silent, &[operation]).times(1));
    let (proxy, linked) = through("faults-silent", |_| {}, exporting, |store| put(store, "there", &bytes, &[]));
    linked.imported();
    let mount = linked.cluster.mount();
    for operation in [Operation::List, Operation::Get, Operation::Put, Operation::Begin] {
        silent(&proxy, operation);
    }
    // All at once: each costs the time after which a store counts as silent.
    linked.begin_import();
    fs::write(linked.on(&mount, "small"), b"small").expect("written");
    fs::write(linked.on(&mount, "large"), pattern(6, 20 * MIB)).expect("written");
    assert!(fs::read(linked.on(&mount, "there")).expect("read") == bytes);
    linked.imported();
    let bucket = linked.exported("both files", |bucket| bucket.contains_key("small") && bucket.contains_key("large"));
    assert!(bucket["small"].bytes == b"small" && bucket["large"].bytes == pattern(6, 20 * MIB));
    assert_eq!(proxy.happened(Fault::Silent), 4);
    assert_eq!(linked.conflicts(), []);
}

/// Whether the bucket is exactly this.
fn is(bucket: &BTreeMap<String, Object>, wanted: &BTreeMap<String, Vec<u8>>) -> bool {
    bucket.len() == wanted.len() && wanted.iter().all(|(key, bytes)| bucket.get(key).is_some_and(|o| o.bytes == *bytes))
}

#[test]
fn the_bucket_becomes_what_the_directory_is_and_says_what_keeps_it() {
    const FILES: usize = 60;
    let faults = |proxy: &Proxy| {
        proxy.rule(Rule::new(Fault::Denied, &[Operation::Put]).of("/denied"));
        let composed = [Operation::Copy, Operation::Complete];
        proxy.rule(Rule::new(Fault::ErrorInSuccess, &composed).times(2));
        proxy.rule(Rule::new(Fault::ErrorAfterDone, &composed).times(3));
        proxy.rule(Rule::new(Fault::AnswerLost, &[Operation::Complete]).times(1));
        proxy.rule(Rule::new(Fault::AnswerLost, &[Operation::Delete]).times(2));
        proxy.rule(Rule::new(Fault::AnswerLost, &[Operation::Begin]).times(1));
        proxy.rule(Rule::new(Fault::Cut, &[Operation::Part]).times(2));
        proxy.rule(Rule::new(Fault::AnswerLost, &Operation::WRITES).chance(0.1));
        proxy.rule(Rule::new(Fault::Cut, &[Operation::Put]).chance(0.05));
        for fault in [Fault::SlowDown, Fault::Internal, Fault::Reset] {
            proxy.rule(Rule::new(fault, &Operation::WRITES).chance(0.05));
            proxy.rule(Rule::new(fault, &[Operation::Head]).chance(0.02));
        }
    };
    let (proxy, linked) = through("faults-export", faults, exporting, |store| {
        (0..10).for_each(|i| put(store, &format!("old{i}"), format!("old {i}").as_bytes(), &[]));
    });
    linked.imported();
    let mount = linked.cluster.mount();
    let at = |path: &str| linked.on(&mount, path);
    let mut wanted: BTreeMap<String, Vec<u8>> =
        (0..10).map(|i| (format!("old{i}"), format!("old {i}").into_bytes())).collect();

    fs::create_dir(at("dir")).expect("made");
    wanted.insert("dir/".into(), Vec::new());
    for i in 0..FILES {
        let (path, bytes) = (format!("dir/f{i:02}"), format!("bytes of {i}").into_bytes());
        fs::write(at(&path), &bytes).expect("written");
        wanted.insert(path, bytes);
    }
    for i in 0..2 {
        let bytes = pattern(i, 36 * MIB + 77);
        fs::write(at(&format!("large{i}")), &bytes).expect("written");
        wanted.insert(format!("large{i}"), bytes);
    }
    symlink("dir/f00", at("link")).expect("linked");
    wanted.insert("link".into(), b"dir/f00".to_vec());
    linked.exported("what is new", |bucket| is(bucket, &wanted));

    // Renames and modes are copies, removals are deletions.
    for i in 0..4 {
        fs::rename(at(&format!("old{i}")), at(&format!("moved{i}"))).expect("renamed");
        let bytes = wanted.remove(&format!("old{i}")).expect("known");
        wanted.insert(format!("moved{i}"), bytes);
        fs::remove_file(at(&format!("old{}", 9 - i))).expect("removed");
        wanted.remove(&format!("old{}", 9 - i));
    }
    for i in 0..8 {
        fs::set_permissions(at(&format!("dir/f{i:02}")), fs::Permissions::from_mode(0o604)).expect("chmod");
    }
    for i in 10..20 {
        fs::write(at(&format!("dir/f{i:02}")), b"other bytes").expect("written");
        wanted.insert(format!("dir/f{i:02}"), b"other bytes".to_vec());
    }
    fs::rename(at("large0"), at("large2")).expect("renamed");
    let large = wanted.remove("large0").expect("known");
    wanted.insert("large2".into(), large);
    let mode = |object: &Object| object.metadata.get("file-permissions").map(String::as_str) == Some("0100604");
    linked.exported("what has changed", |bucket| {
        is(bucket, &wanted) && (0..8).all(|i| bucket.get(&format!("dir/f{i:02}")).is_some_and(mode))
    });

    // What may not be written is told of, and waits: one object.
    fs::write(at("denied"), b"at last").expect("written");
    wanted.insert("denied".into(), b"at last".to_vec());
    let said = wait::until("the reason", PATIENCE, || {
        let message = linked.now()?.export.message;
        (!message.is_empty()).then_some(message)
    });
    assert!(said.contains("AccessDenied") && said.contains("denied"), "{said}");
    let now = linked.now().expect("the MDS answers");
    assert!(now.export.queued == 1 && now.export.failed > 0, "{:?}", now.export);
    let failing: Vec<_> = now.export.failing.iter().map(|one| (one.key.as_slice(), one.attempts > 0)).collect();
    assert_eq!(failing, [(&b"denied"[..], true)], "{:?}", now.export);
    assert!(now.export.failing[0].message.contains("AccessDenied"), "{:?}", now.export);
    assert_eq!(now.state, RepositoryState::Available, "others may be written");
    // A bucket that may not be written at all, as that of a key that may only read.
    proxy.clear();
    proxy.rule(Rule::new(Fault::Denied, &[Operation::Put, Operation::Begin]));
    fs::write(at("denied2"), b"as well").expect("written");
    wanted.insert("denied2".into(), b"as well".to_vec());
    let now = misconfigured(&linked);
    assert!(now.message.contains("AccessDenied"), "{}", now.message);
    assert!((1..=2).contains(&now.export.queued), "nothing is forgotten: {:?}", now.export);
    assert!(fs::read(at("dir/f00")).expect("what is here is read") == wanted["dir/f00"]);
    proxy.clear();
    available(&linked);
    linked.exported("everything", |bucket| is(bucket, &wanted));
    assert_eq!(linked.now().expect("the MDS answers").export.failing, [], "nothing fails any more");
    assert_eq!(linked.conflicts(), []);
    for (fault, count) in [
        (Fault::ErrorInSuccess, 2),
        (Fault::ErrorAfterDone, 3),
        (Fault::AnswerLost, 6),
        (Fault::Cut, 2),
        (Fault::Denied, 1),
    ] {
        assert!(proxy.happened(fault) >= count, "{fault:?} {}", proxy.happened(fault));
    }
    eprintln!("{} faults", proxy.faults());
    // And here everything is as it was.
    for (key, bytes) in wanted.iter().filter(|(key, _)| !key.ends_with('/') && *key != "link") {
        assert!(fs::read(at(key)).expect("read") == *bytes, "{key}");
    }
    linked.cluster.assert_names_sound();
}

#[test]
fn on_a_store_without_conditions_what_others_wrote_is_seen_all_the_same() {
    let ours = |i: usize| format!("bytes of {i}, as they are here").into_bytes();
    let every = [Operation::Get, Operation::Put, Operation::Copy, Operation::Complete, Operation::Delete];
    let faults = |proxy: &Proxy| proxy.rule(Rule::new(Fault::NoConditions, &every));
    let (proxy, linked) = through("faults-conditions", faults, exporting, |store| {
        put(store, "unread", b"as it was imported", &[]);
    });
    linked.imported();
    let mount = linked.cluster.mount();
    let at = |path: &str| linked.on(&mount, path);
    for i in 0..3 {
        fs::write(at(&format!("f{i}")), ours(i)).expect("written");
    }
    linked.exported("the files", |bucket| bucket.len() == 4);
    // Others: one that is to be copied, one to be replaced, one to be deleted, one to be read.
    for key in ["f0", "f1", "f2", "unread"] {
        linked.s3.put(key, b"somebody else's, of whatever length", &[]);
    }
    fs::rename(at("f0"), at("moved")).expect("renamed");
    fs::write(at("f1"), b"changed here, too").expect("written");
    fs::remove_file(at("f2")).expect("removed");
    if let Some(read) = bytes_or_eio(&at("unread"), 0, 4) {
        assert_eq!(read, b"some", "a file without an error has the bytes of an object that was looked at");
    }
    wait::until("what both sides changed", PATIENCE, || {
        let keys: BTreeSet<_> = linked.conflicts().into_iter().map(|c| c.key).collect();
        keys.is_superset(&[b"f1".to_vec(), b"f2".to_vec()].into()).then_some(())
    });
    let bucket = linked.exported("the file under its new name", |bucket| bucket.contains_key("moved"));
    assert!(bucket["moved"].bytes == ours(0), "what was copied is not what the file is");
    for key in ["f0", "f1", "f2", "unread"] {
        assert!(bucket[key].bytes == b"somebody else's, of whatever length", "{key} was replaced");
    }
    for operation in [Operation::Get, Operation::Put] {
        assert!(proxy.happened_to(Fault::NoConditions, operation) > 0, "{operation:?}");
    }
    assert_eq!(fs::read(at("moved")).expect("read"), ours(0));
    linked.cluster.assert_names_sound();
}

/// Temporary keys that end in the middle of an import, with others in their place.
#[test]
fn an_import_that_outlasts_its_keys_goes_on_with_the_next() {
    const OBJECTS: usize = 3000;
    let all = |proxy: &Proxy| proxy.rule(Rule::new(Fault::Slow(Duration::from_millis(40)), &[Operation::Head]));
    let later = |settings: &mut RepositorySettings| settings.batch_import = false;
    let (proxy, mut linked) = through("s3-expired", all, later, |store| {
        for i in 0..OBJECTS {
            put(store, &format!("d/{i:04}"), b"bytes", &[("file-permissions", "0100640")]);
        }
    });
    linked.s3.set_token("first");
    linked.workers[0].kill9();
    linked.add_worker();
    linked.begin_import();
    wait::until("an import that is under way", PATIENCE, || (proxy.asked(Operation::Head) > 300).then_some(()));
    // Rules that were made before come first.
    proxy.clear();
    let every = [Operation::List, Operation::Head, Operation::Get];
    proxy.rule(Rule::new(Fault::Expired, &every).with_token("first"));
    wait::until("keys that are refused", PATIENCE, || (proxy.happened(Fault::Expired) > 10).then_some(()));
    linked.s3.set_token("second");
    let import = linked.imported().import;
    assert_eq!((import.objects, import.created, import.skipped), (3000, 3001, 0), "{:?}", import.first_skipped);
    assert!(proxy.happened_to(Fault::Expired, Operation::Head) > 0, "no object was asked for with the old keys");
    let mount = linked.cluster.mount();
    let mode = fs::metadata(linked.on(&mount, "d/2999")).expect("attributes").permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
}
