//! Telling the MDS the log, one part after the other.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use sateen_proto::common::ErrorDetail;
use sateen_proto::{convert, mds as wire, status};
use sateen_types::limits::LOG_CHANGES_MAX;
use sateen_types::op::Mutation;
use sateen_types::{Attr, Fid, FsCode, FsError, FsResult, Layout};
use tokio_util::sync::CancellationToken;

use super::GATHER;
use super::tree::Change;
use crate::inner::Inner;
use crate::retry::Backoff;
use crate::{tend, transport};

/// Tells the log until the client is gone.
pub(crate) async fn run(client: Weak<Inner>, stop: CancellationToken) {
    let Some(session) = client.upgrade().map(|inner| Arc::clone(&inner.session)) else { return };
    let names = &session.names;
    let mut most = LOG_CHANGES_MAX;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = names.work.notified() => {}
        }
        loop {
            let waiting = names.tree.lock().waiting();
            if waiting == 0 {
                break;
            }
            if waiting < LOG_CHANGES_MAX && !names.hurried.swap(false, Ordering::AcqRel) {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(GATHER) => {}
                    () = names.hurry.notified() => names.hurried.store(false, Ordering::Release),
                }
            }
            let Some(inner) = client.upgrade() else { return };
            tokio::select! {
                () = stop.cancelled() => return,
                next = part(&inner, most) => most = next,
            }
            names.progress.notify_waiters();
        }
    }
}

/// Tells one part of at most so many changes, until its fate is known. Gives how many the next may have.
async fn part(inner: &Arc<Inner>, most: usize) -> usize {
    let session = &inner.session;
    let names = &session.names;
    let incarnation = session.incarnation();
    let (number, changes) = names.tree.lock().head(most);
    if changes.iter().any(|c| matches!(c.op, Mutation::Unlink { .. } | Mutation::Rename { .. })) {
        // A file that was closed here goes at once, and not as one that is open and loses its name.
        session.tell_closes().await;
        if session.incarnation().id != incarnation.id {
            // They went with the session that they were made in.
            return most;
        }
    }
    let opened: Vec<Fid> = changes.iter().filter_map(|c| c.fid).filter(|fid| session.tell_open(*fid)).collect();
    let wire_changes = changes.iter().zip(number..).map(|(change, number)| {
        let is_open = change.fid.is_some_and(|fid| opened.contains(&fid));
        encode(change, number, is_open, change.fid.is_some_and(|fid| names.holds(fid)))
    });
    let request = wire::ApplyRequest { session_id: incarnation.id.0.to_vec(), changes: wire_changes.collect() };
    let mut backoff = Backoff::new(None, &session.stop);
    let reply = loop {
        let route = session.mds.route();
        let mut client = route.writeback();
        let answer = transport::within(session.mds.request_timeout, &route.peer, client.apply(request.clone())).await;
        // The session may end between two changes.
        let stale = |detail: &ErrorDetail| status::from_detail(detail.clone()).code == FsCode::Stale;
        let answer = match answer {
            Ok(reply) if reply.replies.is_empty() && reply.error.as_ref().is_some_and(stale) => {
                Err(reply.error.map_or_else(|| FsCode::Stale.into(), status::from_detail))
            }
            other => other,
        };
        match answer {
            Ok(reply) => break Ok(reply),
            Err(error) if error.code.is_retryable() => {
                tracing::debug!(%error, number, "telling changes of names again");
                session.mds.failed(&route);
                if !backoff.pause().await {
                    return most;
                }
            }
            Err(error) if error.code == FsCode::Stale => match session.is_alive(&incarnation).await {
                Ok(true) => break Err(error),
                // Whoever opens the next session drops the log.
                Ok(false) => match session.reopen(incarnation.id).await {
                    Ok(()) => {
                        session.told_open(&opened, &[]);
                        return most;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "no new session yet");
                        if !backoff.pause().await {
                            return most;
                        }
                    }
                },
                Err(_) if !backoff.pause().await => return most,
                Err(_) => {}
            },
            Err(error) => break Err(error),
        }
    };
    if session.incarnation().id != incarnation.id {
        session.told_open(&opened, &[]);
        return most;
    }
    let (known, again) = match reply {
        Ok(reply) => take_in(inner, &changes, reply),
        // One of them is not understood: which one?
        Err(error) if changes.len() > 1 => {
            tracing::warn!(%error, number, "a part of the log was refused");
            session.told_open(&[], &opened);
            return changes.len() / 2;
        }
        Err(error) => {
            left_out(inner, error);
            (1, false)
        }
    };
    let is_known = |fid: &Fid| changes[..known].iter().any(|change| change.fid == Some(*fid));
    let (told, untold): (Vec<Fid>, Vec<Fid>) = opened.iter().partition(|fid| is_known(fid));
    session.told_open(&told, &untold);
    if again {
        backoff.pause().await;
    }
    LOG_CHANGES_MAX
}

fn encode(change: &Change, number: u64, is_open: bool, hold: bool) -> wire::Logged {
    let mut op = change.op.clone();
    if let Mutation::Create(create) = &mut op
        && !is_open
    {
        create.open = None;
    }
    let is_dir = matches!(op, Mutation::Mkdir { .. });
    wire::Logged {
        change: Some(wire::ExecuteRequest {
            number,
            credential: Some((&*change.cred).into()),
            op: Some(op.into()),
            hold: is_dir && hold,
            // The open of a new file has no number but this one: see `opens`.
            open_number: 0,
            ..Default::default()
        }),
        fid: change.fid.map(Into::into),
        at: Some(change.at.into()),
    }
}

/// Gives of how many changes the fate is known now, and whether the next must be told again after a while.
fn take_in(inner: &Arc<Inner>, changes: &[Change], reply: wire::ApplyReply) -> (usize, bool) {
    let names = &inner.session.names;
    let mut not_held = if reply.full { names.held() } else { Vec::new() };
    let mut known = reply.replies.len().min(changes.len());
    let attr = |reply: &wire::ExecuteReply| match &reply.result {
        Some(wire::execute_reply::Result::Attr(reply)) => reply.attr.and_then(|attr| Attr::try_from(attr).ok()),
        _ => None,
    };
    let attrs: Vec<Attr> = reply.replies.iter().filter_map(attr).collect();
    for (change, reply) in changes.iter().zip(reply.replies) {
        if let Err(error) = take_one(inner, change, reply, &mut not_held) {
            tracing::warn!(%error, "an answer of the MDS is not understood");
        }
        // Before the tree forgets what it knows better.
        inner.session.ahead.changed(&change.op, &super::named(&change.op));
        names.tree.lock().answered();
    }
    {
        let mut tree = names.tree.lock();
        tree.forget_told();
        attrs.iter().for_each(|attr| tree.made(attr));
    }
    let refused = reply.error.map(status::from_detail);
    let again = refused.as_ref().is_some_and(|error| error.code.is_retryable());
    if let Some(error) = refused.filter(|error| known < changes.len() && !error.code.is_retryable()) {
        left_out(inner, error);
        known += 1;
    }
    if !not_held.is_empty() {
        let session = Arc::clone(&inner.session);
        let given_up = async move { session.names.recalled(&session, not_held).await };
        inner.tasks.spawn_on(given_up, &inner.runtime);
    }
    (known, again)
}

fn take_one(inner: &Arc<Inner>, change: &Change, reply: wire::ExecuteReply, not_held: &mut Vec<Fid>) -> FsResult<()> {
    let Some(fid) = change.fid else { return Ok(()) };
    if matches!(change.op, Mutation::Mkdir { .. }) && reply.held.is_none() && inner.session.names.holds(fid) {
        not_held.push(fid);
    }
    if let Some(wire::execute_reply::Result::Entry(entry)) = reply.result
        && let Some(layout) = entry.layout
        && let Some(inode) = inner.table.get(fid)
    {
        inode.observe_layout(Layout::try_from(layout)?);
    }
    if reply.grant.is_some() {
        inner.session.granted(fid, convert::grant(reply.grant)?);
        if let Some(inode) = inner.table.get(fid).filter(|inode| inode.state().is_shared()) {
            // An MDS that was restarted does not hear us listen yet: what is kept must not wait for a recall.
            let inner_ = Arc::clone(inner);
            let stored = async move { tend::everything(&inner_, &inode).await };
            inner.tasks.spawn_on(stored, &inner.runtime);
        }
    }
    Ok(())
}

/// The first change of the log was refused: it did not happen, and its number is not used again.
fn left_out(inner: &Arc<Inner>, error: FsError) {
    let names = &inner.session.names;
    let mut tree = names.tree.lock();
    let Some(change) = tree.left_out() else { return };
    let what = format!("the MDS refused a change that was answered before, {:?}: {}", change.op, error.message);
    tracing::error!("{what}");
    // Before anybody can see that it does not wait any more.
    names.fail(FsError::new(FsCode::Io, what).with_hint("see the log of the MDS; other changes went on"));
    // Names are not what they seem here.
    if let Some(fid) = change.fid {
        tree.never_made(fid);
    }
    super::named(&change.op).into_iter().for_each(|fid| tree.doubt(fid));
    drop(tree);
    let session = Arc::clone(&inner.session);
    let dirs = super::named(&change.op);
    let given_up = async move { session.names.recalled(&session, dirs).await };
    inner.tasks.spawn_on(given_up, &inner.runtime);
}
