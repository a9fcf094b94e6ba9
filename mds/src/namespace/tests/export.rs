//! Random changes below a link, with workers that store, fail, die before and after, and whose answers are lost: in the end the bucket
//! is as the directory is. With others who change the bucket: nothing of either side goes without a conflict.

mod asked;
mod links;
mod ops;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sateen_types::repository::{Found, RepositoryEvents};
use sateen_types::{
    Credential, Extent, Fid, FileType, FsResult, HsmFlags, RepositoryId, RepositorySettings, Timestamp,
};

use self::ops::{Op, apply, ops};
use super::bench::Bench;
use crate::command::{Command, Outcome};
use crate::namespace::repository::export::{self, Deletion, ExportChange, Exported, Look, Plan, Store, Stored};
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

/// What a worker has to do.
#[derive(Clone, Debug)]
enum Todo {
    /// With what it read of the file when it began.
    Store(Box<Store>, String),
    Delete {
        number: u64,
        etag: String,
        earlier: Vec<u64>,
    },
    Look,
}

/// What it saw or did.
#[derive(Clone, Debug)]
enum Seen {
    Stored(Found),
    Other(Option<Found>),
    NoSource,
    Deleted,
    Object(Option<Found>, Option<u64>),
}

/// What a worker has.
#[derive(Clone, Debug)]
struct Given {
    number: u64,
    /// What is looked at because of it.
    fid: Option<Fid>,
    key: Vec<u8>,
    todo: Todo,
    seen: Option<Seen>,
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
        World::with(store, |_| {})
    }

    /// With other settings of the link.
    fn with(store: &'s MemStore, set: impl FnOnce(&mut RepositorySettings)) -> World<'s> {
        let mut b = Bench::new(store);
        b.run(Command::AllocSequence).expect("the bench uses it");
        let mut settings = RepositorySettings::new("/d".parse().expect("path"), "s3://b/p".parse().expect("url"));
        settings.auto_export = EVERY;
        set(&mut settings);
        let link = change(&mut b, Change::Create { settings }).expect("links");
        let Answer::Link(link) = link else { panic!("{link:?}") };
        change(&mut b, Change::Checked { id: link.id, message: String::new(), with: None }).expect("checks");
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

    /// Whether what is not here can be had now: not while its object is being stored anew and nobody knows what came of that.
    fn can_load(&self, fid: Fid) -> bool {
        let view = self.b.view();
        let row = repository::hsm(&*view, fid).expect("reads").expect("released");
        let unsettled = export::is_unsettled(&*view, row.repository, &row.key).expect("reads");
        !unsettled || self.bucket.get(&row.key).is_some_and(|object| object.etag == row.etag)
    }

    fn write(&mut self, fid: Fid) {
        if repository::loads(&*self.b.view(), fid).expect("reads").is_some() {
            if !self.can_load(fid) {
                return;
            }
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
        if self.is_busy(fid) {
            return;
        }
        let _ = change(&mut self.b, Change::Release { fid, who: Credential::ROOT });
    }

    fn is_busy(&self, fid: Fid) -> bool {
        self.out.iter().any(|given| given.fid == Some(fid))
    }

    fn is_key_busy(&self, key: &[u8]) -> bool {
        self.out.iter().any(|given| given.key == key)
    }

    /// Gives something to a worker.
    fn give(&mut self, number: u64, fid: Option<Fid>, key: Vec<u8>, todo: Todo) -> bool {
        self.out.push(Given { number, fid, key, todo, seen: None });
        true
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
            Waits::Delete { key } => {
                if self.is_key_busy(key) {
                    return false;
                }
                let (id, key, row) = (self.id, key.clone(), *number);
                let deletion = export::deletion(&*self.b.view(), id, &key, row).expect("looks");
                let number = self.number();
                match deletion {
                    Deletion::Gone | Deletion::Wait => false,
                    Deletion::Unwanted => {
                        exported(&mut self.b, ExportChange::Kept { id, key, number: row }).expect("notes");
                        true
                    }
                    Deletion::Look => self.give(number, None, key, Todo::Look),
                    Deletion::Delete { etag, earlier } => {
                        self.give(number, None, key, Todo::Delete { number: row, etag, earlier })
                    }
                }
            }
            Waits::File(fid) => self.look_at(*fid, Look { copy: !self.no_copy.contains(fid), ..PATIENT }),
        }
    }

    fn look_at(&mut self, fid: Fid, look: Look) -> bool {
        if self.is_busy(fid) {
            return false;
        }
        let plan = export::plan(&*self.b.view(), fid, look).expect("plans");
        match plan {
            Plan::Look(_, key) => {
                let number = self.number();
                !self.is_key_busy(&key) && self.give(number, Some(fid), key, Todo::Look)
            }
            Plan::Store(store) => {
                let key = store.export.key.clone();
                if self.is_key_busy(&key) {
                    return false;
                }
                let (number, id) = (self.number(), self.id);
                let begin = ExportChange::Begin { fid, id, key: key.clone(), number, look };
                let begun = exported(&mut self.b, begin).expect("begins");
                let Exported::Plan(plan) = begun else { panic!("{begun:?}") };
                let Plan::Store(store) = *plan else { panic!("{plan:?}") };
                let data = if store.export.copy.is_some() { String::new() } else { self.data_of(fid) };
                self.give(number, Some(fid), key, Todo::Store(store, data))
            }
            Plan::Settle => {
                assert_eq!(exported(&mut self.b, ExportChange::Settle { fid }).expect("settles"), Exported::Done);
                true
            }
            Plan::Behind(_) => self.look_at(fid, Look { patient: false, ..look }),
            Plan::Load(other) => {
                let can = self.can_load(other);
                if can {
                    self.load(other);
                }
                can
            }
            other => panic!("{other:?}"),
        }
    }

    /// A worker does what it has to do.
    fn put(&mut self, pick: usize) {
        if self.out.is_empty() {
            return;
        }
        let at = pick % self.out.len();
        let Given { number, key, todo, seen, .. } = self.out[at].clone();
        if seen.is_some() {
            return;
        }
        let there = self.bucket.get(&key).cloned();
        let seen = match todo {
            Todo::Look => {
                Seen::Object(there.as_ref().map(Object::found), there.filter(|o| !o.foreign).map(|o| o.number))
            }
            Todo::Delete { etag, earlier, .. } => match there {
                Some(other) if other.etag != etag && !earlier.contains(&other.number) => {
                    Seen::Other(Some(other.found()))
                }
                _ => {
                    self.bucket.remove(&key);
                    Seen::Deleted
                }
            },
            Todo::Store(store, data) => self.put_object(number, &store, data, there),
        };
        self.out[at].seen = Some(seen);
    }

    /// As the worker does it: what is there is judged first.
    fn put_object(&mut self, number: u64, store: &Store, mut data: String, there: Option<Object>) -> Seen {
        let export = &store.export;
        let fits = match &there {
            None => export.known_etag.is_empty() || export.may_be_gone,
            Some(o) => o.etag == export.known_etag || export.earlier.contains(&o.number),
        };
        if !fits {
            return Seen::Other(there.as_ref().map(Object::found));
        }
        if let Some(copy) = &export.copy {
            match self.bucket.get(&copy.key).filter(|o| o.etag == copy.etag) {
                Some(source) => data = source.data.clone(),
                None => return Seen::NoSource,
            }
        }
        let attributes = (export.mode & 0o7777, export.uid, export.gid);
        let object = Object { etag: format!("e{number}"), data, attributes, number, foreign: false };
        self.bucket.insert(export.key.clone(), object.clone());
        Seen::Stored(object.found())
    }

    /// A worker reports.
    fn report(&mut self, pick: usize) -> bool {
        let done: Vec<usize> = (0..self.out.len()).filter(|at| self.out[*at].seen.is_some()).collect();
        if done.is_empty() {
            return false;
        }
        let Given { number, key, todo, seen, .. } = self.out.remove(done[pick % done.len()]);
        let id = self.id;
        let change = match (todo, seen.expect("filtered")) {
            (Todo::Look, Seen::Object(object, number)) => {
                let stamp = self.number();
                ExportChange::Looked { id, key, object, number, overtaken: false, stamp }
            }
            (Todo::Delete { number, .. }, Seen::Deleted) => ExportChange::Deleted { id, key, number, stamp: 0 },
            (Todo::Delete { number, .. }, Seen::Other(object)) => {
                ExportChange::DeletionConflicting { id, key, number, object }
            }
            (Todo::Store(store, _), seen) => {
                let (fid, copied, known_etag) =
                    (store.export.fid, store.export.copy.is_some(), store.export.known_etag);
                match seen {
                    Seen::Stored(object) => {
                        self.no_copy.remove(&fid);
                        let attributes = (store.export.mode & 0o7777, store.export.uid, store.export.gid);
                        let (change, of, overtaken, stamp) = (store.change, store.of, false, number);
                        let stored = Stored { fid, id, key, object, change, attributes, of, copied, overtaken, stamp };
                        ExportChange::Stored(Box::new(stored))
                    }
                    Seen::NoSource => {
                        assert!(
                            repository::loads(&*self.b.view(), fid).expect("reads").is_none(),
                            "nowhere to be read"
                        );
                        self.no_copy.insert(fid);
                        ExportChange::NotStored { fid, number }
                    }
                    Seen::Other(object) => ExportChange::Conflicting { fid, id, key, number, object, known_etag },
                    other => panic!("{other:?}"),
                }
            }
            other => panic!("{other:?}"),
        };
        exported(&mut self.b, change).expect("notes");
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

/// As many runs as `PROPTEST_CASES` says, or 400.
fn config() -> ProptestConfig {
    let given = std::env::var_os("PROPTEST_CASES").is_some();
    let config = ProptestConfig::default();
    if given { config } else { ProptestConfig { cases: 400, ..config } }
}

proptest! {
    #![proptest_config(config())]

    #[test]
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
        prop_assert_eq!(export::conflict_count(&*w.b.view(), w.id).expect("reads"), 0);
        // Nothing is remembered that nobody needs.
        let rows = w.b.view().scan(crate::store::Table::Exports, b"g", None, 10).expect("reads");
        prop_assert!(rows.is_empty(), "{:?}", rows);
        // Nothing is dirty, and a second look finds nothing.
        let started = exported(&mut w.b, ExportChange::Start { id: w.id, path: None });
        started.expect("starts");
        let before = w.next;
        w.finish();
        prop_assert_eq!(w.next, before, "something was stored again");
    }

    #[test]
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
    let row = repository::hsm(view, fid).expect("reads").filter(|row| !row.flags.has(HsmFlags::DIRTY));
    match export::further(view, fid, w.id, key).expect("reads") {
        Some(further) => {
            let inode = crate::namespace::inode(view, fid).expect("there");
            let same = further.change == inode.change || row.is_some_and(|row| row.etag == further.of);
            same && (further.mode, further.uid, further.gid) == (inode.mode, inode.uid, inode.gid)
        }
        None => row.is_some_and(|row| !row.attributes_changed),
    }
}
