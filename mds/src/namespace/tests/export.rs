//! Random changes below a link, with workers that store, fail, die before and after, and whose answers are lost: in the end the bucket
//! is as the directory is. With others who change the bucket: nothing of either side goes without a conflict.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sateen_types::op::{Mutation, RenameMode};
use sateen_types::repository::{Found, RepositoryEvents};
use sateen_types::{
    Credential, Extent, Fid, FileType, FsResult, HsmFlags, RepositoryId, RepositorySettings, Timestamp,
};

use super::bench::{Bench, name};
use crate::command::{Command, Outcome};
use crate::namespace::repository::export::{self, ExportChange, Exported, Look, Plan, Store, Stored};
use crate::namespace::repository::{self, Answer, Change};
use crate::store::MemStore;
use crate::store::records::Waits;

/// Contents and attributes by key.
type Objects = BTreeMap<Vec<u8>, (String, (u32, u32, u32))>;

const PATIENT: Look = Look { copy: true, patient: true };
const EVERY: RepositoryEvents = RepositoryEvents { created: true, changed: true, deleted: true };

fn change(b: &mut Bench<'_>, change: Change) -> FsResult<Answer> {
    match b.run(Command::Repository(Box::new(change)))? {
        Outcome::Repository(answer) => Ok(answer),
        other => panic!("{other:?}"),
    }
}

fn exported(b: &mut Bench<'_>, what: ExportChange) -> FsResult<Exported> {
    match change(b, Change::Export(what))? {
        Answer::Export(exported) => Ok(exported),
        other => panic!("{other:?}"),
    }
}

/// An object of the bucket: whose data it has, and what is said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Object {
    etag: String,
    data: String,
    attributes: (u32, u32, u32),
    number: u64,
    foreign: bool,
}

impl Object {
    fn found(&self) -> Found {
        Found { size: 10, etag: self.etag.clone(), modified: Timestamp { seconds: 1, nanos: 0 } }
    }
}

/// What a worker has.
#[derive(Clone, Debug)]
struct Given {
    number: u64,
    store: Box<Store>,
    /// What it read of the file when it began.
    data: String,
    put: Option<Result<Found, Option<Found>>>,
}

struct World<'s> {
    b: Bench<'s>,
    id: RepositoryId,
    root: Fid,
    bucket: BTreeMap<Vec<u8>, Object>,
    /// What is in files, as far as it is here.
    data: BTreeMap<Fid, String>,
    out: Vec<Given>,
    dirs: Vec<Fid>,
    next: u64,
    no_copy: BTreeSet<Fid>,
}

impl<'s> World<'s> {
    fn new(store: &'s MemStore) -> World<'s> {
        let mut b = Bench::new(store);
        b.run(Command::AllocSequence).expect("the bench uses it");
        let mut settings = RepositorySettings::new("/d".parse().expect("path"), "s3://b/p".parse().expect("url"));
        settings.auto_export = EVERY;
        let link = change(&mut b, Change::Create { settings }).expect("links");
        let Answer::Link(link) = link else { panic!("{link:?}") };
        change(&mut b, Change::Checked { id: link.id, message: String::new() }).expect("checks");
        let dirs = vec![link.root, Fid::ROOT];
        World {
            b,
            id: link.id,
            root: link.root,
            bucket: BTreeMap::new(),
            data: BTreeMap::new(),
            out: Vec::new(),
            dirs,
            next: 100,
            no_copy: BTreeSet::new(),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn data_of(&self, fid: Fid) -> String {
        let view = self.b.view();
        // What is not here is in the object.
        if repository::loads(&*view, fid).expect("reads").is_some() {
            let row = repository::hsm(&*view, fid).expect("reads").expect("released");
            let object =
                self.bucket.get(&row.key).unwrap_or_else(|| panic!("{:?} of a released file is gone", row.key));
            assert_eq!(object.etag, row.etag, "a released file has lost its data");
            return object.data.clone();
        }
        self.data.get(&fid).cloned().unwrap_or_default()
    }

    fn write(&mut self, fid: Fid) {
        if repository::loads(&*self.b.view(), fid).expect("reads").is_some() {
            self.load(fid);
        }
        self.b.write_done(fid, 10, 0).expect("writes");
        let n = self.number();
        self.data.insert(fid, format!("data {n}"));
    }

    fn load(&mut self, fid: Fid) {
        let data = self.data_of(fid);
        let row = repository::hsm(&*self.b.view(), fid).expect("reads").expect("released");
        let range = Extent { start: 0, end: row.size };
        change(&mut self.b, Change::Prepare { fid, range }).expect("prepares");
        let loaded = Change::Loaded { fid, etag: row.etag, range, allocated_delta: 0 };
        change(&mut self.b, loaded).expect("loads");
        self.data.insert(fid, data);
    }

    fn release(&mut self, fid: Fid) {
        if self.out.iter().any(|given| given.store.export.fid == fid) {
            return;
        }
        let _ = change(&mut self.b, Change::Release { fid, who: Credential::ROOT });
    }

    /// Looks at one of the first things that wait. Gives whether something was done.
    fn look(&mut self, pick: usize) -> bool {
        let items = export::items(&*self.b.view(), self.id, 0, 16).expect("reads");
        if items.is_empty() {
            return false;
        }
        let (number, record) = &items[pick % items.len()];
        match &record.what {
            Waits::Tree { .. } => {
                exported(&mut self.b, ExportChange::Walk { id: self.id, number: *number }).expect("walks");
                true
            }
            Waits::Delete { key, etag, earlier } => {
                if self.out.iter().any(|given| given.store.export.key == *key) {
                    return false;
                }
                let (id, key, number) = (self.id, key.clone(), *number);
                let ours = |o: &Object| o.etag == *etag || earlier.contains(&o.number);
                match self.bucket.get(&key).cloned() {
                    Some(object) if !ours(&object) => {
                        let object = Some(object.found());
                        let other = ExportChange::DeletionConflicting { id, key, number, object };
                        exported(&mut self.b, other).expect("notes");
                    }
                    _ => {
                        self.bucket.remove(&key);
                        exported(&mut self.b, ExportChange::Deleted { id, key, number, stamp: 0 }).expect("notes");
                    }
                }
                true
            }
            Waits::File(fid) => self.look_at(*fid, Look { copy: !self.no_copy.contains(fid), ..PATIENT }),
        }
    }

    fn look_at(&mut self, fid: Fid, look: Look) -> bool {
        if self.out.iter().any(|given| given.store.export.fid == fid) {
            return false;
        }
        let plan = export::plan(&*self.b.view(), fid, look).expect("plans");
        match plan {
            Plan::Store(store) => {
                let key = store.export.key.clone();
                if self.out.iter().any(|given| given.store.export.key == key) {
                    return false;
                }
                let (number, id) = (self.number(), self.id);
                let begun = exported(&mut self.b, ExportChange::Begin { fid, id, key, number, look }).expect("begins");
                let Exported::Plan(plan) = begun else { panic!("{begun:?}") };
                let Plan::Store(store) = *plan else { panic!("{plan:?}") };
                let data = if store.export.copy.is_some() { String::new() } else { self.data_of(fid) };
                self.out.push(Given { number, store, data, put: None });
                true
            }
            Plan::Settle => {
                assert_eq!(exported(&mut self.b, ExportChange::Settle { fid }).expect("settles"), Exported::Done);
                true
            }
            Plan::Behind(_) => self.look_at(fid, Look { patient: false, ..look }),
            Plan::Load(other) => {
                self.load(other);
                true
            }
            other => panic!("{other:?}"),
        }
    }

    /// A worker puts what it has in place.
    fn put(&mut self, pick: usize) {
        if self.out.is_empty() {
            return;
        }
        let at = pick % self.out.len();
        let Given { number, store, mut data, put } = self.out[at].clone();
        if put.is_some() {
            return;
        }
        let export = &store.export;
        if let Some(copy) = &export.copy {
            match self.bucket.get(&copy.key).filter(|o| o.etag == copy.etag) {
                Some(source) => data = source.data.clone(),
                None => {
                    let fid = export.fid;
                    assert!(repository::loads(&*self.b.view(), fid).expect("reads").is_none(), "nowhere to be read");
                    self.no_copy.insert(fid);
                    exported(&mut self.b, ExportChange::NotStored { fid, number }).expect("notes");
                    self.out.remove(at);
                    return;
                }
            }
        }
        let there = self.bucket.get(&export.key);
        let fits = match there {
            None => export.known_etag.is_empty() || !export.earlier.is_empty(),
            Some(o) => o.etag == export.known_etag || export.earlier.contains(&o.number),
        };
        let outcome = if fits {
            let etag = format!("e{number}");
            let attributes = (export.mode & 0o7777, export.uid, export.gid);
            let object = Object { etag, data, attributes, number, foreign: false };
            self.bucket.insert(export.key.clone(), object.clone());
            Ok(object.found())
        } else {
            Err(there.map(Object::found))
        };
        self.out[at].put = Some(outcome);
    }

    /// A worker reports.
    fn report(&mut self, pick: usize) -> bool {
        let done: Vec<usize> = (0..self.out.len()).filter(|at| self.out[*at].put.is_some()).collect();
        if done.is_empty() {
            return false;
        }
        let Given { number, store, put, .. } = self.out.remove(done[pick % done.len()]);
        let (id, fid, copied) = (self.id, store.export.fid, store.export.copy.is_some());
        let (key, known_etag) = (store.export.key.clone(), store.export.known_etag.clone());
        match put.expect("filtered") {
            Ok(object) => {
                self.no_copy.remove(&fid);
                let attributes = (store.export.mode & 0o7777, store.export.uid, store.export.gid);
                let change = store.change;
                let stored =
                    Stored { fid, id, key, object, change, attributes, copied, overtaken: false, stamp: number };
                exported(&mut self.b, ExportChange::Stored(Box::new(stored))).expect("notes");
            }
            Err(object) => {
                let other = ExportChange::Conflicting { fid, id, key, number, object, known_etag };
                exported(&mut self.b, other).expect("notes");
            }
        }
        true
    }

    /// A worker dies, whatever it had done.
    fn die(&mut self, pick: usize) {
        if !self.out.is_empty() {
            let at = pick % self.out.len();
            self.out.remove(at);
        }
    }

    /// No more is changed: everything that waits is done.
    fn finish(&mut self) {
        for _ in 0..2000 {
            for _ in 0..self.out.len() {
                self.put(0);
                self.report(0);
            }
            let waits = export::items(&*self.b.view(), self.id, 0, 1000).expect("reads").len();
            if waits == 0 && self.out.is_empty() {
                return;
            }
            for at in 0..waits.max(1) {
                self.look(at);
            }
        }
        let left = export::items(&*self.b.view(), self.id, 0, 5).expect("reads");
        panic!("it never ends: {left:?}, {:?}", self.out);
    }

    /// What the bucket should have.
    fn expected(&self, dir: Fid, at: &str, out: &mut Objects) {
        for n in self.b.list(dir) {
            let attr = self.b.lookup(dir, &n).expect("listed");
            let (mut key, attributes) = (format!("{at}{n}"), (attr.mode, attr.uid, attr.gid));
            let data = match attr.file_type {
                FileType::Directory => {
                    key.push('/');
                    self.expected(attr.fid, &key, out);
                    String::new()
                }
                FileType::Regular => self.data_of(attr.fid),
                _ => String::new(),
            };
            out.insert(key.into_bytes(), (data, attributes));
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Create(usize, u8),
    Mkdir(usize, u8),
    Symlink(usize, u8),
    Write(usize, u8),
    Chmod(usize, u8, u32),
    Unlink(usize, u8),
    Rmdir(usize, u8),
    Link((usize, u8), (usize, u8)),
    Rename((usize, u8), (usize, u8), RenameMode),
    Release(usize, u8),
    Look(usize),
    Put(usize),
    Report(usize),
    Die(usize),
    Foreign(usize, u8),
    ForeignGone(usize),
}

fn ops(foreign: u32) -> impl Strategy<Value = Vec<Op>> {
    let place = || (0usize..5, 0u8..3);
    let mode = prop_oneof![3 => Just(RenameMode::Replace), 1 => Just(RenameMode::Exchange)];
    let op = prop_oneof![
        4 => place().prop_map(|(d, n)| Op::Create(d, n)),
        2 => place().prop_map(|(d, n)| Op::Mkdir(d, n)),
        1 => place().prop_map(|(d, n)| Op::Symlink(d, n)),
        4 => place().prop_map(|(d, n)| Op::Write(d, n)),
        2 => (place(), 0u32..3).prop_map(|((d, n), mode)| Op::Chmod(d, n, 0o640 + mode)),
        2 => place().prop_map(|(d, n)| Op::Unlink(d, n)),
        1 => place().prop_map(|(d, n)| Op::Rmdir(d, n)),
        2 => (place(), place()).prop_map(|(a, b)| Op::Link(a, b)),
        5 => (place(), place(), mode).prop_map(|(a, b, m)| Op::Rename(a, b, m)),
        if foreign == 0 { 3 } else { 1 } => place().prop_map(move |(d, n)| if foreign == 0 { Op::Release(d, n) } else { Op::Write(d, n) }),
        10 => (0usize..16).prop_map(Op::Look),
        8 => (0usize..16).prop_map(Op::Put),
        8 => (0usize..16).prop_map(Op::Report),
        1 => (0usize..16).prop_map(Op::Die),
        foreign.max(1) => place().prop_map(move |(d, n)| if foreign == 0 { Op::Look(d) } else { Op::Foreign(d, n) }),
        foreign.div_ceil(2).max(1) => (0usize..16).prop_map(move |n| if foreign == 0 { Op::Look(n) } else { Op::ForeignGone(n) }),
    ];
    proptest::collection::vec(op, 1..120)
}

fn apply(w: &mut World<'_>, op: &Op) {
    let text = |n: u8| format!("n{n}");
    let dir = |w: &World<'_>, d: usize| w.dirs[d % w.dirs.len()];
    let file = |w: &World<'_>, d: usize, n: u8| {
        let attr = w.b.lookup(dir(w, d), &text(n)).ok()?;
        (attr.file_type == FileType::Regular).then_some(attr.fid)
    };
    match *op {
        Op::Create(d, n) => {
            if let Ok(fid) = w.b.create(dir(w, d), &text(n)) {
                w.write(fid);
            }
        }
        Op::Mkdir(d, n) => {
            if let Ok(fid) = w.b.mkdir(dir(w, d), &text(n)) {
                w.dirs.push(fid);
            }
        }
        Op::Symlink(d, n) => {
            let op = Mutation::Symlink { parent: dir(w, d), name: name(&text(n)), target: b"t".to_vec() };
            let _ = w.b.ask(&Credential::ROOT, op);
        }
        Op::Write(d, n) => {
            if let Some(fid) = file(w, d, n) {
                w.write(fid);
            }
        }
        Op::Chmod(d, n, mode) => {
            if let Ok(attr) = w.b.lookup(dir(w, d), &text(n)) {
                w.b.setattr(&Credential::ROOT, attr.fid, |op| op.mode = Some(mode)).expect("changes");
            }
        }
        Op::Unlink(d, n) => drop(w.b.unlink(dir(w, d), &text(n))),
        Op::Rmdir(d, n) => {
            if dir(w, d) != Fid::ROOT {
                let _ = w.b.rmdir(dir(w, d), &text(n));
            }
        }
        Op::Link((sd, sn), (d, n)) => {
            if let Some(fid) = file(w, sd, sn) {
                let _ = w.b.link(fid, dir(w, d), &text(n));
            }
        }
        Op::Rename((sd, sn), (d, n), mode) => {
            let (from, to) = ((dir(w, sd), text(sn)), (dir(w, d), text(n)));
            let _ = w.b.rename_as(&Credential::ROOT, (from.0, &from.1), (to.0, &to.1), mode);
        }
        Op::Release(d, n) => {
            if let Some(fid) = file(w, d, n) {
                w.release(fid);
            }
        }
        Op::Look(n) => drop(w.look(n)),
        Op::Put(n) => w.put(n),
        Op::Report(n) => drop(w.report(n)),
        Op::Die(n) => w.die(n),
        Op::Foreign(d, n) => {
            let at = w.bucket.keys().nth(d).cloned().unwrap_or_else(|| text(n).into_bytes());
            let number = w.number();
            let (etag, data) = (format!("f{number}"), format!("foreign {number}"));
            w.bucket.insert(at, Object { etag, data, attributes: (0, 0, 0), number: 0, foreign: true });
        }
        Op::ForeignGone(n) => {
            if let Some(key) = w.bucket.keys().nth(n).cloned() {
                w.bucket.remove(&key);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    #[ignore = "finds corners that are open: known gaps of decision 0018"]
    fn the_bucket_ends_as_the_directory_is(ops in ops(0)) {
        let store = MemStore::default();
        let mut w = World::new(&store);
        for op in &ops {
            apply(&mut w, op);
        }
        w.finish();
        let mut expected = BTreeMap::new();
        w.expected(w.root, "", &mut expected);
        let found = w.bucket.iter().map(|(key, o)| (key.clone(), (o.data.clone(), o.attributes)));
        let shown = |map: BTreeMap<Vec<u8>, _>| -> BTreeMap<String, (String, (u32, u32, u32))> {
            map.into_iter().map(|(k, v)| (String::from_utf8_lossy(&k).into_owned(), v)).collect()
        };
        prop_assert_eq!(shown(found.collect()), shown(expected));
        let conflicts = export::conflict_count(&*w.b.view(), w.id).expect("reads");
        if conflicts > 0 && ops.iter().any(|op| matches!(op, Op::Die(_))) {
            // An object that nobody reported may be taken for somebody else's, once names have changed places: decision 0018.
            return Ok(());
        }
        prop_assert_eq!(conflicts, 0);
        // Nothing is dirty, and a second look finds nothing.
        let started = exported(&mut w.b, ExportChange::Start { id: w.id, path: None });
        started.expect("starts");
        let before = w.next;
        w.finish();
        prop_assert_eq!(w.next, before, "something was stored again");
    }

    #[test]
    #[ignore = "finds corners that are open: known gaps of decision 0018"]
    fn nothing_of_either_side_goes_without_a_conflict(ops in ops(6)) {
        let store = MemStore::default();
        let mut w = World::new(&store);
        let mut foreign: BTreeMap<Vec<u8>, Object> = BTreeMap::new();
        for op in &ops {
            apply(&mut w, op);
            match op {
                Op::Foreign(..) | Op::ForeignGone(_) => {
                    foreign = w.bucket.iter().filter(|(_, o)| o.foreign).map(|(k, o)| (k.clone(), o.clone())).collect();
                }
                _ => {}
            }
            for (key, object) in &foreign {
                prop_assert_eq!(w.bucket.get(key), Some(object), "after {:?}", op);
            }
        }
        w.finish();
        for (key, object) in &foreign {
            prop_assert_eq!(w.bucket.get(key), Some(object));
        }
        let (conflicts, _) = export::list_conflicts(&*w.b.view(), w.id, b"", 1000).expect("lists");
        let conflicts: BTreeSet<Vec<u8>> = conflicts.into_iter().map(|c| c.key).collect();
        let mut expected = BTreeMap::new();
        w.expected(w.root, "", &mut expected);
        for (key, (data, attributes)) in expected {
            let same = w.bucket.get(&key).is_some_and(|o| o.data == data && o.attributes == attributes);
            let row = w.b.view();
            // An object that somebody deleted is found by the next import, not by an export that has nothing to store.
            let unseen = w.bucket.get(&key).is_none_or(|o| o.foreign) && is_clean(&w, &*row, &key);
            let text = String::from_utf8_lossy(&key).into_owned();
            prop_assert!(same || unseen || conflicts.contains(&key), "{} differs and has no conflict", text);
        }
    }
}

/// Whether nothing has changed here since the object was stored.
fn is_clean(w: &World<'_>, view: &dyn crate::store::ReadTxn, key: &[u8]) -> bool {
    let Ok(Some(fid)) = export::owner(view, w.id, key) else { return false };
    let row = repository::hsm(view, fid).expect("reads");
    row.is_some_and(|row| !row.flags.has(HsmFlags::DIRTY) && !row.attributes_changed)
}
