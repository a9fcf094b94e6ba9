//! Files that were closed and are not durable yet.
//!
//! The MDS hears of such a close when what was written is durable: others may write then, and nothing of this client may come
//! on top of that, as it would if an OST lost it and it were sent again. Nobody waits for it, so they wait a moment for each
//! other: then one part of the log tells their names, few calls carry their bytes and their reports, and one commit of an OST
//! serves all of them. Whoever needs one sooner (a recall, an fsync, a shortage of memory) takes care of it itself.
//!
//! Tasks: one that gathers, as long as there are any, and one for each [`GATHER`] in which some came, until they are durable.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;

use crate::file::Registration;
use crate::inner::Inner;
use crate::inode::Inode;
use crate::tend;

/// How long files wait for others.
const GATHER: Duration = Duration::from_millis(20);
/// With so many nobody waits longer.
const WAITING_MAX: usize = 1024;

/// Files that wait.
#[derive(Debug, Default)]
pub(crate) struct Closing(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Arc<Inode>>,
    /// Somebody gathers.
    gathering: bool,
}

/// A file was closed. See the module.
pub(crate) fn linger(inner: &Arc<Inner>, inode: &Arc<Inode>, registration: Registration) {
    if inode.state().is_clean() {
        return drop(registration);
    }
    inode.linger(registration);
    let (full, gathering) = {
        let mut state = inner.closing.0.lock();
        state.waiting.push(Arc::clone(inode));
        let full = if state.waiting.len() >= WAITING_MAX { std::mem::take(&mut state.waiting) } else { Vec::new() };
        (full, std::mem::replace(&mut state.gathering, true))
    };
    if !full.is_empty() {
        store(inner, full);
    }
    if !gathering {
        let inner_ = Arc::clone(inner);
        inner.tasks.spawn_on(async move { gather(&inner_).await }, &inner.runtime);
    }
}

/// Until nothing was closed for a while. When the client closes, it has stored everything before it stops.
async fn gather(inner: &Arc<Inner>) {
    loop {
        tokio::select! {
            () = inner.stop.cancelled() => {}
            () = tokio::time::sleep(GATHER) => {}
        }
        let waiting = {
            let mut state = inner.closing.0.lock();
            state.gathering = !state.waiting.is_empty();
            std::mem::take(&mut state.waiting)
        };
        if waiting.is_empty() {
            return;
        }
        store(inner, waiting);
    }
}

/// Makes files durable, and lets go of them.
fn store(inner: &Arc<Inner>, files: Vec<Arc<Inode>>) {
    let inner_ = Arc::clone(inner);
    let task = async move {
        let inner = &inner_;
        join_all(files.iter().map(async |inode| {
            if let Err(error) = tend::everything(inner, inode).await {
                // With the next look at all files.
                tracing::debug!(%error, fid = %inode.fid, "closed, and not yet durable");
            }
            inner.table.unpin_if_clean(inode);
        }))
        .await;
    };
    inner.tasks.spawn_on(task, &inner.runtime);
}
