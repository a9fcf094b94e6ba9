//! `mount.sateen`: how mount(8) calls us, `mount.sateen SOURCE DIR [-sfnv] [-N ns] [-o opts] [-t type]`, and its exit
//! codes: 1 for a wrong call, 32 for a mount that failed.

use std::path::Path;
use std::process::ExitCode;

use sateen_client::MountSource;
use sateen_fuse::MountOptions;
use sateen_types::{FsCode, FsError, FsResult};

use crate::daemon::{self, Background};
use crate::exit;
use crate::getopt::{self, Arg, Spec, opt};

/// What mount(8) wants.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    source: String,
    point: String,
    options: Vec<String>,
    sloppy: bool,
    fake: bool,
    verbose: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Sloppy,
    Fake,
    Verbose,
    NoTable,
    Namespace,
    Options,
    Type,
}

const SPECS: &[Spec<Key>] = &[
    opt(Key::Sloppy, 's', &[], Arg::None),
    opt(Key::Fake, 'f', &["fake"], Arg::None),
    opt(Key::NoTable, 'n', &["no-mtab"], Arg::None),
    opt(Key::Verbose, 'v', &["verbose"], Arg::None),
    opt(Key::Namespace, 'N', &["namespace"], Arg::Required),
    opt(Key::Options, 'o', &["options"], Arg::Required),
    opt(Key::Type, 't', &["types"], Arg::Required),
];

fn parse(words: &[String]) -> Result<Call, String> {
    let parsed = getopt::parse(SPECS, words)?;
    let [source, point] = &parsed.operands[..] else {
        return Err(format!("expected SOURCE and DIR, got {} words", parsed.operands.len()));
    };
    let mut call = Call {
        source: source.clone(),
        point: point.clone(),
        options: Vec::new(),
        sloppy: false,
        fake: false,
        verbose: false,
    };
    for (key, value) in parsed.options {
        match (key, value) {
            (Key::Sloppy, _) => call.sloppy = true,
            (Key::Fake, _) => call.fake = true,
            (Key::Verbose, _) => call.verbose = true,
            (Key::Options, Some(list)) => call.options.push(list),
            (Key::Namespace, _) => return Err("-N: mount namespaces are not supported; use nsenter(1)".to_owned()),
            _ => {}
        }
    }
    Ok(call)
}

/// Runs it.
pub fn run(words: &[String]) -> ExitCode {
    let call = match parse(words) {
        Ok(call) => call,
        Err(what) => {
            complain!("error: mount.sateen: {what}");
            complain!("hint: mount.sateen HOST:PORT:/FS DIR [-sfnv] [-o options]; usually called by mount -t sateen");
            return ExitCode::from(exit::FAILED);
        }
    };
    match mount(&call) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            exit::print_error(&e);
            ExitCode::from(exit::MOUNT_FAILED)
        }
    }
}

fn mount(call: &Call) -> FsResult<()> {
    let source: MountSource = call.source.parse()?;
    MountOptions::parse(&call.options, call.sloppy)?;
    if call.options.iter().flat_map(|o| o.split(',')).any(|o| o == "remount") {
        return Err(FsError::new(FsCode::NotSupported, "remount is not supported")
            .with_hint("unmount and mount with the new options"));
    }
    if call.fake {
        return Ok(());
    }
    // The background process parses strictly: it gets only what was understood.
    let known = |o: &&str| !call.sloppy || MountOptions::parse(&[o], false).is_ok();
    let options: Vec<String> =
        call.options.iter().flat_map(|l| l.split(',')).filter(known).map(str::to_owned).collect();
    let pid = daemon::start(&Background {
        source: &source.to_string(),
        point: &crate::mount::absolute(Path::new(&call.point))?,
        options: &options,
        log: None,
        log_level: "info",
    })?;
    if call.verbose {
        say!("mount.sateen: {source} mounted on {} (process {pid})", call.point);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_way_mount_calls_is_understood() {
        let call = parse(&words("h:/fs /mnt -s -n -v -o rw,nosuid -t sateen")).expect("valid");
        assert_eq!((call.source.as_str(), call.point.as_str()), ("h:/fs", "/mnt"));
        assert_eq!(call.options, ["rw,nosuid"]);
        assert!(call.sloppy && call.verbose && !call.fake);
        assert!(parse(&words("h:/fs")).is_err());
        assert!(parse(&words("h:/fs /mnt -N 12")).is_err());
    }

    #[test]
    fn a_fake_mount_checks_and_does_nothing() {
        mount(&parse(&words("h:/fs /nowhere -f -o ro")).expect("valid")).expect("checked only");
        assert!(mount(&parse(&words("h:/fs /nowhere -f -o what")).expect("valid")).is_err());
        mount(&parse(&words("h:/fs /nowhere -f -s -o what")).expect("valid")).expect("sloppy");
        assert!(mount(&parse(&words("nonsense /nowhere -f")).expect("valid")).is_err());
    }
}
