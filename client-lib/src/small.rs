//! Small reads of one OSS travel together.
//!
//! Most of what a small read costs is its call. While a few calls are under way, reads that come meanwhile wait, and the
//! next call takes all of them: a lone reader waits for nobody, and many readers share calls in the measure in which
//! there are many.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sateen_proto::bulk::{self, Lane};
use sateen_proto::oss::read_outcome::Outcome;
use sateen_proto::{oss, status};
use sateen_types::Payload;
use sateen_types::limits::{READ_MANY_BYTES_MAX, READ_MANY_MAX};
use tokio::sync::oneshot;
use tonic::Status;
use tonic::transport::Channel;

/// Reads of at most so many bytes share calls.
pub(crate) const SMALL_BYTES_MAX: u32 = 32 << 10;
/// Calls under way for which nothing waits.
const CALLS_FREE: usize = 2;
/// Reads that may wait for each call that is under way beyond these.
const WAITING_PER_CALL: usize = 8;

type Answer = Result<Lane<oss::ReadReply>, Status>;

/// Small reads that wait for a call to one OSS. As many may wait as there are readers.
#[derive(Debug, Default)]
pub(crate) struct SmallReads(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    reads: VecDeque<(oss::ReadRequest, oneshot::Sender<Answer>)>,
    /// Calls under way.
    calls: usize,
}

impl SmallReads {
    /// One read, in whatever call it fits. Calls are made through `channel` on `runtime` and wait for `timeout`.
    pub async fn read(
        self: &Arc<SmallReads>,
        request: oss::ReadRequest,
        channel: Channel,
        runtime: &tokio::runtime::Handle,
        timeout: Duration,
    ) -> Answer {
        let (sender, answer) = oneshot::channel();
        if self.add(request, sender) {
            let calling = Calling(Arc::clone(self));
            runtime.spawn(async move { calling.run(channel, timeout).await });
        }
        answer.await.unwrap_or_else(|_| Err(Status::unavailable("the client is going away")))
    }

    /// Queues a read; `true` if another call is to be made for it.
    fn add(&self, request: oss::ReadRequest, sender: oneshot::Sender<Answer>) -> bool {
        let mut waiting = self.0.lock();
        waiting.reads.push_back((request, sender));
        let another = waiting.calls < CALLS_FREE.max(waiting.reads.len() / WAITING_PER_CALL);
        waiting.calls += usize::from(another);
        another
    }

    /// What the next call takes: as much as fits, in order.
    fn take(&self) -> (Vec<oss::ReadRequest>, Vec<oneshot::Sender<Answer>>) {
        let mut waiting = self.0.lock();
        let mut room = READ_MANY_BYTES_MAX;
        let (mut reads, mut senders) = (Vec::new(), Vec::new());
        while reads.len() < READ_MANY_MAX
            && let Some((read, sender)) = waiting.reads.pop_front_if(|(read, _)| read.length as usize <= room)
        {
            if sender.is_closed() {
                // Its reader waits no longer.
                continue;
            }
            room -= read.length as usize;
            reads.push(read);
            senders.push(sender);
        }
        (reads, senders)
    }
}

/// One of the calls that may be under way; gives its place back when dropped.
struct Calling(Arc<SmallReads>);

impl Calling {
    async fn run(self, mut channel: Channel, timeout: Duration) {
        loop {
            let (reads, senders) = self.0.take();
            if reads.is_empty() {
                return;
            }
            let request = oss::ReadManyRequest { reads };
            let call = bulk::call(&mut channel, bulk::READ_MANY_PATH, &request, Payload::new(), timeout);
            let late = |_| Err(Status::deadline_exceeded(format!("no answer within {timeout:?}")));
            let answers = tokio::time::timeout(timeout, call).await.unwrap_or_else(late);
            deliver(answers, senders);
        }
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        let mut waiting = self.0.0.lock();
        waiting.calls -= 1;
        if waiting.calls == 0 {
            // Only where the runtime has ended: their readers must not wait for a call that nobody makes.
            waiting.reads.clear();
        }
    }
}

/// Hands each reader its part of an answer.
fn deliver(answer: Result<Lane<oss::ReadManyReply>, Status>, senders: Vec<oneshot::Sender<Answer>>) {
    let (reply, mut payload) = match answer {
        Ok(answer) => answer,
        Err(status) => {
            // A reader that is gone needs no answer.
            senders.into_iter().for_each(|sender| drop(sender.send(Err(status.clone()))));
            return;
        }
    };
    let mut outcomes = reply.outcomes.into_iter();
    for sender in senders {
        let outcome = outcomes.next().and_then(|o| o.outcome);
        let _ = sender.send(one(outcome, &mut payload));
    }
}

/// What one outcome brings.
fn one(outcome: Option<Outcome>, payload: &mut Payload) -> Answer {
    match outcome {
        Some(Outcome::Reply(reply)) => {
            let len: u64 = reply.parts.iter().map(|part| u64::from(part.stored_len)).sum();
            let len = usize::try_from(len).ok().filter(|len| *len <= payload.len());
            let len = len.ok_or_else(|| Status::internal("a reply with less payload than its parts say"))?;
            Ok((reply, payload.split_to(len)))
        }
        Some(Outcome::Error(detail)) => Err(status::to_status(status::from_detail(detail))),
        None => Err(Status::internal("a reply without an outcome for each read")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use sateen_types::{FsCode, FsError};

    fn read(length: u32) -> oss::ReadRequest {
        oss::ReadRequest { length, ..Default::default() }
    }

    #[test]
    fn few_readers_wait_for_nobody_and_many_share_calls() {
        let small = SmallReads::default();
        let mut answers = Vec::new();
        let mut add = |length| {
            let (sender, answer) = oneshot::channel();
            answers.push(answer);
            small.add(read(length), sender)
        };
        let calls: Vec<bool> = (0..32).map(|_| add(4096)).collect();
        assert_eq!(calls.iter().filter(|c| **c).count(), 4, "{calls:?}");
        assert!(calls[0] && calls[1] && !calls[2]);
        assert_eq!(small.take().0.len(), 32);
        for _ in 0..100 {
            add(SMALL_BYTES_MAX);
        }
        assert_eq!(small.take().0.len(), READ_MANY_BYTES_MAX / SMALL_BYTES_MAX as usize);
        for _ in 0..100 {
            add(1);
        }
        small.take();
        while !small.0.lock().reads.is_empty() {
            assert!(small.take().0.len() <= READ_MANY_MAX);
        }
        assert!(small.take().0.is_empty());
    }

    #[test]
    fn each_reader_gets_its_own_answer_and_a_liar_is_found() {
        let part = |stored_len| oss::Part { stored_len, ..Default::default() };
        let reply = |lens: &[u32]| {
            Outcome::Reply(oss::ReadReply { parts: lens.iter().map(|l| part(*l)).collect(), ..Default::default() })
        };
        let full = Outcome::Error(status::to_detail(FsError::new(FsCode::Corrupt, "damaged")));
        let outcomes = [reply(&[2, 1]), full, reply(&[]), reply(&[3]), reply(&[u32::MAX, u32::MAX])];
        let outcomes = outcomes.into_iter().map(|o| oss::ReadOutcome { outcome: Some(o) }).collect();
        let many = oss::ReadManyReply { outcomes, ..Default::default() };
        let (senders, answers): (Vec<_>, Vec<_>) = (0..6).map(|_| oneshot::channel()).unzip();
        deliver(Ok((many, Payload::from(Bytes::from_static(b"abcdef")))), senders);
        let mut answers =
            answers.into_iter().map(|mut a| a.try_recv().expect("an answer").map(|(_, p)| p.into_bytes()));
        let mut next = || answers.next().expect("six");
        assert_eq!(next().expect("good"), "abc");
        assert_eq!(status::from_status(&next().expect_err("an error")).code, FsCode::Corrupt);
        assert_eq!(next().expect("good"), "");
        assert_eq!(next().expect("good"), "def");
        next().expect_err("more than there is");
        next().expect_err("no outcome");
    }
}
