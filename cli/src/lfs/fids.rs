//! `lfs path2fid` and `lfs fid2path`.

use std::os::unix::ffi::OsStrExt;

use sateen_types::Fid;

use super::place::{self, Place};
use super::{Failure, FirstFailure, Outcome, print};
use crate::getopt::{self, Arg, Spec, opt};
use crate::mds::{admin, block_on};

/// `lfs path2fid PATH...`
pub fn path2fid(words: &[String]) -> Outcome {
    if words.is_empty() {
        return Err(Failure::usage("path2fid", "no path given"));
    }
    let mut failures = FirstFailure::default();
    for path in words {
        let line = place::fid(path, false)
            .map(|fid| if words.len() == 1 { format!("{fid}\n") } else { format!("{path}: {fid}\n") });
        failures.note("path2fid", line.and_then(|l| print(l.as_bytes())));
    }
    failures.finish()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Null,
    PrintFid,
    Name,
    Link,
}

const SPECS: &[Spec<Key>] = &[
    opt(Key::Null, '0', &["print0"], Arg::None),
    opt(Key::PrintFid, 'f', &["print-fid"], Arg::None),
    opt(Key::Name, 'n', &["name"], Arg::None),
    opt(Key::Link, 'l', &["link"], Arg::Required),
];

/// `lfs fid2path FSNAME|MOUNT FID...`
pub fn fid2path(words: &[String]) -> Outcome {
    let usage = |what: &str| Failure::usage("fid2path", what);
    let parsed = getopt::parse(SPECS, words).map_err(|e| usage(&e))?;
    let has = |key| parsed.options.iter().any(|(k, _)| *k == key);
    let link = match parsed.options.iter().find(|(k, _)| *k == Key::Link) {
        Some((_, Some(n))) => Some(n.parse::<usize>().map_err(|_| usage(&format!("bad link number '{n}'")))?),
        _ => None,
    };
    let Some((whole, fids)) = parsed.operands.split_first().filter(|(_, fids)| !fids.is_empty()) else {
        return Err(usage("a file system or mount, and at least one FID are needed"));
    };
    let place = place::by_name_or_path(whole)?;
    // By name paths are relative; by path they begin with the mount as it was typed.
    let prefix = (place.source.fs.as_str() != whole.as_str()).then(|| whole.trim_end_matches('/').as_bytes().to_vec());
    let mut failures = FirstFailure::default();
    for text in fids {
        let lines = paths(&place, text, prefix.as_deref()).and_then(|(fid, paths)| {
            let mut out = Vec::new();
            let chosen = paths.into_iter().enumerate().filter(|(i, _)| link.is_none_or(|l| l == *i)).map(|(_, p)| p);
            for path in chosen {
                if has(Key::PrintFid) {
                    out.extend_from_slice(format!("{fid} ").as_bytes());
                }
                let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
                out.extend_from_slice(if has(Key::Name) { name } else { &path });
                out.push(if has(Key::Null) { 0 } else { b'\n' });
            }
            print(&out)
        });
        failures.note("fid2path", lines);
    }
    failures.finish()
}

fn paths(place: &Place, text: &str, prefix: Option<&[u8]>) -> Result<(Fid, Vec<Vec<u8>>), Failure> {
    let fid: Fid = text.parse().map_err(|e: sateen_types::ids::BadFid| {
        Failure::new(libc::EINVAL, e.to_string()).with_hint("lfs path2fid PATH shows a FID")
    })?;
    let found = block_on(async { admin(&place.mds()).await?.fid_to_path(&place.source.fs, fid).await })
        .map_err(|e| Failure { message: format!("cannot find '{fid}': {}", e.message), ..Failure::from(e) })?;
    Ok((fid, found.into_iter().filter_map(|p| shown(place, prefix, &p)).collect()))
}

/// A path from the root of the file system as it is printed; `None` if a mount of a subdirectory does not show it.
fn shown(place: &Place, prefix: Option<&[u8]>, path: &[u8]) -> Option<Vec<u8>> {
    let mut rest = path;
    for name in &place.source.subdir {
        rest = rest.strip_prefix(name.as_bytes())?;
        rest = rest.strip_prefix(b"/").or(rest.is_empty().then_some(rest))?;
    }
    Some(match prefix {
        // Lustre prints `/` for the root by name, and `/mnt//` by mount.
        None if rest.is_empty() => b"/".to_vec(),
        None => rest.to_vec(),
        Some(prefix) => {
            let mut out =
                if prefix.is_empty() { Vec::new() } else { std::ffi::OsStr::from_bytes(prefix).as_bytes().to_vec() };
            out.push(b'/');
            out.extend_from_slice(if rest.is_empty() { b"/" } else { rest });
            out
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_printed_as_in_lustre() {
        let place = |source: &str| Place { point: "/mnt".into(), source: source.parse().expect("source") };
        let show = |source: &str, prefix: Option<&str>, path: &str| {
            shown(&place(source), prefix.map(str::as_bytes), path.as_bytes())
                .map(|p| String::from_utf8(p).expect("text"))
        };
        assert_eq!(show("h:/fs", Some("/mnt"), "d/f").as_deref(), Some("/mnt/d/f"));
        assert_eq!(show("h:/fs", None, "d/f").as_deref(), Some("d/f"));
        assert_eq!(show("h:/fs", None, "").as_deref(), Some("/"));
        assert_eq!(show("h:/fs", Some("/mnt"), "").as_deref(), Some("/mnt//"));
        assert_eq!(show("h:/fs/home", Some("/mnt"), "home/a").as_deref(), Some("/mnt/a"));
        assert_eq!(show("h:/fs/home", Some("/mnt"), "homes/a"), None);
        assert_eq!(show("h:/fs/home", Some("/mnt"), "other/a"), None);
    }
}
