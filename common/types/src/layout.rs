//! How a file's bytes lie on OSTs. The only place that knows stripe arithmetic.
//!
//! A layout is always composite: components cover `[0, end)` without gaps, and within a component stripes follow
//! Lustre's RAID-0 rule, with file offsets that are *not* rebased to the component's start:
//!
//! ```text
//! stripe        = (offset / stripe_size) mod stripe_count
//! object offset = (offset / (stripe_size * stripe_count)) * stripe_size + offset mod stripe_size
//! ```
//!
//! A chunk ([`Component::chunk_log2`]) never crosses a stripe or a component, so one aligned chunk of the file is
//! exactly one aligned chunk of one object.

use serde::{Deserialize, Serialize};

use crate::ids::{ComponentId, OstIndex, StripeIndex};
use crate::limits::{
    CHUNK_LOG2_MAX, CHUNK_LOG2_MIN, COMPONENT_COUNT_MAX, STRIPE_COUNT_MAX, STRIPE_SIZE_DEFAULT, STRIPE_SIZE_MAX,
    STRIPE_SIZE_UNIT,
};
use crate::name::PoolName;
use crate::status::{FsCode, FsError, FsResult};

/// A byte position inside one object. Never compare it with a file offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectOffset(pub u64);

/// Byte range `[start, end)` of a file; `end == Extent::EOF` is infinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl Extent {
    /// "Until the end of the file, however long it grows."
    pub const EOF: u64 = u64::MAX;

    /// Whether the two ranges share a byte.
    pub fn overlaps(&self, start: u64, end: u64) -> bool {
        self.start < end && start < self.end
    }

    /// What is left of it without another range.
    pub fn without(self, other: Extent) -> impl Iterator<Item = Extent> {
        let before = Extent { start: self.start, end: self.end.min(other.start) };
        let after = Extent { start: self.start.max(other.end), end: self.end };
        [before, after].into_iter().filter(|part| part.start < part.end)
    }
}

/// What a component's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// Striped over OST objects.
    Raid0,
    /// Inline in the MDT. First component only.
    Mdt,
    /// Data is in the repository; no objects (HSM).
    Released,
}

/// `stripe_count` that stands for "all OSTs there are" (`-c -1`).
pub const STRIPE_COUNT_ALL: u16 = u16::MAX;

/// The striping a component was asked to have. In a file's [`Layout`] every field is resolved; in a
/// [`LayoutTemplate`] 0 means "inherit".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StripePattern {
    /// Kind of component.
    pub pattern: Pattern,
    /// Bytes in a row on one OST; multiple of 64 KiB. 0 in a template: inherit.
    pub stripe_size: u32,
    /// Stripes wanted, [`STRIPE_COUNT_ALL`] for all. 0 in a template: inherit.
    pub stripe_count: u16,
    /// First OST wanted (`-i`); `None` lets the MDS choose.
    pub start: Option<OstIndex>,
    /// Exactly these OSTs, in this order (`-o`); empty lets the MDS choose.
    #[serde(default)]
    pub ost_list: Vec<OstIndex>,
    /// Pool to choose from.
    #[serde(default)]
    pub pool: Option<PoolName>,
}

impl StripePattern {
    /// RAID-0 of `stripe_count` stripes of the default size, OSTs chosen by the MDS.
    pub fn raid0(stripe_count: u16) -> StripePattern {
        StripePattern {
            pattern: Pattern::Raid0,
            stripe_size: STRIPE_SIZE_DEFAULT,
            stripe_count,
            start: None,
            ost_list: Vec::new(),
            pool: None,
        }
    }

    /// The rules both for files and templates; `inherit` says whether 0 is allowed.
    fn validate(&self, inherit: bool) -> FsResult<()> {
        let size_ok = self.stripe_size.is_multiple_of(STRIPE_SIZE_UNIT) && self.stripe_size <= STRIPE_SIZE_MAX;
        if !size_ok || (self.stripe_size == 0 && !inherit) {
            return Err(invalid(format!("stripe size {} is not a multiple of 64 KiB below 4 GiB", self.stripe_size)));
        }
        let count_ok = self.stripe_count <= STRIPE_COUNT_MAX || self.stripe_count == STRIPE_COUNT_ALL;
        if !count_ok || (self.stripe_count == 0 && !inherit) {
            return Err(invalid(format!(
                "stripe count {} is not between 1 and {STRIPE_COUNT_MAX}, nor -1 for all",
                self.stripe_count
            )));
        }
        if !self.ost_list.is_empty() {
            let mut seen = self.ost_list.clone();
            seen.sort_unstable();
            seen.dedup();
            if seen.len() != self.ost_list.len() {
                return Err(invalid("an OST is named twice in the OST list".into()));
            }
            if usize::from(self.stripe_count) != self.ost_list.len() {
                return Err(invalid(format!(
                    "stripe count {} differs from the {} OSTs listed",
                    self.stripe_count,
                    self.ost_list.len()
                )));
            }
            if self.start.is_some_and(|s| !self.ost_list.contains(&s)) {
                return Err(invalid("the first OST is not in the OST list".into()));
            }
        }
        Ok(())
    }
}

/// One component of a file's layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// Unique in the file, never reused.
    pub id: ComponentId,
    /// Bytes of the file it holds.
    pub extent: Extent,
    /// Striping as resolved at create.
    pub striping: StripePattern,
    /// The OST of each stripe; empty until the first write reaches the component.
    pub osts: Vec<OstIndex>,
}

impl Component {
    /// Whether OSTs have been chosen.
    pub fn is_instantiated(&self) -> bool {
        !self.osts.is_empty()
    }

    /// log2 of the chunk size of this component's objects: the largest power of two up to 128 KiB that divides the
    /// stripe size and both ends of the extent.
    pub fn chunk_log2(&self) -> u8 {
        let zeros = |n: u64| if n == 0 || n == Extent::EOF { u32::from(CHUNK_LOG2_MAX) } else { n.trailing_zeros() };
        let log2 =
            zeros(u64::from(self.striping.stripe_size)).min(zeros(self.extent.start)).min(zeros(self.extent.end));
        (log2 as u8).clamp(CHUNK_LOG2_MIN, CHUNK_LOG2_MAX)
    }

    /// Stripe and object offset of a byte of the file. The component must be instantiated and `offset` in its extent.
    pub fn locate(&self, offset: u64) -> (StripeIndex, ObjectOffset) {
        debug_assert!(self.is_instantiated() && self.extent.overlaps(offset, offset + 1), "{offset} in {self:?}");
        let size = u64::from(self.striping.stripe_size);
        let count = self.osts.len() as u64;
        let stripe = (offset / size) % count;
        (StripeIndex(stripe as u32), ObjectOffset(offset / (size * count) * size + offset % size))
    }

    /// Inverse of [`Component::locate`].
    pub fn file_offset(&self, stripe: StripeIndex, at: ObjectOffset) -> u64 {
        let size = u64::from(self.striping.stripe_size);
        let count = self.osts.len() as u64;
        (at.0 / size * count + u64::from(stripe.0)) * size + at.0 % size
    }

    /// How long the object of `stripe` is when the file is `file_size` bytes long and has no holes: one past the
    /// last object byte that lies below `file_size` in this component, 0 if there is none.
    pub fn object_len(&self, stripe: StripeIndex, file_size: u64) -> ObjectOffset {
        let size = u64::from(self.striping.stripe_size);
        let row = size * self.osts.len() as u64;
        let end = file_size.min(self.extent.end);
        if end <= self.extent.start {
            return ObjectOffset(0);
        }
        let rest = (end % row).saturating_sub(u64::from(stripe.0) * size).min(size);
        ObjectOffset(end / row * size + rest)
    }
}

/// Part of a file range that lies in one stripe unit of one component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Index into [`Layout::components`].
    pub component: usize,
    /// Where it lies, or `None` if the component is not instantiated (reads as zeros).
    pub place: Option<(StripeIndex, OstIndex, ObjectOffset)>,
    /// First byte in the file.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// Layout of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Rises with every change.
    pub generation: u32,
    /// In file order.
    pub components: Vec<Component>,
}

impl Layout {
    /// Index of the component that holds `offset`; `None` beyond the last.
    pub fn component_at(&self, offset: u64) -> Option<usize> {
        let i = self.components.partition_point(|c| c.extent.end <= offset);
        (i < self.components.len()).then_some(i)
    }

    /// One past the last byte the layout can hold.
    pub fn end(&self) -> u64 {
        self.components.last().map_or(0, |c| c.extent.end)
    }

    /// Cuts `[offset, offset + len)` into slices in file order. They cover the range exactly up to
    /// [`Layout::end`], never overlap, and each stays inside one stripe unit; a component that is not instantiated
    /// gives one slice.
    pub fn slices(&self, offset: u64, len: u64) -> impl Iterator<Item = Slice> + '_ {
        let end = offset.saturating_add(len).min(self.end());
        let mut at = offset;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let index = self.component_at(at)?;
            let component = &self.components[index];
            let mut stop = end.min(component.extent.end);
            let place = component.is_instantiated().then(|| {
                let size = u64::from(component.striping.stripe_size);
                stop = stop.min((at / size + 1).saturating_mul(size));
                let (stripe, object) = component.locate(at);
                (stripe, component.osts[stripe.0 as usize], object)
            });
            let slice = Slice { component: index, place, offset: at, len: stop - at };
            at = stop;
            Some(slice)
        })
    }

    /// Whether every component that overlaps `[offset, offset + len)` is instantiated.
    pub fn is_instantiated(&self, offset: u64, len: u64) -> bool {
        let end = offset.saturating_add(len);
        self.components.iter().filter(|c| c.extent.overlaps(offset, end)).all(Component::is_instantiated)
    }

    /// Checks every rule a layout must meet, whoever sent or stored it.
    pub fn validate(&self) -> FsResult<()> {
        validate_extents(self.components.iter().map(|c| c.extent))?;
        let mut ids: Vec<u32> = self.components.iter().map(|c| c.id.0).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != self.components.len() || ids.first() == Some(&0) {
            return Err(invalid("component ids are not unique and positive".into()));
        }
        for (i, c) in self.components.iter().enumerate() {
            c.striping.validate(false)?;
            if c.striping.pattern == Pattern::Mdt && i > 0 {
                return Err(invalid("only the first component may lie in the MDT".into()));
            }
            if c.osts.len() > usize::from(STRIPE_COUNT_MAX) {
                return Err(invalid(format!("component {} has {} stripes", c.id.0, c.osts.len())));
            }
        }
        Ok(())
    }
}

/// One component of a [`LayoutTemplate`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateComponent {
    /// Bytes it will hold.
    pub extent: Extent,
    /// Striping wanted; 0 inherits.
    pub striping: StripePattern,
}

/// The layout new files get: a directory's default, or what `lfs setstripe FILE` asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutTemplate {
    /// In file order.
    pub components: Vec<TemplateComponent>,
}

impl Default for LayoutTemplate {
    /// FSx's four components: up to 100 MiB 1 stripe, 10 GiB 8, 100 GiB 16, beyond 32.
    fn default() -> LayoutTemplate {
        const MIB: u64 = 1 << 20;
        const GIB: u64 = 1 << 30;
        let ends = [(100 * MIB, 1), (10 * GIB, 8), (100 * GIB, 16), (Extent::EOF, 32)];
        let mut start = 0;
        let components = ends
            .into_iter()
            .map(|(end, count)| {
                let extent = Extent { start, end };
                start = end;
                TemplateComponent { extent, striping: StripePattern::raid0(count) }
            })
            .collect();
        LayoutTemplate { components }
    }
}

impl LayoutTemplate {
    /// One component for the whole file.
    pub fn plain(striping: StripePattern) -> LayoutTemplate {
        LayoutTemplate {
            components: vec![TemplateComponent { extent: Extent { start: 0, end: Extent::EOF }, striping }],
        }
    }

    /// Checks every rule; 0 (inherit) is allowed for stripe size and count.
    pub fn validate(&self) -> FsResult<()> {
        validate_extents(self.components.iter().map(|c| c.extent))?;
        for (i, c) in self.components.iter().enumerate() {
            c.striping.validate(true)?;
            match c.striping.pattern {
                Pattern::Raid0 => {}
                Pattern::Mdt if i > 0 => return Err(invalid("only the first component may lie in the MDT".into())),
                Pattern::Mdt | Pattern::Released => {
                    return Err(FsError::new(
                        FsCode::NotSupported,
                        format!("a new file cannot have the layout pattern {:?}", c.striping.pattern),
                    )
                    .with_hint("use raid0"));
                }
            }
        }
        Ok(())
    }

    /// The layout of a new file: values left at 0 come from `parent` for the first component and from the component
    /// before it for the others. No OST is chosen yet.
    pub fn resolve(&self, parent: &LayoutTemplate) -> Layout {
        let mut before = parent.components.first().map_or_else(|| StripePattern::raid0(1), |c| c.striping.clone());
        let components = self
            .components
            .iter()
            .zip(1..)
            .map(|(c, id)| {
                let mut striping = c.striping.clone();
                if striping.stripe_size == 0 {
                    striping.stripe_size =
                        if before.stripe_size == 0 { STRIPE_SIZE_DEFAULT } else { before.stripe_size };
                }
                if striping.stripe_count == 0 {
                    striping.stripe_count = before.stripe_count.max(1);
                }
                if striping.pool.is_none() {
                    striping.pool.clone_from(&before.pool);
                }
                before = striping.clone();
                Component { id: ComponentId(id), extent: c.extent, striping, osts: Vec::new() }
            })
            .collect();
        Layout { generation: 1, components }
    }
}

fn invalid(message: String) -> FsError {
    FsError::new(FsCode::Invalid, message)
}

/// Components start at 0, touch each other, are not empty, and end on multiples of 64 KiB or at infinity.
fn validate_extents(extents: impl ExactSizeIterator<Item = Extent>) -> FsResult<()> {
    if extents.len() == 0 || extents.len() > COMPONENT_COUNT_MAX {
        return Err(invalid(format!("a layout has 1 to {COMPONENT_COUNT_MAX} components, not {}", extents.len())));
    }
    let mut at = 0;
    for e in extents {
        if e.start != at || e.end <= e.start {
            return Err(invalid(format!("component [{}, {}) does not follow byte {at}", e.start, e.end)));
        }
        if e.end != Extent::EOF && (!e.end.is_multiple_of(u64::from(STRIPE_SIZE_UNIT)) || e.end > i64::MAX as u64) {
            return Err(invalid(format!("component end {} is not a multiple of 64 KiB below 8 EiB", e.end)));
        }
        at = e.end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layouts() -> impl Strategy<Value = Layout> {
        let component = (1u64..40, 1u32..5, 1usize..6, any::<bool>());
        proptest::collection::vec(component, 1..4).prop_map(|parts| {
            let mut start = 0;
            let last = parts.len() - 1;
            let components = parts.into_iter().enumerate().map(|(i, (units, stripe_units, count, instantiated))| {
                let end = if i == last { Extent::EOF } else { start + units * u64::from(STRIPE_SIZE_UNIT) };
                let mut striping = StripePattern::raid0(count as u16);
                striping.stripe_size = stripe_units * STRIPE_SIZE_UNIT;
                let osts = if instantiated { (0..count as u16).map(OstIndex).collect() } else { Vec::new() };
                let c = Component { id: ComponentId(i as u32 + 1), extent: Extent { start, end }, striping, osts };
                start = end;
                c
            });
            Layout { generation: 1, components: components.collect() }
        })
    }

    proptest! {
        #[test]
        fn slices_cover_the_range_without_overlap_and_agree_with_locate(
            layout in layouts(), offset in 0u64..8 << 20, len in 0u64..4 << 20,
        ) {
            layout.validate().expect("generated layouts are valid");
            let mut at = offset;
            for s in layout.slices(offset, len) {
                prop_assert_eq!(s.offset, at);
                prop_assert!(s.len > 0);
                let c = &layout.components[s.component];
                prop_assert!(c.extent.start <= s.offset && s.offset + s.len <= c.extent.end);
                if let Some((stripe, ost, object)) = s.place {
                    for probe in [s.offset, s.offset + s.len - 1] {
                        let (st, ob) = c.locate(probe);
                        prop_assert_eq!(st, stripe);
                        prop_assert_eq!(ob.0 - object.0, probe - s.offset);
                        prop_assert_eq!(c.file_offset(st, ob), probe);
                    }
                    prop_assert_eq!(c.osts[stripe.0 as usize], ost);
                }
                at += s.len;
            }
            prop_assert_eq!(at, offset + len);
        }

        #[test]
        fn a_chunk_never_crosses_a_stripe_or_component(layout in layouts(), offset in 0u64..8 << 20) {
            let c = &layout.components[layout.component_at(offset).expect("ends at infinity")];
            if c.is_instantiated() {
                let chunk = 1u64 << c.chunk_log2();
                let first = offset / chunk * chunk;
                let (stripe, object) = c.locate(first);
                let (last_stripe, last_object) = c.locate(first + chunk - 1);
                prop_assert_eq!(stripe, last_stripe);
                prop_assert_eq!(object.0 % chunk, 0);
                prop_assert_eq!(last_object.0, object.0 + chunk - 1);
            }
        }

        #[test]
        fn object_len_is_one_past_the_last_byte_below_the_size(layout in layouts(), size in 0u64..6 << 20) {
            for c in layout.components.iter().filter(|c| c.is_instantiated()) {
                let mut want = vec![0u64; c.osts.len()];
                let unit = u64::from(STRIPE_SIZE_UNIT);
                let mut at = c.extent.start;
                while at < size.min(c.extent.end) {
                    let last = (at + unit).min(size).min(c.extent.end) - 1;
                    let (stripe, object) = c.locate(last);
                    want[stripe.0 as usize] = want[stripe.0 as usize].max(object.0 + 1);
                    at += unit;
                }
                for (i, want) in want.into_iter().enumerate() {
                    let got = c.object_len(StripeIndex(i as u32), size).0;
                    // A stripe without a byte below `size` in this extent may still start above 0 (offsets are not
                    // rebased); then nothing of it is above `got` either.
                    if want > 0 { prop_assert_eq!(got, want); }
                    else if size > c.extent.start { prop_assert!(c.file_offset(StripeIndex(i as u32), ObjectOffset(got)) >= size.min(c.extent.end)); }
                }
            }
        }
    }

    #[test]
    fn the_default_is_the_four_components_of_fsx() {
        let t = LayoutTemplate::default();
        t.validate().expect("valid");
        let counts: Vec<u16> = t.components.iter().map(|c| c.striping.stripe_count).collect();
        assert_eq!(counts, [1, 8, 16, 32]);
        assert_eq!(t.components[0].extent.end, 100 << 20);
    }

    #[test]
    fn values_left_out_come_from_the_parent_and_then_from_the_component_before() {
        let mut parent = StripePattern::raid0(3);
        parent.stripe_size = 256 << 10;
        let zero = StripePattern { stripe_size: 0, stripe_count: 0, ..StripePattern::raid0(1) };
        let t = LayoutTemplate {
            components: vec![
                TemplateComponent { extent: Extent { start: 0, end: 1 << 20 }, striping: zero.clone() },
                TemplateComponent { extent: Extent { start: 1 << 20, end: Extent::EOF }, striping: zero },
            ],
        };
        let layout = t.resolve(&LayoutTemplate::plain(parent));
        for c in &layout.components {
            assert_eq!((c.striping.stripe_size, c.striping.stripe_count), (256 << 10, 3));
        }
    }

    #[test]
    fn bad_layouts_are_refused() {
        let ok = LayoutTemplate::plain(StripePattern::raid0(1));
        let mut gap = ok.clone();
        gap.components[0].extent.start = 65536;
        let mut odd_end = ok.clone();
        odd_end.components[0].extent.end = 1000;
        let mut odd_size = ok.clone();
        odd_size.components[0].striping.stripe_size = 4096;
        let mut wide = ok.clone();
        wide.components[0].striping.stripe_count = 2001;
        let mut twice = ok.clone();
        twice.components[0].striping.stripe_count = 2;
        twice.components[0].striping.ost_list = vec![OstIndex(1), OstIndex(1)];
        let none = LayoutTemplate { components: vec![] };
        for bad in [gap, odd_end, odd_size, wide, twice, none] {
            assert_eq!(bad.validate().expect_err("refused").code, FsCode::Invalid, "{bad:?}");
        }
    }
}
