//! Maintenance as an administrator sees it: checks of OSTs and of namespaces, and what the scrub knows. Talks to the
//! servers directly.

use std::ops::ControlFlow;
use std::time::Duration;

use sateen_proto::oss::maintenance_client::MaintenanceClient;
use sateen_proto::{common, convert, mds, oss, status};
use sateen_types::{Finding, FsCode, FsError, FsName, FsResult, FsckEvent, OstIndex, Tally};
use tonic::Streaming;
use tonic::transport::Channel;

use crate::transport;

/// A check that says nothing for so long has lost its server. Progress comes much more often.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// A request without an answer of its own deadline, far beyond any check.
const REQUEST_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// What the scrub of one OST knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrubStatus {
    /// Whether it is switched on.
    pub enabled: bool,
    /// Complete passes.
    pub passes: u64,
    /// When the last one ended, in seconds since 1970.
    pub last_pass_ended: Option<u64>,
    /// Stored bytes verified in the running or last pass.
    pub bytes: u64,
    /// Chunks verified in it.
    pub chunks: u64,
    /// Stored bytes on the OST.
    pub bytes_stored: u64,
    /// Chunks known to be unreadable.
    pub damaged_chunks: u64,
    /// Some of them.
    pub damaged: Vec<Finding>,
}

/// A connection to the OSS of one OST.
#[derive(Clone, Debug)]
pub struct Maintenance {
    ost: OstIndex,
    address: String,
    channel: Channel,
    timeout: Duration,
}

impl Maintenance {
    /// Of `ost`, at `address` (`HOST:PORT`, as the MDS lists it). `timeout` bounds connecting and single answers.
    pub fn new(ost: OstIndex, address: &str, timeout: Duration) -> FsResult<Maintenance> {
        let channel = transport::channel(address, timeout, REQUEST_MAX)?;
        Ok(Maintenance { ost, address: address.to_owned(), channel, timeout })
    }

    /// Checks the OST while it serves; every event goes to `sink`, which ends the check by breaking.
    pub async fn fsck(&self, deep: bool, sink: impl FnMut(FsckEvent) -> ControlFlow<()>) -> FsResult<Tally> {
        let request = oss::FsckRequest { ost: u32::from(self.ost.0), deep };
        let mut client = MaintenanceClient::new(self.channel.clone());
        let events = transport::within(self.timeout, &self.peer(), client.fsck(request)).await?;
        follow(events, &self.peer(), sink).await
    }

    /// What the scrub knows.
    pub async fn scrub_status(&self) -> FsResult<ScrubStatus> {
        let request = oss::ScrubStatusRequest { ost: u32::from(self.ost.0) };
        let mut client = MaintenanceClient::new(self.channel.clone());
        let r = transport::within(self.timeout, &self.peer(), client.scrub_status(request)).await?;
        let oss::ScrubStatusReply { enabled, passes, last_pass_ended, bytes, chunks, bytes_stored, .. } = r;
        Ok(ScrubStatus {
            enabled,
            passes,
            last_pass_ended: (last_pass_ended > 0).then_some(last_pass_ended),
            bytes,
            chunks,
            bytes_stored,
            damaged_chunks: r.damaged_chunks,
            damaged: r.damaged.into_iter().map(convert_finding).collect::<FsResult<_>>()?,
        })
    }

    fn peer(&self) -> String {
        format!("OST {} at {}", self.ost, self.address)
    }
}

/// Checks the namespace of one file system (`None`: of all) while it serves, through the MDS at `address` (`HOST:PORT`);
/// every event goes to `sink`, which ends the check by breaking. With `repair` it corrects what is certain.
pub async fn check_namespaces(
    address: &str,
    file_system: Option<&FsName>,
    repair: bool,
    timeout: Duration,
    sink: impl FnMut(FsckEvent) -> ControlFlow<()>,
) -> FsResult<Tally> {
    let channel = transport::channel(address, timeout, REQUEST_MAX)?;
    let file_system = file_system.map_or_else(String::new, FsName::to_string);
    let mut client = mds::maintenance_client::MaintenanceClient::new(channel);
    let peer = format!("the MDS at {address}");
    let events = transport::within(timeout, &peer, client.fsck(mds::FsckRequest { file_system, repair })).await?;
    follow(events, &peer, sink).await
}

/// Hands the events of a check on, up to the last.
async fn follow(
    mut events: Streaming<common::FsckEvent>,
    peer: &str,
    mut sink: impl FnMut(FsckEvent) -> ControlFlow<()>,
) -> FsResult<Tally> {
    let cut_off = |why: String| FsError::new(FsCode::Unavailable, format!("the check of {peer} was cut off: {why}"));
    loop {
        let event = match tokio::time::timeout(SILENCE_MAX, events.message()).await {
            Err(_) => return Err(cut_off(format!("nothing was heard for {SILENCE_MAX:?}"))),
            Ok(Err(s)) if s.details().is_empty() => return Err(cut_off(s.message().to_owned())),
            Ok(Err(s)) => return Err(status::from_status(&s)),
            Ok(Ok(None)) => return Err(cut_off("the server ended it".to_owned())),
            Ok(Ok(Some(event))) => FsckEvent::try_from(event)?,
        };
        let done = if let FsckEvent::Done(tally) = event { Some(tally) } else { None };
        if sink(event).is_break() {
            return Err(FsError::new(FsCode::Interrupted, "the check was stopped"));
        }
        if let Some(tally) = done {
            return Ok(tally);
        }
    }
}

fn convert_finding(finding: common::Finding) -> FsResult<Finding> {
    finding.try_into().map_err(|e: FsError| convert::bad("damaged", e.message))
}
