//! Links, imports and what is loaded, on both stores: what a bucket of strangers can and cannot do here.

mod ranges;

use std::collections::BTreeMap;

use proptest::prelude::*;
use sateen_types::repository::{ImportPage, ImportState, ImportStatus, ImportedObject, RepositoryState};
use sateen_types::{
    Credential, Extent, Fid, FsCode, FsResult, HsmFlags, Remote, Repository, RepositoryId, RepositorySettings,
    Timestamp,
};

use super::bench::{ALICE, Bench, code};
use super::on_every_store;
use crate::command::{Command, Outcome};
use crate::namespace::repository::{self, Answer, Change};
use crate::store::codec::Record;
use crate::store::records::Sync;
use crate::store::{MemStore, Table, keys};

const CHUNK: u64 = 128 << 10;

fn change(b: &mut Bench<'_>, change: Change) -> FsResult<Answer> {
    match b.run(Command::Repository(Box::new(change)))? {
        Outcome::Repository(answer) => Ok(answer),
        other => panic!("{other:?}"),
    }
}

fn link(b: &mut Bench<'_>, path: &str, url: &str) -> FsResult<Repository> {
    let mut settings = RepositorySettings::new(path.parse().expect("path"), url.parse().expect("url"));
    settings.batch_import = true;
    match change(b, Change::Create { settings })? {
        Answer::Link(link) => Ok(*link),
        other => panic!("{other:?}"),
    }
}

/// A link of `/data`, with an import that can go on.
fn linked(b: &mut Bench<'_>) -> Repository {
    b.run(Command::AllocSequence).expect("the bench uses it");
    let link = link(b, "/data", "s3://bucket/p").expect("links");
    assert_eq!((link.state, link.import.state), (RepositoryState::Creating, ImportState::Queued));
    let checked = change(b, Change::Checked { id: link.id, message: String::new(), with: None }).expect("checks");
    let Answer::Link(link) = checked else { panic!("{checked:?}") };
    assert_eq!(link.state, RepositoryState::Available);
    *link
}

fn object(key: impl AsRef<[u8]>, size: u64, etag: &str) -> ImportedObject {
    ImportedObject {
        key: key.as_ref().to_vec(),
        size,
        etag: etag.to_owned(),
        modified: Timestamp { seconds: 77, nanos: 0 },
        mode: None,
        uid: None,
        gid: None,
        atime: None,
        mtime: None,
        symlink: None,
    }
}

fn page(
    b: &mut Bench<'_>,
    id: RepositoryId,
    run: u64,
    objects: &[ImportedObject],
    last: bool,
) -> FsResult<ImportStatus> {
    let mut objects = objects.to_vec();
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    let after = objects.last().map(|o| o.key.clone()).unwrap_or_default();
    let page = ImportPage { from: Vec::new(), objects, after, skipped: Vec::new(), known: Vec::new(), last, stamp: 0 };
    let looked = b.look();
    match change(b, Change::Import { id, run, page, looked })? {
        Answer::Import(status) => Ok(status),
        other => panic!("{other:?}"),
    }
}

fn import_again(b: &mut Bench<'_>, id: RepositoryId, objects: &[ImportedObject]) -> ImportStatus {
    change(b, Change::StartImport { id, sync: Sync::No }).expect("starts");
    let run = repository::get(&*b.view(), id).expect("there").run;
    page(b, id, run, objects, true).expect("imports")
}

fn flags(b: &Bench<'_>, fid: Fid) -> HsmFlags {
    repository::hsm(&*b.view(), fid).expect("reads").expect("from a repository").flags
}

fn remote(b: &Bench<'_>, fid: Fid) -> Option<Remote> {
    repository::remote(&*b.view(), fid).expect("reads")
}

fn loaded(b: &mut Bench<'_>, fid: Fid, etag: &str, start: u64, end: u64) -> FsResult<Answer> {
    let range = Extent { start, end };
    change(b, Change::Prepare { fid, range })?;
    change(b, Change::Loaded { fid, etag: etag.to_owned(), range, allocated_delta: 4096 })
}

/// Everything below a directory: path, kind, size, mode, owner, target or ETag. No FIDs: what was made when does not matter.
fn tree(b: &Bench<'_>, dir: Fid, at: &str, out: &mut BTreeMap<String, String>) {
    for name in b.list(dir) {
        let attr = b.lookup(dir, &name).expect("listed");
        let path = format!("{at}/{name}");
        let row = repository::hsm(&*b.view(), attr.fid).expect("reads").map(|r| (r.key, r.etag, r.flags));
        // A directory has the time of the last name that was made in it.
        let mtime = (attr.file_type != sateen_types::FileType::Directory).then_some(attr.mtime);
        let what = (attr.file_type, attr.size, attr.mode, attr.uid, mtime, row, remote(b, attr.fid));
        out.insert(path.clone(), format!("{what:?}"));
        if attr.file_type == sateen_types::FileType::Directory {
            tree(b, attr.fid, &path, out);
        }
    }
}

fn whole_tree(b: &Bench<'_>) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    tree(b, Fid::ROOT, "", &mut out);
    out
}

#[test]
fn links_do_not_overlap_and_make_their_directories() {
    on_every_store(|b| {
        b.run(Command::AllocSequence).expect("the bench uses it");
        let first = link(b, "/a/b", "s3://bucket/x").expect("links");
        assert_eq!(b.lookup(b.lookup(Fid::ROOT, "a").expect("made").fid, "b").expect("made").fid, first.root);
        assert_eq!(b.attr(first.root).mode, 0o755);
        for (path, url) in [
            ("/a", "s3://other/"),
            ("/", "s3://other/"),
            ("/a/b/c", "s3://other/"),
            ("/d", "s3://bucket/x/y/"),
            ("/d", "s3://bucket/"),
        ] {
            assert_eq!(code(link(b, path, url)), FsCode::Exists, "{path} {url}");
        }
        b.create(Fid::ROOT, "file").expect("creates");
        assert_eq!(code(link(b, "/file/x", "s3://other/")), FsCode::NotDirectory);
        let second = link(b, "/a/c", "s3://bucket/y").expect("beside the first");
        assert!(second.id > first.id);
        change(b, Change::Delete { id: second.id }).expect("ends");
        let third = link(b, "/a/c", "s3://bucket/y").expect("again");
        assert!(third.id > second.id, "no number is used twice");
    });
}

#[test]
fn an_import_makes_files_directories_and_links_with_their_attributes() {
    on_every_store(|b| {
        let l = linked(b);
        let mut file = object("d/e/file", 300_000, "e1");
        (file.mode, file.uid, file.gid) = (Some(0o106_755), Some(1000), Some(100));
        file.mtime = Some(Timestamp { seconds: 5, nanos: 6 });
        let mut symlink = object("d/link", 4, "e2");
        symlink.symlink = Some(b"e/file".to_vec());
        let mut dir = object("d/", 0, "e3");
        dir.mode = Some(0o100_664);
        let status = page(b, l.id, 1, &[file, symlink, dir, object("empty", 0, "e4")], true).expect("imports");
        assert_eq!((status.state, status.objects, status.created), (ImportState::Done, 4, 5), "d/e was made as well");
        assert_eq!((status.bytes, status.skipped), (300_000, 0));
        let d = b.lookup(l.root, "d").expect("made");
        assert_eq!(d.mode, 0o664);
        let e = b.lookup(d.fid, "e").expect("made");
        assert_eq!((e.mode, e.uid), (0o755, 0));
        let f = b.lookup(e.fid, "file").expect("made");
        assert_eq!((f.size, f.mode, f.uid, f.gid, f.blocks), (300_000, 0o755, 1000, 100, 0), "no set-user-id");
        assert_eq!(f.mtime, Timestamp { seconds: 5, nanos: 6 });
        assert_eq!(flags(b, f.fid).to_string(), "(0x0000000d) released exists archived");
        assert_eq!(remote(b, f.fid), Some(Remote::none_loaded(300_000)));
        let empty = b.lookup(l.root, "empty").expect("made");
        assert_eq!((empty.mode, empty.mtime.seconds), (0o755, 77));
        assert_eq!(flags(b, empty.fid).to_string(), "(0x00000009) exists archived");
        assert_eq!(b.lookup(d.fid, "link").expect("made").size, 6);
    });
}

#[test]
fn hostile_objects_are_skipped_with_their_reason_and_change_nothing_outside() {
    on_every_store(|b| {
        let l = linked(b);
        let secret = b.create(Fid::ROOT, "secret").expect("creates");
        let local = b.create(l.root, "local").expect("creates");
        b.mkdir(l.root, "taken").expect("makes");
        let before = (b.attr(secret), b.attr(local), b.list(Fid::ROOT));
        let mut device = object("device", 1, "e");
        device.mode = Some(0o060_666);
        let mut nul = object("nul", 1, "e");
        nul.symlink = Some(b"a\0b".to_vec());
        let long = vec![b'x'; 256];
        let objects = [
            object("../secret", 1, "e"),
            object("/secret", 1, "e"),
            object("a//b", 1, "e"),
            object("a/./b", 1, "e"),
            object("a/../../secret", 1, "e"),
            object("nul\0key", 1, "e"),
            object(b"\xff\xfe", 1, "e"),
            object(&long, 1, "e"),
            device,
            nul,
            object("huge", u64::MAX, "e"),
            object("local", 1, "e"),
            object("taken", 1, "e"),
            object("good", 1, "e"),
            object("good/below-a-file", 1, "e"),
            object("good/", 0, "e"),
        ];
        let status = page(b, l.id, 1, &objects, true).expect("imports");
        assert_eq!((status.created, status.changed, status.skipped), (1, 0, objects.len() as u64 - 1));
        assert_eq!((b.attr(secret), b.attr(local), b.list(Fid::ROOT)), before);
        let mut names = b.list(l.root);
        names.sort();
        assert_eq!(names, ["good", "local", "taken"]);
        let why = |key: &[u8]| status.first_skipped.iter().find(|s| s.key == key).expect("listed").code.clone();
        assert_eq!(why(b"../secret"), "S3ImportObjectPathNotPosixCompliant");
        assert_eq!(why(b"taken"), "S3ImportObjectTypeMismatch");
        assert_eq!(why(b"good/"), "S3ImportObjectTypeMismatch");
        assert_eq!(why(b"local"), "S3ImportConflict");
    });
}

#[test]
fn pages_of_another_import_or_that_come_twice_change_nothing() {
    on_every_store(|b| {
        let l = linked(b);
        let first = page(b, l.id, 1, &[object("a", 1, "e"), object("b", 1, "e")], false).expect("imports");
        assert_eq!((first.state, first.objects), (ImportState::Running, 2));
        let again = page(b, l.id, 1, &[object("a", 1, "e"), object("b", 1, "e")], false).expect("imports");
        assert_eq!(again, first);
        assert_eq!(code(page(b, l.id, 2, &[object("c", 1, "e")], false)), FsCode::Stale);
        page(b, l.id, 1, &[], true).expect("ends");
        assert_eq!(code(page(b, l.id, 1, &[object("c", 1, "e")], true)), FsCode::Stale);
        assert_eq!(import_again(b, l.id, &[object("a", 1, "e"), object("b", 1, "e")]).created, 0);
        change(b, Change::BeginDelete { id: l.id }).expect("begins");
        assert_eq!(code(change(b, Change::StartImport { id: l.id, sync: Sync::No })), FsCode::Busy);
        assert_eq!(code(page(b, l.id, 2, &[object("c", 1, "e")], true)), FsCode::Stale);
    });
}

#[test]
fn a_changed_object_takes_the_place_of_a_file_that_was_not_changed_here() {
    on_every_store(|b| {
        let l = linked(b);
        page(b, l.id, 1, &[object("f", 2 * CHUNK, "e1"), object("w", 2 * CHUNK, "e1")], true).expect("imports");
        let (f, w) = (b.lookup(l.root, "f").expect("made").fid, b.lookup(l.root, "w").expect("made").fid);
        loaded(b, f, "e1", 0, CHUNK).expect("loads");
        loaded(b, w, "e1", 0, 2 * CHUNK).expect("loads");
        b.write_done(w, 2 * CHUNK, 0).expect("writes");
        let ids = crate::namespace::get_layout(&*b.view(), f).expect("has one").components[0].id;
        let other = [object("f", 3 * CHUNK, "e2"), object("w", 3 * CHUNK, "e2")];
        b.open = vec![f];
        let status = import_again(b, l.id, &other);
        assert_eq!((status.changed, status.skipped), (0, 2), "one is open, one was written to");
        assert_eq!(remote(b, f).expect("partly").loaded_bytes(), CHUNK);
        b.open = Vec::new();
        let status = import_again(b, l.id, &other);
        assert_eq!((status.changed, status.skipped), (1, 1));
        assert_eq!(remote(b, f), Some(Remote::none_loaded(3 * CHUNK)), "versions are never mixed");
        let layout = crate::namespace::get_layout(&*b.view(), f).expect("has one");
        assert!(layout.components.iter().all(|c| c.id > ids && !c.is_instantiated()));
        assert_eq!((b.attr(f).size, b.attr(f).blocks), (3 * CHUNK, 0));
        assert_eq!(code(loaded(b, f, "e1", 0, CHUNK)), FsCode::Stale, "a late report of the old version");
        assert_eq!(b.attr(w).size, 2 * CHUNK);
    });
}

#[test]
fn a_file_is_loaded_range_by_range_and_then_like_any_other() {
    on_every_store(|b| {
        let l = linked(b);
        page(b, l.id, 1, &[object("f", 2 * CHUNK + 5, "e1")], true).expect("imports");
        let f = b.lookup(l.root, "f").expect("made");
        let Answer::Remote(Some(part)) = loaded(b, f.fid, "e1", CHUNK, 2 * CHUNK).expect("loads") else { panic!() };
        assert_eq!(part.missing(Extent { start: 0, end: 1 << 30 }).len(), 2);
        assert_eq!(code(b.setattr(&Credential::ROOT, f.fid, |op| op.size = Some(7))), FsCode::Unavailable);
        change(b, Change::Restore { fid: f.fid }).expect("remembers");
        assert_eq!(repository::restores(&*b.view(), 10).expect("reads").len(), 1);
        loaded(b, f.fid, "e1", 0, CHUNK).expect("loads");
        let last = loaded(b, f.fid, "e1", 2 * CHUNK, 2 * CHUNK + 5).expect("loads");
        assert_eq!(last, Answer::Remote(None));
        assert_eq!(flags(b, f.fid).to_string(), "(0x00000009) exists archived");
        assert_eq!(repository::restores(&*b.view(), 10).expect("reads").len(), 0);
        let now = b.attr(f.fid);
        assert_eq!((now.change, now.mtime, now.size), (f.change, f.mtime, f.size), "its bytes are what they were");
        assert_eq!(now.blocks, 24);
        b.setattr(&Credential::ROOT, f.fid, |op| op.size = Some(7)).expect("cuts");
        assert_eq!(flags(b, f.fid).to_string(), "(0x0000000b) exists dirty archived");
    });
}

#[test]
fn truncating_to_nothing_needs_nothing_and_unlinking_leaves_no_row() {
    on_every_store(|b| {
        let l = linked(b);
        page(b, l.id, 1, &[object("f", CHUNK, "e1"), object("g", CHUNK, "e1")], true).expect("imports");
        let f = b.lookup(l.root, "f").expect("made").fid;
        change(b, Change::Restore { fid: f }).expect("remembers");
        b.setattr(&Credential::ROOT, f, |op| op.size = Some(0)).expect("cuts");
        assert_eq!(remote(b, f), None);
        assert_eq!(
            change(b, Change::Prepare { fid: f, range: Extent { start: 0, end: CHUNK } }),
            Ok(Answer::Prepared(None))
        );
        assert_eq!(loaded(b, f, "e1", 0, CHUNK).expect("too late"), Answer::Remote(None));
        assert_eq!(b.attr(f).blocks, 0);
        let g = b.lookup(l.root, "g").expect("made").fid;
        b.unlink(l.root, "g").expect("removes");
        assert_eq!(repository::hsm(&*b.view(), g), Ok(None));
        assert_eq!(remote(b, g), None);
    });
}

#[test]
fn only_what_the_repository_has_is_released_and_only_while_nobody_uses_it() {
    on_every_store(|b| {
        let l = linked(b);
        page(b, l.id, 1, &[object("f", CHUNK, "e1"), object("w", CHUNK, "e1")], true).expect("imports");
        let (f, w) = (b.lookup(l.root, "f").expect("made").fid, b.lookup(l.root, "w").expect("made").fid);
        let release = |b: &mut Bench<'_>, fid, who: &Credential| change(b, Change::Release { fid, who: who.clone() });
        loaded(b, f, "e1", 0, CHUNK).expect("loads");
        let before = (b.attr(f), crate::namespace::get_layout(&*b.view(), f).expect("has one"));
        b.open = vec![f];
        assert_eq!(code(release(b, f, &Credential::ROOT)), FsCode::Busy);
        b.open = Vec::new();
        assert_eq!(code(release(b, f, &ALICE)), FsCode::NotPermitted);
        release(b, f, &Credential::ROOT).expect("releases");
        assert_eq!(remote(b, f), Some(Remote::none_loaded(CHUNK)));
        let (after, layout) = (b.attr(f), crate::namespace::get_layout(&*b.view(), f).expect("has one"));
        assert_eq!((after.size, after.mtime, after.change, after.blocks), (CHUNK, before.0.mtime, before.0.change, 0));
        assert!(layout.components.iter().all(|c| before.1.components.iter().all(|o| o.id != c.id)));
        loaded(b, w, "e1", 0, CHUNK).expect("loads");
        b.write_done(w, CHUNK, 0).expect("writes");
        assert_eq!(code(release(b, w, &Credential::ROOT)), FsCode::Invalid);
        let other = b.create(l.root, "local").expect("creates");
        assert_eq!(code(release(b, other, &Credential::ROOT)), FsCode::NoData);
    });
}

fn keys() -> impl Strategy<Value = Vec<String>> {
    let part =
        prop_oneof![4 => "[ab]{1,2}", 1 => Just(String::new()), 1 => Just("..".to_owned()), 1 => Just(".".to_owned())];
    let key = (proptest::collection::vec(part, 1..4), any::<bool>())
        .prop_map(|(parts, dir)| parts.join("/") + if dir { "/" } else { "" })
        .prop_filter("keys are not empty", |key| !key.is_empty());
    proptest::collection::btree_set(key, 1..30).prop_map(|set| set.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    /// How a listing is cut into pages makes no difference, and a second import changes nothing.
    #[test]
    fn an_import_depends_on_the_objects_only_and_is_idempotent(keys in keys(), cuts in proptest::collection::vec(1usize..8, 30)) {
        let objects: Vec<_> = keys.iter().map(|k| object(k, k.len() as u64, "e")).collect();
        let (store, other) = (MemStore::default(), MemStore::default());
        let (mut whole, mut cut) = (Bench::new(&store), Bench::new(&other));
        let (l, m) = (linked(&mut whole), linked(&mut cut));
        let at_once = page(&mut whole, l.id, 1, &objects, true).expect("imports");
        let (mut rest, mut last) = (&objects[..], None);
        for n in cuts {
            let (now, later) = rest.split_at(n.min(rest.len()));
            rest = later;
            last = Some(page(&mut cut, m.id, 1, now, rest.is_empty()).expect("imports"));
            if rest.is_empty() {
                break;
            }
        }
        let last = last.expect("a page");
        prop_assert_eq!((at_once.created, at_once.skipped), (last.created, last.skipped));
        prop_assert_eq!(whole_tree(&whole), whole_tree(&cut));
        let before = whole_tree(&whole);
        let again = import_again(&mut whole, l.id, &objects);
        prop_assert_eq!((again.created, again.changed, again.bytes), (0, 0, 0));
        prop_assert_eq!(again.skipped, at_once.skipped);
        prop_assert_eq!(whole_tree(&whole), before);
        prop_assert_eq!(whole.list(Fid::ROOT), vec!["data".to_owned()], "nothing outside");
    }
}

#[test]
fn what_is_as_known_need_not_be_looked_at_and_counts_all_the_same() {
    let store = MemStore::default();
    let mut b = Bench::new(&store);
    let link = linked(&mut b);
    let run = repository::get(&*b.view(), link.id).expect("there").run;
    let all: Vec<_> = ["a", "d/", "d/b", "e/f", "x"].iter().map(|key| object(key, 10, "v1")).collect();
    page(&mut b, link.id, run, &all, true).expect("imports");
    let known =
        |b: &Bench<'_>, objects: &[ImportedObject]| repository::known(&*b.view(), link.id, objects).expect("reads");
    assert_eq!(known(&b, &all), [true; 5]);
    let later = Timestamp { seconds: 78, nanos: 0 };
    let finer = Timestamp { seconds: 77, nanos: 5 };
    let others = [
        (ImportedObject { etag: "v2".to_owned(), ..object("a", 10, "v1") }, false),
        (ImportedObject { size: 11, ..object("a", 10, "v1") }, false),
        // Only its metadata were written: by a copy onto itself.
        (ImportedObject { modified: later, ..object("a", 10, "v1") }, false),
        (ImportedObject { modified: finer, ..object("a", 10, "v1") }, true),
        (object("new", 10, "v1"), false),
        (object("a/", 10, "v1"), false),
        (object("a/b", 10, "v1"), false),
        (object("d", 10, "v1"), false),
        (object("../a", 10, "v1"), false),
    ];
    for (object, expected) in others {
        assert_eq!(known(&b, std::slice::from_ref(&object)), [expected], "{object:?}");
    }
    // What has its name is another file, or nothing has; its object was gone; mode and owner are of here.
    let root = link.root;
    let fid = |b: &Bench<'_>, name: &str| b.lookup(root, name).expect("there").fid;
    let gone = fid(&b, "x");
    change(&mut b, Change::Lost { fid: gone, etag: "v1".to_owned() }).expect("records");
    b.rename((root, "a"), (root, "aside")).expect("moves");
    let changed = fid(&b, "d");
    b.setattr(&Credential::ROOT, changed, |op| op.mode = Some(0o700)).expect("changes");
    assert_eq!(known(&b, &all), [false, true, true, true, false]);
    let touched = ImportedObject { modified: later, ..object("d/", 10, "v1") };
    assert_eq!(known(&b, &[touched]), [true]);
    assert_eq!(repository::known(&*b.view(), RepositoryId(99), &all).expect("reads"), [false; 5]);
    // A page of them makes nothing, and counts.
    change(&mut b, Change::StartImport { id: link.id, sync: Sync::No }).expect("starts");
    let run = repository::get(&*b.view(), link.id).expect("there").run;
    let before = whole_tree(&b);
    let keys: Vec<_> = all.iter().map(|o| o.key.clone()).collect();
    let told = ImportPage {
        from: Vec::new(),
        objects: Vec::new(),
        after: b"x".to_vec(),
        skipped: Vec::new(),
        known: keys,
        last: true,
        stamp: 0,
    };
    let looked = b.look();
    let answer = change(&mut b, Change::Import { id: link.id, run, page: told, looked }).expect("imports");
    let Answer::Import(status) = answer else { panic!("{answer:?}") };
    assert_eq!((status.objects, status.created, status.changed, status.state), (5, 0, 0, ImportState::Done));
    assert_eq!(whole_tree(&b), before);
}

#[test]
fn a_link_that_is_made_again_takes_over_what_is_known_of_its_objects() {
    on_every_store(|b| {
        let old = linked(b);
        let all = ["read", "unread", "dirty", "both", "changed", "d/in"];
        let objects: Vec<_> = all.map(|key| object(key, 2 * CHUNK, "e")).into();
        page(b, old.id, 1, &objects, true).expect("imports");
        let fid = |b: &Bench<'_>, name: &str| b.lookup(old.root, name).expect("made").fid;
        loaded(b, fid(b, "read"), "e", 0, CHUNK).expect("loads");
        for name in ["dirty", "both"] {
            let file = fid(b, name);
            loaded(b, file, "e", 0, 2 * CHUNK).expect("loads");
            b.write_done(file, 10, 0).expect("writes");
        }
        change(b, Change::BeginDelete { id: old.id }).expect("begins");
        change(b, Change::Delete { id: old.id }).expect("ends");
        let mut settings =
            RepositorySettings::new("/data".parse().expect("path"), "s3://bucket/p".parse().expect("url"));
        settings.endpoint = "http://elsewhere:1".to_owned();
        let made = change(b, Change::Create { settings }).expect("links");
        let Answer::Link(new) = made else { panic!("{made:?}") };
        assert_eq!((new.root, new.id > old.id), (old.root, true));
        let mut now = objects.clone();
        now.iter_mut()
            .filter(|o| matches!(o.key.as_slice(), b"both" | b"changed"))
            .for_each(|o| o.etag = "f".to_owned());
        let status = import_again(b, new.id, &now);
        assert_eq!((status.created, status.changed, status.skipped), (0, 0, 2), "{status:?}");
        let skipped: Vec<_> = status.first_skipped.iter().map(|s| s.key.as_slice()).collect();
        assert_eq!(skipped, [&b"both"[..], b"changed"], "what has another object than was known");
        let row = |b: &Bench<'_>, fid| repository::hsm(&*b.view(), fid).expect("reads").expect("known");
        for name in ["read", "unread", "dirty"] {
            let file = fid(b, name);
            assert_eq!(row(b, file).repository, new.id, "{name}");
            let owner = repository::file_of_key(&*b.view(), new.id, name.as_bytes());
            assert_eq!(owner.expect("reads"), Some(file), "{name}");
            let before = repository::file_of_key(&*b.view(), old.id, name.as_bytes());
            assert_eq!(before.expect("reads"), None, "{name}");
        }
        assert_eq!(row(b, b.lookup(fid(b, "d"), "in").expect("made").fid).repository, new.id);
        assert_eq!(flags(b, fid(b, "dirty")).to_string(), "(0x0000000b) exists dirty archived");
        assert_eq!(flags(b, fid(b, "unread")).to_string(), "(0x0000000d) released exists archived");
        assert_eq!(remote(b, fid(b, "read")).expect("not all").loaded(), [Extent { start: 0, end: CHUNK }]);
        let prepared = repository::prepared(&*b.view(), fid(b, "unread")).expect("reads").expect("can be fetched");
        assert_eq!(prepared.settings.endpoint, "http://elsewhere:1");
        // Of a link that is there nothing is taken.
        let other = link(b, "/other", "s3://other/").expect("links");
        assert_eq!(row(b, fid(b, "read")).repository, new.id);
        assert!(other.id > new.id);
        // And again: nothing changes.
        let before = whole_tree(b);
        assert_eq!(import_again(b, new.id, &now).skipped, 2);
        assert_eq!(whole_tree(b), before);
    });
}

#[test]
fn a_link_whose_directory_is_gone_has_failed() {
    on_every_store(|b| {
        let l = linked(b);
        // A link of before its directory was kept for it.
        let mut row = repository::get(&*b.view(), l.id).expect("there");
        row.root.oid += 1_000_000;
        b.put_row(Table::Repositories, keys::repository(l.id), row.to_bytes());
        let checked = change(b, Change::Checked { id: l.id, message: String::new(), with: None }).expect("checks");
        let Answer::Link(now) = checked else { panic!("{checked:?}") };
        assert_eq!(now.state, RepositoryState::Failed);
        assert!(now.message.contains("/data") && now.message.contains("sateen repo delete"), "{}", now.message);
        change(b, Change::BeginDelete { id: l.id }).expect("begins");
        change(b, Change::Delete { id: l.id }).expect("ends");
    });
}

#[test]
fn a_directory_that_a_link_depends_on_neither_goes_nor_moves() {
    on_every_store(|b| {
        b.run(Command::AllocSequence).expect("the bench uses it");
        let l = link(b, "/a/b", "s3://bucket/x").expect("links");
        let a = b.lookup(Fid::ROOT, "a").expect("made").fid;
        b.mkdir(a, "beside").expect("makes");
        b.mkdir(Fid::ROOT, "empty").expect("makes");
        let busy = b.rmdir(a, "b").expect_err("linked");
        assert_eq!(busy.code, FsCode::Busy);
        assert!(busy.message.contains("/a/b") && busy.message.contains(&l.id.to_string()), "{busy}");
        assert!(busy.hint.is_some_and(|hint| hint.contains("sateen repo delete")));
        for (from, to) in [
            ((a, "b"), (a, "c")),
            ((a, "b"), (Fid::ROOT, "b")),
            ((Fid::ROOT, "a"), (Fid::ROOT, "c")),
            ((Fid::ROOT, "empty"), (a, "b")),
        ] {
            assert_eq!(code(b.rename(from, to)), FsCode::Busy, "{from:?} {to:?}");
        }
        // What lies beside it and in it is free.
        b.rename((a, "beside"), (Fid::ROOT, "moved")).expect("moves");
        b.rmdir(Fid::ROOT, "moved").expect("goes");
        b.mkdir(l.root, "in").expect("makes");
        b.rename((l.root, "in"), (l.root, "other")).expect("moves");
        b.rmdir(l.root, "other").expect("goes");
        change(b, Change::BeginDelete { id: l.id }).expect("begins");
        assert_eq!(code(b.rmdir(a, "b")), FsCode::Busy, "it may stay after all");
        change(b, Change::Delete { id: l.id }).expect("ends");
        b.rename((Fid::ROOT, "a"), (Fid::ROOT, "c")).expect("moves");
        b.rmdir(a, "b").expect("goes");
    });
}
