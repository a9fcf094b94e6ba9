//! The `Maintenance` service: checks on demand, what the scrub knows, and what objects there are.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use sateen_proto::convert::{bad, fs_id, ost_index};
use sateen_proto::oss::maintenance_server::Maintenance;
use sateen_proto::status::to_status;
use sateen_proto::{common, oss};
use sateen_types::limits::LIST_OBJECTS_MAX;
use sateen_types::{FsCode, FsError, FsId, FsResult, FsckEvent, ObjectId, OstIndex};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::ost::Ost;
use crate::scrub::Scrub;
use sateen_types::fsck::Report;

/// Events that wait for a slow reader; then the check waits.
const EVENTS_MAX: usize = 64;
/// How long a check waits for the one before it, which may just be ending.
const PATIENCE: Duration = Duration::from_secs(3);
/// Damaged chunks named in one reply.
const DAMAGED_MAX: usize = 256;

/// Maintenance of the OSTs of this process.
pub struct MaintenanceService {
    osts: HashMap<OstIndex, Arc<Scrub>>,
    /// One check at a time: each holds a thread and reads as much as the scrub.
    one: Arc<Semaphore>,
}

impl MaintenanceService {
    /// Of these OSTs.
    pub fn new(osts: HashMap<OstIndex, Arc<Scrub>>) -> MaintenanceService {
        MaintenanceService { osts, one: Arc::new(Semaphore::new(1)) }
    }

    fn ost(&self, number: u32) -> FsResult<Arc<Scrub>> {
        let index = ost_index(number)?;
        self.osts.get(&index).cloned().ok_or_else(|| {
            FsError::new(FsCode::NotFound, format!("ost: {index} is not served here"))
                .with_hint("ask the MDS where it is now")
        })
    }
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    type FsckStream = ReceiverStream<Result<common::FsckEvent, Status>>;

    async fn fsck(&self, request: Request<oss::FsckRequest>) -> Result<Response<Self::FsckStream>, Status> {
        let oss::FsckRequest { ost, deep } = request.into_inner();
        let scrub = self.ost(ost).map_err(to_status)?;
        let Ok(Ok(permit)) = tokio::time::timeout(PATIENCE, self.one.clone().acquire_owned()).await else {
            let busy = FsError::new(FsCode::Busy, "another check runs on this OSS");
            return Err(to_status(busy.with_hint("wait until it is over")));
        };
        let (events, stream) = mpsc::channel(EVENTS_MAX);
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            if let Err(e) = check(&scrub, deep, &events)
                && e.code != FsCode::Interrupted
            {
                // Nobody listens any more if this fails.
                let _ = events.blocking_send(Err(to_status(e)));
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn scrub_status(
        &self,
        request: Request<oss::ScrubStatusRequest>,
    ) -> Result<Response<oss::ScrubStatusReply>, Status> {
        let scrub = self.ost(request.get_ref().ost).map_err(to_status)?;
        let cursor = scrub.cursor();
        let mut reply = oss::ScrubStatusReply {
            enabled: scrub.config().enabled,
            passes: cursor.passes,
            last_pass_ended: if cursor.passes == 0 { 0 } else { cursor.last_ended },
            bytes: cursor.bytes,
            chunks: cursor.chunks,
            bytes_stored: scrub.ost().stored_bytes(),
            ..oss::ScrubStatusReply::default()
        };
        for store in scrub.ost().open_stores() {
            reply.damaged_chunks += store.damaged().count();
            let room = DAMAGED_MAX - reply.damaged.len();
            reply.damaged.extend(store.damaged().findings(store.file_system(), room).iter().map(common::Finding::from));
        }
        Ok(Response::new(reply))
    }

    async fn list_objects(
        &self,
        request: Request<oss::ListObjectsRequest>,
    ) -> Result<Response<oss::ListObjectsReply>, Status> {
        let decode = |r: oss::ListObjectsRequest| {
            let max = r.max as usize;
            if !(1..=LIST_OBJECTS_MAX).contains(&max) {
                return Err(bad("max", format_args!("{max} is not between 1 and {LIST_OBJECTS_MAX}")));
            }
            Ok((self.ost(r.ost)?, fs_id(r.fs_id)?, r.from.map(ObjectId::try_from).transpose()?, max))
        };
        let (scrub, fs, from, max) = decode(request.into_inner()).map_err(to_status)?;
        let work = tokio::task::spawn_blocking(move || list(scrub.ost(), fs, from.as_ref(), max));
        let stopping = |_| to_status(FsError::new(FsCode::Unavailable, "this OSS is stopping"));
        let (objects, complete) = work.await.map_err(stopping)?.map_err(to_status)?;
        Ok(Response::new(oss::ListObjectsReply { objects: objects.into_iter().map(Into::into).collect(), complete }))
    }
}

/// Objects from `from` on, at most `max`, and whether those are all.
fn list(ost: &Ost, fs: FsId, from: Option<&ObjectId>, max: usize) -> FsResult<(Vec<ObjectId>, bool)> {
    let mut found = match ost.store(fs) {
        Ok(Some(store)) => store.list(from, max + 1)?,
        Ok(None) => Vec::new(),
        // Gone with its objects.
        Err(e) if e.code == FsCode::Stale => Vec::new(),
        Err(e) => return Err(e),
    };
    let complete = found.len() <= max;
    found.truncate(max);
    Ok((found, complete))
}

/// Checks every store of an OST; a receiver that goes away stops it.
fn check(scrub: &Scrub, deep: bool, events: &mpsc::Sender<Result<common::FsckEvent, Status>>) -> FsResult<()> {
    let mut sink = |event: FsckEvent| match events.blocking_send(Ok((&event).into())) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    let pace = |bytes: u64| std::thread::sleep(scrub.config().time_for(bytes));
    let mut report = Report::new(&mut sink);
    for store in scrub.ost().open_stores() {
        store.check(deep, &pace, &mut report)?;
    }
    report.done().map(drop)
}
