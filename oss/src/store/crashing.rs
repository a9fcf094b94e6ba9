//! A [`Disk`] for tests that lives in memory and knows what a power cut may do to it.
//!
//! It keeps every change in order, so that one run of a workload can be cut off after any of them: [`CrashingDisk::crash`]
//! is a function of that history, of the place, and of [`Luck`]. What was not synced may be lost, each piece on its own:
//!
//! - a write: none, all, or any of its 512-byte sectors; the file may stay short;
//! - a punch: it may not have happened;
//! - a creation or removal, until the directory is synced: undone, also when the file itself was synced.
//!
//! [`storage_call`] tells the test that a change of a segment, or of the index, is about to happen. The index has files
//! of its own, which [`index_image`] copies and [`tear_log`] damages as a power cut would: bytes of the log behind the
//! last sync are lost or garbage. What RocksDB syncs by itself (tables, MANIFEST, CURRENT) is taken as it is; that it
//! orders those syncs rightly is not tested here.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::disk::{Disk, DiskSpace, SegmentFile, SegmentId};

const SECTOR: usize = 512;
const BLOCK: u64 = 4096;

/// A change that is about to be made, or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Of a segment or of their directory.
    Disk,
    /// A batch of the index.
    IndexWrite,
    /// A sync of the index.
    IndexSync,
    /// The sync of the index has returned.
    IndexSynced,
}

type Watcher = Box<dyn FnMut(Call)>;

thread_local! {
    static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) };
}

/// From now on `watcher` hears of every change that this thread makes.
pub fn watch(watcher: Option<Watcher>) {
    WATCHER.with(|w| *w.borrow_mut() = watcher);
}

/// Tells the watcher of this thread, if there is one.
pub fn storage_call(call: Call) {
    WATCHER.with(|w| {
        if let Some(watcher) = &mut *w.borrow_mut() {
            watcher(call);
        }
    });
}

thread_local! {
    static INDEX_FAILS: Cell<bool> = const { Cell::new(false) };
}

/// The next batch that this thread writes to an index fails, without effect.
pub fn fail_index_write() {
    INDEX_FAILS.set(true);
}

/// Whether the batch that is about to be written has to fail.
pub fn index_write_fails() -> bool {
    INDEX_FAILS.take()
}

/// A segment's bytes, and which of its blocks are not holes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// All bytes; holes are zero.
    pub bytes: Vec<u8>,
    /// Numbers of the blocks that take space.
    pub data: BTreeSet<u64>,
}

impl Content {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset as usize + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset as usize..end].copy_from_slice(bytes);
        self.data.extend(offset / BLOCK..(end as u64).div_ceil(BLOCK));
    }

    fn punch(&mut self, offset: u64, len: u64) {
        let end = (offset + len).min(self.bytes.len() as u64);
        if offset < end {
            self.bytes[offset as usize..end as usize].fill(0);
        }
        self.data.retain(|block| !(offset / BLOCK..(offset + len) / BLOCK).contains(block));
    }
}

/// What is on a disk.
pub type Image = BTreeMap<SegmentId, Content>;

enum Op {
    Create(SegmentId),
    Write(SegmentId, u64, Vec<u8>),
    Punch(SegmentId, u64, u64),
    Sync(SegmentId),
    Delete(SegmentId),
    SyncDir,
}

/// The fate of what was not synced: a probability to survive, drawn once, and a coin.
pub struct Luck {
    rng: StdRng,
    survives: f64,
}

impl Luck {
    /// The same for the same seed.
    pub fn new(seed: u64) -> Luck {
        let mut rng = StdRng::seed_from_u64(seed);
        let survives = [0.0, 0.2, 0.5, 0.9, 1.0][rng.random_range(0..5)];
        Luck { rng, survives }
    }

    /// Everything survives: the process was killed, the machine was not.
    pub fn process_only() -> Luck {
        Luck { rng: StdRng::seed_from_u64(0), survives: 1.0 }
    }

    /// Nothing survives whole: writes are lost or torn, each on its own.
    pub fn none(seed: u64) -> Luck {
        Luck { rng: StdRng::seed_from_u64(seed), survives: 0.0 }
    }

    fn survives(&mut self) -> bool {
        self.rng.random_bool(self.survives)
    }
}

type Shared = Arc<Mutex<Content>>;

#[derive(Default)]
struct State {
    files: BTreeMap<SegmentId, Shared>,
    history: Vec<Op>,
}

/// Segments in memory.
pub struct CrashingDisk {
    start: Image,
    state: Arc<Mutex<State>>,
    /// With `false` syncs return without doing anything: a lie that the tests must notice.
    honest: bool,
}

impl CrashingDisk {
    /// A disk that holds `start`, all of it durable.
    pub fn new(start: Image, honest: bool) -> CrashingDisk {
        let files = start.iter().map(|(&id, content)| (id, Arc::new(Mutex::new(content.clone())))).collect();
        CrashingDisk { start, state: Arc::new(Mutex::new(State { files, history: Vec::new() })), honest }
    }

    /// Changes so far, syncs included.
    pub fn changes(&self) -> usize {
        self.state.lock().history.len()
    }

    /// What is there, synced or not.
    pub fn image(&self) -> Image {
        self.state.lock().files.iter().map(|(&id, content)| (id, content.lock().clone())).collect()
    }

    /// What is there when the power goes after the first `changes`.
    pub fn crash(&self, changes: usize, luck: &mut Luck) -> Image {
        let state = self.state.lock();
        let mut durable = self.start.clone();
        // Contents of all files that ever were, and their changes since their last sync.
        let mut contents = self.start.clone();
        let mut unsynced: BTreeMap<SegmentId, Vec<&Op>> = BTreeMap::new();
        let mut names: BTreeMap<SegmentId, Vec<bool>> = BTreeMap::new();
        for op in &state.history[..changes] {
            match op {
                Op::Create(id) => {
                    contents.insert(*id, Content::default());
                    names.entry(*id).or_default().push(true);
                }
                Op::Delete(id) => names.entry(*id).or_default().push(false),
                Op::Write(id, ..) | Op::Punch(id, ..) => unsynced.entry(*id).or_default().push(op),
                Op::Sync(id) => {
                    let content = contents.entry(*id).or_default();
                    unsynced.remove(id).unwrap_or_default().iter().for_each(|op| apply(content, op));
                }
                Op::SyncDir => {
                    for (id, there) in std::mem::take(&mut names) {
                        if there.last() == Some(&true) {
                            durable.insert(id, Content::default());
                        } else {
                            durable.remove(&id);
                        }
                    }
                }
            }
        }
        for (id, there) in names {
            let was = durable.contains_key(&id);
            let known = there.iter().take_while(|_| luck.survives()).last().copied().unwrap_or(was);
            if known {
                durable.insert(id, Content::default());
            } else {
                durable.remove(&id);
            }
        }
        for (id, content) in &mut durable {
            *content = contents.remove(id).unwrap_or_default();
            for op in unsynced.remove(id).unwrap_or_default() {
                tear(content, op, luck);
            }
        }
        durable
    }

    fn change(&self, op: Op) {
        self.state.lock().history.push(op);
    }
}

fn apply(content: &mut Content, op: &Op) {
    match op {
        Op::Write(_, offset, bytes) => content.write(*offset, bytes),
        Op::Punch(_, offset, len) => content.punch(*offset, *len),
        _ => {}
    }
}

/// What is left of a change that was not synced.
fn tear(content: &mut Content, op: &Op, luck: &mut Luck) {
    match op {
        Op::Write(_, offset, bytes) if !luck.survives() => {
            // Half of those that do not survive whole are lost whole.
            if luck.rng.random_bool(0.5) {
                return;
            }
            for (i, sector) in bytes.chunks(SECTOR).enumerate() {
                if luck.rng.random_bool(0.5) {
                    content.write(offset + (i * SECTOR) as u64, sector);
                }
            }
        }
        Op::Punch(..) if !luck.survives() => {}
        _ => apply(content, op),
    }
}

impl Disk for CrashingDisk {
    fn create(&self, id: SegmentId) -> io::Result<Arc<dyn SegmentFile>> {
        storage_call(Call::Disk);
        if self.state.lock().files.contains_key(&id) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.change(Op::Create(id));
        self.state.lock().files.insert(id, Shared::default());
        self.open(id)
    }

    fn open(&self, id: SegmentId) -> io::Result<Arc<dyn SegmentFile>> {
        let content = self.state.lock().files.get(&id).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(CrashingFile { id, content, state: self.state.clone(), honest: self.honest }))
    }

    fn delete(&self, id: SegmentId) -> io::Result<()> {
        storage_call(Call::Disk);
        self.state.lock().files.remove(&id).ok_or(io::ErrorKind::NotFound)?;
        self.change(Op::Delete(id));
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<SegmentId>> {
        Ok(self.state.lock().files.keys().copied().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        storage_call(Call::Disk);
        if self.honest {
            self.change(Op::SyncDir);
        }
        Ok(())
    }

    fn space(&self) -> io::Result<DiskSpace> {
        Ok(DiskSpace { total: 1 << 40, free: 1 << 40, available: 1 << 40 })
    }
}

struct CrashingFile {
    id: SegmentId,
    content: Shared,
    state: Arc<Mutex<State>>,
    honest: bool,
}

impl CrashingFile {
    fn change(&self, op: Op) {
        apply(&mut self.content.lock(), &op);
        self.state.lock().history.push(op);
    }
}

impl SegmentFile for CrashingFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        storage_call(Call::Disk);
        self.change(Op::Write(self.id, offset, bytes.to_vec()));
        Ok(bytes.len())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.content.lock();
        let there = content.bytes.get(offset as usize..).unwrap_or_default();
        let n = there.len().min(bytes.len());
        bytes[..n].copy_from_slice(&there[..n]);
        Ok(n)
    }

    fn sync_data(&self) -> io::Result<()> {
        storage_call(Call::Disk);
        if self.honest {
            self.change(Op::Sync(self.id));
        }
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        storage_call(Call::Disk);
        self.change(Op::Punch(self.id, offset, len));
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.content.lock().bytes.len() as u64)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let content = self.content.lock();
        let end = content.bytes.len() as u64;
        let next = content.data.range(offset / BLOCK..).next().map(|block| (block * BLOCK).max(offset));
        Ok(next.filter(|&next| next < end))
    }
}

/// Files of an index, by name.
pub type IndexImage = BTreeMap<String, Vec<u8>>;

/// Copies the files of the index in `dir`, which is in use.
pub fn index_image(dir: &Path) -> IndexImage {
    let names = || -> BTreeSet<String> {
        let entries = std::fs::read_dir(dir).map(Iterator::flatten).into_iter().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| !name.starts_with("LO") && !name.starts_with("OPTIONS")).collect()
    };
    loop {
        let before = names();
        let files: Option<IndexImage> =
            before.iter().map(|name| Some((name.clone(), std::fs::read(dir.join(name)).ok()?))).collect();
        // Unless its background threads have replaced something meanwhile.
        match files {
            Some(files) if names() == before => return files,
            _ => {}
        }
    }
}

/// Lengths of the log files in `image`.
pub fn log_lengths(image: &IndexImage) -> BTreeMap<String, usize> {
    let logs = image.iter().filter(|(name, _)| name.ends_with(".log"));
    logs.map(|(name, bytes)| (name.clone(), bytes.len())).collect()
}

/// Damages what a power cut may damage of the logs: the bytes behind `synced`.
pub fn tear_log(image: &mut IndexImage, synced: &BTreeMap<String, usize>, luck: &mut Luck) {
    for (name, bytes) in image.iter_mut().filter(|(name, _)| name.ends_with(".log")) {
        let safe = synced.get(name).copied().unwrap_or(0).min(bytes.len());
        if luck.survives() {
            continue;
        }
        bytes.truncate(luck.rng.random_range(safe..=bytes.len()));
        for sector in bytes[safe..].chunks_mut(SECTOR) {
            match luck.rng.random_range(0..4) {
                0 => sector.fill(0),
                1 => luck.rng.fill(sector),
                _ => {}
            }
        }
    }
}
