//! Files in shared use when something fails: an MDS that comes back, a mount that stands still or dies.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sateen_tests::locker::Locker;
use sateen_tests::pair::LONG_LEASE;
use sateen_tests::rng::{noise, seeded};
use sateen_tests::{Mount, Pair, wait};

/// Writes when it is told to.
const LOCKER: &str = env!("CARGO_BIN_EXE_locker");
/// Lease of a session where a mount dies.
const LEASE: Duration = Duration::from_secs(3);
/// Within it everything goes on again.
const TIMEOUT: Duration = Duration::from_secs(30);

fn pair(label: &'static str) -> Pair {
    Pair::with(label, LONG_LEASE, &["hard"])
}

/// Ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn rw(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).expect("open")
}

/// Programs of their own use the files here: a process that starts a server copies its descriptors, and closing the copies
/// waits for the very server.
#[test]
fn what_a_mount_keeps_is_still_recalled_after_the_mds_was_killed() {
    let mut pair = pair("recall-restart");
    for round in 0..4 {
        let (ours, theirs) = (pair.a.join(format!("f{round}")), pair.b.join(format!("f{round}")));
        fs::write(&ours, b"").expect("write");
        let mut writer = Locker::start(LOCKER, &ours);
        writer.ok("write 0 0 kept-to-itself");
        pair.appears(&format!("f{round}"));
        pair.cluster.kill_mds();
        pair.cluster.start_mds();
        // Neither flushed nor closed: the MDS must have heard again who keeps it.
        assert_eq!(fs::metadata(&theirs).expect("stat").size(), 14);
        assert_eq!(fs::read_to_string(&theirs).expect("read"), "kept-to-itself");
        writer.ok("write 0 14 -and-more");
        assert_eq!(fs::read_to_string(&theirs).expect("read"), "kept-to-itself-and-more");
    }
}

#[test]
fn appends_of_two_mounts_go_on_while_the_mds_is_killed() {
    const KILLS: usize = 4;
    /// So much is appended between two kills.
    const PROGRESS: u64 = 10_000;
    const SCRIPT: &str = r#"exec 3>> "$1"; pad=
        for ((n = 0; 1; n++)); do
            if [ -e "$3" ]; then echo $n; exit; fi
            ((n % 100)) || pad=
            echo "$2 $n $pad." >&3; pad+=yyyyy
        done"#;
    let mut pair = pair("append-kills");
    pair.file("log");
    let stop = pair.cluster.dir().join("stop");
    let start = |mount: usize, point: &Mount| {
        let mut command = Command::new("bash");
        command.args(["-ec", SCRIPT, "append"]).arg(point.join("log")).arg(mount.to_string()).arg(&stop);
        Program(command.stdout(Stdio::piped()).spawn().expect("bash"))
    };
    let writers = [start(0, &pair.a), start(1, &pair.b)];
    for _ in 0..KILLS {
        let before = fs::metadata(pair.b.join("log")).expect("stat").size();
        wait::until("appends", TIMEOUT, || {
            (fs::metadata(pair.b.join("log")).expect("stat").size() > before + PROGRESS).then_some(())
        });
        pair.cluster.kill_mds();
        pair.cluster.start_mds();
    }
    fs::write(&stop, b"").expect("write");
    let counts = writers.map(|mut writer| {
        let mut count = String::new();
        writer.0.stdout.take().expect("piped").read_to_string(&mut count).expect("reads");
        assert!(writer.0.wait().expect("our own child").success(), "an append failed");
        count.trim().parse::<usize>().expect("a number of records")
    });
    let text = fs::read_to_string(pair.b.join("log")).expect("read");
    let mut next = [0; 2];
    for line in text.lines() {
        let mut words = line.split(' ');
        let mount: usize = words.next().expect("a mount").parse().expect("a mount");
        let n: usize = words.next().expect("a number").parse().expect("a number");
        assert_eq!((n, words.next()), (next[mount], Some(&*format!("{}.", "y".repeat(n % 100 * 5)))), "{line}");
        next[mount] += 1;
    }
    assert_eq!(next, counts);
}

#[test]
fn an_open_waits_for_a_mount_that_stands_still_and_sees_what_it_kept() {
    let mut rng = seeded("frozen");
    let pair = pair("recall-frozen");
    let writer = rw(&pair.a.join("f"));
    let data = noise(&mut rng, 300_000);
    writer.write_all_at(&data, 0).expect("write");
    pair.appears("f");
    pair.a.freeze();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| fs::read(pair.b.join("f")).expect("read"));
        wait::until("the recall", wait::SERVER, || (pair.figure("recalls_unanswered") > 0).then_some(()));
        assert!(!reader.is_finished(), "the open did not wait");
        pair.a.thaw();
        assert!(reader.join().expect("read") == data);
    });
}

#[test]
fn a_mount_that_dies_keeps_others_waiting_for_its_lease_and_no_longer() {
    let mut rng = seeded("dead holder");
    let mut pair = Pair::with("recall-dead", LEASE, &["hard"]);
    let stored = noise(&mut rng, 200_000);
    fs::write(pair.a.join("f"), &stored).expect("write");
    pair.appears("f");
    let writer = rw(&pair.a.join("f"));
    writer.sync_all().expect("fsync");
    writer.write_all_at(b"kept to itself", 0).expect("write");
    pair.a.kill9_process_only();
    drop(writer);
    // What was not stored is gone with the mount; what was is there, and others may write again.
    let seen = wait::until("the end of the lease", TIMEOUT, || fs::read(pair.b.join("f")).ok());
    assert!(seen == stored);
    fs::write(pair.b.join("f"), b"new").expect("write");
    assert_eq!(fs::read(pair.b.join("f")).expect("read"), b"new");
}

/// Programs of their own append: see above.
#[test]
fn an_append_behind_one_that_waits_for_an_ost_fails_in_time_on_a_soft_mount() {
    let mut pair = Pair::with("append-soft", LEASE, &["hard"]);
    let soft = pair.cluster.mount_with(&["soft", "timeout=1"]);
    pair.file("log");
    wait::until("the name on the soft mount", wait::SERVER, || soft.join("log").exists().then_some(()));
    // Open on both: neither has it to itself.
    let mut patient = Locker::start(LOCKER, &pair.a.join("log"));
    let mut hurried = Locker::start(LOCKER, &soft.join("log"));
    patient.ok(&format!("open 1 a {}", pair.a.join("log").display()));
    hurried.ok(&format!("open 1 a {}", soft.join("log").display()));
    patient.ok("write 1 0 before-");
    hurried.ok("write 1 0 it-stopped-");
    (0..pair.cluster.oss_count()).for_each(|i| pair.cluster.kill_oss(i));
    patient.begin("write 1 0 patient");
    wait::until("the lock of appends", TIMEOUT, || (pair.figure("locks") > 0).then_some(()));
    hurried.fails("write 1 0 hurried", libc::ETIMEDOUT);
    assert!(patient.is_waiting(), "it has all the time in the world");
    (0..pair.cluster.oss_count()).for_each(|i| pair.cluster.start_oss(i));
    assert_eq!(patient.answer(), "ok");
    let text = fs::read_to_string(pair.b.join("log")).expect("read");
    assert!(text.starts_with("before-it-stopped-") && text.matches("patient").count() == 1, "{text:?}");
}
