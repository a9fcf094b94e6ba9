//! Tasks on both stores: walks page by page, what is counted, and how they end.

use sateen_types::limits::{TASKS_KEPT_MAX, TASKS_PENDING_MAX};
use sateen_types::repository::{
    AutoRelease, ImportPage, ImportedObject, Skipped, Task, TaskId, TaskKind, TaskSpec, TaskState,
};
use sateen_types::{Extent, Fid, FsCode, FsResult, RepositoryId, RepositorySettings, Timestamp};

use super::bench::{Bench, code};
use super::on_every_store;
use crate::command::{Command, Outcome};
use crate::namespace::repository::tasks::{self, Settled, TaskChange, Told};
use crate::namespace::repository::{self, Answer, Change, oldest};
use crate::store::records::TaskPhase;
use crate::store::{Table, keys};

const SIZE: u64 = 10;

fn change(b: &mut Bench<'_>, change: Change) -> FsResult<Answer> {
    match b.run(Command::Repository(Box::new(change)))? {
        Outcome::Repository(answer) => Ok(answer),
        other => panic!("{other:?}"),
    }
}

fn step(b: &mut Bench<'_>, with: TaskChange) -> FsResult<Told> {
    match change(b, Change::Task(with))? {
        Answer::Task(told) => Ok(*told),
        other => panic!("{other:?}"),
    }
}

fn object(key: &str) -> ImportedObject {
    ImportedObject {
        key: key.as_bytes().to_vec(),
        size: SIZE,
        etag: "e".to_owned(),
        modified: Timestamp { seconds: 77, nanos: 0 },
        mode: None,
        uid: None,
        gid: None,
        atime: None,
        mtime: None,
        symlink: None,
    }
}

/// A link of `/data` with these objects.
fn linked(b: &mut Bench<'_>, keys: &[String]) -> RepositoryId {
    b.run(Command::AllocSequence).expect("the bench uses it");
    let mut settings = RepositorySettings::new("/data".parse().expect("path"), "s3://bucket/p".parse().expect("url"));
    settings.batch_import = true;
    let Answer::Link(link) = change(b, Change::Create { settings }).expect("links") else { panic!("no link") };
    change(b, Change::Checked { id: link.id, message: String::new(), with: None }).expect("checks");
    take(b, link.id, keys, &[], true);
    link.id
}

fn take(b: &mut Bench<'_>, id: RepositoryId, keys: &[String], skipped: &[&str], last: bool) {
    let mut keys = keys.to_vec();
    keys.sort();
    let objects: Vec<ImportedObject> = keys.iter().map(|key| object(key)).collect();
    let skipped: Vec<Skipped> = skipped
        .iter()
        .map(|key| Skipped {
            key: key.as_bytes().to_vec(),
            code: "S3ImportAccessDenied".to_owned(),
            message: "no".to_owned(),
        })
        .collect();
    let after = objects.last().map(|o| o.key.clone()).into_iter().chain(skipped.last().map(|s| s.key.clone())).max();
    let page = ImportPage {
        from: Vec::new(),
        objects,
        after: after.unwrap_or_default(),
        skipped,
        known: Vec::new(),
        last,
        stamp: 0,
    };
    let (run, looked) = (repository::get(&*b.view(), id).expect("there").run, b.look());
    change(b, Change::Import { id, run, page, looked }).expect("imports");
}

fn file(b: &Bench<'_>, path: &str) -> Fid {
    path.split('/').filter(|part| !part.is_empty()).fold(Fid::ROOT, |at, name| b.lookup(at, name).expect("there").fid)
}

fn load(b: &mut Bench<'_>, fid: Fid) {
    let range = Extent { start: 0, end: SIZE };
    change(b, Change::Prepare { fid, range }).expect("prepares");
    change(b, Change::Loaded { fid, etag: "e".to_owned(), range, allocated_delta: 4096 }).expect("loads");
}

fn start(b: &mut Bench<'_>, kind: TaskKind, paths: &[&str], report: bool) -> FsResult<Task> {
    let spec = TaskSpec {
        kind,
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        report: report.then(|| "/data/reports".parse().expect("path")),
        days: 0,
    };
    let told = step(b, TaskChange::Start { spec: spec.checked()? })?;
    Ok(*told.task.expect("a task"))
}

fn task(b: &Bench<'_>, id: TaskId) -> Task {
    tasks::get(&*b.view(), id).expect("there")
}

fn counts(b: &Bench<'_>, id: TaskId) -> (u64, u64, u64, u64) {
    let counts = task(b, id).counts;
    (counts.total, counts.succeeded, counts.failed, counts.skipped)
}

/// Pages until nothing is left to be looked at; how many.
fn walk(b: &mut Bench<'_>, id: TaskId) -> usize {
    let mut pages = 0;
    while tasks::left(&*b.view(), id).expect("reads").0 {
        step(b, TaskChange::Page { id }).expect("a page");
        pages += 1;
        assert!(pages < 100, "a walk without an end");
    }
    pages
}

fn close(b: &mut Bench<'_>, id: TaskId) -> TaskState {
    while !task(b, id).state.is_over() {
        step(b, TaskChange::Close { id }).expect("closes");
    }
    // Nothing is left of it but itself.
    let view = b.view();
    let rows = view.scan(Table::Tasks, &[], None, 100_000).expect("reads");
    let prefixes = [keys::tasks::todo(id), keys::tasks::under_way(id), keys::tasks::failures(id)];
    assert!(rows.iter().all(|(key, _)| prefixes.iter().all(|prefix| !key.starts_with(prefix))));
    task(b, id).state
}

fn many() -> Vec<String> {
    (0..700).map(|i| format!("d{}/e{}/f{i:04}", i % 3, i % 7)).collect()
}

#[test]
fn a_release_looks_at_every_file_once_page_by_page_and_lists_what_is_open() {
    on_every_store(|b| {
        linked(b, &many());
        let loaded: Vec<Fid> = (0..100).map(|i| file(b, &format!("data/d{}/e{}/f{i:04}", i % 3, i % 7))).collect();
        loaded.iter().for_each(|fid| load(b, *fid));
        b.create(Fid::ROOT, "stranger").expect("made");
        b.open = vec![loaded[5], loaded[50]];
        let id = start(b, TaskKind::Release, &["/"], true).expect("starts").id;
        assert_eq!(task(b, id).state, TaskState::Pending);
        step(b, TaskChange::Page { id }).expect("nothing yet");
        assert_eq!(counts(b, id), (0, 0, 0, 0), "one that waits does nothing");
        step(b, TaskChange::Begin { id }).expect("begins");
        assert!(walk(b, id) >= 3, "pages are bounded");
        assert_eq!(counts(b, id), (100, 98, 0, 601), "two are open, and may be closed");
        let mut tries = 0;
        while tasks::left(&*b.view(), id).expect("reads").1 > 0 {
            step(b, TaskChange::Retry { id }).expect("tries again");
            tries += 1;
        }
        assert!(tries > 5, "given up after {tries}");
        // Of 700 and one stranger 100 have something to give back, and two are open.
        assert_eq!(counts(b, id), (100, 98, 2, 601));
        step(b, TaskChange::Worked { id }).expect("its report is next");
        let rows = tasks::failures(&*b.view(), id, 0, 10).expect("reads");
        let mut paths: Vec<_> = rows.iter().map(|(_, row)| String::from_utf8_lossy(&row.path).into_owned()).collect();
        paths.sort();
        assert_eq!(paths, ["data/d2/e1/f0050", "data/d2/e5/f0005"]);
        assert!(rows.iter().all(|(_, row)| row.code == "ResourceBusy"));
        assert_eq!(tasks::failures(&*b.view(), id, rows[0].0, 10).expect("reads"), rows[1..]);
        step(b, TaskChange::Close { id }).expect("not yet");
        assert_eq!(task(b, id).state, TaskState::Executing, "its report is not written");
        step(b, TaskChange::Reported { id, message: String::new() }).expect("written");
        assert_eq!(close(b, id), TaskState::Failed);
        assert_eq!(b.attr(loaded[0]).size, SIZE);
    });
}

#[test]
fn a_restore_waits_for_those_who_load_and_a_canceled_one_leaves_the_rest() {
    on_every_store(|b| {
        linked(b, &["a/1".to_owned(), "a/2".to_owned(), "b".to_owned()]);
        let (one, two) = (file(b, "data/a/1"), file(b, "data/a/2"));
        let id = start(b, TaskKind::Restore, &["/data/a", "/data/a/1"], false).expect("starts").id;
        let next = start(b, TaskKind::Restore, &["/data/b"], false).expect("starts").id;
        assert!(id < next);
        step(b, TaskChange::Begin { id }).expect("begins");
        let told = step(b, TaskChange::Page { id }).expect("a page");
        assert_eq!(told.restores.len(), 2, "the second name of a file is none");
        walk(b, id);
        let look = |b: &Bench<'_>, fid| tasks::look(&*b.view(), TaskKind::Restore, fid).expect("reads");
        assert_eq!((look(b, one), look(b, two)), (None, None));
        load(b, one);
        assert_eq!(look(b, one), Some(Settled::Done(SIZE)));
        let settled = vec![(one, Settled::Done(SIZE))];
        step(b, TaskChange::Settle { id, settled: settled.clone() }).expect("counts");
        step(b, TaskChange::Settle { id, settled }).expect("once");
        assert_eq!((counts(b, id), task(b, id).counts.bytes), ((2, 1, 0, 0), SIZE));
        let current = |b: &Bench<'_>| tasks::current(&*b.view()).expect("reads").map(|(id, r)| (id, r.phase));
        assert_eq!(current(b), Some((id, TaskPhase::Working)));
        step(b, TaskChange::Cancel { id }).expect("cancels");
        step(b, TaskChange::Settle { id, settled: vec![(two, Settled::Done(1))] }).expect("too late");
        assert_eq!(close(b, id), TaskState::Canceled);
        assert_eq!(counts(b, id), (1, 1, 0, 1));
        assert_eq!(repository::restores(&*b.view(), 10).expect("reads").len(), 0, "nobody wants it any more");
        assert_eq!(code(step(b, TaskChange::Cancel { id })), FsCode::Invalid);
        assert_eq!(current(b).map(|(id, _)| id), Some(next));

        // One that is lost fails, and is not wanted any more.
        step(b, TaskChange::Begin { id: next }).expect("begins");
        walk(b, next);
        let gone = file(b, "data/b");
        change(b, Change::Lost { fid: gone, etag: "e".to_owned() }).expect("lost");
        change(b, Change::RestoreFailed { fid: gone }).expect("lost");
        let found = look(b, gone).expect("it has an end");
        assert_eq!(found, Settled::Failed("S3ObjectNotFound"));
        step(b, TaskChange::Settle { id: next, settled: vec![(gone, found)] }).expect("counts");
        step(b, TaskChange::Worked { id: next }).expect("no report");
        assert_eq!(close(b, next), TaskState::Failed);
        assert_eq!(task(b, next).message, "S3ObjectNotFound: data/b");
    });
}

#[test]
fn an_import_of_a_prefix_takes_nothing_else_and_ends_behind_it() {
    on_every_store(|b| {
        let link = linked(b, &[]);
        let id = start(b, TaskKind::Import, &["/data/a"], true).expect("starts").id;
        step(b, TaskChange::Begin { id }).expect("begins");
        assert!(step(b, TaskChange::Import { id }).expect("begins").link.is_some());
        assert!(step(b, TaskChange::Import { id }).expect("waits").wait);
        take(b, link, &["a-x/1", "a/1", "a/2"].map(str::to_owned), &["a/denied"], false);
        assert!(step(b, TaskChange::Import { id }).expect("waits").wait, "more may follow");
        take(b, link, &["a/e", "ab", "b"].map(str::to_owned), &["c"], false);
        assert!(!step(b, TaskChange::Import { id }).expect("is done").wait);
        assert_eq!(counts(b, id), (4, 3, 1, 0));
        assert_eq!(b.list(file(b, "data")), ["a"]);
        assert_eq!(b.list(file(b, "data/a")), ["1", "2", "e"]);
        let rows = tasks::failures(&*b.view(), id, 0, 10).expect("reads");
        assert_eq!((rows[0].1.path.as_slice(), rows[0].1.code.as_str()), (&b"data/a/denied"[..], "S3AccessDenied"));
        // Another import of the link is not limited.
        step(b, TaskChange::Cancel { id }).expect("cancels");
        close(b, id);
        change(b, Change::StartImport { id: link, sync: crate::store::records::Sync::No }).expect("starts");
        take(b, link, &["ab".to_owned(), "b".to_owned()], &[], true);
        assert_eq!(b.list(file(b, "data")), ["a", "ab", "b"]);
    });
}

#[test]
fn what_cannot_be_is_refused_or_fails_and_tasks_are_not_kept_for_ever() {
    on_every_store(|b| {
        assert_eq!(code(start(b, TaskKind::Release, &["/"], false)), FsCode::Invalid, "no link");
        linked(b, &[]);
        let bad = start(b, TaskKind::Release, &["/data", "/nowhere"], false).expect("starts").id;
        step(b, TaskChange::Begin { id: bad }).expect("fails");
        assert_eq!(task(b, bad).state, TaskState::Failed);
        assert!(task(b, bad).message.contains("/nowhere"));
        let outside = TaskSpec {
            kind: TaskKind::Release,
            paths: vec!["/".to_owned()],
            report: "/elsewhere".parse().ok(),
            days: 0,
        };
        assert_eq!(code(step(b, TaskChange::Start { spec: outside })), FsCode::Invalid);
        for _ in 0..TASKS_PENDING_MAX {
            start(b, TaskKind::Release, &["/"], false).expect("waits");
        }
        assert_eq!(code(start(b, TaskKind::Release, &["/"], false)), FsCode::Busy);
        let all = tasks::list(&*b.view()).expect("reads");
        assert!(all.windows(2).all(|two| two[0].id < two[1].id));
        for one in all.iter().filter(|one| !one.state.is_over()) {
            step(b, TaskChange::Cancel { id: one.id }).expect("cancels");
        }
        while tasks::list(&*b.view()).expect("reads").len() < TASKS_KEPT_MAX + 5 {
            let id = start(b, TaskKind::Release, &["/"], false).expect("waits").id;
            step(b, TaskChange::Cancel { id }).expect("cancels");
            if id.0 == 0 {
                break;
            }
            let over = tasks::all(&*b.view()).expect("reads").len();
            if over > TASKS_KEPT_MAX {
                break;
            }
        }
        step(b, TaskChange::Expire).expect("expires");
        assert_eq!(tasks::all(&*b.view()).expect("reads").len(), TASKS_KEPT_MAX);
        assert_eq!(code(tasks::get(&*b.view(), bad)), FsCode::NotFound, "the oldest goes first");
    });
}

#[test]
fn what_was_not_used_for_longest_is_released_first_by_itself() {
    on_every_store(|b| {
        linked(b, &["a", "b", "c", "d"].map(str::to_owned));
        let fids = ["a", "b", "c", "d"].map(|name| file(b, &format!("data/{name}")));
        // What is loaded is told apart by when it was read.
        for fid in [fids[2], fids[0], fids[1]] {
            load(b, fid);
            let now = b.now();
            b.setattr(&sateen_types::Credential::ROOT, fid, |op| op.atime = Some(sateen_types::op::SetTime::At(now)))
                .expect("sets");
        }
        let osts = b.osts.iter().map(|ost| ost.index).collect();
        let old = |b: &Bench<'_>, max| {
            let found = oldest(&*b.view(), &osts, max).expect("reads");
            found.into_iter().map(|one| one.fid).collect::<Vec<_>>()
        };
        assert_eq!(old(b, 10), [fids[2], fids[0], fids[1]], "and not what has nothing to give back");
        assert_eq!(old(b, 2), [fids[2], fids[0]]);
        assert!(oldest(&*b.view(), &Default::default(), 10).expect("reads").is_empty(), "on no OST that is full");
        assert_eq!(tasks::auto_release(&*b.view()), Ok(AutoRelease::OFF));
        step(b, TaskChange::SetAutoRelease(AutoRelease { high: 90, low: 80 })).expect("sets");
        assert_eq!(tasks::auto_release(&*b.view()), Ok(AutoRelease { high: 90, low: 80 }));
    });
}
