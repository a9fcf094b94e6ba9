//! Mounts whose requests come by io_uring. (Half of the mounts of all other tests are such mounts too, where it is switched on.)

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use sateen_tests::locker::Locker;
use sateen_tests::pair::LONG_LEASE;
use sateen_tests::ports::Port;
use sateen_tests::rng::pattern;
use sateen_tests::{Cluster, ClusterSpec, Mount, Pair, metrics, rings, wait};

const LOCKER: &str = env!("CARGO_BIN_EXE_locker");

/// Programs that wait at the same time: many more than a ring has entries in the beginning.
const WAITERS: usize = 40;

/// A cluster with such a mount; `None`, and a line about it, where the kernel does not offer it.
fn mounted(label: &'static str) -> Option<(Cluster, Mount)> {
    if !rings::are_on() {
        skipped();
        return None;
    }
    let cluster = Cluster::start(ClusterSpec::new(label));
    let mount = cluster.mount_with(&["allow_other", "io_uring"]);
    Some((cluster, mount))
}

fn skipped() {
    eprintln!("skipped: /sys/module/fuse/parameters/enable_uring is not Y");
}

#[test]
fn the_option_decides_how_requests_come() {
    let Some((mut cluster, rings_mount)) = mounted("rings-option") else { return };
    let processors = std::thread::available_parallelism().expect("some").get();
    assert!(rings::threads(rings_mount.id()) >= processors, "a ring for each processor");
    let device_mount = cluster.mount_with(&["allow_other", "noio_uring"]);
    assert_eq!(rings::threads(device_mount.id()), 0);
    fs::write(rings_mount.join("f"), "by a ring").expect("write");
    assert_eq!(fs::read_to_string(device_mount.join("f")).expect("read"), "by a ring");
    cluster.assert_runs();
}

#[test]
fn those_who_wait_for_a_lock_do_not_keep_its_holder_from_giving_it_up() {
    if !rings::are_on() {
        return skipped();
    }
    let pair = Pair::with("rings-waiters", LONG_LEASE, &["allow_other", "io_uring"]);
    pair.file("f");
    let path = pair.a.join("f");
    let mut holder = Locker::start(LOCKER, &path);
    holder.ok("set 0 w 0 1");
    let mut waiters: Vec<Locker> = (0..WAITERS).map(|_| Locker::start(LOCKER, &path)).collect();
    // All on one processor, whose ring gets their requests faster than it can add entries.
    waiters.iter().map(Locker::id).chain([holder.id()]).for_each(rings::bind_to_first);
    for waiter in &mut waiters {
        waiter.begin("setw 0 w 0 1");
    }
    wait::until("all of them in the queue", wait::SERVER, || {
        (pair.figure("lock_waiters") == WAITERS as u64).then_some(())
    });
    // Everything else goes on meanwhile,
    fs::write(pair.a.join("g"), "others").expect("write");
    assert_eq!(fs::read_to_string(pair.a.join("g")).expect("read"), "others");
    // and so does the holder, and then one after the other: whoever has it gives it up by its end.
    holder.ok("set 0 u 0 1");
    while !waiters.is_empty() {
        let (next, answer) = wait::until("the next", wait::SERVER, || {
            waiters.iter_mut().enumerate().find_map(|(n, waiter)| Some((n, waiter.try_answer()?)))
        });
        assert_eq!(answer, "ok");
        drop(waiters.swap_remove(next));
    }
}

#[test]
fn large_and_crooked_reads_and_writes_keep_every_byte() {
    let Some((mut cluster, mut mount)) = mounted("rings-large") else { return };
    let path = mount.join("f");
    let bytes = pattern(1, (5 << 20) + 4321);
    let file = File::create_new(&path).expect("create");
    file.write_all_at(&bytes[..777], 0).expect("write");
    file.write_all_at(&bytes[777..], 777).expect("write");
    file.sync_all().expect("fsync");
    drop(file);
    mount.remount();
    assert!(fs::read(&path).expect("read") == bytes);
    let direct = File::options().read(true).custom_flags(libc::O_DIRECT).open(&path).expect("open");
    let mut got = vec![0; (3 << 20) + 99];
    direct.read_exact_at(&mut got, 1 << 20).expect("read");
    assert!(got == bytes[1 << 20..][..got.len()]);
    for n in 0..600 {
        fs::write(mount.join(format!("name-{n:0200}")), "").expect("write");
    }
    assert_eq!(fs::read_dir(mount.path()).expect("list").count(), 601);
    cluster.assert_runs();
}

#[test]
fn programs_do_not_wait_for_a_mount_that_was_killed() {
    if !rings::are_on() {
        return skipped();
    }
    let figures = Port::free();
    let mds_extra = format!("metrics_listen = \"{}\"\n", figures.address());
    let mut cluster = Cluster::start(ClusterSpec { mds_extra, ..ClusterSpec::new("rings-killed") });
    let mut mount = cluster.mount_with(&["allow_other", "io_uring"]);
    let path = mount.join("f");
    fs::write(&path, "x").expect("write");
    let mut holder = Locker::start(LOCKER, &path);
    holder.ok("set 0 w 0 1");
    let mut waiter = Locker::start(LOCKER, &path);
    waiter.begin("setw 0 w 0 1");
    // Another reads from a file that nobody serves any more.
    let file = File::open(&path).expect("open");
    (0..cluster.oss_count()).for_each(|i| cluster.kill_oss(i));
    let reading = std::thread::spawn(move || file.read_at(&mut [0; 8], 0));
    wait::until("a waiter", wait::SERVER, || {
        (metrics::of_file_system(figures.address(), "lock_waiters") == 1).then_some(())
    });
    mount.kill9_process_only();
    let answer = waiter.answer();
    assert!(answer.starts_with("err"), "{answer}");
    wait::until("the end of the read", wait::SERVER, || reading.is_finished().then_some(()));
    // What the kernel had in its pages may have been read.
    let _ = reading.join().expect("no panic");
    drop((holder, waiter));
    mount.kill9();
}
