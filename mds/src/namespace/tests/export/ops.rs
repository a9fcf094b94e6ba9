//! What happens to a [`World`], at random.

use proptest::prelude::*;
use sateen_types::op::{Mutation, RenameMode};
use sateen_types::{Credential, Fid, FileType};

use super::super::bench::name;
use super::{Change, ExportChange, Object, World, change, exported};

#[derive(Clone, Debug)]
pub(super) enum Op {
    Create(usize, u8),
    Mkdir(usize, u8),
    Symlink(usize, u8),
    Write(usize, u8),
    Chmod(usize, u8, u32),
    Unlink(usize, u8),
    Rmdir(usize, u8),
    Link((usize, u8), (usize, u8)),
    Rename((usize, u8), (usize, u8), RenameMode),
    Release(usize, u8),
    Look(usize),
    Put(usize),
    Report(usize),
    Die(usize),
    Foreign(usize, u8),
    ForeignGone(usize),
    /// As `lfs hsm_remove`, `hsm_cancel`, `hsm_archive`.
    Remove(usize, u8),
    Cancel(usize, u8),
    Archive(usize, u8),
    /// Never to be archived, or no longer so.
    Stay(usize, u8, bool),
}

pub(super) fn ops(foreign: u32) -> impl Strategy<Value = Vec<Op>> {
    proptest::collection::vec(op(foreign), 1..120)
}

/// With what owners ask for single files.
pub(super) fn asked(foreign: u32) -> impl Strategy<Value = Vec<Op>> {
    let place = || (0usize..5, 0u8..3);
    let op = prop_oneof![
        40 => op(foreign),
        5 => place().prop_map(|(d, n)| Op::Remove(d, n)),
        1 => place().prop_map(|(d, n)| Op::Cancel(d, n)),
        1 => place().prop_map(|(d, n)| Op::Archive(d, n)),
        2 => (place(), any::<bool>()).prop_map(|((d, n), on)| Op::Stay(d, n, on)),
    ];
    proptest::collection::vec(op, 1..120)
}

fn op(foreign: u32) -> impl Strategy<Value = Op> {
    let place = || (0usize..5, 0u8..3);
    let mode = prop_oneof![3 => Just(RenameMode::Replace), 1 => Just(RenameMode::Exchange)];
    prop_oneof![
        4 => place().prop_map(|(d, n)| Op::Create(d, n)),
        2 => place().prop_map(|(d, n)| Op::Mkdir(d, n)),
        1 => place().prop_map(|(d, n)| Op::Symlink(d, n)),
        4 => place().prop_map(|(d, n)| Op::Write(d, n)),
        2 => (place(), 0u32..3).prop_map(|((d, n), mode)| Op::Chmod(d, n, 0o640 + mode)),
        2 => place().prop_map(|(d, n)| Op::Unlink(d, n)),
        1 => place().prop_map(|(d, n)| Op::Rmdir(d, n)),
        2 => (place(), place()).prop_map(|(a, b)| Op::Link(a, b)),
        5 => (place(), place(), mode).prop_map(|(a, b, m)| Op::Rename(a, b, m)),
        if foreign == 0 { 3 } else { 1 } => place().prop_map(move |(d, n)| if foreign == 0 { Op::Release(d, n) } else { Op::Write(d, n) }),
        10 => (0usize..16).prop_map(Op::Look),
        8 => (0usize..16).prop_map(Op::Put),
        8 => (0usize..16).prop_map(Op::Report),
        1 => (0usize..16).prop_map(Op::Die),
        foreign.max(1) => place().prop_map(move |(d, n)| if foreign == 0 { Op::Look(d) } else { Op::Foreign(d, n) }),
        foreign.div_ceil(2).max(1) => (0usize..16).prop_map(move |n| if foreign == 0 { Op::Look(n) } else { Op::ForeignGone(n) }),
    ]
}

pub(super) fn apply(w: &mut World<'_>, op: &Op) {
    let text = |n: u8| format!("n{n}");
    let dir = |w: &World<'_>, d: usize| w.dirs[d % w.dirs.len()];
    let file = |w: &World<'_>, d: usize, n: u8| {
        let attr = w.b.lookup(dir(w, d), &text(n)).ok()?;
        (attr.file_type == FileType::Regular).then_some(attr.fid)
    };
    match *op {
        Op::Create(d, n) => {
            if let Ok(fid) = w.b.create(dir(w, d), &text(n)) {
                w.write(fid);
            }
        }
        Op::Mkdir(d, n) => {
            if let Ok(fid) = w.b.mkdir(dir(w, d), &text(n)) {
                w.dirs.push(fid);
            }
        }
        Op::Symlink(d, n) => {
            let op = Mutation::Symlink { parent: dir(w, d), name: name(&text(n)), target: b"t".to_vec() };
            let _ = w.b.ask(&Credential::ROOT, op);
        }
        Op::Write(d, n) => {
            if let Some(fid) = file(w, d, n) {
                w.write(fid);
            }
        }
        Op::Chmod(d, n, mode) => {
            if let Ok(attr) = w.b.lookup(dir(w, d), &text(n)) {
                w.b.setattr(&Credential::ROOT, attr.fid, |op| op.mode = Some(mode)).expect("changes");
            }
        }
        Op::Unlink(d, n) => drop(w.b.unlink(dir(w, d), &text(n))),
        Op::Rmdir(d, n) => {
            if dir(w, d) != Fid::ROOT {
                let _ = w.b.rmdir(dir(w, d), &text(n));
            }
        }
        Op::Link((sd, sn), (d, n)) => {
            if let Some(fid) = file(w, sd, sn) {
                let _ = w.b.link(fid, dir(w, d), &text(n));
            }
        }
        Op::Rename((sd, sn), (d, n), mode) => {
            let (from, to) = ((dir(w, sd), text(sn)), (dir(w, d), text(n)));
            let _ = w.b.rename_as(&Credential::ROOT, (from.0, &from.1), (to.0, &to.1), mode);
        }
        Op::Release(d, n) => {
            if let Some(fid) = file(w, d, n) {
                w.release(fid);
            }
        }
        Op::Remove(d, n) => {
            if let Some(fid) = file(w, d, n) {
                let _ = exported(&mut w.b, ExportChange::Remove { fid, who: Credential::ROOT });
            }
        }
        Op::Archive(d, n) => {
            if let Some(fid) = file(w, d, n) {
                let _ = exported(&mut w.b, ExportChange::Archive { fid, who: Credential::ROOT });
            }
        }
        Op::Cancel(d, n) => {
            if let Some(fid) = file(w, d, n) {
                change(&mut w.b, Change::Cancel { fid, who: Credential::ROOT }).expect("takes back");
            }
        }
        Op::Stay(d, n, on) => {
            if let Some(fid) = file(w, d, n) {
                w.stay(fid, on);
            }
        }
        Op::Look(n) => drop(w.look(n)),
        Op::Put(n) => w.put(n),
        Op::Report(n) => drop(w.report(n)),
        Op::Die(n) => w.die(n),
        Op::Foreign(d, n) => {
            let at = w.bucket.keys().nth(d).cloned().unwrap_or_else(|| text(n).into_bytes());
            let number = w.number();
            let (etag, data) = (format!("f{number}"), format!("foreign {number}"));
            w.bucket.insert(at, Object { etag, data, attributes: (0, 0, 0), number: 0, foreign: true });
        }
        Op::ForeignGone(n) => {
            if let Some(key) = w.bucket.keys().nth(n).cloned() {
                w.bucket.remove(&key);
            }
        }
    }
}
