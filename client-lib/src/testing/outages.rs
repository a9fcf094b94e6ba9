//! The client while OSTs are away.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::tests::{start, until};
use super::*;

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ost_whose_oss_has_not_registered_yet_is_waited_for() {
    let peers = start().await;
    let client = peers.client(quick()).await;
    let file = create(&client, "a", Some(narrow())).await;
    peers.mds.unregistered.store(true, Ordering::SeqCst);
    file.write_at(0, &pattern(9, 300_000)).await.expect("accepted");
    let (stored, ()) = tokio::join!(file.flush(), async {
        until("asked again", || peers.mds.map_requests.load(Ordering::SeqCst) > 3).await;
        peers.mds.unregistered.store(false, Ordering::SeqCst);
    });
    stored.expect("stored once the OSS is back");
    // Known addresses are good until there are better ones.
    peers.mds.unregistered.store(true, Ordering::SeqCst);
    file.write_at(0, b"more").await.expect("accepted");
    file.fsync().await.expect("durable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_waits_for_ever_when_no_ost_stores_anything() {
    let peers = start().await;
    let limit = Duration::from_millis(500);
    let options = Options { dirty_bytes_max: 4 << 20, retry_for: Some(limit), request_timeout: limit, ..quick() };
    let client = peers.client(options).await;
    let file = create(&client, "a", Some(narrow())).await;
    let all = peers.oss.gate.available_permits();
    peers.oss.gate.forget_permits(all);
    let patience = Duration::from_secs(20);
    let data = pattern(8, 8 * MIB);
    // Accepted or refused, but not waited for; what was accepted is reported as lost.
    let written = tokio::time::timeout(patience, file.write_at(0, &data)).await.expect("no hang");
    let synced = tokio::time::timeout(patience, file.fsync()).await.expect("no hang");
    assert!(written.is_err() || synced.is_err());
    assert!(synced.expect_err("lost").code.is_retryable());
    tokio::time::timeout(patience, client.close()).await.expect("no hang").expect("nothing left to store");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_wait_for_an_ost_that_is_away_wait_together_not_one_after_the_other() {
    const FILES: usize = 300;
    let peers = start().await;
    let limit = Duration::from_millis(500);
    let client = peers.client(Options { retry_for: Some(limit), request_timeout: limit, ..quick() }).await;
    let mut files = Vec::new();
    for i in 0..FILES {
        let file = create(&client, &format!("f{i}"), Some(narrow())).await;
        file.write_at(0, b"data").await.expect("accepted");
        files.push(file);
    }
    peers.oss.gate.forget_permits(usize::MAX);
    let before = peers.oss.attempts.load(Ordering::SeqCst);
    let synced = futures::future::join_all(files.iter().map(|file| file.fsync())).await;
    assert!(synced.iter().all(|s| s.as_ref().is_err_and(|e| e.code.is_retryable())), "{synced:?}");
    let attempts = peers.oss.attempts.load(Ordering::SeqCst) - before;
    assert!(attempts < FILES as u64, "{attempts} attempts for {FILES} files");
    // Back again: nobody remembers a grudge for longer than a probe.
    peers.oss.gate.add_permits(1 << 20);
    let mut stored = false;
    for _ in 0..200 {
        files[0].write_at(0, b"again").await.expect("accepted");
        stored = files[0].fsync().await.is_ok();
        if stored {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(stored, "the OST was never asked again");
}
