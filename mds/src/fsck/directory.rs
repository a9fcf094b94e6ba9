//! The counts of a directory: names in it, its links, the place of the next name. A directory that has names but no
//! inode is made again, owned by root and closed to others: better than its names in `/lost+found`.

use sateen_types::limits::LINK_COUNT_MAX;
use sateen_types::{Fid, FileType, FindingKind, FsResult};

use super::draft::Draft;
use super::rows::{Rows, Stored};
use super::{Broken, Facts, Remedy};
use crate::namespace::tree;
use crate::store::codec::Record;
use crate::store::records::{Body, Dentry, Inode};
use crate::store::{ReadTxn, Table, keys};

/// Permission bits of a directory that a check has made.
pub const CLOSED: u32 = 0o700;

/// What the names of a directory add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Names.
    pub entries: u64,
    /// Directories among them.
    pub subdirs: u64,
    /// Behind the highest cookie in use.
    pub end: u64,
    /// Entries that do not decode, so that nobody knows what they are.
    pub unknown: u64,
}

impl Count {
    /// An entry.
    pub fn entry(&mut self, entry: Option<&Dentry>) {
        self.entries += 1;
        match entry {
            Some(entry) => self.subdirs += u64::from(entry.file_type == FileType::Directory),
            None => self.unknown += 1,
        }
    }

    /// An index row.
    pub fn cookie(&mut self, cookie: u64) {
        self.end = self.end.max(cookie.saturating_add(1));
    }

    fn of(tx: &dyn ReadTxn, dir: Fid) -> FsResult<Count> {
        let mut count = Count::default();
        let mut rows = Rows::about(tx, Table::Dentries, dir);
        while let Some((key, value)) = rows.next()? {
            if keys::parse_dentry(&key).is_ok() {
                count.entry(Dentry::from_bytes(&value).ok().as_ref());
            }
        }
        let mut rows = Rows::about(tx, Table::DirIndex, dir);
        while let Some((key, _)) = rows.next()? {
            keys::parse_dirindex(&key).into_iter().for_each(|(_, cookie)| count.cookie(cookie));
        }
        Ok(count)
    }

    fn nlink(&self) -> u32 {
        u32::try_from(self.subdirs + 2).unwrap_or(LINK_COUNT_MAX).min(LINK_COUNT_MAX)
    }

    /// Whether the inode says the same. What is no directory has no names.
    pub fn agrees(&self, inode: &Stored<Inode>) -> bool {
        match inode {
            Stored::Missing => self.entries == 0,
            Stored::Bad => true,
            Stored::Good(inode) => match inode.body {
                Body::Directory { entries, next_cookie } => {
                    entries == self.entries && inode.nlink == self.nlink() && next_cookie >= self.end
                }
                _ => true,
            },
        }
    }
}

/// What is wrong with a directory, if anything is.
pub fn look(tx: &dyn ReadTxn, facts: &Facts, dir: Fid) -> FsResult<Option<Broken>> {
    let stored = Stored::<Inode>::read(tx, Table::Inodes, &keys::fid(dir))?;
    let count = Count::of(tx, dir)?;
    if count.agrees(&stored) && !(stored.is_missing() && dir == Fid::ROOT) {
        return Ok(None);
    }
    let end = count.end.max(Body::FIRST_COOKIE);
    let (what, inode) = match stored {
        Stored::Good(inode) => {
            let Body::Directory { entries, next_cookie } = inode.body else { return Ok(None) };
            let what = format!(
                "counts {entries} names, {} links and cookies below {next_cookie}; has {}, {} and below {end}",
                inode.nlink,
                count.entries,
                count.nlink()
            );
            let next_cookie = next_cookie.max(end);
            let body = Body::Directory { entries: count.entries, next_cookie };
            (what, Inode { nlink: count.nlink(), body, ..inode })
        }
        _ => {
            let what = format!(
                "the inode of a directory with {} names is lost; its owner, mode and times are not known",
                count.entries
            );
            let body = Body::Directory { entries: count.entries, next_cookie: end };
            (what, Inode { nlink: count.nlink(), body, ..new(facts) })
        }
    };
    if count.unknown > 0 || !dir.is_valid() {
        return Ok(facts.broken(FindingKind::Directory, what, Remedy::Unknown).file(dir));
    }
    let mut draft = Draft::new(tx);
    draft.sees(Table::Inodes, keys::fid(dir));
    let mut inode = inode;
    inode.attr_changed(facts.now);
    tree::put_inode(draft.tx(), dir, &inode);
    Ok(facts.broken(FindingKind::Directory, what, Remedy::Mend(draft.finish()?)).file(dir))
}

/// An empty directory of root, closed to others.
pub fn new(facts: &Facts) -> Inode {
    Inode {
        mode: CLOSED,
        uid: 0,
        gid: 0,
        nlink: 2,
        size: 0,
        allocated: 0,
        atime: facts.now,
        mtime: facts.now,
        ctime: facts.now,
        btime: facts.now,
        change: 1,
        acl: None,
        default_acl: None,
        has_capabilities: false,
        body: Body::empty_directory(),
    }
}
