//! Pass 3, too: what waits to be carried over to repositories (`exports`). A row that nothing leads to, or that leads to nothing, goes:
//! what it was about is found again by `sateen repo export`.

use sateen_types::{FindingKind, FsResult, RepositoryId};

use super::draft::Draft;
use super::rows::{Rows, Stored, unusable};
use super::{Broken, Check, Facts, Remedy};
use crate::store::codec::Record;
use crate::store::keys::{self, exports};
use crate::store::records::{
    ConflictRecord, Counter, FurtherRecord, Inode, KeyRecord, PlaceRecord, SkippedRecord, WaitRecord, WaitingRecord,
    Waits,
};
use crate::store::{ReadTxn, Table};

/// See the module.
pub fn walk(check: &mut Check<'_, '_>) -> FsResult<()> {
    let view = check.job.store.snapshot();
    let view = &*view;
    let mut rows = check.rows(view, Table::Exports);
    let mut links: Vec<RepositoryId> = Vec::new();
    while let Some((key, _)) = rows.next()? {
        check.report.step(0)?;
        check.settle(|tx, facts| row(tx, facts, &key))?;
        let id = match key.first() {
            Some(&exports::QUEUE) => exports::parse_item(&key).map(|(id, _)| id).ok(),
            Some(&exports::COUNT) => exports::parse_count(&key).ok(),
            _ => None,
        };
        // In the order of keys those of one link come together.
        links.extend(id.filter(|id| links.last() != Some(id) && !links.contains(id)));
    }
    let pace = check.job.pace;
    for id in links {
        check.settle(|tx, facts| count(tx, facts, id, pace))?;
    }
    Ok(())
}

/// Where a row of the queue is found from.
fn place_of(id: RepositoryId, what: &Waits) -> Vec<u8> {
    match what {
        Waits::File(fid) => exports::waiting(*fid),
        Waits::Tree { dir, .. } => exports::tree(*dir),
        Waits::Delete { key } => exports::deletion(id, key),
    }
}

/// Link and number that a row says something waits under.
fn leads_to(key: &[u8], value: &[u8]) -> FsResult<(RepositoryId, u64)> {
    Ok(match key.first() {
        Some(&exports::WAITING) => {
            exports::parse_file(key)?;
            let row = WaitingRecord::from_bytes(value)?;
            (row.repository, row.number)
        }
        Some(&exports::TREE) => {
            exports::parse_file(key)?;
            let row = PlaceRecord::from_bytes(value)?;
            (row.repository, row.number)
        }
        _ => (exports::parse_object(key)?.0, Counter::from_bytes(value)?.0),
    })
}

fn row(tx: &dyn ReadTxn, facts: &Facts, key: &[u8]) -> FsResult<Option<Broken>> {
    let Some(value) = tx.get(Table::Exports, key)? else { return Ok(None) };
    let bad = || unusable(tx, facts, Table::Exports, key, "it is nothing that waits for export", true);
    let mut draft = Draft::new(tx);
    let what = match key.first().copied() {
        Some(exports::QUEUE) => {
            let (Ok((id, number)), Ok(record)) = (exports::parse_item(key), WaitRecord::from_bytes(&value)) else {
                return bad();
            };
            let place = place_of(id, &record.what);
            let there = tx.get(Table::Exports, &place)?;
            draft.sees(Table::Exports, place.clone());
            if there.is_some_and(|v| leads_to(&place, &v).is_ok_and(|at| at == (id, number))) {
                return Ok(None);
            }
            format!("export {number} of {id} waits, and nothing leads to it")
        }
        Some(exports::WAITING | exports::TREE | exports::DELETION) => {
            let Ok((id, number)) = leads_to(key, &value) else { return bad() };
            let item = exports::item(id, number);
            draft.sees(Table::Exports, item.clone());
            let waits = Stored::<WaitRecord>::read(tx, Table::Exports, &item)?.good();
            let gone = match exports::parse_file(key) {
                Ok(fid) if key[0] != exports::DELETION => {
                    draft.sees(Table::Inodes, keys::fid(fid));
                    Stored::<Inode>::read(tx, Table::Inodes, &keys::fid(fid))?.is_missing()
                }
                _ => false,
            };
            if !gone && waits.is_some_and(|record| place_of(id, &record.what) == key) {
                return Ok(None);
            }
            format!("export {number} of {id} is not there, or of what does not exist")
        }
        Some(exports::FURTHER) => {
            let (Ok((fid, ..)), true) = (exports::parse_further(key), FurtherRecord::from_bytes(&value).is_ok()) else {
                return bad();
            };
            draft.sees(Table::Inodes, keys::fid(fid));
            if !Stored::<Inode>::read(tx, Table::Inodes, &keys::fid(fid))?.is_missing() {
                return Ok(None);
            }
            format!("an object of a further name belongs to {fid}, which does not exist")
        }
        Some(exports::FURTHER_OBJECT) => {
            let (Ok((id, object)), Ok(fid)) = (exports::parse_object(key), keys::parse_fid(&value)) else {
                return bad();
            };
            let further = exports::further(fid, id, &object);
            draft.sees(Table::Exports, further.clone());
            if tx.get(Table::Exports, &further)?.is_some() {
                return Ok(None);
            }
            format!("an object is said to be a further name of {fid}, and is not")
        }
        Some(exports::OBJECT) => {
            let (Ok((id, object)), Ok(record)) = (exports::parse_object(key), KeyRecord::from_bytes(&value)) else {
                return bad();
            };
            let Some(fid) = record.fid else { return Ok(None) };
            let waiting = exports::waiting(fid);
            draft.sees(Table::Exports, waiting.clone());
            let row = Stored::<WaitingRecord>::read(tx, Table::Exports, &waiting)?;
            if row == Stored::Bad || row.good().is_some_and(|w| w.keys.iter().any(|(i, k)| *i == id && *k == object)) {
                return Ok(None);
            }
            // What may be under the key is still so.
            let what = format!("an object is said to be stored for {fid}, which does not wait for that");
            draft.tx().put(Table::Exports, key.to_vec(), KeyRecord { fid: None, ..record }.to_bytes());
            return Ok(Some(facts.broken(FindingKind::Attribute, what, Remedy::Mend(draft.finish()?))));
        }
        Some(exports::CONFLICT) => {
            if exports::parse_object(key).is_ok() && ConflictRecord::from_bytes(&value).is_ok() {
                return Ok(None);
            }
            return bad();
        }
        Some(exports::COUNT) => {
            if exports::parse_count(key).is_ok() && Counter::from_bytes(&value).is_ok() {
                return Ok(None);
            }
            return bad();
        }
        Some(exports::SKIPPED) => {
            let (Ok(id), Ok(_)) = (exports::parse_count(key), SkippedRecord::from_bytes(&value)) else { return bad() };
            draft.sees(Table::Repositories, keys::repository(id));
            if tx.get(Table::Repositories, &keys::repository(id))?.is_some() {
                return Ok(None);
            }
            format!("what is not exported is counted of {id}, which is no link")
        }
        _ => return bad(),
    };
    draft.tx().delete(Table::Exports, key.to_vec());
    Ok(Some(facts.broken(FindingKind::Attribute, what, Remedy::Mend(draft.finish()?))))
}

/// Every row that comes or goes changes the count as well: what was counted in a view in which it was so is right until then.
fn count(
    tx: &dyn ReadTxn,
    facts: &Facts,
    id: RepositoryId,
    pace: &dyn Fn(u64) -> FsResult<()>,
) -> FsResult<Option<Broken>> {
    let mut there = 0;
    let mut rows = Rows::below(tx, pace, Table::Exports, exports::queue(id));
    while rows.next()?.is_some() {
        there += 1;
    }
    let counted = Stored::<Counter>::read(tx, Table::Exports, &exports::count(id))?.good().map_or(0, |c| c.0);
    if counted == there {
        return Ok(None);
    }
    let mut draft = Draft::new(tx);
    draft.sees(Table::Exports, exports::count(id));
    match there {
        0 => draft.tx().delete(Table::Exports, exports::count(id)),
        n => draft.tx().put(Table::Exports, exports::count(id), Counter(n).to_bytes()),
    }
    let what = format!("{counted} exports of {id} are counted, {there} wait");
    Ok(Some(facts.broken(FindingKind::Counter, what, Remedy::Mend(draft.finish()?))))
}
