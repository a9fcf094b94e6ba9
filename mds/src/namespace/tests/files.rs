//! Files: layouts, sizes, truncates, what is left behind, extended attributes.

use sateen_types::layout::TemplateComponent;
use sateen_types::op::{Mutation, MutationReply, ReadDone, SetTime, WriteDone, XattrMode};
use sateen_types::{
    Attr, Credential, Extent, Fid, FileType, FsCode, LayoutTemplate, OstIndex, StripePattern, Timestamp, XattrName,
};

use super::bench::{ALICE, Bench, code, name};
use super::on_every_store;
use crate::command::{Command, Outcome};
use crate::namespace;
use crate::store::Table;
use crate::store::codec::Record;
use crate::store::keys::{self, IntentKind};
use crate::store::records::{DestroyIntent, TruncateIntent};

const ROOT: Fid = Fid::ROOT;

/// Two components: one stripe up to 1 MiB, then two.
fn two_components() -> LayoutTemplate {
    let mut t = LayoutTemplate::plain(StripePattern::raid0(1));
    t.components[0].extent.end = 1 << 20;
    let extent = Extent { start: 1 << 20, end: Extent::EOF };
    t.components.push(TemplateComponent { extent, striping: StripePattern::raid0(2) });
    t
}

fn intents(b: &Bench<'_>, kind: IntentKind) -> Vec<(keys::IntentId, Vec<u8>)> {
    let view = b.view();
    (0..4)
        .flat_map(|ost| view.scan(Table::Intents, &keys::intents_of_ost(kind, OstIndex(ost)), None, 99).expect("scans"))
        .map(|(key, value)| (keys::parse_intent(&key).expect("own key"), value))
        .collect()
}

#[test]
fn only_the_first_component_gets_osts_and_later_ones_when_they_are_reached() {
    on_every_store(|b| {
        let layout = b.create_with(ROOT, "f", Some(two_components())).expect("makes").layout.expect("opened");
        let fid = b.lookup(ROOT, "f").expect("found").fid;
        assert_eq!(layout.components.iter().map(|c| c.osts.len()).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(b.instantiate(fid, 0, 1 << 20).expect("is there"), layout, "nothing to do, nothing changed");
        let grown = b.instantiate(fid, (1 << 20) - 1, 2).expect("places");
        assert_eq!(grown.components[1].osts.len(), 2);
        assert_eq!(grown.components[0], layout.components[0]);
        assert!(grown.generation > layout.generation);
        assert_eq!(namespace::get_layout(&*b.view(), fid).expect("reads"), grown);
    });
}

#[test]
fn a_file_ends_where_its_layout_ends() {
    on_every_store(|b| {
        let mut t = two_components();
        t.components.truncate(1);
        b.create_with(ROOT, "f", Some(t)).expect("makes");
        let fid = b.lookup(ROOT, "f").expect("found").fid;
        assert_eq!(code(b.instantiate(fid, 1 << 20, 1)), FsCode::FileTooBig);
        assert_eq!(code(b.setattr(&Credential::ROOT, fid, |s| s.size = Some((1 << 20) + 1))), FsCode::FileTooBig);
        assert_eq!(code(b.write_done(fid, (1 << 20) + 1, 0)), FsCode::FileTooBig);
    });
}

#[test]
fn new_files_inherit_the_layout_of_their_directory_and_new_directories_do_too() {
    on_every_store(|b| {
        let d = b.mkdir(ROOT, "d").expect("makes");
        let plain = LayoutTemplate::plain(StripePattern { stripe_size: 256 << 10, ..StripePattern::raid0(4) });
        let op = Mutation::SetDefaultLayout { fid: d, layout: Some(plain.clone()) };
        b.ask(&Credential::ROOT, op).expect("sets");
        let sub = b.mkdir(d, "sub").expect("makes");
        let layout = b.create_with(sub, "f", None).expect("makes").layout.expect("opened");
        assert_eq!((layout.components[0].osts.len(), layout.components[0].striping.stripe_size), (4, 256 << 10));
        assert_eq!(namespace::inherited_template(&*b.view(), sub).expect("reads"), (plain, true));
        let other = b.mkdir(ROOT, "other").expect("makes");
        let (template, own) = namespace::inherited_template(&*b.view(), other).expect("reads");
        assert_eq!((template, own), (LayoutTemplate::default(), false));
    });
}

#[test]
fn a_full_or_empty_cluster_refuses_a_create_with_a_hint() {
    on_every_store(|b| {
        for ost in &mut b.osts {
            ost.available = 0;
        }
        let err = b.create(ROOT, "f").expect_err("full");
        assert_eq!(err.code, FsCode::NoSpace);
        assert!(err.hint.is_some());
        assert_eq!(code(b.lookup(ROOT, "f")), FsCode::NotFound);
        b.mkdir(ROOT, "d").expect("directories need no OST");
    });
}

#[test]
fn shrinking_leaves_an_intent_per_ost_and_guards_the_file_until_they_are_done() {
    on_every_store(|b| {
        b.create_with(ROOT, "f", Some(two_components())).expect("makes");
        let fid = b.lookup(ROOT, "f").expect("found").fid;
        let layout = b.instantiate(fid, 0, 4 << 20).expect("places");
        b.write_done(fid, 4 << 20, 4 << 20).expect("writes");
        let attr = b.setattr(&Credential::ROOT, fid, |s| s.size = Some((1 << 20) + 5)).expect("cuts");
        assert_eq!((attr.size, attr.mtime), ((1 << 20) + 5, b.now()));
        let cuts = intents(b, IntentKind::Truncate);
        let mut sizes = Vec::new();
        for (id, value) in &cuts {
            let intent = TruncateIntent::from_bytes(value).expect("reads");
            assert_eq!(intent.fid, fid);
            sizes.extend(intent.objects.iter().map(|o| (id.ost, o.component.0, o.size, o.chunk_log2)));
        }
        let second = &layout.components[1];
        let mut want: Vec<_> = (0..2)
            .map(|i| (second.osts[i], 2, second.object_len(sateen_types::StripeIndex(i as u32), (1 << 20) + 5).0, 17))
            .collect();
        want.sort();
        sizes.sort();
        assert_eq!(sizes, want, "the first component lies below the new size");
        let write = sateen_types::op::Access { write: true, ..Default::default() };
        assert_eq!(code(namespace::open(&*b.view(), &Credential::ROOT, fid, write)), FsCode::Unavailable);
        assert_eq!(code(b.setattr(&Credential::ROOT, fid, |s| s.size = Some(1))), FsCode::Unavailable);
        assert_eq!(code(b.instantiate(fid, 0, 1)), FsCode::Unavailable);
        let done = cuts.iter().map(|(id, _)| (*id, -(1 << 20))).collect();
        b.run(Command::IntentsDone { done }).expect("finishes");
        assert!(!namespace::has_pending_truncate(&*b.view(), fid).expect("reads"));
        assert_eq!(b.attr(fid).blocks, (2 << 20) / 512);
        b.setattr(&Credential::ROOT, fid, |s| s.size = Some(9 << 20)).expect("grows");
        assert!(intents(b, IntentKind::Truncate).is_empty(), "growing needs no OST");
    });
}

#[test]
fn objects_of_a_removed_file_are_destroyed_also_while_a_truncate_is_pending() {
    on_every_store(|b| {
        b.create_with(ROOT, "f", Some(two_components())).expect("makes");
        let fid = b.lookup(ROOT, "f").expect("found").fid;
        b.instantiate(fid, 0, 4 << 20).expect("places");
        b.setattr(&Credential::ROOT, fid, |s| s.size = Some(0)).expect("cuts");
        b.unlink(ROOT, "f").expect("removes");
        assert!(intents(b, IntentKind::Truncate).is_empty());
        let objects: usize = intents(b, IntentKind::Destroy)
            .iter()
            .map(|(_, value)| DestroyIntent::from_bytes(value).expect("reads").objects.len())
            .sum();
        assert_eq!(objects, 3);
    });
}

#[test]
fn an_open_file_outlives_its_last_name_until_it_is_dropped() {
    on_every_store(|b| {
        let fid = b.create(ROOT, "f").expect("makes");
        b.open.push(fid);
        b.unlink(ROOT, "f").expect("removes the name");
        assert_eq!(b.attr(fid).nlink, 0);
        b.write_done(fid, 100, 4096).expect("is still written");
        assert_eq!(code(b.link(fid, ROOT, "back")), FsCode::NotFound);
        b.run(Command::DropOrphan { fid }).expect("does nothing while it is open");
        assert_eq!(b.attr(fid).size, 100);
        b.open.clear();
        b.run(Command::DropOrphan { fid }).expect("drops");
        assert_eq!(code(namespace::get_attr(&*b.view(), fid)), FsCode::Stale);
        assert_eq!(intents(b, IntentKind::Destroy).len(), 1);
        assert_eq!(code(b.write_done(fid, 1, 0)), FsCode::Stale);
        b.run(Command::DropOrphan { fid }).expect("again does nothing");
    });
}

#[test]
fn drop_orphan_never_touches_a_file_with_a_name() {
    on_every_store(|b| {
        let fid = b.create(ROOT, "f").expect("makes");
        b.run(Command::DropOrphan { fid }).expect("ignores it");
        assert_eq!(b.attr(fid).nlink, 1);
    });
}

#[test]
fn late_write_reports_never_shrink_a_file_nor_its_space_below_zero() {
    on_every_store(|b| {
        let fid = b.create(ROOT, "f").expect("makes");
        b.write_done(fid, 1000, 4096).expect("writes");
        let attr = b.write_done(fid, 10, -8192).expect("writes");
        assert_eq!((attr.size, attr.blocks), (1000, 0));
    });
}

#[test]
fn a_write_changed_the_file_when_it_was_made_and_not_when_it_is_reported() {
    on_every_store(|b| {
        let fid = b.create(ROOT, "f").expect("makes");
        let made = namespace::get_attr(&*b.view(), fid).expect("reads").ctime;
        let mut report = |mtime: Option<Timestamp>| {
            let op = WriteDone { fid, end: 10, mtime, allocated_delta: 4096, clear_suid: false };
            b.attr_of(&Credential::ROOT, Mutation::WriteDone(op)).expect("writes")
        };
        assert_eq!(report(None).ctime, made, "space alone is no change");
        let later = Timestamp { nanos: 5, ..made };
        let attr = report(Some(later));
        assert_eq!((attr.mtime, attr.ctime), (later, later));
        let behind = report(Some(Timestamp { seconds: 1, nanos: 0 }));
        assert_eq!((behind.mtime.seconds, behind.ctime), (1, later), "by a clock that is behind");
        assert!(behind.change > attr.change);
    });
}

#[test]
fn an_empty_file_gets_another_layout_and_a_written_one_keeps_its_own() {
    on_every_store(|b| {
        let fid = b.create(ROOT, "f").expect("makes");
        let layout = b.set_layout(fid, LayoutTemplate::plain(StripePattern::raid0(3))).expect("sets");
        assert_eq!(layout.components[0].osts.len(), 3);
        assert_eq!(layout.components[0].id.0, 5, "numbers of the four old components are not used again");
        b.write_done(fid, 1, 4096).expect("writes");
        assert_eq!(code(b.set_layout(fid, LayoutTemplate::default())), FsCode::Exists);
        let d = b.mkdir(ROOT, "d").expect("makes");
        assert_eq!(code(b.set_layout(d, LayoutTemplate::default())), FsCode::IsDirectory);
    });
}

#[test]
fn truncate_applies_to_regular_files_only() {
    on_every_store(|b| {
        let d = b.mkdir(ROOT, "d").expect("makes");
        assert_eq!(code(b.setattr(&Credential::ROOT, d, |s| s.size = Some(0))), FsCode::IsDirectory);
        let op =
            Mutation::Mknod { parent: ROOT, name: name("p"), mode: 0o600.into(), file_type: FileType::Fifo, rdev: 0 };
        b.ask(&Credential::ROOT, op).expect("makes");
        let fifo = b.lookup(ROOT, "p").expect("found").fid;
        assert_eq!(code(b.setattr(&Credential::ROOT, fifo, |s| s.size = Some(0))), FsCode::Invalid);
    });
}

#[test]
fn symbolic_links_and_devices_come_back_as_they_were_made() {
    on_every_store(|b| {
        b.ask(&ALICE, Mutation::Symlink { parent: ROOT, name: name("l"), target: b"../x".to_vec() }).expect("makes");
        let link = b.lookup(ROOT, "l").expect("found");
        assert_eq!((link.file_type, link.size, link.mode), (FileType::Symlink, 4, 0o777));
        assert_eq!(namespace::read_link(&*b.view(), link.fid).expect("reads"), b"../x");
        let device = |n| Mutation::Mknod {
            parent: ROOT,
            name: name(n),
            mode: 0o600.into(),
            file_type: FileType::CharDevice,
            rdev: 0x103,
        };
        assert_eq!(code(b.ask(&ALICE, device("c"))), FsCode::NotPermitted);
        b.ask(&Credential::ROOT, device("c")).expect("makes");
        assert_eq!(b.lookup(ROOT, "c").expect("found").rdev, 0x103);
    });
}

#[test]
fn reading_a_file_changes_its_access_time_but_not_its_version() {
    on_every_store(|b| {
        let fid = b.create(ROOT, "f").expect("makes");
        let before = b.attr(fid);
        let at = Timestamp { seconds: 5, nanos: 7 };
        let attr = b.setattr(&Credential::ROOT, fid, |s| s.atime = Some(SetTime::At(at))).expect("sets");
        assert_eq!((attr.atime, attr.change, attr.mtime), (at, before.change, before.mtime));
        let attr = b.setattr(&Credential::ROOT, fid, |s| s.mtime = Some(SetTime::At(at))).expect("sets");
        assert!(attr.change > before.change);
    });
}

#[test]
fn attributes_have_modes_name_spaces_and_bounds() {
    on_every_store(|b| {
        let fid = b.create_as(&ALICE, ROOT, "f", 0o600).expect("makes");
        let set = |n: &str, value: &[u8], mode| Mutation::SetXattr {
            fid,
            name: XattrName::parse(n.as_bytes()).expect("valid"),
            value: value.to_vec(),
            mode,
        };
        let get = |b: &Bench<'_>, who: &Credential, n: &str| {
            namespace::get_xattr(&*b.view(), who, fid, &XattrName::parse(n.as_bytes()).expect("valid"))
        };
        assert_eq!(code(b.ask(&ALICE, set("user.a", b"1", XattrMode::Replace))), FsCode::NoData);
        b.ask(&ALICE, set("user.a", b"1", XattrMode::Create)).expect("sets");
        assert_eq!(code(b.ask(&ALICE, set("user.a", b"2", XattrMode::Create))), FsCode::Exists);
        b.ask(&ALICE, set("user.a", b"2", XattrMode::Set)).expect("sets");
        assert_eq!(get(b, &ALICE, "user.a").expect("reads"), b"2");
        assert_eq!(code(get(b, &super::bench::BOB, "user.a")), FsCode::AccessDenied);
        assert_eq!(code(b.ask(&ALICE, set("trusted.t", b"", XattrMode::Set))), FsCode::NotPermitted);
        assert_eq!(code(b.ask(&ALICE, set("security.selinux", b"", XattrMode::Set))), FsCode::NotPermitted);
        assert_eq!(code(b.ask(&ALICE, set("system.other", b"", XattrMode::Set))), FsCode::NotSupported);
        assert_eq!(code(b.ask(&ALICE, set("user.", b"", XattrMode::Set))), FsCode::Invalid);
        b.ask(&Credential::ROOT, set("trusted.t", b"x", XattrMode::Set)).expect("sets");
        assert_eq!(namespace::list_xattr(&*b.view(), &ALICE, fid).expect("lists"), [b"user.a".to_vec()]);
        assert_eq!(namespace::list_xattr(&*b.view(), &Credential::ROOT, fid).expect("lists").len(), 2);
        assert_eq!(code(get(b, &ALICE, "user.b")), FsCode::NoData);
        assert_eq!(code(b.ask(&ALICE, set("user.big", &[0; 65537], XattrMode::Set))), FsCode::TooBig);
        b.ask(&ALICE, set("user.big", &[0; 65536], XattrMode::Set)).expect("sets");
        assert_eq!(code(b.ask(&ALICE, set("user.big2", &[0; 65536], XattrMode::Set))), FsCode::NoSpace);
        let remove = |n: &str| Mutation::RemoveXattr { fid, name: XattrName::parse(n.as_bytes()).expect("valid") };
        assert!(matches!(b.ask(&ALICE, remove("user.a")), Ok(MutationReply::Attr(_))));
        assert_eq!(code(b.ask(&ALICE, remove("user.a"))), FsCode::NoData);
        b.unlink(ROOT, "f").expect("removes attributes with the file");
    });
}

#[test]
fn sequences_are_taken_once() {
    on_every_store(|b| {
        let first = b.run(Command::AllocSequence).expect("takes");
        assert_eq!(first, Outcome::Sequence(Fid::SEQ_FIRST));
        assert_eq!(b.run(Command::AllocSequence).expect("takes"), Outcome::Sequence(Fid::SEQ_FIRST + 1));
    });
}

#[test]
fn reports_of_reads_move_access_times_forward_and_nothing_else() {
    on_every_store(|b| {
        let (f, g) = (b.create(ROOT, "f").expect("makes"), b.create(ROOT, "g").expect("makes"));
        let before = b.attr(f);
        let gone = Fid { seq: Fid::SEQ_FIRST, oid: 9_999, ver: 0 };
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        let report = |b: &mut Bench<'_>, times| {
            b.ask(&ALICE, Mutation::ReadDone(ReadDone { times })).expect("never refused");
        };
        let now = b.now().seconds;
        report(b, vec![(gone, at(now)), (f, at(now)), (g, at(5))]);
        assert_eq!(b.attr(f), Attr { atime: at(now), ..before.clone() });
        assert_eq!(b.attr(g).atime, b.attr(g).btime, "an older time changes nothing");
        report(b, vec![(f, at(now + 1_000_000))]);
        assert_eq!(b.attr(f).atime, b.now(), "a client's clock may be wrong");
    });
}
