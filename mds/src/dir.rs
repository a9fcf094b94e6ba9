//! The MDS directory.
//!
//! ```text
//! DIR/lock          held while a server runs
//! DIR/superblock    cluster id, framed (runtime::envelope); made once, replaced atomically
//! DIR/cluster/      RocksDB: OSTs, file systems
//! DIR/fs/<id>/      RocksDB of one file system; <id> in decimal
//! ```

use std::path::{Path, PathBuf};

use sateen_runtime::{DirLock, durable, envelope};
use sateen_types::{ClusterId, FsCode, FsError, FsId, FsResult};

/// What a superblock of the MDS looks like. Body: cluster id, 16 bytes.
const SUPERBLOCK: envelope::Kind =
    envelope::Kind { magic: envelope::MDS_SUPERBLOCK, version: 1, features: 0, what: "MDS superblock" };
/// Its name in the directory.
pub const SUPERBLOCK_FILE: &str = "superblock";
/// A superblock is a few dozen bytes; anything much larger is none.
const SUPERBLOCK_BYTES_MAX: u64 = 4096;

/// An MDS directory that this process alone uses.
#[derive(Debug)]
pub struct MdsDir {
    path: PathBuf,
    /// Made when the directory was formatted.
    pub cluster: ClusterId,
    _lock: DirLock,
}

fn io(path: &Path, what: &str, e: std::io::Error) -> FsError {
    FsError::new(FsCode::Io, format!("cannot {what} {}: {e}", path.display()))
}

impl MdsDir {
    /// Locks the directory and reads its superblock; formats it if it is new.
    ///
    /// A directory without superblock is new only if nothing else is in it: a lost superblock must not become a new
    /// cluster on top of an old one's data.
    pub fn open(path: &Path) -> FsResult<MdsDir> {
        durable::create_dir_all(path).map_err(|e| {
            io(path, "create", e)
                .with_hint("give an MDS directory this user may write: dir = \"...\" in the configuration")
        })?;
        let lock = DirLock::acquire(path)?;
        let file = path.join(SUPERBLOCK_FILE);
        let cluster = match std::fs::metadata(&file) {
            Ok(meta) if meta.len() > SUPERBLOCK_BYTES_MAX => {
                return Err(FsError::new(
                    FsCode::Corrupt,
                    format!("{} has {} bytes and is no superblock", file.display(), meta.len()),
                )
                .with_hint("restore the file from a backup"));
            }
            Ok(_) => read_superblock(&file)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => format(path, &file)?,
            Err(e) => return Err(io(&file, "read", e)),
        };
        Ok(MdsDir { path: path.to_owned(), cluster, _lock: lock })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// RocksDB of the cluster.
    pub fn cluster_db(&self) -> PathBuf {
        self.path.join("cluster")
    }

    /// RocksDB of a file system.
    pub fn fs_db(&self, id: FsId) -> PathBuf {
        self.path.join("fs").join(id.to_string())
    }

    /// Makes the directory of a file system.
    pub fn create_fs(&self, id: FsId) -> FsResult<PathBuf> {
        let path = self.fs_db(id);
        durable::create_dir_all(&path).map_err(|e| io(&path, "create", e))?;
        Ok(path)
    }

    /// Removes the directory of a file system, there or not.
    pub fn remove_fs(&self, id: FsId) -> FsResult<()> {
        let path = self.fs_db(id);
        match std::fs::remove_dir_all(&path) {
            Ok(()) => durable::sync_parent(&path).map_err(|e| io(&path, "remove", e)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(io(&path, "remove", e)),
        }
    }
}

fn read_superblock(file: &Path) -> FsResult<ClusterId> {
    let bytes = std::fs::read(file).map_err(|e| io(file, "read", e))?;
    let named = |e: FsError| FsError { message: format!("{}: {}", file.display(), e.message), ..e };
    let (_, body) = SUPERBLOCK.open(&bytes).map_err(named)?;
    let id = body.try_into().map_err(|_| {
        FsError::new(FsCode::Corrupt, format!("{}: the body has {} bytes, not 16", file.display(), body.len()))
            .with_hint("restore the file from a backup")
    })?;
    Ok(ClusterId(id))
}

fn format(path: &Path, file: &Path) -> FsResult<ClusterId> {
    let entries = std::fs::read_dir(path).map_err(|e| io(path, "list", e))?;
    for entry in entries {
        let name = entry.map_err(|e| io(path, "list", e))?.file_name();
        if !["lock", "superblock.tmp", "lost+found"].iter().any(|known| name == **known) {
            return Err(FsError::new(
                FsCode::Corrupt,
                format!("{} has no superblock but holds {:?}", path.display(), name.to_string_lossy()),
            )
            .with_hint("give the MDS an empty directory, or restore the superblock from a backup"));
        }
    }
    let cluster = ClusterId(rand::random());
    durable::replace(file, &SUPERBLOCK.seal(0, &cluster.0)).map_err(|e| io(file, "write", e))?;
    tracing::info!(%cluster, dir = %path.display(), "formatted a new cluster");
    Ok(cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_directory_is_formatted_once_and_has_one_server() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let first = MdsDir::open(&dir.path().join("mds")).expect("formats");
        let err = MdsDir::open(&dir.path().join("mds")).expect_err("in use");
        assert_eq!(err.code, FsCode::Busy);
        assert!(err.hint.is_some());
        let cluster = first.cluster;
        drop(first);
        assert_eq!(MdsDir::open(&dir.path().join("mds")).expect("opens").cluster, cluster);
    }

    #[test]
    fn a_damaged_newer_or_lost_superblock_is_refused_with_a_hint() {
        let dir = tempfile::tempdir().expect("temporary directory");
        drop(MdsDir::open(dir.path()).expect("formats"));
        let file = dir.path().join("superblock");
        let good = std::fs::read(&file).expect("reads");
        let refused = |code| {
            let err = MdsDir::open(dir.path()).expect_err("refused");
            assert_eq!(err.code, code, "{err}");
            assert!(err.hint.is_some() && err.message.contains(&*dir.path().to_string_lossy()), "{err:?}");
        };
        let mut flipped = good.clone();
        flipped[30] ^= 1;
        std::fs::write(&file, flipped).expect("writes");
        refused(FsCode::Corrupt);
        std::fs::write(&file, vec![0; 10_000]).expect("writes");
        refused(FsCode::Corrupt);
        let newer = envelope::Kind { version: 2, ..SUPERBLOCK };
        std::fs::write(&file, newer.seal(0, &[1; 16])).expect("writes");
        refused(FsCode::NotSupported);
        std::fs::remove_file(&file).expect("removes");
        std::fs::create_dir(dir.path().join("cluster")).expect("makes");
        refused(FsCode::Corrupt);
    }
}
