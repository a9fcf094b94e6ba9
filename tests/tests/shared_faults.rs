//! Files in shared use when something fails: an MDS that comes back, a mount that stands still or dies.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sateen_tests::rng::{noise, seeded};
use sateen_tests::{Cluster, ClusterSpec, Mount, wait};

/// Lease of a session where a mount dies.
const LEASE: Duration = Duration::from_secs(3);
/// Within it everything goes on again.
const TIMEOUT: Duration = Duration::from_secs(30);

struct Pair {
    a: Mount,
    b: Mount,
    cluster: Cluster,
}

impl Pair {
    fn new(label: &'static str, lease: Duration) -> Pair {
        let mds_extra = format!("[session]\nlease_ms = {}\n", lease.as_millis());
        let cluster = Cluster::start(ClusterSpec { mds_extra, ..ClusterSpec::new(label) });
        Pair { a: cluster.mount_with(&["hard"]), b: cluster.mount_with(&["hard"]), cluster }
    }
}

fn rw(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).expect("open")
}

/// The name is there within `entry_timeout`.
fn appears(path: &Path) {
    wait::until("the name on the other mount", TIMEOUT, || path.exists().then_some(()));
}

#[test]
fn what_a_mount_keeps_is_still_recalled_after_the_mds_was_killed() {
    let mut rng = seeded("recall after restart");
    let mut pair = Pair::new("recall-restart", Duration::from_secs(60));
    for round in 0..4 {
        let name = format!("f{round}");
        let writer = rw(&pair.a.join(&name));
        let data = noise(&mut rng, 700_000);
        writer.write_all_at(&data, 0).expect("write");
        appears(&pair.b.join(&name));
        pair.cluster.kill_mds();
        pair.cluster.start_mds();
        // Neither flushed nor closed: the MDS must have heard again who keeps it.
        assert_eq!(fs::metadata(pair.b.join(&name)).expect("stat").size(), 700_000);
        assert!(fs::read(pair.b.join(&name)).expect("read") == data, "round {round}");
        writer.write_all_at(b"more", 700_000).expect("write");
        assert_eq!(&fs::read(pair.b.join(&name)).expect("read")[700_000..], b"more");
    }
}

#[test]
fn appends_of_two_mounts_go_on_while_the_mds_is_killed() {
    const RECORDS: usize = 150;
    const KILLS_MAX: usize = 8;
    let mut pair = Pair::new("append-kills", Duration::from_secs(60));
    drop(rw(&pair.a.join("log")));
    appears(&pair.b.join("log"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = [(0, pair.a.join("log")), (1, pair.b.join("log"))]
            .into_iter()
            .map(|(mount, path)| {
                scope.spawn(move || {
                    let mut log = File::options().append(true).open(path).expect("open");
                    for n in 0..RECORDS {
                        log.write_all(format!("{mount} {n} {}.\n", "y".repeat(n * 5)).as_bytes()).expect("append");
                    }
                })
            })
            .collect();
        let cluster = &mut pair.cluster;
        let (done, writers) = (&done, &writers);
        let watch = move || writers.iter().all(|w| w.is_finished()) || done.load(Ordering::Relaxed);
        let mut kills = 0;
        while !watch() && kills < KILLS_MAX {
            cluster.kill_mds();
            cluster.start_mds();
            kills += 1;
            std::thread::sleep(Duration::from_millis(700));
        }
        eprintln!("{kills} kills");
    });
    let text = fs::read_to_string(pair.b.join("log")).expect("read");
    let mut next = [0; 2];
    for line in text.lines() {
        let mut words = line.split(' ');
        let mount: usize = words.next().expect("a mount").parse().expect("a mount");
        let n: usize = words.next().expect("a number").parse().expect("a number");
        assert_eq!((n, words.next()), (next[mount], Some(&*format!("{}.", "y".repeat(n * 5)))), "{line}");
        next[mount] += 1;
    }
    assert_eq!(next, [RECORDS; 2]);
}

#[test]
fn an_open_waits_for_a_mount_that_stands_still_and_sees_what_it_kept() {
    let mut rng = seeded("frozen");
    let pair = Pair::new("recall-frozen", Duration::from_secs(60));
    let writer = rw(&pair.a.join("f"));
    let data = noise(&mut rng, 300_000);
    writer.write_all_at(&data, 0).expect("write");
    appears(&pair.b.join("f"));
    pair.a.freeze();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| fs::read(pair.b.join("f")).expect("read"));
        // Long enough for an answer that does not wait; that it is not there yet proves nothing, that it is would.
        std::thread::sleep(Duration::from_secs(1));
        assert!(!reader.is_finished(), "the open did not wait");
        pair.a.thaw();
        assert!(reader.join().expect("read") == data);
    });
}

#[test]
fn a_mount_that_dies_keeps_others_waiting_for_its_lease_and_no_longer() {
    let mut rng = seeded("dead holder");
    let mut pair = Pair::new("recall-dead", LEASE);
    let stored = noise(&mut rng, 200_000);
    fs::write(pair.a.join("f"), &stored).expect("write");
    appears(&pair.b.join("f"));
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
