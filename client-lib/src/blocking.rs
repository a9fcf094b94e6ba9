//! The client for programs without an async runtime: paths, and files that read, write and seek.
//!
//! ```no_run
//! use std::io::{Read, Write};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = sateen_client::blocking::Client::connect("localhost:/scratch", Default::default())?;
//! let mut file = client.create("/greeting")?;
//! file.write_all(b"hello")?;
//! file.sync_all()?;
//! file.close()?;
//!
//! let mut text = String::new();
//! client.open("/greeting")?.read_to_string(&mut text)?;
//! assert_eq!(text, "hello");
//! client.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! A [`Client`] owns a small runtime, because it was asked for here. It must not be used inside another runtime's
//! tasks; use the async [`crate::Client`] there.

use std::future::Future;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sateen_types::op::{Access, DirEntry, RenameMode};
use sateen_types::{Attr, Credential, Fid, FsCode, FsError, FsResult, Lock, LockClass, LockMode, LockRange, Name};
use tokio::runtime::Runtime;

use crate::{NewFile, Options};

/// Threads of the runtime: one for the caller's work, one for what goes on behind it.
const THREADS: usize = 2;
/// Entries asked for at a time in a listing.
const PAGE_ENTRIES: u32 = 1024;
/// Permission bits of new files and directories, before the process's umask.
const MODE_FILE: u32 = 0o644;
const MODE_DIR: u32 = 0o755;

/// A blocking client, acting as one user (root unless said otherwise). Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    client: crate::Client,
    runtime: Arc<Runtime>,
    cred: Credential,
}

impl Client {
    /// Connects to `HOST[:PORT]:/FS`. See [`crate::Client::connect`].
    pub fn connect(source: &str, options: Options) -> FsResult<Client> {
        let source = source.parse()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("sateen-client")
            .enable_all()
            .build()
            .map_err(|e| FsError::new(FsCode::Io, format!("the runtime did not start: {e}")))?;
        let client = runtime.block_on(crate::Client::connect(&source, options))?;
        Ok(Client { client, runtime: Arc::new(runtime), cred: Credential::ROOT })
    }

    /// The same client acting as another user.
    #[must_use]
    pub fn as_user(&self, cred: Credential) -> Client {
        Client { cred, ..self.clone() }
    }

    /// The async client inside.
    pub fn inner(&self) -> &crate::Client {
        &self.client
    }

    /// Stores everything and ends the session.
    pub fn close(self) -> FsResult<()> {
        self.runtime.block_on(self.client.clone().close())
    }

    /// Opens a file for reading.
    pub fn open(&self, path: impl AsRef<Path>) -> FsResult<File> {
        self.open_with(path, Access::READ)
    }

    /// Opens a file.
    pub fn open_with(&self, path: impl AsRef<Path>, access: Access) -> FsResult<File> {
        self.run(async {
            let attr = self.client.resolve(&self.cred, bytes(&path), true).await?;
            let file = self.client.open(&self.cred, attr.fid, access).await?;
            Ok(self.file(file))
        })
    }

    /// Makes a file, or empties it if it is there; for reading and writing.
    pub fn create(&self, path: impl AsRef<Path>) -> FsResult<File> {
        self.run(async {
            let (parent, name) = self.parent(bytes(&path)).await?;
            let new = NewFile {
                parent,
                name,
                mode: MODE_FILE.into(),
                exclusive: false,
                access: Access::READ_WRITE,
                layout: None,
            };
            let created = self.client.create(&self.cred, new).await?;
            if created.existed {
                created.file.truncate(0).await?;
            }
            Ok(self.file(created.file))
        })
    }

    /// The whole content of a file.
    pub fn read(&self, path: impl AsRef<Path>) -> FsResult<Vec<u8>> {
        let file = self.open(path)?;
        let mut content = Vec::new();
        loop {
            let piece = self.run(file.file.read_at(content.len() as u64, self.client.options().bulk_bytes))?;
            if piece.is_empty() {
                break;
            }
            content.extend_from_slice(&piece);
        }
        file.close()?;
        Ok(content)
    }

    /// Makes `content` the whole content of a file.
    pub fn write(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> FsResult<()> {
        let file = self.create(path)?;
        self.run(file.file.write_at(0, content.as_ref()))?;
        file.close()
    }

    /// Attributes, symbolic links followed.
    pub fn metadata(&self, path: impl AsRef<Path>) -> FsResult<Attr> {
        self.run(self.client.resolve(&self.cred, bytes(&path), true))
    }

    /// Attributes of the name itself.
    pub fn symlink_metadata(&self, path: impl AsRef<Path>) -> FsResult<Attr> {
        self.run(self.client.resolve(&self.cred, bytes(&path), false))
    }

    /// Every entry of a directory, with attributes.
    pub fn read_dir(&self, path: impl AsRef<Path>) -> FsResult<Vec<DirEntry>> {
        self.run(async {
            let dir = self.client.resolve(&self.cred, bytes(&path), true).await?;
            let mut entries: Vec<DirEntry> = Vec::new();
            loop {
                let after = entries.last().map_or(0, |e| e.cookie);
                let (page, end, _) = self.client.readdir(&self.cred, dir.fid, after, PAGE_ENTRIES, true).await?;
                let stuck = page.is_empty();
                entries.extend(page);
                if end || stuck {
                    return Ok(entries);
                }
            }
        })
    }

    /// Makes a directory.
    pub fn create_dir(&self, path: impl AsRef<Path>) -> FsResult<Attr> {
        self.run(async {
            let (parent, name) = self.parent(bytes(&path)).await?;
            self.client.mkdir(&self.cred, parent, &name, MODE_DIR).await
        })
    }

    /// Removes a name of anything but a directory.
    pub fn remove_file(&self, path: impl AsRef<Path>) -> FsResult<()> {
        self.run(async {
            let (parent, name) = self.parent(bytes(&path)).await?;
            self.client.unlink(&self.cred, parent, &name).await
        })
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, path: impl AsRef<Path>) -> FsResult<()> {
        self.run(async {
            let (parent, name) = self.parent(bytes(&path)).await?;
            self.client.rmdir(&self.cred, parent, &name).await
        })
    }

    /// Moves a name, replacing what is there.
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> FsResult<()> {
        self.run(async {
            let (from, old) = self.parent(bytes(&from)).await?;
            let (to, new) = self.parent(bytes(&to)).await?;
            self.client.rename(&self.cred, (from, &old), (to, &new), RenameMode::Replace).await
        })
    }

    /// Makes a symbolic link at `path` to `target`.
    pub fn symlink(&self, target: impl AsRef<Path>, path: impl AsRef<Path>) -> FsResult<Attr> {
        self.run(async {
            let (parent, name) = self.parent(bytes(&path)).await?;
            self.client.symlink(&self.cred, parent, &name, bytes(&target)).await
        })
    }

    fn file(&self, file: crate::File) -> File {
        static OWNERS: AtomicU64 = AtomicU64::new(1);
        let owner = OWNERS.fetch_add(1, Ordering::Relaxed);
        File { file, runtime: Arc::clone(&self.runtime), at: 0, owner }
    }

    /// Directory and last name of a path.
    async fn parent(&self, path: &[u8]) -> FsResult<(Fid, Name)> {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let cut = path.iter().rposition(|b| *b == b'/').map_or(0, |i| i + 1);
        let name = Name::parse(&path[cut..])?;
        let dir = self.client.resolve(&self.cred, &path[..cut], true).await?;
        Ok((dir.fid, name))
    }

    fn run<T>(&self, work: impl Future<Output = FsResult<T>>) -> FsResult<T> {
        self.runtime.block_on(work)
    }
}

/// An open file with a position.
#[derive(Debug)]
pub struct File {
    file: crate::File,
    runtime: Arc<Runtime>,
    at: u64,
    /// Of its locks: no other file of this process has the number.
    owner: u64,
}

impl File {
    /// How the program will read. See [`crate::File::advise`].
    pub fn advise(&self, offset: u64, len: u64, advice: crate::Advice) {
        let _background_work = self.runtime.enter();
        self.file.advise(offset, len, advice);
    }

    /// The async file inside.
    pub fn inner(&self) -> &crate::File {
        &self.file
    }

    /// Locks the whole file as flock(2) does, against every other client, file and mount; waits for it. Given up by
    /// [`File::unlock`] and with the file.
    pub fn lock(&self, mode: LockMode) -> FsResult<()> {
        let lock = Lock { class: LockClass::Flock, mode, range: LockRange::WHOLE, pid: std::process::id() };
        self.runtime.block_on(self.file.lock(self.owner, lock, std::future::pending())).map(drop)
    }

    /// [`File::lock`] that fails with `WouldBlock` instead of waiting.
    pub fn try_lock(&self, mode: LockMode) -> FsResult<()> {
        let lock = Lock { class: LockClass::Flock, mode, range: LockRange::WHOLE, pid: std::process::id() };
        self.runtime.block_on(self.file.try_lock(self.owner, lock)).map(drop)
    }

    /// Stores what was written, then gives the lock up.
    pub fn unlock(&self) -> FsResult<()> {
        self.runtime.block_on(self.file.unlock(self.owner, LockClass::Flock, LockRange::WHOLE))
    }

    /// Attributes, with what was written here.
    pub fn metadata(&self) -> Attr {
        self.file.attr()
    }

    /// Makes everything written durable.
    pub fn sync_all(&self) -> FsResult<()> {
        self.runtime.block_on(self.file.fsync())
    }

    /// Cuts or extends the file.
    pub fn set_len(&self, len: u64) -> FsResult<()> {
        self.runtime.block_on(self.file.truncate(len)).map(drop)
    }

    /// Flushes and closes, and reports what went wrong behind earlier writes. Dropping the file closes it silently.
    pub fn close(self) -> FsResult<()> {
        self.runtime.block_on(self.file.close())
    }
}

impl Read for File {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let bytes = self.runtime.block_on(self.file.read_at(self.at, buf.len())).map_err(to_io)?;
        buf[..bytes.len()].copy_from_slice(&bytes);
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }
}

impl Write for File {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.runtime.block_on(self.file.write_at(self.at, buf)).map_err(to_io)?;
        self.at += buf.len() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.runtime.block_on(self.file.flush()).map_err(to_io)
    }
}

impl Seek for File {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        let at = match pos {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.file.attr().size.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

/// The error with its errno, and its story as text.
fn to_io(error: FsError) -> io::Error {
    io::Error::new(io::Error::from_raw_os_error(error.code.errno()).kind(), error)
}

fn bytes<P: AsRef<Path>>(path: &P) -> &[u8] {
    path.as_ref().as_os_str().as_bytes()
}
