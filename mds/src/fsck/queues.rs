//! Pass 3: what is still to be done (`intents`), what was answered (`sessions`, `replies`), and which clients have
//! directories to themselves (`held`).

use sateen_types::{Fid, FindingKind, FsResult, Layout, SessionId};

use super::draft::Draft;
use super::rows::{Stored, hex, unusable};
use super::{Broken, Check, Facts, Remedy};
use crate::namespace::held::HolderRecord;
use crate::namespace::tree;
use crate::store::codec::Record;
use crate::store::keys::{IntentId, IntentKind};
use crate::store::records::{DestroyIntent, Inode, ReplyRecord, SessionRecord, TruncateIntent};
use crate::store::{ReadTxn, Row, Table, keys};

/// First byte of the rows that list pending truncates by file.
const BY_FILE: u8 = b'f';

/// See the module.
pub fn walk(check: &mut Check<'_, '_>) -> FsResult<()> {
    let view = check.job.store.snapshot();
    let view = &*view;
    let mut intents = check.rows(view, Table::Intents);
    while let Some(row) = intents.next()? {
        check.report.step(0)?;
        intent(check, view, &row)?;
    }
    let mut sessions = check.rows(view, Table::Sessions);
    while let Some((key, value)) = sessions.next()? {
        if keys::parse_session(&key).is_err() || SessionRecord::from_bytes(&value).is_err() {
            check.unusable(Table::Sessions, &key, "it is no session", false)?;
        }
    }
    let mut replies = check.rows(view, Table::Replies);
    while let Some((key, value)) = replies.next()? {
        check.report.step(0)?;
        let Some(session) = key.first_chunk::<16>().filter(|_| key.len() == 20) else {
            check.unusable(Table::Replies, &key, "it has no session or no slot", true)?;
            continue;
        };
        let session = SessionId(*session);
        if view.get(Table::Sessions, &session.0)?.is_none() {
            check.settle(|tx, facts| reply(tx, facts, session, &key))?;
        } else if ReplyRecord::from_bytes(&value).is_err() {
            check.settle(|tx, facts| match Stored::<ReplyRecord>::read(tx, Table::Replies, &key)? {
                Stored::Bad => unusable(tx, facts, Table::Replies, &key, "it does not decode", false),
                _ => Ok(None),
            })?;
        }
    }
    let mut held = check.rows(view, Table::Held);
    while let Some((key, _)) = held.next()? {
        check.report.step(0)?;
        check.settle(|tx, facts| holding(tx, facts, &key))?;
    }
    Ok(())
}

/// A directory that is held and is not there, or by a session that is not there, or the log of one: others would wait for
/// ever. Without its row a directory is everybody's; what its holder has not told yet is refused then, and its client says so.
fn holding(tx: &dyn ReadTxn, facts: &Facts, key: &[u8]) -> FsResult<Option<Broken>> {
    let Some(value) = tx.get(Table::Held, key)? else { return Ok(None) };
    let mut draft = Draft::new(tx);
    let mut is_session = |session: SessionId| {
        draft.sees(Table::Sessions, session.0.to_vec());
        FsResult::Ok(tx.get(Table::Sessions, &session.0)?.is_some())
    };
    let what = match (key.first(), key.len(), key.last_chunk()) {
        (Some(b's'), 17, Some(session)) => match HolderRecord::from_bytes(&value) {
            Err(_) if is_session(SessionId(*session))? => {
                let what = format!("the log of session {} does not decode; unmount that client", SessionId(*session));
                return Ok(Some(facts.broken(FindingKind::Session, what, Remedy::Unknown)));
            }
            Err(_) => Some("the log of a client that is gone does not decode".to_owned()),
            Ok(_) if is_session(SessionId(*session))? => None,
            Ok(_) => Some(format!("a log is kept for session {}, which is over", SessionId(*session))),
        },
        (Some(b'd'), 17, Some(fid)) => {
            let dir = Fid::from_bytes(*fid);
            let inode = Stored::<Inode>::read(tx, Table::Inodes, &keys::fid(dir))?;
            match keys::parse_session(&value) {
                Err(_) => Some(format!("who holds directory {dir} does not decode")),
                Ok(session) if !is_session(session)? => {
                    Some(format!("directory {dir} is held by session {session}, which is over"))
                }
                Ok(_) if inode.is_missing() => Some(format!("directory {dir} is held and does not exist")),
                Ok(_) => None,
            }
        }
        _ => Some(format!("row {} is neither a held directory nor a holder", hex(key))),
    };
    let Some(what) = what else { return Ok(None) };
    draft.tx().delete(Table::Held, key.to_vec());
    Ok(Some(facts.broken(FindingKind::Session, what, Remedy::Mend(draft.finish()?))))
}

fn reply(tx: &dyn ReadTxn, facts: &Facts, session: SessionId, key: &[u8]) -> FsResult<Option<Broken>> {
    if tx.get(Table::Replies, key)?.is_none() || tx.get(Table::Sessions, &session.0)?.is_some() {
        return Ok(None);
    }
    let mut draft = Draft::new(tx);
    draft.sees(Table::Sessions, session.0.to_vec());
    draft.tx().delete(Table::Replies, key.to_vec());
    let what = format!("a reply is kept for session {session}, which is over");
    Ok(Some(facts.broken(FindingKind::Session, what, Remedy::Mend(draft.finish()?))))
}

fn intent(check: &mut Check<'_, '_>, view: &dyn ReadTxn, (key, value): &Row) -> FsResult<()> {
    if key.first() == Some(&BY_FILE) {
        let Ok(id) = keys::parse_truncate_of_file(key) else {
            return check.unusable(Table::Intents, key, "it is no pending truncate of a file", false);
        };
        if !is_of(view, id, key)? {
            check.settle(|tx, facts| by_file(tx, facts, id, key))?;
        }
        return Ok(());
    }
    let Ok(id) = keys::parse_intent(key) else {
        return check.unusable(Table::Intents, key, "it is no intent", false);
    };
    if !check.job.osts.contains(&id.ost) {
        let what = format!("intent {} is for OST {}, which this cluster does not have", id.number, id.ost);
        check.settle(|tx, facts| {
            let there = tx.get(Table::Intents, key)?.is_some();
            Ok(there.then(|| facts.broken(FindingKind::Intent, &*what, Remedy::Unknown)))
        })?;
    }
    let decodes = match id.kind {
        IntentKind::Truncate => TruncateIntent::from_bytes(value).is_ok(),
        IntentKind::Destroy => DestroyIntent::from_bytes(value).is_ok(),
    };
    if !decodes {
        return check.unusable(Table::Intents, key, "it does not decode, and holds up those behind it", false);
    }
    check.settle(|tx, facts| number(tx, facts, id))?;
    match id.kind {
        IntentKind::Truncate => check.settle(|tx, facts| truncate(tx, facts, id))?,
        IntentKind::Destroy => check.settle(|tx, facts| destroy(tx, facts, id))?,
    };
    Ok(())
}

/// Whether a row by file belongs to the intent it names.
fn is_of(tx: &dyn ReadTxn, id: IntentId, key: &[u8]) -> FsResult<bool> {
    Ok(match Stored::<TruncateIntent>::read(tx, Table::Intents, &keys::intent(id))? {
        Stored::Missing => false,
        Stored::Bad => true,
        Stored::Good(intent) => keys::truncate_of_file(intent.fid, id.ost, id.number) == key,
    })
}

/// A row without its intent: the file would wait for ever.
fn by_file(tx: &dyn ReadTxn, facts: &Facts, id: IntentId, key: &[u8]) -> FsResult<Option<Broken>> {
    if tx.get(Table::Intents, key)?.is_none() || is_of(tx, id, key)? {
        return Ok(None);
    }
    let mut draft = Draft::new(tx);
    draft.sees(Table::Intents, keys::intent(id));
    draft.tx().delete(Table::Intents, key.to_vec());
    let what =
        format!("a file waits for truncate {} of OST {}, which is not there; row {}", id.number, id.ost, hex(key));
    Ok(Some(facts.broken(FindingKind::Intent, what, Remedy::Mend(draft.finish()?))))
}

/// A number that would be given again.
fn number(tx: &dyn ReadTxn, facts: &Facts, id: IntentId) -> FsResult<Option<Broken>> {
    let next = tree::counter(tx, keys::NEXT_INTENT).unwrap_or(0);
    if id.number < next || id.number == u64::MAX || tx.get(Table::Intents, &keys::intent(id))?.is_none() {
        return Ok(None);
    }
    let mut draft = Draft::new(tx);
    tree::set_counter(draft.tx(), keys::NEXT_INTENT, id.number + 1);
    let what = format!("the next intent would be {next}, but there is {}", id.number);
    Ok(Some(facts.broken(FindingKind::Counter, what, Remedy::Mend(draft.finish()?))))
}

/// A truncate that its file does not know of, or of a file that does not exist.
fn truncate(tx: &dyn ReadTxn, facts: &Facts, id: IntentId) -> FsResult<Option<Broken>> {
    let key = keys::intent(id);
    let Some(intent) = Stored::<TruncateIntent>::read(tx, Table::Intents, &key)?.good() else { return Ok(None) };
    let by_file = keys::truncate_of_file(intent.fid, id.ost, id.number);
    let missing = Stored::<Inode>::read(tx, Table::Inodes, &keys::fid(intent.fid))?.is_missing();
    let mut draft = Draft::new(tx);
    draft.sees(Table::Inodes, keys::fid(intent.fid));
    let what = if missing && !has_layout(tx, intent.fid)? {
        draft.tx().delete(Table::Intents, key);
        draft.tx().delete(Table::Intents, by_file);
        format!("truncate {} of OST {} is of a file that does not exist", id.number, id.ost)
    } else if tx.get(Table::Intents, &by_file)?.is_none() {
        draft.sees(Table::Intents, key);
        draft.tx().put(Table::Intents, by_file, Vec::new());
        format!("truncate {} of OST {} is not known to its file", id.number, id.ost)
    } else {
        return Ok(None);
    };
    Ok(facts.broken(FindingKind::Intent, what, Remedy::Mend(draft.finish()?)).file(intent.fid))
}

fn has_layout(tx: &dyn ReadTxn, fid: Fid) -> FsResult<bool> {
    Ok(tx.get(Table::Layouts, &keys::fid(fid))?.is_some())
}

/// A destroy of objects that a file still has: numbers of components are never used twice, so the intent is wrong.
fn destroy(tx: &dyn ReadTxn, facts: &Facts, id: IntentId) -> FsResult<Option<Broken>> {
    let key = keys::intent(id);
    let Some(intent) = Stored::<DestroyIntent>::read(tx, Table::Intents, &key)?.good() else { return Ok(None) };
    let Some(layout) = Stored::<Layout>::read(tx, Table::Layouts, &keys::fid(intent.fid))?.good() else {
        return Ok(None);
    };
    if !intent.objects.iter().any(|(component, _)| layout.components.iter().any(|c| c.id == *component)) {
        return Ok(None);
    }
    let mut draft = Draft::new(tx);
    draft.sees(Table::Layouts, keys::fid(intent.fid));
    draft.tx().delete(Table::Intents, key);
    let what = format!("objects that its layout has would be destroyed on OST {}", id.ost);
    Ok(facts.broken(FindingKind::Intent, what, Remedy::Mend(draft.finish()?)).file(intent.fid))
}
