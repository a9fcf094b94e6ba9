//! Scrub, checks of an OST at work, and the figures about both.

mod support;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sateen_oss::ost::{Ost, OstOptions};
use sateen_oss::rpc::Service;
use sateen_oss::rpc::maintenance::MaintenanceService;
use sateen_oss::scrub::{Scrub, ScrubConfig};
use sateen_oss::store::Store;
use sateen_oss::store::index::IndexCache;
use sateen_oss::{metrics, server};
use sateen_proto::oss::maintenance_client::MaintenanceClient;
use sateen_proto::oss::{FsckRequest, ScrubStatusRequest};
use sateen_runtime::metrics::Page;
use sateen_runtime::{ByteSize, Shutdown};
use sateen_types::{ClusterId, Compression, FindingKind, FsId, FsckEvent, OstIndex, Tally};
use support::{CHUNK, CHUNK_LOG2, object};
use tokio::net::TcpListener;

const OST: u32 = 3;
/// More than one step of the scrub.
const CHUNKS: u64 = 150;

fn open(dir: &Path) -> Arc<Ost> {
    let cache = IndexCache::new(32 << 20);
    let options = OstOptions { capacity: Some(1 << 30), reserve: 0, segment_bytes: 16 << 20, cache, create: true };
    Arc::new(Ost::open(dir, options).expect("opens"))
}

/// As fast as the machine is, without a rest.
fn eager() -> ScrubConfig {
    ScrubConfig { enabled: true, bytes_per_second: ByteSize(1 << 40), pause_between_passes_s: 0 }
}

fn write(store: &Store, oid: u32, number: u64, byte: u8) {
    let raw: Vec<u8> = (0..CHUNK).map(|i| byte ^ (i >> 3) as u8 ^ number as u8).collect();
    support::write(store, oid, number, &raw, Compression::None);
}

fn fill(ost: &Ost) {
    let store = ost.store_or_new(FsId(1)).expect("made");
    (0..CHUNKS).for_each(|number| write(&store, 1, number, 7));
    store.commit().expect("committed");
}

/// Flips a byte of the first chunk of the first segment, which is chunk 0 of object 1.
fn damage(dir: &Path) {
    let segment: PathBuf = dir.join("fs/1/segments/0000000000000001.seg");
    let file = std::fs::File::options().read(true).write(true).open(segment).expect("there");
    let mut byte = [0];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, 5000).expect("read");
    std::os::unix::fs::FileExt::write_all_at(&file, &[!byte[0]], 5000).expect("written");
}

/// Waits until `done`, giving way to the scrub.
async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scrub_reads_everything_names_what_is_damaged_and_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ost = open(dir.path());
    fill(&ost);
    let slow = ScrubConfig { bytes_per_second: ByteSize(64 << 10), ..eager() };
    let scrub = Arc::new(Scrub::new(ost.clone(), slow).expect("begins"));
    let stop = Shutdown::new();
    let task = tokio::spawn(scrub.clone().run(stop.clone()));
    until(|| scrub.cursor().chunks > 0).await;
    stop.request();
    task.await.expect("no panic");
    let cut_off = scrub.cursor();
    assert!(cut_off.passes == 0 && cut_off.chunks < CHUNKS && cut_off.position.is_some(), "{cut_off:?}");
    drop((scrub, ost));

    let ost = open(dir.path());
    let scrub = Arc::new(Scrub::new(ost.clone(), eager()).expect("goes on"));
    assert_eq!(scrub.cursor(), cut_off);
    let stop = Shutdown::new();
    let task = tokio::spawn(scrub.clone().run(stop.clone()));
    until(|| scrub.cursor().passes >= 1).await;
    let store = ost.store(FsId(1)).expect("asked").expect("there");
    assert_eq!(store.damaged().count(), 0);
    damage(dir.path());
    until(|| store.damaged().count() > 0).await;
    let found = store.damaged().findings(FsId(1), 9);
    assert_eq!((found[0].fid, found[0].chunk), (Some(object(1).fid), Some(0)));
    // Written again, it is well again.
    write(&store, 1, 0, 9);
    until(|| store.damaged().count() == 0).await;
    stop.request();
    task.await.expect("no panic");
}

#[test]
fn a_pass_counts_each_chunk_once_however_it_is_cut() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ost = open(dir.path());
    fill(&ost);
    let store = ost.store(FsId(1)).expect("asked").expect("there");
    let (mut after, mut chunks, mut bytes) = (None, 0, 0);
    loop {
        let step = store.scrub(after).expect("read");
        let Some(last) = step.last else { break };
        after = Some(last);
        chunks += step.chunks;
        bytes += step.bytes;
    }
    assert_eq!((chunks, bytes), (CHUNKS, CHUNKS * CHUNK as u64));
}

async fn check(client: &mut MaintenanceClient<tonic::transport::Channel>) -> (Vec<sateen_types::Finding>, Tally) {
    let mut events = client.fsck(FsckRequest { ost: OST, deep: true }).await.expect("begins").into_inner();
    let mut found = Vec::new();
    while let Some(event) = events.message().await.expect("goes on") {
        match FsckEvent::try_from(event).expect("sound") {
            FsckEvent::Finding(finding) => found.push(finding),
            FsckEvent::Progress(_) => {}
            FsckEvent::Done(tally) => return (found, tally),
        }
    }
    panic!("the check was cut off");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ost_at_work_is_checked_without_false_alarm_and_damage_is_told() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ost = open(dir.path());
    fill(&ost);
    let scrub = Arc::new(Scrub::new(ost.clone(), eager()).expect("begins"));
    let maintenance = MaintenanceService::new(HashMap::from([(OstIndex(OST as u16), scrub)]));
    let service = Service::new(ClusterId([5; 16]), HashMap::from([(OstIndex(OST as u16), ost.clone())]), 8, 64 << 20);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let stop = Shutdown::new();
    let asked = stop.clone();
    let served = tokio::spawn(async move { server::serve(service, maintenance, listener, 64, asked).await });
    let mut client = MaintenanceClient::connect(format!("http://{address}")).await.expect("reachable");

    let store = ost.store(FsId(1)).expect("asked").expect("there");
    let writing = Shutdown::new();
    let writers: Vec<_> = (2..5u32)
        .map(|oid| {
            let (store, writing) = (store.clone(), writing.clone());
            std::thread::spawn(move || {
                for n in 0u64.. {
                    if writing.is_requested() {
                        return;
                    }
                    write(&store, oid, n % 9, n as u8);
                    match n % 50 {
                        7 | 30 => store.commit().map(drop).expect("committed"),
                        11 => {
                            store.truncate(&object(oid), CHUNK_LOG2, 3 * CHUNK as u64 + 5, None).map(drop).expect("cut")
                        }
                        23 => store
                            .punch(&object(oid), CHUNK_LOG2, 100, 2 * CHUNK as u64, None)
                            .map(drop)
                            .expect("punched"),
                        49 => store.destroy(&[object(oid)]).expect("destroyed"),
                        _ => {}
                    }
                }
            })
        })
        .collect();
    for _ in 0..8 {
        let (found, tally) = check(&mut client).await;
        // A truncate between its two steps may be seen; it is not damage.
        let damage: Vec<_> = found.iter().filter(|f| !f.kind.is_notice()).collect();
        assert!(damage.is_empty(), "{damage:?}");
        assert!(tally.bytes_verified >= CHUNKS * CHUNK as u64 && tally.objects >= 1, "{tally:?}");
    }
    writing.request();
    writers.into_iter().for_each(|writer| writer.join().expect("no panic"));

    damage(dir.path());
    let (found, tally) = check(&mut client).await;
    assert_eq!((found.len(), found[0].kind, found[0].chunk), (1, FindingKind::Data, Some(0)), "{found:?}");
    assert_eq!(tally.damage, 1);
    let status = client.scrub_status(ScrubStatusRequest { ost: OST }).await.expect("answers").into_inner();
    assert_eq!((status.damaged_chunks, status.damaged.len()), (1, 1));
    let unknown = client.fsck(FsckRequest { ost: 9, deep: false }).await.expect_err("not here");
    assert_eq!(unknown.code(), tonic::Code::NotFound);
    stop.request();
    drop(client);
    served.await.expect("no panic").expect("stopped");
}

#[test]
fn every_figure_has_help_a_type_and_a_line_in_the_documentation() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ost = open(dir.path());
    fill(&ost);
    let scrub = Arc::new(Scrub::new(ost.clone(), eager()).expect("begins"));
    let service = Service::new(ClusterId([5; 16]), HashMap::new(), 8, 64 << 20);
    let mut page = Page::default();
    metrics::fill(&mut page, &[scrub], &service.load());
    let text = page.into_text();
    let mut names = BTreeSet::new();
    let mut family = (String::new(), String::new());
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["#", "HELP", name, _, ..] => family = (name.to_owned(), String::new()),
            ["#", "TYPE", name, kind @ ("counter" | "gauge")] if name == family.0 => family.1 = kind.to_owned(),
            [sample, value] => {
                let name = sample.split('{').next().unwrap_or_default();
                assert_eq!(name, family.0, "{line}");
                assert_eq!(name.ends_with("_total"), family.1 == "counter", "{line}");
                assert!(value.parse::<u64>().is_ok(), "{line}");
                names.insert(name.to_owned());
            }
            _ => panic!("{line}"),
        }
    }
    assert!(
        text.contains(&format!("sateen_oss_store_written_bytes_total{{ost=\"none\"}} {}\n", CHUNKS * CHUNK as u64))
    );
    let documented: BTreeSet<String> = include_str!("../../docs/metrics.md")
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `")?.split('`').next()?.to_owned()))
        .filter(|name| name.starts_with("sateen_oss_"))
        .collect();
    assert_eq!(names, documented);
}
