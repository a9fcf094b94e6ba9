//! Locks of two mounts: flock and fcntl exclude each other everywhere, survive an MDS that is killed, and go with whoever
//! holds them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sateen_tests::locker::Locker;
use sateen_tests::{Mount, Pair, run_ok, wait};

const LOCKER: &str = env!("CARGO_BIN_EXE_locker");

/// Two mounts with a file `f` that both know.
fn pair_with_lease(label: &'static str, lease_ms: u64) -> Pair {
    let pair = Pair::with(label, Duration::from_millis(lease_ms), &["allow_other"]);
    pair.file("f");
    pair
}

fn pair(label: &'static str) -> Pair {
    let pair = Pair::new(label);
    pair.file("f");
    pair
}

/// Waits until so many requests wait for locks at the MDS.
#[track_caller]
fn wait_for_waiters(pair: &Pair, count: u64) {
    wait::until(&format!("{count} waiters"), wait::SERVER, || (pair.figure("lock_waiters") == count).then_some(()));
}

fn locker(path: impl AsRef<Path>) -> Locker {
    Locker::start(LOCKER, path.as_ref())
}

#[test]
fn locks_of_one_mount_exclude_those_of_the_other_by_range_and_mode() {
    let pair = pair("locks-pair");
    let (mut a, mut b) = (locker(pair.a.join("f")), locker(pair.b.join("f")));
    a.ok("set 0 w 10 10");
    b.fails("set 0 r 15 1", libc::EAGAIN);
    assert_eq!(b.ok("get 0 r 0 0"), format!("w 10 10 {}", a.id()));
    b.ok("set 0 w 20 5");
    assert_eq!(b.ok("get 0 w 20 0"), "free", "its own lock is in nobody's way but others'");
    // A part of a lock given up, and the rest turned into a shared one.
    a.ok("set 0 u 14 2");
    b.ok("set 0 r 14 2");
    a.ok("set 0 r 10 4");
    b.ok("set 0 r 10 4");
    b.fails("set 0 w 10 4", libc::EAGAIN);
    a.fails("set 0 w 10 4", libc::EAGAIN);
    b.ok("set 0 u 10 4");
    a.ok("set 0 w 10 4");
    // flock is another world, on the same file.
    a.ok("flock 0 sh nb");
    b.ok("flock 0 sh nb");
    b.fails("flock 0 ex nb", libc::EAGAIN);
    a.ok("flock 0 un");
    b.ok("flock 0 ex nb");
    a.fails("flock 0 sh nb", libc::EAGAIN);
    assert_eq!(b.ok("get 0 w 0 0"), format!("w 10 4 {}", a.id()));
    // An open file owns its flock and OFD locks: they go with its last descriptor.
    b.ok("set 0 u 0 0");
    b.ok("oset 0 w 100 1");
    b.ok("dup 0 1");
    b.ok("close 0");
    a.fails("set 0 w 100 1", libc::EAGAIN);
    a.fails("flock 0 sh nb", libc::EAGAIN);
    b.ok("close 1");
    wait::until("the end of the open file's locks", wait::SERVER, || (a.ask("set 0 w 100 1") == "ok").then_some(()));
    wait::until("the end of its flock", wait::SERVER, || (a.ask("flock 0 ex nb") == "ok").then_some(()));
    drop((a, b));
    wait::until("nothing held", wait::SERVER, || (pair.figure("locks") == 0).then_some(()));
}

#[test]
fn who_came_first_goes_on_first_when_a_lock_goes() {
    let pair = pair("locks-fifo");
    let mut holder = locker(pair.a.join("f"));
    holder.ok("set 0 w 0 10");
    let mut waiting: Vec<Locker> = Vec::new();
    for (i, mount) in [&pair.b, &pair.a, &pair.b].into_iter().enumerate() {
        let mut next = locker(mount.join("f"));
        next.begin("setw 0 w 0 1");
        wait_for_waiters(&pair, i as u64 + 1);
        waiting.push(next);
    }
    holder.ok("set 0 u 0 0");
    for i in 0..waiting.len() {
        assert_eq!(waiting[i].answer(), "ok");
        wait_for_waiters(&pair, 2 - i as u64);
        assert!(waiting[i + 1..].iter_mut().all(Locker::is_waiting));
        waiting[i].ok("set 0 u 0 0");
    }
}

#[test]
fn a_deadlock_over_two_mounts_and_two_files_is_told_to_one() {
    let pair = pair("locks-deadlock");
    pair.file("g");
    let (mut a, mut b) = (locker(pair.a.join("f")), locker(pair.b.join("g")));
    a.ok(&format!("open 1 rw {}", pair.a.join("g").display()));
    b.ok(&format!("open 1 rw {}", pair.b.join("f").display()));
    a.ok("set 0 w 0 1");
    b.ok("set 0 w 0 1");
    a.begin("setw 1 w 0 1");
    wait_for_waiters(&pair, 1);
    b.fails("setw 1 r 0 0", libc::EDEADLK);
    b.ok("set 0 u 0 0");
    assert_eq!(a.answer(), "ok");
}

#[test]
fn a_signal_ends_a_wait_and_kill_9_leaves_nothing_waiting() {
    let pair = pair("locks-signals");
    let (mut a, mut b) = (locker(pair.a.join("f")), locker(pair.b.join("f")));
    a.ok("set 0 w 0 0");
    a.ok("flock 0 ex");
    for wait in ["setw 0 w 0 1", "osetw 0 w 0 1", "flock 0 ex"] {
        b.ok("alarm 300");
        b.fails(wait, libc::EINTR);
        assert_eq!(pair.figure("lock_waiters"), 0, "{wait}");
    }
    for wait in ["setw 0 w 0 1", "flock 0 sh"] {
        let mut victim = locker(pair.b.join("f"));
        victim.begin(wait);
        wait_for_waiters(&pair, 1);
        victim.kill9();
        wait_for_waiters(&pair, 0);
    }
    // Nothing of theirs is in the way.
    a.ok("set 0 u 0 0");
    a.ok("flock 0 un");
    b.ok("set 0 w 0 0");
    b.ok("flock 0 ex nb");
}

#[test]
fn locks_belong_to_processes_as_posix_says() {
    let pair = pair("locks-posix");
    let (mut a, mut b) = (locker(pair.a.join("f")), locker(pair.b.join("f")));
    a.ok("set 0 w 0 10");
    a.ok("child-closes 0");
    b.fails("set 0 r 0 10", libc::EAGAIN);
    // Closing any descriptor of the file gives up all locks on it, also one that can only read.
    a.ok(&format!("open 1 ro {}", pair.a.join("f").display()));
    a.ok("close 1");
    b.ok("set 0 r 0 10");
    b.ok("set 0 u 0 0");
    a.ok("dup 0 2");
    a.ok("set 0 w 0 10");
    a.ok("close 2");
    b.ok("set 0 w 0 10");
    // And so does the end of the process, however it ends.
    b.kill9();
    wait::until("the dead process's lock", wait::SERVER, || (a.ask("set 0 w 0 10") == "ok").then_some(()));
}

#[test]
fn what_is_written_under_a_lock_is_read_under_the_next() {
    let pair = pair("locks-data");
    let (mut a, mut b) = (locker(pair.a.join("f")), locker(pair.b.join("f")));
    const ROUNDS: usize = 300;
    a.begin(&format!("count 0 {ROUNDS}"));
    b.begin(&format!("count 0 {ROUNDS}"));
    assert_eq!((a.answer(), b.answer()), ("ok".into(), "ok".into()));
    a.ok("setw 0 r 0 1");
    let mut count = vec![0; 8];
    let file = File::open(pair.b.join("f")).expect("open");
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut count, 4096).expect("read");
    assert_eq!(u64::from_le_bytes(count.try_into().expect("eight")), 2 * ROUNDS as u64);
    // Turning an exclusive lock into a shared one shows what was written as well.
    a.ok("setw 0 w 0 1");
    a.ok("write 0 0 hello");
    a.ok("set 0 r 0 1");
    b.ok("set 0 r 0 1");
    assert_eq!(b.ok("read 0 0 5"), "hello");
}

#[test]
fn locks_survive_a_kill_of_the_mds_and_nobody_gets_one_early() {
    let mut pair = pair_with_lease("locks-mds", 6_000);
    pair.file("g");
    let (mut a, mut b) = (locker(pair.a.join("f")), locker(pair.b.join("f")));
    let mut c = locker(pair.b.join("g"));
    a.ok("set 0 w 0 10");
    a.ok("flock 0 sh");
    b.begin("setw 0 w 5 1");
    wait_for_waiters(&pair, 1);
    for _ in 0..3 {
        pair.cluster.kill_mds();
        // Asked of a server that is not there; the answer must wait for what `a` says it holds.
        let mut early = Locker::begin_start(LOCKER, &pair.b.join("f"));
        pair.cluster.start_mds();
        assert_eq!(early.answer(), "ok");
        early.fails("flock 0 ex nb", libc::EAGAIN);
        early.fails("set 0 r 0 1", libc::EAGAIN);
        wait_for_waiters(&pair, 1);
        assert!(b.is_waiting());
        c.ok("set 0 w 0 0");
    }
    a.ok("set 0 u 0 0");
    assert_eq!(b.answer(), "ok");
    a.fails("set 0 r 5 1", libc::EAGAIN);
    // Given up while the MDS is away.
    pair.cluster.kill_mds();
    b.begin("set 0 u 0 0");
    a.begin("setw 0 w 0 0");
    pair.cluster.start_mds();
    assert_eq!((a.answer(), b.answer()), ("ok".into(), "ok".into()));
}

#[test]
fn the_locks_of_a_mount_that_dies_go_with_its_session() {
    let mut pair = pair_with_lease("locks-death", 3_000);
    let (mut a, mut b) = (locker(pair.a.join("f")), locker(pair.b.join("f")));
    a.ok("set 0 w 0 0");
    a.ok("flock 0 ex");
    pair.a.kill9_process_only();
    b.fails("set 0 r 0 0", libc::EAGAIN);
    b.ok("setw 0 w 0 0");
    b.ok("flock 0 ex");
    drop((a, b));
    pair.a.kill9();
}

#[test]
fn a_mount_that_was_silent_for_longer_than_its_lease_tells_who_had_locks() {
    let pair = pair_with_lease("locks-silent", 2_000);
    let (mut a, mut b) = (locker(pair.a.join("f")), locker(pair.b.join("f")));
    let mut bystander = locker(pair.a.join("f"));
    a.ok("set 0 w 0 1");
    signal(pair.a.id(), "STOP");
    b.ok("setw 0 w 0 1");
    signal(pair.a.id(), "CONT");
    wait::until("the loss", wait::SERVER, || (a.ask("write 0 0 x") == format!("err {}", libc::EIO)).then_some(()));
    a.fails("set 0 r 8 1", libc::EIO);
    bystander.ok("write 0 9 y");
    a.ok("set 0 u 0 0");
    a.ok("set 0 w 8 1");
    a.fails("set 0 w 0 1", libc::EAGAIN);
}

fn signal(pid: u32, name: &str) {
    run_ok(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]), Duration::from_secs(10));
}

#[test]
fn with_localflock_locks_are_those_of_one_mount() {
    let pair = pair("locks-local");
    let local = pair.cluster.mount_with(&["allow_other", "localflock"]);
    let (mut a, mut b) = (locker(pair.a.join("f")), locker(local.join("f")));
    let mut c = locker(local.join("f"));
    a.ok("set 0 w 0 0");
    a.ok("flock 0 ex");
    b.ok("set 0 w 0 0");
    b.ok("flock 0 ex nb");
    c.fails("set 0 w 0 0", libc::EAGAIN);
    c.fails("flock 0 ex nb", libc::EAGAIN);
}

#[test]
fn flock_of_the_shell_counts_without_loss_over_two_mounts() {
    let pair = pair("locks-shell");
    fs::write(pair.a.join("counter"), "0\n").expect("write");
    wait::until("the counter on the other mount", wait::SERVER, || pair.b.join("counter").exists().then_some(()));
    const SCRIPT: &str = r#"
        for ((i = 0; i < 200; i++)); do
            flock "$1/f" bash -c 'n=$(<"$0/counter"); echo $((n + 1)) > "$0/counter"' "$1"
        done"#;
    let start = |mount: &Mount| {
        let mut command = Command::new("bash");
        command.args(["-euc", SCRIPT, "bash"]).arg(mount.path()).stdin(Stdio::null());
        command.spawn().expect("bash starts")
    };
    let shells = [start(&pair.a), start(&pair.b)];
    for mut shell in shells {
        assert!(shell.wait().expect("ends").success());
    }
    let counted = run_ok(
        Command::new("flock").arg(pair.b.join("f")).arg("cat").arg(pair.b.join("counter")),
        Duration::from_secs(30),
    );
    assert_eq!(counted.stdout, "400\n");
}

#[test]
fn sqlite_on_two_mounts_at_once_keeps_one_database_whole() {
    let pair = pair("locks-sqlite");
    let sqlite = |db: PathBuf, sql: &str| {
        let mut command = Command::new("sqlite3");
        command.args(["-bail", "-cmd", ".timeout 120000"]).arg(db).arg(sql);
        command
    };
    let done = run_ok(
        &mut sqlite(pair.a.join("db"), "PRAGMA journal_mode = DELETE; CREATE TABLE t(who TEXT, n INTEGER);"),
        Duration::from_secs(60),
    );
    assert_eq!(done.stdout, "delete\n");
    wait::until("the database on the other mount", wait::SERVER, || pair.b.join("db").exists().then_some(()));
    let writer = |mount: &Mount, who: &str| {
        let sql: String =
            (0..200).map(|n| format!("BEGIN IMMEDIATE; INSERT INTO t VALUES('{who}', {n}); COMMIT;\n")).collect();
        sqlite(mount.join("db"), &sql).stdin(Stdio::null()).spawn().expect("sqlite3 starts")
    };
    let writers = [writer(&pair.a, "a"), writer(&pair.b, "b")];
    for mut writer in writers {
        assert!(writer.wait().expect("ends").success());
    }
    for mount in [&pair.a, &pair.b] {
        let check = "PRAGMA integrity_check; SELECT count(*), count(DISTINCT who || n) FROM t;";
        assert_eq!(run_ok(&mut sqlite(mount.join("db"), check), Duration::from_secs(60)).stdout, "ok\n400|400\n");
    }
}
