//! Tasks over many files, and files that are released by themselves: with real processes, and with ends of some in the middle.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use sateen_dev_s3::store::Store;
use sateen_tests::cluster::{ClusterSpec, FS, lfs_ok};
use sateen_tests::repository::{LEASE_MS, Linked};
use sateen_tests::rng::pattern;
use sateen_tests::s3::{BUCKET, Pace};
use sateen_tests::wait;
use serde_json::Value;

/// Longest a task of a test may take on a loaded machine.
const TASK: Duration = Duration::from_secs(300);
const MIB: usize = 1 << 20;

fn put(store: &Store, key: &str, bytes: &[u8]) {
    store.put(BUCKET, key, bytes, &[]).unwrap_or_else(|e| panic!("{key:?} cannot be put: {e}"));
}

/// Runs `sateen repo ... --json`, checks that it succeeded, and gives its document.
#[track_caller]
fn repo(linked: &Linked, args: &[&str]) -> Value {
    let all: Vec<&str> = ["repo"].iter().chain(args).chain(&["--json"]).copied().collect();
    let done = linked.cluster.sateen(&all);
    assert!(done.success(), "{done}");
    serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done}"))
}

/// Starts a task; gives its number.
#[track_caller]
fn start(linked: &Linked, kind: &str, args: &[&str]) -> String {
    let all: Vec<&str> = ["task", "start", kind, FS].iter().chain(args).copied().collect();
    let task = repo(linked, &all);
    task["id"].as_str().expect("a number").to_owned()
}

/// A task as it is now; `None` while the MDS does not answer.
fn now(linked: &Linked, id: &str) -> Option<Value> {
    let done = linked.cluster.sateen(&["repo", "task", "show", FS, id, "--json"]);
    if done.success() { serde_json::from_str(&done.stdout).ok() } else { None }
}

/// Waits for the end of a task.
#[track_caller]
fn ended(linked: &Linked, id: &str) -> Value {
    let mut last = None;
    wait::try_until(TASK, || {
        let task = now(linked, id)?;
        last = Some(task.clone());
        let state = task["lifecycle"].as_str().expect("a state").to_owned();
        ["SUCCEEDED", "FAILED", "CANCELED"].contains(&state.as_str()).then_some(task)
    })
    .unwrap_or_else(|| panic!("{id} has no end: {last:?}"))
}

#[track_caller]
fn assert_counts(task: &Value, state: &str, total: u64, succeeded: u64, failed: u64) {
    let found = (&task["lifecycle"], &task["total"], &task["succeeded"], &task["failed"]);
    let want = (&Value::from(state), &Value::from(total), &Value::from(succeeded), &Value::from(failed));
    assert_eq!(found, want, "{task:#}");
}

fn is_released(path: &Path) -> bool {
    lfs_ok(&[&"hsm_state", &path]).contains(" released ")
}

#[test]
fn files_are_loaded_and_given_back_by_tasks_that_count_them_and_report_what_was_in_use() {
    let (files, large) = (30u64, pattern(1000, 9 * MIB + 77));
    let linked = Linked::start("task-release", |store| {
        for i in 0..files {
            put(store, &format!("d{}/f{i}", i % 3), &pattern(i, 5000));
        }
        put(store, "large", &large);
        put(store, "=formula", b"1+1");
    });
    let mount = linked.cluster.mount();
    let at = |path: &str| linked.on(&mount, path);
    assert!(is_released(&at("large")) && is_released(&at("d1/f1")));

    let task = ended(&linked, &start(&linked, "restore", &["/dataset"]));
    assert_counts(&task, "SUCCEEDED", files + 2, files + 2, 0);
    assert_eq!(task["type"], "RESTORE_DATA_TO_FILESYSTEM");
    for path in ["large", "d0/f0", "d1/f1", "d2/f29", "=formula"] {
        assert!(!is_released(&at(path)), "{path}");
    }
    // Too young: none of them is the task's.
    let task = ended(&linked, &start(&linked, "release", &["/", "--days", "1"]));
    assert_counts(&task, "SUCCEEDED", 0, 0, 0);
    assert_eq!(task["skipped"], files + 2);

    // One is in use, one was changed, one is none of the repository's.
    let (used, odd) = (File::open(at("d0/f0")).expect("opens"), File::open(at("=formula")).expect("opens"));
    let mut first = [0; 1];
    used.read_exact_at(&mut first, 0).expect("readable");
    odd.read_exact_at(&mut first, 0).expect("readable");
    fs::write(at("d1/f1"), b"changed").expect("written");
    wait::until("a change that is known", TASK, || {
        lfs_ok(&[&"hsm_state", &at("d1/f1")]).contains(" dirty").then_some(())
    });
    fs::write(mount.join("stranger"), b"other").expect("written");
    let id = start(&linked, "release", &["dataset/", "/stranger", "--report", "/dataset/reports"]);
    let task = ended(&linked, &id);
    assert_counts(&task, "FAILED", files + 1, files - 1, 2);
    let report = linked.s3.objects().expect("nobody writes").remove(&format!("reports/{id}/failures.csv"));
    let text = String::from_utf8(report.expect("a report").bytes).expect("text");
    let lines: BTreeSet<&str> = text.split_terminator("\r\n").collect();
    assert_eq!(lines, BTreeSet::from(["dataset/=formula,failed,ResourceBusy", "dataset/d0/f0,failed,ResourceBusy"]));
    assert!(is_released(&at("large")) && is_released(&at("d2/f29")) && !is_released(&at("d0/f0")));
    drop((used, odd));
    assert_eq!(fs::read(at("d1/f1")).expect("readable"), b"changed");
    assert!(fs::read(at("large")).expect("readable") == large, "it comes again");
    assert!(fs::read(at("d2/f29")).expect("readable") == pattern(29, 5000));

    // What does not exist, and what has an end.
    let task = ended(&linked, &start(&linked, "release", &["/dataset/d0", "/nowhere"]));
    assert_counts(&task, "FAILED", 0, 0, 0);
    assert!(task["message"].as_str().is_some_and(|why| why.contains("/nowhere")), "{task:#}");
    linked.cluster.sateen(&["repo", "task", "cancel", FS, &id]).assert_fails_with_hint(1).assert_says("has ended");
    let outside = ["repo", "task", "start", "release", FS, "/", "--report", "/elsewhere"];
    linked.cluster.sateen(&outside).assert_fails_with_hint(1).assert_says("below no directory");
    let listed = repo(&linked, &["task", "list", FS]);
    assert_eq!(listed.as_array().map(Vec::len), Some(4));
    linked.cluster.assert_names_sound();
}

#[test]
fn a_task_goes_on_where_it_was_when_the_mds_is_killed_and_the_next_one_waits_or_is_canceled() {
    let files = 600u64;
    let mut linked = Linked::start("task-kill-mds", |store| {
        for i in 0..files {
            put(store, &format!("d{:02}/f{i}", i % 20), &pattern(i, 2000));
        }
    });
    linked.s3.restart(Pace { delay: Duration::from_millis(400), ..Pace::default() });
    let id = start(&linked, "restore", &["/"]);
    let next = start(&linked, "release", &["/"]);
    let unwanted = start(&linked, "release", &["/"]);
    let progress = |linked: &Linked, least: u64| {
        wait::until("some files of the task", TASK, || {
            let task = now(linked, &id)?;
            (task["succeeded"].as_u64() >= Some(least.min(files))).then_some(task)
        })
    };
    let mut seen = progress(&linked, 20);
    assert_eq!(seen["lifecycle"], "EXECUTING", "{seen:#}");
    assert_eq!(now(&linked, &next).expect("answers")["lifecycle"], "PENDING");
    assert_eq!(repo(&linked, &["task", "cancel", FS, &unwanted])["lifecycle"], "CANCELED");
    for _ in 0..2 {
        linked.cluster.kill_mds();
        linked.cluster.start_mds();
        let before = seen["succeeded"].as_u64().expect("a number");
        seen = progress(&linked, before + 20);
    }
    linked.s3.restart(Pace::default());
    let task = ended(&linked, &id);
    assert_counts(&task, "SUCCEEDED", files, files, 0);
    // A walk that is killed again and again gives every file back once.
    linked.cluster.kill_mds();
    linked.cluster.start_mds();
    let task = ended(&linked, &next);
    assert_counts(&task, "SUCCEEDED", files, files, 0);
    let mount = linked.cluster.mount();
    assert!(is_released(&linked.on(&mount, "d07/f7")));
    assert!(fs::read(linked.on(&mount, "d07/f7")).expect("readable") == pattern(7, 2000));
    drop(mount);
    linked.cluster.assert_names_sound();
}

#[test]
fn a_canceled_task_keeps_what_is_done_and_leaves_the_rest() {
    let files = 2000u64;
    let mut linked = Linked::start("task-cancel", |store| {
        for i in 0..files {
            put(store, &format!("f{i}"), &pattern(i, 1000));
        }
    });
    linked.s3.restart(Pace { delay: Duration::from_millis(200), ..Pace::default() });
    let id = start(&linked, "restore", &["/dataset"]);
    wait::until("some files of the task", TASK, || {
        (now(&linked, &id)?["succeeded"].as_u64() >= Some(10)).then_some(())
    });
    repo(&linked, &["task", "cancel", FS, &id]);
    let task = ended(&linked, &id);
    assert_eq!(task["lifecycle"], "CANCELED", "{task:#}");
    let number = |name: &str| task[name].as_u64().expect("a number");
    assert_eq!((number("total"), number("failed")), (number("succeeded"), 0), "{task:#}");
    assert!((10..files).contains(&number("succeeded")), "{task:#}");
    linked.s3.restart(Pace::default());
    let mount = linked.cluster.mount();
    assert!(fs::read(linked.on(&mount, "f1999")).expect("readable") == pattern(1999, 1000));
    drop(mount);
    linked.cluster.assert_names_sound();
}

#[test]
fn a_task_imports_what_is_below_a_path_or_a_url_and_nothing_else() {
    let linked = Linked::begin_with(
        "task-import",
        Pace::default(),
        |settings| settings.batch_import = false,
        |store| {
            for key in ["a/1", "a/2/3", "a-x/4", "a.b", "ab/5", "b/6", "b/7", "c/8"] {
                put(store, key, key.as_bytes());
            }
            put(store, "a//bad", b"no path");
        },
    );
    let mount = linked.cluster.mount();
    let names = || {
        let entries = fs::read_dir(linked.on(&mount, "")).expect("readable");
        entries.map(|e| e.expect("an entry").file_name().into_string().expect("text")).collect::<BTreeSet<_>>()
    };
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();

    let task = ended(&linked, &start(&linked, "import", &["/dataset/a", "--report", "/dataset"]));
    assert_counts(&task, "FAILED", 3, 2, 1);
    wait::until("the names of the task", TASK, || (names() == set(&["a"])).then_some(()));
    assert_eq!(fs::read(linked.on(&mount, "a/2/3")).expect("readable"), b"a/2/3");
    let id = task["id"].as_str().expect("a number");
    let report = linked.s3.objects().expect("nobody writes").remove(&format!("{id}/failures.csv")).expect("a report");
    assert_eq!(report.bytes, b"dataset/a//bad,failed,S3ObjectPathNotPosixCompliant\r\n");

    let task = ended(&linked, &start(&linked, "import", &[&format!("s3://{BUCKET}/b")]));
    assert_counts(&task, "SUCCEEDED", 2, 2, 0);
    wait::until("the names of the task", TASK, || (names() == set(&["a", "b"])).then_some(()));

    let task = ended(&linked, &start(&linked, "import", &["/dataset/nothing"]));
    assert_eq!(task["lifecycle"], "FAILED", "{task:#}");
    let task = ended(&linked, &start(&linked, "import", &["s3://other/b"]));
    assert_eq!(task["lifecycle"], "FAILED", "{task:#}");
    assert_eq!(names(), set(&["a", "b"]));
    linked.cluster.assert_names_sound();
}

#[test]
fn a_task_exports_what_the_bucket_does_not_have_and_its_report_survives_the_worker() {
    let mut linked = Linked::start("task-export", |store| put(store, "there", b"imported"));
    let mount = linked.cluster.mount();
    let at = |path: &str| linked.on(&mount, path);
    fs::create_dir_all(at("new/sub")).expect("made");
    for i in 0..20u64 {
        fs::write(at(&format!("new/sub/f{i}")), pattern(i, 3000)).expect("written");
    }
    let task = ended(&linked, &start(&linked, "export", &["/dataset/new"]));
    assert_counts(&task, "SUCCEEDED", 22, 22, 0);
    let bucket = linked.s3.objects().expect("nobody writes");
    assert!((0..20u64).all(|i| bucket.get(&format!("new/sub/f{i}")).is_some_and(|o| o.bytes == pattern(i, 3000))));

    // Both sides change: that one fails. The report is to be written while the store is away, and its worker dies.
    fs::write(at("there"), b"changed here").expect("written");
    linked.s3.put("there", b"changed there", &[]);
    let id = start(&linked, "export", &["/dataset/there", "--report", "/dataset/reports"]);
    let task = ended(&linked, &id);
    assert_counts(&task, "FAILED", 1, 0, 1);
    let report = |linked: &Linked, id: &str| {
        let found = linked.s3.objects().expect("nobody writes").remove(&format!("reports/{id}/failures.csv"));
        found.map(|object| String::from_utf8(object.bytes).expect("text"))
    };
    assert_eq!(report(&linked, &id).as_deref(), Some("dataset/there,failed,ObjectConflict\r\n"));

    // A report is to be written while the store is away, and its worker dies, and the MDS.
    let used = File::open(at("new/sub/f0")).expect("opens");
    linked.s3.kill9();
    let id = start(&linked, "release", &["/dataset/new/sub/f0", "--report", "/dataset/reports"]);
    wait::until("a file that is given up", TASK, || (now(&linked, &id)?["failed"].as_u64() == Some(1)).then_some(()));
    linked.workers[0].kill9();
    linked.cluster.kill_mds();
    linked.cluster.start_mds();
    assert_eq!(report(&linked, &id), None);
    assert_eq!(now(&linked, &id).expect("answers")["lifecycle"], "EXECUTING");
    linked.s3.run();
    linked.add_worker();
    let task = ended(&linked, &id);
    assert_counts(&task, "FAILED", 1, 0, 1);
    assert_eq!(report(&linked, &id).as_deref(), Some("dataset/new/sub/f0,failed,ResourceBusy\r\n"));
    drop((used, mount));
    let bucket = linked.s3.objects().expect("nobody writes");
    assert_eq!(bucket["there"].bytes, b"changed there", "neither side is touched");
    linked.cluster.assert_names_sound();
}

#[test]
fn a_dataset_of_three_times_the_space_is_read_through() {
    let (files, each) = (48u64, 8 * MIB);
    let spec = ClusterSpec {
        oss: 1,
        osts_per_oss: 2,
        ost_capacity: Some(64 * MIB as u64),
        mds_extra: format!("[session]\nlease_ms = {LEASE_MS}\n"),
        ..ClusterSpec::new("auto-release")
    };
    let linked = Linked::begin_on(
        spec,
        Pace::default(),
        |_| {},
        |store| {
            for i in 0..files {
                put(store, &format!("f{i:02}"), &pattern(i, each));
            }
        },
    );
    linked.imported();
    assert_eq!(repo(&linked, &["auto-release", FS])["on"], false, "nothing goes without being asked for");
    let marks = repo(&linked, &["auto-release", FS, "--high", "70", "--low", "40"]);
    assert_eq!((&marks["high"], &marks["low"]), (&Value::from(70), &Value::from(40)));
    let mount = linked.cluster.mount();
    for i in 0..files {
        let bytes = fs::read(linked.on(&mount, &format!("f{i:02}"))).unwrap_or_else(|e| panic!("f{i:02}: {e}"));
        assert!(bytes == pattern(i, each), "f{i:02} is another one");
    }
    let here = (0..files).filter(|i| !is_released(&linked.on(&mount, &format!("f{i:02}")))).count();
    assert!(here * each <= 2 * 64 * MIB, "{here} files are here");
    drop(mount);
    linked.cluster.assert_names_sound();
}
