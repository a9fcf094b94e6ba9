//! The figures of an OSS, listed in `docs/metrics.md`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sateen_runtime::metrics::Page;

use crate::ost::Ost;
use crate::rpc::Load;
use crate::scrub::Scrub;
use crate::store::Store;

/// Writes all figures.
pub fn fill(page: &mut Page, scrubs: &[Arc<Scrub>], load: &Load) {
    let labels: Vec<String> = scrubs
        .iter()
        .map(|scrub| scrub.ost().member().map_or_else(|| "none".to_owned(), |member| member.index.to_string()))
        .collect();
    let each = |page: &mut Page, value: &dyn Fn(&Scrub) -> u64| {
        for (scrub, label) in scrubs.iter().zip(&labels) {
            page.sample(&[("ost", label)], value(scrub));
        }
    };
    let store = |sum: fn(&Store) -> u64| {
        move |scrub: &Scrub| scrub.ost().open_stores().iter().map(|store| sum(store)).sum::<u64>()
    };
    let ost = |value: fn(&Ost) -> u64| move |scrub: &Scrub| value(scrub.ost());

    page.counter("sateen_oss_store_read_bytes_total", "Bytes handed to readers, as stored or opened.");
    each(page, &store(|s| s.counts().read_bytes.load(Ordering::Relaxed)));
    page.counter("sateen_oss_store_written_bytes_total", "Bytes of extents written, whole blocks.");
    each(page, &store(|s| s.counts().written_bytes.load(Ordering::Relaxed)));
    page.counter("sateen_oss_store_commits_total", "Commits that made something durable.");
    each(page, &store(|s| s.counts().commits.load(Ordering::Relaxed)));
    page.gauge("sateen_oss_stored_bytes", "Bytes of segments in use.");
    each(page, &ost(Ost::stored_bytes));
    page.gauge("sateen_oss_failed", "1 if a store of the OST has failed and refuses changes.");
    each(page, &ost(|o| u64::from(o.is_failed())));
    page.gauge("sateen_oss_damaged_chunks", "Chunks known to be unreadable, since the start.");
    each(page, &store(|s| s.damaged().count()));

    page.counter("sateen_oss_scrub_passes_total", "Complete passes of the scrub over the OST.");
    each(page, &|scrub| scrub.cursor().passes);
    page.gauge("sateen_oss_scrub_last_pass_end_seconds", "When the last pass ended, in seconds since 1970; 0: never.");
    each(page, &|scrub| if scrub.cursor().passes == 0 { 0 } else { scrub.cursor().last_ended });
    page.gauge("sateen_oss_scrub_running", "1 while a pass runs.");
    each(page, &|scrub| u64::from(scrub.cursor().position.is_some()));
    page.gauge("sateen_oss_scrub_pass_bytes", "Stored bytes verified in the running or last pass.");
    each(page, &|scrub| scrub.cursor().bytes);
    page.gauge("sateen_oss_scrub_pass_chunks", "Chunks verified in the running or last pass.");
    each(page, &|scrub| scrub.cursor().chunks);
    page.gauge("sateen_oss_scrub_pass_damaged_chunks", "Chunks found damaged in the running or last pass.");
    each(page, &|scrub| scrub.cursor().damaged);

    page.gauge("sateen_oss_data_calls", "Calls that read or write data now.").sample(&[], load.data_calls());
    page.gauge("sateen_oss_commit_calls", "Calls that wait for a commit now.").sample(&[], load.commit_calls());
    page.gauge("sateen_oss_inflight_payload_bytes", "Payload of requests that are worked on or sent now.")
        .sample(&[], load.payload_bytes());
}
