//! Damage that needs more than one row, or whose repair is worth to be seen on its own.

use sateen_types::{Fid, FileType, FindingKind, FsCode, Repair, SessionId};

use super::*;
use crate::command::Outcome;
use crate::namespace::tests::bench::{SESSION, name};
use crate::namespace::{self, check::check as oracle};
use crate::store::codec::Record;
use crate::store::records::{Counter, Dentry, IndexEntry, Inode};
use crate::store::{MemStore, RocksOptions, RocksStore, keys};

fn assert_sound(store: &dyn Store) {
    assert_eq!(findings(store, false), []);
    assert_eq!(oracle(&*store.snapshot()).expect("reads"), Vec::<String>::new());
}

fn inode(store: &dyn Store, fid: Fid) -> Inode {
    namespace::inode(&*store.snapshot(), fid).expect("there")
}

#[test]
fn a_ring_of_directories_is_cut_and_found_again_with_all_that_is_in_it() {
    let store = MemStore::default();
    let mut b = bench(&store);
    let a = b.mkdir(Fid::ROOT, "a").expect("made");
    let inner = b.mkdir(a, "inner").expect("made");
    let file = b.create(inner, "file").expect("made");
    // "a" is now in "inner": what a rename without its check would have left.
    let entry = Dentry { fid: a, file_type: FileType::Directory, cookie: 77 }.to_bytes();
    let row = IndexEntry { fid: a, file_type: FileType::Directory, name: name("up") }.to_bytes();
    set(
        &store,
        &[
            (Table::Dentries, &keys::dentry(Fid::ROOT, &name("a")), None),
            (Table::DirIndex, &keys::dirindex(Fid::ROOT, 3), None),
            (Table::Parents, &keys::parent(a, Fid::ROOT, &name("a")), None),
            (Table::Dentries, &keys::dentry(inner, &name("up")), Some(&entry)),
            (Table::DirIndex, &keys::dirindex(inner, 77), Some(&row)),
            (Table::Parents, &keys::parent(a, inner, &name("up")), Some(b"")),
        ],
    );
    let found = findings(&store, false);
    let rings: Vec<_> = found.iter().filter(|f| f.kind == FindingKind::Unreachable).collect();
    assert!(matches!(&rings[..], [ring] if ring.fid == Some(a)), "{found:#?}");
    let repaired = findings(&store, true);
    assert!(repaired.iter().all(|f| f.repair == Repair::Done), "{repaired:#?}");
    assert_sound(&store);
    let lost = b.lookup(Fid::ROOT, "lost+found").expect("made");
    assert_eq!((lost.uid, lost.mode), (0, 0o700));
    assert_eq!(b.lookup(lost.fid, &a.to_string()).expect("put there").fid, a);
    assert_eq!(b.lookup(inner, "file").expect("as before").fid, file);
}

#[test]
fn a_directory_that_is_in_itself_is_cut() {
    let store = MemStore::default();
    let mut b = bench(&store);
    let a = b.mkdir(Fid::ROOT, "a").expect("made");
    let entry = Dentry { fid: a, file_type: FileType::Directory, cookie: 9 }.to_bytes();
    let row = IndexEntry { fid: a, file_type: FileType::Directory, name: name("self") }.to_bytes();
    set(
        &store,
        &[
            (Table::Dentries, &keys::dentry(Fid::ROOT, &name("a")), None),
            (Table::DirIndex, &keys::dirindex(Fid::ROOT, 3), None),
            (Table::Parents, &keys::parent(a, Fid::ROOT, &name("a")), None),
            (Table::Dentries, &keys::dentry(a, &name("self")), Some(&entry)),
            (Table::DirIndex, &keys::dirindex(a, 9), Some(&row)),
            (Table::Parents, &keys::parent(a, a, &name("self")), Some(b"")),
        ],
    );
    let found = findings(&store, false);
    assert!(found.iter().any(|f| f.kind == FindingKind::Unreachable), "{found:#?}");
    assert!(found.iter().all(|f| f.repair == Repair::Possible), "{found:#?}");
    assert!(findings(&store, true).iter().all(|f| f.repair == Repair::Done));
    assert_sound(&store);
}

#[test]
fn what_lies_in_the_place_of_lost_and_found_is_left_alone() {
    let store = MemStore::default();
    let mut b = bench(&store);
    b.create(Fid::ROOT, "lost+found").expect("made");
    let dir = b.mkdir(Fid::ROOT, "dir").expect("made");
    let entry = keys::dentry(Fid::ROOT, &name("dir"));
    set(&store, &[(Table::Dentries, &entry, None), (Table::DirIndex, &keys::dirindex(Fid::ROOT, 4), None)]);
    let found = findings(&store, true);
    assert!(kinds(&found).contains(&(FindingKind::Unreachable, Repair::Impossible)), "{found:#?}");
    let again = findings(&store, true);
    assert_eq!(kinds(&again), [(FindingKind::Unreachable, Repair::Impossible)], "{again:#?}");
    assert_eq!(again[0].fid, Some(dir));
}

#[test]
fn a_directory_without_its_inode_keeps_its_names() {
    let store = MemStore::default();
    let mut b = bench(&store);
    let dir = b.mkdir(Fid::ROOT, "dir").expect("made");
    let sub = b.mkdir(dir, "sub").expect("made");
    let file = b.create(dir, "file").expect("made");
    set(&store, &[(Table::Inodes, &keys::fid(dir), None)]);
    assert_eq!(kinds(&findings(&store, true)), [(FindingKind::Directory, Repair::Done)]);
    assert_sound(&store);
    let again = inode(&store, dir);
    assert_eq!((again.mode, again.uid, again.nlink), (0o700, 0, 3));
    assert_eq!(b.lookup(dir, "sub").expect("there").fid, sub);
    assert_eq!(b.lookup(dir, "file").expect("there").fid, file);
    // The next name does not take the place of another.
    b.create(dir, "next").expect("made");
    assert_eq!(b.list(dir), ["sub", "file", "next"]);
}

#[test]
fn a_lost_file_is_found_again_with_its_layout() {
    let store = MemStore::default();
    let mut b = bench(&store);
    let file = b.create(Fid::ROOT, "file").expect("made");
    let layout = namespace::get_layout(&*store.snapshot(), file).expect("there");
    set(
        &store,
        &[
            (Table::Dentries, &keys::dentry(Fid::ROOT, &name("file")), None),
            (Table::DirIndex, &keys::dirindex(Fid::ROOT, 3), None),
        ],
    );
    let found = findings(&store, true);
    let want = [FindingKind::Directory, FindingKind::Name, FindingKind::Unreachable];
    assert_eq!(kinds(&found), want.map(|kind| (kind, Repair::Done)), "{found:#?}");
    assert_sound(&store);
    let lost = b.lookup(Fid::ROOT, "lost+found").expect("made").fid;
    assert_eq!(b.lookup(lost, &file.to_string()).expect("put there").nlink, 1);
    assert_eq!(namespace::get_layout(&*store.snapshot(), file).expect("kept"), layout);
    // The next one finds the directory there.
    set(&store, &[(Table::Parents, &keys::parent(file, lost, &name(&file.to_string())), None)]);
    assert_eq!(kinds(&findings(&store, true)), [(FindingKind::Name, Repair::Done)]);
    assert_sound(&store);
}

#[test]
fn names_of_nothing_go_and_are_told_with_their_bytes_but_the_layout_stays() {
    let store = MemStore::default();
    let mut b = bench(&store);
    let file = b.create(Fid::ROOT, "file").expect("made");
    set_xattr(&mut b, file, "user.a");
    set(&store, &[(Table::Inodes, &keys::fid(file), None)]);
    let found = findings(&store, true);
    let want = [
        (FindingKind::Name, Repair::Done),
        (FindingKind::Directory, Repair::Done),
        (FindingKind::Attribute, Repair::Done),
        (FindingKind::Layout, Repair::Impossible),
        (FindingKind::Counter, Repair::Done),
    ];
    assert_eq!(kinds(&found), want, "{found:#?}");
    assert!(found[0].what.contains("its entry was 01"), "{}", found[0]);
    assert_eq!(kinds(&findings(&store, true)), [(FindingKind::Layout, Repair::Impossible)]);
    assert_eq!(b.list(Fid::ROOT), Vec::<String>::new());
    assert!(store.snapshot().get(Table::Layouts, &keys::fid(file)).expect("reads").is_some());
}

#[test]
fn a_file_marked_for_removal_that_has_a_name_is_not_removed() {
    let store = MemStore::default();
    let mut b = bench(&store);
    let file = b.create(Fid::ROOT, "file").expect("made");
    set(&store, &[(Table::Orphans, &keys::fid(file), Some(b""))]);
    b.open.clear();
    let ignored = super::apply_alone(&store, &Command::DropOrphan { fid: file }).expect("ignored");
    assert_eq!(ignored, Outcome::Done);
    assert_eq!(b.lookup(Fid::ROOT, "file").expect("there").fid, file);
    assert_eq!(kinds(&findings(&store, true)), [(FindingKind::Links, Repair::Done)]);
    assert_sound(&store);
}

#[test]
fn a_repair_that_comes_too_late_changes_nothing_and_is_made_again() {
    let store = MemStore::default();
    let mut b = bench(&store);
    b.create(Fid::ROOT, "a").expect("made");
    let root = keys::fid(Fid::ROOT);
    let right = inode(&store, Fid::ROOT);
    set(&store, &[(Table::Inodes, &root, Some(&Inode { nlink: 9, ..right }.to_bytes()))]);
    let calls = std::cell::Cell::new(0);
    let mender = |command: Command| {
        calls.set(calls.get() + 1);
        if calls.get() == 1 {
            // Somebody changes the directory first.
            let now = inode(&store, Fid::ROOT);
            set(&store, &[(Table::Inodes, &root, Some(&Inode { uid: 5, ..now }.to_bytes()))]);
            let late = apply_alone(&store, &command).expect_err("another row was expected");
            assert_eq!(late.code, FsCode::Busy);
            return Err(late);
        }
        apply_alone(&store, &command)
    };
    let osts = (0..4).map(OstIndex).collect();
    let now = || Timestamp { seconds: 1, nanos: 0 };
    let job = Job {
        fs: FsId(1),
        store: &store,
        osts: &osts,
        objects: None,
        grace: Duration::ZERO,
        mender: Some(&mender),
        pace: &|_| Ok(()),
        now: &now,
    };
    let mut sink = |_| ControlFlow::Continue(());
    let mut report = Report::new(&mut sink);
    check(&job, &mut report).expect("works");
    let tally = report.done().expect("heard");
    assert_eq!((tally.damage, tally.repaired, calls.get()), (1, 1, 2));
    let after = inode(&store, Fid::ROOT);
    assert_eq!((after.uid, after.nlink), (5, 2));
    assert_sound(&store);
}

#[test]
fn a_directory_that_nobody_can_give_up_is_everybodys_again() {
    let store = MemStore::default();
    let mut b = bench(&store);
    let dir = b.mkdir(Fid::ROOT, "dir").expect("makes");
    b.run(Command::LendSequence { session: SESSION }).expect("lends");
    let (gone, nobody) = (Fid { oid: dir.oid + 100, ..dir }, [9; 16]);
    let held = |fid: Fid| keys::held_dir(fid);
    set(&store, &[(Table::Held, &held(dir), Some(&SESSION.0))]);
    assert_sound(&store);
    set(&store, &[(Table::Held, &held(gone), Some(&SESSION.0))]);
    set(&store, &[(Table::Held, &held(dir), Some(&nobody))]);
    set(&store, &[(Table::Held, &keys::holder(SessionId(nobody)), Some(&[0; 16]))]);
    assert_eq!(kinds(&findings(&store, true)), vec![(FindingKind::Session, Repair::Done); 3]);
    assert_sound(&store);
    let left: Vec<_> = rows(&*store.snapshot(), Table::Held).into_iter().map(|(key, _)| key).collect();
    assert_eq!(left, [keys::holder(SESSION)]);
}

#[test]
fn counters_are_corrected_by_their_difference_and_never_lowered_below_what_is_in_use() {
    let store = MemStore::default();
    let mut b = bench(&store);
    b.create(Fid::ROOT, "a").expect("made");
    set(
        &store,
        &[
            (Table::Config, keys::INODES, Some(&Counter(700).to_bytes())),
            (Table::Config, keys::NEXT_SEQUENCE, Some(&Counter(3).to_bytes())),
        ],
    );
    assert_eq!(kinds(&findings(&store, true)), [(FindingKind::Counter, Repair::Done); 2]);
    assert_sound(&store);
    let Outcome::Sequence(next) = apply_alone(&store, &Command::AllocSequence).expect("allocates") else { panic!() };
    assert!(next > Fid::SEQ_FIRST, "{next:#x} is in use");
}

#[test]
fn what_a_check_finds_in_memory_it_finds_and_repairs_in_rocksdb() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = RocksStore::open(dir.path(), Table::OF_FILE_SYSTEM, RocksOptions::default()).expect("opens");
    let mut b = bench(&store);
    for i in 0..600 {
        // More than two pages.
        b.create(Fid::ROOT, &format!("f{i}")).expect("made");
    }
    assert_sound(&store);
    let file = b.lookup(Fid::ROOT, "f300").expect("there").fid;
    set(&store, &[(Table::Parents, &keys::parent(file, Fid::ROOT, &name("f300")), None)]);
    assert_eq!(kinds(&findings(&store, false)).first(), Some(&(FindingKind::Name, Repair::Possible)));
    assert_eq!(kinds(&findings(&store, true)), [(FindingKind::Name, Repair::Done)]);
    assert_sound(&store);
}

#[test]
fn rules_of_what_is_no_file_and_counts_of_no_link_are_removed() {
    use crate::store::records::{RulesRecord, SkippedRecord};
    let store = MemStore::default();
    let mut b = bench(&store);
    let file = b.create(Fid::ROOT, "file").expect("made");
    let other = b.create(Fid::ROOT, "other").expect("made");
    let dir = b.mkdir(Fid::ROOT, "dir").expect("made");
    let rules = RulesRecord(sateen_types::HsmFlags::NO_RELEASE).to_bytes();
    set(&store, &[(Table::Repositories, &keys::rules(file), Some(&rules))]);
    assert_sound(&store);
    let gone = Fid { oid: other.oid + 100, ..other };
    let skipped = keys::exports::skipped(sateen_types::RepositoryId(9));
    set(
        &store,
        &[
            (Table::Repositories, &keys::rules(gone), Some(&rules)),
            (Table::Repositories, &keys::rules(dir), Some(&rules)),
            (Table::Repositories, &keys::rules(other), Some(b"\x01\x01\x00\x00\x00")),
            (Table::Exports, &skipped, Some(&SkippedRecord::default().to_bytes())),
        ],
    );
    let repaired = findings(&store, true);
    assert!(repaired.len() == 4 && repaired.iter().all(|f| f.repair == Repair::Done), "{repaired:#?}");
    assert_sound(&store);
    let kept = b.view().get(Table::Repositories, &keys::rules(file)).expect("reads");
    assert_eq!(kept, Some(rules), "what is right is left alone");
}
