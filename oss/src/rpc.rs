//! The `ObjectStore` service: decode, call, encode.
//!
//! Every rule about messages is in `sateen_proto::convert`; every rule about data in [`store`](crate::store). Here is
//! only how the two meet: which OST, on which threads, within which bounds.

pub mod admission;
pub mod bulk;
pub mod maintenance;
mod read;
pub mod replies;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use sateen_proto::convert::{bad, chunk_log2, ended_writers, fs_id, ost_index, range, required};
use sateen_proto::oss::object_store_server::ObjectStore;
use sateen_proto::status::to_status;
use sateen_proto::{common, oss, version};
use sateen_types::limits::MESSAGE_BYTES_MAX;
use sateen_types::{ClusterId, FsCode, FsError, FsId, FsResult, ObjectId, OstIndex, Payload};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tonic::{Request, Response, Status};

use crate::ost::Ost;
use crate::rpc::replies::Replies;
use crate::store::fence::Fence;
use crate::store::{Changed, ObjectAttr};

/// Calls that wait for a commit at once. They hold a thread each, so they have bounds of their own: a slow sync never
/// keeps readers from their threads.
const COMMITS_MAX: usize = 128;
/// Most objects in one Destroy.
const DESTROY_OBJECTS_MAX: usize = 1024;
/// Most extents in one reply.
const EXTENTS_MAX: u32 = 4096;
/// How long Fence waits for changes that had passed before: less than the MDS waits for its answer.
const UNDER_WAY_MAX: Duration = Duration::from_secs(8);
/// Unit in which payload in flight is counted, so that its sum fits a semaphore.
const INFLIGHT_UNIT_BYTES: usize = 4096;

/// The OSTs of this process, as their clients see them.
pub struct Service {
    cluster: ClusterId,
    osts: HashMap<OstIndex, Arc<Ost>>,
    io: Arc<Semaphore>,
    commits: Arc<Semaphore>,
    inflight: Arc<Semaphore>,
    inflight_units: u32,
    replies: Arc<Replies>,
}

impl Service {
    /// A service of `osts` with at most `io_threads` data calls and `inflight_bytes` of payload at work.
    pub fn new(
        cluster: ClusterId,
        osts: HashMap<OstIndex, Arc<Ost>>,
        io_threads: usize,
        inflight_bytes: u64,
    ) -> Service {
        let units = u32::try_from(inflight_bytes / INFLIGHT_UNIT_BYTES as u64).unwrap_or(u32::MAX);
        let inflight_units = units.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize) as u32);
        Service {
            cluster,
            osts,
            io: Arc::new(Semaphore::new(io_threads)),
            commits: Arc::new(Semaphore::new(COMMITS_MAX)),
            inflight: Arc::new(Semaphore::new(inflight_units as usize)),
            inflight_units,
            replies: Arc::default(),
        }
    }

    /// What was answered and is not sent yet.
    pub fn replies(&self) -> Arc<Replies> {
        self.replies.clone()
    }

    /// How busy it is, for whoever watches.
    pub fn load(&self) -> Load {
        Load {
            data: (self.io.clone(), self.io.available_permits()),
            commits: (self.commits.clone(), COMMITS_MAX),
            payload: (self.inflight.clone(), self.inflight_units as usize),
        }
    }

    fn ost(&self, number: u32) -> FsResult<Arc<Ost>> {
        let index = ost_index(number)?;
        self.osts.get(&index).cloned().ok_or_else(|| {
            FsError::new(FsCode::NotFound, format!("ost: {index} is not served here"))
                .with_hint("ask the MDS where it is now")
        })
    }

    /// Room for `payload_bytes` of a request that is worked on.
    async fn memory(&self, payload_bytes: usize) -> Memory {
        debug_assert!(
            payload_bytes <= MESSAGE_BYTES_MAX,
            "{payload_bytes}: lengths are checked before memory is taken"
        );
        let units = (payload_bytes.div_ceil(INFLIGHT_UNIT_BYTES) as u32).clamp(1, self.inflight_units);
        Memory(self.inflight.clone().acquire_many_owned(units).await.ok())
    }

    /// Runs a data call on a thread for blocking work, within the bounds on threads and payload.
    async fn data<T, F>(&self, payload_bytes: usize, work: F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: FnOnce() -> FsResult<T> + Send + 'static,
    {
        let memory = self.memory(payload_bytes).await;
        let thread = self.io.clone().acquire_owned().await;
        // The permits move to the thread: a caller that goes away does not make room for more work than is allowed.
        blocking(work, (memory, thread)).await
    }

    /// Runs a call that waits for a commit.
    async fn durable<T, F>(&self, work: F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: FnOnce() -> FsResult<T> + Send + 'static,
    {
        let permit = self.commits.clone().acquire_owned().await;
        blocking(work, permit).await
    }
}

/// How much of what a service may do at once it does now. Made before the service is used: each pair is what may be
/// taken and how much of it there is.
pub struct Load {
    data: (Arc<Semaphore>, usize),
    commits: (Arc<Semaphore>, usize),
    payload: (Arc<Semaphore>, usize),
}

impl Load {
    fn taken((permits, all): &(Arc<Semaphore>, usize)) -> u64 {
        all.saturating_sub(permits.available_permits()) as u64
    }

    /// Threads that read or write data.
    pub fn data_calls(&self) -> u64 {
        Load::taken(&self.data)
    }

    /// Calls that wait for a commit.
    pub fn commit_calls(&self) -> u64 {
        Load::taken(&self.commits)
    }

    /// Payload of requests that are worked on, and of replies until they are sent.
    pub fn payload_bytes(&self) -> u64 {
        Load::taken(&self.payload) * INFLIGHT_UNIT_BYTES as u64
    }
}

/// A share of the payload that may be in flight; given back when dropped.
pub struct Memory(#[expect(dead_code, reason = "held, never looked at")] Option<OwnedSemaphorePermit>);

async fn blocking<T, F>(work: F, permits: impl Send + 'static) -> Result<T, Status>
where
    T: Send + 'static,
    F: FnOnce() -> FsResult<T> + Send + 'static,
{
    let done = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(permits);
        done
    });
    match done.await {
        Ok(outcome) => outcome.map_err(to_status),
        // The runtime is going down; a panic has ended the process already.
        Err(_) => Err(stopping()),
    }
}

fn stopping() -> Status {
    to_status(FsError::new(FsCode::Unavailable, "this OSS is stopping"))
}

fn object(wire: Option<oss::ObjectId>) -> FsResult<ObjectId> {
    required(wire, "object")?.try_into()
}

fn change_reply(c: Changed) -> oss::ChangeReply {
    oss::ChangeReply { verifier: c.verifier.0.to_vec(), allocated_delta: c.allocated_delta }
}

#[tonic::async_trait]
impl ObjectStore for Service {
    async fn hello(&self, request: Request<common::HelloRequest>) -> Result<Response<oss::HelloReply>, Status> {
        let hello = version::welcome(request.get_ref(), self.cluster, "sateen-oss").map_err(to_status)?;
        let mut osts: Vec<u32> = self.osts.keys().map(|i| u32::from(i.0)).collect();
        osts.sort_unstable();
        Ok(Response::new(oss::HelloReply { hello: Some(hello), osts }))
    }

    // The bulk methods arrive through `bulk::Lane`; these serve whoever calls the service without it.

    async fn write(&self, request: Request<oss::WriteRequest>) -> Result<Response<oss::WriteReply>, Status> {
        let mut head = request.into_inner();
        let payload = Payload::from(std::mem::take(&mut head.payload));
        Ok(Response::new(self.write_parts(head, payload).await?))
    }

    async fn write_many(
        &self,
        request: Request<oss::WriteManyRequest>,
    ) -> Result<Response<oss::WriteManyReply>, Status> {
        let mut head = request.into_inner();
        let payload = Payload::from(std::mem::take(&mut head.payload));
        Ok(Response::new(self.write_many_parts(head, payload).await?))
    }

    async fn read(&self, request: Request<oss::ReadRequest>) -> Result<Response<oss::ReadReply>, Status> {
        let (reply, payload, _memory) = self.read_parts(request.into_inner()).await?;
        Ok(Response::new(oss::ReadReply { payload: payload.into_bytes(), ..reply }))
    }

    async fn read_many(&self, request: Request<oss::ReadManyRequest>) -> Result<Response<oss::ReadManyReply>, Status> {
        let (reply, payload, _memory) = self.read_many_parts(request.into_inner()).await?;
        Ok(Response::new(oss::ReadManyReply { payload: payload.into_bytes(), ..reply }))
    }

    async fn commit(&self, request: Request<oss::CommitRequest>) -> Result<Response<oss::CommitReply>, Status> {
        let r = request.into_inner();
        let (ost, fs) = self.ost(r.ost).and_then(|ost| Ok((ost, fs_id(r.fs_id)?))).map_err(to_status)?;
        let (tell, told) = oneshot::channel();
        let permit = self.commits.clone().acquire_owned().await;
        // Nobody waits for its end: the outcome is known before.
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let tell = |outcome| drop(tell.send(outcome));
            match ost.store(fs) {
                Ok(Some(store)) => store.commit_and(tell),
                Ok(None) => tell(Ok(ost.verifier())),
                Err(e) => tell(Err(e)),
            }
        });
        let verifier = told.await.map_err(|_| stopping())?.map_err(to_status)?;
        Ok(Response::new(oss::CommitReply { verifier: verifier.0.to_vec() }))
    }

    async fn punch(&self, request: Request<oss::PunchRequest>) -> Result<Response<oss::ChangeReply>, Status> {
        let decode = |r: oss::PunchRequest| {
            let (offset, length) = range(r.offset, r.length)?;
            let fence = Fence::new(r.writer, r.generation);
            Ok((self.ost(r.ost)?, object(r.object)?, chunk_log2(r.chunk_log2)?, offset, length, fence))
        };
        let (ost, object, chunk_log2, offset, length, fence) = decode(request.into_inner()).map_err(to_status)?;
        let changed = self
            .data(0, move || match ost.store(object.fs)? {
                Some(store) => store.punch(&object, chunk_log2, offset, length, fence),
                None => Ok(Changed { verifier: ost.verifier(), allocated_delta: 0 }),
            })
            .await?;
        Ok(Response::new(change_reply(changed)))
    }

    async fn truncate(&self, request: Request<oss::TruncateRequest>) -> Result<Response<oss::ChangeReply>, Status> {
        let decode = |r: oss::TruncateRequest| {
            let fence = Fence::new(r.writer, r.generation);
            Ok((self.ost(r.ost)?, object(r.object)?, chunk_log2(r.chunk_log2)?, r.size, fence))
        };
        let (ost, object, chunk_log2, size, fence) = decode(request.into_inner()).map_err(to_status)?;
        let work = move || ost.store_or_new(object.fs)?.truncate(&object, chunk_log2, size, fence);
        let changed = self.durable(work).await?;
        Ok(Response::new(change_reply(changed)))
    }

    async fn destroy(&self, request: Request<oss::DestroyRequest>) -> Result<Response<oss::DestroyReply>, Status> {
        let decode = |r: oss::DestroyRequest| {
            if r.objects.len() > DESTROY_OBJECTS_MAX {
                return Err(bad("objects", format_args!("{}, at most {DESTROY_OBJECTS_MAX}", r.objects.len())));
            }
            let mut by_fs: BTreeMap<FsId, Vec<ObjectId>> = BTreeMap::new();
            for wire in r.objects {
                let object = ObjectId::try_from(wire)?;
                by_fs.entry(object.fs).or_default().push(object);
            }
            Ok((self.ost(r.ost)?, by_fs))
        };
        let (ost, by_fs) = decode(request.into_inner()).map_err(to_status)?;
        self.durable(move || {
            for (fs, objects) in by_fs {
                match ost.store(fs) {
                    Ok(Some(store)) => store.destroy(&objects)?,
                    // Gone with their file system, or never written.
                    Ok(None) => {}
                    Err(e) if e.code == FsCode::Stale => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(())
        })
        .await?;
        Ok(Response::new(oss::DestroyReply {}))
    }

    async fn get_attr(&self, request: Request<oss::GetAttrRequest>) -> Result<Response<oss::GetAttrReply>, Status> {
        let r = request.into_inner();
        let (ost, object) = self.ost(r.ost).and_then(|ost| Ok((ost, object(r.object)?))).map_err(to_status)?;
        let attr = self
            .data(0, move || match ost.store(object.fs)? {
                Some(store) => store.attr(&object),
                None => Ok(ObjectAttr::default()),
            })
            .await?;
        Ok(Response::new(oss::GetAttrReply { size: attr.size, allocated: attr.allocated }))
    }

    async fn extents(&self, request: Request<oss::ExtentsRequest>) -> Result<Response<oss::ExtentsReply>, Status> {
        let decode = |r: oss::ExtentsRequest| {
            if !(1..=EXTENTS_MAX).contains(&r.max) {
                return Err(bad("max", format_args!("{} is not between 1 and {EXTENTS_MAX}", r.max)));
            }
            let (offset, _) = range(r.offset, 1)?;
            Ok((self.ost(r.ost)?, object(r.object)?, chunk_log2(r.chunk_log2)?, offset, r.max as usize))
        };
        let (ost, object, chunk_log2, offset, max) = decode(request.into_inner()).map_err(to_status)?;
        let (found, complete) = self
            .data(0, move || match ost.store(object.fs)? {
                Some(store) => store.extents(&object, chunk_log2, offset, max),
                None => Ok((Vec::new(), true)),
            })
            .await?;
        let extents = found.iter().map(|e| oss::DataExtent { offset: e.offset, length: e.length }).collect();
        Ok(Response::new(oss::ExtentsReply { extents, complete }))
    }

    async fn stat_fs(&self, request: Request<oss::StatFsRequest>) -> Result<Response<oss::StatFsReply>, Status> {
        let ost = self.ost(request.get_ref().ost).map_err(to_status)?;
        let space = self.data(0, move || ost.space()).await?;
        Ok(Response::new(space.into()))
    }

    async fn drop_file_system(
        &self,
        request: Request<oss::DropFileSystemRequest>,
    ) -> Result<Response<oss::DropFileSystemReply>, Status> {
        let r = request.into_inner();
        let (ost, fs) = self.ost(r.ost).and_then(|ost| Ok((ost, fs_id(r.fs_id)?))).map_err(to_status)?;
        self.durable(move || ost.drop_file_system(fs)).await?;
        Ok(Response::new(oss::DropFileSystemReply {}))
    }

    async fn fence(&self, request: Request<oss::FenceRequest>) -> Result<Response<oss::FenceReply>, Status> {
        let writers = ended_writers(request.into_inner().ended_writers).map_err(to_status)?;
        if writers.is_empty() {
            return Err(to_status(bad("ended_writers", "none")));
        }
        tracing::info!(writers = writers.len(), "the MDS shuts clients out whose sessions have expired");
        // Every OST first, none waits for another. No thread and no place among commits is needed for that: those may be
        // taken by changes that a disk holds up.
        self.osts.values().for_each(|ost| ost.ended().refuse(&writers));
        let until = tokio::time::Instant::now() + UNDER_WAY_MAX;
        for (index, ost) in &self.osts {
            if tokio::time::timeout_at(until, ost.ended().quiet(&writers)).await.is_err() {
                let what = format!("OST {index} refuses these writers, but changes of theirs are still being made");
                let error = FsError::new(FsCode::Unavailable, what);
                return Err(to_status(error.with_hint("ask again; if that lasts, its disk does not answer")));
            }
        }
        Ok(Response::new(oss::FenceReply {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ost::OstOptions;
    use crate::store::index::IndexCache;

    #[tokio::test]
    async fn a_change_that_a_disk_holds_up_keeps_no_ost_from_refusing_its_writer_and_commits_do_not_either() {
        let dirs = [tempfile::tempdir().expect("temp dir"), tempfile::tempdir().expect("temp dir")];
        let options = OstOptions {
            capacity: None,
            reserve: 0,
            segment_bytes: 16 << 20,
            cache: IndexCache::new(32 << 20),
            create: true,
        };
        let osts = [0, 1].map(|n| Arc::new(Ost::open(dirs[n].path(), options.clone()).expect("opens")));
        let by_index = osts.iter().enumerate().map(|(n, ost)| (OstIndex(n as u16), ost.clone())).collect();
        let service = Service::new(ClusterId([5; 16]), by_index, 1, 1 << 20);
        let _all = service.commits.clone().acquire_many_owned(COMMITS_MAX as u32).await.expect("there are so many");
        let stuck = osts[0].ended().pass(7).expect("its session lives");
        let fence = |writer| service.fence(Request::new(oss::FenceRequest { ended_writers: vec![writer] }));
        let mut waits = fence(7);
        assert!(futures::poll!(&mut waits).is_pending(), "the change is not done");
        assert!(osts.iter().all(|ost| ost.ended().pass(7).is_err()), "refused at once, everywhere");
        assert!(osts.iter().all(|ost| ost.ended().pass(8).is_ok()), "others go on");
        fence(9).await.expect("no change of that one is under way");
        drop(stuck);
        waits.await.expect("shut out");
    }
}
