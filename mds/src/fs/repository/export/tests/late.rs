//! What is heard late, or never, of objects that were stored, and of objects that are lost.

use super::super::super::tests::{CHUNK, nothing_to_take, outcome};
use sateen_types::op::RenameMode;
use sateen_types::repository::FetchResult;

use super::*;

const WRITE: Access = Access { read: true, write: true, exec: false };

/// A new file whose export a worker has, which is going to die.
async fn given(fs: &Arc<FileSystem>, root: Fid) -> (Fid, u64) {
    let file = created(fs, root, "n", 1).await;
    write(fs, file, 2).await;
    fs.close(CLIENT, &[(file, 0)], 1).await.expect("closes");
    let work = take(fs, WORKER, &[]).await;
    assert_eq!(export(&work).fid, file);
    (file, work.number)
}

async fn end(fs: &Arc<FileSystem>, session: SessionId) {
    fs.begin_ending_of(session).expect("lives");
    fs.close_session(session).await.expect("ends");
}

#[tokio::test]
async fn what_a_client_left_that_died_is_changed_whatever_is_heard_late_of_an_object() {
    for client_first in [true, false] {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (fs, _, root) = exporting(dir.path()).await;
        let (file, number) = given(&fs, root).await;
        // The object is in place. Then somebody writes, and both die before anybody hears of either.
        fs.open(CLIENT, Credential::ROOT, (file, 0), WRITE).await.expect("opens");
        let dead = if client_first { [CLIENT, WORKER] } else { [WORKER, CLIENT] };
        for session in dead {
            end(&fs, session).await;
        }
        let look = take(&fs, OTHER, &[]).await;
        assert_eq!(look.work, Work::Look { key: b"n".to_vec() });
        fs.finish(OTHER, look.number, seen(Some(("e1", number)))).await.expect("takes");
        let state = fs.hsm_state(OTHER, file).await.expect("known");
        assert!(state.flags.has(HsmFlags::DIRTY), "{}", state.flags);
        let again = take(&fs, OTHER, &[]).await;
        assert_eq!((export(&again).fid, export(&again).known_etag.as_str()), (file, "e1"));
    }
}

#[tokio::test]
async fn an_object_of_another_size_is_replaced_and_not_believed() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, _, root) = exporting(dir.path()).await;
    let (file, number) = given(&fs, root).await;
    end(&fs, WORKER).await;
    let look = take(&fs, OTHER, &[]).await;
    let object = Some(Found { size: 50, etag: "e1".to_owned(), modified: Timestamp::default() });
    let torn = Outcome::Look(LookOutcome { object, number: Some(number), message: String::new() });
    fs.finish(OTHER, look.number, torn).await.expect("takes");
    assert!(!flags(&fs, file).await.has(HsmFlags::ARCHIVED));
    let again = take(&fs, OTHER, &[]).await;
    assert_eq!((export(&again).size, export(&again).known_etag.as_str()), (100, "e1"));
    fs.finish(OTHER, again.number, stored("e2")).await.expect("takes");
    assert_eq!(flags(&fs, file).await.to_string(), "(0x00000009) exists archived");
}

#[tokio::test]
async fn a_file_whose_object_is_lost_keeps_nobody_from_its_name() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, id, root) = with_a_link(dir.path()).await;
    let old = imported(&fs, root, CHUNK).await;
    fs.update_repository(id, RepositoryChange { auto_export: Some(EVERY), ..RepositoryChange::default() })
        .await
        .expect("updates");
    let check = take(&fs, WORKER, &[]).await;
    fs.finish(WORKER, check.number, Outcome::Check { message: String::new() }).await.expect("takes");
    // Moved away, and another file is made under its name: what is only in the object is to be loaded first.
    let (name_now, new_name, mode) = (name("f"), name("aside"), RenameMode::Replace);
    let aside = Mutation::Rename { parent: root, name: name_now, new_parent: Fid::ROOT, new_name, mode };
    ask(&fs, 1, aside).await;
    let new = created(&fs, root, "f", 2).await;
    write(&fs, new, 3).await;
    fs.close(CLIENT, &[(new, 0)], 1).await.expect("closes");
    let work = take(&fs, WORKER, &[]).await;
    assert!(matches!(&work.work, Work::Fetch(fetch) if fetch.fid == old), "{work:?}");
    fs.finish(WORKER, work.number, outcome(FetchResult::Gone)).await.expect("takes");
    assert!(flags(&fs, old).await.has(HsmFlags::LOST));
    // It is not there: the new one takes the key if nothing is under it.
    let work = take(&fs, WORKER, &[]).await;
    assert_eq!((export(&work).fid, export(&work).known_etag.as_str()), (new, ""));
    fs.finish(WORKER, work.number, stored("e1")).await.expect("takes");
    assert_eq!(flags(&fs, new).await.to_string(), "(0x00000009) exists archived");
    nothing_to_take(&fs, WORKER).await;
    assert_eq!(queued(&fs, id).await, 0);
    let lost = fs.hsm_state(CLIENT, old).await.expect("known");
    assert!(lost.flags.has(HsmFlags::LOST) && lost.loaded_bytes == 0, "nobody takes it for zeros");
}
