//! Access times: `relatime` as on other file systems, and the options that change it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use sateen_tests::{Cluster, ClusterSpec, wait};

/// Access times are reported every 5 s and attributes may be 1 s old on another mount; with room for a slow machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Seconds and nanoseconds.
type Time = (i64, i64);

fn atime(path: &Path) -> Time {
    let meta = fs::metadata(path).expect("stat");
    (meta.atime(), meta.atime_nsec())
}

fn mtime(path: &Path) -> Time {
    let meta = fs::metadata(path).expect("stat");
    (meta.mtime(), meta.mtime_nsec())
}

fn read(path: &Path) {
    let mut bytes = Vec::new();
    File::open(path).expect("open").read_to_end(&mut bytes).expect("read");
    assert!(!bytes.is_empty());
}

/// Reads past the page cache, so that every call reaches the mount process.
fn read_directly(path: &Path, more_flags: i32) {
    let file = File::options().read(true).custom_flags(libc::O_DIRECT | more_flags).open(path).expect("open");
    let mut page = vec![0; 8192];
    let aligned = page.as_ptr().align_offset(4096);
    (&file).read_exact(&mut page[aligned..aligned + 1]).expect("read");
}

#[test]
fn the_first_read_after_a_change_counts_and_others_do_not() {
    let mut cluster = Cluster::start(ClusterSpec::new("relatime"));
    let mut mount = cluster.mount();
    let other = cluster.mount();
    let path = mount.join("f");
    fs::write(&path, b"data").expect("write");
    let made = atime(&path);
    assert!(made <= mtime(&path));
    read(&path);
    let first = atime(&path);
    assert!(first > mtime(&path), "seen at once on this mount: {first:?}");
    read_directly(&path, 0);
    assert_eq!(atime(&path), first, "read since the last change");
    wait::until("the time on the other mount", TIMEOUT, || (atime(&other.join("f")) == first).then_some(()));
    File::options().append(true).open(&path).expect("open").write_all(b"more").expect("write");
    read_directly(&path, libc::O_NOATIME);
    assert_eq!(atime(&path), first, "O_NOATIME");
    read_directly(&path, 0);
    let second = atime(&path);
    assert!(second > first);
    // A day later, as far as the file knows.
    let file = File::options().write(true).open(&path).expect("open");
    let old = SystemTime::now() - Duration::from_secs(3 * 86_400);
    file.set_times(fs::FileTimes::new().set_accessed(old).set_modified(old)).expect("utimensat");
    drop(file);
    assert!(atime(&path).0 < second.0);
    read_directly(&path, 0);
    let third = atime(&path);
    assert!(third > second);
    mount.remount();
    assert_eq!(atime(&path), third, "told when the mount ended");
    cluster.assert_runs();
}

#[test]
fn a_time_that_is_set_is_not_undone_by_an_earlier_read() {
    let mut cluster = Cluster::start(ClusterSpec::new("atime-set"));
    let mut mount = cluster.mount();
    let path = mount.join("f");
    fs::write(&path, b"data").expect("write");
    let file = File::options().read(true).write(true).open(&path).expect("open");
    read(&path);
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    file.set_times(fs::FileTimes::new().set_accessed(long_ago)).expect("utimensat");
    assert_eq!(atime(&path), (1_000_000, 0));
    drop(file);
    mount.remount();
    assert_eq!(atime(&path), (1_000_000, 0));
    cluster.assert_runs();
}

#[test]
fn noatime_and_strictatime_are_honoured() {
    let mut cluster = Cluster::start(ClusterSpec::new("atime-options"));
    let mut never = cluster.mount_with(&["noatime"]);
    fs::write(never.join("f"), b"data").expect("write");
    let made = atime(&never.join("f"));
    read_directly(&never.join("f"), 0);
    assert_eq!(atime(&never.join("f")), made);
    never.remount();
    assert_eq!(atime(&never.join("f")), made);
    let strict = cluster.mount_with(&["strictatime"]);
    let mut last = made;
    for _ in 0..3 {
        read_directly(&strict.join("f"), 0);
        let now = atime(&strict.join("f"));
        assert!(now > last);
        last = now;
    }
    cluster.assert_runs();
}
