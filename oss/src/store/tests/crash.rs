//! The power goes, or the process is killed, before every change that a workload makes on its disk.
//!
//! One run of a random workload records, before each change of a segment or of the index, what was there; each record
//! is then made a machine that comes up again. Its first recovery is cut off as well, at a place of its own. Checked is
//! what the store promises: nothing committed is lost (nothing answered, if only the process died), every chunk is one
//! of its versions and whole, space is counted as it is used, and a second start changes nothing.
//!
//! `SATEEN_CRASH_SEEDS` sets how many workloads there are; `SATEEN_CRASH_FIRST` the first of them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::ControlFlow;
use std::rc::Rc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::crashing::{
    Call, Content, CrashingDisk, Image, IndexImage, Luck, index_image, log_lengths, storage_call, tear_log, watch,
};
use super::super::disk::SegmentId;
use super::super::keys::ObjectKey;
use super::super::records::SegmentExtent;
use super::*;

const SEEDS: u64 = 3;
const OBJECTS: u32 = 3;
const CHUNKS: u64 = 4;
const STEPS: usize = 14;
/// Small enough that a workload fills several.
const SMALL_SEGMENT_BYTES: u64 = 160 << 10;

/// An object as the model has it: bytes up to the largest size there may be, and its size.
#[derive(Clone)]
struct Object {
    bytes: Vec<u8>,
    size: u64,
}

/// All objects after one step; those that a step does not change are shared.
type World = Vec<Rc<Object>>;

fn nothing() -> World {
    (0..OBJECTS).map(|_| Rc::new(Object { bytes: vec![0; (CHUNKS * CHUNK) as usize], size: 0 })).collect()
}

/// How far a workload has come: numbers of steps.
#[derive(Clone, Copy, Default)]
struct Progress {
    committed: usize,
    answered: usize,
    running: usize,
}

/// What was there before one change.
struct Moment {
    changes: usize,
    index: IndexImage,
    synced: BTreeMap<String, usize>,
    progress: Progress,
}

/// A store's directory and disk.
struct Machine {
    dir: tempfile::TempDir,
    disk: Arc<CrashingDisk>,
}

impl Machine {
    fn new(segments: Image, index: &IndexImage, honest: bool) -> Machine {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let dir = dir.expect("temp dir");
        std::fs::create_dir(dir.path().join("index")).expect("created");
        for (name, bytes) in index {
            std::fs::write(dir.path().join("index").join(name), bytes).expect("written");
        }
        Machine { dir, disk: Arc::new(CrashingDisk::new(segments, honest)) }
    }

    fn open(&self, cache: &IndexCache) -> FsResult<(Store, Arc<Capacity>)> {
        let options = StoreOptions { segment_bytes: SMALL_SEGMENT_BYTES, cache: cache.clone(), ..options(None, 1) };
        let capacity = options.capacity.clone();
        Ok((Store::open_on(self.dir.path(), self.disk.clone(), options)?, capacity))
    }

    /// Runs `work`, and records what is there before every change it makes.
    fn record<T>(&self, progress: Rc<Cell<Progress>>, work: impl FnOnce() -> T) -> (T, Vec<Moment>) {
        let moments = Rc::new(RefCell::new(Vec::new()));
        let mut synced = log_lengths(&index_image(&self.dir.path().join("index")));
        let (disk, dir, to) = (self.disk.clone(), self.dir.path().join("index"), moments.clone());
        watch(Some(Box::new(move |call| {
            let index = index_image(&dir);
            if call == Call::IndexSynced {
                synced = log_lengths(&index);
            }
            let moment = Moment { changes: disk.changes(), index, synced: synced.clone(), progress: progress.get() };
            to.borrow_mut().push(moment);
        })));
        let result = work();
        storage_call(Call::Disk);
        watch(None);
        (result, moments.take())
    }

    /// This machine after it went down at `moment`.
    fn crashed(&self, moment: &Moment, mut luck: Luck) -> Machine {
        let segments = self.disk.crash(moment.changes, &mut luck);
        let mut index = moment.index.clone();
        tear_log(&mut index, &moment.synced, &mut luck);
        Machine::new(segments, &index, true)
    }
}

/// Does one random step to the store and to the model.
fn step(rng: &mut StdRng, store: &Store, world: &World, progress: &Cell<Progress>) -> World {
    let mut world = world.clone();
    let oid = rng.random_range(0..OBJECTS);
    let id = object(oid + 1);
    let target = Rc::make_mut(&mut world[oid as usize]);
    let end = CHUNKS * CHUNK;
    let durable = match rng.random_range(0..12) {
        0..=2 => {
            let (first, chunks) = (rng.random_range(0..CHUNKS), rng.random_range(0..2));
            let tail = rng.random_range(1..9_000);
            let data = noise(rng.random(), ((chunks.min(CHUNKS - 1 - first)) * CHUNK) as usize + tail);
            store.write(sealed(id, first, &data, Compression::None)).expect("written");
            let at = (first * CHUNK) as usize;
            let covered = at + data.len().next_multiple_of(CHUNK as usize);
            target.bytes[at..covered].fill(0);
            target.bytes[at..at + data.len()].copy_from_slice(&data);
            target.size = target.size.max((at + data.len()) as u64);
            false
        }
        3..=6 => {
            let (at, len) = (rng.random_range(0..end - 20_000), rng.random_range(1..20_000));
            // Half of it can be compressed.
            let data = [noise(rng.random(), len / 2), vec![len as u8; len - len / 2]].concat();
            put(store, id, at, &data).expect("written");
            target.bytes[at as usize..at as usize + len].copy_from_slice(&data);
            target.size = target.size.max(at + len as u64);
            false
        }
        7 => {
            let size = rng.random_range(0..end);
            store.truncate(&id, CHUNK_LOG2, size, None).expect("truncated");
            target.bytes[size as usize..].fill(0);
            target.size = size;
            true
        }
        8 => {
            let (at, len) = (rng.random_range(0..end), rng.random_range(1..end));
            store.punch(&id, CHUNK_LOG2, at, len, None).expect("punched");
            target.bytes[at as usize..(at + len).min(end) as usize].fill(0);
            false
        }
        9 => {
            store.destroy(&[id]).expect("destroyed");
            target.bytes.fill(0);
            target.size = 0;
            true
        }
        10 => {
            store.commit().expect("committed");
            true
        }
        _ => {
            // Another writer has its place before this one, is overtaken by a commit, and fails.
            let slow = store.segments.reserve(8192).expect("a place");
            let data = noise(rng.random(), 3_000);
            put(store, id, 0, &data).expect("written");
            target.bytes[..data.len()].copy_from_slice(&data);
            target.size = target.size.max(data.len() as u64);
            store.commit().expect("committed");
            drop(slow);
            true
        }
    };
    let mut now = progress.get();
    now.answered = now.running;
    if durable {
        now.committed = now.running;
    }
    progress.set(now);
    world
}

/// A workload on a new machine: what it did, and what was there before each of its changes.
fn workload(seed: u64, cache: &IndexCache, honest: bool) -> (Machine, Vec<World>, Vec<Moment>) {
    let machine = Machine::new(Image::new(), &IndexImage::new(), honest);
    let progress = Rc::new(Cell::new(Progress::default()));
    let mut rng = StdRng::seed_from_u64(seed);
    let mut worlds = vec![nothing()];
    let ((), moments) = machine.record(progress.clone(), || {
        let (mut store, _) = machine.open(cache).expect("opens");
        for number in 1..=STEPS {
            progress.set(Progress { running: number, ..progress.get() });
            // Killed and started again, without loss.
            if rng.random_bool(0.1) {
                drop(store);
                (store, _) = machine.open(cache).expect("opens");
            }
            let world = step(&mut rng, &store, &worlds[number - 1], &progress);
            worlds.push(world);
        }
    });
    // The last step may stand for the one that runs after it.
    worlds.push(worlds[STEPS].clone());
    (machine, worlds, moments)
}

/// Bytes and size of each object, as a store reads them.
type Contents = Vec<(Vec<u8>, u64)>;

/// What a store holds, read through its front door.
fn read_all(store: &Store) -> Result<Contents, String> {
    (1..=OBJECTS)
        .map(|oid| {
            let read = get(store, object(oid), 0, (CHUNKS * CHUNK) as u32, oid % 2 == 0).map_err(|e| e.to_string())?;
            Ok((read, store.attr(&object(oid)).map_err(|e| e.to_string())?.size))
        })
        .collect()
}

/// Every chunk is one of its versions in `allowed`, and every size one between.
fn check_versions(read: &[(Vec<u8>, u64)], allowed: &[World]) -> Result<(), String> {
    for (i, (bytes, size)) in read.iter().enumerate() {
        for (n, chunk) in bytes.chunks(CHUNK as usize).enumerate() {
            let at = n * CHUNK as usize..(n + 1) * CHUNK as usize;
            if !allowed.iter().any(|world| &world[i].bytes[at.clone()] == chunk) {
                return Err(format!("chunk {n} of object {} is none of its versions", i + 1));
            }
        }
        let sizes = || allowed.iter().map(|world| world[i].size);
        if *size < sizes().min().unwrap_or(0) || *size > sizes().max().unwrap_or(0) {
            return Err(format!("object {} has size {size}, which it never had", i + 1));
        }
    }
    Ok(())
}

/// Counts agree with each other and with the blocks that the segments take.
fn check_space(store: &Store, capacity: &Capacity, segments: &Image) -> Result<(), String> {
    let mut live: Vec<SegmentExtent> = Vec::new();
    let mut objects = 0;
    for oid in 1..=OBJECTS {
        let key = ObjectKey::of(&object(oid));
        let before = live.len();
        let collect = |_, record: super::super::records::ChunkRecord| {
            live.push(record.extent());
            ControlFlow::<()>::Continue(())
        };
        store.index.chunks(key, 0, u64::MAX, collect).map_err(|e| e.to_string())?;
        let Some(record) = store.index.object(key).map_err(|e| e.to_string())? else {
            if live.len() > before {
                return Err(format!("object {oid} is not there, its chunks are"));
            }
            continue;
        };
        objects += 1;
        let sum: u64 = live[before..].iter().map(|e| e.len).sum();
        if (record.chunks, record.allocated) != ((live.len() - before) as u64, sum) {
            return Err(format!("object {oid}: {record:?} with {} chunks of {sum} bytes", live.len() - before));
        }
    }
    if store.objects().map_err(|e| e.to_string())? != objects {
        return Err(format!("{objects} objects, but {:?} are counted", store.objects()));
    }
    let total: u64 = live.iter().map(|e| e.len).sum();
    if capacity.used() != total {
        return Err(format!("{total} bytes are live, {} are counted", capacity.used()));
    }
    for (id, bytes) in store.index.segments().map_err(|e| e.to_string())? {
        let sum: u64 = live.iter().filter(|e| e.segment == id).map(|e| e.len).sum();
        if bytes != sum as i64 {
            return Err(format!("segment {id}: {sum} bytes are live, {bytes} are counted"));
        }
    }
    if !store.index.pending().map_err(|e| e.to_string())?.is_empty() {
        return Err("changes are pending after recovery".to_owned());
    }
    for (id, content) in segments {
        store
            .segments
            .journal_of(*id, |run| {
                live.push(SegmentExtent { segment: *id, offset: run.header.place.offset, len: run.header.length });
            })
            .map_err(|e| e.to_string())?;
        for &block in content.data.range(1..) {
            let at = block * 4096;
            let used = live.iter().any(|e| e.segment == *id && (e.offset..e.offset + e.len).contains(&at));
            if !used {
                return Err(format!("segment {id}: the block at {at} is lost: nothing refers to it"));
            }
        }
    }
    Ok(())
}

/// All that is wrong with one crash: a check that fails does not keep the next ones from looking.
#[derive(Default)]
struct Wrong(Vec<String>);

impl Wrong {
    /// What `result` holds; an error is written down with the circumstances.
    fn unless<T, E: Display>(&mut self, when: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|e| self.0.push(format!("{when}: {e}"))).ok()
    }

    /// Writes down that the store reads as it did not `before`.
    fn compare(&mut self, when: &str, read: &[(Vec<u8>, u64)], before: &[(Vec<u8>, u64)]) {
        for (i, (now, then)) in read.iter().zip(before).enumerate().filter(|(_, (now, then))| now != then) {
            let at = now.0.iter().zip(&then.0).position(|(a, b)| a != b);
            let (now, then) = (now.1, then.1);
            self.0.push(format!("{when}: object {} differs from before: size {now}, was {then}, byte {at:?}", i + 1));
        }
    }
}

/// Opens the store and checks everything in it; what it reads as, if that can be told.
fn check_store(
    machine: &Machine,
    allowed: Option<&[World]>,
    cache: &IndexCache,
    when: &str,
    wrong: &mut Wrong,
) -> Option<(Store, Contents)> {
    let (store, capacity) = wrong.unless(when, machine.open(cache))?;
    wrong.unless(when, check_space(&store, &capacity, &machine.disk.image()));
    let read = wrong.unless(when, read_all(&store))?;
    if let Some(allowed) = allowed {
        wrong.unless(when, check_versions(&read, allowed));
    }
    Some((store, read))
}

/// Starts a machine that went down, perhaps a second time while it recovers, and checks everything.
fn check_machine(machine: Machine, allowed: &[World], seed: u64, cache: &IndexCache, wrong: &mut Wrong) {
    let mut rng = StdRng::seed_from_u64(seed);
    let progress = Rc::new(Cell::new(Progress::default()));
    let (first, moments) = machine.record(progress, || machine.open(cache).map(drop));
    wrong.unless("first start", first);
    let moment = &moments[rng.random_range(0..moments.len())];
    let again = machine.crashed(moment, Luck::new(rng.random()));
    for (machine, when) in [(machine, "started once"), (again, "recovery was cut off")] {
        check_started(&machine, allowed, seed, cache, when, wrong);
    }
}

/// Every further start finds and leaves the same, also with an index that is made anew, and the store works.
fn check_started(
    machine: &Machine,
    allowed: &[World],
    seed: u64,
    cache: &IndexCache,
    when: &str,
    wrong: &mut Wrong,
) -> Option<()> {
    let (store, read) = check_store(machine, Some(allowed), cache, when, wrong)?;
    drop(store);
    let before = machine.disk.image();
    let then = format!("{when}, then again");
    let (store, second) = check_store(machine, None, cache, &then, wrong)?;
    // It may delete the segment that recovery has written its journal to, if nothing in it is needed.
    let after = machine.disk.image();
    let changed = after.iter().filter(|(id, content)| before.get(id) != Some(content));
    let changed: Vec<_> = changed.map(|(id, _)| (id, before.contains_key(id))).collect();
    if !changed.is_empty() {
        wrong.0.push(format!("{then}: it has changed something: {changed:?}"));
    }
    wrong.compare(&then, &second, &read);
    drop(store);
    let then = format!("{when}, then rebuilt");
    wrong.unless(&then, rebuild(machine, cache));
    let (store, rebuilt) = check_store(machine, Some(allowed), cache, &then, wrong)?;
    wrong.compare(&then, &rebuilt, &read);
    drop(store);
    let then = format!("{when}, rebuilt, started");
    let (store, _) = wrong.unless(&then, machine.open(cache))?;
    // And it works.
    let data = noise(seed, 3_000);
    wrong.unless(&then, put(&store, object(9), 0, &data))?;
    wrong.unless(&then, store.commit())?;
    if wrong.unless(&then, get(&store, object(9), 0, 3_000, true))? != data {
        wrong.0.push(format!("{then}: a new object does not read back"));
    }
    Some(())
}

/// Makes the index anew from the segments, which must say that they are whole.
fn rebuild(machine: &Machine, cache: &IndexCache) -> Result<(), String> {
    let owner = options(None, 1).owner;
    let report = super::super::rebuild::rebuild(machine.dir.path(), &*machine.disk, &owner, cache);
    let report = report.map_err(|e| e.to_string())?;
    if report.is_whole() { Ok(()) } else { Err(format!("{report:?}")) }
}

/// The index is lost with the crash: what was committed is in the segments. What is written then survives the loss of
/// that index too.
fn check_lost_index(
    segments: Image,
    allowed: &[World],
    seed: u64,
    cache: &IndexCache,
    wrong: &mut Wrong,
) -> Option<()> {
    let machine = Machine::new(segments, &IndexImage::new(), true);
    let when = "index lost";
    wrong.unless(when, rebuild(&machine, cache));
    let (store, _) = check_store(&machine, Some(allowed), cache, when, wrong)?;
    let when = "index lost, then written";
    wrong.unless(when, put(&store, object(1), 0, &noise(seed, 3_000)))?;
    wrong.unless(when, store.truncate(&object(2), CHUNK_LOG2, 2 * CHUNK + 77, None))?;
    wrong.unless(when, store.destroy(&[object(3)]))?;
    let before = wrong.unless(when, read_all(&store))?;
    drop(store);
    let when = "index lost twice";
    wrong.unless(when, rebuild(&machine, cache));
    let (_, read) = check_store(&machine, None, cache, when, wrong)?;
    wrong.compare(when, &read, &before);
    Some(())
}

/// All crashes of the workload with this seed: how many there were, and what was wrong with each that was.
fn crash_everywhere(seed: u64, cache: &IndexCache, honest: bool) -> (u64, Vec<String>) {
    let (machine, worlds, moments) = workload(seed, cache, honest);
    let mut all_wrong = Vec::new();
    for (n, moment) in moments.iter().enumerate() {
        let Progress { committed, answered, running } = moment.progress;
        let own = seed << 16 | n as u64;
        // One in eight loses only its process.
        let (luck, floor) = match n % 8 {
            0 => (Luck::process_only(), answered),
            _ => (Luck::new(own), committed),
        };
        let crashed = machine.crashed(moment, luck);
        let segments = crashed.disk.image();
        let mut wrong = Wrong::default();
        check_machine(crashed, &worlds[floor..=running], own, cache, &mut wrong);
        check_lost_index(segments, &worlds[committed..=running], own, cache, &mut wrong);
        if !wrong.0.is_empty() {
            all_wrong.push(format!("seed {seed}, change {n} of {}:\n  {}", moments.len(), wrong.0.join("\n  ")));
        }
    }
    // Each goes down once, once more while it recovers, and once with its index.
    (3 * moments.len() as u64, all_wrong)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |n| n.parse().expect("a number"))
}

#[test]
fn a_crash_before_any_change_loses_nothing_and_leaks_nothing() {
    let cache = IndexCache::new(32 << 20);
    let first = number("SATEEN_CRASH_FIRST", 0);
    let seeds = number("SATEEN_CRASH_SEEDS", SEEDS);
    let mut crashes = 0;
    let mut wrong = Vec::new();
    for seed in first..first + seeds {
        let (n, mut errors) = crash_everywhere(seed, &cache, true);
        crashes += n;
        wrong.append(&mut errors);
    }
    println!("{seeds} workloads, {crashes} crashes, {} wrong", wrong.len());
    assert!(
        wrong.is_empty(),
        "{} of {crashes} crashes went wrong:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
}

#[test]
fn a_power_cut_during_a_start_leaves_no_segment_that_seems_damaged() {
    let cache = IndexCache::new(32 << 20);
    let machine = Machine::new(Image::new(), &IndexImage::new(), true);
    let mut worlds = vec![nothing()];
    let (store, _) = machine.open(&cache).expect("opens");
    for version in 1..=2 {
        let data = noise(version, 3_000);
        put(&store, object(1), 0, &data).expect("written");
        let mut world = nothing();
        let target = Rc::make_mut(&mut world[0]);
        target.bytes[..3_000].copy_from_slice(&data);
        target.size = 3_000;
        worlds.push(world);
        if version == 1 {
            store.commit().expect("committed");
        }
    }
    // Killed after a write had a new segment, which is not synced, and before it was answered.
    std::mem::forget(store.segments.reserve(SMALL_SEGMENT_BYTES).expect("a place"));
    machine.disk.sync_dir().expect("synced");
    drop(store);
    let (started, moments) = machine.record(Rc::default(), || machine.open(&cache).map(drop));
    started.expect("starts");
    for (n, moment) in moments.iter().enumerate() {
        // What the index was told has come to the disk; what was not synced of the segments has not.
        for seed in 0..3 {
            let segments = machine.disk.crash(moment.changes, &mut Luck::none(seed));
            let mut wrong = Wrong::default();
            let crashed = Machine::new(segments.clone(), &moment.index, true);
            check_started(&crashed, &worlds[1..], seed, &cache, "started", &mut wrong);
            check_lost_index(segments, &worlds[1..], seed, &cache, &mut wrong);
            assert!(wrong.0.is_empty(), "change {n} of {}:\n{}", moments.len(), wrong.0.join("\n"));
        }
    }
}

#[test]
fn no_run_of_the_journal_is_written_before_the_headers_up_to_it_are_durable() {
    let cache = IndexCache::new(32 << 20);
    let machine = Machine::new(Image::new(), &IndexImage::new(), true);
    let (store, _) = machine.open(&cache).expect("opens");
    put(&store, object(1), 0, &noise(1, 3_000)).expect("written");
    let slow = store.segments.reserve(SMALL_SEGMENT_BYTES).expect("a segment of its own");
    machine.disk.sync_dir().expect("synced");
    let (committed, moments) = machine.record(Rc::default(), || store.commit().map(drop));
    committed.expect("committed");
    drop(slow);
    let has_run = |content: &Content| content.bytes.chunks(4096).any(|block| block.starts_with(b"SATJRNL1"));
    let mut runs = 0;
    for moment in &moments {
        let written = machine.disk.crash(moment.changes, &mut Luck::process_only());
        let Some(last) = written.iter().rev().find(|(_, content)| has_run(content)).map(|(id, _)| *id) else {
            continue;
        };
        runs += 1;
        for seed in 0..8 {
            let durable = machine.disk.crash(moment.changes, &mut Luck::none(seed));
            // The last file itself may be gone yet, with the run.
            assert!(durable.len() >= 2 && last == SegmentId(3), "{:?}", durable.keys());
            let bare = durable.iter().find(|(_, content)| !content.bytes.starts_with(b"SATSEGMT"));
            assert_eq!(bare.map(|(id, _)| *id), None, "has no header yet");
        }
    }
    assert!(runs > 0, "the commit writes a run");
}

#[test]
fn a_disk_that_lies_about_syncs_is_noticed() {
    let cache = IndexCache::new(32 << 20);
    let lost = |e: &String| e.contains("is none of its versions") || e.contains("cannot be read");
    let noticed = (0..4).any(|seed| crash_everywhere(seed, &cache, false).1.iter().any(lost));
    assert!(noticed, "the crash test sees no lost data");
}
