//! The changelog: a record of each change of names and files, in the transaction of the change, while somebody follows it.
//!
//! Records are numbered in order and kept until every user has cleared them, but never more than [`CHANGELOG_RECORDS_MAX`]: then
//! the user that is furthest behind is ended. The kinds that any user wants are one number in `config`, so that nothing else is
//! looked up where nobody follows.

use sateen_types::changelog::{ChangeMask, ChangeRecord, ChangeType, ChangeUser, ChangedName, Changelog};
use sateen_types::limits::{CHANGELOG_RECORDS_MAX, CHANGELOG_USERS_MAX};
use sateen_types::op::{Mutation, MutationReply, RenameMode};
use sateen_types::{Credential, Fid, FileType, FsCode, FsError, FsResult, HsmFlags, Name, Timestamp};

use super::{repository, tree};
use crate::command::{Inputs, Outcome};
use crate::store::codec::Record;
use crate::store::{ReadTxn, Table, Txn, keys};

/// Records that one command removes.
const PURGE_PAGE: usize = 4096;
/// Records that go for each that comes, where the log is full.
const TRIM: u64 = 2;

/// A change of who follows.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields are named for what they are")]
pub enum Change {
    /// A new user.
    Register { name: String, mask: ChangeMask },
    /// It goes.
    Deregister { id: u32 },
    /// It does not need records up to `end` any more; 0: up to the newest.
    Clear { id: u32, end: u64 },
    /// Removes some of the records that nobody needs.
    Purge,
}

/// The answer to a [`Change`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing to tell.
    Done,
    /// The new user.
    User(ChangeUser),
    /// There is more to purge.
    More(bool),
}

/// Applies a change.
pub fn apply(tx: &mut dyn Txn, change: &Change, inputs: &Inputs) -> FsResult<Outcome> {
    Ok(Outcome::Changelog(match change {
        Change::Register { name, mask } => Answer::User(register(tx, name, *mask, inputs)?),
        Change::Deregister { id } => {
            user(tx, *id)?;
            end_user(tx, *id)?;
            Answer::Done
        }
        Change::Clear { id, end } => {
            clear(tx, *id, *end, inputs)?;
            Answer::Done
        }
        Change::Purge => Answer::More(purge(tx)?),
    }))
}

/// Who follows, and how long the log is.
pub fn show(tx: &dyn ReadTxn) -> FsResult<Changelog> {
    let (index, first) = bounds(tx)?;
    Ok(Changelog { index, first, users: users(tx)? })
}

/// Up to `max` records behind `after`, in order.
pub fn read(tx: &dyn ReadTxn, after: u64, max: usize) -> FsResult<Vec<ChangeRecord>> {
    let rows = tx.scan(Table::Changelog, keys::CHANGELOG_RECORDS, Some(&keys::change(after)), max)?;
    rows.iter().map(|(_, row)| ChangeRecord::from_bytes(row)).collect()
}

/// Records that are kept.
pub fn length(tx: &dyn ReadTxn) -> FsResult<u64> {
    let (index, first) = bounds(tx)?;
    Ok((index + 1).saturating_sub(first))
}

/// Number of the newest record, and of the oldest that is kept.
fn bounds(tx: &dyn ReadTxn) -> FsResult<(u64, u64)> {
    Ok((tree::counter(tx, keys::CHANGES)?, tree::counter(tx, keys::FIRST_CHANGE)?.max(1)))
}

fn users(tx: &dyn ReadTxn) -> FsResult<Vec<ChangeUser>> {
    let rows = tx.scan(Table::Changelog, keys::CHANGELOG_USERS, None, CHANGELOG_USERS_MAX)?;
    rows.iter().map(|(_, row)| ChangeUser::from_bytes(row)).collect()
}

fn user(tx: &dyn ReadTxn, id: u32) -> FsResult<ChangeUser> {
    let row = tx.get(Table::Changelog, &keys::change_user(id))?;
    let row = row.ok_or_else(|| FsError::new(FsCode::NotFound, format!("no changelog user: cl{id}")))?;
    ChangeUser::from_bytes(&row)
}

fn put_user(tx: &mut dyn Txn, user: &ChangeUser) {
    tx.put(Table::Changelog, keys::change_user(user.id), user.to_bytes());
}

fn register(tx: &mut dyn Txn, name: &str, mask: ChangeMask, inputs: &Inputs) -> FsResult<ChangeUser> {
    if users(tx)?.len() >= CHANGELOG_USERS_MAX {
        return Err(FsError::new(FsCode::NoSpace, format!("the changelog has {CHANGELOG_USERS_MAX} users"))
            .with_hint("deregister those that do not read it any more"));
    }
    let id = tree::counter(tx, keys::NEXT_CHANGE_USER)?.max(1);
    tree::set_counter(tx, keys::NEXT_CHANGE_USER, id + 1);
    let cleared = tree::counter(tx, keys::CHANGES)?;
    let id = u32::try_from(id).map_err(|_| FsError::new(FsCode::NoSpace, "all numbers of users are used up"))?;
    let user = ChangeUser { id, name: name.to_owned(), cleared, seen: inputs.now, mask };
    put_user(tx, &user);
    sum_masks(tx)?;
    Ok(user)
}

fn end_user(tx: &mut dyn Txn, id: u32) -> FsResult<()> {
    tx.delete(Table::Changelog, keys::change_user(id));
    sum_masks(tx)
}

fn sum_masks(tx: &mut dyn Txn) -> FsResult<()> {
    let all = users(tx)?.iter().fold(0, |bits, user| bits | user.mask.0);
    tree::set_counter(tx, keys::CHANGE_USERS, all.into());
    Ok(())
}

fn clear(tx: &mut dyn Txn, id: u32, end: u64, inputs: &Inputs) -> FsResult<()> {
    let mut user = user(tx, id)?;
    let newest = tree::counter(tx, keys::CHANGES)?;
    if end > newest {
        return Err(FsError::new(FsCode::Invalid, format!("record out of range: {end}"))
            .with_hint(format!("the newest record is {newest}")));
    }
    let end = if end == 0 { newest } else { end };
    user.cleared = user.cleared.max(end);
    user.seen = inputs.now;
    put_user(tx, &user);
    Ok(())
}

/// The newest record that nobody needs.
fn unneeded(tx: &dyn ReadTxn) -> FsResult<u64> {
    let least = users(tx)?.iter().map(|user| user.cleared).min();
    least.map_or_else(|| tree::counter(tx, keys::CHANGES), Ok)
}

fn purge(tx: &mut dyn Txn) -> FsResult<bool> {
    let (_, first) = bounds(tx)?;
    let up_to = unneeded(tx)?;
    let end = (first + PURGE_PAGE as u64).min(up_to + 1);
    for index in first..end {
        tx.delete(Table::Changelog, keys::change(index));
    }
    if end > first {
        tree::set_counter(tx, keys::FIRST_CHANGE, end);
    }
    Ok(end <= up_to)
}

/// The log is as long as it may be: what nobody needs goes; if somebody needs all of it, whoever is furthest behind goes.
fn trim(tx: &mut dyn Txn, first: u64) -> FsResult<()> {
    if first > unneeded(tx)? {
        let Some(slowest) = users(tx)?.into_iter().min_by_key(|user| user.cleared) else { return Ok(()) };
        end_user(tx, slowest.id)?;
    }
    let end = (first + TRIM).min(unneeded(tx)? + 1);
    for index in first..end {
        tx.delete(Table::Changelog, keys::change(index));
    }
    tree::set_counter(tx, keys::FIRST_CHANGE, end.max(first));
    Ok(())
}

/// Kinds that somebody wants.
fn wanted(tx: &dyn ReadTxn) -> FsResult<ChangeMask> {
    Ok(ChangeMask(tree::counter(tx, keys::CHANGE_USERS)? as u32))
}

/// Adds a record, if somebody wants its kind. Its number is given here.
fn add(tx: &mut dyn Txn, mut record: ChangeRecord) -> FsResult<()> {
    if !wanted(tx)?.has(record.kind) {
        return Ok(());
    }
    let (newest, first) = bounds(tx)?;
    record.index = newest + 1;
    if record.index - first >= CHANGELOG_RECORDS_MAX {
        trim(tx, first)?;
    }
    tree::set_counter(tx, keys::CHANGES, record.index);
    tx.put(Table::Changelog, keys::change(record.index), record.to_bytes());
    Ok(())
}

fn bare(kind: ChangeType, target: Fid, who: &Credential, inputs: &Inputs) -> ChangeRecord {
    ChangeRecord { uid: who.uid, gid: who.gid, ..by_itself(kind, target, inputs.now) }
}

/// Of what no client has asked for.
fn by_itself(kind: ChangeType, target: Fid, now: Timestamp) -> ChangeRecord {
    ChangeRecord {
        index: 0,
        kind,
        time: now,
        flags: 0,
        target: Some(target),
        uid: 0,
        gid: 0,
        name: None,
        source: None,
        xattr: None,
    }
}

/// Something got a name that no client gave it.
pub fn named(
    tx: &mut dyn Txn,
    (parent, name): (Fid, &Name),
    (fid, file_type): (Fid, FileType),
    now: Timestamp,
) -> FsResult<()> {
    let kind = match file_type {
        FileType::Directory => ChangeType::Mkdir,
        FileType::Symlink => ChangeType::SoftLink,
        FileType::Regular => ChangeType::Create,
        _ => ChangeType::Mknod,
    };
    let name = Some(ChangedName { parent, name: name.clone() });
    add(tx, ChangeRecord { name, ..by_itself(kind, fid, now) })
}

/// A name is about to go that no client has taken away.
pub fn unnamed(tx: &mut dyn Txn, (parent, name): (Fid, &Name), now: Timestamp) -> FsResult<()> {
    if wanted(tx)?.0 == 0 {
        return Ok(());
    }
    let Some(entry) = tree::entry(tx, parent, name)? else { return Ok(()) };
    let kind = if entry.file_type == FileType::Directory { ChangeType::Rmdir } else { ChangeType::Unlink };
    let Some(Gone { fid, flags }) = gone(tx, parent, name)? else { return Ok(()) };
    let name = Some(ChangedName { parent, name: name.clone() });
    add(tx, ChangeRecord { name, flags, ..by_itself(kind, fid, now) })
}

/// What happened to a file's copy in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HsmEvent {
    /// It was written.
    Archive,
    /// The file was loaded in full.
    Restore,
    /// What was asked for and waited was taken back.
    Cancel,
    /// What the OSTs had of the file went.
    Release,
    /// It is to be deleted, and the file has nothing to do with it any more.
    Remove,
    /// Somebody has set or cleared state bits.
    State,
}

/// See [`HsmEvent`].
pub fn hsm(tx: &mut dyn Txn, fid: Fid, event: HsmEvent, now: Timestamp) -> FsResult<()> {
    let flags = match event {
        HsmEvent::Archive => 0,
        HsmEvent::Restore => 0x80,
        HsmEvent::Cancel => 0x100,
        HsmEvent::Release => 0x180,
        HsmEvent::Remove => 0x200,
        HsmEvent::State => 0x280,
    };
    add(tx, ChangeRecord { flags, ..by_itself(ChangeType::Hsm, fid, now) })
}

/// What must be known of a change before it is made.
#[derive(Debug)]
pub enum Before {
    /// Nobody follows.
    Nobody,
    /// Nothing.
    Nothing,
    /// What loses its name.
    Gone(Gone),
    /// What is moved, and what is replaced or changes places with it.
    Moved(Fid, Option<Gone>),
}

/// Something that loses a name.
#[derive(Debug)]
pub struct Gone {
    fid: Fid,
    flags: u16,
}

fn gone(tx: &dyn ReadTxn, parent: Fid, name: &Name) -> FsResult<Option<Gone>> {
    let Some(entry) = tree::entry(tx, parent, name)? else { return Ok(None) };
    let inode = tree::named_inode(tx, &entry)?;
    let mut flags = 0;
    if inode.is_dir() || inode.nlink <= 1 {
        flags |= ChangeRecord::LAST_NAME;
    }
    if repository::hsm(tx, entry.fid)?.is_some_and(|row| row.flags.has(HsmFlags::ARCHIVED)) {
        flags |= ChangeRecord::ARCHIVED;
    }
    Ok(Some(Gone { fid: entry.fid, flags }))
}

/// To be asked before a client's change is made.
pub fn before(tx: &dyn ReadTxn, op: &Mutation) -> FsResult<Before> {
    if wanted(tx)?.0 == 0 {
        return Ok(Before::Nobody);
    }
    Ok(match op {
        Mutation::Unlink { parent, name } | Mutation::Rmdir { parent, name } => {
            gone(tx, *parent, name)?.map_or(Before::Nothing, Before::Gone)
        }
        Mutation::Rename { parent, name, new_parent, new_name, .. } => match tree::entry(tx, *parent, name)? {
            Some(moved) => Before::Moved(moved.fid, gone(tx, *new_parent, new_name)?),
            None => Before::Nothing,
        },
        _ => Before::Nothing,
    })
}

/// Records a client's change that was made.
pub fn after(
    tx: &mut dyn Txn,
    who: &Credential,
    op: &Mutation,
    before: Before,
    reply: &MutationReply,
    inputs: &Inputs,
) -> FsResult<()> {
    let at = |parent: Fid, name: &Name| Some(ChangedName { parent, name: name.clone() });
    let made = |kind, parent: Fid, name: &Name| match reply {
        MutationReply::Entry(entry) if !entry.existed => {
            Some(ChangeRecord { name: at(parent, name), ..bare(kind, entry.attr.fid, who, inputs) })
        }
        _ => None,
    };
    let of = |kind, fid| Some(bare(kind, fid, who, inputs));
    let record = match (op, before) {
        (_, Before::Nobody) => None,
        (Mutation::Create(op), _) => made(ChangeType::Create, op.parent, &op.name),
        (Mutation::Mkdir { parent, name, .. }, _) => made(ChangeType::Mkdir, *parent, name),
        (Mutation::Mknod { parent, name, .. }, _) => made(ChangeType::Mknod, *parent, name),
        (Mutation::Symlink { parent, name, .. }, _) => made(ChangeType::SoftLink, *parent, name),
        (Mutation::Link { fid, parent, name }, _) => {
            Some(ChangeRecord { name: at(*parent, name), ..bare(ChangeType::HardLink, *fid, who, inputs) })
        }
        (Mutation::Unlink { parent, name }, Before::Gone(gone)) => {
            let name = at(*parent, name);
            Some(ChangeRecord { name, flags: gone.flags, ..bare(ChangeType::Unlink, gone.fid, who, inputs) })
        }
        (Mutation::Rmdir { parent, name }, Before::Gone(gone)) => {
            let name = at(*parent, name);
            Some(ChangeRecord { name, flags: gone.flags, ..bare(ChangeType::Rmdir, gone.fid, who, inputs) })
        }
        (Mutation::Rename { parent, name, new_parent, new_name, mode }, Before::Moved(moved, other)) => {
            return renamed(tx, (who, inputs), (*parent, name), (*new_parent, new_name), (moved, other, *mode));
        }
        (Mutation::SetAttr(op), _) => {
            let attributes = op.mode.is_some() || op.uid.is_some() || op.gid.is_some();
            let kinds = [
                (op.size.is_some(), ChangeType::Truncate),
                (attributes, ChangeType::SetAttr),
                (op.mtime.is_some(), ChangeType::Mtime),
                (op.atime.is_some(), ChangeType::Atime),
            ];
            kinds.into_iter().find(|(is, _)| *is).and_then(|(_, kind)| of(kind, op.fid))
        }
        (Mutation::SetXattr { fid, name, .. } | Mutation::RemoveXattr { fid, name }, _) => {
            let xattr = Some(name.as_bytes().to_vec());
            Some(ChangeRecord { xattr, ..bare(ChangeType::Xattr, *fid, who, inputs) })
        }
        (
            Mutation::Instantiate { fid, .. }
            | Mutation::SetLayout { fid, .. }
            | Mutation::SetDefaultLayout { fid, .. },
            _,
        ) => of(ChangeType::Layout, *fid),
        (Mutation::WriteDone(op), _) if op.end > 0 || op.mtime.is_some() => of(ChangeType::Close, op.fid),
        (Mutation::ReadDone(op), _) => {
            for (fid, _) in &op.times {
                add(tx, bare(ChangeType::Atime, *fid, who, inputs))?;
            }
            None
        }
        _ => None,
    };
    record.map_or(Ok(()), |record| add(tx, record))
}

/// A rename is one record; changing places is two.
fn renamed(
    tx: &mut dyn Txn,
    (who, inputs): (&Credential, &Inputs),
    from: (Fid, &Name),
    to: (Fid, &Name),
    (moved, other, mode): (Fid, Option<Gone>, RenameMode),
) -> FsResult<()> {
    let at = |(parent, name): (Fid, &Name)| ChangedName { parent, name: name.clone() };
    if other.as_ref().is_some_and(|other| other.fid == moved) {
        return Ok(());
    }
    let record = |from, to, fid, replaced: Option<Gone>| ChangeRecord {
        target: replaced.as_ref().map(|gone| gone.fid),
        flags: replaced.map_or(0, |gone| gone.flags),
        name: Some(at(to)),
        source: Some((fid, at(from))),
        ..bare(ChangeType::Rename, fid, who, inputs)
    };
    match (mode, other) {
        (RenameMode::Exchange, Some(other)) => {
            add(tx, record(from, to, moved, None))?;
            add(tx, record(to, from, other.fid, None))
        }
        (_, replaced) => add(tx, record(from, to, moved, replaced)),
    }
}
