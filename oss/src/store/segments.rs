//! The segment files: where new extents go, what is live, what is not synced, and how space comes back.
//!
//! Owner of all state about segments (one mutex). Extents are handed out once and never reused: a segment is written
//! front to back by one incarnation of the store and then only punched, until nothing in it is live and it is deleted.
//!
//! A segment file begins with one 4 KiB block that holds a sealed envelope (`SATSEGMT`, version 2): OST uuid 16, file
//! system 4, segment 8, journal key 16 (not in version 1). Extents follow, 4 KiB-aligned, without headers of their own,
//! and runs of the journal ([`super::journal`]): what lies where is in the index.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use sateen_runtime::envelope::Kind;
use sateen_types::limits::BLOCK_BYTES;
use sateen_types::{FsCode, FsError, FsId, FsResult, OstUuid};

use super::capacity::Capacity;
use super::disk::{Caching, Disk, SegmentFile, SegmentId, read_exact_at, write_all_at};
use super::index::Index;
use super::journal::{self, JournalKey, Run, RunHeader};
use super::records::{SegmentExtent, SegmentPlace};
use super::reservation::Reserved;
use super::streams::Streams;

/// Open segment files kept for readers, per store. A segment is 1 GiB, so this covers 256 GiB without reopening.
const HANDLES_MAX: usize = 256;
/// Where the first extent of a segment begins.
pub(super) const HEADER_BYTES: u64 = BLOCK_BYTES as u64;
/// Bytes of the envelope in the header block; in version 1 it was shorter.
pub(super) const ENVELOPE_BYTES: usize = ENVELOPE_BYTES_V1 + 16;
const ENVELOPE_BYTES_V1: usize = 24 + 28;

const SEGMENT_KIND: Kind = Kind { magic: b"SATSEGMT", version: 2, features: 0, what: "a segment header" };

/// Whose segments these are; written into each, and checked when it is opened.
#[derive(Clone, Copy, Debug)]
pub struct SegmentOwner {
    /// The OST.
    pub ost: OstUuid,
    /// The file system.
    pub fs: FsId,
}

impl SegmentOwner {
    /// How segment `id` of this owner begins; without a key as in version 1.
    pub(super) fn header(&self, id: SegmentId, key: Option<&JournalKey>) -> Vec<u8> {
        let mut body = self.identity(id);
        body.extend(key.into_iter().flatten());
        SEGMENT_KIND.seal(0, &body)
    }

    /// The key of the journal in segment `id`, which begins with `header`; `Some(None)` if it has no journal, `None` if
    /// this is not how a segment of ours begins.
    pub(super) fn journal_key(&self, id: SegmentId, header: &[u8; ENVELOPE_BYTES]) -> Option<Option<JournalKey>> {
        let envelopes = [&header[..], &header[..ENVELOPE_BYTES_V1]];
        let mut bodies = envelopes.into_iter().filter_map(|envelope| SEGMENT_KIND.open(envelope).ok());
        let key = bodies.find_map(|(_, body)| body.strip_prefix(&self.identity(id)[..]))?;
        Some(JournalKey::try_from(key).ok())
    }

    fn identity(&self, id: SegmentId) -> Vec<u8> {
        let mut body = Vec::with_capacity(28);
        body.extend_from_slice(&self.ost.0);
        body.extend_from_slice(&self.fs.0.to_be_bytes());
        body.extend_from_slice(&id.0.to_be_bytes());
        body
    }
}

/// Why stored bytes could not be read.
#[derive(Debug)]
pub enum ReadError {
    /// The segment is not there.
    Missing(SegmentId),
    /// The bytes are not there or not what they should be.
    Damaged(String),
    /// The disk failed.
    Io(io::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Missing(id) => write!(f, "segment {id} is missing"),
            ReadError::Damaged(why) => f.write_str(why),
            ReadError::Io(e) => write!(f, "the disk failed: {e}"),
        }
    }
}

/// The segments of one store.
pub struct Segments {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) index: Arc<Index>,
    pub(super) capacity: Arc<Capacity>,
    pub(super) owner: SegmentOwner,
    segment_bytes: u64,
    pub(super) state: Mutex<State>,
    pub(super) handles: Mutex<HashMap<SegmentId, Arc<dyn SegmentFile>>>,
    pub(super) reclaims: AtomicU64,
    streams: Streams,
    /// The settled place when the store was opened; nothing behind it was committed by an earlier incarnation.
    settled_before: Option<SegmentPlace>,
    /// The first segment that this incarnation may write.
    first: SegmentId,
}

pub(super) struct State {
    pub(super) active: Option<Active>,
    pub(super) next: SegmentId,
    /// Bytes of each segment that are reserved, indexed or waiting to be punched.
    pub(super) live: HashMap<SegmentId, u64>,
    /// Sealed segments without live bytes; they wait for [`super::retire`].
    pub(super) doomed: BTreeSet<SegmentId>,
    /// A dead extent could not be punched; until the next start no segment is deleted.
    pub(super) punch_failed: bool,
    pub(super) unsynced: BTreeMap<SegmentId, Arc<dyn SegmentFile>>,
    directory_unsynced: bool,
    /// Segments whose header may not be on disk yet: those that came since a commit took its list.
    pub(super) without_header: BTreeMap<SegmentId, Arc<dyn SegmentFile>>,
    /// What writers have and have not brought into the index yet.
    pub(super) reserved: BTreeMap<SegmentPlace, Reserved>,
    /// Extents that were punched, and whose rows in `frees` stay until that is durable.
    pub(super) punched: Vec<SegmentExtent>,
}

pub(super) struct Active {
    pub(super) id: SegmentId,
    file: Arc<dyn SegmentFile>,
    pub(super) end: u64,
    key: JournalKey,
    /// Where its last run of the journal begins; 0: none.
    last_run: u64,
}

/// What a commit has to sync.
pub struct Unsynced {
    files: Vec<Arc<dyn SegmentFile>>,
    directory: bool,
    punched: Vec<SegmentExtent>,
}

impl Segments {
    /// Takes over what is in `disk`; the rows of `index` say what is live.
    pub fn open(
        disk: Arc<dyn Disk>,
        index: Arc<Index>,
        capacity: Arc<Capacity>,
        owner: SegmentOwner,
        segment_bytes: u64,
    ) -> FsResult<Segments> {
        let files = disk.list().map_err(|e| FsError::new(FsCode::Io, format!("cannot list the segments: {e}")))?;
        let mut live = HashMap::new();
        for (id, bytes) in index.segments()? {
            let bytes = u64::try_from(bytes).map_err(|_| {
                FsError::new(FsCode::Corrupt, format!("the index says segment {id} has {bytes} live bytes"))
            })?;
            if bytes > 0 && files.binary_search(&id).is_err() {
                tracing::error!(fs = %owner.fs, segment = %id, bytes, "a segment with live data is missing");
            }
            capacity.adopt(bytes);
            live.insert(id, bytes);
        }
        let highest = files.iter().chain(live.keys()).max().map_or(0, |id| id.0);
        let next = SegmentId(index.next_segment()?.0.max(highest + 1));
        let state = State {
            active: None,
            next,
            live,
            doomed: BTreeSet::new(),
            punch_failed: false,
            unsynced: BTreeMap::new(),
            directory_unsynced: false,
            reserved: BTreeMap::new(),
            without_header: BTreeMap::new(),
            punched: Vec::new(),
        };
        Ok(Segments {
            settled_before: index.settled()?,
            first: next,
            disk,
            index,
            capacity,
            owner,
            segment_bytes,
            state: Mutex::new(state),
            handles: Mutex::default(),
            reclaims: AtomicU64::new(0),
            streams: Streams::default(),
        })
    }

    pub(super) fn place(&self, state: &mut State, len: u64) -> FsResult<(Arc<dyn SegmentFile>, SegmentExtent)> {
        let full = state.active.as_ref().is_none_or(|a| a.end > HEADER_BYTES && a.end + len > self.segment_bytes);
        if full {
            let fresh = self.create(state)?;
            let sealed = state.active.replace(fresh);
            if let Some(sealed) = sealed
                && state.live.get(&sealed.id).is_none_or(|&live| live == 0)
            {
                state.doomed.insert(sealed.id);
            }
        }
        let active = state.active.as_mut().expect("was created above");
        let extent = SegmentExtent { segment: active.id, offset: active.end, len };
        active.end += len;
        Ok((active.file.clone(), extent))
    }

    /// A new segment with its header. Its number is noted first, so that it is never used again.
    fn create(&self, state: &mut State) -> FsResult<Active> {
        let id = state.next;
        state.next = SegmentId(id.0 + 1);
        let mut batch = self.index.batch();
        batch.set_next_segment(state.next);
        self.index.write(batch)?;
        let failed = |e: io::Error| io_error(&format!("create segment {id}"), &e);
        let file = self.disk.create(id).map_err(failed)?;
        let key: JournalKey = rand::random();
        if let Err(e) = write_all_at(&*file, &self.owner.header(id, Some(&key)), 0) {
            // An empty file that nothing refers to; the next start removes it if this fails too.
            let _ = self.disk.delete(id);
            return Err(failed(e));
        }
        state.unsynced.insert(id, file.clone());
        state.without_header.insert(id, file.clone());
        state.directory_unsynced = true;
        self.remember(id, &file);
        Ok(Active { id, file, end: HEADER_BYTES, key, last_run: 0 })
    }

    /// [`open_segment`] of this store.
    pub(super) fn open_file(&self, id: SegmentId) -> Result<(Arc<dyn SegmentFile>, Option<JournalKey>), ReadError> {
        open_segment(&*self.disk, &self.owner, id)
    }

    /// The segment that is written, or will be next.
    pub fn newest(&self) -> SegmentId {
        let state = self.state.lock();
        state.active.as_ref().map_or(state.next, |active| active.id)
    }

    /// Appends the journal of commit `sequence` to the segment that is written. Part of the next [`Unsynced`].
    ///
    /// Before a run is written all headers up to it are durable, so that a header that a power cut took tells that no
    /// commit came after it ([`header_never_came`]).
    pub fn append_journal(&self, sequence: u64, bodies: &[Vec<u8>]) -> FsResult<()> {
        for (part, body) in bodies.iter().enumerate() {
            let mut state = self.state.lock();
            let (file, extent) = self.place(&mut state, journal::sealed_bytes(body))?;
            let Some(active) = &mut state.active else { continue };
            let header = RunHeader {
                sequence,
                part: part as u32,
                parts: bodies.len() as u32,
                previous: std::mem::replace(&mut active.last_run, extent.offset),
                place: extent.place(),
                length: extent.len,
            };
            let run = journal::seal(&active.key, &header, body);
            state.unsynced.entry(extent.segment).or_insert_with(|| file.clone());
            let without_header = std::mem::take(&mut state.without_header);
            drop(state);
            for (id, file) in without_header {
                file.sync_data().map_err(|e| io_error(&format!("sync the header of segment {id}"), &e))?;
            }
            write_all_at(&*file, &run, extent.offset)
                .map_err(|e| io_error(&format!("write the journal to segment {}", extent.segment), &e))?;
        }
        Ok(())
    }

    /// Whether something that begins at `place` may have been committed: it lies before the settled place that was found
    /// when the store was opened, or was written since.
    pub(super) fn was_settled(&self, place: SegmentPlace) -> bool {
        self.settled_before.is_none_or(|settled| place < settled) || place.segment >= self.first
    }

    /// Bytes after which a segment is full.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Visits the runs of the journal in a segment, and says whether all are there that should be. There are none in
    /// what cannot be a segment of ours.
    pub fn journal_of(&self, id: SegmentId, mut visit: impl FnMut(Run)) -> FsResult<bool> {
        let failed = |e: io::Error| io_error(&format!("read the journal of segment {id}"), &e);
        let (file, key) = match self.open_file(id) {
            Ok((file, Some(key))) => (file, key),
            // Format 1 had none; a power cut undid the creation of the file.
            Ok((_, None)) | Err(ReadError::Missing(_)) => return Ok(true),
            Err(ReadError::Damaged(_)) => {
                return self.disk.open(id).and_then(|file| header_never_came(&*file)).map_err(failed);
            }
            Err(ReadError::Io(e)) => return Err(failed(e)),
        };
        let (mut whole, mut previous) = (true, 0);
        let visit = |run: Run| {
            whole &= run.header.previous == previous;
            previous = run.header.place.offset;
            visit(run);
        };
        journal::scan(&*file, &key, SegmentPlace { segment: id, offset: HEADER_BYTES }, visit).map_err(failed)?;
        Ok(whole)
    }

    /// Reads `len` bytes of a segment at `offset`.
    pub fn read(&self, segment: SegmentId, offset: u64, len: usize) -> Result<Vec<u8>, ReadError> {
        let file = self.handle(segment)?;
        let mut bytes = vec![0; len];
        read_exact_at(&*file, &mut bytes, offset, Caching::Keep).map_err(|e| classify(segment, e))?;
        Ok(bytes)
    }

    /// [`Segments::read`] of bytes that nobody will change: what is only passed on need not be copied.
    pub fn read_bytes(&self, segment: SegmentId, offset: u64, len: usize) -> Result<Bytes, ReadError> {
        if self.streams.caching(segment, offset, len) == Caching::Keep {
            return self.read(segment, offset, len).map(Bytes::from);
        }
        let file = self.handle(segment)?;
        let read = file.read_direct(len, offset).unwrap_or_else(|| {
            let mut bytes = vec![0; len];
            read_exact_at(&*file, &mut bytes, offset, Caching::Stream)?;
            Ok(bytes.into())
        });
        read.map_err(|e| classify(segment, e))
    }

    /// [`Segments::read`] from the disk itself, not from memory.
    pub fn read_from_medium(&self, segment: SegmentId, offset: u64, len: usize) -> Result<Vec<u8>, ReadError> {
        self.handle(segment)?.drop_cached(offset, len as u64);
        self.read(segment, offset, len)
    }

    /// [`Segments::read`] if it takes no disk access.
    pub fn read_cached(&self, segment: SegmentId, offset: u64, len: usize) -> Option<Vec<u8>> {
        let file = self.handles.lock().get(&segment).cloned()?;
        let mut bytes = Vec::new();
        file.read_cached(&mut bytes, len, offset).then_some(bytes)
    }

    /// How often space of dead extents was given back. An extent that was live when this was asked, and is read before
    /// it has another value, was whole.
    pub fn reclaims(&self) -> u64 {
        self.reclaims.load(Ordering::SeqCst)
    }

    pub(super) fn handle(&self, id: SegmentId) -> Result<Arc<dyn SegmentFile>, ReadError> {
        if let Some(file) = self.handles.lock().get(&id) {
            return Ok(file.clone());
        }
        let (file, _) = self.open_file(id)?;
        // Not if it was deleted meanwhile: an open handle would keep its space.
        let state = self.state.lock();
        if state.live.contains_key(&id) {
            self.remember(id, &file);
        }
        Ok(file)
    }

    fn remember(&self, id: SegmentId, file: &Arc<dyn SegmentFile>) {
        let mut handles = self.handles.lock();
        if handles.len() >= HANDLES_MAX
            && let Some(&victim) = handles.keys().next()
        {
            handles.remove(&victim);
        }
        handles.insert(id, file.clone());
    }

    /// Takes the list of what is not synced. The caller syncs it with [`Unsynced::sync`] or declares the store failed.
    pub fn take_unsynced(&self) -> Unsynced {
        let mut state = self.state.lock();
        let files = std::mem::take(&mut state.unsynced);
        state.without_header.clear();
        let (punched, later) =
            std::mem::take(&mut state.punched).into_iter().partition(|extent| files.contains_key(&extent.segment));
        state.punched = later;
        let directory = std::mem::take(&mut state.directory_unsynced);
        Unsynced { files: files.into_values().collect(), directory, punched }
    }

    /// Opens `segments` so that recovery can sync what an earlier incarnation wrote.
    pub fn adopt_unsynced(&self, segments: impl IntoIterator<Item = SegmentId>) -> Result<Unsynced, ReadError> {
        let files: Result<Vec<_>, _> = segments.into_iter().map(|id| self.handle(id)).collect();
        Ok(Unsynced { files: files?, directory: true, punched: Vec::new() })
    }

    /// The disk below.
    pub fn disk(&self) -> &dyn Disk {
        &*self.disk
    }
}

/// Opens a segment, checks its header, and takes the key of its journal from it (`None`: version 1 has none).
pub(super) fn open_segment(
    disk: &dyn Disk,
    owner: &SegmentOwner,
    id: SegmentId,
) -> Result<(Arc<dyn SegmentFile>, Option<JournalKey>), ReadError> {
    let file = disk.open(id).map_err(|e| classify(id, e))?;
    let mut header = [0; ENVELOPE_BYTES];
    read_exact_at(&*file, &mut header, 0, Caching::Keep).map_err(|e| classify(id, e))?;
    match owner.journal_key(id, &header) {
        Some(key) => Ok((file, key)),
        None => Err(ReadError::Damaged(format!("segment {id} has a damaged or foreign header"))),
    }
}

/// Whether a segment has no header because a power cut took it before anything of the segment was committed, and not
/// because of damage. [`Segments::append_journal`] keeps the two apart: where a commit has been there is a run.
pub(super) fn header_never_came(file: &dyn SegmentFile) -> io::Result<bool> {
    Ok(has_no_header(file)? && !journal::has_any_run(file, HEADER_BYTES)?)
}

/// Whether a segment begins with zeros, or is shorter than that.
pub(super) fn has_no_header(file: &dyn SegmentFile) -> io::Result<bool> {
    let mut first = vec![0; file.length()?.min(HEADER_BYTES) as usize];
    read_exact_at(file, &mut first, 0, Caching::Keep)?;
    Ok(first.iter().all(|&byte| byte == 0))
}

impl Drop for Segments {
    /// The store is closed: what it counted at its opening and since is counted no more.
    fn drop(&mut self) {
        self.capacity.release(self.state.lock().live.values().sum());
    }
}

impl Unsynced {
    /// Makes the files and, if any came or went, the directory durable; returns the extents whose punches are durable
    /// with that. After an error nobody knows what is on disk: it must not be tried again.
    pub fn sync(self, segments: &Segments) -> io::Result<Vec<SegmentExtent>> {
        for file in &self.files {
            file.sync_data()?;
        }
        if self.directory {
            segments.disk.sync_dir()?;
        }
        Ok(self.punched)
    }
}

pub(super) fn classify(segment: SegmentId, e: io::Error) -> ReadError {
    match e.kind() {
        io::ErrorKind::NotFound => ReadError::Missing(segment),
        io::ErrorKind::UnexpectedEof => ReadError::Damaged(format!("segment {segment} is cut short")),
        _ => ReadError::Io(e),
    }
}

/// An error of the disk as a peer sees it.
pub fn io_error(what: &str, e: &io::Error) -> FsError {
    match e.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => FsError::new(FsCode::NoSpace, format!("cannot {what}: {e}"))
            .with_hint("delete files, or add OSTs; other OSTs may have space left"),
        _ => FsError::new(FsCode::Io, format!("cannot {what}: {e}"))
            .with_hint("look at the disk of this OST, its kernel log and the log of its OSS"),
    }
}
