//! Making stored data durable: commits, and sending again what an OST lost because it was restarted before them.

use std::sync::Arc;

use futures::future::join_all;
use sateen_types::{FsCode, FsError, FsResult};

use crate::inner::Inner;
use crate::inode::Inode;
use crate::write;

/// Commit, find another verifier, send again: how often before giving up. A server that restarts more often than this
/// within one fsync is broken.
const COMMIT_ROUNDS_MAX: u32 = 8;

/// Makes everything stored so far durable: commits, and sends again what its OST no longer knows of.
pub(crate) async fn commit(inner: &Arc<Inner>, inode: &Arc<Inode>) -> FsResult<()> {
    let until = inode.state().unstable.osts();
    for _ in 0..COMMIT_ROUNDS_MAX {
        // Only what was stored when the caller asked, and what of it had to be stored again.
        let now = inode.state().unstable.osts();
        let wanted: Vec<_> = now.into_iter().filter(|(ost, _)| until.contains_key(ost)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let commits = wanted.iter().map(|(ost, needed)| inner.committer.commit(&inner.osts, inode.fs, *ost, *needed));
        let mut again = Vec::new();
        for ((ost, _), committed) in wanted.iter().zip(join_all(commits).await) {
            again.extend(inode.state().unstable.committed(*ost, committed?));
        }
        inode.progress.notify_waiters();
        if again.is_empty() {
            return Ok(());
        }
        tracing::warn!(fid = %inode.fid, chunks = again.len(), "an OST was restarted; sending uncommitted data again");
        if !exists(inner, inode).await? {
            // Its objects are destroyed, or will be; writing would make them again.
            inode.discard();
            return Ok(());
        }
        for chunk in again {
            resend(inner, inode, chunk).await?;
        }
    }
    Err(FsError::new(
        FsCode::Io,
        format!("the OSTs of {} were restarted {COMMIT_ROUNDS_MAX} times during one commit", inode.fid),
    ))
}

async fn exists(inner: &Arc<Inner>, inode: &Inode) -> FsResult<bool> {
    inner.session.names.told(&inner.session, &[inode.fid]).await?;
    let fid = Some(inode.fid.into());
    let asked = inner.session.ask(|mut client, session_id| async move {
        client.get_attr(sateen_proto::mds::GetAttrRequest { session_id, fid }).await
    });
    match asked.await {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.code, FsCode::Stale | FsCode::NotFound) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Sends the unstable bytes of one chunk again, oldest first. In a task of its own: once begun it ends.
async fn resend(inner: &Arc<Inner>, inode: &Arc<Inode>, chunk: u64) -> FsResult<()> {
    loop {
        let progress = inode.progress.notified();
        tokio::pin!(progress);
        progress.as_mut().enable();
        if inode.begin_resend(chunk) {
            break;
        }
        progress.await;
    }
    let (inner_, inode_) = (Arc::clone(inner), Arc::clone(inode));
    let work = async move {
        let result = resend_now(&inner_, &inode_, chunk).await;
        inode_.end_resend(chunk);
        result
    };
    let run = inner.tasks.spawn_on(work, &inner.runtime);
    run.await.map_err(|e| FsError::new(FsCode::Internal, format!("a background write failed: {e}")))?
}

async fn resend_now(inner: &Arc<Inner>, inode: &Arc<Inode>, chunk: u64) -> FsResult<()> {
    let entries: Vec<_> = inode.state().unstable.of_chunk(chunk).iter().map(|e| (e.place, e.parts.clone())).collect();
    for (index, (place, parts)) in entries.into_iter().enumerate() {
        match write::write_parts(inner, inode, &[chunk], place, parts.iter()).await {
            Ok((verifier, _)) => {
                let answer = inner.committer.count_answer();
                // `writing` holds the chunk, so its entries are the same, except that all may have been dropped.
                inode.state().unstable.answered_again(chunk, index, verifier, answer);
            }
            Err(error) => {
                let mut state = inode.state();
                state.unstable.remove(chunk);
                if !state.is_condemned(chunk) {
                    state.failure.record(error.clone());
                }
                return Err(error);
            }
        }
    }
    Ok(())
}
