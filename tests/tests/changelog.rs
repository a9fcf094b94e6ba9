//! Programs that follow a file system with `lfs changelog`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use sateen_tests::{Cluster, ClusterSpec, wait};

/// Until changes that a mount has answered are told to the MDS, on a loaded machine.
const TOLD: Duration = Duration::from_secs(60);
const MDT: &str = "scratch-MDT0000";

/// A line of `lfs changelog`: number, kind and name.
type Line = (u64, String, String);

/// What a command printed that succeeds.
#[track_caller]
fn ok(cluster: &Cluster, args: &[&str]) -> String {
    let done = cluster.sateen(args);
    assert!(done.success(), "{done}");
    done.stdout
}

#[track_caller]
fn records(cluster: &Cluster, words: &[&str]) -> Vec<Line> {
    let text = ok(cluster, &[&["lfs", "changelog"], words].concat());
    let parse = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        let name = words.iter().position(|w| w.starts_with("p=[")).and_then(|at| words.get(at + 1));
        (words[0].parse().expect("a number"), words[1][2..].to_owned(), name.unwrap_or(&"").to_string())
    };
    text.lines().map(parse).collect()
}

#[test]
fn what_happens_on_a_mount_is_read_in_order_survives_a_kill_and_is_cleared() {
    let mut cluster = Cluster::start(ClusterSpec::new("changelog"));
    let mount = cluster.mount();
    let at = |name: &str| mount.path().join(name);
    fs::write(at("before"), "x").expect("writes");
    let said = ok(&cluster, &["changelog", "register", "scratch", "-u", "test"]);
    assert_eq!(said, "scratch-MDT0000: Registered changelog userid 'cl1-test'\n");
    fs::create_dir(at("d")).expect("makes");
    // Empty: the report of bytes would come at a time of its own.
    fs::File::create(at("d/f")).expect("makes");
    fs::set_permissions(at("d/f"), fs::Permissions::from_mode(0o600)).expect("changes");
    fs::rename(at("d/f"), at("d/g")).expect("moves");
    fs::remove_file(at("d/g")).expect("removes");
    fs::remove_dir(at("d")).expect("removes");
    let has = |kind: &str, name: &str, all: &[Line]| all.iter().position(|r| r.1 == kind && r.2 == name);
    let all = wait::until("the removal of d to be recorded", TOLD, || {
        let all = records(&cluster, &[MDT]);
        has("RMDIR", "d", &all).is_some().then_some(all)
    });
    assert_eq!(has("CREAT", "before", &all), None, "{all:?}");
    let order: Vec<_> = [("MKDIR", "d"), ("CREAT", "f"), ("RENME", "g"), ("UNLNK", "g"), ("RMDIR", "d")]
        .into_iter()
        .map(|(kind, name)| has(kind, name, &all).unwrap_or_else(|| panic!("{kind} {name}: {all:?}")))
        .collect();
    assert!(order.is_sorted(), "{all:?}");
    assert!(all.iter().any(|r| r.1 == "SATTR"), "{all:?}");
    assert!(all.iter().zip(1..).all(|(r, index)| r.0 == index), "{all:?}");

    cluster.kill_mds();
    cluster.start_mds();
    assert_eq!(records(&cluster, &[MDT]), all);
    assert_eq!(records(&cluster, &[MDT, "3"]), all[2..]);
    assert_eq!(records(&cluster, &[MDT, "2", "3"]), all[1..3]);
    assert_eq!(records(&cluster, &["-m", "RMDIR", MDT]).len(), 1);

    let clear = |user: &str, end: &str| cluster.sateen(&["lfs", "changelog_clear", MDT, user, end]);
    assert!(clear("cl1-test", "2").success());
    assert_eq!(records(&cluster, &[MDT]), all[2..]);
    clear("cl9", "0").assert_says("no changelog user: cl9");
    clear("cl1", "100000").assert_says("record out of range: 100000");
    assert!(clear("cl1", "0").success());
    assert_eq!(records(&cluster, &[MDT]), []);
    ok(&cluster, &["changelog", "deregister", "scratch", "cl1"]);
    fs::write(at("after"), "x").expect("writes");
    // The MDS has heard of it when another mount sees it.
    let other = cluster.mount();
    assert!(other.path().join("after").exists());
    assert_eq!(records(&cluster, &[MDT]), [], "recorded for nobody");
}
