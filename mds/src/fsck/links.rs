//! One inode and its names: the link count, the table of files without a name, and whether there is a name at all.

use sateen_types::limits::LINK_COUNT_MAX;
use sateen_types::{Fid, FindingKind, FsResult, Name};

use super::draft::Draft;
use super::rows::{Rows, Stored};
use super::{Broken, Facts, Remedy};
use crate::namespace::tree;
use crate::store::records::{Dentry, Inode};
use crate::store::{ReadTxn, Table, keys};

/// What follows from the names of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All is as it should be.
    Right,
    /// It has these links, and no place among the files without a name.
    Links(u32),
    /// It has none, and waits for the last one who has it open.
    Orphan,
    /// It has none, and nobody knows of it.
    Unreachable,
    /// A directory with so many names.
    Names(u64),
}

/// Of an inode with `names` names that is in `orphans` or not.
pub fn verdict(fid: Fid, inode: &Inode, names: u64, orphan: bool) -> Verdict {
    if inode.is_dir() {
        return match (names, fid == Fid::ROOT) {
            (0, true) | (1, false) if orphan => Verdict::Links(inode.nlink),
            (0, true) | (1, false) => Verdict::Right,
            (0, false) => Verdict::Unreachable,
            _ => Verdict::Names(names),
        };
    }
    let links = u32::try_from(names).unwrap_or(LINK_COUNT_MAX).min(LINK_COUNT_MAX);
    match (links, inode.nlink, orphan) {
        (0, 0, true) => Verdict::Right,
        (0, 0, false) | (0, _, true) => Verdict::Orphan,
        (0, _, false) => Verdict::Unreachable,
        (_, counted, false) if counted == links => Verdict::Right,
        _ => Verdict::Links(links),
    }
}

/// Whether the entry of a name in `dir` says that it is `fid`.
pub fn is_named(tx: &dyn ReadTxn, fid: Fid, dir: Fid, name: &Name) -> FsResult<bool> {
    let entry = Stored::<Dentry>::read(tx, Table::Dentries, &keys::dentry(dir, name))?;
    Ok(entry.good().is_some_and(|entry| entry.fid == fid))
}

/// Names of a file that are true, up to `limit`.
pub fn names_of(tx: &dyn ReadTxn, fid: Fid, limit: u64) -> FsResult<(u64, Option<(Fid, Name)>)> {
    let (mut count, mut first) = (0, None);
    let mut rows = Rows::about(tx, Table::Parents, fid);
    while let Some((key, _)) = rows.next()? {
        let Ok((_, dir, name)) = keys::parse_parent(&key) else { continue };
        if is_named(tx, fid, dir, &name)? {
            count += 1;
            first = first.or(Some((dir, name)));
            if count == limit {
                break;
            }
        }
    }
    Ok((count, first))
}

/// What is wrong with the links of a file, if anything is.
pub fn look(tx: &dyn ReadTxn, facts: &Facts, fid: Fid) -> FsResult<Option<Broken>> {
    let orphan = tx.get(Table::Orphans, &keys::fid(fid))?.is_some();
    let inode = match Stored::<Inode>::read(tx, Table::Inodes, &keys::fid(fid))? {
        Stored::Good(inode) => inode,
        Stored::Missing if orphan => {
            let mut draft = Draft::new(tx);
            draft.tx().delete(Table::Orphans, keys::fid(fid));
            let what = "waits to be removed, but does not exist";
            return Ok(facts.broken(FindingKind::Links, what, Remedy::Mend(draft.finish()?)).file(fid));
        }
        _ => return Ok(None),
    };
    let (names, _) = names_of(tx, fid, u64::MAX)?;
    let mut draft = Draft::new(tx);
    draft.sees(Table::Orphans, keys::fid(fid));
    let counts = format!("counts {} links, has {names} names", inode.nlink);
    let waits = if orphan { ", and waits to be removed" } else { "" };
    let (kind, what) = match verdict(fid, &inode, names, orphan) {
        Verdict::Right => return Ok(None),
        Verdict::Names(names) => {
            let what = format!("is a directory with {names} names");
            return Ok(facts.broken(FindingKind::Links, what, Remedy::Unknown).file(fid));
        }
        Verdict::Links(nlink) => {
            set_links(&mut draft, facts, fid, &inode, nlink);
            draft.tx().delete(Table::Orphans, keys::fid(fid));
            (FindingKind::Links, format!("{counts}{waits}"))
        }
        Verdict::Orphan => {
            set_links(&mut draft, facts, fid, &inode, 0);
            draft.tx().put(Table::Orphans, keys::fid(fid), Vec::new());
            (FindingKind::Links, format!("{counts}{waits}; it goes when nobody has it open"))
        }
        Verdict::Unreachable => {
            let what = format!("{counts}; it belongs into /lost+found");
            return put_aside(draft, facts, fid, what);
        }
    };
    Ok(facts.broken(kind, what, Remedy::Mend(draft.finish()?)).file(fid))
}

fn set_links(draft: &mut Draft<'_>, facts: &Facts, fid: Fid, inode: &Inode, nlink: u32) {
    let mut inode = Inode { nlink, ..inode.clone() };
    inode.attr_changed(facts.now);
    tree::put_inode(draft.tx(), fid, &inode);
}

/// Gives what has no name one in `/lost+found`: its FID.
pub fn put_aside(mut draft: Draft<'_>, facts: &Facts, fid: Fid, what: String) -> FsResult<Option<Broken>> {
    let remedy = match facts.lost_and_found {
        None => Remedy::LostAndFound,
        Some(dir) => {
            let inode = tree::inode(draft.tx(), fid)?;
            let nlink = if inode.is_dir() { inode.nlink } else { 1 };
            set_links(&mut draft, facts, fid, &inode, nlink);
            draft.tx().delete(Table::Orphans, keys::fid(fid));
            let name = Name::parse(fid.to_string().as_bytes())?;
            let taken = tree::entry(draft.tx(), dir, &name)?.is_some();
            let named = tree::insert_name(draft.tx(), (dir, &name), (fid, inode.file_type()), None, facts.now);
            // Somebody has put something there under this very name, or has just removed the directory.
            if taken || named.is_err() { Remedy::Unknown } else { Remedy::Mend(draft.finish()?) }
        }
    };
    Ok(facts.broken(FindingKind::Unreachable, what, remedy).file(fid))
}
