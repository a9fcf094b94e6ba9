//! The cluster of the cases about data repositories, with an S3 server and a worker, and the bucket as any other program sees it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use sateen_client::Fid;
use sateen_client::admin::Admin;
use sateen_dev_s3::server::{self, Keys, Pace};
use sateen_dev_s3::{sample, store::Store};
use sateen_runtime::Shutdown;
use sateen_types::FsName;
use sateen_types::repository::{ImportState, Repository, RepositoryId, RepositorySettings, RepositoryState};

use tokio::sync::oneshot;

use crate::cluster::{Cluster, FS};

/// The bucket that `sateen dev up` makes.
const BUCKET: &str = "sample";
/// Longest one call may take.
const CALL: Duration = Duration::from_secs(60);
/// Longest anything that is waited for may take.
const LONGEST: Duration = Duration::from_secs(900);
/// Pause between two looks.
const POLL: Duration = Duration::from_millis(5);

/// How long the distant store waits before it answers, and how many bytes per second it sends of each object: like a store that is
/// reached over the internet.
const FAR: Pace = Pace { delay: Duration::from_millis(20), bytes_per_second: 10_000_000 };

/// Which of two stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distance {
    /// The S3 server that `sateen dev up` starts, as fast as it goes.
    Near,
    /// One as slow as [`FAR`].
    Far,
}

/// A bucket of one store.
#[derive(Debug)]
pub struct Place {
    endpoint: String,
    pub store: AmazonS3,
}

/// See the module.
#[derive(Debug)]
pub struct Bucket {
    pub cluster: Cluster,
    near: Place,
    far: Place,
}

impl Place {
    fn new(endpoint: String, access: &str, secret: &str) -> anyhow::Result<Place> {
        let store = AmazonS3Builder::new()
            .with_bucket_name(BUCKET)
            .with_endpoint(&endpoint)
            .with_region("us-east-1")
            .with_allow_http(true)
            .with_access_key_id(access)
            .with_secret_access_key(secret)
            .build()?;
        Ok(Place { endpoint, store })
    }

    /// Stores a small object.
    pub async fn put(&self, key: &str, bytes: Bytes) -> anyhow::Result<()> {
        self.store.put(&key.into(), bytes.into()).await.with_context(|| format!("cannot store {key}"))?;
        Ok(())
    }

    /// Whether there is an object.
    pub async fn has(&self, key: &str) -> anyhow::Result<bool> {
        match self.store.head(&key.into()).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(e) => Err(e).with_context(|| format!("cannot look at {key}")),
        }
    }

    /// An object.
    pub async fn read(&self, key: &str) -> anyhow::Result<Bytes> {
        Ok(self.store.get(&key.into()).await.with_context(|| format!("cannot read {key}"))?.bytes().await?)
    }
}

/// Starts the distant store, with keys in a file, in a task of this process.
async fn start_far(dir: &Path, keys: &Path) -> anyhow::Result<String> {
    let store = Store::open(dir)?;
    sample::fill(&store)?;
    let keys = Keys::read(keys)?;
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        let ready = |address: SocketAddr| {
            // Who asked waits for it.
            let _ = tell.send(address);
        };
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        if let Err(error) = server::run(Arc::new(store), listen, keys, FAR, Shutdown::new(), ready).await {
            eprintln!("the distant store ended: {error}");
        }
    });
    Ok(format!("http://{}", told.await.context("the distant store did not start")?))
}

impl Bucket {
    /// Starts everything in `dir`.
    pub async fn start(sateen: &Path, dir: &Path) -> anyhow::Result<Bucket> {
        let cluster = Cluster::start_with_s3(sateen, dir.to_owned())?;
        let keys = dir.join("etc/s3-credentials");
        let text = std::fs::read_to_string(&keys).with_context(|| format!("cannot read {}", keys.display()))?;
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.split_once('=').filter(|(n, _)| n.trim() == name));
            line.map(|(_, value)| value.trim().to_owned()).with_context(|| format!("no {name} in {}", keys.display()))
        };
        let (access, secret) = (value("aws_access_key_id")?, value("aws_secret_access_key")?);
        let near = Place::new(format!("http://{}", cluster.s3()), &access, &secret)?;
        let far = Place::new(start_far(&dir.join("far"), &keys).await?, &access, &secret)?;
        Ok(Bucket { cluster, near, far })
    }

    /// One of the stores.
    pub fn at(&self, distance: Distance) -> &Place {
        match distance {
            Distance::Near => &self.near,
            Distance::Far => &self.far,
        }
    }

    /// Links `/NAME` to a prefix. Nothing is carried over by itself.
    pub async fn link_as(&self, distance: Distance, name: &str, prefix: &str) -> anyhow::Result<Link> {
        self.link_with(distance, name, prefix, |_| ()).await
    }

    /// The same with other settings.
    pub async fn link_with(
        &self,
        distance: Distance,
        name: &str,
        prefix: &str,
        change: impl FnOnce(&mut RepositorySettings),
    ) -> anyhow::Result<Link> {
        let url = format!("s3://{BUCKET}/{prefix}/").parse()?;
        let mut settings = RepositorySettings {
            endpoint: self.at(distance).endpoint.clone(),
            ..RepositorySettings::new(format!("/{name}").parse()?, url)
        };
        change(&mut settings);
        let admin = Admin::connect(self.cluster.mds(), CALL).await?;
        let fs: FsName = FS.parse()?;
        // The sample that `sateen dev up` links, and what a run before this one left when it failed.
        for other in admin.list_repositories(&fs).await? {
            admin.delete_repository(&fs, other.id, true).await?;
        }
        let made = admin.create_repository(&fs, &settings).await?;
        let link = Link { admin, fs, id: made.id, root: made.root };
        link.until("the link", |now| (now.state == RepositoryState::Available).then_some(())).await?;
        Ok(link)
    }
}

/// A linked directory.
pub struct Link {
    admin: Admin,
    fs: FsName,
    id: RepositoryId,
    pub root: Fid,
}

impl Link {
    async fn until<T>(&self, what: &str, done: impl Fn(&Repository) -> Option<T>) -> anyhow::Result<T> {
        let end = Instant::now() + LONGEST;
        loop {
            let now = self.admin.get_repository(&self.fs, self.id).await?;
            if let Some(value) = done(&now) {
                return Ok(value);
            }
            if now.import.state == ImportState::Failed || now.state == RepositoryState::Misconfigured {
                bail!("{what}: {} {} {}", now.state, now.message, now.import.message);
            }
            ensure!(Instant::now() < end, "{what} takes more than {} s", LONGEST.as_secs());
            tokio::time::sleep(POLL).await;
        }
    }

    /// Imports everything; gives how long that took, and how many objects were seen.
    pub async fn import(&self) -> anyhow::Result<(Duration, u64)> {
        let start = Instant::now();
        self.admin.start_import(&self.fs, self.id, false).await?;
        let objects = self
            .until("the import", |now| (now.import.state == ImportState::Done).then_some(now.import.objects))
            .await?;
        Ok((start.elapsed(), objects))
    }

    /// Exports everything; gives how long that took, and how many objects were stored.
    pub async fn export(&self) -> anyhow::Result<(Duration, u64)> {
        let before = self.admin.get_repository(&self.fs, self.id).await?.export.stored;
        let start = Instant::now();
        self.admin.start_export(&self.fs, self.id, None).await?;
        let end = self.until("the export", |now| (now.export.queued == 0).then(|| now.export.clone())).await?;
        ensure!(end.failed == 0 && end.skipped == 0, "not everything was exported: {end:?}");
        Ok((start.elapsed(), end.stored - before))
    }

    /// Ends it; what is in its directory stays.
    pub async fn end(self) -> anyhow::Result<()> {
        Ok(self.admin.delete_repository(&self.fs, self.id, true).await?)
    }
}
