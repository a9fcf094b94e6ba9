//! What is done about the logs of a RocksDB before it is opened.
//!
//! After a power cut the bytes of a log behind its last sync may be anything. RocksDB (seen in 11.8) does not always get
//! over that: where the byte that should be a fragment's type happens to be one of recycled logs, which we never write,
//! its reader reports the fragment as bad without moving on, and `open` never returns. It also steps over zeros in
//! silence, whatever follows them. So nothing is opened before its logs were looked at here, and there are two policies:
//!
//! - [`cut_torn_tail`], for a database that syncs every batch before it answers for it: only the last batch may be
//!   torn, and a whole one behind damage means that something which was answered for is lost;
//! - [`cut_garbage`], for a database that syncs now and then, knows up to where, and gives up what is behind.
//!
//! A manifest is synced after each of its records. One that RocksDB's reader would stand still in is refused.

mod format;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use sateen_types::{FsCode, FsError, FsResult};

/// What is left of a fragment's header in a log that is followed by others, so that RocksDB notices that it is torn.
const TORN_HEADER: u64 = 4;

/// One write-ahead log.
struct Log {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Log {
    fn open(path: PathBuf, write: bool) -> FsResult<Log> {
        let opened = File::options().read(true).write(write).open(&path).and_then(|file| {
            let length = file.metadata()?.len();
            Ok((file, length))
        });
        let (file, length) = opened.map_err(|e| failed(&path, e))?;
        Ok(Log { path, file, length })
    }

    fn sound(&self) -> FsResult<format::Sound> {
        format::sound(&self.file).map_err(|e| failed(&self.path, e))
    }

    fn record_behind(&self, from: u64, wanted: impl Fn(Option<u64>) -> bool) -> FsResult<Option<u64>> {
        format::record_behind(&self.file, from, wanted).map_err(|e| failed(&self.path, e))
    }

    fn stands_still(&self) -> FsResult<bool> {
        format::stands_still(&self.file).map_err(|e| failed(&self.path, e))
    }

    /// Cuts it durably; returns how many bytes that took.
    fn cut(&self, length: u64) -> FsResult<u64> {
        if length >= self.length {
            return Ok(0);
        }
        self.file.set_len(length).and_then(|()| self.file.sync_all()).map_err(|e| failed(&self.path, e))?;
        Ok(self.length - length)
    }
}

/// Cuts a batch that is not whole off the end of the logs in `dir`, durably, and says how many bytes that took. Refuses
/// (`Corrupt`, without a hint, and nothing is changed) if a whole batch stands behind what is not. A directory without
/// logs, or none, is left alone.
pub fn cut_torn_tail(dir: &Path) -> FsResult<u64> {
    check_manifest(dir)?;
    let logs = logs(dir, true)?;
    let mut next_sequence = None;
    for (log, newer) in (1..).zip(&logs).map(|(behind, log)| (log, &logs[behind..])) {
        let sound = log.sound()?;
        next_sequence = sound.next_sequence.or(next_sequence);
        if sound.end == log.length {
            continue;
        }
        // Bytes that were a log once, in a value or in a block that was used before, have a lower number.
        let later = |sequence: Option<u64>| sequence.zip(next_sequence).is_none_or(|(s, next)| s >= next);
        for (other, from) in [(log, sound.stopped)].into_iter().chain(newer.iter().map(|other| (other, 0))) {
            if let Some(at) = other.record_behind(from, later)? {
                return Err(lost(log, &sound, other, at));
            }
        }
        let mut cut = log.cut(sound.end)?;
        for empty in newer {
            cut += empty.cut(0)?;
        }
        return Ok(cut);
    }
    Ok(0)
}

/// Cuts what is not whole, and what is behind it, off the newest log in `dir`, durably, and says how many bytes that took;
/// that is where point-in-time recovery stops anyway. Older logs are only made such that RocksDB gets there. Refuses
/// (`Corrupt`, without a hint, and nothing is changed) if a batch behind the damage has a sequence number of at most
/// `durable`. A directory without logs, or none, is left alone.
pub fn cut_garbage(dir: &Path, durable: u64) -> FsResult<u64> {
    check_manifest(dir)?;
    let logs = logs(dir, true)?;
    let mut cuts = Vec::new();
    for (number, log) in logs.iter().enumerate() {
        let newest = number + 1 == logs.len();
        if !newest && !log.stands_still()? {
            continue;
        }
        let sound = log.sound()?;
        if sound.end == log.length {
            continue;
        }
        let durable = |sequence: Option<u64>| {
            sequence.is_some_and(|s| s <= durable && sound.next_sequence.is_none_or(|next| s >= next))
        };
        if let Some(at) = log.record_behind(sound.stopped, durable)? {
            return Err(lost(log, &sound, log, at));
        }
        cuts.push((log, if newest { sound.end } else { sound.stopped + TORN_HEADER }));
    }
    cuts.into_iter().map(|(log, end)| log.cut(end)).sum()
}

/// Refuses (`Corrupt`) a database whose logs RocksDB would not get over. Changes nothing.
pub fn check_readable(dir: &Path) -> FsResult<()> {
    check_manifest(dir)?;
    match garbage(dir)? {
        None => Ok(()),
        Some(path) => Err(FsError::new(FsCode::Corrupt, format!("{} ends in garbage", path.display()))),
    }
}

/// A log in `dir` that RocksDB would not get over, and that [`cut_garbage`] would make readable.
pub fn garbage(dir: &Path) -> FsResult<Option<PathBuf>> {
    for log in logs(dir, false)? {
        if log.stands_still()? {
            return Ok(Some(log.path));
        }
    }
    Ok(None)
}

/// The logs in `dir`, the oldest first.
fn logs(dir: &Path, write: bool) -> FsResult<Vec<Log>> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| failed(dir, e))?,
    };
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| failed(dir, e))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|n| n.strip_suffix(".log")).and_then(|n| n.parse().ok());
        found.extend(number.map(|number| (number, entry.path())));
    }
    found.sort_unstable();
    found.into_iter().map(|(_, path)| Log::open(path, write)).collect()
}

/// Refuses a manifest that RocksDB would not get over. What else may be wrong with it RocksDB says itself.
fn check_manifest(dir: &Path) -> FsResult<()> {
    let current = dir.join("CURRENT");
    let name = match std::fs::read_to_string(&current) {
        // A new database, or one that RocksDB refuses.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => return Ok(()),
        name => name.map_err(|e| failed(&current, e))?,
    };
    let path = dir.join(name.trim_end_matches('\n'));
    if !path.is_file() || !Log::open(path.clone(), false)?.stands_still()? {
        return Ok(());
    }
    Err(FsError::new(FsCode::Corrupt, format!("{} is damaged", path.display()))
        .with_hint("keep a copy of the directory and look at its disk; then restore it from a backup"))
}

/// The error for a whole batch at `at` of `other` behind damage of `log`.
fn lost(log: &Log, sound: &format::Sound, other: &Log, at: u64) -> FsError {
    let place = if other.path == log.path { String::new() } else { format!(" of {}", other.path.display()) };
    FsError::new(
        FsCode::Corrupt,
        format!(
            "{} is damaged at byte {}, and a whole change follows at byte {at}{place}: what was durable is lost",
            log.path.display(),
            sound.end
        ),
    )
}

fn failed(path: &Path, e: io::Error) -> FsError {
    FsError::new(FsCode::Io, format!("cannot read or cut {}: {e}", path.display()))
        .with_hint("look at the disk, its kernel log, and who may write there")
}
