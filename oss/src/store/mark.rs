//! The index's mark: which of its changes were durable at least, written down outside of RocksDB.
//!
//! A log that is damaged in its middle is replayed up to there and the rest is dropped without a word; so is a manifest
//! that is cut. An index that has gone back would read as holes where data was, and its store would delete segments it
//! does not know. The mark makes that an error: after each sync the sequence number that it covered is written to
//! `index.mark`, and an index with a lower one is not opened.
//!
//! The mark itself is not synced: it never runs ahead of the index, and one that a power cut takes back is only weaker.
//!
//! Two slots, 4 KiB apart, written in turn; the higher valid one counts. Big-endian:
//!
//! | offset | size | field    | notes                           |
//! |-------:|-----:|----------|---------------------------------|
//! |      0 |    8 | magic    | `SATMARK1`                      |
//! |      8 |    8 | sequence | RocksDB's, of the index         |
//! |     16 |    4 | crc      | crc32c of bytes 0..16           |

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use sateen_types::{FsCode, FsError, FsResult};

const MAGIC: &[u8; 8] = b"SATMARK1";
const SLOT_BYTES: usize = 20;
/// Slots lie in different blocks, so that one bad block does not take both.
const SLOT_DISTANCE: u64 = 4096;

/// The file beside the index in `dir`.
pub fn path_of(index: &Path) -> PathBuf {
    index.with_added_extension("mark")
}

/// An open mark.
pub struct Mark {
    file: File,
    /// Slot that is written next, and whether a failure was told.
    next: Mutex<(u64, bool)>,
}

impl Mark {
    /// The mark of the index in `dir`, made if it is missing.
    pub fn open(index: &Path) -> FsResult<Mark> {
        let path = path_of(index);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|e| FsError::new(FsCode::Io, format!("cannot open {}: {e}", path.display())))?;
        Ok(Mark { file, next: Mutex::default() })
    }

    /// Everything up to `sequence` is durable.
    pub fn set(&self, sequence: u64) {
        let mut next = self.next.lock();
        match self.file.write_all_at(&encode(sequence), next.0 * SLOT_DISTANCE) {
            Ok(()) => next.0 = 1 - next.0,
            Err(error) if !next.1 => {
                next.1 = true;
                // Only a damage of the index that comes later is noticed less well.
                tracing::warn!(%error, "cannot write the mark of an index");
            }
            Err(_) => {}
        }
    }
}

/// What of the index in `index` was durable at least: everything up to this sequence number.
pub fn known(index: &Path) -> FsResult<u64> {
    let path = path_of(index);
    read(&path).map_err(|e| FsError::new(FsCode::Io, format!("cannot read {}: {e}", path.display())))
}

/// What to do about an index that has lost changes.
pub const HINT: &str = "keep a copy of the OST, then make its index anew: sateen fsck --rebuild-index --dir DIR";

/// Refuses an index that has lost changes: `sequence` is its last.
pub fn check(index: &Path, sequence: u64) -> FsResult<()> {
    let known = known(index)?;
    if known <= sequence {
        return Ok(());
    }
    Err(FsError::new(
        FsCode::Corrupt,
        format!("the index in {} has lost changes: it ends at {sequence}, {known} was committed", index.display()),
    )
    .with_hint(HINT))
}

/// The highest sequence that a slot holds; 0 if none does, as in a directory of an older release.
fn read(path: &Path) -> io::Result<u64> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(e),
    };
    let slot = |at: usize| bytes.get(at..at + SLOT_BYTES).and_then(decode);
    Ok(slot(0).max(slot(SLOT_DISTANCE as usize)).unwrap_or(0))
}

fn encode(sequence: u64) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(MAGIC);
    slot[8..16].copy_from_slice(&sequence.to_be_bytes());
    let crc = crc32c::crc32c(&slot[..16]);
    slot[16..].copy_from_slice(&crc.to_be_bytes());
    slot
}

fn decode(slot: &[u8]) -> Option<u64> {
    let sequence = u64::from_be_bytes(slot.get(8..16)?.try_into().ok()?);
    (slot == encode(sequence)).then_some(sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_higher_valid_slot_counts_and_damage_only_makes_the_mark_weaker() {
        let dir = tempfile::tempdir().expect("temp dir");
        let index = dir.path().join("index");
        assert!(check(&index, 0).is_ok(), "no mark, no claim");
        let mark = Mark::open(&index).expect("made");
        for sequence in [5, 9, 12] {
            mark.set(sequence);
        }
        assert!(check(&index, 12).is_ok());
        let err = check(&index, 11).expect_err("has lost changes");
        assert!(err.code == FsCode::Corrupt && err.message.contains("12") && err.hint.is_some(), "{err}");
        let path = dir.path().join("index.mark");
        let mut bytes = std::fs::read(&path).expect("read");
        bytes[9] ^= 1;
        std::fs::write(&path, &bytes).expect("written");
        assert!(check(&index, 9).is_ok() && check(&index, 8).is_err(), "the older slot is left");
        std::fs::write(&path, b"nonsense").expect("written");
        assert!(check(&index, 0).is_ok());
    }
}
