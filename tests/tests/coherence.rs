//! Two mounts of one file system: what one closed, the other opens.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use rand::Rng;
use sateen_tests::rng::{noise, seeded};
use sateen_tests::{Pair, wait};

/// Attributes and names may be this old on another mount (`attr_timeout`, `entry_timeout`), with room for a slow machine.
const TIMEOUT: Duration = Duration::from_secs(5);

fn write_and_close(path: &Path, bytes: &[u8]) {
    let mut file = File::options().write(true).create(true).truncate(true).open(path).expect("open");
    file.write_all(bytes).expect("write");
}

fn open_and_read(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open(path).expect("open").read_to_end(&mut bytes).expect("read");
    bytes
}

#[test]
fn close_on_one_mount_then_open_on_the_other_sees_everything() {
    let mut rng = seeded("close-to-open");
    let pair = Pair::new("coherence");
    // The name must be known on both sides before the rounds: names have a time to live of their own.
    write_and_close(&pair.a.join("f"), b"");
    pair.appears("f");
    for round in 0..150 {
        let (writer, reader) = if round % 2 == 0 { (&pair.a, &pair.b) } else { (&pair.b, &pair.a) };
        let len = match round % 5 {
            0 => rng.random_range(0..10),
            1 => 4096,
            2 => rng.random_range(100_000..150_000),
            _ => rng.random_range(1..600_000),
        };
        let bytes = noise(&mut rng, len);
        write_and_close(&writer.join("f"), &bytes);
        let seen = open_and_read(&reader.join("f"));
        assert!(seen == bytes, "round {round}: {} bytes written, {} other bytes seen", bytes.len(), seen.len());
    }
}

#[test]
fn overwriting_in_place_is_seen_after_the_next_open() {
    let mut rng = seeded("overwrite");
    let pair = Pair::new("in-place");
    let mut model = noise(&mut rng, 700_000);
    write_and_close(&pair.a.join("f"), &model);
    assert!(open_and_read(&pair.b.join("f")) == model);
    for round in 0..60 {
        let (writer, reader) = if rng.random_bool(0.5) { (&pair.a, &pair.b) } else { (&pair.b, &pair.a) };
        let file = File::options().read(true).write(true).open(writer.join("f")).expect("open");
        let at = rng.random_range(0..model.len());
        let len = rng.random_range(1..50_000).min(model.len() - at);
        let data = noise(&mut rng, len);
        // Same size, and perhaps the same mtime within the clock's tick: the change counter decides.
        file.write_all_at(&data, at as u64).expect("write");
        drop(file);
        model[at..at + len].copy_from_slice(&data);
        assert!(open_and_read(&reader.join("f")) == model, "round {round}");
    }
}

#[test]
fn a_file_unlinked_on_one_mount_stays_readable_where_it_is_open() {
    let mut rng = seeded("unlink elsewhere");
    let pair = Pair::new("unlink-other");
    let bytes = noise(&mut rng, 2 << 20);
    write_and_close(&pair.a.join("f"), &bytes);
    let mut held = File::open(pair.b.join("f")).expect("open");
    fs::remove_file(pair.a.join("f")).expect("unlink");
    wait::until("the end of the name", TIMEOUT, || (!pair.b.join("f").exists()).then_some(()));
    let mut seen = Vec::new();
    held.read_to_end(&mut seen).expect("read");
    assert!(seen == bytes);
}

#[test]
fn rename_over_a_file_is_atomic_for_the_other_mount() {
    let pair = Pair::new("rename-over");
    write_and_close(&pair.a.join("f"), &[0; 5_000]);
    pair.appears("f");
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 1..=60u8 {
                write_and_close(&pair.a.join("new"), &vec![n; 5_000 + usize::from(n)]);
                fs::rename(pair.a.join("new"), pair.a.join("f")).expect("rename");
            }
        });
        let mut rounds = 0;
        while !writer.is_finished() {
            // Never a mixture, never a short file. A name that just went may be reported stale once, as on NFS.
            let Ok(bytes) = fs::read(pair.b.join("f")) else { continue };
            let n = bytes[0];
            assert_eq!(bytes.len(), 5_000 + usize::from(n), "version {n}");
            assert!(bytes.iter().all(|b| *b == n), "version {n} is mixed with another");
            rounds += 1;
        }
        assert!(rounds > 0);
    });
    let last = wait::try_until(TIMEOUT, || (open_and_read(&pair.b.join("f"))[0] == 60).then_some(()));
    assert!(last.is_some(), "the last version is not seen");
}

#[test]
fn names_and_attributes_reach_the_other_mount_within_their_timeout() {
    let pair = Pair::new("attributes-other");
    fs::create_dir(pair.a.join("d")).expect("mkdir");
    write_and_close(&pair.a.join("d/f"), b"one");
    wait::until("the new file", TIMEOUT, || pair.b.join("d/f").exists().then_some(()));
    assert_eq!(fs::metadata(pair.b.join("d/f")).expect("stat").size(), 3);
    write_and_close(&pair.a.join("d/f"), b"three");
    wait::until("the new size", TIMEOUT, || {
        (fs::metadata(pair.b.join("d/f")).expect("stat").size() == 5).then_some(())
    });
    fs::rename(pair.a.join("d/f"), pair.a.join("d/g")).expect("rename");
    wait::until("the new name", TIMEOUT, || {
        (pair.b.join("d/g").exists() && !pair.b.join("d/f").exists()).then_some(())
    });
    fs::remove_dir_all(pair.a.join("d")).expect("rm -r");
    wait::until("the end of the directory", TIMEOUT, || (!pair.b.join("d").exists()).then_some(()));
}

#[test]
fn fsync_makes_bytes_visible_while_the_file_stays_open() {
    let pair = Pair::new("fsync-visible");
    let mut log = File::create(pair.a.join("log")).expect("create");
    for n in 1..=20u64 {
        log.write_all(&[b'x'; 1_000]).expect("write");
        log.sync_all().expect("fsync");
        pair.appears("log");
        assert_eq!(open_and_read(&pair.b.join("log")).len() as u64, n * 1_000);
    }
}
