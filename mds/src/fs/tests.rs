//! What a new session of a client has open, beside others that do not answer.

use std::pin::pin;

use sateen_types::{ClusterId, LayoutTemplate, Unreported};

use super::*;
use crate::store::MemStore;

const HOLDER: SessionId = SessionId([1; 16]);
const NEW: SessionId = SessionId([2; 16]);

/// A file system with two sessions. `HOLDER` listens, with the stream that is given, and keeps what was written to `files`.
async fn with_a_holder(dir: &std::path::Path, files: &[Stated]) -> (FileSystem, u64) {
    let info = FsInfo {
        id: FsId(1),
        name: "scratch".parse().expect("valid"),
        compression: Compression::None,
        created: Timestamp::now(),
    };
    let (time, disk) = (Duration::from_secs(60), Arc::new(MdtDisk::new(dir)));
    let registry = Arc::new(RwLock::new(Registry::new(ClusterId([7; 16]), time, [], 1)));
    let store = Arc::new(MemStore::default());
    let fs = FileSystem::start(info, store, (registry, disk), time, |e| panic!("{e}")).expect("starts");
    let format = Command::Format { uid: 0, gid: 0, mode: 0o755, layout: LayoutTemplate::default() };
    fs.submit(format).await.expect("formats");
    for session in [HOLDER, NEW] {
        fs.open_session(session, "client".into(), 0).await.expect("opens");
    }
    let (stream, _) = fs.listen(HOLDER).expect("lives");
    fs.shared.capabilities.restate(HOLDER, files);
    (fs, stream)
}

fn files(count: u32, using: Using, capability: Capability) -> Vec<Stated> {
    let fid = |oid| Fid { seq: Fid::SEQ_FIRST, oid, ver: 0 };
    (1..=count).map(|oid| Stated { fid: fid(oid), number: 1, using, keeps: capability }).collect()
}

#[tokio::test]
async fn others_are_asked_for_all_that_a_new_session_has_open_together() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let held = files(50, Using::Writing, Capability::Write);
    let (fs, stream) = with_a_holder(dir.path(), &held).await;
    let stated = files(50, Using::Writing, Capability::None);
    let mut renewing = pin!(fs.renew(NEW, Some(&stated), 0));
    let mut asked = Vec::new();
    while asked.len() < held.len() {
        tokio::select! {
            biased;
            renewed = &mut renewing => panic!("{} were asked, and then {renewed:?}", asked.len()),
            () = tokio::task::yield_now() => {}
        }
        asked.extend(fs.take_recalls(HOLDER, stream).expect("its stream"));
    }
    for (fid, recall) in asked {
        let nothing = (Using::Nothing, Unreported::default());
        fs.answer_recall(HOLDER, fid, recall.number, nothing).expect("lives");
    }
    assert!(!renewing.await.expect("all was given up"));
}

#[tokio::test]
async fn a_reader_goes_on_beside_a_writer_that_does_not_answer_and_a_second_writer_does_not() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for (holds, wants, goes_on) in [
        (Using::Writing, Using::Reading, true),
        (Using::Writing, Using::Writing, false),
        // What it has written and not stored nobody would ask it for.
        (Using::Reading, Using::Reading, false),
    ] {
        let (fs, stream) = with_a_holder(dir.path(), &files(1, holds, Capability::Write)).await;
        let stated = files(1, wants, Capability::None);
        let (_, opened) = fs.take_statement(NEW, Some(&stated), 0).expect("lives");
        let made_way = fs.make_way(NEW, opened, Instant::now()).await.map_err(|e| e.code);
        assert_eq!(made_way, if goes_on { Ok(()) } else { Err(FsCode::Awaiting) }, "{wants:?} beside {holds:?}");
        assert_eq!(fs.take_recalls(HOLDER, stream).expect("its stream").len(), 1, "it was asked");
    }
}

#[tokio::test]
async fn a_change_of_extent_that_is_not_allowed_takes_nothing_from_others() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (fs, stream) = with_a_holder(dir.path(), &[]).await;
    let (fs, nobody) = (Arc::new(fs), Credential { uid: 1000, gid: 1000, ..Credential::ROOT });
    let request = |session, number, credential: &Credential, op| Request {
        session,
        slot: 0,
        number,
        credential: credential.clone(),
        op,
        hold: false,
        open: 0,
        logged: None,
    };
    // To the table of capabilities one inode is as good as another, and a directory needs no OST.
    let name = sateen_types::Name::parse(b"d").expect("valid");
    let mkdir = Mutation::Mkdir { parent: Fid::ROOT, name, mode: 0o700.into() };
    let (made, ..) = fs.execute(request(HOLDER, 1, &Credential::ROOT, mkdir)).await.expect("made");
    let MutationReply::Entry(entry) = made else { panic!("{made:?}") };
    let fid = entry.attr.fid;
    fs.shared
        .capabilities
        .restate(HOLDER, &[Stated { fid, number: 1, using: Using::Writing, keeps: Capability::Write }]);
    let cut = Mutation::SetLayout { fid, layout: LayoutTemplate::default() };
    let refused = fs.execute(request(NEW, 1, &nobody, cut.clone())).await.expect_err("not allowed");
    assert_eq!(refused.code, FsCode::AccessDenied);
    assert_eq!(fs.take_recalls(HOLDER, stream).expect("its stream").len(), 0, "it keeps what it has");
    // Whoever may is waited for.
    let mut cutting = pin!(fs.execute(request(NEW, 2, &Credential::ROOT, cut)));
    let mut asked = Vec::new();
    while asked.is_empty() {
        tokio::select! {
            biased;
            cut = &mut cutting => panic!("nobody was asked, and then {cut:?}"),
            () = tokio::task::yield_now() => {}
        }
        asked = fs.take_recalls(HOLDER, stream).expect("its stream");
    }
}
