//! What a worker counts, listed in `docs/metrics.md`.

use std::sync::atomic::{AtomicU64, Ordering};

use sateen_runtime::metrics::Page;
use sateen_types::repository::{DeleteResult, EventsDone, ExportResult, FetchResult, Work};

use crate::remote::{RemoteError, Trouble};
use crate::watch::event::Told;

/// Kinds of assignments, in the order of [`Figures::running`].
const KINDS: [&str; 6] = ["check", "import", "fetch", "export", "watch", "report"];
/// Results of fetches, in the order of [`Figures::fetches`].
const RESULTS: [&str; 5] = ["loaded", "changed", "gone", "failed", "no_space"];

/// Results of exports, in the order of [`Figures::exports`].
const EXPORTS: [&str; 6] = ["stored", "conflict", "changed", "source_gone", "failed", "skipped"];
/// Results of deletions, in the order of [`Figures::deletes`].
const DELETES: [&str; 3] = ["deleted", "conflict", "failed"];
/// Sources of events, in the order of [`Source`].
const SOURCES: [&str; 3] = ["listen", "sqs", "webhook"];
/// What the MDS makes of what is told, in the order of [`Figures::answers`].
const ANSWERS: [&str; 4] = ["created", "changed", "deleted", "later"];

/// Who tells of changes of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The store itself.
    Listen,
    /// A queue.
    Sqs,
    /// Whoever has the address.
    Webhook,
}

/// Counters of one process.
#[derive(Debug, Default)]
pub struct Figures {
    /// File systems with a session.
    pub sessions: AtomicU64,
    running: [AtomicU64; 6],
    fetches: [AtomicU64; 5],
    exports: [AtomicU64; 6],
    deletes: [AtomicU64; 3],
    errors: [AtomicU64; Trouble::ALL.len()],
    /// Bytes of objects that were stored or copied.
    pub exported_bytes: AtomicU64,
    /// Bytes that were fetched and stored.
    pub fetched_bytes: AtomicU64,
    /// Objects that listings named.
    pub listed: AtomicU64,
    /// Objects that were not imported.
    pub skipped: AtomicU64,
    /// Assignments that went to another worker while this one was at it.
    pub lost: AtomicU64,
    events: [AtomicU64; 3],
    ignored: AtomicU64,
    unreadable: AtomicU64,
    watch_failures: [AtomicU64; 3],
    answers: [AtomicU64; 4],
    waiting: AtomicU64,
    /// Keys that were told of and left to the next comparison.
    pub given_up: AtomicU64,
}

/// Keys of one link that wait to be looked at; none when it is dropped.
#[derive(Debug)]
pub struct Waiting<'a> {
    all: &'a AtomicU64,
    own: u64,
}

impl Waiting<'_> {
    /// So many now.
    pub fn set(&mut self, keys: usize) {
        let now = keys as u64;
        // Wraps around where it falls: the sum is right all the same.
        self.all.fetch_add(now.wrapping_sub(self.own), Ordering::Relaxed);
        self.own = now;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Counts an assignment as running until it is dropped.
#[derive(Debug)]
pub struct Running<'a>(&'a AtomicU64);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Figures {
    /// An assignment runs.
    pub fn running(&self, work: &Work) -> Running<'_> {
        let count = match work {
            Work::Check => &self.running[0],
            Work::Import { .. } => &self.running[1],
            Work::Fetch(_) => &self.running[2],
            Work::Export(_) | Work::Delete { .. } | Work::Look { .. } => &self.running[3],
            Work::Watch => &self.running[4],
            Work::Report { .. } => &self.running[5],
        };
        count.fetch_add(1, Ordering::Relaxed);
        Running(count)
    }

    /// A fetch ended.
    pub fn fetched(&self, result: FetchResult) {
        let count = match result {
            FetchResult::Loaded => &self.fetches[0],
            FetchResult::Changed => &self.fetches[1],
            FetchResult::Gone => &self.fetches[2],
            FetchResult::Failed => &self.fetches[3],
            FetchResult::NoSpace => &self.fetches[4],
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// An export ended.
    pub fn exported(&self, result: ExportResult) {
        let count = match result {
            ExportResult::Stored => &self.exports[0],
            ExportResult::Conflict => &self.exports[1],
            ExportResult::Changed => &self.exports[2],
            ExportResult::SourceGone => &self.exports[3],
            ExportResult::Failed => &self.exports[4],
            ExportResult::Skipped => &self.exports[5],
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// A deletion ended.
    pub fn deleted(&self, result: DeleteResult) {
        let count = match result {
            DeleteResult::Deleted => &self.deletes[0],
            DeleteResult::Conflict => &self.deletes[1],
            DeleteResult::Failed => &self.deletes[2],
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody told of keys.
    pub fn events(&self, source: Source, told: &Told) {
        self.events[source as usize].fetch_add(told.touched.len() as u64, Ordering::Relaxed);
        self.ignored.fetch_add(told.ignored, Ordering::Relaxed);
    }

    /// Somebody told what is no event.
    pub fn unreadable(&self) {
        self.unreadable.fetch_add(1, Ordering::Relaxed);
    }

    /// A source of events did not work.
    pub fn watch_failed(&self, source: Source) {
        self.watch_failures[source as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The MDS was told what is under keys.
    pub fn answered(&self, done: &EventsDone) {
        let counts = [done.created, done.changed, done.deleted, done.later.len() as u64];
        for (all, count) in self.answers.iter().zip(counts) {
            all.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// The keys of a link that wait.
    pub fn waiting(&self) -> Waiting<'_> {
        Waiting { all: &self.waiting, own: 0 }
    }

    /// A request to a store failed, whether it was sent again or not.
    pub fn failed(&self, error: &RemoteError) {
        self.errors[error.trouble.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// Writes all figures.
    pub fn fill(&self, page: &mut Page) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        page.gauge("sateen_dra_sync_sessions", "File systems that the worker works for.")
            .sample(&[], of(&self.sessions));
        page.gauge("sateen_dra_sync_assignments", "Assignments that run by kind.");
        for (kind, count) in KINDS.iter().zip(&self.running) {
            page.sample(&[("kind", kind)], of(count));
        }
        page.counter("sateen_dra_sync_fetches_total", "Ranges fetched by result.");
        for (result, count) in RESULTS.iter().zip(&self.fetches) {
            page.sample(&[("result", result)], of(count));
        }
        page.counter("sateen_dra_sync_fetched_bytes_total", "Bytes fetched and stored.")
            .sample(&[], of(&self.fetched_bytes));
        page.counter("sateen_dra_sync_exports_total", "Exports by result.");
        for (result, count) in EXPORTS.iter().zip(&self.exports) {
            page.sample(&[("result", result)], of(count));
        }
        page.counter("sateen_dra_sync_exported_bytes_total", "Bytes of objects stored or copied.")
            .sample(&[], of(&self.exported_bytes));
        page.counter("sateen_dra_sync_deletes_total", "Deletions of objects by result.");
        for (result, count) in DELETES.iter().zip(&self.deletes) {
            page.sample(&[("result", result)], of(count));
        }
        page.counter("sateen_dra_sync_store_errors_total", "Requests to stores that failed by cause.");
        for trouble in Trouble::ALL {
            page.sample(&[("cause", trouble.name())], of(&self.errors[trouble.index()]));
        }
        page.counter("sateen_dra_sync_objects_listed_total", "Objects that imports have seen.")
            .sample(&[], of(&self.listed));
        page.counter("sateen_dra_sync_objects_skipped_total", "Objects that the worker left out of imports.")
            .sample(&[], of(&self.skipped));
        page.counter("sateen_dra_sync_assignments_lost_total", "Assignments that went to another worker.")
            .sample(&[], of(&self.lost));
        page.counter("sateen_dra_sync_events_total", "Keys that somebody told of by source.");
        for (source, count) in SOURCES.iter().zip(&self.events) {
            page.sample(&[("source", source)], of(count));
        }
        page.counter("sateen_dra_sync_events_ignored_total", "Events that tell of nothing made or removed.")
            .sample(&[], of(&self.ignored));
        page.counter("sateen_dra_sync_events_unreadable_total", "Messages that are no events.")
            .sample(&[], of(&self.unreadable));
        page.counter("sateen_dra_sync_watch_errors_total", "Failures of sources of events.");
        for (source, count) in SOURCES.iter().zip(&self.watch_failures) {
            page.sample(&[("source", source)], of(count));
        }
        page.gauge("sateen_dra_sync_event_keys_waiting", "Keys that wait to be looked at.")
            .sample(&[], of(&self.waiting));
        page.counter("sateen_dra_sync_event_keys_total", "Keys told to the MDS by what it made of them.");
        for (answer, count) in ANSWERS.iter().zip(&self.answers) {
            page.sample(&[("answer", answer)], of(count));
        }
        page.counter("sateen_dra_sync_event_keys_given_up_total", "Keys left to the next comparison.")
            .sample(&[], of(&self.given_up));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_figure_has_a_line_in_the_documentation() {
        let figures = Figures::default();
        let running = figures.running(&Work::Check);
        let mut page = Page::default();
        figures.fill(&mut page);
        let text = page.into_text();
        assert!(text.contains("sateen_dra_sync_assignments{kind=\"check\"} 1\n"), "{text}");
        drop(running);
        let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let documented = include_str!("../../docs/metrics.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .filter(|name| name.starts_with("sateen_dra_sync_"));
        assert_eq!(families.collect::<BTreeSet<_>>(), documented.collect());
    }
}
