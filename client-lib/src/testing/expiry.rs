//! What a client does with what it has written when its session has expired.

use std::sync::atomic::Ordering;

use sateen_types::FsCode;

use super::tests::{start, until};
use super::*;

const LEN: usize = 300_000;
static ROOT: Credential = Credential::ROOT;

/// What a client that comes now reads.
async fn seen(peers: &Peers, fid: Fid) -> Vec<u8> {
    let client = peers.client(quick()).await;
    let file = client.open(&ROOT, fid, Access::READ).await.expect("open");
    let read = file.read_at(0, 2 * LEN).await.expect("read").to_vec();
    client.close().await.expect("closed");
    read
}

async fn with_a_file() -> (Peers, Client, File) {
    let peers = start().await;
    let client = peers.client(quick()).await;
    let file = create(&client, "a", Some(narrow())).await;
    (peers, client, file)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_stored_is_kept_if_nobody_has_changed_the_file_and_goes_under_another_writer() {
    let (peers, client, file) = with_a_file().await;
    file.write_at(0, &pattern(1, LEN)).await.expect("written");
    file.fsync().await.expect("durable");
    file.write_at(5, b"not stored").await.expect("written");
    peers.mds.expire_sessions();
    file.fsync().await.expect("durable in the next session");
    let mut wanted = pattern(1, LEN);
    wanted[5..15].copy_from_slice(b"not stored");
    assert_eq!(seen(&peers, file.fid()).await, wanted);
    let writers: std::collections::HashSet<_> = peers.oss.fences.lock().iter().map(|(writer, _)| *writer).collect();
    assert!(writers.len() == 2 && !writers.contains(&0), "{writers:?}");
    client.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_stored_never_comes_on_top_of_what_others_have_written_and_the_program_hears_of_it_once() {
    let (peers, client, file) = with_a_file().await;
    file.write_at(0, &pattern(1, LEN)).await.expect("written");
    file.fsync().await.expect("durable");
    file.write_at(0, &pattern(2, LEN)).await.expect("written");
    peers.mds.expire_sessions_and_touch(file.fid());
    let other = peers.client(quick()).await;
    let theirs = other.open(&ROOT, file.fid(), Access::READ_WRITE).await.expect("open");
    theirs.write_at(10, b"newer").await.expect("written");
    theirs.close().await.expect("closed");
    let lost = file.fsync().await.expect_err("it was given up");
    assert!(lost.code == FsCode::Io && lost.message.contains("session expired") && lost.hint.is_some(), "{lost}");
    file.fsync().await.expect("told once");
    let mut wanted = pattern(1, LEN);
    wanted[10..15].copy_from_slice(b"newer");
    assert_eq!(seen(&peers, file.fid()).await, wanted);
    assert_eq!(file.read_at(0, LEN).await.expect("read"), wanted, "and here, too");
    // It goes on.
    file.write_at(0, b"again").await.expect("written");
    let fid = file.fid();
    file.close().await.expect("closed");
    wanted[..5].copy_from_slice(b"again");
    assert_eq!(seen(&peers, fid).await, wanted);
    client.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_under_way_when_the_session_expires_is_not_repeated_over_newer_data() {
    let (peers, client, file) = with_a_file().await;
    file.write_at(0, &pattern(2, LEN)).await.expect("written");
    peers.oss.gate.forget_permits(tokio::sync::Semaphore::MAX_PERMITS);
    let syncing = tokio::spawn({
        let file = file.clone();
        async move { file.fsync().await }
    });
    until("writes under way", || peers.oss.attempts.load(Ordering::SeqCst) > 0).await;
    peers.mds.expire_sessions_and_touch(file.fid());
    peers.oss.gate.add_permits(1000);
    assert_eq!(syncing.await.expect("no panic").expect_err("given up").code, FsCode::Io);
    assert_eq!(peers.oss.stored_bytes(), 0);
    assert_eq!(peers.mds.attr(file.fid()).size, 0, "nothing of it is reported");
    client.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_and_not_committed_is_not_sent_again_over_newer_data() {
    let (peers, client, file) = with_a_file().await;
    file.write_at(0, &pattern(1, LEN)).await.expect("written");
    file.flush().await.expect("stored");
    peers.mds.expire_sessions_and_touch(file.fid());
    peers.oss.power_cut();
    let other = peers.client(quick()).await;
    let theirs = other.open(&ROOT, file.fid(), Access::READ_WRITE).await.expect("open");
    theirs.write_at(0, b"newer").await.expect("written");
    theirs.fsync().await.expect("durable");
    assert_eq!(file.fsync().await.expect_err("lost by the OST, and not sent again").code, FsCode::Io);
    assert_eq!(&seen(&peers, file.fid()).await[..5], b"newer");
    client.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_hear_of_the_mds_for_a_lease_keeps_nothing_until_it_does() {
    let (peers, client, file) = with_a_file().await;
    assert!(!file.is_shared());
    peers.mds.down.store(true, Ordering::SeqCst);
    until("the end of the lease", || file.is_shared()).await;
    let attempts = peers.oss.attempts.load(Ordering::SeqCst);
    let writing = tokio::spawn({
        let file = file.clone();
        async move {
            file.write_at(0, b"waits").await?;
            file.fsync().await
        }
    });
    peers.mds.down.store(false, Ordering::SeqCst);
    writing.await.expect("no panic").expect("written when the MDS answers");
    assert!(peers.oss.attempts.load(Ordering::SeqCst) > attempts);
    until("the lease", || !file.is_shared()).await;
    assert_eq!(seen(&peers, file.fid()).await, b"waits");
    client.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_whose_answer_was_lost_with_the_session_is_no_change_by_others() {
    let (peers, client, file) = with_a_file().await;
    file.write_at(0, &pattern(1, LEN)).await.expect("written");
    file.flush().await.expect("stored and reported");
    file.write_at(0, &pattern(2, LEN)).await.expect("written");
    peers.mds.expire_after_next_report.store(true, Ordering::SeqCst);
    file.fsync().await.expect("nobody else has changed it");
    assert_eq!(seen(&peers, file.fid()).await, pattern(2, LEN));
    client.close().await.expect("closed");
}
