//! What OSTs still have to do for a change that is already durable here: cut objects of files that shrank, destroy
//! objects of files that are gone. An intent is written in the batch of the change and removed after the OST's
//! durable answer; doing it twice is harmless.

use std::collections::BTreeMap;

use sateen_types::{Component, Fid, FsCode, FsError, FsResult, Layout, OstIndex, StripeIndex};

use super::tree;
use crate::store::codec::Record;
use crate::store::keys::{IntentId, IntentKind};
use crate::store::records::{DestroyIntent, TruncateIntent, TruncateObject};
use crate::store::{ReadTxn, Table, Txn, keys};

/// Pending truncates of one file are at most one per OST.
const TRUNCATES_MAX: usize = sateen_types::limits::OST_COUNT_MAX as usize;

fn next_id(tx: &mut dyn Txn, kind: IntentKind, ost: OstIndex) -> FsResult<IntentId> {
    let number = tree::counter(tx, keys::NEXT_INTENT)?;
    tree::set_counter(tx, keys::NEXT_INTENT, number + 1);
    Ok(IntentId { kind, ost, number })
}

/// The stripes of a component with their OSTs.
fn stripes(component: &Component) -> impl Iterator<Item = (StripeIndex, OstIndex)> {
    (0..).map(StripeIndex).zip(component.osts.iter().copied())
}

/// Cuts every object of `layout` that may reach beyond a file size of `size`.
pub fn truncate_objects(tx: &mut dyn Txn, fid: Fid, layout: &Layout, size: u64) -> FsResult<()> {
    let mut per_ost: BTreeMap<OstIndex, Vec<TruncateObject>> = BTreeMap::new();
    for component in layout.components.iter().filter(|c| c.extent.end > size) {
        for (stripe, ost) in stripes(component) {
            per_ost.entry(ost).or_default().push(TruncateObject {
                component: component.id,
                stripe,
                chunk_log2: component.chunk_log2(),
                size: component.object_len(stripe, size).0,
            });
        }
    }
    for (ost, objects) in per_ost {
        let id = next_id(tx, IntentKind::Truncate, ost)?;
        tx.put(Table::Intents, keys::intent(id), TruncateIntent { fid, objects }.to_bytes());
        tx.put(Table::Intents, keys::truncate_of_file(fid, ost, id.number), Vec::new());
    }
    Ok(())
}

/// Destroys every object of `layout`.
pub fn destroy_objects(tx: &mut dyn Txn, fid: Fid, layout: &Layout) -> FsResult<()> {
    let mut per_ost: BTreeMap<OstIndex, Vec<_>> = BTreeMap::new();
    for component in &layout.components {
        for (stripe, ost) in stripes(component) {
            per_ost.entry(ost).or_default().push((component.id, stripe));
        }
    }
    for (ost, objects) in per_ost {
        let id = next_id(tx, IntentKind::Destroy, ost)?;
        tx.put(Table::Intents, keys::intent(id), DestroyIntent { fid, objects }.to_bytes());
    }
    Ok(())
}

fn pending_truncates(tx: &dyn ReadTxn, fid: Fid, limit: usize) -> FsResult<Vec<Vec<u8>>> {
    let rows = tx.scan(Table::Intents, &keys::truncates_of_file(fid), None, limit)?;
    Ok(rows.into_iter().map(|(key, _)| key).collect())
}

/// Whether objects of the file still have to be cut.
pub fn has_pending_truncate(tx: &dyn ReadTxn, fid: Fid) -> FsResult<bool> {
    Ok(!pending_truncates(tx, fid, 1)?.is_empty())
}

/// `Unavailable` while objects of the file have to be cut: what is written now could be cut with them.
pub fn refuse_while_truncating(tx: &dyn ReadTxn, fid: Fid) -> FsResult<()> {
    if has_pending_truncate(tx, fid)? {
        return Err(FsError::new(FsCode::Unavailable, format!("a truncate of {fid} has not reached every OST yet"))
            .with_hint("it goes on by itself once all OSTs of the file are up: sateen status"));
    }
    Ok(())
}

/// Drops pending truncates of a file whose objects are about to be destroyed.
pub fn forget_truncates(tx: &mut dyn Txn, fid: Fid) -> FsResult<()> {
    for key in pending_truncates(tx, fid, TRUNCATES_MAX)? {
        let id = keys::parse_truncate_of_file(&key)?;
        tx.delete(Table::Intents, keys::intent(id));
        tx.delete(Table::Intents, key);
    }
    Ok(())
}

/// OSTs have done these; each comes with the change of the file's disk space. Unknown ones were finished before.
pub fn finish(tx: &mut dyn Txn, done: &[(IntentId, i64)]) -> FsResult<()> {
    for (id, allocated_delta) in done {
        let key = keys::intent(*id);
        let Some(value) = tx.get(Table::Intents, &key)? else { continue };
        tx.delete(Table::Intents, key);
        if id.kind == IntentKind::Truncate {
            let intent = TruncateIntent::from_bytes(&value)?;
            tx.delete(Table::Intents, keys::truncate_of_file(intent.fid, id.ost, id.number));
            if let Some(mut inode) = tree::find_inode(tx, intent.fid)? {
                inode.allocated = inode.allocated.saturating_add_signed(*allocated_delta);
                tree::put_inode(tx, intent.fid, &inode);
            }
        }
    }
    Ok(())
}
