//! How far a scrub is: the file `scrub` of an OST directory, an envelope replaced atomically.
//!
//! Envelope `SATSCRUB`, version 1, no features; body of 76 bytes, big-endian:
//!
//! | offset | size | field       | notes                                                                |
//! |-------:|-----:|-------------|----------------------------------------------------------------------|
//! |      0 |    8 | passes      | complete ones                                                        |
//! |      8 |    8 | last_ended  | seconds since 1970; when the OST was new, if none has ended           |
//! |     16 |    8 | bytes       | verified in the running pass                                         |
//! |     24 |    8 | chunks      | verified in the running pass                                         |
//! |     32 |    8 | damaged     | found in the running pass                                            |
//! |     40 |    4 | file system | that is being gone through; 0: no pass runs                          |
//! |     44 |   32 | chunk key   | the last one verified; zeros: none of this file system               |
//!
//! Losing it costs a pass from the start, so a damaged one is replaced and not an error.

use std::io;
use std::path::Path;

use sateen_runtime::durable;
use sateen_runtime::envelope::Kind;
use sateen_types::{FsCode, FsError, FsId, FsResult};

use crate::store::keys::ChunkKey;
use crate::store::segments::io_error;

/// Name of the file in the OST directory.
pub const FILE: &str = "scrub";

const KIND: Kind = Kind { magic: b"SATSCRUB", version: 1, features: 0, what: "the scrub's cursor" };
const BODY_BYTES: usize = 76;

/// The next chunk to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// In this file system.
    pub fs: FsId,
    /// Behind this chunk; `None`: at its beginning.
    pub after: Option<ChunkKey>,
}

/// How far a scrub is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Complete passes.
    pub passes: u64,
    /// When the last one ended, in seconds since 1970; for a new OST, when it was first seen.
    pub last_ended: u64,
    /// Stored bytes verified in the running pass.
    pub bytes: u64,
    /// Chunks verified in the running pass.
    pub chunks: u64,
    /// Chunks found damaged in the running pass.
    pub damaged: u64,
    /// `None`: no pass runs.
    pub position: Option<Position>,
}

impl Cursor {
    /// Reads the cursor of the OST in `dir`; `None` if there is none that can be used.
    pub fn load(dir: &Path) -> FsResult<Option<Cursor>> {
        let path = dir.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io_error(&format!("read {}", path.display()), &e)),
        };
        let decoded = KIND.open(&bytes).and_then(|(_, body)| {
            Cursor::decode(body).ok_or_else(|| FsError::new(FsCode::Corrupt, "its body is impossible"))
        });
        match decoded {
            Ok(cursor) => Ok(Some(cursor)),
            Err(e) => {
                tracing::warn!(path = %path.display(), error = %e, "the scrub begins anew");
                Ok(None)
            }
        }
    }

    /// Makes this the cursor of the OST in `dir`, durably.
    pub fn store(&self, dir: &Path) -> FsResult<()> {
        let path = dir.join(FILE);
        durable::replace(&path, &KIND.seal(0, &self.encode()))
            .map_err(|e| io_error(&format!("write {}", path.display()), &e))
    }

    fn encode(&self) -> [u8; BODY_BYTES] {
        let mut body = [0; BODY_BYTES];
        for (i, n) in [self.passes, self.last_ended, self.bytes, self.chunks, self.damaged].into_iter().enumerate() {
            body[i * 8..][..8].copy_from_slice(&n.to_be_bytes());
        }
        if let Some(position) = self.position {
            body[40..44].copy_from_slice(&position.fs.0.to_be_bytes());
            if let Some(key) = position.after {
                body[44..].copy_from_slice(&key.to_bytes());
            }
        }
        body
    }

    fn decode(body: &[u8]) -> Option<Cursor> {
        let body: &[u8; BODY_BYTES] = body.try_into().ok()?;
        let number = |at: usize| Some(u64::from_be_bytes(body.get(at..at + 8)?.try_into().ok()?));
        let fs = u32::from_be_bytes(body[40..44].try_into().ok()?);
        let key = &body[44..];
        let after = if key.iter().all(|b| *b == 0) { None } else { Some(ChunkKey::from_bytes(key).ok()?) };
        Some(Cursor {
            passes: number(0)?,
            last_ended: number(8)?,
            bytes: number(16)?,
            chunks: number(24)?,
            damaged: number(32)?,
            position: (fs > 0).then_some(Position { fs: FsId(fs), after }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::keys::ObjectKey;

    #[test]
    fn a_cursor_is_read_back_and_a_damaged_one_is_none() {
        let dir = tempfile::tempdir().expect("temp dir");
        assert_eq!(Cursor::load(dir.path()).expect("read"), None);
        let key = ObjectKey::from_bytes(&[3; 24]).expect("24 bytes").chunk(9);
        for position in [None, Some(None), Some(Some(key))] {
            let position = position.map(|after| Position { fs: FsId(7), after });
            let cursor = Cursor { passes: 1, last_ended: 2, bytes: 3, chunks: 4, damaged: 5, position };
            cursor.store(dir.path()).expect("stored");
            assert_eq!(Cursor::load(dir.path()).expect("read"), Some(cursor));
        }
        std::fs::write(dir.path().join(FILE), b"nonsense").expect("written");
        assert_eq!(Cursor::load(dir.path()).expect("no error"), None);
    }
}
