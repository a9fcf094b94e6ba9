//! Several requests in one call.

use sateen_proto::status::from_detail;
use sateen_types::limits::{EXECUTE_MANY_MAX, READ_DIRS_MAX};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_reports_in_one_call_are_made_once_each_and_answered_one_by_one() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mds = Mds::start(dir.path()).await;
    mds.create_fs().await;
    mds.register("127.0.0.1:1", 1).await;
    let m = mds.mount().await;
    let mut fids = Vec::new();
    for i in 0..3 {
        fids.push(m.create(&format!("f{i}")).await.expect("creates").attr.expect("has one").fid);
    }
    let report = |slot: u32, fid, end| ExecuteRequest {
        session_id: m.session.clone(),
        slot,
        number: 1,
        credential: who(),
        op: Some(Op::WriteDone(WriteDone { fid, end, allocated_delta: 4096, ..Default::default() })),
        ..Default::default()
    };
    let nobody = Some(WireFid { seq: Fid::SEQ_FIRST + 9, oid: 9, ver: 0 });
    let changes = vec![report(1, fids[0], 10), report(2, nobody, 20), report(3, fids[2], 30)];
    let many = async |changes| m.names.clone().execute_many(ExecuteManyRequest { changes }).await;
    for _ in 0..2 {
        // The second time as one whose answer was lost.
        let outcomes = many(changes.clone()).await.expect("an outcome for each").into_inner().outcomes;
        let sizes = outcomes.into_iter().map(|outcome| match outcome.outcome.expect("one") {
            execute_outcome::Outcome::Reply(reply) => match reply.result.expect("has one") {
                execute_reply::Result::Attr(reply) => Ok(reply.attr.expect("has one").size),
                other => panic!("{other:?}"),
            },
            execute_outcome::Outcome::Error(detail) => Err(from_detail(detail).code),
        });
        assert_eq!(sizes.collect::<Vec<_>>(), [Ok(10), Err(FsCode::Stale), Ok(30)]);
    }
    for (fid, blocks) in [(fids[0], 8), (fids[1], 0), (fids[2], 8)] {
        assert_eq!(m.getattr(fid).await.expect("there").blocks, blocks, "once");
    }
    let other =
        ExecuteRequest { op: Some(Op::Unlink(Unlink { parent: root(), name: "f0".into() })), ..report(4, None, 0) };
    for bad in [vec![], vec![report(5, fids[0], 40), other], vec![report(5, fids[0], 40); EXECUTE_MANY_MAX + 1]] {
        assert_eq!(from_status(&many(bad).await.expect_err("refused")).code, FsCode::Invalid);
    }
    assert_eq!(m.lookup("f0").await.expect("nothing of that was done").size, 10);
    mds.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_are_listed_many_at_a_time_and_what_cannot_be_is_left_out() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mds = Mds::start(dir.path()).await;
    mds.create_fs().await;
    mds.register("127.0.0.1:1", 1).await;
    let m = mds.mount().await;
    let mkdir = async |name: &str, parent| {
        let op = Op::Mkdir(Mkdir { parent, name: name.into(), mode: 0o755, ..Default::default() });
        match m.execute(op).await.expect("makes") {
            execute_reply::Result::Entry(entry) => entry.attr.expect("has one").fid,
            other => panic!("{other:?}"),
        }
    };
    let (a, b) = (mkdir("a", root()).await, mkdir("b", root()).await);
    let below = mkdir("below", a).await;
    let file = m.create("f").await.expect("creates").attr.expect("has one").fid;
    let nobody = Some(WireFid { seq: Fid::SEQ_FIRST + 9, oid: 9, ver: 0 });
    let list = async |fids: Vec<Option<WireFid>>, max| {
        let fids = fids.into_iter().flatten().collect();
        let request = ReadDirsRequest { session_id: m.session.clone(), credential: who(), fids, max };
        m.names.clone().read_dirs(request).await.map(|reply| reply.into_inner().listings)
    };
    let listings = list(vec![a, nobody, b, file, root()], 2).await.expect("lists");
    let pages: Vec<_> = listings.into_iter().map(|listing| listing.page).collect();
    let names = |page: &Option<ReadDirReply>| {
        page.as_ref().map(|page| {
            let name = |entry: &DirEntry| String::from_utf8(entry.name.clone()).expect("a name");
            (page.entries.iter().map(name).collect::<Vec<_>>().join(" "), page.end)
        })
    };
    let expected =
        [Some(("below".to_owned(), true)), None, Some((String::new(), true)), None, Some(("a b".into(), false))];
    assert_eq!(pages.iter().map(names).collect::<Vec<_>>(), expected);
    let entry = &pages[0].as_ref().expect("listed").entries[0];
    assert_eq!((entry.fid, entry.attr.as_ref().map(|attr| attr.fid)), (below, Some(below)), "with attributes");
    assert_eq!(pages[0].as_ref().expect("listed").parent, root());
    for (fids, max) in [(vec![], 9), (vec![a; READ_DIRS_MAX + 1], 9), (vec![a], 0), (vec![a], 5000)] {
        assert_eq!(from_status(&list(fids, max).await.expect_err("refused")).code, FsCode::Invalid);
    }
    mds.stop().await;
}
