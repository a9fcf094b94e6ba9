//! Write and WriteMany: on threads that may wait for the disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use sateen_proto::convert::{bad, chunk_log2, parts_from_wire};
use sateen_proto::oss::write_outcome::Outcome;
use sateen_proto::status::{from_status, to_detail, to_status};
use sateen_proto::{common, oss};
use sateen_types::limits::{WRITE_MANY_BYTES_MAX, WRITE_MANY_MAX, WRITE_MANY_PARTS_MAX};
use sateen_types::{Compression, FsError, FsResult, Payload};
use tonic::Status;

use super::{Service, object};
use crate::ost::Ost;
use crate::store::Changed;
use crate::store::fence::Fence;
use crate::store::write::Write;

impl Service {
    /// Write: the fields of the request, and the payload beside them.
    pub(super) async fn write_parts(
        &self,
        head: oss::WriteRequest,
        payload: Payload,
    ) -> Result<oss::WriteReply, Status> {
        let bytes = payload.len();
        let (ost, write) = self.decoded(head, payload).map_err(to_status)?;
        self.data(bytes, move || stored(&ost, write)).await.map(reply)
    }

    /// WriteMany, likewise. Each OST makes its writes one after the other, all OSTs at the same time.
    pub(super) async fn write_many_parts(
        &self,
        request: oss::WriteManyRequest,
        mut payload: Payload,
    ) -> Result<oss::WriteManyReply, Status> {
        let lengths = check_many(&request.writes, payload.len()).map_err(to_status)?;
        let mut outcomes: Vec<Option<Result<Changed, FsError>>> = vec![None; lengths.len()];
        let mut by_ost: BTreeMap<u32, Batch> = BTreeMap::new();
        for (place, (head, len)) in request.writes.into_iter().zip(lengths).enumerate() {
            let number = head.ost;
            match self.decoded(head, payload.split_to(len)) {
                Ok((ost, write)) => {
                    let batch = by_ost.entry(number).or_insert_with(|| Batch { ost, bytes: 0, writes: Vec::new() });
                    batch.bytes += len;
                    batch.writes.push((place, write));
                }
                Err(error) => outcomes[place] = Some(Err(error)),
            }
        }
        let made = by_ost.into_values().map(async |Batch { ost, bytes, writes }| {
            let places: Vec<usize> = writes.iter().map(|(place, _)| *place).collect();
            let work = move || Ok(writes.into_iter().map(|(_, write)| stored(&ost, write)).collect::<Vec<_>>());
            let made = self.data(bytes, work).await;
            let made = made.unwrap_or_else(|status| vec![Err(from_status(&status)); places.len()]);
            places.into_iter().zip(made).collect::<Vec<_>>()
        });
        for (place, made) in join_all(made).await.into_iter().flatten() {
            outcomes[place] = Some(made);
        }
        let outcome = |outcome: Option<Result<Changed, FsError>>| oss::WriteOutcome {
            outcome: outcome.map(|outcome| match outcome {
                Ok(changed) => Outcome::Reply(reply(changed)),
                Err(error) => Outcome::Error(to_detail(error)),
            }),
        };
        Ok(oss::WriteManyReply { outcomes: outcomes.into_iter().map(outcome).collect() })
    }

    /// A write that makes sense, and where it goes.
    fn decoded(&self, r: oss::WriteRequest, payload: Payload) -> FsResult<(Arc<Ost>, Write)> {
        let chunk_log2 = chunk_log2(r.chunk_log2)?;
        let compression = common::Compression::try_from(r.compression)
            .map_err(|_| bad("compression", format_args!("{} is unknown", r.compression)))?;
        let write = Write {
            object: object(r.object)?,
            chunk_log2,
            compression: Compression::try_from(compression)?,
            parts: parts_from_wire(r.parts, chunk_log2, payload.len())?,
            fence: Fence::new(r.writer, r.generation),
            payload,
        };
        Ok((self.ost(r.ost)?, write))
    }
}

/// Writes of one call to one OST, with their places in it.
struct Batch {
    ost: Arc<Ost>,
    bytes: usize,
    writes: Vec<(usize, Write)>,
}

fn stored(ost: &Ost, write: Write) -> FsResult<Changed> {
    ost.store_or_new(write.object.fs)?.write(write)
}

fn reply(changed: Changed) -> oss::WriteReply {
    let Changed { verifier, allocated_delta } = changed;
    oss::WriteReply { verifier: verifier.0.to_vec(), allocated_delta }
}

/// How much of the payload is each write's.
fn check_many(writes: &[oss::WriteRequest], payload: usize) -> FsResult<Vec<usize>> {
    if writes.is_empty() || writes.len() > WRITE_MANY_MAX {
        return Err(bad("writes", format_args!("{}, 1 to {WRITE_MANY_MAX} are taken", writes.len())));
    }
    if payload > WRITE_MANY_BYTES_MAX {
        return Err(bad("payload", format_args!("{payload} bytes, {WRITE_MANY_BYTES_MAX} at most")));
    }
    let mut lengths = Vec::with_capacity(writes.len());
    for write in writes {
        if write.parts.len() > WRITE_MANY_PARTS_MAX {
            let parts = write.parts.len();
            return Err(bad("parts", format_args!("{parts} in one of several writes, {WRITE_MANY_PARTS_MAX} at most")));
        }
        if !write.payload.is_empty() {
            return Err(bad("payload", format_args!("one of several writes has its own")));
        }
        lengths.push(write.parts.iter().map(|part| part.stored_len as usize).sum());
    }
    let said: usize = lengths.iter().sum();
    if said != payload {
        return Err(bad("payload", format_args!("{payload} bytes, the parts have {said}")));
    }
    Ok(lengths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_write_nothing_or_too_much_or_lie_are_refused() {
        let write = |lens: &[u32]| {
            let part = |len: &u32| oss::Part { stored_len: *len, ..Default::default() };
            oss::WriteRequest { parts: lens.iter().map(part).collect(), ..Default::default() }
        };
        assert_eq!(check_many(&[write(&[10, 5]), write(&[1])], 16).expect("good"), [15, 1]);
        let fair = (WRITE_MANY_BYTES_MAX / WRITE_MANY_MAX) as u32;
        check_many(&vec![write(&[fair]); WRITE_MANY_MAX], WRITE_MANY_BYTES_MAX).expect("as much as there may be");
        check_many(&[], 0).expect_err("nothing");
        check_many(&vec![write(&[1]); WRITE_MANY_MAX + 1], WRITE_MANY_MAX + 1).expect_err("too many");
        check_many(&[write(&[u32::MAX])], u32::MAX as usize).expect_err("too much");
        check_many(&[write(&[1; WRITE_MANY_PARTS_MAX + 1])], WRITE_MANY_PARTS_MAX + 1).expect_err("too many parts");
        check_many(&[write(&[1])], 2).expect_err("more than is said");
        check_many(&[write(&[u32::MAX]), write(&[1])], 1).expect_err("less than is said");
        let own = oss::WriteRequest { payload: vec![1].into(), ..write(&[1]) };
        check_many(&[own], 1).expect_err("twice");
    }
}
