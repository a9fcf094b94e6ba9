//! What went wrong at workers, by cause, since the server started.

use std::sync::atomic::{AtomicU64, Ordering};

use sateen_types::repository::{DeleteResult, ExportResult, FetchResult, Outcome};

/// What was to be done and why it was not, in the order of [`Faults`].
const CAUSES: [(&str, &str); 15] = [
    ("check", "failed"),
    ("import", "failed"),
    ("watch", "failed"),
    ("load", "changed"),
    ("load", "gone"),
    ("load", "failed"),
    ("load", "no_space"),
    ("export", "conflict"),
    ("export", "source_gone"),
    ("export", "failed"),
    ("export", "skipped"),
    ("delete", "conflict"),
    ("delete", "failed"),
    ("look", "failed"),
    ("report", "failed"),
];

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Faults([AtomicU64; CAUSES.len()]);

/// The place of what went wrong in [`CAUSES`]; `None`: it went well.
fn place(outcome: &Outcome) -> Option<usize> {
    let (kind, cause) = match outcome {
        Outcome::Check { message } => ("check", (!message.is_empty()).then_some("failed")),
        Outcome::Import { .. } => ("import", Some("failed")),
        Outcome::Watch { .. } => ("watch", Some("failed")),
        Outcome::Fetch(fetch) => {
            let cause = match fetch.result {
                FetchResult::Loaded => None,
                FetchResult::Changed => Some("changed"),
                FetchResult::Gone => Some("gone"),
                FetchResult::Failed => Some("failed"),
                FetchResult::NoSpace => Some("no_space"),
            };
            ("load", cause)
        }
        Outcome::Export(export) => {
            let cause = match export.result {
                // It is stored again when the file is closed.
                ExportResult::Stored | ExportResult::Changed => None,
                ExportResult::Conflict => Some("conflict"),
                ExportResult::SourceGone => Some("source_gone"),
                ExportResult::Failed => Some("failed"),
                ExportResult::Skipped => Some("skipped"),
            };
            ("export", cause)
        }
        Outcome::Delete(delete) => {
            let cause = match delete.result {
                DeleteResult::Deleted => None,
                DeleteResult::Conflict => Some("conflict"),
                DeleteResult::Failed => Some("failed"),
            };
            ("delete", cause)
        }
        Outcome::Look(look) => ("look", (!look.message.is_empty()).then_some("failed")),
        Outcome::Report { message } => ("report", (!message.is_empty()).then_some("failed")),
    };
    let cause = cause?;
    CAUSES.iter().position(|known| *known == (kind, cause))
}

/// Whether what a worker reports may be the fault of the bucket: then that is looked at. A missing object may be a missing bucket.
pub(super) fn may_be_the_store(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Check { .. } => false,
        Outcome::Import { .. } | Outcome::Watch { .. } => true,
        Outcome::Fetch(fetch) => matches!(fetch.result, FetchResult::Failed | FetchResult::Gone),
        Outcome::Export(export) => export.result == ExportResult::Failed,
        Outcome::Delete(delete) => delete.result == DeleteResult::Failed,
        Outcome::Look(look) => !look.message.is_empty(),
        Outcome::Report { message } => !message.is_empty(),
    }
}

impl Faults {
    /// A worker reports.
    pub fn count(&self, outcome: &Outcome) {
        if let Some(count) = place(outcome).and_then(|at| self.0.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was to be done, why it was not, and how often.
    pub fn all(&self) -> Vec<(&'static str, &'static str, u64)> {
        CAUSES.iter().zip(&self.0).map(|((kind, cause), n)| (*kind, *cause, n.load(Ordering::Relaxed))).collect()
    }
}

#[cfg(test)]
mod tests {
    use sateen_types::repository::{DeleteOutcome, ExportOutcome, FetchOutcome, LookOutcome};

    use super::*;

    #[test]
    fn everything_that_can_go_wrong_has_a_place_of_its_own() {
        let message = || "why".to_owned();
        let mut all = vec![
            Outcome::Check { message: message() },
            Outcome::Import { message: message() },
            Outcome::Watch { message: message() },
            Outcome::Look(LookOutcome { object: None, number: None, message: message() }),
            Outcome::Report { message: message() },
        ];
        for result in [FetchResult::Changed, FetchResult::Gone, FetchResult::Failed, FetchResult::NoSpace] {
            all.push(Outcome::Fetch(FetchOutcome { result, message: message(), allocated_delta: 0 }));
        }
        let exports = [ExportResult::Conflict, ExportResult::SourceGone, ExportResult::Failed, ExportResult::Skipped];
        for result in exports {
            all.push(Outcome::Export(ExportOutcome { result, message: message(), code: String::new(), object: None }));
        }
        for result in [DeleteResult::Conflict, DeleteResult::Failed] {
            all.push(Outcome::Delete(DeleteOutcome { result, message: message(), object: None }));
        }
        let faults = Faults::default();
        all.iter().for_each(|outcome| faults.count(outcome));
        assert!(faults.all().iter().all(|(_, _, count)| *count == 1), "{:?}", faults.all());
        let well = DeleteOutcome { result: DeleteResult::Deleted, message: String::new(), object: None };
        assert_eq!(place(&Outcome::Delete(well)), None);
        assert_eq!(place(&Outcome::Check { message: String::new() }), None);
    }
}
