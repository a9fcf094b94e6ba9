//! ACLs against bytes that Linux made, against what it refuses, and against POSIX.1e's algorithm word by word.

use proptest::prelude::*;

use super::*;

/// `user::rw-, user:1000:r--, group::r-x, group:7:-w-, mask::rwx, other::---` as setfacl writes it.
const BYTES: &str = "02000000\
    01000600ffffffff 02000400e8030000 04000500ffffffff 0800020007000000 10000700ffffffff 20000000ffffffff";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |p: &[u8]| u8::from_str_radix(std::str::from_utf8(p).expect("ASCII"), 16).expect("hex");
    digits.chunks(2).map(pair).collect()
}

fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut out = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        out.extend(tag.to_le_bytes());
        out.extend(perm.to_le_bytes());
        out.extend(id.to_le_bytes());
    }
    out
}

fn named(max: usize) -> impl Strategy<Value = Vec<Named>> {
    proptest::collection::btree_map(0u32..6, 0u32..8, 0..max)
        .prop_map(|m| m.into_iter().map(|(id, perm)| Named { id, perm }).collect())
}

fn acls() -> impl Strategy<Value = Acl> {
    (0u32..8, 0u32..8, 0u32..8, proptest::option::of(0u32..8), named(4), named(4)).prop_map(
        |(owner, group, other, mask, users, groups)| {
            let mask = if users.is_empty() && groups.is_empty() { mask } else { mask.or(Some(5)) };
            Acl { owner, group, other, mask, users, groups }
        },
    )
}

#[test]
fn the_form_is_that_of_linux() {
    let acl = Acl::parse(&bytes(BYTES)).expect("valid").expect("has entries");
    assert_eq!((acl.owner, acl.group, acl.mask, acl.other), (6, 5, Some(7), 0));
    assert_eq!(acl.users, [Named { id: 1000, perm: 4 }]);
    assert_eq!(acl.groups, [Named { id: 7, perm: 2 }]);
    assert_eq!(acl.to_xattr(), bytes(BYTES));
    assert_eq!(acl.split().0, 0o670, "the group's digit of the mode is the mask");
    assert_eq!(Acl::parse(&bytes("02000000")).expect("valid"), None, "no entries: no ACL");
    assert_eq!(Acl::parse(&[]).expect("valid"), None);
}

#[test]
fn what_linux_refuses_is_refused() {
    const OWNER: (u16, u16, u32) = (1, 6, NO_ID);
    const GROUP: (u16, u16, u32) = (4, 4, NO_ID);
    const MASK: (u16, u16, u32) = (16, 7, NO_ID);
    const OTHER: (u16, u16, u32) = (32, 4, NO_ID);
    let bad = [
        ("half a version", vec![2, 0]),
        ("half an entry", [list(&[OWNER, GROUP, OTHER]), vec![1]].concat()),
        ("no owner", list(&[GROUP, OTHER])),
        ("no others", list(&[OWNER, GROUP])),
        ("no group", list(&[OWNER, OTHER])),
        ("two owners", list(&[OWNER, OWNER, GROUP, OTHER])),
        ("another order", list(&[GROUP, OWNER, OTHER])),
        ("a user behind the group", list(&[OWNER, GROUP, (2, 4, 5), MASK, OTHER])),
        ("a named user without mask", list(&[OWNER, (2, 4, 5), GROUP, OTHER])),
        ("a named group without mask", list(&[OWNER, GROUP, (8, 4, 5), OTHER])),
        ("a user named twice", list(&[OWNER, (2, 4, 5), (2, 6, 5), GROUP, MASK, OTHER])),
        ("nobody named", list(&[OWNER, (2, 4, NO_ID), GROUP, MASK, OTHER])),
        ("more than rwx", list(&[(1, 8, NO_ID), GROUP, OTHER])),
        ("an unknown kind", list(&[OWNER, GROUP, OTHER, (64, 4, NO_ID)])),
        ("no kind", list(&[(0, 4, NO_ID), OWNER, GROUP, OTHER])),
    ];
    for (what, value) in bad {
        assert_eq!(Acl::parse(&value).expect_err(what).code, FsCode::Invalid, "{what}");
    }
    assert_eq!(Acl::parse(&[3, 0, 0, 0]).expect_err("version").code, FsCode::NotSupported);
    let user = |n| (2, 4, n);
    let many: Vec<_> =
        [OWNER].into_iter().chain((0..ACL_ENTRIES_MAX as u32).map(user)).chain([GROUP, MASK, OTHER]).collect();
    assert_eq!(Acl::parse(&list(&many)).expect_err("many").code, FsCode::TooBig);
    let most: Vec<_> =
        [OWNER].into_iter().chain((4..ACL_ENTRIES_MAX as u32).map(user)).chain([GROUP, MASK, OTHER]).collect();
    assert_eq!(Acl::parse(&list(&most)).expect("the most").expect("entries").users.len(), ACL_ENTRIES_MAX - 4);
}

/// POSIX.1e, 23.1.5, "ACL Access Check Algorithm", steps 2 to 5, as it stands there.
fn posix_1e(acl: &Acl, who: &Credential, file_gid: u32, wanted: u32) -> bool {
    let masked = |perm: u32| perm & acl.mask.unwrap_or(7);
    for user in &acl.users {
        if user.id == who.uid {
            return masked(user.perm) & wanted == wanted;
        }
    }
    let mut matched = false;
    let mut grants = false;
    let all_groups: Vec<u32> = [who.gid].into_iter().chain(who.groups.iter().copied()).collect();
    for gid in all_groups {
        if gid == file_gid {
            matched = true;
            grants |= masked(acl.group) & wanted == wanted;
        }
        for group in &acl.groups {
            if group.id == gid {
                matched = true;
                grants |= masked(group.perm) & wanted == wanted;
            }
        }
    }
    if matched { grants } else { acl.other & wanted == wanted }
}

proptest! {
    #[test]
    fn lists_survive_their_form_and_the_mode(acl in acls(), high in 0u32..8) {
        prop_assert_eq!(Acl::parse(&acl.to_xattr()).expect("valid"), Some(acl.clone()));
        let (bits, extended) = acl.clone().split();
        prop_assert_eq!(extended.is_some(), acl.mask.is_some());
        if let Some(extended) = extended {
            prop_assert_eq!(extended.with_mode(high << 9 | bits), acl);
        }
    }

    #[test]
    fn the_order_of_named_entries_does_not_matter(acl in acls()) {
        let mut shuffled = acl.clone();
        shuffled.users.reverse();
        shuffled.groups.reverse();
        prop_assert_eq!(Acl::parse(&shuffled.to_xattr()).expect("valid"), Some(acl));
    }

    #[test]
    fn bytes_never_panic(value in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = Acl::parse(&value);
        let _ = Acl::parse(&[&2u32.to_le_bytes()[..], &value].concat());
    }

    #[test]
    fn access_is_decided_as_posix_1e_says(
        acl in acls(), uid in 1u32..6, gid in 0u32..6, groups in proptest::collection::vec(0u32..6, 0..4),
        file_gid in 0u32..6, wanted in 1u32..8,
    ) {
        let who = Credential { uid, gid, groups };
        let expected = posix_1e(&acl, &who, file_gid, wanted);
        if let (bits, Some(extended)) = acl.split() {
            prop_assert_eq!(extended.allows(&who, bits, file_gid, wanted), expected);
        }
    }

    #[test]
    fn what_is_inherited_gives_no_more_than_was_asked_for(acl in acls(), mode in 0u32..0o10000) {
        let (got, extended) = acl.inherit(mode);
        prop_assert_eq!(got & !mode, 0);
        prop_assert_eq!(got >> 9, mode >> 9, "set-user-id and the like are kept");
        prop_assert_eq!(got >> 6 & 7, mode >> 6 & 7 & acl.owner);
        prop_assert_eq!(got & 7, mode & 7 & acl.other);
        prop_assert_eq!(got >> 3 & 7, mode >> 3 & 7 & acl.mask.unwrap_or(acl.group));
        prop_assert_eq!(extended.map(|e| (e.group, e.users, e.groups)), acl.mask.map(|_| (acl.group, acl.users, acl.groups)));
    }
}
