//! Blocking gRPC calls of the harness: is a server ready, are the OSTs up, make a file system.
//!
//! Scenarios that test the wire itself make their own clients.

use std::net::SocketAddr;
use std::time::Duration;

use sateen_proto::common::{Compression, LayoutTemplate};
use sateen_proto::mds::cluster_client::ClusterClient;
use sateen_proto::mds::{CreateFileSystemRequest, FileSystem, ListOstsRequest, Ost, OstState};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Longest one call of the harness may take.
const CALL: Duration = Duration::from_secs(10);

/// Runs a future to its end on a small runtime of its own.
pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built").block_on(future)
}

/// A connection to `address`.
pub async fn connect(address: SocketAddr) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(format!("http://{address}"))
        .expect("a socket address makes a valid URI")
        .connect_timeout(CALL)
        .timeout(CALL)
        .connect()
        .await
}

/// Whether the server says through gRPC health that it serves.
pub fn is_serving(address: SocketAddr) -> bool {
    block_on(async {
        let Ok(channel) = connect(address).await else { return false };
        let reply = HealthClient::new(channel).check(tonic_health::pb::HealthCheckRequest::default()).await;
        reply.is_ok_and(|r| r.into_inner().status == ServingStatus::Serving as i32)
    })
}

/// The OSTs the MDS knows; `None` if it does not answer.
pub fn osts(mds: SocketAddr) -> Option<Vec<Ost>> {
    block_on(async {
        let channel = connect(mds).await.ok()?;
        let reply = ClusterClient::new(channel).list_osts(ListOstsRequest { known_version: 0 }).await.ok()?;
        Some(reply.into_inner().osts)
    })
}

/// How many OSTs are UP; `None` if the MDS does not answer.
pub fn osts_up(mds: SocketAddr) -> Option<usize> {
    Some(osts(mds)?.iter().filter(|o| o.state == OstState::Up as i32).count())
}

/// Makes a file system that everybody may use.
pub fn create_file_system(
    mds: SocketAddr,
    name: &str,
    compression: Compression,
    default_layout: Option<LayoutTemplate>,
) -> Result<FileSystem, tonic::Status> {
    block_on(async {
        let channel = connect(mds).await.map_err(|e| tonic::Status::unavailable(e.to_string()))?;
        let request = CreateFileSystemRequest {
            name: name.to_owned(),
            compression: compression as i32,
            default_layout,
            root_uid: 0,
            root_gid: 0,
            root_mode: 0o755,
        };
        Ok(ClusterClient::new(channel).create_file_system(request).await?.into_inner())
    })
}
