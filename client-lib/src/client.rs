//! API
use bytes::Bytes;
use sateen_types::op::{Access, DirEntry, RenameMode, SetAttr, XattrMode};
use sateen_types::*;
use crate::{File, MountSource, Options};
fn later<T>() -> FsResult<T> { Err(FsError::new(FsCode::NotSupported, "not built yet")) }
/// A session on one file system; cheap to clone.
#[derive(Clone, Debug)]
pub struct Client { pub(crate) inner: std::sync::Arc<()> }
/// What [`Client::create`] makes.
#[derive(Clone, Debug)]
pub struct NewFile {
    /// Directory.
    pub parent: Fid,
    /// Name in it.
    pub name: Name,
    /// `0..=0o7777`, the umask already taken away.
    pub mode: u32,
    /// Fail with `Exists` if the name is taken; otherwise an existing regular file is opened.
    pub exclusive: bool,
    /// What it is opened for.
    pub access: Access,
    /// `None`: the directory's default.
    pub layout: Option<LayoutTemplate>,
}
/// What [`Client::create`] made or found.
#[derive(Debug)]
pub struct Created {
    /// Its attributes.
    pub attr: Attr,
    /// The open file.
    pub file: File,
    /// It was there already.
    pub existed: bool,
}
/// A directory's default layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultLayout {
    /// What new files inherit.
    pub layout: LayoutTemplate,
    /// It was set on this directory itself.
    pub own: bool,
}
/// Space of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatFs {
    /// Over all OSTs, in bytes; `objects` is 0.
    pub data: Space,
    /// Inodes in use.
    pub inodes_used: u64,
    /// Inodes that may still be made.
    pub inodes_free: u64,
    /// The MDT's disk, in bytes; `objects` is the number of inodes.
    pub mdt: Space,
}
#[allow(unused_variables, missing_docs)]
impl Client {
    pub async fn connect(source: &MountSource, options: Options) -> FsResult<Client> { later() }
    /// Flushes everything and ends the session.
    pub async fn close(self) -> FsResult<()> { later() }
    pub fn root(&self) -> Fid { Fid::ROOT }
    pub fn fs_id(&self) -> FsId { FsId(1) }
    pub fn source(&self) -> &MountSource { unreachable!() }
    pub fn options(&self) -> &Options { unreachable!() }
    pub async fn lookup(&self, cred: &Credential, parent: Fid, name: &Name) -> FsResult<Attr> { later() }
    pub async fn lookup_parent(&self, cred: &Credential, dir: Fid) -> FsResult<Attr> { later() }
    pub async fn getattr(&self, fid: Fid) -> FsResult<Attr> { later() }
    pub async fn setattr(&self, cred: &Credential, set: SetAttr) -> FsResult<Attr> { later() }
    pub async fn create(&self, cred: &Credential, new: NewFile) -> FsResult<Created> { later() }
    pub async fn mkdir(&self, cred: &Credential, parent: Fid, name: &Name, mode: u32) -> FsResult<Attr> { later() }
    pub async fn mknod(&self, cred: &Credential, parent: Fid, name: &Name, mode: u32, file_type: FileType, rdev: u64) -> FsResult<Attr> { later() }
    pub async fn symlink(&self, cred: &Credential, parent: Fid, name: &Name, target: &[u8]) -> FsResult<Attr> { later() }
    pub async fn readlink(&self, fid: Fid) -> FsResult<Vec<u8>> { later() }
    pub async fn link(&self, cred: &Credential, fid: Fid, parent: Fid, name: &Name) -> FsResult<Attr> { later() }
    pub async fn unlink(&self, cred: &Credential, parent: Fid, name: &Name) -> FsResult<()> { later() }
    pub async fn rmdir(&self, cred: &Credential, parent: Fid, name: &Name) -> FsResult<()> { later() }
    pub async fn rename(&self, cred: &Credential, from: (Fid, &Name), to: (Fid, &Name), mode: RenameMode) -> FsResult<()> { later() }
    /// One page: entries after `after`, whether nothing follows, and the directory's own parent.
    pub async fn readdir(&self, cred: &Credential, fid: Fid, after: u64, max: u32, with_attr: bool) -> FsResult<(Vec<DirEntry>, bool, Fid)> { later() }
    pub async fn getxattr(&self, cred: &Credential, fid: Fid, name: &XattrName) -> FsResult<Vec<u8>> { later() }
    pub async fn setxattr(&self, cred: &Credential, fid: Fid, name: &XattrName, value: &[u8], mode: XattrMode) -> FsResult<()> { later() }
    pub async fn listxattr(&self, cred: &Credential, fid: Fid) -> FsResult<Vec<XattrName>> { later() }
    pub async fn removexattr(&self, cred: &Credential, fid: Fid, name: &XattrName) -> FsResult<()> { later() }
    pub async fn statfs(&self) -> FsResult<StatFs> { later() }
    pub async fn layout(&self, fid: Fid) -> FsResult<Layout> { later() }
    pub async fn set_layout(&self, cred: &Credential, fid: Fid, layout: LayoutTemplate) -> FsResult<Layout> { later() }
    pub async fn default_layout(&self, fid: Fid) -> FsResult<DefaultLayout> { later() }
    pub async fn set_default_layout(&self, cred: &Credential, fid: Fid, layout: Option<LayoutTemplate>) -> FsResult<()> { later() }
    /// Walks `path` from the root (a leading slash is optional), following symbolic links (the last one too if `follow`).
    pub async fn resolve(&self, cred: &Credential, path: &[u8], follow: bool) -> FsResult<Attr> { later() }
    pub async fn open(&self, cred: &Credential, fid: Fid, access: Access) -> FsResult<File> { later() }
    /// Sends what is dirty in every file and commits it.
    pub async fn sync(&self) -> FsResult<()> { let _ = (Bytes::new(), &self.inner); later() }
}
