//! The cluster that is measured: real processes, started by `sateen dev up`, taken down by [`crate::guard`].

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use sateen_client::{Client, MountSource, Options};

/// Two OSSes with two OSTs each: what `make up` starts.
const OSS_COUNT: u16 = 2;
const OSTS_PER_OSS: u16 = 2;
/// File system that `sateen dev up` makes.
const FS: &str = "scratch";
/// Where a run of free ports is looked for: below Linux's range for outgoing connections.
const PORTS: std::ops::Range<u16> = 23_000..32_000;

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    address: String,
    dir: PathBuf,
}

impl Cluster {
    /// Starts one in `dir` and waits until it serves.
    pub fn start(sateen: &Path, dir: PathBuf) -> anyhow::Result<Cluster> {
        let port = free_ports(1 + OSS_COUNT)?;
        let done = Command::new(sateen)
            .args(["dev", "up", "--no-mount", "--dir"])
            .arg(&dir)
            .args(["--base-port", &port.to_string()])
            .args(["--oss", &OSS_COUNT.to_string(), "--osts-per-oss", &OSTS_PER_OSS.to_string()])
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", sateen.display()))?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            bail!("the cluster did not start ({}): {}", done.status, said.trim());
        }
        Ok(Cluster { address: format!("127.0.0.1:{port}"), dir })
    }

    /// `HOST:PORT` of the MDS.
    pub fn mds(&self) -> &str {
        &self.address
    }

    /// What to mount.
    pub fn source(&self) -> String {
        format!("{}:/{FS}", self.address)
    }

    /// A new session; nothing is cached in it.
    pub async fn connect(&self) -> anyhow::Result<Client> {
        let source: MountSource = self.source().parse()?;
        Ok(Client::connect(&source, Options { client_name: "sateen-bench".to_owned(), ..Options::default() }).await?)
    }

    /// Takes everything the cluster has on disk out of the page cache.
    pub fn drop_caches(&self) -> anyhow::Result<()> {
        rustix::fs::sync();
        if std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok() {
            return Ok(());
        }
        // Not allowed here: ask for each file, which any owner may.
        drop_cached(&self.dir)
    }
}

/// Takes the pages of every file below `dir` out of the page cache.
fn drop_cached(dir: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            drop_cached(&entry.path())?;
        } else if kind.is_file() {
            // A file may go away while we look.
            let Ok(file) = std::fs::File::open(entry.path()) else { continue };
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// First of `count` consecutive free loopback ports, looked for from a place that depends on the process.
fn free_ports(count: u16) -> anyhow::Result<u16> {
    let starts = PORTS.len() as u32 - u32::from(count);
    let first = std::process::id().wrapping_mul(61);
    for i in 0..starts {
        let port = PORTS.start + (first.wrapping_add(i) % starts) as u16;
        if (port..port + count).all(|p| TcpListener::bind((Ipv4Addr::LOCALHOST, p)).is_ok()) {
            return Ok(port);
        }
    }
    bail!("no {count} consecutive free ports in {PORTS:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_leave_out_a_port_in_use() {
        let port = free_ports(3).expect("some are free");
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port + 1)).expect("free");
        let other = free_ports(3).expect("some are free");
        assert!(!(other..other + 3).contains(&(port + 1)), "{port} {other}");
    }
}
