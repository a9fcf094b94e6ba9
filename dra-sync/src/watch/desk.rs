//! Where the keys that a webhook names go: to every link of a file system whose they are.
//!
//! Links are found by bucket and prefix. A link that imports nothing by itself is not looked at.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sateen_client::Shift;
use sateen_client::admin::Admin;
use sateen_types::FsResult;
use sateen_types::repository::{Repository, RepositoryEvents, RepositoryId, RepositorySettings};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::event::Touched;
use super::look::{self, BATCHES_WAITING_MAX, Batch};
use super::pending::Ticket;
use super::{Keys, eyes};
use crate::worker::Shared;

/// Deliveries that wait for a file system.
pub const DELIVERIES_WAITING_MAX: usize = 64;
/// How long what is known of the links is used.
const LINKS_AGE_MAX: Duration = Duration::from_secs(10);
/// The same for keys that are nobody's: their link may be new.
const LINKS_AGE_MIN: Duration = Duration::from_secs(1);
/// How long the MDS may take to list the links.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// Keys that were told of at once.
#[derive(Debug)]
pub struct Delivery {
    /// Of any buckets.
    pub touched: Arc<[Touched]>,
    /// Hears how many of them were a link's, when the MDS was told of all; an error if they will not be.
    pub done: oneshot::Sender<usize>,
}

/// One link that keys came for.
struct Pump {
    settings: RepositorySettings,
    send: mpsc::Sender<Batch>,
}

/// All that came for one file system.
struct Desk {
    shared: Arc<Shared>,
    shift: watch::Receiver<Option<Shift>>,
    links: Option<(Instant, Vec<Repository>)>,
    pumps: HashMap<RepositoryId, Pump>,
    tasks: JoinSet<()>,
}

/// Takes deliveries until there are no more.
pub async fn run(shared: Arc<Shared>, shift: watch::Receiver<Option<Shift>>, mut deliveries: mpsc::Receiver<Delivery>) {
    let mut desk = Desk { shared, shift, links: None, pumps: HashMap::new(), tasks: JoinSet::new() };
    loop {
        tokio::select! {
            delivery = deliveries.recv() => match delivery {
                Some(delivery) => desk.deliver(delivery).await,
                None => return,
            },
            Some(_) = desk.tasks.join_next() => {}
        }
    }
}

impl Desk {
    /// A delivery that is dropped on the way is one that was not answered.
    async fn deliver(&mut self, Delivery { touched, done }: Delivery) {
        let parts = match self.parts(&touched, LINKS_AGE_MAX).await {
            Ok(parts) if parts.is_empty() => self.parts(&touched, LINKS_AGE_MIN).await,
            parts => parts,
        };
        let parts = match parts {
            Ok(parts) => parts,
            Err(error) => {
                tracing::warn!(%error, "the MDS does not say which links there are; events have to come again");
                return;
            }
        };
        let Some(shift) = *self.shift.borrow() else { return };
        let keys: usize = parts.iter().map(|(_, keys)| keys.len()).sum();
        if keys == 0 {
            let _ = done.send(0);
            return;
        }
        let (ticket, answered) = Ticket::impatient(keys);
        for (link, keys) in parts {
            let batch = Batch { keys, ticket: Some(ticket.clone()) };
            // Full: whoever told of the keys hears that they were not answered, and tells again.
            if let Err(error) = self.pump(&link, shift).send.try_send(batch) {
                tracing::debug!(repository = %link.id, %error, "too much waits to be looked at");
            }
        }
        drop(ticket);
        // As many as deliveries, which are as many as connections of the webhook.
        self.tasks.spawn(async move {
            if answered.await.is_ok() {
                let _ = done.send(keys);
            }
        });
    }

    /// The keys by link.
    async fn parts(&mut self, touched: &[Touched], age: Duration) -> FsResult<Vec<(Repository, Vec<Vec<u8>>)>> {
        if self.links.as_ref().is_none_or(|(since, _)| since.elapsed() >= age) {
            let hosts = self.shared.config.mds.join(",");
            let all = Admin::connect(&hosts, ASK_TIMEOUT).await?.list_repositories(&self.shared.fs).await?;
            self.pumps.retain(|id, _| all.iter().any(|link| link.id == *id));
            self.links = Some((Instant::now(), all));
        }
        let links = self.links.iter().flat_map(|(_, links)| links);
        let imports = |link: &&Repository| link.settings.auto_import != RepositoryEvents::default();
        let parts = links.filter(imports).map(|link| (link, Keys::new(&link.settings).of(touched)));
        Ok(parts.filter(|(_, keys)| !keys.is_empty()).map(|(link, keys)| (link.clone(), keys)).collect())
    }

    /// Where keys of a link go. One that ended (the session was lost, the link changed) is made anew.
    fn pump(&mut self, link: &Repository, shift: Shift) -> &Pump {
        let known = self.pumps.get(&link.id).is_some_and(|p| p.settings == link.settings && !p.send.is_closed());
        if !known {
            let (send, batches) = mpsc::channel(BATCHES_WAITING_MAX);
            let eyes = eyes(&self.shared, shift, link.id, 0, &link.settings);
            let (figures, id) = (Arc::clone(&self.shared.figures), link.id);
            self.tasks.spawn(async move {
                // A webhook has no source that could fail.
                let (_quiet, trouble) = watch::channel(String::new());
                if let Err(error) = look::run(&eyes, None, batches, trouble, &figures).await {
                    tracing::info!(repository = %id, %error, "what a webhook told of cannot be told on, for now");
                }
            });
            self.pumps.insert(link.id, Pump { settings: link.settings.clone(), send });
        }
        &self.pumps[&link.id]
    }
}
