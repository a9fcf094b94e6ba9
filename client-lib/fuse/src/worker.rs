//! Where the work of a request runs: its first step on the thread that read the request, the rest on the runtime.
//!
//! Most requests for data are answered from memory: they are over after the first step, without waking another thread.
//! Nothing here may block: a step ends where its future first waits.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use tokio::runtime::Handle;

/// Runs the work of requests.
#[derive(Clone, Debug)]
pub struct Worker {
    runtime: Handle,
}

/// How a first step ended.
enum Step<T> {
    Done(T),
    Waits,
    /// A mistake of ours. The reply was dropped with the work, so the program gets EIO.
    Panicked,
}

impl Worker {
    /// What has to wait goes on in tasks of `runtime`.
    pub fn new(runtime: Handle) -> Worker {
        Worker { runtime }
    }

    /// Runs `work` to its end: here as long as it does not wait.
    pub fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut work = Box::pin(work);
        if let Step::Waits = self.first_step(work.as_mut()) {
            self.runtime.spawn(work);
        }
    }

    /// The outcome of `work` if it need not wait; otherwise it goes on, and `later` gets its outcome.
    pub fn begin<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
        later: impl FnOnce(T) + Send + 'static,
    ) -> Option<T> {
        let mut work = Box::pin(work);
        match self.first_step(work.as_mut()) {
            Step::Done(outcome) => Some(outcome),
            Step::Waits => {
                self.runtime.spawn(async move { later(work.await) });
                None
            }
            Step::Panicked => None,
        }
    }

    /// The outcome of `work` if it need not wait at all. Otherwise it is dropped, and may have begun.
    pub fn at_once<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        match self.first_step(pin!(work)) {
            Step::Done(outcome) => Some(outcome),
            Step::Waits | Step::Panicked => None,
        }
    }

    /// The waker does nothing: whoever goes on with the work looks at once whether it can.
    fn first_step<W: Future>(&self, work: Pin<&mut W>) -> Step<W::Output> {
        let _timers_and_tasks = self.runtime.enter();
        match catch_unwind(AssertUnwindSafe(|| work.poll(&mut Context::from_waker(Waker::noop())))) {
            Ok(Poll::Ready(outcome)) => Step::Done(outcome),
            Ok(Poll::Pending) => Step::Waits,
            // As in a task: the panic hook has told of it, and the mount goes on.
            Err(_) => Step::Panicked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::thread;
    use tokio::sync::Semaphore;

    fn with_runtime(test: impl FnOnce(Worker)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        test(Worker::new(runtime.handle().clone()));
    }

    #[test]
    fn what_need_not_wait_ends_on_the_calling_thread_and_the_rest_elsewhere() {
        with_runtime(|worker| {
            let (tell, told) = channel();
            let tell_more = tell.clone();
            worker.run(async move { tell.send(thread::current().id()).expect("listened to") });
            assert_eq!(told.try_recv(), Ok(thread::current().id()));

            let gate = Arc::new(Semaphore::new(0));
            let behind = Arc::clone(&gate);
            worker.run(async move {
                let _passed = behind.acquire().await;
                tell_more.send(thread::current().id()).expect("listened to");
            });
            assert!(told.try_recv().is_err(), "it waits");
            gate.add_permits(1);
            assert_ne!(told.recv().expect("it goes on"), thread::current().id());
        });
    }

    #[test]
    fn what_would_wait_gives_nothing_at_once() {
        with_runtime(|worker| {
            let gate = Semaphore::new(1);
            let pass = || async { gate.acquire().await.is_ok() };
            assert_eq!(worker.at_once(pass()), Some(true));
            gate.try_acquire().expect("free").forget();
            assert_eq!(worker.at_once(pass()), None);
        });
    }

    #[test]
    fn a_panic_ends_the_request_and_not_the_thread() {
        with_runtime(|worker| {
            let (tell, told) = channel::<()>();
            worker.run(async move {
                let _reply = tell;
                panic!("for this test");
            });
            assert!(told.recv().is_err(), "what it held is dropped");
            assert_eq!(worker.at_once(async { 1 }), Some(1));
        });
    }
}
