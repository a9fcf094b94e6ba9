//! What becomes of data that was written here when the session expires.
//!
//! Its writer is shut out at the OSTs and others are given what this client kept, so nothing of what it had gathered may be sent
//! as if nothing had happened. The next session has a writer of its own, which is used only when every file with data here was
//! looked at ([`writer`]): what it has is kept if nobody else has the file open now, so that nobody can change it behind our back,
//! and nobody has changed it since. Otherwise it is given up and every open file reports that, once.
//!
//! The invariant: a change that was sent under a writer was either made in its session, or stood this test.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt, TryStreamExt};
use sateen_types::op::Access;
use sateen_types::{Capability, Credential, Fid, FsCode, FsError, FsResult};

use crate::client::Client;
use crate::file::File;
use crate::inner::Inner;
use crate::inode::Inode;
use crate::retry::Backoff;

/// Files looked at at a time.
const FILES_AT_ONCE: usize = 16;
/// Files of which a kernel is made to forget the data at the same time.
const FORGOTTEN_AT_ONCE: usize = 64;
static ROOT: Credential = Credential::ROOT;
/// How long others have to give up what they keep of one, beside two leases: all writes of this client wait. A restarted MDS
/// grants nothing for about a lease.
const LOOK_PATIENCE: Duration = Duration::from_secs(60);
/// So often it is looked whether the MDS answers at all.
const LOOK_SLICE: Duration = Duration::from_secs(15);

/// Under which number to write now, of a session that lives as far as this client knows; what its predecessors have left was
/// looked at. Asks the MDS only if the session was replaced, or was not renewed for a lease.
pub(crate) async fn writer(inner: &Arc<Inner>) -> FsResult<u64> {
    let session = &inner.session;
    let mut backoff = Backoff::new(inner.options.retry_for, &session.stop);
    loop {
        let writer = inner.osts.writer();
        if !session.lease.is_over() && session.incarnation().writer == writer {
            return Ok(writer);
        }
        let asked = async {
            session.renew_or_reopen().await?;
            settle(inner).await
        };
        match asked.await {
            Ok(()) => {}
            Err(e) if e.code.is_retryable() && backoff.pause().await => {}
            Err(e) => return Err(e),
        }
    }
}

/// [`writer`] beside everything else, for a session that has just begun to listen. One such task at a time.
pub(crate) fn settle_soon(inner: &Arc<Inner>) {
    if !inner.settles.swap(true, Ordering::AcqRel) {
        inner.tasks.spawn_on(settle_behind(Arc::downgrade(inner)), &inner.runtime);
    }
}

async fn settle_behind(client: Weak<Inner>) {
    let Some(stop) = client.upgrade().map(|inner| inner.session.stop.clone()) else { return };
    let mut backoff = Backoff::new(None, &stop);
    loop {
        let Some(inner) = client.upgrade() else { return };
        if let Err(error) = writer(&inner).await {
            tracing::debug!(%error, "what the last session left is not looked at yet");
        }
        inner.settles.store(false, Ordering::Release);
        // Perhaps there is yet another session, which has found this task at work.
        let settled = inner.osts.writer() == inner.session.incarnation().writer;
        if settled || inner.settles.swap(true, Ordering::AcqRel) {
            return;
        }
        drop(inner);
        if !backoff.pause().await {
            return;
        }
    }
}

/// An OST has refused `writer` as `Stale`: whether that was because its session has expired, and there is another.
pub(crate) async fn is_replaced(inner: &Arc<Inner>, writer: u64) -> FsResult<bool> {
    let session = &inner.session;
    let mut backoff = Backoff::new(inner.options.retry_for, &session.stop);
    while session.incarnation().writer == writer {
        match session.renew_or_reopen().await {
            Ok(()) => break,
            Err(e) if e.code.is_retryable() && backoff.pause().await => {}
            Err(e) => return Err(e),
        }
    }
    Ok(session.incarnation().writer != writer)
}

/// What a program hears of data that was given up.
pub(crate) fn changed_elsewhere(fid: Fid, bytes: u64) -> FsError {
    FsError::new(
        FsCode::Io,
        format!("{bytes} bytes of {fid} were not stored: the session expired and another client uses the file"),
    )
    .with_hint("this client was cut off or stood still for longer than its lease; read the file and write again")
}

/// Looks at every file with data here, and goes on in the session as it is then.
async fn settle(inner: &Arc<Inner>) -> FsResult<()> {
    let _only_one = inner.settling.lock().await;
    let incarnation = inner.session.incarnation();
    if inner.osts.writer() == incarnation.writer {
        return Ok(());
    }
    await_listening(inner, incarnation.writer).await?;
    let lost = inner.session.take_lost();
    let with_data = inner.table.pinned();
    let looked = stream::iter(with_data.iter().map(Ok))
        .try_for_each_concurrent(FILES_AT_ONCE, |inode| async move { look_at(inner, inode).await });
    if let Err(e) = looked.await {
        inner.session.put_back_lost(lost);
        return Err(e);
    }
    for inode in lost.iter().filter_map(|fid| inner.table.get(*fid)) {
        inode.drop_clean();
    }
    // If it has expired in turn this one is shut out as well.
    inner.osts.adopt(incarnation.writer);
    // Not awaited: whoever keeps data above may wait for the very write that waits for this.
    let inner_ = Arc::clone(inner);
    // Nor one after the other: one that waits for its repository must not hold the others up.
    let forgetting = async move {
        let forget = |fid| inner_.above.forget(fid);
        stream::iter(lost).for_each_concurrent(FORGOTTEN_AT_ONCE, forget).await;
    };
    inner.tasks.spawn_on(forgetting, &inner.runtime);
    Ok(())
}

/// Waits until the MDS can ask this client to give something up: it grants nothing before.
async fn await_listening(inner: &Inner, writer: u64) -> FsResult<()> {
    let mut listening = inner.session.listening.subscribe();
    let listens = listening.wait_for(|listens| *listens == writer);
    match tokio::time::timeout(inner.options.request_timeout, listens).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(FsError::new(FsCode::Unavailable, "the client does not listen to recalls yet")),
    }
}

/// Keeps what was written to a file if nobody else can have changed it, or gives it up.
async fn look_at(inner: &Arc<Inner>, inode: &Arc<Inode>) -> FsResult<()> {
    if inode.state().is_clean() {
        return Ok(());
    }
    if let Some(_open) = open_alone(inner, inode.fid).await? {
        // What is observed meanwhile, also before this, marks what it changes.
        if inode.keeps() == Capability::Write && !inode.is_overtaken() {
            tracing::info!(fid = %inode.fid, "what was written before the session expired is kept: nobody else uses the file");
            return Ok(());
        }
    }
    let bytes = inode.forsake(|bytes| changed_elsewhere(inode.fid, bytes));
    tracing::error!(fid = %inode.fid, bytes, "the session expired and another client uses the file: what was not stored is lost");
    inner.table.unpin_if_clean(inode);
    Ok(())
}

/// Opens a file as somebody who may keep its data, if it is there and others give up what they keep: from then on nobody opens
/// it without this client being asked. An error means that the MDS does not answer.
async fn open_alone(inner: &Arc<Inner>, fid: Fid) -> FsResult<Option<File>> {
    let client = Client { inner: Arc::clone(inner) };
    let patience = LOOK_PATIENCE + 2 * inner.session.incarnation().lease;
    let since = Instant::now();
    loop {
        match tokio::time::timeout(LOOK_SLICE, client.open(&ROOT, fid, Access::READ_WRITE)).await {
            Ok(Ok(open)) => return Ok(Some(open)),
            Ok(Err(e)) if inner.session.stop.is_cancelled() => return Err(e),
            Ok(Err(e)) if matches!(e.code, FsCode::Stale | FsCode::NotFound) => return Ok(None),
            Ok(Err(e)) if !e.code.is_retryable() => {
                tracing::warn!(%fid, error = %e, "a file cannot be opened in the new session");
                return Ok(None);
            }
            // Only time counts in which the MDS answers: without it this ends here, and begins anew.
            _ => inner.session.renew_or_reopen().await?,
        }
        if since.elapsed() > patience {
            tracing::warn!(%fid, "another client uses a file, and does not give it up for {patience:?}");
            return Ok(None);
        }
    }
}
