//! What goes on without being asked. Each task ends when the server stops or its file system is gone; all of it is safe
//! to do again after a crash.
//!
//! | task | number | what |
//! | --- | --- | --- |
//! | `sweep` | 1 | OST states, expired sessions, files without a name that nobody has open; starts the others |
//! | `intents` | 1 per file system | hands intents to OSTs, a drain per OST that has any |
//! | `tasks` | 2 per file system | the next step of the task whose turn it is; releases files where OSTs are nearly full |
//! | `deletion` | 1 | objects and directories of deleted file systems |

mod backoff;
mod deletion;
mod intents;
mod sweep;
mod tasks;

use std::sync::Arc;

use sateen_runtime::Shutdown;
use tokio::task::JoinSet;

use crate::cluster::Cluster;

/// Starts them all.
pub fn spawn(cluster: &Arc<Cluster>, stop: &Shutdown) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(sweep::run(cluster.clone(), stop.clone()));
    tasks.spawn(deletion::run(cluster.clone(), stop.clone()));
    tasks
}
