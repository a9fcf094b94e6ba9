//! A directory of this machine as a repository: files are objects, keys their paths. For tests, and for data on other mounts.
//!
//! Directories are keys that end with a slash; symbolic links are objects that say so. Nothing is followed: neither links in the
//! tree nor any part of a key leads out of the directory. Writing is in [`write`]. What a file was when it was imported is told by its inode, size and
//! time of change.

mod write;

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use sateen_types::limits::PATH_BYTES_MAX;
use sateen_types::repository::{ObjectPath, RepositoryUrl};
use sateen_types::{Extent, FsCode, FsError, FsResult, Timestamp};

use super::{Body, Head, Listed, Page, RemoteError, Trouble};
use crate::posix::Posix;

pub use write::Upload;
use write::{EXPORT_XATTR, UNFINISHED};

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// A directory.
#[derive(Debug)]
pub struct Directory {
    root: Arc<PathBuf>,
}

impl Directory {
    /// The directory of a link, which must lie in one of those that the configuration allows.
    pub fn open(url: &RepositoryUrl, allowed: &[PathBuf]) -> FsResult<Directory> {
        let root = PathBuf::from(format!("/{}", url.prefix()));
        if !allowed.iter().any(|a| root.starts_with(a)) {
            let what = format!("{url} is not in a directory that this worker may serve");
            return Err(FsError::new(FsCode::AccessDenied, what)
                .with_hint("add it to `directories` in the configuration of sateen-dra-sync"));
        }
        Ok(Directory { root: Arc::new(root) })
    }

    /// See [`super::Remote::list`].
    pub async fn list(&self, after: &[u8], max: usize) -> Result<Page, RemoteError> {
        let (root, after) = (Arc::clone(&self.root), after.to_vec());
        blocking(move || {
            let mut walk = Walk { root: &root, after: &after, max, page: Page::default() };
            walk.directory(&[]).map_err(|e| trouble(&root, &e))?;
            Ok(walk.page)
        })
        .await
    }

    /// See [`super::Remote::head`].
    pub async fn head(&self, key: &[u8]) -> Result<Head, RemoteError> {
        let (root, key) = (Arc::clone(&self.root), key.to_vec());
        blocking(move || {
            let file = open(&root, &key, OFlags::PATH)?;
            let meta = file.metadata().map_err(|e| trouble(&root, &e))?;
            Ok(Head {
                size: if meta.is_dir() { 0 } else { meta.size() },
                etag: version(&meta),
                modified: Some(time(meta.mtime(), meta.mtime_nsec())),
                posix: Posix {
                    mode: Some(meta.mode()),
                    uid: Some(meta.uid()),
                    gid: Some(meta.gid()),
                    atime: Some(time(meta.atime(), meta.atime_nsec())),
                    mtime: Some(time(meta.mtime(), meta.mtime_nsec())),
                    export: export_of(&file),
                },
                archived: false,
            })
        })
        .await
    }

    /// See [`super::Remote::get`].
    pub async fn get(&self, key: &[u8], etag: &str, range: Extent) -> Result<Body, RemoteError> {
        let (root, key, etag) = (Arc::clone(&self.root), key.to_vec(), etag.to_owned());
        let source = blocking({
            let etag = etag.clone();
            move || Source::open(&root, &key, &etag)
        })
        .await?;
        let source = Arc::new(source);
        Ok(futures::stream::unfold(range, move |mut rest| {
            let (source, etag) = (Arc::clone(&source), etag.clone());
            async move {
                if rest.start >= rest.end {
                    return None;
                }
                let len = (rest.end - rest.start).min(PIECE_BYTES as u64) as usize;
                let at = rest.start;
                let read = blocking(move || source.read(at, len, &etag)).await;
                rest.start = if read.is_ok() { at + len as u64 } else { rest.end };
                Some((read, rest))
            }
        })
        .boxed())
    }
}

/// What the bytes of an object come from.
#[derive(Debug)]
enum Source {
    File(File, PathBuf),
    Link(Vec<u8>),
}

impl Source {
    fn open(root: &Path, key: &[u8], etag: &str) -> Result<Source, RemoteError> {
        let handle = open(root, key, OFlags::PATH)?;
        let meta = handle.metadata().map_err(|e| trouble(root, &e))?;
        same(&meta, etag, key)?;
        if meta.is_symlink() {
            let target = rustix::fs::readlinkat(&handle, "", Vec::with_capacity(PATH_BYTES_MAX))
                .map_err(|e| trouble(root, &e.into()))?;
            return Ok(Source::Link(target.into_bytes()));
        }
        let file = open(root, key, OFlags::RDONLY | OFlags::NONBLOCK)?;
        Ok(Source::File(file, root.join(OsStr::from_bytes(key))))
    }

    /// `len` bytes from `at` on, of the version `etag` to the end.
    fn read(&self, at: u64, len: usize, etag: &str) -> Result<Bytes, RemoteError> {
        let changed = |path: &Path| RemoteError::new(Trouble::Changed, format!("{} has changed", path.display()));
        match self {
            Source::Link(target) => {
                let mut bytes = vec![0; len];
                let mut rest = target.get(at as usize..).unwrap_or_default();
                rest.read_exact(&mut bytes).map_err(|_| changed(Path::new("a symbolic link")))?;
                Ok(bytes.into())
            }
            Source::File(file, path) => {
                let mut bytes = vec![0; len];
                file.read_exact_at(&mut bytes, at).map_err(|e| match e.kind() {
                    std::io::ErrorKind::UnexpectedEof => changed(path),
                    _ => trouble(path, &e),
                })?;
                let meta = file.metadata().map_err(|e| trouble(path, &e))?;
                same(&meta, etag, path.as_os_str().as_bytes())?;
                Ok(bytes.into())
            }
        }
    }
}

/// The page of a walk in the order of keys.
struct Walk<'a> {
    root: &'a Path,
    after: &'a [u8],
    max: usize,
    page: Page,
}

impl Walk<'_> {
    /// Everything below the directory whose key is `prefix` (with its slash; empty: the root).
    fn directory(&mut self, prefix: &[u8]) -> std::io::Result<()> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for entry in std::fs::read_dir(self.root.join(OsStr::from_bytes(prefix)))? {
            let entry = entry?;
            if entry.file_name().as_bytes().starts_with(UNFINISHED.as_bytes()) {
                continue;
            }
            let mut key = [prefix, entry.file_name().as_bytes()].concat();
            if entry.file_type()?.is_dir() {
                key.push(b'/');
            }
            // Of a directory all keys may lie behind `after`, or only some of them.
            if key.as_slice() > self.after || (key.ends_with(b"/") && self.after.starts_with(&key)) {
                keys.push(key);
            }
        }
        keys.sort();
        for key in keys {
            if self.page.objects.len() == self.max {
                self.page.more = true;
                return Ok(());
            }
            let meta = match std::fs::symlink_metadata(self.root.join(OsStr::from_bytes(&key))) {
                Ok(meta) => meta,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            if key.as_slice() > self.after {
                self.page.objects.push(Listed {
                    size: if meta.is_dir() { 0 } else { meta.size() },
                    etag: version(&meta),
                    modified: time(meta.mtime(), meta.mtime_nsec()),
                    key: key.clone(),
                });
            }
            if key.ends_with(b"/") && meta.is_dir() {
                match self.directory(&key) {
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                    other => other?,
                }
                if self.page.more {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Opens what a key names, within the directory and without following a link.
fn open(root: &Path, key: &[u8], flags: OFlags) -> Result<File, RemoteError> {
    let refused = |why: String| RemoteError::new(Trouble::Refused, why);
    let path = ObjectPath::parse(key).map_err(|e| refused(e.message))?;
    let names: Vec<&[u8]> = path.names.iter().map(|n| n.as_bytes()).collect();
    let path = names.join(&b'/');
    let dir = File::open(root).map_err(|e| trouble(root, &e))?;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    // NO_SYMLINKS refuses a link at the end as well, which may be looked at.
    let file = match openat2(&dir, OsStr::from_bytes(&path), flags, Mode::empty(), within) {
        Err(rustix::io::Errno::LOOP) if flags.contains(OFlags::PATH) => {
            let (parent, name) = match names.split_last() {
                Some((name, [])) => (dir, *name),
                Some((name, parents)) => {
                    let parents = parents.join(&b'/');
                    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
                    let parent = openat2(&dir, OsStr::from_bytes(&parents), flags, Mode::empty(), within)
                        .map_err(|e| trouble(root, &e.into()))?;
                    (File::from(parent), *name)
                }
                None => return Err(refused("the key is empty".to_owned())),
            };
            openat2(&parent, OsStr::from_bytes(name), flags, Mode::empty(), ResolveFlags::BENEATH)
        }
        other => other,
    };
    file.map(File::from).map_err(|e| trouble(&root.join(OsStr::from_bytes(key)), &e.into()))
}

/// Which assignment stored a file, if it says so.
fn export_of(file: &File) -> Option<u64> {
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut value = [0; 16];
    let len = rustix::fs::getxattr(name, EXPORT_XATTR, &mut value[..]).ok()?;
    u64::from_str_radix(std::str::from_utf8(value.get(..len)?).ok()?, 16).ok()
}

fn same(meta: &std::fs::Metadata, etag: &str, key: &[u8]) -> Result<(), RemoteError> {
    if version(meta) == etag {
        return Ok(());
    }
    Err(RemoteError::new(Trouble::Changed, format!("{} has changed", String::from_utf8_lossy(key))))
}

/// What an ETag is for files. The time of change moves with every write, and nobody can set it.
fn version(meta: &std::fs::Metadata) -> String {
    match meta.is_dir() {
        // Its entries are objects of their own.
        true => format!("{:x}-d", meta.ino()),
        false => format!("{:x}-{:x}-{:x}.{:x}", meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec()),
    }
}

fn time(seconds: i64, nanos: i64) -> Timestamp {
    Timestamp { seconds, nanos: u32::try_from(nanos).unwrap_or(0) }
}

fn trouble(path: &Path, e: &std::io::Error) -> RemoteError {
    let kind = match e.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Trouble::Gone,
        std::io::ErrorKind::PermissionDenied => Trouble::Denied,
        _ => Trouble::Refused,
    };
    RemoteError::new(kind, format!("{}: {e}", path.display()))
}

/// Runs `work` on a thread for such work.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RemoteError> + Send + 'static,
) -> Result<T, RemoteError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => Err(RemoteError::new(Trouble::Refused, format!("reading a directory failed: {e}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (tempfile::TempDir, Directory) {
        let dir = tempfile::tempdir().expect("temp dir");
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("a/b")).expect("made");
        std::fs::write(at("a/b/1"), b"one").expect("written");
        std::fs::write(at("a.x"), b"before a/").expect("written");
        std::fs::write(at("a/z"), vec![7u8; 3 << 20]).expect("written");
        std::os::unix::fs::symlink("/etc/passwd", at("link")).expect("linked");
        std::os::unix::fs::symlink("/etc", at("out")).expect("linked");
        let url = format!("file://{}/", dir.path().display()).parse().expect("url");
        let open = Directory::open(&url, &[dir.path().to_owned()]).expect("allowed");
        (dir, open)
    }

    #[tokio::test]
    async fn pages_are_in_the_order_of_keys_wherever_they_are_cut() {
        let (_dir, directory) = sample();
        let keys = ["a.x", "a/", "a/b/", "a/b/1", "a/z", "link", "out"];
        for max in 1..=8 {
            let (mut got, mut after) = (Vec::new(), Vec::new());
            loop {
                let page = directory.list(&after, max).await.expect("a page");
                assert!(page.objects.len() <= max);
                got.extend(page.objects.iter().map(|o| String::from_utf8(o.key.clone()).expect("UTF-8")));
                match page.objects.last() {
                    Some(last) if page.more => after = last.key.clone(),
                    _ => break,
                }
            }
            assert_eq!(got, keys, "{max} at a time");
        }
    }

    #[tokio::test]
    async fn bytes_are_those_of_one_version() {
        let (dir, directory) = sample();
        let head = directory.head(b"a/z").await.expect("there");
        let range = Extent { start: (1 << 20) + 1, end: 3 << 20 };
        let body = directory.get(b"a/z", &head.etag, range).await.expect("opens");
        let parts: Vec<Bytes> = body.map(|part| part.expect("read")).collect().await;
        assert_eq!(parts.iter().map(Bytes::len).sum::<usize>(), (2 << 20) - 1);
        std::fs::write(dir.path().join("a/z"), vec![8u8; 3 << 20]).expect("written");
        let changed = directory.get(b"a/z", &head.etag, range).await.err().expect("another version");
        assert_eq!(changed.trouble, Trouble::Changed);
        std::fs::remove_file(dir.path().join("a/z")).expect("removed");
        assert_eq!(directory.head(b"a/z").await.expect_err("gone").trouble, Trouble::Gone);
    }

    #[tokio::test]
    async fn nothing_leads_out_of_the_directory() {
        let (dir, directory) = sample();
        let head = directory.head(b"link").await.expect("the link itself");
        assert_eq!(head.posix.kind(), crate::posix::Kind::Symlink);
        let mut body = directory.get(b"link", &head.etag, Extent { start: 0, end: head.size }).await.expect("opens");
        assert_eq!(body.next().await.expect("a part").expect("read"), "/etc/passwd");
        for key in ["out/passwd", "../etc/passwd", "a/../../etc/passwd", "/etc/passwd", "a//b", ""] {
            directory.head(key.as_bytes()).await.expect_err(key);
        }
        let url = format!("file://{}/a/", dir.path().display()).parse().expect("url");
        Directory::open(&url, &[dir.path().join("b")]).expect_err("not allowed");
        Directory::open(&url, &[]).expect_err("nothing is allowed");
    }
}
