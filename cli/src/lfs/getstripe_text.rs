//! What `lfs getstripe` prints. Pure: a layout in, Lustre 2.15's text out, byte for byte.
//!
//! A layout of one component that covers the whole file is printed as a plain one, anything else as a composite.
//! Lustre names an object by a FID of its own; ours is named by the file's FID, its component and its stripe, so
//! `l_fid` shows the file's sequence and object id with `component << 16 | stripe` in place of the version.

use std::fmt::Write;

use sateen_types::layout::{STRIPE_COUNT_ALL, TemplateComponent};
use sateen_types::{Component, Extent, Fid, Layout, LayoutTemplate, Pattern, StripePattern};

/// How much and in which form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// `-v`: magic numbers, sizes, flags.
    pub verbose: bool,
    /// `-q`: objects only.
    pub quiet: bool,
    /// `-y`.
    pub yaml: bool,
    /// `--hex-idx`.
    pub hex_index: bool,
}

const MAGIC_V1: u32 = 0x0BD1_0BD0;
const MAGIC_V3: u32 = 0x0BD3_0BD0;
const MAGIC_COMPOSITE: u32 = 0x0BD6_0BD0;
/// Bytes of Lustre's on-disk structures, for `lcm_size`, `lcme_offset` and `lcme_size`.
const COMPOSITE_HEADER_BYTES: usize = 32;
const ENTRY_BYTES: usize = 48;
const PLAIN_BYTES: usize = 32;
const POOL_BYTES: usize = 16;
const OBJECT_BYTES: usize = 24;

/// Whether a file's layout is shown without components.
pub fn is_plain(layout: &Layout) -> bool {
    matches!(&layout.components[..], [c] if c.extent == Extent { start: 0, end: Extent::EOF })
}

fn is_plain_template(layout: &LayoutTemplate) -> bool {
    matches!(&layout.components[..], [c] if c.extent == Extent { start: 0, end: Extent::EOF })
}

/// The pattern's name.
pub fn pattern(p: Pattern) -> &'static str {
    match p {
        Pattern::Raid0 => "raid0",
        Pattern::Mdt => "mdt",
        Pattern::Released => "raid0,released",
    }
}

/// Stripes of a component: those it has, else those wanted; -1 for all.
pub fn stripe_count(c: &Component) -> i64 {
    if c.is_instantiated() { c.osts.len() as i64 } else { wanted_count(&c.striping) }
}

fn wanted_count(s: &StripePattern) -> i64 {
    match s.stripe_count {
        STRIPE_COUNT_ALL => -1,
        0 => 1,
        n => i64::from(n),
    }
}

fn wanted_size(s: &StripePattern) -> u32 {
    if s.stripe_size == 0 { sateen_types::limits::STRIPE_SIZE_DEFAULT } else { s.stripe_size }
}

/// Index of the first OST; -1 while none is chosen or asked for.
pub fn stripe_offset(c: &Component) -> i64 {
    c.osts.first().or(c.striping.start.as_ref()).map_or(-1, |o| i64::from(o.0))
}

/// An object's identity in Lustre's form.
fn object_fid(fid: Fid, component: &Component, stripe: usize) -> Fid {
    Fid { ver: component.id.0 << 16 | stripe as u32, ..fid }
}

fn index(n: i64, style: Style) -> String {
    if style.hex_index && n >= 0 { format!("{n:#x}") } else { n.to_string() }
}

/// A file: its path line, its layout, the blank line that ends it.
pub fn file(path: &str, fid: Fid, layout: &Layout, style: Style) -> String {
    let mut out = String::new();
    if !style.yaml {
        let _ = writeln!(out, "{path}");
    }
    if is_plain(layout) {
        plain(&mut out, fid, layout, style);
    } else {
        composite(&mut out, fid, layout, style);
    }
    out.push('\n');
    out
}

fn plain(out: &mut String, fid: Fid, layout: &Layout, style: Style) {
    let c = &layout.components[0];
    if !style.quiet {
        if style.verbose {
            let _ = writeln!(out, "lmm_magic:         {:#010X}", magic(&c.striping));
            let _ = writeln!(out, "lmm_seq:           {:#x}", fid.seq);
            let _ = writeln!(out, "lmm_object_id:     {:#x}", fid.oid);
            let _ = writeln!(out, "lmm_fid:           {fid}");
        }
        fields(out, "", c, u64::from(layout.generation), style);
    }
    if style.yaml {
        yaml_objects(out, "", fid, c);
    } else if c.is_instantiated() && c.striping.pattern == Pattern::Raid0 {
        out.push_str("\tobdidx\t\t objid\t\t objid\t\t group\n");
        for ost in &c.osts {
            let shown = index(i64::from(ost.0), style);
            let _ = writeln!(out, "\t{shown:>6}\t{:>14}\t{:>#13x}\t{:>#14x}", fid.oid, fid.oid, fid.seq);
        }
    }
}

fn magic(s: &StripePattern) -> u32 {
    if s.pool.is_some() { MAGIC_V3 } else { MAGIC_V1 }
}

/// The `lmm_` fields of one component, each line behind `indent`.
fn fields(out: &mut String, indent: &str, c: &Component, generation: u64, style: Style) {
    let _ = writeln!(out, "{indent}lmm_stripe_count:  {}", stripe_count(c));
    let _ = writeln!(out, "{indent}lmm_stripe_size:   {}", c.striping.stripe_size);
    let _ = writeln!(out, "{indent}lmm_pattern:       {}", pattern(c.striping.pattern));
    let _ = writeln!(out, "{indent}lmm_layout_gen:    {generation}");
    let _ = writeln!(out, "{indent}lmm_stripe_offset: {}", index(stripe_offset(c), style));
    if let Some(pool) = &c.striping.pool {
        let _ = writeln!(out, "{indent}lmm_pool:          {pool}");
    }
}

fn yaml_objects(out: &mut String, indent: &str, fid: Fid, c: &Component) {
    if c.is_instantiated() {
        let _ = writeln!(out, "{indent}lmm_objects:");
        for (i, ost) in c.osts.iter().enumerate() {
            let object = object_fid(fid, c, i).to_string();
            let _ = writeln!(out, "{indent}- l_ost_idx: {}", ost.0);
            let _ = writeln!(out, "{indent}  l_fid:     {}", object.trim_matches(['[', ']']));
        }
    }
}

fn flags(c: &Component) -> &'static str {
    if c.is_instantiated() { "init" } else { "0" }
}

fn end_text(end: u64) -> String {
    if end == Extent::EOF { "EOF".to_owned() } else { end.to_string() }
}

fn sub_bytes(c: &Component) -> usize {
    PLAIN_BYTES + if c.striping.pool.is_some() { POOL_BYTES } else { 0 } + c.osts.len() * OBJECT_BYTES
}

fn composite(out: &mut String, fid: Fid, layout: &Layout, style: Style) {
    let count = layout.components.len();
    if !style.quiet {
        if style.verbose {
            let size: usize =
                COMPOSITE_HEADER_BYTES + layout.components.iter().map(|c| ENTRY_BYTES + sub_bytes(c)).sum::<usize>();
            let _ = writeln!(out, "composite_header:");
            let _ = writeln!(out, "  lcm_magic:         {MAGIC_COMPOSITE:#010X}");
            let _ = writeln!(out, "  lcm_size:          {size}");
            let _ = writeln!(out, "  lcm_flags:         0");
        }
        let _ = writeln!(out, "  lcm_layout_gen:    {}", layout.generation);
        let _ = writeln!(out, "  lcm_mirror_count:  1");
        let _ = writeln!(out, "  lcm_entry_count:   {count}");
    }
    let listed = style.verbose || style.yaml;
    if listed {
        out.push_str(if style.yaml { "  components:\n" } else { "components:\n" });
    }
    let mut offset = COMPOSITE_HEADER_BYTES + ENTRY_BYTES * count;
    for (i, c) in layout.components.iter().enumerate() {
        let first = if listed { "  - " } else { "    " };
        let _ = writeln!(out, "{first}lcme_id:             {}", c.id.0);
        let _ = writeln!(out, "    lcme_mirror_id:      0");
        let _ = writeln!(out, "    lcme_flags:          {}", flags(c));
        let _ = writeln!(out, "    lcme_extent.e_start: {}", c.extent.start);
        let _ = writeln!(out, "    lcme_extent.e_end:   {}", end_text(c.extent.end));
        if style.verbose {
            let _ = writeln!(out, "    lcme_offset:         {offset}");
            let _ = writeln!(out, "    lcme_size:           {}", sub_bytes(c));
            offset += sub_bytes(c);
        }
        if listed {
            let _ = writeln!(out, "    sub_layout:");
            if style.verbose {
                let _ = writeln!(out, "      lmm_magic:         {:#010X}", magic(&c.striping));
                let _ = writeln!(out, "      lmm_seq:           {:#x}", fid.seq);
                let _ = writeln!(out, "      lmm_object_id:     {:#x}", fid.oid);
                let _ = writeln!(out, "      lmm_fid:           {fid}");
            }
        }
        fields(out, "      ", c, 0, style);
        if style.yaml {
            yaml_objects(out, "      ", fid, c);
        } else if c.is_instantiated() {
            let _ = writeln!(out, "      lmm_objects:");
            for (n, ost) in c.osts.iter().enumerate() {
                let shown = index(i64::from(ost.0), style);
                let _ = writeln!(out, "      - {n}: {{ l_ost_idx: {shown}, l_fid: {} }}", object_fid(fid, c, n));
            }
        }
        if i + 1 < count {
            out.push('\n');
        }
    }
}

/// A directory's default layout: its path line, the layout, the blank line that ends it.
pub fn directory(path: &str, layout: &LayoutTemplate, style: Style) -> String {
    let mut out = String::new();
    if !style.yaml {
        let _ = writeln!(out, "{path}");
    }
    if is_plain_template(layout) {
        let s = &layout.components[0].striping;
        let start = s.start.map_or(-1, |o| i64::from(o.0));
        let _ = write!(
            out,
            "stripe_count:  {} stripe_size:   {} pattern:       {} stripe_offset: {}",
            wanted_count(s),
            wanted_size(s),
            pattern(s.pattern),
            index(start, style),
        );
        if let Some(pool) = &s.pool {
            let _ = write!(out, " pool:          {pool}");
        }
        out.push('\n');
    } else {
        directory_components(&mut out, layout, style);
    }
    out.push('\n');
    out
}

fn directory_components(out: &mut String, layout: &LayoutTemplate, style: Style) {
    let _ = writeln!(out, "  lcm_layout_gen:    0");
    let _ = writeln!(out, "  lcm_mirror_count:  1");
    let _ = writeln!(out, "  lcm_entry_count:   {}", layout.components.len());
    let listed = style.verbose || style.yaml;
    if listed {
        out.push_str("  components:\n");
    }
    let last = layout.components.len().saturating_sub(1);
    for (i, TemplateComponent { extent, striping }) in layout.components.iter().enumerate() {
        let _ = writeln!(out, "{}lcme_id:             N/A", if listed { "  - " } else { "    " });
        let _ = writeln!(out, "    lcme_mirror_id:      N/A");
        let _ = writeln!(out, "    lcme_flags:          0");
        let _ = writeln!(out, "    lcme_extent.e_start: {}", extent.start);
        let _ = writeln!(out, "    lcme_extent.e_end:   {}", end_text(extent.end));
        if listed {
            let _ = writeln!(out, "    sub_layout:");
        }
        let start = striping.start.map_or(-1, |o| i64::from(o.0));
        let _ = writeln!(out, "      stripe_count:  {}", wanted_count(striping));
        let _ = writeln!(out, "      stripe_size:   {}", wanted_size(striping));
        let _ = writeln!(out, "      pattern:       {}", pattern(striping.pattern));
        let _ = writeln!(out, "      stripe_offset: {}", index(start, style));
        if let Some(pool) = &striping.pool {
            let _ = writeln!(out, "      pool:          {pool}");
        }
        if i < last {
            out.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sateen_types::{ComponentId, OstIndex};

    const FID: Fid = Fid { seq: 0x2_0000_0401, oid: 3, ver: 0 };

    fn component(id: u32, start: u64, end: u64, count: u16, osts: &[u16]) -> Component {
        Component {
            id: ComponentId(id),
            extent: Extent { start, end },
            striping: StripePattern::raid0(count),
            osts: osts.iter().copied().map(OstIndex).collect(),
        }
    }

    fn plain_layout() -> Layout {
        let mut c = component(1, 0, Extent::EOF, 2, &[1, 0]);
        c.striping.pool = Some("flash".parse().expect("name"));
        Layout { generation: 0, components: vec![c] }
    }

    fn composite_layout() -> Layout {
        let components = vec![component(1, 0, 1 << 20, 1, &[0]), component(2, 1 << 20, Extent::EOF, 2, &[])];
        Layout { generation: 3, components }
    }

    #[test]
    fn a_plain_file_looks_as_in_lustre() {
        let want = "/mnt/l/f\nlmm_stripe_count:  2\nlmm_stripe_size:   1048576\nlmm_pattern:       raid0\n\
                    lmm_layout_gen:    0\nlmm_stripe_offset: 1\nlmm_pool:          flash\n\
                    \tobdidx\t\t objid\t\t objid\t\t group\n\
                    \t     1\t             3\t          0x3\t   0x200000401\n\
                    \t     0\t             3\t          0x3\t   0x200000401\n\n";
        assert_eq!(file("/mnt/l/f", FID, &plain_layout(), Style::default()), want);
    }

    #[test]
    fn verbose_adds_the_identity_and_quiet_drops_the_fields() {
        let verbose = file("f", FID, &plain_layout(), Style { verbose: true, ..Style::default() });
        assert!(verbose.starts_with(
            "f\nlmm_magic:         0x0BD30BD0\nlmm_seq:           0x200000401\nlmm_object_id:     0x3\n\
             lmm_fid:           [0x200000401:0x3:0x0]\nlmm_stripe_count:  2\n"
        ));
        let quiet = file("f", FID, &plain_layout(), Style { quiet: true, ..Style::default() });
        assert!(quiet.starts_with("f\n\tobdidx\t\t objid"));
    }

    #[test]
    fn a_composite_file_looks_as_in_lustre() {
        let want = "\
/mnt/l/p
  lcm_layout_gen:    3
  lcm_mirror_count:  1
  lcm_entry_count:   2
    lcme_id:             1
    lcme_mirror_id:      0
    lcme_flags:          init
    lcme_extent.e_start: 0
    lcme_extent.e_end:   1048576
      lmm_stripe_count:  1
      lmm_stripe_size:   1048576
      lmm_pattern:       raid0
      lmm_layout_gen:    0
      lmm_stripe_offset: 0
      lmm_objects:
      - 0: { l_ost_idx: 0, l_fid: [0x200000401:0x3:0x10000] }

    lcme_id:             2
    lcme_mirror_id:      0
    lcme_flags:          0
    lcme_extent.e_start: 1048576
    lcme_extent.e_end:   EOF
      lmm_stripe_count:  2
      lmm_stripe_size:   1048576
      lmm_pattern:       raid0
      lmm_layout_gen:    0
      lmm_stripe_offset: -1

";
        assert_eq!(file("/mnt/l/p", FID, &composite_layout(), Style::default()), want);
    }

    #[test]
    fn yaml_is_a_list_of_components_with_bare_fids() {
        let yaml = file("p", FID, &composite_layout(), Style { yaml: true, ..Style::default() });
        assert!(yaml.starts_with("  lcm_layout_gen:    3\n"));
        assert!(yaml.contains("  components:\n  - lcme_id:             1\n"));
        assert!(yaml.contains("    sub_layout:\n      lmm_stripe_count:  1\n"));
        assert!(yaml.contains("      - l_ost_idx: 0\n        l_fid:     0x200000401:0x3:0x10000\n"));
    }

    #[test]
    fn a_plain_directory_default_is_one_line() {
        let mut s = StripePattern::raid0(4);
        s.stripe_size = 256 << 10;
        let want = "d\nstripe_count:  4 stripe_size:   262144 pattern:       raid0 stripe_offset: -1\n\n";
        assert_eq!(directory("d", &LayoutTemplate::plain(s), Style::default()), want);
    }

    #[test]
    fn a_composite_directory_default_has_no_ids() {
        let text = directory("d", &LayoutTemplate::default(), Style::default());
        assert!(text.starts_with("d\n  lcm_layout_gen:    0\n  lcm_mirror_count:  1\n  lcm_entry_count:   4\n"));
        assert_eq!(text.matches("lcme_id:             N/A\n").count(), 4);
        assert!(text.contains("      stripe_count:  32\n"));
        assert!(text.ends_with("stripe_offset: -1\n\n"));
    }
}
