//! The bytes that are written, and the proof that what is read is the same.
//!
//! A file is a sequence of 1 MiB blocks; which of a few distinct blocks stands at which place is a function of the
//! block's number. So any range of any file can be checked without having been stored twice, misplaced blocks differ,
//! and producing data costs the timed part nothing.

use anyhow::ensure;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Bytes of one block; also the usual size of one read or write.
pub const BLOCK: usize = 1 << 20;
/// Distinct blocks of one kind. More than fit into a core's caches, few enough to generate quickly.
const DISTINCT: usize = 64;
/// Distance between the words compared by [`Blocks::check_pages`].
const PAGE: usize = 4096;

/// What the bytes are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Incompressible.
    Random,
    /// LZ4 halves it.
    Half,
}

impl Kind {
    /// As in the names of cases.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Random => "random",
            Kind::Half => "half",
        }
    }
}

/// Endless data of one kind.
#[derive(Debug)]
pub struct Blocks {
    distinct: Vec<Vec<u8>>,
}

impl Blocks {
    /// The same for the same kind, on every machine.
    pub fn generate(kind: Kind) -> Blocks {
        let block = |i| {
            let mut rng = StdRng::seed_from_u64(i as u64);
            match kind {
                Kind::Random => {
                    let mut block = vec![0; BLOCK];
                    rng.fill(&mut block[..]);
                    block
                }
                Kind::Half => half_compressible(&mut rng),
            }
        };
        Blocks { distinct: (0..DISTINCT).map(block).collect() }
    }

    /// Block number `index` of every file.
    pub fn block(&self, index: u64) -> &[u8] {
        &self.distinct[(mixed(index) % DISTINCT as u64) as usize]
    }

    /// Bytes `[offset, offset + len)` of every file; the range must lie in one block.
    pub fn range(&self, offset: u64, len: usize) -> &[u8] {
        let start = (offset % BLOCK as u64) as usize;
        &self.block(offset / BLOCK as u64)[start..start + len]
    }

    /// Checks every byte of `bytes`, read at `offset`.
    pub fn check(&self, offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
        self.for_blocks(offset, bytes, |at, got, expected| {
            ensure!(got == expected, "wrong data between offsets {at} and {}", at + got.len() as u64);
            Ok(())
        })
    }

    /// Checks eight bytes of every page of `bytes`, read at `offset`: cheap enough for the timed part. The whole is
    /// checked outside it.
    pub fn check_pages(&self, offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
        self.for_blocks(offset, bytes, |at, got, expected| {
            for start in (0..got.len()).step_by(PAGE) {
                let end = (start + 8).min(got.len());
                ensure!(got[start..end] == expected[start..end], "wrong data at offset {}", at + start as u64);
            }
            Ok(())
        })
    }

    /// Calls `f(offset, got, expected)` for each piece of `bytes` that lies in one block.
    fn for_blocks(
        &self,
        offset: u64,
        bytes: &[u8],
        f: impl Fn(u64, &[u8], &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let len = (BLOCK - (at % BLOCK as u64) as usize).min(bytes.len() - done);
            f(at, &bytes[done..done + len], self.range(at, len))?;
            done += len;
        }
        Ok(())
    }
}

/// Random runs and repetitions of what stands not far before, in short alternation, as in real binary data.
fn half_compressible(rng: &mut StdRng) -> Vec<u8> {
    const LITERAL: std::ops::RangeInclusive<usize> = 8..=40;
    const REPEAT: std::ops::RangeInclusive<usize> = 12..=64;
    const DISTANCE_MAX: usize = 16 << 10;
    let mut block = Vec::with_capacity(BLOCK + REPEAT.end());
    while block.len() < BLOCK {
        for _ in 0..rng.random_range(LITERAL) {
            block.push(rng.random());
        }
        let len = rng.random_range(REPEAT).min(block.len());
        let distance = rng.random_range(len..=block.len().min(DISTANCE_MAX).max(len));
        let from = block.len() - distance;
        block.extend_from_within(from..from + len);
    }
    block.truncate(BLOCK);
    block
}

/// A well-mixed function of `x` (splitmix64).
pub fn mixed(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// LZ4 ratio over chunks as Sateen stores them.
    fn ratio(blocks: &Blocks) -> f64 {
        let chunks = blocks.distinct.iter().take(8).flat_map(|b| b.chunks(128 << 10));
        let (raw, stored) = chunks
            .fold((0, 0), |(raw, stored), chunk| (raw + chunk.len(), stored + lz4_flex::block::compress(chunk).len()));
        raw as f64 / stored as f64
    }

    #[test]
    fn half_compressible_data_has_an_lz4_ratio_of_about_two() {
        let ratio = ratio(&Blocks::generate(Kind::Half));
        assert!((1.8..=2.3).contains(&ratio), "{ratio}");
    }

    #[test]
    fn random_data_does_not_compress() {
        let ratio = ratio(&Blocks::generate(Kind::Random));
        assert!(ratio <= 1.0, "{ratio}");
    }

    #[test]
    fn data_is_the_same_every_time_and_its_blocks_differ() {
        let (a, b) = (Blocks::generate(Kind::Half), Blocks::generate(Kind::Half));
        assert!((0..100).all(|i| a.block(i) == b.block(i)));
        let used: std::collections::HashSet<&[u8]> = (0..1000).map(|i| a.block(i)).collect();
        assert_eq!(used.len(), DISTINCT);
    }

    #[test]
    fn the_full_check_sees_any_wrong_byte_and_the_page_check_any_misplaced_page() {
        let blocks = Blocks::generate(Kind::Random);
        let offset = BLOCK as u64 - 4096;
        let mut bytes = [blocks.range(offset, 4096), blocks.range(BLOCK as u64, 8192)].concat();
        blocks.check(offset, &bytes).expect("right bytes");
        blocks.check_pages(offset, &bytes).expect("right bytes");
        bytes[5000] ^= 1;
        assert!(blocks.check(offset, &bytes).is_err());
        bytes[5000] ^= 1;
        bytes.copy_within(0..4096, 8192);
        assert!(blocks.check_pages(offset, &bytes).is_err());
        assert!(blocks.check(offset + 4096, &bytes[..4096]).is_err());
    }
}
