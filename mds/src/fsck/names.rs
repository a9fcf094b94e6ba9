//! Pass 1: `inodes`, `dentries` and `dirindex`, merged in the order of directories. What only a row of `parents` says is
//! met in pass 2.

use sateen_types::{Fid, FsResult};

use super::directory::{self, Count};
use super::name::{self, Place};
use super::rows::{Stored, first_group};
use super::{Check, name::is_sound};
use crate::store::codec::Record;
use crate::store::records::{Dentry, IndexEntry, Inode};
use crate::store::{ReadTxn, Row, Table, keys};

/// See the module.
pub fn walk(check: &mut Check<'_, '_>) -> FsResult<()> {
    let view = check.job.store.snapshot();
    let view = &*view;
    let mut inodes = check.rows(view, Table::Inodes);
    let mut entries = check.rows(view, Table::Dentries);
    let mut index = check.rows(view, Table::DirIndex);
    while let Some(group) = first_group(&mut [&mut inodes, &mut entries, &mut index])? {
        let mut inode = None;
        while let Some((key, value)) = inodes.take(&group)? {
            // Keys that are too long are told in pass 2.
            inode = inode.or((key == group).then_some(value));
        }
        let mut names = Names { dir: keys::parse_fid(&group).ok(), count: Count::default(), doubtful: false };
        while let Some(row) = entries.take(&group)? {
            names.entry(check, view, row)?;
        }
        while let Some(row) = index.take(&group)? {
            names.index(check, view, row)?;
        }
        names.end(check, &Stored::of(inode.as_deref()))?;
    }
    let there = view.get(Table::Inodes, &keys::fid(Fid::ROOT))?.is_some();
    if !there {
        check.settle(|tx, facts| directory::look(tx, facts, Fid::ROOT))?;
    }
    Ok(())
}

/// The names of one directory.
struct Names {
    /// `None`: the rows have no whole FID.
    dir: Option<Fid>,
    count: Count,
    /// Something was wrong, and may have been made right.
    doubtful: bool,
}

impl Names {
    fn entry(&mut self, check: &mut Check<'_, '_>, view: &dyn ReadTxn, (key, value): Row) -> FsResult<()> {
        check.report.count(|tally| tally.names += 1);
        check.report.step(0)?;
        let (Some(dir), Ok((_, name))) = (self.dir, keys::parse_dentry(&key)) else {
            return check.unusable(Table::Dentries, &key, "it has no directory or no name", false);
        };
        let entry = Dentry::from_bytes(&value).ok();
        self.count.entry(entry.as_ref());
        let sound = match &entry {
            Some(entry) => is_sound(view, dir, &name, entry)?,
            None => false,
        };
        if !sound {
            let place = Place { dir, name, cookie: None, fid: None };
            self.doubtful |= check.settle(|tx, facts| name::look(tx, facts, &place))?;
        }
        Ok(())
    }

    fn index(&mut self, check: &mut Check<'_, '_>, view: &dyn ReadTxn, (key, value): Row) -> FsResult<()> {
        check.report.step(0)?;
        let (Some(dir), Ok((_, cookie))) = (self.dir, keys::parse_dirindex(&key)) else {
            return check.unusable(Table::DirIndex, &key, "it has no directory or no cookie", true);
        };
        let Ok(IndexEntry { fid, file_type, name }) = IndexEntry::from_bytes(&value) else {
            // If an entry refers to it, it was written again with that.
            self.doubtful = true;
            let is_bad =
                |tx: &dyn ReadTxn| Stored::<IndexEntry>::read(tx, Table::DirIndex, &key).map(|s| s == Stored::Bad);
            return check
                .settle(|tx, facts| {
                    if is_bad(tx)? {
                        super::rows::unusable(tx, facts, Table::DirIndex, &key, "it does not decode", true)
                    } else {
                        Ok(None)
                    }
                })
                .map(drop);
        };
        self.count.cookie(cookie);
        let entry = Stored::<Dentry>::read(view, Table::Dentries, &keys::dentry(dir, &name))?.good();
        if entry != Some(Dentry { fid, file_type, cookie }) {
            let place = Place { dir, name, cookie: Some(cookie), fid: None };
            self.doubtful |= check.settle(|tx, facts| name::look(tx, facts, &place))?;
        }
        Ok(())
    }

    fn end(&self, check: &mut Check<'_, '_>, inode: &Stored<Inode>) -> FsResult<()> {
        let Some(dir) = self.dir else { return Ok(()) };
        if self.doubtful || !self.count.agrees(inode) {
            check.settle(|tx, facts| directory::look(tx, facts, dir))?;
        }
        Ok(())
    }
}
