//! Clients that stand still for longer than their lease, and what they had in hand when they wake.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use sateen_proto::oss::{ObjectId, WriteRequest};
use sateen_proto::status::from_status;
use sateen_tests::rng::{noise, seeded};
use sateen_tests::{Cluster, ClusterSpec, Pair, plain, wait};
use sateen_types::FsCode;

/// Lease of a session here.
const LEASE: Duration = Duration::from_secs(2);
/// Within it everything goes on again.
const TIMEOUT: Duration = Duration::from_secs(60);

fn rw(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).expect("open")
}

/// Writes to a file on a mount, stops the mount before anything is stored, has another write the same bytes, and lets the
/// first go on. What the other wrote must stay, and the program on the first must hear of it.
fn a_mount_stands_still(label: &'static str, meanwhile: impl FnOnce(&mut Cluster)) {
    let mut rng = seeded(label);
    let mut pair = Pair::with(label, LEASE, &["hard"]);
    let [first, ours, theirs] = [(); 3].map(|()| noise(&mut rng, 500_000));
    let (name, writer) = gathered(&pair, &first, &ours[..400_000]);
    let other = rw(&pair.b.join(&name));
    other.write_all_at(&theirs[..300_000], 0).expect("write");
    other.sync_all().expect("fsync");
    drop(other);
    meanwhile(&mut pair.cluster);
    pair.a.thaw();
    let lost = writer.sync_all().expect_err("what was written is not stored");
    assert_eq!(lost.raw_os_error(), Some(libc::EIO), "{lost}");
    writer.sync_all().expect("told once");
    let log = pair.a.log();
    assert!(log.contains("what was not stored is lost") && log.contains("400000"), "{log}");

    let fresh = pair.cluster.mount();
    let stored = fs::read(fresh.join(&name)).expect("read");
    assert!(stored[..300_000] == theirs[..300_000], "newer bytes were overwritten");
    assert!(stored[300_000..] == first[300_000..], "bytes appeared that were given up");
    assert!(fs::read(pair.a.join(&name)).expect("read") == stored, "the mount that stood still sees something else");
    // It goes on as if nothing had happened.
    writer.write_all_at(b"and on", 7).expect("write");
    writer.sync_all().expect("fsync");
    fs::write(pair.a.join("g"), b"new").expect("write");
    assert_eq!(&fs::read(fresh.join(&name)).expect("read")[7..13], b"and on");
    wait::until("the new name", wait::SERVER, || fs::read(fresh.join("g")).ok().filter(|read| read == b"new"));
}

/// A file whose stored bytes are `first`, with `ours` over them on the first mount, which stands still and has lost its
/// session.
fn gathered(pair: &Pair, first: &[u8], ours: &[u8]) -> (String, File) {
    for round in 0.. {
        let name = format!("f{round}");
        let writer = rw(&pair.a.join(&name));
        writer.write_all_at(first, 0).expect("write");
        writer.sync_all().expect("fsync");
        pair.appears(&name);
        writer.write_all_at(ours, 0).expect("write");
        pair.a.freeze();
        // Waits until the lease is over.
        if fs::read(pair.b.join(&name)).expect("read") == first {
            return (name, writer);
        }
        // It was about to store everything it had, as it does every few seconds.
        pair.a.thaw();
    }
    unreachable!("there is always another round")
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
    let mut rng = seeded("fence alone");
    let pair = Pair::with("fence-alone", LEASE, &["hard"]);
    let data = noise(&mut rng, 500_000);
    let writer = rw(&pair.a.join("f"));
    pair.appears("f");
    writer.write_all_at(&data, 0).expect("write");
    pair.a.freeze();
    wait::until("the end of the session", TIMEOUT, || (pair.figure("sessions") == 1).then_some(()));
    pair.a.thaw();
    writer.sync_all().expect("nobody else has used the file");
    assert!(fs::read(pair.b.join("f")).expect("read") == data);
}

/// A client of a few lines that knows nothing of leases, as a write that was held up somewhere on its way.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_write_of_an_ended_session_is_refused_by_the_ost_and_by_its_next_life() {
    const WRITER: u64 = 77;
    let mds_extra = format!("[session]\nlease_ms = {}\n", LEASE.as_millis());
    let mut cluster = Cluster::start(ClusterSpec { mds_extra, ..ClusterSpec::new("fence-late") });
    let mds = cluster.mds_address();
    let mut session = plain::Session::open_as(mds, WRITER).await;
    let (fid, layout) = session.create(b"f").await;
    let component = &layout.components[0];
    let (ost, fs_id) = (component.osts[0], session.opened.fs_id);
    let object = ObjectId { fs_id, fid: Some(fid), component: component.id, stripe: 0 };
    let write = |writer: u64, byte: u8| {
        let data = vec![byte; 1000];
        let request = plain::write(ost, &object, vec![plain::raw(0, &data, false)], data);
        WriteRequest { writer, ..request }
    };
    plain::object_store(mds, ost).await.write(write(WRITER, 1)).await.expect("its session lives");
    wait::until("the end of the session", TIMEOUT, || cluster.mds_log().contains("its session ends").then_some(()));
    let refused = async || {
        let mut store = plain::object_store(mds, ost).await;
        store.write(write(WRITER, 2)).await.err().map(|status| from_status(&status).code)
    };
    let patience = Instant::now() + TIMEOUT;
    while refused().await.is_none() {
        assert!(Instant::now() < patience, "the OST was never told");
    }
    plain::object_store(mds, ost).await.write(write(0, 3)).await.expect("another writes");
    assert_eq!(refused().await, Some(FsCode::Stale));
    for oss in 0..cluster.oss_count() {
        cluster.kill_oss(oss);
        cluster.start_oss(oss);
    }
    assert_eq!(refused().await, Some(FsCode::Stale), "in its first moment");
    let read = plain::object_store(mds, ost).await.read(plain::read(ost, &object, 0, 1000)).await.expect("read");
    assert_eq!(read.into_inner().payload, vec![3; 1000]);
}
