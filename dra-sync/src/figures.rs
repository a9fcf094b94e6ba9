//! What a worker counts, listed in `docs/metrics.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
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
    running: [Kind; 6],
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
    /// Objects that were imported and cannot be read before they are restored.
    pub archived: AtomicU64,
    /// Assignments that went to another worker while this one was at it.
    pub lost: AtomicU64,
    events: [AtomicU64; 3],
    ignored: AtomicU64,
    unreadable: AtomicU64,
    watch_failures: [AtomicU64; 3],
    answers: [AtomicU64; 4],
    waiting: AtomicU64,
    /// Since when the oldest key of each link waits.
    since: Mutex<BTreeMap<u64, Instant>>,
    /// Numbers what is counted while it lasts.
    next: AtomicU64,
    /// Keys that were told of and left to the next comparison.
    pub given_up: AtomicU64,
}

/// Assignments of one kind that run.
#[derive(Debug, Default)]
struct Kind {
    bytes: AtomicU64,
    /// Since when, with a number.
    since: Mutex<BTreeSet<(Instant, u64)>>,
}

/// Keys of one link that wait to be looked at; none when it is dropped.
#[derive(Debug)]
pub struct Waiting<'a> {
    figures: &'a Figures,
    number: u64,
    own: u64,
}

impl Waiting<'_> {
    /// So many now, the oldest of them since then.
    pub fn set(&mut self, keys: usize, oldest: Option<Instant>) {
        let now = keys as u64;
        // Wraps around where it falls: the sum is right all the same.
        self.figures.waiting.fetch_add(now.wrapping_sub(self.own), Ordering::Relaxed);
        self.own = now;
        let mut since = self.figures.since.lock();
        match oldest {
            Some(oldest) => drop(since.insert(self.number, oldest)),
            None => drop(since.remove(&self.number)),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.set(0, None);
    }
}

/// Counts an assignment as running until it is dropped.
#[derive(Debug)]
pub struct Running<'a> {
    kind: &'a Kind,
    place: (Instant, u64),
    bytes: u64,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.kind.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.kind.since.lock().remove(&self.place);
    }
}

/// Bytes that an assignment moves through the worker.
fn bytes_of(work: &Work) -> u64 {
    match work {
        Work::Fetch(fetch) => fetch.range.end - fetch.range.start,
        Work::Export(export) if export.copy.is_none() => export.size,
        _ => 0,
    }
}

/// Whole seconds since the first of these; 0: there is none.
fn age(oldest: Option<Instant>) -> u64 {
    oldest.map_or(0, |since| since.elapsed().as_secs())
}

impl Figures {
    /// An assignment runs.
    pub fn running(&self, work: &Work) -> Running<'_> {
        let kind = match work {
            Work::Check => &self.running[0],
            Work::Import { .. } => &self.running[1],
            Work::Fetch(_) => &self.running[2],
            Work::Export(_) | Work::Delete { .. } | Work::Look { .. } => &self.running[3],
            Work::Watch => &self.running[4],
            Work::Report { .. } => &self.running[5],
        };
        let (place, bytes) = ((Instant::now(), self.number()), bytes_of(work));
        kind.bytes.fetch_add(bytes, Ordering::Relaxed);
        kind.since.lock().insert(place);
        Running { kind, place, bytes }
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
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
        Waiting { figures: self, number: self.number(), own: 0 }
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
        for (name, kind) in KINDS.iter().zip(&self.running) {
            page.sample(&[("kind", name)], kind.since.lock().len() as u64);
        }
        page.gauge("sateen_dra_sync_assignment_bytes", "Bytes that assignments that run are to move, by kind.");
        for (name, kind) in KINDS.iter().zip(&self.running) {
            page.sample(&[("kind", name)], of(&kind.bytes));
        }
        page.gauge("sateen_dra_sync_assignment_oldest_seconds", "Age of the oldest assignment that runs, by kind.");
        for (name, kind) in KINDS.iter().zip(&self.running) {
            page.sample(&[("kind", name)], age(kind.since.lock().first().map(|(since, _)| *since)));
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
        let what = "Objects that were imported and cannot be read before they are restored in their store.";
        page.counter("sateen_dra_sync_objects_archived_total", what).sample(&[], of(&self.archived));
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
        page.gauge("sateen_dra_sync_event_oldest_seconds", "Age of the oldest key that waits to be looked at.")
            .sample(&[], age(self.since.lock().values().min().copied()));
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
        assert!(text.contains("sateen_dra_sync_assignment_oldest_seconds{kind=\"check\"} 0\n"), "{text}");
        let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let documented = include_str!("../../docs/metrics.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .filter(|name| name.starts_with("sateen_dra_sync_"));
        assert_eq!(families.collect::<BTreeSet<_>>(), documented.collect());
    }

    #[test]
    fn what_runs_and_waits_is_counted_with_its_age_until_it_ends() {
        let figures = Figures::default();
        let shown = |figures: &Figures| {
            let mut page = Page::default();
            figures.fill(&mut page);
            page.into_text()
        };
        let long_ago = Instant::now().checked_sub(std::time::Duration::from_secs(90)).expect("the machine is older");
        let (mut one, mut other) = (figures.waiting(), figures.waiting());
        one.set(3, Some(long_ago));
        other.set(2, Some(Instant::now()));
        let (first, second) = (figures.running(&Work::Watch), figures.running(&Work::Watch));
        let text = shown(&figures);
        assert!(text.contains("sateen_dra_sync_event_keys_waiting 5\n"), "{text}");
        let age = text.lines().find_map(|line| line.strip_prefix("sateen_dra_sync_event_oldest_seconds "));
        assert!(age.and_then(|age| age.parse::<u64>().ok()).is_some_and(|age| (90..180).contains(&age)), "{text}");
        assert!(text.contains("sateen_dra_sync_assignments{kind=\"watch\"} 2\n"), "{text}");
        drop((one, first));
        let text = shown(&figures);
        assert!(text.contains("sateen_dra_sync_event_keys_waiting 2\n"), "{text}");
        assert!(text.contains("sateen_dra_sync_event_oldest_seconds 0\n"), "{text}");
        drop((other, second));
        let text = shown(&figures);
        assert!(text.contains("sateen_dra_sync_assignments{kind=\"watch\"} 0\n"), "{text}");
        assert!(text.contains("sateen_dra_sync_event_keys_waiting 0\n"), "{text}");
    }
}
