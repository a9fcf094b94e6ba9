//! Looks at buckets: when they are due, what they change of a link, and what there is no place for.

use super::*;
use crate::fs::repository::table::{CHECK_EVERY, FILES_MAX, Wanted};
use crate::namespace::repository;
use sateen_types::repository::RepositoryChange;

async fn state(fs: &FileSystem, id: RepositoryId) -> (RepositoryState, String) {
    let link = fs.repository(id).await.expect("there");
    (link.state, link.message)
}

#[tokio::test]
async fn what_fails_makes_the_bucket_be_looked_at_and_a_bad_one_keeps_what_waits() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, id, root) = with_a_link(dir.path()).await;
    let file = imported(&fs, root, CHUNK).await;
    fs.start_import(id, false).await.expect("starts");
    let import = take(&fs, WORKER, &[]).await;
    fs.finish(WORKER, import.number, Outcome::Import { message: "403".to_owned() }).await.expect("takes");
    let given = fs.take_next(WORKER, MANY, &[], Duration::ZERO).await.expect("takes");
    let [look] = &given[..] else { panic!("{given:?}") };
    assert_eq!(look.work, Work::Check, "it may be the bucket");
    fs.start_import(id, false).await.expect("starts");
    fs.finish(WORKER, look.number, Outcome::Check { message: "AccessDenied".to_owned() }).await.expect("takes");
    assert_eq!(state(&fs, id).await, (RepositoryState::Misconfigured, "AccessDenied".to_owned()));
    let given = fs.take_next(WORKER, MANY, &[], Duration::ZERO).await.expect("takes");
    assert_eq!(given, [], "the import waits, and the next look does");
    // Who reads gets the reason, as before.
    let load = tokio::spawn({
        let fs = fs.clone();
        async move { fs.load(CLIENT, asked(file, extent(0, 1), false), Duration::from_secs(20)).await }
    });
    let read = take(&fs, WORKER, &[]).await;
    assert_eq!(fetch(&read).fid, file);
    fs.finish(WORKER, read.number, outcome(FetchResult::Failed)).await.expect("takes");
    assert_eq!(load.await.expect("runs").expect_err("cannot be read").code, FsCode::Io);
    let given = fs.take_next(WORKER, MANY, &[], Duration::ZERO).await.expect("takes");
    assert_eq!(given, [], "it was looked at a moment ago");
    // Somebody says that it is mended.
    let link = fs.update_repository(id, RepositoryChange::default()).await.expect("updates");
    assert_eq!((link.state, link.message.as_str()), (RepositoryState::Updating, ""));
    let look = take(&fs, WORKER, &[]).await;
    fs.finish(WORKER, look.number, Outcome::Check { message: String::new() }).await.expect("takes");
    assert_eq!(state(&fs, id).await, (RepositoryState::Available, String::new()));
    assert!(matches!(take(&fs, WORKER, &[]).await.work, Work::Import { .. }), "it was kept");
}

#[tokio::test]
async fn where_the_store_is_can_be_changed_and_only_a_look_there_counts() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, id, root) = with_a_link(dir.path()).await;
    imported(&fs, root, 0).await;
    let to = |endpoint: &str| RepositoryChange {
        endpoint: Some(endpoint.to_owned()),
        region: Some("eu-west-1".to_owned()),
        profile: Some("lab".to_owned()),
        ..RepositoryChange::default()
    };
    fs.update_repository(id, to("http://old:1")).await.expect("updates");
    let old = take(&fs, WORKER, &[]).await;
    assert_eq!((old.work, old.settings.endpoint.as_str()), (Work::Check, "http://old:1"));
    let link = fs.update_repository(id, to("http://new:1")).await.expect("updates");
    assert_eq!(link.state, RepositoryState::Updating);
    fs.finish(WORKER, old.number, Outcome::Check { message: String::new() }).await.expect("takes");
    assert_eq!(state(&fs, id).await.0, RepositoryState::Updating, "that was another place");
    let new = take(&fs, WORKER, &[]).await;
    let settings = &new.settings;
    assert_eq!((&new.work, settings.endpoint.as_str()), (&Work::Check, "http://new:1"));
    assert_eq!((settings.region.as_str(), settings.profile.as_str()), ("eu-west-1", "lab"));
    fs.finish(WORKER, new.number, Outcome::Check { message: String::new() }).await.expect("takes");
    assert_eq!(state(&fs, id).await.0, RepositoryState::Available);
    // Policies need no look; a prefix of another link cannot be moved to.
    let update = RepositoryChange { chunk_mib: Some(8), ..RepositoryChange::default() };
    assert_eq!(fs.update_repository(id, update).await.expect("updates").state, RepositoryState::Available);
    let other = RepositorySettings::new("/other".parse().expect("path"), "s3://b".parse().expect("url"));
    let other = fs.create_repository(other).await.expect("at another endpoint").id;
    assert_eq!(fs.update_repository(other, to("http://new:1")).await.expect_err("taken").code, FsCode::Exists);
}

#[test]
fn a_bucket_is_looked_at_now_and_then_and_in_doubt_once_a_minute() {
    let (mut now, link) = (Instant::now(), RepositoryId(1));
    let mut table = LoadTable::new(1, []);
    let available = |table: &mut LoadTable, now: Instant| {
        let check_at = Some(table.looked(link, now) + CHECK_EVERY);
        table.set_jobs(link, Wanted { check_at, ..Wanted::default() }, now);
    };
    let look = |table: &mut LoadTable, now: Instant| {
        let Some((number, task)) = table.pick(WORKER, 0, true, now) else { return false };
        assert_eq!(task, Task::Check(link));
        table.has_looked(link, now);
        available(table, now);
        table.done(number);
        true
    };
    available(&mut table, now);
    let begun = now;
    let mut looks = Vec::new();
    for second in 0..1400 {
        now = begun + Duration::from_secs(second);
        // What is set of the link anew, as when an import begins, puts nothing off.
        available(&mut table, now);
        if (700..900).contains(&second) {
            table.doubt(&Task::Import(link, 1), now);
        }
        if look(&mut table, now) {
            looks.push(second);
        }
    }
    assert_eq!(looks, [600, 700, 760, 820, 880, 940]);
}

#[tokio::test]
async fn what_there_is_no_place_for_is_not_wished_for() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, id, root) = with_a_link(dir.path()).await;
    let file = imported(&fs, root, CHUNK).await;
    let restore = async || fs.hsm_request(CLIENT, Credential::ROOT, file, HsmOperation::Restore).await;
    {
        let mut table = fs.shared.repositories.lock();
        let mut filling = (0..=FILES_MAX as u32).map(|oid| {
            let remote = Remote::none_loaded(CHUNK);
            table.restore(Fid { ver: 1, ..fid(oid) }, id, &remote, Instant::now())
        });
        assert!(filling.any(|placed| placed.is_err()), "it is bounded");
    }
    assert_eq!(restore().await.expect_err("too many").code, FsCode::Busy);
    assert_eq!(fs.hsm_state(CLIENT, file).await.expect("known").action, HsmAction::None);
    let wanted = fs.ask(|tx| repository::restores(tx, 10)).await.expect("reads");
    assert!(wanted.is_empty(), "a restart would load it: {wanted:?}");
    {
        let mut table = fs.shared.repositories.lock();
        table.forget(Fid { ver: 1, ..fid(0) });
        // One that waits for its turn goes when that comes.
        assert!(table.pick(OTHER, 0, true, Instant::now()).is_some());
    }
    restore().await.expect("there is room");
    assert_eq!(fs.hsm_state(CLIENT, file).await.expect("known").action, HsmAction::Restore);
    let wanted = fs.ask(|tx| repository::restores(tx, 10)).await.expect("reads");
    assert_eq!(wanted.len(), 1);
}
