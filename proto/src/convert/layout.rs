//! Layouts and layout templates.

use sateen_types::layout::{STRIPE_COUNT_ALL, TemplateComponent};
use sateen_types::limits::{COMPONENT_COUNT_MAX, STRIPE_COUNT_MAX};
use sateen_types::{
    Component, ComponentId, Compression, Extent, FsError, FsResult, Layout, LayoutTemplate, OstIndex, Pattern,
    StripePattern,
};

use super::{bad, known, ost_index, required};
use crate::common;

impl From<Pattern> for common::Pattern {
    fn from(p: Pattern) -> common::Pattern {
        match p {
            Pattern::Raid0 => common::Pattern::Raid0,
            Pattern::Mdt => common::Pattern::Mdt,
            Pattern::Released => common::Pattern::Released,
        }
    }
}

fn pattern(number: i32) -> FsResult<Pattern> {
    Ok(match known(number, "pattern")? {
        common::Pattern::Raid0 => Pattern::Raid0,
        common::Pattern::Mdt => Pattern::Mdt,
        common::Pattern::Released => Pattern::Released,
        common::Pattern::Unspecified => return Err(bad("pattern", "unspecified")),
    })
}

fn osts_to_wire(osts: &[OstIndex]) -> Vec<u32> {
    osts.iter().map(|o| u32::from(o.0)).collect()
}

fn osts_from_wire(osts: &[u32], field: &str) -> FsResult<Vec<OstIndex>> {
    if osts.len() > usize::from(STRIPE_COUNT_MAX) {
        return Err(bad(field, format_args!("{} OSTs, at most {STRIPE_COUNT_MAX}", osts.len())));
    }
    osts.iter().copied().map(ost_index).collect()
}

impl From<&StripePattern> for common::StripePattern {
    fn from(s: &StripePattern) -> common::StripePattern {
        common::StripePattern {
            pattern: common::Pattern::from(s.pattern).into(),
            stripe_size: s.stripe_size,
            stripe_count: u32::from(s.stripe_count),
            start_ost: s.start.map(|o| u32::from(o.0)),
            ost_list: osts_to_wire(&s.ost_list),
            pool: s.pool.as_ref().map(|p| p.to_string()).unwrap_or_default(),
        }
    }
}

impl TryFrom<common::StripePattern> for StripePattern {
    type Error = FsError;
    fn try_from(w: common::StripePattern) -> FsResult<StripePattern> {
        let stripe_count = u16::try_from(w.stripe_count)
            .ok()
            .filter(|n| *n <= STRIPE_COUNT_MAX || *n == STRIPE_COUNT_ALL)
            .ok_or_else(|| {
                bad("stripe_count", format_args!("{} is not 0 to {STRIPE_COUNT_MAX}, nor 65535", w.stripe_count))
            })?;
        Ok(StripePattern {
            pattern: pattern(w.pattern)?,
            stripe_size: w.stripe_size,
            stripe_count,
            start: w.start_ost.map(ost_index).transpose()?,
            ost_list: osts_from_wire(&w.ost_list, "ost_list")?,
            pool: if w.pool.is_empty() { None } else { Some(w.pool.parse()?) },
        })
    }
}

impl From<&Layout> for common::Layout {
    fn from(l: &Layout) -> common::Layout {
        let components = l
            .components
            .iter()
            .map(|c| common::Component {
                id: c.id.0,
                extent_start: c.extent.start,
                extent_end: c.extent.end,
                striping: Some((&c.striping).into()),
                osts: osts_to_wire(&c.osts),
            })
            .collect();
        common::Layout { generation: l.generation, components }
    }
}

impl TryFrom<common::Layout> for Layout {
    type Error = FsError;
    fn try_from(w: common::Layout) -> FsResult<Layout> {
        bounded(w.components.len())?;
        let components = w.components.into_iter().map(|c| {
            Ok(Component {
                id: ComponentId(c.id),
                extent: Extent { start: c.extent_start, end: c.extent_end },
                striping: required(c.striping, "striping")?.try_into()?,
                osts: osts_from_wire(&c.osts, "osts")?,
            })
        });
        let layout = Layout { generation: w.generation, components: components.collect::<FsResult<_>>()? };
        layout.validate()?;
        Ok(layout)
    }
}

impl From<&LayoutTemplate> for common::LayoutTemplate {
    fn from(t: &LayoutTemplate) -> common::LayoutTemplate {
        let components = t
            .components
            .iter()
            .map(|c| common::TemplateComponent {
                extent_start: c.extent.start,
                extent_end: c.extent.end,
                striping: Some((&c.striping).into()),
            })
            .collect();
        common::LayoutTemplate { components }
    }
}

impl TryFrom<common::LayoutTemplate> for LayoutTemplate {
    type Error = FsError;
    fn try_from(w: common::LayoutTemplate) -> FsResult<LayoutTemplate> {
        bounded(w.components.len())?;
        let components = w.components.into_iter().map(|c| {
            Ok(TemplateComponent {
                extent: Extent { start: c.extent_start, end: c.extent_end },
                striping: required(c.striping, "striping")?.try_into()?,
            })
        });
        let template = LayoutTemplate { components: components.collect::<FsResult<_>>()? };
        template.validate()?;
        Ok(template)
    }
}

fn bounded(components: usize) -> FsResult<()> {
    if components > COMPONENT_COUNT_MAX {
        return Err(bad("components", format_args!("{components}, at most {COMPONENT_COUNT_MAX}")));
    }
    Ok(())
}

impl From<Compression> for common::Compression {
    fn from(c: Compression) -> common::Compression {
        match c {
            Compression::None => common::Compression::None,
            Compression::Lz4 => common::Compression::Lz4,
        }
    }
}

impl TryFrom<common::Compression> for Compression {
    type Error = FsError;
    fn try_from(w: common::Compression) -> FsResult<Compression> {
        match w {
            common::Compression::None => Ok(Compression::None),
            common::Compression::Lz4 => Ok(Compression::Lz4),
            common::Compression::Unspecified => Err(bad("compression", "unspecified")),
        }
    }
}
