//! Sealing: compress and checksum a chunk before it leaves this machine; opening: check and decompress what came back.
//! Pure; callers run it on threads meant for work.
//!
//! The checksums are made here and checked here: whatever happens to the bytes in between is noticed.

use bytes::Bytes;
use sateen_types::limits::BLOCK_BYTES;
use sateen_types::{Codec, Compression, Part};

/// A part of an object in the form in which it travels and is stored.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    /// What it says about itself.
    pub part: Part,
    /// The stored bytes.
    pub payload: Bytes,
}

/// A whole chunk, compressed if that saves at least one block of disk space.
pub(crate) fn seal(offset: u64, raw: &Bytes, compression: Compression) -> Sealed {
    let mut sealed = plain(offset, raw.clone());
    sealed.part.sealed = true;
    if compression == Compression::Lz4 {
        // More room would only be used by a result that is thrown away.
        let useful = raw.len().saturating_sub(BLOCK_BYTES as usize);
        let mut packed = vec![0; lz4_flex::block::get_maximum_output_size(raw.len())];
        if let Ok(len) = lz4_flex::block::compress_into(raw, &mut packed)
            && blocks(len) < blocks(raw.len())
            && len <= useful
        {
            packed.truncate(len);
            packed.shrink_to_fit();
            sealed.part.codec = Codec::Lz4;
            sealed.part.stored_len = len as u32;
            sealed.part.stored_crc32c = crc32c::crc32c(&packed);
            sealed.payload = packed.into();
        }
    }
    sealed
}

/// A range inside one chunk, as it is; the store merges it.
pub(crate) fn plain(offset: u64, raw: Bytes) -> Sealed {
    let crc = crc32c::crc32c(&raw);
    let len = raw.len() as u32;
    let part = Part {
        offset,
        raw_len: len,
        stored_len: len,
        codec: Codec::Raw,
        raw_crc32c: crc,
        stored_crc32c: crc,
        sealed: false,
        hole: false,
    };
    Sealed { part, payload: raw }
}

fn blocks(len: usize) -> usize {
    len.div_ceil(BLOCK_BYTES as usize)
}

/// Stored bytes that are not what was sealed, and how that was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage(pub &'static str);

/// The bytes of a data part. `part.raw_len` was checked against the chunk size when the message was decoded, so the
/// buffer is never sized by an unchecked peer.
pub(crate) fn open(part: &Part, stored: &Bytes) -> Result<Bytes, Damage> {
    if stored.len() != part.stored_len as usize || crc32c::crc32c(stored) != part.stored_crc32c {
        return Err(Damage("the stored bytes do not match their checksum"));
    }
    match part.codec {
        Codec::Raw if part.raw_crc32c != part.stored_crc32c => Err(Damage("the checksums disagree")),
        Codec::Raw => Ok(stored.clone()),
        Codec::Lz4 => {
            let mut raw = vec![0; part.raw_len as usize];
            match lz4_flex::block::decompress_into(stored, &mut raw) {
                Ok(len) if len == raw.len() && crc32c::crc32c(&raw) == part.raw_crc32c => Ok(raw.into()),
                Ok(_) => Err(Damage("the decompressed bytes do not match their checksum")),
                Err(_) => Err(Damage("the stored bytes do not decompress")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHUNK: usize = 128 << 10;

    /// Runs of equal bytes: compressible when they are long.
    fn contents() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec((any::<u8>(), 1usize..20_000), 1..60).prop_map(|runs| {
            let mut data: Vec<u8> = runs.into_iter().flat_map(|(b, n)| std::iter::repeat_n(b, n)).collect();
            data.resize(CHUNK, 7);
            data.into()
        })
    }

    fn noise() -> Bytes {
        let mut x = 1u64;
        (0..CHUNK)
            .map(|_| {
                x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (x >> 33) as u8
            })
            .collect::<Vec<_>>()
            .into()
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_to_the_same_bytes(raw in contents(), lz4: bool) {
            let compression = if lz4 { Compression::Lz4 } else { Compression::None };
            let sealed = seal(0, &raw, compression);
            prop_assert!(lz4 || sealed.part.codec == Codec::Raw);
            prop_assert_eq!(open(&sealed.part, &sealed.payload).expect("whole"), raw);
        }

        #[test]
        fn any_flipped_bit_is_noticed(raw in contents(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let sealed = seal(0, &raw, Compression::Lz4);
            let mut damaged = sealed.payload.to_vec();
            let at = at.index(damaged.len());
            damaged[at] ^= 1 << bit;
            prop_assert!(open(&sealed.part, &damaged.into()).is_err());
        }

        #[test]
        fn arbitrary_bytes_with_a_right_checksum_never_panic(stored in proptest::collection::vec(any::<u8>(), 1..2000)) {
            let stored = Bytes::from(stored);
            let mut part = plain(0, stored.clone()).part;
            (part.codec, part.raw_len) = (Codec::Lz4, CHUNK as u32);
            let _ = open(&part, &stored);
        }
    }

    #[test]
    fn incompressible_chunks_stay_raw() {
        let sealed = seal(0, &noise(), Compression::Lz4);
        assert_eq!((sealed.part.codec, sealed.part.stored_len as usize), (Codec::Raw, CHUNK));
        let zeros = seal(0, &Bytes::from(vec![0; CHUNK]), Compression::Lz4);
        assert!(zeros.part.codec == Codec::Lz4 && zeros.part.stored_len < 1024);
    }
}
