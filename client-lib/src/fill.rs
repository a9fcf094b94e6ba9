//! How a worker stores a fetched range of a released file: straight to the OSTs, sealed like any full chunk, and committed.
//!
//! The range is the worker's alone until it has told the MDS: nobody reads or writes there, so neither capabilities nor
//! caches nor size and times of the file are touched. What must never happen is a write that arrives when the range has gone to
//! somebody else. So every write is made in the session in which the range was given, an expired one being shut out at the
//! OSTs first; a write under way runs to its end in a task of its own, whatever becomes of its [`Fill`]; it is repeated until its
//! fate is known, however long that takes; and [`Client::finish`] waits for all of them, as does whoever begins with the same range
//! again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use futures::future::try_join_all;
use parking_lot::Mutex;
use sateen_proto::convert;
use sateen_types::limits::BLOCK_BYTES;
use sateen_types::repository::Fetch;
use sateen_types::{Extent, Fid, FsCode, FsError, FsResult, OstIndex, Verifier};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::budget::Share;
use crate::client::Client;
use crate::inner::Inner;
use crate::plan::{self, Batch, Place, Span};
use crate::repository::Shift;
use crate::retry::Backoff;
use crate::seal::{self, Outlook, Sealed};
use crate::session::ended;
use crate::write;

/// Requests of one range under way. Each carries [`crate::Options::bulk_bytes`].
const WRITES_MAX: usize = 4;
/// Commit, find another verifier, write again: how often before giving up.
const COMMIT_ROUNDS_MAX: u32 = 8;

/// A range that is being stored. See the module.
#[derive(Debug)]
pub struct Fill {
    inner: Arc<Inner>,
    shift: Shift,
    number: u64,
    fid: Fid,
    range: Extent,
    /// The range in chunks, each with its place, in order; those from `at` on are still to come.
    chunks: Vec<(Span, Place)>,
    at: usize,
    /// Bytes of the chunk `at`.
    gathered: BytesMut,
    /// Whole chunks that wait to be sent.
    ready: Vec<(Place, Chunk)>,
    sending: Vec<JoinHandle<FsResult<Stored>>>,
    stored: Vec<Stored>,
    outlook: Arc<Outlook>,
    _share: Share,
}

/// The bytes of one chunk, and whether they are all of it.
#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    whole: bool,
}

/// A write that was answered, as it was sent: kept until it is durable.
#[derive(Debug)]
struct Stored {
    place: Place,
    parts: Vec<Sealed>,
    verifier: Verifier,
    answer: u64,
    allocated: i64,
}

impl Client {
    /// Begins to store what was fetched for the assignment `number`, taken in `shift`. Waits until
    /// [`crate::Options::dirty_bytes_max`] has room for it.
    pub async fn fill(&self, shift: Shift, number: u64, fetch: &Fetch) -> FsResult<Fill> {
        let (inner, range, fid) = (&self.inner, fetch.range, fetch.fid);
        let spans = plan::spans(&fetch.layout, range.start, range.end - range.start)?;
        let fs = inner.session.facts.fs_id;
        let placed = spans.into_iter().map(|span| {
            let place = plan::place(&fetch.layout, fs, fid, span.chunk)?;
            let ends = span.to == span.chunk_len || span.chunk + u64::from(span.to) == range.end;
            match place.filter(|_| span.from == 0 && ends) {
                Some(place) => Ok((span, place)),
                None => {
                    Err(convert::bad("range", format_args!("byte {} of {fid} has no place of its own", span.chunk)))
                }
            }
        });
        let chunks = placed.collect::<FsResult<Vec<_>>>()?;
        // It may have been given up here, and given to this worker again under another number.
        inner.filling.ended(|write| write.fid == fid && write.range.overlaps(range.start, range.end)).await;
        let share = inner.budget.reserve((range.end - range.start).min(inner.options.dirty_bytes_max)).await;
        Ok(Fill {
            inner: Arc::clone(inner),
            shift,
            number,
            fid,
            range,
            chunks,
            at: 0,
            gathered: BytesMut::new(),
            ready: Vec::new(),
            sending: Vec::new(),
            stored: Vec::new(),
            outlook: Arc::default(),
            _share: share,
        })
    }
}

impl Fill {
    /// The next bytes of the range. Waits while too much is under way. After an error nothing more can be stored.
    pub async fn write(&mut self, mut bytes: Bytes) -> FsResult<()> {
        while !bytes.is_empty() {
            let Some((span, place)) = self.chunks.get(self.at).copied() else {
                let what = format!("[{}, {}) of {}: more was fetched", self.range.start, self.range.end, self.fid);
                return Err(FsError::new(FsCode::Invalid, what));
            };
            let wanted = span.to as usize - self.gathered.len();
            let piece = bytes.split_to(wanted.min(bytes.len()));
            if piece.len() < wanted {
                self.gathered.reserve(wanted);
                self.gathered.extend_from_slice(&piece);
                break;
            }
            let whole = if self.gathered.is_empty() {
                piece
            } else {
                self.gathered.extend_from_slice(&piece);
                self.gathered.split().freeze()
            };
            self.at += 1;
            self.ready.push((place, Chunk { bytes: whole, whole: span.to == span.chunk_len }));
            let ready: usize = self.ready.iter().map(|(_, chunk)| chunk.bytes.len()).sum();
            if ready >= self.inner.options.bulk_bytes {
                self.send().await?;
            }
        }
        Ok(())
    }

    /// Everything was given: waits until it is stored, and gives the verifier of each OST that has a part of it. `None` if one of
    /// them was restarted meanwhile.
    pub async fn stored(&mut self) -> FsResult<Option<Vec<(OstIndex, Verifier)>>> {
        if self.at < self.chunks.len() {
            let what = format!("[{}, {}) of {}: less was fetched", self.range.start, self.range.end, self.fid);
            return Err(FsError::new(FsCode::Invalid, what));
        }
        self.send().await?;
        while !self.sending.is_empty() {
            self.collect_one().await?;
        }
        let mut verifiers = BTreeMap::new();
        let same = |stored: &Stored| *verifiers.entry(stored.place.ost).or_insert(stored.verifier) == stored.verifier;
        let all_same = self.stored.iter().all(same);
        Ok(all_same.then(|| verifiers.into_iter().collect()))
    }

    /// Everything was given: waits until it is durable, and gives the change of the disk space in bytes.
    pub async fn finish(mut self) -> FsResult<i64> {
        self.stored().await?;
        let allocated = self.stored.iter().map(|stored| stored.allocated).sum();
        for _ in 0..COMMIT_ROUNDS_MAX {
            if self.commit().await? {
                return Ok(allocated);
            }
        }
        let what = format!("the OSTs of {} were restarted {COMMIT_ROUNDS_MAX} times during one commit", self.fid);
        Err(FsError::new(FsCode::Io, what))
    }

    /// Begins to send what is ready.
    async fn send(&mut self) -> FsResult<()> {
        let batches = plan::batches(std::mem::take(&mut self.ready), self.inner.options.bulk_bytes, false);
        for batch in batches {
            while self.sending.len() >= WRITES_MAX {
                self.collect_one().await?;
            }
            let (inner, shift, outlook) = (Arc::clone(&self.inner), self.shift, Arc::clone(&self.outlook));
            let under_way = self.begin();
            let work = async move {
                let _under_way = under_way;
                let (place, parts) = seal_batch(&inner, batch, outlook).await;
                store(&inner, shift, place, parts).await
            };
            self.sending.push(self.inner.tasks.spawn_on(work, &self.inner.runtime));
        }
        Ok(())
    }

    /// A write is about to be made.
    fn begin(&self) -> UnderWay {
        self.inner.filling.begin(Write { number: self.number, fid: self.fid, range: self.range })
    }

    /// Waits for the oldest request under way.
    async fn collect_one(&mut self) -> FsResult<()> {
        let joined = self.sending.remove(0).await;
        let stored = joined.map_err(|e| FsError::new(FsCode::Internal, format!("a background write failed: {e}")))?;
        self.stored.push(stored?);
        Ok(())
    }

    /// Commits what is not durable yet. What an OST has lost is written again: `false`.
    async fn commit(&mut self) -> FsResult<bool> {
        let mut needed: BTreeMap<OstIndex, u64> = BTreeMap::new();
        for stored in &self.stored {
            let last = needed.entry(stored.place.ost).or_default();
            *last = stored.answer.max(*last);
        }
        let (inner, shift, fs) = (&self.inner, self.shift, self.inner.session.facts.fs_id);
        let commits = needed.into_iter().map(|(ost, needed)| async move {
            let commit = || inner.committer.commit(&inner.osts, fs, ost, needed);
            FsResult::Ok((ost, persist(inner, shift, commit).await?))
        });
        let committed: BTreeMap<_, _> = try_join_all(commits).await?.into_iter().collect();
        let durable = |stored: &Stored| committed.get(&stored.place.ost).is_some_and(|c| c.verifier == stored.verifier);
        let lost: Vec<Stored> = self.stored.extract_if(.., |stored| !durable(stored)).collect();
        self.stored.clear();
        if lost.is_empty() {
            return Ok(true);
        }
        tracing::warn!(fid = %self.fid, writes = lost.len(), "an OST was restarted; storing what was fetched again");
        for Stored { place, parts, .. } in lost {
            let (inner, under_way) = (Arc::clone(&self.inner), self.begin());
            let work = async move {
                let _under_way = under_way;
                store(&inner, shift, place, parts).await
            };
            self.sending.push(self.inner.tasks.spawn_on(work, &self.inner.runtime));
        }
        while !self.sending.is_empty() {
            self.collect_one().await?;
        }
        Ok(false)
    }
}

async fn seal_batch(inner: &Arc<Inner>, batch: Batch<Chunk>, outlook: Arc<Outlook>) -> (Place, Vec<Sealed>) {
    let Batch { ost, object, chunk_log2, items } = batch;
    let compression = inner.session.facts.compression;
    let seal_one = move |(at, chunk): (u64, Chunk)| match chunk.whole {
        true => seal::seal(at, &chunk.bytes, compression, &outlook),
        // The end of the object: the store fills up the chunk.
        false => seal::plain(at, chunk.bytes),
    };
    let parts = inner.compute(move || items.into_iter().map(seal_one).collect()).await;
    (Place { ost, object, chunk_log2, offset: 0 }, parts)
}

/// One Write, until its fate is known.
async fn store(inner: &Arc<Inner>, shift: Shift, place: Place, parts: Vec<Sealed>) -> FsResult<Stored> {
    let (request, payload) = write::request(inner, place, parts.iter());
    let reply = persist(inner, shift, || inner.osts.write(place.ost, &request, &payload, shift.0)).await?;
    let answer = inner.committer.count_answer();
    // A worker that died may have stored the same before and not told: the OST counts no change then, but the MDS has counted
    // none either.
    let taken = |sealed: &&Sealed| sealed.part.sealed;
    let blocks = |sealed: &Sealed| i64::from(sealed.part.stored_len.next_multiple_of(BLOCK_BYTES));
    let whole: i64 = parts.iter().filter(taken).map(blocks).sum();
    let allocated = reply.allocated_delta.max(whole);
    Ok(Stored { place, parts, verifier: convert::verifier(&reply.verifier)?, answer, allocated })
}

/// Repeats a request to an OST while it does not answer and the session lasts.
async fn persist<T, F, Fut>(inner: &Arc<Inner>, shift: Shift, request: F) -> FsResult<T>
where
    F: Fn() -> Fut,
    Fut: Future<Output = FsResult<T>>,
{
    let mut backoff = Backoff::new(None, &inner.session.stop);
    loop {
        if inner.session.incarnation().writer != shift.0 {
            return Err(ended());
        }
        match request().await {
            Err(e) if e.code.is_retryable() => {
                if !backoff.pause().await {
                    return Err(e);
                }
            }
            Err(e) if e.code == FsCode::Stale => return Err(ended()),
            done => return done,
        }
    }
}

/// Writes of fetched ranges that are under way, each under a number of its own.
#[derive(Debug, Default)]
pub(crate) struct Filling {
    writes: Mutex<HashMap<u64, Write>>,
    last: AtomicU64,
    ended: Notify,
}

/// A write, of which assignment and for which range.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub number: u64,
    pub fid: Fid,
    pub range: Extent,
}

/// A write under way; over when dropped.
struct UnderWay(Arc<Filling>, u64);

impl Filling {
    fn begin(self: &Arc<Filling>, write: Write) -> UnderWay {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        self.writes.lock().insert(number, write);
        UnderWay(Arc::clone(self), number)
    }

    /// Waits until none of `these` writes is under way.
    pub async fn ended(&self, these: impl Fn(&Write) -> bool) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if !self.writes.lock().values().any(&these) {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.writes.lock().remove(&self.1);
        self.0.ended.notify_waiters();
    }
}
