//! Two mounts that use one file at the same time: each sees at once what the other has done, through files that stay open,
//! and nothing is lost. Names and modes are not among it: see `coherence.rs`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use rustix::fs::FallocateFlags;
use sateen_tests::map::Map;
use sateen_tests::rng::{noise, seeded};
use sateen_tests::{Pair, run_ok, size, wait};

/// A name is seen on the other mount within `entry_timeout`, with room for a slow machine.
const TIMEOUT: Duration = Duration::from_secs(5);

fn rw(path: &Path, create: bool) -> File {
    File::options().read(true).write(true).create(create).truncate(false).open(path).expect("open")
}

/// A file that both have open for reading and writing.
fn open_both(pair: &Pair, name: &str) -> [File; 2] {
    let a = rw(&pair.a.join(name), true);
    pair.appears(name);
    [a, rw(&pair.b.join(name), false)]
}

fn appender(path: &Path) -> File {
    File::options().append(true).create(true).open(path).expect("open")
}

/// What a file should hold, and the operations on it.
struct Model {
    bytes: Vec<u8>,
    rng: StdRng,
    log: Vec<String>,
}

/// Largest offset the operations reach: several chunks, and several stripes of 64 KiB.
const LEN_MAX: usize = 400_000;

impl Model {
    fn range(&mut self) -> (usize, usize) {
        let at = self.rng.random_range(0..LEN_MAX);
        let len = if self.rng.random_bool(0.5) { 60_000 } else { 5_000 };
        (at, self.rng.random_range(1..=len).min(LEN_MAX - at))
    }

    fn write(&mut self, at: usize, data: &[u8]) {
        self.bytes.resize(self.bytes.len().max(at + data.len()), 0);
        self.bytes[at..at + data.len()].copy_from_slice(data);
    }

    /// One operation through the file of mount `side`.
    fn step(&mut self, side: usize, file: &File, append: &File, path: &Path) {
        let (at, len) = self.range();
        let kind = self.rng.random_range(0..100);
        self.log.push(format!("{side}: {kind} at {at}, {len} bytes; size {}", self.bytes.len()));
        match kind {
            0..30 => {
                let data = noise(&mut self.rng, len);
                file.write_all_at(&data, at as u64).expect("write");
                self.write(at, &data);
            }
            30..60 => self.read(file, at, len),
            60..68 => {
                let data = noise(&mut self.rng, len.min(3_000));
                if self.bytes.len() + data.len() <= LEN_MAX {
                    { append }.write_all(&data).expect("append");
                    self.write(self.bytes.len(), &data);
                }
            }
            68..75 => {
                file.set_len(at as u64).expect("ftruncate");
                self.bytes.resize(at, 0);
            }
            75..78 => {
                let cut = File::options().write(true).open(path).expect("open");
                cut.set_len(at as u64).expect("ftruncate");
                self.bytes.resize(at, 0);
            }
            78..84 => {
                let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(file, mode, at as u64, len as u64).expect("punch");
                let end = self.bytes.len().min(at + len);
                if at < end {
                    self.bytes[at..end].fill(0);
                }
            }
            84..90 if self.bytes.len() > 1 => {
                // Mapped anew, having asked for the size, as programs do: what is in memory is not refreshed at each access.
                assert_eq!(file.metadata().expect("fstat").size(), self.bytes.len() as u64, "size before mapping");
                let at = at % self.bytes.len();
                let len = len.min(self.bytes.len() - at);
                let data = noise(&mut self.rng, len);
                let mut map = Map::shared(file, self.bytes.len());
                assert!(map.bytes()[at..at + len] == self.bytes[at..at + len], "mapped bytes differ");
                map.bytes()[at..at + len].copy_from_slice(&data);
                map.sync();
                self.write(at, &data);
            }
            90..95 => file.sync_all().expect("fsync"),
            _ => assert_eq!(fs::metadata(path).expect("stat").size(), self.bytes.len() as u64, "size by name"),
        }
        assert_eq!(file.metadata().expect("fstat").size(), self.bytes.len() as u64, "size");
    }

    fn read(&self, file: &File, at: usize, len: usize) {
        let mut seen = vec![0; len];
        let mut got = 0;
        while got < len {
            match file.read_at(&mut seen[got..], (at + got) as u64).expect("read") {
                0 => break,
                n => got += n,
            }
        }
        let end = self.bytes.len().min(at + len);
        let wanted = if at < end { &self.bytes[at..end] } else { &[] };
        assert_eq!(got, wanted.len(), "bytes read at {at}");
        if let Some(wrong) = (0..got).find(|i| seen[*i] != wanted[*i]) {
            let count = (0..got).filter(|i| seen[*i] != wanted[*i]).count();
            panic!("{count} of {got} bytes read at {at} differ, the first at {}", at + wrong);
        }
    }
}

/// Operations alternate at random between two mounts of one file that both have open.
#[test]
fn two_mounts_see_one_file() {
    let pair = Pair::new("two-mount-fsx");
    let steps = size::amount("two_mounts_see_one_file", 3_000, 200_000);
    let rng = seeded("two mounts");
    let mut model = Model { bytes: Vec::new(), rng, log: Vec::new() };
    let files = open_both(&pair, "f");
    let paths = [pair.a.join("f"), pair.b.join("f")];
    let appenders = [appender(&paths[0]), appender(&paths[1])];
    told(&mut model, |model| {
        for _ in 0..steps {
            let side = usize::from(model.rng.random_bool(0.5));
            model.step(side, &files[side], &appenders[side], &paths[side]);
        }
        model.read(&files[0], 0, LEN_MAX);
        model.read(&files[1], 0, LEN_MAX);
    });
}

/// Runs operations, and tells the last of them if one fails.
fn told(model: &mut Model, run: impl FnOnce(&mut Model)) {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(model)));
    if let Err(failure) = outcome {
        let last = model.log.len().saturating_sub(40);
        eprintln!("step {}; the last operations:\n{}", model.log.len(), model.log[last..].join("\n"));
        std::panic::resume_unwind(failure);
    }
}

/// As above, but files are opened and closed in between, so that capabilities come and go.
#[test]
fn two_mounts_see_one_file_that_they_open_and_close() {
    let pair = Pair::new("two-mount-open");
    let rounds = size::amount("two_mounts_see_one_file_that_they_open_and_close", 300, 10_000);
    let mut model = Model { bytes: Vec::new(), rng: seeded("opened and closed"), log: Vec::new() };
    drop(open_both(&pair, "f"));
    let paths = [pair.a.join("f"), pair.b.join("f")];
    let mut open: [Option<(File, File)>; 2] = [None, None];
    told(&mut model, |model| {
        for round in 0..rounds {
            let side = usize::from(model.rng.random_bool(0.5));
            if model.rng.random_bool(0.3) {
                model.log.push(format!("{side}: closes"));
                open[side] = None;
                continue;
            }
            let (file, append) = open[side].get_or_insert_with(|| (rw(&paths[side], false), appender(&paths[side])));
            for _ in 0..model.rng.random_range(1..6) {
                model.step(side, file, append, &paths[side]);
            }
            if round % 50 == 0 {
                model.read(file, 0, LEN_MAX);
            }
        }
    });
}

#[test]
fn appends_from_two_mounts_lose_nothing_and_are_whole() {
    const WRITERS: usize = 2;
    const RECORDS: usize = 300;
    let pair = Pair::new("appends");
    drop(open_both(&pair, "log"));
    std::thread::scope(|scope| {
        for (mount, point) in [&pair.a, &pair.b].into_iter().enumerate() {
            for writer in 0..WRITERS {
                scope.spawn(move || {
                    let mut log = appender(&point.join("log"));
                    for n in 0..RECORDS {
                        let pad = "x".repeat((n * 37 + writer) % 900);
                        log.write_all(format!("{mount}{writer} {n} {pad}.\n").as_bytes()).expect("append");
                    }
                });
            }
        }
    });
    for point in [&pair.a, &pair.b] {
        let text = fs::read_to_string(point.join("log")).expect("read");
        let mut next = [[0; WRITERS]; 2];
        for line in text.lines() {
            let mut words = line.split(' ');
            let who = words.next().expect("who").as_bytes();
            let (mount, writer) = (usize::from(who[0] - b'0'), usize::from(who[1] - b'0'));
            let n: usize = words.next().expect("a number").parse().expect("a number");
            assert_eq!(n, next[mount][writer], "records of {mount}{writer} in their order: {line}");
            let pad = words.next().expect("padding");
            assert_eq!(pad, format!("{}.", "x".repeat((n * 37 + writer) % 900)), "a whole record");
            next[mount][writer] += 1;
        }
        assert_eq!(next, [[RECORDS; WRITERS]; 2]);
    }
}

#[test]
fn a_reader_follows_a_file_that_grows_on_another_mount() {
    let pair = Pair::new("tail");
    let [mut writer, mut reader] = open_both(&pair, "log");
    for n in 0..200u32 {
        let line = format!("line {n}\n");
        writer.write_all(line.as_bytes()).expect("write");
        let mut seen = String::new();
        reader.read_to_string(&mut seen).expect("read");
        assert_eq!(seen, line);
    }
}

#[test]
fn stat_tells_what_another_mount_has_written_and_keeps_to_itself() {
    let pair = Pair::new("stat-dirty");
    let path = pair.b.join("f");
    let mut writer = rw(&pair.a.join("f"), true);
    wait::until("the name on the other mount", TIMEOUT, || path.exists().then_some(()));
    let mut before = fs::metadata(&path).expect("stat").modified().expect("mtime");
    for n in 1..=100u64 {
        writer.write_all(&[7; 1_000]).expect("write");
        let seen = fs::metadata(&path).expect("stat");
        assert_eq!(seen.size(), n * 1_000);
        let mtime = seen.modified().expect("mtime");
        assert!(mtime > before, "the time of write {n}");
        before = mtime;
        let listed = run_ok(Command::new("ls").arg("-l").arg(pair.b.path()), TIMEOUT).stdout;
        assert!(listed.contains(&format!(" {} ", n * 1_000)), "{listed}");
    }
    // A stat alone takes nothing from the writer, and what it kept is stored at the end.
    drop(writer);
    assert_eq!(fs::read(&path).expect("read"), vec![7; 100_000]);
}

#[test]
fn a_truncate_by_name_meets_what_another_mount_keeps() {
    let mut rng = seeded("truncate by name");
    let pair = Pair::new("truncate-name");
    let writer = rw(&pair.a.join("f"), true);
    pair.appears("f");
    for _ in 0..30 {
        let data = noise(&mut rng, 300_000);
        writer.write_all_at(&data, 0).expect("write");
        let keep = rng.random_range(0..300_000);
        run_ok(Command::new("truncate").arg("-s").arg(keep.to_string()).arg(pair.b.join("f")), TIMEOUT);
        let mut seen = vec![0; 300_000];
        assert_eq!(writer.metadata().expect("fstat").size(), keep as u64);
        let n = writer.read_at(&mut seen, 0).expect("read");
        assert!(n == keep && seen[..n] == data[..n]);
        assert_eq!(fs::read(pair.b.join("f")).expect("read").len(), keep);
    }
}

#[test]
fn what_is_mapped_on_one_mount_is_stored_when_another_opens_the_file() {
    let pair = Pair::new("mmap-recall");
    let file = rw(&pair.a.join("f"), true);
    file.set_len(100_000).expect("ftruncate");
    pair.appears("f");
    let mut map = Map::shared(&file, 100_000);
    map.bytes().fill(9);
    // Neither msync nor close: the open alone recalls it.
    let other = rw(&pair.b.join("f"), false);
    let mut seen = vec![0; 100_000];
    other.read_exact_at(&mut seen, 0).expect("read");
    assert!(seen.iter().all(|b| *b == 9));
    other.write_all_at(&[5; 10], 50_000).expect("write");
    drop(map);
    let mut again = Map::shared(&file, 100_000);
    assert_eq!(again.bytes()[49_999..50_011], [9, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 9]);
}
