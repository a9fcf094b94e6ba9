//! What is wanted of one file.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use sateen_types::limits::{FETCH_BYTES_MAX, FILE_ASSIGNMENTS_MAX, LOADED_RANGES_MAX};
use sateen_types::{Extent, FsError, OstIndex, Remote, RepositoryId, Verifier};
use tokio::sync::Notify;

/// From so many loaded ranges on, a file is loaded from the start of a gap, so that there are not more of them.
const FILL_GAPS_FROM: usize = LOADED_RANGES_MAX / 2;

#[derive(Debug)]
pub(super) struct File {
    pub repository: RepositoryId,
    pub remote: Remote,
    pub wanted: Vec<Extent>,
    pub ahead: Option<Extent>,
    pub out: BTreeMap<u64, Extent>,
    /// Those of them that are stored and not yet durable, with what their OSTs said.
    pub filled: BTreeMap<u64, Vec<(OstIndex, Verifier)>>,
    /// Changes of its extent that wait or are being made: nothing is given out.
    pub closed: u32,
    pub failures: u32,
    pub retry_at: Option<Instant>,
    /// All of it is wanted, and tried again when it fails.
    pub restore: bool,
    pub queued_urgent: bool,
    pub queued_ahead: bool,
    pub waiters: HashMap<u64, Waiter>,
    pub changed: Arc<Notify>,
    pub since: Instant,
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub range: Extent,
    pub error: Option<FsError>,
}

/// Whether the two share a byte.
pub(super) fn intersects(a: Extent, b: Extent) -> bool {
    a.overlaps(b.start, b.end)
}

impl File {
    /// The first part of `within` that neither is loaded nor assigned, at most an assignment long.
    pub fn piece(&self, within: Extent) -> Option<Extent> {
        if self.out.len() >= FILE_ASSIGNMENTS_MAX {
            return None;
        }
        let mut out: Vec<Extent> = self.out.values().copied().collect();
        out.sort_unstable_by_key(|r| r.start);
        let free = |within: Extent| {
            for missing in self.remote.missing(within) {
                let mut at = missing.start;
                for taken in out.iter().filter(|r| intersects(**r, missing)) {
                    if at < taken.start {
                        return Some(Extent { start: at, end: taken.start.min(missing.end) });
                    }
                    at = at.max(taken.end);
                }
                if at < missing.end {
                    return Some(Extent { start: at, end: missing.end });
                }
            }
            None
        };
        let mut found = free(within)?;
        if self.remote.loaded().len() + self.out.len() >= FILL_GAPS_FROM {
            // The first part that is missing touches what is loaded before it.
            found = free(Extent { start: 0, end: found.end })?;
        }
        Some(Extent { start: found.start, end: found.end.min(self.remote.chunks(found).start + FETCH_BYTES_MAX) })
    }

    /// Nobody wants anything of it.
    pub fn is_idle(&self) -> bool {
        self.wanted.is_empty()
            && self.ahead.is_none()
            && self.out.is_empty()
            && self.waiters.is_empty()
            && self.closed == 0
    }

    /// `range` is not wanted any more.
    pub fn unwant(&mut self, range: Extent) {
        let mut left = Vec::with_capacity(self.wanted.len());
        for w in self.wanted.drain(..) {
            if !intersects(w, range) {
                left.push(w);
                continue;
            }
            if w.start < range.start {
                left.push(Extent { start: w.start, end: range.start });
            }
            if range.end < w.end {
                left.push(Extent { start: range.end, end: w.end });
            }
        }
        self.wanted = left;
    }
}
