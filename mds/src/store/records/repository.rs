//! Links to data repositories, and what files have to do with them.

use sateen_types::limits::{IMPORT_RANGES_MAX, SYNC_INTERVAL_S_DEFAULT};
use sateen_types::repository::{
    ConflictPolicy, EventSource, ExportStatus, ImportState, ImportStatus, KeyRange, Remote, Repository,
    RepositoryEvents, RepositorySettings, RepositoryState, Skipped,
};
use sateen_types::{Extent, Fid, HsmFlags, RepositoryId, Timestamp};

use crate::store::codec::{Reader, Record, Writer};

/// Smallest stored object that was skipped, bytes: bounds a count before anything is allocated for it.
const SKIPPED_BYTES_MIN: usize = 12;

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryRecord {
    /// What was chosen.
    pub settings: RepositorySettings,
    /// What it is doing.
    pub state: RepositoryState,
    /// Why it is misconfigured or failed.
    pub message: String,
    /// When it was made.
    pub created: Timestamp,
    /// The directory.
    pub root: Fid,
    /// Counts of the import.
    pub import: ImportStatus,
    /// Which import it is, from 1: pages of an earlier one are refused.
    pub run: u64,
    /// What the import has not looked at: rising ranges that have no key in common, at most [`IMPORT_RANGES_MAX`]. None, if none goes on.
    pub left: Vec<KeyRange>,
    /// The next FID that an import gives: sequence and number; sequence 0: none was taken.
    pub next_fid: (u64, u32),
    /// End of the last complete comparison of bucket and directory.
    pub synced: Option<Timestamp>,
    /// Whether the import is one.
    pub sync: Sync,
}

/// Whether an import compares: names go whose objects are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sync {
    /// It only adds.
    #[default]
    No,
    /// Somebody has asked for it: everything is carried over.
    Asked,
    /// It was due: what the link says is carried over.
    Scheduled,
}

impl RepositoryRecord {
    /// As administrators see it; what only the server that runs knows is left out.
    pub fn show(self, id: RepositoryId) -> Repository {
        Repository {
            id,
            settings: self.settings,
            state: self.state,
            message: self.message,
            created: self.created,
            root: self.root,
            import: self.import,
            export: ExportStatus::default(),
            synced: self.synced,
            conflicts: 0,
            watched: None,
            watch_message: String::new(),
        }
    }
}

impl Record for RepositoryRecord {
    const WHAT: &'static str = "repository";
    /// 2: with what is carried over by itself. 3: what is left of an import is several ranges.
    const VERSION: u8 = 3;

    fn write(&self, out: &mut Writer) {
        let s = &self.settings;
        for text in [&s.path.to_string(), &s.url.to_string(), &s.endpoint, &s.region, &s.profile] {
            out.bytes(text.as_bytes());
        }
        out.u8(events(s.auto_import));
        out.u8(events(s.auto_export));
        out.u32(s.chunk_mib);
        out.u8(u8::from(s.batch_import));
        out.u8(match self.state {
            RepositoryState::Creating => 1,
            RepositoryState::Available => 2,
            RepositoryState::Misconfigured => 3,
            RepositoryState::Updating => 4,
            RepositoryState::Deleting => 5,
            RepositoryState::Failed => 6,
        });
        out.bytes(self.message.as_bytes());
        out.time(self.created);
        out.fid(self.root);
        write_status(out, &self.import);
        out.u64(self.run);
        write_ranges(out, &self.left);
        out.u64(self.next_fid.0);
        out.u32(self.next_fid.1);
        out.u8(match s.conflict {
            ConflictPolicy::Manual => 0,
            ConflictPolicy::RepositoryWins => 1,
            ConflictPolicy::FilesystemWins => 2,
            ConflictPolicy::KeepBoth => 3,
        });
        out.u32(s.sync_interval_s);
        out.bytes(s.event_source.to_string().as_bytes());
        write_moment(out, self.synced);
        out.u8(match self.sync {
            Sync::No => 0,
            Sync::Asked => 1,
            Sync::Scheduled => 2,
        });
    }

    fn read(input: &mut Reader<'_>) -> Option<RepositoryRecord> {
        let mut settings = RepositorySettings {
            path: text(input)?.parse().ok()?,
            url: text(input)?.parse().ok()?,
            endpoint: text(input)?,
            region: text(input)?,
            profile: text(input)?,
            auto_import: read_events(input)?,
            auto_export: read_events(input)?,
            chunk_mib: input.u32()?,
            batch_import: input.bool()?,
            conflict: ConflictPolicy::Manual,
            sync_interval_s: SYNC_INTERVAL_S_DEFAULT,
            event_source: EventSource::None,
        };
        let state = match input.u8()? {
            1 => RepositoryState::Creating,
            2 => RepositoryState::Available,
            3 => RepositoryState::Misconfigured,
            4 => RepositoryState::Updating,
            5 => RepositoryState::Deleting,
            6 => RepositoryState::Failed,
            _ => return None,
        };
        let (message, created, root) = (text(input)?, input.time()?, input.fid()?);
        let (import, run) = (read_status(input)?, input.u64()?);
        let left = match input.version() {
            ..=2 => {
                let goes_on = matches!(import.state, ImportState::Queued | ImportState::Running);
                let range = KeyRange { after: input.bytes()?.to_vec(), end: None };
                if goes_on { vec![range] } else { Vec::new() }
            }
            _ => read_ranges(input)?,
        };
        let next_fid = (input.u64()?, input.u32()?);
        let (mut synced, mut sync) = (None, Sync::No);
        if input.version() > 1 {
            settings.conflict = match input.u8()? {
                0 => ConflictPolicy::Manual,
                1 => ConflictPolicy::RepositoryWins,
                2 => ConflictPolicy::FilesystemWins,
                3 => ConflictPolicy::KeepBoth,
                _ => return None,
            };
            settings.sync_interval_s = input.u32()?;
            settings.event_source = text(input)?.parse().ok()?;
            synced = read_moment(input)?;
            sync = match input.u8()? {
                0 => Sync::No,
                1 => Sync::Asked,
                2 => Sync::Scheduled,
                _ => return None,
            };
        }
        let settings = settings.checked().ok()?;
        Some(RepositoryRecord { settings, state, message, created, root, import, run, left, next_fid, synced, sync })
    }
}

fn write_ranges(out: &mut Writer, ranges: &[KeyRange]) {
    out.u32(ranges.len() as u32);
    for range in ranges {
        out.bytes(&range.after);
        out.u8(u8::from(range.end.is_some()));
        out.bytes(range.end.as_deref().unwrap_or_default());
    }
}

fn read_ranges(input: &mut Reader<'_>) -> Option<Vec<KeyRange>> {
    let count = input.u32()? as usize;
    if count > IMPORT_RANGES_MAX {
        return None;
    }
    let mut range = || {
        let (after, has_end, end) = (input.bytes()?.to_vec(), input.bool()?, input.bytes()?.to_vec());
        Some(KeyRange { after, end: has_end.then_some(end) })
    };
    (0..count).map(|_| range()).collect()
}

pub(super) fn text(input: &mut Reader<'_>) -> Option<String> {
    String::from_utf8(input.bytes()?.to_vec()).ok()
}

fn events(e: RepositoryEvents) -> u8 {
    u8::from(e.created) | u8::from(e.changed) << 1 | u8::from(e.deleted) << 2
}

fn read_events(input: &mut Reader<'_>) -> Option<RepositoryEvents> {
    let bits = input.u8()?;
    let event = |bit: u8| bits & bit != 0;
    (bits < 8).then(|| RepositoryEvents { created: event(1), changed: event(2), deleted: event(4) })
}

pub(super) fn write_moment(out: &mut Writer, t: Option<Timestamp>) {
    out.u8(u8::from(t.is_some()));
    out.time(t.unwrap_or_default());
}

/// The outer `None`: these bytes are no moment.
#[allow(clippy::option_option, reason = "malformed, absent and there are three things")]
pub(super) fn read_moment(input: &mut Reader<'_>) -> Option<Option<Timestamp>> {
    let there = input.bool()?;
    let time = input.time()?;
    Some(there.then_some(time))
}

fn write_status(out: &mut Writer, s: &ImportStatus) {
    out.u8(match s.state {
        ImportState::None => 0,
        ImportState::Queued => 1,
        ImportState::Running => 2,
        ImportState::Done => 3,
        ImportState::Failed => 4,
    });
    out.bytes(s.message.as_bytes());
    for n in [s.objects, s.created, s.changed, s.skipped, s.bytes] {
        out.u64(n);
    }
    write_moment(out, s.started);
    write_moment(out, s.ended);
    write_skipped(out, &s.first_skipped);
}

pub(super) fn write_skipped(out: &mut Writer, all: &[Skipped]) {
    out.u32(all.len() as u32);
    for skipped in all {
        out.bytes(&skipped.key);
        out.bytes(skipped.code.as_bytes());
        out.bytes(skipped.message.as_bytes());
    }
}

pub(super) fn read_skipped(input: &mut Reader<'_>) -> Option<Vec<Skipped>> {
    (0..input.count(SKIPPED_BYTES_MIN)?)
        .map(|_| Some(Skipped { key: input.bytes()?.to_vec(), code: text(input)?, message: text(input)? }))
        .collect()
}

fn read_status(input: &mut Reader<'_>) -> Option<ImportStatus> {
    let state = match input.u8()? {
        0 => ImportState::None,
        1 => ImportState::Queued,
        2 => ImportState::Running,
        3 => ImportState::Done,
        4 => ImportState::Failed,
        _ => return None,
    };
    Some(ImportStatus {
        state,
        message: text(input)?,
        objects: input.u64()?,
        created: input.u64()?,
        changed: input.u64()?,
        skipped: input.u64()?,
        bytes: input.u64()?,
        started: read_moment(input)?,
        ended: read_moment(input)?,
        first_skipped: read_skipped(input)?,
    })
}

/// What a file, directory or symbolic link has to do with a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HsmRecord {
    /// The link. It may be gone.
    pub repository: RepositoryId,
    /// Key of the object within the prefix.
    pub key: Vec<u8>,
    /// Of the object that the file was made of.
    pub etag: String,
    /// Of the object, bytes.
    pub size: u64,
    /// When the object was written.
    pub modified: Timestamp,
    /// Lustre's flags.
    pub flags: HsmFlags,
    /// When file and object were last put in agreement from here; 0: never, or by a server of before. What was seen of the bucket
    /// with a stamp that is not above this is old.
    pub stamp: u64,
    /// Mode or owner were changed here since.
    pub attributes_changed: bool,
}

impl Record for HsmRecord {
    const WHAT: &'static str = "HSM state";
    const VERSION: u8 = 2;

    fn version(&self) -> u8 {
        if self.stamp == 0 && !self.attributes_changed { 1 } else { 2 }
    }
    fn write(&self, out: &mut Writer) {
        out.u64(self.repository.0);
        out.bytes(&self.key);
        out.bytes(self.etag.as_bytes());
        out.u64(self.size);
        out.time(self.modified);
        out.u32(self.flags.0);
        if self.version() > 1 {
            out.u64(self.stamp);
            out.u8(u8::from(self.attributes_changed));
        }
    }
    fn read(input: &mut Reader<'_>) -> Option<HsmRecord> {
        let mut record = HsmRecord {
            repository: RepositoryId(input.u64()?),
            key: input.bytes()?.to_vec(),
            etag: text(input)?,
            size: input.u64()?,
            modified: input.time()?,
            flags: HsmFlags(input.u32()?),
            stamp: 0,
            attributes_changed: false,
        };
        if input.version() > 1 {
            (record.stamp, record.attributes_changed) = (input.u64()?, input.bool()?);
            if record.version() == 1 {
                return None;
            }
        }
        Some(record)
    }
}

/// What the owner of a file has decided: some of [`HsmFlags::RULES`], one at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RulesRecord(pub HsmFlags);

impl Record for RulesRecord {
    const WHAT: &'static str = "rules of a file";
    fn write(&self, out: &mut Writer) {
        out.u32(self.0.0);
    }
    fn read(input: &mut Reader<'_>) -> Option<RulesRecord> {
        let flags = HsmFlags(input.u32()?);
        (flags != HsmFlags(0) && HsmFlags::RULES.has(flags)).then_some(RulesRecord(flags))
    }
}

/// What is loaded of a file that is not all there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadRecord {
    /// Which bytes.
    pub remote: Remote,
    /// Somebody asked for all of it: it is loaded in the background, and listed among those that are.
    pub restore: bool,
}

impl Record for LoadRecord {
    const WHAT: &'static str = "loaded ranges";
    fn write(&self, out: &mut Writer) {
        out.u8(u8::from(self.restore));
        out.u64(self.remote.end());
        out.u32(self.remote.loaded().len() as u32);
        for r in self.remote.loaded() {
            out.u64(r.start);
            out.u64(r.end);
        }
    }
    fn read(input: &mut Reader<'_>) -> Option<LoadRecord> {
        let restore = input.bool()?;
        let end = input.u64()?;
        let loaded = (0..input.count(16)?).map(|_| Some(Extent { start: input.u64()?, end: input.u64()? }));
        Some(LoadRecord { remote: Remote::new(end, loaded.collect::<Option<_>>()?).ok()?, restore })
    }
}
