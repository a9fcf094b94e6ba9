//! The index of an OST is lost, all of it, and comes back from the segments with everything that was synced.

use std::fs::{self, File};

use sateen_tests::rng::{noise, seeded};
use sateen_tests::{Cluster, ClusterSpec};

#[test]
fn a_lost_index_is_made_anew_and_every_synced_file_reads_back_identical() {
    let mut rng = seeded("rebuild");
    let spec = ClusterSpec { oss: 1, osts_per_oss: 1, ..ClusterSpec::new("rebuild") };
    let mut cluster = Cluster::start(spec);
    let mount = cluster.mount();
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for i in 0..40 {
        let bytes = match i % 3 {
            0 => noise(&mut rng, 1 + i * 70_000),
            1 => format!("warp and weft {i} ").into_bytes().into_iter().cycle().take(1 + i * 90_000).collect(),
            _ => noise(&mut rng, 3_000),
        };
        files.push((format!("file-{i}"), bytes));
    }
    for (name, bytes) in &files {
        fs::write(mount.join(name), bytes).expect("write");
        File::open(mount.join(name)).and_then(|f| f.sync_all()).expect("fsync");
    }
    // Some are changed, cut and removed after they were synced.
    for (name, bytes) in files.iter_mut().step_by(4) {
        let len = bytes.len() / 2;
        bytes.truncate(len);
        let file = File::options().write(true).open(mount.join(&*name)).expect("open");
        file.set_len(len as u64).and_then(|()| file.sync_all()).expect("cut");
    }
    for (name, _) in files.extract_if(.., |(name, _)| name.ends_with('7')) {
        fs::remove_file(mount.join(&name)).expect("remove");
    }
    drop(mount);
    let dir = cluster.ost_dir(0, 0);
    let at = dir.display().to_string();
    cluster.sateen(&["fsck", "--rebuild-index", "--dir", &at]).assert_fails_with_hint(1).assert_says("in use");
    cluster.stop_oss(0);
    let stores: Vec<_> = fs::read_dir(dir.join("fs")).expect("listed").map(|e| e.expect("entry").path()).collect();
    assert_eq!(stores.len(), 1, "one file system: {stores:?}");
    fs::remove_dir_all(stores[0].join("index")).expect("removed");

    let lost = cluster.sateen(&["fsck", "--dir", &at]);
    assert!(lost.code == Some(7) && lost.stdout.contains("index-unreadable"), "{lost}");
    let done = cluster.sateen(&["fsck", "--rebuild-index", "--deep", "--dir", &at]);
    assert!(done.success() && done.stdout.contains("rebuilt: fs 1 the index was made anew"), "{done}");
    assert!(done.stdout.contains("clean") && done.stdout.lines().all(|line| line.chars().count() <= 80), "{done}");

    cluster.start_oss(0);
    cluster.wait_osts_up();
    let mount = cluster.mount();
    for (name, bytes) in &files {
        assert!(fs::read(mount.join(name)).expect("read") == *bytes, "{name}");
    }
    let checked = cluster.sateen(&["fsck", "--deep"]);
    assert!(checked.success() && checked.stdout.contains("clean"), "{checked}");
    fs::write(mount.join("more"), &files[3].1).expect("write");
    File::open(mount.join("more")).and_then(|f| f.sync_all()).expect("fsync");
    drop(mount);
    cluster.stop_oss(0);
    let at_rest = cluster.sateen(&["fsck", "--dir", &at, "--deep"]);
    assert!(at_rest.success() && !at_rest.stdout.contains("notice"), "{at_rest}");

    // Once more, over an index that is there: the old one stays beside it.
    let again = cluster.sateen(&["fsck", "--rebuild-index", "--dir", &at, "--json"]);
    assert!(again.success() && again.stdout.contains("index.damaged-1"), "{again}");
    assert!(stores[0].join("index.damaged-1").is_dir());
    cluster.start_oss(0);
    cluster.wait_osts_up();
    let mount = cluster.mount();
    assert!(fs::read(mount.join("more")).expect("read") == files[3].1);
}
