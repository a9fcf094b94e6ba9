//! What of a link cannot be exported as it is: counted, and the first of it listed, from when somebody asks for an export of the whole link
//! until the next one does: that looks at everything, so what still cannot be exported is found again. A key that is listed counts once,
//! however often its file changes.

use sateen_types::limits::{IMPORT_FIRST_SKIPPED_MAX, KEY_BYTES_MAX, SKIPPED_MESSAGE_BYTES_MAX};
use sateen_types::repository::Skipped;
use sateen_types::{FsResult, RepositoryId};

use super::super::links;
use crate::store::codec::Record;
use crate::store::keys::exports;
use crate::store::records::SkippedRecord;
use crate::store::{ReadTxn, Table, Txn};

/// What cannot be exported of a link.
pub fn skipped(tx: &dyn ReadTxn, id: RepositoryId) -> FsResult<SkippedRecord> {
    let row = tx.get(Table::Exports, &exports::skipped(id))?;
    Ok(row.map(|v| SkippedRecord::from_bytes(&v)).transpose()?.unwrap_or_default())
}

/// Something cannot be exported.
pub fn note(tx: &mut dyn Txn, id: RepositoryId, one: &Skipped) -> FsResult<()> {
    if links::find(tx, id)?.is_none() {
        return Ok(());
    }
    let mut all = skipped(tx, id)?;
    let mut one = one.clone();
    one.key.truncate(KEY_BYTES_MAX);
    for text in [&mut one.code, &mut one.message] {
        text.truncate(text.floor_char_boundary(SKIPPED_MESSAGE_BYTES_MAX));
    }
    match all.first.iter_mut().find(|known| known.key == one.key) {
        Some(known) => *known = one,
        None => {
            all.count = all.count.saturating_add(1);
            if all.first.len() < IMPORT_FIRST_SKIPPED_MAX {
                all.first.push(one);
            }
        }
    }
    tx.put(Table::Exports, exports::skipped(id), all.to_bytes());
    Ok(())
}

/// It begins anew.
pub fn forget(tx: &mut dyn Txn, id: RepositoryId) -> FsResult<()> {
    if tx.get(Table::Exports, &exports::skipped(id))?.is_some() {
        tx.delete(Table::Exports, exports::skipped(id));
    }
    Ok(())
}
