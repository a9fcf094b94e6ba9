//! Names: create, link, remove, rename, list.

use sateen_types::op::RenameMode;
use sateen_types::{Credential, Fid, FsCode};

use super::bench::code;
use super::{Bench, on_every_store};
use crate::namespace;

const ROOT: Fid = Fid::ROOT;

#[test]
fn a_new_name_is_found_and_a_taken_one_refused() {
    on_every_store(|b| {
        let d = b.mkdir(ROOT, "d").expect("makes");
        let f = b.create(d, "f").expect("makes");
        assert_eq!(b.lookup(d, "f").expect("found").fid, f);
        assert_eq!(code(b.create(d, "f")), FsCode::Exists);
        assert_eq!(code(b.mkdir(d, "f")), FsCode::Exists);
        assert_eq!(code(b.lookup(d, "g")), FsCode::NotFound);
        assert_eq!(code(b.create(f, "x")), FsCode::NotDirectory);
        assert_eq!(b.attr(ROOT).nlink, 3);
        let entry = b.create_with(d, "f", None).expect("opens what is there");
        assert!(entry.existed && entry.layout.is_some());
        assert_eq!(code(b.create_with(ROOT, "d", None)), FsCode::IsDirectory);
        assert_eq!(namespace::lookup(&*b.view(), &Credential::ROOT, d, None).expect("..").attr.fid, ROOT);
    });
}

#[test]
fn a_directory_goes_only_when_empty_and_names_in_it_are_gone_for_good() {
    on_every_store(|b| {
        let d = b.mkdir(ROOT, "d").expect("makes");
        b.create(d, "f").expect("makes");
        assert_eq!(code(b.rmdir(ROOT, "d")), FsCode::NotEmpty);
        assert_eq!(code(b.unlink(ROOT, "d")), FsCode::IsDirectory);
        assert_eq!(code(b.rmdir(d, "f")), FsCode::NotDirectory);
        b.unlink(d, "f").expect("removes");
        b.rmdir(ROOT, "d").expect("removes");
        assert_eq!(code(b.create(d, "late")), FsCode::NotFound);
        assert_eq!(b.attr(ROOT).nlink, 2);
        assert_eq!(code(b.rmdir(ROOT, "d")), FsCode::NotFound);
    });
}

#[test]
fn hard_links_share_the_file_and_the_last_name_ends_it() {
    on_every_store(|b| {
        let d = b.mkdir(ROOT, "d").expect("makes");
        let f = b.create(ROOT, "f").expect("makes");
        b.link(f, d, "g").expect("links");
        assert_eq!(b.lookup(d, "g").expect("found").nlink, 2);
        assert_eq!(code(b.link(d, ROOT, "dd")), FsCode::NotPermitted);
        assert_eq!(code(b.link(f, d, "g")), FsCode::Exists);
        let mut paths = namespace::paths_of(&*b.view(), f).expect("has names");
        paths.sort();
        assert_eq!(paths, [b"d/g".to_vec(), b"f".to_vec()]);
        b.unlink(ROOT, "f").expect("removes");
        assert_eq!(b.attr(f).nlink, 1);
        b.unlink(d, "g").expect("removes");
        assert_eq!(code(namespace::get_attr(&*b.view(), f)), FsCode::Stale);
        assert_eq!(code(namespace::paths_of(&*b.view(), f)), FsCode::NotFound);
    });
}

#[test]
fn rename_replaces_a_file_and_keeps_its_place_in_listings() {
    on_every_store(|b| {
        for n in ["a", "b", "c"] {
            b.create(ROOT, n).expect("makes");
        }
        let c = b.lookup(ROOT, "c").expect("found").fid;
        b.rename((ROOT, "c"), (ROOT, "a")).expect("renames");
        assert_eq!(b.lookup(ROOT, "a").expect("found").fid, c);
        assert_eq!(b.list(ROOT), ["a", "b"]);
        b.rename((ROOT, "a"), (ROOT, "z")).expect("renames");
        assert_eq!(b.list(ROOT), ["z", "b"], "a name that stays in its directory keeps its cookie");
        assert_eq!(code(b.rename((ROOT, "nope"), (ROOT, "x"))), FsCode::NotFound);
    });
}

#[test]
fn rename_refuses_what_posix_refuses() {
    on_every_store(|b| {
        let d = b.mkdir(ROOT, "d").expect("makes");
        let sub = b.mkdir(d, "sub").expect("makes");
        b.mkdir(ROOT, "empty").expect("makes");
        b.create(ROOT, "f").expect("makes");
        b.create(sub, "g").expect("makes");
        assert_eq!(code(b.rename((ROOT, "d"), (sub, "x"))), FsCode::Invalid);
        assert_eq!(code(b.rename((ROOT, "d"), (d, "x"))), FsCode::Invalid);
        assert_eq!(code(b.rename((ROOT, "d"), (ROOT, "f"))), FsCode::NotDirectory);
        assert_eq!(code(b.rename((ROOT, "f"), (ROOT, "empty"))), FsCode::IsDirectory);
        assert_eq!(code(b.rename((ROOT, "empty"), (ROOT, "d"))), FsCode::NotEmpty);
        assert_eq!(code(b.rename((d, "sub"), (ROOT, "d"))), FsCode::NotEmpty);
        b.rename((ROOT, "d"), (ROOT, "empty")).expect("replaces an empty directory");
        assert_eq!(b.attr(ROOT).nlink, 3);
        b.rename((d, "sub"), (ROOT, "sub")).expect("moves up");
        assert_eq!((b.attr(ROOT).nlink, b.attr(d).nlink), (4, 2));
    });
}

#[test]
fn rename_of_two_names_of_one_file_does_nothing() {
    on_every_store(|b| {
        let f = b.create(ROOT, "f").expect("makes");
        b.link(f, ROOT, "g").expect("links");
        b.rename((ROOT, "f"), (ROOT, "g")).expect("no-op");
        assert_eq!(b.list(ROOT), ["f", "g"]);
        b.rename((ROOT, "f"), (ROOT, "f")).expect("no-op");
        assert_eq!(b.attr(f).nlink, 2);
    });
}

#[test]
fn exchange_swaps_and_no_replace_does_not_replace() {
    on_every_store(|b| {
        let root = Credential::ROOT;
        let d = b.mkdir(ROOT, "d").expect("makes");
        let sub = b.mkdir(d, "sub").expect("makes");
        let f = b.create(ROOT, "f").expect("makes");
        b.rename_as(&root, (ROOT, "f"), (d, "sub"), RenameMode::Exchange).expect("swaps");
        assert_eq!(b.lookup(ROOT, "f").expect("found").fid, sub);
        assert_eq!(b.lookup(d, "sub").expect("found").fid, f);
        assert_eq!((b.attr(ROOT).nlink, b.attr(d).nlink), (4, 2));
        assert_eq!(code(b.rename_as(&root, (ROOT, "f"), (ROOT, "no"), RenameMode::Exchange)), FsCode::NotFound);
        assert_eq!(code(b.rename_as(&root, (ROOT, "f"), (ROOT, "d"), RenameMode::NoReplace)), FsCode::Exists);
        b.rename_as(&root, (ROOT, "f"), (d, "back"), RenameMode::NoReplace).expect("free");
        assert_eq!(code(b.rename_as(&root, (ROOT, "d"), (d, "back"), RenameMode::Exchange)), FsCode::Invalid);
        assert_eq!(code(b.rename_as(&root, (d, "back"), (ROOT, "d"), RenameMode::Exchange)), FsCode::Invalid);
    });
}

#[test]
fn listings_page_by_cookies_that_survive_changes_behind_them() {
    on_every_store(|b| {
        for i in 0..10 {
            b.create(ROOT, &format!("f{i}")).expect("makes");
        }
        let page = |b: &Bench<'_>, after, max| {
            namespace::read_dir(&*b.view(), &Credential::ROOT, ROOT, after, max).expect("lists")
        };
        let first = page(b, 0, 4);
        assert!(!first.end && first.entries.len() == 4 && first.parent == ROOT);
        let fids: Vec<Fid> = first.entries.iter().map(|e| e.fid).chain([Fid { ver: 1, ..ROOT }]).collect();
        let attrs = namespace::get_attrs(&*b.view(), &fids).expect("reads");
        assert!(first.entries.iter().zip(&attrs).all(|(e, a)| e.cookie > 2 && a == &Some(b.attr(e.fid))));
        assert_eq!(attrs.last(), Some(&None), "there is no such file");
        let last = first.entries.last().expect("four").cookie;
        b.unlink(ROOT, "f3").expect("removes the last one seen");
        b.create(ROOT, "new").expect("makes");
        let rest = page(b, last, 100);
        let names: Vec<_> = rest.entries.iter().map(|e| e.name.to_string()).collect();
        assert_eq!(names, ["f4", "f5", "f6", "f7", "f8", "f9", "new"]);
        assert!(rest.end);
        assert!(page(b, last, 7).end, "a page that is exactly full knows it is the last");
    });
}

#[test]
fn parents_get_new_times_and_change_numbers() {
    on_every_store(|b| {
        let d = b.mkdir(ROOT, "d").expect("makes");
        let before = b.attr(d);
        b.create(d, "f").expect("makes");
        let after = b.attr(d);
        assert_eq!((after.mtime, after.ctime), (b.now(), b.now()));
        assert!(after.change > before.change);
        b.rename((d, "f"), (ROOT, "f")).expect("moves");
        assert_eq!(b.attr(d).mtime, b.now());
        assert_eq!(b.attr(ROOT).mtime, b.now());
        assert_eq!(b.lookup(ROOT, "f").expect("found").ctime, b.now());
    });
}
