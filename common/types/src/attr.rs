//! Attributes of inodes and who asks for them.

use serde::{Deserialize, Serialize};

use crate::ids::Fid;

/// A moment since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timestamp {
    /// Seconds; negative before 1970.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

impl Timestamp {
    /// The system clock. Servers read it once per request, at the edge, and pass it in.
    pub fn now() -> Timestamp {
        Timestamp::from(std::time::SystemTime::now())
    }

    /// A nanosecond later.
    pub fn next(self) -> Timestamp {
        match self.nanos {
            999_999_999.. => Timestamp { seconds: self.seconds.saturating_add(1), nanos: 0 },
            nanos => Timestamp { nanos: nanos + 1, ..self },
        }
    }
}

impl From<std::time::SystemTime> for Timestamp {
    fn from(t: std::time::SystemTime) -> Timestamp {
        match t.duration_since(std::time::UNIX_EPOCH) {
            Ok(d) => Timestamp { seconds: d.as_secs() as i64, nanos: d.subsec_nanos() },
            Err(e) => {
                let d = e.duration();
                match d.subsec_nanos() {
                    0 => Timestamp { seconds: -(d.as_secs() as i64), nanos: 0 },
                    n => Timestamp { seconds: -(d.as_secs() as i64) - 1, nanos: 1_000_000_000 - n },
                }
            }
        }
    }
}

impl From<Timestamp> for std::time::SystemTime {
    fn from(t: Timestamp) -> std::time::SystemTime {
        let whole = std::time::Duration::from_secs(t.seconds.unsigned_abs());
        let base = if t.seconds >= 0 { std::time::UNIX_EPOCH + whole } else { std::time::UNIX_EPOCH - whole };
        base + std::time::Duration::from_nanos(u64::from(t.nanos))
    }
}

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FileType {
    /// Regular file.
    Regular,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Unix socket.
    Socket,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
}

/// Extended attribute with the capabilities that whoever runs the program gets.
pub const FILE_CAPABILITIES_XATTR: &[u8] = b"security.capability";

/// Attributes as `stat` shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Identity.
    pub fid: Fid,
    /// Kind.
    pub file_type: FileType,
    /// Permission, setuid, setgid and sticky bits: `0..=0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names of a file; 2 + subdirectories of a directory.
    pub nlink: u32,
    /// Bytes of a regular file, length of a symlink's target, 4096 for a directory.
    pub size: u64,
    /// Disk space in units of 512 bytes; lazy (as the last writer reported).
    pub blocks: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of data.
    pub mtime: Timestamp,
    /// Last change of data or attributes.
    pub ctime: Timestamp,
    /// Creation.
    pub btime: Timestamp,
    /// Device number of a device node, in Linux's 32-bit encoding.
    pub rdev: u64,
    /// Rises with every change of data or attributes.
    pub change: u64,
    /// It has an access ACL that says more than `mode`.
    pub has_acl: bool,
    /// It is a directory with a default ACL.
    pub has_default_acl: bool,
    /// It is a program with capabilities ([`FILE_CAPABILITIES_XATTR`]).
    pub has_capabilities: bool,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Effective (file system) user.
    pub uid: u32,
    /// Effective (file system) group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

impl Credential {
    /// The superuser.
    pub const ROOT: Credential = Credential { uid: 0, gid: 0, groups: Vec::new() };

    /// Whether `gid` is the caller's group or one of the supplementary ones.
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}

/// How a file system stores chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Compression {
    /// As they are.
    None,
    /// LZ4 blocks, where that saves at least one 4 KiB block.
    Lz4,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn timestamps_survive_the_system_clock_type(seconds in -4_000_000_000_i64..4_000_000_000, nanos in 0u32..1_000_000_000) {
            let t = Timestamp { seconds, nanos };
            prop_assert_eq!(Timestamp::from(std::time::SystemTime::from(t)), t);
        }
    }
}
