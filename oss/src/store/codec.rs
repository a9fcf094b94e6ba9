//! Sealing and opening chunks: bytes in, bytes out.

use std::borrow::Cow;

use sateen_types::limits::{BLOCK_BYTES, CHUNK_BYTES_MAX};
use sateen_types::{Codec, Compression, Part};

use super::records::round_to_blocks;

/// A chunk as it goes to disk.
pub struct Sealed<'a> {
    /// How to open it.
    pub codec: Codec,
    /// Stored bytes.
    pub stored: Cow<'a, [u8]>,
    /// crc32c of the opened bytes.
    pub raw_crc: u32,
    /// crc32c of the stored bytes.
    pub stored_crc: u32,
}

impl Sealed<'_> {
    /// The part that these are the bytes of: `raw_len` bytes at `offset` of an object.
    pub fn part(&self, offset: u64, raw_len: usize) -> Part {
        Part {
            offset,
            raw_len: raw_len as u32,
            stored_len: self.stored.len() as u32,
            codec: self.codec,
            raw_crc32c: self.raw_crc,
            stored_crc32c: self.stored_crc,
            sealed: true,
            hole: false,
        }
    }
}

/// Compresses `raw` if that is wanted and saves at least one block.
pub fn seal(raw: &[u8], compression: Compression) -> Sealed<'_> {
    let raw_crc = crc32c::crc32c(raw);
    if compression == Compression::Lz4 && raw.len() > BLOCK_BYTES as usize {
        let mut out = vec![0; lz4_flex::block::get_maximum_output_size(raw.len())];
        if let Ok(n) = lz4_flex::block::compress_into(raw, &mut out)
            && saves_space(raw.len() as u64, n as u64)
        {
            out.truncate(n);
            let stored_crc = crc32c::crc32c(&out);
            return Sealed { codec: Codec::Lz4, stored: Cow::Owned(out), raw_crc, stored_crc };
        }
    }
    Sealed { codec: Codec::Raw, stored: Cow::Borrowed(raw), raw_crc, stored_crc: raw_crc }
}

/// Whether storing `stored` instead of `raw` bytes takes at least one block less.
fn saves_space(raw: u64, stored: u64) -> bool {
    round_to_blocks(stored) < round_to_blocks(raw)
}

/// Opens stored bytes whose checksum was verified. `None` if they are no LZ4 block of exactly `raw_len` bytes with
/// checksum `raw_crc`.
pub fn open(codec: Codec, stored: Vec<u8>, raw_len: u32, raw_crc: u32) -> Option<Vec<u8>> {
    debug_assert!(raw_len <= CHUNK_BYTES_MAX, "{raw_len}: a length from a record is checked when it is decoded");
    let raw = match codec {
        Codec::Raw => stored,
        Codec::Lz4 => {
            let mut raw = vec![0; raw_len as usize];
            let n = lz4_flex::block::decompress_into(&stored, &mut raw).ok()?;
            (n == raw.len()).then_some(raw)?
        }
    };
    (raw.len() == raw_len as usize && crc32c::crc32c(&raw) == raw_crc).then_some(raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_is_compressed_and_noise_is_not() {
        let text = b"warp and weft ".repeat(9000);
        let sealed = seal(&text, Compression::Lz4);
        assert_eq!(sealed.codec, Codec::Lz4);
        assert!(sealed.stored.len() < text.len() / 10);
        assert_eq!(seal(&text, Compression::None).codec, Codec::Raw);
        let noise: Vec<u8> = (0..CHUNK_BYTES_MAX).map(|_| rand::random()).collect();
        assert_eq!(seal(&noise, Compression::Lz4).codec, Codec::Raw);
        assert_eq!(seal(&[7; 4096], Compression::Lz4).codec, Codec::Raw, "one block cannot become less");
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_to_the_same(
            seed in proptest::collection::vec(any::<u8>(), 1..200), times in 1usize..600, lz4 in any::<bool>(),
        ) {
            let mut raw = seed.repeat(times);
            raw.truncate(CHUNK_BYTES_MAX as usize);
            let sealed = seal(&raw, if lz4 { Compression::Lz4 } else { Compression::None });
            prop_assert_eq!(crc32c::crc32c(&sealed.stored), sealed.stored_crc);
            let opened = open(sealed.codec, sealed.stored.to_vec(), raw.len() as u32, sealed.raw_crc);
            prop_assert_eq!(opened, Some(raw));
        }

        #[test]
        fn garbage_is_refused_without_panic(
            stored in proptest::collection::vec(any::<u8>(), 0..300), raw_len in 0..CHUNK_BYTES_MAX,
        ) {
            prop_assert_eq!(open(Codec::Lz4, stored, raw_len, 0x5eed), None);
        }
    }
}
