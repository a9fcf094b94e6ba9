//! `lfs setstripe`: from words to a layout template. Pure.

use sateen_types::layout::{STRIPE_COUNT_ALL, TemplateComponent};
use sateen_types::limits::STRIPE_COUNT_MAX;
use sateen_types::{Extent, LayoutTemplate, OstIndex, Pattern, StripePattern};

use super::size::{component_end, stripe_bytes};
use crate::getopt::{self, Arg, Spec, opt};

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct SetStripe {
    /// Layout to give; `None` with `-d` or `--copy`.
    pub layout: Option<LayoutTemplate>,
    /// Take the layout of this file or directory.
    pub copy: Option<String>,
    /// Remove the directory's default.
    pub delete: bool,
    /// Permissions of a file that is made.
    pub mode: Option<u32>,
    /// Files and directories.
    pub paths: Vec<String>,
}

/// Why the words were refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// Not a valid command line.
    Usage(String),
    /// An option of Lustre that this version does not have.
    NotSupported(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Count,
    Overstripe,
    Size,
    Index,
    Ost,
    Pool,
    End,
    Layout,
    Delete,
    Copy,
    Mode,
    Unsupported(&'static str),
}

const SPECS: &[Spec<Key>] = &[
    opt(Key::Count, 'c', &["stripe-count", "stripe_count"], Arg::Required),
    opt(Key::Overstripe, 'C', &["overstripe-count"], Arg::Required),
    opt(Key::Size, 'S', &["stripe-size", "stripe_size"], Arg::Required),
    opt(Key::Index, 'i', &["stripe-index", "stripe_index"], Arg::Required),
    opt(Key::Ost, 'o', &["ost", "ost-list", "ost_list"], Arg::Required),
    opt(Key::Pool, 'p', &["pool"], Arg::Required),
    opt(Key::End, 'E', &["component-end", "comp-end"], Arg::Required),
    opt(Key::Layout, 'L', &["layout"], Arg::Required),
    opt(Key::Delete, 'd', &["delete"], Arg::None),
    opt(Key::Copy, '\0', &["copy"], Arg::Required),
    opt(Key::Mode, '\0', &["mode"], Arg::Required),
    opt(Key::Unsupported("-z (self-extending layouts)"), 'z', &["extension-size", "ext-size"], Arg::Required),
    opt(Key::Unsupported("-N (mirrors)"), 'N', &["mirror-count"], Arg::Optional),
    opt(Key::Unsupported("-I"), 'I', &["component-id", "comp-id"], Arg::Required),
    opt(Key::Unsupported("-y (YAML templates)"), 'y', &["yaml"], Arg::Required),
    opt(Key::Unsupported("--component-add"), '\0', &["component-add", "comp-add"], Arg::None),
    opt(Key::Unsupported("--component-del"), '\0', &["component-del", "comp-del"], Arg::None),
    opt(Key::Unsupported("--component-set"), '\0', &["component-set", "comp-set"], Arg::None),
    opt(Key::Unsupported("--component-flags"), '\0', &["component-flags", "comp-flags"], Arg::Required),
    opt(Key::Unsupported("--foreign"), '\0', &["foreign"], Arg::Optional),
    opt(Key::Unsupported("--ec (erasure coding)"), '\0', &["ec", "ec-expert"], Arg::Required),
];

/// A component that says nothing yet: everything inherited.
fn unset() -> StripePattern {
    StripePattern { stripe_size: 0, stripe_count: 0, ..StripePattern::raid0(1) }
}

/// Reads the words after `lfs setstripe`.
pub fn parse(words: &[String]) -> Result<SetStripe, Refused> {
    let usage = |message: String| Refused::Usage(message);
    let parsed = getopt::parse(SPECS, words).map_err(usage)?;
    let mut out = SetStripe { layout: None, copy: None, delete: false, mode: None, paths: parsed.operands };
    let mut components: Vec<TemplateComponent> = Vec::new();
    let mut current = unset();
    let mut count_given = false;
    let mut end: Option<u64> = None;
    let mut striping_given = false;
    for (key, value) in parsed.options {
        let value = value.unwrap_or_default();
        match key {
            Key::Unsupported(what) => return Err(Refused::NotSupported(what.to_owned())),
            Key::Delete => out.delete = true,
            Key::Copy => out.copy = Some(value),
            Key::Mode => {
                let mode = u32::from_str_radix(&value, 8).ok().filter(|m| *m <= 0o7777);
                out.mode = Some(mode.ok_or_else(|| usage(format!("bad mode '{value}'")))?);
                continue;
            }
            Key::Count => {
                current.stripe_count =
                    stripe_count(&value).ok_or_else(|| usage(format!("bad stripe count '{value}'")))?;
                count_given = true;
            }
            Key::Overstripe => {
                let count = stripe_count(&value).ok_or_else(|| usage(format!("bad stripe count '{value}'")))?;
                if value.starts_with('-') || count > 1 {
                    return Err(Refused::NotSupported("-C (overstriping)".to_owned()));
                }
                current.stripe_count = count;
                count_given = true;
            }
            Key::Size => {
                let bytes = stripe_bytes(&value).and_then(|b| u32::try_from(b).ok());
                current.stripe_size = bytes.ok_or_else(|| usage(format!("bad stripe size '{value}'")))?;
            }
            Key::Index => {
                current.start = match value.as_str() {
                    "-1" => None,
                    v => Some(OstIndex(v.parse().map_err(|_| usage(format!("bad stripe offset '{value}'")))?)),
                };
            }
            Key::Ost => {
                current.ost_list.extend(ost_list(&value).ok_or_else(|| usage(format!("bad OST list '{value}'")))?)
            }
            Key::Pool => {
                current.pool = match value.as_str() {
                    "" | "inherit" | "ignore" | "none" => None,
                    name => {
                        // Lustre also takes FSNAME.POOL.
                        let name = name.rsplit('.').next().unwrap_or(name);
                        Some(name.parse().map_err(|_| usage(format!("bad pool name '{value}'")))?)
                    }
                };
            }
            Key::Layout => {
                current.pattern = match value.as_str() {
                    "raid0" => Pattern::Raid0,
                    "mdt" => Pattern::Mdt,
                    _ => return Err(usage(format!("bad layout pattern '{value}'"))),
                };
            }
            Key::End => {
                let next = component_end(&value).ok_or_else(|| usage(format!("bad component end '{value}'")))?;
                if let Some(finished) = end {
                    push(&mut components, std::mem::replace(&mut current, unset()), finished, count_given)?;
                    count_given = false;
                }
                end = Some(next);
            }
        }
        striping_given |= !matches!(key, Key::Delete | Key::Copy);
    }
    if out.paths.is_empty() {
        return Err(usage("no file or directory given".to_owned()));
    }
    if usize::from(out.delete) + usize::from(out.copy.is_some()) + usize::from(striping_given) > 1 {
        return Err(usage("-d and --copy exclude each other and all striping options".to_owned()));
    }
    if !out.delete && out.copy.is_none() {
        push(&mut components, current, end.unwrap_or(Extent::EOF), count_given)?;
        let layout = LayoutTemplate { components };
        layout.validate().map_err(|e| usage(e.message))?;
        out.layout = Some(layout);
    }
    Ok(out)
}

fn push(
    components: &mut Vec<TemplateComponent>,
    mut striping: StripePattern,
    end: u64,
    count_given: bool,
) -> Result<(), Refused> {
    let start = components.last().map_or(0, |c: &TemplateComponent| c.extent.end);
    if !striping.ost_list.is_empty() && !count_given {
        striping.stripe_count = u16::try_from(striping.ost_list.len())
            .map_err(|_| Refused::Usage("the OST list is too long".to_owned()))?;
    }
    if end <= start {
        return Err(Refused::Usage(format!("component end {end} is not above {start}, the end of the one before")));
    }
    components.push(TemplateComponent { extent: Extent { start, end }, striping });
    Ok(())
}

/// 0 inherits, -1 is all OSTs.
fn stripe_count(text: &str) -> Option<u16> {
    match text {
        "-1" => Some(STRIPE_COUNT_ALL),
        _ => text.parse().ok().filter(|n| *n <= STRIPE_COUNT_MAX),
    }
}

/// `1,2-4,7`; numbers may be hexadecimal (`0x1f`).
pub fn ost_list(text: &str) -> Option<Vec<OstIndex>> {
    let number = |t: &str| match t.strip_prefix("0x") {
        Some(hex) => u16::from_str_radix(hex, 16).ok(),
        None => t.parse::<u16>().ok(),
    };
    let mut out = Vec::new();
    for item in text.split(',') {
        let (first, last) = match item.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(item)?, number(item)?),
        };
        if first > last || out.len() + usize::from(last - first) >= usize::from(STRIPE_COUNT_MAX) {
            return None;
        }
        out.extend((first..=last).map(OstIndex));
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<SetStripe, Refused> {
        parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    fn components(line: &str) -> Vec<(u64, u16, u32)> {
        let layout = parse_line(line).expect(line).layout.expect("a layout");
        layout.components.iter().map(|c| (c.extent.end, c.striping.stripe_count, c.striping.stripe_size)).collect()
    }

    #[test]
    fn the_examples_of_the_manual_page_are_understood() {
        const EOF: u64 = u64::MAX;
        assert_eq!(components("-c -1 d"), [(EOF, STRIPE_COUNT_ALL, 0)]);
        assert_eq!(components("-S 1M -c 4 -i 0 f"), [(EOF, 4, 1 << 20)]);
        assert_eq!(components("-c 4 -S 256K d"), [(EOF, 4, 256 << 10)]);
        assert_eq!(components("-S 64 d"), [(EOF, 0, 64 << 10)]);
        assert_eq!(
            components("-E 100M -c 1 -E 10G -c 8 -E 100G -c 16 -E -1 -c 32 d"),
            [(100 << 20, 1, 0), (10 << 30, 8, 0), (100 << 30, 16, 0), (EOF, 32, 0)]
        );
        assert_eq!(components("-E 1M -S 128K -E eof -c 2 d"), [(1 << 20, 0, 128 << 10), (EOF, 2, 0)]);
    }

    #[test]
    fn an_ost_list_gives_the_count_and_must_agree_with_one_that_is_given() {
        let got = parse_line("-o 1,3-4 f").expect("valid").layout.expect("layout");
        assert_eq!(got.components[0].striping.stripe_count, 3);
        assert_eq!(got.components[0].striping.ost_list, [OstIndex(1), OstIndex(3), OstIndex(4)]);
        assert!(matches!(parse_line("-o 1,2 -c 3 f"), Err(Refused::Usage(_))));
        assert!(matches!(parse_line("-o 1,1 f"), Err(Refused::Usage(_))));
        assert_eq!(ost_list("0x1f"), Some(vec![OstIndex(31)]));
        assert_eq!(ost_list("4-2"), None);
        assert_eq!(ost_list("0-65535"), None);
    }

    #[test]
    fn delete_stands_alone() {
        assert!(parse_line("-d dir").expect("valid").delete);
        assert!(matches!(parse_line("-d -c 1 dir"), Err(Refused::Usage(_))));
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_value() {
        for (line, value) in [
            ("-S 4097 f", "4097"),
            ("-S 1X f", "1X"),
            ("-c 2001 f", "2001"),
            ("-i -2 f", "-2"),
            ("-E 1M -E 1M f", "1048576"),
            ("-E 100K f", "102400"),
            ("-L raid5 f", "raid5"),
            ("--mode 9 f", "9"),
        ] {
            match parse_line(line) {
                Err(Refused::Usage(message)) => assert!(message.contains(value), "{line}: {message}"),
                other => panic!("{line}: {other:?}"),
            }
        }
        assert!(matches!(parse_line("-c 1"), Err(Refused::Usage(_))));
        assert!(matches!(parse_line("-N2 f"), Err(Refused::NotSupported(_))));
    }
}
