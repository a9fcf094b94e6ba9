//! Which files are released by themselves: those that were not used for longest, of all whose repository has them as they are.

use std::collections::{BTreeSet, BinaryHeap};

use sateen_types::{Fid, FsResult, OstIndex, RepositoryId, Timestamp};

use super::tasks::{last_use, may_release};
use super::{links, loads, rules};
use crate::namespace::{layout, tree};
use crate::store::codec::Record;
use crate::store::records::HsmRecord;
use crate::store::{ReadTxn, Table, keys};

/// Rows that are read at once.
const PAGE: usize = 1024;

/// A file that may give back what the OSTs have of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Old {
    /// When it was last used.
    pub used: Timestamp,
    /// Which.
    pub fid: Fid,
    /// Bytes on the OSTs.
    pub bytes: u64,
    /// On which.
    pub osts: BTreeSet<OstIndex>,
}

/// The `max` files that were not used for longest and have something on these OSTs, the oldest first. Looks at every file that has to do
/// with a repository; keeps `max`.
pub fn oldest(tx: &dyn ReadTxn, osts: &BTreeSet<OstIndex>, max: usize) -> FsResult<Vec<Old>> {
    let living: BTreeSet<RepositoryId> = links::all(tx)?.into_iter().map(|(id, _)| id).collect();
    let mut found: BinaryHeap<Old> = BinaryHeap::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = tx.scan(Table::Hsm, &[], after.as_deref(), PAGE)?;
        for (key, value) in &rows {
            let (fid, row) = (keys::parse_fid(key)?, HsmRecord::from_bytes(value)?);
            if !living.contains(&row.repository) {
                continue;
            }
            let Some(inode) = tree::find_inode(tx, fid)?.filter(|inode| inode.allocated > 0) else { continue };
            let used = last_use(&inode);
            let newer = found.len() >= max && found.peek().is_some_and(|newest| used >= newest.used);
            if newer || !inode.is_regular() || !may_release(&inode, &row, None) {
                continue;
            }
            let of: BTreeSet<OstIndex> = match layout::find(tx, fid)? {
                Some(layout) => layout.components.iter().flat_map(|c| c.osts.iter().copied()).collect(),
                None => continue,
            };
            if of.is_disjoint(osts) || loads(tx, fid)?.is_some_and(|load| load.restore) || rules::keeps(tx, fid)? {
                continue;
            }
            found.push(Old { used, fid, bytes: inode.allocated, osts: of });
            if found.len() > max {
                found.pop();
            }
        }
        match rows.into_iter().next_back() {
            Some((key, _)) => after = Some(key),
            None => return Ok(found.into_sorted_vec()),
        }
    }
}
