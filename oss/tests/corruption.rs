//! Damage of every kind to every file of an OST directory: each is noticed or harmless.
//!
//! One case: a copy of a directory is damaged at a place that its seed chooses. A child process then
//!
//! 1. opens a copy of it and reads everything: each chunk must be as written, an error, or the store must not open;
//! 2. checks another copy (`--deep`): if a chunk could not be read, or the store not opened, the check must say so;
//! 3. repairs that copy, twice: the second time nothing new is found and nothing changes on disk, and no chunk that
//!    could be read before cannot be read now.
//!
//! RocksDB may abort on what it does not understand, so the child has a deadline and its death is counted: as noticed if
//! it was an orderly refusal, as a failure otherwise.
//!
//! `SATEEN_CORRUPTION_CASES` sets the number of cases, `SATEEN_CORRUPTION_SEED` the first seed.

mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use sateen_oss::offline;
use sateen_oss::ost::{Ost, OstOptions};
use sateen_oss::store::index::IndexCache;
use sateen_oss::store::read::ReadRange;
use sateen_oss::store::{Store, codec};
use sateen_types::{Codec, Compression, Finding, FsId, FsResult, FsckEvent};
use serde::{Deserialize, Serialize};
use support::{CHUNK, CHUNK_LOG2, object};

const OBJECTS: u32 = 12;
const CHUNKS: u64 = 5;
/// What CI runs.
const CASES: u64 = 80;
/// A child that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(60);

const CHILD_DIR: &str = "SATEEN_CORRUPTION_CHILD";

fn options() -> OstOptions {
    OstOptions { capacity: None, reserve: 0, segment_bytes: 1 << 20, cache: IndexCache::new(16 << 20), create: false }
}

/// Chunk `number` of object `oid` in its version: half of them compress.
fn content(oid: u32, number: u64, version: u64) -> Vec<u8> {
    let mut bytes = vec![0; CHUNK];
    if number.is_multiple_of(2) {
        StdRng::seed_from_u64(u64::from(oid) << 32 | number << 16 | version).fill_bytes(&mut bytes);
    } else {
        let line = format!("object {oid} chunk {number} version {version}; ");
        bytes = line.bytes().cycle().take(CHUNK).collect();
    }
    bytes
}

/// Objects from here on are made after the past of the directory: an index that has gone back does not know them.
const LATE: u32 = 10;

/// The version of a chunk in the end; `None`: a hole.
fn last_version(oid: u32, number: u64) -> Option<u64> {
    if oid >= LATE {
        return Some(2);
    }
    match (u64::from(oid) + number) % 4 {
        0 => Some(2),
        1 if number == 3 => None,
        _ => Some(1),
    }
}

fn write(store: &Store, oid: u32, number: u64, version: u64) {
    support::write(store, oid, number, &content(oid, number, version), Compression::Lz4);
}

/// Fills `dir` with an OST whose index has table files, a log, and a past; `old` gets a copy of an earlier state.
fn fill(dir: &Path, old: &Path) {
    let open = || Ost::open(dir, OstOptions { create: true, ..options() }).expect("opens");
    let ost = open();
    let store = ost.store_or_new(FsId(1)).expect("made");
    for oid in 1..LATE {
        for number in 0..CHUNKS {
            write(&store, oid, number, 1);
        }
    }
    store.commit().expect("committed");
    drop((store, ost));
    // The log becomes a table file when the index is opened again.
    drop(open());
    copy(dir, old);
    let ost = open();
    let store = ost.store_or_new(FsId(1)).expect("there");
    for oid in 1..=OBJECTS {
        for number in 0..CHUNKS {
            match last_version(oid, number) {
                Some(2) => write(&store, oid, number, 2),
                Some(_) => {}
                None => {
                    let offset = number << CHUNK_LOG2;
                    store.punch(&object(oid), CHUNK_LOG2, offset, CHUNK as u64, None).expect("punched");
                }
            }
        }
    }
    store.commit().expect("committed");
}

/// All files below `dir`, in order, without those that hold no state.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("listed") {
        let path = entry.expect("entry").path();
        let name = path.file_name().expect("named").to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files(&path));
        } else if name != "lock" && name != "LOCK" && !name.starts_with("LOG") {
            found.push(path);
        }
    }
    found.sort_unstable();
    found
}

/// Copies a directory; holes stay holes.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").args(["-a", "--sparse=always"]).arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success());
}

/// Damages one file of `dir` and says how.
fn damage(dir: &Path, old: &Path, seed: u64) -> (String, &'static str) {
    let mut rng = StdRng::seed_from_u64(seed);
    let files: Vec<PathBuf> = files(dir).into_iter().filter(|f| f.metadata().expect("there").len() > 0).collect();
    // Every file is met as often as any other, so that the small ones, on which much depends, have their share.
    let path = &files[rng.random_range(0..files.len())];
    let name = path.strip_prefix(dir).expect("below").display().to_string();
    let mut bytes = std::fs::read(path).expect("read");
    let kind = match seed % 4 {
        0 => {
            let bit = rng.random_range(0..bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            "flip"
        }
        1 => {
            bytes.truncate(rng.random_range(0..bytes.len()));
            "truncate"
        }
        2 => {
            // Two blocks of the file, or of two files, change places; small files have small blocks.
            let block = if bytes.len() >= 16384 { 4096 } else { (bytes.len() / 3).max(1) };
            let blocks = bytes.len() / block;
            let (a, b) = (rng.random_range(0..blocks) * block, rng.random_range(0..blocks) * block);
            let first = bytes[a..a + block].to_vec();
            let second = bytes[b..b + block].to_vec();
            bytes[a..a + block].copy_from_slice(&second);
            bytes[b..b + block].copy_from_slice(&first);
            "swap"
        }
        _ => {
            // A block as it was some time ago: a write that was lost.
            let earlier = std::fs::read(old.join(&name)).unwrap_or_default();
            let block = 4096.min(bytes.len());
            let at = rng.random_range(0..bytes.len().div_ceil(block)) * block;
            let end = (at + block).min(bytes.len());
            for (i, byte) in bytes[at..end].iter_mut().enumerate() {
                *byte = earlier.get(at + i).copied().unwrap_or(0);
            }
            "stale"
        }
    };
    std::fs::write(path, bytes).expect("written");
    (name, kind)
}

/// What a reader gets of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Got {
    Right,
    Error,
    Wrong,
}

/// Reads everything as a client does, who checks what is sealed. An error: the OST does not open.
fn read_all(dir: &Path) -> FsResult<BTreeMap<String, Got>> {
    let ost = Ost::open(dir, options())?;
    let store = ost.store(FsId(1))?;
    let mut got = BTreeMap::new();
    for oid in 1..=OBJECTS {
        for number in 0..CHUNKS {
            let expected = last_version(oid, number).map_or(vec![0; CHUNK], |v| content(oid, number, v));
            let outcome = match &store {
                None => Got::Wrong,
                Some(store) => match read_chunk(store, oid, number) {
                    Some(bytes) if bytes == expected => Got::Right,
                    Some(_) => Got::Wrong,
                    None => Got::Error,
                },
            };
            got.insert(format!("{oid}/{number}"), outcome);
        }
    }
    Ok(got)
}

fn read_chunk(store: &Store, oid: u32, number: u64) -> Option<Vec<u8>> {
    let sealed = oid.is_multiple_of(2);
    let range = ReadRange { offset: number << CHUNK_LOG2, length: CHUNK as u32, sealed, verify: false };
    let reply = store.read(&object(oid), CHUNK_LOG2, range).ok()?;
    let payload: Vec<u8> = reply.payload.pieces().flat_map(|piece| piece.iter().copied()).collect();
    let mut rest = &payload[..];
    let mut out = Vec::new();
    for part in &reply.parts {
        if part.hole {
            out.resize(out.len() + part.raw_len as usize, 0);
            continue;
        }
        let (stored, behind) = rest.split_at(part.stored_len as usize);
        rest = behind;
        if crc32c::crc32c(stored) != part.stored_crc32c {
            return None;
        }
        let codec = if part.codec == Codec::Raw { Codec::Raw } else { Codec::Lz4 };
        out.extend(codec::open(codec, stored.to_vec(), part.raw_len, part.raw_crc32c)?);
    }
    out.resize(CHUNK, 0);
    Some(out)
}

fn findings(dir: &Path, repair: bool) -> FsResult<Vec<Finding>> {
    let mut found = Vec::new();
    let mut sink = |event| {
        if let FsckEvent::Finding(finding) = event {
            found.push(finding);
        }
        ControlFlow::Continue(())
    };
    offline::check(dir, offline::Options { deep: true, repair, ..Default::default() }, &mut sink)?;
    Ok(found)
}

/// What became of one case.
#[derive(Debug, Serialize, Deserialize)]
struct Outcome {
    opened: bool,
    wrong: usize,
    errors: usize,
    found: usize,
    /// Rules that were broken.
    broken: Vec<String>,
}

/// The child's part: `dir/damaged` is there, copies are made beside it.
fn judge(dir: &Path) -> Outcome {
    let damaged = dir.join("damaged");
    let (served, repaired) = (dir.join("served"), dir.join("repaired"));
    copy(&damaged, &served);
    copy(&damaged, &repaired);
    let mut broken = Vec::new();
    let found = findings(&damaged, false).unwrap_or_else(|e| {
        broken.push(format!("the check failed: {e}"));
        Vec::new()
    });
    let damage = found.iter().filter(|f| !f.kind.is_notice()).count();
    let read = read_all(&served);
    let count = |got: &FsResult<BTreeMap<String, Got>>, what| {
        got.as_ref().map_or(0, |got| got.values().filter(|g| **g == what).count())
    };
    let (wrong, errors) = (count(&read, Got::Wrong), count(&read, Got::Error));
    if wrong > 0 {
        broken.push(format!("{wrong} chunks were read wrong; found {found:?}"));
    }
    if (errors > 0 || read.is_err()) && damage == 0 {
        let why = read.as_ref().err().map(ToString::to_string);
        broken.push(format!("{errors} chunks cannot be read, opening says {why:?}, the check says nothing"));
    }
    let first = findings(&repaired, true);
    let before = contents(&repaired);
    let second = findings(&repaired, true);
    if let (Ok(first), Ok(second)) = (&first, &second) {
        let known = |f: &&Finding| !first.iter().any(|g| g.kind == f.kind && g.fid == f.fid && g.chunk == f.chunk);
        let new: Vec<_> = second.iter().filter(known).collect();
        if !new.is_empty() || second.iter().any(|f| f.repair == sateen_types::Repair::Done) {
            broken.push(format!("the second run finds {second:?}, the first found {first:?}"));
        }
        if before != contents(&repaired) {
            broken.push("the second run changed something".to_owned());
        }
    } else {
        broken.push(format!("a repair failed: {first:?}, {second:?}"));
    }
    let after = read_all(&repaired);
    if count(&after, Got::Right) < count(&read, Got::Right) || count(&after, Got::Wrong) > wrong {
        broken.push(format!("the repair took good copies: {read:?} became {after:?}"));
    }
    Outcome { opened: read.is_ok(), wrong, errors, found: damage, broken }
}

/// Segments and superblock; RocksDB may tidy its own files.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let own = |path: &PathBuf| !path.components().any(|c| c.as_os_str() == "index");
    files(dir).into_iter().filter(own).map(|p| (p.clone(), std::fs::read(&p).expect("read"))).collect()
}

#[test]
#[ignore = "the child of the test below"]
fn child() {
    let dir = PathBuf::from(std::env::var_os(CHILD_DIR).expect("started by the test below"));
    let outcome = judge(&dir);
    std::fs::write(dir.join("outcome"), serde_json::to_vec(&outcome).expect("json")).expect("written");
}

/// Runs the child; `Err` says how it ended if not well.
fn run_child(dir: &Path) -> Result<Outcome, String> {
    let me = std::env::current_exe().expect("a program");
    let log = std::fs::File::create(dir.join("log")).expect("created");
    let mut child = Command::new(me)
        .args(["--exact", "child", "--ignored"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("starts");
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("ours") {
            break status;
        }
        if started.elapsed() > DEADLINE {
            child.kill().expect("ours");
            child.wait().expect("ours");
            return Err("hangs".to_owned());
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let text = std::fs::read(dir.join("outcome")).ok();
    text.and_then(|text| serde_json::from_slice(&text).ok()).ok_or_else(|| {
        let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
        format!("the child ended with {status}: {log}")
    })
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn every_damage_to_any_file_of_an_ost_is_noticed_or_harmless() {
    let (cases, first) = (number("SATEEN_CORRUPTION_CASES", CASES), number("SATEEN_CORRUPTION_SEED", 0));
    let dir = tempfile::tempdir().expect("temp dir");
    let (base, old) = (dir.path().join("base"), dir.path().join("old"));
    fill(&base, &old);
    assert_eq!(findings(&base, false).expect("checked"), []);
    // A copy, because opening turns the log into a table.
    copy(&base, &dir.path().join("sound"));
    let sound = read_all(&dir.path().join("sound")).expect("opens");
    assert!(sound.values().all(|got| *got == Got::Right), "{sound:?}");

    let mut tally: BTreeMap<(&str, &str), [u64; 4]> = BTreeMap::new();
    let mut broken = Vec::new();
    for seed in first..first + cases {
        let case = dir.path().join(format!("case-{seed}"));
        std::fs::create_dir(&case).expect("created");
        copy(&base, &case.join("damaged"));
        let (name, kind) = damage(&case.join("damaged"), &old, seed);
        let row = tally.entry((class(&name), kind)).or_default();
        row[0] += 1;
        match run_child(&case) {
            Ok(outcome) => {
                row[1] += u64::from(!outcome.opened);
                row[2] += u64::from(outcome.opened && (outcome.errors > 0 || outcome.found > 0));
                row[3] += u64::from(outcome.opened && outcome.errors == 0 && outcome.found == 0);
                for rule in outcome.broken {
                    broken.push(format!("seed {seed} ({kind} in {name}): {rule}"));
                }
            }
            Err(how) => broken.push(format!("seed {seed} ({kind} in {name}): {how}")),
        }
        std::fs::remove_dir_all(&case).expect("removed");
    }
    println!("seeds {first} to {}; file class, damage: cases, refused, noticed, harmless", first + cases - 1);
    for ((class, kind), [all, refused, noticed, harmless]) in &tally {
        println!("{class:>10} {kind:>9}: {all:5} {refused:5} {noticed:5} {harmless:5}");
    }
    assert!(broken.is_empty(), "{} of {cases} cases:\n{}", broken.len(), broken.join("\n"));
}

/// What kind of file it is.
fn class(name: &str) -> &'static str {
    let ends = |suffix: &str| name.ends_with(suffix);
    match () {
        () if ends("superblock") => "superblock",
        () if ends(".seg") => "segment",
        () if ends(".sst") => "table",
        () if ends(".log") => "log",
        () if ends("index.mark") => "mark",
        () if name.contains("MANIFEST") => "manifest",
        () if ends("CURRENT") => "current",
        () => "other",
    }
}
