//! The check of an OST directory that no server uses: who it is, its file systems one by one, and what does not belong.
//!
//! Holds the directory's lock while it works. Without `repair` it changes nothing but the lock file.
//!
//! What a repair finds and nobody knows goes to `DIR/fs/<id>/lost+found/`, which no store looks into.
//!
//! Or the index is made anew first ([`rebuild`]); the old one stays as `DIR/fs/<id>/index.damaged-<n>/`.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use sateen_runtime::{DirLock, durable, rocksdb_log};
use sateen_types::{Finding, FindingKind, FsCode, FsError, FsId, FsResult, FsckEvent, OstUuid, Repair, Tally};

use crate::store::disk::{RealDisk, SegmentId};
use crate::store::fsck::rows::View;
use crate::store::fsck::{self, Job, Offline};
use crate::store::index::{Index, IndexCache};
use crate::store::rebuild::rebuild;
use crate::store::segments::{SegmentOwner, io_error};
use crate::superblock::{self, Superblock};
use sateen_types::fsck::Report;

/// Memory for the index.
const INDEX_CACHE_BYTES: usize = 64 << 20;
/// A repair may make more of the index readable; so often it is gone through at most.
const PASSES_MAX: u32 = 4;
/// Where a repair puts what nobody knows.
const LOST_AND_FOUND: &str = "lost+found";

/// How the names of indexes begin that a rebuild has replaced.
const OLD_INDEX: &str = "index.damaged-";

/// What a check of a directory does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Read and verify every stored byte.
    pub deep: bool,
    /// Correct what can be corrected.
    pub repair: bool,
    /// Make the index anew from the segments before it is checked.
    pub rebuild_index: bool,
}

/// Checks the OST in `dir`; findings go to `sink`, which stops the check by breaking.
pub fn check(dir: &Path, options: Options, sink: &mut dyn FnMut(FsckEvent) -> ControlFlow<()>) -> FsResult<Tally> {
    if !dir.join(superblock::FILE).exists() && !dir.join("fs").is_dir() {
        return Err(FsError::new(FsCode::NotFound, format!("{} is not an OST: it has no superblock", dir.display()))
            .with_hint("give the directory of an [[ost]] section; is its disk mounted?"));
    }
    let _lock = DirLock::acquire(dir).map_err(|e| match e.code {
        FsCode::Busy if options.rebuild_index => e.with_hint("stop its OSS first"),
        FsCode::Busy => e.with_hint("check an OST at work with: sateen fsck --ost N   (or stop its OSS first)"),
        _ => e,
    })?;
    let mut report = Report::new(sink);
    let ost = who(dir, &mut report)?;
    if options.rebuild_index && ost.is_none() {
        return Err(FsError::new(FsCode::Corrupt, format!("{} has no readable superblock", dir.display()))
            .with_hint("restore the file superblock from a backup first: it says whose segments these are"));
    }
    foreign(dir, &["superblock", "superblock.tmp", "lock", "fs", "scrub", "scrub.tmp", LOST_AND_FOUND], &mut report)?;
    for (fs, path) in file_systems(dir, &mut report)? {
        foreign(
            &path,
            &["index", "index.mark", "index.new", "index.new.mark", "segments", LOST_AND_FOUND],
            &mut report,
        )?;
        let file_system = FileSystem { path, fs, ost, options };
        if let (true, Some(ost)) = (options.rebuild_index, ost) {
            file_system.rebuild(ost, &mut report)?;
        }
        file_system.check(&mut report)?;
    }
    report.done()
}

/// The OST's identity, if its superblock tells.
fn who(dir: &Path, report: &mut Report<'_>) -> FsResult<Option<OstUuid>> {
    let what = match Superblock::load(dir) {
        Ok(Some(known)) => return Ok(Some(known.ost)),
        Ok(None) => "the superblock is missing".to_owned(),
        Err(e) => e.message,
    };
    report.finding(Finding::new(FindingKind::Superblock, Repair::Impossible, what))?;
    Ok(None)
}

/// The directories of file systems that were not removed.
fn file_systems(dir: &Path, report: &mut Report<'_>) -> FsResult<Vec<(FsId, PathBuf)>> {
    let root = dir.join("fs");
    let mut found = Vec::new();
    for path in entries(&root)? {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        match (name.parse::<u32>(), name.strip_suffix(".dropped").map(str::parse::<u32>)) {
            (Ok(n), _) if n > 0 && path.is_dir() => {
                if !root.join(format!("{n}.dropped")).exists() {
                    found.push((FsId(n), path));
                }
            }
            (_, Some(Ok(_))) => {}
            _ => foreign_file(&path, report)?,
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Entries of `dir` that are none of `known`.
fn foreign(dir: &Path, known: &[&str], report: &mut Report<'_>) -> FsResult<()> {
    for path in entries(dir)? {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let ours = known.contains(&name) || (name.starts_with(OLD_INDEX) && path.is_dir());
        if !ours {
            foreign_file(&path, report)?;
        }
    }
    Ok(())
}

fn foreign_file(path: &Path, report: &mut Report<'_>) -> FsResult<()> {
    let what = format!("{} does not belong to an OST; it is left alone", path.display());
    report.finding(Finding::new(FindingKind::ForeignFile, Repair::Impossible, what))
}

/// What is in `dir`, in order; nothing if it is not there.
fn entries(dir: &Path) -> FsResult<Vec<PathBuf>> {
    let failed = |e: io::Error| io_error(&format!("list {}", dir.display()), &e);
    let mut found = Vec::new();
    match std::fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
        Ok(all) => {
            for entry in all {
                found.push(entry.map_err(failed)?.path());
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

struct FileSystem {
    path: PathBuf,
    fs: FsId,
    ost: Option<OstUuid>,
    options: Options,
}

impl FileSystem {
    fn check(&self, report: &mut Report<'_>) -> FsResult<()> {
        let segments = self.path.join("segments");
        for path in entries(&segments)? {
            if !RealDisk::is_segment(&path) {
                foreign_file(&path, report)?;
            }
        }
        let index = self.path.join("index");
        if !index.is_dir() {
            let what = format!("{} is missing", index.display());
            return self.unreadable(what, report);
        }
        if !self.options.repair {
            return match rocksdb_log::garbage(&index) {
                Ok(None) => self.look(&index, report),
                Err(e) => self.unreadable(e.message, report),
                // Not damage, but RocksDB would never return, and here nothing is changed.
                Ok(Some(log)) => {
                    let what = format!(
                        "{} ends in garbage, as a power cut may leave it, so the index was not checked; the next start \
                         of the OSS cuts it off, as --repair does",
                        log.display()
                    );
                    report.finding(Finding::new(FindingKind::IndexUnreadable, Repair::Possible, what).in_fs(self.fs))
                }
            };
        }
        match Index::cut_log(&index) {
            Ok(0) => {}
            Ok(bytes) => {
                let what = format!("{bytes} bytes that were never committed were cut off the end of the index's log");
                report.finding(Finding::new(FindingKind::Unsettled, Repair::Done, what).in_fs(self.fs))?;
            }
            Err(e) => return self.unreadable(e.message, report),
        }
        // Read-only first: opening an index for changes lets RocksDB remove files that, being damaged, it does not name.
        let mut readable = true;
        let mut sink = |event| {
            readable &= !matches!(event, FsckEvent::Finding(f) if f.kind == FindingKind::IndexUnreadable);
            ControlFlow::Continue(())
        };
        self.look(&index, &mut Report::new(&mut sink))?;
        if readable { self.mend(&index, report) } else { self.look(&index, report) }
    }

    /// Makes the index anew and tells what that came to.
    fn rebuild(&self, ost: OstUuid, report: &mut Report<'_>) -> FsResult<()> {
        let disk = RealDisk::existing(&self.path.join("segments"));
        let owner = SegmentOwner { ost, fs: self.fs };
        let done = rebuild(&self.path, &disk, &owner, &IndexCache::new(INDEX_CACHE_BYTES))?;
        let mut tell = |kind: FindingKind, repair: Repair, what: String, segment: Option<SegmentId>| {
            let finding = Finding::new(kind, repair, what).in_fs(self.fs);
            report.finding(match segment {
                Some(id) => finding.segment(id.0),
                None => finding,
            })
        };
        for place in &done.missing_runs {
            let what = format!("a part of the journal before byte {} is missing; what it said is lost", place.offset);
            tell(FindingKind::Journal, Repair::Impossible, what, Some(place.segment))?;
        }
        for id in &done.headless {
            let what = "its header is damaged, so its journal was not read; what only that said is lost".to_owned();
            tell(FindingKind::Journal, Repair::Impossible, what, Some(*id))?;
        }
        if done.orphans > 0 {
            let what = format!("{} chunks without an object were left out", done.orphans);
            tell(FindingKind::OrphanChunk, Repair::Impossible, what, None)?;
        }
        for id in &done.unclaimed {
            // The next start would delete it.
            self.put_aside(*id).map_err(|e| io_error(&format!("put segment {id} aside"), &e))?;
            let what = format!("nothing that is left of the journal refers to it; it is in {LOST_AND_FOUND} now");
            tell(FindingKind::SegmentUnknown, Repair::Done, what, Some(*id))?;
        }
        let kept = done.kept.as_deref().and_then(Path::file_name).map_or("there was none".to_owned(), |name| {
            format!("the old one is {} beside it, to be deleted when all is well", name.display())
        });
        let what = format!(
            "the index was made anew from {} segments, as of commit {}: {} objects, {} chunks, {} bytes; {} bytes are \
             free again; {kept}",
            done.segments, done.last_commit, done.objects, done.chunks, done.bytes, done.freed
        );
        tell(FindingKind::Rebuilt, Repair::Impossible, what, None)
    }

    /// Goes through the store without changing anything.
    fn look(&self, index: &Path, report: &mut Report<'_>) -> FsResult<()> {
        match Index::open_existing(index, &IndexCache::new(INDEX_CACHE_BYTES), true) {
            Ok(index) => self.pass(&index, None, report),
            Err(e) => self.unreadable(e.message, report),
        }
    }

    /// Goes through the store and corrects, until there is nothing left to correct.
    fn mend(&self, index: &Path, report: &mut Report<'_>) -> FsResult<()> {
        let index = match Index::open_existing(index, &IndexCache::new(INDEX_CACHE_BYTES), false) {
            Ok(index) => index,
            Err(e) => return self.unreadable(e.message, report),
        };
        let put_aside = |id| self.put_aside(id);
        let offline = Offline { index: &index, put_aside: &put_aside };
        self.pass(&index, Some(offline), report)?;
        for _ in 1..PASSES_MAX {
            // What cannot be repaired was told in the first pass.
            let mut mended = Vec::new();
            let mut sink = |event| {
                mended.extend(match event {
                    FsckEvent::Finding(finding) if finding.repair == Repair::Done => Some(finding),
                    _ => None,
                });
                ControlFlow::Continue(())
            };
            self.pass(&index, Some(offline), &mut Report::new(&mut sink))?;
            if mended.is_empty() {
                break;
            }
            mended.into_iter().try_for_each(|finding| report.finding(finding))?;
        }
        Ok(())
    }

    fn pass(&self, index: &Index, repair: Option<Offline<'_>>, report: &mut Report<'_>) -> FsResult<()> {
        let disk = RealDisk::existing(&self.path.join("segments"));
        let job = Job {
            owner: SegmentOwner { ost: self.ost.unwrap_or(OstUuid([0; 16])), fs: self.fs },
            ost_known: self.ost.is_some(),
            view: View::of(index),
            disk: &disk,
            deep: self.options.deep,
            repair,
            online: None,
        };
        fsck::check(&job, report)
    }

    fn unreadable(&self, what: String, report: &mut Report<'_>) -> FsResult<()> {
        report.finding(Finding::new(FindingKind::IndexUnreadable, Repair::Impossible, what).in_fs(self.fs))
    }

    fn put_aside(&self, id: SegmentId) -> io::Result<()> {
        durable::move_into(&RealDisk::existing(&self.path.join("segments")).path(id), &self.path.join(LOST_AND_FOUND))
    }
}
