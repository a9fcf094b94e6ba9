//! A caller that knows the protocol and nothing else: generated code over tonic, no line of the client library.

use std::net::SocketAddr;

use bytes::Bytes;
use sateen_proto::common::{
    Compression, Fid, HelloRequest, Layout, LayoutTemplate, Pattern, StripePattern, TemplateComponent,
};
use sateen_proto::mds::cluster_client::ClusterClient;
use sateen_proto::mds::execute_request::Op;
use sateen_proto::mds::namespace_client::NamespaceClient;
use sateen_proto::mds::{self, Create, Credential, ExecuteRequest, OpenSessionReply, OpenSessionRequest};
use sateen_proto::oss::object_store_client::ObjectStoreClient;
use sateen_proto::oss::{self, Codec, ObjectId, Part};
use tonic::Status;
use tonic::transport::Channel;

use crate::cluster::FS;
use crate::rpc::connect;

/// Bytes of a chunk.
pub const CHUNK: usize = 128 << 10;

/// Fid of the root directory of every file system.
pub const ROOT: Fid = Fid { seq: 0x2_0000_0007, oid: 1, ver: 0 };

/// Our greeting.
pub fn hello() -> HelloRequest {
    HelloRequest { protocol_min: 1, protocol_max: 1, software: "plain tonic".into() }
}

/// In whose name we act.
pub fn root_user() -> Option<Credential> {
    Some(Credential { uid: 0, gid: 0, groups: Vec::new() })
}

/// A session and the number of its next request on slot 0.
pub struct Session {
    /// The service.
    pub namespace: NamespaceClient<Channel>,
    /// What the MDS answered.
    pub opened: OpenSessionReply,
    /// Number of the last request.
    pub number: u64,
}

impl Session {
    /// Opens one.
    pub async fn open(mds: SocketAddr) -> Session {
        Session::open_as(mds, 0).await
    }

    /// Opens one that writes to OSTs under this number.
    pub async fn open_as(mds: SocketAddr, writer: u64) -> Session {
        let mut namespace = NamespaceClient::new(connect(mds).await.expect("connect"));
        let request = OpenSessionRequest {
            hello: Some(hello()),
            fs_name: FS.into(),
            client: "plain tonic".into(),
            writer,
            follows: Vec::new(),
        };
        let opened = namespace.open_session(request).await.expect("OpenSession").into_inner();
        Session { namespace, opened, number: 0 }
    }

    /// The next request.
    pub fn next(&mut self, op: Op) -> ExecuteRequest {
        self.number += 1;
        ExecuteRequest {
            session_id: self.opened.session_id.clone(),
            slot: 0,
            number: self.number,
            credential: root_user(),
            op: Some(op),
            ..Default::default()
        }
    }

    /// Executes the next request.
    pub async fn execute(&mut self, op: Op) -> Result<mds::execute_reply::Result, Status> {
        let request = self.next(op);
        let reply = self.namespace.execute(request).await;
        // A failed request is not recorded: its number is still to be used.
        if reply.is_err() {
            self.number -= 1;
        }
        Ok(reply?.into_inner().result.expect("a result"))
    }

    /// Creates and opens a file of one stripe, wherever the MDS puts it.
    pub async fn create(&mut self, name: &[u8]) -> (Fid, Layout) {
        let striping = StripePattern {
            pattern: Pattern::Raid0 as i32,
            stripe_size: 1 << 20,
            stripe_count: 1,
            start_ost: None,
            ost_list: Vec::new(),
            pool: String::new(),
        };
        let component = TemplateComponent { extent_start: 0, extent_end: u64::MAX, striping: Some(striping) };
        let create = Create {
            parent: Some(ROOT),
            name: name.to_vec(),
            mode: 0o644,
            masked: 0,
            exclusive: true,
            open: true,
            layout: Some(LayoutTemplate { components: vec![component] }),
            read: true,
            write: true,
        };
        match self.execute(Op::Create(create)).await.expect("Create") {
            mds::execute_reply::Result::Entry(entry) => {
                (entry.attr.expect("attr").fid.expect("fid"), entry.layout.expect("layout"))
            }
            other => panic!("Create was answered with {other:?}"),
        }
    }
}

/// Address of the OSS of an OST.
pub async fn oss_of(mds: SocketAddr, ost: u32) -> SocketAddr {
    let mut cluster = ClusterClient::new(connect(mds).await.expect("connect"));
    let osts = cluster.list_osts(mds::ListOstsRequest { known_version: 0 }).await.expect("ListOsts").into_inner().osts;
    let address = &osts.iter().find(|o| o.index == ost).expect("the OST is on the map").address;
    address.parse().expect("an address")
}

/// The service that has this OST.
pub async fn object_store(mds: SocketAddr, ost: u32) -> ObjectStoreClient<Channel> {
    let channel = connect(oss_of(mds, ost).await).await.expect("connect");
    let mut store = ObjectStoreClient::new(channel);
    let reply = store.hello(hello()).await.expect("Hello").into_inner();
    assert_eq!(reply.hello.expect("hello").protocol, 1);
    assert!(reply.osts.contains(&ost));
    store
}

/// An uncompressed part: a sealed chunk or a plain range.
pub fn raw(offset: u64, data: &[u8], sealed: bool) -> Part {
    let crc = crc32c::crc32c(data);
    Part {
        offset,
        raw_len: data.len() as u32,
        stored_len: data.len() as u32,
        codec: Codec::Raw as i32,
        raw_crc32c: crc,
        stored_crc32c: crc,
        sealed,
        hole: false,
    }
}

/// A request to write these parts.
pub fn write(ost: u32, object: &ObjectId, parts: Vec<Part>, payload: Vec<u8>) -> oss::WriteRequest {
    oss::WriteRequest {
        ost,
        object: Some(*object),
        chunk_log2: 17,
        compression: Compression::Lz4 as i32,
        parts,
        payload: Bytes::from(payload),
        ..Default::default()
    }
}

/// A request to read a range.
pub fn read(ost: u32, object: &ObjectId, offset: u64, length: usize) -> oss::ReadRequest {
    let length = length as u32;
    oss::ReadRequest { ost, object: Some(*object), chunk_log2: 17, offset, length, ..Default::default() }
}

/// Makes a file and gives the OST and the object of its one stripe.
pub async fn new_object(mds: SocketAddr, name: &[u8]) -> (u32, ObjectId) {
    let mut session = Session::open(mds).await;
    let (fid, layout) = session.create(name).await;
    let component = &layout.components[0];
    let object = ObjectId { fs_id: session.opened.fs_id, fid: Some(fid), component: component.id, stripe: 0 };
    (component.osts[0], object)
}
