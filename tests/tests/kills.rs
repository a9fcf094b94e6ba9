//! `kill -9` in the middle of work: of the MDS, of each OSS, of the mount process.

use std::io::{BufRead, BufReader, Write};
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

fn ledger_writer() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ledger-writer"))
}

fn start_copy(sources: &[std::path::PathBuf], to: &Path) -> Child {
    let mut cp = Command::new("bash");
    cp.args(["-c", tree::COPY, "bash"]).arg(to).args(sources);
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

    let writer = Writer::start(ledger_writer(), ledger_dir);
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

    let writer = Writer::start(ledger_writer(), ledger_dir);
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

/// Holds a file open, unlinked and with data not yet written back, over whatever happens until a line comes.
const HOLDER: &str = r#"
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
os.write(fd, b'before ')
os.unlink(sys.argv[1])
print('ready', flush=True)
sys.stdin.readline()
os.write(fd, b'after')
os.fsync(fd)
sys.stdout.write(os.pread(fd, 100, 0).decode())
"#;

#[test]
fn a_file_open_and_unlinked_survives_a_restart_of_the_mds() {
    let mut cluster = Cluster::start(ClusterSpec::new("restate"));
    let mount = cluster.mount();
    let path = mount.join("open");
    // A process of its own: see `ledger`.
    let mut python = Command::new("python3");
    let mut holder = python
        .args(["-c", HOLDER])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 can be started");
    let mut said = BufReader::new(holder.stdout.take().expect("piped"));
    let mut line = String::new();
    said.read_line(&mut line).expect("a line");
    assert_eq!(line, "ready\n");
    cluster.kill_mds();
    cluster.start_mds();
    let mut stdin = holder.stdin.take().expect("piped");
    stdin.write_all(b"go\n").expect("write");
    assert_eq!(std::io::read_to_string(said).expect("read"), "before after");
    assert!(wait::until("the end of the holder", wait::SERVER, || ended(&mut holder)).success());
    assert!(!path.exists());
    cluster.assert_runs();
}
