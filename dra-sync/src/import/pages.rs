//! Pages of an import, made of what was seen of one range of keys.

use futures::{Stream, StreamExt};
use sateen_types::limits::{IMPORT_PAGE_BYTES_MAX, IMPORT_PAGE_OBJECTS_MAX};
use sateen_types::repository::ImportPage;
use tokio::sync::mpsc;

use crate::seen::Seen;

/// Bytes of a page that are left for its frame.
pub const PAGE_BYTES_ROOM: usize = 512 << 10;

/// What is told of one object, or of the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum One {
    /// It was looked at.
    Seen(Seen),
    /// The MDS knows it as it is: its key.
    Known(Vec<u8>),
    /// Nothing follows up to this key; `None`: nothing at all.
    End(Option<Vec<u8>>),
}

impl One {
    fn weight(&self) -> usize {
        match self {
            One::Seen(seen) => seen.weight(),
            One::Known(key) => key.len(),
            One::End(_) => 0,
        }
    }
}

/// Makes pages of what was seen behind `after`, and a last one at the end. Ends early without an error if nobody receives them
/// any more.
pub async fn pages<E>(
    mut seen: impl Stream<Item = Result<(u64, One), E>> + Unpin,
    after: &[u8],
    send: mpsc::Sender<ImportPage>,
) -> Result<(), E> {
    let mut page = Filling::behind(after.to_vec());
    while let Some(one) = seen.next().await {
        let (stamp, one) = match one {
            Ok(one) => one,
            Err(e) => {
                // What was seen before is worth keeping.
                if page.count > 0 {
                    let _ = send.send(page.page).await;
                }
                return Err(e);
            }
        };
        if let One::End(end) = one {
            let mut page = page.page;
            page.stamp = page.stamp.min(stamp);
            page.last = end.is_none();
            page.after = end.unwrap_or(page.after);
            let _ = send.send(page).await;
            return Ok(());
        }
        if !page.has_room(&one) {
            let next = Filling::behind(page.page.after.clone());
            if send.send(std::mem::replace(&mut page, next).page).await.is_err() {
                return Ok(());
            }
        }
        page.add(stamp, one);
    }
    Ok(())
}

/// A page that is being filled.
struct Filling {
    page: ImportPage,
    count: usize,
    weight: usize,
}

impl Filling {
    fn behind(from: Vec<u8>) -> Filling {
        let page = ImportPage {
            after: from.clone(),
            from,
            objects: Vec::new(),
            skipped: Vec::new(),
            known: Vec::new(),
            last: false,
            // That of the oldest listing that the page is of.
            stamp: u64::MAX,
        };
        Filling { page, count: 0, weight: 0 }
    }

    fn has_room(&self, one: &One) -> bool {
        let weight = self.weight + one.weight();
        self.count < IMPORT_PAGE_OBJECTS_MAX && weight <= IMPORT_PAGE_BYTES_MAX - PAGE_BYTES_ROOM
    }

    fn add(&mut self, stamp: u64, one: One) {
        let page = &mut self.page;
        self.count += 1;
        self.weight += one.weight();
        page.stamp = page.stamp.min(stamp);
        match one {
            One::Known(key) => {
                page.after.clone_from(&key);
                page.known.push(key);
            }
            One::Seen(seen) => {
                page.after = seen.key().to_vec();
                match seen {
                    Seen::Object(object) => page.objects.push(*object),
                    Seen::Skipped(skipped) => page.skipped.push(skipped),
                    Seen::Nothing(_) => {}
                }
            }
            One::End(_) => {}
        }
    }
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
        let seen = seen.into_iter().map(|one| one.map(|one| (7, One::Seen(one))));
        paged_with(seen.chain([Ok((9, One::End(None)))]).collect()).await
    }

    async fn paged_with(seen: Vec<Result<(u64, One), RemoteError>>) -> (Vec<ImportPage>, Result<(), RemoteError>) {
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
        assert_eq!((pages[0].from.as_slice(), pages[0].after.as_slice()), (&b"start"[..], &b"00999"[..]));
        assert_eq!((pages[2].from.as_slice(), pages[2].after.as_slice()), (&b"01999"[..], &b"02000"[..]));
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
            Ok((7, if i.is_multiple_of(3) { One::Seen(object(&key)) } else { One::Known(key.into_bytes()) }))
        };
        let (pages, done) = paged_with((0..1500).map(one).chain([Ok((9, One::End(None)))]).collect()).await;
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
        let seen = |stamp, i: usize| Ok((stamp, One::Seen(object(&format!("{i:05}")))));
        let all = (0..600).map(|i| seen(3, i)).chain((600..1100).map(|i| seen(5, i))).chain([Ok((8, One::End(None)))]);
        let (pages, _) = paged_with(all.collect()).await;
        let stamps: Vec<_> = pages.iter().map(|p| (p.objects.len(), p.stamp)).collect();
        assert_eq!(stamps, [(1000, 3), (100, 5)]);
        let (empty, _) = paged_with(vec![Ok((8, One::End(None)))]).await;
        assert_eq!((empty[0].stamp, empty[0].last), (8, true));
    }

    #[tokio::test]
    async fn a_range_ends_with_a_page_up_to_its_end() {
        let seen = vec![Ok((7, One::Seen(object("a")))), Ok((9, One::End(Some(b"m".to_vec()))))];
        let (pages, done) = paged_with(seen).await;
        assert_eq!(done, Ok(()));
        assert_eq!(pages.len(), 1);
        assert_eq!((pages[0].after.as_slice(), pages[0].last, pages[0].objects.len()), (&b"m"[..], false, 1));
    }
}
