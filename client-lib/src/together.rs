//! Small requests to one server travel together.
//!
//! Most of what a small request costs is its call. While a few calls are under way, requests that come meanwhile wait, and
//! the next call takes all of them: a lone request waits for nobody, and many share calls in the measure in which there are
//! many. Each has an answer of its own; whether it is made again is its caller's business.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// How many requests share how many calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Calls under way for which nothing waits.
    pub calls_free: usize,
    /// Requests that may wait for each call that is under way beyond these.
    pub waiting_per_call: usize,
    /// Requests of one call.
    pub requests_max: usize,
    /// Their bytes together, unless a single one has more.
    pub bytes_max: usize,
}

/// Requests that wait for a call to one server. As many may wait as there are callers.
#[derive(Debug)]
pub(crate) struct Together<Q, A> {
    bounds: Bounds,
    state: Mutex<State<Q, A>>,
}

#[derive(Debug)]
struct State<Q, A> {
    waiting: VecDeque<One<Q, A>>,
    /// Calls under way.
    calls: usize,
}

#[derive(Debug)]
struct One<Q, A> {
    request: Q,
    bytes: usize,
    answer: oneshot::Sender<A>,
}

impl<Q: Send + 'static, A: Send + 'static> Together<Q, A> {
    /// Nothing waits.
    pub fn new(bounds: Bounds) -> Together<Q, A> {
        Together { bounds, state: Mutex::new(State { waiting: VecDeque::new(), calls: 0 }) }
    }

    /// The answer to one request of so many bytes, by whatever call it fits; `None` if that brought none, or if `runtime`, on
    /// which calls are made, has ended. `call` makes one, and gives an answer for each request, in their order.
    pub async fn ask<F, Fut>(
        self: &Arc<Self>,
        (request, bytes): (Q, usize),
        runtime: &Handle,
        call: impl FnOnce() -> F,
    ) -> Option<A>
    where
        F: Fn(Vec<Q>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<A>> + Send,
    {
        let (sender, answer) = oneshot::channel();
        if self.add(One { request, bytes, answer: sender }) {
            let (calling, call) = (Calling { together: Arc::clone(self), ended: false }, call());
            runtime.spawn(async move { calling.run(call).await });
        }
        answer.await.ok()
    }

    /// Queues a request; `true` if another call is to be made for it.
    fn add(&self, one: One<Q, A>) -> bool {
        let mut state = self.state.lock();
        state.waiting.push_back(one);
        let another = state.calls < self.bounds.calls_free.max(state.waiting.len() / self.bounds.waiting_per_call);
        state.calls += usize::from(another);
        another
    }

    /// What the next call takes: as much as fits, in order. With `None` the call gives its place back.
    fn take(&self) -> Option<(Vec<Q>, Vec<oneshot::Sender<A>>)> {
        let mut state = self.state.lock();
        let mut room = self.bounds.bytes_max;
        let (mut requests, mut senders) = (Vec::new(), Vec::new());
        while requests.len() < self.bounds.requests_max
            && let Some(one) = state.waiting.pop_front_if(|one| one.bytes <= room || requests.is_empty())
        {
            if one.answer.is_closed() {
                // Its caller waits no longer.
                continue;
            }
            room = room.saturating_sub(one.bytes);
            requests.push(one.request);
            senders.push(one.answer);
        }
        if requests.is_empty() {
            // Under the same lock: who asks from now on makes a call of its own.
            state.calls -= 1;
            return None;
        }
        Some((requests, senders))
    }
}

/// One of the calls that may be under way; gives its place back when dropped.
struct Calling<Q, A> {
    together: Arc<Together<Q, A>>,
    /// It has given its place back.
    ended: bool,
}

impl<Q: Send + 'static, A: Send + 'static> Calling<Q, A> {
    async fn run<F, Fut>(mut self, call: F)
    where
        F: Fn(Vec<Q>) -> Fut,
        Fut: Future<Output = Vec<A>>,
    {
        loop {
            // Those who are about to ask do so first.
            tokio::task::yield_now().await;
            let Some((requests, senders)) = self.together.take() else {
                self.ended = true;
                return;
            };
            let answers = call(requests).await;
            // A caller that is gone needs no answer; one without answer hears of that.
            senders.into_iter().zip(answers).for_each(|(sender, answer)| drop(sender.send(answer)));
        }
    }
}

impl<Q, A> Drop for Calling<Q, A> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut state = self.together.state.lock();
        state.calls -= 1;
        if state.calls == 0 {
            // The runtime has ended: their callers must not wait for a call that nobody makes.
            state.waiting.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { calls_free: 2, waiting_per_call: 8, requests_max: 64, bytes_max: 512 };

    type Answers = Vec<oneshot::Receiver<usize>>;

    fn add(together: &Together<usize, usize>, bytes: usize, answers: &mut Answers) -> bool {
        let (sender, answer) = oneshot::channel();
        answers.push(answer);
        together.add(One { request: bytes, bytes, answer: sender })
    }

    #[test]
    fn few_callers_wait_for_nobody_and_many_share_calls() {
        let together = Together::new(BOUNDS);
        let mut answers = Answers::new();
        let calls: Vec<bool> = (0..32).map(|_| add(&together, 4, &mut answers)).collect();
        assert_eq!(calls.iter().filter(|c| **c).count(), 4, "{calls:?}");
        assert!(calls[0] && calls[1] && !calls[2]);
        let taken = |together: &Together<usize, usize>| together.take().map_or(0, |(requests, _)| requests.len());
        assert_eq!(taken(&together), 32);
        let mut add_many = |bytes| (0..100).filter(|_| add(&together, bytes, &mut answers)).count();
        add_many(32);
        assert_eq!(taken(&together), 512 / 32, "bytes");
        add_many(1);
        while !together.state.lock().waiting.is_empty() {
            assert!((1..=64).contains(&taken(&together)));
        }
        add(&together, 10_000, &mut answers);
        assert_eq!(taken(&together), 1, "one that is too large goes alone");
        answers.clear();
        add(&together, 1, &mut answers);
        answers.clear();
        assert_eq!(taken(&together), 0, "its caller waits no longer");
    }

    #[test]
    fn a_call_that_ends_has_given_its_place_back_before_anybody_asks_again() {
        let together = Together::new(BOUNDS);
        let mut answers = Answers::new();
        assert!(add(&together, 1, &mut answers) && add(&together, 1, &mut answers) && !add(&together, 1, &mut answers));
        assert!(together.take().is_some() && together.take().is_none() && together.take().is_none());
        assert!(add(&together, 1, &mut answers), "nobody else would make a call");
        assert_eq!(together.state.lock().calls, 1);
    }

    #[tokio::test]
    async fn each_caller_gets_its_own_answer_and_without_one_hears_of_that() {
        let together = Arc::new(Together::new(BOUNDS));
        let runtime = Handle::current();
        let ask = |request: usize| {
            // The last one of a call is forgotten.
            let call =
                || |requests: Vec<usize>| async move { requests[..requests.len() - 1].iter().map(|r| r * 2).collect() };
            together.ask((request, 1), &runtime, call)
        };
        let answers = futures::future::join_all((0..10).map(ask)).await;
        assert!(
            answers.iter().enumerate().all(|(i, answer)| answer.is_none_or(|answer| answer == i * 2)),
            "{answers:?}"
        );
        assert!(answers.contains(&None) && answers.iter().flatten().count() > 5, "{answers:?}");
        while together.state.lock().calls > 0 {
            tokio::task::yield_now().await;
        }
    }
}
