//! How an OSS makes itself known to the MDS: registration at start, then heartbeats.
//!
//! The MDS decides indexes and the cluster; the OSTs remember both ([`Ost::join`]). Losing the MDS stops nothing here:
//! clients go on until their leases are over, and the next heartbeat that gets through tells how things are. An OSS that has
//! just started serves nobody before it is registered: with the answer it learns which clients it must not let write.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sateen_proto::convert::{cluster_id, ended_writers, ost_index};
use sateen_proto::mds::cluster_client::ClusterClient;
use sateen_proto::mds::{HeartbeatRequest, OstReport, RegisterOssRequest};
use sateen_proto::status::from_status;
use sateen_proto::version;
use sateen_runtime::Shutdown;
use sateen_types::{ClusterId, FsCode, FsError, FsResult};
use tonic::transport::{Channel, Endpoint};

use crate::ost::Ost;
use crate::superblock::Member;

/// How long one call to the MDS may take.
const CALL_MAX: Duration = Duration::from_secs(10);
/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Pause after the first failed registration; doubles up to the next.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// Longest pause between registrations.
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Bounds of the heartbeat interval that the MDS may ask for.
const HEARTBEAT_MIN: Duration = Duration::from_millis(50);
/// See [`HEARTBEAT_MIN`].
const HEARTBEAT_MAX: Duration = Duration::from_secs(60);

/// An accepted registration.
#[derive(Clone, Copy, Debug)]
pub struct Registered {
    /// The cluster the OSTs belong to.
    pub cluster: ClusterId,
    /// How often the MDS wants to hear of them.
    pub heartbeat: Duration,
}

/// Registers the OSTs of this process.
pub struct Registrar {
    mds: Vec<String>,
    address: String,
    osts: Vec<Arc<Ost>>,
    /// The last one whose answer took effect, as heartbeats say it.
    registration: AtomicU64,
}

impl Registrar {
    /// Reports `osts`, reachable under `address`, to the first MDS of `mds` that answers.
    pub fn new(mds: Vec<String>, address: String, osts: Vec<Arc<Ost>>) -> Registrar {
        Registrar { mds, address, osts, registration: AtomicU64::new(0) }
    }

    /// Registers, however long the MDS takes to answer. `None` if stopping was asked for meanwhile; an error only if
    /// the MDS refuses.
    pub async fn register_patiently(&self, stop: &Shutdown) -> FsResult<Option<Registered>> {
        let mut pause = RETRY_FIRST;
        let mut waiting = false;
        loop {
            let attempt = tokio::select! {
                attempt = self.register() => attempt,
                () = stop.requested() => return Ok(None),
            };
            match attempt {
                Ok(registered) => return Ok(Some(registered)),
                Err(error) if !error.code.is_retryable() => return Err(error),
                Err(error) => {
                    if !std::mem::replace(&mut waiting, true) {
                        tracing::warn!(mds = ?self.mds, %error, "the MDS does not answer; trying until it does");
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.requested() => return Ok(None),
            }
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Registers once: reports the OSTs, refuses the clients whose sessions have expired, writes what the MDS decided into the
    /// superblocks, and confirms that.
    pub async fn register(&self) -> FsResult<Registered> {
        let mut client = self.connect().await?;
        let hello = client.hello(version::hello("sateen-oss")).await.map_err(|s| from_status(&s))?.into_inner();
        version::accept(&hello)?;
        let members = self.osts.iter().filter_map(|ost| ost.member());
        let request = RegisterOssRequest {
            cluster_id: members.map(|m| m.cluster.0.to_vec()).next().unwrap_or_default(),
            address: self.address.clone(),
            osts: self.reports().await?,
            software: version::software("sateen-oss"),
        };
        let reply = client.register_oss(request).await.map_err(|s| from_status(&s))?.into_inner();
        let cluster = cluster_id(&reply.cluster_id)?;
        if reply.indexes.len() != self.osts.len() {
            return Err(FsError::new(
                FsCode::Internal,
                format!("the MDS numbered {} OSTs, {} were registered", reply.indexes.len(), self.osts.len()),
            ));
        }
        let ended = ended_writers(reply.ended_writers)?;
        // Waits for no disk: an OST with changes of theirs under way says so in its reports until they are done.
        self.osts.iter().for_each(|ost| ost.ended().refuse(&ended));
        for (ost, index) in self.osts.iter().zip(&reply.indexes) {
            let member = Member { cluster, index: ost_index(*index)? };
            let ost = ost.clone();
            blocking(move || ost.join(member)).await?;
        }
        self.registration.store(reply.registration, Ordering::Release);
        if !ended.is_empty() {
            // Until then the MDS does not count on these OSTs. If it asks to register again, so it does the next time.
            client.heartbeat(self.heartbeat().await?).await.map_err(|s| from_status(&s))?;
        }
        let heartbeat = Duration::from_millis(u64::from(reply.heartbeat_interval_ms));
        Ok(Registered { cluster, heartbeat: heartbeat.clamp(HEARTBEAT_MIN, HEARTBEAT_MAX) })
    }

    /// Tells the MDS every `interval` how the OSTs are, and registers again when it asks, until stopping is asked for.
    pub async fn heartbeats(&self, mut interval: Duration, stop: &Shutdown) {
        let mut client = None;
        let mut silent = false;
        // What the MDS says to a registration must be heard, or clients that are shut out could still write here.
        let mut registered = true;
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = stop.requested() => return,
            }
            let beat = tokio::select! {
                beat = self.beat(&mut client, &mut registered) => beat,
                () = stop.requested() => return,
            };
            match beat {
                Ok(again) => {
                    interval = again.unwrap_or(interval);
                    if std::mem::replace(&mut silent, false) {
                        tracing::info!("the MDS answers again");
                    }
                }
                Err(error) => {
                    client = None;
                    if !std::mem::replace(&mut silent, true) {
                        tracing::warn!(%error, hint = error.hint, "heartbeats do not get through");
                    }
                }
            }
        }
    }

    /// One heartbeat; the interval if it led to a new registration.
    async fn beat(
        &self,
        client: &mut Option<ClusterClient<Channel>>,
        registered: &mut bool,
    ) -> FsResult<Option<Duration>> {
        let mut connected = match client.take() {
            Some(connected) => connected,
            None => self.connect().await?,
        };
        let request = self.heartbeat().await?;
        let reply = connected.heartbeat(request).await.map_err(|s| from_status(&s))?.into_inner();
        *client = Some(connected);
        if reply.register_again {
            tracing::info!("the MDS asks for a new registration");
            *registered = false;
        }
        if *registered {
            return Ok(None);
        }
        let interval = self.register().await?.heartbeat;
        *registered = true;
        Ok(Some(interval))
    }

    async fn connect(&self) -> FsResult<ClusterClient<Channel>> {
        let mut last = None;
        for mds in &self.mds {
            let endpoint = Endpoint::from_shared(format!("http://{mds}"))
                .map_err(|e| FsError::new(FsCode::Invalid, format!("mds = {mds:?} is not HOST:PORT: {e}")))?
                .connect_timeout(CONNECT_MAX)
                .timeout(CALL_MAX);
            match endpoint.connect().await {
                Ok(channel) => return Ok(ClusterClient::new(channel)),
                Err(e) => {
                    let mut cause: &dyn std::error::Error = &e;
                    while let Some(deeper) = cause.source() {
                        cause = deeper;
                    }
                    let error = FsError::new(FsCode::Unavailable, format!("cannot reach the MDS at {mds}: {cause}"));
                    last = Some(error.with_hint("check the address and that sateen-mds runs there"));
                }
            }
        }
        Err(last.unwrap_or_else(|| FsError::new(FsCode::Invalid, "mds names no address")))
    }

    async fn heartbeat(&self) -> FsResult<HeartbeatRequest> {
        // Before the reports: they are not older.
        let registration = self.registration.load(Ordering::Acquire);
        Ok(HeartbeatRequest { address: self.address.clone(), osts: self.reports().await?, registration })
    }

    async fn reports(&self) -> FsResult<Vec<OstReport>> {
        let osts = self.osts.clone();
        blocking(move || Ok(osts.iter().map(|ost| report(ost)).collect())).await
    }
}

/// How one OST is. A disk that does not even tell its space counts as failed.
fn report(ost: &Ost) -> OstReport {
    let space = ost.space();
    if let Err(error) = &space {
        tracing::error!(dir = %ost.dir().display(), %error, "cannot tell the space of an OST");
    }
    OstReport {
        ost_uuid: ost.uuid().0.to_vec(),
        index: ost.member().map(|m| u32::from(m.index.0)),
        failed: ost.is_failed() || space.is_err(),
        space: Some(space.unwrap_or_default().into()),
        draining: !ost.ended().is_quiet(),
    }
}

/// Runs `work` on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> FsResult<T> + Send + 'static) -> FsResult<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(FsError::new(FsCode::Unavailable, "this OSS is stopping")))
}

/// The address to tell others: what was configured, or this machine's address towards the MDS.
pub fn advertised(configured: &str, listen: SocketAddr, mds: &[SocketAddr]) -> FsResult<String> {
    if !configured.is_empty() {
        return Ok(configured.to_owned());
    }
    // A socket of IPv4 is not reached under an address of IPv6; [::] is reached under both.
    let peers = mds.iter().filter(|peer| peer.is_ipv4() || listen.is_ipv6());
    let ip = if listen.ip().is_unspecified() { outgoing(peers)? } else { listen.ip() };
    Ok(SocketAddr::new(ip, listen.port()).to_string())
}

/// The source address the kernel chooses towards one of `peers`. Connecting a UDP socket sends nothing.
fn outgoing<'a>(mut peers: impl Iterator<Item = &'a SocketAddr>) -> FsResult<IpAddr> {
    let towards = |peer: &SocketAddr| {
        let any: SocketAddr = if peer.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.connect(peer)?;
        Ok::<_, std::io::Error>(socket.local_addr()?.ip())
    };
    peers.find_map(|peer| towards(peer).ok()).ok_or_else(|| {
        FsError::new(FsCode::Invalid, "cannot find out under which address clients reach this OSS")
            .with_hint("set advertise = \"HOST:PORT\"")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advertised_address_is_one_that_others_can_use() {
        let mds = ["127.0.0.1:9880".parse().expect("address")];
        let any = "0.0.0.0:9881".parse().expect("address");
        assert_eq!(advertised("oss1:9881", any, &mds).expect("configured"), "oss1:9881");
        assert_eq!(advertised("", any, &mds).expect("towards the MDS"), "127.0.0.1:9881");
        assert_eq!(advertised("", "10.0.0.7:5".parse().expect("address"), &mds).expect("listen"), "10.0.0.7:5");
        let err = advertised("", any, &[]).expect_err("nobody to ask");
        assert!(err.hint.is_some());
    }
}
