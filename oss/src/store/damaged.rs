//! Chunks of a store that could not be read since it was opened, whoever noticed: a client's read, a check, the scrub.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use sateen_types::{Finding, FindingKind, FsId, Repair};

use super::keys::ChunkKey;

/// Chunks that are remembered by name; more are only counted.
const NAMED_MAX: usize = 1024;

/// What is known to be damaged.
#[derive(Default)]
pub struct Damaged {
    named: Mutex<BTreeMap<ChunkKey, String>>,
    unnamed: AtomicU64,
}

impl Damaged {
    /// `key` cannot be read.
    pub fn note(&self, key: ChunkKey, why: &str) {
        let mut named = self.named.lock();
        if named.len() < NAMED_MAX || named.contains_key(&key) {
            named.insert(key, why.to_owned());
        } else {
            self.unnamed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// `key` was read: it has been written again, or the disk has come to its senses.
    pub fn forget(&self, key: ChunkKey) {
        self.named.lock().remove(&key);
    }

    /// How many there are. One that is not remembered by name may be counted each time it is met.
    pub fn count(&self) -> u64 {
        self.named.lock().len() as u64 + self.unnamed.load(Ordering::Relaxed)
    }

    /// The first `max` of them.
    pub fn findings(&self, fs: FsId, max: usize) -> Vec<Finding> {
        let named = self.named.lock();
        let finding = |(key, why): (&ChunkKey, &String)| {
            Finding::new(FindingKind::Data, Repair::Impossible, why).of(&key.object.object(fs)).chunk(key.number)
        };
        named.iter().take(max).map(finding).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::ObjectKey;
    use super::*;

    #[test]
    fn the_list_is_bounded_and_what_is_read_again_leaves_it() {
        let damaged = Damaged::default();
        let object = ObjectKey::from_bytes(&[1; 24]).expect("24 bytes");
        for number in 0..NAMED_MAX as u64 + 5 {
            damaged.note(object.chunk(number), "why");
            damaged.note(object.chunk(0), "again");
        }
        assert_eq!(damaged.count(), NAMED_MAX as u64 + 5);
        assert_eq!(damaged.findings(FsId(1), 10).len(), 10);
        damaged.forget(object.chunk(0));
        assert_eq!(damaged.findings(FsId(1), 1)[0].chunk, Some(1));
    }
}
