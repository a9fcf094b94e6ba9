//! The real program: what it says to a wrong start, and what it keeps when it is killed.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use sateen_proto::common::Compression;
use sateen_proto::oss::object_store_client::ObjectStoreClient;
use sateen_proto::oss::*;
use sateen_types::{ClusterId, Fid};
use support::FakeMds;
use tonic::transport::Channel;

const PROGRAM: &str = env!("CARGO_BIN_EXE_sateen-oss");
const CHUNK: u64 = 1 << 17;

/// Writes the configuration of one OST in `dir`.
fn configure(dir: &Path, mds: &str, more: &str) -> PathBuf {
    let path = dir.join("oss.toml");
    let ost = dir.join("ost0");
    let text = format!("listen = \"127.0.0.1:0\"\nmds = \"{mds}\"\n{more}\n[[ost]]\npath = {ost:?}\n");
    std::fs::write(&path, text).expect("written");
    path
}

fn run(config: &Path) -> Output {
    Command::new(PROGRAM).arg("--config").arg(config).output().expect("runs")
}

#[test]
fn a_wrong_start_ends_with_exit_code_1_an_error_and_a_hint() {
    let dir = tempfile::tempdir().expect("temp dir");
    let unknown = configure(dir.path(), "127.0.0.1:1", "lisen = \"x\"");
    let bad_value = dir.path().join("bad.toml");
    std::fs::write(&bad_value, "[store]\nsegment = \"many\"").expect("written");
    for (config, what) in [(unknown, "lisen"), (bad_value, "segment"), (dir.path().join("none.toml"), "none.toml")] {
        let output = run(&config);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("error: ") && text.contains(what) && text.contains("\nhint: "), "{text}");
    }
}

/// A running server that is killed, not stopped, when it is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().expect("it runs until it is killed");
        self.0.wait().expect("it ends");
    }
}

async fn start(config: &Path, mds: &FakeMds) -> (Killed, ObjectStoreClient<Channel>) {
    let child = Command::new(PROGRAM).arg("--config").arg(config).stderr(Stdio::null()).spawn().expect("runs");
    let server = Killed(child);
    // A heartbeat of the one before may still arrive; nobody answers under its address.
    loop {
        let address = mds.hear(1).await.address;
        if let Ok(client) = ObjectStoreClient::connect(format!("http://{address}")).await {
            return (server, client);
        }
    }
}

fn object(oid: u32) -> Option<ObjectId> {
    let fid = Fid { seq: Fid::SEQ_FIRST, oid, ver: 0 };
    Some(ObjectId { fs_id: 1, fid: Some(fid.into()), component: 1, stripe: 0 })
}

/// The content of version `version` of a chunk.
fn content(oid: u32, chunk: u64, version: u64) -> Vec<u8> {
    let line = format!("object {oid} chunk {chunk} version {version}; ");
    line.bytes().cycle().take(CHUNK as usize).collect()
}

fn write_request(oid: u32, chunk: u64, version: u64) -> WriteRequest {
    let bytes = content(oid, chunk, version);
    let crc = crc32c::crc32c(&bytes);
    let len = bytes.len() as u32;
    let part = Part {
        offset: chunk * CHUNK,
        raw_len: len,
        stored_len: len,
        raw_crc32c: crc,
        stored_crc32c: crc,
        sealed: version.is_multiple_of(2),
        ..Default::default()
    };
    WriteRequest {
        ost: 10,
        object: object(oid),
        chunk_log2: 17,
        compression: Compression::Lz4.into(),
        parts: vec![part],
        payload: bytes.into(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_answered_is_lost_when_the_server_is_killed_again_and_again() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mds = FakeMds::new(ClusterId([4; 16]));
    let config = configure(dir.path(), &mds.serve().await.to_string(), "[store]\ncommit_interval_ms = 10");
    // Last version that was answered, and last that was sent, of each chunk.
    let mut ledger: BTreeMap<(u32, u64), (u64, u64)> = BTreeMap::new();
    let mut version = 0;
    for life in 0..6 {
        let (server, client) = start(&config, &mds).await;
        let mut reader = client.clone();
        for (&(oid, chunk), (answered, sent)) in &mut ledger {
            let request = ReadRequest {
                ost: 10,
                object: object(oid),
                chunk_log2: 17,
                offset: chunk * CHUNK,
                length: CHUNK as u32,
                ..Default::default()
            };
            let payload = reader.read(request).await.expect("never corrupt").into_inner().payload;
            let found = (*answered..=*sent).find(|&v| payload == content(oid, chunk, v));
            *answered = found.unwrap_or_else(|| panic!("life {life}: object {oid} chunk {chunk} lost {answered}"));
        }
        // Four writers, killed in the middle: each sends until the server is gone.
        let mut writers = Vec::new();
        for oid in 1..=4u32 {
            let mut client = client.clone();
            let first = version + 1;
            writers.push(tokio::spawn(async move {
                let mut log = Vec::new();
                for i in 0.. {
                    let (chunk, version) = (i % 7, first + i);
                    let answered = client.write(write_request(oid, chunk, version)).await.is_ok();
                    log.push((chunk, version, answered));
                    if !answered {
                        break;
                    }
                }
                (oid, log)
            }));
        }
        mds.hear(2).await;
        drop(server);
        for writer in writers {
            let (oid, log) = writer.await.expect("no panic");
            for (chunk, sent, answered) in log {
                version = version.max(sent);
                let entry = ledger.entry((oid, chunk)).or_insert((0, 0));
                *entry = (if answered { sent } else { entry.0 }, sent);
            }
        }
        ledger.retain(|_, (answered, _)| *answered > 0);
        assert!(version > 10 * (life + 1), "the writers got somewhere");
    }
}
