//! Memory stays bounded: over a long stream, with many open files, when the disk stands still, and when readers stop
//! reading; and while a bucket of any size is imported. Measured as resident memory of the processes, which must have levelled off.

use std::fs::File;
use std::iter::repeat;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use bytes::Bytes;
use sateen_proto::oss::WriteReply;
use sateen_tests::disk::{DiskSpec, FileSystem};
use sateen_tests::invented::Invented;
use sateen_tests::memory::{mib, peak, resident};
use sateen_tests::plain::{CHUNK, new_object, oss_of, raw, read, write};
use sateen_tests::repository::Linked;
use sateen_tests::rng::pattern;
use sateen_tests::rpc::block_on;
use sateen_tests::s3::Pace;
use sateen_tests::size::amount;
use sateen_tests::wire::{READ, WRITE, Wire, framed};
use sateen_tests::{Cluster, ClusterSpec, Mount, wait};
use sateen_types::repository::{ImportState, ImportStatus};
use tokio::task::JoinSet;

const MIB: usize = 1 << 20;
const CHUNK_BYTES: u64 = CHUNK as u64;

/// GiB of the stream in CI, and all.
const STREAM_GIB: (u64, u64) = (1, 20);
/// MiB of the stream between two looks at the memory.
const LOOK_MIB: u64 = 32;
/// How long memory may take to be what it was.
const LEVEL: Duration = Duration::from_secs(120);
/// Growth of a process over a stream that counts as none: what allocators and the index's own cycle of
/// filling and flushing make of it.
const FLAT: u64 = 48 << 20;
/// A mount's memory at most: dirty data and cache (256 MiB each by default), and 128 MiB for everything else.
const MOUNT_MAX: u64 = 640 << 20;
/// An OSS's memory at most: the index's cache (128 MiB) and payload in flight (256 MiB) by default, and 128 MiB for
/// everything else.
const OSS_MAX: u64 = 512 << 20;

/// Open files in CI, and all.
const FILES: (u64, u64) = (2_000, 10_000);
/// Memory of a mount for each open file, at most.
const MOUNT_PER_FILE: u64 = 24 << 10;
/// Memory of an OSS for each open file, at most.
const OSS_PER_FILE: u64 = 8 << 10;

/// Limits of the OSS where it is to be overrun, as in its configuration.
const NARROW: &str = "[limits]\nrequests = 32\ninflight_bytes = \"32MiB\"\n";
/// Memory that [`NARROW`] allows: 32 requests of 1 MiB or 4 MiB answers, and 32 MiB of payload at work; with what
/// connections may send ahead (16 MiB each) beside it, and room for the allocator.
const NARROW_MAX: u64 = (32 << 20) + (32 << 20) + CONNECTIONS * (16 << 20) + (64 << 20);
/// Connections that overrun it.
const CONNECTIONS: u64 = 4;
/// Requests on each.
const REQUESTS: u64 = 100;
/// How long memory is watched while nothing can go on.
const WATCHED: Duration = Duration::from_secs(5);

/// Memory of the mount and of each OSS.
fn memory(cluster: &Cluster, mount: &Mount) -> Vec<(String, u64)> {
    let oss = (0..cluster.oss_count()).map(|i| (format!("OSS {i}"), resident(cluster.oss_id(i))));
    std::iter::once(("mount".to_owned(), resident(mount.id()))).chain(oss).collect()
}

/// The most each process had during a part of the work.
#[derive(Default)]
struct Peaks(Vec<(String, u64)>);

impl Peaks {
    fn look(&mut self, cluster: &Cluster, mount: &Mount) {
        let now = memory(cluster, mount);
        if self.0.is_empty() {
            self.0 = now;
        } else {
            self.0.iter_mut().zip(now).for_each(|(peak, now)| peak.1 = peak.1.max(now.1));
        }
    }
}

/// Objects of a bucket that is imported in CI, and all.
const OBJECTS: (u64, u64) = (50_000, 5_000_000);
/// A worker's memory at most while it imports and compares them.
const WORKER_MAX: u64 = 300 << 20;
/// Objects that are imported in a second at least, on a loaded machine: how long the end is waited for.
const OBJECTS_PER_SECOND: u64 = 2_000;

/// `step` for each MiB of `gib` GiB. No process ever has more memory than it may; and in the end, while the stream goes on over
/// its last part, none has more than in the first half. (At one moment it may: what is under way differs.)
fn flat_over(cluster: &Cluster, mount: &Mount, what: &str, gib: u64, mut step: impl FnMut(u64)) {
    let mut peaks = [Peaks::default(), Peaks::default()];
    let count = gib << 10;
    for n in 0..count {
        step(n);
        if n % LOOK_MIB == LOOK_MIB - 1 {
            peaks[usize::from(n >= count / 2)].look(cluster, mount);
        }
    }
    let [first, second] = peaks.map(|peaks| peaks.0);
    for ((name, first), (_, second)) in first.iter().zip(&second) {
        let [first, most_seen] = [*first, *second].map(mib);
        eprintln!("{what} {gib} GiB: {name} {first:.0} MiB at most in the first half, {most_seen:.0} in the second");
        let most = if name == "mount" { MOUNT_MAX } else { OSS_MAX };
        assert!(*second <= most, "{what}: {name} has {most_seen:.0} MiB, at most {:.0} are expected", mib(most));
    }
    let mut last = second;
    let level = wait::try_until(LEVEL, || {
        (count - LOOK_MIB..count).for_each(&mut step);
        last = memory(cluster, mount);
        last.iter().zip(&first).all(|((_, now), (_, first))| *now <= first + FLAT).then_some(())
    });
    assert!(level.is_some(), "{what}: memory was at most {first:?} in the first half and stays at {last:?}");
}

/// Block `n` of the stream: differs from its neighbours, and compresses well, so that 20 GiB fit on any disk.
fn block(n: u64) -> Vec<u8> {
    let mut block = vec![n as u8; MIB];
    for page in block.chunks_mut(4096) {
        page[..512].copy_from_slice(&pattern(n, 512));
    }
    block
}

#[test]
fn a_long_stream_leaves_no_memory_behind() {
    let gib = amount("memory of a stream, GiB", STREAM_GIB.0, STREAM_GIB.1);
    let mut cluster = Cluster::start(ClusterSpec::new("memory-stream"));
    let mut mount = cluster.mount();
    let path = mount.join("stream");
    let file = File::create_new(&path).expect("create");
    flat_over(&cluster, &mount, "writing", gib, |n| {
        file.write_all_at(&block(n), n << 20).expect("write");
    });
    file.sync_all().expect("fsync");
    drop(file);
    mount.remount();
    let file = File::open(&path).expect("open");
    let mut got = vec![0; MIB];
    flat_over(&cluster, &mount, "reading", gib, |n| {
        file.read_exact_at(&mut got, n << 20).expect("read");
        assert!(got == block(n), "MiB {n} is not what was written");
    });
    drop(file);
    cluster.assert_runs();
}

/// Lets this process have `files` files open.
fn allow_open(files: u64) {
    let resource = rustix::process::Resource::Nofile;
    let mut limit = rustix::process::getrlimit(resource);
    limit.current = limit.current.max(Some(files + 500)).min(limit.maximum.or(Some(u64::MAX)));
    rustix::process::setrlimit(resource, limit).expect("setrlimit");
    assert!(limit.current >= Some(files + 500), "the system allows {:?} open files only", limit.current);
}

#[test]
fn open_files_cost_little_and_use_of_them_nothing_more() {
    let count = amount("memory of open files", FILES.0, FILES.1);
    allow_open(count);
    let mut cluster = Cluster::start(ClusterSpec::new("memory-files"));
    let mount = cluster.mount();
    let dir = mount.join("open");
    std::fs::create_dir(&dir).expect("mkdir");
    let before = memory(&cluster, &mount);
    let open = |n: u64| {
        File::options().read(true).write(true).create_new(true).open(dir.join(format!("{n:05}"))).expect("create")
    };
    let files: Vec<File> = (0..count).map(open).collect();
    // Each round writes every file, makes it durable, and reads it back.
    let round = |round: u64| {
        for (n, file) in files.iter().enumerate() {
            let bytes = pattern(round << 32 | n as u64, 3_000);
            file.write_all_at(&bytes, 0).expect("write");
            if n % 100 == 99 {
                file.sync_all().expect("fsync");
            }
        }
        for (n, file) in files.iter().enumerate() {
            let mut got = vec![0; 3_000];
            file.read_exact_at(&mut got, 0).expect("read");
            assert!(got == pattern(round << 32 | n as u64, 3_000), "file {n} has other bytes");
        }
        memory(&cluster, &mount)
    };
    // Whoever holds memory back for reuse has done so after the second round.
    let [first, second, _, last] = [round(1), round(2), round(3), round(4)];
    for ((((name, before), (_, first)), (_, second)), (_, last)) in before.into_iter().zip(first).zip(second).zip(last)
    {
        let per_file = first.saturating_sub(before) / count;
        let [before_mib, first_mib, second_mib, last_mib] = [before, first, second, last].map(mib);
        eprintln!(
            "{count} open files: {name} {before_mib:.0} MiB before, {per_file} bytes a file, then {first_mib:.0}, \
             {second_mib:.0} and {last_mib:.0} MiB"
        );
        let most = if name == "mount" { MOUNT_PER_FILE } else { OSS_PER_FILE };
        assert!(first <= before + count * most + FLAT, "{name}: {per_file} bytes for each open file, at most {most}");
        assert!(last <= second + FLAT, "{name} grew from {second_mib:.0} to {last_mib:.0} MiB by use of open files");
    }
    drop(files);
    cluster.assert_runs();
}

/// Watches an OSS while nothing can go on; gives the most memory it had.
fn watch(id: u32) -> u64 {
    let mut most = 0;
    let nothing: Option<()> = wait::try_until(WATCHED, || {
        most = most.max(resident(id));
        None
    });
    assert!(nothing.is_none());
    most
}

#[test]
fn a_disk_that_stands_still_grows_no_memory_and_loses_nothing() {
    let disk = DiskSpec { file_system: FileSystem::Ext4, bytes: 2 << 30 };
    let spec = ClusterSpec { oss: 1, oss_extra: NARROW.into(), disk: Some(disk), ..ClusterSpec::new("memory-disk") };
    let mut cluster = Cluster::start(spec);
    let oss_id = cluster.oss_id(0);
    let (ost, object) = block_on(new_object(cluster.mds_address(), b"slow"));
    let oss = block_on(oss_of(cluster.mds_address(), ost));
    let bytes_of = |n: u64| pattern(n, MIB);
    let before = resident(oss_id);
    let still = cluster.disk().stand_still();
    // Everybody writes; nobody is answered until the disk moves again.
    let writers = std::thread::spawn(move || {
        block_on(async move {
            let mut writes = JoinSet::new();
            for connection in 0..CONNECTIONS {
                let wire = std::sync::Arc::new(Wire::connect(oss, 1 << 20).await);
                for request in 0..REQUESTS {
                    let n = connection * REQUESTS + request;
                    let wire = wire.clone();
                    writes.spawn(async move {
                        let bytes = bytes_of(n);
                        let part = |(i, data): (usize, &[u8])| raw((n << 20) + i as u64 * CHUNK_BYTES, data, true);
                        let parts = bytes.chunks(CHUNK).enumerate().map(part).collect();
                        let request = framed(&write(ost, &object, parts, bytes.clone()));
                        wire.exchange(WRITE, request, repeat(usize::MAX)).await
                    });
                }
            }
            writes.join_all().await
        })
    });
    let most = watch(oss_id);
    let wanted = CONNECTIONS * REQUESTS;
    eprintln!("{wanted} MiB wanted to be written: {:.0} MiB before, at most {:.0}", mib(before), mib(most));
    assert!(!writers.is_finished(), "somebody was answered by a disk that stands still");
    assert!(most <= before + NARROW_MAX, "grew from {:.0} to {:.0} MiB", mib(before), mib(most));
    drop(still);
    let answers = writers.join().expect("the writers do not panic");
    let written = answers.iter().filter(|a| a.status == Some(0)).count();
    for answer in answers {
        assert_eq!(answer.status, Some(0), "{}", answer.said);
        let _: WriteReply = prost::Message::decode(answer.message).expect("a reply");
    }
    block_on(async {
        let wire = Wire::connect(oss, 8 << 20).await;
        for n in 0..wanted {
            let request = framed(&read(ost, &object, n << 20, MIB));
            let answer = wire.exchange(READ, request, repeat(usize::MAX)).await;
            assert_eq!(answer.status, Some(0), "{}", answer.said);
            let reply: sateen_proto::oss::ReadReply = prost::Message::decode(answer.message).expect("a reply");
            assert!(reply.payload == bytes_of(n), "MiB {n} is not what was written");
        }
    });
    eprintln!("{written} writes answered when the disk moved again, all read back");
    cluster.assert_runs();
}

#[test]
fn readers_that_do_not_read_grow_no_memory_and_give_it_back() {
    let spec = ClusterSpec { oss: 1, oss_extra: NARROW.into(), ..ClusterSpec::new("memory-readers") };
    let mut cluster = Cluster::start(spec);
    let oss_id = cluster.oss_id(0);
    block_on(async {
        let (ost, object) = new_object(cluster.mds_address(), b"stuck").await;
        let oss = oss_of(cluster.mds_address(), ost).await;
        let bytes = pattern(1, 4 * MIB);
        let parts = bytes.chunks(CHUNK).enumerate().map(|(i, data)| raw(i as u64 * CHUNK_BYTES, data, true)).collect();
        let wire = Wire::connect(oss, 8 << 20).await;
        let written =
            wire.exchange(WRITE, framed(&write(ost, &object, parts, bytes.clone())), repeat(usize::MAX)).await;
        assert_eq!(written.status, Some(0), "{}", written.said);
        let want: Bytes = framed(&read(ost, &object, 0, bytes.len()));

        let before = resident(oss_id);
        let mut stuck = JoinSet::new();
        for _ in 0..CONNECTIONS {
            // Room for next to nothing of the answers, and no more is ever given.
            let wire = std::sync::Arc::new(Wire::connect(oss, 1_000).await);
            for _ in 0..REQUESTS {
                let (wire, want) = (wire.clone(), want.clone());
                stuck.spawn(async move {
                    let mut call = wire.call(READ, &[]).await;
                    call.send(want, repeat(usize::MAX)).await;
                    let held = call.stall().await;
                    std::future::pending::<()>().await;
                    drop(held);
                });
            }
        }
        let watched = tokio::task::spawn_blocking(move || watch(oss_id));
        let most = watched.await.expect("watching does not panic");
        let wanted = CONNECTIONS * REQUESTS * 4;
        eprintln!(
            "{wanted} MiB asked for by readers that are stuck: {:.0} MiB before, at most {:.0}",
            mib(before),
            mib(most)
        );
        assert!(most <= before + NARROW_MAX, "grew from {:.0} to {:.0} MiB", mib(before), mib(most));
        stuck.shutdown().await;

        let answer = wire.exchange(READ, want, repeat(usize::MAX)).await;
        assert_eq!(answer.status, Some(0), "{}", answer.said);
        let reply: sateen_proto::oss::ReadReply = prost::Message::decode(answer.message).expect("a reply");
        assert!(reply.payload == bytes);
    });
    cluster.assert_runs();
}

/// Waits for the end of an import and looks at the worker's memory meanwhile.
fn import_of(linked: &Linked, objects: u64, what: &str) -> ImportStatus {
    let worker = linked.workers[0].id();
    let patience = Duration::from_secs(120 + objects / OBJECTS_PER_SECOND);
    let (mut most, mut looks) = (0, 0);
    let done = wait::until(what, patience, || {
        let now = resident(worker);
        assert!(now <= WORKER_MAX, "{what}: the worker has {:.0} MiB", mib(now));
        (most, looks) = (now.max(most), looks + 1);
        let import = linked.now()?.import;
        assert_ne!(import.state, ImportState::Failed, "{}", import.message);
        (import.state == ImportState::Done).then_some(import)
    });
    let ever = peak(worker);
    eprintln!("{what}: {objects} objects, {:.0} MiB in {looks} looks, at its peak {:.0}", mib(most), mib(ever));
    assert!(ever <= WORKER_MAX, "{what}: the worker had {:.0} MiB", mib(ever));
    done
}

/// A bucket of which nothing is stored anywhere: only names come, and go through the worker.
#[test]
fn a_worker_is_as_large_whatever_the_size_of_the_bucket() {
    let objects = amount("a_worker_is_as_large_whatever_the_size_of_the_bucket", OBJECTS.0, OBJECTS.1);
    let bucket = Invented::start(objects);
    let endpoint = bucket.endpoint();
    let linked = Linked::begin_with("memory-worker", Pace::default(), |settings| settings.endpoint = endpoint, |_| {});
    let first = import_of(&linked, objects, "an import");
    assert_eq!((first.objects, first.created), (objects, objects + Invented::directories(objects)));
    assert_eq!(first.skipped, 0, "{:?}", first.first_skipped);
    assert!(bucket.lists_at_once() > 1, "a large bucket is listed in several ranges at once");
    let (heads, pages) = (bucket.heads(), objects.div_ceil(1000));
    assert!(bucket.lists() < 3 * pages, "{} lists for {pages} pages", bucket.lists());
    assert!(heads >= objects, "{heads} of {objects} were looked at");
    linked.begin_compare();
    let second = import_of(&linked, objects, "a comparison");
    assert_eq!((second.objects, second.created, second.changed), (objects, 0, 0));
    assert_eq!(bucket.heads(), heads, "what is known is not looked at");
}
