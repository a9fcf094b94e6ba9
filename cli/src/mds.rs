//! Which MDS a command talks to.

use std::path::Path;
use std::time::Duration;

use sateen_client::admin::Admin;
use sateen_types::{FsCode, FsError, FsResult};

use crate::args::Mds;
use crate::dev::Cluster;

/// How long one question to the MDS may take. A person waits.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Where nothing else is said.
const HOST_DEFAULT: &str = "localhost:9880";
/// Directory of the development cluster.
const DEV_DIR: &str = ".dev";

/// Environment variable that names the MDS.
const HOST_VARIABLE: &str = "SATEEN_MDS";

impl Mds {
    /// What the environment says, for commands that have no option for it.
    pub fn from_environment() -> Mds {
        Mds { host: std::env::var(HOST_VARIABLE).ok().filter(|host| !host.is_empty()) }
    }

    /// What was asked for, else the development cluster here, else the default port of this machine.
    pub fn address(&self) -> String {
        let dev = || Cluster::load(Path::new(DEV_DIR)).ok().flatten().map(|c| c.mds_address());
        self.host.clone().or_else(dev).unwrap_or_else(|| HOST_DEFAULT.to_owned())
    }
}

/// Runs an asynchronous command to its end.
pub fn block_on<T>(work: impl Future<Output = FsResult<T>>) -> FsResult<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| FsError::new(FsCode::Internal, format!("cannot start the runtime: {e}")))?;
    runtime.block_on(work)
}

/// Connects for administration.
pub async fn admin(hosts: &str) -> FsResult<Admin> {
    Admin::connect(hosts, TIMEOUT).await
}
