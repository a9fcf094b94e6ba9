//! What the cases share: sizes, data, the cluster, its directory. Everything is made when it is first needed, so that a
//! run of few cases is short.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sateen_client::{Client, Credential, Fid, LayoutTemplate, Name, Options};
use sateen_types::StripePattern;
use sateen_types::layout::STRIPE_COUNT_ALL;
use tokio::runtime::Runtime;

use crate::args::Args;
use crate::bucket::Bucket;
use crate::cases::client_seq;
use crate::cluster::Cluster;
use crate::cpu;
use crate::data::{Blocks, Kind};
use crate::guard::Guard;
use crate::mount::Mount;

/// Directory of the file system in which all cases work; files in it are striped over all OSTs.
pub const DIRECTORY: &str = "bench";
/// How long removed objects may take to disappear before the next measurement starts all the same.
const SETTLE: Duration = Duration::from_secs(30);
/// Disk space beyond that of the prepared files, in bytes, up to which the OSTs count as empty of removed ones.
const SETTLED_BYTES: u64 = 16 << 20;
/// Pause between two looks at it.
const POLL: Duration = Duration::from_millis(20);

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Bytes of a sequential transfer.
    pub stream_bytes: u64,
    /// Bytes of a sequential transfer that ends with fsync.
    pub durable_bytes: u64,
    /// Bytes of the small file that 4 KiB blocks are written to, and of a stream of 4 KiB writes.
    pub small_stream_bytes: u64,
    /// Random reads or writes.
    pub random_ios: u32,
    /// Operations that each wait for the disk.
    pub synced_ios: u32,
    /// Files for rates of names.
    pub files: u32,
    /// Files of 8 KiB.
    pub small_files: u32,
    /// Objects of a listing.
    pub objects: u32,
    /// Files of a source tree.
    pub tree_files: u32,
    /// How long a limit that has no natural size is measured.
    pub limit_time: Duration,
}

impl Sizes {
    /// For figures.
    const FULL: Sizes = Sizes {
        stream_bytes: 1 << 30,
        durable_bytes: 4 << 30,
        small_stream_bytes: 256 << 20,
        random_ios: 32_768,
        synced_ios: 2_000,
        files: 8_000,
        small_files: 4_000,
        objects: 50_000,
        tree_files: 5_000,
        limit_time: Duration::from_millis(1500),
    };
    /// To see that all works.
    const QUICK: Sizes = Sizes {
        stream_bytes: 32 << 20,
        durable_bytes: 32 << 20,
        small_stream_bytes: 16 << 20,
        random_ios: 1_024,
        synced_ios: 50,
        files: 160,
        small_files: 64,
        objects: 500,
        tree_files: 64,
        limit_time: Duration::from_millis(100),
    };
}

/// One run.
#[derive(Debug)]
pub struct Bench {
    pub sizes: Sizes,
    pub runtime: Runtime,
    sateen: PathBuf,
    random: OnceCell<Blocks>,
    half: OnceCell<Blocks>,
    cluster: OnceCell<Cluster>,
    bucket: OnceCell<Bucket>,
    /// Names and sizes of files that stay for several cases.
    prepared: RefCell<HashMap<String, u64>>,
    names: Cell<u32>,
    /// MB per CPU-second of the last transfer that [`Bench::with_cpu`] looked at.
    efficiency: Cell<Option<f64>>,
    /// Last, so that what lies in its directory is dropped before it.
    guard: Guard,
}

impl Bench {
    /// Nothing runs yet but the guard.
    pub fn new(args: &Args) -> anyhow::Result<Bench> {
        let bins = match &args.bin_dir {
            Some(dir) => dir.canonicalize().with_context(|| format!("no directory {}", dir.display()))?,
            None => std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default(),
        };
        let sateen = bins.join("sateen");
        ensure!(
            sateen.is_file(),
            "{} does not exist; build sateen-cli, sateen-mds and sateen-oss, or give --bin-dir",
            sateen.display()
        );
        let base = args.dir.clone().unwrap_or_else(std::env::temp_dir);
        Ok(Bench {
            sizes: if args.quick { Sizes::QUICK } else { Sizes::FULL },
            runtime: Runtime::new().context("cannot start threads")?,
            guard: Guard::new(&base, &sateen, args.keep)?,
            sateen,
            random: OnceCell::new(),
            half: OnceCell::new(),
            cluster: OnceCell::new(),
            bucket: OnceCell::new(),
            prepared: RefCell::default(),
            names: Cell::new(0),
            efficiency: Cell::new(None),
        })
    }

    /// Data of one kind.
    pub fn blocks(&self, kind: Kind) -> &Blocks {
        let cell = match kind {
            Kind::Random => &self.random,
            Kind::Half => &self.half,
        };
        cell.get_or_init(|| Blocks::generate(kind))
    }

    /// A directory on the disk that the cluster is on.
    pub fn local_dir(&self) -> &Path {
        self.guard.dir()
    }

    /// A name that no other case uses.
    pub fn new_name(&self, label: &str) -> String {
        self.names.set(self.names.get() + 1);
        format!("{label}-{}", self.names.get())
    }

    /// The cluster, with [`DIRECTORY`] in it.
    pub fn cluster(&self) -> anyhow::Result<&Cluster> {
        if self.cluster.get().is_none() {
            let cluster = Cluster::start(&self.sateen, self.guard.dir().join("cluster"))?;
            self.runtime.block_on(async {
                let client = cluster.connect(|_| ()).await?;
                let name = Name::parse(DIRECTORY.as_bytes())?;
                let dir = client.mkdir(&Credential::ROOT, client.root(), &name, 0o777).await?;
                let wide = LayoutTemplate::plain(StripePattern::raid0(STRIPE_COUNT_ALL));
                client.set_default_layout(&Credential::ROOT, dir.fid, Some(wide)).await?;
                anyhow::Ok(client.close().await?)
            })?;
            // The cell is empty: nobody else has this value.
            let _ = self.cluster.set(cluster);
        }
        self.cluster.get().context("the cluster was just started")
    }

    /// Another cluster, with an S3 server and a worker.
    pub fn bucket(&self) -> anyhow::Result<&Bucket> {
        if self.bucket.get().is_none() {
            let dir = self.guard.dir().join("cluster-s3");
            let bucket = self.runtime.block_on(Bucket::start(&self.sateen, &dir))?;
            // The cell is empty: nobody else has this value.
            let _ = self.bucket.set(bucket);
        }
        self.bucket.get().context("the cluster was just started")
    }

    /// Runs `f` with a new client and [`DIRECTORY`].
    pub fn with_client<T, F>(&self, f: impl FnOnce(Client, Fid) -> F) -> anyhow::Result<T>
    where
        F: Future<Output = anyhow::Result<T>>,
    {
        self.with_client_of(|_| (), f)
    }

    /// [`Bench::with_client`] with other options than the usual ones.
    pub fn with_client_of<T, F>(
        &self,
        options: impl FnOnce(&mut Options),
        f: impl FnOnce(Client, Fid) -> F,
    ) -> anyhow::Result<T>
    where
        F: Future<Output = anyhow::Result<T>>,
    {
        let cluster = self.cluster()?;
        self.runtime.block_on(async {
            let client = cluster.connect(options).await?;
            let name = Name::parse(DIRECTORY.as_bytes())?;
            let dir = client.lookup(&Credential::ROOT, client.root(), &name).await?;
            let value = f(client.clone(), dir.fid).await?;
            client.close().await?;
            Ok(value)
        })
    }

    /// A new mount; nothing is cached in it.
    pub fn mount(&self) -> anyhow::Result<Mount> {
        let source = self.cluster()?.source();
        let dir = self.guard.dir();
        Mount::new(&self.sateen, &source, dir.join(self.new_name("mnt")), &dir.join("mount.log"))
    }

    /// Name of a file of `bytes` bytes in [`DIRECTORY`] that is on disk, checked, and in the page cache of the OSSes.
    pub fn prepared(&self, kind: Kind, bytes: u64) -> anyhow::Result<String> {
        let name = format!("prepared-{}-{bytes}", kind.name());
        if !self.prepared.borrow().contains_key(&name) {
            client_seq::write_file(self, kind, &name, bytes, true)?;
            // An OSS keeps in its page cache what is read a second time.
            client_seq::check_file(self, kind, &name, bytes)?;
            client_seq::check_file(self, kind, &name, bytes)?;
            self.prepared.borrow_mut().insert(name.clone(), bytes);
        }
        Ok(name)
    }

    /// Makes what stays for several cases, once.
    pub fn once(&self, name: &str, make: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        if !self.prepared.borrow().contains_key(name) {
            make()?;
            self.prepared.borrow_mut().insert(name.to_owned(), 0);
        }
        Ok(())
    }

    /// Runs `transfer`, which moves `bytes` bytes, and remembers how much the machine worked for it.
    pub fn with_cpu<T>(&self, bytes: u64, transfer: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let before = cpu::busy()?;
        let value = transfer()?;
        self.efficiency.set(Some(cpu::mb_per_cpu_second(bytes, cpu::busy()?.saturating_sub(before))));
        Ok(value)
    }

    /// MB per CPU-second of the last such transfer, once.
    pub fn take_efficiency(&self) -> Option<f64> {
        self.efficiency.take()
    }

    /// Removes a file of [`DIRECTORY`].
    pub fn remove(&self, name: &str) -> anyhow::Result<()> {
        self.with_client(|client, dir| async move {
            Ok(client.unlink(&Credential::ROOT, dir, &Name::parse(name.as_bytes())?).await?)
        })
    }

    /// Waits until what earlier measurements left to do is done: removed objects destroyed, dirty pages written.
    pub fn settle(&self) -> anyhow::Result<()> {
        let kept: u64 = self.prepared.borrow().values().sum();
        let cluster = self.cluster()?;
        let end = Instant::now() + SETTLE;
        while cluster.stored_bytes()? > kept + kept / 16 + SETTLED_BYTES && Instant::now() < end {
            std::thread::sleep(POLL);
        }
        rustix::fs::sync();
        Ok(())
    }
}
