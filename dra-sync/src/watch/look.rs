//! From keys that somebody told of to what the MDS hears: each is looked at, and what is there is sent, or that nothing is.
//!
//! All sources of events end here. An event is never believed: late, twice, in another order or forged, it costs a look. The
//! stamp that is sent with what was seen is from before the first look, so that the MDS can tell what it has done itself since
//! then; what it is at just now it names, and that is looked at again a little later.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use sateen_types::limits::{IMPORT_PAGE_BYTES_MAX, IMPORT_PAGE_OBJECTS_MAX, REPOSITORY_MESSAGE_BYTES_MAX};
use sateen_types::repository::{EventsDone, EventsPage, RepositoryId};
use sateen_types::{FsCode, FsError, FsResult};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::pending::{PENDING_MAX, Pending, Taken, Ticket};
use crate::figures::Figures;
use crate::import::PAGE_BYTES_ROOM;
use crate::remote::RemoteError;
use crate::seen::{Seen, cut};

/// Batches of keys that wait to be taken over: a source that is faster waits.
pub const BATCHES_WAITING_MAX: usize = 256;
/// Keys that are looked at together. What one of them has to wait for, all wait for.
const ROUND_KEYS_MAX: usize = IMPORT_PAGE_OBJECTS_MAX;
/// Longest silence towards the MDS, which gives a Watch to somebody else after 60 s; 10 s are allowed.
const BEAT: Duration = Duration::from_secs(5);
/// How long the look at one object goes on trying before others come first.
pub const LOOK_RETRY_FOR: Duration = Duration::from_secs(5);

/// Keys within the prefix of a link, and who waits for them to be answered.
#[derive(Debug)]
pub struct Batch {
    /// To be looked at.
    pub keys: Vec<Vec<u8>>,
    /// Made for as many keys.
    pub ticket: Option<Ticket>,
}

type Answer<T, E> = BoxFuture<'static, Result<T, E>>;
/// Asks or tells somebody.
pub type Ask<A, T, E> = Box<dyn Fn(A) -> Answer<T, E> + Send + Sync>;

/// What may be asked about one link.
pub struct Eyes {
    /// The link.
    pub repository: RepositoryId,
    /// Number of the Watch; 0: of a webhook, which beats not.
    pub number: u64,
    /// Looks under way at a time.
    pub heads: usize,
    /// Tells the MDS.
    pub tell: Ask<EventsPage, EventsDone, FsError>,
    /// Looks at one key.
    pub see: Ask<Vec<u8>, Seen, RemoteError>,
    /// Whether the bucket can be listed: nothing is gone of one that cannot.
    pub sound: Ask<(), (), RemoteError>,
}

/// What was said to the MDS last.
struct Said {
    stamp: Mutex<Option<u64>>,
    at: Mutex<Instant>,
}

/// Looks at what comes until the batches end or the MDS has no use for it: `Stale` if the Watch is not this worker's any more.
/// `trouble` is why the source does not work, empty if it does. `stamp` is the newest of the MDS that is known.
pub async fn run(
    eyes: &Eyes,
    stamp: Option<u64>,
    batches: mpsc::Receiver<Batch>,
    trouble: watch::Receiver<String>,
    figures: &Figures,
) -> FsResult<()> {
    let said = Said { stamp: Mutex::new(stamp), at: Mutex::new(Instant::now()) };
    let (heard, beating) = (trouble.clone(), trouble);
    tokio::select! {
        done = rounds(eyes, &said, batches, heard, figures) => done,
        Err(e) = beats(eyes, &said, beating, figures) => Err(e),
    }
}

impl Said {
    fn stamp(&self) -> Option<u64> {
        *self.stamp.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// It may be what the MDS does not like.
    fn forget(&self) {
        *self.stamp.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    }

    fn last(&self) -> Instant {
        *self.at.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn heard(&self, done: &EventsDone, asked: Instant) {
        // An older one that comes late is as true, if less useful.
        *self.stamp.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(done.stamp);
        *self.at.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = asked;
    }
}

/// Sends something at once, then at least every [`BEAT`], and when the source begins or ceases to work. Never ends well.
async fn beats(
    eyes: &Eyes,
    said: &Said,
    mut trouble: watch::Receiver<String>,
    figures: &Figures,
) -> FsResult<std::convert::Infallible> {
    if eyes.number == 0 {
        return std::future::pending().await;
    }
    loop {
        tell(eyes, said, page(eyes, &trouble), figures).await?;
        loop {
            let silent = said.last() + BEAT;
            tokio::select! {
                () = tokio::time::sleep_until(silent) => {}
                Ok(()) = trouble.changed() => break,
            }
            // Pages of what was seen are signs of life as well.
            if said.last() + BEAT <= Instant::now() {
                break;
            }
        }
    }
}

fn page(eyes: &Eyes, trouble: &watch::Receiver<String>) -> EventsPage {
    EventsPage {
        repository: eyes.repository,
        number: eyes.number,
        stamp: 0,
        objects: Vec::new(),
        gone: Vec::new(),
        message: cut(&trouble.borrow(), REPOSITORY_MESSAGE_BYTES_MAX),
    }
}

async fn tell(eyes: &Eyes, said: &Said, mut page: EventsPage, figures: &Figures) -> FsResult<EventsDone> {
    if page.stamp == 0 {
        page.stamp = said.stamp().unwrap_or(0);
    }
    let asked = Instant::now();
    let done = (eyes.tell)(page).await?;
    said.heard(&done, asked);
    figures.answered(&done);
    Ok(done)
}

/// Looks at what waits, as much at a time as one message to the MDS holds.
async fn rounds(
    eyes: &Eyes,
    said: &Said,
    mut batches: mpsc::Receiver<Batch>,
    trouble: watch::Receiver<String>,
    figures: &Figures,
) -> FsResult<()> {
    let mut pending = Pending::default();
    let mut waiting = figures.waiting();
    let mut open = true;
    loop {
        while let Ok(batch) = batches.try_recv() {
            add(&mut pending, batch);
            if pending.len() >= PENDING_MAX {
                break;
            }
        }
        waiting.set(pending.len(), pending.oldest());
        let now = Instant::now();
        let due = pending.due().map(Instant::from_std);
        if due.is_none_or(|due| due > now) {
            if !open && pending.is_empty() {
                return Ok(());
            }
            tokio::select! {
                batch = batches.recv(), if open && pending.len() < PENDING_MAX => match batch {
                    Some(batch) => add(&mut pending, batch),
                    None => open = false,
                },
                () = tokio::time::sleep_until(due.unwrap_or(now)), if due.is_some() => {}
            }
            continue;
        }
        let taken = pending.take(ROUND_KEYS_MAX, now.into_std());
        for busy in round(eyes, said, taken, &trouble, figures).await? {
            if let Some(given_up) = pending.again(busy, Instant::now().into_std()) {
                figures.given_up.fetch_add(1, Ordering::Relaxed);
                let key = String::from_utf8_lossy(&given_up.key).into_owned();
                tracing::info!(repository = %eyes.repository, key, "left to the next comparison: it could not be looked at, or was busy for long");
            }
        }
    }
}

fn add(pending: &mut Pending, batch: Batch) {
    let now = Instant::now().into_std();
    for key in batch.keys {
        pending.add(key, batch.ticket.clone(), now);
    }
}

/// Looks at the keys and tells what is there. Gives back those that are to be looked at again.
async fn round(
    eyes: &Eyes,
    said: &Said,
    taken: Vec<Taken>,
    trouble: &watch::Receiver<String>,
    figures: &Figures,
) -> FsResult<Vec<Taken>> {
    let stamp = match said.stamp() {
        Some(stamp) => stamp,
        None => tell(eyes, said, page(eyes, trouble), figures).await?.stamp,
    };
    let looks = taken.into_iter().map(|taken| async move { ((eyes.see)(taken.key.clone()).await, taken) });
    let mut looks = futures::stream::iter(looks).buffer_unordered(eyes.heads);
    let (mut again, mut found) = (Vec::new(), Vec::new());
    while let Some((seen, taken)) = looks.next().await {
        match seen {
            Ok(Seen::Skipped(skipped)) => {
                let key = String::from_utf8_lossy(&skipped.key).into_owned();
                tracing::info!(repository = %eyes.repository, key, code = skipped.code, why = skipped.message, "not imported");
                figures.skipped.fetch_add(1, Ordering::Relaxed);
                taken.answered();
            }
            Ok(seen) => found.push((seen, taken)),
            Err(error) => {
                tracing::debug!(repository = %eyes.repository, %error, "an object could not be looked at");
                again.push(taken);
            }
        }
    }
    // A bucket that is gone, or another store that answers in its place, has none of the keys.
    if found.iter().any(|(seen, _)| matches!(seen, Seen::Nothing(_)))
        && let Err(error) = (eyes.sound)(()).await
    {
        tracing::warn!(repository = %eyes.repository, %error, "objects seem to be gone, but the bucket cannot be listed");
        figures.failed(&error);
        let (gone, there) = found.into_iter().partition(|(seen, _)| matches!(seen, Seen::Nothing(_)));
        found = there;
        let gone: Vec<(Seen, Taken)> = gone;
        again.extend(gone.into_iter().map(|(_, taken)| taken));
    }
    found.sort_by(|(a, _), (b, _)| a.key().cmp(b.key()));
    let mut found = found.into_iter().peekable();
    while found.peek().is_some() {
        let mut page = EventsPage { stamp, ..page(eyes, trouble) };
        let (mut told, mut weight) = (Vec::new(), 0);
        while let Some((seen, taken)) = found.next_if(|(seen, _)| {
            weight += seen.weight();
            told.len() < IMPORT_PAGE_OBJECTS_MAX
                && (told.is_empty() || weight <= IMPORT_PAGE_BYTES_MAX - PAGE_BYTES_ROOM)
        }) {
            told.push(taken);
            match seen {
                Seen::Object(object) => page.objects.push(*object),
                Seen::Nothing(key) => page.gone.push(key),
                Seen::Skipped(_) => {}
            }
        }
        match tell(eyes, said, page, figures).await {
            Ok(done) => {
                let later: HashSet<Vec<u8>> = done.later.into_iter().collect();
                for mut taken in told {
                    if later.contains(&taken.key) {
                        taken.told();
                        again.push(taken);
                    } else {
                        taken.answered();
                    }
                }
            }
            // There is no use in the others either.
            Err(e) if matches!(e.code, FsCode::Stale | FsCode::NotFound) => return Err(e),
            Err(error) => {
                tracing::warn!(repository = %eyes.repository, %error, "the MDS did not take what is in the bucket");
                said.forget();
                again.extend(told);
            }
        }
    }
    Ok(again)
}

#[cfg(test)]
mod tests;
