//! Objects against files, with OSTs that are lists.

use std::cell::RefCell;

use sateen_types::{ComponentId, Fid, FsCode, FsError, FsResult, ObjectId, StripeIndex};

use super::*;
use crate::store::keys::{self, IntentId, IntentKind};
use crate::store::records::DestroyIntent;
use crate::store::{MemStore, codec::Record};

fn object(oid: u32) -> ObjectId {
    let fid = Fid { seq: Fid::SEQ_FIRST, oid, ver: 0 };
    ObjectId { fs: FsId(1), fid, component: ComponentId(1), stripe: StripeIndex(0) }
}

/// Checks with OST 0 that has `objects`, and others that have none; OST 3 is down.
fn run(
    store: &dyn Store,
    repair: bool,
    list: &dyn Fn(Option<ObjectId>, usize) -> FsResult<(Vec<ObjectId>, bool)>,
) -> Vec<Finding> {
    let osts: BTreeSet<OstIndex> = (0..4).map(OstIndex).collect();
    let list = |ost: OstIndex, from, max| match ost.0 {
        0 => list(from, max),
        3 => Err(FsError::new(FsCode::Unavailable, "OST 3 is down")),
        _ => Ok((Vec::new(), true)),
    };
    let mender = |command: Command| apply_alone(store, &command);
    let job = Job {
        fs: FsId(1),
        store,
        osts: &osts,
        objects: Some(&list),
        grace: Duration::ZERO,
        mender: if repair { Some(&mender) } else { None },
        pace: &|_| Ok(()),
        now: &Timestamp::now,
    };
    let mut found = Vec::new();
    let mut sink = |event| {
        if let FsckEvent::Finding(finding) = event {
            found.push(finding);
        }
        ControlFlow::Continue(())
    };
    check(&job, &mut Report::new(&mut sink)).expect("the check itself works");
    let down = found.pop().expect("OST 3 is told");
    assert_eq!((down.kind, down.what.contains("OST 3 is down")), (FindingKind::Unchecked, true));
    found
}

/// A list as an OST answers it, three at a time so that there are pages.
fn page(objects: &[ObjectId], from: Option<ObjectId>, max: usize) -> FsResult<(Vec<ObjectId>, bool)> {
    let behind: Vec<_> = objects.iter().copied().filter(|o| from.is_none_or(|from| o.fid >= from.fid)).collect();
    let max = max.min(3);
    Ok((behind.iter().take(max).copied().collect(), behind.len() <= max))
}

fn intents(store: &dyn Store) -> Vec<Row> {
    rows(&*store.snapshot(), Table::Intents)
}

#[test]
fn an_object_without_a_file_is_destroyed_by_an_intent_and_no_other_is() {
    let store = MemStore::default();
    let mut b = bench(&store);
    let files: Vec<Fid> = (0..8).map(|i| b.create(Fid::ROOT, &format!("f{i}")).expect("made")).collect();
    let oid = |i: usize| files[i].oid;
    b.open.push(files[1]);
    for gone in [0, 1, 2, 7] {
        b.unlink(Fid::ROOT, &format!("f{gone}")).expect("removed");
    }
    // All has been destroyed on the OSTs, but for what file 2 still waits for.
    for (key, value) in intents(&store) {
        if DestroyIntent::from_bytes(&value).expect("own").fid != files[2] {
            set(&store, &[(Table::Intents, &key, None)]);
        }
    }
    let waiting = IntentId { kind: IntentKind::Destroy, ost: OstIndex(0), number: 0 };
    let there = DestroyIntent { fid: files[2], objects: vec![(ComponentId(1), StripeIndex(0))] };
    intents(&store).iter().for_each(|(key, _)| set(&store, &[(Table::Intents, key, None)]));
    set(&store, &[(Table::Intents, &keys::intent(waiting), Some(&there.to_bytes()))]);

    // 0 leaks; 1 is open; 2 waits; 3 to 6 exist; 7 is the last of its sequence, and its successor may be on its way.
    let objects: Vec<ObjectId> = (0..8).map(|i| object(oid(i))).collect();
    let list = |from, max| page(&objects, from, max);
    let found = run(&store, false, &list);
    assert_eq!(kinds(&found), [(FindingKind::ObjectOrphan, Repair::Possible)], "{found:#?}");
    assert_eq!(found[0].fid, Some(files[0]));
    assert_eq!(kinds(&run(&store, true, &list)), [(FindingKind::ObjectOrphan, Repair::Done)]);
    let written: Vec<_> =
        intents(&store).into_iter().map(|(_, v)| DestroyIntent::from_bytes(&v).expect("own")).collect();
    let leaked = DestroyIntent { fid: files[0], objects: vec![(ComponentId(1), StripeIndex(0))] };
    assert_eq!(written, [there, leaked]);
    assert_eq!(run(&store, true, &list), [], "it is under way");
    assert_eq!(findings(&store, false), []);
}

#[test]
fn an_object_that_is_just_being_destroyed_is_not_told() {
    let store = MemStore::default();
    let mut b = bench(&store);
    let file = b.create(Fid::ROOT, "a").expect("made");
    b.create(Fid::ROOT, "b").expect("made");
    b.unlink(Fid::ROOT, "a").expect("removed");
    intents(&store).iter().for_each(|(key, _)| set(&store, &[(Table::Intents, key, None)]));
    let objects = RefCell::new(vec![object(file.oid)]);
    // The first answer is older than the destroy.
    let list = |from, max| {
        let answer = page(&objects.borrow(), from, max);
        objects.borrow_mut().clear();
        answer
    };
    assert_eq!(run(&store, true, &list), []);
    assert_eq!(intents(&store), []);
}

#[test]
fn an_object_whose_layout_is_left_is_kept() {
    let store = MemStore::default();
    let mut b = bench(&store);
    let file = b.create(Fid::ROOT, "a").expect("made");
    b.create(Fid::ROOT, "b").expect("made");
    set(&store, &[(Table::Inodes, &keys::fid(file), None)]);
    let objects = [object(file.oid)];
    let found = run(&store, true, &|from, max| page(&objects, from, max));
    assert!(found.iter().all(|f| f.kind != FindingKind::ObjectOrphan), "{found:#?}");
    assert_eq!(intents(&store), []);
}
