//! Corners of POSIX and Linux that programs run into on file systems in user space: one test each.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, RenameFlags};
use rustix::io::Errno;
use sateen_tests::command::{Done, run};
use sateen_tests::{Cluster, ClusterSpec, Mount};

const PROGRAM: Duration = Duration::from_secs(60);
/// A user nobody else is.
const BOB: u32 = 41_001;

/// A mount whose root everybody may write, with its cluster; the mount is dropped first.
struct Here {
    mount: Mount,
    cluster: Cluster,
}

impl Here {
    fn new(label: &'static str) -> Here {
        let cluster = Cluster::start(ClusterSpec::new(label));
        let mount = cluster.mount();
        fs::set_permissions(mount.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
        Here { mount, cluster }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.mount.join(name)
    }

    /// Runs a script as [`BOB`] in the root of the mount.
    #[track_caller]
    fn as_bob(&self, text: &str) -> Done {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={BOB}"), format!("--regid={BOB}")]).args([
            "--clear-groups",
            "bash",
            "-euc",
            text,
        ]);
        run(command.current_dir(self.mount.path()), PROGRAM)
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.cluster.assert_runs();
        }
    }
}

#[track_caller]
fn fails_with<T: std::fmt::Debug>(result: std::io::Result<T>, errno: Errno) {
    let error = result.expect_err("the call must fail");
    assert_eq!(error.raw_os_error(), Some(errno.raw_os_error()), "{error}");
}

/// A setting of the kernel that protects links in sticky directories.
fn protects(what: &str) -> bool {
    fs::read_to_string(format!("/proc/sys/fs/{what}")).is_ok_and(|s| s.trim() != "0")
}

#[test]
fn creating_below_nothing_or_below_a_file_says_which() {
    let here = Here::new("corner-create");
    File::create(here.at("f")).expect("create");
    fails_with(File::create(here.at("none/f")), Errno::NOENT);
    fails_with(File::create(here.at("f/g")), Errno::NOTDIR);
    fails_with(fs::create_dir(here.at("none/d")), Errno::NOENT);
    fails_with(fs::create_dir(here.at("f/d")), Errno::NOTDIR);
    fails_with(File::open(here.at("f/")), Errno::NOTDIR);
    fails_with(File::options().write(true).open(here.mount.path()), Errno::ISDIR);
}

#[test]
fn a_file_that_is_made_with_mode_0_is_open_all_the_same() {
    let here = Here::new("corner-mode0");
    let done = here.as_bob(
        r#"python3 - <<'END'
import os
fd = os.open("none", os.O_CREAT | os.O_RDONLY, 0)
assert os.read(fd, 10) == b""
fd = os.open("reader", os.O_CREAT | os.O_RDWR | os.O_EXCL, 0o444)
assert os.write(fd, b"written") == 7
assert os.pread(fd, 10, 0) == b"written"
try:
    os.open("reader", os.O_WRONLY)
    raise SystemExit("opened")
except PermissionError:
    pass
END"#,
    );
    assert!(done.success(), "{done}");
    assert_eq!(fs::metadata(here.at("none")).expect("stat").mode() & 0o7777, 0);
    assert_eq!(fs::read(here.at("reader")).expect("read, as root"), b"written");
}

#[test]
fn devices_are_for_root_and_pipes_for_everybody() {
    let here = Here::new("corner-mknod");
    let done = here.as_bob("mkfifo p; mknod c c 1 3 && exit 1; mknod b b 7 0 && exit 2; test -p p");
    assert!(done.success(), "{done}");
    assert!(done.stderr.contains("Operation not permitted"), "{done}");
    rustix::fs::mknodat(CWD, here.at("null"), FileType::CharacterDevice, Mode::from(0o666), rustix::fs::makedev(1, 3))
        .expect("root may");
    File::options().write(true).open(here.at("null")).expect("open").write_all(b"gone").expect("write");
}

#[test]
fn touching_a_mapping_beyond_the_end_is_sigbus() {
    let here = Here::new("corner-sigbus");
    fs::write(here.at("f"), vec![1; 8192]).expect("write");
    let script = "import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
m = mmap.mmap(fd, 8192)
assert m[8191] == 1
os.ftruncate(fd, 10)
assert m[9] == 1 and m[10] == 0
print('before', flush=True)
m[5000]
print('after')";
    let done = run(Command::new("python3").args(["-c", script]).arg(here.at("f")), PROGRAM);
    assert_eq!((done.signal, done.stdout.as_str()), (Some(libc::SIGBUS), "before\n"), "{done}");
}

#[test]
fn links_in_sticky_directories_are_protected_as_the_kernel_is_told() {
    let here = Here::new("corner-sticky-links");
    fs::create_dir(here.at("tmp")).expect("mkdir");
    fs::set_permissions(here.at("tmp"), fs::Permissions::from_mode(0o1777)).expect("chmod");
    fs::write(here.at("target"), b"x").expect("write");
    symlink("../target", here.at("tmp/trap")).expect("symlink");
    lchown(here.at("tmp/trap"), Some(BOB), Some(BOB)).expect("lchown");
    let followed = fs::read(here.at("tmp/trap"));
    if protects("protected_symlinks") {
        fails_with(followed, Errno::ACCESS);
    } else {
        followed.expect("followed");
    }
    let linked = here.as_bob("ln target tmp/hard");
    assert_eq!(linked.success(), !protects("protected_hardlinks"), "{linked}");
}

#[test]
fn a_symbolic_link_belongs_to_who_made_it_and_to_the_group_of_a_setgid_directory() {
    let here = Here::new("corner-owner");
    fs::create_dir(here.at("d")).expect("mkdir");
    chown(here.at("d"), Some(BOB), Some(50_000)).expect("chown");
    fs::set_permissions(here.at("d"), fs::Permissions::from_mode(0o2775)).expect("chmod");
    let done = here.as_bob("cd d; ln -s nowhere l; touch f; mkdir sub; mkfifo p");
    assert!(done.success(), "{done}");
    for name in ["l", "f", "sub", "p"] {
        let meta = fs::symlink_metadata(here.at("d").join(name)).expect("lstat");
        assert_eq!((meta.uid(), meta.gid()), (BOB, 50_000), "{name}");
    }
    assert_eq!(fs::metadata(here.at("d/sub")).expect("stat").mode() & 0o7777, 0o2755);
    lchown(here.at("d/l"), Some(7), Some(8)).expect("lchown");
    let meta = fs::symlink_metadata(here.at("d/l")).expect("lstat");
    assert_eq!((meta.uid(), meta.gid()), (7, 8));
}

#[test]
fn a_writer_goes_on_where_it_was_when_its_file_is_cut() {
    let here = Here::new("corner-cut");
    let mut writer = File::create(here.at("f")).expect("create");
    writer.write_all(&[1; 300_000]).expect("write");
    File::options().write(true).open(here.at("f")).expect("open").set_len(0).expect("truncate");
    writer.write_all(&[2; 100_000]).expect("write");
    drop(writer);
    let bytes = fs::read(here.at("f")).expect("read");
    assert_eq!(bytes.len(), 400_000);
    assert!(bytes[..300_000].iter().all(|b| *b == 0) && bytes[300_000..].iter().all(|b| *b == 2));
}

#[test]
fn a_program_that_runs_is_not_written_and_one_that_is_written_does_not_run() {
    let here = Here::new("corner-txtbsy");
    let program = here.at("sleep");
    fs::copy("/bin/sleep", &program).expect("copy");
    let mut child = Command::new(&program).arg("60").stdin(Stdio::null()).spawn().expect("run");
    let busy = File::options().write(true).open(&program);
    let cut = rustix::fs::open(&program, rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::TRUNC, Mode::empty());
    child.kill().expect("kill");
    assert_eq!(child.wait().expect("wait").signal(), Some(libc::SIGKILL));
    fails_with(busy, Errno::TXTBSY);
    assert_eq!(cut.map(drop), Err(Errno::TXTBSY));
    let writer = File::options().write(true).open(&program).expect("it does not run any more");
    fails_with(Command::new(&program).arg("0").status(), Errno::TXTBSY);
    drop(writer);
    assert!(Command::new(&program).arg("0").status().expect("runs").success());
}

#[test]
fn full_directories_stay_whatever_is_tried() {
    let here = Here::new("corner-notempty");
    fs::create_dir_all(here.at("full/sub")).expect("mkdir");
    fs::create_dir(here.at("empty")).expect("mkdir");
    fails_with(fs::remove_dir(here.at("full")), Errno::NOTEMPTY);
    fails_with(fs::rename(here.at("empty"), here.at("full")), Errno::NOTEMPTY);
    fails_with(fs::rename(here.at("full"), here.at("full/sub/below")), Errno::INVAL);
    fails_with(fs::remove_file(here.at("full")), Errno::ISDIR);
    let whiteout = rustix::fs::renameat_with(CWD, here.at("empty"), CWD, here.at("e"), RenameFlags::WHITEOUT);
    assert_eq!(whiteout, Err(Errno::INVAL));
    fs::rename(here.at("full"), here.at("empty")).expect("an empty one is replaced");
    assert!(here.at("empty/sub").is_dir());
}

#[test]
fn a_file_is_opened_by_its_handle_after_a_remount() {
    let mut here = Here::new("corner-handle");
    fs::create_dir(here.at("d")).expect("mkdir");
    fs::write(here.at("d/f"), b"by handle").expect("write");
    let handle = FileHandle::of(&here.at("d/f"));
    fs::rename(here.at("d/f"), here.at("moved")).expect("rename");
    let mut text = String::new();
    handle.open(here.mount.path()).expect("open").read_to_string(&mut text).expect("read");
    assert_eq!(text, "by handle");
    here.mount.remount();
    text.clear();
    handle.open(here.mount.path()).expect("open").read_to_string(&mut text).expect("read");
    assert_eq!(text, "by handle");
    fs::remove_file(here.at("moved")).expect("unlink");
    fails_with(handle.open(here.mount.path()), Errno::STALE);
}

/// What name_to_handle_at(2) fills: length, kind, and room for the longest handle.
#[repr(C)]
struct FileHandle {
    bytes: u32,
    kind: i32,
    handle: [u8; 128],
}

impl FileHandle {
    fn of(path: &Path) -> FileHandle {
        let path = std::ffi::CString::new(path.as_os_str().as_bytes()).expect("no NUL");
        let mut handle = FileHandle { bytes: 128, kind: 0, handle: [0; 128] };
        let mut mount = 0i32;
        // SAFETY: the handle has the room it says, and the path ends with a NUL.
        let n = unsafe {
            libc::syscall(libc::SYS_name_to_handle_at, libc::AT_FDCWD, path.as_ptr(), &mut handle, &mut mount, 0)
        };
        assert_eq!(n, 0, "{}", std::io::Error::last_os_error());
        handle
    }

    fn open(&self, mount: &Path) -> std::io::Result<File> {
        let mount = File::open(mount).expect("the root opens");
        // SAFETY: the handle is one the kernel filled.
        let fd = unsafe {
            libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), self as *const FileHandle, libc::O_RDONLY)
        };
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: a descriptor the kernel has just given us.
        Ok(unsafe { File::from_raw_fd(fd as i32) })
    }
}

#[test]
fn offsets_reach_to_eight_exbibytes() {
    let here = Here::new("corner-offsets");
    let file = File::options().read(true).write(true).create_new(true).open(here.at("f")).expect("create");
    let end = i64::MAX as u64;
    file.write_all_at(b"x", end - 1).expect("the last byte");
    assert_eq!(file.metadata().expect("stat").len(), end);
    let mut back = [0; 2];
    assert_eq!(file.read_at(&mut back, end - 2).expect("read"), 2);
    assert_eq!(back, [0, b'x']);
    file.set_len(0).expect("truncate");
    assert_eq!(file.metadata().expect("stat").blocks(), 0);
}

#[test]
fn a_file_without_a_name_is_refused_as_programs_expect() {
    let here = Here::new("corner-tmpfile");
    // Programs take this answer for "make one with a name and remove that": the kernel's way to ask is not in fuser 0.18.
    let opened = File::options().write(true).custom_flags(libc::O_TMPFILE).open(here.mount.path());
    fails_with(opened, Errno::OPNOTSUPP);
    assert_eq!(fs::read_dir(here.mount.path()).expect("readdir").count(), 0);
}
