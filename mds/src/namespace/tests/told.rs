//! A bucket that others change, and what is told of it: late, twice, in another order, or not at all; with comparisons now and then, and
//! people who change files here. In the end names and ETags are those of the bucket where nothing was changed here, and nothing that
//! was changed here is lost.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sateen_types::repository::{ImportPage, ImportState, ImportedObject, KeyRange, RepositoryEvents};
use sateen_types::{Credential, Fid, FileType, HsmFlags, RepositoryId, RepositorySettings, Timestamp};

use super::bench::Bench;
use crate::command::{Command, Outcome};
use crate::namespace::repository::{self, Answer, Change, Looked};
use crate::store::MemStore;
use crate::store::records::Sync;

const EVERY: RepositoryEvents = RepositoryEvents { created: true, changed: true, deleted: true };
const KEYS: [&str; 7] = ["a", "b", "d/", "d/e/", "d/e/z", "d/x", "s"];

#[derive(Clone, Debug)]
enum Step {
    /// The bucket changes.
    Put(usize),
    Delete(usize),
    /// Somebody begins to look at keys, sees what is there, tells it, once or twice, or forgets it.
    Notice(Vec<usize>),
    Look(usize),
    Tell(usize, bool),
    Lose(usize),
    /// The bucket is listed, and later compared with the directory.
    List,
    Compare(usize, usize, usize),
    /// People here.
    Write(usize),
    Chmod(usize),
    Unlink(usize),
    Move(usize),
    Open(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || 0..KEYS.len();
    let step = prop_oneof![
        6 => key().prop_map(Step::Put),
        3 => key().prop_map(Step::Delete),
        6 => proptest::collection::vec(key(), 1..4).prop_map(Step::Notice),
        6 => any::<usize>().prop_map(Step::Look),
        6 => (any::<usize>(), any::<bool>()).prop_map(|(n, twice)| Step::Tell(n, twice)),
        1 => any::<usize>().prop_map(Step::Lose),
        2 => Just(Step::List),
        2 => (any::<usize>(), 1usize..4, any::<usize>()).prop_map(|(n, size, turn)| Step::Compare(n, size, turn)),
        2 => key().prop_map(Step::Write),
        1 => key().prop_map(Step::Chmod),
        1 => key().prop_map(Step::Unlink),
        1 => key().prop_map(Step::Move),
        1 => (0..2 * KEYS.len()).prop_map(Step::Open),
    ];
    proptest::collection::vec(step, 1..80)
}

struct Message {
    stamp: u64,
    keys: BTreeSet<&'static str>,
    seen: Option<(Vec<ImportedObject>, Vec<Vec<u8>>)>,
}

struct World<'s> {
    b: Bench<'s>,
    id: RepositoryId,
    root: Fid,
    bucket: BTreeMap<&'static str, u64>,
    writes: u64,
    messages: Vec<Message>,
    listings: Vec<Listing>,
    /// Names that went, with the stamp.
    deleted: BTreeMap<Vec<u8>, u64>,
    /// Files that were written to here, with the size they must keep.
    written: BTreeMap<Fid, u64>,
    moved: u32,
}

/// Stamp, what was there, and the keys of it that were known then: by the time of the comparison that may not be so any more.
type Listing = (u64, BTreeMap<&'static str, u64>, BTreeSet<Vec<u8>>);

fn object(key: &str, version: u64) -> ImportedObject {
    ImportedObject {
        key: key.as_bytes().to_vec(),
        size: if key.ends_with('/') { 0 } else { 1000 + version },
        etag: format!("v{version}"),
        modified: Timestamp { seconds: version as i64, nanos: 0 },
        mode: Some(0o640),
        uid: None,
        gid: None,
        atime: None,
        mtime: None,
        symlink: (key == "s").then(|| format!("to-{version}").into_bytes()),
    }
}

impl World<'_> {
    fn change(&mut self, stamp: u64, make: impl FnOnce(Looked) -> Change) -> Answer {
        let looked = Looked { stamp, heard: self.b.look().heard };
        let change = make(looked);
        let (_, _, keys) = repository::objects(&change).expect("tells of objects");
        let since = |key: &&&[u8]| self.deleted.get(**key).is_some_and(|at| *at > stamp);
        self.b.left = keys.iter().filter(since).map(|key| key.to_vec()).collect();
        let told = change.clone();
        let answer = match self.b.run(Command::Repository(Box::new(change))).expect("applies") {
            Outcome::Repository(answer) => answer,
            other => panic!("{other:?}"),
        };
        let gone = match (told, &answer) {
            (Change::Events { gone, .. }, Answer::Events(done)) => {
                gone.into_iter().filter(|key| !done.later.contains(key)).collect()
            }
            (_, Answer::Went(keys)) => keys.clone(),
            _ => Vec::new(),
        };
        self.deleted.extend(gone.into_iter().map(|key| (key, looked.heard)));
        answer
    }

    fn find(&self, key: &str) -> Option<(Fid, String, Fid)> {
        let mut dir = self.root;
        let path = key.trim_end_matches('/');
        let (above, last) = path.rsplit_once('/').unwrap_or(("", path));
        for part in above.split('/').filter(|part| !part.is_empty()) {
            dir = self.b.lookup(dir, part).ok()?.fid;
        }
        Some((dir, last.to_owned(), self.b.lookup(dir, last).ok()?.fid))
    }

    /// The bucket as it is now, and what of it need not be looked at.
    fn list(&mut self) -> Listing {
        let stamp = self.b.look().stamp;
        let listed = |(key, version): (&&str, &u64)| {
            let seen = object(key, *version);
            ImportedObject::listed(seen.key, seen.size, seen.etag, seen.modified)
        };
        let objects: Vec<_> = self.bucket.iter().map(listed).collect();
        let known = repository::known(&*self.b.view(), self.id, &objects).expect("reads");
        let keys = objects.into_iter().zip(known).filter(|(_, known)| *known).map(|(object, _)| object.key);
        (stamp, self.bucket.clone(), keys.collect())
    }

    fn compare(&mut self, (stamp, listing, known): Listing, size: usize, turn: usize) {
        let id = self.id;
        self.b.run(Command::Repository(Box::new(Change::StartImport { id, sync: Sync::Asked }))).expect("starts");
        let all: Vec<ImportedObject> = listing.iter().map(|(key, version)| object(key, *version)).collect();
        let mut pages: Vec<Vec<ImportedObject>> = all.chunks(size).map(<[_]>::to_vec).collect();
        if pages.is_empty() {
            pages.push(Vec::new());
        }
        // Each tells of the keys from the one before on, and they come in any order.
        let count = pages.len();
        let mut from = Vec::new();
        let mut told: Vec<(KeyRange, Vec<ImportedObject>)> = Vec::new();
        for (n, objects) in pages.into_iter().enumerate() {
            let end = objects.last().map(|o| o.key.clone()).filter(|_| n + 1 < count);
            told.push((
                KeyRange { after: std::mem::replace(&mut from, end.clone().unwrap_or_default()), end },
                objects,
            ));
        }
        told.rotate_left(turn % count);
        for (range, objects) in told {
            let record = repository::get(&*self.b.view(), id).expect("there");
            let run = record.run;
            let listed: Vec<Vec<u8>> = objects.iter().map(|o| o.key.clone()).collect();
            for mut left in record.left.iter().map(|left| left.and(&range)).filter(|left| !left.is_empty()) {
                loop {
                    let missing = repository::missing(&*self.b.view(), id, &left, &listed, 2).expect("reads");
                    if !missing.keys.is_empty() {
                        self.change(stamp, |looked| Change::Compared { id, run, keys: missing.keys, looked });
                    }
                    match missing.after {
                        Some(next) => left.after = next,
                        None => break,
                    }
                }
            }
            let (from, last) = (range.after, range.end.is_none());
            let after = listed.last().cloned().unwrap_or_default();
            let (known, objects): (Vec<_>, Vec<_>) = objects.into_iter().partition(|o| known.contains(&o.key));
            let known = known.into_iter().map(|o| o.key).collect();
            let page = ImportPage { from, objects, after, skipped: Vec::new(), known, last, stamp };
            self.change(stamp, |looked| Change::Import { id, run, page, looked });
        }
        let import = repository::get(&*self.b.view(), id).expect("there").import;
        assert_eq!(import.state, ImportState::Done, "every page was told");
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put(key) => {
                self.writes += 1;
                self.bucket.insert(KEYS[key], self.writes);
            }
            Step::Delete(key) => drop(self.bucket.remove(KEYS[key])),
            Step::Notice(keys) => {
                let stamp = self.b.look().stamp;
                self.messages.push(Message { stamp, keys: keys.into_iter().map(|k| KEYS[k]).collect(), seen: None });
            }
            Step::Look(n) if !self.messages.is_empty() => {
                let at = n % self.messages.len();
                let message = &mut self.messages[at];
                if message.seen.is_none() {
                    let there = |key: &&&'static str| self.bucket.contains_key(**key);
                    let objects = message.keys.iter().filter(there).map(|key| object(key, self.bucket[key]));
                    let gone = message.keys.iter().filter(|key| !there(key)).map(|key| key.as_bytes().to_vec());
                    message.seen = Some((objects.collect(), gone.collect()));
                }
            }
            Step::Tell(n, twice) if !self.messages.is_empty() => {
                let at = n % self.messages.len();
                let (stamp, seen) = (self.messages[at].stamp, self.messages[at].seen.clone());
                let Some((objects, gone)) = seen else { return };
                if !twice {
                    self.messages.remove(at);
                }
                let id = self.id;
                self.change(stamp, |looked| Change::Events { id, objects, gone, looked });
            }
            Step::Lose(n) if !self.messages.is_empty() => drop(self.messages.remove(n % self.messages.len())),
            Step::List => {
                let listing = self.list();
                self.listings.push(listing);
            }
            Step::Compare(n, size, turn) if !self.listings.is_empty() => {
                let listing = self.listings.remove(n % self.listings.len());
                self.compare(listing, size, turn);
            }
            Step::Write(key) => {
                if let Some((_, _, fid)) =
                    self.find(KEYS[key]).filter(|_| !KEYS[key].ends_with('/') && KEYS[key] != "s")
                {
                    self.writes += 1;
                    let size = 1_000_000 + self.writes;
                    self.b.write_done(fid, size, 0).expect("writes");
                    self.written.insert(fid, size);
                }
            }
            Step::Chmod(key) => {
                if let Some((_, _, fid)) = self.find(KEYS[key]).filter(|_| KEYS[key] != "s") {
                    self.b.setattr(&Credential::ROOT, fid, |op| op.mode = Some(0o600)).expect("changes");
                }
            }
            Step::Unlink(key) => {
                if let Some((dir, name, fid)) = self.find(KEYS[key]).filter(|_| !KEYS[key].ends_with('/')) {
                    self.b.unlink(dir, &name).expect("removes");
                    if self.b.open.contains(&fid) {
                        self.b.open.clear();
                        self.b.run(Command::DropOrphan { fid }).expect("drops");
                    }
                    self.written.remove(&fid);
                }
            }
            Step::Move(key) => {
                if let Some((dir, name, _)) = self.find(KEYS[key]).filter(|_| !KEYS[key].ends_with('/')) {
                    self.moved += 1;
                    let to = format!("moved-{}", self.moved);
                    self.b.rename((dir, &name), (self.root, &to)).expect("moves");
                }
            }
            Step::Open(key) => {
                let found = KEYS.get(key).and_then(|key| self.find(key));
                self.b.open = found.map(|(_, _, fid)| fid).into_iter().collect();
            }
            Step::Look(_) | Step::Tell(..) | Step::Lose(_) | Step::Compare(..) => {}
        }
    }

    /// Files of the link: path, number.
    fn files(&self, dir: Fid, at: &str, out: &mut Vec<(String, Fid)>) {
        for name in self.b.list(dir) {
            let attr = self.b.lookup(dir, &name).expect("listed");
            if attr.file_type == FileType::Directory {
                let path = format!("{at}{name}/");
                out.push((path.clone(), attr.fid));
                self.files(attr.fid, &path, out);
            } else {
                out.push((format!("{at}{name}"), attr.fid));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_told_in_the_end_the_directory_is_as_the_bucket_and_nothing_of_here_is_lost(steps in steps(), size in 1usize..4) {
        let store = MemStore::default();
        let mut b = Bench::new(&store);
        b.run(Command::AllocSequence).expect("the bench uses it");
        let mut settings = RepositorySettings::new("/d".parse().expect("path"), "s3://b".parse().expect("url"));
        settings.auto_import = EVERY;
        let made = b.run(Command::Repository(Box::new(Change::Create { settings }))).expect("links");
        let Outcome::Repository(Answer::Link(link)) = made else { panic!("{made:?}") };
        let mut w = World {
            b,
            id: link.id,
            root: link.root,
            bucket: BTreeMap::new(),
            writes: 0,
            messages: Vec::new(),
            listings: Vec::new(),
            deleted: BTreeMap::new(),
            written: BTreeMap::new(),
            moved: 0,
        };
        for step in steps {
            w.step(step);
            for (fid, size) in &w.written {
                prop_assert_eq!(w.b.attr(*fid).size, *size, "what was written here");
            }
        }
        w.b.open.clear();
        let bucket = w.bucket.clone();
        let listing = w.list();
        w.compare(listing, size, size);
        // What the comparison has taken is known now, and what it left alone is not.
        let (_, _, known) = w.list();
        let mut files = Vec::new();
        w.files(w.root, "", &mut files);
        let here: BTreeMap<String, Fid> = files.into_iter().collect();
        let row = |fid| repository::hsm(&*w.b.view(), fid).expect("reads");
        let is_written = |path: &str| here.get(path).is_some_and(|fid| w.written.contains_key(fid));
        for (key, version) in bucket.iter().filter(|(key, _)| !is_written(key)) {
            let fid = here.get(*key);
            prop_assert!(fid.is_some(), "{} is in the bucket and not here", key);
            let row = fid.and_then(|fid| row(*fid));
            prop_assert_eq!(row.map(|row| row.etag), Some(format!("v{version}")), "{}", key);
            prop_assert!(known.contains(key.as_bytes()), "{} would be looked at again", key);
        }
        for (path, fid) in here.iter().filter(|(path, _)| !is_written(path) && !path.starts_with("moved-")) {
            let empty = path.ends_with('/') && w.b.list(*fid).is_empty();
            let known = row(*fid).is_some();
            let implied = path.ends_with('/') && (!empty || !known);
            prop_assert!(implied || bucket.contains_key(path.as_str()), "{} is here and not in the bucket", path);
        }
        for (fid, size) in &w.written {
            prop_assert_eq!(w.b.attr(*fid).size, *size);
            // One that was written before it was moved away may have lost what it has to do with the bucket.
            prop_assert!(row(*fid).is_none_or(|row| row.flags.has(HsmFlags::DIRTY)));
        }
    }
}
