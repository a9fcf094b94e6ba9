//! Pass 2: all tables whose keys begin with a file, merged: its inode, names, layout, attributes, and whether it waits to
//! be removed.

use sateen_types::attr::FILE_CAPABILITIES_XATTR;
use sateen_types::{Fid, FsResult};

use super::connected::{self, Connected};
use super::links::{self, Verdict, is_named, verdict};
use super::name::{self, Place};
use super::rows::{Rows, Stored, first_group};
use super::{Check, owned};
use crate::store::records::Inode;
use crate::store::{ReadTxn, Table, keys};

/// See the module.
pub fn walk(check: &mut Check<'_, '_>) -> FsResult<()> {
    let view = check.job.store.snapshot();
    let view = &*view;
    let mut inodes = check.rows(view, Table::Inodes);
    let mut parents = check.rows(view, Table::Parents);
    let mut orphans = check.rows(view, Table::Orphans);
    let mut layouts = check.rows(view, Table::Layouts);
    let mut defaults = check.rows(view, Table::DefaultLayouts);
    let mut xattrs = check.rows(view, Table::Xattrs);
    let mut connected = Connected::default();
    while let Some(group) =
        first_group(&mut [&mut inodes, &mut parents, &mut orphans, &mut layouts, &mut defaults, &mut xattrs])?
    {
        let inode = one(check, &mut inodes, Table::Inodes, &group, false)?;
        let orphan = one(check, &mut orphans, Table::Orphans, &group, true)?.is_some();
        let layout = one(check, &mut layouts, Table::Layouts, &group, false)?;
        let default = one(check, &mut defaults, Table::DefaultLayouts, &group, false)?;
        let Ok(fid) = keys::parse_fid(&group) else {
            for (rows, table) in [(&mut parents, Table::Parents), (&mut xattrs, Table::Xattrs)] {
                while let Some((key, _)) = rows.take(&group)? {
                    check.unusable(table, &key, "it has no file", true)?;
                }
            }
            continue;
        };
        let inode = inode_of(check, fid, inode)?;
        if !inode.is_missing() {
            check.decided.see(fid);
        }
        let names = count_names(check, view, fid, &mut parents, &group)?;
        let capable = see_xattrs(check, fid, &mut xattrs, &group, inode.is_missing())?;

        if match &inode {
            Stored::Good(inode) => verdict(fid, inode, names, orphan) != Verdict::Right,
            Stored::Missing => orphan,
            Stored::Bad => false,
        } {
            check.settle(|tx, facts| links::look(tx, facts, fid))?;
        }
        let osts = check.job.osts;
        if owned::layout_is_doubtful(layout.as_deref(), &inode, osts) {
            check.settle(|tx, facts| owned::layout(tx, facts, fid, osts))?;
        }
        if default.is_some() {
            check.settle(|tx, facts| owned::default_layout(tx, facts, fid))?;
        }
        if let Stored::Good(inode) = &inode {
            if inode.has_capabilities != capable {
                check.settle(|tx, facts| owned::capabilities(tx, facts, fid))?;
            }
            if owned::has_strange_acl(inode) {
                check.settle(|tx, facts| owned::acl(tx, facts, fid))?;
            }
            if inode.is_dir() && fid != Fid::ROOT && connected.cuts_ring(view, fid)? {
                check.settle(|tx, facts| connected::look(tx, facts, fid))?;
            }
        }
    }
    Ok(())
}

/// The value of the one row of a group; others with its beginning are no rows of ours.
fn one(
    check: &mut Check<'_, '_>,
    rows: &mut Rows<'_>,
    table: Table,
    group: &[u8],
    removable: bool,
) -> FsResult<Option<Vec<u8>>> {
    let mut found = None;
    while let Some((key, value)) = rows.take(group)? {
        check.report.step(0)?;
        if keys::parse_fid(&key).is_ok_and(Fid::is_valid) {
            found = Some(value);
        } else {
            check.unusable(table, &key, "its key is no FID of a file", removable)?;
        }
    }
    Ok(found)
}

fn inode_of(check: &mut Check<'_, '_>, fid: Fid, stored: Option<Vec<u8>>) -> FsResult<Stored<Inode>> {
    let inode = Stored::<Inode>::of(stored.as_deref());
    check.report.count(|tally| tally.inodes += u64::from(stored.is_some()));
    if inode == Stored::Bad {
        check.settle(|tx, facts| match Stored::<Inode>::read(tx, Table::Inodes, &keys::fid(fid))? {
            Stored::Bad => {
                let broken =
                    super::rows::unusable(tx, facts, Table::Inodes, &keys::fid(fid), "it does not decode", false)?;
                Ok(broken.and_then(|b| b.file(fid)))
            }
            _ => Ok(None),
        })?;
    }
    Ok(inode)
}

/// Counts the names that are true. A parent row without its name is settled with the name.
fn count_names(
    check: &mut Check<'_, '_>,
    view: &dyn ReadTxn,
    fid: Fid,
    parents: &mut Rows<'_>,
    group: &[u8],
) -> FsResult<u64> {
    let mut names = 0;
    while let Some((key, _)) = parents.take(group)? {
        check.report.step(0)?;
        let Ok((_, dir, name)) = keys::parse_parent(&key) else {
            check.unusable(Table::Parents, &key, "it has no directory or no name", true)?;
            continue;
        };
        if is_named(view, fid, dir, &name)? {
            names += 1;
        } else {
            let place = Place { dir, name, cookie: None, fid: Some(fid) };
            check.settle(|tx, facts| name::look(tx, facts, &place))?;
        }
    }
    Ok(names)
}

/// Looks at attributes; gives whether file capabilities are among them.
fn see_xattrs(check: &mut Check<'_, '_>, fid: Fid, xattrs: &mut Rows<'_>, group: &[u8], lost: bool) -> FsResult<bool> {
    let mut capable = false;
    while let Some((key, _)) = xattrs.take(group)? {
        check.report.step(0)?;
        let (_, name) = keys::parse_xattr(&key)?;
        capable |= name == FILE_CAPABILITIES_XATTR;
        if lost || name.is_empty() || name.starts_with(b"system.") {
            check.settle(|tx, facts| owned::xattr(tx, facts, fid, name))?;
        }
    }
    Ok(capable)
}
