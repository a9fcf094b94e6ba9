//! Which chunks a file range touches, where each lies, and how they are grouped into requests. Pure.
//!
//! A chunk is named by the file offset of its first byte. It never crosses a stripe or a component, so it is exactly
//! one aligned chunk of one object.

use sateen_types::limits::FILE_SIZE_MAX;
use sateen_types::{
    Component, Extent, Fid, FsCode, FsError, FsId, FsResult, Layout, ObjectId, OstIndex, Pattern, StripeIndex,
};

/// The part of a file range that lies in one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// File offset of the chunk.
    pub chunk: u64,
    /// Bytes of the chunk.
    pub chunk_len: u32,
    /// First byte, within the chunk.
    pub from: u32,
    /// One past the last byte, within the chunk.
    pub to: u32,
}

/// Cuts `[offset, offset + len)` at chunks. `FileTooBig` if it does not fit the layout.
pub(crate) fn spans(layout: &Layout, offset: u64, len: u64) -> FsResult<Vec<Span>> {
    let end = offset.checked_add(len).filter(|end| *end <= FILE_SIZE_MAX.min(layout.end())).ok_or_else(|| {
        FsError::new(
            FsCode::FileTooBig,
            format!("{len} bytes at {offset} pass the end of the file's layout, {}", FILE_SIZE_MAX.min(layout.end())),
        )
    })?;
    let mut spans = Vec::new();
    let mut at = offset;
    while at < end {
        let component = layout.component_at(at).expect("the range ends within the layout");
        let chunk_len = 1u32 << layout.components[component].chunk_log2();
        let from = (at % u64::from(chunk_len)) as u32;
        let chunk = at - u64::from(from);
        let to = (end - chunk).min(u64::from(chunk_len)) as u32;
        spans.push(Span { chunk, chunk_len, from, to });
        at = chunk + u64::from(to);
    }
    Ok(spans)
}

/// Where a chunk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub ost: OstIndex,
    pub object: ObjectId,
    pub chunk_log2: u8,
    /// Offset of the chunk in the object.
    pub offset: u64,
}

/// Where the chunk at `chunk` lies; `None` if its component has no OSTs yet.
pub(crate) fn place(layout: &Layout, fs: FsId, fid: Fid, chunk: u64) -> FsResult<Option<Place>> {
    let Some(index) = layout.component_at(chunk) else {
        return Err(FsError::new(FsCode::FileTooBig, format!("byte {chunk} of {fid} is beyond its layout")));
    };
    let component = &layout.components[index];
    if component.striping.pattern != Pattern::Raid0 {
        return Err(FsError::new(
            FsCode::NotSupported,
            format!("component {} of {fid} has the pattern {:?}", component.id.0, component.striping.pattern),
        )
        .with_hint("this client reads and writes raid0 only; use a newer one"));
    }
    if !component.is_instantiated() {
        return Ok(None);
    }
    let (stripe, at) = component.locate(chunk);
    let object = ObjectId { fs, fid, component: component.id, stripe };
    let ost = component.osts[stripe.0 as usize];
    Ok(Some(Place { ost, object, chunk_log2: component.chunk_log2(), offset: at.0 }))
}

/// Chunks of one object that travel in one request, in rising order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch<T> {
    pub ost: OstIndex,
    pub object: ObjectId,
    pub chunk_log2: u8,
    /// Object offset of each chunk, with what it carries.
    pub items: Vec<(u64, T)>,
}

/// Groups chunks by object, at most `bulk_bytes` of chunks per batch; with `contiguous`, without gaps in the object.
/// Every chunk is in exactly one batch.
pub(crate) fn batches<T>(mut items: Vec<(Place, T)>, bulk_bytes: usize, contiguous: bool) -> Vec<Batch<T>> {
    items.sort_by_key(|(p, _)| (p.object.component, p.object.stripe, p.offset));
    let mut batches: Vec<Batch<T>> = Vec::new();
    for (place, item) in items {
        let chunk_len = 1u64 << place.chunk_log2;
        if let Some(batch) = batches.last_mut()
            && batch.object == place.object
            && (batch.items.len() + 1) << place.chunk_log2 <= bulk_bytes.max(1 << place.chunk_log2)
            && (!contiguous || batch.items.last().is_some_and(|(at, _)| at + chunk_len == place.offset))
        {
            batch.items.push((place.offset, item));
            continue;
        }
        let Place { ost, object, chunk_log2, offset } = place;
        batches.push(Batch { ost, object, chunk_log2, items: vec![(offset, item)] });
    }
    batches
}

/// A run of bytes of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ObjectRange {
    pub ost: OstIndex,
    pub object: ObjectId,
    pub chunk_log2: u8,
    /// Index of the component in the layout.
    pub component: usize,
    pub offset: u64,
    pub len: u64,
}

/// The objects that hold `[start, end)` of the file, one contiguous run each, whatever the length; components without
/// OSTs have none.
pub(crate) fn object_ranges(layout: &Layout, fs: FsId, fid: Fid, start: u64, end: u64) -> Vec<ObjectRange> {
    let mut ranges = Vec::new();
    for (index, component) in layout.components.iter().enumerate() {
        let (from, to) = (start.max(component.extent.start), end.min(component.extent.end));
        if from >= to {
            continue;
        }
        // Objects are numbered as if the component began at 0, so what lies below `from` is counted from there.
        let whole = Component { extent: Extent { start: 0, end: component.extent.end }, ..component.clone() };
        let below = |stripe, at| whole.object_len(stripe, at).0;
        for (number, ost) in component.osts.iter().enumerate() {
            let stripe = StripeIndex(number as u32);
            let (first, last) = (below(stripe, from), below(stripe, to));
            if first < last {
                let object = ObjectId { fs, fid, component: component.id, stripe };
                let chunk_log2 = component.chunk_log2();
                ranges.push(ObjectRange {
                    ost: *ost,
                    object,
                    chunk_log2,
                    component: index,
                    offset: first,
                    len: last - first,
                });
            }
        }
    }
    ranges
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use sateen_types::{ComponentId, ObjectOffset, StripePattern};

    /// Layouts of up to three components with odd and even stripe sizes; some are not instantiated.
    pub fn layouts() -> impl Strategy<Value = Layout> {
        let component = (1u64..40, 1u32..5, 1usize..6, any::<bool>());
        proptest::collection::vec(component, 1..4).prop_map(|parts| {
            let mut start = 0;
            let last = parts.len() - 1;
            let components = parts.into_iter().enumerate().map(|(i, (units, stripe_units, count, instantiated))| {
                let end = if i == last { Extent::EOF } else { start + units * 65536 };
                let mut striping = StripePattern::raid0(count as u16);
                striping.stripe_size = stripe_units * 65536;
                let osts = if instantiated { (0..count).map(|n| OstIndex(n as u16 * 3)).collect() } else { vec![] };
                let extent = Extent { start, end };
                start = end;
                Component { id: ComponentId(i as u32 + 1), extent, striping, osts }
            });
            Layout { generation: 1, components: components.collect() }
        })
    }

    const FID: Fid = Fid { seq: Fid::SEQ_FIRST, oid: 1, ver: 0 };

    proptest! {
        #[test]
        fn spans_cover_the_range_once_and_stay_inside_chunks(
            layout in layouts(), offset in 0u64..6 << 20, len in 0u64..4 << 20,
        ) {
            let mut at = offset;
            for span in spans(&layout, offset, len).expect("within") {
                prop_assert_eq!(span.chunk + u64::from(span.from), at);
                prop_assert!(span.from < span.to && span.to <= span.chunk_len);
                prop_assert!(span.chunk.is_multiple_of(u64::from(span.chunk_len)));
                let inside = layout.slices(span.chunk, u64::from(span.chunk_len)).count();
                prop_assert_eq!(inside, 1, "a chunk lies in one stripe unit");
                at = span.chunk + u64::from(span.to);
            }
            prop_assert_eq!(at, offset + len);
        }

        #[test]
        fn batches_hold_every_chunk_once_in_order_and_within_bounds(
            layout in layouts(), offset in 0u64..6 << 20, len in 1u64..4 << 20, bulk in 1usize..2 << 20, contiguous: bool,
        ) {
            let chunks = spans(&layout, offset, len).expect("within").into_iter().map(|s| s.chunk);
            let places: Vec<_> = chunks
                .filter_map(|c| Some((place(&layout, FsId(1), FID, c).expect("raid0")?, c)))
                .collect();
            let mut seen: Vec<u64> = Vec::new();
            for batch in batches(places.clone(), bulk, contiguous) {
                let chunk_len = 1u64 << batch.chunk_log2;
                prop_assert!(batch.items.len() == 1 || batch.items.len() << batch.chunk_log2 <= bulk);
                for pair in batch.items.windows(2) {
                    prop_assert!(pair[0].0 < pair[1].0);
                    prop_assert!(!contiguous || pair[0].0 + chunk_len == pair[1].0);
                }
                for (at, chunk) in &batch.items {
                    let p = place(&layout, FsId(1), FID, *chunk).expect("raid0").expect("instantiated");
                    prop_assert_eq!((p.object, p.ost, p.offset), (batch.object, batch.ost, *at));
                }
                seen.extend(batch.items.iter().map(|i| i.1));
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, places.iter().map(|p| p.1).collect::<Vec<_>>());
        }

        #[test]
        fn object_ranges_hold_exactly_the_bytes_of_the_range(
            layout in layouts(), offset in 0u64..6 << 20, len in 1u64..2 << 20,
        ) {
            let mut total = 0;
            for r in object_ranges(&layout, FsId(1), FID, offset, offset + len) {
                let component = &layout.components[r.component];
                total += r.len;
                for at in [r.offset, r.offset + r.len - 1] {
                    let in_file = component.file_offset(r.object.stripe, ObjectOffset(at));
                    prop_assert!((offset..offset + len).contains(&in_file));
                }
            }
            let wanted: u64 = layout.slices(offset, len).filter(|s| s.place.is_some()).map(|s| s.len).sum();
            prop_assert_eq!(total, wanted);
        }
    }

    #[test]
    fn a_range_beyond_the_layout_is_too_big() {
        let mut layout = sateen_types::LayoutTemplate::default().resolve(&Default::default());
        assert_eq!(spans(&layout, FILE_SIZE_MAX, 1).expect_err("beyond").code, FsCode::FileTooBig);
        assert_eq!(spans(&layout, u64::MAX, 2).expect_err("overflow").code, FsCode::FileTooBig);
        layout.components.truncate(1);
        let end = layout.end();
        assert_eq!(spans(&layout, end - 1, 2).expect_err("beyond").code, FsCode::FileTooBig);
        assert!(spans(&layout, end - 1, 1).is_ok());
    }
}
