//! One MDS and some OSSes as real processes in a private directory, with one file system.
//!
//! ```text
//! DIR/etc/*.toml    DIR/log/*.log    DIR/mds/    DIR/oss<i>/ost<j>/    DIR/mnt<k>/
//! DIR/disk/mds/     DIR/disk/oss<i>/ost<j>/     with a disk of its own ([`ClusterSpec::disk`])
//! ```

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sateen_proto::common::{Compression, LayoutTemplate};

use crate::command::{self, Done};
use crate::disk::{Disk, DiskSpec};
use crate::guard::Guard;
use crate::mount::{Mount, MountSpec};
use crate::netns::Site;
use crate::ports::Port;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::{bins, rings, rpc, syncs, wait};

/// Takes every mount below `$2` off and removes the directory, if the test could not. The processes die with the test, but
/// not at once, and a mount may just be coming up: so it looks until all is gone. A disk that a test made stand still is
/// made to move again first, else its processes could not even die.
const DETACH_ALL: &str = r#"
for _ in 1 2 3 4 5 6 7 8 9 10; do
    sleep 1
    while read -r _ _ _ _ point _; do
        case $(printf '%b' "$point") in "$2"/*)
            [ "$point" != "$2/disk" ] || fsfreeze -u "$point"
            umount -l "$(printf '%b' "$point")" ;;
        esac
    done < /proc/self/mountinfo
    rm -rf --one-file-system "$2" && break
done
"#;

/// What cluster to start.
#[derive(Debug, Clone)]
pub struct ClusterSpec {
    /// Part of the directory's name; the test's name.
    pub label: &'static str,
    /// OSS processes.
    pub oss: usize,
    /// OSTs on each.
    pub osts_per_oss: usize,
    /// Bytes each OST may use; `None`: the disk.
    pub ost_capacity: Option<u64>,
    /// Compression of the file system.
    pub compression: Compression,
    /// Default layout of the file system; `None`: the product's.
    pub default_layout: Option<LayoutTemplate>,
    /// More lines for every MDS configuration.
    pub mds_extra: String,
    /// More lines for every OSS configuration.
    pub oss_extra: String,
    /// A disk of their own for the data of all servers; `None`: the disk the test is on.
    pub disk: Option<DiskSpec>,
    /// The program whose processes only believe that they sync, see [`syncs`].
    pub ignore_syncs: Option<&'static str>,
    /// Where the servers are.
    pub site: Site,
    /// Where OSS 0 is, if not with the others.
    pub oss_site: Option<Site>,
}

impl ClusterSpec {
    /// Two OSSes with two OSTs each, LZ4, the product's default layout.
    pub fn new(label: &'static str) -> ClusterSpec {
        ClusterSpec {
            label,
            oss: 2,
            osts_per_oss: 2,
            ost_capacity: None,
            compression: Compression::Lz4,
            default_layout: None,
            mds_extra: String::new(),
            oss_extra: String::new(),
            disk: None,
            ignore_syncs: None,
            site: Site::default(),
            oss_site: None,
        }
    }
}

/// Name of the file system every cluster starts with.
pub const FS: &str = "scratch";

/// One server: how to start it and, while it runs, its process.
#[derive(Debug)]
struct Server {
    name: String,
    program: &'static str,
    site: Site,
    port: Port,
    config: PathBuf,
    log: PathBuf,
    ignore_syncs: bool,
    process: Option<Process>,
}

impl Server {
    fn address(&self) -> SocketAddr {
        (self.site.address, self.port.number()).into()
    }

    #[track_caller]
    fn start(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        self.process = Some(self.spawn());
    }

    fn spawn(&self) -> Process {
        let args: [OsString; 2] = ["--config".into(), self.config.clone().into()];
        Process::start(&self.name, &bins::path(self.program), &args, &self.log, |command| {
            self.site.place(command);
            if self.ignore_syncs {
                syncs::ignore(command);
            }
        })
    }

    #[track_caller]
    fn wait_ready(&mut self) {
        let address = self.address();
        let process = self.process.as_mut().expect("started before it is waited for");
        wait::until(&format!("readiness of {}", self.name), wait::SERVER, || {
            process.assert_runs();
            rpc::is_serving(address).then_some(())
        });
    }

    fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill9();
        }
    }

    #[track_caller]
    fn terminate(&mut self) {
        if let Some(mut process) = self.process.take() {
            let status = process.terminate();
            assert!(status.success(), "{} ended with {status} after SIGTERM", self.name);
        }
    }
}

/// A running cluster. Dropping it unmounts, kills and removes everything.
///
/// Mounts made by [`Cluster::mount`] must be dropped first; a `let` after the cluster's does that.
#[derive(Debug)]
pub struct Cluster {
    spec: ClusterSpec,
    mds: Server,
    oss: Vec<Server>,
    mounts: std::cell::Cell<usize>,
    disk: Option<Disk>,
    /// Where the servers' directories are.
    data: PathBuf,
    _guard: Guard,
    scratch: Scratch,
}

impl Cluster {
    /// Starts everything, waits until every OST is UP, and makes the file system [`FS`].
    #[track_caller]
    pub fn start(spec: ClusterSpec) -> Cluster {
        let mut cluster = Cluster::prepare(spec);
        cluster.start_all();
        let created = rpc::create_file_system(
            cluster.mds_address(),
            FS,
            cluster.spec.compression,
            cluster.spec.default_layout.clone(),
        );
        created.unwrap_or_else(|e| panic!("cannot create file system {FS}: {e}"));
        cluster
    }

    /// Directories and configurations, nothing running yet.
    pub fn prepare(spec: ClusterSpec) -> Cluster {
        let scratch = Scratch::new(spec.label);
        let guard = Guard::new(DETACH_ALL, &[scratch.path().as_os_str()]);
        let (etc, log) = (scratch.dir("etc"), scratch.dir("log"));
        let disk = spec.disk.map(|disk| Disk::make(disk, scratch.path().join("disk.img"), scratch.dir("disk")));
        let data = disk.as_ref().map_or(scratch.path(), Disk::path).to_owned();
        let dir = |name: &str| {
            let dir = data.join(name);
            std::fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("cannot create {}: {e}", dir.display()));
            dir
        };
        let server = |name: &str, program| Server {
            name: name.to_owned(),
            program,
            site: spec.site.clone(),
            port: Port::free(),
            config: etc.join(format!("{name}.toml")),
            log: log.join(format!("{name}.log")),
            ignore_syncs: spec.ignore_syncs == Some(program),
            process: None,
        };
        let mds = server("mds", "sateen-mds");
        let mut oss: Vec<Server> = (0..spec.oss).map(|i| server(&format!("oss{i}"), "sateen-oss")).collect();
        if let (Some(first), Some(site)) = (oss.first_mut(), &spec.oss_site) {
            first.site = site.clone();
        }
        write(&mds.config, &mds_config(&mds.address(), &dir("mds"), &spec.mds_extra));
        for (i, oss) in oss.iter().enumerate() {
            let osts: Vec<PathBuf> = (0..spec.osts_per_oss).map(|j| dir(&format!("oss{i}/ost{j}"))).collect();
            let config = oss_config(&oss.address(), &mds.address(), &osts, spec.ost_capacity);
            write(&oss.config, &format!("{config}\n{}", spec.oss_extra));
        }
        Cluster { spec, mds, oss, mounts: 0.into(), disk, data, _guard: guard, scratch }
    }

    /// Private directory of the cluster.
    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }

    /// Address of the MDS.
    pub fn mds_address(&self) -> SocketAddr {
        self.mds.address()
    }

    /// Address of an OSS.
    pub fn oss_address(&self, i: usize) -> SocketAddr {
        self.oss[i].address()
    }

    /// How many OSSes there are.
    pub fn oss_count(&self) -> usize {
        self.oss.len()
    }

    /// How many OSTs there are.
    pub fn ost_count(&self) -> usize {
        self.spec.oss * self.spec.osts_per_oss
    }

    /// Configuration file of the MDS.
    pub fn mds_config(&self) -> &Path {
        &self.mds.config
    }

    /// Configuration file of an OSS.
    pub fn oss_config(&self, i: usize) -> &Path {
        &self.oss[i].config
    }

    /// Directory of the MDS.
    pub fn mds_dir(&self) -> PathBuf {
        self.data.join("mds")
    }

    /// Directory of an OST.
    pub fn ost_dir(&self, oss: usize, ost: usize) -> PathBuf {
        self.data.join(format!("oss{oss}/ost{ost}"))
    }

    /// Directories of all OSTs.
    pub fn ost_dirs(&self) -> Vec<PathBuf> {
        (0..self.spec.oss).flat_map(|i| (0..self.spec.osts_per_oss).map(move |j| self.ost_dir(i, j))).collect()
    }

    /// Source of a mount: `HOST:PORT:/FS`.
    pub fn source(&self) -> String {
        format!("{}:/{FS}", self.mds_address())
    }

    /// What the MDS has logged.
    pub fn mds_log(&self) -> String {
        std::fs::read_to_string(&self.mds.log).unwrap_or_default()
    }

    /// What an OSS has logged.
    pub fn oss_log(&self, i: usize) -> String {
        std::fs::read_to_string(&self.oss[i].log).unwrap_or_default()
    }

    /// Checks that every server that was started still runs.
    #[track_caller]
    pub fn assert_runs(&mut self) {
        let servers = std::iter::once(&mut self.mds).chain(&mut self.oss);
        servers.filter_map(|s| s.process.as_mut()).for_each(Process::assert_runs);
    }

    /// Checks the namespaces while they are served.
    #[track_caller]
    pub fn assert_names_sound(&self) {
        let done = self.sateen(&["fsck", "--mdt"]);
        assert!(done.success(), "{done}");
    }

    /// Id of the process of an OSS, which must run.
    pub fn oss_id(&self, i: usize) -> u32 {
        self.oss[i].process.as_ref().expect("the OSS runs").id()
    }

    /// Starts all servers and waits until every OST is UP.
    #[track_caller]
    pub fn start_all(&mut self) {
        self.mds.start();
        self.mds.wait_ready();
        self.oss.iter_mut().for_each(Server::start);
        self.wait_osts_up();
    }

    /// The disk all servers are on.
    pub fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("the cluster was made with a disk of its own")
    }

    /// Power cut of all servers and their disk. No server says a word between the end of its disk and its own.
    #[track_caller]
    pub fn cut_power(&mut self) {
        let servers = || std::iter::once(&self.mds).chain(&self.oss);
        servers().filter_map(|s| s.process.as_ref()).for_each(Process::freeze);
        self.disk().cut_power();
        self.mds.kill9();
        self.oss.iter_mut().for_each(Server::kill9);
    }

    /// `kill -9` of the MDS.
    pub fn kill_mds(&mut self) {
        self.mds.kill9();
    }

    /// Starts the MDS and waits until it serves.
    #[track_caller]
    pub fn start_mds(&mut self) {
        self.mds.start();
        self.mds.wait_ready();
    }

    /// `kill -9` of an OSS.
    pub fn kill_oss(&mut self, i: usize) {
        self.oss[i].kill9();
    }

    /// Starts an OSS and waits until it serves.
    #[track_caller]
    pub fn start_oss(&mut self, i: usize) {
        self.oss[i].start();
        self.oss[i].wait_ready();
    }

    /// Starts an OSS without waiting, for one that is not expected to come up.
    pub fn spawn_oss(&mut self, i: usize) -> Process {
        self.oss[i].spawn()
    }

    /// SIGTERM to an OSS; it must end well.
    #[track_caller]
    pub fn stop_oss(&mut self, i: usize) {
        self.oss[i].terminate();
    }

    /// SIGTERM to the MDS; it must end well.
    #[track_caller]
    pub fn stop_mds(&mut self) {
        self.mds.terminate();
    }

    /// Stops every server in an orderly way and starts them again.
    #[track_caller]
    pub fn restart_all(&mut self) {
        self.oss.iter_mut().for_each(Server::terminate);
        self.mds.terminate();
        self.start_all();
        self.oss.iter_mut().for_each(Server::wait_ready);
    }

    /// Waits until the MDS says that every OST is UP.
    #[track_caller]
    pub fn wait_osts_up(&mut self) {
        let (mds, count) = (self.mds_address(), self.ost_count());
        wait::until(&format!("{count} OSTs UP"), wait::SERVER, || {
            self.oss.iter_mut().filter_map(|o| o.process.as_mut()).for_each(Process::assert_runs);
            (rpc::osts_up(mds) == Some(count)).then_some(())
        });
    }

    /// Mounts the file system at a new directory.
    #[track_caller]
    pub fn mount(&self) -> Mount {
        self.mount_with(&["allow_other"])
    }

    /// Mounts with these options.
    #[track_caller]
    pub fn mount_with(&self, options: &[&str]) -> Mount {
        self.mount_at(&self.spec.site, options)
    }

    /// Mounts with these options, by a process that is there.
    #[track_caller]
    pub fn mount_at(&self, site: &Site, options: &[&str]) -> Mount {
        let k = self.mounts.get();
        self.mounts.set(k + 1);
        let requests = rings::option(self.spec.label, k, options);
        Mount::new(MountSpec {
            source: self.source(),
            path: self.scratch.dir(&format!("mnt{k}")),
            options: options.iter().copied().chain(requests).map(str::to_owned).collect(),
            log: self.dir().join(format!("log/mount{k}.log")),
            site: site.clone(),
        })
    }

    /// Runs `sateen ARGS` against this cluster, whatever comes out.
    #[track_caller]
    pub fn sateen(&self, args: &[&str]) -> Done {
        let mut command = Command::new(bins::path("sateen"));
        command.args(args).env("SATEEN_MDS", self.mds_address().to_string());
        command::run(&mut command, Duration::from_secs(60))
    }
}

/// Runs `lfs ARGS`, whatever comes out.
#[track_caller]
pub fn lfs(args: &[&dyn AsRef<std::ffi::OsStr>]) -> Done {
    let mut command = Command::new(bins::path("sateen-lfs"));
    command::run(command.args(args.iter().map(|a| a.as_ref())), Duration::from_secs(60))
}

/// Runs `lfs ARGS`, checks that it succeeded, and gives its output.
#[track_caller]
pub fn lfs_ok(args: &[&dyn AsRef<std::ffi::OsStr>]) -> String {
    let done = lfs(args);
    assert!(done.success(), "{done}");
    done.stdout
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
}

/// A configuration of the MDS.
pub fn mds_config(listen: &SocketAddr, dir: &Path, extra: &str) -> String {
    format!("listen = \"{listen}\"\ndir = {dir:?}\n{extra}")
}

/// A configuration of an OSS.
pub fn oss_config(listen: &SocketAddr, mds: &SocketAddr, osts: &[PathBuf], capacity: Option<u64>) -> String {
    let mut text = format!("listen = \"{listen}\"\nadvertise = \"{listen}\"\nmds = [\"{mds}\"]\n");
    for path in osts {
        text.push_str(&format!("\n[[ost]]\npath = {path:?}\n"));
        if let Some(bytes) = capacity {
            text.push_str(&format!("capacity = {bytes}\n"));
        }
    }
    text
}
