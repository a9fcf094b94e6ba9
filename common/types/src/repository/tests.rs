//! Numbers, words, settings, keys and ranges: what users type and strangers write.

use super::*;
use crate::layout::Extent;
use crate::limits::CHUNK_BYTES_MAX;
use proptest::prelude::*;

fn extent(start: u64, end: u64) -> Extent {
    Extent { start, end }
}

#[test]
fn numbers_are_printed_as_fsx_does_and_read_again() {
    let id = RepositoryId(0x1234_5678_9abc_def0);
    assert_eq!(id.to_string(), "dra-0123456789abcdef0");
    assert_eq!(id.to_string().parse(), Ok(id));
    for bad in ["", "dra-", "dra-123", "fs-0123456789abcdef0", "dra-0123456789abcdefg", "dra-f123456789abcdef0"] {
        assert!(bad.parse::<RepositoryId>().is_err(), "{bad:?}");
    }
}

#[test]
fn hsm_words_come_in_the_order_that_scripts_look_for() {
    let imported = HsmFlags::EXISTS | HsmFlags::RELEASED | HsmFlags::ARCHIVED;
    assert_eq!(imported.to_string(), "(0x0000000d) released exists archived");
    assert_eq!(imported.set(HsmFlags::RELEASED, false).to_string(), "(0x00000009) exists archived");
    let all = HsmFlags(0x7f).to_string();
    assert_eq!(all, "(0x0000007f) released exists dirty archived never_release never_archive lost_from_hsm");
    assert_eq!(HsmFlags::default().to_string(), "(0x00000000)");
}

#[test]
fn urls_get_their_slash_and_hostile_ones_are_refused() {
    for (given, kept) in [
        ("s3://bucket", "s3://bucket/"),
        ("s3://bucket/", "s3://bucket/"),
        ("s3://b-1.x/a/b", "s3://b-1.x/a/b/"),
        ("file:///srv/data", "file:///srv/data/"),
        ("gs://b/p/", "gs://b/p/"),
        ("az://c/p", "az://c/p/"),
    ] {
        assert_eq!(given.parse::<RepositoryUrl>().expect(given).to_string(), kept);
    }
    for bad in [
        "",
        "bucket",
        "s3:/b",
        "s3://",
        "s3:///x",
        "ftp://b/x",
        "s3://b/../x",
        "s3://b//x",
        "s3://b/./x",
        "file:///",
        "file://host/x",
        "s3://us er/x",
        "s3://b/a\0b",
        "s3://k:s@b/",
    ] {
        assert!(bad.parse::<RepositoryUrl>().expect_err(bad).hint.is_some());
    }
    assert!(format!("s3://b/{}", "x".repeat(1024)).parse::<RepositoryUrl>().is_err());
}

#[test]
fn overlapping_links_are_recognised_part_by_part() {
    let path = |s: &str| s.parse::<LinkPath>().expect(s);
    assert!(path("/ns1").overlaps(&path("/ns1/ns2")));
    assert!(path("/").overlaps(&path("/x")));
    assert!(!path("/ns1").overlaps(&path("/ns10")));
    assert_eq!(path("/a/b/").as_str(), "/a/b");
    for bad in ["", "a", "/a//b", "/../x", "/a/.", "//", "/a\0"] {
        assert!(bad.parse::<LinkPath>().is_err(), "{bad:?}");
    }
    let url = |s: &str| s.parse::<RepositoryUrl>().expect(s);
    assert!(url("s3://b/x").overlaps(&url("s3://b/x/y")));
    assert!(url("s3://b").overlaps(&url("s3://b/y")));
    assert!(!url("s3://b/x").overlaps(&url("s3://b/xy")));
    assert!(!url("s3://b/x").overlaps(&url("s3://c/x")));
}

#[test]
fn settings_are_filled_in_and_checked() {
    let mut s = RepositorySettings::new("/d".parse().expect("path"), "s3://b".parse().expect("url"));
    (s.region, s.profile, s.chunk_mib) = (String::new(), String::new(), 0);
    s.endpoint = "http://127.0.0.1:9000/".to_owned();
    let s = s.checked().expect("valid");
    assert_eq!((s.region.as_str(), s.profile.as_str(), s.chunk_mib), ("us-east-1", "default", 1024));
    assert_eq!(s.endpoint, "http://127.0.0.1:9000");
    let bad = |change: fn(&mut RepositorySettings)| {
        let mut s = s.clone();
        change(&mut s);
        s.checked().expect_err("refused")
    };
    for error in [
        bad(|s| s.chunk_mib = 512_001),
        bad(|s| s.profile = "../x".to_owned()),
        bad(|s| s.region = "x".repeat(65)),
        bad(|s| s.endpoint = "http://user:secret@host".to_owned()),
        bad(|s| s.endpoint = "host:9000".to_owned()),
        bad(|s| s.endpoint = "http://h/path".to_owned()),
    ] {
        assert!(error.hint.is_some() && !error.message.contains("secret"), "{error:?}");
    }
}

#[test]
fn keys_become_paths_by_the_strict_rules_only() {
    let path = ObjectPath::parse("a/ü/c".as_bytes()).expect("valid");
    assert_eq!((path.names.len(), path.directory), (3, false));
    assert!(ObjectPath::parse(b"dir/").expect("valid").directory);
    let long = vec![b'x'; 256];
    let huge = [b"x/".repeat(512), b"y".to_vec()].concat();
    let bad: [&[u8]; 15] = [
        b"",
        b"/",
        b"/a",
        b"a//b",
        b"a//",
        b".",
        b"..",
        b"./",
        b"a/..",
        b"a/./b",
        b"../../etc/passwd",
        b"a\0b",
        b"\xff",
        &long,
        &huge,
    ];
    for key in bad {
        assert!(ObjectPath::parse(key).is_err(), "{:?}", String::from_utf8_lossy(key));
    }
}

#[test]
fn loaded_ranges_from_outside_are_checked() {
    for bad in
        [vec![extent(5, 5)], vec![extent(0, 11)], vec![extent(0, 3), extent(3, 4)], vec![extent(4, 5), extent(0, 1)]]
    {
        assert!(Remote::new(10, bad.clone()).is_err(), "{bad:?}");
    }
    assert!(Remote::new(10, vec![extent(0, 3), extent(4, 10)]).is_ok());
    let many = (0..=crate::limits::LOADED_RANGES_MAX as u64).map(|i| extent(2 * i, 2 * i + 1)).collect();
    assert!(Remote::new(1 << 40, many).is_err());
}

proptest! {
    #[test]
    fn a_key_that_is_a_path_comes_back_as_it_was(key in proptest::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(path) = ObjectPath::parse(&key) {
            prop_assert!(!path.names.is_empty());
            prop_assert_eq!(path.to_key(), key);
        }
    }

    /// Against a set of bytes.
    #[test]
    fn what_is_missing_and_loaded_agrees_with_a_set_of_bytes(
        end in 0u64..60, adds in proptest::collection::vec((0u64..70, 0u64..20), 0..12), ask in (0u64..70, 0u64..30),
    ) {
        let mut remote = Remote::none_loaded(end);
        let mut set = [false; 200];
        for (start, len) in adds {
            remote.add(extent(start, start + len));
            (start..(start + len).min(end)).for_each(|at| set[at as usize] = true);
            prop_assert_eq!(Remote::new(end, remote.loaded().to_vec()).expect("stays valid"), remote.clone());
        }
        prop_assert_eq!(remote.loaded_bytes(), set.iter().filter(|b| **b).count() as u64);
        prop_assert_eq!(remote.all_loaded(), (0..end).all(|at| set[at as usize]));
        let range = extent(ask.0, ask.0 + ask.1);
        let missing = remote.missing(range);
        for at in 0..130 {
            let expected = at >= range.start && at < range.end && at < end && !set[at as usize];
            prop_assert_eq!(missing.iter().any(|r| r.start <= at && at < r.end), expected, "byte {}", at);
        }
        prop_assert!(missing.iter().all(|r| r.start < r.end));
        prop_assert_eq!(remote.is_loaded(range), missing.is_empty());
    }

    #[test]
    fn whole_chunks_hold_the_range(end in 1u64..1 << 22, start in 0u64..1 << 22, len in 1u64..1 << 20) {
        let remote = Remote::none_loaded(end);
        let grown = remote.chunks(extent(start, start + len));
        prop_assert!(grown.start.is_multiple_of(u64::from(CHUNK_BYTES_MAX)) || grown.start == end);
        prop_assert!(grown.end == end || grown.end.is_multiple_of(u64::from(CHUNK_BYTES_MAX)));
        prop_assert!(grown.end <= end && grown.start <= start);
        prop_assert!(start >= end || (grown.start <= start && grown.end >= (start + len).min(end)));
    }
}
