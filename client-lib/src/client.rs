//! A session on one file system: its beginning and its end. Its operations are in [`crate::namespace`].

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sateen_types::op::{Access, NewMode};
use sateen_types::{
    Attr, Capability, Credential, Fid, FileType, FsCode, FsError, FsId, FsResult, LayoutTemplate, Name, Space,
};

use crate::file::File;
use crate::inner::Inner;
use crate::inode::Inode;
use crate::lookup::lookup;
use crate::session::Session;
use crate::{Forget, MountSource, Options, atime, recalls, tend, writeback};

/// A client of one file system: its session at the MDS, its caches, its connections. Cheap to clone.
///
/// [`Client::close`] ends it in order. If it is only dropped, what was not flushed may be lost and the session stays
/// until its lease is over.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

/// What [`Client::create`] makes.
#[derive(Clone, Debug)]
pub struct NewFile {
    /// Directory.
    pub parent: Fid,
    /// Name in it.
    pub name: Name,
    /// Its permissions.
    pub mode: NewMode,
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

/// Which changes of names that were answered and could not be made an open directory has heard of.
#[derive(Debug, Default)]
pub struct NameErrors(Mutex<u64>);

/// Attributes, and whether they last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// As they are now, with what was written here.
    pub attr: Attr,
    /// Another client has the file open for writing: size and times may be others in a moment.
    pub in_use: bool,
    /// How long ago the attributes were asked for: before they were needed, where [`Options::attributes_ahead`] allows.
    pub age: Duration,
}

/// Of what nobody writes to.
impl From<Attr> for Looked {
    fn from(attr: Attr) -> Looked {
        Looked { attr, in_use: false, age: Duration::ZERO }
    }
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

impl Client {
    /// Opens a session. `Unavailable` or `TimedOut` if no MDS answers within [`Options::connect_timeout`], `NotFound` if
    /// it has no such file system.
    pub async fn connect(source: &MountSource, options: Options) -> FsResult<Client> {
        options.validate()?;
        let session = Session::open(&source.hosts, &source.fs, &options).await?;
        let root = match subdirectory(&session, source).await {
            Ok(root) => root,
            Err(e) => {
                session.close(true).await;
                return Err(e);
            }
        };
        let listening = recalls::listen(&session).await;
        let listening = listening.inspect_err(|error| tracing::warn!(%error, "not listening to recalls yet")).ok();
        let inner = Arc::new(Inner::new(source, options, session, root));
        inner.tasks.spawn(tend::run(Arc::downgrade(&inner), inner.stop.clone()));
        inner.tasks.spawn(writeback::run(Arc::downgrade(&inner), inner.stop.clone()));
        inner.tasks.spawn(recalls::run(Arc::downgrade(&inner), listening, inner.stop.clone()));
        Ok(Client { inner })
    }

    /// Stores, commits and reports everything, then ends the session. Reports the first failure, having gone on.
    pub async fn close(self) -> FsResult<()> {
        let synced = self.sync().await;
        // What was not stored by now will not be: whatever still waits for a server gives up.
        self.inner.stop.cancel();
        self.inner.session.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        self.inner.session.close(self.inner.osts.is_settled()).await;
        synced
    }

    /// Makes everything written through this client durable.
    pub async fn sync(&self) -> FsResult<()> {
        let names = self.sync_names(&self.inner.name_errors).await;
        let files = self.inner.table.pinned();
        let work = files.iter().map(|inode| async {
            let done = tend::everything(&self.inner, inode).await;
            self.inner.table.unpin_if_clean(inode);
            done
        });
        let synced = futures::future::join_all(work).await.into_iter().find(Result::is_err).unwrap_or(Ok(()));
        atime::flush(&self.inner).await;
        names.and(synced)
    }

    /// Makes every change of names that was made through this client durable. Changes that were answered and could not be made
    /// are told to each `reader` once.
    pub async fn sync_names(&self, reader: &NameErrors) -> FsResult<()> {
        let names = &self.inner.session.names;
        names.told_all(&self.inner.session).await?;
        names.failed(&mut reader.0.lock())
    }

    /// For an open directory: it hears of what goes wrong from now on, and of what nobody has heard of yet.
    pub fn name_errors(&self) -> NameErrors {
        NameErrors(Mutex::new(self.inner.session.names.seen_by_new_file()))
    }

    /// Whoever keeps data above this client (a kernel) is told when it must forget what it has of a file.
    pub fn on_recall(&self, forget: Forget) {
        self.inner.above.set(forget);
    }

    /// Whether other clients use a file that is open here, so that nothing may be kept of it.
    pub fn is_shared(&self, fid: Fid) -> bool {
        let nothing_kept = |inode: Arc<Inode>| inode.keeps() < Capability::Read;
        self.inner.table.get(fid).is_some_and(nothing_kept) && self.inner.session.is_open(fid)
    }

    /// Root of what this client shows: the file system's, or the source's subdirectory.
    pub fn root(&self) -> Fid {
        self.inner.root
    }

    /// Number of the file system.
    pub fn fs_id(&self) -> FsId {
        self.inner.session.facts.fs_id
    }

    /// Where it was connected to.
    pub fn source(&self) -> &MountSource {
        &self.inner.source
    }

    /// Its bounds.
    pub fn options(&self) -> &Options {
        &self.inner.options
    }
}

/// The directory a source names.
async fn subdirectory(session: &Session, source: &MountSource) -> FsResult<Fid> {
    let mut at = session.facts.root.clone();
    for name in &source.subdir {
        at = lookup(session, &Credential::ROOT, at.fid, name.as_bytes()).await.map_err(|e| {
            FsError::new(e.code, format!("subdirectory {name} of {source}: {e}"))
                .with_hint("mount the root of the file system and make the directory first")
        })?;
        if at.file_type != FileType::Directory {
            return Err(FsError::new(FsCode::NotDirectory, format!("{name} of {source} is not a directory")));
        }
    }
    Ok(at.fid)
}
