//! System calls on a mount, one promise of `docs/semantics.md` per test.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FallocateFlags, Mode, RenameFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use sateen_tests::map::Map;
use sateen_tests::rng::{noise, pattern, seeded};
use sateen_tests::{Cluster, ClusterSpec, Mount};

const CHUNK: usize = 128 << 10;

/// A mount with its cluster; the mount is dropped first.
struct Here {
    mount: Mount,
    cluster: Cluster,
}

impl Here {
    fn new(label: &'static str) -> Here {
        let cluster = Cluster::start(ClusterSpec::new(label));
        Here { mount: cluster.mount(), cluster }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.mount.join(name)
    }

    /// Reads `path` after a remount: nothing comes from a cache of the client or the kernel.
    fn read_cold(&mut self, name: &str) -> Vec<u8> {
        self.mount.remount();
        fs::read(self.at(name)).expect("read")
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.cluster.assert_runs();
        }
    }
}

fn rw(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).expect("open")
}

#[track_caller]
fn fails_with<T: std::fmt::Debug>(result: std::io::Result<T>, errno: Errno) {
    let error = result.expect_err("the call must fail");
    assert_eq!(error.raw_os_error(), Some(errno.raw_os_error()), "{error}");
}

#[test]
fn a_shared_mapping_is_written_and_read_back() {
    let mut here = Here::new("mmap");
    let len = 3 * CHUNK + 100;
    let file = rw(&here.at("f"));
    file.set_len(len as u64).expect("ftruncate");
    {
        let mut map = Map::shared(&file, len);
        map.bytes()[0] = 1;
        map.bytes()[CHUNK - 1..CHUNK + 1].copy_from_slice(&[2, 3]);
        map.bytes()[len - 1] = 4;
        map.sync();
        // A write through the descriptor shows in the mapping, and the reverse.
        file.write_all_at(b"via write", 5_000).expect("write");
        assert_eq!(&map.bytes()[5_000..5_009], b"via write");
        map.bytes()[5_000] = b'V';
        let mut back = [0; 9];
        file.read_exact_at(&mut back, 5_000).expect("read");
        assert_eq!(&back, b"Via write");
        map.sync();
    }
    drop(file);
    let bytes = here.read_cold("f");
    assert_eq!(bytes.len(), len);
    assert_eq!((bytes[0], bytes[CHUNK - 1], bytes[CHUNK], bytes[len - 1]), (1, 2, 3, 4));
    assert_eq!(&bytes[5_000..5_009], b"Via write");
    assert_eq!(bytes.iter().filter(|b| **b != 0).count(), 4 + 9);
}

#[test]
fn appends_of_several_descriptors_and_processes_never_overwrite() {
    let mut here = Here::new("append");
    let path = here.at("log");
    File::create(&path).expect("create");
    std::thread::scope(|scope| {
        for t in 0..4 {
            let path = &path;
            scope.spawn(move || {
                let mut file = File::options().append(true).open(path).expect("open");
                for i in 0..200 {
                    // One write(2) per line: that is what O_APPEND keeps together.
                    file.write_all(format!("{t} {i:04} {}\n", "x".repeat(50)).as_bytes()).expect("write");
                }
            });
        }
    });
    let text = String::from_utf8(here.read_cold("log")).expect("text");
    assert_eq!(text.lines().count(), 800);
    for t in 0..4 {
        let own: Vec<&str> = text.lines().filter(|l| l.starts_with(&format!("{t} "))).collect();
        assert_eq!(own.len(), 200, "lines of writer {t}");
        assert!(own.is_sorted(), "each writer's lines are in its order");
    }
}

#[test]
fn direct_io_and_buffered_io_see_the_same_bytes() {
    let mut here = Here::new("direct");
    let path = here.at("f");
    let direct =
        File::options().read(true).write(true).create(true).truncate(false).custom_flags(libc::O_DIRECT).open(&path);
    let direct = direct.expect("open with O_DIRECT");
    // Aligned as O_DIRECT wants it on a disk.
    let layout = std::alloc::Layout::from_size_align(1 << 20, 4096).expect("a valid layout");
    // SAFETY: the layout has a size, and the slice lives no longer than the allocation.
    let buffer = unsafe { std::slice::from_raw_parts_mut(std::alloc::alloc_zeroed(layout), layout.size()) };
    buffer.copy_from_slice(&pattern(9, 1 << 20));
    direct.write_all_at(buffer, 0).expect("direct write");
    let buffered = rw(&path);
    let mut back = vec![0; 1 << 20];
    buffered.read_exact_at(&mut back, 0).expect("read");
    assert!(back == buffer);
    buffered.write_all_at(b"buffered", 4096 + 5).expect("write");
    direct.read_exact_at(buffer, 0).expect("direct read");
    assert_eq!(&buffer[4096 + 5..4096 + 13], b"buffered");
    let expected = buffer.to_vec();
    // SAFETY: allocated above with this layout.
    unsafe { std::alloc::dealloc(buffer.as_mut_ptr(), layout) };
    drop((direct, buffered));
    assert!(here.read_cold("f") == expected);
}

#[test]
fn fallocate_reserves_keeps_the_size_and_punches_holes() {
    let mut rng = seeded("fallocate");
    let mut here = Here::new("fallocate");
    let path = here.at("f");
    let mut file = rw(&path);
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 1_000_000).expect("allocate");
    assert_eq!(file.metadata().expect("stat").len(), 1_000_000);
    rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 5_000_000).expect("allocate, size kept");
    assert_eq!(file.metadata().expect("stat").len(), 1_000_000);
    let mut expected = noise(&mut rng, 8 * CHUNK);
    file.write_all(&expected).expect("write");
    file.sync_all().expect("fsync");
    let full = file.metadata().expect("stat").blocks();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    for (offset, len) in [(CHUNK, 4 * CHUNK), (100, 200), (6 * CHUNK - 7, 1_000), (7 * CHUNK, 10 * CHUNK)] {
        rustix::fs::fallocate(&file, punch, offset as u64, len as u64).expect("punch");
        let end = (offset + len).min(expected.len());
        expected[offset..end].fill(0);
    }
    assert_eq!(file.metadata().expect("stat").len(), expected.len() as u64);
    let mut warm = Vec::new();
    file.rewind().expect("seek");
    file.read_to_end(&mut warm).expect("read");
    assert!(warm == expected);
    file.sync_all().expect("fsync");
    let holed = file.metadata().expect("stat").blocks();
    assert!(holed < full, "a punched file takes less: {holed} of {full} blocks");
    drop(file);
    assert!(here.read_cold("f") == expected);
    let file = rw(&here.at("f"));
    let result = rustix::fs::fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, CHUNK as u64);
    assert_eq!(result, Err(Errno::OPNOTSUPP));
}

#[test]
fn holes_and_data_are_found() {
    let here = Here::new("holes");
    let file = rw(&here.at("f"));
    file.write_all_at(&pattern(1, CHUNK), 4 * CHUNK as u64).expect("write");
    file.set_len(20 * CHUNK as u64).expect("ftruncate");
    file.sync_all().expect("fsync");
    let seek = |from: u64, whence| {
        // SAFETY: lseek on our own descriptor.
        let at = unsafe { libc::lseek(file.as_raw_fd(), from as i64, whence) };
        if at < 0 { Err(std::io::Error::last_os_error()) } else { Ok(at as usize) }
    };
    assert_eq!(seek(0, libc::SEEK_DATA).expect("data"), 4 * CHUNK);
    assert_eq!(seek(0, libc::SEEK_HOLE).expect("hole"), 0);
    assert_eq!(seek(4 * CHUNK as u64 + 5, libc::SEEK_DATA).expect("data"), 4 * CHUNK + 5);
    assert_eq!(seek(4 * CHUNK as u64, libc::SEEK_HOLE).expect("hole"), 5 * CHUNK);
    fails_with(seek(6 * CHUNK as u64, libc::SEEK_DATA), Errno::NXIO);
    fails_with(seek(30 * CHUNK as u64, libc::SEEK_HOLE), Errno::NXIO);
    // Written but not yet on an OST counts as well.
    file.write_all_at(b"x", 10 * CHUNK as u64).expect("write");
    let at = seek(6 * CHUNK as u64, libc::SEEK_DATA).expect("data");
    assert!((6 * CHUNK..=10 * CHUNK).contains(&at), "{at}");
}

#[test]
fn a_sparse_file_of_a_tebibyte_reads_zeros_and_takes_nothing() {
    let mut here = Here::new("sparse");
    let file = rw(&here.at("f"));
    let size = 1u64 << 40;
    file.set_len(size).expect("ftruncate");
    file.write_all_at(b"end", size - 3).expect("write");
    drop(file);
    here.mount.remount();
    let file = rw(&here.at("f"));
    let meta = file.metadata().expect("stat");
    assert_eq!(meta.len(), size);
    assert!(meta.blocks() * 512 <= 1 << 20, "{} blocks", meta.blocks());
    for (at, expected) in [(0, [0; 3]), (size / 2, [0; 3]), (size - 3, *b"end")] {
        let mut back = [1; 3];
        file.read_exact_at(&mut back, at).expect("read");
        assert_eq!(back, expected, "at {at}");
    }
    assert_eq!(file.read_at(&mut [0; 10], size).expect("read at the end"), 0);
}

#[test]
fn truncate_cuts_and_extends_with_zeros() {
    let mut rng = seeded("truncate");
    let mut here = Here::new("truncate");
    let data = noise(&mut rng, 3 * CHUNK);
    let file = rw(&here.at("f"));
    file.write_all_at(&data, 0).expect("write");
    file.set_len(CHUNK as u64 + 10).expect("cut");
    file.set_len(2 * CHUNK as u64).expect("extend");
    file.write_all_at(b"tail", 2 * CHUNK as u64 + 50).expect("write");
    drop(file);
    let mut expected = data[..CHUNK + 10].to_vec();
    expected.resize(2 * CHUNK + 50, 0);
    expected.extend_from_slice(b"tail");
    assert!(fs::read(here.at("f")).expect("read") == expected);
    assert!(here.read_cold("f") == expected);
    File::create(here.at("f")).expect("O_TRUNC");
    assert_eq!(here.read_cold("f"), b"");
}

#[test]
fn copy_file_range_copies_within_and_between_files() {
    let mut here = Here::new("copy-range");
    let data = pattern(5, 5 * CHUNK + 77);
    fs::write(here.at("from"), &data).expect("write");
    let (from, to) = (rw(&here.at("from")), rw(&here.at("to")));
    let (mut off_in, mut off_out) = (100, 5);
    let mut left = 4 * CHUNK;
    while left > 0 {
        let n = rustix::fs::copy_file_range(&from, Some(&mut off_in), &to, Some(&mut off_out), left).expect("copy");
        assert!(n > 0, "a short copy ends at the end of the source only");
        left -= n;
    }
    drop((from, to));
    let copied = here.read_cold("to");
    assert_eq!(copied[..5], [0; 5]);
    assert!(copied[5..] == data[100..100 + 4 * CHUNK]);
}

#[test]
fn an_open_file_outlives_its_name() {
    let here = Here::new("unlinked");
    let path = here.at("f");
    let mut file = rw(&path);
    file.write_all(&pattern(1, 300_000)).expect("write");
    fs::remove_file(&path).expect("unlink");
    assert!(!path.exists());
    file.write_all_at(b"more", 300_000).expect("write");
    file.sync_all().expect("fsync");
    assert_eq!(file.metadata().expect("stat").nlink(), 0);
    let mut back = Vec::new();
    file.rewind().expect("seek");
    file.read_to_end(&mut back).expect("read");
    assert_eq!(back.len(), 300_004);
    assert!(back[..300_000] == pattern(1, 300_000));
    // The name is free again, for another file.
    fs::write(&path, b"another").expect("write");
    file.rewind().expect("seek");
    let mut start = [0; 8];
    file.read_exact(&mut start).expect("read");
    assert_eq!(start, pattern(1, 8)[..]);
    assert_eq!(fs::read(&path).expect("read"), b"another");
}

#[test]
fn rename_replaces_refuses_and_exchanges() {
    let here = Here::new("rename");
    let (a, b) = (here.at("a"), here.at("b"));
    fs::write(&a, b"a").expect("write");
    fs::write(&b, b"b").expect("write");
    let held = File::open(&b).expect("open");
    let rename = |flags| rustix::fs::renameat_with(rustix::fs::CWD, &a, rustix::fs::CWD, &b, flags);
    assert_eq!(rename(RenameFlags::NOREPLACE), Err(Errno::EXIST));
    rename(RenameFlags::EXCHANGE).expect("exchange");
    assert_eq!((fs::read(&a).expect("a"), fs::read(&b).expect("b")), (b"b".to_vec(), b"a".to_vec()));
    rename(RenameFlags::empty()).expect("replace");
    assert!(!a.exists());
    assert_eq!(fs::read(&b).expect("b"), b"b");
    let mut text = String::new();
    (&held).read_to_string(&mut text).expect("an open file follows its inode");
    assert_eq!(text, "b");
    // Directories.
    fs::create_dir_all(here.at("d/e")).expect("mkdir");
    fails_with(fs::rename(here.at("d"), here.at("d/e/f")), Errno::INVAL);
    fails_with(fs::rename(here.at("d"), &b), Errno::NOTDIR);
    fails_with(fs::rename(&b, here.at("d")), Errno::ISDIR);
    fs::create_dir(here.at("x")).expect("mkdir");
    fails_with(fs::rename(here.at("x"), here.at("d")), Errno::NOTEMPTY);
    fs::rename(here.at("d/e"), here.at("x")).expect("onto an empty directory");
    assert_eq!(fs::metadata(here.at("d")).expect("stat").nlink(), 2);
}

#[test]
fn extended_attributes_are_set_listed_and_removed() {
    let mut here = Here::new("xattr");
    fs::write(here.at("f"), b"").expect("write");
    fs::create_dir(here.at("d")).expect("mkdir");
    for name in ["f", "d"] {
        let path = here.at(name);
        rustix::fs::setxattr(&path, "user.one", b"1", XattrFlags::empty()).expect("set");
        rustix::fs::setxattr(&path, "user.two", &[7; 60_000], XattrFlags::CREATE).expect("set a large one");
        rustix::fs::setxattr(&path, "trusted.three", b"", XattrFlags::empty()).expect("set an empty one");
        assert_eq!(rustix::fs::setxattr(&path, "user.one", b"x", XattrFlags::CREATE), Err(Errno::EXIST));
        assert_eq!(rustix::fs::setxattr(&path, "user.none", b"x", XattrFlags::REPLACE), Err(Errno::NODATA));
        assert_eq!(rustix::fs::removexattr(&path, "user.none"), Err(Errno::NODATA));
        assert_eq!(rustix::fs::setxattr(&path, "system.nfs4_acl", b"x", XattrFlags::empty()), Err(Errno::OPNOTSUPP));
        let mut small = [0u8; 1];
        assert_eq!(rustix::fs::getxattr(&path, "user.two", &mut small[..]), Err(Errno::RANGE));
    }
    here.mount.remount();
    let path = here.at("f");
    let mut value = vec![0u8; 70_000];
    let n = rustix::fs::getxattr(&path, "user.two", &mut value[..]).expect("get");
    assert_eq!(value[..n], [7; 60_000]);
    let mut list = vec![0u8; 4_096];
    let n = rustix::fs::listxattr(&path, &mut list[..]).expect("list");
    let names: Vec<&[u8]> = list[..n].split(|b| *b == 0).filter(|n| !n.is_empty()).collect();
    assert_eq!(names.len(), 3, "virtual attributes are hidden: {names:?}");
    rustix::fs::removexattr(&path, "user.one").expect("remove");
    assert_eq!(rustix::fs::getxattr(&path, "user.one", &mut value[..]), Err(Errno::NODATA));
}

#[test]
fn a_listing_is_complete_while_other_entries_come_and_go() {
    let here = Here::new("readdir");
    let dir = here.at("d");
    fs::create_dir(&dir).expect("mkdir");
    let kept: std::collections::BTreeSet<String> = (0..1_500).map(|i| format!("kept-{i:04}")).collect();
    kept.iter().for_each(|n| drop(File::create(dir.join(n)).expect("create")));
    let mut found = Vec::new();
    for (n, entry) in fs::read_dir(&dir).expect("opendir").enumerate() {
        found.push(entry.expect("readdir").file_name().to_string_lossy().into_owned());
        let name = dir.join(format!("comes-and-goes-{}", n / 2));
        if n.is_multiple_of(2) {
            drop(File::create(name).expect("create"))
        } else {
            fs::remove_file(name).expect("unlink")
        }
    }
    let mut kept_found: Vec<String> = found.into_iter().filter(|n| n.starts_with("kept-")).collect();
    kept_found.sort();
    assert_eq!(kept_found, kept.into_iter().collect::<Vec<_>>(), "each exactly once");
    // rm -rf reads and removes at the same time.
    fs::remove_dir_all(&dir).expect("rm -r");
    assert!(!dir.exists());
}

#[test]
fn modes_owners_times_and_links_are_kept() {
    let mut here = Here::new("attributes");
    let path = here.at("f");
    fs::write(&path, b"x").expect("write");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4751)).expect("chmod");
    std::os::unix::fs::chown(&path, Some(12), Some(34)).expect("chown");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4751)).expect("chmod");
    let times = Timestamps {
        last_access: Timespec { tv_sec: 1_000_000_000, tv_nsec: 123_456_789 },
        last_modification: Timespec { tv_sec: -5, tv_nsec: 987_654_321 },
    };
    rustix::fs::utimensat(rustix::fs::CWD, &path, &times, AtFlags::empty()).expect("utimensat");
    fs::hard_link(&path, here.at("other")).expect("link");
    symlink("f", here.at("s")).expect("symlink");
    symlink("nowhere/at all", here.at("dangling")).expect("symlink");
    let fifo = CString::new(here.at("fifo").as_os_str().as_bytes()).expect("no NUL");
    // SAFETY: a NUL-terminated path.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0, "{}", std::io::Error::last_os_error());
    rustix::fs::mknodat(
        rustix::fs::CWD,
        here.at("null"),
        rustix::fs::FileType::CharacterDevice,
        Mode::RUSR,
        rustix::fs::makedev(1, 3),
    )
    .expect("mknod");

    here.mount.remount();
    let path = here.at("f");
    let meta = fs::metadata(&path).expect("stat");
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid(), meta.nlink()), (0o4751, 12, 34, 2));
    assert_eq!((meta.atime(), meta.atime_nsec()), (1_000_000_000, 123_456_789));
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (-5, 987_654_321));
    assert_eq!(fs::metadata(here.at("other")).expect("stat").ino(), meta.ino());
    assert_eq!(fs::metadata(here.at("s")).expect("stat").ino(), meta.ino());
    assert_eq!(fs::read_link(here.at("dangling")).expect("readlink"), PathBuf::from("nowhere/at all"));
    assert!(fs::symlink_metadata(here.at("fifo")).expect("stat").file_type().is_fifo());
    let null = fs::metadata(here.at("null")).expect("stat");
    assert!(null.file_type().is_char_device());
    assert_eq!(null.rdev(), rustix::fs::makedev(1, 3));
    // A write moves mtime and ctime forward.
    let before = SystemTime::now() - Duration::from_secs(60);
    fs::write(&path, b"new").expect("write");
    assert!(fs::metadata(&path).expect("stat").modified().expect("mtime") > before);
}

#[test]
fn names_and_paths_beyond_their_bounds_are_refused() {
    let here = Here::new("bounds");
    let name = |len: usize| here.at(&"n".repeat(len));
    fs::write(name(255), b"x").expect("255 bytes are a name");
    fails_with(fs::write(name(256), b"x"), Errno::NAMETOOLONG);
    fails_with(fs::create_dir(name(256)), Errno::NAMETOOLONG);
    fails_with(fs::rename(name(255), name(256)), Errno::NAMETOOLONG);
    fails_with(symlink("t".repeat(4_096), here.at("s")), Errno::NAMETOOLONG);
    symlink("t".repeat(4_095), here.at("s")).expect("4095 bytes are a target");
    assert_eq!(fs::read_link(here.at("s")).expect("readlink").as_os_str().len(), 4_095);
    let odd = here.mount.path().join(OsStr::from_bytes(b"not \xff\xfe UTF-8 \n"));
    fs::write(&odd, b"odd").expect("any byte but NUL and / is allowed");
    assert_eq!(fs::read(&odd).expect("read"), b"odd");
    let file = here.at(&"n".repeat(255));
    let long = format!("user.{}", "x".repeat(251));
    assert_eq!(rustix::fs::setxattr(&file, &*long, b"x", XattrFlags::empty()), Err(Errno::RANGE));
    assert_eq!(rustix::fs::setxattr(&file, "user.x", &vec![0; 65_537], XattrFlags::empty()), Err(Errno::TOOBIG));
}

#[test]
fn statfs_tells_the_space_of_the_osts() {
    let spec = ClusterSpec { ost_capacity: Some(1 << 30), ..ClusterSpec::new("statfs") };
    let cluster = Cluster::start(spec);
    let mount = cluster.mount();
    let space = rustix::fs::statvfs(mount.path()).expect("statvfs");
    let total = space.f_blocks * space.f_frsize;
    assert!(((4 << 30) / 100 * 90..=4 << 30).contains(&total), "{total}");
    assert!(space.f_bavail <= space.f_bfree && space.f_bfree <= space.f_blocks);
    assert!(space.f_files > 0 && space.f_ffree > 0 && space.f_namemax == 255);
}

#[test]
fn locks_work_between_programs_of_one_mount() {
    let here = Here::new("locks");
    let (first, second) = (rw(&here.at("f")), rw(&here.at("f")));
    first.lock().expect("flock");
    assert!(second.try_lock().is_err());
    first.unlock().expect("unlock");
    second.try_lock().expect("free now");
}

#[test]
fn permissions_are_checked_for_other_users() {
    let here = Here::new("permissions");
    fs::set_permissions(here.mount.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::create_dir(here.at("private")).expect("mkdir");
    fs::set_permissions(here.at("private"), fs::Permissions::from_mode(0o700)).expect("chmod");
    fs::write(here.at("private/secret"), b"secret").expect("write");
    fs::write(here.at("readable"), b"public").expect("write");
    fs::create_dir(here.at("shared")).expect("mkdir");
    fs::set_permissions(here.at("shared"), fs::Permissions::from_mode(0o1777)).expect("chmod");
    fs::write(here.at("shared/roots"), b"root's").expect("write");
    let script = r#"
        cd "$1"
        test "$(cat readable)" = public
        ! cat private/secret 2>/dev/null
        ! echo x > readable 2>/dev/null || exit 1
        ! touch new 2>/dev/null
        echo mine > shared/mine
        test "$(stat -c %u shared/mine)" = 65534
        ! rm -f shared/roots 2>/dev/null
        chmod 600 shared/mine
        ! chown root shared/mine 2>/dev/null
        rm shared/mine"#;
    let script = format!("setpriv --reuid=65534 --regid=65534 --clear-groups bash -ec '{script}' bash \"$1\"");
    sateen_tests::command::sh(&script, &[&here.mount.path()], Duration::from_secs(60));
    let file = File::open(here.at("shared/roots")).expect("open");
    assert_eq!(file.as_fd().try_clone_to_owned().map(|_| ()).ok(), Some(()));
}

#[test]
fn seeking_reading_and_writing_at_odd_places_agree() {
    let mut rng = seeded("odd places");
    let mut here = Here::new("odd");
    let mut model = vec![0u8; 0];
    let mut file = rw(&here.at("f"));
    for i in 0..300usize {
        let at = (i * 7_919 * 31) % (4 * CHUNK);
        let data = noise(&mut rng, 1 + (i * 613) % 9_000);
        file.seek(SeekFrom::Start(at as u64)).expect("seek");
        file.write_all(&data).expect("write");
        model.resize(model.len().max(at + data.len()), 0);
        model[at..at + data.len()].copy_from_slice(&data);
        let from = (i * 104_729) % model.len();
        let mut back = vec![0; 5_000.min(model.len() - from)];
        file.read_exact_at(&mut back, from as u64).expect("read");
        assert!(back == model[from..from + back.len()], "round {i}");
    }
    drop(file);
    assert!(here.read_cold("f") == model);
}
