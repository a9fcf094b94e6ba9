//! `lfs hsm_state`, `hsm_action`, `hsm_restore`, `hsm_release`, by the extended attribute `sateen.hsm`.

use std::path::Path;

use super::hsm_text::ARCHIVE_ID;
use super::{Failure, FirstFailure, Outcome, hsm_text, place, print, strerror};
use crate::getopt::{self, Arg, Spec, opt};

/// Longest list of files that is read, in bytes.
const LIST_BYTES_MAX: u64 = 256 << 20;

/// `lfs hsm_state FILE...`
pub fn state(words: &[String]) -> Outcome {
    each("hsm_state", words, hsm_text::state)
}

/// `lfs hsm_action FILE...`
pub fn action(words: &[String]) -> Outcome {
    each("hsm_action", words, hsm_text::action)
}

fn each(verb: &str, words: &[String], text: impl Fn(&str, Option<&hsm_text::Hsm>) -> String) -> Outcome {
    const NONE: &[Spec<()>] = &[];
    let paths = getopt::parse(NONE, words).map_err(|e| Failure::usage(verb, e))?.operands;
    if paths.is_empty() {
        return Err(Failure::usage(verb, "no file given"));
    }
    let mut failures = FirstFailure::default();
    for path in &paths {
        let told = place::hsm(path).and_then(|hsm| print(text(path, hsm.as_ref()).as_bytes()));
        failures.note(verb, told);
    }
    failures.finish()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    List,
    Data,
    Archive,
}

const SPECS: &[Spec<Key>] = &[
    opt(Key::List, 'l', &["filelist"], Arg::Required),
    opt(Key::Data, 'D', &["data"], Arg::Required),
    opt(Key::Archive, 'a', &["archive"], Arg::Required),
];

/// `lfs hsm_restore`, `hsm_release` and `hsm_archive`: silent where it goes well. As in Lustre nothing is asked for if one of the files is
/// no regular one.
pub fn request(verb: &str, operation: &str, words: &[String]) -> Outcome {
    let mut paths = Vec::new();
    let parsed = getopt::parse(SPECS, words).map_err(|e| Failure::usage(verb, e))?;
    for (key, value) in parsed.options {
        match (key, value) {
            (Key::List, Some(list)) => paths.extend(listed(&list)?),
            // For archives that understand it; none here does.
            (Key::Data, _) => {}
            (Key::Archive, Some(number)) if operation == "archive" => {
                if number.parse() != Ok(ARCHIVE_ID) {
                    let what = format!("error: there is no archive {number}: every repository is archive {ARCHIVE_ID}");
                    return Err(Failure::usage(verb, what));
                }
            }
            _ => {
                let what = "error: -a is supported only when archiving or removing";
                return Err(Failure::usage(verb, what));
            }
        }
    }
    paths.extend(parsed.operands);
    if paths.is_empty() {
        return Err(Failure::usage(verb, "no file given"));
    }
    for path in &paths {
        let meta = std::fs::symlink_metadata(path).map_err(|e| Failure::io("cannot access", path, &e))?;
        if !meta.is_file() {
            return Err(Failure::new(libc::EINVAL, format!("error: \"{path}\" is not a regular file")));
        }
    }
    let mut failures = FirstFailure::default();
    for path in &paths {
        failures.note(verb, place::ask_hsm(path, operation).map_err(|e| explain(path, e)));
    }
    failures.finish()
}

fn explain(path: &str, e: rustix::io::Errno) -> Failure {
    use rustix::io::Errno;
    let errno = e.raw_os_error();
    let failure = Failure::new(errno, format!("Cannot send HSM request (use of {path}): {}", strerror(errno)));
    match e {
        Errno::OPNOTSUPP if place::of(path).is_err() => failure.with_hint("the path is not on a Sateen file system"),
        Errno::BUSY => failure.with_hint("a program has it open, here or on another mount"),
        Errno::PERM => failure.with_hint("lfs hsm_state shows whether it is archived and not dirty"),
        Errno::NODATA => failure.with_hint("the file is in no repository: `sateen repo list` shows those there are"),
        _ => failure,
    }
}

/// Files of a list, one a line.
fn listed(list: &str) -> Result<Vec<String>, Failure> {
    let read = || -> std::io::Result<String> {
        if Path::new(list).metadata()?.len() > LIST_BYTES_MAX {
            return Err(std::io::Error::from_raw_os_error(libc::EFBIG));
        }
        std::fs::read_to_string(list)
    };
    let text = read().map_err(|e| Failure::io("cannot read", list, &e))?;
    Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}
