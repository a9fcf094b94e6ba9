//! What owners ask for single files: rules, removals, and taking back.

use super::super::super::tests::{CHUNK, outcome};
use sateen_types::repository::FetchResult;

use super::*;

const NONE: HsmFlags = HsmFlags(0);
const RULES: HsmFlags = HsmFlags::RULES;

async fn asks(fs: &Arc<FileSystem>, fid: Fid, operation: HsmOperation) -> Result<(), FsCode> {
    fs.hsm_request(CLIENT, Credential::ROOT, fid, operation).await.map_err(|e| e.code)
}

async fn sets(fs: &Arc<FileSystem>, fid: Fid, set: HsmFlags, clear: HsmFlags) -> Result<(), FsCode> {
    asks(fs, fid, HsmOperation::Flags { set, clear }).await
}

async fn action(fs: &FileSystem, fid: Fid) -> (HsmAction, bool) {
    let state = fs.hsm_state(CLIENT, fid).await.expect("known");
    (state.action, state.running)
}

/// A file that is in the repository as it is here.
async fn stored_file(fs: &Arc<FileSystem>, root: Fid, text: &str, number: u64) -> Fid {
    let file = created(fs, root, text, number).await;
    write(fs, file, number + 1).await;
    fs.close(CLIENT, &[(file, 0)], number).await.expect("closes");
    assert_eq!(action(fs, file).await, (HsmAction::Archive, false));
    let work = take(fs, WORKER, &[]).await;
    assert_eq!(action(fs, file).await, (HsmAction::Archive, true));
    fs.finish(WORKER, work.number, stored("e1")).await.expect("takes");
    assert_eq!(action(fs, file).await, (HsmAction::None, false));
    file
}

#[tokio::test]
async fn a_copy_is_removed_by_the_queue_and_only_if_it_is_the_known_one() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, id, root) = exporting(dir.path()).await;
    let file = stored_file(&fs, root, "n", 1).await;
    asks(&fs, file, HsmOperation::Remove).await.expect("notes");
    assert_eq!(flags(&fs, file).await, NONE);
    assert_eq!(action(&fs, file).await, (HsmAction::Remove, false));
    let work = take(&fs, WORKER, &[]).await;
    assert_eq!(work.work, Work::Delete { key: b"n".to_vec(), etag: "e1".to_owned(), earlier: Vec::new() });
    assert_eq!(action(&fs, file).await, (HsmAction::Remove, true));
    let gone = DeleteOutcome { result: DeleteResult::Deleted, message: String::new(), object: None };
    fs.finish(WORKER, work.number, Outcome::Delete(gone)).await.expect("takes");
    assert_eq!(action(&fs, file).await, (HsmAction::None, false));
    assert_eq!(asks(&fs, file, HsmOperation::Release).await, Err(FsCode::NoData), "it is nowhere else");
    assert_eq!(asks(&fs, file, HsmOperation::Remove).await, Err(FsCode::NoData));
    nothing_to_take(&fs, WORKER).await;
    // Somebody asks for it: it is new.
    asks(&fs, file, HsmOperation::Archive).await.expect("asks");
    let work = take(&fs, WORKER, &[]).await;
    assert_eq!(export(&work).known_etag, "");
    assert_eq!(asks(&fs, file, HsmOperation::Remove).await, Err(FsCode::NoData), "nothing is known of it");
    fs.finish(WORKER, work.number, stored("e2")).await.expect("takes");
    assert_eq!(queued(&fs, id).await, 0);
}

#[tokio::test]
async fn what_is_stored_anew_before_its_removal_stays() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, id, root) = exporting(dir.path()).await;
    let file = stored_file(&fs, root, "n", 1).await;
    asks(&fs, file, HsmOperation::Remove).await.expect("notes");
    write(&fs, file, 7).await;
    assert_eq!(action(&fs, file).await.0, HsmAction::Archive);
    assert_eq!(asks(&fs, file, HsmOperation::Remove).await, Err(FsCode::NoData));
    let work = take(&fs, WORKER, &[]).await;
    assert_eq!((export(&work).known_etag.as_str(), export(&work).may_be_gone), ("e1", true));
    fs.finish(WORKER, work.number, stored("e2")).await.expect("takes");
    nothing_to_take(&fs, WORKER).await;
    assert_eq!(queued(&fs, id).await, 0);
    // While it is under way it is not removed.
    write(&fs, file, 8).await;
    assert_eq!(asks(&fs, file, HsmOperation::Remove).await, Err(FsCode::Busy));
    let work = take(&fs, WORKER, &[]).await;
    assert_eq!(asks(&fs, file, HsmOperation::Remove).await, Err(FsCode::Busy));
    fs.finish(WORKER, work.number, stored("e3")).await.expect("takes");
    // Where removals are not carried over it is root's to remove objects.
    let update = RepositoryChange {
        auto_export: Some(RepositoryEvents { deleted: false, ..EVERY }),
        ..RepositoryChange::default()
    };
    fs.update_repository(id, update).await.expect("updates");
    ask(&fs, 9, Mutation::SetAttr(SetAttr { uid: Some(5), gid: Some(5), ..SetAttr::new(file) })).await;
    let work = take(&fs, WORKER, &[]).await;
    fs.finish(WORKER, work.number, stored("e4")).await.expect("takes");
    let owner = Credential { uid: 5, gid: 5, groups: Vec::new() };
    let refused = fs.hsm_request(CLIENT, owner, file, HsmOperation::Remove).await;
    assert_eq!(refused.expect_err("not the owner's").code, FsCode::NotPermitted);
    asks(&fs, file, HsmOperation::Remove).await.expect("root may");
}

#[tokio::test]
async fn a_file_that_is_never_to_be_archived_is_not_until_it_may_be() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, id, root) = exporting(dir.path()).await;
    let file = created(&fs, root, "n", 1).await;
    write(&fs, file, 2).await;
    sets(&fs, file, HsmFlags::NO_ARCHIVE, NONE).await.expect("decides");
    assert_eq!(flags(&fs, file).await, HsmFlags::NO_ARCHIVE);
    fs.close(CLIENT, &[(file, 0)], 1).await.expect("closes");
    nothing_to_take(&fs, WORKER).await;
    assert_eq!(queued(&fs, id).await, 0);
    assert_eq!(asks(&fs, file, HsmOperation::Archive).await, Err(FsCode::Invalid));
    fs.start_export(id, None).await.expect("starts");
    nothing_to_take(&fs, WORKER).await;
    assert_eq!(queued(&fs, id).await, 0);
    // It outlives the server, and goes with the file.
    let store = fs.store.clone();
    drop(fs);
    let fs = start(dir.path(), store);
    for session in [CLIENT, WORKER, OTHER] {
        fs.renew(session, Some(&[]), 0).await.expect("lives");
    }
    assert_eq!(flags(&fs, file).await, HsmFlags::NO_ARCHIVE);
    sets(&fs, file, NONE, HsmFlags::NO_ARCHIVE).await.expect("decides");
    let work = take(&fs, WORKER, &[]).await;
    assert!(!fs.confirm(WORKER, work.number).await.expect("its own"));
    sets(&fs, file, HsmFlags::NO_ARCHIVE, NONE).await.expect("decides");
    assert!(fs.confirm(WORKER, work.number).await.expect("its own"), "not to be put in place");
    let changed =
        ExportOutcome { result: ExportResult::Changed, message: String::new(), code: String::new(), object: None };
    fs.finish(WORKER, work.number, Outcome::Export(changed)).await.expect("takes");
    nothing_to_take(&fs, WORKER).await;
    assert_eq!(queued(&fs, id).await, 0);
    ask(&fs, 3, Mutation::Unlink { parent: root, name: name("n") }).await;
    let rows = fs.read(|tx| tx.scan(crate::store::Table::Repositories, crate::store::keys::RULES, None, 10)).await;
    assert_eq!(rows.expect("reads"), []);
}

#[tokio::test]
async fn a_file_that_is_never_to_be_released_keeps_its_bytes() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, _, root) = exporting(dir.path()).await;
    let file = stored_file(&fs, root, "n", 1).await;
    let owner = Credential { uid: 5, gid: 5, groups: Vec::new() };
    let set = HsmOperation::Flags { set: RULES, clear: NONE };
    let refused = fs.hsm_request(CLIENT, owner.clone(), file, set).await;
    assert_eq!(refused.expect_err("not the owner's").code, FsCode::NotPermitted);
    ask(&fs, 7, Mutation::SetAttr(SetAttr { uid: Some(5), gid: Some(5), ..SetAttr::new(file) })).await;
    fs.hsm_request(CLIENT, owner.clone(), file, set).await.expect("decides");
    let dirty = HsmOperation::Flags { set: HsmFlags::DIRTY, clear: NONE };
    assert_eq!(fs.hsm_request(CLIENT, owner, file, dirty).await.expect_err("root's").code, FsCode::NotPermitted);
    nothing_to_take(&fs, WORKER).await;
    assert_eq!(asks(&fs, file, HsmOperation::Release).await, Err(FsCode::Invalid));
    assert_eq!(flags(&fs, file).await.to_string(), "(0x00000039) exists archived never_release never_archive");
    sets(&fs, file, NONE, RULES).await.expect("decides");
    let work = take(&fs, WORKER, &[]).await;
    fs.finish(WORKER, work.number, stored("e2")).await.expect("takes");
    asks(&fs, file, HsmOperation::Release).await.expect("releases");
    assert_eq!(flags(&fs, file).await.to_string(), "(0x0000000d) released exists archived");
}

#[tokio::test]
async fn root_may_say_that_a_file_is_dirty_or_lost_and_nobody_that_it_is_not() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, _, root) = exporting(dir.path()).await;
    let file = stored_file(&fs, root, "n", 1).await;
    sets(&fs, file, HsmFlags::LOST, NONE).await.expect("says");
    assert_eq!(asks(&fs, file, HsmOperation::Release).await, Err(FsCode::Invalid));
    assert_eq!(sets(&fs, file, NONE, HsmFlags::LOST).await, Err(FsCode::Invalid));
    sets(&fs, file, HsmFlags::DIRTY, NONE).await.expect("says");
    assert_eq!(sets(&fs, file, NONE, HsmFlags::DIRTY).await, Err(FsCode::Invalid));
    for flag in [HsmFlags::EXISTS, HsmFlags::ARCHIVED] {
        assert_eq!(sets(&fs, file, NONE, flag).await, Err(FsCode::Invalid));
        sets(&fs, file, flag, NONE).await.expect("it is so");
    }
    // It is stored again, and is as it was.
    let work = take(&fs, WORKER, &[]).await;
    assert_eq!(export(&work).known_etag, "e1");
    fs.finish(WORKER, work.number, stored("e2")).await.expect("takes");
    assert_eq!(flags(&fs, file).await.to_string(), "(0x00000009) exists archived");
    let new = created(&fs, root, "m", 7).await;
    for flag in [HsmFlags::EXISTS, HsmFlags::ARCHIVED, HsmFlags::DIRTY, HsmFlags::LOST] {
        assert_eq!(sets(&fs, new, flag, NONE).await, Err(FsCode::Invalid), "{flag}");
        sets(&fs, new, NONE, flag).await.expect("it is so");
    }
    let outside = created(&fs, Fid::ROOT, "x", 8).await;
    sets(&fs, outside, HsmFlags::NO_RELEASE, NONE).await.expect("wherever it is");
    assert_eq!(flags(&fs, outside).await, HsmFlags::NO_RELEASE);
    assert_eq!(sets(&fs, root, HsmFlags::NO_RELEASE, NONE).await, Err(FsCode::Invalid), "no file");
}

#[tokio::test]
async fn what_waits_is_taken_back() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, id, root) = with_a_link(dir.path()).await;
    let known = imported(&fs, root, CHUNK).await;
    asks(&fs, known, HsmOperation::Restore).await.expect("asks");
    assert_eq!(action(&fs, known).await, (HsmAction::Restore, false));
    asks(&fs, known, HsmOperation::Cancel).await.expect("takes back");
    assert_eq!(action(&fs, known).await, (HsmAction::None, false));
    nothing_to_take(&fs, WORKER).await;
    // What a worker has is done.
    asks(&fs, known, HsmOperation::Restore).await.expect("asks");
    let work = take(&fs, WORKER, &[]).await;
    asks(&fs, known, HsmOperation::Cancel).await.expect("takes back");
    fs.finish(WORKER, work.number, outcome(FetchResult::Loaded)).await.expect("takes");
    assert_eq!(flags(&fs, known).await.to_string(), "(0x00000009) exists archived");
    // An export that only somebody has asked for.
    let file = created(&fs, root, "n", 1).await;
    write(&fs, file, 2).await;
    asks(&fs, file, HsmOperation::Archive).await.expect("asks");
    let other = Credential { uid: 5, gid: 5, groups: Vec::new() };
    let refused = fs.hsm_request(CLIENT, other, file, HsmOperation::Cancel).await;
    assert_eq!(refused.expect_err("not the owner's").code, FsCode::NotPermitted);
    asks(&fs, file, HsmOperation::Cancel).await.expect("takes back");
    fs.close(CLIENT, &[(file, 0)], 1).await.expect("closes");
    nothing_to_take(&fs, WORKER).await;
    assert_eq!(queued(&fs, id).await, 0);
    asks(&fs, file, HsmOperation::Cancel).await.expect("there is nothing");
}
