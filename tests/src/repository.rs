//! A cluster with a bucket linked to a directory: S3 server, workers, link.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sateen_client::admin::Admin;
use sateen_client::{Client, Credential, Fid, FsResult, Name, Options};
use sateen_dev_s3::store::Store;
use sateen_types::repository::{
    Conflict, ConflictPolicy, HsmState, ImportState, Repository, RepositoryChange, RepositoryId, RepositorySettings,
    RepositoryState,
};
use sateen_types::{FsCode, FsError, Timestamp};

use crate::cluster::{Cluster, ClusterSpec, FS};
use crate::ports::Port;
use crate::process::Process;
use crate::s3::{BUCKET, Object, Pace, S3};
use crate::{bins, metrics, rpc, wait};

/// Where the bucket is linked.
pub const PATH: &str = "/dataset";
/// Longest an import of a test's objects may take.
const IMPORT: Duration = Duration::from_secs(300);
/// Longest an export of a test's files may take.
const EXPORT: Duration = Duration::from_secs(180);
/// Lease of sessions: a worker that was killed is given up after it.
pub const LEASE_MS: u32 = 2000;
/// Longest one call may take.
const CALL: Duration = Duration::from_secs(30);

/// One worker for data repositories.
#[derive(Debug)]
pub struct Worker {
    process: Process,
    metrics: Port,
    _listen: Port,
    /// Kept for as long as the worker has it.
    _webhook: Option<Port>,
}

impl Worker {
    /// Starts one and waits until it works.
    #[track_caller]
    fn start(cluster: &Cluster, s3: &S3, number: usize) -> Worker {
        Worker::start_with(cluster, s3, number, "")
    }

    /// [`Worker::start`] with more in its configuration.
    #[track_caller]
    fn start_with(cluster: &Cluster, s3: &S3, number: usize, more: &str) -> Worker {
        let (listen, port) = (Port::free(), Port::free());
        let config = cluster.dir().join(format!("etc/dra-sync{number}.toml"));
        let text = format!(
            "mds = [\"{}\"]\nlisten = \"{}\"\nmetrics_listen = \"{}\"\n{more}[profiles.default]\nfile = {:?}\n",
            cluster.mds_address(),
            listen.address(),
            port.address(),
            s3.keys()
        );
        std::fs::write(&config, text).expect("the configuration can be written");
        let log = cluster.dir().join(format!("log/dra-sync{number}.log"));
        let args = ["--config".into(), config.into()];
        let mut process =
            Process::start(&format!("dra-sync{number}"), &bins::path("sateen-dra-sync"), &args, &log, |_| {});
        wait::until("a worker that is ready", wait::SERVER, || {
            process.assert_runs();
            rpc::is_serving(listen.address()).then_some(())
        });
        Worker { process, metrics: port, _listen: listen, _webhook: None }
    }

    /// Number of the process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// `kill -9`.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// SIGTERM; it must end well.
    #[track_caller]
    pub fn terminate(&mut self) {
        let status = self.process.terminate();
        assert!(status.success(), "the worker ended with {status}");
    }

    /// Assignments that it is at, of this kind.
    #[track_caller]
    pub fn running(&self, kind: &str) -> u64 {
        let name = format!("sateen_dra_sync_assignments{{kind=\"{kind}\"}}");
        metrics::plain(self.metrics.address(), &name)
    }

    /// Exports that ended like this since it was started.
    #[track_caller]
    pub fn exported(&self, result: &str) -> u64 {
        let name = format!("sateen_dra_sync_exports_total{{result=\"{result}\"}}");
        metrics::plain(self.metrics.address(), &name)
    }

    /// A figure without labels.
    #[track_caller]
    pub fn figure(&self, name: &str) -> u64 {
        metrics::plain(self.metrics.address(), &format!("sateen_dra_sync_{name}"))
    }
}

/// Everything. The parts that depend on others are dropped first.
#[derive(Debug)]
pub struct Linked {
    /// The workers.
    pub workers: Vec<Worker>,
    /// How many there were.
    started: usize,
    /// The store.
    pub s3: S3,
    /// The link.
    pub id: RepositoryId,
    /// The cluster.
    pub cluster: Cluster,
}

impl Linked {
    /// Starts everything with one worker, links the bucket that `fill` fills, and waits until it is imported.
    #[track_caller]
    pub fn start(label: &'static str, fill: impl FnOnce(&Store)) -> Linked {
        let linked = Linked::begin(label, Pace::default(), fill);
        linked.imported();
        linked
    }

    /// [`Linked::start`] of a link with other settings.
    #[track_caller]
    pub fn start_with(
        label: &'static str,
        settings: impl FnOnce(&mut RepositorySettings),
        fill: impl FnOnce(&Store),
    ) -> Linked {
        let linked = Linked::begin_with(label, Pace::default(), settings, fill);
        linked.imported();
        linked
    }

    /// [`Linked::start`] with a store as slow as this, without waiting.
    #[track_caller]
    pub fn begin(label: &'static str, pace: Pace, fill: impl FnOnce(&Store)) -> Linked {
        Linked::begin_with(label, pace, |_| {}, fill)
    }

    /// [`Linked::begin`] of a link with other settings.
    #[track_caller]
    pub fn begin_with(
        label: &'static str,
        pace: Pace,
        change: impl FnOnce(&mut RepositorySettings),
        fill: impl FnOnce(&Store),
    ) -> Linked {
        let mds_extra = format!("[session]\nlease_ms = {LEASE_MS}\n");
        Linked::begin_on(ClusterSpec { mds_extra, ..ClusterSpec::new(label) }, pace, change, fill)
    }

    /// [`Linked::begin_with`] on another cluster.
    #[track_caller]
    pub fn begin_on(
        spec: ClusterSpec,
        pace: Pace,
        change: impl FnOnce(&mut RepositorySettings),
        fill: impl FnOnce(&Store),
    ) -> Linked {
        let cluster = Cluster::start(spec);
        let s3 = S3::start(cluster.dir(), pace, fill);
        let worker = Worker::start(&cluster, &s3, 0);
        let mut settings = RepositorySettings {
            endpoint: s3.endpoint(),
            batch_import: true,
            ..RepositorySettings::new(PATH.parse().expect("a path"), format!("s3://{BUCKET}/").parse().expect("a URL"))
        };
        change(&mut settings);
        let made = admin(cluster.mds_address(), async |admin| {
            admin.create_repository(&FS.parse().expect("a name"), &settings).await
        });
        let id = made.unwrap_or_else(|e| panic!("the bucket cannot be linked: {e}")).id;
        Linked { workers: vec![worker], started: 1, s3, id, cluster }
    }

    /// Starts one more worker.
    #[track_caller]
    pub fn add_worker(&mut self) {
        self.workers.push(Worker::start(&self.cluster, &self.s3, self.started));
        self.started += 1;
    }

    /// The link as it is now; `None` while the MDS does not answer.
    pub fn now(&self) -> Option<Repository> {
        admin(self.cluster.mds_address(), async |admin| {
            admin.get_repository(&FS.parse().expect("a name"), self.id).await
        })
        .ok()
    }

    /// Waits until the import is done.
    #[track_caller]
    pub fn imported(&self) -> Repository {
        wait::until("the end of the import", IMPORT, || {
            let now = self.now()?;
            let failed = now.import.state == ImportState::Failed || now.state == RepositoryState::Misconfigured;
            assert!(!failed, "{}: {} {}", now.state, now.message, now.import.message);
            (now.import.state == ImportState::Done).then_some(now)
        })
    }

    /// Begins to import again.
    #[track_caller]
    pub fn begin_import(&self) {
        let started = admin(self.cluster.mds_address(), async |admin| {
            admin.start_import(&FS.parse().expect("a name"), self.id, false).await
        });
        started.unwrap_or_else(|e| panic!("the import cannot be started: {e}"));
    }

    /// Imports again, and waits.
    #[track_caller]
    pub fn import_again(&self) -> Repository {
        self.begin_import();
        self.imported()
    }

    /// Everything in the bucket that is to be there is there, and nothing waits; gives the bucket.
    #[track_caller]
    pub fn exported(&self, what: &str, wanted: impl Fn(&BTreeMap<String, Object>) -> bool) -> BTreeMap<String, Object> {
        let mut last = None;
        let done = wait::try_until(EXPORT, || {
            // First: what is stored after a look at the bucket would be missing.
            let waits = self.now()?.export.queued;
            last = self.s3.objects().or(last.take());
            last.clone().filter(|seen| waits == 0 && wanted(seen))
        });
        done.unwrap_or_else(|| {
            let keys: Vec<_> = last.iter().flatten().map(|(key, o)| (key.clone(), o.bytes.len())).collect();
            panic!("{what} did not happen: {keys:?}, {:?}", self.now())
        })
    }

    /// Keys of which both sides have changed.
    #[track_caller]
    pub fn conflicts(&self) -> Vec<Conflict> {
        let list = admin(self.cluster.mds_address(), async |admin| {
            admin.list_conflicts(&FS.parse().expect("a name"), self.id, b"").await
        });
        list.unwrap_or_else(|e| panic!("the conflicts cannot be listed: {e}")).0
    }

    /// Ends a conflict, when the file is not open any more.
    #[track_caller]
    pub fn resolve(&self, key: &str, how: ConflictPolicy) {
        wait::until("the end of a conflict", EXPORT, || {
            let done = admin(self.cluster.mds_address(), async |admin| {
                admin.resolve_conflict(&FS.parse().expect("a name"), self.id, key.as_bytes(), how).await
            });
            match done {
                Ok(()) => Some(()),
                Err(e) if e.code == FsCode::Busy => None,
                Err(e) => panic!("the conflict of {key} cannot be ended: {e}"),
            }
        });
    }

    /// Changes the link.
    #[track_caller]
    pub fn change(&self, change: RepositoryChange) {
        let changed = admin(self.cluster.mds_address(), async |admin| {
            admin.update_repository(&FS.parse().expect("a name"), self.id, change).await
        });
        changed.unwrap_or_else(|e| panic!("the link cannot be changed: {e}"));
    }

    /// Ends the link, whatever is not loaded, and links the same directory and prefix again with other settings, which are imported.
    #[track_caller]
    pub fn make_again(&mut self, change: impl FnOnce(&mut RepositorySettings)) {
        let mut settings = self.now().expect("the MDS answers").settings;
        change(&mut settings);
        let made = admin(self.cluster.mds_address(), async |admin| {
            let fs = FS.parse().expect("a name");
            admin.delete_repository(&fs, self.id, true).await?;
            admin.create_repository(&fs, &settings).await
        });
        self.id = made.unwrap_or_else(|e| panic!("the link cannot be made again: {e}")).id;
    }

    /// Compares bucket and directory, and waits.
    #[track_caller]
    pub fn compare(&self) -> Repository {
        self.begin_compare();
        self.imported()
    }

    /// Begins to compare bucket and directory.
    #[track_caller]
    pub fn begin_compare(&self) {
        let started = admin(self.cluster.mds_address(), async |admin| {
            admin.start_import(&FS.parse().expect("a name"), self.id, true).await
        });
        started.unwrap_or_else(|e| panic!("the comparison cannot be started: {e}"));
    }

    /// Waits until somebody who hears of changes of the bucket has said so from now on.
    #[track_caller]
    pub fn watched(&self) {
        let since = Timestamp::now();
        wait::until("somebody who watches the bucket", IMPORT, || {
            let now = self.now()?;
            (now.watched.is_some_and(|at| at > since) && now.watch_message.is_empty()).then_some(())
        });
    }

    /// Starts one more worker, with a webhook, and has the store tell it of changes from now on.
    #[track_caller]
    pub fn tell_webhook(&mut self) {
        let (port, token) = (Port::free(), "0123456789abcdef-test");
        let file = self.cluster.dir().join("etc/webhook-token");
        std::fs::write(&file, token).expect("the token can be written");
        let more = format!("[webhook]\nlisten = \"{}\"\ntoken_file = {file:?}\n", port.address());
        let worker = Worker::start_with(&self.cluster, &self.s3, self.started, &more);
        self.s3.restart_telling(format!("http://{}/events/{token}", port.address()));
        self.started += 1;
        self.workers.push(Worker { _webhook: Some(port), ..worker });
    }

    /// State of a file, by its path below the link. Asked by a client of its own.
    #[track_caller]
    pub fn hsm(&self, path: &str) -> HsmState {
        self.try_hsm(path).unwrap_or_else(|e| panic!("state of {path}: {e}"))
    }

    /// [`Linked::hsm`]; an error while the MDS does not answer.
    pub fn try_hsm(&self, path: &str) -> FsResult<HsmState> {
        let source = self.cluster.source().parse()?;
        rpc::block_on(async {
            let client = Client::connect(&source, Options { connect_timeout: CALL, ..Options::default() }).await?;
            let state = async {
                let mut at: Fid = client.root();
                for name in PATH.split('/').chain(path.split('/')).filter(|part| !part.is_empty()) {
                    at = client.lookup(&Credential::ROOT, at, &Name::parse(name.as_bytes())?).await?.fid;
                }
                client.hsm_state(at).await
            };
            let state = state.await;
            client.close().await?;
            state
        })
    }

    /// A path on a mount.
    pub fn on(&self, mount: &crate::Mount, path: &str) -> PathBuf {
        mount.join(PATH.trim_start_matches('/')).join(path)
    }
}

/// Asks the MDS.
fn admin<T>(mds: SocketAddr, ask: impl AsyncFnOnce(&Admin) -> FsResult<T>) -> FsResult<T> {
    rpc::block_on(async {
        let admin = tokio::time::timeout(CALL, Admin::connect(&mds.to_string(), CALL))
            .await
            .map_err(|_| FsError::new(FsCode::TimedOut, "the MDS does not answer"))??;
        ask(&admin).await
    })
}
