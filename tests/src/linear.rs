//! Whether a history of calls by many clients is linearizable: whether each call could have happened at one moment between
//! its beginning and its end, so that all of them together are what one client alone could have seen. Pure.
//!
//! The search is that of Wing and Gong with Lowe's memory of what was tried: in which order calls happened does not matter,
//! only which have and what state they have left. A call without an answer may have happened at any time after it began, or
//! never. Histories of things that have nothing to do with each other are checked one by one: all are linearizable together
//! if and only if each is (Herlihy and Wing's locality).

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

/// What one client alone would see.
pub trait Spec {
    /// All there is to know before the next call.
    type State: Clone + Hash + Debug;
    /// What is asked for.
    type Op: Debug;
    /// What is answered.
    type Answer: Debug;

    /// The state after a call with this answer, if this is what can be answered; without an answer, the state after it has had
    /// its effect, if it can have one.
    fn step(&self, state: &Self::State, op: &Self::Op, answer: Option<&Self::Answer>) -> Option<Self::State>;
}

/// One call, as its client saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call<O, A> {
    /// Who made it.
    pub client: usize,
    /// What was asked for.
    pub op: O,
    /// What was answered, and when. `None`: nobody knows whether it happened, or will happen.
    pub answer: Option<(A, u64)>,
    /// When it began.
    pub began: u64,
}

impl<O, A> Call<O, A> {
    /// When it had happened at the latest.
    fn ended(&self) -> u64 {
        self.answer.as_ref().map_or(u64::MAX, |(_, at)| *at)
    }
}

/// The moments of a history: each is later than all that were told before, on whatever thread.
#[derive(Debug, Default)]
pub struct Clock(AtomicU64);

impl Clock {
    /// Now.
    pub fn now(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// An order was found.
    Linearizable,
    /// There is none; where the longest attempt came to its end.
    Broken(String),
    /// There may be one: so many ways were tried that the rest was given up.
    Undecided,
}

/// Ways that are tried: some seconds and some 100 MB. Good histories of hundreds of calls take a few thousand.
const WAYS_MAX: usize = 2_000_000;
/// Calls that are shown of a broken history, before the place where it breaks.
const SHOWN: usize = 25;

/// Looks for an order of `calls` that begins with `start`.
pub fn check<S: Spec>(spec: &S, start: S::State, calls: &[Call<S::Op, S::Answer>]) -> Verdict {
    let mut order: Vec<&Call<S::Op, S::Answer>> = calls.iter().collect();
    order.sort_by_key(|call| call.began);
    if order.iter().all(|call| call.answer.is_none()) {
        return Verdict::Linearizable;
    }
    Search { spec, calls: order, tried: HashSet::new(), longest: None }.run(start)
}

/// As many bits as there are calls: those that have happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Happened(Vec<u64>);

impl Happened {
    fn has(&self, call: usize) -> bool {
        self.0[call / 64] & (1 << (call % 64)) != 0
    }

    fn with(&self, call: usize) -> Happened {
        let mut more = self.clone();
        more.0[call / 64] |= 1 << (call % 64);
        more
    }
}

struct Search<'a, S: Spec> {
    spec: &'a S,
    /// In the order in which they began.
    calls: Vec<&'a Call<S::Op, S::Answer>>,
    /// Which had happened, and the state then: as 128 bits of hash. (Two that have the same by chance would hide an order, not
    /// find one.)
    tried: HashSet<u128>,
    /// Calls of the attempt that came furthest, and the story of its end.
    longest: Option<(usize, String)>,
}

/// A place on the way: which call led there, what has happened, and what to try next.
struct Step<St> {
    call: Option<usize>,
    happened: Happened,
    state: St,
    next: std::vec::IntoIter<usize>,
}

impl<S: Spec> Search<'_, S> {
    fn run(mut self, start: S::State) -> Verdict {
        let happened = Happened(vec![0; self.calls.len().div_ceil(64)]);
        let next = self.candidates(&happened).into_iter();
        let mut way = vec![Step { call: None, happened, state: start, next }];
        self.remember(&way);
        while let Some(step) = way.last_mut() {
            let Some(call) = step.next.next() else {
                way.pop();
                continue;
            };
            let answer = self.calls[call].answer.as_ref().map(|(answer, _)| answer);
            let Some(state) = self.spec.step(&step.state, &self.calls[call].op, answer) else { continue };
            let happened = step.happened.with(call);
            if !self.tried.insert(fingerprint(&(&happened, &state))) {
                continue;
            }
            if self.tried.len() > WAYS_MAX {
                return Verdict::Undecided;
            }
            let candidates = self.candidates(&happened);
            if candidates.iter().all(|call| self.calls[*call].answer.is_none()) {
                return Verdict::Linearizable;
            }
            way.push(Step { call: Some(call), happened, state, next: candidates.into_iter() });
            self.remember(&way);
        }
        Verdict::Broken(self.longest.map(|(_, story)| story).unwrap_or_default())
    }

    /// Calls that can be next: those that began before any other has ended. Those with an answer first, the earliest end first:
    /// most histories are found in order at once.
    fn candidates(&self, happened: &Happened) -> Vec<usize> {
        let mut first_end = u64::MAX;
        let mut found = Vec::new();
        let all_before = happened.0.iter().take_while(|word| **word == u64::MAX).count() * 64;
        for (i, call) in self.calls.iter().enumerate().skip(all_before) {
            if call.began > first_end {
                break;
            }
            if !happened.has(i) {
                first_end = first_end.min(call.ended());
                found.push(i);
            }
        }
        found.retain(|i| self.calls[*i].began < first_end);
        found.sort_by_key(|i| self.calls[*i].ended());
        found
    }

    /// Remembers how far the longest attempt came, and why no further.
    fn remember(&mut self, way: &[Step<S::State>]) {
        let Some(last) = way.last() else { return };
        if self.longest.as_ref().is_some_and(|(most, _)| way.len() <= *most) {
            return;
        }
        let mut story = format!("of {} calls, nothing fits after these {}:\n", self.calls.len(), way.len() - 1);
        if way.len() - 1 > SHOWN {
            story.push_str("  ...\n");
        }
        let shown = way[way.len().saturating_sub(SHOWN)..].iter().filter_map(|step| step.call);
        shown.for_each(|call| story.push_str(&format!("  {}\n", self.tell(call))));
        story.push_str("none of these can be next:\n");
        last.next.as_slice().iter().for_each(|call| story.push_str(&format!("  {}\n", self.tell(*call))));
        story.push_str(&format!("in the state\n  {:?}", last.state));
        self.longest = Some((way.len(), story));
    }

    fn tell(&self, call: usize) -> String {
        let Call { client, op, answer, began } = self.calls[call];
        match answer {
            Some((answer, ended)) => format!("{began}-{ended} client {client}: {op:?} -> {answer:?}"),
            None => format!("{began}- client {client}: {op:?} without an answer"),
        }
    }
}

fn fingerprint(value: &impl Hash) -> u128 {
    let half = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        value.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
}

#[cfg(test)]
mod tests;
