//! Hands the intents of one file system to its OSTs: one drain per OST that has any, truncates before destroys, so that
//! no truncate of a file is sent after its destroy. An OST that does not answer is asked again for ever.

use std::collections::HashSet;
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

/// Runs until the file system is gone or the server stops.
pub async fn run(cluster: Arc<Cluster>, fs: Weak<FileSystem>, stop: Shutdown) {
    let mut drains: JoinSet<OstIndex> = JoinSet::new();
    let mut running: HashSet<OstIndex> = HashSet::new();
    loop {
        let Some(alive) = fs.upgrade() else { return };
        let osts: Vec<OstIndex> = cluster.registry.read().candidates().iter().map(|c| c.index).collect();
        let idle: Vec<OstIndex> = osts.into_iter().filter(|o| !running.contains(o)).collect();
        match alive.read(move |tx| with_intents(tx, idle)).await {
            Ok(busy) => {
                for ost in busy {
                    running.insert(ost);
                    drains.spawn(drain(cluster.clone(), fs.clone(), ost, stop.clone()));
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
                if let Ok(ost) = done {
                    running.remove(&ost);
                }
            }
        }
    }
}

fn with_intents(tx: &dyn ReadTxn, osts: Vec<OstIndex>) -> FsResult<Vec<OstIndex>> {
    let mut busy = Vec::new();
    for ost in osts {
        let mut any = false;
        for kind in [IntentKind::Truncate, IntentKind::Destroy] {
            any |= !tx.scan(Table::Intents, &keys::intents_of_ost(kind, ost), None, 1)?.is_empty();
        }
        if any {
            busy.push(ost);
        }
    }
    Ok(busy)
}

/// Works off the intents of one OST until none is left.
async fn drain(cluster: Arc<Cluster>, fs: Weak<FileSystem>, ost: OstIndex, stop: Shutdown) -> OstIndex {
    let mut backoff = Backoff::new();
    let mut complained = false;
    while let Some(alive) = fs.upgrade() {
        let wait = match round(&cluster, &alive, ost).await {
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
    ost
}

/// One batch; true if there was none.
async fn round(cluster: &Cluster, fs: &FileSystem, ost: OstIndex) -> FsResult<bool> {
    let truncates = next(fs, IntentKind::Truncate, ost, TRUNCATES_PER_ROUND).await?;
    if !truncates.is_empty() {
        return truncate(cluster, fs, ost, truncates).await.map(|()| false);
    }
    let destroys = next(fs, IntentKind::Destroy, ost, DESTROYS_PER_ROUND).await?;
    if !destroys.is_empty() {
        return destroy(cluster, fs, ost, destroys).await.map(|()| false);
    }
    Ok(true)
}

async fn next(fs: &FileSystem, kind: IntentKind, ost: OstIndex, limit: usize) -> FsResult<Vec<Row>> {
    fs.read(move |tx| tx.scan(Table::Intents, &keys::intents_of_ost(kind, ost), None, limit)).await
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
