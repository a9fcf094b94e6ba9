//! What the MDS wants back: recalls of what this client may keep of the files it has open.
//!
//! A recall is answered when everything that was written is durable and reported, and nothing is kept any more, here or by
//! a kernel above. From then on reads ask the OSTs and the MDS, and writes are durable and reported before they return,
//! until the file is opened again and something else is granted.
//!
//! Tasks: one that listens, and one per recall, at most [`RECALLS_AT_ONCE`] at a time.

use std::sync::{Arc, Weak};

use futures::future::BoxFuture;
use parking_lot::RwLock;
use sateen_proto::{convert, mds as wire};
use sateen_types::{Capability, Fid, FsCode, FsResult, Recall, Unreported, Using};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use crate::inner::Inner;
use crate::inode::Inode;
use crate::retry::Backoff;
use crate::session::{Incarnation, Session};
use crate::{expiry, transport, write};

/// Recalls that are worked on at a time; others wait.
const RECALLS_AT_ONCE: usize = 64;

/// Makes whoever keeps data above this client (a kernel) forget what it has of a file, having written what it has to
/// write.
pub type Forget = Arc<dyn Fn(Fid) -> BoxFuture<'static, ()> + Send + Sync>;

/// See [`Forget`].
#[derive(Default)]
pub(crate) struct Above(RwLock<Option<Forget>>);

impl std::fmt::Debug for Above {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Above")
    }
}

impl Above {
    /// Who keeps data from now on.
    pub fn set(&self, forget: Forget) {
        *self.0.write() = Some(forget);
    }

    pub async fn forget(&self, fid: Fid) {
        let forget = self.0.read().clone();
        if let Some(forget) = forget {
            forget(fid).await;
        }
    }
}

/// The stream of one incarnation of the session.
pub(crate) struct Listening {
    incarnation: Arc<Incarnation>,
    stream: Streaming<wire::WatchReply>,
}

/// Begins to listen. From here on the MDS grants something.
pub(crate) async fn listen(session: &Session) -> FsResult<Listening> {
    let incarnation = session.incarnation();
    let route = session.mds.route();
    let mut client = route.capabilities();
    let request = wire::WatchRequest { session_id: incarnation.id.0.to_vec() };
    let call = async {
        let mut stream = client.watch(request).await?.into_inner();
        // The first one is empty.
        match stream.message().await? {
            Some(_) => Ok(tonic::Response::new(stream)),
            None => Err(tonic::Status::unavailable("the stream of recalls ended at once")),
        }
    };
    let stream = transport::within(session.mds.request_timeout, &route.peer, call).await.inspect_err(|e| {
        if e.code.is_retryable() {
            session.mds.failed(&route);
        }
    })?;
    session.listening.send_replace(incarnation.writer);
    if session.writes_names_back() {
        // One that listens may hold directories.
        let asked = session
            .ask_writeback(|mut client, session_id| async move { client.lend(wire::LendRequest { session_id }).await });
        match asked.await {
            Ok(lent) if session.incarnation().id == incarnation.id => session.names.lent(lent.sequence),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "names are not written back"),
        }
    }
    Ok(Listening { incarnation, stream })
}

/// Listens, and does what the MDS asks, until the client is gone.
pub(crate) async fn run(client: Weak<Inner>, mut listening: Option<Listening>, stop: CancellationToken) {
    let at_once = Arc::new(Semaphore::new(RECALLS_AT_ONCE));
    let mut backoff = Backoff::new(None, &stop);
    loop {
        if let Some(Listening { incarnation, mut stream }) = listening.take() {
            backoff = Backoff::new(None, &stop);
            let Some(session) = client.upgrade().map(|inner| Arc::clone(&inner.session)) else { return };
            loop {
                let message = tokio::select! {
                    () = stop.cancelled() => return,
                    () = session.replaced.notified() => break,
                    message = stream.message() => message,
                };
                let Some(inner) = client.upgrade() else { return };
                match message {
                    Ok(Some(message)) => tokio::select! {
                        () = begin(&inner, &incarnation, message, &at_once) => {}
                        // Those that are being worked on may wait for the next session's stream.
                        () = session.replaced.notified() => break,
                    },
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(%error, "the stream of recalls broke");
                        break;
                    }
                }
            }
        }
        let Some(inner) = client.upgrade() else { return };
        let session = Arc::clone(&inner.session);
        drop(inner);
        // Perhaps the MDS was restarted: others wait until it knows what is open here.
        let again = async {
            session.renew_or_reopen().await?;
            listen(&session).await
        };
        let heard = tokio::select! {
            () = stop.cancelled() => return,
            heard = again => heard,
        };
        drop(session);
        match heard {
            Ok(heard) => {
                listening = Some(heard);
                // Beside this: others may want something back meanwhile.
                if let Some(inner) = client.upgrade() {
                    expiry::settle_soon(&inner);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "not listening to recalls");
                if !backoff.pause().await {
                    return;
                }
            }
        }
    }
}

async fn begin(
    inner: &Arc<Inner>,
    incarnation: &Arc<Incarnation>,
    message: wire::WatchReply,
    at_once: &Arc<Semaphore>,
) {
    let dirs: FsResult<Vec<Fid>> = message.directories.into_iter().map(Fid::try_from).collect();
    match dirs {
        Ok(dirs) if dirs.is_empty() => {}
        Ok(dirs) => {
            let session = Arc::clone(&inner.session);
            let given_up = async move { session.names.recalled(&session, dirs).await };
            inner.tasks.spawn_on(given_up, &inner.runtime);
        }
        Err(error) => tracing::warn!(%error, "a recall of directories is not understood"),
    }
    for recall in message.recalls {
        let (fid, recall) = match <(Fid, Recall)>::try_from(recall) {
            Ok(recall) => recall,
            Err(error) => {
                tracing::warn!(%error, "a recall is not understood");
                continue;
            }
        };
        let permit = Arc::clone(at_once).acquire_owned().await.expect("the semaphore is never closed");
        let (inner_, incarnation) = (Arc::clone(inner), Arc::clone(incarnation));
        let work = async move {
            let told = give_up(&inner_, fid, recall).await;
            answer(&inner_.session, &incarnation, fid, recall.number, told).await;
            drop(permit);
        };
        inner.tasks.spawn_on(work, &inner.runtime);
    }
}

/// Stores and forgets what is more than the recall leaves.
async fn give_up(inner: &Arc<Inner>, fid: Fid, recall: Recall) -> (Using, Unreported) {
    match inner.table.get(fid) {
        // Writes that begin after this are stored before they return.
        Some(inode) => {
            let _alone = inode.exclusion.write().await;
            inner.session.recalled(fid, recall);
        }
        None => inner.session.recalled(fid, recall),
    }
    // Again: it may have been opened in between, with more than it may have now.
    let Some(inode) = inner.table.get(fid) else { return (inner.session.using(fid), Unreported::default()) };
    if recall.keep < Capability::Write {
        // Also if it was given up before: an earlier recall may still be storing.
        forget(inner, &inode, recall.keep).await;
    }
    (inner.session.using(fid), inode.unreported())
}

/// Stores, commits and reports everything; and forgets what was read, unless that may be kept.
async fn forget(inner: &Arc<Inner>, inode: &Arc<Inode>, keep: Capability) {
    inner.above.forget(inode.fid).await;
    if let Err(error) = write::store_now(inner, inode).await {
        // Nor will it be: others are about to write, and it must not come on top of that.
        tracing::error!(%error, fid = %inode.fid, "what was written could not be stored, and another client wants the file");
        inode.discard();
        inode.state().failure.record(error);
    }
    inode.let_go();
    if keep < Capability::Read {
        inode.drop_clean();
    }
}

/// Tells the MDS until it hears, or the session is over: then there is nobody left to tell.
async fn answer(session: &Session, incarnation: &Incarnation, fid: Fid, number: u64, told: (Using, Unreported)) {
    let (using, unreported) = told;
    let mut backoff = Backoff::new(None, &session.stop);
    loop {
        let request = wire::AnswerRequest {
            session_id: incarnation.id.0.to_vec(),
            fid: Some(fid.into()),
            number,
            using: wire::Using::from(using).into(),
            size: unreported.size,
            mtime: unreported.mtime.map(Into::into),
        };
        let route = session.mds.route();
        let mut client = route.capabilities();
        match transport::within(session.mds.request_timeout, &route.peer, client.answer(request)).await {
            Err(error) if error.code.is_retryable() => {
                session.mds.failed(&route);
                if !backoff.pause().await {
                    return;
                }
            }
            Err(error) if error.code != FsCode::Stale => {
                return tracing::warn!(%error, %fid, "the answer to a recall was refused");
            }
            _ => return,
        }
    }
}

/// Asks the MDS for attributes of a file that others may be changing, and takes them in.
pub(crate) async fn refresh(inner: &Inner, inode: &Inode) -> FsResult<()> {
    let fid = Some(inode.fid.into());
    let asked = inner
        .session
        .ask(|mut client, session_id| async move { client.get_attr(wire::GetAttrRequest { session_id, fid }).await });
    let attr = convert::required(asked.await?.attr, "attr")?.try_into()?;
    inode.observe(&attr);
    inode.drop_clean();
    Ok(())
}
