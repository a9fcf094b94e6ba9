//! Whatever is answered from memory is what the MDS would have answered, as far as this client could know.

use proptest::prelude::*;
use sateen_types::{Attr, Name, Timestamp};

use super::*;

const TRUSTED: Duration = Duration::from_secs(1);

fn fid(oid: u32) -> Fid {
    Fid { seq: 2, oid, ver: 0 }
}

fn entry(oid: u32, file_type: FileType, change: u64) -> DirEntry {
    let time = Timestamp { seconds: 1, nanos: 0 };
    let attr = Attr {
        fid: fid(oid),
        file_type,
        mode: 0o755,
        uid: 0,
        gid: 0,
        nlink: if file_type == FileType::Directory { 2 } else { 1 },
        size: 0,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        rdev: 0,
        change,
        has_acl: false,
        has_default_acl: false,
        has_capabilities: false,
    };
    let name = Name::parse(format!("n{oid}").as_bytes()).expect("a name");
    DirEntry { name, fid: fid(oid), file_type, cookie: u64::from(oid), attr: Some(attr) }
}

/// A tree in which directory `n` has directories `3n+1` to `3n+3` below `DIRS`, and two files.
const DIRS: u32 = 200;
const FILE: u32 = 1000;

/// How often each directory and file was changed.
#[derive(Default)]
struct Tree(HashMap<u32, u64>);

impl Tree {
    fn change(&mut self, oid: u32) {
        *self.0.entry(oid).or_default() += 1;
    }

    fn entry(&self, oid: u32, file_type: FileType) -> DirEntry {
        entry(oid, file_type, self.0.get(&oid).copied().unwrap_or(0))
    }

    /// As of now: the names differ with every change of the directory.
    fn list(&self, dir: u32, asked: Instant) -> Listing {
        let below = (3 * dir + 1..=3 * dir + 3).filter(|oid| *oid < DIRS);
        let mut entries: Vec<DirEntry> = below.map(|oid| self.entry(oid, FileType::Directory)).collect();
        entries.extend((0..2).map(|i| self.entry(FILE + 2 * dir + i, FileType::Regular)));
        entries[0].cookie = self.0.get(&dir).copied().unwrap_or(0);
        Listing { entries, end: true, parent: fid(dir / 3), asked }
    }
}

fn root() -> Credential {
    Credential::ROOT
}

/// All directories in the order of a walk.
fn walk(dir: u32, order: &mut Vec<u32>) {
    order.push(dir);
    (3 * dir + 1..=3 * dir + 3).filter(|oid| *oid < DIRS).for_each(|oid| walk(oid, order));
}

/// Lists one directory as a program does; gives whether it was there, and what should be fetched.
fn list(listings: &mut Listings, tree: &Tree, dir: u32, now: Instant) -> (bool, Option<Batch>) {
    let found = listings.find(&root(), fid(dir), now, TRUSTED);
    let is_there = found.is_some();
    let right = tree.list(dir, now);
    if let Some(found) = &found {
        assert_eq!(found.entries.len(), right.entries.len());
        for (found, right) in found.entries.iter().zip(&right.entries) {
            assert_eq!((found.fid, found.cookie), (right.fid, right.cookie), "names of {dir}");
            assert!(found.attr.as_ref().is_none_or(|attr| Some(attr) == right.attr.as_ref()), "attributes in {dir}");
        }
    }
    let entries = found.map_or(right.entries, |found| found.entries);
    (is_there, listings.listed(&root(), fid(dir), &entries, (now, TRUSTED)))
}

fn answer(tree: &Tree, batch: &Batch, asked: Instant) -> Vec<Option<Listing>> {
    batch.dirs.iter().map(|dir| Some(tree.list(dir.oid, asked))).collect()
}

#[test]
fn a_walk_finds_nearly_everything_there_and_asks_for_nothing_twice() {
    let (tree, now) = (Tree::default(), Instant::now());
    let mut listings = Listings::default();
    let (mut order, mut there, mut asked, mut calls) = (Vec::new(), 0, Vec::new(), 0);
    walk(0, &mut order);
    for dir in &order {
        let (is_there, mut batch) = list(&mut listings, &tree, *dir, now);
        there += usize::from(is_there);
        while let Some(wanted) = batch {
            assert!(wanted.dirs.len() <= WINDOW_MAX);
            calls += 1;
            asked.extend(wanted.dirs.clone());
            batch = listings.fetched(&wanted, answer(&tree, &wanted, now), (now, TRUSTED));
        }
    }
    assert!(there + 4 >= order.len(), "{there} of {}", order.len());
    let once: HashSet<Fid> = asked.iter().copied().collect();
    assert_eq!((asked.len(), once.len()), (there, there));
    assert!(calls < there / 4, "{calls} calls for {there} directories");
    assert_eq!((listings.entries, listings.places.len(), listings.dirs.len()), (0, 0, 0));
}

#[test]
fn who_lists_one_directory_now_and_then_asks_for_nothing_ahead() {
    let (tree, mut now) = (Tree::default(), Instant::now());
    let mut listings = Listings::default();
    for dir in [0, 1, 150, 0, 2, 151, 3] {
        assert_eq!(list(&mut listings, &tree, dir, now), (false, None), "{dir}");
    }
    for dir in [0, 1, 4, 13] {
        now += TRUSTED;
        assert_eq!(list(&mut listings, &tree, dir, now), (false, None), "{dir}, too slow for a walk");
    }
}

/// A walk whose first batch is on its way.
fn walking(tree: &Tree, now: Instant) -> (Listings, Batch) {
    let mut listings = Listings::default();
    assert_eq!(list(&mut listings, tree, 0, now).1, None);
    assert_eq!(list(&mut listings, tree, 1, now).1, None);
    let batch = list(&mut listings, tree, 4, now).1.expect("a walk");
    assert_eq!(batch.dirs[0], fid(13), "what is below comes first");
    (listings, batch)
}

#[test]
fn others_users_old_listings_and_what_could_not_be_had_are_not_answered() {
    let (tree, now) = (Tree::default(), Instant::now());
    let (mut listings, batch) = walking(&tree, now);
    let mut answers = answer(&tree, &batch, now);
    answers[1] = None;
    answers.truncate(3);
    listings.fetched(&batch, answers, (now, TRUSTED));
    let stranger = Credential { uid: 7, gid: 7, groups: Vec::new() };
    assert_eq!(listings.find(&stranger, batch.dirs[0], now, TRUSTED), None);
    assert_eq!(listings.find(&root(), batch.dirs[2], now + TRUSTED, TRUSTED), None, "too old");
    assert_eq!(listings.find(&root(), batch.dirs[1], now, TRUSTED), None, "not had");
    assert_eq!(listings.find(&root(), batch.dirs[3], now, TRUSTED), None, "not answered");
    assert!(listings.find(&root(), batch.dirs[0], now, TRUSTED).is_some());
    assert_eq!(listings.find(&root(), batch.dirs[0], now, TRUSTED), None, "once");
}

#[test]
fn a_lock_makes_everything_be_asked_anew_also_what_is_on_its_way() {
    let (tree, now) = (Tree::default(), Instant::now());
    let (mut listings, batch) = walking(&tree, now);
    listings.clear();
    assert_eq!(listings.fetched(&batch, answer(&tree, &batch, now), (now, TRUSTED)), None);
    assert!(batch.dirs.iter().all(|dir| listings.find(&root(), *dir, now, TRUSTED).is_none()));
}

#[test]
fn what_is_remembered_is_bounded() {
    let now = Instant::now();
    let mut listings = Listings::default();
    for dir in 0..20 {
        let base = 10_000 * (dir + 1);
        let entries: Vec<_> = (base..base + 1000).map(|oid| entry(oid, FileType::Directory, 0)).collect();
        listings.listed(&root(), fid(dir), &entries, (now, TRUSTED));
        assert!(listings.order.len() <= NAMED_MAX && listings.dirs.len() <= NAMED_MAX);
    }
    // A walk in directories that are all full.
    let mut batches = VecDeque::new();
    for dir in (0..500).map(|i| fid(200_000 + i)) {
        batches.extend(listings.listed(&root(), dir, &[], (now, TRUSTED)));
        assert!(listings.coming.len() <= CALLS_MAX);
        if let Some(batch) = batches.pop_front() {
            let full = |dir: &Fid| {
                let entries = (0..512).map(|i| entry(1_000_000 + dir.oid * 512 + i, FileType::Regular, 0)).collect();
                Some(Listing { entries, end: false, parent: fid(0), asked: now })
            };
            let answers = batch.dirs.iter().map(full).collect();
            batches.extend(listings.fetched(&batch, answers, (now, TRUSTED)));
        }
    }
    assert!(listings.entries < ENTRIES_MAX + CALLS_MAX * WINDOW_MAX * 512);
    listings.clear();
    assert_eq!((listings.entries, listings.places.len()), (0, 0));
}

#[derive(Clone, Debug)]
enum Step {
    /// The walk goes on.
    List,
    /// A directory's names change, or the attributes of a file or directory.
    Change(u32),
    Attributes(u32),
    /// Somebody else changes attributes, and the MDS tells of them.
    Told(u32),
    /// The MDS answers the oldest batch, or it arrives.
    Answer,
    Arrive,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = prop_oneof![
        6 => Just(Step::List),
        1 => (0..DIRS).prop_map(Step::Change),
        1 => (0..DIRS).prop_map(Step::Attributes),
        1 => (FILE..FILE + 2 * DIRS).prop_map(Step::Attributes),
        1 => (FILE..FILE + 2 * DIRS).prop_map(Step::Told),
        3 => Just(Step::Answer),
        3 => Just(Step::Arrive),
    ];
    prop::collection::vec(one, 1..300)
}

proptest! {
    #[test]
    fn nothing_is_answered_that_this_client_has_changed_or_knows_better(steps in steps()) {
        let (mut tree, now) = (Tree::default(), Instant::now());
        let mut listings = Listings::default();
        let mut order = Vec::new();
        walk(0, &mut order);
        let mut order = order.into_iter();
        let (mut sent, mut answered) = (VecDeque::new(), VecDeque::new());
        for step in steps {
            match step {
                Step::List => {
                    let Some(dir) = order.next() else { break };
                    sent.extend(list(&mut listings, &tree, dir, now).1);
                }
                Step::Change(oid) | Step::Attributes(oid) => {
                    tree.change(oid);
                    listings.changed(&[fid(oid)]);
                }
                Step::Told(oid) => {
                    tree.change(oid);
                    listings.told(fid(oid));
                }
                Step::Answer => {
                    if let Some(batch) = sent.pop_front() {
                        let answers = answer(&tree, &batch, now);
                        answered.push_back((batch, answers));
                    }
                }
                Step::Arrive => {
                    if let Some((batch, answers)) = answered.pop_front() {
                        sent.extend(listings.fetched(&batch, answers, (now, TRUSTED)));
                    }
                }
            }
            let fetched = |dir: &Dir| match &dir.stage {
                Stage::Fetched(listing) => listing.entries.len(),
                _ => 0,
            };
            prop_assert_eq!(listings.entries, listings.dirs.values().map(fetched).sum::<usize>());
            prop_assert!(listings.coming.len() <= CALLS_MAX);
        }
    }
}
