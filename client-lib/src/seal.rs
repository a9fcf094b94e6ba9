//! Sealing: compress and checksum a chunk before it leaves this machine; opening: check and decompress what came back.
//! Callers run it on threads meant for work; it keeps nothing but what a thread uses again and again.
//!
//! The checksums are made here and checked here: whatever happens to the bytes in between is noticed.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use lz4_flex::block::CompressTable;
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

/// A whole chunk, compressed if that saves at least one block of disk space and `outlook` does not speak against it.
pub(crate) fn seal(offset: u64, raw: &Bytes, compression: Compression, outlook: &Outlook) -> Sealed {
    let mut sealed = plain(offset, raw.clone());
    sealed.part.sealed = true;
    if compression == Compression::Lz4
        && let Some(packed) = PACKER.with_borrow_mut(|packer| pack(packer, raw, outlook))
    {
        sealed.part.codec = Codec::Lz4;
        sealed.part.stored_len = packed.len() as u32;
        sealed.part.stored_crc32c = crc32c::crc32c(&packed);
        sealed.payload = packed;
    }
    sealed
}

/// What became of a file's latest chunks. Where they did not shrink, the next ones are only sampled, which costs a small
/// part of a try; now and then one is tried all the same, so that data that shrinks is not taken for noise for long.
#[derive(Debug, Default)]
pub(crate) struct Outlook {
    /// Chunks in a row that did not shrink.
    misses: AtomicU32,
}

/// So many chunks in a row that did not shrink make the next ones be sampled.
const MISSES_TRUSTED: u32 = 2;
/// Of chunks that are sampled, one in so many is tried whatever its sample says.
const PROBE_EVERY: u32 = 16;
/// Bytes of a chunk's sample: four pieces from all over it.
const SAMPLE_BYTES: usize = 8 << 10;
const SAMPLE_PIECES: usize = 4;

impl Outlook {
    fn doubtful(&self) -> bool {
        let misses = self.misses.load(Ordering::Relaxed);
        misses >= MISSES_TRUSTED && !misses.is_multiple_of(PROBE_EVERY)
    }

    fn record(&self, shrank: bool) {
        if shrank {
            self.misses.store(0, Ordering::Relaxed);
        } else {
            self.misses.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What compressing needs beside the data; kept per thread, because making it anew takes longer than a sample.
struct Packer {
    table: CompressTable,
    /// Room for the worst result of the largest chunk so far.
    room: Vec<u8>,
}

thread_local! {
    static PACKER: RefCell<Packer> = RefCell::new(Packer { table: CompressTable::large(), room: Vec::new() });
}

impl Packer {
    fn run(&mut self, raw: &[u8]) -> Option<&[u8]> {
        let worst = lz4_flex::block::get_maximum_output_size(raw.len());
        if self.room.len() < worst {
            self.room.resize(worst, 0);
        }
        let len = lz4_flex::block::compress_into_with_table(raw, &mut self.room, &mut self.table).ok()?;
        Some(&self.room[..len])
    }
}

fn pack(packer: &mut Packer, raw: &[u8], outlook: &Outlook) -> Option<Bytes> {
    let tried = !outlook.doubtful() || sample_shrinks(packer, raw);
    let packed = if tried { packer.run(raw).filter(|packed| blocks(packed.len()) < blocks(raw.len())) } else { None };
    outlook.record(packed.is_some());
    packed.map(Bytes::copy_from_slice)
}

/// Whether a sample saves its part of the block that a chunk must save.
fn sample_shrinks(packer: &mut Packer, raw: &[u8]) -> bool {
    const PIECE: usize = SAMPLE_BYTES / SAMPLE_PIECES;
    if raw.len() < SAMPLE_BYTES {
        return true;
    }
    let mut sample = [0; SAMPLE_BYTES];
    for (i, piece) in sample.chunks_exact_mut(PIECE).enumerate() {
        let at = i * (raw.len() / SAMPLE_PIECES);
        piece.copy_from_slice(&raw[at..at + PIECE]);
    }
    let saved_by_chunk = BLOCK_BYTES as usize;
    packer.run(&sample).is_some_and(|packed| packed.len() + saved_by_chunk * SAMPLE_BYTES / raw.len() <= SAMPLE_BYTES)
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
            let sealed = seal(0, &raw, compression, &Outlook::default());
            prop_assert!(lz4 || sealed.part.codec == Codec::Raw);
            prop_assert_eq!(open(&sealed.part, &sealed.payload).expect("whole"), raw);
        }

        #[test]
        fn any_flipped_bit_is_noticed(raw in contents(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let sealed = seal(0, &raw, Compression::Lz4, &Outlook::default());
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
        let sealed = seal(0, &noise(), Compression::Lz4, &Outlook::default());
        assert_eq!((sealed.part.codec, sealed.part.stored_len as usize), (Codec::Raw, CHUNK));
        let zeros = seal(0, &Bytes::from(vec![0; CHUNK]), Compression::Lz4, &Outlook::default());
        assert!(zeros.part.codec == Codec::Lz4 && zeros.part.stored_len < 1024);
    }

    #[test]
    fn a_file_of_noise_that_becomes_compressible_is_soon_compressed_again() {
        let outlook = Outlook::default();
        let sealed = |raw: &Bytes| seal(0, raw, Compression::Lz4, &outlook).part.codec;
        for _ in 0..100 {
            assert_eq!(sealed(&noise()), Codec::Raw);
        }
        assert!(outlook.doubtful());
        assert_eq!(sealed(&vec![7; CHUNK].into()), Codec::Lz4, "its sample shows it at once");

        // Noise wherever samples are taken from, zeros elsewhere.
        let mut hidden = noise().to_vec();
        for piece in hidden.chunks_exact_mut(CHUNK / SAMPLE_PIECES) {
            piece[SAMPLE_BYTES / SAMPLE_PIECES..].fill(0);
        }
        let hidden = Bytes::from(hidden);
        for _ in 0..100 {
            sealed(&noise());
        }
        let missed = (0..100).take_while(|_| sealed(&hidden) == Codec::Raw).count();
        assert!(missed < PROBE_EVERY as usize, "{missed} chunks in a row were taken for noise");
        assert_eq!(sealed(&hidden), Codec::Lz4, "and from then on none is");
    }
}
