//! Tasks at all stages, of which a row was damaged: that is found, or does no harm; it is repaired; and afterwards every task has an end.

use proptest::prelude::*;
use proptest::sample::Index;
use sateen_types::repository::{ImportPage, ImportState, ImportedObject, TaskId, TaskKind, TaskSpec, TaskState};
use sateen_types::{Fid, RepositoryId, RepositorySettings};

use super::damage::{Damage, damage, hurt};
use super::*;
use crate::command::Outcome;
use crate::namespace::check::check as oracle;
use crate::namespace::repository::tasks::{self, Settled, TaskChange};
use crate::namespace::repository::{self, Answer, Change as Told};
use crate::store::codec::Record;
use crate::store::keys::tasks as task_keys;
use crate::store::records::{TaskPhase, TaskRecord, TodoRecord};
use crate::store::{MemStore, keys};

/// More than a task looks at together, so that it stops within a directory.
const FILES: usize = 270;
/// Steps until every task has an end.
const STEPS_MAX: usize = 2000;

fn told(b: &mut Bench<'_>, change: Told) -> Answer {
    match b.run(Command::Repository(Box::new(change))).expect("changes") {
        Outcome::Repository(answer) => answer,
        other => panic!("{other:?}"),
    }
}

fn step(b: &mut Bench<'_>, change: TaskChange) -> tasks::Told {
    match told(b, Told::Task(change)) {
        Answer::Task(told) => *told,
        other => panic!("{other:?}"),
    }
}

fn object(key: String) -> ImportedObject {
    ImportedObject {
        key: key.into_bytes(),
        size: 10,
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

fn import(b: &mut Bench<'_>, id: RepositoryId, objects: Vec<ImportedObject>) {
    let (run, looked) = (repository::get(&*b.view(), id).expect("there").run, b.look());
    let after = objects.last().map(|o| o.key.clone()).unwrap_or_default();
    let page =
        ImportPage { from: Vec::new(), objects, after, skipped: Vec::new(), known: Vec::new(), last: true, stamp: 0 };
    told(b, Told::Import { id, run, page, looked });
}

fn linked(b: &mut Bench<'_>) -> RepositoryId {
    let mut settings = RepositorySettings::new("/data".parse().expect("path"), "s3://bucket/p".parse().expect("url"));
    settings.batch_import = true;
    let Answer::Link(link) = told(b, Told::Create { settings }) else { panic!("no link") };
    told(b, Told::Checked { id: link.id, message: String::new(), with: None });
    import(b, link.id, (0..FILES).map(|i| object(format!("d/f{i:04}"))).collect());
    link.id
}

fn start(b: &mut Bench<'_>, kind: TaskKind, report: bool) -> TaskId {
    let paths = vec!["/data".to_owned()];
    let report = report.then(|| "/data/reports".parse().expect("path"));
    let spec = TaskSpec { kind, paths, report, days: 0 };
    step(b, TaskChange::Start { spec }).task.expect("a task").id
}

/// The next step, as the server takes it.
fn go_on(b: &mut Bench<'_>, link: RepositoryId) -> bool {
    let Some((id, record)) = tasks::current(&*b.view()).expect("reads") else { return false };
    let change = match (record.state, record.phase) {
        (TaskState::Pending, _) => TaskChange::Begin { id },
        (TaskState::Canceling, _) | (TaskState::Executing, TaskPhase::Closing) => TaskChange::Close { id },
        (TaskState::Executing, TaskPhase::Reporting) => {
            assert!(record.report.is_some(), "a report without a place is never written");
            TaskChange::Reported { id, message: String::new() }
        }
        _ if record.kind == TaskKind::Import => {
            if step(b, TaskChange::Import { id }).wait {
                let state = repository::get(&*b.view(), link).expect("there").import.state;
                if matches!(state, ImportState::Queued | ImportState::Running) {
                    import(b, link, vec![object("d/f0000".to_owned()), object("e".to_owned())]);
                }
                return true;
            }
            if tasks::left(&*b.view(), id).expect("reads").0 {
                return true;
            }
            TaskChange::Worked { id }
        }
        _ => match tasks::left(&*b.view(), id).expect("reads") {
            (true, _) => TaskChange::Page { id },
            (false, 0) => TaskChange::Worked { id },
            (false, _) if record.kind == TaskKind::Release => TaskChange::Retry { id },
            (false, _) => {
                let files = tasks::under_way(&*b.view(), id).expect("reads");
                let settled = files.into_iter().map(|(fid, _)| (fid, Settled::Failed("S3Error"))).collect();
                TaskChange::Settle { id, settled }
            }
        },
    };
    step(b, change);
    true
}

/// Tasks that are over, one that goes on, and some that wait.
fn tasks_at_work(b: &mut Bench<'_>, link: RepositoryId, kinds: &[(u8, bool)], steps: usize) {
    for (kind, report) in kinds {
        let kind = [TaskKind::Import, TaskKind::Export, TaskKind::Restore, TaskKind::Release][usize::from(kind % 4)];
        start(b, kind, *report);
    }
    for _ in 0..steps {
        go_on(b, link);
    }
}

fn run(kinds: &[(u8, bool)], steps: usize, row: &Index, damage: &Damage) -> Result<(), TestCaseError> {
    let store = MemStore::default();
    let mut b = bench(&store);
    let link = linked(&mut b);
    tasks_at_work(&mut b, link, kinds, steps);
    prop_assert_eq!(findings(&store, false), []);
    let before = dump(&store);
    let rows: Vec<_> = before.iter().filter(|((table, _), _)| *table == Table::Tasks).collect();
    let ((table, key), value) = *row.get(&rows);
    hurt(&store, (*table, key, value), damage);
    let found = findings(&store, false);
    let wrong = oracle(&*store.snapshot());
    if !wrong.as_ref().is_ok_and(Vec::is_empty) {
        prop_assert!(!found.is_empty(), "not found: {:?}", wrong);
    }
    // What is corrected may be of a task that goes in the end.
    let mut repaired = Vec::new();
    for _ in 0..2 {
        repaired.push(findings(&store, true));
    }
    prop_assert!(repaired.iter().flatten().all(|f| f.repair == Repair::Done), "{:#?}", repaired);
    prop_assert_eq!(findings(&store, false), [], "after {:#?}", repaired);
    let wrong = oracle(&*store.snapshot()).map_err(|e| TestCaseError::fail(e.to_string()))?;
    prop_assert_eq!(wrong, Vec::<String>::new(), "after {:#?}", repaired);
    let other: Dump = dump(&store).into_iter().filter(|((table, _), _)| *table != Table::Tasks).collect();
    let untouched: Dump =
        before.iter().filter(|((t, _), _)| *t != Table::Tasks).map(|(k, v)| (k.clone(), v.clone())).collect();
    prop_assert_eq!(other, untouched, "only tasks are repaired");
    for _ in 0..STEPS_MAX {
        if !go_on(&mut b, link) {
            return Ok(());
        }
    }
    Err(TestCaseError::fail(format!("no end: {:?}", tasks::list(&*b.view()))))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
    #[test]
    fn a_damaged_row_of_a_task_is_found_and_repaired_and_every_task_has_an_end(
        kinds in proptest::collection::vec((any::<u8>(), any::<bool>()), 1..5), steps in 0usize..12,
        row in any::<Index>(), damage in damage(),
    ) {
        run(&kinds, steps, &row, &damage)?;
    }
}

/// Tasks with a row that was put there.
fn with_row(key: &[u8], value: &[u8], wanted: &str) {
    let store = MemStore::default();
    let mut b = bench(&store);
    let link = linked(&mut b);
    tasks_at_work(&mut b, link, &[(2, true)], 2);
    set(&store, &[(Table::Tasks, key, Some(value))]);
    let found = findings(&store, true);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].what.contains(wanted) && found[0].repair == Repair::Done, "{found:#?}");
    assert_eq!(findings(&store, false), []);
}

/// The task of [`with_row`].
fn its_id() -> TaskId {
    let store = MemStore::default();
    let mut b = bench(&store);
    let link = linked(&mut b);
    tasks_at_work(&mut b, link, &[(2, true)], 2);
    tasks::all(&*b.view()).expect("reads")[0].0
}

#[test]
fn what_is_wrong_with_tasks_is_named() {
    let id = its_id();
    let todo = |number: u64| task_keys::todo_item(id, number);
    with_row(&todo(5000), &TodoRecord::File(Fid::ROOT).to_bytes(), "there is 5000");
    with_row(&todo(0), &TodoRecord::File(Fid::ROOT).to_bytes(), "nothing of a task");
    with_row(&todo(1), b"\x01\x09", "nothing of a task");
    let far = TodoRecord::Directory { dir: Fid::ROOT, after: 1 << 40 };
    with_row(&todo(1), &far.to_bytes(), "which has given out nothing from");
    let strange = TodoRecord::Import { link: RepositoryId(1), prefix: Vec::new(), whole: true, run: 0 };
    with_row(&todo(1), &strange.to_bytes(), "something to import");
    with_row(&task_keys::todo_item(TaskId(7), 1), &far.to_bytes(), "which does not exist");
    with_row(b"x", b"", "nothing of a task");
    with_row(task_keys::AUTO_RELEASE, b"\x01", "nothing of a task");
    let scope = crate::store::records::ScopeRecord { task: id, run: 1, prefix: Vec::new(), whole: true };
    with_row(&task_keys::scope(RepositoryId(1)), &scope.to_bytes(), "which does not import it");
    with_row(&task_keys::scope(RepositoryId(99)), &scope.to_bytes(), "there is no such link");
}

#[test]
fn a_task_that_could_not_go_on_does() {
    let store = MemStore::default();
    let mut b = bench(&store);
    let link = linked(&mut b);
    tasks_at_work(&mut b, link, &[(2, false), (3, false)], 1);
    let (id, record) = tasks::current(&*b.view()).expect("reads").expect("goes on");
    let stuck = TaskRecord { phase: TaskPhase::Reporting, ..record };
    set(&store, &[(Table::Tasks, &keys::tasks::task(id), Some(&stuck.to_bytes()))]);
    let found = findings(&store, true);
    assert!(found.len() == 1 && found[0].what.contains("has no place"), "{found:#?}");
    while go_on(&mut b, link) {}
    assert!(tasks::list(&*b.view()).expect("reads").iter().all(|task| task.state.is_over()));
}
