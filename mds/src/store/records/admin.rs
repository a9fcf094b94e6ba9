//! Intents, sessions, file systems, OSTs.

use sateen_types::{ComponentId, Compression, Fid, FsName, OstUuid, StripeIndex, Timestamp};

use crate::store::codec::{Reader, Record, Writer};

/// One object to cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TruncateObject {
    /// Component of the file's layout.
    pub component: ComponentId,
    /// Stripe of the component.
    pub stripe: StripeIndex,
    /// log2 of its chunk size.
    pub chunk_log2: u8,
    /// New size of the object.
    pub size: u64,
}

/// Objects of one file on one OST to cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TruncateIntent {
    /// The file.
    pub fid: Fid,
    /// Its objects there.
    pub objects: Vec<TruncateObject>,
}

impl Record for TruncateIntent {
    const WHAT: &'static str = "truncate intent";
    fn write(&self, out: &mut Writer) {
        out.fid(self.fid);
        out.u32(self.objects.len() as u32);
        for o in &self.objects {
            out.u32(o.component.0);
            out.u32(o.stripe.0);
            out.u8(o.chunk_log2);
            out.u64(o.size);
        }
    }
    fn read(input: &mut Reader<'_>) -> Option<TruncateIntent> {
        let fid = input.fid()?;
        let objects = (0..input.count(17)?).map(|_| {
            Some(TruncateObject {
                component: ComponentId(input.u32()?),
                stripe: StripeIndex(input.u32()?),
                chunk_log2: input.u8()?,
                size: input.u64()?,
            })
        });
        Some(TruncateIntent { fid, objects: objects.collect::<Option<_>>()? })
    }
}

/// Objects of one file on one OST to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestroyIntent {
    /// The file.
    pub fid: Fid,
    /// Its objects there.
    pub objects: Vec<(ComponentId, StripeIndex)>,
}

impl Record for DestroyIntent {
    const WHAT: &'static str = "destroy intent";
    fn write(&self, out: &mut Writer) {
        out.fid(self.fid);
        out.u32(self.objects.len() as u32);
        for (component, stripe) in &self.objects {
            out.u32(component.0);
            out.u32(stripe.0);
        }
    }
    fn read(input: &mut Reader<'_>) -> Option<DestroyIntent> {
        let fid = input.fid()?;
        let objects = (0..input.count(8)?).map(|_| Some((ComponentId(input.u32()?), StripeIndex(input.u32()?))));
        Some(DestroyIntent { fid, objects: objects.collect::<Option<_>>()? })
    }
}

/// A client's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// What the client calls itself; at most 255 bytes.
    pub client: String,
    /// When it began.
    pub opened: Timestamp,
    /// Under which number it writes to OSTs; 0: none that the MDS knows.
    pub writer: u64,
}

impl Record for SessionRecord {
    const WHAT: &'static str = "session";
    const VERSION: u8 = 2;

    fn version(&self) -> u8 {
        if self.writer == 0 { 1 } else { 2 }
    }
    fn write(&self, out: &mut Writer) {
        out.bytes(self.client.as_bytes());
        out.time(self.opened);
        if self.writer != 0 {
            out.u64(self.writer);
        }
    }
    fn read(input: &mut Reader<'_>) -> Option<SessionRecord> {
        let client = std::str::from_utf8(input.bytes()?).ok()?.to_owned();
        let opened = input.time()?;
        let writer = if input.version() == 1 { 0 } else { input.u64().filter(|writer| *writer != 0)? };
        Some(SessionRecord { client, opened, writer })
    }
}

/// A writer that is shut out at the OSTs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedWriterRecord {
    /// When its session expired.
    pub since: Timestamp,
}

impl Record for EndedWriterRecord {
    const WHAT: &'static str = "ended writer";
    fn write(&self, out: &mut Writer) {
        out.time(self.since);
    }
    fn read(input: &mut Reader<'_>) -> Option<EndedWriterRecord> {
        Some(EndedWriterRecord { since: input.time()? })
    }
}

/// An OST of the cluster; it keeps its index for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OstRecord {
    /// Identity of its directory.
    pub uuid: OstUuid,
}

impl Record for OstRecord {
    const WHAT: &'static str = "OST";
    fn write(&self, out: &mut Writer) {
        out.array16(self.uuid.0);
    }
    fn read(input: &mut Reader<'_>) -> Option<OstRecord> {
        Some(OstRecord { uuid: OstUuid(input.array16()?) })
    }
}

/// Life of a file system: `Available -> Deleting -> (row gone)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsState {
    /// In use.
    Available,
    /// No new sessions; its objects are being dropped from the OSTs.
    Deleting,
}

/// A file system of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystemRecord {
    /// Its name, unique while it lives.
    pub name: FsName,
    /// Where it is in its life.
    pub state: FsState,
    /// How chunks are stored.
    pub compression: Compression,
    /// When it was made.
    pub created: Timestamp,
}

impl Record for FileSystemRecord {
    const WHAT: &'static str = "file system";
    fn write(&self, out: &mut Writer) {
        out.bytes(self.name.as_str().as_bytes());
        out.u8(match self.state {
            FsState::Available => 1,
            FsState::Deleting => 2,
        });
        out.u8(match self.compression {
            Compression::None => 1,
            Compression::Lz4 => 2,
        });
        out.time(self.created);
    }
    fn read(input: &mut Reader<'_>) -> Option<FileSystemRecord> {
        let name = std::str::from_utf8(input.bytes()?).ok()?.parse().ok()?;
        let state = match input.u8()? {
            1 => FsState::Available,
            2 => FsState::Deleting,
            _ => return None,
        };
        let compression = match input.u8()? {
            1 => Compression::None,
            2 => Compression::Lz4,
            _ => return None,
        };
        Some(FileSystemRecord { name, state, compression, created: input.time()? })
    }
}
