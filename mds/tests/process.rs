//! The real program: what it says when it cannot start, and what a `kill -9` leaves.

mod support;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sateen_mds::namespace::check::check;
use sateen_mds::store::{RocksOptions, RocksStore, Store, Table};
use sateen_proto::mds::cluster_client::ClusterClient;
use sateen_proto::mds::execute_request::Op;
use sateen_proto::mds::namespace_client::NamespaceClient;
use sateen_proto::mds::*;
use sateen_proto::version;
use sateen_types::Fid;

use support::{PATIENCE, PROGRAM, Server, config, free_port};

/// Runs it to its end, which must come in time.
fn run(config: &Path) -> Output {
    let mut command = Command::new(PROGRAM);
    let mut child =
        command.arg("--config").arg(config).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("runs");
    let start = Instant::now();
    while child.try_wait().expect("ours").is_none() {
        if start.elapsed() > PATIENCE {
            child.kill().expect("kills");
            panic!("it neither serves nor ends: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("ended")
}

fn refused(output: &Output, what: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("error: ") && text.contains(what) && text.contains("\nhint: "), "{text}");
}

#[test]
fn what_keeps_it_from_starting_is_said_with_a_hint() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let bad = dir.path().join("bad.toml");
    std::fs::write(&bad, "lisen = \"127.0.0.1:1\"").expect("writes");
    refused(&run(&bad), "lisen");
    refused(&run(&dir.path().join("missing.toml")), "missing.toml");
    let port = free_port();
    let mut first = Server::start(&config(dir.path(), port));
    refused(&run(&config(dir.path(), free_port())), "in use by another server");
    let elsewhere = dir.path().join("other");
    std::fs::create_dir(&elsewhere).expect("makes");
    refused(&run(&config(&elsewhere, port)), "cannot listen on");
    first.kill();
    let superblock = dir.path().join("mds/superblock");
    let mut bytes = std::fs::read(&superblock).expect("reads");
    bytes[35] ^= 0x40;
    std::fs::write(&superblock, bytes).expect("writes");
    refused(&run(&config(dir.path(), port)), "damaged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_answered_before_a_kill_is_there_and_the_tables_are_sound() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let port = free_port();
    let config = config(dir.path(), port);
    let url = format!("http://127.0.0.1:{port}");
    let mut server = Server::start(&config);
    let mut cluster = ClusterClient::connect(url.clone()).await.expect("connects");
    let fs = CreateFileSystemRequest { name: "k".into(), root_mode: 0o777, ..Default::default() };
    cluster.create_file_system(fs).await.expect("creates");
    let mut answered: Vec<String> = Vec::new();
    for life in 0..6u64 {
        let names = NamespaceClient::connect(url.clone()).await.expect("connects");
        let stop = Arc::new(AtomicBool::new(false));
        let workers: Vec<_> = (0..8u32)
            .map(|slot| tokio::spawn(make_directories(names.clone(), life, slot, stop.clone(), usize::MAX)))
            .collect();
        // Where in the stream of commits the kill falls differs from life to life.
        tokio::time::sleep(Duration::from_millis(40 + 37 * life)).await;
        server.kill();
        stop.store(true, Ordering::SeqCst);
        for worker in workers {
            answered.extend(worker.await.expect("joins"));
        }
        server = Server::start(&config);
    }
    server.kill();
    assert!(answered.len() > 50, "only {} were made", answered.len());
    let store = RocksStore::open(&dir.path().join("mds/fs/1"), Table::OF_FILE_SYSTEM, RocksOptions::default());
    let store = store.expect("recovers");
    let view = store.snapshot();
    assert_eq!(check(&*view).expect("reads"), Vec::<String>::new());
    let there: std::collections::HashSet<String> = view
        .scan(Table::Dentries, &Fid::ROOT.to_bytes(), None, usize::MAX >> 1)
        .expect("scans")
        .into_iter()
        .map(|(key, _)| String::from_utf8_lossy(&key[16..]).into_owned())
        .collect();
    let lost: Vec<_> = answered.iter().filter(|n| !there.contains(*n)).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), answered.len());
}

/// Directories that are made before the log is damaged: so few that it stays within one of its 32 KiB blocks.
const FEW: usize = 12;

/// A directory of an MDS that was killed after it had made `FEW` directories, their names, and the log that has them.
async fn killed(dir: &Path) -> (std::path::PathBuf, Vec<String>) {
    let port = free_port();
    let mut server = Server::start(&config(dir, port));
    let url = format!("http://127.0.0.1:{port}");
    let mut cluster = ClusterClient::connect(url.clone()).await.expect("connects");
    let fs = CreateFileSystemRequest { name: "k".into(), root_mode: 0o777, ..Default::default() };
    cluster.create_file_system(fs).await.expect("creates");
    let names = NamespaceClient::connect(url).await.expect("connects");
    let made = make_directories(names, 0, 0, Arc::default(), FEW).await;
    assert_eq!(made.len(), FEW);
    server.kill();
    let entries = std::fs::read_dir(dir.join("mds/fs/1")).expect("lists").map(|e| e.expect("entry").path());
    (entries.filter(|p| p.extension().is_some_and(|e| e == "log")).max().expect("a log"), made)
}

/// Where the records of a log begin that has one block, and where the last ends.
fn records(log: &[u8]) -> Vec<usize> {
    let mut starts = vec![0];
    while let Some(header) = log[starts[starts.len() - 1]..].get(..7) {
        assert_eq!(header[6], 1, "a whole record");
        starts.push(starts[starts.len() - 1] + 7 + usize::from(u16::from_le_bytes([header[4], header[5]])));
    }
    assert!(log.len() < 32 << 10 && starts.len() > FEW, "{} bytes", log.len());
    starts
}

/// Opens a copy of the database `fs` with `log` in place of its own, and gives the names in it, sorted.
fn names_with(fs: &Path, log: &Path, bytes: &[u8]) -> Vec<String> {
    let dir = tempfile::tempdir().expect("temporary directory");
    for entry in std::fs::read_dir(fs).expect("lists") {
        let path = entry.expect("entry").path();
        std::fs::copy(&path, dir.path().join(path.file_name().expect("named"))).expect("copies");
    }
    std::fs::write(dir.path().join(log.file_name().expect("named")), bytes).expect("writes");
    let (tell, told) = std::sync::mpsc::channel();
    let path = dir.path().to_owned();
    std::thread::spawn(move || {
        let store = RocksStore::open(&path, Table::OF_FILE_SYSTEM, RocksOptions::default()).expect("opens");
        let view = store.snapshot();
        assert_eq!(check(&*view).expect("reads"), Vec::<String>::new());
        let rows = view.scan(Table::Dentries, &Fid::ROOT.to_bytes(), None, usize::MAX >> 1).expect("scans");
        let names = rows.into_iter().map(|(key, _)| String::from_utf8_lossy(&key[16..]).into_owned());
        let names: Vec<String> = names.collect();
        // Closed before the directory goes.
        drop(view);
        drop(store);
        tell.send(names).expect("heard");
    });
    told.recv_timeout(PATIENCE).expect("it opens, in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_a_power_cut_tore_costs_at_most_the_change_that_was_not_answered() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (log, mut made) = killed(dir.path()).await;
    let fs = dir.path().join("mds/fs/1");
    let whole = std::fs::read(&log).expect("reads");
    let starts = records(&whole);
    let (last, end) = (starts[starts.len() - 2], starts[starts.len() - 1]);
    made.sort_unstable();
    assert_eq!(names_with(&fs, &log, &whole), made);
    let garbage: [&[u8]; 5] = [&[0; 9000], &[0xff; 40_000], &[1; 100], b"crc.ln\x05 for ever", &whole[last + 1..]];
    for garbage in garbage {
        assert_eq!(names_with(&fs, &log, &[&whole[..], garbage].concat()), made);
    }
    // Without the last change that RocksDB was told of.
    let before = names_with(&fs, &log, &whole[..last]);
    assert!(made.iter().filter(|name| !before.contains(name)).count() <= 1);
    // Every length is cut alike; what RocksDB makes of it is asked for some.
    for torn in last + 1..end {
        let copy = tempfile::tempdir().expect("temporary directory");
        let path = copy.path().join("000004.log");
        std::fs::write(&path, &whole[..torn]).expect("writes");
        assert_eq!(sateen_runtime::rocksdb_log::cut_torn_tail(copy.path()), Ok((torn - last) as u64));
        assert_eq!(std::fs::read(&path).expect("reads"), whole[..last]);
    }
    for torn in (last + 1..last + 13).step_by(3).chain((last + 13..end).step_by(97)).chain([end - 1]) {
        assert_eq!(names_with(&fs, &log, &whole[..torn]), before, "{} of {}", torn - last, end - last);
        let still = [&whole[..torn], b"\x05\x05\x05\x05\x05\x05\x05\x05\x05"].concat();
        assert_eq!(names_with(&fs, &log, &still), before, "{} of {}", torn - last, end - last);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_before_a_change_that_was_answered_is_refused_in_time_and_left_as_it_is() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (log, _) = killed(dir.path()).await;
    let whole = std::fs::read(&log).expect("reads");
    let starts = records(&whole);
    let middle = starts[starts.len() / 2];
    let config = config(dir.path(), free_port());
    // Checksum, length, type (5 is the one RocksDB does not get past), and a byte of a name.
    for (at, byte) in
        [(middle, 0x55), (middle + 4, 0xee), (middle + 6, 5), (middle + 6, 0), (middle + 90, 0xff), (30, 1)]
    {
        let mut damaged = whole.clone();
        damaged[at] ^= if damaged[at] == byte { 1 } else { damaged[at] ^ byte };
        std::fs::write(&log, &damaged).expect("writes");
        refused(&run(&config), "is damaged at byte");
        assert!(std::fs::read(&log).expect("reads") == damaged, "nothing was cut");
    }
    // RocksDB alone would step over zeros in silence.
    let mut damaged = whole.clone();
    damaged[middle..middle + 7].fill(0);
    std::fs::write(&log, &damaged).expect("writes");
    refused(&run(&config), "is damaged at byte");
    std::fs::write(&log, [&whole[..], b"crc.ln\x05 for ever"].concat()).expect("writes");
    Server::start(&config).kill();
    let fs = log.parent().expect("a directory");
    let current = std::fs::read_to_string(fs.join("CURRENT")).expect("reads");
    let manifest = fs.join(current.trim_end());
    let bytes = std::fs::read(&manifest).expect("reads");
    std::fs::write(&manifest, [&bytes[..], b"crc.ln\x05 for ever"].concat()).expect("writes");
    refused(&run(&config), "is damaged");
}

/// Makes `most` directories, or until told to stop or the server is gone; gives those that were answered.
async fn make_directories(
    mut names: NamespaceClient<tonic::transport::Channel>,
    life: u64,
    worker: u32,
    stop: Arc<AtomicBool>,
    most: usize,
) -> Vec<String> {
    let mut made = Vec::new();
    let open = OpenSessionRequest { hello: Some(version::hello("t")), fs_name: "k".into(), ..Default::default() };
    let Ok(session) = names.open_session(open).await else { return made };
    let session_id = session.into_inner().session_id;
    for number in 1.. {
        if stop.load(Ordering::SeqCst) || made.len() == most {
            break;
        }
        let name = format!("d-{life}-{worker}-{number}");
        let mkdir = Mkdir { parent: Some(Fid::ROOT.into()), name: name.clone().into(), mode: 0o755, masked: 0 };
        let request = ExecuteRequest {
            session_id: session_id.clone(),
            slot: 0,
            number,
            credential: Some(Credential { uid: 1, gid: 1, groups: vec![] }),
            op: Some(Op::Mkdir(mkdir)),
            ..Default::default()
        };
        if names.execute(request).await.is_err() {
            break;
        }
        made.push(name);
    }
    made
}
