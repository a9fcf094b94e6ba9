//! The table against a map of bytes and a matrix of who waits for whom, and the corners by name.

use proptest::prelude::*;
use sateen_types::LockMode;

use super::*;

const BYTES: u64 = 6;
const FILES: usize = 2;
/// Two sessions with two owners each.
const OWNERS: usize = 4;

fn fid(file: usize) -> Fid {
    Fid { seq: Fid::SEQ_FIRST, oid: 1 + file as u32, ver: 0 }
}

fn owner(i: usize) -> Owner {
    Owner { session: SessionId([i as u8 / 2; 16]), id: i as u64 % 2 }
}

fn range(start: u64, end: u64) -> LockRange {
    LockRange::new(start, end).expect("in order")
}

fn lock(class: LockClass, mode: LockMode, range: LockRange) -> Lock {
    Lock { class, mode, range, pid: 1 }
}

fn posix(mode: LockMode, start: u64, end: u64) -> Lock {
    lock(LockClass::Posix, mode, range(start, end))
}

fn flock(mode: LockMode) -> Lock {
    lock(LockClass::Flock, mode, LockRange::WHOLE)
}

const SH: LockMode = LockMode::Shared;
const EX: LockMode = LockMode::Exclusive;

/// What one owner holds of one file: byte by byte, by flock, and for an append.
type Held = ([Option<LockMode>; BYTES as usize], Option<LockMode>, Option<LockMode>);

#[derive(Default)]
struct Model {
    held: [[Held; OWNERS]; FILES],
    /// In the order of the queue.
    waiting: Vec<(Ticket, usize, usize, Lock)>,
}

impl Model {
    fn in_the_way(&self, file: usize, who: usize, lock: &Lock) -> Vec<usize> {
        let conflicts = |other: &usize| {
            let (bytes, whole, end) = &self.held[file][*other];
            match lock.class.space() {
                LockSpace::Whole => whole.is_some_and(|m| m.conflicts(lock.mode)),
                LockSpace::Ends => end.is_some_and(|m| m.conflicts(lock.mode)),
                LockSpace::Bytes => bytes[lock.range.start() as usize..=lock.range.end() as usize]
                    .iter()
                    .any(|m| m.is_some_and(|m| m.conflicts(lock.mode))),
            }
        };
        (0..OWNERS).filter(|other| *other != who && conflicts(other)).collect()
    }

    fn put(&mut self, file: usize, who: usize, class: LockClass, range: LockRange, mode: Option<LockMode>) {
        let (bytes, whole, end) = &mut self.held[file][who];
        match class.space() {
            LockSpace::Whole => *whole = mode,
            LockSpace::Ends => *end = mode,
            LockSpace::Bytes => {
                bytes[range.start() as usize..=(range.end() as usize).min(BYTES as usize - 1)].fill(mode)
            }
        }
    }

    /// Whether `who` would wait for itself, by the closure of the whole relation.
    fn deadlock(&self, file: usize, who: usize, lock: &Lock) -> bool {
        let mut waits = [[false; OWNERS]; OWNERS];
        let all = self.waiting.iter().map(|(_, f, w, l)| (*f, *w, *l)).chain([(file, who, *lock)]);
        for (f, w, l) in all.filter(|(_, _, l)| l.class == LockClass::Posix) {
            for other in self.in_the_way(f, w, &l) {
                waits[w][other] = true;
            }
        }
        for via in 0..OWNERS {
            for a in 0..OWNERS {
                for b in 0..OWNERS {
                    waits[a][b] |= waits[a][via] && waits[via][b];
                }
            }
        }
        // Only circles through the new request count; older ones are open files' or of several threads.
        lock.class == LockClass::Posix && {
            let direct = self.in_the_way(file, who, lock);
            direct.iter().any(|b| waits[*b][who])
        }
    }

    fn grant(&mut self) {
        while let Some(i) = self.waiting.iter().position(|(_, f, w, l)| self.in_the_way(*f, *w, l).is_empty()) {
            let (_, file, who, lock) = self.waiting.remove(i);
            self.put(file, who, lock.class, lock.range, Some(lock.mode));
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Set { file: usize, who: usize, lock: Lock, wait: bool },
    Unlock { file: usize, who: usize, class: LockClass, range: LockRange },
    Release { file: usize, who: usize },
    Cancel { nth: usize },
    End { session: usize },
}

fn steps() -> impl Strategy<Value = Step> {
    let place = (0..FILES, 0..OWNERS);
    let bytes = (0..BYTES, 0..BYTES).prop_map(|(a, b)| range(a.min(b), a.max(b)));
    let class = prop_oneof![
        4 => Just(LockClass::Posix),
        1 => Just(LockClass::Ofd),
        1 => Just(LockClass::Flock),
        1 => Just(LockClass::Append),
    ];
    let what = (class, bytes).prop_map(|(c, r)| (c, if c.space() == LockSpace::Bytes { r } else { LockRange::WHOLE }));
    let mode = prop_oneof![Just(SH), Just(EX)];
    prop_oneof![
        8 => (place.clone(), what.clone(), mode, any::<bool>()).prop_map(|((file, who), (class, range), mode, wait)| {
            Step::Set { file, who, lock: lock(class, mode, range), wait }
        }),
        4 => (place.clone(), what).prop_map(|((file, who), (class, range))| Step::Unlock { file, who, class, range }),
        1 => place.prop_map(|(file, who)| Step::Release { file, who }),
        1 => (0..8usize).prop_map(|nth| Step::Cancel { nth }),
        1 => (0..OWNERS / 2).prop_map(|session| Step::End { session }),
    ]
}

fn check(table: &LockTable, model: &Model) {
    for (f, of_file) in model.held.iter().enumerate() {
        for (who, (bytes, whole, end)) in of_file.iter().enumerate() {
            let set = |space| table.files.get(&fid(f)).and_then(|file| file.held.get(&(space, owner(who))));
            let at = |space, byte| set(space).and_then(|s| s.within(range(byte, byte)).first()).map(|l| l.mode);
            for byte in 0..BYTES {
                assert_eq!(at(LockSpace::Bytes, byte), bytes[byte as usize], "byte {byte} of file {f}, owner {who}");
            }
            assert_eq!(at(LockSpace::Whole, 0), *whole, "flock of file {f}, owner {who}");
            assert_eq!(at(LockSpace::Ends, 0), *end, "append of file {f}, owner {who}");
        }
        // Written out once more: no two owners exclude each other.
        for a in 0..OWNERS {
            for b in 0..a {
                let (x, y) = (&of_file[a], &of_file[b]);
                let clash = |p: Option<LockMode>, q: Option<LockMode>| p.zip(q).is_some_and(|(p, q)| p.conflicts(q));
                assert!(!x.0.iter().zip(&y.0).any(|(p, q)| clash(*p, *q)) && !clash(x.1, y.1) && !clash(x.2, y.2));
            }
        }
    }
    let mut tickets: Vec<Ticket> = table.files.values().flat_map(|f| f.waiting.keys().copied()).collect();
    tickets.sort();
    let mut expected: Vec<Ticket> = model.waiting.iter().map(|w| w.0).collect();
    expected.sort();
    assert_eq!(tickets, expected);
    // The indexes agree with what they index.
    let count: usize = table.files.values().flat_map(|f| f.held.values()).map(LockSet::len).sum();
    assert_eq!(table.counts(), (count, tickets.len()));
    assert_eq!(table.sessions.values().map(|s| s.count).sum::<usize>(), count);
    assert_eq!(table.sessions.values().map(|s| s.waiting.len()).sum::<usize>(), tickets.len());
    assert_eq!(table.waits.values().map(Vec::len).sum::<usize>(), tickets.len());
    let files: HashSet<Fid> = table.sessions.values().flat_map(|s| s.files.iter().copied()).collect();
    assert_eq!(files, table.files.keys().copied().collect::<HashSet<_>>());
}

fn run(table: &mut LockTable, model: &mut Model, step: Step) {
    match step {
        Step::Set { file, who, lock, wait } => {
            let had = model.held[file][who].1;
            if lock.class == LockClass::Flock && had != Some(lock.mode) {
                model.put(file, who, LockClass::Flock, LockRange::WHOLE, None);
            }
            let (free, deadlock) = (model.in_the_way(file, who, &lock).is_empty(), model.deadlock(file, who, &lock));
            match table.set(fid(file), owner(who), lock, wait) {
                Ok(Outcome::Done) => {
                    assert!(free);
                    model.put(file, who, lock.class, lock.range, Some(lock.mode));
                }
                Ok(Outcome::Queued(ticket)) => {
                    assert!(!free && wait && !deadlock);
                    model.waiting.push((ticket, file, who, lock));
                }
                Ok(Outcome::Settled) => panic!("only of a cancel"),
                Err(e) if e.code == FsCode::WouldBlock => assert!(!free && !wait),
                Err(e) => assert!(e.code == FsCode::Deadlock && !free && wait && deadlock, "{e}"),
            }
        }
        Step::Unlock { file, who, class, range } => {
            table.unlock(fid(file), owner(who), class.space(), range).expect("room");
            model.put(file, who, class, range, None);
        }
        Step::Release { file, who } => {
            table.release(fid(file), owner(who));
            model.held[file][who] = Held::default();
        }
        Step::Cancel { nth } => {
            let Some((ticket, _, who, _)) = model.waiting.get(nth).copied() else { return };
            assert!(!table.leave_queue(ticket, SessionId([9; 16])), "not of another session");
            assert!(table.leave_queue(ticket, owner(who).session));
            assert!(!table.leave_queue(ticket, owner(who).session), "once");
            model.waiting.remove(nth);
        }
        Step::End { session } => {
            table.end_session(SessionId([session as u8; 16]));
            for of_file in &mut model.held {
                of_file[2 * session] = Held::default();
                of_file[2 * session + 1] = Held::default();
            }
            model.waiting.retain(|w| w.2 / 2 != session);
        }
    }
    model.grant();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_requests_does_what_a_map_of_bytes_does(steps in prop::collection::vec(steps(), 1..80)) {
        let (mut table, mut model) = (LockTable::default(), Model::default());
        for step in steps {
            run(&mut table, &mut model, step);
            check(&table, &model);
        }
        // Nothing is lost: when all that is held goes, all that wait go on, and nothing stays.
        for who in 0..OWNERS {
            for file in 0..FILES {
                run(&mut table, &mut model, Step::Release { file, who });
            }
        }
        while !model.waiting.is_empty() || model.held.iter().flatten().any(|h| *h != Held::default()) {
            for who in 0..OWNERS {
                for file in 0..FILES {
                    run(&mut table, &mut model, Step::Release { file, who });
                    check(&table, &model);
                }
            }
        }
        prop_assert!(table.files.is_empty() && table.waits.is_empty());
    }

    #[test]
    fn what_is_restated_in_any_order_is_what_was_held(
        steps in prop::collection::vec(steps(), 1..60), reversed: bool,
    ) {
        let (mut table, mut model) = (LockTable::default(), Model::default());
        for step in steps {
            run(&mut table, &mut model, step);
        }
        let mut restarted = LockTable::default();
        let mut sessions: Vec<usize> = (0..OWNERS / 2).collect();
        if reversed {
            sessions.reverse();
        }
        for session in sessions {
            let id = SessionId([session as u8; 16]);
            let mut held = Vec::new();
            for (fid, file) in &table.files {
                for ((_, owner), set) in file.held.iter().filter(|((_, o), _)| o.session == id) {
                    held.extend(set.iter().map(|lock| (*fid, OwnedLock { owner: owner.id, lock: *lock })));
                }
            }
            prop_assert_eq!(restarted.restate(id, &held), vec![]);
            // A message that comes twice changes nothing.
            prop_assert_eq!(restarted.restate(id, &held), vec![]);
        }
        model.waiting.clear();
        check(&restarted, &model);
    }
}

#[test]
fn of_those_that_wait_the_oldest_goes_first() {
    let mut t = LockTable::default();
    t.set(fid(0), owner(0), posix(EX, 0, 9), false).expect("free");
    let wait = |t: &mut LockTable, who, lock| match t.set(fid(0), owner(who), lock, true) {
        Ok(Outcome::Queued(ticket)) => ticket,
        other => panic!("{other:?}"),
    };
    let (a, b) = (wait(&mut t, 1, posix(EX, 5, 5)), wait(&mut t, 2, posix(EX, 5, 6)));
    let c = wait(&mut t, 3, posix(SH, 0, 3));
    t.unlock(fid(0), owner(0), LockSpace::Bytes, LockRange::WHOLE).expect("room");
    let all = |t: &LockTable| [(1, a), (2, b), (3, c)].map(|(i, x)| t.settled(owner(i).session, &[x]).len());
    assert_eq!(all(&t), [1, 0, 1], "a came before b; c is in nobody's way");
    assert_eq!(t.take_woken().len(), 2);
    t.release(fid(0), owner(1));
    assert_eq!(all(&t), [1, 1, 1]);
}

#[test]
fn a_circle_over_files_and_sessions_is_refused_and_open_files_are_not_asked() {
    let mut t = LockTable::default();
    for (file, who) in [(0, 0), (1, 2)] {
        t.set(fid(file), owner(who), posix(EX, 0, 0), false).expect("free");
    }
    assert!(matches!(t.set(fid(1), owner(0), posix(SH, 0, 0), true), Ok(Outcome::Queued(_))));
    let refused = t.set(fid(0), owner(2), posix(EX, 0, 0), true).expect_err("a circle");
    assert_eq!(refused.code, FsCode::Deadlock);
    let ofd = lock(LockClass::Ofd, EX, range(0, 0));
    assert!(matches!(t.set(fid(0), owner(2), ofd, true), Ok(Outcome::Queued(_))), "as on Linux");
}

#[test]
fn a_weaker_lock_that_is_granted_makes_room_for_older_requests_first() {
    let (mut table, mut model) = (LockTable::default(), Model::default());
    let set = |who, lock, wait| Step::Set { file: 0, who, lock, wait };
    for step in [
        set(0, posix(EX, 0, 2), false),
        set(3, posix(EX, 3, 3), false),
        // Older, and in the way of nothing but the exclusive lock of byte 3.
        set(2, posix(SH, 0, 3), true),
        // Takes byte 3 as well, in place of that.
        set(3, posix(SH, 0, 3), true),
        // Younger, and against both.
        set(1, posix(EX, 3, 3), true),
        set(0, posix(SH, 0, 2), false),
    ] {
        run(&mut table, &mut model, step);
        check(&table, &model);
    }
    assert_eq!(model.held[0][2].0[3], Some(SH));
    assert_eq!(model.waiting.len(), 1, "the youngest waits");
}

#[test]
fn converting_a_flock_gives_the_old_one_up_first() {
    let mut t = LockTable::default();
    for who in [0, 2] {
        t.set(fid(0), owner(who), flock(SH), false).expect("shared");
    }
    assert_eq!(t.set(fid(0), owner(0), flock(EX), false).expect_err("held").code, FsCode::WouldBlock);
    assert_eq!(t.set(fid(0), owner(2), flock(EX), false), Ok(Outcome::Done), "the first has lost its own");
    t.set(fid(0), owner(0), posix(EX, 0, 5), false).expect("another space");
}

#[test]
fn a_request_that_is_sent_again_takes_effect_once_and_a_late_one_never() {
    let mut t = LockTable::default();
    let me = owner(0);
    let set = |t: &mut LockTable, number| {
        t.once(me.session, Number { slot: 3, number }, |t| t.set(fid(0), me, posix(EX, 0, 0), false))
    };
    assert_eq!(set(&mut t, 1), Ok(Outcome::Done));
    t.once(me.session, Number { slot: 4, number: 1 }, |t| Ok(t.release(fid(0), me))).expect("released");
    assert_eq!(set(&mut t, 1), Ok(Outcome::Done), "the answer");
    assert_eq!(t.counts(), (0, 0), "but not the effect");
    t.set(fid(0), owner(2), posix(EX, 0, 0), false).expect("free");
    assert_eq!(set(&mut t, 2).expect_err("held").code, FsCode::WouldBlock);
    t.release(fid(0), owner(2));
    assert_eq!(set(&mut t, 2).expect_err("as before").code, FsCode::WouldBlock);
    assert_eq!(set(&mut t, 1).expect_err("late").code, FsCode::Stale);
}

#[test]
fn bounds_hold_and_say_what_to_do() {
    let mut t = LockTable::default();
    let me = owner(0);
    for i in 0..SESSION_LOCKS_MAX as u64 - 1 {
        t.set(fid(0), me, posix(EX, 3 * i, 3 * i + 1), false).expect("room");
    }
    let wide = 4 * SESSION_LOCKS_MAX as u64;
    t.set(fid(1), me, posix(EX, wide, wide + 9), false).expect("the last one");
    let refused = t.set(fid(1), me, posix(EX, 0, 0), false).expect_err("one too many");
    assert!(refused.code == FsCode::NoLocks && refused.hint.is_some());
    let cut = t.unlock(fid(1), me, LockSpace::Bytes, range(wide + 3, wide + 4)).expect_err("makes two of one");
    assert_eq!(cut.code, FsCode::NoLocks);
    t.set(fid(1), me, posix(EX, wide + 10, wide + 10), false).expect("grows the last one");
    t.end_session(me.session);
    assert_eq!(t.counts(), (0, 0));
}
