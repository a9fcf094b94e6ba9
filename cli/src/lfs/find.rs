//! `lfs find`.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::find_args::{self, Facts, Find};
use super::{Failure, FirstFailure, Outcome, place, print};

const VERB: &str = "find";

/// Runs the verb.
pub fn run(words: &[String]) -> Outcome {
    let find = find_args::parse(words, look_up).map_err(|e| Failure::usage(VERB, e))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let mut failures = FirstFailure::default();
    for path in &find.paths {
        visit(&find, Path::new(path), 0, now, &mut failures);
    }
    failures.finish()
}

/// Number of a user or a group by name, from the files every system has.
fn look_up(group: bool, name: &str) -> Option<u32> {
    let text = std::fs::read_to_string(if group { "/etc/group" } else { "/etc/passwd" }).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

fn visit(find: &Find, path: &Path, depth: usize, now: u64, failures: &mut FirstFailure) {
    let shown = path.to_string_lossy();
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) => return failures.note(VERB, Err(Failure::io("cannot access", &shown, &e))),
    };
    if depth >= find.min_depth {
        match matches(find, path, &meta, now) {
            Ok(true) => {
                let mut line = path.as_os_str().as_bytes().to_vec();
                line.push(find.end);
                failures.note(VERB, print(&line));
            }
            Ok(false) => {}
            Err(failure) => failures.note(VERB, Err(failure)),
        }
    }
    if meta.is_dir() && depth < find.max_depth {
        let entries =
            std::fs::read_dir(path).and_then(|d| d.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>());
        match entries {
            Ok(children) => children.iter().for_each(|child| visit(find, child, depth + 1, now, failures)),
            Err(e) => failures.note(VERB, Err(Failure::io("cannot read", &shown, &e))),
        }
    }
}

fn matches(find: &Find, path: &Path, meta: &std::fs::Metadata, now: u64) -> Result<bool, Failure> {
    let t = meta.file_type();
    let kinds = [
        (t.is_file(), 'f'),
        (t.is_dir(), 'd'),
        (t.is_symlink(), 'l'),
        (t.is_fifo(), 'p'),
        (t.is_socket(), 's'),
        (t.is_char_device(), 'c'),
        (t.is_block_device(), 'b'),
    ];
    let age = |seconds: i64| u64::try_from((now as i64).saturating_sub(seconds)).unwrap_or(0);
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let mut facts = Facts {
        name: &name,
        file_type: kinds.iter().find(|(is, _)| *is).map_or('?', |(_, letter)| *letter),
        size: meta.len(),
        links: meta.nlink(),
        ages: [age(meta.mtime()), age(meta.atime()), age(meta.ctime())],
        uid: meta.uid(),
        gid: meta.gid(),
        layout: None,
        released: false,
    };
    let layout = if find.needs_layout() && t.is_file() { Some(place::layout(&path.to_string_lossy())?) } else { None };
    facts.layout = layout.as_ref();
    if find.needs_hsm() && t.is_file() {
        facts.released = place::hsm(&path.to_string_lossy())?.is_some_and(|hsm| hsm.is_released());
    }
    Ok(find.matches(&facts))
}
