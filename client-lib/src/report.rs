//! Telling the MDS what was stored: size, times, disk space. One report per file at a time.

use std::sync::Arc;

use sateen_types::op::{Mutation, MutationReply, WriteDone};
use sateen_types::{FsCode, FsError, FsResult};

use crate::expiry;
use crate::inner::Inner;
use crate::inode::Inode;
use crate::write::unexpected;

/// Tells the MDS size and times of what was stored.
pub(crate) async fn report(inner: &Arc<Inner>, inode: &Arc<Inode>) -> FsResult<()> {
    if inode.state().is_clean() {
        return Ok(());
    }
    let (inner_, inode_) = (Arc::clone(inner), Arc::clone(inode));
    let run = inner.tasks.spawn_on(async move { report_now(&inner_, &inode_).await }, &inner.runtime);
    run.await.map_err(|e| FsError::new(FsCode::Internal, format!("a background report failed: {e}")))?
}

async fn report_now(inner: &Arc<Inner>, inode: &Arc<Inode>) -> FsResult<()> {
    let _only_one = inode.reporting.lock().await;
    report_locked(inner, inode).await
}

/// The caller holds [`Inode::reporting`].
pub(crate) async fn report_locked(inner: &Arc<Inner>, inode: &Arc<Inode>) -> FsResult<()> {
    loop {
        // What was written in a session that has expired may be none of the MDS's business any more.
        let writer = expiry::writer(inner).await?;
        match report_as(inner, inode, writer).await {
            Err(e) if e.code.is_retryable() && inner.session.incarnation().writer != writer => {}
            reported => return reported,
        }
    }
}

/// One report, in the session of `writer` alone.
async fn report_as(inner: &Arc<Inner>, inode: &Arc<Inode>, writer: u64) -> FsResult<()> {
    let Some(report) = inode.take_report() else { return Ok(()) };
    let op = Mutation::WriteDone(WriteDone {
        fid: inode.fid,
        end: report.end,
        mtime: report.mtime,
        allocated_delta: report.allocated_delta,
        clear_suid: report.clear_suid,
    });
    let cred = inode.state().writer.clone();
    match inner.session.execute_as(writer, &cred, op).await {
        Ok(MutationReply::Attr(attr)) => inode.end_report(&report, Ok(&attr)),
        Ok(other) => {
            inode.drop_report(&report);
            return Err(unexpected("WriteDone", &other));
        }
        Err(e) if e.code.is_retryable() => {
            inode.end_report(&report, Err(()));
            return Err(e);
        }
        Err(e) if matches!(e.code, FsCode::Stale | FsCode::NotFound) => {
            // Nobody can see the file any more.
            inode.discard();
            return Err(e);
        }
        Err(e) => {
            inode.drop_report(&report);
            return Err(e);
        }
    }
    Ok(())
}
