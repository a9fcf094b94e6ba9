//! The sample bucket of a development cluster, linked to `/dataset`.

use std::ffi::OsString;
use std::time::Duration;

use sateen_types::repository::{ImportState, Repository, RepositorySettings, RepositoryState};
use sateen_types::{FsCode, FsError, FsResult};

use super::cluster::{Cluster, DRA_SYNC, FS_NAME};
use super::process::POLL;
use crate::mds::admin;

/// Where the bucket is linked.
const PATH: &str = "/dataset";
/// The bucket, which `sateen-dev-s3 --sample` makes.
const URL: &str = "s3://sample/";
/// How long the import of the few objects may take.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(60);

/// Arguments of the S3 server.
pub fn server_args(cluster: &Cluster) -> Vec<OsString> {
    vec![
        "--dir".into(),
        cluster.s3_dir().into(),
        "--listen".into(),
        cluster.s3_address().into(),
        "--access-key-file".into(),
        cluster.s3_keys().into(),
        "--sample".into(),
    ]
}

/// Links the bucket and waits until its names are there. Does nothing if anything is linked already, or was once.
pub async fn link_sample(cluster: &Cluster) -> FsResult<()> {
    let mark = cluster.dir.join("s3-linked");
    if mark.exists() {
        return Ok(());
    }
    let admin = admin(&cluster.mds_address()).await?;
    let fs = FS_NAME.parse()?;
    let settings = RepositorySettings {
        endpoint: format!("http://{}", cluster.s3_address()),
        batch_import: true,
        ..RepositorySettings::new(PATH.parse()?, URL.parse()?)
    };
    let made = match admin.create_repository(&fs, &settings).await {
        Ok(made) => made,
        // The first `up` was stopped in the middle.
        Err(e) if e.code == FsCode::Exists => return Ok(()),
        Err(e) => return Err(e),
    };
    let deadline = tokio::time::Instant::now() + IMPORT_TIMEOUT;
    loop {
        let now = admin.get_repository(&fs, made.id).await?;
        if settled(&now)? {
            say!("{PATH}: linked to {URL}, {} objects", now.import.objects);
            std::fs::write(&mark, format!("{}\n", made.id))
                .map_err(|e| FsError::new(FsCode::Io, format!("cannot write {}: {e}", mark.display())))?;
            return Ok(());
        }
        if tokio::time::Instant::now() >= deadline {
            let what =
                format!("{URL} is not imported after {} s: {} {}", IMPORT_TIMEOUT.as_secs(), now.state, now.message);
            return Err(
                FsError::new(FsCode::TimedOut, what).with_hint(format!("see {}", cluster.log(DRA_SYNC).display()))
            );
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Whether the import is done.
fn settled(repository: &Repository) -> FsResult<bool> {
    let failed = |why: &str| Err(FsError::new(FsCode::Io, format!("{URL} could not be imported: {why}")));
    match (repository.state, repository.import.state) {
        (RepositoryState::Misconfigured | RepositoryState::Failed, _) => failed(&repository.message),
        (_, ImportState::Failed) => failed(&repository.import.message),
        (RepositoryState::Available, ImportState::Done) => Ok(true),
        _ => Ok(false),
    }
}

/// What can be tried with the bucket.
pub fn greeting(cluster: &Cluster) -> String {
    let Some(point) = cluster.mount.as_ref().map(|p| p.join("dataset")) else { return String::new() };
    let dataset = point.display();
    format!(
        "\nThe S3 bucket `sample` is linked at {dataset}: names are there, bytes come when they are read.\n\n  \
         cat {dataset}/README.txt\n  sateen lfs hsm_state {dataset}/measurements/large.bin\n  \
         head -c 1M {dataset}/measurements/large.bin | md5sum\n  sateen repo list scratch --mds {}\n",
        cluster.mds_address()
    )
}
