//! `sateen repo delete --delete-data`: what lies below a directory that was linked goes (FSx's `DeleteDataInFileSystem`).
//!
//! The link is ended before, so that nothing of this is carried over to the bucket. The directory itself stays. Memory is bounded by
//! the depth of the tree and a page of names for each level.

use futures::stream::{self, StreamExt, TryStreamExt};
use sateen_client::{Client, Credential, Fid, Name};
use sateen_types::op::DirEntry;
use sateen_types::{FileType, FsCode, FsResult};

/// Names of a page.
const PAGE: u32 = 1024;
/// Names that are removed at a time.
const TOGETHER: usize = 32;

/// A directory that is to be removed when it is empty; the first one stays.
struct Level {
    dir: Fid,
    name: Option<(Fid, Name)>,
}

/// Removes everything below `root`; gives how many names that were. What others make there meanwhile goes as well.
pub async fn empty(client: &Client, root: Fid) -> FsResult<u64> {
    let who = Credential::ROOT;
    let mut levels = vec![Level { dir: root, name: None }];
    let mut removed = 0;
    while let Some(Level { dir, name }) = levels.last() {
        let (dir, name) = (*dir, name.clone());
        // From the start each time: what was there is gone.
        let page = match client.readdir(&who, dir, 0, PAGE, false).await {
            Ok((page, ..)) => page,
            Err(e) if is_gone(e.code) => Vec::new(),
            Err(e) => return Err(e),
        };
        let (below, files): (Vec<DirEntry>, Vec<DirEntry>) =
            page.into_iter().partition(|entry| entry.file_type == FileType::Directory);
        let found = files.len() as u64;
        removed += found;
        let unlinks = files
            .into_iter()
            .map(|entry| async move { unless_gone(client.unlink(&Credential::ROOT, dir, &entry.name).await) });
        stream::iter(unlinks).buffer_unordered(TOGETHER).try_collect::<()>().await?;
        if !below.is_empty() {
            levels.extend(below.into_iter().map(|entry| Level { dir: entry.fid, name: Some((dir, entry.name)) }));
            continue;
        }
        let Some((parent, name)) = name else {
            if found == 0 {
                return Ok(removed);
            }
            continue;
        };
        match client.rmdir(&who, parent, &name).await {
            Ok(()) => removed += 1,
            Err(e) if is_gone(e.code) => {}
            // The next page, or what somebody has made in this moment.
            Err(e) if e.code == FsCode::NotEmpty => continue,
            Err(e) => return Err(e),
        }
        levels.pop();
    }
    Ok(removed)
}

fn is_gone(code: FsCode) -> bool {
    matches!(code, FsCode::NotFound | FsCode::Stale)
}

/// What somebody else has removed is gone as well.
fn unless_gone(done: FsResult<()>) -> FsResult<()> {
    match done {
        Err(e) if is_gone(e.code) => Ok(()),
        done => done,
    }
}
