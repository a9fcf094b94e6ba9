//! Scripted peers: an MDS and an OSS in memory behind real gRPC servers on loopback, which fail as told.
//!
//! What they fake: one directory, no permissions, no durability on disk. What they keep to: reply records, verifiers,
//! commit and loss of what was not committed, the rules of parts. Faults they inject: a lost answer of any change, an
//! expired session, a restarted OSS that lost what was not committed, a full OST, a flipped byte, a server that holds
//! its answers. The client must survive each or report it.

mod expiry;
pub mod mds;
pub mod oss;
mod outages;
mod recalls;
mod released;
mod repositories;
mod tests;
mod together;

use std::sync::Arc;
use std::time::Duration;

use sateen_proto::mds::capabilities_server::CapabilitiesServer;
use sateen_proto::mds::cluster_server::ClusterServer;
use sateen_proto::mds::namespace_server::NamespaceServer;
use sateen_proto::mds::repositories_server::RepositoriesServer;
use sateen_proto::oss::object_store_server::ObjectStoreServer;
use sateen_types::limits::MESSAGE_BYTES_MAX;
use sateen_types::{ClusterId, Credential, Fid, LayoutTemplate, Name, StripePattern};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use crate::{Access, Client, File, NewFile, Options};

pub const CLUSTER: ClusterId = ClusterId([7; 16]);

/// Both servers, and how to reach them.
pub struct Peers {
    pub mds: Arc<mds::FakeMds>,
    pub oss: Arc<oss::FakeOss>,
    pub source: String,
}

impl Peers {
    /// Starts an MDS and an OSS with three OSTs.
    pub async fn start() -> Peers {
        let bind = async || TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (for_mds, for_oss) = (bind().await, bind().await);
        let address = |l: &TcpListener| l.local_addr().expect("bound").to_string();
        let oss = Arc::new(oss::FakeOss::default());
        let mds = Arc::new(mds::FakeMds::new(address(&for_oss)));
        let source = format!("{}:/fake", address(&for_mds));
        let namespace = NamespaceServer::from_arc(Arc::clone(&mds));
        let cluster = ClusterServer::from_arc(Arc::clone(&mds));
        let capabilities = CapabilitiesServer::from_arc(Arc::clone(&mds));
        let repositories = RepositoriesServer::from_arc(Arc::clone(&mds));
        tokio::spawn(
            Server::builder()
                .add_service(repositories)
                .add_service(namespace)
                .add_service(cluster)
                .add_service(capabilities)
                .serve_with_incoming(TcpListenerStream::new(for_mds)),
        );
        let store = ObjectStoreServer::from_arc(Arc::clone(&oss))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        tokio::spawn(Server::builder().add_service(store).serve_with_incoming(TcpListenerStream::new(for_oss)));
        Peers { mds, oss, source }
    }

    /// A client with `options`.
    pub async fn client(&self, options: Options) -> Client {
        Client::connect(&self.source.parse().expect("a source"), options).await.expect("connected")
    }
}

/// Bounds that make faults show within a test's patience, and nothing happen behind its back.
pub fn quick() -> Options {
    Options {
        request_timeout: Duration::from_secs(5),
        retry_for: Some(Duration::from_secs(10)),
        writeback_interval: Duration::from_secs(3600),
        ..Options::default()
    }
}

/// Three stripes of 64 KiB: small requests meet many objects.
pub fn narrow() -> LayoutTemplate {
    let mut striping = StripePattern::raid0(3);
    striping.stripe_size = 64 << 10;
    LayoutTemplate::plain(striping)
}

/// A new file, open for reading and writing.
pub async fn create(client: &Client, name: &str, layout: Option<LayoutTemplate>) -> File {
    let name = Name::parse(name.as_bytes()).expect("a name");
    let new =
        NewFile { parent: Fid::ROOT, name, mode: 0o644.into(), exclusive: true, access: Access::READ_WRITE, layout };
    client.create(&Credential::ROOT, new).await.expect("created").file
}

/// Bytes that tell where they belong.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    (0..len.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(len).collect()
}
