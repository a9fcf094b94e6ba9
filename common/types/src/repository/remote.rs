//! Which bytes of a file are in its repository only.

use serde::{Deserialize, Serialize};

use crate::layout::Extent;
use crate::limits::{CHUNK_BYTES_MAX, LOADED_RANGES_MAX};
use crate::status::{FsCode, FsError, FsResult};

/// The bytes `[0, end)` of a file come from its object, but for the loaded ranges, which the OSTs have. Bytes from
/// `end` on are ordinary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    end: u64,
    /// In order, neither empty nor touching, all below `end`.
    loaded: Vec<Extent>,
}

impl Remote {
    /// Nothing of `[0, end)` is loaded.
    pub fn none_loaded(end: u64) -> Remote {
        Remote { end, loaded: Vec::new() }
    }

    /// Checks what a peer or a disk says.
    pub fn new(end: u64, loaded: Vec<Extent>) -> FsResult<Remote> {
        let bad = |what: String| Err(FsError::new(FsCode::Invalid, format!("loaded ranges: {what}")));
        if loaded.len() > LOADED_RANGES_MAX {
            return bad(format!("{}, at most {LOADED_RANGES_MAX}", loaded.len()));
        }
        let mut before = None;
        for r in &loaded {
            if r.start >= r.end || r.end > end || before.is_some_and(|b| r.start <= b) {
                return bad(format!("[{}, {}) is empty, beyond {end} or out of order", r.start, r.end));
            }
            before = Some(r.end);
        }
        Ok(Remote { end, loaded })
    }

    /// One past the last byte that comes from the object.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// What is loaded, in order; the ranges do not touch.
    pub fn loaded(&self) -> &[Extent] {
        &self.loaded
    }

    /// Bytes that are loaded.
    pub fn loaded_bytes(&self) -> u64 {
        self.loaded.iter().map(|r| r.end - r.start).sum()
    }

    /// Nothing is missing.
    pub fn all_loaded(&self) -> bool {
        self.loaded_bytes() == self.end
    }

    /// The parts of `range` that are not loaded, in order. Bytes from `end` on are not missing.
    pub fn missing(&self, range: Extent) -> Vec<Extent> {
        let stop = range.end.min(self.end);
        let mut at = range.start;
        let mut missing = Vec::new();
        let first = self.loaded.partition_point(|r| r.end <= at);
        for r in &self.loaded[first..] {
            if r.start >= stop {
                break;
            }
            if at < r.start {
                missing.push(Extent { start: at, end: r.start });
            }
            at = r.end;
        }
        if at < stop {
            missing.push(Extent { start: at, end: stop });
        }
        missing
    }

    /// Whether nothing of `range` is missing.
    pub fn is_loaded(&self, range: Extent) -> bool {
        let stop = range.end.min(self.end);
        let i = self.loaded.partition_point(|r| r.end <= range.start);
        range.start >= stop || self.loaded.get(i).is_some_and(|r| r.start <= range.start && r.end >= stop)
    }

    /// The range grown to whole chunks, but not beyond `end`: what can be loaded alone.
    pub fn chunks(&self, range: Extent) -> Extent {
        let chunk = u64::from(CHUNK_BYTES_MAX);
        let end = range.end.min(self.end).div_ceil(chunk).saturating_mul(chunk).min(self.end);
        Extent { start: (range.start / chunk * chunk).min(end), end }
    }

    /// `range` is loaded now. Cut at `end`.
    pub fn add(&mut self, range: Extent) {
        let mut new = Extent { start: range.start, end: range.end.min(self.end) };
        if new.start >= new.end {
            return;
        }
        let first = self.loaded.partition_point(|r| r.end < new.start);
        let behind = self.loaded.partition_point(|r| r.start <= new.end);
        if let Some(r) = self.loaded[first..behind].first() {
            new.start = new.start.min(r.start);
        }
        if let Some(r) = self.loaded[first..behind].last() {
            new.end = new.end.max(r.end);
        }
        self.loaded.splice(first..behind, [new]);
    }
}
