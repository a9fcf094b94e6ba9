//! The check of a namespace: do the tables of a file system agree with themselves?
//!
//! 1. [`names`]: directory by directory: are the three rows of every name there, do they agree, does it stand for
//!    something; are the counts of the directory right?
//! 2. [`files`]: inode by inode: is the link count that of its names, does a path lead to it, do its layout and
//!    attributes belong to it?
//! 3. [`queues`], [`repositories`], [`exports`], [`tasks`]: do intents, replies, the list of held directories, and what is known of data repositories
//!    name what exists?
//! 4. [`counters`]: are the counters of the file system as a whole right?
//! 5. [`objects`], where OSTs can be asked: does every object belong to a file?
//!
//! # Invariants
//!
//! - A pass reads one snapshot per table walk, a page of each table at a time ([`rows::PAGE`]), so its memory does not
//!   grow with the file system ([`connected`] keeps a bounded set beside it). The writer is never held up.
//! - Every command is one batch, so what is broken in a snapshot was broken. It is looked at again in a new snapshot
//!   before it is told, for it may be gone.
//! - A repair is a [`Mend`]: computed from one snapshot, applied by the writer if the rows it follows from are still the
//!   same, else looked at again. Without a mender nothing changes.
//! - Only what is certain is repaired. A name is what two of its three rows say; nothing that may be the only trace of
//!   data is removed, and what no path leads to any more goes to `/lost+found`.
//! - What depends on a row that does not decode is left alone.

mod connected;
mod counters;
mod directory;
mod draft;
mod exports;
mod files;
mod links;
mod lost_and_found;
mod name;
mod names;
mod objects;
mod owned;
mod queues;
mod repositories;
mod rows;
mod tasks;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sateen_types::fsck::Report;
use sateen_types::{Fid, Finding, FindingKind, FsCode, FsId, FsResult, OstIndex, Repair, Timestamp};

use crate::command::{Command, Inputs, Mend, Outcome};
use crate::namespace;
use crate::store::{Overlay, ReadTxn, Store, Table};

use objects::Decided;
pub use objects::ListObjects;
use rows::Rows;

/// So often a repair is tried again when what it follows from changes under it.
const LOOKS_MAX: u32 = 16;

/// A namespace to check, and how.
pub struct Job<'a> {
    /// Whose tables they are.
    pub fs: FsId,
    /// The tables.
    pub store: &'a dyn Store,
    /// OSTs that layouts may name.
    pub osts: &'a BTreeSet<OstIndex>,
    /// Asks OSTs for their objects.
    pub objects: Option<ListObjects<'a>>,
    /// How long what looks like an object without a file is left alone before it is looked at again.
    pub grace: Duration,
    /// Applies commands as the writer does; without it nothing is repaired.
    pub mender: Option<&'a dyn Fn(Command) -> FsResult<Outcome>>,
    /// Called with the rows read since its last call, to keep the check slow, or to end it.
    pub pace: &'a dyn Fn(u64) -> FsResult<()>,
    /// The clock.
    pub now: &'a dyn Fn() -> Timestamp,
}

/// Applies a command to tables that nobody else uses, as the writer does to those of a server at work. Clients that have a
/// directory to themselves which it changes lose their session.
pub fn apply_alone(store: &dyn Store, command: &Command) -> FsResult<Outcome> {
    let inputs = Inputs {
        now: Timestamp::now(),
        fid: None,
        victim_open: false,
        open: Vec::new(),
        left: Default::default(),
        osts: Arc::default(),
        disk_low: false,
        rotor: 0,
        answered: false,
        may_hold: false,
        exporting: Arc::default(),
    };
    let view = store.snapshot();
    let mut tx = Overlay::new(&*view);
    if let Command::Mend(mend) = command {
        namespace::held::end_holders(&mut tx, mend)?;
    }
    let outcome = namespace::apply(&mut tx, command, &inputs)?;
    let changes = tx.into_changes();
    drop(view);
    store.commit(&changes)?;
    Ok(outcome)
}

/// Checks one namespace. Errors are only those of the check itself: it was stopped, or a repair could not be written.
pub fn check(job: &Job<'_>, report: &mut Report<'_>) -> FsResult<()> {
    let mut check = Check { job, report, lost_and_found: None, decided: Decided::default() };
    let passes = [
        counters::readable,
        names::walk,
        files::walk,
        queues::walk,
        repositories::walk,
        exports::walk,
        tasks::walk,
        counters::check,
        objects::walk,
    ];
    let done = passes.into_iter().try_for_each(|pass| pass(&mut check));
    match done {
        Err(e) if matches!(e.code, FsCode::Corrupt | FsCode::Io) => {
            report.finding(Finding::new(FindingKind::IndexUnreadable, Repair::Impossible, e.message).in_fs(job.fs))?;
        }
        other => other?,
    }
    report.count(|tally| tally.file_systems += 1);
    Ok(())
}

/// What looks know beside the tables.
struct Facts {
    fs: FsId,
    now: Timestamp,
    lost_and_found: Option<Fid>,
}

/// A rule that is broken in one view of the tables.
struct Broken {
    finding: Finding,
    remedy: Remedy,
}

/// What makes it right.
enum Remedy {
    /// Nothing that is certain.
    Unknown,
    /// This.
    Mend(Mend),
    /// A place in `/lost+found`, which has to be there first.
    LostAndFound,
}

impl Facts {
    fn broken(&self, kind: FindingKind, what: impl Into<String>, remedy: Remedy) -> Broken {
        Broken { finding: Finding::new(kind, Repair::Impossible, what).in_fs(self.fs), remedy }
    }
}

impl Broken {
    fn file(self, fid: Fid) -> Option<Broken> {
        Some(Broken { finding: self.finding.file(fid), ..self })
    }
}

/// A check at work.
struct Check<'a, 'r> {
    job: &'a Job<'a>,
    report: &'a mut Report<'r>,
    lost_and_found: Option<Fid>,
    decided: Decided,
}

impl<'a> Check<'a, '_> {
    fn rows<'v>(&self, view: &'v dyn ReadTxn, table: Table) -> Rows<'v>
    where
        'a: 'v,
    {
        Rows::new(view, self.job.pace, table)
    }

    /// Looks at something that seemed broken, as it is now; tells and repairs it if it is. Gives whether it was.
    fn settle(&mut self, look: impl Fn(&dyn ReadTxn, &Facts) -> FsResult<Option<Broken>>) -> FsResult<bool> {
        let mut busy = None;
        for _ in 0..LOOKS_MAX {
            let facts = Facts { fs: self.job.fs, now: (self.job.now)(), lost_and_found: self.lost_and_found };
            let Some(broken) = look(&*self.job.store.snapshot(), &facts)? else { return Ok(busy.is_some()) };
            let repair = match (broken.remedy, self.job.mender) {
                (Remedy::Unknown, _) => Repair::Impossible,
                (_, None) => Repair::Possible,
                (Remedy::Mend(mend), Some(mender)) => match mender(Command::Mend(mend)) {
                    Ok(_) => Repair::Done,
                    Err(e) if e.code == FsCode::Busy => {
                        busy = Some(broken.finding);
                        continue;
                    }
                    Err(e) if e.code == FsCode::Awaiting => {
                        busy = Some(broken.finding);
                        break;
                    }
                    Err(e) => return Err(e),
                },
                // It is there, and that was not enough.
                (Remedy::LostAndFound, _) if self.lost_and_found.is_some() => Repair::Impossible,
                (Remedy::LostAndFound, Some(mender)) => match lost_and_found::find_or_make(self.job, mender)? {
                    Some(dir) => {
                        self.lost_and_found = Some(dir);
                        continue;
                    }
                    None => Repair::Impossible,
                },
            };
            self.report.finding(Finding { repair, ..broken.finding })?;
            return Ok(true);
        }
        if let Some(finding) = busy {
            let what = format!("{}; it is in use, so it was not repaired this time", finding.what);
            self.report.finding(Finding { what, repair: Repair::Possible, ..finding })?;
        }
        Ok(true)
    }

    /// A row whose key or value no version has written. Removed only if it says nothing that is not said elsewhere.
    fn unusable(&mut self, table: Table, key: &[u8], why: &str, removable: bool) -> FsResult<()> {
        self.settle(|tx, facts| rows::unusable(tx, facts, table, key, why, removable)).map(drop)
    }
}
