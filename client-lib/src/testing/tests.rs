//! The client against scripted peers.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use sateen_types::op::SetTime;
use sateen_types::{FsCode, Timestamp};

use super::*;
use crate::{Advice, SetAttr};

const MIB: usize = 1 << 20;
static ROOT: Credential = Credential::ROOT;

pub(super) async fn start() -> Peers {
    let peers = Peers::start().await;
    assert!(peers.mds.oss.set(Arc::clone(&peers.oss)).is_ok());
    peers
}

/// Waits for a condition that some task will make true; fails after the patience of a test.
pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    let patience = tokio::time::Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(tokio::time::Instant::now() < patience, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_reads_back_here_after_reopening_and_in_another_client() {
    let peers = start().await;
    let client = peers.client(quick()).await;
    let data = pattern(1, 5 * MIB + 4321);
    let file = create(&client, "a", Some(narrow())).await;
    file.write_at(0, &data).await.expect("written");
    assert_eq!(file.read_at(0, data.len()).await.expect("dirty"), data);
    assert_eq!(file.read_at(data.len() as u64 - 3, 100).await.expect("short at the end"), data[data.len() - 3..]);
    assert_eq!(file.read_at(data.len() as u64, 1).await.expect("at the end"), Bytes::new());
    let fid = file.fid();
    file.fsync().await.expect("durable");
    assert_eq!(peers.mds.attr(fid).size, data.len() as u64);
    file.close().await.expect("closed");
    let again = client.open(&ROOT, fid, Access::READ).await.expect("open");
    assert!(again.cache_valid(), "our own writes do not make our own cache old");
    assert_eq!(again.read_at(0, data.len()).await.expect("read"), data);
    let other = peers.client(quick()).await;
    let file = other.open(&ROOT, fid, Access::READ).await.expect("open");
    for (offset, len) in [(0, MIB), (MIB - 5, 10), (3 * MIB + 77, 2 * MIB), (70_000, 4096)] {
        assert_eq!(file.read_at(offset as u64, len).await.expect("read"), data[offset..offset + len], "{offset}");
    }
    assert_eq!(peers.mds.opens(fid), 2);
    drop((file, again));
    until("dropped files are closed", || peers.mds.opens(fid) == 0).await;
    client.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_gives_exactly_one_effect() {
    let peers = start().await;
    let client = peers.client(quick()).await;
    for i in 0..5 {
        peers.mds.lose_replies.store(3, Ordering::SeqCst);
        let before = peers.mds.executed.load(Ordering::SeqCst);
        let name = Name::parse(format!("d{i}").as_bytes()).expect("a name");
        client.mkdir(&ROOT, Fid::ROOT, &name, 0o755).await.expect("made once, not Exists");
        assert_eq!(peers.mds.executed.load(Ordering::SeqCst), before + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_whose_caller_gave_up_still_takes_effect_once_and_keeps_its_slot() {
    let peers = start().await;
    let client = peers.client(Options { retry_for: Some(Duration::from_millis(300)), ..quick() }).await;
    peers.mds.down.store(true, Ordering::SeqCst);
    let name = Name::parse(b"late").expect("a name");
    let err = client.mkdir(&ROOT, Fid::ROOT, &name, 0o755).await.expect_err("gave up");
    assert_eq!(err.code, FsCode::TimedOut);
    assert!(err.hint.is_some());
    peers.mds.down.store(false, Ordering::SeqCst);
    until("the change is made", || peers.mds.executed.load(Ordering::SeqCst) == 1).await;
    for i in 0..20 {
        let name = Name::parse(format!("n{i}").as_bytes()).expect("a name");
        client.mkdir(&ROOT, Fid::ROOT, &name, 0o755).await.expect("slots work on");
    }
    assert_eq!(peers.mds.executed.load(Ordering::SeqCst), 21);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_session_is_replaced_and_open_files_are_restated() {
    let peers = start().await;
    let client = peers.client(quick()).await;
    let file = create(&client, "a", None).await;
    peers.mds.expire_sessions();
    let name = Name::parse(b"d").expect("a name");
    client.mkdir(&ROOT, Fid::ROOT, &name, 0o755).await.expect("made under a new session");
    assert_eq!(peers.mds.opens(file.fid()), 1);
    peers.mds.restart();
    until("restated", || peers.mds.opens(file.fid()) == 1).await;
    assert_eq!(*peers.mds.restated.lock(), [file.fid()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_being_opened_when_the_mds_died_is_open_once_and_then_closed() {
    let peers = start().await;
    let client = peers.client(quick()).await;
    let file = create(&client, "a", None).await;
    let fid = file.fid();
    file.close().await.expect("closed");
    until("closed", || peers.mds.opens(fid) == 0).await;
    peers.mds.restart_after_next_open.store(true, Ordering::SeqCst);
    let again = client.open(&ROOT, fid, Access::READ).await.expect("opened by the next life");
    until("stated", || !peers.mds.restated.lock().is_empty()).await;
    assert_eq!(peers.mds.opens(fid), 1);
    again.close().await.expect("closed");
    until("closed again", || peers.mds.opens(fid) == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_goes_after_its_file_was_closed_finds_it_closed() {
    let peers = start().await;
    let client = peers.client(quick()).await;
    let name = Name::parse(b"a").expect("a name");
    for _ in 0..10 {
        create(&client, "a", None).await.close().await.expect("closed");
        client.unlink(&ROOT, Fid::ROOT, &name).await.expect("unlinked");
    }
    assert_eq!(peers.mds.unlinked_open(), []);
    let open = create(&client, "a", None).await;
    client.unlink(&ROOT, Fid::ROOT, &name).await.expect("unlinked");
    assert_eq!(peers.mds.unlinked_open(), [open.fid()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_may_have_happened_in_an_expired_session_is_not_repeated() {
    let peers = start().await;
    let client = peers.client(quick()).await;
    peers.mds.lose_replies.store(u64::MAX, Ordering::SeqCst);
    let name = Name::parse(b"d").expect("a name");
    let (made, ()) = tokio::join!(client.mkdir(&ROOT, Fid::ROOT, &name, 0o755), async {
        until("executed", || peers.mds.executed.load(Ordering::SeqCst) == 1).await;
        peers.mds.expire_sessions();
        peers.mds.lose_replies.store(0, Ordering::SeqCst);
    });
    assert_eq!(made.expect_err("nobody knows").code, FsCode::Io);
    assert_eq!(peers.mds.executed.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uncommitted_data_that_an_ost_lost_is_sent_again() {
    let peers = start().await;
    let client = peers.client(quick()).await;
    let data = pattern(2, 3 * MIB + 100);
    let file = create(&client, "a", Some(narrow())).await;
    file.write_at(0, &data).await.expect("written");
    file.flush().await.expect("stored");
    peers.oss.power_cut();
    assert_eq!(peers.oss.stored_bytes(), 0, "the test loses what it means to lose");
    // Newer bytes, stored under the new verifier, must not end up below the older ones that are sent again.
    file.write_at(10, b"newer").await.expect("written");
    file.flush().await.expect("stored");
    file.fsync().await.expect("durable");
    peers.oss.power_cut();
    let mut want = data.clone();
    want[10..15].copy_from_slice(b"newer");
    let other = peers.client(quick()).await.open(&ROOT, file.fid(), Access::READ).await.expect("open");
    assert_eq!(other.read_at(0, want.len()).await.expect("read"), want);
    assert!(!peers.oss.overtaking.load(Ordering::SeqCst));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_write_answer_costs_a_repetition_only() {
    let peers = start().await;
    let client = peers.client(quick()).await;
    let file = create(&client, "a", None).await;
    peers.oss.lose_write_replies.store(2, Ordering::SeqCst);
    file.write_at(0, b"once").await.expect("accepted");
    file.fsync().await.expect("durable");
    assert_eq!(peers.oss.writes.load(Ordering::SeqCst), 3);
    assert_eq!(file.read_at(0, 9).await.expect("read"), &b"once"[..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_punch_that_is_sent_again_shuts_out_what_was_sent_before() {
    let peers = start().await;
    let client = peers.client(quick()).await;
    let file = create(&client, "a", None).await;
    file.write_at(0, b"something").await.expect("accepted");
    peers.oss.lose_punch_replies.store(2, Ordering::SeqCst);
    file.punch(0, 4).await.expect("at the third attempt");
    assert_eq!(file.read_at(0, 9).await.expect("read"), &b"\0\0\0\0thing"[..]);
    file.write_at(0, b"any").await.expect("accepted");
    file.fsync().await.expect("durable");
    let fences = peers.oss.fences.lock().clone();
    let writer = fences[0].0;
    assert!(writer > 0);
    assert_eq!(fences, [0, 0, 1, 2, 2].map(|generation| (writer, generation)), "write, three punches, write");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_ost_is_reported_once_per_open_file() {
    let peers = start().await;
    let client = peers.client(quick()).await;
    let file = create(&client, "a", None).await;
    let second = client.open(&ROOT, file.fid(), Access::READ_WRITE).await.expect("open");
    peers.oss.full.store(true, Ordering::SeqCst);
    file.write_at(0, &pattern(3, 300_000)).await.expect("accepted into the cache");
    assert_eq!(file.flush().await.expect_err("full").code, FsCode::NoSpace);
    file.flush().await.expect("reported once");
    assert_eq!(file.fsync().await.expect_err("a flush does not answer for an fsync").code, FsCode::NoSpace);
    file.fsync().await.expect("reported once");
    file.flush().await.expect("the fsync told");
    assert_eq!(second.close().await.expect_err("not seen by this one yet").code, FsCode::NoSpace);
    peers.oss.full.store(false, Ordering::SeqCst);
    file.write_at(0, b"fits").await.expect("written");
    file.close().await.expect("no old error");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bytes_are_corrupt_and_never_returned() {
    let peers = start().await;
    let writer = peers.client(quick()).await;
    let file = create(&writer, "a", None).await;
    file.write_at(0, &pattern(4, 400_000)).await.expect("written");
    let fid = file.fid();
    file.close().await.expect("closed");
    let file = peers.client(quick()).await.open(&ROOT, fid, Access::READ).await.expect("open");
    peers.oss.flip.store(true, Ordering::SeqCst);
    for (offset, len) in [(0, 400_000), (200_000, 100)] {
        let err = file.read_at(offset, len).await.expect_err("damaged");
        assert_eq!(err.code, FsCode::Corrupt);
        assert!(err.message.contains(&fid.to_string()), "{err}");
    }
    peers.oss.flip.store(false, Ordering::SeqCst);
    assert_eq!(file.read_at(0, 400_000).await.expect("damage on the way only"), pattern(4, 400_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_wait_when_too_much_is_dirty_and_go_on_when_it_is_stored() {
    let peers = start().await;
    let bound = 4 << 20;
    let client = peers.client(Options { dirty_bytes_max: bound, ..quick() }).await;
    let file = create(&client, "a", Some(narrow())).await;
    let all = peers.oss.gate.available_permits();
    peers.oss.gate.forget_permits(all);
    let data = pattern(5, 16 * MIB);
    let mut writing = Box::pin(file.write_at(0, &data));
    let mut waited = false;
    for _ in 0..200 {
        if (&mut writing).now_or_never().is_some() {
            panic!("16 MiB were accepted though nothing can be stored and 4 MiB may be dirty");
        }
        waited |= file.attr().size > 0;
        assert!(file.attr().size <= bound, "{} bytes accepted", file.attr().size);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(waited, "what fits is accepted");
    peers.oss.gate.add_permits(1 << 20);
    writing.await.expect("goes on");
    file.fsync().await.expect("durable");
    assert_eq!(file.read_at(0, data.len()).await.expect("read"), data);
    assert!(!peers.oss.overtaking.load(Ordering::SeqCst));
    file.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_partly_written_chunks_do_not_stop_writers_for_ever() {
    let peers = start().await;
    let client = peers.client(Options { dirty_bytes_max: 4 << 20, ..quick() }).await;
    let file = create(&client, "a", Some(narrow())).await;
    for i in 0..200u64 {
        tokio::time::timeout(Duration::from_secs(20), file.write_at(i * (64 << 10) + 5, b"x"))
            .await
            .expect("no hang")
            .expect("ok");
    }
    file.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlapping_writes_reach_the_ost_in_order() {
    let peers = start().await;
    let client = peers.client(quick()).await;
    let file = create(&client, "a", Some(narrow())).await;
    for round in 0..30u64 {
        file.write_at(0, &pattern(round, 256 << 10)).await.expect("written");
        let flushing = file.clone();
        tokio::spawn(async move { flushing.flush().await });
    }
    file.fsync().await.expect("durable");
    assert!(!peers.oss.overtaking.load(Ordering::SeqCst));
    let other = peers.client(quick()).await.open(&ROOT, file.fid(), Access::READ).await.expect("open");
    assert_eq!(other.read_at(0, 256 << 10).await.expect("read"), pattern(29, 256 << 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_set_after_a_write_are_not_undone_by_its_report() {
    let peers = start().await;
    let client = peers.client(quick()).await;
    let file = create(&client, "a", None).await;
    file.write_at(0, b"data").await.expect("written");
    let old = Timestamp { seconds: 1_000_000, nanos: 5 };
    let mut set = SetAttr::new(file.fid());
    set.mtime = Some(SetTime::At(old));
    assert_eq!(client.setattr(&ROOT, set).await.expect("set").mtime, old);
    let fid = file.fid();
    file.close().await.expect("closed");
    assert_eq!((peers.mds.attr(fid).mtime, peers.mds.attr(fid).size), (old, 4));
    assert_eq!(client.getattr(fid).await.expect("attr").mtime, old);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_changed_elsewhere_is_seen_by_the_next_open() {
    let peers = start().await;
    let (ours, theirs) = (peers.client(quick()).await, peers.client(quick()).await);
    let file = create(&ours, "a", None).await;
    let fid = file.fid();
    file.write_at(0, &pattern(6, 200_000)).await.expect("written");
    file.close().await.expect("closed");
    let other = theirs.open(&ROOT, fid, Access::READ_WRITE).await.expect("open");
    other.write_at(100, b"theirs").await.expect("written");
    other.close().await.expect("closed");
    let file = ours.open(&ROOT, fid, Access::READ).await.expect("open");
    assert!(!file.cache_valid());
    assert_eq!(file.read_at(100, 6).await.expect("read"), &b"theirs"[..]);
    file.close().await.expect("closed");
    assert!(ours.open(&ROOT, fid, Access::READ).await.expect("open").cache_valid());
    peers.mds.touch(fid);
    ours.getattr(fid).await.expect("attr");
    assert!(!ours.open(&ROOT, fid, Access::READ).await.expect("open").cache_valid(), "though getattr saw it first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn advice_fetches_and_drops_and_keeps_random_reads_small() {
    let peers = start().await;
    let data = pattern(3, 8 * MIB);
    let fid = {
        let writer = peers.client(quick()).await;
        let file = create(&writer, "a", Some(narrow())).await;
        file.write_at(0, &data).await.expect("written");
        let fid = file.fid();
        file.close().await.expect("closed");
        writer.close().await.expect("closed");
        fid
    };
    let client = peers.client(quick()).await;
    let file = client.open(&ROOT, fid, Access::READ).await.expect("open");
    let fetched = || peers.oss.read_bytes.load(Ordering::SeqCst) as usize;
    let check = async |offset: usize, len: usize| {
        assert_eq!(file.read_at(offset as u64, len).await.expect("read"), data[offset..offset + len], "{offset}");
    };

    file.advise(0, 0, Advice::Random);
    for offset in [0, 4096, 8192, MIB, MIB + 4096] {
        check(offset, 4096).await;
    }
    assert_eq!(fetched(), 5 * 4096, "what is read at random is all that is fetched");

    // Calls that wait make those share one that come meanwhile.
    let held = peers.oss.gate.forget_permits(usize::MAX);
    let started = peers.oss.reads.lock().len();
    let many = futures::future::join_all((0..64usize).map(|i| check(2 * MIB + i * 8192, 4096)));
    // Polled second: by then all reads are queued.
    let release = async { peers.oss.gate.add_permits(held) };
    futures::future::join(many, release).await;
    let calls = peers.oss.reads.lock()[started..].to_vec();
    assert_eq!(calls.iter().sum::<usize>(), 64, "{calls:?}");
    assert!(calls.len() < 64, "{calls:?}");
    let before = 5 * 4096 + 64 * 4096;
    assert_eq!(fetched(), before);

    file.advise(0, 0, Advice::WillNeed);
    until("all of it is fetched", || fetched() >= before + data.len()).await;
    check(0, data.len()).await;
    assert_eq!(fetched(), before + data.len(), "and not twice");

    file.advise(MIB as u64, MIB as u64, Advice::DontNeed);
    check(0, MIB).await;
    assert_eq!(fetched(), before + data.len(), "what lies beside the range stays");
    check(MIB, MIB).await;
    assert_eq!(fetched(), before + data.len() + MIB);

    file.advise(0, 0, Advice::NoReuse);
    check(0, data.len()).await;
    let once = fetched();
    file.advise(0, 0, Advice::Random);
    check(0, data.len()).await;
    assert_eq!(fetched(), once + data.len(), "what was read without reuse is not kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequential_reader_finds_everything_fetched_once() {
    let peers = start().await;
    let client = peers.client(quick()).await;
    let data = pattern(4, 16 * MIB);
    let file = create(&client, "a", Some(narrow())).await;
    file.write_at(0, &data).await.expect("written");
    let fid = file.fid();
    file.close().await.expect("closed");
    let other = peers.client(quick()).await;
    let file = other.open(&ROOT, fid, Access::READ).await.expect("open");
    for offset in (0..data.len()).step_by(100_000) {
        let len = 100_000.min(data.len() - offset);
        assert_eq!(file.read_at(offset as u64, len).await.expect("read"), data[offset..offset + len], "{offset}");
    }
    assert_eq!(peers.oss.read_bytes.load(Ordering::SeqCst), data.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connecting_nowhere_or_to_an_unknown_file_system_says_what_to_do() {
    let options = Options { connect_timeout: Duration::from_millis(500), ..quick() };
    let err =
        Client::connect(&"127.0.0.1:1:/fake".parse().expect("a source"), options.clone()).await.expect_err("nobody");
    assert!(err.code.is_retryable() && err.hint.is_some(), "{err:?}");
    let peers = start().await;
    let source = peers.source.replace("fake", "other").parse().expect("a source");
    let err = Client::connect(&source, options).await.expect_err("unknown");
    assert!(err.code == FsCode::NotFound && err.hint.is_some(), "{err:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_memory_for_dirty_data_comes_free_again() {
    let peers = start().await;
    let client = peers.client(quick()).await;
    let all = client.inner.budget.free();
    assert_eq!(all, quick().dirty_bytes_max);
    let files = [create(&client, "a", Some(narrow())).await, create(&client, "b", None).await];
    for (file, len) in files.iter().zip([5 * MIB + 3, 100]) {
        file.write_at(7, &pattern(7, len)).await.expect("written");
        file.append(b"more").await.expect("written");
    }
    assert!(client.inner.budget.free() < all);
    files[0].flush().await.expect("stored");
    peers.oss.full.store(true, Ordering::SeqCst);
    files[1].flush().await.expect_err("full");
    peers.oss.full.store(false, Ordering::SeqCst);
    assert!(client.inner.budget.free() < all, "what is not committed is kept");
    files[1].truncate(0).await.expect("cut");
    client.sync().await.expect("durable");
    files[0].write_at(50, b"within the file").await.expect("written");
    client.sync().await.expect("durable");
    assert_eq!(client.inner.budget.free(), all);
    assert!(client.inner.table.pinned().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_and_holes_are_found_across_stripes() {
    let peers = start().await;
    let client = peers.client(quick()).await;
    let file = create(&client, "a", Some(narrow())).await;
    let unit = 64 << 10;
    file.write_at(2 * unit, &vec![1; 2 * unit as usize]).await.expect("written");
    file.write_at(9 * unit + 5, b"x").await.expect("written");
    file.truncate(20 * unit).await.expect("extended");
    for (from, data, hole) in [
        (0, Some(2 * unit), Some(0)),
        (2 * unit + 9, Some(2 * unit + 9), Some(4 * unit)),
        (3 * unit, Some(3 * unit), Some(4 * unit)),
        (5 * unit, Some(9 * unit), Some(5 * unit)),
        (9 * unit + 1, Some(9 * unit + 1), Some(10 * unit)),
        (10 * unit, None, Some(10 * unit)),
        (20 * unit, None, None),
    ] {
        assert_eq!(file.seek_data(from).await.expect("data"), data, "data from {from}");
        assert_eq!(file.seek_hole(from).await.expect("hole"), hole, "hole from {from}");
    }
    let full = create(&client, "b", Some(narrow())).await;
    full.write_at(0, &vec![1; 5 * unit as usize + 7]).await.expect("written");
    assert_eq!(full.seek_hole(3).await.expect("hole"), Some(5 * unit + 7), "the end is a hole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_first_written_by_another_client_is_read_through_a_file_that_was_open() {
    let peers = start().await;
    let (ours, theirs) = (peers.client(quick()).await, peers.client(quick()).await);
    let far = 200 << 20;
    let file = create(&ours, "a", None).await;
    let other = theirs.open(&ROOT, file.fid(), Access::READ_WRITE).await.expect("open");
    other.write_at(far, b"far away").await.expect("written");
    other.close().await.expect("closed");
    assert_eq!(ours.getattr(file.fid()).await.expect("attr").size, far + 8);
    assert_eq!(file.read_at(far, 100).await.expect("read"), &b"far away"[..]);
    assert_eq!(file.read_at(far - 10, 10).await.expect("hole"), vec![0; 10]);
}

/// Random operations on one file, compared with a vector of bytes after each.
async fn model(seed: u64, steps: usize) {
    let peers = start().await;
    let options = Options { dirty_bytes_max: 4 << 20, cache_bytes_max: 1 << 20, ..quick() };
    let client = peers.client(options.clone()).await;
    let mut file = create(&client, "a", Some(narrow())).await;
    let mut want: Vec<u8> = Vec::new();
    let mut x = pattern(seed, steps * 48)
        .chunks_exact(8)
        .map(|c| u64::from_le_bytes(c.try_into().expect("8")))
        .collect::<Vec<_>>()
        .into_iter();
    let mut next = move |n: u64| x.next().expect("enough numbers") % n;
    for step in 0..steps {
        let what = next(20);
        let (offset, len) = (next(900_000), if next(3) == 0 { next(400_000) } else { next(9000) } as usize);
        let case = format!("seed {seed}, step {step}: operation {what} at {offset}, {len} bytes, size {}", want.len());
        match what {
            0..7 => {
                let data = pattern(seed + step as u64, len);
                file.write_at(offset, &data).await.expect(&case);
                if len > 0 {
                    want.resize(want.len().max(offset as usize + len), 0);
                    want[offset as usize..offset as usize + len].copy_from_slice(&data);
                }
            }
            7 => {
                let data = pattern(seed + step as u64, len);
                assert_eq!(file.append(&data).await.expect(&case), want.len() as u64, "{case}");
                want.extend_from_slice(&data);
            }
            8..10 => {
                file.truncate(offset).await.expect(&case);
                want.resize(offset as usize, 0);
            }
            10 => {
                file.punch(offset, len as u64 + 1).await.expect(&case);
                let from = want.len().min(offset as usize);
                let to = want.len().min(offset as usize + len + 1);
                want[from..to].fill(0);
            }
            11 => file.flush().await.expect(&case),
            12 => file.fsync().await.expect(&case),
            13 => {
                let fid = file.fid();
                file.close().await.expect(&case);
                file = client.open(&ROOT, fid, Access::READ_WRITE).await.expect(&case);
            }
            14 => {
                file.flush().await.expect(&case);
                let other = peers.client(options.clone()).await;
                let theirs = other.open(&ROOT, file.fid(), Access::READ).await.expect(&case);
                assert!(theirs.read_at(0, 2 * MIB).await.expect(&case) == want, "{case}: another client");
                other.close().await.expect(&case);
            }
            15 => {
                file.fsync().await.expect(&case);
                peers.oss.power_cut();
            }
            16 => peers.oss.lose_write_replies.store(1, Ordering::SeqCst),
            17 => peers.mds.lose_replies.store(1, Ordering::SeqCst),
            _ => {}
        }
        let from = want.len().min(offset as usize);
        let to = want.len().min(offset as usize + len);
        let got = file.read_at(offset, len).await.expect(&case);
        assert!(got == want[from..to], "{case}: read {} bytes, want {}", got.len(), to - from);
        assert_eq!(file.attr().size, want.len() as u64, "{case}");
    }
    file.fsync().await.expect("durable");
    peers.oss.power_cut();
    assert!(file.read_at(0, 2 * MIB).await.expect("read") == want, "seed {seed}: after the last fsync");
    let other = peers.client(options).await.open(&ROOT, file.fid(), Access::READ).await.expect("open");
    assert!(other.read_at(0, 2 * MIB).await.expect("read") == want, "seed {seed}: what is durable");
    assert!(!peers.oss.overtaking.load(Ordering::SeqCst), "seed {seed}");
    file.close().await.expect("closed");
    client.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_operations_agree_with_a_vector_of_bytes() {
    for seed in 1..=12 {
        tokio::time::timeout(Duration::from_secs(120), model(seed, 120)).await.expect("no hang");
    }
}
