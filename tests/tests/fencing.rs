//! Clients that stand still for longer than their lease, and what they had in hand when they wake.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use sateen_proto::oss::{ObjectId, WriteRequest};
use sateen_proto::status::from_status;
use sateen_tests::locker::Locker;
use sateen_tests::rpc::block_on;
use sateen_tests::{Cluster, ClusterSpec, Pair, plain, wait};
use sateen_types::FsCode;

/// Writes when it is told to.
const LOCKER: &str = env!("CARGO_BIN_EXE_locker");
/// Lease of a session here.
const LEASE: Duration = Duration::from_secs(2);
/// Within it everything goes on again.
const TIMEOUT: Duration = Duration::from_secs(60);

fn rw(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).expect("open")
}

/// What is stored before the mount stands still.
const LEN: usize = 500_000;
/// Of which so much is written again, and
const OURS: usize = 400_000;
/// so much by another mount.
const THEIRS: usize = 300_000;

/// A file that holds LEN bytes `a`, with OURS bytes `b` over them on the first mount, which stands still. The program that has
/// written is a process of its own: one that starts servers copies its descriptors, and closing the copies would wait for the
/// mount.
fn gathered(pair: &Pair) -> (String, Locker) {
    let first = "a".repeat(LEN);
    for round in 0.. {
        let name = format!("f{round}");
        fs::write(pair.a.join(&name), &first).expect("write");
        let mut writer = Locker::start(LOCKER, &pair.a.join(&name));
        writer.ok("sync 0");
        pair.appears(&name);
        writer.ok(&format!("write 0 0 {}", "b".repeat(OURS)));
        pair.a.freeze();
        // Waits until the lease is over.
        if fs::read(pair.b.join(&name)).expect("read") == first.as_bytes() {
            return (name, writer);
        }
        // It was about to store everything it had, as it does every few seconds.
        pair.a.thaw();
    }
    unreachable!("there is always another round")
}

/// Has another mount write what the first has written and not stored, and the first go on. What the other wrote must stay, and
/// the program on the first must hear of it.
fn a_mount_stands_still(label: &'static str, meanwhile: impl FnOnce(&mut Cluster)) {
    let mut pair = Pair::with(label, LEASE, &["hard"]);
    let (name, mut writer) = gathered(&pair);
    let other = rw(&pair.b.join(&name));
    other.write_all_at(&[b'c'; THEIRS], 0).expect("write");
    other.sync_all().expect("fsync");
    drop(other);
    meanwhile(&mut pair.cluster);
    pair.a.thaw();
    assert_eq!(writer.ask("sync 0"), format!("err {}", libc::EIO), "what was written is not stored");
    writer.ok("sync 0");
    let log = pair.a.log();
    assert!(log.contains("what was not stored is lost") && log.contains(&OURS.to_string()), "{log}");

    let fresh = pair.cluster.mount();
    let stored = fs::read(fresh.join(&name)).expect("read");
    assert!(stored[..THEIRS].iter().all(|byte| *byte == b'c'), "newer bytes were overwritten");
    assert!(stored[THEIRS..].iter().all(|byte| *byte == b'a'), "bytes appeared that were given up");
    assert!(fs::read(pair.a.join(&name)).expect("read") == stored, "the mount that stood still sees something else");
    // It goes on as if nothing had happened.
    writer.ok("write 0 7 and-on");
    writer.ok("sync 0");
    fs::write(pair.a.join("g"), b"new").expect("write");
    assert_eq!(&fs::read(fresh.join(&name)).expect("read")[7..13], b"and-on");
    wait::until("the new name", wait::SERVER, || fs::read(fresh.join("g")).ok().filter(|read| read == b"new"));
}

#[test]
fn a_mount_that_stood_still_for_longer_than_its_lease_overwrites_nothing_and_says_what_it_lost() {
    a_mount_stands_still("fence", |_| ());
}

#[test]
fn nor_if_the_osts_were_restarted_meanwhile() {
    a_mount_stands_still("fence-oss", |cluster| {
        for oss in 0..cluster.oss_count() {
            cluster.kill_oss(oss);
            cluster.start_oss(oss);
        }
        cluster.wait_osts_up();
    });
}

#[test]
fn nor_if_the_mds_was_restarted_meanwhile() {
    a_mount_stands_still("fence-mds", |cluster| {
        cluster.kill_mds();
        cluster.start_mds();
        cluster.wait_osts_up();
    });
}

#[test]
fn what_a_mount_that_stood_still_has_alone_is_stored_when_it_wakes() {
    let pair = Pair::with("fence-alone", LEASE, &["hard"]);
    pair.file("f");
    let mut writer = Locker::start(LOCKER, &pair.a.join("f"));
    writer.ok("write 0 0 all-alone");
    pair.a.freeze();
    wait::until("the end of the session", TIMEOUT, || (pair.figure("sessions") == 1).then_some(()));
    pair.a.thaw();
    writer.ok("sync 0");
    assert_eq!(fs::read(pair.b.join("f")).expect("read"), b"all-alone");
}

/// A client of a few lines that knows nothing of leases, as a write that was held up somewhere on its way.
#[test]
fn a_late_write_of_an_ended_session_is_refused_by_the_ost_and_by_its_next_life() {
    const WRITER: u64 = 77;
    let mds_extra = format!("[session]\nlease_ms = {}\n", LEASE.as_millis());
    let mut cluster = Cluster::start(ClusterSpec { mds_extra, ..ClusterSpec::new("fence-late") });
    let mds = cluster.mds_address();
    let (ost, object) = block_on(async {
        let mut session = plain::Session::open_as(mds, WRITER).await;
        let (fid, layout) = session.create(b"f").await;
        let component = &layout.components[0];
        let fs_id = session.opened.fs_id;
        (component.osts[0], ObjectId { fs_id, fid: Some(fid), component: component.id, stripe: 0 })
    });
    let write = async |writer: u64, byte: u8| {
        let data = vec![byte; 1000];
        let request = plain::write(ost, &object, vec![plain::raw(0, &data, false)], data);
        let mut store = plain::object_store(mds, ost).await;
        store.write(WriteRequest { writer, ..request }).await.map(drop).map_err(|status| from_status(&status).code)
    };
    block_on(write(WRITER, 1)).expect("its session lives");
    wait::until("a refusal", TIMEOUT, || block_on(write(WRITER, 2)).err().filter(|code| *code == FsCode::Stale));
    block_on(write(0, 3)).expect("another writes");
    for oss in 0..cluster.oss_count() {
        cluster.kill_oss(oss);
        cluster.start_oss(oss);
    }
    assert_eq!(block_on(write(WRITER, 4)), Err(FsCode::Stale), "in its first moment");
    let read = block_on(async {
        plain::object_store(mds, ost).await.read(plain::read(ost, &object, 0, 1000)).await.expect("read").into_inner()
    });
    assert_eq!(read.payload, vec![3; 1000]);
}
