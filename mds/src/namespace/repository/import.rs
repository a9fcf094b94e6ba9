//! Objects of a bucket become names: pages of an import, and what is told of changes.
//!
//! Objects are looked at one by one, and pages come in any order. What is missing is made, with the directories above it; what
//! is there is never replaced by another thing. The same page again changes nothing, and how a listing is cut into pages makes
//! no difference, but for names that cannot be beside each other (`a` and `a/b`): the first one stays. Objects are written by anybody: whatever is wrong with one is a reason to skip it, not an error.
//!
//! Nothing is taken from a look at the bucket that is older than the last agreement of a file with its object: the row of the file has
//! the stamp of that, and a look the stamp from before it. So looks that come late, twice or in another order do no harm.

use std::collections::{BTreeSet, HashMap};

use sateen_types::limits::{IMPORT_FIRST_SKIPPED_MAX, IMPORT_RANGES_MAX};
use sateen_types::repository::{
    ConflictPolicy, ImportPage, ImportState, ImportStatus, ImportedObject, ObjectPath, RepositoryEvents,
    RepositoryState, Skipped, skip_code, take_off,
};
use sateen_types::{Fid, FileType, FsCode, FsError, FsResult, HsmFlags, LayoutTemplate, Name, RepositoryId};

use super::batch::Names;
use super::links::{self, DIRECTORY_MODE, Fids};
use super::load::release_data;
use super::make::{bad_metadata, take_attributes};
use super::rows::file_of_key;
use super::{agree, conflict, hsm, opened, put_hsm, tasks};
use crate::command::Inputs;
use crate::namespace::tree;
use crate::store::records::{Body, Dentry, HsmRecord, Inode, RepositoryRecord, Sync};
use crate::store::{ReadTxn, Txn};

/// Everything is carried over.
const ALL: RepositoryEvents = RepositoryEvents { created: true, changed: true, deleted: true };

/// Numbers of the server that say when the bucket was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    /// From before the look.
    pub stamp: u64,
    /// From when the server heard of it: a look with a higher one is younger than this.
    pub heard: u64,
}

/// What became of an object.
#[derive(Debug)]
pub(super) enum Imported {
    /// Its name was made.
    Made { bytes: u64 },
    /// What has its name took the object's attributes.
    Changed { bytes: u64 },
    /// Everything stays as it is.
    Same,
    /// It is busy, or what is told of it is old: whoever looks again finds out.
    Later,
    /// Its data is new, and the file is open here.
    Open,
    /// Why not: a code of FSx's, and words.
    Skipped(&'static str, String),
}

/// A link whose import `run` goes on, or `Stale`.
pub(super) fn running(tx: &dyn ReadTxn, id: RepositoryId, run: u64) -> FsResult<RepositoryRecord> {
    let going = |r: &RepositoryRecord| {
        r.run == run
            && r.state != RepositoryState::Deleting
            && matches!(r.import.state, ImportState::Queued | ImportState::Running)
    };
    let record = links::find(tx, id)?.filter(going);
    record.ok_or_else(|| FsError::new(FsCode::Stale, format!("import {run} of repository {id} does not go on")))
}

/// What an import takes: a comparison that was not asked for follows the policy of the link.
pub(super) fn policy(record: &RepositoryRecord) -> RepositoryEvents {
    if record.sync == Sync::Scheduled { record.settings.auto_import } else { ALL }
}

/// A page of the import `run`.
pub fn page(
    tx: &mut dyn Txn,
    (id, run): (RepositoryId, u64),
    page: &ImportPage,
    looked: Looked,
    inputs: &Inputs,
) -> FsResult<ImportStatus> {
    let mut record = running(tx, id, run)?;
    links::refuse_when_full(inputs)?;
    tree::directory(tx, record.root)?;
    let mut status = std::mem::take(&mut record.import);
    let scope = tasks::scope(tx, id, run)?;
    let (before, mut left) = (status.clone(), Vec::new());
    let mut import = Import::new(tx, (id, &record), policy(&record), looked, inputs);
    // What a page has that came before is counted.
    let is_left = |key: &[u8]| record.left.iter().any(|range| range.has(key));
    let is_fresh = |key: &Vec<u8>| is_left(key) && scope.as_ref().is_none_or(|scope| scope.takes(key));
    let fresh = page.objects.iter().filter(|o| is_fresh(&o.key));
    for object in fresh {
        status.objects += 1;
        let imported = import.object(object)?;
        status.created += std::mem::take(&mut import.made);
        match imported {
            Imported::Made { bytes } => {
                status.created += 1;
                status.bytes = status.bytes.saturating_add(bytes);
            }
            Imported::Changed { bytes } => {
                status.changed += 1;
                status.bytes = status.bytes.saturating_add(bytes);
            }
            Imported::Same | Imported::Later => {}
            Imported::Open => {
                let message = "the object has changed, and the file is open here".to_owned();
                left.push(Skipped { key: object.key.clone(), code: skip_code::CONFLICT.to_owned(), message });
            }
            Imported::Skipped(code, message) => {
                let message = cut(message);
                left.push(Skipped { key: object.key.clone(), code: code.to_owned(), message });
            }
        }
    }
    for skipped in page.skipped.iter().filter(|s| is_fresh(&s.key)) {
        status.objects += 1;
        left.push(skipped.clone());
    }
    status.objects += page.known.iter().filter(|key| is_fresh(key)).count() as u64;
    left.iter().for_each(|skipped| skip(&mut status, skipped.clone()));
    let next_fid = import.finish()?;
    let mut ranges = record.left.clone();
    take_off(&mut ranges, &page.range());
    ranges.retain(|range| scope.as_ref().is_none_or(|scope| !scope.is_behind(&range.after)));
    if ranges.len() > IMPORT_RANGES_MAX {
        let what = format!("{} ranges of keys would be left of the import, at most {IMPORT_RANGES_MAX}", ranges.len());
        return Err(FsError::new(FsCode::Invalid, what).with_hint("end the ranges that were begun first"));
    }
    let last = ranges.is_empty();
    status.state = if last { ImportState::Done } else { ImportState::Running };
    if last {
        status.ended = Some(inputs.now);
        record.synced = if record.sync == Sync::No { record.synced } else { Some(inputs.now) };
    }
    record.left = ranges;
    (record.next_fid, record.import) = (next_fid, status.clone());
    links::put(tx, id, &record);
    if let Some(scope) = scope {
        tasks::imported(tx, (id, &scope), (&before, &status), &left, inputs)?;
    }
    Ok(status)
}

fn cut(mut message: String) -> String {
    let mut end = message.len().min(sateen_types::limits::SKIPPED_MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.truncate(end);
    message
}

fn skip(status: &mut ImportStatus, skipped: Skipped) {
    status.skipped += 1;
    if status.first_skipped.len() < IMPORT_FIRST_SKIPPED_MAX {
        status.first_skipped.push(skipped);
    }
}

/// Whether the row is of this object, under this link.
pub(super) fn is_of(row: &HsmRecord, id: RepositoryId, object: &ImportedObject) -> bool {
    row.repository == id && row.key == object.key
}

/// Whether the object has other data than the row says.
fn has_other_data(row: &HsmRecord, object: &ImportedObject) -> bool {
    row.etag != object.etag || row.size != object.size
}

/// Whether both times are of one second: a listing and a look at the object tell them differently.
fn is_same_time(row: &HsmRecord, object: &ImportedObject) -> bool {
    row.modified.seconds == object.modified.seconds
}

/// Whether nothing of the object would be taken, whatever its attributes are: it has the data that is known, and was not written
/// since, or mode and owner were set here.
pub(super) fn is_as_known(row: &HsmRecord, object: &ImportedObject) -> bool {
    !has_other_data(row, object) && (is_same_time(row, object) || row.attributes_changed)
}

/// What has the name of an object now, if all directories above it are there; `seen` is told of each of them.
pub(super) fn existing(
    tx: &dyn ReadTxn,
    root: Fid,
    path: &ObjectPath,
    seen: &mut dyn FnMut(Fid),
) -> FsResult<Option<Dentry>> {
    let mut dir = root;
    seen(dir);
    let Some((name, above)) = path.names.split_last() else { return Ok(None) };
    for part in above {
        match tree::entry(tx, dir, part)? {
            Some(entry) if entry.file_type == FileType::Directory => dir = entry.fid,
            _ => return Ok(None),
        }
        seen(dir);
    }
    tree::entry(tx, dir, name)
}

/// The directory at the end of a path, if it is there.
pub(super) fn directory_at(tx: &dyn ReadTxn, root: Fid, names: &[Name]) -> FsResult<Option<Fid>> {
    let mut dir = root;
    for name in names {
        match tree::entry(tx, dir, name)? {
            Some(entry) if entry.file_type == FileType::Directory => dir = entry.fid,
            _ => return Ok(None),
        }
    }
    Ok(Some(dir))
}

/// Files whose data objects may replace.
pub fn victims(tx: &dyn ReadTxn, id: RepositoryId, objects: &[ImportedObject]) -> FsResult<Vec<Fid>> {
    let Some(record) = links::find(tx, id)? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    // Most objects of a page are in few directories.
    let mut dirs: HashMap<&[u8], Option<Fid>> = HashMap::new();
    let may_win = record.settings.conflict == ConflictPolicy::RepositoryWins || agree::has_conflicts(tx, id)?;
    for object in objects.iter().filter(|o| o.symlink.is_none() && !o.key.ends_with(b"/")) {
        // Only what the index has can be of this object; what it lacks is from before it, and found by its name. So is what was made
        // here and has the name.
        let by_key = file_of_key(tx, id, &object.key)?;
        let by_name = match by_key {
            Some(_) if !may_win => None,
            _ => {
                let Ok(path) = ObjectPath::parse(&object.key) else { continue };
                let Some((name, above)) = path.names.split_last() else { continue };
                let prefix = &object.key[..object.key.len() - name.as_bytes().len()];
                let dir = match dirs.get(prefix) {
                    Some(known) => *known,
                    None => *dirs.entry(prefix).or_insert(directory_at(tx, record.root, above)?),
                };
                let entry = match dir {
                    Some(dir) => tree::entry(tx, dir, name)?,
                    None => None,
                };
                entry.filter(|e| e.file_type == FileType::Regular).map(|e| e.fid)
            }
        };
        if let Some(fid) = by_key
            && hsm(tx, fid)?.is_some_and(|row| is_of(&row, id, object) && has_other_data(&row, object))
        {
            found.push(fid);
        }
        if let Some(fid) = by_name.filter(|fid| Some(*fid) != by_key) {
            let replaced = match hsm(tx, fid)? {
                Some(row) if is_of(&row, id, object) => has_other_data(&row, object),
                _ => may_win,
            };
            found.extend(replaced.then_some(fid));
        }
    }
    Ok(found)
}

/// Directories in which names of these keys may be made or may go, or which are changed.
pub fn directories<'k>(tx: &dyn ReadTxn, id: RepositoryId, keys: impl Iterator<Item = &'k [u8]>) -> FsResult<Vec<Fid>> {
    let Some(record) = links::find(tx, id)? else { return Ok(Vec::new()) };
    let mut found = BTreeSet::new();
    for key in keys {
        let Ok(path) = ObjectPath::parse(key) else { continue };
        let mut seen = |dir| {
            found.insert(dir);
        };
        let entry = existing(tx, record.root, &path, &mut seen)?;
        found.extend(entry.filter(|e| e.file_type == FileType::Directory).map(|e| e.fid));
    }
    Ok(found.into_iter().collect())
}

/// What is made of objects in one change.
pub(super) struct Import<'a> {
    pub tx: &'a mut dyn Txn,
    pub id: RepositoryId,
    pub inputs: &'a Inputs,
    pub record: &'a RepositoryRecord,
    pub policy: RepositoryEvents,
    pub looked: Looked,
    pub names: Names,
    /// Directories that were made above objects and are not counted yet.
    pub made: u64,
    pub fids: Fids,
    /// Directories that were looked up.
    pub dirs: HashMap<(Fid, Name), Fid>,
    /// What new files in them get.
    pub templates: HashMap<Fid, LayoutTemplate>,
}

impl<'a> Import<'a> {
    pub fn new(
        tx: &'a mut dyn Txn,
        (id, record): (RepositoryId, &'a RepositoryRecord),
        policy: RepositoryEvents,
        looked: Looked,
        inputs: &'a Inputs,
    ) -> Import<'a> {
        Import {
            tx,
            id,
            inputs,
            record,
            policy,
            looked,
            names: Names::default(),
            made: 0,
            fids: Fids { next: record.next_fid },
            dirs: HashMap::new(),
            templates: HashMap::new(),
        }
    }

    /// Everything is in the tables; gives the next FID.
    pub fn finish(mut self) -> FsResult<(u64, u32)> {
        self.names.write(self.tx)?;
        Ok(self.fids.next)
    }

    pub fn object(&mut self, object: &ImportedObject) -> FsResult<Imported> {
        let path = match ObjectPath::parse(&object.key) {
            Ok(path) => path,
            Err(e) => return Ok(Imported::Skipped(skip_code::NOT_POSIX, e.message)),
        };
        if let Some(why) = bad_metadata(object) {
            return Ok(Imported::Skipped(skip_code::METADATA, why));
        }
        if self.inputs.left.contains(&object.key) {
            return Ok(Imported::Later);
        }
        let Some((name, above)) = path.names.split_last() else { return Ok(Imported::Same) };
        let mut dir = Some(self.record.root);
        for part in above {
            let Some(at) = dir else { break };
            dir = match self.directory(at, part)? {
                Found::Directory(fid) => Some(fid),
                Found::Nothing => None,
                Found::Other => {
                    let what = format!("{part:?} is in its path and is not a directory");
                    return Ok(Imported::Skipped(skip_code::TYPE_MISMATCH, what));
                }
            };
        }
        let entry = match dir {
            Some(dir) => tree::entry(self.tx, dir, name)?.map(|entry| (dir, entry)),
            None => None,
        };
        match entry {
            Some((dir, entry)) => self.refresh((dir, name), &entry, &path, object),
            None => self.missing(&path, object),
        }
    }

    /// Nothing has the name: it is made, unless that is not wanted, or it was there and is elsewhere now.
    fn missing(&mut self, path: &ObjectPath, object: &ImportedObject) -> FsResult<Imported> {
        if !self.policy.created {
            return Ok(Imported::Same);
        }
        if agree::is_ours_to_settle(self.tx, self.id, &object.key)? {
            return Ok(Imported::Later);
        }
        if let Some(fid) = file_of_key(self.tx, self.id, &object.key)?
            && self.record.settings.auto_export != RepositoryEvents::default()
            && hsm(self.tx, fid)?.is_some_and(|row| !has_other_data(&row, object))
            && tree::find_inode(self.tx, fid)?.is_some_and(|inode| inode.nlink > 0)
        {
            // It was moved here, and the object follows.
            return Ok(Imported::Same);
        }
        self.make(path, object)
    }

    /// The directory of this name.
    pub fn directory(&mut self, parent: Fid, name: &Name) -> FsResult<Found> {
        let at = (parent, name.clone());
        if let Some(known) = self.dirs.get(&at) {
            return Ok(Found::Directory(*known));
        }
        Ok(match tree::entry(self.tx, parent, name)? {
            Some(entry) if entry.file_type == FileType::Directory => {
                self.dirs.insert(at, entry.fid);
                Found::Directory(entry.fid)
            }
            Some(_) => Found::Other,
            None => Found::Nothing,
        })
    }

    /// Something has the name.
    fn refresh(
        &mut self,
        place: (Fid, &Name),
        entry: &Dentry,
        path: &ObjectPath,
        object: &ImportedObject,
    ) -> FsResult<Imported> {
        let wanted = match &object.symlink {
            _ if path.directory => FileType::Directory,
            Some(_) => FileType::Symlink,
            None => FileType::Regular,
        };
        if entry.file_type != wanted {
            let what = format!("a {:?} has the name", entry.file_type);
            return Ok(Imported::Skipped(skip_code::TYPE_MISMATCH, what));
        }
        let fid = entry.fid;
        let known = match hsm(self.tx, fid)? {
            Some(row) if self.is_orphaned(&row, wanted, object)? => Some(self.adopt(fid, row)?),
            other => other,
        };
        let Some(row) = known.clone().filter(|row| is_of(row, self.id, object)) else {
            if wanted != FileType::Directory {
                return conflict::stranger(self, place, entry, path, object);
            }
            if known.is_some() || !self.policy.created {
                return Ok(Imported::Same);
            }
            let row = self.row(object);
            if self.is_bare(fid)? {
                // Made for what is in it, which came before it.
                return self.take(entry, &row, object);
            }
            put_hsm(self.tx, fid, &row)?;
            return Ok(Imported::Same);
        };
        let other_data = has_other_data(&row, object);
        if is_as_known(&row, object) {
            if row.flags.has(HsmFlags::LOST) && row.stamp <= self.looked.stamp {
                put_hsm(self.tx, fid, &HsmRecord { flags: row.flags.set(HsmFlags::LOST, false), ..row })?;
            }
            return Ok(Imported::Same);
        }
        if row.stamp > self.looked.stamp {
            return Ok(Imported::Later);
        }
        if opened::is_changed(self.tx, fid, &row)? {
            if !other_data {
                return Ok(Imported::Same);
            }
            return conflict::both_changed(self, place, (entry, &row), path, object);
        }
        if !self.policy.changed {
            return Ok(Imported::Same);
        }
        self.take(entry, &row, object)
    }

    /// Whether nothing was said of a directory so far, as of those above objects.
    fn is_bare(&mut self, dir: Fid) -> FsResult<bool> {
        let is_root_s = |inode: &Inode| (inode.mode, inode.uid, inode.gid) == (DIRECTORY_MODE, 0, 0);
        let is_bare = |inode: &Inode| is_root_s(inode) && inode.acl.is_none();
        Ok(is_bare(self.names.directory(self.tx, dir)?) && !agree::waits(self.tx, dir)?)
    }

    /// Whether what has the name is of this very object, but by a link that was ended.
    fn is_orphaned(&self, row: &HsmRecord, wanted: FileType, object: &ImportedObject) -> FsResult<bool> {
        Ok(row.repository != self.id
            && row.key == object.key
            && (wanted == FileType::Directory || !has_other_data(row, object))
            && links::find(self.tx, row.repository)?.is_none())
    }

    /// It is this link's from now on, with what is loaded of it and what was changed here.
    fn adopt(&mut self, fid: Fid, row: HsmRecord) -> FsResult<HsmRecord> {
        let row = HsmRecord { repository: self.id, ..row };
        put_hsm(self.tx, fid, &row)?;
        if row.flags.has(HsmFlags::DIRTY) || row.attributes_changed {
            agree::note_changed(self.tx, fid, self.id, self.inputs.now)?;
        }
        Ok(row)
    }

    /// A name that was not changed here, or that is to be so no longer, becomes what its object is.
    pub fn take(&mut self, entry: &Dentry, row: &HsmRecord, object: &ImportedObject) -> FsResult<Imported> {
        let fid = entry.fid;
        let other_data = has_other_data(row, object);
        let replaces = other_data && entry.file_type == FileType::Regular;
        if replaces && self.inputs.open.contains(&fid) {
            return Ok(Imported::Open);
        }
        let is_dir = entry.file_type == FileType::Directory;
        let mut inode = match is_dir {
            true => self.names.directory(self.tx, fid)?.clone(),
            false => tree::named_inode(self.tx, entry)?,
        };
        take_attributes(&mut inode, object);
        if let (Body::Symlink(target), Some(new)) = (&mut inode.body, &object.symlink) {
            target.clone_from(new);
        }
        inode.attr_changed(self.inputs.now);
        match is_dir {
            true => self.names.replace(self.tx, fid, inode)?,
            false => tree::put_inode(self.tx, fid, &inode),
        }
        let new = self.row(object);
        agree::end_conflict(self.tx, self.id, &object.key)?;
        if replaces {
            agree::becomes(self.tx, fid, (self.id, &object.key), self.inputs.now)?;
            release_data(self.tx, fid, new)?;
            return Ok(Imported::Changed { bytes: object.size });
        }
        let flags = row.flags.set(HsmFlags::LOST, false);
        put_hsm(self.tx, fid, &HsmRecord { flags, ..new })?;
        Ok(Imported::Changed { bytes: 0 })
    }
}

/// What has the name of a directory.
pub(super) enum Found {
    /// A directory.
    Directory(Fid),
    /// Something else.
    Other,
    /// Nothing.
    Nothing,
}
