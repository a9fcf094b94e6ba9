//! One page of an import.
//!
//! Objects are looked at one by one, in the order of their keys. What is missing is made, with the directories above it; what
//! is there is never replaced by another thing. The same page again changes nothing, and how a listing is cut into pages makes
//! no difference. Objects are written by anybody: whatever is wrong with one is a reason to skip it, not an error.

use std::collections::HashMap;

use sateen_types::limits::{FILE_SIZE_MAX, IMPORT_FIRST_SKIPPED_MAX, LINK_COUNT_MAX, PATH_BYTES_MAX, STRIPE_COUNT_MAX};
use sateen_types::op::NewMode;
use sateen_types::repository::{
    ImportPage, ImportState, ImportStatus, ImportedObject, ObjectPath, RepositoryState, Skipped, skip_code,
};
use sateen_types::{
    Credential, Fid, FileType, FsCode, FsError, FsResult, HsmFlags, LayoutTemplate, Name, RepositoryId, StripePattern,
};

use super::links::{self, Fids, make_directory};
use super::load::{release_data, set_released};
use super::{hsm, put_hsm};
use crate::command::Inputs;
use crate::namespace::create::new_inode;
use crate::namespace::{layout, tree};
use crate::store::codec::Record;
use crate::store::records::{Body, Dentry, HsmRecord, Inode, RepositoryRecord};
use crate::store::{ReadTxn, Table, Txn, keys};

/// Bits of a mode that an object may set: permissions and the sticky bit.
const MODE_BITS: u32 = 0o1777;
/// Permissions where an object says nothing of them (FSx).
const MODE_DEFAULT: u32 = 0o755;
/// Bits of a mode that say what kind of file it is.
const KIND_BITS: u32 = 0o170_000;
/// Pipes, character devices, block devices, sockets: never made.
const SPECIAL_KINDS: [u32; 4] = [0o010_000, 0o020_000, 0o060_000, 0o140_000];
const MIB: u64 = 1 << 20;

/// What became of an object.
enum Imported {
    /// Its name was made.
    Made { bytes: u64 },
    /// What has its name took the object's attributes.
    Changed { bytes: u64 },
    /// Everything was as it is.
    Same,
    /// Why not: a code of FSx's, and words.
    Skipped(&'static str, String),
}

/// A link whose import `run` goes on, or `Stale`.
fn running(tx: &dyn ReadTxn, id: RepositoryId, run: u64) -> FsResult<RepositoryRecord> {
    let going = |r: &RepositoryRecord| {
        r.run == run
            && r.state != RepositoryState::Deleting
            && matches!(r.import.state, ImportState::Queued | ImportState::Running)
    };
    let record = links::find(tx, id)?.filter(going);
    record.ok_or_else(|| FsError::new(FsCode::Stale, format!("import {run} of repository {id} does not go on")))
}

/// See the module.
pub fn page(
    tx: &mut dyn Txn,
    id: RepositoryId,
    run: u64,
    page: &ImportPage,
    inputs: &Inputs,
) -> FsResult<ImportStatus> {
    let mut record = running(tx, id, run)?;
    links::refuse_when_full(inputs)?;
    tree::directory(tx, record.root)?;
    let mut status = std::mem::take(&mut record.import);
    let mut import = Import {
        tx,
        id,
        inputs,
        fids: Fids { next: record.next_fid },
        made: 0,
        dirs: HashMap::new(),
        templates: HashMap::new(),
        record: &record,
    };
    // What a page has that came before is counted.
    let fresh = page.objects.iter().filter(|o| o.key > record.after);
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
            Imported::Same => {}
            Imported::Skipped(code, message) => {
                let message = cut(message);
                skip(&mut status, Skipped { key: object.key.clone(), code: code.to_owned(), message });
            }
        }
    }
    for skipped in page.skipped.iter().filter(|s| s.key > record.after) {
        status.objects += 1;
        skip(&mut status, skipped.clone());
    }
    let next_fid = import.fids.next;
    let last_key = page.objects.last().map(|o| o.key.clone()).unwrap_or_default();
    let after = record.after.clone().max(page.after.clone()).max(last_key);
    status.state = if page.last { ImportState::Done } else { ImportState::Running };
    if page.last {
        status.ended = Some(inputs.now);
    }
    record.after = if page.last { Vec::new() } else { after };
    (record.next_fid, record.import) = (next_fid, status.clone());
    links::put(tx, id, &record);
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
fn is_of(row: &HsmRecord, id: RepositoryId, object: &ImportedObject) -> bool {
    row.repository == id && row.key == object.key
}

/// Whether the object has other data than the row says.
fn has_other_data(row: &HsmRecord, object: &ImportedObject) -> bool {
    row.etag != object.etag || row.size != object.size
}

/// What has the name of an object now, if all directories above it are there; `seen` is told of each of them.
fn existing(tx: &dyn ReadTxn, root: Fid, path: &ObjectPath, seen: &mut dyn FnMut(Fid)) -> FsResult<Option<Dentry>> {
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

/// Files whose data the page may replace.
pub fn victims(tx: &dyn ReadTxn, id: RepositoryId, page: &ImportPage) -> FsResult<Vec<Fid>> {
    let Some(record) = links::find(tx, id)? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for object in page.objects.iter().filter(|o| o.symlink.is_none()) {
        let Ok(path) = ObjectPath::parse(&object.key) else { continue };
        if path.directory {
            continue;
        }
        if let Some(entry) = existing(tx, record.root, &path, &mut |_| ())?
            && entry.file_type == FileType::Regular
            && hsm(tx, entry.fid)?.is_some_and(|row| is_of(&row, id, object) && has_other_data(&row, object))
        {
            found.push(entry.fid);
        }
    }
    Ok(found)
}

/// Directories in which the page may make names, or which it may change.
pub fn directories(tx: &dyn ReadTxn, id: RepositoryId, page: &ImportPage) -> FsResult<Vec<Fid>> {
    let Some(record) = links::find(tx, id)? else { return Ok(Vec::new()) };
    let mut found = std::collections::BTreeSet::new();
    for object in &page.objects {
        let Ok(path) = ObjectPath::parse(&object.key) else { continue };
        let mut seen = |dir| {
            found.insert(dir);
        };
        let entry = existing(tx, record.root, &path, &mut seen)?;
        found.extend(entry.filter(|e| e.file_type == FileType::Directory).map(|e| e.fid));
    }
    Ok(found.into_iter().collect())
}

struct Import<'a> {
    tx: &'a mut dyn Txn,
    id: RepositoryId,
    inputs: &'a Inputs,
    record: &'a RepositoryRecord,
    fids: Fids,
    /// Directories that were made above objects and are not counted yet.
    made: u64,
    /// Directories that were looked up.
    dirs: HashMap<(Fid, Name), Fid>,
    /// What new files in them get.
    templates: HashMap<Fid, LayoutTemplate>,
}

impl Import<'_> {
    fn object(&mut self, object: &ImportedObject) -> FsResult<Imported> {
        let path = match ObjectPath::parse(&object.key) {
            Ok(path) => path,
            Err(e) => return Ok(Imported::Skipped(skip_code::NOT_POSIX, e.message)),
        };
        if let Some(why) = bad_metadata(object) {
            return Ok(Imported::Skipped(skip_code::METADATA, why));
        }
        let Some((name, above)) = path.names.split_last() else { return Ok(Imported::Same) };
        let mut dir = self.record.root;
        for part in above {
            dir = match self.directory(dir, part)? {
                Some(dir) => dir,
                None => {
                    let what = format!("{part:?} is in its path and is not a directory");
                    return Ok(Imported::Skipped(skip_code::TYPE_MISMATCH, what));
                }
            };
        }
        match tree::entry(self.tx, dir, name)? {
            None => self.make((dir, name), &path, object),
            Some(entry) => self.refresh(&entry, &path, object),
        }
    }

    /// The directory of this name, made if it is missing; `None` if something else has the name.
    fn directory(&mut self, parent: Fid, name: &Name) -> FsResult<Option<Fid>> {
        let at = (parent, name.clone());
        if let Some(known) = self.dirs.get(&at) {
            return Ok(Some(*known));
        }
        let fid = match tree::entry(self.tx, parent, name)? {
            Some(entry) if entry.file_type == FileType::Directory => entry.fid,
            Some(_) => return Ok(None),
            None => {
                self.made += 1;
                make_directory(self.tx, (parent, name), &mut self.fids, self.inputs)?
            }
        };
        self.dirs.insert(at, fid);
        Ok(Some(fid))
    }

    fn row(&self, object: &ImportedObject) -> HsmRecord {
        HsmRecord {
            repository: self.id,
            key: object.key.clone(),
            etag: object.etag.clone(),
            size: object.size,
            modified: object.modified,
            flags: HsmFlags::EXISTS | HsmFlags::ARCHIVED,
            stamp: 0,
            attributes_changed: false,
        }
    }

    /// Nothing has the name yet.
    fn make(&mut self, (parent, name): (Fid, &Name), path: &ObjectPath, object: &ImportedObject) -> FsResult<Imported> {
        let dir = tree::directory(self.tx, parent)?;
        let (body, file_type) = match &object.symlink {
            _ if path.directory => (Body::empty_directory(), FileType::Directory),
            Some(target) => (Body::Symlink(target.clone()), FileType::Symlink),
            None => (Body::Regular, FileType::Regular),
        };
        if file_type == FileType::Directory && dir.nlink >= LINK_COUNT_MAX {
            let what = format!("directory {parent} has {} links", dir.nlink);
            return Ok(Imported::Skipped(skip_code::DIRECTORY, what));
        }
        let now = self.inputs.now;
        let mode = NewMode { mode: MODE_DEFAULT, masked: 0 };
        let mut inode = new_inode(&dir, &Credential::ROOT, mode, body, now);
        // Of what an object says a mode is the whole: no ACL that was inherited goes beyond it.
        inode.acl = None;
        inode.mode = if file_type == FileType::Symlink { 0o777 } else { MODE_DEFAULT };
        (inode.uid, inode.gid) = (0, 0);
        take_attributes(&mut inode, object);
        let fid = self.fids.take(self.tx)?;
        let row = self.row(object);
        let mut bytes = 0;
        match file_type {
            FileType::Regular => {
                (inode.size, bytes) = (object.size, object.size);
                let template = self.template(parent, object.size)?;
                self.tx.put(Table::Layouts, keys::fid(fid), template.resolve(&template).to_bytes());
                set_released(self.tx, fid, row)?;
            }
            FileType::Directory => {
                if let Some(template) = layout::own_template(self.tx, parent)?.filter(|_| parent != Fid::ROOT) {
                    self.tx.put(Table::DefaultLayouts, keys::fid(fid), template.to_bytes());
                }
                put_hsm(self.tx, fid, &row)?;
                self.dirs.insert((parent, name.clone()), fid);
            }
            _ => put_hsm(self.tx, fid, &row)?,
        }
        tree::add_inode(self.tx, fid, &inode)?;
        tree::insert_name(self.tx, (parent, name), (fid, file_type), None, now)?;
        Ok(Imported::Made { bytes })
    }

    /// What a file of this size gets in a directory: what was set there. Where nothing but the usual default was, FSx's rule for
    /// imported files takes its place: a stripe for each chunk.
    fn template(&mut self, dir: Fid, size: u64) -> FsResult<LayoutTemplate> {
        let template = match self.templates.get(&dir) {
            Some(known) => known.clone(),
            None => {
                let (template, _) = layout::inherited_template(self.tx, dir)?;
                self.templates.insert(dir, template.clone());
                template
            }
        };
        if template != LayoutTemplate::default() {
            return Ok(template);
        }
        let chunks = size.div_ceil(u64::from(self.record.settings.chunk_mib) * MIB);
        let stripes = chunks.clamp(1, u64::from(STRIPE_COUNT_MAX)) as u16;
        Ok(LayoutTemplate::plain(StripePattern::raid0(stripes)))
    }

    /// Something has the name.
    fn refresh(&mut self, entry: &Dentry, path: &ObjectPath, object: &ImportedObject) -> FsResult<Imported> {
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
        let Some(row) = hsm(self.tx, fid)?.filter(|row| is_of(row, self.id, object)) else {
            if wanted == FileType::Directory {
                return Ok(Imported::Same);
            }
            return Ok(Imported::Skipped(skip_code::CONFLICT, "something made here has the name".to_owned()));
        };
        let other_data = has_other_data(&row, object);
        if !other_data && row.modified == object.modified {
            if row.flags.has(HsmFlags::LOST) {
                put_hsm(self.tx, fid, &HsmRecord { flags: row.flags.set(HsmFlags::LOST, false), ..row })?;
            }
            return Ok(Imported::Same);
        }
        if row.flags.has(HsmFlags::DIRTY) {
            let what = "the file was changed here, and its object as well";
            return Ok(Imported::Skipped(skip_code::CONFLICT, what.to_owned()));
        }
        let replaces = other_data && wanted == FileType::Regular;
        if replaces && self.inputs.open.contains(&fid) {
            let what = "the object has changed, and the file is open here";
            return Ok(Imported::Skipped(skip_code::CONFLICT, what.to_owned()));
        }
        let mut inode = tree::named_inode(self.tx, entry)?;
        take_attributes(&mut inode, object);
        if let (Body::Symlink(target), Some(new)) = (&mut inode.body, &object.symlink) {
            target.clone_from(new);
        }
        inode.attr_changed(self.inputs.now);
        tree::put_inode(self.tx, fid, &inode);
        let new = self.row(object);
        if replaces {
            release_data(self.tx, fid, new)?;
            return Ok(Imported::Changed { bytes: object.size });
        }
        let flags = row.flags.set(HsmFlags::LOST, false);
        put_hsm(self.tx, fid, &HsmRecord { flags, ..new })?;
        Ok(Imported::Changed { bytes: 0 })
    }
}

/// Why an object cannot be made, whatever its key.
fn bad_metadata(object: &ImportedObject) -> Option<String> {
    if object.size > FILE_SIZE_MAX {
        return Some(format!("{} bytes are more than a file can have", object.size));
    }
    if let Some(mode) = object.mode.filter(|mode| SPECIAL_KINDS.contains(&(mode & KIND_BITS))) {
        return Some(format!("mode {mode:#o} is of a special file"));
    }
    let bad_target = |t: &Vec<u8>| t.is_empty() || t.len() >= PATH_BYTES_MAX || t.contains(&0);
    object.symlink.as_ref().filter(|t| bad_target(t)).map(|_| "its target is empty, too long or has a NUL".to_owned())
}

/// What an object says of a file; the rest stays.
fn take_attributes(inode: &mut Inode, object: &ImportedObject) {
    if let Some(mode) = object.mode
        && !matches!(inode.body, Body::Symlink(_))
    {
        inode.mode = mode & MODE_BITS;
        inode.acl = None;
    }
    inode.uid = object.uid.unwrap_or(inode.uid);
    inode.gid = object.gid.unwrap_or(inode.gid);
    let mtime = object.mtime.unwrap_or(object.modified);
    inode.mtime = mtime;
    inode.atime = object.atime.unwrap_or(mtime);
}
