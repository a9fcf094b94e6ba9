//! Pass 3, too: what files have to do with data repositories (`hsm`, `loads`), and the rows about links, workers and files to load
//! (`repositories`).

use sateen_types::{Fid, FindingKind, FsResult, HsmFlags};

use super::draft::Draft;
use super::rows::{Stored, hex};
use super::{Broken, Check, Facts, Remedy};
use crate::store::records::{HsmRecord, Inode, LoadRecord, RepositoryRecord, RulesRecord};
use crate::store::{ReadTxn, Table, keys};

/// See the module.
pub fn walk(check: &mut Check<'_, '_>) -> FsResult<()> {
    let view = check.job.store.snapshot();
    let view = &*view;
    for table in [Table::Hsm, Table::Loads] {
        let mut rows = check.rows(view, table);
        while let Some((key, _)) = rows.next()? {
            check.report.step(0)?;
            match keys::parse_fid(&key) {
                Ok(fid) => check.settle(|tx, facts| file(tx, facts, table, fid)).map(drop)?,
                Err(_) => check.unusable(table, &key, "it is of no file", true)?,
            }
        }
    }
    let mut rows = check.rows(view, Table::HsmKeys);
    while let Some((key, _)) = rows.next()? {
        check.report.step(0)?;
        check.settle(|tx, facts| of_object(tx, facts, &key))?;
    }
    let mut rows = check.rows(view, Table::Repositories);
    while let Some((key, _)) = rows.next()? {
        check.report.step(0)?;
        check.settle(|tx, facts| about_links(tx, facts, &key))?;
    }
    Ok(())
}

/// A row without an inode is nobody's. What does not fit otherwise is told: from where bytes come that a file lacks, nobody can
/// guess.
fn file(tx: &dyn ReadTxn, facts: &Facts, table: Table, fid: Fid) -> FsResult<Option<Broken>> {
    let key = keys::fid(fid);
    if tx.get(table, &key)?.is_none() {
        return Ok(None);
    }
    if Stored::<Inode>::read(tx, Table::Inodes, &key)?.is_missing() {
        let mut draft = Draft::new(tx);
        draft.sees(Table::Inodes, key.clone());
        draft.tx().delete(table, key);
        let what = format!("a row of {} belongs to no inode", table.name());
        return Ok(facts.broken(FindingKind::Attribute, what, Remedy::Mend(draft.finish()?)).file(fid));
    }
    let hsm = Stored::<HsmRecord>::read(tx, Table::Hsm, &key)?;
    let load = Stored::<LoadRecord>::read(tx, Table::Loads, &key)?;
    let what = match (&hsm, &load) {
        (Stored::Bad, _) => "its HSM state does not decode",
        (_, Stored::Bad) => "what is loaded of it does not decode",
        (Stored::Missing, Stored::Good(_)) => "is not loaded in full, and its object is not known",
        (Stored::Good(row), Stored::Missing) if row.flags.has(HsmFlags::RELEASED) => {
            "is released, and what is loaded of it is not known"
        }
        (Stored::Good(row), Stored::Good(_)) if !row.flags.has(HsmFlags::RELEASED) => {
            "is not released, and is not loaded in full"
        }
        _ => return Ok(None),
    };
    // Told once, with the first of its rows.
    if table == Table::Loads && hsm != Stored::Missing {
        return Ok(None);
    }
    Ok(facts.broken(FindingKind::Attribute, what, Remedy::Unknown).file(fid))
}

/// A row of the index that says something else than the state of its file means nothing: it is found again by the next import.
fn of_object(tx: &dyn ReadTxn, facts: &Facts, key: &[u8]) -> FsResult<Option<Broken>> {
    let Some(value) = tx.get(Table::HsmKeys, key)? else { return Ok(None) };
    let mut draft = Draft::new(tx);
    if let (Ok((id, object)), Ok(fid)) = (keys::parse_hsm_key(key), keys::parse_fid(&value)) {
        draft.sees(Table::Hsm, keys::fid(fid));
        match Stored::<HsmRecord>::read(tx, Table::Hsm, &keys::fid(fid))? {
            Stored::Good(row) if row.repository == id && row.key == object => return Ok(None),
            // Told with its file.
            Stored::Bad => return Ok(None),
            _ => {}
        }
    }
    draft.tx().delete(Table::HsmKeys, key.to_vec());
    let what = format!("row {} of {} names no file of that object", hex(key), Table::HsmKeys.name());
    Ok(Some(facts.broken(FindingKind::Attribute, what, Remedy::Mend(draft.finish()?))))
}

fn about_links(tx: &dyn ReadTxn, facts: &Facts, key: &[u8]) -> FsResult<Option<Broken>> {
    let Some(value) = tx.get(Table::Repositories, key)? else { return Ok(None) };
    let mut draft = Draft::new(tx);
    let what = if key.starts_with(keys::WORKER)
        && let Ok(session) = keys::parse_worker(key)
    {
        draft.sees(Table::Sessions, session.0.to_vec());
        if tx.get(Table::Sessions, &session.0)?.is_some() {
            return Ok(None);
        }
        format!("session {session} is a worker's and is over")
    } else if key.starts_with(keys::RESTORE)
        && let Ok(fid) = keys::parse_restore(key)
    {
        draft.sees(Table::Loads, keys::fid(fid));
        let load = Stored::<LoadRecord>::read(tx, Table::Loads, &keys::fid(fid))?;
        if !matches!(load, Stored::Missing | Stored::Good(LoadRecord { restore: false, .. })) {
            return Ok(None);
        }
        format!("{fid} is listed as one to load, and nothing of it is wanted")
    } else if key.starts_with(keys::OPENED)
        && let Ok(fid) = keys::parse_opened(key)
    {
        draft.sees(Table::Hsm, keys::fid(fid));
        if tx.get(Table::Hsm, &keys::fid(fid))?.is_some() {
            return Ok(None);
        }
        format!("{fid} counts as opened for writing, and has nothing to do with a repository")
    } else if key.starts_with(keys::RULES)
        && let Ok(fid) = keys::parse_rules(key)
    {
        draft.sees(Table::Inodes, keys::fid(fid));
        let inode = Stored::<Inode>::read(tx, Table::Inodes, &keys::fid(fid))?;
        let is_rule = Stored::<RulesRecord>::of(Some(&value)) != Stored::Bad;
        if is_rule && (inode == Stored::Bad || inode.good().is_some_and(|inode| inode.is_regular())) {
            return Ok(None);
        }
        let what = if is_rule { "is no regular file, and has rules" } else { "has rules that do not decode" };
        format!("{fid} {what}")
    } else if keys::parse_repository(key).is_ok() && key.starts_with(keys::REPOSITORY) {
        if Stored::<RepositoryRecord>::of(Some(&value)) != Stored::Bad {
            return Ok(None);
        }
        let what = format!("the link in row {} does not decode; what is missing of its files cannot be read", hex(key));
        return Ok(Some(facts.broken(FindingKind::Attribute, what, Remedy::Unknown)));
    } else {
        format!("row {} of {} means nothing", hex(key), Table::Repositories.name())
    };
    draft.tx().delete(Table::Repositories, key.to_vec());
    Ok(Some(facts.broken(FindingKind::Attribute, what, Remedy::Mend(draft.finish()?))))
}
