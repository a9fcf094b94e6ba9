//! Read and ReadMany: from memory where that is possible, otherwise on a thread that may wait for the disk.

use std::sync::Arc;

use futures::future::join_all;
use sateen_proto::convert::{bad, chunk_log2, parts_to_wire, range};
use sateen_proto::oss;
use sateen_proto::oss::read_outcome::Outcome;
use sateen_proto::status::{from_status, to_detail, to_status};
use sateen_types::limits::{BULK_BYTES_MAX, READ_MANY_BYTES_MAX, READ_MANY_MAX};
use sateen_types::{FsResult, ObjectId, Payload};
use tonic::Status;

use super::{Memory, Service, blocking, object};
use crate::ost::Ost;
use crate::store::read::{ReadOutcome, ReadRange};

impl Service {
    /// Read: the fields of the reply, the payload beside them, and the memory that it may take until it is sent.
    pub(super) async fn read_parts(
        &self,
        request: oss::ReadRequest,
    ) -> Result<(oss::ReadReply, Payload, Memory), Status> {
        let wanted = self.wanted(request).map_err(to_status)?;
        let memory = self.memory(wanted.range.length as usize).await;
        let (reply, payload) = read(self, wanted).await?;
        Ok((reply, payload, memory))
    }

    /// ReadMany, likewise. Reads that need the disk wait for it at the same time.
    pub(super) async fn read_many_parts(
        &self,
        request: oss::ReadManyRequest,
    ) -> Result<(oss::ReadManyReply, Payload, Memory), Status> {
        let bytes = check_many(&request.reads).map_err(to_status)?;
        let memory = self.memory(bytes).await;
        let mut payload = Payload::new();
        let one = async |request| read(self, self.wanted(request).map_err(to_status)?).await;
        let outcomes = join_all(request.reads.into_iter().map(one)).await;
        let outcomes = outcomes.into_iter().map(|outcome| match outcome {
            Ok((reply, bytes)) => {
                payload.extend(bytes.pieces().cloned());
                Outcome::Reply(reply)
            }
            Err(status) => Outcome::Error(to_detail(from_status(&status))),
        });
        let outcomes = outcomes.map(|outcome| oss::ReadOutcome { outcome: Some(outcome) }).collect();
        Ok((oss::ReadManyReply { outcomes, ..Default::default() }, payload, memory))
    }

    /// What a request asks for. Nothing of it was looked at before.
    fn wanted(&self, r: oss::ReadRequest) -> FsResult<Wanted> {
        if r.length as usize > BULK_BYTES_MAX {
            return Err(bad("length", format_args!("{} passes {BULK_BYTES_MAX}", r.length)));
        }
        let (offset, _) = range(r.offset, u64::from(r.length))?;
        let range = ReadRange { offset, length: r.length, sealed: r.sealed, verify: r.verify };
        Ok(Wanted { ost: self.ost(r.ost)?, object: object(r.object)?, chunk_log2: chunk_log2(r.chunk_log2)?, range })
    }
}

/// A read that makes sense.
struct Wanted {
    ost: Arc<Ost>,
    object: ObjectId,
    chunk_log2: u8,
    range: ReadRange,
}

/// One read, for whose payload there is memory.
async fn read(service: &Service, wanted: Wanted) -> Result<(oss::ReadReply, Payload), Status> {
    let Wanted { ost, object, chunk_log2, range } = wanted;
    let verifier = ost.verifier().0.to_vec();
    let outcome = match ost.store_now(object.fs) {
        // Most reads end here, without a thread of their own.
        Some(store) => store.read_from_memory(&object, chunk_log2, range).map_err(to_status)?,
        None => None,
    };
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => {
            let thread = service.io.clone().acquire_owned().await;
            let work = move || match ost.store(object.fs)? {
                Some(store) => store.read(&object, chunk_log2, range),
                None => Ok(ReadOutcome::hole(range)),
            };
            blocking(work, thread).await?
        }
    };
    let ReadOutcome { parts, payload, object_size } = outcome;
    Ok((oss::ReadReply { parts: parts_to_wire(&parts), object_size, verifier, ..Default::default() }, payload))
}

/// The bytes that the reads of one call may bring. Sealed ones bring more than they ask for and are not for this call.
fn check_many(reads: &[oss::ReadRequest]) -> FsResult<usize> {
    if reads.is_empty() || reads.len() > READ_MANY_MAX {
        return Err(bad("reads", format_args!("{}, 1 to {READ_MANY_MAX} are taken", reads.len())));
    }
    if reads.iter().any(|r| r.sealed) {
        return Err(bad("sealed", format_args!("whole chunks are read with Read")));
    }
    let bytes: u64 = reads.iter().map(|r| u64::from(r.length)).sum();
    if bytes > READ_MANY_BYTES_MAX as u64 {
        return Err(bad("reads", format_args!("{bytes} bytes, {READ_MANY_BYTES_MAX} at most")));
    }
    Ok(bytes as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_ask_for_nothing_or_too_much_are_refused() {
        let read = |length| oss::ReadRequest { length, ..Default::default() };
        assert_eq!(check_many(&[read(4096), read(1)]).expect("good"), 4097);
        assert_eq!(check_many(&vec![read(8192); READ_MANY_MAX]).expect("good"), READ_MANY_BYTES_MAX);
        for reads in [vec![], vec![read(1); READ_MANY_MAX + 1], vec![read(u32::MAX); READ_MANY_MAX]] {
            check_many(&reads).expect_err("refused");
        }
        check_many(&[oss::ReadRequest { sealed: true, ..read(1) }]).expect_err("refused");
    }
}
