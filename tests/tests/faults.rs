//! Bad input and faults, as people meet them: each gets an error that says what is wrong and what to do, within its
//! time, and nothing is lost.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sateen_tests::cluster::{FS, lfs_ok, mds_config, oss_config};
use sateen_tests::damage::{files, find_bytes, flip, segments};
use sateen_tests::mount::is_mounted;
use sateen_tests::ports::Port;
use sateen_tests::rng::{noise, seeded};
use sateen_tests::scratch::Scratch;
use sateen_tests::{Cluster, ClusterSpec, Done, bins, run, wait};

/// Documented: `connect_timeout` (10 s), with room for a slow machine.
const CONNECT: Duration = Duration::from_secs(25);

/// `sateen mount SOURCE PATH ...`, which is expected to fail.
fn mount(source: &str, path: &Path, more: &[&str]) -> Done {
    let mut command = Command::new(bins::path("sateen"));
    run(command.arg("mount").arg(source).arg(path).args(more), Duration::from_secs(60))
}

/// Starts a server that is expected to refuse, and gives what it said.
fn server(program: &str, config: &Path) -> Done {
    run(Command::new(bins::path(program)).arg("--config").arg(config), Duration::from_secs(60))
}

#[test]
fn a_mount_says_why_it_fails() {
    let mut cluster = Cluster::start(ClusterSpec::new("mount-errors"));
    let point = cluster.dir().join("point");
    fs::create_dir(&point).expect("mkdir");
    let nobody = Port::free();

    let done = mount(&format!("{}:/{FS}", nobody.address()), &point, &[]);
    done.assert_fails_with_hint(5).assert_says(&nobody.number().to_string());
    assert!(done.took < CONNECT, "{done}");

    // Somebody who listens and never answers.
    let silent = TcpListener::bind(nobody.address()).expect("our port is free");
    let done = mount(&format!("{}:/{FS}", nobody.address()), &point, &[]);
    done.assert_fails_with_hint(5);
    assert!(done.took < CONNECT, "{done}");
    drop(silent);

    let mds = cluster.mds_address();
    mount(&format!("{mds}:/nosuch"), &point, &[]).assert_fails_with_hint(3).assert_says("nosuch");
    mount(&format!("{mds}:/a-name-that-is-too-long"), &point, &[]).assert_fails_with_hint(1);
    mount("no-source-at-all", &point, &[]).assert_fails_with_hint(1).assert_says("no-source-at-all");
    mount(&cluster.source(), &point, &["-o", "allow_othr"]).assert_fails_with_hint(1).assert_says("allow_othr");
    mount(&cluster.source(), &cluster.dir().join("missing"), &[]).assert_fails_with_hint(3).assert_says("missing");
    let file = cluster.dir().join("file");
    fs::write(&file, b"").expect("write");
    let done = mount(&cluster.source(), &file, &[]);
    assert!(!done.success(), "{done}");
    done.assert_says("not a directory").assert_says("hint: ");
    assert!(!is_mounted(&point));
    cluster.assert_runs();
}

#[test]
fn mounting_as_mount_8_does_works_and_fails_with_its_codes() {
    let mut cluster = Cluster::start(ClusterSpec::new("mount8"));
    let point = cluster.dir().join("point");
    fs::create_dir(&point).expect("mkdir");
    // Installed as a link: the name decides.
    let program = cluster.dir().join("mount.sateen");
    std::os::unix::fs::symlink(bins::path("sateen"), &program).expect("symlink");
    let helper = |source: &str, options: &str| {
        let mut command = Command::new(&program);
        run(command.arg(source).arg(&point).args(["-o", options]), Duration::from_secs(60))
    };
    let done = helper(&format!("{}:/nosuch", cluster.mds_address()), "rw");
    assert_eq!(done.code, Some(32), "{done}");
    let done = helper(&cluster.source(), "rw,allow_other,_netdev,noatime");
    assert!(done.success(), "{done}");
    // It returned: so the root answers, and the process behind it goes on by itself.
    fs::write(point.join("f"), b"mounted").expect("write");
    assert_eq!(fs::read(point.join("f")).expect("read"), b"mounted");
    let done = run(Command::new("umount").arg(&point), Duration::from_secs(60));
    assert!(done.success(), "{done}");
    wait::until("the end of the mount", wait::SERVER, || (!is_mounted(&point)).then_some(()));

    // Read-only is read-only.
    let done = helper(&cluster.source(), "ro");
    assert!(done.success(), "{done}");
    assert_eq!(fs::read(point.join("f")).expect("read"), b"mounted");
    let error = fs::write(point.join("g"), b"x").expect_err("a read-only mount");
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    let done = run(Command::new("umount").arg(&point), Duration::from_secs(60));
    assert!(done.success(), "{done}");
    cluster.assert_runs();
}

#[test]
fn bad_configurations_are_refused_with_the_key_and_a_suggestion() {
    let scratch = Scratch::new("bad-config");
    let port = Port::free();
    let config = scratch.path().join("c.toml");
    let mds = |text: &str| {
        fs::write(&config, text).expect("write");
        server("sateen-mds", &config)
    };
    let dir = scratch.dir("mds");
    mds(&format!("lisen = \"{}\"\ndir = {dir:?}\n", port.address()))
        .assert_fails_with_hint(1)
        .assert_says("lisen")
        .assert_says("did you mean \"listen\"");
    mds(&format!("listen = \"nonsense\"\ndir = {dir:?}\n")).assert_fails_with_hint(1).assert_says("nonsense");
    mds("listen = \n").assert_fails_with_hint(1).assert_says("c.toml");
    mds(&format!("listen = 7\ndir = {dir:?}\n")).assert_fails_with_hint(1).assert_says("listen");
    server("sateen-mds", &scratch.path().join("missing.toml")).assert_fails_with_hint(1).assert_says("missing.toml");

    let oss = |text: &str| {
        fs::write(&config, text).expect("write");
        server("sateen-oss", &config)
    };
    let osts = [scratch.dir("ost0")];
    let good = oss_config(&port.address(), &port.address(), &osts, None);
    oss(&format!("{good}\ncapasity = 5\n")).assert_fails_with_hint(1).assert_says("capasity");
    oss(&good.replace("[[ost]]", "[[ots]]")).assert_fails_with_hint(1).assert_says("ots");
    oss(&format!("{good}\ncapacity = \"lots\"\n")).assert_fails_with_hint(1).assert_says("lots");
    oss(&oss_config(&port.address(), &port.address(), &[], None)).assert_fails_with_hint(1);
}

#[test]
fn a_second_server_on_a_directory_is_refused() {
    let mut cluster = Cluster::start(ClusterSpec::new("second-server"));
    let port = Port::free();
    let config = cluster.dir().join("second.toml");
    fs::write(&config, mds_config(&port.address(), &cluster.mds_dir(), "")).expect("write");
    server("sateen-mds", &config).assert_fails_with_hint(1).assert_says("in use");
    let osts = [cluster.ost_dir(0, 0)];
    fs::write(&config, oss_config(&port.address(), &cluster.mds_address(), &osts, None)).expect("write");
    server("sateen-oss", &config).assert_fails_with_hint(1).assert_says("in use");
    // A port that is taken is named.
    let other = cluster.dir().join("other");
    fs::create_dir(&other).expect("mkdir");
    fs::write(&config, mds_config(&cluster.mds_address(), &other, "")).expect("write");
    server("sateen-mds", &config).assert_fails_with_hint(1).assert_says(&cluster.mds_address().port().to_string());
    cluster.assert_runs();
}

#[test]
fn an_ost_of_another_cluster_is_refused() {
    let mut home = Cluster::start(ClusterSpec::new("home"));
    let foreign = Cluster::start(ClusterSpec::new("foreign"));
    home.stop_oss(0);
    let port = Port::free();
    let config = home.dir().join("stray.toml");
    let osts = [home.ost_dir(0, 0)];
    fs::write(&config, oss_config(&port.address(), &foreign.mds_address(), &osts, None)).expect("write");
    server("sateen-oss", &config).assert_fails_with_hint(1).assert_says("cluster");
    assert_eq!(sateen_tests::rpc::osts_up(foreign.mds_address()), Some(4));
    // At home it is welcome as before.
    home.start_oss(0);
    home.wait_osts_up();
}

#[test]
fn a_damaged_superblock_is_refused_and_not_overwritten() {
    let mut cluster = Cluster::start(ClusterSpec::new("superblock"));
    cluster.stop_oss(0);
    let damaged = cluster.ost_dir(0, 0).join("superblock");
    let good = fs::read(&damaged).expect("a superblock");
    flip(&damaged, good.len() as u64 / 2);
    let bad = fs::read(&damaged).expect("a superblock");
    server("sateen-oss", cluster.oss_config(0)).assert_fails_with_hint(1).assert_says("superblock");
    fs::write(&damaged, b"").expect("write");
    server("sateen-oss", cluster.oss_config(0)).assert_fails_with_hint(1).assert_says("superblock");
    fs::write(&damaged, &bad).expect("write");
    server("sateen-oss", cluster.oss_config(0)).assert_fails_with_hint(1);
    assert_eq!(fs::read(&damaged).expect("read"), bad, "the evidence is kept");
    fs::write(&damaged, &good).expect("write");
    cluster.start_oss(0);

    cluster.stop_mds();
    let damaged = cluster.mds_dir().join("superblock");
    let good = fs::read(&damaged).expect("a superblock");
    flip(&damaged, good.len() as u64 / 2);
    server("sateen-mds", cluster.mds_config()).assert_fails_with_hint(1).assert_says("superblock");
    fs::write(&damaged, &good).expect("write");
    cluster.start_mds();
    cluster.wait_osts_up();
}

#[test]
fn a_full_ost_is_enospc_and_service_goes_on_after_deleting() {
    let mut rng = seeded("full");
    let spec = ClusterSpec { oss: 1, osts_per_oss: 1, ost_capacity: Some(64 << 20), ..ClusterSpec::new("full") };
    let mut cluster = Cluster::start(spec);
    let mount = cluster.mount();
    fs::write(mount.join("small"), b"kept").expect("write");
    let big = mount.join("big");
    let piece = noise(&mut rng, 1 << 20);
    let fill = || -> std::io::Result<()> {
        let mut file = File::create(&big)?;
        for _ in 0..100 {
            file.write_all(&piece)?;
        }
        file.sync_all()
    };
    let error = fill().expect_err("100 MiB do not fit into 64 MiB");
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
    // Names and what is there go on.
    assert_eq!(fs::read(mount.join("small")).expect("read"), b"kept");
    fs::create_dir(mount.join("d")).expect("mkdir");
    fs::remove_file(&big).expect("unlink");
    wait::until("space for new data", wait::SERVER, || {
        let path = mount.join("again");
        let write = File::create(&path).and_then(|mut f| f.write_all(&piece).and_then(|()| f.sync_all()));
        match write {
            Ok(()) => Some(()),
            Err(e) => {
                assert_eq!(e.raw_os_error(), Some(libc::ENOSPC), "{e}");
                None
            }
        }
    });
    assert!(fs::read(mount.join("again")).expect("read") == piece);
    cluster.assert_runs();
}

#[test]
fn a_flipped_byte_in_a_segment_is_eio_and_named_in_the_log() {
    let mut rng = seeded("flipped byte");
    let mut cluster = Cluster::start(ClusterSpec { oss: 1, ..ClusterSpec::new("flip") });
    let mut mount = cluster.mount();
    let (bad, good) = (mount.join("bad"), mount.join("good"));
    // Incompressible, so that the bytes stand in the segment as they are.
    let bytes = noise(&mut rng, 1 << 20);
    fs::write(&bad, &bytes).expect("write");
    fs::write(&good, &bytes[..500_000]).expect("write");
    for path in [&bad, &good] {
        File::open(path).and_then(|f| f.sync_all()).expect("fsync");
    }
    let fid = lfs_ok(&[&"path2fid", &bad]).trim().to_owned();
    mount.unmount();

    // The end of the file: its bytes are in the bad one only.
    let at = bytes.len() - 10_000;
    let segments: Vec<PathBuf> = cluster.ost_dirs().iter().flat_map(|d| segments(d)).collect();
    let places: Vec<(&PathBuf, u64)> =
        segments.iter().flat_map(|s| find_bytes(s, &bytes[at..at + 64]).into_iter().map(move |o| (s, o))).collect();
    assert_eq!(places.len(), 1, "the bytes stand in one segment: {places:?}");
    flip(places[0].0, places[0].1);

    mount.mount();
    let error = fs::read(&bad).expect_err("damaged data must not be returned");
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
    // The chunks before the damage are still good, and so are other files.
    let mut start = vec![0; 100_000];
    File::open(&bad).and_then(|f| f.read_exact_at(&mut start, 0)).expect("read");
    assert!(start == bytes[..100_000]);
    assert!(fs::read(&good).expect("read") == bytes[..500_000]);
    let log = cluster.oss_log(0);
    // FID, component and stripe are the object.
    let names_it = |l: &str| l.contains("ERROR") && l.contains(&fid) && l.contains("component=1 stripe=0 chunk=7");
    let said = log.lines().any(names_it);
    assert!(said, "no event names {fid} and its object:\n{}", sateen_tests::command::tail(&log, 20));
    cluster.assert_runs();
}

/// Times a call that must fail with one of two errors within `timeout` seconds and some.
#[track_caller]
fn fails_in_time<T: std::fmt::Debug>(timeout: u64, call: impl FnOnce() -> std::io::Result<T>) {
    let started = Instant::now();
    let error = call().expect_err("a server is away");
    let took = started.elapsed();
    let code = error.raw_os_error();
    assert!([Some(libc::ETIMEDOUT), Some(libc::EHOSTDOWN)].contains(&code), "{error}");
    assert!(took < Duration::from_secs(timeout + 15), "after {took:?}: {error}");
}

#[test]
fn a_soft_mount_fails_in_time_when_a_server_is_away_and_goes_on_when_it_is_back() {
    let mut cluster = Cluster::start(ClusterSpec::new("away"));
    let mount = cluster.mount_with(&["allow_other", "soft", "timeout=3"]);
    let path = mount.join("f");
    fs::write(&path, b"here").expect("write");

    cluster.kill_mds();
    fails_in_time(3, || fs::create_dir(mount.join("d")));
    cluster.start_mds();
    cluster.wait_osts_up();
    fs::create_dir(mount.join("d")).expect("mkdir");
    assert_eq!(fs::read(&path).expect("read"), b"here");

    // A file on OST 0 only, and one on OST 2 only: the OSSes fail alone.
    let (first, second) = (mount.join("first"), mount.join("second"));
    lfs_ok(&[&"setstripe", &"-i", &"0", &"-c", &"1", &first]);
    lfs_ok(&[&"setstripe", &"-i", &"2", &"-c", &"1", &second]);
    fs::write(&first, vec![1; 300_000]).expect("write");
    fs::write(&second, vec![2; 300_000]).expect("write");
    drop(mount);
    let mount = cluster.mount_with(&["allow_other", "soft", "timeout=3"]);
    let (first, second) = (mount.join("first"), mount.join("second"));
    let on_first_oss = sateen_tests::rpc::osts(cluster.mds_address()).expect("OSTs");
    let zero = on_first_oss.iter().find(|o| o.index == 0).expect("OST 0").address.clone();
    let down = (0..cluster.oss_count()).find(|i| cluster.oss_address(*i).to_string() == zero).expect("its OSS");
    let two = on_first_oss.iter().find(|o| o.index == 2).expect("OST 2").address.clone();
    assert_ne!(zero, two, "OSTs 0 and 2 are on different OSSes");
    cluster.kill_oss(down);
    fails_in_time(3, || fs::read(&first));
    assert!(fs::read(&second).expect("the other OSS serves") == vec![2; 300_000]);
    cluster.start_oss(down);
    cluster.wait_osts_up();
    assert!(fs::read(&first).expect("read") == vec![1; 300_000]);
}

#[test]
fn new_files_avoid_an_ost_that_is_down() {
    let mut cluster = Cluster::start(ClusterSpec::new("avoid-down"));
    let mount = cluster.mount();
    let mds = cluster.mds_address();
    cluster.kill_oss(1);
    wait::until("the MDS to notice", Duration::from_secs(120), || {
        (sateen_tests::rpc::osts_up(mds) == Some(2)).then_some(())
    });
    for n in 0..8 {
        let path = mount.join(format!("f{n}"));
        fs::write(&path, vec![n; 200_000]).expect("write");
        File::open(&path).and_then(|f| f.sync_all()).expect("fsync");
    }
    let status = cluster.sateen(&["status"]);
    assert_eq!(status.code, Some(7), "degraded: {status}");
    cluster.start_oss(1);
    cluster.wait_osts_up();
    let status = cluster.sateen(&["status"]);
    assert_eq!(status.code, Some(0), "{status}");
}

#[test]
fn the_command_line_answers_with_hints_and_exit_codes() {
    let mut cluster = Cluster::start(ClusterSpec::new("cli"));
    cluster.sateen(&["fs", "show", "nosuch"]).assert_fails_with_hint(3).assert_says("nosuch");
    cluster.sateen(&["fs", "create", FS]).assert_fails_with_hint(1).assert_says(FS);
    let done = cluster.sateen(&["fs", "create", "bad name!"]);
    assert!(!done.success() && done.stderr.contains("bad name!"), "{done}");
    assert_eq!(cluster.sateen(&["no-such-verb"]).code, Some(2));
    let created = cluster.sateen(&["fs", "create", "second", "--compression", "none"]);
    assert!(created.success(), "{created}");
    let list = cluster.sateen(&["fs", "list", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&list.stdout).unwrap_or_else(|e| panic!("{e}: {list}"));
    assert!(json.to_string().contains("second") && json.to_string().contains(FS), "{list}");
    // A mounted file system is not deleted under its users.
    let mount = cluster.mount();
    cluster.sateen(&["fs", "delete", FS, "--yes"]).assert_fails_with_hint(1);
    drop(mount);
    let deleted = cluster.sateen(&["fs", "delete", "second", "--yes"]);
    assert!(deleted.success(), "{deleted}");
    wait::until("the end of the file system", wait::SERVER, || {
        (cluster.sateen(&["fs", "show", "second"]).code == Some(3)).then_some(())
    });
    for dir in cluster.ost_dirs() {
        assert!(files(&dir).iter().all(|f| !f.to_string_lossy().contains("/fs/2/")), "its data is gone");
    }

    let text = cluster.sateen(&["status"]).stdout;
    assert!(text.lines().count() <= 24 && text.lines().all(|l| l.chars().count() <= 80), "80 x 24:\n{text}");
    cluster.kill_mds();
    let done = cluster.sateen(&["status"]);
    done.assert_fails_with_hint(5);
    assert!(done.took < CONNECT, "{done}");
}
