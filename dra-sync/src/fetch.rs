//! One range of an object into the OSTs.
//!
//! The bytes are stored as they come; readers may have them then; and committed at the end. All parts of a range are of one version of the object: every
//! request says which, also after a connection broke in the middle.

use std::sync::atomic::Ordering;

use futures::StreamExt;
use sateen_client::{Client, Fill, Shift};
use sateen_types::repository::{Fetch, FetchOutcome, FetchResult};
use sateen_types::{Extent, FsCode, FsError};

use crate::figures::Figures;
use crate::remote::{FETCH_RETRY_FOR, Remote, RemoteError, Retries, Trouble};

/// Why a range is not there.
enum Failure {
    Remote(RemoteError),
    Store(FsError),
}

/// Fetches the range of the assignment `number`, taken in `shift`.
pub async fn run(
    client: &Client,
    shift: Shift,
    number: u64,
    remote: &Remote,
    fetch: &Fetch,
    figures: &Figures,
) -> FetchOutcome {
    let outcome = |result, message: String, allocated_delta| FetchOutcome { result, message, allocated_delta };
    match transfer(client, shift, number, remote, fetch, figures).await {
        Ok(delta) => {
            figures.fetched_bytes.fetch_add(fetch.range.end - fetch.range.start, Ordering::Relaxed);
            outcome(FetchResult::Loaded, String::new(), delta)
        }
        Err(Failure::Store(e)) if e.code == FsCode::NoSpace => {
            outcome(FetchResult::NoSpace, format!("cannot be stored: {e}"), 0)
        }
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
    number: u64,
    remote: &Remote,
    fetch: &Fetch,
    figures: &Figures,
) -> Result<i64, Failure> {
    let mut fill = client.fill(shift, number, fetch).await.map_err(Failure::Store)?;
    let mut retries = Retries::within(FETCH_RETRY_FOR);
    let mut wanted = fetch.range;
    while wanted.start < wanted.end {
        let before = wanted.start;
        let e = match receive(remote, fetch, &mut wanted, &mut fill).await {
            Ok(()) if wanted.start > before => continue,
            Ok(()) => RemoteError::new(Trouble::Unavailable, "the store answered without a byte"),
            Err(Failure::Remote(e)) => e,
            Err(e) => return Err(e),
        };
        figures.failed(&e);
        if !retries.pause(&e).await {
            return Err(Failure::Remote(e));
        }
    }
    if let Some(verifiers) = fill.stored().await.map_err(Failure::Store)? {
        // Whoever waits to read it need not wait for the disks. If this is not heard he waits a little longer.
        if let Err(error) = client.filled(shift, number, &verifiers).await {
            tracing::debug!(%error, fid = %fetch.fid, "what is stored was not told");
        }
    }
    fill.finish().await.map_err(Failure::Store)
}

/// Receives as much of `wanted` as comes, and moves its start on.
async fn receive(remote: &Remote, fetch: &Fetch, wanted: &mut Extent, fill: &mut Fill) -> Result<(), Failure> {
    let mut body = remote.get(&fetch.key, &fetch.etag, *wanted).await.map_err(Failure::Remote)?;
    while let Some(part) = body.next().await {
        let part = part.map_err(Failure::Remote)?;
        wanted.start += part.len() as u64;
        fill.write(part).await.map_err(Failure::Store)?;
    }
    Ok(())
}
