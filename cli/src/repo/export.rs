//! `sateen repo status|export|conflicts|resolve`: what goes to buckets, and what both sides have changed.

use std::time::{Duration, Instant};

use sateen_client::admin::Admin;
use sateen_types::repository::{ConflictPolicy, Repository, RepositoryState};
use sateen_types::{FsCode, FsError, FsName, FsResult, Timestamp};
use serde_json::Value;

use super::LOOK_INTERVAL;
use super::show::{conflict_json, conflict_table, status_json, status_table};
use crate::args::Keep;
use crate::exit::DEGRADED;

/// How often whoever waits is told how it stands.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// What is asked of `sateen repo status`.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Wait, with the longest time to wait.
    pub wait: Option<Option<Duration>>,
    /// What cannot be stored in a bucket is no reason to say no.
    pub ignore_skipped: bool,
    /// One JSON document.
    pub json: bool,
}

/// Says what is left to export, after waiting for it if that is asked. Exit code 0: nothing is left, and nothing needs a decision.
pub async fn status(admin: &Admin, fs: &FsName, mut repos: Vec<Repository>, question: Question) -> FsResult<u8> {
    let Question { wait, ignore_skipped, json } = question;
    let since = Instant::now();
    let (mut told, mut before) = (since, stored(&repos));
    while let Some(limit) = wait
        && repos.iter().any(is_moving)
    {
        if limit.is_some_and(|limit| since.elapsed() >= limit) {
            let queued: u64 = repos.iter().map(|repo| repo.export.queued).sum();
            let what = format!("{queued} exports of {fs} are queued after {} s", since.elapsed().as_secs());
            return Err(FsError::new(FsCode::TimedOut, what).with_hint(format!("see: sateen repo status {fs}")));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
        for repo in &mut repos {
            *repo = admin.get_repository(fs, repo.id).await?;
        }
        if told.elapsed() >= TELL_INTERVAL {
            let now = stored(&repos);
            repos.iter().filter(|repo| is_moving(repo)).for_each(|repo| complain!("{}", standing(repo, now > before)));
            (told, before) = (Instant::now(), now);
        }
    }
    if json {
        let now = Timestamp::now();
        say!("{}", Value::Array(repos.iter().map(|repo| status_json(fs, repo, now)).collect()));
    } else {
        say_text!("{}", status_table(&repos, Timestamp::now()));
        for repo in repos.iter().filter(|repo| !repo.export.message.is_empty()) {
            say!("{}: the last attempt failed: {}", repo.id, repo.export.message.escape_debug());
        }
        for repo in repos.iter().filter(|repo| repo.conflicts > 0) {
            say!(
                "{}: both sides have changed {} keys: sateen repo conflicts {fs} {}",
                repo.id,
                repo.conflicts,
                repo.id
            );
        }
    }
    Ok(if repos.iter().all(|repo| is_well(repo, ignore_skipped)) { 0 } else { DEGRADED })
}

/// Objects that were stored or deleted so far.
fn stored(repos: &[Repository]) -> u64 {
    repos.iter().map(|repo| repo.export.stored + repo.export.deleted).sum()
}

/// How it stands, for one who waits; `moves`: something was stored since the last time.
fn standing(repo: &Repository, moves: bool) -> String {
    let export = &repo.export;
    let mut text = format!("{}: {} queued, {} stored", repo.id, export.queued, export.stored);
    if repo.state.is_undecided() {
        text.push_str("; nobody has looked at the bucket yet");
    }
    if !export.message.is_empty() {
        text.push_str(&format!("; the last attempt failed: {}", export.message.escape_debug()));
    } else if !moves {
        text.push_str("; nothing was stored since (hint: check that a sateen-dra-sync runs, and that nobody keeps");
        text.push_str(" the files open for writing)");
    }
    text
}

/// Whether waiting for it can help.
fn is_moving(repo: &Repository) -> bool {
    repo.state.is_undecided() || repo.state == RepositoryState::Available && repo.export.queued > 0
}

/// Whether the bucket has everything.
fn is_well(repo: &Repository, ignore_skipped: bool) -> bool {
    let export = &repo.export;
    let complete = export.queued == 0 && (export.skipped == 0 || ignore_skipped);
    repo.state == RepositoryState::Available && complete && repo.conflicts == 0
}

/// Lists conflicts, page by page.
pub async fn conflicts(admin: &Admin, fs: &FsName, repo: &Repository, json: bool) -> FsResult<u8> {
    let mut after = Vec::new();
    let mut any = false;
    loop {
        let (page, more) = admin.list_conflicts(fs, repo.id, &after).await?;
        if json {
            page.iter().for_each(|conflict| say!("{}", conflict_json(conflict)));
        } else if !page.is_empty() {
            say_text!("{}", conflict_table(&page));
        }
        any |= !page.is_empty();
        match page.into_iter().next_back() {
            Some(last) if more => after = last.key,
            _ => break,
        }
    }
    if !any && !json {
        say!("{}: no conflicts", repo.id);
    }
    Ok(if any { DEGRADED } else { 0 })
}

/// Ends a conflict.
pub async fn resolve(admin: &Admin, fs: &FsName, repo: &Repository, key: &str, keep: Keep) -> FsResult<u8> {
    let (how, what) = match keep {
        Keep::Repository => (ConflictPolicy::RepositoryWins, "the file takes the object"),
        Keep::Filesystem => (ConflictPolicy::FilesystemWins, "the object is replaced by the file"),
        Keep::Both => (ConflictPolicy::KeepBoth, "the file has another name now, and the object this one"),
    };
    admin.resolve_conflict(fs, repo.id, key.as_bytes(), how).await.map_err(|e| match e.code {
        FsCode::NotFound if e.hint.is_none() => {
            e.with_hint(format!("see those there are with: sateen repo conflicts {fs} {}", repo.id))
        }
        _ => e,
    })?;
    say!("{key}: {what}");
    Ok(0)
}
