//! `lfs getstripe`: its options, and the values printed alone. Pure.

use sateen_types::{Component, Extent, Fid, Layout, OstIndex};

use super::getstripe_text::{Style, is_plain, pattern, stripe_count, stripe_offset};
use super::setstripe_args::ost_list;
use crate::getopt::{self, Arg, Spec, opt};

/// A value that can be printed alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `-c`
    Count,
    /// `-S`
    Size,
    /// `-i`
    Index,
    /// `-p`
    Pool,
    /// `-L`
    Layout,
    /// `-g`
    Generation,
    /// `-m`
    Mdt,
    /// `-F`
    Fid,
    /// `-N`
    MirrorCount,
    /// `-E`, `--component-end`
    ComponentEnd,
    /// `--component-start`
    ComponentStart,
    /// `-I` without a number
    ComponentId,
    /// `--component-flags`
    ComponentFlags,
    /// `--component-count`
    ComponentCount,
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct GetStripe {
    /// Form.
    pub style: Style,
    /// Values to print alone; empty prints all.
    pub fields: Vec<Field>,
    /// `-d`: the directory itself.
    pub directory: bool,
    /// `-r`.
    pub recursive: bool,
    /// `-O`: only files with an object on one of these; empty is all.
    pub osts: Vec<OstIndex>,
    /// `-I ID`: only this component.
    pub component: Option<u32>,
    /// Do not follow symbolic links.
    pub no_follow: bool,
    /// Files and directories.
    pub paths: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Field(Field),
    Id,
    Directory,
    Recursive,
    Quiet,
    Verbose,
    Yaml,
    Ost,
    HexIndex,
    NoFollow,
    Ignored,
}

const SPECS: &[Spec<Key>] = &[
    opt(Key::Field(Field::Count), 'c', &["stripe-count", "stripe_count"], Arg::None),
    opt(Key::Field(Field::Size), 'S', &["stripe-size", "stripe_size"], Arg::None),
    opt(Key::Field(Field::Index), 'i', &["stripe-index", "stripe_index"], Arg::None),
    opt(Key::Field(Field::Pool), 'p', &["pool"], Arg::None),
    opt(Key::Field(Field::Layout), 'L', &["layout"], Arg::None),
    opt(Key::Field(Field::Generation), 'g', &["generation"], Arg::None),
    opt(Key::Field(Field::Mdt), 'm', &["mdt", "mdt-index", "mdt_index"], Arg::None),
    opt(Key::Field(Field::Fid), 'F', &["fid"], Arg::None),
    opt(Key::Field(Field::MirrorCount), 'N', &["mirror-count"], Arg::None),
    opt(Key::Field(Field::ComponentEnd), 'E', &["component-end", "comp-end"], Arg::None),
    opt(Key::Field(Field::ComponentStart), '\0', &["component-start", "comp-start"], Arg::None),
    opt(Key::Field(Field::ComponentFlags), '\0', &["component-flags", "comp-flags"], Arg::None),
    opt(Key::Field(Field::ComponentCount), '\0', &["component-count", "comp-count"], Arg::None),
    opt(Key::Id, 'I', &["component-id", "comp-id"], Arg::Optional),
    opt(Key::Directory, 'd', &["directory"], Arg::None),
    opt(Key::Ignored, 'D', &["default"], Arg::None),
    opt(Key::Ignored, 'R', &["raw"], Arg::None),
    opt(Key::Recursive, 'r', &["recursive"], Arg::None),
    opt(Key::Quiet, 'q', &["quiet"], Arg::None),
    opt(Key::Verbose, 'v', &["verbose"], Arg::None),
    opt(Key::Yaml, 'y', &["yaml"], Arg::None),
    opt(Key::Ost, 'O', &["obd", "ost"], Arg::Required),
    opt(Key::HexIndex, '\0', &["hex-idx"], Arg::None),
    opt(Key::NoFollow, '\0', &["no-follow"], Arg::None),
];

/// Reads the words after `lfs getstripe`.
pub fn parse(words: &[String]) -> Result<GetStripe, String> {
    let parsed = getopt::parse(SPECS, words)?;
    let mut out = GetStripe {
        style: Style::default(),
        fields: Vec::new(),
        directory: false,
        recursive: false,
        osts: Vec::new(),
        component: None,
        no_follow: false,
        paths: parsed.operands,
    };
    for (key, value) in parsed.options {
        match key {
            Key::Field(field) => out.fields.push(field),
            Key::Id => match value {
                None => out.fields.push(Field::ComponentId),
                Some(v) => out.component = Some(v.parse().map_err(|_| format!("bad component id '{v}'"))?),
            },
            Key::Directory => out.directory = true,
            Key::Recursive => out.recursive = true,
            Key::Quiet => out.style.quiet = true,
            Key::Verbose => out.style.verbose = true,
            Key::Yaml => out.style.yaml = true,
            Key::HexIndex => out.style.hex_index = true,
            Key::NoFollow => out.no_follow = true,
            Key::Ignored => {}
            Key::Ost => {
                let value = value.unwrap_or_default();
                out.osts.extend(target_list(&value).ok_or_else(|| format!("bad OST '{value}'"))?);
            }
        }
    }
    if out.paths.is_empty() {
        return Err("no file or directory given".to_owned());
    }
    Ok(out)
}

/// OST numbers as a list, or one OST by its name (`scratch-OST001f` or `scratch-OST001f_UUID`).
pub fn target_list(text: &str) -> Option<Vec<OstIndex>> {
    match text.rsplit_once("-OST") {
        Some((_, hex)) => {
            let hex = hex.strip_suffix("_UUID").unwrap_or(hex);
            Some(vec![OstIndex(u16::from_str_radix(hex, 16).ok()?)])
        }
        None => ost_list(text),
    }
}

/// The component whose values stand for the whole file: the last instantiated one, else the first.
pub fn representative(layout: &Layout) -> &Component {
    layout.components.iter().rev().find(|c| c.is_instantiated()).unwrap_or(&layout.components[0])
}

/// The values asked for of a file: bare if it is one, else each behind its name.
pub fn values(fid: Fid, layout: &Layout, asked: &GetStripe) -> String {
    let chosen = match asked.component {
        Some(id) => match layout.components.iter().find(|c| c.id.0 == id) {
            Some(c) => c,
            None => return String::new(),
        },
        None => representative(layout),
    };
    let plain = is_plain(layout);
    let mut out = String::new();
    for field in &asked.fields {
        let end = if chosen.extent.end == Extent::EOF { "EOF".to_owned() } else { chosen.extent.end.to_string() };
        let hex = |n: i64| if asked.style.hex_index && n >= 0 { format!("{n:#x}") } else { n.to_string() };
        let (name, value) = match field {
            Field::Count => ("lmm_stripe_count:  ", stripe_count(chosen).to_string()),
            Field::Size => ("lmm_stripe_size:   ", chosen.striping.stripe_size.to_string()),
            Field::Index => ("lmm_stripe_offset: ", hex(stripe_offset(chosen))),
            Field::Pool => {
                ("lmm_pool:          ", chosen.striping.pool.as_ref().map_or_else(String::new, |p| p.to_string()))
            }
            Field::Layout => ("lmm_pattern:       ", pattern(chosen.striping.pattern).to_owned()),
            Field::Generation => ("lmm_layout_gen:    ", layout.generation.to_string()),
            Field::Mdt => ("lmm_mdt_index:     ", "0".to_owned()),
            Field::Fid => ("lmm_fid:           ", fid.to_string()),
            Field::MirrorCount => ("lcm_mirror_count:  ", "1".to_owned()),
            Field::ComponentEnd => ("lcme_extent.e_end:   ", end),
            Field::ComponentStart => ("lcme_extent.e_start: ", chosen.extent.start.to_string()),
            Field::ComponentId => ("lcme_id:             ", chosen.id.0.to_string()),
            Field::ComponentFlags => {
                ("lcme_flags:          ", if chosen.is_instantiated() { "init" } else { "0" }.to_owned())
            }
            Field::ComponentCount => {
                ("lcm_entry_count:   ", if plain { 0 } else { layout.components.len() }.to_string())
            }
        };
        if asked.fields.len() > 1 {
            out.push_str(name);
        }
        out.push_str(&value);
        out.push('\n');
    }
    out
}

/// Whether the file has an object on one of the OSTs asked for.
pub fn is_on(layout: &Layout, osts: &[OstIndex]) -> bool {
    osts.is_empty() || layout.components.iter().any(|c| c.osts.iter().any(|o| osts.contains(o)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sateen_types::{ComponentId, StripePattern};

    const FID: Fid = Fid { seq: 0x2_0000_0401, oid: 3, ver: 0 };

    fn parse_line(line: &str) -> Result<GetStripe, String> {
        parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    fn layout() -> Layout {
        let component = |id, start, end, count, osts: &[u16]| Component {
            id: ComponentId(id),
            extent: Extent { start, end },
            striping: StripePattern::raid0(count),
            osts: osts.iter().copied().map(OstIndex).collect(),
        };
        Layout {
            generation: 2,
            components: vec![
                component(1, 0, 1 << 20, 1, &[3]),
                component(2, 1 << 20, 4 << 20, 2, &[2, 0]),
                component(3, 4 << 20, Extent::EOF, 8, &[]),
            ],
        }
    }

    #[test]
    fn one_value_is_bare_and_is_that_of_the_last_instantiated_component() {
        for (line, want) in [
            ("-c f", "2\n"),
            ("-S f", "1048576\n"),
            ("-i f", "2\n"),
            ("-p f", "\n"),
            ("-L f", "raid0\n"),
            ("-g f", "2\n"),
            ("-m f", "0\n"),
            ("-E f", "4194304\n"),
            ("-F f", "[0x200000401:0x3:0x0]\n"),
            ("--component-count f", "3\n"),
            ("-I3 -E f", "EOF\n"),
            ("-I3 -c f", "8\n"),
            ("-I9 -c f", ""),
        ] {
            assert_eq!(values(FID, &layout(), &parse_line(line).expect(line)), want, "{line}");
        }
    }

    #[test]
    fn several_values_carry_their_names() {
        let got = values(FID, &layout(), &parse_line("-c -S f").expect("valid"));
        assert_eq!(got, "lmm_stripe_count:  2\nlmm_stripe_size:   1048576\n");
    }

    #[test]
    fn osts_are_chosen_by_number_list_or_name() {
        assert_eq!(target_list("1,3"), Some(vec![OstIndex(1), OstIndex(3)]));
        assert_eq!(target_list("scratch-OST001f_UUID"), Some(vec![OstIndex(31)]));
        assert!(is_on(&layout(), &[OstIndex(0)]) && !is_on(&layout(), &[OstIndex(1)]));
    }
}
