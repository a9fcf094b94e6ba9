//! Sessions, reply records and FID sequences: what makes a change happen exactly once and an identifier be used once.

use sateen_types::limits::SESSION_SLOTS_MAX;
use sateen_types::op::Mutation;
use sateen_types::{Fid, FsCode, FsError, FsResult, SessionId};

use super::{Access, access, held, mutate, repository, room, setattr, tree};
use crate::command::{Inputs, Outcome, Request};
use crate::store::codec::Record;
use crate::store::records::{ReplyRecord, SessionRecord};
use crate::store::{ReadTxn, Table, Txn, keys};

/// Begins a session.
pub fn open(tx: &mut dyn Txn, session: SessionId, client: &str, writer: u64, inputs: &Inputs) {
    let record = SessionRecord { client: client.to_owned(), opened: inputs.now, writer };
    tx.put(Table::Sessions, session.0.to_vec(), record.to_bytes());
}

/// Ends it; one that is not there has ended before.
pub fn close(tx: &mut dyn Txn, session: SessionId) -> FsResult<()> {
    tx.delete(Table::Sessions, session.0.to_vec());
    held::release_all(tx, session)?;
    repository::session_ended(tx, session)?;
    for (key, _) in tx.scan(Table::Replies, &session.0, None, SESSION_SLOTS_MAX as usize)? {
        tx.delete(Table::Replies, key);
    }
    Ok(())
}

/// Applies a client's change once, however often it is sent.
///
/// Only changes that succeeded are recorded: one that failed had no effect. So a slot's number may skip those that
/// failed, and any number above the recorded one is new; one below it is a request the client has an answer to.
pub fn exactly_once(tx: &mut dyn Txn, request: &Request, inputs: &Inputs) -> FsResult<Outcome> {
    let Request { session, slot, number, .. } = request;
    if let Some(logged) = &request.logged {
        return held::apply_logged(tx, request, logged, inputs);
    }
    if *slot >= SESSION_SLOTS_MAX || *number == 0 {
        return Err(FsError::new(
            FsCode::Invalid,
            format!("slot {slot}, number {number}: slots are below {SESSION_SLOTS_MAX} and numbers start at 1"),
        ));
    }
    refuse_unknown(tx, *session)?;
    let key = keys::reply(*session, *slot);
    if let Some(stored) = stored_reply(tx, request)? {
        if stored.number == *number {
            return Ok(Outcome::Reply { reply: stored.reply, replayed: true });
        }
        if stored.number > *number {
            return Err(FsError::new(
                FsCode::Stale,
                format!("request {number} of slot {slot} came after request {}", stored.number),
            ));
        }
    }
    room::refuse_when_full(&request.op, inputs)?;
    let reply = mutate(tx, *session, &request.credential, &request.op, inputs)?;
    let record = ReplyRecord { number: *number, reply };
    tx.put(Table::Replies, key, record.to_bytes());
    Ok(Outcome::Reply { reply: record.reply, replayed: false })
}

fn stored_reply(tx: &dyn ReadTxn, request: &Request) -> FsResult<Option<ReplyRecord>> {
    let stored = tx.get(Table::Replies, &keys::reply(request.session, request.slot))?;
    stored.map(|stored| ReplyRecord::from_bytes(&stored)).transpose()
}

/// Whether a change of a file's extent may be made, for those who ask others to give way to it first. One that was made keeps
/// its answer, whatever is allowed by now.
pub fn refuse_forbidden(tx: &dyn ReadTxn, request: &Request) -> FsResult<()> {
    if stored_reply(tx, request)?.is_some_and(|stored| stored.number == request.number) {
        return Ok(());
    }
    let who = &request.credential;
    match &request.op {
        Mutation::SetAttr(op) => setattr::refuse_forbidden(&tree::inode(tx, op.fid)?, who, op),
        Mutation::SetLayout { fid, .. } => access(&tree::inode(tx, *fid)?, who, Access::WRITE),
        _ => Ok(()),
    }
}

/// `Stale` if there is no such session.
pub fn refuse_unknown(tx: &dyn Txn, session: SessionId) -> FsResult<()> {
    match tx.get(Table::Sessions, &session.0)? {
        Some(_) => Ok(()),
        None => Err(FsError::new(FsCode::Stale, format!("session {session} does not exist any more"))),
    }
}

/// Takes the next FID sequence for good.
pub fn alloc_sequence(tx: &mut dyn Txn) -> FsResult<u64> {
    let sequence = tree::counter(tx, keys::NEXT_SEQUENCE)?.max(Fid::SEQ_FIRST);
    if !(Fid { seq: sequence, oid: 1, ver: 0 }).is_valid() {
        return Err(FsError::new(FsCode::NoSpace, "the file system has used up its FID sequences"));
    }
    tree::set_counter(tx, keys::NEXT_SEQUENCE, sequence + 1);
    Ok(sequence)
}
