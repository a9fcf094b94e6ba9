//! The words of `sateen repo`.

use clap::{Args, Subcommand, ValueEnum};
use sateen_types::FsName;
use sateen_types::repository::{ConflictPolicy, EventSource, LinkPath, RepositoryUrl};

use super::TaskCommand;

/// A change that can be carried over by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum EventArg {
    /// Something new.
    New,
    /// Other contents or attributes.
    Changed,
    /// Something is gone.
    Deleted,
    /// Nothing is carried over; stands alone.
    Off,
}

/// What is carried over without being asked for.
#[derive(Clone, Debug, Default, Args)]
pub struct Policies {
    /// Changes of the repository that are imported by themselves.
    #[arg(long, value_name = "NEW,CHANGED,DELETED|OFF", value_enum, value_delimiter = ',', ignore_case = true)]
    pub auto_import: Vec<EventArg>,
    /// Changes of files that are exported by themselves.
    #[arg(long, value_name = "NEW,CHANGED,DELETED|OFF", value_enum, value_delimiter = ',', ignore_case = true)]
    pub auto_export: Vec<EventArg>,
    /// What becomes of what both sides changed: manual, repository-wins, filesystem-wins or keep-both.
    #[arg(long, value_name = "POLICY")]
    pub conflict: Option<ConflictPolicy>,
    /// Seconds between comparisons of bucket and directory, 60 to 604800, while anything is imported by itself.
    #[arg(long, value_name = "SECONDS")]
    pub sync_interval: Option<u32>,
    /// Who tells of changes of the bucket: listen (the store, as MinIO does), sqs:URL (a queue), or an empty text for nobody.
    #[arg(long, value_name = "SOURCE")]
    pub event_source: Option<EventSource>,
}

/// Which repository.
#[derive(Clone, Debug, Args)]
pub struct WhichRepo {
    /// File system.
    pub fs: FsName,
    /// Its number (dra-...), or its directory (/...).
    pub repo: String,
}

/// What stays when both sides have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Keep {
    /// The object; what was changed here goes.
    Repository,
    /// The file; the object is replaced.
    Filesystem,
    /// Both: the file gets another name.
    Both,
}

/// Where the bucket of a link is, and with which keys it is used.
#[derive(Debug, Args)]
pub struct Place {
    /// Where the store answers, for other stores than AWS; an empty text for the provider's own.
    #[arg(long, value_name = "http://HOST:PORT")]
    pub endpoint: Option<String>,
    /// Region of the bucket; an empty text for us-east-1, which it is by itself.
    #[arg(long)]
    pub region: Option<String>,
    /// Name of the credentials in the workers' configuration; an empty text for `default`, which it is by itself.
    #[arg(long)]
    pub profile: Option<String>,
}

/// `sateen repo`.
#[derive(Debug, Subcommand)]
pub enum Repo {
    /// Link a directory to a prefix: its objects become files, which are loaded when they are read.
    #[command(after_help = "Examples:\n  sateen repo create scratch /dataset s3://bucket/prefix/ --import --wait\n  \
                            sateen repo create scratch /results s3://b/p/ --auto-export NEW,CHANGED,DELETED\n  \
                            sateen repo create scratch /d s3://b/p/ --endpoint http://10.0.0.5:9000 --profile lab")]
    Create {
        /// File system.
        fs: FsName,
        /// Directory in it, absolute; made if it is missing.
        path: LinkPath,
        /// s3://BUCKET/PREFIX/, az://CONTAINER/PREFIX/ or file:///DIRECTORY/ (of the worker's machine).
        url: RepositoryUrl,
        /// Where the bucket is.
        #[command(flatten)]
        place: Place,
        /// What is carried over by itself.
        #[command(flatten)]
        policies: Policies,
        /// MiB of a file per stripe, 1 to 512000 [default: 1024].
        #[arg(long, value_name = "N")]
        chunk_mib: Option<u32>,
        /// Import names and attributes at once.
        #[arg(long)]
        import: bool,
        /// Wait until it is available, and imported if that was asked for.
        #[arg(long)]
        wait: bool,
        /// One JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
    /// List repositories.
    List {
        /// Only those of this file system.
        fs: Option<FsName>,
        /// One JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Show one repository, and what its last import skipped.
    Show {
        /// Which.
        #[command(flatten)]
        which: WhichRepo,
        /// One JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Is everything exported? Exit code 0: yes; 7: not (yet), or something needs a decision.
    Status {
        /// File system.
        fs: FsName,
        /// Only this one: its number (dra-...), or its directory (/...).
        repo: Option<String>,
        /// Wait until nothing is queued.
        #[arg(long)]
        wait: bool,
        /// Give up waiting after so many seconds; exit code 5.
        #[arg(long, value_name = "SECONDS", requires = "wait")]
        timeout: Option<u64>,
        /// Pipes, sockets, and what else no bucket can have, is no reason to say no.
        #[arg(long)]
        ignore_skipped: bool,
        /// One JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Change a repository, or (with nothing to change) have one that is misconfigured be looked at again.
    Update {
        /// Which.
        #[command(flatten)]
        which: WhichRepo,
        /// Where the bucket is.
        #[command(flatten)]
        place: Place,
        /// What is carried over by itself.
        #[command(flatten)]
        policies: Policies,
        /// MiB of a file per stripe, for files imported from now on.
        #[arg(long, value_name = "N")]
        chunk_mib: Option<u32>,
        /// One JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
    /// End a link. Files stay as they are; what is not loaded by then cannot be read any more.
    Delete {
        /// Which.
        #[command(flatten)]
        which: WhichRepo,
        /// Even if files are not loaded in full, or exports are queued.
        #[arg(long)]
        force: bool,
        /// Remove everything below the directory, too; objects stay.
        #[arg(long)]
        delete_data: bool,
    },
    /// Import names and attributes of everything under the prefix again.
    Import {
        /// Which.
        #[command(flatten)]
        which: WhichRepo,
        /// Files go whose object is gone, if they were not changed here.
        #[arg(long)]
        sync: bool,
        /// Wait for its end; exit code 7 if something was skipped.
        #[arg(long)]
        wait: bool,
        /// One JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Export what the bucket does not have as it is here, whatever is exported by itself.
    Export {
        /// Which.
        #[command(flatten)]
        which: WhichRepo,
        /// Only what is below this directory; absolute in the file system.
        path: Option<LinkPath>,
        /// Wait until nothing is queued; exit code 7 if something was skipped or needs a decision.
        #[arg(long)]
        wait: bool,
        /// One JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
    /// List what both sides have changed.
    Conflicts {
        /// Which.
        #[command(flatten)]
        which: WhichRepo,
        /// One JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Decide about what both sides have changed.
    Resolve {
        /// Which.
        #[command(flatten)]
        which: WhichRepo,
        /// Key of the object behind the prefix, as `conflicts` lists it.
        key: String,
        /// What stays.
        #[arg(long, value_enum)]
        keep: Keep,
    },
    /// Do one thing to many files: import, export, restore or release, with counts and a report.
    Task {
        /// What to do.
        #[command(subcommand)]
        command: TaskCommand,
    },
    /// Show or set when files that the repository has as they are give their space back by themselves. Off at first.
    #[command(after_help = "Examples:\n  sateen repo auto-release scratch --high 90 --low 80\n  \
                            sateen repo auto-release scratch --off")]
    AutoRelease {
        /// File system.
        fs: FsName,
        /// Begin when an OST is so full, in percent.
        #[arg(long, value_name = "PERCENT", requires = "low")]
        high: Option<u32>,
        /// Go on until it is so full, in percent.
        #[arg(long, value_name = "PERCENT", requires = "high")]
        low: Option<u32>,
        /// Release nothing by itself.
        #[arg(long, conflicts_with_all = ["high", "low"])]
        off: bool,
        /// One JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
}
