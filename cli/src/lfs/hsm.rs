//! `lfs hsm_state`, `hsm_action`, `hsm_set`, `hsm_clear`, and what is asked for files: `hsm_archive`, `hsm_restore`, `hsm_release`,
//! `hsm_remove`, `hsm_cancel`; by the extended attribute `sateen.hsm`.

use std::path::Path;

use sateen_types::HsmFlags;

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

/// An option of `hsm_set` and `hsm_clear`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flag {
    Bit(HsmFlags),
    ArchiveId,
}

const FLAGS: &[Spec<Flag>] = &[
    opt(Flag::Bit(HsmFlags::NO_RELEASE), 'r', &["norelease"], Arg::None),
    opt(Flag::Bit(HsmFlags::NO_ARCHIVE), 'a', &["noarchive"], Arg::None),
    opt(Flag::Bit(HsmFlags::DIRTY), 'd', &["dirty"], Arg::None),
    opt(Flag::Bit(HsmFlags::EXISTS), 'e', &["exists"], Arg::None),
    opt(Flag::Bit(HsmFlags::ARCHIVED), 'A', &["archived"], Arg::None),
    opt(Flag::Bit(HsmFlags::LOST), 'l', &["lost"], Arg::None),
    opt(Flag::ArchiveId, 'i', &["archive-id"], Arg::Required),
];

/// `lfs hsm_set` (`set`) and `hsm_clear`: silent where it goes well. As in Lustre the first file that fails is the last one.
pub fn flags(verb: &str, set: bool, words: &[String]) -> Outcome {
    let parsed = getopt::parse(FLAGS, words).map_err(|e| Failure::usage(verb, e))?;
    let mut flags = HsmFlags::default();
    for (key, value) in parsed.options {
        match key {
            Flag::Bit(bit) => flags = flags | bit,
            Flag::ArchiveId if !set => {
                return Err(Failure::usage(verb, "error: -i is supported only when setting flags"));
            }
            Flag::ArchiveId => check_archive(verb, &value.unwrap_or_default())?,
        }
    }
    if flags == HsmFlags::default() {
        return Err(Failure::usage(verb, "no flag given"));
    }
    if parsed.operands.is_empty() {
        return Err(Failure::usage(verb, "no file given"));
    }
    let value = format!("{}={}", if set { "set" } else { "clear" }, flags.0);
    for path in &parsed.operands {
        place::ask_hsm(path, &value).map_err(|e| {
            let errno = e.raw_os_error();
            let failure = Failure::new(errno, format!("Can't change hsm flags for {path}: {}", strerror(errno)));
            hint(failure, path, e, FLAGS_HINT)
        })?;
    }
    Ok(())
}

/// What root and owners may set, where neither may.
const FLAGS_HINT: &str = "norelease and noarchive are the owner's, the others root's, and only as far as they are true: nothing may count as \
     archived that is not";

/// All repositories are one archive.
fn check_archive(verb: &str, number: &str) -> Outcome {
    if number.parse() == Ok(ARCHIVE_ID) {
        return Ok(());
    }
    let what = format!("error: there is no archive {number}: every repository is archive {ARCHIVE_ID}");
    Err(Failure::usage(verb, what))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    List,
    Data,
    Archive,
    Mount,
}

const SPECS: &[Spec<Key>] = &[
    opt(Key::List, 'l', &["filelist"], Arg::Required),
    opt(Key::Data, 'D', &["data"], Arg::Required),
    opt(Key::Archive, 'a', &["archive"], Arg::Required),
    opt(Key::Mount, 'm', &["mntpath"], Arg::Required),
];

/// `lfs hsm_restore`, `hsm_release`, `hsm_archive`, `hsm_remove` and `hsm_cancel`: silent where it goes well. As in Lustre nothing is asked for if one of the files is
/// no regular one.
pub fn request(verb: &str, operation: &str, words: &[String]) -> Outcome {
    let mut paths = Vec::new();
    let parsed = getopt::parse(SPECS, words).map_err(|e| Failure::usage(verb, e))?;
    for (key, value) in parsed.options {
        match (key, value) {
            (Key::List, Some(list)) => paths.extend(listed(&list)?),
            // For archives that understand it; none here does.
            (Key::Data, _) => {}
            (Key::Archive, Some(number)) if matches!(operation, "archive" | "remove") => check_archive(verb, &number)?,
            (Key::Mount, _) => {
                let failure = Failure::usage(verb, "error: --mntpath is not supported: objects go with their files");
                return Err(failure
                    .with_hint("a link with --auto-export DELETED deletes the objects of files that are removed"));
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
    let errno = e.raw_os_error();
    let failure = Failure::new(errno, format!("Cannot send HSM request (use of {path}): {}", strerror(errno)));
    hint(
        failure,
        path,
        e,
        "lfs hsm_state shows whether it is archived, not dirty and not released, and whose rules it has",
    )
}

/// With advice; `not_permitted`: where it may not be done.
fn hint(failure: Failure, path: &str, e: rustix::io::Errno, not_permitted: &str) -> Failure {
    use rustix::io::Errno;
    match e {
        Errno::OPNOTSUPP if place::of(path).is_err() => failure.with_hint("the path is not on a Sateen file system"),
        Errno::BUSY => failure
            .with_hint("a program has it open, here or on another mount, or it waits to be exported: lfs hsm_action"),
        Errno::PERM => failure.with_hint(not_permitted),
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
