//! What stands in front of a mount point: `HOST[:PORT][,HOST2[:PORT]]:/FS[/SUBDIR]`.

use std::fmt;
use std::str::FromStr;

use sateen_types::{FsCode, FsError, FsName, FsResult, Name};

/// Port of an MDS where none is said.
pub const MDS_PORT: u16 = 9880;
/// Most MDS addresses in one source.
const HOSTS_MAX: usize = 16;
/// Longest host name (RFC 1035).
const HOST_BYTES_MAX: usize = 253;

/// Which file system, and where its MDS is.
///
/// ```
/// let source: sateen_client::MountSource = "mds1,mds2:9000:/scratch/home".parse().unwrap();
/// assert_eq!(source.hosts, ["mds1:9880", "mds2:9000"]);
/// assert_eq!(source.to_string(), "mds1:9880,mds2:9000:/scratch/home");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountSource {
    /// `HOST:PORT` of the MDS, tried in order.
    pub hosts: Vec<String>,
    /// The file system.
    pub fs: FsName,
    /// Directory to take as the root, from the real root down; empty for the root itself.
    pub subdir: Vec<Name>,
}

impl fmt::Display for MountSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:/{}", self.hosts.join(","), self.fs)?;
        self.subdir.iter().try_for_each(|name| write!(f, "/{name}"))
    }
}

impl FromStr for MountSource {
    type Err = FsError;

    fn from_str(s: &str) -> FsResult<MountSource> {
        let (hosts, path) = s.split_once(":/").ok_or_else(|| bad(s, "has no \":/\""))?;
        let hosts = hosts.split(',').map(|host| parse_host(host).ok_or_else(|| bad(s, "has a bad host or port")));
        let hosts = hosts.collect::<FsResult<Vec<_>>>()?;
        if hosts.len() > HOSTS_MAX {
            return Err(bad(s, "names too many hosts"));
        }
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        let fs = parts.next().ok_or_else(|| bad(s, "names no file system"))?.parse()?;
        let subdir = parts.map(|part| Name::parse(part.as_bytes())).collect::<FsResult<Vec<_>>>()?;
        Ok(MountSource { hosts, fs, subdir })
    }
}

/// `HOST:PORT` of `HOST`, `HOST:PORT`, `HOST@tcp` or `[IPV6]:PORT`, as Lustre's users write them.
pub(crate) fn parse_host(text: &str) -> Option<String> {
    let text = text.strip_suffix("@tcp").unwrap_or(text);
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (inside, after) = rest.split_once(']')?;
            inside.parse::<std::net::Ipv6Addr>().ok()?;
            (&text[..inside.len() + 2], after.strip_prefix(':').or(after.is_empty().then_some(""))?)
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b);
    if host.is_empty() || host.len() > HOST_BYTES_MAX || !host.bytes().all(allowed) {
        return None;
    }
    let port = if port.is_empty() { MDS_PORT } else { port.parse().ok().filter(|p| *p != 0)? };
    Some(format!("{host}:{port}"))
}

fn bad(source: &str, why: &str) -> FsError {
    let shown: String = source.chars().take(256).collect();
    FsError::new(FsCode::Invalid, format!("{shown:?} is not a mount source: it {why}"))
        .with_hint("write HOST[:PORT][,HOST2]:/FSNAME[/SUBDIR], e.g. localhost:9880:/scratch")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_parse_with_defaults_and_print_whole() {
        let cases = [
            ("mds1:/scratch", "mds1:9880:/scratch"),
            ("mds1:1234:/scratch/", "mds1:1234:/scratch"),
            ("10.0.0.1@tcp:/scratch", "10.0.0.1:9880:/scratch"),
            ("a,b:1:/fs/x//y", "a:9880,b:1:/fs/x/y"),
            ("[::1]:9880:/fs", "[::1]:9880:/fs"),
            ("[::1]:/fs", "[::1]:9880:/fs"),
        ];
        for (text, whole) in cases {
            let source: MountSource = text.parse().expect(text);
            assert_eq!(source.to_string(), whole, "{text}");
            assert_eq!(whole.parse::<MountSource>().expect("printed form"), source);
        }
    }

    #[test]
    fn bad_sources_are_refused_with_a_hint() {
        let bad = ["", "mds", "mds:scratch", ":/fs", "mds:/", "mds:0:/fs", "mds:99999:/fs", "m s:/fs", "a,,b:/fs"];
        for text in bad.into_iter().chain(["mds:/fs/..", "[1]:/fs", "mds:/toolongname", "[::1]x:/fs"]) {
            let err = text.parse::<MountSource>().expect_err(text);
            assert!(matches!(err.code, FsCode::Invalid), "{text}");
        }
    }
}
