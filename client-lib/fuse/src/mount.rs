//! Mounting, serving, unmounting.
//!
//! A [`Mount`] exists once the root of the mount has answered through the kernel: whoever is told "mounted" can use it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fuser::{Config, INodeNo, Session, SessionACL};
use sateen_client::{Client, MountSource, Options};
use sateen_types::{FsCode, FsError, FsResult};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::answers::Answers;
use crate::fs::MountedFs;
use crate::kernel;
use crate::kernel_cache::KernelCache;
use crate::options::{MountOptions, Patience, Requests};
use crate::ring::{self, Server};
use crate::shell::Shell;
use crate::worker::Worker;

/// Threads that read requests from the kernel. They only decode and start tasks, and copy written data.
const THREADS_MAX: usize = 4;
/// How long the root of a fresh mount may take to answer through the kernel.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// What the kernel may read ahead in one go; the client reads further ahead by itself.
const KERNEL_READ_AHEAD_BYTES: u64 = 1 << 20;

/// The client's settings that follow from mount options.
pub fn client_options(options: &MountOptions, point: &Path) -> Options {
    let mut client = Options { client_name: format!("mount {}", point.display()), ..Options::default() };
    if !options.read_only {
        client.access_times = options.access_times;
        client.write_back_names = !options.dir_sync;
    }
    client.attributes_ahead = options.attr_timeout.min(options.entry_timeout);
    match options.patience {
        Patience::Default => {}
        Patience::Soft(time) => client.retry_for = Some(time),
        Patience::Hard => client.retry_for = None,
    }
    if let Some(time) = options.connect_timeout {
        client.connect_timeout = time;
    }
    if let Some(bytes) = options.dirty_bytes {
        client.dirty_bytes_max = bytes;
    }
    if let Some(bytes) = options.cache_bytes {
        client.cache_bytes_max = bytes;
    }
    if let Some(bytes) = options.readahead_bytes {
        client.readahead_bytes_max = bytes;
    }
    client
}

/// A mounted file system that is being served.
pub struct Mount {
    fs: Arc<MountedFs>,
    point: PathBuf,
    device: String,
    /// Turns true when the kernel has let go of the mount.
    ended: watch::Receiver<bool>,
}

impl Mount {
    /// Connects, mounts at `point` and waits until the root answers.
    pub async fn start(source: &MountSource, point: &Path, options: &MountOptions) -> FsResult<Mount> {
        let point = std::path::absolute(point)
            .and_then(|p| if p.exists() { p.canonicalize() } else { Ok(p) })
            .map_err(|e| FsError::new(FsCode::Invalid, format!("mount point {}: {e}", point.display())))?;
        let client = Client::connect(source, client_options(options, &point)).await?;
        let started = Mount::serve(&client, source, &point, options).await;
        if started.is_err() {
            // The first error is the one to tell.
            let _ = client.clone().close().await;
        }
        started
    }

    async fn serve(client: &Client, source: &MountSource, point: &Path, options: &MountOptions) -> FsResult<Mount> {
        let text = source.to_string();
        let fs = MountedFs::new(client.clone(), text.clone(), options);
        let fs = Arc::new(fs);
        let wants_rings = wants_rings(options)?;
        let connection = kernel::attach(&text, point, options)?;
        let undo = |e: FsError| {
            kernel::abort(point);
            e
        };
        let is_root = rustix::process::geteuid().is_root();
        let acl = if options.allow_other || is_root { SessionACL::All } else { SessionACL::Owner };
        let mut config = Config::default();
        config.n_threads = Some(std::thread::available_parallelism().map_or(1, usize::from).clamp(2, THREADS_MAX));
        // An answer must go where its request came from, and `Answers` knows one connection.
        config.clone_fd = false;
        config.acl = acl;
        let kernel_cache = KernelCache::default();
        let answers = Answers::new(&connection).map_err(|e| {
            kernel::abort(point);
            FsError::new(FsCode::Io, format!("the connection to the kernel cannot be shared: {e}"))
        })?;
        let worker = Worker::new(Handle::current());
        let by_rings = Arc::new(AtomicBool::new(wants_rings));
        let rings =
            connection.try_clone().map_err(|e| undo(FsError::new(FsCode::Io, format!("the connection: {e}"))))?;
        let shell = Shell::new(fs.clone(), worker.clone(), answers, kernel_cache.clone(), by_rings.clone());
        let (tell_end, ended) = watch::channel(false);
        let served = tokio::task::spawn_blocking(move || Session::from_fd(shell, connection, acl, config)).await;
        let failed = |e: String| FsError::new(FsCode::Io, format!("the kernel did not accept the mount: {e}"));
        let session = served
            .map_err(|e| failed(e.to_string()))
            .and_then(|s| s.map_err(|e| failed(e.to_string())))
            .map_err(undo)?;
        kernel_cache.begin(session.notifier());
        let server = Server::new(fs.clone(), worker, kernel_cache.clone());
        let mounted = Arc::downgrade(&fs);
        client.on_recall(Arc::new(move |fid| {
            let (kernel_cache, ino) = (kernel_cache.clone(), mounted.upgrade().map(|fs| fs.ino(fid)));
            Box::pin(async move {
                if let Some(ino) = ino {
                    kernel_cache.forget_data(INodeNo(ino)).await;
                }
            })
        }));
        if by_rings.load(Ordering::SeqCst) {
            ring::start(rings, server, point).map_err(undo)?;
        }
        std::thread::Builder::new()
            .name("sateen-fuse".to_owned())
            .spawn(move || {
                if let Err(e) = session.run() {
                    tracing::warn!(error = %e, "serving the kernel ended with an error");
                }
                // Nobody listens only when the Mount is gone.
                let _ = tell_end.send(true);
            })
            .map_err(|e| undo(failed(e.to_string())))?;
        let device = root_answers(point).await.map_err(undo)?;
        kernel::raise_read_ahead(&device, KERNEL_READ_AHEAD_BYTES);
        Ok(Mount { fs, point: point.to_owned(), device, ended })
    }

    /// Where it is mounted, absolute.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// Completes when somebody has unmounted it.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // An error means that the serving thread is gone, which is an end as well.
        let _ = ended.wait_for(|e| *e).await;
    }

    /// Unmounts. In use: `Busy`, unless `lazy`. Nothing happens if it is unmounted already.
    pub fn unmount(&self, lazy: bool) -> FsResult<()> {
        let ours = |m: &kernel::MountEntry| m.point == self.point && m.device == self.device;
        if !kernel::mounts()?.iter().any(ours) {
            return Ok(());
        }
        kernel::detach(&self.point, lazy)
    }

    /// Writes out what is left and ends the session at the MDS. Call it once the mount has ended.
    pub async fn close(self) -> FsResult<()> {
        self.fs.client().clone().close().await
    }
}

/// Whether the kernel is asked to send requests by rings.
fn wants_rings(options: &MountOptions) -> FsResult<bool> {
    let insists = options.requests == Requests::ByRings;
    if options.requests == Requests::ByDevice || (!insists && !ring::are_on()) {
        return Ok(false);
    }
    let refused = |why: String, hint| Err(FsError::new(FsCode::NotSupported, why).with_hint(hint));
    if !ring::are_on() {
        let hint = "as root: echo Y > /sys/module/fuse/parameters/enable_uring   (Linux 6.14 or later)";
        return refused("mount option io_uring: the kernel does not offer it".into(), hint);
    }
    match ring::try_out() {
        Ok(()) => Ok(true),
        Err(error) if insists => refused(
            format!("mount option io_uring: this process may not use it: {error}"),
            "look at /proc/sys/kernel/io_uring_disabled, and at the container's seccomp profile",
        ),
        Err(error) => {
            tracing::info!(%error, "no io_uring for this mount: requests are read from /dev/fuse");
            Ok(false)
        }
    }
}

/// Waits for the attributes of the mount's root, asked through the kernel, and gives its device number.
async fn root_answers(point: &Path) -> FsResult<String> {
    let path = point.to_owned();
    let asked = tokio::task::spawn_blocking(move || std::fs::symlink_metadata(path));
    let shown = point.display();
    match tokio::time::timeout(READY_TIMEOUT, asked).await {
        Err(_) => Err(FsError::new(
            FsCode::TimedOut,
            format!("the root of {shown} did not answer within {} s", READY_TIMEOUT.as_secs()),
        )
        .with_hint("look at the MDS: sateen status")),
        Ok(Err(e)) => Err(FsError::new(FsCode::Internal, format!("asking for the root of {shown}: {e}"))),
        Ok(Ok(Err(e))) => Err(FsError::new(FsCode::Io, format!("the root of {shown} answers with an error: {e}"))
            .with_hint("look at the MDS: sateen status")),
        Ok(Ok(Ok(_))) => {
            let table = kernel::mounts()?;
            let entry = table.iter().rev().find(|m| m.point == point && m.fs_type == kernel::FS_TYPE);
            entry.map(|m| m.device.clone()).ok_or_else(|| {
                FsError::new(FsCode::Io, format!("{shown} was unmounted again at once"))
                    .with_hint("see whether something else mounts or unmounts there")
            })
        }
    }
}
