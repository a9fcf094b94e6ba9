//! The command line: `sateen`, `lfs`, `mount.sateen`.
//!
//! `mount.sateen` is a link to `sateen` (Cargo allows no dot in a program's name): install it as `/sbin/mount.sateen`.
//!
//! Thin verbs over the client library: each file parses, calls and prints. What is parsed and printed in Lustre's
//! forms (`lfs/`) is pure and tested byte for byte. Errors are two lines, `error:` and `hint:`, and an exit code
//! ([`exit`]); nothing here panics on what a user typed.

#[macro_use]
mod say;

mod args;
mod changelog;
mod daemon;
mod dev;
pub mod exit;
mod fs;
mod fsck;
mod getopt;
mod lfs;
mod mds;
mod mount;
mod mount_helper;
mod repo;
mod status;
mod table;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

/// Entry of `sateen`, and by the name it is called of `lfs` and `mount.sateen`.
pub fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let called = words.first().map(std::path::Path::new).and_then(|p| p.file_name()).and_then(|n| n.to_str());
    match called {
        Some("lfs" | "sateen-lfs") => return lfs::run(&text(&words[1..])),
        Some("mount.sateen") => return mount_helper::run(&text(&words[1..])),
        _ => {}
    }
    // Before clap sees them: `lfs` has option forms of its own.
    if words.get(1).is_some_and(|w| w == "lfs") {
        return lfs::run(&text(&words[2..]));
    }
    let cli = match args::Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(e) => {
            let code = if e.use_stderr() { exit::USAGE } else { 0 };
            // Nothing can be done about a closed terminal.
            let _ = e.print();
            return ExitCode::from(code);
        }
    };
    let done = match cli.command {
        args::Command::Mount(mount) => mount::run(mount),
        args::Command::Dev { command } => dev::run(command),
        args::Command::Fs { command, mds } => fs::run(command, &mds),
        args::Command::Repo { command, mds } => repo::run(command, &mds),
        args::Command::Changelog { command, mds } => changelog::run(command, &mds),
        args::Command::Status { mds, json } => status::run(&mds, json),
        args::Command::Fsck { fsck, mds } => fsck::run(&fsck, &mds),
        args::Command::Lfs { words } => return lfs::run(&text(&words)),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(e) => exit::fail(&e),
    }
}

/// Entry of `sateen-lfs`.
pub fn lfs_main() -> ExitCode {
    lfs::run(&text(&std::env::args_os().skip(1).collect::<Vec<_>>()))
}

/// Arguments as text. Bytes that are not UTF-8 can be in a path only; such a path is then reported as not found.
fn text(words: &[OsString]) -> Vec<String> {
    words.iter().map(|w| w.to_string_lossy().into_owned()).collect()
}
