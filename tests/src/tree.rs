//! Real input: a tree of files of this machine, copied and compared by ordinary programs.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command;

/// Longest a pass over a tree may take.
const PASS: Duration = Duration::from_secs(400);

/// Subtrees of `/usr` in the order in which they are taken: libraries and headers first, then whatever there is.
const CANDIDATES: [&str; 14] = [
    "/usr/include",
    "/usr/lib/python3",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/libexec",
    "/usr/share/perl",
    "/usr/share/zoneinfo",
    "/usr/share/doc",
    "/usr/bin",
    "/usr/lib/gcc",
    "/usr/lib/git-core",
    "/usr/share",
    "/usr/local",
    "/usr/lib",
];

/// How much a tree holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Regular files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Picks subtrees of `/usr` until there are at least `wanted` files and bytes, none inside another.
pub fn pick(wanted: Amount) -> (Vec<PathBuf>, Amount) {
    let mut picked: Vec<PathBuf> = Vec::new();
    let mut total = Amount::default();
    for candidate in CANDIDATES.map(Path::new) {
        if total.files >= wanted.files && total.bytes >= wanted.bytes {
            break;
        }
        if !candidate.is_dir() || candidate.is_symlink() {
            continue;
        }
        // A larger subtree replaces the smaller ones inside it.
        let (inside, outside): (Vec<PathBuf>, Vec<PathBuf>) =
            picked.into_iter().partition(|p| p.starts_with(candidate));
        picked = outside;
        for small in inside {
            let a = amount(&small);
            total = Amount { files: total.files - a.files, bytes: total.bytes - a.bytes };
        }
        let a = amount(candidate);
        total = Amount { files: total.files + a.files, bytes: total.bytes + a.bytes };
        picked.push(candidate.to_owned());
    }
    (picked, total)
}

/// Counts regular files below `dir`. Hard links count each time, as a copy has them to compare.
pub fn amount(dir: &Path) -> Amount {
    let mut total = Amount::default();
    let Ok(entries) = std::fs::read_dir(dir) else { return total };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            let below = amount(&entry.path());
            total = Amount { files: total.files + below.files, bytes: total.bytes + below.bytes };
        } else if kind.is_file()
            && let Ok(meta) = entry.metadata()
        {
            total = Amount { files: total.files + 1, bytes: total.bytes + meta.size() };
        }
    }
    total
}

/// Shell script: `cp -a` of `$2`, `$3`... to the same names below `$1`. (`cp --parents` of several sources fails on any
/// file system when it comes to the attributes of the parents.)
pub const COPY: &str = r#"
set -euo pipefail
to=$1; shift
for source; do
    mkdir -p "$to${source%/*}"
    cp -a "$source" "$to$source"
done
"#;

/// `cp -a` of each source to the same name below `to`.
#[track_caller]
pub fn copy(sources: &[PathBuf], to: &Path) {
    let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&to];
    args.extend(sources.iter().map(|s| s as &dyn AsRef<std::ffi::OsStr>));
    command::sh(COPY, &args, PASS);
}

/// `diff -r --no-dereference` of each source with its copy.
#[track_caller]
pub fn assert_same_by_diff(sources: &[PathBuf], copy: &Path) {
    for source in sources {
        command::sh(r#"diff -r --no-dereference "$1" "$2$1""#, &[source, &copy], PASS);
    }
}

/// The sha256 manifest of every regular file below `roots`, with names relative to `base`.
#[track_caller]
pub fn manifest(base: &Path, roots: &[PathBuf]) -> String {
    let relative: Vec<PathBuf> =
        roots.iter().map(|r| r.strip_prefix("/").expect("roots are absolute").to_owned()).collect();
    let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&base];
    args.extend(relative.iter().map(|r| r as &dyn AsRef<std::ffi::OsStr>));
    let script = r#"cd "$1"; shift; find "$@" -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum"#;
    command::sh(script, &args, PASS).stdout
}

/// Checks two manifests for equality and says which files differ.
#[track_caller]
pub fn assert_same_manifest(expected: &str, actual: &str) {
    if expected == actual {
        return;
    }
    let expected: std::collections::BTreeSet<&str> = expected.lines().collect();
    let actual: std::collections::BTreeSet<&str> = actual.lines().collect();
    let show = |lines: Vec<&&str>| lines.iter().take(10).map(|l| format!("  {l}\n")).collect::<String>();
    panic!(
        "manifests differ\nexpected only:\n{}actual only:\n{}",
        show(expected.difference(&actual).collect()),
        show(actual.difference(&expected).collect())
    );
}
