//! Listing directories.
//!
//! A position in the kernel's eyes is the MDS's cookie plus two: 1 stands behind `.`, 2 behind `..`. Cookies live as
//! long as their entries, so a listing goes on correctly whatever is removed or added meanwhile. The kernel asks for a
//! few KiB at a time; the rest of a page from the MDS waits in the handle, for as long as attributes may be trusted.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use sateen_client::{DirEntry, NameErrors};
use sateen_types::{Attr, Credential, Fid, FileType, FsResult};
use tokio::sync::Mutex;

use super::MountedFs;

/// Entries asked of the MDS at once.
const PAGE_ENTRIES: u32 = 512;
/// Positions before the first entry: `.` and `..`.
const DOTS: u64 = 2;

/// An open directory.
pub struct OpenDir {
    fid: Fid,
    cred: Credential,
    ahead: Mutex<Ahead>,
    errors: NameErrors,
}

/// What was fetched and not yet handed to the kernel.
#[derive(Default)]
struct Ahead {
    /// Cookie before the first waiting entry.
    after: u64,
    entries: VecDeque<DirEntry>,
    /// Nothing follows the waiting entries.
    end: bool,
    with_attr: bool,
    /// When it was asked for.
    fetched: Option<Instant>,
}

/// One line of a listing.
pub struct DirItem {
    /// Inode number.
    pub ino: u64,
    /// Position behind it.
    pub position: u64,
    /// Kind.
    pub file_type: FileType,
    /// Name.
    pub name: Vec<u8>,
    /// Attributes, except for the dots.
    pub attr: Option<Attr>,
    /// How long ago it was asked for.
    pub age: Duration,
}

impl MountedFs {
    /// Opens a directory.
    pub fn opendir(&self, cred: Credential, ino: u64) -> FsResult<u64> {
        self.dirs.insert(OpenDir {
            fid: self.fid(ino)?,
            cred,
            ahead: Mutex::default(),
            errors: self.client.name_errors(),
        })
    }

    /// Every change of names that was made through this mount survives a power cut.
    pub async fn fsyncdir(&self, handle: u64) -> FsResult<()> {
        self.client.sync_names(&self.dirs.get(handle)?.errors).await
    }

    /// Closes it.
    pub fn releasedir(&self, handle: u64) -> FsResult<()> {
        self.dirs.remove(handle).map(drop)
    }

    /// Hands entries behind `position` to `take` until it says that it is full (by returning true).
    pub async fn readdir(
        &self,
        handle: u64,
        position: u64,
        with_attr: bool,
        mut take: impl FnMut(DirItem) -> bool + Send,
    ) -> FsResult<()> {
        let dir = self.dirs.get(handle)?;
        let mut ahead = dir.ahead.lock().await;
        let mut at = position;
        if at == 0 {
            // From the start is from scratch: rewinddir(3) must see what is there now.
            *ahead = Ahead::default();
            if take(DirItem::dot(b".", self.ino(dir.fid), 1)) {
                return Ok(());
            }
            at = 1;
        }
        if at == 1 {
            let parent = if self.ino(dir.fid) == super::ROOT_INO {
                dir.fid
            } else {
                self.fill(&dir, &mut ahead, 0, with_attr).await?
            };
            if take(DirItem::dot(b"..", self.ino(parent), 2)) {
                return Ok(());
            }
            at = DOTS;
        }
        let fresh = |a: &Ahead| a.fetched.is_some_and(|t| t.elapsed() <= self.attr_timeout);
        if ahead.after != at - DOTS || (with_attr && !ahead.with_attr) || (ahead.fetched.is_some() && !fresh(&ahead)) {
            *ahead = Ahead { after: at - DOTS, ..Ahead::default() };
        }
        loop {
            while let Some(entry) = ahead.entries.front() {
                let item = DirItem {
                    ino: self.ino(entry.fid),
                    position: entry.cookie + DOTS,
                    file_type: entry.file_type,
                    name: entry.name.as_bytes().to_vec(),
                    attr: entry.attr.clone().filter(|_| !self.client.is_shared(entry.fid)),
                    age: ahead.fetched.map_or(Duration::ZERO, |asked| asked.elapsed()),
                };
                if take(item) {
                    return Ok(());
                }
                ahead.after = entry.cookie;
                ahead.entries.pop_front();
            }
            if ahead.end {
                return Ok(());
            }
            let after = ahead.after;
            self.fill(&dir, &mut ahead, after, with_attr).await?;
        }
    }

    /// Fetches the page behind cookie `after` and gives the directory's parent.
    async fn fill(&self, dir: &OpenDir, ahead: &mut Ahead, after: u64, with_attr: bool) -> FsResult<Fid> {
        let page = self.client.read_dir(&dir.cred, dir.fid, after, PAGE_ENTRIES, with_attr).await?;
        *ahead = Ahead {
            after,
            // An empty page that is not the last one would make us ask for ever.
            end: page.end || page.entries.is_empty(),
            entries: page.entries.into(),
            with_attr,
            fetched: Instant::now().checked_sub(page.age),
        };
        Ok(page.parent)
    }
}

impl DirItem {
    fn dot(name: &[u8], ino: u64, position: u64) -> DirItem {
        DirItem { ino, position, file_type: FileType::Directory, name: name.to_vec(), attr: None, age: Duration::ZERO }
    }
}
