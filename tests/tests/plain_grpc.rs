//! The protocol as it is written in `proto/`, spoken by an ordinary tonic client: generated code only, nothing of
//! client-lib. And what the servers answer to callers that are not so well-behaved.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use sateen_proto::common::{Fid, HelloRequest};
use sateen_proto::mds::cluster_client::ClusterClient;
use sateen_proto::mds::execute_request::Op;
use sateen_proto::mds::namespace_client::NamespaceClient;
use sateen_proto::mds::{self, Credential, ExecuteRequest, OpenSessionRequest};
use sateen_proto::oss::object_store_client::ObjectStoreClient;
use sateen_proto::oss::{self, Codec, ObjectId, Part};
use sateen_proto::status::from_status;
use sateen_tests::cluster::FS;
use sateen_tests::plain::{CHUNK, ROOT, Session, hello, object_store, raw, root_user, write};
use sateen_tests::rng::pattern;
use sateen_tests::rpc::{block_on, connect, is_serving};
use sateen_tests::{Cluster, ClusterSpec};
use sateen_types::FsCode;
use tonic::{Code, Status};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

#[test]
fn a_generated_client_creates_a_file_and_writes_and_reads_its_object() {
    let mut cluster = Cluster::start(ClusterSpec::new("plain-grpc"));
    let mount = cluster.mount();
    let sealed = pattern(1, CHUNK);
    let tail = pattern(2, 5_000);
    let whole: Vec<u8> = sealed.iter().chain(&tail).copied().collect();
    block_on(async {
        let mut session = Session::open(cluster.mds_address()).await;
        let (fid, layout) = session.create(b"plain").await;
        let component = &layout.components[0];
        let ost = component.osts[0];
        let object = ObjectId { fs_id: session.opened.fs_id, fid: Some(fid), component: component.id, stripe: 0 };
        let mut store = object_store(cluster.mds_address(), ost).await;

        // A sealed chunk and, in the same request, the start of the next as a plain range.
        let parts = vec![raw(0, &sealed, true), raw(CHUNK as u64, &tail, false)];
        let written = store.write(write(ost, &object, parts, whole.clone())).await.expect("Write").into_inner();
        let committed =
            store.commit(oss::CommitRequest { ost, fs_id: object.fs_id }).await.expect("Commit").into_inner();
        assert_eq!(written.verifier, committed.verifier);
        assert_eq!(written.verifier.len(), 16);
        assert!(written.allocated_delta > 0);

        let read = oss::ReadRequest {
            ost,
            object: Some(object),
            chunk_log2: 17,
            offset: 0,
            length: whole.len() as u32,
            ..Default::default()
        };
        let reply = store.read(read).await.expect("Read").into_inner();
        assert_eq!(reply.object_size, whole.len() as u64);
        assert!(reply.payload == whole, "the object reads back as it was written");
        assert!(reply.parts.iter().all(|p| !p.hole));

        let done = mds::WriteDone {
            fid: Some(fid),
            end: whole.len() as u64,
            mtime: None,
            allocated_delta: written.allocated_delta,
            clear_suid: false,
        };
        session.execute(Op::WriteDone(done)).await.expect("WriteDone");
        let close = mds::CloseRequest {
            session_id: session.opened.session_id.clone(),
            fids: vec![fid],
            number: 0,
            opens: Vec::new(),
        };
        session.namespace.close(close).await.expect("Close");

        // The same request again, as after a lost answer, has no second effect and the same answer.
        let again = ExecuteRequest {
            number: session.number,
            ..session.next(Op::WriteDone(mds::WriteDone { fid: Some(fid), ..Default::default() }))
        };
        session.number -= 1;
        session.namespace.execute(again).await.expect("a resend is answered");
        let end = mds::CloseSessionRequest { session_id: session.opened.session_id.clone() };
        session.namespace.close_session(end).await.expect("CloseSession");
    });
    // What a plain client wrote, a program on a mount reads.
    assert!(std::fs::read(mount.join("plain")).expect("read") == whole);
    cluster.assert_runs();
}

#[test]
fn unknown_protocol_versions_are_refused_by_every_service() {
    let mut cluster = Cluster::start(ClusterSpec::new("versions"));
    block_on(async {
        for (min, max) in [(99, 100), (0, 0), (2, 1)] {
            let hello = HelloRequest { protocol_min: min, protocol_max: max, software: "from the future".into() };
            let mds = connect(cluster.mds_address()).await.expect("connect");
            let oss = connect(cluster.oss_address(0)).await.expect("connect");
            let session = OpenSessionRequest {
                hello: Some(hello.clone()),
                fs_name: FS.into(),
                client: "x".into(),
                ..Default::default()
            };
            let answers = [
                ClusterClient::new(mds.clone()).hello(hello.clone()).await.err(),
                NamespaceClient::new(mds).open_session(session).await.err(),
                ObjectStoreClient::new(oss).hello(hello).await.err(),
            ];
            for answer in answers {
                let error = from_status(&answer.expect("refused"));
                assert_eq!(error.code, FsCode::VersionMismatch, "{error}");
                assert!(error.hint.is_some(), "{error}");
            }
        }
    });
    cluster.assert_runs();
}

async fn reflected_services(address: SocketAddr) -> Vec<String> {
    let mut client = ServerReflectionClient::new(connect(address).await.expect("connect"));
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers =
        client.server_reflection_info(tokio_stream::once(request)).await.expect("reflection").into_inner();
    match answers.message().await.expect("an answer") {
        Some(ServerReflectionResponse {
            message_response: Some(MessageResponse::ListServicesResponse(list)), ..
        }) => list.service.into_iter().map(|s| s.name).collect(),
        other => panic!("reflection answered {other:?}"),
    }
}

#[test]
fn health_and_reflection_answer_on_both_servers() {
    let cluster = Cluster::start(ClusterSpec::new("reflection"));
    assert!(is_serving(cluster.mds_address()));
    assert!(is_serving(cluster.oss_address(1)));
    let mds = block_on(reflected_services(cluster.mds_address()));
    for service in ["sateen.mds.v1.Cluster", "sateen.mds.v1.Namespace"] {
        assert!(mds.iter().any(|s| s == service), "{mds:?}");
    }
    let oss = block_on(reflected_services(cluster.oss_address(0)));
    assert!(oss.iter().any(|s| s == "sateen.oss.v1.ObjectStore"), "{oss:?}");
}

#[track_caller]
fn refused<T: std::fmt::Debug>(what: &str, answer: Result<T, Status>, codes: &[FsCode]) {
    let status = match answer {
        Ok(reply) => panic!("{what} was accepted: {reply:?}"),
        Err(status) => status,
    };
    let error = from_status(&status);
    assert!(codes.contains(&error.code), "{what}: {:?} ({}) is not among {codes:?}", error.code, error.message);
}

#[test]
fn the_mds_refuses_hostile_requests_and_goes_on() {
    let mut cluster = Cluster::start(ClusterSpec::new("hostile-mds"));
    block_on(async {
        let mut session = Session::open(cluster.mds_address()).await;
        let bad_fs = OpenSessionRequest {
            hello: Some(hello()),
            fs_name: "nosuch".into(),
            client: "x".into(),
            ..Default::default()
        };
        refused("an unknown file system", session.namespace.open_session(bad_fs).await, &[FsCode::NotFound]);
        let long_fs = OpenSessionRequest {
            hello: Some(hello()),
            fs_name: "x".repeat(5_000),
            client: "x".into(),
            ..Default::default()
        };
        refused(
            "a long name of a file system",
            session.namespace.open_session(long_fs).await,
            &[FsCode::Invalid, FsCode::NameTooLong, FsCode::NotFound],
        );
        let no_hello = OpenSessionRequest { hello: None, fs_name: FS.into(), client: "x".into(), ..Default::default() };
        refused(
            "no hello",
            session.namespace.open_session(no_hello).await,
            &[FsCode::Invalid, FsCode::VersionMismatch],
        );

        let mkdir = |name: &[u8], parent: Option<Fid>| {
            Op::Mkdir(mds::Mkdir { parent, name: name.to_vec(), mode: 0o755, masked: 0 })
        };
        let names: [(&[u8], FsCode); 6] = [
            (b"", FsCode::Invalid),
            (b".", FsCode::Invalid),
            (b"..", FsCode::Invalid),
            (b"a/b", FsCode::Invalid),
            (b"a\0b", FsCode::Invalid),
            (&[b'x'; 256], FsCode::NameTooLong),
        ];
        for (name, code) in names {
            refused(&format!("name {name:?}"), session.execute(mkdir(name, Some(ROOT))).await, &[code]);
        }
        refused("no parent", session.execute(mkdir(b"d", None)).await, &[FsCode::Invalid]);
        let nowhere = Some(Fid { seq: u64::MAX, oid: 7, ver: 9 });
        refused(
            "an invalid FID",
            session.execute(mkdir(b"d", nowhere)).await,
            &[FsCode::Invalid, FsCode::NotFound, FsCode::Stale],
        );
        let empty = ExecuteRequest { op: None, ..session.next(mkdir(b"d", Some(ROOT))) };
        refused("no operation", session.namespace.execute(empty).await, &[FsCode::Invalid, FsCode::NotSupported]);
        session.number -= 1;
        let anonymous = ExecuteRequest { credential: None, ..session.next(mkdir(b"d", Some(ROOT))) };
        refused("no credential", session.namespace.execute(anonymous).await, &[FsCode::Invalid]);
        session.number -= 1;
        // Numbers may skip those of failed requests; one below the last recorded is a request of long ago.
        session.execute(mkdir(b"first", Some(ROOT))).await.expect("mkdir");
        session.execute(mkdir(b"second", Some(ROOT))).await.expect("mkdir");
        let old = ExecuteRequest { number: session.number - 1, ..session.next(mkdir(b"d", Some(ROOT))) };
        refused("a number that is over", session.namespace.execute(old).await, &[FsCode::Stale]);
        session.number -= 1;
        let slot = ExecuteRequest { slot: 1 << 30, ..session.next(mkdir(b"d", Some(ROOT))) };
        refused("an unknown slot", session.namespace.execute(slot).await, &[FsCode::Invalid]);
        session.number -= 1;
        let stranger = ExecuteRequest { session_id: vec![7; 16], ..session.next(mkdir(b"d", Some(ROOT))) };
        refused("an unknown session", session.namespace.execute(stranger).await, &[FsCode::Stale]);
        session.number -= 1;
        let short = ExecuteRequest { session_id: vec![7; 3], ..session.next(mkdir(b"d", Some(ROOT))) };
        refused("a short session id", session.namespace.execute(short).await, &[FsCode::Invalid, FsCode::Stale]);
        session.number -= 1;
        let crowd = Credential { uid: 1, gid: 1, groups: vec![5; 70_000] };
        let crowded = ExecuteRequest { credential: Some(crowd), ..session.next(mkdir(b"d", Some(ROOT))) };
        refused("70,000 groups", session.namespace.execute(crowded).await, &[FsCode::Invalid, FsCode::TooBig]);
        session.number -= 1;
        let xattr =
            mds::SetXattr { fid: Some(ROOT), name: b"user.x".to_vec(), value: vec![0; 70_000], ..Default::default() };
        let too_big = [FsCode::TooBig, FsCode::Range, FsCode::Invalid, FsCode::NoSpace];
        refused("a large attribute", session.execute(Op::SetXattr(xattr)).await, &too_big);
        let page = mds::ReadDirRequest {
            session_id: session.opened.session_id.clone(),
            credential: root_user(),
            fid: Some(ROOT),
            after: 0,
            max: u32::MAX,
            with_attr: true,
        };
        // Bounded or refused, but no crash and no endless answer.
        if let Ok(reply) = session.namespace.read_dir(page).await {
            assert!(reply.into_inner().entries.len() <= 4_096);
        }
        let huge = mds::Symlink { parent: Some(ROOT), name: b"s".to_vec(), target: vec![b'x'; 20 << 20] };
        let answer = session.execute(Op::Symlink(huge)).await.expect_err("20 MiB are refused");
        assert_ne!(answer.code(), Code::Ok);

        let mut session = Session::open(cluster.mds_address()).await;
        session.execute(mkdir(b"still-works", Some(ROOT))).await.expect("the MDS goes on");
    });
    cluster.assert_runs();
}

#[test]
fn the_oss_refuses_hostile_requests_and_goes_on() {
    let mut cluster = Cluster::start(ClusterSpec::new("hostile-oss"));
    block_on(async {
        let mut session = Session::open(cluster.mds_address()).await;
        let (fid, layout) = session.create(b"target").await;
        let ost = layout.components[0].osts[0];
        let object =
            ObjectId { fs_id: session.opened.fs_id, fid: Some(fid), component: layout.components[0].id, stripe: 0 };
        let mut store = object_store(cluster.mds_address(), ost).await;
        let data = pattern(3, CHUNK);
        let good = || raw(0, &data, true);
        let invalid = [FsCode::Invalid, FsCode::Corrupt, FsCode::TooBig, FsCode::FileTooBig, FsCode::Range];
        let lies: Vec<(&str, oss::WriteRequest)> = vec![
            ("a wrong checksum", {
                let part = Part { stored_crc32c: 1, raw_crc32c: 1, ..good() };
                write(ost, &object, vec![part], data.clone())
            }),
            ("a payload that is too short", write(ost, &object, vec![good()], data[1..].to_vec())),
            ("a payload that is too long", write(ost, &object, vec![good()], [&data[..], b"x"].concat())),
            ("no parts", write(ost, &object, vec![], vec![])),
            ("an unaligned sealed chunk", write(ost, &object, vec![Part { offset: 1, ..good() }], data.clone())),
            ("an offset beyond the end of the world", {
                write(ost, &object, vec![Part { offset: u64::MAX - CHUNK as u64 + 1, ..good() }], data.clone())
            }),
            ("a plain range over two chunks", {
                write(ost, &object, vec![raw(CHUNK as u64 / 2, &data, false)], data.clone())
            }),
            ("a chunk size of 2^60", {
                oss::WriteRequest { chunk_log2: 60, ..write(ost, &object, vec![good()], data.clone()) }
            }),
            ("an unknown codec", write(ost, &object, vec![Part { codec: 77, ..good() }], data.clone())),
            ("garbage as an LZ4 block", {
                let garbage = vec![0xff; 4_096];
                let crc = crc32c::crc32c(&garbage);
                let part = Part { codec: Codec::Lz4 as i32, stored_len: 4_096, stored_crc32c: crc, ..good() };
                write(ost, &object, vec![part], garbage)
            }),
            ("overlapping parts", { write(ost, &object, vec![good(), good()], [&data[..], &data[..]].concat()) }),
            ("no object", oss::WriteRequest { object: None, ..write(ost, &object, vec![good()], data.clone()) }),
            ("component 0", {
                let object = ObjectId { component: 0, ..object };
                write(ost, &object, vec![good()], data.clone())
            }),
        ];
        for (what, request) in lies {
            // The store verifies what is stored; what an LZ4 block opens to is the reader's check, end to end.
            if what.starts_with("garbage") {
                let _ = store.write(request).await;
                continue;
            }
            refused(what, store.write(request).await, &invalid);
        }
        let elsewhere = write(4_000, &object, vec![good()], data.clone());
        refused(
            "an OST that is not here",
            store.write(elsewhere).await,
            &[FsCode::NotFound, FsCode::Invalid, FsCode::Stale],
        );
        let read = |offset, length| oss::ReadRequest {
            ost,
            object: Some(object),
            chunk_log2: 17,
            offset,
            length,
            ..Default::default()
        };
        refused("a read of nothing", store.read(read(0, 0)).await, &invalid);
        refused("a read of 4 GiB", store.read(read(0, u32::MAX)).await, &invalid);
        refused("a read past the end of the world", store.read(read(u64::MAX, 10)).await, &invalid);
        let destroy = oss::DestroyRequest { ost, objects: vec![object; 5_000] };
        refused("5,000 objects", store.destroy(destroy).await, &invalid);
        let huge = write(ost, &object, vec![raw(0, &data, true)], vec![0; 20 << 20]);
        store.write(huge).await.expect_err("20 MiB are refused");

        let mut store = object_store(cluster.mds_address(), ost).await;
        let written = write(ost, &object, vec![good()], data.clone());
        store.write(written).await.expect("the OSS goes on");
        let reply = store.read(read(0, CHUNK as u32)).await.expect("Read").into_inner();
        assert!(reply.payload == data);
    });
    cluster.assert_runs();
}

#[test]
fn noise_on_the_ports_harms_nobody() {
    let mut cluster = Cluster::start(ClusterSpec::new("noise"));
    for address in [cluster.mds_address(), cluster.oss_address(0)] {
        for junk in [
            &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
            &[0xff; 4096],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff",
        ] {
            let mut stream = TcpStream::connect(address).expect("connect");
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
            // The server may close at once; that is an answer, too.
            let _ = stream.write_all(junk);
            let _ = stream.read(&mut [0; 64]);
        }
        assert!(is_serving(address));
    }
    cluster.assert_runs();
}
