//! What became of assignments, and what is not wanted any more.

use std::time::{Duration, Instant};

use sateen_types::{Extent, Fid, FsError, Remote, RepositoryId, RepositorySettings};

use super::file::intersects;
use super::{DOUBT_AGAIN, LoadTable, Task};

/// Pause before a file is tried again that could not be fetched; doubled each time, up to the longest.
const BACKOFF: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// The longest where nobody waits.
const BACKOFF_IDLE_MAX: Duration = Duration::from_secs(60);
/// A bucket that cannot be watched is tried again after this.
const WATCH_AGAIN: Duration = Duration::from_secs(30);
/// A bucket whose look failed for another reason is looked at again after this.
const CHECK_SOON: Duration = Duration::from_secs(1);

impl LoadTable {
    pub(super) fn take_out(&mut self, number: u64) -> Option<Task> {
        let out = self.out.remove(&number)?;
        if let Some(mine) = out.session.and_then(|session| self.of.get_mut(&session)) {
            mine.remove(&number);
        }
        match &out.task {
            Task::Check(id) => {
                if let Some(jobs) = self.jobs.get_mut(id) {
                    jobs.check_out = false;
                }
            }
            Task::Import(id, _) => {
                if let Some(jobs) = self.jobs.get_mut(id) {
                    jobs.import_out = false;
                }
            }
            Task::Watch(id) => {
                if let Some(jobs) = self.jobs.get_mut(id) {
                    jobs.watch_out = None;
                }
            }
            Task::Fetch { fid, .. } => {
                if let Some(file) = self.files.get_mut(fid) {
                    file.out.remove(&number);
                    file.filled.remove(&number);
                    file.changed.notify_waiters();
                }
            }
            Task::Export(item) => self.end_export(item, number),
            Task::Report(_, task) => self.end_report(*task),
        }
        Some(out.task)
    }

    /// With what a bucket is being looked at.
    pub fn looks_with(&mut self, id: RepositoryId, settings: &RepositorySettings) {
        if let Some(jobs) = self.jobs.get_mut(&id) {
            jobs.check_of = Some(Box::new(settings.clone()));
        }
    }

    /// A bucket was looked at; gives with what.
    pub fn has_looked(&mut self, id: RepositoryId, now: Instant) -> Option<Box<RepositorySettings>> {
        let jobs = self.jobs.get_mut(&id)?;
        (jobs.looked, jobs.doubt_at) = (Some(now), None);
        jobs.check_of.take()
    }

    /// Something went wrong that may be the bucket's fault: it is looked at soon.
    pub fn doubt(&mut self, task: &Task, now: Instant) {
        let id = match task {
            // That was the look.
            Task::Check(_) => return,
            Task::Import(id, _) | Task::Watch(id) | Task::Report(id, _) => *id,
            Task::Fetch { fid, .. } => match self.files.get(fid) {
                Some(file) => file.repository,
                None => return,
            },
            Task::Export(item) => item.id,
        };
        if let Some(jobs) = self.jobs.get_mut(&id) {
            jobs.doubt_at.get_or_insert(jobs.doubted.map_or(now, |before| now.max(before + DOUBT_AGAIN)));
        }
    }

    /// A range was loaded, durably; `remote` is what is missing now.
    pub fn loaded(&mut self, number: u64, remote: Option<&Remote>) {
        let Some(Task::Fetch { fid, range, .. }) = self.take_out(number) else { return };
        let Some(file) = self.files.get_mut(&fid) else { return };
        file.failures = 0;
        match remote {
            Some(remote) => {
                file.remote = remote.clone();
                file.unwant(range);
                self.queue(fid);
                self.drop_idle(fid);
            }
            None => self.forget(fid),
        }
    }

    /// A range could not be loaded: whoever waits for it is told, and it is not wanted until somebody asks again. Fetching ahead
    /// ends, but where all of the file is wanted.
    pub fn failed(&mut self, number: u64, error: &FsError, now: Instant) {
        let Some(Task::Fetch { fid, range, .. }) = self.take_out(number) else { return };
        let Some(file) = self.files.get_mut(&fid) else { return };
        for waiter in file.waiters.values_mut().filter(|w| intersects(w.range, range)) {
            waiter.error = Some(error.clone());
        }
        file.unwant(range);
        file.ahead = file.restore.then(|| Extent { start: 0, end: file.remote.end() });
        file.changed.notify_waiters();
        self.back_off(fid, now);
        self.queue(fid);
        self.drop_idle(fid);
    }

    /// Somebody takes back that all of a file is wanted: nothing of it is fetched ahead. What others wait for is.
    pub fn cancel_restore(&mut self, fid: Fid) {
        if let Some(file) = self.files.get_mut(&fid) {
            (file.restore, file.ahead) = (false, None);
            self.drop_idle(fid);
        }
    }

    fn back_off(&mut self, fid: Fid, now: Instant) {
        if let Some(file) = self.files.get_mut(&fid) {
            let longest = if file.waiters.is_empty() { BACKOFF_IDLE_MAX } else { BACKOFF_MAX };
            let at = now + BACKOFF.saturating_mul(1 << file.failures.min(16)).min(longest);
            file.failures += 1;
            file.retry_at = Some(at);
            self.cooling.push_back((at, fid));
        }
    }

    /// Somebody asks for the file: it is tried again soon.
    pub(super) fn hurry(&mut self, fid: Fid, now: Instant) {
        let soon = now + BACKOFF_MAX;
        if let Some(file) = self.files.get_mut(&fid)
            && file.retry_at.is_some_and(|at| at > soon)
        {
            file.retry_at = Some(soon);
            self.cooling.push_back((soon, fid));
        }
    }

    /// Files that may be tried again.
    pub(super) fn warm_up(&mut self, now: Instant) {
        let (due, later): (Vec<_>, Vec<_>) = self.cooling.drain(..).partition(|(at, _)| *at <= now);
        self.cooling = later.into();
        for (_, fid) in due {
            if let Some(file) = self.files.get_mut(&fid)
                && file.retry_at.is_some_and(|at| at <= now)
            {
                file.retry_at = None;
            }
            self.drop_idle(fid);
        }
    }

    /// An assignment was not carried out: it is to be done again, `later` if it cannot be done now.
    pub fn give_back(&mut self, number: u64, later: bool, now: Instant) {
        match self.take_out(number) {
            Some(Task::Fetch { fid, range, urgent }) => {
                if later {
                    self.back_off(fid, now);
                }
                let Some(file) = self.files.get(&fid) else { return };
                if urgent {
                    let remote = file.remote.clone();
                    self.want(fid, &remote, range);
                } else {
                    self.want_ahead(fid, range);
                }
                self.queue(fid);
            }
            Some(Task::Check(id)) => {
                if let Some(jobs) = self.jobs.get_mut(&id) {
                    jobs.wanted.check_at = Some(now + CHECK_SOON);
                }
            }
            Some(Task::Export(item)) => self.export_given_back(&item, later, now),
            Some(Task::Import(..) | Task::Watch(_) | Task::Report(..)) | None => {}
        }
    }

    /// A range that was picked is not missing as a whole: it is not given out.
    pub fn correct(&mut self, number: u64, remote: &Remote) {
        if let Some(Task::Fetch { fid, .. }) = self.take_out(number)
            && let Some(file) = self.files.get_mut(&fid)
        {
            file.remote = remote.clone();
            let gone: Vec<Extent> = remote.loaded().to_vec();
            gone.into_iter().for_each(|range| file.unwant(range));
            self.queue(fid);
            self.drop_idle(fid);
        }
    }

    /// A bucket cannot be watched; it is tried again after a while.
    pub fn cannot_watch(&mut self, number: u64, now: Instant) {
        if let Some(Task::Watch(id)) = self.take_out(number)
            && let Some(jobs) = self.jobs.get_mut(&id)
        {
            jobs.watch_at = Some(now + WATCH_AGAIN);
        }
    }

    /// An assignment has ended and there is nothing more to do of it.
    pub fn done(&mut self, number: u64) {
        if let Some(Task::Fetch { fid, .. }) = self.take_out(number) {
            self.queue(fid);
            self.drop_idle(fid);
        }
    }
}
