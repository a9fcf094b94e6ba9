//! Command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

/// A case that has taken so long is not measured again, unless a number of runs was asked for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures Sateen and the limits of this machine in one run.
#[derive(Debug, Parser)]
#[command(name = "sateen-bench", version, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// Write the results there, as a JSON list.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Small sizes and one run: shows that everything works, not how fast it is.
    #[arg(long)]
    pub quick: bool,
    /// Only the cases whose names start with this, and the limits they need.
    #[arg(long, value_name = "PREFIX")]
    pub case: Option<String>,
    /// Measure each case so many times and take the median [default: 3, fewer of cases that take longer than a minute;
    /// with --quick 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=99))]
    pub runs: Option<u16>,
    /// Show the results of an earlier run beside these [default: what --out is about to replace].
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,
    /// Put the cluster's directories under this one, which should be on the disk to measure [default: the system's
    /// directory for temporary files].
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Where `sateen`, `sateen-mds` and `sateen-oss` are [default: beside this program].
    #[arg(long, value_name = "DIR", env = "SATEEN_BIN_DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Keep the directory with the logs afterwards.
    #[arg(long)]
    pub keep: bool,
    /// Name the cases with their units and limits, and do nothing.
    #[arg(long)]
    pub list: bool,
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Args {
    /// How often each case is measured.
    pub fn runs(&self) -> usize {
        usize::from(self.runs.unwrap_or(if self.quick { 1 } else { 3 }))
    }

    /// How long a case goes on being repeated; `None` as long as it takes.
    pub fn patience(&self) -> Option<Duration> {
        if self.runs.is_some() { None } else { Some(PATIENCE) }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// The other process of a measurement; started by this program itself.
    #[command(hide = true, subcommand)]
    Peer(Peer),
}

/// What a second process can be.
#[derive(Clone, Debug, Subcommand)]
pub enum Peer {
    /// Answers frames on a socket until its standard input ends.
    Tcp {
        /// Where to listen.
        listen: SocketAddr,
    },
    /// Serves a file from memory through a FUSE mount until its standard input ends.
    FuseNull {
        /// Where to mount.
        point: PathBuf,
        /// Size of the file.
        bytes: u64,
    },
    /// Does one kind of operation on many files, after a line on its standard input.
    Files {
        /// What to do.
        op: FileOp,
        /// Directory of the files.
        dir: PathBuf,
        /// How many files.
        count: u32,
        /// Number of the first.
        first: u32,
    },
}

/// One operation on each file of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FileOp {
    /// Make it, empty, and close it.
    Create,
    /// Ask its attributes by name.
    Stat,
    /// Remove it.
    Unlink,
    /// Make a directory in its place.
    Mkdir,
    /// Remove that.
    Rmdir,
}

impl FileOp {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            FileOp::Create => "create",
            FileOp::Stat => "stat",
            FileOp::Unlink => "unlink",
            FileOp::Mkdir => "mkdir",
            FileOp::Rmdir => "rmdir",
        }
    }
}
