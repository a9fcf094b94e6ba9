//! Checksums of the blocks of raw chunks, in memory, so that a small read need not read and check a whole chunk.
//!
//! A chunk has one checksum for all its bytes. Whoever reads four KiB of it would read 128 to be sure of them. The first
//! such reader does; what he proved is remembered block by block, and the next ones read and check only the blocks they
//! want. Bytes are never handed out unchecked: a block that does not match is read the long way, which tells damage from
//! an extent that was replaced meanwhile. Lost at a restart, and bounded; nothing depends on it.

use std::sync::Arc;

use quick_cache::sync::Cache;
use sateen_types::Codec;
use sateen_types::limits::BLOCK_BYTES;

use super::records::{ChunkRecord, SegmentPlace};

/// Reads of more bytes go the long way: it costs them little.
const SMALL_BYTES: u32 = 32 << 10;
/// Smaller chunks are read whole.
const CHUNK_BYTES_MIN: u32 = 2 * SMALL_BYTES;
/// Chunks of a store that are known: 16 GiB of data if each has 128 KiB. About 200 bytes of memory each.
const KNOWN_MAX: usize = 131_072;

/// What is known of the chunks of one store.
pub struct KnownBlocks {
    chunks: Cache<SegmentPlace, Arc<Sums>>,
}

struct Sums {
    /// Of the whole: a record with another is another chunk.
    stored_crc: u32,
    blocks: Box<[u32]>,
}

/// Blocks of a chunk that hold the bytes somebody wants.
pub struct Window {
    /// Offset in the segment.
    pub offset: u64,
    /// Bytes, whole blocks but for the chunk's last.
    pub len: usize,
    first_block: usize,
    sums: Arc<Sums>,
}

impl Default for KnownBlocks {
    fn default() -> KnownBlocks {
        KnownBlocks { chunks: Cache::new(KNOWN_MAX) }
    }
}

impl KnownBlocks {
    /// Remembers the blocks of a chunk of which somebody wanted `length` bytes. `stored` matches `record`'s checksum.
    pub fn learn(&self, record: &ChunkRecord, length: u32, stored: &[u8]) {
        if is_small(record, length) {
            let blocks = stored.chunks(BLOCK_BYTES as usize).map(crc32c::crc32c).collect();
            self.chunks.insert(place(record), Arc::new(Sums { stored_crc: record.stored_crc, blocks }));
        }
    }

    /// Where `length` bytes from byte `from` of a chunk on are, if its blocks are known.
    pub fn window(&self, record: &ChunkRecord, from: u32, length: u32) -> Option<Window> {
        if !is_small(record, length) || from.checked_add(length)? > record.stored_len {
            return None;
        }
        let sums = self.chunks.get(&place(record)).filter(|sums| sums.stored_crc == record.stored_crc)?;
        let begin = from / BLOCK_BYTES * BLOCK_BYTES;
        let end = (from + length).next_multiple_of(BLOCK_BYTES).min(record.stored_len);
        let first_block = (begin / BLOCK_BYTES) as usize;
        Some(Window { offset: record.offset + u64::from(begin), len: (end - begin) as usize, first_block, sums })
    }
}

impl Window {
    /// Whether `bytes`, read from there, are what was proved.
    pub fn holds(&self, bytes: &[u8]) -> bool {
        let sums = self.sums.blocks.iter().skip(self.first_block);
        bytes.len() == self.len
            && bytes.chunks(BLOCK_BYTES as usize).zip(sums).all(|(block, crc)| crc32c::crc32c(block) == *crc)
    }
}

fn is_small(record: &ChunkRecord, length: u32) -> bool {
    record.codec == Codec::Raw && length <= SMALL_BYTES && record.stored_len >= CHUNK_BYTES_MIN
}

fn place(record: &ChunkRecord) -> SegmentPlace {
    record.extent().place()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::SegmentId;
    use proptest::prelude::*;

    const LEN: u32 = 100_001;

    fn record(stored: &[u8], offset: u64) -> ChunkRecord {
        let (raw_len, crc) = (stored.len() as u32, crc32c::crc32c(stored));
        ChunkRecord {
            codec: Codec::Raw,
            raw_len,
            stored_len: raw_len,
            visible_len: raw_len,
            segment: SegmentId(1),
            offset,
            generation: 1,
            raw_crc: crc,
            stored_crc: crc,
        }
    }

    proptest! {
        #[test]
        fn a_window_holds_what_is_wanted_and_any_change_in_it_is_noticed(
            from in 0..LEN, length in 1..SMALL_BYTES, bit in any::<prop::sample::Index>(),
        ) {
            let length = length.min(LEN - from);
            let stored: Vec<u8> = (0..LEN).map(|i| (i / 7) as u8).collect();
            let (known, record) = (KnownBlocks::default(), record(&stored, 8192));
            prop_assert!(known.window(&record, from, length).is_none(), "nothing is known yet");
            known.learn(&record, length, &stored);
            let window = known.window(&record, from, length).expect("known");
            let begin = (window.offset - record.offset) as usize;
            prop_assert!(begin <= from as usize && (from + length) as usize <= begin + window.len);
            prop_assert!(window.len <= (length + 2 * BLOCK_BYTES) as usize);
            let mut bytes = stored[begin..begin + window.len].to_vec();
            prop_assert!(window.holds(&bytes) && !window.holds(&bytes[1..]));
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!window.holds(&bytes));
        }
    }

    #[test]
    fn only_small_reads_of_large_raw_chunks_that_are_the_same_are_known() {
        let stored = vec![1; LEN as usize];
        let (known, record) = (KnownBlocks::default(), record(&stored, 4096));
        known.learn(&record, 4096, &stored);
        assert!(known.window(&record, 0, 4096).is_some());
        assert!(known.window(&record, LEN - 10, 11).is_none(), "beyond its end");
        assert!(known.window(&record, u32::MAX, 2).is_none());
        assert!(known.window(&record, 0, SMALL_BYTES + 1).is_none());
        assert!(known.window(&ChunkRecord { offset: 8192, ..record }, 0, 1).is_none());
        assert!(known.window(&ChunkRecord { stored_crc: 1, ..record }, 0, 1).is_none());
        let lz4 = ChunkRecord { codec: Codec::Lz4, ..record };
        known.learn(&lz4, 10, &stored);
        assert!(known.window(&lz4, 0, 10).is_none());
    }
}
