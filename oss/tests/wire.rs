//! The service over loopback with an ordinary tonic client, without an MDS.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use sateen_oss::ost::{Ost, OstOptions};
use sateen_oss::rpc::Service;
use sateen_oss::rpc::maintenance::MaintenanceService;
use sateen_oss::scrub::{Scrub, ScrubConfig};
use sateen_oss::server::serve;
use sateen_oss::store::index::IndexCache;
use sateen_proto::common::{self, Compression};
use sateen_proto::oss::object_store_client::ObjectStoreClient;
use sateen_proto::oss::*;
use sateen_proto::status::{from_detail, from_status};
use sateen_proto::version;
use sateen_runtime::Shutdown;
use sateen_types::limits::{
    BULK_BYTES_MAX, ENDED_WRITERS_MAX, MESSAGE_BYTES_MAX, WRITE_MANY_BYTES_MAX, WRITE_MANY_MAX,
};
use sateen_types::{ClusterId, Fid, FsCode, OstIndex};
use tokio::net::TcpListener;
use tonic::transport::Channel;

const OST: u32 = 3;
const CHUNK: usize = 1 << 17;

struct Running {
    client: ObjectStoreClient<Channel>,
    address: SocketAddr,
    stop: Shutdown,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start(dir: &std::path::Path) -> Running {
        let options = OstOptions {
            capacity: Some(1 << 30),
            reserve: 0,
            segment_bytes: 64 << 20,
            cache: IndexCache::new(32 << 20),
            create: true,
        };
        let ost = Arc::new(Ost::open(dir, options).expect("opens"));
        let scrub = Arc::new(Scrub::new(ost.clone(), ScrubConfig::default()).expect("begins"));
        let maintenance = MaintenanceService::new(HashMap::from([(OstIndex(OST as u16), scrub)]));
        let service = Service::new(ClusterId([5; 16]), HashMap::from([(OstIndex(OST as u16), ost)]), 8, 64 << 20);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let stop = Shutdown::new();
        let asked = stop.clone();
        let task = tokio::spawn(async move { serve(service, maintenance, listener, 64, asked).await.expect("served") });
        let client = ObjectStoreClient::connect(format!("http://{address}"))
            .await
            .expect("reachable")
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Running { client, address, stop, task }
    }

    async fn stop(self) {
        drop(self.client);
        self.stop.request();
        self.task.await.expect("stopped");
    }
}

fn object(oid: u32) -> Option<ObjectId> {
    let fid = Fid { seq: Fid::SEQ_FIRST, oid, ver: 0 };
    Some(ObjectId { fs_id: 1, fid: Some(fid.into()), component: 1, stripe: 0 })
}

/// `bytes` as plain parts, one per chunk.
fn write_request(oid: u32, offset: u64, bytes: Vec<u8>) -> WriteRequest {
    let mut parts = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let from = offset + at as u64;
        let len = (CHUNK - from as usize % CHUNK).min(bytes.len() - at);
        let crc = crc32c::crc32c(&bytes[at..at + len]);
        parts.push(Part {
            offset: from,
            raw_len: len as u32,
            stored_len: len as u32,
            raw_crc32c: crc,
            stored_crc32c: crc,
            ..Default::default()
        });
        at += len;
    }
    WriteRequest {
        ost: OST,
        object: object(oid),
        chunk_log2: 17,
        compression: Compression::Lz4.into(),
        parts,
        payload: bytes.into(),
        ..Default::default()
    }
}

fn read_request(oid: u32, offset: u64, length: u32) -> ReadRequest {
    ReadRequest { ost: OST, object: object(oid), chunk_log2: 17, offset, length, sealed: false, verify: false }
}

fn opened(reply: &ReadReply) -> Vec<u8> {
    let mut payload = &reply.payload[..];
    let mut out = Vec::new();
    for part in &reply.parts {
        if part.hole {
            out.resize(out.len() + part.raw_len as usize, 0);
        } else {
            let (bytes, rest) = payload.split_at(part.stored_len as usize);
            assert_eq!(crc32c::crc32c(bytes), part.stored_crc32c);
            out.extend_from_slice(bytes);
            payload = rest;
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_client_writes_reads_and_removes_an_object() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut running = Running::start(dir.path()).await;
    let client = &mut running.client;
    let hello = client.hello(version::hello("test")).await.expect("welcome").into_inner();
    assert_eq!(hello.osts, [OST]);
    version::accept(&hello.hello.expect("there")).expect("same version");

    let data: Vec<u8> = (0..BULK_BYTES_MAX as u32).flat_map(|i| [(i % 251) as u8]).collect();
    let written = client.write(write_request(1, 0, data.clone())).await.expect("a full payload fits").into_inner();
    assert!(written.allocated_delta > 0 && written.allocated_delta < data.len() as i64);
    let committed = client.commit(CommitRequest { ost: OST, fs_id: 1 }).await.expect("committed").into_inner();
    assert_eq!(committed.verifier, written.verifier);

    let reply = client.read(read_request(1, 0, BULK_BYTES_MAX as u32)).await.expect("read").into_inner();
    assert!(opened(&reply) == data);
    assert_eq!(reply.object_size, data.len() as u64);

    let punch =
        PunchRequest { ost: OST, object: object(1), chunk_log2: 17, offset: 0, length: 1 << 20, ..Default::default() };
    assert!(client.punch(punch).await.expect("punched").into_inner().allocated_delta < 0);
    let truncate = TruncateRequest { ost: OST, object: object(1), chunk_log2: 17, size: 3 << 20, ..Default::default() };
    client.truncate(truncate).await.expect("truncated");
    let extents = ExtentsRequest { ost: OST, object: object(1), chunk_log2: 17, offset: 0, max: 9 };
    let extents = client.extents(extents).await.expect("extents").into_inner();
    assert_eq!(extents.extents, [DataExtent { offset: 1 << 20, length: 2 << 20 }]);
    assert!(extents.complete);
    let attr = client.get_attr(GetAttrRequest { ost: OST, object: object(1) }).await.expect("attr").into_inner();
    assert_eq!(attr.size, 3 << 20);
    let space = client.stat_fs(StatFsRequest { ost: OST }).await.expect("statfs").into_inner();
    assert_eq!((space.total, space.used, space.objects), (1 << 30, attr.allocated, 1));

    let objects = vec![object(1).expect("some"), object(2).expect("some")];
    client.destroy(DestroyRequest { ost: OST, objects }).await.expect("destroyed");
    let reply = client.read(read_request(1, 0, 100)).await.expect("a hole").into_inner();
    assert_eq!((opened(&reply), reply.object_size), (vec![0; 100], 0));
    client.drop_file_system(DropFileSystemRequest { ost: OST, fs_id: 1 }).await.expect("dropped");
    let err = client.write(write_request(1, 0, vec![1])).await.expect_err("the file system is gone");
    assert_eq!(from_status(&err).code, FsCode::Stale);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_its_caller_has_given_up_is_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut running = Running::start(dir.path()).await;
    let client = &mut running.client;
    let write = |generation| WriteRequest { writer: 7, generation, ..write_request(1, 0, vec![7; 100]) };
    let punch = |generation| PunchRequest {
        ost: OST,
        object: object(1),
        chunk_log2: 17,
        offset: 0,
        length: 9,
        writer: 7,
        generation,
    };
    let cut =
        |generation| TruncateRequest { ost: OST, object: object(1), chunk_log2: 17, size: 50, writer: 7, generation };
    client.write(write(0)).await.expect("written");
    client.punch(punch(1)).await.expect("punched");
    let late = [
        client.write(write(0)).await.map(drop),
        client.punch(punch(0)).await.map(drop),
        client.truncate(cut(0)).await.map(drop),
    ];
    for refused in late {
        assert_eq!(from_status(&refused.expect_err("given up")).code, FsCode::Interrupted);
    }
    let reply = client.read(read_request(1, 0, 100)).await.expect("read").into_inner();
    assert_eq!((opened(&reply), reply.object_size), ([&[0; 9][..], &[7; 91]].concat(), 100));
    client.truncate(cut(2)).await.expect("cut");
    assert_eq!(from_status(&client.punch(punch(1)).await.expect_err("given up")).code, FsCode::Interrupted);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_session_has_ended_is_refused_and_not_told_to_try_again() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut running = Running::start(dir.path()).await;
    let client = &mut running.client;
    let write = |writer| WriteRequest { writer, ..write_request(1, 0, vec![writer as u8; 100]) };
    client.write(write(7)).await.expect("written");
    client.fence(FenceRequest { ended_writers: vec![7, 9] }).await.expect("shut out");
    client.write(write(8)).await.expect("written by another");
    let refused = from_status(&client.write(write(7)).await.expect_err("shut out"));
    assert!(
        refused.code == FsCode::Stale && refused.hint.is_some() && refused.message.contains("writer: "),
        "{refused}"
    );
    // Also where it never wrote before.
    let elsewhere = WriteRequest { writer: 9, ..write_request(5, 0, vec![9; 10]) };
    assert_eq!(from_status(&client.write(elsewhere).await.expect_err("shut out")).code, FsCode::Stale);
    let reply = client.read(read_request(1, 0, 100)).await.expect("read").into_inner();
    assert_eq!(opened(&reply), [8; 100]);
    for bad in [vec![], vec![0], vec![1; ENDED_WRITERS_MAX + 1]] {
        let refused = from_status(&client.fence(FenceRequest { ended_writers: bad }).await.expect_err("refused"));
        assert!(refused.code == FsCode::Invalid && refused.message.contains("ended_writers"), "{refused}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_writes_in_one_call_are_made_or_refused_one_by_one() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut running = Running::start(dir.path()).await;
    let client = &mut running.client;
    let write = |oid, generation, bytes| WriteRequest { writer: 7, generation, ..write_request(oid, 0, bytes) };
    let many = |writes: Vec<WriteRequest>| {
        let payload = writes.iter().flat_map(|write| write.payload.to_vec()).collect::<Vec<u8>>().into();
        let writes = writes.into_iter().map(|write| WriteRequest { payload: Bytes::new(), ..write }).collect();
        WriteManyRequest { writes, payload }
    };
    let mut damaged = write(3, 0, vec![3; 50]);
    damaged.payload = vec![4; 50].into();
    let writes = vec![
        write(1, 0, vec![1; 100]),
        WriteRequest { ost: 9, ..write(2, 0, vec![2; 70]) },
        damaged,
        write(4, 5, vec![5; 200_000]),
        // It was given up before the one in front of it.
        write(1, 4, vec![9; 100]),
        WriteRequest { parts: Vec::new(), ..write(6, 5, Vec::new()) },
        write(1, 5, vec![6; 10]),
    ];
    let reply = client.write_many(many(writes)).await.expect("an outcome for each").into_inner();
    let codes = reply.outcomes.iter().map(|outcome| match outcome.outcome.as_ref().expect("one") {
        write_outcome::Outcome::Reply(reply) => {
            assert_eq!(reply.verifier.len(), 16);
            None
        }
        write_outcome::Outcome::Error(detail) => Some(from_detail(detail.clone()).code),
    });
    let refused = [FsCode::NotFound, FsCode::Corrupt, FsCode::Interrupted, FsCode::Invalid].map(Some);
    let [unknown, corrupt, interrupted, invalid] = refused;
    assert_eq!(codes.collect::<Vec<_>>(), [None, unknown, corrupt, None, interrupted, invalid, None]);
    for (oid, expected) in [(1, [&[6; 10][..], &[1; 90]].concat()), (3, vec![]), (4, vec![5; 200_000])] {
        let reply = client.read(read_request(oid, 0, 200_000)).await.expect("read").into_inner();
        assert_eq!(reply.object_size, expected.len() as u64);
        assert!(opened(&reply)[..expected.len()] == expected);
    }
    let one = || write(1, 5, vec![8; 100]);
    let bad = [
        many(vec![]),
        many(vec![one(); WRITE_MANY_MAX + 1]),
        WriteManyRequest { payload: vec![8; 99].into(), ..many(vec![one()]) },
        WriteManyRequest { payload: vec![8; 101].into(), ..many(vec![one()]) },
        WriteManyRequest { writes: vec![one()], payload: vec![8; 100].into() },
        many(vec![write_request(1, 0, vec![8; WRITE_MANY_BYTES_MAX]), one()]),
    ];
    for request in bad {
        assert_eq!(from_status(&client.write_many(request).await.expect_err("refused")).code, FsCode::Invalid);
    }
    let reply = client.read(read_request(1, 0, 1)).await.expect("read").into_inner();
    assert_eq!(opened(&reply), [6], "nothing of that was done");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_are_refused_with_the_field_and_the_value() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut running = Running::start(dir.path()).await;
    let client = &mut running.client;
    let good = || write_request(1, 0, vec![7; 100]);
    let cases: Vec<(&str, FsCode, WriteRequest)> = vec![
        ("ost", FsCode::NotFound, WriteRequest { ost: 9, ..good() }),
        ("ost", FsCode::Invalid, WriteRequest { ost: 1 << 20, ..good() }),
        ("object", FsCode::Invalid, WriteRequest { object: None, ..good() }),
        ("chunk_log2", FsCode::Invalid, WriteRequest { chunk_log2: 40, ..good() }),
        ("compression", FsCode::Invalid, WriteRequest { compression: 77, ..good() }),
        ("compression", FsCode::Invalid, WriteRequest { compression: 0, ..good() }),
        ("parts", FsCode::Invalid, WriteRequest { parts: vec![], ..good() }),
        ("payload", FsCode::Invalid, WriteRequest { payload: Bytes::new(), ..good() }),
        ("checksum", FsCode::Corrupt, WriteRequest { payload: vec![8; 100].into(), ..good() }),
    ];
    for (what, code, request) in cases {
        let err = from_status(&client.write(request).await.expect_err(what));
        assert_eq!(err.code, code, "{what}: {err}");
        assert!(err.message.contains(what), "{what}: {err}");
    }
    let too_long = client.read(read_request(1, 0, u32::MAX)).await.expect_err("too long");
    assert_eq!(from_status(&too_long).code, FsCode::Invalid);
    let too_far = client.read(read_request(1, u64::MAX, 1)).await.expect_err("too far");
    assert_eq!(from_status(&too_far).code, FsCode::Invalid);
    let hello = common::HelloRequest { protocol_min: 99, protocol_max: 99, software: "future".into() };
    let err = from_status(&client.hello(hello).await.expect_err("no common version"));
    assert!(err.code == FsCode::VersionMismatch && err.hint.is_some());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_answer() {
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
    let dir = tempfile::tempdir().expect("temp dir");
    let running = Running::start(dir.path()).await;
    let endpoint = Channel::from_shared(format!("http://{}", running.address)).expect("an address");
    let channel = endpoint.connect().await.expect("reachable");
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "sateen.oss.v1.ObjectStore"] {
        let request = HealthCheckRequest { service: service.into() };
        let reply = health.check(request).await.expect("known").into_inner();
        assert_eq!(reply.status, ServingStatus::Serving as i32);
    }
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_response::MessageResponse};
    let mut reflection = ServerReflectionClient::new(channel);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut replies =
        reflection.server_reflection_info(tokio_stream::once(request)).await.expect("answered").into_inner();
    let reply = replies.message().await.expect("a reply").expect("not the end");
    let Some(MessageResponse::ListServicesResponse(list)) = reply.message_response else { panic!("{reply:?}") };
    assert!(list.service.iter().any(|s| s.name == "sateen.oss.v1.ObjectStore"));
    drop((health, reflection, replies));
    running.stop().await;
}
