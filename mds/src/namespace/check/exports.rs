//! What waits for export is found from both sides, once, and counted.

use std::collections::{BTreeMap, BTreeSet};

use sateen_types::{FsResult, RepositoryId};

use super::{Found, all};
use crate::namespace::tree;
use crate::store::codec::Record;
use crate::store::keys::{self, exports};
use crate::store::records::{
    ConflictRecord, Counter, FurtherRecord, KeyRecord, PlaceRecord, SkippedRecord, WaitRecord, WaitingRecord, Waits,
};
use crate::store::{ReadTxn, Table};

/// See the module.
pub(super) fn check(found: &mut Found, tx: &dyn ReadTxn) -> FsResult<()> {
    let next = tree::counter(tx, keys::NEXT_EXPORT)?.max(1);
    let mut counted: BTreeMap<RepositoryId, i64> = BTreeMap::new();
    let (mut queued, mut places) = (BTreeSet::new(), BTreeSet::new());
    let (mut further, mut owned) = (BTreeSet::new(), BTreeSet::new());
    let (mut waiting, mut stored) = (BTreeSet::new(), BTreeSet::new());
    for (key, value) in all(tx, Table::Exports)? {
        match key.first().copied() {
            Some(exports::QUEUE) => {
                let (id, number) = exports::parse_item(&key)?;
                if number >= next {
                    found.wrong(format!("export {number} is above the counter {next}"));
                }
                *counted.entry(id).or_default() += 1;
                let at = match WaitRecord::from_bytes(&value)?.what {
                    Waits::File(fid) => exports::waiting(fid),
                    Waits::Tree { dir, .. } => exports::tree(dir),
                    Waits::Delete { key } => exports::deletion(id, &key),
                };
                queued.insert((at, id, number));
            }
            Some(exports::WAITING) => {
                let (fid, row) = (exports::parse_file(&key)?, WaitingRecord::from_bytes(&value)?);
                if !found.inodes.contains_key(&fid) {
                    found.wrong(format!("{fid} waits for export and does not exist"));
                }
                waiting.extend(row.keys.into_iter().map(|(id, key)| (fid, id, key)));
                places.insert((key, row.repository, row.number));
            }
            Some(exports::TREE) => {
                let row = PlaceRecord::from_bytes(&value)?;
                places.insert((key, row.repository, row.number));
            }
            Some(exports::DELETION) => {
                let (id, _) = exports::parse_object(&key)?;
                places.insert((key, id, Counter::from_bytes(&value)?.0));
            }
            Some(exports::FURTHER) => {
                let (fid, id, object) = exports::parse_further(&key)?;
                FurtherRecord::from_bytes(&value)?;
                if !found.inodes.contains_key(&fid) {
                    found.wrong(format!("a further name belongs to {fid}, which does not exist"));
                }
                further.insert((fid, id, object));
            }
            Some(exports::FURTHER_OBJECT) => {
                let (id, object) = exports::parse_object(&key)?;
                owned.insert((keys::parse_fid(&value)?, id, object));
            }
            Some(exports::OBJECT) => {
                let (id, object) = exports::parse_object(&key)?;
                stored.extend(KeyRecord::from_bytes(&value)?.fid.map(|fid| (fid, id, object)));
            }
            Some(exports::CONFLICT) => {
                exports::parse_object(&key)?;
                ConflictRecord::from_bytes(&value)?;
            }
            Some(exports::COUNT) => {
                let count = counted.entry(exports::parse_count(&key)?).or_default();
                *count -= Counter::from_bytes(&value)?.0 as i64;
            }
            Some(exports::SKIPPED) => {
                let id = exports::parse_count(&key)?;
                SkippedRecord::from_bytes(&value)?;
                if tx.get(Table::Repositories, &keys::repository(id))?.is_none() {
                    found.wrong(format!("what is skipped of {id} is counted, which is no link"));
                }
            }
            _ => found.wrong(format!("a row of exports means nothing: {key:02x?}")),
        }
    }
    for (key, id, number) in queued.symmetric_difference(&places) {
        found.wrong(format!("export {number} of {id} is known from one side only: {key:02x?}"));
    }
    for (fid, _, object) in further.symmetric_difference(&owned) {
        let object = String::from_utf8_lossy(object);
        found.wrong(format!("the further name {object:?} of {fid} is known from one side only"));
    }
    for (fid, _, object) in stored.symmetric_difference(&waiting) {
        let object = String::from_utf8_lossy(object);
        found.wrong(format!("that {object:?} is stored for {fid} is known from one side only"));
    }
    // Counts come before what is counted.
    for (id, difference) in counted.into_iter().filter(|(_, difference)| *difference != 0) {
        found.wrong(format!("{difference} exports of {id} wait that are not counted"));
    }
    Ok(())
}
