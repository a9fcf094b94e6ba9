//! Changes of a file's extent: truncate, punch, allocate. Each has the file alone while it runs, and runs in a task of
//! its own: once begun it ends, even if the caller goes away, so that what is cached here and what is stored agree.

use std::future::Future;
use std::sync::Arc;

use futures::future::try_join_all;
use sateen_proto::{convert, oss};
use sateen_types::limits::FILE_SIZE_MAX;
use sateen_types::op::{Mutation, MutationReply, SetAttr};
use sateen_types::{Attr, Credential, FsCode, FsError, FsResult};

use crate::inner::Inner;
use crate::inode::{Inode, Purpose};
use crate::loads::How;
use crate::plan::{self, ObjectRange};
use crate::{append, durable, expiry, loads, report, write};

/// Rounds of committing until nothing of a chunk is unstable, or of punching until the OST was not restarted meanwhile.
const ROUNDS_MAX: u32 = 8;

async fn to_the_end<T: Send + 'static>(
    inner: &Arc<Inner>,
    work: impl Future<Output = FsResult<T>> + Send + 'static,
) -> FsResult<T> {
    let run = inner.tasks.spawn_on(work, &inner.runtime);
    run.await.map_err(|e| FsError::new(FsCode::Internal, format!("a background change failed: {e}")))?
}

/// Sets attributes that include the size.
pub(crate) async fn truncate(
    inner: &Arc<Inner>,
    inode: &Arc<Inode>,
    cred: &Credential,
    set: SetAttr,
) -> FsResult<Attr> {
    let (inner_, inode, cred) = (Arc::clone(inner), Arc::clone(inode), cred.clone());
    let work = async move {
        if !inode.state().is_shared() {
            return truncate_now(&inner_, &inode, &cred, set).await;
        }
        load_before(&inner_, &inode, &set).await?;
        // What others append is stored and told before, or after; and of two that truncate one waits, so that it can answer
        // the recall of the other.
        let _only_one = inode.appending.lock().await;
        let lock = append::lock(&inner_.session, inode.fid).await?;
        let truncated = truncate_now(&inner_, &inode, &cred, set).await;
        append::unlock(&inner_.session, lock).await;
        truncated
    };
    to_the_end(inner, work).await
}

/// [`truncate`] of a file that this client knows nothing of.
pub(crate) async fn truncate_unknown(inner: &Arc<Inner>, cred: &Credential, set: SetAttr) -> FsResult<Attr> {
    let (inner_, cred) = (Arc::clone(inner), cred.clone());
    let work = async move {
        let lock = append::lock(&inner_.session, set.fid).await?;
        let changed = inner_.session.execute(&cred, Mutation::SetAttr(set.clone())).await;
        append::unlock(&inner_.session, lock).await;
        let MutationReply::Attr(attr) = changed? else {
            return Err(FsError::new(FsCode::Internal, "the MDS answered SetAttr with something else"));
        };
        if let Some(inode) = inner_.table.get(set.fid) {
            // It was opened meanwhile, perhaps with the size of before.
            inode.observe(&attr);
            inode.drop_clean();
        }
        Ok(attr)
    };
    to_the_end(inner, work).await
}

/// Loads all of a released file that is cut, unless nothing is left. (The MDS would do it, and this client could not tell that from an MDS
/// that does not answer.)
async fn load_before(inner: &Arc<Inner>, inode: &Arc<Inode>, set: &SetAttr) -> FsResult<()> {
    match set.size {
        Some(1..) => loads::loaded(inner, inode, 0, FILE_SIZE_MAX, How { sequential: true, ..How::CHANGE }).await,
        _ => Ok(()),
    }
}

async fn truncate_now(inner: &Arc<Inner>, inode: &Arc<Inode>, cred: &Credential, set: SetAttr) -> FsResult<Attr> {
    let size = set.size.unwrap_or(0);
    load_before(inner, inode, &set).await?;
    let _alone = inode.exclusion.write().await;
    let cut_at = plan::spans(&inode.view().layout, size, 1).ok().and_then(|spans| spans.first().copied());
    for _ in 0..ROUNDS_MAX {
        let frozen = inode.freeze();
        write::settle(inode).await;
        // Uncommitted bytes of the chunk that is cut would come back whole if its OST lost them and they were sent again.
        let resurrects = cut_at.is_some_and(|s| s.from > 0 && !inode.state().unstable.of_chunk(s.chunk).is_empty());
        if resurrects && size < inode.state().size() {
            drop(frozen);
            durable::commit(inner, inode).await?;
            continue;
        }
        // The MDS must know of everything stored: it cuts objects only below what it thinks is the size.
        let _reporting = inode.reporting.lock().await;
        report::report_locked(inner, inode).await?;
        let mtime = inode.take_mtime();
        let attr = match inner.session.execute(cred, Mutation::SetAttr(set.clone())).await {
            Ok(MutationReply::Attr(attr)) => attr,
            Ok(other) => return Err(write::unexpected("SetAttr", &other)),
            Err(e) => {
                inode.give_back_mtime(mtime);
                return Err(e);
            }
        };
        let shrinks = size < inode.state().size();
        inode.observe_own(&attr);
        if shrinks {
            inode.cut(size, cut_at);
        }
        if size == 0 {
            inode.state().emptied();
        }
        drop(frozen);
        inner.table.unpin_if_clean(inode);
        return Ok(inode.attr());
    }
    Err(FsError::new(FsCode::Busy, format!("{} did not come to rest to be truncated", inode.fid)))
}

/// Makes `[offset, offset + len)` a hole; the size stays.
pub(crate) async fn punch(inner: &Arc<Inner>, inode: &Arc<Inode>, offset: u64, len: u64) -> FsResult<()> {
    let (inner_, inode) = (Arc::clone(inner), Arc::clone(inode));
    to_the_end(inner, async move { punch_now(&inner_, &inode, offset, len).await }).await
}

async fn punch_now(inner: &Arc<Inner>, inode: &Arc<Inode>, offset: u64, len: u64) -> FsResult<()> {
    let _alone = loop {
        loads::loaded(inner, inode, offset, len, How::CHANGE).await?;
        let alone = inode.exclusion.write().await;
        if inode.state().missing(offset, len, Purpose::Change).is_none() {
            break alone;
        }
    };
    // Everything is stored and committed first: nothing that is sent again can fill the hole.
    write::drain(inner, inode).await;
    durable::commit(inner, inode).await?;
    let frozen = inode.freeze();
    write::settle(inode).await;
    let (layout, size) = {
        let state = inode.state();
        (Arc::clone(&state.layout), state.size())
    };
    let end = offset.saturating_add(len).min(size);
    if offset >= end {
        return Ok(());
    }
    let mut todo = plan::object_ranges(&layout, inode.fs, inode.fid, offset, end);
    let mut rounds = 0;
    let mut delta = 0i64;
    let result = loop {
        if todo.is_empty() {
            break Ok(());
        }
        rounds += 1;
        if rounds > ROUNDS_MAX {
            break Err(FsError::new(FsCode::Io, format!("the OSTs of {} keep restarting", inode.fid)));
        }
        match try_join_all(todo.into_iter().map(|range| punch_object(inner, range))).await {
            Ok(done) => {
                delta += done.iter().map(|d| d.1).sum::<i64>();
                todo = done.into_iter().filter_map(|d| d.0).collect();
            }
            Err(e) => break Err(e),
        }
    };
    inode.drop_clean();
    inode.state().punched(delta);
    drop(frozen);
    result?;
    report::report(inner, inode).await
}

/// Punches one object and commits. Returns the range if it has to be done again, and the change of space in bytes.
async fn punch_object(inner: &Arc<Inner>, range: ObjectRange) -> FsResult<(Option<ObjectRange>, i64)> {
    let request = oss::PunchRequest {
        ost: u32::from(range.ost.0),
        object: Some(range.object.into()),
        chunk_log2: u32::from(range.chunk_log2),
        offset: range.offset,
        length: range.len,
        ..Default::default()
    };
    let writer = expiry::writer(inner).await?;
    let punched = inner.osts.punch(range.ost, &request, writer).await;
    if punched.as_ref().is_err_and(|e| e.code == FsCode::Stale) && expiry::is_replaced(inner, writer).await? {
        return Err(FsError::new(
            FsCode::Io,
            "the session expired while a hole was being made; a part of it may be there",
        )
        .with_hint("look at the file and repeat it"));
    }
    let reply = punched?;
    let verifier = convert::verifier(&reply.verifier)?;
    let answered = inner.committer.count_answer();
    let committed = inner.committer.commit(&inner.osts, range.object.fs, range.ost, answered).await?;
    Ok(((committed.verifier != verifier).then_some(range), reply.allocated_delta))
}
