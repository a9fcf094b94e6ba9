//! Layouts and layout templates.

use sateen_types::layout::TemplateComponent;
use sateen_types::{Component, ComponentId, Extent, Layout, LayoutTemplate, OstIndex, Pattern, StripePattern};

use crate::store::codec::{Reader, Record, Writer};

/// Smallest stored component, bytes: bounds a count before anything is allocated for it.
const COMPONENT_BYTES_MIN: usize = 16;

fn write_osts(out: &mut Writer, osts: &[OstIndex]) {
    out.u32(osts.len() as u32);
    for ost in osts {
        out.u16(ost.0);
    }
}

fn read_osts(input: &mut Reader<'_>) -> Option<Vec<OstIndex>> {
    (0..input.count(2)?).map(|_| input.u16().map(OstIndex)).collect()
}

fn write_striping(out: &mut Writer, s: &StripePattern) {
    out.u8(match s.pattern {
        Pattern::Raid0 => 1,
        Pattern::Mdt => 2,
        Pattern::Released => 3,
    });
    out.u32(s.stripe_size);
    out.u16(s.stripe_count);
    match s.start {
        None => out.u8(0),
        Some(ost) => {
            out.u8(1);
            out.u16(ost.0);
        }
    }
    write_osts(out, &s.ost_list);
    out.bytes(s.pool.as_ref().map_or(b"", |p| p.as_str().as_bytes()));
}

fn read_striping(input: &mut Reader<'_>) -> Option<StripePattern> {
    let pattern = match input.u8()? {
        1 => Pattern::Raid0,
        2 => Pattern::Mdt,
        3 => Pattern::Released,
        _ => return None,
    };
    let (stripe_size, stripe_count) = (input.u32()?, input.u16()?);
    let start = if input.bool()? { Some(OstIndex(input.u16()?)) } else { None };
    let ost_list = read_osts(input)?;
    let pool = match input.bytes()? {
        [] => None,
        name => Some(std::str::from_utf8(name).ok()?.parse().ok()?),
    };
    Some(StripePattern { pattern, stripe_size, stripe_count, start, ost_list, pool })
}

fn write_extent(out: &mut Writer, e: Extent) {
    out.u64(e.start);
    out.u64(e.end);
}

fn read_extent(input: &mut Reader<'_>) -> Option<Extent> {
    Some(Extent { start: input.u64()?, end: input.u64()? })
}

impl Record for Layout {
    const WHAT: &'static str = "layout";

    fn write(&self, out: &mut Writer) {
        out.u32(self.generation);
        out.u32(self.components.len() as u32);
        for c in &self.components {
            out.u32(c.id.0);
            write_extent(out, c.extent);
            write_striping(out, &c.striping);
            write_osts(out, &c.osts);
        }
    }

    fn read(input: &mut Reader<'_>) -> Option<Layout> {
        let generation = input.u32()?;
        let components = (0..input.count(COMPONENT_BYTES_MIN)?).map(|_| {
            Some(Component {
                id: ComponentId(input.u32()?),
                extent: read_extent(input)?,
                striping: read_striping(input)?,
                osts: read_osts(input)?,
            })
        });
        let layout = Layout { generation, components: components.collect::<Option<_>>()? };
        layout.validate().is_ok().then_some(layout)
    }
}

impl Record for LayoutTemplate {
    const WHAT: &'static str = "layout template";

    fn write(&self, out: &mut Writer) {
        out.u32(self.components.len() as u32);
        for c in &self.components {
            write_extent(out, c.extent);
            write_striping(out, &c.striping);
        }
    }

    fn read(input: &mut Reader<'_>) -> Option<LayoutTemplate> {
        let components = (0..input.count(COMPONENT_BYTES_MIN)?)
            .map(|_| Some(TemplateComponent { extent: read_extent(input)?, striping: read_striping(input)? }));
        let template = LayoutTemplate { components: components.collect::<Option<_>>()? };
        template.validate().is_ok().then_some(template)
    }
}
