//! The harness keeps its own promise: a test that is killed leaves no process, no mount and no directory.

use std::path::Path;
use std::process::{Command, Stdio};

use sateen_tests::mount::is_mounted;
use sateen_tests::scratch::Scratch;
use sateen_tests::{Cluster, ClusterSpec, wait};

/// Processes whose command line names `path`.
fn processes_naming(path: &Path) -> Vec<String> {
    let needle = path.to_string_lossy().into_owned();
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let lines = entries.filter_map(|e| std::fs::read(e.path().join("cmdline")).ok());
    lines.map(|l| String::from_utf8_lossy(&l).replace('\0', " ")).filter(|l| l.contains(&needle)).collect()
}

/// Not a test of its own: run by the one below, and killed by it.
#[test]
#[ignore = "run by a_killed_test_leaves_nothing_behind"]
fn hold_a_cluster() {
    let cluster = Cluster::start(ClusterSpec::new("hold"));
    let mount = cluster.mount();
    std::fs::write(mount.join("f"), b"held").expect("write");
    std::fs::write(
        std::env::var("SATEEN_TEST_READY").expect("set by the caller"),
        mount.path().to_string_lossy().as_bytes(),
    )
    .expect("write");
    loop {
        std::thread::park();
    }
}

#[test]
fn a_killed_test_leaves_nothing_behind() {
    let scratch = Scratch::new("harness");
    let ready = scratch.path().join("ready");
    let mut victim = Command::new(std::env::current_exe().expect("our own path"))
        .args(["--exact", "hold_a_cluster", "--ignored", "--nocapture"])
        .env("SATEEN_TEST_DIR", scratch.dir("victim"))
        .env("SATEEN_TEST_READY", &ready)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("this executable can be started");
    let mount = wait::until("the victim's mount", wait::SERVER * 2, || {
        std::fs::read_to_string(&ready).ok().filter(|text| !text.is_empty())
    });
    assert!(is_mounted(Path::new(&mount)));
    victim.kill().expect("kill");
    victim.wait().expect("wait");
    wait::until("the end of its processes, mount and directory", wait::SERVER, || {
        let left = std::fs::read_dir(scratch.path().join("victim")).expect("readable").count();
        (!is_mounted(Path::new(&mount)) && processes_naming(scratch.path()).is_empty() && left == 0).then_some(())
    });
}
