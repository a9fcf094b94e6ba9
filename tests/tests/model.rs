//! Random operations through client-lib against real servers, compared step by step with a file system in memory, while
//! servers are killed and clients come and go.

use std::collections::{BTreeMap, HashMap};

use rand::Rng;
use rand::rngs::StdRng;
use sateen_client::{Client, File, NewFile, Options};
use sateen_tests::model::{Id, Node, ROOT, Tree};
use sateen_tests::rng::{noise, pattern, seeded};
use sateen_tests::{Cluster, ClusterSpec};
use sateen_types::op::{Access, RenameMode, SetAttr};
use sateen_types::{Credential, Fid, FileType, FsCode, FsError, FsResult, LayoutTemplate, Name, StripePattern};
use tokio::runtime::Runtime;

/// Operations per run.
const STEPS: usize = 2_500;
/// Largest file, in bytes: several components and stripes of the layouts below.
const FILE_BYTES_MAX: usize = 3 << 20;
/// Largest single write or read.
const IO_BYTES_MAX: usize = 400_000;
/// Few names, so that operations meet.
const NAMES: [&str; 9] = ["a", "b", "c", "dd", "e e", "f\n", "g.tar", "\u{fc}", "a-name-of-some-length-0123456789"];
/// Open files at a time.
const OPEN_MAX: usize = 6;

/// The real side of one run, with what it takes to compare it.
struct World {
    runtime: Runtime,
    rng: StdRng,
    tree: Tree,
    client: Client,
    /// Inode of the model -> real inode.
    fids: HashMap<Id, Fid>,
    open: Vec<(Id, File)>,
    source: String,
}

/// Everything is done as root: permissions are tested elsewhere.
static USER: Credential = Credential::ROOT;

fn name(text: &str) -> Name {
    Name::parse(text.as_bytes()).expect("the names above are valid")
}

fn connect(runtime: &Runtime, source: &str) -> Client {
    let source = source.parse().expect("a valid source");
    runtime.block_on(Client::connect(&source, Options::default())).expect("connect")
}

/// Success must meet success, and an error the same error.
#[track_caller]
fn compare<T, U>(what: &str, expected: &Result<T, FsCode>, actual: &Result<U, FsError>) {
    match (expected, actual) {
        (Ok(_), Ok(_)) => {}
        (Err(code), Err(e)) if *code == e.code => {}
        (Err(code), Err(e)) => panic!("{what}: expected {code:?}, got {:?}: {e}", e.code),
        (Ok(_), Err(e)) => panic!("{what}: expected success, got {:?}: {e}", e.code),
        (Err(code), Ok(_)) => panic!("{what}: expected {code:?}, got success"),
    }
}

impl World {
    fn fid(&self, id: Id) -> Fid {
        if id == ROOT { self.client.root() } else { self.fids[&id] }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.rng.random_range(0..from.len())])
    }

    fn dir(&mut self) -> Id {
        let dirs = self.tree.dirs();
        self.pick(&dirs).expect("the root is a directory")
    }

    fn name(&mut self) -> &'static str {
        self.pick(&NAMES).expect("there are names")
    }

    /// A name that exists where that is possible: otherwise most operations would only find nothing.
    fn existing(&mut self, dir: Id) -> String {
        let names: Vec<String> = self.tree.entries(dir).keys().cloned().collect();
        if names.is_empty() || self.rng.random_bool(0.1) {
            return self.name().to_owned();
        }
        names[self.rng.random_range(0..names.len())].clone()
    }

    fn layout(&mut self) -> Option<LayoutTemplate> {
        let counts = [1, 2, 4, u16::MAX];
        let sizes = [64 << 10, 128 << 10, 192 << 10, 1 << 20];
        let (count, size) = (self.pick(&counts)?, self.pick(&sizes)?);
        self.rng
            .random_bool(0.7)
            .then(|| LayoutTemplate::plain(StripePattern { stripe_size: size, ..StripePattern::raid0(count) }))
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..=9 => self.create(),
            10..=14 => self.mkdir(),
            15..=17 => self.symlink(),
            18..=20 => self.link(),
            21..=26 => self.unlink(),
            27..=29 => self.rmdir(),
            30..=38 => self.rename(),
            39..=43 => self.open(),
            44..=46 => self.close(),
            47..=64 => self.write(),
            65..=78 => self.read(),
            79..=83 => self.truncate(),
            84..=86 => self.punch(),
            87..=90 => self.fsync(),
            91..=95 => self.getattr(),
            _ => self.list(),
        }
    }

    fn create(&mut self) {
        let (dir, text, layout) = (self.dir(), self.name(), self.layout());
        let (parent, access) = (self.fid(dir), Access { read: true, write: true, exec: false });
        let new = NewFile { parent, name: name(text), mode: 0o644.into(), exclusive: true, access, layout };
        let expected = self.tree.create(dir, text, Node::File(Vec::new()));
        let actual = self.runtime.block_on(self.client.create(&USER, new));
        compare(&format!("create {text:?}"), &expected, &actual);
        if let (Ok(id), Ok(created)) = (expected, actual) {
            self.fids.insert(id, created.attr.fid);
            self.keep_open(id, created.file);
        }
    }

    fn mkdir(&mut self) {
        let (dir, text) = (self.dir(), self.name());
        let expected = self.tree.create(dir, text, Node::Dir(BTreeMap::new()));
        let actual = self.runtime.block_on(self.client.mkdir(&USER, self.fid(dir), &name(text), 0o755));
        compare(&format!("mkdir {text:?}"), &expected, &actual);
        if let (Ok(id), Ok(attr)) = (expected, actual) {
            self.fids.insert(id, attr.fid);
        }
    }

    fn symlink(&mut self) {
        let (dir, text, target) = (self.dir(), self.name(), format!("../{}", self.name()));
        let expected = self.tree.create(dir, text, Node::Symlink(target.clone()));
        let actual = self.runtime.block_on(self.client.symlink(&USER, self.fid(dir), &name(text), target.as_bytes()));
        compare(&format!("symlink {text:?}"), &expected, &actual);
        if let (Ok(id), Ok(attr)) = (expected, actual) {
            self.fids.insert(id, attr.fid);
            let read = self.runtime.block_on(self.client.readlink(attr.fid)).expect("readlink");
            assert_eq!(read, target.as_bytes());
        }
    }

    fn link(&mut self) {
        let files = self.tree.files();
        let Some(id) = self.pick(&files) else { return };
        let (dir, text) = (self.dir(), self.name());
        let expected = self.tree.link(id, dir, text);
        let actual = self.runtime.block_on(self.client.link(&USER, self.fid(id), self.fid(dir), &name(text)));
        compare(&format!("link {text:?}"), &expected, &actual);
    }

    fn unlink(&mut self) {
        let dir = self.dir();
        let text = self.existing(dir);
        let expected = self.tree.unlink(dir, &text);
        let actual = self.runtime.block_on(self.client.unlink(&USER, self.fid(dir), &name(&text)));
        compare(&format!("unlink {text:?}"), &expected, &actual);
    }

    fn rmdir(&mut self) {
        let dir = self.dir();
        let text = self.existing(dir);
        let expected = self.tree.rmdir(dir, &text);
        let actual = self.runtime.block_on(self.client.rmdir(&USER, self.fid(dir), &name(&text)));
        compare(&format!("rmdir {text:?}"), &expected, &actual);
    }

    fn rename(&mut self) {
        let (from_dir, to_dir) = (self.dir(), self.dir());
        let from = self.existing(from_dir);
        let to = if self.rng.random_bool(0.5) { self.existing(to_dir) } else { self.name().to_owned() };
        let mode = self.pick(&[RenameMode::Replace, RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange]);
        let mode = mode.expect("there are modes");
        let (a, b) = ((from_dir, from.as_str()), (to_dir, to.as_str()));
        // A directory that holds the source: POSIX allows ENOTEMPTY as well as EINVAL; leave it out.
        if let (Some(source), Some(target)) = (self.tree.entries(a.0).get(a.1), self.tree.entries(b.0).get(b.1))
            && (self.tree.is_below(a.0, *target) || (source == target && mode != RenameMode::Replace))
        {
            return;
        }
        let expected = match mode {
            RenameMode::Replace => self.tree.rename(a, b, false),
            RenameMode::NoReplace => self.tree.rename(a, b, true),
            RenameMode::Exchange => self.tree.exchange(a, b),
        };
        let (from_name, to_name) = (name(&from), name(&to));
        let (source, target) = ((self.fid(from_dir), &from_name), (self.fid(to_dir), &to_name));
        let actual = self.runtime.block_on(self.client.rename(&USER, source, target, mode));
        compare(&format!("rename {from:?} to {to:?} ({mode:?})"), &expected, &actual);
    }

    fn open(&mut self) {
        let files = self.tree.files();
        let Some(id) = self.pick(&files) else { return };
        let access = Access { read: true, write: true, exec: false };
        let file = self.runtime.block_on(self.client.open(&USER, self.fid(id), access)).expect("open");
        self.keep_open(id, file);
    }

    fn keep_open(&mut self, id: Id, file: File) {
        self.open.push((id, file));
        if self.open.len() > OPEN_MAX {
            self.close();
        }
    }

    fn close(&mut self) {
        if let Some(i) = (!self.open.is_empty()).then(|| self.rng.random_range(0..self.open.len())) {
            let (_, file) = self.open.swap_remove(i);
            self.runtime.block_on(file.close()).expect("close");
        }
    }

    /// A random open file; opens one if there is none.
    fn with_open<T>(&mut self, work: impl FnOnce(&mut World, Id, &File) -> FsResult<T>) -> Option<T> {
        if self.open.is_empty() {
            self.open();
        }
        if self.open.is_empty() {
            return None;
        }
        let i = self.rng.random_range(0..self.open.len());
        let (id, file) = self.open.swap_remove(i);
        let result = work(self, id, &file).unwrap_or_else(|e| panic!("on an open file: {:?}: {e}", e.code));
        self.open.push((id, file));
        Some(result)
    }

    fn write(&mut self) {
        self.with_open(|w, id, file| {
            let len = w.rng.random_range(1..IO_BYTES_MAX);
            let offset = match w.rng.random_range(0..3) {
                0 => w.tree.bytes(id).len(),
                _ => w.rng.random_range(0..FILE_BYTES_MAX),
            };
            let offset = offset.min(FILE_BYTES_MAX - len);
            let data = if w.rng.random_bool(0.5) { noise(&mut w.rng, len) } else { pattern(w.rng.random(), len) };
            w.tree.write(id, offset, &data);
            w.runtime.block_on(file.write_at(offset as u64, &data))
        });
    }

    fn read(&mut self) {
        self.with_open(|w, id, file| {
            let (offset, len) = (w.rng.random_range(0..FILE_BYTES_MAX), w.rng.random_range(1..IO_BYTES_MAX));
            let offset = if w.rng.random_bool(0.3) { 0 } else { offset };
            let actual = w.runtime.block_on(file.read_at(offset as u64, len))?;
            assert_same(&format!("read of {:?} at {offset}", file.fid()), w.tree.read(id, offset, len), &actual);
            Ok(())
        });
    }

    fn truncate(&mut self) {
        self.with_open(|w, id, file| {
            let size = if w.rng.random_bool(0.2) { 0 } else { w.rng.random_range(0..FILE_BYTES_MAX) };
            w.tree.bytes_mut(id).resize(size, 0);
            let attr = w.runtime.block_on(file.truncate(size as u64))?;
            assert_eq!(attr.size, size as u64);
            Ok(())
        });
    }

    fn punch(&mut self) {
        self.with_open(|w, id, file| {
            let (offset, len) = (w.rng.random_range(0..FILE_BYTES_MAX), w.rng.random_range(1..IO_BYTES_MAX));
            w.tree.punch(id, offset, len);
            w.runtime.block_on(file.punch(offset as u64, len as u64))
        });
    }

    fn fsync(&mut self) {
        self.with_open(|w, _, file| w.runtime.block_on(file.fsync()));
    }

    fn getattr(&mut self) {
        let dir = self.dir();
        let text = self.existing(dir);
        let expected = self.tree.entries(dir).get(&text).copied().ok_or(FsCode::NotFound);
        let actual = self.runtime.block_on(self.client.lookup(&USER, self.fid(dir), &name(&text)));
        compare(&format!("lookup {text:?}"), &expected, &actual);
        let (Ok(id), Ok(attr)) = (expected, actual) else { return };
        assert_eq!(attr.fid, self.fid(id));
        self.assert_attr(id, attr.file_type, attr.size, attr.nlink);
        let chmod = SetAttr { mode: Some(0o700 + self.rng.random_range(0..8)), ..SetAttr::new(attr.fid) };
        let mode = chmod.mode;
        if attr.file_type != FileType::Symlink {
            let after = self.runtime.block_on(self.client.setattr(&USER, chmod)).expect("chmod");
            assert_eq!(Some(after.mode), mode);
        }
    }

    fn assert_attr(&self, id: Id, kind: FileType, size: u64, nlink: u32) {
        match self.tree.node(id) {
            Node::File(bytes) => {
                assert_eq!((kind, size, nlink), (FileType::Regular, bytes.len() as u64, self.tree.links(id) as u32));
            }
            Node::Symlink(target) => assert_eq!((kind, size), (FileType::Symlink, target.len() as u64)),
            Node::Dir(entries) => {
                let below = entries.values().filter(|e| matches!(self.tree.node(**e), Node::Dir(_))).count();
                assert_eq!((kind, nlink), (FileType::Directory, 2 + below as u32));
            }
        }
    }

    /// Compares one directory, page by page.
    fn list(&mut self) {
        let dir = self.dir();
        let max = self.rng.random_range(1..6);
        self.assert_listing(dir, max);
    }

    fn assert_listing(&self, dir: Id, max: u32) {
        let (mut after, mut found) = (0, BTreeMap::new());
        loop {
            let page = self.client.readdir(&USER, self.fid(dir), after, max, true);
            let (entries, end, _) = self.runtime.block_on(page).expect("readdir");
            for entry in entries {
                assert!(entry.cookie > after, "cookies rise");
                after = entry.cookie;
                let text = String::from_utf8(entry.name.as_bytes().to_vec()).expect("our names are UTF-8");
                assert!(found.insert(text, entry.fid).is_none(), "a name came twice");
            }
            if end {
                break;
            }
        }
        let expected: BTreeMap<String, Fid> =
            self.tree.entries(dir).iter().map(|(n, id)| (n.clone(), self.fid(*id))).collect();
        assert_eq!(found, expected);
    }

    /// Ends the session and starts another: what was written must be there for somebody who never saw it.
    fn reconnect(&mut self) {
        for (_, file) in std::mem::take(&mut self.open) {
            self.runtime.block_on(file.close()).expect("close");
        }
        let fresh = connect(&self.runtime, &self.source);
        let old = std::mem::replace(&mut self.client, fresh);
        self.runtime.block_on(old.close()).expect("close of the session");
    }

    /// Compares everything.
    fn verify(&self) {
        for dir in self.tree.dirs() {
            self.assert_listing(dir, 100);
        }
        for id in self.tree.files() {
            let attr = self.runtime.block_on(self.client.getattr(self.fid(id))).expect("getattr");
            self.assert_attr(id, attr.file_type, attr.size, attr.nlink);
            let access = Access { read: true, write: false, exec: false };
            let file = self.runtime.block_on(self.client.open(&USER, self.fid(id), access)).expect("open");
            let bytes = self.runtime.block_on(read_all(&file)).expect("read");
            assert_same(&format!("file {:?}", file.fid()), self.tree.bytes(id), &bytes);
            self.runtime.block_on(file.close()).expect("close");
        }
    }
}

async fn read_all(file: &File) -> FsResult<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let piece = file.read_at(bytes.len() as u64, 1 << 20).await?;
        if piece.is_empty() {
            return Ok(bytes);
        }
        bytes.extend_from_slice(&piece);
    }
}

/// Compares bytes and says where they part.
#[track_caller]
fn assert_same(what: &str, expected: &[u8], actual: &[u8]) {
    if expected == actual {
        return;
    }
    let at = expected.iter().zip(actual).position(|(a, b)| a != b);
    panic!("{what}: {} bytes expected, {} read, first difference at {at:?}", expected.len(), actual.len());
}

/// Runs the steps; every `kill_every` steps `kill` does something to the cluster while the next step is under way.
fn run(label: &'static str, kill_every: usize, mut kill: impl FnMut(&mut Cluster, usize) + Send) {
    let mut rng = seeded(label);
    let mut cluster = Cluster::start(ClusterSpec::new(label));
    let runtime = Runtime::new().expect("a runtime");
    let source = cluster.source();
    let client = connect(&runtime, &source);
    let steps_between_clients = rng.random_range(STEPS / 8..STEPS / 4);
    let mut world =
        World { runtime, rng, tree: Tree::default(), client, fids: HashMap::new(), open: Vec::new(), source };
    for n in 1..=STEPS {
        if n % kill_every == 0 {
            std::thread::scope(|scope| {
                scope.spawn(|| kill(&mut cluster, n / kill_every));
                world.step();
            });
        } else {
            world.step();
        }
        if n % steps_between_clients == 0 {
            world.reconnect();
            world.verify();
        }
    }
    world.reconnect();
    world.verify();
    cluster.restart_all();
    world.reconnect();
    world.verify();
    cluster.assert_runs();
    let World { runtime, client, .. } = world;
    runtime.block_on(client.close()).expect("close of the session");
}

#[test]
fn names_and_bytes_are_those_of_the_model() {
    run("model", usize::MAX, |_, _| {});
}

#[test]
fn names_and_bytes_are_those_of_the_model_while_servers_are_killed() {
    run("model-kill", 150, |cluster, n| match n % 3 {
        0 => {
            cluster.kill_mds();
            cluster.start_mds();
        }
        i => {
            cluster.kill_oss(i - 1);
            cluster.start_oss(i - 1);
        }
    });
}
