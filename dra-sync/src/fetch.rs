//! One range of an object into the OSTs.
//!
//! The bytes are stored as they come, in pieces of whole chunks, and committed at the end. All parts of a range are of one
//! version of the object: every request says which, also after a connection broke in the middle.

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use sateen_client::{Client, Shift};
use sateen_types::limits::CHUNK_BYTES_MAX;
use sateen_types::repository::{Fetch, FetchOutcome, FetchResult};
use sateen_types::{Extent, FsError, FsResult};

use crate::figures::Figures;
use crate::remote::{FETCH_RETRY_FOR, Remote, RemoteError, Retries, Trouble};

/// Bytes that are stored at a time.
const PIECE_BYTES: usize = 1 << 20;
/// Pieces of one range that are being stored at a time.
const PIECES_MAX: usize = 4;

const _: () = assert!(PIECE_BYTES.is_multiple_of(CHUNK_BYTES_MAX as usize));

/// Why a range is not there.
enum Failure {
    Remote(RemoteError),
    Store(FsError),
}

/// Fetches a range. An error only if the MDS need not hear of it, because the work is not this worker's any more.
pub async fn run(client: &Client, shift: Shift, remote: &Remote, fetch: &Fetch, figures: &Figures) -> FetchOutcome {
    let outcome = |result, message: String, allocated_delta| FetchOutcome { result, message, allocated_delta };
    match transfer(client, shift, remote, fetch, figures).await {
        Ok(delta) => outcome(FetchResult::Loaded, String::new(), delta),
        Err(Failure::Store(e)) => outcome(FetchResult::Failed, format!("cannot be stored: {e}"), 0),
        Err(Failure::Remote(e)) => {
            let result = match e.trouble {
                Trouble::Changed => FetchResult::Changed,
                Trouble::Gone => FetchResult::Gone,
                _ => FetchResult::Failed,
            };
            outcome(result, e.message, 0)
        }
    }
}

/// Gives the change of the disk space in bytes.
async fn transfer(
    client: &Client,
    shift: Shift,
    remote: &Remote,
    fetch: &Fetch,
    figures: &Figures,
) -> Result<i64, Failure> {
    let store = |at: u64, piece: Bytes| async move {
        let len = piece.len() as u64;
        let done: FsResult<i64> =
            client.fill(shift, fetch.fid, &fetch.layout, Extent { start: at, end: at + len }, piece).await;
        done.inspect(|_| {
            figures.fetched_bytes.fetch_add(len, std::sync::atomic::Ordering::Relaxed);
        })
        .map_err(Failure::Store)
    };
    let mut stored = FuturesUnordered::new();
    let mut delta = 0i64;
    let mut gathered = BytesMut::with_capacity(PIECE_BYTES);
    // First byte of `gathered`.
    let mut at = fetch.range.start;
    let mut retries = Retries::within(FETCH_RETRY_FOR);
    loop {
        let from = at + gathered.len() as u64;
        if from == fetch.range.end {
            break;
        }
        let wanted = Extent { start: from, end: fetch.range.end };
        let mut failed = None;
        match remote.get(&fetch.key, &fetch.etag, wanted).await {
            Err(e) => failed = Some(e),
            Ok(mut body) => {
                while let Some(part) = body.next().await {
                    let mut part = match part {
                        Ok(part) => part,
                        Err(e) => {
                            failed = Some(e);
                            break;
                        }
                    };
                    while !part.is_empty() {
                        let take = part.len().min(PIECE_BYTES - gathered.len());
                        gathered.extend_from_slice(&part.split_to(take));
                        if gathered.len() == PIECE_BYTES {
                            while stored.len() >= PIECES_MAX {
                                if let Some(done) = stored.next().await {
                                    delta += done?;
                                }
                            }
                            let piece = std::mem::replace(&mut gathered, BytesMut::with_capacity(PIECE_BYTES));
                            stored.push(store(at, piece.freeze()));
                            at += PIECE_BYTES as u64;
                        }
                    }
                }
            }
        }
        if let Some(e) = failed {
            figures.failed(&e);
            if !retries.pause(&e).await {
                return Err(Failure::Remote(e));
            }
        }
    }
    if !gathered.is_empty() {
        stored.push(store(at, gathered.freeze()));
    }
    while let Some(done) = stored.next().await {
        delta += done?;
    }
    Ok(delta)
}
