//! Layouts: what `lfs setstripe` asks for is what files get, what directories hand down, and where the bytes really are.

use std::collections::BTreeSet;
use std::path::Path;

use sateen_tests::cluster::{lfs, lfs_ok};
use sateen_tests::damage::segment_bytes;
use sateen_tests::rng::{noise, pattern, seeded};
use sateen_tests::{Cluster, ClusterSpec};

const MIB: usize = 1 << 20;

/// Values of every line `KEY:   VALUE` of `lfs getstripe FILE`.
fn values(getstripe: &str, key: &str) -> Vec<String> {
    let start = format!("{key}:");
    getstripe.lines().filter_map(|l| l.trim().strip_prefix(&start)).map(|v| v.trim().to_owned()).collect()
}

/// OST of every object line: `- 0: { l_ost_idx: 3, l_fid: [...] }` of a composite file, a table row of a plain one.
fn object_osts(getstripe: &str) -> Vec<u32> {
    let after = |l: &str| -> Option<u32> {
        match l.split_once("l_ost_idx:") {
            Some((_, rest)) => rest.split(',').next()?.trim().parse().ok(),
            None if l.starts_with('\t') => l.split_whitespace().next()?.parse().ok(),
            None => None,
        }
    };
    getstripe.lines().filter_map(after).collect()
}

fn getstripe(path: &Path) -> String {
    lfs_ok(&[&"getstripe", &path])
}

/// One single value of `lfs getstripe OPTION FILE`.
fn one(option: &str, path: &Path) -> String {
    lfs_ok(&[&"getstripe", &option, &path]).trim().to_owned()
}

#[test]
fn a_file_beyond_100_mib_really_uses_several_osts() {
    let mut rng = seeded("striping");
    let mut cluster = Cluster::start(ClusterSpec::new("big-file"));
    let mount = cluster.mount();
    let path = mount.join("big");
    let before: Vec<u64> = cluster.ost_dirs().iter().map(|d| segment_bytes(d)).collect();
    let bytes = noise(&mut rng, 140 * MIB);
    std::fs::write(&path, &bytes).expect("write");
    std::fs::File::open(&path).and_then(|f| f.sync_all()).expect("fsync");

    let text = getstripe(&path);
    let flags = values(&text, "lcme_flags");
    assert_eq!(flags, ["init", "init", "0", "0"], "{text}");
    assert_eq!(values(&text, "lcme_extent.e_end"), ["104857600", "10737418240", "107374182400", "EOF"], "{text}");
    // Component 1 has one stripe, component 2 wants 8 and gets the 4 there are.
    assert_eq!(values(&text, "lmm_stripe_count")[..2], ["1", "4"], "{text}");
    let osts = object_osts(&text);
    assert_eq!(osts.len(), 5, "{text}");
    assert_eq!(osts[1..].iter().collect::<BTreeSet<_>>().len(), 4, "{text}");

    let grown: Vec<u64> =
        cluster.ost_dirs().iter().zip(&before).map(|(d, b)| segment_bytes(d).saturating_sub(*b)).collect();
    eprintln!("bytes on the OSTs: {grown:?}");
    assert!(grown.iter().all(|g| *g >= 10 * MIB as u64), "40 MiB in 4 stripes put 10 MiB on each OST: {grown:?}");
    assert!(grown.iter().sum::<u64>() >= bytes.len() as u64, "{grown:?}");
    assert!(std::fs::read(&path).expect("read") == bytes, "the bytes read differ from those written");
    cluster.assert_runs();
}

#[test]
fn setstripe_on_a_directory_is_inherited_by_files_and_subdirectories() {
    let mut cluster = Cluster::start(ClusterSpec::new("inherit"));
    let mut mount = cluster.mount();
    let dir = mount.join("d");
    std::fs::create_dir(&dir).expect("mkdir");
    lfs_ok(&[&"setstripe", &"-c", &"4", &"-S", &"256K", &dir]);
    let sub = dir.join("sub");
    std::fs::create_dir(&sub).expect("mkdir");
    for (n, parent) in [&dir, &sub].into_iter().enumerate() {
        let file = parent.join("f");
        let bytes = pattern(n as u64, 3 * MIB + 17);
        std::fs::write(&file, &bytes).expect("write");
        assert_eq!(one("-c", &file), "4");
        assert_eq!(one("-S", &file), "262144");
        let osts = object_osts(&getstripe(&file));
        assert_eq!(osts.iter().collect::<BTreeSet<_>>().len(), 4, "{osts:?}");
        assert!(std::fs::read(&file).expect("read") == bytes);
    }
    mount.remount();
    assert!(std::fs::read(sub.join("f")).expect("read") == pattern(1, 3 * MIB + 17));
    assert_eq!(one("-c", &sub.join("f")), "4");

    // Without the default, new files get the file system's again; old ones keep theirs.
    lfs_ok(&[&"setstripe", &"-d", &dir]);
    std::fs::write(dir.join("g"), b"x").expect("write");
    assert_eq!(one("--component-count", &dir.join("g")), "4");
    assert_eq!(one("-c", &dir.join("f")), "4");
    cluster.assert_runs();
}

#[test]
fn a_progressive_layout_is_honoured_and_inherited() {
    let mut cluster = Cluster::start(ClusterSpec::new("pfl"));
    let mount = cluster.mount();
    let dir = mount.join("d");
    std::fs::create_dir(&dir).expect("mkdir");
    let pfl =
        ["-E", "1M", "-c", "1", "-S", "64K", "-E", "8M", "-c", "2", "-S", "512K", "-E", "-1", "-c", "4", "-S", "1M"];
    let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"setstripe"];
    args.extend(pfl.iter().map(|a| a as &dyn AsRef<std::ffi::OsStr>));
    args.push(&dir);
    lfs_ok(&args);

    let (small, large) = (dir.join("small"), dir.join("large"));
    std::fs::write(&small, pattern(1, 300_000)).expect("write");
    std::fs::write(&large, pattern(2, 13 * MIB + 5)).expect("write");

    let text = getstripe(&small);
    assert_eq!(values(&text, "lcme_flags"), ["init", "0", "0"], "{text}");
    let text = getstripe(&large);
    assert_eq!(values(&text, "lcme_flags"), ["init", "init", "init"], "{text}");
    assert_eq!(values(&text, "lcme_extent.e_start"), ["0", "1048576", "8388608"], "{text}");
    assert_eq!(values(&text, "lcme_extent.e_end"), ["1048576", "8388608", "EOF"], "{text}");
    assert_eq!(values(&text, "lmm_stripe_count"), ["1", "2", "4"], "{text}");
    assert_eq!(values(&text, "lmm_stripe_size"), ["65536", "524288", "1048576"], "{text}");
    assert_eq!(object_osts(&text).len(), 7, "{text}");
    assert!(std::fs::read(&large).expect("read") == pattern(2, 13 * MIB + 5));
    assert!(std::fs::read(&small).expect("read") == pattern(1, 300_000));
    cluster.assert_runs();
}

#[test]
fn chosen_osts_are_used_in_their_order() {
    let mut cluster = Cluster::start(ClusterSpec::new("chosen"));
    let mount = cluster.mount();
    let (start, list) = (mount.join("start"), mount.join("list"));
    lfs_ok(&[&"setstripe", &"-i", &"2", &"-c", &"1", &start]);
    lfs_ok(&[&"setstripe", &"-o", &"3,1", &"-S", &"64K", &list]);
    std::fs::write(&start, pattern(1, 200_000)).expect("write");
    std::fs::write(&list, pattern(2, 200_000)).expect("write");
    assert_eq!(object_osts(&getstripe(&start)), [2]);
    assert_eq!(object_osts(&getstripe(&list)), [3, 1]);
    assert_eq!(one("-i", &start), "2");
    // All OSTs.
    let all = mount.join("all");
    lfs_ok(&[&"setstripe", &"-c", &"-1", &all]);
    assert_eq!(one("-c", &all), "4");
    cluster.assert_runs();
}

#[test]
fn bad_stripings_are_refused_and_change_nothing() {
    let mut cluster = Cluster::start(ClusterSpec::new("bad-stripe"));
    let mount = cluster.mount();
    let file = mount.join("f");
    std::fs::write(&file, b"data").expect("write");
    let done = lfs(&[&"setstripe", &"-c", &"2", &file]);
    assert_eq!(done.code, Some(17), "EEXIST, as Lustre's lfs: {done}");
    assert!(done.stderr.contains("already set"), "{done}");
    for bad in [&["-S", "100"][..], &["-S", "1000001"], &["-c", "2001"], &["-c", "x"], &["-o", "77"], &["-E", "100"]] {
        let new = mount.join("new");
        let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"setstripe"];
        args.extend(bad.iter().map(|a| a as &dyn AsRef<std::ffi::OsStr>));
        args.push(&new);
        let done = lfs(&args);
        assert!(!done.success() && !done.stderr.is_empty(), "{bad:?}: {done}");
        assert!(!new.exists(), "{bad:?} left a file behind");
    }
    assert_eq!(std::fs::read(&file).expect("read"), b"data");
    cluster.assert_runs();
}

#[test]
fn lfs_shows_targets_space_and_fids() {
    let mut cluster = Cluster::start(ClusterSpec::new("lfs"));
    let mount = cluster.mount();
    let root = mount.path();

    let osts = lfs_ok(&[&"osts", &root]);
    let expected: String = (0..4).map(|i| format!("{i}: scratch-OST000{i}_UUID ACTIVE\n")).collect();
    assert_eq!(osts, format!("OBDS:\n{expected}"));
    assert_eq!(lfs_ok(&[&"mdts", &root]), "MDTS:\n0: scratch-MDT0000_UUID ACTIVE\n");

    let df = lfs_ok(&[&"df", &root]);
    let lines: Vec<&str> = df.lines().filter(|l| !l.is_empty()).collect();
    assert!(lines[0].starts_with("UUID                   1K-blocks        Used   Available Use% Mounted on"), "{df}");
    assert!(lines[1].starts_with("scratch-MDT0000_UUID") && lines[1].ends_with("[MDT:0]"), "{df}");
    for i in 0..4 {
        assert!(lines[2 + i].starts_with(&format!("scratch-OST000{i}_UUID")), "{df}");
        assert!(lines[2 + i].ends_with(&format!("[OST:{i}]")), "{df}");
    }
    assert!(lines[6].starts_with("filesystem_summary:"), "{df}");
    assert!(lfs_ok(&[&"df", &"-h", &root]).contains("filesystem_summary:"));
    assert!(lfs_ok(&[&"df", &"-i", &root]).contains("IFree"));

    let (dir, file) = (mount.join("dir"), mount.join("dir/file"));
    std::fs::create_dir(&dir).expect("mkdir");
    std::fs::write(&file, pattern(1, 3_000)).expect("write");
    std::fs::hard_link(&file, mount.join("other")).expect("link");
    let fid = lfs_ok(&[&"path2fid", &file]);
    let fid = fid.trim();
    assert!(fid.starts_with("[0x2") && fid.ends_with(":0x0]"), "{fid}");
    assert_eq!(lfs_ok(&[&"path2fid", &mount.join("other")]).trim(), fid);
    let paths = lfs_ok(&[&"fid2path", &root, &fid]);
    let paths: BTreeSet<&str> =
        paths.lines().map(|p| p.rsplit("mnt0/").next().unwrap_or(p).trim_start_matches('/')).collect();
    assert_eq!(paths, BTreeSet::from(["dir/file", "other"]));
    let missing = lfs(&[&"fid2path", &root, &"[0x200000400:0xfffff:0x0]"]);
    assert!(!missing.success(), "{missing}");
    cluster.assert_runs();
}

#[test]
fn lfs_find_selects_by_name_type_size_and_layout() {
    let mut cluster = Cluster::start(ClusterSpec::new("lfs-find"));
    let mount = cluster.mount();
    let root = mount.path();
    std::fs::create_dir_all(mount.join("a/b")).expect("mkdir");
    let wide = mount.join("a/wide.dat");
    lfs_ok(&[&"setstripe", &"-c", &"3", &wide]);
    std::fs::write(&wide, pattern(1, 2 * MIB)).expect("write");
    std::fs::write(mount.join("a/b/small.dat"), b"small").expect("write");
    std::fs::write(mount.join("a/other.txt"), b"text").expect("write");
    let find = |tests: &[&str]| -> BTreeSet<String> {
        let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"find", &root];
        args.extend(tests.iter().map(|t| t as &dyn AsRef<std::ffi::OsStr>));
        let root = root.to_string_lossy().into_owned();
        lfs_ok(&args).lines().map(|l| l.strip_prefix(&root).unwrap_or(l).trim_start_matches('/').to_owned()).collect()
    };
    let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(find(&["-name", "*.dat"]), set(&["a/wide.dat", "a/b/small.dat"]));
    assert_eq!(find(&["--type", "d"]), set(&["", "a", "a/b"]));
    assert_eq!(find(&["-type", "f", "!", "-name", "*.dat"]), set(&["a/other.txt"]));
    assert_eq!(find(&["-size", "+1M"]), set(&["a/wide.dat"]));
    assert_eq!(find(&["--stripe-count", "3"]), set(&["a/wide.dat"]));
    assert_eq!(find(&["-type", "f", "-maxdepth", "2"]), set(&["a/wide.dat", "a/other.txt"]));
    assert_eq!(find(&["-type", "f", "-mtime", "+1"]), set(&[]));
    let zero = lfs_ok(&[&"find", &root, &"-name", &"*.txt", &"-print0"]);
    assert!(zero.ends_with("a/other.txt\0"), "{zero:?}");
    cluster.assert_runs();
}
