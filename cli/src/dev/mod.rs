//! `sateen dev`: a cluster of real processes in one directory.
//!
//! ```text
//! D/cluster.json          what the cluster is: ports, counts, mount
//! D/etc/mds.toml oss0.toml ...     D/log/NAME.log     D/run/NAME.pid
//! D/mds/                  D/oss<i>/ost<j>/               D/s3/BUCKET/
//! ```
//!
//! `up` brings what is there to what should be there and changes nothing that already is; `down` is its inverse except
//! for data. Both may be repeated. One `sateen dev` works on a directory at a time (flock on `D/lock`).

mod cluster;
mod down;
mod process;
mod report;
mod repository;
mod up;

use sateen_types::FsResult;

pub use cluster::Cluster;
pub use process::find_program;

use crate::args::Dev;

/// Runs the verb.
pub fn run(command: Dev) -> FsResult<u8> {
    match command {
        Dev::Up(args) => up::run(&args),
        Dev::Status { dir, json } => report::run(&dir, json),
        Dev::Down { dir } => down::run(&dir),
    }
}
