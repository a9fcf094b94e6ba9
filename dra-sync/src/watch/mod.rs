//! Changes of a bucket, as soon as somebody tells of them.
//!
//! ```text
//! listen (the store itself) ─┐
//! sqs (a queue)             ─┼─ event.rs: which keys ── look.rs: what is there ── Events ──► MDS
//! webhook.rs ── desk.rs     ─┘       (pending.rs: each key once)      └── later ◄──┘
//! ```
//!
//! A *Watch* is given by the MDS to one worker for each link with a source of events, and lasts until the session or the link
//! ends. Webhooks come to whoever has the address. What is told by nobody the next comparison of the import finds.

pub mod desk;
pub mod event;
mod listen;
mod look;
mod pending;
mod sqs;
pub mod webhook;

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use rand::Rng;
use sateen_client::Shift;
use sateen_types::repository::{Assignment, EventSource, RepositoryId, RepositorySettings, RepositoryUrl, Scheme};
use sateen_types::{FsCode, FsError, FsResult};
use tokio::sync::{mpsc, watch};

use crate::import::Open;
use crate::remote::{RemoteError, Service, Trouble};
use crate::seen::look as look_at;
use crate::worker::Shared;
use event::Touched;
use look::{BATCHES_WAITING_MAX, Eyes, LOOK_RETRY_FOR};

/// First pause before a source that failed is asked again.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// Longest such pause: how late a source that came back may be noticed.
const PAUSE_MAX: Duration = Duration::from_secs(20);

/// Pauses that grow, with jitter.
#[derive(Debug, Default)]
struct Backoff(u32);

impl Backoff {
    async fn pause(&mut self) {
        let pause = PAUSE_FIRST.saturating_mul(1 << self.0.min(16)).min(PAUSE_MAX);
        self.0 += 1;
        let jitter = rand::rng().random_range(0.5..1.0);
        tokio::time::sleep(pause.mul_f64(jitter)).await;
    }
}

/// Says why a source does not work; nothing if it does.
fn say(trouble: &watch::Sender<String>, why: String) {
    trouble.send_if_modified(|now| {
        let news = *now != why;
        *now = why;
        news
    });
}

/// Which keys of a bucket are a link's.
#[derive(Clone, Debug)]
pub struct Keys(RepositoryUrl);

impl Keys {
    /// Those of a link.
    pub fn new(settings: &RepositorySettings) -> Keys {
        Keys(settings.url.clone())
    }

    /// Name of the bucket.
    fn bucket(&self) -> &str {
        self.0.bucket()
    }

    /// The keys behind the prefix, each once, in the order in which they were told.
    pub fn of(&self, touched: &[Touched]) -> Vec<Vec<u8>> {
        let mut seen = HashSet::new();
        let own = |touched: &'_ Touched| {
            let key = touched.key.strip_prefix(self.0.prefix().as_bytes())?;
            (touched.bucket == self.0.bucket() && !key.is_empty()).then(|| key.to_vec())
        };
        touched.iter().filter_map(own).filter(|key| seen.insert(key.clone())).collect()
    }
}

/// Watches until the Watch is not this worker's any more (`Stale`), or says why the bucket cannot be watched.
pub async fn run(shared: &Arc<Shared>, shift: Shift, assignment: &Assignment) -> FsResult<Infallible> {
    let settings = &assignment.settings;
    let keys = Keys::new(settings);
    let queue = match &settings.event_source {
        EventSource::None => return Err(FsError::new(FsCode::Invalid, "the link has no source of events")),
        EventSource::Listen => None,
        EventSource::Sqs(url) => Some(queue(shared, settings, url)?),
    };
    if queue.is_none() && settings.url.scheme() != Scheme::S3 {
        let what = format!("{}: only s3:// can be listened to", settings.url);
        return Err(FsError::new(FsCode::NotSupported, what));
    }
    let eyes = eyes(shared, shift, assignment.repository, assignment.number, settings);
    let remote = remote_of(shared, settings);
    let (send, batches) = mpsc::channel(BATCHES_WAITING_MAX);
    let (trouble, heard) = watch::channel("the source of events has not answered yet".to_owned());
    let source = async {
        match &queue {
            None => listen::run(&*remote, &keys, &send, &trouble, &shared.figures).await,
            Some(queue) => queue.run(&keys, &send, &trouble, &shared.figures).await,
        }
    };
    tokio::select! {
        ended = look::run(&eyes, Some(assignment.stamp), batches, heard, &shared.figures) => {
            ended?;
            Err(FsError::new(FsCode::Internal, "the watch ended by itself"))
        }
        never = source => match never {},
    }
}

fn queue(shared: &Arc<Shared>, settings: &RepositorySettings, url: &str) -> FsResult<sqs::Queue> {
    let root = sqs::root_of(url);
    let (shared, region, profile) = (Arc::clone(shared), settings.region.clone(), settings.profile.clone());
    let open = move || {
        let credentials = shared.config.credentials(&profile)?;
        Service::open("sqs", &region, &root, credentials).map_err(|e| FsError::new(FsCode::Io, e.message))
    };
    // Known at once if there are no such keys.
    open()?;
    Ok(sqs::Queue::new(url, Box::new(open)))
}

/// The store of a link, with the keys as they are now.
pub fn remote_of(shared: &Arc<Shared>, settings: &RepositorySettings) -> Open {
    let (shared, settings) = (Arc::clone(shared), settings.clone());
    Box::new(move || {
        let (shared, settings) = (Arc::clone(&shared), settings.clone());
        async move { shared.remote(&settings).await }.boxed()
    })
}

/// How one link is looked at.
fn eyes(
    shared: &Arc<Shared>,
    shift: Shift,
    repository: RepositoryId,
    number: u64,
    settings: &RepositorySettings,
) -> Eyes {
    let client = shared.client.clone();
    let remote: Arc<Open> = Arc::new(remote_of(shared, settings));
    let opened = |e: FsError| RemoteError::new(Trouble::Unavailable, e.to_string());
    let (looking, sound, figures) = (Arc::clone(&remote), remote, Arc::clone(&shared.figures));
    Eyes {
        repository,
        number,
        heads: shared.config.limits.heads,
        tell: Box::new(move |page| {
            let client = client.clone();
            async move { client.events(shift, &page).await }.boxed()
        }),
        see: Box::new(move |key| {
            let (remote, figures) = (Arc::clone(&looking), Arc::clone(&figures));
            async move {
                let remote = remote().await.map_err(opened)?;
                look_at(&remote, &key, None, LOOK_RETRY_FOR, &figures).await
            }
            .boxed()
        }),
        sound: Box::new(move |()| {
            let remote = Arc::clone(&sound);
            async move { remote().await.map_err(opened)?.list(b"", 1).await.map(drop) }.boxed()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_behind_the_prefix_are_a_links_and_each_once() {
        let url = "s3://data/train/".parse().expect("a URL");
        let keys = Keys(url);
        let touched = |bucket: &str, key: &str| Touched { bucket: bucket.to_owned(), key: key.into() };
        let of = keys.of(&[
            touched("data", "train/b"),
            touched("data", "train/a"),
            touched("data", "train/b"),
            touched("data", "train/"),
            touched("data", "training/c"),
            touched("data", "other"),
            touched("date", "train/d"),
        ]);
        assert_eq!(of, [b"b".to_vec(), b"a".to_vec()]);
    }
}
