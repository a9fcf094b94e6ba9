//! What the owner of a file has decided about it (never to be released, never to be archived), and the state bits that root may set.
//!
//! The decisions have a row of their own: they hold whatever becomes of the file's object, and for files that have none. Every other
//! bit says what is so. Root may make a file count as worse than it is, never as better: what is taken for being in the repository as
//! it is here may be given up.

use sateen_types::{Credential, Fid, FsCode, FsError, FsResult, HsmFlags};

use super::{agree, export, hsm, links, opened, put_hsm};
use crate::command::Inputs;
use crate::namespace::changelog::{self, HsmEvent};
use crate::namespace::{perm, tree};
use crate::store::codec::Record;
use crate::store::records::{HsmRecord, RulesRecord};
use crate::store::{ReadTxn, Table, Txn, keys};

/// What the owner of a file has decided.
pub fn of(tx: &dyn ReadTxn, fid: Fid) -> FsResult<HsmFlags> {
    let row = tx.get(Table::Repositories, &keys::rules(fid))?;
    Ok(row.map(|v| RulesRecord::from_bytes(&v)).transpose()?.map_or(HsmFlags::default(), |row| row.0))
}

/// Whether a file is never to be given up.
pub fn keeps(tx: &dyn ReadTxn, fid: Fid) -> FsResult<bool> {
    Ok(of(tx, fid)?.has(HsmFlags::NO_RELEASE))
}

/// Whether a file is never to be stored in a repository.
pub fn stays(tx: &dyn ReadTxn, fid: Fid) -> FsResult<bool> {
    Ok(of(tx, fid)?.has(HsmFlags::NO_ARCHIVE))
}

fn put(tx: &mut dyn Txn, fid: Fid, rules: HsmFlags) {
    match rules == HsmFlags::default() {
        true => tx.delete(Table::Repositories, keys::rules(fid)),
        false => tx.put(Table::Repositories, keys::rules(fid), RulesRecord(rules).to_bytes()),
    }
}

/// The inode is gone.
pub fn destroyed(tx: &mut dyn Txn, fid: Fid) -> FsResult<()> {
    if tx.get(Table::Repositories, &keys::rules(fid))?.is_some() {
        tx.delete(Table::Repositories, keys::rules(fid));
    }
    Ok(())
}

/// Bits of a file that are not its owner's to decide, set and cleared; what is so already is no change.
///
/// # Errors
/// What is wrong with the change, and what to do instead.
fn state(has: HsmFlags, set: HsmFlags, clear: HsmFlags) -> Result<HsmFlags, (&'static str, &'static str)> {
    let (set, clear) = (HsmFlags(set.0 & !has.0), clear.only(has));
    let touches = |of: HsmFlags, bits: HsmFlags| of.only(bits) != HsmFlags::default();
    if touches(clear, HsmFlags::DIRTY) {
        return Err((
            "has changes that its repository does not have: as a clean file it could be given up, and they with it",
            "store them: lfs hsm_archive",
        ));
    }
    if touches(clear, HsmFlags::LOST) {
        return Err((
            "has lost its object: with one that is believed to be there, what is left here could be given up",
            "an import that finds the object clears it: sateen repo import",
        ));
    }
    if touches(clear, HsmFlags::EXISTS | HsmFlags::ARCHIVED) {
        return Err((
            "has an object, which would be nobody's",
            "delete it: lfs hsm_remove; or have it stored again: lfs hsm_set --dirty, then lfs hsm_archive",
        ));
    }
    if touches(set, HsmFlags::EXISTS | HsmFlags::ARCHIVED) {
        return Err((
            "is not in its repository: if it counted as archived, its only bytes could be given up",
            "store it: lfs hsm_archive",
        ));
    }
    if touches(set, HsmFlags::DIRTY | HsmFlags::LOST) && !has.has(HsmFlags::EXISTS | HsmFlags::ARCHIVED) {
        return Err(("is not in its repository, so it has nothing to be told from", "store it: lfs hsm_archive"));
    }
    if touches(set, HsmFlags::DIRTY) && has.has(HsmFlags::RELEASED) {
        return Err((
            "has bytes in its repository only: what is there cannot be older than what is here",
            "load it first: lfs hsm_restore",
        ));
    }
    Ok(has | set)
}

/// Sets and clears state bits of a file. Its owner decides what is never to be done with it; the others are root's.
///
/// # Errors
/// `NotPermitted`; `Invalid` where a bit would say something that is not so.
pub fn change(
    tx: &mut dyn Txn,
    fid: Fid,
    who: &Credential,
    (set, clear): (HsmFlags, HsmFlags),
    inputs: &Inputs,
) -> FsResult<()> {
    let inode = tree::inode(tx, fid)?;
    if !inode.is_regular() {
        return Err(FsError::new(FsCode::Invalid, format!("{fid} is not a regular file")));
    }
    perm::owner(&inode, who)?;
    let all = set | clear;
    let before = of(tx, fid)?;
    let mut changed = false;
    if !HsmFlags::RULES.has(all) {
        perm::root(who, "change the state of files in repositories beyond norelease and noarchive")?;
        let row = hsm(tx, fid)?;
        let has = row.as_ref().map(|row| row.flags).unwrap_or_default();
        let others = |flags: HsmFlags| HsmFlags(flags.0 & !HsmFlags::RULES.0);
        let flags = state(has, others(set), others(clear))
            .map_err(|(why, hint)| FsError::new(FsCode::Invalid, format!("{fid} {why}")).with_hint(hint))?;
        if let Some(row) = row.filter(|_| flags != has) {
            put_hsm(tx, fid, &HsmRecord { flags, ..row.clone() })?;
            if flags.has(HsmFlags::DIRTY) && !has.has(HsmFlags::DIRTY) {
                opened::other_version(tx, fid, inputs.now)?;
                agree::note_changed(tx, fid, row.repository, inputs.now)?;
            }
            changed = true;
        }
    }
    let rules = HsmFlags((before.0 | set.only(HsmFlags::RULES).0) & !clear.0);
    if rules != before {
        if rules.0 & !before.0 != 0 {
            links::refuse_when_full(inputs)?;
        }
        put(tx, fid, rules);
        changed = true;
        if before.has(HsmFlags::NO_ARCHIVE)
            && !rules.has(HsmFlags::NO_ARCHIVE)
            && let Some((id, _)) = export::place_of(tx, fid)?
        {
            // What its link exports by itself and was left out.
            agree::note_changed(tx, fid, id, inputs.now)?;
        }
    }
    if changed { changelog::hsm(tx, fid, HsmEvent::State, inputs.now) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_can_make_a_file_count_as_safer_than_it_is() {
        const NONE: HsmFlags = HsmFlags(0);
        let bits = [HsmFlags::EXISTS, HsmFlags::DIRTY, HsmFlags::ARCHIVED, HsmFlags::LOST];
        for has in (0..0x80u32).map(HsmFlags).filter(|f| f.only(HsmFlags::RULES) == NONE) {
            for set in (0..16u32).map(|n| (0..4).filter(|i| n >> i & 1 == 1).fold(NONE, |all, i| all | bits[i])) {
                for clear in [NONE].into_iter().chain(bits).filter(|clear| clear.only(set) == NONE) {
                    let Ok(now) = state(has, set, clear) else { continue };
                    // What a release asks for: archived, not dirty, not lost.
                    let safe =
                        |f: HsmFlags| f.has(HsmFlags::ARCHIVED) && !f.has(HsmFlags::DIRTY) && !f.has(HsmFlags::LOST);
                    assert!(!safe(now) || safe(has), "{has} became {now}");
                    assert_eq!(now.has(HsmFlags::RELEASED), has.has(HsmFlags::RELEASED));
                    assert!(!(now.has(HsmFlags::RELEASED | HsmFlags::DIRTY)) || has.has(HsmFlags::DIRTY));
                    assert!(now.has(has), "{has} became {now}: nothing is taken away");
                    assert!(now.has(set) && now.only(clear) == NONE, "{has} became {now}");
                }
            }
        }
    }

    #[test]
    fn what_is_so_already_can_be_said_again() {
        let whole = HsmFlags::EXISTS | HsmFlags::ARCHIVED;
        assert_eq!(state(whole, whole, HsmFlags::DIRTY | HsmFlags::LOST), Ok(whole));
        assert_eq!(state(whole, HsmFlags::DIRTY, HsmFlags::LOST), Ok(whole | HsmFlags::DIRTY));
        assert_eq!(state(whole, HsmFlags::LOST, HsmFlags::default()), Ok(whole | HsmFlags::LOST));
        state(whole | HsmFlags::RELEASED, HsmFlags::DIRTY, HsmFlags::default()).expect_err("nothing is here");
        state(HsmFlags::default(), HsmFlags::DIRTY, HsmFlags::default()).expect_err("nothing is there");
    }
}
