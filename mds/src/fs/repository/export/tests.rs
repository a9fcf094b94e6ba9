//! Whole lives of files that go to a repository: opened, written, closed, given out, overtaken, reported, and not reported.

mod hsm;
mod late;

use std::sync::Arc;
use std::time::Duration;

use sateen_types::op::{Access, Create, Mutation, MutationReply, SetAttr, WriteDone};
use sateen_types::repository::{
    Assignment, DeleteOutcome, DeleteResult, Export, ExportOutcome, ExportResult, Found, HsmAction, HsmOperation,
    LookOutcome, Outcome, RepositoryEvents, RepositoryState, Work,
};
use sateen_types::{Credential, Fid, FsCode, HsmFlags, Name, RepositoryId, SessionId, Timestamp};

use super::super::tests::{CLIENT, MANY, OTHER, WORKER, imported, nothing_to_take, start, take, with_a_link};
use crate::command::Request;
use crate::fs::FileSystem;
use sateen_types::repository::RepositoryChange;

const EVERY: RepositoryEvents = RepositoryEvents { created: true, changed: true, deleted: true };

async fn exporting(dir: &std::path::Path) -> (Arc<FileSystem>, RepositoryId, Fid) {
    let (fs, id, root) = with_a_link(dir).await;
    imported(&fs, root, 0).await;
    let update = RepositoryChange { auto_export: Some(EVERY), ..RepositoryChange::default() };
    let link = fs.update_repository(id, update).await.expect("updates");
    assert_eq!(link.state, RepositoryState::Updating, "whether anything can be written there is not known");
    let check = take(&fs, WORKER, &[]).await;
    assert_eq!(check.work, Work::Check);
    fs.finish(WORKER, check.number, Outcome::Check { message: String::new() }).await.expect("takes");
    (fs, id, root)
}

async fn ask(fs: &Arc<FileSystem>, number: u64, op: Mutation) -> MutationReply {
    let request = Request {
        session: CLIENT,
        slot: 0,
        number,
        credential: Credential::ROOT,
        op,
        hold: false,
        open: 0,
        logged: None,
    };
    fs.execute(request).await.expect("changes").0
}

fn name(text: &str) -> Name {
    Name::parse(text.as_bytes()).expect("valid")
}

/// A new file that the client has open for writing.
async fn created(fs: &Arc<FileSystem>, parent: Fid, text: &str, number: u64) -> Fid {
    let open = Some(Access { read: true, write: true, exec: false });
    let op = Create { parent, name: name(text), mode: 0o644.into(), exclusive: true, open, layout: None };
    match ask(fs, number, Mutation::Create(op)).await {
        MutationReply::Entry(entry) => entry.attr.fid,
        other => panic!("{other:?}"),
    }
}

async fn write(fs: &Arc<FileSystem>, fid: Fid, number: u64) {
    let mtime = Some(Timestamp::now());
    let op = WriteDone { fid, end: 100, mtime, allocated_delta: 4096, clear_suid: false };
    ask(fs, number, Mutation::WriteDone(op)).await;
}

fn export(assignment: &Assignment) -> &Export {
    match &assignment.work {
        Work::Export(export) => export,
        other => panic!("{other:?}"),
    }
}

fn stored(etag: &str) -> Outcome {
    let object = Some(Found { size: 100, etag: etag.to_owned(), modified: Timestamp::default() });
    Outcome::Export(ExportOutcome { result: ExportResult::Stored, message: String::new(), code: String::new(), object })
}

/// What a worker sees under a key: an object, and the assignment that stored it.
fn seen(object: Option<(&str, u64)>) -> Outcome {
    let found = |etag: &str| Found { size: 100, etag: etag.to_owned(), modified: Timestamp::default() };
    let (object, number) = (object.map(|(etag, _)| found(etag)), object.map(|(_, number)| number));
    Outcome::Look(LookOutcome { object, number, message: String::new() })
}

async fn queued(fs: &FileSystem, id: RepositoryId) -> u64 {
    fs.repository(id).await.expect("there").export.queued
}

async fn flags(fs: &FileSystem, fid: Fid) -> HsmFlags {
    fs.hsm_state(CLIENT, fid).await.expect("known").flags
}

#[tokio::test]
async fn a_file_is_exported_when_it_is_closed_and_again_when_that_was_overtaken() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, id, root) = exporting(dir.path()).await;
    let file = created(&fs, root, "n", 1).await;
    write(&fs, file, 2).await;
    nothing_to_take(&fs, WORKER).await;
    assert_eq!(queued(&fs, id).await, 1);
    assert_eq!(fs.hsm_state(CLIENT, file).await.expect("below a link").action, HsmAction::Archive);
    fs.close(CLIENT, &[(file, 0)], 1).await.expect("closes");
    let work = take(&fs, WORKER, &[]).await;
    let first = export(&work).clone();
    assert_eq!((first.key.as_slice(), first.size, first.mode), (&b"n"[..], 100, 0o100_644));
    assert_eq!((first.known_etag.as_str(), first.copy.is_some(), first.earlier.len()), ("", false, 0));
    assert!(!fs.confirm(WORKER, work.number).await.expect("its own"));
    assert_eq!(fs.confirm(OTHER, work.number).await.expect_err("another's").code, FsCode::Stale);
    assert_eq!(fs.take_next(OTHER, MANY, &[], Duration::ZERO).await.expect("takes"), [], "one at a time");
    // Somebody opens it before it is in place, and writes nothing.
    fs.open(CLIENT, Credential::ROOT, (file, 0), Access { read: true, write: true, exec: false }).await.expect("opens");
    assert!(fs.confirm(WORKER, work.number).await.expect("its own"));
    let changed =
        ExportOutcome { result: ExportResult::Changed, message: String::new(), code: String::new(), object: None };
    fs.finish(WORKER, work.number, Outcome::Export(changed)).await.expect("takes");
    nothing_to_take(&fs, WORKER).await;
    fs.close(CLIENT, &[(file, 0)], 2).await.expect("closes");
    let work = take(&fs, WORKER, &[]).await;
    assert!(export(&work).earlier.is_empty(), "nothing was put in place");
    // It changes after the last question: the object is known, and the file goes again.
    write(&fs, file, 3).await;
    fs.finish(WORKER, work.number, stored("e1")).await.expect("takes");
    assert!(flags(&fs, file).await.has(HsmFlags::DIRTY));
    let work = take(&fs, WORKER, &[]).await;
    assert_eq!(export(&work).known_etag, "e1");
    fs.finish(WORKER, work.number, stored("e2")).await.expect("takes");
    fs.finish(WORKER, work.number, stored("e2")).await.expect("takes it twice");
    assert_eq!(flags(&fs, file).await.to_string(), "(0x00000009) exists archived");
    let status = fs.repository(id).await.expect("there").export;
    assert_eq!((status.queued, status.stored, status.bytes), (0, 2, 200));
    nothing_to_take(&fs, WORKER).await;
}

#[tokio::test]
async fn attributes_and_names_go_by_copy_and_old_objects_go_after_that() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, id, root) = exporting(dir.path()).await;
    let file = created(&fs, root, "n", 1).await;
    write(&fs, file, 2).await;
    fs.close(CLIENT, &[(file, 0)], 1).await.expect("closes");
    let work = take(&fs, WORKER, &[]).await;
    fs.finish(WORKER, work.number, stored("e1")).await.expect("takes");
    ask(&fs, 3, Mutation::SetAttr(SetAttr { mode: Some(0o600), ..SetAttr::new(file) })).await;
    let work = take(&fs, WORKER, &[]).await;
    let copy = export(&work).copy.clone().expect("its data is there");
    assert_eq!((copy.key.as_slice(), copy.etag.as_str(), export(&work).mode), (&b"n"[..], "e1", 0o100_600));
    fs.finish(WORKER, work.number, stored("e2")).await.expect("takes");
    let mode = sateen_types::op::RenameMode::Replace;
    let op = Mutation::Rename { parent: root, name: name("n"), new_parent: root, new_name: name("m"), mode };
    ask(&fs, 4, op).await;
    let work = take(&fs, WORKER, &[]).await;
    assert_eq!(export(&work).copy.clone().expect("its data is there").etag, "e2");
    assert_eq!((export(&work).key.as_slice(), export(&work).known_etag.as_str()), (&b"m"[..], ""));
    // The worker is gone before it says what became of it.
    fs.close_session(WORKER).await.expect("ends");
    let look = take(&fs, OTHER, &[]).await;
    assert_eq!(look.work, Work::Look { key: b"m".to_vec() }, "it may have been stored");
    fs.finish(OTHER, look.number, seen(None)).await.expect("takes");
    let again = take(&fs, OTHER, &[]).await;
    assert_eq!(export(&again).earlier, [work.number]);
    fs.finish(OTHER, again.number, stored("e3")).await.expect("takes");
    let deletion = take(&fs, OTHER, &[]).await;
    let expected = Work::Delete { key: b"n".to_vec(), etag: "e2".to_owned(), earlier: Vec::new() };
    assert_eq!(deletion.work, expected);
    let gone = DeleteOutcome { result: DeleteResult::Deleted, message: String::new(), object: None };
    fs.finish(OTHER, deletion.number, Outcome::Delete(gone)).await.expect("takes");
    let status = fs.repository(id).await.expect("there").export;
    assert_eq!((status.queued, status.stored, status.deleted), (0, 3, 1));
}

#[tokio::test]
async fn a_restarted_server_knows_what_waits_and_what_may_have_been_stored() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, id, root) = exporting(dir.path()).await;
    let file = created(&fs, root, "n", 1).await;
    write(&fs, file, 2).await;
    fs.close(CLIENT, &[(file, 0)], 1).await.expect("closes");
    let work = take(&fs, WORKER, &[]).await;
    let store = fs.store.clone();
    drop(fs);
    let fs = start(dir.path(), store);
    assert_eq!(
        fs.take_next(WORKER, MANY, &[], Duration::ZERO).await.expect("takes"),
        [],
        "who has it open is not known"
    );
    for session in [CLIENT, WORKER, OTHER] {
        fs.renew(session, Some(&[]), 0).await.expect("lives");
    }
    assert_eq!(fs.finish(WORKER, work.number, stored("e1")).await.expect_err("of before").code, FsCode::Stale);
    let look = take(&fs, WORKER, &[]).await;
    assert_eq!(look.work, Work::Look { key: b"n".to_vec() });
    let refused = fs.hsm_request(CLIENT, Credential::ROOT, file, HsmOperation::Release).await;
    assert_eq!(refused.expect_err("nothing is known of it").code, FsCode::NoData);
    // It was stored: that is as good as its report.
    fs.finish(WORKER, look.number, seen(Some(("e1", work.number)))).await.expect("takes");
    nothing_to_take(&fs, WORKER).await;
    assert_eq!(flags(&fs, file).await.to_string(), "(0x00000009) exists archived");
    assert_eq!(queued(&fs, id).await, 0);
    ask(&fs, 3, Mutation::SetAttr(SetAttr { mode: Some(0o600), ..SetAttr::new(file) })).await;
    assert_eq!(fs.delete_repository(id, false).await.expect_err("something waits").code, FsCode::Busy);
    fs.delete_repository(id, true).await.expect("ends");
    let rows = fs.read(|tx| tx.scan(crate::store::Table::Exports, &[], None, 10)).await.expect("reads");
    assert_eq!(rows, []);
}

#[tokio::test]
async fn what_both_sides_changed_waits_for_a_decision() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, id, root) = exporting(dir.path()).await;
    let file = created(&fs, root, "n", 1).await;
    write(&fs, file, 2).await;
    fs.close(CLIENT, &[(file, 0)], 1).await.expect("closes");
    let work = take(&fs, WORKER, &[]).await;
    let found = Found { size: 7, etag: "theirs".to_owned(), modified: Timestamp::default() };
    let conflict = ExportOutcome {
        result: ExportResult::Conflict,
        message: String::new(),
        code: String::new(),
        object: Some(found.clone()),
    };
    fs.finish(WORKER, work.number, Outcome::Export(conflict)).await.expect("takes");
    nothing_to_take(&fs, WORKER).await;
    let (conflicts, more) = fs.conflicts(id, Vec::new(), 10).await.expect("lists");
    assert_eq!((conflicts.len(), more), (1, false));
    assert_eq!((conflicts[0].fid, &conflicts[0].object), (Some(file), &Some(found)));
    assert_eq!(fs.repository(id).await.expect("there").conflicts, 1);
    let how = sateen_types::repository::ConflictPolicy::FilesystemWins;
    let none = fs.resolve_conflict(id, b"other".to_vec(), how).await;
    assert_eq!(none.expect_err("there is none").code, FsCode::NotFound);
    fs.resolve_conflict(id, b"n".to_vec(), how).await.expect("decides");
    let work = take(&fs, WORKER, &[]).await;
    assert_eq!(export(&work).overrule_etag, "theirs");
    fs.finish(WORKER, work.number, stored("ours")).await.expect("takes");
    assert_eq!(fs.conflicts(id, Vec::new(), 10).await.expect("lists").0, []);
    nothing_to_take(&fs, WORKER).await;
}

#[tokio::test]
async fn everything_below_a_path_is_exported_when_somebody_asks() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, id, root) = with_a_link(dir.path()).await;
    let known = imported(&fs, root, 100).await;
    let file = created(&fs, root, "n", 1).await;
    write(&fs, file, 2).await;
    fs.close(CLIENT, &[(file, 0)], 1).await.expect("closes");
    nothing_to_take(&fs, WORKER).await;
    let outside = fs.start_export(id, Some("/e".parse().expect("valid"))).await;
    assert_eq!(outside.expect_err("is not there").code, FsCode::NotFound);
    fs.start_export(id, Some("/d".parse().expect("valid"))).await.expect("starts");
    let work = take(&fs, WORKER, &[]).await;
    assert_eq!((export(&work).fid, export(&work).key.as_slice()), (file, &b"n"[..]), "the other one is there");
    fs.finish(WORKER, work.number, stored("e1")).await.expect("takes");
    nothing_to_take(&fs, WORKER).await;
    // A file alone, whatever the policy.
    ask(&fs, 3, Mutation::SetAttr(SetAttr { mode: Some(0o600), ..SetAttr::new(known) })).await;
    fs.hsm_request(CLIENT, Credential::ROOT, known, HsmOperation::Archive).await.expect("asks");
    let work = take(&fs, WORKER, &[]).await;
    assert_eq!(export(&work).key, b"f");
    fs.finish(WORKER, work.number, stored("e2")).await.expect("takes");
    nothing_to_take(&fs, SessionId(WORKER.0)).await;
    let elsewhere = created(&fs, Fid::ROOT, "x", 4).await;
    let refused = fs.hsm_request(CLIENT, Credential::ROOT, elsewhere, HsmOperation::Archive).await;
    assert_eq!(refused.expect_err("below no link").code, FsCode::Invalid);
}

/// A pipe, which no bucket can have.
async fn pipe(fs: &Arc<FileSystem>, parent: Fid, text: &str, number: u64) -> Fid {
    let op = Mutation::Mknod {
        parent,
        name: name(text),
        mode: 0o644.into(),
        file_type: sateen_types::FileType::Fifo,
        rdev: 0,
    };
    match ask(fs, number, op).await {
        MutationReply::Entry(entry) => entry.attr.fid,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_cannot_be_exported_is_known_after_a_restart_and_until_everything_is_looked_at_again() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, id, root) = exporting(dir.path()).await;
    let first = pipe(&fs, root, "p1", 1).await;
    pipe(&fs, root, "p2", 2).await;
    nothing_to_take(&fs, WORKER).await;
    // One that changes is listed once.
    ask(&fs, 3, Mutation::SetAttr(SetAttr { mode: Some(0o600), ..SetAttr::new(first) })).await;
    nothing_to_take(&fs, WORKER).await;
    let listed = |export: &sateen_types::repository::ExportStatus| {
        let keys = export.first_skipped.iter().map(|one| String::from_utf8_lossy(&one.key).into_owned());
        (export.queued, export.skipped, keys.collect::<Vec<_>>())
    };
    let two = (0, 2, vec!["p1".to_owned(), "p2".to_owned()]);
    assert_eq!(listed(&fs.repository(id).await.expect("there").export), two);
    let store = fs.store.clone();
    drop(fs);
    let fs = start(dir.path(), store);
    for session in [CLIENT, WORKER, OTHER] {
        fs.renew(session, Some(&[]), 0).await.expect("lives");
    }
    assert_eq!(listed(&fs.repository(id).await.expect("there").export), two);
    ask(&fs, 4, Mutation::Unlink { parent: root, name: name("p1") }).await;
    nothing_to_take(&fs, WORKER).await;
    assert_eq!(listed(&fs.repository(id).await.expect("there").export), two, "nobody has looked again");
    fs.start_export(id, Some("/d/p2".parse().expect("valid"))).await.expect("starts");
    nothing_to_take(&fs, WORKER).await;
    assert_eq!(listed(&fs.repository(id).await.expect("there").export), two, "that was not all of the link");
    let begun = fs.start_export(id, Some("/d".parse().expect("valid"))).await.expect("starts").export;
    assert_eq!((begun.skipped, begun.first_skipped.len()), (0, 0));
    nothing_to_take(&fs, WORKER).await;
    assert_eq!(listed(&fs.repository(id).await.expect("there").export), (0, 1, vec!["p2".to_owned()]));
    fs.delete_repository(id, true).await.expect("ends");
    let rows = fs.read(|tx| tx.scan(crate::store::Table::Exports, &[], None, 10)).await.expect("reads");
    assert_eq!(rows, []);
}
