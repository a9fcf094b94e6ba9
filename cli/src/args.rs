//! The words of `sateen`.

mod repo;
mod task;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use sateen_runtime::ByteSize;
use sateen_types::FsName;
use sateen_types::changelog::ChangeMask;

pub use repo::{EventArg, Keep, Repo, WhichRepo};
pub use task::{TaskCommand, WhichTask};

/// A Lustre-style parallel file system on your own hardware.
#[derive(Debug, Parser)]
#[command(name = "sateen", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Mount a file system.
    Mount(Mount),
    /// A cluster of real processes in one directory, for development.
    Dev {
        /// What to do with it.
        #[command(subcommand)]
        command: Dev,
    },
    /// Make, list, show and delete file systems.
    Fs {
        /// What to do.
        #[command(subcommand)]
        command: Fs,
        /// The MDS.
        #[command(flatten)]
        mds: Mds,
    },
    /// Link directories to prefixes of object stores, and import what is there.
    Repo {
        /// What to do.
        #[command(subcommand)]
        command: Repo,
        /// The MDS.
        #[command(flatten)]
        mds: Mds,
    },
    /// Who follows what happens in a file system. Records are read with `lfs changelog`.
    Changelog {
        /// What to do.
        #[command(subcommand)]
        command: ChangelogVerb,
        /// The MDS.
        #[command(flatten)]
        mds: Mds,
    },
    /// One screen about the cluster; exit code 7 if something is not well.
    Status {
        /// The MDS.
        #[command(flatten)]
        mds: Mds,
        /// One JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Check OSTs or the MDT: at work through their servers, or at rest in a directory; exit code 7 if something is wrong.
    #[command(after_help = "Examples:\n  sateen fsck --ost 3 --deep\n  sateen fsck --status\n  \
                            sateen fsck --mdt --fs scratch --repair\n  \
                            sateen fsck --dir /srv/ost0 --deep --repair   (its OSS stopped)")]
    Fsck {
        /// What and how.
        #[command(flatten)]
        fsck: Fsck,
        /// The MDS.
        #[command(flatten)]
        mds: Mds,
    },
    /// Lustre's lfs: setstripe, getstripe, df, find, path2fid, fid2path, osts, mdts, hsm_*.
    #[command(disable_help_flag = true)]
    Lfs {
        /// As for lfs.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
}

/// Where the MDS is.
#[derive(Clone, Debug, Args)]
pub struct Mds {
    /// HOST[:PORT] of the MDS. Default: that of the development cluster in ./.dev, else localhost:9880.
    #[arg(long = "mds", value_name = "HOST:PORT", env = "SATEEN_MDS", global = true)]
    pub host: Option<String>,
}

/// `sateen changelog`.
#[derive(Debug, Subcommand)]
pub enum ChangelogVerb {
    /// Register a user: from here on changes are recorded, and kept until it has cleared them.
    Register {
        /// File system.
        fs: FsName,
        /// Name behind its number: at most 15 letters, digits, '-' or '_'.
        #[arg(short = 'u', long)]
        name: Option<String>,
        /// Kinds of changes, as CREAT,UNLNK or -ATIME [default: all but ATIME].
        #[arg(short = 'm', long, allow_hyphen_values = true)]
        mask: Option<ChangeMask>,
    },
    /// End a user.
    Deregister {
        /// File system.
        fs: FsName,
        /// clN or clN-NAME.
        user: String,
    },
    /// List users, and how far behind they are.
    Users {
        /// File system.
        fs: FsName,
        /// One JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
}

/// `sateen fsck`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("repairable").args(["dir", "mdt"]))]
pub struct Fsck {
    /// Only this OST. Default: all.
    #[arg(long, value_name = "N", conflicts_with = "dir")]
    pub ost: Option<u16>,
    /// Directory of an OST or of the MDT that no server uses.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Names and attributes, through the MDS.
    #[arg(long, conflicts_with_all = ["ost", "deep", "rebuild_index", "status"])]
    pub mdt: bool,
    /// Of the MDT only this file system. Default: all.
    #[arg(long = "fs", value_name = "NAME", requires = "repairable")]
    pub file_system: Option<FsName>,
    /// Read and verify every stored byte. At work: not faster than [scrub] bytes_per_second.
    #[arg(long)]
    pub deep: bool,
    /// Correct what is certain, and move what nobody knows to lost+found. Damaged data stays as it is.
    #[arg(long, requires = "repairable")]
    pub repair: bool,
    /// Make the index anew from the segments, keep the old one beside it, then check.
    #[arg(long, requires = "dir", conflicts_with = "repair")]
    pub rebuild_index: bool,
    /// Check nothing; tell how far the scrub is and what is known to be damaged.
    #[arg(long, conflicts_with_all = ["dir", "mdt", "deep", "repair"])]
    pub status: bool,
    /// One JSON document instead of text.
    #[arg(long)]
    pub json: bool,
}

/// `sateen mount`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sateen mount localhost:9880:/scratch ./mnt\n  \
                        sateen mount mds1,mds2:/home/users /home -o nosuid,timeout=300\n\n\
                        Unmount with: umount PATH   (or fusermount3 -u PATH)")]
pub struct Mount {
    /// HOST[:PORT][,HOST2]:/FS[/SUBDIR]
    pub source: String,
    /// An existing directory.
    pub path: PathBuf,
    /// Mount options, comma-separated; may be repeated.
    #[arg(short = 'o', value_name = "OPTIONS", allow_hyphen_values = true)]
    pub options: Vec<String>,
    /// Stay in the foreground and log to standard error.
    #[arg(long, short = 'f')]
    pub foreground: bool,
    /// Where the mount process logs to. Default: a file in /var/log/sateen (root) or ~/.local/state/sateen.
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// What is logged, e.g. info or warn,sateen_fuse=debug.
    #[arg(long, value_name = "FILTER", env = "SATEEN_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
    /// This is the background process: report on standard output.
    #[arg(long, hide = true)]
    pub detached: bool,
}

/// `sateen dev`.
#[derive(Debug, Subcommand)]
pub enum Dev {
    /// Start what is not running, make file system "scratch", mount it. Data of an earlier run is kept.
    #[command(after_help = "Examples:\n  sateen dev up\n  sateen dev up --dir /tmp/c --base-port 19880 --mount /tmp/m")]
    Up(DevUp),
    /// What runs and how well; exit code 7 if not all does.
    Status {
        /// Directory of the cluster.
        #[arg(long, default_value = ".dev")]
        dir: PathBuf,
        /// One JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Unmount and stop everything; data stays.
    Down {
        /// Directory of the cluster.
        #[arg(long, default_value = ".dev")]
        dir: PathBuf,
    },
}

/// `sateen dev up`.
#[derive(Debug, Args)]
pub struct DevUp {
    /// Directory of the cluster.
    #[arg(long, default_value = ".dev")]
    pub dir: PathBuf,
    /// OSS processes [default: 2].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub oss: Option<u16>,
    /// OSTs of each OSS [default: 2].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub osts_per_oss: Option<u16>,
    /// Where to mount [default: ./mnt].
    #[arg(long, value_name = "PATH", conflicts_with = "no_mount")]
    pub mount: Option<PathBuf>,
    /// Do not mount.
    #[arg(long)]
    pub no_mount: bool,
    /// Port of the MDS; the OSSes, the worker and the S3 server take the next ones [default: 9880].
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..=65000))]
    pub base_port: Option<u16>,
    /// Most bytes each OST may use, e.g. 10G [default: its share of what the disk has free].
    #[arg(long, value_name = "SIZE")]
    pub ost_capacity: Option<ByteSize>,
    /// Without S3 server, worker and the sample bucket at /dataset.
    #[arg(long)]
    pub no_s3: bool,
}

/// How chunks are stored.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum CompressionArg {
    /// LZ4, where it saves space.
    Lz4,
    /// As they are.
    None,
}

/// `sateen fs`.
#[derive(Debug, Subcommand)]
pub enum Fs {
    /// Make a file system.
    #[command(after_help = "Example:\n  sateen fs create scratch --stripe '-E 100M -c 1 -E -1 -c -1'")]
    Create {
        /// 1 to 8 letters, digits, '_' or '-'.
        name: FsName,
        /// How chunks are stored.
        #[arg(long, value_enum, default_value = "lz4")]
        compression: CompressionArg,
        /// Default layout, in the options of lfs setstripe. Default: FSx's four components.
        #[arg(long, value_name = "OPTIONS", allow_hyphen_values = true)]
        stripe: Option<String>,
        /// Owner of the root directory, UID[:GID].
        #[arg(long, value_name = "UID[:GID]", default_value = "0:0")]
        owner: String,
        /// Permission bits of the root directory, octal.
        #[arg(long, default_value = "755")]
        mode: String,
        /// One JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
    /// List file systems.
    List {
        /// One JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Show one file system.
    Show {
        /// Its name.
        name: FsName,
        /// One JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Delete a file system with all its data.
    Delete {
        /// Its name.
        name: FsName,
        /// Yes, delete all its data.
        #[arg(long)]
        yes: bool,
        /// Even while clients have it mounted; they get ESTALE.
        #[arg(long)]
        force: bool,
    },
}
