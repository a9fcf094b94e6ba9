//! `sateen.mds.v1.Cluster`.

use std::sync::Arc;
use std::time::Instant;

use sateen_proto::common::{Compression as WireCompression, HelloReply, HelloRequest};
use sateen_proto::convert::{bad, cluster_id, mode, ost_index, ost_uuid, required};
use sateen_proto::mds::cluster_server::Cluster as ClusterService;
use sateen_proto::mds::{self, *};
use sateen_proto::version;
use sateen_types::{Compression, FsName, FsResult, LayoutTemplate};
use tonic::{Request, async_trait};

use super::{Answer, PROGRAM, answer};
use crate::cluster::{Cluster, NewFileSystem, Registration};
use crate::fs::FileSystem;
use crate::namespace;
use crate::registry::{OstInfo, OstState, Report};
use crate::store::records::FileSystemRecord;

/// OSTs of one OSS.
const OSTS_PER_OSS_MAX: usize = 64;
/// Longest HOST:PORT.
const ADDRESS_BYTES_MAX: usize = 255;
/// How often an OSS reports, as a part of the timeout: two reports may be lost.
const HEARTBEATS_PER_TIMEOUT: u32 = 5;
/// Permission bits of a root directory where nothing was said.
const ROOT_MODE: u32 = 0o755;

/// See the module.
pub struct Service {
    pub(super) cluster: Arc<Cluster>,
}

#[async_trait]
impl ClusterService for Service {
    async fn hello(&self, request: Request<HelloRequest>) -> Answer<HelloReply> {
        answer(version::welcome(request.get_ref(), self.cluster.id(), PROGRAM))
    }

    async fn register_oss(&self, request: Request<RegisterOssRequest>) -> Answer<RegisterOssReply> {
        answer(self.register(request.into_inner()).await)
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Answer<HeartbeatReply> {
        let HeartbeatRequest { address, osts, registration } = request.into_inner();
        let hear = |r: Vec<Report>| {
            let mut registry = self.cluster.registry.write();
            registry.heartbeat(&address, registration, &r, Instant::now())
        };
        let known = reports(osts).map(hear);
        answer(known.map(|known| HeartbeatReply { register_again: !known }))
    }

    async fn list_osts(&self, request: Request<ListOstsRequest>) -> Answer<ListOstsReply> {
        let registry = self.cluster.registry.read();
        let version = registry.version();
        let known = request.get_ref().known_version == version;
        let osts = if known { Vec::new() } else { registry.list(Instant::now()).into_iter().map(ost).collect() };
        answer(Ok(ListOstsReply { version, osts }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusReply> {
        answer(self.status().await)
    }

    async fn create_file_system(&self, request: Request<CreateFileSystemRequest>) -> Answer<mds::FileSystem> {
        answer(self.create(request.into_inner()).await)
    }

    async fn list_file_systems(&self, _: Request<ListFileSystemsRequest>) -> Answer<ListFileSystemsReply> {
        answer(self.list().await.map(|file_systems| ListFileSystemsReply { file_systems }))
    }

    async fn get_file_system(&self, request: Request<GetFileSystemRequest>) -> Answer<mds::FileSystem> {
        answer(self.get(request.get_ref()).await)
    }

    async fn delete_file_system(&self, request: Request<DeleteFileSystemRequest>) -> Answer<DeleteFileSystemReply> {
        let DeleteFileSystemRequest { name, force } = request.into_inner();
        let deleted = async { self.cluster.delete_fs(&name.parse()?, force).await };
        answer(deleted.await.map(|()| DeleteFileSystemReply {}))
    }
}

impl Service {
    async fn register(&self, request: RegisterOssRequest) -> FsResult<RegisterOssReply> {
        let RegisterOssRequest { cluster_id: id, address, osts, software } = request;
        let cluster = if id.is_empty() { None } else { Some(cluster_id(&id)?) };
        if address.len() > ADDRESS_BYTES_MAX || !is_host_port(&address) {
            let shown: String = address.chars().take(64).collect();
            return Err(
                bad("address", format_args!("{shown:?} is not HOST:PORT")).with_hint("set `advertise` of the OSS")
            );
        }
        let reports = reports(osts)?;
        let Registration { indexes, ended, number } = self.cluster.register_oss(cluster, &address, &reports).await?;
        tracing::info!(address, software = software.chars().take(128).collect::<String>(), "an OSS registered");
        let timeout = self.cluster.registry.read().timeout();
        Ok(RegisterOssReply {
            cluster_id: self.cluster.id().0.to_vec(),
            indexes: indexes.iter().map(|i| u32::from(i.0)).collect(),
            heartbeat_interval_ms: (timeout / HEARTBEATS_PER_TIMEOUT).as_millis().clamp(50, 60_000) as u32,
            ended_writers: ended,
            registration: number,
        })
    }

    async fn status(&self) -> FsResult<StatusReply> {
        let osts = self.cluster.registry.read().list(Instant::now());
        Ok(StatusReply {
            cluster_id: self.cluster.id().0.to_vec(),
            software: version::software(PROGRAM),
            uptime_seconds: self.cluster.started.elapsed().as_secs(),
            osts: osts.into_iter().map(ost).collect(),
            file_systems: self.list().await?,
        })
    }

    async fn create(&self, request: CreateFileSystemRequest) -> FsResult<mds::FileSystem> {
        let compression = match WireCompression::try_from(request.compression) {
            Ok(WireCompression::Unspecified) => Compression::Lz4,
            Ok(known) => known.try_into()?,
            Err(_) => return Err(bad("compression", format_args!("{} is unknown", request.compression))),
        };
        let new = NewFileSystem {
            name: request.name.parse()?,
            compression,
            layout: request.default_layout.map(LayoutTemplate::try_from).transpose()?.unwrap_or_default(),
            root_uid: request.root_uid,
            root_gid: request.root_gid,
            root_mode: if request.root_mode == 0 { ROOT_MODE } else { mode(request.root_mode)? },
        };
        available(&*self.cluster.create_fs(new).await?).await
    }

    async fn list(&self) -> FsResult<Vec<mds::FileSystem>> {
        let mut list = Vec::new();
        for fs in self.cluster.file_systems() {
            list.push(available(&fs).await?);
        }
        list.extend(self.cluster.deleting().into_iter().map(|(id, record)| deleting(id.0, record)));
        list.sort_by_key(|fs| fs.id);
        Ok(list)
    }

    async fn get(&self, request: &GetFileSystemRequest) -> FsResult<mds::FileSystem> {
        let name: FsName = request.name.parse()?;
        if let Some((id, record)) = self.cluster.deleting().into_iter().find(|(_, r)| r.name == name) {
            return Ok(deleting(id.0, record));
        }
        available(&*self.cluster.by_name(&name)?).await
    }
}

async fn available(fs: &FileSystem) -> FsResult<mds::FileSystem> {
    let (layout, inodes) = fs
        .read(|tx| {
            let (layout, _) = namespace::inherited_template(tx, sateen_types::Fid::ROOT)?;
            Ok((layout, namespace::inode_count(tx)?))
        })
        .await?;
    Ok(mds::FileSystem {
        id: fs.info.id.0,
        name: fs.info.name.to_string(),
        state: FileSystemState::Available.into(),
        compression: WireCompression::from(fs.info.compression).into(),
        default_layout: Some((&layout).into()),
        created: Some(fs.info.created.into()),
        inodes,
        clients: fs.session_count() as u32,
    })
}

fn deleting(id: u32, record: FileSystemRecord) -> mds::FileSystem {
    mds::FileSystem {
        id,
        name: record.name.to_string(),
        state: FileSystemState::Deleting.into(),
        compression: WireCompression::from(record.compression).into(),
        default_layout: None,
        created: Some(record.created.into()),
        inodes: 0,
        clients: 0,
    }
}

fn is_host_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p != 0) && address.bytes().all(|b| b.is_ascii_graphic())
    })
}

fn reports(osts: Vec<OstReport>) -> FsResult<Vec<Report>> {
    if osts.is_empty() || osts.len() > OSTS_PER_OSS_MAX {
        return Err(bad("osts", format_args!("{}, an OSS has 1 to {OSTS_PER_OSS_MAX}", osts.len())));
    }
    let report = |r: OstReport| {
        Ok(Report {
            uuid: ost_uuid(&r.ost_uuid)?,
            index: r.index.map(ost_index).transpose()?,
            space: required(r.space, "space")?.into(),
            failed: r.failed,
            draining: r.draining,
        })
    };
    osts.into_iter().map(report).collect()
}

fn ost(info: OstInfo) -> Ost {
    let state = match info.state {
        OstState::Up => mds::OstState::Up,
        OstState::Down => mds::OstState::Down,
        OstState::Failed => mds::OstState::Failed,
    };
    Ost {
        index: u32::from(info.index.0),
        ost_uuid: info.uuid.0.to_vec(),
        address: info.address,
        state: state.into(),
        space: Some(info.space.into()),
        // Never heard of since the start: as long as can be said.
        silent_ms: info.silent.map_or(u64::MAX, |s| s.as_millis() as u64),
    }
}
