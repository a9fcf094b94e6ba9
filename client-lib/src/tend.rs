//! Looking after files in the background: data that waited long enough is sent, committed and reported; when memory
//! is short, sooner.
//!
//! Tasks: one per client that waits for a reason, and at most one per file that does the work.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::inner::Inner;
use crate::inode::{Inode, Which};
use crate::{atime, durable, report, write};

/// Shortest time between two looks at all files. Keeps a shortage that cannot be helped from using a processor.
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// Send everything, commit it, report it.
    Everything,
    /// Commit what is stored; send what will not change any more.
    Commit,
}

/// Waits for reasons until the client is gone.
pub(crate) async fn run(client: Weak<Inner>, stop: CancellationToken) {
    let Some((interval, budget, commit_wanted)) =
        client.upgrade().map(|c| (c.options.writeback_interval, Arc::clone(&c.budget), Arc::clone(&c.commit_wanted)))
    else {
        return;
    };
    // Not at once: there is nothing to look after yet.
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let work = tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {
                let Some(inner) = client.upgrade() else { return };
                let times = Arc::clone(&inner);
                inner.tasks.spawn(async move { atime::flush(&times).await });
                Some(Work::Everything)
            }
            () = commit_wanted.notified() => Some(Work::Commit),
            () = budget.pressure.notified() => None,
        };
        let Some(inner) = client.upgrade() else { return };
        let files = inner.table.pinned();
        let helps = |inode: &Arc<Inode>| {
            let state = inode.state();
            state.is_writing() || !state.unstable.is_empty() || state.full_chunks() > 0
        };
        // Short of memory: chunks that are still being written are sent only if nothing else comes free.
        let work = work.unwrap_or_else(|| if files.iter().any(helps) { Work::Commit } else { Work::Everything });
        for inode in files {
            tend(&inner, &inode, work);
        }
        drop(inner);
        tokio::time::sleep(LOOK_INTERVAL_MIN).await;
    }
}

/// Begins to look after one file, unless somebody does.
fn tend(inner: &Arc<Inner>, inode: &Arc<Inode>, work: Work) {
    if !inode.begin_tending() {
        return;
    }
    let (inner_, inode) = (Arc::clone(inner), Arc::clone(inode));
    let task = async move {
        let inner = inner_;
        let outcome = match work {
            Work::Everything => everything(&inner, &inode).await,
            Work::Commit => {
                write::start(&inner, &inode, Which::Full);
                durable::commit(&inner, &inode).await
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, fid = %inode.fid, "not yet committed; will be tried again");
        }
        inner.table.unpin_if_clean(&inode);
        inode.tended.store(false, Ordering::Release);
        if inner.budget.is_short() {
            inner.budget.pressure.notify_one();
        }
    };
    inner.tasks.spawn_on(task, &inner.runtime);
}

/// Sends, commits and reports one file.
pub(crate) async fn everything(inner: &Arc<Inner>, inode: &Arc<Inode>) -> sateen_types::FsResult<()> {
    // With the layout that the MDS then tells.
    inner.session.names.told(&inner.session, &[inode.fid]).await?;
    write::drain(inner, inode).await;
    durable::commit(inner, inode).await?;
    // Whoever opens it then must find its size.
    report::report(inner, inode).await?;
    inode.let_go();
    Ok(())
}
