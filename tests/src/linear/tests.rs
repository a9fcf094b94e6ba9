//! The checker: good histories pass, bad ones do not, and on small ones it says what trying every order says.

use rand::Rng;

use super::*;
use crate::register::{Op, Register};
use crate::rng::seeded;

fn write(client: usize, value: u64, began: u64, ended: u64) -> Call<Op, u64> {
    Call { client, op: Op::Write(value), answer: Some((value, ended)), began }
}

fn read(client: usize, value: u64, began: u64, ended: u64) -> Call<Op, u64> {
    Call { client, op: Op::Read, answer: Some((value, ended)), began }
}

fn unanswered(client: usize, value: u64, began: u64) -> Call<Op, u64> {
    Call { client, op: Op::Write(value), answer: None, began }
}

fn is_good(calls: &[Call<Op, u64>]) -> bool {
    match check(&Register, 0, calls) {
        Verdict::Linearizable => true,
        Verdict::Broken(_) => false,
        Verdict::Undecided => panic!("a small history is decided"),
    }
}

#[test]
fn calls_one_after_the_other_see_each_other() {
    assert!(is_good(&[]));
    assert!(is_good(&[write(0, 1, 0, 1), read(1, 1, 2, 3)]));
    assert!(!is_good(&[write(0, 1, 0, 1), read(1, 0, 2, 3)]), "a stale read");
    assert!(!is_good(&[read(1, 1, 0, 1), write(0, 1, 2, 3)]), "a read from the future");
}

#[test]
fn calls_at_the_same_time_happen_in_either_order_but_for_everybody_in_the_same() {
    let (one, two) = (write(0, 1, 0, 10), write(1, 2, 0, 10));
    for last in [1, 2] {
        assert!(is_good(&[one.clone(), two.clone(), read(2, last, 11, 12)]));
    }
    assert!(is_good(&[one.clone(), two.clone(), read(2, 1, 1, 2), read(3, 2, 3, 4)]));
    assert!(!is_good(&[one, two, read(2, 1, 1, 2), read(3, 2, 3, 4), read(2, 1, 5, 6)]), "there and back again");
}

#[test]
fn a_call_without_an_answer_happens_later_or_never_and_once() {
    let lost = unanswered(0, 1, 0);
    assert!(is_good(std::slice::from_ref(&lost)));
    assert!(is_good(&[lost.clone(), read(1, 0, 1, 2)]));
    assert!(is_good(&[lost.clone(), read(1, 0, 1, 2), read(1, 1, 3, 4)]));
    assert!(!is_good(&[lost.clone(), read(1, 1, 1, 2), read(1, 0, 3, 4)]), "it happened and then it had not");
    let between = write(1, 2, 3, 4);
    assert!(!is_good(&[lost, read(1, 1, 1, 2), between, read(1, 2, 5, 6), read(1, 1, 7, 8)]), "it happened twice");
    assert!(!is_good(&[read(1, 1, 0, 1), unanswered(0, 1, 2)]), "before it began");
}

/// Whether some order of all calls with answers and some without fits: by trying all.
fn is_good_by_force(state: u64, left: &[Call<Op, u64>]) -> bool {
    if left.iter().all(|call| call.answer.is_none()) {
        return true;
    }
    let first_end = left.iter().map(Call::ended).min().unwrap_or(u64::MAX);
    (0..left.len()).filter(|i| left[*i].began < first_end).any(|i| {
        let call = &left[i];
        let answer = call.answer.as_ref().map(|(answer, _)| answer);
        let mut rest = left.to_vec();
        rest.remove(i);
        Register.step(&state, &call.op, answer).is_some_and(|state| is_good_by_force(state, &rest))
    })
}

#[test]
fn on_small_histories_it_says_what_trying_every_order_says() {
    let mut rng = seeded("small histories");
    let mut good = 0;
    const ROUNDS: usize = 3000;
    for _ in 0..ROUNDS {
        let mut moments: Vec<u64> = (0..14).collect();
        let mut moment = || moments.remove(rng.random_range(0..moments.len()));
        let mut spans: Vec<(u64, u64)> = (0..7).map(|_| (moment(), moment())).collect();
        spans.iter_mut().for_each(|(began, ended)| {
            if began > ended {
                std::mem::swap(began, ended);
            }
        });
        let calls: Vec<Call<Op, u64>> = (0..rng.random_range(1..=7))
            .map(|i| {
                let ((began, ended), value) = (spans[i], rng.random_range(0..3));
                match rng.random_range(0..8) {
                    0 => unanswered(i, value, began),
                    1..4 => write(i, value, began, ended),
                    _ => read(i, value, began, ended),
                }
            })
            .collect();
        assert_eq!(is_good(&calls), is_good_by_force(0, &calls), "{calls:#?}");
        good += usize::from(is_good(&calls));
    }
    assert!((ROUNDS / 10..ROUNDS * 9 / 10).contains(&good), "{good} of {ROUNDS} are good: too much alike");
}
