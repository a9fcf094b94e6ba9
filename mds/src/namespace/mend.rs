//! Corrections of a check. What is right was decided by whoever saw the rows; here is only decided whether they are still
//! the same, so that a correction never undoes a change that came in between.

use sateen_types::{FsCode, FsError, FsResult};

use super::tree;
use crate::command::Mend;
use crate::store::{Txn, keys};

/// All of it, or `Busy` if a row has changed since it was seen.
pub fn mend(tx: &mut dyn Txn, mend: &Mend) -> FsResult<()> {
    for (table, key, seen) in &mend.expected {
        if tx.get(*table, key)? != *seen {
            let what = format!("a row of {} has changed since it was checked: {key:02x?}", table.name());
            return Err(FsError::new(FsCode::Busy, what).with_hint("check again"));
        }
    }
    for (table, key, value) in &mend.changes {
        match value {
            Some(value) => tx.put(*table, key.clone(), value.clone()),
            None => tx.delete(*table, key.clone()),
        }
    }
    if mend.inodes != 0 {
        let counted = tree::counter(tx, keys::INODES)?;
        // What is counted may be nonsense: only in a ring every difference can be made.
        tree::set_counter(tx, keys::INODES, counted.wrapping_add_signed(mend.inodes));
    }
    Ok(())
}
