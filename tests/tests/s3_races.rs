//! Files are written, cut, renamed and removed while others archive, release and restore them, and all of it is exported: nobody ever
//! reads a byte that was not written there, and in the end directory and bucket are the same.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use sateen_client::{Client, Credential, FsCode, Name, Options};
use sateen_tests::cluster::lfs;
use sateen_tests::repository::{Linked, PATH};
use sateen_tests::rng::{noise, seeded};
use sateen_tests::size::amount;
use sateen_tests::{rpc, wait};
use sateen_types::repository::{HsmOperation, RepositoryEvents, RepositorySettings};

/// Requests to archive, release or restore: in CI, and at full size.
const RACES: (u64, u64) = (400, 10_000);
/// Programs that change files, each its own ones.
const OWNERS: usize = 3;
/// Programs that ask for archives, releases and restores of all of them.
const RACERS: usize = 2;
/// Names of one owner.
const NAMES: usize = 6;
/// Longest file: some chunks, not whole ones.
const LENGTH_MAX: usize = 420_000;
/// Longest everything may take to come to rest on a loaded machine.
const REST: Duration = Duration::from_secs(300);
/// Longest pause of a racer between two requests.
const LAG_MS_MAX: u64 = 30;

/// Bytes by name.
type Model = BTreeMap<String, Vec<u8>>;

/// One change of one file, or a look at it.
fn step(root: &Path, owner: usize, rng: &mut StdRng, model: &mut Model) {
    let name = format!("o{owner}-{}", rng.random_range(0..NAMES));
    let path = root.join(&name);
    let failed = |what: &str, e: std::io::Error| -> ! { panic!("{what} {name}: {e}") };
    let writable = || OpenOptions::new().write(true).open(&path).unwrap_or_else(|e| failed("open", e));
    let Some(bytes) = model.get_mut(&name) else {
        let len = rng.random_range(0..LENGTH_MAX);
        let bytes = noise(rng, len);
        fs::write(&path, &bytes).unwrap_or_else(|e| failed("write", e));
        model.insert(name, bytes);
        return;
    };
    match rng.random_range(0..10) {
        0 => {
            let len = rng.random_range(0..LENGTH_MAX);
            *bytes = noise(rng, len);
            fs::write(&path, &*bytes).unwrap_or_else(|e| failed("write", e));
        }
        1 | 2 => {
            let (at, len) = (rng.random_range(0..LENGTH_MAX), rng.random_range(1..70_000));
            let piece = noise(rng, len);
            writable().write_all_at(&piece, at as u64).unwrap_or_else(|e| failed("overwrite", e));
            bytes.resize(bytes.len().max(at + len), 0);
            bytes[at..at + len].copy_from_slice(&piece);
        }
        3 => {
            let len = *[0, 1, bytes.len() / 2, LENGTH_MAX].choose(rng).expect("not empty");
            writable().set_len(len as u64).unwrap_or_else(|e| failed("cut", e));
            bytes.resize(len, 0);
        }
        4 => {
            let to = format!("o{owner}-{}", rng.random_range(0..NAMES));
            fs::rename(&path, root.join(&to)).unwrap_or_else(|e| failed("rename", e));
            let bytes = model.remove(&name).expect("there");
            model.insert(to, bytes);
        }
        5 => {
            fs::remove_file(&path).unwrap_or_else(|e| failed("remove", e));
            model.remove(&name);
        }
        _ => reads(&path, bytes, "in between"),
    }
}

fn reads(path: &Path, expected: &[u8], when: &str) {
    let read = fs::read(path).unwrap_or_else(|e| panic!("{when}, {}: {e}", path.display()));
    if read != expected {
        let first = read.iter().zip(expected).position(|(a, b)| a != b);
        let (has, wanted) = (read.len(), expected.len());
        panic!("{when}, {}: {has} bytes of {wanted}, the first wrong one at {first:?}", path.display());
    }
}

/// Asks for what it likes until `left` is used up; what was granted is counted by kind.
async fn race(source: &str, mut rng: StdRng, left: &AtomicU64, granted: &[AtomicU64; 3]) {
    let source = source.parse().expect("a source");
    let client = Client::connect(&source, Options::default()).await.expect("the MDS answers");
    let name = |text: &str| Name::parse(text.as_bytes()).expect("a name");
    let link =
        client.lookup(&Credential::ROOT, client.root(), &name(PATH.trim_matches('/'))).await.expect("linked").fid;
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..LAG_MS_MAX))).await;
        let file = format!("o{}-{}", rng.random_range(0..OWNERS), rng.random_range(0..NAMES));
        let kind = rng.random_range(0..3);
        let operation = [HsmOperation::Archive, HsmOperation::Release, HsmOperation::Restore][kind];
        let asked = async {
            let fid = client.lookup(&Credential::ROOT, link, &name(&file)).await?.fid;
            client.hsm_request(&Credential::ROOT, fid, operation).await
        };
        match asked.await {
            Ok(()) => drop(granted[kind].fetch_add(1, Ordering::Relaxed)),
            // It is not there, in use, changed, or not in the bucket.
            Err(e) if matches!(e.code, FsCode::NotFound | FsCode::Stale | FsCode::Busy) => {}
            Err(e) if matches!(e.code, FsCode::Invalid | FsCode::NoData | FsCode::NotPermitted) => {}
            Err(e) => panic!("{operation:?} of {file}: {e}"),
        }
    }
    client.close().await.expect("closed");
}

#[test]
fn nobody_reads_wrong_bytes_while_files_are_archived_released_restored_and_changed() {
    let test = "s3-races";
    let (races, mut rng) = (amount(test, RACES.0, RACES.1), seeded(test));
    let exporting = |settings: &mut RepositorySettings| {
        settings.auto_export = RepositoryEvents { created: true, changed: true, deleted: true };
    };
    let linked = Linked::start_with(test, exporting, |_| {});
    let mounts = [linked.cluster.mount(), linked.cluster.mount()];
    let (left, steps, granted) = (AtomicU64::new(races), AtomicU64::new(0), [const { AtomicU64::new(0) }; 3]);
    let source = linked.cluster.source();
    let models: Vec<Model> = std::thread::scope(|scope| {
        let (left, steps, granted, source) = (&left, &steps, &granted, &source);
        for _ in 0..RACERS {
            let rng = StdRng::from_rng(&mut rng);
            scope.spawn(move || rpc::block_on(race(source, rng, left, granted)));
        }
        let owners = (0..OWNERS).map(|owner| {
            let (mut rng, root) = (StdRng::from_rng(&mut rng), linked.on(&mounts[owner % mounts.len()], ""));
            scope.spawn(move || {
                let mut model = Model::new();
                while left.load(Ordering::Relaxed) > 0 {
                    step(&root, owner, &mut rng, &mut model);
                    steps.fetch_add(1, Ordering::Relaxed);
                }
                model
            })
        });
        let owners: Vec<_> = owners.collect();
        owners.into_iter().map(|owner| owner.join().expect("an owner that ends")).collect()
    });
    let model: Model = models.into_iter().flatten().collect();
    let granted = granted.map(AtomicU64::into_inner);
    eprintln!("{races} requests, {granted:?} archives, releases, restores granted; {} steps", steps.into_inner());
    assert!(granted.iter().all(|count| *count > 0), "something was never granted: {granted:?}");

    let rest = wait::try_until(REST, || linked.now().filter(|now| now.export.queued == 0).map(drop));
    assert!(rest.is_some(), "exports do not end: {:?}", linked.now());
    let conflicts = linked.conflicts();
    assert!(conflicts.is_empty(), "{conflicts:?}");
    let bucket = linked.exported("the same bucket", |bucket| bucket.keys().eq(model.keys()));
    for (i, (name, bytes)) in model.iter().enumerate() {
        assert!(bucket[name].bytes == *bytes, "the object {name} has {} other bytes", bucket[name].bytes.len());
        let path = linked.on(&mounts[i % mounts.len()], name);
        reads(&path, bytes, "at rest");
        let released = lfs(&[&"hsm_release", &path]);
        assert!(released.success() || bytes.is_empty(), "{released}");
        reads(&path, bytes, "released");
    }
    linked.cluster.assert_names_sound();
}
