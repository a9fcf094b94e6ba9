//! The corners, each by name.

use super::*;

const A: SessionId = SessionId([1; 16]);
const B: SessionId = SessionId([2; 16]);
const C: SessionId = SessionId([3; 16]);
const F: Fid = file(1);

const fn file(oid: u32) -> Fid {
    Fid { seq: Fid::SEQ_FIRST, oid, ver: 0 }
}

const READS: Using = Using::Reading;
const WRITES: Using = Using::Writing;
const NOTHING: Using = Using::Nothing;

/// The table, with the stream of each session.
struct Bench {
    table: CapabilityTable,
    streams: HashMap<SessionId, u64>,
}

/// A table to which three sessions listen.
fn bench() -> Bench {
    let mut table = CapabilityTable::new(100);
    let streams = [A, B, C].map(|session| (session, table.listen(session))).into();
    Bench { table, streams }
}

impl Bench {
    /// The session opens the file, and is answered or must wait.
    fn open(&mut self, session: SessionId, using: Using) -> Result<Grant, Wait> {
        self.table.open(session, F, using);
        self.look(session)
    }

    fn look(&mut self, session: SessionId) -> Result<Grant, Wait> {
        self.table.grant(session, F).expect("it is open")
    }

    fn granted(&mut self, session: SessionId) -> Capability {
        self.look(session).expect("nobody is in the way").capability
    }

    /// The only recall for the session.
    fn recall(&mut self, session: SessionId) -> Recall {
        let recalls = self.recalls(session);
        assert_eq!(recalls.len(), 1, "{recalls:?}");
        recalls[0].1
    }

    fn recalls(&mut self, session: SessionId) -> Vec<(Fid, Recall)> {
        self.table.take_recalls(session, self.streams[&session]).expect("the stream is its own")
    }

    fn answer(&mut self, session: SessionId, recall: Recall, using: Using) {
        self.table.answer(session, F, recall.number, using, Unreported::default());
    }

    /// The session has been asked, and says how it uses the file.
    fn says(&mut self, session: SessionId, using: Using) -> Recall {
        let recall = self.recall(session);
        self.answer(session, recall, using);
        recall
    }

    /// Both have the file open; gives what each believes it may keep.
    fn two(&mut self, first: Using, second: Using) -> (Capability, Capability) {
        let mut has = self.open(A, first).expect("alone").capability;
        if self.open(B, second).is_err() {
            has = has.min(self.says(A, first).keep);
        }
        (has, self.granted(B))
    }
}

fn on(session: SessionId) -> Result<Grant, Wait> {
    Err(Wait { on: Some(session) })
}

#[test]
fn one_that_is_alone_may_keep_what_it_wants() {
    assert_eq!(bench().open(A, WRITES).expect("alone").capability, Capability::Write);
    assert_eq!(bench().open(A, READS).expect("alone").capability, Capability::Read);
}

#[test]
fn two_have_what_the_use_of_the_other_leaves() {
    assert_eq!(bench().two(READS, READS), (Capability::Read, Capability::Read));
    assert_eq!(bench().two(READS, WRITES), (Capability::None, Capability::Read));
    assert_eq!(bench().two(WRITES, READS), (Capability::Read, Capability::None));
    assert_eq!(bench().two(WRITES, WRITES), (Capability::None, Capability::None));
}

#[test]
fn readers_do_not_ask_each_other() {
    let mut t = bench();
    for session in [A, B, C] {
        assert_eq!(t.open(session, READS).expect("nobody is in the way").capability, Capability::Read);
    }
    assert!(t.table.take_woken().is_empty());
}

#[test]
fn a_reader_that_also_writes_is_granted_more() {
    let mut t = bench();
    t.open(A, READS).expect("alone");
    assert_eq!(t.open(A, WRITES).expect("alone").capability, Capability::Write);
}

#[test]
fn whoever_is_asked_is_woken_and_the_recall_is_carried_once() {
    let mut t = bench();
    t.open(A, WRITES).expect("alone");
    assert_eq!(t.open(B, READS), on(A));
    assert_eq!(t.look(B), on(A), "looking again asks nobody again");
    assert_eq!(t.table.take_woken(), [A]);
    assert!(t.table.take_woken().is_empty());
    assert_eq!(t.table.counts(), (1, 1));
    assert_eq!(t.recall(A).keep, Capability::Read);
    assert!(t.recalls(A).is_empty());
}

#[test]
fn a_recall_leaves_what_all_who_wait_leave() {
    let mut t = bench();
    t.open(A, WRITES).expect("alone");
    t.table.open(C, F, WRITES);
    assert!(t.open(B, READS).is_err());
    assert_eq!(t.says(A, WRITES).keep, Capability::None);
}

#[test]
fn a_use_is_that_of_all_opens_together() {
    let mut t = bench();
    t.open(A, WRITES).expect("alone");
    t.open(A, READS).expect("alone");
    assert!(t.table.is_written_elsewhere(B, F) && !t.table.is_written_elsewhere(A, F));
}

#[test]
fn a_close_and_the_end_of_a_session_give_way() {
    for goes in [|t: &mut CapabilityTable| t.closed(A, F), |t: &mut CapabilityTable| t.end_session(A)] {
        let mut t = bench();
        t.open(A, WRITES).expect("alone");
        assert_eq!(t.open(B, WRITES), on(A));
        goes(&mut t.table);
        assert_eq!(t.granted(B), Capability::Write);
        t.table.closed(B, F);
        assert_eq!(t.table.counts(), (0, 0));
    }
}

#[test]
fn a_recall_of_what_was_closed_since_is_not_carried() {
    let mut t = bench();
    t.open(A, WRITES).expect("alone");
    assert_eq!(t.open(B, READS), on(A));
    t.table.closed(A, F);
    assert!(t.recalls(A).is_empty());
}

#[test]
fn whoever_answers_that_it_does_nothing_with_the_file_has_it_open_no_longer() {
    let mut t = bench();
    t.open(A, WRITES).expect("alone");
    assert_eq!(t.open(B, WRITES), on(A));
    t.says(A, NOTHING);
    assert_eq!(t.granted(B), Capability::Write);
    assert_eq!(t.table.grant(A, F).expect_err("it has told so itself").code, FsCode::Stale);
}

#[test]
fn a_use_that_leaked_is_asked_for_and_heals() {
    let mut t = bench();
    // The reply was lost, and the program has gone.
    t.open(A, WRITES).expect("alone");
    assert!(t.table.is_written_elsewhere(B, F));
    assert_eq!(t.open(B, READS), on(A));
    t.says(A, NOTHING);
    assert_eq!(t.granted(B), Capability::Read);
    assert!(!t.table.is_written_elsewhere(B, F));
    // Also where it keeps nothing that is in the way.
    t.open(A, READS).expect("both read");
    assert_eq!(t.open(B, WRITES), on(A));
    t.says(A, NOTHING);
    assert_eq!(t.granted(B), Capability::Write);
}

#[test]
fn an_answer_from_before_an_open_does_not_take_the_open_back_and_the_next_asks_again() {
    let mut t = bench();
    t.open(A, READS).expect("alone");
    assert_eq!(t.open(B, WRITES), on(A));
    let recall = t.recall(A);
    t.table.open(A, F, READS);
    t.answer(A, recall, NOTHING);
    assert_eq!(t.granted(B), Capability::Read, "it reads");
    assert_eq!(t.open(B, WRITES), on(A), "the next open asks again");
    assert_eq!(t.open(C, WRITES), on(B), "also that of somebody else");
    t.says(A, NOTHING);
    t.says(B, WRITES);
    assert_eq!(t.granted(C), Capability::None);
}

#[test]
fn one_that_opens_again_and_again_does_not_keep_another_waiting() {
    let mut t = bench();
    t.open(A, WRITES).expect("alone");
    assert_eq!(t.open(B, WRITES), on(A));
    let recall = t.recall(A);
    for _ in 0..3 {
        t.table.open(A, F, WRITES);
    }
    t.answer(A, recall, WRITES);
    t.table.open(A, F, WRITES);
    assert_eq!(t.granted(B), Capability::None);
    t.table.begin_change(C, F).expect("nobody keeps anything, whoever has it open");
}

#[test]
fn a_session_that_does_not_listen_has_nothing_and_is_not_waited_for() {
    let mut t = bench();
    let deaf = SessionId([9; 16]);
    assert_eq!(t.open(deaf, WRITES).expect("alone").capability, Capability::None);
    assert_eq!(t.open(A, WRITES).expect("not waited for").capability, Capability::None);
    t.table.closed(A, F);
    t.table.begin_change(B, F).expect("not waited for");
    t.table.end_change(F);
    t.table.listen(deaf);
    assert_eq!(t.open(deaf, WRITES).expect("alone").capability, Capability::Write, "since it listens");
}

#[test]
fn after_a_restart_a_session_that_does_not_listen_is_not_waited_for_either() {
    let mut t = bench();
    let deaf = SessionId([9; 16]);
    t.table.restate(deaf, F, WRITES, Capability::None);
    assert_eq!(t.open(A, WRITES).expect("not waited for").capability, Capability::None);
}

#[test]
fn a_new_stream_carries_what_is_unanswered_and_the_old_one_ends() {
    let mut t = bench();
    t.open(A, WRITES).expect("alone");
    assert_eq!(t.open(B, READS), on(A));
    let lost = t.recall(A);
    let old = t.streams[&A];
    let new = t.table.listen(A);
    assert_eq!(t.table.take_recalls(A, old), None);
    assert_eq!(t.table.take_recalls(A, new), Some(vec![(F, lost)]));
    t.answer(A, lost, WRITES);
    let newer = t.table.listen(A);
    assert_eq!(t.table.take_recalls(A, newer), Some(Vec::new()), "it was answered");
    t.table.end_session(A);
    assert_eq!(t.table.take_recalls(A, newer), None);
}

#[test]
fn recalls_are_carried_some_at_a_time_and_never_twice() {
    let mut t = bench();
    let files: Vec<Fid> = (0..RECALLS_MAX as u32 + 5).map(file).collect();
    for fid in &files {
        t.table.open(A, *fid, WRITES);
        t.table.grant(A, *fid).expect("open").expect("alone");
        t.table.open(B, *fid, WRITES);
        t.table.grant(B, *fid).expect("open").expect_err("must wait");
    }
    let (first, second) = (t.recalls(A), t.recalls(A));
    assert_eq!((first.len(), second.len()), (RECALLS_MAX, 5));
    let carried: Vec<Fid> = first.iter().chain(&second).map(|(fid, _)| *fid).collect();
    assert_eq!(carried, files, "in the order in which they were recalled");
}

#[test]
fn the_queue_of_one_that_does_not_read_its_stream_does_not_grow() {
    let mut t = bench();
    t.open(A, WRITES).expect("alone");
    for _ in 0..100 {
        t.table.ask_writer(B, F).expect("it may have written");
    }
    assert_eq!(t.table.sessions[&A].queue.len(), 1);
    t.recall(A);
}

#[test]
fn a_change_takes_all_from_others_and_nobody_is_granted_anything_meanwhile() {
    let mut t = bench();
    t.open(A, WRITES).expect("alone");
    assert_eq!(t.table.begin_change(B, F), Err(Wait { on: Some(A) }));
    assert_eq!(t.says(A, WRITES).keep, Capability::None);
    t.table.begin_change(B, F).expect("nobody keeps anything");
    let changing = Err(Wait { on: None });
    assert_eq!((t.open(A, WRITES), t.open(B, READS)), (changing, changing));
    t.table.end_change(F);
    assert_eq!(t.look(A), on(B));
}

#[test]
fn one_that_is_alone_keeps_what_it_has_while_it_changes_the_file() {
    let mut t = bench();
    t.open(A, WRITES).expect("alone");
    t.table.begin_change(A, F).expect("nobody else keeps anything");
    assert!(t.recalls(A).is_empty());
    t.table.end_change(F);
    assert_eq!(t.open(A, WRITES).expect("alone").capability, Capability::Write);
}

#[test]
fn of_two_changes_the_last_lets_others_go_on() {
    let mut t = bench();
    t.table.begin_change(A, F).expect("nobody has it");
    t.table.begin_change(B, F).expect("nobody has it");
    assert!(t.open(C, READS).is_err());
    t.table.end_change(F);
    assert!(t.look(C).is_err());
    t.table.end_change(F);
    assert_eq!(t.granted(C), Capability::Read);
    t.table.closed(C, F);
    t.table.end_change(F);
    assert_eq!(t.table.counts(), (0, 0), "an end too many does nothing");
}

#[test]
fn a_change_outlives_the_end_of_the_session_that_makes_it() {
    let mut t = bench();
    t.open(A, WRITES).expect("alone");
    t.table.begin_change(A, F).expect("alone");
    t.table.end_session(A);
    assert_eq!(t.open(B, READS), Err(Wait { on: None }));
    t.table.end_change(F);
    assert_eq!(t.granted(B), Capability::Read);
}

#[test]
fn answers_with_a_wrong_an_old_or_a_future_number_count_for_nothing() {
    let mut t = bench();
    t.open(A, WRITES).expect("alone");
    t.table.ask_writer(B, F).expect("it may have written");
    let old = t.recall(A);
    assert_eq!(t.open(B, READS), on(A));
    let recall = t.recall(A);
    for number in [0, old.number, recall.number - 1, recall.number + 1, u64::MAX] {
        t.table.answer(A, F, number, NOTHING, Unreported::default());
        t.table.answer(C, F, recall.number, NOTHING, Unreported::default());
        t.table.answer(A, file(2), recall.number, NOTHING, Unreported::default());
        assert_eq!(t.look(B), on(A), "after an answer to {number}");
    }
    assert_eq!(t.table.told(A, F, recall.number), None, "it has not answered");
    t.answer(A, recall, READS);
    assert_eq!(t.granted(B), Capability::Read);
    t.answer(A, recall, NOTHING);
    assert_eq!(t.granted(A), Capability::Read, "an answer that comes twice counts once");
}

#[test]
fn what_a_client_had_before_a_restart_is_recalled_like_anything() {
    let mut t = bench();
    t.table.restate(A, F, READS, Capability::Read);
    t.table.restate(A, F, WRITES, Capability::Write);
    assert_eq!(t.open(B, READS), on(A));
    assert_eq!(t.says(A, WRITES).keep, Capability::Read);
    assert_eq!(t.granted(B), Capability::None);
}

#[test]
fn what_was_said_after_a_restart_counts_though_the_client_opens_again_before_it_listens() {
    let mut t = CapabilityTable::new(100);
    t.restate(A, F, WRITES, Capability::Write);
    t.open(A, F, READS);
    let grant = t.grant(A, F).expect("open").expect("alone");
    assert_eq!(grant.capability, Capability::None, "it does not listen yet");
    t.listen(B);
    t.open(B, F, WRITES);
    assert_eq!(t.grant(B, F).expect("open"), on(A), "it keeps what it had");
}

#[test]
fn a_grant_that_overtakes_an_answer_gives_no_more_than_the_recall_leaves() {
    let mut t = bench();
    // A has it open and opens it again; before that is answered, somebody begins to change it.
    t.open(A, WRITES).expect("alone");
    t.table.open(A, F, WRITES);
    assert!(t.table.begin_change(B, F).is_err());
    let recall = t.recall(A);
    let grant = t.look(A).expect("nobody is in the way");
    assert!(grant.number > recall.number && grant.capability <= recall.keep, "{grant:?} after {recall:?}");
    t.answer(A, recall, WRITES);
    t.table.begin_change(B, F).expect("A has given up all");
}

#[test]
fn a_grant_that_gives_less_does_not_count_as_an_answer() {
    let mut t = bench();
    t.open(A, WRITES).expect("alone");
    t.table.open(A, F, WRITES);
    t.table.ask_writer(C, F).expect("it may have written");
    t.says(A, WRITES);
    assert_eq!(t.open(B, READS), on(A));
    assert_eq!(t.look(A), on(B));
    t.says(B, READS);
    assert_eq!(t.granted(A), Capability::Read, "beside a reader");
    assert_eq!(t.look(B), on(A), "A may not know of that grant yet, and holds what it wrote");
    assert_eq!(t.says(A, WRITES).keep, Capability::Read);
    assert_eq!(t.granted(B), Capability::None);
}

fn size(size: u64) -> Unreported {
    Unreported { size, mtime: None }
}

#[test]
fn a_writer_is_asked_for_what_only_it_knows_and_keeps_all() {
    let mut t = bench();
    assert_eq!(t.table.ask_writer(B, F), None);
    t.open(A, WRITES).expect("alone");
    assert_eq!(t.table.ask_writer(A, F), None, "it knows itself");
    let (writer, number) = t.table.ask_writer(B, F).expect("it may have written");
    assert_eq!((writer, t.table.told(A, F, number)), (A, None));
    let recall = t.recall(A);
    assert_eq!(recall, Recall { number, keep: Capability::Write });
    t.table.answer(A, F, number, WRITES, size(7));
    assert_eq!(t.table.told(A, F, number), Some(Some(size(7))));
    assert_eq!(t.granted(A), Capability::Write);
}

#[test]
fn a_reader_is_not_asked_for_sizes() {
    let mut t = bench();
    t.open(A, READS).expect("alone");
    assert_eq!(t.table.ask_writer(B, F), None);
}

#[test]
fn each_that_asks_is_told_by_an_answer_to_its_own_question_or_a_later_one() {
    let mut t = bench();
    t.open(A, WRITES).expect("alone");
    let (_, first) = t.table.ask_writer(B, F).expect("it may have written");
    let answered = t.recall(A);
    let (_, second) = t.table.ask_writer(C, F).expect("it may have written");
    t.table.answer(A, F, answered.number, WRITES, size(7));
    assert_eq!(t.table.told(A, F, first), Some(Some(size(7))));
    assert_eq!(t.table.told(A, F, second), None, "more may have been written since");
    let recall = t.recall(A);
    t.table.answer(A, F, recall.number, WRITES, size(9));
    assert_eq!(t.table.told(A, F, second), Some(Some(size(9))));
    t.table.answer(A, F, answered.number, WRITES, size(7));
    assert_eq!(t.table.told(A, F, second), Some(Some(size(9))), "the old answer came twice");
}

#[test]
fn whoever_asks_for_a_size_waits_for_a_recall_that_is_under_way() {
    let mut t = bench();
    t.open(A, WRITES).expect("alone");
    assert_eq!(t.open(B, READS), on(A));
    let (writer, number) = t.table.ask_writer(C, F).expect("it may have written");
    assert_eq!((writer, number), (A, t.recall(A).number));
    assert_eq!(t.table.told(A, F, number), None);
    t.table.answer(A, F, number, WRITES, size(7));
    assert!(t.table.told(A, F, number).is_some());
    assert_eq!(t.table.ask_writer(C, F), None, "it reports everything from now on");
}

#[test]
fn a_recall_in_place_of_a_question_answers_that_too() {
    let mut t = bench();
    t.open(A, WRITES).expect("alone");
    let (_, asked) = t.table.ask_writer(C, F).expect("it may have written");
    assert_eq!(t.open(B, WRITES), on(A));
    let recall = t.says(A, WRITES);
    assert!(recall.number > asked && recall.keep == Capability::None);
    assert!(t.table.told(A, F, asked).is_some());
    assert_eq!(t.granted(B), Capability::None);
}

#[test]
fn a_writer_that_closes_or_goes_has_told_all() {
    for goes in [|t: &mut CapabilityTable| t.closed(A, F), |t: &mut CapabilityTable| t.end_session(A)] {
        let mut t = bench();
        t.open(A, WRITES).expect("alone");
        let (_, number) = t.table.ask_writer(B, F).expect("it may have written");
        goes(&mut t.table);
        assert_eq!(t.table.told(A, F, number), Some(None));
    }
}

#[test]
fn a_writer_that_closes_and_opens_again_before_it_is_asked_has_told_all() {
    let mut t = bench();
    t.open(A, WRITES).expect("alone");
    let (_, number) = t.table.ask_writer(B, F).expect("it may have written");
    t.table.closed(A, F);
    assert_eq!(t.open(A, WRITES).expect("alone").capability, Capability::Write);
    assert!(t.recalls(A).is_empty(), "nobody will answer");
    assert_eq!(t.table.told(A, F, number), Some(Some(Unreported::default())));
}

#[test]
fn numbers_of_a_restarted_server_are_above_those_it_is_told() {
    let mut t = CapabilityTable::new(1000);
    t.listen(A);
    t.open(A, F, READS);
    assert!(t.grant(A, F).expect("open").expect("alone").number > 1000);
    assert_eq!(t.grant(B, F).expect_err("not open").code, FsCode::Stale);
}
