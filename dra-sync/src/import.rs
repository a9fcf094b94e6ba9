//! An import: lists a prefix and tells the MDS what is there, a page at a time.
//!
//! Three things go on at once, each bounded: the next page of the listing is asked for, the metadata of some objects are asked for,
//! and a page is being made durable by the MDS. Nothing is kept here: who goes on gets the place from the MDS.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use sateen_client::{Client, Shift};
use sateen_types::limits::{
    ETAG_BYTES_MAX, IMPORT_PAGE_BYTES_MAX, IMPORT_PAGE_OBJECTS_MAX, PATH_BYTES_MAX, SKIPPED_MESSAGE_BYTES_MAX,
};
use sateen_types::repository::{ImportPage, ImportedObject, ObjectPath, Skipped, skip_code};
use sateen_types::{FsCode, FsError, FsResult};
use tokio::sync::mpsc;

use crate::figures::Figures;
use crate::posix::Kind;
use crate::remote::{Head, IMPORT_RETRY_FOR, LIST_PAGE_MAX, Listed, Remote, RemoteError, Retries, Trouble};

/// Pages that wait for the MDS.
const PAGES_WAITING_MAX: usize = 2;
/// Bytes of a page that are left for its frame.
const PAGE_BYTES_ROOM: usize = 512 << 10;

/// What came of one object.
enum Seen {
    Object(Box<ImportedObject>),
    Skipped(Skipped),
    /// It went away while it was looked at, or is the prefix itself.
    Nothing(Vec<u8>),
}

impl Seen {
    fn key(&self) -> &[u8] {
        match self {
            Seen::Object(object) => &object.key,
            Seen::Skipped(skipped) => &skipped.key,
            Seen::Nothing(key) => key,
        }
    }

    /// Bytes in a message, more or less.
    fn weight(&self) -> usize {
        match self {
            Seen::Object(o) => o.key.len() + o.etag.len() + o.symlink.as_ref().map_or(0, Vec::len),
            Seen::Skipped(s) => s.key.len() + s.message.len(),
            Seen::Nothing(_) => 0,
        }
    }
}

/// Imports everything behind the key `after`. The last page ends the assignment. `Stale` if it is not this worker's any more; any other error is
/// why it cannot go on.
pub async fn run(
    client: &Client,
    shift: Shift,
    number: u64,
    remote: &Arc<Remote>,
    after: &[u8],
    heads: usize,
    figures: &Arc<Figures>,
) -> FsResult<()> {
    let (send, receive) = mpsc::channel::<ImportPage>(PAGES_WAITING_MAX);
    let gather = async {
        let (remote, figures) = (Arc::clone(remote), Arc::clone(figures));
        let objects = listing(Arc::clone(&remote), after.to_vec(), Arc::clone(&figures)).map(move |listed| {
            let (remote, figures) = (Arc::clone(&remote), Arc::clone(&figures));
            async move { look(&remote, listed?, &figures).await }.boxed()
        });
        pages(objects.buffered(heads).boxed(), after, send).await.map_err(|e| FsError::new(FsCode::Io, e.message))
    };
    let tell = async {
        // Gone with the first error, so that nobody waits to be received.
        let mut receive = receive;
        while let Some(page) = receive.recv().await {
            figures.skipped.fetch_add(page.skipped.len() as u64, Ordering::Relaxed);
            let status = client.import(shift, number, &page).await?.status;
            tracing::debug!(objects = status.objects, created = status.created, "imported a page");
        }
        Ok(())
    };
    let (gathered, told) = futures::future::join(gather, tell).await;
    // If the MDS refused a page, gathering ended because of that.
    told.and(gathered)
}

/// The objects of a listing, one after the other.
fn listing(
    remote: Arc<Remote>,
    after: Vec<u8>,
    figures: Arc<Figures>,
) -> BoxStream<'static, Result<Listed, RemoteError>> {
    let pages = futures::stream::unfold(Some(after), move |after| {
        let (remote, figures) = (Arc::clone(&remote), Arc::clone(&figures));
        async move {
            let after = after?;
            match retried(&figures, || remote.list(&after, LIST_PAGE_MAX)).await {
                Ok(page) => {
                    figures.listed.fetch_add(page.objects.len() as u64, Ordering::Relaxed);
                    let last = page.objects.last().map(|last| last.key.clone());
                    let objects = page.objects.into_iter().map(Ok).collect::<Vec<_>>();
                    Some((objects, last.filter(|_| page.more)))
                }
                Err(e) => Some((vec![Err(e)], None)),
            }
        }
    });
    pages.map(futures::stream::iter).flatten().boxed()
}

/// A request of an import, as often as it is worth it.
async fn retried<T, Fut>(figures: &Figures, request: impl Fn() -> Fut) -> Result<T, RemoteError>
where
    Fut: Future<Output = Result<T, RemoteError>>,
{
    let mut retries = Retries::within(IMPORT_RETRY_FOR);
    loop {
        match request().await {
            Ok(answer) => return Ok(answer),
            Err(e) => {
                figures.failed(&e);
                if !retries.pause(&e).await {
                    return Err(e);
                }
            }
        }
    }
}

/// Looks at one object. An error ends the import; what is wrong with the object alone does not.
async fn look(remote: &Remote, listed: Listed, figures: &Figures) -> Result<Seen, RemoteError> {
    let key = listed.key.clone();
    if key.is_empty() {
        return Ok(Seen::Nothing(key));
    }
    let skip = |code: &str, message: String| {
        Ok(Seen::Skipped(Skipped {
            key: key.clone(),
            code: code.to_owned(),
            message: cut(&message, SKIPPED_MESSAGE_BYTES_MAX),
        }))
    };
    let path = match ObjectPath::parse(&key) {
        Ok(path) => path,
        Err(e) => return skip(skip_code::NOT_POSIX, e.message),
    };
    let head = match retried(figures, || remote.head(&key)).await {
        Ok(head) => head,
        Err(e) => match e.trouble {
            Trouble::Gone => return Ok(Seen::Nothing(key)),
            Trouble::Denied => return skip(skip_code::ACCESS_DENIED, e.message),
            Trouble::Refused => return skip(skip_code::METADATA, e.message),
            Trouble::Changed | Trouble::Throttled | Trouble::Unavailable => return Err(e),
        },
    };
    let mut symlink = None;
    match head.posix.kind() {
        _ if path.directory => {}
        Kind::Plain => {}
        Kind::Special => return skip(skip_code::METADATA, "it is a device, pipe or socket".to_owned()),
        Kind::Symlink if listed.archived => {
            return skip(skip_code::SYMLINK_TIER, "its target cannot be read at once".to_owned());
        }
        Kind::Symlink if head.size == 0 || head.size >= PATH_BYTES_MAX as u64 => {
            return skip(skip_code::METADATA, format!("a symbolic link to {} bytes", head.size));
        }
        Kind::Symlink => match retried(figures, || remote.get_all(&key, &head.etag, head.size)).await {
            Ok(target) if target.contains(&0) => {
                return skip(skip_code::METADATA, "a symbolic link to bytes with NUL".to_owned());
            }
            Ok(target) => symlink = Some(target),
            // Written anew in this moment: the next import sees it.
            Err(e) if e.trouble == Trouble::Changed => return skip(skip_code::ACCESS_DENIED, e.message),
            Err(e) if e.trouble == Trouble::Gone => return Ok(Seen::Nothing(key)),
            Err(e) if e.is_retryable() => return Err(e),
            Err(e) => return skip(skip_code::ACCESS_DENIED, e.message),
        },
    }
    if head.etag.is_empty() || head.etag.len() > ETAG_BYTES_MAX {
        return skip(skip_code::METADATA, format!("an ETag of {} bytes", head.etag.len()));
    }
    Ok(Seen::Object(Box::new(imported(listed, head, symlink))))
}

/// Size, version and metadata are of one answer, so they are of one version; the listing knows the time more exactly.
fn imported(listed: Listed, head: Head, symlink: Option<Vec<u8>>) -> ImportedObject {
    let modified = match head.modified {
        Some(modified) if head.etag != listed.etag => modified,
        _ => listed.modified,
    };
    ImportedObject {
        key: listed.key,
        size: head.size,
        etag: head.etag,
        modified,
        mode: head.posix.mode,
        uid: head.posix.uid,
        gid: head.posix.gid,
        atime: head.posix.atime,
        mtime: head.posix.mtime,
        symlink,
    }
}

/// Makes pages of what was seen, and a last one. Ends early without an error if nobody receives them any more.
async fn pages(
    mut seen: impl Stream<Item = Result<Seen, RemoteError>> + Unpin,
    after: &[u8],
    send: mpsc::Sender<ImportPage>,
) -> Result<(), RemoteError> {
    let empty = |after: Vec<u8>| ImportPage { objects: Vec::new(), after, skipped: Vec::new(), last: false, stamp: 0 };
    let mut page = empty(after.to_vec());
    let (mut count, mut weight) = (0, 0);
    while let Some(one) = seen.next().await {
        let one = match one {
            Ok(one) => one,
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
        match one {
            Seen::Object(object) => page.objects.push(*object),
            Seen::Skipped(skipped) => page.skipped.push(skipped),
            Seen::Nothing(_) => {}
        }
    }
    page.last = true;
    let _ = send.send(page).await;
    Ok(())
}

/// As much of a text as fits, whole characters.
pub fn cut(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}

#[cfg(test)]
mod tests {
    use sateen_types::Timestamp;

    use super::*;
    use crate::posix::Posix;

    fn object(key: &str) -> Seen {
        Seen::Object(Box::new(imported(listed(key), head(), None)))
    }

    fn listed(key: &str) -> Listed {
        let modified = Timestamp { seconds: 10, nanos: 5 };
        Listed { key: key.into(), size: 1, etag: "a".into(), modified, archived: false }
    }

    fn head() -> Head {
        let modified = Some(Timestamp { seconds: 10, nanos: 0 });
        Head { size: 1, etag: "a".into(), modified, posix: Posix::default() }
    }

    async fn paged(seen: Vec<Result<Seen, RemoteError>>) -> (Vec<ImportPage>, Result<(), RemoteError>) {
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
            let mut object = imported(listed(&format!("{i:05}")), head(), None);
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

    #[test]
    fn an_object_that_changed_after_the_listing_has_the_newer_time() {
        let same = imported(listed("k"), head(), None);
        assert_eq!(same.modified.nanos, 5, "the listing is more exact");
        let newer = Head { etag: "b".into(), modified: Some(Timestamp { seconds: 99, nanos: 0 }), ..head() };
        let changed = imported(listed("k"), newer, None);
        assert_eq!((changed.modified.seconds, changed.etag.as_str()), (99, "b"));
    }

    #[test]
    fn messages_are_cut_between_characters() {
        assert_eq!(cut("aü", 2), "a");
        assert_eq!(cut("aü", 3), "aü");
    }
}
