//! ACLs: setting, what they do to the mode, who is let in, what is inherited.

use sateen_types::acl::{ACCESS_XATTR, Acl, DEFAULT_XATTR, Named};
use sateen_types::op::{Access, Create, Mutation, MutationReply, NewMode, XattrMode};
use sateen_types::{Attr, Credential, Fid, FileType, FsCode, FsResult, XattrName};

use super::bench::{ALICE, BOB, Bench, code, name};
use super::on_every_store;
use crate::namespace;

const ROOT: Fid = Fid::ROOT;
const CAROL: Credential = Credential { uid: 3000, gid: 300, groups: Vec::new() };
const READ: Access = Access { read: true, write: false, exec: false };
const WRITE: Access = Access { read: false, write: true, exec: false };

fn xattr(name: &[u8]) -> XattrName {
    XattrName::parse(name).expect("valid")
}

/// `u::OWNER,u:BOB:bob,g::GROUP,m::MASK,o::OTHER` from five octal digits.
fn with_bob(digits: [u32; 5]) -> Acl {
    let [owner, bob, group, mask, other] = digits;
    let users = vec![Named { id: BOB.uid, perm: bob }];
    Acl { owner, group, other, mask: Some(mask), users, groups: Vec::new() }
}

/// What a mode says, as a list.
fn minimal(mode: u32) -> Acl {
    let (owner, group, other) = (mode >> 6 & 7, mode >> 3 & 7, mode & 7);
    Acl { owner, group, other, mask: None, users: Vec::new(), groups: Vec::new() }
}

fn set(b: &mut Bench<'_>, who: &Credential, fid: Fid, kind: &[u8], acl: &Acl) -> FsResult<Attr> {
    b.attr_of(who, Mutation::SetXattr { fid, name: xattr(kind), value: acl.to_xattr(), mode: XattrMode::Set })
}

fn remove(b: &mut Bench<'_>, who: &Credential, fid: Fid, kind: &[u8]) -> FsResult<Attr> {
    b.attr_of(who, Mutation::RemoveXattr { fid, name: xattr(kind) })
}

fn get(b: &Bench<'_>, fid: Fid, kind: &[u8]) -> FsResult<Acl> {
    let value = namespace::get_xattr(&*b.view(), &CAROL, fid, &xattr(kind))?;
    Ok(Acl::parse(&value).expect("well formed").expect("has entries"))
}

fn open(b: &Bench<'_>, who: &Credential, fid: Fid, access: Access) -> FsResult<()> {
    namespace::open(&*b.view(), who, fid, access).map(drop)
}

fn make(b: &mut Bench<'_>, op: Mutation) -> Attr {
    match b.ask(&ALICE, op).expect("makes") {
        MutationReply::Entry(entry) => entry.attr,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_named_user_is_let_in_and_the_mask_is_the_group_digit_of_the_mode() {
    on_every_store(|b| {
        let f = b.create_as(&ALICE, ROOT, "f", 0o640).expect("makes");
        assert_eq!(code(open(b, &BOB, f, READ)), FsCode::AccessDenied);
        let acl = with_bob([6, 6, 4, 6, 0]);
        let attr = set(b, &ALICE, f, ACCESS_XATTR, &acl).expect("owner");
        assert_eq!((attr.mode, attr.has_acl, attr.ctime), (0o660, true, b.now()));
        open(b, &BOB, f, Access::READ_WRITE).expect("named");
        let colleague = Credential { uid: 7, gid: 100, groups: Vec::new() };
        open(b, &colleague, f, READ).expect("the owning group");
        assert_eq!(code(open(b, &colleague, f, WRITE)), FsCode::AccessDenied, "the mask gives it, the entry does not");
        assert_eq!(code(open(b, &CAROL, f, READ)), FsCode::AccessDenied);
        assert_eq!(get(b, f, ACCESS_XATTR).expect("there"), acl);
        let list = namespace::list_xattr(&*b.view(), &CAROL, f).expect("lists");
        assert_eq!(list, [ACCESS_XATTR.to_vec()]);
    });
}

#[test]
fn chmod_changes_owner_mask_and_others_of_the_list() {
    on_every_store(|b| {
        let f = b.create_as(&ALICE, ROOT, "f", 0o600).expect("makes");
        set(b, &ALICE, f, ACCESS_XATTR, &with_bob([7, 6, 5, 7, 4])).expect("owner");
        b.setattr(&ALICE, f, |s| s.mode = Some(0o4641)).expect("owner");
        assert_eq!(get(b, f, ACCESS_XATTR).expect("there"), with_bob([6, 6, 5, 4, 1]));
        assert_eq!(code(open(b, &BOB, f, WRITE)), FsCode::AccessDenied, "masked");
        open(b, &BOB, f, READ).expect("within the mask");
    });
}

#[test]
fn a_list_that_says_no_more_than_a_mode_becomes_the_mode() {
    on_every_store(|b| {
        let f = b.create_as(&ALICE, ROOT, "f", 0o600).expect("makes");
        set(b, &ALICE, f, ACCESS_XATTR, &with_bob([7, 6, 5, 7, 4])).expect("owner");
        let attr = set(b, &ALICE, f, ACCESS_XATTR, &minimal(0o754)).expect("owner");
        assert_eq!((attr.mode, attr.has_acl), (0o754, false));
        assert_eq!(code(get(b, f, ACCESS_XATTR)), FsCode::NoData);
        // A mask alone says more: it may differ from the group's entry.
        let masked = Acl { mask: Some(0), ..minimal(0o754) };
        let attr = set(b, &ALICE, f, ACCESS_XATTR, &masked).expect("owner");
        assert_eq!((attr.mode, attr.has_acl), (0o704, true));
        assert_eq!(get(b, f, ACCESS_XATTR).expect("there"), masked);
        let attr = remove(b, &ALICE, f, ACCESS_XATTR).expect("owner");
        assert_eq!((attr.mode, attr.has_acl), (0o704, false), "removing leaves the mode");
        let before = b.attr(f);
        assert_eq!(remove(b, &ALICE, f, ACCESS_XATTR).expect("nothing to do"), before);
    });
}

#[test]
fn acls_are_set_by_the_owner_on_what_can_have_them() {
    on_every_store(|b| {
        let f = b.create_as(&ALICE, ROOT, "f", 0o666).expect("makes");
        let d = b.mkdir_as(&ALICE, ROOT, "d", 0o777).expect("makes");
        let acl = with_bob([6, 6, 4, 6, 0]);
        for (fid, kind) in [(f, ACCESS_XATTR), (d, ACCESS_XATTR), (d, DEFAULT_XATTR)] {
            assert_eq!(code(set(b, &BOB, fid, kind, &acl)), FsCode::NotPermitted);
            set(b, &Credential::ROOT, fid, kind, &acl).expect("root");
            assert_eq!(code(remove(b, &BOB, fid, kind)), FsCode::NotPermitted);
        }
        assert_eq!(code(set(b, &ALICE, f, DEFAULT_XATTR, &acl)), FsCode::AccessDenied, "not a directory");
        assert_eq!(code(get(b, f, DEFAULT_XATTR)), FsCode::NoData);
        let op = Mutation::Symlink { parent: ROOT, name: name("l"), target: b"f".to_vec() };
        let link = make(b, op).fid;
        assert_eq!(code(set(b, &ALICE, link, ACCESS_XATTR, &acl)), FsCode::NotSupported);
        assert_eq!(code(get(b, link, ACCESS_XATTR)), FsCode::NotSupported);
        let broken = Mutation::SetXattr {
            fid: f,
            name: xattr(ACCESS_XATTR),
            value: b"\x02\0\0\0rubbish!".to_vec(),
            mode: XattrMode::Set,
        };
        assert_eq!(code(b.ask(&ALICE, broken)), FsCode::Invalid);
        let foreign =
            Mutation::SetXattr { fid: f, name: xattr(b"system.other"), value: Vec::new(), mode: XattrMode::Set };
        assert_eq!(code(b.ask(&Credential::ROOT, foreign)), FsCode::NotSupported);
    });
}

#[test]
fn setting_an_acl_drops_setgid_of_a_foreign_group() {
    on_every_store(|b| {
        let f = b.create_as(&ALICE, ROOT, "f", 0o755).expect("makes");
        b.setattr(&Credential::ROOT, f, |s| (s.gid, s.mode) = (Some(999), Some(0o6755))).expect("root");
        assert_eq!(set(b, &ALICE, f, ACCESS_XATTR, &with_bob([7, 5, 5, 5, 5])).expect("owner").mode, 0o4755);
    });
}

#[test]
fn a_default_acl_is_inherited_in_place_of_the_umask() {
    on_every_store(|b| {
        let d = b.mkdir_as(&ALICE, ROOT, "d", 0o755).expect("makes");
        let default = with_bob([7, 7, 5, 7, 0]);
        let attr = set(b, &ALICE, d, DEFAULT_XATTR, &default).expect("owner");
        assert_eq!((attr.mode, attr.has_acl, attr.has_default_acl), (0o755, false, true), "the directory is as before");
        let mode = NewMode::with_umask(0o666, 0o077);
        let create = Create { parent: d, name: name("f"), mode, exclusive: true, open: None, layout: None };
        let f = make(b, Mutation::Create(create));
        assert_eq!((f.mode, f.has_acl, f.has_default_acl), (0o660, true, false));
        assert_eq!(get(b, f.fid, ACCESS_XATTR).expect("inherited"), with_bob([6, 7, 5, 6, 0]));
        let op = Mutation::Mknod { parent: d, name: name("p"), mode, file_type: FileType::Fifo, rdev: 0 };
        let fifo = make(b, op);
        assert_eq!((fifo.mode, fifo.has_acl), (0o660, true));
        let op = Mutation::Symlink { parent: d, name: name("l"), target: b"f".to_vec() };
        let link = make(b, op);
        assert_eq!((link.mode, link.has_acl), (0o777, false));
        let mode = NewMode::with_umask(0o777, 0o077);
        let sub = make(b, Mutation::Mkdir { parent: d, name: name("sub"), mode });
        assert_eq!((sub.mode, sub.has_acl, sub.has_default_acl), (0o770, true, true));
        assert_eq!(get(b, sub.fid, DEFAULT_XATTR).expect("handed on"), default);
        assert_eq!(get(b, sub.fid, ACCESS_XATTR).expect("inherited"), default);
    });
}

#[test]
fn a_default_acl_without_mask_gives_modes_only() {
    on_every_store(|b| {
        let d = b.mkdir_as(&ALICE, ROOT, "d", 0o755).expect("makes");
        set(b, &ALICE, d, DEFAULT_XATTR, &minimal(0o750)).expect("owner");
        let f = b.create_as(&ALICE, d, "f", 0o666).expect("makes");
        assert_eq!((b.attr(f).mode, b.attr(f).has_acl), (0o640, false));
        remove(b, &ALICE, d, DEFAULT_XATTR).expect("owner");
        let mode = NewMode::with_umask(0o666, 0o027);
        let create = Create { parent: d, name: name("g"), mode, exclusive: true, open: None, layout: None };
        assert_eq!(make(b, Mutation::Create(create)).mode, 0o640, "without one the umask counts");
    });
}

#[test]
fn an_acl_decides_about_names_in_a_directory_too() {
    on_every_store(|b| {
        let d = b.mkdir_as(&ALICE, ROOT, "d", 0o700).expect("makes");
        b.create_as(&ALICE, d, "f", 0o644).expect("makes");
        set(b, &ALICE, d, ACCESS_XATTR, &with_bob([7, 1, 0, 7, 0])).expect("owner");
        namespace::lookup(&*b.view(), &BOB, d, Some(&name("f"))).expect("may search");
        assert_eq!(code(b.create_as(&BOB, d, "g", 0o644)), FsCode::AccessDenied);
        set(b, &ALICE, d, ACCESS_XATTR, &with_bob([7, 3, 0, 7, 0])).expect("owner");
        b.create_as(&BOB, d, "g", 0o644).expect("may write");
        assert_eq!(code(namespace::read_dir(&*b.view(), &BOB, d, 0, 10)), FsCode::AccessDenied);
    });
}
