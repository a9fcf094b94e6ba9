//! `lfs setstripe`.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::io::Errno;
use sateen_types::layout::TemplateComponent;
use sateen_types::{Layout, LayoutTemplate};

use super::setstripe_args::{self, Refused, SetStripe};
use super::{Failure, FirstFailure, Outcome, place, strerror};

const VERB: &str = "setstripe";

/// Runs the verb.
pub fn run(words: &[String]) -> Outcome {
    let asked = setstripe_args::parse(words).map_err(|e| match e {
        Refused::Usage(what) => Failure::usage(VERB, what),
        Refused::NotSupported(what) => {
            Failure::new(libc::EOPNOTSUPP, format!("{what} is not supported by this version"))
                .with_hint("lfs help setstripe shows the options there are")
        }
    })?;
    let layout = match &asked.copy {
        Some(source) => Some(layout_of(source)?),
        None => asked.layout.clone(),
    };
    let mut failures = FirstFailure::default();
    for path in &asked.paths {
        failures.note(VERB, one(path, layout.as_ref(), &asked));
    }
    failures.finish()
}

/// What `--copy` takes over: a directory's default, or a file's layout with its OSTs to be chosen anew.
fn layout_of(path: &str) -> Result<LayoutTemplate, Failure> {
    if Path::new(path).is_dir() { place::default_layout(path) } else { Ok(template_of(place::layout(path)?)) }
}

fn template_of(layout: Layout) -> LayoutTemplate {
    let components =
        layout.components.into_iter().map(|c| TemplateComponent { extent: c.extent, striping: c.striping });
    LayoutTemplate { components: components.collect() }
}

fn one(path: &str, layout: Option<&LayoutTemplate>, asked: &SetStripe) -> Outcome {
    let is_dir = match std::fs::metadata(path) {
        Ok(meta) => Some(meta.is_dir()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(Failure::io("cannot access", path, &e)),
    };
    let explain = |e: Errno| {
        let errno = e.raw_os_error();
        let why = if e == Errno::EXIST { "stripe already set".to_owned() } else { strerror(errno) };
        let failure = Failure::new(errno, format!("setstripe error for '{path}': {why}"));
        match e {
            Errno::EXIST => failure.with_hint("a file that has data keeps its layout: make a new file and copy"),
            Errno::OPNOTSUPP if place::of(path).is_err() => {
                failure.with_hint("the path is not on a Sateen file system")
            }
            Errno::INVAL => failure.with_hint("see lfs osts for the OSTs there are"),
            _ => failure,
        }
    };
    match (layout, is_dir) {
        (None, Some(true)) => match place::remove_layout(path) {
            // Nothing of its own was set: as asked.
            Ok(()) | Err(Errno::NODATA) => Ok(()),
            Err(e) => Err(explain(e)),
        },
        (None, Some(false)) => Err(Failure::new(libc::ENOTDIR, format!("'{path}' is not a directory"))
            .with_hint("-d removes the default layout of a directory")),
        (None, None) => Err(Failure::new(libc::ENOENT, format!("cannot access '{path}': {}", strerror(libc::ENOENT)))),
        (Some(layout), Some(_)) => place::set_layout(path, layout).map_err(explain),
        (Some(layout), None) => create(path, layout, asked.mode, explain),
    }
}

/// Makes the file with its layout, or not at all.
fn create(path: &str, layout: &LayoutTemplate, mode: Option<u32>, explain: impl Fn(Errno) -> Failure) -> Outcome {
    let parent = Path::new(path).parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Before anything is made on a foreign file system.
    place::of(&parent.to_string_lossy())?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode.unwrap_or(0o666))
        .open(path)
        .map_err(|e| Failure::io("cannot create", path, &e))?;
    place::set_layout(path, layout).map_err(|e| {
        // It was ours and empty a moment ago.
        let _ = std::fs::remove_file(path);
        explain(e)
    })
}
