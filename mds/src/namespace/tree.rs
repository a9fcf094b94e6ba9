//! Typed access to the tables, and the steps that keep their rows in agreement: a name is three rows (dentry, index,
//! parent) and a count in its directory. Every operation goes through here; [`super::check`] verifies the result.

use sateen_types::{Fid, FileType, FsCode, FsError, FsResult, Name, Timestamp};

use crate::store::codec::Record;
use crate::store::records::{Body, Counter, Dentry, IndexEntry, Inode};
use crate::store::{ReadTxn, Table, Txn, keys};

fn internal(message: String) -> FsError {
    FsError::new(FsCode::Internal, message).with_hint("the metadata is inconsistent: report it with the MDS log")
}

/// An inode; `Stale` if there is none.
pub fn inode(tx: &dyn ReadTxn, fid: Fid) -> FsResult<Inode> {
    find_inode(tx, fid)?.ok_or_else(|| FsError::new(FsCode::Stale, format!("{fid} does not exist any more")))
}

/// An inode, if there is one.
pub fn find_inode(tx: &dyn ReadTxn, fid: Fid) -> FsResult<Option<Inode>> {
    tx.get(Table::Inodes, &keys::fid(fid))?.map(|v| Inode::from_bytes(&v)).transpose()
}

/// Inodes, in the order of `fids`.
pub fn find_inodes(tx: &dyn ReadTxn, fids: &[Fid]) -> FsResult<Vec<Option<Inode>>> {
    let keys: Vec<Vec<u8>> = fids.iter().map(|fid| keys::fid(*fid)).collect();
    let values = tx.get_many(Table::Inodes, &keys)?;
    values.into_iter().map(|value| value.map(|v| Inode::from_bytes(&v)).transpose()).collect()
}

/// The inode behind a name that exists.
pub fn named_inode(tx: &dyn ReadTxn, entry: &Dentry) -> FsResult<Inode> {
    find_inode(tx, entry.fid)?.ok_or_else(|| internal(format!("a name stands for {}, which has no inode", entry.fid)))
}

/// A directory in which a name is looked up: `NotFound` if it is gone, `NotDirectory` if it is none.
pub fn directory(tx: &dyn ReadTxn, fid: Fid) -> FsResult<Inode> {
    let inode = find_inode(tx, fid)?
        .ok_or_else(|| FsError::new(FsCode::NotFound, format!("directory {fid} does not exist any more")))?;
    if !inode.is_dir() {
        return Err(FsError::new(FsCode::NotDirectory, format!("{fid} is not a directory")));
    }
    Ok(inode)
}

/// Stores an inode.
pub fn put_inode(tx: &mut dyn Txn, fid: Fid, inode: &Inode) {
    tx.put(Table::Inodes, keys::fid(fid), inode.to_bytes());
}

/// What a name stands for.
pub fn entry(tx: &dyn ReadTxn, parent: Fid, name: &Name) -> FsResult<Option<Dentry>> {
    tx.get(Table::Dentries, &keys::dentry(parent, name))?.map(|v| Dentry::from_bytes(&v)).transpose()
}

/// [`entry`], or `NotFound`.
pub fn existing_entry(tx: &dyn ReadTxn, parent: Fid, name: &Name) -> FsResult<Dentry> {
    entry(tx, parent, name)?.ok_or_else(|| missing(parent, name))
}

/// Nothing has the name.
pub fn missing(parent: Fid, name: &Name) -> FsError {
    FsError::new(FsCode::NotFound, format!("there is no {name:?} in directory {parent}"))
}

/// The name is taken.
pub fn taken(parent: Fid, name: &Name) -> FsError {
    FsError::new(FsCode::Exists, format!("{name:?} exists in directory {parent}"))
}

/// The directory a directory is in; the root is in itself.
pub fn parent_of(tx: &dyn ReadTxn, dir: Fid) -> FsResult<Fid> {
    if dir == Fid::ROOT {
        return Ok(Fid::ROOT);
    }
    let rows = tx.scan(Table::Parents, &keys::fid(dir), None, 1)?;
    match rows.first() {
        Some((key, _)) => Ok(keys::parse_parent(key)?.1),
        None => Err(FsError::new(FsCode::NotFound, format!("directory {dir} does not exist any more"))),
    }
}

/// A counter of the `config` table; 0 if it was never set.
pub fn counter(tx: &dyn ReadTxn, key: &[u8]) -> FsResult<u64> {
    Ok(tx.get(Table::Config, key)?.map(|v| Counter::from_bytes(&v)).transpose()?.map_or(0, |c| c.0))
}

/// Sets a counter.
pub fn set_counter(tx: &mut dyn Txn, key: &[u8], value: u64) {
    tx.put(Table::Config, key.to_vec(), Counter(value).to_bytes());
}

impl Inode {
    /// Data (of a directory: its names) changed.
    pub fn data_changed(&mut self, now: Timestamp) {
        self.mtime = now;
        self.attr_changed(now);
    }

    /// Attributes changed.
    pub fn attr_changed(&mut self, now: Timestamp) {
        self.ctime = now;
        self.change += 1;
    }
}

/// Adds a new inode.
pub fn add_inode(tx: &mut dyn Txn, fid: Fid, inode: &Inode) -> FsResult<()> {
    debug_assert!(find_inode(tx, fid)?.is_none(), "{fid} is used twice");
    put_inode(tx, fid, inode);
    let count = counter(tx, keys::INODES)?;
    set_counter(tx, keys::INODES, count + 1);
    Ok(())
}

/// Gives `fid` the name `name` in `parent`. `cookie` keeps a position the name already had.
pub fn insert_name(
    tx: &mut dyn Txn,
    (parent, name): (Fid, &Name),
    (fid, file_type): (Fid, FileType),
    cookie: Option<u64>,
    now: Timestamp,
) -> FsResult<()> {
    let mut dir = directory(tx, parent)?;
    let Body::Directory { entries, next_cookie } = &mut dir.body else {
        return Err(internal(format!("{parent} is not a directory")));
    };
    *entries += 1;
    let cookie = cookie.unwrap_or_else(|| {
        *next_cookie += 1;
        *next_cookie - 1
    });
    if file_type == FileType::Directory {
        dir.nlink += 1;
    }
    dir.data_changed(now);
    put_inode(tx, parent, &dir);
    tx.put(Table::Dentries, keys::dentry(parent, name), Dentry { fid, file_type, cookie }.to_bytes());
    let row = IndexEntry { fid, file_type, name: name.clone() };
    tx.put(Table::DirIndex, keys::dirindex(parent, cookie), row.to_bytes());
    tx.put(Table::Parents, keys::parent(fid, parent, name), Vec::new());
    Ok(())
}

/// Takes the name away again. The inode is the caller's business.
pub fn remove_name(tx: &mut dyn Txn, (parent, name): (Fid, &Name), entry: &Dentry, now: Timestamp) -> FsResult<()> {
    let mut dir = directory(tx, parent)?;
    let Body::Directory { entries, .. } = &mut dir.body else {
        return Err(internal(format!("{parent} is not a directory")));
    };
    *entries = entries.checked_sub(1).ok_or_else(|| internal(format!("{parent} has more names than it counted")))?;
    if entry.file_type == FileType::Directory {
        dir.nlink = dir.nlink.saturating_sub(1);
    }
    dir.data_changed(now);
    put_inode(tx, parent, &dir);
    tx.delete(Table::Dentries, keys::dentry(parent, name));
    tx.delete(Table::DirIndex, keys::dirindex(parent, entry.cookie));
    tx.delete(Table::Parents, keys::parent(entry.fid, parent, name));
    Ok(())
}
