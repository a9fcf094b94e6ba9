//! Writing to a directory: everything is made under a name of its own beside its place, and put there by one rename that
//! replaces what was expected or nothing.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, mkdirat,
    openat2, renameat_with, setxattr, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use sateen_types::repository::ObjectPath;
use sateen_types::{Extent, Payload, Timestamp};

use super::super::write::{Expected, Stored};
use super::{Directory, RemoteError, Source, Trouble, blocking, open, same, time, trouble, version};
use crate::posix::{Kind, Posix};

/// What names of things begin with that are not in their place yet. Listings leave them out.
pub const UNFINISHED: &str = ".sateen-export-";
/// Where a file says which assignment stored it.
pub const EXPORT_XATTR: &str = "user.sateen-export";
/// Permissions of directories above a key.
const PARENT_MODE: u32 = 0o755;
/// Bytes that are copied at a time.
const COPY_BYTES: u64 = 4 << 20;

/// Where something is to be: its directory, its name there, and the name until then.
#[derive(Debug)]
struct Place {
    dir: File,
    name: OsString,
    unfinished: OsString,
    path: PathBuf,
}

impl Place {
    /// Makes directories that are missing above it.
    fn of(root: &std::path::Path, key: &[u8], number: u64) -> Result<(Place, bool), RemoteError> {
        let path = ObjectPath::parse(key).map_err(|e| RemoteError::new(Trouble::Refused, e.message))?;
        let (name, parents) =
            path.names.split_last().ok_or_else(|| RemoteError::new(Trouble::Refused, "the key is empty"))?;
        let whole = root.join(std::ffi::OsStr::from_bytes(key));
        let failed = |e: Errno| trouble(&whole, &e.into());
        let mut dir = File::open(root).map_err(|e| trouble(root, &e))?;
        for parent in parents {
            let parent = OsString::from_vec(parent.as_bytes().to_vec());
            match mkdirat(&dir, &parent, Mode::from_raw_mode(PARENT_MODE)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(failed(e)),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            dir = openat2(&dir, &parent, flags, Mode::empty(), within).map_err(failed)?.into();
        }
        let place = Place {
            dir,
            name: OsString::from_vec(name.as_bytes().to_vec()),
            unfinished: format!("{UNFINISHED}{number:016x}").into(),
            path: whole,
        };
        Ok((place, path.directory))
    }

    fn failed(&self, e: Errno) -> RemoteError {
        trouble(&self.path, &e.into())
    }

    fn changed(&self) -> RemoteError {
        RemoteError::new(Trouble::Changed, format!("{} is another one", self.path.display()))
    }

    /// What has this name in the directory; itself, if it is a link.
    fn find(&self, name: &OsString) -> Result<Option<File>, RemoteError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat2(&self.dir, name, flags, Mode::empty(), ResolveFlags::BENEATH) {
            Ok(found) => Ok(Some(found.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(self.failed(e)),
        }
    }

    /// Removes what has the unfinished name.
    fn forget(&self) -> bool {
        unlinkat(&self.dir, &self.unfinished, AtFlags::empty()).is_ok()
    }

    /// Makes an empty file under the unfinished name.
    fn create(&self) -> Result<File, RemoteError> {
        self.forget();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let made = openat2(&self.dir, &self.unfinished, flags, mode, ResolveFlags::BENEATH);
        made.map(File::from).map_err(|e| self.failed(e))
    }

    /// Gives what has the unfinished name its place, in one step, if what is there is `expected`.
    fn finish(&self, expected: &Expected) -> Result<Stored, RemoteError> {
        let failed = |e: std::io::Error| trouble(&self.path, &e);
        let mine = self.find(&self.unfinished)?.ok_or_else(|| self.changed())?;
        match expected {
            Expected::Nothing => {
                let to = RenameFlags::NOREPLACE;
                match renameat_with(&self.dir, &self.unfinished, &self.dir, &self.name, to) {
                    Ok(()) => {}
                    Err(Errno::EXIST) => return Err(self.changed()),
                    Err(e) => return Err(self.failed(e)),
                }
            }
            Expected::Object(etag) => {
                let there = self.find(&self.name)?.ok_or_else(|| trouble(&self.path, &Errno::NOENT.into()))?;
                let before = there.metadata().map_err(failed)?;
                same(&before, etag, self.path.as_os_str().as_bytes())?;
                let to = RenameFlags::EXCHANGE;
                renameat_with(&self.dir, &self.unfinished, &self.dir, &self.name, to).map_err(|e| self.failed(e))?;
                // A rename moves the time of change; all else must be as it was looked at.
                let known = |m: &std::fs::Metadata| (m.ino(), m.size(), m.mtime(), m.mtime_nsec());
                let out = self.find(&self.unfinished)?.ok_or_else(|| self.changed())?;
                if known(&out.metadata().map_err(failed)?) != known(&before) {
                    renameat_with(&self.dir, &self.unfinished, &self.dir, &self.name, to)
                        .map_err(|e| self.failed(e))?;
                    return Err(self.changed());
                }
                self.forget();
            }
        }
        self.dir.sync_all().map_err(failed)?;
        let meta = mine.metadata().map_err(failed)?;
        Ok(Stored { etag: version(&meta), modified: Some(time(meta.mtime(), meta.mtime_nsec())) })
    }
}

/// A name of an open file that also names links themselves.
fn by_number(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Gives attributes, as far as this process may.
fn describe(place: &Place, name: &OsString, about: &Posix) -> Result<(), RemoteError> {
    let found = place.find(name)?.ok_or_else(|| place.changed())?;
    let link = about.kind() == Kind::Symlink;
    let owner = (about.uid.map(Uid::from_raw), about.gid.map(Gid::from_raw));
    match chownat(&place.dir, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW) {
        // Only root gives files away.
        Ok(()) | Err(Errno::PERM) => {}
        Err(e) => return Err(place.failed(e)),
    }
    if !link {
        if let Some(mode) = about.mode {
            let mode = Permissions::from_mode(mode & 0o1777);
            std::fs::set_permissions(by_number(&found), mode).map_err(|e| trouble(&place.path, &e))?;
        }
        if let Some(number) = about.export {
            let value = format!("{number:016x}");
            match setxattr(by_number(&found), EXPORT_XATTR, value.as_bytes(), XattrFlags::empty()) {
                // Without it a lost answer looks like a conflict, that is all.
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSPC | Errno::PERM) => {}
                Err(e) => return Err(place.failed(e)),
            }
        }
    }
    let spec = |time: Option<Timestamp>| match time {
        Some(time) => Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() },
        None => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
    };
    let times = Timestamps { last_access: spec(about.atime), last_modification: spec(about.mtime) };
    utimensat(&place.dir, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| place.failed(e))
}

impl Directory {
    /// See [`super::super::Remote::put`].
    pub async fn put(
        &self,
        key: &[u8],
        bytes: Payload,
        about: &Posix,
        expected: &Expected,
    ) -> Result<Stored, RemoteError> {
        let (root, key, about, expected) = (Arc::clone(&self.root), key.to_vec(), *about, expected.clone());
        blocking(move || {
            let (place, directory) = Place::of(&root, &key, about.export.unwrap_or(0))?;
            if directory {
                return make_directory(&place, &about, &expected);
            }
            if about.kind() == Kind::Symlink {
                place.forget();
                symlinkat(OsString::from_vec(bytes.into_bytes().to_vec()), &place.dir, &place.unfinished)
                    .map_err(|e| place.failed(e))?;
            } else {
                let mut file = place.create()?;
                let written = bytes.pieces().try_for_each(|piece| file.write_all(piece));
                written.and_then(|()| file.sync_all()).map_err(|e| trouble(&place.path, &e))?;
            }
            described(&place, &about, &expected)
        })
        .await
    }

    /// See [`super::super::Remote::copy`].
    pub async fn copy(
        &self,
        source: &[u8],
        etag: &str,
        key: &[u8],
        about: &Posix,
        expected: &Expected,
    ) -> Result<Stored, RemoteError> {
        let (root, source, etag) = (Arc::clone(&self.root), source.to_vec(), etag.to_owned());
        let (key, about, expected) = (key.to_vec(), *about, expected.clone());
        blocking(move || {
            let (place, directory) = Place::of(&root, &key, about.export.unwrap_or(0))?;
            if directory {
                return make_directory(&place, &about, &expected);
            }
            match Source::open(&root, &source, &etag)? {
                Source::Link(target) => {
                    place.forget();
                    symlinkat(OsString::from_vec(target), &place.dir, &place.unfinished)
                        .map_err(|e| place.failed(e))?;
                }
                Source::File(mut from, path) => {
                    let mut to = place.create()?;
                    std::io::copy(&mut from, &mut to).and_then(|_| to.sync_all()).map_err(|e| trouble(&path, &e))?;
                    same(&from.metadata().map_err(|e| trouble(&path, &e))?, &etag, &source)?;
                }
            }
            described(&place, &about, &expected)
        })
        .await
    }

    /// See [`super::super::Remote::delete`]. Looked at right before: a directory has no other way.
    pub async fn delete(&self, key: &[u8], etag: &str) -> Result<(), RemoteError> {
        let (root, key, etag) = (Arc::clone(&self.root), key.to_vec(), etag.to_owned());
        blocking(move || {
            let path = root.join(std::ffi::OsStr::from_bytes(&key));
            let found = open(&root, &key, OFlags::PATH)?;
            let meta = found.metadata().map_err(|e| trouble(&path, &e))?;
            same(&meta, &etag, &key)?;
            let (place, _) = Place::of(&root, &key, 0)?;
            let flags = if meta.is_dir() { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            match unlinkat(&place.dir, &place.name, flags) {
                // What is in it goes first.
                Err(Errno::NOTEMPTY) => {
                    Err(RemoteError::new(Trouble::Unavailable, format!("{} is not empty", path.display())))
                }
                done => done.map_err(|e| place.failed(e)),
            }
        })
        .await
    }

    /// See [`super::super::Remote::upload`].
    pub async fn upload(&self, key: &[u8], about: &Posix) -> Result<Upload, RemoteError> {
        let (root, key, about) = (Arc::clone(&self.root), key.to_vec(), *about);
        blocking(move || {
            let (place, _) = Place::of(&root, &key, about.export.unwrap_or(0))?;
            let file = place.create()?;
            Ok(Upload { shared: Arc::new(Shared { place, file, about, over: AtomicBool::new(false) }), root })
        })
        .await
    }

    /// See [`super::super::Remote::clean`].
    pub async fn clean(&self, key: &[u8], earlier: &[u64]) -> Result<usize, RemoteError> {
        let (root, key, earlier) = (Arc::clone(&self.root), key.to_vec(), earlier.to_vec());
        blocking(move || {
            let mut count = 0;
            for number in earlier {
                count += usize::from(Place::of(&root, &key, number)?.0.forget());
            }
            Ok(count)
        })
        .await
    }
}

/// The attributes first, then the place. What cannot have it is removed.
fn described(place: &Place, about: &Posix, expected: &Expected) -> Result<Stored, RemoteError> {
    let done = describe(place, &place.unfinished, about).and_then(|()| place.finish(expected));
    if done.is_err() {
        place.forget();
    }
    done
}

/// One that is there already was made for what is in it.
fn make_directory(place: &Place, about: &Posix, expected: &Expected) -> Result<Stored, RemoteError> {
    match mkdirat(&place.dir, &place.name, Mode::from_raw_mode(PARENT_MODE)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(place.failed(e)),
    }
    let failed = |e: std::io::Error| trouble(&place.path, &e);
    let found = place.find(&place.name)?.ok_or_else(|| place.changed())?;
    let meta = found.metadata().map_err(failed)?;
    if !meta.is_dir() {
        return Err(place.changed());
    }
    if let Expected::Object(etag) = expected {
        same(&meta, etag, place.path.as_os_str().as_bytes())?;
    }
    describe(place, &place.name, about)?;
    place.dir.sync_all().map_err(failed)?;
    Ok(Stored { etag: version(&meta), modified: Some(time(meta.mtime(), meta.mtime_nsec())) })
}

#[derive(Debug)]
struct Shared {
    place: Place,
    file: File,
    about: Posix,
    over: AtomicBool,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if !self.over.load(Ordering::Acquire) {
            self.place.forget();
        }
    }
}

/// See [`super::super::Upload`].
#[derive(Debug)]
pub struct Upload {
    root: Arc<PathBuf>,
    shared: Arc<Shared>,
}

impl Upload {
    /// See [`super::super::Upload::part`].
    pub async fn part(&self, offset: u64, bytes: Payload) -> Result<(), RemoteError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let mut at = offset;
            for piece in bytes.pieces() {
                shared.file.write_all_at(piece, at).map_err(|e| trouble(&shared.place.path, &e))?;
                at += piece.len() as u64;
            }
            Ok(())
        })
        .await
    }

    /// See [`super::super::Upload::copy_part`].
    pub async fn copy_part(&self, source: &[u8], etag: &str, range: Extent) -> Result<(), RemoteError> {
        let (root, shared) = (Arc::clone(&self.root), Arc::clone(&self.shared));
        let (source, etag) = (source.to_vec(), etag.to_owned());
        blocking(move || {
            let from = Source::open(&root, &source, &etag)?;
            let mut at = range.start;
            while at < range.end {
                let len = (range.end - at).min(COPY_BYTES);
                let bytes = from.read(at, len as usize, &etag)?;
                shared.file.write_all_at(&bytes, at).map_err(|e| trouble(&shared.place.path, &e))?;
                at += len;
            }
            Ok(())
        })
        .await
    }

    /// See [`super::super::Upload::complete`].
    pub async fn complete(&self, expected: &Expected) -> Result<Stored, RemoteError> {
        let (shared, expected) = (Arc::clone(&self.shared), expected.clone());
        blocking(move || {
            shared.file.sync_all().map_err(|e| trouble(&shared.place.path, &e))?;
            let done = described(&shared.place, &shared.about, &expected)?;
            shared.over.store(true, Ordering::Release);
            Ok(done)
        })
        .await
    }

    /// See [`super::super::Upload::abort`].
    pub async fn abort(&self) -> Result<(), RemoteError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            shared.over.store(true, Ordering::Release);
            shared.place.forget();
            Ok(())
        })
        .await
    }
}
