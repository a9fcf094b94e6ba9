//! Attributes that will be asked for, fetched a page at a time: what Lustre calls statahead.
//!
//! Programs look at the files of a directory one after the other. Asked name by name the MDS gives each of them a round trip;
//! from the third in a row on, those that follow come in pages, before they are asked for. What was fetched is answered for
//! as long as attributes may be trusted, counted from the moment it was asked for, and no longer if this client changes it.
//!
//! Each is answered once. Who asks again within that time (a kernel that was told how long to trust the answer) wants to know
//! better, for instance because the file it was given does not exist any more.
//!
//! Nothing is kept of directories and of files with several names (what changes them here cannot be told from their names),
//! nor of files that are written elsewhere, which are sent without attributes. Files that are open here are the caller's
//! business. Pure but for the lock; who fetches is in `lookup.rs`. Whole listings are fetched likewise ([`listings`], `listing.rs`).

mod listings;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sateen_types::op::{DirEntry, Mutation};
use sateen_types::{Attr, Credential, Fid, FileType, Name};

use listings::Listings;
pub(crate) use listings::{Batch, Listing};

/// So many names in a row make a reader of the directory.
const RUN: u32 = 3;
/// Names that one may leave out: positions, some of which nobody has any more.
const GAP: u64 = 16;
/// Names of the first page, and most of one.
const PAGE_MIN: u32 = 64;
const PAGE_MAX: u32 = 1024;
/// Directories that are remembered, and names of each: 10 MiB, or 30 if names are long.
const DIRS_MAX: usize = 16;
const NAMES_MAX: usize = 2 * PAGE_MAX as usize;
/// A directory that may not be listed is asked for its names one by one for so long.
const REST: Duration = Duration::from_secs(10);
/// Changes made while a page is on its way. If there are more, the page is not used.
const TAINTS_MAX: usize = 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// How long attributes may be trusted; zero: nothing is fetched.
    trusted: Duration,
    state: Mutex<State>,
    listings: Mutex<Listings>,
}

#[derive(Debug, Default)]
struct State {
    dirs: HashMap<Fid, Dir>,
    /// Where a file is known: it has one name.
    places: HashMap<Fid, (Fid, Name)>,
    /// Numbers pages, so that a late one is told from that of a directory that was forgotten meanwhile.
    pages: u64,
}

/// A directory whose names are being looked up.
#[derive(Debug)]
struct Dir {
    cred: Credential,
    /// Position of the name that was asked for last, when, and how many were asked for in a row before it.
    last: u64,
    asked: Instant,
    run: u32,
    known: HashMap<Name, Known>,
    /// Position up to which names were fetched.
    until: u64,
    /// None follow.
    end: bool,
    page: u32,
    coming: Option<Coming>,
    /// No page is asked for before.
    rests_until: Option<Instant>,
}

#[derive(Debug)]
struct Known {
    attr: Attr,
    cookie: u64,
    asked: Instant,
}

/// A page on its way, and what was changed since it was asked for.
#[derive(Debug)]
struct Coming {
    number: u64,
    /// The reader has gone elsewhere meanwhile.
    passed_by: bool,
    names: HashSet<Name>,
    fids: HashSet<Fid>,
}

/// A page to be fetched: names behind `after`, at most `max`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    number: u64,
    pub dir: Fid,
    pub cred: Credential,
    pub after: u64,
    pub max: u32,
}

impl Ahead {
    /// Attributes may be `trusted` for so long.
    pub fn new(trusted: Duration) -> Ahead {
        Ahead { trusted, state: Mutex::default(), listings: Mutex::default() }
    }

    /// Attributes of a name with their age, if they were fetched and not answered yet; and a page that should be fetched.
    pub fn find(&self, cred: &Credential, dir: Fid, name: &Name) -> (Option<(Attr, Duration)>, Option<Page>) {
        self.find_at(cred, dir, name, Instant::now())
    }

    fn find_at(
        &self,
        cred: &Credential,
        dir: Fid,
        name: &Name,
        now: Instant,
    ) -> (Option<(Attr, Duration)>, Option<Page>) {
        if self.trusted.is_zero() {
            return (None, None);
        }
        let State { dirs, pages, places } = &mut *self.state.lock();
        let Some(reader) = dirs.get_mut(&dir).filter(|d| d.cred == *cred) else { return (None, None) };
        let Some(Known { attr, cookie, asked }) = reader.known.remove(name) else { return (None, None) };
        places.remove(&attr.fid);
        let age = now.saturating_duration_since(asked);
        if age >= self.trusted {
            return (None, None);
        }
        reader.at(cookie, now, self.trusted);
        let (fid, page) = (attr.fid, reader.next_page(dir, pages));
        // Nothing older is answered afterwards.
        self.listings.lock().told(fid);
        (Some((attr, age)), page)
    }

    /// A directory from its beginning, if it was fetched and not answered yet, with its age.
    pub fn find_listing(&self, cred: &Credential, dir: Fid) -> Option<(Listing, Duration)> {
        if self.trusted.is_zero() {
            return None;
        }
        let now = Instant::now();
        let found = self.listings.lock().find(cred, dir, now, self.trusted)?;
        let age = now.saturating_duration_since(found.asked);
        Some((found, age))
    }

    /// A directory was listed from its beginning. Gives others that should be listed.
    pub fn listed(&self, cred: &Credential, dir: Fid, entries: &[DirEntry]) -> Option<Batch> {
        if self.trusted.is_zero() {
            return None;
        }
        self.listings.lock().listed(cred, dir, entries, (Instant::now(), self.trusted))
    }

    /// What came of those, in their order. Gives others that should be listed.
    pub fn fetched_listings(&self, batch: &Batch, listings: Vec<Option<Listing>>) -> Option<Batch> {
        self.listings.lock().fetched(batch, listings, (Instant::now(), self.trusted))
    }

    /// The MDS was asked for a name, and has it at `cookie`. Gives the page that should be fetched.
    pub fn asked(&self, cred: &Credential, dir: Fid, cookie: u64) -> Option<Page> {
        self.asked_at(cred, dir, cookie, Instant::now())
    }

    fn asked_at(&self, cred: &Credential, dir: Fid, cookie: u64, now: Instant) -> Option<Page> {
        if self.trusted.is_zero() || cookie == 0 {
            return None;
        }
        let state = &mut *self.state.lock();
        if state.dirs.get(&dir).is_none_or(|d| d.cred != *cred) {
            state.forget_dir(dir);
            state.make_room();
            state.dirs.insert(dir, Dir::new(cred.clone(), cookie, now));
        }
        let reader = state.dirs.get_mut(&dir)?;
        reader.at(cookie, now, self.trusted);
        reader.next_page(dir, &mut state.pages)
    }

    /// A page that was asked for at `asked`, or `None` if it could not be had: then the directory is left alone for now.
    pub fn fetched(&self, page: &Page, asked: Instant, entries: Option<(Vec<DirEntry>, bool)>) {
        let state = &mut *self.state.lock();
        let Some(reader) = state.dirs.get_mut(&page.dir) else { return };
        let Some(coming) = reader.coming.take_if(|coming| coming.number == page.number) else { return };
        let Some((entries, end)) = entries else {
            reader.rests_until = Some(asked + REST);
            return;
        };
        // What the reader has passed goes; everything, if it jumps about so that much is left.
        let (last, ahead) = (reader.last, reader.known.values().filter(|known| known.cookie >= reader.last).count());
        let places = &mut state.places;
        reader.known.retain(|_, known| {
            let keep = known.cookie >= last && ahead + entries.len() <= NAMES_MAX;
            if !keep {
                places.remove(&known.attr.fid);
            }
            keep
        });
        if coming.names.len() + coming.fids.len() >= TAINTS_MAX {
            return;
        }
        if !coming.passed_by {
            reader.until = entries.last().map_or(page.after, |entry| entry.cookie);
            reader.end = end || entries.is_empty();
        }
        for DirEntry { name, cookie, attr, .. } in entries {
            let Some(attr) = attr.filter(|attr| attr.file_type != FileType::Directory && attr.nlink == 1) else {
                continue;
            };
            if !coming.names.contains(&name) && !coming.fids.contains(&attr.fid) {
                state.keep(page.dir, name, Known { attr, cookie, asked });
            }
        }
    }

    /// The MDS has told of the file what may be newer: by an open, or because somebody asked.
    pub fn told(&self, fid: Fid) {
        self.listings.lock().told(fid);
        let state = &mut *self.state.lock();
        if !state.dirs.is_empty() {
            state.forget(fid);
        }
    }

    /// This client has made a change, or may have.
    pub fn changed(&self, op: &Mutation, fids: &[Fid]) {
        self.listings.lock().changed(fids);
        let state = &mut *self.state.lock();
        if state.dirs.is_empty() {
            return;
        }
        fids.iter().for_each(|fid| state.forget(*fid));
        match op {
            Mutation::Create(op) => state.forget_name(op.parent, &op.name),
            Mutation::Mkdir { parent, name, .. }
            | Mutation::Mknod { parent, name, .. }
            | Mutation::Symlink { parent, name, .. }
            | Mutation::Link { parent, name, .. }
            | Mutation::Unlink { parent, name }
            | Mutation::Rmdir { parent, name } => state.forget_name(*parent, name),
            Mutation::Rename { parent, name, new_parent, new_name, .. } => {
                state.forget_name(*parent, name);
                state.forget_name(*new_parent, new_name);
            }
            // Of a directory: who may look its names up may be others.
            Mutation::SetAttr(op) => state.forget_dir(op.fid),
            Mutation::SetXattr { fid, .. } | Mutation::RemoveXattr { fid, .. } => state.forget_dir(*fid),
            Mutation::Instantiate { .. }
            | Mutation::SetLayout { .. }
            | Mutation::SetDefaultLayout { .. }
            | Mutation::WriteDone(_)
            | Mutation::ReadDone(_) => {}
        }
    }

    /// Whatever others did before now must be seen from now on.
    pub fn clear(&self) {
        self.listings.lock().clear();
        let mut state = self.state.lock();
        *state = State { pages: state.pages, ..State::default() };
    }
}

impl Dir {
    fn new(cred: Credential, cookie: u64, now: Instant) -> Dir {
        Dir {
            cred,
            last: cookie,
            asked: now,
            run: 0,
            known: HashMap::new(),
            until: 0,
            end: false,
            page: PAGE_MIN,
            coming: None,
            rests_until: None,
        }
    }

    /// The name at `cookie` is asked for.
    fn at(&mut self, cookie: u64, now: Instant, trusted: Duration) {
        let in_time = now.saturating_duration_since(self.asked) < trusted;
        let goes_on = in_time && cookie >= self.last && cookie - self.last <= GAP;
        self.run = if goes_on { self.run.saturating_add(1) } else { 1 };
        if !goes_on {
            // What was fetched from here on may come in useful; what would be fetched next would not.
            (self.until, self.end, self.page) = (0, false, PAGE_MIN);
            self.coming.iter_mut().for_each(|coming| coming.passed_by = true);
        }
        (self.last, self.asked) = (cookie, now);
    }

    /// The next page, if the reader comes near the end of what is there.
    fn next_page(&mut self, dir: Fid, pages: &mut u64) -> Option<Page> {
        let left = self.until.saturating_sub(self.last);
        let at_the_end = self.end && self.last <= self.until;
        let rests = self.rests_until.is_some_and(|until| self.asked < until);
        if self.run < RUN || self.coming.is_some() || left > u64::from(self.page / 2) || at_the_end || rests {
            return None;
        }
        *pages += 1;
        self.coming = Some(Coming { number: *pages, passed_by: false, names: HashSet::new(), fids: HashSet::new() });
        self.page = if self.until == 0 { PAGE_MIN } else { (self.page * 4).min(PAGE_MAX) };
        let after = self.last.max(self.until);
        Some(Page { number: *pages, dir, cred: self.cred.clone(), after, max: self.page })
    }
}

impl State {
    fn make_room(&mut self) {
        if self.dirs.len() >= DIRS_MAX {
            let oldest = self.dirs.iter().min_by_key(|(_, dir)| dir.asked).map(|(fid, _)| *fid);
            oldest.into_iter().for_each(|fid| self.forget_dir(fid));
        }
    }

    fn forget_dir(&mut self, dir: Fid) {
        for known in self.dirs.remove(&dir).into_iter().flat_map(|dir| dir.known.into_values()) {
            self.places.remove(&known.attr.fid);
        }
    }

    /// Of a file that was moved, and of one that took its name, nothing older stays.
    fn keep(&mut self, dir: Fid, name: Name, known: Known) {
        if let Some((dir, name)) = self.places.insert(known.attr.fid, (dir, name.clone()))
            && let Some(dir) = self.dirs.get_mut(&dir)
        {
            dir.known.remove(&name);
        }
        let before = self.dirs.get_mut(&dir).and_then(|dir| dir.known.insert(name, known));
        if let Some(before) = before {
            self.places.remove(&before.attr.fid);
        }
    }

    fn forget(&mut self, fid: Fid) {
        if let Some((dir, name)) = self.places.remove(&fid)
            && let Some(dir) = self.dirs.get_mut(&dir)
        {
            dir.known.remove(&name);
        }
        for coming in self.dirs.values_mut().filter_map(|dir| dir.coming.as_mut()) {
            if coming.fids.len() < TAINTS_MAX {
                coming.fids.insert(fid);
            }
        }
    }

    fn forget_name(&mut self, dir: Fid, name: &Name) {
        let Some(dir) = self.dirs.get_mut(&dir) else { return };
        if let Some(known) = dir.known.remove(name) {
            self.places.remove(&known.attr.fid);
        }
        if let Some(coming) = dir.coming.as_mut().filter(|coming| coming.names.len() < TAINTS_MAX) {
            coming.names.insert(name.clone());
        }
    }
}

#[cfg(test)]
mod tests;
