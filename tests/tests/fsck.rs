//! `sateen fsck` as people use it: at rest and at work, on a sound OST and on a damaged one.

use std::fs::{self, File};
use std::path::PathBuf;

use sateen_proto::oss::{GetAttrRequest, ObjectId};
use sateen_tests::cluster::lfs_ok;
use sateen_tests::command::sh;
use sateen_tests::damage::{find_bytes, flip, segments};
use sateen_tests::plain;
use sateen_tests::rng::{noise, seeded};
use sateen_tests::rpc::block_on;
use sateen_tests::{Cluster, ClusterSpec, wait};

#[test]
fn a_damaged_file_is_named_at_work_and_at_rest_and_survives_a_repair_as_an_error() {
    let mut rng = seeded("fsck");
    let spec = ClusterSpec { oss: 1, osts_per_oss: 1, ..ClusterSpec::new("fsck") };
    let mut cluster = Cluster::start(spec);
    let mount = cluster.mount();
    let (bad, good) = (mount.join("bad"), mount.join("good"));
    // Incompressible, so that the bytes stand in the segment as they are.
    let bytes = noise(&mut rng, 1 << 20);
    fs::write(&bad, &bytes).expect("write");
    fs::write(&good, &bytes[..500_000]).expect("write");
    for path in [&bad, &good] {
        File::open(path).and_then(|f| f.sync_all()).expect("fsync");
    }
    let fid = lfs_ok(&[&"path2fid", &bad]).trim().to_owned();

    let done = cluster.sateen(&["fsck", "--deep"]);
    assert!(done.success() && done.stdout.contains("clean"), "{done}");
    let done = cluster.sateen(&["fsck", "--status", "--ost", "0"]);
    assert!(done.success() && done.stdout.contains("no damage known"), "{done}");
    cluster.sateen(&["fsck", "--ost", "77"]).assert_fails_with_hint(3);
    let dir = cluster.ost_dir(0, 0);
    let at_rest = |cluster: &Cluster, more: &[&str]| {
        let dir = dir.display().to_string();
        cluster.sateen(&[&["fsck", "--dir", &dir][..], more].concat())
    };
    at_rest(&cluster, &[]).assert_fails_with_hint(1).assert_says("in use");

    // The end of the file: its bytes are in the bad one only.
    let at = bytes.len() - 10_000;
    let places: Vec<(PathBuf, u64)> = segments(&dir)
        .into_iter()
        .flat_map(|s| find_bytes(&s, &bytes[at..at + 64]).into_iter().map(move |offset| (s.clone(), offset)))
        .collect();
    assert_eq!(places.len(), 1, "the bytes stand in one segment: {places:?}");
    flip(&places[0].0, places[0].1);

    let named = |done: &sateen_tests::Done| {
        assert_eq!(done.code, Some(7), "{done}");
        assert!(done.stdout.contains(&fid) && done.stdout.contains("DAMAGED: 1"), "{done}");
        assert!(done.stdout.lines().all(|line| line.chars().count() <= 80), "{done}");
    };
    named(&cluster.sateen(&["fsck", "--ost", "0", "--deep"]));
    named(&cluster.sateen(&["fsck", "--status"]));
    let json = cluster.sateen(&["fsck", "--deep", "--json"]);
    assert_eq!(json.code, Some(7), "{json}");
    let report: serde_json::Value = serde_json::from_str(&json.stdout).expect("one document");
    assert_eq!(report["osts"][0]["findings"][0]["fid"], fid.as_str(), "{json}");

    cluster.stop_oss(0);
    for more in [&["--deep"][..], &["--deep", "--repair"], &["--deep", "--repair"]] {
        named(&at_rest(&cluster, more));
    }
    cluster.sateen(&["fsck", "--dir", "/nonexistent"]).assert_fails_with_hint(3).assert_says("/nonexistent");
    cluster.start_oss(0);
    cluster.wait_osts_up();
    drop(mount);
    let mount = cluster.mount();
    assert_eq!(fs::read(mount.join("good")).expect("read"), bytes[..500_000]);
    let error = fs::read(mount.join("bad")).expect_err("neither zeros nor old bytes");
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
}

/// Names of every kind, some of which go again.
const NAMES: &str = r#"
set -e
cd "$1"
mkdir -p a/b/c d
for i in $(seq 200); do echo "$i" > "a/f$i"; done
for i in $(seq 0 4 200); do ln -f "a/f$((i + 1))" "d/l$i" 2>/dev/null || true; done
ln -s ../a d/link
mkfifo d/pipe
setfattr -n user.note -v text a/f7
mv a/b d/b
mv -f a/f1 a/f2
rm a/f3 a/f5 d/l8
rmdir d/b/c
truncate -s 10 a/f9
"#;

#[test]
fn names_are_found_sound_after_work_while_they_are_served_and_at_rest() {
    let mut cluster = Cluster::start(ClusterSpec::new("fsck-mdt"));
    let mount = cluster.mount();
    let done = sh(NAMES, &[&mount.path()], wait::SERVER);
    assert!(done.success(), "{done}");
    for more in [&[][..], &["--fs", "scratch"], &["--repair"]] {
        let done = cluster.sateen(&[&["fsck", "--mdt"][..], more].concat());
        assert!(done.success() && done.stdout.contains("clean"), "{done}");
    }
    cluster.sateen(&["fsck", "--mdt", "--fs", "other"]).assert_fails_with_hint(3);
    let dir = cluster.mds_dir().display().to_string();
    cluster.sateen(&["fsck", "--dir", &dir]).assert_fails_with_hint(1).assert_says("--mdt");
    cluster.stop_mds();
    cluster.sateen(&["fsck", "--mdt"]).assert_fails_with_hint(5);
    cluster.sateen(&["fsck", "--dir", &dir, "--deep"]).assert_fails_with_hint(1);
    let json = cluster.sateen(&["fsck", "--dir", &dir, "--repair", "--json"]);
    assert!(json.success(), "{json}");
    let report: serde_json::Value = serde_json::from_str(&json.stdout).expect("one document");
    assert_eq!(report["mdts"][0]["clean"], true, "{json}");
    assert!(report["mdts"][0]["tally"]["names"].as_u64().is_some_and(|names| names > 200), "{json}");
    cluster.start_mds();
    assert_eq!(fs::read_to_string(mount.join("a/f7")).expect("read"), "7\n");
}

/// Bytes on disk of an object on OST 0.
async fn allocated(cluster: &Cluster, object: &ObjectId) -> u64 {
    let mut store = plain::object_store(cluster.mds_address(), 0).await;
    let request = GetAttrRequest { ost: 0, object: Some(*object) };
    store.get_attr(request).await.expect("GetAttr").into_inner().allocated
}

#[test]
fn an_object_that_a_late_write_made_again_is_found_and_destroyed() {
    let spec = ClusterSpec { oss: 1, osts_per_oss: 1, ..ClusterSpec::new("fsck-leak") };
    let cluster = Cluster::start(spec);
    let mount = cluster.mount();
    let [gone, kept] = ["gone", "kept"].map(|name| {
        let path = mount.join(name);
        fs::write(&path, name).expect("write");
        File::open(&path).and_then(|f| f.sync_all()).expect("fsync");
        path
    });
    let fid = lfs_ok(&[&"path2fid", &gone]).trim().to_owned();
    fs::remove_file(&gone).expect("unlink");
    let parsed: sateen_types::Fid = fid.parse().expect("a FID");
    let object = ObjectId { fs_id: 1, fid: Some(parsed.into()), component: 1, stripe: 0 };
    let is_gone = || block_on(allocated(&cluster, &object)) == 0;
    wait::until("the end of the object", wait::SERVER, || is_gone().then_some(()));

    // What a client could send that had been cut off for long.
    let late = plain::write(0, &object, vec![plain::raw(0, b"late", true)], b"late".to_vec());
    block_on(async { plain::object_store(cluster.mds_address(), 0).await.write(late).await.expect("Write") });
    assert!(!is_gone());
    let done = cluster.sateen(&["fsck", "--mdt"]);
    assert_eq!(done.code, Some(7), "{done}");
    assert!(done.stdout.contains("object-orphan") && done.stdout.contains(&fid), "{done}");
    assert!(!is_gone(), "a check without --repair changes nothing");
    let done = cluster.sateen(&["fsck", "--mdt", "--repair"]);
    assert!(done.success() && done.stdout.contains("repaired 1"), "{done}");
    wait::until("the end of the object", wait::SERVER, || is_gone().then_some(()));
    let done = cluster.sateen(&["fsck", "--mdt", "--repair"]);
    assert!(done.success() && done.stdout.contains("  clean"), "{done}");
    assert_eq!(fs::read_to_string(&kept).expect("read"), "kept");
}
