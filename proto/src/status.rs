//! `FsError` <-> `tonic::Status`.
//!
//! The whole error travels as an `ErrorDetail` in the status details, so that nothing is guessed from the gRPC code; that
//! code is there for programs that know gRPC but not Sateen, and for errors a proxy or the transport made.

use prost::Message;
use sateen_types::{FsCode, FsError};
use tonic::{Code, Status};

use crate::common::ErrorDetail;

/// Longest message and hint that are taken from a peer.
const TEXT_CHARS_MAX: usize = 1024;

/// The gRPC code that says most nearly the same.
fn grpc_code(code: FsCode) -> Code {
    match code {
        FsCode::NotFound | FsCode::NoData | FsCode::Stale => Code::NotFound,
        FsCode::Exists => Code::AlreadyExists,
        FsCode::AccessDenied | FsCode::NotPermitted => Code::PermissionDenied,
        FsCode::Invalid | FsCode::NameTooLong | FsCode::TooBig => Code::InvalidArgument,
        FsCode::Range | FsCode::FileTooBig => Code::OutOfRange,
        FsCode::NoSpace | FsCode::QuotaExceeded | FsCode::TooManyLinks | FsCode::NoLocks => Code::ResourceExhausted,
        FsCode::NotDirectory
        | FsCode::IsDirectory
        | FsCode::NotEmpty
        | FsCode::CrossDevice
        | FsCode::Loop
        | FsCode::ReadOnly
        | FsCode::Busy
        | FsCode::TextBusy
        | FsCode::VersionMismatch
        | FsCode::WrongCluster => Code::FailedPrecondition,
        FsCode::Io | FsCode::Internal => Code::Internal,
        FsCode::Corrupt => Code::DataLoss,
        FsCode::Unavailable | FsCode::Awaiting => Code::Unavailable,
        FsCode::TimedOut => Code::DeadlineExceeded,
        FsCode::NotSupported => Code::Unimplemented,
        FsCode::Interrupted => Code::Cancelled,
        FsCode::WouldBlock | FsCode::Deadlock => Code::Aborted,
    }
}

/// The status a server answers with.
pub fn to_status(error: FsError) -> Status {
    let (code, message) = (grpc_code(error.code), error.message.clone());
    Status::with_details(code, message, to_detail(error).encode_to_vec().into())
}

/// An error as a part of a message.
pub fn to_detail(error: FsError) -> ErrorDetail {
    ErrorDetail { code: error.code.wire(), message: error.message, hint: error.hint.unwrap_or_default() }
}

/// The error that a peer put into a message.
pub fn from_detail(detail: ErrorDetail) -> FsError {
    received(FsCode::from_wire(detail.code).unwrap_or(FsCode::Internal), detail)
}

fn received(code: FsCode, detail: ErrorDetail) -> FsError {
    let cut = |s: String| s.chars().take(TEXT_CHARS_MAX).collect::<String>();
    let error = FsError::new(code, cut(detail.message));
    if detail.hint.is_empty() { error } else { error.with_hint(cut(detail.hint)) }
}

/// The error behind a status. Without our detail (the transport failed, a proxy answered) it is decided from the gRPC
/// code, and only codes that say "nothing happened or nobody knows" become retryable.
pub fn from_status(status: &Status) -> FsError {
    if let Ok(detail) = ErrorDetail::decode(status.details())
        && let Some(code) = FsCode::from_wire(detail.code)
    {
        return received(code, detail);
    }
    let code = match status.code() {
        Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Aborted => FsCode::Unavailable,
        Code::DeadlineExceeded => FsCode::TimedOut,
        Code::Unimplemented => FsCode::NotSupported,
        Code::ResourceExhausted | Code::OutOfRange => FsCode::TooBig,
        Code::PermissionDenied | Code::Unauthenticated => FsCode::AccessDenied,
        Code::NotFound => FsCode::NotFound,
        Code::AlreadyExists => FsCode::Exists,
        Code::InvalidArgument => FsCode::Invalid,
        Code::FailedPrecondition => FsCode::Busy,
        Code::DataLoss => FsCode::Corrupt,
        // tonic reports a connection that broke under a request as Internal or Unknown.
        Code::Internal => FsCode::Unavailable,
        Code::Ok => FsCode::Internal,
    };
    FsError::new(
        code,
        format!("{}: {}", status.code(), status.message().chars().take(TEXT_CHARS_MAX).collect::<String>()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_survives_the_wire_whole() {
        for code in FsCode::ALL {
            let error = FsError::new(code, "what failed").with_hint("what to do");
            assert_eq!(from_status(&to_status(error.clone())), error);
            assert_eq!(from_detail(to_detail(error.clone())), error);
        }
        let plain = FsError::new(FsCode::NoSpace, "full");
        assert_eq!(from_status(&to_status(plain.clone())), plain);
    }

    #[test]
    fn a_status_without_detail_or_with_garbage_is_still_an_error() {
        assert_eq!(from_status(&Status::unavailable("gone")).code, FsCode::Unavailable);
        let garbage = Status::with_details(Code::NotFound, "x", vec![0xff; 40].into());
        assert_eq!(from_status(&garbage).code, FsCode::NotFound);
        let unknown = ErrorDetail { code: 9999, message: String::new(), hint: String::new() }.encode_to_vec();
        assert_eq!(from_status(&Status::with_details(Code::Internal, "x", unknown.into())).code, FsCode::Unavailable);
    }
}
