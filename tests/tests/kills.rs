//! `kill -9` in the middle of work: of the MDS, of each OSS, of one again and again, of the mount process.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rand::Rng;
use sateen_tests::ledger::{Kind, Ledger, Writer};
use sateen_tests::rng::seeded;
use sateen_tests::size::amount;
use sateen_tests::tree::{self, Amount};
use sateen_tests::{Cluster, ClusterSpec, Mount, wait};

/// Enough to be busy while three servers are killed.
const TREE: Amount = Amount { files: 8_000, bytes: 300 << 20 };

/// Files the ledger must gain before each kill, so that every kill hits work in progress.
const PROGRESS: u64 = 15;

/// Longest the copy may take, pauses included.
const COPY: Duration = Duration::from_secs(400);

fn ledger_writer() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ledger-writer"))
}

/// Work on a mount: a tree is copied, and a ledger written.
struct Work {
    sources: Vec<PathBuf>,
    copy: PathBuf,
    cp: Child,
    writer: Writer,
}

impl Work {
    fn start(mount: &Mount) -> Work {
        let (sources, _) = tree::pick(TREE);
        let copy = mount.join("copy");
        std::fs::create_dir(&copy).expect("mkdir");
        let writer = Writer::start(ledger_writer(), Kind::Files, mount.join("ledger"));
        let mut cp = Command::new("bash");
        cp.args(["-c", tree::COPY, "bash"]).arg(&copy).args(&sources);
        let cp = cp.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        Work { sources, copy, cp: cp.expect("cp can be started"), writer }
    }

    /// Waits until the ledger has gained [`PROGRESS`] files, and checks that the copy is still going on.
    fn goes_on(&mut self) {
        self.writer.wait_for(self.writer.progress(), PROGRESS, COPY);
        assert_eq!(ended(&mut self.cp), None, "the copy ended before the kill; TREE is too small");
    }

    /// Waits for the end of the copy; gives how it ended, what it said, and the ledger.
    fn finish(mut self) -> (ExitStatus, String, Ledger) {
        let status = wait::until("the end of cp", COPY, || ended(&mut self.cp));
        let said = std::io::read_to_string(self.cp.stderr.take().expect("piped")).unwrap_or_default();
        (status, said, self.writer.finish())
    }
}

fn ended(child: &mut Child) -> Option<ExitStatus> {
    child.try_wait().expect("our own child can be waited for")
}

#[test]
fn a_copy_goes_on_when_the_mds_and_each_oss_are_killed_and_started_again() {
    let mut cluster = Cluster::start(ClusterSpec::new("kill-servers"));
    let mut mount = cluster.mount();
    let mut work = Work::start(&mount);
    work.goes_on();
    cluster.kill_mds();
    cluster.start_mds();
    work.goes_on();
    for i in 0..cluster.oss_count() {
        cluster.kill_oss(i);
        cluster.start_oss(i);
        work.goes_on();
    }
    // Everything at once.
    cluster.kill_mds();
    (0..cluster.oss_count()).for_each(|i| cluster.kill_oss(i));
    cluster.start_all();

    let (sources, copy) = (work.sources.clone(), work.copy.clone());
    let (status, said, ledger) = work.finish();
    assert!(status.success(), "cp ended with {status}: {said}");
    assert!(ledger.error.is_none(), "{:?}", ledger.error);
    eprintln!("{} files were fsynced", ledger.fsynced);

    ledger.assert_kept();
    tree::assert_same_by_diff(&sources, &copy);
    mount.remount();
    ledger.assert_kept();
    tree::assert_same_by_diff(&sources, &copy);
    cluster.assert_runs();
    cluster.assert_names_sound();
}

#[test]
fn a_killed_mount_process_fails_its_programs_and_loses_nothing_fsynced() {
    let mut cluster = Cluster::start(ClusterSpec::new("kill-mount"));
    let mut mount = cluster.mount();
    let mut work = Work::start(&mount);
    work.goes_on();
    mount.kill9_process_only();

    wait::until("the end of the ledger's writer", wait::SERVER, || work.writer.has_ended().then_some(()));
    let copy = work.copy.clone();
    let (status, _, ledger) = work.finish();
    assert!(!status.success(), "cp must fail when its file system is gone");
    assert!(ledger.error.is_some(), "the writer must see an error");
    eprintln!("{} files were fsynced, then {:?}", ledger.fsynced, ledger.error);

    mount.kill9();
    mount.mount();
    ledger.assert_kept();
    // What is there beyond the promise can be removed, and the name used again.
    std::fs::remove_dir_all(&copy).expect("rm -r");
    std::fs::write(&copy, b"a file now").expect("write");
    cluster.assert_runs();
    cluster.assert_names_sound();
}

/// Kills in CI, and all.
const KILLS: (u64, u64) = (8, 200);

/// Kills after which new ledgers are begun and the old ones checked and removed, so that checking stays short.
const KILLS_PER_LEDGER: u64 = 20;

#[test]
fn an_oss_that_is_killed_again_and_again_loses_nothing_answered() {
    let test = "an OSS killed again and again";
    let (mut rng, kills) = (seeded(test), amount(test, KILLS.0, KILLS.1));
    let mut cluster = Cluster::start(ClusterSpec::new("kill-oss"));
    let mut mount = cluster.mount();
    let (mut killed, mut fsynced) = (0, 0);
    while killed < kills {
        let start = |kind, name: &str| Writer::start(ledger_writer(), kind, mount.join(format!("{name}-{killed}")));
        let writers = [start(Kind::Files, "files"), start(Kind::Versions, "versions")];
        for _ in 0..KILLS_PER_LEDGER.min(kills - killed) {
            // Somewhere in the work of one of the two.
            let writer = &writers[rng.random_range(0..2)];
            writer.wait_for(writer.progress(), rng.random_range(1..=3), COPY);
            let oss = rng.random_range(0..cluster.oss_count());
            cluster.kill_oss(oss);
            cluster.start_oss(oss);
            killed += 1;
        }
        let ledgers = writers.map(Writer::finish);
        // What was answered is there for somebody who has nothing in memory.
        mount.remount();
        for ledger in &ledgers {
            assert!(ledger.error.is_none(), "{:?}", ledger.error);
            ledger.assert_kept();
            fsynced += ledger.fsynced;
        }
        ledgers.iter().for_each(Ledger::remove);
    }
    eprintln!("{killed} kills, {fsynced} promises (files, and versions of 40 chunks), all kept");
    cluster.assert_runs();
    cluster.assert_names_sound();
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
    cluster.assert_names_sound();
}
