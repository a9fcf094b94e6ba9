//! Second processes: this program started again, for measurements whose two sides must not share a process.
//!
//! A peer says one line when it is ready, works after a line on its standard input, and ends when that input ends: so
//! none outlives the run.

use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::args::{FileOp, Peer};
use crate::limits::{fuse_null, tcp};

/// A peer that was started.
#[derive(Debug)]
pub struct Remote {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Remote {
    /// Starts a peer.
    fn start(args: &[&std::ffi::OsStr]) -> anyhow::Result<Remote> {
        let own = std::env::current_exe().context("cannot find this program")?;
        let mut child = Command::new(own)
            .arg("peer")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start this program again")?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("the peer's output is a pipe")?);
        Ok(Remote { child, input, output })
    }

    /// A process that answers frames; second its address.
    pub fn tcp() -> anyhow::Result<(Remote, std::net::SocketAddr)> {
        let mut remote = Remote::start(&["tcp".as_ref(), "127.0.0.1:0".as_ref()])?;
        let address = remote.line()?;
        let address = address.parse().with_context(|| format!("{address:?} is not an address"))?;
        Ok((remote, address))
    }

    /// A process that serves a file of `bytes` bytes at `point`.
    pub fn fuse_null(point: &Path, bytes: u64) -> anyhow::Result<Remote> {
        let bytes = bytes.to_string();
        let mut remote = Remote::start(&["fuse-null".as_ref(), point.as_os_str(), bytes.as_ref()])?;
        let ready = remote.line()?;
        ensure!(ready == "ready", "a process to serve a mount said {ready:?}");
        Ok(remote)
    }

    /// A process that will do `op` on `count` files in `dir`.
    pub fn files(op: FileOp, dir: &Path, numbers: Range<u32>) -> anyhow::Result<Remote> {
        let (count, first) = (numbers.len().to_string(), numbers.start.to_string());
        let args = ["files".as_ref(), op.name().as_ref(), dir.as_os_str(), count.as_ref(), first.as_ref()];
        let mut remote = Remote::start(&args)?;
        let ready = remote.line()?;
        ensure!(ready == "ready", "a process to {} files said {ready:?}", op.name());
        Ok(remote)
    }

    /// Lets it begin.
    fn go(&mut self) -> anyhow::Result<()> {
        let input = self.input.as_mut().context("the peer was told to end")?;
        input.write_all(b"go\n").context("the peer has ended")
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "a process of the benchmark has ended early (its error stands above)");
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// Lets all begin, and gives the time until the last has said that it is done.
pub fn race(mut remotes: Vec<Remote>) -> anyhow::Result<Duration> {
    let start = Instant::now();
    remotes.iter_mut().try_for_each(Remote::go)?;
    for remote in &mut remotes {
        let line = remote.line()?;
        ensure!(line == "done", "a process of the benchmark said {line:?}");
    }
    Ok(start.elapsed())
}

/// Body of a second process.
pub fn run(peer: &Peer) -> anyhow::Result<()> {
    match peer {
        Peer::Tcp { listen } => tcp::serve(*listen),
        Peer::FuseNull { point, bytes } => fuse_null::serve(point, *bytes),
        Peer::Files { op, dir, count, first } => files(*op, dir, *first..first.saturating_add(*count)),
    }
}

/// Name of file number `i` in its directory.
pub fn file_name(i: u32) -> String {
    format!("file.{i:07}")
}

fn files(op: FileOp, dir: &Path, numbers: Range<u32>) -> anyhow::Result<()> {
    println!("ready");
    let mut word = String::new();
    std::io::stdin().read_line(&mut word)?;
    if word.is_empty() {
        return Ok(());
    }
    for i in numbers {
        let path = dir.join(file_name(i));
        match op {
            FileOp::Create => drop(std::fs::File::create_new(&path)?),
            FileOp::Stat => ensure!(std::fs::symlink_metadata(&path)?.is_file(), "{} is not a file", path.display()),
            FileOp::Unlink => std::fs::remove_file(&path)?,
            FileOp::Mkdir => std::fs::create_dir(&path)?,
            FileOp::Rmdir => std::fs::remove_dir(&path)?,
        }
    }
    println!("done");
    Ok(())
}
