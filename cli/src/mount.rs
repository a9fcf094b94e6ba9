//! `sateen mount`: mounts, in the background unless asked otherwise, and serves until unmounted.

use std::path::Path;
use std::time::Duration;

use sateen_client::MountSource;
use sateen_fuse::{Mount, MountOptions};
use sateen_runtime::Shutdown;
use sateen_runtime::telemetry::{self, LogConfig, LogFormat};
use sateen_types::{FsCode, FsError, FsResult};

use crate::args;
use crate::daemon::{self, Background, Report};

/// How long programs that still use a mount that is being stopped may take to let go of it.
const LET_GO_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs the verb. Wrong words are found before anything is started.
pub fn run(args: args::Mount) -> FsResult<u8> {
    let checked = args.source.parse::<MountSource>().and_then(|source| {
        let options = MountOptions::parse(&args.options, false)?;
        Ok((source, options))
    });
    if args.detached {
        daemon::detach();
        let done = checked.and_then(|(source, options)| {
            start_logging(&args.log_level)?;
            serve(&source, &args.path, &options, || Report::Ready.send())
        });
        if let Err(e) = &done {
            Report::from(e).send();
        }
        return done.map(|()| 0);
    }
    let (source, options) = checked?;
    if args.foreground {
        start_logging(&args.log_level)?;
        let point = args.path.display().to_string();
        return serve(&source, &args.path, &options, || tracing::info!(%point, "mounted")).map(|()| 0);
    }
    let point = absolute(&args.path)?;
    daemon::start(&Background {
        source: &source.to_string(),
        point: &point,
        options: &args.options,
        log: args.log.as_deref(),
        log_level: &args.log_level,
    })?;
    Ok(0)
}

/// The background process has another working directory.
pub fn absolute(path: &Path) -> FsResult<std::path::PathBuf> {
    std::path::absolute(path).map_err(|e| FsError::new(FsCode::Invalid, format!("path {}: {e}", path.display())))
}

fn start_logging(level: &str) -> FsResult<()> {
    // It tells of each interrupt of a request that came by io_uring as of an answer that failed.
    let level = format!("{level},fuser::reply=off");
    telemetry::init(&LogConfig { level, format: LogFormat::Text })?;
    telemetry::abort_on_panic();
    Ok(())
}

/// Mounts, tells `ready`, and serves until somebody unmounts or a signal asks to stop.
fn serve(source: &MountSource, point: &Path, options: &MountOptions, ready: impl FnOnce()) -> FsResult<()> {
    let internal = |e: std::io::Error| FsError::new(FsCode::Internal, format!("cannot start the runtime: {e}"));
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().on_thread_start(sateen_fuse::unbound()).build().map_err(internal)?;
    runtime.block_on(async {
        let stop = Shutdown::on_signals().map_err(internal)?;
        let mount = tokio::select! {
            mount = Mount::start(source, point, options) => mount?,
            () = stop.requested() => return Err(FsError::new(FsCode::Interrupted, "interrupted before it was mounted")),
        };
        ready();
        tokio::select! {
            () = mount.ended() => {}
            () = stop.requested() => unmount(&mount).await,
        }
        tracing::info!(point = %mount.point().display(), "unmounted");
        mount.close().await
    })
}

/// Unmounts because a signal asked to. What is in use is detached: new programs no longer see it, those that use it
/// have a while to finish.
async fn unmount(mount: &Mount) {
    let done = match mount.unmount(false) {
        Err(e) if e.code == FsCode::Busy => {
            tracing::warn!(error = %e, "in use: detached, waiting for programs to let go");
            mount.unmount(true)
        }
        other => other,
    };
    if let Err(e) = done {
        tracing::error!(error = %e, hint = e.hint.as_deref(), "cannot unmount");
    }
    if tokio::time::timeout(LET_GO_TIMEOUT, mount.ended()).await.is_err() {
        tracing::warn!("programs still use the mount; they get ENOTCONN from now on");
    }
}
