//! What Lustre's `lfs hsm_*` commands ask for single files: words, exit codes, and what becomes of it.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use sateen_dev_s3::store::Store;
use sateen_tests::cluster::{lfs, lfs_ok};
use sateen_tests::repository::Linked;
use sateen_tests::rng::pattern;
use sateen_tests::s3::{BUCKET, Pace};
use sateen_tests::wait;
use sateen_types::repository::{RepositoryEvents, RepositorySettings};

const MIB: usize = 1 << 20;
/// Longest something may take on a loaded machine.
const SOON: Duration = Duration::from_secs(120);
const ALL: RepositoryEvents = RepositoryEvents { created: true, changed: true, deleted: true };
const EPERM: Option<i32> = Some(libc::EPERM);

fn exporting(settings: &mut RepositorySettings) {
    settings.auto_export = ALL;
}

fn put(store: &Store, key: &str, bytes: &[u8]) {
    store.put(BUCKET, key, bytes, &[]).unwrap_or_else(|e| panic!("{key:?} cannot be put: {e}"));
}

/// What a command prints behind the path.
#[track_caller]
fn says(verb: &str, path: &Path) -> String {
    let text = lfs_ok(&[&verb, &path]);
    let shown = path.to_string_lossy().into_owned();
    let line = text.strip_prefix(&*shown).and_then(|rest| rest.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("{text:?}")).trim_end().to_owned()
}

#[track_caller]
fn becomes(verb: &str, path: &Path, wanted: &str) {
    wait::until(&format!("{verb} of {} is {wanted}", path.display()), SOON, || {
        (says(verb, path) == wanted).then_some(())
    });
}

#[track_caller]
fn refused(args: &[&dyn AsRef<std::ffi::OsStr>], code: Option<i32>, words: &str) {
    let done = lfs(args);
    assert_eq!(done.code, code, "{done}");
    assert!(done.stderr.contains(words) && done.stderr.contains("hint: "), "{done}");
}

#[test]
fn copies_are_removed_and_files_kept_out_of_the_bucket_and_in_the_file_system() {
    let linked = Linked::start_with("hsm-asked", exporting, |store| put(store, "there", b"imported"));
    let mount = linked.cluster.mount();
    let at = |path: &str| linked.on(&mount, path);
    fs::write(at("a"), b"first").expect("written");
    fs::hard_link(at("a"), at("second")).expect("linked");
    linked.exported("a file of two names", |bucket| bucket.contains_key("a") && bucket.contains_key("second"));
    becomes("hsm_state", &at("a"), "(0x00000009) exists archived, archive_id:1");

    // Rules of the owner.
    lfs_ok(&[&"hsm_set", &"--norelease", &"-a", &at("a")]);
    assert_eq!(
        says("hsm_state", &at("second")),
        "(0x00000039) exists archived never_release never_archive, archive_id:1"
    );
    refused(&[&"hsm_release", &at("a")], EPERM, "Cannot send HSM request (use of ");
    refused(&[&"hsm_archive", &at("a")], EPERM, "Operation not permitted");
    lfs_ok(&[&"hsm_clear", &"--norelease", &at("a")]);
    fs::write(at("a"), b"kept out").expect("written");
    fs::write(at("b"), b"stored").expect("written");
    let bucket = linked.exported("what may be stored", |bucket| bucket.contains_key("b"));
    assert!(bucket["a"].bytes == b"first" && bucket["second"].bytes == b"first");
    assert_eq!(says("hsm_state", &at("a")), "(0x0000002b) exists dirty archived never_archive, archive_id:1");
    refused(&[&"hsm_clear", &"--dirty", &at("a")], EPERM, "Can't change hsm flags for ");
    refused(&[&"hsm_clear", &"--exists", &at("b")], EPERM, "Operation not permitted");
    lfs_ok(&[&"hsm_set", &"--exists", &"--archived", &"-i", &"1", &at("b")]);
    lfs_ok(&[&"hsm", &"clear", &"--noarchive", &at("a")]);
    linked.exported("what was kept out", |bucket| {
        bucket["a"].bytes == b"kept out" && bucket["second"].bytes == b"kept out"
    });

    // Its copies go, whatever its names, and it stays.
    becomes("hsm_state", &at("a"), "(0x00000009) exists archived, archive_id:1");
    becomes("hsm_action", &at("a"), "NOOP");
    lfs_ok(&[&"hsm_remove", &"-a", &"1", &at("a")]);
    assert!(says("hsm_state", &at("a")).starts_with("(0x00000000)"), "{}", says("hsm_state", &at("a")));
    let bucket = linked.exported("removals", |bucket| !bucket.contains_key("a") && !bucket.contains_key("second"));
    assert!(bucket.contains_key("b"));
    becomes("hsm_action", &at("a"), "NOOP");
    assert_eq!(fs::read(at("second")).expect("read"), b"kept out");
    refused(&[&"hsm_remove", &at("a")], Some(libc::ENODATA), "Cannot send HSM request (use of ");
    refused(&[&"hsm_remove", &at("there")], EPERM, "Cannot send HSM request (use of ");
    // A comparison leaves it alone, and a change stores it anew.
    linked.compare();
    assert_eq!(fs::read(at("a")).expect("read"), b"kept out");
    fs::write(at("a"), b"new").expect("written");
    linked.exported("a file that is new to the bucket", |bucket| {
        bucket.get("a").is_some_and(|object| object.bytes == b"new") && bucket.contains_key("second")
    });
    assert_eq!(linked.now().map(|now| now.conflicts), Some(0));
    linked.cluster.assert_names_sound();
}

#[test]
fn what_waits_is_taken_back_and_what_runs_is_shown() {
    let large = pattern(3, 8 * MIB);
    let slow = Pace { delay: Duration::from_millis(50), bytes_per_second: 2_000_000 };
    let mut linked = Linked::begin("hsm-cancel", slow, |store| {
        put(store, "large", &large);
        put(store, "other", &large);
    });
    linked.imported();
    let mount = linked.cluster.mount();
    let path = |name: &str| mount.join("dataset").join(name);
    assert_eq!(says("hsm_action", &path("large")), "NOOP");
    linked.workers[0].terminate();
    linked.workers.clear();
    lfs_ok(&[&"hsm_restore", &path("large"), &path("other")]);
    for name in ["large", "other"] {
        assert_eq!(says("hsm_action", &path(name)), "RESTORE waiting (from 0 to EOF)");
    }
    lfs_ok(&[&"hsm_cancel", &path("other")]);
    assert_eq!(says("hsm_action", &path("other")), "NOOP");
    linked.add_worker();
    wait::until("a restore that runs", SOON, || {
        says("hsm_action", &path("large")).starts_with("RESTORE running (").then_some(())
    });
    becomes("hsm_state", &path("large"), "(0x00000009) exists archived, archive_id:1");
    assert_eq!(says("hsm_state", &path("other")), "(0x0000000d) released exists archived, archive_id:1");
    assert!(fs::read(path("large")).expect("read") == large);
    // No policy: only what is asked for, and not after all.
    let mut file = File::create(path("new")).expect("made");
    file.write_all(b"bytes").expect("written");
    lfs_ok(&[&"hsm_archive", &path("new")]);
    assert_eq!(says("hsm_action", &path("new")), "ARCHIVE waiting (from 0 to EOF)");
    lfs_ok(&[&"hsm_cancel", &path("new")]);
    drop(file);
    becomes("hsm_action", &path("new"), "NOOP");
    assert!(!linked.s3.objects().expect("nobody writes").contains_key("new"));
    linked.cluster.assert_names_sound();
}
