//! Tables in memory: for tests, with the same behaviour as RocksDB but nothing durable.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use sateen_types::FsResult;

use super::txn::{MemoryTxn, ReadTxn, Row, Store, Table, WriteSet, pending_range};

type Tables = [BTreeMap<Vec<u8>, Vec<u8>>; Table::COUNT];

/// See the module.
#[derive(Default)]
pub struct MemStore {
    /// Copied by a commit while a view of them is held.
    tables: RwLock<Arc<Tables>>,
}

struct View(Arc<Tables>);

impl ReadTxn for View {
    fn get(&self, table: Table, key: &[u8]) -> FsResult<Option<Vec<u8>>> {
        Ok(self.0[table as usize].get(key).cloned())
    }

    fn scan(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> FsResult<Vec<Row>> {
        let rows = pending_range(&self.0[table as usize], prefix, after);
        Ok(rows.take(limit).map(|(k, v)| (k.clone(), v.clone())).collect())
    }
}

impl MemoryTxn for View {
    fn missed(&self) -> bool {
        false
    }
}

impl Store for MemStore {
    fn snapshot(&self) -> Box<dyn ReadTxn + '_> {
        Box::new(View(self.tables.read().clone()))
    }

    fn snapshot_in_memory(&self) -> Box<dyn MemoryTxn + '_> {
        Box::new(View(self.tables.read().clone()))
    }

    fn commit(&self, changes: &WriteSet) -> FsResult<()> {
        let mut tables = self.tables.write();
        let tables = Arc::make_mut(&mut tables);
        for table in Table::OF_FILE_SYSTEM.iter().chain(Table::OF_CLUSTER) {
            for (key, value) in changes.of(*table) {
                match value {
                    Some(value) => tables[*table as usize].insert(key.to_vec(), value.to_vec()),
                    None => tables[*table as usize].remove(key),
                };
            }
        }
        Ok(())
    }
}
