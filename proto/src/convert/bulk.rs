//! Objects and parts of the bulk path.

use sateen_types::limits::{BULK_BYTES_MAX, CHUNK_LOG2_MAX, CHUNK_LOG2_MIN, ENDED_WRITERS_MAX, FILE_SIZE_MAX};
use sateen_types::{Codec, ComponentId, FsCode, FsError, FsResult, ObjectId, Part, StripeIndex};

use super::{bad, fid, fs_id};
use crate::oss;

impl From<ObjectId> for oss::ObjectId {
    fn from(o: ObjectId) -> oss::ObjectId {
        oss::ObjectId { fs_id: o.fs.0, fid: Some(o.fid.into()), component: o.component.0, stripe: o.stripe.0 }
    }
}

impl TryFrom<oss::ObjectId> for ObjectId {
    type Error = FsError;
    fn try_from(w: oss::ObjectId) -> FsResult<ObjectId> {
        if w.component == 0 {
            return Err(bad("component", "0 is no component"));
        }
        Ok(ObjectId {
            fs: fs_id(w.fs_id)?,
            fid: fid(w.fid, "fid")?,
            component: ComponentId(w.component),
            stripe: StripeIndex(w.stripe),
        })
    }
}

/// `chunk_log2` of a request: 16 or 17.
pub fn chunk_log2(n: u32) -> FsResult<u8> {
    u8::try_from(n)
        .ok()
        .filter(|n| (CHUNK_LOG2_MIN..=CHUNK_LOG2_MAX).contains(n))
        .ok_or_else(|| bad("chunk_log2", format_args!("{n} is not {CHUNK_LOG2_MIN} or {CHUNK_LOG2_MAX}")))
}

/// Writers that are shut out: a bounded list without 0, which means none.
pub fn ended_writers(writers: Vec<u64>) -> FsResult<Vec<u64>> {
    if writers.len() > ENDED_WRITERS_MAX {
        return Err(bad("ended_writers", format_args!("{}, at most {ENDED_WRITERS_MAX}", writers.len())));
    }
    if writers.contains(&0) {
        return Err(bad("ended_writers", "0 is no writer"));
    }
    Ok(writers)
}

/// A range of an object: not empty, and its end below 2^63.
pub fn range(offset: u64, length: u64) -> FsResult<(u64, u64)> {
    match offset.checked_add(length) {
        Some(end) if end <= FILE_SIZE_MAX && length > 0 => Ok((offset, length)),
        _ => Err(bad("range", format_args!("{length} bytes at {offset} are empty or pass 2^63"))),
    }
}

impl From<&Part> for oss::Part {
    fn from(p: &Part) -> oss::Part {
        let codec = match p.codec {
            Codec::Raw => oss::Codec::Raw,
            Codec::Lz4 => oss::Codec::Lz4,
        };
        oss::Part {
            offset: p.offset,
            raw_len: p.raw_len,
            stored_len: p.stored_len,
            codec: codec.into(),
            raw_crc32c: p.raw_crc32c,
            stored_crc32c: p.stored_crc32c,
            sealed: p.sealed,
            hole: p.hole,
        }
    }
}

/// Wire form of parts.
pub fn parts_to_wire(parts: &[Part]) -> Vec<oss::Part> {
    parts.iter().map(oss::Part::from).collect()
}

/// Checks the parts of one message against its payload: in rising order without overlap, stored lengths that add up
/// to `payload_len`, nothing larger than a chunk of `1 << chunk_log2` bytes (holes excepted), sealed parts that are
/// whole aligned chunks, plain parts that stay inside one chunk, lengths that fit their codec.
pub fn parts_from_wire(wire: Vec<oss::Part>, chunk_log2: u8, payload_len: usize) -> FsResult<Vec<Part>> {
    let chunk = 1u64 << chunk_log2;
    if payload_len > BULK_BYTES_MAX {
        return Err(FsError::new(
            FsCode::TooBig,
            format!("payload has {payload_len} bytes, at most {BULK_BYTES_MAX} are allowed"),
        ));
    }
    if wire.is_empty() {
        return Err(bad("parts", "none"));
    }
    let mut end = 0u64;
    let mut stored = 0usize;
    let mut parts = Vec::with_capacity(wire.len());
    for w in wire {
        let codec = match oss::Codec::try_from(w.codec) {
            Ok(oss::Codec::Raw) => Codec::Raw,
            Ok(oss::Codec::Lz4) => Codec::Lz4,
            Err(_) => return Err(bad("codec", format_args!("{} is unknown", w.codec))),
        };
        let (offset, raw_len) = range(w.offset, u64::from(w.raw_len))?;
        let refuse = |why: &str| Err(bad("part", format_args!("{raw_len} bytes at {offset}: {why}")));
        if offset < end {
            return refuse("overlaps the part before it");
        }
        end = offset + raw_len;
        let inside_one_chunk = offset / chunk == (end - 1) / chunk;
        if w.hole {
            if w.stored_len != 0 || w.sealed {
                return refuse("a hole has no stored bytes");
            }
        } else if w.sealed && !(offset.is_multiple_of(chunk) && raw_len <= chunk) {
            return refuse("a sealed part is not an aligned chunk");
        } else if !inside_one_chunk {
            return refuse("crosses a chunk");
        } else if codec == Codec::Raw && w.stored_len != w.raw_len {
            return refuse("raw bytes with another stored length");
        } else if codec == Codec::Lz4 && (w.stored_len == 0 || w.stored_len >= w.raw_len) {
            return refuse("LZ4 that does not save space");
        }
        stored += w.stored_len as usize;
        parts.push(Part {
            offset,
            raw_len: w.raw_len,
            stored_len: w.stored_len,
            codec,
            raw_crc32c: w.raw_crc32c,
            stored_crc32c: w.stored_crc32c,
            sealed: w.sealed,
            hole: w.hole,
        });
    }
    if stored != payload_len {
        return Err(bad("payload", format_args!("has {payload_len} bytes, the parts say {stored}")));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(offset: u64, len: u32) -> oss::Part {
        oss::Part { offset, raw_len: len, stored_len: len, ..Default::default() }
    }

    #[test]
    fn parts_that_lie_about_themselves_are_refused() {
        let chunk = 1u32 << 17;
        let cases: Vec<(&str, Vec<oss::Part>, usize)> = vec![
            ("none", vec![], 0),
            ("overlap", vec![part(0, 10), part(5, 10)], 20),
            ("empty", vec![part(0, 0)], 0),
            ("crosses", vec![part(u64::from(chunk) - 1, 2)], 2),
            ("payload short", vec![part(0, 10)], 9),
            ("beyond 2^63", vec![part(i64::MAX as u64, 1)], 1),
            ("overflow", vec![part(u64::MAX, 1)], 1),
            ("sealed unaligned", vec![oss::Part { sealed: true, ..part(4096, 100) }], 100),
            ("codec", vec![oss::Part { codec: 7, ..part(0, 10) }], 10),
            ("lz4 that grows", vec![oss::Part { codec: 1, ..part(0, 10) }], 10),
            ("hole with bytes", vec![oss::Part { hole: true, ..part(0, 10) }], 10),
        ];
        for (name, parts, len) in cases {
            assert!(parts_from_wire(parts, 17, len).is_err(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_parts_never_panic(
            raw in proptest::collection::vec((any::<u64>(), any::<u32>(), any::<u32>(), -1i32..3, any::<bool>(), any::<bool>()), 0..5),
            len in 0usize..1 << 23,
        ) {
            let wire = raw.into_iter().map(|(offset, raw_len, stored_len, codec, sealed, hole)| oss::Part {
                offset, raw_len, stored_len, codec, sealed, hole, ..Default::default()
            }).collect();
            let _ = parts_from_wire(wire, 17, len);
        }
    }
}
