//! Set-user-id, set-group-id and file capabilities: what takes them away, and what must not.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use sateen_tests::command::{run, sh};
use sateen_tests::{Cluster, ClusterSpec, Mount};

const PROGRAM: Duration = Duration::from_secs(60);
/// A user nobody else is.
const BOB: u32 = 41_001;
const CAPABILITIES: &str = "security.capability";

/// A cluster with one mount whose root everybody may write; the mount is dropped first.
fn mounted(label: &'static str) -> (Cluster, Mount) {
    let cluster = Cluster::start(ClusterSpec::new(label));
    let mount = cluster.mount();
    fs::set_permissions(mount.path(), fs::Permissions::from_mode(0o1777)).expect("chmod");
    (cluster, mount)
}

/// Runs a script as [`BOB`].
#[track_caller]
fn as_bob(at: &Path, text: &str) {
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={BOB}"), format!("--regid={BOB}")]).args(["--clear-groups", "bash", "-euc", text]);
    let done = run(command.current_dir(at), PROGRAM);
    assert!(done.success(), "{done}");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("stat").mode() & 0o7777
}

fn has_capabilities(path: &Path) -> bool {
    match rustix::fs::getxattr(path, CAPABILITIES, &mut [0; 64][..]) {
        Ok(_) => true,
        Err(Errno::NODATA) => false,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_write_takes_setuid_away_at_once() {
    let (mut cluster, mut mount) = mounted("suid-write");
    as_bob(
        mount.path(),
        r#"
        for f in write append truncate ftruncate fallocate keep punch chown mmap; do echo data > $f; chmod 6755 $f; done
        # While the file is still open, before anything was reported to the MDS.
        exec 3<>write; echo x >&3; test "$(stat -c %a write)" = 755; exec 3>&-
        echo x >> append; truncate -s 1 truncate; : > ftruncate; fallocate -l 100000 fallocate
        fallocate -n -l 3 keep; fallocate -p -l 3 punch; chgrp $UID chown
        for f in *; do test $f = mmap || test "$(stat -c %a $f)" = 755 || { stat $f; exit 1; }; done"#,
    );
    mount.remount();
    for name in ["write", "append", "truncate", "ftruncate", "fallocate", "keep", "punch", "chown"] {
        assert_eq!(mode(&mount.join(name)), 0o755, "{name}");
    }
    assert_eq!(mode(&mount.join("mmap")), 0o6755);
    // Root may write without taking anything.
    File::options().write(true).open(mount.join("mmap")).expect("open").write_all_at(b"x", 0).expect("write");
    assert_eq!(mode(&mount.join("mmap")), 0o6755);
    cluster.assert_runs();
}

#[test]
fn a_mode_that_is_set_after_a_write_stays() {
    let (mut cluster, mut mount) = mounted("suid-after");
    as_bob(
        mount.path(),
        r#"
        exec 3>tool; echo data >&3; chmod 4755 tool; exec 3>&-
        test "$(stat -c %a tool)" = 4755
        install -m 6755 tool installed; cp -p tool copied; tar -cf a.tar tool; mkdir t; tar -C t -xpf a.tar"#,
    );
    mount.remount();
    for (name, expected) in [("tool", 0o4755), ("installed", 0o6755), ("copied", 0o4755), ("t/tool", 0o4755)] {
        assert_eq!(mode(&mount.join(name)), expected, "{name}");
    }
    cluster.assert_runs();
}

#[test]
fn capabilities_go_with_the_data_they_were_given_to_and_copies_keep_them() {
    let (mut cluster, mut mount) = mounted("capabilities");
    // VFS_CAP_REVISION_2 with CAP_NET_RAW, effective.
    let value = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let names = ["write", "truncate", "chown", "stays", "fallocate"];
    for name in names {
        let path = mount.join(name);
        fs::write(&path, b"data").expect("write");
        rustix::fs::setxattr(&path, CAPABILITIES, &value, XattrFlags::empty()).expect("setxattr");
        assert!(has_capabilities(&path));
    }
    let open = |name| File::options().write(true).open(mount.join(name)).expect("open");
    open("write").write_all_at(b"x", 0).expect("write, as root");
    open("truncate").set_len(1).expect("ftruncate");
    std::os::unix::fs::chown(mount.join("chown"), Some(BOB), None).expect("chown");
    rustix::fs::fallocate(open("fallocate"), rustix::fs::FallocateFlags::empty(), 0, 9_000).expect("fallocate");
    fs::set_permissions(mount.join("stays"), fs::Permissions::from_mode(0o755)).expect("chmod");
    // `cp -a` sets the attribute through the descriptor it has just written to.
    sh("cd \"$1\"; cp -a stays copy; rsync -aX stays rsync; getcap copy rsync", &[&mount.path()], PROGRAM);
    for pass in ["warm", "cold"] {
        for name in names {
            assert_eq!(has_capabilities(&mount.join(name)), name == "stays", "{name}, {pass}");
        }
        assert!(has_capabilities(&mount.join("copy")) && has_capabilities(&mount.join("rsync")), "{pass}");
        mount.remount();
    }
    cluster.assert_runs();
}

#[test]
fn trusted_attributes_are_for_root_and_sticky_directories_for_their_owner() {
    let (mut cluster, mount) = mounted("xattr-rules");
    fs::write(mount.join("f"), b"").expect("write");
    fs::set_permissions(mount.join("f"), fs::Permissions::from_mode(0o666)).expect("chmod");
    std::os::unix::fs::symlink("f", mount.join("l")).expect("symlink");
    let set = |name: &str, key: &str| rustix::fs::lsetxattr(mount.join(name), key, b"1", XattrFlags::empty());
    set("f", "trusted.t").expect("root");
    set("f", "user.u").expect("root");
    assert_eq!(set("l", "user.u"), Err(Errno::PERM));
    set("l", "trusted.t").expect("root, on a symbolic link");
    fs::create_dir(mount.join("sticky")).expect("mkdir");
    fs::set_permissions(mount.join("sticky"), fs::Permissions::from_mode(0o1777)).expect("chmod");
    as_bob(
        mount.path(),
        r#"
        test "$(getfattr -m - --absolute-names f | grep -c trusted)" = 0
        getfattr -n trusted.t f 2>/dev/null && exit 1
        setfattr -n trusted.t -v 2 f 2>/dev/null && exit 2
        setfattr -n security.x -v 2 f 2>/dev/null && exit 3
        test "$(getfattr --only-values -n user.u f)" = 1
        setfattr -n user.u -v 2 f
        setfattr -n user.u -v 2 sticky 2>/dev/null && exit 4
        mkfifo p; setfattr -n user.u -v 2 p 2>/dev/null && exit 5
        true"#,
    );
    assert_eq!(set("f", &format!("user.{}", "x".repeat(251))), Err(Errno::RANGE));
    set("f", &format!("user.{}", "x".repeat(250))).expect("255 bytes");
    let big = vec![0; 65_537];
    assert_eq!(rustix::fs::setxattr(mount.join("f"), "user.big", &big, XattrFlags::empty()), Err(Errno::TOOBIG));
    cluster.assert_runs();
}
