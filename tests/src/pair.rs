//! Two mounts of one file system, for what one does and the other sees.

use std::time::Duration;

use crate::ports::Port;
use crate::{Cluster, ClusterSpec, Mount, metrics, wait};

/// Lease of a session where no test waits for its end.
pub const LONG_LEASE: Duration = Duration::from_secs(60);

/// Two mounts and their cluster; the mounts are dropped first. If the test succeeded, its servers must still run.
#[derive(Debug)]
pub struct Pair {
    /// One mount.
    pub a: Mount,
    /// The other.
    pub b: Mount,
    /// What they mount.
    pub cluster: Cluster,
    metrics: Port,
}

impl Pair {
    /// A cluster as users have it.
    #[track_caller]
    pub fn new(label: &'static str) -> Pair {
        Pair::with(label, LONG_LEASE, &["allow_other"])
    }

    /// With this lease of a session and these mount options.
    #[track_caller]
    pub fn with(label: &'static str, lease: Duration, options: &[&str]) -> Pair {
        let metrics = Port::free();
        let lease_ms = lease.as_millis();
        let mds_extra = format!("metrics_listen = \"{}\"\n[session]\nlease_ms = {lease_ms}\n", metrics.address());
        let cluster = Cluster::start(ClusterSpec { mds_extra, ..ClusterSpec::new(label) });
        Pair { a: cluster.mount_with(options), b: cluster.mount_with(options), cluster, metrics }
    }

    /// Makes an empty file on the first mount and waits until the other knows it.
    #[track_caller]
    pub fn file(&self, name: &str) {
        std::fs::File::create(self.a.join(name)).expect("create");
        self.appears(name);
    }

    /// Waits until the other mount knows a name that the first has made.
    #[track_caller]
    pub fn appears(&self, name: &str) {
        wait::until("the name on the other mount", wait::SERVER, || self.b.join(name).exists().then_some(()));
    }

    /// `sateen_mds_NAME` of the file system, in the MDS's metrics.
    #[track_caller]
    pub fn figure(&self, name: &str) -> u64 {
        metrics::of_file_system(self.metrics.address(), name)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.cluster.assert_runs();
        }
    }
}
