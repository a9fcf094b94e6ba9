//! `sateen.mds.v1.Maintenance`: checks of namespaces at work.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sateen_proto::common;
use sateen_proto::mds::FsckRequest;
use sateen_proto::mds::maintenance_server::Maintenance;
use sateen_proto::status::to_status;
use sateen_runtime::Shutdown;
use sateen_types::fsck::Report;
use sateen_types::{FsCode, FsError, FsResult, FsckEvent, OstIndex, Tally, Timestamp};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, async_trait};

use crate::cluster::Cluster;
use crate::command::Command;
use crate::fs::FileSystem;
use crate::fsck::{self, Job};

/// Rows that a check of a namespace at work reads per second: a small part of what RocksDB can, for clients come first.
const ROWS_PER_SECOND: u64 = 200_000;
/// Events that wait for a slow reader; then the check waits.
const EVENTS_MAX: usize = 64;
/// How long a check waits for the one before it, which may just be ending.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long what looks like an object without a file is left alone before it is looked at again.
const GRACE: Duration = Duration::from_secs(2);
/// A check that has nothing to tell says so much later that it goes on.
const SILENCE: Duration = Duration::from_secs(5);

/// See the module.
pub struct Service {
    pub(super) cluster: Arc<Cluster>,
    pub(super) stop: Shutdown,
    /// One check at a time: each holds a thread and a snapshot.
    pub(super) one: Arc<Semaphore>,
}

type Event = Result<common::FsckEvent, Status>;

#[async_trait]
impl Maintenance for Service {
    type FsckStream = ReceiverStream<Event>;

    async fn fsck(&self, request: Request<FsckRequest>) -> Result<Response<Self::FsckStream>, Status> {
        let FsckRequest { file_system, repair } = request.into_inner();
        let file_systems = self.chosen(&file_system).map_err(to_status)?;
        let Ok(Ok(permit)) = tokio::time::timeout(PATIENCE, self.one.clone().acquire_owned()).await else {
            let busy = FsError::new(FsCode::Busy, "another check runs on this MDS");
            return Err(to_status(busy.with_hint("wait until it is over")));
        };
        let (events, stream) = mpsc::channel(EVENTS_MAX);
        let (cluster, stop) = (self.cluster.clone(), self.stop.clone());
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            if let Err(e) = check(&cluster, &file_systems, repair, &stop, &events)
                && e.code != FsCode::Interrupted
            {
                // Nobody listens any more if this fails.
                let _ = events.blocking_send(Err(to_status(e)));
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Service {
    fn chosen(&self, name: &str) -> FsResult<Vec<Arc<FileSystem>>> {
        if name.is_empty() { Ok(self.cluster.file_systems()) } else { Ok(vec![self.cluster.by_name(&name.parse()?)?]) }
    }
}

/// Checks them one after the other; a receiver that goes away stops it, and so does the end of the server.
fn check(
    cluster: &Cluster,
    file_systems: &[Arc<FileSystem>],
    repair: bool,
    stop: &Shutdown,
    events: &mpsc::Sender<Event>,
) -> FsResult<()> {
    let (spoke, last) = (Cell::new(Instant::now()), Cell::new(Tally::default()));
    let send = |event: &FsckEvent| {
        spoke.set(Instant::now());
        match events.blocking_send(Ok(event.into())) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    };
    let mut sink = |event: FsckEvent| {
        if let FsckEvent::Progress(tally) = event {
            last.set(tally);
        }
        send(&event)
    };
    let pace = |rows: u64| {
        std::thread::sleep(Duration::from_secs(rows) / ROWS_PER_SECOND as u32);
        let quiet = spoke.get().elapsed() > SILENCE;
        let gone = events.is_closed() || stop.is_requested();
        if gone || (quiet && send(&FsckEvent::Progress(last.get())).is_break()) {
            return Err(FsError::new(FsCode::Interrupted, "the check was stopped"));
        }
        Ok(())
    };
    let handle = tokio::runtime::Handle::current();
    let mut report = Report::new(&mut sink);
    for fs in file_systems {
        // Deleted meanwhile.
        let Some(store) = fs.store_handle().upgrade() else { continue };
        let osts: BTreeSet<OstIndex> = cluster.registry.read().candidates().iter().map(|c| c.index).collect();
        let list = |ost, from, max| {
            let address = cluster.registry.read().address(ost);
            let address = address.ok_or_else(|| {
                FsError::new(FsCode::Unavailable, format!("OST {ost} is down"))
                    .with_hint("start its OSS and check again")
            })?;
            handle.block_on(cluster.oss.list_objects(&address, ost, fs.info.id, from, max))
        };
        let mender = |command: Command| fs.mend_blocking(&command);
        let job = Job {
            fs: fs.info.id,
            store: &*store,
            osts: &osts,
            objects: Some(&list),
            grace: GRACE,
            mender: if repair { Some(&mender) } else { None },
            pace: &pace,
            now: &Timestamp::now,
        };
        fsck::check(&job, &mut report)?;
    }
    report.done().map(drop)
}
