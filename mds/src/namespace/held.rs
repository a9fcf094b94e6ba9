//! Directories that one client holds: it alone uses them, and so may answer changes in them itself and tell the MDS later.
//!
//! A directory is held from its birth, by the client that made it, until the client gives it up or its session ends; it
//! is never held again. So what the client knows of it is all there is. Who holds it is durable, like everything that was
//! answered: another client's request that touches it waits until its holder has told everything and given it up, also if
//! the MDS was restarted in between.
//!
//! The holder's changes come as a log with numbers that rise by one. The number of the last one is stored with each, so
//! that a part of the log that comes twice is known; no number is ever used for two changes. Inodes have FIDs of a sequence that was lent to the session. What was
//! accepted by the holder under the rules of [`super`] is accepted here; a change that fails is left out.
//!
//! Held are only directories without ACLs and special bits: their rules are simple enough for a client.

use sateen_types::op::{Entry, Mutation, MutationReply, RenameMode};
use sateen_types::{Fid, FileType, FsCode, FsError, FsResult, SessionId};

use super::perm::{S_ISGID, S_ISVTX};
use super::session::{alloc_sequence, close, refuse_unknown};
use super::{layout, mutate, repository, tree};
use crate::command::{Command, Inputs, Logged, Mend, Outcome, Request};
use crate::store::codec::{Reader, Record, Writer};
use crate::store::{ReadTxn, Table, Txn, keys};

/// Rows looked at per scan.
const PAGE: usize = 1024;
/// A session that no client has, for changes that the server makes itself.
pub const NOBODY: SessionId = SessionId([0; 16]);

/// A client that holds directories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HolderRecord {
    /// FIDs of this sequence are the client's to give.
    pub sequence: u64,
    /// Changes of its log that were made or left out.
    pub applied: u64,
}

impl Record for HolderRecord {
    const WHAT: &'static str = "holder";
    fn write(&self, out: &mut Writer) {
        out.u64(self.sequence);
        out.u64(self.applied);
    }
    fn read(input: &mut Reader<'_>) -> Option<HolderRecord> {
        Some(HolderRecord { sequence: input.u64()?, applied: input.u64()? })
    }
}

fn holder(tx: &dyn ReadTxn, session: SessionId) -> FsResult<Option<HolderRecord>> {
    tx.get(Table::Held, &keys::holder(session))?.map(|v| HolderRecord::from_bytes(&v)).transpose()
}

/// The sequence a session makes its FIDs of; the same if it asks again.
pub fn lend_sequence(tx: &mut dyn Txn, session: SessionId) -> FsResult<u64> {
    refuse_unknown(tx, session)?;
    if let Some(known) = holder(tx, session)? {
        return Ok(known.sequence);
    }
    let record = HolderRecord { sequence: alloc_sequence(tx)?, applied: 0 };
    tx.put(Table::Held, keys::holder(session), record.to_bytes());
    Ok(record.sequence)
}

/// The session holds the directory that it has just made, if it asked for that and the directory is a simple one.
pub fn hold(tx: &mut dyn Txn, session: SessionId, made: &MutationReply, inputs: &Inputs) {
    if let MutationReply::Entry(Entry { attr, .. }) = made
        && inputs.may_hold
        && attr.mode & (S_ISGID | S_ISVTX) == 0
        && !attr.has_acl
        && !attr.has_default_acl
    {
        tx.put(Table::Held, keys::held_dir(attr.fid), session.0.to_vec());
    }
}

/// Whether the session holds the directory.
pub fn is_held_by(tx: &dyn ReadTxn, session: SessionId, dir: Fid) -> FsResult<bool> {
    Ok(tx.get(Table::Held, &keys::held_dir(dir))?.is_some_and(|by| by == session.0))
}

/// The session gives directories up. Those of others are left alone.
pub fn release(tx: &mut dyn Txn, session: SessionId, dirs: &[Fid]) -> FsResult<()> {
    for dir in dirs {
        let by = tx.get(Table::Held, &keys::held_dir(*dir))?;
        if by.is_some_and(|by| by == session.0 || keys::parse_session(&by).is_err()) {
            tx.delete(Table::Held, keys::held_dir(*dir));
        }
    }
    Ok(())
}

/// The session is over.
pub fn release_all(tx: &mut dyn Txn, session: SessionId) -> FsResult<()> {
    if tx.get(Table::Held, &keys::holder(session))?.is_some() {
        tx.delete(Table::Held, keys::holder(session));
    }
    for (dir, by) in all(tx)? {
        if by == session {
            tx.delete(Table::Held, keys::held_dir(dir));
        }
    }
    Ok(())
}

/// Every directory that is held, with its holder.
pub fn all(tx: &dyn ReadTxn) -> FsResult<Vec<(Fid, SessionId)>> {
    let mut found = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = tx.scan(Table::Held, b"d", after.as_deref(), PAGE)?;
        for (key, by) in &rows {
            // One that cannot be read is nobody's: `sateen fsck` tells and removes it.
            if let (Ok(Some(dir)), Ok(by)) = (keys::parse_held_dir(key), keys::parse_session(by)) {
                found.push((dir, by));
            }
        }
        match rows.into_iter().next_back() {
            Some((key, _)) => after = Some(key),
            None => return Ok(found),
        }
    }
}

/// Directories whose holder must give them up before a change is made, each with the one session that may hold it all the same.
///
/// A client that changes names beside its log must give up its own directories, too, whose names those are: it may not know
/// yet that it holds them.
pub fn touched(tx: &dyn ReadTxn, command: &Command) -> FsResult<Vec<(Fid, SessionId)>> {
    match command {
        Command::Mutate(request) => {
            let children = if request.logged.is_some() { request.session } else { NOBODY };
            let Touched { dirs, named } = touched_by(tx, &request.op)?;
            let dirs = dirs.into_iter().map(|dir| (dir, request.session));
            Ok(dirs.chain(named.into_iter().map(|dir| (dir, children))).collect())
        }
        Command::Mend(mend) => Ok(mended(mend).into_iter().map(|dir| (dir, NOBODY)).collect()),
        Command::Repository(change) => repository::touched(tx, change),
        _ => Ok(Vec::new()),
    }
}

/// Every inode of which a correction changes rows.
fn mended(mend: &Mend) -> Vec<Fid> {
    let of = |(table, key, _): &(Table, Vec<u8>, Option<Vec<u8>>)| match table {
        Table::Inodes | Table::Dentries | Table::DirIndex | Table::Xattrs | Table::DefaultLayouts => {
            key.first_chunk().map(|fid| Fid::from_bytes(*fid))
        }
        Table::Held => keys::parse_held_dir(key).ok().flatten(),
        _ => None,
    };
    mend.changes.iter().filter_map(of).collect()
}

/// Ends the sessions that hold directories which a correction changes, where no client can be asked to give them up.
pub fn end_holders(tx: &mut dyn Txn, mend: &Mend) -> FsResult<()> {
    for dir in mended(mend) {
        // A row that says who holds it is only corrected where nobody can.
        let corrects_that =
            mend.changes.iter().any(|(table, key, _)| *table == Table::Held && *key == keys::held_dir(dir));
        let by = tx.get(Table::Held, &keys::held_dir(dir))?;
        if let Some(session) = by.and_then(|by| keys::parse_session(&by).ok()).filter(|_| !corrects_that) {
            close(tx, session)?;
        }
    }
    Ok(())
}

/// What a change touches.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    /// In which names change, or that change themselves.
    pub dirs: Vec<Fid>,
    /// Directories that lose their name.
    pub named: Vec<Fid>,
}

pub(super) fn touched_by(tx: &dyn ReadTxn, op: &Mutation) -> FsResult<Touched> {
    let named = |parent, name| -> FsResult<Option<Fid>> {
        let entry = tree::entry(tx, parent, name)?;
        Ok(entry.filter(|e| e.file_type == FileType::Directory).map(|e| e.fid))
    };
    let only = |dir| Touched { dirs: vec![dir], named: Vec::new() };
    Ok(match op {
        Mutation::Create(op) => only(op.parent),
        Mutation::Mkdir { parent, .. }
        | Mutation::Mknod { parent, .. }
        | Mutation::Symlink { parent, .. }
        | Mutation::Link { parent, .. } => only(*parent),
        Mutation::Unlink { parent, name } | Mutation::Rmdir { parent, name } => {
            Touched { named: named(*parent, name)?.into_iter().collect(), ..only(*parent) }
        }
        Mutation::Rename { parent, name, new_parent, new_name, .. } => Touched {
            dirs: vec![*parent, *new_parent],
            named: named(*parent, name)?.into_iter().chain(named(*new_parent, new_name)?).collect(),
        },
        Mutation::SetAttr(op) => only(op.fid),
        Mutation::SetXattr { fid, .. } | Mutation::RemoveXattr { fid, .. } | Mutation::SetDefaultLayout { fid, .. } => {
            only(*fid)
        }
        Mutation::Instantiate { .. } | Mutation::SetLayout { .. } | Mutation::WriteDone(_) | Mutation::ReadDone(_) => {
            Touched::default()
        }
    })
}

/// The next change of a client's log.
pub fn apply_logged(tx: &mut dyn Txn, request: &Request, logged: &Logged, inputs: &Inputs) -> FsResult<Outcome> {
    let Request { session, number, op, .. } = request;
    refuse_unknown(tx, *session)?;
    let mut record = holder(tx, *session)?.ok_or_else(|| {
        FsError::new(FsCode::Invalid, format!("session {session} has no log")).with_hint("ask for a sequence first")
    })?;
    if *number <= record.applied {
        return Ok(Outcome::Reply { reply: again(tx, op, logged)?, replayed: true });
    }
    if *number != record.applied + 1 && !logged.settled {
        let what = format!("change {number} of the log of session {session} came after {}", record.applied);
        return Err(FsError::new(FsCode::Invalid, what));
    }
    refuse_unfit(tx, op, logged, record.sequence)?;
    // A program has the answer already: there is no refusing for want of room.
    let inputs = Inputs { now: logged.at, fid: logged.fid, answered: true, ..inputs.clone() };
    let reply = mutate(tx, *session, &request.credential, op, &inputs)?;
    record.applied = *number;
    tx.put(Table::Held, keys::holder(*session), record.to_bytes());
    Ok(Outcome::Reply { reply, replayed: false })
}

/// What a client may not do by its log: anything that it cannot have decided alone, or with FIDs that are not its own.
fn refuse_unfit(tx: &dyn Txn, op: &Mutation, logged: &Logged, sequence: u64) -> FsResult<()> {
    let makes = match op {
        Mutation::Create(op) => op.exclusive,
        Mutation::Mkdir { .. } | Mutation::Symlink { .. } => true,
        Mutation::Unlink { .. } | Mutation::Rmdir { .. } => false,
        Mutation::Rename { mode, .. } if *mode != RenameMode::Exchange => false,
        Mutation::SetAttr(op) if op.size.is_none() => false,
        _ => return Err(FsError::new(FsCode::Invalid, "such a change does not come by a log")),
    };
    let own = |fid: Fid| fid.seq == sequence && fid.ver == 0 && fid.is_valid();
    match logged.fid {
        Some(fid) if makes && own(fid) && tree::find_inode(tx, fid)?.is_none() => Ok(()),
        None if !makes => Ok(()),
        fid => {
            let what = format!("fid: {fid:?} is not a new one of sequence {sequence:#x}");
            Err(FsError::new(FsCode::Invalid, what).with_hint("number what you make with the sequence you were lent"))
        }
    }
}

/// The answer to a change that came before: what the client may not know is where the file lies.
fn again(tx: &dyn Txn, op: &Mutation, logged: &Logged) -> FsResult<MutationReply> {
    let (Mutation::Create(_) | Mutation::Mkdir { .. }, Some(fid)) = (op, logged.fid) else {
        return Ok(MutationReply::Done);
    };
    Ok(match tree::find_inode(tx, fid)? {
        Some(inode) => {
            MutationReply::Entry(Entry { attr: inode.attr(fid), layout: layout::find(tx, fid)?, existed: false })
        }
        None => MutationReply::Done,
    })
}
