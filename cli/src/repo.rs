//! `sateen repo`: directories linked to prefixes of object stores.

mod delete_data;
mod export;
mod show;
mod task;

use std::time::{Duration, Instant};

use sateen_client::admin::Admin;
use sateen_client::{Client, MountSource, Options};
use sateen_types::repository::{
    ImportState, LinkPath, Repository, RepositoryChange, RepositoryEvents, RepositorySettings, RepositoryState,
};
use sateen_types::{FsCode, FsError, FsName, FsResult, RepositoryId};
use serde_json::Value;

use crate::args::{EventArg, Mds, Repo, WhichRepo};
use crate::exit::DEGRADED;
use crate::mds::{admin, block_on};
use show::{details, summary, table, to_json};

/// Between looks at what is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(300);
/// After so long without a beginning it is said that perhaps no worker runs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the verb.
pub fn run(command: Repo, mds: &Mds) -> FsResult<u8> {
    let host = mds.address();
    block_on(async {
        match command {
            Repo::Create { fs, path, url, place, policies, chunk_mib, import, wait, json } => {
                let usual = RepositorySettings::new(path, url);
                let settings = RepositorySettings {
                    auto_import: carried("--auto-import", &policies.auto_import)?.unwrap_or_default(),
                    auto_export: carried("--auto-export", &policies.auto_export)?.unwrap_or_default(),
                    conflict: policies.conflict.unwrap_or_default(),
                    sync_interval_s: checked_interval(policies.sync_interval)?.unwrap_or(usual.sync_interval_s),
                    event_source: policies.event_source.unwrap_or_default(),
                    endpoint: place.endpoint.unwrap_or_default(),
                    region: place.region.unwrap_or_default(),
                    profile: place.profile.unwrap_or_default(),
                    chunk_mib: checked_chunk(chunk_mib)?.unwrap_or(0),
                    batch_import: import,
                    ..usual
                }
                .checked()?;
                let admin = admin(&host).await?;
                let mut repo = admin.create_repository(&fs, &settings).await?;
                if wait {
                    repo = settled(&admin, &fs, repo).await?;
                }
                if json {
                    say!("{}", to_json(&fs, &repo));
                } else {
                    say!("{}: {} of {fs} is linked to {}", repo.id, repo.settings.path, repo.settings.url);
                    if wait && import {
                        say!("{}", summary(&repo.import));
                    } else if !wait {
                        say!("see what comes of it with: sateen repo show {fs} {}", repo.id);
                    }
                }
                Ok(code(&repo, wait))
            }
            Repo::List { fs, json } => {
                let admin = admin(&host).await?;
                let names = match fs {
                    Some(fs) => vec![fs],
                    None => admin.list_file_systems().await?.into_iter().map(|fs| fs.name).collect(),
                };
                let mut all = Vec::new();
                for fs in names {
                    let of_fs = admin.list_repositories(&fs).await?;
                    all.extend(of_fs.into_iter().map(|repo| (fs.clone(), repo)));
                }
                if json {
                    say!("{}", Value::Array(all.iter().map(|(fs, repo)| to_json(fs, repo)).collect()));
                } else {
                    say_text!("{}", table(&all));
                }
                Ok(0)
            }
            Repo::Show { which, json } => {
                let repo = find(&admin(&host).await?, &which).await?;
                if json {
                    say!("{}", to_json(&which.fs, &repo));
                } else {
                    say_text!("{}", details(&which.fs, &repo));
                }
                Ok(0)
            }
            Repo::Update { which, place, policies, chunk_mib, json } => {
                let change = RepositoryChange {
                    endpoint: place.endpoint.map(|s| RepositorySettings::checked_endpoint(&s)).transpose()?,
                    region: place.region.map(|s| RepositorySettings::checked_region(&s)).transpose()?,
                    profile: place.profile.map(|s| RepositorySettings::checked_profile(&s)).transpose()?,
                    auto_import: carried("--auto-import", &policies.auto_import)?,
                    auto_export: carried("--auto-export", &policies.auto_export)?,
                    chunk_mib: checked_chunk(chunk_mib)?,
                    conflict: policies.conflict,
                    sync_interval_s: checked_interval(policies.sync_interval)?,
                    event_source: policies.event_source,
                };
                let admin = admin(&host).await?;
                let repo = find(&admin, &which).await?;
                let repo = admin.update_repository(&which.fs, repo.id, change).await?;
                if json {
                    say!("{}", to_json(&which.fs, &repo));
                } else {
                    say!("{}: {}", repo.id, repo.state);
                }
                Ok(0)
            }
            Repo::Delete { which, force, delete_data } => {
                let admin = admin(&host).await?;
                let repo = find(&admin, &which).await?;
                if delete_data {
                    return end_with_data(&admin, host, &which.fs, &repo, force).await;
                }
                admin.delete_repository(&which.fs, repo.id, force).await.map_err(|e| match e.code {
                    FsCode::Busy if e.hint.is_none() => {
                        e.with_hint("load its files first (lfs hsm_restore), or lose what is not loaded with --force")
                    }
                    _ => e,
                })?;
                say!("{}: {} is linked to {} no more", repo.id, repo.settings.path, repo.settings.url);
                Ok(0)
            }
            Repo::Import { which, sync, wait, json } => {
                let admin = admin(&host).await?;
                let repo = find(&admin, &which).await?;
                let mut repo = admin.start_import(&which.fs, repo.id, sync).await?;
                if wait {
                    repo = settled(&admin, &which.fs, repo).await?;
                }
                if json {
                    say!("{}", to_json(&which.fs, &repo));
                } else if wait {
                    say!("{}", summary(&repo.import));
                } else {
                    say!("import of {}: {}", repo.id, repo.import.state);
                }
                Ok(code(&repo, wait))
            }
            Repo::Export { which, path, wait, json } => {
                let admin = admin(&host).await?;
                let repo = find(&admin, &which).await?;
                let repo = admin.start_export(&which.fs, repo.id, path.as_ref()).await?;
                let left = wait.then_some(None);
                let question = export::Question { wait: left, ignore_skipped: false, json };
                export::status(&admin, &which.fs, vec![repo], question).await
            }
            Repo::Status { fs, repo, wait, timeout, ignore_skipped, json } => {
                let admin = admin(&host).await?;
                let repos = match repo {
                    Some(repo) => vec![find(&admin, &WhichRepo { fs: fs.clone(), repo }).await?],
                    None => admin.list_repositories(&fs).await?,
                };
                let left = wait.then(|| timeout.map(Duration::from_secs));
                export::status(&admin, &fs, repos, export::Question { wait: left, ignore_skipped, json }).await
            }
            Repo::Conflicts { which, json } => {
                let admin = admin(&host).await?;
                let repo = find(&admin, &which).await?;
                export::conflicts(&admin, &which.fs, &repo, json).await
            }
            Repo::Resolve { which, key, keep } => {
                let admin = admin(&host).await?;
                let repo = find(&admin, &which).await?;
                export::resolve(&admin, &which.fs, &repo, &key, keep).await
            }
            Repo::Task { command } => task::run(&admin(&host).await?, command).await,
            Repo::AutoRelease { fs, high, low, off, json } => {
                task::auto_release(&admin(&host).await?, &fs, high, low, off, json).await
            }
        }
    })
}

/// Ends a link, and removes what lies below its directory. What is not loaded goes as well; what waits for export keeps it from
/// beginning, unless `force`.
async fn end_with_data(admin: &Admin, host: String, fs: &FsName, repo: &Repository, force: bool) -> FsResult<u8> {
    let now = admin.get_repository(fs, repo.id).await?;
    if !force && (now.export.queued > 0 || now.conflicts > 0) {
        let (queued, conflicts) = (now.export.queued, now.conflicts);
        let what =
            format!("{queued} exports and {conflicts} conflicts of {} wait: they would go with the files", repo.id);
        return Err(FsError::new(FsCode::Busy, what)
            .with_hint(format!("sateen repo status {fs} {} --wait, or lose them with --force", repo.id)));
    }
    let source: MountSource = format!("{host}:/{fs}").parse()?;
    let options = Options { client_name: "sateen repo delete".to_owned(), ..Options::default() };
    let client = Client::connect(&source, options).await?;
    // Before anything goes: nothing of it is carried over to the bucket.
    admin.delete_repository(fs, repo.id, true).await?;
    say!("{}: {} is linked to {} no more", repo.id, repo.settings.path, repo.settings.url);
    let removed = delete_data::empty(&client, repo.root).await;
    let closed = client.close().await;
    let removed = removed.and_then(|removed| closed.map(|()| removed)).map_err(|e| match e.hint {
        Some(_) => e,
        None => {
            e.with_hint(format!("remove what is left of {} on a mount; its bucket is left alone", repo.settings.path))
        }
    })?;
    say!("{}: {removed} names were removed; objects stay", repo.settings.path);
    Ok(0)
}

/// What a list of changes says; `None`: nothing was given.
fn carried(option: &str, given: &[EventArg]) -> FsResult<Option<RepositoryEvents>> {
    if given.is_empty() {
        return Ok(None);
    }
    let has = |event| given.contains(&event);
    if has(EventArg::Off) && given.iter().any(|event| *event != EventArg::Off) {
        return Err(FsError::new(FsCode::Invalid, format!("{option}: OFF stands alone"))
            .with_hint("give OFF, or some of NEW,CHANGED,DELETED"));
    }
    let (created, changed, deleted) = (has(EventArg::New), has(EventArg::Changed), has(EventArg::Deleted));
    Ok(Some(RepositoryEvents { created, changed, deleted }))
}

/// 0 stands for the usual number on the wire, and is no number of seconds between two things.
fn checked_interval(seconds: Option<u32>) -> FsResult<Option<u32>> {
    match seconds {
        Some(0) => Err(FsError::new(FsCode::Invalid, "--sync-interval 0 is no time").with_hint("give 60 to 604800")),
        Some(seconds) => RepositorySettings::checked_sync_interval(seconds).map(Some),
        None => Ok(None),
    }
}

/// 0 stands for the usual size on the wire, and is no size.
fn checked_chunk(mib: Option<u32>) -> FsResult<Option<u32>> {
    match mib {
        Some(0) => Err(FsError::new(FsCode::Invalid, "--chunk-mib 0 is no size").with_hint("give 1 to 512000 MiB")),
        mib => Ok(mib),
    }
}

/// The repository of a number or a directory.
async fn find(admin: &Admin, which: &WhichRepo) -> FsResult<Repository> {
    let WhichRepo { fs, repo } = which;
    if !repo.starts_with('/') {
        let id: RepositoryId = repo.parse().map_err(|e: sateen_types::repository::BadRepositoryId| {
            FsError::new(FsCode::Invalid, e.to_string())
                .with_hint(format!("give its directory, or its number as in: sateen repo list {fs}"))
        })?;
        return admin.get_repository(fs, id).await;
    }
    let path: LinkPath = repo.parse()?;
    let all = admin.list_repositories(fs).await?;
    all.into_iter().find(|repo| repo.settings.path == path).ok_or_else(|| {
        FsError::new(FsCode::NotFound, format!("{path} of {fs} is linked to no repository"))
            .with_hint(format!("see those there are with: sateen repo list {fs}"))
    })
}

/// Waits until a worker has looked at the bucket, and the import is over if there is one.
async fn settled(admin: &Admin, fs: &FsName, mut repo: Repository) -> FsResult<Repository> {
    let (since, mut said) = (Instant::now(), false);
    loop {
        if repo.state == RepositoryState::Misconfigured {
            let what = format!("{}: {} cannot be read: {}", repo.id, repo.settings.url, repo.message);
            return Err(FsError::new(FsCode::Io, what)
                .with_hint("it is tried again every minute; `sateen repo update` does it at once"));
        }
        if repo.state == RepositoryState::Failed || repo.import.state == ImportState::Failed {
            let why = if repo.message.is_empty() { &repo.import.message } else { &repo.message };
            return Err(FsError::new(FsCode::Io, format!("{}: {why}", repo.id))
                .with_hint(format!("what was imported stays; see: sateen repo show {fs} {}", repo.id)));
        }
        let imports = matches!(repo.import.state, ImportState::Queued | ImportState::Running);
        if !repo.state.is_undecided() && !imports {
            return Ok(repo);
        }
        let begun = repo.import.state == ImportState::Running;
        if !said && !begun && since.elapsed() > PATIENCE {
            complain!("no worker has begun yet");
            complain!("hint: check that a sateen-dra-sync runs and reaches the MDS");
            said = true;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
        repo = admin.get_repository(fs, repo.id).await?;
    }
}

/// Not all of what was waited for came.
fn code(repo: &Repository, waited: bool) -> u8 {
    if waited && repo.import.state == ImportState::Done && repo.import.skipped > 0 { DEGRADED } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    #[test]
    fn policies_are_parsed() {
        let words = "sateen repo create scratch /d s3://b/p --auto-import NEW,changed --auto-export off --chunk-mib 4 \
                     --conflict keep-both --event-source listen --sync-interval 60";
        let Ok(Cli { command: Command::Repo { command: Repo::Create { policies, url, .. }, .. } }) =
            Cli::try_parse_from(words.split_whitespace())
        else {
            panic!("not parsed")
        };
        let carried_ = |given: &[EventArg]| carried("--auto-import", given);
        let events = RepositoryEvents { created: true, changed: true, deleted: false };
        assert_eq!(carried_(&policies.auto_import), Ok(Some(events)));
        assert_eq!(carried_(&policies.auto_export), Ok(Some(RepositoryEvents::default())));
        assert_eq!(carried_(&[]), Ok(None));
        carried_(&[EventArg::Off, EventArg::New]).expect_err("both");
        assert_eq!(url.to_string(), "s3://b/p/");
        for bad in [
            "/d ftp://b/p",
            "d s3://b/p",
            "/d s3://b/p --auto-import OLD",
            "/d/../e s3://b/p",
            "/d s3://b/p --conflict none",
            "/d s3://b/p --event-source sqs:q",
        ] {
            let words = format!("sateen repo create scratch {bad}");
            Cli::try_parse_from(words.split(' ')).expect_err(bad);
        }
        checked_chunk(Some(0)).expect_err("no size");
        checked_interval(Some(0)).expect_err("no time");
        checked_interval(Some(59)).expect_err("too short");
    }
}
