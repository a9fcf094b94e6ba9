//! The bytes of a RocksDB log: what is whole in one, what stands behind damage, and what RocksDB's reader makes of it.
//!
//! A log is a row of 32 KiB blocks; a fragment never crosses their borders: masked crc32c 4, length 2, type 1, all
//! little-endian, then the bytes. The checksum covers type and bytes. Fewer than 7 bytes at a block's end are filler. A
//! record is one full fragment, or a first, any number of middle ones and a last. In a write-ahead log a record is a
//! batch: the sequence number of its first change (8 bytes), how many there are (4 bytes), the changes. A manifest is
//! made of the same fragments and other records.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Unit in which fragments are laid out.
pub(super) const BLOCK: usize = 32 << 10;
/// What stands before the bytes of a fragment.
pub(super) const HEADER: usize = 7;
const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;
/// Types that only recycled logs have: fragments, time stamp sizes, and the predecessor of a log. We never recycle logs.
const RECYCLED: [u8; 6] = [5, 6, 7, 8, 11, 131];
/// Bytes of a batch before its changes.
const BATCH_HEADER: usize = 12;

/// A whole fragment.
struct Fragment<'a> {
    kind: u8,
    body: &'a [u8],
}

impl Fragment<'_> {
    /// The fragment at the start of `bytes`, if it is whole and of a kind that logs have which are not recycled.
    fn read(bytes: &[u8]) -> Option<Fragment<'_>> {
        let (header, rest) = bytes.split_at_checked(HEADER)?;
        let kind = header[6];
        let body = rest.get(..usize::from(u16::from_le_bytes([header[4], header[5]])))?;
        if RECYCLED.contains(&kind) || masked_crc(kind, body) != header[..4] {
            return None;
        }
        Some(Fragment { kind, body })
    }

    fn len(&self) -> usize {
        HEADER + self.body.len()
    }
}

pub(super) fn masked_crc(kind: u8, body: &[u8]) -> [u8; 4] {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&[kind]), body);
    crc.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// What of a log is whole, from its start on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sound {
    /// Where the last whole record ends, and the filler behind it.
    pub(super) end: u64,
    /// Where the first bytes are that are no whole fragment, or none that may follow the one before: at least `end`.
    pub(super) stopped: u64,
    /// The sequence number after the last whole batch.
    pub(super) next_sequence: Option<u64>,
}

/// Reads records from the start of `file` on, until one is not whole.
pub(super) fn sound(file: &File) -> io::Result<Sound> {
    let mut sound = Sound::default();
    // The beginning of a record whose end has not come yet.
    let mut begun: Option<Vec<u8>> = None;
    for_each_block(file, 0, |start, block| {
        let mut at = 0;
        while block.len() - at >= HEADER {
            sound.stopped = start + at as u64;
            let Some(fragment) = Fragment::read(&block[at..]) else { return false };
            match (fragment.kind, &mut begun) {
                (FIRST, None) => begun = Some(head(&[], fragment.body)),
                (MIDDLE, Some(begun)) => *begun = head(begun, fragment.body),
                (LAST, Some(first)) => {
                    sound.next_sequence = after_batch(&head(first, fragment.body)).or(sound.next_sequence);
                    begun = None;
                }
                (FULL, None) => sound.next_sequence = after_batch(fragment.body).or(sound.next_sequence),
                (FULL | FIRST | MIDDLE | LAST, _) | (_, Some(_)) => return false,
                // Not a record; RocksDB knows what to do with it.
                (_, None) => {}
            }
            at += fragment.len();
            sound.stopped = start + at as u64;
            if begun.is_none() {
                sound.end = sound.stopped;
            }
        }
        if block.len() < BLOCK {
            return false;
        }
        sound.stopped = start + BLOCK as u64;
        if begun.is_none() {
            sound.end = sound.stopped;
        }
        true
    })?;
    Ok(sound)
}

/// The first bytes of a record, as many as are looked at.
fn head(before: &[u8], more: &[u8]) -> Vec<u8> {
    before.iter().chain(more).copied().take(BATCH_HEADER).collect()
}

fn sequence(batch: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*batch.first_chunk()?))
}

fn after_batch(batch: &[u8]) -> Option<u64> {
    let count = u32::from_le_bytes(*batch.get(8..)?.first_chunk()?);
    sequence(batch)?.checked_add(u64::from(count))
}

/// Where behind `from` a record begins whose first fragment is whole and whose sequence number is `wanted`; `None` is
/// asked about where the fragment is too short to tell. Every byte may be the first: lengths in damaged bytes say nothing.
pub(super) fn record_behind(file: &File, from: u64, wanted: impl Fn(Option<u64>) -> bool) -> io::Result<Option<u64>> {
    let mut found = None;
    for_each_block(file, from / BLOCK as u64, |start, block| {
        let mut at = from.saturating_sub(start) as usize;
        while at + HEADER <= block.len() {
            // Cheaper than the checksum.
            let fragment = if matches!(block[at + 6], FULL..=LAST) { Fragment::read(&block[at..]) } else { None };
            match fragment {
                Some(f) if matches!(f.kind, FULL | FIRST) && wanted(sequence(f.body)) => {
                    found = Some(start + at as u64);
                    return false;
                }
                Some(f) => at += f.len(),
                None => at += 1,
            }
        }
        true
    })?;
    Ok(found)
}

/// Whether RocksDB's reader would stand still in `file`: where what should be a fragment's type is one of recycled logs,
/// it reports a bad fragment without moving on, for ever. Follows it over everything it skips.
pub(super) fn stands_still(file: &File) -> io::Result<bool> {
    let mut still = false;
    for_each_block(file, 0, |_, block| {
        let mut at = 0;
        while at + HEADER <= block.len() {
            still |= RECYCLED.contains(&block[at + 6]);
            match Fragment::read(&block[at..]) {
                Some(fragment) => at += fragment.len(),
                // It goes on with the next block.
                None => break,
            }
        }
        !still
    })?;
    Ok(still)
}

/// Hands the blocks of `file` to `visit`, with their places, until it says `false` or the file ends. The last may be
/// short, or empty.
fn for_each_block(file: &File, first: u64, mut visit: impl FnMut(u64, &[u8]) -> bool) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    let mut start = first * BLOCK as u64;
    loop {
        let mut filled = 0;
        while filled < BLOCK {
            match file.read_at(&mut block[filled..], start + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if !visit(start, &block[..filled]) || filled < BLOCK {
            return Ok(());
        }
        start += BLOCK as u64;
    }
}
