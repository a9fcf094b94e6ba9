//! `lfs`: Lustre's commands with Lustre's options and output (2.15), so that scripts keep working.
//!
//! Layouts travel through the mount as the extended attribute `sateen.layout`; targets and paths of FIDs are asked of
//! the MDS that the mount's source names. What is parsed (`*_args.rs`) and printed (`*_text.rs`) is pure.
//!
//! The exit status is 0 or an errno, as in Lustre. Errors are `lfs VERB: what` and, where there is advice, `hint:`.

mod changelog;
mod changelog_text;
mod df;
mod df_text;
mod fids;
mod find;
mod find_args;
mod getstripe;
mod getstripe_args;
pub mod getstripe_text;
mod glob;
mod hsm;
mod hsm_text;
mod place;
mod setstripe;
pub mod setstripe_args;
mod size;

use std::process::ExitCode;

use sateen_types::FsError;

/// The verbs, for `--list-commands` and `help`.
const VERBS: [(&str, &str); 19] = [
    (
        "setstripe",
        "[-c COUNT] [-S SIZE] [-i INDEX] [-o OSTS] [-p POOL] [-E END ...] [-L raid0] [--mode MODE] FILE|DIR... | -d DIR...",
    ),
    ("getstripe", "[-cSipLgmFNE] [-d] [-r] [-q] [-v] [-y] [-O OST] [-I[ID]] FILE|DIR..."),
    ("df", "[-i] [-h|-H] [PATH]"),
    ("find", "PATH... [!] [-name|-type|-size|-mtime|-stripe-count|-ost|... VALUE] [-maxdepth N] [-print0]"),
    ("path2fid", "PATH..."),
    ("fid2path", "[-0] [-f] [-n] FSNAME|MOUNT FID..."),
    ("osts", "[MOUNT]"),
    ("mdts", "[MOUNT]"),
    ("hsm_state", "FILE..."),
    ("hsm_action", "FILE..."),
    ("hsm_restore", "[-l|--filelist LIST] FILE..."),
    ("hsm_release", "[-l|--filelist LIST] FILE..."),
    ("changelog", "[-f|--follow] [-u USER] [-m MASK] MDT [START [END]]"),
    ("changelog_clear", "MDT USER ENDREC"),
    ("hsm_archive", "[-a|--archive 1] [-l|--filelist LIST] FILE..."),
    ("hsm_remove", "[-a|--archive 1] [-l|--filelist LIST] FILE..."),
    ("hsm_cancel", "[-l|--filelist LIST] FILE..."),
    ("hsm_set", "[--norelease] [--noarchive] [--dirty] [--exists] [--archived] [--lost] [-i|--archive-id 1] FILE..."),
    ("hsm_clear", "[--norelease] [--noarchive] [--dirty] [--exists] [--archived] [--lost] FILE..."),
];

/// Why a verb failed.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// Exit status.
    pub errno: i32,
    /// One line.
    pub message: String,
    /// One line.
    pub hint: Option<String>,
}

/// Result of a verb.
pub type Outcome = Result<(), Failure>;

impl Failure {
    /// A failure with an errno.
    pub fn new(errno: i32, message: impl Into<String>) -> Failure {
        Failure { errno, message: message.into(), hint: None }
    }

    /// A failure of the operating system on a path, worded as Lustre does.
    pub fn io(doing: &str, path: &str, e: &std::io::Error) -> Failure {
        let errno = e.raw_os_error().unwrap_or(libc::EIO);
        Failure::new(errno, format!("{doing} '{path}': {}", strerror(errno)))
    }

    /// Wrong words.
    pub fn usage(verb: &str, message: impl Into<String>) -> Failure {
        let words = VERBS.iter().find(|(v, _)| *v == verb).map_or("", |(_, words)| words);
        Failure::new(libc::EINVAL, message).with_hint(format!("usage: lfs {verb} {words}"))
    }

    /// The same with advice.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }
}

impl From<FsError> for Failure {
    fn from(e: FsError) -> Failure {
        Failure { errno: e.code.errno(), message: e.message, hint: e.hint }
    }
}

/// The C library's text of an errno, without the number that Rust adds.
pub fn strerror(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Runs `lfs WORDS`.
pub fn run(words: &[String]) -> ExitCode {
    let (verb, rest) = match words.split_first() {
        Some((verb, rest)) => (verb.as_str(), rest),
        None => return help(None),
    };
    // `lfs hsm state` is `lfs hsm_state`.
    let joined;
    let (verb, rest) = match rest.split_first() {
        Some((second, others)) if verb == "hsm" => {
            joined = format!("hsm_{second}");
            (joined.as_str(), others)
        }
        _ => (verb, rest),
    };
    let done = match verb {
        "help" | "--help" | "-h" => return help(rest.first().map(String::as_str)),
        "--version" | "-V" => {
            say!("lfs {} (sateen)", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        "--list-commands" => {
            say!("{}", VERBS.map(|(v, _)| v).join(" "));
            return ExitCode::SUCCESS;
        }
        _ if rest.iter().any(|w| w == "--help") => return help(Some(verb)),
        "setstripe" => setstripe::run(rest),
        "getstripe" => getstripe::run(rest),
        "df" => df::run(rest),
        "osts" => df::list(rest, true),
        "mdts" => df::list(rest, false),
        "path2fid" => fids::path2fid(rest),
        "fid2path" => fids::fid2path(rest),
        "find" => find::run(rest),
        "changelog" => changelog::run(rest),
        "changelog_clear" => changelog::clear(rest),
        "hsm_state" => hsm::state(rest),
        "hsm_action" => hsm::action(rest),
        "hsm_restore" => hsm::request(verb, "restore", rest),
        "hsm_release" => hsm::request(verb, "release", rest),
        "hsm_archive" => hsm::request(verb, "archive", rest),
        "hsm_remove" => hsm::request(verb, "remove", rest),
        "hsm_cancel" => hsm::request(verb, "cancel", rest),
        "hsm_set" => hsm::flags(verb, true, rest),
        "hsm_clear" => hsm::flags(verb, false, rest),
        _ => Err(Failure::new(libc::EINVAL, "no such command").with_hint("lfs --list-commands shows what there is")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(verb, &failure);
            status(failure.errno)
        }
    }
}

/// Prints a failure; verbs that go on with the next path use it by themselves.
pub fn report(verb: &str, failure: &Failure) {
    complain!("lfs {verb}: {}", failure.message);
    if let Some(hint) = &failure.hint {
        complain!("hint: {hint}");
    }
}

fn status(errno: i32) -> ExitCode {
    ExitCode::from(u8::try_from(errno).ok().filter(|e| *e != 0).unwrap_or(1))
}

fn help(verb: Option<&str>) -> ExitCode {
    match verb.map(|v| (v, VERBS.iter().find(|(name, _)| *name == v))) {
        None => {
            say!("usage: lfs COMMAND ARGS");
            VERBS.iter().for_each(|(v, words)| say!("  lfs {v} {words}"));
            ExitCode::SUCCESS
        }
        Some((_, Some((v, words)))) => {
            say!("usage: lfs {v} {words}");
            ExitCode::SUCCESS
        }
        Some((v, None)) => {
            report(
                v,
                &Failure::new(libc::EINVAL, "no such command").with_hint("lfs --list-commands shows what there is"),
            );
            status(libc::EINVAL)
        }
    }
}

/// Prints to standard output; a reader that closed the pipe early (`| head`) ends us quietly.
pub fn print(text: &[u8]) -> Outcome {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => Err(Failure::io("cannot write to", "standard output", &e)),
        Ok(()) => Ok(()),
    }
}

/// Remembers the first failure of several paths while the others go on.
#[derive(Debug, Default)]
pub struct FirstFailure(Option<i32>);

impl FirstFailure {
    /// Reports a failure of one path at once.
    pub fn note(&mut self, verb: &str, outcome: Outcome) {
        if let Err(failure) = outcome {
            report(verb, &failure);
            self.0.get_or_insert(failure.errno);
        }
    }

    /// Ends the process's verb: everything has been reported, only the status is left.
    pub fn finish(self) -> Outcome {
        match self.0 {
            None => Ok(()),
            Some(errno) => std::process::exit(errno.clamp(1, 255)),
        }
    }
}
