//! Names in directories that a mount has to itself are written back: programs see a local file system, everybody sees one
//! order of events, and what was made durable stays.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use rand::Rng;
use rand::rngs::StdRng;
use sateen_tests::pair::LONG_LEASE;
use sateen_tests::rng::{noise, seeded};
use sateen_tests::{Cluster, ClusterSpec, Pair, size, wait};

/// The kernel keeps no names: what the client says is what is compared.
const NO_KERNEL_CACHE: [&str; 3] = ["entry_timeout=0", "attr_timeout=0", "hard"];
/// Times that the test sets lie before this, in seconds; others are the clock's.
const SET_BEFORE: i64 = 1_000_000_000;

#[test]
fn what_one_mount_makes_in_its_own_directories_the_other_sees_at_once() {
    let pair = Pair::with("names-own", LONG_LEASE, &NO_KERNEL_CACHE);
    let (a, b) = (pair.a.path(), pair.b.path());
    for round in 0..20 {
        let dir = PathBuf::from(format!("d{round}"));
        fs::create_dir(a.join(&dir)).expect("mkdir");
        fs::create_dir(a.join(&dir).join("sub")).expect("mkdir");
        fs::write(a.join(&dir).join("sub/f"), format!("round {round}")).expect("write");
        assert!(pair.figure("directories_held") > 0, "nothing was held: this tests nothing");
        match round % 5 {
            0 => assert_eq!(fs::read_to_string(b.join(&dir).join("sub/f")).expect("read"), format!("round {round}")),
            1 => assert_eq!(names(&b.join(&dir)), ["sub"]),
            2 => assert_eq!(fs::symlink_metadata(b.join(&dir)).expect("stat").nlink(), 3),
            3 => {
                fs::rename(b.join(&dir), b.join(format!("moved{round}"))).expect("rename");
                fs::write(a.join(format!("moved{round}/sub/g")), "more").expect("write");
                assert_eq!(names(&b.join(format!("moved{round}/sub"))), ["f", "g"]);
            }
            _ => {
                fs::write(b.join(&dir).join("sub/g"), "other").expect("write");
                fs::write(a.join(&dir).join("sub/h"), "own again").expect("write");
                assert_eq!(names(&a.join(&dir).join("sub")), ["f", "g", "h"]);
                let full = fs::remove_dir(b.join(&dir)).expect_err("not empty");
                assert_eq!(full.raw_os_error(), Some(libc::ENOTEMPTY));
            }
        }
    }
}

#[test]
fn what_stat_says_of_a_closed_file_is_not_different_when_the_mds_has_heard_of_it() {
    let pair = Pair::with("names-times", LONG_LEASE, &NO_KERNEL_CACHE);
    let (a, b) = (pair.a.path(), pair.b.path());
    let stat = |path: PathBuf| {
        let m = fs::metadata(path).expect("stat");
        (m.ino(), m.size(), (m.mtime(), m.mtime_nsec()), (m.ctime(), m.ctime_nsec()))
    };
    for n in 0..40 {
        // Another one each time: one that others have looked at is not held any more.
        let dir = format!("d{n}");
        fs::create_dir(a.join(&dir)).expect("mkdir");
        let name = format!("{dir}/f");
        fs::write(a.join(&name), vec![7; 1000 * n]).expect("write");
        let told = stat(a.join(&name));
        if n % 2 == 0 {
            File::open(a.join(&name)).and_then(|file| file.sync_all()).expect("fsync");
            assert_eq!(stat(a.join(&name)), told, "{name} here, stored");
        }
        assert_eq!(stat(b.join(&name)), told, "{name} elsewhere");
        assert_eq!(stat(a.join(&name)), told, "{name} here");
    }
}

fn names(dir: &Path) -> Vec<String> {
    let name = |e: io::Result<fs::DirEntry>| e.expect("entry").file_name().into_string().expect("text");
    let mut names: Vec<String> = fs::read_dir(dir).expect("list").map(name).collect();
    names.sort();
    names
}

/// What is at a path, as far as both file systems must agree.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    kind: &'static str,
    mode: u32,
    links: u64,
    size: Option<u64>,
    set_time: Option<i64>,
    content: Option<Vec<u8>>,
}

fn tree(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(dir) = todo.pop() {
        for name in names(&root.join(&dir)) {
            let path = dir.join(name);
            let at = root.join(&path);
            let meta = fs::symlink_metadata(&at).unwrap_or_else(|e| panic!("{}: {e}", at.display()));
            let kind = meta.file_type();
            let content = match () {
                () if kind.is_file() => Some(fs::read(&at).expect("read")),
                () if kind.is_symlink() => {
                    Some(fs::read_link(&at).expect("readlink").into_os_string().into_encoded_bytes())
                }
                () => None,
            };
            let kind = match () {
                () if kind.is_dir() => "directory",
                () if kind.is_symlink() => "symlink",
                () if kind.is_fifo() => "fifo",
                () => "file",
            };
            seen.insert(
                path.clone(),
                Seen {
                    kind,
                    mode: meta.mode() & 0o7777,
                    links: meta.nlink(),
                    size: (kind != "directory").then_some(meta.size()),
                    set_time: Some(meta.mtime()).filter(|t| *t < SET_BEFORE),
                    content,
                },
            );
            if kind == "directory" {
                todo.push(path);
            }
        }
    }
    seen
}

/// A path of one to three names, of which there are few.
fn any_path(rng: &mut StdRng) -> PathBuf {
    let depth = rng.random_range(1..=3);
    (0..depth).map(|_| format!("n{}", rng.random_range(0..4))).collect()
}

/// One call of a program, with what it needs chosen already.
#[derive(Debug)]
enum Op {
    Mkdir(PathBuf),
    MakeNew(PathBuf),
    Write(PathBuf, Vec<u8>),
    Append(PathBuf, Vec<u8>),
    Truncate(PathBuf, u64),
    Unlink(PathBuf),
    Rmdir(PathBuf),
    Rename(PathBuf, PathBuf),
    Symlink(PathBuf),
    Link(PathBuf, PathBuf),
    Chmod(PathBuf, u32),
    SetTime(PathBuf, u64),
    Sync(PathBuf),
    Stat(PathBuf),
    List(PathBuf),
}

impl Op {
    fn any(rng: &mut StdRng) -> Op {
        let (path, other) = (any_path(rng), any_path(rng));
        let len = rng.random_range(0..3000);
        match rng.random_range(0..30) {
            0..7 => Op::Mkdir(path),
            7..9 => Op::MakeNew(path),
            9..13 => Op::Write(path, noise(rng, len)),
            13 => Op::Append(path, noise(rng, len)),
            14 => Op::Truncate(path, len as u64),
            15 | 16 => Op::Unlink(path),
            17 => Op::Rmdir(path),
            18..22 => Op::Rename(path, other),
            22 => Op::Symlink(path),
            23 => Op::Link(path, other),
            24 => Op::Chmod(path, [0o644, 0o700, 0o4755, 0o2770][rng.random_range(0..4)]),
            25 => Op::SetTime(path, rng.random_range(1..SET_BEFORE as u64)),
            26 => Op::Sync(path),
            27 => Op::List(path),
            _ => Op::Stat(path),
        }
    }

    /// Does it below `root`; what a program can tell of it.
    fn run(&self, root: &Path) -> io::Result<String> {
        let at = |path: &PathBuf| root.join(path);
        match self {
            Op::Mkdir(path) => fs::create_dir(at(path))?,
            Op::MakeNew(path) => drop(File::create_new(at(path))?),
            Op::Write(path, bytes) => fs::write(at(path), bytes)?,
            Op::Append(path, bytes) => File::options().append(true).open(at(path))?.write_all(bytes)?,
            Op::Truncate(path, len) => File::options().write(true).open(at(path))?.set_len(*len)?,
            Op::Unlink(path) => fs::remove_file(at(path))?,
            Op::Rmdir(path) => fs::remove_dir(at(path))?,
            Op::Rename(from, to) => fs::rename(at(from), at(to))?,
            Op::Symlink(path) => std::os::unix::fs::symlink("target of a link", at(path))?,
            Op::Link(from, to) => fs::hard_link(at(from), at(to))?,
            Op::Chmod(path, mode) => fs::set_permissions(at(path), fs::Permissions::from_mode(*mode))?,
            Op::SetTime(path, seconds) => {
                let time = SystemTime::UNIX_EPOCH + Duration::from_secs(*seconds);
                File::open(at(path))?.set_times(FileTimes::new().set_modified(time))?;
            }
            Op::Sync(path) => File::open(at(path))?.sync_all()?,
            Op::List(path) => return fs::read_dir(at(path)).map(|_| format!("{:?}", names(&at(path)))),
            Op::Stat(path) => {
                let meta = fs::symlink_metadata(at(path))?;
                let size = if meta.is_dir() { 0 } else { meta.size() };
                return Ok(format!("{:?} {:o} {} {size}", meta.file_type(), meta.mode(), meta.nlink()));
            }
        }
        Ok(String::new())
    }
}

/// The same calls on two mounts in turn, one of them most of the time, and on a local file system; the MDS is killed in
/// between. Whatever a program sees must be the same.
#[test]
fn two_mounts_together_behave_as_one_local_file_system_while_the_mds_is_killed() {
    let mut rng = seeded("names-model");
    let calls = size::amount("names-model", 3_000, 100_000);
    let mut pair = Pair::with("names-model", LONG_LEASE, &NO_KERNEL_CACHE);
    let model = pair.cluster.dir().join("model");
    fs::create_dir(&model).expect("mkdir");
    let mut held = 0;
    for call in 0..calls {
        let op = Op::any(&mut rng);
        let seldom = rng.random_range(0..12) == 0;
        let mount = if seldom { pair.b.path() } else { pair.a.path() };
        let told = |result: io::Result<String>| result.map_err(|e| e.raw_os_error());
        let (here, there) = (told(op.run(mount)), told(op.run(&model)));
        assert_eq!(here, there, "call {call} by {}: {op:?}", if seldom { "b" } else { "a" });
        if call % 100 == 0 {
            held += pair.figure("directories_held");
        }
        if rng.random_range(0..250) == 0 {
            let mount = if rng.random() { pair.a.path() } else { pair.b.path() };
            assert_eq!(tree(mount), tree(&model), "after call {call}");
        }
        if rng.random_range(0..400) == 0 {
            pair.cluster.kill_mds();
            pair.cluster.start_mds();
        }
        if rng.random_range(0..150) == 0 {
            // Begin anew, with directories that are held.
            let (_, _) = (remove_all(pair.a.path()), remove_all(&model));
        }
    }
    assert!(held > 0, "nothing was ever held: this tested nothing");
    for mount in [&mut pair.b, &mut pair.a] {
        assert_eq!(tree(mount.path()), tree(&model));
        mount.remount();
    }
    assert_eq!(tree(pair.a.path()), tree(&model));
}

fn remove_all(root: &Path) {
    for name in names(root) {
        let path = root.join(name);
        match fs::symlink_metadata(&path).expect("stat").is_dir() {
            true => fs::remove_dir_all(path).expect("rm -r"),
            false => fs::remove_file(path).expect("rm"),
        }
    }
}

/// Makes numbered files one after the other in a new directory, and tells how far `fsync` of the directory has come.
const MAKER: &str = r#"
mkdir "$1"; exec 4< "$1"
for ((n = 0; 1; n++)); do
    echo "file $n" > "$1/$n"
    if ((n % 50 == 49)); then sync "$1"; echo $((n + 1)); fi
done"#;

#[test]
fn a_mount_that_dies_leaves_a_beginning_of_what_it_made_and_all_that_was_synced() {
    let mds_extra = "[session]\nlease_ms = 2000\n".to_owned();
    let mut cluster = Cluster::start(ClusterSpec { mds_extra, ..ClusterSpec::new("names-death") });
    let reader = cluster.mount_with(&["hard"]);
    for round in 0..3 {
        let mut mount = cluster.mount_with(&["hard"]);
        let dir = format!("d{round}");
        let mut maker = Command::new("bash");
        maker.args(["-ec", MAKER, "maker"]).arg(mount.join(&dir)).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut maker = maker.spawn().expect("bash");
        let mut told = maker.stdout.take().expect("piped");
        let mut synced = String::new();
        // A few times, so that it is in the middle of something.
        while synced.lines().count() < 3 + round {
            let mut byte = [0];
            told.read_exact(&mut byte).expect("it goes on");
            synced.push(byte[0] as char);
        }
        mount.kill9();
        maker.wait().expect("our own child");
        told.read_to_string(&mut synced).expect("reads");
        let synced: usize = synced.lines().last().expect("a line").parse().expect("a number");
        let list = || {
            let listed = fs::read_dir(reader.join(&dir)).ok()?;
            listed.map(|e| e.ok()?.file_name().into_string().ok()?.parse().ok()).collect::<Option<Vec<usize>>>()
        };
        let mut made = wait::until("the end of the lease", wait::SERVER, list);
        made.sort_unstable();
        assert!(made.len() >= synced, "{} files are there, {synced} were synced", made.len());
        assert!(made.iter().copied().eq(0..made.len()), "not a beginning: {made:?}");
    }
    cluster.assert_runs();
}
