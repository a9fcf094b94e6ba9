//! Access control lists with the programs people set them with, checked by opening files as the users they name.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::io::Errno;
use sateen_tests::command::{run, sh};
use sateen_tests::{Cluster, ClusterSpec, Mount, wait};

const PROGRAM: Duration = Duration::from_secs(60);
/// Attributes may be this old on another mount (`attr_timeout`), with room for a slow machine.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Two users nobody else is.
const BOB: u32 = 41_001;
const CAROL: u32 = 41_002;

/// A cluster with one mount whose root everybody may enter; the mount is dropped first.
fn mounted(label: &'static str) -> (Cluster, Mount) {
    let cluster = Cluster::start(ClusterSpec::new(label));
    let mount = cluster.mount();
    fs::set_permissions(mount.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    (cluster, mount)
}

/// Runs a script below `at` and gives what it prints.
#[track_caller]
fn script(at: &Path, text: &str) -> String {
    sh(&format!("cd \"$1\"; {text}"), &[&at], PROGRAM).stdout
}

/// Whether a script succeeds as a user with these groups beside their own.
#[track_caller]
fn succeeds_as(user: u32, groups: &[u32], at: &Path, text: &str) -> bool {
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={user}"), format!("--regid={user}")]);
    let list: Vec<String> = groups.iter().map(u32::to_string).collect();
    command.arg(if list.is_empty() { "--clear-groups".to_owned() } else { format!("--groups={}", list.join(",")) });
    command.args(["bash", "-ec", text]).current_dir(at);
    run(&mut command, PROGRAM).success()
}

/// The list of a file as `getfacl` prints it, with numbers and without comments.
#[track_caller]
fn acl(at: &Path, name: &str) -> Vec<String> {
    let text = sh("cd \"$1\"; getfacl -cnpE -- \"$2\"", &[&at, &name], PROGRAM).stdout;
    text.lines().filter(|l| !l.is_empty()).map(str::to_owned).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("stat").mode() & 0o7777
}

#[test]
fn setfacl_lets_one_user_in_and_chmod_changes_the_mask() {
    let (mut cluster, mut mount) = mounted("acl");
    let at = mount.path().to_owned();
    fs::write(mount.join("f"), b"secret").expect("write");
    fs::set_permissions(mount.join("f"), fs::Permissions::from_mode(0o600)).expect("chmod");
    assert!(!succeeds_as(BOB, &[], &at, "cat f"));
    script(&at, &format!("setfacl -m u:{BOB}:rw f"));
    assert_eq!(acl(&at, "f"), ["user::rw-", &format!("user:{BOB}:rw-"), "group::---", "mask::rw-", "other::---"]);
    assert_eq!(mode(&mount.join("f")), 0o660);
    assert!(succeeds_as(BOB, &[], &at, "cat f && echo more >> f"));
    assert!(!succeeds_as(CAROL, &[], &at, "cat f"));
    assert!(!succeeds_as(BOB, &[], &at, "setfacl -b f"), "not the owner");
    assert!(script(&at, "ls -l f").starts_with("-rw-rw----+"));
    script(&at, "chmod g-w f");
    assert_eq!(acl(&at, "f")[3], "mask::r--");
    assert!(succeeds_as(BOB, &[], &at, "cat f"));
    assert!(!succeeds_as(BOB, &[], &at, "echo more >> f"), "masked");
    mount.remount();
    assert_eq!(acl(&at, "f")[1], format!("user:{BOB}:rw-"));
    assert!(succeeds_as(BOB, &[], &at, "cat f"));
    script(&at, "setfacl -b f");
    assert_eq!(acl(&at, "f"), ["user::rw-", "group::---", "other::---"]);
    assert_eq!(mode(&mount.join("f")), 0o600);
    assert!(!succeeds_as(BOB, &[], &at, "cat f"));
    assert!(script(&at, "ls -l f").starts_with("-rw------- "));
    cluster.assert_runs();
}

#[test]
fn a_group_is_let_in_by_any_of_forty_supplementary_groups() {
    let (mut cluster, mount) = mounted("acl-groups");
    let at = mount.path();
    let groups: Vec<u32> = (50_000..50_040).collect();
    fs::write(mount.join("f"), b"x").expect("write");
    fs::write(mount.join("of-group"), b"x").expect("write");
    script(at, "chmod 600 f; setfacl -m g:50039:rw f; chgrp 50039 of-group; chmod 060 of-group");
    for name in ["f", "of-group"] {
        assert!(succeeds_as(BOB, &groups, at, &format!("cat {name} && echo y >> {name}")), "{name}");
        assert!(!succeeds_as(BOB, &groups[..39], at, &format!("cat {name}")), "{name}");
    }
    // An owner may give a file to any of their groups, and keeps set-group-id for it.
    script(at, &format!("mkdir d; chown {BOB} d"));
    assert!(succeeds_as(BOB, &groups, &mount.join("d"), "touch g; chgrp 50039 g; chmod 2755 g; test -g g"));
    assert!(!succeeds_as(BOB, &groups[..39], &mount.join("d"), "touch h; chgrp 50039 h"));
    cluster.assert_runs();
}

#[test]
fn a_default_acl_is_inherited_whatever_the_umask_says() {
    let (mut cluster, mount) = mounted("acl-default");
    let at = mount.path();
    script(at, &format!("mkdir d; setfacl -d -m u:{BOB}:rwx,g::rx,o::- d"));
    assert_eq!(mode(&mount.join("d")), 0o755, "the directory itself stays");
    script(
        at,
        "umask 077; cd d; echo x > f; mkdir sub; mkfifo p; ln -s f l; mknod n c 1 3; cp f copy; install -m 640 f i",
    );
    let user = format!("user:{BOB}:rwx");
    let masked = format!("user:{BOB}:rwx");
    assert_eq!(acl(at, "d/f"), ["user::rw-", &masked, "group::r-x", "mask::rw-", "other::---"]);
    assert_eq!(acl(at, "d/p")[3], "mask::rw-");
    assert_eq!(acl(at, "d/n")[3], "mask::rw-");
    assert_eq!(acl(at, "d/copy")[3], "mask::rw-");
    assert_eq!(
        acl(at, "d/sub"),
        [
            "user::rwx",
            &user,
            "group::r-x",
            "mask::rwx",
            "other::---",
            "default:user::rwx",
            &format!("default:{user}"),
            "default:group::r-x",
            "default:mask::rwx",
            "default:other::---",
        ]
    );
    assert!(succeeds_as(BOB, &[], at, "cat d/f && echo y >> d/f && echo z > d/sub/g"));
    assert!(!succeeds_as(CAROL, &[], at, "cat d/f"));
    // What was made by Bob in there carries the list as well; without a default ACL the umask counts again.
    assert_eq!(acl(at, "d/sub/g")[1], user);
    script(at, "setfacl -k d; umask 027; echo x > d/plain; mkdir d/dir");
    assert_eq!((mode(&mount.join("d/plain")), mode(&mount.join("d/dir"))), (0o640, 0o750));
    assert_eq!(acl(at, "d/plain").len(), 3);
    cluster.assert_runs();
}

#[test]
fn cp_rsync_and_tar_keep_acls() {
    let (mut cluster, mount) = mounted("acl-copy");
    let at = mount.path();
    script(
        at,
        &format!(
            "mkdir from; cd from; echo x > f; setfacl -m u:{BOB}:rw,g:50000:r f; mkdir d; setfacl -m u:{CAROL}:rx d
             setfacl -d -m u:{BOB}:rwx d; echo y > d/inherits; cd ..
             cp -a from cp; rsync -aA from/ rsync/; tar --acls -cf a.tar from; mkdir tar
             tar --acls --strip-components=1 -C tar -xf a.tar"
        ),
    );
    for name in ["f", "d", "d/inherits"] {
        let original = acl(&mount.join("from"), name);
        assert!(original.len() > 3, "{original:?}");
        for copy in ["cp", "rsync", "tar"] {
            assert_eq!(acl(&mount.join(copy), name), original, "{copy}/{name}");
        }
    }
    assert_eq!(script(at, "rsync -aAi from/ rsync/"), "", "nothing is left to do");
    script(at, "getfacl -R from > saved; setfacl -R -b from; setfacl --restore=saved");
    assert_eq!(acl(&mount.join("from"), "d"), acl(&mount.join("cp"), "d"));
    cluster.assert_runs();
}

#[test]
fn another_mount_sees_a_new_acl_when_it_sees_new_attributes() {
    let (mut cluster, mount) = mounted("acl-two");
    let other = cluster.mount();
    fs::write(mount.join("f"), b"x").expect("write");
    script(mount.path(), "chmod 640 f");
    // Known there, with its negative answer about ACLs.
    assert!(!succeeds_as(BOB, &[], other.path(), "cat f"));
    script(mount.path(), &format!("setfacl -m u:{BOB}:r f"));
    wait::until("the ACL on the other mount", TIMEOUT, || succeeds_as(BOB, &[], other.path(), "cat f").then_some(()));
    assert_eq!(acl(other.path(), "f"), acl(mount.path(), "f"));
    script(other.path(), "setfacl -x u:41001 f");
    wait::until("its end", TIMEOUT, || (!succeeds_as(BOB, &[], mount.path(), "cat f")).then_some(()));
    cluster.assert_runs();
}

#[test]
fn that_a_file_has_no_acl_is_known_without_asking_the_mds() {
    let (mut cluster, mount) = mounted("acl-free");
    drop(mount);
    let mount = cluster.mount_with(&["attr_timeout=600", "entry_timeout=600", "timeout=1"]);
    fs::write(mount.join("without"), b"x").expect("write");
    fs::write(mount.join("with"), b"x").expect("write");
    script(mount.path(), &format!("setfacl -m u:{BOB}:r with"));
    for name in ["without", "with"] {
        fs::metadata(mount.join(name)).expect("stat");
    }
    let get = |name: &str, kind: &str| {
        let mut value = [0; 256];
        rustix::fs::getxattr(mount.join(name), kind, &mut value[..]).map(|n| value[..n].to_vec())
    };
    cluster.kill_mds();
    assert_eq!(get("without", "system.posix_acl_access"), Err(Errno::NODATA));
    assert_eq!(get("with", "system.posix_acl_default"), Err(Errno::NODATA));
    assert_eq!(get("with", "security.capability"), Err(Errno::NODATA), "which every first write asks for");
    let asked = get("with", "system.posix_acl_access").expect_err("the MDS must be asked, and is away");
    assert!([Errno::TIMEDOUT, Errno::HOSTDOWN].contains(&asked), "{asked}");
    cluster.start_mds();
    wait::until("the ACL from the restarted MDS", wait::SERVER, || get("with", "system.posix_acl_access").ok());
    cluster.assert_runs();
}

#[test]
fn a_list_that_says_no_more_than_a_mode_is_a_mode() {
    let (mut cluster, mount) = mounted("acl-minimal");
    let other = cluster.mount();
    let at = mount.path();
    fs::write(mount.join("new"), b"x").expect("write");
    script(at, "setfacl --set u::rw,g::r,o::- new");
    assert_eq!(mode(&mount.join("new")), 0o640);
    wait::until("the mode on the other mount", TIMEOUT, || (mode(&other.join("new")) == 0o640).then_some(()));
    // What had more loses it.
    script(at, &format!("setfacl -m u:{BOB}:rw new"));
    assert_eq!(acl(at, "new").len(), 5);
    script(at, "setfacl --set u::rwx,g::-,o::r new");
    assert_eq!(acl(at, "new"), ["user::rwx", "group::---", "other::r--"]);
    assert_eq!(mode(&mount.join("new")), 0o704);
    // Bits beyond the nine stay.
    fs::set_permissions(mount.join("new"), fs::Permissions::from_mode(0o1755)).expect("chmod");
    script(at, "setfacl --set u::rw,g::r,o::r new");
    assert_eq!(mode(&mount.join("new")), 0o1644);
    assert!(!succeeds_as(BOB, &[], at, "setfacl --set u::rw,g::rw,o::rw new"), "not the owner");
    cluster.assert_runs();
}
