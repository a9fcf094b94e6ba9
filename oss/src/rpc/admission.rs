//! How many requests are worked on at once. Taken before a body is received: bounds the memory of messages, however many
//! connections there are.
//!
//! `Fence` has places of its own: ordinary requests may all wait for a disk that does not answer, and the MDS must be heard
//! all the same.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Request;
use tokio::sync::Semaphore;
use tonic::server::NamedService;
use tower::Service;
use tower::limit::ConcurrencyLimit;

/// Calls of Fence at once.
const FENCES_MAX: usize = 64;
const FENCE_PATH: &str = "/sateen.oss.v1.ObjectStore/Fence";

/// A service within these bounds.
#[derive(Clone, Debug)]
pub struct Admission<S> {
    ordinary: ConcurrencyLimit<S>,
    fences: ConcurrencyLimit<S>,
}

impl<S: Clone> Admission<S> {
    /// Lets at most `requests` through at a time, and calls of `Fence` beside them.
    pub fn new(inner: S, requests: usize) -> Admission<S> {
        let limited = |most| ConcurrencyLimit::with_semaphore(inner.clone(), Arc::new(Semaphore::new(most)));
        Admission { ordinary: limited(requests), fences: limited(FENCES_MAX) }
    }
}

impl<S: NamedService> NamedService for Admission<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<B>> for Admission<S>
where
    S: Service<Request<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Which place it needs is known with the request.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut place = if request.uri().path() == FENCE_PATH { self.fences.clone() } else { self.ordinary.clone() };
        Box::pin(async move {
            poll_fn(|cx| Service::<Request<B>>::poll_ready(&mut place, cx)).await?;
            place.call(request).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers nothing but Fence.
    #[derive(Clone)]
    struct Stuck;

    impl Service<Request<()>> for Stuck {
        type Response = ();
        type Error = Infallible;
        type Future = Pin<Box<dyn Future<Output = Result<(), Infallible>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<()>) -> Self::Future {
            match request.uri().path() {
                FENCE_PATH => Box::pin(async { Ok(()) }),
                "/one" => Box::pin(async { Ok(()) }),
                _ => Box::pin(std::future::pending()),
            }
        }
    }

    fn request(path: &str) -> Request<()> {
        Request::builder().uri(path).body(()).expect("a request")
    }

    #[tokio::test]
    async fn fence_is_heard_while_all_places_are_taken_and_nothing_else_is() {
        let mut admission = Admission::new(Stuck, 2);
        admission.call(request("/one")).await.expect("there is room");
        let mut stuck = [admission.call(request("/stuck")), admission.call(request("/stuck"))];
        for call in &mut stuck {
            assert!(futures::poll!(call).is_pending());
        }
        let mut waits = admission.call(request("/one"));
        assert!(futures::poll!(&mut waits).is_pending());
        admission.call(request(FENCE_PATH)).await.expect("heard");
        drop(stuck);
        waits.await.expect("there is room again");
    }
}
