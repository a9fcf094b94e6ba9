//! Options the way `getopt_long` reads them, because scripts rely on it: `-c4`, `-c 4`, `-c -1`, `--stripe-count=4`,
//! `--stripe-c 4` (a unique prefix), options after operands, `--` ends them.
//!
//! clap does not read these forms (a value that begins with `-`, prefixes, the order of `-E` and what follows it).

/// Whether an option takes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A switch.
    None,
    /// Always; the next word if nothing is attached.
    Required,
    /// Only if attached (`-N2`, `--name=value`).
    Optional,
}

/// One option: its name in our code, its letter, its long names.
#[derive(Clone, Copy, Debug)]
pub struct Spec<K> {
    /// What it is called in our code.
    pub key: K,
    /// Letter, or `'\0'` for none.
    pub short: char,
    /// Long names, all meaning the same.
    pub long: &'static [&'static str],
    /// Whether it takes a value.
    pub arg: Arg,
}

/// Shorthand for a table of options.
pub const fn opt<K>(key: K, short: char, long: &'static [&'static str], arg: Arg) -> Spec<K> {
    Spec { key, short, long, arg }
}

/// What the words said.
#[derive(Debug, PartialEq, Eq)]
pub struct Parsed<K> {
    /// Options in the order given, each with its value.
    pub options: Vec<(K, Option<String>)>,
    /// Everything else, in order.
    pub operands: Vec<String>,
}

/// Reads `words` by the table `specs`. The error is what `getopt` would say.
pub fn parse<K: Copy + PartialEq>(specs: &[Spec<K>], words: &[String]) -> Result<Parsed<K>, String> {
    let mut parsed = Parsed { options: Vec::new(), operands: Vec::new() };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            parsed.operands.extend(words.cloned());
            break;
        } else if let Some(name) = word.strip_prefix("--") {
            let (name, attached) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, None),
            };
            let spec = find_long(specs, name)?;
            let value = match (spec.arg, attached) {
                (Arg::None, Some(_)) => return Err(format!("option '--{name}' doesn't allow an argument")),
                (Arg::Required, None) => {
                    let next = words.next().cloned();
                    Some(next.ok_or_else(|| format!("option '--{name}' requires an argument"))?)
                }
                (_, attached) => attached,
            };
            parsed.options.push((spec.key, value));
        } else if word.len() > 1 && word.starts_with('-') {
            let mut rest = &word[1..];
            while let Some(letter) = rest.chars().next() {
                rest = &rest[letter.len_utf8()..];
                let spec = specs.iter().find(|s| s.short == letter && letter != '\0');
                let spec = spec.ok_or_else(|| format!("invalid option -- '{letter}'"))?;
                let value = match spec.arg {
                    Arg::None => None,
                    _ if !rest.is_empty() => Some(std::mem::take(&mut rest).to_owned()),
                    Arg::Optional => None,
                    Arg::Required => {
                        let next = words.next().cloned();
                        Some(next.ok_or_else(|| format!("option requires an argument -- '{letter}'"))?)
                    }
                };
                parsed.options.push((spec.key, value));
            }
        } else {
            parsed.operands.push(word.clone());
        }
    }
    Ok(parsed)
}

/// The option of a long name or of a prefix that only one option has.
fn find_long<K: Copy + PartialEq>(specs: &[Spec<K>], name: &str) -> Result<Spec<K>, String> {
    if let Some(spec) = specs.iter().find(|s| s.long.contains(&name)) {
        return Ok(*spec);
    }
    let mut found: Option<Spec<K>> = None;
    for spec in specs.iter().filter(|s| s.long.iter().any(|l| l.starts_with(name))) {
        match found {
            Some(other) if other.key != spec.key => return Err(format!("option '--{name}' is ambiguous")),
            _ => found = Some(*spec),
        }
    }
    found.ok_or_else(|| format!("unrecognized option '--{name}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECS: &[Spec<u8>] = &[
        opt(b'c', 'c', &["stripe-count"], Arg::Required),
        opt(b'S', 'S', &["stripe-size", "size"], Arg::Required),
        opt(b'N', 'N', &["mirror-count"], Arg::Optional),
        opt(b'd', 'd', &["delete"], Arg::None),
        opt(b'v', 'v', &[], Arg::None),
    ];

    fn parse_line(line: &str) -> Result<Parsed<u8>, String> {
        parse(SPECS, &line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn values_may_be_attached_follow_or_be_negative() {
        let some = |s: &str| Some(s.to_owned());
        for line in ["-c -1 f", "-c-1 f", "f --stripe-count -1", "--stripe-count=-1 f", "--stripe-c -1 f"] {
            let got = parse_line(line).expect(line);
            assert_eq!(got.options, [(b'c', some("-1"))], "{line}");
            assert_eq!(got.operands, ["f"], "{line}");
        }
        assert_eq!(parse_line("-dvc4").expect("cluster").options, [(b'd', None), (b'v', None), (b'c', some("4"))]);
        assert_eq!(parse_line("-N2 -N f").expect("optional").options, [(b'N', some("2")), (b'N', None)]);
    }

    #[test]
    fn two_dashes_end_the_options() {
        assert_eq!(parse_line("-d -- -c -x -").expect("valid").operands, ["-c", "-x", "-"]);
    }

    #[test]
    fn mistakes_are_named() {
        assert!(parse_line("-x").expect_err("unknown").contains("'x'"));
        assert!(parse_line("--st 4").expect_err("ambiguous").contains("ambiguous"));
        assert!(parse_line("--none").expect_err("unknown").contains("--none"));
        assert!(parse_line("f -c").expect_err("no value").contains("requires"));
        assert!(parse_line("--delete=1").expect_err("value").contains("doesn't allow"));
    }
}
