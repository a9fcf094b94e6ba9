//! What is to be done for a file that waits, from what is there now: its names below links are the keys it shall be under, its row
//! in `hsm` and those of further names are the objects that are known. Nothing is changed here.

use sateen_types::limits::{EXPORT_BYTES_MAX, KEY_BYTES_MAX};
use sateen_types::repository::{ConflictPolicy, CopySource, Export, RepositoryEvents, RepositoryState, Skipped};
use sateen_types::{Fid, FileType, FsResult, HsmFlags, RepositoryId, RepositorySettings};

use super::super::{hsm, links, loads, rules};
use super::objects::{self, owner};
use super::{DEPTH_MAX, FURTHER_MAX, queue};
use crate::namespace::tree;
use crate::store::records::{Body, FurtherRecord, HsmRecord, Inode, RepositoryRecord, WaitingRecord};
use crate::store::{ReadTxn, Table, keys};

/// FSx's log codes of what is not exported.
pub mod skip_code {
    /// The key is longer than 1,024 bytes, or no UTF-8.
    pub const PATH: &str = "S3ExportPathSizeTooLong";
    /// The file is larger than 5 TiB.
    pub const SIZE: &str = "S3ExportFileSizeTooLarge";
    /// A pipe, socket or device. (Not one of FSx's.)
    pub const SPECIAL: &str = "S3ExportSpecialFile";
    /// A name that is no UTF-8. (Not one of FSx's.)
    pub const NAME: &str = "S3ExportNameNotUtf8";
    /// More hard links than are followed. (Not one of FSx's.)
    pub const LINKS: &str = "S3ExportTooManyLinks";
}

/// How a file is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Objects may be copied. Not after a source of a copy was not there any more.
    pub copy: bool,
    /// Others whose data is in an object that would be replaced may still move it.
    pub patient: bool,
}

/// An object that is to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Under which link.
    pub id: RepositoryId,
    /// Its settings.
    pub settings: RepositorySettings,
    /// What and how.
    pub export: Export,
    /// Version of the file.
    pub change: u64,
    /// ETag in its row in `hsm`; empty: it has none.
    pub of: String,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// The file does not wait.
    Gone,
    /// Everything is stored: objects that are not wanted go, and the file waits no longer.
    Settle,
    /// One object is to be stored.
    Store(Box<Store>),
    /// Something may have been put under this key of which nothing was heard: that is to be found out first.
    Look(RepositoryId, Vec<u8>),
    /// A conflict was decided, and that is to be carried out.
    Decided(RepositoryId, Vec<u8>),
    /// It cannot be stored as it is; the link, and why.
    Skip(RepositoryId, Skipped),
    /// What is left is to be done for this link, which cannot be used now.
    Blocked(RepositoryId),
    /// The object that would be replaced has the data of this file, which waits to be copied elsewhere.
    Behind(Fid),
    /// The data of this file is in an object that is to go: it must be loaded in full first.
    Load(Fid),
    /// It has no name any more, and somebody reads it from its object.
    Unnamed,
}

/// Keys that a file shall be under, in the order of its names.
#[derive(Debug, Default)]
pub struct Wanted {
    /// With their links.
    pub keys: Vec<(RepositoryId, Vec<u8>)>,
    /// The first name that is no key.
    pub bad: Option<(RepositoryId, Skipped)>,
}

impl Wanted {
    /// Whether the object is one of them.
    pub fn has(&self, id: RepositoryId, key: &[u8]) -> bool {
        self.keys.iter().any(|(i, k)| *i == id && k == key)
    }
}

/// The link of a directory or of something below it, and the key without the last name: empty, or with a slash at its end.
pub fn below(
    tx: &dyn ReadTxn,
    all: &[(RepositoryId, RepositoryRecord)],
    dir: Fid,
) -> FsResult<Option<(RepositoryId, Vec<u8>)>> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut at = dir;
    for _ in 0..DEPTH_MAX {
        if let Some((id, _)) = all.iter().find(|(_, record)| record.root == at) {
            let mut key = Vec::new();
            for name in names.iter().rev() {
                key.extend(name);
                key.push(b'/');
            }
            return Ok(Some((*id, key)));
        }
        if at == Fid::ROOT {
            break;
        }
        let rows = tx.scan(Table::Parents, &keys::fid(at), None, 1)?;
        // Without a name it lies nowhere.
        let Some((key, _)) = rows.first() else { break };
        let (_, parent, name) = keys::parse_parent(key)?;
        names.push(name.as_bytes().to_vec());
        at = parent;
    }
    Ok(None)
}

/// See [`Wanted`]. Of more than [`FURTHER_MAX`] names those that come first count.
pub fn wanted(tx: &dyn ReadTxn, all: &[(RepositoryId, RepositoryRecord)], fid: Fid, inode: &Inode) -> FsResult<Wanted> {
    let mut wanted = Wanted::default();
    let rows = tx.scan(Table::Parents, &keys::fid(fid), None, FURTHER_MAX + 1)?;
    let more = rows.len() > FURTHER_MAX;
    for (row, _) in rows.into_iter().take(FURTHER_MAX) {
        let (_, parent, name) = keys::parse_parent(&row)?;
        let Some((id, mut key)) = below(tx, all, parent)? else { continue };
        key.extend(name.as_bytes());
        if inode.is_dir() {
            key.push(b'/');
        }
        let prefix = all.iter().find(|(i, _)| *i == id).map_or(0, |(_, r)| r.settings.url.prefix().len());
        let bad = match inode.file_type() {
            _ if std::str::from_utf8(&key).is_err() => Some((skip_code::NAME, "its path is not UTF-8".to_owned())),
            _ if prefix + key.len() > KEY_BYTES_MAX => {
                let what = format!("its key has {} bytes, at most {KEY_BYTES_MAX}", prefix + key.len());
                Some((skip_code::PATH, what))
            }
            FileType::Regular if inode.size > EXPORT_BYTES_MAX => {
                Some((skip_code::SIZE, format!("{} bytes, at most {EXPORT_BYTES_MAX}", inode.size)))
            }
            FileType::Regular | FileType::Directory | FileType::Symlink => None,
            other => Some((skip_code::SPECIAL, format!("a {other:?} is never exported"))),
        };
        match bad {
            None => wanted.keys.push((id, key)),
            Some((code, message)) => {
                let skipped = Skipped { key, code: code.to_owned(), message };
                wanted.bad.get_or_insert((id, skipped));
            }
        }
    }
    if let Some((id, key)) = wanted.keys.first().filter(|_| more) {
        let message = format!("it has more than {FURTHER_MAX} names");
        let skipped = Skipped { key: key.clone(), code: skip_code::LINKS.to_owned(), message };
        wanted.bad.get_or_insert((*id, skipped));
    }
    Ok(wanted)
}

/// What is known of a file that is looked at.
struct Known<'a> {
    fid: Fid,
    inode: &'a Inode,
    waiting: &'a WaitingRecord,
    all: &'a [(RepositoryId, RepositoryRecord)],
    wanted: &'a Wanted,
    hsm: Option<HsmRecord>,
    /// It is never to be archived.
    stays: bool,
    look: Look,
}

/// What is to be done for a file. See the module.
pub fn plan(tx: &dyn ReadTxn, fid: Fid, look: Look) -> FsResult<Plan> {
    match queue::waiting(tx, fid)? {
        Some(waiting) => plan_as(tx, fid, &waiting, look),
        None => Ok(Plan::Gone),
    }
}

/// The same for a file that waits, or would wait, like this.
pub fn plan_as(tx: &dyn ReadTxn, fid: Fid, waiting: &WaitingRecord, look: Look) -> FsResult<Plan> {
    let Some(inode) = tree::find_inode(tx, fid)? else { return Ok(Plan::Settle) };
    let all = links::all(tx)?;
    let wanted = wanted(tx, &all, fid, &inode)?;
    let hsm = hsm(tx, fid)?;
    let stays = rules::stays(tx, fid)?;
    let known = Known { fid, inode: &inode, waiting, all: &all, wanted: &wanted, hsm, stays, look };
    known.plan(tx)
}

impl Known<'_> {
    fn link(&self, id: RepositoryId) -> Option<&RepositoryRecord> {
        self.all.iter().find(|(i, _)| *i == id).map(|(_, record)| record)
    }

    /// The object in `hsm` is one that the file shall be under.
    fn hsm_is_wanted(&self) -> bool {
        self.hsm.as_ref().is_some_and(|row| self.wanted.has(row.repository, &row.key))
    }

    fn plan(&self, tx: &dyn ReadTxn) -> FsResult<Plan> {
        for (id, key) in &self.waiting.keys {
            if let Some(plan) = self.unsettled(tx, *id, key)? {
                return Ok(plan);
            }
        }
        let is_first = |(id, key): &&(RepositoryId, Vec<u8>)| {
            self.hsm.as_ref().is_some_and(|row| row.repository == *id && row.key == *key)
        };
        let (first, others): (Vec<_>, Vec<_>) = self.wanted.keys.iter().partition(is_first);
        let mut blocked = None;
        for (id, key) in first.into_iter().chain(others) {
            match self.key(tx, *id, key)? {
                None => {}
                Some(Plan::Blocked(id)) => blocked = Some(id),
                Some(plan) => return Ok(plan),
            }
        }
        if let Some(id) = blocked {
            return Ok(Plan::Blocked(id));
        }
        // Of an object that is lost there is nothing to be had.
        if let Some(row) = self.hsm.as_ref().filter(|row| !self.hsm_is_wanted() && !row.flags.has(HsmFlags::LOST))
            && let Some(link) = self.link(row.repository).filter(|link| link.settings.auto_export.deleted)
            && loads(tx, self.fid)?.is_some()
        {
            return Ok(match link.state {
                _ if self.inode.nlink == 0 => Plan::Unnamed,
                RepositoryState::Available => Plan::Load(self.fid),
                _ => Plan::Blocked(row.repository),
            });
        }
        let policy = |id: &RepositoryId| self.waiting.forced || self.exports(*id) != RepositoryEvents::default();
        match self.wanted.bad.as_ref().filter(|(id, _)| policy(id) && !self.stays) {
            Some((id, skipped)) => Ok(Plan::Skip(*id, skipped.clone())),
            None => Ok(Plan::Settle),
        }
    }

    /// What may be under a key is to be found out first.
    fn unsettled(&self, tx: &dyn ReadTxn, id: RepositoryId, key: &[u8]) -> FsResult<Option<Plan>> {
        let Some(link) = self.link(id) else { return Ok(None) };
        if !objects::is_unsettled(tx, id, key)? {
            return Ok(None);
        }
        Ok(Some(match link.state {
            RepositoryState::Available => Plan::Look(id, key.to_vec()),
            _ => Plan::Blocked(id),
        }))
    }

    fn exports(&self, id: RepositoryId) -> RepositoryEvents {
        self.link(id).map_or_else(RepositoryEvents::default, |link| link.settings.auto_export)
    }

    /// The object under a key is as the file is.
    fn is_current(&self, further: Option<&FurtherRecord>, is_first: bool) -> bool {
        let Some(row) = &self.hsm else { return false };
        let same_data = !row.flags.has(HsmFlags::DIRTY);
        match further {
            _ if is_first => same_data && !row.attributes_changed,
            Some(f) => {
                let same = (f.mode, f.uid, f.gid) == (self.inode.mode, self.inode.uid, self.inode.gid);
                same && (same_data && f.of == row.etag || f.change == self.inode.change)
            }
            None => false,
        }
    }

    /// What is to be done for one key; `None`: nothing.
    fn key(&self, tx: &dyn ReadTxn, id: RepositoryId, key: &[u8]) -> FsResult<Option<Plan>> {
        let Some(link) = self.link(id) else { return Ok(None) };
        if let Some(plan) = self.unsettled(tx, id, key)? {
            return Ok(Some(plan));
        }
        let is_first = self.hsm.as_ref().is_some_and(|row| row.repository == id && row.key == key);
        let further = if is_first { None } else { queue::further(tx, self.fid, id, key)? };
        let conflict = queue::conflict(tx, id, key)?;
        let overrules = match conflict.as_ref().map(|c| c.how) {
            None => false,
            Some(ConflictPolicy::Manual) => return Ok(None),
            Some(ConflictPolicy::FilesystemWins) => true,
            Some(ConflictPolicy::RepositoryWins | ConflictPolicy::KeepBoth) => {
                return Ok(Some(Plan::Decided(id, key.to_vec())));
            }
        };
        if self.stays {
            return Ok(None);
        }
        if !overrules && self.is_current(further.as_ref(), is_first) {
            return Ok(None);
        }
        let events = link.settings.auto_export;
        let is_known = is_first || further.is_some();
        let renamed = !self.hsm_is_wanted() && self.hsm.as_ref().is_some_and(|row| row.repository == id);
        let allowed = if is_known || renamed { events.changed } else { events.created };
        if !allowed && !overrules && !self.waiting.forced {
            return Ok(None);
        }
        if link.state != RepositoryState::Available {
            return Ok(Some(Plan::Blocked(id)));
        }
        let mut known_etag = objects::known_etag(tx, id, key)?;
        if let Some(other) = owner(tx, id, key)?.filter(|other| *other != self.fid) {
            if let Some(plan) = self.in_the_way(tx, other, id, key)? {
                return Ok(Some(plan));
            }
            if is_lost(tx, other, id, key)? {
                // It takes the key if nothing is there. If the object is there after all, it has what nobody else has.
                known_etag.clear();
            }
        }
        let earlier = objects::record(tx, id, key)?.map(|record| record.earlier).unwrap_or_default();
        let mut overrule_etag = String::new();
        if let Some(conflict) = conflict {
            overrule_etag = conflict.object.map(|found| found.etag).unwrap_or_default();
            known_etag.clone_from(&overrule_etag);
        }
        let (inode, copy) = (self.inode, self.copy_source(id));
        let symlink = match &inode.body {
            Body::Symlink(target) => Some(target.clone()),
            _ => None,
        };
        let export = Export {
            fid: self.fid,
            key: key.to_vec(),
            mode: inode.mode | kind_bits(inode),
            uid: inode.uid,
            gid: inode.gid,
            atime: inode.atime,
            mtime: inode.mtime,
            size: if inode.is_regular() { inode.size } else { 0 },
            symlink,
            known_etag,
            copy,
            earlier,
            overrule_etag,
            may_be_gone: queue::deletion(tx, id, key)?.is_some(),
        };
        let of = self.hsm.as_ref().map(|row| row.etag.clone()).unwrap_or_default();
        let settings = link.settings.clone();
        Ok(Some(Plan::Store(Box::new(Store { id, settings, export, change: inode.change, of }))))
    }

    /// The object of another file would be replaced: what must happen first, so that no data is lost that is in that object only.
    fn in_the_way(&self, tx: &dyn ReadTxn, other: Fid, id: RepositoryId, key: &[u8]) -> FsResult<Option<Plan>> {
        if self.look.patient && queue::waiting(tx, other)?.is_some() {
            return Ok(Some(Plan::Behind(other)));
        }
        let has_data = hsm(tx, other)?.is_some_and(|row| row.repository == id && row.key == key);
        let has_data = has_data && !is_lost(tx, other, id, key)?;
        Ok((has_data && loads(tx, other)?.is_some()).then_some(Plan::Load(other)))
    }

    /// The object that has the data as it is here.
    fn copy_source(&self, id: RepositoryId) -> Option<CopySource> {
        let row = self.hsm.as_ref().filter(|_| self.look.copy && self.inode.is_regular())?;
        let has_data = row.flags.has(HsmFlags::ARCHIVED)
            && !row.flags.has(HsmFlags::DIRTY)
            && !row.flags.has(HsmFlags::LOST)
            && row.repository == id
            && row.size == self.inode.size
            && row.size > 0;
        has_data.then(|| CopySource { key: row.key.clone(), etag: row.etag.clone(), size: row.size })
    }
}

/// Whether data of a file was in this object only, and the object is lost.
fn is_lost(tx: &dyn ReadTxn, fid: Fid, id: RepositoryId, key: &[u8]) -> FsResult<bool> {
    let lost = |row: HsmRecord| row.repository == id && row.key == key && row.flags.has(HsmFlags::LOST);
    Ok(hsm(tx, fid)?.is_some_and(lost) && loads(tx, fid)?.is_some())
}

/// `st_mode`'s bits of a kind of file that is exported.
fn kind_bits(inode: &Inode) -> u32 {
    match inode.file_type() {
        FileType::Directory => 0o040_000,
        FileType::Symlink => 0o120_000,
        _ => 0o100_000,
    }
}
