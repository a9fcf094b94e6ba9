//! Names that are valid by construction.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::{FS_NAME_BYTES_MAX, NAME_BYTES_MAX, POOL_NAME_BYTES_MAX};
use crate::status::{FsCode, FsError};

/// Name of one directory entry: 1 to 255 bytes, any byte but `/` and NUL, and neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Checks `bytes` against the rules above. Too long is `NameTooLong`, anything else `Invalid`.
    pub fn parse(bytes: &[u8]) -> Result<Name, FsError> {
        if bytes.len() > NAME_BYTES_MAX {
            return Err(FsError::new(
                FsCode::NameTooLong,
                format!("name has {} bytes, at most {NAME_BYTES_MAX} are allowed", bytes.len()),
            ));
        }
        if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.iter().any(|b| *b == b'/' || *b == 0) {
            return Err(FsError::new(
                FsCode::Invalid,
                format!("{:?} is not a name of a directory entry", String::from_utf8_lossy(bytes)),
            ));
        }
        Ok(Name(bytes.into()))
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// Name of an extended attribute with its name space: 1 to 255 bytes, no NUL, e.g. `user.comment`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct XattrName(Box<[u8]>);

impl XattrName {
    /// Checks `bytes`. Too long is `Range` (what Linux answers), empty or with a NUL `Invalid`.
    pub fn parse(bytes: &[u8]) -> Result<XattrName, FsError> {
        if bytes.len() > NAME_BYTES_MAX {
            return Err(FsError::new(
                FsCode::Range,
                format!("attribute name has {} bytes, at most {NAME_BYTES_MAX} are allowed", bytes.len()),
            ));
        }
        if bytes.is_empty() || bytes.contains(&0) {
            return Err(FsError::new(FsCode::Invalid, "attribute name is empty or has a NUL byte"));
        }
        Ok(XattrName(bytes.into()))
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for XattrName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// Short ASCII names share one rule: letters, digits, `_`, `-`, starting with a letter or digit, up to a length.
macro_rules! short_name {
    ($(#[$doc:meta])* $name:ident, $max:expr, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = FsError;
            fn from_str(s: &str) -> Result<Self, FsError> {
                let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
                let starts_well = s.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
                if s.len() > $max || !starts_well || !s.bytes().all(allowed) {
                    let shown: String = s.chars().take(64).collect();
                    return Err(FsError::new(FsCode::Invalid, format!("{shown:?} is not a {}", $what)).with_hint(
                        format!("use 1 to {} letters, digits, '_' or '-', starting with a letter or digit", $max),
                    ));
                }
                Ok(Self(s.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = FsError;
            fn try_from(s: String) -> Result<Self, FsError> {
                s.parse()
            }
        }

        impl From<$name> for String {
            fn from(n: $name) -> String {
                n.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }
    };
}

short_name!(
    /// Name of a file system: what stands behind `:/` in a mount source. 1 to 8 characters.
    FsName, FS_NAME_BYTES_MAX, "file system name"
);
short_name!(
    /// Name of an OST pool. 1 to 15 characters.
    PoolName, POOL_NAME_BYTES_MAX, "pool name"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_names_follow_posix() {
        for good in [&b"a"[..], b"...", b"..a", b"\xff\xfe", b"with space", &[b'x'; 255]] {
            assert_eq!(Name::parse(good).expect("valid").as_bytes(), good);
        }
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b"] {
            assert_eq!(Name::parse(bad).expect_err("invalid").code, FsCode::Invalid);
        }
        assert_eq!(Name::parse(&[b'x'; 256]).expect_err("long").code, FsCode::NameTooLong);
    }

    #[test]
    fn file_system_names_have_at_most_eight_plain_characters() {
        for good in ["a", "scratch", "fs-1_abc"] {
            assert_eq!(good.parse::<FsName>().expect("valid").as_str(), good);
        }
        for bad in ["", "ninechars", "-a", "a/b", "ü", "a b", "a\0"] {
            let err = bad.parse::<FsName>().expect_err("invalid");
            assert!(err.hint.is_some(), "{bad:?}");
        }
    }
}
