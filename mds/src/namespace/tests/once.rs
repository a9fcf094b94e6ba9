//! Each change takes effect exactly once.

use sateen_types::op::Mutation;
use sateen_types::{Credential, Fid, FsCode, SessionId};

use super::bench::{Bench, SESSION, code, name};
use super::on_every_store;
use crate::command::{Command, Outcome, Request};
use crate::store::{RocksOptions, RocksStore, Store, Table};

const ROOT: Fid = Fid::ROOT;

fn numbered(session: SessionId, slot: u32, number: u64, op: Mutation) -> Command {
    Command::Mutate(Box::new(Request {
        session,
        slot,
        number,
        credential: Credential::ROOT,
        op,
        hold: false,
        open: 0,
        logged: None,
    }))
}

fn mkdir(n: &str) -> Mutation {
    Mutation::Mkdir { parent: ROOT, name: name(n), mode: 0o755.into() }
}

#[test]
fn a_request_sent_again_gets_the_same_answer_and_happens_once() {
    on_every_store(|b| {
        let first = b.run(numbered(SESSION, 3, 1, mkdir("d"))).expect("makes");
        let Outcome::Reply { reply, replayed: false } = first else { panic!("{first:?}") };
        b.run(numbered(SESSION, 4, 1, Mutation::Rmdir { parent: ROOT, name: name("d") })).expect("removes");
        let again = b.run(numbered(SESSION, 3, 1, mkdir("d"))).expect("answers");
        assert_eq!(again, Outcome::Reply { reply, replayed: true });
        assert!(b.list(ROOT).is_empty(), "it was not made again");
    });
}

#[test]
fn an_old_number_is_stale_and_numbers_of_failed_requests_may_be_skipped() {
    on_every_store(|b| {
        b.run(numbered(SESSION, 1, 5, mkdir("a"))).expect("makes");
        assert_eq!(code(b.run(numbered(SESSION, 1, 4, mkdir("b")))), FsCode::Stale);
        assert_eq!(code(b.run(numbered(SESSION, 1, 6, mkdir("a")))), FsCode::Exists);
        b.run(numbered(SESSION, 1, 7, mkdir("c"))).expect("6 failed and left no record");
        assert_eq!(code(b.run(numbered(SESSION, 1, 0, mkdir("x")))), FsCode::Invalid);
        assert_eq!(code(b.run(numbered(SESSION, 256, 1, mkdir("x")))), FsCode::Invalid);
        assert_eq!(code(b.run(numbered(SessionId([9; 16]), 1, 1, mkdir("x")))), FsCode::Stale);
    });
}

#[test]
fn a_closed_session_is_stale_and_leaves_no_reply_behind() {
    on_every_store(|b| {
        b.run(numbered(SESSION, 1, 1, mkdir("a"))).expect("makes");
        b.run(Command::CloseSession { session: SESSION }).expect("closes");
        assert_eq!(code(b.run(numbered(SESSION, 1, 2, mkdir("b")))), FsCode::Stale);
        assert!(b.view().scan(Table::Replies, &[], None, 9).expect("scans").is_empty());
        b.run(Command::CloseSession { session: SESSION }).expect("again");
    });
}

#[test]
fn a_full_disk_takes_removals_and_resends_but_nothing_new() {
    on_every_store(|b| {
        b.run(numbered(SESSION, 1, 1, mkdir("a"))).expect("makes");
        b.disk_low = true;
        let refused = b.run(numbered(SESSION, 2, 1, mkdir("b"))).expect_err("full");
        assert!(refused.code == FsCode::NoSpace && refused.hint.is_some());
        b.run(numbered(SESSION, 1, 1, mkdir("a"))).expect("it was made before");
        b.run(numbered(SESSION, 1, 2, Mutation::Rmdir { parent: ROOT, name: name("a") })).expect("removes");
        b.disk_low = false;
        b.run(numbered(SESSION, 2, 1, mkdir("b"))).expect("room again");
    });
}

/// A store whose process died: RocksDB is never closed, and the directory is what a kill leaves behind.
#[test]
fn after_a_kill_everything_answered_is_there_and_resends_get_their_answers() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let live = dir.path().join("live");
    let killed = dir.path().join("killed");
    let store = RocksStore::open(&live, Table::OF_FILE_SYSTEM, RocksOptions::default()).expect("opens");
    let mut b = Bench::new(&store);
    let mut answers = Vec::new();
    for i in 1..=50 {
        answers.push(b.run(numbered(SESSION, i % 7 + 1, u64::from(i), mkdir(&format!("d{i}")))).expect("makes"));
    }
    copy_tree(&live, &killed);
    let recovered = RocksStore::open(&killed, Table::OF_FILE_SYSTEM, RocksOptions::default()).expect("recovers");
    let mut b = Bench::reopened(&recovered, 1000);
    assert_eq!(b.list(ROOT).len(), 50);
    for i in 44..=50u32 {
        let again = b.run(numbered(SESSION, i % 7 + 1, u64::from(i), mkdir(&format!("d{i}")))).expect("answers");
        let Outcome::Reply { reply, replayed: true } = again else { panic!("{again:?}") };
        assert_eq!(Outcome::Reply { reply, replayed: false }, answers[i as usize - 1]);
    }
    assert!(super::super::check::check(&*recovered.snapshot()).expect("reads").is_empty());
}

fn copy_tree(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("makes");
    for entry in std::fs::read_dir(from).expect("lists") {
        let entry = entry.expect("lists");
        if entry.file_name() != "LOCK" {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copies");
        }
    }
}
