//! `sateen repo`: directories linked to prefixes of object stores.

use std::time::{Duration, Instant};

use sateen_client::RepositoryChange;
use sateen_client::admin::Admin;
use sateen_types::repository::{ImportState, ImportStatus, Repository, RepositoryEvents, RepositorySettings};
use sateen_types::repository::{LinkPath, RepositoryState};
use sateen_types::{FsCode, FsError, FsName, FsResult, RepositoryId};
use serde_json::{Value, json};

use crate::args::{Mds, Policies, Repo, WhichRepo};
use crate::exit::DEGRADED;
use crate::mds::{admin, block_on};
use crate::table::{Align, bytes, render, time};

/// Between looks at what is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(300);
/// After so long without a beginning it is said that perhaps no worker runs.
const PATIENCE: Duration = Duration::from_secs(10);
/// Skipped objects that are shown to people.
const SKIPPED_SHOWN: usize = 20;

/// Runs the verb.
pub fn run(command: Repo, mds: &Mds) -> FsResult<u8> {
    let host = mds.address();
    block_on(async {
        match command {
            Repo::Create { fs, path, url, endpoint, region, profile, policies, chunk_mib, import, wait, json } => {
                refuse(&policies)?;
                let settings = RepositorySettings {
                    endpoint: endpoint.unwrap_or_default(),
                    region: region.unwrap_or_default(),
                    profile: profile.unwrap_or_default(),
                    chunk_mib: checked_chunk(chunk_mib)?.unwrap_or(0),
                    batch_import: import,
                    ..RepositorySettings::new(path, url)
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
            Repo::Update { which, policies, chunk_mib, json } => {
                refuse(&policies)?;
                let change = RepositoryChange { chunk_mib: checked_chunk(chunk_mib)?, ..RepositoryChange::default() };
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
            Repo::Delete { which, force } => {
                let admin = admin(&host).await?;
                let repo = find(&admin, &which).await?;
                admin.delete_repository(&which.fs, repo.id, force).await.map_err(|e| match e.code {
                    FsCode::Busy if e.hint.is_none() => {
                        e.with_hint("load its files first (lfs hsm_restore), or lose what is not loaded with --force")
                    }
                    _ => e,
                })?;
                say!("{}: {} is linked to {} no more", repo.id, repo.settings.path, repo.settings.url);
                Ok(0)
            }
            Repo::Import { which, wait, json } => {
                let admin = admin(&host).await?;
                let repo = find(&admin, &which).await?;
                let mut repo = admin.start_import(&which.fs, repo.id, false).await?;
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
        }
    })
}

/// Nothing is carried over by itself yet: to take the wish and not do it would lose changes silently.
fn refuse(policies: &Policies) -> FsResult<()> {
    let no = |what: &str, hint: &str| Err(FsError::new(FsCode::NotSupported, what).with_hint(hint));
    if !policies.auto_import.is_empty() {
        return no("automatic import is not built yet", "leave --auto-import out, and import with: sateen repo import");
    }
    if !policies.auto_export.is_empty() {
        return no("automatic export is not built yet", "leave --auto-export out, and copy results to the bucket");
    }
    Ok(())
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
        if repo.state != RepositoryState::Creating && !imports {
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

fn summary(import: &ImportStatus) -> String {
    let ImportStatus { objects, created, changed, skipped, bytes: total, .. } = import;
    format!("{objects} objects: {created} created, {changed} changed, {skipped} skipped; {} to load", bytes(*total))
}

fn events(events: RepositoryEvents) -> Vec<&'static str> {
    let RepositoryEvents { created, changed, deleted } = events;
    [(created, "NEW"), (changed, "CHANGED"), (deleted, "DELETED")].into_iter().filter(|e| e.0).map(|e| e.1).collect()
}

/// For scripts.
fn to_json(fs: &FsName, repo: &Repository) -> Value {
    let (settings, import) = (&repo.settings, &repo.import);
    let skipped = import.first_skipped.iter().map(|skipped| {
        json!({ "key": String::from_utf8_lossy(&skipped.key), "code": skipped.code, "message": skipped.message })
    });
    json!({
        "id": repo.id.to_string(),
        "file_system": fs.as_str(),
        "path": settings.path.as_str(),
        "url": settings.url.to_string(),
        "endpoint": settings.endpoint,
        "region": settings.region,
        "profile": settings.profile,
        "auto_import": events(settings.auto_import),
        "auto_export": events(settings.auto_export),
        "chunk_mib": settings.chunk_mib,
        "state": repo.state.to_string(),
        "message": repo.message,
        "created": time(repo.created),
        "root": repo.root.to_string(),
        "import": {
            "state": import.state.to_string(),
            "message": import.message,
            "objects": import.objects,
            "created": import.created,
            "changed": import.changed,
            "skipped": import.skipped,
            "bytes": import.bytes,
            "started": import.started.map(time),
            "ended": import.ended.map(time),
            "first_skipped": skipped.collect::<Vec<_>>(),
        },
    })
}

/// For people.
fn table(all: &[(FsName, Repository)]) -> String {
    let row = |(fs, repo): &(FsName, Repository)| {
        vec![
            repo.id.to_string(),
            fs.to_string(),
            repo.settings.path.to_string(),
            repo.settings.url.to_string(),
            repo.state.to_string(),
            repo.import.state.to_string(),
            repo.import.objects.to_string(),
        ]
    };
    let head = [
        ("REPOSITORY", Align::Left),
        ("FILE SYSTEM", Align::Left),
        ("DIRECTORY", Align::Left),
        ("URL", Align::Left),
        ("STATE", Align::Left),
        ("IMPORT", Align::Left),
        ("OBJECTS", Align::Right),
    ];
    render(&head, &all.iter().map(row).collect::<Vec<_>>())
}

fn details(fs: &FsName, repo: &Repository) -> String {
    let (settings, import) = (&repo.settings, &repo.import);
    let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
    let with = |state: &str, why: &str| if why.is_empty() { state.to_owned() } else { format!("{state}: {why}") };
    let listed = |on: RepositoryEvents| or(&events(on).join(","), "off");
    let mut lines = vec![
        ("repository", repo.id.to_string()),
        ("file system", fs.to_string()),
        ("directory", settings.path.to_string()),
        ("url", settings.url.to_string()),
        ("endpoint", or(&settings.endpoint, "the provider's own")),
        ("region", settings.region.clone()),
        ("credentials", settings.profile.clone()),
        ("auto import", listed(settings.auto_import)),
        ("auto export", listed(settings.auto_export)),
        ("stripes", format!("{} MiB", settings.chunk_mib)),
        ("created", time(repo.created)),
        ("state", with(&repo.state.to_string(), &repo.message)),
        ("import", with(&import.state.to_string(), &import.message)),
    ];
    if import.state != ImportState::None {
        lines.push(("imported", summary(import)));
        lines.extend(import.started.map(|at| ("started", time(at))));
        lines.extend(import.ended.map(|at| ("ended", time(at))));
    }
    let mut text: String = lines.iter().map(|(name, value)| format!("{:<13} {value}\n", format!("{name}:"))).collect();
    for skipped in import.first_skipped.iter().take(SKIPPED_SHOWN) {
        let key = String::from_utf8_lossy(&skipped.key).escape_debug().to_string();
        text.push_str(&format!("skipped:      {key}: {} ({})\n", skipped.message.escape_debug(), skipped.code));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command, EventArg};
    use clap::Parser;
    use sateen_types::repository::Skipped;
    use sateen_types::{Fid, Timestamp};

    fn repo() -> Repository {
        let url = "s3://bucket/prefix/".parse().expect("a URL");
        let skipped = Skipped { key: b"a/../b\n".to_vec(), code: "CODE".to_owned(), message: "no path".to_owned() };
        Repository {
            id: RepositoryId(0xabc),
            settings: RepositorySettings::new("/dataset".parse().expect("a path"), url),
            state: RepositoryState::Available,
            message: String::new(),
            created: Timestamp { seconds: 0, nanos: 0 },
            root: Fid::ROOT,
            import: ImportStatus {
                state: ImportState::Done,
                objects: 3,
                created: 2,
                skipped: 1,
                bytes: 1 << 20,
                first_skipped: vec![skipped],
                ..ImportStatus::default()
            },
        }
    }

    #[test]
    fn policies_are_parsed_and_refused_until_they_are_carried_out() {
        let words = "sateen repo create scratch /d s3://b/p --auto-import NEW,changed --chunk-mib 4";
        let Ok(Cli { command: Command::Repo { command: Repo::Create { policies, url, .. }, .. } }) =
            Cli::try_parse_from(words.split(' '))
        else {
            panic!("not parsed")
        };
        assert_eq!(policies.auto_import, [EventArg::New, EventArg::Changed]);
        assert_eq!(url.to_string(), "s3://b/p/");
        let error = refuse(&policies).expect_err("not built");
        assert!(error.message.contains("automatic import") && error.hint.is_some());
        refuse(&Policies { auto_import: vec![], auto_export: vec![EventArg::Deleted] }).expect_err("not built");
        for bad in ["/d ftp://b/p", "d s3://b/p", "/d s3://b/p --auto-import OLD", "/d/../e s3://b/p"] {
            let words = format!("sateen repo create scratch {bad}");
            Cli::try_parse_from(words.split(' ')).expect_err(bad);
        }
        checked_chunk(Some(0)).expect_err("no size");
    }

    #[test]
    fn people_see_lines_and_scripts_see_fields() {
        let fs: FsName = "scratch".parse().expect("a name");
        let text = table(&[(fs.clone(), repo())]);
        let mut lines = text.lines();
        assert!(lines.next().is_some_and(|head| head.starts_with("REPOSITORY") && head.ends_with("OBJECTS")));
        let row = "dra-00000000000000abc  scratch      /dataset   s3://bucket/prefix/  AVAILABLE  DONE          3";
        assert_eq!(lines.next(), Some(row));
        let shown = details(&fs, &repo());
        assert!(shown.contains("state:        AVAILABLE\n"), "{shown}");
        assert!(
            shown.contains("imported:     3 objects: 2 created, 0 changed, 1 skipped; 1.0 MiB to load\n"),
            "{shown}"
        );
        assert!(shown.contains("skipped:      a/../b\\n: no path (CODE)\n"), "{shown}");
        let value = to_json(&fs, &repo());
        assert_eq!(value["id"], "dra-00000000000000abc");
        assert_eq!(value["import"]["first_skipped"][0]["code"], "CODE");
        assert_eq!((code(&repo(), true), code(&repo(), false)), (DEGRADED, 0));
    }
}
