//! From our outcomes to the kernel's numbers, and which of them an operator should read about.

use fuser::Errno;
use sateen_types::{FsCode, FsError};

/// The errno a program behind the mount sees. The table itself is [`FsCode::errno`].
pub fn errno(error: &FsError) -> Errno {
    Errno::from_i32(error.code.errno())
}

/// Whether an outcome is a fault of the system (logged) rather than an ordinary answer to a program.
///
/// Exhaustive on purpose: a new code must decide.
pub fn is_fault(code: FsCode) -> bool {
    match code {
        FsCode::Io
        | FsCode::Corrupt
        | FsCode::Unavailable
        | FsCode::Awaiting
        | FsCode::TimedOut
        | FsCode::VersionMismatch
        | FsCode::WrongCluster
        | FsCode::Internal
        | FsCode::NoSpace
        | FsCode::QuotaExceeded => true,
        FsCode::NotFound
        | FsCode::Exists
        | FsCode::NotDirectory
        | FsCode::IsDirectory
        | FsCode::NotEmpty
        | FsCode::AccessDenied
        | FsCode::NotPermitted
        | FsCode::Invalid
        | FsCode::NameTooLong
        | FsCode::Range
        | FsCode::FileTooBig
        | FsCode::TooBig
        | FsCode::TooManyLinks
        | FsCode::CrossDevice
        | FsCode::Stale
        | FsCode::NoData
        | FsCode::Loop
        | FsCode::ReadOnly
        | FsCode::Busy
        | FsCode::TextBusy
        | FsCode::NotSupported
        | FsCode::Interrupted
        | FsCode::WouldBlock
        | FsCode::Deadlock
        | FsCode::NoLocks => false,
    }
}

/// Logs a fault once, where it leaves us for the kernel, and gives its errno.
pub fn report(operation: &'static str, ino: u64, error: &FsError) -> Errno {
    if is_fault(error.code) {
        tracing::warn!(operation, ino, code = ?error.code, error = %error, hint = error.hint.as_deref(), "failed");
    } else {
        tracing::debug!(operation, ino, code = ?error.code, error = %error, "refused");
    }
    errno(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_this_platform() {
        let table = [
            (FsCode::NotFound, libc::ENOENT),
            (FsCode::Exists, libc::EEXIST),
            (FsCode::NotDirectory, libc::ENOTDIR),
            (FsCode::IsDirectory, libc::EISDIR),
            (FsCode::NotEmpty, libc::ENOTEMPTY),
            (FsCode::AccessDenied, libc::EACCES),
            (FsCode::NotPermitted, libc::EPERM),
            (FsCode::Invalid, libc::EINVAL),
            (FsCode::NameTooLong, libc::ENAMETOOLONG),
            (FsCode::Range, libc::ERANGE),
            (FsCode::FileTooBig, libc::EFBIG),
            (FsCode::TooBig, libc::E2BIG),
            (FsCode::NoSpace, libc::ENOSPC),
            (FsCode::QuotaExceeded, libc::EDQUOT),
            (FsCode::TooManyLinks, libc::EMLINK),
            (FsCode::CrossDevice, libc::EXDEV),
            (FsCode::Stale, libc::ESTALE),
            (FsCode::NoData, libc::ENODATA),
            (FsCode::Loop, libc::ELOOP),
            (FsCode::ReadOnly, libc::EROFS),
            (FsCode::Busy, libc::EBUSY),
            (FsCode::TextBusy, libc::ETXTBSY),
            (FsCode::Io, libc::EIO),
            (FsCode::Corrupt, libc::EIO),
            (FsCode::Unavailable, libc::EHOSTDOWN),
            (FsCode::TimedOut, libc::ETIMEDOUT),
            (FsCode::NotSupported, libc::EOPNOTSUPP),
            (FsCode::VersionMismatch, libc::EPROTONOSUPPORT),
            (FsCode::WrongCluster, libc::ENXIO),
            (FsCode::Interrupted, libc::EINTR),
            (FsCode::Internal, libc::EIO),
            (FsCode::WouldBlock, libc::EAGAIN),
            (FsCode::Deadlock, libc::EDEADLK),
            (FsCode::NoLocks, libc::ENOLCK),
            (FsCode::Awaiting, libc::EHOSTDOWN),
        ];
        assert_eq!(table.len(), FsCode::ALL.len());
        for (code, number) in table {
            assert_eq!(errno(&code.into()).code(), number, "{code:?}");
        }
    }
}
