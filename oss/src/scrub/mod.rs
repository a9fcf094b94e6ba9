//! The scrub: reads every stored byte of an OST from its disk again and again, slowly, so that damage is found while
//! other copies of the data still exist.
//!
//! One task per OST. A pass goes through the chunks of each file system in key order; what it finds is logged with the
//! FID and kept in the store's list of damaged chunks. The [`cursor`] is durable: a restart goes on where it was, at
//! most [`SAVE_INTERVAL`] behind.
//!
//! A new OST is first scrubbed when `pause_between_passes_s` have gone by.

pub mod cursor;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use sateen_runtime::{ByteSize, Shutdown};
use sateen_types::FsResult;
use serde::{Deserialize, Serialize};

use crate::ost::Ost;
use crate::store::verify::Step;
use cursor::{Cursor, Position};

/// How much of a pass a crash repeats at most.
const SAVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long the scrub waits after an error of its own before it tries again.
const RETRY: Duration = Duration::from_secs(60);
/// Longest wait between two looks at the clock, which may jump.
const LOOK: Duration = Duration::from_secs(60);

/// `[scrub]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScrubConfig {
    /// Whether OSTs are scrubbed.
    pub enabled: bool,
    /// Bytes read per second and OST, by the scrub and by checks with `--deep`.
    pub bytes_per_second: ByteSize,
    /// Seconds between the end of a pass and the next.
    pub pause_between_passes_s: u64,
}

impl Default for ScrubConfig {
    fn default() -> ScrubConfig {
        ScrubConfig { enabled: true, bytes_per_second: ByteSize(32 << 20), pause_between_passes_s: 24 * 3600 }
    }
}

impl ScrubConfig {
    /// How long reading `bytes` should take.
    pub fn time_for(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.bytes_per_second.0.max(1) as f64)
    }
}

/// The scrub of one OST.
pub struct Scrub {
    ost: Arc<Ost>,
    config: ScrubConfig,
    cursor: Mutex<Cursor>,
}

/// What a step came to.
enum Stepped {
    /// The pass goes on from here.
    On(Position, Step),
    /// All was seen.
    Over,
}

impl Scrub {
    /// Of `ost`; where it was is read from the directory.
    pub fn new(ost: Arc<Ost>, config: ScrubConfig) -> FsResult<Scrub> {
        let cursor = match Cursor::load(ost.dir())? {
            Some(cursor) => cursor,
            None => {
                let fresh = Cursor { last_ended: now(), ..Cursor::default() };
                fresh.store(ost.dir())?;
                fresh
            }
        };
        Ok(Scrub { ost, config, cursor: Mutex::new(cursor) })
    }

    /// The OST.
    pub fn ost(&self) -> &Arc<Ost> {
        &self.ost
    }

    /// Its settings.
    pub fn config(&self) -> &ScrubConfig {
        &self.config
    }

    /// How far it is.
    pub fn cursor(&self) -> Cursor {
        *self.cursor.lock()
    }

    /// Scrubs until `stop`.
    pub async fn run(self: Arc<Scrub>, stop: Shutdown) {
        if !self.config.enabled {
            return;
        }
        let mut saved = Instant::now();
        while !stop.is_requested() {
            let pause = match self.wait() {
                Some(wait) => wait.min(LOOK),
                None => match self.clone().step().await {
                    Ok(pause) => pause,
                    Err(error) => {
                        tracing::warn!(dir = %self.ost.dir().display(), %error, "the scrub cannot go on now");
                        RETRY
                    }
                },
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.requested() => {}
            }
            if saved.elapsed() >= SAVE_INTERVAL || stop.is_requested() {
                self.clone().save().await;
                saved = Instant::now();
            }
        }
    }

    /// How long until the next pass; `None` if one runs or is due. Starts it.
    fn wait(&self) -> Option<Duration> {
        let mut cursor = self.cursor.lock();
        if cursor.position.is_some() {
            return None;
        }
        let now = now();
        // A clock that went back does not put the next pass off.
        let due = cursor.last_ended.min(now) + self.config.pause_between_passes_s;
        if now < due {
            return Some(Duration::from_secs(due - now));
        }
        let Some(fs) = self.ost.file_systems().first().copied() else { return Some(LOOK) };
        let (passes, last_ended) = (cursor.passes, cursor.last_ended);
        *cursor = Cursor { passes, last_ended, position: Some(Position { fs, after: None }), ..Cursor::default() };
        tracing::info!(dir = %self.ost.dir().display(), pass = passes + 1, "a scrub begins");
        None
    }

    /// Verifies some chunks; how long to rest from it.
    async fn step(self: Arc<Scrub>) -> FsResult<Duration> {
        let Some(position) = self.cursor().position else { return Ok(Duration::ZERO) };
        let ost = self.ost.clone();
        let stepped = tokio::task::spawn_blocking(move || step(&ost, position)).await;
        // The runtime is going down; a panic has ended the process already.
        let Ok(stepped) = stepped else { return Ok(LOOK) };
        match stepped? {
            Stepped::On(position, step) => {
                let mut cursor = self.cursor.lock();
                cursor.position = Some(position);
                cursor.bytes += step.bytes;
                cursor.chunks += step.chunks;
                cursor.damaged += step.damaged;
                Ok(self.config.time_for(step.bytes))
            }
            Stepped::Over => {
                let ended = {
                    let mut cursor = self.cursor.lock();
                    cursor.passes += 1;
                    cursor.last_ended = now();
                    cursor.position = None;
                    *cursor
                };
                tracing::info!(
                    dir = %self.ost.dir().display(), pass = ended.passes, chunks = ended.chunks, bytes = ended.bytes,
                    damaged = ended.damaged, "a scrub has ended"
                );
                self.save().await;
                Ok(Duration::ZERO)
            }
        }
    }

    async fn save(self: Arc<Scrub>) {
        let saving = tokio::task::spawn_blocking(move || {
            let cursor = self.cursor();
            if let Err(error) = cursor.store(self.ost.dir()) {
                tracing::warn!(%error, "cannot write down how far the scrub is");
            }
        });
        let _ = saving.await;
    }
}

/// Verifies the next chunks at `position`.
fn step(ost: &Ost, position: Position) -> FsResult<Stepped> {
    // A file system that was removed meanwhile has nothing left to look at.
    if let Ok(Some(store)) = ost.store(position.fs) {
        let step = store.scrub(position.after)?;
        if step.last.is_some() {
            return Ok(Stepped::On(Position { after: step.last, ..position }, step));
        }
    }
    let next = ost.file_systems().into_iter().find(|fs| *fs > position.fs);
    Ok(match next {
        Some(fs) => Stepped::On(Position { fs, after: None }, Step::default()),
        None => Stepped::Over,
    })
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
