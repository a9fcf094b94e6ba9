//! Clean chunks of all files, bounded, and what is remembered of files that are not open.
//!
//! A chunk is filed under its file's *epoch*. When a file may have changed elsewhere it gets a new epoch, and what was
//! cached before (or arrives late for the old epoch) can never be read again; it ages out.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quick_cache::sync::{Cache, GuardResult, PlaceholderGuard};
use sateen_types::{Attr, ComponentId, Fid, Layout, Timestamp};

/// Names one cached chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ChunkKey {
    pub fid: Fid,
    pub epoch: u64,
    /// File offset of the chunk.
    pub chunk: u64,
}

/// State of a file's data at the MDS: equal versions, equal data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub change: u64,
    pub mtime: Timestamp,
    pub size: u64,
    /// What the data is stored in: a file that is released and loaded again has other components, and perhaps another object's bytes.
    pub stored_in: Option<ComponentId>,
}

impl Version {
    /// The version attributes stand for.
    pub fn of(attr: &Attr) -> Version {
        Version { change: attr.change, mtime: attr.mtime, size: attr.size, stored_in: None }
    }

    /// The same, of data in a layout.
    pub fn stored(attr: &Attr, layout: &Layout) -> Version {
        Version { stored_in: layout.components.first().map(|c| c.id), ..Version::of(attr) }
    }

    /// Whether data may differ: a change of the mode alone shows in neither.
    pub fn same_data(&self, other: &Version) -> bool {
        (self.mtime, self.size, self.stored_in) == (other.mtime, other.size, other.stored_in)
    }
}

/// Weight of an entry beyond its bytes: key, hash slot, allocation.
const ENTRY_OVERHEAD_BYTES: u64 = 256;
/// Files that are not open whose version is remembered. Each takes about 100 bytes.
const KNOWN_FILES_MAX: usize = 65_536;
/// What an average chunk is taken to weigh when the hash table is sized.
const CHUNK_BYTES_ESTIMATE: u64 = 64 << 10;

/// How much a chunk counts.
#[derive(Clone)]
pub(crate) struct Weight;

impl quick_cache::Weighter<ChunkKey, Bytes> for Weight {
    fn weight(&self, _: &ChunkKey, chunk: &Bytes) -> u64 {
        chunk.len() as u64 + ENTRY_OVERHEAD_BYTES
    }
}

/// The right and duty to load one chunk. Others who want it wait until it is inserted or dropped.
pub(crate) type Loader<'a> = PlaceholderGuard<
    'a,
    ChunkKey,
    Bytes,
    Weight,
    quick_cache::DefaultHashBuilder,
    quick_cache::sync::DefaultLifecycle<ChunkKey, Bytes>,
>;

/// What looking for a chunk finds.
pub(crate) enum Found<'a> {
    /// Its bytes up to some point; zeros follow.
    Chunk(Bytes),
    /// Nobody has it: load it.
    Absent(Loader<'a>),
    /// Somebody is loading it.
    Loading,
}

/// See the module.
pub(crate) struct ChunkCache {
    chunks: Cache<ChunkKey, Bytes, Weight>,
    known: Cache<Fid, (Version, u64)>,
    next_epoch: AtomicU64,
}

impl std::fmt::Debug for ChunkCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkCache").field("bytes", &self.chunks.weight()).finish_non_exhaustive()
    }
}

impl ChunkCache {
    /// At most `bytes` of chunks.
    pub fn new(bytes: u64) -> ChunkCache {
        let items = (bytes / CHUNK_BYTES_ESTIMATE).max(1) as usize;
        ChunkCache {
            chunks: Cache::with_weighter(items, bytes, Weight),
            known: Cache::new(KNOWN_FILES_MAX),
            next_epoch: AtomicU64::new(1),
        }
    }

    /// An epoch nobody has had.
    pub fn new_epoch(&self) -> u64 {
        self.next_epoch.fetch_add(1, Ordering::Relaxed)
    }

    /// Looks for a chunk without waiting.
    pub fn find(&self, key: &ChunkKey) -> Found<'_> {
        match self.chunks.get_value_or_guard(key, Some(Duration::ZERO)) {
            GuardResult::Value(chunk) => Found::Chunk(chunk),
            GuardResult::Guard(loader) => Found::Absent(loader),
            GuardResult::Timeout => Found::Loading,
        }
    }

    /// Looks for a chunk; waits while somebody else loads it.
    pub async fn wait(&self, key: &ChunkKey) -> Result<Bytes, Loader<'_>> {
        self.chunks.get_value_or_guard_async(key).await
    }

    /// The chunk, if it is there.
    pub fn get(&self, key: &ChunkKey) -> Option<Bytes> {
        self.chunks.get(key)
    }

    /// Whether the chunk is there; does not count as a use.
    pub fn contains(&self, key: &ChunkKey) -> bool {
        self.chunks.peek(key).is_some()
    }

    /// Puts a chunk in, replacing an older one.
    pub fn insert(&self, key: ChunkKey, chunk: Bytes) {
        self.chunks.insert(key, chunk);
    }

    /// Takes a chunk out.
    pub fn remove(&self, key: &ChunkKey) {
        self.chunks.remove(key);
    }

    /// Takes out what is cached of `range` of a file, whole chunks only.
    pub fn remove_range(&self, fid: Fid, range: &Range<u64>) {
        self.chunks.retain(|key, chunk| {
            let inside = range.start <= key.chunk && key.chunk.saturating_add(chunk.len() as u64) <= range.end;
            key.fid != fid || !inside
        });
    }

    /// Remembers the version under which a file's chunks were cached, when its last user goes.
    pub fn remember(&self, fid: Fid, version: Version, epoch: u64) {
        self.known.insert(fid, (version, epoch));
    }

    /// Forgets a file's version: what is cached of it is not right.
    pub fn forget(&self, fid: Fid) {
        self.known.remove(&fid);
    }

    /// Version and epoch of a file that was used before.
    pub fn recall(&self, fid: Fid) -> Option<(Version, u64)> {
        self.known.get(&fid)
    }

    /// Bytes held.
    #[cfg(test)]
    pub fn bytes(&self) -> u64 {
        self.chunks.weight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(chunk: u64) -> ChunkKey {
        ChunkKey { fid: Fid::ROOT, epoch: 1, chunk }
    }

    #[test]
    fn the_bound_on_bytes_holds() {
        let cache = ChunkCache::new(4 << 20);
        for i in 0..500 {
            cache.insert(key(i), vec![0; 128 << 10].into());
            assert!(cache.bytes() <= 4 << 20);
        }
        assert!(cache.bytes() > 1 << 20, "and is used");
    }

    #[test]
    fn one_loads_and_the_others_are_told() {
        let cache = ChunkCache::new(4 << 20);
        let Found::Absent(loader) = cache.find(&key(1)) else { panic!("first") };
        assert!(matches!(cache.find(&key(1)), Found::Loading));
        loader.insert(Bytes::from_static(b"x")).expect("still wanted");
        assert!(matches!(cache.find(&key(1)), Found::Chunk(_)));
        let Found::Absent(loader) = cache.find(&key(2)) else { panic!("first") };
        drop(loader);
        assert!(matches!(cache.find(&key(2)), Found::Absent(_)), "a loader that gives up makes room for another");
    }
}
