//! The cluster as an administrator sees it: servers, targets and file systems. A thin client of `mds.Cluster`.
//!
//! No session and no file system is needed. Every call has a deadline and is tried once per MDS address: a person
//! waits for it, and an error with a hint now is worth more than an answer in a minute.

use std::future::Future;
use std::time::Duration;

use sateen_proto::mds::cluster_client::ClusterClient;
use sateen_proto::mds::namespace_client::NamespaceClient;
use sateen_proto::{convert, mds, version};
use sateen_types::{
    ClusterId, Compression, Fid, FsCode, FsError, FsId, FsName, FsResult, LayoutTemplate, OstIndex, OstUuid, Space,
    Timestamp,
};
use tonic::transport::Channel;

use crate::source::parse_host;
use crate::transport;

/// How well a target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OstState {
    /// Heard of within the timeout.
    Up,
    /// Not heard of.
    Down,
    /// Its store has failed: reads may work, writes do not.
    Failed,
}

/// One OST of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ost {
    /// Number.
    pub index: OstIndex,
    /// Identity of its directory.
    pub uuid: OstUuid,
    /// `HOST:PORT` of its OSS.
    pub address: String,
    /// How well it is.
    pub state: OstState,
    /// Its space.
    pub space: Space,
    /// Since its last heartbeat.
    pub silent: Duration,
}

/// Whether a file system can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystemState {
    /// It can.
    Available,
    /// Being removed.
    Deleting,
}

/// One file system of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Number; never reused.
    pub id: FsId,
    /// Name.
    pub name: FsName,
    /// Whether it can be used.
    pub state: FileSystemState,
    /// How it stores chunks.
    pub compression: Compression,
    /// Layout of new files where no directory says otherwise.
    pub default_layout: LayoutTemplate,
    /// When it was made.
    pub created: Timestamp,
    /// Inodes in use.
    pub inodes: u64,
    /// Sessions now.
    pub clients: u32,
}

/// One screen about the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Identity.
    pub cluster: ClusterId,
    /// Name and version of the MDS program.
    pub software: String,
    /// Since the MDS started.
    pub uptime: Duration,
    /// Every OST.
    pub osts: Vec<Ost>,
    /// Every file system.
    pub file_systems: Vec<FileSystem>,
}

/// What a new file system is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFileSystem {
    /// Name.
    pub name: FsName,
    /// `None`: LZ4.
    pub compression: Option<Compression>,
    /// `None`: FSx's four components.
    pub default_layout: Option<LayoutTemplate>,
    /// Owner of the root directory.
    pub root_uid: u32,
    /// Group of the root directory.
    pub root_gid: u32,
    /// Permission bits of the root directory; 0 means 0755.
    pub root_mode: u32,
}

impl NewFileSystem {
    /// Everything by default.
    pub fn new(name: FsName) -> NewFileSystem {
        NewFileSystem { name, compression: None, default_layout: None, root_uid: 0, root_gid: 0, root_mode: 0 }
    }
}

/// A connection to the MDS for administration. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admin {
    host: String,
    channel: Channel,
    timeout: Duration,
}

impl Admin {
    /// Connects to the first of `hosts` (`HOST[:PORT]`, commas between) that answers within `timeout`, and agrees on
    /// a protocol version. `timeout` also bounds every later call.
    pub async fn connect(hosts: &str, timeout: Duration) -> FsResult<Admin> {
        let mut last = None;
        for text in hosts.split(',') {
            let host = parse_host(text).ok_or_else(|| {
                FsError::new(FsCode::Invalid, format!("{text:?} is not an MDS address"))
                    .with_hint("write HOST[:PORT], e.g. localhost:9880")
            })?;
            match Self::connect_one(host, timeout).await {
                Ok(admin) => return Ok(admin),
                Err(e) if e.code.is_retryable() => last = Some(e),
                Err(e) => return Err(e),
            }
        }
        Err(last.unwrap_or_else(|| FsError::new(FsCode::Invalid, "no MDS address given")))
    }

    async fn connect_one(host: String, timeout: Duration) -> FsResult<Admin> {
        let channel = transport::channel(&host, timeout, timeout)?;
        let admin = Admin { host, channel, timeout };
        let reply = admin.call(admin.cluster().hello(version::hello("sateen-client"))).await?;
        version::accept(&reply)?;
        Ok(admin)
    }

    /// `HOST:PORT` of the MDS that answered.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// One screen about the cluster.
    pub async fn status(&self) -> FsResult<Status> {
        let r = self.call(self.cluster().status(mds::StatusRequest {})).await?;
        Ok(Status {
            cluster: convert::cluster_id(&r.cluster_id)?,
            software: r.software,
            uptime: Duration::from_secs(r.uptime_seconds),
            osts: r.osts.into_iter().map(ost).collect::<FsResult<_>>()?,
            file_systems: r.file_systems.into_iter().map(file_system).collect::<FsResult<_>>()?,
        })
    }

    /// Every OST, with state and space.
    pub async fn list_osts(&self) -> FsResult<Vec<Ost>> {
        let r = self.call(self.cluster().list_osts(mds::ListOstsRequest { known_version: 0 })).await?;
        r.osts.into_iter().map(ost).collect()
    }

    /// Makes a file system. `Exists` if the name is taken.
    pub async fn create_file_system(&self, new: NewFileSystem) -> FsResult<FileSystem> {
        use sateen_proto::common;
        let compression = new.compression.map_or(common::Compression::Unspecified, Into::into);
        let request = mds::CreateFileSystemRequest {
            name: new.name.to_string(),
            compression: compression.into(),
            default_layout: new.default_layout.as_ref().map(Into::into),
            root_uid: new.root_uid,
            root_gid: new.root_gid,
            root_mode: new.root_mode,
        };
        file_system(self.call(self.cluster().create_file_system(request)).await?)
    }

    /// Every file system.
    pub async fn list_file_systems(&self) -> FsResult<Vec<FileSystem>> {
        let r = self.call(self.cluster().list_file_systems(mds::ListFileSystemsRequest {})).await?;
        r.file_systems.into_iter().map(file_system).collect()
    }

    /// One file system; `NotFound` if there is none of that name.
    pub async fn get_file_system(&self, name: &FsName) -> FsResult<FileSystem> {
        let request = mds::GetFileSystemRequest { name: name.to_string() };
        file_system(self.call(self.cluster().get_file_system(request)).await?)
    }

    /// Removes a file system with all its data. `Busy` while clients use it, unless forced.
    pub async fn delete_file_system(&self, name: &FsName, force: bool) -> FsResult<()> {
        let request = mds::DeleteFileSystemRequest { name: name.to_string(), force };
        self.call(self.cluster().delete_file_system(request)).await.map(drop)
    }

    /// Paths of a file, one per hard link, without a leading slash.
    pub async fn fid_to_path(&self, fs: &FsName, fid: Fid) -> FsResult<Vec<Vec<u8>>> {
        let request = mds::FidToPathRequest { fs_name: fs.to_string(), fid: Some(fid.into()) };
        let mut client = NamespaceClient::new(self.channel.clone());
        Ok(self.call(async move { client.fid_to_path(request).await }).await?.paths)
    }

    /// The connection.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// What a call may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    fn cluster(&self) -> ClusterCalls {
        ClusterCalls(ClusterClient::new(self.channel.clone()))
    }

    pub(crate) async fn call<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> FsResult<T> {
        transport::within(self.timeout, &format!("MDS {}", self.host), call).await.map_err(|e| {
            if e.hint.is_none() && e.code.is_retryable() {
                e.with_hint("check that sateen-mds runs there and that the address and port are right")
            } else {
                e
            }
        })
    }
}

/// Owned clients, so that a call is a future without borrows.
struct ClusterCalls(ClusterClient<Channel>);

macro_rules! owned_calls {
    ($($name:ident($request:ty) -> $reply:ty;)*) => {
        impl ClusterCalls {
            $(async fn $name(mut self, request: $request) -> Result<tonic::Response<$reply>, tonic::Status> {
                self.0.$name(request).await
            })*
        }
    };
}

owned_calls! {
    hello(sateen_proto::common::HelloRequest) -> sateen_proto::common::HelloReply;
    status(mds::StatusRequest) -> mds::StatusReply;
    list_osts(mds::ListOstsRequest) -> mds::ListOstsReply;
    create_file_system(mds::CreateFileSystemRequest) -> mds::FileSystem;
    list_file_systems(mds::ListFileSystemsRequest) -> mds::ListFileSystemsReply;
    get_file_system(mds::GetFileSystemRequest) -> mds::FileSystem;
    delete_file_system(mds::DeleteFileSystemRequest) -> mds::DeleteFileSystemReply;
}

/// An OST as a peer sent it.
pub(crate) fn ost(w: mds::Ost) -> FsResult<Ost> {
    let state = match mds::OstState::try_from(w.state) {
        Ok(mds::OstState::Up) => OstState::Up,
        Ok(mds::OstState::Failed) => OstState::Failed,
        // What this version does not know it must not rely on.
        Ok(mds::OstState::Down | mds::OstState::Unspecified) | Err(_) => OstState::Down,
    };
    Ok(Ost {
        index: convert::ost_index(w.index)?,
        uuid: convert::ost_uuid(&w.ost_uuid)?,
        address: w.address,
        state,
        space: convert::required(w.space, "space")?.into(),
        silent: Duration::from_millis(w.silent_ms),
    })
}

fn file_system(w: mds::FileSystem) -> FsResult<FileSystem> {
    let state = match mds::FileSystemState::try_from(w.state) {
        Ok(mds::FileSystemState::Available) => FileSystemState::Available,
        Ok(mds::FileSystemState::Deleting) => FileSystemState::Deleting,
        Ok(mds::FileSystemState::Unspecified) | Err(_) => {
            return Err(convert::bad("state", format_args!("{} is unknown", w.state)));
        }
    };
    Ok(FileSystem {
        id: convert::fs_id(w.id)?,
        name: w.name.parse()?,
        state,
        compression: transport::compression(w.compression)?,
        default_layout: match w.default_layout {
            Some(layout) => layout.try_into()?,
            // Its directory may be gone already.
            None if state == FileSystemState::Deleting => LayoutTemplate::default(),
            None => return Err(convert::bad("default_layout", "missing")),
        },
        created: convert::required(w.created, "created")?.try_into()?,
        inodes: w.inodes,
        clients: w.clients,
    })
}
