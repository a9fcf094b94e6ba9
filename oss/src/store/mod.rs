//! The chunk store: the objects of one file system on one OST.
//!
//! For: keeping bytes. Not for: names, users, whole files, the network. All calls block; the callers above run them on
//! threads meant for it.
//!
//! # How it works
//!
//! An object is a row of chunks (64 or 128 KiB of its logical space). Each chunk is stored as one extent of a segment
//! file, compressed or not; the [`index`] says where. Nothing is ever overwritten in place: a change writes a new
//! extent and then re-points the index in one batch.
//!
//! # Invariants
//!
//! - **An extent is written once.** Segments are appended to by one incarnation and punched, never reused.
//! - **The index is changed only under the object's lock** ([`Store::lock`]), through [`Store::apply`].
//! - **An extent the index refers to is never punched**, nor one that recovery may fall back to ([`pending`]).
//! - **Data before index, index before reply**: what was answered survives `kill -9`, because both the segment's bytes
//!   and the index's log are with the kernel by then.
//! - **Durable is only what [`Store::commit`] covered**: segments synced, then the rows of `pending` removed, then the
//!   log synced. After a power cut recovery checks every chunk that still has a row and falls back where it must.
//! - **A failed sync is final**: the store refuses changes until it is opened again, and never syncs a second time.

pub mod blocks;
pub mod capacity;
pub mod codec;
pub mod commit;
#[cfg(test)]
mod crashing;
pub mod damaged;
pub mod disk;
#[cfg(test)]
mod faulty;
pub mod fence;
pub mod fsck;
pub mod index;
pub mod journal;
pub mod keys;
pub mod mark;
mod orphans;
pub mod pending;
pub mod read;
pub mod rebuild;
pub mod reclaim;
pub mod records;
pub mod recover;
pub mod reservation;
pub mod retire;
pub mod segments;
pub mod snapshot;
pub mod streams;
pub mod touched;
pub mod trim;
pub mod verify;
pub mod write;

#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};
use sateen_types::limits::FILE_SIZE_MAX;
use sateen_types::{FsCode, FsError, FsId, FsResult, ObjectId, Verifier};

use blocks::KnownBlocks;
use capacity::Capacity;
use damaged::Damaged;
use disk::{Disk, RealDisk};
use index::{Index, IndexCache};
use keys::{ChunkKey, ObjectKey, WHOLE_OBJECT};
use pending::Pending;
use records::{ChunkRecord, ObjectRecord, SegmentExtent};
use reservation::Reservation;
use segments::{SegmentOwner, Segments, io_error};
use touched::Touched;

/// Locks that objects share by hash. Far more than the threads of a store, so that two objects rarely meet.
const LOCKS: usize = 1024;
/// Chunks that may be changed and not committed; the writer that passes it commits first. Bounds memory (about 200
/// bytes each) and the time recovery spends checking them (8192 chunks of 128 KiB: 1 GiB).
const PENDING_CHUNKS_MAX: usize = 8192;

/// What a store is made of and whose it is.
#[derive(Clone)]
pub struct StoreOptions {
    /// OST and file system.
    pub owner: SegmentOwner,
    /// Space of the OST.
    pub capacity: Arc<Capacity>,
    /// Block cache of the index.
    pub cache: IndexCache,
    /// Bytes after which a new segment is begun.
    pub segment_bytes: u64,
    /// This incarnation, as clients see it.
    pub verifier: Verifier,
    /// Who may not change anything any more.
    pub ended: Arc<fence::Ended>,
}

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The incarnation that has the change in its memory.
    pub verifier: Verifier,
    /// By how much the object's disk space changed, in bytes.
    pub allocated_delta: i64,
}

/// Size and space of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObjectAttr {
    /// One past the last byte ever written and not truncated.
    pub size: u64,
    /// Disk space, in bytes.
    pub allocated: u64,
}

/// What a store did since it was opened.
#[derive(Debug, Default)]
pub struct Counts {
    /// Stored bytes handed to readers.
    pub read_bytes: AtomicU64,
    /// Stored bytes taken from writers.
    pub written_bytes: AtomicU64,
    /// Commits that made something durable.
    pub commits: AtomicU64,
}

/// The objects of one file system on one OST.
pub struct Store {
    index: Arc<Index>,
    segments: Segments,
    owner: SegmentOwner,
    verifier: Verifier,
    locks: Box<[Mutex<()>]>,
    hasher: RandomState,
    /// Held for reading while a batch and its entries in `pending` are made, for writing while a commit takes or ends
    /// its epoch: an entry and its row are never on different sides of a commit.
    gate: RwLock<()>,
    pending: Mutex<Pending>,
    /// What the next commit writes into the journal.
    touched: Mutex<Touched>,
    /// Number of the last commit in the journal.
    journaled: AtomicU64,
    /// Something was changed since the last commit began.
    dirty: AtomicBool,
    failed: AtomicBool,
    commits: commit::Queue,
    damaged: Damaged,
    counts: Counts,
    known_blocks: KnownBlocks,
    fences: fence::Fences,
}

/// The right to change one object.
pub struct Locked<'a> {
    key: ObjectKey,
    _guard: MutexGuard<'a, ()>,
}

/// What becomes of an object's size.
#[derive(Clone, Copy)]
enum Resize {
    /// It grows to this, if it is smaller.
    AtLeast(u64),
    /// It becomes this.
    Exactly(u64),
    /// It has none: its record is lost, see [`orphans`].
    Orphan,
}

impl Store {
    /// Opens or creates the store in `dir`, recovering what an earlier incarnation left.
    pub fn open(dir: &Path, options: StoreOptions) -> FsResult<Store> {
        let segments = dir.join("segments");
        let disk = RealDisk::open(&segments).map_err(|e| io_error(&format!("create {}", segments.display()), &e))?;
        Store::open_on(dir, Arc::new(disk), options)
    }

    /// [`Store::open`] with the segments on `disk`.
    pub fn open_on(dir: &Path, disk: Arc<dyn Disk>, options: StoreOptions) -> FsResult<Store> {
        let StoreOptions { owner, capacity, cache, segment_bytes, verifier, ended } = options;
        let (place, lost) = (dir.join("index"), |e| io_error("list the segments", &e));
        // The index comes first: segments without one are data whose index is lost, and a new one would delete them.
        if !place.join("CURRENT").exists() && !disk.list().map_err(lost)?.is_empty() {
            return Err(FsError::new(
                FsCode::Corrupt,
                format!("{} is missing, its segments are there", place.display()),
            )
            .with_hint("make it anew: sateen fsck --rebuild-index --dir DIR"));
        }
        let index = Arc::new(Index::open(&place, &cache)?);
        let segments = Segments::open(disk, index.clone(), capacity, owner, segment_bytes)?;
        let store = Store {
            index,
            segments,
            owner,
            verifier,
            locks: (0..LOCKS).map(|_| Mutex::new(())).collect(),
            hasher: RandomState::new(),
            gate: RwLock::new(()),
            pending: Mutex::default(),
            touched: Mutex::default(),
            journaled: AtomicU64::new(0),
            dirty: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            commits: commit::Queue::default(),
            damaged: Damaged::default(),
            counts: Counts::default(),
            known_blocks: KnownBlocks::default(),
            fences: fence::Fences::new(ended),
        };
        store.journaled.store(store.segments.punch_lost()?, Ordering::Release);
        store.recover()?;
        store.segments.sweep()?;
        store.write_whole_journal()?;
        store.retire_at_start()?;
        Ok(store)
    }

    /// Whether the store has failed and refuses changes.
    pub fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// What could not be read since it was opened.
    pub fn damaged(&self) -> &Damaged {
        &self.damaged
    }

    /// What it did since it was opened.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How many objects there are.
    pub fn objects(&self) -> FsResult<u64> {
        self.index.objects()
    }

    /// At most `max` objects from `from` on, in order.
    pub fn list(&self, from: Option<&ObjectId>, max: usize) -> FsResult<Vec<ObjectId>> {
        let keys = self.index.object_keys(from.map(ObjectKey::of), max)?;
        Ok(keys.iter().map(|key| key.object(self.owner.fs)).collect())
    }

    /// The file system it belongs to.
    pub fn file_system(&self) -> FsId {
        self.owner.fs
    }

    /// Size and space of one object; zeros if there is none.
    pub fn attr(&self, object: &ObjectId) -> FsResult<ObjectAttr> {
        let record = self.object_or_nothing(object)?;
        Ok(record.map_or(ObjectAttr::default(), |r| ObjectAttr { size: r.size, allocated: r.allocated }))
    }

    /// From now on changes are refused. The first cause is logged; the answer says what to do.
    fn fail(&self, cause: &FsError) -> FsError {
        if !self.failed.swap(true, Ordering::AcqRel) {
            tracing::error!(ost = %self.owner.ost, fs = %self.owner.fs, %cause, "the store has failed and refuses changes");
        }
        self.refusal()
    }

    fn refusal(&self) -> FsError {
        FsError::new(FsCode::Io, format!("the store of file system {} on this OST has failed", self.owner.fs))
            .with_hint("see the log of its OSS for the cause; repair the disk and restart the OSS")
    }

    /// Errors if the store has failed.
    fn check_healthy(&self) -> FsResult<()> {
        if self.is_failed() { Err(self.refusal()) } else { Ok(()) }
    }

    /// Commits if so much is uncommitted that memory or recovery would suffer. Called without locks, before a change.
    fn make_room(&self) -> FsResult<()> {
        let full = self.pending.lock().chunks() >= PENDING_CHUNKS_MAX || self.segments.punches() >= PENDING_CHUNKS_MAX;
        if full { self.commit().map(|_| ()) } else { Ok(()) }
    }

    fn lock(&self, object: &ObjectId) -> Locked<'_> {
        let key = ObjectKey::of(object);
        let slot = self.hasher.hash_one(key) as usize % self.locks.len();
        Locked { key, _guard: self.locks[slot].lock() }
    }

    /// The object's record, or what it will be after its first write; a chunk size of its own is refused.
    fn object_or_new(&self, locked: &Locked<'_>, chunk_log2: u8) -> FsResult<(ObjectRecord, bool)> {
        match self.locked_object(locked)? {
            None => Ok((ObjectRecord::empty(chunk_log2, self.segments.newest()), true)),
            Some(record) => self.check_chunk_size(locked.key, &record, chunk_log2).map(|()| (record, false)),
        }
    }

    fn check_chunk_size(&self, key: ObjectKey, record: &ObjectRecord, chunk_log2: u8) -> FsResult<()> {
        if record.chunk_log2 == chunk_log2 {
            return Ok(());
        }
        Err(FsError::new(
            FsCode::Invalid,
            format!(
                "chunk_log2: {chunk_log2} for {}, which was written with {}",
                key.object(self.owner.fs),
                record.chunk_log2
            ),
        ))
    }

    /// Points `changes` of the locked object to their new records (`None`: a hole), in one batch with everything that
    /// follows: size, space, counters, rows of `pending`. The only way a chunk changes.
    ///
    /// Order: 1. the caller has written the new extents (`reservation`); 2. old records are read, which may fail;
    /// 3. under the gate the table of pending changes and the batch are made, which cannot fail; 4. the batch is
    /// written, or the store fails; 5. extents that are dead already are given back.
    fn apply(
        &self,
        locked: &Locked<'_>,
        chunk_log2: u8,
        changes: &[(u64, Option<ChunkRecord>)],
        resize: Resize,
        reservation: Option<Reservation<'_>>,
    ) -> FsResult<Changed> {
        self.check_healthy()?;
        let (before, new) = match resize {
            Resize::Orphan => (ObjectRecord::empty(chunk_log2, self.segments.newest()), false),
            Resize::AtLeast(_) | Resize::Exactly(_) => self.object_or_new(locked, chunk_log2)?,
        };
        let mut after = before;
        after.change += 1;
        after.size = match resize {
            Resize::AtLeast(size) => before.size.max(size),
            Resize::Exactly(size) => size,
            Resize::Orphan => 0,
        };
        let mut allocated_delta = 0;
        debug_assert!(after.size <= FILE_SIZE_MAX, "{} is checked at the edge", after.size);
        let mut steps = Vec::with_capacity(changes.len());
        for &(number, record) in changes {
            let old = self.index.chunk(locked.key.chunk(number))?;
            let record = record.map(|r| ChunkRecord { generation: old.map_or(0, |o| o.generation) + 1, ..r });
            let space = |r: Option<ChunkRecord>| r.map_or(0, |r| r.extent().len);
            after.allocated = (after.allocated + space(record)).saturating_sub(space(old));
            allocated_delta += space(record) as i64 - space(old) as i64;
            after.chunks = (after.chunks + u64::from(record.is_some())).saturating_sub(u64::from(old.is_some()));
            steps.push((locked.key.chunk(number), old, record));
        }
        let mut dead: Vec<SegmentExtent> = Vec::new();
        {
            let _gate = self.gate.read();
            let mut batch = self.index.batch();
            if let Some(reservation) = &reservation {
                reservation.claim(&mut batch);
            }
            let mut pending = self.pending.lock();
            let mut touched = self.touched.lock();
            let changed = |(_, old, record): &&(ChunkKey, Option<ChunkRecord>, Option<ChunkRecord>)| {
                old.is_some() || record.is_some()
            };
            if !steps.iter().any(|step| changed(&step)) {
                let itself = locked.key.chunk(WHOLE_OBJECT);
                if let Some(row) = pending.change(itself, None, None, before.size).row {
                    batch.set_pending(itself, Some(&row));
                }
            }
            for (key, old, record) in steps.iter().filter(changed) {
                touched.chunk(*key, *record);
                let consequence = pending.change(*key, old.as_ref(), record.as_ref(), before.size);
                if let Some(row) = consequence.row {
                    batch.set_pending(*key, Some(&row));
                }
                if let Some(extent) = consequence.dead {
                    batch.release(extent);
                    dead.push(extent);
                }
                batch.set_chunk(*key, record.as_ref());
                let extent = record.map(|r| r.extent());
                if let Some(extent) = extent.filter(|_| extent != old.map(|o| o.extent())) {
                    batch.occupy(extent);
                    self.counts.written_bytes.fetch_add(extent.len, Ordering::Relaxed);
                }
            }
            if !matches!(resize, Resize::Orphan) {
                if let Some(born) = touched.gone_since(locked.key) {
                    after.born = after.born.min(born);
                }
                touched.object(locked.key, after);
                batch.set_object(locked.key, Some(&after));
                batch.add_objects(i64::from(new));
            }
            drop((pending, touched));
            self.dirty.store(true, Ordering::Release);
            let written = self.index.write(batch);
            // Even after an error: the log may hold the batch, and then the next start needs the extents.
            if let Some(reservation) = reservation {
                reservation.keep();
            }
            written.map_err(|e| self.fail(&e))?;
        }
        self.segments.reclaim(&dead).map_err(|e| self.fail(&e))?;
        Ok(Changed { verifier: self.verifier, allocated_delta })
    }
}
