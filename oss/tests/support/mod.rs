//! A cluster registry that answers as told, and chunks as a client makes them.

#![allow(dead_code, reason = "each test program uses a part")]

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use sateen_oss::store::write::Write;
use sateen_oss::store::{Store, codec};
use sateen_proto::common;
use sateen_proto::mds::cluster_server::{Cluster, ClusterServer};
use sateen_proto::mds::*;
use sateen_proto::version;
use sateen_types::{ClusterId, ComponentId, Compression, Fid, FsId, ObjectId, StripeIndex};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// Chunk size of the objects below.
pub const CHUNK_LOG2: u8 = 16;
pub const CHUNK: usize = 1 << CHUNK_LOG2;

pub fn object(oid: u32) -> ObjectId {
    let fid = Fid { seq: Fid::SEQ_FIRST, oid, ver: 0 };
    ObjectId { fs: FsId(1), fid, component: ComponentId(1), stripe: StripeIndex(0) }
}

/// Writes chunk `number` of object `oid`, sealed.
pub fn write(store: &Store, oid: u32, number: u64, raw: &[u8], compression: Compression) {
    let sealed = codec::seal(raw, compression);
    let part = sealed.part(number << CHUNK_LOG2, raw.len());
    let payload = Bytes::copy_from_slice(&sealed.stored).into();
    let write =
        Write { object: object(oid), chunk_log2: CHUNK_LOG2, compression, parts: vec![part], fence: None, payload };
    store.write(write).expect("written");
}

/// What a fake MDS knows and was told.
#[derive(Clone)]
pub struct FakeMds {
    pub cluster: ClusterId,
    pub registrations: Arc<Mutex<Vec<RegisterOssRequest>>>,
    /// Number of heartbeats, and the last one.
    pub heartbeats: watch::Sender<(u64, HeartbeatRequest)>,
    /// The next heartbeat is answered with `register_again`.
    pub forget: Arc<Mutex<bool>>,
    /// Writers that must be refused.
    pub ended: Arc<Mutex<Vec<u64>>>,
}

impl FakeMds {
    pub fn new(cluster: ClusterId) -> FakeMds {
        FakeMds {
            cluster,
            registrations: Arc::default(),
            heartbeats: watch::channel((0, HeartbeatRequest::default())).0,
            forget: Arc::default(),
            ended: Arc::default(),
        }
    }

    /// Serves on a free port of the loopback interface, for as long as the runtime lives.
    pub async fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let service = ClusterServer::new(self.clone());
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)));
        address
    }

    /// Waits for `n` more heartbeats and returns the last.
    pub async fn hear(&self, n: u64) -> HeartbeatRequest {
        let mut heard = self.heartbeats.subscribe();
        let wanted = heard.borrow().0 + n;
        heard.wait_for(|(count, _)| *count >= wanted).await.expect("the fake lives").1.clone()
    }
}

#[tonic::async_trait]
impl Cluster for FakeMds {
    async fn hello(&self, request: Request<common::HelloRequest>) -> Result<Response<common::HelloReply>, Status> {
        let reply =
            version::welcome(request.get_ref(), self.cluster, "fake").map_err(sateen_proto::status::to_status)?;
        Ok(Response::new(reply))
    }

    async fn register_oss(&self, request: Request<RegisterOssRequest>) -> Result<Response<RegisterOssReply>, Status> {
        let request = request.into_inner();
        // New OSTs get the numbers after those that have one.
        let mut free = 10..;
        let indexes = request.osts.iter().filter_map(|o| o.index.or_else(|| free.next())).collect();
        let registration = {
            let mut registrations = self.registrations.lock();
            registrations.push(request);
            registrations.len() as u64
        };
        Ok(Response::new(RegisterOssReply {
            cluster_id: self.cluster.0.to_vec(),
            indexes,
            heartbeat_interval_ms: 50,
            ended_writers: self.ended.lock().clone(),
            registration,
        }))
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Result<Response<HeartbeatReply>, Status> {
        self.heartbeats.send_modify(|(count, last)| {
            *count += 1;
            *last = request.into_inner();
        });
        Ok(Response::new(HeartbeatReply { register_again: std::mem::take(&mut *self.forget.lock()) }))
    }

    async fn list_osts(&self, _: Request<ListOstsRequest>) -> Result<Response<ListOstsReply>, Status> {
        Err(Status::unimplemented("fake"))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        Err(Status::unimplemented("fake"))
    }

    async fn create_file_system(&self, _: Request<CreateFileSystemRequest>) -> Result<Response<FileSystem>, Status> {
        Err(Status::unimplemented("fake"))
    }

    async fn list_file_systems(
        &self,
        _: Request<ListFileSystemsRequest>,
    ) -> Result<Response<ListFileSystemsReply>, Status> {
        Err(Status::unimplemented("fake"))
    }

    async fn get_file_system(&self, _: Request<GetFileSystemRequest>) -> Result<Response<FileSystem>, Status> {
        Err(Status::unimplemented("fake"))
    }

    async fn delete_file_system(
        &self,
        _: Request<DeleteFileSystemRequest>,
    ) -> Result<Response<DeleteFileSystemReply>, Status> {
        Err(Status::unimplemented("fake"))
    }
}
