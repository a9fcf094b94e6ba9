//! Listings that will be asked for, fetched many directories at a time.
//!
//! Programs that walk a tree list one directory after the other, and each is a round trip. When a few were listed in a row
//! that earlier listings have named, those come next which a walk comes to: what is below a directory, then what is behind
//! it. They are asked for ahead, many in one call, and what they name in turn, too.
//!
//! What was fetched is answered under the rules of [`super`]: once, to the same user, for as long as attributes may be
//! trusted, counted from the moment it was asked for. Of a directory that this client has changed since nothing is, and of
//! an entry that it has changed, or was told of otherwise, only the name.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sateen_types::limits::READ_DIRS_MAX;
use sateen_types::op::DirEntry;
use sateen_types::{Credential, Fid, FileType};

use super::TAINTS_MAX;

/// So many directories in a row make a walk.
const RUN: u32 = 2;
/// Directories that are there or on their way: at the beginning of a walk, and at most.
const WINDOW_MIN: usize = 8;
const WINDOW_MAX: usize = READ_DIRS_MAX;
/// Calls under way.
const CALLS_MAX: usize = 4;
/// Names that are known ahead, after which nothing more is asked for; as many may be on their way: 12 MiB if names are short.
const ENTRIES_MAX: usize = 16_384;
/// Directories of which only is known that a walk would come to them.
const NAMED_MAX: usize = 4096;

/// One page of a directory from its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listing {
    pub entries: Vec<DirEntry>,
    /// Nothing follows.
    pub end: bool,
    /// The directory the directory is in.
    pub parent: Fid,
    /// When it was asked for.
    pub asked: Instant,
}

/// Directories that should be listed now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    number: u64,
    pub cred: Arc<Credential>,
    pub dirs: Vec<Fid>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Listings {
    /// Directories that a walk comes to, in its order. Some are in `dirs` no more.
    order: VecDeque<Fid>,
    dirs: HashMap<Fid, Dir>,
    /// Those that were fetched, and which directory an entry with attributes is in.
    fetched: VecDeque<(Fid, Instant)>,
    places: HashMap<Fid, Fid>,
    /// Entries of all of them.
    entries: usize,
    /// Calls under way, and what was changed meanwhile.
    coming: HashMap<u64, Changes>,
    batches: u64,
    /// Directories that were listed in a row and were expected, and when the last one was.
    run: u32,
    last: Option<Instant>,
}

#[derive(Debug)]
struct Dir {
    cred: Arc<Credential>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Named,
    /// On its way with this batch.
    Coming(u64),
    Fetched(Listing),
}

#[derive(Debug, Default)]
struct Changes {
    /// By this client: names in them, and attributes.
    changed: HashSet<Fid>,
    /// The MDS has told attributes that may be newer.
    told: HashSet<Fid>,
    /// There are too many, or whatever others did must be seen.
    all: bool,
}

impl Changes {
    fn note(&mut self, fid: Fid, changed: bool) {
        if self.changed.len() + self.told.len() >= TAINTS_MAX {
            self.all = true;
            return;
        }
        if changed {
            self.changed.insert(fid)
        } else {
            self.told.insert(fid)
        };
    }

    /// What may be answered of an entry. What changes files with several names here cannot be told from those.
    fn leave(&self, mut entry: DirEntry) -> DirEntry {
        let touched = self.changed.contains(&entry.fid) || self.told.contains(&entry.fid);
        entry.attr = entry.attr.filter(|attr| !touched && (attr.file_type == FileType::Directory || attr.nlink == 1));
        entry
    }
}

impl Listings {
    /// A directory from its beginning, if it was fetched and not answered yet.
    pub fn find(&mut self, cred: &Credential, dir: Fid, now: Instant, trusted: Duration) -> Option<Listing> {
        self.dirs.get(&dir).filter(|d| *d.cred == *cred)?;
        let listing = self.forget(dir)?;
        (now.saturating_duration_since(listing.asked) < trusted).then_some(listing)
    }

    /// A directory was listed from its beginning, with these entries. Gives what should be listed next.
    pub fn listed(
        &mut self,
        cred: &Credential,
        dir: Fid,
        entries: &[DirEntry],
        (now, trusted): (Instant, Duration),
    ) -> Option<Batch> {
        self.forget(dir);
        let expected = self.dirs.remove(&dir);
        let in_time = self.last.is_some_and(|last| now.saturating_duration_since(last) < trusted);
        self.run = if expected.is_some() && in_time { self.run.saturating_add(1) } else { 0 };
        self.last = Some(now);
        // What was passed over may come later, in another order.
        let place = expected.as_ref().and_then(|_| self.order.iter().position(|next| *next == dir));
        if let Some(place) = place {
            self.order.rotate_left(place);
            self.order.pop_front();
        }
        let cred = expected.map(|d| d.cred).filter(|c| **c == *cred).unwrap_or_else(|| Arc::new(cred.clone()));
        self.name(0, entries, &cred);
        self.next_batch(now, trusted)
    }

    /// Listings that were asked for at `asked`, in the order of the batch; those that could not be had are missing. Gives
    /// what should be listed next.
    pub fn fetched(
        &mut self,
        batch: &Batch,
        listings: Vec<Option<Listing>>,
        (now, trusted): (Instant, Duration),
    ) -> Option<Batch> {
        let changes = self.coming.remove(&batch.number).unwrap_or_default();
        let mut listings = listings.into_iter();
        for dir in &batch.dirs {
            let listing = listings.next().flatten().filter(|_| !changes.all && !changes.changed.contains(dir));
            // Whoever was faster has asked himself.
            let is_coming = |d: &&mut Dir| matches!(d.stage, Stage::Coming(number) if number == batch.number);
            let Some(known) = self.dirs.get_mut(dir).filter(is_coming) else { continue };
            let Some(mut listing) = listing else {
                self.dirs.remove(dir);
                continue;
            };
            listing.entries = listing.entries.into_iter().map(|entry| changes.leave(entry)).collect();
            self.entries += listing.entries.len();
            let with_attr = listing.entries.iter().filter(|entry| entry.attr.is_some());
            self.places.extend(with_attr.map(|entry| (entry.fid, *dir)));
            self.fetched.push_back((*dir, listing.asked));
            let entries = listing.entries.clone();
            known.stage = Stage::Fetched(listing);
            if let Some(place) = self.order.iter().position(|next| next == dir) {
                self.name(place + 1, &entries, &batch.cred);
            }
        }
        self.compact();
        self.next_batch(now, trusted)
    }

    /// This client has changed these, or may have: names in them, or their attributes.
    pub fn changed(&mut self, fids: &[Fid]) {
        self.coming.values_mut().for_each(|changes| fids.iter().for_each(|fid| changes.note(*fid, true)));
        for fid in fids {
            self.forget(*fid);
            self.strip(*fid);
        }
    }

    /// The MDS has told attributes of it that may be newer.
    pub fn told(&mut self, fid: Fid) {
        self.coming.values_mut().for_each(|changes| changes.note(fid, false));
        self.strip(fid);
    }

    /// Whatever others did before now must be seen from now on.
    pub fn clear(&mut self) {
        let mut coming = std::mem::take(&mut self.coming);
        coming.values_mut().for_each(|changes| changes.all = true);
        *self = Listings { coming, batches: self.batches, ..Listings::default() };
    }

    /// What was fetched of a directory is not there any more.
    fn forget(&mut self, dir: Fid) -> Option<Listing> {
        let known = self.dirs.get_mut(&dir).filter(|d| matches!(d.stage, Stage::Fetched(_)))?;
        let Stage::Fetched(listing) = std::mem::replace(&mut known.stage, Stage::Named) else { return None };
        self.entries -= listing.entries.len();
        for entry in &listing.entries {
            if self.places.get(&entry.fid) == Some(&dir) {
                self.places.remove(&entry.fid);
            }
        }
        Some(listing)
    }

    /// Attributes of an entry are not there any more.
    fn strip(&mut self, fid: Fid) {
        let Some(dir) = self.places.remove(&fid) else { return };
        if let Some(Dir { stage: Stage::Fetched(listing), .. }) = self.dirs.get_mut(&dir) {
            listing.entries.iter_mut().filter(|entry| entry.fid == fid).for_each(|entry| entry.attr = None);
        }
    }

    /// A walk comes to the directories among `entries`, from this place in the order on.
    fn name(&mut self, place: usize, entries: &[DirEntry], cred: &Arc<Credential>) {
        let mut place = place;
        for entry in entries.iter().filter(|entry| entry.file_type == FileType::Directory) {
            if self.dirs.contains_key(&entry.fid) {
                continue;
            }
            self.dirs.insert(entry.fid, Dir { cred: Arc::clone(cred), stage: Stage::Named });
            self.order.insert(place, entry.fid);
            place += 1;
        }
        while self.order.len() > NAMED_MAX {
            let Some(last) = self.order.pop_back() else { return };
            self.forget(last);
            self.dirs.remove(&last);
        }
    }

    /// The next ones that a walk comes to, if less than half of what should be is there or on its way.
    fn next_batch(&mut self, now: Instant, trusted: Duration) -> Option<Batch> {
        self.expire(now, trusted);
        while self.order.front().is_some_and(|dir| !self.dirs.contains_key(dir)) {
            self.order.pop_front();
        }
        let walks = self.last.is_some_and(|last| now.saturating_duration_since(last) < trusted) && self.run >= RUN;
        if !walks || self.coming.len() >= CALLS_MAX || self.entries >= ENTRIES_MAX {
            return None;
        }
        let window = (WINDOW_MIN << (self.run - RUN).min(usize::BITS / 2)).min(WINDOW_MAX);
        let mut wanted: Vec<Fid> = Vec::new();
        let (mut cred, mut known) = (None, 0);
        for dir in self.order.iter().filter(|dir| self.dirs.contains_key(dir)).take(window) {
            match self.dirs.get(dir) {
                Some(Dir { cred: whose, stage: Stage::Named }) if cred.as_ref().is_none_or(|c| c == whose) => {
                    cred = Some(Arc::clone(whose));
                    wanted.push(*dir);
                }
                Some(_) => known += 1,
                None => {}
            }
        }
        let cred = cred.filter(|_| known * 2 < window)?;
        self.batches += 1;
        for dir in &wanted {
            if let Some(dir) = self.dirs.get_mut(dir) {
                dir.stage = Stage::Coming(self.batches);
            }
        }
        self.coming.insert(self.batches, Changes::default());
        Some(Batch { number: self.batches, cred, dirs: wanted })
    }

    /// What is too old to be answered goes.
    fn expire(&mut self, now: Instant, trusted: Duration) {
        while let Some((dir, asked)) = self.fetched.front().copied() {
            let is_there =
                matches!(self.dirs.get(&dir), Some(Dir { stage: Stage::Fetched(l), .. }) if l.asked == asked);
            if is_there && now.saturating_duration_since(asked) < trusted {
                return;
            }
            self.fetched.pop_front();
            if is_there {
                self.forget(dir);
                self.dirs.remove(&dir);
            }
        }
    }

    /// What was answered is not remembered as fetched for ever.
    fn compact(&mut self) {
        if self.fetched.len() > NAMED_MAX {
            let dirs = &self.dirs;
            self.fetched.retain(|(dir, _)| matches!(dirs.get(dir), Some(Dir { stage: Stage::Fetched(_), .. })));
        }
    }
}

#[cfg(test)]
mod tests;
