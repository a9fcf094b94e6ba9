//! How commands end: exit codes, and the two lines of an error.

use std::process::ExitCode;

use sateen_types::{FsCode, FsError};

/// The operation failed.
pub const FAILED: u8 = 1;
/// The command line is wrong (clap's code).
pub const USAGE: u8 = 2;
/// What was named does not exist.
pub const NOT_FOUND: u8 = 3;
/// Not allowed.
pub const PERMISSION: u8 = 4;
/// No answer in time, or nobody there.
pub const UNREACHABLE: u8 = 5;
/// It works, but not all of it (`status`).
pub const DEGRADED: u8 = 7;
/// mount(8): the mount failed.
pub const MOUNT_FAILED: u8 = 32;

/// Exit code of an outcome.
pub fn code_of(code: FsCode) -> u8 {
    match code {
        FsCode::NotFound => NOT_FOUND,
        FsCode::AccessDenied | FsCode::NotPermitted => PERMISSION,
        FsCode::Unavailable | FsCode::TimedOut => UNREACHABLE,
        _ => FAILED,
    }
}

/// Prints `error:` and `hint:` to standard error.
pub fn print_error(error: &FsError) {
    complain!("error: {}", error.message);
    if let Some(hint) = &error.hint {
        complain!("hint: {hint}");
    }
}

/// Prints the error and gives its exit code.
pub fn fail(error: &FsError) -> ExitCode {
    print_error(error);
    ExitCode::from(code_of(error.code))
}
