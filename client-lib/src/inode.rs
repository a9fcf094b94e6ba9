//! What this client knows about one file that is open or has data here: shared by all its open files.
//!
//! Written bytes of a chunk pass through three stages:
//!
//! ```text
//! dirty (may change) -> writing (on its way to the OST) -> unstable (stored, not committed) -> gone
//!                             \-> error: dropped and reported          \-> verifier changed: writing again
//! ```
//!
//! A chunk may be in several stages at once, with newer bytes in an earlier stage. At most one request that changes a
//! chunk is under way (`writing` holds it), so an older write never overtakes a newer one. All state is behind one
//! short lock; nothing waits while holding it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use sateen_types::{Attr, Credential, Fid, FsError, FsId, FsResult, Layout, Timestamp};
use tokio::sync::{Notify, RwLock};

use crate::budget::Share;
use crate::cache::{ChunkCache, ChunkKey, Version};
use crate::dirty::{Dirty, Outgoing};
use crate::failure::Failure;
use crate::plan::{self, Span};
use crate::unstable::{Unstable, UnstableSet};

/// One file. See the module.
#[derive(Debug)]
pub(crate) struct Inode {
    pub fid: Fid,
    pub fs: FsId,
    cache: Arc<ChunkCache>,
    state: Mutex<State>,
    /// Writes share it; truncate and punch have it alone.
    pub exclusion: RwLock<()>,
    /// Something left `writing`, or the file was thawed.
    pub progress: Notify,
    /// One report to the MDS at a time, and none while times are being set.
    pub reporting: tokio::sync::Mutex<()>,
    /// One Instantiate at a time.
    pub instantiating: tokio::sync::Mutex<()>,
    /// A background task is looking after it.
    pub tended: AtomicBool,
}

#[derive(Debug)]
pub(crate) struct State {
    pub layout: Arc<Layout>,
    /// `change` of the file when its layout was asked for.
    layout_as_of: u64,
    /// Attributes as the MDS last gave them.
    attr: Attr,
    epoch: u64,
    /// Rises when stored bytes change under readers that may be fetching them.
    stored_changes: u64,
    /// Number of the last write.
    pub writes: u64,
    dirty: BTreeMap<u64, Dirty>,
    /// Chunks of `dirty` that are written all over.
    full: BTreeSet<u64>,
    /// Chunks with a request under way; what it carries, unless it repeats unstable bytes.
    writing: BTreeMap<u64, Option<Arc<Outgoing>>>,
    pub unstable: UnstableSet,
    /// One past the last stored byte that the MDS was not told of.
    written_end: u64,
    /// Time of the last write that the MDS was not told of.
    mtime: Option<Timestamp>,
    allocated_delta: i64,
    clear_suid: bool,
    /// Nothing may be sent: the file is being cut.
    frozen: bool,
    pub failure: Failure,
    /// Who wrote last.
    pub writer: Credential,
    /// In the table of files with data here.
    pub pinned: bool,
    /// Somebody else changed the data since the file was last opened here.
    changed_elsewhere: bool,
}

/// What a reader saw when it began: decides whether what it fetched may be cached.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub layout: Arc<Layout>,
    pub epoch: u64,
    stored_changes: u64,
}

/// One chunk's part of a read: what to fetch, and what to lay over it, oldest first.
#[derive(Debug)]
pub(crate) struct ReadSpan {
    pub span: Span,
    /// Bytes written here, by offset in the chunk.
    pub overlay: Vec<(u32, Bytes)>,
    /// The overlay is all that is wanted.
    pub complete: bool,
}

/// What a report to the MDS says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub end: u64,
    pub mtime: Option<Timestamp>,
    pub allocated_delta: i64,
    pub clear_suid: bool,
}

/// Which dirty chunks to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those written all over: they are not likely to change again.
    Full,
    /// Every one.
    All,
}

impl Inode {
    /// A file as the MDS described it. The second value says whether what was cached of it before is still right.
    pub fn new(fs: FsId, attr: Attr, layout: Layout, cache: Arc<ChunkCache>) -> (Inode, bool) {
        let now = Version::of(&attr);
        let (epoch, valid) = match cache.recall(attr.fid) {
            Some((then, epoch)) if then.change <= now.change && then.same_data(&now) => (epoch, true),
            _ => (cache.new_epoch(), false),
        };
        let state = State {
            layout: Arc::new(layout),
            layout_as_of: attr.change,
            epoch,
            stored_changes: 0,
            writes: 0,
            dirty: BTreeMap::new(),
            full: BTreeSet::new(),
            writing: BTreeMap::new(),
            unstable: UnstableSet::default(),
            written_end: 0,
            mtime: None,
            allocated_delta: 0,
            clear_suid: false,
            frozen: false,
            failure: Failure::default(),
            writer: Credential::ROOT,
            pinned: false,
            changed_elsewhere: false,
            attr,
        };
        let inode = Inode {
            fid: state.attr.fid,
            fs,
            cache,
            state: Mutex::new(state),
            exclusion: RwLock::new(()),
            progress: Notify::new(),
            reporting: tokio::sync::Mutex::new(()),
            instantiating: tokio::sync::Mutex::new(()),
            tended: AtomicBool::new(false),
        };
        (inode, valid)
    }

    /// The state; held shortly.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Takes in attributes that somebody asked for. Data that changed without us doing it makes what is cached old.
    pub fn observe(&self, attr: &Attr) {
        let mut state = self.state();
        let (known, now) = (Version::of(&state.attr), Version::of(attr));
        if now.change < known.change {
            // An answer that was overtaken by a newer one.
            return;
        }
        if !known.same_data(&now) {
            state.epoch = self.cache.new_epoch();
            state.stored_changes += 1;
            state.changed_elsewhere = true;
        }
        state.attr = attr.clone();
    }

    /// Takes in the answer to an open. Returns whether what was cached, here or by a kernel, since the last open is
    /// still right.
    pub fn observe_open(&self, attr: &Attr, layout: Layout) -> bool {
        self.observe(attr);
        self.observe_layout(layout);
        !std::mem::take(&mut self.state().changed_elsewhere)
    }

    /// Takes in the answer to a change of our own: if nobody else changed the file in between, the cache stays.
    pub fn observe_own(&self, attr: &Attr) {
        let mut state = self.state();
        if attr.change < state.attr.change {
            return;
        }
        if attr.change > state.attr.change + 1 && !Version::of(&state.attr).same_data(&Version::of(attr)) {
            state.epoch = self.cache.new_epoch();
            state.stored_changes += 1;
            state.changed_elsewhere = true;
        }
        state.attr = attr.clone();
    }

    /// Takes in a layout, unless a newer one is known.
    pub fn observe_layout(&self, layout: Layout) {
        let mut state = self.state();
        if layout.generation >= state.layout.generation {
            state.layout = Arc::new(layout);
            state.layout_as_of = state.attr.change;
        }
    }

    /// Whether a part of the file that has no OSTs here may have got some elsewhere.
    pub fn layout_may_be_old(&self) -> bool {
        let state = self.state();
        state.layout_as_of < state.attr.change
    }

    /// Attributes as the MDS gave them, with what was written here since.
    pub fn attr(&self) -> Attr {
        let state = self.state();
        let mut attr = state.attr.clone();
        attr.size = state.size();
        if let Some(mtime) = state.mtime {
            attr.mtime = attr.mtime.max(mtime);
            attr.ctime = attr.ctime.max(mtime);
        }
        attr.blocks = attr.blocks.saturating_add_signed(state.allocated_delta / 512);
        attr
    }

    /// Key of a chunk in the current epoch.
    fn key(&self, state: &State, chunk: u64) -> ChunkKey {
        ChunkKey { fid: self.fid, epoch: state.epoch, chunk }
    }

    /// Cuts a read at the end of the file and collects what was written here. `None` at or beyond the end.
    pub fn begin_read(&self, offset: u64, len: u64) -> FsResult<Option<(View, Vec<ReadSpan>, u64)>> {
        let state = self.state();
        let size = state.size();
        if offset >= size || len == 0 {
            return Ok(None);
        }
        let spans = plan::spans(&state.layout, offset, len.min(size - offset))?;
        let spans = spans.into_iter().map(|span| state.read_span(span)).collect();
        Ok(Some((state.view(), spans, size)))
    }

    /// What a reader that begins now sees.
    pub fn view(&self) -> View {
        self.state().view()
    }

    /// Runs `put` if what a reader fetched for `chunk` under `view` is still what is stored.
    pub fn if_current(&self, view: &View, chunk: u64, put: impl FnOnce()) {
        let state = self.state();
        let same = state.epoch == view.epoch && state.stored_changes == view.stored_changes;
        if same && !state.writing.contains_key(&chunk) {
            put();
        }
    }

    /// Moves dirty chunks to `writing` and returns them, at most `bytes_max` of them (at least one).
    pub fn take_dirty(&self, which: Which, bytes_max: u64) -> Vec<(u64, Arc<Outgoing>, Share)> {
        let mut state = self.state();
        if state.frozen {
            return Vec::new();
        }
        let mut taken = Vec::new();
        let mut bytes = 0;
        let chunks: Vec<u64> = match which {
            Which::Full => state.full.iter().copied().collect(),
            Which::All => state.dirty.keys().copied().collect(),
        };
        for chunk in chunks {
            if state.writing.contains_key(&chunk) || bytes >= bytes_max {
                continue;
            }
            let dirty = state.dirty.remove(&chunk).expect("listed under the same lock");
            state.full.remove(&chunk);
            let (outgoing, share) = dirty.freeze();
            bytes += outgoing.data.len() as u64;
            let outgoing = Arc::new(outgoing);
            state.writing.insert(chunk, Some(Arc::clone(&outgoing)));
            taken.push((chunk, outgoing, share));
        }
        taken
    }

    /// A chunk that was on its way is stored: its bytes become unstable, and clean for readers.
    pub fn stored(&self, chunk: u64, chunk_len: u32, unstable: Unstable, allocated_delta: i64) {
        let mut state = self.state();
        let Some(Some(outgoing)) = state.writing.remove(&chunk) else {
            unreachable!("chunk {chunk} of {} was on its way", self.fid);
        };
        state.stored_changes += 1;
        state.written_end = state.written_end.max(chunk + u64::from(outgoing.ranges.end()));
        state.allocated_delta = state.allocated_delta.saturating_add(allocated_delta);
        self.cache_stored(&state, chunk, chunk_len, &outgoing);
        state.unstable.add(chunk, unstable, outgoing.ranges.covers(0, chunk_len));
        drop(state);
        self.progress.notify_waiters();
    }

    /// Keeps the cache right after a chunk was stored: a whole chunk goes in, a part is laid over what is there.
    fn cache_stored(&self, state: &State, chunk: u64, chunk_len: u32, outgoing: &Outgoing) {
        let key = self.key(state, chunk);
        let in_file = state.size().saturating_sub(chunk).min(u64::from(chunk_len)) as u32;
        if outgoing.ranges.covers(0, in_file) {
            self.cache.insert(key, outgoing.data.clone());
        } else if let Some(old) = self.cache.get(&key) {
            let mut new = old.to_vec();
            new.resize(new.len().max(outgoing.data.len()), 0);
            for (from, to) in outgoing.ranges.iter() {
                new[from as usize..to as usize].copy_from_slice(&outgoing.data[from as usize..to as usize]);
            }
            self.cache.insert(key, new.into());
        }
    }

    /// A chunk that was on its way could not be stored: it is lost, and that will be reported.
    pub fn lost(&self, chunk: u64, error: FsError) {
        let mut state = self.state();
        state.writing.remove(&chunk);
        state.stored_changes += 1;
        let key = self.key(&state, chunk);
        self.cache.remove(&key);
        state.failure.record(error);
        drop(state);
        self.progress.notify_waiters();
    }

    /// Marks a chunk as having a request under way that repeats its unstable bytes. `false` if one is under way.
    pub fn begin_resend(&self, chunk: u64) -> bool {
        let mut state = self.state();
        if state.frozen || state.writing.contains_key(&chunk) {
            return false;
        }
        state.writing.insert(chunk, None);
        true
    }

    /// Ends what [`Inode::begin_resend`] began.
    pub fn end_resend(&self, chunk: u64) {
        self.state().writing.remove(&chunk);
        self.progress.notify_waiters();
    }

    /// Takes what the MDS should be told, if anything.
    pub fn take_report(&self) -> Option<Report> {
        let mut state = self.state();
        let report = Report {
            end: if state.written_end > state.attr.size { state.written_end } else { 0 },
            mtime: state.mtime,
            allocated_delta: state.allocated_delta,
            clear_suid: state.clear_suid && state.attr.mode & 0o6000 != 0,
        };
        if report == (Report { end: 0, mtime: None, allocated_delta: 0, clear_suid: false }) {
            return None;
        }
        state.allocated_delta = 0;
        Some(report)
    }

    /// The MDS was told, or (`Err`) was not. What came up in between stays to be told.
    pub fn end_report(&self, report: &Report, told: Result<&Attr, ()>) {
        match told {
            Ok(attr) => {
                self.observe_own(attr);
                let mut state = self.state();
                if state.written_end <= report.end {
                    state.written_end = 0;
                }
                if state.mtime == report.mtime {
                    state.mtime = None;
                }
                if report.clear_suid {
                    state.clear_suid = false;
                }
            }
            Err(()) => self.state().allocated_delta += report.allocated_delta,
        }
    }

    /// The MDS will never take the report: it is not sent again.
    pub fn drop_report(&self, report: &Report) {
        let mut state = self.state();
        if state.written_end <= report.end {
            state.written_end = 0;
        }
        if state.mtime == report.mtime {
            state.mtime = None;
        }
        state.clear_suid = false;
    }

    /// The file is gone: so is all that was to be stored in it.
    pub fn discard(&self) {
        let mut state = self.state();
        state.dirty.clear();
        state.full.clear();
        state.unstable = UnstableSet::default();
        (state.written_end, state.mtime, state.allocated_delta) = (0, None, 0);
    }

    /// Explicit times are about to be set: what was written before does not override them.
    pub fn take_mtime(&self) -> Option<Timestamp> {
        self.state().mtime.take()
    }

    /// The times were not set after all.
    pub fn give_back_mtime(&self, mtime: Option<Timestamp>) {
        let mut state = self.state();
        state.mtime = state.mtime.or(mtime);
    }

    /// Stops sending until the guard is dropped. The caller has [`Inode::exclusion`] alone and then waits until nothing
    /// is under way.
    pub fn freeze(&self) -> Frozen<'_> {
        self.state().frozen = true;
        Frozen(self)
    }

    /// The file now ends at `size` everywhere: forgets what was written beyond it, and all that is cached.
    pub fn cut(&self, size: u64, chunk_of_size: Option<Span>) {
        let mut state = self.state();
        debug_assert!(state.frozen && state.writing.is_empty(), "{} is cut while being written", self.fid);
        let first_gone = chunk_of_size.map_or(size, |span| span.chunk);
        let mut gone = state.dirty.split_off(&first_gone);
        if let Some(span) = chunk_of_size
            && let Some(mut dirty) = gone.remove(&span.chunk)
        {
            dirty.cut(span.from);
            if !dirty.ranges().is_empty() {
                state.dirty.insert(span.chunk, dirty);
            }
        }
        state.full.split_off(&first_gone);
        // What of the cut chunk is unstable was committed before.
        state.unstable.cut(first_gone);
        state.written_end = 0;
        state.epoch = self.cache.new_epoch();
        state.stored_changes += 1;
    }

    /// Stored bytes changed in a way that is not tracked by chunk: forgets all that is cached.
    pub fn drop_clean(&self) {
        let mut state = self.state();
        state.epoch = self.cache.new_epoch();
        state.stored_changes += 1;
    }

    /// Marks the file as being looked after; `false` if it is already.
    pub fn begin_tending(&self) -> bool {
        !self.tended.swap(true, Ordering::AcqRel)
    }
}

/// See [`Inode::freeze`].
pub(crate) struct Frozen<'a>(&'a Inode);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.0.state().frozen = false;
        self.0.progress.notify_waiters();
    }
}

impl Drop for Inode {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if state.changed_elsewhere {
            return self.cache.forget(self.fid);
        }
        self.cache.remember(self.fid, Version::of(&state.attr), state.epoch);
    }
}

impl State {
    /// Size of the file, with what was written here.
    pub fn size(&self) -> u64 {
        let dirty = self.dirty.last_key_value().map_or(0, |(chunk, d)| chunk + u64::from(d.ranges().end()));
        let writing =
            self.writing.iter().rev().find_map(|(chunk, o)| Some(chunk + u64::from(o.as_ref()?.ranges.end())));
        self.attr.size.max(self.written_end).max(dirty).max(writing.unwrap_or(0))
    }

    /// Writes `data` at `offset`; it was reserved `shares`, one per chunk touched, of which the unused remain.
    pub fn write(&mut self, spans: &[Span], data: &[u8], shares: &mut Vec<Share>, writer: &Credential) {
        self.writes += 1;
        let mut rest = data;
        for span in spans {
            let (bytes, after) = rest.split_at((span.to - span.from) as usize);
            rest = after;
            let since = self.writes;
            let dirty = self
                .dirty
                .entry(span.chunk)
                .or_insert_with(|| Dirty::new(since, shares.pop().expect("one share per chunk was reserved")));
            dirty.write(span.from, bytes, span.chunk_len);
            if dirty.ranges().covers(0, span.chunk_len) {
                self.full.insert(span.chunk);
            }
        }
        self.mtime = Some(Timestamp::now());
        self.clear_suid |= writer.uid != 0;
        if self.writer != *writer {
            self.writer = writer.clone();
        }
    }

    /// A hole was punched, which changed the disk space by `allocated_delta` bytes.
    pub fn punched(&mut self, allocated_delta: i64) {
        self.mtime = Some(Timestamp::now());
        self.allocated_delta = self.allocated_delta.saturating_add(allocated_delta);
    }

    /// Number of chunks written all over.
    pub fn full_chunks(&self) -> usize {
        self.full.len()
    }

    /// Whether a write up to number `writes` is dirty or under way.
    pub fn has_unsent(&self, writes: u64) -> bool {
        self.dirty.values().any(|d| d.since <= writes)
            || self.writing.values().any(|o| o.as_ref().is_none_or(|o| o.since <= writes))
    }

    /// Whether a request that changes the file's data is under way.
    pub fn is_writing(&self) -> bool {
        !self.writing.is_empty()
    }

    /// Whether everything written here is committed and reported.
    pub fn is_clean(&self) -> bool {
        self.dirty.is_empty()
            && self.writing.is_empty()
            && self.unstable.is_empty()
            && self.written_end == 0
            && self.mtime.is_none()
            && self.allocated_delta == 0
    }

    fn view(&self) -> View {
        View { layout: Arc::clone(&self.layout), epoch: self.epoch, stored_changes: self.stored_changes }
    }

    fn read_span(&self, span: Span) -> ReadSpan {
        let mut overlay = Vec::new();
        if let Some(Some(outgoing)) = self.writing.get(&span.chunk) {
            for (from, to) in outgoing.ranges.within(span.from, span.to) {
                overlay.push((from, outgoing.data.slice(from as usize..to as usize)));
            }
        }
        let mut complete = overlay.first().is_some_and(|(at, b)| *at == span.from && at + b.len() as u32 == span.to);
        if let Some(dirty) = self.dirty.get(&span.chunk) {
            for (from, to) in dirty.ranges().within(span.from, span.to) {
                overlay.push((from, dirty.copy(from, to)));
            }
            complete |= dirty.ranges().covers(span.from, span.to);
        }
        ReadSpan { span, overlay, complete }
    }
}
