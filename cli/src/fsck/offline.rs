//! The check of a directory, made by `sateen-oss fsck` or `sateen-mds fsck` in a process of its own: what is damaged may
//! bring down the database that reads it, and this program does not carry that database.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sateen_runtime::envelope::MDS_SUPERBLOCK;
use sateen_types::{FsCode, FsError, FsResult, FsckEvent, Tally};

use super::Of;
use crate::args::Fsck;
use crate::dev::find_program;

/// Longest line that is taken from the child, in bytes.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// Whose directory it is, from the beginning of its superblock; without one, from what only the MDS has.
pub fn what_is(dir: &Path) -> Of {
    let mut magic = [0; MDS_SUPERBLOCK.len()];
    match File::open(dir.join("superblock")).and_then(|mut file| file.read_exact(&mut magic)) {
        Ok(()) if magic == *MDS_SUPERBLOCK => Of::Mdt,
        Err(_) if dir.join("cluster").is_dir() => Of::Mdt,
        _ => Of::Ost,
    }
}

/// The program that checks it, and how it is asked.
fn command(of: Of, dir: &Path, fsck: &Fsck) -> FsResult<(PathBuf, Command)> {
    let wrong = |option: &str, whose: &str| {
        let what = format!("{option} means nothing for {}", dir.display());
        FsError::new(FsCode::Invalid, what).with_hint(format!("that is the directory of {whose}"))
    };
    let name = match of {
        Of::Mdt if fsck.deep || fsck.rebuild_index => return Err(wrong("--deep or --rebuild-index", "an MDT")),
        Of::Ost if fsck.file_system.is_some() => return Err(wrong("--fs", "an OST")),
        Of::Mdt => "sateen-mds",
        Of::Ost => "sateen-oss",
    };
    let program = find_program(name)?;
    let mut command = Command::new(&program);
    command.arg("fsck").arg("--dir").arg(dir);
    for (on, option) in [(fsck.deep, "--deep"), (fsck.repair, "--repair"), (fsck.rebuild_index, "--rebuild-index")] {
        if on {
            command.arg(option);
        }
    }
    if let Some(name) = &fsck.file_system {
        command.arg("--fs").arg(name.as_str());
    }
    Ok((program, command))
}

/// Runs the check and hands its events on.
pub fn check(dir: &Path, of: Of, fsck: &Fsck, sink: &mut dyn FnMut(FsckEvent)) -> FsResult<Tally> {
    if !dir.is_dir() {
        return Err(FsError::new(FsCode::NotFound, format!("{} is not a directory", dir.display()))
            .with_hint("give `dir` of the configuration of sateen-mds, or of an [[ost]] section of sateen-oss's"));
    }
    let (program, mut command) = command(of, dir, fsck)?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
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
            let hint = match of {
                Of::Ost => "its index is damaged so that it cannot be read: sateen fsck --rebuild-index --dir DIR",
                Of::Mdt => "its tables are damaged so that they cannot be read: restore the directory from a backup",
            };
            FsError::new(FsCode::Io, format!("the check of {} ended early: {status}", dir.display())).with_hint(hint)
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
