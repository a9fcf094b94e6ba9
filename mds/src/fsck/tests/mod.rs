//! The check on file systems that real commands have made: sound ones, and ones of which a row was damaged.

mod damage;
mod directed;
mod objects;
mod tasks;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use sateen_types::fsck::Report;
use sateen_types::op::Mutation;
use sateen_types::{Credential, Finding, FindingKind, FsId, FsckEvent, OstIndex, Repair, Timestamp, XattrName};

use super::{Job, apply_alone, check};
use crate::command::Command;
use crate::namespace::tests::bench::Bench;
use crate::store::{Overlay, ReadTxn, Row, Store, Table, Txn};

/// An empty file system.
fn bench(store: &dyn Store) -> Bench<'_> {
    let mut bench = Bench::new(store);
    bench.run(Command::AllocSequence).expect("the bench uses it");
    bench
}

/// All rows of a file system.
type Dump = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

fn rows(tx: &dyn ReadTxn, table: Table) -> Vec<Row> {
    tx.scan(table, &[], None, usize::MAX >> 1).expect("scans")
}

fn dump(store: &dyn Store) -> Dump {
    let view = store.snapshot();
    let of = |table: &Table| rows(&*view, *table).into_iter().map(|(k, v)| ((*table, k), v)).collect::<Vec<_>>();
    Table::OF_FILE_SYSTEM.iter().flat_map(of).collect()
}

/// A row as it shall be; `None`: gone.
type Change<'a> = (Table, &'a [u8], Option<&'a [u8]>);

fn set(store: &dyn Store, changes: &[Change<'_>]) {
    let view = store.snapshot();
    let mut tx = Overlay::new(&*view);
    for (table, key, value) in changes {
        match value {
            Some(value) => tx.put(*table, key.to_vec(), value.to_vec()),
            None => tx.delete(*table, key.to_vec()),
        }
    }
    let changes = tx.into_changes();
    drop(view);
    store.commit(&changes).expect("commits");
}

/// What a check tells.
fn findings(store: &dyn Store, repair: bool) -> Vec<Finding> {
    let osts: BTreeSet<OstIndex> = (0..4).map(OstIndex).collect();
    let mender = |command: Command| apply_alone(store, &command);
    let job = Job {
        fs: FsId(1),
        store,
        osts: &osts,
        objects: None,
        grace: Duration::ZERO,
        mender: if repair { Some(&mender) } else { None },
        pace: &|_| Ok(()),
        now: &|| Timestamp { seconds: 2_000_000, nanos: 0 },
    };
    let mut found = Vec::new();
    let mut sink = |event| {
        if let FsckEvent::Finding(finding) = event {
            found.push(finding);
        }
        ControlFlow::Continue(())
    };
    check(&job, &mut Report::new(&mut sink)).expect("the check itself works");
    found
}

/// Kinds of what was found, with what can be done.
fn kinds(found: &[Finding]) -> Vec<(FindingKind, Repair)> {
    found.iter().map(|f| (f.kind, f.repair)).collect()
}

fn set_xattr(b: &mut Bench<'_>, fid: sateen_types::Fid, name: &str) {
    let op = Mutation::SetXattr {
        fid,
        name: XattrName::parse(name.as_bytes()).expect("valid"),
        value: b"value".to_vec(),
        mode: sateen_types::op::XattrMode::Set,
    };
    b.ask(&Credential::ROOT, op).expect("sets");
}
