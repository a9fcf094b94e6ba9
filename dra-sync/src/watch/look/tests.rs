//! Tests of `look.rs` against an MDS and a bucket that answer as they are told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use futures::FutureExt;
use sateen_types::Timestamp;
use sateen_types::repository::ImportedObject;

use super::*;
use crate::remote::Trouble;

/// A bucket with these keys, and what the MDS was told of it.
#[derive(Default)]
struct World {
    there: Mutex<BTreeMap<Vec<u8>, String>>,
    unlisted: AtomicBool,
    /// Looks that fail before one succeeds, by key.
    failures: Mutex<BTreeMap<Vec<u8>, u32>>,
    looked: Mutex<Vec<Vec<u8>>>,
    told: Mutex<Vec<EventsPage>>,
    /// Keys that are busy for so many pages.
    busy: Mutex<BTreeMap<Vec<u8>, u32>>,
    stamp: AtomicU64,
    stale: AtomicBool,
}

impl World {
    fn with(keys: &[&str]) -> Arc<World> {
        let world = World { stamp: AtomicU64::new(100), ..World::default() };
        world.there.lock().expect("lock").extend(keys.iter().map(|k| (k.as_bytes().to_vec(), format!("etag-{k}"))));
        Arc::new(world)
    }

    fn eyes(self: &Arc<World>, number: u64) -> Eyes {
        let (tell, see, sound) = (Arc::clone(self), Arc::clone(self), Arc::clone(self));
        Eyes {
            repository: RepositoryId(7),
            number,
            heads: 4,
            tell: Box::new(move |page| std::future::ready(tell.tell(page)).boxed()),
            see: Box::new(move |key| std::future::ready(see.see(key)).boxed()),
            sound: Box::new(move |()| {
                let lost = sound.unlisted.load(Ordering::SeqCst);
                let error = RemoteError::new(Trouble::Refused, "NoSuchBucket");
                std::future::ready(if lost { Err(error) } else { Ok(()) }).boxed()
            }),
        }
    }

    fn tell(&self, page: EventsPage) -> FsResult<EventsDone> {
        if self.stale.load(Ordering::SeqCst) {
            return Err(FsError::new(FsCode::Stale, "somebody else's"));
        }
        let mut busy = self.busy.lock().expect("lock");
        let keys = page.objects.iter().map(|o| &o.key).chain(&page.gone);
        let later = keys.filter(|key| busy.get_mut(*key).is_some_and(|n| n.checked_sub(1).map(|m| *n = m).is_some()));
        let later = later.cloned().collect();
        self.told.lock().expect("lock").push(page);
        let stamp = self.stamp.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(EventsDone { stamp, later, ..EventsDone::default() })
    }

    fn see(&self, key: Vec<u8>) -> Result<Seen, RemoteError> {
        self.looked.lock().expect("lock").push(key.clone());
        if let Some(left) = self.failures.lock().expect("lock").get_mut(&key)
            && *left > 0
        {
            *left -= 1;
            return Err(RemoteError::new(Trouble::Unavailable, "gone fishing"));
        }
        Ok(match self.there.lock().expect("lock").get(&key) {
            Some(etag) => Seen::Object(Box::new(object(&key, etag))),
            None => Seen::Nothing(key),
        })
    }

    fn told(&self) -> Vec<EventsPage> {
        self.told.lock().expect("lock").clone()
    }
}

fn object(key: &[u8], etag: &str) -> ImportedObject {
    ImportedObject {
        key: key.to_vec(),
        size: 1,
        etag: etag.to_owned(),
        modified: Timestamp::default(),
        mode: None,
        uid: None,
        gid: None,
        atime: None,
        mtime: None,
        symlink: None,
    }
}

fn batch(keys: &[&str]) -> (Batch, tokio::sync::oneshot::Receiver<()>) {
    let (ticket, answered) = Ticket::new(keys.len());
    (Batch { keys: keys.iter().map(|k| k.as_bytes().to_vec()).collect(), ticket: Some(ticket) }, answered)
}

/// Looks at one batch until it ends.
async fn looked(world: &Arc<World>, number: u64, stamp: Option<u64>, keys: &[&str]) -> (FsResult<()>, bool) {
    let (send, receive) = mpsc::channel(4);
    let (batch, mut answered) = batch(keys);
    send.send(batch).await.expect("room");
    drop(send);
    let (_source, trouble) = watch::channel(String::new());
    let done = run(&world.eyes(number), stamp, receive, trouble, &Figures::default()).await;
    (done, answered.try_recv().is_ok())
}

fn names(page: &EventsPage) -> (Vec<String>, Vec<String>) {
    let text = |key: &Vec<u8>| String::from_utf8(key.clone()).expect("text");
    (page.objects.iter().map(|o| text(&o.key)).collect(), page.gone.iter().map(text).collect())
}

#[tokio::test]
async fn what_is_there_and_what_is_not_is_told_with_a_stamp_from_before_the_look() {
    let world = World::with(&["a", "c"]);
    let (done, answered) = looked(&world, 0, None, &["c", "b", "a", "c"]).await;
    assert_eq!((done, answered), (Ok(()), true));
    let told = world.told();
    assert_eq!(told.len(), 2, "a page for a stamp, and one with what is there");
    assert_eq!(names(&told[0]), (vec![], vec![]));
    assert_eq!(names(&told[1]), (vec!["a".into(), "c".into()], vec!["b".into()]));
    assert_eq!((told[1].stamp, told[1].repository, told[1].number), (101, RepositoryId(7), 0));
    assert_eq!(world.looked.lock().expect("lock").len(), 3, "each key is looked at once");
}

#[tokio::test]
async fn a_busy_key_is_looked_at_again_before_anybody_hears_that_it_is_answered() {
    let world = World::with(&["a", "b"]);
    world.busy.lock().expect("lock").insert(b"a".to_vec(), 2);
    let (done, answered) = looked(&world, 0, Some(50), &["a", "b"]).await;
    assert_eq!((done, answered), (Ok(()), true));
    let told = world.told();
    let pages: Vec<_> = told.iter().map(|page| (page.stamp, names(page).0)).collect();
    let (a, b) = ("a".to_owned(), "b".to_owned());
    assert_eq!(pages, [(50, vec![a.clone(), b]), (101, vec![a.clone()]), (102, vec![a])]);
    assert_eq!(world.looked.lock().expect("lock").len(), 4);
}

#[tokio::test]
async fn a_look_that_fails_is_made_again() {
    let world = World::with(&["a"]);
    world.failures.lock().expect("lock").insert(b"a".to_vec(), 2);
    let (done, answered) = looked(&world, 0, Some(1), &["a"]).await;
    assert_eq!((done, answered), (Ok(()), true));
    assert_eq!(names(world.told().last().expect("told")).0, ["a"]);
    assert_eq!(world.looked.lock().expect("lock").len(), 3);
}

#[tokio::test]
async fn nothing_is_gone_of_a_bucket_that_cannot_be_listed() {
    let world = World::with(&["a"]);
    world.unlisted.store(true, Ordering::SeqCst);
    let (send, receive) = mpsc::channel(4);
    let (batch, mut answered) = batch(&["a", "b"]);
    send.send(batch).await.expect("room");
    let (_source, trouble) = watch::channel(String::new());
    let (eyes, figures) = (world.eyes(0), Figures::default());
    let running = run(&eyes, Some(1), receive, trouble, &figures);
    let there = Arc::clone(&world);
    let heals = async move {
        // The other key is looked at again and again, and never told to be gone.
        while there.looked.lock().expect("lock").iter().filter(|k| k.as_slice() == b"b").count() < 3 {
            tokio::task::yield_now().await;
        }
        assert!(there.told().iter().all(|page| page.gone.is_empty()), "{:?}", there.told());
        there.unlisted.store(false, Ordering::SeqCst);
        drop(send);
    };
    let (done, ()) = futures::future::join(running, heals).await;
    assert_eq!((done, answered.try_recv().is_ok()), (Ok(()), true));
    assert_eq!(names(world.told().last().expect("told")), (vec![], vec!["b".into()]));
}

#[tokio::test]
async fn a_watch_is_heard_at_once_and_says_why_its_source_does_not_work_until_it_is_lost() {
    let world = World::with(&[]);
    let (_send, receive) = mpsc::channel(4);
    let (source, trouble) = watch::channel(String::new());
    let (eyes, figures) = (world.eyes(3), Figures::default());
    let running = run(&eyes, Some(9), receive, trouble, &figures);
    let there = Arc::clone(&world);
    let script = async move {
        let pages = |count: usize| {
            let there = Arc::clone(&there);
            async move {
                while there.told().len() < count {
                    tokio::task::yield_now().await;
                }
            }
        };
        pages(1).await;
        source.send_replace("no queue".to_owned());
        pages(2).await;
        source.send_replace(String::new());
        pages(3).await;
        there.stale.store(true, Ordering::SeqCst);
        source.send_replace("gone".to_owned());
    };
    let (done, ()) = futures::future::join(running, script).await;
    assert_eq!(done.expect_err("lost").code, FsCode::Stale);
    let said: Vec<_> = world.told().into_iter().map(|page| (page.number, page.stamp, page.message)).collect();
    assert_eq!(said, [(3, 9, String::new()), (3, 101, "no queue".to_owned()), (3, 102, String::new())]);
}

#[tokio::test]
async fn many_keys_go_in_pages_that_the_mds_takes() {
    let keys: Vec<String> = (0..2500).map(|i| format!("{i:05}")).collect();
    let all: Vec<&str> = keys.iter().map(String::as_str).collect();
    let world = World::with(&all[..1200]);
    let (done, answered) = looked(&world, 0, Some(1), &all).await;
    assert_eq!((done, answered), (Ok(()), true));
    let told = world.told();
    assert!(told.iter().all(|page| page.objects.len() + page.gone.len() <= IMPORT_PAGE_OBJECTS_MAX));
    let seen: HashSet<Vec<u8>> =
        told.iter().flat_map(|p| p.objects.iter().map(|o| o.key.clone()).chain(p.gone.clone())).collect();
    assert_eq!((seen.len(), told.iter().map(|p| p.gone.len()).sum::<usize>()), (2500, 1300));
}
