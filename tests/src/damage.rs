//! Looking at, and damaging, what an OST keeps on its disk.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Disk space below `dir`, in bytes, as `du` counts it.
pub fn disk_bytes(dir: &Path) -> u64 {
    files(dir).iter().filter_map(|f| std::fs::metadata(f).ok()).map(|m| m.blocks() * 512).sum()
}

/// Disk space of the segments below an OST directory, in bytes.
pub fn segment_bytes(ost: &Path) -> u64 {
    segments(ost).iter().filter_map(|f| std::fs::metadata(f).ok()).map(|m| m.blocks() * 512).sum()
}

/// Every segment file of an OST.
pub fn segments(ost: &Path) -> Vec<PathBuf> {
    files(ost).into_iter().filter(|f| f.extension().is_some_and(|e| e == "seg")).collect()
}

/// Every regular file below `dir`, sorted.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found.sort();
    found
}

/// Flips one bit of the byte at `offset`.
#[track_caller]
pub fn flip(path: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(path).expect("the file can be opened");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("the byte can be read");
    byte[0] ^= 0x10;
    file.write_all_at(&byte, offset).expect("the byte can be written");
}

/// Every place where `needle` stands in `path`.
pub fn find_bytes(path: &Path, needle: &[u8]) -> Vec<u64> {
    let bytes = std::fs::read(path).unwrap_or_default();
    bytes.windows(needle.len()).enumerate().filter(|(_, w)| *w == needle).map(|(i, _)| i as u64).collect()
}
