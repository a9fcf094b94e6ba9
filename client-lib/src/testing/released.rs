//! Reading and writing released files, and storing what is fetched for them.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use sateen_types::repository::{FetchOutcome, FetchResult, Filled, Outcome};
use sateen_types::{Extent, FsCode, FsError};

use super::tests::{start, until};
use super::*;
use crate::Shift;

const CHUNK: u64 = 128 << 10;
const SIZE: u64 = 40 * CHUNK + 777;
static ROOT: Credential = Credential::ROOT;

/// A cluster with a released file, its bytes, and a worker.
struct Released {
    peers: Peers,
    worker: Client,
    shift: Shift,
    fid: Fid,
    data: Vec<u8>,
}

async fn released() -> Released {
    let peers = start().await;
    let worker = peers.client(quick()).await;
    let file = create(&worker, "object", Some(narrow())).await;
    let fid = file.fid();
    file.close().await.expect("closed");
    until("the close is told", || peers.mds.opens(fid) == 0).await;
    peers.mds.release(fid, SIZE);
    let (shift, _) = worker.take(1, 1, Duration::ZERO, &[]).await.expect("taken");
    Released { peers, worker, shift, fid, data: pattern(9, SIZE as usize) }
}

fn chunks(from: u64, to: u64) -> Extent {
    Extent { start: from * CHUNK, end: (to * CHUNK).min(SIZE) }
}

impl Released {
    async fn open(&self, access: Access) -> (Client, File) {
        let client = self.peers.client(quick()).await;
        let file = client.open(&ROOT, self.fid, access).await.expect("open");
        (client, file)
    }

    /// What a worker does.
    async fn deliver(&self, range: Extent) {
        let fetch = self.peers.mds.fetch(self.fid, range);
        let mut fill = self.worker.fill(self.shift, 1, &fetch).await.expect("begun");
        for piece in self.data[range.start as usize..range.end as usize].chunks(50_000) {
            fill.write(Bytes::copy_from_slice(piece)).await.expect("stored");
        }
        assert!(fill.finish().await.expect("durable") > 0);
        self.peers.mds.loaded(self.fid, range);
    }

    /// Waits until somebody has asked for so many ranges, and gives them.
    async fn asked(&self, count: usize) -> Vec<Extent> {
        until("a question", || self.peers.mds.asked().len() >= count).await;
        self.peers.mds.asked()
    }

    fn bytes(&self, offset: u64, len: usize) -> &[u8] {
        &self.data[offset as usize..offset as usize + len]
    }
}

fn reading(file: &File, offset: u64, len: usize) -> tokio::task::JoinHandle<crate::FsResult<Bytes>> {
    let file = file.clone();
    tokio::spawn(async move { file.read_at(offset, len).await })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_waits_for_its_own_range_only_and_a_second_one_of_it_shares_the_question() {
    let r = released().await;
    let (client, file) = r.open(Access::READ).await;
    let at = 5 * CHUNK + 10;
    let first = reading(&file, at, 100);
    assert_eq!(r.asked(1).await, [chunks(5, 6)]);
    let (second, third) = (reading(&file, at + 200, 100), reading(&file, 8 * CHUNK - 1, 2));
    assert_eq!(r.asked(2).await, [chunks(5, 6), chunks(7, 9)], "the second one waits with the first");
    r.deliver(chunks(7, 9)).await;
    assert_eq!(third.await.expect("no panic").expect("read"), r.bytes(8 * CHUNK - 1, 2));
    assert!(!first.is_finished() && !second.is_finished());
    r.deliver(chunks(5, 6)).await;
    assert_eq!(first.await.expect("no panic").expect("read"), r.bytes(at, 100));
    assert_eq!(second.await.expect("no panic").expect("read"), r.bytes(at + 200, 100));
    assert_eq!(
        file.read_at(7 * CHUNK, 2 * CHUNK as usize).await.expect("read"),
        r.bytes(7 * CHUNK, 2 * CHUNK as usize)
    );
    assert_eq!(r.peers.mds.asked().len(), 2, "what is loaded is not asked for");
    client.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_durable_is_read_and_never_missed_when_its_ost_is_restarted() {
    let r = released().await;
    let (client, file) = r.open(Access::READ_WRITE).await;
    let range = chunks(4, 8);
    let first = reading(&file, 5 * CHUNK, 100);
    r.asked(1).await;
    let fetch = r.peers.mds.fetch(r.fid, range);
    let mut fill = r.worker.fill(r.shift, 1, &fetch).await.expect("begun");
    fill.write(Bytes::copy_from_slice(r.bytes(range.start, 4 * CHUNK as usize))).await.expect("stored");
    let verifiers = fill.stored().await.expect("stored").expect("by one incarnation");
    r.peers.mds.filled(Filled { range, verifiers });
    assert_eq!(first.await.expect("no panic").expect("read"), r.bytes(5 * CHUNK, 100));
    assert_eq!(file.read_at(6 * CHUNK, 100).await.expect("read"), r.bytes(6 * CHUNK, 100));
    // Who writes waits until nobody can fetch it again.
    let writing = {
        let file = file.clone();
        tokio::spawn(async move { file.write_at(5 * CHUNK + 50, b"new").await })
    };
    r.asked(2).await;
    r.peers.oss.power_cut();
    // Neither the worker nor the MDS knows that it is gone.
    let (second, part) = (reading(&file, 7 * CHUNK, CHUNK as usize), reading(&file, 4 * CHUNK + 9, 9));
    r.asked(4).await;
    assert!(!second.is_finished() && !part.is_finished() && !writing.is_finished());
    assert!(fill.finish().await.expect("stored again") > 0);
    r.peers.mds.loaded(r.fid, range);
    assert_eq!(second.await.expect("no panic").expect("read"), r.bytes(7 * CHUNK, CHUNK as usize));
    assert_eq!(part.await.expect("no panic").expect("read"), r.bytes(4 * CHUNK + 9, 9));
    writing.await.expect("no panic").expect("written");
    assert_eq!(file.read_at(5 * CHUNK + 50, 4).await.expect("read")[..3], b"new"[..]);
    file.close().await.expect("closed");
    client.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_in_a_row_is_loaded_ahead_of_and_never_sees_anything_but_the_object() {
    let r = released().await;
    let (client, file) = r.open(Access::READ).await;
    let whole = {
        let file = file.clone();
        tokio::spawn(async move {
            let mut read = Vec::new();
            while read.len() < SIZE as usize {
                let bytes = file.read_at(read.len() as u64, 100_000).await.expect("read");
                read.extend_from_slice(&bytes);
            }
            read
        })
    };
    let first = r.asked(2).await;
    assert!(first.contains(&chunks(0, 1)), "nobody waits for what is only read ahead: {first:?}");
    assert!(first.iter().any(|range| range.start == CHUNK && range.end > 2 * CHUNK), "{first:?}");
    for chunk in 0..=40 {
        r.deliver(chunks(chunk, chunk + 1)).await;
    }
    assert_eq!(whole.await.expect("no panic"), r.data);
    assert!(r.peers.mds.bucket.asked.lock().iter().any(|(_, sequential)| *sequential));
    client.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_loaded_is_an_error_of_that_read_and_the_next_one_asks_again() {
    let r = released().await;
    let (client, file) = r.open(Access::READ_WRITE).await;
    r.peers.mds.fail_loads(Some(FsError::new(FsCode::Invalid, "another object is under the key")));
    let error = file.read_at(0, 10).await.expect_err("not loaded");
    assert!(error.code == FsCode::Io && error.message.contains("another object"), "{error}");
    let error = file.write_at(CHUNK, b"x").await.expect_err("not loaded");
    assert_eq!(error.code, FsCode::Io);
    assert_eq!(file.punch(0, 10).await.expect_err("not loaded").code, FsCode::Io);
    r.peers.mds.fail_loads(None);
    r.deliver(chunks(0, 2)).await;
    assert_eq!(file.read_at(0, 10).await.expect("read"), r.bytes(0, 10));
    file.fsync().await.expect("nothing was written");
    client.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_waits_for_what_it_touches_and_keeps_the_rest_of_the_chunk() {
    let r = released().await;
    let (client, file) = r.open(Access::READ_WRITE).await;
    let at = 2 * CHUNK - 3;
    let writing = {
        let file = file.clone();
        tokio::spawn(async move { file.write_at(at, b"written").await })
    };
    assert_eq!(r.asked(1).await, [chunks(1, 3)]);
    assert!(!writing.is_finished());
    r.deliver(chunks(1, 3)).await;
    writing.await.expect("no panic").expect("written");
    let mut wanted = r.bytes(CHUNK, 2 * CHUNK as usize).to_vec();
    wanted[CHUNK as usize - 3..CHUNK as usize + 4].copy_from_slice(b"written");
    assert_eq!(file.read_at(CHUNK, wanted.len()).await.expect("read"), wanted);
    // The last chunk is shared by the object and what is appended.
    let appending = {
        let file = file.clone();
        tokio::spawn(async move { file.append(b"more").await })
    };
    assert_eq!(r.asked(2).await[1], chunks(40, 41));
    r.deliver(chunks(40, 41)).await;
    assert_eq!(appending.await.expect("no panic").expect("appended"), SIZE);
    file.fsync().await.expect("durable");
    let (other, theirs) = r.open(Access::READ).await;
    assert_eq!(theirs.read_at(CHUNK, wanted.len()).await.expect("read"), wanted);
    assert_eq!(theirs.read_at(SIZE - 2, 100).await.expect("read"), [r.bytes(SIZE - 2, 2), b"more"].concat());
    for client in [client, other] {
        client.close().await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_empty_a_file_asks_for_nothing_and_to_cut_it_loads_it() {
    let r = released().await;
    let (client, file) = r.open(Access::READ_WRITE).await;
    file.truncate(0).await.expect("emptied");
    file.write_at(10, b"new").await.expect("written");
    assert_eq!(file.read_at(0, 100).await.expect("read"), [[0; 10].as_slice(), b"new"].concat());
    assert_eq!(r.peers.mds.asked(), []);
    client.close().await.expect("closed");

    let r = released().await;
    let (client, file) = r.open(Access::READ_WRITE).await;
    let cutting = {
        let file = file.clone();
        tokio::spawn(async move { file.truncate(CHUNK + 1).await })
    };
    assert_eq!(r.asked(1).await, [chunks(0, 41)]);
    r.deliver(chunks(0, 41)).await;
    assert_eq!(cutting.await.expect("no panic").expect("cut").size, CHUNK + 1);
    assert_eq!(file.read_at(0, SIZE as usize).await.expect("read"), r.bytes(0, CHUNK as usize + 1));
    client.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_loaded_counts_as_data() {
    let r = released().await;
    let (client, file) = r.open(Access::READ).await;
    assert_eq!(file.seek_data(5).await.expect("data"), Some(5));
    assert_eq!(file.seek_hole(5).await.expect("hole"), Some(SIZE));
    assert_eq!(r.peers.mds.asked(), []);
    r.deliver(chunks(0, 2)).await;
    file.read_at(0, 1).await.expect("read");
    assert_eq!(file.seek_data(5).await.expect("data"), Some(5));
    assert_eq!(file.seek_hole(5).await.expect("hole"), Some(SIZE));
    assert_eq!(file.seek_data(SIZE).await.expect("at the end"), None);
    client.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_released_while_the_session_was_lost_is_loaded_again() {
    let r = released().await;
    let (client, file) = r.open(Access::READ).await;
    r.deliver(chunks(0, 41)).await;
    assert_eq!(file.read_at(0, 10).await.expect("read"), r.bytes(0, 10));
    let writer = client.inner.session.incarnation().writer;
    r.peers.mds.expire_sessions();
    r.peers.mds.release(r.fid, SIZE);
    let asked = r.peers.mds.asked().len();
    // The MDS ends a session when its lease is over by the client's clock, too.
    until("the new session", || client.inner.session.incarnation().writer != writer).await;
    let read = reading(&file, 20 * CHUNK, 10);
    until("a question", || r.peers.mds.asked().len() > asked).await;
    let (shift, _) = r.worker.take(1, 1, Duration::ZERO, &[]).await.expect("taken");
    let r = Released { shift, ..r };
    r.deliver(chunks(20, 21)).await;
    assert_eq!(read.await.expect("no panic").expect("read"), r.bytes(20 * CHUNK, 10));
    client.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_ost_lost_before_the_commit_is_stored_again() {
    let r = released().await;
    let range = chunks(32, 41);
    let fetch = r.peers.mds.fetch(r.fid, range);
    let mut fill = r.worker.fill(r.shift, 1, &fetch).await.expect("begun");
    r.peers.oss.lose_write_replies.store(2, Ordering::SeqCst);
    fill.write(Bytes::copy_from_slice(r.bytes(range.start, (range.end - range.start) as usize))).await.expect("stored");
    until("stored", || r.peers.oss.writes.load(Ordering::SeqCst) >= 3).await;
    r.peers.oss.power_cut();
    fill.finish().await.expect("durable");
    r.peers.oss.power_cut();
    r.peers.mds.loaded(r.fid, range);
    let (client, file) = r.open(Access::READ).await;
    assert_eq!(file.read_at(range.start, SIZE as usize).await.expect("read"), &r.data[range.start as usize..]);
    assert!(!r.peers.oss.overtaking.load(Ordering::SeqCst));
    client.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_session_has_ended_stores_and_reports_nothing_more() {
    let r = released().await;
    let range = chunks(0, 8);
    let fetch = r.peers.mds.fetch(r.fid, range);
    let mut fill = r.worker.fill(r.shift, 1, &fetch).await.expect("begun");
    let stored = r.peers.oss.stored_bytes();
    r.peers.mds.expire_sessions();
    let bytes = Bytes::copy_from_slice(r.bytes(0, 8 * CHUNK as usize));
    let filled = async {
        fill.write(bytes).await?;
        fill.finish().await
    };
    assert_eq!(filled.await.expect_err("shut out").code, FsCode::Stale);
    assert_eq!(r.peers.oss.stored_bytes(), stored);
    let failed = FetchOutcome { result: FetchResult::Failed, message: String::new(), allocated_delta: 0 };
    let told = r.worker.finish(r.shift, 1, &Outcome::Fetch(failed)).await;
    assert_eq!(told.expect_err("somebody else's").code, FsCode::Stale);
    let (next, _) = r.worker.take(1, 1, Duration::ZERO, &[1]).await.expect("taken");
    assert_ne!(next, r.shift);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_reported_while_a_write_of_it_is_under_way() {
    let r = released().await;
    let fetch = r.peers.mds.fetch(r.fid, chunks(0, 8));
    let mut fill = r.worker.fill(r.shift, 7, &fetch).await.expect("begun");
    r.peers.oss.gate.forget_permits(tokio::sync::Semaphore::MAX_PERMITS);
    fill.write(Bytes::copy_from_slice(r.bytes(0, 8 * CHUNK as usize))).await.expect("begun");
    until("a write under way", || r.peers.oss.attempts.load(Ordering::SeqCst) > 0).await;
    drop(fill);
    let (worker, shift) = (r.worker.clone(), r.shift);
    let failed = FetchOutcome { result: FetchResult::Failed, message: String::new(), allocated_delta: 0 };
    let telling = tokio::spawn(async move { worker.finish(shift, 7, &Outcome::Fetch(failed)).await });
    let again = {
        let worker = r.worker.clone();
        tokio::spawn(async move { worker.fill(shift, 8, &fetch).await.map(drop) })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!telling.is_finished() && !again.is_finished());
    r.peers.oss.gate.add_permits(1000);
    telling.await.expect("no panic").expect("told");
    again.await.expect("no panic").expect("begun");
}
