//! Twenty thousand real files and a gibibyte of them, through every kind of orderly restart.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sateen_tests::command::sh;
use sateen_tests::tree::{self, Amount};
use sateen_tests::{Cluster, ClusterSpec};

/// What the promise says: at least this much.
const WANTED: Amount = Amount { files: 20_000, bytes: 1 << 30 };

/// Type, mode, owner, times, link targets and sizes of everything below `root`. (Sizes of directories differ between
/// file systems.)
fn attributes(base: &Path, root: &Path) -> String {
    let script = r#"
        cd "$1"
        find "$2" ! -type d -printf '%y %m %U %G %s %T@ %p %l\n' -o -printf '%y %m %U %G - %T@ %p\n' | LC_ALL=C sort"#;
    let relative = root.strip_prefix("/").expect("absolute");
    sh(script, &[&base, &relative], Duration::from_secs(300)).stdout
}

#[test]
fn a_real_tree_survives_copy_remount_and_a_restart_of_every_server() {
    let (sources, amount) = tree::pick(WANTED);
    eprintln!("{amount:?} in {sources:?}");
    assert!(
        amount.files >= WANTED.files && amount.bytes >= WANTED.bytes,
        "this machine's /usr is too small: {amount:?}"
    );
    let root = PathBuf::from("/");
    let expected = tree::manifest(&root, &sources);
    let expected_attributes: Vec<String> = sources.iter().map(|s| attributes(&root, s)).collect();

    let mut cluster = Cluster::start(ClusterSpec::new("real-tree"));
    let mut mount = cluster.mount();
    let copy = mount.join("copy");
    std::fs::create_dir(&copy).expect("mkdir");

    tree::copy(&sources, &copy);
    eprintln!("copied");
    tree::assert_same_by_diff(&sources, &copy);
    eprintln!("diff agrees");

    mount.remount();
    for (source, expected) in sources.iter().zip(&expected_attributes) {
        tree::assert_same_manifest(expected, &attributes(&copy, source));
    }
    tree::assert_same_manifest(&expected, &tree::manifest(&copy, &sources));
    eprintln!("attributes and sha256 agree after a remount");

    cluster.restart_all();
    mount.remount();
    tree::assert_same_manifest(&expected, &tree::manifest(&copy, &sources));
    eprintln!("sha256 agrees after a restart of every server");
    cluster.assert_runs();
}

#[test]
fn a_mount_goes_on_after_an_orderly_restart_of_every_server() {
    let mut cluster = Cluster::start(ClusterSpec::new("restart"));
    let mount = cluster.mount();
    let before = mount.join("before");
    std::fs::write(&before, b"written before").expect("write");
    cluster.restart_all();
    assert_eq!(std::fs::read(&before).expect("read"), b"written before");
    std::fs::write(mount.join("after"), b"written after").expect("write");
    assert_eq!(std::fs::read(mount.join("after")).expect("read"), b"written after");
    cluster.assert_runs();
}
