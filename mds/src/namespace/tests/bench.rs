//! The bench the tests work on: a store of either kind with one helper per operation, checked after each.

use std::collections::BTreeSet;
use std::sync::Arc;

use sateen_types::op::{Access, Create, Entry, Mutation, MutationReply, RenameMode, SetAttr, WriteDone};
use sateen_types::{
    Attr, Credential, Fid, FsCode, FsResult, Layout, LayoutTemplate, Name, OstIndex, SessionId, Timestamp,
};

use crate::command::{Command, Inputs, Outcome, Request};
use crate::namespace::repository::Looked;
use crate::namespace::repository::export::Exporting;
use crate::namespace::{self, apply, check::check};
use crate::placement::Candidate;
use crate::store::{MemStore, Overlay, ReadTxn, RocksOptions, RocksStore, Store, Table, Txn};

pub const SESSION: SessionId = SessionId([1; 16]);
pub const ALICE: Credential = Credential { uid: 1000, gid: 100, groups: Vec::new() };
pub const BOB: Credential = Credential { uid: 2000, gid: 200, groups: Vec::new() };

/// A file system that applies commands one by one, as the writer thread would.
pub struct Bench<'s> {
    pub store: &'s dyn Store,
    pub osts: Vec<Candidate>,
    pub open: Vec<Fid>,
    pub left: BTreeSet<Vec<u8>>,
    pub disk_low: bool,
    pub exporting: Arc<Exporting>,
    clock: i64,
    next_oid: u32,
    number: u64,
    stamp: u64,
}

pub fn name(s: &str) -> Name {
    Name::parse(s.as_bytes()).expect("valid name")
}

/// Runs `test` on a fresh file system in each kind of store.
pub fn on_every_store(test: impl Fn(&mut Bench<'_>)) {
    test(&mut Bench::new(&MemStore::default()));
    let dir = tempfile::tempdir().expect("temporary directory");
    let rocks = RocksStore::open(dir.path(), Table::OF_FILE_SYSTEM, RocksOptions::default()).expect("opens");
    test(&mut Bench::new(&rocks));
}

impl<'s> Bench<'s> {
    pub fn new(store: &'s dyn Store) -> Bench<'s> {
        let mut bench = Bench::reopened(store, 1);
        let layout = LayoutTemplate::default();
        bench.run(Command::Format { uid: 0, gid: 0, mode: 0o777, layout }).expect("formats");
        bench.run(Command::OpenSession { session: SESSION, client: "bench".into(), writer: 0 }).expect("opens");
        bench
    }

    /// On a store that has a file system already.
    pub fn reopened(store: &'s dyn Store, next_oid: u32) -> Bench<'s> {
        let exporting = Arc::new(Exporting::new(&*store.snapshot()).expect("reads"));
        let osts = (0..4).map(|i| Candidate { index: OstIndex(i), up: true, available: 1 << 40 }).collect();
        Bench {
            store,
            osts,
            open: Vec::new(),
            left: BTreeSet::new(),
            disk_low: false,
            exporting,
            clock: 1_000,
            next_oid,
            number: 0,
            stamp: 0,
        }
    }

    pub fn view(&self) -> Box<dyn ReadTxn + 's> {
        self.store.snapshot()
    }

    /// Stores a row beside all rules.
    pub fn put_row(&self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        let snapshot = self.store.snapshot();
        let mut tx = Overlay::new(&*snapshot);
        tx.put(table, key, value);
        let changes = tx.into_changes();
        drop(snapshot);
        self.store.commit(&changes).expect("commits");
    }

    /// A look at a bucket after everything that was done so far.
    pub fn look(&mut self) -> Looked {
        self.stamp += 2;
        Looked { stamp: self.stamp - 1, heard: self.stamp }
    }

    /// Time of the last command.
    pub fn now(&self) -> Timestamp {
        Timestamp { seconds: self.clock, nanos: 0 }
    }

    pub fn run(&mut self, command: Command) -> FsResult<Outcome> {
        self.clock += 1;
        let fid = command.wants_fid().then(|| {
            self.next_oid += 1;
            Fid { seq: Fid::SEQ_FIRST, oid: self.next_oid, ver: 0 }
        });
        let snapshot = self.store.snapshot();
        let victim = namespace::victim(&*snapshot, &command).expect("reads");
        let inputs = Inputs {
            now: self.now(),
            fid,
            victim_open: victim.is_some_and(|v| self.open.contains(&v)),
            open: self.open.clone(),
            left: self.left.clone(),
            osts: Arc::new(self.osts.clone()),
            disk_low: self.disk_low,
            rotor: u64::from(self.next_oid),
            answered: false,
            may_hold: matches!(&command, Command::Mutate(r) if r.hold),
            exporting: self.exporting.clone(),
        };
        let mut tx = Overlay::new(&*snapshot);
        let outcome = apply(&mut tx, &command, &inputs)?;
        let changes = tx.into_changes();
        drop(snapshot);
        self.store.commit(&changes).expect("commits");
        let problems = check(&*self.view()).expect("reads");
        assert!(problems.is_empty(), "after {command:?}:\n{}", problems.join("\n"));
        Ok(outcome)
    }

    pub fn request(&mut self, who: &Credential, op: Mutation) -> Command {
        self.number += 1;
        let credential = who.clone();
        Command::Mutate(Box::new(Request {
            session: SESSION,
            slot: 0,
            number: self.number,
            credential,
            op,
            hold: false,
            open: 0,
            logged: None,
        }))
    }

    pub fn ask(&mut self, who: &Credential, op: Mutation) -> FsResult<MutationReply> {
        let command = self.request(who, op);
        match self.run(command)? {
            Outcome::Reply { reply, replayed: false } => Ok(reply),
            other => panic!("{other:?}"),
        }
    }

    fn entry(&mut self, who: &Credential, op: Mutation) -> FsResult<Entry> {
        match self.ask(who, op)? {
            MutationReply::Entry(entry) => Ok(entry),
            other => panic!("{other:?}"),
        }
    }

    pub fn attr_of(&mut self, who: &Credential, op: Mutation) -> FsResult<Attr> {
        match self.ask(who, op)? {
            MutationReply::Attr(attr) => Ok(attr),
            other => panic!("{other:?}"),
        }
    }

    fn layout_of(&mut self, who: &Credential, op: Mutation) -> FsResult<Layout> {
        match self.ask(who, op)? {
            MutationReply::Layout(layout) => Ok(layout),
            other => panic!("{other:?}"),
        }
    }

    pub fn create_as(&mut self, who: &Credential, parent: Fid, n: &str, mode: u32) -> FsResult<Fid> {
        let op = Create { parent, name: name(n), mode: mode.into(), exclusive: true, open: None, layout: None };
        self.entry(who, Mutation::Create(op)).map(|e| e.attr.fid)
    }

    pub fn create_with(&mut self, parent: Fid, n: &str, layout: Option<LayoutTemplate>) -> FsResult<Entry> {
        let open = Some(Access { read: true, write: true, exec: false });
        self.entry(
            &Credential::ROOT,
            Mutation::Create(Create { parent, name: name(n), mode: 0o644.into(), exclusive: false, open, layout }),
        )
    }

    pub fn create(&mut self, parent: Fid, n: &str) -> FsResult<Fid> {
        self.create_as(&Credential::ROOT, parent, n, 0o644)
    }

    pub fn mkdir_as(&mut self, who: &Credential, parent: Fid, n: &str, mode: u32) -> FsResult<Fid> {
        self.entry(who, Mutation::Mkdir { parent, name: name(n), mode: mode.into() }).map(|e| e.attr.fid)
    }

    pub fn mkdir(&mut self, parent: Fid, n: &str) -> FsResult<Fid> {
        self.mkdir_as(&Credential::ROOT, parent, n, 0o777)
    }

    pub fn unlink_as(&mut self, who: &Credential, parent: Fid, n: &str) -> FsResult<()> {
        self.ask(who, Mutation::Unlink { parent, name: name(n) }).map(drop)
    }

    pub fn unlink(&mut self, parent: Fid, n: &str) -> FsResult<()> {
        self.unlink_as(&Credential::ROOT, parent, n)
    }

    pub fn rmdir(&mut self, parent: Fid, n: &str) -> FsResult<()> {
        self.ask(&Credential::ROOT, Mutation::Rmdir { parent, name: name(n) }).map(drop)
    }

    pub fn link(&mut self, fid: Fid, parent: Fid, n: &str) -> FsResult<()> {
        self.ask(&Credential::ROOT, Mutation::Link { fid, parent, name: name(n) }).map(drop)
    }

    pub fn rename_as(
        &mut self,
        who: &Credential,
        (parent, n): (Fid, &str),
        (new_parent, new): (Fid, &str),
        mode: RenameMode,
    ) -> FsResult<()> {
        let op = Mutation::Rename { parent, name: name(n), new_parent, new_name: name(new), mode };
        self.ask(who, op).map(drop)
    }

    pub fn rename(&mut self, from: (Fid, &str), to: (Fid, &str)) -> FsResult<()> {
        self.rename_as(&Credential::ROOT, from, to, RenameMode::Replace)
    }

    pub fn setattr(&mut self, who: &Credential, fid: Fid, fill: impl FnOnce(&mut SetAttr)) -> FsResult<Attr> {
        let mut op = SetAttr::new(fid);
        fill(&mut op);
        self.attr_of(who, Mutation::SetAttr(op))
    }

    pub fn instantiate(&mut self, fid: Fid, offset: u64, length: u64) -> FsResult<Layout> {
        self.layout_of(&Credential::ROOT, Mutation::Instantiate { fid, offset, length })
    }

    pub fn set_layout(&mut self, fid: Fid, layout: LayoutTemplate) -> FsResult<Layout> {
        self.layout_of(&Credential::ROOT, Mutation::SetLayout { fid, layout })
    }

    pub fn write_done(&mut self, fid: Fid, end: u64, allocated_delta: i64) -> FsResult<Attr> {
        let mtime = Some(self.now());
        let op = WriteDone { fid, end, mtime, allocated_delta, clear_suid: false };
        self.attr_of(&Credential::ROOT, Mutation::WriteDone(op))
    }

    pub fn lookup(&self, parent: Fid, n: &str) -> FsResult<Attr> {
        namespace::lookup(&*self.view(), &Credential::ROOT, parent, Some(&name(n))).map(|named| named.attr)
    }

    pub fn attr(&self, fid: Fid) -> Attr {
        namespace::get_attr(&*self.view(), fid).expect("exists")
    }

    pub fn list(&self, fid: Fid) -> Vec<String> {
        let page = namespace::read_dir(&*self.view(), &Credential::ROOT, fid, 0, 10_000).expect("lists");
        page.entries.iter().map(|e| e.name.to_string()).collect()
    }
}

/// The code of a refusal.
pub fn code<T: std::fmt::Debug>(result: FsResult<T>) -> FsCode {
    result.expect_err("refused").code
}
