//! Frame of a small durable file (a superblock). All integers little-endian.
//!
//! | offset | size | field       | notes                                                   |
//! |-------:|-----:|-------------|---------------------------------------------------------|
//! |      0 |    8 | magic       | ASCII, one per kind of file, never reused               |
//! |      8 |    4 | version     | readers refuse versions they do not know                |
//! |     12 |    4 | incompat    | feature bits a reader must know to open the file        |
//! |     16 |    4 | body_len    | bytes                                                   |
//! |     20 |    4 | crc32c      | over bytes 0..20 and the body                           |
//! |     24 |    n | body        |                                                         |
//!
//! A short file, trailing bytes, a wrong magic or checksum is `Corrupt`; a newer version or an unknown feature bit is
//! `NotSupported`. Each error names the file's kind and what was found.

use sateen_types::{FsCode, FsError, FsResult};

const HEADER_BYTES: usize = 24;

/// Magic of the superblock of an MDS directory: tells it from that of an OST.
pub const MDS_SUPERBLOCK: &[u8; 8] = b"SATMDSSB";

/// A kind of file.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// First eight bytes.
    pub magic: &'static [u8; 8],
    /// Newest version this build writes and reads.
    pub version: u32,
    /// Feature bits this build knows.
    pub features: u32,
    /// For messages: "OST superblock".
    pub what: &'static str,
}

impl Kind {
    /// Frames `body`, with the feature bits `incompat` in use.
    pub fn seal(&self, incompat: u32, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
        out.extend_from_slice(self.magic);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&incompat.to_le_bytes());
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&out), body);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(body);
        out
    }

    /// Checks a framed file; gives its version and body.
    pub fn open<'a>(&self, file: &'a [u8]) -> FsResult<(u32, &'a [u8])> {
        let corrupt = |why: String| {
            Err(FsError::new(FsCode::Corrupt, format!("{} is damaged: {why}", self.what))
                .with_hint("restore the file from a backup; the data beside it was not touched"))
        };
        if file.len() < HEADER_BYTES {
            return corrupt(format!("it has {} bytes, a header has {HEADER_BYTES}", file.len()));
        }
        let (header, body) = file.split_at(HEADER_BYTES);
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if &header[..8] != self.magic {
            return corrupt(format!("it starts with {:?}", String::from_utf8_lossy(&header[..8])));
        }
        if word(16) as usize != body.len() {
            return corrupt(format!("its body has {} bytes, its header says {}", body.len(), word(16)));
        }
        let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..20]), body);
        if crc != word(20) {
            return corrupt(format!("its checksum is {crc:#010x}, its header says {:#010x}", word(20)));
        }
        let (version, incompat) = (word(8), word(12));
        if version == 0 || version > self.version || incompat & !self.features != 0 {
            return Err(FsError::new(
                FsCode::NotSupported,
                format!(
                    "{} has version {version} and features {incompat:#x}; this build reads up to {}",
                    self.what, self.version
                ),
            )
            .with_hint("run the release that wrote it, or a newer one"));
        }
        Ok((version, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind { magic: b"SATTEST1", version: 2, features: 1, what: "test file" };

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let good = KIND.seal(1, b"body");
        assert_eq!(KIND.open(&good).expect("intact"), (2, &b"body"[..]));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(KIND.open(&bad).expect_err("noticed").code, FsCode::Corrupt, "bit {bit}");
        }
        for len in 0..good.len() {
            assert_eq!(KIND.open(&good[..len]).expect_err("noticed").code, FsCode::Corrupt);
        }
        let mut long = good;
        long.push(0);
        assert_eq!(KIND.open(&long).expect_err("noticed").code, FsCode::Corrupt);
    }

    #[test]
    fn newer_versions_and_unknown_features_are_refused_without_calling_them_damaged() {
        let newer = Kind { version: 3, ..KIND };
        assert_eq!(KIND.open(&newer.seal(0, b"")).expect_err("newer").code, FsCode::NotSupported);
        assert_eq!(KIND.open(&KIND.seal(2, b"")).expect_err("feature").code, FsCode::NotSupported);
    }
}
