//! Many names in one change. What every name of a directory changes, the directory's own row, is read once and written once, and so is
//! the counter of inodes: a page has a thousand names.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use sateen_types::{Fid, FileType, FsCode, FsError, FsResult, Name, Timestamp};

use crate::namespace::{changelog, tree};
use crate::store::codec::Record;
use crate::store::records::{Body, Dentry, IndexEntry, Inode};
use crate::store::{Table, Txn, keys};

/// See the module. What it has is in the tables only after [`Names::write`]; until then nobody else may ask for directories.
#[derive(Default)]
pub(super) struct Names {
    dirs: HashMap<Fid, Dir>,
    made: u64,
}

struct Dir {
    inode: Inode,
    changed: bool,
}

impl Names {
    fn dir(&mut self, tx: &dyn Txn, fid: Fid) -> FsResult<&mut Dir> {
        Ok(match self.dirs.entry(fid) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(empty) => empty.insert(Dir { inode: tree::directory(tx, fid)?, changed: false }),
        })
    }

    /// A directory as it is now.
    pub fn directory(&mut self, tx: &dyn Txn, fid: Fid) -> FsResult<&Inode> {
        Ok(&self.dir(tx, fid)?.inode)
    }

    /// A directory was changed otherwise; this is what it is now.
    pub fn replace(&mut self, tx: &dyn Txn, fid: Fid, inode: Inode) -> FsResult<()> {
        *self.dir(tx, fid)? = Dir { inode, changed: true };
        Ok(())
    }

    /// How many names a directory has.
    pub fn entries(&mut self, tx: &dyn Txn, fid: Fid) -> FsResult<u64> {
        match self.directory(tx, fid)?.body {
            Body::Directory { entries, .. } => Ok(entries),
            _ => Err(FsError::new(FsCode::NotDirectory, format!("{fid} is not a directory"))),
        }
    }

    /// A new inode gets its first name.
    pub fn add(&mut self, tx: &mut dyn Txn, (parent, name): (Fid, &Name), fid: Fid, inode: Inode) -> FsResult<()> {
        let (file_type, now) = (inode.file_type(), inode.ctime);
        if file_type == FileType::Directory {
            self.dirs.insert(fid, Dir { inode, changed: true });
        } else {
            tree::put_inode(tx, fid, &inode);
        }
        self.made += 1;
        changelog::named(tx, (parent, name), (fid, file_type), now)?;
        self.insert(tx, (parent, name), (fid, file_type), now)
    }

    /// What exists gets a name.
    pub fn insert(
        &mut self,
        tx: &mut dyn Txn,
        (parent, name): (Fid, &Name),
        (fid, file_type): (Fid, FileType),
        now: Timestamp,
    ) -> FsResult<()> {
        let dir = self.dir(tx, parent)?;
        dir.changed = true;
        let inode = &mut dir.inode;
        let Body::Directory { entries, next_cookie } = &mut inode.body else {
            return Err(FsError::new(FsCode::NotDirectory, format!("{parent} is not a directory")));
        };
        *entries += 1;
        let cookie = *next_cookie;
        *next_cookie += 1;
        if file_type == FileType::Directory {
            inode.nlink += 1;
        }
        inode.data_changed(now);
        tx.put(Table::Dentries, keys::dentry(parent, name), Dentry { fid, file_type, cookie }.to_bytes());
        let row = IndexEntry { fid, file_type, name: name.clone() };
        tx.put(Table::DirIndex, keys::dirindex(parent, cookie), row.to_bytes());
        tx.put(Table::Parents, keys::parent(fid, parent, name), Vec::new());
        Ok(())
    }

    /// A name goes; what it stood for is the caller's business.
    pub fn remove(
        &mut self,
        tx: &mut dyn Txn,
        (parent, name): (Fid, &Name),
        entry: &Dentry,
        now: Timestamp,
    ) -> FsResult<()> {
        self.settle(tx, parent);
        tree::remove_name(tx, (parent, name), entry, now)?;
        self.dirs.remove(&parent);
        if entry.file_type == FileType::Directory {
            self.settle(tx, entry.fid);
            self.dirs.remove(&entry.fid);
        }
        Ok(())
    }

    fn settle(&mut self, tx: &mut dyn Txn, fid: Fid) {
        if let Some(dir) = self.dirs.get_mut(&fid)
            && std::mem::take(&mut dir.changed)
        {
            tree::put_inode(tx, fid, &dir.inode);
        }
    }

    /// Everything is in the tables.
    pub fn write(&mut self, tx: &mut dyn Txn) -> FsResult<()> {
        for (fid, dir) in &mut self.dirs {
            if std::mem::take(&mut dir.changed) {
                tree::put_inode(tx, *fid, &dir.inode);
            }
        }
        let made = std::mem::take(&mut self.made);
        if made > 0 {
            let count = tree::counter(tx, keys::INODES)?;
            tree::set_counter(tx, keys::INODES, count + made);
        }
        Ok(())
    }
}
