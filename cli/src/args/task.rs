//! The words of `sateen repo task` and `sateen repo auto-release`.

use clap::{Args, Subcommand, ValueEnum};
use sateen_types::FsName;
use sateen_types::repository::{LinkPath, TaskId, TaskKind};

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KindArg {
    /// Names and attributes from the repository.
    Import,
    /// What the repository does not have as it is here.
    Export,
    /// Loads files in full.
    Restore,
    /// Gives back the space of files that the repository has as they are.
    Release,
}

impl From<KindArg> for TaskKind {
    fn from(kind: KindArg) -> TaskKind {
        match kind {
            KindArg::Import => TaskKind::Import,
            KindArg::Export => TaskKind::Export,
            KindArg::Restore => TaskKind::Restore,
            KindArg::Release => TaskKind::Release,
        }
    }
}

/// Which task.
#[derive(Clone, Debug, Args)]
pub struct WhichTask {
    /// File system.
    pub fs: FsName,
    /// Its number (task-...).
    pub id: TaskId,
}

/// `sateen repo task`.
#[derive(Debug, Subcommand)]
pub enum TaskCommand {
    /// Queue a task; one executes at a time.
    #[command(after_help = "Examples:\n  sateen repo task start restore scratch /dataset/train --wait\n  \
                            sateen repo task start release scratch / --days 30 --report /dataset/reports\n  \
                            sateen repo task start import scratch s3://bucket/prefix/2026/")]
    Start {
        /// What to do.
        #[arg(value_enum)]
        kind: KindArg,
        /// File system.
        fs: FsName,
        /// Files and directories in it, `/` for everything; of an import also URLs.
        #[arg(required = true, num_args = 1..)]
        paths: Vec<String>,
        /// Write what failed to task-ID/failures.csv below this directory of a link, in the bucket.
        #[arg(long, value_name = "DIRECTORY")]
        report: Option<LinkPath>,
        /// Release only what was not used for more than so many days [default: 0].
        #[arg(long, value_name = "N")]
        days: Option<u32>,
        /// Wait for its end; exit code 7 if it is not SUCCEEDED.
        #[arg(long)]
        wait: bool,
        /// One JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
    /// List tasks: those that wait or execute, and those that ended in the last 14 days.
    List {
        /// File system.
        fs: FsName,
        /// One JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Show one task.
    Show {
        /// Which.
        #[command(flatten)]
        which: WhichTask,
        /// Wait for its end first; exit code 7 if it is not SUCCEEDED.
        #[arg(long)]
        wait: bool,
        /// One JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
    /// End a task early: what was done stays, the rest is left out.
    Cancel {
        /// Which.
        #[command(flatten)]
        which: WhichTask,
        /// Wait until it has ended.
        #[arg(long)]
        wait: bool,
        /// One JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
}
