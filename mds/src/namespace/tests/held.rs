//! Directories that a client holds, and the log of what it did there.

use super::bench::{Bench, SESSION, name};
use super::on_every_store;
use crate::command::{Command, Logged, Outcome, Request};
use crate::namespace::held::{NOBODY, Touched, all, touched, touched_by};
use sateen_types::op::{Create, Mutation, MutationReply, SetAttr};
use sateen_types::{Credential, Fid, FsCode, FsResult, Timestamp};

const ROOT: Fid = Fid::ROOT;
const AT: Timestamp = Timestamp { seconds: 7, nanos: 5 };

/// Lends a sequence to the bench's session.
fn lend(b: &mut Bench<'_>) -> u64 {
    // The bench numbers what it makes itself with the first one.
    b.run(Command::AllocSequence).expect("allocates");
    let Outcome::Sequence(sequence) = b.run(Command::LendSequence { session: SESSION }).expect("lends") else {
        panic!("no sequence")
    };
    assert_eq!(b.run(Command::LendSequence { session: SESSION }).expect("again"), Outcome::Sequence(sequence));
    sequence
}

fn log(b: &mut Bench<'_>, number: u64, op: Mutation, fid: Option<Fid>) -> FsResult<Outcome> {
    log_part(b, number, op, fid, false)
}

/// A change; with `settled` the first one of a part.
fn log_part(b: &mut Bench<'_>, number: u64, op: Mutation, fid: Option<Fid>, settled: bool) -> FsResult<Outcome> {
    let (credential, logged) = (Credential::ROOT, Some(Logged { fid, at: AT, settled }));
    let request = Request { session: SESSION, slot: 0, number, credential, op, hold: true, open: 0, logged };
    b.run(Command::Mutate(Box::new(request)))
}

fn create(parent: Fid, n: &str) -> Mutation {
    let (name, mode) = (name(n), 0o644.into());
    Mutation::Create(Create { parent, name, mode, exclusive: true, open: None, layout: None })
}

fn mkdir(parent: Fid, n: &str) -> Mutation {
    Mutation::Mkdir { parent, name: name(n), mode: 0o755.into() }
}

#[test]
fn a_log_is_applied_in_its_order_and_each_part_once_with_its_own_numbers_and_times() {
    on_every_store(|b| {
        let seq = lend(b);
        let fid = |oid| Some(Fid { seq, oid, ver: 0 });
        log(b, 1, mkdir(ROOT, "d"), fid(1)).expect("makes");
        let d = fid(1).expect("one");
        let first = log(b, 2, create(d, "f"), fid(2)).expect("makes");
        let Outcome::Reply { reply: MutationReply::Entry(entry), replayed: false } = first else { panic!("{first:?}") };
        assert_eq!((entry.attr.fid, entry.attr.mtime, entry.attr.ctime), (fid(2).expect("one"), AT, AT));
        let again = log(b, 2, create(d, "f"), fid(2)).expect("is known");
        let Outcome::Reply { reply: MutationReply::Entry(told), replayed: true } = again else { panic!("{again:?}") };
        assert!(told.attr == entry.attr && told.layout.is_some());
        assert_eq!(log(b, 4, create(d, "g"), fid(3)).expect_err("a gap").code, FsCode::Invalid);
        // What fails is left out when its client has heard of it, and not before.
        assert_eq!(log(b, 3, create(d, "f"), fid(3)).expect_err("taken").code, FsCode::Exists);
        assert_eq!(log(b, 4, create(d, "g"), fid(4)).expect_err("a gap").code, FsCode::Invalid);
        log_part(b, 4, create(d, "g"), fid(4), true).expect("makes");
        log(b, 5, Mutation::Unlink { parent: d, name: name("g") }, None).expect("removes");
        let set = SetAttr { mode: Some(0o600), ..SetAttr::new(d) };
        log(b, 6, Mutation::SetAttr(set), None).expect("changes");
        // A part that was under way for long does nothing.
        for (number, settled) in [(3, true), (4, false), (5, false)] {
            let late = log_part(b, number, create(d, "late"), fid(3), settled);
            assert!(matches!(late, Ok(Outcome::Reply { replayed: true, .. })), "{late:?}");
        }
    });
}

#[test]
fn a_log_makes_nothing_with_numbers_that_are_not_its_own_or_that_are_used() {
    on_every_store(|b| {
        let seq = lend(b);
        let taken = b.create(ROOT, "old").expect("creates");
        let refused = |b: &mut Bench<'_>, op: Mutation, fid: Option<Fid>| {
            assert_eq!(log(b, 1, op, fid).expect_err("refused").code, FsCode::Invalid, "{fid:?}");
        };
        refused(b, create(ROOT, "f"), Some(taken));
        refused(b, create(ROOT, "f"), Some(Fid { seq: seq + 1, oid: 1, ver: 0 }));
        refused(b, create(ROOT, "f"), Some(Fid { seq, oid: 0, ver: 0 }));
        refused(b, create(ROOT, "f"), None);
        refused(b, Mutation::Unlink { parent: ROOT, name: name("old") }, Some(Fid { seq, oid: 1, ver: 0 }));
        refused(b, Mutation::SetAttr(SetAttr { size: Some(0), ..SetAttr::new(taken) }), None);
        refused(b, Mutation::Link { fid: taken, parent: ROOT, name: name("l") }, None);
        log(b, 1, create(ROOT, "f"), Some(Fid { seq, oid: 1, ver: 0 })).expect("its own");
        let used = log(b, 2, create(ROOT, "g"), Some(Fid { seq, oid: 1, ver: 0 }));
        assert_eq!(used.expect_err("used").code, FsCode::Invalid);
    });
}

#[test]
fn what_is_held_ends_with_its_release_its_removal_and_its_session() {
    on_every_store(|b| {
        let seq = lend(b);
        let fid = |oid| Fid { seq, oid, ver: 0 };
        for oid in 1..=3 {
            log(b, u64::from(oid), mkdir(ROOT, &format!("d{oid}")), Some(fid(oid))).expect("makes");
        }
        let set_gid = b.mkdir_as(&Credential::ROOT, ROOT, "plain", 0o755).expect("makes");
        let held = |b: &Bench<'_>| all(&*b.view()).expect("reads").into_iter().map(|(dir, _)| dir).collect::<Vec<_>>();
        assert_eq!(held(b), [fid(1), fid(2), fid(3)]);
        b.run(Command::Release { session: SESSION, dirs: vec![fid(1), set_gid] }).expect("releases");
        assert_eq!(held(b), [fid(2), fid(3)]);
        log(b, 4, Mutation::Rmdir { parent: ROOT, name: name("d2") }, None).expect("removes");
        assert_eq!(held(b), [fid(3)]);
        b.run(Command::CloseSession { session: SESSION }).expect("ends");
        assert_eq!(held(b), []);
        assert_eq!(log(b, 5, create(ROOT, "f"), Some(fid(4))).expect_err("ended").code, FsCode::Stale);
    });
}

#[test]
fn directories_with_rules_of_their_own_are_not_held() {
    on_every_store(|b| {
        let seq = lend(b);
        let fid = |oid| Some(Fid { seq, oid, ver: 0 });
        let sticky = Mutation::Mkdir { parent: ROOT, name: name("tmp"), mode: 0o1777.into() };
        log(b, 1, sticky, fid(1)).expect("makes");
        assert_eq!(all(&*b.view()).expect("reads"), []);
    });
}

#[test]
fn a_change_touches_the_directories_whose_names_it_changes_and_those_that_it_names() {
    on_every_store(|b| {
        let (p, q) = (b.mkdir(ROOT, "p").expect("makes"), b.mkdir(ROOT, "q").expect("makes"));
        let d = b.mkdir(p, "d").expect("makes");
        let f = b.create(p, "f").expect("creates");
        let of = |op: &Mutation| {
            let Touched { dirs, named } = touched_by(&*b.view(), op).expect("reads");
            (dirs, named)
        };
        assert_eq!(of(&create(p, "x")), (vec![p], vec![]));
        assert_eq!(of(&Mutation::Rmdir { parent: p, name: name("d") }), (vec![p], vec![d]));
        assert_eq!(of(&Mutation::Unlink { parent: p, name: name("f") }), (vec![p], vec![]));
        let mode = sateen_types::op::RenameMode::Replace;
        let rename = Mutation::Rename { parent: p, name: name("d"), new_parent: q, new_name: name("e"), mode };
        assert_eq!(of(&rename), (vec![p, q], vec![d]));
        assert_eq!(of(&Mutation::Link { fid: f, parent: q, name: name("l") }), (vec![q], vec![]));
        assert_eq!(of(&Mutation::SetAttr(SetAttr::new(d))), (vec![d], vec![]));
        // Beside its log even the holder of a directory must give it up before it loses its name.
        let request = |logged| Request {
            session: SESSION,
            slot: 0,
            number: 1,
            credential: Credential::ROOT,
            op: Mutation::Rmdir { parent: p, name: name("d") },
            hold: false,
            open: 0,
            logged,
        };
        let by = |request| touched(&*b.view(), &Command::Mutate(Box::new(request))).expect("reads");
        assert_eq!(by(request(None)), [(p, SESSION), (d, NOBODY)]);
        let logged = Logged { fid: None, at: AT, settled: true };
        assert_eq!(by(request(Some(logged))), [(p, SESSION), (d, SESSION)]);
    });
}
