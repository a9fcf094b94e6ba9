//! The cluster: its OSTs and file systems, durable in `cluster/` and alive in memory. Creating and deleting file systems
//! is a change of several directories; the row in `file_systems` decides what counts:
//!
//! - create: number taken (durable) -> directory and root made -> row `Available`. A crash before the row leaves a
//!   directory nobody refers to; its number is never used again.
//! - delete: row `Deleting` (from now on unknown to clients) -> objects dropped on every OST -> directory removed -> row
//!   gone. A crash anywhere goes on from the row.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use sateen_types::limits::ENDED_WRITERS_MAX;
use sateen_types::{ClusterId, SessionId};
use sateen_types::{Compression, FsCode, FsError, FsId, FsName, FsResult, LayoutTemplate, OstIndex, Timestamp};

use crate::command::Command;
use crate::dir::MdsDir;
use crate::fencing::EndedWriters;
use crate::fs::{FileSystem, FsInfo, abort_process};
use crate::mdt_disk::MdtDisk;
use crate::namespace;
use crate::oss_client::OssClient;
use crate::registry::{Admission, Registry, Report};
use crate::store::codec::Record;
use crate::store::records::{Counter, EndedWriterRecord, FileSystemRecord, FsState, OstRecord};
use crate::store::{Overlay, RocksOptions, RocksStore, Store, Table, Txn, keys};

/// File systems of one cluster. Each has a RocksDB, a thread and caches of its own.
pub const FILE_SYSTEMS_MAX: usize = 256;

/// What the cluster is told when it starts.
#[derive(Clone, Copy, Debug)]
pub struct ClusterOptions {
    /// Silence after which a session ends.
    pub lease: Duration,
    /// Silence after which an OST is down.
    pub ost_timeout: Duration,
    /// Memory of each store.
    pub store: RocksOptions,
}

/// What a new file system is to be.
#[derive(Clone, Debug)]
pub struct NewFileSystem {
    /// What clients mount.
    pub name: FsName,
    /// How chunks are stored.
    pub compression: Compression,
    /// Layout of files where no directory says otherwise.
    pub layout: LayoutTemplate,
    /// Owner of the root.
    pub root_uid: u32,
    /// Group of the root.
    pub root_gid: u32,
    /// Permission bits of the root.
    pub root_mode: u32,
}

/// What an OSS that has registered is told.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Index of each OST, in the order of the reports.
    pub indexes: Vec<OstIndex>,
    /// Writers that they must refuse.
    pub ended: Vec<u64>,
    /// Confirms it when a heartbeat says it.
    pub number: u64,
}

/// A file system on its way out, with its tables as long as somebody may still use them.
type Deleting = (FileSystemRecord, Option<Weak<dyn Store>>);

/// See the module.
pub struct Cluster {
    dir: MdsDir,
    store: Arc<dyn Store>,
    options: ClusterOptions,
    /// OSTs as they are.
    pub registry: Arc<RwLock<Registry>>,
    /// The disk all of it lies on.
    pub disk: Arc<MdtDisk>,
    /// How OSSs are reached.
    pub oss: OssClient,
    file_systems: RwLock<BTreeMap<FsId, Arc<FileSystem>>>,
    deleting: RwLock<BTreeMap<FsId, Deleting>>,
    /// Who is shut out at the OSTs.
    ended: Mutex<EndedWriters>,
    /// Held while rows of the cluster's tables change: one change at a time.
    changes: tokio::sync::Mutex<()>,
    /// When the server started.
    pub started: Instant,
}

impl Cluster {
    /// Opens everything in `dir`; recovery happens here.
    pub fn open(dir: MdsDir, options: ClusterOptions) -> FsResult<Arc<Cluster>> {
        let store: Arc<dyn Store> = Arc::new(RocksStore::open(&dir.cluster_db(), Table::OF_CLUSTER, options.store)?);
        let (osts, rows, ended) = {
            let view = store.snapshot();
            let osts = view.scan(Table::Osts, &[], None, usize::from(u16::MAX))?;
            let rows = view.scan(Table::FileSystems, &[], None, 2 * FILE_SYSTEMS_MAX)?;
            let ended = view.scan(Table::EndedWriters, &[], None, 2 * ENDED_WRITERS_MAX)?;
            (osts, rows, ended)
        };
        let ended = ended
            .iter()
            .map(|(key, value)| Ok((keys::parse_writer(key)?, EndedWriterRecord::from_bytes(value)?.since)))
            .collect::<FsResult<Vec<_>>>()?;
        let osts = osts
            .iter()
            .map(|(key, value)| Ok((keys::parse_ost(key)?, OstRecord::from_bytes(value)?.uuid)))
            .collect::<FsResult<Vec<_>>>()?;
        // Milliseconds since 1970 are above anything an earlier life counted to.
        let first_version = Timestamp::now().seconds.max(1) as u64 * 1000;
        let registry = Registry::new(dir.cluster, options.ost_timeout, osts, first_version);
        let disk = Arc::new(MdtDisk::new(dir.path()));
        let cluster = Cluster {
            dir,
            store,
            options,
            registry: Arc::new(RwLock::new(registry)),
            disk,
            oss: OssClient::default(),
            file_systems: RwLock::default(),
            deleting: RwLock::default(),
            ended: Mutex::new(EndedWriters::new(ended)),
            changes: tokio::sync::Mutex::new(()),
            started: Instant::now(),
        };
        for (key, value) in rows {
            let id = keys::parse_fs(&key)?;
            let record = FileSystemRecord::from_bytes(&value)?;
            match record.state {
                FsState::Available => {
                    let fs = cluster.start_fs(id, &record)?;
                    cluster.file_systems.write().insert(id, fs);
                }
                FsState::Deleting => drop(cluster.deleting.write().insert(id, (record, None))),
            }
        }
        Ok(Arc::new(cluster))
    }

    fn start_fs(&self, id: FsId, record: &FileSystemRecord) -> FsResult<Arc<FileSystem>> {
        let store = RocksStore::open(&self.dir.fs_db(id), Table::OF_FILE_SYSTEM, self.options.store)?;
        let formatted = namespace::counter(&*store.snapshot(), keys::FORMAT)? != 0;
        if !formatted {
            return Err(FsError::new(
                FsCode::Corrupt,
                format!("file system {} has no root in {}", record.name, self.dir.fs_db(id).display()),
            )
            .with_hint("restore the MDS directory from a backup"));
        }
        tracing::info!(fs = %record.name, %id, "file system is available");
        self.run_fs(id, record, Arc::new(store))
    }

    fn run_fs(&self, id: FsId, record: &FileSystemRecord, store: Arc<dyn Store>) -> FsResult<Arc<FileSystem>> {
        let info = FsInfo { id, name: record.name.clone(), compression: record.compression, created: record.created };
        let surroundings = (self.registry.clone(), self.disk.clone());
        let fs = FileSystem::start(info, store, surroundings, self.options.lease, abort_process)?;
        // Those that were ending when the server stopped do not come back.
        fs.end_writers(|writer| self.is_ended(writer));
        Ok(Arc::new(fs))
    }

    /// The server answers from now on, after it has opened everything, which may take long: the times begin that clients and
    /// OSTs have to say that they live.
    pub fn begin(&self, now: Instant) {
        self.registry.write().begin(now);
        self.file_systems().iter().for_each(|fs| fs.begin(now));
    }

    /// Identity of the cluster.
    pub fn id(&self) -> ClusterId {
        self.dir.cluster
    }

    /// Silence after which a session ends.
    pub fn lease(&self) -> Duration {
        self.options.lease
    }

    /// Writes rows of the cluster's tables durably. Callers hold `changes`.
    async fn commit(&self, fill: impl FnOnce(&mut dyn Txn) + Send + 'static) -> FsResult<()> {
        let store = self.store.clone();
        let result = tokio::task::spawn_blocking(move || {
            let snapshot = store.snapshot();
            let mut tx = Overlay::new(&*snapshot);
            fill(&mut tx);
            let changes = tx.into_changes();
            drop(snapshot);
            store.commit(&changes).inspect_err(abort_process)
        });
        result.await.map_err(|_| FsError::new(FsCode::Unavailable, "the server is stopping"))?
    }

    // ---- OSTs ----

    /// An OSS joins; gives the index of each of its OSTs. New ones are durable before they are answered.
    pub async fn register_oss(
        &self,
        cluster: Option<ClusterId>,
        address: &str,
        reports: &[Report],
    ) -> FsResult<Registration> {
        let _one = self.changes.lock().await;
        let Admission { indexes, new } = self.registry.read().plan(cluster, address, reports, Instant::now())?;
        if !new.is_empty() {
            for (index, uuid) in &new {
                tracing::info!(ost = %index, %uuid, address, "a new OST joins the cluster");
            }
            self.commit(move |tx| {
                for (index, uuid) in new {
                    tx.put(Table::Osts, keys::ost(index), OstRecord { uuid }.to_bytes());
                }
            })
            .await?;
        }
        // Whoever ends later (this holds `changes`) finds that these OSTs were heard of, and calls them.
        let ended = self.ended.lock().list();
        let number = self.registry.write().register(address, reports, &indexes, ended.is_empty(), Instant::now());
        Ok(Registration { indexes, ended, number })
    }

    // ---- fencing ----

    /// Writers that OSTs refuse from their next registration on. Durable when it returns.
    pub async fn record_ended(&self, writers: &[u64]) -> FsResult<()> {
        let _one = self.changes.lock().await;
        let change = self.ended.lock().plan(writers, Timestamp::now());
        let rows = change.clone();
        self.commit(move |tx| {
            for writer in rows.forget {
                tx.delete(Table::EndedWriters, keys::writer(writer));
            }
            for writer in rows.add {
                tx.put(Table::EndedWriters, keys::writer(writer), EndedWriterRecord { since: rows.at }.to_bytes());
            }
        })
        .await?;
        self.ended.lock().apply(&change);
        Ok(())
    }

    /// Whether a writer is one of an expired session.
    pub fn is_ended(&self, writer: u64) -> bool {
        self.ended.lock().contains(writer)
    }

    // ---- file systems ----

    /// File systems in use.
    pub fn file_systems(&self) -> Vec<Arc<FileSystem>> {
        self.file_systems.read().values().cloned().collect()
    }

    /// File systems being deleted.
    pub fn deleting(&self) -> Vec<(FsId, FileSystemRecord)> {
        self.deleting.read().iter().map(|(id, (record, _))| (*id, record.clone())).collect()
    }

    /// One by name; `NotFound`.
    pub fn by_name(&self, name: &FsName) -> FsResult<Arc<FileSystem>> {
        let found = self.file_systems.read().values().find(|f| f.info.name == *name).cloned();
        found.ok_or_else(|| {
            FsError::new(FsCode::NotFound, format!("there is no file system {name}"))
                .with_hint("list the file systems with: sateen fs list")
        })
    }

    /// The file system a session belongs to, and the session counts as heard of; `Stale`.
    pub fn by_session(&self, session: SessionId) -> FsResult<Arc<FileSystem>> {
        let found = self.file_systems.read().values().find(|f| f.touch(session).is_ok()).cloned();
        found.ok_or_else(|| {
            FsError::new(FsCode::Stale, format!("session {session} does not exist any more")).with_hint("mount again")
        })
    }

    /// Makes a file system.
    pub async fn create_fs(&self, new: NewFileSystem) -> FsResult<Arc<FileSystem>> {
        namespace::refuse_unplaceable(&new.layout)?;
        let _one = self.changes.lock().await;
        let count = self.file_systems.read().len() + self.deleting.read().len();
        if self.by_name(&new.name).is_ok() {
            return Err(FsError::new(FsCode::Exists, format!("file system {} exists", new.name))
                .with_hint("choose another name; list them with: sateen fs list"));
        }
        if self.deleting.read().values().any(|(record, _)| record.name == new.name) {
            return Err(FsError::new(FsCode::Busy, format!("file system {} is still being deleted", new.name))
                .with_hint("it is gone when every OST was reached: sateen status"));
        }
        if count >= FILE_SYSTEMS_MAX {
            return Err(FsError::new(
                FsCode::NoSpace,
                format!("the cluster has {count} file systems, the most it takes"),
            ));
        }
        let id = self.take_fs_id().await?;
        let path = self.dir.create_fs(id)?;
        let record = FileSystemRecord {
            name: new.name,
            state: FsState::Available,
            compression: new.compression,
            created: Timestamp::now(),
        };
        let bounds = self.options.store;
        let store = tokio::task::spawn_blocking(move || RocksStore::open(&path, Table::OF_FILE_SYSTEM, bounds));
        let store = store.await.map_err(|_| FsError::new(FsCode::Unavailable, "the server is stopping"))??;
        let fs = self.run_fs(id, &record, Arc::new(store))?;
        let (uid, gid, mode, layout) = (new.root_uid, new.root_gid, new.root_mode, new.layout);
        fs.submit(Command::Format { uid, gid, mode, layout }).await?;
        let row = record.to_bytes();
        self.commit(move |tx| tx.put(Table::FileSystems, keys::fs(id), row)).await?;
        tracing::info!(fs = %record.name, %id, "file system was created");
        self.file_systems.write().insert(id, fs.clone());
        Ok(fs)
    }

    async fn take_fs_id(&self) -> FsResult<FsId> {
        let next = namespace::counter(&*self.store.snapshot(), keys::NEXT_FS_ID)?.max(1);
        let id = u32::try_from(next)
            .map_err(|_| FsError::new(FsCode::NoSpace, "the cluster has used up its file system numbers"))?;
        let value = Counter(next + 1).to_bytes();
        self.commit(move |tx| tx.put(Table::Config, keys::NEXT_FS_ID.to_vec(), value)).await?;
        Ok(FsId(id))
    }

    /// Begins to delete a file system; `Busy` while clients have it mounted, unless forced.
    pub async fn delete_fs(&self, name: &FsName, force: bool) -> FsResult<()> {
        let _one = self.changes.lock().await;
        let fs = self.by_name(name)?;
        let clients = fs.session_count();
        if clients > 0 && !force {
            return Err(FsError::new(
                FsCode::Busy,
                format!("file system {name} is mounted by {clients} clients: {}", some(&fs.client_names())),
            )
            .with_hint("unmount it there first, or force the deletion"));
        }
        let FsInfo { id, name, compression, created } = fs.info.clone();
        let record = FileSystemRecord { name, state: FsState::Deleting, compression, created };
        let row = record.to_bytes();
        self.commit(move |tx| tx.put(Table::FileSystems, keys::fs(id), row)).await?;
        tracing::info!(fs = %record.name, %id, "file system is being deleted");
        self.deleting.write().insert(id, (record, Some(fs.store_handle())));
        self.file_systems.write().remove(&id);
        Ok(())
    }

    /// Every OST has dropped the objects: the directory goes, then the row. `Busy` while a request that was there
    /// before the deletion still uses the tables.
    pub async fn finish_delete(&self, id: FsId) -> FsResult<()> {
        let _one = self.changes.lock().await;
        let users = self.deleting.read().get(&id).and_then(|(_, store)| store.as_ref().map(Weak::strong_count));
        if users.is_some_and(|n| n > 0) {
            return Err(FsError::new(FsCode::Busy, format!("file system {id} is still used by a request")));
        }
        self.dir.remove_fs(id)?;
        self.commit(move |tx| tx.delete(Table::FileSystems, keys::fs(id))).await?;
        if let Some((record, _)) = self.deleting.write().remove(&id) {
            tracing::info!(fs = %record.name, %id, "file system is deleted");
        }
        Ok(())
    }
}

/// The first few of a list, for a message.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let mut text = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(", ...");
    }
    text
}
