//! `sateen dev down`.

use std::path::Path;
use std::time::Duration;

use sateen_fuse::kernel;
use sateen_types::{FsCode, FsResult};

use super::cluster::{Cluster, DRA_SYNC, S3, oss_name};
use super::process::{self, Stopped};

/// How long programs may take to leave a mount that is in use before it is detached under them.
const BUSY_PATIENCE: Duration = Duration::from_secs(3);
/// How long the mount process may take to write everything out.
const MOUNT_PATIENCE: Duration = Duration::from_secs(90);
/// How long a server may take to stop.
const SERVER_PATIENCE: Duration = Duration::from_secs(30);

/// Runs the verb.
pub fn run(dir: &Path) -> FsResult<u8> {
    if Cluster::load(dir)?.is_none() {
        say!("there is no development cluster in {}", dir.display());
        return Ok(0);
    }
    let _lock = Cluster::lock(dir)?;
    let cluster = Cluster::existing(dir)?;
    if let Some(point) = &cluster.mount {
        unmount(&cluster, point)?;
    }
    stop(&cluster, DRA_SYNC, SERVER_PATIENCE)?;
    stop(&cluster, S3, SERVER_PATIENCE)?;
    for i in (0..cluster.oss).rev() {
        stop(&cluster, &oss_name(i), SERVER_PATIENCE)?;
    }
    stop(&cluster, "mds", SERVER_PATIENCE)?;
    say!("the data stays in {}", cluster.dir.display());
    Ok(0)
}

fn unmount(cluster: &Cluster, point: &Path) -> FsResult<()> {
    let ours = || -> FsResult<bool> {
        let top = kernel::mounts()?.into_iter().rev().find(|m| m.point == point);
        Ok(top.is_some_and(|m| m.fs_type == kernel::FS_TYPE && m.source == cluster.source()))
    };
    let mut in_use = false;
    if ours()? {
        let mut last = Ok(());
        process::wait_until(BUSY_PATIENCE, || {
            last = kernel::detach(point, false);
            !matches!(&last, Err(e) if e.code == FsCode::Busy)
        });
        match last {
            Err(e) if e.code == FsCode::Busy => {
                say!("mount: {e}; detached all the same: programs that use it get errors from now on");
                kernel::detach(point, true)?;
                in_use = true;
            }
            other => other?,
        }
        say!("mount: unmounted");
    }
    // Unmounted, the process writes out what is left and ends by itself. Detached under programs that use it, it has to
    // be told.
    if !in_use {
        let pid_file = cluster.pid_file("mount");
        process::wait_until(MOUNT_PATIENCE, || process::running(&pid_file).is_none());
    }
    stop(cluster, "mount", MOUNT_PATIENCE)
}

fn stop(cluster: &Cluster, name: &str, patience: Duration) -> FsResult<()> {
    match process::stop(&cluster.pid_file(name), patience)? {
        Stopped::NotRunning => {}
        Stopped::Gracefully => say!("{name}: stopped"),
        Stopped::Killed => say!("{name}: did not end within {} s and was killed", patience.as_secs()),
    }
    Ok(())
}
