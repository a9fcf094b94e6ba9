//! What is done in a directory that is linked to a bucket is done in the bucket, by itself.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sateen_dev_s3::store::Store;
use sateen_tests::cluster::FS;
use sateen_tests::repository::{Linked, PATH};
use sateen_tests::rng::pattern;
use sateen_tests::s3::{BUCKET, Object};
use sateen_tests::wait;
use sateen_types::repository::{ConflictPolicy, RepositoryEvents, RepositorySettings};

const MIB: usize = 1 << 20;
/// Longest the first objects of a test may take on a loaded machine.
const EXPORT: Duration = Duration::from_secs(180);
const ALL: RepositoryEvents = RepositoryEvents { created: true, changed: true, deleted: true };

type Bucket = BTreeMap<String, Object>;

struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn exporting(settings: &mut RepositorySettings) {
    settings.auto_export = ALL;
}

fn put(store: &Store, key: &str, bytes: &[u8]) {
    store.put(BUCKET, key, bytes, &[]).unwrap_or_else(|e| panic!("{key:?} cannot be put: {e}"));
}

fn has(bucket: &Bucket, key: &str, bytes: &[u8]) -> bool {
    bucket.get(key).is_some_and(|object| object.bytes == bytes)
}

fn mode(bucket: &Bucket, key: &str) -> Option<String> {
    bucket.get(key)?.metadata.get("file-permissions").cloned()
}

fn keys(bucket: &Bucket) -> Vec<&str> {
    bucket.keys().map(String::as_str).collect()
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

#[test]
fn what_is_done_on_a_mount_is_done_in_the_bucket() {
    let mut linked = Linked::start_with("export-all", exporting, |store| put(store, "there", b"imported"));
    let mount = linked.cluster.mount();
    let at = |path: &str| linked.on(&mount, path);
    let large = pattern(1, 40 * MIB + 4097);

    fs::write(at("small"), b"small").expect("written");
    fs::write(at("large"), &large).expect("written");
    fs::create_dir_all(at("dir/sub")).expect("made");
    fs::write(at("dir/sub/f"), b"below").expect("written");
    fs::create_dir(at("empty")).expect("made");
    symlink("dir/sub/f", at("link")).expect("linked");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .expect("a pipe");
    chmod(&at("small"), 0o640);
    let bucket = linked.exported("what is new", |bucket| {
        has(bucket, "small", b"small")
            && mode(bucket, "small").as_deref() == Some("0100640")
            && has(bucket, "large", &large)
            && has(bucket, "dir/sub/f", b"below")
            && has(bucket, "link", b"dir/sub/f")
    });
    assert_eq!(keys(&bucket), ["dir/", "dir/sub/", "dir/sub/f", "empty/", "large", "link", "small", "there"]);
    assert_eq!(mode(&bucket, "link").as_deref(), Some("0120777"));
    assert!(mode(&bucket, "dir/").is_some_and(|mode| mode.starts_with("0040")), "{:?}", mode(&bucket, "dir/"));
    assert!(bucket["large"].metadata["user-agent"].starts_with("sateen/"), "{:?}", bucket["large"].metadata);
    assert_eq!(bucket["there"].metadata.len(), 0, "what was not changed is not stored again");

    // Changes: bytes, attributes, names.
    fs::write(at("small"), b"changed").expect("written");
    chmod(&at("large"), 0o600);
    fs::rename(at("there"), at("moved")).expect("renamed");
    fs::rename(at("dir"), at("other")).expect("renamed");
    fs::hard_link(at("small"), at("second")).expect("linked");
    fs::remove_file(at("link")).expect("removed");
    fs::remove_dir(at("empty")).expect("removed");
    let bucket = linked.exported("what has changed", |bucket| {
        has(bucket, "small", b"changed")
            && has(bucket, "second", b"changed")
            && mode(bucket, "large").as_deref() == Some("0100600")
            && has(bucket, "moved", b"imported")
            && has(bucket, "other/sub/f", b"below")
            && ["there", "dir/", "dir/sub/", "dir/sub/f", "empty/", "link"].iter().all(|key| !bucket.contains_key(*key))
    });
    assert_eq!(keys(&bucket), ["large", "moved", "other/", "other/sub/", "other/sub/f", "second", "small"]);
    assert!(has(&bucket, "large", &large), "its bytes were copied");

    fs::remove_dir_all(at("other")).expect("removed");
    fs::remove_file(at("small")).expect("removed");
    let bucket = linked.exported("deletions", |bucket| keys(bucket) == ["large", "moved", "second"]);
    assert!(has(&bucket, "second", b"changed"), "the other name of a file");
    assert_eq!(linked.now().map(|now| now.conflicts), Some(0));
    // What no bucket can have is known for longer than the server lives.
    let skipped = |linked: &Linked| {
        let export = linked.now()?.export;
        Some((export.skipped, export.first_skipped.into_iter().map(|one| one.key).collect::<Vec<_>>()))
    };
    let pipe = Some((1, vec![b"pipe".to_vec()]));
    assert_eq!(skipped(&linked), pipe);
    linked.cluster.kill_mds();
    linked.cluster.start_mds();
    assert_eq!(wait::until("an MDS that answers", wait::SERVER, || skipped(&linked).map(Some)), pipe);
    linked.cluster.assert_names_sound();
}

#[test]
fn only_the_changes_that_the_policy_names_are_carried_over() {
    let created = |settings: &mut RepositorySettings| {
        settings.auto_export = RepositoryEvents { created: true, ..RepositoryEvents::default() };
    };
    let linked = Linked::start_with("export-new", created, |store| {
        put(store, "old", b"old");
        put(store, "kept", b"kept");
    });
    let mount = linked.cluster.mount();
    let at = |path: &str| linked.on(&mount, path);
    fs::write(at("old"), b"changed").expect("written");
    fs::remove_file(at("kept")).expect("removed");
    fs::write(at("new"), b"new").expect("written");
    let bucket = linked.exported("the new file", |bucket| has(bucket, "new", b"new"));
    assert!(has(&bucket, "old", b"old") && has(&bucket, "kept", b"kept"), "{:?}", keys(&bucket));
}

#[test]
fn a_file_that_is_in_part_in_the_bucket_is_stored_as_a_whole() {
    let mut bytes = pattern(2, 48 * MIB);
    let linked = Linked::start_with("export-part", exporting, |store| put(store, "large", &bytes));
    let mount = linked.cluster.mount();
    let path = linked.on(&mount, "large");
    let place = 20 * MIB + 12345;
    File::options().write(true).open(&path).expect("open").write_all_at(b"here", place as u64).expect("written");
    bytes[place..place + 4].copy_from_slice(b"here");
    linked.exported("the changed file", |bucket| has(bucket, "large", &bytes));
    assert!(fs::read(&path).expect("read") == bytes);
    linked.cluster.assert_names_sound();
}

#[test]
fn an_object_is_one_whole_version_of_a_file_that_is_written_again_and_again() {
    const SIZE: usize = 20 * MIB;
    const ROUNDS: u8 = 12;
    let linked = Linked::start_with("export-torn", exporting, |_| {});
    let mount = linked.cluster.mount();
    let path = linked.on(&mount, "busy");
    let over = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        // However this ends, the watcher does.
        let end = OnDrop(&over);
        let watcher = scope.spawn(|| {
            let mut seen = 0;
            while !over.load(Ordering::Relaxed) {
                let Some(object) = linked.s3.objects().and_then(|mut bucket| bucket.remove("busy")) else { continue };
                let version = object.bytes.first().copied().unwrap_or(0);
                assert!(object.bytes.iter().all(|b| *b == version), "bytes of two versions");
                assert!(object.bytes.is_empty() || object.bytes.len() == SIZE, "{} bytes", object.bytes.len());
                seen += 1;
            }
            seen
        });
        for round in 1..=ROUNDS {
            // In place and not cut off first: bytes of two rounds would be seen.
            let file = File::options().write(true).create(true).truncate(false).open(&path).expect("open");
            for at in (0..SIZE).step_by(MIB) {
                file.write_all_at(&vec![round; MIB], at as u64).expect("written");
            }
        }
        linked.exported("the last version", |bucket| has(bucket, "busy", &vec![ROUNDS; SIZE]));
        drop(end);
        watcher.join().expect("no torn object")
    });
    assert!(seen > 0, "no object was looked at");
}

#[test]
fn what_both_sides_changed_is_kept_on_both_sides_until_somebody_decides() {
    let linked = Linked::start_with("export-conflict", exporting, |store| {
        ["ours", "theirs", "both", "gone"].iter().for_each(|key| put(store, key, b"old"));
    });
    let mount = linked.cluster.mount();
    let at = |path: &str| linked.on(&mount, path);
    for key in ["ours", "theirs", "both"] {
        linked.s3.put(key, b"theirs", &[]);
        fs::write(at(key), b"ours!").expect("written");
    }
    linked.s3.delete("gone");
    fs::write(at("gone"), b"ours!").expect("written");
    let mut conflicts = wait::until("four conflicts", wait::SERVER, || {
        let now = linked.conflicts();
        (now.len() == 4).then_some(now)
    });
    conflicts.sort_by(|a, b| a.key.cmp(&b.key));
    let found: Vec<_> = conflicts.iter().map(|c| (c.key.as_slice(), c.object.as_ref().map(|o| o.size))).collect();
    assert_eq!(found, [(&b"both"[..], Some(6)), (b"gone", None), (b"ours", Some(6)), (b"theirs", Some(6))]);
    let bucket = linked.s3.objects().expect("readable");
    for key in ["ours", "theirs", "both"] {
        assert!(has(&bucket, key, b"theirs"), "{key}");
        assert_eq!(fs::read(at(key)).expect("read"), b"ours!", "{key}");
    }
    assert!(!bucket.contains_key("gone"));

    linked.resolve("ours", ConflictPolicy::FilesystemWins);
    linked.resolve("gone", ConflictPolicy::FilesystemWins);
    linked.resolve("theirs", ConflictPolicy::RepositoryWins);
    linked.resolve("both", ConflictPolicy::KeepBoth);
    linked.exported("what was decided", |bucket| {
        has(bucket, "ours", b"ours!")
            && has(bucket, "gone", b"ours!")
            && has(bucket, "theirs", b"theirs")
            && has(bucket, "both", b"theirs")
            && bucket.iter().any(|(key, o)| key.starts_with("both.conflict-") && o.bytes == b"ours!")
    });
    wait::until("the object in the place of the file", wait::SERVER, || {
        let both = fs::read(at("both")).ok()? == b"theirs" && fs::read(at("theirs")).ok()? == b"theirs";
        (both && linked.conflicts().is_empty()).then_some(())
    });
    linked.cluster.assert_names_sound();
}

#[test]
fn nothing_is_lost_when_worker_and_mds_and_store_are_killed() {
    const FILES: usize = 150;
    let mut linked = Linked::start_with("export-kill", exporting, |_| {});
    let mount = linked.cluster.mount();
    let large = pattern(3, 24 * MIB);
    let write = |linked: &Linked, from: usize, to: usize| {
        for i in from..to {
            fs::write(linked.on(&mount, &format!("f{i:03}")), format!("bytes of {i}")).expect("written");
        }
        fs::write(linked.on(&mount, &format!("large{from}")), &large).expect("written");
    };
    let some = |linked: &Linked, count: usize| {
        wait::until("some objects", EXPORT, || linked.s3.objects().filter(|all| all.len() >= count))
    };
    write(&linked, 0, 50);
    some(&linked, 5);
    linked.workers[0].kill9();
    linked.add_worker();
    write(&linked, 50, 100);
    some(&linked, 40);
    linked.cluster.kill_mds();
    linked.cluster.start_mds();
    write(&linked, 100, FILES);
    some(&linked, 90);
    linked.s3.restart_losing(20);
    fs::rename(linked.on(&mount, "f000"), linked.on(&mount, "g000")).expect("renamed");
    fs::remove_file(linked.on(&mount, "f001")).expect("removed");
    let bucket = linked.exported("everything", |bucket| {
        let files = (2..FILES).all(|i| has(bucket, &format!("f{i:03}"), format!("bytes of {i}").as_bytes()));
        let files = files && [0, 50, 100].iter().all(|from| bucket.contains_key(&format!("large{from}")));
        files && has(bucket, "g000", b"bytes of 0") && !bucket.contains_key("f000") && !bucket.contains_key("f001")
    });
    for from in [0, 50, 100] {
        assert!(has(&bucket, &format!("large{from}"), &large), "large{from}");
    }
    assert_eq!(bucket.len(), FILES - 1 + 3, "{:?}", keys(&bucket));
    assert_eq!(linked.conflicts(), [], "no answer that was lost is a conflict");
    linked.workers[1].terminate();
    linked.cluster.assert_names_sound();
}

/// Whether a name is one that a conflict gave.
fn is_second(key: &str) -> bool {
    key.starts_with("both.conflict-")
}

#[test]
fn what_both_sides_changed_ends_as_the_policy_of_the_link_says() {
    use ConflictPolicy::{FilesystemWins, KeepBoth, RepositoryWins};
    for (label, policy) in [("policy-fs", FilesystemWins), ("policy-repo", RepositoryWins), ("policy-both", KeepBoth)] {
        let settings = |settings: &mut RepositorySettings| {
            settings.auto_export = ALL;
            settings.conflict = policy;
        };
        let linked = Linked::start_with(label, settings, |store| put(store, "both", b"old"));
        let mount = linked.cluster.mount();
        let path = linked.on(&mount, "both");
        linked.s3.put("both", b"theirs", &[]);
        fs::write(&path, b"ours!").expect("written");
        let (kept, second) = match policy {
            FilesystemWins => (&b"ours!"[..], None),
            RepositoryWins => (&b"theirs"[..], None),
            _ => (&b"theirs"[..], Some(&b"ours!"[..])),
        };
        linked.exported("what the policy leaves", |bucket| {
            let others: Vec<_> = bucket.iter().filter(|(key, _)| is_second(key)).map(|(_, o)| &o.bytes[..]).collect();
            has(bucket, "both", kept) && others == Vec::from_iter(second)
        });
        if second.is_some() {
            // The object has its name with the next import (0018).
            linked.begin_import();
            linked.imported();
        }
        wait::until("the file that the policy leaves", wait::SERVER, || {
            let names = fs::read_dir(linked.on(&mount, "")).ok()?;
            let names: Vec<String> =
                names.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
            let others: Vec<_> = names.iter().filter(|name| is_second(name)).collect();
            let others: Vec<_> = others.iter().map(|name| fs::read(linked.on(&mount, name)).ok()).collect();
            let wanted: Vec<_> = second.iter().map(|bytes| Some(bytes.to_vec())).collect();
            (fs::read(&path).ok()? == kept && others == wanted && linked.conflicts().is_empty()).then_some(())
        });
        linked.cluster.assert_names_sound();
    }
}

#[test]
fn a_large_directory_that_is_renamed_is_renamed_in_the_bucket() {
    // More than one page of whatever walks it.
    const FILES: usize = 700;
    let linked = Linked::start_with("export-rename", exporting, |store| {
        (0..FILES).for_each(|i| put(store, &format!("old/d{}/f{i:03}", i % 3), format!("bytes of {i}").as_bytes()));
    });
    let mount = linked.cluster.mount();
    fs::rename(linked.on(&mount, "old"), linked.on(&mount, "new")).expect("renamed");
    fs::write(linked.on(&mount, "new/d0/f000"), b"changed").expect("written");
    let bucket = linked.exported("the other names", |bucket| {
        let moved = |i: usize| has(bucket, &format!("new/d{}/f{i:03}", i % 3), format!("bytes of {i}").as_bytes());
        has(bucket, "new/d0/f000", b"changed") && (1..FILES).all(moved)
    });
    assert!(!bucket.keys().any(|key| key.starts_with("old/")), "{:?}", keys(&bucket));
    assert_eq!(linked.conflicts(), []);
    // Nothing of it was fetched but the file that was written.
    assert!(linked.workers[0].figure("fetched_bytes_total") < 1000, "their bytes were moved");
    linked.cluster.assert_names_sound();
}

#[test]
fn the_command_line_says_when_all_is_exported_and_ends_a_link_with_its_files() {
    const FILES: usize = 300;
    let mut linked = Linked::start_with("export-cli", exporting, |store| {
        (0..FILES).for_each(|i| put(store, &format!("old/d{}/f{i:03}", i % 7), b"x"));
    });
    let mount = linked.cluster.mount();
    let repo = |linked: &Linked, args: &[&str]| linked.cluster.sateen(&[&["repo"][..], args].concat());
    let status = |linked: &Linked, more: &[&str]| repo(linked, &[&["status", FS, "--wait"][..], more].concat()).code;
    fs::write(linked.on(&mount, "new"), b"new").expect("written");
    assert_eq!(status(&linked, &[]), Some(0));
    assert!(linked.s3.objects().expect("readable").contains_key("new"));
    let pipe = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, linked.on(&mount, "pipe"), pipe, mode, 0).expect("a pipe");
    // The mount tells of it a moment later.
    wait::until("a file that cannot be stored", wait::SERVER, || (status(&linked, &[]) == Some(7)).then_some(()));
    assert_eq!(status(&linked, &["--ignore-skipped"]), Some(0));
    // Nobody stores anything.
    linked.workers[0].kill9();
    fs::write(linked.on(&mount, "late"), b"late").expect("written");
    wait::until("something that waits", wait::SERVER, || linked.now().filter(|now| now.export.queued > 0));
    assert_eq!(status(&linked, &["--timeout", "1"]), Some(5));
    let refused = repo(&linked, &["delete", FS, PATH, "--delete-data"]);
    assert!(!refused.success() && refused.stderr.contains("wait"), "{refused}");
    linked.add_worker();
    assert_eq!(status(&linked, &["--ignore-skipped"]), Some(0));

    let before = linked.s3.objects().expect("readable");
    assert!(before.len() >= FILES + 2, "{}", before.len());
    let ended = repo(&linked, &["delete", FS, PATH, "--delete-data"]);
    assert!(ended.success(), "{ended}");
    assert_eq!(fs::read_dir(linked.on(&mount, "")).expect("readable").count(), 0);
    assert!(linked.s3.objects().expect("readable") == before, "objects stay");
    linked.cluster.assert_names_sound();
}
