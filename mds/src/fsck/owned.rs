//! What belongs to one inode beside its names: the layout, extended attributes, ACLs, the default layout. A layout
//! without an inode is kept, for it leads to the data.

use std::collections::BTreeSet;

use sateen_types::attr::FILE_CAPABILITIES_XATTR;
use sateen_types::{Fid, FileType, FindingKind, FsResult, Layout, LayoutTemplate, OstIndex};

use super::draft::Draft;
use super::rows::{Stored, hex};
use super::{Broken, Facts, Remedy};
use crate::namespace::tree;
use crate::store::records::Inode;
use crate::store::{ReadTxn, Table, keys};

/// Names with it stand for the inode itself, so none is stored.
const RESERVED_XATTRS: &[u8] = b"system.";

/// What is wrong with the layout of a file, if anything is.
pub fn layout(tx: &dyn ReadTxn, facts: &Facts, fid: Fid, osts: &BTreeSet<OstIndex>) -> FsResult<Option<Broken>> {
    let key = keys::fid(fid);
    let stored = Stored::<Layout>::read(tx, Table::Layouts, &key)?;
    let inode = Stored::<Inode>::read(tx, Table::Inodes, &key)?;
    let what = match (&stored, &inode) {
        (Stored::Missing, Stored::Good(inode)) if inode.is_regular() => {
            format!("has lost its layout: its {} bytes cannot be found", inode.size)
        }
        (Stored::Bad, _) => "its layout does not decode".to_owned(),
        (Stored::Good(layout), Stored::Missing) => {
            format!("has a layout of {} components, but no inode; its objects are kept", layout.components.len())
        }
        (Stored::Good(_), Stored::Good(inode)) if !inode.is_regular() => {
            format!("is a {:?} and has a layout", inode.file_type())
        }
        (Stored::Good(layout), _) => match layout.components.iter().flat_map(|c| &c.osts).find(|o| !osts.contains(o)) {
            Some(ost) => format!("has an object on OST {ost}, which this cluster does not have"),
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    Ok(facts.broken(FindingKind::Layout, what, Remedy::Unknown).file(fid))
}

/// Whether there may be something wrong with a layout, from its stored bytes.
pub fn layout_is_doubtful(layout: Option<&[u8]>, inode: &Stored<Inode>, osts: &BTreeSet<OstIndex>) -> bool {
    let wanted = matches!(inode, Stored::Good(inode) if inode.is_regular());
    match Stored::<Layout>::of(layout) {
        Stored::Missing => wanted,
        Stored::Bad => true,
        Stored::Good(layout) => {
            !(wanted || *inode == Stored::Bad)
                || layout.components.iter().flat_map(|c| &c.osts).any(|o| !osts.contains(o))
        }
    }
}

/// What is wrong with the default layout of a directory, if anything is.
pub fn default_layout(tx: &dyn ReadTxn, facts: &Facts, fid: Fid) -> FsResult<Option<Broken>> {
    let key = keys::fid(fid);
    let stored = Stored::<LayoutTemplate>::read(tx, Table::DefaultLayouts, &key)?;
    let inode = Stored::<Inode>::read(tx, Table::Inodes, &key)?;
    let has_directory = match &inode {
        Stored::Missing => false,
        Stored::Bad => true,
        Stored::Good(inode) => inode.is_dir(),
    };
    match (stored, has_directory) {
        (Stored::Missing, _) | (Stored::Good(_), true) => Ok(None),
        (Stored::Bad, true) => {
            let what = "its default layout does not decode; set another with: lfs setstripe";
            Ok(facts.broken(FindingKind::Layout, what, Remedy::Unknown).file(fid))
        }
        (_, false) => {
            let mut draft = Draft::new(tx);
            draft.sees(Table::Inodes, key.clone());
            draft.tx().delete(Table::DefaultLayouts, key);
            let what = "has a default layout and is no directory";
            Ok(facts.broken(FindingKind::Attribute, what, Remedy::Mend(draft.finish()?)).file(fid))
        }
    }
}

/// What is wrong with one stored attribute, if anything is.
pub fn xattr(tx: &dyn ReadTxn, facts: &Facts, fid: Fid, name: &[u8]) -> FsResult<Option<Broken>> {
    let key = keys::xattr(fid, name);
    let Some(value) = tx.get(Table::Xattrs, &key)? else { return Ok(None) };
    let shown = String::from_utf8_lossy(name);
    if name.is_empty() || name.starts_with(RESERVED_XATTRS) {
        let what = format!("has an attribute stored as {shown:?}, which nobody can read");
        return Ok(facts.broken(FindingKind::Attribute, what, Remedy::Unknown).file(fid));
    }
    if !Stored::<Inode>::read(tx, Table::Inodes, &keys::fid(fid))?.is_missing() {
        return Ok(None);
    }
    let mut draft = Draft::new(tx);
    draft.sees(Table::Inodes, keys::fid(fid));
    draft.tx().delete(Table::Xattrs, key);
    let what = format!("attribute {shown:?} belongs to no inode; its value is {}", hex(&value));
    Ok(facts.broken(FindingKind::Attribute, what, Remedy::Mend(draft.finish()?)).file(fid))
}

/// Whether the inode and its attributes differ about file capabilities.
pub fn capabilities(tx: &dyn ReadTxn, facts: &Facts, fid: Fid) -> FsResult<Option<Broken>> {
    let there = tx.get(Table::Xattrs, &keys::xattr(fid, FILE_CAPABILITIES_XATTR))?.is_some();
    let Some(mut inode) = Stored::<Inode>::read(tx, Table::Inodes, &keys::fid(fid))?.good() else { return Ok(None) };
    if inode.has_capabilities == there {
        return Ok(None);
    }
    inode.has_capabilities = there;
    inode.attr_changed(facts.now);
    let mut draft = Draft::new(tx);
    draft.sees(Table::Xattrs, keys::xattr(fid, FILE_CAPABILITIES_XATTR));
    tree::put_inode(draft.tx(), fid, &inode);
    let what = if there { "has file capabilities and does not know it" } else { "has lost its file capabilities" };
    Ok(facts.broken(FindingKind::Attribute, what, Remedy::Mend(draft.finish()?)).file(fid))
}

/// Whether an inode has an ACL that its kind cannot have.
pub fn has_strange_acl(inode: &Inode) -> bool {
    inode.default_acl.is_some() && !inode.is_dir() || inode.acl.is_some() && inode.file_type() == FileType::Symlink
}

/// An ACL that the kind of file cannot have; nobody asks for it, so it is taken away.
pub fn acl(tx: &dyn ReadTxn, facts: &Facts, fid: Fid) -> FsResult<Option<Broken>> {
    let Some(mut inode) = Stored::<Inode>::read(tx, Table::Inodes, &keys::fid(fid))?.good() else { return Ok(None) };
    if !has_strange_acl(&inode) {
        return Ok(None);
    }
    let what = format!("has an ACL that a {:?} does not have", inode.file_type());
    inode.default_acl = None;
    if inode.file_type() == FileType::Symlink {
        inode.acl = None;
    }
    inode.attr_changed(facts.now);
    let mut draft = Draft::new(tx);
    tree::put_inode(draft.tx(), fid, &inode);
    Ok(facts.broken(FindingKind::Attribute, what, Remedy::Mend(draft.finish()?)).file(fid))
}
