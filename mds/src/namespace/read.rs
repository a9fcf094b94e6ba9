//! Questions. They read one consistent view and change nothing.

use sateen_types::limits::{PATH_BYTES_MAX, READDIR_BYTES_MAX, READDIR_ENTRIES_MAX};
use sateen_types::op::{Access, DirEntry};
use sateen_types::{Attr, Credential, Fid, FsCode, FsError, FsResult, Layout, LayoutTemplate, Name, XattrName};

use super::perm::{self, access};
use super::{intents, layout, tree, xattr};
use crate::store::codec::Record;
use crate::store::records::{Body, IndexEntry};
use crate::store::{ReadTxn, Table, keys};

/// Paths of a file without a leading slash.
pub type PathList = Vec<Vec<u8>>;

/// Most paths [`paths_of`] gives.
const PATHS_MAX: usize = 1024;
/// Deepest path it follows.
const PATH_DEPTH_MAX: usize = 4096;
/// About how many bytes one entry with attributes takes on the wire beside its name.
const ENTRY_BYTES: usize = 192;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its attributes.
    pub attr: Attr,
    /// Position of the name in its directory; 0: not asked by a name.
    pub cookie: u64,
}

impl From<Attr> for Named {
    fn from(attr: Attr) -> Named {
        Named { attr, cookie: 0 }
    }
}

/// What a name stands for; `None` stands for `..`.
pub fn lookup(tx: &dyn ReadTxn, who: &Credential, parent: Fid, name: Option<&Name>) -> FsResult<Named> {
    let dir = tree::directory(tx, parent)?;
    access(&dir, who, perm::Access::SEARCH)?;
    match name {
        None => get_attr(tx, tree::parent_of(tx, parent)?).map(Named::from),
        Some(name) => {
            let entry = tree::existing_entry(tx, parent, name)?;
            Ok(Named { attr: tree::named_inode(tx, &entry)?.attr(entry.fid), cookie: entry.cookie })
        }
    }
}

/// Attributes of a file.
pub fn get_attr(tx: &dyn ReadTxn, fid: Fid) -> FsResult<Attr> {
    Ok(tree::inode(tx, fid)?.attr(fid))
}

/// One page of a directory.
#[derive(Debug)]
pub struct ReadDirPage {
    /// In the order of cookies.
    pub entries: Vec<DirEntry>,
    /// Nothing follows.
    pub end: bool,
    /// The directory the directory is in.
    pub parent: Fid,
}

/// Entries that are read where the request was received, if they are in memory: reading them takes less than waking another thread.
pub const BRIEF_PAGE: u32 = 64;

/// Entries behind `after`, at most `max` and at most [`READDIR_BYTES_MAX`] bytes; without attributes.
pub fn read_dir(tx: &dyn ReadTxn, who: &Credential, fid: Fid, after: u64, max: usize) -> FsResult<ReadDirPage> {
    let dir = tree::directory(tx, fid)?;
    access(&dir, who, perm::Access::READ)?;
    let rows = tx.scan(Table::DirIndex, &keys::fid(fid), Some(&keys::dirindex(fid, after)), max + 1)?;
    let mut bytes = 0;
    let mut entries = Vec::with_capacity(rows.len().min(max));
    let total = rows.len();
    for (key, value) in rows.into_iter().take(max) {
        let (_, cookie) = keys::parse_dirindex(&key)?;
        let IndexEntry { fid, file_type, name } = IndexEntry::from_bytes(&value)?;
        bytes += name.as_bytes().len() + ENTRY_BYTES;
        if bytes > READDIR_BYTES_MAX {
            break;
        }
        entries.push(DirEntry { name, fid, file_type, cookie, attr: None });
    }
    Ok(ReadDirPage { end: entries.len() == total, entries, parent: tree::parent_of(tx, fid)? })
}

/// Directories from their beginning, in their order, each at most `max` entries and all at most [`READDIR_ENTRIES_MAX`]; `None`
/// for those that are not `wanted`, or cannot be listed, or find no room.
pub fn read_dirs(tx: &dyn ReadTxn, who: &Credential, dirs: &[(Fid, bool)], max: usize) -> Vec<Option<ReadDirPage>> {
    let mut room = READDIR_ENTRIES_MAX as usize;
    let one = |(dir, wanted): &(Fid, bool)| {
        let page = read_dir(tx, who, *dir, 0, max.min(room)).ok().filter(|_| *wanted && room > 0)?;
        room -= page.entries.len();
        Some(page)
    };
    dirs.iter().map(one).collect()
}

/// Attributes of those files that exist, in the order of `fids`.
pub fn get_attrs(tx: &dyn ReadTxn, fids: &[Fid]) -> FsResult<Vec<Option<Attr>>> {
    let inodes = tree::find_inodes(tx, fids)?.into_iter().zip(fids);
    Ok(inodes.map(|(inode, fid)| inode.map(|inode| inode.attr(*fid))).collect())
}

/// Target of a symbolic link.
pub fn read_link(tx: &dyn ReadTxn, fid: Fid) -> FsResult<Vec<u8>> {
    match tree::inode(tx, fid)?.body {
        Body::Symlink(target) => Ok(target),
        _ => Err(FsError::new(FsCode::Invalid, format!("{fid} is not a symbolic link"))),
    }
}

/// Whether the file may be opened, and what the opener needs to know.
pub fn open(tx: &dyn ReadTxn, who: &Credential, fid: Fid, wanted: Access) -> FsResult<(Attr, Option<Layout>)> {
    let inode = tree::inode(tx, fid)?;
    if inode.is_dir() && wanted.write {
        return Err(FsError::new(FsCode::IsDirectory, format!("{fid} is a directory")));
    }
    access(&inode, who, wanted.into())?;
    let mut layout = None;
    if inode.is_regular() {
        if wanted.write {
            intents::refuse_while_truncating(tx, fid)?;
        }
        layout = Some(layout::of_file(tx, fid)?);
    }
    Ok((inode.attr(fid), layout))
}

/// Layout of a regular file.
pub fn get_layout(tx: &dyn ReadTxn, fid: Fid) -> FsResult<Layout> {
    layout::of_file(tx, fid)
}

/// What new files in a directory get, and whether it was set on the directory itself.
pub fn default_layout(tx: &dyn ReadTxn, dir: Fid) -> FsResult<(LayoutTemplate, bool)> {
    tree::directory(tx, dir)?;
    layout::inherited_template(tx, dir)
}

/// Inodes in use.
pub fn inode_count(tx: &dyn ReadTxn) -> FsResult<u64> {
    tree::counter(tx, keys::INODES)
}

/// Value of an extended attribute.
pub fn get_xattr(tx: &dyn ReadTxn, who: &Credential, fid: Fid, name: &XattrName) -> FsResult<Vec<u8>> {
    xattr::get(tx, who, fid, name)
}

/// Names of the extended attributes.
pub fn list_xattr(tx: &dyn ReadTxn, who: &Credential, fid: Fid) -> FsResult<PathList> {
    xattr::list(tx, who, fid)
}

/// Paths of a file from the root, one per name, at most [`PATHS_MAX`].
pub fn paths_of(tx: &dyn ReadTxn, fid: Fid) -> FsResult<PathList> {
    let not_found = || FsError::new(FsCode::NotFound, format!("{fid} does not exist, or has no name any more"));
    tree::find_inode(tx, fid)?.ok_or_else(not_found)?;
    if fid == Fid::ROOT {
        return Ok(vec![Vec::new()]);
    }
    let mut paths = Vec::new();
    for (key, _) in tx.scan(Table::Parents, &keys::fid(fid), None, PATHS_MAX)? {
        let (_, parent, name) = keys::parse_parent(&key)?;
        paths.push(path_from_root(tx, parent, name.as_bytes().to_vec())?);
    }
    if paths.is_empty() { Err(not_found()) } else { Ok(paths) }
}

fn path_from_root(tx: &dyn ReadTxn, mut dir: Fid, mut path: Vec<u8>) -> FsResult<Vec<u8>> {
    for _ in 0..PATH_DEPTH_MAX {
        if dir == Fid::ROOT {
            return Ok(path);
        }
        if path.len() >= PATH_BYTES_MAX {
            break;
        }
        let rows = tx.scan(Table::Parents, &keys::fid(dir), None, 1)?;
        let (key, _) = rows.first().ok_or_else(|| FsError::new(FsCode::NotFound, format!("{dir} has no name")))?;
        let (_, parent, name) = keys::parse_parent(key)?;
        path = [name.as_bytes(), b"/", &path].concat();
        dir = parent;
    }
    Err(FsError::new(FsCode::NameTooLong, format!("the path is longer than {PATH_BYTES_MAX} bytes")))
}
