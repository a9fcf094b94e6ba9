//! A writer that knows what it was promised: files it wrote and fsynced, to be found again after a crash.
//!
//! It is a process of its own (`ledger-writer`). Were it a thread of the test, a server that the test starts would be
//! forked with the writer's open files, close them before it runs, and wait for their data to reach the server that is
//! about to be started.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::rng::pattern;

/// Largest file of a ledger, in bytes: some files have several chunks.
const FILE_BYTES_MAX: usize = 400_000;

/// Writes files into a directory until told to stop or until one fails.
#[derive(Debug)]
pub struct Writer {
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
    dir: PathBuf,
    /// Files `0..fsynced` were fsynced, and their names by an fsync of the directory.
    pub fsynced: u64,
    /// The error that ended the writer, if one did.
    pub error: Option<String>,
}

impl Writer {
    /// Starts `program` (`ledger-writer`) on the existing directory `dir`.
    pub fn start(program: &Path, dir: PathBuf) -> Writer {
        let mut command = Command::new(program);
        command.arg(&dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
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
        Writer { dir, child, stdin, progress, follower: Some(follower) }
    }

    /// How many files were fsynced so far.
    pub fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// Whether it ended by itself: a file failed.
    pub fn has_ended(&self) -> bool {
        self.follower.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Asks it to stop after the current file and gives what was promised.
    pub fn finish(mut self) -> Ledger {
        self.stdin = None;
        let follower = self.follower.take().expect("taken only here");
        let error = follower.join().expect("the follower does not panic");
        Ledger { dir: self.dir.clone(), fsynced: self.progress(), error }
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
}

/// The writer's side: after each file, a line with how many were fsynced; an error ends it with a line that says it.
/// Stops when standard input closes.
pub fn write_ledger(dir: &Path) {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        asked.store(true, Ordering::Relaxed);
    });
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        if let Err(e) = write_one(dir, n) {
            println!("file {n}: {e}");
            return;
        }
        n += 1;
        println!("{n}");
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
