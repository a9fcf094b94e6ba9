//! One name: its rows in `dentries`, `dirindex` and `parents`. What two of the three say is right, the third is written
//! again; a row that stands alone is removed, and so is a name of something that does not exist.

use std::collections::{BTreeMap, BTreeSet};

use sateen_types::{Fid, FileType, FindingKind, FsResult, Name};

use super::draft::Draft;
use super::rows::{Rows, Stored, hex};
use super::{Broken, Facts, Remedy};
use crate::namespace::tree;
use crate::store::codec::Record;
use crate::store::records::{Body, Dentry, IndexEntry, Inode};
use crate::store::{ReadTxn, Table, Txn, keys};

/// A name, and where a row of it was met.
#[derive(Clone, Debug)]
pub struct Place {
    /// Directory.
    pub dir: Fid,
    /// Name.
    pub name: Name,
    /// An index row has it.
    pub cookie: Option<u64>,
    /// A parent row of this file has it.
    pub fid: Option<Fid>,
}

/// Whether all about an entry is as it should be.
pub fn is_sound(tx: &dyn ReadTxn, dir: Fid, name: &Name, entry: &Dentry) -> FsResult<bool> {
    let row = IndexEntry { fid: entry.fid, file_type: entry.file_type, name: name.clone() }.to_bytes();
    let indexed = tx.get(Table::DirIndex, &keys::dirindex(dir, entry.cookie))?.is_some_and(|stored| stored == row);
    let exists = match Stored::<Inode>::read(tx, Table::Inodes, &keys::fid(entry.fid))? {
        Stored::Missing => false,
        Stored::Bad => true,
        Stored::Good(inode) => inode.file_type() == entry.file_type,
    };
    Ok(indexed && exists && tx.get(Table::Parents, &keys::parent(entry.fid, dir, name))?.is_some())
}

/// The rows of a name.
struct Seen {
    stored: Option<Vec<u8>>,
    dentry: Option<Dentry>,
    index: BTreeMap<u64, IndexEntry>,
    parents: BTreeSet<Fid>,
}

impl Seen {
    fn read(tx: &dyn ReadTxn, place: &Place) -> FsResult<Seen> {
        let Place { dir, name, .. } = place;
        let stored = tx.get(Table::Dentries, &keys::dentry(*dir, name))?;
        let dentry = Stored::<Dentry>::of(stored.as_deref()).good();
        let mut index = BTreeMap::new();
        for cookie in dentry.iter().map(|d| d.cookie).chain(place.cookie) {
            let row = Stored::<IndexEntry>::read(tx, Table::DirIndex, &keys::dirindex(*dir, cookie))?.good();
            index.extend(row.filter(|row| row.name == *name).map(|row| (cookie, row)));
        }
        if index.is_empty() {
            // Only where something is missing: the index is in another order.
            let mut rows = Rows::about(tx, Table::DirIndex, *dir);
            while let Some((key, value)) = rows.next()? {
                if let (Ok((_, cookie)), Ok(row)) = (keys::parse_dirindex(&key), IndexEntry::from_bytes(&value))
                    && row.name == *name
                {
                    index.insert(cookie, row);
                }
            }
        }
        let mut parents = BTreeSet::new();
        for fid in dentry.iter().map(|d| d.fid).chain(index.values().map(|row| row.fid)).chain(place.fid) {
            if tx.get(Table::Parents, &keys::parent(fid, *dir, name))?.is_some() {
                parents.insert(fid);
            }
        }
        Ok(Seen { stored, dentry, index, parents })
    }

    fn is_empty(&self) -> bool {
        self.stored.is_none() && self.index.is_empty() && self.parents.is_empty()
    }

    fn fids(&self) -> BTreeSet<Fid> {
        let entries = self.dentry.iter().map(|d| d.fid);
        entries.chain(self.index.values().map(|row| row.fid)).chain(self.parents.iter().copied()).collect()
    }

    /// How many of the three rows say that the name stands for `fid`; the entry decides between two.
    fn votes(&self, fid: Fid) -> (u8, bool) {
        let entry = self.dentry.as_ref().is_some_and(|d| d.fid == fid);
        let index = self.index.values().any(|row| row.fid == fid);
        (u8::from(entry) + u8::from(index) + u8::from(self.parents.contains(&fid)), entry)
    }

    /// What the name stands for, by two of three rows, there or not.
    fn holder(&self) -> Option<Fid> {
        self.fids().into_iter().filter(|fid| self.votes(*fid).0 >= 2).max_by_key(|fid| self.votes(*fid))
    }

    fn file_type(&self, fid: Fid) -> Option<FileType> {
        let entry = self.dentry.as_ref().filter(|d| d.fid == fid).map(|d| d.file_type);
        entry.or_else(|| self.index.values().find(|row| row.fid == fid).map(|row| row.file_type))
    }

    /// Where the name stands in the directory: where the index has it, else where the entry says if that is free, else
    /// behind everything.
    fn cookie(&self, tx: &dyn ReadTxn, dir: Fid, next: u64) -> FsResult<Option<u64>> {
        let said = self.dentry.as_ref().map(|d| d.cookie);
        if let Some(cookie) = said.filter(|cookie| self.index.contains_key(cookie)) {
            return Ok(Some(cookie));
        }
        if let Some(cookie) = self.index.keys().next() {
            return Ok(Some(*cookie));
        }
        if let Some(cookie) = said.filter(|cookie| (Body::FIRST_COOKIE..next).contains(cookie)) {
            let there = Stored::<IndexEntry>::read(tx, Table::DirIndex, &keys::dirindex(dir, cookie))?;
            if there.good().is_none() {
                return Ok(Some(cookie));
            }
        }
        let mut behind = next;
        let mut rows = Rows::about(tx, Table::DirIndex, dir);
        while let Some((key, _)) = rows.next()? {
            if let Ok((_, cookie)) = keys::parse_dirindex(&key) {
                behind = behind.max(cookie.saturating_add(1));
            }
        }
        Ok((behind < u64::MAX).then_some(behind))
    }

    /// Takes all of its rows away.
    fn remove(&self, tx: &mut dyn Txn, dir: Fid, name: &Name) {
        tx.delete(Table::Dentries, keys::dentry(dir, name));
        self.index.keys().for_each(|cookie| tx.delete(Table::DirIndex, keys::dirindex(dir, *cookie)));
        self.parents.iter().for_each(|fid| tx.delete(Table::Parents, keys::parent(*fid, dir, name)));
    }

    fn as_text(&self) -> String {
        match (&self.stored, self.index.first_key_value(), self.parents.first()) {
            (Some(value), ..) => format!("its entry was {}", hex(value)),
            (None, Some((cookie, row)), _) => format!("its index row {cookie} was {}", hex(&row.to_bytes())),
            (None, None, Some(fid)) => format!("a parent row of {fid} had it"),
            (None, None, None) => String::new(),
        }
    }
}

/// What is wrong with a name, if anything is.
pub fn look(tx: &dyn ReadTxn, facts: &Facts, place: &Place) -> FsResult<Option<Broken>> {
    let Place { dir, name, .. } = place;
    let seen = Seen::read(tx, place)?;
    if seen.is_empty() {
        return Ok(None);
    }
    let directory = Stored::<Inode>::read(tx, Table::Inodes, &keys::fid(*dir))?;
    let found = |what: String, remedy| facts.broken(FindingKind::Name, format!("{name:?} in {dir}: {what}"), remedy);
    let mut draft = Draft::new(tx);
    touch_directory(&mut draft, facts, *dir, &directory);
    let Some(fid) = seen.holder() else {
        seen.remove(draft.tx(), *dir, name);
        let what = format!("only one of its three rows is there, so it is none; {}", seen.as_text());
        return Ok(Some(found(what, Remedy::Mend(draft.finish()?))));
    };
    let inode = Stored::<Inode>::read(tx, Table::Inodes, &keys::fid(fid))?;
    if inode.is_missing() && !has_names(tx, fid)? {
        seen.remove(draft.tx(), *dir, name);
        let what = format!("stands for what does not exist; {}", seen.as_text());
        return Ok(found(what, Remedy::Mend(draft.finish()?)).file(fid));
    }
    let is_directory = match &directory {
        Stored::Good(inode) => inode.is_dir(),
        Stored::Missing | Stored::Bad => true,
    };
    let type_now = inode.good().map(|inode| inode.file_type()).or(seen.file_type(fid));
    let next = match &directory {
        Stored::Good(Inode { body: Body::Directory { next_cookie, .. }, .. }) => *next_cookie,
        _ => Body::FIRST_COOKIE,
    };
    let (Some(file_type), Some(cookie), true) = (type_now, seen.cookie(tx, *dir, next)?, is_directory) else {
        return Ok(
            found(format!("what it is in is no directory, or is full; {}", seen.as_text()), Remedy::Unknown).file(fid)
        );
    };
    let entry = Dentry { fid, file_type, cookie };
    let row = IndexEntry { fid, file_type, name: name.clone() };
    let sound = seen.dentry.as_ref() == Some(&entry)
        && seen.index.iter().eq([(&cookie, &row)])
        && seen.parents.iter().eq([&fid]);
    if sound {
        return Ok(None);
    }
    seen.remove(draft.tx(), *dir, name);
    draft.tx().put(Table::Dentries, keys::dentry(*dir, name), entry.to_bytes());
    draft.tx().put(Table::DirIndex, keys::dirindex(*dir, cookie), row.to_bytes());
    draft.tx().put(Table::Parents, keys::parent(fid, *dir, name), Vec::new());
    let what = format!("its three rows do not agree; two of them, or its inode, say that it is a {file_type:?}");
    Ok(found(what, Remedy::Mend(draft.finish()?)).file(fid))
}

/// Whether something is in a directory, which may have lost its inode ([`super::directory`] makes that again).
fn has_names(tx: &dyn ReadTxn, dir: Fid) -> FsResult<bool> {
    Ok(!tx.scan(Table::Dentries, &keys::fid(dir), None, 1)?.is_empty())
}

/// Every change of names changes the directory: the correction holds only if there was none, and clients see one.
fn touch_directory(draft: &mut Draft<'_>, facts: &Facts, dir: Fid, directory: &Stored<Inode>) {
    match directory {
        Stored::Good(inode) if inode.is_dir() => {
            let mut inode = inode.clone();
            inode.attr_changed(facts.now);
            tree::put_inode(draft.tx(), dir, &inode);
        }
        _ => draft.sees(Table::Inodes, keys::fid(dir)),
    }
}
