//! A writer that knows what it was promised, to be found again after a crash. Two kinds: new files, each fsynced with its
//! name; and one file whose chunks are overwritten with rising versions, fsynced after each.
//!
//! It is a process of its own (`ledger-writer`). Were it a thread of the test, a server that the test starts would be
//! forked with the writer's open files, close them before it runs, and wait for their data to reach the server that is
//! about to be started.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::rng::pattern;
use crate::wait;

/// Largest file of a ledger, in bytes: some files have several chunks.
const FILE_BYTES_MAX: usize = 400_000;

/// Bytes of a chunk of the product's default layout.
const CHUNK_BYTES: usize = 128 << 10;
/// Chunks of the file of versions. Coprime to [`CHUNK_STEP`].
const CHUNKS: u64 = 40;
/// Distance between chunks that are written one after the other: not the order on disk.
const CHUNK_STEP: u64 = 23;
/// Bytes of the last chunk: not a whole one.
const LAST_CHUNK_BYTES: usize = 50_000;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// New files of various sizes.
    Files,
    /// All chunks of one file, again and again.
    Versions,
}

impl Kind {
    /// As in the arguments of `ledger-writer`.
    fn name(self) -> &'static str {
        match self {
            Kind::Files => "files",
            Kind::Versions => "versions",
        }
    }
}

/// Writes into a directory until told to stop or until something fails.
#[derive(Debug)]
pub struct Writer {
    kind: Kind,
    dir: PathBuf,
    child: Child,
    /// Closing it asks the writer to stop.
    stdin: Option<ChildStdin>,
    progress: Arc<AtomicU64>,
    /// Follows what the writer says; gives the error it ended with.
    follower: Option<JoinHandle<Option<String>>>,
}

/// What was promised.
#[derive(Debug)]
pub struct Ledger {
    kind: Kind,
    dir: PathBuf,
    /// So many files were fsynced, and their names by an fsync of the directory; or the version that was fsynced last.
    pub fsynced: u64,
    /// The error that ended the writer, if one did.
    pub error: Option<String>,
}

impl Writer {
    /// Starts `program` (`ledger-writer`) in the new directory `dir`.
    pub fn start(program: &Path, kind: Kind, dir: PathBuf) -> Writer {
        std::fs::create_dir(&dir).unwrap_or_else(|e| panic!("cannot create {}: {e}", dir.display()));
        let mut command = Command::new(program);
        command.arg(kind.name()).arg(&dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("ledger-writer can be started");
        let stdin = child.stdin.take();
        let said = BufReader::new(child.stdout.take().expect("piped"));
        let progress = Arc::new(AtomicU64::new(0));
        let count = progress.clone();
        let follower = std::thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                match line.parse() {
                    Ok(fsynced) => count.store(fsynced, Ordering::Relaxed),
                    Err(_) => return Some(line),
                }
            }
            None
        });
        Writer { kind, dir, child, stdin, progress, follower: Some(follower) }
    }

    /// How many files, or which version, were fsynced so far.
    pub fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// Waits until it has gained `steps` beyond `from`.
    #[track_caller]
    pub fn wait_for(&self, from: u64, steps: u64, deadline: Duration) {
        wait::until(&format!("progress of the writer of {}", self.kind.name()), deadline, || {
            assert!(!self.has_ended(), "the writer of {} failed", self.kind.name());
            (self.progress() >= from + steps).then_some(())
        });
    }

    /// Whether it ended by itself: something failed.
    pub fn has_ended(&self) -> bool {
        self.follower.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Asks it to stop after the current step and gives what was promised.
    pub fn finish(mut self) -> Ledger {
        self.stdin = None;
        let follower = self.follower.take().expect("taken only here");
        let error = follower.join().expect("the follower does not panic");
        Ledger { kind: self.kind, dir: self.dir.clone(), fsynced: self.progress(), error }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ledger {
    /// Reads everything that was promised and compares it.
    #[track_caller]
    pub fn assert_kept(&self) {
        match self.kind {
            Kind::Files => self.assert_files_kept(),
            Kind::Versions => self.assert_versions_kept(),
        }
    }

    /// Removes what was written.
    #[track_caller]
    pub fn remove(&self) {
        std::fs::remove_dir_all(&self.dir).unwrap_or_else(|e| panic!("cannot remove {}: {e}", self.dir.display()));
    }

    #[track_caller]
    fn assert_files_kept(&self) {
        for n in 0..self.fsynced {
            let path = path_of(&self.dir, n);
            let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("fsynced file {}: {e}", path.display()));
            assert!(
                bytes == content_of(n),
                "fsynced file {} has other bytes ({} of them)",
                path.display(),
                bytes.len()
            );
        }
    }

    /// Each chunk is the version that was fsynced last or, if the writer was interrupted, the one it was writing then; and
    /// it is that as a whole.
    #[track_caller]
    fn assert_versions_kept(&self) {
        if self.fsynced == 0 {
            return;
        }
        let path = versions_path(&self.dir);
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("fsynced file {}: {e}", path.display()));
        let newest = self.fsynced + u64::from(self.error.is_some());
        for chunk in 0..CHUNKS {
            let (at, len) = chunk_range(chunk);
            let got = bytes.get(at as usize..at as usize + len);
            let got = got.unwrap_or_else(|| panic!("{} ends at {}, in chunk {chunk}", path.display(), bytes.len()));
            let known = (self.fsynced..=newest).any(|version| got == chunk_of(chunk, version));
            assert!(known, "chunk {chunk} of {} is not version {} to {newest}", path.display(), self.fsynced);
        }
    }
}

/// The writer's side: after each step, a line with how much was fsynced; an error ends it with a line that says it.
/// Stops when standard input closes.
pub fn write_ledger(kind: &str, dir: &Path) {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        asked.store(true, Ordering::Relaxed);
    });
    let step = if kind == Kind::Files.name() { write_one } else { write_version };
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        if let Err(e) = step(dir, done) {
            println!("step {done}: {e}");
            return;
        }
        done += 1;
        println!("{done}");
    }
}

fn write_one(dir: &Path, n: u64) -> std::io::Result<()> {
    let mut file = File::options().write(true).create_new(true).open(path_of(dir, n))?;
    file.write_all(&content_of(n))?;
    file.sync_all()?;
    File::open(dir)?.sync_all()
}

fn path_of(dir: &Path, n: u64) -> PathBuf {
    dir.join(format!("ledger-{n:06}"))
}

/// Sizes vary so that whole chunks, parts of chunks and empty files all occur.
fn content_of(n: u64) -> Vec<u8> {
    let len = (n as usize).wrapping_mul(7_919).wrapping_mul(n as usize % 13) % FILE_BYTES_MAX;
    pattern(n, len)
}

/// Overwrites every chunk with the version after `last`.
fn write_version(dir: &Path, last: u64) -> std::io::Result<()> {
    let file = File::options().write(true).create(true).truncate(false).open(versions_path(dir))?;
    for i in 0..CHUNKS {
        let chunk = i * CHUNK_STEP % CHUNKS;
        file.write_all_at(&chunk_of(chunk, last + 1), chunk_range(chunk).0)?;
    }
    file.sync_all()?;
    File::open(dir)?.sync_all()
}

fn versions_path(dir: &Path) -> PathBuf {
    dir.join("versions")
}

/// Offset and length of a chunk.
fn chunk_range(chunk: u64) -> (u64, usize) {
    (chunk * CHUNK_BYTES as u64, if chunk + 1 == CHUNKS { LAST_CHUNK_BYTES } else { CHUNK_BYTES })
}

fn chunk_of(chunk: u64, version: u64) -> Vec<u8> {
    pattern(version * CHUNKS + chunk, chunk_range(chunk).1)
}
