//! The check of an MDS directory that no server uses: its tables one file system after the other.
//!
//! Holds the directory's lock while it works. Without `repair` it changes nothing but the lock file.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use sateen_runtime::rocksdb_log;
use sateen_types::fsck::Report;
use sateen_types::{
    Finding, FindingKind, FsCode, FsError, FsId, FsName, FsResult, FsckEvent, OstIndex, Repair, Tally, Timestamp,
};

use crate::command::Command;
use crate::dir::{self, MdsDir};
use crate::fsck::{self, Job, apply_alone};
use crate::store::codec::Record;
use crate::store::records::{FileSystemRecord, FsState, OstRecord};
use crate::store::{ReadTxn, RocksOptions, RocksStore, Row, Store, Table, keys};

/// What a check of a directory does.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Correct what is certain.
    pub repair: bool,
    /// Only this file system.
    pub file_system: Option<FsName>,
}

/// Checks the MDS directory `path`; findings go to `sink`, which stops the check by breaking.
pub fn check(path: &Path, options: &Options, sink: &mut dyn FnMut(FsckEvent) -> ControlFlow<()>) -> FsResult<Tally> {
    if !path.join(dir::SUPERBLOCK_FILE).is_file() {
        let what = format!("{} is not an MDS directory: it has no superblock", path.display());
        return Err(FsError::new(FsCode::NotFound, what).with_hint(
            "give the `dir` of sateen-mds's configuration; is its disk mounted? A lost superblock has to be restored",
        ));
    }
    let dir = MdsDir::open(path).map_err(|e| match e.code {
        FsCode::Busy => e.with_hint("check an MDT at work with: sateen fsck --mdt   (or stop its MDS first)"),
        _ => e,
    })?;
    let mut report = Report::new(sink);
    let Some(cluster) = open(&dir.cluster_db(), Table::OF_CLUSTER, options.repair, None, &mut report)? else {
        return report.done();
    };
    let view = cluster.snapshot();
    let mut osts = BTreeSet::new();
    for (key, value) in all(&*view, Table::Osts)? {
        match keys::parse_ost(&key).and_then(|ost| OstRecord::from_bytes(&value).map(|_| ost)) {
            Ok(ost) => drop(osts.insert(ost)),
            Err(e) => row(&mut report, "osts", &e)?,
        }
    }
    let mut found = options.file_system.is_none();
    for (key, value) in all(&*view, Table::FileSystems)? {
        let known = keys::parse_fs(&key).and_then(|id| Ok((id, FileSystemRecord::from_bytes(&value)?)));
        let (id, record) = match known {
            Ok(known) => known,
            Err(e) => {
                row(&mut report, "file_systems", &e)?;
                continue;
            }
        };
        if options.file_system.as_ref().is_none_or(|name| *name == record.name) {
            found = true;
            if record.state == FsState::Available {
                file_system(&dir, id, &osts, options.repair, &mut report)?;
            }
        }
    }
    match &options.file_system {
        Some(name) if !found => {
            let what = format!("there is no file system {name} in {}", path.display());
            Err(FsError::new(FsCode::NotFound, what).with_hint("without --fs all of them are checked"))
        }
        _ => report.done(),
    }
}

/// Rows of a table of the cluster: OSTs and file systems are few.
fn all(view: &dyn ReadTxn, table: Table) -> FsResult<Vec<Row>> {
    view.scan(table, &[], None, usize::from(u16::MAX))
}

fn row(report: &mut Report<'_>, table: &str, e: &FsError) -> FsResult<()> {
    let what = format!("a row of {table} of the cluster cannot be used: {e}");
    report.finding(Finding::new(FindingKind::Row, Repair::Impossible, what))
}

/// Opens a database; `None` if it cannot be read, which is told.
fn open(
    path: &Path,
    tables: &'static [Table],
    repair: bool,
    fs: Option<FsId>,
    report: &mut Report<'_>,
) -> FsResult<Option<RocksStore>> {
    let unreadable = |what: String, repair: Repair| {
        let finding = Finding::new(FindingKind::IndexUnreadable, repair, what);
        fs.map_or(finding.clone(), |fs| finding.in_fs(fs))
    };
    if !path.is_dir() {
        report.finding(unreadable(format!("{} is missing", path.display()), Repair::Impossible))?;
        return Ok(None);
    }
    let opened = match (repair, rocksdb_log::garbage(path)) {
        (true, _) => RocksStore::open(path, tables, RocksOptions::default()),
        (false, Ok(None)) => RocksStore::open_read_only(path, tables, RocksOptions::default()),
        (false, Err(e)) => Err(e),
        // Not damage, but RocksDB would never return, and here nothing is changed.
        (false, Ok(Some(log))) => {
            let what = format!(
                "{} ends in garbage, as a power cut may leave it, so it was not checked; the next start of the MDS cuts \
                 it off, as --repair does",
                log.display()
            );
            report.finding(unreadable(what, Repair::Possible))?;
            return Ok(None);
        }
    };
    match opened {
        Ok(store) => Ok(Some(store)),
        Err(e) => {
            report.finding(unreadable(e.message, Repair::Impossible))?;
            Ok(None)
        }
    }
}

fn file_system(
    dir: &MdsDir,
    fs: FsId,
    osts: &BTreeSet<OstIndex>,
    repair: bool,
    report: &mut Report<'_>,
) -> FsResult<()> {
    let Some(store) = open(&dir.fs_db(fs), Table::OF_FILE_SYSTEM, repair, Some(fs), report)? else { return Ok(()) };
    let mender = |command: Command| apply_alone(&store, &command);
    let job = Job {
        fs,
        store: &store,
        osts,
        objects: None,
        grace: Duration::ZERO,
        mender: if repair { Some(&mender) } else { None },
        pace: &|_| Ok(()),
        now: &Timestamp::now,
    };
    fsck::check(&job, report)
}
