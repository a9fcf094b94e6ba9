//! What those who follow a file system are told.

use sateen_types::changelog::{ChangeMask, ChangeRecord, ChangeType, ChangeUser};
use sateen_types::op::{Mutation, RenameMode};
use sateen_types::{Credential, Fid, FsCode, FsResult};

use super::bench::{Bench, code, name};
use super::on_every_store;
use crate::command::{Command, Outcome};
use crate::namespace::changelog::{self, Answer, Change};

const ROOT: Fid = Fid::ROOT;

fn follow(b: &mut Bench<'_>, change: Change) -> FsResult<Answer> {
    match b.run(Command::Changelog(change))? {
        Outcome::Changelog(answer) => Ok(answer),
        other => panic!("{other:?}"),
    }
}

fn register(b: &mut Bench<'_>, mask: ChangeMask) -> ChangeUser {
    match follow(b, Change::Register { name: "test".to_owned(), mask }).expect("registers") {
        Answer::User(user) => user,
        other => panic!("{other:?}"),
    }
}

fn records(b: &Bench<'_>) -> Vec<ChangeRecord> {
    changelog::read(&*b.view(), 0, 1000).expect("reads")
}

fn kinds(b: &Bench<'_>) -> Vec<ChangeType> {
    records(b).iter().map(|r| r.kind).collect()
}

#[test]
fn nothing_is_recorded_while_nobody_follows() {
    on_every_store(|b| {
        b.create(ROOT, "before").expect("makes");
        assert_eq!(records(b), []);
        let user = register(b, ChangeMask::USUAL);
        b.create(ROOT, "during").expect("makes");
        follow(b, Change::Deregister { id: user.id }).expect("goes");
        b.create(ROOT, "after").expect("makes");
        let all = records(b);
        let names: Vec<_> = all.iter().map(|r| (r.index, r.name.as_ref().expect("a name").name.clone())).collect();
        assert_eq!(names, [(1, name("during"))]);
        assert_eq!(code(follow(b, Change::Deregister { id: user.id })), FsCode::NotFound);
    });
}

#[test]
fn a_change_that_fails_or_changes_nothing_leaves_no_record() {
    on_every_store(|b| {
        register(b, ChangeMask::USUAL);
        b.create(ROOT, "f").expect("makes");
        assert_eq!(code(b.create(ROOT, "f")), FsCode::Exists);
        assert!(b.create_with(ROOT, "f", None).expect("opens what is there").existed);
        assert_eq!(code(b.unlink(ROOT, "g")), FsCode::NotFound);
        let op = |to| Mutation::Rename {
            parent: ROOT,
            name: name("f"),
            new_parent: ROOT,
            new_name: name(to),
            mode: RenameMode::Replace,
        };
        b.ask(&Credential::ROOT, op("f")).expect("onto itself");
        assert_eq!(kinds(b), [ChangeType::Create]);
    });
}

#[test]
fn names_and_what_is_behind_them_are_told() {
    on_every_store(|b| {
        register(b, ChangeMask::USUAL);
        let d = b.mkdir(ROOT, "d").expect("makes");
        let f = b.create(d, "f").expect("makes");
        let g = b.create(d, "g").expect("makes");
        b.link(f, ROOT, "h").expect("links");
        b.unlink(ROOT, "h").expect("removes");
        let rename =
            |from, to, mode| Mutation::Rename { parent: d, name: name(from), new_parent: d, new_name: name(to), mode };
        b.ask(&Credential::ROOT, rename("f", "g", RenameMode::Replace)).expect("moves");
        let k = b.create(d, "k").expect("makes");
        b.ask(&Credential::ROOT, rename("g", "k", RenameMode::Exchange)).expect("change places");
        b.unlink(d, "g").expect("removes");
        b.unlink(d, "k").expect("removes");
        b.rmdir(ROOT, "d").expect("removes");
        let all = records(b);
        let told: Vec<_> = all.iter().map(|r| (r.kind, r.target, r.flags)).collect();
        let last = ChangeRecord::LAST_NAME;
        assert_eq!(
            told,
            [
                (ChangeType::Mkdir, Some(d), 0),
                (ChangeType::Create, Some(f), 0),
                (ChangeType::Create, Some(g), 0),
                (ChangeType::HardLink, Some(f), 0),
                (ChangeType::Unlink, Some(f), 0),
                (ChangeType::Rename, Some(g), last),
                (ChangeType::Create, Some(k), 0),
                (ChangeType::Rename, None, 0),
                (ChangeType::Rename, None, 0),
                (ChangeType::Unlink, Some(k), last),
                (ChangeType::Unlink, Some(f), last),
                (ChangeType::Rmdir, Some(d), last),
            ]
        );
        let (moved, old) = all[5].source.clone().expect("was somewhere");
        assert_eq!((moved, old.parent, old.name), (f, d, name("f")));
        assert_eq!(all[7].source.as_ref().expect("was somewhere").0, f);
        assert_eq!(all[8].source.as_ref().expect("was somewhere").0, k);
        assert!(all.iter().enumerate().all(|(i, r)| r.index == i as u64 + 1));
    });
}

#[test]
fn records_stay_until_every_user_has_cleared_them() {
    on_every_store(|b| {
        let (one, two) = (register(b, ChangeMask::USUAL), register(b, "CREAT".parse().expect("a mask")));
        for i in 0..5 {
            b.create(ROOT, &format!("f{i}")).expect("makes");
        }
        let clear = |b: &mut Bench<'_>, id, end| {
            follow(b, Change::Clear { id, end })?;
            follow(b, Change::Purge)
        };
        assert_eq!(clear(b, one.id, 3), Ok(Answer::More(false)));
        assert_eq!(records(b).len(), 5);
        clear(b, two.id, 2).expect("clears");
        assert_eq!(records(b).first().map(|r| r.index), Some(3));
        assert_eq!(code(clear(b, two.id, 6)), FsCode::Invalid);
        assert_eq!(code(clear(b, 99, 1)), FsCode::NotFound);
        // Clearing less than before takes nothing back.
        clear(b, two.id, 1).expect("clears");
        let log = changelog::show(&*b.view()).expect("reads");
        assert_eq!((log.index, log.first, log.users[1].cleared), (5, 3, 2));
        clear(b, one.id, 0).expect("clears");
        clear(b, two.id, 0).expect("clears");
        assert_eq!(records(b), []);
        // Numbers go on.
        b.create(ROOT, "next").expect("makes");
        assert_eq!(records(b).iter().map(|r| r.index).collect::<Vec<_>>(), [6]);
    });
}

#[test]
fn only_what_somebody_wants_is_recorded() {
    on_every_store(|b| {
        register(b, "RMDIR".parse().expect("a mask"));
        b.mkdir(ROOT, "d").expect("makes");
        b.create(ROOT, "f").expect("makes");
        b.rmdir(ROOT, "d").expect("removes");
        assert_eq!(kinds(b), [ChangeType::Rmdir]);
    });
}
