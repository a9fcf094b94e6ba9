//! What a check of an OST or of an MDT finds: one vocabulary for the stores that check, the wire, and the command that
//! shows it; and the [`Report`] that counts and hands on.

mod report;

pub use report::Report;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Fid, FsId, ObjectId};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// The superblock is missing or damaged.
    Superblock,
    /// The index, or a part of it, cannot be read.
    IndexUnreadable,
    /// A row of the index, or of the metadata, does not decode.
    Row,
    /// An object's counters, size or chunks contradict each other.
    Object,
    /// A chunk whose object has no row.
    OrphanChunk,
    /// A segment with live data is not there.
    SegmentMissing,
    /// A segment's header is damaged or another's.
    SegmentHeader,
    /// A segment with data that the index does not know.
    SegmentUnknown,
    /// A file that does not belong there.
    ForeignFile,
    /// An extent lies outside its segment.
    Extent,
    /// Two chunks claim the same bytes.
    Overlap,
    /// A row of `frees` names bytes that are in use.
    Free,
    /// Space is counted wrongly.
    Space,
    /// A counter of the store as a whole is wrong.
    Counter,
    /// Stored bytes cannot be read, or do not match their checksum.
    Data,
    /// Was not committed when the server stopped; the next start settles it. Not damage.
    Unsettled,
    /// A part of the journal in the segments is missing: what it said is not in an index made from it.
    Journal,
    /// The index was made anew. Not damage.
    Rebuilt,
    /// The rows of one name contradict each other, or the name stands for nothing.
    Name,
    /// Counts of a directory contradict its names, or the directory itself is gone.
    Directory,
    /// A file's link count contradicts its names, or its place among files without a name is wrong.
    Links,
    /// A file or directory that no name leads to.
    Unreachable,
    /// A layout is missing, belongs to nothing, or names an OST that does not exist.
    Layout,
    /// Extended attributes, ACLs or a default layout contradict their inode.
    Attribute,
    /// What an OST is to do contradicts the rest of the metadata.
    Intent,
    /// A reply record without a session.
    Session,
    /// An object whose file does not exist.
    ObjectOrphan,
    /// Something was not looked at. Not damage.
    Unchecked,
}

impl FindingKind {
    /// Every kind, in the order of the wire numbers, which begin with 1.
    pub const ALL: [FindingKind; 28] = [
        FindingKind::Superblock,
        FindingKind::IndexUnreadable,
        FindingKind::Row,
        FindingKind::Object,
        FindingKind::OrphanChunk,
        FindingKind::SegmentMissing,
        FindingKind::SegmentHeader,
        FindingKind::SegmentUnknown,
        FindingKind::ForeignFile,
        FindingKind::Extent,
        FindingKind::Overlap,
        FindingKind::Free,
        FindingKind::Space,
        FindingKind::Counter,
        FindingKind::Data,
        FindingKind::Unsettled,
        FindingKind::Journal,
        FindingKind::Rebuilt,
        FindingKind::Name,
        FindingKind::Directory,
        FindingKind::Links,
        FindingKind::Unreachable,
        FindingKind::Layout,
        FindingKind::Attribute,
        FindingKind::Intent,
        FindingKind::Session,
        FindingKind::ObjectOrphan,
        FindingKind::Unchecked,
    ];

    /// Whether it is only worth knowing.
    pub fn is_notice(self) -> bool {
        matches!(self, FindingKind::Unsettled | FindingKind::Rebuilt | FindingKind::Unchecked)
    }

    /// Its name, as printed and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            FindingKind::Superblock => "superblock",
            FindingKind::IndexUnreadable => "index-unreadable",
            FindingKind::Row => "row",
            FindingKind::Object => "object",
            FindingKind::OrphanChunk => "orphan-chunk",
            FindingKind::SegmentMissing => "segment-missing",
            FindingKind::SegmentHeader => "segment-header",
            FindingKind::SegmentUnknown => "segment-unknown",
            FindingKind::ForeignFile => "foreign-file",
            FindingKind::Extent => "extent",
            FindingKind::Overlap => "overlap",
            FindingKind::Free => "free",
            FindingKind::Space => "space",
            FindingKind::Counter => "counter",
            FindingKind::Data => "data",
            FindingKind::Unsettled => "unsettled",
            FindingKind::Journal => "journal",
            FindingKind::Rebuilt => "rebuilt",
            FindingKind::Name => "name",
            FindingKind::Directory => "directory",
            FindingKind::Links => "links",
            FindingKind::Unreachable => "unreachable",
            FindingKind::Layout => "layout",
            FindingKind::Attribute => "attribute",
            FindingKind::Intent => "intent",
            FindingKind::Session => "session",
            FindingKind::ObjectOrphan => "object-orphan",
            FindingKind::Unchecked => "unchecked",
        }
    }
}

/// What can be done about a finding here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Repair {
    /// Nothing: what is lost is lost. The file has to be restored.
    Impossible,
    /// `--repair` would do it.
    Possible,
    /// It is done.
    Done,
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// What can be done.
    pub repair: Repair,
    /// File system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fs: Option<u32>,
    /// File.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fid: Option<Fid>,
    /// Component of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<u32>,
    /// Stripe of the component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stripe: Option<u32>,
    /// Chunk of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk: Option<u64>,
    /// Segment file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<u64>,
    /// The facts, in words.
    pub what: String,
}

impl Finding {
    /// A finding about no place in particular.
    pub fn new(kind: FindingKind, repair: Repair, what: impl Into<String>) -> Finding {
        Finding {
            kind,
            repair,
            fs: None,
            fid: None,
            component: None,
            stripe: None,
            chunk: None,
            segment: None,
            what: what.into(),
        }
    }

    /// In this file system.
    #[must_use]
    pub fn in_fs(self, fs: FsId) -> Finding {
        Finding { fs: Some(fs.0), ..self }
    }

    /// About this file.
    #[must_use]
    pub fn file(self, fid: Fid) -> Finding {
        Finding { fid: Some(fid), ..self }
    }

    /// About this object.
    #[must_use]
    pub fn of(self, object: &ObjectId) -> Finding {
        Finding {
            fs: Some(object.fs.0),
            fid: Some(object.fid),
            component: Some(object.component.0),
            stripe: Some(object.stripe.0),
            ..self
        }
    }

    /// About this chunk of the object.
    #[must_use]
    pub fn chunk(self, number: u64) -> Finding {
        Finding { chunk: Some(number), ..self }
    }

    /// About this segment.
    #[must_use]
    pub fn segment(self, segment: u64) -> Finding {
        Finding { segment: Some(segment), ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.kind.name())?;
        if let Some(fs) = self.fs {
            write!(f, " fs {fs}")?;
        }
        if let Some(fid) = self.fid {
            write!(f, " {fid}")?;
        }
        if let (Some(component), Some(stripe)) = (self.component, self.stripe) {
            write!(f, " component {component} stripe {stripe}")?;
        }
        if let Some(chunk) = self.chunk {
            write!(f, " chunk {chunk}")?;
        }
        if let Some(segment) = self.segment {
            write!(f, " segment {segment:016x}")?;
        }
        write!(f, " {}", self.what)
    }
}

/// How far a check is, and in the end what it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// File systems checked.
    pub file_systems: u64,
    /// Objects checked.
    pub objects: u64,
    /// Chunks checked.
    pub chunks: u64,
    /// Segment files checked.
    pub segments: u64,
    /// Stored bytes read and verified.
    pub bytes_verified: u64,
    /// Findings that are damage, those repaired included.
    pub damage: u64,
    /// Findings that are only worth knowing.
    pub notices: u64,
    /// Findings that were repaired.
    pub repaired: u64,
    /// Files and directories checked.
    #[serde(default)]
    pub inodes: u64,
    /// Names checked.
    #[serde(default)]
    pub names: u64,
}

/// What a check says while it runs. The last one is `Done`; without it the check was cut off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum FsckEvent {
    /// Something is wrong.
    Finding(Finding),
    /// So far.
    Progress(Tally),
    /// The check is over.
    Done(Tally),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ComponentId, StripeIndex};

    #[test]
    fn a_finding_names_its_file_and_place_in_words_and_in_json() {
        let object = ObjectId { fs: FsId(3), fid: Fid::ROOT, component: ComponentId(1), stripe: StripeIndex(2) };
        let finding = Finding::new(FindingKind::Data, Repair::Impossible, "bad bytes").of(&object).chunk(7).segment(9);
        assert_eq!(
            finding.to_string(),
            "data: fs 3 [0x200000007:0x1:0x0] component 1 stripe 2 chunk 7 segment 0000000000000009 bad bytes"
        );
        for kind in FindingKind::ALL {
            assert_eq!(serde_json::to_value(kind).expect("json"), kind.name());
        }
        let event = FsckEvent::Finding(finding);
        let text = serde_json::to_string(&event).expect("json");
        assert_eq!(serde_json::from_str::<FsckEvent>(&text).expect("own text"), event);
    }
}
