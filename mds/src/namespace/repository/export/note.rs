//! What a change means for repositories, noted in the transaction of the change: a file that is to be looked at, a tree, a key that
//! is to be deleted. It is found from the rows that the change has written, so no operation has to know of it. And what is remembered
//! of links so that changes that mean nothing for them cost nothing.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use sateen_types::op::Mutation;
use sateen_types::repository::RepositoryEvents;
use sateen_types::{Fid, FsCode, FsResult, RepositoryId, Timestamp};

use super::super::{hsm, links, put_hsm};
use super::{DEPTH_MAX, FURTHER_MAX, objects, queue};
use crate::command::{Command, Inputs};
use crate::namespace::tree;
use crate::store::codec::Record;
use crate::store::records::{HsmRecord, Inode, RepositoryRecord};
use crate::store::{Overlay, ReadTxn, Table, Txn, keys};

/// Directories of which is remembered below which link they are. Each takes 50 bytes.
const DIRS_MAX: usize = 65_536;

/// Which directories links depend on, and which lie below links that export. Everything in it can be found in the tables again, and is
/// forgotten when links change.
#[derive(Debug, Default)]
pub struct Exporting {
    /// Some link exports, or something of exports is in the tables.
    active: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Directories of links that export; `None`: to be read again.
    roots: Option<Vec<(Fid, RepositoryId)>>,
    dirs: HashMap<Fid, Option<RepositoryId>>,
    /// Directories that links depend on, see [`links::on_path`]; `None`: to be read again. None of them moves while there is the link.
    on_paths: Option<HashSet<Fid>>,
}

impl Exporting {
    /// With what is in the tables.
    pub fn new(tx: &dyn ReadTxn) -> FsResult<Exporting> {
        let exporting = Exporting::default();
        exporting.links_changed(tx)?;
        Ok(exporting)
    }

    /// Whether any change has to be looked at.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// Links were made, changed or ended, or something waits that did not.
    pub fn links_changed(&self, tx: &dyn ReadTxn) -> FsResult<()> {
        let exports = |r: &RepositoryRecord| r.settings.auto_export != RepositoryEvents::default();
        let any = links::all(tx)?.iter().any(|(_, record)| exports(record))
            || !tx.scan(Table::Exports, &[], None, 1)?.is_empty();
        if any {
            self.active.store(true, Ordering::Release);
        }
        *self.known.lock() = Known::default();
        Ok(())
    }

    /// Directories have moved.
    fn forget_dirs(&self) {
        self.known.lock().dirs.clear();
    }

    /// Whether a link may depend on a directory: `false` if none does.
    pub fn may_be_on_path(&self, tx: &dyn ReadTxn, dir: Fid) -> FsResult<bool> {
        let mut known = self.known.lock();
        let on_paths = match &mut known.on_paths {
            Some(on_paths) => on_paths,
            empty => {
                let mut found = HashSet::new();
                for (_, link) in links::all(tx)? {
                    found.extend(links::on_path(tx, &link)?);
                }
                empty.insert(found)
            }
        };
        Ok(on_paths.contains(&dir))
    }

    /// The link that exports below which a directory lies, or whose directory it is.
    pub fn link_of(&self, tx: &dyn ReadTxn, dir: Fid) -> FsResult<Option<RepositoryId>> {
        let mut known = self.known.lock();
        let known = &mut *known;
        let roots = match &mut known.roots {
            Some(roots) => roots,
            empty => {
                let exports = links::all(tx)?.into_iter();
                let exports = exports.filter(|(_, r)| r.settings.auto_export != RepositoryEvents::default());
                empty.insert(exports.map(|(id, r)| (r.root, id)).collect())
            }
        };
        if roots.is_empty() {
            return Ok(None);
        }
        let (mut at, mut seen) = (dir, Vec::new());
        let found = loop {
            if let Some((_, id)) = roots.iter().find(|(root, _)| *root == at) {
                break Some(*id);
            }
            if let Some(found) = known.dirs.get(&at) {
                break *found;
            }
            if at == Fid::ROOT || seen.len() >= DEPTH_MAX {
                break None;
            }
            seen.push(at);
            at = match tree::parent_of(tx, at) {
                Ok(parent) => parent,
                // It is gone: with its name went everything below it.
                Err(e) if e.code == FsCode::NotFound => return Ok(None),
                Err(e) => return Err(e),
            };
        };
        if known.dirs.len() + seen.len() > DIRS_MAX {
            known.dirs.clear();
        }
        known.dirs.extend(seen.into_iter().take(DIRS_MAX).map(|dir| (dir, found)));
        Ok(found)
    }
}

/// Whether what a command changes goes to repositories. What comes from them does not.
pub fn follows(command: &Command) -> bool {
    matches!(command, Command::Mutate(_) | Command::DropOrphan { .. })
}

/// Notes what a command means that has changed `before` to `tx`.
pub fn note(before: &dyn ReadTxn, tx: &mut Overlay<'_>, command: &Command, inputs: &Inputs) -> FsResult<()> {
    let names = tx.changes().of(Table::Parents).map(|(key, _)| keys::parse_parent(key));
    let names = names.collect::<FsResult<Vec<_>>>()?;
    let inodes = tx.changes().of(Table::Inodes).map(|(key, value)| {
        let inode = value.map(Inode::from_bytes).transpose()?;
        Ok((keys::parse_fid(key)?, inode))
    });
    let inodes = inodes.collect::<FsResult<Vec<(Fid, Option<Inode>)>>>()?;
    let now = inputs.now;
    let mut named = Vec::with_capacity(names.len());
    for (fid, parent, _) in names {
        // Of what is gone is known below what it stored.
        let Some(inode) = tree::find_inode(tx, fid)? else { continue };
        let moved = inode.is_dir() && tree::find_inode(before, fid)?.is_some();
        if moved {
            inputs.exporting.forget_dirs();
        }
        named.push((fid, parent, moved));
    }
    for (fid, parent, moved) in named {
        let found = inputs.exporting.link_of(tx, parent)?;
        let Some(id) = found.map_or_else(|| queue::tree_above(tx, parent), |id| Ok(Some(id)))? else { continue };
        match moved {
            true => queue::note_tree(tx, fid, id, false, now)?,
            false => queue::note_file(tx, fid, id, false, now)?,
        }
    }
    let op = match command {
        Command::Mutate(request) => Some(&request.op),
        _ => None,
    };
    for (fid, inode) in inodes {
        let Some(old) = tree::find_inode(before, fid)? else { continue };
        match inode {
            None => gone(before, tx, fid, now)?,
            Some(new) => changed(tx, (fid, &old, &new), op, inputs)?,
        }
    }
    Ok(())
}

/// Data or attributes of a file may have changed.
fn changed(
    tx: &mut dyn Txn,
    (fid, old, new): (Fid, &Inode, &Inode),
    op: Option<&Mutation>,
    inputs: &Inputs,
) -> FsResult<()> {
    let attributes = |inode: &Inode| (inode.mode, inode.uid, inode.gid);
    let attributes_changed = attributes(old) != attributes(new);
    let data_changed = match op {
        Some(Mutation::WriteDone(op)) => op.fid == fid,
        Some(Mutation::SetAttr(op)) => op.fid == fid && op.size.is_some(),
        _ => false,
    };
    if attributes_changed && let Some(row) = hsm(tx, fid)?.filter(|row| !row.attributes_changed) {
        put_hsm(tx, fid, &HsmRecord { attributes_changed, ..row })?;
    }
    if !attributes_changed && !data_changed || queue::waiting(tx, fid)?.is_some() {
        return Ok(());
    }
    for (key, _) in tx.scan(Table::Parents, &keys::fid(fid), None, FURTHER_MAX)? {
        let (_, parent, _) = keys::parse_parent(&key)?;
        if let Some(id) = inputs.exporting.link_of(tx, parent)? {
            return queue::note_file(tx, fid, id, false, inputs.now);
        }
    }
    Ok(())
}

/// The inode is gone: nothing waits of it, and no object is a further name of it.
pub fn destroyed(tx: &mut dyn Txn, fid: Fid) -> FsResult<()> {
    objects::forget_file(tx, fid)?;
    queue::forget_tree(tx, fid)?;
    for (id, key, _) in queue::further_of(tx, fid)? {
        queue::forget_further(tx, fid, id, &key)?;
    }
    Ok(())
}

/// An inode is gone: so are its objects, where that is carried over.
fn gone(before: &dyn ReadTxn, tx: &mut dyn Txn, fid: Fid, now: Timestamp) -> FsResult<()> {
    let row = hsm(before, fid)?.map(|row| (row.repository, row.key, row.etag));
    let further = queue::further_of(before, fid)?.into_iter().map(|(id, key, further)| (id, key, further.etag));
    for (id, key, etag) in row.into_iter().chain(further) {
        objects::unwanted(tx, fid, (id, &key), Some(&etag), now)?;
    }
    // What may have been stored without anybody having heard.
    for (id, key) in queue::waiting(before, fid)?.into_iter().flat_map(|waited| waited.keys) {
        objects::unwanted(tx, fid, (id, &key), None, now)?;
    }
    Ok(())
}
