//! A writer that knows what it was promised: files it wrote and fsynced, to be found again after a crash.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::rng::pattern;

/// Largest file of a ledger, in bytes: some files have several chunks.
const FILE_BYTES_MAX: usize = 400_000;

/// Writes files into a directory until told to stop or until one fails.
#[derive(Debug)]
pub struct Writer {
    stop: Arc<AtomicBool>,
    progress: Arc<AtomicU64>,
    thread: JoinHandle<Ledger>,
}

/// What was promised.
#[derive(Debug)]
pub struct Ledger {
    dir: PathBuf,
    /// Files `0..fsynced` were fsynced, and their names by an fsync of the directory.
    pub fsynced: u64,
    /// The error that ended the writer, if one did.
    pub error: Option<std::io::Error>,
}

impl Writer {
    /// Starts writing into the existing directory `dir`.
    pub fn start(dir: PathBuf) -> Writer {
        let stop = Arc::new(AtomicBool::new(false));
        let progress = Arc::new(AtomicU64::new(0));
        let (asked, done) = (stop.clone(), progress.clone());
        let thread = std::thread::spawn(move || {
            let mut ledger = Ledger { dir, fsynced: 0, error: None };
            while !asked.load(Ordering::Relaxed) {
                if let Err(e) = write_one(&ledger.dir, ledger.fsynced) {
                    ledger.error = Some(e);
                    break;
                }
                ledger.fsynced += 1;
                done.store(ledger.fsynced, Ordering::Relaxed);
            }
            ledger
        });
        Writer { stop, progress, thread }
    }

    /// How many files were fsynced so far.
    pub fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// Asks it to stop after the current file and gives what was promised.
    pub fn finish(self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the writer does not panic")
    }

    /// Whether it ended by itself: a file failed.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
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
