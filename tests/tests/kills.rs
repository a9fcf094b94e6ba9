//! `kill -9` in the middle of work: of the MDS, of each OSS, of the mount process.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sateen_tests::ledger::Writer;
use sateen_tests::tree::{self, Amount};
use sateen_tests::{Cluster, ClusterSpec, wait};

/// Enough to be busy while three servers are killed.
const TREE: Amount = Amount { files: 8_000, bytes: 300 << 20 };

/// Files the ledger must gain before each kill, so that every kill hits work in progress.
const PROGRESS: u64 = 15;

/// Longest the copy may take, pauses included.
const COPY: Duration = Duration::from_secs(400);

fn start_copy(sources: &[std::path::PathBuf], to: &Path) -> Child {
    let mut cp = Command::new("cp");
    cp.args(["-a", "--parents"]).args(sources).arg(to);
    cp.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("cp can be started")
}

fn ended(cp: &mut Child) -> Option<std::process::ExitStatus> {
    cp.try_wait().expect("our own child can be waited for")
}

/// Waits until the ledger has gained [`PROGRESS`] files, and checks that the copy is still going on.
fn work_goes_on(writer: &Writer, cp: &mut Child) {
    let from = writer.progress();
    wait::until("progress of the ledger", COPY, || {
        assert!(!writer.has_ended(), "the ledger's writer failed");
        (writer.progress() >= from + PROGRESS).then_some(())
    });
    assert_eq!(ended(cp), None, "the copy ended before the kill; TREE is too small");
}

#[test]
fn a_copy_goes_on_when_the_mds_and_each_oss_are_killed_and_started_again() {
    let (sources, _) = tree::pick(TREE);
    let mut cluster = Cluster::start(ClusterSpec::new("kill-servers"));
    let mut mount = cluster.mount();
    let (copy, ledger_dir) = (mount.join("copy"), mount.join("ledger"));
    std::fs::create_dir(&copy).expect("mkdir");
    std::fs::create_dir(&ledger_dir).expect("mkdir");

    let writer = Writer::start(ledger_dir);
    let mut cp = start_copy(&sources, &copy);
    work_goes_on(&writer, &mut cp);
    cluster.kill_mds();
    cluster.start_mds();
    work_goes_on(&writer, &mut cp);
    for i in 0..cluster.oss_count() {
        cluster.kill_oss(i);
        cluster.start_oss(i);
        work_goes_on(&writer, &mut cp);
    }
    // Everything at once.
    cluster.kill_mds();
    (0..cluster.oss_count()).for_each(|i| cluster.kill_oss(i));
    cluster.start_mds();
    (0..cluster.oss_count()).for_each(|i| cluster.start_oss(i));
    cluster.wait_osts_up();

    let status = wait::until("the end of cp", COPY, || ended(&mut cp));
    let said = std::io::read_to_string(cp.stderr.take().expect("piped")).unwrap_or_default();
    assert!(status.success(), "cp ended with {status}: {said}");
    let ledger = writer.finish();
    assert!(ledger.error.is_none(), "{:?}", ledger.error);
    eprintln!("{} files were fsynced", ledger.fsynced);

    ledger.assert_kept();
    tree::assert_same_by_diff(&sources, &copy);
    mount.remount();
    ledger.assert_kept();
    tree::assert_same_by_diff(&sources, &copy);
    cluster.assert_runs();
}

#[test]
fn a_killed_mount_process_fails_its_programs_and_loses_nothing_fsynced() {
    let (sources, _) = tree::pick(TREE);
    let mut cluster = Cluster::start(ClusterSpec::new("kill-mount"));
    let mut mount = cluster.mount();
    let (copy, ledger_dir) = (mount.join("copy"), mount.join("ledger"));
    std::fs::create_dir(&copy).expect("mkdir");
    std::fs::create_dir(&ledger_dir).expect("mkdir");

    let writer = Writer::start(ledger_dir);
    let mut cp = start_copy(&sources, &copy);
    work_goes_on(&writer, &mut cp);
    mount.kill9_process_only();

    let status = wait::until("the end of cp", wait::SERVER, || ended(&mut cp));
    assert!(!status.success(), "cp must fail when its file system is gone");
    wait::until("the end of the ledger's writer", wait::SERVER, || writer.has_ended().then_some(()));
    let ledger = writer.finish();
    assert!(ledger.error.is_some(), "the writer must see an error");
    eprintln!("{} files were fsynced, then {:?}", ledger.fsynced, ledger.error);

    mount.kill9();
    mount.mount();
    ledger.assert_kept();
    // What is there beyond the promise can be removed, and the name used again.
    std::fs::remove_dir_all(&copy).expect("rm -r");
    std::fs::write(&copy, b"a file now").expect("write");
    cluster.assert_runs();
}

#[test]
fn files_open_for_writing_survive_a_restart_of_the_mds() {
    use std::io::{Read, Seek, Write};
    let mut cluster = Cluster::start(ClusterSpec::new("restate"));
    let mount = cluster.mount();
    let path = mount.join("open");
    let mut file = std::fs::File::options().read(true).write(true).create_new(true).open(&path).expect("create");
    file.write_all(b"before ").expect("write");
    std::fs::remove_file(&path).expect("unlink while open");
    cluster.kill_mds();
    cluster.start_mds();
    file.write_all(b"after").expect("write");
    file.sync_all().expect("fsync");
    file.rewind().expect("seek");
    let mut text = String::new();
    file.read_to_string(&mut text).expect("read");
    assert_eq!(text, "before after");
    drop(file);
    assert!(!path.exists());
    cluster.assert_runs();
}
