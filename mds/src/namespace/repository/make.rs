//! Names of objects are made: files without their data, directories, symbolic links.

use sateen_types::limits::{FILE_SIZE_MAX, LINK_COUNT_MAX, PATH_BYTES_MAX, STRIPE_COUNT_MAX};
use sateen_types::op::NewMode;
use sateen_types::repository::{ImportedObject, ObjectPath, skip_code};
use sateen_types::{Credential, Fid, FileType, FsResult, HsmFlags, LayoutTemplate, Name, Remote, StripePattern};

use super::agree;
use super::import::{Found, Import, Imported};
use super::links::DIRECTORY_MODE;
use super::rows::put_first_hsm;
use crate::namespace::create::new_inode;
use crate::namespace::layout;
use crate::store::codec::Record;
use crate::store::records::{Body, HsmRecord, Inode, LoadRecord};
use crate::store::{Table, keys};

/// Bits of a mode that an object may set: permissions and the sticky bit.
const MODE_BITS: u32 = 0o1777;
/// Permissions where an object says nothing of them (FSx).
const MODE_DEFAULT: u32 = 0o755;
/// Bits of a mode that say what kind of file it is.
const KIND_BITS: u32 = 0o170_000;
/// Pipes, character devices, block devices, sockets: never made.
const SPECIAL_KINDS: [u32; 4] = [0o010_000, 0o020_000, 0o060_000, 0o140_000];
const MIB: u64 = 1 << 20;

impl Import<'_> {
    /// Makes an object whose name is free, with the directories above it.
    pub fn make(&mut self, path: &ObjectPath, object: &ImportedObject) -> FsResult<Imported> {
        let Some((name, above)) = path.names.split_last() else { return Ok(Imported::Same) };
        let mut dir = self.record.root;
        for part in above {
            dir = match self.directory(dir, part)? {
                Found::Directory(fid) => fid,
                _ => match self.make_directory((dir, part))? {
                    Some(fid) => fid,
                    None => return Ok(too_many_links(dir)),
                },
            };
        }
        self.make_in((dir, name), path, object)
    }

    /// A directory above an object, of root's, that nothing is said of; `None` if there are too many.
    fn make_directory(&mut self, (parent, name): (Fid, &Name)) -> FsResult<Option<Fid>> {
        let dir = self.names.directory(self.tx, parent)?;
        if dir.nlink >= LINK_COUNT_MAX {
            return Ok(None);
        }
        let mode = NewMode { mode: DIRECTORY_MODE, masked: 0 };
        let inode = new_inode(dir, &Credential::ROOT, mode, Body::empty_directory(), self.inputs.now);
        let fid = self.fids.take(self.tx)?;
        self.inherit_template(parent, fid)?;
        self.names.add(self.tx, (parent, name), fid, inode)?;
        self.dirs.insert((parent, name.clone()), fid);
        self.made += 1;
        Ok(Some(fid))
    }

    fn inherit_template(&mut self, parent: Fid, fid: Fid) -> FsResult<()> {
        if parent != Fid::ROOT
            && let Some(template) = layout::own_template(self.tx, parent)?
        {
            self.tx.put(Table::DefaultLayouts, keys::fid(fid), template.to_bytes());
        }
        Ok(())
    }

    /// What is known of a file that is as this object is.
    pub fn row(&self, object: &ImportedObject) -> HsmRecord {
        HsmRecord {
            repository: self.id,
            key: object.key.clone(),
            etag: object.etag.clone(),
            size: object.size,
            modified: object.modified,
            flags: HsmFlags::EXISTS | HsmFlags::ARCHIVED,
            stamp: self.looked.heard,
            attributes_changed: false,
        }
    }

    fn make_in(
        &mut self,
        (parent, name): (Fid, &Name),
        path: &ObjectPath,
        object: &ImportedObject,
    ) -> FsResult<Imported> {
        let dir = self.names.directory(self.tx, parent)?;
        let (body, file_type) = match &object.symlink {
            _ if path.directory => (Body::empty_directory(), FileType::Directory),
            Some(target) => (Body::Symlink(target.clone()), FileType::Symlink),
            None => (Body::Regular, FileType::Regular),
        };
        if file_type == FileType::Directory && dir.nlink >= LINK_COUNT_MAX {
            return Ok(too_many_links(parent));
        }
        let mode = NewMode { mode: MODE_DEFAULT, masked: 0 };
        let mut inode = new_inode(dir, &Credential::ROOT, mode, body, self.inputs.now);
        // Of what an object says a mode is the whole: no ACL that was inherited goes beyond it.
        inode.acl = None;
        inode.mode = if file_type == FileType::Symlink { 0o777 } else { MODE_DEFAULT };
        (inode.uid, inode.gid) = (0, 0);
        take_attributes(&mut inode, object);
        let fid = self.fids.take(self.tx)?;
        let mut row = self.row(object);
        let mut bytes = 0;
        match file_type {
            FileType::Regular => {
                (inode.size, bytes) = (object.size, object.size);
                let template = self.template(parent, object.size)?;
                self.tx.put(Table::Layouts, keys::fid(fid), template.resolve(&template).to_bytes());
                if object.size > 0 {
                    row.flags = row.flags.set(HsmFlags::RELEASED, true);
                    let load = LoadRecord { remote: Remote::none_loaded(object.size), restore: false };
                    self.tx.put(Table::Loads, keys::fid(fid), load.to_bytes());
                }
            }
            FileType::Directory => {
                self.inherit_template(parent, fid)?;
                self.dirs.insert((parent, name.clone()), fid);
            }
            _ => {}
        }
        put_first_hsm(self.tx, fid, &row);
        self.names.add(self.tx, (parent, name), fid, inode)?;
        agree::end_conflict(self.tx, self.id, &object.key)?;
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
}

fn too_many_links(dir: Fid) -> Imported {
    Imported::Skipped(skip_code::DIRECTORY, format!("directory {dir} has {LINK_COUNT_MAX} links, the most it may"))
}

/// Why an object cannot be made, whatever its key.
pub(super) fn bad_metadata(object: &ImportedObject) -> Option<String> {
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
pub(super) fn take_attributes(inode: &mut Inode, object: &ImportedObject) {
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
