//! What a wrong command line is answered with: the exit code, the value, the hint. No server is needed.

use std::path::Path;
use std::process::{Command, Output};

/// A port nobody listens on: it was given to us and let go.
fn dead_mds() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").to_string()
}

fn run(program: &str, words: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = Command::new(program)
        .args(words)
        .env_remove("SATEEN_MDS")
        .current_dir(std::env::temp_dir())
        .output()
        .expect("the program starts");
    let text = |b: Vec<u8>| String::from_utf8(b).expect("text");
    (status.code().expect("not killed"), text(stdout), text(stderr))
}

fn sateen(words: &[&str]) -> (i32, String, String) {
    run(env!("CARGO_BIN_EXE_sateen"), words)
}

#[track_caller]
fn refused(words: &[&str], code: i32, value: &str, hint: &str) {
    let (got, _, stderr) = sateen(words);
    assert_eq!(got, code, "{words:?}: {stderr}");
    let mut lines = stderr.lines();
    let error = lines.next().unwrap_or_default();
    assert!(error.starts_with("error: ") && error.contains(value), "{words:?}: {stderr}");
    assert!(lines.any(|l| l.starts_with("hint: ") && l.contains(hint)), "{words:?}: {stderr}");
}

#[test]
fn a_wrong_verb_or_option_is_a_usage_error() {
    for words in [&["frobnicate"][..], &["mount"], &["status", "--what"], &["dev", "up", "--oss", "0"]] {
        let (code, _, stderr) = sateen(words);
        assert_eq!(code, 2, "{words:?}: {stderr}");
    }
    assert_eq!(sateen(&["--help"]).0, 0);
    assert_eq!(sateen(&["--version"]).0, 0);
}

#[test]
fn a_mount_that_cannot_be_says_why() {
    refused(&["mount", "mds-without-fs", "."], 1, "mds-without-fs", "HOST");
    refused(&["mount", "h:/toolongname", "."], 1, "toolongname", "1 to 8");
    refused(&["mount", "h:/fs", ".", "-o", "ro,nosiud"], 1, "nosiud", "nosuid");
    refused(&["mount", "h:/fs", ".", "-o", "attr_timeout=long"], 1, "long", "seconds");
}

#[test]
fn a_check_that_cannot_be_says_why() {
    let mds = dead_mds();
    refused(&["fsck", "--mds", &mds], 5, &mds, "sateen-mds");
    refused(&["fsck", "--status", "--mds", &mds], 5, &mds, "sateen-mds");
    refused(&["fsck", "--mdt", "--repair", "--mds", &mds], 5, &mds, "sateen-mds");
    for words in [
        &["fsck", "--repair"][..],
        &["fsck", "--dir", "/x", "--ost", "1"],
        &["fsck", "--dir", "/x", "--status"],
        &["fsck", "--dir", "/x", "--mdt"],
        &["fsck", "--mdt", "--deep"],
        &["fsck", "--fs", "scratch"],
        &["fsck", "--mdt", "--fs", "no/name"],
    ] {
        let (code, _, stderr) = sateen(words);
        assert_eq!(code, 2, "{words:?}: {stderr}");
    }
}

#[test]
fn an_mds_that_is_not_there_is_exit_code_5() {
    let mds = dead_mds();
    refused(&["status", "--mds", &mds], 5, &mds, "sateen-mds");
    refused(&["fs", "list", "--mds", &mds], 5, &mds, "sateen-mds");
    refused(&["fs", "create", "fs1", "--mds", &mds], 5, &mds, "sateen-mds");
}

#[test]
fn a_mount_of_an_mds_that_is_not_there_is_exit_code_5_also_from_the_background() {
    let source = format!("{}:/fs", dead_mds());
    let log = std::env::temp_dir().join(format!("sateen-arguments-{}.log", std::process::id()));
    let log_text = log.to_string_lossy().into_owned();
    for more in [&["--foreground"][..], &["--log", &log_text]] {
        let words = [&["mount", &source, ".", "-o", "connect_timeout=1"], more].concat();
        let (code, _, stderr) = sateen(&words);
        assert_eq!(code, 5, "{stderr}");
        assert!(stderr.contains("error: ") && stderr.contains("hint: "), "{stderr}");
    }
    std::fs::remove_file(log).expect("the mount process had a log");
}

#[test]
fn values_of_fs_are_checked_before_anything_is_asked() {
    let mds = dead_mds();
    refused(&["fs", "delete", "fs1", "--mds", &mds], 1, "fs1", "--yes");
    refused(&["fs", "create", "fs1", "--stripe", "-S 1000000", "--mds", &mds], 1, "1000000", "setstripe");
    refused(&["fs", "create", "fs1", "--owner", "bob", "--mds", &mds], 1, "bob", "1000");
    assert_eq!(sateen(&["fs", "create", "name-too-long"]).0, 2);
}

#[test]
fn a_directory_without_a_development_cluster_is_not_found() {
    refused(&["dev", "status", "--dir", "/nonexistent/dev"], 3, "/nonexistent/dev", "sateen dev up");
    let (code, stdout, _) = sateen(&["dev", "down", "--dir", "/nonexistent/dev"]);
    assert_eq!((code, stdout.contains("/nonexistent/dev")), (0, true), "down may be repeated");
}

#[test]
fn lfs_is_found_by_verb_and_by_name_and_exits_with_an_errno() {
    let lfs = env!("CARGO_BIN_EXE_sateen-lfs");
    let here = std::env::temp_dir().to_string_lossy().into_owned();
    for (words, errno) in [
        (vec!["frob"], libc::EINVAL),
        (vec!["setstripe", "-c", "1"], libc::EINVAL),
        (vec!["setstripe", "-S", "1000000", "f"], libc::EINVAL),
        (vec!["setstripe", "-N2", "f"], libc::EOPNOTSUPP),
        (vec!["getstripe", "/nonexistent"], libc::ENOENT),
        (vec!["getstripe", &here], libc::ENOTTY),
        (vec!["path2fid", &here], libc::EOPNOTSUPP),
        (vec!["find", &here, "-type", "x"], libc::EINVAL),
        (vec!["hsm_state"], libc::EINVAL),
        (vec!["hsm_state", &here], libc::EOPNOTSUPP),
        (vec!["hsm_restore", "-a", "1", "f"], libc::EINVAL),
        (vec!["hsm_archive", "-a", "2", "f"], libc::EINVAL),
        (vec!["hsm_release", &here], libc::EINVAL),
        (vec!["hsm_remove", "-a", "2", "f"], libc::EINVAL),
        (vec!["hsm_remove", "--mntpath", "/", "0x1:0x2:0x3"], libc::EINVAL),
        (vec!["hsm_cancel", "-a", "1", "f"], libc::EINVAL),
        (vec!["hsm_cancel"], libc::EINVAL),
        (vec!["hsm_set", "f"], libc::EINVAL),
        (vec!["hsm_set", "--norelease"], libc::EINVAL),
        (vec!["hsm_set", "--norelease", "-i", "2", "f"], libc::EINVAL),
        (vec!["hsm_clear", "-i", "1", "--lost", "f"], libc::EINVAL),
        (vec!["hsm_clear", "--released", "f"], libc::EINVAL),
        (vec!["hsm_set", "-r", "-a", "/nonexistent"], libc::ENOENT),
        (vec!["hsm_restore", "/nonexistent"], libc::ENOENT),
    ] {
        let (code, _, stderr) = run(lfs, &words);
        assert_eq!(code, errno, "{words:?}: {stderr}");
        assert!(stderr.starts_with(&format!("lfs {}: ", words[0])), "{stderr}");
        let through_sateen: Vec<&str> = std::iter::once("lfs").chain(words.iter().copied()).collect();
        assert_eq!(sateen(&through_sateen).0, errno, "{words:?}");
    }
    let (code, stdout, _) = run(lfs, &["--list-commands"]);
    assert_eq!(code, 0);
    for verb in
        ["setstripe", "getstripe", "df", "path2fid", "fid2path", "osts", "mdts", "find", "hsm_state", "hsm_release"]
    {
        assert!(stdout.split_whitespace().any(|v| v == verb), "{verb}");
    }
}

#[test]
fn a_link_named_mount_sateen_answers_mount_in_its_way() {
    let dir = std::env::temp_dir().join(format!("sateen-arguments-helper-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("temp directory");
    let link = dir.join("mount.sateen");
    std::os::unix::fs::symlink(Path::new(env!("CARGO_BIN_EXE_sateen")), &link).expect("link");
    let link = link.to_string_lossy().into_owned();
    assert_eq!(run(&link, &["h:/fs", "/mnt", "-f", "-o", "ro,_netdev"]).0, 0);
    assert_eq!(run(&link, &["only-one-word"]).0, 1);
    assert_eq!(run(&link, &["h:/fs", "/mnt", "-f", "-o", "nonsense"]).0, 32);
    let source = format!("{}:/fs", dead_mds());
    let (code, _, stderr) = run(&link, &[&source, ".", "-o", "rw,connect_timeout=1"]);
    assert_eq!(code, 32, "{stderr}");
    std::fs::remove_dir_all(&dir).expect("remove");
}
