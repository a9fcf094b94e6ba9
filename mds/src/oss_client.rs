//! What the MDS asks of OSSs: cut, destroy and list objects, drop a file system, shut clients out. One lazily connected channel per
//! address; every call has a deadline; a call may be repeated without harm.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sateen_proto::oss::maintenance_client::MaintenanceClient;
use sateen_proto::oss::object_store_client::ObjectStoreClient;
use sateen_proto::oss::{DestroyRequest, DropFileSystemRequest, FenceRequest, ListObjectsRequest, TruncateRequest};
use sateen_proto::status::from_status;
use sateen_types::limits::LIST_OBJECTS_MAX;
use sateen_types::{FsCode, FsError, FsId, FsResult, ObjectId, OstIndex};
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

/// Until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// For one call: a synced change of the OST's index.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Shutting writers out waits for the changes that are being made.
const FENCE_TIMEOUT: Duration = Duration::from_secs(10);
/// Dropping a file system removes directories.
const DROP_TIMEOUT: Duration = Duration::from_secs(120);
/// Addresses remembered; OSSs that moved leave old ones behind.
const CHANNELS_MAX: usize = 1024;

/// See the module.
#[derive(Debug)]
pub struct OssClient {
    channels: Mutex<HashMap<String, Channel>>,
    /// This life of the MDS, and how often it has given up waiting for a truncate. A truncate that is held up somewhere
    /// must not cut what was written after its repetition was answered: see the fields of `WriteRequest`.
    writer: u64,
    generation: AtomicU64,
}

impl Default for OssClient {
    fn default() -> OssClient {
        OssClient { channels: Mutex::default(), writer: rand::random::<u64>().max(1), generation: AtomicU64::new(0) }
    }
}

fn with_deadline<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

impl OssClient {
    fn client(&self, address: &str) -> FsResult<ObjectStoreClient<Channel>> {
        self.channel(address).map(ObjectStoreClient::new)
    }

    fn channel(&self, address: &str) -> FsResult<Channel> {
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|e| FsError::new(FsCode::Invalid, format!("{address:?} is not an address of an OSS: {e}")))?;
        let channel = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true).connect_lazy();
        if channels.len() >= CHANNELS_MAX {
            channels.clear();
        }
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    /// Cuts one object; gives the change of its disk space in bytes.
    pub async fn truncate(
        &self,
        address: &str,
        ost: OstIndex,
        object: ObjectId,
        chunk_log2: u8,
        size: u64,
    ) -> FsResult<i64> {
        let message = TruncateRequest {
            ost: u32::from(ost.0),
            object: Some(object.into()),
            chunk_log2: u32::from(chunk_log2),
            size,
            writer: self.writer,
            generation: self.generation.load(Ordering::SeqCst),
        };
        let call = self.client(address)?.truncate(with_deadline(message, CALL_TIMEOUT)).await;
        let reply = call.map_err(|s| from_status(&s)).inspect_err(|e| {
            // Nobody knows whether it will still be done; the next attempt shuts it out.
            if e.code.is_retryable() {
                self.generation.fetch_add(1, Ordering::SeqCst);
            }
        })?;
        Ok(reply.into_inner().allocated_delta)
    }

    /// Removes objects, at most 1024.
    pub async fn destroy(&self, address: &str, ost: OstIndex, objects: Vec<ObjectId>) -> FsResult<()> {
        let objects = objects.into_iter().map(Into::into).collect();
        let message = DestroyRequest { ost: u32::from(ost.0), objects };
        let call = self.client(address)?.destroy(with_deadline(message, CALL_TIMEOUT)).await;
        call.map(drop).map_err(|s| from_status(&s))
    }

    /// Objects of a file system from `from` on, at most `max`, and whether those are all.
    pub async fn list_objects(
        &self,
        address: &str,
        ost: OstIndex,
        fs: FsId,
        from: Option<ObjectId>,
        max: usize,
    ) -> FsResult<(Vec<ObjectId>, bool)> {
        let (from, max) = (from.map(Into::into), max.min(LIST_OBJECTS_MAX) as u32);
        let message = ListObjectsRequest { ost: u32::from(ost.0), fs_id: fs.0, from, max };
        let mut client = MaintenanceClient::new(self.channel(address)?);
        let call = client.list_objects(with_deadline(message, CALL_TIMEOUT)).await;
        let reply = call.map_err(|s| from_status(&s))?.into_inner();
        let objects = reply.objects.into_iter().map(ObjectId::try_from).collect::<FsResult<_>>()?;
        Ok((objects, reply.complete))
    }

    /// Removes everything of a file system.
    pub async fn drop_file_system(&self, address: &str, ost: OstIndex, fs: FsId) -> FsResult<()> {
        let message = DropFileSystemRequest { ost: u32::from(ost.0), fs_id: fs.0 };
        let call = self.client(address)?.drop_file_system(with_deadline(message, DROP_TIMEOUT)).await;
        call.map(drop).map_err(|s| from_status(&s))
    }

    /// Has all OSTs of an OSS refuse these writers for good.
    pub async fn fence(&self, address: &str, writers: &[u64]) -> FsResult<()> {
        let message = FenceRequest { ended_writers: writers.to_vec() };
        let call = self.client(address)?.fence(with_deadline(message, FENCE_TIMEOUT)).await;
        call.map(drop).map_err(|s| from_status(&s))
    }
}
