//! The addresses of the MDS. Requests go to the one that answered last; when it stops, to the next.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sateen_proto::mds::capabilities_client::CapabilitiesClient;
use sateen_proto::mds::cluster_client::ClusterClient;
use sateen_proto::mds::locks_client::LocksClient;
use sateen_proto::mds::namespace_client::NamespaceClient;
use sateen_proto::mds::repositories_client::RepositoriesClient;
use sateen_proto::mds::write_back_client::WriteBackClient;
use sateen_types::limits::MESSAGE_BYTES_MAX;
use sateen_types::{FsError, FsResult};
use tonic::transport::Channel;

use crate::transport;

/// Channels to every address.
#[derive(Debug)]
pub(crate) struct Mds {
    hosts: Vec<(String, Channel)>,
    current: AtomicUsize,
    /// Deadline of one attempt.
    pub request_timeout: Duration,
}

/// One attempt's way to the MDS.
pub(crate) struct Route {
    index: usize,
    /// `MDS HOST:PORT`, for errors.
    pub peer: String,
    channel: Channel,
}

impl Route {
    /// Client of the namespace service.
    pub fn namespace(&self) -> NamespaceClient<Channel> {
        NamespaceClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Client of the service of locks.
    pub fn locks(&self) -> LocksClient<Channel> {
        LocksClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Client of the service of capabilities.
    pub fn capabilities(&self) -> CapabilitiesClient<Channel> {
        CapabilitiesClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Client of the service of directories that clients hold.
    pub fn writeback(&self) -> WriteBackClient<Channel> {
        WriteBackClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Client of the service of data repositories.
    pub fn repositories(&self) -> RepositoriesClient<Channel> {
        RepositoriesClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Client of the cluster service.
    pub fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

impl Mds {
    /// `hosts` are `HOST:PORT`. Nothing is sent yet.
    pub fn new(hosts: &[String], connect_timeout: Duration, request_timeout: Duration) -> FsResult<Mds> {
        let channel = |host: &String| {
            let channel = transport::channel(host, connect_timeout.min(request_timeout), request_timeout)?;
            Ok((host.clone(), channel))
        };
        let hosts = hosts.iter().map(channel).collect::<FsResult<Vec<_>>>()?;
        if hosts.is_empty() {
            return Err(FsError::new(sateen_types::FsCode::Invalid, "the mount source names no MDS"));
        }
        Ok(Mds { hosts, current: AtomicUsize::new(0), request_timeout })
    }

    /// The way for the next attempt.
    pub fn route(&self) -> Route {
        let index = self.current.load(Ordering::Relaxed) % self.hosts.len();
        let (host, channel) = &self.hosts[index];
        Route { index, peer: format!("MDS {host}"), channel: channel.clone() }
    }

    /// The attempt on `route` failed in a way another address may not: the next attempt goes there.
    pub fn failed(&self, route: &Route) {
        let next = (route.index + 1) % self.hosts.len();
        let _ = self.current.compare_exchange(route.index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Every address, for errors.
    pub fn addresses(&self) -> String {
        self.hosts.iter().map(|(host, _)| host.as_str()).collect::<Vec<_>>().join(", ")
    }
}
