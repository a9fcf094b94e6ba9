//! `lfs find`: its tests, parsed, and what each says about a file. Pure.
//!
//! All tests are ANDed and their order has no meaning, as in Lustre. A numeric test takes `+N` (more), `-N` (less) or
//! `N` (as much, counted in whole units).

use sateen_types::{Layout, OstIndex, Pattern};

use super::getstripe_args::{representative, target_list};
use super::getstripe_text::{is_plain, stripe_count, stripe_offset};
use super::glob::glob;
use super::size::{find_size, stripe_bytes};

/// Most directories `lfs find` goes down.
const DEPTH_MAX: usize = 1024;

/// What was asked for.
#[derive(Debug)]
pub struct Find {
    /// Where to start.
    pub paths: Vec<String>,
    /// All must hold.
    pub tests: Vec<Test>,
    /// Deepest level looked at; the starting points are level 0.
    pub max_depth: usize,
    /// Highest level printed.
    pub min_depth: usize,
    /// What ends a printed path.
    pub end: u8,
}

/// One test, perhaps negated.
#[derive(Debug, PartialEq)]
pub struct Test {
    /// `!` stood before it.
    pub negated: bool,
    /// What is tested.
    pub what: What,
}

/// What is tested.
#[derive(Debug, PartialEq)]
pub enum What {
    /// The last part of the path matches a pattern.
    Name(String),
    /// The file type is one of these letters.
    Type(Vec<char>),
    /// Size in bytes.
    Size(Number),
    /// Links.
    Links(Number),
    /// Age of the data in seconds.
    Mtime(Number),
    /// Age of the last access in seconds.
    Atime(Number),
    /// Age of the last change in seconds.
    Ctime(Number),
    /// Owner.
    Uid(Number),
    /// Group.
    Gid(Number),
    /// Stripes.
    StripeCount(Number),
    /// Bytes of a stripe.
    StripeSize(Number),
    /// First OST.
    StripeIndex(Number),
    /// Has an object on one of these.
    Ost(Vec<OstIndex>),
    /// Components.
    ComponentCount(Number),
    /// Pool.
    Pool(String),
    /// Pattern.
    Layout(Pattern),
}

/// A number to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    sign: Sign,
    value: u64,
    /// Values are counted in units of this, rounded up for sizes and down for ages.
    unit: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Less,
    Equal,
    More,
}

/// What a file is, as far as tests ask.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Last part of the path.
    pub name: &'a str,
    /// `f`, `d`, `l`, `p`, `s`, `c`, `b`.
    pub file_type: char,
    /// Bytes.
    pub size: u64,
    /// Links.
    pub links: u64,
    /// Seconds since the last change of data, access, and change of attributes.
    pub ages: [u64; 3],
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Of a regular file, if a test needs it.
    pub layout: Option<&'a Layout>,
    /// Some of its bytes are only in its repository; known if a test needs it.
    pub released: bool,
}

impl Find {
    /// Whether a test needs layouts, which cost one more request per file.
    pub fn needs_layout(&self) -> bool {
        self.tests.iter().any(|t| {
            matches!(
                t.what,
                What::StripeCount(_)
                    | What::StripeSize(_)
                    | What::StripeIndex(_)
                    | What::Ost(_)
                    | What::ComponentCount(_)
                    | What::Pool(_)
                    | What::Layout(_)
            )
        })
    }

    /// Whether a test needs the state of files in their repositories, which costs one more request per file.
    pub fn needs_hsm(&self) -> bool {
        self.tests.iter().any(|t| t.what == What::Layout(Pattern::Released))
    }

    /// Whether all tests hold.
    pub fn matches(&self, facts: &Facts<'_>) -> bool {
        self.tests.iter().all(|t| t.what.holds(facts) != t.negated)
    }
}

impl Number {
    fn parse(text: &str, read: impl Fn(&str) -> Option<(u64, u64)>) -> Option<Number> {
        let (sign, rest) = match text.as_bytes().first()? {
            b'+' => (Sign::More, &text[1..]),
            b'-' => (Sign::Less, &text[1..]),
            _ => (Sign::Equal, text),
        };
        let (value, unit) = read(rest)?;
        Some(Number { sign, value, unit })
    }

    fn compare(self, units: u64) -> bool {
        match self.sign {
            Sign::Less => units < self.value,
            Sign::Equal => units == self.value,
            Sign::More => units > self.value,
        }
    }

    /// Sizes: a file of one byte takes one unit.
    fn holds_up(self, n: u64) -> bool {
        self.compare(n.div_ceil(self.unit))
    }

    /// Ages: a file changed an hour ago is 0 days old.
    fn holds_down(self, n: u64) -> bool {
        self.compare(n / self.unit)
    }
}

impl What {
    fn holds(&self, f: &Facts<'_>) -> bool {
        let of_layout = |test: &dyn Fn(&Layout) -> bool| f.layout.is_some_and(test);
        match self {
            What::Name(pattern) => glob(pattern.as_bytes(), f.name.as_bytes()),
            What::Type(letters) => letters.contains(&f.file_type),
            What::Size(n) => n.holds_up(f.size),
            What::Links(n) => n.holds_down(f.links),
            What::Mtime(n) => n.holds_down(f.ages[0]),
            What::Atime(n) => n.holds_down(f.ages[1]),
            What::Ctime(n) => n.holds_down(f.ages[2]),
            What::Uid(n) => n.holds_down(u64::from(f.uid)),
            What::Gid(n) => n.holds_down(u64::from(f.gid)),
            What::StripeCount(n) => {
                of_layout(&|l| u64::try_from(stripe_count(representative(l))).is_ok_and(|c| n.holds_down(c)))
            }
            What::StripeSize(n) => of_layout(&|l| n.holds_down(u64::from(representative(l).striping.stripe_size))),
            What::StripeIndex(n) => {
                of_layout(&|l| u64::try_from(stripe_offset(representative(l))).is_ok_and(|i| n.holds_down(i)))
            }
            What::Ost(osts) => of_layout(&|l| super::getstripe_args::is_on(l, osts)),
            What::ComponentCount(n) => {
                of_layout(&|l| n.holds_down(if is_plain(l) { 0 } else { l.components.len() as u64 }))
            }
            What::Pool(name) => {
                of_layout(&|l| l.components.iter().any(|c| c.striping.pool.as_ref().map_or("", |p| p.as_str()) == name))
            }
            What::Layout(Pattern::Released) => f.released,
            What::Layout(pattern) => of_layout(&|l| l.components.iter().any(|c| c.striping.pattern == *pattern)),
        }
    }
}

/// Reads the words after `lfs find`. User and group names are looked up by `ids`.
pub fn parse(words: &[String], ids: impl Fn(bool, &str) -> Option<u32>) -> Result<Find, String> {
    let mut find = Find { paths: Vec::new(), tests: Vec::new(), max_depth: DEPTH_MAX, min_depth: 0, end: b'\n' };
    let mut negated = false;
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        if word == "!" {
            negated = true;
            continue;
        }
        if !word.starts_with('-') || word.len() == 1 {
            find.paths.push(word.clone());
            continue;
        }
        let (option, attached) = match word.split_once('=') {
            Some((option, value)) if option.starts_with("--") => (option, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        let key = canonical(option)?;
        match key {
            "print" => {
                find.end = b'\n';
                continue;
            }
            "print0" => {
                find.end = 0;
                continue;
            }
            "lazy" => continue,
            _ => {}
        }
        let value = attached
            .or_else(|| words.next().cloned())
            .ok_or_else(|| format!("option '{option}' requires an argument"))?;
        let bad = || format!("bad value '{value}' of {option}");
        let plain = |t: &str| Some((t.parse().ok()?, 1));
        let number = || Number::parse(&value, plain).ok_or_else(bad);
        let id = |group: bool| match Number::parse(&value, plain) {
            Some(n) => Ok(n),
            None => ids(group, &value).map(|n| Number { sign: Sign::Equal, value: n.into(), unit: 1 }).ok_or_else(bad),
        };
        let what = match key {
            "maxdepth" => {
                find.max_depth = value.parse().map_err(|_| bad())?;
                continue;
            }
            "mindepth" => {
                find.min_depth = value.parse().map_err(|_| bad())?;
                continue;
            }
            "name" => What::Name(value.clone()),
            "type" => {
                let letters: Vec<char> = value.chars().filter(|c| *c != ',').collect();
                if letters.is_empty() || letters.iter().any(|c| !"bcdflps".contains(*c)) {
                    return Err(bad());
                }
                What::Type(letters)
            }
            "size" => What::Size(Number::parse(&value, find_size).ok_or_else(bad)?),
            "links" => What::Links(number()?),
            "mtime" => What::Mtime(Number::parse(&value, age).ok_or_else(bad)?),
            "atime" => What::Atime(Number::parse(&value, age).ok_or_else(bad)?),
            "ctime" => What::Ctime(Number::parse(&value, age).ok_or_else(bad)?),
            "uid" => What::Uid(id(false)?),
            "gid" => What::Gid(id(true)?),
            "stripe-count" => What::StripeCount(number()?),
            "stripe-size" => What::StripeSize(Number::parse(&value, |t| Some((stripe_bytes(t)?, 1))).ok_or_else(bad)?),
            "stripe-index" => What::StripeIndex(number()?),
            "ost" => What::Ost(target_list(&value).ok_or_else(bad)?),
            "component-count" => What::ComponentCount(number()?),
            "pool" => What::Pool(value.clone()),
            _ => What::Layout(match value.as_str() {
                "raid0" => Pattern::Raid0,
                "mdt" => Pattern::Mdt,
                "released" => Pattern::Released,
                _ => return Err(bad()),
            }),
        };
        find.tests.push(Test { negated: std::mem::take(&mut negated), what });
    }
    if find.paths.is_empty() {
        find.paths.push(".".to_owned());
    }
    Ok(find)
}

/// One name per option; long names may be written with one dash and shortened while unique.
fn canonical(option: &str) -> Result<&'static str, String> {
    const SHORT: [(&str, &str); 16] = [
        ("-A", "atime"),
        ("-C", "ctime"),
        ("-M", "mtime"),
        ("-n", "name"),
        ("-t", "type"),
        ("-s", "size"),
        ("-u", "uid"),
        ("-g", "gid"),
        ("-c", "stripe-count"),
        ("-S", "stripe-size"),
        ("-i", "stripe-index"),
        ("-O", "ost"),
        ("-L", "layout"),
        ("-D", "maxdepth"),
        ("-P", "print"),
        ("-0", "print0"),
    ];
    const LONG: [(&str, &str); 33] = [
        ("atime", "atime"),
        ("ctime", "ctime"),
        ("mtime", "mtime"),
        ("name", "name"),
        ("type", "type"),
        ("size", "size"),
        ("links", "links"),
        ("uid", "uid"),
        ("user", "uid"),
        ("gid", "gid"),
        ("group", "gid"),
        ("stripe-count", "stripe-count"),
        ("stripe_count", "stripe-count"),
        ("stripe-size", "stripe-size"),
        ("stripe_size", "stripe-size"),
        ("stripe-index", "stripe-index"),
        ("stripe_index", "stripe-index"),
        ("ost", "ost"),
        ("obd", "ost"),
        ("component-count", "component-count"),
        ("comp-count", "component-count"),
        ("component_count", "component-count"),
        ("pool", "pool"),
        ("layout", "layout"),
        ("maxdepth", "maxdepth"),
        ("mindepth", "mindepth"),
        ("print", "print"),
        ("print0", "print0"),
        ("null", "print0"),
        ("lazy", "lazy"),
        ("recursive", "lazy"),
        ("quiet", "lazy"),
        ("verbose", "lazy"),
    ];
    if let Some((_, key)) = SHORT.iter().find(|(s, _)| *s == option) {
        return Ok(key);
    }
    let name = option.trim_start_matches('-');
    if let Some((_, key)) = LONG.iter().find(|(l, _)| *l == name) {
        return Ok(key);
    }
    let mut keys: Vec<&str> = LONG.iter().filter(|(l, _)| l.starts_with(name)).map(|(_, k)| *k).collect();
    keys.dedup();
    match keys[..] {
        [key] => Ok(key),
        [] => Err(format!("unrecognized option '{option}'")),
        _ => Err(format!("option '{option}' is ambiguous")),
    }
}

/// An age: days, or numbers with units out of `smhdwy` added up (`8h20m`). The unit compared in is the smallest named.
fn age(text: &str) -> Option<(u64, u64)> {
    const DAY: u64 = 86_400;
    let mut seconds: u64 = 0;
    let mut unit = None;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let scale = match rest.chars().next() {
            None if unit.is_none() => DAY,
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => DAY,
            Some('w') => 7 * DAY,
            Some('y') => 365 * DAY,
            _ => return None,
        };
        rest = rest.get(1..).unwrap_or("");
        seconds = seconds.checked_add(number.checked_mul(scale)?)?;
        unit = Some(unit.map_or(scale, |u: u64| u.min(scale)));
    }
    let unit = unit?;
    Some((seconds / unit, unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sateen_types::StripePattern;
    use sateen_types::{Component, ComponentId, Extent};

    fn parse_line(line: &str) -> Result<Find, String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        parse(&words, |group, name| (!group && name == "root").then_some(0))
    }

    fn layout() -> Layout {
        let c = Component {
            id: ComponentId(1),
            extent: Extent { start: 0, end: Extent::EOF },
            striping: StripePattern::raid0(2),
            osts: vec![OstIndex(1), OstIndex(0)],
        };
        Layout { generation: 1, components: vec![c] }
    }

    fn holds(line: &str) -> bool {
        let layout = layout();
        let facts = Facts {
            name: "data.bin",
            file_type: 'f',
            size: 1025,
            links: 1,
            ages: [90_000, 10, 3600],
            uid: 0,
            gid: 100,
            layout: Some(&layout),
            released: true,
        };
        parse_line(line).expect(line).matches(&facts)
    }

    #[test]
    fn tests_hold_or_not() {
        for line in [
            "d --name *.bin",
            "d -name data.*",
            "d -type f",
            "d --type=f,d",
            "d -size +1k",
            "d -size 3",
            "d -size 1025c",
            "d -size -2M",
            "d -mtime 1",
            "d -mtime +23h",
            "d -atime -1m",
            "d --ctime 1h",
            "d -user root",
            "d -uid 0",
            "d -gid 100",
            "d ! -gid 0",
            "d -stripe-count 2",
            "d -c +1",
            "d -S 1M",
            "d -i 1",
            "d -ost 0,7",
            "d --component-count 0",
            "d -L raid0",
            "d -L released",
            "d ! --pool flash",
            "d --links 1",
            "d -type f ! -name x -size +1c",
        ] {
            assert!(holds(line), "{line}");
        }
        for line in [
            "d -name *.txt",
            "d -type d",
            "d -size +2k",
            // Sizes are rounded up to the unit: only an empty file has less than one.
            "d -size -1M",
            "d -mtime +1",
            "d -gid 0",
            "d ! -type f",
            "d -ost 5",
            "d -stripe-size 64K",
            "d --pool flash",
            "d -L mdt",
            "d ! -L released",
            "d -type f -name x",
        ] {
            assert!(!holds(line), "{line}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for line in
            ["d -type x", "d -size big", "d -mtime 1q", "d --nam", "d -uid nobody-here", "d -frob 1", "d -L raid9"]
        {
            assert!(parse_line(line).is_err() || line == "d --nam", "{line}");
        }
        assert!(parse_line("d --nam").expect_err("no value").contains("requires"));
        assert!(parse_line("d --s 1").expect_err("prefix").contains("ambiguous"));
    }

    #[test]
    fn paths_depths_and_output_are_read() {
        let find = parse_line("a b -maxdepth 2 --mindepth 1 -print0").expect("valid");
        assert_eq!(find.paths, ["a", "b"]);
        assert_eq!((find.max_depth, find.min_depth, find.end), (2, 1, 0));
        assert_eq!(parse_line("-type f").expect("valid").paths, ["."]);
    }
}
