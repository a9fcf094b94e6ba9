//! What a client does when the MDS recalls what it keeps.

use std::sync::atomic::{AtomicU64, Ordering};

use sateen_proto::mds::{Capability, Using};

use super::tests::{start, until};
use super::*;

const LEN: usize = 300_000;

/// Answers to recalls so far.
fn answers(peers: &Peers) -> usize {
    peers.mds.answers.lock().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recall_is_answered_when_all_is_durable_and_nothing_is_kept_any_more() {
    let peers = start().await;
    let client = peers.client(quick()).await;
    let forgotten = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&forgotten);
    client.on_recall(Arc::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::ready(()))
    }));
    let file = create(&client, "a", Some(narrow())).await;
    let data = pattern(1, LEN);
    file.write_at(0, &data).await.expect("written");
    assert!(!client.is_shared(file.fid()) && peers.mds.attr(file.fid()).size == 0, "it is kept");
    // Nothing of it is told before it is stored.
    peers.oss.gate.forget_permits(tokio::sync::Semaphore::MAX_PERMITS);
    peers.mds.recall(file.fid(), Capability::None);
    until("the write", || peers.oss.attempts.load(Ordering::SeqCst) > 0).await;
    assert_eq!(answers(&peers), 0);
    peers.oss.gate.add_permits(1000);
    until("the answer", || answers(&peers) == 1).await;
    assert_eq!(peers.mds.answers.lock()[0].using, i32::from(Using::Writing));
    assert_eq!(forgotten.load(Ordering::SeqCst), 1);
    assert_eq!(peers.mds.attr(file.fid()).size, LEN as u64);
    peers.oss.power_cut();
    let other = peers.client(quick()).await;
    let theirs = other.open(&Credential::ROOT, file.fid(), Access::READ_WRITE).await.expect("open");
    assert_eq!(theirs.read_at(0, LEN).await.expect("read"), data, "it is durable");

    // From now on nothing is kept: each sees what the other does.
    peers.mds.recall(file.fid(), Capability::None);
    until("both answers", || answers(&peers) == 3).await;
    for n in 0..20u8 {
        let (one, two) = if n % 2 == 0 { (&file, &theirs) } else { (&theirs, &file) };
        one.write_at(u64::from(n) * 7, &[n; 1000]).await.expect("written");
        assert_eq!(two.read_at(u64::from(n) * 7, 1000).await.expect("read"), [n; 1000].as_slice());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_only_asked_for_the_size_keeps_what_was_written() {
    let peers = start().await;
    let client = peers.client(quick()).await;
    let file = create(&client, "a", Some(narrow())).await;
    file.write_at(0, &pattern(1, LEN)).await.expect("written");
    peers.mds.recall(file.fid(), Capability::Write);
    until("the answer", || answers(&peers) == 1).await;
    let told = peers.mds.answers.lock()[0].clone();
    assert!(told.size == LEN as u64 && told.mtime.is_some());
    assert!(!file.is_shared() && peers.mds.attr(file.fid()).size == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recall_for_what_is_not_open_is_answered_so() {
    let peers = start().await;
    let client = peers.client(quick()).await;
    let file = create(&client, "a", None).await;
    let fid = file.fid();
    file.close().await.expect("closed");
    peers.mds.recall(fid, Capability::None);
    until("the answer", || answers(&peers) == 1).await;
    assert_eq!(peers.mds.answers.lock()[0].using, i32::from(Using::Nothing));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_may_keep_what_it_read_does_and_its_writes_go_through() {
    let peers = start().await;
    let client = peers.client(quick()).await;
    let file = create(&client, "a", Some(narrow())).await;
    let data = pattern(1, LEN);
    file.write_at(0, &data).await.expect("written");
    peers.mds.recall(file.fid(), Capability::Read);
    until("the answer", || answers(&peers) == 1).await;
    assert_eq!(file.read_at(0, LEN).await.expect("read"), data);
    let before = peers.oss.read_bytes.load(Ordering::SeqCst);
    assert_eq!(file.read_at(0, LEN).await.expect("read"), data);
    assert_eq!(peers.oss.read_bytes.load(Ordering::SeqCst), before, "read once");
    let writes = peers.oss.writes.load(Ordering::SeqCst);
    file.write_at(5, b"through").await.expect("written");
    assert!(peers.oss.writes.load(Ordering::SeqCst) > writes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_kept_of_a_session_that_expired() {
    let peers = start().await;
    let client = peers.client(quick()).await;
    let file = create(&client, "a", Some(narrow())).await;
    assert!(!file.is_shared());
    peers.mds.expire_sessions();
    until("a new session", || file.is_shared()).await;
    let again = client.open(&Credential::ROOT, file.fid(), Access::READ).await.expect("open");
    assert!(!again.is_shared() && !file.is_shared(), "granted anew");
}
