//! Reading: what was written here lies over what is cached, which lies over what is fetched from the OSTs.
//!
//! Readers take no lock on the file. Each looks at the file once at its beginning ([`Inode::begin_read`]); what it
//! fetches enters the cache only if nothing was stored in between.

use std::collections::HashMap;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::future::try_join_all;
use futures::poll;
use parking_lot::Mutex;
use sateen_proto::{convert, oss};
use sateen_types::limits::CHUNK_BYTES_MAX;
use sateen_types::{Capability, Codec, Extent, FsCode, FsError, FsResult, ObjectId, OstIndex, Part, Payload, Verifier};

use crate::cache::{ChunkKey, Found, Loader};
use crate::inner::Inner;
use crate::inode::{Begun, Inode, ReadSpan, View};
use crate::loads::{self, How};
use crate::plan::{self, Place, Span};
use crate::readahead::{Advice, Met, Readahead};
use crate::seal;

/// Replies to one request for a range. Each brings at least one part, so a range of one bulk request never needs more
/// than its chunks.
const REPLIES_MAX: usize = 256;

/// What is asked for ahead of a reader goes out so much later than what he waits for.
const LOAD_AHEAD_AFTER: Duration = Duration::from_millis(1);
/// How long what is only in the repository is waited for ahead of a reader, who may have gone away: it takes room from others.
const LOAD_AHEAD_MAX: Duration = Duration::from_secs(30);

/// Reads up to `len` bytes at `offset`; fewer only at the end of the file. The pieces are those of the cache: nothing is
/// copied but what was written here and is not stored yet. `None`: the session may have ended meanwhile, and what was
/// fetched be no part of the file any more.
pub(crate) async fn read(
    inner: &Arc<Inner>,
    inode: &Arc<Inode>,
    readahead: &Mutex<Readahead>,
    offset: u64,
    len: usize,
) -> FsResult<Option<Payload>> {
    let trusted = !inode.distrusts();
    match read_once(inner, inode, readahead, offset, len).await {
        // What was not durable has gone with its OST. It is stored again, and waited for until it is durable.
        Err(_) if trusted && inode.distrusts() => read_once(inner, inode, readahead, offset, len).await,
        done => done,
    }
}

async fn read_once(
    inner: &Arc<Inner>,
    inode: &Arc<Inode>,
    readahead: &Mutex<Readahead>,
    offset: u64,
    len: usize,
) -> FsResult<Option<Payload>> {
    let size = inode.state().size();
    if offset >= size || len == 0 {
        return Ok(Some(Payload::new()));
    }
    // What may not be kept is not read ahead either.
    let room = if inode.keeps() < Capability::Read { 0 } else { inner.readahead_room() };
    let plan = readahead.lock().on_read(offset, len as u64, size, room);
    let wanted = (len as u64).min(size - offset);
    let mut loading = pin!(loads::loaded(inner, inode, offset, wanted, How::read(plan.in_a_row)));
    // What is read now is asked for before what is only read ahead, and nobody waits for that.
    let loaded = poll!(loading.as_mut());
    for range in plan.prefetch {
        if !prefetch(inner, inode, range) {
            readahead.lock().on_met(offset, Met::Gone, Instant::now());
            break;
        }
    }
    let waited = loaded.is_pending();
    match loaded {
        Poll::Ready(loaded) => loaded?,
        Poll::Pending => loading.await?,
    }
    let Some((view, spans)) = begin(inner, inode, offset, len as u64).await? else {
        return Ok(Some(Payload::new()));
    };
    if !plan.whole_chunks
        && let Some(bytes) = read_small(inner, inode, &view, &spans).await?
    {
        return Ok(inode.stands(&view).then(|| bytes.into()));
    }
    let wanted: Vec<u64> = spans.iter().filter(|s| !s.complete).map(|s| s.span.chunk).collect();
    let (chunks, met) = fetch(inner, inode, &view, &wanted).await?;
    if plan.expected
        && let Some(met) = met
    {
        // What came from the repository a moment ago was not in any cache.
        let met = if waited { Met::Loading } else { met };
        readahead.lock().on_met(offset, met, Instant::now());
    }
    if readahead.lock().hint() == Advice::NoReuse {
        spans
            .iter()
            .filter(|s| s.span.to == s.span.chunk_len)
            .for_each(|s| inner.cache.remove(&key(inode, &view, s.span.chunk)));
    }
    let stands = met.is_none() || inode.stands(&view);
    Ok(stands.then(|| assemble(&spans, &chunks)))
}

/// What a read sees that begins now, when everything it wants is loaded. `None` at or beyond the end.
async fn begin(
    inner: &Arc<Inner>,
    inode: &Arc<Inode>,
    offset: u64,
    len: u64,
) -> FsResult<Option<(View, Vec<ReadSpan>)>> {
    let mut refreshed = false;
    loop {
        match inode.begin_read(offset, len)? {
            Begun::AtEnd => return Ok(None),
            Begun::Missing => loads::loaded(inner, inode, offset, len, How::read(false)).await?,
            Begun::Reading(view, spans) => {
                let read = spans.iter().map(|s| u64::from(s.span.to - s.span.from)).sum();
                if refreshed || view.layout.is_instantiated(offset, read) || !inode.layout_may_be_old() {
                    return Ok(Some((view, spans)));
                }
                refresh_layout(inner, inode).await?;
                refreshed = true;
            }
        }
    }
}

/// Another client may have been the first to write to a part of the file since its layout was asked for.
pub(crate) async fn refresh_layout(inner: &Inner, inode: &Inode) -> FsResult<()> {
    inner.session.names.told(&inner.session, &[inode.fid]).await?;
    let fid = Some(inode.fid.into());
    let asked = inner.session.ask(|mut client, session_id| async move {
        client.get_layout(sateen_proto::mds::GetLayoutRequest { session_id, fid }).await
    });
    inode.observe_layout(convert::required(asked.await?.layout, "layout")?.try_into()?);
    Ok(())
}

/// A jump to a few bytes of one chunk that is not cached: read only these, opened by the store. `None` if the usual way
/// is better.
async fn read_small(inner: &Arc<Inner>, inode: &Inode, view: &View, spans: &[ReadSpan]) -> FsResult<Option<Bytes>> {
    let [ReadSpan { span, overlay, complete: false }] = spans else { return Ok(None) };
    let len = span.to - span.from;
    if len > span.chunk_len / 2 || inner.cache.contains(&key(inode, view, span.chunk)) {
        return Ok(None);
    }
    let Some(place) = plan::place(&view.layout, inode.fs, inode.fid, span.chunk)? else { return Ok(None) };
    let (range, expected) =
        (place.offset + u64::from(span.from), expected(view, place.ost, span.chunk, 1 << place.chunk_log2));
    let fetched = fetch_range(inner, place, range, len, false, expected).await;
    let fetched = fetched.inspect_err(|e| doubt(inode, expected, e))?;
    let mut out = BytesMut::zeroed(len as usize);
    for (at, bytes) in fetched {
        // What a peer sends beside the range is not used.
        if let Some(at) = at.checked_sub(place.offset).filter(|at| *at < u64::from(span.chunk_len)) {
            copy_over(&mut out, span, at as u32, &bytes);
        }
    }
    for (at, bytes) in overlay {
        copy_over(&mut out, span, *at, bytes);
    }
    Ok(Some(out.freeze()))
}

/// Puts a read together.
fn assemble(spans: &[ReadSpan], chunks: &HashMap<u64, Bytes>) -> Payload {
    let mut out = Payload::new();
    for ReadSpan { span, overlay, .. } in spans {
        let chunk = chunks.get(&span.chunk);
        if overlay.is_empty() {
            let end = chunk.map_or(0, |chunk| chunk.len().min(span.to as usize));
            let from = span.from as usize;
            if let Some(chunk) = chunk.filter(|_| from < end) {
                out.push(chunk.slice(from..end));
            }
            out.push(ZEROS.slice(..span.to as usize - end.max(from)));
            continue;
        }
        let mut piece = BytesMut::zeroed((span.to - span.from) as usize);
        if let Some(chunk) = chunk {
            copy_over(&mut piece, span, 0, chunk);
        }
        for (from, bytes) in overlay {
            copy_over(&mut piece, span, *from, bytes);
        }
        out.push(piece.freeze());
    }
    out
}

/// What is read where nothing is stored.
static ZEROS: Bytes = Bytes::from_static(&[0; CHUNK_BYTES_MAX as usize]);

/// Copies the part of `bytes` (which begin at `at` in the chunk) that lies in `span` to its place in `target`.
fn copy_over(target: &mut [u8], span: &Span, at: u32, bytes: &[u8]) {
    let from = at.max(span.from);
    let to = (at as usize + bytes.len()).min(span.to as usize) as u32;
    if from < to {
        let source = &bytes[(from - at) as usize..(to - at) as usize];
        target[(from - span.from) as usize..(to - span.from) as usize].copy_from_slice(source);
    }
}

/// Fetches chunks of `range` into the cache in the background, those that are only in the repository when they are loaded;
/// `false` if too much is under way.
pub(crate) fn prefetch(inner: &Arc<Inner>, inode: &Arc<Inode>, range: Range<u64>) -> bool {
    let (view, missing) = inode.view_of(range.start, range.end - range.start);
    let Some(missing) = missing else { return prefetch_loaded(inner, inode, &view, range) };
    let from = missing.start.max(range.start);
    if range.start < from && !prefetch_loaded(inner, inode, &view, range.start..from) {
        return false;
    }
    let Some(permit) = inner.reserve_readahead(range.end - from) else { return false };
    let (inner_, inode) = (Arc::clone(inner), Arc::clone(inode));
    let task = async move {
        let (inner, len) = (inner_, range.end - from);
        tokio::time::sleep(LOAD_AHEAD_AFTER).await;
        let loading = loads::loaded(&inner, &inode, from, len, How::read(true));
        let loaded = tokio::select! {
            loaded = tokio::time::timeout(LOAD_AHEAD_MAX, loading) => loaded,
            () = inner.stop.cancelled() => return,
        };
        let Ok(loaded) = loaded else { return };
        // The chunks have a permit of their own.
        drop(permit);
        match (loaded, inode.view_of(from, len)) {
            (Ok(()), (view, None)) => drop(prefetch_loaded(&inner, &inode, &view, from..range.end)),
            (Ok(()), _) => {}
            (Err(error), _) => {
                tracing::debug!(%error, fid = %inode.fid, "not loaded ahead; the reader will see for itself");
            }
        }
    };
    inner.tasks.spawn_on(task, &inner.runtime);
    true
}

/// [`prefetch`] of what is not only in the repository.
fn prefetch_loaded(inner: &Arc<Inner>, inode: &Arc<Inode>, view: &View, range: Range<u64>) -> bool {
    let Ok(mut spans) = plan::spans(&view.layout, range.start, range.end - range.start) else { return true };
    spans.retain(|s| !inner.cache.contains(&key(inode, view, s.chunk)));
    if spans.is_empty() {
        return true;
    }
    let Some(permit) = inner.reserve_readahead(spans.iter().map(|s| u64::from(s.chunk_len)).sum()) else {
        return false;
    };
    let (inner_, inode, view) = (Arc::clone(inner), Arc::clone(inode), view.clone());
    let task = async move {
        let chunks: Vec<u64> = spans.iter().map(|s| s.chunk).collect();
        if let Err(error) = load(&inner_, &inode, &view, &chunks).await {
            tracing::debug!(%error, fid = %inode.fid, "read-ahead failed; the reader will see for itself");
        }
        drop(permit);
    };
    inner.tasks.spawn_on(task, &inner.runtime);
    true
}

fn key(inode: &Inode, view: &View, chunk: u64) -> ChunkKey {
    ChunkKey { fid: inode.fid, epoch: view.epoch, chunk }
}

/// The contents of `chunks`, each up to some point after which it is zeros: from the cache, or fetched, or waited for
/// if somebody else fetches them. With the worst that was met.
async fn fetch(
    inner: &Arc<Inner>,
    inode: &Inode,
    view: &View,
    chunks: &[u64],
) -> FsResult<(HashMap<u64, Bytes>, Option<Met>)> {
    let Loaded { mut have, loading, met } = load(inner, inode, view, chunks).await?;
    for chunk in loading {
        match inner.cache.wait(&key(inode, view, chunk)).await {
            Ok(bytes) => {
                have.insert(chunk, bytes);
            }
            Err(loader) => {
                have.extend(load_all(inner, inode, view, vec![(chunk, loader)]).await?);
            }
        }
    }
    Ok((have, met))
}

/// What is cached or could be loaded, what somebody else is loading, and the worst that was met.
struct Loaded {
    have: HashMap<u64, Bytes>,
    loading: Vec<u64>,
    met: Option<Met>,
}

async fn load(inner: &Arc<Inner>, inode: &Inode, view: &View, chunks: &[u64]) -> FsResult<Loaded> {
    let (mut have, mut absent, mut loading) = (HashMap::new(), Vec::new(), Vec::new());
    for chunk in chunks {
        match inner.cache.find(&key(inode, view, *chunk)) {
            Found::Chunk(bytes) => {
                have.insert(*chunk, bytes);
            }
            Found::Absent(loader) => absent.push((*chunk, loader)),
            Found::Loading => loading.push(*chunk),
        }
    }
    let met = match (absent.is_empty(), loading.is_empty()) {
        (false, _) => Some(Met::Gone),
        (true, false) => Some(Met::Loading),
        (true, true) => None,
    };
    have.extend(load_all(inner, inode, view, absent).await?);
    Ok(Loaded { have, loading, met })
}

/// Fetches chunks from their OSTs, all at once, and caches them if they are still what is stored.
async fn load_all(
    inner: &Arc<Inner>,
    inode: &Inode,
    view: &View,
    absent: Vec<(u64, Loader<'_>)>,
) -> FsResult<Vec<(u64, Bytes)>> {
    let mut placed = Vec::with_capacity(absent.len());
    let mut have = Vec::with_capacity(absent.len());
    for (chunk, loader) in absent {
        match plan::place(&view.layout, inode.fs, inode.fid, chunk)? {
            Some(place) => placed.push((place, (chunk, loader))),
            None => have.push((chunk, Bytes::new())),
        }
    }
    let batches = plan::batches(placed, inner.options.bulk_bytes, true);
    let alone = batches.len() == 1;
    let loads = batches.into_iter().map(|batch| async move {
        let place =
            Place { ost: batch.ost, object: batch.object, chunk_log2: batch.chunk_log2, offset: batch.items[0].0 };
        let chunks = batch.items.iter().map(|(_, (chunk, _))| *chunk);
        let expected = chunks.into_iter().find_map(|chunk| expected(view, place.ost, chunk, 1 << place.chunk_log2));
        let contents = fetch_in_parallel(inner, place, batch.items.len(), expected, alone).await;
        let contents = contents.inspect_err(|e| doubt(inode, expected, e))?;
        let mut loaded = Vec::with_capacity(contents.len());
        for ((_, (chunk, loader)), bytes) in batch.items.into_iter().zip(contents) {
            inode.if_current(view, chunk, || {
                // Refused only if somebody put in something newer.
                let _ = loader.insert(bytes.clone());
            });
            loaded.push((chunk, bytes));
        }
        FsResult::Ok(loaded)
    });
    for loaded in try_join_all(loads).await? {
        have.extend(loaded);
    }
    Ok(have)
}

/// What the OST must say that brings `chunk`, if that is not durable yet.
fn expected(view: &View, ost: OstIndex, chunk: u64, chunk_len: u64) -> Option<Verifier> {
    view.provisional.as_ref()?.verifier(ost, Extent { start: chunk, end: chunk + chunk_len })
}

/// Bytes that were not durable could not be read: perhaps they are gone.
fn doubt(inode: &Inode, expected: Option<Verifier>, error: &FsError) {
    if expected.is_some() && error.code == FsCode::Unavailable {
        tracing::info!(%error, fid = %inode.fid, "waiting until what is loaded is durable");
        inode.distrust();
    }
}

/// [`fetch_batch`] in a task of its own unless it is the only one, so that replies are checked and opened on all cores.
async fn fetch_in_parallel(
    inner: &Arc<Inner>,
    place: Place,
    count: usize,
    expected: Option<Verifier>,
    alone: bool,
) -> FsResult<Vec<Bytes>> {
    if alone {
        return fetch_batch(inner, place, count, expected).await;
    }
    let inner_ = Arc::clone(inner);
    let task = inner.runtime.spawn(async move { fetch_batch(&inner_, place, count, expected).await });
    task.await.map_err(|e| FsError::new(FsCode::Internal, format!("a background read failed: {e}")))?
}

/// The contents of `count` chunks of an object that follow each other from `place` on.
async fn fetch_batch(
    inner: &Arc<Inner>,
    place: Place,
    count: usize,
    expected: Option<Verifier>,
) -> FsResult<Vec<Bytes>> {
    let chunk_len = 1u64 << place.chunk_log2;
    let start = place.offset;
    let pieces = fetch_range(inner, place, start, (count as u64 * chunk_len) as u32, true, expected).await?;
    let mut contents = vec![Bytes::new(); count];
    for (at, bytes) in pieces {
        // A sealed reply may bring a chunk that was only touched by the range.
        let Some(index) = at.checked_sub(start).map(|d| (d / chunk_len) as usize).filter(|i| *i < contents.len())
        else {
            continue;
        };
        let within = ((at - start) % chunk_len) as usize;
        let chunk = &mut contents[index];
        if within == 0 && chunk.is_empty() {
            *chunk = bytes;
        } else {
            let mut whole = chunk.to_vec();
            whole.resize(whole.len().max(within + bytes.len()), 0);
            whole[within..within + bytes.len()].copy_from_slice(&bytes);
            *chunk = whole.into();
        }
    }
    Ok(contents)
}

/// The data in a range of one object, as pieces with their object offsets; what is not covered is a hole. Damaged
/// bytes are asked for once more: they may have been damaged on the way.
async fn fetch_range(
    inner: &Arc<Inner>,
    place: Place,
    offset: u64,
    len: u32,
    sealed: bool,
    expected: Option<Verifier>,
) -> FsResult<Vec<(u64, Bytes)>> {
    let once = |verify| fetch_once(inner, place, offset, len, Fetch { sealed, verify, expected });
    match once(false).await {
        Err(e) if e.code == FsCode::Corrupt => {
            tracing::warn!(error = %e, "damaged data was read; reading it again");
            once(true).await.inspect_err(|e| {
                if e.code == FsCode::Corrupt {
                    tracing::error!(error = %e, object = %place.object, ost = %place.ost, offset, "stored data is damaged");
                }
            })
        }
        other => other,
    }
}

/// How bytes are fetched.
#[derive(Clone, Copy)]
struct Fetch {
    /// Chunks come as they are stored.
    sealed: bool,
    /// The store looks at its disk.
    verify: bool,
    /// What the OST must say: another one means that what was not durable is gone.
    expected: Option<Verifier>,
}

async fn fetch_once(
    inner: &Arc<Inner>,
    place: Place,
    offset: u64,
    len: u32,
    Fetch { sealed, verify, expected }: Fetch,
) -> FsResult<Vec<(u64, Bytes)>> {
    let end = offset + u64::from(len);
    let mut at = offset;
    let mut pieces = Vec::new();
    for _ in 0..REPLIES_MAX {
        if at >= end {
            return Ok(pieces);
        }
        let request = oss::ReadRequest {
            ost: u32::from(place.ost.0),
            object: Some(place.object.into()),
            chunk_log2: u32::from(place.chunk_log2),
            offset: at,
            length: (end - at) as u32,
            sealed,
            verify,
        };
        let (reply, payload) = inner.osts.read(place.ost, &request).await?;
        if expected.is_some_and(|expected| reply.verifier != expected.0) {
            return Err(FsError::new(FsCode::Unavailable, format!("OST {} was restarted meanwhile", place.ost)));
        }
        let parts = convert::parts_from_wire(reply.parts, place.chunk_log2, payload.len())?;
        let covered = parts.last().map_or(at, |p| p.offset + u64::from(p.raw_len));
        let begins = parts.first().is_some_and(|p| p.offset <= at);
        if !begins || covered <= at {
            return Err(convert::bad("parts", format_args!("do not cover byte {at} of {}", place.object)));
        }
        at = covered;
        pieces.extend(open_parts(inner, place.object, parts, payload).await?);
    }
    Err(convert::bad("parts", format_args!("{} sends its range in more than {REPLIES_MAX} replies", place.object)))
}

/// Fewer bytes are decompressed where they are: handing them to another thread would take longer. Checking alone always
/// happens where they are.
const OPEN_HERE_BYTES: usize = 64 << 10;

async fn open_parts(
    inner: &Arc<Inner>,
    object: ObjectId,
    parts: Vec<Part>,
    payload: Payload,
) -> FsResult<Vec<(u64, Bytes)>> {
    let packed: usize = parts.iter().filter(|p| p.codec == Codec::Lz4).map(|p| p.raw_len as usize).sum();
    let open_all = move || {
        let mut rest = payload;
        let mut pieces = Vec::with_capacity(parts.len());
        for part in parts.iter().filter(|p| !p.hole) {
            let stored = rest.split_to(part.stored_len as usize).into_bytes();
            let bytes = seal::open(part, &stored).map_err(|damage| {
                FsError::new(FsCode::Corrupt, format!("{object}, offset {}: {}", part.offset, damage.0))
                    .with_hint("the OST's log names the chunk; restore the file from a copy")
            })?;
            pieces.push((part.offset, bytes));
        }
        Ok(pieces)
    };
    if packed <= OPEN_HERE_BYTES { open_all() } else { inner.compute(open_all).await }
}
