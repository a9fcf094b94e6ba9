//! The whole benchmark in small: every case measures something, and nothing stays behind.
//!
//! Needs `sateen`, `sateen-mds` and `sateen-oss` beside `sateen-bench` (`make test` builds them) or in `SATEEN_BIN_DIR`.

use std::process::Command;

/// Fields of one line of the results.
const FIELDS: [&str; 8] = ["case", "enough", "floor", "limit", "ratio", "runs", "unit", "value"];

fn bench() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sateen-bench"))
}

#[test]
fn a_quick_run_measures_every_case_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let out = dir.path().join("results.json");
    let base = dir.path().join("work");
    let done = bench().arg("--quick").arg("--dir").arg(&base).arg("--out").arg(&out).output().expect("it starts");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{}\n{said}", done.status);

    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&out).expect("results")).expect("JSON");
    let lines = json.as_array().expect("a list");
    let listed = bench().arg("--list").output().expect("it starts").stdout;
    let listed = String::from_utf8(listed).expect("text");
    let names: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() > 40, "{listed}");
    assert_eq!(lines.iter().filter_map(|line| line["case"].as_str()).collect::<Vec<_>>(), names);
    for line in lines {
        let fields: Vec<&String> = line.as_object().expect("an object").keys().collect();
        assert_eq!(fields, FIELDS, "{line}");
        assert!(line["value"].as_f64().is_some_and(|value| value > 0.0), "{line}");
        assert_eq!(line["limit"].is_null(), line["ratio"].is_null(), "{line}");
    }

    let machine = std::fs::read(dir.path().join("results.machine.json")).expect("the circumstances");
    let machine: serde_json::Value = serde_json::from_slice(&machine).expect("JSON");
    assert_eq!((machine["quick"].as_bool(), machine["runs"].as_u64()), (Some(true), Some(1)));

    let left: Vec<_> = std::fs::read_dir(&base).expect("the directory").collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("the mount table");
    assert!(!mounts.contains(&base.display().to_string()), "left mounted: {mounts}");
}

#[test]
fn an_unknown_case_and_missing_programs_are_told_with_a_hint() {
    let empty = tempfile::tempdir().expect("a temporary directory");
    let nowhere = empty.path().as_os_str();
    for (args, part) in [
        ([std::ffi::OsStr::new("--case"), "nonsense".as_ref()], "\"nonsense\""),
        (["--bin-dir".as_ref(), nowhere], "does not exist"),
        (["--compare".as_ref(), "/nonexistent.json".as_ref()], "/nonexistent.json"),
    ] {
        let done = bench().args(args).arg("--quick").output().expect("it starts");
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{said}");
        assert!(said.starts_with("error: ") && said.contains(part) && said.contains("\nhint: "), "{said}");
    }
}
