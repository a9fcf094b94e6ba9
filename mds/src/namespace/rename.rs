//! Moving names. The order of checks is Linux's:
//!
//! 1. both parents are directories the caller may search; the old name exists; with `NoReplace` the new one does not,
//!    with `Exchange` it does;
//! 2. a directory does not move below itself (`Invalid`);
//! 3. both names stand for one file: nothing to do;
//! 4. write permission on both parents and the sticky rule for what leaves its place;
//! 5. a directory replaces only an empty directory, anything else only what is not a directory;
//! 6. no repository is linked to a directory that leaves its place, or below it (`Busy`; ours);
//! 7. a directory that changes parents is writable by the caller, since its `..` changes.

use sateen_types::limits::LINK_COUNT_MAX;
use sateen_types::op::{MutationReply, RenameMode};
use sateen_types::{Credential, Fid, FsCode, FsError, FsResult};

use super::create::{Place, look};
use super::perm::{Access, access, may_remove};
use super::unlink::{destroy, drop_link, refuse_nonempty};
use super::{repository, tree};
use crate::command::Inputs;
use crate::store::records::{Dentry, Inode};
use crate::store::{ReadTxn, Txn};

/// Deepest directory that is followed upwards; a loop in damaged metadata ends here.
const DEPTH_MAX: usize = 1 << 20;

/// A name with what is behind it.
struct Named<'a> {
    place: Place<'a>,
    entry: Dentry,
    inode: Inode,
}

impl<'a> Named<'a> {
    fn new(tx: &dyn ReadTxn, place: Place<'a>, entry: Dentry) -> FsResult<Named<'a>> {
        let inode = tree::named_inode(tx, &entry)?;
        Ok(Named { place, entry, inode })
    }
}

/// See the module.
pub fn rename(
    tx: &mut dyn Txn,
    who: &Credential,
    from: Place<'_>,
    to: Place<'_>,
    mode: RenameMode,
    inputs: &Inputs,
) -> FsResult<MutationReply> {
    let (from_dir, source) = look(tx, who, from)?;
    let (to_dir, target) = look(tx, who, to)?;
    let source = Named::new(tx, from, source.ok_or_else(|| tree::missing(from.0, from.1))?)?;
    match (mode, &target) {
        (RenameMode::NoReplace, Some(_)) => return Err(tree::taken(to.0, to.1)),
        (RenameMode::Exchange, None) => return Err(tree::missing(to.0, to.1)),
        _ => {}
    }
    let target = target.map(|entry| Named::new(tx, to, entry)).transpose()?;
    refuse_cycle(tx, &source, to.0)?;
    if mode == RenameMode::Exchange
        && let Some(target) = &target
    {
        refuse_cycle(tx, target, from.0)?;
    }
    if target.as_ref().is_some_and(|t| t.entry.fid == source.entry.fid) {
        return Ok(MutationReply::Done);
    }
    may_remove(&from_dir, &source.inode, who)?;
    match &target {
        Some(target) => may_remove(&to_dir, &target.inode, who)?,
        None => access(&to_dir, who, Access::CHANGE_NAMES)?,
    }
    if let Some(target) = &target
        && mode != RenameMode::Exchange
    {
        refuse_kinds(&source, target)?;
    }
    for gone in [Some(&source), target.as_ref()].into_iter().flatten().filter(|named| named.inode.is_dir()) {
        repository::refuse_linked(tx, gone.entry.fid, gone.place.1, inputs)?;
    }
    if from.0 != to.0 {
        let moved = [Some(&source), target.as_ref().filter(|_| mode == RenameMode::Exchange)];
        for moved in moved.into_iter().flatten().filter(|m| m.inode.is_dir()) {
            access(&moved.inode, who, Access::WRITE)?;
        }
        let gains = source.inode.is_dir() && target.as_ref().is_none_or(|t| !t.inode.is_dir());
        if gains && to_dir.nlink >= LINK_COUNT_MAX {
            return Err(FsError::new(FsCode::TooManyLinks, format!("directory {} has {} links", to.0, to_dir.nlink)));
        }
    }
    match (mode, target) {
        (RenameMode::Exchange, Some(target)) => exchange(tx, source, target, inputs)?,
        (_, target) => replace(tx, source, target, to, inputs)?,
    }
    Ok(MutationReply::Done)
}

fn refuse_kinds(source: &Named<'_>, target: &Named<'_>) -> FsResult<()> {
    match (source.inode.is_dir(), target.inode.is_dir()) {
        (true, false) => {
            let name = target.place.1;
            Err(FsError::new(FsCode::NotDirectory, format!("a directory cannot replace {name:?}, which is none")))
        }
        (false, true) => {
            let name = target.place.1;
            Err(FsError::new(FsCode::IsDirectory, format!("{name:?} is a directory: only a directory can replace it")))
        }
        (true, true) => refuse_nonempty(&target.inode, target.place.1),
        (false, false) => Ok(()),
    }
}

/// `Invalid` if `moved` is a directory and `into` lies in it or is it.
fn refuse_cycle(tx: &dyn ReadTxn, moved: &Named<'_>, into: Fid) -> FsResult<()> {
    if !moved.inode.is_dir() || moved.place.0 == into {
        return Ok(());
    }
    let mut at = into;
    for _ in 0..DEPTH_MAX {
        if at == moved.entry.fid {
            let name = moved.place.1;
            return Err(FsError::new(FsCode::Invalid, format!("directory {name:?} cannot move below itself")));
        }
        if at == Fid::ROOT {
            return Ok(());
        }
        at = tree::parent_of(tx, at)?;
    }
    Err(FsError::new(FsCode::Internal, format!("directory {into} is not below the root")))
}

/// The source takes the new name; what had it goes. A name that existed keeps its place in listings; so does one that
/// stays in its directory, so that renaming while listing ends.
fn replace(
    tx: &mut dyn Txn,
    source: Named<'_>,
    target: Option<Named<'_>>,
    to: Place<'_>,
    inputs: &Inputs,
) -> FsResult<()> {
    let now = inputs.now;
    let mut cookie = (source.place.0 == to.0).then_some(source.entry.cookie);
    if let Some(target) = target {
        cookie = Some(target.entry.cookie);
        tree::remove_name(tx, to, &target.entry, now)?;
        if target.inode.is_dir() {
            destroy(tx, target.entry.fid)?;
        } else {
            drop_link(tx, target.entry.fid, target.inode, inputs)?;
        }
    }
    tree::remove_name(tx, source.place, &source.entry, now)?;
    put_name(tx, to, source, cookie, inputs)
}

fn exchange(tx: &mut dyn Txn, source: Named<'_>, target: Named<'_>, inputs: &Inputs) -> FsResult<()> {
    let (from, to) = (source.place, target.place);
    let (from_cookie, to_cookie) = (source.entry.cookie, target.entry.cookie);
    tree::remove_name(tx, from, &source.entry, inputs.now)?;
    tree::remove_name(tx, to, &target.entry, inputs.now)?;
    put_name(tx, to, source, Some(to_cookie), inputs)?;
    put_name(tx, from, target, Some(from_cookie), inputs)
}

fn put_name(
    tx: &mut dyn Txn,
    to: Place<'_>,
    mut moved: Named<'_>,
    cookie: Option<u64>,
    inputs: &Inputs,
) -> FsResult<()> {
    moved.inode.attr_changed(inputs.now);
    tree::put_inode(tx, moved.entry.fid, &moved.inode);
    tree::insert_name(tx, to, (moved.entry.fid, moved.entry.file_type), cookie, inputs.now)
}
