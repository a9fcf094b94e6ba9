//! The specification, and the checker with it: what a tree of names did passes, and what none can do does not.

use rand::Rng;
use rand::rngs::StdRng;

use super::choose::Known;
use super::*;
use crate::linear::{Call, Verdict, check};
use crate::rng::seeded;

type History = Vec<Call<Op, Answer>>;

const TOP: Fid = fid(1);

const fn fid(oid: u32) -> Fid {
    Fid { seq: 0x2_0000_0400, oid, ver: 0 }
}

fn verdict(calls: &History) -> Verdict {
    let spec = Names::new(calls.iter().filter_map(|call| Some((&call.op, &call.answer.as_ref()?.0))));
    check(&spec, State::new(TOP), calls)
}

#[track_caller]
fn assert_broken(what: &str, calls: &History) {
    assert!(matches!(verdict(calls), Verdict::Broken(_)), "{what} was not seen in {calls:#?}");
}

fn stat(id: Fid, kind: FileType, links: u32) -> Seen<Fid> {
    let mode = if kind == FileType::Directory { MODES.1 } else { MODES.0 };
    Seen::Inode(Stat { id, kind, mode, links }, false)
}

/// Calls one after the other.
fn in_order(calls: &[(Op, Option<Answer>)]) -> History {
    let call = |(i, (op, answer)): (usize, &(Op, Option<Answer>))| {
        let began = 2 * i as u64;
        Call { client: 0, op: op.clone(), answer: answer.clone().map(|answer| (answer, began + 1)), began }
    };
    calls.iter().enumerate().map(call).collect()
}

fn create(label: Label, serial: u32) -> Op {
    Op::Create { at: (TOP, label), exclusive: true, serial }
}

fn lookup(label: Label) -> Op {
    Op::Lookup { at: (TOP, label) }
}

fn file(number: u32) -> Answer {
    Ok(stat(fid(number), FileType::Regular, 1))
}

fn is_good(calls: &[(Op, Option<Answer>)]) -> bool {
    verdict(&in_order(calls)) == Verdict::Linearizable
}

#[test]
fn a_name_is_made_once_and_seen_until_it_goes() {
    let made = (create(0, 1), Some(file(7)));
    let missing = Some(Err(FsCode::NotFound));
    assert!(is_good(&[(lookup(0), missing.clone()), made.clone(), (lookup(0), Some(file(7)))]));
    assert!(!is_good(&[made.clone(), (lookup(0), missing.clone())]), "it was lost");
    assert!(!is_good(&[made.clone(), (lookup(0), Some(file(8)))]), "it is another");
    assert!(!is_good(&[made.clone(), (create(0, 2), Some(file(8)))]), "it was made twice");
    assert!(is_good(&[made.clone(), (create(0, 2), Some(Err(FsCode::Exists)))]));
    let gone = (Op::Unlink { at: (TOP, 0) }, Some(Ok(Seen::Done)));
    assert!(is_good(&[made.clone(), gone.clone(), (lookup(0), missing)]));
    assert!(!is_good(&[made.clone(), gone.clone(), (lookup(0), Some(file(7)))]), "it came back");
    assert!(!is_good(&[made, gone.clone(), gone]), "it went twice");
}

#[test]
fn a_rename_moves_and_replaces_at_one_moment() {
    let made = [(create(0, 1), Some(file(7))), (create(1, 2), Some(file(8)))];
    let rename = Op::Rename { from: (TOP, 0), to: (TOP, 1), mode: RenameMode::Replace };
    let done = Some(Ok(Seen::Done));
    let look = |label, answer: Answer| (lookup(label), Some(answer));
    let history = |answers: [(Op, Option<Answer>); 2]| {
        let mut calls = in_order(&[made.clone().as_slice(), &[(rename.clone(), done.clone())], &answers].concat());
        // The looks happen while it is renamed.
        calls[2].answer.as_mut().expect("given").1 = 100;
        verdict(&calls) == Verdict::Linearizable
    };
    let missing = || Err(FsCode::NotFound);
    assert!(history([look(1, file(8)), look(0, missing())]));
    assert!(history([look(0, file(7)), look(1, file(7))]));
    assert!(!history([look(0, missing()), look(1, file(8))]), "neither here nor there");
    assert!(!history([look(1, file(7)), look(0, file(7))]), "at both");
    assert!(!history([look(1, missing()), look(0, file(7))]), "the name was gone for a moment");
}

#[test]
fn of_a_call_without_an_answer_the_inode_is_known_when_it_is_seen() {
    let lost = (create(0, 1), None);
    let look = |answer: Answer| (lookup(0), Some(answer));
    assert!(is_good(&[lost.clone(), look(file(7)), look(file(7))]));
    assert!(is_good(&[lost.clone(), look(Err(FsCode::NotFound)), look(file(7))]));
    assert!(!is_good(&[lost.clone(), look(file(7)), look(file(8))]), "two of them");
    assert!(!is_good(&[lost, (create(1, 2), Some(file(7))), look(file(7))]), "that one was made by another");
}

/// The answer of a tree that serves one client alone.
fn answer(state: &mut State, op: &Op) -> Answer {
    let seen = match state.apply(op) {
        Err(Refusal::Code(code)) => return Err(code),
        Err(Refusal::Gone(_)) => return Err(FsCode::Stale),
        Ok(seen) => seen,
    };
    let number = |id: Id| match id {
        Id::Fid(fid) => fid,
        Id::MadeBy(serial) => fid(1000 + serial),
    };
    Ok(match seen {
        Seen::Done => Seen::Done,
        Seen::Target(target) => Seen::Target(target),
        Seen::Dir(id) => Seen::Dir(number(id)),
        Seen::Names(names) => Seen::Names(names.into_iter().map(|(label, id)| (label, number(id))).collect()),
        Seen::Inode(stat, found) => {
            *state = state.with_fid(stat.id, Id::Fid(number(stat.id)));
            Seen::Inode(Stat { id: number(stat.id), kind: stat.kind, mode: stat.mode, links: stat.links }, found)
        }
    })
}

/// What a client is about.
enum Doing {
    Nothing,
    Asked(Op, u64),
    Answered(Op, u64, Answer),
}

/// What some clients see of a tree that answers each at some moment between the beginning and the end of its call, and `loses`
/// the answers of some calls, or the questions; at the end one of them looks at everything.
fn simulated(rng: &mut StdRng, loses: bool, clients: usize, calls: u32) -> History {
    let (mut state, mut known, mut now, mut serial) = (State::new(TOP), Known::new(TOP), 0, 0);
    let mut doing: Vec<Doing> = (0..clients).map(|_| Doing::Nothing).collect();
    let mut history = History::new();
    while serial < calls || doing.iter().any(|d| !matches!(d, Doing::Nothing)) {
        let client = rng.random_range(0..clients);
        now += 10;
        doing[client] = match std::mem::replace(&mut doing[client], Doing::Nothing) {
            Doing::Nothing if serial < calls => {
                serial += 1;
                Doing::Asked(known.any_op(rng, serial, None), now)
            }
            Doing::Nothing => Doing::Nothing,
            Doing::Asked(op, began) => {
                let lost = if loses { rng.random_range(0..60) } else { 60 };
                let answer = if lost == 0 { Err(FsCode::TimedOut) } else { answer(&mut state, &op) };
                if lost <= 1 {
                    history.push(Call { client, op, answer: None, began });
                    Doing::Nothing
                } else {
                    Doing::Answered(op, began, answer)
                }
            }
            Doing::Answered(op, began, answer) => {
                known.learn(&answer);
                history.push(Call { client, op, answer: Some((answer, now)), began });
                Doing::Nothing
            }
        };
    }
    for dir in known.dirs() {
        now += 10;
        let op = Op::List { dir };
        let answer = answer(&mut state, &op);
        history.push(Call { client: 0, op, answer: Some((answer, now + 1)), began: now });
    }
    history
}

#[test]
fn what_a_tree_of_names_did_is_linearizable() {
    let mut rng = seeded("simulated histories");
    for _ in 0..60 {
        let history = simulated(&mut rng, true, 8, 200);
        let verdict = verdict(&history);
        assert_eq!(verdict, Verdict::Linearizable, "{history:#?}");
    }
}

/// The FID that an operation made.
fn made(call: &Call<Op, Answer>) -> Option<Fid> {
    match (&call.op, &call.answer) {
        (Op::Create { .. } | Op::Mkdir { .. } | Op::Symlink { .. }, Some((Ok(Seen::Inode(stat, false)), _))) => {
            Some(stat.id)
        }
        _ => None,
    }
}

/// The names that a call listed.
fn listed(call: &Call<Op, Answer>) -> Option<(Fid, &BTreeMap<Label, Fid>)> {
    match (&call.op, &call.answer) {
        (Op::List { dir }, Some((Ok(Seen::Names(names)), _))) => Some((*dir, names)),
        _ => None,
    }
}

#[test]
fn a_name_that_is_lost_at_the_end_is_noticed() {
    let mut rng = seeded("lost names");
    for _ in 0..40 {
        let mut history = simulated(&mut rng, false, 4, 80);
        let full = |call: &Call<Op, Answer>| listed(call).is_some_and(|(_, names)| !names.is_empty());
        let Some(last) = history.iter().rposition(full) else { continue };
        let (dir, mut names) = listed(&history[last]).map(|(dir, names)| (dir, names.clone())).expect("as found");
        names.pop_first();
        let end = history.last().map_or(0, |call| call.began) + 10;
        // Only the last look at a directory: what comes after another may be a removal.
        if history[last + 1..].iter().all(|call| listed(call).is_some()) {
            let answer = Some((Ok(Seen::Names(names)), end + 1));
            history.push(Call { client: 1, op: Op::List { dir }, answer, began: end });
            assert_broken("a lost name", &history);
        }
    }
}

#[test]
fn what_is_seen_and_was_not_made_or_not_yet_is_noticed() {
    let mut rng = seeded("inodes from nowhere");
    let mut noticed = 0;
    for _ in 0..40 {
        let good = simulated(&mut rng, false, 4, 80);
        for (i, maker) in good.iter().enumerate() {
            let Some(made) = made(maker).filter(|_| maker.began > 2) else { continue };
            let sees = |call: &Call<Op, Answer>| {
                let Some((Ok(Seen::Inode(stat, _)), _)) = &call.answer else { return false };
                matches!(call.op, Op::Lookup { .. }) && stat.id == made
            };
            let Some(seen) = good.iter().position(sees) else { continue };
            let mut bad = good.clone();
            bad[seen].began = maker.began - 2;
            bad[seen].answer.as_mut().expect("it sees").1 = maker.began - 1;
            assert_broken("a look into the future", &bad);
            let mut bad = good.clone();
            bad.remove(i);
            assert_broken("an inode from nowhere", &bad);
            noticed += 1;
        }
    }
    assert!(noticed > 0, "nothing was ever looked at");
}

#[test]
fn a_name_that_goes_twice_is_noticed() {
    let mut rng = seeded("names that go twice");
    for _ in 0..40 {
        let mut history = simulated(&mut rng, false, 4, 80);
        let end = history.last().map_or(0, |call| call.began) + 10;
        let (dir, names) = history.iter().rev().find_map(listed).expect("it ends with looks at everything");
        let at = (dir, (0..=Label::MAX).find(|label| !names.contains_key(label)).expect("few are taken"));
        let answer = Some((Ok(Seen::Done), end + 1));
        history.push(Call { client: 1, op: Op::Unlink { at }, answer, began: end });
        assert_broken("a name that goes twice", &history);
    }
}
