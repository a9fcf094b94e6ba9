//! The cluster that is measured: real processes, started by `sateen dev up`, taken down by [`crate::guard`].

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use sateen_client::{Client, MountSource, Options};

/// Two OSSes with two OSTs each: what `make up` starts.
const OSS_COUNT: u16 = 2;
const OSTS_PER_OSS: u16 = 2;
/// File system that `sateen dev up` makes.
pub const FS: &str = "scratch";
/// Ending of the files that OSTs keep data in (see `docs/formats-oss.md`).
const SEGMENT: &str = "seg";
/// Where a run of free ports is looked for: below Linux's range for outgoing connections.
const PORTS: std::ops::Range<u16> = 23_000..32_000;

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    address: String,
    s3: String,
    dir: PathBuf,
}

impl Cluster {
    /// Starts one in `dir` and waits until it serves.
    pub fn start(sateen: &Path, dir: PathBuf) -> anyhow::Result<Cluster> {
        Cluster::start_as(sateen, dir, &["--no-s3"])
    }

    /// [`Cluster::start`] with an S3 server and a worker.
    pub fn start_with_s3(sateen: &Path, dir: PathBuf) -> anyhow::Result<Cluster> {
        Cluster::start_as(sateen, dir, &[])
    }

    fn start_as(sateen: &Path, dir: PathBuf, more: &[&str]) -> anyhow::Result<Cluster> {
        let port = free_ports(1 + OSS_COUNT + 2)?;
        let done = Command::new(sateen)
            .args(["dev", "up", "--no-mount"])
            .args(more)
            .arg("--dir")
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
        let s3 = format!("127.0.0.1:{}", port + 1 + OSS_COUNT + 1);
        Ok(Cluster { address: format!("127.0.0.1:{port}"), s3, dir })
    }

    /// `HOST:PORT` of the MDS.
    pub fn mds(&self) -> &str {
        &self.address
    }

    /// `HOST:PORT` of the S3 server, if it was started with one.
    pub fn s3(&self) -> &str {
        &self.s3
    }

    /// What to mount.
    pub fn source(&self) -> String {
        format!("{}:/{FS}", self.address)
    }

    /// A new session; nothing is cached in it. `change` may change its options.
    pub async fn connect(&self, change: impl FnOnce(&mut Options)) -> anyhow::Result<Client> {
        let source: MountSource = self.source().parse()?;
        let mut options = Options { client_name: "sateen-bench".to_owned(), ..Options::default() };
        change(&mut options);
        Ok(Client::connect(&source, options).await?)
    }

    /// Takes everything the cluster has on disk out of the page cache.
    pub fn drop_caches(&self) -> anyhow::Result<()> {
        rustix::fs::sync();
        if std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok() {
            return Ok(());
        }
        // Not allowed here: ask for each file, which any owner may.
        for path in files(&self.dir)? {
            // A file may go away while we look.
            let Ok(file) = File::open(path) else { continue };
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
        Ok(())
    }

    /// Disk space that stored data takes on all OSTs.
    pub fn stored_bytes(&self) -> anyhow::Result<u64> {
        let segments = files(&self.dir)?.into_iter().filter(|path| path.extension().is_some_and(|e| e == SEGMENT));
        Ok(segments.filter_map(|path| Some(std::fs::metadata(path).ok()?.blocks() * 512)).sum())
    }
}

/// Every regular file below `dir`. Directories that go away meanwhile are left out.
fn files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (mut found, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        let entries = match std::fs::read_dir(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.with_context(|| format!("cannot list {}", dir.display()))?,
        };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => dirs.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    Ok(found)
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
