//! Every record survives its encoding, and encodings of released versions stay readable.

use proptest::prelude::*;
use sateen_types::acl::{Acl, ExtendedAcl, Named};
use sateen_types::op::{Entry, MutationReply};
use sateen_types::{
    ComponentId, Compression, Fid, FsCode, Layout, LayoutTemplate, Name, OstIndex, OstUuid, StripeIndex, StripePattern,
    Timestamp,
};

use super::*;
use crate::store::codec::Record;

const F: Fid = Fid { seq: Fid::SEQ_FIRST, oid: 7, ver: 0 };

fn inodes() -> impl Strategy<Value = Inode> {
    let body = prop_oneof![
        Just(Body::Regular),
        (any::<u64>(), any::<u64>()).prop_map(|(entries, next_cookie)| Body::Directory { entries, next_cookie }),
        proptest::collection::vec(1u8.., 1..40).prop_map(Body::Symlink),
        Just(Body::Fifo),
        Just(Body::Socket),
        any::<u64>().prop_map(Body::CharDevice),
        any::<u64>().prop_map(Body::BlockDevice),
    ];
    let time = || (any::<i64>(), 0u32..1_000_000_000).prop_map(|(seconds, nanos)| Timestamp { seconds, nanos });
    let numbers = (0u32..0o10000, any::<u32>(), any::<u32>(), any::<u32>());
    let acls = (proptest::option::of(0u32..8), proptest::option::of(named_user()), any::<bool>());
    (numbers, any::<(u64, u64, u64)>(), [time(), time(), time(), time()], acls, body).prop_map(
        |(
            (mode, uid, gid, nlink),
            (size, allocated, change),
            [atime, mtime, ctime, btime],
            (group, default, has_capabilities),
            body,
        )| {
            Inode {
                mode,
                uid,
                gid,
                nlink,
                size,
                allocated,
                atime,
                mtime,
                ctime,
                btime,
                change,
                acl: group.map(|group| Box::new(ExtendedAcl { group, ..ExtendedAcl::default() })),
                default_acl: default.map(Box::new),
                has_capabilities,
                body,
            }
        },
    )
}

/// A list with one user.
fn named_user() -> impl Strategy<Value = Acl> {
    (0u32..8, 0u32..1000, 0u32..8).prop_map(|(owner, id, perm)| Acl {
        owner,
        group: 5,
        other: 0,
        mask: Some(7),
        users: vec![Named { id, perm }],
        groups: Vec::new(),
    })
}

fn survives<R: Record + PartialEq + std::fmt::Debug>(record: R) {
    let bytes = record.to_bytes();
    assert_eq!(R::from_bytes(&bytes).expect("own bytes"), record);
    for cut in 0..bytes.len() {
        assert_eq!(R::from_bytes(&bytes[..cut]).expect_err("cut short").code, FsCode::Corrupt);
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(R::from_bytes(&longer).expect_err("too long").code, FsCode::Corrupt);
    let mut newer = bytes;
    newer[0] += 1;
    assert_eq!(R::from_bytes(&newer).expect_err("newer version").code, FsCode::Corrupt);
}

fn layout() -> Layout {
    let mut layout = LayoutTemplate::default().resolve(&LayoutTemplate::default());
    layout.components[0].osts = vec![OstIndex(3)];
    layout.components[1].striping.start = Some(OstIndex(2));
    layout.components[2].striping.pool = Some("flash".parse().expect("valid"));
    layout
}

#[test]
fn every_record_survives_and_damaged_ones_are_refused() {
    let name = Name::parse(b"file").expect("valid");
    survives(Counter(9));
    survives(Dentry { fid: F, file_type: FileType::Fifo, cookie: 5 });
    survives(IndexEntry { fid: F, file_type: FileType::Socket, name });
    survives(layout());
    survives(LayoutTemplate::default());
    survives(LayoutTemplate::plain(StripePattern {
        stripe_count: 2,
        ost_list: vec![OstIndex(1), OstIndex(0)],
        ..StripePattern::raid0(2)
    }));
    survives(TruncateIntent {
        fid: F,
        objects: vec![TruncateObject { component: ComponentId(1), stripe: StripeIndex(2), chunk_log2: 17, size: 4 }],
    });
    survives(DestroyIntent {
        fid: F,
        objects: vec![(ComponentId(1), StripeIndex(0)), (ComponentId(2), StripeIndex(1))],
    });
    let opened = Timestamp { seconds: 1, nanos: 2 };
    survives(SessionRecord { client: "node1:77".into(), opened, writer: 0 });
    survives(SessionRecord { client: "node1:77".into(), opened, writer: 0x1122_3344 });
    survives(EndedWriterRecord { since: opened });
    survives(OstRecord { uuid: OstUuid([7; 16]) });
    survives(FileSystemRecord {
        name: "scratch".parse().expect("valid"),
        state: FsState::Deleting,
        compression: Compression::Lz4,
        created: Timestamp { seconds: 1, nanos: 2 },
    });
}

proptest! {
    #[test]
    fn inodes_and_replies_survive(inode in inodes(), number in any::<u64>(), existed in any::<bool>(), with in any::<bool>()) {
        prop_assert_eq!(&Inode::from_bytes(&inode.to_bytes()).expect("own bytes"), &inode);
        let mut attr = inode.attr(F);
        attr.mode &= 0o7777;
        for reply in [
            MutationReply::Entry(Entry { attr: attr.clone(), layout: with.then(layout), existed }),
            MutationReply::Attr(attr),
            MutationReply::Layout(layout()),
            MutationReply::Done,
        ] {
            let record = ReplyRecord { number, reply };
            prop_assert_eq!(&ReplyRecord::from_bytes(&record.to_bytes()).expect("own bytes"), &record);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = (Inode::from_bytes(&bytes), Layout::from_bytes(&bytes), ReplyRecord::from_bytes(&bytes));
        let _ = (TruncateIntent::from_bytes(&bytes), DestroyIntent::from_bytes(&bytes), Dentry::from_bytes(&bytes));
    }
}

fn directory() -> Inode {
    let time = |seconds| Timestamp { seconds, nanos: 1 };
    Inode {
        mode: 0o755,
        uid: 1,
        gid: 2,
        nlink: 3,
        size: 0,
        allocated: 0,
        atime: time(1),
        mtime: time(2),
        ctime: time(3),
        btime: time(4),
        change: 5,
        acl: None,
        default_acl: None,
        has_capabilities: false,
        body: Body::Directory { entries: 6, next_cookie: 7 },
    }
}

/// Bytes of version 1: a change here is a change of the disk format.
#[test]
fn version_1_looks_like_this() {
    let hex: String = directory().to_bytes().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        hex,
        concat!(
            "01",
            "02",
            "ed010000",
            "01000000",
            "02000000",
            "03000000",
            "0000000000000000",
            "0000000000000000",
            "010000000000000001000000",
            "020000000000000001000000",
            "030000000000000001000000",
            "040000000000000001000000",
            "0500000000000000",
            "0600000000000000",
            "0700000000000000"
        )
    );
    let hex: String =
        LayoutTemplate::plain(StripePattern::raid0(4)).to_bytes().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        hex,
        concat!(
            "01",
            "01000000",
            "0000000000000000",
            "ffffffffffffffff",
            "01",
            "00001000",
            "0400",
            "00",
            "00000000",
            "00000000"
        )
    );
}

/// Bytes of version 2: as version 1, then both ACLs in the form of their extended attributes, then the capabilities.
#[test]
fn version_2_of_an_inode_ends_with_acls_and_capabilities() {
    let plain = directory();
    let (bits, acl) =
        Acl { owner: 7, group: 5, other: 5, mask: Some(5), users: vec![Named { id: 9, perm: 6 }], groups: Vec::new() }
            .split();
    assert_eq!(bits, plain.mode);
    let inode = Inode { acl: acl.map(Box::new), ..plain.clone() };
    let bytes = inode.to_bytes();
    assert_eq!(bytes[0], 2);
    let length = plain.to_bytes().len();
    assert_eq!(bytes[1..length], plain.to_bytes()[1..]);
    let hex: String = bytes[length..].iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        hex,
        concat!(
            "2c000000",
            "02000000",
            "01000700ffffffff",
            "0200060009000000",
            "04000500ffffffff",
            "10000500ffffffff",
            "20000500ffffffff",
            "00000000",
            "00"
        )
    );
    assert_eq!(Inode::from_bytes(&bytes).expect("own bytes"), inode);
    let capable = Inode { has_capabilities: true, ..plain.clone() };
    assert_eq!(capable.to_bytes()[length..], [0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let mut torn = bytes.clone();
    torn[2] ^= 0o070;
    assert_eq!(Inode::from_bytes(&torn).expect_err("mode and mask differ").code, FsCode::Corrupt);
    let neither = [&[2][..], &plain.to_bytes()[1..], &[0; 9]].concat();
    assert_eq!(Inode::from_bytes(&neither).expect_err("version 2 for nothing").code, FsCode::Corrupt);
}

/// Attributes in replies of version 1 had no flags at their end.
#[test]
fn replies_of_version_1_stay_readable() {
    let record = ReplyRecord { number: 4, reply: MutationReply::Attr(directory().attr(F)) };
    let mut bytes = record.to_bytes();
    assert_eq!((bytes[0], bytes.pop()), (2, Some(0)));
    bytes[0] = 1;
    assert_eq!(ReplyRecord::from_bytes(&bytes).expect("as older servers wrote it"), record);
}

#[test]
fn sessions_of_before_writers_were_known_are_readable_and_later_ones_look_like_this() {
    let opened = Timestamp { seconds: 3, nanos: 4 };
    let old = b"\x01\x01\0\0\0c\x03\0\0\0\0\0\0\0\x04\0\0\0";
    let session = SessionRecord { client: "c".into(), opened, writer: 0 };
    assert_eq!(SessionRecord::from_bytes(old).expect("an old one"), session);
    assert_eq!(session.to_bytes(), old);
    let new = b"\x02\x01\0\0\0c\x03\0\0\0\0\0\0\0\x04\0\0\0\x07\0\0\0\0\0\0\0";
    assert_eq!(SessionRecord { writer: 7, ..session }.to_bytes(), new);
    assert_eq!(EndedWriterRecord { since: opened }.to_bytes(), b"\x01\x03\0\0\0\0\0\0\0\x04\0\0\0");
}
