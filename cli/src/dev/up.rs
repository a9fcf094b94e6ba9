//! `sateen dev up`.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use sateen_client::admin::{NewFileSystem, OstState};
use sateen_fuse::kernel;
use sateen_types::{FsCode, FsError, FsResult};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::cluster::{Cluster, DRA_SYNC, FS_NAME, S3, oss_name};
use super::process::{self, POLL};
use super::repository;
use crate::args::DevUp;
use crate::daemon::{self, Background};
use crate::mds::{admin, block_on};

/// How long a server may take until it serves; recovery of a large store included.
const SERVER_TIMEOUT: Duration = Duration::from_secs(120);
/// How long one health check may take.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a process started here may take to end when `up` fails.
const UNDO_PATIENCE: Duration = Duration::from_secs(20);

/// What this call has started, to be stopped again if it fails.
#[derive(Default)]
struct Started {
    names: Vec<String>,
    children: Vec<(String, Child)>,
}

/// Runs the verb.
pub fn run(args: &DevUp) -> FsResult<u8> {
    let _lock = Cluster::lock(&args.dir)?;
    let cluster = match Cluster::load(&args.dir)? {
        None => {
            let mut cluster = Cluster::new(args)?;
            cluster.share_disk();
            cluster
        }
        Some(known) => {
            let running = names(&known).iter().any(|n| process::running(&known.pid_file(n)).is_some());
            known.adapt(args, running)?
        }
    };
    if cluster.last_port() > usize::from(u16::MAX) {
        return Err(FsError::new(
            FsCode::Invalid,
            format!("base port {} leaves no room for the other servers", cluster.base_port),
        )
        .with_hint("choose a smaller --base-port"));
    }
    cluster.write()?;
    let mut started = Started::default();
    match bring_up(&cluster, &mut started) {
        Ok(()) => {
            say!("{}", greeting(&cluster));
            Ok(0)
        }
        Err(e) => {
            undo(&cluster, started);
            Err(e)
        }
    }
}

/// Every process of the cluster, in the order of starting.
pub fn names(cluster: &Cluster) -> Vec<String> {
    let servers = std::iter::once("mds".to_owned()).chain((0..cluster.oss).map(oss_name));
    let s3 = [S3, DRA_SYNC].into_iter().filter(|_| !cluster.no_s3).map(str::to_owned);
    servers.chain(s3).chain(cluster.mount.as_ref().map(|_| "mount".to_owned())).collect()
}

fn bring_up(cluster: &Cluster, started: &mut Started) -> FsResult<()> {
    start_server(cluster, "mds", "sateen-mds", &configured(cluster, "mds"), &cluster.mds_address(), started)?;
    wait_healthy(cluster, "mds", &cluster.mds_address(), started)?;
    // One after the other, so that OST numbers follow the numbers of the OSSes.
    for i in 0..cluster.oss {
        let (name, address) = (oss_name(i), cluster.oss_address(i));
        start_server(cluster, &name, "sateen-oss", &configured(cluster, &name), &address, started)?;
        wait_healthy(cluster, &name, &address, started)?;
    }
    block_on(wait_osts(cluster))?;
    block_on(make_file_system(cluster))?;
    if !cluster.no_s3 {
        let address = cluster.s3_address();
        start_server(cluster, S3, "sateen-dev-s3", &repository::server_args(cluster), &address, started)?;
        wait_for(cluster, S3, started, || TcpStream::connect(&address).is_ok())?;
        let address = cluster.dra_sync_address();
        start_server(cluster, DRA_SYNC, "sateen-dra-sync", &configured(cluster, DRA_SYNC), &address, started)?;
        wait_healthy(cluster, DRA_SYNC, &address, started)?;
        block_on(repository::link_sample(cluster))?;
    }
    if let Some(point) = &cluster.mount {
        mount(cluster, point, started)?;
        verify(point)?;
    }
    Ok(())
}

/// Arguments of a server with a configuration of its own.
fn configured(cluster: &Cluster, name: &str) -> Vec<OsString> {
    vec!["--config".into(), cluster.config(name).into()]
}

fn start_server(
    cluster: &Cluster,
    name: &str,
    program: &str,
    args: &[OsString],
    address: &str,
    started: &mut Started,
) -> FsResult<()> {
    let pid_file = cluster.pid_file(name);
    if let Some(pid) = process::running(&pid_file) {
        say!("{name}: running (process {pid}, {address})");
        return Ok(());
    }
    process::check_port(name, address)?;
    let program = process::find_program(program)?;
    let child = process::spawn(&program, args, &cluster.log(name), &pid_file)?;
    say!("{name}: started (process {}, {address})", child.id());
    started.names.push(name.to_owned());
    started.children.push((name.to_owned(), child));
    Ok(())
}

/// Waits until the server says that it serves, and gives up at once if it has ended.
fn wait_healthy(cluster: &Cluster, name: &str, address: &str, started: &mut Started) -> FsResult<()> {
    wait_for(cluster, name, started, || block_on(is_serving(address)).unwrap_or(false))
}

/// [`wait_healthy`] with a question of its own.
fn wait_for(cluster: &Cluster, name: &str, started: &mut Started, serves: impl Fn() -> bool) -> FsResult<()> {
    let mut ended = None;
    let healthy = process::wait_until(SERVER_TIMEOUT, || {
        if let Some((_, child)) = started.children.iter_mut().find(|(n, _)| n == name) {
            ended = child.try_wait().ok().flatten();
        } else if process::running(&cluster.pid_file(name)).is_none() {
            return true;
        }
        ended.is_some() || serves()
    });
    let log = cluster.log(name);
    let failed = |code, what: String| {
        let tail = process::log_tail(&log);
        if !tail.is_empty() {
            complain!("last lines of {}:\n{tail}", log.display());
        }
        Err(FsError::new(code, what).with_hint(format!("see {}", log.display())))
    };
    match ended {
        Some(status) => failed(FsCode::Internal, format!("{name} ended at once ({status})")),
        None if !healthy => {
            failed(FsCode::TimedOut, format!("{name} does not serve after {} s", SERVER_TIMEOUT.as_secs()))
        }
        None => Ok(()),
    }
}

/// Asks the gRPC health service of a server.
pub async fn is_serving(address: &str) -> FsResult<bool> {
    let down = |e: tonic::transport::Error| FsError::new(FsCode::Unavailable, format!("{address}: {e}"));
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).map_err(down)?;
    let channel = endpoint.connect_timeout(HEALTH_TIMEOUT).timeout(HEALTH_TIMEOUT).connect().await.map_err(down)?;
    let reply = HealthClient::new(channel).check(HealthCheckRequest { service: String::new() }).await;
    Ok(reply.is_ok_and(|r| r.into_inner().status() == ServingStatus::Serving))
}

/// Waits until the MDS has heard of every OST.
async fn wait_osts(cluster: &Cluster) -> FsResult<()> {
    let admin = admin(&cluster.mds_address()).await?;
    let deadline = tokio::time::Instant::now() + SERVER_TIMEOUT;
    loop {
        let up = admin.list_osts().await?.iter().filter(|o| o.state == OstState::Up).count();
        if up >= cluster.osts() {
            say!("{up} OSTs up");
            return Ok(());
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(FsError::new(FsCode::TimedOut, format!("only {up} of {} OSTs are up", cluster.osts()))
                .with_hint(format!("see the logs in {}", cluster.dir.join("log").display())));
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn make_file_system(cluster: &Cluster) -> FsResult<()> {
    let admin = admin(&cluster.mds_address()).await?;
    let name = FS_NAME.parse()?;
    match admin.get_file_system(&name).await {
        Ok(_) => return Ok(()),
        Err(e) if e.code == FsCode::NotFound => {}
        Err(e) => return Err(e),
    }
    let new = NewFileSystem {
        root_uid: rustix::process::getuid().as_raw(),
        root_gid: rustix::process::getgid().as_raw(),
        ..NewFileSystem::new(name)
    };
    admin.create_file_system(new).await?;
    say!("file system {FS_NAME} made");
    Ok(())
}

fn mount(cluster: &Cluster, point: &Path, started: &mut Started) -> FsResult<()> {
    let pid_file = cluster.pid_file("mount");
    let here = kernel::mounts()?.into_iter().rev().find(|m| m.point == point);
    match (process::running(&pid_file), here) {
        (Some(pid), Some(m)) if m.fs_type == kernel::FS_TYPE => {
            say!("mount: running (process {pid}, {})", point.display());
            return Ok(());
        }
        (None, Some(m)) if m.fs_type == kernel::FS_TYPE && m.source == cluster.source() => {
            say!("mount: removing the rest of a mount that died");
            kernel::detach(point, true)?;
        }
        (Some(_), _) => {
            // The process is there but its mount is gone: it is about to end.
            process::stop(&pid_file, UNDO_PATIENCE)?;
        }
        (None, _) => {}
    }
    std::fs::create_dir_all(point).map_err(|e| {
        FsError::new(FsCode::AccessDenied, format!("cannot make the mount point {}: {e}", point.display()))
            .with_hint("choose another with --mount PATH")
    })?;
    let log = cluster.log("mount");
    let pid = daemon::start(&Background {
        source: &cluster.source(),
        point,
        options: &[],
        log: Some(&log),
        log_level: "info",
    })?;
    process::write_pid(&pid_file, pid)?;
    started.names.push("mount".to_owned());
    say!("mount: started (process {pid}, {})", point.display());
    Ok(())
}

/// Writes, reads back and removes a file through the mount.
fn verify(point: &Path) -> FsResult<()> {
    let path = point.join(".sateen-dev-check");
    let data = format!("sateen dev up, process {}\n", std::process::id());
    let check = || -> std::io::Result<bool> {
        let mut file = std::fs::File::create(&path)?;
        file.write_all(data.as_bytes())?;
        file.sync_all()?;
        drop(file);
        let mut back = String::new();
        std::fs::File::open(&path)?.read_to_string(&mut back)?;
        std::fs::remove_file(&path)?;
        Ok(back == data)
    };
    let failed = |what: String| {
        FsError::new(FsCode::Io, format!("the mount {} does not work: {what}", point.display()))
            .with_hint("see the logs: sateen dev status names them")
    };
    match check() {
        Ok(true) => Ok(()),
        Ok(false) => Err(failed("a file reads back different from what was written".to_owned())),
        Err(e) => Err(failed(e.to_string())),
    }
}

fn greeting(cluster: &Cluster) -> String {
    let dir = cluster.dir.display();
    let mut text = format!(
        "\nThe cluster is up: 1 MDS, {} OSTs on {} OSSes, file system {FS_NAME}.\n",
        cluster.osts(),
        cluster.oss
    );
    match &cluster.mount {
        Some(point) => {
            let point = point.display();
            text.push_str(&format!(
                "It is mounted at {point}. Try:\n\n  cp -r /usr/include {point}/\n  sateen lfs df -h {point}\n  \
                 sateen lfs getstripe {point}/include/stdio.h\n"
            ));
            if !cluster.no_s3 {
                text.push_str(&repository::greeting(cluster));
            }
        }
        None => text.push_str(&format!("Mount it with: sateen mount {} PATH\n", cluster.source())),
    }
    text.push_str(&format!(
        "\n  sateen status --mds {}\n  sateen dev down --dir {dir}    (the data stays)\n",
        cluster.mds_address()
    ));
    text
}

/// Stops what this call has started; what ran before goes on.
fn undo(cluster: &Cluster, started: Started) {
    if started.names.iter().any(|n| n == "mount")
        && let Some(point) = &cluster.mount
        && let Err(e) = kernel::detach(point, true)
    {
        complain!("warning: {e}");
    }
    for name in started.names.iter().rev() {
        if let Err(e) = process::stop(&cluster.pid_file(name), UNDO_PATIENCE) {
            complain!("warning: {name}: {e}");
        }
    }
    for (_, mut child) in started.children {
        // It has ended; this takes its entry out of the process table.
        let _ = child.wait();
    }
}
