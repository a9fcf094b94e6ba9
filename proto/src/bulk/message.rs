//! A protobuf message with a payload, to pieces and back.
//!
//! The payload is a `bytes` field with number [`PAYLOAD_FIELD`], higher than any other, so that every encoder writes it
//! last. A decoder may not rely on that: fields are taken in any order, unknown ones are skipped, and of a payload that
//! is there twice the last counts, as protobuf has it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use sateen_types::limits::{BULK_BYTES_MAX, MESSAGE_BYTES_MAX};
use sateen_types::{FsCode, FsError, FsResult, Payload};

use crate::oss::{
    ReadManyReply, ReadManyRequest, ReadReply, ReadRequest, WriteManyReply, WriteManyRequest, WriteReply, WriteRequest,
};

/// Number of the payload's field in every message that has one.
const PAYLOAD_FIELD: u32 = 15;
/// Most bytes of all other fields of a message.
const HEAD_BYTES_MAX: usize = MESSAGE_BYTES_MAX - BULK_BYTES_MAX;
/// Bytes of a gRPC prefix: compressed flag and length.
pub(super) const PREFIX_BYTES: usize = 5;
/// Most bytes of a field's key and length.
const FIELD_BYTES_MAX: usize = 15;

/// A message that may be sent over the lane. Its own `payload` field, if it has one, stays empty.
pub trait Bulk: Message + Default {}

impl Bulk for WriteRequest {}
impl Bulk for WriteReply {}
impl Bulk for WriteManyRequest {}
impl Bulk for WriteManyReply {}
impl Bulk for ReadRequest {}
impl Bulk for ReadReply {}
impl Bulk for ReadManyRequest {}
impl Bulk for ReadManyReply {}

/// A message and its payload.
pub type Lane<M> = (M, Payload);

/// The message as it travels, gRPC prefix included: one small piece, then the payload's own.
pub fn encode(head: &impl Bulk, payload: Payload) -> Payload {
    let head_len = head.encoded_len();
    let mut front = BytesMut::with_capacity(PREFIX_BYTES + head_len + FIELD_BYTES_MAX);
    front.put_bytes(0, PREFIX_BYTES);
    head.encode_raw(&mut front);
    if !payload.is_empty() {
        encode_key(PAYLOAD_FIELD, WireType::LengthDelimited, &mut front);
        encode_varint(payload.len() as u64, &mut front);
    }
    let len = (front.len() - PREFIX_BYTES + payload.len()) as u32;
    front[1..PREFIX_BYTES].copy_from_slice(&len.to_be_bytes());
    let mut message = Payload::from(front.freeze());
    message.extend(payload.pieces().cloned());
    message
}

/// Takes a message (without its gRPC prefix) apart.
pub fn decode<M: Bulk>(mut message: Payload) -> FsResult<Lane<M>> {
    let mut head = BytesMut::new();
    let mut payload = Payload::new();
    let bad = |e: prost::DecodeError| malformed(&e.to_string());
    while !message.is_empty() {
        let (field, wire_type) = decode_key(&mut message).map_err(bad)?;
        if field == PAYLOAD_FIELD && wire_type == WireType::LengthDelimited {
            let len = length(&mut message)?;
            payload = message.split_to(len);
            continue;
        }
        encode_key(field, wire_type, &mut head);
        match wire_type {
            WireType::Varint => encode_varint(decode_varint(&mut message).map_err(bad)?, &mut head),
            WireType::SixtyFourBit => move_bytes(&mut message, 8, &mut head)?,
            WireType::ThirtyTwoBit => move_bytes(&mut message, 4, &mut head)?,
            WireType::LengthDelimited => {
                let len = length(&mut message)?;
                encode_varint(len as u64, &mut head);
                move_bytes(&mut message, len, &mut head)?;
            }
            WireType::StartGroup | WireType::EndGroup => return Err(malformed("a group, which proto3 has not")),
        }
    }
    Ok((M::decode(Bytes::from(head)).map_err(bad)?, payload))
}

/// Length of a field, all of which is there.
fn length(message: &mut Payload) -> FsResult<usize> {
    let len = decode_varint(message).map_err(|e| malformed(&e.to_string()))?;
    usize::try_from(len).ok().filter(|len| *len <= message.len()).ok_or_else(|| malformed("a field passes its end"))
}

fn move_bytes(message: &mut Payload, len: usize, head: &mut BytesMut) -> FsResult<()> {
    if message.remaining() < len {
        return Err(malformed("a field passes its end"));
    }
    if head.len() + len > HEAD_BYTES_MAX {
        return Err(FsError::new(
            FsCode::TooBig,
            format!("message: its fields without the payload pass {HEAD_BYTES_MAX} bytes"),
        ));
    }
    head.put(message.split_to(len));
    Ok(())
}

fn malformed(why: &str) -> FsError {
    FsError::new(FsCode::Invalid, format!("message: not the protobuf it should be: {why}"))
        .with_hint("use the sateen.oss.v1 definitions of this release")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::oss::Part;

    fn request(parts: usize) -> WriteRequest {
        let part = |i: usize| Part { offset: i as u64 * 131_072, raw_len: 131_072, ..Default::default() };
        WriteRequest { ost: 3, chunk_log2: 17, parts: (0..parts).map(part).collect(), ..Default::default() }
    }

    /// `bytes` cut at every multiple of `step`.
    fn cut(bytes: Bytes, step: usize) -> Payload {
        let mut rest = bytes;
        std::iter::from_fn(|| (!rest.is_empty()).then(|| rest.split_to(step.min(rest.len())))).collect()
    }

    proptest! {
        #[test]
        fn prost_and_the_lane_read_each_other(
            parts in 0usize..4, data in proptest::collection::vec(any::<u8>(), 0..300), step in 1usize..40,
        ) {
            let head = request(parts);
            let whole = WriteRequest { payload: data.clone().into(), ..head.clone() };
            let mut ours = encode(&head, cut(data.clone().into(), step));
            let prefix = ours.split_to(PREFIX_BYTES).into_bytes();
            prop_assert_eq!(&prefix[..], [&[0], &(whole.encoded_len() as u32).to_be_bytes()[..]].concat());
            let ours = ours.into_bytes();
            prop_assert_eq!(&ours[..], &whole.encode_to_vec()[..]);
            let (back, payload) = decode::<WriteRequest>(cut(ours, step)).expect("own bytes");
            prop_assert_eq!(back, head);
            prop_assert_eq!(&payload.into_bytes()[..], &data[..]);
        }

        #[test]
        fn garbage_and_torn_messages_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), step in 1usize..9, keep in any::<prop::sample::Index>(),
        ) {
            let _ = decode::<WriteRequest>(cut(bytes.into(), step));
            let mut whole = encode(&request(2), Payload::from(Bytes::from(vec![1; 50])));
            whole.advance(PREFIX_BYTES);
            let len = keep.index(whole.len());
            let _ = decode::<WriteRequest>(whole.split_to(len));
        }
    }

    #[test]
    fn fields_after_the_payload_and_a_second_payload_count_as_protobuf_has_it() {
        let mut bytes = BytesMut::new();
        for payload in [&b"old"[..], b"new!"] {
            encode_key(PAYLOAD_FIELD, WireType::LengthDelimited, &mut bytes);
            encode_varint(payload.len() as u64, &mut bytes);
            bytes.put(payload);
        }
        encode_key(99, WireType::SixtyFourBit, &mut bytes);
        bytes.put_u64(7);
        encode_key(1, WireType::Varint, &mut bytes);
        encode_varint(5, &mut bytes);
        let (head, payload) = decode::<WriteRequest>(bytes.freeze().into()).expect("valid protobuf");
        assert_eq!((head.ost, &payload.into_bytes()[..]), (5, &b"new!"[..]));
    }

    #[test]
    fn a_head_without_end_is_refused() {
        let mut bytes = BytesMut::new();
        encode_key(200, WireType::LengthDelimited, &mut bytes);
        encode_varint(HEAD_BYTES_MAX as u64 + 1, &mut bytes);
        bytes.put_bytes(1, HEAD_BYTES_MAX + 1);
        assert_eq!(decode::<WriteRequest>(bytes.freeze().into()).expect_err("too big").code, FsCode::TooBig);
    }
}
