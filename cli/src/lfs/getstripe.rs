//! `lfs getstripe`.

use std::path::Path;

use super::getstripe_args::{self, Field, GetStripe, is_on, values};
use super::{Failure, FirstFailure, Outcome, getstripe_text, place, print};

const VERB: &str = "getstripe";

/// Runs the verb.
pub fn run(words: &[String]) -> Outcome {
    let asked = getstripe_args::parse(words).map_err(|e| Failure::usage(VERB, e))?;
    let mut failures = FirstFailure::default();
    for path in &asked.paths {
        match std::fs::metadata(path) {
            Err(e) => failures.note(VERB, Err(Failure::io("cannot access", path, &e))),
            // Said once, not for every entry below.
            Ok(meta) if meta.is_dir() && place::of(path).is_err() => {
                failures.note(VERB, place::of(path).map(drop));
            }
            Ok(meta) if meta.is_dir() => {
                failures.note(VERB, directory(path, &asked));
                if !asked.directory {
                    entries(path, &asked, &mut failures);
                }
            }
            Ok(meta) if meta.is_file() => failures.note(VERB, file(path, &asked)),
            Ok(_) => {
                let what = format!("'{path}' has no layout: it is neither a regular file nor a directory");
                failures.note(VERB, Err(Failure::new(libc::ENODATA, what)));
            }
        }
    }
    failures.finish()
}

fn file(path: &str, asked: &GetStripe) -> Outcome {
    let layout = place::shown_layout(path)?;
    if !is_on(&layout, &asked.osts) {
        return Ok(());
    }
    let fid = place::fid(path, true)?;
    let text = if asked.fields.is_empty() {
        getstripe_text::file(path, fid, &layout, asked.style)
    } else {
        values(fid, &layout, asked)
    };
    print(text.as_bytes())
}

fn directory(path: &str, asked: &GetStripe) -> Outcome {
    if !asked.osts.is_empty() {
        return Ok(());
    }
    if asked.fields == [Field::Fid] {
        return print(format!("{}\n", place::fid(path, true)?).as_bytes());
    }
    let default = place::default_layout(path)?;
    let text = if asked.fields.is_empty() {
        getstripe_text::directory(path, &default, asked.style)
    } else {
        // The first component speaks for a default: none is instantiated.
        let layout = default.resolve(&default);
        values(place::fid(path, true)?, &layout, asked)
    };
    print(text.as_bytes())
}

/// What is in a directory: one level, or everything with `-r`. Sorted, so that two runs print the same.
fn entries(path: &str, asked: &GetStripe, failures: &mut FirstFailure) {
    let read = || -> std::io::Result<Vec<(String, std::fs::FileType)>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            names.push((entry.file_name().to_string_lossy().into_owned(), entry.file_type()?));
        }
        names.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(names)
    };
    let names = match read() {
        Ok(names) => names,
        Err(e) => return failures.note(VERB, Err(Failure::io("cannot read", path, &e))),
    };
    for (name, file_type) in names {
        let child = Path::new(path).join(name).to_string_lossy().into_owned();
        if file_type.is_file() {
            failures.note(VERB, file(&child, asked));
        } else if file_type.is_dir() {
            failures.note(VERB, directory(&child, asked));
            if asked.recursive {
                entries(&child, asked, failures);
            }
        }
    }
}
