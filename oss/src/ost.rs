//! One OST: a directory, its identity, and a store for each file system.
//!
//! ```text
//! DIR/superblock            who this is (see `superblock`)
//! DIR/lock                  held while a server uses the directory
//! DIR/scrub                 how far the scrub is (see `scrub`)
//! DIR/fs/<id>/index/        RocksDB of one file system's store
//! DIR/fs/<id>/segments/     its data
//! DIR/fs/<id>.dropped       the file system was removed; its number never comes back
//! ```
//!
//! Existing stores are opened at start, new ones by the first change. A read of a file system that has nothing here
//! makes nothing.

use std::collections::HashMap;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};
use sateen_runtime::{DirLock, durable};
use sateen_types::{FsCode, FsError, FsId, FsResult, OstUuid, Space, Verifier};

use crate::store::capacity::Capacity;
use crate::store::disk::RealDisk;
use crate::store::fence::Ended;
use crate::store::index::IndexCache;
use crate::store::segments::{SegmentOwner, io_error};
use crate::store::{Store, StoreOptions};
use crate::superblock::{Member, Superblock};

/// File systems on one OST: each costs an index with its memory and open files.
const FILE_SYSTEMS_MAX: usize = 64;
/// How long dropping a file system waits for requests that still use it.
const DROP_WAIT_MAX: Duration = Duration::from_secs(10);
const DROPPED_SUFFIX: &str = ".dropped";

/// What the stores of an OST are opened with.
#[derive(Clone)]
pub struct OstOptions {
    /// Bytes of data at most; `None`: what the disk holds.
    pub capacity: Option<u64>,
    /// Bytes of the disk that are left alone.
    pub reserve: u64,
    /// Bytes after which a new segment is begun.
    pub segment_bytes: u64,
    /// Block cache of the indexes, shared by the process.
    pub cache: IndexCache,
    /// Whether an empty or missing directory becomes a new OST.
    pub create: bool,
}

/// An OST of this process.
pub struct Ost {
    dir: PathBuf,
    options: OstOptions,
    superblock: Mutex<Superblock>,
    capacity: Arc<Capacity>,
    disk: RealDisk,
    verifier: Verifier,
    ended: Arc<Ended>,
    stores: RwLock<HashMap<FsId, Slot>>,
    _lock: DirLock,
}

enum Slot {
    Open {
        store: Arc<OpenStore>,
        closed: Arc<Closed>,
    },
    /// Dropped, but requests may still hold it.
    Closing(Arc<Closed>),
}

/// A store in use. When the last user is gone it is closed, and then whoever waits hears of it.
pub struct OpenStore {
    store: Store,
    /// Dropped after `store`, because it is declared after it.
    _announce: Announce,
}

/// Whether a store is closed, to wait for.
#[derive(Default)]
struct Closed {
    done: Mutex<bool>,
    changed: Condvar,
}

impl Closed {
    /// Waits until it is closed; `false` after [`DROP_WAIT_MAX`].
    fn wait(&self) -> bool {
        let mut done = self.done.lock();
        !self.changed.wait_while_for(&mut done, |done| !*done, DROP_WAIT_MAX).timed_out()
    }
}

struct Announce(Arc<Closed>);

impl Drop for Announce {
    fn drop(&mut self) {
        *self.0.done.lock() = true;
        self.0.changed.notify_all();
    }
}

impl Deref for OpenStore {
    type Target = Store;
    fn deref(&self) -> &Store {
        &self.store
    }
}

impl Ost {
    /// Opens the OST in `dir` with all its stores, formatting an empty directory.
    pub fn open(dir: &Path, options: OstOptions) -> FsResult<Ost> {
        if options.create {
            durable::create_dir_all(dir).map_err(|e| io_error(&format!("create {}", dir.display()), &e))?;
        } else if !dir.join(crate::superblock::FILE).exists() {
            return Err(FsError::new(
                FsCode::NotFound,
                format!("{} is not an OST and may not become one (create = false)", dir.display()),
            )
            .with_hint("is its disk mounted? For a new OST set create = true once"));
        }
        let lock = DirLock::acquire(dir)?;
        let superblock = Superblock::load_or_format(dir)?;
        let root = dir.join("fs");
        let disk = RealDisk::open(&root).map_err(|e| io_error(&format!("create {}", root.display()), &e))?;
        let ost = Ost {
            dir: dir.to_owned(),
            capacity: Arc::new(Capacity::new(options.capacity, options.reserve)),
            options,
            superblock: Mutex::new(superblock),
            disk,
            verifier: Verifier(rand::random()),
            ended: Arc::default(),
            stores: RwLock::default(),
            _lock: lock,
        };
        for fs in ost.file_systems_on_disk()? {
            if ost.tombstone(fs).exists() {
                ost.remove(fs)?;
            } else {
                ost.open_store(&mut ost.stores.write(), fs)?;
            }
        }
        Ok(ost)
    }

    /// Identity of the directory.
    pub fn uuid(&self) -> OstUuid {
        self.superblock.lock().ost
    }

    /// Its place in a cluster, once it has one.
    pub fn member(&self) -> Option<Member> {
        self.superblock.lock().member
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes its place in a cluster, durably. A second, different one is refused.
    pub fn join(&self, member: Member) -> FsResult<()> {
        let mut superblock = self.superblock.lock();
        match superblock.member {
            Some(known) if known == member => Ok(()),
            Some(known) => Err(FsError::new(
                FsCode::WrongCluster,
                format!(
                    "OST {} in {} is index {} of cluster {}, the MDS says index {} of cluster {}",
                    superblock.ost,
                    self.dir.display(),
                    known.index,
                    known.cluster,
                    member.index,
                    member.cluster
                ),
            )
            .with_hint("start this OSS with the MDS of its own cluster, or give it an empty directory")),
            None => {
                let joined = Superblock { member: Some(member), ..*superblock };
                joined.store(&self.dir)?;
                *superblock = joined;
                Ok(())
            }
        }
    }

    /// The incarnation of its stores.
    pub fn verifier(&self) -> Verifier {
        self.verifier
    }

    /// Writers that are shut out, in every store.
    pub fn ended(&self) -> &Ended {
        &self.ended
    }

    /// The store of `fs` if that is known without waiting.
    pub fn store_now(&self, fs: FsId) -> Option<Arc<OpenStore>> {
        match self.stores.try_read()?.get(&fs)? {
            Slot::Open { store, .. } => Some(store.clone()),
            Slot::Closing(_) => None,
        }
    }

    /// The store of `fs`, if there is one; `Stale` if the file system was removed.
    pub fn store(&self, fs: FsId) -> FsResult<Option<Arc<OpenStore>>> {
        match self.stores.read().get(&fs) {
            Some(Slot::Open { store, .. }) => Ok(Some(store.clone())),
            Some(Slot::Closing(_)) => Err(dropped(fs)),
            None if self.tombstone(fs).exists() => Err(dropped(fs)),
            None => Ok(None),
        }
    }

    /// The store of `fs`, made if it is new.
    pub fn store_or_new(&self, fs: FsId) -> FsResult<Arc<OpenStore>> {
        if let Some(store) = self.store(fs)? {
            return Ok(store);
        }
        let mut stores = self.stores.write();
        match stores.get(&fs) {
            Some(Slot::Open { store, .. }) => return Ok(store.clone()),
            Some(Slot::Closing(_)) => return Err(dropped(fs)),
            None => {}
        }
        if self.tombstone(fs).exists() {
            return Err(dropped(fs));
        }
        if stores.len() >= FILE_SYSTEMS_MAX {
            return Err(FsError::new(
                FsCode::NoSpace,
                format!(
                    "file system {fs} would be number {} on this OST, at most {FILE_SYSTEMS_MAX} fit",
                    stores.len() + 1
                ),
            )
            .with_hint("delete file systems that are not used any more"));
        }
        self.open_store(&mut stores, fs)
    }

    fn open_store(&self, stores: &mut HashMap<FsId, Slot>, fs: FsId) -> FsResult<Arc<OpenStore>> {
        let dir = self.fs_dir(fs);
        durable::create_dir_all(&dir).map_err(|e| io_error(&format!("create {}", dir.display()), &e))?;
        let options = StoreOptions {
            owner: SegmentOwner { ost: self.uuid(), fs },
            capacity: self.capacity.clone(),
            cache: self.options.cache.clone(),
            segment_bytes: self.options.segment_bytes,
            verifier: self.verifier,
            ended: self.ended.clone(),
        };
        let closed = Arc::new(Closed::default());
        let store = Arc::new(OpenStore { store: Store::open(&dir, options)?, _announce: Announce(closed.clone()) });
        stores.insert(fs, Slot::Open { store: store.clone(), closed });
        Ok(store)
    }

    /// Removes a file system with all its objects, for good: its number is never accepted again. Durable; idempotent.
    pub fn drop_file_system(&self, fs: FsId) -> FsResult<()> {
        let tombstone = self.tombstone(fs);
        if !tombstone.exists() {
            durable::replace(&tombstone, b"").map_err(|e| io_error(&format!("write {}", tombstone.display()), &e))?;
        }
        let mut stores = self.stores.write();
        let closed = match stores.get(&fs) {
            Some(Slot::Open { closed, .. } | Slot::Closing(closed)) => closed.clone(),
            None => return self.remove(fs),
        };
        // New requests are refused from here on; this drops our own reference.
        stores.insert(fs, Slot::Closing(closed.clone()));
        drop(stores);
        if !closed.wait() {
            return Err(FsError::new(FsCode::Unavailable, format!("requests still use file system {fs} on this OST")));
        }
        let mut stores = self.stores.write();
        self.remove(fs)?;
        stores.remove(&fs);
        Ok(())
    }

    /// Deletes the directory of a file system that nobody uses.
    fn remove(&self, fs: FsId) -> FsResult<()> {
        let dir = self.fs_dir(fs);
        match std::fs::remove_dir_all(&dir) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(io_error(&format!("remove {}", dir.display()), &e)),
        }
        durable::sync_parent(&dir).map_err(|e| io_error(&format!("sync {}", self.dir.display()), &e))
    }

    /// Makes everything answered so far durable, in every store. The first error is returned after all were tried.
    pub fn commit_all(&self) -> FsResult<()> {
        self.open_stores().iter().map(|store| store.commit().map(|_| ())).fold(Ok(()), FsResult::and)
    }

    /// Space of the OST, its objects counted over all file systems.
    pub fn space(&self) -> FsResult<Space> {
        let mut space = self.capacity.space(&self.disk)?;
        for store in self.open_stores() {
            space.objects += store.objects()?;
        }
        Ok(space)
    }

    /// Stored bytes in use, over all file systems.
    pub fn stored_bytes(&self) -> u64 {
        self.capacity.used()
    }

    /// The file systems that have a store here, in order.
    pub fn file_systems(&self) -> Vec<FsId> {
        let mut open: Vec<FsId> = self.stores.read().keys().copied().collect();
        open.sort_unstable();
        open
    }

    /// Whether a store has failed.
    pub fn is_failed(&self) -> bool {
        self.open_stores().iter().any(|store| store.is_failed())
    }

    /// Every store that is open.
    pub fn open_stores(&self) -> Vec<Arc<OpenStore>> {
        let stores = self.stores.read();
        stores
            .values()
            .filter_map(|slot| match slot {
                Slot::Open { store, .. } => Some(store.clone()),
                Slot::Closing(_) => None,
            })
            .collect()
    }

    fn fs_dir(&self, fs: FsId) -> PathBuf {
        self.dir.join("fs").join(fs.to_string())
    }

    fn tombstone(&self, fs: FsId) -> PathBuf {
        self.dir.join("fs").join(format!("{fs}{DROPPED_SUFFIX}"))
    }

    fn file_systems_on_disk(&self) -> FsResult<Vec<FsId>> {
        let root = self.dir.join("fs");
        let failed = |e: io::Error| io_error(&format!("list {}", root.display()), &e);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&root).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let number = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
            if let Some(number) = number.filter(|n| *n > 0 && entry.path().is_dir()) {
                found.push(FsId(number));
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

fn dropped(fs: FsId) -> FsError {
    FsError::new(FsCode::Stale, format!("file system {fs} was removed")).with_hint("unmount it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> OstOptions {
        OstOptions {
            capacity: None,
            reserve: 0,
            segment_bytes: 16 << 20,
            cache: IndexCache::new(32 << 20),
            create: true,
        }
    }

    #[test]
    fn a_dropped_file_system_is_gone_and_never_comes_back() {
        let dir = tempfile::tempdir().expect("temp dir");
        let ost = Ost::open(dir.path(), options()).expect("opens");
        ost.store_or_new(FsId(4)).expect("made");
        ost.store_or_new(FsId(5)).expect("made");
        ost.drop_file_system(FsId(4)).expect("dropped");
        ost.drop_file_system(FsId(4)).expect("idempotent");
        ost.drop_file_system(FsId(77)).expect("also for one that was never here");
        assert!(!dir.path().join("fs/4").exists());
        assert_eq!(ost.store_or_new(FsId(4)).err().expect("refused").code, FsCode::Stale);
        drop(ost);
        let ost = Ost::open(dir.path(), options()).expect("opens");
        assert!(ost.store(FsId(5)).expect("asked").is_some());
        assert!(ost.store(FsId(6)).expect("asked").is_none());
        assert_eq!(ost.store(FsId(4)).err().expect("refused").code, FsCode::Stale);
        assert_eq!(ost.store_or_new(FsId(4)).err().expect("refused").code, FsCode::Stale);
    }

    #[test]
    fn a_directory_has_one_server_and_one_cluster() {
        let dir = tempfile::tempdir().expect("temp dir");
        let ost = Ost::open(dir.path(), options()).expect("opens");
        assert_eq!(Ost::open(dir.path(), options()).err().expect("locked").code, FsCode::Busy);
        let member = Member { cluster: sateen_types::ClusterId([1; 16]), index: sateen_types::OstIndex(2) };
        ost.join(member).expect("joined");
        ost.join(member).expect("again");
        let other = Member { cluster: sateen_types::ClusterId([2; 16]), ..member };
        assert_eq!(ost.join(other).expect_err("refused").code, FsCode::WrongCluster);
    }

    #[test]
    fn a_missing_mount_is_not_taken_for_a_new_ost() {
        let dir = tempfile::tempdir().expect("temp dir");
        let err = Ost::open(dir.path(), OstOptions { create: false, ..options() }).err().expect("refused");
        assert!(err.code == FsCode::NotFound && err.hint.is_some());
        assert_eq!(std::fs::read_dir(dir.path()).expect("dir").count(), 0);
    }
}
