//! `sateen-mds fsck` and the `Maintenance` service, as the program runs them, on damaged tables in RocksDB.

mod support;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use sateen_mds::namespace::check::check;
use sateen_mds::store::{Overlay, RocksOptions, RocksStore, Store, Table, Txn, keys};
use sateen_proto::common::{FsckEvent, fsck_event::Event};
use sateen_proto::mds::cluster_client::ClusterClient;
use sateen_proto::mds::maintenance_client::MaintenanceClient;
use sateen_proto::mds::{CreateFileSystemRequest, FsckRequest};
use sateen_types::{Fid, Finding, FindingKind, Repair, Tally};

use support::{PROGRAM, Server, config, free_port};

/// Runs the check to its end; gives its events.
fn fsck(dir: &Path, more: &[&str]) -> (Output, Vec<sateen_types::FsckEvent>) {
    let mut command = Command::new(PROGRAM);
    command.arg("fsck").arg("--dir").arg(dir).args(more).stdin(Stdio::null());
    let output = command.output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let events = text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect();
    (output, events)
}

fn found(events: &[sateen_types::FsckEvent]) -> (Vec<Finding>, Tally) {
    let findings = events.iter().filter_map(|e| match e {
        sateen_types::FsckEvent::Finding(finding) => Some(finding.clone()),
        _ => None,
    });
    match events.last() {
        Some(sateen_types::FsckEvent::Done(tally)) => (findings.collect(), *tally),
        other => panic!("the last event is {other:?}"),
    }
}

fn kinds(findings: &[Finding]) -> Vec<(FindingKind, Repair)> {
    findings.iter().map(|f| (f.kind, f.repair)).collect()
}

/// Changes one row of file system 1, whose server is not running.
fn set(dir: &Path, table: Table, key: &[u8], value: Option<&[u8]>) {
    let store = RocksStore::open(&dir.join("fs/1"), Table::OF_FILE_SYSTEM, RocksOptions::default()).expect("opens");
    let view = store.snapshot();
    let mut tx = Overlay::new(&*view);
    match value {
        Some(value) => tx.put(table, key.to_vec(), value.to_vec()),
        None => tx.delete(table, key.to_vec()),
    }
    let changes = tx.into_changes();
    drop(view);
    store.commit(&changes).expect("commits");
}

fn assert_sound(dir: &Path) {
    let store = RocksStore::open(&dir.join("fs/1"), Table::OF_FILE_SYSTEM, RocksOptions::default()).expect("opens");
    assert_eq!(check(&*store.snapshot()).expect("reads"), Vec::<String>::new());
}

async fn create(port: u16) {
    let mut cluster = ClusterClient::connect(format!("http://127.0.0.1:{port}")).await.expect("connects");
    let request = CreateFileSystemRequest { name: "scratch".into(), ..CreateFileSystemRequest::default() };
    cluster.create_file_system(request).await.expect("makes");
}

async fn online(port: u16, file_system: &str, repair: bool) -> Result<Vec<FsckEvent>, tonic::Status> {
    let mut client = MaintenanceClient::connect(format!("http://127.0.0.1:{port}")).await.expect("connects");
    let request = FsckRequest { file_system: file_system.into(), repair };
    let mut stream = client.fsck(request).await?.into_inner();
    let mut events = Vec::new();
    while let Some(event) = stream.message().await? {
        events.push(event);
    }
    Ok(events)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_tables_are_found_at_rest_and_at_work_and_repaired_once() {
    let home = tempfile::tempdir().expect("temporary directory");
    let (dir, port) = (home.path().join("mds"), free_port());
    let configured = config(home.path(), port);
    let mut server = Server::start(&configured);
    create(port).await;
    let (refused, _) = fsck(&dir, &[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("in use") && said.contains("fsck --mdt"), "{said}");
    server.kill();

    let (clean, events) = fsck(&dir, &[]);
    assert!(clean.status.success(), "{clean:?}");
    let (findings, tally) = found(&events);
    assert_eq!((findings, tally.inodes, tally.file_systems), (Vec::new(), 1, 1));

    // A file that nothing leads to waits to be removed, and the count of inodes is wrong.
    let lost = Fid { seq: Fid::SEQ_FIRST, oid: 9, ver: 0 };
    set(&dir, Table::Orphans, &keys::fid(lost), Some(b""));
    set(&dir, Table::Config, keys::INODES, None);
    let want = |repair| vec![(FindingKind::Links, repair), (FindingKind::Counter, repair)];
    for _ in 0..2 {
        assert_eq!(kinds(&found(&fsck(&dir, &[]).1).0), want(Repair::Possible), "nothing is changed by looking");
    }
    assert_eq!(kinds(&found(&fsck(&dir, &["--repair", "--fs", "scratch"]).1).0), want(Repair::Done));
    assert_eq!(found(&fsck(&dir, &["--repair"]).1).0, []);
    assert_sound(&dir);
    let (missing, _) = fsck(&dir, &["--fs", "other"]);
    assert!(!missing.status.success(), "{missing:?}");

    set(&dir, Table::Config, keys::INODES, None);
    set(&dir, Table::Orphans, b"short", Some(b""));
    let server = Server::start(&configured);
    for (repair, wire) in [(false, 1), (true, 2), (true, 0)] {
        let events = online(port, "scratch", repair).await.expect("checks");
        let repairs: Vec<i32> = events
            .iter()
            .filter_map(|e| match &e.event {
                Some(Event::Finding(finding)) => Some(finding.repair),
                _ => None,
            })
            .collect();
        let expected = if wire == 0 { Vec::new() } else { vec![wire; 2] };
        assert_eq!(repairs, expected, "{events:?}");
        assert!(matches!(events.last().and_then(|e| e.event.as_ref()), Some(Event::Done(_))), "{events:?}");
    }
    let unknown = online(port, "other", false).await.expect_err("there is none");
    assert!(unknown.message().contains("other"), "{unknown}");
    drop(server);
    assert_sound(&dir);
}

#[test]
fn a_directory_that_is_not_of_an_mds_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (output, _) = fsck(dir.path(), &["--repair"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("no superblock") && said.contains("hint: "), "{said}");
    assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 0);
}
