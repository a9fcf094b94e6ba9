//! Printing that cannot fail: a reader that went away (`| head`) must not stop a command in the middle of its work, as
//! the panic of `println!` would.

use std::fmt::Arguments;
use std::io::Write;

/// Writes text to standard output, if anybody reads it.
pub fn out(text: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_fmt(text).and_then(|()| out.flush());
}

/// Writes text to standard error, if anybody reads it.
pub fn err(text: Arguments<'_>) {
    let _ = std::io::stderr().lock().write_fmt(text);
}

/// `println!` that cannot fail.
macro_rules! say {
    ($($arg:tt)*) => { $crate::say::out(format_args!("{}\n", format_args!($($arg)*))) };
}

/// `print!` that cannot fail.
macro_rules! say_text {
    ($($arg:tt)*) => { $crate::say::out(format_args!($($arg)*)) };
}

/// `eprintln!` that cannot fail.
macro_rules! complain {
    ($($arg:tt)*) => { $crate::say::err(format_args!("{}\n", format_args!($($arg)*))) };
}
