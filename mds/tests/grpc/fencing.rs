//! Sessions that expire, and what OSTs hear of it.

use super::*;

const WRITER: u64 = 0x1234_5678_9abc;

/// A server with one file that `silent` has open and nobody else knows; it goes when the session ends.
async fn with_a_silent_client(dir: &std::path::Path, oss: &str) -> (Mds, Mount, Mount, Option<WireFid>) {
    let mds = Mds::start(dir).await;
    mds.create_fs().await;
    assert!(mds.registered(oss, 1).await.ended_writers.is_empty());
    let (silent, lively) = (mds.mount_as(WRITER).await, mds.mount_as(WRITER + 1).await);
    let fid = silent.create("f").await.expect("creates").attr.expect("has one").fid;
    lively.execute(Op::Unlink(Unlink { parent: root(), name: "f".into() })).await.expect("removes");
    (mds, silent, lively, fid)
}

async fn ends(lively: &Mount, fid: Option<WireFid>) {
    eventually("the end of the file", || async { lively.getattr(fid).await == Err(FsCode::Stale) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_expires_is_shut_out_at_the_osts_before_others_get_what_it_held() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let fake = FakeOss::default();
    let (mds, silent, lively, fid) = with_a_silent_client(dir.path(), &fake.start().await).await;
    *fake.refuse.lock() = true;
    eventually("attempts", || async {
        // This one renews its session.
        lively.getattr(fid).await.expect("open, as long as the OST has not confirmed");
        *fake.refused.lock() > 2
    })
    .await;
    assert_eq!(silent.renew(None).await.expect_err("it is ending"), FsCode::Stale);
    lively.getattr(fid).await.expect("still open");
    *fake.refuse.lock() = false;
    ends(&lively, fid).await;
    assert_eq!(*fake.fenced.lock(), [WRITER], "and not of the one that lives");
    let stolen = OpenSessionRequest {
        hello: Some(version::hello("test")),
        fs_name: "scratch".into(),
        client: "thief".into(),
        writer: WRITER,
        follows: Vec::new(),
    };
    for writer in [WRITER, WRITER + 1] {
        let refused = mds.names.clone().open_session(OpenSessionRequest { writer, ..stolen.clone() }).await;
        assert_eq!(from_status(&refused.expect_err("another session's")).code, FsCode::Invalid);
    }
    mds.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ost_that_was_down_hears_of_ended_sessions_when_it_registers() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let fake = FakeOss::default();
    let oss = fake.start().await;
    let (mds, _silent, lively, fid) = with_a_silent_client(dir.path(), &oss).await;
    ends(&lively, fid).await;
    let other = mds.registered("127.0.0.1:1", 2).await;
    assert_eq!((other.indexes, other.ended_writers), (vec![1], vec![WRITER]));
    mds.stop().await;
    let mds = Mds::start(dir.path()).await;
    let told = mds.registered(&oss, 1).await;
    assert_eq!(told.ended_writers, [WRITER], "also by the next life of the MDS");
    assert_eq!(
        mds.state(0).await,
        OstState::Down,
        "it may not have the answer, and nobody is to write beside that writer"
    );
    assert!(mds.confirm(&oss, 1, told.registration - 1).await.register_again, "it has not");
    assert!(!mds.confirm(&oss, 1, told.registration).await.register_again);
    assert_eq!(mds.state(0).await, OstState::Up);
    mds.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_was_ending_when_the_mds_stopped_ends_in_its_next_life_after_the_osts_have_registered() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let fake = FakeOss::default();
    let oss = fake.start().await;
    let (mds, mut silent, mut lively, fid) = with_a_silent_client(dir.path(), &oss).await;
    *fake.refuse.lock() = true;
    eventually("attempts", || async {
        lively.getattr(fid).await.expect("open, as long as the OST has not confirmed");
        *fake.refused.lock() > 0
    })
    .await;
    mds.stop().await;

    let mds = Mds::start(dir.path()).await;
    (silent.names, lively.names) = (mds.names.clone(), mds.names.clone());
    assert_eq!(silent.renew(None).await.expect_err("too late to say what it has"), FsCode::Stale);
    assert!(lively.renew(None).await.expect("lives").restate);
    lively.renew(Some(Vec::new())).await.expect("lives");
    lively.getattr(fid).await.expect("an OST may be serving that was not told");
    assert!(fake.fenced.lock().is_empty());
    assert_eq!(mds.registered(&oss, 1).await.ended_writers, [WRITER]);
    *fake.refuse.lock() = false;
    ends(&lively, fid).await;
    assert_eq!(*fake.fenced.lock(), [WRITER]);
    mds.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_mds_that_takes_longer_than_a_lease_to_open_its_directory_ends_no_session_for_that() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mds = Mds::start(dir.path()).await;
    mds.create_fs().await;
    let mut client = mds.mount_as(WRITER).await;
    mds.stop().await;
    let opened = Mds::open(dir.path());
    tokio::time::sleep(LEASE + Duration::from_millis(100)).await;
    let mds = Mds::serve(opened).await;
    client.names = mds.names.clone();
    assert!(client.renew(None).await.expect("nobody heard it before").restate);
    assert!(!client.renew(Some(Vec::new())).await.expect("in time").restate);
    mds.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_follows_another_begins_when_that_one_is_shut_out_and_gone() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let fake = FakeOss::default();
    let (mds, old, lively, fid) = with_a_silent_client(dir.path(), &fake.start().await).await;
    *fake.refuse.lock() = true;
    let refused = {
        let mut opening = std::pin::pin!(mds.mount_after(WRITER + 2, old.session.clone()));
        loop {
            tokio::select! {
                opened = &mut opening => break opened.err(),
                () = tokio::time::sleep(LEASE / 6) => drop(lively.renew(None).await.expect("lives")),
            }
        }
    };
    assert_eq!(refused, Some(FsCode::Unavailable), "its OST does not confirm");
    assert_eq!(old.renew(None).await.expect_err("it is ending"), FsCode::Stale);
    lively.getattr(fid).await.expect("the old one may still write to it");
    *fake.refuse.lock() = false;
    let new = mds.mount_after(WRITER + 2, old.session.clone()).await.expect("opens");
    assert!(fake.fenced.lock().contains(&WRITER));
    ends(&lively, fid).await;
    let newer = mds.mount_after(WRITER + 3, old.session.clone()).await.expect("nothing is left to end");
    assert_eq!(mds.mount_after(WRITER + 4, vec![1; 15]).await.err(), Some(FsCode::Invalid));
    for lives in [&new, &newer] {
        lives.renew(None).await.expect("lives");
    }
    mds.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_opens_a_file_of_a_session_that_ends_waits_until_it_is_gone() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let fake = FakeOss::default();
    let mds = Mds::start(dir.path()).await;
    mds.create_fs().await;
    mds.registered(&fake.start().await, 1).await;
    let (silent, lively) = (mds.mount_as(WRITER).await, mds.mount_as(WRITER + 1).await);
    let fid = silent.create("f").await.expect("creates").attr.expect("has one").fid;
    *fake.refuse.lock() = true;
    let attempts = async |more: u32| {
        let wanted = *fake.refused.lock() + more;
        eventually("attempts", || async {
            lively.lookup("f").await.expect("exists, and this one renews its session");
            *fake.refused.lock() >= wanted
        })
        .await;
    };
    attempts(1).await;
    let request =
        OpenRequest { session_id: lively.session.clone(), credential: who(), fid, write: true, ..Default::default() };
    let mut names = lively.names.clone();
    let opening = tokio::spawn(async move { names.open(request).await });
    attempts(5).await;
    assert!(!opening.is_finished(), "it would be granted nothing beside a writer");
    *fake.refuse.lock() = false;
    opening.await.expect("no panic").expect("opens");
    assert_eq!(*fake.fenced.lock(), [WRITER]);
    mds.stop().await;
}
