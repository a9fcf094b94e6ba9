//! The harness keeps its own promise: a test that is killed leaves no process, no mount, no loop device and no directory.

use std::path::Path;
use std::process::{Command, Stdio};

use sateen_tests::disk::{DiskSpec, FileSystem};
use sateen_tests::mount::is_mounted;
use sateen_tests::netns::{Cut, Network};
use sateen_tests::scratch::Scratch;
use sateen_tests::{Cluster, ClusterSpec, wait};

/// Processes whose command line names `path`.
fn processes_naming(path: &Path) -> Vec<String> {
    let needle = path.to_string_lossy().into_owned();
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let lines = entries.filter_map(|e| std::fs::read(e.path().join("cmdline")).ok());
    lines.map(|l| String::from_utf8_lossy(&l).replace('\0', " ")).filter(|l| l.contains(&needle)).collect()
}

/// Files below `path` that a loop device is on.
fn loop_devices_on(path: &Path) -> Vec<String> {
    let devices = std::fs::read_dir("/sys/block").expect("/sys/block").flatten();
    let files = devices.filter_map(|d| std::fs::read_to_string(d.path().join("loop/backing_file")).ok());
    files.filter(|file| Path::new(file).starts_with(path)).collect()
}

/// Says that the cluster is there, and waits to be killed.
fn hold(mount: &Path) -> ! {
    let ready = std::env::var("SATEEN_TEST_READY").expect("set by the caller");
    std::fs::write(ready, mount.to_string_lossy().as_bytes()).expect("write");
    loop {
        std::thread::park();
    }
}

/// Not a test of its own: run by one below, and killed by it.
#[test]
#[ignore = "run by a_killed_test_leaves_nothing_behind"]
fn hold_a_cluster() {
    let cluster = Cluster::start(ClusterSpec::new("hold"));
    let mount = cluster.mount();
    std::fs::write(mount.join("f"), b"held").expect("write");
    hold(mount.path());
}

/// The same, with a disk of its own that stands still: its servers cannot even die before it moves again.
#[test]
#[ignore = "run by a_killed_test_leaves_no_disk_behind"]
fn hold_a_disk() {
    let disk = DiskSpec { file_system: FileSystem::Ext4, bytes: 1 << 30 };
    let cluster = Cluster::start(ClusterSpec { disk: Some(disk), ..ClusterSpec::new("hold-disk") });
    let mount = cluster.mount();
    let _still = cluster.disk().stand_still();
    hold(mount.path());
}

/// The same, in a network of its own that is cut: nobody can say good-bye.
#[test]
#[ignore = "run by a_killed_test_leaves_no_network_behind"]
fn hold_a_network() {
    let network = Network::new();
    let island = network.island();
    let cluster = Cluster::start(ClusterSpec { site: network.hub(), ..ClusterSpec::new("hold-network") });
    let mount = cluster.mount_at(&island.site(), &["hard"]);
    std::fs::write(mount.join("f"), b"held").expect("write");
    island.cut(Cut::Both);
    hold(mount.path());
}

/// Runs `victim`, kills it when it is ready, and waits until nothing of it is left.
fn nothing_is_left_of(victim: &str) {
    let scratch = Scratch::new("harness");
    let ready = scratch.path().join("ready");
    let mut victim = Command::new(std::env::current_exe().expect("our own path"))
        .args(["--exact", victim, "--ignored", "--nocapture"])
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
    wait::until("the end of its processes, mounts, loop devices and directory", wait::SERVER, || {
        let left = std::fs::read_dir(scratch.path().join("victim")).expect("readable").count();
        let gone = !is_mounted(Path::new(&mount)) && processes_naming(scratch.path()).is_empty();
        (gone && loop_devices_on(scratch.path()).is_empty() && left == 0).then_some(())
    });
}

#[test]
fn a_killed_test_leaves_nothing_behind() {
    nothing_is_left_of("hold_a_cluster");
}

#[test]
fn a_killed_test_leaves_no_disk_behind() {
    nothing_is_left_of("hold_a_disk");
}

/// With its last process a network is gone: it has no name that could stay.
#[test]
fn a_killed_test_leaves_no_network_behind() {
    nothing_is_left_of("hold_a_network");
}
