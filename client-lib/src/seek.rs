//! Where a file has data and where it has holes, asked from its OSTs. Precise to one chunk. What is only in the repository is data.

use std::sync::Arc;

use futures::future::try_join_all;
use sateen_proto::oss;
use sateen_types::{Extent, FsCode, FsError, FsResult, Layout, ObjectOffset};

use crate::inner::Inner;
use crate::inode::{Inode, Purpose};
use crate::loads::How;
use crate::plan::{self, ObjectRange};
use crate::{loads, write};

/// Extents asked for at a time; the most a server sends.
const EXTENTS_MAX: u32 = 4096;
/// Requests for one object. An object with more extents than both allow together is taken to be data up to its end.
const PAGES_MAX: u32 = 1 << 16;

/// First byte with data at or after `offset`.
pub(crate) async fn data(inner: &Arc<Inner>, inode: &Arc<Inode>, offset: u64) -> FsResult<Option<u64>> {
    let remote = remote(inner, inode, offset).await?.first().map(|part| part.start.max(offset));
    if remote == Some(offset) && offset < inode.state().size() {
        return Ok(remote);
    }
    let stored = stored_data(inner, inode, offset).await?;
    let remote = remote.filter(|at| *at < inode.state().size());
    Ok(stored.into_iter().chain(remote).min())
}

/// First byte in a hole at or after `offset`; the end of the file is a hole.
pub(crate) async fn hole(inner: &Arc<Inner>, inode: &Arc<Inode>, offset: u64) -> FsResult<Option<u64>> {
    // Asked first: what is loaded meanwhile counts as data either way.
    let remote = remote(inner, inode, offset).await?;
    let mut from = offset;
    loop {
        let Some(hole) = stored_hole(inner, inode, from).await? else {
            return Ok((from > offset).then_some(from.min(inode.state().size())));
        };
        match remote.iter().find(|part| part.start <= hole && hole < part.end) {
            Some(part) => from = part.end,
            None => return Ok(Some(hole)),
        }
    }
}

/// What of the file from `offset` on is only in the repository, in order.
async fn remote(inner: &Arc<Inner>, inode: &Arc<Inode>, offset: u64) -> FsResult<Vec<Extent>> {
    if !inode.state().is_sure() {
        // Which says what is loaded.
        loads::loaded(inner, inode, offset, 1, How::CHANGE).await?;
    }
    Ok(inode.state().all_missing(offset, u64::MAX, Purpose::Change))
}

async fn stored_data(inner: &Arc<Inner>, inode: &Arc<Inode>, offset: u64) -> FsResult<Option<u64>> {
    let (layout, size) = at_rest(inner, inode).await;
    if offset >= size {
        return Ok(None);
    }
    for component in 0..layout.components.len() {
        let ranges = of_component(&layout, inode, component, offset, size);
        let firsts = ranges.into_iter().map(|range| {
            let layout = &layout;
            async move {
                let page = extents(inner, &range, range.offset).await?;
                let first = page.extents.first().map(|e| e.offset.max(range.offset));
                FsResult::Ok(first.filter(|at| *at < range.offset + range.len).map(|at| in_file(layout, &range, at)))
            }
        });
        // Within one stripe a larger object offset is a larger file offset: the first of each stripe is enough.
        if let Some(first) = try_join_all(firsts).await?.into_iter().flatten().min() {
            return Ok(Some(first.max(offset)));
        }
    }
    Ok(None)
}

async fn stored_hole(inner: &Arc<Inner>, inode: &Arc<Inode>, offset: u64) -> FsResult<Option<u64>> {
    let (layout, size) = at_rest(inner, inode).await;
    if offset >= size {
        return Ok(None);
    }
    for (index, component) in layout.components.iter().enumerate() {
        let start = offset.max(component.extent.start);
        if start >= component.extent.end.min(size) {
            continue;
        }
        if !component.is_instantiated() {
            return Ok(Some(start));
        }
        let ranges = of_component(&layout, inode, index, offset, size);
        let firsts = ranges.into_iter().map(|range| {
            let layout = &layout;
            async move {
                let first = first_hole(inner, &range).await?;
                FsResult::Ok(first.map(|at| in_file(layout, &range, at)))
            }
        });
        if let Some(first) = try_join_all(firsts).await?.into_iter().flatten().min() {
            return Ok(Some(first.clamp(offset, size)));
        }
    }
    Ok(Some(size))
}

/// Everything written here is at the OSTs; layout and size.
async fn at_rest(inner: &Arc<Inner>, inode: &Arc<Inode>) -> (Arc<Layout>, u64) {
    write::drain(inner, inode).await;
    let state = inode.state();
    (Arc::clone(&state.layout), state.size())
}

fn of_component(layout: &Layout, inode: &Inode, component: usize, offset: u64, size: u64) -> Vec<ObjectRange> {
    let mut ranges = plan::object_ranges(layout, inode.fs, inode.fid, offset, size);
    ranges.retain(|r| r.component == component);
    ranges
}

fn in_file(layout: &Layout, range: &ObjectRange, at: u64) -> u64 {
    layout.components[range.component].file_offset(range.object.stripe, ObjectOffset(at))
}

/// First byte of the range that is in a hole.
async fn first_hole(inner: &Arc<Inner>, range: &ObjectRange) -> FsResult<Option<u64>> {
    let end = range.offset + range.len;
    let mut at = range.offset;
    for _ in 0..PAGES_MAX {
        let page = extents(inner, range, at).await?;
        let before = at;
        for extent in &page.extents {
            if extent.offset > at {
                break;
            }
            at = at.max(extent.offset.saturating_add(extent.length));
        }
        if at >= end {
            return Ok(None);
        }
        let all_used = page.extents.last().is_none_or(|e| e.offset.saturating_add(e.length) <= at);
        if page.complete || !all_used || at == before {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

async fn extents(inner: &Arc<Inner>, range: &ObjectRange, offset: u64) -> FsResult<oss::ExtentsReply> {
    let request = oss::ExtentsRequest {
        ost: u32::from(range.ost.0),
        object: Some(range.object.into()),
        chunk_log2: u32::from(range.chunk_log2),
        offset,
        max: EXTENTS_MAX,
    };
    let call =
        |mut client: oss::object_store_client::ObjectStoreClient<_>| async move { client.extents(request).await };
    let reply = inner.osts.call(range.ost, call).await?;
    if reply.extents.len() > EXTENTS_MAX as usize || !reply.extents.is_sorted_by_key(|e| e.offset) {
        return Err(FsError::new(FsCode::Invalid, format!("the extents of {} are not in order", range.object)));
    }
    Ok(reply)
}
