//! Hands the intents of one file system to its OSTs: one drain per OST that has any, truncates before destroys, so that
//! no truncate of a file is sent after its destroy. An OST that does not answer is asked again for ever.
//!
//! Numbers of intents only rise and each OST's are worked off in order, so a [`Position`] remembers what is done: reading
//! the queue from its start would walk over everything RocksDB has deleted but not compacted yet.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use sateen_runtime::Shutdown;
use sateen_types::{FsCode, FsError, FsResult, ObjectId, OstIndex};
use tokio::task::JoinSet;

use super::backoff::Backoff;
use crate::cluster::Cluster;
use crate::command::Command;
use crate::fs::FileSystem;
use crate::store::codec::Record;
use crate::store::keys::{IntentId, IntentKind};
use crate::store::records::{DestroyIntent, TruncateIntent};
use crate::store::{ReadTxn, Row, Table, keys};

/// Truncate intents taken at once.
const TRUNCATES_PER_ROUND: usize = 64;
/// Truncate calls to one OST at once.
const TRUNCATES_IN_FLIGHT: usize = 8;
/// Destroy intents taken at once. With [`OBJECTS_PER_CALL`] it bounds how long a truncate waits behind destroys.
const DESTROYS_PER_ROUND: usize = 1024;
/// Objects in one Destroy (bound of the protocol).
const OBJECTS_PER_CALL: usize = 1024;
/// Looks again even if nobody said that there is something new.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Keys of the last intents of one OST that are done.
#[derive(Clone, Debug)]
struct Position {
    ost: OstIndex,
    truncates: Option<Vec<u8>>,
    destroys: Option<Vec<u8>>,
}

impl Position {
    fn start(ost: OstIndex) -> Position {
        Position { ost, truncates: None, destroys: None }
    }

    fn of(&mut self, kind: IntentKind) -> &mut Option<Vec<u8>> {
        match kind {
            IntentKind::Truncate => &mut self.truncates,
            IntentKind::Destroy => &mut self.destroys,
        }
    }
}

/// Runs until the file system is gone or the server stops.
pub async fn run(cluster: Arc<Cluster>, fs: Weak<FileSystem>, stop: Shutdown) {
    let mut drains: JoinSet<Position> = JoinSet::new();
    let mut idle: HashMap<OstIndex, Position> = HashMap::new();
    let mut known: HashSet<OstIndex> = HashSet::new();
    loop {
        let Some(alive) = fs.upgrade() else { return };
        for candidate in cluster.registry.read().candidates().iter() {
            if known.insert(candidate.index) {
                idle.insert(candidate.index, Position::start(candidate.index));
            }
        }
        let look = idle.values().cloned().collect();
        match alive.read(move |tx| with_intents(tx, look)).await {
            Ok(busy) => {
                for ost in busy {
                    if let Some(position) = idle.remove(&ost) {
                        drains.spawn(drain(cluster.clone(), fs.clone(), position, stop.clone()));
                    }
                }
            }
            Err(e) => tracing::error!(fs = %alive.info.name, "cannot read intents: {e}"),
        }
        let wake = tokio::time::timeout(LOOK_AGAIN, alive.intents_added());
        drop(alive);
        tokio::select! {
            () = stop.requested() => return,
            _ = wake => {}
            Some(done) = drains.join_next() => {
                if let Ok(position) = done {
                    idle.insert(position.ost, position);
                }
            }
        }
    }
}

fn with_intents(tx: &dyn ReadTxn, positions: Vec<Position>) -> FsResult<Vec<OstIndex>> {
    let mut busy = Vec::new();
    for mut position in positions {
        let mut any = false;
        for kind in [IntentKind::Truncate, IntentKind::Destroy] {
            let prefix = keys::intents_of_ost(kind, position.ost);
            any |= !tx.scan(Table::Intents, &prefix, position.of(kind).as_deref(), 1)?.is_empty();
        }
        if any {
            busy.push(position.ost);
        }
    }
    Ok(busy)
}

/// Works off the intents of one OST until none is left.
async fn drain(cluster: Arc<Cluster>, fs: Weak<FileSystem>, mut position: Position, stop: Shutdown) -> Position {
    let ost = position.ost;
    let mut backoff = Backoff::new();
    let mut complained = false;
    while let Some(alive) = fs.upgrade() {
        let wait = match round(&cluster, &alive, &mut position).await {
            Ok(true) => break,
            Ok(false) => {
                backoff.reset();
                complained = false;
                continue;
            }
            Err(e) => {
                if !complained {
                    tracing::warn!(fs = %alive.info.name, %ost, "an OST cannot be told to cut or destroy objects: {e}; trying on");
                    complained = true;
                }
                backoff.wait(rand::random())
            }
        };
        drop(alive);
        tokio::select! {
            () = stop.requested() => break,
            () = tokio::time::sleep(wait) => {}
        }
    }
    position
}

/// One batch; true if there was none.
async fn round(cluster: &Cluster, fs: &FileSystem, position: &mut Position) -> FsResult<bool> {
    let ost = position.ost;
    for (kind, limit) in [(IntentKind::Truncate, TRUNCATES_PER_ROUND), (IntentKind::Destroy, DESTROYS_PER_ROUND)] {
        let after = position.of(kind).clone();
        let rows = fs
            .read(move |tx| tx.scan(Table::Intents, &keys::intents_of_ost(kind, ost), after.as_deref(), limit))
            .await?;
        let Some((last, _)) = rows.last().cloned() else { continue };
        match kind {
            IntentKind::Truncate => truncate(cluster, fs, ost, rows).await?,
            IntentKind::Destroy => destroy(cluster, fs, ost, rows).await?,
        }
        *position.of(kind) = Some(last);
        return Ok(false);
    }
    Ok(true)
}

fn address_of(cluster: &Cluster, ost: OstIndex) -> FsResult<String> {
    cluster.registry.read().address(ost).ok_or_else(|| FsError::new(FsCode::Unavailable, format!("OST {ost} is down")))
}

/// Cuts objects, several at once. What was done is recorded even if some failed.
async fn truncate(cluster: &Cluster, fs: &FileSystem, ost: OstIndex, rows: Vec<Row>) -> FsResult<()> {
    let address = address_of(cluster, ost)?;
    let intents = rows
        .iter()
        .map(|(key, value)| Ok((keys::parse_intent(key)?, TruncateIntent::from_bytes(value)?)))
        .collect::<FsResult<Vec<_>>>()?;
    let results: Vec<_> = stream::iter(intents)
        .map(|(id, intent)| {
            let address = address.as_str();
            async move { (id, truncate_file(cluster, fs, address, ost, intent).await) }
        })
        .buffer_unordered(TRUNCATES_IN_FLIGHT)
        .collect()
        .await;
    let mut done = Vec::new();
    let mut failed = Ok(());
    for (id, result) in results {
        match result {
            Ok(delta) => done.push((id, delta)),
            Err(e) => failed = Err(e),
        }
    }
    finish(fs, done).await?;
    failed
}

async fn truncate_file(
    cluster: &Cluster,
    fs: &FileSystem,
    address: &str,
    ost: OstIndex,
    intent: TruncateIntent,
) -> FsResult<i64> {
    let mut delta = 0i64;
    for o in intent.objects {
        let object = ObjectId { fs: fs.info.id, fid: intent.fid, component: o.component, stripe: o.stripe };
        delta = delta.saturating_add(cluster.oss.truncate(address, ost, object, o.chunk_log2, o.size).await?);
    }
    Ok(delta)
}

async fn destroy(cluster: &Cluster, fs: &FileSystem, ost: OstIndex, rows: Vec<Row>) -> FsResult<()> {
    let address = address_of(cluster, ost)?;
    let mut ids: Vec<IntentId> = Vec::new();
    let mut objects: Vec<ObjectId> = Vec::new();
    for (key, value) in &rows {
        let intent = DestroyIntent::from_bytes(value)?;
        ids.push(keys::parse_intent(key)?);
        objects.extend(intent.objects.iter().map(|(component, stripe)| ObjectId {
            fs: fs.info.id,
            fid: intent.fid,
            component: *component,
            stripe: *stripe,
        }));
    }
    for call in objects.chunks(OBJECTS_PER_CALL) {
        cluster.oss.destroy(&address, ost, call.to_vec()).await?;
    }
    finish(fs, ids.into_iter().map(|id| (id, 0)).collect()).await
}

async fn finish(fs: &FileSystem, done: Vec<(IntentId, i64)>) -> FsResult<()> {
    if done.is_empty() {
        return Ok(());
    }
    fs.submit(Command::IntentsDone { done }).await.map(drop)
}
