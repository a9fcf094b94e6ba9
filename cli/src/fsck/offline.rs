//! The check of a directory, made by `sateen-oss fsck` in a process of its own: what is damaged may bring down the
//! database that reads it, and this program does not carry that database.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use sateen_types::{FsCode, FsError, FsResult, FsckEvent, Tally};

use crate::args::Fsck;
use crate::dev::find_program;

/// Longest line that is taken from the child, in bytes.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// Runs the check and hands its events on.
pub fn check(dir: &Path, fsck: &Fsck, sink: &mut dyn FnMut(FsckEvent)) -> FsResult<Tally> {
    if !dir.is_dir() {
        return Err(FsError::new(FsCode::NotFound, format!("{} is not a directory", dir.display()))
            .with_hint("give the directory of an [[ost]] section of sateen-oss's configuration"));
    }
    let program = find_program("sateen-oss")?;
    let mut command = Command::new(&program);
    command.arg("fsck").arg("--dir").arg(dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (on, option) in [(fsck.deep, "--deep"), (fsck.repair, "--repair"), (fsck.rebuild_index, "--rebuild-index")] {
        if on {
            command.arg(option);
        }
    }
    let failed =
        |what: &str, e: std::io::Error| FsError::new(FsCode::Io, format!("cannot {what} {}: {e}", program.display()));
    let mut child = command.spawn().map_err(|e| failed("start", e))?;
    let (Some(mut out), Some(mut err)) = (child.stdout.take().map(BufReader::new), child.stderr.take()) else {
        return Err(FsError::new(FsCode::Internal, "the check has no output"));
    };
    // Read beside the events: a child that complains a lot must not wait for us.
    let complaints = std::thread::spawn(move || {
        let mut text = Vec::new();
        let read = Read::by_ref(&mut err).take(LINE_BYTES_MAX).read_to_end(&mut text);
        let _ = std::io::copy(&mut err, &mut std::io::sink());
        read.map(|_| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
    });
    let mut tally = None;
    loop {
        let mut line = String::new();
        let read = Read::by_ref(&mut out).take(LINE_BYTES_MAX).read_line(&mut line);
        match read {
            Ok(0) => break,
            Ok(_) => {}
            Err(e) => return Err(failed("hear", e)),
        }
        let event: FsckEvent = serde_json::from_str(&line)
            .map_err(|e| FsError::new(FsCode::Internal, format!("{} said {line:?}: {e}", program.display())))?;
        if let FsckEvent::Done(done) = event {
            tally = Some(done);
        }
        sink(event);
    }
    let status = child.wait().map_err(|e| failed("wait for", e))?;
    let complaints = complaints.join().unwrap_or_default();
    match tally {
        Some(tally) if status.success() => Ok(tally),
        _ => Err(why(&complaints).unwrap_or_else(|| {
            FsError::new(FsCode::Io, format!("the check of {} ended early: {status}", dir.display()))
                .with_hint("its index is damaged so that it cannot be read: sateen fsck --rebuild-index --dir DIR")
        })),
    }
}

/// The two lines of an error that a program of ours ended with.
fn why(complaints: &str) -> Option<FsError> {
    let error = complaints.lines().rev().find_map(|line| line.strip_prefix("error: "))?;
    let error = FsError::new(FsCode::Io, error);
    Some(match complaints.lines().rev().find_map(|line| line.strip_prefix("hint: ")) {
        Some(hint) => error.with_hint(hint),
        None => error,
    })
}
