//! The real program: what it says when it cannot start, and what a `kill -9` leaves.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
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

const PROGRAM: &str = env!("CARGO_BIN_EXE_sateen-mds");
const PATIENCE: Duration = Duration::from_secs(30);

fn config(dir: &Path, port: u16) -> std::path::PathBuf {
    let file = dir.join(format!("mds-{port}.toml"));
    let text = format!("listen = \"127.0.0.1:{port}\"\ndir = {:?}\n", dir.join("mds"));
    std::fs::write(&file, text).expect("writes");
    file
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("binds").port()
}

fn run(config: &Path) -> Output {
    Command::new(PROGRAM).arg("--config").arg(config).output().expect("runs")
}

fn refused(output: &Output, what: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("error: ") && text.contains(what) && text.contains("\nhint: "), "{text}");
}

/// A server process; killed when dropped.
struct Server(Child);

impl Server {
    /// Returns when it says that it is ready.
    fn start(config: &Path) -> Server {
        let spawned = Command::new(PROGRAM).arg("--config").arg(config).stderr(Stdio::piped()).spawn();
        let mut server = Server(spawned.expect("starts"));
        let lines = BufReader::new(server.0.stderr.take().expect("piped")).lines();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // The reader stays to keep the pipe empty; the test may have gone.
                let _ = tell.send(line);
            }
        });
        let start = Instant::now();
        let mut seen = String::new();
        while let Ok(line) = told.recv_timeout(PATIENCE.saturating_sub(start.elapsed())) {
            seen.push_str(&line);
            if line.contains("ready") {
                return server;
            }
        }
        panic!("not ready: {seen}");
    }

    fn kill(&mut self) {
        self.0.kill().expect("kills");
        self.0.wait().expect("ends");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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
        let workers: Vec<_> =
            (0..8u32).map(|slot| tokio::spawn(make_directories(names.clone(), life, slot, stop.clone()))).collect();
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

/// Makes directories until told to stop or the server is gone; gives those that were answered.
async fn make_directories(
    mut names: NamespaceClient<tonic::transport::Channel>,
    life: u64,
    worker: u32,
    stop: Arc<AtomicBool>,
) -> Vec<String> {
    let mut made = Vec::new();
    let open = OpenSessionRequest { hello: Some(version::hello("t")), fs_name: "k".into(), client: "t".into() };
    let Ok(session) = names.open_session(open).await else { return made };
    let session_id = session.into_inner().session_id;
    for number in 1.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let name = format!("d-{life}-{worker}-{number}");
        let mkdir = Mkdir { parent: Some(Fid::ROOT.into()), name: name.clone().into(), mode: 0o755 };
        let request = ExecuteRequest {
            session_id: session_id.clone(),
            slot: 0,
            number,
            credential: Some(Credential { uid: 1, gid: 1, groups: vec![] }),
            op: Some(Op::Mkdir(mkdir)),
        };
        if names.execute(request).await.is_err() {
            break;
        }
        made.push(name);
    }
    made
}
