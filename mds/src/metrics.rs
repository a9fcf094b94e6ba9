//! The figures of an MDS, listed in `docs/metrics.md`.

use std::sync::Arc;
use std::time::Instant;

use sateen_runtime::metrics::Page;
use sateen_types::Timestamp;
use sateen_types::repository::{ExportStatus, RepositoryState};

use crate::cluster::Cluster;
use crate::fs::FileSystem;
use crate::fs::repository::table::Counts;
use crate::registry::OstState;

/// Writes all figures.
pub fn fill(page: &mut Page, cluster: &Cluster) {
    let osts = cluster.registry.read().list(Instant::now());
    page.gauge("sateen_mds_osts", "OSTs of the cluster by state.");
    for (label, state) in [("up", OstState::Up), ("down", OstState::Down), ("failed", OstState::Failed)] {
        page.sample(&[("state", label)], osts.iter().filter(|ost| ost.state == state).count() as u64);
    }
    let file_systems = cluster.file_systems();
    page.gauge("sateen_mds_sessions", "Sessions of clients by file system.");
    for fs in &file_systems {
        page.sample(&[("fs", &fs.info.name.to_string())], fs.session_count() as u64);
    }
    page.gauge("sateen_mds_files_open", "Files that clients have open by file system.");
    for fs in &file_systems {
        page.sample(&[("fs", &fs.info.name.to_string())], fs.capability_counts().0 as u64);
    }
    page.gauge("sateen_mds_recalls_unanswered", "Recalls that clients have not answered by file system.");
    for fs in &file_systems {
        page.sample(&[("fs", &fs.info.name.to_string())], fs.capability_counts().1 as u64);
    }
    page.gauge("sateen_mds_directories_held", "Directories that a client has to itself by file system.");
    for fs in &file_systems {
        page.sample(&[("fs", &fs.info.name.to_string())], fs.held_count() as u64);
    }
    page.gauge("sateen_mds_locks", "Advisory locks held by file system.");
    for fs in &file_systems {
        page.sample(&[("fs", &fs.info.name.to_string())], fs.lock_counts().0 as u64);
    }
    page.gauge("sateen_mds_lock_waiters", "Requests that wait for an advisory lock by file system.");
    for fs in &file_systems {
        page.sample(&[("fs", &fs.info.name.to_string())], fs.lock_counts().1 as u64);
    }
    repositories(page, &file_systems);
    page.gauge("sateen_mds_changelog_records", "Records of the changelog that are kept by file system.");
    for fs in &file_systems {
        page.sample(&[("fs", &fs.info.name.to_string())], fs.changelog_length());
    }
    exports(page, &file_systems);
    page.gauge("sateen_mds_file_systems", "File systems of the cluster.").sample(&[], file_systems.len() as u64);
    page.gauge("sateen_mds_uptime_seconds", "Seconds since the MDS started.")
        .sample(&[], cluster.started.elapsed().as_secs());
}

/// Whole seconds since a time of the clock; 0: none.
fn age(since: Option<Timestamp>) -> u64 {
    let age = since.map_or(0, |since| Timestamp::now().seconds.saturating_sub(since.seconds));
    u64::try_from(age).unwrap_or(0)
}

/// Links to data repositories, and what is loaded from them.
fn repositories(page: &mut Page, file_systems: &[Arc<FileSystem>]) {
    let labels: Vec<_> = file_systems.iter().map(|fs| fs.info.name.to_string()).collect();
    let counts: Vec<_> = file_systems.iter().map(|fs| (fs.link_counts(), fs.load_counts())).collect();
    page.gauge("sateen_mds_repositories", "Links to data repositories by file system and state.");
    for (fs, (links, _)) in labels.iter().zip(&counts) {
        for state in RepositoryState::ALL {
            let count = links.states.iter().filter(|s| **s == state).count() as u64;
            page.sample(&[("fs", fs), ("state", &state.to_string())], count);
        }
    }
    page.gauge(
        "sateen_mds_imported_objects",
        "Objects looked at by the imports that run and the last ones, by file system.",
    );
    for (fs, (links, _)) in labels.iter().zip(&counts) {
        page.sample(&[("fs", fs)], links.objects);
    }
    page.gauge("sateen_mds_imports_waiting", "Imports that wait or run by file system.");
    for (fs, (links, _)) in labels.iter().zip(&counts) {
        page.sample(&[("fs", fs)], links.imports);
    }
    page.gauge("sateen_mds_import_oldest_seconds", "Age of the oldest import that waits or runs.");
    for (fs, (links, _)) in labels.iter().zip(&counts) {
        page.sample(&[("fs", fs)], age(links.import_since));
    }
    page.counter("sateen_mds_repository_errors_total", "What workers could not do, by what and why.");
    for fs in file_systems {
        for (kind, cause, count) in fs.fault_counts() {
            page.sample(&[("fs", &fs.info.name.to_string()), ("kind", kind), ("cause", cause)], count);
        }
    }
    let mut gauge = |name, help, value: fn(&Counts) -> u64| {
        page.gauge(name, help);
        for (fs, (_, loads)) in labels.iter().zip(&counts) {
            page.sample(&[("fs", fs)], value(loads));
        }
    };
    gauge("sateen_mds_loads_waiting", "Requests that wait for bytes of a repository by file system.", |c| c.waiting);
    gauge("sateen_mds_load_bytes", "Bytes that are to be loaded and that no worker has, by file system.", |c| {
        c.wanted_bytes
    });
    gauge("sateen_mds_load_oldest_seconds", "Age of the oldest file that somebody waits for.", |c| c.oldest.as_secs());
    gauge("sateen_mds_assignments", "Assignments that workers have by file system.", |c| c.out);
    gauge("sateen_mds_imports_running", "Imports that workers have by file system.", |c| c.imports);
}

/// What is carried over to repositories.
fn exports(page: &mut Page, file_systems: &[Arc<FileSystem>]) {
    let read = |fs: &Arc<FileSystem>| match fs.export_counts() {
        Ok(status) => Some((fs.info.name.to_string(), status)),
        Err(e) => {
            tracing::warn!(fs = %fs.info.name, "what waits for export cannot be counted: {e}");
            None
        }
    };
    let counts: Vec<(String, ExportStatus)> = file_systems.iter().filter_map(read).collect();
    page.gauge("sateen_mds_exports_waiting", "Files and keys that wait for export by file system.");
    for (fs, status) in &counts {
        page.sample(&[("fs", fs)], status.queued);
    }
    page.gauge("sateen_mds_export_oldest_seconds", "Age of the oldest change that waits for export.");
    for (fs, status) in &counts {
        page.sample(&[("fs", fs)], age(status.oldest));
    }
    page.counter("sateen_mds_exports_total", "Exports since the MDS started by what came of them.");
    for (fs, status) in &counts {
        let results = [
            ("stored", status.stored),
            ("deleted", status.deleted),
            ("failed", status.failed),
            ("skipped", status.skipped),
        ];
        for (result, count) in results {
            page.sample(&[("fs", fs), ("result", result)], count);
        }
    }
    page.counter("sateen_mds_exported_bytes_total", "Bytes of files that were stored since the MDS started.");
    for (fs, status) in &counts {
        page.sample(&[("fs", fs)], status.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::config::Config;
    use crate::dir::MdsDir;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn every_figure_has_a_line_in_the_documentation() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mds = MdsDir::open(dir.path()).expect("opens");
        let cluster = Cluster::open(mds, Config::default().cluster_options()).expect("opens");
        let mut page = Page::default();
        fill(&mut page, &cluster);
        let text = page.into_text();
        assert!(text.contains("sateen_mds_osts{state=\"up\"} 0\n"), "{text}");
        let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let documented = include_str!("../../docs/metrics.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .filter(|name| name.starts_with("sateen_mds_"));
        assert_eq!(families.collect::<BTreeSet<_>>(), documented.collect());
    }
}
