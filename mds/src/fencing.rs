//! Fencing: a session that has expired is shut out at the OSTs before others are given what it held.
//!
//! ```text
//! silent for its lease -> ending: nothing of it is answered any more (Stale)
//!   -> its writer is among those that have ended, durably
//!   -> every OST that is up refuses its writer
//!   -> the session ends: capabilities, locks and open files go to others
//! ```
//!
//! A client that was cut off or stood still may wake at any time and send what it had gathered. The record comes before the
//! calls, so whatever is restarted in between learns of it: an OSS with the answer to its registration, before it serves
//! anything; and the MDS finds the session and the record and begins at "ending". As long as an OST says that it lives, it is
//! asked until it confirms: clients reach it, so what the session held waits. One that falls silent is down and has to
//! register. What is left is an OST that clients reach while neither its heartbeats reach the MDS nor the MDS's calls reach it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use sateen_types::limits::ENDED_WRITERS_MAX;
use sateen_types::{FsCode, FsError, FsResult, SessionId, Timestamp};

use crate::clients::Ending;
use crate::cluster::Cluster;
use crate::fs::FileSystem;

/// How long a writer is remembered that has ended: longer than a client stands still and wakes, and an OSS is restarted
/// meanwhile. One that does wakes with a clock that says so, and asks the MDS before it writes.
const KEPT_SECONDS: i64 = 24 * 3600;
/// How often it is said that an OST lives and does not confirm.
const COMPLAINT: Duration = Duration::from_secs(20);
/// How long OSTs have to confirm several writers at a time.
const TOGETHER: Duration = Duration::from_secs(5);
/// Longest that opening a session waits for the end of the one that it follows.
const FOLLOW_WAIT: Duration = Duration::from_secs(5);
/// Pause before an OST is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// Writers whose sessions have expired, as they are on disk. Sans-IO: what changes is decided by [`EndedWriters::plan`],
/// made durable elsewhere, and then taken in.
#[derive(Debug, Default)]
pub struct EndedWriters {
    since: HashMap<u64, Timestamp>,
    by_age: BTreeSet<(Timestamp, u64)>,
}

/// What becomes of the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// New ones.
    pub add: Vec<u64>,
    /// When they ended.
    pub at: Timestamp,
    /// Those that need not be kept any longer.
    pub forget: Vec<u64>,
}

impl EndedWriters {
    /// As read from disk.
    pub fn new(rows: impl IntoIterator<Item = (u64, Timestamp)>) -> EndedWriters {
        let since: HashMap<_, _> = rows.into_iter().collect();
        EndedWriters { by_age: since.iter().map(|(writer, at)| (*at, *writer)).collect(), since }
    }

    /// What changes when these end now.
    pub fn plan(&self, writers: &[u64], now: Timestamp) -> Change {
        let add: Vec<u64> = writers.iter().copied().filter(|w| !self.contains(*w)).collect();
        let too_many = (self.since.len() + add.len()).saturating_sub(ENDED_WRITERS_MAX);
        let is_old = |at: &Timestamp| now.seconds.saturating_sub(at.seconds) > KEPT_SECONDS;
        let gone = self.by_age.iter().enumerate().take_while(|(n, (at, _))| *n < too_many || is_old(at));
        let forget = gone.map(|(_, (_, writer))| *writer).filter(|w| !writers.contains(w)).collect();
        Change { add, at: now, forget }
    }

    /// The change is durable.
    pub fn apply(&mut self, change: &Change) {
        for writer in &change.forget {
            if let Some(at) = self.since.remove(writer) {
                self.by_age.remove(&(at, *writer));
            }
        }
        for writer in &change.add {
            self.since.insert(*writer, change.at);
            self.by_age.insert((change.at, *writer));
        }
    }

    /// Whether the writer has ended.
    pub fn contains(&self, writer: u64) -> bool {
        self.since.contains_key(&writer)
    }

    /// All of them, oldest first.
    pub fn list(&self) -> Vec<u64> {
        self.by_age.iter().map(|(_, writer)| *writer).collect()
    }
}

/// Ends sessions that fell silent ([`FileSystem::begin_ending`]). May be repeated whatever became of it before.
pub async fn end_expired(cluster: &Cluster, fs: &FileSystem, ending: Vec<Ending>) -> FsResult<()> {
    for (session, client) in ending.iter().map(|e| (e.session, &e.name)) {
        tracing::warn!(fs = %fs.info.name, %session, client, "a client was silent for longer than its lease: its session ends");
    }
    end(cluster, fs, &ending).await
}

/// Ends a session for the one that its client opens in its place, so that the client is no stranger to itself. Whoever
/// names the session may do that: its id is a random 128-bit number that only its client was told. If it does not end within
/// [`FOLLOW_WAIT`] it goes on ending, and the client asks again.
pub async fn end_followed(cluster: &Arc<Cluster>, fs: &Arc<FileSystem>, session: SessionId) -> FsResult<()> {
    let Some(ending) = fs.begin_ending_of(session) else { return Ok(()) };
    tracing::info!(fs = %fs.info.name, %session, client = ending.name, "a client opens a session in place of another");
    let (cluster, fs) = (Arc::clone(cluster), Arc::clone(fs));
    // To its end, also if the client goes away: half-way nobody would know of the session any more.
    let ended = tokio::spawn(async move {
        while cluster.registry.read().is_gathering(Instant::now()) {
            // An OST that is not known to be up yet could not be told.
            tokio::time::sleep(PAUSE).await;
        }
        end(&cluster, &fs, &[ending]).await
    });
    match tokio::time::timeout(FOLLOW_WAIT, ended).await {
        Ok(ended) => ended.map_err(|e| FsError::new(FsCode::Internal, format!("the end of {session} failed: {e}")))?,
        Err(_) => {
            let what = format!("follows: session {session} is not shut out at every OST yet");
            Err(FsError::new(FsCode::Unavailable, what)
                .with_hint("ask again; see which OSTs do not answer: sateen status"))
        }
    }
}

/// All together, or each on its own if some OST does not confirm all of them soon: it may wait for a disk on which one of them
/// writes.
async fn end(cluster: &Cluster, fs: &FileSystem, ending: &[Ending]) -> FsResult<()> {
    let writers: Vec<u64> = ending.iter().map(|e| e.writer).filter(|w| *w != 0).collect();
    if !writers.is_empty() {
        cluster.record_ended(&writers).await?;
    }
    if tokio::time::timeout(TOGETHER, shut_out(cluster, &writers)).await.is_ok() {
        return close(fs, ending).await;
    }
    let each = ending.iter().map(async |one| {
        shut_out(cluster, Some(one.writer).filter(|w| *w != 0).as_slice()).await;
        close(fs, std::slice::from_ref(one)).await
    });
    join_all(each).await.into_iter().collect()
}

async fn close(fs: &FileSystem, ending: &[Ending]) -> FsResult<()> {
    for ending in ending {
        fs.close_session(ending.session).await?;
    }
    Ok(())
}

/// Has every OST that says that it lives refuse these writers.
async fn shut_out(cluster: &Cluster, writers: &[u64]) {
    if writers.is_empty() {
        return;
    }
    let addresses = cluster.registry.read().addresses();
    join_all(addresses.iter().map(|address| shut_out_at(cluster, address, writers))).await;
}

/// Asks until there is an answer or the OSTs there are silent: then they register before they count again.
async fn shut_out_at(cluster: &Cluster, address: &str, writers: &[u64]) {
    let mut said = Instant::now();
    loop {
        let Err(error) = cluster.oss.fence(address, writers).await else { return };
        if !cluster.registry.read().is_heard_at(address, Instant::now()) {
            tracing::info!(address, "an OST that is down will hear of ended sessions when it registers");
            return;
        }
        if said.elapsed() >= COMPLAINT {
            tracing::error!(address, %error, "an OSS lives and does not confirm that ended sessions are shut out; what \
                their clients held waits for it");
            said = Instant::now();
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    fn add(ended: &mut EndedWriters, writers: &[u64], now: Timestamp) -> Change {
        let change = ended.plan(writers, now);
        ended.apply(&change);
        change
    }

    #[test]
    fn a_writer_is_kept_for_a_day_and_said_oldest_first() {
        let mut ended = EndedWriters::new([(5, at(100)), (3, at(50))]);
        assert_eq!(add(&mut ended, &[9, 5], at(200)), Change { add: vec![9], at: at(200), forget: vec![] });
        assert_eq!(ended.list(), [3, 5, 9]);
        let change = add(&mut ended, &[1], at(50 + KEPT_SECONDS + 1));
        assert_eq!((change.forget, ended.list()), (vec![3], vec![5, 9, 1]));
    }

    #[test]
    fn of_too_many_the_oldest_are_forgotten_but_none_of_those_that_end_now() {
        let all = ENDED_WRITERS_MAX as u64;
        let mut ended = EndedWriters::new((1..=all).map(|writer| (writer, at(writer as i64))));
        let change = add(&mut ended, &[1, all + 1, all + 2], at(all as i64));
        assert_eq!((change.add, change.forget), (vec![all + 1, all + 2], vec![2]));
        assert!(ended.contains(1) && ended.contains(all + 2) && !ended.contains(2));
        let change = add(&mut ended, &[all + 3], at(all as i64));
        assert_eq!((change.forget, ended.list().len()), (vec![1, 3], ENDED_WRITERS_MAX));
    }
}
