//! The file system behind the mount, without the kernel: inode numbers, handles and options on top of the client.
//!
//! Everything here takes and gives plain values, so it can be called without a mount. `shell.rs` is the only place that
//! knows fuser's replies.
//!
//! Inode numbers are FIDs ([`Fid::ino`]) and FIDs are never used twice, so nothing is remembered per inode the kernel
//! knows, `forget` has nothing to do, and the generation is always 0. The root of the mount is inode 1, also when it
//! is a directory below the root of the file system.

mod data;
mod dir;
mod locks;
mod names;
mod xattr;

use std::time::Duration;

use sateen_client::{Client, Looked};
use sateen_types::{Fid, FsCode, FsError, FsResult, Name};

use crate::handles::Handles;
use crate::options::MountOptions;
use crate::shared::SharedFiles;
use crate::xattr_hints::XattrHints;

pub use data::{OpenFile, Opened};
pub use dir::{DirItem, OpenDir};
pub use locks::KernelLock;

/// Inode number of the root of a mount.
pub const ROOT_INO: u64 = 1;

/// One mounted file system.
pub struct MountedFs {
    client: Client,
    /// What inode 1 is.
    root: Fid,
    /// As `mount` shows it: `HOST:PORT:/FS`.
    source: String,
    /// How long the kernel may trust a name.
    pub entry_timeout: Duration,
    attr_timeout: Duration,
    /// Locks are asked from the MDS; otherwise the kernel keeps them for the programs of this mount.
    pub cluster_locks: bool,
    /// Which inodes have no ACL and no capabilities.
    pub xattr_hints: XattrHints,
    /// Files that other clients write to while they are open here.
    pub shared: SharedFiles,
    files: Handles<OpenFile>,
    dirs: Handles<OpenDir>,
}

impl MountedFs {
    /// A file system whose inode 1 is the root of `client`.
    pub fn new(client: Client, source: String, options: &MountOptions) -> MountedFs {
        MountedFs {
            root: client.root(),
            client,
            source,
            entry_timeout: options.entry_timeout,
            attr_timeout: options.attr_timeout,
            cluster_locks: !options.local_locks,
            xattr_hints: XattrHints::new(options.attr_timeout),
            shared: SharedFiles::default(),
            files: Handles::default(),
            dirs: Handles::default(),
        }
    }

    /// The client, for closing it at the end.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The FID behind an inode number the kernel sent; `Stale` for one that was never given out.
    pub fn fid(&self, ino: u64) -> FsResult<Fid> {
        if ino == ROOT_INO {
            return Ok(self.root);
        }
        Fid::from_ino(ino).ok_or_else(|| FsError::new(FsCode::Stale, format!("inode {ino} is not of this file system")))
    }

    /// The inode number of a FID.
    pub fn ino(&self, fid: Fid) -> u64 {
        if fid == self.root { ROOT_INO } else { fid.ino() }
    }

    /// How long the kernel may trust attributes; not at all if the file is in use by another client that writes.
    pub fn attr_timeout(&self, in_use: bool) -> Duration {
        if in_use { Duration::ZERO } else { self.attr_timeout }
    }

    /// Attributes by inode.
    pub async fn getattr(&self, ino: u64) -> FsResult<Looked> {
        gone_is_stale(self.client.look(self.fid(ino)?).await)
    }

    /// Whether other clients use a file that is open here, so that the kernel may keep none of it.
    pub fn is_shared(&self, ino: u64) -> bool {
        self.fid(ino).is_ok_and(|fid| self.client.is_shared(fid))
    }

    /// Space and inodes.
    pub async fn statfs(&self) -> FsResult<sateen_client::StatFs> {
        self.client.statfs().await
    }

    /// Target of a symbolic link.
    pub async fn readlink(&self, ino: u64) -> FsResult<Vec<u8>> {
        gone_is_stale(self.client.readlink(self.fid(ino)?).await)
    }
}

/// An inode the kernel holds but the MDS no longer has was removed by another client. `Stale` makes the kernel forget
/// the name it came by and look it up again: the program then gets ENOENT, or the file that took its place.
fn gone_is_stale<T>(result: FsResult<T>) -> FsResult<T> {
    result.map_err(|e| if e.code == FsCode::NotFound { FsError { code: FsCode::Stale, ..e } } else { e })
}

/// A name from the kernel.
fn name(bytes: &[u8]) -> FsResult<Name> {
    Name::parse(bytes)
}
