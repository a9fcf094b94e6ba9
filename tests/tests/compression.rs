//! What data costs on the disks of the OSTs, counted as `du` counts.

use std::path::{Path, PathBuf};

use sateen_tests::damage::disk_bytes;
use sateen_tests::rng::{noise, seeded};
use sateen_tests::{Cluster, ClusterSpec, Mount};

/// Enough that the index and its log are small beside it.
const BYTES: usize = 192 << 20;

/// Disk space of all OST directories, indexes included.
fn used(cluster: &Cluster) -> u64 {
    cluster.ost_dirs().iter().map(|d| disk_bytes(d)).sum()
}

/// Real text: headers of this machine, one after the other, as often as it takes.
fn text(len: usize) -> Vec<u8> {
    let mut files: Vec<PathBuf> = sateen_tests::damage::files(Path::new("/usr/include"));
    files.truncate(3_000);
    let once: Vec<u8> = files.iter().filter_map(|f| std::fs::read(f).ok()).flatten().collect();
    assert!(once.len() > 1 << 20, "/usr/include is too small");
    once.iter().copied().cycle().take(len).collect()
}

/// Writes `bytes` and gives the disk space they cost per byte, in percent.
fn cost_percent(label: &'static str, bytes: &[u8]) -> u64 {
    let mut cluster = Cluster::start(ClusterSpec::new(label));
    let mut mount = cluster.mount();
    let path = mount.join("data");
    let before = used_when_open(&cluster, &mount);
    std::fs::write(&path, bytes).expect("write");
    sync(&path);
    let cost = used(&cluster).saturating_sub(before);
    let percent = cost * 100 / bytes.len() as u64;
    eprintln!("{label}: {} bytes cost {cost} bytes on the OSTs: {percent} %", bytes.len());
    mount.remount();
    assert!(std::fs::read(&path).expect("read") == bytes, "the bytes read differ from those written");

    // What it costs, `stat` says as well.
    let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&path).expect("stat")) * 512;
    assert!(blocks.abs_diff(cost) <= cost / 10, "st_blocks says {blocks} bytes, the disks {cost}");
    cluster.assert_runs();
    percent
}

/// Opens every store and gives the disk space they take: their logs are allocated ahead, which is not the data's cost.
fn used_when_open(cluster: &Cluster, mount: &Mount) -> u64 {
    let warm = mount.join("warm");
    sateen_tests::cluster::lfs_ok(&[&"setstripe", &"-c", &"-1", &"-S", &"64K", &warm]);
    std::fs::write(&warm, vec![1; 4 << 20]).expect("write");
    sync(&warm);
    used(cluster)
}

fn sync(path: &Path) {
    std::fs::File::open(path).and_then(|f| f.sync_all()).expect("fsync");
}

#[test]
fn text_takes_less_space_than_its_size() {
    let percent = cost_percent("text", &text(BYTES));
    assert!(percent <= 60, "{percent} %");
}

#[test]
fn incompressible_data_takes_at_most_four_percent_more() {
    let mut rng = seeded("incompressible");
    let percent = cost_percent("noise", &noise(&mut rng, BYTES));
    assert!(percent <= 104, "{percent} %");
}

#[test]
fn space_comes_back_after_unlink() {
    let mut rng = seeded("space comes back");
    let mut cluster = Cluster::start(ClusterSpec::new("unlink-space"));
    let mount = cluster.mount();
    let path = mount.join("data");
    let empty = used_when_open(&cluster, &mount);
    std::fs::write(&path, noise(&mut rng, 64 << 20)).expect("write");
    sync(&path);
    assert!(used(&cluster) >= empty + (64 << 20));
    std::fs::remove_file(&path).expect("unlink");
    sateen_tests::wait::until("the space of a removed file comes back", sateen_tests::wait::SERVER, || {
        (used(&cluster) < empty + (8 << 20)).then_some(())
    });
    cluster.assert_runs();
}
