//! The gRPC services: each method decodes, calls, encodes. No rule lives here but those about the transport.

mod capabilities;
pub use capabilities::Service as CapabilitiesRpc;
mod changelog;
mod cluster;
pub use cluster::Service as ClusterRpc;
mod locks;
pub use locks::Service as LocksRpc;
mod maintenance;
mod namespace;
pub use namespace::Service as NamespaceRpc;
mod repositories;
mod writeback;
pub use writeback::Service as WriteBackRpc;

use std::sync::Arc;

use sateen_proto::mds::capabilities_server::CapabilitiesServer;
use sateen_proto::mds::changelog_server::ChangelogServer;
use sateen_proto::mds::cluster_server::ClusterServer;
use sateen_proto::mds::locks_server::LocksServer;
use sateen_proto::mds::maintenance_server::MaintenanceServer;
use sateen_proto::mds::namespace_server::NamespaceServer;
use sateen_proto::mds::repositories_server::RepositoriesServer;
use sateen_proto::mds::write_back_server::WriteBackServer;
use sateen_proto::status::to_status;
use sateen_runtime::Shutdown;
use sateen_types::limits::MESSAGE_BYTES_MAX;
use sateen_types::{FsCode, FsError, FsResult};
use tokio::sync::Semaphore;
use tonic::{Response, Status};

use crate::cluster::Cluster;

/// Name of this program in hellos.
pub const PROGRAM: &str = "sateen-mds";

/// Answer of a method.
type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(result: FsResult<T>) -> Answer<T> {
    result.map(Response::new).map_err(|error| {
        log_own(&error);
        to_status(error)
    })
}

/// Errors that are the server's own stand in its log, too.
fn log_own(error: &FsError) {
    if matches!(error.code, FsCode::Internal | FsCode::Corrupt | FsCode::Io) {
        tracing::error!(code = ?error.code, "answered with: {error}");
    }
}

/// The service about capabilities; its streams end when `stop` is requested.
pub fn capabilities_service(cluster: Arc<Cluster>, stop: Shutdown) -> CapabilitiesServer<capabilities::Service> {
    CapabilitiesServer::new(capabilities::Service { cluster, stop }).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// The service about what happened.
pub fn changelog_service(cluster: Arc<Cluster>) -> ChangelogServer<changelog::Service> {
    ChangelogServer::new(changelog::Service { cluster }).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// The service about servers and file systems.
pub fn cluster_service(cluster: Arc<Cluster>) -> ClusterServer<cluster::Service> {
    ClusterServer::new(cluster::Service { cluster }).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// The service about locks.
pub fn locks_service(cluster: Arc<Cluster>) -> LocksServer<locks::Service> {
    LocksServer::new(locks::Service { cluster }).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// The service about checks, which end when `stop` is requested.
pub fn maintenance_service(cluster: Arc<Cluster>, stop: Shutdown) -> MaintenanceServer<maintenance::Service> {
    let one = Arc::new(Semaphore::new(1));
    MaintenanceServer::new(maintenance::Service { cluster, stop, one }).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// The service about names.
pub fn namespace_service(cluster: Arc<Cluster>) -> NamespaceServer<namespace::Service> {
    NamespaceServer::new(namespace::Service { cluster }).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// The service about data repositories.
pub fn repositories_service(cluster: Arc<Cluster>) -> RepositoriesServer<repositories::Service> {
    RepositoriesServer::new(repositories::Service { cluster }).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// The service about directories that clients hold.
pub fn writeback_service(cluster: Arc<Cluster>) -> WriteBackServer<writeback::Service> {
    WriteBackServer::new(writeback::Service { cluster }).max_decoding_message_size(MESSAGE_BYTES_MAX)
}
