//! Capabilities: what a client may keep of a file's data in memory. Decided by the MDS so that all clients always see the
//! same bytes; the rules are in `docs/decisions/0013-capabilities-for-file-data.md`.

use crate::attr::Timestamp;

/// What a client may do with the data of a file that it has open, in rising order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// Nothing: every read asks the OSTs and the MDS, every write is stored and reported before it returns.
    #[default]
    None,
    /// Keep what was read: nobody else writes.
    Read,
    /// Keep also what was written, and the size that follows: nobody else has the file open.
    Write,
}

/// What the open files of a client do with a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Using {
    /// It is not open.
    #[default]
    Nothing,
    /// All of them read.
    Reading,
    /// At least one writes.
    Writing,
}

/// A capability as it was given. Grants and recalls of one MDS are numbered together, so that of two that meet on the way
/// the later one counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// What.
    pub capability: Capability,
    /// When.
    pub number: u64,
}

/// What the MDS asks of a client that holds a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recall {
    /// Of the answer.
    pub number: u64,
    /// What may be kept. With the capability the client has, only its size and time are wanted.
    pub keep: Capability,
}

/// Size and time of a file whose writer has not reported them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unreported {
    /// Size with what was written, bytes.
    pub size: u64,
    /// Time of the last write, if there was one.
    pub mtime: Option<Timestamp>,
}
