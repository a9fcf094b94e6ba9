//! A small bucket to try things with.

use std::fmt::Write;

use sateen_types::FsResult;

use crate::store::Store;

/// Name of the bucket.
pub const BUCKET: &str = "sample";
/// MiB of the large object: enough to see it being loaded.
const LARGE_MIB: usize = 32;
/// Small objects.
const DAYS: usize = 30;

const README: &str = "\
These files are objects of the bucket s3://sample/, linked to this directory.

Their names and sizes were imported; their bytes are fetched when they are read. See it happen:

  lfs hsm_state measurements/large.bin      released exists archived: nothing is here yet
  head -c 1M measurements/large.bin | md5sum
  lfs hsm_state measurements/large.bin      only what was read (and what a reader in a row reads next) was fetched
  md5sum measurements/large.bin             all of it
  lfs hsm_state measurements/large.bin      exists archived
  lfs hsm_release measurements/large.bin    gives the space back; it is fetched again when it is read
";

/// Makes the bucket and fills it, unless it is there.
pub fn fill(store: &Store) -> FsResult<()> {
    if !store.create_bucket(BUCKET)? {
        return Ok(());
    }
    let put = |key: &str, bytes: &[u8], metadata: &[(&str, &str)]| store.put(BUCKET, key, bytes, metadata).map(drop);
    put("README.txt", README.as_bytes(), &[("file-permissions", "0100644")])?;
    put("measurements/large.bin", &noise(LARGE_MIB << 20), &[("file-permissions", "0100444")])?;
    for day in 1..=DAYS {
        let mut text = String::from("hour,value\n");
        for hour in 0..24 {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{hour},{}", (day * 31 + hour * 17) % 101);
        }
        put(&format!("measurements/2026-11/{day:02}.csv"), text.as_bytes(), &[])?;
    }
    let script =
        b"#!/bin/sh\n# Mean of each day.\nfor f in \"$(dirname \"$0\")\"/../measurements/2026-11/*.csv; do\n    \
                   awk -F, -v f=\"$f\" 'NR > 1 { s += $2; n++ } END { print f, s / n }' \"$f\"\ndone\n";
    put("bin/means", script, &[("file-permissions", "0100755"), ("file-mtime", "1790000000000000000ns")])?;
    put("latest.csv", b"measurements/2026-11/30.csv", &[("file-permissions", "0120777")])?;
    put("results/", b"", &[("file-permissions", "0040755")])
}

/// Bytes that do not compress, the same each time.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_made_once() {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = Store::open(dir.path()).expect("opens");
        fill(&store).expect("filled");
        store.delete(BUCKET, "README.txt").expect("deleted");
        fill(&store).expect("left alone");
        let objects = store.list(BUCKET, "", "", None, 1000).expect("listed").objects;
        assert_eq!(objects.len(), DAYS + 4);
    }
}
