//! Who an OST directory is: the file `superblock`, an envelope replaced atomically.
//!
//! Envelope `SATOSTSB`, version 1, no features; body of 36 bytes, big-endian:
//!
//! | offset | size | field      | notes                                                        |
//! |-------:|-----:|------------|--------------------------------------------------------------|
//! |      0 |   16 | ost_uuid   | random, made when the directory is formatted                 |
//! |     16 |   16 | cluster_id | zeros until the MDS has accepted the OST                     |
//! |     32 |    4 | index      | 0xffffffff until then; afterwards fixed for the OST's life   |
//!
//! The uuid is durable before the MDS hears of it, so that a crash in between gets the same index again.

use std::io;
use std::path::Path;

use sateen_runtime::durable;
use sateen_runtime::envelope::Kind;
use sateen_types::{ClusterId, FsCode, FsError, FsResult, OstIndex, OstUuid};

use crate::store::segments::io_error;

/// Name of the file in the OST directory.
pub const FILE: &str = "superblock";

const KIND: Kind = Kind { magic: b"SATOSTSB", version: 1, features: 0, what: "the OST superblock" };
const BODY_BYTES: usize = 36;
const NO_INDEX: u32 = u32::MAX;
/// Entries that an OST directory may have before it is formatted.
const HARMLESS: [&str; 3] = ["lock", "superblock.tmp", "lost+found"];

/// Identity of an OST directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The directory itself.
    pub ost: OstUuid,
    /// Cluster and index, once the MDS has accepted it.
    pub member: Option<Member>,
}

/// An OST's place in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The cluster.
    pub cluster: ClusterId,
    /// The OST's index in it.
    pub index: OstIndex,
}

impl Superblock {
    /// Reads the superblock of `dir`, or makes one if the directory is empty.
    pub fn load_or_format(dir: &Path) -> FsResult<Superblock> {
        if let Some(known) = Superblock::load(dir)? {
            return Ok(known);
        }
        refuse_foreign(dir)?;
        let fresh = Superblock { ost: OstUuid(rand::random()), member: None };
        fresh.store(dir)?;
        Ok(fresh)
    }

    /// Reads the superblock of `dir`; `None` if there is none.
    pub fn load(dir: &Path) -> FsResult<Option<Superblock>> {
        let path = dir.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => {
                let (_, body) =
                    KIND.open(&bytes).map_err(|e| FsError { message: format!("{}: {e}", path.display()), ..e })?;
                let known = Superblock::decode(body).ok_or_else(|| {
                    FsError::new(FsCode::Corrupt, format!("{}: the superblock has an impossible body", path.display()))
                })?;
                Ok(Some(known))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(io_error(&format!("read {}", path.display()), &e)),
        }
    }

    /// Makes this the superblock of `dir`, durably.
    pub fn store(&self, dir: &Path) -> FsResult<()> {
        let path = dir.join(FILE);
        durable::replace(&path, &KIND.seal(0, &self.encode()))
            .map_err(|e| io_error(&format!("write {}", path.display()), &e))
    }

    fn encode(&self) -> [u8; BODY_BYTES] {
        let mut body = [0; BODY_BYTES];
        body[..16].copy_from_slice(&self.ost.0);
        body[16..32].copy_from_slice(&self.member.map_or([0; 16], |m| m.cluster.0));
        body[32..].copy_from_slice(&self.member.map_or(NO_INDEX, |m| u32::from(m.index.0)).to_be_bytes());
        body
    }

    fn decode(body: &[u8]) -> Option<Superblock> {
        let body: &[u8; BODY_BYTES] = body.try_into().ok()?;
        let (mut ost, mut cluster) = ([0; 16], [0; 16]);
        ost.copy_from_slice(&body[..16]);
        cluster.copy_from_slice(&body[16..32]);
        let member = match u32::from_be_bytes([body[32], body[33], body[34], body[35]]) {
            NO_INDEX if cluster == [0; 16] => None,
            n => Some(Member { cluster: ClusterId(cluster), index: OstIndex(u16::try_from(n).ok()?) }),
        };
        Some(Superblock { ost: OstUuid(ost), member })
    }
}

/// A directory with files but without a superblock is not ours to format.
fn refuse_foreign(dir: &Path) -> FsResult<()> {
    let entries = std::fs::read_dir(dir).map_err(|e| io_error(&format!("list {}", dir.display()), &e))?;
    for entry in entries {
        let name = entry.map_err(|e| io_error(&format!("list {}", dir.display()), &e))?.file_name();
        if !HARMLESS.iter().any(|h| name == **h) {
            return Err(FsError::new(
                FsCode::Corrupt,
                format!("{} has no superblock but is not empty (there is {name:?})", dir.display()),
            )
            .with_hint("give an empty directory for a new OST, or restore the superblock of this one from a backup"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_directory_is_formatted_once_and_remembers_its_place() {
        let dir = tempfile::tempdir().expect("temp dir");
        let fresh = Superblock::load_or_format(dir.path()).expect("formatted");
        assert_eq!(fresh.member, None);
        assert_eq!(Superblock::load_or_format(dir.path()).expect("loaded"), fresh);
        let member = Some(Member { cluster: ClusterId([9; 16]), index: OstIndex(3) });
        Superblock { member, ..fresh }.store(dir.path()).expect("stored");
        assert_eq!(Superblock::load_or_format(dir.path()).expect("loaded"), Superblock { member, ..fresh });
    }

    #[test]
    fn damage_and_foreign_directories_are_refused_and_left_alone() {
        let dir = tempfile::tempdir().expect("temp dir");
        Superblock::load_or_format(dir.path()).expect("formatted");
        let path = dir.path().join(FILE);
        let good = std::fs::read(&path).expect("read");
        let mut bad = good.clone();
        bad[30] ^= 4;
        std::fs::write(&path, &bad).expect("written");
        let err = Superblock::load_or_format(dir.path()).expect_err("damaged");
        assert!(err.code == FsCode::Corrupt && err.hint.is_some() && err.message.contains("superblock"), "{err}");
        assert_eq!(std::fs::read(&path).expect("read"), bad);
        std::fs::remove_file(&path).expect("removed");
        std::fs::create_dir(dir.path().join("fs")).expect("created");
        let err = Superblock::load_or_format(dir.path()).expect_err("not empty");
        assert!(err.code == FsCode::Corrupt && err.hint.is_some(), "{err}");
        assert!(!path.exists());
    }
}
