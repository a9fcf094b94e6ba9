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

use parking_lot::{Mutex, MutexGuard};
use sateen_types::{Attr, Capability, Credential, Fid, FsId, Layout, Timestamp, Unreported};
use tokio::sync::{Notify, RwLock};

use crate::cache::{ChunkCache, ChunkKey, Version};
use crate::dirty::{Dirty, Outgoing};
use crate::failure::Failure;
use crate::file::Registration;
use crate::loads::Loads;
use crate::opens::Keeps;
use crate::plan::Span;
use crate::seal::Outlook;
use crate::unstable::UnstableSet;

mod reading;
mod remote;
mod reporting;
mod stages;

pub(crate) use reading::{Begun, ReadSpan, View};
pub(crate) use remote::{Learnt, Provisional, Purpose};
pub(crate) use stages::Which;

/// What the MDS leaves of a mode, as far as the mode alone says, when somebody has written who may not keep privileges.
fn without_privileges(mode: u32) -> u32 {
    let group_executes = mode & 0o010 != 0;
    mode & !(if group_executes { 0o6000 } else { 0o4000 })
}

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
    /// Opens that were closed and that the MDS hears of when what was written is durable.
    pub lingering: Mutex<Vec<Registration>>,
    /// One append at a time while other clients write to the file, too.
    pub appending: tokio::sync::Mutex<()>,
    /// One Instantiate at a time.
    pub instantiating: tokio::sync::Mutex<()>,
    /// A background task is looking after it.
    pub tended: AtomicBool,
    /// Whether its data compresses.
    pub outlook: Outlook,
    /// What of it is being loaded from its repository.
    pub loads: Loads,
}

#[derive(Debug)]
pub(crate) struct State {
    /// What may be kept of the data.
    keeps: Arc<Keeps>,
    pub layout: Arc<Layout>,
    /// `change` of the file when its layout was asked for.
    layout_as_of: u64,
    /// What is only in the repository.
    known: remote::Known,
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
    /// Those of `writing` that must not be stored any more: see [`Inode::forsake`].
    condemned: BTreeSet<u64>,
    pub unstable: UnstableSet,
    /// One past the last stored byte that the MDS was not told of.
    written_end: u64,
    /// Time of the last write that the MDS was not told of.
    mtime: Option<Timestamp>,
    /// When a program last read the file, as far as it counts.
    atime: Option<Timestamp>,
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
    /// Somebody else changed the data while something that was written here waited to be stored or reported.
    overtaken: bool,
    /// What the MDS was told and has not answered.
    unanswered: Vec<reporting::Report>,
}

impl Inode {
    /// A file as the MDS described it. The second value says whether what was cached of it before is still right.
    pub fn new(
        fs: FsId,
        attr: Attr,
        (layout, learnt): (Layout, Learnt),
        keeps: Arc<Keeps>,
        cache: Arc<ChunkCache>,
    ) -> (Inode, bool) {
        let now = Version::stored(&attr, &layout);
        let (epoch, valid) = match cache.recall(attr.fid) {
            Some((then, epoch)) if then.change <= now.change && then.same_data(&now) => (epoch, true),
            _ => (cache.new_epoch(), false),
        };
        let state = State {
            keeps,
            layout: Arc::new(layout),
            layout_as_of: attr.change,
            known: learnt.into(),
            epoch,
            stored_changes: 0,
            writes: 0,
            dirty: BTreeMap::new(),
            full: BTreeSet::new(),
            writing: BTreeMap::new(),
            condemned: BTreeSet::new(),
            unstable: UnstableSet::default(),
            written_end: 0,
            mtime: None,
            atime: None,
            allocated_delta: 0,
            clear_suid: false,
            frozen: false,
            failure: Failure::default(),
            writer: Credential::ROOT,
            pinned: false,
            changed_elsewhere: false,
            overtaken: false,
            unanswered: Vec::new(),
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
            lingering: Mutex::default(),
            appending: tokio::sync::Mutex::new(()),
            instantiating: tokio::sync::Mutex::new(()),
            tended: AtomicBool::new(false),
            outlook: Outlook::default(),
            loads: Loads::default(),
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
            self.changed(&mut state, attr);
        }
        state.attr = attr.clone();
    }

    /// The data is not what it was, and not by an answer to this client.
    fn changed(&self, state: &mut State, attr: &Attr) {
        state.epoch = self.cache.new_epoch();
        state.stored_changes += 1;
        state.changed_elsewhere = true;
        state.overtaken |= !state.is_clean() && !state.unanswered.iter().any(|told| told.explains(&state.attr, attr));
    }

    /// Takes in the answer to an open. Returns whether what was cached, here or by a kernel, since the last open is
    /// still right.
    pub fn observe_open(&self, attr: &Attr, (layout, learnt): (Layout, Learnt), keeps: Arc<Keeps>) -> bool {
        self.observe(attr);
        let mut state = self.state();
        state.keeps = keeps;
        state.learn(learnt);
        self.take_layout(&mut state, layout);
        !std::mem::take(&mut state.changed_elsewhere)
    }

    /// What may be kept of the data now.
    pub fn keeps(&self) -> Capability {
        self.state().keeps.now()
    }

    /// A file was closed that has data here. One of those that are closed so stands for all, one that writes if there is one.
    pub fn linger(&self, closed: Registration) {
        let mut lingering = self.lingering.lock();
        lingering.push(closed);
        lingering.sort_by_key(|registration| !registration.writes());
        let others = lingering.split_off(1);
        drop(lingering);
        drop(others);
    }

    /// What was written is durable, or will never be: the MDS may hear of the closes. Unless more was written since.
    pub fn let_go(&self) {
        let state = self.state();
        if state.dirty.is_empty() && state.writing.is_empty() && state.unstable.is_empty() {
            drop(state);
            let closed = std::mem::take(&mut *self.lingering.lock());
            drop(closed);
        }
    }

    /// Size and time as they are here.
    pub fn unreported(&self) -> Unreported {
        let state = self.state();
        Unreported { size: state.size(), mtime: state.mtime }
    }

    /// Takes in the attributes that came with a lock. Returns whether what was cached, here or by a kernel, since the last
    /// open or lock is still right.
    pub fn observe_lock(&self, attr: &Attr) -> bool {
        self.observe(attr);
        !std::mem::take(&mut self.state().changed_elsewhere)
    }

    /// Takes in the answer to a change of our own: if nobody else changed the file in between, the cache stays.
    pub fn observe_own(&self, attr: &Attr) {
        let mut state = self.state();
        if attr.change < state.attr.change {
            return;
        }
        if attr.change > state.attr.change + 1 && !Version::of(&state.attr).same_data(&Version::of(attr)) {
            self.changed(&mut state, attr);
        }
        state.attr = attr.clone();
    }

    /// Whether somebody else changed the data since something was written here that is not stored and reported yet.
    pub fn is_overtaken(&self) -> bool {
        self.state().overtaken
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
        if let Some(atime) = state.atime {
            attr.atime = attr.atime.max(atime);
        }
        attr.blocks = attr.blocks.saturating_add_signed(state.allocated_delta / 512);
        if state.clear_suid {
            attr.mode = without_privileges(attr.mode);
        }
        attr
    }

    /// Key of a chunk in the current epoch.
    fn key(&self, state: &State, chunk: u64) -> ChunkKey {
        ChunkKey { fid: self.fid, epoch: state.epoch, chunk }
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
            if !dirty.is_empty() {
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
        self.cache.remember(self.fid, Version::stored(&state.attr, &state.layout), state.epoch);
    }
}

impl State {
    /// See [`Inode::keeps`].
    pub fn keeps(&self) -> Capability {
        self.keeps.now()
    }

    /// The file reaches to `end` at least.
    pub fn extend(&mut self, end: u64) {
        self.written_end = self.written_end.max(end);
    }

    /// Whether others use the file, too, so that what is written must not be kept.
    pub fn is_shared(&self) -> bool {
        self.keeps() < Capability::Write
    }

    /// Size of the file, with what was written here.
    pub fn size(&self) -> u64 {
        let dirty = self.dirty.last_key_value().map_or(0, |(chunk, d)| chunk + u64::from(d.end()));
        let writing = self.writing.iter().rev().find_map(|(chunk, o)| Some(chunk + u64::from(o.as_ref()?.end())));
        self.attr.size.max(self.written_end).max(dirty).max(writing.unwrap_or(0))
    }

    /// Whether everything written here is committed and reported.
    pub fn is_clean(&self) -> bool {
        self.dirty.is_empty()
            && self.writing.is_empty()
            && self.unstable.is_empty()
            && self.written_end <= self.attr.size
            && self.mtime.is_none()
            && self.allocated_delta == 0
    }
}
