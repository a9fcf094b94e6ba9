//! The way of written bytes through the stages of a file.

use std::sync::Arc;

use sateen_types::{Credential, FsError, Timestamp};

use super::{Inode, State};
use crate::budget::Share;
use crate::dirty::{Dirty, Outgoing};
use crate::plan::Span;
use crate::unstable::{Unstable, UnstableSet};

/// Which dirty chunks to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those written all over: they are not likely to change again.
    Full,
    /// Every one.
    All,
}

impl Inode {
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
            bytes += outgoing.len() as u64;
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
        if state.condemned.remove(&chunk) {
            drop(state);
            return self.progress.notify_waiters();
        }
        state.written_end = state.written_end.max(chunk + u64::from(outgoing.end()));
        state.allocated_delta = state.allocated_delta.saturating_add(allocated_delta);
        self.cache_stored(&state, chunk, chunk_len, &outgoing);
        state.unstable.add(chunk, unstable, outgoing.covers(0, chunk_len));
        drop(state);
        self.progress.notify_waiters();
    }

    /// Keeps the cache right after a chunk was stored: a whole chunk goes in, a part is laid over what is there.
    fn cache_stored(&self, state: &State, chunk: u64, chunk_len: u32, outgoing: &Outgoing) {
        let key = self.key(state, chunk);
        let in_file = state.size().saturating_sub(chunk).min(u64::from(chunk_len)) as u32;
        if in_file > 0 && outgoing.covers(0, in_file) {
            self.cache.insert(key, outgoing.runs[0].1.clone());
        } else if let Some(old) = self.cache.get(&key) {
            let mut new = old.to_vec();
            new.resize(new.len().max(outgoing.end() as usize), 0);
            for (from, bytes) in &outgoing.runs {
                new[*from as usize..*from as usize + bytes.len()].copy_from_slice(bytes);
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
        // That of what is condemned is recorded.
        if !state.condemned.remove(&chunk) {
            state.failure.record(error);
        }
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
        let mut state = self.state();
        state.writing.remove(&chunk);
        state.condemned.remove(&chunk);
        drop(state);
        self.progress.notify_waiters();
    }

    /// Whether a chunk that is on its way must not be stored any more.
    pub fn is_condemned(&self, chunk: u64) -> bool {
        self.state().is_condemned(chunk)
    }

    /// The session has expired and others have changed the file since: nothing that was written here and is not certainly
    /// stored may come on top of that, now or ever. Every open file reports it, once. Gives the bytes.
    pub fn forsake(&self, why: impl FnOnce(u64) -> FsError) -> u64 {
        let mut state = self.state();
        let on_their_way: u64 = state.writing.values().flatten().map(|o| o.len() as u64).sum();
        let dirty: u64 = std::mem::take(&mut state.dirty).into_values().map(|d| d.freeze().0.len() as u64).sum();
        let bytes = dirty + on_their_way + state.unstable.bytes();
        state.full.clear();
        state.condemned = state.writing.keys().copied().collect();
        state.unstable = UnstableSet::default();
        let extended = state.written_end > state.attr.size;
        // What was stored takes space all the same: that stays to be told.
        (state.written_end, state.mtime) = (0, None);
        if bytes > 0 || extended {
            state.failure.record(why(bytes));
        }
        state.stored_changes += 1;
        drop(state);
        self.progress.notify_waiters();
        bytes
    }

    /// The file is gone: so is all that was to be stored in it.
    pub fn discard(&self) {
        let mut state = self.state();
        state.dirty.clear();
        state.full.clear();
        state.unstable = UnstableSet::default();
        (state.written_end, state.mtime, state.allocated_delta) = (0, None, 0);
    }
}

impl State {
    /// Writes `data` at `offset`. `shares` has room for a whole chunk for each one touched; what is not needed of it is
    /// given back.
    pub fn write(&mut self, spans: &[Span], data: &[u8], shares: &mut Vec<Share>, writer: &Credential) {
        if self.is_clean() {
            self.overtaken = false;
            self.unanswered.clear();
        }
        self.writes += 1;
        let mut rest = data;
        for span in spans {
            let (bytes, after) = rest.split_at((span.to - span.from) as usize);
            rest = after;
            let since = self.writes;
            let mut share = shares.pop().expect("one share per chunk was reserved");
            let none = share.split(0).expect("nothing can always be split off");
            let dirty = self.dirty.entry(span.chunk).or_insert_with(|| Dirty::new(since, none));
            dirty.write(span.from, bytes, span.chunk_len, share);
            if dirty.covers(0, span.chunk_len) {
                self.full.insert(span.chunk);
            }
        }
        self.modified_by(writer);
    }

    /// `writer` changed the data.
    pub fn modified_by(&mut self, writer: &Credential) {
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

    /// See [`Inode::is_condemned`].
    pub fn is_condemned(&self, chunk: u64) -> bool {
        self.condemned.contains(&chunk)
    }

    /// Whether a request that changes the file's data is under way.
    pub fn is_writing(&self) -> bool {
        !self.writing.is_empty()
    }
}
