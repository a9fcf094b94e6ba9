//! Appending.
//!
//! A client that has a file to itself knows where it ends. Otherwise the end is the MDS's size, and whoever appends has
//! the file's append lock while it asks, stores and reports: nobody else's end moves meanwhile, and whoever sees the new
//! size can read what is below it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sateen_types::{Credential, Fid, FsCode, FsError, FsResult, Lock, LockClass, LockMode, LockRange};

use crate::inner::Inner;
use crate::inode::Inode;
use crate::locks::Holder;
use crate::recalls;
use crate::session::Session;
use crate::write::{self, PIECE_BYTES, Where};

/// Owners of append locks. Each attempt has one of its own: what is given back late is not what another one has by then.
static OWNERS: AtomicU64 = AtomicU64::new(1);

/// A file's append lock, to be given up with [`unlock`].
pub(crate) struct AppendLock(Holder);

const LOCK: Lock = Lock { class: LockClass::Append, mode: LockMode::Exclusive, range: LockRange::WHOLE, pid: 0 };

/// Writes `data` at the end; gives the offset of its first byte.
pub(crate) async fn append(inner: &Arc<Inner>, inode: &Arc<Inode>, data: &[u8], cred: &Credential) -> FsResult<u64> {
    let mut first = None;
    let mut pieces = data.chunks(PIECE_BYTES);
    while let Some(piece) = pieces.next().or_else(|| first.is_none().then_some(&[])) {
        let offset = match write::write_piece(inner, inode, Where::End, piece, cred).await? {
            Some(offset) => offset,
            None => {
                let (inner_, inode, piece, cred) = (Arc::clone(inner), Arc::clone(inode), piece.to_vec(), cred.clone());
                // To its end, so that the lock is given up even if nobody waits for it.
                let run = async move { append_shared(&inner_, &inode, &piece, &cred).await };
                let joined = inner.tasks.spawn_on(run, &inner.runtime).await;
                joined.map_err(|e| FsError::new(FsCode::Internal, format!("a background append failed: {e}")))??
            }
        };
        first = first.or(Some(offset));
    }
    Ok(first.unwrap_or_default())
}

async fn append_shared(inner: &Arc<Inner>, inode: &Arc<Inode>, piece: &[u8], cred: &Credential) -> FsResult<u64> {
    let _only_one = inode.appending.lock().await;
    let lock = lock(&inner.session, inode.fid).await?;
    let appended = async {
        recalls::refresh(inner, inode).await?;
        let end = write::write_piece(inner, inode, Where::LockedEnd, piece, cred).await?;
        write::store_through(inner, inode).await?;
        Ok::<_, FsError>(end.unwrap_or_default())
    };
    let appended = appended.await;
    unlock(&inner.session, lock).await;
    appended
}

/// Takes a file's append lock: nobody's end of the file moves, but that of a client that has it to itself. Waits for
/// others as long as this client waits for anything.
pub(crate) async fn lock(session: &Arc<Session>, fid: Fid) -> FsResult<AppendLock> {
    let holder = Holder { fid, owner: OWNERS.fetch_add(1, Ordering::Relaxed) };
    let patience = session.patience();
    let give_up = async {
        match patience {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    session.lock(holder, LOCK, Some(give_up)).await.map(|_| AppendLock(holder)).map_err(|e| match (e.code, patience) {
        (FsCode::Interrupted, Some(limit)) => {
            let what =
                format!("another client appends to {fid}, or truncates it, and has not come to an end for {limit:?}");
            FsError::new(FsCode::TimedOut, what)
                .with_hint("it may wait for an OST: `sateen status` shows which are down")
        }
        _ => e,
    })
}

/// Gives it up.
pub(crate) async fn unlock(session: &Arc<Session>, AppendLock(holder): AppendLock) {
    let fid = holder.fid;
    if let Err(error) = session.unlock(holder, LockClass::Append, LockRange::WHOLE).await {
        tracing::warn!(%error, %fid, "others cannot append until this client does, or its session ends");
    }
}
