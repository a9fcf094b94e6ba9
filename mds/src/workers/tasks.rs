//! Tasks of one file system, step by step; and files that are released by themselves.

use std::sync::{Arc, Weak};
use std::time::Duration;

use sateen_runtime::Shutdown;

use crate::fs::FileSystem;

/// After an error.
const AGAIN: Duration = Duration::from_secs(1);

/// Runs tasks until the file system is gone or the server stops.
pub async fn run(fs: Weak<FileSystem>, stop: Shutdown) {
    while let Some(alive) = fs.upgrade() {
        let pause = match alive.step_tasks().await {
            Ok(pause) => pause,
            Err(e) => {
                tracing::warn!(fs = %alive.info.name, "a task: {e}");
                AGAIN
            }
        };
        if !wait(&alive, pause, &stop, async |fs: &FileSystem, pause| fs.tasks_told(pause).await).await {
            return;
        }
    }
}

/// Releases files until the file system is gone or the server stops.
pub async fn make_room(fs: Weak<FileSystem>, stop: Shutdown) {
    while let Some(alive) = fs.upgrade() {
        let pause = match alive.step_room().await {
            Ok(pause) => pause,
            Err(e) => {
                tracing::warn!(fs = %alive.info.name, "files are not released: {e}");
                AGAIN
            }
        };
        if !wait(&alive, pause, &stop, async |fs: &FileSystem, pause| fs.room_told(pause).await).await {
            return;
        }
    }
}

/// Waits; false if the server stops. Not longer than a moment at a time, for the file system may go.
async fn wait(
    fs: &Arc<FileSystem>,
    pause: Duration,
    stop: &Shutdown,
    told: impl AsyncFn(&FileSystem, Duration),
) -> bool {
    if stop.is_requested() {
        return false;
    }
    if pause.is_zero() {
        return true;
    }
    tokio::select! {
        () = stop.requested() => false,
        () = told(fs, pause.min(AGAIN)) => true,
    }
}
