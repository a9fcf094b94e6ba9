//! Keys that are to be looked at, each once, and who waits for the answer. Pure: times are inputs.
//!
//! However often a key is told of while it waits, it is looked at once. A key that is told of while it is being looked at waits
//! again: what was seen may be of before.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Most keys of a link that wait at a time: whoever tells of more waits. With keys of 1024 bytes 20 MiB.
pub const PENDING_MAX: usize = 16_384;
/// First pause before a key is looked at again that was busy: most exports end within it.
const AGAIN_PAUSE_FIRST: Duration = Duration::from_millis(250);
/// Longest such pause.
const AGAIN_PAUSE_MAX: Duration = Duration::from_secs(10);
/// How often a key is looked at for one event: for more than a minute. What is busy for longer is left to the next comparison,
/// or to the sender of the event, who hears that it was not answered.
pub const LOOKS_MAX: u32 = 12;

/// Somebody waits until some keys are answered. Clones are of the same wait; one that is dropped unanswered answers nothing.
#[derive(Clone, Debug)]
pub struct Ticket(Arc<Wait>);

#[derive(Debug)]
struct Wait {
    left: AtomicUsize,
    /// Not satisfied with a key that is busy.
    patient: bool,
    told: parking_lot::Mutex<Option<oneshot::Sender<()>>>,
}

impl Ticket {
    /// For `keys` keys, at least one; the receiver hears when all are answered, or gets an error when they will not be.
    pub fn new(keys: usize) -> (Ticket, oneshot::Receiver<()>) {
        Ticket::made(keys, true)
    }

    /// The same, but a key that the MDS was told of counts as answered even if it is busy: for those who hold up what
    /// comes behind it while they wait.
    pub fn impatient(keys: usize) -> (Ticket, oneshot::Receiver<()>) {
        Ticket::made(keys, false)
    }

    fn made(keys: usize, patient: bool) -> (Ticket, oneshot::Receiver<()>) {
        let (told, hears) = oneshot::channel();
        let wait = Wait { left: AtomicUsize::new(keys), patient, told: parking_lot::Mutex::new(Some(told)) };
        (Ticket(Arc::new(wait)), hears)
    }

    /// One of the keys is answered.
    fn answered(self) {
        if self.0.left.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(told) = self.0.told.lock().take()
        {
            // Whoever went away does not want to know.
            let _ = told.send(());
        }
    }
}

/// A key that was taken to be looked at.
#[derive(Debug)]
pub struct Taken {
    /// Within the prefix of the link.
    pub key: Vec<u8>,
    since: Instant,
    looks: u32,
    tickets: Vec<Ticket>,
}

impl Taken {
    /// The MDS has answered it.
    pub fn answered(self) {
        self.tickets.into_iter().for_each(Ticket::answered);
    }

    /// The MDS has heard of it, and is busy with it.
    pub fn told(&mut self) {
        let (patient, others) = std::mem::take(&mut self.tickets).into_iter().partition(|ticket| ticket.0.patient);
        self.tickets = patient;
        let others: Vec<Ticket> = others;
        others.into_iter().for_each(Ticket::answered);
    }
}

#[derive(Debug)]
struct Waiting {
    place: (Instant, u64),
    /// When it was first told of.
    since: Instant,
    looks: u32,
    tickets: Vec<Ticket>,
}

/// The keys of one link that wait.
#[derive(Debug, Default)]
pub struct Pending {
    keys: HashMap<Vec<u8>, Waiting>,
    /// By the time from which each may be looked at, then in the order in which they came.
    order: BTreeMap<(Instant, u64), Vec<u8>>,
    next: u64,
}

impl Pending {
    /// Keys that wait.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// `key` is to be looked at at once.
    pub fn add(&mut self, key: Vec<u8>, ticket: Option<Ticket>, now: Instant) {
        self.insert(key, (now, now), 0, ticket.into_iter().collect());
    }

    /// `taken` was busy: it is looked at again after a pause. Given back if that was often enough.
    pub fn again(&mut self, taken: Taken, now: Instant) -> Option<Taken> {
        let looks = taken.looks + 1;
        if looks >= LOOKS_MAX {
            return Some(taken);
        }
        let pause = AGAIN_PAUSE_FIRST.saturating_mul(1 << (looks - 1).min(16)).min(AGAIN_PAUSE_MAX);
        self.insert(taken.key, (now + pause, taken.since), looks, taken.tickets);
        None
    }

    /// When the oldest key was first told of. Looks at every key.
    pub fn oldest(&self) -> Option<Instant> {
        self.keys.values().map(|waiting| waiting.since).min()
    }

    /// From when on there is something to take.
    pub fn due(&self) -> Option<Instant> {
        self.order.first_key_value().map(|((at, _), _)| *at)
    }

    /// At most `max` keys that may be looked at `now`, those first that wait longest.
    pub fn take(&mut self, max: usize, now: Instant) -> Vec<Taken> {
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(first) = self.order.first_entry()
            && first.key().0 <= now
        {
            let key = first.remove();
            if let Some(Waiting { since, looks, tickets, .. }) = self.keys.remove(&key) {
                taken.push(Taken { key, since, looks, tickets });
            }
        }
        taken
    }

    /// One that waits already keeps the earlier time and the fewer looks.
    fn insert(&mut self, key: Vec<u8>, (at, since): (Instant, Instant), looks: u32, tickets: Vec<Ticket>) {
        let mut waiting = Waiting { place: (at, self.next), since, looks, tickets };
        self.next += 1;
        if let Some(before) = self.keys.remove(&key) {
            self.order.remove(&before.place);
            waiting.place = before.place.min(waiting.place);
            waiting.since = before.since.min(since);
            waiting.looks = before.looks.min(looks);
            waiting.tickets.extend(before.tickets);
        }
        self.order.insert(waiting.place, key.clone());
        self.keys.insert(key, waiting);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(taken: &[Taken]) -> Vec<&str> {
        taken.iter().map(|t| std::str::from_utf8(&t.key).expect("text")).collect()
    }

    #[test]
    fn a_key_that_is_busy_is_as_old_as_it_was() {
        let first = Instant::now();
        let later = first + Duration::from_secs(5);
        let mut pending = Pending::default();
        assert_eq!(pending.oldest(), None);
        pending.add(b"a".to_vec(), None, first);
        pending.add(b"b".to_vec(), None, later);
        assert_eq!(pending.oldest(), Some(first));
        let taken = pending.take(1, later).pop().expect("the first");
        assert_eq!(pending.oldest(), Some(later));
        pending.add(b"a".to_vec(), None, later);
        assert!(pending.again(taken, later).is_none());
        assert_eq!(pending.oldest(), Some(first), "also when it is told of again");
    }

    #[test]
    fn a_key_that_is_told_of_often_is_looked_at_once_and_everybody_hears() {
        let now = Instant::now();
        let mut pending = Pending::default();
        let (first, mut first_hears) = Ticket::new(2);
        let (second, mut second_hears) = Ticket::new(1);
        pending.add(b"a".to_vec(), Some(first.clone()), now);
        pending.add(b"b".to_vec(), Some(first), now);
        pending.add(b"a".to_vec(), Some(second), now);
        pending.add(b"a".to_vec(), None, now);
        let mut taken = pending.take(10, now);
        assert_eq!((names(&taken), pending.len()), (vec!["a", "b"], 0));
        taken.remove(0).answered();
        assert!(second_hears.try_recv().is_ok());
        assert!(first_hears.try_recv().is_err(), "one key is missing");
        taken.remove(0).answered();
        assert!(first_hears.try_recv().is_ok());
    }

    #[test]
    fn a_busy_key_waits_longer_each_time_and_is_given_up_in_the_end() {
        let mut now = Instant::now();
        let start = now;
        let mut pending = Pending::default();
        let (ticket, mut hears) = Ticket::new(1);
        pending.add(b"a".to_vec(), Some(ticket), now);
        let mut looks = 0;
        loop {
            let mut taken = pending.take(10, now);
            assert_eq!(names(&taken), ["a"]);
            looks += 1;
            if let Some(given_up) = pending.again(taken.remove(0), now) {
                drop(given_up);
                break;
            }
            assert!(pending.take(10, now).is_empty(), "not before the pause has passed");
            now = pending.due().expect("it waits");
        }
        assert_eq!(looks, LOOKS_MAX);
        let minutes = now - start;
        assert!(minutes > Duration::from_secs(60) && minutes < Duration::from_secs(120), "{minutes:?}");
        assert_eq!(hears.try_recv(), Err(oneshot::error::TryRecvError::Closed), "not answered");
    }

    #[test]
    fn who_cannot_wait_hears_when_a_key_was_told_and_the_others_when_it_is_done() {
        let now = Instant::now();
        let mut pending = Pending::default();
        let ((patient, mut waits), (impatient, mut hears)) = (Ticket::new(1), Ticket::impatient(1));
        pending.add(b"a".to_vec(), Some(patient), now);
        pending.add(b"a".to_vec(), Some(impatient), now);
        let mut taken = pending.take(1, now).remove(0);
        taken.told();
        assert!(hears.try_recv().is_ok());
        assert_eq!(waits.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        assert!(pending.again(taken, now).is_none());
        pending.take(1, now + AGAIN_PAUSE_FIRST).remove(0).answered();
        assert!(waits.try_recv().is_ok());
    }

    #[test]
    fn news_of_a_key_that_pauses_is_looked_at_at_once() {
        let now = Instant::now();
        let mut pending = Pending::default();
        pending.add(b"a".to_vec(), None, now);
        let taken = pending.take(1, now).remove(0);
        pending.add(b"a".to_vec(), None, now);
        assert!(pending.again(taken, now).is_none());
        assert_eq!(names(&pending.take(10, now)), ["a"], "told of again while it was looked at");
        assert!(pending.is_empty());
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_is_there_twice(steps in proptest::collection::vec((0u8..4, 0u8..6), 0..200)) {
            let mut now = Instant::now();
            let (mut pending, mut under_look, mut told) = (Pending::default(), Vec::new(), std::collections::BTreeSet::new());
            for (what, key) in steps {
                match what {
                    0 => {
                        pending.add(vec![key], None, now);
                        told.insert(vec![key]);
                    }
                    1 => under_look.extend(pending.take(usize::from(key), now)),
                    2 => {
                        if let Some(taken) = under_look.pop() {
                            pending.again(taken, now);
                        }
                    }
                    _ => now += Duration::from_millis(100 * u64::from(key)),
                }
                prop_assert_eq!(pending.keys.len(), pending.order.len());
                prop_assert!(pending.order.iter().all(|(place, key)| pending.keys[key].place == *place));
            }
            while let Some(due) = pending.due() {
                under_look.extend(pending.take(100, due));
            }
            let seen: std::collections::BTreeSet<_> = under_look.into_iter().map(|t| t.key).collect();
            prop_assert!(seen.is_subset(&told));
        }
    }
}
