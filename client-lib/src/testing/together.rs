//! Many small files: their bytes and reports share calls, and nothing else.

use std::sync::atomic::Ordering;

use futures::future::join_all;
use sateen_types::FsCode;

use super::tests::{start, until};
use super::*;

const FILES: usize = 100;
static ROOT: Credential = Credential::ROOT;

/// Files with a few bytes each that wait to be stored.
async fn written(client: &Client) -> Vec<File> {
    let made = join_all((0..FILES).map(|i| async move { create(client, &format!("f{i}"), None).await })).await;
    for (i, file) in made.iter().enumerate() {
        file.write_at(0, &contents(i)).await.expect("accepted");
    }
    made
}

fn contents(i: usize) -> Vec<u8> {
    pattern(i as u64, 100 + i * 37)
}

async fn assert_stored(peers: &Peers, fids: &[Fid]) {
    let other = peers.client(quick()).await;
    for (i, fid) in fids.iter().enumerate() {
        let expected = contents(i);
        assert_eq!(peers.mds.attr(*fid).size, expected.len() as u64, "file {i}");
        let file = other.open(&ROOT, *fid, Access::READ).await.expect("open");
        assert_eq!(file.read_at(0, expected.len()).await.expect("read"), expected, "file {i}");
    }
    other.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_stored_together_share_calls_whatever_answers_are_lost() {
    let peers = start().await;
    let client = peers.client(quick()).await;
    let files = written(&client).await;
    peers.oss.lose_write_replies.store(7, Ordering::SeqCst);
    let before = peers.mds.executed.load(Ordering::SeqCst);
    peers.mds.lose_replies.store(3, Ordering::SeqCst);
    let synced = join_all(files.iter().map(File::fsync)).await;
    assert!(synced.iter().all(Result::is_ok), "{synced:?}");
    let reports = peers.mds.executed.load(Ordering::SeqCst) - before;
    assert_eq!(reports, FILES as u64, "each once");
    let shared = peers.oss.writes_shared.lock().clone();
    assert_eq!(shared.iter().sum::<usize>(), FILES + 7, "each once, and again whose answer was lost");
    assert!(shared.iter().any(|writes| *writes > 4), "{shared:?}");
    let shared = peers.mds.shared.lock().clone();
    assert!(shared.iter().any(|reports| *reports > 1), "{shared:?}");
    let fences = peers.oss.fences.lock().clone();
    assert!(fences.iter().any(|(_, generation)| *generation > 0), "what was given up is shut out");
    let fids: Vec<Fid> = files.iter().map(File::fid).collect();
    assert_stored(&peers, &fids).await;
    client.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_files_that_share_a_call_only_the_one_that_fails_hears_of_it() {
    let peers = start().await;
    let client = peers.client(quick()).await;
    let files = written(&client).await;
    let unlucky = files[FILES / 2].fid();
    *peers.oss.full_for.lock() = Some(unlucky);
    let synced = join_all(files.iter().map(File::fsync)).await;
    for (file, synced) in files.iter().zip(synced) {
        match file.fid() == unlucky {
            true => assert_eq!(synced.expect_err("lost").code, FsCode::NoSpace),
            false => synced.expect("stored"),
        }
    }
    assert!(peers.oss.writes_shared.lock().iter().any(|writes| *writes > 4), "calls were shared");
    client.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_closed_together_are_durable_after_few_commits_and_only_then_closed() {
    let peers = start().await;
    let client = peers.client(quick()).await;
    let files = written(&client).await;
    let fids: Vec<Fid> = files.iter().map(File::fid).collect();
    let (all, before) = (peers.oss.gate.available_permits(), peers.oss.commits.load(Ordering::SeqCst));
    let opens = |fids: &[Fid]| fids.iter().map(|fid| peers.mds.opens(*fid)).sum::<usize>();
    assert_eq!(opens(&fids), FILES);
    let closed = join_all(files.into_iter().map(File::close)).await;
    assert!(closed.iter().all(Result::is_ok), "{closed:?}");
    until("all are closed", || opens(&fids) == 0).await;
    let commits = peers.oss.commits.load(Ordering::SeqCst) - before;
    assert!((1..FILES as u64 / 4).contains(&commits), "{commits} commits");
    peers.oss.power_cut();
    assert_eq!(peers.oss.gate.available_permits(), all);
    assert_stored(&peers, &fids).await;
    client.close().await.expect("closed");
}
