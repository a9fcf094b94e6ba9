//! Pass 5: objects on OSTs whose file does not exist, as a write that came after the end of its file leaves them. What
//! has to be sure before one is destroyed:
//!
//! 1. Its file can not come: a file of the same FID sequence that was made later is there. (FIDs are given in order, and
//!    commands are committed in the order in which they got theirs.)
//! 2. It has neither an inode, also not as a file that is open without a name, nor a layout, which would lead to data.
//! 3. Nothing is under way that will destroy it: an intent goes only after the OST's answer, so an object that is still
//!    there although no intent was left *before* it was asked for again will stay.
//!
//! A [grace period](super::Job::grace) lies between the first look and the second. Then an intent is written, which the
//! OST's worker carries out like any other. Objects of files that exist are not compared with the layout.

use std::collections::{BTreeMap, BTreeSet};

use sateen_types::limits::LIST_OBJECTS_MAX;
use sateen_types::{Fid, Finding, FindingKind, FsCode, FsResult, ObjectId, OstIndex, Repair};

use super::draft::Draft;
use super::rows::Stored;
use super::{Broken, Check, Facts, Remedy};
use crate::namespace::tree;
use crate::store::codec::Record;
use crate::store::keys::{IntentId, IntentKind};
use crate::store::records::DestroyIntent;
use crate::store::{ReadTxn, Table, keys};

/// Objects that are looked at a second time together; bounds memory to a few MiB.
const SUSPECTS_MAX: usize = 64 << 10;
/// Intents that are read at once.
const INTENTS_PAGE: usize = 256;

/// Asks an OST for objects of the file system from one on, at most so many; tells whether those are all.
pub type ListObjects<'a> = &'a dyn Fn(OstIndex, Option<ObjectId>, usize) -> FsResult<(Vec<ObjectId>, bool)>;

/// The last file of each FID sequence: all before it is decided.
#[derive(Default)]
pub struct Decided(BTreeMap<u64, u32>);

impl Decided {
    /// A file is there.
    pub fn see(&mut self, fid: Fid) {
        let last = self.0.entry(fid.seq).or_default();
        *last = fid.oid.max(*last);
    }

    fn knows(&self, fid: Fid) -> bool {
        self.0.get(&fid.seq).is_some_and(|last| fid.oid < *last)
    }
}

/// See the module.
pub fn walk(check: &mut Check<'_, '_>) -> FsResult<()> {
    let Some(list) = check.job.objects else { return Ok(()) };
    for ost in check.job.osts {
        match one(check, list, *ost) {
            Err(e) if e.code != FsCode::Interrupted => {
                let what = format!("objects of OST {ost} were not compared with files: {e}");
                let finding = Finding::new(FindingKind::Unchecked, Repair::Impossible, what).in_fs(check.job.fs);
                check.report.finding(finding)?;
            }
            other => other?,
        }
    }
    Ok(())
}

fn one(check: &mut Check<'_, '_>, list: ListObjects<'_>, ost: OstIndex) -> FsResult<()> {
    let mut suspects = BTreeSet::new();
    let mut from = None;
    loop {
        let (objects, complete) = list(ost, from, LIST_OBJECTS_MAX)?;
        let last = objects.last().copied();
        (check.job.pace)(objects.len() as u64)?;
        let view = check.job.store.snapshot();
        for object in objects.into_iter().filter(|object| Some(*object) != from) {
            check.report.count(|tally| tally.objects += 1);
            check.report.step(0)?;
            if check.decided.knows(object.fid) && is_unknown(&*view, object.fid)? {
                suspects.insert(key(&object));
            }
        }
        drop(view);
        if complete || suspects.len() >= SUSPECTS_MAX {
            second_look(check, list, ost, std::mem::take(&mut suspects))?;
        }
        if complete || last.is_none() || last == from {
            return Ok(());
        }
        from = last;
    }
}

/// An object in the order of the list.
type Key = (Fid, sateen_types::ComponentId, sateen_types::StripeIndex);

fn key(object: &ObjectId) -> Key {
    (object.fid, object.component, object.stripe)
}

/// Whether nothing is known of a file.
fn is_unknown(tx: &dyn ReadTxn, fid: Fid) -> FsResult<bool> {
    let key = keys::fid(fid);
    Ok(tx.get(Table::Inodes, &key)?.is_none() && tx.get(Table::Layouts, &key)?.is_none())
}

fn second_look(
    check: &mut Check<'_, '_>,
    list: ListObjects<'_>,
    ost: OstIndex,
    mut suspects: BTreeSet<Key>,
) -> FsResult<()> {
    if suspects.is_empty() {
        return Ok(());
    }
    std::thread::sleep(check.job.grace);
    forget_intended(check, ost, &mut suspects)?;
    for (fid, component, stripe) in suspects {
        let object = ObjectId { fs: check.job.fs, fid, component, stripe };
        if list(ost, Some(object), 1)?.0.first() == Some(&object) {
            check.settle(|tx, facts| look(tx, facts, ost, &object))?;
        }
    }
    Ok(())
}

/// Takes out what an intent will destroy.
fn forget_intended(check: &Check<'_, '_>, ost: OstIndex, suspects: &mut BTreeSet<Key>) -> FsResult<()> {
    let view = check.job.store.snapshot();
    let prefix = keys::intents_of_ost(IntentKind::Destroy, ost);
    let mut after = None;
    loop {
        let rows = view.scan(Table::Intents, &prefix, after.as_deref(), INTENTS_PAGE)?;
        for (_, value) in &rows {
            let intent = DestroyIntent::from_bytes(value)?;
            for (component, stripe) in intent.objects {
                suspects.remove(&(intent.fid, component, stripe));
            }
        }
        match rows.into_iter().next_back() {
            Some((key, _)) => after = Some(key),
            None => return Ok(()),
        }
    }
}

fn look(tx: &dyn ReadTxn, facts: &Facts, ost: OstIndex, object: &ObjectId) -> FsResult<Option<Broken>> {
    if !is_unknown(tx, object.fid)? {
        return Ok(None);
    }
    let number = match Stored::<crate::store::records::Counter>::read(tx, Table::Config, keys::NEXT_INTENT)? {
        Stored::Missing => 0,
        Stored::Good(next) => next.0,
        Stored::Bad => return Ok(None),
    };
    let id = IntentId { kind: IntentKind::Destroy, ost, number };
    let intent = DestroyIntent { fid: object.fid, objects: vec![(object.component, object.stripe)] };
    let mut draft = Draft::new(tx);
    draft.sees(Table::Inodes, keys::fid(object.fid));
    draft.sees(Table::Layouts, keys::fid(object.fid));
    tree::set_counter(draft.tx(), keys::NEXT_INTENT, number + 1);
    draft.tx().put(Table::Intents, keys::intent(id), intent.to_bytes());
    let what = format!("on OST {ost}: its file does not exist");
    let broken = facts.broken(FindingKind::ObjectOrphan, what, Remedy::Mend(draft.finish()?));
    Ok(Some(Broken { finding: broken.finding.of(object), ..broken }))
}
