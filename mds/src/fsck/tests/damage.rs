//! Random operations through the real commands leave nothing to find. Then one row is damaged: removed, altered or
//! doubled. That is found, or does no harm; it is repaired; the second run finds nothing new; and what was not damaged
//! reads the same.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::Index;
use sateen_types::Fid;

use super::*;
use crate::namespace::check::check as oracle;
use crate::namespace::tests::bench::SESSION;
use crate::store::codec::Record;
use crate::store::records::{Dentry, IndexEntry, Inode};
use crate::store::{MemStore, keys};

#[derive(Clone, Debug)]
enum Op {
    Create(Index, u8),
    Mkdir(Index, u8),
    Link(Index, Index, u8),
    Rename((Index, u8), (Index, u8)),
    Unlink(Index, u8),
    UnlinkOpen(Index, u8),
    Xattr(Index, bool),
    Truncate(Index),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let at = || (any::<Index>(), 0u8..6);
    let op = prop_oneof![
        5 => at().prop_map(|(d, n)| Op::Create(d, n)),
        4 => at().prop_map(|(d, n)| Op::Mkdir(d, n)),
        2 => (any::<Index>(), at()).prop_map(|(f, (d, n))| Op::Link(f, d, n)),
        3 => (at(), at()).prop_map(|(a, b)| Op::Rename(a, b)),
        2 => at().prop_map(|(d, n)| Op::Unlink(d, n)),
        1 => at().prop_map(|(d, n)| Op::UnlinkOpen(d, n)),
        2 => (any::<Index>(), any::<bool>()).prop_map(|(f, c)| Op::Xattr(f, c)),
        1 => any::<Index>().prop_map(Op::Truncate),
    ];
    proptest::collection::vec(op, 4..40)
}

/// What happens to a row.
#[derive(Clone, Debug)]
pub(super) enum Damage {
    /// It is gone.
    Remove,
    /// One byte of the value is another.
    Alter(Index, u8),
    /// The same value is also under a key of which one byte is another.
    Double(Index, u8),
}

pub(super) fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        Just(Damage::Remove),
        (any::<Index>(), 1u8..).prop_map(|(at, by)| Damage::Alter(at, by)),
        (any::<Index>(), 1u8..).prop_map(|(at, by)| Damage::Double(at, by)),
    ]
}

/// Damages a row. Gives key and value as they are then, of one that is gone as they were.
pub(super) fn hurt(
    store: &MemStore,
    (table, key, value): (Table, &Vec<u8>, &Vec<u8>),
    damage: &Damage,
) -> (Vec<u8>, Vec<u8>) {
    let (mut hurt_key, mut hurt_value) = (key.clone(), value.clone());
    match damage {
        Damage::Remove => set(store, &[(table, key, None)]),
        Damage::Alter(_, _) if value.is_empty() => hurt_value.push(1),
        Damage::Alter(at, by) => hurt_value[at.index(value.len())] ^= by,
        Damage::Double(at, by) => hurt_key[at.index(key.len())] ^= by,
    }
    if !matches!(damage, Damage::Remove) {
        set(store, &[(table, &hurt_key, Some(&hurt_value))]);
    }
    (hurt_key, hurt_value)
}

fn perform(b: &mut Bench<'_>, ops: &[Op]) {
    let (mut dirs, mut files) = (vec![Fid::ROOT], vec![Fid::ROOT]);
    let name = |n: u8| format!("n{n}");
    for op in ops {
        // What the rules refuse is refused.
        match op {
            Op::Create(d, n) => files.extend(b.create(*d.get(&dirs), &name(*n))),
            Op::Mkdir(d, n) => {
                if let Ok(fid) = b.mkdir(*d.get(&dirs), &name(*n)) {
                    dirs.push(fid);
                    files.push(fid);
                }
            }
            Op::Link(f, d, n) => drop(b.link(*f.get(&files), *d.get(&dirs), &name(*n))),
            Op::Rename((d, n), (to, new)) => drop(b.rename((*d.get(&dirs), &name(*n)), (*to.get(&dirs), &name(*new)))),
            Op::Unlink(d, n) => drop(b.unlink(*d.get(&dirs), &name(*n))),
            Op::UnlinkOpen(d, n) => {
                b.open.extend(b.lookup(*d.get(&dirs), &name(*n)).map(|attr| attr.fid));
                drop(b.unlink(*d.get(&dirs), &name(*n)));
            }
            Op::Xattr(f, capabilities) => {
                let fid = *f.get(&files);
                if crate::namespace::inode(&*b.view(), fid).is_ok() {
                    set_xattr(b, fid, if *capabilities { "security.capability" } else { "user.x" });
                }
            }
            Op::Truncate(f) => {
                let fid = *f.get(&files);
                let _ = b.instantiate(fid, 0, 1 << 20);
                let _ = b.write_done(fid, 1 << 20, 4096);
                let _ = b.setattr(&Credential::ROOT, fid, |set| set.size = Some(0));
            }
        }
    }
    // One directory of those that are left is a client's alone.
    let held = dirs.iter().rev().find(|dir| crate::namespace::inode(&*b.view(), **dir).is_ok());
    if let Some(dir) = held.filter(|dir| **dir != Fid::ROOT) {
        b.run(Command::LendSequence { session: SESSION }).expect("lends");
        set(b.store, &[(Table::Held, &keys::held_dir(*dir), Some(&SESSION.0))]);
    }
}

/// Every FID a row is about, also as it was damaged.
fn concerned(table: Table, key: &[u8], value: &[u8]) -> BTreeSet<Fid> {
    let mut fids: BTreeSet<Fid> = key.chunks_exact(16).filter_map(|b| b.try_into().ok().map(Fid::from_bytes)).collect();
    match table {
        Table::Dentries => fids.extend(Dentry::from_bytes(value).map(|d| d.fid)),
        Table::DirIndex => fids.extend(IndexEntry::from_bytes(value).map(|d| d.fid)),
        _ => {}
    }
    fids
}

/// What users see of a file system: names, and the attributes that no repair has to touch.
type Seen = (BTreeSet<(Fid, Vec<u8>, Fid)>, BTreeMap<Fid, (u32, u32, u32, u64, sateen_types::FileType)>);

fn seen(all: &Dump) -> Seen {
    let (mut names, mut files) = (BTreeSet::new(), BTreeMap::new());
    for ((table, key), value) in all {
        match table {
            Table::Dentries => {
                if let (Ok((dir, name)), Ok(entry)) = (keys::parse_dentry(key), Dentry::from_bytes(value)) {
                    names.insert((dir, name.as_bytes().to_vec(), entry.fid));
                }
            }
            Table::Inodes => {
                if let (Ok(fid), Ok(i)) = (keys::parse_fid(key), Inode::from_bytes(value)) {
                    // A directory may have lost the subdirectory that was damaged.
                    let nlink = if i.is_dir() { 0 } else { i.nlink };
                    files.insert(fid, (i.mode, i.uid, nlink, i.size, i.file_type()));
                }
            }
            _ => {}
        }
    }
    (names, files)
}

fn impossible(found: &[Finding]) -> BTreeSet<String> {
    found.iter().filter(|f| f.repair == Repair::Impossible).map(ToString::to_string).collect()
}

fn run(ops: &[Op], row: &Index, damage: &Damage) -> Result<(), TestCaseError> {
    let store = MemStore::default();
    perform(&mut bench(&store), ops);
    let before = dump(&store);
    prop_assert_eq!(findings(&store, false), []);
    prop_assert_eq!(findings(&store, true), []);
    prop_assert_eq!(&dump(&store), &before, "a check of what is sound changes nothing");

    let rows: Vec<_> = before.iter().collect();
    let ((table, key), value) = *row.get(&rows);
    let (hurt_key, hurt_value) = hurt(&store, (*table, key, value), damage);
    let hurt = dump(&store);

    let told = findings(&store, false);
    prop_assert_eq!(&dump(&store), &hurt, "a check without repair changes nothing");
    let wrong = oracle(&*store.snapshot());
    if !wrong.as_ref().is_ok_and(Vec::is_empty) {
        prop_assert!(!told.is_empty(), "not found: {:?}", wrong);
    }
    let repaired = findings(&store, true);
    let again = findings(&store, true);
    prop_assert!(again.iter().all(|f| f.repair == Repair::Impossible), "first {:#?}\nagain {:#?}", repaired, again);
    prop_assert!(impossible(&again).is_subset(&impossible(&repaired)), "first {:#?}\nagain {:#?}", repaired, again);
    if again.is_empty() {
        let wrong = oracle(&*store.snapshot()).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(wrong, Vec::<String>::new(), "after {:#?}", repaired);
    }

    let mut concerned_fids = concerned(*table, key, value);
    concerned_fids.extend(concerned(*table, &hurt_key, &hurt_value));
    let ((names, files), (names_now, files_now)) = (seen(&before), seen(&dump(&store)));
    for name in names.iter().filter(|(dir, _, fid)| !concerned_fids.contains(dir) && !concerned_fids.contains(fid)) {
        prop_assert!(names_now.contains(name), "{:?} is gone after {:#?}", name, repaired);
    }
    for (fid, attr) in &files {
        let is_gone = !files_now.contains_key(fid);
        if concerned_fids.contains(fid) {
            prop_assert!(!is_gone || *table == Table::Inodes, "{} is gone after {:#?}", fid, repaired);
        } else if *fid == Fid::ROOT {
            // May have got a `lost+found`.
            prop_assert!(!is_gone);
        } else {
            prop_assert_eq!(files_now.get(fid), Some(attr), "{} after {:#?}", fid, repaired);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn damage_of_one_row_is_found_and_repaired_or_does_no_harm(
        ops in ops(), row in any::<Index>(), damage in damage(),
    ) {
        run(&ops, &row, &damage)?;
    }
}
