//! Directory entries, in the order of names and in the order of cookies.

use sateen_types::{Fid, FileType, Name};

use super::{read_type, write_type};
use crate::store::codec::{Reader, Record, Writer};

/// What a name in a directory stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dentry {
    /// The file.
    pub fid: Fid,
    /// Its kind.
    pub file_type: FileType,
    /// Its row in `dirindex`.
    pub cookie: u64,
}

impl Record for Dentry {
    const WHAT: &'static str = "directory entry";
    fn write(&self, out: &mut Writer) {
        out.fid(self.fid);
        write_type(out, self.file_type);
        out.u64(self.cookie);
    }
    fn read(input: &mut Reader<'_>) -> Option<Dentry> {
        Some(Dentry { fid: input.fid()?, file_type: read_type(input)?, cookie: input.u64()? })
    }
}

/// One row of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The file.
    pub fid: Fid,
    /// Its kind.
    pub file_type: FileType,
    /// Its name.
    pub name: Name,
}

impl Record for IndexEntry {
    const WHAT: &'static str = "directory index entry";
    fn write(&self, out: &mut Writer) {
        out.fid(self.fid);
        write_type(out, self.file_type);
        out.bytes(self.name.as_bytes());
    }
    fn read(input: &mut Reader<'_>) -> Option<IndexEntry> {
        Some(IndexEntry { fid: input.fid()?, file_type: read_type(input)?, name: Name::parse(input.bytes()?).ok()? })
    }
}
