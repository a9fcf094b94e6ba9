//! Cuts garbage off the end of a RocksDB log, before RocksDB reads it.
//!
//! After a power cut the bytes of a log behind its last sync may be anything. RocksDB (seen in 11.8) does not always get
//! over that: where the byte that should be a record's type happens to be one of recycled logs, which we never write,
//! its reader reports the record as bad without moving on, and `open` never returns. So the newest log is cut where its
//! first damaged record begins. That is where point-in-time recovery stops anyway.
//!
//! A log is a row of 32 KiB blocks; a record never crosses their borders: masked crc32c 4, length 2, type 1, all
//! little-endian, then the bytes. The checksum covers type and bytes. Fewer than 7 bytes at a block's end are filler.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;
/// Types that only recycled logs have: records, time stamp sizes, and the predecessor of a log.
const RECYCLED: [u8; 6] = [5, 6, 7, 8, 11, 131];

/// Cuts the newest log in `dir`, durably, and says how many bytes that took. A directory without logs is left alone.
pub fn cut_garbage(dir: &Path) -> io::Result<u64> {
    let Some(path) = newest_log(dir)? else { return Ok(0) };
    let file = File::options().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let sound = sound_bytes(&file)?;
    if sound < length {
        file.set_len(sound)?;
        file.sync_all()?;
    }
    Ok(length - sound.min(length))
}

fn newest_log(dir: &Path) -> io::Result<Option<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    let mut newest: Option<(u64, PathBuf)> = None;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|n| n.strip_suffix(".log")).and_then(|n| n.parse().ok());
        if let Some(number) = number.filter(|&n| newest.as_ref().is_none_or(|(highest, _)| n > *highest)) {
            newest = Some((number, entry.path()));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

/// Where the first damaged record begins, or the end of the file.
fn sound_bytes(file: &File) -> io::Result<u64> {
    let mut block = vec![0; BLOCK];
    let mut start = 0u64;
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
        let sound = sound_in_block(&block[..filled]);
        if sound < filled || filled < BLOCK {
            return Ok(start + sound as u64);
        }
        start += BLOCK as u64;
    }
}

/// How many bytes of a block are whole records (and filler at its end).
fn sound_in_block(block: &[u8]) -> usize {
    let mut at = 0;
    while let Some((header, rest)) = block[at..].split_at_checked(HEADER) {
        let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
        let Some(body) = rest.get(..length) else { return at };
        let crc = crc32c::crc32c_append(crc32c::crc32c(&header[6..]), body);
        let masked = crc.rotate_right(15).wrapping_add(0xa282_ead8);
        if masked.to_le_bytes() != header[..4] || RECYCLED.contains(&header[6]) {
            return at;
        }
        at += HEADER + length;
    }
    // A torn header at the end of the log is no filler.
    if block.len() == BLOCK { BLOCK } else { at }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, body: &[u8]) -> Vec<u8> {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&[kind]), body).rotate_right(15).wrapping_add(0xa282_ead8);
        [&crc.to_le_bytes()[..], &(body.len() as u16).to_le_bytes(), &[kind], body].concat()
    }

    fn cut(log: &[u8]) -> (u64, Vec<u8>) {
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::write(dir.path().join("000004.log"), b"an older log is left alone").expect("written");
        std::fs::write(dir.path().join("000012.log"), log).expect("written");
        let cut = cut_garbage(dir.path()).expect("cut");
        (cut, std::fs::read(dir.path().join("000012.log")).expect("read"))
    }

    #[test]
    fn a_sound_log_stays_as_it_is_across_blocks() {
        let mut log = record(1, b"one");
        log.extend(record(2, &vec![7; BLOCK - log.len() - HEADER - 3]));
        log.extend([0; 3]);
        assert_eq!(log.len(), BLOCK);
        log.extend(record(4, b"two"));
        assert_eq!(cut(&log), (0, log.clone()));
        assert_eq!(cut(b""), (0, Vec::new()));
    }

    #[test]
    fn everything_from_the_first_damage_on_goes() {
        let sound = [record(1, b"one"), record(1, b"two")].concat();
        let third = record(1, b"three");
        for garbage in [&third[..third.len() - 1], &third[..3], &[0; 700], &record(5, b"recycled"), &[0xff; 40]] {
            let log = [&sound[..], garbage, &third].concat();
            assert_eq!(cut(&log), ((garbage.len() + third.len()) as u64, sound.clone()));
        }
        for end in 0..third.len() {
            assert_eq!(cut(&[&sound[..], &third[..end]].concat()), (end as u64, sound.clone()));
        }
    }

    #[test]
    fn no_directory_and_no_log_are_nothing_to_cut() {
        let dir = tempfile::tempdir().expect("temp dir");
        assert_eq!(cut_garbage(dir.path()).expect("empty"), 0);
        assert_eq!(cut_garbage(&dir.path().join("none")).expect("missing"), 0);
    }
}
