//! Replies on their way: what each takes of the memory for payloads stays counted until its last byte was handed to the
//! network, but no longer than [`SEND_MAX`]. A peer that stops reading loses its reply, not the server its memory.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Frame;
use parking_lot::Mutex;
use sateen_proto::bulk::Outgoing;
use sateen_proto::status::to_status;
use sateen_types::{FsCode, FsError};
use tonic::Status;

use super::Memory;

/// Longest that a peer may take to read one reply.
pub const SEND_MAX: Duration = Duration::from_secs(60);

/// All replies of a service that are not sent yet.
#[derive(Default)]
pub struct Replies {
    sending: Mutex<HashMap<u64, Sending>>,
    next: AtomicU64,
}

/// When a reply began, and what is left of it as long as somebody sends it.
type Sending = (Instant, Weak<Mutex<Content>>);

/// What is left of a reply; `None` once it was taken away.
type Content = Option<(Outgoing, Memory)>;

impl Replies {
    /// A body that sends `body` and holds `memory` meanwhile.
    pub fn send(self: &Arc<Replies>, body: Outgoing, memory: Memory) -> Reply {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let content = Arc::new(Mutex::new(Some((body, memory))));
        self.sending.lock().insert(id, (Instant::now(), Arc::downgrade(&content)));
        Reply { id, content, replies: self.clone() }
    }

    /// Drops what is left of replies that began before `limit`. Returns how many.
    pub fn give_up(&self, limit: Instant) -> usize {
        let late: Vec<_> = {
            let sending = self.sending.lock();
            sending.values().filter(|(began, _)| *began < limit).filter_map(|(_, content)| content.upgrade()).collect()
        };
        late.into_iter().filter(|content| content.lock().take().is_some()).count()
    }
}

/// One reply as an HTTP body.
pub struct Reply {
    id: u64,
    content: Arc<Mutex<Content>>,
    replies: Arc<Replies>,
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.replies.sending.lock().remove(&self.id);
    }
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut *self.content.lock() {
            Some((body, _)) => Pin::new(body).poll_frame(cx),
            None => {
                let why = format!("the reply was not read within {SEND_MAX:?}");
                Poll::Ready(Some(Err(to_status(FsError::new(FsCode::TimedOut, why)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.content.lock().as_ref().is_some_and(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.content.lock().as_ref().map_or_else(Default::default, |(body, _)| body.size_hint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Body as _;
    use sateen_proto::oss::ReadReply;
    use sateen_types::Payload;
    use tokio::sync::Semaphore;

    async fn next(reply: &mut Reply) -> Option<Result<Frame<Bytes>, Status>> {
        std::future::poll_fn(|cx| Pin::new(&mut *reply).poll_frame(cx)).await
    }

    #[tokio::test]
    async fn a_reply_that_nobody_reads_loses_its_memory_and_others_do_not() {
        let room = Arc::new(Semaphore::new(2));
        let memory = || Memory(Some(room.clone().try_acquire_owned().expect("free")));
        let replies = Arc::new(Replies::default());
        let body = || Outgoing::reply(&ReadReply::default(), Payload::from(Bytes::from(vec![1; 10_000])));
        let mut late = replies.send(body(), memory());
        assert!(next(&mut late).await.expect("a piece").is_ok());
        let limit = Instant::now();
        let mut early = replies.send(body(), memory());
        assert_eq!((room.available_permits(), replies.give_up(limit)), (0, 1));
        assert_eq!(room.available_permits(), 1, "the late one's");
        assert!(next(&mut late).await.expect("an end").is_err(), "not taken for a whole reply");
        while let Some(piece) = next(&mut early).await {
            piece.expect("whole");
        }
        drop((late, early));
        assert_eq!((room.available_permits(), replies.sending.lock().len()), (2, 0));
    }
}
