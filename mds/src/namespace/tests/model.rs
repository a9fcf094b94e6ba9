//! Random operations on the core and on a tree of maps must agree on every outcome and on the tree that is left.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sateen_types::op::{Mutation, RenameMode};
use sateen_types::{Credential, Fid, FsCode};

use super::bench::{Bench, name};
use crate::store::{MemStore, RocksOptions, RocksStore, Store, Table};

/// Directories and names are numbers; directory 0 is the root, others are picked from those that were ever made.
#[derive(Clone, Debug)]
enum Op {
    Create(usize, u8),
    Mkdir(usize, u8),
    Unlink(usize, u8),
    Rmdir(usize, u8),
    Link((usize, u8), (usize, u8)),
    Rename((usize, u8), (usize, u8), RenameMode),
    Open(usize, u8),
    CloseAll,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let place = || (0usize..6, 0u8..5);
    let mode = prop_oneof![
        3 => Just(RenameMode::Replace),
        1 => Just(RenameMode::NoReplace),
        1 => Just(RenameMode::Exchange)
    ];
    let op = prop_oneof![
        4 => place().prop_map(|(d, n)| Op::Create(d, n)),
        4 => place().prop_map(|(d, n)| Op::Mkdir(d, n)),
        2 => place().prop_map(|(d, n)| Op::Unlink(d, n)),
        2 => place().prop_map(|(d, n)| Op::Rmdir(d, n)),
        2 => (place(), place()).prop_map(|(a, b)| Op::Link(a, b)),
        5 => (place(), place(), mode).prop_map(|(a, b, m)| Op::Rename(a, b, m)),
        1 => place().prop_map(|(d, n)| Op::Open(d, n)),
        1 => Just(Op::CloseAll),
    ];
    proptest::collection::vec(op, 1..60)
}

/// The model: directories by FID, each a map of names.
#[derive(Default)]
struct Model {
    dirs: BTreeMap<Fid, BTreeMap<u8, Fid>>,
    made: Vec<Fid>,
}

impl Model {
    fn dir(&self, pick: usize) -> Fid {
        self.made[pick % self.made.len()]
    }

    fn get(&self, (dir, n): (Fid, u8)) -> Result<Option<Fid>, FsCode> {
        Ok(self.dirs.get(&dir).ok_or(FsCode::NotFound)?.get(&n).copied())
    }

    fn add(&mut self, at: (Fid, u8)) -> Result<(), FsCode> {
        if self.get(at)?.is_some() { Err(FsCode::Exists) } else { Ok(()) }
    }

    fn insert(&mut self, at: (Fid, u8), fid: Fid) {
        self.dirs.get_mut(&at.0).expect("checked").insert(at.1, fid);
    }

    fn unlink(&mut self, at: (Fid, u8)) -> Result<(), FsCode> {
        let fid = self.get(at)?.ok_or(FsCode::NotFound)?;
        if self.dirs.contains_key(&fid) {
            return Err(FsCode::IsDirectory);
        }
        self.dirs.get_mut(&at.0).expect("checked").remove(&at.1);
        Ok(())
    }

    fn rmdir(&mut self, at: (Fid, u8)) -> Result<(), FsCode> {
        let fid = self.get(at)?.ok_or(FsCode::NotFound)?;
        match self.dirs.get(&fid) {
            None => return Err(FsCode::NotDirectory),
            Some(d) if !d.is_empty() => return Err(FsCode::NotEmpty),
            Some(_) => {}
        }
        self.dirs.remove(&fid);
        self.dirs.get_mut(&at.0).expect("checked").remove(&at.1);
        Ok(())
    }

    fn is_below(&self, dir: Fid, ancestor: Fid) -> bool {
        dir == ancestor
            || self
                .dirs
                .get(&ancestor)
                .is_some_and(|names| names.values().any(|f| self.dirs.contains_key(f) && self.is_below(dir, *f)))
    }

    fn rename(&mut self, from: (Fid, u8), to: (Fid, u8), mode: RenameMode) -> Result<(), FsCode> {
        let source = self.get(from)?;
        let target = self.get(to)?;
        let source = source.ok_or(FsCode::NotFound)?;
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(FsCode::Exists),
            (RenameMode::Exchange, None) => return Err(FsCode::NotFound),
            _ => {}
        }
        let source_dir = self.dirs.contains_key(&source);
        let target_dir = target.is_some_and(|t| self.dirs.contains_key(&t));
        if source_dir && self.is_below(to.0, source) {
            return Err(FsCode::Invalid);
        }
        if mode == RenameMode::Exchange && target_dir && target.is_some_and(|t| self.is_below(from.0, t)) {
            return Err(FsCode::Invalid);
        }
        if target == Some(source) {
            return Ok(());
        }
        if mode == RenameMode::Exchange {
            self.insert(to, source);
            self.insert(from, target.expect("checked"));
            return Ok(());
        }
        match (source_dir, target) {
            (true, Some(_)) if !target_dir => return Err(FsCode::NotDirectory),
            (false, Some(_)) if target_dir => return Err(FsCode::IsDirectory),
            (true, Some(t)) if !self.dirs[&t].is_empty() => return Err(FsCode::NotEmpty),
            (true, Some(t)) => drop(self.dirs.remove(&t)),
            _ => {}
        }
        self.dirs.get_mut(&from.0).expect("checked").remove(&from.1);
        self.insert(to, source);
        Ok(())
    }
}

fn run(store: &dyn Store, ops: &[Op]) -> Result<(), TestCaseError> {
    let mut b = Bench::new(store);
    let mut m = Model::default();
    m.made.push(Fid::ROOT);
    m.dirs.insert(Fid::ROOT, BTreeMap::new());
    let text = |n: u8| format!("n{n}");
    for op in ops {
        match *op {
            Op::Create(d, n) => {
                let d = m.dir(d);
                let got = b.create(d, &text(n));
                let want = m.add((d, n));
                prop_assert_eq!(got.as_ref().map(drop).map_err(|e| e.code), want, "{:?}", op);
                if let Ok(fid) = got {
                    m.insert((d, n), fid);
                }
            }
            Op::Mkdir(d, n) => {
                let d = m.dir(d);
                let got = b.mkdir(d, &text(n));
                let want = m.add((d, n));
                prop_assert_eq!(got.as_ref().map(drop).map_err(|e| e.code), want, "{:?}", op);
                if let Ok(fid) = got {
                    m.insert((d, n), fid);
                    m.dirs.insert(fid, BTreeMap::new());
                    m.made.push(fid);
                }
            }
            Op::Unlink(d, n) => {
                let d = m.dir(d);
                prop_assert_eq!(b.unlink(d, &text(n)).map_err(|e| e.code), m.unlink((d, n)), "{:?}", op);
            }
            Op::Rmdir(d, n) => {
                let d = m.dir(d);
                prop_assert_eq!(b.rmdir(d, &text(n)).map_err(|e| e.code), m.rmdir((d, n)), "{:?}", op);
            }
            Op::Link((sd, sn), (d, n)) => {
                let Ok(Some(fid)) = m.get((m.dir(sd), sn)) else { continue };
                let d = m.dir(d);
                let want = m
                    .add((d, n))
                    .and_then(|()| if m.dirs.contains_key(&fid) { Err(FsCode::NotPermitted) } else { Ok(()) });
                prop_assert_eq!(b.link(fid, d, &text(n)).map_err(|e| e.code), want, "{:?}", op);
                if want.is_ok() {
                    m.insert((d, n), fid);
                }
            }
            Op::Rename((sd, sn), (d, n), mode) => {
                let (from, to) = (m.dir(sd), m.dir(d));
                let ask = Mutation::Rename {
                    parent: from,
                    name: name(&text(sn)),
                    new_parent: to,
                    new_name: name(&text(n)),
                    mode,
                };
                let got = b.ask(&Credential::ROOT, ask).map(drop).map_err(|e| e.code);
                prop_assert_eq!(got, m.rename((from, sn), (to, n), mode), "{:?}", op);
            }
            Op::Open(d, n) => {
                if let Ok(Some(fid)) = m.get((m.dir(d), n)) {
                    b.open.push(fid);
                }
            }
            Op::CloseAll => {
                for fid in std::mem::take(&mut b.open) {
                    b.run(crate::command::Command::DropOrphan { fid }).expect("drops or ignores");
                }
            }
        }
    }
    for (dir, names) in &m.dirs {
        let mut got = b.list(*dir);
        got.sort();
        let want: Vec<_> = names.keys().map(|n| text(*n)).collect();
        prop_assert_eq!(got, want);
        for (n, fid) in names {
            prop_assert_eq!(b.lookup(*dir, &text(*n)).expect("found").fid, *fid);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn random_operations_agree_with_a_tree_of_maps(ops in ops()) {
        run(&MemStore::default(), &ops)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn random_operations_agree_with_a_tree_of_maps_on_rocksdb(ops in ops()) {
        let dir = tempfile::tempdir().expect("temporary directory");
        run(&RocksStore::open(dir.path(), Table::OF_FILE_SYSTEM, RocksOptions::default()).expect("opens"), &ops)?;
    }
}
