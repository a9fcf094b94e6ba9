//! The tree against a model of the MDS: what is answered here is what the log does there, in whatever parts it is told.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sateen_types::op::{Access, Mutation, RenameMode, SetAttr};
use sateen_types::{Attr, Credential, Fid, FileType, LayoutTemplate, Name, Timestamp};
use std::sync::Arc;

use super::WriteBack;
use super::tree::{Change, Tree};
use crate::lease::Lease;

const TOP: Fid = Fid { seq: Fid::SEQ_FIRST, oid: 1, ver: 0 };
const SEQUENCE: u64 = Fid::SEQ_FIRST + 1;

fn at(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

fn name(n: u8) -> Name {
    Name::parse(format!("n{n}").as_bytes()).expect("valid")
}

fn directory(uid: u32, mode: u32) -> Attr {
    Attr {
        fid: TOP,
        file_type: FileType::Directory,
        mode,
        uid,
        gid: 7,
        nlink: 2,
        size: 4096,
        blocks: 0,
        atime: at(0),
        mtime: at(0),
        ctime: at(0),
        btime: at(0),
        rdev: 0,
        change: 1,
        has_acl: false,
        has_default_acl: false,
        has_capabilities: false,
    }
}

fn root() -> Arc<Credential> {
    Arc::new(Credential::ROOT)
}

/// A tree that holds [`TOP`].
fn tree() -> Tree {
    let mut tree = Tree::default();
    tree.lent(SEQUENCE);
    tree.hold_top((Fid::ROOT, &name(99)), directory(0, 0o755), LayoutTemplate::default());
    tree
}

fn all(tree: &mut Tree) -> Vec<Change> {
    tree.head(usize::MAX).1
}

/// The namespace as the log makes it: names of each directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    names: BTreeMap<(Fid, Vec<u8>), (Fid, bool)>,
    modes: BTreeMap<Fid, u32>,
    links: BTreeMap<Fid, u32>,
}

impl Model {
    fn new() -> Model {
        Model { links: BTreeMap::from([(TOP, 2)]), modes: BTreeMap::from([(TOP, 0o755)]), ..Model::default() }
    }

    fn add(&mut self, parent: Fid, name: &Name, fid: Fid, is_dir: bool, mode: u32) {
        assert!(self.links.contains_key(&parent), "{parent} does not exist");
        let before = self.names.insert((parent, name.as_bytes().to_vec()), (fid, is_dir));
        assert!(before.is_none(), "{name:?} is taken");
        self.modes.insert(fid, mode);
        if is_dir {
            self.links.insert(fid, 2);
            *self.links.entry(parent).or_default() += 1;
        }
    }

    fn take(&mut self, parent: Fid, name: &Name) -> (Fid, bool) {
        self.names.remove(&(parent, name.as_bytes().to_vec())).expect("a name")
    }

    fn apply(&mut self, change: &Change) {
        let made = || change.fid.expect("it makes something");
        match &change.op {
            Mutation::Create(op) => self.add(op.parent, &op.name, made(), false, op.mode.mode),
            Mutation::Mkdir { parent, name, mode } => self.add(*parent, name, made(), true, mode.mode),
            Mutation::Symlink { parent, name, .. } => self.add(*parent, name, made(), false, 0o777),
            Mutation::Unlink { parent, name } => {
                let (fid, is_dir) = self.take(*parent, name);
                assert!(!is_dir);
                self.modes.remove(&fid);
            }
            Mutation::Rmdir { parent, name } => {
                let (fid, is_dir) = self.take(*parent, name);
                assert!(is_dir && !self.names.keys().any(|(dir, _)| *dir == fid), "not an empty directory");
                self.modes.remove(&fid);
                self.links.remove(&fid);
                *self.links.entry(*parent).or_default() -= 1;
            }
            Mutation::Rename { parent, name, new_parent, new_name, .. } => {
                let (fid, is_dir) = self.take(*parent, name);
                assert!(!is_dir);
                if let Some((gone, _)) = self.names.remove(&(*new_parent, new_name.as_bytes().to_vec())) {
                    self.modes.remove(&gone);
                }
                let mode = self.modes[&fid];
                self.add(*new_parent, new_name, fid, false, mode);
            }
            Mutation::SetAttr(op) => drop(self.modes.insert(op.fid, op.mode.expect("only modes here"))),
            other => panic!("{other:?} does not come by a log"),
        }
    }
}

/// One call: what, in which of the directories, with which names.
fn calls() -> impl Strategy<Value = Vec<(u8, u8, u8, u8, u8)>> {
    prop::collection::vec((0u8..11, 0u8..5, 0u8..4, 0u8..5, 0u8..4), 1..120)
}

proptest! {
    #[test]
    fn what_is_answered_here_is_what_the_log_makes_there(calls in calls()) {
        let mut tree = tree();
        let mut dirs = vec![TOP];
        let (mut now, mut there) = (Model::new(), Model::new());
        for (time, (call, d, n, e, m)) in (1..).zip(calls) {
            let (dir, other) = (dirs[d as usize % dirs.len()], dirs[e as usize % dirs.len()]);
            let (who, when, place, target) = (root(), at(time), (dir, &name(n)), (other, &name(m)));
            let before = tree.end();
            match call {
                0..3 => drop(tree.create(&who, place, 0o644.into(), Access::WRITE, when)),
                3 | 4 => dirs.extend(tree.mkdir(&who, place, 0o755.into(), when).map(|attr| attr.fid)),
                5 => drop(tree.symlink(&who, place, b"somewhere", when)),
                6 => drop(tree.unlink(&who, place, when)),
                7 => drop(tree.rmdir(&who, place, when)),
                8 => drop(tree.rename(&who, place, target, RenameMode::Replace, when)),
                9 => {
                    if let Some(fid) = tree.child(dir, &name(n)) {
                        let set = SetAttr { mode: Some(u32::from(m)), ..SetAttr::new(fid) };
                        tree.setattr(&who, &set, when);
                    }
                }
                // The MDS hears of a part.
                _ => {
                    for change in tree.head(n as usize).1 {
                        there.apply(&change);
                        tree.answered();
                    }
                    tree.forget_told();
                }
            }
            let (first, log) = tree.head(usize::MAX);
            let new = (tree.end() - before) as usize;
            prop_assert!(new <= 1 && first + log.len() as u64 == tree.end() + 1);
            log[log.len() - new..].iter().for_each(|change| now.apply(change));
            // What programs are told is what the whole log says.
            for dir in &dirs {
                for n in 0..4 {
                    let found = tree.lookup(&Credential::ROOT, *dir, &name(n));
                    let known = now.names.get(&(*dir, name(n).as_bytes().to_vec()));
                    match found {
                        None => prop_assert!(!now.links.contains_key(dir), "{dir} is held and says nothing"),
                        Some(Err(_)) => prop_assert_eq!(known, None),
                        Some(Ok(attr)) => {
                            prop_assert_eq!(known.map(|(fid, _)| *fid), Some(attr.fid));
                            prop_assert_eq!(now.modes[&attr.fid], attr.mode);
                            let links = now.links.get(&attr.fid).copied().unwrap_or(1);
                            prop_assert_eq!(links, attr.nlink);
                            prop_assert_eq!(tree.attr(attr.fid), Some(attr));
                        }
                    }
                }
            }
            // Whoever waits for an inode waits for the last change that names it, and for nothing else.
            for (place, change) in (tree.told()..).zip(&log) {
                for fid in super::named(&change.op).into_iter().chain(change.fid) {
                    prop_assert!(tree.needed(fid).is_some_and(|needed| needed > place), "{fid}");
                }
            }
        }
        all(&mut tree).iter().for_each(|change| there.apply(change));
        prop_assert_eq!(there, now);
    }
}

#[test]
fn what_is_given_up_says_nothing_more_and_what_lies_in_it_stays_held() {
    let mut tree = tree();
    let sub = tree.mkdir(&root(), (TOP, &name(1)), 0o755.into(), at(1)).expect("makes").fid;
    let file = tree.create(&root(), (TOP, &name(2)), 0o644.into(), Access::WRITE, at(1)).expect("makes").attr.fid;
    assert_eq!(tree.leave(TOP), Some(2));
    assert!(tree.lookup(&Credential::ROOT, TOP, &name(3)).is_none() && tree.attr(TOP).is_none());
    assert!(tree.create(&root(), (TOP, &name(3)), 0o644.into(), Access::WRITE, at(1)).is_none());
    tree.create(&root(), (sub, &name(1)), 0o644.into(), Access::WRITE, at(1)).expect("it is held still");
    tree.left(TOP);
    assert!(!tree.holds(TOP) && tree.holds(sub) && tree.attr(file).is_none());
    assert_eq!((tree.held_at(TOP, &name(1)), tree.held_at(Fid::ROOT, &name(99))), (Some(sub), None));
}

/// Whoever asks the MDS about it by its name must first tell what was done to it.
#[test]
fn a_directory_that_is_being_given_up_is_known_by_its_name_until_all_is_told() {
    let mut tree = tree();
    let set = SetAttr { mode: Some(0o700), ..SetAttr::new(TOP) };
    tree.setattr(&root(), &set, at(1)).expect("held");
    assert!(tree.leave(TOP).is_some());
    assert_eq!(tree.attr(TOP), None, "it is not answered for here");
    assert_eq!(tree.named(Fid::ROOT, &name(99)), Some(TOP));
    assert_eq!(tree.needed(TOP), Some(tree.end()), "and the MDS does not know its mode yet");
    assert!(tree.has_held_in(Fid::ROOT) && tree.has_held_in(TOP));
    tree.left(TOP);
    assert_eq!(tree.named(Fid::ROOT, &name(99)), None);
    assert!(!tree.has_held_in(Fid::ROOT));
}

#[test]
fn only_what_plain_rights_allow_is_decided_here() {
    let alice = Arc::new(Credential { uid: 1000, gid: 100, groups: Vec::new() });
    let bob = Arc::new(Credential { uid: 2000, gid: 200, groups: Vec::new() });
    let mut tree = Tree::default();
    tree.lent(SEQUENCE);
    tree.hold_top((Fid::ROOT, &name(9)), directory(1000, 0o750), LayoutTemplate::default());
    let made = tree.create(&alice, (TOP, &name(1)), 0o644.into(), Access::WRITE, at(1)).expect("the owner may").attr;
    assert_eq!((made.uid, made.gid), (1000, 100));
    assert!(tree.create(&bob, (TOP, &name(2)), 0o644.into(), Access::WRITE, at(1)).is_none());
    assert!(tree.lookup(&bob, TOP, &name(1)).is_none(), "he may not even look");
    let mode = |mode| SetAttr { mode: Some(mode), ..SetAttr::new(made.fid) };
    assert!(tree.setattr(&bob, &mode(0o600), at(2)).is_none());
    assert!(tree.setattr(&alice, &mode(0o2600), at(2)).is_none(), "special bits are the MDS's business");
    assert_eq!(tree.setattr(&alice, &mode(0o600), at(2)).expect("the owner may").mode, 0o600);
    let give = SetAttr { uid: Some(2000), ..SetAttr::new(made.fid) };
    assert!(tree.setattr(&alice, &give, at(3)).is_none());
    assert_eq!(tree.setattr(&root(), &give, at(3)).expect("root may").uid, 2000);
}

#[test]
fn the_number_of_a_change_that_was_refused_is_not_used_again() {
    let mut tree = tree();
    for n in 1..=3 {
        tree.create(&root(), (TOP, &name(n)), 0o644.into(), Access::WRITE, at(1)).expect("makes");
    }
    assert_eq!(tree.head(9).0, 1);
    tree.answered();
    let refused = tree.left_out().expect("the second");
    assert!(matches!(&refused.op, Mutation::Create(op) if op.name == name(2)));
    let (number, rest) = tree.head(9);
    assert_eq!((number, rest.len()), (3, 1));
}

#[test]
fn numbers_go_on_when_the_same_sequence_is_told_again_and_a_new_session_begins_a_new_log() {
    let mut tree = tree();
    let make = |tree: &mut Tree, n| {
        tree.create(&root(), (TOP, &name(n)), 0o644.into(), Access::WRITE, at(1)).map(|made| made.attr.fid)
    };
    let first = make(&mut tree, 1);
    tree.lent(SEQUENCE);
    assert_ne!(make(&mut tree, 2), first);
    let end = tree.end();
    assert_eq!(tree.lose_all().len(), 2);
    assert!(tree.told() == end && !tree.holds(TOP) && !tree.has_numbers(), "whoever waited goes on");
    tree.lent(SEQUENCE + 5);
    tree.hold_top((Fid::ROOT, &name(9)), directory(0, 0o755), LayoutTemplate::default());
    assert_eq!(make(&mut tree, 1).map(|fid| fid.seq), Some(SEQUENCE + 5));
    assert_eq!(tree.head(9).0, 1);
}

#[test]
fn an_answer_to_a_session_that_is_lost_gives_nothing_to_hold_in_the_next() {
    let names = WriteBack::new(Arc::new(Lease::default()));
    assert_eq!(names.ask(), None, "no numbers were lent");
    names.lent(SEQUENCE);
    let (place, top) = (name(1), || Some((directory(0, 0o755), LayoutTemplate::default())));
    let before = names.ask().expect("numbers were lent");
    names.lose_all();
    names.lent(SEQUENCE + 1);
    names.asked(before, (Fid::ROOT, &place), top());
    assert!(!names.holds(TOP));
    let now = names.ask().expect("numbers were lent");
    names.asked(now, (Fid::ROOT, &place), top());
    assert!(names.holds(TOP));
}
