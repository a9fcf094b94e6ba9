//! An import: lists a prefix and tells the MDS what is there, a page at a time.
//!
//! Three things go on at once, each bounded: next pages of the listing are asked for, the metadata of some objects are asked for,
//! and a page is being made durable by the MDS. What takes longer than a few pages is listed in several ranges of keys at once
//! ([`spans`]). Nothing is kept here: who goes on gets from the MDS what is left. Objects that the MDS knows as they are listed are
//! not looked at.
//!
//! Each page has a stamp of the MDS from before it was listed. What was stored or deleted from here since then the MDS leaves alone;
//! a page that is too old to be told from that is listed again.

mod listing;
mod pages;
mod spans;
mod split;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use sateen_client::{Client, Shift};
use sateen_types::repository::{ImportPage, ImportState, KeyRange, take_off};
use sateen_types::{FsCode, FsError, FsResult};
use tokio::sync::{Semaphore, mpsc};

use listing::{Entry, listing};
pub use listing::{Open, Store};
pub use pages::PAGE_BYTES_ROOM;
use pages::{One, pages};
use spans::{SPANS_MAX, Span, Spans};

/// Pages that wait for the MDS.
const PAGES_WAITING_MAX: usize = 2;
/// How often in a row the same place is listed again because the MDS could not use the page. Each time has a newer stamp, so
/// that twice is rare.
const AGAIN_MAX: u32 = 20;
/// Pause before that.
const AGAIN_PAUSE: Duration = Duration::from_millis(500);

/// Where an import is.
#[derive(Debug)]
pub struct Place {
    /// What is to be listed: ranges that have no key in common. None: everything, one page behind the other, for an MDS that
    /// knows no ranges.
    pub left: Vec<KeyRange>,
    /// The newest stamp of the MDS.
    pub stamp: u64,
}

/// Imports what is left. The last page ends the assignment. `Stale` if it is not this worker's any more; any other
/// error is why it cannot go on.
pub async fn run(
    client: &Client,
    shift: Shift,
    number: u64,
    store: &Arc<Store>,
    mut place: Place,
    heads: usize,
) -> FsResult<()> {
    let mut in_vain = 0;
    loop {
        let before = place.left.clone();
        if pass(client, shift, number, store, &mut place, heads).await? {
            return Ok(());
        }
        in_vain = if place.left == before { in_vain + 1 } else { 1 };
        if in_vain > AGAIN_MAX {
            let at = before.first().map(|range| String::from_utf8_lossy(&range.after).into_owned()).unwrap_or_default();
            return Err(FsError::new(FsCode::Io, format!("the page behind {at:?} was listed {in_vain} times in vain")));
        }
        tokio::time::sleep(AGAIN_PAUSE).await;
    }
}

/// Goes on with what is left, and takes off what is done. `false` if something of it is to be listed again.
async fn pass(
    client: &Client,
    shift: Shift,
    number: u64,
    store: &Arc<Store>,
    place: &mut Place,
    heads: usize,
) -> FsResult<bool> {
    let (send, receive) = mpsc::channel::<ImportPage>(PAGES_WAITING_MAX);
    let newest = Arc::new(AtomicU64::new(place.stamp));
    let gather = gather(store, place.left.clone(), Arc::clone(&newest), heads, send);
    let mut is_done = false;
    let tell = async {
        // Gone with the first error, so that nobody waits to be received.
        let mut receive = receive;
        while let Some(page) = receive.recv().await {
            let done = client.import(shift, number, &page).await?;
            newest.fetch_max(done.stamp, Ordering::Relaxed);
            place.stamp = place.stamp.max(done.stamp);
            if done.again {
                tracing::debug!(after = %String::from_utf8_lossy(&page.from), "a page is listed again");
                return Ok(false);
            }
            store.figures.skipped.fetch_add(page.skipped.len() as u64, Ordering::Relaxed);
            tracing::debug!(objects = done.status.objects, created = done.status.created, "imported a page");
            take_off(&mut place.left, &page.range());
            if done.status.state == ImportState::Done {
                // Of one that is limited to a prefix, before the listing ends.
                is_done = true;
                break;
            }
        }
        FsResult::Ok(true)
    };
    let (gathered, told) = futures::future::join(gather, tell).await;
    // If the MDS refused a page, gathering ended because of that.
    match told? {
        true if is_done => Ok(true),
        true => gathered.and_then(|()| {
            let left = place.left.len();
            Err(FsError::new(
                FsCode::Io,
                format!("everything was listed, and of the import {left} ranges of keys are left"),
            ))
        }),
        false => Ok(false),
    }
}

/// Lists what is left, in several ranges at once, and makes pages of it. Ends early if nobody receives them any more.
async fn gather(
    store: &Arc<Store>,
    left: Vec<KeyRange>,
    newest: Arc<AtomicU64>,
    heads: usize,
    send: mpsc::Sender<ImportPage>,
) -> FsResult<()> {
    let (spans, looks) = (Arc::new(Spans::default()), Arc::new(Semaphore::new(heads)));
    let list = |span: Arc<Span>| {
        let (store, spans, newest) = (Arc::clone(store), Arc::clone(&spans), Arc::clone(&newest));
        one_range(store, (span, spans), newest, (Arc::clone(&looks), heads), send.clone())
    };
    let cut = || spans.cut(|key| store.first_behind(key));
    let mut waiting: Vec<Arc<Span>> = left.into_iter().rev().map(|range| spans.add(range)).collect();
    let (mut ranges, mut next_cut, mut cuts) = (FuturesUnordered::new(), Box::pin(cut()), !waiting.is_empty());
    if waiting.is_empty() {
        waiting.push(spans.add(KeyRange::ALL));
    }
    loop {
        while ranges.len() < SPANS_MAX
            && let Some(span) = waiting.pop()
        {
            ranges.push(list(span));
        }
        tokio::select! {
            ended = ranges.next() => match ended {
                Some(Ok(())) if !send.is_closed() => {}
                Some(ended) => return ended,
                None => return Ok(()),
            },
            right = &mut next_cut, if cuts => match right {
                Ok(right) => {
                    tracing::debug!(after = %String::from_utf8_lossy(&right.range().after), "a range is listed beside others");
                    waiting.push(right);
                    next_cut.set(cut());
                }
                Err(e) => {
                    tracing::debug!("the listing is not cut into ranges: {e}");
                    cuts = false;
                }
            },
        }
    }
}

/// Lists one range and looks at what it has, `heads` of its objects at once and no more than `looks` has room for.
async fn one_range(
    store: Arc<Store>,
    (span, spans): (Arc<Span>, Arc<Spans>),
    newest: Arc<AtomicU64>,
    (looks, heads): (Arc<Semaphore>, usize),
    send: mpsc::Sender<ImportPage>,
) -> FsResult<()> {
    let after = span.range().after.clone();
    let seen = listing(Arc::clone(&store), span, spans, newest).map(move |(stamp, entry)| {
        let (store, looks) = (Arc::clone(&store), Arc::clone(&looks));
        async move {
            let one = match entry? {
                Entry::End(end) => One::End(end),
                Entry::Known(key) => One::Known(key),
                Entry::Listed(listed) => {
                    let _room = looks.acquire_owned().await.expect("never closed");
                    One::Seen(store.look(&listed).await?)
                }
            };
            Ok::<_, FsError>((stamp, one))
        }
        .boxed()
    });
    pages(seen.buffered(heads).boxed(), &after, send).await
}
