//! Group commit, failed commands, failed commits, identifiers of one life and the next.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use sateen_types::op::{Create, Mutation};
use sateen_types::{Credential, LayoutTemplate, Name, OstIndex, SessionId};

use super::*;
use crate::command::Request;
use crate::store::{MemStore, MemoryTxn, ReadTxn};

const SESSION: SessionId = SessionId([1; 16]);

#[derive(Default)]
struct TestHost {
    fatal: AtomicBool,
    commits: AtomicUsize,
}

impl Host for TestHost {
    fn osts(&self) -> Arc<Vec<Candidate>> {
        Arc::new(vec![Candidate { index: OstIndex(0), up: true, available: 1 << 40 }])
    }
    fn claim(&self, _: Fid) -> bool {
        true
    }
    fn release(&self, _: &[Fid]) {}
    fn applied(&self, _: &Command, _: &Outcome) {}
    fn committed(&self, _: bool, _: bool) {
        self.commits.fetch_add(1, Ordering::SeqCst);
    }
    fn fatal(&self, _: &FsError) {
        self.fatal.store(true, Ordering::SeqCst);
    }
}

/// Holds every commit while `gate` is locked; fails them while `broken`.
#[derive(Default)]
struct GatedStore {
    inner: MemStore,
    gate: Mutex<()>,
    broken: AtomicBool,
    entered: AtomicUsize,
}

impl Store for GatedStore {
    fn snapshot(&self) -> Box<dyn ReadTxn + '_> {
        self.inner.snapshot()
    }
    fn snapshot_in_memory(&self) -> Box<dyn MemoryTxn + '_> {
        self.inner.snapshot_in_memory()
    }
    fn commit(&self, changes: &WriteSet) -> FsResult<()> {
        self.entered.fetch_add(1, Ordering::SeqCst);
        let _gate = self.gate.lock();
        if self.broken.load(Ordering::SeqCst) {
            return Err(FsError::new(FsCode::Io, "the disk is gone"));
        }
        self.inner.commit(changes)
    }
}

fn create(slot: u32, number: u64, name: &str) -> Command {
    Command::Mutate(Box::new(Request {
        session: SESSION,
        slot,
        number,
        credential: Credential::ROOT,
        op: Mutation::Create(Create {
            parent: Fid::ROOT,
            name: Name::parse(name.as_bytes()).expect("valid"),
            mode: 0o644.into(),
            exclusive: true,
            open: None,
            layout: None,
        }),
        hold: false,
        open: 0,
        logged: None,
    }))
}

async fn start() -> (Arc<GatedStore>, Arc<TestHost>, Arc<Writer>) {
    let (store, host) = (Arc::new(GatedStore::default()), Arc::new(TestHost::default()));
    let writer = Arc::new(Writer::start("test", store.clone(), host.clone()).expect("starts"));
    let format = Command::Format { uid: 0, gid: 0, mode: 0o755, layout: LayoutTemplate::default() };
    writer.submit(format).await.expect("formats");
    writer.submit(Command::OpenSession { session: SESSION, client: "t".into(), writer: 0 }).await.expect("opens");
    (store, host, writer)
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_waiters_share_one_commit_and_nobody_is_answered_before_it() {
    let (store, host, writer) = start().await;
    let before = host.commits.load(Ordering::SeqCst);
    let entered = store.entered.load(Ordering::SeqCst);
    let gate = store.gate.lock();
    let first = tokio::spawn({
        let writer = writer.clone();
        async move { writer.submit(create(0, 1, "first")).await }
    });
    let s = store.clone();
    tokio::task::block_in_place(|| {
        while s.entered.load(Ordering::SeqCst) == entered {
            std::thread::yield_now()
        }
    });
    let rest: Vec<_> = (1..100)
        .map(|i| {
            let writer = writer.clone();
            tokio::spawn(async move { writer.submit(create(i, 1, &format!("f{i}"))).await })
        })
        .collect();
    let queue = writer.queue.clone().expect("there until dropped");
    tokio::task::block_in_place(|| {
        while queue.capacity() > QUEUE - 99 {
            std::thread::yield_now()
        }
    });
    assert!(!first.is_finished() && rest.iter().all(|r| !r.is_finished()));
    drop(gate);
    first.await.expect("joins").expect("makes");
    for r in rest {
        r.await.expect("joins").expect("makes");
    }
    assert_eq!(host.commits.load(Ordering::SeqCst) - before, 2, "one for the first, one for all the others");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_commit_answers_everybody_with_the_error_and_ends_the_service() {
    let (store, host, writer) = start().await;
    store.broken.store(true, Ordering::SeqCst);
    assert_eq!(writer.submit(create(0, 1, "a")).await.expect_err("not durable").code, FsCode::Io);
    until(|| host.fatal.load(Ordering::SeqCst)).await;
    store.broken.store(false, Ordering::SeqCst);
    assert_eq!(writer.submit(create(1, 1, "b")).await.expect_err("never again").code, FsCode::Io);
    let view = store.snapshot();
    assert!(view.scan(Table::Dentries, &[], None, 9).expect("scans").is_empty());
}

#[tokio::test]
async fn a_command_that_fails_leaves_no_write_and_its_neighbours_alone() {
    let (store, _, writer) = start().await;
    let results = tokio::join!(
        writer.submit(create(0, 1, "a")),
        writer.submit(create(1, 1, "a")),
        writer.submit(create(2, 1, "b"))
    );
    results.0.expect("makes");
    assert_eq!(results.1.expect_err("taken").code, FsCode::Exists);
    results.2.expect("makes");
    let view = store.snapshot();
    assert_eq!(view.scan(Table::Replies, &SESSION.0, None, 9).expect("scans").len(), 2);
    assert!(namespace::check::check(&*view).expect("reads").is_empty());
}

#[tokio::test]
async fn fids_of_one_life_are_never_given_out_in_the_next() {
    let (store, host, writer) = start().await;
    let fid_of = |outcome| match outcome {
        Outcome::Reply { reply: sateen_types::op::MutationReply::Entry(e), .. } => e.attr.fid,
        other => panic!("{other:?}"),
    };
    let first = fid_of(writer.submit(create(0, 1, "a")).await.expect("makes"));
    let next_life = Writer::start("again", store.clone(), host).expect("starts");
    let second = fid_of(next_life.submit(create(0, 2, "b")).await.expect("makes"));
    assert_eq!((first.seq, first.oid), (Fid::SEQ_FIRST, 1));
    assert_eq!((second.seq, second.oid), (Fid::SEQ_FIRST + 1, 1));
}
