//! Writing: into the cache, and from there to the OSTs.
//!
//! Whatever is under way runs in tasks of its own, so that a caller who goes away changes nothing: every chunk that
//! leaves `dirty` ends up unstable or is reported as lost.

use std::sync::Arc;

use futures::future::join_all;
use sateen_proto::{convert, oss};
use sateen_types::op::{Mutation, MutationReply};
use sateen_types::{Credential, FsCode, FsError, FsResult, Layout, Payload};

use crate::budget::{Share, UNIT_BYTES};
use crate::dirty::Outgoing;
use crate::inner::Inner;
use crate::inode::{Inode, Purpose, Which};
use crate::loads::How;
use crate::plan::{self, Batch, Place};
use crate::seal::{self, Outlook, Sealed};
use crate::unstable::Unstable;
use crate::{durable, expiry, loads, report};

/// One write into the cache is taken in pieces of this many bytes, so that it never needs more of the budget at once
/// than there is.
pub(crate) const PIECE_BYTES: usize = 1 << 20;
/// Chunks handed to one background task.
const TAKE_BYTES: u64 = 32 << 20;
/// Fewer bytes are sealed where they are: handing them to another thread would take longer.
const SEAL_HERE_BYTES: usize = 64 << 10;

/// Where a write goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Where {
    At(u64),
    /// The end, which is known to a client that has the file to itself,
    End,
    /// and to one that has the append lock and has asked for the size.
    LockedEnd,
}

/// Writes `data` at `offset`: into the cache, waiting while too much is dirty; or, if others use the file, to the OSTs.
pub(crate) async fn write_at(
    inner: &Arc<Inner>,
    inode: &Arc<Inode>,
    offset: u64,
    data: &[u8],
    cred: &Credential,
) -> FsResult<()> {
    let mut done = 0;
    while done < data.len() {
        let piece = &data[done..data.len().min(done + PIECE_BYTES)];
        let at = Where::At(offset.checked_add(done as u64).ok_or(FsCode::FileTooBig)?);
        write_piece(inner, inode, at, piece, cred).await?;
        done += piece.len();
    }
    store_if_shared(inner, inode).await
}

/// What may not be kept is stored, and the MDS told, before a write returns.
pub(crate) async fn store_if_shared(inner: &Arc<Inner>, inode: &Arc<Inode>) -> FsResult<()> {
    if inode.state().is_shared() { store_through(inner, inode).await } else { Ok(()) }
}

/// [`store_now`] for a write that others see when it returns: what cannot be stored is its error.
pub(crate) async fn store_through(inner: &Arc<Inner>, inode: &Arc<Inode>) -> FsResult<()> {
    let mut seen = inode.state().failure.seen_by_new_file();
    let stored = store_now(inner, inode).await;
    inode.state().failure.take(&mut seen)?;
    stored
}

/// Stores what was written, makes it durable, and tells the MDS. What others may write to afterwards must not be sent again
/// by this client, which it would if an OST lost it.
pub(crate) async fn store_now(inner: &Arc<Inner>, inode: &Arc<Inode>) -> FsResult<()> {
    drain(inner, inode).await;
    let (committed, reported) = tokio::join!(durable::commit(inner, inode), report::report(inner, inode));
    inner.table.unpin_if_clean(inode);
    committed?;
    reported
}

/// What became of a piece.
enum Accepted {
    At(u64),
    /// The end of the file is not known here.
    EndUnknown,
    /// What is at this offset has to be loaded first.
    Missing(u64),
}

/// Accepts up to [`PIECE_BYTES`] into the cache, and gives the offset; `None` if the end is not known here.
pub(crate) async fn write_piece(
    inner: &Arc<Inner>,
    inode: &Arc<Inode>,
    at: Where,
    data: &[u8],
    cred: &Credential,
) -> FsResult<Option<u64>> {
    if let Where::At(offset) = at {
        loads::loaded(inner, inode, offset, data.len() as u64, How::CHANGE).await?;
    }
    loop {
        match accept(inner, inode, at, data, cred).await? {
            Accepted::At(offset) => return Ok(Some(offset)),
            Accepted::EndUnknown => return Ok(None),
            // Not within: whoever loads may wait for long, and truncate must not wait for that.
            Accepted::Missing(offset) => loads::loaded(inner, inode, offset, data.len() as u64, How::CHANGE).await?,
        }
    }
}

async fn accept(
    inner: &Arc<Inner>,
    inode: &Arc<Inode>,
    at: Where,
    data: &[u8],
    cred: &Credential,
) -> FsResult<Accepted> {
    // Reserved before the file is locked: whoever frees memory may need the file.
    let mut chunks = (data.len() >> sateen_types::limits::CHUNK_LOG2_MIN) + 2;
    if let Where::At(offset) = at {
        chunks = plan::spans(&inode.view().layout, offset, data.len() as u64)?.len();
    }
    let mut shares: Vec<Share> = Vec::with_capacity(chunks);
    let chunk_bytes = u64::from(sateen_types::limits::CHUNK_BYTES_MAX);
    let mut all = reserve(inner, chunks as u64 * chunk_bytes).await?;
    while let Some(share) = all.split((chunk_bytes / UNIT_BYTES) as usize) {
        shares.push(share);
    }
    let _shared = inode.exclusion.read().await;
    let offset = {
        let mut state = inode.state();
        let offset = match at {
            Where::At(offset) => offset,
            Where::End if state.is_shared() => return Ok(Accepted::EndUnknown),
            Where::End | Where::LockedEnd => state.size(),
        };
        if state.missing(offset, data.len() as u64, Purpose::Change).is_some() {
            return Ok(Accepted::Missing(offset));
        }
        let spans = plan::spans(&state.layout, offset, data.len() as u64)?;
        if !spans.is_empty() {
            state.write(&spans, data, &mut shares, cred);
            if !state.pinned {
                state.pinned = true;
                inner.table.pin(inode);
            }
        }
        let ready = state.full_chunks() << sateen_types::limits::CHUNK_LOG2_MAX;
        drop(state);
        if ready >= inner.options.bulk_bytes {
            start(inner, inode, Which::Full);
        }
        offset
    };
    Ok(Accepted::At(offset))
}

/// Waits for room in the budget, but not longer than for a server: if nothing comes free, none of them stores anything.
async fn reserve(inner: &Inner, bytes: u64) -> FsResult<Share> {
    let Some(limit) = inner.options.retry_for else {
        return Ok(inner.budget.reserve(bytes).await);
    };
    tokio::time::timeout(limit, inner.budget.reserve(bytes)).await.map_err(|_| {
        let max = inner.options.dirty_bytes_max;
        FsError::new(FsCode::TimedOut, format!("{max} bytes are waiting to be stored, and none was for {limit:?}"))
            .with_hint("check that every sateen-oss runs; `sateen status` shows every OST")
    })
}

/// Begins to send dirty chunks in the background.
pub(crate) fn start(inner: &Arc<Inner>, inode: &Arc<Inode>, which: Which) {
    loop {
        let taken = inode.take_dirty(which, TAKE_BYTES);
        if taken.is_empty() {
            return;
        }
        let (inner_, inode_) = (Arc::clone(inner), Arc::clone(inode));
        inner.tasks.spawn_on(async move { send(&inner_, &inode_, taken).await }, &inner.runtime);
    }
}

/// Sends what was written so far and waits until it is stored or lost.
pub(crate) async fn drain(inner: &Arc<Inner>, inode: &Arc<Inode>) {
    let writes = inode.state().writes;
    loop {
        start(inner, inode, Which::All);
        let progress = inode.progress.notified();
        tokio::pin!(progress);
        progress.as_mut().enable();
        if !inode.state().has_unsent(writes) {
            return;
        }
        // A chunk that was under way may have become dirty again: it can be sent now.
        start(inner, inode, Which::All);
        progress.await;
    }
}

/// Waits until nothing is under way. The file is frozen, so nothing new begins.
pub(crate) async fn settle(inode: &Inode) {
    loop {
        let progress = inode.progress.notified();
        tokio::pin!(progress);
        progress.as_mut().enable();
        if !inode.state().is_writing() {
            return;
        }
        progress.await;
    }
}

type Taken = Vec<(u64, Arc<Outgoing>, Share)>;

async fn send(inner: &Arc<Inner>, inode: &Arc<Inode>, taken: Taken) {
    let mut placed = Vec::with_capacity(taken.len());
    for (chunk, outgoing, share) in taken {
        match place(inner, inode, chunk).await {
            Ok(place) => placed.push((place, (chunk, outgoing, share))),
            Err(e) => inode.lost(chunk, e),
        }
    }
    let batches = plan::batches(placed, inner.options.bulk_bytes, false);
    join_all(batches.into_iter().map(|batch| send_batch(inner, inode, batch))).await;
}

async fn send_batch(inner: &Arc<Inner>, inode: &Arc<Inode>, batch: Batch<(u64, Arc<Outgoing>, Share)>) {
    let Batch { ost, object, chunk_log2, items } = batch;
    let chunk_len = 1u32 << chunk_log2;
    let compression = inner.session.facts.compression;
    let sealing: Vec<_> = items.iter().map(|(at, (_, outgoing, _))| (*at, Arc::clone(outgoing))).collect();
    let bytes: usize = sealing.iter().map(|(_, outgoing)| outgoing.len()).sum();
    let inode_ = Arc::clone(inode);
    let seal_one =
        move |(at, outgoing): &(u64, Arc<Outgoing>)| seal_chunk(*at, outgoing, chunk_len, compression, &inode_.outlook);
    let seal_all = move || sealing.iter().map(seal_one).collect();
    let sealed: Vec<Vec<Sealed>> = if bytes <= SEAL_HERE_BYTES { seal_all() } else { inner.compute(seal_all).await };
    let at = |offset| Place { ost, object, chunk_log2, offset };
    let chunks: Vec<u64> = items.iter().map(|(_, (chunk, ..))| *chunk).collect();
    match write_parts(inner, inode, &chunks, at(0), sealed.iter().flatten()).await {
        Ok((verifier, delta)) => {
            let answer = inner.committer.count_answer();
            let mut delta = Some(delta);
            for ((offset, (chunk, _, mut share)), parts) in items.into_iter().zip(sealed) {
                // What it takes from now on is what was sent.
                let stored: u64 = parts.iter().map(|p| p.payload.len() as u64).sum();
                let units = stored.div_ceil(UNIT_BYTES).max(1) as usize;
                let excess = share.num_permits().saturating_sub(units);
                drop(share.split(excess));
                let unstable = Unstable { place: at(offset), parts, verifier, answer, _share: Some(share) };
                inode.stored(chunk, chunk_len, unstable, delta.take().unwrap_or(0));
            }
            if inode.state().unstable.bytes() > inner.options.commit_bytes {
                inner.commit_wanted.notify_one();
            }
        }
        Err(error) => {
            tracing::warn!(%error, %object, %ost, "written data could not be stored");
            for (_, (chunk, _, _)) in items {
                inode.lost(chunk, error.clone());
            }
        }
    }
}

/// A chunk that is written all over is sealed; otherwise each written range goes as it is.
fn seal_chunk(
    at: u64,
    outgoing: &Outgoing,
    chunk_len: u32,
    compression: sateen_types::Compression,
    outlook: &Outlook,
) -> Vec<Sealed> {
    if outgoing.covers(0, chunk_len) {
        return vec![seal::seal(at, &outgoing.runs[0].1, compression, outlook)];
    }
    outgoing.runs.iter().map(|(from, bytes)| seal::plain(at + u64::from(*from), bytes.clone())).collect()
}

/// One Write request, of chunks that are under way.
pub(crate) async fn write_parts(
    inner: &Arc<Inner>,
    inode: &Inode,
    chunks: &[u64],
    place: Place,
    parts: impl Iterator<Item = &Sealed>,
) -> FsResult<(sateen_types::Verifier, i64)> {
    let (request, payload) = request(inner, place, parts);
    loop {
        let writer = expiry::writer(inner).await?;
        // Only now: a session that expires after this has another writer, and what is left of this one is looked at first.
        if chunks.iter().any(|chunk| inode.is_condemned(*chunk)) {
            return Err(expiry::changed_elsewhere(inode.fid, 0));
        }
        match inner.osts.write(place.ost, &request, &payload, writer).await {
            Err(e) if e.code == FsCode::Stale && expiry::is_replaced(inner, writer).await? => {}
            reply => {
                let reply = reply?;
                return Ok((convert::verifier(&reply.verifier)?, reply.allocated_delta));
            }
        }
    }
}

/// A Write of parts of one object, and what it carries.
pub(crate) fn request<'a>(
    inner: &Inner,
    place: Place,
    parts: impl Iterator<Item = &'a Sealed>,
) -> (oss::WriteRequest, Payload) {
    let (mut wire, mut payload) = (Vec::new(), Payload::new());
    for sealed in parts {
        wire.push(oss::Part::from(&sealed.part));
        payload.push(sealed.payload.clone());
    }
    let request = oss::WriteRequest {
        ost: u32::from(place.ost.0),
        object: Some(place.object.into()),
        chunk_log2: u32::from(place.chunk_log2),
        compression: sateen_proto::common::Compression::from(inner.session.facts.compression).into(),
        parts: wire,
        ..Default::default()
    };
    (request, payload)
}

/// Where a chunk is to be stored; chooses OSTs for its component if it has none.
async fn place(inner: &Arc<Inner>, inode: &Inode, chunk: u64) -> FsResult<Place> {
    let layout = instantiated(inner, inode, chunk, 1).await?;
    plan::place(&layout, inode.fs, inode.fid, chunk)?.ok_or_else(|| {
        FsError::new(FsCode::Internal, format!("the MDS chose no OSTs for byte {chunk} of {}", inode.fid))
    })
}

/// The file's layout, with OSTs for `[offset, offset + len)`.
pub(crate) async fn instantiated(inner: &Arc<Inner>, inode: &Inode, offset: u64, len: u64) -> FsResult<Arc<Layout>> {
    let known = |inode: &Inode| {
        let layout = inode.view().layout;
        layout.is_instantiated(offset, len).then_some(layout)
    };
    if let Some(layout) = known(inode) {
        return Ok(layout);
    }
    let _only_one = inode.instantiating.lock().await;
    if let Some(layout) = known(inode) {
        return Ok(layout);
    }
    let writer = inode.state().writer.clone();
    let op = Mutation::Instantiate { fid: inode.fid, offset, length: len };
    match inner.session.execute(&writer, op).await? {
        MutationReply::Layout(layout) => inode.observe_layout(layout),
        other => return Err(unexpected("Instantiate", &other)),
    }
    Ok(inode.view().layout)
}

/// An answer that does not fit its question.
pub(crate) fn unexpected(what: &str, reply: &MutationReply) -> FsError {
    FsError::new(FsCode::Internal, format!("the MDS answered {what} with {reply:?}"))
}
