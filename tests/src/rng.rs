//! Seeded randomness: every random test prints its seed, and `SATEEN_TEST_SEED` repeats it.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Generator for a test named `test`, seeded from `SATEEN_TEST_SEED` or anew. Prints the seed.
pub fn seeded(test: &str) -> StdRng {
    let seed = match std::env::var("SATEEN_TEST_SEED") {
        Ok(text) => text.parse().unwrap_or_else(|e| panic!("SATEEN_TEST_SEED={text:?} is not a number: {e}")),
        Err(_) => rand::rng().random::<u64>(),
    };
    eprintln!("{test}: SATEEN_TEST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// `len` bytes that do not compress.
pub fn noise(rng: &mut impl Rng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes[..]);
    bytes
}

/// `len` bytes that depend on `tag` and the position, so that swapped or shifted bytes differ. They compress a little.
pub fn pattern(tag: u64, len: usize) -> Vec<u8> {
    let mut state = tag.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&(state & 0x0f0f_ffff_0f0f_ffff).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
