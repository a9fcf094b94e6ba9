//! Small reads of one OSS, and small writes to one of its OSTs, share calls ([`Together`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sateen_proto::bulk::{self, Lane};
use sateen_proto::oss::{read_outcome, write_outcome};
use sateen_proto::{oss, status};
use sateen_types::limits::{
    READ_MANY_BYTES_MAX, READ_MANY_MAX, WRITE_MANY_BYTES_MAX, WRITE_MANY_MAX, WRITE_MANY_PARTS_MAX,
};
use sateen_types::{OstIndex, Payload};
use tokio::runtime::Handle;
use tonic::Status;
use tonic::transport::Channel;

use crate::together::{Bounds, Together};

/// Reads of at most so many bytes share calls.
pub(crate) const READ_BYTES_MAX: u32 = 32 << 10;
/// Writes of at most so many bytes do.
const WRITE_BYTES_MAX: usize = 64 << 10;
/// Reads of one OSS.
const READS: Bounds =
    Bounds { calls_free: 2, waiting_per_call: 8, requests_max: READ_MANY_MAX, bytes_max: READ_MANY_BYTES_MAX };
/// Writes to one OST.
const WRITES: Bounds =
    Bounds { calls_free: 2, waiting_per_call: 32, requests_max: WRITE_MANY_MAX, bytes_max: WRITE_MANY_BYTES_MAX };

/// How calls are made.
#[derive(Clone)]
pub(crate) struct Way<'a> {
    pub channel: Channel,
    pub runtime: &'a Handle,
    /// Longest that one waits for its answer.
    pub timeout: Duration,
}

/// Small reads that wait for a call to one OSS.
#[derive(Debug)]
pub(crate) struct SmallReads(Arc<Together<oss::ReadRequest, Result<Lane<oss::ReadReply>, Status>>>);

impl Default for SmallReads {
    fn default() -> SmallReads {
        SmallReads(Arc::new(Together::new(READS)))
    }
}

impl SmallReads {
    /// One read, in whatever call it fits.
    pub async fn read(&self, request: oss::ReadRequest, way: Way<'_>) -> Result<Lane<oss::ReadReply>, Status> {
        let Way { channel, runtime, timeout } = way;
        let call = || {
            move |reads: Vec<oss::ReadRequest>| {
                let mut channel = channel.clone();
                async move {
                    let (count, request) = (reads.len(), oss::ReadManyRequest { reads });
                    let call = bulk::call(&mut channel, bulk::READ_MANY_PATH, &request, Payload::new(), timeout);
                    delivered_reads(in_time(timeout, call).await, count)
                }
            }
        };
        let answer = self.0.ask((request, request.length as usize), runtime, call).await;
        answer.unwrap_or_else(|| Err(unanswered()))
    }
}

/// One small write, its payload beside it.
type SmallWrite = (oss::WriteRequest, Payload);
type Writes = Together<SmallWrite, Result<oss::WriteReply, Status>>;

/// Small writes that wait for a call to one OSS. Those to different OSTs never share one: one disk may be slow.
#[derive(Debug, Default)]
pub(crate) struct SmallWrites(Mutex<HashMap<OstIndex, Arc<Writes>>>);

impl SmallWrites {
    /// Whether a write is small enough to share a call.
    pub fn takes(request: &oss::WriteRequest, payload: &Payload) -> bool {
        payload.len() <= WRITE_BYTES_MAX && request.parts.len() <= WRITE_MANY_PARTS_MAX
    }

    /// One write, in whatever call it fits.
    pub async fn write(&self, ost: OstIndex, write: SmallWrite, way: Way<'_>) -> Result<oss::WriteReply, Status> {
        let Way { channel, runtime, timeout } = way;
        let call = || {
            move |writes: Vec<SmallWrite>| {
                let mut channel = channel.clone();
                async move {
                    let count = writes.len();
                    let (writes, payloads): (Vec<_>, Vec<Payload>) = writes.into_iter().unzip();
                    let payload = payloads.iter().flat_map(Payload::pieces).cloned().collect();
                    let request = oss::WriteManyRequest { writes, ..Default::default() };
                    let call = bulk::call(&mut channel, bulk::WRITE_MANY_PATH, &request, payload, timeout);
                    delivered_writes(in_time(timeout, call).await, count)
                }
            }
        };
        let writes = Arc::clone(self.0.lock().entry(ost).or_insert_with(|| Arc::new(Together::new(WRITES))));
        let bytes = write.1.len();
        writes.ask((write, bytes), runtime, call).await.unwrap_or_else(|| Err(unanswered()))
    }
}

async fn in_time<T>(timeout: Duration, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_| Err(Status::deadline_exceeded(format!("no answer within {timeout:?}")));
    tokio::time::timeout(timeout, call).await.unwrap_or_else(late)
}

fn unanswered() -> Status {
    Status::unavailable("the client is going away")
}

/// What each of so many reads of a call is answered.
fn delivered_reads(
    answer: Result<Lane<oss::ReadManyReply>, Status>,
    count: usize,
) -> Vec<Result<Lane<oss::ReadReply>, Status>> {
    let (reply, mut payload) = match answer {
        Ok(answer) => answer,
        Err(status) => return vec![Err(status); count],
    };
    let mut outcomes = reply.outcomes.into_iter();
    (0..count).map(|_| one_read(outcomes.next().and_then(|o| o.outcome), &mut payload)).collect()
}

/// What one outcome brings.
fn one_read(outcome: Option<read_outcome::Outcome>, payload: &mut Payload) -> Result<Lane<oss::ReadReply>, Status> {
    match outcome {
        Some(read_outcome::Outcome::Reply(reply)) => {
            let len: u64 = reply.parts.iter().map(|part| u64::from(part.stored_len)).sum();
            let len = usize::try_from(len).ok().filter(|len| *len <= payload.len());
            let len = len.ok_or_else(|| Status::internal("a reply with less payload than its parts say"))?;
            Ok((reply, payload.split_to(len)))
        }
        Some(read_outcome::Outcome::Error(detail)) => Err(status::to_status(status::from_detail(detail))),
        None => Err(Status::internal("a reply without an outcome for each read")),
    }
}

/// What each of so many writes of a call is answered.
fn delivered_writes(
    answer: Result<Lane<oss::WriteManyReply>, Status>,
    count: usize,
) -> Vec<Result<oss::WriteReply, Status>> {
    let reply = match answer {
        Ok((reply, _)) => reply,
        Err(status) => return vec![Err(status); count],
    };
    let mut outcomes = reply.outcomes.into_iter();
    let one = |outcome| match outcome {
        Some(write_outcome::Outcome::Reply(reply)) => Ok(reply),
        Some(write_outcome::Outcome::Error(detail)) => Err(status::to_status(status::from_detail(detail))),
        None => Err(Status::internal("a reply without an outcome for each write")),
    };
    (0..count).map(|_| one(outcomes.next().and_then(|o| o.outcome))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use sateen_types::{FsCode, FsError};

    #[test]
    fn each_reader_gets_its_own_answer_and_a_liar_is_found() {
        use read_outcome::Outcome;
        let part = |stored_len| oss::Part { stored_len, ..Default::default() };
        let reply = |lens: &[u32]| {
            Outcome::Reply(oss::ReadReply { parts: lens.iter().map(|l| part(*l)).collect(), ..Default::default() })
        };
        let full = Outcome::Error(status::to_detail(FsError::new(FsCode::Corrupt, "damaged")));
        let outcomes = [reply(&[2, 1]), full, reply(&[]), reply(&[3]), reply(&[u32::MAX, u32::MAX])];
        let outcomes = outcomes.into_iter().map(|o| oss::ReadOutcome { outcome: Some(o) }).collect();
        let many = oss::ReadManyReply { outcomes, ..Default::default() };
        let answers = delivered_reads(Ok((many, Payload::from(Bytes::from_static(b"abcdef")))), 6);
        let mut answers = answers.into_iter().map(|a| a.map(|(_, payload)| payload.into_bytes()));
        let mut next = || answers.next().expect("six");
        assert_eq!(next().expect("good"), "abc");
        assert_eq!(status::from_status(&next().expect_err("an error")).code, FsCode::Corrupt);
        assert_eq!(next().expect("good"), "");
        assert_eq!(next().expect("good"), "def");
        next().expect_err("more than there is");
        next().expect_err("no outcome");
        let all = delivered_reads(Err(Status::unavailable("gone")), 3);
        assert!(all.len() == 3 && all.iter().all(Result::is_err));
    }

    #[test]
    fn each_writer_gets_its_own_answer() {
        use write_outcome::Outcome;
        let good = Outcome::Reply(oss::WriteReply { verifier: vec![1; 16], allocated_delta: 7 });
        let full = Outcome::Error(status::to_detail(FsError::new(FsCode::NoSpace, "full")));
        let outcomes = [Some(good), Some(full), None].map(|outcome| oss::WriteOutcome { outcome });
        let many = oss::WriteManyReply { outcomes: outcomes.into() };
        let answers = delivered_writes(Ok((many, Payload::new())), 4);
        assert_eq!(answers[0].as_ref().expect("good").allocated_delta, 7);
        let code = |i: usize| status::from_status(answers[i].as_ref().expect_err("an error")).code;
        assert_eq!((answers.len(), code(1)), (4, FsCode::NoSpace));
        assert!(answers[2].is_err() && answers[3].is_err(), "no outcome");
        let all = delivered_writes(Err(Status::unavailable("gone")), 3);
        assert!(all.len() == 3 && all.iter().all(Result::is_err));
    }
}
