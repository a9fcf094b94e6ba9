//! Keys of objects to paths. What is in a bucket was written by anybody; this is the only way into the namespace.

use std::fmt;

use crate::limits::{KEY_BYTES_MAX, PATH_BYTES_MAX};
use crate::name::Name;
use crate::status::{FsCode, FsError, FsResult};

/// FSx's log codes of what an import skips.
pub mod skip_code {
    /// The key is no path.
    pub const NOT_POSIX: &str = "S3ImportObjectPathNotPosixCompliant";
    /// Something of another kind has the name.
    pub const TYPE_MISMATCH: &str = "S3ImportObjectTypeMismatch";
    /// A symbolic link in a storage class that cannot be read at once.
    pub const SYMLINK_TIER: &str = "S3ImportSymlinkInUnsupportedTierWarning";
    /// The object could not be read.
    pub const ACCESS_DENIED: &str = "S3ImportAccessDenied";
    /// A directory could not be made.
    pub const DIRECTORY: &str = "S3ImportDirectoryCreateError";
    /// The file was changed here, and its object as well. (Not one of FSx's.)
    pub const CONFLICT: &str = "S3ImportConflict";
    /// What the object says of itself is outside the rules. (Not one of FSx's.)
    pub const METADATA: &str = "S3ImportObjectMetadataInvalid";
}

/// The path of an object below the directory of its link.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectPath {
    /// From the directory of the link down; not empty.
    pub names: Vec<Name>,
    /// The key ends with a slash: a directory, whatever the object's metadata say.
    pub directory: bool,
}

impl ObjectPath {
    /// Cuts a key: 1 to 1024 bytes of UTF-8, no NUL, no empty part, `.` or `..`, each part at most 255 bytes.
    /// One slash at the end is a directory's. Anything else is `Invalid`, or `NameTooLong`.
    pub fn parse(key: &[u8]) -> FsResult<ObjectPath> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX || key.len() >= PATH_BYTES_MAX {
            return Err(FsError::new(
                FsCode::NameTooLong,
                format!("a key of {} bytes, 1 to {KEY_BYTES_MAX} are allowed", key.len()),
            ));
        }
        let bad = |why: &str| FsError::new(FsCode::Invalid, format!("key {:?} {why}", String::from_utf8_lossy(key)));
        if std::str::from_utf8(key).is_err() {
            return Err(bad("is not UTF-8"));
        }
        let (path, directory) = match key.strip_suffix(b"/") {
            Some(path) => (path, true),
            None => (key, false),
        };
        let mut names = Vec::new();
        for part in path.split(|b| *b == b'/') {
            if part.is_empty() {
                return Err(bad("has an empty part"));
            }
            names.push(Name::parse(part).map_err(|e| FsError { message: format!("key: {}", e.message), ..e })?);
        }
        Ok(ObjectPath { names, directory })
    }

    /// The key again.
    pub fn to_key(&self) -> Vec<u8> {
        let mut key = self.names.iter().map(Name::as_bytes).collect::<Vec<_>>().join(&b'/');
        if self.directory {
            key.push(b'/');
        }
        key
    }
}

impl fmt::Debug for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_key()))
    }
}
