//! The data exerciser `fsx`: random operations on files of four geometries, every read compared.

use std::process::Command;
use std::time::Duration;

use rand::Rng;
use sateen_proto::common::Compression;
use sateen_tests::cluster::lfs_ok;
use sateen_tests::rng::seeded;
use sateen_tests::size::amount;
use sateen_tests::{Cluster, ClusterSpec, bins, command};

/// Operations on each geometry in CI, and all: a million over the four.
const OPERATIONS: (u64, u64) = (25_000, 250_000);

/// Every operation fsx knows and Linux has, over a file of several stripes. Mapped writes are left to the kernel to
/// write back (no msync after each), which is the harder case, and the quicker one.
const CONFIG: &str = r#"
flen = 1048576
nomsyncafterwrite = true
[opsize]
min = 1 # Linux refuses to allocate 0 bytes
max = 131072
[weights]
close_open = 1
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 3
fsync = 0.3
fdatasync = 0.3
posix_fallocate = 1
punch_hole = 2
sendfile = 1
posix_fadvise = 1
copy_file_range = 1
"#;

fn no_mismatch(spec: ClusterSpec, striping: &[&str]) {
    let label = spec.label;
    let seed: u32 = seeded(label).random();
    let mut cluster = Cluster::start(spec);
    let mount = cluster.mount();
    let config = cluster.dir().join("fsx.toml");
    std::fs::write(&config, CONFIG).expect("write");
    let file = mount.join("fsx");
    let mut setstripe: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"setstripe"];
    setstripe.extend(striping.iter().map(|s| s as &dyn AsRef<std::ffi::OsStr>));
    setstripe.push(&file);
    lfs_ok(&setstripe);

    let operations = amount(label, OPERATIONS.0, OPERATIONS.1);
    eprintln!("{label}: fsx -S {seed} -N {operations}");
    let mut fsx = Command::new(bins::tool("fsx"));
    fsx.arg("-f").arg(&config).args(["-S", &seed.to_string(), "-N", &operations.to_string()]);
    let done = command::run(fsx.arg("-P").arg(cluster.dir()).arg(&file), Duration::from_secs(600));
    assert!(done.success(), "{done}");
    assert!(
        done.stdout.contains("All operations completed") || done.stderr.contains("All operations completed"),
        "{done}"
    );
    eprintln!("{label}: {operations} operations, no mismatch, {:.0?}", done.took);
    cluster.assert_runs();
}

#[test]
fn no_mismatch_on_one_stripe() {
    no_mismatch(ClusterSpec::new("fsx-c1"), &["-c", "1"]);
}

#[test]
fn no_mismatch_on_four_small_stripes() {
    no_mismatch(ClusterSpec::new("fsx-c4"), &["-c", "4", "-S", "64K"]);
}

#[test]
fn no_mismatch_on_a_progressive_layout() {
    let components = [
        "-E", "192K", "-c", "1", "-S", "64K", "-E", "512K", "-c", "2", "-S", "64K", "-E", "-1", "-c", "4", "-S", "64K",
    ];
    no_mismatch(ClusterSpec::new("fsx-pfl"), &components);
}

#[test]
fn no_mismatch_without_compression() {
    let spec = ClusterSpec { compression: Compression::None, ..ClusterSpec::new("fsx-none") };
    no_mismatch(spec, &["-c", "2", "-S", "128K"]);
}
