//! The whole server, with a registry that answers as told.

mod support;

use std::net::SocketAddr;
use std::path::Path;

use sateen_oss::config::{Config, OstConfig};
use sateen_oss::server;
use sateen_proto::common::Compression;
use sateen_proto::oss::object_store_client::ObjectStoreClient;
use sateen_proto::oss::{ObjectId, Part, PunchRequest, StatFsRequest, WriteRequest};
use sateen_proto::status::from_status;
use sateen_runtime::{ByteSize, Shutdown};
use sateen_types::{ClusterId, Fid, FsCode, FsResult};
use support::FakeMds;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

fn config(mds: SocketAddr, dirs: &[&Path]) -> Config {
    Config {
        listen: "127.0.0.1:0".into(),
        mds: vec![mds.to_string()],
        ost: dirs
            .iter()
            .map(|dir| OstConfig { path: dir.to_path_buf(), capacity: Some(ByteSize(1 << 30)), create: true })
            .collect(),
        ..Config::default()
    }
}

struct Server {
    stop: Shutdown,
    task: JoinHandle<FsResult<()>>,
    ready: oneshot::Receiver<SocketAddr>,
}

fn start(config: Config) -> Server {
    let stop = Shutdown::new();
    let (tell, ready) = oneshot::channel();
    let task = tokio::spawn(server::run(config, stop.clone(), move |address| {
        let _ = tell.send(address);
    }));
    Server { stop, task, ready }
}

impl Server {
    async fn ready(&mut self) -> SocketAddr {
        (&mut self.ready).await.expect("it gets ready")
    }

    async fn stop(self) -> FsResult<()> {
        self.stop.request();
        self.task.await.expect("no panic")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_osts_get_their_index_and_keep_it_and_the_mds_hears_of_them() {
    let dirs = [tempfile::tempdir().expect("temp dir"), tempfile::tempdir().expect("temp dir")];
    let mds = FakeMds::new(ClusterId([4; 16]));
    let paths: Vec<&Path> = dirs.iter().map(|d| d.path()).collect();
    let config = config(mds.serve().await, &paths);
    for life in 0..2 {
        let mut server = start(config.clone());
        let address = server.ready().await;
        let heard = mds.hear(2).await;
        assert_eq!(heard.address, address.to_string());
        assert_eq!(heard.osts.iter().map(|o| o.index).collect::<Vec<_>>(), [Some(10), Some(11)]);
        assert!(heard.osts.iter().all(|o| !o.failed && o.space.as_ref().is_some_and(|s| s.total == 1 << 30)));
        let mut client = ObjectStoreClient::connect(format!("http://{address}")).await.expect("reachable");
        client.stat_fs(StatFsRequest { ost: 11 }).await.expect("served under its index");
        *mds.forget.lock() = true;
        mds.hear(3).await;
        drop(client);
        server.stop().await.expect("stopped");
        let registrations = std::mem::take(&mut *mds.registrations.lock());
        assert_eq!(registrations.len(), 2, "at start and when the MDS asked");
        let known = registrations[0].osts.iter().map(|o| o.index.is_some()).collect::<Vec<_>>();
        assert_eq!(known, [life > 0; 2]);
        assert_eq!(registrations[0].cluster_id.is_empty(), life == 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_shut_out_is_refused_from_the_first_request_on_and_after_every_registration() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mds = FakeMds::new(ClusterId([4; 16]));
    let config = config(mds.serve().await, &[dir.path()]);
    for (writer, asked_to_register) in [(7, false), (8, true)] {
        if !asked_to_register {
            mds.ended.lock().push(writer);
        }
        let mut server = start(config.clone());
        let address = server.ready().await;
        assert!(mds.heartbeats.borrow().0 > 0, "the MDS counts on it when it is ready");
        if asked_to_register {
            mds.ended.lock().push(writer);
            *mds.forget.lock() = true;
            // The first one asks, the second comes after the registration.
            mds.hear(2).await;
        }
        let heard = mds.hear(1).await;
        assert_eq!(heard.registration, mds.registrations.lock().len() as u64, "it confirms the last one");
        assert!(heard.osts.iter().all(|ost| !ost.draining));
        let mut client = ObjectStoreClient::connect(format!("http://{address}")).await.expect("reachable");
        let punch = |writer| PunchRequest {
            ost: 10,
            object: Some(ObjectId { fs_id: 1, fid: Some(Fid::ROOT.into()), component: 1, stripe: 0 }),
            chunk_log2: 17,
            offset: 0,
            length: 1,
            writer,
            generation: 0,
        };
        let write = |writer| WriteRequest {
            ost: 10,
            object: punch(0).object,
            chunk_log2: 17,
            compression: Compression::None.into(),
            parts: vec![Part {
                raw_len: 1,
                stored_len: 1,
                raw_crc32c: crc32c::crc32c(b"x"),
                stored_crc32c: crc32c::crc32c(b"x"),
                ..Part::default()
            }],
            writer,
            generation: 0,
            payload: b"x".to_vec().into(),
        };
        client.write(write(99)).await.expect("whose session lives");
        assert_eq!(from_status(&client.write(write(writer)).await.expect_err("shut out")).code, FsCode::Stale);
        assert_eq!(from_status(&client.punch(punch(writer)).await.expect_err("shut out")).code, FsCode::Stale);
        drop(client);
        server.stop().await.expect("stopped");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ost_of_another_cluster_a_second_server_and_a_damaged_superblock_are_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mds = FakeMds::new(ClusterId([4; 16]));
    let ours = config(mds.serve().await, &[dir.path()]);
    let mut server = start(ours.clone());
    server.ready().await;
    let err = start(ours.clone()).task.await.expect("no panic").expect_err("in use");
    assert!(err.code == FsCode::Busy && err.hint.is_some(), "{err}");
    server.stop().await.expect("stopped");

    let foreign = FakeMds::new(ClusterId([6; 16]));
    let err = start(config(foreign.serve().await, &[dir.path()])).task.await.expect("no panic").expect_err("foreign");
    assert!(err.code == FsCode::WrongCluster && err.hint.is_some(), "{err}");

    let path = dir.path().join("superblock");
    let mut bytes = std::fs::read(&path).expect("read");
    bytes[40] ^= 0x10;
    std::fs::write(&path, bytes).expect("written");
    let err = start(ours).task.await.expect("no panic").expect_err("damaged");
    assert!(err.code == FsCode::Corrupt && err.hint.is_some(), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_waits_for_its_mds_and_can_be_stopped_meanwhile() {
    let dir = tempfile::tempdir().expect("temp dir");
    let parked = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let nobody = parked.local_addr().expect("bound");
    drop(parked);
    let mut server = start(config(nobody, &[dir.path()]));
    server.stop.request();
    assert!((&mut server.ready).await.is_err(), "never ready");
    server.task.await.expect("no panic").expect("stopping is no error");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_and_a_bad_configuration_are_errors_with_a_hint() {
    let dir = tempfile::tempdir().expect("temp dir");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mds = taken.local_addr().expect("bound");
    let listen = mds.to_string();
    let err = start(Config { listen, ..config(mds, &[dir.path()]) }).task.await.expect("no panic").expect_err("taken");
    assert!(err.code == FsCode::Io && err.hint.is_some() && err.message.contains("cannot listen"), "{err}");
    let err = start(config(mds, &[])).task.await.expect("no panic").expect_err("no OST");
    assert!(err.code == FsCode::Invalid && err.hint.is_some(), "{err}");
}
