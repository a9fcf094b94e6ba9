//! Objects are gone, and with them the names that were made of them: as by root's `rm`, where nothing was changed here.

use sateen_types::repository::{KeyRange, ObjectPath};
use sateen_types::{Fid, FileType, FsResult, HsmFlags, Name, RepositoryId};

use super::import::{Import, Looked, existing, policy, running};
use super::rows::{delete_hsm, file_of_key, known_keys};
use super::{agree, conflict, hsm, links, opened, put_hsm};
use crate::command::Inputs;
use crate::namespace::{changelog, tree, unlink};
use crate::store::records::{Dentry, HsmRecord};
use crate::store::{ReadTxn, Txn};

/// What became of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Went {
    /// It is gone, and so many directories with it.
    Gone,
    /// There is none, or it stays.
    Stays,
    /// It is busy, or what is told of it is old.
    Later,
}

/// What to look at of a comparison: known objects that a listing does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Their keys, in order.
    pub keys: Vec<Vec<u8>>,
    /// Where to go on; `None`: there are no more.
    pub after: Option<Vec<u8>>,
}

/// Known objects in a range that are not among `listed`, which are in order; at most `limit` are looked at.
pub fn missing(
    tx: &dyn ReadTxn,
    id: RepositoryId,
    range: &KeyRange,
    listed: &[Vec<u8>],
    limit: usize,
) -> FsResult<Missing> {
    let known = known_keys(tx, id, &range.after, limit)?;
    let full = known.len() == limit;
    let last = known.last().map(|(key, _)| key.clone()).filter(|key| full && range.has(key));
    let keys = known.into_iter().map(|(key, _)| key).filter(|key| range.has(key) && listed.binary_search(key).is_err());
    Ok(Missing { keys: keys.collect(), after: last })
}

/// Objects are gone that the comparison `run` did not find. Gives the keys whose names went, and how many.
pub fn compared(
    tx: &mut dyn Txn,
    (id, run): (RepositoryId, u64),
    keys: &[Vec<u8>],
    looked: Looked,
    inputs: &Inputs,
) -> FsResult<Vec<Vec<u8>>> {
    let record = running(tx, id, run)?;
    let mut import = Import::new(tx, (id, &record), policy(&record), looked, inputs);
    let mut went = Vec::new();
    for key in keys {
        if import.gone(key)? == Went::Gone {
            went.push(key.clone());
        }
    }
    import.finish()?;
    Ok(went)
}

/// Files that may go with these objects.
pub fn victims(tx: &dyn ReadTxn, id: RepositoryId, keys: &[Vec<u8>]) -> FsResult<Vec<Fid>> {
    if links::find(tx, id)?.is_none() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for key in keys.iter().filter(|key| !key.ends_with(b"/")) {
        if let Some(fid) = file_of_key(tx, id, key)?
            && tree::find_inode(tx, fid)?.is_some_and(|inode| inode.is_regular())
        {
            found.push(fid);
        }
    }
    Ok(found)
}

impl Import<'_> {
    /// Nothing is under the key.
    pub fn gone(&mut self, key: &[u8]) -> FsResult<Went> {
        if self.inputs.left.contains(key) {
            return Ok(Went::Later);
        }
        let Ok(path) = ObjectPath::parse(key) else { return Ok(Went::Stays) };
        let Some(fid) = file_of_key(self.tx, self.id, key)? else { return self.further_gone(&path, key) };
        let Some(row) = hsm(self.tx, fid)? else { return Ok(Went::Stays) };
        if row.stamp > self.looked.stamp {
            return Ok(Went::Later);
        }
        if !self.policy.deleted {
            return Ok(Went::Stays);
        }
        let mut dirs = Vec::new();
        let entry = existing(self.tx, self.record.root, &path, &mut |dir| dirs.push(dir))?;
        let Some(entry) = entry.filter(|entry| entry.fid == fid) else {
            // It has another name now, which is as good as another file.
            self.lost(fid, row)?;
            return Ok(Went::Stays);
        };
        if entry.file_type == FileType::Directory {
            if self.names.entries(self.tx, fid)? > 0 {
                // It goes with the last of its names.
                self.lost(fid, row)?;
                return Ok(Went::Stays);
            }
            self.remove_directory(&path.names, &dirs, &entry)?;
            return Ok(Went::Gone);
        }
        if opened::is_changed(self.tx, fid, &row)? {
            if self.inputs.open.contains(&fid) {
                // What becomes of it is known when it is closed.
                return Ok(Went::Later);
            }
            if !conflict::changed_and_gone(self, fid, &row)? {
                return Ok(Went::Stays);
            }
        }
        if self.inputs.open.contains(&fid) {
            return Ok(Went::Later);
        }
        self.remove_file(&path.names, &dirs, &entry, row)?;
        Ok(Went::Gone)
    }

    /// Nothing is under the key of a further name of a file.
    fn further_gone(&mut self, path: &ObjectPath, key: &[u8]) -> FsResult<Went> {
        let Some(fid) = agree::further_owner(self.tx, self.id, key)? else { return Ok(Went::Stays) };
        if !self.policy.deleted {
            return Ok(Went::Stays);
        }
        let mut dirs = Vec::new();
        let entry = existing(self.tx, self.record.root, path, &mut |dir| dirs.push(dir))?;
        let inode = tree::find_inode(self.tx, fid)?;
        // The last name is that of the file: it goes with its own object.
        let (Some(entry), true) = (entry, inode.is_some_and(|inode| inode.nlink > 1)) else { return Ok(Went::Stays) };
        if entry.fid != fid || agree::waits(self.tx, fid)? {
            return Ok(if entry.fid == fid { Went::Later } else { Went::Stays });
        }
        agree::forget_further(self.tx, fid, self.id, key)?;
        let (Some(name), Some(parent)) = (path.names.last(), dirs.last()) else { return Ok(Went::Stays) };
        changelog::unnamed(self.tx, (*parent, name), self.inputs.now)?;
        self.names.remove(self.tx, (*parent, name), &entry, self.inputs.now)?;
        let mut inode = tree::named_inode(self.tx, &entry)?;
        inode.nlink -= 1;
        inode.attr_changed(self.inputs.now);
        tree::put_inode(self.tx, fid, &inode);
        self.remove_empty(&path.names[..path.names.len() - 1], &dirs)?;
        Ok(Went::Gone)
    }

    fn lost(&mut self, fid: Fid, row: HsmRecord) -> FsResult<()> {
        if row.flags.has(HsmFlags::LOST) {
            return Ok(());
        }
        let flags = row.flags.set(HsmFlags::LOST, true);
        put_hsm(self.tx, fid, &HsmRecord { flags, stamp: self.looked.heard, ..row })
    }

    fn remove_file(&mut self, names: &[Name], dirs: &[Fid], entry: &Dentry, row: HsmRecord) -> FsResult<()> {
        let (Some(name), Some(parent), fid) = (names.last(), dirs.last(), entry.fid) else { return Ok(()) };
        agree::end_conflict(self.tx, self.id, &row.key)?;
        delete_hsm(self.tx, fid)?;
        changelog::unnamed(self.tx, (*parent, name), self.inputs.now)?;
        self.names.remove(self.tx, (*parent, name), entry, self.inputs.now)?;
        let mut inode = tree::named_inode(self.tx, entry)?;
        inode.nlink = inode.nlink.saturating_sub(1);
        if inode.nlink == 0 {
            unlink::destroy(self.tx, fid)?;
        } else {
            inode.attr_changed(self.inputs.now);
            tree::put_inode(self.tx, fid, &inode);
            // Other names have it still; what is not loaded is nowhere any more.
            let flags = row.flags.set(HsmFlags::EXISTS | HsmFlags::ARCHIVED, false).set(HsmFlags::LOST, true);
            put_hsm(self.tx, fid, &HsmRecord { flags, stamp: self.looked.heard, ..row })?;
        }
        self.remove_empty(&names[..names.len() - 1], dirs)
    }

    fn remove_directory(&mut self, names: &[Name], dirs: &[Fid], entry: &Dentry) -> FsResult<()> {
        let (Some(name), Some(parent)) = (names.last(), dirs.last()) else { return Ok(()) };
        changelog::unnamed(self.tx, (*parent, name), self.inputs.now)?;
        self.names.remove(self.tx, (*parent, name), entry, self.inputs.now)?;
        self.dirs.remove(&(*parent, name.clone()));
        self.templates.remove(&entry.fid);
        unlink::destroy(self.tx, entry.fid)?;
        self.remove_empty(&names[..names.len() - 1], dirs)
    }

    /// The last of these directories goes, too, if its object is gone and nothing is left in it.
    fn remove_empty(&mut self, names: &[Name], dirs: &[Fid]) -> FsResult<()> {
        let (Some((name, _)), Some((dir, above))) = (names.split_last(), dirs.split_last()) else { return Ok(()) };
        let Some(parent) = above.last() else { return Ok(()) };
        let object_is_gone = hsm(self.tx, *dir)?
            .is_some_and(|row| row.repository == self.id && row.flags.has(HsmFlags::LOST) && row.key.ends_with(b"/"));
        if !object_is_gone || self.names.entries(self.tx, *dir)? > 0 {
            return Ok(());
        }
        match tree::entry(self.tx, *parent, name)? {
            Some(entry) if entry.fid == *dir => self.remove_directory(names, above, &entry),
            _ => Ok(()),
        }
    }
}
