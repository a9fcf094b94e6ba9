//! Waiting for locks: one task asks the MDS about all tickets of this client at once, however many wait.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use sateen_proto::mds as wire;
use tokio::sync::{Notify, oneshot};

use crate::session::Session;

/// Pause after a question that failed for good; the waits go on.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Tickets that wait, and who is to be told.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    tickets: Mutex<HashMap<u64, oneshot::Sender<()>>>,
    /// There is another ticket.
    added: Notify,
    running: AtomicBool,
}

/// Forgets the ticket of a wait that is given up.
struct Waiting<'a>(&'a Waits, u64);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut tickets = self.0.tickets.lock();
        // A restarted MDS counts from the beginning: the number may be somebody else's by now.
        if tickets.get(&self.1).is_some_and(oneshot::Sender::is_closed) {
            tickets.remove(&self.1);
        }
    }
}

impl Waits {
    /// Completes when the ticket has left its queue, or nobody knows it any more.
    pub async fn settled(&self, session: &Arc<Session>, ticket: u64) {
        let _forget_after = Waiting(self, ticket);
        let (tell, told) = oneshot::channel();
        self.tickets.lock().insert(ticket, tell);
        self.added.notify_one();
        if !self.running.swap(true, Ordering::AcqRel) {
            session.spawn(watch(Arc::downgrade(session)));
        }
        // Dropped without a word: another request has the number, so ours is not waiting.
        let _ = told.await;
    }
}

/// Runs until the session is closed or dropped.
async fn watch(session: Weak<Session>) {
    loop {
        let Some(session) = session.upgrade() else { return };
        let stop = session.stop.clone();
        let tickets: Vec<u64> = session.waits.tickets.lock().keys().copied().collect();
        let added = session.waits.added.notified();
        if tickets.is_empty() {
            tokio::select! {
                () = added => continue,
                () = stop.cancelled() => return,
            }
        }
        let hold_ms = session.lock_hold_ms();
        let question = session.ask_locks(|mut client, session_id| {
            let request = wire::AwaitLocksRequest { session_id, tickets: tickets.clone(), hold_ms };
            async move { client.r#await(request).await }
        });
        let answer = tokio::select! {
            answer = question => answer,
            () = added => continue,
            () = stop.cancelled() => return,
        };
        match answer {
            Ok(reply) => {
                let mut waiting = session.waits.tickets.lock();
                for tell in reply.settled.iter().filter_map(|ticket| waiting.remove(ticket)) {
                    // Whoever waited may have given up.
                    let _ = tell.send(());
                }
            }
            Err(error) => {
                tracing::debug!(%error, "nobody knows yet which locks were granted");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}
