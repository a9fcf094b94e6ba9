//! The closed set of outcomes that travel between processes, and their errno.

use std::fmt;

/// What went wrong, as a program sees it. Adding a variant fails to compile until the wire ([`FsCode::wire`]) and the
/// errno ([`FsCode::errno`]) have decided what it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FsCode {
    /// No such file, directory, file system or OST.
    NotFound,
    /// The name is taken.
    Exists,
    /// A path component is not a directory.
    NotDirectory,
    /// The operation does not apply to a directory.
    IsDirectory,
    /// The directory has entries.
    NotEmpty,
    /// Permission bits deny it.
    AccessDenied,
    /// Only the owner or root may.
    NotPermitted,
    /// An argument is outside its rule.
    Invalid,
    /// A name or path is too long.
    NameTooLong,
    /// A size or value is outside its range, or a buffer is too small.
    Range,
    /// A file would exceed the largest size or the extent of its layout.
    FileTooBig,
    /// A request or value is larger than its bound.
    TooBig,
    /// No space on the OSTs or the MDT.
    NoSpace,
    /// Over quota.
    QuotaExceeded,
    /// Too many hard links.
    TooManyLinks,
    /// Source and target are in different file systems.
    CrossDevice,
    /// The FID, handle or session no longer exists.
    Stale,
    /// No such extended attribute, or no data there.
    NoData,
    /// Too many symbolic links, or a directory moved below itself.
    Loop,
    /// Read-only target or mount.
    ReadOnly,
    /// In use.
    Busy,
    /// The executable is open for writing, or the reverse.
    TextBusy,
    /// A disk failed.
    Io,
    /// Stored data does not match its checksum.
    Corrupt,
    /// The server cannot answer now (starting, stopping, overloaded, not reachable); the same request may go through later.
    Unavailable,
    /// No answer within the deadline.
    TimedOut,
    /// This server or format does not do that.
    NotSupported,
    /// No protocol version in common.
    VersionMismatch,
    /// The peer belongs to another cluster, or is not who it was.
    WrongCluster,
    /// The caller was interrupted.
    Interrupted,
    /// A broken belief about our own code. Reported with as much context as there is.
    Internal,
    /// Somebody holds a conflicting lock, and the caller does not want to wait.
    WouldBlock,
    /// Waiting for the lock would never end: those who hold it wait for the caller.
    Deadlock,
    /// No more locks can be taken, or those that were held are lost.
    NoLocks,
    /// Another client has not given up yet what it keeps; it does, or its session ends with its lease.
    Awaiting,
}

impl FsCode {
    /// Every code, in the order of the wire numbers.
    pub const ALL: [FsCode; 35] = [
        FsCode::NotFound,
        FsCode::Exists,
        FsCode::NotDirectory,
        FsCode::IsDirectory,
        FsCode::NotEmpty,
        FsCode::AccessDenied,
        FsCode::NotPermitted,
        FsCode::Invalid,
        FsCode::NameTooLong,
        FsCode::Range,
        FsCode::FileTooBig,
        FsCode::TooBig,
        FsCode::NoSpace,
        FsCode::QuotaExceeded,
        FsCode::TooManyLinks,
        FsCode::CrossDevice,
        FsCode::Stale,
        FsCode::NoData,
        FsCode::Loop,
        FsCode::ReadOnly,
        FsCode::Busy,
        FsCode::TextBusy,
        FsCode::Io,
        FsCode::Corrupt,
        FsCode::Unavailable,
        FsCode::TimedOut,
        FsCode::NotSupported,
        FsCode::VersionMismatch,
        FsCode::WrongCluster,
        FsCode::Interrupted,
        FsCode::Internal,
        FsCode::WouldBlock,
        FsCode::Deadlock,
        FsCode::NoLocks,
        FsCode::Awaiting,
    ];

    /// Number on the wire, from 1; never reused. 0 is "not said".
    pub fn wire(self) -> u32 {
        match self {
            FsCode::NotFound => 1,
            FsCode::Exists => 2,
            FsCode::NotDirectory => 3,
            FsCode::IsDirectory => 4,
            FsCode::NotEmpty => 5,
            FsCode::AccessDenied => 6,
            FsCode::NotPermitted => 7,
            FsCode::Invalid => 8,
            FsCode::NameTooLong => 9,
            FsCode::Range => 10,
            FsCode::FileTooBig => 11,
            FsCode::TooBig => 12,
            FsCode::NoSpace => 13,
            FsCode::QuotaExceeded => 14,
            FsCode::TooManyLinks => 15,
            FsCode::CrossDevice => 16,
            FsCode::Stale => 17,
            FsCode::NoData => 18,
            FsCode::Loop => 19,
            FsCode::ReadOnly => 20,
            FsCode::Busy => 21,
            FsCode::TextBusy => 22,
            FsCode::Io => 23,
            FsCode::Corrupt => 24,
            FsCode::Unavailable => 25,
            FsCode::TimedOut => 26,
            FsCode::NotSupported => 27,
            FsCode::VersionMismatch => 28,
            FsCode::WrongCluster => 29,
            FsCode::Interrupted => 30,
            FsCode::Internal => 31,
            FsCode::WouldBlock => 32,
            FsCode::Deadlock => 33,
            FsCode::NoLocks => 34,
            FsCode::Awaiting => 35,
        }
    }

    /// The code of a wire number; `None` for one this version does not know.
    pub fn from_wire(n: u32) -> Option<FsCode> {
        FsCode::ALL.get((n as usize).checked_sub(1)?).copied()
    }

    /// Linux errno (asm-generic numbers), as a program behind a mount sees it.
    pub fn errno(self) -> i32 {
        match self {
            FsCode::NotFound => 2,                                // ENOENT
            FsCode::Exists => 17,                                 // EEXIST
            FsCode::NotDirectory => 20,                           // ENOTDIR
            FsCode::IsDirectory => 21,                            // EISDIR
            FsCode::NotEmpty => 39,                               // ENOTEMPTY
            FsCode::AccessDenied => 13,                           // EACCES
            FsCode::NotPermitted => 1,                            // EPERM
            FsCode::Invalid => 22,                                // EINVAL
            FsCode::NameTooLong => 36,                            // ENAMETOOLONG
            FsCode::Range => 34,                                  // ERANGE
            FsCode::FileTooBig => 27,                             // EFBIG
            FsCode::TooBig => 7,                                  // E2BIG
            FsCode::NoSpace => 28,                                // ENOSPC
            FsCode::QuotaExceeded => 122,                         // EDQUOT
            FsCode::TooManyLinks => 31,                           // EMLINK
            FsCode::CrossDevice => 18,                            // EXDEV
            FsCode::Stale => 116,                                 // ESTALE
            FsCode::NoData => 61,                                 // ENODATA
            FsCode::Loop => 40,                                   // ELOOP
            FsCode::ReadOnly => 30,                               // EROFS
            FsCode::Busy => 16,                                   // EBUSY
            FsCode::TextBusy => 26,                               // ETXTBSY
            FsCode::Io | FsCode::Corrupt | FsCode::Internal => 5, // EIO
            FsCode::Unavailable | FsCode::Awaiting => 112,        // EHOSTDOWN
            FsCode::TimedOut => 110,                              // ETIMEDOUT
            FsCode::NotSupported => 95,                           // EOPNOTSUPP
            FsCode::VersionMismatch => 93,                        // EPROTONOSUPPORT
            FsCode::WrongCluster => 6,                            // ENXIO
            FsCode::Interrupted => 4,                             // EINTR
            FsCode::WouldBlock => 11,                             // EAGAIN
            FsCode::Deadlock => 35,                               // EDEADLK
            FsCode::NoLocks => 37,                                // ENOLCK
        }
    }

    /// Whether the same request, sent again, may succeed without anybody changing anything.
    pub fn is_retryable(self) -> bool {
        matches!(self, FsCode::Unavailable | FsCode::TimedOut | FsCode::Awaiting)
    }
}

/// An outcome with its story: what failed with which value, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FsError {
    /// What a program reacts to.
    pub code: FsCode,
    /// One line: what failed, with the value.
    pub message: String,
    /// One line: what to do, where something can be done.
    pub hint: Option<String>,
}

/// Result with an [`FsError`].
pub type FsResult<T> = Result<T, FsError>;

impl FsError {
    /// An error without a hint.
    pub fn new(code: FsCode, message: impl Into<String>) -> FsError {
        FsError { code, message: message.into(), hint: None }
    }

    /// The same error with advice.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> FsError {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for FsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for FsError {}

impl From<FsCode> for FsError {
    fn from(code: FsCode) -> FsError {
        FsError::new(code, format!("{code:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_numbers_are_dense_and_reversible() {
        for (i, code) in FsCode::ALL.into_iter().enumerate() {
            assert_eq!(code.wire() as usize, i + 1);
            assert_eq!(FsCode::from_wire(code.wire()), Some(code));
            assert!(code.errno() > 0);
        }
        assert_eq!(FsCode::from_wire(0), None);
        assert_eq!(FsCode::from_wire(FsCode::ALL.len() as u32 + 1), None);
    }
}
