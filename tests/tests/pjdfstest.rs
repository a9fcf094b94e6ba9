//! The POSIX exerciser `pjdfstest` on a mount. Every failure is on the list with its reason, and nothing on the list
//! passes.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use sateen_tests::{Cluster, ClusterSpec, bins, command};

/// Known failures: `NAME  REASON`, one a line; `#` starts a comment.
const KNOWN: &str = include_str!("pjdfstest-known-failures.txt");

/// Of the tests that apply, at least this share passes, in percent.
const PASS_PERCENT_MIN: usize = 95;

/// Fewest tests that must have run: fewer means that the program skips what it should do.
const RUN_MIN: usize = 350;

/// The optional features a Sateen mount has, and two unprivileged users that every Debian has.
const CONFIG: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

#[derive(Debug, Default)]
struct Outcome<'a> {
    passed: BTreeSet<&'a str>,
    failed: BTreeMap<&'a str, Vec<&'a str>>,
    skipped: BTreeMap<&'a str, Vec<&'a str>>,
}

/// Reads the report: `NAME   ok|FAILED|skipped`, with indented lines of detail below.
fn parse(report: &str) -> Outcome<'_> {
    let mut outcome = Outcome::default();
    let mut lines = report.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with(char::is_whitespace) {
            continue;
        }
        let mut details = Vec::new();
        while let Some(detail) = lines.next_if(|l| l.starts_with('\t')) {
            details.push(detail.trim());
        }
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            [name, "ok"] => drop(outcome.passed.insert(name)),
            [name, "FAILED"] => drop(outcome.failed.insert(name, details)),
            [name, "skipped"] => drop(outcome.skipped.insert(name, details)),
            _ => {}
        }
    }
    outcome
}

fn known() -> BTreeSet<&'static str> {
    let lines = KNOWN.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines
        .map(|line| {
            let (name, reason) = line.split_once(char::is_whitespace).unwrap_or_else(|| panic!("no reason: {line:?}"));
            assert!(!reason.trim().is_empty(), "no reason: {line:?}");
            name
        })
        .collect()
}

#[test]
fn every_failure_is_known_and_every_known_failure_fails() {
    let mut cluster = Cluster::start(ClusterSpec::new("pjdfstest"));
    let mount = cluster.mount();
    let config = cluster.dir().join("pjdfstest.toml");
    // A directory of another file system, for EXDEV.
    let other = cluster.dir().join("other");
    std::fs::create_dir(&other).expect("mkdir");
    std::fs::write(&config, CONFIG).expect("write");
    // The address of a socket has room for 108 bytes only: a short path to the mount, in a mount namespace of its own.
    let short = r#"mount --bind "$1" /mnt; shift; exec "$@" -p /mnt"#;
    let mut pjdfstest = Command::new("unshare");
    pjdfstest.env("NO_COLOR", "1").args(["--mount", "sh", "-ec", short, "sh"]).arg(mount.path());
    pjdfstest.arg(bins::tool("pjdfstest")).arg("-c").arg(&config).arg("-s").arg(&other);
    let done = command::run(&mut pjdfstest, Duration::from_secs(600));
    let outcome = parse(&done.stdout);
    let (passed, failed, skipped) = (outcome.passed.len(), outcome.failed.len(), outcome.skipped.len());
    let run = passed + failed;
    eprintln!("{passed} of {run} applicable tests pass, {skipped} do not apply");
    for (name, reasons) in &outcome.skipped {
        eprintln!("  skipped {name}: {}", reasons.join("; "));
    }
    for (name, details) in &outcome.failed {
        eprintln!("  FAILED {name}: {}", details.join(" | "));
    }
    assert!(run >= RUN_MIN, "only {run} tests were run\n{done}");
    assert!(passed * 100 >= run * PASS_PERCENT_MIN, "only {passed} of {run} pass");
    let failed: BTreeSet<&str> = outcome.failed.keys().copied().collect();
    let known = known();
    let unexpected: Vec<_> = failed.difference(&known).collect();
    let fixed: Vec<_> = known.difference(&failed).collect();
    assert!(unexpected.is_empty(), "failures that are not in pjdfstest-known-failures.txt: {unexpected:#?}");
    assert!(fixed.is_empty(), "listed in pjdfstest-known-failures.txt, but they do not fail: {fixed:#?}");
    cluster.assert_runs();
}

#[test]
fn a_report_is_read_line_by_line() {
    let report = "a::b        ok\nc::d    FAILED\n\twhy\n\tmore\ne   skipped\n\trequires x\n\nSummary: 1 failed\n";
    let outcome = parse(report);
    assert_eq!(outcome.passed, BTreeSet::from(["a::b"]));
    assert_eq!(outcome.failed, BTreeMap::from([("c::d", vec!["why", "more"])]));
    assert_eq!(outcome.skipped, BTreeMap::from([("e", vec!["requires x"])]));
}
