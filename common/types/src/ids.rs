//! Identifiers. Each kind is its own type, so that an OST number can never be taken for a stripe number.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Lustre's 128-bit file identifier, never reused within a file system. Printed `[0x200000401:0x1:0x0]`.
///
/// The sequence names the MDT that owns the inode. `ver` is 0 for every file and directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fid {
    /// Sequence: ordinary files start at [`Fid::SEQ_FIRST`].
    pub seq: u64,
    /// Object within the sequence, `1..=SEQ_WIDTH` for ordinary files.
    pub oid: u32,
    /// Version; 0.
    pub ver: u32,
}

impl Fid {
    /// The root directory of every file system (Lustre's value).
    pub const ROOT: Fid = Fid { seq: 0x2_0000_0007, oid: 1, ver: 0 };
    /// First sequence of ordinary files (Lustre's value).
    pub const SEQ_FIRST: u64 = 0x2_0000_0400;
    /// How many files one sequence numbers (Lustre's `LUSTRE_DATA_SEQ_MAX_WIDTH`).
    pub const SEQ_WIDTH: u32 = 0x1_ffff;
    /// Sequences below it are reserved by Lustre; subtracted to fit a FID into an inode number.
    const SEQ_BASE: u64 = 0x2_0000_0000;

    /// The 64-bit inode number of this FID: 1 for the root, else `(seq - 0x200000000) << 32 | oid`.
    ///
    /// Unique and reversible ([`Fid::from_ino`]) for every FID this system allocates.
    pub fn ino(self) -> u64 {
        if self == Fid::ROOT {
            return 1;
        }
        debug_assert!(self.seq >= Self::SEQ_BASE && self.seq - Self::SEQ_BASE <= u64::from(u32::MAX), "{self}");
        ((self.seq - Self::SEQ_BASE) << 32) | u64::from(self.oid)
    }

    /// The FID of an inode number made by [`Fid::ino`]; `None` for a number it never makes.
    pub fn from_ino(ino: u64) -> Option<Fid> {
        if ino == 1 {
            return Some(Fid::ROOT);
        }
        let fid = Fid { seq: (ino >> 32) + Self::SEQ_BASE, oid: ino as u32, ver: 0 };
        fid.is_valid().then_some(fid)
    }

    /// Whether this is the root or lies in the ordinary range, with version 0.
    pub fn is_valid(self) -> bool {
        self == Fid::ROOT
            || (self.ver == 0
                && self.oid != 0
                && self.oid <= Self::SEQ_WIDTH
                && (Self::SEQ_FIRST..=Self::SEQ_BASE + u64::from(u32::MAX)).contains(&self.seq))
    }

    /// Sixteen bytes, big-endian, so that byte order is numeric order.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.seq.to_be_bytes());
        out[8..12].copy_from_slice(&self.oid.to_be_bytes());
        out[12..].copy_from_slice(&self.ver.to_be_bytes());
        out
    }

    /// Inverse of [`Fid::to_bytes`].
    pub fn from_bytes(b: [u8; 16]) -> Fid {
        let n = u128::from_be_bytes(b);
        Fid { seq: (n >> 64) as u64, oid: (n >> 32) as u32, ver: n as u32 }
    }
}

impl fmt::Display for Fid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:#x}:{:#x}:{:#x}]", self.seq, self.oid, self.ver)
    }
}

impl fmt::Debug for Fid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a FID.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a FID (expected [0xSEQ:0xOID:0xVER])")]
pub struct BadFid(pub String);

impl FromStr for Fid {
    type Err = BadFid;

    /// Accepts what Lustre accepts: three hexadecimal numbers, `0x` and the brackets optional.
    fn from_str(s: &str) -> Result<Fid, BadFid> {
        let bad = || BadFid(s.chars().take(64).collect());
        let inner = match s.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or_else(bad)?,
            None => s,
        };
        let mut parts = inner.split(':').map(|p| {
            let digits = p.strip_prefix("0x").unwrap_or(p);
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            u64::from_str_radix(digits, 16).map_err(|_| bad())
        });
        let mut next = || parts.next().ok_or_else(bad)?;
        let (seq, oid, ver) = (next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(bad());
        }
        let narrow = |n: u64| u32::try_from(n).map_err(|_| bad());
        Ok(Fid { seq, oid: narrow(oid)?, ver: narrow(ver)? })
    }
}

impl TryFrom<String> for Fid {
    type Error = BadFid;
    fn try_from(s: String) -> Result<Fid, BadFid> {
        s.parse()
    }
}

impl From<Fid> for String {
    fn from(fid: Fid) -> String {
        fid.to_string()
    }
}

/// Number of a file system in its cluster; never reused. Names its directories on the MDS and on every OST.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FsId(pub u32);

impl fmt::Display for FsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Which OST of the cluster. Stable for the OST's life; never reused. Printed in decimal, and as four hexadecimal
/// digits in target names (`scratch-OST001f`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OstIndex(pub u16);

impl fmt::Display for OstIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Number of a component in its file, from 1; never reused within the file, and not a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ComponentId(pub u32);

/// Position of a stripe in its component: `0..stripe_count`. Not an OST number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StripeIndex(pub u32);

/// What an OST stores for one stripe of one component of one file. Deterministic, so nothing has to be created before
/// the first write and a crash between two servers leaves no orphan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// File system the file belongs to.
    pub fs: FsId,
    /// The file.
    pub fid: Fid,
    /// Component of the file's layout.
    pub component: ComponentId,
    /// Stripe of the component.
    pub stripe: StripeIndex,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fs {} {} component {} stripe {}", self.fs, self.fid, self.component.0, self.stripe.0)
    }
}

/// Sixteen random bytes printed as 32 hexadecimal digits; one type per meaning.
macro_rules! id128 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", u128::from_be_bytes(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(s: &str) -> Result<Self, BadId> {
                if s.len() != 32 || !s.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(BadId(s.chars().take(64).collect()));
                }
                let n = u128::from_str_radix(s, 16).map_err(|_| BadId(s.to_owned()))?;
                Ok(Self(n.to_be_bytes()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;
            fn try_from(s: String) -> Result<Self, BadId> {
                s.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    };
}

/// A text that is not a 128-bit identifier.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not an identifier (expected 32 hexadecimal digits)")]
pub struct BadId(pub String);

id128!(
    /// Identity of a cluster, made when its MDS directory is formatted. Every OST remembers it.
    ClusterId
);
id128!(
    /// Identity of an OST directory, made when it is formatted.
    OstUuid
);
id128!(
    /// Identity of a client's session at the MDS.
    SessionId
);
id128!(
    /// Identity of one incarnation of an OST's store. A client drops unstable data only when the verifier of the
    /// commit equals the verifier its writes were answered with.
    Verifier
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fid_prints_and_parses_as_lustre_does() {
        let fid = Fid { seq: 0x2_0000_0401, oid: 1, ver: 0 };
        assert_eq!(fid.to_string(), "[0x200000401:0x1:0x0]");
        for text in ["[0x200000401:0x1:0x0]", "0x200000401:0x1:0x0", "200000401:1:0"] {
            assert_eq!(text.parse(), Ok(fid));
        }
        for text in ["", "[0x1:0x2]", "[0x1:0x2:0x3", "1:2:3:4", "g:1:1", "1:100000000:0", "+1:2:3", "::"] {
            assert!(text.parse::<Fid>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn root_is_inode_1_and_unallocated_numbers_are_refused() {
        assert_eq!(Fid::ROOT.ino(), 1);
        assert_eq!(Fid::from_ino(1), Some(Fid::ROOT));
        for ino in [0, 2, 1 << 32, (0x400 << 32) | 0x2_0000] {
            assert_eq!(Fid::from_ino(ino), None, "{ino:#x}");
        }
    }

    proptest! {
        #[test]
        fn ino_and_bytes_are_reversible(
            seq in Fid::SEQ_FIRST..=0x2_ffff_ffff_u64,
            oid in 1..=Fid::SEQ_WIDTH,
        ) {
            let fid = Fid { seq, oid, ver: 0 };
            prop_assert_eq!(Fid::from_ino(fid.ino()), Some(fid));
            prop_assert_eq!(Fid::from_bytes(fid.to_bytes()), fid);
            prop_assert_eq!(fid.to_string().parse(), Ok(fid));
        }
    }
}
