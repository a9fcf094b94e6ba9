//! Who may do what.

use sateen_types::attr::FILE_CAPABILITIES_XATTR;
use sateen_types::op::{Access, Mutation, RenameMode, SetTime, WriteDone, XattrMode};
use sateen_types::{Attr, Credential, Fid, FsCode, FsResult, Timestamp, XattrName};

use super::bench::{ALICE, BOB, code, name};
use super::on_every_store;
use crate::namespace;

const ROOT: Fid = Fid::ROOT;

#[test]
fn the_first_matching_class_decides() {
    on_every_store(|b| {
        let f = b.create_as(&ALICE, ROOT, "f", 0o047).expect("makes");
        let read = Access { read: true, ..Access::default() };
        let open = |who: &Credential, a| namespace::open(&*b.view(), who, f, a).map(drop);
        assert_eq!(code(open(&ALICE, read)), FsCode::AccessDenied, "the owner has no bit, whatever others have");
        let colleague = Credential { uid: 7, gid: 1, groups: vec![100] };
        open(&colleague, read).expect("a supplementary group counts");
        let write = Access { write: true, ..Access::default() };
        assert_eq!(code(open(&colleague, write)), FsCode::AccessDenied);
        open(&BOB, Access { read: true, write: true, exec: true }).expect("others have all");
        open(&Credential::ROOT, write).expect("root may");
    });
}

#[test]
fn root_executes_only_what_somebody_may_execute() {
    on_every_store(|b| {
        let f = b.create_as(&ALICE, ROOT, "f", 0o644).expect("makes");
        let exec = Access { exec: true, ..Access::default() };
        assert_eq!(code(namespace::open(&*b.view(), &Credential::ROOT, f, exec)), FsCode::AccessDenied);
        b.setattr(&ALICE, f, |s| s.mode = Some(0o645)).expect("owner");
        namespace::open(&*b.view(), &Credential::ROOT, f, exec).expect("others may, so root may");
    });
}

#[test]
fn search_permission_comes_before_the_question_whether_the_name_exists() {
    on_every_store(|b| {
        let d = b.mkdir_as(&ALICE, ROOT, "d", 0o700).expect("makes");
        b.create_as(&ALICE, d, "f", 0o644).expect("makes");
        for n in ["f", "nothing"] {
            assert_eq!(code(namespace::lookup(&*b.view(), &BOB, d, Some(&name(n)))), FsCode::AccessDenied);
            assert_eq!(code(b.unlink_as(&BOB, d, n)), FsCode::AccessDenied);
            assert_eq!(code(b.create_as(&BOB, d, n, 0o644)), FsCode::AccessDenied);
        }
        b.setattr(&ALICE, d, |s| s.mode = Some(0o755)).expect("owner");
        assert_eq!(code(b.create_as(&BOB, d, "f", 0o644)), FsCode::Exists, "before write permission, as in Linux");
        assert_eq!(code(b.create_as(&BOB, d, "g", 0o644)), FsCode::AccessDenied);
        assert_eq!(code(b.unlink_as(&BOB, d, "g")), FsCode::NotFound);
        assert_eq!(code(b.unlink_as(&BOB, d, "f")), FsCode::AccessDenied);
    });
}

#[test]
fn in_a_sticky_directory_only_owners_remove_and_rename() {
    on_every_store(|b| {
        let tmp = b.mkdir_as(&Credential::ROOT, ROOT, "tmp", 0o1777).expect("makes");
        b.create_as(&ALICE, tmp, "a", 0o666).expect("makes");
        b.create_as(&BOB, tmp, "b", 0o666).expect("makes");
        assert_eq!(code(b.unlink_as(&BOB, tmp, "a")), FsCode::NotPermitted);
        let rename =
            |b: &mut super::Bench<'_>, from, to| b.rename_as(&BOB, (tmp, from), (tmp, to), RenameMode::Replace);
        assert_eq!(code(rename(b, "a", "c")), FsCode::NotPermitted);
        assert_eq!(code(rename(b, "b", "a")), FsCode::NotPermitted, "a would be replaced");
        rename(b, "b", "c").expect("his own");
        b.unlink_as(&ALICE, tmp, "a").expect("her own");
    });
}

#[test]
fn a_setgid_directory_hands_down_its_group() {
    on_every_store(|b| {
        let d = b.mkdir(ROOT, "d").expect("makes");
        b.setattr(&Credential::ROOT, d, |s| (s.gid, s.mode) = (Some(500), Some(0o2777))).expect("sets");
        let f = b.create_as(&ALICE, d, "f", 0o2755).expect("makes");
        assert_eq!((b.attr(f).gid, b.attr(f).mode), (500, 0o755), "a foreign group loses set-group-id");
        let sub = b.mkdir_as(&ALICE, d, "sub", 0o755).expect("makes");
        assert_eq!((b.attr(sub).gid, b.attr(sub).mode), (500, 0o2755));
        let plain = b.create_as(&ALICE, ROOT, "plain", 0o644).expect("makes");
        assert_eq!(b.attr(plain).gid, 100);
    });
}

#[test]
fn chmod_is_for_owners_and_drops_setgid_of_a_foreign_group() {
    on_every_store(|b| {
        let f = b.create_as(&ALICE, ROOT, "f", 0o644).expect("makes");
        assert_eq!(code(b.setattr(&BOB, f, |s| s.mode = Some(0o777))), FsCode::NotPermitted);
        assert_eq!(b.setattr(&ALICE, f, |s| s.mode = Some(0o2755)).expect("own group").mode, 0o2755);
        b.setattr(&Credential::ROOT, f, |s| s.gid = Some(999)).expect("root");
        assert_eq!(b.setattr(&ALICE, f, |s| s.mode = Some(0o6755)).expect("owner").mode, 0o4755);
        assert_eq!(b.setattr(&Credential::ROOT, f, |s| s.mode = Some(0o6755)).expect("root").mode, 0o6755);
    });
}

#[test]
fn chown_follows_posix_and_takes_privileges_away() {
    on_every_store(|b| {
        let f = b.create_as(&ALICE, ROOT, "f", 0o6755).expect("makes");
        assert_eq!(code(b.setattr(&ALICE, f, |s| s.uid = Some(2000))), FsCode::NotPermitted);
        assert_eq!(code(b.setattr(&ALICE, f, |s| s.gid = Some(200))), FsCode::NotPermitted);
        assert_eq!(code(b.setattr(&BOB, f, |s| s.gid = Some(200))), FsCode::NotPermitted);
        let member = Credential { groups: vec![300], ..ALICE };
        let attr = b.setattr(&member, f, |s| (s.uid, s.gid) = (Some(1000), Some(300))).expect("own group");
        assert_eq!((attr.gid, attr.mode, attr.ctime), (300, 0o755, b.now()));
        let d = b.mkdir_as(&ALICE, ROOT, "d", 0o755).expect("makes");
        b.setattr(&ALICE, d, |s| s.mode = Some(0o2755)).expect("owner");
        let attr = b.setattr(&Credential::ROOT, d, |s| s.uid = Some(5)).expect("root");
        assert_eq!(attr.mode, 0o2755, "directories keep set-group-id");
    });
}

#[test]
fn times_are_set_by_owners_and_the_present_by_writers_too() {
    on_every_store(|b| {
        let f = b.create_as(&ALICE, ROOT, "f", 0o666).expect("makes");
        let past = Some(SetTime::At(Timestamp { seconds: 1, nanos: 1 }));
        assert_eq!(code(b.setattr(&BOB, f, |s| s.mtime = past)), FsCode::NotPermitted);
        b.setattr(&BOB, f, |s| (s.atime, s.mtime) = (Some(SetTime::Now), Some(SetTime::Now))).expect("may write");
        assert_eq!(b.attr(f).mtime, b.now());
        b.setattr(&ALICE, f, |s| s.mode = Some(0o600)).expect("owner");
        assert_eq!(code(b.setattr(&BOB, f, |s| s.mtime = Some(SetTime::Now))), FsCode::AccessDenied);
        b.setattr(&ALICE, f, |s| s.mtime = past).expect("owner");
    });
}

#[test]
fn truncate_needs_write_permission_or_an_open_file_and_clears_setuid() {
    on_every_store(|b| {
        let f = b.create_as(&ALICE, ROOT, "f", 0o644).expect("makes");
        assert_eq!(code(b.setattr(&BOB, f, |s| s.size = Some(0))), FsCode::AccessDenied);
        b.setattr(&BOB, f, |s| (s.size, s.via_open_file) = (Some(10), true)).expect("opened before a chmod");
        b.setattr(&ALICE, f, |s| s.mode = Some(0o6755)).expect("owner");
        assert_eq!(b.setattr(&ALICE, f, |s| s.size = Some(20)).expect("writes").mode, 0o755);
    });
}

#[test]
fn moving_a_directory_elsewhere_needs_write_permission_on_it() {
    on_every_store(|b| {
        let from = b.mkdir_as(&BOB, ROOT, "from", 0o777).expect("makes");
        let to = b.mkdir_as(&BOB, ROOT, "to", 0o777).expect("makes");
        b.mkdir_as(&ALICE, from, "hers", 0o755).expect("makes");
        let rename = |b: &mut super::Bench<'_>, to| b.rename_as(&BOB, (from, "hers"), to, RenameMode::Replace);
        assert_eq!(code(rename(b, (to, "his"))), FsCode::AccessDenied);
        rename(b, (from, "renamed")).expect("its parent stays");
    });
}

#[test]
fn a_default_layout_is_set_by_the_owner() {
    on_every_store(|b| {
        let d = b.mkdir_as(&ALICE, ROOT, "d", 0o777).expect("makes");
        let op = Mutation::SetDefaultLayout { fid: d, layout: None };
        assert_eq!(code(b.ask(&BOB, op.clone())), FsCode::NotPermitted);
        b.ask(&ALICE, op).expect("owner");
    });
}

#[test]
fn whoever_may_write_may_take_set_user_id_away_and_nothing_else() {
    on_every_store(|b| {
        let f = b.create_as(&ALICE, ROOT, "f", 0o6777).expect("makes");
        assert_eq!(code(b.setattr(&BOB, f, |s| s.mode = Some(0o2777))), FsCode::NotPermitted);
        let attr = b.setattr(&BOB, f, |s| (s.size, s.mode) = (Some(0), Some(0o777))).expect("as Linux asks");
        assert_eq!(attr.mode, 0o777);
        assert_eq!(code(b.setattr(&BOB, f, |s| s.mode = Some(0o777))), FsCode::NotPermitted, "an ordinary chmod");
        let read_only = b.create_as(&ALICE, ROOT, "g", 0o4755).expect("makes");
        assert_eq!(code(b.setattr(&BOB, read_only, |s| s.mode = Some(0o755))), FsCode::NotPermitted);
    });
}

#[test]
fn capabilities_go_with_any_change_of_data_or_owner() {
    on_every_store(|b| {
        let f = b.create_as(&ALICE, ROOT, "f", 0o755).expect("makes");
        let name = XattrName::parse(FILE_CAPABILITIES_XATTR).expect("valid");
        let give = Mutation::SetXattr { fid: f, name: name.clone(), value: vec![1], mode: XattrMode::Set };
        let there = |b: &super::Bench<'_>| namespace::get_xattr(&*b.view(), &BOB, f, &name).is_ok();
        assert_eq!(code(b.ask(&ALICE, give.clone())), FsCode::NotPermitted);
        let changes: [fn(&mut super::Bench<'_>, Fid) -> FsResult<Attr>; 4] = [
            |b, f| b.write_done(f, 10, 4096),
            |b, f| b.setattr(&Credential::ROOT, f, |s| s.size = Some(5)),
            |b, f| b.setattr(&Credential::ROOT, f, |s| s.uid = Some(1000)),
            |b, f| b.setattr(&Credential::ROOT, f, |s| s.gid = Some(100)),
        ];
        for (i, change) in changes.into_iter().enumerate() {
            b.ask(&Credential::ROOT, give.clone()).expect("root gives");
            assert!(b.attr(f).has_capabilities && there(b));
            b.setattr(&ALICE, f, |s| s.mode = Some(0o700)).expect("a chmod changes nothing");
            assert!(there(b));
            change(b, f).expect("root may");
            assert!(!b.attr(f).has_capabilities && !there(b), "change {i}");
        }
        b.ask(&Credential::ROOT, give).expect("root gives");
        b.ask(&Credential::ROOT, Mutation::RemoveXattr { fid: f, name: name.clone() }).expect("root takes");
        assert!(!b.attr(f).has_capabilities);
    });
}

#[test]
fn writing_takes_setgid_without_execution_only_from_foreigners() {
    on_every_store(|b| {
        let wrote = |f| WriteDone { fid: f, end: 1, mtime: None, allocated_delta: 0, clear_suid: true };
        let f = b.create_as(&ALICE, ROOT, "f", 0o666).expect("makes");
        b.setattr(&ALICE, f, |s| s.mode = Some(0o6666)).expect("owner");
        let attr = b.attr_of(&ALICE, Mutation::WriteDone(wrote(f))).expect("writes");
        assert_eq!(attr.mode, 0o2666, "mandatory locking once, nobody's privilege");
        let attr = b.attr_of(&BOB, Mutation::WriteDone(wrote(f))).expect("writes");
        assert_eq!(attr.mode, 0o666);
    });
}
