//! The counters of the file system as a whole: before everything that they can be read, for repairs count, too, and in
//! the end that they are right.

use sateen_types::{Fid, FindingKind, FsResult};

use super::draft::Draft;
use super::rows::{Rows, Stored};
use super::{Broken, Check, Facts, Remedy};
use crate::command::Mend;
use crate::namespace::tree;
use crate::store::codec::Record;
use crate::store::records::Counter;
use crate::store::{ReadTxn, Table, keys};

/// Makes the counter of inodes readable.
pub fn readable(check: &mut Check<'_, '_>) -> FsResult<()> {
    let pace = check.job.pace;
    check
        .settle(|tx, facts| if read(tx, keys::INODES)?.is_none() { inodes(tx, facts, pace) } else { Ok(None) })
        .map(drop)
}

/// See the module.
pub fn check(check: &mut Check<'_, '_>) -> FsResult<()> {
    let pace = check.job.pace;
    // Counted once: the difference between counter and rows is the same in every view.
    check.settle(|tx, facts| inodes(tx, facts, pace))?;
    let end = sequences(&*check.job.store.snapshot(), pace)?;
    check.settle(|tx, facts| at_least(tx, facts, keys::NEXT_SEQUENCE, end))?;
    // Intents themselves were looked at.
    check.settle(|tx, facts| at_least(tx, facts, keys::NEXT_INTENT, 0))?;
    let end = exports(&*check.job.store.snapshot(), pace)?;
    check.settle(|tx, facts| at_least(tx, facts, keys::NEXT_EXPORT, end))?;
    check.settle(|tx, facts| at_least(tx, facts, keys::FORMAT, 1)).map(drop)
}

fn read(tx: &dyn ReadTxn, key: &[u8]) -> FsResult<Option<u64>> {
    Ok(match Stored::<Counter>::read(tx, Table::Config, key)? {
        Stored::Missing => Some(0),
        Stored::Bad => None,
        Stored::Good(counter) => Some(counter.0),
    })
}

fn inodes(tx: &dyn ReadTxn, facts: &Facts, pace: &dyn Fn(u64) -> FsResult<()>) -> FsResult<Option<Broken>> {
    let mut there = 0u64;
    let mut rows = Rows::new(tx, pace, Table::Inodes);
    while rows.next()?.is_some() {
        there += 1;
    }
    let counted = read(tx, keys::INODES)?;
    if counted == Some(there) {
        return Ok(None);
    }
    let (what, mend) = match counted {
        Some(counted) => {
            let mend = Mend { inodes: there.wrapping_sub(counted) as i64, ..Mend::default() };
            (format!("{counted} inodes are counted, {there} are there"), mend)
        }
        None => {
            // No file can be made or removed meanwhile.
            let change = (Table::Config, keys::INODES.to_vec(), Some(Counter(there).to_bytes()));
            let seen = (Table::Config, keys::INODES.to_vec(), tx.get(Table::Config, keys::INODES)?);
            let mend = Mend { expected: vec![seen], changes: vec![change], inodes: 0 };
            (format!("the counter of inodes does not decode; {there} are there"), mend)
        }
    };
    Ok(Some(facts.broken(FindingKind::Counter, what, Remedy::Mend(mend))))
}

/// The FID sequence behind all that are in use.
fn sequences(tx: &dyn ReadTxn, pace: &dyn Fn(u64) -> FsResult<()>) -> FsResult<u64> {
    let mut end = 0;
    let mut rows = Rows::new(tx, pace, Table::Inodes);
    while let Some((key, _)) = rows.next()? {
        if let Ok(fid) = keys::parse_fid(&key)
            && fid != Fid::ROOT
            && fid.is_valid()
        {
            end = end.max(fid.seq + 1);
        }
    }
    Ok(end)
}

/// A counter that would give something twice, or lets nothing start.
fn at_least(tx: &dyn ReadTxn, facts: &Facts, key: &'static [u8], least: u64) -> FsResult<Option<Broken>> {
    let counted = read(tx, key)?;
    if counted.is_some_and(|counted| counted >= least) {
        return Ok(None);
    }
    let mut draft = Draft::new(tx);
    tree::set_counter(draft.tx(), key, least);
    let what = format!("{} is {counted:?}, it must be at least {least}", String::from_utf8_lossy(key));
    Ok(Some(facts.broken(FindingKind::Counter, what, Remedy::Mend(draft.finish()?))))
}

/// No export has a number as high as this.
fn exports(tx: &dyn ReadTxn, pace: &dyn Fn(u64) -> FsResult<()>) -> FsResult<u64> {
    let mut end = 0;
    let mut rows = Rows::below(tx, pace, Table::Exports, vec![keys::exports::QUEUE]);
    while let Some((key, _)) = rows.next()? {
        if let Ok((_, number)) = keys::exports::parse_item(&key) {
            end = end.max(number.saturating_add(1));
        }
    }
    Ok(end)
}
