//! What a development cluster consists of, and the configuration files that follow from it.

use std::path::{Path, PathBuf};

use sateen_runtime::{DirLock, durable};
use sateen_types::{FsCode, FsError, FsResult};
use serde::{Deserialize, Serialize};

use crate::args::DevUp;

/// Name of the file system `up` makes.
pub const FS_NAME: &str = "scratch";
/// Every server listens here only: the cluster is for this machine.
const HOST: &str = "127.0.0.1";
/// File that remembers the cluster.
const FILE: &str = "cluster.json";
/// Below it a share of the disk is not worth a limit; the OSTs see the disk as it is.
const SHARE_MIN: u64 = 64 << 20;
/// Name of the worker for data repositories.
pub const DRA_SYNC: &str = "dra-sync";
/// Name of the S3 server.
pub const S3: &str = "s3";
/// Form of that file.
const VERSION: u32 = 1;

/// A development cluster, as remembered in `D/cluster.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    version: u32,
    /// Absolute directory; not stored, the directory may be moved while nothing runs.
    #[serde(skip)]
    pub dir: PathBuf,
    /// OSS processes.
    pub oss: u16,
    /// OSTs of each.
    pub osts_per_oss: u16,
    /// Port of the MDS; the OSSes have the next ones.
    pub base_port: u16,
    /// Where it is mounted, absolute.
    pub mount: Option<PathBuf>,
    /// Most bytes of each OST; `None`: its disk.
    pub ost_capacity: Option<u64>,
    /// Without the S3 server, the worker and the link to the sample bucket.
    #[serde(default)]
    pub no_s3: bool,
}

impl Cluster {
    /// The remembered cluster of a directory; `None` if there is none.
    pub fn load(dir: &Path) -> FsResult<Option<Cluster>> {
        let path = dir.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(FsError::new(FsCode::Io, format!("cannot read {}: {e}", path.display()))),
        };
        let bad = |what: String| {
            FsError::new(FsCode::Corrupt, format!("{}: {what}", path.display()))
                .with_hint("repair the file, or remove it and give the same numbers to sateen dev up again")
        };
        let mut cluster: Cluster = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
        if cluster.version != VERSION {
            return Err(bad(format!("version {} is not {VERSION}", cluster.version)));
        }
        cluster.dir = absolute(dir)?;
        Ok(Some(cluster))
    }

    /// The remembered cluster, or `NotFound`.
    pub fn existing(dir: &Path) -> FsResult<Cluster> {
        Cluster::load(dir)?.ok_or_else(|| {
            FsError::new(FsCode::NotFound, format!("there is no development cluster in {}", dir.display()))
                .with_hint("start one: sateen dev up   (another directory: --dir D)")
        })
    }

    /// A new cluster as asked for.
    pub fn new(args: &DevUp) -> FsResult<Cluster> {
        let cluster = Cluster {
            version: VERSION,
            dir: absolute(&args.dir)?,
            oss: args.oss.unwrap_or(2),
            osts_per_oss: args.osts_per_oss.unwrap_or(2),
            base_port: args.base_port.unwrap_or(9880),
            mount: match (args.no_mount, &args.mount) {
                (true, _) => None,
                (false, Some(path)) => Some(absolute(path)?),
                (false, None) => Some(absolute(Path::new("mnt"))?),
            },
            ost_capacity: args.ost_capacity.map(|c| c.0),
            no_s3: args.no_s3,
        };
        Ok(cluster)
    }

    /// Without a capacity asked for, each OST of a new cluster gets its share of what the disk has free: all OSTs lie on
    /// one disk, and `df` should not count it several times.
    pub fn share_disk(&mut self) {
        let Ok(disk) = rustix::fs::statvfs(&self.dir) else { return };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let share = (free / 10 * 9 / self.osts().max(1) as u64) >> 20 << 20;
        if self.ost_capacity.is_none() && share >= SHARE_MIN {
            self.ost_capacity = Some(share);
        }
    }

    /// What was asked for now, laid over what is remembered. Counts are part of the data; ports, mount and capacity
    /// may change while nothing runs.
    pub fn adapt(&self, args: &DevUp, running: bool) -> FsResult<Cluster> {
        let mut next = self.clone();
        for (what, now, asked) in
            [("OSSes", self.oss, args.oss), ("OSTs per OSS", self.osts_per_oss, args.osts_per_oss)]
        {
            if let Some(asked) = asked.filter(|a| *a != now) {
                return Err(FsError::new(
                    FsCode::Invalid,
                    format!("the cluster in {} has {now} {what}, not {asked}", self.dir.display()),
                )
                .with_hint(format!(
                    "leave the option out, or use another --dir, or remove {} first",
                    self.dir.display()
                )));
            }
        }
        if let Some(port) = args.base_port {
            next.base_port = port;
        }
        if let Some(size) = args.ost_capacity {
            next.ost_capacity = Some(size.0);
        }
        if !running {
            next.no_s3 = args.no_s3;
        }
        if args.no_mount {
            next.mount = None;
        } else if let Some(path) = &args.mount {
            next.mount = Some(absolute(path)?);
        } else if next.mount.is_none() {
            next.mount = Some(absolute(Path::new("mnt"))?);
        }
        let same_servers = (next.base_port, next.ost_capacity) == (self.base_port, self.ost_capacity);
        let same_mount = next.mount == self.mount || self.mount.is_none();
        if running && !(same_servers && same_mount) {
            return Err(FsError::new(
                FsCode::Busy,
                format!("the cluster in {} runs with another port, capacity or mount", self.dir.display()),
            )
            .with_hint(format!("stop it first: sateen dev down --dir {}", self.dir.display())));
        }
        Ok(next)
    }

    /// Makes the directories and writes `cluster.json` and the configurations.
    pub fn write(&self) -> FsResult<()> {
        let io =
            |path: &Path, e: std::io::Error| FsError::new(FsCode::Io, format!("cannot write {}: {e}", path.display()));
        for dir in ["etc", "log", "run", "mds"] {
            let path = self.dir.join(dir);
            std::fs::create_dir_all(&path).map_err(|e| io(&path, e))?;
        }
        for i in 0..self.oss {
            for j in 0..self.osts_per_oss {
                let path = self.ost_dir(i, j);
                std::fs::create_dir_all(&path).map_err(|e| io(&path, e))?;
            }
            let path = self.config(&oss_name(i));
            std::fs::write(&path, self.oss_config(i)?).map_err(|e| io(&path, e))?;
        }
        let path = self.config("mds");
        std::fs::write(&path, self.mds_config()?).map_err(|e| io(&path, e))?;
        if !self.no_s3 {
            let path = self.config(DRA_SYNC);
            std::fs::write(&path, self.dra_sync_config()?).map_err(|e| io(&path, e))?;
            self.write_s3_keys()?;
        }
        let text = serde_json::to_vec_pretty(self)
            .map_err(|e| FsError::new(FsCode::Internal, format!("cannot print the cluster: {e}")))?;
        durable::replace(&self.dir.join(FILE), &text).map_err(|e| io(&self.dir.join(FILE), e))
    }

    /// Keeps other `sateen dev` calls out of the directory.
    pub fn lock(dir: &Path) -> FsResult<DirLock> {
        std::fs::create_dir_all(dir).map_err(|e| {
            FsError::new(FsCode::AccessDenied, format!("cannot make the directory {}: {e}", dir.display()))
                .with_hint("give a directory you may write to with --dir")
        })?;
        DirLock::acquire(dir).map_err(|e| match e.code {
            FsCode::Busy => FsError::new(FsCode::Busy, format!("another sateen dev works on {}", dir.display()))
                .with_hint("wait until it is done"),
            _ => e,
        })
    }

    /// `HOST:PORT` of the MDS.
    pub fn mds_address(&self) -> String {
        format!("{HOST}:{}", self.base_port)
    }

    /// `HOST:PORT` of an OSS.
    pub fn oss_address(&self, i: u16) -> String {
        format!("{HOST}:{}", self.base_port + 1 + i)
    }

    /// `HOST:PORT` of the worker's health service. (With two OSSes and the usual ports it is the worker's usual one.)
    pub fn dra_sync_address(&self) -> String {
        self.oss_address(self.oss)
    }

    /// `HOST:PORT` of the S3 server.
    pub fn s3_address(&self) -> String {
        self.oss_address(self.oss + 1)
    }

    /// Highest port that is used.
    pub fn last_port(&self) -> usize {
        usize::from(self.base_port) + usize::from(self.oss) + if self.no_s3 { 0 } else { 2 }
    }

    /// Where the S3 server keeps its buckets.
    pub fn s3_dir(&self) -> PathBuf {
        self.dir.join("s3")
    }

    /// Keys of the S3 server, in the form of `~/.aws/credentials`.
    pub fn s3_keys(&self) -> PathBuf {
        self.dir.join("etc/s3-credentials")
    }

    /// What to mount.
    pub fn source(&self) -> String {
        format!("{}:/{FS_NAME}", self.mds_address())
    }

    /// OSTs in all.
    pub fn osts(&self) -> usize {
        usize::from(self.oss) * usize::from(self.osts_per_oss)
    }

    /// Configuration of a server.
    pub fn config(&self, name: &str) -> PathBuf {
        self.dir.join("etc").join(format!("{name}.toml"))
    }

    /// Log of a process.
    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join("log").join(format!("{name}.log"))
    }

    /// Pid file of a process.
    pub fn pid_file(&self, name: &str) -> PathBuf {
        self.dir.join("run").join(format!("{name}.pid"))
    }

    fn ost_dir(&self, i: u16, j: u16) -> PathBuf {
        self.dir.join(format!("oss{i}")).join(format!("ost{j}"))
    }

    fn mds_config(&self) -> FsResult<String> {
        #[derive(Serialize)]
        struct Mds {
            listen: String,
            dir: PathBuf,
        }
        to_toml(&Mds { listen: self.mds_address(), dir: self.dir.join("mds") })
    }

    fn dra_sync_config(&self) -> FsResult<String> {
        #[derive(Serialize)]
        struct DraSync {
            mds: Vec<String>,
            listen: String,
            profiles: Profiles,
        }
        #[derive(Serialize)]
        struct Profiles {
            default: Profile,
        }
        #[derive(Serialize)]
        struct Profile {
            file: PathBuf,
        }
        to_toml(&DraSync {
            mds: vec![self.mds_address()],
            listen: self.dra_sync_address(),
            profiles: Profiles { default: Profile { file: self.s3_keys() } },
        })
    }

    /// Keys of its own for each cluster, made once.
    fn write_s3_keys(&self) -> FsResult<()> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.s3_keys();
        let secret: String = (0..4).map(|_| format!("{:016x}", rand::random::<u64>())).collect();
        let text = format!(
            "[default]\naws_access_key_id = sateen-dev\naws_secret_access_key = {secret}\nregion = us-east-1\n"
        );
        match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(mut file) => file
                .write_all(text.as_bytes())
                .map_err(|e| FsError::new(FsCode::Io, format!("cannot write {}: {e}", path.display()))),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(FsError::new(FsCode::Io, format!("cannot make {}: {e}", path.display()))),
        }
    }

    fn oss_config(&self, i: u16) -> FsResult<String> {
        #[derive(Serialize)]
        struct Oss {
            listen: String,
            advertise: String,
            mds: Vec<String>,
            ost: Vec<Ost>,
        }
        #[derive(Serialize)]
        struct Ost {
            path: PathBuf,
            #[serde(skip_serializing_if = "Option::is_none")]
            capacity: Option<u64>,
        }
        let ost = |j| Ost { path: self.ost_dir(i, j), capacity: self.ost_capacity };
        to_toml(&Oss {
            listen: self.oss_address(i),
            advertise: self.oss_address(i),
            mds: vec![self.mds_address()],
            ost: (0..self.osts_per_oss).map(ost).collect(),
        })
    }
}

/// Name of an OSS process: `oss0`.
pub fn oss_name(i: u16) -> String {
    format!("oss{i}")
}

fn to_toml(config: &impl Serialize) -> FsResult<String> {
    let text = toml::to_string(config)
        .map_err(|e| FsError::new(FsCode::Invalid, format!("a path cannot stand in a configuration: {e}")))?;
    Ok(format!("# Written by `sateen dev up` at every start: changes here are lost.\n{text}"))
}

fn absolute(path: &Path) -> FsResult<PathBuf> {
    crate::mount::absolute(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> DevUp {
        DevUp {
            dir: "/d".into(),
            oss: None,
            osts_per_oss: None,
            mount: Some("/m".into()),
            no_mount: false,
            base_port: Some(100),
            ost_capacity: None,
            no_s3: false,
        }
    }

    #[test]
    fn ports_and_paths_follow_from_the_directory_and_the_base_port() {
        let c = Cluster::new(&args()).expect("valid");
        assert_eq!((c.mds_address().as_str(), c.oss_address(1).as_str()), ("127.0.0.1:100", "127.0.0.1:102"));
        assert_eq!((c.dra_sync_address().as_str(), c.s3_address().as_str()), ("127.0.0.1:103", "127.0.0.1:104"));
        assert_eq!(c.last_port(), 104);
        assert_eq!(c.source(), "127.0.0.1:100:/scratch");
        assert_eq!(c.osts(), 4);
        let text = c.oss_config(1).expect("toml");
        assert!(text.contains("listen = \"127.0.0.1:102\"") && text.contains("/d/oss1/ost1"), "{text}");
        assert!(!text.contains("capacity"));
        assert!(c.mds_config().expect("toml").contains("/d/mds"));
    }

    #[test]
    fn counts_are_fixed_and_the_rest_may_change_while_nothing_runs() {
        let c = Cluster::new(&args()).expect("valid");
        assert!(c.adapt(&DevUp { oss: Some(3), ..args() }, false).is_err());
        assert_eq!(c.adapt(&DevUp { oss: Some(2), ..args() }, true).expect("same"), c);
        let moved = DevUp { base_port: Some(200), ..args() };
        assert_eq!(c.adapt(&moved, false).expect("stopped").base_port, 200);
        assert_eq!(c.adapt(&moved, true).expect_err("running").code, FsCode::Busy);
    }
}
