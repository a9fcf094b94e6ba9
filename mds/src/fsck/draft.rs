//! A correction in the making: changes on top of a view, and what of the view it follows from.

use sateen_types::FsResult;

use crate::command::Mend;
use crate::namespace::tree;
use crate::store::{Overlay, ReadTxn, Table, Txn, WriteSet, keys};

/// See the module. Every row that is changed is expected to be as it was seen, and those that were named beside them.
pub struct Draft<'v> {
    view: &'v dyn ReadTxn,
    tx: Overlay<'v>,
    seen: Vec<(Table, Vec<u8>)>,
}

impl<'v> Draft<'v> {
    /// Nothing is changed yet.
    pub fn new(view: &'v dyn ReadTxn) -> Draft<'v> {
        Draft { view, tx: Overlay::new(view), seen: Vec::new() }
    }

    /// To change rows.
    pub fn tx(&mut self) -> &mut dyn Txn {
        &mut self.tx
    }

    /// It follows from this row, too.
    pub fn sees(&mut self, table: Table, key: Vec<u8>) {
        self.seen.push((table, key));
    }

    /// The correction. The counter of inodes changes with every file that is made, so of that only the difference counts.
    pub fn finish(self) -> FsResult<Mend> {
        let Draft { view, tx, seen } = self;
        let inodes = tree::counter(&tx, keys::INODES).ok();
        let changes: WriteSet = tx.into_changes();
        let mut mend = Mend::default();
        for (table, key) in seen {
            mend.expected.push((table, key.clone(), view.get(table, &key)?));
        }
        for table in Table::OF_FILE_SYSTEM {
            for (key, value) in changes.of(*table) {
                if (*table, key) == (Table::Config, keys::INODES) {
                    let before = tree::counter(view, keys::INODES)?;
                    mend.inodes = inodes.unwrap_or(before).wrapping_sub(before) as i64;
                    continue;
                }
                mend.expected.push((*table, key.to_vec(), view.get(*table, key)?));
                mend.changes.push((*table, key.to_vec(), value.map(<[u8]>::to_vec)));
            }
        }
        Ok(mend)
    }
}
