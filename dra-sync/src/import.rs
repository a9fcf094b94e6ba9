//! An import: lists a prefix and tells the MDS what is there, a page at a time.
//!
//! Three things go on at once, each bounded: the next page of the listing is asked for, the metadata of some objects are asked for,
//! and a page is being made durable by the MDS. Nothing is kept here: who goes on gets the place from the MDS. Objects that the MDS knows as
//! they are listed are not looked at.
//!
//! Each page has a stamp of the MDS from before it was listed. What was stored or deleted from here since then the MDS leaves alone;
//! a page that is too old to be told from that is listed again.

mod listing;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt};
use sateen_client::{Client, Shift};
use sateen_types::limits::{IMPORT_PAGE_BYTES_MAX, IMPORT_PAGE_OBJECTS_MAX};
use sateen_types::repository::{ImportPage, ImportState};
use sateen_types::{FsCode, FsError, FsResult};
use tokio::sync::mpsc;

use crate::seen::Seen;

use listing::{Entry, listing};
pub use listing::{Open, Store};

/// Pages that wait for the MDS.
const PAGES_WAITING_MAX: usize = 2;
/// Bytes of a page that are left for its frame.
pub const PAGE_BYTES_ROOM: usize = 512 << 10;
/// How often in a row the same place is listed again because the MDS could not use the page. Each time has a newer stamp, so
/// that twice is rare.
const AGAIN_MAX: u32 = 20;
/// Pause before that.
const AGAIN_PAUSE: Duration = Duration::from_millis(500);

/// Where an import is.
#[derive(Debug)]
pub struct Place {
    /// Everything up to this key is done.
    pub after: Vec<u8>,
    /// The newest stamp of the MDS.
    pub stamp: u64,
}

/// What is told of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
enum One {
    /// It was looked at.
    Seen(Seen),
    /// The MDS knows it as it is: its key.
    Known(Vec<u8>),
}

impl One {
    fn key(&self) -> &[u8] {
        match self {
            One::Seen(seen) => seen.key(),
            One::Known(key) => key,
        }
    }

    fn weight(&self) -> usize {
        match self {
            One::Seen(seen) => seen.weight(),
            One::Known(key) => key.len(),
        }
    }
}

/// Imports everything behind `place`. The last page ends the assignment. `Stale` if it is not this worker's any more; any other
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
        let before = place.after.clone();
        if pass(client, shift, number, store, &mut place, heads).await? {
            return Ok(());
        }
        in_vain = if place.after == before { in_vain + 1 } else { 1 };
        if in_vain > AGAIN_MAX {
            let at = String::from_utf8_lossy(&before).into_owned();
            return Err(FsError::new(FsCode::Io, format!("the page behind {at:?} was listed {in_vain} times in vain")));
        }
        tokio::time::sleep(AGAIN_PAUSE).await;
    }
}

/// Goes on from `place` and moves it. `false` if the page behind it is to be listed again.
async fn pass(
    client: &Client,
    shift: Shift,
    number: u64,
    store: &Arc<Store>,
    place: &mut Place,
    heads: usize,
) -> FsResult<bool> {
    let (send, receive) = mpsc::channel::<ImportPage>(PAGES_WAITING_MAX);
    let (after, newest) = (place.after.clone(), Arc::new(AtomicU64::new(place.stamp)));
    let stamps = Arc::clone(&newest);
    let gather = async {
        let listed = listing(Arc::clone(store), after.clone(), stamps);
        let store = Arc::clone(store);
        let seen = listed.map(move |(stamp, entry)| {
            let store = Arc::clone(&store);
            async move {
                Ok::<_, FsError>(match entry? {
                    None => (stamp, None),
                    Some(Entry::Known(key)) => (stamp, Some(One::Known(key))),
                    Some(Entry::Listed(listed)) => (stamp, Some(One::Seen(store.look(&listed).await?))),
                })
            }
            .boxed()
        });
        pages(seen.buffered(heads).boxed(), &after, send).await
    };
    let tell = async {
        // Gone with the first error, so that nobody waits to be received.
        let mut receive = receive;
        while let Some(page) = receive.recv().await {
            let done = client.import(shift, number, &page).await?;
            newest.fetch_max(done.stamp, Ordering::Relaxed);
            place.stamp = place.stamp.max(done.stamp);
            if done.again {
                tracing::debug!(after = %String::from_utf8_lossy(&place.after), "a page is listed again");
                return Ok(false);
            }
            store.figures.skipped.fetch_add(page.skipped.len() as u64, Ordering::Relaxed);
            tracing::debug!(objects = done.status.objects, created = done.status.created, "imported a page");
            place.after = page.after;
            if done.status.state == ImportState::Done {
                // Of one that is limited to a prefix, before the listing ends.
                break;
            }
        }
        FsResult::Ok(true)
    };
    let (gathered, told) = futures::future::join(gather, tell).await;
    // If the MDS refused a page, gathering ended because of that.
    match told? {
        true => gathered.map(|()| true),
        false => Ok(false),
    }
}

/// Makes pages of what was seen, and a last one at the end. Ends early without an error if nobody receives them any more.
async fn pages<E>(
    mut seen: impl Stream<Item = Result<(u64, Option<One>), E>> + Unpin,
    after: &[u8],
    send: mpsc::Sender<ImportPage>,
) -> Result<(), E> {
    let empty = |after: Vec<u8>| ImportPage {
        objects: Vec::new(),
        after,
        skipped: Vec::new(),
        known: Vec::new(),
        last: false,
        // That of the oldest listing that the page is of.
        stamp: u64::MAX,
    };
    let mut page = empty(after.to_vec());
    let (mut count, mut weight) = (0, 0);
    while let Some(one) = seen.next().await {
        let (stamp, one) = match one {
            Ok((stamp, Some(one))) => (stamp, one),
            Ok((stamp, None)) => {
                page.stamp = page.stamp.min(stamp);
                break;
            }
            Err(e) => {
                // What was seen before is worth keeping.
                if count > 0 {
                    let _ = send.send(page).await;
                }
                return Err(e);
            }
        };
        if count == IMPORT_PAGE_OBJECTS_MAX || weight + one.weight() > IMPORT_PAGE_BYTES_MAX - PAGE_BYTES_ROOM {
            let next = empty(page.after.clone());
            if send.send(std::mem::replace(&mut page, next)).await.is_err() {
                return Ok(());
            }
            (count, weight) = (0, 0);
        }
        count += 1;
        weight += one.weight();
        page.after = one.key().to_vec();
        page.stamp = page.stamp.min(stamp);
        match one {
            One::Known(key) => page.known.push(key),
            One::Seen(Seen::Object(object)) => page.objects.push(*object),
            One::Seen(Seen::Skipped(skipped)) => page.skipped.push(skipped),
            One::Seen(Seen::Nothing(_)) => {}
        }
    }
    page.last = true;
    let _ = send.send(page).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use sateen_types::Timestamp;
    use sateen_types::limits::PATH_BYTES_MAX;
    use sateen_types::repository::{ImportedObject, Skipped};

    use super::*;
    use crate::remote::{RemoteError, Trouble};

    fn object(key: &str) -> Seen {
        Seen::Object(Box::new(imported(key)))
    }

    fn imported(key: &str) -> ImportedObject {
        ImportedObject {
            key: key.into(),
            size: 1,
            etag: "a".into(),
            modified: Timestamp::default(),
            mode: None,
            uid: None,
            gid: None,
            atime: None,
            mtime: None,
            symlink: None,
        }
    }

    /// What was seen with the stamp 7, and the end of the listing.
    async fn paged(seen: Vec<Result<Seen, RemoteError>>) -> (Vec<ImportPage>, Result<(), RemoteError>) {
        let seen = seen.into_iter().map(|one| one.map(|one| (7, Some(One::Seen(one)))));
        paged_with(seen.chain([Ok((9, None))]).collect()).await
    }

    async fn paged_with(
        seen: Vec<Result<(u64, Option<One>), RemoteError>>,
    ) -> (Vec<ImportPage>, Result<(), RemoteError>) {
        let (send, mut receive) = mpsc::channel(1000);
        let done = pages(futures::stream::iter(seen), b"start", send).await;
        let mut all = Vec::new();
        while let Some(page) = receive.recv().await {
            all.push(page);
        }
        (all, done)
    }

    #[tokio::test]
    async fn pages_are_cut_by_count_and_say_where_to_go_on() {
        let seen = (0..2 * IMPORT_PAGE_OBJECTS_MAX + 1).map(|i| Ok(object(&format!("{i:05}")))).collect();
        let (pages, done) = paged(seen).await;
        assert_eq!(done, Ok(()));
        let counts: Vec<_> = pages.iter().map(|p| (p.objects.len(), p.last)).collect();
        assert_eq!(counts, [(1000, false), (1000, false), (1, true)]);
        assert_eq!(pages[0].after, b"00999");
        assert_eq!(pages[2].after, b"02000");
    }

    #[tokio::test]
    async fn pages_are_cut_by_size() {
        let seen = (0..IMPORT_PAGE_OBJECTS_MAX).map(|i| {
            let mut object = imported(&format!("{i:05}"));
            object.symlink = Some(vec![b'x'; PATH_BYTES_MAX - 1]);
            Ok(Seen::Object(Box::new(object)))
        });
        let (pages, _) = paged(seen.collect()).await;
        assert!(pages.len() > 2);
        for page in &pages {
            let bytes: usize = page.objects.iter().filter_map(|o| o.symlink.as_ref()).map(Vec::len).sum();
            assert!(bytes <= IMPORT_PAGE_BYTES_MAX);
        }
        assert_eq!(pages.iter().map(|p| p.objects.len()).sum::<usize>(), IMPORT_PAGE_OBJECTS_MAX);
    }

    #[tokio::test]
    async fn objects_that_are_known_count_and_are_named_by_their_keys() {
        let one = |i: usize| {
            let key = format!("{i:05}");
            Ok((7, Some(if i.is_multiple_of(3) { One::Seen(object(&key)) } else { One::Known(key.into_bytes()) })))
        };
        let (pages, done) = paged_with((0..1500).map(one).chain([Ok((9, None))]).collect()).await;
        assert_eq!(done, Ok(()));
        let counts: Vec<_> = pages.iter().map(|p| (p.objects.len(), p.known.len(), p.last)).collect();
        assert_eq!(counts, [(334, 666, false), (166, 334, true)]);
        assert_eq!((pages[0].known[1].as_slice(), pages[0].after.as_slice()), (&b"00002"[..], &b"00999"[..]));
    }

    #[tokio::test]
    async fn an_empty_listing_is_a_last_page() {
        let (pages, _) = paged(Vec::new()).await;
        assert_eq!(pages.len(), 1);
        assert!(pages[0].last && pages[0].objects.is_empty() && pages[0].after == b"start");
    }

    #[tokio::test]
    async fn what_was_seen_before_an_error_is_told_and_is_not_the_end() {
        let skipped = Skipped { key: b"b".to_vec(), code: "c".into(), message: "m".into() };
        let error = RemoteError::new(Trouble::Unavailable, "gone fishing");
        let seen =
            vec![Ok(object("a")), Ok(Seen::Skipped(skipped)), Ok(Seen::Nothing(b"c".to_vec())), Err(error.clone())];
        let (pages, done) = paged(seen).await;
        assert_eq!(done, Err(error));
        assert_eq!(pages.len(), 1);
        assert_eq!((pages[0].objects.len(), pages[0].skipped.len(), pages[0].last), (1, 1, false));
        assert_eq!(pages[0].after, b"c");
    }

    #[tokio::test]
    async fn a_page_has_the_stamp_of_the_oldest_listing_that_it_is_of() {
        let seen = |stamp, i: usize| Ok((stamp, Some(One::Seen(object(&format!("{i:05}"))))));
        let all = (0..600).map(|i| seen(3, i)).chain((600..1100).map(|i| seen(5, i))).chain([Ok((8, None))]);
        let (pages, _) = paged_with(all.collect()).await;
        let stamps: Vec<_> = pages.iter().map(|p| (p.objects.len(), p.stamp)).collect();
        assert_eq!(stamps, [(1000, 3), (100, 5)]);
        let (empty, _) = paged_with(vec![Ok((8, None))]).await;
        assert_eq!((empty[0].stamp, empty[0].last), (8, true));
    }
}
